/* test_memory.c - allocations that fail, one at a time: while a worker opens, and while it serves. */
#include "house.h"

#include "os/clock.h"

static void test_open_without_memory_leaves_nothing_behind(void **state)
{
    (void)state;
    struct faulty f;
    uint32_t failed = 0;

    for (long k = 0;; k++) {
        struct house *h = house_open();
        const char *gateways[] = { "127.0.0.1:1" };
        struct worker_options o = house_options("w", MC_ROLE_BOTH);
        struct mc_error error = { 0 };
        worker *w = NULL;
        faulty_init(&f, k);
        o.alloc = &f.alloc;
        o.loop = h->loop;
        o.gateways = gateways;
        o.gateway_count = 1;
        o.master = "127.0.0.1:2";
        const mc_status status = worker_open(&o, &w, &error);
        if (status == MC_OK)
            worker_close(w);
        else {
            assert_int_equal(status, MC_E_NOMEM);
            assert_true(error.text[0] != '\0');
            failed++;
        }
        assert_int_equal(f.held, 0);
        house_close(h);
        if (f.calls <= k)
            break;
    }
    assert_true(failed > 100); /* what is only for speed may fail */
}

/* Whatever fails, the request ends, well or not, and everything comes back. */
static void test_serving_without_memory_fails_requests_and_nothing_else(void **state)
{
    (void)state;
    static struct faulty f[2];
    struct house *h = house_open();
    struct worker_options p = house_options("p", MC_ROLE_PREFILL),
                          d = house_options("d", MC_ROLE_DECODE);
    uint32_t well = 0, ill = 0;

    for (uint32_t i = 0; i < 2; i++)
        faulty_init(&f[i], -1);
    p.chunk_tokens = 16;
    p.master = d.master = "127.0.0.1:2";
    p.alloc = &f[0].alloc;
    d.alloc = &f[1].alloc;
    house_add(h, &p);
    house_add(h, &d);
    for (uint32_t who = 0; who < 2; who++)
        for (long k = 0; k < 60; k++) {
            h->client_count = 0;
            struct client *c = house_client(h, 3, 40, 12);
            c->request = 1000 * (who + 1) + (uint64_t)k;
            c->pull_tokens = 32;
            f[who].fail_at = f[who].calls + k;
            house_ask(c);
            house_until(h, client_done(c) || c->finish == FAILED || c->reserve_status < 0 ||
                               c->take_status < 0 || !h->guests[0].conn || !h->guests[1].conn);
            const bool reached = f[who].calls > f[who].fail_at;
            f[who].fail_at = -1;
            house_until(h, h->guests[0].conn && h->guests[1].conn);
            if (client_done(c) && c->end_status == MC_OK && c->finish == LENGTH) {
                assert_right(c);
                well++;
            } else
                ill++;
            house_cancel(c);
            house_until(h, c->cancel_answered);
            house_until(h, house_is_empty(h));
            if (!reached && k > 20)
                break;
        }
    assert_true(well > 2 && ill > 10);
    house_close(h);
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(f[i].held, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open_without_memory_leaves_nothing_behind),
        cmocka_unit_test(test_serving_without_memory_fails_requests_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
