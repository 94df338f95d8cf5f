/* record_decision.c - decisions as bytes, by a table of numbered fields. */
#include <string.h>

#include "base/error.h"
#include "sched/bytes.h"
#include "sched/record.h"

enum { SHAPE_8 = 1, SHAPE_SIZED = 4, FIELD_BYTES = 10, KEYS_NUMBER = 63, KEYS_HEAD = 6 };

struct field {
    uint16_t number;
    uint8_t bytes;   /* 4 or 8 */
    uint16_t offset; /* in struct mc_decision */
};

/* What is not here would not be compared: a field that gets its name from `reserved` gets a row. */
static_assert(offsetof(struct mc_decision, reserved) == 216, "a new field is recorded, too");
static_assert(offsetof(struct mc_prediction, reserved) == 88, "the same");

#define FIELD(number, name) \
    { \
        (number), sizeof(((struct mc_decision *)0)->name), \
            (uint16_t)offsetof(struct mc_decision, name) \
    }

static const struct field fields[] = {
    FIELD(1, kind),
    FIELD(2, reason),
    FIELD(3, request),
    FIELD(4, prefill),
    FIELD(5, decode),
    FIELD(6, holder),
    FIELD(7, pull_tokens),
    FIELD(8, reuse_tokens),
    FIELD(9, order),
    FIELD(10, retry_after_ns),
    FIELD(11, score),
    FIELD(12, considered),
    FIELD(13, pull_ns),
    FIELD(14, soft),
    FIELD(15, flags),
    FIELD(32, predicted.queue_ns),
    FIELD(33, predicted.transfer_ns),
    FIELD(34, predicted.prefill_ns),
    FIELD(35, predicted.ttft_ns),
    FIELD(36, predicted.ttft_low_ns),
    FIELD(37, predicted.ttft_high_ns),
    FIELD(38, predicted.tbt_ns),
    FIELD(39, predicted.tbt_high_ns),
    FIELD(40, predicted.output_tokens),
    FIELD(41, predicted.decode_load),
    FIELD(42, predicted.other_ns),
};
enum { FIELDS = sizeof(fields) / sizeof(fields[0]) };

/* Of a double: its bits. */
static uint64_t bits_of(const struct field *field, const struct mc_decision *decision)
{
    const char *at = (const char *)decision + field->offset;
    uint32_t small;
    uint64_t bits;

    if (field->bytes == sizeof(small)) {
        memcpy(&small, at, sizeof(small));
        return small;
    }
    memcpy(&bits, at, sizeof(bits));
    return bits;
}

mc_status record_decision_write(const struct mc_decision *d, void *bytes, size_t capacity,
                                size_t *size_p)
{
    uint8_t *to = bytes;
    size_t size = 0;

    for (int i = 0; i < FIELDS; i++) {
        const uint64_t bits = bits_of(&fields[i], d);
        if (bits == 0)
            continue;
        if (capacity - size < FIELD_BYTES)
            return MC_E_RANGE;
        bytes_put(to + size, (uint64_t)fields[i].number << 3 | SHAPE_8, 2);
        bytes_put(to + size + 2, bits, 8);
        size += FIELD_BYTES;
    }
    const uint64_t key_bytes = d->keys ? d->key_count * sizeof(*d->keys) : 0;
    if (key_bytes != 0) {
        if (d->key_count > RECORD_BODY_MAX / sizeof(*d->keys) ||
            capacity - size < KEYS_HEAD + key_bytes)
            return MC_E_RANGE;
        bytes_put(to + size, (uint64_t)KEYS_NUMBER << 3 | SHAPE_SIZED, 2);
        bytes_put(to + size + 2, key_bytes, 4);
        memcpy(to + size + KEYS_HEAD, d->keys, key_bytes);
        size += KEYS_HEAD + key_bytes;
    }
    *size_p = size;
    return MC_OK;
}

/* A number that is not known is of a later release; the bytes tell of a difference all the same. */
static bool store(uint64_t number, uint64_t bits, struct mc_decision *d)
{
    for (int i = 0; i < FIELDS; i++) {
        char *at = (char *)d + fields[i].offset;
        const uint32_t small = (uint32_t)bits;

        if (fields[i].number != number)
            continue;
        if (fields[i].bytes == sizeof(small) && bits > UINT32_MAX)
            return false;
        if (fields[i].bytes == sizeof(small))
            memcpy(at, &small, sizeof(small));
        else
            memcpy(at, &bits, sizeof(bits));
    }
    return true;
}

mc_status record_decision_read(const struct record *record, struct mc_decision *decision_p,
                               struct mc_error *error)
{
    struct mc_decision d;
    size_t at = 0;

    memset(&d, 0, sizeof(d));
    while (at < record->size) {
        const uint8_t *field = record->body + at;
        const size_t left = record->size - at;
        const uint64_t key = left < 2 ? 0 : bytes_get(field, 2), shape = key & 7;
        size_t size = FIELD_BYTES;

        if (shape == SHAPE_SIZED && left >= KEYS_HEAD)
            size = KEYS_HEAD + (size_t)bytes_get(field + 2, 4);
        else if (shape != SHAPE_8)
            size = SIZE_MAX;
        if (size > left || (shape == SHAPE_8 && !store(key >> 3, bytes_get(field + 2, 8), &d)))
            return error_set(error, MC_E_FORMAT, "recording: byte %zu of a decision", at);
        if (shape == SHAPE_SIZED && key >> 3 == KEYS_NUMBER)
            d.key_count = (size - KEYS_HEAD) / sizeof(struct mc_key);
        at += size;
    }
    *decision_p = d;
    return MC_OK;
}
