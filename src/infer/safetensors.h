/*
 * safetensors.h - the safetensors format: header checked in full, tensors found by name.
 *
 *     | length n: u64, little-endian | n bytes of JSON | data |
 *     JSON: { "name": { "dtype": "BF16", "shape": [r, c], "data_offsets": [begin, end] }, ...,
 *             "__metadata__": { ... } }      offsets count from the start of data
 *
 * Life:    safetensors_parse or _open -> find* -> fini
 * Threads: read-only once open. Memory: the table is owned, the data borrowed or mapped.
 * Errors:  texts name the file and the tensor.
 */
#ifndef INFER_SAFETENSORS_H
#define INFER_SAFETENSORS_H

#include <mooncake/status.h>

#include "os/file.h"

enum { SHAPE_MAX = 8 };

struct st_entry {
    char *name;     /* owned, UTF-8 */
    char dtype[12]; /* as the file spells it: "BF16", "F32", ... */
    uint32_t rank;
    uint64_t shape[SHAPE_MAX];
    const void *data; /* borrowed from the file's bytes */
    uint64_t bytes;   /* equals product of shape x element size */
};

struct safetensors {
    const struct mc_alloc *alloc;
    struct os_map map;        /* empty when made by parse */
    struct st_entry *entries; /* owned; [count], sorted by name */
    size_t count;
};

/** Over [size] bytes that the caller keeps until fini. Returns MC_OK, MC_E_FORMAT, MC_E_RANGE,
 * MC_E_NOMEM. */
mc_status safetensors_parse(const void *data, size_t size, const char *name,
                            const struct mc_alloc *alloc, struct safetensors *out_p,
                            struct mc_error *error);

/** Map `path` and parse it. As parse, and MC_E_NOT_FOUND, MC_E_IO. */
mc_status safetensors_open(const char *path, const struct mc_alloc *alloc,
                           struct safetensors *out_p, struct mc_error *error);

/** NULL if there is no tensor of that name. */
const struct st_entry *safetensors_find(const struct safetensors *st, const char *name);

void safetensors_fini(struct safetensors *st);

#endif /* INFER_SAFETENSORS_H */
