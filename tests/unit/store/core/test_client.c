/* test_client.c - requests, with the master and the Transfer Engine played by hand. */
#include "test.h"

#include "store/core/client.h"
#include "store/core/object.h"

#define MS UINT64_C(1000000)

enum { PLACE = 4096, LENGTH = 100 };

struct fixture {
    struct faulty f;
    store_client *client;
    uint64_t now;
    /* asked last, by kind; what else was asked */
    uint64_t tag, revoke_token;
    uint32_t kind, asides[128], asked;
    struct wire_put_item item;
    struct wire_put_end end;
    uint64_t forgotten;
    bool no_scratch;
    uint32_t scratches;
    /* transfers */
    uint64_t moves[4];
    uint32_t move_count, stops;
    enum mc_op op;
    struct mc_range parts[8];
    size_t part_count;
    uint8_t place[PLACE];
    uint32_t done;
    uint8_t payload[LENGTH];
    struct mc_range range;
};

static const struct mc_identity identity = { { 42 } };

static mc_status ask(void *user, uint64_t tag, enum wire_kind kind, const void *message)
{
    struct fixture *x = user;

    x->asides[kind]++;
    if (kind == WIRE_REPLICA_BAD || kind == WIRE_LEASE_RELEASE || kind == WIRE_PUT_REVOKE)
        return MC_OK;
    x->asked++;
    x->kind = kind;
    x->tag = tag;
    if (kind == WIRE_PUT_BEGIN) {
        struct wire_list list = ((const struct wire_put_begin *)message)->items;
        wire_put_item_next(&list, &x->item);
    } else if (kind == WIRE_PUT_COMMIT) {
        struct wire_list list = ((const struct wire_put_commit *)message)->items;
        wire_put_end_next(&list, &x->end);
    }
    return MC_OK;
}

static void forget(void *user, uint64_t tag)
{
    ((struct fixture *)user)->forgotten = tag;
}

static uint32_t segment(void *user, uint64_t node, struct wire_slice name, uint64_t incarnation)
{
    (void)user;
    (void)name;
    (void)incarnation;
    return (uint32_t)node;
}

static void *scratch(void *user, size_t size)
{
    struct fixture *x = user;

    if (x->no_scratch)
        return NULL;
    x->scratches++;
    return malloc(size);
}

static void scratch_free(void *user, void *p, size_t size)
{
    struct fixture *x = user;

    (void)size;
    x->scratches--;
    free(p);
}

static mc_status move(void *user, uint64_t tag, enum mc_op op, const struct mc_replica *replica,
                      const struct mc_range *parts, size_t count, uint64_t deadline_ns)
{
    struct fixture *x = user;

    (void)replica;
    (void)deadline_ns;
    x->moves[x->move_count++ % 4] = tag;
    x->op = op;
    x->part_count = count;
    memcpy(x->parts, parts, count * sizeof(*parts));
    return MC_OK;
}

static void stop(void *user, uint64_t tag)
{
    (void)tag;
    ((struct fixture *)user)->stops++;
}

static void draw(void *user, uint64_t token[2])
{
    (void)user;
    token[0] = 7;
    token[1] = 8;
}

static void done(void *user, store_request *request)
{
    (void)request;
    ((struct fixture *)user)->done++;
}

static struct store_client_out out_of(struct fixture *x)
{
    return (struct store_client_out){ ask,  forget, segment, scratch, scratch_free,
                                      move, stop,   draw,    done,    x };
}

static void step(struct fixture *x, enum store_client_event_kind kind, uint64_t id,
                 mc_status status, uint32_t wire, const void *message)
{
    const struct store_client_event event = { kind, id, status, wire, message };
    const struct store_client_out out = out_of(x);

    store_client_step(x->client, &event, x->now, &out);
}

static void tick(struct fixture *x, uint64_t later_ns)
{
    x->now += later_ns;
    step(x, STORE_CLIENT_TICK, 0, MC_OK, 0, NULL);
}

static int set_up(void **state)
{
    struct fixture *x = calloc(1, sizeof(*x));
    const struct store_client_options options = {
        .alloc = &x->f.alloc, .requests_max = 2, .items_max = 8, .batch_max = 2
    };

    faulty_init(&x->f, -1);
    x->now = 1000 * MS;
    x->range = (struct mc_range){ x->payload, LENGTH };
    memset(x->payload, 5, LENGTH);
    assert_int_equal(store_client_open(&options, &x->client), MC_OK);
    step(x, STORE_CLIENT_UP, 0, MC_OK, 0, NULL);
    *state = x;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *x = *state;

    store_client_close(x->client);
    assert_int_equal(x->f.held, 0);
    assert_int_equal(x->scratches, 0);
    free(x);
    return 0;
}

static store_request *begin(struct fixture *x, enum store_op op, void *items, size_t count)
{
    const struct store_client_out out = out_of(x);
    const struct store_call call = { .op = op, .items = items, .count = count };
    store_request *r = NULL;

    assert_int_equal(store_client_begin(x->client, &call, NULL, x->now, &out, &r), MC_OK);
    tick(x, 0);
    return r;
}

static void cancel(struct fixture *x, store_request *r)
{
    const struct store_client_out out = out_of(x);

    store_client_cancel(x->client, r, x->now, &out);
}

static void found(struct fixture *x, uint32_t replicas)
{
    struct wire_replica list[2];
    struct wire_node_engine nodes[2];

    for (uint32_t i = 0; i < 2; i++) {
        list[i] =
            (struct wire_replica){ .node = i + 1, .medium = 1, .generation = 9 + i, .region = 1 };
        nodes[i] = (struct wire_node_engine){ .node = i + 1, .segment = wire_text("n") };
    }
    const struct wire_found_item item = { .length = LENGTH,
                                          .replicas = { .items = list, .count = replicas } };
    const struct wire_found message = {
        .items = { .items = &item, .count = 1 },
        .lease = 3,
        .lease_ns = 100 * MS,
        .epoch = 5,
        .nodes = { .items = nodes, .count = 2 },
    };
    assert_int_equal(x->kind, WIRE_LOOKUP);
    step(x, STORE_CLIENT_ANSWER, x->tag, MC_OK, WIRE_FOUND, &message);
}

static void begun(struct fixture *x)
{
    const struct wire_replica replica = {
        .node = 1, .medium = 1, .generation = 9, .window = { .key = { { 1 } }, .size = PLACE }
    };
    const struct wire_node_engine node = { .node = 1, .segment = wire_text("n") };
    const struct wire_put_place place = { .replicas = { .items = &replica, .count = 1 } };
    const struct wire_put_begun message = {
        .places = { .items = &place, .count = 1 },
        .lease_ns = 100 * MS,
        .epoch = 5,
        .nodes = { .items = &node, .count = 1 },
    };

    assert_int_equal(x->kind, WIRE_PUT_BEGIN);
    step(x, STORE_CLIENT_ANSWER, x->tag, MC_OK, WIRE_PUT_BEGUN, &message);
}

static void outcomes(struct fixture *x, mc_status status)
{
    const uint32_t said = (uint32_t)status;
    const struct wire_outcomes message = { .statuses = { &said, 1 } };

    step(x, STORE_CLIENT_ANSWER, x->tag, MC_OK, WIRE_OUTCOMES, &message);
}

/** The Transfer Engine copies what was ordered last. */
static void copy(struct fixture *x)
{
    uint8_t *there = x->place;

    for (size_t i = 0; i < x->part_count; there += x->parts[i++].size)
        if (x->op == MC_WRITE)
            memcpy(there, x->parts[i].address, x->parts[i].size);
        else
            memcpy(x->parts[i].address, there, x->parts[i].size);
}

static void moved(struct fixture *x, mc_status status)
{
    step(x, STORE_CLIENT_MOVED, x->moves[(x->move_count - 1) % 4], status, 0, NULL);
}

static void place_holds(struct fixture *x, uint64_t generation)
{
    struct mc_object_header header;
    uint32_t sum;

    object_header_make(&header, &identity, LENGTH, generation);
    memcpy(x->place, &header, sizeof(header));
    memcpy(x->place + 64, x->payload, LENGTH);
    object_sum(&x->range, 1, LENGTH, &sum);
    object_trailer_make(&header, &sum, 1, x->place + 64 + LENGTH);
}

static void test_a_put_writes_what_a_node_finds_whole(void **state)
{
    struct fixture *x = *state;
    struct mc_put put = { .identity = identity, .ranges = &x->range, .count = 1 };
    store_request *r = begin(x, STORE_PUT, &put, 1);
    struct mc_object_header header;

    begun(x);
    assert_int_equal(x->op, MC_WRITE);
    copy(x);
    assert_int_equal(object_inspect(x->place, PLACE, 9, &header), MC_OK);
    assert_memory_equal(&header.identity, &identity, sizeof(identity));
    moved(x, MC_OK);
    assert_int_equal(x->kind, WIRE_PUT_COMMIT);
    assert_int_equal(x->end.replicas, 1);
    assert_int_equal(store_request_status(r), MC_PENDING);
    outcomes(x, MC_OK);
    assert_int_equal(store_request_status(r), MC_OK);
    assert_int_equal(put.status, MC_OK);
    store_client_free(x->client, r);
}

static void test_a_commit_whose_answer_was_lost_is_asked_again(void **state)
{
    struct fixture *x = *state;
    struct mc_put put = { .identity = identity, .ranges = &x->range, .count = 1 };
    store_request *r = begin(x, STORE_PUT, &put, 1);

    begun(x);
    moved(x, MC_OK);
    const uint32_t asked = x->asked;
    step(x, STORE_CLIENT_DOWN, 0, MC_OK, 0, NULL);
    assert_int_equal(x->asked, asked);
    step(x, STORE_CLIENT_UP, 0, MC_OK, 0, NULL);
    assert_int_equal(x->asked, asked + 1);
    assert_int_equal(x->kind, WIRE_PUT_COMMIT);
    outcomes(x, MC_OK);
    assert_int_equal(put.status, MC_OK);
    store_client_free(x->client, r);
}

static void test_a_cancelled_put_is_quiet_before_it_is_final(void **state)
{
    struct fixture *x = *state;
    struct mc_put put = { .identity = identity, .ranges = &x->range, .count = 1 };
    store_request *r = begin(x, STORE_PUT, &put, 1);

    begun(x);
    cancel(x, r);
    assert_int_equal(x->stops, 1);
    assert_int_equal(store_request_status(r), MC_PENDING);
    assert_int_equal(x->asides[WIRE_PUT_REVOKE], 0); /* the writer is not quiet yet */
    moved(x, MC_E_CANCELLED);
    assert_int_equal(x->asides[WIRE_PUT_REVOKE], 1);
    assert_int_equal(store_request_status(r), MC_E_CANCELLED);
    assert_int_equal(put.status, MC_E_CANCELLED);
    assert_int_equal(x->done, 1);
    store_client_free(x->client, r);
}

static void test_a_get_takes_the_next_replica_when_one_is_wrong(void **state)
{
    struct fixture *x = *state;
    uint8_t bytes[LENGTH + 20];
    const struct mc_range range = { bytes, sizeof(bytes) };
    struct mc_get get = { .identity = identity, .ranges = &range, .count = 1 };
    store_request *r = begin(x, STORE_GET, &get, 1);

    found(x, 2);
    place_holds(x, 9);
    x->place[70] ^= 1;
    copy(x);
    moved(x, MC_OK);
    assert_int_equal(x->asides[WIRE_REPLICA_BAD], 1);
    assert_int_equal(store_request_status(r), MC_PENDING);
    place_holds(x, 10);
    copy(x);
    moved(x, MC_OK);
    assert_int_equal(get.status, MC_OK);
    assert_int_equal(get.length, LENGTH);
    assert_int_equal(get.node, 2);
    assert_memory_equal(bytes, x->payload, LENGTH);
    assert_int_equal(x->asides[WIRE_LEASE_RELEASE], 1);
    store_client_free(x->client, r);
}

static void test_bytes_that_came_after_the_lease_are_not_taken(void **state)
{
    struct fixture *x = *state;
    uint8_t bytes[LENGTH];
    const struct mc_range range = { bytes, sizeof(bytes) };
    struct mc_get get = { .identity = identity, .ranges = &range, .count = 1 };
    store_request *r = begin(x, STORE_GET, &get, 1);

    found(x, 1);
    place_holds(x, 9);
    copy(x);
    x->now += 100 * MS;
    const uint32_t asked = x->asked;
    moved(x, MC_OK);
    assert_int_equal(store_request_status(r), MC_PENDING);
    assert_int_equal(x->asked, asked + 1); /* looked up again */
    found(x, 1);
    copy(x);
    moved(x, MC_OK);
    assert_int_equal(get.status, MC_OK);
    store_client_free(x->client, r);
}

static void test_a_place_with_another_object_is_stale(void **state)
{
    struct fixture *x = *state;
    uint8_t bytes[LENGTH];
    const struct mc_range range = { bytes, sizeof(bytes) };
    struct mc_get get = { .identity = identity, .ranges = &range, .count = 1 };
    store_request *r = begin(x, STORE_GET, &get, 1);

    for (int i = 0; i < 4; i++) {
        found(x, 1);
        place_holds(x, 1000);
        copy(x);
        moved(x, MC_OK);
    }
    assert_int_equal(get.status, MC_E_STALE);
    assert_int_equal(x->asides[WIRE_REPLICA_BAD], 4);
    store_client_free(x->client, r);
}

static void test_a_deadline_ends_a_request_without_a_master(void **state)
{
    struct fixture *x = *state;
    struct mc_exist exist = { .key = { { 1 } } };

    step(x, STORE_CLIENT_DOWN, 0, MC_OK, 0, NULL);
    store_request *r = begin(x, STORE_EXIST, &exist, 1);
    assert_int_equal(store_request_status(r), MC_PENDING);
    tick(x, 5000 * MS);
    assert_int_equal(store_request_status(r), MC_E_TIMEOUT);
    assert_int_equal(exist.status, MC_E_TIMEOUT);
    store_client_free(x->client, r);
}

static void test_a_chain_ends_with_its_first_miss(void **state)
{
    struct fixture *x = *state;
    struct mc_lookup lookups[5] = { { .key = { { 1 } } } };
    const struct store_client_out out = out_of(x);
    const struct store_call call = {
        .op = STORE_LOOKUP, .items = lookups, .count = 5, .flags = MC_LOOKUP_PREFIX
    };
    const struct wire_found_item items[] = { { .length = 5 }, { .status = MC_E_NOT_FOUND } };
    const struct wire_found message = {
        .items = { .items = items, .count = 2 }, .lease = 3, .lease_ns = 100 * MS, .epoch = 5
    };
    store_request *r;

    assert_int_equal(store_client_begin(x->client, &call, NULL, x->now, &out, &r), MC_OK);
    tick(x, 0);
    step(x, STORE_CLIENT_ANSWER, x->tag, MC_OK, WIRE_FOUND, &message);
    assert_int_equal(store_request_status(r), MC_OK);
    assert_int_equal(lookups[0].status, MC_OK);
    assert_int_equal(lookups[0].lease.id, 3);
    for (int i = 1; i < 5; i++) {
        assert_int_equal(lookups[i].status, MC_E_NOT_FOUND);
        assert_int_equal(lookups[i].lease.id, 0);
    }
    store_client_free(x->client, r);
}

static void test_too_much_is_refused_at_the_door(void **state)
{
    struct fixture *x = *state;
    struct mc_exist exists[9] = { { .key = { { 0 } } } };
    const struct store_client_out out = out_of(x);
    struct store_call call = { .op = STORE_EXIST, .items = exists, .count = 9 };
    store_request *r = NULL;

    assert_int_equal(store_client_begin(x->client, &call, NULL, x->now, &out, &r), MC_E_RANGE);
    call = (struct store_call){ .op = STORE_PUT, .count = 0, .placement = { .replicas = 9 } };
    assert_int_equal(store_client_begin(x->client, &call, NULL, x->now, &out, &r), MC_E_RANGE);
    call.placement = (struct mc_placement){ .medium = MC_MEDIUM_SSD };
    assert_int_equal(store_client_begin(x->client, &call, NULL, x->now, &out, &r),
                     MC_E_UNSUPPORTED);
    call = (struct store_call){ .op = STORE_EXIST, .items = exists, .count = 1 };
    store_request *both[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(store_client_begin(x->client, &call, NULL, x->now, &out, &both[i]), MC_OK);
    assert_int_equal(store_client_begin(x->client, &call, NULL, x->now, &out, &r), MC_E_FULL);
    for (int i = 0; i < 2; i++) {
        cancel(x, both[i]);
        store_client_free(x->client, both[i]);
    }
}

static void test_no_scratch_memory_is_waited_for(void **state)
{
    struct fixture *x = *state;
    struct mc_put put = { .identity = identity, .ranges = &x->range, .count = 1 };
    store_request *r = begin(x, STORE_PUT, &put, 1);

    x->no_scratch = true;
    begun(x);
    assert_int_equal(x->move_count, 0);
    x->no_scratch = false;
    tick(x, 1 * MS);
    assert_int_equal(x->move_count, 1);
    cancel(x, r);
    moved(x, MC_E_CANCELLED);
    store_client_free(x->client, r);
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    (void)state;
    for (long k = 0;; k++) {
        struct fixture x = { .now = 1 };
        const struct store_client_options options = { .alloc = &x.f.alloc, .requests_max = 2 };
        const struct store_client_out out = out_of(&x);
        struct mc_exist exist = { .key = { { 1 } } };
        const struct store_call call = { .op = STORE_EXIST, .items = &exist, .count = 1 };
        store_request *r = NULL;
        faulty_init(&x.f, k);
        mc_status status = store_client_open(&options, &x.client);
        if (status == MC_OK) {
            status = store_client_begin(x.client, &call, NULL, x.now, &out, &r);
            if (status == MC_OK) {
                store_client_cancel(x.client, r, x.now, &out);
                store_client_free(x.client, r);
            }
            store_client_close(x.client);
        }
        assert_int_equal(x.f.held, 0);
        if (status == MC_OK) {
            assert_true(k > 10);
            return;
        }
        assert_int_equal(status, MC_E_NOMEM);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_put_writes_what_a_node_finds_whole),
        TEST(test_a_commit_whose_answer_was_lost_is_asked_again),
        TEST(test_a_cancelled_put_is_quiet_before_it_is_final),
        TEST(test_a_get_takes_the_next_replica_when_one_is_wrong),
        TEST(test_bytes_that_came_after_the_lease_are_not_taken),
        TEST(test_a_place_with_another_object_is_stale),
        TEST(test_a_deadline_ends_a_request_without_a_master),
        TEST(test_a_chain_ends_with_its_first_miss),
        TEST(test_too_much_is_refused_at_the_door),
        TEST(test_no_scratch_memory_is_waited_for),
        cmocka_unit_test(test_every_failed_allocation_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
