/* test_open.c - opening: bad options, failed allocations, secrets; and names. */
#include "cluster.h"

enum { MIB = 1 << 20 };

static void test_options_that_cannot_be_are_refused_with_a_reason(void **state)
{
    (void)state;
    struct mc_error error = { 0 };
    mc_store *store = NULL;
    mc_transfer *engine = open_engine(NULL);
    char long_tenant[300];
    memset(long_tenant, 'x', sizeof(long_tenant) - 1);
    long_tenant[sizeof(long_tenant) - 1] = '\0';
    const struct {
        struct mc_store_options options;
        mc_status status;
        const char *text;
    } rows[] = {
        { { .transfer = engine }, MC_E_ARG, "master" },
        { { .master = "127.0.0.1:1" }, MC_E_ARG, "Transfer Engine" },
        { { .master = "nonsense", .transfer = engine }, MC_E_ARG, "nonsense" },
        { { .master = "127.0.0.1:1;", .transfer = engine }, MC_E_ARG, "host:port" },
        { { .master = "127.0.0.1:1", .transfer = engine, .requests_max = 65535 },
          MC_E_RANGE,
          "requests_max" },
        { { .master = "127.0.0.1:1", .transfer = engine, .items_max = 65537 },
          MC_E_RANGE,
          "items_max" },
        { { .master = "127.0.0.1:1", .transfer = engine, .tenant = long_tenant },
          MC_E_RANGE,
          "tenant" },
        { { .master = "127.0.0.1:1", .transfer = engine, .reserved = { [3] = 1 } },
          MC_E_UNSUPPORTED,
          "later release" },
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        error = (struct mc_error){ 0 };
        assert_int_equal(mc_store_open(&rows[i].options, &store, &error), rows[i].status);
        assert_int_equal(error.status, rows[i].status);
        if (!strstr(error.text, rows[i].text))
            fail_msg("row %zu: \"%s\" has no \"%s\"", i, error.text, rows[i].text);
        assert_null(store);
    }
    assert_int_equal(mc_store_open(NULL, &store, NULL), MC_E_ARG);
    mc_store_close(NULL);
    mc_transfer_close(engine);
}

static void test_a_node_of_a_later_release_is_refused(void **state)
{
    (void)state;
    struct member m;
    mc_store_node *node = NULL;
    struct mc_error error = { 0 };
    const struct mc_store_node_options rows[] = {
        { .capacity_bytes = MIB, .ssd_path = "/nowhere" },
        { .capacity_bytes = MIB, .ssd_capacity_bytes = 1 },
        { .capacity_bytes = MIB, .lease_ns = 1 },
        { .capacity_bytes = MIB, .reserved = { 1 } },
    };
    const struct mc_store_node_options nothing = { 0 };

    client_open(&m, "127.0.0.1:1", 4096, NULL);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_int_equal(mc_store_node_open(m.store, &rows[i], &node, &error), MC_E_UNSUPPORTED);
    assert_int_equal(mc_store_node_open(m.store, &nothing, &node, &error), MC_E_ARG);
    assert_int_equal(mc_store_node_open(m.store, NULL, &node, NULL), MC_E_ARG);
    assert_null(node);
    mc_store_node_close(NULL);
    member_close(&m);
}

static void test_memory_beyond_the_engines_limit_is_full(void **state)
{
    (void)state;
    const struct mc_transfer_options options = { .memory_max = MIB };
    const struct mc_store_node_options lent = { .capacity_bytes = 2 * MIB };
    mc_transfer *engine = open_engine(&options);
    mc_store *store = open_store(engine, "127.0.0.1:1");
    mc_store_node *node = NULL;
    struct mc_error error = { 0 };

    assert_int_equal(mc_store_node_open(store, &lent, &node, &error), MC_E_FULL);
    mc_store_close(store);
    mc_transfer_close(engine);
}

/* The engine is outside of the sweep: it has its own. */
static void test_every_failed_allocation_of_a_client_leaves_nothing_behind(void **state)
{
    (void)state;
    mc_transfer *engine = open_engine(NULL);

    for (long k = 0;; k++) {
        struct faulty f;
        faulty_init(&f, k);
        const struct mc_store_options options = { .master = "127.0.0.1:1;127.0.0.1:2",
                                                  .transfer = engine,
                                                  .alloc = &f.alloc };
        mc_store *store = NULL;
        const mc_status status = mc_store_open(&options, &store, NULL);
        if (status == MC_OK) {
            mc_store_close(store);
            assert_int_equal(f.held, 0);
            assert_true(k > 5);
            break;
        }
        assert_int_equal(status, MC_E_NOMEM);
        assert_null(store);
        assert_int_equal(f.held, 0);
    }
    mc_transfer_close(engine);
}

/* Nodes and subscriptions take from the store's allocator, which fails from some call on: what the
 * thread needs meanwhile may fail, too. */
static void test_every_failed_allocation_of_a_node_leaves_nothing_behind(void **state)
{
    (void)state;
    mc_transfer *engine = open_engine(NULL);
    const struct mc_store_node_options lent = { .capacity_bytes = MIB };
    bool opened = false;

    for (long k = 0; !opened; k++) {
        struct faulty f;
        faulty_init(&f, -1);
        const struct mc_store_options options = { .master = "127.0.0.1:1",
                                                  .transfer = engine,
                                                  .alloc = &f.alloc };
        mc_store *store = NULL;
        mc_store_node *node = NULL;
        assert_int_equal(mc_store_open(&options, &store, NULL), MC_OK);
        mc_store_close(store); /* counted without its thread: dialling allocates when it will */
        const long calls = f.calls;
        faulty_init(&f, calls + k);
        if (mc_store_open(&options, &store, NULL) != MC_OK)
            continue;
        const mc_status status = mc_store_node_open(store, &lent, &node, NULL);
        opened = status == MC_OK && f.calls <= calls + k;
        assert_true(status == MC_OK || status == MC_E_NOMEM);
        mc_store_node_close(node);
        mc_store_close(store);
        assert_int_equal(f.held, 0);
    }
    mc_transfer_close(engine);
}

static void test_every_failed_allocation_of_a_master_leaves_nothing_behind(void **state)
{
    (void)state;
    os_loop *loop = NULL;

    assert_int_equal(os_loop_open(os_alloc(), &loop, NULL), MC_OK);
    for (long k = 0;; k++) {
        struct faulty f;
        faulty_init(&f, k);
        struct store_server_options options = small_master();
        options.alloc = &f.alloc;
        options.loop = loop;
        store_server *server = NULL;
        const mc_status status = store_server_open(&options, &server, NULL);
        if (status == MC_OK) {
            store_server_close(server);
            assert_int_equal(f.held, 0);
            assert_true(k > 5);
            break;
        }
        assert_int_equal(status, MC_E_NOMEM);
        assert_null(server);
        assert_int_equal(f.held, 0);
    }
    os_loop_close(loop);
}

/** One request of its own to the end; what it says if it fails. */
static mc_status ask_master(mc_store *store, uint64_t deadline_ns, struct mc_error *error)
{
    struct mc_exist exist = { .key = key_of("x") };
    mc_store_request *request = NULL;

    assert_int_equal(mc_store_exist_begin(store, &exist, 1, deadline_ns, &request), MC_OK);
    assert_int_not_equal(mc_store_request_wait(request, in_seconds(20)), MC_PENDING);
    const mc_status status = mc_store_request_error(request, error);
    mc_store_request_close(request);
    return status;
}

static void test_who_has_the_secret_is_let_in_and_nobody_else(void **state)
{
    (void)state;
    static const char secret[] = "a secret of 16 bytes or more";
    const struct mc_transfer_options with = { .secret = secret, .secret_size = sizeof(secret) };
    struct master master;
    struct store_server_options o = small_master();
    struct mc_error error = { 0 };
    const uint64_t end_ns = in_seconds(20);

    o.secret = secret;
    o.secret_size = sizeof(secret);
    master_open(&master, &o);
    mc_transfer *engine = open_engine(&with); /* the engine's is the default */
    mc_store *store = open_store(engine, master.address);
    assert_int_equal(ask_master(store, 0, &error), MC_OK);
    mc_store_close(store);
    mc_transfer_close(engine);

    engine = open_engine(NULL);
    store = open_store(engine, master.address);
    do { /* until it was refused at least once */
        assert_true(os_now_ns() < end_ns);
        assert_int_equal(ask_master(store, os_now_ns() + 20 * UINT64_C(1000000), &error),
                         MC_E_TIMEOUT);
    } while (!strstr(error.text, "secret"));
    mc_store_close(store);
    mc_transfer_close(engine);
    master_close(&master);
}

static void test_of_several_masters_the_one_that_is_there_is_asked(void **state)
{
    (void)state;
    struct master master;
    char both[200];
    struct mc_exist exist = { .key = key_of("x") };
    mc_store_request *request = NULL;
    mc_transfer *engine = open_engine(NULL);

    master_open(&master, NULL);
    snprintf(both, sizeof(both), "127.0.0.1:1;%s", master.address);
    mc_store *store = open_store(engine, both);
    assert_int_equal(mc_store_exist_begin(store, &exist, 1, 0, &request), MC_OK);
    assert_int_equal(finish(request), MC_OK);
    mc_store_close(store);
    mc_transfer_close(engine);
    master_close(&master);
}

static void test_a_name_and_its_tenant_make_an_identity(void **state)
{
    (void)state;
    struct mc_identity a, b, c, d;
    char long_tenant[300];

    memset(long_tenant, 'x', sizeof(long_tenant) - 1);
    long_tenant[sizeof(long_tenant) - 1] = '\0';
    assert_int_equal(mc_identity_of_name("default", "name", 4, &a), MC_OK);
    assert_int_equal(mc_identity_of_name(NULL, "name", 4, &b), MC_OK);
    assert_int_equal(mc_identity_of_name("defaul", "tname", 5, &c), MC_OK);
    assert_int_equal(mc_identity_of_name("default", NULL, 0, &d), MC_OK);
    assert_memory_equal(&a, &b, sizeof(a));
    assert_memory_not_equal(&a, &c, sizeof(a));
    assert_memory_not_equal(&a, &d, sizeof(a));
    /* printf 'default\0name' | sha256sum */
    static const uint8_t first[4] = { 0x8d, 0x12, 0x5c, 0xc8 };
    assert_memory_equal(a.bytes, first, sizeof(first));
    assert_int_equal(mc_identity_of_name(long_tenant, "x", 1, &a), MC_E_RANGE);
    assert_int_equal(mc_identity_of_name(NULL, NULL, 1, &a), MC_E_ARG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options_that_cannot_be_are_refused_with_a_reason),
        cmocka_unit_test(test_a_node_of_a_later_release_is_refused),
        cmocka_unit_test(test_memory_beyond_the_engines_limit_is_full),
        cmocka_unit_test(test_every_failed_allocation_of_a_client_leaves_nothing_behind),
        cmocka_unit_test(test_every_failed_allocation_of_a_node_leaves_nothing_behind),
        cmocka_unit_test(test_every_failed_allocation_of_a_master_leaves_nothing_behind),
        cmocka_unit_test(test_who_has_the_secret_is_let_in_and_nobody_else),
        cmocka_unit_test(test_of_several_masters_the_one_that_is_there_is_asked),
        cmocka_unit_test(test_a_name_and_its_tenant_make_an_identity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
