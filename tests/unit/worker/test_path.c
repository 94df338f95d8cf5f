/* test_path.c - two workers in one process, the real Transfer Engine between them: every transport, same answer. */
#include "house.h"

#include <stdio.h>

#include "os/clock.h"

static const char *const transports[] = { "shm", "tcp" };
enum { TRANSPORTS = sizeof(transports) / sizeof(transports[0]) };

static void test_answers_are_the_same_over_every_transport(void **state)
{
    (void)state;
    for (size_t t = 0; t < TRANSPORTS; t++) {
        char written[40], served[40];
        uint64_t pages = 0;
        house_transports = transports[t];
        struct house *h = house_pair(32, true);
        for (uint64_t i = 0; i < 8; i++) {
            struct client *c = house_client(h, i % 4, 20 + (uint32_t)(i % 4) * 31, 10);
            c->pull_tokens = c->prompt_count;
            house_ask(c);
            house_until(h, client_done(c));
            house_until(h, house_is_empty(h));
            pages += (c->prompt_count + 15) / 16;
            assert_int_equal(c->end.reused_tokens > 0, i >= 4);
        }
        snprintf(written, sizeof(written), "transfer_written{transport=\"%s\"}", transports[t]);
        snprintf(served, sizeof(served), "transfer_served{transport=\"%s\"}", transports[t]);
        assert_int_equal(house_counter(h, 0, written), pages * 16384);
        if (t == 1) /* over shared memory the target's processor is not on the path */
            assert_true(house_counter(h, 1, served) >= pages * 16384);
        for (uint32_t i = 0; i < h->client_count; i++)
            assert_right(&h->clients[i]);
        house_close(h);
    }
    house_transports = NULL;
}

static void test_cancels_bring_everything_back_over_every_transport(void **state)
{
    (void)state;
    for (size_t t = 0; t < TRANSPORTS; t++) {
        house_transports = transports[t];
        struct house *h = house_pair(16, false);
        for (uint32_t turn = 0; turn < 30; turn += 2) {
            struct client *c = house_client(h, turn, 150, 30);
            house_ask(c);
            for (uint32_t i = 0; i < turn; i++)
                house_turn(h);
            house_cancel(c);
            house_until(h, c->cancel_answered);
            assert_true(house_is_empty(h));
        }
        house_close(h);
    }
    house_transports = NULL;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_are_the_same_over_every_transport),
        cmocka_unit_test(test_cancels_bring_everything_back_over_every_transport),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
