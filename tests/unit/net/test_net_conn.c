/* test_net_conn.c - a connection's life: lost and dialled again, hung up, silent, and out of memory. */
#include "raw.h"

#include <sys/resource.h>

/* --------------------------------------------------------------------------------- loss and return */

static void test_who_is_not_there_is_dialled_again_and_again_with_longer_waits(void **state)
{
    (void)state;
    struct pair pair = { .loop = new_loop() };
    const struct net_options client = client_options(pair.loop);
    uint64_t waits_ns[4];
    const int listener = raw_listen(pair.address);

    close(listener);
    open_client(&pair, &client);
    assert_int_equal(pair.client.downs, 0); /* never inside net_dial() */
    turn_until(pair.loop, &pair.client.downs, 1);
    for (int i = 0; i < 4; i++) {
        const uint64_t begin_ns = os_loop_now(pair.loop);
        turn_until(pair.loop, &pair.client.downs, i + 2);
        waits_ns[i] = os_loop_now(pair.loop) - begin_ns;
        assert_true(waits_ns[i] >= (UINT64_C(10000000) << i));
    }
    assert_int_equal(pair.client.status, MC_E_PEER);
    assert_non_null(strstr(pair.client.text, pair.address));
    assert_non_null(strstr(pair.client.text, "refused"));
    assert_null(strstr(strstr(pair.client.text, pair.address) + 1, pair.address)); /* named once */
    assert_int_equal(pair.client.ups, 0);
    net_close(pair.client.net);
    os_loop_close(pair.loop);
}

static void test_a_server_that_comes_back_is_met_again(void **state)
{
    (void)state;
    struct pair pair;
    char address[80];

    open_pair(&pair, NULL, NULL);
    strcpy(address, pair.address);
    net_conn *conn = pair.client.conn;
    for (int round = 1; round <= 3; round++) {
        struct net_options again = server_options(pair.loop);
        struct told told = { 0 };
        again.incarnation = 100 + (uint64_t)round;
        net_close(pair.server.net);
        turn_until(pair.loop, &pair.client.downs, round);
        assert_int_equal(pair.client.status, MC_E_PEER);
        assert_non_null(strstr(pair.client.text, "(server)"));
        assert_int_equal(ask(conn, 0, &told, NULL), MC_E_PEER);
        assert_int_equal(net_send(conn, WIRE_STOP, &(struct wire_stop){ 0 }), MC_E_PEER);
        assert_int_equal(net_answer_outcome(conn, 1, MC_OK, NULL), MC_E_PEER);
        open_server(&pair, &again, address);
        while (pair.client.ups <= round && pair.client.downs < 100)
            assert_int_equal(os_loop_turn(pair.loop, os_now_ns() + 1000000000), MC_OK);
        assert_int_equal(pair.client.ups, round + 1);
        assert_ptr_equal(pair.client.conn, conn); /* the same handle */
        assert_int_equal(pair.client.peer.incarnation, again.incarnation);
        pair.client.downs = round;
    }
    close_pair(&pair);
}

static struct told *order[8];
static int ordered;

static void note_and_ask_again(struct told *told)
{
    order[ordered++] = told;
    assert_int_equal(told->pair->client.downs, 0); /* all that was asked has been told first */
    assert_false(net_conn_is_up(told->pair->client.conn));
    assert_int_equal(ask(told->pair->client.conn, 0, told, NULL), MC_E_PEER);
}

static void test_what_was_asked_is_told_of_a_loss_in_order_and_before_down(void **state)
{
    (void)state;
    struct pair pair;
    struct told told[5];

    ordered = 0;
    open_pair(&pair, NULL, NULL);
    for (int i = 0; i < 5; i++) {
        told[i] = (struct told){ .pair = &pair, .then = note_and_ask_again };
        assert_int_equal(
            ask(pair.client.conn, i % 2 ? os_now_ns() + UINT64_C(9000000000) : 0, &told[i], NULL),
            MC_OK);
    }
    net_close(pair.server.net);
    pair.server.net = NULL;
    turn_until(pair.loop, &pair.client.downs, 1);
    assert_int_equal(ordered, 5);
    for (int i = 0; i < 5; i++) {
        assert_ptr_equal(order[i], &told[i]);
        assert_int_equal(told[i].status, MC_E_PEER);
        assert_int_equal(told[i].count, 1);
    }
    assert_int_equal(os_loop_next_ns(pair.loop) < os_now_ns() + UINT64_C(8000000000), 1);
    close_pair(&pair);
}

static void test_an_answer_to_a_question_of_the_connection_before_is_dropped(void **state)
{
    (void)state;
    struct pair pair = { .loop = new_loop() };
    const struct net_options client = client_options(pair.loop);
    const struct wire_pong pong = { .mark = 1 };
    const int listener = raw_listen(pair.address);
    struct told first = { 0 }, second = { 0 };
    struct raw raw;

    open_client(&pair, &client);
    raw_accept(&raw, pair.loop, listener);
    raw_greet(&raw, 5);
    turn_until(pair.loop, &pair.client.ups, 1);
    assert_int_equal(ask(pair.client.conn, 0, &first, NULL), MC_OK);
    const uint64_t old_id = raw_hear(&raw).id;
    close(raw.fd);
    turn_until(pair.loop, &first.count, 1);
    raw_accept(&raw, pair.loop, listener);
    raw_greet(&raw, 5);
    turn_until(pair.loop, &pair.client.ups, 2);
    assert_int_equal(ask(pair.client.conn, 0, &second, NULL), MC_OK);
    raw_say(&raw, WIRE_PONG, old_id, WIRE_ANSWER, &pong);
    settle(pair.loop);
    assert_int_equal(second.count, 0);
    raw_say(&raw, WIRE_PONG, raw_hear(&raw).id, WIRE_ANSWER, &pong);
    turn_until(pair.loop, &second.count, 1);
    assert_int_equal(first.count, 1);
    close(raw.fd);
    close(listener);
    net_close(pair.client.net);
    os_loop_close(pair.loop);
}

/* ----------------------------------------------------------------------------------------- time */

static void test_who_connects_and_does_not_greet_is_given_up_in_time(void **state)
{
    (void)state;
    struct pair pair = { .loop = new_loop() };
    struct net_options client = client_options(pair.loop);
    const int listener = raw_listen(pair.address); /* the system connects; nobody accepts */

    client.greet_ns = 5000000;
    open_client(&pair, &client);
    turn_until(pair.loop, &pair.client.downs, 2);
    assert_int_equal(pair.client.status, MC_E_TIMEOUT);
    assert_non_null(strstr(pair.client.text, "greeted within 5 ms"));
    close(listener);
    net_close(pair.client.net);
    os_loop_close(pair.loop);
}

static void test_who_falls_silent_is_pinged_and_then_given_up(void **state)
{
    (void)state;
    struct pair pair = { .loop = new_loop() };
    struct net_options client = client_options(pair.loop);
    const int listener = raw_listen(pair.address);
    struct raw raw;

    client.silence_ns = 20000000;
    open_client(&pair, &client);
    raw_accept(&raw, pair.loop, listener);
    raw_greet(&raw, 5);
    for (int i = 0; i < 2; i++) { /* as long as anything comes, it stays */
        const struct wire_frame ping = raw_hear(&raw);
        assert_int_equal(ping.kind, WIRE_PING);
        assert_int_not_equal(ping.id, 0);
        assert_int_equal(pair.client.downs, 0);
        raw_say(&raw, WIRE_STOP, 0, 0, &(struct wire_stop){ 0 });
    }
    turn_until(pair.loop, &pair.client.downs, 1);
    assert_int_equal(pair.client.status, MC_E_TIMEOUT);
    assert_non_null(strstr(pair.client.text, "silent"));
    close(raw.fd);
    close(listener);
    net_close(pair.client.net);
    os_loop_close(pair.loop);
}

static void test_two_that_have_nothing_to_say_stay_connected(void **state)
{
    (void)state;
    struct pair pair;
    struct net_options server = server_options(NULL), client = client_options(NULL);
    const uint64_t silence_ns = 50000000;

    server.silence_ns = client.silence_ns = silence_ns;
    open_pair(&pair, &server, &client);
    const uint64_t end_ns = os_now_ns() + 5 * silence_ns;
    while (os_now_ns() < end_ns)
        assert_int_equal(os_loop_turn(pair.loop, end_ns), MC_OK);
    assert_int_equal(pair.client.downs, 0);
    assert_int_equal(pair.server.downs, 0);
    assert_int_equal(pair.client.messages, 0);
    close_pair(&pair);
}

/* -------------------------------------------------------------------------------------- hang up */

static void hang_up(struct side *side, net_conn *conn)
{
    net_hang_up(conn, false);
    net_hang_up(conn, true); /* it is still there while its callback runs: nothing happens */
    side->conn = NULL;
}

static void hang_up_on_message(struct side *side, net_conn *conn, const struct wire_frame *frame)
{
    uint8_t sum = 0;

    hang_up(side, conn);
    for (uint32_t i = 0; i < frame->body_size; i++) /* what was given stays until it returns */
        sum = (uint8_t)(sum + frame->body[i]);
    assert_int_not_equal(sum, 1);
}

static void hang_up_both(struct told *told)
{
    hang_up(&told->pair->client, told->pair->client.conn);
}

static void test_every_callback_may_hang_up(void **state)
{
    (void)state;
    static char large[100000];
    const struct wire_notify notify = { .name = wire_text("n"),
                                        .message = { large, sizeof(large) } };

    for (int where = 0; where < 6; where++) {
        struct pair pair = { .loop = new_loop() };
        const struct net_options server = server_options(pair.loop);
        const struct net_options client = client_options(pair.loop);
        struct told told = { .pair = &pair, .then = hang_up_both };
        struct told other = { 0 };
        pair.server.on_message = where == 2 ? hang_up_on_message : answer_all;
        if (where == 0)
            pair.server.on_up = hang_up;
        if (where == 1)
            pair.client.on_up = hang_up;
        if (where == 4)
            pair.server.on_down = hang_up;
        if (where == 5)
            pair.client.on_down = hang_up;
        open_server(&pair, &server, "127.0.0.1:0");
        open_client(&pair, &client);
        if (where != 0)
            turn_until(pair.loop, &pair.client.ups, 1);
        turn_until(pair.loop, &pair.server.ups, 1);
        if (where == 2) {
            assert_int_equal(net_send(pair.client.conn, WIRE_NOTIFY, &notify), MC_OK);
            assert_int_equal(net_send(pair.client.conn, WIRE_NOTIFY, &notify), MC_OK);
            turn_until(pair.loop, &pair.client.downs, 1);
            assert_int_equal(pair.server.messages, 1);
            assert_int_equal(pair.server.downs, 0);
        } else if (where == 3) { /* in an answer, with another question open */
            assert_int_equal(ask(pair.client.conn, 0, &told, NULL), MC_OK);
            assert_int_equal(ask(pair.client.conn, 0, &other, NULL), MC_OK);
            turn_until(pair.loop, &told.count, 1);
            assert_int_equal(other.count, 1);
            assert_int_equal(other.status, MC_E_CANCELLED);
            turn_until(pair.loop, &pair.server.downs, 1);
        } else if (where == 4) {
            net_hang_up(pair.client.conn, false);
            turn_until(pair.loop, &pair.server.downs, 1);
        } else if (where == 5) {
            net_close(pair.server.net);
            pair.server.net = NULL;
            turn_until(pair.loop, &pair.client.downs, 1);
        }
        settle(pair.loop);
        close_pair(&pair);
    }
}

static void hang_up_in_timeout(struct told *told)
{
    if (told->pair->client.conn)
        hang_up(&told->pair->client, told->pair->client.conn);
}

static void test_a_deadline_may_hang_up(void **state)
{
    (void)state;
    struct pair pair;

    open_pair(&pair, NULL, NULL);
    struct told told[3];
    for (int i = 0; i < 3; i++) {
        told[i] = (struct told){ .pair = &pair, .then = hang_up_in_timeout };
        assert_int_equal(ask(pair.client.conn, 1, &told[i], NULL), MC_OK);
    }
    turn_until(pair.loop, &told[0].count, 1);
    settle(pair.loop);
    assert_int_equal(told[0].status, MC_E_TIMEOUT);
    for (int i = 1; i < 3; i++) {
        assert_int_equal(told[i].count, 1);
        assert_int_equal(told[i].status, MC_E_CANCELLED);
    }
    close_pair(&pair);
}

static void test_hanging_up_with_flush_delivers_all_even_to_one_who_talks(void **state)
{
    (void)state;
    static char large[1 << 20];
    struct pair pair;
    const struct wire_notify notify = { .name = wire_text("n"),
                                        .message = { large, sizeof(large) } };
    struct told told = { 0 };

    open_pair(&pair, NULL, NULL);
    for (int i = 0; i < 9; i++) /* what comes stays unread until the loop turns */
        assert_int_equal(net_send(pair.server.conn, WIRE_NOTIFY, &notify), MC_OK);
    for (int i = 0; i < 12; i++)
        assert_int_equal(net_send(pair.client.conn, WIRE_NOTIFY, &notify), MC_OK);
    assert_int_equal(ask(pair.client.conn, 0, &told, NULL), MC_OK);
    net_hang_up(pair.client.conn, true);
    assert_int_equal(told.count, 1);
    assert_int_equal(told.status, MC_E_CANCELLED);
    assert_int_equal(net_flushing(pair.client.net), 1);
    turn_until(pair.loop, &pair.server.downs, 1);
    assert_int_equal(pair.server.messages, 13);
    assert_int_equal(pair.client.messages, 0);
    assert_int_equal(pair.client.downs, 0);
    for (int i = 0; i < 1000 && net_flushing(pair.client.net) > 0; i++)
        assert_int_equal(os_loop_turn(pair.loop, os_now_ns() + 1000000), MC_OK);
    assert_int_equal(net_flushing(pair.client.net), 0);
    close_pair(&pair);
}

static void test_flushing_to_one_who_never_reads_ends_in_time(void **state)
{
    (void)state;
    static char large[8 << 20];
    struct pair pair = { .loop = new_loop() };
    struct net_options client = client_options(pair.loop);
    const struct wire_notify notify = { .name = wire_text("n"),
                                        .message = { large, sizeof(large) - 100 } };
    const int listener = raw_listen(pair.address);
    struct raw raw;

    client.greet_ns = 300000000;
    open_client(&pair, &client);
    raw_accept(&raw, pair.loop, listener);
    raw_greet(&raw, 5);
    turn_until(pair.loop, &pair.client.ups, 1);
    while (net_send(pair.client.conn, WIRE_NOTIFY, &notify) == MC_OK)
        ;
    net_hang_up(pair.client.conn, true);
    while (net_flushing(pair.client.net) > 0) /* ctest's limit ends a hang */
        assert_int_equal(os_loop_turn(pair.loop, os_now_ns() + 100000000), MC_OK);
    close(raw.fd);
    close(listener);
    net_close(pair.client.net);
    os_loop_close(pair.loop);
}

static void test_closing_ends_connections_in_every_state(void **state)
{
    (void)state;
    struct pair pair;
    struct told told = { 0 };
    struct side waiting = { 0 }, dialling = { 0 }, greeting = { 0 };
    char nobody[80], mute[80];
    const int gone = raw_listen(nobody), listener = raw_listen(mute);

    close(gone);
    open_pair(&pair, NULL, NULL);
    net *n = pair.client.net;
    assert_int_equal(net_dial(n, nobody, &SIDE_EVENTS, &waiting, &waiting.conn, NULL), MC_OK);
    assert_int_equal(net_dial(n, mute, &SIDE_EVENTS, &greeting, &greeting.conn, NULL), MC_OK);
    turn_until(pair.loop, &waiting.downs, 1);
    settle(pair.loop);
    assert_int_equal(net_dial(n, mute, &SIDE_EVENTS, &dialling, &dialling.conn, NULL), MC_OK);
    assert_int_equal(os_loop_turn(pair.loop, 0), MC_OK);
    assert_int_equal(ask(pair.client.conn, 0, &told, NULL), MC_OK);
    net_hang_up(pair.server.conn, true);
    close_pair(&pair);
    assert_int_equal(told.status, MC_E_CANCELLED);
    assert_int_equal(pair.client.downs + greeting.downs + dialling.downs, 0);
    close(listener);
}

static void test_hanging_up_ends_dialling_for_good(void **state)
{
    (void)state;
    struct pair pair = { .loop = new_loop() };
    const struct net_options client = client_options(pair.loop);
    const int listener = raw_listen(pair.address);

    close(listener);
    open_client(&pair, &client);
    turn_until(pair.loop, &pair.client.downs, 2);
    net_hang_up(pair.client.conn, true);
    assert_int_equal(os_loop_next_ns(pair.loop), UINT64_MAX); /* nothing is left to happen */
    net_hang_up(NULL, true);
    net_close(pair.client.net);
    os_loop_close(pair.loop);
}

static void test_a_connection_may_be_given_a_user_of_its_own(void **state)
{
    (void)state;
    struct pair pair;
    struct side own = { 0 };

    open_pair(&pair, NULL, NULL);
    net_conn_user_set(pair.server.conn, &own);
    assert_int_equal(net_send(pair.client.conn, WIRE_STOP, &(struct wire_stop){ 0 }), MC_OK);
    turn_until(pair.loop, &own.messages, 1);
    assert_int_equal(pair.server.messages, 0);
    close_pair(&pair);
}

/* ---------------------------------------------------------------------------------- what runs out */

static void test_a_listener_without_descriptors_waits_and_goes_on(void **state)
{
    (void)state;
    struct pair pair = { .loop = new_loop() };
    const struct net_options server = server_options(pair.loop);
    struct rlimit before, none;
    struct raw raw;

    open_server(&pair, &server, "127.0.0.1:0");
    raw_dial(&raw, pair.loop, pair.address);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){ .rlim_cur = 0, .rlim_max = before.rlim_max };
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    const mc_status first = os_loop_turn(pair.loop, os_now_ns() + UINT64_C(1000000000));
    const uint64_t next_ns = os_loop_next_ns(pair.loop);
    const uint64_t now_ns = os_loop_now(pair.loop);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(first, MC_OK);
    assert_in_range(next_ns - now_ns, 1, 100000000); /* it looks away instead of spinning */
    raw_greet(&raw, 5);
    turn_until(pair.loop, &pair.server.ups, 1);
    close(raw.fd);
    net_close(pair.server.net);
    os_loop_close(pair.loop);
}

/** Meet, ask with a long body, answer, hang up: whatever fails once is made good, or was said. */
static void scenario(struct faulty *f)
{
    static char large[100000];
    struct pair pair = { .loop = NULL };
    struct net_options server = server_options(NULL), client = client_options(NULL);
    const struct wire_notify notify = { .name = wire_text("n"),
                                        .message = { large, sizeof(large) } };
    struct told told = { 0 };

    pair.server.on_message = answer_all;
    server.alloc = client.alloc = &f->alloc;
    server.secret = client.secret = "s";
    server.secret_size = client.secret_size = 1;
    if (os_loop_open(&f->alloc, &pair.loop, NULL) != MC_OK)
        return;
    server.loop = client.loop = pair.loop;
    if (net_open(&server, &pair.server.net, NULL) != MC_OK ||
        net_listen(pair.server.net, "127.0.0.1:0", false, &SIDE_EVENTS, &pair.server, pair.address,
                   80, NULL) != MC_OK ||
        net_open(&client, &pair.client.net, NULL) != MC_OK ||
        net_dial(pair.client.net, pair.address, &SIDE_EVENTS, &pair.client, &pair.client.conn,
                 NULL) != MC_OK)
        goto end;
    for (int tries = 0; told.count == 0 || told.status != MC_OK; tries++) {
        assert_true(tries < 10000);
        if (net_conn_is_up(pair.client.conn)) {
            const int before = told.count;
            const mc_status status =
                net_ask(pair.client.conn, WIRE_NOTIFY, &notify, os_now_ns() + UINT64_C(10000000000),
                        told_answered, &told, NULL);
            assert_true(status == MC_OK || status == MC_E_NOMEM);
            while (status == MC_OK && told.count == before)
                assert_int_equal(os_loop_turn(pair.loop, os_now_ns() + 1000000000), MC_OK);
        } else {
            assert_int_equal(os_loop_turn(pair.loop, os_now_ns() + 1000000000), MC_OK);
        }
    }
end:
    close_pair(&pair);
}

static void test_every_failed_allocation_is_told_and_leaves_nothing_behind(void **state)
{
    (void)state;
    long calls = 1;

    for (long k = 0; k < calls; k++) {
        struct faulty f;
        faulty_init(&f, k);
        scenario(&f);
        assert_int_equal(f.held, 0);
        faulty_init(&f, -1);
        if (k == 0) {
            scenario(&f);
            assert_int_equal(f.held, 0);
            calls = f.calls;
            assert_true(calls > 15);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_is_not_there_is_dialled_again_and_again_with_longer_waits),
        cmocka_unit_test(test_a_server_that_comes_back_is_met_again),
        cmocka_unit_test(test_what_was_asked_is_told_of_a_loss_in_order_and_before_down),
        cmocka_unit_test(test_an_answer_to_a_question_of_the_connection_before_is_dropped),
        cmocka_unit_test(test_who_connects_and_does_not_greet_is_given_up_in_time),
        cmocka_unit_test(test_who_falls_silent_is_pinged_and_then_given_up),
        cmocka_unit_test(test_two_that_have_nothing_to_say_stay_connected),
        cmocka_unit_test(test_every_callback_may_hang_up),
        cmocka_unit_test(test_a_deadline_may_hang_up),
        cmocka_unit_test(test_hanging_up_with_flush_delivers_all_even_to_one_who_talks),
        cmocka_unit_test(test_flushing_to_one_who_never_reads_ends_in_time),
        cmocka_unit_test(test_closing_ends_connections_in_every_state),
        cmocka_unit_test(test_hanging_up_ends_dialling_for_good),
        cmocka_unit_test(test_a_connection_may_be_given_a_user_of_its_own),
        cmocka_unit_test(test_a_listener_without_descriptors_waits_and_goes_on),
        cmocka_unit_test(test_every_failed_allocation_is_told_and_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
