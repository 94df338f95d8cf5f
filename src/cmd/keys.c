/* keys.c - from texts and a file to digests. */
#include "cmd/keys.h"

#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "os/file.h"

enum { FILE_MAX_BYTES = 2 << 20 };

/* "a,b": the keys of one text. */
static mc_status add_text(struct auth *auth, const char *text, struct mc_error *error)
{
    for (;;) {
        const size_t size = strcspn(text, ",");
        const mc_status status = auth_add(auth, text, size, error);
        if (status != MC_OK)
            return error_prefix(error, status, "--api-key");
        if (text[size] == '\0')
            return MC_OK;
        text += size + 1;
    }
}

static mc_status add_file(struct auth *auth, const char *path, const struct mc_alloc *alloc,
                          struct mc_error *error)
{
    size_t size;
    char *text;

    mc_status status = os_file_read(path, FILE_MAX_BYTES, alloc, &text, &size, error);
    if (status == MC_OK) {
        status = auth_add_lines(auth, text, size, path, error);
        memset(text, 0, size);
        alloc_free(alloc, text);
    }
    return status == MC_OK ? MC_OK : error_prefix(error, status, "--api-key-file");
}

mc_status keys_read(const struct setting_list *keys, const char *file, struct auth *auth,
                    const struct mc_alloc *alloc, struct mc_error *error)
{
    mc_status status = MC_OK;

    for (uint32_t i = 0; i < keys->count && status == MC_OK; i++)
        status = add_text(auth, keys->items[i], error);
    if (status == MC_OK && file)
        status = add_file(auth, file, alloc, error);
    return status;
}
