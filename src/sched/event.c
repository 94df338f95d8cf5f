/*
 * event.c - events as bytes, by tables of numbered fields.
 *
 *     record = | now: u64 | kind: u16 | field, field, ... in rising order of their numbers |
 *     field  = | key: u16 = number << 3 | shape | value |
 *     value  = 8 bytes (shape 1), or | size: u32 | size bytes | (shape 4); other shapes are not used
 *
 * All numbers are little-endian. Fields that are 0 or empty are not written, so an event has one form.
 * Shapes are those of wire/msg.h. A field whose number is not known is skipped.
 */
#include <mooncake/sched.h>

#include <string.h>

#include "base/error.h"
#include "sched/bytes.h"

enum type { TYPE_U32, TYPE_U64, TYPE_F64, TYPE_KEYS };
enum { SHAPE_8 = 1, SHAPE_SIZED = 4, HEAD_BYTES = 10, KEY_BYTES = sizeof(struct mc_key) };

struct field {
    uint16_t number;
    uint8_t type;    /* enum type */
    uint16_t offset; /* in struct mc_sched_event */
};

/* The keys' count lies behind their pointer, in both structs that have keys. */
static_assert(offsetof(struct mc_sched_blocks, count) ==
                  offsetof(struct mc_sched_blocks, keys) + sizeof(void *),
              "as the code below reads it");
static_assert(offsetof(struct mc_sched_request, key_count) ==
                  offsetof(struct mc_sched_request, keys) + sizeof(void *),
              "as the code below reads it");
static_assert(sizeof(enum mc_medium) == 4, "written as a u32");

#define AT(path) ((uint16_t)offsetof(struct mc_sched_event, path))

static const struct field id_fields[] = { { 1, TYPE_U64, AT(id) } };

static const struct field instance_fields[] = {
    { 1, TYPE_U64, AT(instance.id) },
    { 2, TYPE_U32, AT(instance.role) },
    { 3, TYPE_U32, AT(instance.stages) },
    { 4, TYPE_U64, AT(instance.host) },
    { 5, TYPE_U64, AT(instance.kv_tokens_max) },
    { 6, TYPE_U64, AT(instance.sequences_max) },
    { 7, TYPE_U64, AT(instance.chunk_tokens) },
    { 8, TYPE_U64, AT(instance.kv_token_bytes) },
    { 9, TYPE_U64, AT(instance.model) },
    { 32, TYPE_F64, AT(instance.cost.p0) },
    { 33, TYPE_F64, AT(instance.cost.p1) },
    { 34, TYPE_F64, AT(instance.cost.p2) },
    { 35, TYPE_F64, AT(instance.cost.p3) },
    { 36, TYPE_F64, AT(instance.cost.d0) },
    { 37, TYPE_F64, AT(instance.cost.d1) },
    { 38, TYPE_F64, AT(instance.cost.d2) },
    { 39, TYPE_F64, AT(instance.cost.t0) },
    { 40, TYPE_F64, AT(instance.cost.bytes_per_s) },
    { 41, TYPE_F64, AT(instance.cost.load_bytes_per_s) },
    { 42, TYPE_F64, AT(instance.cost.band) },
};

static const struct field load_fields[] = {
    { 1, TYPE_U64, AT(load.id) },
    { 2, TYPE_U64, AT(load.lease_ns) },
    { 3, TYPE_U64, AT(load.queued) },
    { 4, TYPE_U64, AT(load.queued_tokens) },
    { 5, TYPE_U64, AT(load.running) },
    { 6, TYPE_U64, AT(load.context_tokens) },
    { 7, TYPE_U64, AT(load.free_tokens) },
    { 8, TYPE_U64, AT(load.send_bytes) },
    { 9, TYPE_U64, AT(load.receive_bytes) },
    { 10, TYPE_U64, AT(load.latest) },
};

static const struct field blocks_fields[] = {
    { 1, TYPE_U64, AT(blocks.id) },
    { 2, TYPE_U32, AT(blocks.medium) },
    { 3, TYPE_KEYS, AT(blocks.keys) },
};

static const struct field request_fields[] = {
    { 1, TYPE_U64, AT(request.id) },          { 2, TYPE_U64, AT(request.tokens) },
    { 3, TYPE_KEYS, AT(request.keys) },       { 4, TYPE_U64, AT(request.output_max) },
    { 5, TYPE_U64, AT(request.output_hint) }, { 6, TYPE_U64, AT(request.slo.ttft_ns) },
    { 7, TYPE_U64, AT(request.slo.tbt_ns) },  { 8, TYPE_U64, AT(request.deadline_ns) },
    { 9, TYPE_U64, AT(request.tenant) },      { 10, TYPE_U64, AT(request.model) },
    { 11, TYPE_U32, AT(request.priority) },   { 12, TYPE_U32, AT(request.flags) },
    { 13, TYPE_U64, AT(request.barred) },     { 14, TYPE_U64, AT(request.barred_decode) },
    { 15, TYPE_U64, AT(request.identity) },   { 16, TYPE_U64, AT(request.arrived_ns) },
};

static const struct field progress_fields[] = {
    { 1, TYPE_U64, AT(progress.request) },   { 2, TYPE_U64, AT(progress.id) },
    { 3, TYPE_U64, AT(progress.tokens) },    { 4, TYPE_U64, AT(progress.reused) },
    { 5, TYPE_U64, AT(progress.sequences) }, { 6, TYPE_U64, AT(progress.duration_ns) },
    { 7, TYPE_U32, AT(progress.status) },    { 8, TYPE_U64, AT(progress.gap_ns) },
};

static const struct field transfer_fields[] = {
    { 1, TYPE_U64, AT(transfer.request) },     { 2, TYPE_U64, AT(transfer.from) },
    { 3, TYPE_U64, AT(transfer.to) },          { 4, TYPE_U64, AT(transfer.bytes) },
    { 5, TYPE_U64, AT(transfer.duration_ns) }, { 6, TYPE_U32, AT(transfer.status) },
};

static const struct field slo_fields[] = {
    { 1, TYPE_U64, AT(slo.ttft_ns) },
    { 2, TYPE_U64, AT(slo.tbt_ns) },
};

struct table {
    const struct field *fields; /* [count] */
    size_t count;
};

#define TABLE(fields) \
    { \
        (fields), sizeof(fields) / sizeof((fields)[0]) \
    }

/* By enum mc_sched_event_kind. */
static const struct table tables[] = {
    [MC_EVENT_TICK] = { id_fields, 0 },
    [MC_EVENT_INSTANCE] = TABLE(instance_fields),
    [MC_EVENT_INSTANCE_GONE] = TABLE(id_fields),
    [MC_EVENT_INSTANCE_DRAIN] = TABLE(id_fields),
    [MC_EVENT_LOAD] = TABLE(load_fields),
    [MC_EVENT_STORED] = TABLE(blocks_fields),
    [MC_EVENT_EVICTED] = TABLE(blocks_fields),
    [MC_EVENT_BLOCKS_RESET] = TABLE(id_fields),
    [MC_EVENT_REQUEST] = TABLE(request_fields),
    [MC_EVENT_PREFILL_BEGIN] = TABLE(progress_fields),
    [MC_EVENT_PREFILL_END] = TABLE(progress_fields),
    [MC_EVENT_TRANSFER_BEGIN] = TABLE(transfer_fields),
    [MC_EVENT_TRANSFER_END] = TABLE(transfer_fields),
    [MC_EVENT_DECODE_BEGIN] = TABLE(progress_fields),
    [MC_EVENT_DECODE_STEP] = TABLE(progress_fields),
    [MC_EVENT_REQUEST_END] = TABLE(progress_fields),
    [MC_EVENT_SLO] = TABLE(slo_fields),
    [MC_EVENT_MEASURED] = TABLE(progress_fields),
};
enum { KINDS = sizeof(tables) / sizeof(tables[0]) };

/* ----------------------------------------------------------------------------------------- encode */

static uint64_t field_bits(const struct field *field, const struct mc_sched_event *event)
{
    const char *at = (const char *)event + field->offset;
    uint32_t small;
    uint64_t bits;

    if (field->type == TYPE_U32) {
        memcpy(&small, at, sizeof(small));
        return small;
    }
    memcpy(&bits, at, sizeof(bits)); /* of a double: its bits */
    return bits;
}

struct key_list {
    const struct mc_key *keys;
    uint64_t count;
};

static struct key_list field_keys(const struct field *field, const struct mc_sched_event *event)
{
    struct key_list list;
    const char *at = (const char *)event + field->offset;

    memcpy(&list.keys, at, sizeof(list.keys));
    memcpy(&list.count, at + sizeof(list.keys), sizeof(list.count));
    return list;
}

/* Into what is left of `bytes`, or MC_E_RANGE. */
static mc_status encode_field(const struct field *field, const struct mc_sched_event *event,
                              uint8_t *bytes, size_t capacity, size_t *size_p)
{
    if (field->type != TYPE_KEYS) {
        const uint64_t bits = field_bits(field, event);

        *size_p = bits ? 10 : 0;
        if (*size_p > capacity)
            return MC_E_RANGE;
        if (bits) {
            bytes_put(bytes, (uint64_t)field->number << 3 | SHAPE_8, 2);
            bytes_put(bytes + 2, bits, 8);
        }
        return MC_OK;
    }
    const struct key_list list = field_keys(field, event);
    if (list.count != 0 && !list.keys)
        return MC_E_ARG;
    *size_p = 0;
    if (list.count == 0)
        return MC_OK;
    if (list.count > UINT32_MAX / KEY_BYTES || list.count * KEY_BYTES + 6 > capacity)
        return MC_E_RANGE;
    bytes_put(bytes, (uint64_t)field->number << 3 | SHAPE_SIZED, 2);
    bytes_put(bytes + 2, list.count * KEY_BYTES, 4);
    memcpy(bytes + 6, list.keys, list.count * KEY_BYTES);
    *size_p = list.count * KEY_BYTES + 6;
    return MC_OK;
}

mc_status mc_sched_event_encode(uint64_t now_ns, const struct mc_sched_event *event, void *bytes_p,
                                size_t capacity, size_t *size_p)
{
    uint8_t *bytes = bytes_p;
    size_t size = HEAD_BYTES;

    if (event->kind >= KINDS || !tables[event->kind].fields)
        return MC_E_ARG;
    if (capacity < HEAD_BYTES)
        return MC_E_RANGE;
    bytes_put(bytes, now_ns, 8);
    bytes_put(bytes + 8, event->kind, 2);
    for (size_t i = 0; i < tables[event->kind].count; i++) {
        size_t written = 0;
        const mc_status status = encode_field(&tables[event->kind].fields[i], event, bytes + size,
                                              capacity - size, &written);
        if (status != MC_OK)
            return status;
        size += written;
    }
    *size_p = size;
    return MC_OK;
}

/* ----------------------------------------------------------------------------------------- decode */

struct reader {
    const uint8_t *bytes;
    size_t size, at;
    struct mc_key *keys;
    size_t key_capacity;
    struct mc_error *error;
};

static mc_status malformed(const struct reader *r, const char *what)
{
    return error_set(r->error, MC_E_FORMAT, "scheduler event: byte %zu: %s", r->at, what);
}

static mc_status store_number(const struct reader *r, const struct field *field, uint64_t bits,
                              struct mc_sched_event *event)
{
    char *at = (char *)event + field->offset;
    const uint32_t small = (uint32_t)bits;

    if (field->type == TYPE_U32) {
        if (bits > UINT32_MAX)
            return malformed(r, "the number is too large for its field");
        memcpy(at, &small, sizeof(small));
    } else {
        memcpy(at, &bits, sizeof(bits));
    }
    return MC_OK;
}

static mc_status store_keys(const struct reader *r, const struct field *field, const uint8_t *bytes,
                            size_t size, struct mc_sched_event *event)
{
    char *at = (char *)event + field->offset;
    const struct key_list list = { r->keys, size / KEY_BYTES };

    if (size % KEY_BYTES != 0)
        return malformed(r, "part of a key");
    if (list.count > r->key_capacity)
        return error_set(r->error, MC_E_RANGE, "scheduler event: %llu keys, room for %zu",
                         (unsigned long long)list.count, r->key_capacity);
    if (list.count == 0)
        return MC_OK;
    memcpy(r->keys, bytes, size);
    memcpy(at, &list.keys, sizeof(list.keys));
    memcpy(at + sizeof(list.keys), &list.count, sizeof(list.count));
    return MC_OK;
}

static const struct field *find_field(const struct table *table, uint64_t number)
{
    for (size_t i = 0; i < table->count; i++)
        if (table->fields[i].number == number)
            return &table->fields[i];
    return NULL;
}

/* Read one field and go behind it. */
static mc_status decode_field(struct reader *r, const struct table *table, uint64_t *number_p,
                              struct mc_sched_event *event)
{
    if (r->size - r->at < 2)
        return malformed(r, "it ends in a field");
    const uint64_t key = bytes_get(r->bytes + r->at, 2), shape = key & 7;
    const struct field *field = find_field(table, key >> 3);
    const size_t head = shape == SHAPE_SIZED ? 6 : 2;

    if (shape != SHAPE_8 && shape != SHAPE_SIZED)
        return malformed(r, "a shape that there is not");
    if (key >> 3 <= *number_p)
        return malformed(r, "fields out of order");
    if (field && (field->type == TYPE_KEYS) != (shape == SHAPE_SIZED))
        return malformed(r, "a field of the wrong shape");
    if (r->size - r->at < head)
        return malformed(r, "it ends in a field");
    const size_t size = shape == SHAPE_SIZED ? (size_t)bytes_get(r->bytes + r->at + 2, 4) : 8;
    if (r->size - r->at - head < size)
        return malformed(r, "it ends in a field");

    const uint8_t *value = r->bytes + r->at + head;
    mc_status status = MC_OK;
    if (field)
        status = shape == SHAPE_8 ? store_number(r, field, bytes_get(value, 8), event)
                                  : store_keys(r, field, value, size, event);
    if (status == MC_OK) {
        *number_p = key >> 3;
        r->at += head + size;
    }
    return status;
}

mc_status mc_sched_event_decode(const void *bytes, size_t size, struct mc_key *keys,
                                size_t key_capacity, uint64_t *now_ns_p,
                                struct mc_sched_event *event_p, struct mc_error *error)
{
    struct reader r = { bytes, size, 0, keys, key_capacity, error };
    struct mc_sched_event event;
    uint64_t number = 0;

    memset(&event, 0, sizeof(event));
    if (size < HEAD_BYTES)
        return malformed(&r, "too short");
    event.kind = (uint32_t)bytes_get(r.bytes + 8, 2);
    if (event.kind >= KINDS || !tables[event.kind].fields)
        return malformed(&r, "a kind that there is not");
    r.at = HEAD_BYTES;
    while (r.at < size) {
        const mc_status status = decode_field(&r, &tables[event.kind], &number, &event);
        if (status != MC_OK)
            return status;
    }
    *now_ns_p = bytes_get(r.bytes, 8);
    *event_p = event;
    return MC_OK;
}
