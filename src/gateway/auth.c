/* auth.c - keys as digests, and the comparison that tells nothing by its time. */
#include "gateway/auth.h"

#include <openssl/sha.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"

void auth_init(struct auth *a, const struct mc_alloc *alloc)
{
    *a = (struct auth){ .alloc = alloc };
}

void auth_fini(struct auth *a)
{
    if (a->alloc)
        alloc_free(a->alloc, a->digests);
    *a = (struct auth){ 0 };
}

static bool is_key(const char *key, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if ((unsigned char)key[i] <= 0x20 || (unsigned char)key[i] >= 0x7f)
            return false;
    return size > 0 && size <= AUTH_KEY_BYTES_MAX;
}

mc_status auth_add(struct auth *a, const char *key, size_t size, struct mc_error *error)
{
    if (!is_key(key, size))
        return error_set(error, MC_E_ARG,
                         "an API key has 1 to %d visible characters of ASCII and no blanks",
                         AUTH_KEY_BYTES_MAX);
    if (a->count == AUTH_KEYS_MAX)
        return error_set(error, MC_E_FULL, "more than %d API keys", AUTH_KEYS_MAX);
    void *grown = alloc_resize(a->alloc, a->digests, a->count + 1, AUTH_DIGEST);
    if (!grown)
        return error_set(error, MC_E_NOMEM, "out of memory for API keys");
    a->digests = grown;
    SHA256((const unsigned char *)key, size, a->digests[a->count++]);
    return MC_OK;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

mc_status auth_add_lines(struct auth *a, const char *text, size_t size, const char *name,
                         struct mc_error *error)
{
    const uint32_t before = a->count;
    uint32_t line = 1;

    for (size_t at = 0; at < size; line++) {
        const char *begin = text + at;
        const char *stop = memchr(begin, '\n', size - at);
        const char *end = stop ? stop : text + size;
        at = (size_t)(end - text) + 1;
        while (begin < end && is_blank(*begin))
            begin++;
        while (end > begin && is_blank(end[-1]))
            end--;
        if (begin == end || *begin == '#')
            continue;
        const mc_status status = auth_add(a, begin, (size_t)(end - begin), error);
        if (status != MC_OK)
            return error_prefix(error, status, "%s:%u", name, line);
    }
    return a->count > before ? MC_OK : error_set(error, MC_E_RANGE, "%s: no key in it", name);
}

/* "Bearer KEY", as any case of letters writes it. */
static const char *bearer(const char *value)
{
    static const char word[] = "bearer";

    for (size_t i = 0; i < sizeof(word) - 1; i++)
        if ((value[i] | 0x20) != word[i])
            return NULL;
    value += sizeof(word) - 1;
    if (*value != ' ')
        return NULL;
    return value + strspn(value, " ");
}

bool auth_admits(const struct auth *a, const char *value)
{
    const char *key = value ? bearer(value) : NULL;
    unsigned char digest[AUTH_DIGEST];
    unsigned found = 0;

    if (a->count == 0)
        return true;
    if (!key || strlen(key) > AUTH_KEY_BYTES_MAX)
        return false;
    SHA256((const unsigned char *)key, strlen(key), digest);
    for (uint32_t i = 0; i < a->count; i++) {
        unsigned other = 0;
        for (size_t k = 0; k < AUTH_DIGEST; k++)
            other |= (unsigned)(digest[k] ^ a->digests[i][k]);
        found |= other == 0;
    }
    return found != 0;
}
