/*
 * test_calls.c - requests with several prompts, and answers that are stopped: one gateway, fake workers, and
 * clients in one loop. Every test ends with nothing held at any worker.
 */
#include "house.h"

static void open_cluster(uint32_t requests_max)
{
    struct gateway_options o = options();

    o.requests_max = requests_max;
    o.patience_ns = UINT64_C(60000000000); /* nothing here ends because it waited */
    open_gateway(&o);
    start_pair();
}

static int setup(void **state)
{
    setup_bare(state);
    open_cluster(0);
    return 0;
}

#define THREE "{\"prompt\":[[1,2,3],[1,2,3,4,5,6,7,8,9,10,11],[7]],\"max_tokens\":5"
#define ONE "{\"prompt\":\"twenty bytes of text\",\"max_tokens\":40"

static void ask(struct talk *t, const char *body)
{
    talk_open(t, loop, gateway_address(g));
    talk_post(t, COMPLETION, "", body);
}

/* The worker cannot go on with this one. */
static void fail_at(struct fake_worker *worker, uint64_t request, mc_status status)
{
    const struct wire_tokens m = { .request = request,
                                   .index = fake_find(worker, request)->sent,
                                   .finish = 3,
                                   .status = status,
                                   .text = wire_text("it is broken") };

    assert_int_equal(net_send(worker->conn, WIRE_TOKENS, &m), MC_OK);
}

static uint32_t count_in(const struct talk *t, const char *text)
{
    uint32_t count = 0;

    for (const char *at = t->in.data; (at = strstr(at, text)) != NULL; at++)
        count++;
    return count;
}

/* -------------------------------------------------------------------------------------- prompts */

static void test_each_prompt_is_a_choice_of_one_answer(void **state)
{
    struct talk t;

    (void)state;
    ask(&t, THREE "}");
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 200);
    assert_int_equal(count_in(&t, "\"text\":\"The a\""), 3);
    const char *first = strstr(t.in.data, "\"index\":0"),
               *second = strstr(t.in.data, "\"index\":1");
    const char *third = strstr(t.in.data, "\"index\":2");
    assert_true(first && second && third && first < second && second < third);
    assert_int_equal(count_in(&t, "\"finish_reason\":\"length\""), 3);
    assert_true(has(&t, "X-Mooncake-Prefill: P\r\n") && has(&t, "X-Mooncake-Decode: D\r\n"));
    assert_true(has(&t, "X-Mooncake-Reused-Tokens: 48\r\n")); /* the sums */
    assert_true(has(&t, "X-Mooncake-Pulled-Bytes: 12288\r\n"));
    assert_true(has(&t, "\"prompt_tokens\":15,\"completion_tokens\":15,\"total_tokens\":30"));
    assert_true(has(&t, "\"cached_tokens\":48"));
    assert_int_equal(figure("mooncake_gateway_requests_total "), 3);
    assert_int_equal(figure("mooncake_gateway_requests_ended_total{how=\"length\"} "), 3);
    talk_close(&t);
    assert_idle();
}

static void test_choices_of_a_stream_come_as_they_are_made(void **state)
{
    struct talk t;

    (void)state;
    w[1].slow = true;
    ask(&t, THREE ",\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
    WAIT(w[0].prefills == 3);
    fake_push(&w[1], w[0].work[1].request, 2, 0);
    talk_until(&t, "{\"index\":1,\"text\":\"Th\"");
    fake_push(&w[1], w[0].work[0].request, 5, 2);
    talk_until(&t,
               "{\"index\":0,\"text\":\"The a\",\"logprobs\":null,\"finish_reason\":\"length\"");
    assert_false(has(&t, "[DONE]"));
    fake_push(&w[1], w[0].work[1].request, 1, 1);
    talk_until(&t, "{\"index\":1,\"text\":\"\",\"logprobs\":null,\"finish_reason\":\"stop\"");
    fake_push(&w[1], w[0].work[2].request, 5, 2);
    talk_until(&t, "data: [DONE]\n\n");
    talk_until(&t, "\r\n0\r\n\r\n");
    assert_int_equal(count_in(&t, "[DONE]"), 1);
    assert_int_equal(count_in(&t, "\"usage\":{"), 1);
    assert_true(has(&t, "\"choices\":[],\"usage\":{\"prompt_tokens\":15,\"completion_tokens\":13"));
    assert_int_equal(w[0].cancels + w[1].cancels, 0);
    talk_close(&t);
    assert_idle();
}

static void test_usage_comes_with_every_chunk_if_asked_for(void **state)
{
    struct talk t;

    (void)state;
    w[1].slow = true;
    ask(&t, ONE ",\"stream\":true,\"stream_options\":{\"include_usage\":true,"
                "\"continuous_usage_stats\":true}}");
    WAIT(w[0].prefills == 1);
    fake_push(&w[1], w[0].last.request, 2, 0);
    talk_until(&t, "\"usage\":{\"prompt_tokens\":20,\"completion_tokens\":2,\"total_tokens\":22");
    fake_push(&w[1], w[0].last.request, 1, 2);
    talk_until(&t, "\r\n0\r\n\r\n");
    assert_int_equal(count_in(&t, "\"completion_tokens\":3"), 2); /* the last chunk, and the sum */
    talk_close(&t);
    assert_idle();
}

static void test_one_hang_up_cancels_all(void **state)
{
    struct talk t;

    (void)state;
    w[1].slow = true;
    ask(&t, THREE ",\"stream\":true}");
    WAIT(w[0].prefills == 3);
    fake_push(&w[1], w[0].work[0].request, 5, 2); /* one is whole already */
    fake_push(&w[1], w[0].work[1].request, 2, 0);
    talk_until(&t, "{\"index\":1");
    talk_close(&t);
    WAIT(w[1].cancels == 2);
    assert_idle();
    assert_int_equal(figure("mooncake_gateway_requests_ended_total{how=\"client_left\"} "), 2);
}

static void test_one_that_fails_fails_the_whole_answer_and_cancels_the_others(void **state)
{
    struct talk t;

    (void)state;
    w[1].slow = true;
    ask(&t, THREE "}");
    WAIT(w[0].prefills == 3);
    fake_push(&w[1], w[0].work[0].request, 5, 2);
    fail_at(&w[1], w[0].work[2].request, MC_E_RANGE); /* no worker would do better */
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 500);
    assert_true(has(&t, "\"code\":\"failed\"") && has(&t, "it is broken"));
    assert_false(has(&t, "\"choices\""));
    WAIT(w[1].cancels == 1);
    assert_true(fake_find(&w[1], w[0].work[1].request)->cancelled);
    assert_idle();
    assert_int_equal(figure("mooncake_gateway_requests_ended_total{how=\"failed\"} "), 2);
    assert_int_equal(figure("mooncake_gateway_requests_ended_total{how=\"client_left\"} "), 0);
    talk_again(&t); /* the connection goes on */
    w[1].slow = false;
    talk_post(&t, COMPLETION, "", ONE "}");
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 200);
    talk_close(&t);
    assert_idle();
}

static void test_one_that_fails_in_a_stream_ends_it_with_an_error(void **state)
{
    struct talk t;

    (void)state;
    w[1].slow = true;
    ask(&t, THREE ",\"stream\":true}");
    WAIT(w[0].prefills == 3);
    fake_push(&w[1], w[0].work[0].request, 2, 0);
    talk_until(&t, "\"text\":\"Th\"");
    fail_at(&w[1], w[0].work[1].request, MC_E_RANGE);
    talk_until(&t, "\r\n0\r\n\r\n");
    assert_int_equal(count_in(&t, "data: {\"error\":{"), 1);
    assert_false(has(&t, "[DONE]"));
    WAIT(w[1].cancels == 2);
    talk_close(&t);
    assert_idle();
}

/* Both of the others fall with their worker, in the same turn as the first. */
static void test_a_lost_worker_ends_a_stream_once(void **state)
{
    struct talk t;

    (void)state;
    w[1].slow = true;
    ask(&t, THREE ",\"stream\":true}");
    WAIT(w[0].prefills == 3);
    for (int i = 0; i < 3; i++)
        fake_push(&w[1], w[0].work[i].request, 1, 0);
    talk_until(&t, "{\"index\":2");
    fake_close(&w[1]);
    talk_until(&t, "\r\n0\r\n\r\n");
    assert_int_equal(count_in(&t, "data: {\"error\":{"), 1);
    assert_true(has(&t, "worker_lost"));
    talk_close(&t);
    assert_idle();
    assert_int_equal(figure("mooncake_gateway_requests_ended_total{how=\"failed\"} "), 3);
}

/* The first to hear of the loss fails the answer; the others are placed again in the same turn. */
static void test_what_is_placed_again_after_the_answer_failed_is_given_up_all_the_same(void **state)
{
    struct talk t;

    (void)state;
    w[1].slow = true;
    ask(&t, THREE ",\"stream\":true}");
    WAIT(w[0].prefills == 3);
    fake_push(&w[1], w[0].work[2].request, 1, 0);
    talk_until(&t, "{\"index\":2");
    fake_close(&w[1]);
    talk_until(&t, "\r\n0\r\n\r\n");
    assert_int_equal(count_in(&t, "data: {\"error\":{"), 1);
    talk_close(&t);
    assert_idle();
    assert_int_equal(figure("mooncake_gateway_requests_ended_total{how=\"failed\"} "), 3);
}

static void test_each_prompt_counts_as_a_request(void **state)
{
    struct talk t, u;

    setup_bare(state);
    open_cluster(3);
    w[1].slow = true;
    ask(&t, "{\"prompt\":[\"a\",\"b\"],\"max_tokens\":5}");
    WAIT(w[0].prefills == 2);
    ask(&u, "{\"prompt\":[\"a\",\"b\"]}");
    talk_answer(&u);
    assert_int_equal(talk_status(&u), 429);
    assert_true(has(&u, "\"code\":\"slow_down\"") && has(&u, "Retry-After: 1\r\n"));
    talk_again(&u);
    talk_post(&u, COMPLETION, "", "{\"prompt\":[\"a\",\"b\",\"c\",\"d\"]}");
    talk_answer(&u);
    assert_int_equal(talk_status(&u), 400); /* waiting would not help */
    assert_true(has(&u, "\"param\":\"prompt\"") && has(&u, "\"code\":\"out_of_range\""));
    talk_again(&u);
    talk_post(&u, COMPLETION, "", "{\"prompt\":\"a\",\"max_tokens\":5}");
    WAIT(w[0].prefills == 3);
    for (int i = 0; i < 3; i++)
        fake_push(&w[1], w[0].work[i].request, 5, 2);
    talk_answer(&t);
    talk_answer(&u);
    assert_true(talk_status(&t) == 200 && talk_status(&u) == 200);
    talk_close(&t);
    talk_close(&u);
    assert_idle();
}

static void test_a_prompt_that_is_too_long_is_named(void **state)
{
    struct talk t;

    (void)state;
    ask(&t,
        "{\"prompt\":[\"a\",\"a text that is longer than the sixty-four tokens which this model's "
        "context holds\"]}");
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 400);
    assert_true(has(&t, "the prompt[1] has ") && has(&t, "context_length_exceeded"));
    assert_int_equal(w[0].prefills, 0);
    assert_int_equal(figure("mooncake_gateway_requests_ended_total{how=\"refused\"} "), 2);
    talk_close(&t);
    assert_idle();
}

static void test_texts_that_cannot_fit_are_not_cut_into_tokens(void **state)
{
    struct buf body = BUF_INIT(os_alloc());
    struct talk t;

    (void)state;
    buf_add_text(&body, "{\"prompt\":[\"a\",\"");
    for (int i = 0; i < 20000; i++)
        buf_add_byte(&body, 'x');
    buf_add_text(&body, "\"]}");
    ask(&t, body.data);
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 400);
    assert_true(has(&t, "prompt[1]: 20000 bytes are more than") &&
                has(&t, "\"code\":\"context_length_exceeded\""));
    talk_close(&t);
    buf_fini(&body);
    assert_idle();
}

/* ---------------------------------------------------------------------------------------- stops */

static void test_a_stop_text_ends_the_answer_and_the_worker_s_work(void **state)
{
    struct talk t;

    (void)state;
    w[1].slow = true;
    ask(&t, ONE ",\"stop\":[\"nobody says it\",\"wer is\"]}");
    WAIT(w[0].prefills == 1);
    fake_push(&w[1], w[0].last.request, 8, 0); /* "The answ" */
    fake_push(&w[1], w[0].last.request, 20, 0);
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 200);
    assert_true(has(&t, "\"text\":\"The ans\"") && has(&t, "\"finish_reason\":\"stop\""));
    assert_true(has(&t, "\"stop_reason\":\"wer is\"") && has(&t, "\"completion_tokens\":13"));
    WAIT(w[1].cancels == 1);
    assert_int_equal(w[0].cancels, 0);
    assert_int_equal(figure("mooncake_gateway_requests_ended_total{how=\"stop\"} "), 1);
    talk_close(&t);
    assert_idle();
}

static void test_a_stream_holds_back_what_may_become_a_stop_text(void **state)
{
    struct talk t;

    (void)state;
    w[1].slow = true;
    ask(&t, ONE ",\"stop\":\"swerve\",\"stream\":true}");
    WAIT(w[0].prefills == 1);
    fake_push(&w[1], w[0].last.request, 6, 0);
    talk_until(&t, "\"text\":\"The an\"");
    fake_push(&w[1], w[0].last.request, 3, 0); /* "swe" */
    fake_push(&w[1], w[0].last.request, 1, 0); /* "r" */
    fake_push(&w[1], w[0].last.request, 1, 0); /* " " */
    talk_until(&t, "\"text\":\"swer \"");
    assert_int_equal(count_in(&t, "\"text\":"), 2);
    fake_push(&w[1], w[0].last.request, 2, 2);
    talk_until(
        &t, "\"text\":\"is\",\"logprobs\":null,\"finish_reason\":\"length\",\"stop_reason\":null");
    talk_until(&t, "\r\n0\r\n\r\n");
    assert_int_equal(w[1].cancels, 0);
    talk_close(&t);
    assert_idle();
}

static void test_a_stop_text_in_the_last_sample_wins_over_the_length(void **state)
{
    struct talk t;

    (void)state;
    ask(&t, "{\"prompt\":\"x\",\"max_tokens\":5,\"stop\":\" a\",\"stream\":true}");
    talk_until(&t, "\"finish_reason\":\"stop\",\"stop_reason\":\" a\"");
    talk_until(&t, "\r\n0\r\n\r\n");
    assert_true(has(&t, "\"text\":\"The\""));
    assert_int_equal(w[1].cancels, 0); /* it had ended */
    assert_int_equal(figure("mooncake_gateway_late_messages_total "), 0);
    talk_close(&t);
    assert_idle();
}

static void test_one_choice_stops_and_the_others_go_on(void **state)
{
    struct talk t;

    (void)state;
    w[1].slow = true;
    ask(&t, THREE ",\"stop\":\"he\",\"include_stop_str_in_output\":true,\"min_tokens\":3}");
    WAIT(w[0].prefills == 3);
    fake_push(&w[1], w[0].work[1].request, 4, 0);
    WAIT(w[1].cancels == 1);
    for (int i = 0; i < 3; i += 2)
        fake_push(&w[1], w[0].work[i].request, 2, 2); /* shorter than the stop text's end */
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 200);
    assert_true(
        has(&t, "{\"index\":1,\"text\":\"The\",\"logprobs\":null,\"finish_reason\":\"stop\""));
    assert_int_equal(count_in(&t, "\"text\":\"Th\""), 2);
    talk_close(&t);
    assert_idle();
}

static void test_workers_are_given_stop_tokens_and_the_salt(void **state)
{
    char body[300];
    struct talk t;

    (void)state;
    w[1].slow = true;
    const uint32_t e = fake_token(&w[0], 'e');
    snprintf(body, sizeof(body),
             ONE ",\"stop_token_ids\":[%u],\"cache_salt\":\"mine\",\"min_tokens\":2}", e);
    ask(&t, body);
    WAIT(w[0].prefills == 1);
    assert_int_equal(w[0].last.sampling.stop_tokens.count, 1);
    assert_int_equal(w[0].last.sampling.tokens_min, 2);
    assert_int_equal(w[0].last.salt.size, 4);
    fake_push(&w[1], w[0].last.request, 3, 1);
    talk_answer(&t);
    snprintf(body, sizeof(body), "\"finish_reason\":\"stop\",\"stop_reason\":%u}", e);
    assert_true(has(&t, body) && has(&t, "\"text\":\"Th\""));
    assert_int_equal(w[1].cancels, 0);
    talk_close(&t);
    assert_idle();
}

static void test_stop_tokens_hold_where_ends_of_text_are_ignored(void **state)
{
    char body[300];
    struct talk t;

    (void)state;
    w[1].slow = true;
    snprintf(body, sizeof(body), ONE ",\"stop_token_ids\":[%u],\"ignore_eos\":true}",
             fake_token(&w[0], 'e'));
    ask(&t, body);
    WAIT(w[0].prefills == 1);
    assert_int_equal(w[0].last.sampling.stop_tokens.count, 0);
    fake_push(&w[1], w[0].last.request, 10, 0);
    talk_answer(&t);
    assert_true(has(&t, "\"text\":\"Th\"") && has(&t, "\"completion_tokens\":3"));
    WAIT(w[1].cancels == 1);
    talk_close(&t);
    assert_idle();
}

/* Both are as much as the context has room for: no worker is asked for more at least than at most. */
static void test_min_tokens_is_cut_as_max_tokens_is(void **state)
{
    struct talk t;

    (void)state;
    ask(&t, "{\"prompt\":[1,2,3,4],\"max_tokens\":1000,\"min_tokens\":900}");
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 200);
    assert_int_equal(w[0].last.sampling.tokens_max, 60);
    assert_int_equal(w[0].last.sampling.tokens_min, 60);
    talk_close(&t);
    assert_idle();
}

/* --------------------------------------------------------------------------------------- memory */

/* Whichever allocation of a request fails, it is answered or cut off; teardown counts what stays. */
static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    static const char *const bodies[] = {
        "{\"prompt\":[\"a\",\"b\"],\"max_tokens\":3,\"stop\":[\"h\",\"The\"],\"cache_salt\":\"s\"}",
        "{\"prompt\":[[1],[2]],\"max_tokens\":3,\"stop\":\"hex\",\"stop_token_ids\":[1],\"stream\":"
        "true}",
    };

    (void)state;
    for (long k = 0;; k++) {
        struct talk t;
        const long from = f.calls;
        talk_open(&t, loop, gateway_address(g));
        f.fail_at = from + k / 2;
        talk_post(&t, COMPLETION, "", bodies[k % 2]);
        const uint64_t until_ns = os_now_ns() + UINT64_C(60000000000);
        while (!t.closed && !has(&t, "\r\n0\r\n\r\n") && !has(&t, "}\n")) {
            assert_true(os_now_ns() < until_ns);
            talk_turn(loop);
            talk_read(&t);
        }
        const bool failed = f.calls > from + k / 2;
        f.fail_at = -1;
        assert_true(failed || talk_status(&t) == 200);
        talk_close(&t);
        assert_idle();
        WAIT(w[0].instance && w[1].instance); /* one that was hung up comes back */
        if (!failed && k > 80)
            return;
        w[0].work_count = w[1].work_count = 0;
    }
}

static void test_text_endpoints_see_every_failed_allocation(void **state)
{
    (void)state;
    for (long k = 0;; k++) {
        struct talk t;
        const long from = f.calls;
        talk_open(&t, loop, gateway_address(g));
        f.fail_at = from + k / 2;
        if (k % 2)
            talk_post(&t, "/detokenize", "", "{\"tokens\":[1,2,3]}");
        else
            talk_post(&t, "/tokenize", "", "{\"prompt\":\"abc\",\"return_token_strs\":true}");
        const uint64_t until_ns = os_now_ns() + UINT64_C(60000000000);
        while (!t.closed && !has(&t, "}\n")) {
            assert_true(os_now_ns() < until_ns);
            talk_turn(loop);
            talk_read(&t);
        }
        const bool failed = f.calls > from + k / 2;
        f.fail_at = -1;
        assert_true(failed || talk_status(&t) == 200);
        talk_close(&t);
        if (!failed && k > 16)
            return;
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define BARE(name) cmocka_unit_test_setup_teardown(name, NULL, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_each_prompt_is_a_choice_of_one_answer),
        TEST(test_choices_of_a_stream_come_as_they_are_made),
        TEST(test_usage_comes_with_every_chunk_if_asked_for),
        TEST(test_one_hang_up_cancels_all),
        TEST(test_one_that_fails_fails_the_whole_answer_and_cancels_the_others),
        TEST(test_one_that_fails_in_a_stream_ends_it_with_an_error),
        TEST(test_a_lost_worker_ends_a_stream_once),
        TEST(test_what_is_placed_again_after_the_answer_failed_is_given_up_all_the_same),
        BARE(test_each_prompt_counts_as_a_request),
        TEST(test_a_prompt_that_is_too_long_is_named),
        TEST(test_texts_that_cannot_fit_are_not_cut_into_tokens),
        TEST(test_a_stop_text_ends_the_answer_and_the_worker_s_work),
        TEST(test_a_stream_holds_back_what_may_become_a_stop_text),
        TEST(test_a_stop_text_in_the_last_sample_wins_over_the_length),
        TEST(test_one_choice_stops_and_the_others_go_on),
        TEST(test_workers_are_given_stop_tokens_and_the_salt),
        TEST(test_stop_tokens_hold_where_ends_of_text_are_ignored),
        TEST(test_min_tokens_is_cut_as_max_tokens_is),
        TEST(test_every_failed_allocation_leaves_nothing_behind),
        TEST(test_text_endpoints_see_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
