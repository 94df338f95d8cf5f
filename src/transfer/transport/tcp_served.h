/*
 * tcp_served.h - the serving end of one connection: what a peer asked, done under short pins.
 *
 * Life:    tcp_served_open -> tcp_served_go* (when its socket has news) -> tcp_served_close
 * Threads: serve's.
 * Memory:  one block for each connection, with all its buffers: a peer that asks without listening to the
 *          answers fills TCP_ANSWERS_MAX places and is not read any more.
 * Errors:  whatever the peer does ends the connection at most.
 *
 * What this release does not do: several pieces in one message (count, stride, table) are answered with
 * MC_E_UNSUPPORTED; no queue of ours asks for them.
 */
#ifndef TRANSPORT_TCP_SERVED_H
#define TRANSPORT_TCP_SERVED_H

#include "transfer/transport/tcp.h"
#include "transfer/transport/tcp_conn.h"

enum {
    TCP_ANSWERS_MAX = 64,      /* asked and not answered; then the socket is not read */
    TCP_OUT_BYTES = 16 * 1024, /* answers on their way out */
    TCP_SMALL_READ = 4 * 1024, /* payload that is copied behind its answer's head */
};

/** Something to be answered, in the order in which it was asked. */
struct tcp_answer {
    uint64_t id;
    struct transport_access access; /* of a read */
    uint64_t late_ns; /* a read that nobody waits for any more from then on; 0: never */
    mc_status status; /* of a write */
    bool read, summed;
};

/** The write whose payload comes. */
struct tcp_incoming {
    uint64_t id, pin;
    struct transport_access access;
    uint64_t at; /* bytes of payload so far */
    mc_status status;
    bool summed;
    struct tcp_sums sums;
    uint32_t expected[TCP_SUMS];
};

/** The large read whose payload goes. */
struct tcp_outgoing {
    bool active, summed;
    uint64_t id, at;
    struct transport_access access;
    mc_status status;
    struct tcp_sums sums;
};

struct tcp_served {
    struct tcp_conn conn; /* first: a side's callbacks know it by this */
    struct tcp *tcp;      /* borrowed */
    uint64_t incarnation; /* of the peer, once up */
    uint64_t now_ns;      /* of the current turn */
    bool blocked;         /* the socket takes no more */
    bool again;           /* there is more to do, and no event will say so */
    struct tcp_incoming write;
    struct tcp_outgoing read;
    uint32_t first, count; /* of answers, a ring */
    struct tcp_answer answers[TCP_ANSWERS_MAX];
    uint32_t out_begin, out_end;
    uint8_t out[TCP_OUT_BYTES];

    /* tcp_serve.c's */
    struct tcp_served *previous, *next;
    uint64_t greet_by_ns;
    uint32_t interest; /* epoll events */
    struct os_address peer;
};

/** Over an accepted socket, which is taken in every case. As tcp_conn_init(). */
mc_status tcp_served_open(struct tcp_served *served, struct tcp *tcp, int fd,
                          struct mc_error *error);

/** Go on: greet, receive, answer. MC_OK, or why the connection must be closed. */
mc_status tcp_served_go(struct tcp_served *served, uint64_t now_ns, struct mc_error *error);

/** Whether more requests may be read. */
bool tcp_served_ready(const struct tcp_served *served);

void tcp_served_close(struct tcp_served *served);

#endif /* TRANSPORT_TCP_SERVED_H */
