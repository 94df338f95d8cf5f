/*
 * small_server.h - a server of one answer, in the loop of the client under test: no thread, nothing waits.
 *
 * Life: server_open -> (its loop turns) -> server_close. There is one; it is static.
 */
#ifndef TESTS_SMALL_SERVER_H
#define TESTS_SMALL_SERVER_H

#include "test.h"

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "os/address.h"
#include "os/loop.h"
#include "os/sysalloc.h"

enum { CONNECTIONS_MAX = 8, HEARD_MAX = 4096 };

/** Sends `answer` for each request that it has read to its end; closes behind it if `once`. */
struct server {
    os_loop *loop;
    int listener;
    struct os_watch listening;
    struct connection {
        struct server *server;
        struct os_watch watch;
        char heard[HEARD_MAX];
        size_t size;
    } connections[CONNECTIONS_MAX];
    int accepted, requests;
    const char *answer;
    bool once;
    char last[HEARD_MAX]; /* request */
    char url[64];
};

static inline void hang_up(struct connection *c)
{
    os_loop_unwatch(c->server->loop, &c->watch);
    close(c->watch.fd);
    c->watch.fd = -1;
}

/* Behind the headers, and behind the body that they announce. */
static inline bool complete(const char *heard)
{
    const char *end = strstr(heard, "\r\n\r\n"), *length = strstr(heard, "Content-Length: ");

    return end && strlen(end + 4) >= (length ? strtoul(length + 16, NULL, 10) : 0);
}

static inline void on_readable(void *user, uint32_t events)
{
    struct connection *c = user;
    struct server *s = c->server;
    const ssize_t size = recv(c->watch.fd, c->heard + c->size, HEARD_MAX - 1 - c->size, 0);

    (void)events;
    if (size <= 0) {
        hang_up(c);
        return;
    }
    c->size += (size_t)size;
    c->heard[c->size] = '\0';
    if (!complete(c->heard))
        return;
    s->requests++;
    snprintf(s->last, sizeof(s->last), "%s", c->heard);
    c->size = 0;
    if (s->answer)
        (void)!send(c->watch.fd, s->answer, strlen(s->answer), MSG_NOSIGNAL);
    if (s->once)
        hang_up(c);
}

static inline void on_connection(void *user, uint32_t events)
{
    struct server *s = user;
    int fd;

    (void)events;
    if (os_tcp_accept(s->listener, &fd, NULL) != MC_OK)
        return;
    if (s->accepted == CONNECTIONS_MAX) {
        close(fd);
        return;
    }
    struct connection *c = &s->connections[s->accepted++];
    c->server = s;
    c->watch = (struct os_watch){ .fd = fd, .ready = on_readable, .user = c };
    (void)os_loop_watch(s->loop, &c->watch, OS_READABLE);
}

static inline struct server *server_open(const char *answer)
{
    static struct server s;
    struct os_address address, bound;
    char text[OS_ADDRESS_TEXT];

    s = (struct server){ .answer = answer };
    assert_int_equal(os_loop_open(os_alloc(), &s.loop, NULL), MC_OK);
    assert_int_equal(os_address_parse("127.0.0.1:0", &address, NULL), MC_OK);
    assert_int_equal(os_tcp_listen(&address, &s.listener, &bound, NULL), MC_OK);
    s.listening = (struct os_watch){ .fd = s.listener, .ready = on_connection, .user = &s };
    assert_int_equal(os_loop_watch(s.loop, &s.listening, OS_READABLE), MC_OK);
    snprintf(s.url, sizeof(s.url), "http://%s", os_address_format(&bound, text));
    return &s;
}

static inline void server_close(struct server *s)
{
    os_loop_unwatch(s->loop, &s->listening);
    close(s->listener);
    for (int i = 0; i < s->accepted; i++)
        if (s->connections[i].watch.fd >= 0)
            hang_up(&s->connections[i]);
    os_loop_close(s->loop);
}

#endif /* TESTS_SMALL_SERVER_H */
