/*
 * fuzz_handshake.c - what a hostile peer may say before it has proved anything.
 *
 * Input: a byte whose bit 0 says who dialled and bit 1 whether there is a secret, a byte for the size of
 * pieces, then what the peer sends. It is given at once and in pieces; both must agree. Sums are made
 * right first, or nothing would get behind them. With a secret, nothing may succeed: nobody guesses it.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc.h"
#include "wire/bytes.h"
#include "wire/handshake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
    if (!condition)
        abort();
}

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
        if (body > left)
            return;
        at += WIRE_HEADER_BYTES + body;
    }
}

static void check_peer(const struct wire_peer *peer)
{
    require(peer->incarnation != 0 && peer->name[0] != '\0');
    require(strlen(peer->name) <= MC_NAME_MAX && strlen(peer->software) <= MC_NAME_MAX);
    require(strlen(peer->segment) <= MC_NAME_MAX && strlen(peer->tenant) <= MC_NAME_MAX);
}

/** How it ended, and how many bytes it took and wants to send. */
static uint64_t greet(uint8_t how, const uint8_t *stream, size_t size, size_t piece)
{
    static const struct mc_identity nonce = { { 7 } };
    const struct wire_self self = { .incarnation = 9,
                                    .role = 1,
                                    .name = "fuzz",
                                    .secret = how & 2 ? "secret" : NULL,
                                    .secret_size = how & 2 ? 6 : 0 };
    struct wire_handshake *h = malloc(sizeof(*h));
    struct mc_error error = { 0 };
    const uint8_t *out;
    mc_status status = MC_PENDING;
    size_t at = 0, used;

    require(h != NULL);
    require(wire_handshake_init(h, &self, how & 1, &nonce, NULL) == MC_OK);
    while (at < size && status == MC_PENDING) {
        const size_t part = size - at < piece ? size - at : piece;
        status = wire_handshake_feed(h, stream + at, part, &used, &error);
        require(used <= part && (status != MC_PENDING || used == part));
        at += used;
    }
    require(status <= MC_PENDING && (status >= MC_OK || error.text[0] != '\0'));
    require(status != MC_OK || !(how & 2));
    if (status == MC_OK)
        check_peer(wire_handshake_peer(h));
    const size_t wants = wire_handshake_out(h, &out);
    require(wants <= WIRE_HANDSHAKE_OUT_MAX);
    const uint64_t sum = ((uint64_t)(uint32_t)status << 32) ^ (at << 12) ^ crc32c(0, out, wants);
    free(h);
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    const size_t rest = size - 2, piece = (size_t)data[1] + 1;
    uint8_t *stream = malloc(rest ? rest : 1);

    require(stream != NULL);
    memcpy(stream, data + 2, rest);
    require(greet(data[0], stream, rest, rest + 1) == greet(data[0], stream, rest, piece));
    repair(stream, rest);
    require(greet(data[0], stream, rest, rest + 1) == greet(data[0], stream, rest, piece));
    free(stream);
    return 0;
}
