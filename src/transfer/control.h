/*
 * control.h - questions to a peer's control port: dial when one is asked, ask when the connection is up.
 *
 * Life:    peer_init -> peer_ask*, peer_forget* -> peer_close
 * Threads: the loop's.
 * Memory:  questions are embedded in whoever asks and stay there until answered or forgotten.
 * Errors:  `answered` is called once for each question, never inside peer_ask().
 */
#ifndef TRANSFER_CONTROL_H
#define TRANSFER_CONTROL_H

#include "os/loop.h"
#include "wire/frame.h"
#include "wire/msg.h"

struct net;
struct net_conn;
struct control;

/** `{ 0 }` and then: kind, message, until_ns, answered, user. */
struct peer_ask {
    struct peer_ask *next;
    struct control *control; /* NULL: not asked */
    enum wire_kind kind;
    union {
        struct wire_segment_ask segment;
        struct wire_window_map_ask map;
        struct wire_notify notify;
    } message;
    uint64_t until_ns; /* CLOCK_MONOTONIC; UINT64_MAX: no deadline */
    /** MC_OK with the answer in `frame`; else NULL. */
    void (*answered)(void *user, mc_status status, const struct wire_frame *frame,
                     const struct mc_error *error);
    void *user;
    uint64_t id; /* on the connection; 0: not sent yet */
};

struct control {
    struct net *net;
    os_loop *loop;
    const char *address;   /* borrowed: "host:port" */
    struct net_conn *conn; /* NULL: not dialled */
    struct peer_ask *asks; /* unsent and unanswered */
    uint32_t failures;     /* dials that failed, since one went well */
    bool up;
    struct os_timer timer; /* deadlines of the unsent, and leaving an idle connection */
};

void peer_init(struct control *control, struct net *ours, os_loop *loop, const char *address);
void peer_ask(struct control *control, struct peer_ask *ask);
/** Nobody waits for it any more; `answered` is not called. Not asked: nothing happens. */
void peer_forget(struct peer_ask *ask);
/** Hang up; unanswered questions end with MC_E_CANCELLED. */
void peer_close(struct control *control);

#endif /* TRANSFER_CONTROL_H */
