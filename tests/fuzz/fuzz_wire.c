/*
 * fuzz_wire.c - bodies and streams as a hostile peer would send them.
 *
 * Input: a number of two bytes, little-endian, then the rest.
 *   a message's kind: the rest is a body; what is accepted must have one form, which decodes to the same
 *   anything else:    the rest is a stream that begins with a greeting, given to a reader at once and
 *                     in pieces of as many bytes as the number's low byte says; both must agree. Sums are
 *                     made right first where the stream is long enough, or nothing would get behind them.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc.h"
#include "wire/bytes.h"
#include "wire/frame.h"
#include "wire/msg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

union any_message {
    unsigned char bytes[WIRE_STRUCT_MAX];
    uint64_t align;
    void *align_pointer;
};

static void require(int condition)
{
    if (!condition)
        abort();
}

/** Encode into memory of exactly the right size. */
static uint8_t *encode(uint32_t kind, const union any_message *message, size_t *size_p)
{
    const size_t size = wire_encoded_size((enum wire_kind)kind, message);
    uint8_t *bytes = malloc(size ? size : 1);

    require(bytes != NULL);
    require(wire_encode((enum wire_kind)kind, message, bytes, size, size_p) == MC_OK);
    require(*size_p == size);
    return bytes;
}

static void fuzz_body(uint32_t kind, const uint8_t *data, size_t size)
{
    union any_message message, again;
    struct mc_error error = { 0 };
    size_t size_one, size_two;

    const mc_status status = wire_decode(kind, data, size, &message, &error);
    require(status == MC_OK || (status == MC_E_FORMAT && error.text[0] != '\0'));
    if (status != MC_OK)
        return;
    uint8_t *one = encode(kind, &message, &size_one);
    require(wire_decode(kind, one, size_one, &again, NULL) == MC_OK);
    uint8_t *two = encode(kind, &again, &size_two);
    require(size_one == size_two && memcmp(one, two, size_one) == 0);
    require(size_one <= size); /* what is dropped is zeros and what is not known */
    free(one);
    free(two);
}

/** Make the sums of a greeting and of every frame behind it right, as far as they are whole. */
static void repair(uint8_t *stream, size_t size)
{
    if (size < WIRE_GREETING_BYTES)
        return;
    memcpy(stream, "MOON", 4);
    put_u32(stream + 28, crc32c(0, stream, 28));
    for (size_t at = WIRE_GREETING_BYTES; size - at >= WIRE_HEADER_BYTES;) {
        uint8_t *head = stream + at;
        const size_t left = size - at - WIRE_HEADER_BYTES;
        const uint32_t body = get_u32(head);

        if (body <= left)
            put_u32(head + 32, crc32c(0, head + WIRE_HEADER_BYTES, body));
        put_u32(head + 36, crc32c(0, head, 36));
        if (body > left || get_u64(head + 24) > left - body)
            return;
        at += WIRE_HEADER_BYTES + body + (size_t)get_u64(head + 24);
    }
}

/** Read a stream in pieces; a sum over all that came out, and how it ended. */
static uint64_t read_stream(const uint8_t *stream, size_t size, size_t piece)
{
    static uint8_t small[64], large[4096];
    struct wire_reader reader;
    struct wire_greeting greeting;
    struct wire_frame frame;
    uint64_t sum = 0;
    mc_status status = MC_PENDING;
    size_t at = 0, used;

    wire_reader_init(&reader, small, sizeof(small), sizeof(large), 1 << 20);
    for (; at < size && status == MC_PENDING; at += used) {
        const size_t part = size - at < piece ? size - at : piece;
        status = wire_reader_greet(&reader, stream + at, part, &used, &greeting, NULL);
        require(used <= part);
    }
    if (status != MC_OK)
        return (uint64_t)status;
    while (at < size) {
        const size_t part = size - at < piece ? size - at : piece;
        status = wire_reader_feed(&reader, stream + at, part, &used, &frame, NULL);
        require(used <= part);
        at += used;
        if (status == MC_E_FULL) { /* and back to the small one for the next frame */
            require(wire_reader_body(&reader) > sizeof(small));
            wire_reader_buffer(&reader, large, sizeof(large));
        }
        if (status == MC_PENDING || status == MC_E_FULL)
            continue;
        if (status != MC_OK)
            break;
        wire_reader_buffer(&reader, small, sizeof(small));
        sum = sum * 31 + frame.id + frame.kind + frame.payload +
              crc32c(0, frame.body, frame.body_size);
        at += frame.payload < size - at ? (size_t)frame.payload : size - at;
    }
    return sum * 31 + (uint64_t)status;
}

static void fuzz_stream(size_t piece, const uint8_t *data, size_t size)
{
    uint8_t *stream = malloc(size ? size : 1);

    require(stream != NULL);
    memcpy(stream, data, size);
    require(read_stream(stream, size, size + 1) == read_stream(stream, size, piece + 1));
    repair(stream, size);
    require(read_stream(stream, size, size + 1) == read_stream(stream, size, piece + 1));
    free(stream);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    const uint32_t kind = get_u16(data);
    if (wire_message(kind))
        fuzz_body(kind, data + 2, size - 2);
    else
        fuzz_stream(kind & 0xff, data + 2, size - 2);
    return 0;
}
