/*
 * tcp_conn.h - one socket of the TCP transport: greets, then takes frames and their payload apart. What
 * both ends share; struct tcp_side says what each does with what comes.
 *
 * Life:    tcp_conn_init -> tcp_conn_greet* until MC_OK -> tcp_conn_read* -> tcp_conn_close
 * Threads: as its queue, or as serve: one at a time.
 * Memory:  nothing is allocated; a connection holds its buffers. Payload is received straight to where it
 *          belongs; only what comes in one call with a frame's head is copied, and what is small.
 * Errors:  what a peer sends is an event: a status and a text, after which the connection is of no use.
 */
#ifndef TRANSPORT_TCP_CONN_H
#define TRANSPORT_TCP_CONN_H

#include <sys/uio.h>

#include "wire/handshake.h"

enum {
    TCP_IN_BYTES = 16 * 1024,  /* taken from a socket at once, besides payload */
    TCP_BODY_BYTES = 1024,     /* of a message: ours are below 200 */
    TCP_SLICE_MAX = 1 << 20,   /* payload of one message */
    TCP_SUM_BYTES = 64 * 1024, /* under one CRC32C */
    TCP_SUMS = TCP_SLICE_MAX / TCP_SUM_BYTES,
    TCP_SUMMED_BYTES =
        256 * 1024, /* moved in one call where they are summed: still in the cache then */
    TCP_READ_BUDGET = 4 << 20, /* bytes taken from one socket before another one has its turn */
};

struct tcp_conn;

/** What an end does with what comes. */
struct tcp_side {
    /** May one more frame be taken? If not, reading stops until tcp_conn_read() is called again. */
    bool (*ready)(struct tcp_conn *conn);
    /** A frame; its payload, conn->payload bytes, comes next. An error ends the connection. */
    mc_status (*frame)(struct tcp_conn *conn, const struct wire_frame *frame,
                       struct mc_error *error);
    /** Where the next bytes of payload go: *size_p of them, at most conn->payload, more than 0. NULL:
     * nobody wants them. Each call is followed by one of arrived. */
    void *(*target)(struct tcp_conn *conn, uint64_t *size_p);
    /** So many came to the address that target gave (NULL: were thrown away); they are off
     * conn->payload. */
    void (*arrived)(struct tcp_conn *conn, const void *bytes, uint64_t size);
    /** The memory that target gave cannot be written: the next call of target says NULL. */
    void (*unwritable)(struct tcp_conn *conn);
};

struct tcp_conn {
    int fd; /* owned; -1: closed */
    bool up;
    const struct tcp_side *side;
    uint64_t payload; /* bytes that still come before the next frame */
    struct wire_reader reader;
    uint32_t in_begin, in_end; /* of `in`: not taken apart yet */
    uint8_t in[TCP_IN_BYTES];
    uint8_t body[TCP_BODY_BYTES];
    struct wire_handshake handshake;
};

/** Over a connected or connecting socket, which is the connection's from now on. A peer's name in errors
 * is its caller's to add. Returns as wire_handshake_init(); the socket is closed on error. */
mc_status tcp_conn_init(struct tcp_conn *conn, int fd, const struct tcp_side *side,
                        const struct wire_self *self, bool dialled, struct mc_error *error);

/** Ends it. Safe when closed. */
void tcp_conn_close(struct tcp_conn *conn);

/**
 * Go on with the handshake. MC_OK: conn->up, and tcp_conn_read() may have frames; MC_PENDING: *unsent_p
 * says whether it waits for the socket to take more. Else as wire_handshake_feed(), MC_E_PEER or MC_E_IO.
 */
mc_status tcp_conn_greet(struct tcp_conn *conn, bool *unsent_p, struct mc_error *error);

/**
 * Take what is there, up to TCP_READ_BUDGET, and give it to the side. Returns MC_OK (nothing is there now,
 * or the side is not ready, or the budget is spent: the socket stays readable), MC_E_PEER (it closed, or
 * was lost), MC_E_IO, or what the side or the reader found wrong.
 */
mc_status tcp_conn_read(struct tcp_conn *conn, struct mc_error *error);

/** Send from `iov` ([count], <= 1024); *sent_p bytes were taken, fewer than there are when the socket is
 * full. Returns MC_OK, MC_E_PEER, MC_E_ARG (memory that cannot be read) or MC_E_IO. */
mc_status tcp_conn_send(struct tcp_conn *conn, struct iovec *iov, size_t count, uint64_t *sent_p,
                        struct mc_error *error);

/** The CRC32C of each TCP_SUM_BYTES of what is added in turn; at most TCP_SLICE_MAX bytes. */
struct tcp_sums {
    uint64_t at; /* bytes so far */
    uint32_t sum[TCP_SUMS];
};

void tcp_sums_add(struct tcp_sums *sums, const void *bytes, uint64_t size);

/** How many sums `length` bytes have. */
uint32_t tcp_sums_count(uint64_t length);

/** Whether an array of a message has exactly the sums of `length` bytes. */
bool tcp_sums_equal(const struct tcp_sums *sums, const uint32_t *expected, uint64_t length);

/** Copy an array of a message out of its body, as numbers; false if it is not of `count`. */
bool tcp_sums_take(const struct wire_array *array, uint32_t count, uint32_t sums_p[TCP_SUMS]);

#endif /* TRANSPORT_TCP_CONN_H */
