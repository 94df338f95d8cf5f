/* tcp_conn.c - bytes from a socket become greetings, frames and payload in its place. */
#define _GNU_SOURCE
#include "transfer/transport/tcp_conn.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/crc.h"
#include "base/error.h"
#include "os/random.h"
#include "wire/bytes.h"

enum {
    SPILL_MAX =
        4 * 1024, /* of the next frame, taken with the end of a large payload: copied again */
    DROP_MAX = 1 << 20,
};

mc_status tcp_conn_init(struct tcp_conn *conn, int fd, const struct tcp_side *side,
                        const struct wire_self *self, bool dialled, struct mc_error *error)
{
    struct mc_identity nonce;

    conn->fd = fd;
    conn->up = false;
    conn->side = side;
    conn->payload = 0;
    conn->in_begin = conn->in_end = 0;
    wire_reader_init(&conn->reader, conn->body, sizeof(conn->body), TCP_BODY_BYTES, TCP_SLICE_MAX);
    os_random(&nonce, sizeof(nonce));
    const mc_status status = wire_handshake_init(&conn->handshake, self, dialled, &nonce, error);
    if (status != MC_OK)
        tcp_conn_close(conn);
    return status;
}

void tcp_conn_close(struct tcp_conn *conn)
{
    if (conn->fd >= 0)
        close(conn->fd);
    conn->fd = -1;
    conn->up = false;
}

/** What a failed call on the socket means. */
static mc_status lost(int code, const char *what, struct mc_error *error)
{
    switch (code) {
    case ECONNRESET:
    case EPIPE:
    case ETIMEDOUT:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ENETDOWN:
    case ECONNREFUSED:
    case ECONNABORTED:
        return error_set(error, MC_E_PEER, "connection lost: %s", strerror(code));
    default:
        return error_set(error, MC_E_IO, "%s: %s", what, strerror(code));
    }
}

/* ------------------------------------------------------------------------------------- handshake */

/** Send what the handshake has to say; *unsent_p: the socket takes no more. */
static mc_status greet_send(struct tcp_conn *conn, bool *unsent_p, struct mc_error *error)
{
    const uint8_t *bytes;

    *unsent_p = false;
    for (size_t size; (size = wire_handshake_out(&conn->handshake, &bytes)) != 0;) {
        const ssize_t sent = send(conn->fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (sent >= 0) {
            wire_handshake_sent(&conn->handshake, (size_t)sent);
        } else if (errno == EAGAIN) {
            *unsent_p = true;
            return MC_OK;
        } else if (errno != EINTR) {
            return lost(errno, "send", error);
        }
    }
    return MC_OK;
}

/** Receive into the buffer, which is empty; *got_p is 0 when nothing is there. */
static mc_status receive_plain(struct tcp_conn *conn, size_t *got_p, struct mc_error *error)
{
    assert(conn->in_begin == conn->in_end);
    conn->in_begin = conn->in_end = 0;
    for (;;) {
        const ssize_t got = recv(conn->fd, conn->in, sizeof(conn->in), MSG_DONTWAIT);

        if (got > 0) {
            conn->in_end = (uint32_t)got;
            *got_p = (size_t)got;
            return MC_OK;
        }
        if (got == 0)
            return error_set(error, MC_E_PEER, "the peer closed the connection");
        if (errno == EAGAIN) {
            *got_p = 0;
            return MC_OK;
        }
        if (errno != EINTR)
            return lost(errno, "recv", error);
    }
}

mc_status tcp_conn_greet(struct tcp_conn *conn, bool *unsent_p, struct mc_error *error)
{
    mc_status greeted = MC_PENDING;
    mc_status status = greet_send(conn, unsent_p, error);

    while (status == MC_OK && greeted == MC_PENDING) {
        size_t got, used;

        status = receive_plain(conn, &got, error);
        if (status != MC_OK || got == 0)
            break;
        greeted = wire_handshake_feed(&conn->handshake, conn->in, got, &used, error);
        conn->in_begin = (uint32_t)used;
        /* A refusal says why in what is sent now; if the socket is full, it goes without. */
        struct mc_error sending;
        const mc_status sent = greet_send(conn, unsent_p, &sending);
        if (greeted == MC_OK || greeted == MC_PENDING)
            status = sent == MC_OK ? MC_OK : error_set(error, sent, "%s", sending.text);
    }
    if (status != MC_OK)
        return status;
    if (greeted != MC_OK)
        return greeted;
    /* What little is unsent fits into a fresh socket's buffer, unless somebody plays with us. */
    if (*unsent_p)
        return error_set(error, MC_E_PEER, "the peer does not read its greeting");
    conn->up = true;
    return MC_OK;
}

/* ---------------------------------------------------------------------------------------- reading */

/** Payload that lies in the buffer goes where it belongs. */
static void take_payload(struct tcp_conn *conn)
{
    const uint64_t have = conn->in_end - conn->in_begin;
    const uint64_t most = have < conn->payload ? have : conn->payload;
    uint64_t size = 0;
    void *to = conn->side->target(conn, &size);

    if (!to || size > most)
        size = most;
    if (to)
        memcpy(to, conn->in + conn->in_begin, size);
    conn->in_begin += (uint32_t)size;
    conn->payload -= size;
    conn->side->arrived(conn, to, size);
}

/** Take apart what is in the buffer; *stopped_p: the side wants no more frames now. */
static mc_status take_buffer(struct tcp_conn *conn, bool *stopped_p, struct mc_error *error)
{
    *stopped_p = false;
    while (conn->in_begin < conn->in_end) {
        if (conn->payload != 0) {
            take_payload(conn);
            continue;
        }
        if (!conn->side->ready(conn)) {
            *stopped_p = true;
            return MC_OK;
        }
        struct wire_frame frame;
        size_t used;
        mc_status status = wire_reader_feed(&conn->reader, conn->in + conn->in_begin,
                                            conn->in_end - conn->in_begin, &used, &frame, error);
        conn->in_begin += (uint32_t)used;
        if (status == MC_PENDING)
            continue;
        if (status == MC_OK) {
            conn->payload = frame.payload;
            status = conn->side->frame(conn, &frame, error);
        }
        if (status != MC_OK)
            return status;
    }
    return MC_OK;
}

/** Throw away payload that nobody wants, without copying it anywhere. */
static ssize_t receive_nowhere(struct tcp_conn *conn, size_t *asked_p)
{
    *asked_p = conn->payload < DROP_MAX ? (size_t)conn->payload : DROP_MAX;
    return recv(conn->fd, NULL, *asked_p, MSG_DONTWAIT | MSG_TRUNC);
}

/** Receive payload to its place and, behind its end, into the buffer. */
static ssize_t receive_there(struct tcp_conn *conn, void *to, uint64_t size, size_t *asked_p)
{
    struct iovec iov[2] = { { to, (size_t)size }, { conn->in, 0 } };

    if (size == conn->payload) /* else what follows is payload, too */
        iov[1].iov_len = size > SPILL_MAX ? SPILL_MAX : sizeof(conn->in);
    struct msghdr message = { .msg_iov = iov, .msg_iovlen = iov[1].iov_len != 0 ? 2 : 1 };
    *asked_p = iov[0].iov_len + iov[1].iov_len;
    return recvmsg(conn->fd, &message, MSG_DONTWAIT);
}

/** One call: payload if some is due. *got_p of *asked_p bytes came. The buffer is empty. */
static mc_status receive(struct tcp_conn *conn, size_t *got_p, size_t *asked_p,
                         struct mc_error *error)
{
    if (conn->payload == 0) {
        *asked_p = sizeof(conn->in);
        return receive_plain(conn, got_p, error);
    }

    uint64_t size = 0;
    void *to = conn->side->target(conn, &size);
    conn->in_begin = conn->in_end = 0;
    ssize_t got = to ? receive_there(conn, to, size, asked_p) : receive_nowhere(conn, asked_p);
    const int code = errno;
    const uint64_t came = got > 0 ? (uint64_t)got : 0;
    const uint64_t moved = to && came > size ? size : came;

    conn->payload -= moved;
    conn->side->arrived(conn, to, moved);
    *got_p = came;
    if (got > 0) {
        conn->in_end = (uint32_t)(came - moved);
        return MC_OK;
    }
    if (got == 0)
        return error_set(error, MC_E_PEER, "the peer closed the connection");
    if (code == EFAULT) {
        conn->side->unwritable(conn);
        *asked_p = 0; /* not a short read: go on */
        return MC_OK;
    }
    if (code == EINTR)
        *asked_p = 0;
    return code == EAGAIN || code == EINTR ? MC_OK : lost(code, "recv", error);
}

mc_status tcp_conn_read(struct tcp_conn *conn, struct mc_error *error)
{
    uint64_t taken = 0;

    for (;;) {
        bool stopped;
        size_t got, asked;
        mc_status status = take_buffer(conn, &stopped, error);

        if (status != MC_OK || stopped || taken >= TCP_READ_BUDGET)
            return status;
        if (conn->payload == 0 && !conn->side->ready(conn))
            return MC_OK;
        status = receive(conn, &got, &asked, error);
        if (status != MC_OK)
            return status;
        taken += got;
        if (got < asked) /* it is empty: no second call to hear so */
            return take_buffer(conn, &stopped, error);
    }
}

/* ---------------------------------------------------------------------------------------- sending */

mc_status tcp_conn_send(struct tcp_conn *conn, struct iovec *iov, size_t count, uint64_t *sent_p,
                        struct mc_error *error)
{
    struct msghdr message = { .msg_iov = iov, .msg_iovlen = count };

    for (;;) {
        const ssize_t sent = sendmsg(conn->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (sent >= 0) {
            *sent_p = (uint64_t)sent;
            return MC_OK;
        }
        if (errno == EAGAIN) {
            *sent_p = 0;
            return MC_OK;
        }
        if (errno == EFAULT)
            return error_set(error, MC_E_ARG, "memory cannot be read");
        if (errno != EINTR)
            return lost(errno, "send", error);
    }
}

/* ------------------------------------------------------------------------------------------- sums */

void tcp_sums_add(struct tcp_sums *sums, const void *bytes, uint64_t size)
{
    const uint8_t *p = bytes;

    assert(size <= TCP_SLICE_MAX - sums->at);
    while (size != 0) {
        const uint64_t piece = sums->at / TCP_SUM_BYTES, within = sums->at % TCP_SUM_BYTES;
        const uint64_t room = TCP_SUM_BYTES - within;
        const uint64_t part = size < room ? size : room;

        sums->sum[piece] = crc32c(within != 0 ? sums->sum[piece] : 0, p, part);
        sums->at += part;
        p += part;
        size -= part;
    }
}

uint32_t tcp_sums_count(uint64_t length)
{
    return (uint32_t)((length + TCP_SUM_BYTES - 1) / TCP_SUM_BYTES);
}

bool tcp_sums_equal(const struct tcp_sums *sums, const uint32_t *expected, uint64_t length)
{
    return sums->at == length &&
           memcmp(sums->sum, expected, tcp_sums_count(length) * sizeof(*expected)) == 0;
}

bool tcp_sums_take(const struct wire_array *array, uint32_t count, uint32_t sums_p[TCP_SUMS])
{
    if (array->count != count || count > TCP_SUMS)
        return false;
    for (uint32_t i = 0; i < count; i++)
        sums_p[i] = get_u32((const uint8_t *)array->data + 4 * (size_t)i);
    return true;
}
