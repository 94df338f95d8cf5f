/* tcp_queue.c - a queue to one peer: spreads slices over streams, collects what is done. */
#define _GNU_SOURCE
#include "transfer/transport/tcp_queue.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"
#include "os/clock.h"

static_assert(sizeof(struct tcp_queue) <= TCP_QUEUE_BYTES, "tcp.c states it");
static_assert(sizeof(struct tcp_op) <= TCP_OP_BYTES, "tcp.c states it");
static_assert(sizeof(struct transport_slice) % _Alignof(struct tcp_op) == 0,
              "ops lie behind slices");

#define EVENT_TIMER UINT32_MAX

/* -------------------------------------------------------------------------------------- completions */

void tcp_op_done(struct tcp_queue *queue, struct tcp_op *op, mc_status status)
{
    op->status = status;
    op->bytes = status == MC_OK ? tcp_op_slice(op)->length : 0;
    tcp_list_add(&queue->done, op);
}

/** Everything that is posted is done with `reason`; nothing is on the way in that would touch it. */
static void let_go(struct tcp_queue *queue, mc_status reason, bool close_all)
{
    for (uint32_t i = 0; i < queue->streams; i++) {
        if (close_all)
            tcp_stream_close(&queue->stream[i], reason);
        else
            tcp_stream_cancel(&queue->stream[i], reason);
    }
    for (struct tcp_op *op; (op = tcp_list_take(&queue->unsent)) != NULL;)
        tcp_op_done(queue, op, reason);
}

/** The queue is of no use any more. `error` is why. */
static void fail(struct tcp_queue *queue, mc_status status, const struct mc_error *error)
{
    /* A completion's status says what the user can do; how the peer broke the protocol is in the text. */
    if (status != MC_E_PEER && status != MC_E_STALE && status != MC_E_DENIED)
        status = MC_E_IO;
    queue->status = error_set(&queue->error, status, "tcp: %s: %s", queue->peer, error->text);
    let_go(queue, status, true);
}

/* ------------------------------------------------------------------------------------------ streams */

/** How many streams work, or will perhaps. */
static uint32_t alive(const struct tcp_queue *queue)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < queue->streams; i++)
        count += queue->stream[i].state != TCP_STREAM_CLOSED &&
                 queue->stream[i].state != TCP_STREAM_DEAD;
    return count;
}

/** A stream that could not be opened. While others work the queue does without it, unless the peer is not
 * the one we look for. */
static void unopened(struct tcp_queue *queue, struct tcp_stream *stream, mc_status status,
                     const struct mc_error *error)
{
    tcp_stream_close(stream, status);
    stream->state = TCP_STREAM_DEAD;
    if (status == MC_E_STALE || status == MC_E_DENIED || alive(queue) == 0)
        fail(queue, status, error);
}

static void dial(struct tcp_queue *queue, struct tcp_stream *stream, uint64_t now_ns)
{
    struct mc_error error = { 0 };
    const mc_status status = tcp_stream_dial(stream, now_ns, &error);

    if (status != MC_OK)
        unopened(queue, stream, status, &error);
}

/** A stream that can take the first of `unsent`, or NULL. Dials one more where that would help. */
static struct tcp_stream *choose(struct tcp_queue *queue)
{
    const bool bulk = tcp_op_slice(queue->unsent.first)->length >= TCP_BULK;
    const uint32_t begin = bulk ? queue->turn : 0;
    struct tcp_stream *closed = NULL;

    for (uint32_t i = 0; i < queue->streams; i++) {
        struct tcp_stream *stream = &queue->stream[(begin + i) % queue->streams];

        if (stream->state == TCP_STREAM_UP && !stream->blocked) {
            if (bulk)
                queue->turn = stream->index + 1;
            if (bulk && closed)
                dial(queue, closed, os_now_ns());
            return queue->status == MC_OK ? stream : NULL;
        }
        if (stream->state == TCP_STREAM_CLOSED && !closed)
            closed = stream;
    }
    /* Small slices are content with one stream. */
    if (closed && (bulk || alive(queue) == 0))
        dial(queue, closed, os_now_ns());
    return NULL;
}

/** Give streams what they can take. */
static void pump(struct tcp_queue *queue)
{
    while (queue->status == MC_OK && queue->unsent.first && queue->late == 0 &&
           queue->free_slot != TCP_QUEUE_DEPTH) {
        struct mc_error error = { 0 };
        struct tcp_stream *stream = choose(queue);

        if (!stream)
            return;
        const mc_status status = tcp_stream_send(stream, &error);
        if (status != MC_OK)
            fail(queue, status, &error);
    }
}

/** Move one stream along. */
static void go(struct tcp_queue *queue, struct tcp_stream *stream, bool listen, uint64_t now_ns)
{
    struct mc_error error = { 0 };
    mc_status status = MC_OK;

    if (stream->state == TCP_STREAM_DIALLING || stream->state == TCP_STREAM_GREETING) {
        status = tcp_stream_open(stream, now_ns, &error);
        if (status != MC_OK)
            unopened(queue, stream, status, &error);
        if (queue->status != MC_OK || stream->state != TCP_STREAM_UP)
            return;
    }
    if (stream->state == TCP_STREAM_LEAVING) {
        status = tcp_stream_leave(stream, now_ns, &error);
        if (status != MC_OK)
            fail(queue, status, &error);
    }
    if (stream->state != TCP_STREAM_UP)
        return;
    if (stream->blocked)
        status = tcp_stream_send_rest(stream, &error);
    if (status == MC_OK && (stream->inflight != 0 || listen))
        status = tcp_stream_receive(stream, &error);
    if (status != MC_OK)
        fail(queue, status, &error);
}

/* --------------------------------------------------------------------------------------- the table */

static mc_status take_memory(struct tcp_queue *queue, struct mc_error *error)
{
    const struct mc_alloc *alloc = queue->tcp->env->alloc;

    queue->stream = alloc_bytes(alloc, queue->streams * sizeof(*queue->stream));
    queue->slots = alloc_zeroed(alloc, TCP_QUEUE_DEPTH, sizeof(*queue->slots));
    if (!queue->stream || !queue->slots)
        return error_set(error, MC_E_NOMEM, "tcp: %s: out of memory", queue->peer);
    for (uint32_t i = 0; i < TCP_QUEUE_DEPTH; i++)
        queue->slots[i].next_free = i + 1;
    for (uint32_t i = 0; i < queue->streams; i++) {
        struct tcp_stream *stream = &queue->stream[i];

        /* The buffers in it are written before they are read: most of it needs no zeros. */
        stream->conn.fd = -1;
        stream->conn.up = false;
        stream->queue = queue;
        stream->state = TCP_STREAM_CLOSED;
        stream->index = i;
        stream->inflight = 0;
        stream->blocked = false;
        stream->sending = (struct tcp_list){ 0 };
        stream->sent = 0;
    }
    return MC_OK;
}

static mc_status take_descriptors(struct tcp_queue *queue, struct mc_error *error)
{
    struct epoll_event event = { .events = EPOLLIN, .data.u32 = EVENT_TIMER };

    queue->epoll = epoll_create1(EPOLL_CLOEXEC);
    queue->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (queue->epoll < 0 || queue->timer < 0 ||
        epoll_ctl(queue->epoll, EPOLL_CTL_ADD, queue->timer, &event) != 0)
        return error_set(error, MC_E_IO, "tcp: %s: descriptors: %s", queue->peer, strerror(errno));
    return MC_OK;
}

/** Give back what there is. */
static void give_back(struct tcp_queue *queue)
{
    const struct mc_alloc *alloc = queue->tcp->env->alloc;

    if (queue->timer >= 0)
        close(queue->timer);
    if (queue->epoll >= 0)
        close(queue->epoll);
    alloc_free(alloc, queue->slots);
    alloc_free(alloc, queue->stream);
    queue->slots = NULL;
    queue->stream = NULL;
}

/** Where the peer listens: text, as describe() made it. */
static mc_status read_address(struct tcp_queue *queue, const struct transport_peer *peer,
                              struct mc_error *error)
{
    char text[TRANSPORT_KEY_MAX + 1];

    if (peer->address_size == 0 || peer->address_size > TRANSPORT_KEY_MAX ||
        memchr(peer->address, 0, peer->address_size))
        return error_set(error, MC_E_ARG, "tcp: %s: its address is none", queue->peer);
    memcpy(text, peer->address, peer->address_size);
    text[peer->address_size] = '\0';
    const mc_status status = os_address_parse(text, &queue->address, error);
    return status == MC_OK ? MC_OK : error_prefix(error, status, "tcp: %s", queue->peer);
}

mc_status tcp_queue_open(void *transport, const struct transport_peer *peer, void *private,
                         struct mc_error *error)
{
    struct tcp_queue *queue = private;
    struct tcp *tcp = transport;
    const uint32_t streams = tcp->env->streams ? tcp->env->streams : 4;

    queue->tcp = tcp;
    queue->incarnation = peer->incarnation;
    queue->streams = streams < TCP_STREAMS_MAX ? streams : TCP_STREAMS_MAX;
    queue->epoll = queue->timer = -1;
    (void)snprintf(queue->peer, sizeof(queue->peer), "%s", peer->name ? peer->name : "?");
    mc_status status = read_address(queue, peer, error);
    if (status != MC_OK)
        return status;
    status = take_memory(queue, error);
    if (status == MC_OK)
        status = take_descriptors(queue, error);
    if (status != MC_OK) {
        give_back(queue);
        return status;
    }
    dial(queue, &queue->stream[0], os_now_ns());
    return MC_OK;
}

mc_status tcp_queue_post(void *private, struct transport_slice *const *slices, uint32_t count,
                         uint32_t *posted_p)
{
    struct tcp_queue *queue = private;
    const uint32_t room = TCP_QUEUE_DEPTH - queue->posted;
    const uint32_t taken = count < room ? count : room;

    *posted_p = 0;
    if (queue->status != MC_OK)
        return queue->status;
    for (uint32_t i = 0; i < taken; i++) {
        struct tcp_op *op = (struct tcp_op *)(void *)(slices[i] + 1);

        assert(slices[i]->length <= TCP_SLICE_MAX);
        op->status = MC_OK;
        op->sending = false;
        op->bytes = 0;
        op->head_bytes = 0;
        op->sums.at = 0;
        tcp_list_add(&queue->unsent, op);
    }
    queue->posted += taken;
    *posted_p = taken;
    pump(queue);
    return MC_OK;
}

mc_status tcp_queue_poll(void *private, uint64_t now_ns, struct transport_completion *completions,
                         uint32_t max, uint32_t *count_p)
{
    struct tcp_queue *queue = private;
    /* An idle stream is listened to when somebody slept on it: what woke him must be taken. */
    const bool listen = queue->armed || queue->posted == 0;

    queue->armed = false;
    for (uint32_t i = 0; i < queue->streams && queue->status == MC_OK; i++)
        go(queue, &queue->stream[i], listen, now_ns);
    pump(queue);

    *count_p = 0;
    while (*count_p < max && queue->done.first) {
        struct tcp_op *op = tcp_list_take(&queue->done);

        queue->posted--;
        completions[(*count_p)++] =
            (struct transport_completion){ tcp_op_slice(op), op->status, op->bytes };
    }
    return *count_p == 0 && queue->status != MC_OK ? queue->status : MC_OK;
}

/** Watch each socket for what it waits for; *open_by_ns_p: the first one to be given up. */
static mc_status watch(struct tcp_queue *queue, uint64_t *open_by_ns_p)
{
    for (uint32_t i = 0; i < queue->streams; i++) {
        struct tcp_stream *stream = &queue->stream[i];
        uint32_t interest = EPOLLIN;

        if (stream->state == TCP_STREAM_CLOSED || stream->state == TCP_STREAM_DEAD)
            continue;
        if (stream->state == TCP_STREAM_DIALLING)
            interest = EPOLLOUT;
        else if (stream->blocked)
            interest |= EPOLLOUT;
        if (stream->state != TCP_STREAM_UP && stream->open_by_ns < *open_by_ns_p)
            *open_by_ns_p = stream->open_by_ns;
        if (interest == stream->interest)
            continue;
        struct epoll_event event = { .events = interest, .data.u32 = i };
        if (epoll_ctl(queue->epoll, EPOLL_CTL_MOD, stream->conn.fd, &event) != 0)
            return MC_E_IO;
        stream->interest = interest;
    }
    return MC_OK;
}

mc_status tcp_queue_arm(void *private, int *fd_p)
{
    struct tcp_queue *queue = private;
    uint64_t open_by_ns = UINT64_MAX;

    if (queue->done.first || queue->status != MC_OK)
        return MC_PENDING;
    if (watch(queue, &open_by_ns) != MC_OK)
        return MC_PENDING; /* polling does without */
    if (open_by_ns != UINT64_MAX || queue->timed) {
        struct itimerspec at = { 0 };

        queue->timed = open_by_ns != UINT64_MAX;
        if (queue->timed) {
            at.it_value.tv_sec = (time_t)(open_by_ns / 1000000000);
            at.it_value.tv_nsec = (long)(open_by_ns % 1000000000);
        }
        (void)timerfd_settime(queue->timer, TFD_TIMER_ABSTIME, &at, NULL);
    }
    queue->armed = true;
    *fd_p = queue->epoll;
    return MC_OK;
}

void tcp_queue_cancel(void *private, mc_status reason)
{
    let_go(private, reason, false);
}

mc_status tcp_queue_close(void *private)
{
    struct tcp_queue *queue = private;

    if (queue->stream)
        let_go(queue, MC_E_CANCELLED, true);
    give_back(queue);
    return MC_OK;
}

void tcp_queue_error(void *private, struct mc_error *error)
{
    const struct tcp_queue *queue = private;

    if (queue->status != MC_OK && error)
        *error = queue->error;
}
