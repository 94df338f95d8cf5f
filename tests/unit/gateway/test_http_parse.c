/* test_http_parse.c - heads of requests, right and wrong, whole and byte by byte; bodies in chunks. */
#include "test.h"

#include <string.h>

#include "gateway/http_parse.h"

static char bytes[8192];

/* Scan `text` as it comes in pieces of `step` bytes, then read it. The status of what is wrong; 0: nothing; 1: no
 * end. */
static unsigned read_head(const char *text, size_t size, size_t step, struct http_head *head)
{
    struct http_scan scan = { 0 };
    struct http_wrong wrong = { 0 };
    enum http_scanned scanned = HTTP_SCAN_MORE;

    assert_true(size <= sizeof(bytes));
    memcpy(bytes, text, size);
    for (size_t at = 0; at < size && scanned == HTTP_SCAN_MORE;) {
        at = at + step < size ? at + step : size;
        scanned = http_scan(&scan, bytes, at, 4096, &wrong);
    }
    if (scanned == HTTP_SCAN_MORE)
        return 1;
    if (scanned == HTTP_SCAN_WHOLE && http_head_read(bytes, scan.at, head, &wrong))
        return 0;
    assert_true(wrong.status >= 400 && wrong.code && wrong.text);
    return wrong.status;
}

#define READ(text, head) read_head(text, sizeof(text) - 1, sizeof(text), head)
#define HOST "Host: x\r\n"

static void test_a_head_is_read_the_same_in_any_pieces(void **state)
{
    static const char text[] =
        "\r\nPOST /a%20b/%41?c=%00 HTTP/1.1\r\nhost: x\r\nX-One:  two words \t\r\n"
        "x-empty:\r\nContent-Length: 12\r\nx-one: three\r\n\r\nbody";

    (void)state;
    for (size_t step = 1; step <= sizeof(text); step++) {
        struct http_head head;
        uint32_t count;
        assert_int_equal(read_head(text, sizeof(text) - 1, step, &head), 0);
        assert_string_equal(head.method, "POST");
        assert_string_equal(head.path, "/a b/A");
        assert_string_equal(http_head_field(&head, "x-ONE", &count), "two words");
        assert_int_equal(count, 2);
        assert_string_equal(http_head_field(&head, "X-Empty", NULL), "");
        assert_null(http_head_field(&head, "X", &count));
        assert_int_equal(count, 0);
        assert_int_equal(head.length, 12);
        assert_true(head.keep && head.is_1_1 && !head.chunked && !head.expects);
    }
}

static void test_targets_are_paths_or_urls(void **state)
{
    struct http_head head;

    (void)state;
    assert_int_equal(READ("GET http://x:80/v1/models?q HTTP/1.1\r\n" HOST "\r\n", &head), 0);
    assert_string_equal(head.path, "/v1/models");
    assert_int_equal(READ("GET https://x HTTP/1.1\r\n" HOST "\r\n", &head), 0);
    assert_string_equal(head.path, "/");
    assert_int_equal(READ("GET http://x?a/b HTTP/1.1\r\n" HOST "\r\n", &head), 0);
    assert_string_equal(head.path, "/");
    assert_int_equal(READ("OPTIONS * HTTP/1.1\r\n" HOST "\r\n", &head), 0);
    assert_string_equal(head.path, "*");
    assert_int_equal(READ("GET /a#b HTTP/1.1\r\n" HOST "\r\n", &head), 0);
    assert_string_equal(head.path, "/a");
    assert_int_equal(READ("CONNECT x:443 HTTP/1.1\r\n" HOST "\r\n", &head), 400);
    assert_int_equal(READ("GET v1 HTTP/1.1\r\n" HOST "\r\n", &head), 400);
    assert_int_equal(READ("GET /%00 HTTP/1.1\r\n" HOST "\r\n", &head), 400);
    assert_int_equal(READ("GET /%0d%0a HTTP/1.1\r\n" HOST "\r\n", &head), 400);
    assert_int_equal(READ("GET /%4 HTTP/1.1\r\n" HOST "\r\n", &head), 400);
    assert_int_equal(READ("GET /%zz HTTP/1.1\r\n" HOST "\r\n", &head), 400);
    assert_int_equal(READ("GET /\xc3\xa4 HTTP/1.1\r\n" HOST "\r\n", &head), 400);
    assert_int_equal(READ("GET /%c3%a4 HTTP/1.1\r\n" HOST "\r\n", &head), 0);
}

static void test_first_lines_that_are_wrong(void **state)
{
    struct http_head head;

    (void)state;
    assert_int_equal(READ("GET /\r\n", &head), 400);
    assert_int_equal(READ("GET  / HTTP/1.1\r\n", &head), 400);
    assert_int_equal(READ("GET / HTTP/1.1 \r\n", &head), 400);
    assert_int_equal(READ(" GET / HTTP/1.1\r\n", &head), 400);
    assert_int_equal(READ("G(T / HTTP/1.1\r\n", &head), 400);
    assert_int_equal(READ("GET / http/1.1\r\n", &head), 400);
    assert_int_equal(READ("GET / HTTP/x.1\r\n", &head), 400);
    assert_int_equal(READ("GET / HTTP/2.0\r\n", &head), 505);
    assert_int_equal(READ("ABCDEFGHIJKLMNOPQRSTUVWXYZ / HTTP/1.1\r\n", &head), 400);
    assert_int_equal(READ("\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n", &head), 400);
    assert_int_equal(READ("GET / HTTP/1.1\n", &head), 400);
    assert_int_equal(READ("GET / HTTP/1.1\rX", &head), 400);
    assert_int_equal(READ("GET /\0 HTTP/1.1\r\n", &head), 400);
    assert_int_equal(READ("\x80", &head), 400);
    assert_int_equal(READ("\x16\x03\x01", &head), 400);
    assert_int_equal(READ("GET / HTT", &head), 1); /* may still become one */
}

static void test_fields_that_are_wrong(void **state)
{
    struct http_head head;

    (void)state;
#define GET(fields) READ("GET / HTTP/1.1\r\n" fields "\r\n", &head)
    assert_int_equal(GET(""), 400);
    assert_int_equal(GET(HOST HOST), 400);
    assert_int_equal(GET(HOST "nonsense\r\n"), 400);
    assert_int_equal(GET(HOST "X : a\r\n"), 400);
    assert_int_equal(GET(HOST ": a\r\n"), 400);
    assert_int_equal(GET(HOST "X: a\r\n b\r\n"), 400);
    assert_int_equal(GET(HOST "X: a\0b\r\n"), 400);
    assert_int_equal(GET(HOST "X: a\rb\r\n"), 400);
    assert_int_equal(GET(HOST "X: a\nb\r\n"), 400);
    assert_int_equal(GET(HOST "X: a\x7f\r\n"), 400);
    assert_int_equal(GET(HOST "Content-Length: 1\r\nContent-Length: 1\r\n"), 400);
    assert_int_equal(GET(HOST "Content-Length: 1, 1\r\n"), 400);
    assert_int_equal(GET(HOST "Content-Length: +1\r\n"), 400);
    assert_int_equal(GET(HOST "Content-Length: 0x1\r\n"), 400);
    assert_int_equal(GET(HOST "Content-Length:\r\n"), 400);
    assert_int_equal(GET(HOST "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), 400);
    assert_int_equal(GET(HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400);
    assert_int_equal(GET(HOST "Transfer-Encoding: gzip, chunked\r\n"), 501);
    assert_int_equal(GET(HOST "Transfer-Encoding: xchunked\r\n"), 501);
    assert_int_equal(GET(HOST "Content-Encoding: gzip\r\n"), 415);
    assert_int_equal(GET(HOST "Expect: tea\r\n"), 417);
    assert_int_equal(GET(HOST "X: \xff\x80\tok\r\n"), 0);
#undef GET
    assert_int_equal(READ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", &head), 400);
}

static void test_a_length_that_no_number_holds_is_more_than_anybody_takes(void **state)
{
    struct http_head head;

    (void)state;
    assert_int_equal(
        READ("GET / HTTP/1.1\r\n" HOST "Content-Length: 99999999999999999999999\r\n\r\n", &head),
        0);
    assert_true(head.length > UINT64_MAX / 4);
}

static void test_whether_the_connection_stays(void **state)
{
    struct http_head head;

    (void)state;
    assert_int_equal(READ("GET / HTTP/1.0\r\n\r\n", &head), 0);
    assert_false(head.keep || head.is_1_1);
    assert_int_equal(READ("GET / HTTP/1.0\r\nConnection: foo, Keep-Alive\r\n\r\n", &head), 0);
    assert_true(head.keep);
    assert_int_equal(READ("GET / HTTP/1.1\r\n" HOST "Connection: CLOSE\r\n\r\n", &head), 0);
    assert_false(head.keep);
    assert_int_equal(READ("GET / HTTP/1.1\r\n" HOST "Connection: closed\r\n\r\n", &head), 0);
    assert_true(head.keep);
}

static void test_heads_that_are_too_long(void **state)
{
    char text[8000];
    struct http_head head;

    (void)state;
    memset(text, 'a', sizeof(text));
    memcpy(text, "GET /", 5);
    assert_int_equal(read_head(text, sizeof(text), 100, &head), 414);
    memcpy(text, "GET / HTTP/1.1\r\nX: ", 19);
    assert_int_equal(read_head(text, sizeof(text), 100, &head), 431);
    size_t size = 16;
    for (int i = 0; i <= HTTP_FIELDS_MAX; i++, size += 6)
        memcpy(text + size, "X: a\r\n", 6);
    assert_int_equal(read_head(text, size, size, &head), 431);
}

/* A body in pieces of `step` bytes: its data in `bytes`. */
static bool dechunk(const char *text, size_t size, size_t step, size_t *data_p, size_t *rest_p)
{
    struct http_chunks chunks = { 0 };
    size_t used = 0, total = 0;

    for (size_t end = 0; end < size && !http_chunks_done(&chunks) && !http_chunks_wrong(&chunks);) {
        end = end + step < size ? end + step : size;
        while (used < end && !http_chunks_done(&chunks) && !http_chunks_wrong(&chunks)) {
            const char *data;
            size_t n;
            const size_t took = http_chunks_take(&chunks, text + used, end - used, &data, &n);
            assert_true(took > 0 && took <= end - used && n <= took);
            memcpy(bytes + total, data, n);
            total += n;
            used += took;
        }
    }
    *data_p = total;
    *rest_p = size - used;
    return http_chunks_done(&chunks);
}

static void test_chunks_are_one_body_in_any_pieces(void **state)
{
    static const char text[] =
        "3\r\nabc\r\n00A;x=\"y\"\r\n0123456789\r\n0 \r\nTrailer: x\r\n\r\nGET";
    size_t size, rest;

    (void)state;
    for (size_t step = 1; step <= sizeof(text); step++) {
        assert_true(dechunk(text, sizeof(text) - 1, step, &size, &rest));
        assert_int_equal(size, 13);
        assert_memory_equal(bytes, "abc0123456789", 13);
        assert_int_equal(rest, 3);
    }
}

static void test_chunks_that_are_wrong(void **state)
{
    static const char *const wrong[] = {
        "zz\r\n",    "\r\n",        "-1\r\n",           "0x3\r\n",       "3\nabc",
        "3\r\nabcd", "3\r\nabc\n",  "3\rabc",           "3\r\nabc\r\rx", "1111111111111111\r\n",
        "0\r\n\rx",  "3;a\x01\r\n", "0\r\nX: \x7f\r\n", "0\r\nx\n",
    };
    size_t size, rest;

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        const size_t all = strlen(wrong[i]);
        for (size_t step = 1; step <= all; step++)
            assert_false(dechunk(wrong[i], all, step, &size, &rest));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_head_is_read_the_same_in_any_pieces),
        cmocka_unit_test(test_targets_are_paths_or_urls),
        cmocka_unit_test(test_first_lines_that_are_wrong),
        cmocka_unit_test(test_fields_that_are_wrong),
        cmocka_unit_test(test_a_length_that_no_number_holds_is_more_than_anybody_takes),
        cmocka_unit_test(test_whether_the_connection_stays),
        cmocka_unit_test(test_heads_that_are_too_long),
        cmocka_unit_test(test_chunks_are_one_body_in_any_pieces),
        cmocka_unit_test(test_chunks_that_are_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
