/* test_faults.c - nodes and masters that go, bytes that spoil, requests that end early. */
#include "cluster.h"

#include "store/node/lend.h"

enum { MIB = 1 << 20, NODES = 2 };

struct cluster {
    struct master master;
    struct member nodes[NODES], client;
};

static void cluster_open(struct cluster *c)
{
    master_open(&c->master, NULL);
    for (int i = 0; i < NODES; i++)
        node_open(&c->nodes[i], c->master.address, 8 * MIB, NULL);
    client_open(&c->client, c->master.address, 2 * MIB, NULL);
    wait_for(c->client.store, NODES, 0);
}

static void cluster_close(struct cluster *c)
{
    member_close(&c->client);
    for (int i = 0; i < NODES; i++)
        if (c->nodes[i].engine)
            member_close(&c->nodes[i]);
    if (c->master.loop)
        master_close(&c->master);
}

/** Where a node's memory has an object of that name; NULL: not there. */
static uint8_t *find_object(const struct member *node, const char *name)
{
    const struct mc_identity id = identity(name);
    uint8_t *memory = node->node->memory;

    for (size_t at = 0; at + 64 <= node->node->size; at += 64) {
        struct mc_object_header header;
        memcpy(&header, memory + at, sizeof(header));
        if (header.magic == MC_OBJECT_MAGIC && object_header_whole(&header) == MC_OK &&
            memcmp(&header.identity, &id, sizeof(id)) == 0)
            return memory + at;
    }
    return NULL;
}

/* ------------------------------------------------------------------------------------ spoilt bytes */

static void test_a_spoilt_copy_is_never_handed_out(void **state)
{
    (void)state;
    struct cluster c;
    struct mc_store_stats stats;

    cluster_open(&c);
    assert_int_equal(put(&c.client, "one", 100000, 1), MC_OK);
    uint8_t *at = find_object(&c.nodes[0], "one");
    at = at ? at : find_object(&c.nodes[1], "one");
    assert_non_null(at);
    at[64 + 77777] ^= 1;
    assert_int_equal(get(&c.client, "one", 100000), MC_E_CORRUPT);
    assert_int_equal(get(&c.client, "one", 100000), MC_E_NOT_FOUND); /* the master was told */
    assert_int_equal(mc_store_stats(c.client.store, in_seconds(20), &stats, NULL), MC_OK);
    assert_int_equal(stats.corrupt, 1);
    assert_int_equal(put(&c.client, "one", 100000, 1), MC_OK); /* and it can be put again */
    assert_int_equal(get(&c.client, "one", 100000), MC_OK);
    cluster_close(&c);
}

static void test_the_other_copy_is_read_when_one_is_spoilt(void **state)
{
    (void)state;
    struct cluster c;

    cluster_open(&c);
    assert_int_equal(put(&c.client, "two", 100000, 2), MC_OK);
    uint8_t *at = find_object(&c.nodes[0], "two");
    assert_non_null(at);
    assert_non_null(find_object(&c.nodes[1], "two"));
    at[64] ^= 0x80;
    for (int i = 0; i < 3; i++)
        assert_int_equal(get(&c.client, "two", 100000), MC_OK);
    cluster_close(&c);
}

/* ----------------------------------------------------------------------------------- nodes that go */

static void test_the_other_copy_is_read_when_a_node_is_gone(void **state)
{
    (void)state;
    struct cluster c;

    cluster_open(&c);
    assert_int_equal(put(&c.client, "two", 100000, 2), MC_OK);
    assert_int_equal(get(&c.client, "two", 100000), MC_OK);
    member_close(&c.nodes[0]); /* the master does not know yet, or just so */
    assert_int_equal(get(&c.client, "two", 100000), MC_OK);
    wait_for(c.client.store, 1, 1);
    assert_int_equal(get(&c.client, "two", 100000), MC_OK);
    cluster_close(&c);
}

static void test_what_only_a_lost_node_had_is_not_found(void **state)
{
    (void)state;
    struct cluster c;

    cluster_open(&c);
    assert_int_equal(put(&c.client, "a", 100000, 1), MC_OK);
    const int holder = find_object(&c.nodes[0], "a") ? 0 : 1;
    member_close(&c.nodes[holder]);
    const mc_status status = get(&c.client, "a", 100000);
    assert_true(status == MC_E_PEER || status == MC_E_NOT_FOUND || status == MC_E_STALE);
    wait_for(c.client.store, 1, 0);
    assert_int_equal(get(&c.client, "a", 100000), MC_E_NOT_FOUND);
    assert_int_equal(put(&c.client, "a", 100000, 1), MC_OK);
    assert_int_equal(get(&c.client, "a", 100000), MC_OK);
    cluster_close(&c);
}

/* Gets go on while the node that they read from goes: each is right, or says why not. */
static void test_a_node_goes_while_it_is_read(void **state)
{
    (void)state;
    enum { COUNT = 64, SIZE = 30000 };
    static struct mc_get gets[COUNT];
    static struct mc_range ranges[COUNT];
    struct cluster c;
    mc_store_request *request = NULL;
    char name[32];
    uint8_t wanted[SIZE];

    cluster_open(&c);
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof(name), "r%d", i);
        assert_int_equal(put(&c.client, name, SIZE, 1 + (uint32_t)i % 2), MC_OK);
        ranges[i] = (struct mc_range){ c.client.memory + (size_t)i * SIZE, SIZE };
        gets[i] = (struct mc_get){ .identity = identity(name), .ranges = &ranges[i], .count = 1 };
    }
    assert_int_equal(mc_store_get_begin(c.client.store, gets, COUNT, in_seconds(20), &request),
                     MC_OK);
    member_close(&c.nodes[0]);
    assert_int_equal(finish(request), MC_OK);
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof(name), "r%d", i);
        paint(wanted, SIZE, name);
        if (gets[i].status == MC_OK)
            assert_memory_equal(ranges[i].address, wanted, SIZE);
        else
            assert_int_not_equal(gets[i].status, MC_PENDING);
        if (i % 2 == 1) /* two copies */
            assert_int_equal(gets[i].status, MC_OK);
    }
    cluster_close(&c);
}

static void test_what_a_node_held_is_with_others_after_it_drained(void **state)
{
    (void)state;
    enum { COUNT = 40, SIZE = 50000 };
    struct cluster c;
    char name[32];

    cluster_open(&c);
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof(name), "d%d", i);
        assert_int_equal(put(&c.client, name, SIZE, 1 + (i % 4 == 0)), MC_OK);
    }
    assert_int_equal(mc_store_node_drain(c.nodes[0].node, in_seconds(20)), MC_OK);
    member_close(&c.nodes[0]);
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof(name), "d%d", i);
        assert_int_equal(get(&c.client, name, SIZE), MC_OK);
    }
    /* There is nowhere to go for what is left. */
    assert_int_equal(mc_store_node_drain(c.nodes[1].node, in_seconds(20)), MC_E_FULL);
    assert_int_equal(get(&c.client, "d1", SIZE), MC_OK);
    assert_int_equal(put(&c.client, "new", SIZE, 1), MC_E_FULL);
    cluster_close(&c);
}

static void test_a_node_that_holds_nothing_needs_no_master_to_drain(void **state)
{
    (void)state;
    struct cluster c;

    cluster_open(&c);
    master_close(&c.master);
    const uint64_t began_ns = os_now_ns();
    assert_int_equal(mc_store_node_drain(c.nodes[0].node, in_seconds(20)), MC_OK);
    assert_true(os_now_ns() - began_ns < UINT64_C(10000000000));
    master_open(&c.master, NULL);
    cluster_close(&c);
}

/* --------------------------------------------------------------------------------- masters that go */

static void test_objects_are_found_again_after_the_master_restarted(void **state)
{
    (void)state;
    enum { COUNT = 50, SIZE = 20000 };
    struct cluster c;
    char name[32];

    cluster_open(&c);
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof(name), "m%d", i);
        assert_int_equal(put(&c.client, name, SIZE, 1), MC_OK);
    }
    master_restart(&c.master);
    wait_for(c.client.store, NODES, COUNT);
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof(name), "m%d", i);
        assert_int_equal(get(&c.client, name, SIZE), MC_OK);
    }
    assert_int_equal(put(&c.client, "m0", SIZE, 1), MC_E_EXISTS);
    cluster_close(&c);
}

static void test_leases_and_tokens_of_another_life_are_stale(void **state)
{
    (void)state;
    struct cluster c;
    struct mc_replica replica;
    struct mc_allot allot = {
        .identity = identity("x"), .length = 100, .replicas = &replica, .replicas_max = 1
    };
    struct mc_lookup lookup = { .key = key_of("y") };
    mc_store_request *request = NULL;

    cluster_open(&c);
    assert_int_equal(put(&c.client, "y", 100, 1), MC_OK);
    assert_int_equal(mc_store_lookup_begin(c.client.store, &lookup, 1, 0, 0, 0, &request), MC_OK);
    assert_int_equal(finish(request), MC_OK);
    assert_int_equal(mc_store_allot_begin(c.client.store, &allot, 1, NULL, 0, &request), MC_OK);
    assert_int_equal(finish(request), MC_OK);
    assert_int_equal(allot.status, MC_OK);
    master_restart(&c.master);
    wait_for(c.client.store, NODES, 1);
    struct mc_commit commit = { .key = key_of("x"), .token = allot.token };
    assert_int_equal(mc_store_commit_begin(c.client.store, &commit, 1, 0, &request), MC_OK);
    assert_int_equal(finish(request), MC_OK);
    assert_int_equal(commit.status, MC_E_STALE);
    struct mc_lease lease = lookup.lease;
    assert_int_equal(mc_store_lease_renew_begin(c.client.store, &lease, 1, SECOND_NS, 0, &request),
                     MC_OK);
    assert_int_equal(finish(request), MC_OK);
    assert_int_equal(lease.until_ns, 0);
    cluster_close(&c);
}

static void test_a_request_waits_for_a_master_that_comes_late(void **state)
{
    (void)state;
    struct cluster c;
    mc_store_request *request = NULL;
    struct mc_exist exist = { .key = key_of("x") };
    struct store_server_options o = small_master();
    char address[80];
    int fd = -1;

    cluster_open(&c);
    memcpy(address, c.master.address, sizeof(address));
    master_close(&c.master);
    assert_int_equal(mc_store_exist_begin(c.client.store, &exist, 1, in_seconds(20), &request),
                     MC_OK);
    assert_int_equal(mc_store_request_fd(request, &fd), MC_OK);
    assert_int_equal(mc_store_request_poll(request), MC_PENDING);
    assert_int_equal(mc_store_request_wait(request, MC_AT_ONCE), MC_PENDING);
    o.listen = address;
    master_open(&c.master, &o);
    assert_true(os_wait_readable(&fd, 1, in_seconds(20)));
    assert_int_equal(mc_store_request_poll(request), MC_OK);
    assert_int_equal(finish(request), MC_OK);
    assert_int_equal(exist.status, MC_E_NOT_FOUND);
    cluster_close(&c);
}

/* -------------------------------------------------------------------------- requests that end early */

static void test_a_deadline_without_a_master_names_it(void **state)
{
    (void)state;
    struct member client;
    struct mc_exist exist = { .key = key_of("x") };
    mc_store_request *request = NULL;
    struct mc_error error = { 0 };
    struct mc_store_stats stats;

    client_open(&client, "127.0.0.1:1", 4096, NULL); /* where nobody listens */
    assert_int_equal(mc_store_exist_begin(client.store, &exist, 1,
                                          os_now_ns() + 30 * UINT64_C(1000000), &request),
                     MC_OK);
    assert_int_equal(mc_store_request_wait(request, in_seconds(20)), MC_E_TIMEOUT);
    assert_int_equal(mc_store_request_error(request, &error), MC_E_TIMEOUT);
    assert_non_null(strstr(error.text, "127.0.0.1:1"));
    assert_int_equal(exist.status, MC_E_TIMEOUT);
    mc_store_request_close(request);
    assert_int_equal(mc_store_stats(client.store, MC_AT_ONCE, &stats, &error), MC_E_TIMEOUT);
    assert_non_null(strstr(error.text, "127.0.0.1:1"));
    member_close(&client);
}

static void test_what_is_cancelled_or_closed_is_quiet(void **state)
{
    (void)state;
    struct member client;
    struct mc_exist exists[3] = { { .key = key_of("x") } };
    mc_store_request *requests[3];
    struct mc_error error = { 0 };

    client_open(&client, "127.0.0.1:1", 4096, NULL);
    for (int i = 0; i < 3; i++)
        assert_int_equal(mc_store_exist_begin(client.store, &exists[i], 1, 0, &requests[i]), MC_OK);
    assert_int_equal(mc_store_request_error(requests[0], &error), MC_PENDING);
    assert_int_equal(mc_store_request_cancel(requests[0]), MC_OK);
    assert_int_equal(mc_store_request_cancel(requests[0]), MC_OK); /* twice is once */
    assert_int_equal(mc_store_request_wait(requests[0], in_seconds(20)), MC_E_CANCELLED);
    assert_int_equal(exists[0].status, MC_E_CANCELLED);
    assert_int_equal(mc_store_request_cancel(requests[0]), MC_OK); /* too late */
    mc_store_request_close(requests[0]);
    mc_store_request_close(requests[1]);
    assert_int_equal(exists[1].status, MC_E_CANCELLED);
    mc_store_request_close(requests[2]);
    mc_store_request_close(NULL);
    member_close(&client);
}

static void test_a_put_that_is_cancelled_leaves_nothing(void **state)
{
    (void)state;
    enum { SIZE = MIB, COUNT = 8 };
    struct cluster c;
    struct mc_store_stats stats;
    struct mc_remove removes[COUNT];
    char name[32];
    mc_store_request *request = NULL;
    const uint64_t end_ns = in_seconds(20);

    cluster_open(&c);
    const struct mc_range range = { c.client.memory, SIZE };
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof(name), "c%d", i);
        struct mc_put item = { .identity = identity(name), .ranges = &range, .count = 1 };
        removes[i] = (struct mc_remove){ .key = key_of(name) };
        assert_int_equal(mc_store_put_begin(c.client.store, &item, 1, NULL, 0, &request), MC_OK);
        mc_store_request_close(request);
        assert_true(item.status == MC_E_CANCELLED || item.status == MC_OK);
        memset(c.client.memory, i, SIZE); /* ours again */
    }
    do { /* what was committed before it could be revoked is an object as any */
        assert_int_equal(mc_store_remove_begin(c.client.store, removes, COUNT, 0, &request), MC_OK);
        assert_int_equal(finish(request), MC_OK);
        assert_int_equal(mc_store_stats(c.client.store, end_ns, &stats, NULL), MC_OK);
        assert_true(os_now_ns() < end_ns);
        os_yield();
    } while (stats.used_bytes != 0 || stats.objects != 0);
    cluster_close(&c);
}

static void test_more_requests_than_may_be_are_refused(void **state)
{
    (void)state;
    struct member client;
    struct mc_exist exists[3] = { { .key = key_of("x") } };
    mc_store_request *requests[3] = { NULL };

    client_open(&client, "127.0.0.1:1", 4096, NULL);
    const struct mc_store_options options = {
        .master = "127.0.0.1:1", .transfer = client.engine, .requests_max = 2, .items_max = 2
    };
    mc_store *store = NULL;
    assert_int_equal(mc_store_open(&options, &store, NULL), MC_OK);
    assert_int_equal(mc_store_exist_begin(store, exists, 3, 0, &requests[0]), MC_E_RANGE);
    for (int i = 0; i < 2; i++)
        assert_int_equal(mc_store_exist_begin(store, &exists[i], 1, 0, &requests[i]), MC_OK);
    assert_int_equal(mc_store_exist_begin(store, &exists[2], 1, 0, &requests[2]), MC_E_FULL);
    mc_store_request_close(requests[0]);
    assert_int_equal(mc_store_exist_begin(store, &exists[2], 1, 0, &requests[2]), MC_OK);
    mc_store_request_close(requests[1]);
    mc_store_request_close(requests[2]);
    mc_store_close(store);
    member_close(&client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_spoilt_copy_is_never_handed_out),
        cmocka_unit_test(test_the_other_copy_is_read_when_one_is_spoilt),
        cmocka_unit_test(test_the_other_copy_is_read_when_a_node_is_gone),
        cmocka_unit_test(test_what_only_a_lost_node_had_is_not_found),
        cmocka_unit_test(test_a_node_goes_while_it_is_read),
        cmocka_unit_test(test_what_a_node_held_is_with_others_after_it_drained),
        cmocka_unit_test(test_a_node_that_holds_nothing_needs_no_master_to_drain),
        cmocka_unit_test(test_objects_are_found_again_after_the_master_restarted),
        cmocka_unit_test(test_leases_and_tokens_of_another_life_are_stale),
        cmocka_unit_test(test_a_request_waits_for_a_master_that_comes_late),
        cmocka_unit_test(test_a_deadline_without_a_master_names_it),
        cmocka_unit_test(test_what_is_cancelled_or_closed_is_quiet),
        cmocka_unit_test(test_a_put_that_is_cancelled_leaves_nothing),
        cmocka_unit_test(test_more_requests_than_may_be_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
