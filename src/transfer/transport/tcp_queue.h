/*
 * tcp_queue.h - the asking end: a queue and its streams, as tcp_queue.c and tcp_stream.c see them.
 *
 * Slices that are posted wait in one list (`unsent`) from which streams take a few at a time, when their
 * socket takes bytes: so load spreads by itself. What a stream took gets a *slot*, whose number and a
 * counter are the frame's id, until its answer has come. A slice that is cancelled leaves its slot behind
 * (op is NULL), and the answer's payload is thrown away. Until late writes are answered nothing more is
 * sent: what the engine posts again, or anew to the same place, must not land before them.
 *
 *      unsent -> stream.sending -> (slot only) -> done
 *
 * Threads: the queue's, one at a time.
 * Memory:  queue_open takes it all. An op is the private state behind a slice.
 */
#ifndef TRANSPORT_TCP_QUEUE_H
#define TRANSPORT_TCP_QUEUE_H

#include "transfer/transport/tcp.h"
#include "transfer/transport/tcp_conn.h"

enum {
    TCP_STREAMS_MAX = 64,
    TCP_HEAD_BYTES = WIRE_HEADER_BYTES + 72 + 4 * TCP_SUMS, /* of a request, at most */
    TCP_BULK = TCP_SUM_BYTES, /* slices from this size on are spread over the streams */
};

/** Behind each slice. */
struct tcp_op {
    struct tcp_op *next; /* in the list where it is */
    mc_status status;    /* once done; before, why its memory is not written any more */
    uint32_t head_bytes;
    bool sending;                /* in its stream's list: not all of the request went */
    uint64_t bytes;              /* moved, once done */
    struct tcp_sums sums;        /* of what a read received */
    uint32_t expected[TCP_SUMS]; /* what they should be; set by an answer that has payload */
    uint8_t head[TCP_HEAD_BYTES];
};

struct tcp_list {
    struct tcp_op *first, *last;
};

struct tcp_slot {
    uint64_t id;       /* of the frame; 0: free */
    struct tcp_op *op; /* NULL: nobody waits for it any more */
    uint32_t stream;
    uint32_t next_free;
    bool more; /* the payload has come and does not count before another answer */
    bool late; /* a write that was let go, and may land yet */
};

enum tcp_stream_state {
    TCP_STREAM_CLOSED,
    TCP_STREAM_DIALLING,
    TCP_STREAM_GREETING,
    TCP_STREAM_UP,
    TCP_STREAM_LEAVING, /* let go with half a request sent: closed once the peer is through with the rest */
    TCP_STREAM_DEAD, /* could not be opened, others could: not tried again */
};

struct tcp_queue;

struct tcp_stream {
    struct tcp_conn conn; /* first: a side's callbacks know it by this */
    struct tcp_queue *queue;
    enum tcp_stream_state state;
    uint32_t index, inflight; /* slots of this stream */
    bool blocked;             /* the socket takes no more */
    uint32_t interest;        /* epoll events */
    uint64_t open_by_ns;      /* connected and greeted, or left, or it is given up */
    struct tcp_list sending;
    uint64_t sent;      /* bytes of sending.first that went: head, then payload */
    uint32_t receiving; /* slot whose payload comes */
    uint64_t at;        /* bytes of it so far */
};

/** The queue's private bytes. */
struct tcp_queue {
    struct tcp *tcp; /* borrowed */
    char peer[128];  /* for errors; cut */
    uint64_t incarnation;
    struct os_address address;
    int epoll, timer; /* for arm */
    mc_status status; /* MC_OK, or why it failed for good */
    struct mc_error error;
    bool armed, timed;
    uint32_t posted; /* and not handed out */
    uint32_t turn;   /* whose turn a large slice is */
    uint32_t streams;
    struct tcp_stream *stream; /* owned; [streams] */
    struct tcp_slot *slots;    /* owned; [TCP_QUEUE_DEPTH] */
    uint32_t free_slot;        /* first of a list; TCP_QUEUE_DEPTH: none */
    uint32_t
        late; /* slots of late writes, and streams that leave: nothing is sent to overtake them */
    uint64_t ids;
    struct tcp_list unsent, done;
};

static inline struct transport_slice *tcp_op_slice(struct tcp_op *op)
{
    return (struct transport_slice *)(void *)op - 1;
}

static inline void tcp_list_add(struct tcp_list *list, struct tcp_op *op)
{
    op->next = NULL;
    if (list->last)
        list->last->next = op;
    else
        list->first = op;
    list->last = op;
}

static inline struct tcp_op *tcp_list_take(struct tcp_list *list)
{
    struct tcp_op *op = list->first;

    if (op) {
        list->first = op->next;
        if (!list->first)
            list->last = NULL;
    }
    return op;
}

/** Its memory is quiet: to be handed out by poll. It is in no list. */
void tcp_op_done(struct tcp_queue *queue, struct tcp_op *op, mc_status status);

/** Begin to dial. MC_OK or why not. The stream is CLOSED. */
mc_status tcp_stream_dial(struct tcp_stream *stream, uint64_t now_ns, struct mc_error *error);

/** Connect and greet on. MC_OK (look at the state), or why it will not be. */
mc_status tcp_stream_open(struct tcp_stream *stream, uint64_t now_ns, struct mc_error *error);

/** Take slices from `unsent` and send what the socket takes. The stream is UP and not blocked. */
mc_status tcp_stream_send(struct tcp_stream *stream, struct mc_error *error);

/** Send on after the socket was full. */
mc_status tcp_stream_send_rest(struct tcp_stream *stream, struct mc_error *error);

/** Receive what is there. */
mc_status tcp_stream_receive(struct tcp_stream *stream, struct mc_error *error);

/** Let go of all slices: each is done with `reason`, its memory quiet. A stream on which one is half sent
 * leaves; the others go on, and late answers are thrown away. */
void tcp_stream_cancel(struct tcp_stream *stream, mc_status reason);

/** The stream is LEAVING: closed once the peer has ended its side. MC_OK, or MC_E_PEER: it does not. */
mc_status tcp_stream_leave(struct tcp_stream *stream, uint64_t now_ns, struct mc_error *error);

/** Close the socket; slices are done with `reason`. */
void tcp_stream_close(struct tcp_stream *stream, mc_status reason);

#endif /* TRANSPORT_TCP_QUEUE_H */
