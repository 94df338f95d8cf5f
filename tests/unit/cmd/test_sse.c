/* test_sse.c - events out of bytes, however they are cut. */
#include "test.h"

#include <stdio.h>

#include "cmd/sse.h"

/** Events, one behind another with '|' between. */
struct heard {
    char text[200];
    int count, stop_at;
};

static bool hear(void *user, const char *data, size_t size)
{
    struct heard *h = user;
    const size_t at = strlen(h->text);

    assert_int_equal(data[size], '\0');
    snprintf(h->text + at, sizeof(h->text) - at, "%.*s|", (int)size, data);
    return ++h->count != h->stop_at;
}

static const struct {
    const char *stream, *events;
} rows[] = {
    { "data: {\"a\":1}\n\ndata: [DONE]\n\n", "{\"a\":1}|[DONE]|" },
    { "data:x\n\n", "x|" },
    { "data:  x\n\n", " x|" },
    { "data\n\n", "|" },
    { "data:\n\n", "|" },
    { "data: a\ndata: b\n\n", "a\nb|" },
    { "data: a\r\n\r\ndata: b\r\n\r\n", "a|b|" },
    { "data: a\r\rdata: b\r\r", "a|b|" },
    { ": comment\n\nevent: x\nid: 7\ndata: a\nretry: 5\n\n\n\n", "a|" },
    { "database: x\n\ndat: y\n\n", "" },
    { "data: unfinished", "" },
    { "data: unfinished\n", "" },
    { "", "" },
};

static void test_events_come_out_whole_however_the_bytes_are_cut(void **state)
{
    (void)state;
    struct faulty f;

    faulty_init(&f, -1);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const size_t size = strlen(rows[i].stream);
        for (size_t piece = 1; piece <= size + 1; piece++) {
            struct heard h = { 0 };
            struct sse s;
            sse_init(&s, &f.alloc);
            for (size_t at = 0; at < size; at += piece)
                assert_int_equal(sse_feed(&s, rows[i].stream + at,
                                          size - at < piece ? size - at : piece, hear, &h),
                                 MC_OK);
            assert_string_equal(h.text, rows[i].events);
            sse_fini(&s);
        }
    }
    assert_int_equal(f.held, 0);
}

static void test_who_hears_may_stop(void **state)
{
    (void)state;
    const char *text = "data: a\n\ndata: b\n\ndata: c\n\n";
    struct heard h = { .stop_at = 2 };
    struct faulty f;
    struct sse s;

    faulty_init(&f, -1);
    sse_init(&s, &f.alloc);
    assert_int_equal(sse_feed(&s, text, strlen(text), hear, &h), MC_E_CANCELLED);
    assert_string_equal(h.text, "a|b|");
    sse_reset(&s);
    assert_int_equal(sse_feed(&s, "data: d\n\n", 9, hear, &h), MC_OK);
    assert_string_equal(h.text, "a|b|d|");
    sse_fini(&s);
    assert_int_equal(f.held, 0);
}

static void test_endless_lines_and_events_are_refused(void **state)
{
    (void)state;
    static char line[4096];
    struct heard h = { 0 };
    struct faulty f;
    struct sse s;

    memset(line, 'x', sizeof(line));
    for (int whole = 0; whole < 2; whole++) { /* one long line; many lines of one event */
        mc_status status = MC_OK;
        size_t fed = 0;
        faulty_init(&f, -1);
        sse_init(&s, &f.alloc);
        memcpy(line, "data: ", 6);
        line[sizeof(line) - 1] = whole ? '\n' : 'x';
        for (; status == MC_OK && fed <= 2 * SSE_EVENT_MAX; fed += sizeof(line))
            status = sse_feed(&s, line, sizeof(line), hear, &h);
        assert_int_equal(status, MC_E_RANGE);
        assert_true(fed <= SSE_EVENT_MAX + 2 * sizeof(line));
        sse_fini(&s);
        assert_int_equal(f.held, 0);
    }
}

static void test_memory_that_is_out_is_told(void **state)
{
    (void)state;
    for (long k = 0;; k++) {
        struct heard h = { 0 };
        struct faulty f;
        struct sse s;
        faulty_init(&f, k);
        sse_init(&s, &f.alloc);
        mc_status status = sse_feed(&s, "data: hal", 9, hear, &h);
        if (status == MC_OK)
            status = sse_feed(&s, "lo\n\n", 4, hear, &h);
        sse_fini(&s);
        assert_int_equal(f.held, 0);
        if (status == MC_OK) {
            assert_string_equal(h.text, "hallo|");
            assert_int_equal(k, 2);
            return;
        }
        assert_int_equal(status, MC_E_NOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_events_come_out_whole_however_the_bytes_are_cut),
        cmocka_unit_test(test_who_hears_may_stop),
        cmocka_unit_test(test_endless_lines_and_events_are_refused),
        cmocka_unit_test(test_memory_that_is_out_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
