/* bench_raw_server.c - the peer's end of raw sockets: receive into memory, send from it. */
#define _GNU_SOURCE
#include "cmd/bench_raw.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"

enum { CONNECTIONS_MAX = 1024, BOUNCE = 4096 };

struct connection {
    struct bench_raw_header header;
    size_t have;   /* bytes of the header */
    uint64_t done; /* bytes of the part */
    bool answer;   /* a byte is due */
};

struct bench_raw_server {
    uint8_t *memory; /* borrowed; [size] */
    uint64_t size;
    bool spin;
    const char *congestion;
    struct pollfd fds[CONNECTIONS_MAX + 2]; /* 0: the listener; last: whoever else is waited for */
    struct connection connections[CONNECTIONS_MAX + 1];
    uint32_t count; /* of fds, without the last */
};

void bench_raw_tune(int fd, const char *congestion)
{
    const int yes = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
    setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, congestion, (socklen_t)strlen(congestion));
}

mc_status bench_raw_serve_open(uint8_t *memory, uint64_t size, bool spin, const char *congestion,
                               struct bench_raw_server **server_p, uint32_t *port_p,
                               struct mc_error *error)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof(address);
    struct bench_raw_server *server = calloc(1, sizeof(*server));
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (!server || fd < 0 || bind(fd, (struct sockaddr *)&address, length) != 0 ||
        listen(fd, CONNECTIONS_MAX) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) != 0) {
        error_set(error, MC_E_IO, "raw sockets: %s", strerror(errno));
        if (fd >= 0)
            close(fd);
        free(server);
        return MC_E_IO;
    }
    *server = (struct bench_raw_server){
        .memory = memory, .size = size, .spin = spin, .congestion = congestion, .count = 1
    };
    server->fds[0] = (struct pollfd){ .fd = fd, .events = POLLIN };
    *server_p = server;
    *port_p = ntohs(address.sin_port);
    return MC_OK;
}

static void take_connection(struct bench_raw_server *s)
{
    const int fd = accept4(s->fds[0].fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd < 0)
        return;
    if (s->count > CONNECTIONS_MAX) {
        close(fd);
        return;
    }
    bench_raw_tune(fd, s->congestion);
    s->connections[s->count] = (struct connection){ 0 };
    s->fds[s->count++] = (struct pollfd){ .fd = fd, .events = POLLIN };
}

/* The header and what comes with it: a small part costs one call. */
static ssize_t receive_head(struct bench_raw_server *s, int fd, struct connection *c)
{
    uint8_t bytes[sizeof(c->header) + BOUNCE];
    const ssize_t got = recv(fd, bytes, sizeof(bytes) - c->have, 0);

    if (got <= 0)
        return got;
    const size_t missing = sizeof(c->header) - c->have,
                 head = (size_t)got < missing ? (size_t)got : missing;
    memcpy((uint8_t *)&c->header + c->have, bytes, head);
    c->have += head;
    if (c->have < sizeof(c->header))
        return got;
    const uint64_t rest = (uint64_t)got - head;
    if (c->header.offset > s->size || c->header.length > s->size - c->header.offset ||
        rest > c->header.length)
        return 0; /* not one of ours */
    memcpy(s->memory + c->header.offset, bytes + head, rest);
    c->done = rest;
    return got;
}

/* One step of a connection: > 0 when something moved, 0 at its end, < 0 when it would block. */
static ssize_t step(struct bench_raw_server *s, int fd, struct connection *c)
{
    ssize_t moved;

    if (c->have < sizeof(c->header)) {
        moved = receive_head(s, fd, c);
    } else {
        uint8_t *at = s->memory + c->header.offset + c->done;
        const uint64_t left = c->header.length - c->done;
        if (c->answer)
            moved = send(fd, "", 1, MSG_NOSIGNAL);
        else if (c->header.op == BENCH_WRITE)
            moved = recv(fd, at, left, 0);
        else
            moved = send(fd, at, left, MSG_NOSIGNAL);
        if (moved > 0 && c->answer)
            *c = (struct connection){ 0 };
        else if (moved > 0)
            c->done += (uint64_t)moved;
    }
    if (moved > 0 && c->have == sizeof(c->header) && c->done == c->header.length && !c->answer) {
        c->answer = c->header.op == BENCH_WRITE;
        if (!c->answer)
            *c = (struct connection){ 0 };
    }
    return moved;
}

static bool wants_to_send(const struct connection *c)
{
    return c->have == sizeof(c->header) && (c->answer || c->header.op == BENCH_READ);
}

/* Steps until the connection would block; false: it is at its end. */
static bool drive(struct bench_raw_server *s, uint32_t i)
{
    struct connection *c = &s->connections[i];
    ssize_t moved;

    do {
        moved = step(s, s->fds[i].fd, c);
    } while (moved > 0 && (c->have > 0 || wants_to_send(c)));
    s->fds[i].events = wants_to_send(c) ? POLLOUT : POLLIN;
    return moved > 0 || (moved < 0 && (errno == EAGAIN || errno == EINTR));
}

static void drop(struct bench_raw_server *s, uint32_t i)
{
    close(s->fds[i].fd);
    s->count--;
    s->fds[i] = s->fds[s->count];
    s->connections[i] = s->connections[s->count];
}

void bench_raw_serve(struct bench_raw_server *server, int other_fd)
{
    struct bench_raw_server *s = server;

    for (;;) {
        /* Spinning is for the time in which somebody is connected. */
        s->fds[s->count] = (struct pollfd){ .fd = other_fd, .events = POLLIN };
        if (poll(s->fds, s->count + 1, s->spin && s->count > 1 ? 0 : -1) < 0 && errno != EINTR)
            return;
        if (s->fds[s->count].revents)
            return;
        for (uint32_t i = s->count; i-- > 1;)
            if (s->fds[i].revents && !drive(s, i))
                drop(s, i);
        if (s->fds[0].revents)
            take_connection(s);
    }
}

void bench_raw_serve_close(struct bench_raw_server *server)
{
    for (uint32_t i = 0; i < server->count; i++)
        close(server->fds[i].fd);
    free(server);
}
