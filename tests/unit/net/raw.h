/*
 * raw.h - for tests: a peer that is a plain socket, so that it can say whatever it likes.
 */
#ifndef UNIT_NET_RAW_H
#define UNIT_NET_RAW_H

#include "pair.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "os/address.h"
#include "wire/handshake.h"

struct raw {
    os_loop *loop;
    int fd;
    struct wire_reader reader;
    uint8_t body[4096];
    uint8_t in[8192]; /* what was read and not looked at yet */
    size_t in_begin, in_end;
};

static inline void raw_open(struct raw *raw, os_loop *loop, int fd)
{
    raw->loop = loop;
    raw->fd = fd;
    raw->in_begin = raw->in_end = 0;
    wire_reader_init(&raw->reader, raw->body, sizeof(raw->body), sizeof(raw->body), 0);
}

static inline int raw_listen(char address[80])
{
    struct os_address any, bound;
    int fd = -1;

    assert_int_equal(os_address_parse("127.0.0.1:0", &any, NULL), MC_OK);
    assert_int_equal(os_tcp_listen(&any, &fd, &bound, NULL), MC_OK);
    os_address_format(&bound, address);
    return fd;
}

/** Accept one, turning the loop so that somebody comes. */
static inline void raw_accept(struct raw *raw, os_loop *loop, int listener)
{
    const uint64_t end_ns = os_now_ns() + UINT64_C(60000000000);
    int fd = -1;

    while (os_tcp_accept(listener, &fd, NULL) != MC_OK) {
        assert_true(os_now_ns() < end_ns);
        assert_int_equal(os_loop_turn(loop, os_now_ns() + 1000000), MC_OK);
    }
    raw_open(raw, loop, fd);
}

static inline void raw_dial(struct raw *raw, os_loop *loop, const char *address)
{
    struct os_address to;
    int fd = -1;

    assert_int_equal(os_address_parse(address, &to, NULL), MC_OK);
    assert_int_equal(os_tcp_dial(&to, &fd, NULL), MC_OK);
    while (os_tcp_dialled(fd, &to, NULL) == MC_PENDING)
        ; /* loopback: at once */
    raw_open(raw, loop, fd);
}

static inline void raw_send(struct raw *raw, const void *bytes, size_t size)
{
    for (size_t at = 0; at < size;) {
        const ssize_t n = send(raw->fd, (const char *)bytes + at, size - at, MSG_NOSIGNAL);
        if (n > 0)
            at += (size_t)n;
        else
            settle(raw->loop);
    }
}

/** Read what is there into `in`; false once the other side has ended. */
static inline bool raw_fill(struct raw *raw)
{
    if (raw->in_begin == raw->in_end)
        raw->in_begin = raw->in_end = 0;
    const ssize_t n = recv(raw->fd, raw->in + raw->in_end, sizeof(raw->in) - raw->in_end, 0);
    if (n > 0)
        raw->in_end += (size_t)n;
    return n > 0 || (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK));
}

/** Greet as `incarnation` without a secret. */
static inline void raw_greet(struct raw *raw, uint64_t incarnation)
{
    static struct wire_handshake h;
    const struct wire_self self = { .incarnation = incarnation, .role = 1, .name = "raw" };
    const uint8_t *bytes;
    size_t used;
    mc_status status = MC_PENDING;

    assert_int_equal(wire_handshake_init(&h, &self, true, NULL, NULL), MC_OK);
    const size_t size = wire_handshake_out(&h, &bytes);
    raw_send(raw, bytes, size);
    while (status == MC_PENDING) {
        settle(raw->loop);
        assert_true(raw_fill(raw));
        status = wire_handshake_feed(&h, raw->in + raw->in_begin, raw->in_end - raw->in_begin,
                                     &used, NULL);
        raw->in_begin += used;
    }
    assert_int_equal(status, MC_OK);
    settle(raw->loop);
}

/** Make a frame in `bytes`; its size. */
static inline size_t raw_frame(uint8_t *bytes, enum wire_kind kind, uint64_t id, uint32_t flags,
                               const void *message)
{
    struct wire_frame frame = {
        .kind = kind, .id = id, .flags = flags, .body = bytes + WIRE_HEADER_BYTES
    };
    size_t size;

    assert_int_equal(wire_encode(kind, message, bytes + WIRE_HEADER_BYTES, 4096, &size), MC_OK);
    frame.body_size = (uint32_t)size;
    wire_header_encode(&frame, bytes);
    return WIRE_HEADER_BYTES + size;
}

static inline void raw_say(struct raw *raw, enum wire_kind kind, uint64_t id, uint32_t flags,
                           const void *message)
{
    uint8_t bytes[WIRE_HEADER_BYTES + 4096];

    raw_send(raw, bytes, raw_frame(bytes, kind, id, flags, message));
}

/** The next frame, turning the loop until it is there. Borrowed until the next call. */
static inline struct wire_frame raw_hear(struct raw *raw)
{
    const uint64_t end_ns = os_now_ns() + UINT64_C(60000000000);
    struct wire_frame frame = { 0 };
    size_t used;

    for (;;) {
        const mc_status status = wire_reader_feed(&raw->reader, raw->in + raw->in_begin,
                                                  raw->in_end - raw->in_begin, &used, &frame, NULL);
        raw->in_begin += used;
        if (status == MC_OK)
            return frame;
        assert_int_equal(status, MC_PENDING);
        assert_true(os_now_ns() < end_ns);
        assert_int_equal(os_loop_turn(raw->loop, os_now_ns() + 1000000), MC_OK);
        assert_true(raw_fill(raw));
    }
}

/** Turn until the other side has ended; how many bytes came before. */
static inline size_t raw_end(struct raw *raw)
{
    const uint64_t end_ns = os_now_ns() + UINT64_C(60000000000);
    size_t count = raw->in_end - raw->in_begin;

    for (;;) {
        raw->in_begin = raw->in_end = 0;
        if (!raw_fill(raw))
            return count;
        count += raw->in_end;
        assert_true(os_now_ns() < end_ns);
        if (raw->in_end == 0)
            assert_int_equal(os_loop_turn(raw->loop, os_now_ns() + 1000000), MC_OK);
    }
}

#endif /* UNIT_NET_RAW_H */
