/* test_http_client.c - requests and answers through one loop, which also turns the server. */
#define _POSIX_C_SOURCE 200809L
#include "small_server.h"

#include "cmd/http_client.h"
#include "os/clock.h"

/** One call and all that it was told. */
struct heard {
    struct http_call call;
    os_loop *loop;
    char body[256], type[64];
    size_t size;
    bool stop; /* at the first data */
    int ends;
    mc_status status;
    long code;
    char text[200];
};

static bool on_data(void *user, const char *bytes, size_t size)
{
    struct heard *h = user;

    assert_true(h->size + size < sizeof(h->body));
    memcpy(h->body + h->size, bytes, size);
    h->size += size;
    return !h->stop;
}

static void on_header(void *user, const char *name, size_t name_size, const char *value,
                      size_t value_size)
{
    struct heard *h = user;

    if (name_size == 12 && memcmp(name, "Content-Type", 12) == 0)
        snprintf(h->type, sizeof(h->type), "%.*s", (int)value_size, value);
}

static void on_end(void *user, const struct http_end *end)
{
    struct heard *h = user;

    h->ends++;
    h->status = end->status;
    h->code = end->code;
    snprintf(h->text, sizeof(h->text), "%s", end->text);
    os_loop_stop(h->loop);
}

static struct heard heard(os_loop *loop, const char *path, const char *body)
{
    return (struct heard){ .loop = loop,
                           .call = { .path = path,
                                     .body = body,
                                     .body_size = body ? strlen(body) : 0,
                                     .header = on_header,
                                     .data = on_data,
                                     .end = on_end } };
}

/* Begin and turn until the end, or for a minute, which only a hang comes near. */
static mc_status talk(http_client *client, struct heard *h)
{
    const uint64_t until_ns = os_now_ns() + UINT64_C(60000000000);

    h->call.user = h;
    h->ends = 0;
    const mc_status status = http_client_begin(client, &h->call);
    while (status == MC_OK && h->ends == 0 && os_now_ns() < until_ns)
        assert_int_equal(os_loop_turn(h->loop, until_ns), MC_OK);
    return status;
}

static http_client *client_open(const struct server *s, uint64_t timeout_ns)
{
    static const char *const headers[] = { "Authorization: Bearer key", NULL };
    const struct http_client_options o = { .alloc = os_alloc(),
                                           .loop = s->loop,
                                           .url = s->url,
                                           .headers = headers,
                                           .timeout_ns = timeout_ns };
    http_client *client;

    assert_int_equal(http_client_open(&o, &client, NULL), MC_OK);
    return client;
}

static const char hello[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello";

static void test_calls_share_a_connection_and_each_has_its_end(void **state)
{
    (void)state;
    struct server *s = server_open(hello);
    http_client *client = client_open(s, 0);

    for (int i = 0; i < 4; i++) {
        struct heard h = heard(s->loop, i % 2 ? "/b" : "/a", i < 2 ? "{\"n\":1}" : NULL);
        assert_int_equal(talk(client, &h), MC_OK);
        assert_int_equal(h.ends, 1);
        assert_int_equal(h.status, MC_OK);
        assert_int_equal(h.code, 200);
        assert_string_equal(h.type, "text/plain");
        assert_int_equal(h.size, 5);
        assert_memory_equal(h.body, "hello", 5);
        char line[40];
        snprintf(line, sizeof(line), "%s %s HTTP/1.1\r\n", i < 2 ? "POST" : "GET",
                 i % 2 ? "/b" : "/a");
        assert_memory_equal(s->last, line, strlen(line));
        assert_non_null(strstr(s->last, "Authorization: Bearer key\r\n"));
        assert_true((strstr(s->last, "{\"n\":1}") != NULL) == (i < 2));
    }
    assert_int_equal(s->accepted, 1);
    http_client_close(client);
    server_close(s);
}

static void test_an_answer_without_its_end_is_a_peer_that_is_gone(void **state)
{
    (void)state;
    static const struct {
        const char *answer;
        long code;
    } rows[] = { { NULL, 0 },
                 { "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", 200 },
                 { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 200 } };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct server *s = server_open(rows[i].answer);
        http_client *client = client_open(s, 0);
        struct heard h = heard(s->loop, "/a", "{}");
        s->once = true;
        assert_int_equal(talk(client, &h), MC_OK);
        assert_int_equal(h.status, MC_E_PEER);
        assert_int_equal(h.code, rows[i].code);
        assert_true(h.text[0] != '\0');
        http_client_close(client);
        server_close(s);
    }
}

static void test_nobody_there_is_told(void **state)
{
    (void)state;
    struct server *s = server_open(hello);
    http_client *client = client_open(s, 0);
    struct heard h = heard(s->loop, "/a", NULL);

    os_loop_unwatch(s->loop, &s->listening);
    close(s->listener);
    s->listener = dup(0); /* for server_close() */
    assert_int_equal(talk(client, &h), MC_OK);
    assert_int_equal(h.status, MC_E_PEER);
    assert_int_equal(h.code, 0);
    http_client_close(client);
    server_close(s);
}

static void test_who_reads_may_stop_and_time_runs_out(void **state)
{
    (void)state;
    struct server *s = server_open(hello);
    http_client *client = client_open(s, 0);
    struct heard h = heard(s->loop, "/a", NULL);

    h.stop = true;
    assert_int_equal(talk(client, &h), MC_OK);
    assert_int_equal(h.status, MC_E_CANCELLED);
    http_client_close(client);
    client = client_open(s, 50000000);
    s->answer = NULL;
    h = heard(s->loop, "/a", NULL);
    assert_int_equal(talk(client, &h), MC_OK);
    assert_int_equal(h.status, MC_E_TIMEOUT);
    http_client_close(client);
    server_close(s);
}

static void test_what_was_cancelled_is_not_called_any_more(void **state)
{
    (void)state;
    struct server *s = server_open(NULL);
    http_client *client = client_open(s, 0);
    struct heard h = heard(s->loop, "/a", NULL), other = h;

    h.call.user = &h;
    http_client_cancel(client, &h.call); /* not begun */
    assert_int_equal(http_client_begin(client, &h.call), MC_OK);
    while (s->requests == 0)
        assert_int_equal(os_loop_turn(s->loop, UINT64_MAX), MC_OK);
    http_client_cancel(client, &h.call);
    http_client_cancel(client, &h.call);
    s->answer = hello;
    assert_int_equal(talk(client, &other), MC_OK);
    assert_int_equal(other.status, MC_OK);
    assert_int_equal(h.ends, 0);
    assert_int_equal(http_client_begin(client, &h.call), MC_OK); /* ended by close */
    http_client_close(client);
    assert_int_equal(h.ends, 0);
    server_close(s);
}

static void test_urls_that_are_none_are_refused(void **state)
{
    (void)state;
    static const char *const urls[] = { "",
                                        "http://",
                                        "127.0.0.1 8000",
                                        "ftp://127.0.0.1",
                                        "http://a:b",
                                        "http://u:p@127.0.0.1",
                                        "http://127.0.0.1/?q",
                                        "http://127.0.0.1/#f" };
    os_loop *loop;

    assert_int_equal(os_loop_open(os_alloc(), &loop, NULL), MC_OK);
    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
        const struct http_client_options o = { .alloc = os_alloc(), .loop = loop, .url = urls[i] };
        struct mc_error error = { 0 };
        http_client *client = NULL;
        if (http_client_open(&o, &client, &error) != MC_E_ARG)
            fail_msg("taken: %s", urls[i]);
        assert_true(error.text[0] != '\0');
    }
    os_loop_close(loop);
}

static void test_every_failed_allocation_is_told_and_leaves_nothing(void **state)
{
    (void)state;
    struct server *s = server_open(hello);

    s->once = true;
    for (long k = 0;; k++) {
        struct faulty f;
        faulty_init(&f, k);
        const struct http_client_options o = { .alloc = &f.alloc, .loop = s->loop, .url = s->url };
        http_client *client = NULL;
        struct heard h = heard(s->loop, "/a", NULL);
        s->accepted = 0;
        mc_status status = http_client_open(&o, &client, NULL);
        if (status == MC_OK)
            status = talk(client, &h);
        const bool answered = status == MC_OK && h.status == MC_OK;
        if (status == MC_OK)
            assert_int_equal(h.ends, 1);
        http_client_close(client);
        assert_int_equal(f.held, 0);
        if (answered) {
            assert_int_equal(k, 3); /* client, exchange, socket */
            break;
        }
    }
    s->accepted = 0;
    server_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls_share_a_connection_and_each_has_its_end),
        cmocka_unit_test(test_an_answer_without_its_end_is_a_peer_that_is_gone),
        cmocka_unit_test(test_nobody_there_is_told),
        cmocka_unit_test(test_who_reads_may_stop_and_time_runs_out),
        cmocka_unit_test(test_what_was_cancelled_is_not_called_any_more),
        cmocka_unit_test(test_urls_that_are_none_are_refused),
        cmocka_unit_test(test_every_failed_allocation_is_told_and_leaves_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
