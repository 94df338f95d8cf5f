/* test_http.c - requests in, answers out, streams, hang-ups and limits, over loopback sockets in one loop. */
#include "http_talk.h"

#include "gateway/http.h"

/* What the server under test saw, and a request that it holds. */
struct seen {
    uint32_t requests, refused, gone, quiet;
    unsigned status; /* of the last refusal */
    char code[32];
    char method[16], path[64], header[64];
    struct buf body;
    http_request *held;
    bool hold;     /* else answered at once */
    bool streamed; /* answered by a stream at once */
};

static struct seen seen;
static os_loop *loop;
static http_server *server;
static struct faulty f;

static void reply(http_request *r, unsigned status, const char *text)
{
    struct buf body = BUF_INIT(&f.alloc);

    buf_add_text(&body, text);
    http_answer(r, status, "text/plain", &body);
}

static void gone(void *user)
{
    assert_ptr_equal(user, &seen);
    seen.gone++;
    seen.held = NULL;
}

static void take(void *user, http_request *r)
{
    size_t size;
    const char *body = http_body(r, &size), *header = http_header(r, "x-test");

    assert_ptr_equal(user, &seen);
    seen.requests++;
    snprintf(seen.method, sizeof(seen.method), "%s", http_method(r));
    snprintf(seen.path, sizeof(seen.path), "%s", http_path(r));
    snprintf(seen.header, sizeof(seen.header), "%s", header ? header : "-");
    buf_truncate(&seen.body, 0);
    buf_add(&seen.body, body, size);
    if (!seen.hold) {
        http_header_add(r, "X-Seen", "yes");
        http_header_add(r, "X-Bad", "a\r\nX-Injected: 1");
        reply(r, 200, "hello\n");
        return;
    }
    http_hold(r, gone, &seen);
    seen.held = r;
}

static void refuse(void *user, http_request *r, unsigned status, const char *code, const char *text)
{
    (void)user;
    seen.refused++;
    seen.status = status;
    snprintf(seen.code, sizeof(seen.code), "%s", code);
    assert_true(strlen(text) > 0 && strlen(http_request_id(r)) > 0);
    reply(r, status, "refused\n");
}

static bool admit(void *user, http_request *r)
{
    (void)user;
    if (!http_header(r, "X-Barred"))
        return true;
    reply(r, 401, "barred\n");
    return false;
}

static void quiet(void *user)
{
    (void)user;
    seen.quiet++;
}

static struct http_options basic(void)
{
    return (struct http_options){
        .alloc = &f.alloc,
        .loop = loop,
        .listen = "127.0.0.1:0",
        .body_max = 1000,
        .stream_max = 10000,
        .handler = { admit, take, refuse, quiet, &seen },
    };
}

static int setup_with(const struct http_options *options)
{
    struct mc_error error = { 0 };

    http_close(server);
    server = NULL;
    if (http_open(options, &server, &error) != MC_OK)
        fail_msg("%s", error.text);
    return 0;
}

static int setup(void **state)
{
    (void)state;
    faulty_init(&f, -1);
    seen = (struct seen){ .body = BUF_INIT(os_alloc()) };
    assert_int_equal(os_loop_open(os_alloc(), &loop, NULL), MC_OK);
    server = NULL;
    const struct http_options options = basic();
    return setup_with(&options);
}

static int teardown(void **state)
{
    (void)state;
    http_close(server);
    os_loop_close(loop);
    buf_fini(&seen.body);
    return f.held == 0 ? 0 : -1;
}

#define WAIT(condition) \
    for (const uint64_t until = os_now_ns() + UINT64_C(60000000000); !(condition);) { \
        if (os_now_ns() > until) \
            fail_msg("too late: %s", #condition); \
        talk_turn(loop); \
    }

static void wait_held(void)
{
    WAIT(seen.held);
}

static void wait_idle(void)
{
    WAIT(http_active(server) == 0);
}

/* A request that is held. */
static void hold_one(struct talk *t)
{
    seen.hold = true;
    seen.held = NULL;
    talk_open(t, loop, http_address(server));
    talk_post(t, "/x", "", "1");
    wait_held();
}

/* And whose stream has begun. */
static void stream_one(struct talk *t)
{
    hold_one(t);
    http_stream_begin(seen.held, "text/plain");
    assert_int_equal(http_stream_add(seen.held, "part", 4), MC_OK);
    talk_until(t, "part");
}

/* ------------------------------------------------------------------------------------- requests */

static void test_a_request_is_seen_whole_and_answered_on_a_connection_that_stays(void **state)
{
    struct talk t;

    (void)state;
    talk_open(&t, loop, http_address(server));
    for (uint32_t i = 1; i <= 3; i++) {
        talk_post(&t, "/a/b?c=d", "X-Test: 7\r\n", "the body");
        talk_answer(&t);
        assert_int_equal(talk_status(&t), 200);
        assert_non_null(strstr(t.in.data, "\r\n\r\nhello\n"));
        assert_non_null(strstr(t.in.data, "Content-Type: text/plain\r\n"));
        assert_non_null(strstr(t.in.data, "X-Seen: yes\r\n"));
        assert_null(strstr(t.in.data, "X-Injected"));
        assert_int_equal(seen.requests, i);
        assert_string_equal(seen.method, "POST");
        assert_string_equal(seen.path, "/a/b");
        assert_string_equal(seen.header, "7");
        assert_string_equal(seen.body.data, "the body");
        talk_again(&t);
    }
    wait_idle();
    assert_int_equal(seen.quiet, 3);
    talk_close(&t);
}

static void test_a_body_in_chunks_and_byte_by_byte_is_one_body(void **state)
{
    static const char request[] =
        "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        "3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n";
    struct talk t;

    (void)state;
    talk_open(&t, loop, http_address(server));
    for (size_t i = 0; i + 1 < sizeof(request); i++)
        talk_send(&t, request + i, 1);
    talk_answer(&t);
    assert_string_equal(seen.body.data, "abcdefg");
    talk_close(&t);
}

static void test_a_held_request_is_answered_later(void **state)
{
    struct talk t;

    (void)state;
    hold_one(&t);
    for (int i = 0; i < 5; i++)
        talk_turn(loop);
    talk_read(&t);
    assert_int_equal(t.in.size, 0);
    http_body_drop(seen.held);
    reply(seen.held, 202, "later\n");
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 202);
    wait_idle();
    assert_int_equal(seen.gone, 0); /* it was answered: not the user's any more */
    talk_close(&t);
}

static void test_requests_sent_at_once_are_answered_one_after_another(void **state)
{
    struct talk t;

    (void)state;
    seen.hold = true;
    talk_open(&t, loop, http_address(server));
    talk_say(&t, "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_held();
    for (int i = 0; i < 5; i++)
        talk_turn(loop);
    assert_int_equal(seen.requests, 1); /* the second waits, and is no hang-up */
    assert_int_equal(seen.gone, 0);
    reply(seen.held, 200, "one\n");
    seen.held = NULL;
    wait_held();
    assert_string_equal(seen.path, "/2");
    reply(seen.held, 200, "two\n");
    talk_until(&t, "two\n");
    assert_true(strstr(t.in.data, "one\n") < strstr(t.in.data, "two\n"));
    talk_close(&t);
}

static void test_who_sends_many_at_once_has_one_answered_while_others_have_theirs(void **state)
{
    static const char get[] = "GET /many HTTP/1.1\r\nHost: x\r\n\r\n";
    struct buf many = BUF_INIT(os_alloc());
    struct talk t, other;
    uint32_t before = 0;

    (void)state;
    for (int i = 0; i < 200; i++)
        buf_add_text(&many, get);
    talk_open(&t, loop, http_address(server));
    talk_open(&other, loop, http_address(server));
    WAIT(http_counts(server).connections == 2);
    assert_int_equal(send(t.fd, many.data, many.size, MSG_NOSIGNAL), many.size);
    while (seen.requests < 100) {
        talk_turn(loop);
        assert_true(seen.requests <= before + 2); /* as its bytes come, and as it is seen to */
        before = seen.requests;
    }
    talk_post(&other, "/other", "", "");
    talk_answer(&other);
    assert_true(seen.requests < 120);
    WAIT(seen.requests == 201);
    wait_idle();
    assert_int_equal(seen.refused, 0);
    talk_close(&t);
    talk_close(&other);
    buf_fini(&many);
}

static void test_one_that_hangs_up_behind_many_is_gone(void **state)
{
    static const char get[] = "GET /1 HTTP/1.1\r\nHost: x\r\n\r\n";
    struct talk t;

    (void)state;
    talk_open(&t, loop, http_address(server));
    WAIT(http_counts(server).connections == 1);
    for (int i = 0; i < 3; i++)
        assert_int_equal(send(t.fd, get, sizeof(get) - 1, MSG_NOSIGNAL), sizeof(get) - 1);
    assert_int_equal(shutdown(t.fd, SHUT_WR), 0);
    talk_until(&t, NULL);
    assert_int_equal(seen.requests, 3); /* they came whole, and before it ended */
    assert_int_equal(http_counts(server).connections, 0);
    talk_close(&t);
}

static void test_a_client_of_http_1_0_gets_a_stream_that_ends_with_the_connection(void **state)
{
    struct talk t;

    (void)state;
    seen.hold = true;
    talk_open(&t, loop, http_address(server));
    talk_say(&t, "GET /1 HTTP/1.0\r\n\r\n");
    wait_held();
    http_stream_begin(seen.held, "text/plain");
    assert_int_equal(http_stream_add(seen.held, "part\n", 5), MC_OK);
    talk_until(&t, "part\n");
    http_stream_end(seen.held);
    talk_until(&t, NULL);
    assert_null(strstr(t.in.data, "chunked"));
    assert_string_equal(strstr(t.in.data, "\r\n\r\n"), "\r\n\r\npart\n");
    talk_close(&t);
}

/* One request's worth of bytes, answered and closed. */
static void expect_refusal(const char *bytes, size_t size, unsigned status, const char *code)
{
    const uint32_t before = seen.refused;
    struct talk t;

    talk_open(&t, loop, http_address(server));
    talk_send(&t, bytes, size);
    talk_until(&t, NULL);
    assert_int_equal(seen.refused, before + 1);
    assert_int_equal(talk_status(&t), status);
    assert_int_equal(seen.status, status);
    assert_string_equal(seen.code, code);
    assert_non_null(strstr(t.in.data, "X-Request-Id: req-"));
    assert_non_null(strstr(t.in.data, "Connection: close\r\n"));
    assert_non_null(strstr(t.in.data, "\r\n\r\nrefused\n"));
    talk_close(&t);
}

static void test_what_is_not_http_is_refused_with_a_status_and_a_word(void **state)
{
    static const struct {
        const char *bytes;
        size_t size;
        unsigned status;
        const char *code;
    } rows[] = {
#define ROW(text, status, code) { text, sizeof(text) - 1, status, code }
        ROW("POST /x HTTP/1.1\r\nContent-Length: -5\r\nHost: x\r\n\r\n", 400, "bad_request"),
        ROW("\x16\x03\x01\x02\x00\x01\x00\x01", 400, "bad_request"), /* somebody tries TLS */
        ROW("GET /x\r\n", 400, "bad_request"),
        ROW("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "http_version"),
        ROW("POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "unsupported"),
        ROW("POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400,
            "bad_request"),
        ROW("POST /x HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n", 417, "unsupported"),
#undef ROW
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        expect_refusal(rows[i].bytes, rows[i].size, rows[i].status, rows[i].code);
    assert_int_equal(seen.requests, 0);
    wait_idle();
}

static void test_a_request_is_known_by_its_client_s_id_or_by_ours(void **state)
{
    struct talk t;

    (void)state;
    talk_open(&t, loop, http_address(server));
    talk_post(&t, "/x", "X-Request-Id: abc-1.2_3:z\r\n", "");
    talk_answer(&t);
    assert_non_null(strstr(t.in.data, "\r\nX-Request-Id: abc-1.2_3:z\r\n"));
    talk_again(&t);
    talk_post(&t, "/x", "X-Request-Id: a b\r\n", "");
    talk_answer(&t);
    assert_non_null(strstr(t.in.data, "\r\nX-Request-Id: req-"));
    talk_close(&t);
}

static void test_a_client_that_is_not_admitted_sends_its_body_in_vain(void **state)
{
    struct talk t;

    (void)state;
    talk_open(&t, loop, http_address(server));
    talk_say(&t, "GET /x HTTP/1.1\r\nHost: x\r\nX-Barred: 1\r\n\r\n");
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 401);
    talk_again(&t); /* no body: the connection stays */
    talk_say(&t, "POST /x HTTP/1.1\r\nHost: x\r\nX-Barred: 1\r\nContent-Length: 900\r\n"
                 "Expect: 100-continue\r\n\r\n");
    talk_until(&t, NULL);
    assert_int_equal(talk_status(&t), 401);
    assert_non_null(strstr(t.in.data, "Connection: close"));
    assert_null(strstr(t.in.data, "100 Continue"));
    assert_int_equal(seen.requests, 0);
    talk_close(&t);
}

static void test_a_client_that_waits_for_100_continue_gets_it(void **state)
{
    struct talk t;

    (void)state;
    talk_open(&t, loop, http_address(server));
    talk_say(&t,
             "POST /x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    talk_until(&t, "HTTP/1.1 100 Continue\r\n\r\n");
    talk_again(&t);
    talk_say(&t, "ok");
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 200);
    assert_string_equal(seen.body.data, "ok");
    talk_close(&t);
}

static void test_head_is_answered_without_a_body_and_the_connection_stays(void **state)
{
    struct talk t;

    (void)state;
    talk_open(&t, loop, http_address(server));
    talk_say(&t, "HEAD /x HTTP/1.1\r\nHost: x\r\n\r\nHEAD /y HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_idle();
    talk_until(&t, "Content-Length: 6\r\n\r\nHTTP/1.1 200 OK\r\n");
    assert_null(strstr(t.in.data, "hello"));
    talk_close(&t);
}

static void test_http_1_0_stays_only_where_it_asks_to(void **state)
{
    struct talk t;

    (void)state;
    talk_open(&t, loop, http_address(server));
    talk_say(&t, "GET /x HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
    talk_answer(&t);
    assert_non_null(strstr(t.in.data, "Connection: keep-alive\r\n"));
    talk_again(&t);
    talk_say(&t, "GET /x HTTP/1.0\r\n\r\n");
    talk_until(&t, NULL);
    assert_non_null(strstr(t.in.data, "Connection: close\r\n"));
    talk_close(&t);
}

/* --------------------------------------------------------------------------------------- limits */

static void test_a_body_too_long_is_refused_before_it_is_sent(void **state)
{
    struct talk t;

    (void)state;
    talk_open(&t, loop, http_address(server));
    talk_say(&t, "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n");
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 413);
    assert_int_equal(seen.refused, 1);
    assert_int_equal(seen.requests, 0);
    talk_close(&t);
}

static void test_a_body_of_the_limit_passes_and_one_more_in_chunks_does_not(void **state)
{
    char body[1001];
    struct talk t;

    (void)state;
    memset(body, 'x', 1000);
    body[1000] = '\0';
    talk_open(&t, loop, http_address(server));
    talk_post(&t, "/x", "", body);
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 200);
    assert_int_equal(seen.body.size, 1000);
    talk_again(&t);
    talk_say(&t, "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n");
    talk_say(&t, body);
    talk_say(&t, "\r\n1\r\ny\r\n0\r\n\r\n");
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 413);
    assert_int_equal(seen.refused, 1);
    talk_close(&t);
}

/* One connection's request that is refused because others hold too much. */
static void expect_no_room(const char *request)
{
    const uint64_t before = http_counts(server).no_room;
    struct talk t;

    talk_open(&t, loop, http_address(server));
    talk_say(&t, request);
    talk_until(&t, NULL);
    assert_int_equal(talk_status(&t), 503);
    assert_string_equal(seen.code, "overloaded");
    assert_int_equal(http_counts(server).no_room, before + 1);
    talk_close(&t);
}

static void test_all_bodies_together_are_bounded(void **state)
{
    static const char long_one[] =
        "POST /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 600\r\nExpect: 100-continue\r\n\r\n";
    struct http_options options = basic();
    struct buf body = BUF_INIT(os_alloc()), chunks = BUF_INIT(os_alloc());
    struct talk t;

    (void)state;
    options.bodies_max = 1500;
    setup_with(&options);
    for (int i = 0; i < 1000; i++)
        buf_add_byte(&body, 'x');
    buf_addf(&chunks,
             "POST /3 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n258\r\n%.600s\r\n",
             body.data);
    seen.hold = true;
    talk_open(&t, loop, http_address(server));
    talk_post(&t, "/1", "", body.data);
    wait_held();
    expect_no_room(long_one);    /* as Content-Length says */
    expect_no_room(chunks.data); /* once they are there */
    http_body_drop(seen.held);
    reply(seen.held, 200, "one\n");
    talk_answer(&t);
    seen.hold = false;
    talk_again(&t);
    talk_post(&t, "/4", "", body.data);
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 200);
    assert_int_equal(http_counts(server).refused, 0);
    talk_close(&t);
    wait_idle();
    buf_fini(&body);
    buf_fini(&chunks);
}

static void test_bodies_that_come_at_once_have_what_is_left(void **state)
{
    struct http_options options = basic();
    char part[801];
    struct talk t, u;

    (void)state;
    options.bodies_max = 1; /* at least body_max, 1,000 */
    setup_with(&options);
    memset(part, 'x', sizeof(part) - 1);
    part[sizeof(part) - 1] = '\0';
    talk_open(&t, loop, http_address(server));
    talk_open(&u, loop, http_address(server));
    talk_say(&t, "POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n");
    talk_say(&u, "POST /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n");
    talk_say(&t, part);
    talk_say(&u, part); /* both were let in; now there is too little */
    talk_until(&u, NULL);
    assert_int_equal(talk_status(&u), 503);
    talk_say(&t, part + 700);
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 200);
    assert_int_equal(http_counts(server).no_room, 1);
    talk_close(&t);
    talk_close(&u);
}

static void test_a_body_without_end_is_cut_off(void **state)
{
    char chunk[5 + 0x3e8 + 2];
    struct talk t;

    (void)state;
    memcpy(chunk, "3e8\r\n", 5);
    memset(chunk + 5, 'x', 0x3e8);
    memcpy(chunk + 5 + 0x3e8, "\r\n", 2);
    talk_open(&t, loop, http_address(server));
    talk_say(&t, "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 100 && !t.closed; i++) {
        talk_send(&t, chunk, sizeof(chunk));
        talk_read(&t);
    }
    talk_until(&t, NULL);
    assert_int_equal(seen.requests, 0);
    assert_int_equal(seen.refused, 1);
    assert_int_equal(talk_status(&t), 413);
    talk_close(&t);
}

static void test_headers_without_end_are_refused(void **state)
{
    char line[102];
    struct talk t;

    (void)state;
    memset(line, 'a', 100);
    memcpy(line, "H: ", 3);
    memcpy(line + 100, "\r\n", 2);
    talk_open(&t, loop, http_address(server));
    talk_say(&t, "GET /x HTTP/1.1\r\nHost: x\r\n");
    for (int i = 0; i < 2000 && !t.closed; i++) {
        talk_send(&t, line, sizeof(line));
        talk_read(&t);
    }
    talk_until(&t, NULL);
    assert_int_equal(seen.requests, 0);
    talk_close(&t);
}

static void test_connections_beyond_the_limit_wait_and_are_not_refused(void **state)
{
    struct http_options options = basic();
    struct talk first, second;

    (void)state;
    options.connections_max = 1;
    setup_with(&options);
    seen.hold = true;
    talk_open(&first, loop, http_address(server));
    talk_post(&first, "/1", "", "");
    wait_held();
    talk_open(&second, loop, http_address(server));
    talk_post(&second, "/2", "", "");
    for (int i = 0; i < 5; i++)
        talk_turn(loop);
    assert_int_equal(seen.requests, 1);
    seen.hold = false;
    reply(seen.held, 200, "one\n");
    talk_answer(&first); /* idle now, it makes room */
    talk_answer(&second);
    assert_int_equal(seen.requests, 2);
    talk_until(&first, NULL);
    assert_int_equal(http_counts(server).evicted, 1);
    assert_int_equal(http_counts(server).connections, 1);
    talk_close(&first);
    talk_close(&second);
}

static void test_a_place_that_gets_free_is_taken_by_who_waits(void **state)
{
    struct http_options options = basic();
    struct talk first, second;

    (void)state;
    options.connections_max = 1;
    setup_with(&options);
    seen.hold = true;
    talk_open(&first, loop, http_address(server));
    talk_post(&first, "/1", "", "");
    wait_held();
    talk_open(&second, loop, http_address(server));
    talk_post(&second, "/2", "", "");
    talk_turn(loop);
    seen.hold = false;
    talk_close(&first);
    talk_answer(&second);
    assert_int_equal(seen.gone, 1);
    assert_int_equal(seen.requests, 2);
    talk_close(&second);
}

/* Send some bytes again and again until the server has had enough. */
static void drip(struct talk *t, const char *bytes, uint64_t every_ns)
{
    const uint64_t until_ns = os_now_ns() + UINT64_C(60000000000);
    size_t at = 0;
    uint64_t next_ns = 0;

    while (!t->closed) {
        assert_true(os_now_ns() < until_ns);
        if (os_now_ns() >= next_ns && bytes[at]) {
            (void)send(t->fd, bytes + at++, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
            next_ns = os_now_ns() + every_ns;
        }
        talk_turn(loop);
        talk_read(t);
    }
}

static void test_a_request_that_drips_is_cut_off_in_its_head_and_in_its_body(void **state)
{
    char many[2048];
    struct http_options options = basic();
    struct talk t;

    (void)state;
    options.receive_ns = 60000000;
    setup_with(&options);
    memset(many, 'a', sizeof(many) - 1);
    many[sizeof(many) - 1] = '\0';
    memcpy(many, "GET /", 5);
    talk_open(&t, loop, http_address(server));
    drip(&t, many, 2000000);
    assert_int_equal(talk_status(&t), 408);
    talk_close(&t);
    talk_open(&t, loop, http_address(server));
    talk_say(&t, "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n");
    drip(&t, many, 2000000);
    assert_int_equal(talk_status(&t), 408);
    assert_string_equal(seen.code, "request_timeout");
    talk_close(&t);
    talk_open(&t, loop, http_address(server));
    drip(&t, "", 1); /* says nothing: closed without a word */
    assert_int_equal(t.in.size, 0);
    talk_close(&t);
    assert_int_equal(seen.requests, 0);
    assert_int_equal(http_counts(server).late, 2);
    wait_idle();
}

static void test_a_request_s_time_begins_with_its_first_byte(void **state)
{
    struct http_options options = basic();
    struct talk t;

    (void)state;
    options.receive_ns = UINT64_C(20000000000);
    setup_with(&options);
    talk_open(&t, loop, http_address(server));
    WAIT(http_counts(server).connections > 0);
    const uint64_t begun_ns = os_now_ns(); /* the connection was there before, without a word */
    talk_say(&t, "GET /");
    WAIT(http_counts(server).idle == 0);
    assert_true(os_loop_next_ns(loop) >= begun_ns + options.receive_ns);
    talk_say(&t, "x HTTP/1.1\r\nHost: x\r\n\r\n");
    talk_answer(&t);
    talk_close(&t);
    wait_idle();
}

static void test_an_idle_connection_is_closed_in_time(void **state)
{
    struct http_options options = basic();
    struct talk t;

    (void)state;
    options.idle_ns = 20000000;
    setup_with(&options);
    talk_open(&t, loop, http_address(server));
    talk_post(&t, "/x", "", "");
    talk_answer(&t);
    assert_int_equal(http_counts(server).idle, 1);
    talk_until(&t, NULL);
    assert_int_equal(http_counts(server).connections, 0);
    talk_close(&t);
}

static void test_an_answer_that_nobody_takes_is_given_up(void **state)
{
    static char big[32 << 20];
    struct buf body = BUF_INIT(&f.alloc);
    struct http_options options = basic();
    struct talk t;

    (void)state;
    options.idle_ns = 20000000;
    setup_with(&options);
    hold_one(&t);
    memset(big, 'x', sizeof(big));
    buf_add(&body, big, sizeof(big));
    http_answer(seen.held, 200, "text/plain", &body);
    WAIT(http_counts(server).connections == 0);
    assert_int_equal(http_counts(server).late, 1);
    talk_close(&t);
}

/* -------------------------------------------------------------------------------------- streams */

static void test_a_stream_comes_in_parts_as_they_are_added(void **state)
{
    struct buf body = BUF_INIT(os_alloc());
    struct talk t;

    (void)state;
    hold_one(&t);
    http_header_add(seen.held, "X-Who", "me");
    http_stream_begin(seen.held, "text/event-stream");
    assert_int_equal(http_stream_add(seen.held, "one\n", 4), MC_OK);
    talk_until(&t, "one\n");
    assert_non_null(strstr(t.in.data, "X-Who: me\r\n"));
    assert_null(strstr(t.in.data, "two"));
    for (int i = 0; i < 3; i++)
        talk_turn(loop);
    assert_int_equal(http_stream_add(seen.held, "two\n", 4), MC_OK);
    talk_until(&t, "two\n");
    assert_int_equal(http_stream_add(seen.held, "three\n", 6), MC_OK);
    http_stream_end(seen.held);
    talk_until(&t, "\r\n0\r\n\r\n");
    talk_chunked(&t, &body);
    assert_string_equal(body.data, "one\ntwo\nthree\n");
    buf_fini(&body);
    wait_idle();
    assert_int_equal(seen.gone, 0);
    talk_close(&t);
}

static void test_a_long_stream_arrives_whole(void **state)
{
    struct buf body = BUF_INIT(os_alloc());
    char part[1000];
    struct talk t;

    (void)state;
    hold_one(&t);
    http_stream_begin(seen.held, "text/plain");
    for (int i = 0; i < 500;) {
        memset(part, 'a' + i % 26, sizeof(part));
        const mc_status status = http_stream_add(seen.held, part, sizeof(part));
        i += status == MC_OK;
        assert_true(status == MC_OK || status == MC_E_FULL);
        talk_turn(loop);
        talk_read(&t);
    }
    http_stream_end(seen.held);
    talk_until(&t, "\r\n0\r\n\r\n");
    talk_chunked(&t, &body);
    assert_int_equal(body.size, 500000);
    for (size_t i = 0; i < body.size; i++)
        assert_int_equal(body.data[i], 'a' + i / 1000 % 26);
    buf_fini(&body);
    talk_close(&t);
}

static void test_a_client_that_does_not_read_fills_its_stream_and_no_more(void **state)
{
    char part[5000];
    struct talk t;
    mc_status status = MC_OK;

    (void)state;
    memset(part, 'x', sizeof(part));
    hold_one(&t);
    http_stream_begin(seen.held, "text/plain");
    for (int i = 0; i < 20000 && status == MC_OK; i++) { /* the kernel takes some megabytes */
        status = http_stream_add(seen.held, part, sizeof(part));
        assert_int_equal(os_loop_turn(loop, 1), MC_OK);
    }
    assert_int_equal(status, MC_E_FULL);
    http_abort(seen.held);
    talk_close(&t);
    wait_idle();
    assert_int_equal(seen.gone, 0);
}

static void test_an_aborted_stream_is_seen_to_be_cut(void **state)
{
    struct talk t;

    (void)state;
    stream_one(&t);
    http_abort(seen.held);
    talk_until(&t, NULL);
    assert_null(strstr(t.in.data, "\r\n0\r\n\r\n"));
    talk_close(&t);
}

/* ------------------------------------------------------------------------------------- hang-ups */

static void test_a_client_that_hangs_up_while_its_request_waits_is_seen(void **state)
{
    struct talk t;

    (void)state;
    hold_one(&t);
    talk_close(&t);
    WAIT(seen.gone >= 1);
    wait_idle();
    assert_int_equal(seen.gone, 1);
}

static void test_a_client_that_hangs_up_in_a_stream_is_seen(void **state)
{
    struct talk t;

    (void)state;
    stream_one(&t);
    talk_close(&t);
    WAIT(seen.gone >= 1);
    wait_idle();
    assert_int_equal(seen.gone, 1);
}

static void test_one_that_is_reset_while_its_stream_is_full_is_seen(void **state)
{
    char part[5000];
    struct talk t;

    (void)state;
    memset(part, 'x', sizeof(part));
    hold_one(&t);
    http_stream_begin(seen.held, "text/plain");
    while (http_stream_add(seen.held, part, sizeof(part)) == MC_OK)
        assert_int_equal(os_loop_turn(loop, 1), MC_OK);
    talk_close(&t); /* with bytes unread: a reset */
    WAIT(seen.gone >= 1);
    wait_idle();
}

static void test_closing_tells_who_is_held(void **state)
{
    struct talk t, u;

    (void)state;
    stream_one(&t);
    hold_one(&u);
    http_close(server);
    server = NULL;
    assert_int_equal(seen.gone, 2);
    talk_close(&t);
    talk_close(&u);
}

static void test_a_quiesced_server_finishes_and_takes_no_more(void **state)
{
    struct os_address where;
    struct talk t;
    int fd = -1;

    (void)state;
    hold_one(&t);
    http_quiesce(server);
    assert_int_equal(os_address_parse(http_address(server), &where, NULL), MC_OK);
    if (os_tcp_dial(&where, &fd, NULL) == MC_OK) { /* refused now or later */
        const uint64_t until_ns = os_now_ns() + UINT64_C(60000000000);
        mc_status status;
        while ((status = os_tcp_dialled(fd, &where, NULL)) == MC_PENDING)
            assert_true(os_now_ns() < until_ns);
        assert_int_equal(status, MC_E_PEER);
        close(fd);
    }
    reply(seen.held, 200, "done\n");
    talk_answer(&t);
    talk_close(&t);
    wait_idle();
}

/* ------------------------------------------------------------------------------------- failures */

static void test_wide_addresses_need_consent_and_taken_ones_are_told(void **state)
{
    struct http_options options = { .alloc = &f.alloc,
                                    .loop = loop,
                                    .handler = { admit, take, refuse, quiet, &seen } };
    http_server *other = NULL;
    struct mc_error error = { 0 };

    (void)state;
    options.listen = "0.0.0.0:0";
    assert_int_equal(http_open(&options, &other, &error), MC_E_DENIED);
    assert_non_null(strstr(error.text, "0.0.0.0:0"));
    options.listen = "nonsense";
    assert_int_equal(http_open(&options, &other, &error), MC_E_ARG);
    options.listen = http_address(server);
    assert_int_equal(http_open(&options, &other, &error), MC_E_EXISTS);
    assert_null(other);
    options.listen = "0.0.0.0:0";
    options.insecure = true;
    assert_int_equal(http_open(&options, &other, &error), MC_OK);
    http_close(other);
    http_close(NULL);
}

static void test_a_quiesced_server_closes_idle_connections(void **state)
{
    struct talk t;

    (void)state;
    talk_open(&t, loop, http_address(server));
    talk_post(&t, "/x", "", "1");
    talk_answer(&t);
    http_quiesce(server);
    talk_until(&t, NULL);
    talk_close(&t);
}

static void test_an_adopted_socket_is_served(void **state)
{
    struct talk t = { .loop = loop, .in = BUF_INIT(os_alloc()) };
    int pair[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    assert_int_equal(http_adopt(server, pair[0]), MC_OK);
    t.fd = pair[1];
    buf_add(&t.in, "", 0);
    talk_post(&t, "/x", "", "1");
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 200);
    talk_close(&t);
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    (void)state;
    http_close(server);
    server = NULL;
    for (long k = 0;; k++) {
        struct talk t;
        faulty_init(&f, k);
        const struct http_options options = { .alloc = &f.alloc,
                                              .loop = loop,
                                              .listen = "127.0.0.1:0",
                                              .handler = { admit, take, refuse, quiet, &seen } };
        if (http_open(&options, &server, NULL) != MC_OK) {
            assert_null(server);
            assert_int_equal(f.held, 0);
            continue;
        }
        talk_open(&t, loop, http_address(server));
        talk_post(&t, "/x", "", "some body");
        const uint64_t until_ns = os_now_ns() + UINT64_C(60000000000);
        while (!t.closed && !strstr(t.in.data, "hello\n")) { /* an answer, or a cut connection */
            assert_true(os_now_ns() < until_ns);
            talk_turn(loop);
            talk_read(&t);
        }
        const bool answered = !t.closed;
        talk_close(&t);
        http_close(server);
        server = NULL;
        assert_int_equal(f.held, 0);
        if (f.calls <= k) {
            assert_true(answered);
            assert_true(k > 4);
            return;
        }
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_request_is_seen_whole_and_answered_on_a_connection_that_stays),
        TEST(test_a_body_in_chunks_and_byte_by_byte_is_one_body),
        TEST(test_a_held_request_is_answered_later),
        TEST(test_requests_sent_at_once_are_answered_one_after_another),
        TEST(test_who_sends_many_at_once_has_one_answered_while_others_have_theirs),
        TEST(test_one_that_hangs_up_behind_many_is_gone),
        TEST(test_a_client_of_http_1_0_gets_a_stream_that_ends_with_the_connection),
        TEST(test_what_is_not_http_is_refused_with_a_status_and_a_word),
        TEST(test_a_request_is_known_by_its_client_s_id_or_by_ours),
        TEST(test_a_client_that_is_not_admitted_sends_its_body_in_vain),
        TEST(test_a_client_that_waits_for_100_continue_gets_it),
        TEST(test_head_is_answered_without_a_body_and_the_connection_stays),
        TEST(test_http_1_0_stays_only_where_it_asks_to),
        TEST(test_a_body_too_long_is_refused_before_it_is_sent),
        TEST(test_a_body_of_the_limit_passes_and_one_more_in_chunks_does_not),
        TEST(test_all_bodies_together_are_bounded),
        TEST(test_bodies_that_come_at_once_have_what_is_left),
        TEST(test_a_body_without_end_is_cut_off),
        TEST(test_headers_without_end_are_refused),
        TEST(test_connections_beyond_the_limit_wait_and_are_not_refused),
        TEST(test_a_place_that_gets_free_is_taken_by_who_waits),
        TEST(test_a_request_that_drips_is_cut_off_in_its_head_and_in_its_body),
        TEST(test_a_request_s_time_begins_with_its_first_byte),
        TEST(test_an_idle_connection_is_closed_in_time),
        TEST(test_an_answer_that_nobody_takes_is_given_up),
        TEST(test_a_stream_comes_in_parts_as_they_are_added),
        TEST(test_a_long_stream_arrives_whole),
        TEST(test_a_client_that_does_not_read_fills_its_stream_and_no_more),
        TEST(test_an_aborted_stream_is_seen_to_be_cut),
        TEST(test_a_client_that_hangs_up_while_its_request_waits_is_seen),
        TEST(test_a_client_that_hangs_up_in_a_stream_is_seen),
        TEST(test_one_that_is_reset_while_its_stream_is_full_is_seen),
        TEST(test_closing_tells_who_is_held),
        TEST(test_a_quiesced_server_finishes_and_takes_no_more),
        TEST(test_wide_addresses_need_consent_and_taken_ones_are_told),
        TEST(test_a_quiesced_server_closes_idle_connections),
        TEST(test_an_adopted_socket_is_served),
        TEST(test_every_failed_allocation_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
