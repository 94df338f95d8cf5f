/*
 * net_conn.h - inside of the room: what net.c, net_listen.c, net_conn.c, net_greet.c and net_talk.c share.
 *
 * A connection's life:
 *
 *      dialled:   WAITING -> DIALLING -> GREETING -> UP -> WAITING ... (each may fail: down, WAITING)
 *      accepted:                         GREETING -> UP -> (down) ENDED
 *      hung up:   any -> ENDED, or UP -> FLUSHING -> ENDED
 *
 * Callbacks may end the connection that calls them: conn_enter() and conn_leave() stand around each stretch
 * that calls some, and memory is freed by the last one to leave.
 */
#ifndef NET_CONN_H
#define NET_CONN_H

#include "net/net.h"
#include "net/net_asks.h"
#include "net/net_out.h"
#include "os/address.h"
#include "wire/handshake.h"

enum { NET_IN_BYTES = 64 << 10 }; /* read at once */

enum conn_state {
    CONN_WAITING,  /* no socket; the timer dials */
    CONN_DIALLING, /* the socket connects */
    CONN_GREETING, /* the handshake goes on */
    CONN_UP,
    CONN_FLUSHING, /* hung up: sends what is queued, waits for the peer's end */
    CONN_ENDED,    /* in no list, nothing is called any more; freed by the last conn_leave() */
};

struct net_conn {
    net *net;
    net_conn *before, *after; /* in net->conns */
    const struct net_events *events;
    void *user;
    enum conn_state state;
    bool dialled;
    uint32_t busy; /* how many conn_enter() are open */

    struct os_address address; /* of the other end */
    char address_text[OS_ADDRESS_TEXT];
    struct os_watch watch; /* its descriptor is open if `open` */
    bool open;
    bool broken;                      /* nothing can be sent; reading will say why */
    bool shut;                        /* our sending side was ended */
    struct os_timer timer;            /* always set, so that setting it anew never fails */
    uint64_t back_off_ns, up_ns;      /* the last wait before a dial; since when it is up */
    uint64_t heard_ns;                /* when the last bytes came */
    bool pinged;                      /* since then */
    struct wire_handshake *handshake; /* owned; while GREETING */
    struct wire_reader reader;
    uint8_t *body; /* owned; the reader's, for bodies that come in pieces */
    size_t body_capacity;
    struct out out;
    struct asks asks;
    struct wire_peer who;
    struct net_peer peer; /* borrows from `who` and `address_text` */
};

struct net_listener {
    net *net;
    struct net_listener *next;
    const struct net_events *events;
    void *user;
    struct os_watch watch;
    struct os_timer timer; /* set while the listener pauses, or far away */
};

struct net {
    struct net_options options; /* texts and secret are owned copies */
    struct wire_self self;      /* borrows from them */
    char software[64];
    struct mc_identity host;
    net_conn *conns; /* newest first */
    struct net_listener *listeners;
    uint32_t accepted; /* connections that were, and still are */
    uint32_t flushing;
    uint32_t calling; /* callbacks of users that are open */
    struct net_counts counts;
    uint8_t *in; /* owned; [NET_IN_BYTES], whoever reads uses it */
};

/** A connection in CONN_WAITING (dialled) or CONN_GREETING with the open socket `fd` (>= 0, which is the
 * connection's from here, also on failure). MC_OK or MC_E_NOMEM. */
mc_status conn_open(net *n, const struct os_address *address, int fd,
                    const struct net_events *events, void *user, net_conn **conn_p);

/** End it: asks are cancelled, down is not called. */
void conn_end(net_conn *conn);

/** It is gone by itself: asks and down are told; then it waits to be dialled again, or ends. */
void conn_lost(net_conn *conn, mc_status status, const char *format, ...) MC_PRINTF(3, 4);

void conn_enter(net_conn *conn);
/** Sends what was queued meanwhile, or frees. */
void conn_leave(net_conn *conn);

/** Send what goes at once; the rest when the socket takes more. */
void conn_push(net_conn *conn);

/** Set the one timer: `ns` from now, UINT64_MAX: never. */
void conn_timer(net_conn *conn, uint64_t ns);

/** The loop's: something happens on the socket. */
void conn_ready(void *user, uint32_t events);

/* net_greet.c: from nothing to up */

/** Begin to connect, and what became of it. */
void greet_dial(net_conn *conn);
void greet_dialled(net_conn *conn);

/** Begin to greet on an accepted socket, which is the connection's from here. MC_OK, MC_E_NOMEM or MC_E_IO. */
mc_status greet_accepted(net_conn *conn, int fd);

/** Bytes of the peer's greeting; whether to go on with what is left, which are frames then. */
bool greet_read(net_conn *conn, const uint8_t *bytes, size_t size, size_t *used_p);

/* net_listen.c */

void listener_close(struct net_listener *listener);

/* net_talk.c: what goes over a connection that is open. */

/** Read what is there and act on it. */
void talk_read(net_conn *conn);
/** A ping that nobody waits for: any bytes that come are the answer. */
void talk_ping(net_conn *conn);
/** End all questions, oldest first. */
void talk_end_asks(net_conn *conn, mc_status status);

#endif /* NET_CONN_H */
