/* test_answer.c - the control port, asked by a peer that is no engine: windows, counters, notices. */
#include "engines.h"

#include "net/net.h"
#include "os/loop.h"
#include "os/sysalloc.h"
#include "transfer/engine.h"

enum { SIZE = 4096, BOTH = MC_REMOTE_READ | MC_REMOTE_WRITE };

static unsigned char memory[SIZE];

/* A bare net and the engine it asks, both turned by the test's own thread. */
struct asker {
    mc_transfer *engine;
    os_loop *loop;
    net *net;
    net_conn *conn;
    bool up, answered;
    mc_status status;
    uint32_t kind;
    uint8_t body[4096];
    struct wire_frame frame;
};

static void on_up(void *user, net_conn *conn, const struct net_peer *peer)
{
    (void)conn;
    assert_int_equal(peer->role, NET_ENGINE);
    ((struct asker *)user)->up = true;
}

static void on_message(void *user, net_conn *conn, const struct wire_frame *frame)
{
    (void)user;
    (void)conn;
    (void)frame;
}

static void on_down(void *user, net_conn *conn, mc_status status, const char *text)
{
    (void)conn;
    (void)status;
    (void)text;
    ((struct asker *)user)->up = false;
}

static const struct net_events events = { on_up, on_message, on_down };

static void turn(struct asker *asker)
{
    assert_int_equal(mc_transfer_progress(asker->engine, NULL), MC_OK);
    assert_int_equal(os_loop_turn(asker->loop, 0), MC_OK);
}

static void open_asker(struct asker *asker)
{
    const struct mc_transfer_options options = {
        .transports = "self", .name = "the engine", .notices_max = 2, .flags = MC_TRANSFER_DRIVEN
    };
    struct mc_transfer_info info;

    *asker = (struct asker){ .engine = open_engine(&options) };
    assert_int_equal(os_loop_open(os_alloc(), &asker->loop, NULL), MC_OK);
    const struct net_options net_options = {
        .alloc = os_alloc(), .loop = asker->loop, .role = NET_CLIENT, .name = "asker"
    };
    assert_int_equal(net_open(&net_options, &asker->net, NULL), MC_OK);
    mc_transfer_info(asker->engine, &info);
    assert_string_equal(info.name, "the engine");
    assert_int_equal(net_dial(asker->net, info.address, &events, asker, &asker->conn, NULL), MC_OK);
    const uint64_t until_ns = in_seconds(10);
    while (!asker->up && os_now_ns() < until_ns)
        turn(asker);
    assert_true(asker->up);
}

static void close_asker(struct asker *asker)
{
    net_close(asker->net);
    os_loop_close(asker->loop);
    mc_transfer_close(asker->engine);
}

static void on_answer(void *user, mc_status status, const struct wire_frame *frame)
{
    struct asker *asker = user;

    asker->answered = true;
    asker->status = status;
    if (!frame)
        return;
    asker->frame = *frame;
    if (frame->body_size > 0 && frame->body_size <= sizeof(asker->body))
        memcpy(asker->body, frame->body, frame->body_size);
    asker->frame.body = asker->body;
}

static void ask(struct asker *asker, enum wire_kind kind, const void *message, uint64_t deadline_ns)
{
    asker->answered = false;
    assert_int_equal(net_ask(asker->conn, kind, message, deadline_ns, on_answer, asker, NULL),
                     MC_OK);
}

static void wait_answer(struct asker *asker)
{
    const uint64_t until_ns = in_seconds(10);

    while (!asker->answered && os_now_ns() < until_ns)
        turn(asker);
    assert_true(asker->answered);
    assert_int_equal(asker->status, MC_OK);
}

static struct wire_window_name name_of(const struct mc_window *window)
{
    struct wire_window_name name = { .generation = window->generation };

    memcpy(name.key.bytes, window->key, sizeof(window->key));
    return name;
}

static mc_status status_at(struct asker *asker, uint32_t index)
{
    struct wire_outcomes outcomes;

    assert_int_equal(net_take(&asker->frame, WIRE_OUTCOMES, &outcomes, NULL), MC_OK);
    assert_true(index < outcomes.statuses.count);
    return (mc_status)(int32_t)wire_u32_at(&outcomes.statuses, index);
}

static void test_whoever_had_windows_granted_renews_and_revokes_them(void **state)
{
    (void)state;
    struct asker asker;
    open_asker(&asker);
    const struct mc_region region = register_memory(asker.engine, memory, SIZE, BOTH, 0);
    const struct mc_window_options options = {
        .region = region, .count = 1, .piece_bytes = SIZE, .permissions = MC_REMOTE_WRITE
    };
    struct mc_window window;
    void *address;
    uint64_t pin;

    assert_int_equal(mc_window_grant(asker.engine, &options, &window, NULL), MC_OK);
    struct wire_window_name names[2] = { name_of(&window), name_of(&window) };
    names[1].key.bytes[0] ^= 1;
    names[1].generation += 1000;
    const struct wire_window_renew renew = { .windows = { .items = names, .count = 2 },
                                             .lease_ns = SECOND_NS };
    ask(&asker, WIRE_WINDOW_RENEW, &renew, 0);
    wait_answer(&asker);
    assert_int_equal(status_at(&asker, 0), MC_OK);
    assert_int_equal(status_at(&asker, 1), MC_E_STALE);

    /* The answer to a revoke comes when it is quiet, and says so when it is not in time. */
    const struct transport_access access = { .op = MC_WRITE,
                                             .key = { window.key[0], window.key[1] },
                                             .generation = window.generation,
                                             .length = 10 };
    assert_int_equal(pin_take(asker.engine, &access, &address, &pin), MC_OK);
    const struct wire_window_revoke revoke = { .windows = { .items = names, .count = 2 } };
    ask(&asker, WIRE_WINDOW_REVOKE, &revoke, os_now_ns() + 20000000);
    while (!asker.answered)
        turn(&asker);
    if (asker.status == MC_OK) /* else the asker's own clock was first */
        assert_int_equal(status_at(&asker, 0), MC_E_TIMEOUT);
    ask(&asker, WIRE_WINDOW_REVOKE, &revoke, in_seconds(10));
    for (int i = 0; i < 100; i++)
        turn(&asker);
    assert_false(asker.answered);
    pin_drop(asker.engine, pin);
    wait_answer(&asker);
    assert_int_equal(status_at(&asker, 0), MC_OK);
    assert_int_equal(status_at(&asker, 1), MC_E_STALE);
    unregister(asker.engine, region);
    close_asker(&asker);
}

static void test_an_asker_that_goes_leaves_its_revocation_behind_and_nothing_else(void **state)
{
    (void)state;
    struct asker asker;
    open_asker(&asker);
    const struct mc_region region = register_memory(asker.engine, memory, SIZE, BOTH, 0);
    const struct mc_window_options options = {
        .region = region, .count = 1, .piece_bytes = SIZE, .permissions = MC_REMOTE_WRITE
    };
    struct mc_window window;
    void *address;
    uint64_t pin;

    assert_int_equal(mc_window_grant(asker.engine, &options, &window, NULL), MC_OK);
    const struct transport_access access = { .op = MC_WRITE,
                                             .key = { window.key[0], window.key[1] },
                                             .generation = window.generation,
                                             .length = 10 };
    assert_int_equal(pin_take(asker.engine, &access, &address, &pin), MC_OK);
    const struct wire_window_name name = name_of(&window);
    const struct wire_window_revoke revoke = { .windows = { .items = &name, .count = 1 } };
    ask(&asker, WIRE_WINDOW_REVOKE, &revoke, 0);
    const uint64_t until_ns = in_seconds(10);
    while (!asker.engine->revocations && os_now_ns() < until_ns)
        turn(&asker);
    net_hang_up(asker.conn, false);
    while (asker.engine->revocations && os_now_ns() < until_ns)
        turn(&asker);
    assert_null(asker.engine->revocations);
    uint64_t late;
    assert_int_equal(pin_take(asker.engine, &access, &address, &late), MC_E_STALE);
    pin_drop(asker.engine, pin);
    unregister(asker.engine, region);
    close_asker(&asker);
}

static void test_where_a_window_lies_is_told_to_its_holder_alone(void **state)
{
    (void)state;
    struct asker asker;
    open_asker(&asker);
    const struct mc_region region = register_memory(asker.engine, memory, SIZE, BOTH, 0);
    const uint64_t offsets[] = { 1000, 0 };
    struct mc_window_options options = { .region = region,
                                         .offsets = offsets,
                                         .count = 2,
                                         .piece_bytes = 500,
                                         .permissions = MC_REMOTE_WRITE };
    struct wire_window_map map;
    struct mc_window mine, other;

    assert_int_equal(mc_window_grant(asker.engine, &options, &mine, NULL), MC_OK);
    options.holder = 4711;
    assert_int_equal(mc_window_grant(asker.engine, &options, &other, NULL), MC_OK);
    struct wire_window_map_ask question = { .generation = mine.generation };
    memcpy(question.key.bytes, mine.key, sizeof(mine.key));
    ask(&asker, WIRE_WINDOW_MAP_ASK, &question, 0);
    wait_answer(&asker);
    assert_int_equal(net_take(&asker.frame, WIRE_WINDOW_MAP, &map, NULL), MC_OK);
    assert_int_equal(map.piece_bytes, 500);
    assert_int_equal(map.offsets.count, 2);
    assert_int_equal(wire_u64_at(&map.offsets, 0), 1000);
    question.generation = other.generation;
    memcpy(question.key.bytes, other.key, sizeof(other.key));
    ask(&asker, WIRE_WINDOW_MAP_ASK, &question, 0);
    wait_answer(&asker);
    assert_int_equal(net_take(&asker.frame, WIRE_WINDOW_MAP, &map, NULL), MC_E_DENIED);
    unregister(asker.engine, region);
    close_asker(&asker);
}

static void test_a_description_has_all_or_says_that_nothing_changed(void **state)
{
    (void)state;
    struct asker asker;
    open_asker(&asker);
    const struct mc_region region = register_memory(asker.engine, memory, SIZE, BOTH, 0);
    const struct mc_region hidden =
        register_memory(asker.engine, memory, SIZE, BOTH, MC_REGION_PRIVATE);
    struct wire_segment_description description;
    struct wire_segment_ask question = { 0 };
    struct wire_region one;

    ask(&asker, WIRE_SEGMENT_ASK, &question, 0);
    wait_answer(&asker);
    assert_int_equal(net_take(&asker.frame, WIRE_SEGMENT_DESCRIPTION, &description, NULL), MC_OK);
    assert_int_equal(description.regions.count, 1);
    assert_true(wire_region_next(&description.regions, &one));
    assert_int_equal(one.id, region.id);
    assert_int_equal(one.generation, region.generation);
    question.known = description.version;
    ask(&asker, WIRE_SEGMENT_ASK, &question, 0);
    wait_answer(&asker);
    assert_int_equal(net_take(&asker.frame, WIRE_SEGMENT_DESCRIPTION, &description, NULL), MC_OK);
    assert_int_equal(description.since, question.known);
    assert_int_equal(description.regions.count, 0);
    question.name = wire_text("somebody else");
    ask(&asker, WIRE_SEGMENT_ASK, &question, 0);
    wait_answer(&asker);
    assert_int_equal(net_take(&asker.frame, WIRE_SEGMENT_DESCRIPTION, &description, NULL),
                     MC_E_NOT_FOUND);
    unregister(asker.engine, hidden);
    unregister(asker.engine, region);
    close_asker(&asker);
}

static void test_notices_beyond_the_queue_are_refused(void **state)
{
    (void)state;
    struct asker asker;
    open_asker(&asker);
    const struct wire_notify notify = { .name = wire_text("n"), .message = { "abc", 3 } };
    struct wire_outcome outcome;
    struct mc_notice notice;
    char message[8];

    for (int i = 0; i < 3; i++) {
        ask(&asker, WIRE_NOTIFY, &notify, 0);
        wait_answer(&asker);
        assert_int_equal(net_take(&asker.frame, WIRE_OUTCOME, &outcome, NULL),
                         i < 2 ? MC_OK : MC_E_FULL);
    }
    assert_int_equal(mc_notice_take(asker.engine, MC_AT_ONCE, &notice, message, 8), MC_OK);
    assert_string_equal(notice.from, "asker");
    assert_memory_equal(message, "abc", 3);
    close_asker(&asker);
}

static void test_counters_are_told_by_name(void **state)
{
    (void)state;
    struct asker asker;
    open_asker(&asker);
    const struct wire_stats question = { .prefix = wire_text("transfer_reg") };
    struct wire_counters counters;
    struct wire_counter counter;

    ask(&asker, WIRE_STATS, &question, 0);
    wait_answer(&asker);
    assert_int_equal(net_take(&asker.frame, WIRE_COUNTERS, &counters, NULL), MC_OK);
    assert_int_equal(counters.items.count, 2);
    assert_true(wire_counter_next(&counters.items, &counter));
    assert_int_equal(counter.name.size, strlen("transfer_regions"));
    assert_memory_equal(counter.name.data, "transfer_regions", counter.name.size);
    const struct wire_lookup strange = { .keys = { 0 } };
    struct wire_outcome outcome;
    ask(&asker, WIRE_LOOKUP, &strange, 0);
    wait_answer(&asker);
    assert_int_equal(net_take(&asker.frame, WIRE_OUTCOME, &outcome, NULL), MC_E_UNSUPPORTED);
    close_asker(&asker);
}

/* A peer that tells of changes only, whatever it is asked. */
static void tell_changes(void *user, net_conn *conn, const struct wire_frame *frame)
{
    uint32_t *asked = user;
    const struct wire_segment_description message = {
        .name = wire_text("liar"), .incarnation = 5, .version = 7, .since = 6
    };

    if (frame->kind == WIRE_SEGMENT_ASK) {
        (*asked)++;
        assert_int_equal(net_answer(conn, frame->id, WIRE_SEGMENT_DESCRIPTION, &message), MC_OK);
    }
}

static void peer_up(void *user, net_conn *conn, const struct net_peer *peer)
{
    (void)user, (void)conn, (void)peer;
}

static void peer_down(void *user, net_conn *conn, mc_status status, const char *text)
{
    (void)user, (void)conn, (void)status, (void)text;
}

static void test_changes_to_nothing_are_not_asked_for_again_and_again(void **state)
{
    (void)state;
    static const struct net_events liar = { peer_up, tell_changes, peer_down };
    const struct mc_transfer_options options = { .flags = MC_TRANSFER_DRIVEN };
    mc_transfer *engine = open_engine(&options);
    const struct mc_region mine = register_memory(engine, memory, SIZE, 0, 0);
    struct mc_xfer xfer = {
        .op = MC_WRITE, .region = { .id = 1, .generation = 1 }, .length = 8, .local = memory
    };
    mc_status status = MC_PENDING;
    uint32_t asked = 0;
    char address[80];
    os_loop *loop;
    mc_batch *batch;
    net *its;

    assert_int_equal(os_loop_open(os_alloc(), &loop, NULL), MC_OK);
    const struct net_options peer = {
        .alloc = os_alloc(), .loop = loop, .role = NET_ENGINE, .name = "liar"
    };
    assert_int_equal(net_open(&peer, &its, NULL), MC_OK);
    assert_int_equal(
        net_listen(its, "127.0.0.1:0", false, &liar, &asked, address, sizeof(address), NULL),
        MC_OK);
    assert_int_equal(mc_segment_open(engine, address, &xfer.segment, NULL), MC_OK);
    assert_int_equal(mc_batch_open(engine, NULL, &batch), MC_OK);
    assert_int_equal(mc_batch_add(batch, &xfer, 1), MC_OK);
    assert_int_equal(mc_batch_submit(batch), MC_OK);
    const uint64_t until_ns = in_seconds(5);
    while (status == MC_PENDING && asked < 10 && os_now_ns() < until_ns) {
        assert_int_equal(os_loop_turn(loop, 0), MC_OK);
        status = mc_batch_poll(batch);
    }
    assert_int_equal(status, MC_E_FORMAT);
    mc_batch_close(batch);
    mc_segment_close(engine, xfer.segment);
    unregister(engine, mine);
    net_close(its);
    os_loop_close(loop);
    mc_transfer_close(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whoever_had_windows_granted_renews_and_revokes_them),
        cmocka_unit_test(test_an_asker_that_goes_leaves_its_revocation_behind_and_nothing_else),
        cmocka_unit_test(test_where_a_window_lies_is_told_to_its_holder_alone),
        cmocka_unit_test(test_a_description_has_all_or_says_that_nothing_changed),
        cmocka_unit_test(test_notices_beyond_the_queue_are_refused),
        cmocka_unit_test(test_changes_to_nothing_are_not_asked_for_again_and_again),
        cmocka_unit_test(test_counters_are_told_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
