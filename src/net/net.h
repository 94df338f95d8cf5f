/*
 * net.h - connections that speak the messages of wire/msg.def: dialled or accepted, greeted, proved,
 * framed; questions matched with their answers.
 *
 * Life:    net_open -> net_listen, net_dial -> (up -> net_ask, net_send, net_answer ... -> down)* ->
 *          net_hang_up -> net_close
 * Threads: one, the loop's.
 * Memory:  from the allocator. A connection's buffers are small at first and grow for a long body; what
 *          waits to be sent is bounded by out_max. Frames and messages given to callbacks are borrowed
 *          during the call.
 * Errors:  what a peer sends is an event: a connection that breaks the protocol, proves nothing or stays
 *          silent in its greeting is ended with a text that names the peer. Nothing here prints.
 *
 * Both sides send greeting and hello without waiting for the other. With a secret, each hello has a nonce
 * and a hello_proof follows; without a proof that is right nothing else is read. A peer that insists on a
 * secret and one that has none do not talk: MC_E_DENIED.
 */
#ifndef NET_NET_H
#define NET_NET_H

#include "os/loop.h"
#include "wire/frame.h"
#include "wire/msg.h"

typedef struct net net;           /* opaque: who I am, my connections and listeners */
typedef struct net_conn net_conn; /* opaque */

enum net_role {
    NET_CLIENT = 1,
    NET_MASTER = 2,
    NET_NODE = 3,
    NET_WORKER = 4,
    NET_GATEWAY = 5,
    NET_ENGINE = 6,
};

/** Texts and bytes are copied. */
struct net_options {
    const struct mc_alloc *alloc; /* borrowed until close; required */
    os_loop *loop;                /* borrowed until close; required */
    uint32_t role;                /* enum net_role; required */
    const char *name;             /* of this process, as in logs; required */
    uint64_t incarnation;         /* 0: drawn at random */
    const char *segment;          /* of its Transfer Engine; NULL: none */
    const char *tenant;           /* NULL: "default" */
    const void *secret;           /* [secret_size]; NULL: none */
    size_t secret_size;
    uint64_t greet_ns; /* a peer greets and proves itself within; default 5 s */
    uint64_t
        silence_ns; /* a connection quiet for so long is pinged, twice so long: ended; 0: never */
    uint32_t
        connections_max; /* accepted at a time; default 1024, beyond: closed at once, counted */
    uint32_t asks_max;   /* unanswered on one connection; default 4096 */
    uint64_t out_max;    /* bytes that wait to be sent on one; default 32 MiB */
};

/** Who is at the other end. Texts live as long as the connection is up. */
struct net_peer {
    uint64_t incarnation;
    uint64_t features;                              /* in use */
    uint32_t role;                                  /* enum net_role */
    const char *name, *software, *segment, *tenant; /* "" where the hello has none */
    const char *address;                            /* "host:port" of the other end */
    struct mc_identity host;                        /* as in hello; zeros: not said */
};

/** What happens on a connection; a table for each kind of user. All entries set. */
struct net_events {
    /** Greeted and proved. Dialled ones: after each loss again. */
    void (*up)(void *user, net_conn *conn, const struct net_peer *peer);
    /** A question (frame->id != 0) or a statement; never an answer: those go to who asked. The body is
     * not decoded yet. ping does not come; nor does an outcome as a statement: it ends the connection, and
     * down says what stood in it (so send one before a hang-up with `flush`, to say why). */
    void (*message)(void *user, net_conn *conn, const struct wire_frame *frame);
    /** It is gone, all that was asked has been told; `text` says why and names the peer. An accepted
     * connection is freed after this; a dialled one is dialled again unless it was hung up. Also when
     * dialling or greeting fails (with up never called), each time; but an accepted connection that was
     * never up is only counted: nobody has heard of it. */
    void (*down)(void *user, net_conn *conn, mc_status status, const char *text);
};

/** Returns MC_OK, MC_E_ARG (a text that may not be), MC_E_RANGE (secret_size; a text is longer than
 * MC_NAME_MAX) or MC_E_NOMEM. */
mc_status net_open(const struct net_options *options, net **net_p, struct mc_error *error);

/** Ends every connection (down is not called; what was asked ends with MC_E_CANCELLED) and listener, at
 * once: see net_flushing(). Not from its own callbacks. NULL is allowed. */
void net_close(net *n);

/** How many connections that were hung up with `flush` still send. */
uint32_t net_flushing(const net *n);

/** Since it was opened. */
struct net_counts {
    uint64_t accepted;  /* connections taken and greeted */
    uint64_t refused;   /* closed at once: connections_max, or no memory */
    uint64_t ungreeted; /* taken, but the greeting failed: no peer of ours, no secret, too slow */
};

struct net_counts net_counts(const net *n);

/** Go by another name, and another segment (NULL: none), from the next connection on: for who is named
 * after the port it was given. Returns MC_OK, MC_E_ARG (not texts that a hello may have) or MC_E_NOMEM. */
mc_status net_name_set(net *n, const char *name, const char *segment);

uint64_t net_incarnation(const net *n);

/** The SHA-256 that stands for this machine in hellos (boot id, network namespace left out). */
const struct mc_identity *net_host(const net *n);

/**
 * Accept connections at "host:port" ("[v6]:port", port 0: any). May be called more than once.
 *
 * insecure   a host that is not loopback is refused unless a secret is set or this is true.
 * user       given to events; net_conn_user_set() gives a connection its own.
 * address_p  [capacity >= 80]: "host:port" with the real port.
 *
 * Returns MC_OK, MC_E_ARG (not an address), MC_E_DENIED (wide and insecure, or a port that needs rights),
 * MC_E_EXISTS (taken), MC_E_FULL (descriptors), MC_E_IO or MC_E_NOMEM.
 */
mc_status net_listen(net *n, const char *address, bool insecure, const struct net_events *events,
                     void *user, char *address_p, size_t capacity, struct mc_error *error);

/**
 * Keep a connection to "host:port": dialled in the next turn, and again 10 ms, 20 ms ... 1 s after each
 * loss; 10 ms again once it was up for 1 s. A name is asked of the resolver here, once (os_address_parse).
 *
 * Returns MC_OK (up or down will say more), MC_E_ARG (not an address, or a name that is not known) or
 * MC_E_NOMEM.
 */
mc_status net_dial(net *n, const char *address, const struct net_events *events, void *user,
                   net_conn **conn_p, struct mc_error *error);

/** End a connection for good, after what is queued was sent if `flush` (within greet_ns), and free it; what
 * was asked ends with MC_E_CANCELLED before this returns, down is not called. May be called in every
 * callback, what that was given stays until it returns. NULL is allowed. */
void net_hang_up(net_conn *conn, bool flush);

void net_conn_user_set(net_conn *conn, void *user);
bool net_conn_is_up(const net_conn *conn);
/** NULL while it is not up. */
const struct net_peer *net_conn_peer(const net_conn *conn);

/**
 * What became of a question: called exactly once, never inside net_ask().
 * status: MC_OK with the answer in `frame`, whatever kind it is (look at frame->kind: an OUTCOME with an
 * error is how a peer says no); or MC_E_TIMEOUT, MC_E_PEER, MC_E_CANCELLED with NULL.
 */
typedef void net_answered(void *user, mc_status status, const struct wire_frame *frame);

/**
 * Ask. `message` is the struct of `kind`; encoded at once.
 *
 * deadline_ns  CLOCK_MONOTONIC; 0: none. The peer is told what is left.
 * id_p         may be NULL; the frame's id, for net_ask_forget().
 *
 * Returns MC_OK (answered will be called), MC_E_PEER (not up), MC_E_FULL (asks_max or out_max), MC_E_ARG or
 * MC_E_RANGE (wire_encode) or MC_E_NOMEM; then it is not called.
 */
mc_status net_ask(net_conn *conn, enum wire_kind kind, const void *message, uint64_t deadline_ns,
                  net_answered *answered, void *user, uint64_t *id_p);

/** Nobody waits for it any more: its answer is dropped, `answered` not called. Unknown: nothing happens. */
void net_ask_forget(net_conn *conn, uint64_t id);

/** State something that is not answered. Returns as net_ask. */
mc_status net_send(net_conn *conn, enum wire_kind kind, const void *message);

/** Answer the question `id`; 0 was a statement: nothing is sent. Returns as net_ask. */
mc_status net_answer(net_conn *conn, uint64_t id, enum wire_kind kind, const void *message);

/** Answer with an outcome; `text` may be NULL. Returns as net_ask. */
mc_status net_answer_outcome(net_conn *conn, uint64_t id, mc_status status, const char *text);

/**
 * The status that an answer carries: MC_OK with `message` decoded if the frame is of `kind`; the outcome's
 * status and text if it is an OUTCOME and `kind` is another (MC_E_FORMAT if that is MC_OK); MC_E_FORMAT for anything else. For
 * `kind` WIRE_OUTCOME: the outcome's own status.
 */
mc_status net_take(const struct wire_frame *frame, enum wire_kind kind, void *message,
                   struct mc_error *error);

#endif /* NET_NET_H */
