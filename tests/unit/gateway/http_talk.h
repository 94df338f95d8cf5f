/*
 * http_talk.h - an HTTP client of a few lines over a loopback socket, in the loop of the server under test.
 *
 * Nothing waits for a time: talk_until() turns the loop until what is wanted is there, and fails after
 * a minute.
 */
#ifndef TESTS_HTTP_TALK_H
#define TESTS_HTTP_TALK_H

#include "test.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "os/address.h"
#include "os/clock.h"
#include "os/loop.h"
#include "os/sysalloc.h"

struct talk {
    os_loop *loop;
    int fd;
    struct buf in; /* all that came */
    bool closed;   /* by the server */
};

static inline void talk_open(struct talk *t, os_loop *loop, const char *address)
{
    struct os_address where;

    *t = (struct talk){ .loop = loop, .fd = -1, .in = BUF_INIT(os_alloc()) };
    assert_int_equal(os_address_parse(address, &where, NULL), MC_OK);
    assert_int_equal(os_tcp_dial(&where, &t->fd, NULL), MC_OK);
    buf_add(&t->in, "", 0);
}

static inline void talk_close(struct talk *t)
{
    if (t->fd >= 0)
        close(t->fd);
    buf_fini(&t->in);
    t->fd = -1;
}

static inline void talk_turn(os_loop *loop)
{
    assert_int_equal(os_loop_turn(loop, os_now_ns() + 1000000), MC_OK);
}

/* Take what is there. */
static inline void talk_read(struct talk *t)
{
    char bytes[4096];
    ssize_t n;

    while (!t->closed && (n = recv(t->fd, bytes, sizeof(bytes), MSG_DONTWAIT)) >= 0) {
        if (n == 0)
            t->closed = true;
        else
            buf_add(&t->in, bytes, (size_t)n);
    }
    if (!t->closed && errno != EAGAIN)
        t->closed = true;
}

static inline void talk_send(struct talk *t, const void *bytes, size_t size)
{
    const uint64_t until_ns = os_now_ns() + UINT64_C(60000000000);
    size_t sent = 0;

    while (sent < size) {
        const ssize_t n =
            send(t->fd, (const char *)bytes + sent, size - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0)
            sent += (size_t)n;
        else if (errno != EAGAIN && errno != ENOTCONN)
            return; /* the server closed: what it said is for the test to look at */
        talk_turn(t->loop);
        assert_true(os_now_ns() < until_ns);
    }
}

static inline void talk_say(struct talk *t, const char *text)
{
    talk_send(t, text, strlen(text));
}

/* A POST with a body, HTTP/1.1, keep-alive. */
static inline void talk_post(struct talk *t, const char *path, const char *headers,
                             const char *body)
{
    struct buf out = BUF_INIT(os_alloc());

    buf_addf(&out, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n%s\r\n%s", path,
             strlen(body), headers, body);
    talk_send(t, out.data, out.size);
    buf_fini(&out);
}

/* Turn until `text` came (or the server closed, if text is NULL). */
static inline void talk_until(struct talk *t, const char *text)
{
    const uint64_t until_ns = os_now_ns() + UINT64_C(60000000000);

    for (;;) {
        talk_read(t);
        if (text ? strstr(t->in.data, text) != NULL : t->closed)
            return;
        if (t->closed || os_now_ns() > until_ns)
            fail_msg("%s; got: %s", t->closed ? "closed early" : "too late", t->in.data);
        talk_turn(t->loop);
    }
}

/* A whole answer with Content-Length. */
static inline void talk_answer(struct talk *t)
{
    talk_until(t, "\r\n\r\n");
    const char *length = strstr(t->in.data, "Content-Length: ");
    const char *body = strstr(t->in.data, "\r\n\r\n") + 4;
    const size_t head = (size_t)(body - t->in.data);
    const uint64_t until_ns = os_now_ns() + UINT64_C(60000000000);

    assert_non_null(length);
    const size_t size = strtoul(length + 16, NULL, 10);
    while (t->in.size < head + size) {
        assert_true(os_now_ns() < until_ns && !t->closed);
        talk_turn(t->loop);
        talk_read(t);
    }
}

static inline unsigned talk_status(const struct talk *t)
{
    return strncmp(t->in.data, "HTTP/1.1 ", 9) == 0 ? (unsigned)strtoul(t->in.data + 9, NULL, 10)
                                                    : 0;
}

/* Forget what came: another request on the same connection. */
static inline void talk_again(struct talk *t)
{
    buf_truncate(&t->in, 0);
    t->in.data[0] = '\0';
}

/* The body of a chunked answer that is whole; freed by buf_fini(). */
static inline void talk_chunked(const struct talk *t, struct buf *body)
{
    const char *at = strstr(t->in.data, "\r\n\r\n") + 4;

    for (;;) {
        char *end;
        const size_t size = strtoul(at, &end, 16);
        assert_true(end > at && strncmp(end, "\r\n", 2) == 0);
        if (size == 0)
            return;
        buf_add(body, end + 2, size);
        at = end + 2 + size + 2;
    }
}

#endif /* TESTS_HTTP_TALK_H */
