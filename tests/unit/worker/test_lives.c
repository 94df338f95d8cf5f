/* test_lives.c - cancels, deaths, lies and delays at every phase: everything that was held comes back. */
#include "house.h"

#include "os/clock.h"
#include "os/sysalloc.h"

#define MILLISECOND UINT64_C(1000000)

static void turns(struct house *h, uint32_t count)
{
    while (count-- > 0)
        house_turn(h);
}

static void test_a_cancel_at_any_time_brings_everything_back(void **state)
{
    (void)state;
    struct house *h = house_pair(16, true);
    uint32_t early = 0, late = 0, over = 0;

    for (uint32_t turn = 0; turn < 36; turn++) {
        struct client *c = house_client(h, turn, 120, 30);
        fake_moves.hold_pushes = turn % 4 == 1;
        fake_moves.hold_pulls = turn % 4 == 2;
        fake_moves.hold_puts = turn % 4 == 3;
        c->pull_tokens = turn % 4 == 2 ? 96 : 0;
        house_ask(c);
        turns(h, turn);
        c->alone = true; /* whoever is still to be reserved is not prefilled any more */
        early += c->count == 0;
        late += c->count > 0 && c->finish == GOES_ON;
        over += c->finish != GOES_ON;
        house_cancel(c);
        house_until(h, c->cancel_answered);
        assert_true(house_is_empty(h)); /* when it is answered, not some time later */
    }
    fake_moves.hold_pushes = fake_moves.hold_pulls = fake_moves.hold_puts = false;
    assert_true(early > 5);
    struct client *c =
        house_client(h, 7, 50, 5); /* and the next one is served as if nothing had been */
    house_ask(c);
    house_until(h, client_done(c));
    assert_right(c);
    house_close(h);
    (void)late;
    (void)over;
}

static void test_a_wrong_byte_is_found_before_the_first_step(void **state)
{
    (void)state;
    struct house *h = house_pair(32, false);
    struct client *c = house_client(h, 1, 100, 10);

    fake_moves.corrupt = 9;
    house_ask(c);
    house_until(h, client_done(c));
    assert_int_equal(c->end_status, MC_E_CORRUPT);
    assert_int_equal(c->count, 0);
    assert_int_equal(house_counter(h, 1, "corrupt"), 1);
    assert_int_equal(house_counter(h, 1, "joined"), 0);
    house_until(h, house_is_empty(h));
    house_close(h);
}

static void test_a_push_that_fails_ends_the_prefill_at_once(void **state)
{
    (void)state;
    struct house *h = house_pair(16, true);
    struct client *c = house_client(h, 1, 200, 10);

    fake_moves.fail = 5;
    house_ask(c);
    house_until(h, client_done(c));
    assert_int_equal(c->end_status, MC_E_PEER);
    house_cancel(c); /* as the gateway does: the reservation is still there */
    house_until(h, house_is_empty(h) && c->cancel_answered);
    house_close(h);
}

static void test_a_reservation_without_progress_ends_by_itself(void **state)
{
    (void)state;
    struct house *h = house_pair(16, false);
    struct client *c = house_client(h, 1, 50, 10);

    c->lease_ns = 100 * MILLISECOND;
    c->alone = true; /* no prefill follows */
    house_ask(c);
    house_until(h, c->reserved);
    assert_int_equal(house_counter(h, 1, "pages_reserved"), 4);
    assert_int_equal(fake_windows(), 1);
    house_until(h, c->finish == FAILED);
    assert_int_equal(c->status, MC_E_TIMEOUT);
    assert_int_equal(house_counter(h, 1, "expired"), 1);
    house_until(h, house_is_empty(h));
    house_close(h);
}

struct gap {
    uint64_t last_ns, longest_ns;
};

/* The time, and how long nobody asked for it. */
static uint64_t noted(struct gap *gap)
{
    const uint64_t now_ns = os_now_ns(), ns = now_ns - gap->last_ns;

    gap->longest_ns = ns > gap->longest_ns ? ns : gap->longest_ns;
    gap->last_ns = now_ns;
    return now_ns;
}

/* False: it did not, but the loop stood still for so long that the lease ended before anybody could renew it. */
static bool keeps_its_reservation(void)
{
    struct house *h = house_pair(16, true);
    struct client *c = house_client(h, 1, 60, 10);
    struct gap gap = { os_now_ns(), 0 };

    c->lease_ns = 150 * MILLISECOND;
    c->pull_tokens = 48;
    fake_moves.hold_pulls = true; /* its pull takes three leases */
    house_ask(c);
    const uint64_t until = os_now_ns() + 450 * MILLISECOND;
    house_until(h, noted(&gap) > until);
    const bool kept = c->finish == GOES_ON;
    fake_moves.hold_pulls = false;
    house_until(h, noted(&gap) > 0 && client_done(c));
    const bool counts = (kept && c->end_status == MC_OK) || gap.longest_ns <= c->lease_ns / 3;
    if (counts) {
        assert_true(kept);
        assert_int_equal(c->end_status, MC_OK);
        assert_right(c);
    }
    house_until(h, house_is_empty(h));
    house_close(h);
    return counts;
}

static void test_a_prefill_that_waits_or_goes_on_keeps_its_reservation(void **state)
{
    (void)state;
    for (uint32_t tries = 0; !keeps_its_reservation(); tries++)
        assert_true(tries < 20);
}

static void test_a_prefill_that_stands_still_loses_its_reservation(void **state)
{
    (void)state;
    struct house *h = house_pair(16, false);
    struct client *c = house_client(h, 1, 60, 10);

    c->lease_ns = 150 * MILLISECOND;
    fake_moves.hold_pushes = true;
    house_ask(c);
    house_until(h, c->finish == FAILED && c->end_status != MC_PENDING);
    assert_int_equal(c->status, MC_E_TIMEOUT);
    assert_int_equal(c->end_status, MC_E_STALE); /* the decode worker told it */
    house_until(h, house_is_empty(h));
    house_close(h);
}

static void test_pages_that_are_pinned_stay_in_quarantine(void **state)
{
    (void)state;
    struct house *h = house_pair(16, false);
    struct client *c = house_client(h, 1, 50, 10);

    c->alone = true;
    house_ask(c);
    house_until(h, c->reserved);
    fake_moves.pinned = true;
    house_cancel(c);
    turns(h, 40);
    assert_false(c->cancel_answered);
    assert_int_equal(house_counter(h, 1, "pages_quarantined"), 4);
    assert_true(house_counter(h, 1, "pages_free") < house_counter(h, 1, "pages"));
    fake_moves.pinned = false;
    house_until(h, c->cancel_answered);
    assert_true(house_is_empty(h));
    house_close(h);
}

static void test_a_lost_gateway_takes_its_requests_with_it(void **state)
{
    (void)state;
    struct house *h = house_pair(16, true);

    for (uint64_t i = 0; i < 6; i++)
        house_ask(house_client(h, i, 100, 60));
    house_until(h, h->clients[0].count > 2);
    for (uint32_t i = 0; i < 2; i++)
        net_hang_up(h->guests[i].conn, false);
    h->guests[0].conn = h->guests[1].conn = NULL;
    house_until(h, house_is_empty(h));
    house_until(h, h->guests[0].conn && h->guests[1].conn); /* and they come again */
    house_until(h, h->guests[0].instance == 2 && h->guests[1].instance == 2);
    struct client *c = house_client(h, 9, 50, 5);
    house_ask(c);
    house_until(h, client_done(c));
    assert_right(c);
    house_until(h, house_is_empty(h));
    house_close(h);
}

static void test_a_decode_worker_that_goes_away_fails_what_was_on_its_way(void **state)
{
    (void)state;
    struct house *h = house_open();
    struct worker_options p = house_options("p", MC_ROLE_PREFILL),
                          d = house_options("d", MC_ROLE_DECODE);
    struct client *c;

    p.hand_off_ns = 300 * MILLISECOND;
    p.chunk_tokens = 16;
    house_add(h, &p);
    house_add(h, &d);
    for (uint32_t phase = 0; phase < 3; phase++) {
        c = house_client(h, phase, 100, 60);
        fake_moves.hold_pushes = phase == 1;
        house_ask(c);
        if (phase == 0)
            house_until(h, c->reserved);
        else
            house_until(h, house_counter(h, 0, "prompt_tokens") >= 100 * (phase + 1));
        house_lose_last(h);
        fake_moves.hold_pushes = false;
        house_until(h, c->end_status != MC_PENDING || c->take_status < 0);
        assert_true(c->end_status != MC_OK || c->finish == GOES_ON);
        house_until(h, house_is_empty(h));
        house_add(h, &d);
    }
    c = house_client(h, 9, 50, 5); /* the new one takes over where the old one was */
    house_ask(c);
    house_until(h, client_done(c));
    assert_right(c);
    house_close(h);
}

static void test_a_full_queue_of_puts_drops_and_counts(void **state)
{
    (void)state;
    struct house *h = house_open();
    struct worker_options o = house_options("both", MC_ROLE_BOTH);
    o.master = "127.0.0.1:1";
    o.put_blocks_max = 4;
    o.chunk_tokens = 16;
    house_add(h, &o);

    fake_moves.hold_puts = true;
    struct client *c = house_client(h, 1, 200, 10);
    c->decode = 0;
    house_ask(c);
    house_until(h, client_done(c));
    assert_int_equal(house_counter(h, 0, "puts_dropped"), 209 / 16 - 4);
    assert_int_equal(house_counter(h, 0, "puts_stored"), 0);
    assert_int_equal(house_counter(h, 0, "pages") - house_counter(h, 0, "pages_free"), 4);
    fake_moves.hold_puts = false;
    house_until(h, house_is_empty(h));
    assert_int_equal(house_counter(h, 0, "puts_stored"), 4);
    assert_right(c);
    house_close(h);
}

/* More puts than its inbox holds events end at once when it is cancelled. */
static void test_a_cancelled_request_ends_all_the_puts_that_wait(void **state)
{
    (void)state;
    struct house *h = house_open();
    struct worker_options o = house_options("both", MC_ROLE_BOTH);
    o.master = "127.0.0.1:1";
    o.chunk_tokens = 16;
    house_add(h, &o);

    fake_moves.hold_puts = true;
    struct client *c = house_client(h, 1, HOUSE_PROMPT, HOUSE_ANSWER);
    c->decode = 0;
    house_ask(c);
    house_until(h, c->count > 0);
    house_cancel(c);
    house_until(h, c->cancel_answered);
    assert_true(house_counter(h, 0, "puts_dropped") >= 70 - 4);
    assert_true(house_is_empty(h));
    house_close(h);
}

static char heard[4000];

static void hear(void *context, enum mc_log_level level, const char *line, size_t size)
{
    const size_t at = strlen(heard);

    (void)context;
    (void)level;
    if (at + size + 1 < sizeof(heard)) {
        memcpy(heard + at, line, size);
        heard[at + size] = '\0';
    }
}

/* Why it does not get ready; and not each time that it dials. */
static void test_a_gateway_that_is_not_reached_is_told_of_once(void **state)
{
    (void)state;
    struct house *h = house_open();
    struct worker_options o = house_options("w", MC_ROLE_BOTH);
    const char *gateways[] = { "127.0.0.1:1" };
    worker *w = NULL;

    heard[0] = '\0';
    o.alloc = os_alloc();
    o.loop = h->loop;
    o.log = (struct mc_log){ hear, NULL, MC_LOG_INFO };
    o.gateways = gateways;
    o.gateway_count = 1;
    assert_int_equal(worker_open(&o, &w, NULL), MC_OK);
    house_until(h, strstr(heard, "event=gateway_away status=MC_E_PEER"));
    assert_non_null(strstr(heard, "127.0.0.1:1"));
    turns(h, 50);
    assert_null(strstr(strstr(heard, "event=gateway_away") + 1, "event=gateway_away"));
    worker_close(w);
    house_close(h);
}

static bool drained;

static void on_drained(void *user)
{
    (void)user;
    drained = true;
}

static void test_a_draining_worker_finishes_and_takes_no_more(void **state)
{
    (void)state;
    struct house *h = house_pair(16, false);
    struct client *c = house_client(h, 1, 100, 20), *late = house_client(h, 2, 20, 5);

    drained = false;
    house_ask(c);
    house_until(h, c->taken);
    worker_drain(h->guests[0].worker, on_drained, NULL);
    worker_drain(h->guests[1].worker, NULL, NULL);
    assert_false(drained);
    house_ask(late);
    house_until(h, late->reserve_status != MC_PENDING);
    assert_int_equal(late->reserve_status, MC_E_BUSY);
    house_until(h, client_done(c));
    assert_int_equal(c->finish, LENGTH);
    house_until(h, drained);
    house_until(h, h->guests[0].report.draining && h->guests[1].report.draining);
    assert_right(c);
    house_close(h);
}

static void test_what_is_asked_again_is_answered_again(void **state)
{
    (void)state;
    struct house *h = house_pair(16, false);
    struct client *c = house_client(h, 1, 50, 10);

    c->alone = true;
    house_ask(c);
    house_until(h, c->reserved);
    const struct wire_reserved first = c->grant;
    c->reserved = false;
    house_ask(c);
    house_until(h, c->reserved);
    assert_int_equal(c->grant.reservation, first.reservation);
    assert_memory_equal(&c->grant.window.key, &first.window.key, sizeof(first.window.key));
    assert_int_equal(house_counter(h, 1, "reservations"), 1);
    house_cancel(c);
    house_until(h, c->cancel_answered);
    c->cancel_answered = false;
    house_cancel(c); /* nothing is there: that is an answer too */
    house_until(h, c->cancel_answered);
    house_close(h);
}

static void test_what_cannot_be_served_is_refused(void **state)
{
    (void)state;
    struct house *h = house_pair(16, false);
    static const struct {
        uint32_t prompt_count, prefill, decode;
        float temperature;
        bool other_model, beyond;
        mc_status reserve, take;
    } cases[] = {
        { 20, 0, 1, -1, false, false, MC_E_RANGE, MC_PENDING },
        { 20, 0, 1, 1, true, false, MC_E_ARG, MC_PENDING },
        { 20, 1, 0, 1, false, false, MC_E_UNSUPPORTED, MC_PENDING }, /* roles the wrong way */
        { 20, 0, 0, 1, false, false, MC_PENDING, MC_E_UNSUPPORTED }, /* it does not decode */
        { 0, 0, 1, 1, false, false, MC_E_RANGE, MC_PENDING },
        { 20, 0, 1, 1, false, true, MC_OK, MC_E_RANGE },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct client *c = house_client(h, i, cases[i].prompt_count, 5);
        struct mc_identity kept = h->guests[1].fingerprint;
        c->prefill = cases[i].prefill;
        c->decode = cases[i].decode;
        c->sampling.temperature = cases[i].temperature;
        h->guests[1].fingerprint.bytes[31] ^= cases[i].other_model;
        if (cases[i].beyond)
            c->prompt[3] = 512;
        house_ask(c);
        house_until(h, c->take_status < 0 || c->reserve_status < 0);
        assert_int_equal(c->reserve_status, cases[i].reserve);
        assert_int_equal(c->take_status, cases[i].take);
        h->guests[1].fingerprint = kept;
        if (c->reserve_status == MC_OK) {
            house_cancel(c);
            house_until(h, c->cancel_answered);
        }
    }
    house_until(h, house_is_empty(h));
    house_close(h);
}

static mc_status stranger_status;

static void on_stranger_answered(void *user, mc_status status, const struct wire_frame *frame)
{
    struct wire_outcome outcome;
    struct mc_error error = { 0 };

    (void)user;
    stranger_status = status == MC_OK ? net_take(frame, WIRE_OUTCOME, &outcome, &error) : status;
}

static void on_stranger_up(void *user, net_conn *conn, const struct net_peer *peer)
{
    (void)user;
    (void)conn;
    (void)peer;
}

static void on_stranger_message(void *user, net_conn *conn, const struct wire_frame *frame)
{
    (void)user;
    (void)conn;
    fail_msg("message of kind %u", frame->kind);
}

static void on_stranger_down(void *user, net_conn *conn, mc_status status, const char *text)
{
    (void)user;
    (void)conn;
    (void)status;
    (void)text;
}

static void test_only_the_holder_hands_off_and_renews(void **state)
{
    (void)state;
    static const struct net_events events = { on_stranger_up, on_stranger_message,
                                              on_stranger_down };
    struct house *h = house_pair(16, false);
    struct client *c = house_client(h, 1, 20, 10);
    const uint32_t checksums[2] = { 0 };
    net_conn *conn;

    fake_moves.hold_pushes = true;
    house_ask(c);
    house_until(h, c->taken);
    assert_int_equal(net_dial(h->gateway, h->guests[1].address, &events, NULL, &conn, NULL), MC_OK);
    house_until(h, net_conn_is_up(conn));
    const struct wire_hand_off forged = { .request = c->request,
                                          .reservation = c->reservation,
                                          .position = 20,
                                          .tokens = { c->prompt, 20 },
                                          .fingerprint = h->guests[1].fingerprint,
                                          .checksums = { checksums, 2 } };
    const struct wire_reservation_renew renewal = { .reservation = c->reservation, .tokens = 99 };
    const struct wire_hand_off unknown = { .request = c->request, .reservation = 999 };
    stranger_status = MC_PENDING;
    assert_int_equal(net_ask(conn, WIRE_HAND_OFF, &forged, 0, on_stranger_answered, NULL, NULL),
                     MC_OK);
    house_until(h, stranger_status != MC_PENDING);
    assert_int_equal(stranger_status, MC_E_DENIED);
    stranger_status = MC_PENDING;
    assert_int_equal(
        net_ask(conn, WIRE_RESERVATION_RENEW, &renewal, 0, on_stranger_answered, NULL, NULL),
        MC_OK);
    house_until(h, stranger_status != MC_PENDING);
    assert_int_equal(stranger_status, MC_E_DENIED);
    stranger_status = MC_PENDING;
    assert_int_equal(net_ask(conn, WIRE_HAND_OFF, &unknown, 0, on_stranger_answered, NULL, NULL),
                     MC_OK);
    house_until(h, stranger_status != MC_PENDING);
    assert_int_equal(stranger_status, MC_E_STALE);
    fake_moves.hold_pushes = false;
    house_until(h, client_done(c));
    assert_right(c);
    net_hang_up(conn, false);
    house_close(h);
}

static void test_close_in_the_middle_of_everything_leaves_nothing(void **state)
{
    (void)state;
    for (uint32_t turn = 0; turn < 24; turn += 3) {
        struct house *h = house_pair(16, true);
        fake_moves.hold_pushes = turn % 2;
        fake_moves.hold_puts = turn % 4 == 0;
        for (uint64_t i = 0; i < 4; i++)
            house_ask(house_client(h, i, 120, 40));
        turns(h, turn);
        house_close(h); /* asserts */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_cancel_at_any_time_brings_everything_back),
        cmocka_unit_test(test_a_wrong_byte_is_found_before_the_first_step),
        cmocka_unit_test(test_a_push_that_fails_ends_the_prefill_at_once),
        cmocka_unit_test(test_a_reservation_without_progress_ends_by_itself),
        cmocka_unit_test(test_a_prefill_that_waits_or_goes_on_keeps_its_reservation),
        cmocka_unit_test(test_a_prefill_that_stands_still_loses_its_reservation),
        cmocka_unit_test(test_pages_that_are_pinned_stay_in_quarantine),
        cmocka_unit_test(test_a_lost_gateway_takes_its_requests_with_it),
        cmocka_unit_test(test_a_decode_worker_that_goes_away_fails_what_was_on_its_way),
        cmocka_unit_test(test_a_full_queue_of_puts_drops_and_counts),
        cmocka_unit_test(test_a_cancelled_request_ends_all_the_puts_that_wait),
        cmocka_unit_test(test_a_gateway_that_is_not_reached_is_told_of_once),
        cmocka_unit_test(test_a_draining_worker_finishes_and_takes_no_more),
        cmocka_unit_test(test_what_is_asked_again_is_answered_again),
        cmocka_unit_test(test_what_cannot_be_served_is_refused),
        cmocka_unit_test(test_only_the_holder_hands_off_and_renews),
        cmocka_unit_test(test_close_in_the_middle_of_everything_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
