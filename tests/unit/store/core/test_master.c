/* test_master.c - the master, asked by hand: one step, one answer. */
#include "test.h"

#include "store/core/master.h"
#include "store/core/object.h"

#define MS UINT64_C(1000000)

enum { NODE_CONN = 7, CLIENT_CONN = 8, OTHER_CONN = 9, MAX = 16 };

/** What the master said last. */
struct said {
    uint64_t conn, id, tag;
    uint32_t kind, count;
    mc_status status;       /* of an outcome */
    uint32_t statuses[MAX]; /* outcomes */
    struct wire_put_place puts[MAX];
    struct wire_replica replicas[MAX];
    struct wire_found_item found[MAX];
    struct wire_store_event events[MAX];
    struct wire_place places[MAX]; /* asked to be opened or evicted */
    uint64_t lease, sequence;
    uint64_t node;
    bool snapshot_last;
};

struct fixture {
    struct faulty f;
    store_master *master;
    uint64_t now, node;
    struct said answer, ask, event;
    uint64_t opener, open_tag; /* the node that was asked for windows last, and the question */
    uint64_t evict_tags[MAX];  /* what it was asked to evict and has not answered, for give_way() */
    uint32_t evict_counts[MAX], evict_count;
};

static void keep(struct said *s, enum wire_kind kind, const void *message)
{
    s->kind = kind;
    s->count = 0;
    switch (kind) {
    case WIRE_OUTCOME:
        s->status = ((const struct wire_outcome *)message)->status;
        break;
    case WIRE_OUTCOMES: {
        const struct wire_array *a = &((const struct wire_outcomes *)message)->statuses;
        for (; s->count < a->count; s->count++)
            s->statuses[s->count] = wire_u32_at(a, s->count);
        break;
    }
    case WIRE_PUT_BEGUN: {
        struct wire_list list = ((const struct wire_put_begun *)message)->places;
        while (wire_put_place_next(&list, &s->puts[s->count])) {
            struct wire_list replicas = s->puts[s->count].replicas;
            wire_replica_next(&replicas, &s->replicas[s->count++]);
        }
        break;
    }
    case WIRE_FOUND: {
        struct wire_list list = ((const struct wire_found *)message)->items;
        s->lease = ((const struct wire_found *)message)->lease;
        while (wire_found_item_next(&list, &s->found[s->count])) {
            struct wire_list replicas = s->found[s->count].replicas;
            wire_replica_next(&replicas, &s->replicas[s->count++]);
        }
        break;
    }
    case WIRE_EVENTS: {
        struct wire_list list = ((const struct wire_events *)message)->items;
        s->sequence = ((const struct wire_events *)message)->sequence;
        while (wire_store_event_next(&list, &s->events[s->count]))
            s->count++;
        break;
    }
    case WIRE_EVENTS_SNAPSHOT: {
        struct wire_list list = ((const struct wire_events_snapshot *)message)->items;
        s->sequence = ((const struct wire_events_snapshot *)message)->sequence;
        s->snapshot_last = ((const struct wire_events_snapshot *)message)->last;
        while (wire_store_event_next(&list, &s->events[s->count]))
            s->count++;
        break;
    }
    case WIRE_NODE_REGISTERED:
        s->node = ((const struct wire_node_registered *)message)->node;
        break;
    case WIRE_PLACE_OPEN:
    case WIRE_EVICT: {
        struct wire_list list = kind == WIRE_EVICT
                                    ? ((const struct wire_evict *)message)->places
                                    : ((const struct wire_place_open *)message)->places;
        while (wire_place_next(&list, &s->places[s->count]))
            s->count++;
        break;
    }
    default:
        break;
    }
}

static mc_status answer(void *user, uint64_t conn, uint64_t id, enum wire_kind kind,
                        const void *message)
{
    struct fixture *x = user;

    x->answer.conn = conn;
    x->answer.id = id;
    keep(&x->answer, kind, message);
    return MC_OK;
}

static mc_status ask(void *user, uint64_t conn, uint64_t tag, enum wire_kind kind,
                     const void *message, uint64_t deadline_ns)
{
    struct fixture *x = user;

    (void)deadline_ns;
    x->ask.conn = conn;
    x->ask.tag = tag;
    if (kind == WIRE_PLACE_OPEN)
        x->opener = conn;
    if (kind == WIRE_PLACE_OPEN)
        x->open_tag = tag;
    keep(&x->ask, kind, message);
    if (kind == WIRE_EVICT && x->evict_count < MAX) {
        x->evict_tags[x->evict_count] = tag;
        x->evict_counts[x->evict_count++] = x->ask.count;
    }
    return MC_OK;
}

static mc_status send(void *user, uint64_t conn, enum wire_kind kind, const void *message)
{
    struct fixture *x = user;

    x->event.conn = conn;
    keep(&x->event, kind, message);
    return MC_OK;
}

static void step(struct fixture *x, const struct store_master_event *event)
{
    const struct store_master_out out = { answer, ask, send, x };

    x->answer = x->ask = (struct said){ 0 };
    store_master_step(x->master, event, x->now, &out);
}

static void say(struct fixture *x, uint64_t conn, uint64_t id, uint32_t kind, const void *message)
{
    step(x, &(struct store_master_event){ STORE_MASTER_MESSAGE, conn, id, MC_OK, kind, message });
}

static void tick(struct fixture *x, uint64_t later_ns)
{
    x->now += later_ns;
    step(x, &(struct store_master_event){ .kind = STORE_MASTER_TICK });
}

static struct store_master_options small(struct fixture *x)
{
    return (struct store_master_options){
        .alloc = &x->f.alloc,
        .epoch = 5,
        .objects_max = 8,
        .extents_max = 20,
        .nodes_max = 2,
        .lents_max = 2,
        .tokens_max = 8,
        .leases_max = 2,
        .lease_items_max = 8,
        .requests_max = 4,
        .batch_max = 8,
        .events_max = 8,
        .subscribers_max = 2,
        .free_percent = 101,
    };
}

/* places: as it says, 0: not. */
static void register_node_of(struct fixture *x, uint64_t size, uint32_t places)
{
    const struct wire_lent lent = {
        .region = 1, .generation = 1, .size = size, .medium = MC_MEDIUM_DRAM, .align = 64
    };
    const struct wire_node_register message = { .segment = wire_text("n"),
                                                .incarnation = 11,
                                                .lent = { .items = &lent, .count = 1 },
                                                .places = places };

    say(x, NODE_CONN, 1, WIRE_NODE_REGISTER, &message);
    assert_int_equal(x->answer.kind, WIRE_NODE_REGISTERED);
    x->node = x->answer.node;
}

/* Its node has room for whatever it is asked, but keeps account of `places`. */
static struct fixture *open_with(uint32_t free_percent, uint32_t objects_max, uint64_t size,
                                 uint32_t places)
{
    struct fixture *x = calloc(1, sizeof(*x));

    faulty_init(&x->f, -1);
    x->now = 1000 * MS;
    struct store_master_options options = small(x);
    options.free_percent = free_percent;
    options.objects_max = objects_max;
    options.tokens_max = 64;
    assert_int_equal(store_master_open(&options, &x->master), MC_OK);
    register_node_of(x, size, places);
    return x;
}

static int set_up(void **state)
{
    *state = open_with(101, 8, 1024, 0);
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *x = *state;

    store_master_close(x->master);
    assert_int_equal(x->f.held, 0);
    free(x);
    return 0;
}

static struct wire_put_item item_of(uint8_t name, uint64_t length)
{
    return (struct wire_put_item){ .identity = { { name } },
                                   .length = length,
                                   .token = { { name, 1 } } };
}

static void begin(struct fixture *x, const struct wire_put_item *items, uint32_t count)
{
    const struct wire_put_begin message = { .items = { .items = items, .count = count } };

    say(x, CLIENT_CONN, 2, WIRE_PUT_BEGIN, &message);
}

/** The node answers what it was asked last. */
static void open_windows(struct fixture *x, uint64_t tag, uint32_t count)
{
    struct wire_window windows[MAX] = { { .key = { { 0 } } } };

    for (uint32_t i = 0; i < count; i++)
        windows[i] = (struct wire_window){ .key = { { 9, (uint8_t)i } }, .size = 256 };
    const struct wire_place_windows message = { .windows = { .items = windows, .count = count } };
    step(x, &(struct store_master_event){ STORE_MASTER_ANSWER, x->opener, tag, MC_OK,
                                          WIRE_PLACE_WINDOWS, &message });
}

static mc_status commit(struct fixture *x, uint8_t name, uint8_t token_of)
{
    const struct wire_put_end end = { .key = { { name } }, .token = { { token_of, 1 } } };
    const struct wire_put_commit message = { .items = { .items = &end, .count = 1 }, .epoch = 5 };

    say(x, CLIENT_CONN, 3, WIRE_PUT_COMMIT, &message);
    assert_int_equal(x->answer.kind, WIRE_OUTCOMES);
    return (mc_status)(int32_t)x->answer.statuses[0];
}

static void put(struct fixture *x, uint8_t name, uint64_t length)
{
    const struct wire_put_item item = item_of(name, length);

    begin(x, &item, 1);
    assert_int_not_equal(x->open_tag, 0);
    open_windows(x, x->open_tag, 1);
    x->open_tag = 0;
    assert_int_equal(x->answer.kind, WIRE_PUT_BEGUN);
    assert_int_equal(x->answer.puts[0].status, MC_OK);
    assert_int_equal(commit(x, name, name), MC_OK);
}

static mc_status lookup(struct fixture *x, uint8_t name, uint64_t lease_ns)
{
    const struct mc_key key = { { name } };
    const struct wire_lookup message = { .keys = { &key, 1 }, .lease_ns = lease_ns };

    say(x, CLIENT_CONN, 4, WIRE_LOOKUP, &message);
    return x->answer.kind == WIRE_FOUND ? x->answer.found[0].status : x->answer.status;
}

static mc_status take_away(struct fixture *x, uint8_t name, bool force)
{
    const struct mc_key key = { { name } };
    const struct wire_remove message = { .keys = { &key, 1 }, .force = force };

    say(x, CLIENT_CONN, 5, WIRE_REMOVE, &message);
    return (mc_status)(int32_t)x->answer.statuses[0];
}

static void evicted(struct fixture *x, mc_status status)
{
    const uint32_t said = (uint32_t)status;
    const struct wire_outcomes message = { .statuses = { &said, 1 } };

    assert_int_equal(x->ask.kind, WIRE_EVICT);
    step(x, &(struct store_master_event){ STORE_MASTER_ANSWER, NODE_CONN, x->ask.tag, MC_OK,
                                          WIRE_OUTCOMES, &message });
}

static struct store_master_figures figures(const struct fixture *x)
{
    struct store_master_figures f;

    store_master_figures(x->master, &f);
    return f;
}

/* ---------------------------------------------------------------------------------------------- */

static void test_an_object_is_seen_once_it_is_committed(void **state)
{
    struct fixture *x = *state;
    const struct wire_put_item item = item_of(1, 100);

    begin(x, &item, 1);
    assert_int_equal(lookup(x, 1, 0), MC_E_NOT_FOUND);
    assert_int_equal(commit(x, 1, 1), MC_E_STALE); /* its places are nobody's yet */
    begin(x, &item, 1);
    assert_int_equal(x->ask.kind, 0); /* its window is asked for already */
    assert_int_equal(x->answer.puts[0].status,
                     MC_E_BUSY); /* the first question's: it is not waited for */
}

static void test_asked_again_is_answered_the_same(void **state)
{
    struct fixture *x = *state;
    const struct wire_put_item item = item_of(1, 100);

    begin(x, &item, 1);
    open_windows(x, x->ask.tag, 1);
    const uint64_t generation = x->answer.replicas[0].generation;
    begin(x, &item, 1); /* the answer was lost */
    assert_int_equal(x->answer.puts[0].status, MC_OK);
    assert_int_equal(x->answer.replicas[0].generation, generation);
    assert_int_equal(commit(x, 1, 1), MC_OK);
    assert_int_equal(commit(x, 1, 1), MC_OK);
    assert_int_equal(figures(x).objects, 1);
    assert_int_equal(figures(x).used_bytes, 192); /* 64 + 100 + 4, in units of 64 */
    begin(x, &item, 1);
    assert_int_equal(x->answer.puts[0].status, MC_E_EXISTS);
    assert_int_equal(lookup(x, 1, 0), MC_OK);
    assert_int_equal(x->answer.replicas[0].generation, generation);
}

/* The first of two places is given up, and its token is another put's, before the answer that names both. */
static void test_an_answer_names_no_place_of_another_put(void **state)
{
    struct fixture *x = *state;
    const struct wire_put_item both[] = { item_of(1, 100), item_of(2, 100) },
                               other = item_of(3, 100);
    const struct wire_put_end end = { .key = { { 1 } }, .token = { { 1, 1 } } };
    const struct wire_put_revoke revoke = { .items = { .items = &end, .count = 1 }, .epoch = 5 };

    begin(x, both, 1);
    open_windows(x, x->ask.tag, 1);
    begin(x, both, 2); /* the first is open already */
    const uint64_t tag = x->ask.tag;
    say(x, CLIENT_CONN, 9, WIRE_PUT_REVOKE, &revoke);
    begin(x, &other, 1);
    open_windows(x, x->ask.tag, 1);
    assert_int_equal(x->answer.puts[0].status, MC_OK);
    open_windows(x, tag, 1);
    assert_int_equal(x->answer.kind, WIRE_PUT_BEGUN);
    assert_int_equal(x->answer.count, 2);
    assert_int_equal(x->answer.puts[0].status, MC_E_STALE);
    assert_int_equal(x->answer.puts[0].replicas.count, 0);
    assert_int_equal(x->answer.puts[1].status, MC_OK);
    assert_int_equal(commit(x, 3, 3), MC_OK);
    assert_int_equal(commit(x, 2, 2), MC_OK);
}

static void test_a_second_writer_finds_it_busy_and_then_there(void **state)
{
    struct fixture *x = *state;
    struct wire_put_item item = item_of(1, 100);

    begin(x, &item, 1);
    const uint64_t tag = x->ask.tag;
    item.token.bytes[5] = 1;
    begin(x, &item, 1);
    assert_int_equal(x->answer.puts[0].status, MC_E_BUSY);
    open_windows(x, tag, 1);
    assert_int_equal(commit(x, 1, 1), MC_OK);
    begin(x, &item, 1);
    assert_int_equal(x->answer.puts[0].status, MC_E_EXISTS);
}

static void test_a_token_ends_its_own_put_only(void **state)
{
    struct fixture *x = *state;
    const struct wire_put_item items[] = { item_of(1, 100), item_of(2, 100) };

    begin(x, items, 2);
    open_windows(x, x->ask.tag, 2);
    assert_int_equal(commit(x, 1, 2), MC_E_STALE);
    assert_int_equal(commit(x, 3, 3), MC_E_STALE);
    assert_int_equal(commit(x, 1, 1), MC_OK);
}

/* ----------------------------------------------------------------------------------- further copies */

static uint64_t register_other(struct fixture *x)
{
    const struct wire_lent lent = {
        .region = 1, .generation = 1, .size = 1024, .medium = MC_MEDIUM_DRAM, .align = 64
    };
    const struct wire_node_register message = { .segment = wire_text("m"),
                                                .incarnation = 12,
                                                .lent = { .items = &lent, .count = 1 } };

    say(x, OTHER_CONN, 1, WIRE_NODE_REGISTER, &message);
    assert_int_equal(x->answer.kind, WIRE_NODE_REGISTERED);
    return x->answer.node;
}

/* What becomes of the question. MC_OK: it has a window. */
static mc_status begin_copy(struct fixture *x, uint8_t name, uint64_t length, uint64_t node,
                            uint8_t token)
{
    const struct wire_put_item item = { .identity = { { name } },
                                        .length = length,
                                        .token = { { token, 1 } } };
    const struct wire_put_begin message = { .items = { .items = &item, .count = 1 },
                                            .node = node,
                                            .another = true };

    say(x, CLIENT_CONN, 2, WIRE_PUT_BEGIN, &message);
    if (x->ask.kind == WIRE_PLACE_OPEN)
        open_windows(x, x->ask.tag, 1);
    assert_int_equal(x->answer.kind, WIRE_PUT_BEGUN);
    return x->answer.puts[0].status;
}

static void test_a_further_copy_is_one_more_replica(void **state)
{
    struct fixture *x = *state;

    put(x, 1, 100);
    assert_int_equal(begin_copy(x, 1, 100, 0, 21), MC_E_EXISTS); /* no other node */
    const uint64_t other = register_other(x);
    assert_int_equal(begin_copy(x, 1, 100, x->node, 22), MC_E_EXISTS); /* it is there */
    assert_int_equal(begin_copy(x, 1, 99, other, 23), MC_E_EXISTS);    /* not of that */
    assert_int_equal(begin_copy(x, 1, 100, other, 24), MC_OK);
    assert_int_equal(x->opener, OTHER_CONN);
    assert_int_equal(figures(x).replicas, 1); /* not before it is written */
    assert_int_equal(lookup(x, 1, 0), MC_OK);
    assert_int_equal(commit(x, 1, 24), MC_OK);
    assert_int_equal(commit(x, 1, 24), MC_OK); /* asked again */
    assert_int_equal(figures(x).replicas, 2);
    assert_int_equal(figures(x).objects, 1);
    assert_int_equal(lookup(x, 1, 0), MC_OK);
    assert_int_equal(x->answer.found[0].replicas.count, 2);
    assert_int_equal(begin_copy(x, 1, 100, other, 25), MC_E_EXISTS);
    assert_int_equal(begin_copy(x, 1, 100, 0, 26), MC_E_EXISTS); /* all have it */

    assert_int_equal(begin_copy(x, 2, 100, other, 27), MC_OK); /* of nothing: as any put */
    assert_int_equal(lookup(x, 2, 0), MC_E_NOT_FOUND);
    assert_int_equal(commit(x, 2, 27), MC_OK);
    assert_int_equal(figures(x).replicas, 3);
    assert_int_equal(take_away(x, 1, true), MC_OK); /* both go */
    assert_int_equal(figures(x).replicas, 1);
}

static void test_what_was_removed_does_not_come_back_by_a_copy(void **state)
{
    struct fixture *x = *state;

    (void)register_other(x);
    put(x, 1, 100);
    assert_int_equal(begin_copy(x, 1, 100, 0, 21), MC_OK);
    assert_int_equal(take_away(x, 1, true), MC_OK);
    assert_int_equal(commit(x, 1, 21), MC_E_STALE);
    assert_int_equal(lookup(x, 1, 0), MC_E_NOT_FOUND);

    const struct wire_put_item again = { .identity = { { 1 } },
                                         .length = 100,
                                         .token = { { 31, 1 } } };
    begin(x, &again, 1);
    open_windows(x, x->ask.tag, 1);
    assert_int_equal(commit(x, 1, 31), MC_OK);
    assert_int_equal(begin_copy(x, 1, 100, 0, 22), MC_OK);
    assert_int_equal(take_away(x, 1, true), MC_OK);
    const struct wire_put_item third = { .identity = { { 1 } },
                                         .length = 100,
                                         .token = { { 32, 1 } } };
    begin(x, &third, 1); /* the same name and length, maybe other bytes */
    open_windows(x, x->ask.tag, 1);
    assert_int_equal(commit(x, 1, 32), MC_OK);
    assert_int_equal(commit(x, 1, 22), MC_E_STALE);
    assert_int_equal(lookup(x, 1, 0), MC_OK);
    assert_int_equal(figures(x).replicas, 1);
    assert_int_equal(figures(x).objects, 1);
}

static void test_a_copy_that_is_not_written_leaves_the_object(void **state)
{
    struct fixture *x = *state;

    (void)register_other(x);
    put(x, 1, 100);
    assert_int_equal(begin_copy(x, 1, 100, 0, 21), MC_OK);
    const struct wire_put_end end = { .key = { { 1 } }, .token = { { 21, 1 } } };
    const struct wire_put_revoke revoke = { .items = { .items = &end, .count = 1 }, .epoch = 5 };
    say(x, CLIENT_CONN, 3, WIRE_PUT_REVOKE, &revoke);
    assert_int_equal((mc_status)(int32_t)x->answer.statuses[0], MC_OK);
    assert_int_equal(commit(x, 1, 21), MC_E_STALE);
    assert_int_equal(lookup(x, 1, 0), MC_OK);

    assert_int_equal(begin_copy(x, 1, 100, 0, 22), MC_OK);
    step(x, &(struct store_master_event){ .kind = STORE_MASTER_DOWN, .conn = OTHER_CONN });
    tick(x, 30000 * MS); /* nodes are forgotten, and the token expires */
    tick(x, 1 * MS);
    assert_int_equal(figures(x).tokens, 0);
    assert_int_equal(figures(x).objects, 0);
}

static void test_a_token_expires_and_its_place_comes_back(void **state)
{
    struct fixture *x = *state;
    const struct wire_put_item item = item_of(1, 100);

    begin(x, &item, 1);
    open_windows(x, x->ask.tag, 1);
    for (int i = 0; i < 6; i++) { /* the node lives on */
        const struct wire_node_heartbeat beat = { .node = x->node, .epoch = 5 };
        say(x, NODE_CONN, 9, WIRE_NODE_HEARTBEAT, &beat);
        assert_int_equal(x->answer.status, MC_OK);
        if (i == 5)
            break;
        tick(x, 2000 * MS);
    }
    assert_int_equal(figures(x).tokens, 0);
    assert_int_equal(figures(x).expired_tokens, 1);
    assert_int_equal(commit(x, 1, 1), MC_E_STALE);
    assert_int_equal(figures(x).dying_bytes, 192); /* until the node says quiet */
}

static void test_a_place_is_free_when_its_node_says_quiet(void **state)
{
    struct fixture *x = *state;
    const struct wire_put_item item = item_of(2, 900);

    put(x, 1, 900);
    assert_int_equal(take_away(x, 1, false), MC_OK);
    const struct said first = x->ask;
    begin(x, &item, 1);
    assert_int_equal(x->answer.puts[0].status, MC_E_FULL);
    x->ask = first;
    evicted(x, MC_E_TIMEOUT); /* a pin is held */
    begin(x, &item, 1);
    assert_int_equal(x->answer.puts[0].status, MC_E_FULL);
    tick(x, 100 * MS);
    evicted(x, MC_OK);
    begin(x, &item, 1);
    assert_int_equal(x->ask.kind, WIRE_PLACE_OPEN);
    assert_int_not_equal(x->ask.places[0].generation, first.places[0].generation);
}

static void test_what_is_leased_stays_until_the_lease_is_over(void **state)
{
    struct fixture *x = *state;

    put(x, 1, 100);
    assert_int_equal(lookup(x, 1, 1000 * MS), MC_OK);
    assert_int_equal(take_away(x, 1, false), MC_E_BUSY);
    assert_int_equal(take_away(x, 1, true), MC_OK);
    assert_int_equal(x->ask.kind, 0); /* its name is gone, its place is not */
    assert_int_equal(lookup(x, 1, 0), MC_E_NOT_FOUND);
    tick(x, 999 * MS);
    assert_int_equal(x->ask.kind, 0);
    tick(x, 1 * MS);
    assert_int_equal(x->ask.kind, WIRE_EVICT);
}

static void test_a_lease_released_or_lost_is_gone(void **state)
{
    struct fixture *x = *state;

    put(x, 1, 100);
    assert_int_equal(lookup(x, 1, 1000 * MS), MC_OK);
    const uint64_t lease = x->answer.lease;
    struct wire_lease_renew renew = { .leases = { &lease, 1 }, .epoch = 4, .lease_ns = 2000 * MS };
    say(x, CLIENT_CONN, 6, WIRE_LEASE_RENEW, &renew);
    assert_int_equal((int32_t)x->answer.statuses[0], MC_E_STALE); /* of another life */
    renew.epoch = 5;
    say(x, CLIENT_CONN, 6, WIRE_LEASE_RENEW, &renew);
    assert_int_equal(x->answer.statuses[0], MC_OK);
    renew.lease_ns = UINT64_C(3600000) * MS;
    say(x, CLIENT_CONN, 6, WIRE_LEASE_RENEW, &renew);
    assert_int_equal(x->answer.status, MC_E_RANGE); /* nobody shall count on more than there is */
    const struct wire_lease_release release = { .leases = { &lease, 1 }, .epoch = 5 };
    say(x, CLIENT_CONN, 6, WIRE_LEASE_RELEASE, &release);
    assert_int_equal(x->answer.statuses[0], MC_OK);
    say(x, CLIENT_CONN, 6, WIRE_LEASE_RELEASE, &release);
    assert_int_equal((int32_t)x->answer.statuses[0], MC_E_STALE);
    assert_int_equal(take_away(x, 1, false), MC_OK);
    assert_int_equal(figures(x).leases, 0);
    assert_int_equal(figures(x).lease_items, 0);
}

static void test_a_full_table_of_leases_says_so(void **state)
{
    struct fixture *x = *state;

    put(x, 1, 100);
    assert_int_equal(lookup(x, 1, 0), MC_OK);
    assert_int_equal(lookup(x, 1, 0), MC_OK);
    assert_int_equal(lookup(x, 1, 0), MC_E_FULL);
    assert_int_equal(x->answer.kind, WIRE_OUTCOME);
    assert_int_equal(figures(x).leases, 2);
}

/* Two objects fill it; a third one finds room when it asks again, where what was used longer ago was. */
static void third_finds_room_made(struct fixture *x, uint64_t bytes)
{
    const struct wire_put_item item = item_of(3, bytes);

    put(x, 1, bytes);
    put(x, 2, bytes);
    assert_int_equal(lookup(x, 1, 1 * MS), MC_OK); /* so 2 was used longer ago */
    tick(x, 2 * MS);
    begin(x, &item, 1);
    assert_int_equal(x->answer.puts[0].status, MC_E_FULL);
    evicted(x, MC_OK);
    begin(x, &item, 1);
    open_windows(x, x->ask.tag, 1);
    assert_int_equal(x->answer.puts[0].status, MC_OK);
    assert_int_equal(lookup(x, 1, 1 * MS), MC_OK);
    assert_int_equal(lookup(x, 2, 1 * MS), MC_E_NOT_FOUND);
}

static void test_who_asks_when_it_is_full_finds_room_made(void **state)
{
    third_finds_room_made(*state, 400);
}

static void test_who_asks_when_a_node_keeps_account_of_no_more_finds_room_made(void **state)
{
    (void)state;
    struct fixture *x = open_with(101, 8, 65536, 2);

    third_finds_room_made(x, 100); /* though bytes are free */
    tear_down((void **)&x);
}

/* All that it was asked to evict is gone. */
static void give_way(struct fixture *x)
{
    static const uint32_t said[MAX]; /* MC_OK */

    tick(x, 1 * MS);
    for (uint32_t i = 0; i < x->evict_count; i++) {
        const struct wire_outcomes message = { .statuses = { said, x->evict_counts[i] } };
        step(x, &(struct store_master_event){ STORE_MASTER_ANSWER, NODE_CONN, x->evict_tags[i],
                                              MC_OK, WIRE_OUTCOMES, &message });
    }
    x->evict_count = 0;
}

static void test_places_of_nodes_are_kept_free_as_bytes_are(void **state)
{
    (void)state;
    struct fixture *x = open_with(25, 8, 65536, 4);

    for (uint8_t i = 1; i <= 40; i++) {
        put(x, i, 100); /* none is refused */
        give_way(x);
    }
    assert_int_equal(figures(x).objects, 3);
    assert_int_equal(figures(x).evicted_objects, 37);
    assert_int_equal(lookup(x, 40, 0), MC_OK);
    assert_int_equal(lookup(x, 37, 0), MC_E_NOT_FOUND);
    tear_down((void **)&x);
}

static void test_records_of_the_master_are_kept_free_as_bytes_are(void **state)
{
    (void)state;
    struct fixture *x = open_with(25, 4, 65536, 0);

    for (uint8_t i = 1; i <= 40; i++) {
        put(x, i, 100);
        give_way(x);
    }
    assert_int_equal(figures(x).objects, 3);
    assert_int_equal(lookup(x, 40, 0), MC_OK);
    tear_down((void **)&x);
}

static void test_places_of_a_node_that_drains_or_goes_count_no_longer(void **state)
{
    (void)state;
    struct fixture *x = open_with(25, 8, 65536, 4);
    const struct wire_node_heartbeat draining = { .node = x->node, .epoch = 5, .draining = true };
    const struct wire_node_heartbeat staying = { .node = x->node, .epoch = 5 };

    put(x, 1, 100);
    for (int i = 0; i < 3; i++) {
        say(x, NODE_CONN, 2, WIRE_NODE_HEARTBEAT, &draining);
        say(x, NODE_CONN, 2, WIRE_NODE_HEARTBEAT, &staying);
    }
    put(x, 2, 100);
    put(x, 3, 100);
    assert_int_equal(figures(x).evicted_objects, 0);
    step(x, &(struct store_master_event){ .kind = STORE_MASTER_DOWN, .conn = NODE_CONN });
    tick(x, 3000 * MS);
    assert_int_equal(figures(x).nodes, 0);
    register_node_of(x, 65536, 4);
    put(x, 4, 100);
    put(x, 5, 100);
    put(x, 6, 100);
    assert_int_equal(figures(x).evicted_objects, 0);
    assert_int_equal(figures(x).objects, 3);
    tear_down((void **)&x);
}

static void test_a_silent_node_is_forgotten_with_what_it_held(void **state)
{
    struct fixture *x = *state;
    const struct wire_put_item item = item_of(2, 100);

    put(x, 1, 100);
    begin(x, &item, 1); /* its window will never come */
    step(x, &(struct store_master_event){ .kind = STORE_MASTER_DOWN, .conn = NODE_CONN });
    assert_int_equal(x->answer.puts[0].status, MC_E_PEER);
    assert_int_equal(lookup(x, 1, 0), MC_OK); /* it may come back */
    tick(x, 2000 * MS);
    assert_int_equal(lookup(x, 1, 0), MC_E_NOT_FOUND);
    assert_int_equal(figures(x).nodes, 0);
    assert_int_equal(figures(x).capacity_bytes, 0);
    assert_int_equal(figures(x).used_bytes, 0);
    assert_int_equal(figures(x).dying_bytes, 0);
}

static void test_events_follow_a_snapshot_without_a_gap(void **state)
{
    struct fixture *x = *state;
    const struct wire_events_subscribe message = { 0 };

    put(x, 1, 100);
    say(x, CLIENT_CONN, 6, WIRE_EVENTS_SUBSCRIBE, &message);
    assert_int_equal(x->answer.kind, WIRE_EVENTS_SNAPSHOT);
    const uint64_t sequence = x->event.kind ? x->event.sequence : x->answer.sequence;
    put(x, 2, 100);
    assert_int_equal(x->event.kind, WIRE_EVENTS);
    assert_int_equal(x->event.sequence, sequence + 1);
    assert_int_equal(x->event.events[0].kind, MC_STORE_STORED);
    assert_int_equal(take_away(x, 2, false), MC_OK);
    assert_int_equal(x->event.sequence, sequence + 2);
    assert_int_equal(x->event.events[0].kind, MC_STORE_REMOVED);
}

static void test_messages_that_ask_for_too_much_are_refused(void **state)
{
    struct fixture *x = *state;
    struct wire_put_item items[9];
    struct mc_key keys[9] = { { { 0 } } };

    for (uint8_t i = 0; i < 9; i++)
        items[i] = item_of(i, 1);
    begin(x, items, 9);
    assert_int_equal(x->answer.status, MC_E_RANGE);
    const struct wire_lookup message = { .keys = { keys, 9 } };
    say(x, CLIENT_CONN, 4, WIRE_LOOKUP, &message);
    assert_int_equal(x->answer.status, MC_E_RANGE);
    say(x, CLIENT_CONN, 4, WIRE_DRAIN, &(struct wire_drain){ 0 });
    assert_int_equal(x->answer.status, MC_E_UNSUPPORTED);
    const struct wire_lent lent = { .region = 1, .size = 64, .medium = 1, .align = 0 };
    const struct wire_node_register node = { .segment = wire_text("m"),
                                             .incarnation = 12,
                                             .lent = { .items = &lent, .count = 1 } };
    say(x, 9, 4, WIRE_NODE_REGISTER, &node);
    assert_int_equal(x->answer.status, MC_E_RANGE);
    items[0].length = UINT64_MAX;
    begin(x, items, 1);
    assert_int_equal(x->answer.puts[0].status, MC_E_FULL);
}

static void test_an_object_costs_at_most_160_bytes(void **state)
{
    (void)state;
    assert_true(store_master_object_cost() <= 160);
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    (void)state;
    for (long k = 0;; k++) {
        struct fixture x = { .now = 1 };
        faulty_init(&x.f, k);
        const struct store_master_options options = small(&x);
        store_master *master = NULL;
        const mc_status status = store_master_open(&options, &master);
        if (status == MC_OK) {
            store_master_close(master);
            assert_int_equal(x.f.held, 0);
            assert_true(k > 10);
            return;
        }
        assert_int_equal(status, MC_E_NOMEM);
        assert_null(master);
        assert_int_equal(x.f.held, 0);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_an_object_is_seen_once_it_is_committed),
        TEST(test_asked_again_is_answered_the_same),
        TEST(test_an_answer_names_no_place_of_another_put),
        TEST(test_a_second_writer_finds_it_busy_and_then_there),
        TEST(test_a_token_ends_its_own_put_only),
        TEST(test_a_further_copy_is_one_more_replica),
        TEST(test_what_was_removed_does_not_come_back_by_a_copy),
        TEST(test_a_copy_that_is_not_written_leaves_the_object),
        TEST(test_a_token_expires_and_its_place_comes_back),
        TEST(test_a_place_is_free_when_its_node_says_quiet),
        TEST(test_what_is_leased_stays_until_the_lease_is_over),
        TEST(test_a_lease_released_or_lost_is_gone),
        TEST(test_a_full_table_of_leases_says_so),
        TEST(test_who_asks_when_it_is_full_finds_room_made),
        cmocka_unit_test(test_who_asks_when_a_node_keeps_account_of_no_more_finds_room_made),
        cmocka_unit_test(test_places_of_nodes_are_kept_free_as_bytes_are),
        cmocka_unit_test(test_records_of_the_master_are_kept_free_as_bytes_are),
        cmocka_unit_test(test_places_of_a_node_that_drains_or_goes_count_no_longer),
        TEST(test_a_silent_node_is_forgotten_with_what_it_held),
        TEST(test_events_follow_a_snapshot_without_a_gap),
        TEST(test_messages_that_ask_for_too_much_are_refused),
        cmocka_unit_test(test_an_object_costs_at_most_160_bytes),
        cmocka_unit_test(test_every_failed_allocation_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
