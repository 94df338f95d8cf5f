/* test_serve.c - answers through two workers are those of one engine, wherever their KVCache came from. */
#include "house.h"

#include "os/clock.h"

/* At the end: it takes a while, and the loop stands still. */
static void assert_all_right(struct house *h)
{
    for (uint32_t i = 0; i < h->client_count; i++)
        if (h->clients[i].end_status == MC_OK)
            assert_right(&h->clients[i]);
}

static void test_an_answer_through_two_workers_is_the_same(void **state)
{
    (void)state;
    static const uint32_t prompts[] = { 1, 16, 17, 64, 90 };

    for (uint32_t chunk = 16; chunk <= 64; chunk *= 4) {
        struct house *h = house_pair(chunk, false);
        uint64_t pages = 0;
        for (size_t i = 0; i < sizeof(prompts) / sizeof(prompts[0]); i++) {
            struct client *c = house_client(h, i, prompts[i], 8);
            house_ask(c);
            house_until(h, client_done(c));
            assert_int_equal(c->end_status, MC_OK);
            assert_int_equal(c->finish, LENGTH);
            pages += (prompts[i] + 15) / 16;
        }
        assert_int_equal(house_counter(h, 0, "pushed"), pages * 16384);
        assert_int_equal(fake_moves.moved_bytes, pages * 16384); /* each byte once */
        assert_int_equal(house_counter(h, 1, "joined"), 5);
        house_until(h, house_is_empty(h));
        assert_all_right(h);
        house_close(h);
    }
}

static void test_many_at_once_do_not_disturb_each_other(void **state)
{
    (void)state;
    struct house *h = house_pair(64, false);

    for (uint64_t i = 0; i < 20; i++)
        house_ask(house_client(h, i, 10 + (uint32_t)(i * 17 % 50), 10));
    for (uint32_t i = 0; i < 20; i++)
        house_until(h, client_done(&h->clients[i]) || h->clients[i].reserve_status == MC_E_FULL);
    house_until(h, house_is_empty(h));
    assert_int_equal(house_counter(h, 1, "joined") + house_counter(h, 1, "refused"), 20);
    assert_true(house_counter(h, 1, "joined") >= 15);
    assert_all_right(h);
    house_close(h);
}

static void test_a_prefix_from_the_pool_is_used_and_changes_nothing(void **state)
{
    (void)state;
    struct house *h = house_pair(64, true);
    struct client *first = house_client(h, 1, 100, 30);

    house_ask(first);
    house_until(h, client_done(first));
    house_until(h, house_is_empty(h)); /* its puts are final */
    assert_int_equal(house_counter(h, 0, "puts_stored"), 100 / 16);
    /* The last token of the answer is never computed; blocks 6 and 7 are the answer's. */
    assert_int_equal(house_counter(h, 1, "puts_stored"), 129 / 16 - 100 / 16);

    struct client *again = house_client(h, 1, 100, 30);
    again->pull_tokens = 100;
    house_ask(again);
    house_until(h, client_done(again));
    assert_int_equal(again->end.reused_tokens, 96);
    assert_int_equal(again->end.pulled_bytes, 6 * 16384);

    struct client *whole = house_client(h, 1, 96, 5); /* all blocks are there */
    whole->pull_tokens = 96;
    house_ask(whole);
    house_until(h, client_done(whole));
    assert_int_equal(whole->end.reused_tokens, 80); /* the last token is computed all the same */

    struct client *shy = house_client(h, 1, 100, 5);
    shy->pull_tokens = 100;
    shy->cache = 1;
    house_ask(shy);
    house_until(h, client_done(shy));
    assert_int_equal(shy->end.reused_tokens, 0);

    const uint64_t stored = house_counter(h, 0, "puts_stored") + house_counter(h, 1, "puts_stored");
    struct client *private = house_client(h, 2, 100, 30);
    private->cache = 2;
    house_ask(private);
    house_until(h, client_done(private));
    house_until(h, house_is_empty(h));
    assert_int_equal(house_counter(h, 0, "puts_stored") + house_counter(h, 1, "puts_stored"),
                     stored);

    fake_moves.lose_pulls = true; /* the second block is gone: one page of the prefix is left */
    struct client *torn = house_client(h, 1, 100, 5);
    torn->pull_tokens = 100;
    house_ask(torn);
    house_until(h, client_done(torn));
    assert_int_equal(torn->end.reused_tokens, 16);
    house_until(h, house_is_empty(h));
    assert_all_right(h);
    house_close(h);
}

static void test_a_hot_prefix_is_copied_by_who_has_pulled_it(void **state)
{
    (void)state;
    struct house *h = house_pair(64, true);
    struct client *first = house_client(h, 1, 100, 5);

    house_ask(first);
    house_until(h, client_done(first));
    house_until(h, house_is_empty(h));

    struct client *hot = house_client(h, 1, 100, 5);
    hot->pull_tokens = 96;
    hot->copy_tokens = 64; /* four of the six blocks */
    house_ask(hot);
    house_until(h, client_done(hot));
    house_until(h, house_is_empty(h));
    assert_int_equal(fake_moves.copies, 4);
    assert_int_equal(fake_moves.copy_node, 77);
    assert_int_equal(house_counter(h, 0, "puts_copied"), 4);

    struct client *again =
        house_client(h, 1, 100, 5); /* they are there now; more than is pulled is not copied */
    again->pull_tokens = 96;
    again->copy_tokens = 1000;
    house_ask(again);
    house_until(h, client_done(again));
    house_until(h, house_is_empty(h));
    assert_int_equal(fake_moves.copies, 6);

    fake_moves.lose_pulls = true; /* what did not come cannot be copied */
    struct client *other = house_client(h, 3, 100, 5);
    other->pull_tokens = 96;
    other->copy_tokens = 96;
    house_ask(other);
    house_until(h, client_done(other));
    house_until(h, house_is_empty(h));
    assert_int_equal(fake_moves.copies, 6);

    fake_moves.lose_pulls = false;
    fake_moves.hold_puts = true;
    struct client *gone = house_client(h, 3, 100, 5);
    gone->pull_tokens = 96;
    gone->copy_tokens = 96;
    gone->cache = 2; /* the pool is not to be written */
    house_ask(gone);
    house_until(h, client_done(gone));
    fake_moves.hold_puts = false;
    house_until(h, house_is_empty(h));
    assert_int_equal(fake_moves.copies, 6);
    assert_all_right(h);
    house_close(h);
}

static void test_an_answer_continues_from_the_pool_as_a_conversation_does(void **state)
{
    (void)state;
    struct house *h = house_pair(64, true);
    struct client *first = house_client(h, 5, 100, 61), *next;

    house_ask(first);
    house_until(h, client_done(first));
    house_until(h, house_is_empty(h));
    next = house_client(h, 6, 0, 20);
    memcpy(next->prompt, first->prompt, 100 * sizeof(uint32_t));
    memcpy(next->prompt + 100, first->tokens, 61 * sizeof(uint32_t));
    next->prompt_count = 170; /* nine more of another speaker */
    next->pull_tokens = 170;
    house_ask(next);
    house_until(h, client_done(next));
    assert_int_equal(next->end.reused_tokens, 160); /* what the decode worker put is among it */
    house_until(h, house_is_empty(h));
    assert_all_right(h);
    house_close(h);
}

/* The least that a gateway allows for a pull, for one block of many: the others are asked for as well, and a pool
 * that hangs is not waited for as often as long. */
static void test_one_that_waited_asks_for_more_and_not_for_longer_than_is_sensible(void **state)
{
    (void)state;
    struct house *h = house_pair(16, true);
    struct client *first = house_client(h, 1, 100, 2), *second = house_client(h, 2, 1100, 2);

    fake_moves.hold_pulls = true;
    first->pull_tokens = second->pull_tokens = 16;
    second->pull_ns = 200000000;
    house_ask(first);
    house_until(h, fake_moves.pulls == 1);
    house_ask(second); /* behind it: that is as much as is begun ahead */
    house_until(h, second->taken);
    const uint64_t taken_ns = os_now_ns();
    house_until(h, os_now_ns() - taken_ns > 20000000);
    assert_int_equal(fake_moves.pulls, 1);
    fake_moves.hold_pulls = false;
    house_until(h, fake_moves.pulls == 2);
    assert_true(fake_moves.pull_ns > 1000000000 && fake_moves.pull_ns <= 2000000000);
    house_until(h, client_done(first) && client_done(second));
    house_until(h, house_is_empty(h));
    house_close(h);
}

static void test_one_worker_does_it_all(void **state)
{
    (void)state;
    struct house *h = house_open();
    struct worker_options o = house_options("both", MC_ROLE_BOTH);
    o.master = "127.0.0.1:1";
    house_add(h, &o);

    for (uint64_t i = 0; i < 12; i++) {
        struct client *c = house_client(h, i % 6, 50 + (uint32_t)(i % 6) * 10, 12);
        c->decode = 0;
        c->pull_tokens = c->prompt_count;
        house_ask(c);
        if (i == 5)
            house_until(h,
                        house_is_empty(h) && client_done(c)); /* the others pull what these put */
    }
    for (uint32_t i = 0; i < 12; i++) {
        house_until(h, client_done(&h->clients[i]));
        assert_int_equal(h->clients[i].end.reused_tokens > 0, i >= 6);
    }
    house_until(h, house_is_empty(h));
    assert_all_right(h);
    house_close(h);
}

static void test_too_little_memory_for_all_makes_them_wait_and_take_turns(void **state)
{
    (void)state;
    struct house *h = house_open();
    struct worker_options o = house_options("both", MC_ROLE_BOTH);
    o.kv_tokens = 320; /* 20 pages; eight answers want 8 x 5 in the end */
    house_add(h, &o);

    for (uint64_t i = 0; i < 8; i++) {
        struct client *c = house_client(h, i, 30, 40);
        c->decode = 0;
        house_ask(c);
    }
    for (uint32_t i = 0; i < 8; i++)
        house_until(h, client_done(&h->clients[i]));
    assert_true(house_counter(h, 0, "preemptions") > 0);
    house_until(h, house_is_empty(h));
    assert_all_right(h);
    house_close(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_answer_through_two_workers_is_the_same),
        cmocka_unit_test(test_many_at_once_do_not_disturb_each_other),
        cmocka_unit_test(test_a_prefix_from_the_pool_is_used_and_changes_nothing),
        cmocka_unit_test(test_a_hot_prefix_is_copied_by_who_has_pulled_it),
        cmocka_unit_test(test_an_answer_continues_from_the_pool_as_a_conversation_does),
        cmocka_unit_test(test_one_that_waited_asks_for_more_and_not_for_longer_than_is_sensible),
        cmocka_unit_test(test_one_worker_does_it_all),
        cmocka_unit_test(test_too_little_memory_for_all_makes_them_wait_and_take_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
