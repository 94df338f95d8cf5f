/*
 * test_pool.c - what the pool's events do to placement: who holds a prompt's blocks is pulled from, until
 * it is gone. The store is faked here: events come from an array and a descriptor that is readable while
 * there are some.
 */
#include "fake_worker.h"
#include "http_talk.h"

#include <poll.h>
#include <sys/eventfd.h>

#include "gateway/gateway.h"
#include "kv/identity.h"

/* ------------------------------------------------------------------------------- the fake store */

static struct mc_store_event events[10000];
static size_t event_count, event_next;
static int events_fd = -1;
static int opened; /* transfers, stores and subscriptions that are open */
static mc_status fail_store;
static char fake; /* what handles point to */

mc_status mc_transfer_open(const struct mc_transfer_options *options, mc_transfer **transfer_p,
                           struct mc_error *error)
{
    (void)error;
    assert_null(options->listen); /* its default: loopback */
    opened++;
    *transfer_p = (mc_transfer *)(void *)&fake;
    return MC_OK;
}

void mc_transfer_close(mc_transfer *transfer)
{
    opened -= transfer != NULL;
}

mc_status mc_store_open(const struct mc_store_options *options, mc_store **store_p,
                        struct mc_error *error)
{
    (void)error;
    assert_string_equal(options->master, "127.0.0.1:7777");
    if (fail_store != MC_OK)
        return fail_store;
    opened++;
    *store_p = (mc_store *)(void *)&fake;
    return MC_OK;
}

void mc_store_close(mc_store *store)
{
    opened -= store != NULL;
}

mc_status mc_store_events_open(mc_store *store, uint64_t epoch, uint64_t sequence,
                               mc_store_events **events_p)
{
    assert_ptr_equal(store, &fake);
    assert_int_equal(epoch + sequence, 0);
    opened++;
    events_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    *events_p = (mc_store_events *)(void *)&fake;
    return MC_OK;
}

void mc_store_events_close(mc_store_events *subscription)
{
    if (!subscription)
        return;
    opened--;
    close(events_fd);
    events_fd = -1;
}

mc_status mc_store_events_fd(mc_store_events *subscription, int *fd_p)
{
    (void)subscription;
    *fd_p = events_fd;
    return MC_OK;
}

mc_status mc_store_events_take(mc_store_events *subscription, struct mc_store_event *events_p,
                               size_t capacity, size_t *count_p, uint64_t deadline_ns)
{
    const size_t left = event_count - event_next, count = left < capacity ? left : capacity;
    uint64_t drained;

    (void)subscription;
    assert_int_equal(deadline_ns, MC_AT_ONCE);
    if (count == 0) {
        assert_true(read(events_fd, &drained, sizeof(drained)) >= 0 || errno == EAGAIN);
        return MC_E_NOT_FOUND;
    }
    memcpy(events_p, events + event_next, count * sizeof(*events_p));
    event_next += count;
    *count_p = count;
    return MC_OK;
}

static void say(uint32_t kind, uint64_t node, const struct mc_key *key)
{
    const uint64_t one = 1;

    assert_true(event_count < sizeof(events) / sizeof(events[0]));
    events[event_count] = (struct mc_store_event){ .kind = kind,
                                                   .medium = MC_MEDIUM_DRAM,
                                                   .sequence = event_count + 1,
                                                   .epoch = 1,
                                                   .node = node,
                                                   .length = 100,
                                                   .key = key ? *key : (struct mc_key){ { 0 } } };
    event_count++;
    assert_int_equal(write(events_fd, &one, sizeof(one)), sizeof(one));
}

/* ----------------------------------------------------------------------------------------- tests */

static os_loop *loop;
static gateway *g;
static mc_model *model;
static struct faulty f;
static struct fake_worker w;

#define WAIT(condition) \
    for (const uint64_t until = os_now_ns() + UINT64_C(60000000000); !(condition);) { \
        assert_true(os_now_ns() < until); \
        talk_turn(loop); \
    }

static struct gateway_options options(void)
{
    return (struct gateway_options){ .alloc = &f.alloc,
                                     .loop = loop,
                                     .listen = "127.0.0.1:0",
                                     .model = test_data("models/plain"),
                                     .master = "127.0.0.1:7777" };
}

static int setup(void **state)
{
    (void)state;
    faulty_init(&f, -1);
    event_count = event_next = 0;
    fail_store = MC_OK;
    assert_int_equal(os_loop_open(os_alloc(), &loop, NULL), MC_OK);
    assert_int_equal(mc_model_open(test_data("models/plain"), NULL, &model, NULL), MC_OK);
    const struct gateway_options o = options();
    assert_int_equal(gateway_open(&o, &g, NULL), MC_OK);
    w = (struct fake_worker){ .loop = loop, .model = model, .name = "W", .role = MC_ROLE_BOTH };
    w.fingerprint.bytes[5] = 7;
    fake_open(&w, gateway_control_address(g));
    WAIT(w.instance);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fake_close(&w);
    gateway_close(g);
    os_loop_close(loop);
    mc_model_close(model);
    return f.held == 0 && opened == 0 ? 0 : -1;
}

/* A prompt of 40 ids: two whole blocks, and some. */
static void ask(char body[400], struct mc_key keys[2])
{
    struct mc_identity root, identities[2];
    uint32_t ids[40];
    size_t at = (size_t)snprintf(body, 400, "{\"model\":\"plain\",\"max_tokens\":3,\"prompt\":[");

    for (uint32_t i = 0; i < 40; i++) {
        ids[i] = i * 5 + 1;
        at += (size_t)snprintf(body + at, 400 - at, "%s%u", i ? "," : "", ids[i]);
    }
    snprintf(body + at, 400 - at, "]}");
    kv_root(&w.fingerprint, "default", 7, NULL, 0, &root);
    assert_int_equal(kv_identities(&root, ids, 40, identities, 2), 2);
    keys[0] = kv_key(&identities[0]);
    keys[1] = kv_key(&identities[1]);
}

static void run(const char *body)
{
    struct talk t;

    talk_open(&t, loop, gateway_address(g));
    talk_post(&t, "/v1/completions", "", body);
    talk_answer(&t);
    if (talk_status(&t) != 200)
        fail_msg("%s", t.in.data);
    talk_close(&t);
}

static bool all_taken(void)
{
    return event_next == event_count;
}

static void test_blocks_are_pulled_from_the_node_that_holds_them(void **state)
{
    struct mc_key keys[2];
    char body[400];

    (void)state;
    ask(body, keys);
    run(body);
    assert_int_equal(w.last.pull_tokens, 0);
    say(MC_STORE_RESET, 0, NULL);
    say(MC_STORE_NODE_UP, 77, NULL);
    say(MC_STORE_STORED, 77, &keys[0]);
    say(MC_STORE_STORED, 78, &keys[0]); /* a node that was not announced */
    say(MC_STORE_STORED, 78, &keys[1]);
    say(MC_STORE_SNAPSHOT_END, 0, NULL);
    say(4711, 0, NULL); /* of a later release */
    WAIT(all_taken());
    run(body);
    assert_int_equal(w.last.pull_tokens, 32);
    assert_int_equal(w.last.holder, 78);
    say(MC_STORE_EVICTED, 78, &keys[1]);
    say(MC_STORE_NODE_DOWN, 77, NULL);
    WAIT(all_taken());
    run(body);
    assert_int_equal(w.last.pull_tokens, 16);
    assert_int_equal(w.last.holder, 78);
    say(MC_STORE_REMOVED, 78, &keys[0]);
    say(MC_STORE_REMOVED, 79, &keys[0]); /* of nobody */
    WAIT(all_taken());
    run(body);
    assert_int_equal(w.last.pull_tokens, 0);
    assert_int_equal(w.last.holder, 0);
}

static void test_after_a_reset_nothing_of_before_is_believed(void **state)
{
    struct mc_key keys[2];
    char body[400];

    (void)state;
    ask(body, keys);
    say(MC_STORE_STORED, 5, &keys[0]);
    WAIT(all_taken());
    run(body);
    assert_int_equal(w.last.pull_tokens, 16);
    say(MC_STORE_RESET, 0, NULL);
    WAIT(all_taken());
    run(body);
    assert_int_equal(w.last.pull_tokens, 0);
    say(MC_STORE_STORED, 5, &keys[0]);
    WAIT(all_taken());
    run(body);
    assert_int_equal(w.last.pull_tokens, 16);
    assert_int_equal(w.last.holder, 5);
}

static void test_many_events_leave_others_their_turn(void **state)
{
    struct mc_key key = { { 0 } };
    struct talk t;
    struct mc_key keys[2];
    char body[400];

    (void)state;
    ask(body, keys);
    for (uint32_t i = 0; i < 9000; i++) {
        memcpy(key.bytes, &i, sizeof(i));
        say(MC_STORE_STORED, 1 + i % 3, &key);
    }
    talk_open(&t, loop, gateway_address(g));
    talk_turn(loop);
    assert_false(all_taken());
    talk_close(&t);
    run(body);
    WAIT(all_taken());
}

static void test_a_store_that_cannot_be_opened_is_told_and_closed(void **state)
{
    struct gateway_options o = options();
    gateway *other = NULL;

    (void)state;
    const int before = opened;
    fail_store = MC_E_ARG;
    assert_int_equal(gateway_open(&o, &other, NULL), MC_E_ARG);
    assert_null(other);
    assert_int_equal(opened, before);
}

static void test_every_failed_allocation_of_an_open_leaves_nothing_behind(void **state)
{
    struct faulty mine;

    (void)state;
    for (long k = 0;; k++) {
        struct gateway_options o = options();
        gateway *other = NULL;
        faulty_init(&mine, k);
        o.alloc = &mine.alloc;
        const int before = opened;
        const int fd = events_fd; /* the subscription that opens last has the one there is */
        const mc_status status = gateway_open(&o, &other, NULL);
        if (status == MC_OK)
            gateway_close(other);
        assert_int_equal(mine.held, 0);
        assert_int_equal(opened, before);
        events_fd = fd;
        if (status == MC_OK) {
            assert_true(k > 20);
            return;
        }
        assert_int_equal(status, MC_E_NOMEM);
        assert_null(other);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_blocks_are_pulled_from_the_node_that_holds_them),
        TEST(test_after_a_reset_nothing_of_before_is_believed),
        TEST(test_many_events_leave_others_their_turn),
        TEST(test_a_store_that_cannot_be_opened_is_told_and_closed),
        TEST(test_every_failed_allocation_of_an_open_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
