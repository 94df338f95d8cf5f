/* test_net_talk.c - peers that say what they should not, or not all of it. */
#include "raw.h"

#include "base/crc.h"
#include "wire/bytes.h"

/** A server, and a raw client that has greeted. */
static void open_raw(struct pair *pair, struct raw *raw, const struct net_options *server)
{
    struct net_options options = server ? *server : server_options(NULL);

    *pair = (struct pair){ .loop = new_loop() };
    options.loop = pair->loop;
    open_server(pair, &options, "127.0.0.1:0");
    raw_dial(raw, pair->loop, pair->address);
    raw_greet(raw, 300);
    turn_until(pair->loop, &pair->server.ups, 1);
}

static void close_raw(struct pair *pair, struct raw *raw)
{
    if (raw->fd >= 0)
        close(raw->fd);
    net_close(pair->server.net);
    os_loop_close(pair->loop);
}

static void assert_ended(struct pair *pair, mc_status status, const char *words)
{
    turn_until(pair->loop, &pair->server.downs, 1);
    assert_int_equal(pair->server.status, status);
    assert_non_null(strstr(pair->server.text, words));
    assert_non_null(strstr(pair->server.text, "127.0.0.1:"));
    assert_non_null(strstr(pair->server.text, "(raw)"));
}

static void test_frames_that_may_not_be_end_the_connection(void **state)
{
    (void)state;
    static const struct {
        struct wire_frame frame;
        mc_status status;
        const char *words;
    } cases[] = {
        { { .kind = WIRE_STOP, .payload = 1 }, MC_E_RANGE, "payload" },
        { { .kind = WIRE_STOP, .flags = 1 << 8 }, MC_E_UNSUPPORTED, "flags" },
        { { .kind = WIRE_HELLO }, MC_E_FORMAT, "greeting" },
        { { .kind = WIRE_HELLO_PROOF, .id = 4 }, MC_E_FORMAT, "greeting" },
        { { .kind = WIRE_PING, .id = 4 }, MC_E_FORMAT, "ping" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct pair pair;
        struct raw raw;
        uint8_t head[WIRE_HEADER_BYTES];
        open_raw(&pair, &raw, NULL);
        wire_header_encode(&cases[i].frame, head);
        raw_send(&raw, head, sizeof(head));
        assert_ended(&pair, cases[i].status, cases[i].words);
        raw_end(&raw);
        close_raw(&pair, &raw);
    }
}

static void test_a_sum_that_is_wrong_ends_the_connection(void **state)
{
    (void)state;
    const struct wire_stop stop = { .request = 9 };

    for (int where = 0; where < 2; where++) {
        struct pair pair;
        struct raw raw;
        uint8_t bytes[100 + 4096];
        open_raw(&pair, &raw, NULL);
        const size_t size = raw_frame(bytes, WIRE_STOP, 0, 0, &stop);
        bytes[where ? size - 1 : 20] ^= 1;
        raw_send(&raw, bytes, size);
        assert_ended(&pair, MC_E_CORRUPT, where ? "body" : "header");
        assert_int_equal(pair.server.messages, 0);
        close_raw(&pair, &raw);
    }
}

static void test_a_body_longer_than_any_ends_the_connection_before_it_comes(void **state)
{
    (void)state;
    struct pair pair;
    struct raw raw;
    uint8_t head[WIRE_HEADER_BYTES];
    const struct wire_frame frame = { .kind = WIRE_NOTIFY };

    open_raw(&pair, &raw, NULL);
    wire_header_encode(&frame, head);
    put_u32(head, WIRE_BODY_MAX + 1);
    put_u32(head + 36, crc32c(0, head, 36));
    raw_send(&raw, head, sizeof(head));
    assert_ended(&pair, MC_E_RANGE, "body");
    close_raw(&pair, &raw);
}

static void test_a_peer_that_closes_at_any_byte_of_a_message_is_gone(void **state)
{
    (void)state;
    const struct wire_stop stop = { .request = 9 };
    uint8_t bytes[100 + 4096];
    const size_t size = raw_frame(bytes, WIRE_STOP, 0, 0, &stop);

    for (size_t cut = 0; cut <= size; cut++) {
        struct pair pair;
        struct raw raw;
        open_raw(&pair, &raw, NULL);
        raw_send(&raw, bytes, cut);
        settle(pair.loop);
        close(raw.fd);
        raw.fd = -1;
        assert_ended(&pair, MC_E_PEER, cut > 0 && cut < size ? "middle" : "closed the connection");
        assert_int_equal(pair.server.messages, cut == size);
        close_raw(&pair, &raw);
    }
}

static void test_a_reset_is_a_peer_that_is_gone(void **state)
{
    (void)state;
    struct pair pair;
    struct raw raw;
    const struct linger at_once = { .l_onoff = 1, .l_linger = 0 };

    open_raw(&pair, &raw, NULL);
    assert_int_equal(setsockopt(raw.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)), 0);
    close(raw.fd);
    raw.fd = -1;
    assert_ended(&pair, MC_E_PEER, "reset");
    close_raw(&pair, &raw);
}

static void test_sending_to_one_who_is_gone_says_so_where_reading_does(void **state)
{
    (void)state;
    struct pair pair;
    struct raw raw;
    const struct wire_stop stop = { .request = 1 }, last = { .request = 2 };

    open_raw(&pair, &raw, NULL);
    raw_say(&raw, WIRE_STOP, 0, 0, &last); /* its last words, and it reads nothing more */
    close(raw.fd);
    raw.fd = -1;
    for (int i = 0; i < 10; i++) /* the second one meets a reset: SIGPIPE would end the test */
        assert_int_equal(net_send(pair.server.conn, WIRE_STOP, &stop), MC_OK);
    turn_until(pair.loop, &pair.server.downs, 1);
    assert_int_equal(pair.server.messages, 1);
    assert_int_equal(pair.server.status, MC_E_PEER);
    close_raw(&pair, &raw);
}

static void test_messages_that_come_byte_by_byte_are_messages(void **state)
{
    (void)state;
    struct pair pair;
    struct raw raw;
    uint8_t bytes[100 + 4096];
    const struct wire_stop stop = { .request = 9 };
    const size_t size = raw_frame(bytes, WIRE_STOP, 0, 0, &stop);

    open_raw(&pair, &raw, NULL);
    for (int round = 1; round <= 3; round++) {
        for (size_t i = 0; i < size; i++) {
            raw_send(&raw, bytes + i, 1);
            assert_int_equal(os_loop_turn(pair.loop, 0), MC_OK);
        }
        turn_until(pair.loop, &pair.server.messages, round);
    }
    close_raw(&pair, &raw);
}

static void test_a_long_body_in_pieces_and_a_short_one_behind_it(void **state)
{
    (void)state;
    static uint8_t bytes[WIRE_HEADER_BYTES + (300 << 10)], text[290 << 10];
    struct pair pair;
    struct raw raw;
    const struct wire_notify notify = { .name = wire_text("n"), .message = { text, sizeof(text) } };
    struct wire_frame frame = { .kind = WIRE_NOTIFY, .body = bytes + WIRE_HEADER_BYTES };
    const struct wire_stop stop = { .request = 9 };
    size_t size;

    assert_int_equal(wire_encode(WIRE_NOTIFY, &notify, bytes + WIRE_HEADER_BYTES, 300 << 10, &size),
                     MC_OK);
    frame.body_size = (uint32_t)size;
    wire_header_encode(&frame, bytes);
    open_raw(&pair, &raw, NULL);
    for (int round = 0; round < 3; round++) {
        raw_send(&raw, bytes, 70);
        settle(pair.loop);
        raw_send(&raw, bytes + 70, WIRE_HEADER_BYTES + size - 70);
        raw_say(&raw, WIRE_STOP, 0, 0, &stop);
        turn_until(pair.loop, &pair.server.messages, 2 * round + 2);
    }
    close_raw(&pair, &raw);
}

static void test_an_answer_to_what_nobody_asked_is_dropped(void **state)
{
    (void)state;
    struct pair pair;
    struct raw raw;
    const struct wire_pong pong = { .mark = 1 };
    struct told told = { 0 };

    open_raw(&pair, &raw, NULL);
    raw_say(&raw, WIRE_PONG, 0, WIRE_ANSWER, &pong);
    raw_say(&raw, WIRE_PONG, 77, WIRE_ANSWER, &pong);
    settle(pair.loop);
    assert_int_equal(ask(pair.server.conn, 0, &told, NULL), MC_OK);
    const struct wire_frame question = raw_hear(&raw);
    raw_say(&raw, WIRE_PONG, question.id + 16, WIRE_ANSWER, &pong); /* the same slot */
    settle(pair.loop);
    assert_int_equal(told.count, 0);
    raw_say(&raw, WIRE_PONG, question.id, WIRE_ANSWER, &pong);
    turn_until(pair.loop, &told.count, 1);
    raw_say(&raw, WIRE_PONG, question.id, WIRE_ANSWER, &pong); /* twice */
    settle(pair.loop);
    assert_int_equal(told.count, 1);
    assert_int_equal(pair.server.messages, 0);
    assert_int_equal(pair.server.downs, 0);
    close_raw(&pair, &raw);
}

static void test_pings_are_answered_and_not_passed_on(void **state)
{
    (void)state;
    struct pair pair;
    struct raw raw;
    const struct wire_ping ping = { .mark = 42 };
    struct wire_pong pong;

    open_raw(&pair, &raw, NULL);
    raw_say(&raw, WIRE_PING, 0, 0, &ping); /* a statement: no answer */
    raw_say(&raw, WIRE_PING, 5, 0, &ping);
    const struct wire_frame frame = raw_hear(&raw);
    assert_int_equal(frame.id, 5);
    assert_int_equal(frame.flags, WIRE_ANSWER);
    assert_int_equal(net_take(&frame, WIRE_PONG, &pong, NULL), MC_OK);
    assert_int_equal(pong.mark, 42);
    assert_int_equal(pair.server.messages, 0);
    close_raw(&pair, &raw);
}

static void test_who_pings_and_never_reads_fills_no_memory(void **state)
{
    (void)state;
    enum { PINGS = 5000, ROUNDS = 1000 };
    static uint8_t burst[PINGS * 64];
    struct pair pair;
    struct raw raw;
    struct net_options server = server_options(NULL);
    uint8_t bytes[100 + 4096];
    const struct wire_ping ping = { .mark = 42 };
    const struct wire_stop stop = { .request = 1 };
    mc_status status = MC_OK;
    int rounds = 0;

    server.out_max = 1000;
    open_raw(&pair, &raw, &server);
    const size_t size = raw_frame(bytes, WIRE_PING, 5, 0, &ping);
    for (size_t i = 0; i < PINGS; i++)
        memcpy(burst + i * size, bytes, size);
    for (; status == MC_OK && rounds < ROUNDS; rounds++) {
        raw_send(&raw, burst, PINGS * size);
        settle(pair.loop);
        status = net_send(pair.server.conn, WIRE_STOP, &stop);
    }
    assert_int_equal(status, MC_E_FULL);
    raw_say(&raw, WIRE_STOP, 0, 0, &stop);
    turn_until(pair.loop, &pair.server.messages, 1); /* it reads on, and is still there */
    assert_int_equal(pair.server.downs, 0);
    close_raw(&pair, &raw);
}

static void test_messages_of_a_later_release_come_to_the_user(void **state)
{
    (void)state;
    struct pair pair;
    struct raw raw;
    uint8_t head[WIRE_HEADER_BYTES];
    const struct wire_frame frame = { .kind = 60000, .id = 3, .flags = 2 };

    open_raw(&pair, &raw, NULL);
    wire_header_encode(&frame, head);
    raw_send(&raw, head, sizeof(head));
    turn_until(pair.loop, &pair.server.messages, 1);
    assert_int_equal(pair.server.kind, 60000);
    close_raw(&pair, &raw);
}

static void test_who_does_not_greet_is_let_go(void **state)
{
    (void)state;
    static const char http[] = "GET / HTTP/1.1\r\n\r\n and some more to have thirty-two bytes";
    struct pair pair = { .loop = new_loop() };
    struct net_options server = server_options(pair.loop);
    struct raw silent, stranger, gone;

    server.greet_ns = 20000000;
    open_server(&pair, &server, "127.0.0.1:0");
    raw_dial(&silent, pair.loop, pair.address);
    raw_dial(&stranger, pair.loop, pair.address);
    raw_dial(&gone, pair.loop, pair.address);
    raw_send(&stranger, http, sizeof(http));
    close(gone.fd);
    assert_true(raw_end(&stranger) > WIRE_GREETING_BYTES); /* only what everybody gets */
    assert_true(raw_end(&silent) > WIRE_GREETING_BYTES);
    settle(pair.loop);
    assert_int_equal(net_counts(pair.server.net).ungreeted, 3);
    assert_int_equal(net_counts(pair.server.net).accepted, 0);
    assert_int_equal(pair.server.ups + pair.server.downs, 0);
    close(silent.fd);
    close(stranger.fd);
    net_close(pair.server.net);
    os_loop_close(pair.loop);
}

static void test_who_says_why_it_ends_the_connection_is_quoted(void **state)
{
    (void)state;
    static const mc_status said[] = { MC_E_DENIED, MC_E_BUSY, MC_OK },
                           heard[] = { MC_E_DENIED, MC_E_PEER, MC_E_PEER };
    for (int i = 0; i < 3; i++) {
        struct pair pair;
        struct raw raw;
        const struct wire_outcome outcome = { .status = said[i], .text = wire_text("not today") };
        open_raw(&pair, &raw, NULL);
        raw_say(&raw, WIRE_OUTCOME, 0, 0, &outcome);
        assert_ended(&pair, heard[i], said[i] == MC_OK ? "ended" : "not today");
        assert_int_equal(pair.server.messages, 0);
        close_raw(&pair, &raw);
    }
}

static void test_greeting_and_first_messages_may_come_in_one_piece(void **state)
{
    (void)state;
    static struct wire_handshake h;
    struct pair pair = { .loop = new_loop() };
    struct net_options server = server_options(pair.loop);
    const struct wire_self self = { .incarnation = 300, .role = 1, .name = "raw" };
    const struct wire_stop stop = { .request = 1 };
    struct raw raw;
    uint8_t bytes[8192];
    const uint8_t *out;

    open_server(&pair, &server, "127.0.0.1:0");
    raw_dial(&raw, pair.loop, pair.address);
    assert_int_equal(wire_handshake_init(&h, &self, true, NULL, NULL), MC_OK);
    size_t size = wire_handshake_out(&h, &out);
    memcpy(bytes, out, size);
    size += raw_frame(bytes + size, WIRE_STOP, 0, 0, &stop);
    size += raw_frame(bytes + size, WIRE_STOP, 0, 0, &stop);
    raw_send(&raw, bytes, size);
    turn_until(pair.loop, &pair.server.messages, 2);
    assert_int_equal(pair.server.ups, 1);
    close_raw(&pair, &raw);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frames_that_may_not_be_end_the_connection),
        cmocka_unit_test(test_a_sum_that_is_wrong_ends_the_connection),
        cmocka_unit_test(test_a_body_longer_than_any_ends_the_connection_before_it_comes),
        cmocka_unit_test(test_a_peer_that_closes_at_any_byte_of_a_message_is_gone),
        cmocka_unit_test(test_a_reset_is_a_peer_that_is_gone),
        cmocka_unit_test(test_sending_to_one_who_is_gone_says_so_where_reading_does),
        cmocka_unit_test(test_messages_that_come_byte_by_byte_are_messages),
        cmocka_unit_test(test_a_long_body_in_pieces_and_a_short_one_behind_it),
        cmocka_unit_test(test_an_answer_to_what_nobody_asked_is_dropped),
        cmocka_unit_test(test_pings_are_answered_and_not_passed_on),
        cmocka_unit_test(test_who_pings_and_never_reads_fills_no_memory),
        cmocka_unit_test(test_messages_of_a_later_release_come_to_the_user),
        cmocka_unit_test(test_who_does_not_greet_is_let_go),
        cmocka_unit_test(test_who_says_why_it_ends_the_connection_is_quoted),
        cmocka_unit_test(test_greeting_and_first_messages_may_come_in_one_piece),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
