/* test_net.c - two sides that meet, ask and answer; who is let in and who is not. */
#include "pair.h"

static void test_two_sides_meet_and_know_each_other(void **state)
{
    (void)state;
    struct pair pair;
    struct net_options server = server_options(NULL), client = client_options(NULL);

    server.segment = "seg";
    client.tenant = "blue";
    open_pair(&pair, &server, &client);
    assert_string_equal(pair.client.name, "server");
    assert_string_equal(pair.server.name, "client");
    assert_int_equal(pair.client.peer.incarnation, 100);
    assert_int_equal(pair.client.peer.role, NET_MASTER);
    assert_string_equal(pair.client.peer.segment, "seg");
    assert_string_equal(pair.client.peer.tenant, "default");
    assert_string_equal(pair.client.peer.address, pair.address);
    assert_ptr_equal(strstr(pair.client.peer.software, "mooncake "), pair.client.peer.software);
    assert_string_equal(pair.server.peer.tenant, "blue");
    assert_string_equal(pair.server.peer.segment, "");
    assert_memory_equal(&pair.server.peer.host, net_host(pair.server.net), 32);
    assert_int_equal(net_incarnation(pair.client.net), 200);
    assert_int_equal(net_counts(pair.server.net).accepted, 1);
    close_pair(&pair);
}

static void test_an_incarnation_is_drawn_where_none_is_given(void **state)
{
    (void)state;
    struct net_options options = client_options(new_loop());
    net *a = NULL, *b = NULL;

    options.incarnation = 0;
    assert_int_equal(net_open(&options, &a, NULL), MC_OK);
    assert_int_equal(net_open(&options, &b, NULL), MC_OK);
    assert_int_not_equal(net_incarnation(a), 0);
    assert_int_not_equal(net_incarnation(a), net_incarnation(b));
    assert_memory_equal(net_host(a), net_host(b), 32);
    net_close(a);
    net_close(b);
    net_close(NULL);
    os_loop_close(options.loop);
}

static void test_a_question_gets_its_answer(void **state)
{
    (void)state;
    struct pair pair;
    struct told told = { 0 };
    uint64_t id = 0;

    open_pair(&pair, NULL, NULL);
    pair.server.on_message = answer_all;
    assert_int_equal(ask(pair.client.conn, os_now_ns() + UINT64_C(5000000000), &told, &id), MC_OK);
    assert_int_equal(told.count, 0); /* never inside */
    turn_until(pair.loop, &told.count, 1);
    assert_int_equal(told.status, MC_OK);
    assert_int_equal(told.value, id);
    assert_int_equal(pair.server.kind, WIRE_SEGMENT_ASK);
    assert_int_equal(pair.server.id, id);
    assert_in_range(pair.server.deadline_ns, 1, 5000000000);
    close_pair(&pair);
}

static void test_both_sides_ask_over_one_connection(void **state)
{
    (void)state;
    struct pair pair;
    struct told there = { 0 }, back = { 0 };

    open_pair(&pair, NULL, NULL);
    pair.server.on_message = pair.client.on_message = answer_all;
    assert_int_equal(ask(pair.client.conn, 0, &there, NULL), MC_OK);
    assert_int_equal(ask(pair.server.conn, 0, &back, NULL), MC_OK);
    turn_until(pair.loop, &there.count, 1);
    turn_until(pair.loop, &back.count, 1);
    assert_int_equal(pair.server.deadline_ns, 0);
    close_pair(&pair);
}

static void test_answers_in_any_order_find_their_questions(void **state)
{
    (void)state;
    enum { COUNT = 300 };
    static struct told told[COUNT];
    uint64_t ids[COUNT];
    struct pair pair;

    memset(told, 0, sizeof(told));
    open_pair(&pair, NULL, NULL);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(ask(pair.client.conn, 0, &told[i], &ids[i]), MC_OK);
    turn_until(pair.loop, &pair.server.messages, COUNT);
    for (int i = 0; i < COUNT; i++)
        answer(pair.server.conn, ids[i * 7 % COUNT], ids[i * 7 % COUNT]);
    for (int i = 0; i < COUNT; i++)
        turn_until(pair.loop, &told[i].count, 1);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(told[i].value, ids[i]);
    close_pair(&pair);
}

static void test_statements_come_in_order_and_are_not_answered(void **state)
{
    (void)state;
    struct pair pair;
    const struct wire_stop stop = { .request = 5 };
    const struct wire_stats stats = { 0 };

    open_pair(&pair, NULL, NULL);
    assert_int_equal(net_send(pair.client.conn, WIRE_STATS, &stats), MC_OK);
    assert_int_equal(net_send(pair.client.conn, WIRE_STOP, &stop), MC_OK);
    turn_until(pair.loop, &pair.server.messages, 2);
    assert_int_equal(pair.server.kind, WIRE_STOP);
    assert_int_equal(pair.server.id, 0);
    assert_int_equal(net_answer(pair.server.conn, 0, WIRE_STOP, &stop), MC_OK); /* nothing sent */
    settle(pair.loop);
    assert_int_equal(pair.client.messages, 0);
    close_pair(&pair);
}

/** on_message: say no. */
static void refuse(struct side *side, net_conn *conn, const struct wire_frame *frame)
{
    (void)side;
    assert_int_equal(net_answer_outcome(conn, frame->id, MC_E_BUSY, "later"), MC_OK);
}

static void refuse_without_words(struct side *side, net_conn *conn, const struct wire_frame *frame)
{
    (void)side;
    assert_int_equal(net_answer_outcome(conn, frame->id, MC_E_BUSY, NULL), MC_OK);
}

static void test_a_no_is_an_answer_with_status_and_text(void **state)
{
    (void)state;
    struct pair pair;
    struct told told = { 0 };

    open_pair(&pair, NULL, NULL);
    pair.server.on_message = refuse;
    assert_int_equal(ask(pair.client.conn, 0, &told, NULL), MC_OK);
    turn_until(pair.loop, &told.count, 1);
    assert_int_equal(told.kind, WIRE_OUTCOME);
    assert_int_equal(told.status, MC_E_BUSY);
    assert_string_equal(told.error.text, "later");
    pair.server.on_message = refuse_without_words;
    assert_int_equal(ask(pair.client.conn, 0, &told, NULL), MC_OK);
    turn_until(pair.loop, &told.count, 2);
    assert_string_equal(told.error.text, mc_status_text(MC_E_BUSY));
    close_pair(&pair);
}

static void test_take_tells_what_an_answer_says(void **state)
{
    (void)state;
    uint8_t body[200];
    size_t size;
    struct wire_outcome outcome = { .status = MC_OK }, out;
    struct wire_pong pong = { .mark = 4 };
    struct wire_frame frame = { .kind = WIRE_OUTCOME, .body = body };
    struct mc_error error = { 0 };

    assert_int_equal(wire_encode(WIRE_OUTCOME, &outcome, body, sizeof(body), &size), MC_OK);
    frame.body_size = (uint32_t)size;
    assert_int_equal(net_take(&frame, WIRE_OUTCOME, &out, NULL), MC_OK);
    assert_int_equal(net_take(&frame, WIRE_OUTCOME, NULL, NULL), MC_OK);
    assert_int_equal(net_take(&frame, WIRE_PONG, &pong, &error),
                     MC_E_FORMAT); /* success of what? */
    assert_non_null(strstr(error.text, "pong"));

    outcome = (struct wire_outcome){ .status = MC_E_STALE, .text = wire_text("old\n\x1b[2J") };
    assert_int_equal(wire_encode(WIRE_OUTCOME, &outcome, body, sizeof(body), &size), MC_OK);
    frame.body_size = (uint32_t)size;
    assert_int_equal(net_take(&frame, WIRE_OUTCOME, &out, &error), MC_E_STALE);
    assert_int_equal(out.status, MC_E_STALE);
    assert_string_equal(error.text, "old  [2J");

    outcome.status = MC_PENDING; /* what is no end is no outcome */
    assert_int_equal(wire_encode(WIRE_OUTCOME, &outcome, body, sizeof(body), &size), MC_OK);
    assert_int_equal(net_take(&frame, WIRE_OUTCOME, &out, &error), MC_E_FORMAT);
    frame.body_size = 3;
    assert_int_equal(net_take(&frame, WIRE_OUTCOME, &out, &error), MC_E_FORMAT);

    assert_int_equal(wire_encode(WIRE_PONG, &pong, body, sizeof(body), &size), MC_OK);
    frame = (struct wire_frame){ .kind = WIRE_PONG, .body = body, .body_size = (uint32_t)size };
    pong.mark = 0;
    assert_int_equal(net_take(&frame, WIRE_PONG, &pong, NULL), MC_OK);
    assert_int_equal(pong.mark, 4);
    assert_int_equal(net_take(&frame, WIRE_FOUND, &pong, NULL), MC_E_FORMAT);
    frame.body_size = 1;
    assert_int_equal(net_take(&frame, WIRE_PONG, &pong, NULL), MC_E_FORMAT);
}

static void test_a_deadline_that_passes_is_told_once_and_the_late_answer_to_nobody(void **state)
{
    (void)state;
    struct pair pair;
    struct told told = { 0 }, after = { 0 };

    open_pair(&pair, NULL, NULL);
    assert_int_equal(ask(pair.client.conn, os_now_ns() + 2000000, &told, NULL), MC_OK);
    turn_until(pair.loop, &pair.server.messages, 1);
    const uint64_t id = pair.server.id;
    turn_until(pair.loop, &told.count, 1);
    assert_int_equal(told.status, MC_E_TIMEOUT);
    answer(pair.server.conn, id, id);
    pair.server.on_message = answer_all;
    assert_int_equal(ask(pair.client.conn, 0, &after, NULL), MC_OK);
    turn_until(pair.loop, &after.count, 1);
    assert_int_equal(told.count, 1);
    close_pair(&pair);
}

static void test_what_is_late_already_is_not_sent(void **state)
{
    (void)state;
    struct pair pair;
    struct told told = { 0 };

    open_pair(&pair, NULL, NULL);
    assert_int_equal(ask(pair.client.conn, 1, &told, NULL), MC_OK);
    assert_int_equal(told.count, 0);
    turn_until(pair.loop, &told.count, 1);
    assert_int_equal(told.status, MC_E_TIMEOUT);
    settle(pair.loop);
    assert_int_equal(pair.server.messages, 0);
    close_pair(&pair);
}

static void test_a_question_that_is_forgotten_tells_nobody(void **state)
{
    (void)state;
    struct pair pair;
    struct told told = { 0 }, after = { 0 };
    uint64_t id;

    open_pair(&pair, NULL, NULL);
    pair.server.on_message = answer_all;
    assert_int_equal(ask(pair.client.conn, os_now_ns() + 1000000, &told, &id), MC_OK);
    net_ask_forget(pair.client.conn, id);
    net_ask_forget(pair.client.conn, id);
    net_ask_forget(pair.client.conn, 12345);
    assert_int_equal(ask(pair.client.conn, 0, &after, NULL), MC_OK);
    turn_until(pair.loop, &after.count, 1);
    assert_int_equal(told.count, 0);
    close_pair(&pair);
}

static void test_questions_without_an_answer_are_bounded(void **state)
{
    (void)state;
    struct pair pair;
    struct net_options client = client_options(NULL);
    struct told told[5] = { { 0 } };

    client.asks_max = 4;
    open_pair(&pair, NULL, &client);
    for (int i = 0; i < 4; i++)
        assert_int_equal(ask(pair.client.conn, 0, &told[i], NULL), MC_OK);
    assert_int_equal(ask(pair.client.conn, 0, &told[4], NULL), MC_E_FULL);
    turn_until(pair.loop, &pair.server.messages, 4);
    answer(pair.server.conn, pair.server.id, 1);
    turn_until(pair.loop, &told[3].count, 1);
    assert_int_equal(ask(pair.client.conn, 0, &told[4], NULL), MC_OK);
    net_hang_up(pair.client.conn, false);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(told[i].count, 1);
        assert_int_equal(told[i].status, i == 3 ? MC_OK : MC_E_CANCELLED);
    }
    close_pair(&pair);
}

static void test_what_waits_to_be_sent_is_bounded_and_arrives_whole(void **state)
{
    (void)state;
    static char large[1 << 20];
    struct pair pair;
    struct net_options client = client_options(NULL);
    const struct wire_notify notify = { .name = wire_text("n"),
                                        .message = { large, sizeof(large) } };
    struct told told = { 0 };
    int sent = 0;

    client.out_max = 3 << 20;
    open_pair(&pair, NULL, &client);
    while (net_send(pair.client.conn, WIRE_NOTIFY, &notify) == MC_OK) /* the loop does not turn */
        assert_true(++sent < 1000);
    assert_int_equal(net_send(pair.client.conn, WIRE_NOTIFY, &notify), MC_E_FULL);
    assert_int_equal(net_ask(pair.client.conn, WIRE_NOTIFY, &notify, 0, told_answered, &told, NULL),
                     MC_E_FULL);
    turn_until(pair.loop, &pair.server.messages, sent);
    assert_int_equal(told.count, 0);
    assert_int_equal(net_send(pair.client.conn, WIRE_NOTIFY, &notify), MC_OK);
    turn_until(pair.loop, &pair.server.messages, sent + 1);
    close_pair(&pair);
}

static void test_a_message_that_may_not_be_is_refused_and_nothing_is_sent(void **state)
{
    (void)state;
    static char large[WIRE_BODY_MAX];
    struct pair pair;
    struct told told = { 0 };
    const struct wire_notify huge = { .name = wire_text("n"), .message = { large, sizeof(large) } };
    const struct wire_notify broken = { .name = { "\xff", 1 } };

    open_pair(&pair, NULL, NULL);
    pair.server.on_message = answer_all;
    assert_int_equal(net_send(pair.client.conn, WIRE_NOTIFY, &huge), MC_E_RANGE);
    assert_int_equal(net_ask(pair.client.conn, WIRE_NOTIFY, &broken, 0, told_answered, &told, NULL),
                     MC_E_ARG);
    struct told after = { 0 };
    assert_int_equal(ask(pair.client.conn, 0, &after, NULL), MC_OK);
    turn_until(pair.loop, &after.count, 1);
    assert_int_equal(pair.server.messages, 1);
    assert_int_equal(told.count, 0);
    close_pair(&pair);
}

static void test_the_longest_body_arrives(void **state)
{
    (void)state;
    static char large[WIRE_BODY_MAX - 64];
    struct pair pair;
    const struct wire_notify huge = { .name = wire_text("n"), .message = { large, sizeof(large) } };

    open_pair(&pair, NULL, NULL);
    assert_int_equal(net_send(pair.client.conn, WIRE_NOTIFY, &huge), MC_OK);
    turn_until(pair.loop, &pair.server.messages, 1);
    close_pair(&pair);
}

/* ----------------------------------------------------------------------------------- who is let in */

static void test_who_knows_the_secret_is_let_in_and_nobody_else(void **state)
{
    (void)state;
    static const char *const secrets[][2] = {
        { "one", "one" }, { "one", "two" }, { "one", NULL }, { NULL, "two" }
    };
    for (size_t i = 0; i < 4; i++) {
        struct pair pair = { .loop = new_loop() };
        struct net_options server = server_options(pair.loop), client = client_options(pair.loop);
        server.secret = secrets[i][0];
        server.secret_size = secrets[i][0] ? 3 : 0;
        client.secret = secrets[i][1];
        client.secret_size = secrets[i][1] ? 3 : 0;
        open_server(&pair, &server, "127.0.0.1:0");
        open_client(&pair, &client);
        if (i == 0) {
            turn_until(pair.loop, &pair.client.ups, 1);
        } else {
            turn_until(pair.loop, &pair.client.downs, 1);
            assert_int_equal(pair.client.status, MC_E_DENIED);
            assert_non_null(strstr(pair.client.text, "secret"));
            assert_non_null(strstr(pair.client.text, pair.address));
            assert_int_equal(pair.client.ups, 0);
            assert_int_equal(pair.server.ups, 0);
            assert_int_equal(pair.server.downs, 0); /* nobody has heard of it */
            assert_int_equal(net_counts(pair.server.net).ungreeted, 1);
            turn_until(pair.loop, &pair.client.downs, 2); /* it is tried again */
        }
        close_pair(&pair);
    }
}

static void test_a_wide_address_asks_for_a_secret(void **state)
{
    (void)state;
    os_loop *loop = new_loop();
    struct net_options options = server_options(loop);
    net *n = NULL;
    char address[80];
    struct mc_error error = { 0 };

    assert_int_equal(net_open(&options, &n, NULL), MC_OK);
    assert_int_equal(net_listen(n, "0.0.0.0:0", false, &SIDE_EVENTS, NULL, address, 80, &error),
                     MC_E_DENIED);
    assert_non_null(strstr(error.text, "0.0.0.0:0"));
    assert_non_null(strstr(error.text, "secret"));
    assert_int_equal(net_listen(n, "0.0.0.0:0", true, &SIDE_EVENTS, NULL, address, 80, NULL),
                     MC_OK);
    net_close(n);
    options.secret = "s";
    options.secret_size = 1;
    assert_int_equal(net_open(&options, &n, NULL), MC_OK);
    assert_int_equal(net_listen(n, "0.0.0.0:0", false, &SIDE_EVENTS, NULL, address, 80, NULL),
                     MC_OK);
    net_close(n);
    os_loop_close(loop);
}

static void test_addresses_that_may_not_be_are_refused(void **state)
{
    (void)state;
    struct pair pair;
    char address[80];
    net_conn *conn = NULL;
    struct mc_error error = { 0 };

    open_pair(&pair, NULL, NULL);
    assert_int_equal(
        net_listen(pair.server.net, "nonsense", false, &SIDE_EVENTS, NULL, address, 80, &error),
        MC_E_ARG);
    assert_int_equal(
        net_listen(pair.server.net, pair.address, false, &SIDE_EVENTS, NULL, address, 80, &error),
        MC_E_EXISTS);
    assert_non_null(strstr(error.text, pair.address));
    assert_int_equal(net_dial(pair.client.net, "1.2.3.4", &SIDE_EVENTS, NULL, &conn, &error),
                     MC_E_ARG);
    assert_int_equal(net_dial(pair.client.net, "1.2.3.4:0", &SIDE_EVENTS, NULL, &conn, &error),
                     MC_E_ARG);
    assert_null(conn);
    close_pair(&pair);
}

static void test_a_self_that_may_not_be_is_refused(void **state)
{
    (void)state;
    char longest[2000];
    struct net_options options = server_options(new_loop());
    net *n = NULL;

    memset(longest, 'x', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    options.name = longest;
    assert_int_equal(net_open(&options, &n, NULL), MC_E_RANGE);
    options.name = "";
    assert_int_equal(net_open(&options, &n, NULL), MC_E_ARG);
    options.name = "n";
    options.secret = longest;
    options.secret_size = 1025;
    assert_int_equal(net_open(&options, &n, NULL), MC_E_RANGE);
    options.secret_size = 0;
    assert_int_equal(net_open(&options, &n, NULL), MC_E_RANGE);
    assert_null(n);
    os_loop_close(options.loop);
}

static void test_more_connections_than_allowed_are_closed_at_once_and_counted(void **state)
{
    (void)state;
    struct pair pair;
    struct net_options server = server_options(NULL), client = client_options(NULL);
    struct side second = { 0 };

    server.connections_max = 1;
    open_pair(&pair, &server, NULL);
    client.loop = pair.loop;
    client.incarnation = 201;
    assert_int_equal(net_open(&client, &second.net, NULL), MC_OK);
    assert_int_equal(net_dial(second.net, pair.address, &SIDE_EVENTS, &second, &second.conn, NULL),
                     MC_OK);
    turn_until(pair.loop, &second.downs, 2);
    assert_int_equal(second.status, MC_E_PEER);
    assert_int_equal(second.ups, 0);
    assert_in_range(net_counts(pair.server.net).refused, 2, 3);
    net_hang_up(pair.client.conn, false); /* there is room again */
    turn_until(pair.loop, &second.ups, 1);
    net_close(second.net);
    close_pair(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_sides_meet_and_know_each_other),
        cmocka_unit_test(test_an_incarnation_is_drawn_where_none_is_given),
        cmocka_unit_test(test_a_question_gets_its_answer),
        cmocka_unit_test(test_both_sides_ask_over_one_connection),
        cmocka_unit_test(test_answers_in_any_order_find_their_questions),
        cmocka_unit_test(test_statements_come_in_order_and_are_not_answered),
        cmocka_unit_test(test_a_no_is_an_answer_with_status_and_text),
        cmocka_unit_test(test_take_tells_what_an_answer_says),
        cmocka_unit_test(test_a_deadline_that_passes_is_told_once_and_the_late_answer_to_nobody),
        cmocka_unit_test(test_what_is_late_already_is_not_sent),
        cmocka_unit_test(test_a_question_that_is_forgotten_tells_nobody),
        cmocka_unit_test(test_questions_without_an_answer_are_bounded),
        cmocka_unit_test(test_what_waits_to_be_sent_is_bounded_and_arrives_whole),
        cmocka_unit_test(test_a_message_that_may_not_be_is_refused_and_nothing_is_sent),
        cmocka_unit_test(test_the_longest_body_arrives),
        cmocka_unit_test(test_who_knows_the_secret_is_let_in_and_nobody_else),
        cmocka_unit_test(test_a_wide_address_asks_for_a_secret),
        cmocka_unit_test(test_addresses_that_may_not_be_are_refused),
        cmocka_unit_test(test_a_self_that_may_not_be_is_refused),
        cmocka_unit_test(test_more_connections_than_allowed_are_closed_at_once_and_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
