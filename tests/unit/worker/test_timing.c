/* test_timing.c - workers without weights: the same protocol, answers that prove what was moved, and delays
 * that never hold anything longer than whoever waits for it. */
#include "house.h"

#include "os/clock.h"
#include "os/sysalloc.h"

#define MS UINT64_C(1000000)

static struct worker_timing timing(void)
{
    return (struct worker_timing){
        .model = { .cost = { .p0 = 2e-3, .p1 = 1e-6, .d0 = 1e-3, .t0 = 15e-3, .bytes_per_s = 1e6 },
                   .kv_token_bytes = 16,
                   .tail_s = 15e-3,
                   .load_bytes_per_s = 1e6,
                   .kv_tokens = 3200,
                   .context_max = 3000 },
        .layers = 2,
        .kv_scale = 1,
    };
}

static struct house *pair(bool pool, const struct worker_timing *t)
{
    struct house *h = house_open();
    struct worker_options p = house_options("p", MC_ROLE_PREFILL),
                          d = house_options("d", MC_ROLE_DECODE);

    p.timing = d.timing = t;
    p.chunk_tokens = d.chunk_tokens = 64;
    p.master = d.master = pool ? house_master : NULL;
    house_add(h, &p);
    house_add(h, &d);
    return h;
}

/* The states of the whole sequence, made here. */
static void assert_made(const struct client *c)
{
    const struct mc_model_options options = { .no_weights = true };
    struct mc_model_info info;
    mc_model *model;
    uint32_t state = 0, position = 0;

    assert_int_equal(mc_model_open(MC_DEFAULT_MODEL, &options, &model, NULL), MC_OK);
    mc_model_info(model, &info);
    const struct timing_bans bans[2] = { { NULL, 0 }, { info.eos, info.eos_count } };
    for (; position < c->prompt_count; position++)
        state = timing_state(state, c->prompt[position], position);
    for (uint32_t i = 0; i < c->count; i++) {
        const uint32_t token = timing_token(state, info.vocab_size, bans);
        assert_int_equal(c->tokens[i], token);
        state = timing_state(state, token, position++);
    }
    mc_model_close(model);
}

static void test_an_answer_shows_that_every_page_has_come(void **state)
{
    const struct worker_timing t = timing();
    struct house *h = pair(false, &t);

    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        struct client *c = house_client(h, i, 50 + 100 * i, 20);
        house_ask(c);
    }
    for (uint32_t i = 0; i < 4; i++) {
        house_until(h, client_done(&h->clients[i]));
        assert_int_equal(h->clients[i].count, 20);
        assert_made(&h->clients[i]);
    }
    house_until(h, house_is_empty(h));
    house_close(h);
}

static void test_a_pull_takes_what_the_model_says_and_brings_what_was_put(void **state)
{
    const struct worker_timing t = timing();
    struct house *h = pair(true, &t);

    (void)state;
    struct client *first = house_client(h, 1, 200, 5);
    house_ask(first);
    house_until(h, client_done(first) && house_is_empty(h));
    struct client *again = house_client(h, 1, 200, 5);
    again->pull_tokens = 192;
    again->pull_ns = 1000 * MS;
    house_ask(again);
    house_until(h, client_done(again));
    assert_int_equal(again->end.reused_tokens, 192);
    assert_true(again->end.pull_ns >= 15 * MS); /* latency, and 3 KiB at 1 MB/s */
    assert_true(again->end.hand_off_ns >= 15 * MS);
    assert_made(again);
    /* Where computing would be quicker, it is computed. */
    struct client *hurried = house_client(h, 1, 200, 5);
    hurried->pull_tokens = 192;
    hurried->pull_ns = 10 * MS;
    house_ask(hurried);
    house_until(h, client_done(hurried));
    assert_int_equal(hurried->end.reused_tokens, 0);
    assert_made(hurried);
    house_until(h, house_is_empty(h));
    house_close(h);
}

static void test_a_cancel_at_any_time_brings_everything_back(void **state)
{
    const struct worker_timing t = timing();
    struct house *h = pair(true, &t);

    (void)state;
    struct client *first = house_client(h, 1, 200, 5);
    house_ask(first);
    house_until(h, client_done(first) && house_is_empty(h));
    for (uint32_t after = 0; after < 30; after++) {
        struct client *c = house_client(h, 1, 200, 30);
        const uint64_t begin_ns = os_now_ns();
        c->pull_tokens = after % 2 ? 192 : 0;
        c->pull_ns = 1000 * MS;
        house_ask(c);
        house_until(h, os_now_ns() - begin_ns > after * 2 * MS);
        house_cancel(c);
        house_until(h, c->cancel_answered);
        assert_true(house_is_empty(h));
    }
    house_close(h);
}

/* In the middle of pulls, steps of an hour, and hand-offs: closing waits for none of them. */
static void test_closing_waits_for_nothing_that_is_only_modelled(void **state)
{
    (void)state;
    for (uint32_t kind = 0; kind < 3; kind++) {
        struct worker_timing t = timing();
        t.model.cost.p0 = kind == 0 ? 3600 : 1e-3;
        t.model.cost.t0 = kind == 1 ? 3600 : 1e-3;
        t.model.tail_s = kind == 2 ? 3600 : 1e-3;
        struct house *h = pair(true, &t);

        if (kind == 1) { /* so that there is something to pull */
            struct client *first = house_client(h, 1, 200, 5);
            house_ask(first);
            house_until(h, client_done(first) && house_is_empty(h));
        }
        struct client *c = house_client(h, 1, 200, 5);
        c->pull_tokens = kind == 1 ? 192 : 0;
        c->pull_ns = UINT64_C(10000) * 1000 * MS;
        house_ask(c);
        const uint64_t begin_ns = os_now_ns();
        house_until(h, os_now_ns() - begin_ns > 30 * MS);
        assert_int_equal(c->finish, GOES_ON);
        house_close(h); /* asserts that nothing is left */
        assert_true(os_now_ns() - begin_ns < 10000 * MS);
    }
}

static void test_open_without_memory_leaves_nothing_behind(void **state)
{
    const struct worker_timing t = timing();

    (void)state;
    for (long k = 0;; k++) {
        struct house *h = house_open();
        struct worker_options o = house_options("w", MC_ROLE_BOTH);
        struct mc_error error = { 0 };
        struct faulty f;
        worker *w = NULL;

        faulty_init(&f, k);
        o.alloc = &f.alloc;
        o.loop = h->loop;
        o.timing = &t;
        const mc_status status = worker_open(&o, &w, &error);
        if (status == MC_OK)
            worker_close(w);
        else
            assert_int_equal(status, MC_E_NOMEM);
        assert_int_equal(f.held, 0);
        house_close(h);
        if (f.calls <= k)
            break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_answer_shows_that_every_page_has_come),
        cmocka_unit_test(test_a_pull_takes_what_the_model_says_and_brings_what_was_put),
        cmocka_unit_test(test_a_cancel_at_any_time_brings_everything_back),
        cmocka_unit_test(test_closing_waits_for_nothing_that_is_only_modelled),
        cmocka_unit_test(test_open_without_memory_leaves_nothing_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
