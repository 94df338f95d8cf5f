/* test_http.c - requests in, answers out, streams, hang-ups and limits, over loopback sockets in one loop. */
#include "http_talk.h"

#include "gateway/http.h"

/* What the server under test saw, and a request that it holds. */
struct seen {
    uint32_t requests, too_large, gone, quiet;
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

static void too_large(void *user, http_request *r)
{
    (void)user;
    seen.too_large++;
    reply(r, 413, "large\n");
}

static void quiet(void *user)
{
    (void)user;
    seen.quiet++;
}

static int setup_limits(uint64_t body_max, uint64_t stream_max)
{
    const struct http_options options = {
        .alloc = &f.alloc,
        .loop = loop,
        .listen = "127.0.0.1:0",
        .body_max = body_max,
        .stream_max = stream_max,
        .handler = { take, too_large, quiet, &seen },
    };
    struct mc_error error = { 0 };

    if (http_open(&options, &server, &error) != MC_OK)
        fail_msg("%s", error.text);
    return 0;
}

static int setup(void **state)
{
    (void)state;
    faulty_init(&f, -1);
    seen = (struct seen){ .body = BUF_INIT(os_alloc()) };
    assert_int_equal(os_loop_open(os_alloc(), &loop, NULL), MC_OK);
    return setup_limits(1000, 10000);
}

static int teardown(void **state)
{
    (void)state;
    http_close(server);
    os_loop_close(loop);
    buf_fini(&seen.body);
    return f.held == 0 ? 0 : -1;
}

static void wait_held(void)
{
    const uint64_t until_ns = os_now_ns() + UINT64_C(10000000000);

    while (!seen.held) {
        assert_true(os_now_ns() < until_ns);
        talk_turn(loop);
    }
}

static void wait_gone(uint32_t count)
{
    const uint64_t until_ns = os_now_ns() + UINT64_C(10000000000);

    while (seen.gone < count) {
        assert_true(os_now_ns() < until_ns);
        talk_turn(loop);
    }
}

static void wait_idle(void)
{
    const uint64_t until_ns = os_now_ns() + UINT64_C(10000000000);

    while (http_active(server) > 0) {
        assert_true(os_now_ns() < until_ns);
        talk_turn(loop);
    }
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
    seen.hold = true;
    talk_open(&t, loop, http_address(server));
    talk_post(&t, "/x", "", "1");
    wait_held();
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

static void test_broken_http_is_answered_by_itself(void **state)
{
    struct talk t;

    (void)state;
    talk_open(&t, loop, http_address(server));
    talk_say(&t, "POST /x HTTP/1.1\r\nContent-Length: -5\r\nHost: x\r\n\r\n");
    talk_until(&t, NULL);
    assert_in_range(talk_status(&t), 400, 499);
    talk_close(&t);
    talk_open(&t, loop, http_address(server));
    talk_say(&t, "\x16\x03\x01\x02\r\n\r\n\r\n"); /* somebody tries TLS */
    talk_until(&t, NULL);
    talk_close(&t);
    assert_int_equal(seen.requests, 0);
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
    assert_int_equal(seen.too_large, 1);
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
    assert_int_equal(seen.too_large, 1);
    talk_close(&t);
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
    assert_int_equal(seen.requests + seen.too_large, 0);
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
    struct talk first, second;
    struct http_options options = {
        .alloc = &f.alloc,
        .loop = loop,
        .listen = "127.0.0.1:0",
        .connections_max = 1,
        .handler = { take, too_large, quiet, &seen },
    };

    (void)state;
    http_close(server);
    assert_int_equal(http_open(&options, &server, NULL), MC_OK);
    talk_open(&first, loop, http_address(server));
    talk_post(&first, "/1", "", "");
    talk_answer(&first);
    talk_open(&second, loop, http_address(server));
    talk_post(&second, "/2", "", "");
    for (int i = 0; i < 5; i++)
        talk_turn(loop);
    assert_int_equal(seen.requests, 1);
    talk_close(&first);
    talk_answer(&second);
    assert_int_equal(seen.requests, 2);
    talk_close(&second);
}

/* -------------------------------------------------------------------------------------- streams */

static void test_a_stream_comes_in_parts_as_they_are_added(void **state)
{
    struct buf body = BUF_INIT(os_alloc());
    struct talk t;

    (void)state;
    seen.hold = true;
    talk_open(&t, loop, http_address(server));
    talk_post(&t, "/x", "", "1");
    wait_held();
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
    seen.hold = true;
    talk_open(&t, loop, http_address(server));
    talk_post(&t, "/x", "", "1");
    wait_held();
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
    seen.hold = true;
    talk_open(&t, loop, http_address(server));
    talk_post(&t, "/x", "", "1");
    wait_held();
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
    seen.hold = true;
    talk_open(&t, loop, http_address(server));
    talk_post(&t, "/x", "", "1");
    wait_held();
    http_stream_begin(seen.held, "text/plain");
    assert_int_equal(http_stream_add(seen.held, "part", 4), MC_OK);
    talk_until(&t, "part");
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
    seen.hold = true;
    talk_open(&t, loop, http_address(server));
    talk_post(&t, "/x", "", "1");
    wait_held();
    talk_close(&t);
    wait_gone(1);
    wait_idle();
    assert_int_equal(seen.gone, 1);
}

static void test_a_client_that_hangs_up_in_a_stream_is_seen(void **state)
{
    struct talk t;

    (void)state;
    seen.hold = true;
    talk_open(&t, loop, http_address(server));
    talk_post(&t, "/x", "", "1");
    wait_held();
    http_stream_begin(seen.held, "text/plain");
    assert_int_equal(http_stream_add(seen.held, "part", 4), MC_OK);
    talk_until(&t, "part");
    talk_close(&t);
    wait_gone(1);
    wait_idle();
    assert_int_equal(seen.gone, 1);
}

static void test_one_that_is_reset_while_its_stream_is_full_is_seen(void **state)
{
    char part[5000];
    struct talk t;

    (void)state;
    memset(part, 'x', sizeof(part));
    seen.hold = true;
    talk_open(&t, loop, http_address(server));
    talk_post(&t, "/x", "", "1");
    wait_held();
    http_stream_begin(seen.held, "text/plain");
    while (http_stream_add(seen.held, part, sizeof(part)) == MC_OK)
        assert_int_equal(os_loop_turn(loop, 1), MC_OK);
    talk_close(&t); /* with bytes unread: a reset */
    wait_gone(1);
    wait_idle();
}

static void test_closing_tells_who_is_held(void **state)
{
    struct talk t, u;

    (void)state;
    seen.hold = true;
    talk_open(&t, loop, http_address(server));
    talk_open(&u, loop, http_address(server));
    talk_post(&t, "/x", "", "1");
    wait_held();
    http_stream_begin(seen.held, "text/plain");
    assert_int_equal(http_stream_add(seen.held, "part", 4), MC_OK);
    talk_until(&t, "part");
    seen.held = NULL;
    talk_post(&u, "/x", "", "2");
    wait_held();
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
    seen.hold = true;
    talk_open(&t, loop, http_address(server));
    talk_post(&t, "/x", "", "1");
    wait_held();
    http_quiesce(server);
    assert_int_equal(os_address_parse(http_address(server), &where, NULL), MC_OK);
    if (os_tcp_dial(&where, &fd, NULL) == MC_OK) { /* refused now or later */
        const uint64_t until_ns = os_now_ns() + UINT64_C(10000000000);
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
                                    .handler = { take, too_large, quiet, &seen } };
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
                                              .handler = { take, too_large, quiet, &seen } };
        if (http_open(&options, &server, NULL) != MC_OK) {
            assert_null(server);
            assert_int_equal(f.held, 0);
            continue;
        }
        talk_open(&t, loop, http_address(server));
        talk_post(&t, "/x", "", "some body");
        const uint64_t until_ns = os_now_ns() + UINT64_C(10000000000);
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
        TEST(test_broken_http_is_answered_by_itself),
        TEST(test_a_body_too_long_is_refused_before_it_is_sent),
        TEST(test_a_body_of_the_limit_passes_and_one_more_in_chunks_does_not),
        TEST(test_a_body_without_end_is_cut_off),
        TEST(test_headers_without_end_are_refused),
        TEST(test_connections_beyond_the_limit_wait_and_are_not_refused),
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
        TEST(test_every_failed_allocation_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
