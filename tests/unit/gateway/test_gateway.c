/*
 * test_gateway.c - the whole gateway in one loop with HTTP clients and fake workers: place, stream, retry,
 * hang up, drain, refuse. Every test ends with nothing held at any worker.
 */
#include "house.h"

static int setup(void **state)
{
    setup_bare(state);
    const struct gateway_options o = options();
    open_gateway(&o);
    return 0;
}

#define CHAT "/v1/chat/completions"
#define ASK "{\"model\":\"served\",\"prompt\":\"twenty bytes of text\",\"max_tokens\":5"
#define TALK \
    "{\"model\":\"served\",\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}],\"max_" \
    "tokens\":5"

/* ------------------------------------------------------------------------------------ endpoints */

static void get(struct talk *t, const char *method, const char *path)
{
    char text[200];

    talk_again(t);
    snprintf(text, sizeof(text), "%s %s HTTP/1.1\r\nHost: x\r\n\r\n", method, path);
    talk_say(t, text);
    talk_answer(t);
}

static void test_small_endpoints_answer_and_strangers_are_told(void **state)
{
    struct talk t;

    (void)state;
    talk_open(&t, loop, gateway_address(g));
    get(&t, "GET", "/v1/models");
    assert_int_equal(talk_status(&t), 200);
    assert_true(has(&t, "\"id\":\"served\"") && has(&t, "\"max_model_len\":64"));
    get(&t, "GET", "/v1/models/served");
    assert_true(talk_status(&t) == 200 &&
                has(&t, "\r\n\r\n{\"id\":\"served\",\"object\":\"model\""));
    get(&t, "GET", "/v1/models/other");
    assert_true(talk_status(&t) == 404 && has(&t, "\"code\":\"model_not_found\""));
    get(&t, "GET", "/version");
    assert_true(talk_status(&t) == 200 && has(&t, "{\"version\":\"") && has(&t, mc_version()));
    get(&t, "GET", "/health"); /* it serves, though nobody could be answered */
    assert_true(talk_status(&t) == 200 && has(&t, "{\"status\":\"ok\",\"workers\":0}"));
    get(&t, "GET", "/health/ready");
    assert_true(talk_status(&t) == 503 && has(&t, "\"no workers\"") &&
                has(&t, "Retry-After: 1\r\n"));
    get(&t, "GET", "/nothing");
    assert_int_equal(talk_status(&t), 404);
    assert_true(has(&t, "\"code\":\"not_found\"") && has(&t, "GET /v1/models/{id}"));
    get(&t, "GET", COMPLETION);
    assert_int_equal(talk_status(&t), 405);
    assert_true(has(&t, "Allow: POST, OPTIONS\r\n") && has(&t, "\"code\":\"method_not_allowed\""));
    get(&t, "GET", "/metrics");
    assert_true(has(&t, "mooncake_gateway_http_answers_total{class=\"4xx\"} 3\n"));
    start_worker(0, "W", MC_ROLE_PREFILL);
    get(&t, "GET", "/health/ready");
    assert_true(talk_status(&t) == 503 && has(&t, "none decodes"));
    start_worker(1, "V", MC_ROLE_DECODE);
    get(&t, "GET", "/health/ready");
    assert_int_equal(talk_status(&t), 200);
    gateway_drain(g, NULL, NULL);
    talk_until(&t, NULL); /* who has nothing under way is let go */
    talk_close(&t);
}

static void test_who_sends_more_than_all_bodies_may_have_is_told_to_come_again(void **state)
{
    static const char head[] =
        "POST " COMPLETION " HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n";
    struct talk t, u;

    setup_bare(state);
    struct gateway_options o = options();
    o.body_max = 1000;
    o.bodies_max = 1000;
    open_gateway(&o);
    talk_open(&t, loop, gateway_address(g));
    talk_open(&u, loop, gateway_address(g));
    talk_say(&t, head);
    talk_say(&t, "{ \"and so on, two hundred bytes in all: "
                 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
                 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
                 "xxxxxxxxxxxxxx");
    for (int i = 0; i < 5; i++)
        talk_turn(loop);
    talk_say(&u, head);
    talk_until(&u, NULL);
    assert_int_equal(talk_status(&u), 503);
    assert_true(has(&u, "Retry-After: 1\r\n") && has(&u, "\"code\":\"overloaded\"") &&
                has(&u, "\"type\":\"service_unavailable_error\""));
    assert_int_equal(figure("mooncake_gateway_http_requests_without_room_total "), 1);
    talk_close(&t);
    talk_close(&u);
    WAIT(figure("mooncake_gateway_http_connections ") == 0);
}

static void test_methods_that_ask_about_a_path_are_answered(void **state)
{
    struct talk t;

    (void)state;
    talk_open(&t, loop, gateway_address(g));
    get(&t, "OPTIONS", COMPLETION);
    assert_true(talk_status(&t) == 200 && has(&t, "Allow: POST, OPTIONS\r\n"));
    get(&t, "OPTIONS", "/v1/models/served");
    assert_true(talk_status(&t) == 200 && has(&t, "Allow: GET, HEAD, OPTIONS\r\n"));
    get(&t, "OPTIONS", "/nothing");
    assert_int_equal(talk_status(&t), 404);
    get(&t, "DELETE", "/v1/models/served");
    assert_int_equal(talk_status(&t), 405);
    talk_again(&t);
    talk_say(&t, "HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n");
    talk_until(&t, "\r\n\r\n");
    assert_true(talk_status(&t) == 200 && has(&t, "Content-Length: "));
    for (int i = 0; i < 20; i++)
        talk_turn(loop);
    talk_read(&t);
    assert_string_equal(strstr(t.in.data, "\r\n\r\n"), "\r\n\r\n"); /* and no body */
    talk_close(&t);
}

static void test_text_becomes_tokens_and_comes_back(void **state)
{
    char body[200];
    struct talk t;

    (void)state;
    talk_open(&t, loop, gateway_address(g));
    talk_post(&t, "/tokenize", "",
              "{\"prompt\":\"ab\",\"add_special_tokens\":false,\"return_token_strs\":true}");
    talk_answer(&t);
    assert_true(talk_status(&t) == 200 &&
                has(&t, "{\"count\":2,\"max_model_len\":64,\"tokens\":["));
    assert_true(has(&t, "],\"token_strs\":[\"a\",\"b\"]}"));
    const char *tokens = strstr(t.in.data, "\"tokens\":[") + 9;
    snprintf(body, sizeof(body), "{\"tokens\":%.*s]}", (int)(strchr(tokens, ']') - tokens), tokens);
    talk_again(&t);
    talk_post(&t, "/detokenize", "", body);
    talk_answer(&t);
    assert_true(talk_status(&t) == 200 && has(&t, "\r\n\r\n{\"prompt\":\"ab\"}\n"));
    talk_again(&t);
    talk_post(&t, "/detokenize", "", "{\"tokens\":[99999]}");
    talk_answer(&t);
    assert_true(talk_status(&t) == 400 && has(&t, "\"param\":\"tokens\""));
    talk_close(&t);
}

static void test_text_is_cut_into_tokens_up_to_a_limit_at_a_time(void **state)
{
    enum { MOST = 65536 };
    struct buf body = BUF_INIT(os_alloc());
    struct talk t;

    (void)state;
    talk_open(&t, loop, gateway_address(g));
    for (int more = 0; more < 2; more++) {
        buf_truncate(&body, 0);
        buf_add_text(&body, "{\"prompt\":\"");
        for (int i = 0; i < MOST / 2 + more; i++)
            buf_add_text(&body, "a\\t"); /* escapes do not count: two bytes of text */
        buf_add_text(&body, "\"}");
        talk_again(&t);
        talk_post(&t, "/tokenize", "", body.data);
        talk_answer(&t);
        assert_int_equal(talk_status(&t), more ? 400 : 200);
    }
    assert_true(has(&t, "\"param\":\"prompt\",\"code\":\"out_of_range\"") &&
                has(&t, "prompt: 65538 bytes of text; at most 65536"));
    buf_truncate(&body, 0);
    buf_add_text(&body, "{\"messages\":[{\"role\":\"user\",\"content\":\"");
    for (int i = 0; i < MOST + 1; i++)
        buf_add_byte(&body, 'x');
    buf_add_text(&body, "\"}]}");
    talk_again(&t);
    talk_post(&t, "/tokenize", "", body.data);
    talk_answer(&t);
    assert_true(talk_status(&t) == 400 && has(&t, "\"param\":\"messages\""));
    talk_close(&t);
    buf_fini(&body);
}

static void test_without_workers_a_request_is_told_when_to_come_again(void **state)
{
    struct talk t;

    (void)state;
    talk_open(&t, loop, gateway_address(g));
    talk_post(&t, COMPLETION, "", ASK "}");
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 503);
    assert_true(has(&t, "Retry-After: 1\r\n") && has(&t, "\"code\":\"no_workers\""));
    talk_close(&t);
}

static void test_a_request_that_is_wrong_is_refused_with_its_field(void **state)
{
    struct talk t;

    (void)state;
    start_worker(0, "W", MC_ROLE_BOTH);
    talk_open(&t, loop, gateway_address(g));
    talk_post(&t, COMPLETION, "", ASK ",\"n\":3}");
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 400);
    assert_true(has(&t, "\"param\":\"n\"") && has(&t, "\"type\":\"invalid_request_error\""));
    talk_again(&t);
    talk_post(&t, COMPLETION, "",
              "{\"model\":\"served\",\"prompt\":\"a text that is longer than the sixty-four tokens "
              "which this model's context holds\"}");
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 400);
    assert_true(has(&t, "\"code\":\"context_length_exceeded\""));
    talk_again(&t);
    talk_post(&t, COMPLETION, "X-Mooncake-Bar: nobody\r\n", ASK "}");
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 400);
    assert_int_equal(w[0].prefills, 0);
    talk_close(&t);
    assert_idle();
}

/* -------------------------------------------------------------------------------------- answers */

static void test_one_worker_of_both_roles_answers_whole(void **state)
{
    struct talk t;

    (void)state;
    start_worker(0, "W", MC_ROLE_BOTH);
    talk_open(&t, loop, gateway_address(g));
    talk_post(&t, COMPLETION, "X-Request-Id: mine-1\r\n",
              ASK ",\"logprobs\":0,\"return_token_ids\":true,\"seed\":5,\"temperature\":0}");
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 200);
    assert_true(has(&t, "X-Mooncake-Prefill: W\r\n") && has(&t, "X-Mooncake-Decode: W\r\n"));
    assert_true(has(&t, "X-Mooncake-Pulled-Bytes: 4096\r\n"));
    assert_true(has(&t, "X-Mooncake-Reused-Tokens: 16\r\n"));
    assert_true(has(&t, "X-Request-Id: mine-1\r\n"));
    assert_true(has(&t, "\"text\":\"The a\"") && has(&t, "\"finish_reason\":\"length\""));
    assert_true(has(&t, "\"token_logprobs\":[-0.100000001,-0.200000003,"));
    assert_true(has(&t, "\"completion_tokens\":5") && has(&t, "\"cached_tokens\":16"));
    assert_int_equal(w[0].last.reservation, 0);
    assert_int_equal(w[0].last.sampling.seed, 5);
    assert_true(w[0].last.sampling.report);
    assert_int_equal(w[0].last.sampling.tokens_max, 5);
    assert_true(w[0].last.sampling.temperature == 0);
    assert_int_equal(w[0].cancels, 0);
    talk_close(&t);
    assert_idle();
    assert_non_null(strstr(log_text, "event=request_end request=mine-1"));
}

static void test_prefill_and_decode_apart_stream_a_chat(void **state)
{
    struct buf body = BUF_INIT(os_alloc());
    struct talk t;

    (void)state;
    start_pair();
    w[1].slow = true;
    talk_open(&t, loop, gateway_address(g));
    talk_post(&t, CHAT, "", TALK ",\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
    WAIT(w[0].prefills == 1);
    talk_read(&t);
    assert_int_equal(t.in.size, 0); /* headers go out with the first token */
    fake_push(&w[1], w[0].last.request, 2, 0);
    talk_until(&t, "\"content\":\"Th\"");
    assert_true(has(&t, "X-Mooncake-Prefill: P\r\n") && has(&t, "X-Mooncake-Decode: D\r\n"));
    assert_true(has(&t, "Content-Type: text/event-stream"));
    fake_push(&w[1], w[0].last.request, 2, 0);
    talk_until(&t, "\"content\":\"e \"");
    fake_push(&w[1], w[0].last.request, 1, 2);
    talk_until(&t, "\r\n0\r\n\r\n");
    talk_chunked(&t, &body);
    const char *role = strstr(body.data, "\"delta\":{\"role\":\"assistant\"");
    const char *text = strstr(body.data, "\"content\":\"Th\"");
    const char *finish = strstr(body.data, "\"content\":\"a\"},\"logprobs\":null,\"finish_reason\":"
                                           "\"length\"");
    const char *usage = strstr(body.data, "\"choices\":[],\"usage\":{");
    assert_true(role && text && finish && usage && role < text && text < finish && finish < usage);
    assert_string_equal(body.data + body.size - 14, "data: [DONE]\n\n");
    assert_int_equal(w[1].reserves, 1);
    assert_true(w[0].last.reservation != 0);
    assert_string_equal(w[0].decode_address, "D");
    assert_int_equal(w[0].cancels + w[1].cancels, 0);
    buf_fini(&body);
    talk_close(&t);
    assert_idle();
}

static void test_a_connection_serves_one_request_after_another(void **state)
{
    struct talk t;

    (void)state;
    start_pair();
    talk_open(&t, loop, gateway_address(g));
    for (int i = 0; i < 20; i++) {
        talk_again(&t);
        talk_post(&t, COMPLETION, "", ASK "}");
        talk_answer(&t);
        assert_int_equal(talk_status(&t), 200);
    }
    assert_int_equal(w[0].prefills, 20);
    assert_int_equal(figure("mooncake_gateway_requests_ended_total{how=\"length\"} "), 20);
    assert_int_equal(figure("mooncake_gateway_output_tokens_total "), 100);
    talk_close(&t);
    assert_idle();
}

static void test_a_barred_worker_does_not_prefill(void **state)
{
    struct talk t;

    (void)state;
    start_worker(0, "A", MC_ROLE_BOTH);
    start_worker(1, "B", MC_ROLE_BOTH);
    w[0].peer = &w[1];
    w[1].peer = &w[0];
    talk_open(&t, loop, gateway_address(g));
    for (int i = 0; i < 4; i++) {
        talk_again(&t);
        talk_post(&t, COMPLETION, i % 2 ? "X-Mooncake-Bar: A\r\n" : "X-Mooncake-Bar: B\r\n",
                  ASK "}");
        talk_answer(&t);
        assert_int_equal(talk_status(&t), 200);
        assert_true(has(&t, i % 2 ? "X-Mooncake-Prefill: B\r\n" : "X-Mooncake-Prefill: A\r\n"));
    }
    assert_int_equal(w[0].prefills, 2);
    assert_int_equal(w[1].prefills, 2);
    talk_close(&t);
    assert_idle();
}

/* ------------------------------------------------------------------------------------- failures */

static void test_a_worker_lost_before_the_first_byte_costs_time_only(void **state)
{
    struct talk t;

    (void)state;
    start_worker(0, "A", MC_ROLE_BOTH);
    w[0].held = true;
    talk_open(&t, loop, gateway_address(g));
    talk_post(&t, COMPLETION, "", ASK "}");
    WAIT(w[0].prefills == 1);
    start_worker(1, "B", MC_ROLE_BOTH);
    fake_close(&w[0]);
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 200);
    assert_true(has(&t, "X-Mooncake-Prefill: B\r\n") && has(&t, "\"text\":\"The a\""));
    assert_int_equal(figure("mooncake_gateway_retries_total "), 1);
    assert_int_equal(figure("mooncake_gateway_workers_lost_total "), 1);
    talk_close(&t);
    assert_idle();
}

static void test_a_decode_worker_lost_in_prefill_frees_the_prefill_worker(void **state)
{
    struct talk t;

    (void)state;
    start_pair();
    w[0].held = true;
    talk_open(&t, loop, gateway_address(g));
    talk_post(&t, COMPLETION, "", ASK "}");
    WAIT(w[0].prefills == 1);
    const uint64_t first = w[0].last.request;
    w[0].held = false;
    start_worker(2, "E", MC_ROLE_DECODE);
    fake_close(&w[1]);
    w[0].peer = &w[2];
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 200);
    assert_true(has(&t, "X-Mooncake-Decode: E\r\n"));
    assert_int_equal(w[0].prefills, 2);
    WAIT(w[0].cancels == 1);
    assert_true(fake_find(&w[0], first)->cancelled);
    talk_close(&t);
    assert_idle();
}

static void test_a_worker_lost_in_mid_stream_ends_it_with_an_error(void **state)
{
    struct talk t;

    (void)state;
    start_pair();
    w[1].slow = true;
    talk_open(&t, loop, gateway_address(g));
    talk_post(&t, COMPLETION, "", ASK ",\"stream\":true}");
    WAIT(w[0].prefills == 1);
    fake_push(&w[1], w[0].last.request, 2, 0);
    talk_until(&t, "\"text\":\"Th\"");
    fake_close(&w[1]);
    talk_until(&t, "\r\n0\r\n\r\n");
    assert_true(has(&t, "data: {\"error\":{") && has(&t, "worker_lost"));
    assert_false(has(&t, "[DONE]"));
    talk_close(&t);
    assert_idle();
    assert_int_equal(figure("mooncake_gateway_requests_ended_total{how=\"failed\"} "), 1);
}

static void test_tokens_of_a_lost_worker_are_not_in_a_whole_answer(void **state)
{
    struct talk t;

    (void)state;
    start_worker(0, "P", MC_ROLE_PREFILL);
    start_worker(1, "D", MC_ROLE_DECODE);
    w[0].peer = &w[1];
    w[1].slow = true;
    talk_open(&t, loop, gateway_address(g));
    talk_post(&t, COMPLETION, "", ASK ",\"return_token_ids\":true}");
    WAIT(w[0].prefills == 1);
    fake_push(&w[1], w[0].last.request, 3, 0);
    for (int i = 0; i < 5; i++)
        talk_turn(loop);
    start_worker(2, "E", MC_ROLE_DECODE);
    w[0].peer = &w[2];
    fake_close(&w[1]);
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 200);
    assert_true(has(&t, "\"text\":\"The a\"") && has(&t, "\"completion_tokens\":5"));
    assert_true(has(&t, "X-Mooncake-Decode: E\r\n"));
    talk_close(&t);
    assert_idle();
}

static void test_a_request_that_takes_too_long_is_ended_at_its_deadline(void **state)
{
    struct gateway_options o;
    struct talk t;

    setup_bare(state);
    o = options();
    o.request_ns = 20000000;
    open_gateway(&o);
    start_pair();
    w[0].deaf_prefill = true;
    talk_open(&t, loop, gateway_address(g));
    talk_post(&t, COMPLETION, "", ASK "}");
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 504);
    assert_true(has(&t, "\"code\":\"deadline\""));
    WAIT(w[0].cancels == 1 && w[1].cancels == 1);
    talk_close(&t);
    assert_idle();
}

static void test_what_a_worker_says_of_strangers_changes_nothing(void **state)
{
    const struct wire_tokens stray = { .request = 99, .index = 7, .finish = 2 };
    const struct wire_load_report other = { .instance = 4711, .lease_ns = 1 };

    (void)state;
    start_worker(0, "W", MC_ROLE_BOTH);
    assert_int_equal(net_send(w[0].conn, WIRE_TOKENS, &stray), MC_OK);
    assert_int_equal(net_send(w[0].conn, WIRE_LOAD_REPORT, &other), MC_OK); /* another's: no word */
    WAIT(figure("mooncake_gateway_late_messages_total ") == 1);
    assert_int_equal(figure("mooncake_gateway_workers "), 1);
}

static void test_a_silent_worker_is_lost_when_its_lease_ends(void **state)
{
    struct talk t;

    (void)state;
    start_worker(0, "A", MC_ROLE_BOTH);
    w[0].deaf_prefill = true;
    talk_open(&t, loop, gateway_address(g));
    talk_post(&t, COMPLETION, "", ASK "}");
    WAIT(w[0].prefills == 1);
    start_worker(1, "B", MC_ROLE_BOTH);
    w[0].deaf_prefill = false;
    fake_report(&w[0], 1000000, false); /* and nothing for a millisecond */
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 200);
    assert_non_null(strstr(log_text, "no load report within its lease"));
    WAIT(w[0].registered == 2); /* it dials and registers again, as another instance */
    talk_close(&t);
    assert_idle();
}

static void test_a_report_that_waited_while_the_gateway_was_busy_counts(void **state)
{
    (void)state;
    start_worker(0, "A", MC_ROLE_BOTH);
    fake_report(&w[0], 5000000, false);
    for (int i = 0; i < 3; i++)
        assert_int_equal(os_loop_turn(loop, 1), MC_OK);
    fake_report(&w[0], UINT64_C(60000000000), false);
    for (const uint64_t until_ns = os_now_ns() + 6000000; os_now_ns() < until_ns;)
        ; /* busy: the lease ends meanwhile */
    for (const uint64_t until_ns = os_now_ns() + 30000000; os_now_ns() < until_ns;)
        talk_turn(loop);
    assert_int_equal(figure("mooncake_gateway_workers "), 1);
    assert_int_equal(figure("mooncake_gateway_workers_lost_total "), 0);
}

static void busy_for(uint64_t ns)
{
    for (const uint64_t until_ns = os_now_ns() + ns; os_now_ns() < until_ns;)
        ;
}

static void test_a_machine_that_stood_still_costs_no_worker(void **state)
{
    (void)state;
    start_worker(0, "A", MC_ROLE_BOTH);
    fake_report(&w[0], 100000000, false);
    for (int i = 0; i < 3; i++)
        assert_int_equal(os_loop_turn(loop, 1), MC_OK);
    busy_for(101000000); /* the worker with all others: it has said nothing */
    assert_int_equal(os_loop_turn(loop, 0), MC_OK);
    assert_int_equal(figure("mooncake_gateway_workers "), 1);
    fake_report(&w[0], UINT64_C(60000000000), false);
    for (const uint64_t until_ns = os_now_ns() + 60000000; os_now_ns() < until_ns;)
        talk_turn(loop);
    assert_int_equal(figure("mooncake_gateway_workers "), 1);
    assert_int_equal(figure("mooncake_gateway_workers_lost_total "), 0);
}

static void test_who_is_heard_of_after_a_standstill_speaks_for_the_others(void **state)
{
    const uint64_t lease_ns = 400000000;

    (void)state;
    for (int i = 0; i < 2; i++) {
        start_worker(i, i ? "B" : "A", MC_ROLE_BOTH);
        fake_report(&w[i], lease_ns, false);
    }
    for (int i = 0; i < 3; i++)
        assert_int_equal(os_loop_turn(loop, 1), MC_OK);
    busy_for(lease_ns + 1000000);
    assert_int_equal(os_loop_turn(loop, 0), MC_OK); /* the last chance of both */
    fake_report(&w[0], UINT64_C(60000000000), false);
    /* B wakes up later than its last chance is long. */
    for (const uint64_t until_ns = os_now_ns() + lease_ns / 2; os_now_ns() < until_ns;)
        talk_turn(loop);
    assert_int_equal(figure("mooncake_gateway_workers "), 2);
    assert_int_equal(figure("mooncake_gateway_workers_lost_total "), 0);
    WAIT(figure("mooncake_gateway_workers_lost_total ") == 1); /* and if it does not, it is lost */
}

static void test_a_decode_worker_without_room_is_asked_again(void **state)
{
    struct talk t;

    (void)state;
    start_pair();
    w[1].full = true;
    talk_open(&t, loop, gateway_address(g));
    talk_post(&t, COMPLETION, "", ASK "}");
    WAIT(w[1].reserves >= 2);
    w[1].full = false;
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 200);
    talk_close(&t);
    assert_idle();
}

/* ------------------------------------------------------------------------------------- hang-ups */

static void test_a_hang_up_while_reserving_cancels_the_reservation(void **state)
{
    struct talk t;

    (void)state;
    start_pair();
    w[1].deaf_reserve = true;
    talk_open(&t, loop, gateway_address(g));
    talk_post(&t, COMPLETION, "", ASK "}");
    WAIT(w[1].reserves == 1);
    talk_close(&t);
    WAIT(w[1].cancels == 1);
    assert_idle();
    assert_int_equal(w[0].cancels, 0);
    assert_int_equal(figure("mooncake_gateway_requests_ended_total{how=\"client_left\"} "), 1);
}

static void test_a_hang_up_in_prefill_cancels_at_both_sides(void **state)
{
    struct talk t;

    (void)state;
    start_pair();
    w[0].held = true;
    talk_open(&t, loop, gateway_address(g));
    talk_post(&t, CHAT, "", TALK ",\"stream\":true}");
    WAIT(w[0].prefills == 1);
    talk_close(&t);
    WAIT(w[0].cancels == 1 && w[1].cancels == 1);
    assert_idle();
}

static void test_a_hang_up_in_a_stream_cancels_the_decode(void **state)
{
    struct talk t;

    (void)state;
    start_pair();
    w[1].slow = true;
    talk_open(&t, loop, gateway_address(g));
    talk_post(&t, COMPLETION, "", ASK ",\"stream\":true}");
    WAIT(w[0].prefills == 1);
    fake_push(&w[1], w[0].last.request, 2, 0);
    talk_until(&t, "\"text\":\"Th\"");
    talk_close(&t);
    WAIT(w[1].cancels == 1);
    assert_idle();
    fake_push(&w[1], w[0].last.request, 2, 0); /* what was on its way is nobody's */
    WAIT(figure("mooncake_gateway_late_messages_total ") == 1);
}

static void test_a_client_that_does_not_read_is_ended_and_its_worker_freed(void **state)
{
    struct gateway_options o;
    struct talk t;
    uint32_t sent = 0;

    setup_bare(state);
    o = options();
    o.stream_max = 20000;
    open_gateway(&o);
    start_worker(0, "W", MC_ROLE_BOTH);
    w[0].slow = true;
    talk_open(&t, loop, gateway_address(g));
    talk_post(&t, COMPLETION, "", ASK ",\"stream\":true,\"logprobs\":20}");
    WAIT(w[0].prefills == 1);
    while (w[0].cancels == 0) { /* the kernel takes some megabytes */
        fake_push(&w[0], w[0].last.request, 100, 0);
        sent += 100;
        assert_true(sent < 1000000);
        talk_turn(loop);
    }
    assert_idle();
    assert_int_equal(figure("mooncake_gateway_slow_clients_total "), 1);
    talk_close(&t);
}

/* -------------------------------------------------------------------------------------- workers */

static void test_a_worker_that_does_not_fit_is_refused_with_the_reason(void **state)
{
    (void)state;
    w[2].model_name = "another";
    start_worker(2, "X", MC_ROLE_BOTH);
    assert_int_equal(w[2].refused, MC_E_ARG);
    assert_non_null(strstr(w[2].refused_text, "another"));
    start_worker(0, "W", MC_ROLE_BOTH);
    w[1].fingerprint.bytes[0] = 1;
    start_worker(1, "Y", MC_ROLE_BOTH);
    assert_int_equal(w[1].refused, MC_E_ARG);
    assert_non_null(strstr(w[1].refused_text, "fingerprint"));
    assert_int_equal(figure("mooncake_gateway_workers "), 1);
    assert_int_equal(figure("mooncake_gateway_workers_rejected_total "), 2);
    fake_close(&w[0]); /* who comes when nobody is left says what is right */
    fake_close(&w[1]);
    WAIT(figure("mooncake_gateway_workers ") == 0);
    w[1].refused = MC_OK;
    start_worker(1, "Y", MC_ROLE_BOTH);
    assert_int_equal(w[1].refused, MC_OK);
}

static void test_while_all_workers_are_lost_as_much_context_is_taken_as_they_did(void **state)
{
    struct talk t;

    (void)state;
    w[0].context = 32;
    start_worker(0, "A", MC_ROLE_BOTH);
    fake_close(&w[0]);
    WAIT(figure("mooncake_gateway_workers ") == 0);
    talk_open(&t, loop, gateway_address(g));
    get(&t, "GET", "/v1/models");
    assert_true(has(&t, "\"max_model_len\":32"));
    talk_close(&t);
}

static void test_a_draining_worker_gets_no_more_and_may_come_back(void **state)
{
    struct talk t;

    (void)state;
    start_worker(0, "A", MC_ROLE_BOTH);
    start_worker(1, "B", MC_ROLE_BOTH);
    fake_report(&w[0], UINT64_C(60000000000), true);
    WAIT(strstr(log_text, "event=worker_draining"));
    talk_open(&t, loop, gateway_address(g));
    for (int i = 0; i < 3; i++) {
        talk_again(&t);
        talk_post(&t, COMPLETION, "", ASK "}");
        talk_answer(&t);
        assert_true(has(&t, "X-Mooncake-Prefill: B\r\n"));
    }
    fake_report(&w[0], UINT64_C(60000000000), false);
    WAIT(strstr(log_text, "event=worker_back"));
    talk_again(&t);
    talk_post(&t, COMPLETION, "X-Mooncake-Bar: B\r\n", ASK "}");
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 200);
    assert_true(has(&t, "X-Mooncake-Prefill: A\r\n"));
    talk_close(&t);
}

static void test_too_many_requests_are_told_to_slow_down(void **state)
{
    struct gateway_options o;
    struct talk t, u;

    setup_bare(state);
    o = options();
    o.requests_max = 1;
    open_gateway(&o);
    start_worker(0, "W", MC_ROLE_BOTH);
    w[0].held = true;
    talk_open(&t, loop, gateway_address(g));
    talk_open(&u, loop, gateway_address(g));
    talk_post(&t, COMPLETION, "", ASK "}");
    WAIT(w[0].prefills == 1);
    talk_post(&u, COMPLETION, "", ASK "}");
    talk_answer(&u);
    assert_int_equal(talk_status(&u), 429);
    assert_true(has(&u, "\"code\":\"slow_down\"") && has(&u, "Retry-After: 1\r\n"));
    fake_finish_prefill(&w[0], w[0].last.request);
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 200);
    talk_close(&t);
    talk_close(&u);
}

/* ---------------------------------------------------------------------------------------- drain */

static void count_done(void *user)
{
    ++*(volatile int *)user;
}

static void test_a_drain_finishes_what_runs_and_takes_no_more(void **state)
{
    struct talk t, u;
    volatile int done = 0;

    (void)state;
    start_worker(0, "W", MC_ROLE_BOTH);
    w[0].held = true;
    talk_open(&t, loop, gateway_address(g));
    talk_open(&u, loop, gateway_address(g));
    get(&u, "GET", "/health"); /* a connection that would stay */
    talk_again(&u);
    talk_post(&t, COMPLETION, "", ASK "}");
    WAIT(w[0].prefills == 1);
    gateway_drain(g, count_done, (void *)(uintptr_t)&done);
    talk_until(&u, NULL); /* who has nothing under way is let go, who waits is not */
    assert_int_equal(done, 0);
    fake_finish_prefill(&w[0], w[0].last.request);
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 200);
    WAIT(done == 1);
    talk_close(&t);
    talk_close(&u);
}

static void test_an_idle_gateway_is_drained_at_once(void **state)
{
    volatile int done = 0;

    (void)state;
    gateway_drain(g, count_done, (void *)(uintptr_t)&done);
    assert_int_equal(done, 0); /* from the loop */
    WAIT(done == 1);
}

static void test_closing_cuts_off_and_frees(void **state)
{
    struct talk t;

    (void)state;
    start_pair();
    w[1].slow = true;
    talk_open(&t, loop, gateway_address(g));
    talk_post(&t, COMPLETION, "", ASK ",\"stream\":true}");
    WAIT(w[0].prefills == 1);
    fake_push(&w[1], w[0].last.request, 2, 0);
    talk_until(&t, "\"text\":\"Th\"");
    gateway_close(g);
    g = NULL;
    assert_int_equal(f.held, 0);
    WAIT(w[0].instance == 0 && w[1].instance == 0); /* they see it, and end what was ours */
    talk_close(&t);
}

/* ------------------------------------------------------------------------------------- openings */

static void test_what_cannot_work_is_refused_at_open(void **state)
{
    struct gateway_options o = options();
    struct mc_error error = { 0 };
    gateway *other = NULL;

    (void)state;
    o.model = NULL;
    assert_int_equal(gateway_open(&o, &other, &error), MC_E_ARG);
    o = options();
    o.model = "/nowhere/at/all";
    assert_int_equal(gateway_open(&o, &other, &error), MC_E_NOT_FOUND);
    o = options();
    o.policy = "no such policy";
    assert_int_equal(gateway_open(&o, &other, &error), MC_E_NOT_FOUND);
    o = options();
    o.listen = "0.0.0.0:0";
    assert_int_equal(gateway_open(&o, &other, &error), MC_E_DENIED);
    o = options();
    o.control_listen = "0.0.0.0:0";
    assert_int_equal(gateway_open(&o, &other, &error), MC_E_DENIED);
    o = options();
    o.listen = gateway_address(g);
    assert_int_equal(gateway_open(&o, &other, &error), MC_E_EXISTS);
    assert_null(other);
    gateway_close(NULL);
}

struct question {
    uint64_t requests;
    uint32_t count;
    bool answered;
};

static void take_counters(void *user, mc_status status, const struct wire_frame *frame)
{
    struct question *q = user;
    struct wire_counters counters;
    struct wire_counter counter;

    assert_int_equal(status, MC_OK);
    assert_int_equal(net_take(frame, WIRE_COUNTERS, &counters, NULL), MC_OK);
    while (wire_counter_next(&counters.items, &counter)) {
        q->count++;
        if (counter.name.size == 16 && memcmp(counter.name.data, "gateway_requests", 16) == 0)
            q->requests = counter.value;
    }
    q->answered = true;
}

static void ask_stats(void *user, net_conn *conn, const struct net_peer *peer)
{
    const struct wire_stats m = { .prefix = wire_text("gateway_requests") };

    (void)peer;
    assert_int_equal(net_ask(conn, WIRE_STATS, &m, 0, take_counters, user, NULL), MC_OK);
}

static void test_figures_are_told_to_who_asks(void **state)
{
    static const struct net_events events = { ask_stats, fake_message, fake_down };
    const struct net_options o = {
        .alloc = os_alloc(), .loop = loop, .role = NET_CLIENT, .name = "who"
    };
    struct question q = { 0 };
    struct talk t;
    net_conn *conn;
    net *asker;

    (void)state;
    start_worker(0, "W", MC_ROLE_BOTH);
    talk_open(&t, loop, gateway_address(g));
    talk_post(&t, COMPLETION, "", ASK "}");
    talk_answer(&t);
    talk_close(&t);
    assert_int_equal(net_open(&o, &asker, NULL), MC_OK);
    assert_int_equal(net_dial(asker, gateway_control_address(g), &events, &q, &conn, NULL), MC_OK);
    WAIT(q.answered);
    assert_int_equal(q.requests, 1);
    assert_int_equal(q.count, 7); /* requests, _active, and five of _ended */
    net_close(asker);
}

/* Whichever allocation of a request fails, it is answered or cut off; teardown counts what stays. */
static void test_every_failed_allocation_of_a_request_leaves_nothing_behind(void **state)
{
    (void)state;
    start_pair();
    for (long k = 0;; k++) {
        struct talk t;
        talk_open(&t, loop, gateway_address(g));
        get(&t, "GET", "/health");
        talk_again(&t);
        assert_idle();
        const long from = f.calls;
        f.fail_at = from + k;
        talk_post(&t, COMPLETION, "", k % 2 ? ASK ",\"stream\":true,\"logprobs\":1}" : ASK "}");
        const uint64_t until_ns = os_now_ns() + UINT64_C(60000000000);
        while (!t.closed && !has(&t, "\r\n0\r\n\r\n") && !has(&t, "}\n")) {
            assert_true(os_now_ns() < until_ns);
            talk_turn(loop);
            talk_read(&t);
        }
        const bool failed = f.calls > from + k;
        f.fail_at = -1;
        assert_true(failed || talk_status(&t) == 200);
        talk_close(&t);
        assert_idle();
        WAIT(w[0].instance && w[1].instance); /* one that was hung up comes back */
        if (!failed && k > 40)
            return;
        w[0].work_count = w[1].work_count = 0;
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define BARE(name) cmocka_unit_test_setup_teardown(name, NULL, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_small_endpoints_answer_and_strangers_are_told),
        TEST(test_methods_that_ask_about_a_path_are_answered),
        BARE(test_who_sends_more_than_all_bodies_may_have_is_told_to_come_again),
        TEST(test_text_becomes_tokens_and_comes_back),
        TEST(test_text_is_cut_into_tokens_up_to_a_limit_at_a_time),
        TEST(test_without_workers_a_request_is_told_when_to_come_again),
        TEST(test_a_request_that_is_wrong_is_refused_with_its_field),
        TEST(test_one_worker_of_both_roles_answers_whole),
        TEST(test_prefill_and_decode_apart_stream_a_chat),
        TEST(test_a_connection_serves_one_request_after_another),
        TEST(test_a_barred_worker_does_not_prefill),
        TEST(test_a_worker_lost_before_the_first_byte_costs_time_only),
        TEST(test_a_decode_worker_lost_in_prefill_frees_the_prefill_worker),
        TEST(test_a_worker_lost_in_mid_stream_ends_it_with_an_error),
        TEST(test_tokens_of_a_lost_worker_are_not_in_a_whole_answer),
        BARE(test_a_request_that_takes_too_long_is_ended_at_its_deadline),
        TEST(test_what_a_worker_says_of_strangers_changes_nothing),
        TEST(test_a_silent_worker_is_lost_when_its_lease_ends),
        TEST(test_a_report_that_waited_while_the_gateway_was_busy_counts),
        TEST(test_a_machine_that_stood_still_costs_no_worker),
        TEST(test_who_is_heard_of_after_a_standstill_speaks_for_the_others),
        TEST(test_a_decode_worker_without_room_is_asked_again),
        TEST(test_a_hang_up_while_reserving_cancels_the_reservation),
        TEST(test_a_hang_up_in_prefill_cancels_at_both_sides),
        TEST(test_a_hang_up_in_a_stream_cancels_the_decode),
        BARE(test_a_client_that_does_not_read_is_ended_and_its_worker_freed),
        TEST(test_a_worker_that_does_not_fit_is_refused_with_the_reason),
        TEST(test_while_all_workers_are_lost_as_much_context_is_taken_as_they_did),
        TEST(test_a_draining_worker_gets_no_more_and_may_come_back),
        BARE(test_too_many_requests_are_told_to_slow_down),
        TEST(test_a_drain_finishes_what_runs_and_takes_no_more),
        TEST(test_an_idle_gateway_is_drained_at_once),
        TEST(test_closing_cuts_off_and_frees),
        TEST(test_what_cannot_work_is_refused_at_open),
        TEST(test_figures_are_told_to_who_asks),
        TEST(test_every_failed_allocation_of_a_request_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
