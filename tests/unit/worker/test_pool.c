/*
 * test_pool.c - two workers, the real Transfer Engine, and the real pool: a master and a node in this process.
 */
#include "house.h"

#include "os/clock.h"
#include "os/sysalloc.h"
#include "store/master/server.h"

/* The pool, and the house over it. */
struct town {
    struct house *house;
    store_server *master;
    mc_transfer *transfer;
    mc_store *store;
    mc_store_node *node;
};

static uint64_t objects(const struct town *t)
{
    struct store_master_figures figures;

    store_server_figures(t->master, &figures);
    return figures.objects;
}

static uint64_t nodes(const struct town *t)
{
    struct store_master_figures figures;

    store_server_figures(t->master, &figures);
    return figures.nodes;
}

static void open_node(struct town *t)
{
    const struct mc_transfer_options transfer = { .transports = house_transports };
    const struct mc_store_node_options node = { .capacity_bytes = 8 << 20 };

    assert_int_equal(mc_transfer_open(&transfer, &t->transfer, NULL), MC_OK);
    const struct mc_store_options store = { .master = store_server_address(t->master),
                                            .transfer = t->transfer };
    assert_int_equal(mc_store_open(&store, &t->store, NULL), MC_OK);
    assert_int_equal(mc_store_node_open(t->store, &node, &t->node, NULL), MC_OK);
    house_until(t->house, nodes(t) == 1);
}

static void close_node(struct town *t)
{
    mc_store_node_close(t->node);
    mc_store_close(t->store);
    mc_transfer_close(t->transfer);
    t->node = NULL;
    t->store = NULL;
    t->transfer = NULL;
}

static void town_open(struct town *t, const char *transport)
{
    *t = (struct town){ .house = house_open() };
    house_transports = transport;
    const struct store_server_options options = { .alloc = os_alloc(),
                                                  .loop = t->house->loop,
                                                  .listen = "127.0.0.1:0" };
    assert_int_equal(store_server_open(&options, &t->master, NULL), MC_OK);
    house_master = store_server_address(t->master);
    open_node(t);
    house_fill(t->house, 32, true);
}

static void town_close(struct town *t)
{
    for (uint32_t i = 0; i < t->house->client_count; i++)
        if (t->house->clients[i].end_status == MC_OK)
            assert_right(&t->house->clients[i]);
    if (t->node)
        close_node(t);
    for (; t->house->count > 0;
         t->house->count--) /* the loop goes with the house, the master before */
        worker_close(t->house->guests[t->house->count - 1].worker);
    store_server_close(t->master);
    house_close(t->house);
    house_transports = NULL;
}

static const char *const transports[] = { "shm", "tcp" };

static void test_what_one_request_put_another_pulls(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct town t;
        town_open(&t, transports[i]);
        struct client *first = house_client(t.house, 1, 100, 30);
        house_ask(first);
        house_until(t.house, client_done(first));
        house_until(t.house, house_is_empty(t.house));
        assert_int_equal(objects(&t), 129 / 16);

        struct client *again = house_client(t.house, 1, 100, 10);
        again->pull_tokens = 100;
        house_ask(again);
        house_until(t.house, client_done(again));
        assert_int_equal(again->end.reused_tokens, 96);
        assert_int_equal(again->end.pulled_bytes, 6 * 16384);
        house_until(t.house, house_is_empty(t.house));

        close_node(&t); /* the pool is empty, and then it is not there */
        struct client *alone = house_client(t.house, 1, 100, 10);
        alone->pull_tokens = 100;
        house_ask(alone);
        house_until(t.house, client_done(alone));
        assert_int_equal(alone->end_status, MC_OK);
        house_until(t.house, house_is_empty(t.house));
        town_close(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_one_request_put_another_pulls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
