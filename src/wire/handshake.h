/*
 * handshake.h - the first bytes of a connection, both ways: who are you, what do we both speak, do you
 * know the secret.
 *
 * Life:    wire_handshake_init -> (wire_handshake_out, wire_handshake_sent | wire_handshake_feed)* until
 *          feed returns something else than MC_PENDING; then what is left in out is sent, and frames follow.
 * Threads: pure functions; a handshake belongs to one thread.
 * Memory:  nothing is allocated; a handshake is plain memory (some 7 KiB) that can be thrown away once
 *          wire_handshake_peer() is copied. The secret is borrowed until then.
 * Errors:  what a peer sends is an event, with a text that does not name it: the caller knows its address.
 *          Errors are for good. Who refuses says so in an outcome, which is in out: send what goes at
 *          once, then close. So the other side tells "wrong secret" from "gone".
 *
 *      dials                                   accepts
 *      greeting, hello ----------------------> greeting, hello <-- both at once, without waiting
 *      <--------------------------------------
 *      hello_proof --------------------------> checks it; only then:
 *      checks it <---------------------------- hello_proof
 *
 * The proofs are there when both have a secret. Proof = HMAC-SHA-256 with the secret over one byte (1: the
 * sender dialled, 2: it accepted), the sender's greeting, the other one's, the body of the sender's
 * hello, of the other one's. A nonce in each hello makes proofs of another day worthless; the first byte
 * makes worthless what is reflected, and what a third one carries between two that both accept. Who
 * accepts waits for the proof first: nobody without the secret gets one to guess it from.
 *
 * This proves who opened the connection. It does not protect what follows against somebody who can change
 * bytes on the way: that is TLS's.
 */
#ifndef WIRE_HANDSHAKE_H
#define WIRE_HANDSHAKE_H

#include <mooncake/transfer.h>

#include "wire/frame.h"
#include "wire/msg.h"

enum {
    WIRE_SECRET_MAX = 1024, /* bytes of a secret, at least 1 */
    WIRE_HELLO_MAX =
        4096, /* bytes of a peer's hello: ours are shorter, later ones have more fields */
    WIRE_HANDSHAKE_OUT_MAX = 2048, /* bytes that a handshake ever sends */
};

/** Who we are. Texts: at most MC_NAME_MAX bytes of UTF-8 without control characters; NULL: "". */
struct wire_self {
    uint64_t incarnation; /* not 0 */
    uint64_t features;    /* WIRE_FEATURE_* of 0 .. 31 that we can do; a secret sets its own */
    uint32_t role;
    const char *name; /* not empty */
    const char *software, *segment, *tenant;
    struct mc_identity host; /* zeros: not said */
    const void *secret;      /* [secret_size]; borrowed while the handshake lasts; NULL: none */
    size_t secret_size;
};

/** Who they are. Texts are "" where the hello has none. */
struct wire_peer {
    uint64_t incarnation;
    uint64_t features; /* in use on this connection */
    uint32_t role;
    uint16_t version; /* in use on this connection */
    struct mc_identity host;
    char name[MC_NAME_MAX + 1], software[MC_NAME_MAX + 1];
    char segment[MC_NAME_MAX + 1], tenant[MC_NAME_MAX + 1];
};

/** All fields are its own. */
struct wire_handshake {
    struct wire_reader reader;
    struct wire_greeting ours;
    int state;        /* what is read next */
    mc_status status; /* MC_PENDING, or how it ended */
    bool dialled, secret;
    struct wire_peer peer;
    uint8_t proof[32];    /* ours, until it is sent */
    uint8_t expected[32]; /* theirs */
    uint8_t key[64];      /* of the HMAC */
    uint8_t theirs[WIRE_GREETING_BYTES];
    uint32_t hello_size, out_begin, out_size;
    uint8_t out[WIRE_HANDSHAKE_OUT_MAX]; /* begins with our greeting and hello, which stay */
    uint8_t body[WIRE_HELLO_MAX];
};

/**
 * Begin: our greeting and hello are in out.
 *
 * dialled  who connected; the other side says false.
 * nonce    32 fresh random bytes, never used twice, not all 0; may be NULL without a secret.
 *
 * Returns MC_OK, MC_E_RANGE (a text or the secret is too long) or MC_E_ARG (a text that may not be, no
 * name).
 */
mc_status wire_handshake_init(struct wire_handshake *handshake, const struct wire_self *self,
                              bool dialled, const struct mc_identity *nonce,
                              struct mc_error *error);

/** What is to be sent, now or after a feed: its size, 0 for nothing. Borrowed until the next call. */
size_t wire_handshake_out(const struct wire_handshake *handshake, const uint8_t **bytes_p);

/** The first `size` bytes of it were taken. */
void wire_handshake_sent(struct wire_handshake *handshake, size_t size);

/**
 * Give it what the peer sent.
 *
 * used_p  how many bytes were taken; always written.
 *
 * Returns MC_PENDING (all were taken, more are wanted), MC_OK (greeted and proved; the rest of the bytes
 * are frames) or for good: MC_E_DENIED (one has a secret and the other has none, or another one),
 * MC_E_UNSUPPORTED (no common version or feature), MC_E_PEER (it refuses for reasons of its own),
 * MC_E_FORMAT, MC_E_CORRUPT, MC_E_RANGE (what it sent), or MC_E_NOMEM.
 */
mc_status wire_handshake_feed(struct wire_handshake *handshake, const uint8_t *bytes, size_t size,
                              size_t *used_p, struct mc_error *error);

/** Once feed returned MC_OK. Borrowed: lives in the handshake. */
const struct wire_peer *wire_handshake_peer(const struct wire_handshake *handshake);

#endif /* WIRE_HANDSHAKE_H */
