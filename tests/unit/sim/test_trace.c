/* test_trace.c - requests of a trace, and what is said of lines that are none. */
#include "test.h"

#include <stdio.h>

#include "sim/trace.h"

#define LINE(ms, in, out, ids) \
    "{\"timestamp\": " ms ", \"input_length\": " in ", \"output_length\": " out \
    ", \"hash_ids\": [" ids "]}\n"

/** Everything that a reader said of some bytes, fed in pieces. */
struct read {
    struct trace_request requests[8]; /* hash_ids: NULL */
    uint64_t ids[8][8];
    uint32_t count;
    mc_status end;
    struct mc_error error;
};

static struct read read_pieces(const struct trace_options *o, const char *text, size_t size,
                               size_t piece)
{
    struct read read = { 0 };
    trace_reader *reader = NULL;
    size_t at = 0;
    bool finished = false;

    read.end = trace_open(o, &reader, &read.error);
    while (read.end == MC_OK && read.count < 8) {
        struct trace_request *q = &read.requests[read.count];
        read.end = trace_next(reader, q, &read.error);
        if (read.end == MC_OK) {
            for (uint32_t i = 0; i < q->hash_count && i < 8; i++)
                read.ids[read.count][i] = q->hash_ids[i];
            q->hash_ids = NULL;
            read.count++;
        } else if (read.end == MC_PENDING && at < size) {
            const size_t next = size - at < piece ? size - at : piece;
            trace_feed(reader, text + at, next);
            at += next;
            read.end = MC_OK;
        } else if (read.end == MC_PENDING && !finished) {
            trace_finish(reader);
            finished = true;
            read.end = MC_OK;
        }
    }
    trace_close(reader);
    return read;
}

/* Read as `o` says, of which allocator and name are these; nothing is left behind. */
static struct read read_as(struct trace_options o, const char *text, size_t size, size_t piece)
{
    struct faulty f;

    faulty_init(&f, -1);
    o.alloc = &f.alloc;
    o.name = "t";
    const struct read read = read_pieces(&o, text, size, piece);
    assert_int_equal(f.held, 0);
    return read;
}

static struct read read_text(const char *text)
{
    return read_as((struct trace_options){ 0 }, text, strlen(text), SIZE_MAX);
}

static const char two[] = LINE("0", "600", "5", "7, 8") LINE("27.5", "512", "1", "7");

static void test_requests_come_in_order_however_the_bytes_are_cut(void **state)
{
    (void)state;
    for (size_t piece = 1; piece <= sizeof(two); piece++) {
        const struct read read = read_as((struct trace_options){ 0 }, two, sizeof(two) - 1, piece);
        assert_int_equal(read.end, MC_E_NOT_FOUND);
        assert_int_equal(read.count, 2);
        assert_int_equal(read.requests[0].input_tokens, 600);
        assert_int_equal(read.requests[0].output_tokens, 5);
        assert_int_equal(read.requests[0].hash_count, 2);
        assert_int_equal(read.ids[0][0], 7);
        assert_int_equal(read.ids[0][1], 8);
        assert_int_equal(read.requests[1].arrival_ns, 27500000);
        assert_int_equal(read.requests[1].line, 2);
        assert_int_equal(read.ids[1][0], 7);
    }
}

static void test_what_other_writers_do_is_taken(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{\"hash_ids\":[7],\"output_length\":0,\"input_length\":1,\"timestamp\":0}",
        "\r\n "
        "\t\r\n{\"timestamp\":0,\"input_length\":1,\"output_length\":1,\"hash_ids\":[0]}\r\n\r\n",
        "{\"timestamp\": 1669852800000.25, \"input_length\": 1, \"output_length\": 1, "
        "\"hash_ids\": "
        "[9223372036854775807], \"session_id\": \"\xc3\xa9\", \"tools\": [{\"a\": [null, true]}]}",
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        const struct read read = read_text(texts[i]);
        if (read.end != MC_E_NOT_FOUND || read.count != 1)
            fail_msg("%s: %s", texts[i], read.error.text);
    }
}

/* Each is one line; the error's text is the test's. */
static const struct {
    const char *line;
    mc_status status;
    const char *text;
} bad[] = {
    { "", MC_E_FORMAT, "t: no request in it" },
    { "\n\n \n", MC_E_FORMAT, "t: no request in it" },
    { "null", MC_E_FORMAT, "t:1: expected an object, {\"timestamp\": ...}" },
    { "[]", MC_E_FORMAT, "t:1: expected an object, {\"timestamp\": ...}" },
    { "timestamp,input_length", MC_E_FORMAT, "t:1: expected an object, {\"timestamp\": ...}" },
    { "\xef\xbb\xbf{}", MC_E_FORMAT, "t:1: begins with a byte order mark; save it as plain UTF-8" },
    { "{", MC_E_FORMAT, "t:1: at byte 2: expected ',' or '}'" },
    { "{}", MC_E_FORMAT, "t:1: timestamp: is missing" },
    { "{\"timestamp\": 0}", MC_E_FORMAT, "t:1: input_length: is missing" },
    { "{\"timestamp\": 0, \"input_length\": 1}", MC_E_FORMAT, "t:1: output_length: is missing" },
    { "{\"timestamp\": 0, \"input_length\": 1, \"output_length\": 1}", MC_E_FORMAT,
      "t:1: hash_ids: is missing" },
    { LINE("-1", "1", "1", "0"), MC_E_RANGE, "t:1: timestamp: -1 is negative" },
    { LINE("\"0\"", "1", "1", "0"), MC_E_FORMAT, "t:1: timestamp: is not a number" },
    { LINE("null", "1", "1", "0"), MC_E_FORMAT, "t:1: timestamp: is not a number" },
    { LINE("NaN", "1", "1", "0"), MC_E_FORMAT, "t:1: timestamp: is not a number" },
    { LINE("1e3", "1", "1", "0"), MC_E_FORMAT, "t:1: timestamp: 1e3 has an exponent" },
    { LINE("9007199254741", "1", "1", "0"), MC_E_RANGE,
      "t:1: timestamp: 9007199254741 ms is too late for any clock" },
    { LINE("01", "1", "1", "0"), MC_E_FORMAT,
      "t:1: timestamp: expected a number as JSON writes it" },
    { LINE("0", "-6758", "1", "0"), MC_E_RANGE, "t:1: input_length: -6758 is negative" },
    { LINE("0", "0", "1", ""), MC_E_RANGE, "t:1: input_length: a prompt has at least one token" },
    { LINE("0", "1.5", "1", "0"), MC_E_FORMAT, "t:1: input_length: 1.5 is not a whole number" },
    { LINE("0", "16777217", "1", "0"), MC_E_RANGE,
      "t:1: input_length: 16777217 is more than 16777216" },
    { LINE("0", "99999999999999999999999", "1", "0"), MC_E_RANGE,
      "t:1: input_length: 99999999999999999999999 is more than 16777216" },
    { LINE("0", "[1]", "1", "0"), MC_E_FORMAT, "t:1: input_length: is not a number" },
    { LINE("0", "1", "-3", "0"), MC_E_RANGE, "t:1: output_length: -3 is negative" },
    { LINE("0", "1", "true", "0"), MC_E_FORMAT, "t:1: output_length: is not a number" },
    { LINE("0", "1", "16777217", "0"), MC_E_RANGE,
      "t:1: output_length: 16777217 is more than 16777216" },
    { LINE("0", "1", "1", "-1"), MC_E_RANGE, "t:1: hash_ids: -1 is negative" },
    { LINE("0", "1", "1", "\"a\""), MC_E_FORMAT, "t:1: hash_ids: is not a number" },
    { LINE("0", "1", "1", "9223372036854775808"), MC_E_RANGE,
      "t:1: hash_ids: 9223372036854775808 is more than 9223372036854775807" },
    { LINE("0", "1", "1", "0,"), MC_E_FORMAT, "t:1: hash_ids: is not a number" },
    { LINE("0", "1", "1", "0 1"), MC_E_FORMAT, "t:1: hash_ids: expected ',' or ']'" },
    { LINE("0", "513", "1", "0"), MC_E_FORMAT,
      "t:1: hash_ids: 1 of them; 513 tokens in blocks of 512 make 2" },
    { LINE("0", "512", "1", "0, 1"), MC_E_FORMAT,
      "t:1: hash_ids: 2 of them; 512 tokens in blocks of 512 make 1" },
    { LINE("0", "1", "1", ""), MC_E_FORMAT,
      "t:1: hash_ids: 0 of them; 1 tokens in blocks of 512 make 1" },
    { "{\"timestamp\": 0, \"input_length\": 1, \"output_length\": 1, \"hash_ids\": 0}", MC_E_FORMAT,
      "t:1: hash_ids: is not an array" },
    { "{\"timestamp\": 0, \"timestamp\": 0}", MC_E_FORMAT, "t:1: timestamp: comes twice" },
    { "{\"a\": 0, \"b\": 0, \"a\": 1}", MC_E_FORMAT, "t:1: a: comes twice" },
    { "{\"a\": \"\xff\"}", MC_E_FORMAT, "t:1: a: expected UTF-8" },
    { "{\"a\xff\": 1}", MC_E_FORMAT, "t:1: at byte 4: expected UTF-8" },
    { "{\"a\": [1}", MC_E_FORMAT, "t:1: a: expected ',' or ']'" },
    { LINE("0", "1", "1", "0") "{}\n", MC_E_FORMAT, "t:2: timestamp: is missing" },
    { LINE("5", "1", "1", "0") LINE("4", "1", "1", "0"), MC_E_FORMAT,
      "t:2: timestamp: 4 ms is before the 5 ms of the request above; sort the file by time" },
    { "{\"timestamp\": 0, \"input_length\": 1, \"output_length\": 1, \"hash_ids\": [0]} {}",
      MC_E_FORMAT, "t:1: at byte 74: expected nothing more" },
};

static void test_every_bad_line_is_refused_by_its_number_and_field(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const struct read read = read_text(bad[i].line);
        if (read.end != bad[i].status || strcmp(read.error.text, bad[i].text) != 0)
            fail_msg("%s: \"%s\"", bad[i].line, read.error.text);
    }
}

static void test_times_may_go_back_where_that_was_asked_for(void **state)
{
    (void)state;
    const char text[] = LINE("5", "1", "1", "0") LINE("4", "1", "1", "0");
    const struct read read =
        read_as((struct trace_options){ .unsorted = true }, text, sizeof(text) - 1, 7);

    assert_int_equal(read.end, MC_E_NOT_FOUND);
    assert_int_equal(read.count, 2);
}

static void test_a_line_without_end_is_not_kept(void **state)
{
    (void)state;
    char text[200];

    memset(text, ' ', sizeof(text));
    for (size_t piece = 1; piece < sizeof(text); piece += 13) {
        const struct read read =
            read_as((struct trace_options){ .line_max = 100 }, text, sizeof(text), piece);
        assert_int_equal(read.end, MC_E_RANGE);
        assert_string_equal(read.error.text, "t:1: the line is longer than 100 bytes");
    }
}

static void test_too_many_fields_are_refused(void **state)
{
    (void)state;
    char text[1000] = "{";

    for (int i = 0; i < 40; i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s\"k%d\": 0", i ? ", " : "",
                 i);
    const struct read read = read_text(text);
    assert_int_equal(read.end, MC_E_RANGE);
    assert_string_equal(read.error.text, "t:1: more than 31 fields");
}

static void test_an_error_is_said_again(void **state)
{
    (void)state;
    struct faulty f;
    struct mc_error error = { 0 };
    struct trace_request q;
    trace_reader *reader;

    faulty_init(&f, -1);
    const struct trace_options o = { .alloc = &f.alloc, .name = "t" };
    assert_int_equal(trace_open(&o, &reader, NULL), MC_OK);
    trace_feed(reader, "{}\n", 3);
    assert_int_equal(trace_next(reader, &q, NULL), MC_E_FORMAT);
    assert_int_equal(trace_next(reader, &q, &error), MC_E_FORMAT);
    assert_string_equal(error.text, "t:1: timestamp: is missing");
    trace_close(reader);
    assert_int_equal(f.held, 0);
}

static void test_every_failed_allocation_is_told_and_leaves_nothing(void **state)
{
    (void)state;
    for (long k = 0;; k++) {
        struct faulty f;
        faulty_init(&f, k);
        const struct trace_options o = { .alloc = &f.alloc, .name = "t" };
        const struct read read = read_pieces(&o, two, sizeof(two) - 1, 5);
        assert_int_equal(f.held, 0);
        if (read.end == MC_E_NOT_FOUND) {
            assert_true(k >= 3); /* the reader, the carried line, the ids */
            return;
        }
        assert_int_equal(read.end, MC_E_NOMEM);
        assert_true(read.error.text[0] != '\0');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests_come_in_order_however_the_bytes_are_cut),
        cmocka_unit_test(test_what_other_writers_do_is_taken),
        cmocka_unit_test(test_every_bad_line_is_refused_by_its_number_and_field),
        cmocka_unit_test(test_times_may_go_back_where_that_was_asked_for),
        cmocka_unit_test(test_a_line_without_end_is_not_kept),
        cmocka_unit_test(test_too_many_fields_are_refused),
        cmocka_unit_test(test_an_error_is_said_again),
        cmocka_unit_test(test_every_failed_allocation_is_told_and_leaves_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
