/* tcp_served.c - the serving end of one connection: requests in, memory pinned while bytes move, answers. */
#define _GNU_SOURCE
#include "transfer/transport/tcp_served.h"

#include <assert.h>
#include <string.h>

#include "base/error.h"
#include "wire/bytes.h"

enum {
    HEAD_BYTES =
        WIRE_HEADER_BYTES + 64 + 4 * TCP_SUMS, /* at most, of an answer before its payload */
    IOV_MAX_NOTHING = 8,
    TURNS_MAX = 16, /* before another connection has its turn */
};

/* Goes out for memory that was taken back while its payload was on the way; the answer behind it says
 * that it does not count. */
static const uint8_t nothing[TCP_SUM_BYTES];

/* ------------------------------------------------------------------------------------------- pins */

/** Pin what is left of an access from `at` on. */
static mc_status pin_rest(const struct tcp_served *served, const struct transport_access *access,
                          uint64_t at, void **address_p, uint64_t *pin_p)
{
    const struct transport_env *env = served->tcp->env;
    struct transport_access rest = *access;

    rest.offset += at;
    rest.length -= at;
    return env->pin(env->engine, &rest, address_p, pin_p);
}

static void unpin(const struct tcp_served *served, uint64_t pin)
{
    served->tcp->env->unpin(served->tcp->env->engine, pin);
}

static void count_moved(const struct tcp_served *served, enum mc_op op, uint64_t bytes)
{
    const struct transport_env *env = served->tcp->env;

    if (env->moved && bytes != 0)
        env->moved(env->engine, op, bytes);
}

/** May it be accessed now? */
static mc_status check(const struct tcp_served *served, const struct transport_access *access)
{
    void *address;
    uint64_t pin;
    const mc_status status = pin_rest(served, access, 0, &address, &pin);

    if (status == MC_OK)
        unpin(served, pin);
    return status;
}

/* --------------------------------------------------------------------------------------- requests */

static struct tcp_answer *answer_add(struct tcp_served *served)
{
    assert(served->count < TCP_ANSWERS_MAX);
    struct tcp_answer *answer =
        &served->answers[(served->first + served->count++) % TCP_ANSWERS_MAX];

    *answer = (struct tcp_answer){ 0 };
    return answer;
}

/** The write's payload is all there, or thrown away. */
static void write_end(struct tcp_served *served)
{
    struct tcp_incoming *write = &served->write;
    struct tcp_answer *answer = answer_add(served);

    if (write->status == MC_OK && write->summed &&
        !tcp_sums_equal(&write->sums, write->expected, write->access.length))
        write->status = MC_E_CORRUPT;
    answer->id = write->id;
    answer->status = write->status;
    answer->access.length = write->access.length;
}

/** The one place where a message becomes an access. */
static struct transport_access access_of(const struct tcp_served *served, enum mc_op op,
                                         uint64_t generation, uint64_t offset, uint64_t length,
                                         uint32_t region, const struct mc_key *key)
{
    return (struct transport_access){
        .op = op,
        .region = region,
        .key = { get_u64(key->bytes), get_u64(key->bytes + 8) },
        .generation = generation,
        .offset = offset,
        .length = length,
        .region_offset = UINT64_MAX,
        .peer = served->incarnation,
    };
}

static mc_status write_begin(struct tcp_served *served, const struct wire_frame *frame,
                             struct mc_error *error)
{
    struct tcp_incoming *write = &served->write;
    struct wire_data_write m;
    const mc_status status = wire_decode(WIRE_DATA_WRITE, frame->body, frame->body_size, &m, error);

    if (status != MC_OK)
        return status;
    const bool pieces = m.count > 1 || m.table.count != 0;
    if (!pieces && frame->payload != m.length)
        return error_set(error, MC_E_FORMAT, "data_write: length and payload differ");
    write->id = frame->id;
    write->access =
        access_of(served, MC_WRITE, m.generation, m.offset, frame->payload, m.region, &m.key);
    write->at = 0;
    write->sums.at = 0;
    write->summed = m.checksums.count != 0;
    if (write->summed &&
        !tcp_sums_take(&m.checksums, tcp_sums_count(frame->payload), write->expected))
        return error_set(error, MC_E_FORMAT, "data_write: not one checksum for each 64 KiB");
    write->status = pieces ? MC_E_UNSUPPORTED : MC_OK;
    if (frame->payload == 0) {
        write->status = write->status == MC_OK ? check(served, &write->access) : write->status;
        write_end(served);
    }
    return MC_OK;
}

static mc_status read_ask(struct tcp_served *served, const struct wire_frame *frame,
                          struct mc_error *error)
{
    struct wire_data_read m;
    const mc_status status = wire_decode(WIRE_DATA_READ, frame->body, frame->body_size, &m, error);

    if (status != MC_OK)
        return status;
    if (frame->payload != 0)
        return error_set(error, MC_E_FORMAT, "data_read: it has a payload");
    struct tcp_answer *answer = answer_add(served);
    answer->id = frame->id;
    answer->access = access_of(served, MC_READ, m.generation, m.offset, m.length, m.region, &m.key);
    if (frame->deadline_ns != 0 && served->now_ns < UINT64_MAX - frame->deadline_ns)
        answer->late_ns = served->now_ns + frame->deadline_ns;
    answer->read = true;
    answer->summed = m.checksum;
    if (m.count > 1 || m.table.count != 0)
        answer->status = MC_E_UNSUPPORTED;
    else if (m.length > TCP_SLICE_MAX)
        answer->status = MC_E_RANGE;
    return MC_OK;
}

static bool side_ready(struct tcp_conn *conn)
{
    return tcp_served_ready((struct tcp_served *)(void *)conn);
}

static mc_status side_frame(struct tcp_conn *conn, const struct wire_frame *frame,
                            struct mc_error *error)
{
    struct tcp_served *served = (struct tcp_served *)(void *)conn;

    if (frame->id == 0 || (frame->flags & WIRE_ANSWER))
        return error_set(error, MC_E_FORMAT, "a frame of kind %u that asks nothing", frame->kind);
    switch (frame->kind) {
    case WIRE_DATA_WRITE:
        return write_begin(served, frame, error);
    case WIRE_DATA_READ:
        return read_ask(served, frame, error);
    default:
        return error_set(error, MC_E_UNSUPPORTED, "kind %u is not for a transfer's socket",
                         frame->kind);
    }
}

static void *side_target(struct tcp_conn *conn, uint64_t *size_p)
{
    struct tcp_served *served = (struct tcp_served *)(void *)conn;
    struct tcp_incoming *write = &served->write;
    void *address = NULL;

    if (write->status != MC_OK)
        return NULL;
    write->status = pin_rest(served, &write->access, write->at, &address, &write->pin);
    if (write->status != MC_OK)
        return NULL;
    *size_p = write->access.length - write->at;
    if (write->summed && *size_p > TCP_SUMMED_BYTES)
        *size_p = TCP_SUMMED_BYTES;
    return address;
}

static void side_arrived(struct tcp_conn *conn, const void *bytes, uint64_t size)
{
    struct tcp_served *served = (struct tcp_served *)(void *)conn;
    struct tcp_incoming *write = &served->write;

    if (bytes) {
        if (write->summed)
            tcp_sums_add(&write->sums, bytes, size);
        unpin(served, write->pin);
        count_moved(served, MC_WRITE, size);
    }
    write->at += size;
    if (conn->payload == 0)
        write_end(served);
}

static void side_unwritable(struct tcp_conn *conn)
{
    ((struct tcp_served *)(void *)conn)->write.status = MC_E_IO;
}

static const struct tcp_side serving = {
    .ready = side_ready,
    .frame = side_frame,
    .target = side_target,
    .arrived = side_arrived,
    .unwritable = side_unwritable,
};

/* ---------------------------------------------------------------------------------------- answers */

/** Put the head of an answer into `out`, which has room. */
static void put_head(struct tcp_served *served, uint64_t id, const struct wire_data_done *done,
                     uint64_t payload)
{
    uint8_t *at = served->out + served->out_end;
    size_t size = 0;
    const mc_status status = wire_encode(WIRE_DATA_DONE, done, at + WIRE_HEADER_BYTES,
                                         HEAD_BYTES - WIRE_HEADER_BYTES, &size);

    assert(status == MC_OK); /* HEAD_BYTES is enough */
    (void)status;
    wire_header_encode(&(struct wire_frame){ .kind = WIRE_DATA_DONE,
                                             .flags = WIRE_ANSWER,
                                             .id = id,
                                             .payload = payload,
                                             .body = at + WIRE_HEADER_BYTES,
                                             .body_size = (uint32_t)size },
                       at);
    served->out_end += (uint32_t)(WIRE_HEADER_BYTES + size);
}

static void put_status(struct tcp_served *served, uint64_t id, mc_status status, uint64_t moved)
{
    put_head(served, id,
             &(struct wire_data_done){ .status = status, .moved = status == MC_OK ? moved : 0 }, 0);
}

static struct wire_array sums_array(const struct tcp_sums *sums)
{
    return (struct wire_array){ .data = sums->sum, .count = tcp_sums_count(sums->at) };
}

/** A small read: head and payload, copied under one pin. */
static void put_small(struct tcp_served *served, const struct tcp_answer *answer)
{
    const uint64_t length = answer->access.length;
    struct tcp_sums sums = { 0 };
    uint8_t copy[TCP_SMALL_READ]; /* the sums, which come first, must be of what is sent */
    void *address;
    uint64_t pin;
    const mc_status status = pin_rest(served, &answer->access, 0, &address, &pin);

    if (status != MC_OK) {
        put_status(served, answer->id, status, 0);
        return;
    }
    if (length != 0)
        memcpy(copy, address, length);
    unpin(served, pin);
    count_moved(served, MC_READ, length);
    if (answer->summed)
        tcp_sums_add(&sums, copy, length);
    put_head(served, answer->id,
             &(struct wire_data_done){
                 .status = MC_OK, .moved = length, .checksums = sums_array(&sums) },
             length);
    memcpy(served->out + served->out_end, copy, length);
    served->out_end += (uint32_t)length;
}

/** A large read: its head; tcp_served.read is what follows. */
static void read_begin(struct tcp_served *served, const struct tcp_answer *answer)
{
    const mc_status status = check(served, &answer->access);

    if (status != MC_OK) {
        put_status(served, answer->id, status, 0);
        return;
    }
    served->read.active = true;
    served->read.summed = answer->summed;
    served->read.id = answer->id;
    served->read.at = 0;
    served->read.access = answer->access;
    served->read.status = MC_OK;
    served->read.sums.at = 0;
    put_head(served, answer->id, &(struct wire_data_done){ .status = MC_OK, .more = true },
             answer->access.length);
}

/** Its payload is out: does it count? */
static void read_end(struct tcp_served *served)
{
    struct tcp_outgoing *read = &served->read;

    read->active = false;
    if (read->status != MC_OK) {
        put_status(served, read->id, read->status, 0);
        return;
    }
    put_head(served, read->id,
             &(struct wire_data_done){ .status = MC_OK,
                                       .moved = read->access.length,
                                       .checksums = read->summed ? sums_array(&read->sums)
                                                                 : (struct wire_array){ 0 } },
             0);
}

static void answer_put(struct tcp_served *served, struct tcp_answer *answer)
{
    if (answer->late_ns != 0 && served->now_ns >= answer->late_ns && answer->status == MC_OK)
        answer->status = MC_E_TIMEOUT;
    if (!answer->read || answer->status != MC_OK)
        put_status(served, answer->id, answer->status, answer->access.length);
    else if (answer->access.length <= TCP_SMALL_READ)
        put_small(served, answer);
    else
        read_begin(served, answer);
}

/** Put as many answers into `out` as there is room for, up to a large read. */
static void fill(struct tcp_served *served)
{
    struct tcp_outgoing *read = &served->read;

    if (served->out_begin == served->out_end)
        served->out_begin = served->out_end = 0;
    for (;;) {
        if (TCP_OUT_BYTES - served->out_end < HEAD_BYTES + TCP_SMALL_READ)
            return;
        if (read->active && read->at < read->access.length)
            return;
        if (read->active)
            read_end(served);
        else if (served->count == 0)
            return;
        else {
            struct tcp_answer *answer = &served->answers[served->first];

            served->first = (served->first + 1) % TCP_ANSWERS_MAX;
            served->count--;
            answer_put(served, answer);
        }
    }
}

/** The payload that is to go, pinned or, when that is refused, nothing. */
static size_t payload_iov(struct tcp_served *served, struct iovec iov[IOV_MAX_NOTHING],
                          bool *pinned_p, uint64_t *pin_p)
{
    struct tcp_outgoing *read = &served->read;
    uint64_t left = read->access.length - read->at;
    void *address;

    *pinned_p = false;
    if (read->status == MC_OK)
        read->status = pin_rest(served, &read->access, read->at, &address, pin_p);
    if (read->status == MC_OK) {
        *pinned_p = true;
        if (read->summed && left > TCP_SUMMED_BYTES)
            left = TCP_SUMMED_BYTES;
        iov[0] = (struct iovec){ address, left };
        return 1;
    }
    size_t count = 0;
    for (; left != 0 && count < IOV_MAX_NOTHING; count++) {
        const uint64_t part = left < sizeof(nothing) ? left : sizeof(nothing);

        iov[count] = (struct iovec){ (void *)(uintptr_t)nothing, part };
        left -= part;
    }
    return count;
}

/** One call to the socket: what is in `out`, and payload behind it. */
static mc_status send_some(struct tcp_served *served, struct mc_error *error)
{
    struct tcp_outgoing *read = &served->read;
    struct iovec iov[1 + IOV_MAX_NOTHING];
    const uint64_t heads = served->out_end - served->out_begin;
    const bool payload = read->active && read->at < read->access.length;
    uint64_t pin = 0, sent = 0, asked = heads;
    bool pinned = false;
    size_t count = 1;

    iov[0] = (struct iovec){ served->out + served->out_begin, heads };
    if (payload)
        count += payload_iov(served, iov + 1, &pinned, &pin);
    const void *bytes = count > 1 ? iov[1].iov_base : NULL;
    for (size_t i = 1; i < count; i++)
        asked += iov[i].iov_len;

    mc_status status = tcp_conn_send(&served->conn, iov, count, &sent, error);
    const uint64_t moved = sent > heads ? sent - heads : 0;
    if (pinned && read->summed && moved != 0)
        tcp_sums_add(&read->sums, bytes, moved);
    if (pinned) {
        unpin(served, pin);
        count_moved(served, MC_READ, moved);
    }
    if (status == MC_E_ARG &&
        payload) { /* the memory here cannot be read: that is its owner's fault */
        read->status = MC_E_IO;
        return MC_OK;
    }
    served->out_begin += (uint32_t)(sent - moved);
    if (payload)
        read->at += moved;
    served->blocked = status == MC_OK && sent < asked;
    return status;
}

/** Answer what can be answered until the socket is full. */
static mc_status answer(struct tcp_served *served, struct mc_error *error)
{
    served->blocked = false;
    for (;;) {
        fill(served);
        if (served->out_begin == served->out_end && !served->read.active)
            return MC_OK;
        const mc_status status = send_some(served, error);
        if (status != MC_OK || served->blocked)
            return status;
    }
}

/* ------------------------------------------------------------------------------------------- life */

mc_status tcp_served_open(struct tcp_served *served, struct tcp *tcp, int fd,
                          struct mc_error *error)
{
    const struct wire_self self = tcp_self(tcp);

    served->tcp = tcp;
    served->blocked = served->again = false;
    served->read.active = false;
    served->first = served->count = 0;
    served->out_begin = served->out_end = 0;
    tcp_socket_options(tcp, fd);
    return tcp_conn_init(&served->conn, fd, &serving, &self, false, error);
}

mc_status tcp_served_go(struct tcp_served *served, uint64_t now_ns, struct mc_error *error)
{
    served->now_ns = now_ns;
    if (!served->conn.up) {
        const mc_status status = tcp_conn_greet(&served->conn, &served->blocked, error);

        if (status != MC_OK)
            return status == MC_PENDING ? MC_OK : status;
        served->incarnation = wire_handshake_peer(&served->conn.handshake)->incarnation;
    }
    /* Where reading stopped for want of places, more may lie in the buffer, which no event tells of. */
    served->again = false;
    for (int turn = 0;; turn++) {
        mc_status status = tcp_conn_read(&served->conn, error);
        const bool stopped = !tcp_served_ready(served);

        if (status == MC_OK)
            status = answer(served, error);
        if (status != MC_OK || !stopped || !tcp_served_ready(served))
            return status;
        if (turn == TURNS_MAX) {
            served->again = true;
            return MC_OK;
        }
    }
}

bool tcp_served_ready(const struct tcp_served *served)
{
    return served->count < TCP_ANSWERS_MAX;
}

void tcp_served_close(struct tcp_served *served)
{
    tcp_conn_close(&served->conn);
}
