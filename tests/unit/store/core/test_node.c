/* test_node.c - a node, told by hand what to open and to give up, and what it tells a new master. */
#include "test.h"

#include "store/core/node.h"
#include "store/core/object.h"

#define MS UINT64_C(1000000)

enum { MEMORY = 4096, MAX = 16 };

struct fixture {
    struct faulty f;
    store_node *node;
    uint64_t now;
    uint8_t memory[MEMORY];
    /* asked and answered last */
    uint64_t tag, held, places, register_id;
    uint32_t kind, answer_kind, count;
    struct wire_window windows[MAX];
    uint32_t statuses[MAX];
    struct wire_held told[MAX];
    bool last;
    /* what the Transfer Engine does */
    uint64_t windows_made;
    mc_status grant_status, renew_status, revoke_status;
    uint32_t revoked;
};

static mc_status answer(void *user, uint64_t id, enum wire_kind kind, const void *message)
{
    struct fixture *x = user;

    (void)id;
    x->answer_kind = kind;
    x->count = 0;
    if (kind == WIRE_PLACE_WINDOWS) {
        struct wire_list list = ((const struct wire_place_windows *)message)->windows;
        while (wire_window_next(&list, &x->windows[x->count]))
            x->count++;
    } else if (kind == WIRE_OUTCOMES) {
        const struct wire_array *a = &((const struct wire_outcomes *)message)->statuses;
        for (; x->count < a->count; x->count++)
            x->statuses[x->count] = wire_u32_at(a, x->count);
    }
    return MC_OK;
}

static mc_status ask(void *user, uint64_t tag, enum wire_kind kind, const void *message)
{
    struct fixture *x = user;

    x->kind = kind;
    x->tag = tag;
    if (kind == WIRE_NODE_REGISTER) {
        x->held = ((const struct wire_node_register *)message)->held;
        x->places = ((const struct wire_node_register *)message)->places;
        x->register_id = ((const struct wire_node_register *)message)->node;
    } else if (kind == WIRE_NODE_HELD) {
        struct wire_list list = ((const struct wire_node_held *)message)->objects;
        x->count = 0;
        x->last = ((const struct wire_node_held *)message)->last;
        while (wire_held_next(&list, &x->told[x->count]))
            x->count++;
    }
    return MC_OK;
}

static mc_status grant(void *user, uint32_t lent, uint64_t offset, uint64_t size, uint64_t lease_ns,
                       struct mc_window *window_p)
{
    struct fixture *x = user;

    (void)lent;
    (void)offset;
    *window_p =
        (struct mc_window){ .key = { ++x->windows_made, 1 }, .size = size, .lease_ns = lease_ns };
    return x->grant_status;
}

static mc_status renew(void *user, const struct mc_window *window, uint64_t lease_ns)
{
    struct fixture *x = user;

    (void)window;
    (void)lease_ns;
    return x->renew_status;
}

static mc_status revoke(void *user, const struct mc_window *window)
{
    struct fixture *x = user;

    (void)window;
    x->revoked++;
    return x->revoke_status;
}

static mc_status inspect(void *user, uint32_t lent, uint64_t offset, uint64_t size,
                         uint64_t generation, struct mc_object_header *header_p)
{
    struct fixture *x = user;

    (void)lent;
    return object_inspect(x->memory + offset, size, generation, header_p);
}

static void step(struct fixture *x, enum store_node_event_kind kind, uint64_t id, uint32_t wire,
                 const void *message)
{
    const struct store_node_out out = { answer, ask, grant, renew, revoke, inspect, x };
    const struct store_node_event event = { kind, id, MC_OK, wire, message };

    store_node_step(x->node, &event, x->now, &out);
}

static void tick(struct fixture *x, uint64_t later_ns)
{
    x->now += later_ns;
    step(x, STORE_NODE_TICK, 0, 0, NULL);
}

static void registered(struct fixture *x, uint64_t node, uint64_t epoch)
{
    const struct wire_node_registered message = {
        .node = node, .epoch = epoch, .heartbeat_ns = 100 * MS, .readers_ns = 500 * MS
    };

    assert_int_equal(x->kind, WIRE_NODE_REGISTER);
    step(x, STORE_NODE_ANSWER, x->tag, WIRE_NODE_REGISTERED, &message);
}

static struct store_node_options options_of(struct fixture *x, const struct store_node_lent *lent)
{
    return (struct store_node_options){
        .alloc = &x->f.alloc,
        .lent = lent,
        .lent_count = 1,
        .segment = "n",
        .incarnation = 3,
        .places_max = 8,
        .batch_max = 8,
    };
}

static const struct store_node_lent lent = { .region = { .id = 1, .generation = 2 },
                                             .size = MEMORY,
                                             .align = 64 };

static int set_up(void **state)
{
    struct fixture *x = calloc(1, sizeof(*x));
    const struct store_node_options options = options_of(x, &lent);

    faulty_init(&x->f, -1);
    x->now = 1000 * MS;
    assert_int_equal(store_node_open(&options, &x->node), MC_OK);
    step(x, STORE_NODE_UP, 0, 0, NULL);
    assert_int_equal(x->held, 0);
    assert_int_equal(x->places, 8);
    registered(x, 21, 5);
    *state = x;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *x = *state;

    store_node_close(x->node);
    assert_int_equal(x->f.held, 0);
    free(x);
    return 0;
}

static struct wire_place place_at(uint64_t offset, uint64_t generation)
{
    return (struct wire_place){ .offset = offset, .size = 256, .generation = generation };
}

static bool opened(struct fixture *x, uint64_t offset, uint64_t generation)
{
    static const struct mc_key none;
    const struct wire_place place = place_at(offset, generation);
    const struct wire_place_open message = { .places = { .items = &place, .count = 1 },
                                             .permissions = MC_REMOTE_WRITE,
                                             .lease_ns = 300 * MS };

    step(x, STORE_NODE_MESSAGE, 1, WIRE_PLACE_OPEN, &message);
    assert_int_equal(x->answer_kind, WIRE_PLACE_WINDOWS);
    assert_int_equal(x->count, 1);
    return memcmp(&x->windows[0].key, &none, sizeof(none)) != 0;
}

static mc_status evict(struct fixture *x, uint64_t offset, uint64_t generation)
{
    const struct wire_place place = place_at(offset, generation);
    const struct wire_evict message = { .places = { .items = &place, .count = 1 } };

    step(x, STORE_NODE_MESSAGE, 1, WIRE_EVICT, &message);
    assert_int_equal(x->answer_kind, WIRE_OUTCOMES);
    return (mc_status)(int32_t)x->statuses[0];
}

static void write_object(struct fixture *x, uint64_t offset, uint8_t name, uint64_t generation)
{
    const struct mc_identity identity = { { name } };
    const struct mc_range range = { x->memory + offset + 64, 100 };
    struct mc_object_header header;
    uint32_t sum;

    memset(range.address, name, 100);
    object_header_make(&header, &identity, 100, generation);
    memcpy(x->memory + offset, &header, sizeof(header));
    object_sum(&range, 1, 100, &sum);
    object_trailer_make(&header, &sum, 1, x->memory + offset + 164);
}

static struct store_node_figures figures(const struct fixture *x)
{
    struct store_node_figures f;

    store_node_figures(x->node, &f);
    return f;
}

static void test_a_place_asked_for_again_keeps_its_window(void **state)
{
    struct fixture *x = *state;

    assert_true(opened(x, 0, 7));
    const struct mc_key key = x->windows[0].key;
    assert_true(opened(x, 0, 7));
    assert_memory_equal(&key, &x->windows[0].key, sizeof(key));
    assert_false(opened(x, 0, 8)); /* another owner while the first is there */
    assert_false(opened(x, MEMORY - 64, 9));
    assert_false(opened(x, 32, 9));
    assert_int_equal(figures(x).places, 1);
    assert_int_equal(figures(x).windows, 1);
}

static void test_an_expired_window_is_revoked_and_the_place_stays(void **state)
{
    struct fixture *x = *state;

    assert_true(opened(x, 0, 7));
    tick(x, 300 * MS);
    assert_int_equal(x->revoked, 1);
    assert_int_equal(figures(x).windows, 0);
    assert_int_equal(figures(x).places, 1);
    x->grant_status = MC_E_FULL;
    assert_false(opened(x, 0, 7)); /* a renewal that came late, and found no window */
    assert_int_equal(figures(x).places, 1);
    assert_false(opened(x, 256, 8));
    assert_int_equal(figures(x).places, 1); /* but what was new there goes */
}

static void test_a_place_is_given_up_when_it_is_quiet(void **state)
{
    struct fixture *x = *state;

    assert_true(opened(x, 0, 7));
    x->revoke_status = MC_E_TIMEOUT;
    assert_int_equal(evict(x, 0, 7), MC_E_TIMEOUT);
    assert_int_equal(figures(x).quarantined_bytes, 256);
    assert_false(opened(x, 0, 8));
    assert_false(opened(x, 192, 8)); /* overlaps */
    x->revoke_status = MC_OK;
    tick(x, 10 * MS);
    assert_int_equal(figures(x).quarantined_bytes, 0);
    assert_int_equal(evict(x, 0, 7), MC_OK); /* asked again */
    assert_true(opened(x, 0, 8));
}

static void test_a_master_that_knows_us_is_told_nothing(void **state)
{
    struct fixture *x = *state;

    assert_true(opened(x, 0, 7));
    step(x, STORE_NODE_DOWN, 0, 0, NULL);
    step(x, STORE_NODE_UP, 0, 0, NULL);
    assert_int_equal(x->register_id, 21);
    assert_int_equal(x->held, 1);
    registered(x, 21, 5);
    assert_int_equal(x->revoked, 0);
    assert_true(figures(x).ready);
}

static void test_a_new_master_is_told_of_what_is_whole(void **state)
{
    struct fixture *x = *state;

    assert_true(opened(x, 512, 7));
    assert_true(opened(x, 0, 8));
    assert_true(opened(x, 1024, 9));
    write_object(x, 512, 1, 7);
    write_object(x, 0, 2, 8);
    write_object(x, 1024, 3, 9);
    x->memory[1024 + 64] ^= 1; /* not whole */
    step(x, STORE_NODE_DOWN, 0, 0, NULL);
    step(x, STORE_NODE_UP, 0, 0, NULL);
    registered(x, 22, 6);
    tick(x, 0);
    assert_int_equal(x->revoked, 3); /* nobody writes what we verify */
    assert_int_equal(x->kind, WIRE_NODE_HELD);
    assert_true(x->last);
    assert_int_equal(x->count, 2);
    assert_int_equal(x->told[0].offset, 0); /* in order */
    assert_int_equal(x->told[0].generation, 8);
    assert_int_equal(x->told[1].offset, 512);
    assert_false(figures(x).ready);
    const uint32_t said[] = { MC_OK, (uint32_t)MC_E_FULL };
    const struct wire_outcomes outcomes = { .statuses = { said, 2 } };
    step(x, STORE_NODE_ANSWER, x->tag, WIRE_OUTCOMES, &outcomes);
    assert_true(figures(x).ready);
    assert_int_equal(figures(x).quarantined_bytes,
                     512); /* it rests while readers may have leases */
    assert_false(opened(x, 1024, 30));
    tick(x, 500 * MS);
    assert_int_equal(figures(x).places, 1);
    assert_int_equal(figures(x).quarantined_bytes, 0);
}

static void test_a_loss_while_telling_begins_anew(void **state)
{
    struct fixture *x = *state;

    assert_true(opened(x, 0, 8));
    write_object(x, 0, 2, 8);
    step(x, STORE_NODE_DOWN, 0, 0, NULL);
    step(x, STORE_NODE_UP, 0, 0, NULL);
    registered(x, 22, 6);
    tick(x, 0);
    assert_int_equal(x->kind, WIRE_NODE_HELD);
    step(x, STORE_NODE_DOWN, 0, 0, NULL);
    step(x, STORE_NODE_UP, 0, 0, NULL);
    assert_int_equal(x->register_id, 0); /* the master must not take us for one that told all */
    registered(x, 23, 6);
    tick(x, 0);
    assert_int_equal(x->kind, WIRE_NODE_HELD);
    assert_int_equal(x->count, 1);
}

static void test_a_master_that_forgot_us_is_registered_with_again(void **state)
{
    struct fixture *x = *state;
    const struct wire_outcome stale = { .status = MC_E_STALE };

    tick(x, 100 * MS);
    assert_int_equal(x->kind, WIRE_NODE_HEARTBEAT);
    step(x, STORE_NODE_ANSWER, x->tag, WIRE_OUTCOME, &stale);
    assert_int_equal(x->kind, WIRE_NODE_REGISTER);
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    (void)state;
    for (long k = 0;; k++) {
        struct fixture x = { .now = 1 };
        const struct store_node_options options = options_of(&x, &lent);
        store_node *node = NULL;
        faulty_init(&x.f, k);
        const mc_status status = store_node_open(&options, &node);
        if (status == MC_OK) {
            store_node_close(node);
            assert_int_equal(x.f.held, 0);
            assert_true(k > 5);
            return;
        }
        assert_int_equal(status, MC_E_NOMEM);
        assert_null(node);
        assert_int_equal(x.f.held, 0);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_place_asked_for_again_keeps_its_window),
        TEST(test_an_expired_window_is_revoked_and_the_place_stays),
        TEST(test_a_place_is_given_up_when_it_is_quiet),
        TEST(test_a_master_that_knows_us_is_told_nothing),
        TEST(test_a_new_master_is_told_of_what_is_whole),
        TEST(test_a_loss_while_telling_begins_anew),
        TEST(test_a_master_that_forgot_us_is_registered_with_again),
        cmocka_unit_test(test_every_failed_allocation_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
