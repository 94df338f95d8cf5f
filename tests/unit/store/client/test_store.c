/* test_store.c - objects put and got through master, nodes and engines over loopback. */
#include "cluster.h"

enum { MIB = 1 << 20, NODES = 2 };

/** A master, two nodes, one client. */
struct cluster {
    struct master master;
    struct member nodes[NODES], client;
};

static void cluster_open(struct cluster *c, const char *transports)
{
    master_open(&c->master, NULL);
    for (int i = 0; i < NODES; i++)
        node_open(&c->nodes[i], c->master.address, 8 * MIB, transports);
    client_open(&c->client, c->master.address, 2 * MIB, transports);
    wait_for(c->client.store, NODES, 0);
}

static void cluster_close(struct cluster *c)
{
    member_close(&c->client);
    for (int i = 0; i < NODES; i++)
        if (c->nodes[i].engine)
            member_close(&c->nodes[i]);
    master_close(&c->master);
}

/* ------------------------------------------------------------------------------------ round trips */

static void round_trip(const char *transports)
{
    static const size_t sizes[] = { 0, 1, 63, 64, 4096, 65535, 65536, 65537, 300000, MIB };
    struct cluster c;
    char name[32];

    cluster_open(&c, transports);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        snprintf(name, sizeof(name), "object %zu", i);
        assert_int_equal(get(&c.client, name, sizes[i]), MC_E_NOT_FOUND);
        assert_int_equal(put(&c.client, name, sizes[i], 1 + i % 2), MC_OK);
        assert_int_equal(get(&c.client, name, sizes[i]), MC_OK);
        assert_int_equal(put(&c.client, name, sizes[i], 1), MC_E_EXISTS);
    }
    cluster_close(&c);
}

static void test_what_was_put_is_got_by_shared_memory(void **state)
{
    (void)state;
    round_trip("shm");
}

static void test_what_was_put_is_got_by_tcp(void **state)
{
    (void)state;
    round_trip("tcp");
}

static void test_a_node_gets_and_puts_what_is_its_own(void **state)
{
    (void)state;
    struct master master;
    struct member m;
    const struct mc_store_node_options options = { .capacity_bytes = 4 * MIB };

    master_open(&master, NULL);
    client_open(&m, master.address, MIB, NULL);
    assert_int_equal(mc_store_node_open(m.store, &options, &m.node, NULL), MC_OK);
    wait_for(m.store, 1, 0);
    assert_int_equal(put(&m, "mine", 100000, 1), MC_OK);
    assert_int_equal(get(&m, "mine", 100000), MC_OK);
    member_close(&m);
    master_close(&master);
}

static void test_an_object_of_more_pieces_than_a_slot_of_scratch_holds_is_moved(void **state)
{
    (void)state;
    enum { SIZE = 20 * MIB + 77 };
    struct master master;
    struct member node, client;

    master_open(&master, NULL);
    node_open(&node, master.address, 24 * MIB, NULL);
    client_open(&client, master.address, SIZE, NULL);
    wait_for(client.store, 1, 0);
    assert_int_equal(put(&client, "large", SIZE, 1), MC_OK);
    assert_int_equal(get(&client, "large", SIZE), MC_OK);
    member_close(&client);
    member_close(&node);
    master_close(&master);
}

static void test_hundreds_of_scattered_objects_in_one_request(void **state)
{
    (void)state;
    enum { COUNT = 300, HALF = 1000 };
    static struct mc_put puts[COUNT];
    static struct mc_get gets[COUNT];
    static struct mc_range ranges[COUNT][2];
    struct cluster c;
    mc_store_request *request = NULL;
    char name[32];

    cluster_open(&c, NULL);
    memset(puts, 0, sizeof(puts));
    memset(gets, 0, sizeof(gets));
    for (int i = 0; i < COUNT; i++) {
        uint8_t *bytes = c.client.memory + (size_t)i * 2 * HALF;
        snprintf(name, sizeof(name), "block %d", i);
        paint(bytes, 2 * HALF, name);
        ranges[i][0] = (struct mc_range){ bytes + HALF, HALF }; /* the second half first */
        ranges[i][1] = (struct mc_range){ bytes, HALF };
        puts[i] = (struct mc_put){ .identity = identity(name), .ranges = ranges[i], .count = 2 };
        gets[i] = (struct mc_get){ .identity = identity(name), .ranges = ranges[i], .count = 2 };
    }
    assert_int_equal(mc_store_put_begin(c.client.store, puts, COUNT, NULL, 0, &request), MC_OK);
    assert_int_equal(finish(request), MC_OK);
    uint8_t *before = malloc(c.client.size);
    assert_non_null(before);
    memcpy(before, c.client.memory, c.client.size);
    memset(c.client.memory, 0, (size_t)COUNT * 2 * HALF);
    assert_int_equal(mc_store_get_begin(c.client.store, gets, COUNT, 0, &request), MC_OK);
    assert_int_equal(finish(request), MC_OK);
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(puts[i].status, MC_OK);
        assert_int_equal(gets[i].status, MC_OK);
        assert_int_equal(gets[i].length, 2 * HALF);
    }
    assert_memory_equal(c.client.memory, before, c.client.size);
    free(before);
    cluster_close(&c);
}

/* ----------------------------------------------------------------------------------- other calls */

static void test_objects_are_seen_and_removed(void **state)
{
    (void)state;
    struct cluster c;
    struct mc_exist exists[2] = { { .key = key_of("here") }, { .key = key_of("not here") } };
    struct mc_remove removes[2] = { { .key = key_of("here") }, { .key = key_of("not here") } };
    mc_store_request *request = NULL;

    cluster_open(&c, NULL);
    assert_int_equal(put(&c.client, "here", 5000, 1), MC_OK);
    assert_int_equal(mc_store_exist_begin(c.client.store, exists, 2, 0, &request), MC_OK);
    assert_int_equal(finish(request), MC_OK);
    assert_int_equal(exists[0].status, MC_OK);
    assert_int_equal(exists[0].length, 5000);
    assert_int_equal(exists[0].medium, MC_MEDIUM_DRAM);
    assert_int_equal(exists[1].status, MC_E_NOT_FOUND);
    assert_int_equal(mc_store_remove_begin(c.client.store, removes, 2, 0, &request), MC_OK);
    assert_int_equal(finish(request), MC_OK);
    assert_int_equal(removes[0].status, MC_OK);
    assert_int_equal(removes[1].status, MC_E_NOT_FOUND);
    assert_int_equal(get(&c.client, "here", 5000), MC_E_NOT_FOUND);
    cluster_close(&c);
}

static void test_a_prefix_is_leased_until_it_is_given_back(void **state)
{
    (void)state;
    static const char *const chain[] = { "p0", "p1", "p2", "p3" };
    struct cluster c;
    struct mc_replica replicas[4][2];
    struct mc_lookup lookups[4];
    struct mc_remove gone = { .key = key_of("p0") };
    mc_store_request *request = NULL;

    cluster_open(&c, NULL);
    for (int i = 0; i < 4; i++) {
        lookups[i] = (struct mc_lookup){ .key = key_of(chain[i]),
                                         .replicas = replicas[i],
                                         .replicas_max = 2 };
        if (i != 2)
            assert_int_equal(put(&c.client, chain[i], 1000, 1), MC_OK);
    }
    assert_int_equal(mc_store_lookup_begin(c.client.store, lookups, 4, 10 * SECOND_NS,
                                           MC_LOOKUP_PREFIX, 0, &request),
                     MC_OK);
    assert_int_equal(finish(request), MC_OK);
    assert_int_equal(lookups[0].status, MC_OK);
    assert_int_equal(lookups[1].status, MC_OK);
    assert_int_equal(lookups[2].status, MC_E_NOT_FOUND);
    assert_int_equal(lookups[3].status, MC_E_NOT_FOUND);
    assert_int_equal(lookups[0].replica_count, 1);
    assert_int_not_equal(lookups[0].replicas[0].segment, 0);
    assert_int_equal(lookups[0].lease.id, lookups[1].lease.id);
    assert_true(lookups[0].lease.until_ns > os_now_ns());

    struct mc_lease lease = lookups[0].lease;
    assert_int_equal(mc_store_remove_begin(c.client.store, &gone, 1, 0, &request), MC_OK);
    assert_int_equal(finish(request), MC_OK);
    assert_int_equal(gone.status, MC_E_BUSY);
    assert_int_equal(
        mc_store_lease_renew_begin(c.client.store, &lease, 1, 12 * SECOND_NS, 0, &request), MC_OK);
    assert_int_equal(finish(request), MC_OK);
    assert_true(lease.until_ns > lookups[0].lease.until_ns);
    assert_int_equal(mc_store_lease_release(c.client.store, &lease, 1), MC_OK);
    assert_int_equal(mc_store_remove_begin(c.client.store, &gone, 1, 0, &request), MC_OK);
    assert_int_equal(finish(request), MC_OK);
    assert_int_equal(gone.status, MC_OK); /* asked behind the release, on the same connection */
    cluster_close(&c);
}

/** One transfer in a batch of its own, to its end. */
static mc_status move(mc_transfer *engine, const struct mc_xfer *xfer)
{
    mc_batch *batch = NULL;

    assert_int_equal(mc_batch_open(engine, NULL, &batch), MC_OK);
    mc_status status = mc_batch_add(batch, xfer, 1);
    if (status == MC_OK)
        status = mc_batch_submit(batch);
    if (status == MC_OK)
        status = mc_batch_wait(batch, in_seconds(20));
    mc_batch_close(batch);
    return status;
}

/** Write a whole object into a replica's place. */
static mc_status write_object(struct member *m, const struct mc_replica *replica, const char *name,
                              size_t size)
{
    const struct mc_identity id = identity(name);
    const struct mc_range payload = { m->memory + 64, size };
    struct mc_object_header header;
    uint32_t sums[16];

    object_header_make(&header, &id, size, replica->generation);
    memcpy(m->memory, &header, sizeof(header));
    paint(m->memory + 64, size, name);
    assert_true(mc_object_pieces(size) <= sizeof(sums) / sizeof(sums[0]));
    object_sum(&payload, 1, size, sums);
    object_trailer_make(&header, sums, mc_object_pieces(size), m->memory + 64 + size);
    const struct mc_xfer xfer = { .op = MC_WRITE,
                                  .segment = replica->segment,
                                  .window = &replica->window,
                                  .length = mc_object_bytes(size),
                                  .local = m->memory };
    return move(m->engine, &xfer);
}

static void test_who_writes_places_itself_commits_once(void **state)
{
    (void)state;
    enum { SIZE = 70000 };
    struct cluster c;
    struct mc_replica replica;
    struct mc_allot allot = {
        .identity = identity("own"), .length = SIZE, .replicas = &replica, .replicas_max = 1
    };
    mc_store_request *request = NULL;

    cluster_open(&c, NULL);
    assert_int_equal(mc_store_allot_begin(c.client.store, &allot, 1, NULL, 0, &request), MC_OK);
    assert_int_equal(finish(request), MC_OK);
    assert_int_equal(allot.status, MC_OK);
    struct mc_token token = allot.token;
    assert_int_equal(
        mc_store_allot_renew_begin(c.client.store, &token, 1, 5 * SECOND_NS, 0, &request), MC_OK);
    assert_int_equal(finish(request), MC_OK);
    assert_int_not_equal(token.until_ns, 0);
    assert_int_equal(write_object(&c.client, &replica, "own", SIZE), MC_OK);
    assert_int_equal(get(&c.client, "own", SIZE), MC_E_NOT_FOUND); /* not committed */
    struct mc_commit commit = { .key = key_of("own"), .token = allot.token };
    for (int i = 0; i < 2; i++) { /* asked again: the first answer */
        assert_int_equal(mc_store_commit_begin(c.client.store, &commit, 1, 0, &request), MC_OK);
        assert_int_equal(finish(request), MC_OK);
        assert_int_equal(commit.status, MC_OK);
    }
    assert_int_equal(get(&c.client, "own", SIZE), MC_OK);
    cluster_close(&c);
}

static void test_a_late_writer_is_refused(void **state)
{
    (void)state;
    struct cluster c;
    struct mc_replica replica;
    struct mc_allot allot = {
        .identity = identity("late"), .length = 1000, .replicas = &replica, .replicas_max = 1
    };
    mc_store_request *request = NULL;

    cluster_open(&c, NULL);
    assert_int_equal(mc_store_allot_begin(c.client.store, &allot, 1, NULL, 0, &request), MC_OK);
    assert_int_equal(finish(request), MC_OK);
    struct mc_commit revoke = { .key = key_of("late"), .token = allot.token };
    assert_int_equal(mc_store_revoke_begin(c.client.store, &revoke, 1, 0, &request), MC_OK);
    assert_int_equal(finish(request), MC_OK);
    assert_int_equal(revoke.status, MC_OK);
    /* The place is asked back from its node behind the answer; then nobody can write there. */
    const uint64_t end_ns = in_seconds(20);
    while (write_object(&c.client, &replica, "late", 1000) == MC_OK)
        assert_true(os_now_ns() < end_ns);
    assert_int_equal(mc_store_commit_begin(c.client.store, &revoke, 1, 0, &request), MC_OK);
    assert_int_equal(finish(request), MC_OK);
    assert_int_equal(revoke.status, MC_E_STALE);
    cluster_close(&c);
}

static void test_two_writers_of_one_identity_leave_one_object(void **state)
{
    (void)state;
    enum { SIZE = 200000, ROUNDS = 10 };
    struct cluster c;
    struct member other;
    char name[32];

    cluster_open(&c, NULL);
    client_open(&other, c.master.address, MIB, NULL);
    for (int i = 0; i < ROUNDS; i++) {
        struct member *who[2] = { &c.client, &other };
        struct mc_range range[2];
        struct mc_put item[2];
        mc_store_request *request[2];
        snprintf(name, sizeof(name), "both %d", i);
        for (int w = 0; w < 2; w++) {
            paint(who[w]->memory, SIZE, name);
            range[w] = (struct mc_range){ who[w]->memory, SIZE };
            item[w] =
                (struct mc_put){ .identity = identity(name), .ranges = &range[w], .count = 1 };
            assert_int_equal(mc_store_put_begin(who[w]->store, &item[w], 1, NULL, 0, &request[w]),
                             MC_OK);
        }
        int stored = 0;
        for (int w = 0; w < 2; w++) {
            assert_int_equal(finish(request[w]), MC_OK);
            stored += item[w].status == MC_OK;
            assert_true(item[w].status == MC_OK || item[w].status == MC_E_BUSY ||
                        item[w].status == MC_E_EXISTS);
        }
        assert_int_equal(stored, 1);
        assert_int_equal(get(&other, name, SIZE), MC_OK);
    }
    member_close(&other);
    cluster_close(&c);
}

/* The holder of a copy goes: the other one still has it. */
static void test_a_further_copy_is_as_good_as_the_first(void **state)
{
    (void)state;
    enum { SIZE = 100000 };
    const struct mc_placement another = { .flags = MC_PLACE_ANOTHER };
    struct cluster c;
    struct mc_store_stats stats;
    mc_status again[2];

    cluster_open(&c, NULL);
    assert_int_equal(put(&c.client, "hot", SIZE, 1), MC_OK);
    for (int i = 0; i < 2; i++) { /* the second finds one at each node */
        struct mc_range range = { c.client.memory, SIZE };
        struct mc_put item = { .identity = identity("hot"), .ranges = &range, .count = 1 };
        mc_store_request *request = NULL;

        paint(c.client.memory, SIZE, "hot");
        assert_int_equal(mc_store_put_begin(c.client.store, &item, 1, &another, 0, &request),
                         MC_OK);
        assert_int_equal(finish(request), MC_OK);
        again[i] = item.status;
    }
    assert_int_equal(again[0], MC_OK);
    assert_int_equal(again[1], MC_E_EXISTS);
    assert_int_equal(mc_store_stats(c.client.store, in_seconds(5), &stats, NULL), MC_OK);
    assert_int_equal(stats.objects, 1);
    assert_int_equal(stats.replicas, 2);
    member_close(&c.nodes[0]);
    c.nodes[0].engine = NULL;
    assert_int_equal(get(&c.client, "hot", SIZE), MC_OK);
    cluster_close(&c);
}

/* ------------------------------------------------------------------------------------------ limits */

static void test_a_full_pool_gives_up_what_was_used_longest_ago(void **state)
{
    (void)state;
    enum { SIZE = 256 * 1024, COUNT = 60 }; /* 15 MiB in 4 */
    struct master master;
    struct member node, client;
    struct mc_store_stats stats;
    char name[32];

    master_open(&master, NULL);
    node_open(&node, master.address, 4 * MIB, NULL);
    client_open(&client, master.address, MIB, NULL);
    wait_for(client.store, 1, 0);
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof(name), "o%d", i);
        assert_int_equal(put(&client, name, SIZE, 1), MC_OK);
    }
    assert_int_equal(get(&client, name, SIZE), MC_OK);
    assert_int_equal(get(&client, "o0", SIZE), MC_E_NOT_FOUND);
    assert_int_equal(mc_store_stats(client.store, in_seconds(20), &stats, NULL), MC_OK);
    assert_true(stats.evicted_objects >= COUNT - 16);
    assert_true(stats.used_bytes <= stats.capacity_bytes);
    assert_int_equal(stats.put_stored, COUNT);
    assert_int_equal(stats.put_bytes, (uint64_t)COUNT * SIZE);
    assert_int_equal(stats.get_hits, 1);
    assert_int_equal(stats.get_misses, 1);
    member_close(&client);
    member_close(&node);
    master_close(&master);
}

static void test_what_fits_nowhere_is_refused(void **state)
{
    (void)state;
    struct master master;
    struct member node, client;

    master_open(&master, NULL);
    node_open(&node, master.address, MIB, NULL);
    client_open(&client, master.address, 2 * MIB, NULL);
    wait_for(client.store, 1, 0);
    assert_int_equal(put(&client, "too large", 2 * MIB, 1), MC_E_FULL);
    assert_int_equal(put(&client, "fits", 1000, 1), MC_OK);
    member_close(&client);
    member_close(&node);
    master_close(&master);
}

static void test_ranges_that_are_too_short_are_said_so(void **state)
{
    (void)state;
    struct cluster c;
    mc_store_request *request = NULL;

    cluster_open(&c, NULL);
    assert_int_equal(put(&c.client, "long", 5000, 1), MC_OK);
    const struct mc_range range = { c.client.memory, 4999 };
    struct mc_get item = { .identity = identity("long"), .ranges = &range, .count = 1 };
    assert_int_equal(mc_store_get_begin(c.client.store, &item, 1, 0, &request), MC_OK);
    assert_int_equal(finish(request), MC_OK);
    assert_int_equal(item.status, MC_E_RANGE);
    cluster_close(&c);
}

static void test_memory_that_is_not_registered_is_refused_before_anything_moves(void **state)
{
    (void)state;
    struct cluster c;
    char bytes[100] = { 0 };
    const struct mc_range range = { bytes, sizeof(bytes) };
    struct mc_get get_item = { .identity = identity("x"), .ranges = &range, .count = 1 };
    struct mc_put put_item = { .identity = identity("x"), .ranges = &range, .count = 1 };
    mc_store_request *request = NULL;

    cluster_open(&c, NULL);
    assert_int_equal(mc_store_get_begin(c.client.store, &get_item, 1, 0, &request), MC_E_DENIED);
    assert_int_equal(mc_store_put_begin(c.client.store, &put_item, 1, NULL, 0, &request),
                     MC_E_DENIED);
    assert_null(request);
    cluster_close(&c);
}

static void test_a_placement_of_a_later_release_is_refused(void **state)
{
    (void)state;
    struct cluster c;
    const struct mc_placement ssd = { .medium = MC_MEDIUM_SSD };
    const struct mc_range range = { NULL, 0 };
    struct mc_put item = { .identity = identity("x"), .ranges = &range, .count = 1 };
    mc_store_request *request = NULL;

    cluster_open(&c, NULL);
    assert_int_equal(mc_store_put_begin(c.client.store, &item, 1, &ssd, 0, &request), MC_OK);
    assert_int_equal(finish(request), MC_E_UNSUPPORTED);
    assert_int_equal(item.status, MC_E_UNSUPPORTED);
    cluster_close(&c);
}

static void test_an_empty_request_is_done(void **state)
{
    (void)state;
    struct cluster c;
    mc_store_request *request = NULL;

    cluster_open(&c, NULL);
    assert_int_equal(mc_store_put_begin(c.client.store, NULL, 0, NULL, 0, &request), MC_OK);
    assert_int_equal(finish(request), MC_OK);
    assert_int_equal(mc_store_lookup_begin(c.client.store, NULL, 0, 0, 0, 0, &request), MC_OK);
    assert_int_equal(finish(request), MC_OK);
    cluster_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_put_is_got_by_shared_memory),
        cmocka_unit_test(test_what_was_put_is_got_by_tcp),
        cmocka_unit_test(test_a_node_gets_and_puts_what_is_its_own),
        cmocka_unit_test(test_an_object_of_more_pieces_than_a_slot_of_scratch_holds_is_moved),
        cmocka_unit_test(test_hundreds_of_scattered_objects_in_one_request),
        cmocka_unit_test(test_objects_are_seen_and_removed),
        cmocka_unit_test(test_a_prefix_is_leased_until_it_is_given_back),
        cmocka_unit_test(test_who_writes_places_itself_commits_once),
        cmocka_unit_test(test_a_late_writer_is_refused),
        cmocka_unit_test(test_two_writers_of_one_identity_leave_one_object),
        cmocka_unit_test(test_a_full_pool_gives_up_what_was_used_longest_ago),
        cmocka_unit_test(test_what_fits_nowhere_is_refused),
        cmocka_unit_test(test_ranges_that_are_too_short_are_said_so),
        cmocka_unit_test(test_memory_that_is_not_registered_is_refused_before_anything_moves),
        cmocka_unit_test(test_a_further_copy_is_as_good_as_the_first),
        cmocka_unit_test(test_a_placement_of_a_later_release_is_refused),
        cmocka_unit_test(test_an_empty_request_is_done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
