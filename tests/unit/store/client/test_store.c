/* test_store.c - objects put and got through master, nodes and engines over loopback. */
#include "cluster.h"

enum { MIB = 1 << 20 };

static void round_trip(const char *transports)
{
    static const size_t sizes[] = { 0, 1, 63, 64, 4096, 65535, 65536, 65537, 300000, MIB };
    struct master master;
    struct member nodes[2], client;
    char name[32];

    master_open(&master, NULL);
    for (int i = 0; i < 2; i++)
        node_open(&nodes[i], master.address, 8 * MIB, transports);
    client_open(&client, master.address, 2 * MIB, transports);
    wait_for(client.store, 2, 0);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        snprintf(name, sizeof(name), "object %zu", i);
        assert_int_equal(get(&client, name, sizes[i]), MC_E_NOT_FOUND);
        assert_int_equal(put(&client, name, sizes[i], 1 + i % 2), MC_OK);
        assert_int_equal(get(&client, name, sizes[i]), MC_OK);
        assert_int_equal(put(&client, name, sizes[i], 1), MC_E_EXISTS);
    }
    member_close(&client);
    for (int i = 0; i < 2; i++)
        member_close(&nodes[i]);
    master_close(&master);
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

    master_open(&master, NULL);
    client_open(&m, master.address, MIB, NULL);
    const struct mc_store_node_options options = { .capacity_bytes = 4 * MIB };
    assert_int_equal(mc_store_node_open(m.store, &options, &m.node, NULL), MC_OK);
    wait_for(m.store, 1, 0);
    assert_int_equal(put(&m, "mine", 100000, 1), MC_OK);
    assert_int_equal(get(&m, "mine", 100000), MC_OK);
    member_close(&m);
    master_close(&master);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_put_is_got_by_shared_memory),
        cmocka_unit_test(test_what_was_put_is_got_by_tcp),
        cmocka_unit_test(test_a_node_gets_and_puts_what_is_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
