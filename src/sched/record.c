/* record.c - the frame of records; options as lines, events and ends as bytes. */
#include "sched/record.h"

#include <stdlib.h>
#include <string.h>

#include "base/crc.h"
#include "base/error.h"
#include "sched/bytes.h"

/* ------------------------------------------------------------------------------------------ frame */

enum { HEAD_KIND = 4, HEAD_ZERO = 6, HEAD_SUM = 8 };

static uint32_t sum(const uint8_t *head, const void *body, size_t size)
{
    return crc32c(crc32c(0, head, HEAD_SUM), body, size);
}

void record_head(enum record_kind kind, const void *body, size_t size,
                 uint8_t head[RECORD_HEAD_BYTES])
{
    bytes_put(head, size, 4);
    bytes_put(head + HEAD_KIND, kind, 2);
    bytes_put(head + HEAD_ZERO, 0, 2);
    bytes_put(head + HEAD_SUM, sum(head, body, size), 4);
}

static mc_status bad(struct mc_error *error, mc_status status, size_t at, const char *what)
{
    return error_set(error, status, "recording: byte %zu: %s", at, what);
}

mc_status record_next(const void *bytes, size_t size, size_t *at_p, struct record *record_p,
                      struct mc_error *error)
{
    const uint8_t *file = bytes;
    size_t at = *at_p;

    if (at == 0) {
        if (size < RECORD_MAGIC_BYTES || memcmp(file, RECORD_MAGIC, RECORD_MAGIC_BYTES) != 0)
            return bad(error, MC_E_FORMAT, 0,
                       "not a recording of a scheduler, or one of a later release");
        at = RECORD_MAGIC_BYTES;
    }
    const uint8_t *head = file + at;
    const size_t left = size - at;
    if (left == 0)
        return MC_E_NOT_FOUND;
    if (left < RECORD_HEAD_BYTES)
        return MC_PENDING;
    const size_t length = (size_t)bytes_get(head, 4);
    const uint64_t kind = bytes_get(head + HEAD_KIND, 2);
    if (length > RECORD_BODY_MAX || bytes_get(head + HEAD_ZERO, 2) != 0 || kind < RECORD_OPTIONS ||
        kind > RECORD_END)
        return bad(error, MC_E_CORRUPT, at, "no record begins like this");
    if (left - RECORD_HEAD_BYTES < length)
        return MC_PENDING;
    if (bytes_get(head + HEAD_SUM, 4) != sum(head, head + RECORD_HEAD_BYTES, length))
        return bad(error, MC_E_CORRUPT, at, "the record's checksum does not fit");
    *record_p = (struct record){ (enum record_kind)kind, head + RECORD_HEAD_BYTES, length };
    *at_p = at + RECORD_HEAD_BYTES + length;
    return MC_OK;
}

/* ---------------------------------------------------------------------------------------- options */

/* What is not here would be lost: an option that gets its name from `reserved` gets a row, and its size here. */
static_assert(offsetof(struct mc_sched_options, reserved) == 136, "a new option is recorded, too");

/* field, type */
#define OPTION_NUMBERS(X) \
    X(admission, enum mc_admission) \
    X(flags, uint32_t) \
    X(slo.ttft_ns, uint64_t) \
    X(slo.tbt_ns, uint64_t) \
    X(seed, uint64_t) \
    X(block_tokens, uint64_t) \
    X(instances_max, uint64_t) \
    X(requests_max, uint64_t) \
    X(blocks_max, uint64_t) \
    X(waiting_max, uint64_t)
#define OPTION_TEXTS(X) X(policy) X(policy_parameters) X(admission_parameters) X(replication)

mc_status record_options_write(const struct mc_sched_options *o, struct buf *out)
{
    const size_t begin = out->size;

#define OPTION_WRITE_TEXT(field) \
    if (o->field && strchr(o->field, '\n')) \
        return MC_E_ARG; \
    if (o->field) \
        buf_addf(out, "%s=%s\n", #field, o->field);
    OPTION_TEXTS(OPTION_WRITE_TEXT)
#undef OPTION_WRITE_TEXT
#define OPTION_WRITE(field, type) buf_addf(out, "%s=%llu\n", #field, (unsigned long long)o->field);
    OPTION_NUMBERS(OPTION_WRITE)
#undef OPTION_WRITE
    if (out->failed)
        return MC_E_NOMEM;
    return out->size - begin <= RECORD_OPTIONS_MAX ? MC_OK : MC_E_RANGE;
}

static bool read_number(const char *text, uint64_t *value_p)
{
    uint64_t value = 0;

    if (*text == '\0')
        return false;
    for (; *text >= '0' && *text <= '9'; text++) {
        const uint64_t digit = (uint64_t)(*text - '0');

        if (value > (UINT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *value_p = value;
    return *text == '\0';
}

/* `line` is "name=value" and lives as long as the options. */
static bool read_option(char *line, struct mc_sched_options *o)
{
    char *equals = strchr(line, '=');
    uint64_t number = 0;

    if (!equals)
        return false;
    *equals = '\0';
    const char *value = equals + 1;
#define OPTION_READ_TEXT(field) \
    if (strcmp(line, #field) == 0) { \
        o->field = value; \
        return true; \
    }
    OPTION_TEXTS(OPTION_READ_TEXT)
#undef OPTION_READ_TEXT
    if (!read_number(value, &number))
        return false;
#define OPTION_READ(field, type) \
    if (strcmp(line, #field) == 0) { \
        o->field = (type)number; \
        return (uint64_t)o->field == number; \
    }
    OPTION_NUMBERS(OPTION_READ)
#undef OPTION_READ
    return false;
}

mc_status record_options_read(const struct record *record, struct record_options *options_p,
                              struct mc_error *error)
{
    char *line = options_p->texts, *end = line + record->size;

    options_p->options = (struct mc_sched_options){ 0 };
    if (record->size >= sizeof(options_p->texts) || memchr(record->body, '\0', record->size))
        return error_set(error, MC_E_FORMAT, "recording: its options are not text");
    memcpy(line, record->body, record->size);
    *end = '\0';
    while (line < end) {
        char *newline = strchr(line, '\n');
        if (!newline)
            return error_set(error, MC_E_FORMAT, "recording: its options end in a line");
        *newline = '\0';
        if (!read_option(line, &options_p->options))
            return error_set(error, MC_E_FORMAT,
                             "recording: option \"%.60s\": unknown, or not a number that it takes; "
                             "a later release recorded it?",
                             line);
        line = newline + 1;
    }
    return MC_OK;
}

/* ----------------------------------------------------------------------------------- events, ends */

mc_status record_event_write(uint64_t now_ns, const struct mc_sched_event *event, mc_status status,
                             void *bytes, size_t capacity, size_t *size_p)
{
    size_t size = 0;

    if (capacity < 4)
        return MC_E_RANGE;
    bytes_put(bytes, (uint32_t)status, 4);
    const mc_status encoded =
        mc_sched_event_encode(now_ns, event, (uint8_t *)bytes + 4, capacity - 4, &size);
    if (encoded == MC_OK)
        *size_p = size + 4;
    return encoded;
}

mc_status record_event_read(const struct record *record, struct mc_key *keys, size_t key_capacity,
                            uint64_t *now_ns_p, struct mc_sched_event *event_p, mc_status *status_p,
                            struct mc_error *error)
{
    if (record->size < 4)
        return error_set(error, MC_E_FORMAT, "recording: an event without a status");
    const mc_status status = mc_sched_event_decode(record->body + 4, record->size - 4, keys,
                                                   key_capacity, now_ns_p, event_p, error);
    if (status == MC_OK)
        *status_p = (mc_status)(int32_t)(uint32_t)bytes_get(record->body, 4);
    return status;
}

void record_end_write(const struct record_last *last, uint8_t bytes[RECORD_END_BYTES])
{
    bytes_put(bytes, last->why, 4);
    bytes_put(bytes + 4, 0, 4);
    bytes_put(bytes + 8, last->events, 8);
    bytes_put(bytes + 16, last->decisions, 8);
}

mc_status record_end_read(const struct record *record, struct record_last *last_p,
                          struct mc_error *error)
{
    if (record->size != RECORD_END_BYTES || bytes_get(record->body, 4) > RECORD_TOO_LARGE)
        return error_set(error, MC_E_FORMAT, "recording: an end that says nothing known");
    *last_p = (struct record_last){ .why = (enum record_end)bytes_get(record->body, 4),
                                    .events = bytes_get(record->body + 8, 8),
                                    .decisions = bytes_get(record->body + 16, 8) };
    return MC_OK;
}
