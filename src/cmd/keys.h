/* keys.h - API keys as --api-key, MC_API_KEY and --api-key-file give them. */
#ifndef CMD_KEYS_H
#define CMD_KEYS_H

#include "base/setting.h"
#include "gateway/auth.h"

/* clang-format off */
#define KEYS_SETTINGS(X)                                                                            \
    X(api_key, "api-key", 0, SECRET, NULL, 0, 0, NULL, "KEY", "Trust",                              \
      "Clients need this key, or one of these (a,b; repeatable); others can see it in ps.")         \
    X(api_key_file, "api-key-file", 0, TEXT, NULL, 0, 0, NULL, "FILE", "Trust",                     \
      "Clients need a key of this file: one in each line, # begins a comment.")
/* clang-format on */

/** What the flags gave; keys are added to `auth`, which was initialised. MC_OK, MC_E_ARG, MC_E_RANGE, MC_E_FULL or as
 * os_file_read(). */
mc_status keys_read(const struct setting_list *keys, const char *file, struct auth *auth,
                    const struct mc_alloc *alloc, struct mc_error *error);

#endif /* CMD_KEYS_H */
