/* safetensors.c - the header's JSON into a table, checked until nothing in the file is unaccounted for. */
#include "infer/safetensors.h"

#include <stdio.h>
#include <stdlib.h>

#include <jansson.h>

#include "base/alloc.h"
#include "base/error.h"
#include "infer/json.h"

enum { LENGTH_BYTES = 8, HEADER_MAX = 100 * 1000 * 1000 /* the format's own limit */ };

/* What is being parsed, for the functions below. */
struct source {
    const char *name; /* of the file, before every error text */
    const unsigned char *data;
    uint64_t data_bytes; /* after the header */
    struct mc_error *error;
};

/** Bits of one element; 0 for a type we do not know, whose size cannot be checked. */
static uint32_t dtype_bits(const char *dtype)
{
    static const struct {
        const char *name;
        uint32_t bits;
    } known[] = {
        { "F4", 4 },   { "F6_E2M3", 6 }, { "F6_E3M2", 6 }, { "BOOL", 8 },    { "U8", 8 },
        { "I8", 8 },   { "F8_E5M2", 8 }, { "F8_E4M3", 8 }, { "F8_E8M0", 8 }, { "I16", 16 },
        { "U16", 16 }, { "F16", 16 },    { "BF16", 16 },   { "I32", 32 },    { "U32", 32 },
        { "F32", 32 }, { "C64", 64 },    { "F64", 64 },    { "I64", 64 },    { "U64", 64 },
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
        if (!strcmp(dtype, known[i].name))
            return known[i].bits;
    return 0;
}

static uint64_t little_endian(const unsigned char *bytes)
{
    uint64_t value = 0;

    for (int i = LENGTH_BYTES - 1; i >= 0; i--)
        value = value << 8 | bytes[i];
    return value;
}

static mc_status read_shape(const struct source *src, const char *name, const json_t *shape,
                            struct st_entry *entry)
{
    const size_t rank = json_array_size(shape);

    if (!json_is_array(shape))
        return error_set(src->error, MC_E_FORMAT, "%s: %s: shape: expected a list, found %s",
                         src->name, name, json_kind(shape));
    if (rank > SHAPE_MAX)
        return error_set(src->error, MC_E_RANGE,
                         "%s: %s: shape: %zu dimensions; at most %d are accepted", src->name, name,
                         rank, SHAPE_MAX);
    for (size_t i = 0; i < rank; i++) {
        const json_t *dim = json_array_get(shape, i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return error_set(src->error, MC_E_FORMAT,
                             "%s: %s: shape[%zu]: expected a size, found %s", src->name, name, i,
                             json_is_integer(dim) ? "a negative number" : json_kind(dim));
        entry->shape[i] = (uint64_t)json_integer_value(dim);
    }
    entry->rank = (uint32_t)rank;
    return MC_OK;
}

static mc_status read_offsets(const struct source *src, const char *name, const json_t *offsets,
                              struct st_entry *entry)
{
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);

    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return error_set(src->error, MC_E_FORMAT, "%s: %s: data_offsets: expected [begin, end]",
                         src->name, name);
    const json_int_t b = json_integer_value(begin), e = json_integer_value(end);
    if (b < 0 || e < b)
        return error_set(src->error, MC_E_FORMAT,
                         "%s: %s: data_offsets: [%lld, %lld] is not a range", src->name, name,
                         (long long)b, (long long)e);
    if ((uint64_t)e > src->data_bytes)
        return error_set(
            src->error, MC_E_FORMAT,
            "%s: %s: data_offsets: [%lld, %lld] runs past the %llu bytes of data; is the "
            "file complete?",
            src->name, name, (long long)b, (long long)e, (unsigned long long)src->data_bytes);
    entry->data = src->data + b;
    entry->bytes = (uint64_t)(e - b);
    return MC_OK;
}

/* bits / 8 x the product of the shape must be the bytes between the offsets. */
static mc_status check_bytes(const struct source *src, const char *name,
                             const struct st_entry *entry)
{
    size_t bits = dtype_bits(entry->dtype);

    if (bits == 0)
        return MC_OK; /* of unknown size: an error where the tensor is used, not here */
    for (uint32_t i = 0; i < entry->rank; i++)
        if (!size_mul(bits, entry->shape[i], &bits))
            return error_set(src->error, MC_E_FORMAT, "%s: %s: shape: its product overflows",
                             src->name, name);
    if (bits % 8 != 0 || bits / 8 != entry->bytes)
        return error_set(src->error, MC_E_FORMAT,
                         "%s: %s: data_offsets: %llu bytes, but dtype %s and shape need %llu",
                         src->name, name, (unsigned long long)entry->bytes, entry->dtype,
                         (unsigned long long)(bits / 8));
    return MC_OK;
}

static mc_status read_entry(const struct source *src, const char *name, const json_t *value,
                            struct st_entry *entry)
{
    const char *dtype = json_string_value(json_object_get(value, "dtype"));

    if (!json_is_object(value))
        return error_set(src->error, MC_E_FORMAT, "%s: %s: expected an object, found %s", src->name,
                         name, json_kind(value));
    if (!dtype)
        return error_set(src->error, MC_E_FORMAT, "%s: %s: dtype: expected a string", src->name,
                         name);
    strncpy(entry->dtype, dtype,
            sizeof(entry->dtype) - 1); /* a longer one is unknown, cut or not */
    mc_status status = read_shape(src, name, json_object_get(value, "shape"), entry);
    if (status == MC_OK)
        status = read_offsets(src, name, json_object_get(value, "data_offsets"), entry);
    return status == MC_OK ? check_bytes(src, name, entry) : status;
}

static mc_status check_metadata(const struct source *src, const json_t *metadata)
{
    const char *key;
    json_t *value;

    if (!json_is_object(metadata))
        return error_set(src->error, MC_E_FORMAT, "%s: __metadata__: expected an object, found %s",
                         src->name, json_kind(metadata));
    json_object_foreach((json_t *)(uintptr_t)metadata, key, value) if (
        !json_is_string(value)) return error_set(src->error, MC_E_FORMAT,
                                                 "%s: __metadata__.%s: expected a string, found %s",
                                                 src->name, key, json_kind(value));
    return MC_OK;
}

static mc_status read_entries(const struct source *src, json_t *header, struct safetensors *st)
{
    const char *name;
    json_t *value;

    json_object_foreach(header, name, value)
    {
        mc_status status;
        if (!strcmp(name, "__metadata__")) {
            status = check_metadata(src, value);
        } else {
            struct st_entry *entry = &st->entries[st->count];
            status = read_entry(src, name, value, entry);
            if (status == MC_OK && !(entry->name = alloc_text(st->alloc, name, strlen(name))))
                status = error_set(src->error, MC_E_NOMEM, "%s: out of memory", src->name);
            st->count += status == MC_OK;
        }
        if (status != MC_OK)
            return status;
    }
    return MC_OK;
}

static int by_place(const void *a, const void *b)
{
    const struct st_entry *x = a, *y = b;
    const uintptr_t p = (uintptr_t)x->data, q = (uintptr_t)y->data;

    /* An empty tensor begins where its neighbour does, and comes before it. */
    return p != q ? (p > q) - (p < q) : (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int by_name(const void *a, const void *b)
{
    const struct st_entry *x = a, *y = b;

    return strcmp(x->name, y->name);
}

/* The format wants every byte of data to belong to exactly one tensor. */
static mc_status check_cover(const struct source *src, struct safetensors *st)
{
    uint64_t end = 0;

    qsort(st->entries, st->count, sizeof(*st->entries), by_place);
    for (size_t i = 0; i < st->count; i++) {
        const struct st_entry *entry = &st->entries[i];
        const uint64_t begin = (uint64_t)((uintptr_t)entry->data - (uintptr_t)src->data);
        if (begin != end)
            return error_set(src->error, MC_E_FORMAT,
                             "%s: %s: data_offsets: begins at byte %llu, %s the tensor before it, "
                             "which ends at %llu",
                             src->name, entry->name, (unsigned long long)begin,
                             begin < end ? "inside" : "with a gap after", (unsigned long long)end);
        end = begin + entry->bytes;
    }
    if (end != src->data_bytes)
        return error_set(src->error, MC_E_FORMAT,
                         "%s: %llu bytes of data, but the tensors in its header end at %llu",
                         src->name, (unsigned long long)src->data_bytes, (unsigned long long)end);
    return MC_OK;
}

static mc_status read_table(const struct source *src, json_t *header, struct safetensors *st)
{
    st->entries = alloc_zeroed(st->alloc, json_object_size(header), sizeof(*st->entries));
    if (!st->entries)
        return error_set(src->error, MC_E_NOMEM, "%s: out of memory", src->name);
    mc_status status = read_entries(src, header, st);
    if (status == MC_OK)
        status = check_cover(src, st);
    if (status == MC_OK)
        qsort(st->entries, st->count, sizeof(*st->entries), by_name);
    return status;
}

static mc_status parse_header(const struct source *src, const char *text, size_t size,
                              json_t **header_p)
{
    json_error_t reason;

    if (size == 0 || text[0] != '{')
        return error_set(src->error, MC_E_FORMAT, "%s: header: does not begin with {", src->name);
    json_t *header = json_loadb(text, size, JSON_REJECT_DUPLICATES, &reason);
    if (!header) {
        char place[300];
        snprintf(place, sizeof(place), "%s: header", src->name);
        return json_failed(&reason, place, src->error);
    }
    *header_p = header;
    return MC_OK;
}

mc_status safetensors_parse(const void *data, size_t size, const char *name,
                            const struct mc_alloc *alloc, struct safetensors *out_p,
                            struct mc_error *error)
{
    const unsigned char *bytes = data;

    if (size < LENGTH_BYTES)
        return error_set(error, MC_E_FORMAT, "%s: %zu bytes, too short for the header's length",
                         name, size);
    const uint64_t header_size = little_endian(bytes);
    if (header_size > HEADER_MAX)
        return error_set(error, MC_E_RANGE, "%s: header: length %llu; at most %d is accepted", name,
                         (unsigned long long)header_size, HEADER_MAX);
    if (header_size > size - LENGTH_BYTES)
        return error_set(error, MC_E_FORMAT,
                         "%s: header: length %llu runs past the file's %zu bytes", name,
                         (unsigned long long)header_size, size);

    const struct source src = { .name = name,
                                .data = bytes + LENGTH_BYTES + header_size,
                                .data_bytes = size - LENGTH_BYTES - header_size,
                                .error = error };
    json_t *header = NULL;
    mc_status status =
        parse_header(&src, (const char *)bytes + LENGTH_BYTES, (size_t)header_size, &header);
    if (status != MC_OK)
        return status;
    struct safetensors st = { .alloc = alloc };
    status = read_table(&src, header, &st);
    json_decref(header);
    if (status != MC_OK)
        safetensors_fini(&st);
    else
        *out_p = st;
    return status;
}

mc_status safetensors_open(const char *path, const struct mc_alloc *alloc,
                           struct safetensors *out_p, struct mc_error *error)
{
    const char *slash = strrchr(path, '/');
    struct os_map map;
    mc_status status = os_map_open(path, &map, error);

    if (status != MC_OK)
        return status;
    status = safetensors_parse(map.data, map.size, slash ? slash + 1 : path, alloc, out_p, error);
    if (status != MC_OK)
        os_map_close(&map);
    else
        out_p->map = map;
    return status;
}

const struct st_entry *safetensors_find(const struct safetensors *st, const char *name)
{
    size_t low = 0, high = st->count;

    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const int order = strcmp(st->entries[middle].name, name);
        if (order == 0)
            return &st->entries[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

void safetensors_fini(struct safetensors *st)
{
    for (size_t i = 0; i < st->count; i++)
        alloc_free(st->alloc, st->entries[i].name);
    if (st->entries)
        alloc_free(st->alloc, st->entries);
    os_map_close(&st->map);
    *st = (struct safetensors){ 0 };
}
