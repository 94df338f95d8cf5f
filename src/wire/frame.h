/*
 * frame.h - how messages follow each other on a connection: a greeting each way, then frames.
 *
 * Life:    wire_reader_init -> wire_reader_greet* -> (wire_reader_feed | wire_reader_buffer)*; the reader
 *          is plain memory.
 * Threads: pure functions; a reader belongs to one thread.
 * Memory:  nothing is allocated; the reader collects into a buffer that the caller gives it, small at
 *          first and larger when a long body comes, so that a thousand idle connections cost little.
 * Errors:  what comes from a peer is an event: MC_E_FORMAT, MC_E_CORRUPT, MC_E_RANGE or
 *          MC_E_UNSUPPORTED with a text. They are for good: bytes cannot be found again in a stream that
 *          has lost its beat, so the connection ends.
 *
 * Greeting, 32 bytes, the first thing each side sends without waiting for the other:
 *
 *      0       4         6             8          16            24         28
 *     | magic | version | version_min | features | incarnation | reserved | crc |
 *
 * magic is "MOON"; crc is the CRC32C of bytes 0 .. 27. Features 0 .. 31 are used when both sides set
 * them; a side that sets one of 32 .. 63 insists on it. incarnation is random and not 0: this life of
 * the sender, its Transfer Engine's where it has one, the same on all of its connections.
 *
 * Frame, 40 bytes, then `body` bytes of a message (msg.h), then `payload` bytes as they are:
 *
 *      0      4      6       8    16            24        32         36
 *     | body | kind | flags | id | deadline_ns | payload | body_crc | crc |
 *
 * id is the sender's for a request, 0 where nothing is answered, and comes back in the answer; both
 * sides may ask, so ids of the two directions have nothing to do with each other. deadline_ns is what is left of the
 * request's time when it is sent, 0: no deadline. crc is the CRC32C of bytes 0 .. 35. Flag 0: an
 * answer. Other flags 0 .. 7 may be ignored, one of 8 .. 15 that is not known ends the connection.
 * Payload is not summed here: what it carries has its own checksums.
 */
#ifndef WIRE_FRAME_H
#define WIRE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <mooncake/status.h>

enum {
    WIRE_VERSION = 1,     /* what this release speaks */
    WIRE_VERSION_MIN = 1, /* and the oldest it still does */
    WIRE_GREETING_BYTES = 32,
    WIRE_HEADER_BYTES = 40,
    WIRE_BODY_MAX = 8 << 20, /* bytes of a body: the largest answer that msg.def allows fits */
};

/** Bits of a greeting. 0 .. 31: used if both have them. 32 .. 63: the sender insists. */
#define WIRE_FEATURE_CHECKSUM (UINT64_C(1) << 0)  /* checksums of payload in data_* messages */
#define WIRE_FEATURE_SAME_HOST (UINT64_C(1) << 1) /* answers same_host on its local socket */
#define WIRE_FEATURE_SECRET (UINT64_C(1) << 32)   /* hello has a nonce, hello_proof follows */
#define WIRE_FEATURES_KNOWN (WIRE_FEATURE_CHECKSUM | WIRE_FEATURE_SAME_HOST | WIRE_FEATURE_SECRET)

struct wire_greeting {
    uint16_t version, version_min;
    uint64_t features;
    uint64_t incarnation;
};

void wire_greeting_encode(const struct wire_greeting *greeting, uint8_t bytes[WIRE_GREETING_BYTES]);

/** MC_OK, MC_E_FORMAT (not this protocol, versions or incarnation that cannot be) or MC_E_CORRUPT. */
mc_status wire_greeting_decode(const uint8_t bytes[WIRE_GREETING_BYTES],
                               struct wire_greeting *greeting_p, struct mc_error *error);

/**
 * What two sides speak: the higher version that both know, the features of 0 .. 31 that both set and
 * the insisted ones of either.
 *
 * Returns MC_OK, or MC_E_UNSUPPORTED (no common version; one insists on what the other does not set:
 * the text says what and who).
 */
mc_status wire_negotiate(const struct wire_greeting *ours, const struct wire_greeting *theirs,
                         uint16_t *version_p, uint64_t *features_p, struct mc_error *error);

enum wire_flags { WIRE_ANSWER = 1 };

struct wire_frame {
    uint32_t kind; /* enum wire_kind, or one from a later release */
    uint32_t flags;
    uint64_t id;
    uint64_t deadline_ns;
    uint64_t payload;    /* bytes that follow the body */
    const uint8_t *body; /* [body_size]; borrowed */
    uint32_t body_size;
};

/** The header for `frame`, which is followed by its body and payload. body_size <= WIRE_BODY_MAX. */
void wire_header_encode(const struct wire_frame *frame, uint8_t bytes[WIRE_HEADER_BYTES]);

/** Collects bytes as they come. All fields are its own. */
struct wire_reader {
    uint8_t *body; /* [capacity], borrowed */
    size_t capacity;
    uint32_t body_max;
    uint64_t payload_max;
    size_t have;      /* bytes of header and body so far, or of the greeting */
    mc_status status; /* MC_OK, or why it ended */
    struct wire_frame frame;
    uint32_t body_crc;
    uint8_t head[WIRE_HEADER_BYTES];
};

/**
 * body         [capacity]: where a body is collected that comes in pieces.
 * body_max     a longer body ends the connection with MC_E_RANGE; <= WIRE_BODY_MAX.
 * payload_max  bytes that may follow a body.
 */
void wire_reader_init(struct wire_reader *reader, void *body, size_t capacity, uint32_t body_max,
                      uint64_t payload_max);

/** Collect into another buffer from now on; what is collected of a body (it fits: capacity is no less)
 * moves over, and the old one is the caller's again. */
void wire_reader_buffer(struct wire_reader *reader, void *body, size_t capacity);

/**
 * Give it bytes until the peer's greeting is there.
 *
 * used_p  how many were taken; always written.
 *
 * Returns MC_PENDING (all were taken, more are wanted), MC_OK, or as wire_greeting_decode().
 */
mc_status wire_reader_greet(struct wire_reader *reader, const uint8_t *bytes, size_t size,
                            size_t *used_p, struct wire_greeting *greeting_p,
                            struct mc_error *error);

/**
 * Give it bytes until a frame is there. The body is borrowed from `bytes` if it lies there whole, else
 * from the reader; until the next call. The frame's payload is not read: the `frame_p->payload` bytes
 * after those used are the caller's, before it feeds again.
 *
 * used_p  how many were taken; always written.
 *
 * Returns MC_PENDING (all were taken, more are wanted), MC_OK (call again with the rest), MC_E_FULL (the
 * body is longer than the buffer, and none of it was taken: give wire_reader_buffer() one for
 * wire_reader_body() bytes and call again with the rest), or for good MC_E_CORRUPT (a checksum), MC_E_RANGE (body or payload too
 * long), MC_E_UNSUPPORTED (a flag).
 */
mc_status wire_reader_feed(struct wire_reader *reader, const uint8_t *bytes, size_t size,
                           size_t *used_p, struct wire_frame *frame_p, struct mc_error *error);

/** Bytes of the body that is being collected: after MC_E_FULL, what the buffer must hold. */
size_t wire_reader_body(const struct wire_reader *reader);

/** Bytes that certainly belong to what is being collected: how much to read at once. */
size_t wire_reader_wants(const struct wire_reader *reader);

#endif /* WIRE_FRAME_H */
