/* tcp_stream.c - one socket of a queue: requests out of user memory, answers into it. */
#define _GNU_SOURCE
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/error.h"
#include "os/clock.h"
#include "transfer/transport/tcp_queue.h"
#include "wire/bytes.h"

enum {
    BATCH_OPS = 64,           /* requests in one call to the socket */
    BATCH_BYTES = 256 * 1024, /* no more are added beyond */
    IOV = 2 * BATCH_OPS,
    DROP_BYTES = 1 << 20, /* of late answers, in one call */
    DROPS_MAX = 16,
};

static const struct tcp_side asking;

/* ------------------------------------------------------------------------------------------- slots */

static struct tcp_slot *slot_take(struct tcp_stream *stream, struct tcp_op *op)
{
    struct tcp_queue *queue = stream->queue;
    struct tcp_slot *slot = &queue->slots[queue->free_slot];

    assert(queue->free_slot < TCP_QUEUE_DEPTH);
    queue->free_slot = slot->next_free;
    slot->id = ++queue->ids * TCP_QUEUE_DEPTH + (uint64_t)(slot - queue->slots);
    slot->op = op;
    slot->stream = stream->index;
    slot->more = slot->late = false;
    stream->inflight++;
    return slot;
}

static void slot_free(struct tcp_queue *queue, struct tcp_slot *slot)
{
    queue->stream[slot->stream].inflight--;
    queue->late -= slot->late;
    slot->late = false;
    slot->id = 0;
    slot->op = NULL;
    slot->next_free = queue->free_slot;
    queue->free_slot = (uint32_t)(slot - queue->slots);
}

/** What the slot was for is known. */
static void slot_done(struct tcp_queue *queue, struct tcp_slot *slot, mc_status status)
{
    if (slot->op)
        tcp_op_done(queue, slot->op, status);
    slot_free(queue, slot);
}

/** The slot of an answer that came on this stream, or NULL. 0 is no question's, but what free slots have. */
static struct tcp_slot *slot_find(struct tcp_stream *stream, uint64_t id)
{
    struct tcp_slot *slot = &stream->queue->slots[id % TCP_QUEUE_DEPTH];

    return id != 0 && slot->id == id && slot->stream == stream->index ? slot : NULL;
}

/* ---------------------------------------------------------------------------------------- requests */

static struct mc_key key_of(const uint64_t words[2])
{
    struct mc_key key;

    put_u64(key.bytes, words[0]);
    put_u64(key.bytes + 8, words[1]);
    return key;
}

static mc_status encode_read(const struct transport_slice *slice, uint8_t *body, size_t capacity,
                             size_t *size_p)
{
    const struct transport_access *remote = &slice->remote;
    const bool window = remote->key[0] != 0 || remote->key[1] != 0;

    return wire_encode(WIRE_DATA_READ,
                       &(struct wire_data_read){ .generation = remote->generation,
                                                 .offset = remote->offset,
                                                 .length = slice->length,
                                                 .region = window ? 0 : remote->region,
                                                 .key = key_of(remote->key),
                                                 .checksum = slice->flags & 1 },
                       body, capacity, size_p);
}

static mc_status encode_write(const struct transport_slice *slice, struct tcp_sums *sums,
                              uint8_t *body, size_t capacity, size_t *size_p)
{
    const struct transport_access *remote = &slice->remote;
    const bool window = remote->key[0] != 0 || remote->key[1] != 0;

    sums->at = 0;
    if (slice->flags & 1)
        tcp_sums_add(sums, slice->local, slice->length);
    return wire_encode(WIRE_DATA_WRITE,
                       &(struct wire_data_write){
                           .generation = remote->generation,
                           .offset = remote->offset,
                           .length = slice->length,
                           .region = window ? 0 : remote->region,
                           .key = key_of(remote->key),
                           .checksums = { .data = sums->sum, .count = tcp_sums_count(sums->at) } },
                       body, capacity, size_p);
}

/** Make the frame's head and body, which go before the payload. */
static void encode(struct tcp_op *op, uint64_t id)
{
    const struct transport_slice *slice = tcp_op_slice(op);
    uint8_t *body = op->head + WIRE_HEADER_BYTES;
    const size_t capacity = sizeof(op->head) - WIRE_HEADER_BYTES;
    size_t size = 0;
    uint64_t left_ns = 0;
    const mc_status status = slice->op == MC_READ
                                 ? encode_read(slice, body, capacity, &size)
                                 : encode_write(slice, &op->sums, body, capacity, &size);

    assert(status == MC_OK); /* TCP_HEAD_BYTES is enough */
    (void)status;
    if (slice->deadline_ns != 0) {
        const uint64_t now_ns = os_now_ns();

        left_ns = slice->deadline_ns > now_ns ? slice->deadline_ns - now_ns : 1;
    }
    wire_header_encode(
        &(struct wire_frame){ .kind = slice->op == MC_READ ? WIRE_DATA_READ : WIRE_DATA_WRITE,
                              .id = id,
                              .deadline_ns = left_ns,
                              .payload = slice->op == MC_READ ? 0 : slice->length,
                              .body = body,
                              .body_size = (uint32_t)size },
        op->head);
    op->head_bytes = (uint32_t)(WIRE_HEADER_BYTES + size);
    op->sums.at = 0;
}

/** Bytes that an op puts on the socket. */
static uint64_t op_bytes(struct tcp_op *op)
{
    const struct transport_slice *slice = tcp_op_slice(op);

    return op->head_bytes + (slice->op == MC_WRITE ? slice->length : 0);
}

/** Move slices from `unsent` to this stream, as many as one call to the socket should carry. */
static void take_batch(struct tcp_stream *stream)
{
    struct tcp_queue *queue = stream->queue;
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < BATCH_OPS && bytes < BATCH_BYTES; i++) {
        if (queue->free_slot == TCP_QUEUE_DEPTH)
            return;
        struct tcp_op *op = tcp_list_take(&queue->unsent);
        if (!op)
            return;
        encode(op, slot_take(stream, op)->id);
        op->sending = true;
        tcp_list_add(&stream->sending, op);
        bytes += op_bytes(op);
    }
}

/** What is to be sent now, behind `stream->sent`. */
static size_t gather(struct tcp_stream *stream, struct iovec iov[IOV], uint64_t *asked_p)
{
    uint64_t skip = stream->sent;
    size_t count = 0;

    *asked_p = 0;
    for (struct tcp_op *op = stream->sending.first; op && count + 2 <= IOV; op = op->next) {
        const struct transport_slice *slice = tcp_op_slice(op);
        const uint64_t head = skip < op->head_bytes ? skip : op->head_bytes;

        if (head < op->head_bytes)
            iov[count++] = (struct iovec){ op->head + head, op->head_bytes - head };
        skip -= head;
        if (slice->op == MC_WRITE && skip < slice->length)
            iov[count++] = (struct iovec){ (uint8_t *)slice->local + skip, slice->length - skip };
        skip = 0;
    }
    for (size_t i = 0; i < count; i++)
        *asked_p += iov[i].iov_len;
    return count;
}

mc_status tcp_stream_send_rest(struct tcp_stream *stream, struct mc_error *error)
{
    stream->blocked = false;
    while (stream->sending.first) {
        struct iovec iov[IOV];
        uint64_t asked, sent;
        const size_t count = gather(stream, iov, &asked);
        const mc_status status = tcp_conn_send(&stream->conn, iov, count, &sent, error);

        if (status == MC_E_ARG)
            return error_set(error, MC_E_IO, "local memory cannot be read");
        if (status != MC_OK)
            return status;
        stream->sent += sent;
        while (stream->sending.first && stream->sent >= op_bytes(stream->sending.first)) {
            struct tcp_op *op = tcp_list_take(&stream->sending);

            stream->sent -= op_bytes(op);
            op->sending = false;
        }
        if (sent < asked) {
            stream->blocked = true;
            return MC_OK;
        }
    }
    return MC_OK;
}

mc_status tcp_stream_send(struct tcp_stream *stream, struct mc_error *error)
{
    assert(stream->state == TCP_STREAM_UP && !stream->blocked && !stream->sending.first);
    take_batch(stream);
    return tcp_stream_send_rest(stream, error);
}

/* ----------------------------------------------------------------------------------------- answers */

/** The final word on a read whose payload is here. */
static mc_status judge_read(struct tcp_op *op)
{
    const struct transport_slice *slice = tcp_op_slice(op);

    if (op->sums.at != slice->length)
        return MC_E_IO; /* its memory could not be written */
    if ((slice->flags & 1) && !tcp_sums_equal(&op->sums, op->expected, slice->length))
        return MC_E_CORRUPT;
    return MC_OK;
}

static bool side_ready(struct tcp_conn *conn)
{
    (void)conn;
    return true;
}

/** An answer is what its question allows: payload only for a read, whole, with the sums asked for. */
static mc_status answer_check(const struct tcp_slot *slot, const struct wire_data_done *done,
                              uint64_t payload, struct mc_error *error)
{
    if (payload != 0 && (done->status != MC_OK || slot->more))
        return error_set(error, MC_E_FORMAT, "data_done: a payload that does not belong there");
    if (done->more && payload == 0)
        return error_set(error, MC_E_FORMAT, "data_done: more of nothing");
    if (!slot->op)
        return MC_OK;

    struct transport_slice *slice = tcp_op_slice(slot->op);
    const uint64_t due =
        slice->op == MC_READ && done->status == MC_OK && !slot->more ? slice->length : 0;
    if (payload != due)
        return error_set(error, MC_E_FORMAT, "data_done: %llu bytes of payload, not %llu",
                         (unsigned long long)payload, (unsigned long long)due);
    if (slice->op == MC_READ && (slice->flags & 1) && done->status == MC_OK && !done->more &&
        !tcp_sums_take(&done->checksums, tcp_sums_count(slice->length), slot->op->expected))
        return error_set(error, MC_E_FORMAT, "data_done: not one checksum for each 64 KiB");
    return MC_OK;
}

/** A status from a peer, as one that a completion may have. */
static mc_status status_taken(mc_status status)
{
    switch (status) {
    case MC_OK:
    case MC_E_DENIED:
    case MC_E_STALE:
    case MC_E_RANGE:
    case MC_E_CORRUPT:
    case MC_E_TIMEOUT:
        return status;
    default:
        return MC_E_IO;
    }
}

/** All of an answer is here. */
static void answer_end(struct tcp_stream *stream, struct tcp_slot *slot, mc_status status)
{
    if (slot->op && status == MC_OK && tcp_op_slice(slot->op)->op == MC_READ)
        status = judge_read(slot->op);
    slot_done(stream->queue, slot, status);
}

static mc_status side_frame(struct tcp_conn *conn, const struct wire_frame *frame,
                            struct mc_error *error)
{
    struct tcp_stream *stream = (struct tcp_stream *)(void *)conn;
    struct wire_data_done done;

    if (frame->kind != WIRE_DATA_DONE || !(frame->flags & WIRE_ANSWER))
        return error_set(error, MC_E_FORMAT, "kind %u is no answer to a transfer", frame->kind);
    mc_status status = wire_decode(WIRE_DATA_DONE, frame->body, frame->body_size, &done, error);
    if (status != MC_OK)
        return status;
    struct tcp_slot *slot = slot_find(stream, frame->id);
    if (!slot)
        return error_set(error, MC_E_FORMAT, "an answer to %llu, which was not asked",
                         (unsigned long long)frame->id);
    /* Half a request is not answered; its slice's memory would be given back while it is being sent. */
    if (slot->op && slot->op->sending)
        return error_set(error, MC_E_FORMAT, "an answer before its question was sent");
    status = answer_check(slot, &done, frame->payload, error);
    if (status != MC_OK)
        return status;
    if (frame->payload == 0) {
        answer_end(stream, slot, status_taken(done.status));
        return MC_OK;
    }
    slot->more = done.more;
    stream->receiving = (uint32_t)(slot - stream->queue->slots);
    stream->at = 0;
    return MC_OK;
}

static void *side_target(struct tcp_conn *conn, uint64_t *size_p)
{
    struct tcp_stream *stream = (struct tcp_stream *)(void *)conn;
    struct tcp_op *op = stream->queue->slots[stream->receiving].op;

    if (!op || op->status != MC_OK)
        return NULL;
    *size_p = conn->payload;
    if ((tcp_op_slice(op)->flags & 1) && *size_p > TCP_SUMMED_BYTES)
        *size_p = TCP_SUMMED_BYTES;
    return (uint8_t *)tcp_op_slice(op)->local + stream->at;
}

static void side_arrived(struct tcp_conn *conn, const void *bytes, uint64_t size)
{
    struct tcp_stream *stream = (struct tcp_stream *)(void *)conn;
    struct tcp_slot *slot = &stream->queue->slots[stream->receiving];

    if (bytes && (tcp_op_slice(slot->op)->flags & 1))
        tcp_sums_add(&slot->op->sums, bytes, size);
    else if (bytes)
        slot->op->sums.at += size;
    stream->at += size;
    if (conn->payload == 0 && !slot->more)
        answer_end(stream, slot, MC_OK);
}

static void side_unwritable(struct tcp_conn *conn)
{
    struct tcp_stream *stream = (struct tcp_stream *)(void *)conn;

    stream->queue->slots[stream->receiving].op->status = MC_E_IO;
}

static const struct tcp_side asking = {
    .ready = side_ready,
    .frame = side_frame,
    .target = side_target,
    .arrived = side_arrived,
    .unwritable = side_unwritable,
};

mc_status tcp_stream_receive(struct tcp_stream *stream, struct mc_error *error)
{
    return tcp_conn_read(&stream->conn, error);
}

/* ---------------------------------------------------------------------------------------- open, close */

mc_status tcp_stream_dial(struct tcp_stream *stream, uint64_t now_ns, struct mc_error *error)
{
    struct tcp_queue *queue = stream->queue;
    const struct wire_self self = tcp_self(queue->tcp);
    struct epoll_event event = { .events = EPOLLOUT, .data.u32 = stream->index };
    int fd;

    assert(stream->state == TCP_STREAM_CLOSED);
    mc_status status = os_tcp_dial(&queue->address, &fd, error);
    if (status != MC_OK)
        return status;
    tcp_socket_options(queue->tcp, fd);
    status = tcp_conn_init(&stream->conn, fd, &asking, &self, true, error);
    if (status != MC_OK)
        return status;
    if (epoll_ctl(queue->epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        tcp_conn_close(&stream->conn);
        return error_set(error, MC_E_IO, "epoll_ctl failed");
    }
    stream->interest = event.events;
    stream->open_by_ns = now_ns + queue->tcp->options.greet;
    stream->blocked = false;
    stream->sent = 0;
    stream->state = TCP_STREAM_DIALLING;
    return MC_OK;
}

mc_status tcp_stream_open(struct tcp_stream *stream, uint64_t now_ns, struct mc_error *error)
{
    struct tcp_queue *queue = stream->queue;
    mc_status status = MC_OK;

    if (stream->state == TCP_STREAM_DIALLING) {
        status = os_tcp_dialled(stream->conn.fd, &queue->address, error);
        if (status == MC_OK)
            stream->state = TCP_STREAM_GREETING;
    }
    if (stream->state == TCP_STREAM_GREETING) {
        status = tcp_conn_greet(&stream->conn, &stream->blocked, error);
        if (status == MC_OK) {
            const struct wire_peer *peer = wire_handshake_peer(&stream->conn.handshake);

            if (peer->incarnation != queue->incarnation)
                return error_set(error, MC_E_STALE, "another incarnation answers there");
            stream->state = TCP_STREAM_UP;
            stream->blocked = false;
            return MC_OK;
        }
    }
    if ((status == MC_OK || status == MC_PENDING) && now_ns >= stream->open_by_ns)
        return error_set(error, MC_E_PEER, "no greeting within %llu ms",
                         (unsigned long long)(queue->tcp->options.greet / 1000000));
    return status == MC_PENDING ? MC_OK : status;
}

/** All slices are done with `reason`, also those that were sent. */
static void drop_slots(struct tcp_stream *stream, mc_status reason)
{
    struct tcp_queue *queue = stream->queue;

    stream->sending = (struct tcp_list){ 0 };
    stream->sent = 0;
    stream->blocked = false;
    for (uint32_t i = 0; i < TCP_QUEUE_DEPTH && stream->inflight != 0; i++) {
        struct tcp_slot *slot = &queue->slots[i];

        if (slot->id != 0 && slot->stream == stream->index)
            slot_done(queue, slot, reason);
    }
    assert(stream->inflight == 0);
}

void tcp_stream_close(struct tcp_stream *stream, mc_status reason)
{
    tcp_conn_close(&stream->conn); /* which takes it out of epoll, too */
    stream->queue->late -= stream->state == TCP_STREAM_LEAVING;
    if (stream->state != TCP_STREAM_DEAD)
        stream->state = TCP_STREAM_CLOSED;
    drop_slots(stream, reason);
}

/** The peer has requests of ours that it has not looked at. Once it has met the end of what we sent it has
 * done them all, and closes. */
static void begin_to_leave(struct tcp_stream *stream, mc_status reason)
{
    struct tcp_queue *queue = stream->queue;

    (void)shutdown(stream->conn.fd, SHUT_WR);
    drop_slots(stream, reason);
    stream->state = TCP_STREAM_LEAVING;
    stream->open_by_ns = os_now_ns() + queue->tcp->options.greet;
    queue->late++;
}

mc_status tcp_stream_leave(struct tcp_stream *stream, uint64_t now_ns, struct mc_error *error)
{
    for (int i = 0; i < DROPS_MAX; i++) {
        const ssize_t got = recv(stream->conn.fd, NULL, DROP_BYTES, MSG_DONTWAIT | MSG_TRUNC);

        if (got > 0 || (got < 0 && errno == EINTR))
            continue;
        if (got == 0 || errno != EAGAIN) {
            tcp_stream_close(stream, MC_E_CANCELLED);
            return MC_OK;
        }
        break;
    }
    if (now_ns >= stream->open_by_ns)
        return error_set(error, MC_E_PEER, "it is not through with what was cancelled");
    return MC_OK;
}

void tcp_stream_cancel(struct tcp_stream *stream, mc_status reason)
{
    struct tcp_queue *queue = stream->queue;

    if (stream->sent != 0) {
        begin_to_leave(stream, reason);
        return;
    }
    /* What waits for the socket was not begun: the peer will not hear of it, and its slot is free. */
    stream->sending = (struct tcp_list){ 0 };
    stream->blocked = false;
    for (uint32_t i = 0; i < TCP_QUEUE_DEPTH && stream->inflight != 0; i++) {
        struct tcp_slot *slot = &queue->slots[i];

        if (slot->id == 0 || slot->stream != stream->index || !slot->op)
            continue;
        const bool unsent = slot->op->sending;
        slot->late = !unsent && tcp_op_slice(slot->op)->op == MC_WRITE;
        queue->late += slot->late;
        tcp_op_done(queue, slot->op, reason);
        slot->op = NULL;
        if (unsent)
            slot_free(queue, slot);
    }
}
