/*
 * fuzz_http.c - any bytes from a client into the real server, over a socket pair in one loop: it answers HTTP
 * or closes, and when the client is gone nothing is under way.
 *
 * The first byte says in how large pieces the bytes come (high half) and how the client leaves (lowest bit).
 * What the server's user does with a request is chosen by the length of its path: refuse to admit it, answer, hold
 * and answer later, hold until the client is gone, stream, stream and abort.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gateway/http.h"
#include "os/sysalloc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static os_loop *loop;
static http_server *server;
static http_request *held;

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void answer(http_request *r, unsigned status)
{
    struct buf body = BUF_INIT(os_alloc());

    buf_add_text(&body, "body\n");
    http_header_add(r, "X-Method", http_method(r));
    http_answer(r, status, "text/plain", &body);
}

static void gone(void *user)
{
    require(user == held);
    held = NULL;
}

static void check_texts(const http_request *r)
{
    size_t size;
    const char *body = http_body(r, &size);

    require(strlen(body) <= size && size <= 64);
    require(strlen(http_request_id(r)) > 0 && strlen(http_request_id(r)) <= 64);
    require(http_method(r)[0] && http_path(r)[0]);
    for (const char *c = http_path(r); *c; c++)
        require((unsigned char)*c >= 0x20 && *c != 0x7f);
    (void)http_header(r, "Authorization");
}

static bool admit(void *user, http_request *r)
{
    (void)user;
    check_texts(r);
    if (strlen(http_path(r)) % 6 != 0)
        return true;
    answer(r, 401);
    return false;
}

static void take(void *user, http_request *r)
{
    (void)user;
    check_texts(r);
    require(!held);
    switch (strlen(http_path(r)) % 6) {
    case 1:
        answer(r, 200);
        return;
    case 2:
    case 3:
        held = r;
        http_hold(r, gone, r);
        return;
    case 4:
        http_stream_begin(r, "text/event-stream");
        require(http_stream_add(r, "one\n", 4) == MC_OK);
        require(http_stream_add(r, "two\n", 4) == MC_OK);
        http_stream_end(r);
        return;
    default:
        http_stream_begin(r, "text/event-stream");
        require(http_stream_add(r, "one\n", 4) == MC_OK);
        http_abort(r);
    }
}

static void refuse(void *user, http_request *r, unsigned status, const char *code, const char *text)
{
    (void)user;
    require(status >= 400 && status <= 599 && code[0] && text[0]);
    answer(r, status);
}

static void quiet(void *user)
{
    (void)user;
    require(http_active(server) == 0);
}

static void open_server(void)
{
    const struct http_options options = {
        .alloc = os_alloc(),
        .loop = NULL,
        .body_max = 64,
        .stream_max = 1000,
        .headers_max = 512,
        .handler = { admit, take, refuse, quiet, NULL },
    };
    struct http_options o = options;

    require(os_loop_open(os_alloc(), &loop, NULL) == MC_OK);
    o.loop = loop;
    require(http_open(&o, &server, NULL) == MC_OK);
}

static void turn(void)
{
    require(os_loop_turn(loop, 0) == MC_OK);
    if (held && strlen(http_path(held)) % 6 == 2) {
        http_request *r = held;
        held = NULL;
        answer(r, 200);
        require(os_loop_turn(loop, 0) == MC_OK);
    }
}

/* What came back: nothing, or HTTP. */
static void hear(int fd, bool *first)
{
    char bytes[8192];
    ssize_t n;

    while ((n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0) {
        if (*first && n >= 9)
            require(memcmp(bytes, "HTTP/1.1 ", 9) == 0);
        *first = false;
    }
}

static void talk(int fd, const uint8_t *data, size_t size, size_t piece)
{
    bool first = true;

    for (size_t at = 0; at < size;) {
        const size_t n = piece < size - at ? piece : size - at;
        const ssize_t sent = send(fd, data + at, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent <= 0)
            return; /* the server closed, or has had enough */
        at += (size_t)sent;
        turn();
        hear(fd, &first);
    }
    turn();
    hear(fd, &first);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int pair[2];

    if (size < 1 || size > 16384)
        return 0;
    if (!server)
        open_server();
    require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0);
    require(http_adopt(server, pair[0]) == MC_OK);
    const size_t piece = (size_t)1 << (data[0] >> 4);
    talk(pair[1], data + 1, size - 1, piece);
    if (data[0] & 1) {
        (void)shutdown(pair[1], SHUT_WR);
        turn();
    }
    close(pair[1]);
    for (int i = 0; i < 4; i++)
        turn();
    require(http_active(server) == 0 && http_counts(server).connections == 0 && !held);
    return 0;
}
