/* fingerprint.c - every tensor's name, type, shape and checksum, in one order whatever the shards. */
#include "worker/fingerprint.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/crc.h"
#include "base/error.h"
#include "infer/model.h"
#include "infer/weights.h"
#include "kv/identity.h"

enum { CONFIG_MAX = 16 << 20 };

static int by_name(const void *a, const void *b)
{
    const struct kv_tensor *one = a, *other = b;

    return strcmp(one->name, other->name);
}

static size_t gather(const mc_model *model, struct kv_tensor *tensors)
{
    size_t count = 0;

    for (size_t i = 0; i < model->shard_count; i++)
        for (size_t k = 0; k < model->shards[i].count; k++) {
            const struct st_entry *entry = &model->shards[i].entries[k];
            tensors[count++] = (struct kv_tensor){ .name = entry->name,
                                                   .dtype = entry->dtype,
                                                   .shape = entry->shape,
                                                   .dimensions = entry->rank,
                                                   .crc = crc32c(0, entry->data, entry->bytes) };
        }
    qsort(tensors, count, sizeof(*tensors), by_name);
    return count;
}

/* A tensor may stand in two shards; the model took the first that its index names, and so do we not care
 * which: equal names must be equal tensors. Returns the count without doubles, or SIZE_MAX. */
static size_t without_doubles(struct kv_tensor *tensors, size_t count)
{
    size_t kept = 0;

    for (size_t i = 0; i < count; i++) {
        if (kept > 0 && !strcmp(tensors[kept - 1].name, tensors[i].name)) {
            if (tensors[kept - 1].crc != tensors[i].crc)
                return SIZE_MAX;
            continue;
        }
        tensors[kept++] = tensors[i];
    }
    return kept;
}

static mc_status combine(const mc_model *model, struct kv_model *kv, const struct mc_alloc *alloc,
                         struct mc_identity *fingerprint_p, struct mc_error *error)
{
    size_t count = 0;

    for (size_t i = 0; i < model->shard_count; i++)
        count += model->shards[i].count;
    struct kv_tensor *tensors = count ? alloc_zeroed(alloc, count, sizeof(*tensors)) : NULL;
    if (count && !tensors)
        return error_set(error, MC_E_NOMEM, "out of memory for a fingerprint");
    kv->tensors = tensors;
    kv->tensor_count = count ? without_doubles(tensors, gather(model, tensors)) : 0;
    mc_status status = MC_E_FORMAT;
    if (kv->tensor_count != SIZE_MAX)
        status = kv_fingerprint(kv, fingerprint_p);
    alloc_free(alloc, tensors);
    if (status != MC_OK)
        return error_set(error, MC_E_FORMAT, "%s: two tensors of one name differ", model->name);
    return MC_OK;
}

mc_status fingerprint_of(const mc_model *model, const char *directory,
                         const struct mc_kv_layout *layout, const char *kernel,
                         const struct mc_alloc *alloc, struct mc_identity *fingerprint_p,
                         struct mc_error *error)
{
    char path[MODEL_PATH_MAX];
    char *config = NULL;
    size_t size = 0;
    mc_status status = model_path(directory, "config.json", path, error);

    if (status == MC_OK)
        status = os_file_read(path, CONFIG_MAX, alloc, &config, &size, error);
    if (status != MC_OK)
        return status;
    struct kv_model kv = {
        .config = config, .config_size = size, .layout = *layout, .kernel = kernel
    };
    status = combine(model, &kv, alloc, fingerprint_p, error);
    alloc_free(alloc, config);
    return status;
}
