/* test_bench_serve_load.c - every request of a load has an outcome, also without memory. */
#define _POSIX_C_SOURCE 200809L
#include "small_server.h"

#include "cmd/bench_serve_load.h"

enum { REQUESTS = 4, TRIES_MOST = 400 };

#define EVENT(text) "data: {\"choices\":[{\"index\":0,\"text\":\"" text "\"}]}\n\n"
#define USAGE "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":8,\"completion_tokens\":2}}\n\n"
static const char stream[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    "Connection: close\r\n\r\n" EVENT("a") EVENT("b") USAGE "data: [DONE]\n\n";
static const char refusal[] = "HTTP/1.1 429 Too Many Requests\r\nretry-after-ms: 1\r\n"
                              "X-Mooncake-Refused: ttft_slo\r\nContent-Length: 2\r\n\r\n{}";

/** A load and all that it borrows. */
struct bed {
    struct faulty f; /* of the load, its client and its loop's timers */
    struct server *server;
    struct bench_serve_request request;
    struct bench_source source;
    struct bench_body body;
    struct bench_load load;
};

static void begin(struct bed *bed, const char *answer)
{
    static char *const environment[] = { NULL };
    static char *argv[] = { "serve",           "-c", "2",       "-n", "4", "--input-tokens", "8",
                            "--output-tokens", "2",  "--retry", "1" };
    struct mc_error error = { 0 };

    *bed = (struct bed){ .body = { .model = "m", .token_low = 1, .token_high = 100 } };
    faulty_init(&bed->f, -1);
    bed->server = server_open(answer);
    bed->server->once = answer == stream; /* a stream without length ends with its connection */
    if (bench_serve_options_read(&bed->request, sizeof(argv) / sizeof(argv[0]), argv, environment,
                                 os_alloc(), &error) != MC_OK ||
        bench_source_open(&bed->source, &bed->request, 0, &error) != MC_OK)
        fail_msg("%s", error.text);
}

/* With the allocation number `k` failing, and all later ones if `after`. */
static mc_status run(struct bed *bed, long k, bool after)
{
    const struct http_client_options options = { .alloc = &bed->f.alloc,
                                                 .loop = bed->server->loop,
                                                 .url = bed->server->url };
    http_client *client;
    struct mc_error error = { 0 };

    assert_int_equal(http_client_open(&options, &client, &error), MC_OK);
    bed->load = (struct bench_load){ .request = &bed->request,
                                     .alloc = &bed->f.alloc,
                                     .loop = bed->server->loop,
                                     .client = client,
                                     .source = &bed->source,
                                     .body = &bed->body,
                                     .slots_max = 8 };
    bed->f.fail_at = k < 0 ? -1 : bed->f.calls + k;
    bed->f.fail_after = after;
    const mc_status status = bench_load_open(&bed->load, &error);
    if (status == MC_OK)
        bench_load_run(&bed->load);
    else
        assert_true(error.status == MC_E_NOMEM && error.text[0]);
    bed->f.fail_after = false;
    http_client_close(client);
    return status;
}

/* False: nothing failed for want of memory. */
static bool end(struct bed *bed, mc_status status)
{
    const bool reached = bed->f.fail_at >= 0 && bed->f.calls > bed->f.fail_at;

    if (status == MC_OK)
        bench_load_close(&bed->load);
    bench_source_close(&bed->source);
    bench_serve_options_fini(&bed->request);
    server_close(bed->server);
    assert_int_equal(bed->f.held, 0);
    return reached;
}

static uint64_t ended(const struct bench_tally *t)
{
    uint64_t sum = 0;

    for (int i = 0; i < BENCH_OUTCOMES; i++)
        sum += t->ended[i];
    return sum;
}

static void sweep(const char *answer, enum bench_outcome wanted, bool after)
{
    for (long k = 0; k < TRIES_MOST; k++) {
        struct bed bed;
        begin(&bed, answer);
        const mc_status status = run(&bed, k, after);
        const struct bench_tally *t = &bed.load.tally;
        bool all = false;
        if (status == MC_OK) {
            assert_int_equal(bed.load.in_use, 0);
            assert_int_equal(bed.load.waiting, 0);
            assert_true(bench_tally_closed(t));
            assert_int_equal(ended(t), t->sent);
            /* Those that were not sent are told of; those that were have their word. */
            assert_true(t->sent == REQUESTS || bed.load.error.status == MC_E_NOMEM);
            assert_true(bed.load.error.status == MC_OK || bed.load.error.text[0]);
            all = t->ended[wanted] == REQUESTS;
        } else
            assert_int_equal(status, MC_E_NOMEM);
        if (!end(&bed, status)) {
            assert_true(all && k > 5);
            return;
        }
    }
    fail_msg("it allocates without end");
}

static void test_a_load_comes_to_its_end(void **state)
{
    (void)state;
    struct bed bed;

    begin(&bed, stream);
    assert_int_equal(run(&bed, -1, false), MC_OK);
    assert_int_equal(bed.load.tally.ended[BENCH_ANSWERED], REQUESTS);
    assert_int_equal(bed.load.tally.output_tokens, 2 * REQUESTS);
    assert_int_equal(bed.load.tally.in_flight_most, 2);
    end(&bed, MC_OK);
    begin(&bed, refusal);
    assert_int_equal(run(&bed, -1, false), MC_OK);
    assert_int_equal(bed.load.tally.ended[BENCH_REFUSED], REQUESTS);
    assert_int_equal(bed.load.tally.retried, REQUESTS);
    assert_int_equal(bed.server->requests, 2 * REQUESTS);
    end(&bed, MC_OK);
}

static void test_every_failed_allocation_of_answered_ones_has_an_outcome(void **state)
{
    (void)state;
    sweep(stream, BENCH_ANSWERED, false);
    sweep(stream, BENCH_ANSWERED, true);
}

static void test_every_failed_allocation_of_refused_ones_has_an_outcome(void **state)
{
    (void)state;
    sweep(refusal, BENCH_REFUSED, false);
    sweep(refusal, BENCH_REFUSED, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_load_comes_to_its_end),
        cmocka_unit_test(test_every_failed_allocation_of_answered_ones_has_an_outcome),
        cmocka_unit_test(test_every_failed_allocation_of_refused_ones_has_an_outcome),
    };

    alarm(60); /* a load that never ends is a failure, too */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
