/*
 * auth.h - who may use the API: keys, as "Authorization: Bearer KEY" brings them.
 *
 * Kept are the keys' SHA-256 digests, never the keys; a request's key is compared with every one of them in
 * a time that does not depend on what it is.
 *
 * Life:    auth_init -> auth_add* -> auth_admits* -> auth_fini
 * Threads: one.
 * Memory:  digests from the allocator.
 * Errors:  a key that no header could carry is refused, without being told back.
 */
#ifndef GATEWAY_AUTH_H
#define GATEWAY_AUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <mooncake/status.h>

enum { AUTH_KEYS_MAX = 1024, AUTH_KEY_BYTES_MAX = 1024, AUTH_DIGEST = 32 };

struct auth {
    const struct mc_alloc *alloc;          /* borrowed */
    unsigned char (*digests)[AUTH_DIGEST]; /* owned; [count] */
    uint32_t count;                        /* 0: everybody is admitted */
};

void auth_init(struct auth *auth, const struct mc_alloc *alloc);
void auth_fini(struct auth *auth);

/** Add a key, [size] bytes: 1 to 1,024 visible characters of ASCII, no blanks. Returns MC_OK, MC_E_ARG, MC_E_FULL
 * (1,024 keys) or MC_E_NOMEM. */
mc_status auth_add(struct auth *auth, const char *key, size_t size, struct mc_error *error);

/** Add the keys of a file's text: one in each line, without the blanks around it; lines that are empty or
 * begin with # do not count. At least one. `name` is the file's, for errors. Returns as auth_add(), or MC_E_RANGE
 * (none). */
mc_status auth_add_lines(struct auth *auth, const char *text, size_t size, const char *name,
                         struct mc_error *error);

/** Whether a header "Authorization: <value>" lets its sender in; NULL: there is none. */
bool auth_admits(const struct auth *auth, const char *value);

#endif /* GATEWAY_AUTH_H */
