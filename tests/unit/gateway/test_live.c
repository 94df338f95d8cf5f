/*
 * test_live.c - what watchers are told: a snapshot, then what changed; never a prompt, never an answer; and
 * what becomes of watchers that are too many, too slow, or there when the gateway ends.
 */
#include "house.h"

#include <jansson.h>

#include "gateway/live.h"

static json_t *event; /* the last one read */

static void open_watched(uint64_t stream_max, uint64_t slo_ttft_ns)
{
    struct gateway_options o = options();

    o.stream_max = stream_max;
    o.slo_ttft_ns = slo_ttft_ns;
    open_gateway(&o);
}

static int setup(void **state)
{
    setup_bare(state);
    open_watched(0, 0);
    return 0;
}

static int forget(void **state)
{
    json_decref(event);
    event = NULL;
    return teardown(state);
}

#define WATCHERS "mooncake_gateway_watchers "
#define ACTIVE "mooncake_gateway_requests_active "
#define SECRET "a prompt of words"
#define ASK "{\"model\":\"served\",\"prompt\":\"" SECRET "\",\"max_tokens\":5}"

/* By HTTP/1.0 the stream comes as it is, not in chunks. */
static void watch(struct talk *t)
{
    talk_open(t, loop, gateway_address(g));
    talk_say(t, "GET /live HTTP/1.0\r\nHost: x\r\n\r\n");
    talk_until(t, "\r\n\r\n");
}

/* Read events, the first `size_p` bytes of which were seen, until one has what `find` finds. Borrowed. */
static json_t *until_told(struct talk *t, size_t *seen_p, json_t *(*find)(json_t *told))
{
    const uint64_t until_ns = os_now_ns() + UINT64_C(60000000000);

    for (;;) {
        const char *data = strstr(t->in.data + *seen_p, "\ndata: ");
        const char *end = data ? strstr(data, "\n\n") : NULL;
        if (end) {
            json_decref(event);
            event = json_loadb(data + 7, (size_t)(end - data - 7), 0, NULL);
            if (!event)
                fail_msg("not JSON: %s", data);
            *seen_p = (size_t)(end + 2 - t->in.data);
            json_t *found = find(event);
            if (found)
                return found;
            continue;
        }
        if (t->closed || os_now_ns() > until_ns)
            fail_msg("%s: %s", t->closed ? "closed" : "too late", t->in.data + *seen_p);
        talk_turn(loop);
        talk_read(t);
    }
}

static json_t *any(json_t *told)
{
    return told;
}

static const char *text_of(json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));

    return text ? text : "";
}

static json_int_t number_of(json_t *object, const char *name)
{
    assert_true(json_is_integer(json_object_get(object, name)));
    return json_integer_value(json_object_get(object, name));
}

static json_t *find_request(json_t *told, const char *field, const char *value)
{
    size_t i;
    json_t *r;

    json_array_foreach(json_object_get(told, "requests"), i,
                       r) if (strcmp(text_of(r, field), value) == 0) return r;
    return NULL;
}

static json_t *one_that_ended(json_t *told)
{
    return find_request(told, "stage", "done");
}

static json_t *one_in_prefill(json_t *told)
{
    return find_request(told, "stage", "prefill");
}

static json_t *one_in_decode(json_t *told)
{
    return find_request(told, "stage", "decode");
}

static json_t *a_refusal(json_t *told)
{
    return json_array_get(json_object_get(told, "refusals"), 0);
}

static json_t *the_counters(json_t *told)
{
    return json_object_get(told, "counters");
}

static json_int_t staged(json_t *told)
{
    json_int_t sum = 0;
    size_t i;
    json_t *n;

    json_array_foreach(json_object_get(told, "stages"), i, n) sum += json_integer_value(n);
    return sum;
}

static json_t *nobody_under_way(json_t *told)
{
    return json_object_get(told, "stages") && staged(told) == 0 ? told : NULL;
}

static void complete(void)
{
    struct talk t;

    talk_open(&t, loop, gateway_address(g));
    talk_post(&t, "/v1/completions", "", ASK);
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 200);
    talk_close(&t);
    WAIT(figure(ACTIVE) == 0);
}

/* ------------------------------------------------------------------------------------------- page */

static void test_the_page_is_static_and_knows_when_it_is_the_same(void **state)
{
    struct talk t;
    char tag[40], ask[200];

    (void)state;
    talk_open(&t, loop, gateway_address(g));
    talk_say(&t, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 200);
    assert_non_null(strstr(t.in.data, "Content-Type: text/html"));
    assert_non_null(strstr(t.in.data, "Content-Security-Policy: default-src 'none'"));
    assert_non_null(strstr(t.in.data, "script-src 'sha256-"));
    assert_non_null(strstr(t.in.data, "</html>"));
    const char *at = strstr(t.in.data, "ETag: ") + 6;
    snprintf(tag, sizeof(tag), "%.*s", (int)strcspn(at, "\r"), at);
    talk_again(&t);
    snprintf(ask, sizeof(ask), "GET / HTTP/1.1\r\nHost: x\r\nIf-None-Match: %s\r\n\r\n", tag);
    talk_say(&t, ask);
    talk_until(&t, "\r\n\r\n");
    assert_int_equal(talk_status(&t), 304);
    assert_null(strstr(t.in.data, "<html"));
    talk_close(&t);
}

/* ---------------------------------------------------------------------------------------- watching */

static void test_a_watcher_is_told_all_at_first_and_then_what_changes(void **state)
{
    struct talk t, ask;
    size_t seen = 0;

    (void)state;
    start_pair();
    w[0].held = true;
    w[1].slow = true;
    watch(&t);
    json_t *told = until_told(&t, &seen, any);
    assert_non_null(strstr(t.in.data, "event: snapshot\n"));
    assert_string_equal(text_of(json_object_get(told, "gateway"), "state"), "ready");
    assert_string_equal(text_of(json_object_get(told, "gateway"), "model"), "served");
    assert_int_equal(json_array_size(json_object_get(json_object_get(told, "workers"), "list")), 2);
    assert_int_equal(json_array_size(json_object_get(told, "requests")), 0);

    talk_open(&ask, loop, gateway_address(g));
    talk_post(&ask, "/v1/completions", "X-Request-Id: mine-1\r\n", ASK);
    WAIT(w[0].prefills == 1);
    const uint64_t request = w[0].last.request;
    const struct wire_prefill_progress progress = { .request = request, .tokens = 3, .phase = 3 };
    assert_int_equal(net_send(w[0].conn, WIRE_PREFILL_PROGRESS, &progress), MC_OK);
    json_t *r = until_told(&t, &seen, one_in_prefill);
    assert_string_equal(text_of(r, "id"), "mine-1");
    assert_string_equal(text_of(r, "from"), "P");
    assert_string_equal(text_of(r, "to"), "D");
    assert_int_equal(number_of(r, "prompt"), sizeof(SECRET)); /* each letter, and a beginning */
    ;

    w[1].slow = true;
    fake_finish_prefill(&w[0], request);
    fake_push(&w[1], request, 2, 0);
    r = until_told(&t, &seen, one_in_decode);
    assert_int_equal(number_of(r, "output"), 2);
    assert_int_equal(number_of(r, "reused"), 16);
    assert_int_equal(number_of(r, "pulled"), 4096);
    fake_push(&w[1], request, 3, 2);
    r = until_told(&t, &seen, one_that_ended);
    assert_string_equal(text_of(r, "how"), "length");
    assert_int_equal(number_of(r, "output"), 5);
    assert_true(number_of(r, "total") >= number_of(r, "ttft"));
    talk_answer(&ask);
    json_t *counters = until_told(&t, &seen, the_counters);
    assert_int_equal(number_of(counters, "output_tokens"), 5);
    assert_int_equal(number_of(json_object_get(counters, "requests_ended"), "length"), 1);
    assert_null(strstr(t.in.data, SECRET));
    assert_null(strstr(t.in.data, "The a"));
    talk_close(&ask);
    talk_close(&t);
    WAIT(figure(WATCHERS) == 0);
}

static void test_who_comes_later_sees_what_was(void **state)
{
    struct talk t;
    size_t seen = 0;

    (void)state;
    start_pair();
    complete();
    watch(&t);
    json_t *r = until_told(&t, &seen, one_that_ended);
    assert_string_equal(text_of(r, "how"), "length");
    assert_int_equal(number_of(r, "n"), 1);
    assert_int_equal(staged(event), 0);
    talk_close(&t);
}

static json_t *a_good_second(json_t *told)
{
    size_t i;
    json_t *second;

    json_array_foreach(json_object_get(told, "seconds"), i,
                       second) if (number_of(second, "good") > 0) return second;
    return NULL;
}

/* Also to whoever was not there when they ended. */
static void test_those_within_the_objectives_are_told_by_the_second(void **state)
{
    struct talk t;
    size_t seen = 0;

    (void)state;
    open_watched(0, UINT64_C(60000000000));
    start_pair();
    complete();
    watch(&t);
    json_t *slo = json_object_get(json_object_get(until_told(&t, &seen, any), "gateway"), "slo");
    assert_int_equal(json_integer_value(json_array_get(slo, 0)), 60000000);
    assert_int_equal(json_integer_value(json_array_get(slo, 1)), 0);
    json_t *second = until_told(&t, &seen, a_good_second);
    assert_int_equal(number_of(second, "good"), 1);
    assert_int_equal(number_of(second, "finished"), 1);
    talk_close(&t);
}

static void test_records_are_the_newest_and_bounded(void **state)
{
    struct talk t;
    size_t seen = 0;

    (void)state;
    start_pair();
    for (int i = 0; i < 300; i++) {
        complete();
        w[0].work_count = w[1].work_count = 0;
    }
    watch(&t);
    json_t *requests = json_object_get(until_told(&t, &seen, any), "requests");
    assert_int_equal(json_array_size(requests), 256);
    assert_int_equal(number_of(json_array_get(requests, 0), "n"), 45);
    assert_int_equal(number_of(json_array_get(requests, 255), "n"), 300);
    talk_close(&t);
}

static void test_a_refusal_is_told_with_its_reason_and_nothing_of_its_text(void **state)
{
    struct talk t, ask;
    size_t seen = 0;

    (void)state;
    start_pair();
    watch(&t);
    until_told(&t, &seen, any);
    talk_open(&ask, loop, gateway_address(g));
    talk_post(&ask, "/v1/completions", "",
              "{\"model\":\"served\",\"prompt\":\"" SECRET "\",\"n\":3}");
    talk_answer(&ask);
    json_t *r = until_told(&t, &seen, a_refusal);
    assert_string_equal(text_of(r, "reason"), "unsupported");
    assert_int_equal(number_of(r, "count"), 1);
    assert_string_equal(text_of(r, "text"), "answered with 400, field n");
    talk_again(&ask);
    talk_post(&ask, "/v1/completions", "", "{\"model\":\"served\",\"prompt\":\"" SECRET "\",}");
    talk_answer(&ask);
    talk_close(&ask);
    until_told(&t, &seen, the_counters);
    assert_null(strstr(t.in.data, SECRET));
    talk_close(&t);
}

static void test_whoever_leaves_is_not_under_way_any_more(void **state)
{
    struct talk t, ask;
    size_t seen = 0;

    (void)state;
    start_pair();
    w[0].held = true;
    watch(&t);
    talk_open(&ask, loop, gateway_address(g));
    talk_post(&ask, "/v1/completions", "", ASK);
    WAIT(w[0].prefills == 1);
    talk_close(&ask);
    json_t *r = until_told(&t, &seen, one_that_ended);
    assert_string_equal(text_of(r, "how"), "client_left");
    if (!nobody_under_way(event))
        until_told(&t, &seen, nobody_under_way);
    talk_close(&t);
}

/* ----------------------------------------------------------------------------------- hard watchers */

static void test_one_watcher_too_many_is_told_to_come_again(void **state)
{
    struct talk t[LIVE_WATCHERS], more;
    size_t seen = 0;

    (void)state;
    for (int i = 0; i < LIVE_WATCHERS; i++)
        watch(&t[i]);
    watch(&more);
    assert_int_equal(talk_status(&more), 503);
    assert_non_null(strstr(more.in.data, "too_many_watchers"));
    assert_non_null(strstr(more.in.data, "Retry-After: 5\r\n"));
    talk_close(&more);
    assert_int_equal(figure(WATCHERS), LIVE_WATCHERS);
    talk_close(&t[3]);
    WAIT(figure(WATCHERS) == LIVE_WATCHERS - 1);
    watch(&t[3]);
    until_told(&t[3], &seen, any);
    for (int i = 0; i < LIVE_WATCHERS; i++)
        talk_close(&t[i]);
    WAIT(figure(WATCHERS) == 0);
}

static void test_whoever_asks_for_the_head_alone_does_not_watch(void **state)
{
    struct talk t;

    (void)state;
    talk_open(&t, loop, gateway_address(g));
    talk_say(&t, "HEAD /live HTTP/1.1\r\nHost: x\r\n\r\n");
    talk_until(&t, "\r\n\r\n");
    assert_int_equal(talk_status(&t), 200);
    assert_non_null(strstr(t.in.data, "Content-Type: text/event-stream"));
    assert_int_equal(figure(WATCHERS), 0);
    talk_close(&t);
}

static void test_a_watcher_that_does_not_take_it_is_cut_off(void **state)
{
    struct talk t;

    (void)state;
    open_watched(300, 0); /* bytes that may wait: less than a snapshot */
    talk_open(&t, loop, gateway_address(g));
    talk_say(&t, "GET /live HTTP/1.0\r\nHost: x\r\n\r\n");
    talk_until(&t, NULL);
    assert_int_equal(figure(WATCHERS), 0);
    assert_int_equal(figure("mooncake_gateway_watchers_cut_total "), 1);
    talk_close(&t);
}

static void done(void *user)
{
    *(bool *)user = true;
}

static void test_a_drain_does_not_wait_for_watchers(void **state)
{
    struct talk t;
    bool drained = false;

    (void)state;
    watch(&t);
    gateway_drain(g, done, &drained);
    WAIT(drained);
    talk_until(&t, NULL);
    talk_close(&t);
}

static void test_closing_cuts_watchers_off(void **state)
{
    struct talk t;

    (void)state;
    watch(&t);
    gateway_close(g);
    g = NULL;
    talk_until(&t, NULL);
    talk_close(&t);
}

static json_int_t refusals_wanted;

static json_t *so_many_refusals(json_t *told)
{
    json_t *refusal = a_refusal(told);

    return refusal && number_of(refusal, "count") == refusals_wanted ? refusal : NULL;
}

/* Whoever watches now is told of what happens now. */
static void assert_changes_are_told(void)
{
    struct talk t, ask;
    size_t seen = 0;

    watch(&t);
    until_told(&t, &seen, any);
    talk_open(&ask, loop, gateway_address(g));
    talk_post(&ask, "/v1/completions", "", "{");
    talk_answer(&ask);
    talk_close(&ask);
    refusals_wanted++;
    until_told(&t, &seen, so_many_refusals);
    talk_close(&t);
    WAIT(figure(WATCHERS) == 0);
}

static void test_every_failed_allocation_of_a_watcher_leaves_nothing_behind(void **state)
{
    (void)state;
    refusals_wanted = 0;
    start_pair();
    for (long k = 0;; k++) {
        struct talk t;
        const long from = f.calls;
        f.fail_at = from + k;
        talk_open(&t, loop, gateway_address(g));
        talk_say(&t, "GET /live HTTP/1.0\r\nHost: x\r\n\r\n");
        const uint64_t until_ns = os_now_ns() + UINT64_C(60000000000);
        while (!t.closed && !strstr(t.in.data, "event: change\n")) {
            assert_true(os_now_ns() < until_ns);
            talk_turn(loop);
            talk_read(&t);
        }
        const bool failed = f.calls > from + k;
        f.fail_at = -1;
        talk_close(&t);
        WAIT(figure(WATCHERS) == 0);
        assert_changes_are_told();
        if (!failed)
            return;
        WAIT(w[0].instance && w[1].instance);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, forget)
#define BARE(name) cmocka_unit_test_setup_teardown(name, setup_bare, forget)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_page_is_static_and_knows_when_it_is_the_same),
        TEST(test_a_watcher_is_told_all_at_first_and_then_what_changes),
        TEST(test_who_comes_later_sees_what_was),
        BARE(test_those_within_the_objectives_are_told_by_the_second),
        TEST(test_records_are_the_newest_and_bounded),
        TEST(test_a_refusal_is_told_with_its_reason_and_nothing_of_its_text),
        TEST(test_whoever_leaves_is_not_under_way_any_more),
        TEST(test_one_watcher_too_many_is_told_to_come_again),
        TEST(test_whoever_asks_for_the_head_alone_does_not_watch),
        BARE(test_a_watcher_that_does_not_take_it_is_cut_off),
        TEST(test_a_drain_does_not_wait_for_watchers),
        TEST(test_closing_cuts_watchers_off),
        TEST(test_every_failed_allocation_of_a_watcher_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
