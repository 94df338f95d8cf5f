/* frame.c - greetings and frames: fixed headers, checked before anything in them is believed. */
#include "wire/frame.h"

#include <assert.h>
#include <string.h>

#include "base/crc.h"
#include "base/error.h"
#include "wire/bytes.h"

static const uint8_t MAGIC[4] = { 'M', 'O', 'O', 'N' };

enum { FLAGS_INSIST = 0xff00 }; /* not to be ignored; none is known yet */

#define FEATURES_INSIST (UINT64_C(0xffffffff) << 32)

/* ------------------------------------------------------------------------------------- greeting */

void wire_greeting_encode(const struct wire_greeting *greeting, uint8_t bytes[WIRE_GREETING_BYTES])
{
    memcpy(bytes, MAGIC, sizeof(MAGIC));
    put_u16(bytes + 4, greeting->version);
    put_u16(bytes + 6, greeting->version_min);
    put_u64(bytes + 8, greeting->features);
    put_u64(bytes + 16, greeting->incarnation);
    put_u32(bytes + 24, 0);
    put_u32(bytes + 28, crc32c(0, bytes, 28));
}

mc_status wire_greeting_decode(const uint8_t bytes[WIRE_GREETING_BYTES],
                               struct wire_greeting *greeting_p, struct mc_error *error)
{
    const struct wire_greeting greeting = {
        .version = get_u16(bytes + 4),
        .version_min = get_u16(bytes + 6),
        .features = get_u64(bytes + 8),
        .incarnation = get_u64(bytes + 16),
    };

    if (memcmp(bytes, MAGIC, sizeof(MAGIC)) != 0)
        return error_set(error, MC_E_FORMAT,
                         "greeting: magic is %02x%02x%02x%02x, not MOON: no mooncake at this port",
                         bytes[0], bytes[1], bytes[2], bytes[3]);
    if (get_u32(bytes + 28) != crc32c(0, bytes, 28))
        return error_set(error, MC_E_CORRUPT, "greeting: crc does not match");
    if (greeting.version == 0 || greeting.version_min > greeting.version)
        return error_set(error, MC_E_FORMAT, "greeting: versions %u to %u cannot be",
                         greeting.version_min, greeting.version);
    if (greeting.incarnation == 0)
        return error_set(error, MC_E_FORMAT, "greeting: incarnation is 0");
    *greeting_p = greeting;
    return MC_OK;
}

mc_status wire_negotiate(const struct wire_greeting *ours, const struct wire_greeting *theirs,
                         uint16_t *version_p, uint64_t *features_p, struct mc_error *error)
{
    const uint16_t version = ours->version < theirs->version ? ours->version : theirs->version;

    if (version < ours->version_min || version < theirs->version_min)
        return error_set(error, MC_E_UNSUPPORTED,
                         "no common version: we speak %u to %u, the peer %u to %u",
                         ours->version_min, ours->version, theirs->version_min, theirs->version);

    const uint64_t differ = (ours->features ^ theirs->features) & FEATURES_INSIST;
    if (differ & theirs->features)
        return error_set(error, MC_E_UNSUPPORTED,
                         "the peer insists on features %#llx, which are not set here",
                         (unsigned long long)(differ & theirs->features));
    if (differ)
        return error_set(error, MC_E_UNSUPPORTED,
                         "features %#llx are required here, and the peer does not set them",
                         (unsigned long long)differ);
    *version_p = version;
    *features_p = ours->features & theirs->features;
    return MC_OK;
}

/* --------------------------------------------------------------------------------------- frames */

void wire_header_encode(const struct wire_frame *frame, uint8_t bytes[WIRE_HEADER_BYTES])
{
    assert(frame->body_size <= WIRE_BODY_MAX);
    assert(frame->kind <= UINT16_MAX && frame->flags <= UINT16_MAX);
    put_u32(bytes, frame->body_size);
    put_u16(bytes + 4, (uint16_t)frame->kind);
    put_u16(bytes + 6, (uint16_t)frame->flags);
    put_u64(bytes + 8, frame->id);
    put_u64(bytes + 16, frame->deadline_ns);
    put_u64(bytes + 24, frame->payload);
    put_u32(bytes + 32, crc32c(0, frame->body, frame->body_size));
    put_u32(bytes + 36, crc32c(0, bytes, 36));
}

void wire_reader_init(struct wire_reader *reader, void *body, size_t capacity, uint32_t body_max,
                      uint64_t payload_max)
{
    assert(body_max <= WIRE_BODY_MAX);
    *reader = (struct wire_reader){
        .body = body,
        .capacity = capacity,
        .body_max = body_max,
        .payload_max = payload_max,
        .status = MC_OK,
    };
}

void wire_reader_buffer(struct wire_reader *reader, void *body, size_t capacity)
{
    const size_t collected =
        reader->have > WIRE_HEADER_BYTES ? reader->have - WIRE_HEADER_BYTES : 0;

    assert(capacity >= collected);
    if (collected != 0)
        memmove(body, reader->body, collected);
    reader->body = body;
    reader->capacity = capacity;
}

/** Copy from `bytes` until `reader->head` holds `wanted`; whether it does. */
static bool collect_head(struct wire_reader *reader, size_t wanted, const uint8_t *bytes,
                         size_t size, size_t *used_p)
{
    const size_t missing = wanted - reader->have;
    const size_t taken = size < missing ? size : missing;

    if (taken != 0)
        memcpy(reader->head + reader->have, bytes, taken);
    reader->have += taken;
    *used_p = taken;
    return reader->have == wanted;
}

mc_status wire_reader_greet(struct wire_reader *reader, const uint8_t *bytes, size_t size,
                            size_t *used_p, struct wire_greeting *greeting_p,
                            struct mc_error *error)
{
    *used_p = 0;
    if (reader->status != MC_OK)
        return error_set(error, reader->status, "this connection has ended");
    if (!collect_head(reader, WIRE_GREETING_BYTES, bytes, size, used_p))
        return MC_PENDING;
    reader->have = 0;
    return reader->status = wire_greeting_decode(reader->head, greeting_p, error);
}

/** Read the collected header and judge it. */
static mc_status open_frame(struct wire_reader *reader, struct mc_error *error)
{
    const uint8_t *head = reader->head;

    if (get_u32(head + 36) != crc32c(0, head, 36))
        return error_set(error, MC_E_CORRUPT, "frame: crc of its header does not match");
    reader->frame = (struct wire_frame){
        .body_size = get_u32(head),
        .kind = get_u16(head + 4),
        .flags = get_u16(head + 6),
        .id = get_u64(head + 8),
        .deadline_ns = get_u64(head + 16),
        .payload = get_u64(head + 24),
    };
    reader->body_crc = get_u32(head + 32);
    if (reader->frame.flags & FLAGS_INSIST)
        return error_set(error, MC_E_UNSUPPORTED, "frame: flags %#x are not known here",
                         reader->frame.flags & FLAGS_INSIST);
    if (reader->frame.body_size > reader->body_max)
        return error_set(error, MC_E_RANGE, "frame: a body of %u bytes, at most %u are allowed",
                         reader->frame.body_size, reader->body_max);
    if (reader->frame.payload > reader->payload_max)
        return error_set(
            error, MC_E_RANGE, "frame: a payload of %llu bytes, at most %llu are allowed",
            (unsigned long long)reader->frame.payload, (unsigned long long)reader->payload_max);
    return MC_OK;
}

/** The body lies at `body`: the frame is whole. */
static mc_status close_frame(struct wire_reader *reader, const uint8_t *body,
                             struct wire_frame *frame_p, struct mc_error *error)
{
    reader->have = 0;
    if (crc32c(0, body, reader->frame.body_size) != reader->body_crc)
        return error_set(error, MC_E_CORRUPT,
                         "frame %llu of kind %u: crc of its body does not match",
                         (unsigned long long)reader->frame.id, reader->frame.kind);
    reader->frame.body = body;
    *frame_p = reader->frame;
    return MC_OK;
}

/** Feed a reader that has not ended. */
static mc_status feed(struct wire_reader *reader, const uint8_t *bytes, size_t size, size_t *used_p,
                      struct wire_frame *frame_p, struct mc_error *error)
{
    if (reader->have < WIRE_HEADER_BYTES) {
        if (!collect_head(reader, WIRE_HEADER_BYTES, bytes, size, used_p))
            return MC_PENDING;
        const mc_status status = open_frame(reader, error);
        if (status != MC_OK)
            return status;
    }

    const size_t collected = reader->have - WIRE_HEADER_BYTES;
    const size_t missing = reader->frame.body_size - collected;
    const size_t left = size - *used_p;
    const uint8_t *rest = bytes ? bytes + *used_p : NULL;

    if (collected == 0 && left >= missing) { /* whole in what the caller holds: no copy */
        *used_p += missing;
        return close_frame(reader, rest, frame_p, error);
    }
    if (reader->frame.body_size > reader->capacity)
        return MC_E_FULL;
    const size_t taken = left < missing ? left : missing;
    if (taken != 0)
        memcpy(reader->body + collected, rest, taken);
    reader->have += taken;
    *used_p += taken;
    return taken == missing ? close_frame(reader, reader->body, frame_p, error) : MC_PENDING;
}

mc_status wire_reader_feed(struct wire_reader *reader, const uint8_t *bytes, size_t size,
                           size_t *used_p, struct wire_frame *frame_p, struct mc_error *error)
{
    *used_p = 0;
    if (reader->status != MC_OK)
        return error_set(error, reader->status, "this connection has ended");

    const mc_status status = feed(reader, bytes, size, used_p, frame_p, error);
    if (status != MC_PENDING && status != MC_E_FULL)
        reader->status = status;
    return status;
}

size_t wire_reader_body(const struct wire_reader *reader)
{
    return reader->have < WIRE_HEADER_BYTES ? 0 : reader->frame.body_size;
}

size_t wire_reader_wants(const struct wire_reader *reader)
{
    if (reader->have < WIRE_HEADER_BYTES)
        return WIRE_HEADER_BYTES - reader->have;
    return WIRE_HEADER_BYTES + reader->frame.body_size - reader->have;
}
