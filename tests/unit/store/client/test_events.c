/* test_events.c - the stream of what is stored and gone, its snapshots, and readers that fall behind. */
#include "cluster.h"

enum { MIB = 1 << 20 };

/** What a reader knows, from events alone. */
struct view {
    struct mc_key keys[2000];
    int count, nodes, resets, ends, events;
    uint64_t epoch, sequence;
};

static int view_find(const struct view *v, const struct mc_key *key)
{
    for (int i = 0; i < v->count; i++)
        if (memcmp(&v->keys[i], key, sizeof(*key)) == 0)
            return i;
    return -1;
}

static void view_take(struct view *v, const struct mc_store_event *e)
{
    const int at = view_find(v, &e->key);

    v->events++;
    if (e->kind == MC_STORE_RESET) {
        v->count = v->nodes = 0;
        v->resets++;
    } else if (e->kind == MC_STORE_SNAPSHOT_END) {
        v->ends++;
    } else if (e->kind == MC_STORE_NODE_UP) {
        v->nodes++;
    } else if (e->kind == MC_STORE_NODE_DOWN) {
        v->nodes--;
    } else if (e->kind == MC_STORE_STORED && at < 0) {
        assert_true(v->count < 2000);
        v->keys[v->count++] = e->key;
    } else if ((e->kind == MC_STORE_EVICTED || e->kind == MC_STORE_REMOVED) && at >= 0) {
        v->keys[at] = v->keys[--v->count];
    }
    v->epoch = e->epoch;
    v->sequence = e->sequence;
}

/** Follow until so many objects and nodes are known, and no snapshot is under way. */
static void follow(mc_store_events *events, struct view *v, int objects, int nodes)
{
    struct mc_store_event some[7];
    size_t count;

    while (v->count != objects || v->nodes != nodes || v->ends < 1 || v->ends < v->resets - 1) {
        assert_int_equal(mc_store_events_take(events, some, 7, &count, in_seconds(20)), MC_OK);
        for (size_t i = 0; i < count; i++)
            view_take(v, &some[i]);
    }
}

static void remove_one(struct member *m, const char *name)
{
    struct mc_remove gone = { .key = key_of(name) };
    mc_store_request *request = NULL;

    assert_int_equal(mc_store_remove_begin(m->store, &gone, 1, 0, &request), MC_OK);
    assert_int_equal(finish(request), MC_OK);
    assert_int_equal(gone.status, MC_OK);
}

static void test_a_reader_follows_what_is_stored_removed_and_lost(void **state)
{
    (void)state;
    struct master master;
    struct member node, client;
    struct view view = { .count = 0 };
    mc_store_events *events = NULL;
    struct mc_store_event none;
    size_t count;
    int fd;

    master_open(&master, NULL);
    node_open(&node, master.address, 4 * MIB, NULL);
    client_open(&client, master.address, MIB, NULL);
    wait_for(client.store, 1, 0);
    assert_int_equal(put(&client, "before", 1000, 1), MC_OK);
    assert_int_equal(mc_store_events_open(client.store, 0, 0, &events), MC_OK);
    follow(events, &view, 1, 1);
    assert_int_equal(view.resets, 1);
    assert_int_equal(mc_store_events_fd(events, &fd), MC_OK);
    assert_int_equal(mc_store_events_take(events, &none, 1, &count, MC_AT_ONCE), MC_E_NOT_FOUND);
    assert_int_equal(put(&client, "behind", 1000, 1), MC_OK);
    assert_true(os_wait_readable(&fd, 1, in_seconds(20)));
    follow(events, &view, 2, 1);
    const struct mc_key behind = key_of("behind");
    assert_true(view_find(&view, &behind) >= 0);
    remove_one(&client, "before");
    follow(events, &view, 1, 1);
    member_close(&node);
    follow(events, &view, 1, 0);
    assert_int_equal(view.resets, 1);
    mc_store_events_close(events);
    mc_store_events_close(NULL);
    member_close(&client);
    master_close(&master);
}

static void test_a_stream_goes_on_where_it_was_left(void **state)
{
    (void)state;
    struct master master;
    struct member node, client;
    struct view view = { .count = 0 }, more = { .count = 0 };
    mc_store_events *events = NULL;
    struct mc_store_event e;
    size_t count;

    master_open(&master, NULL);
    node_open(&node, master.address, 4 * MIB, NULL);
    client_open(&client, master.address, MIB, NULL);
    wait_for(client.store, 1, 0);
    assert_int_equal(mc_store_events_open(client.store, 0, 0, &events), MC_OK);
    assert_int_equal(put(&client, "one", 1000, 1), MC_OK);
    follow(events, &view, 1, 1);
    mc_store_events_close(events);
    assert_int_equal(put(&client, "two", 1000, 1), MC_OK);
    assert_int_equal(mc_store_events_open(client.store, view.epoch, view.sequence, &events), MC_OK);
    assert_int_equal(mc_store_events_take(events, &e, 1, &count, in_seconds(20)), MC_OK);
    view_take(&more, &e);
    assert_int_equal(e.kind, MC_STORE_STORED);
    assert_int_equal(e.sequence, view.sequence + 1);
    assert_int_equal(e.length, 1000);
    mc_store_events_close(events);
    member_close(&client);
    member_close(&node);
    master_close(&master);
}

static void test_another_life_of_the_master_begins_with_a_reset(void **state)
{
    (void)state;
    struct master master;
    struct member node, client;
    struct view view = { .count = 0 };
    mc_store_events *events = NULL;

    master_open(&master, NULL);
    node_open(&node, master.address, 4 * MIB, NULL);
    client_open(&client, master.address, MIB, NULL);
    wait_for(client.store, 1, 0);
    assert_int_equal(put(&client, "kept", 1000, 1), MC_OK);
    assert_int_equal(mc_store_events_open(client.store, 0, 0, &events), MC_OK);
    follow(events, &view, 1, 1);
    const uint64_t epoch = view.epoch;
    master_restart(&master);
    const struct mc_key kept = key_of("kept");
    while (view.resets < 2 || view.epoch == epoch || view_find(&view, &kept) < 0) {
        struct mc_store_event e;
        size_t count;
        assert_int_equal(mc_store_events_take(events, &e, 1, &count, in_seconds(20)), MC_OK);
        view_take(&view, &e);
    }
    assert_int_equal(view.nodes, 1);
    mc_store_events_close(events);
    member_close(&client);
    member_close(&node);
    master_close(&master);
}

/* The master keeps few events: who is away for longer gets a snapshot, never a hole. */
static void test_two_readers_see_the_same_pool(void **state)
{
    (void)state;
    enum { COUNT = 200 };
    struct master master;
    struct member node, client;
    static struct view first, second;
    mc_store_events *one = NULL, *two = NULL;
    struct store_server_options o = small_master();
    char name[32];

    first = second = (struct view){ .count = 0 };
    o.master.events_max = 16;
    master_open(&master, &o);
    node_open(&node, master.address, 4 * MIB, NULL);
    client_open(&client, master.address, MIB, NULL);
    wait_for(client.store, 1, 0);
    assert_int_equal(mc_store_events_open(client.store, 0, 0, &one), MC_OK);
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof(name), "e%d", i);
        assert_int_equal(put(&client, name, 100, 1), MC_OK);
        if (i == COUNT / 2)
            assert_int_equal(mc_store_events_open(client.store, 0, 0, &two), MC_OK);
    }
    follow(one, &first, COUNT, 1);
    follow(two, &second, COUNT, 1);
    mc_store_events_close(two);
    mc_store_events_close(one);
    member_close(&client);
    member_close(&node);
    master_close(&master);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_reader_follows_what_is_stored_removed_and_lost),
        cmocka_unit_test(test_a_stream_goes_on_where_it_was_left),
        cmocka_unit_test(test_another_life_of_the_master_begins_with_a_reset),
        cmocka_unit_test(test_two_readers_see_the_same_pool),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
