/* test_bench_transfer_options.c - what mooncake bench transfer accepts, and what it says about the rest. */
#include "test.h"

#include "cmd/bench_transfer_options.h"

static char *const nothing[] = { NULL };

static mc_status read_words(struct bench_transfer_request *r, const char *words,
                            const struct mc_alloc *alloc, struct mc_error *error)
{
    static char copy[256];
    char *arguments[32] = { "transfer" };
    int count = 1;

    strcpy(copy, words);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " "))
        arguments[count++] = word;
    return bench_transfer_options_read(r, count, arguments, nothing, alloc, error);
}

static void test_lists_become_a_sweep(void **state)
{
    (void)state;
    struct bench_transfer_request r;
    struct faulty f;
    struct mc_error error = { 0 };

    faulty_init(&f, -1);
    assert_int_equal(read_words(&r,
                                "-t tcp,shm --op read,write -b 64,4K,1M,1G -n 1,16 --threads 1 "
                                "--working-set 64G",
                                &f.alloc, &error),
                     MC_OK);
    assert_int_equal(r.sweep.transport_count, 2);
    assert_int_equal(r.sweep.transports[0], BENCH_TCP);
    assert_int_equal(r.sweep.transports[1], BENCH_SHM);
    assert_int_equal(r.sweep.ops[0], BENCH_READ);
    assert_int_equal(r.sweep.block_count, 4);
    assert_int_equal(r.sweep.blocks[0], 64);
    assert_int_equal(r.sweep.blocks[1], 4096);
    assert_int_equal(r.sweep.blocks[3], 1 << 30);
    assert_int_equal(r.sweep.batches[1], 16);
    bench_transfer_options_fini(&r);
    assert_int_equal(f.held, 0);
}

static void test_wrong_usage_says_what_to_do(void **state)
{
    static const struct {
        const char *words, *text;
        mc_status status;
    } cases[] = {
        { "--transport udp", "--transport: \"udp\" is not one of self, shm, tcp", MC_E_ARG },
        { "--transport shm,", "--transport: \"\" is not one of self, shm, tcp", MC_E_ARG },
        { "--op copy", "--op: \"copy\" is not one of write, read", MC_E_ARG },
        { "-b 1Q", "--block: \"1Q\" is not one of the numbers it takes (like 16 or 64K)",
          MC_E_ARG },
        { "-b 0", "--block: \"0\" is not one of the numbers it takes (like 16 or 64K)", MC_E_ARG },
        { "-b 1KK", "--block: \"1KK\" is not one of the numbers it takes (like 16 or 64K)",
          MC_E_ARG },
        { "-b 99999999999999999999",
          "--block: \"99999999999999999999\" is not one of the numbers it takes (like 16 or 64K)",
          MC_E_ARG },
        { "-n 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17", "--batch: more than 16 elements",
          MC_E_RANGE },
        { "shm", "\"shm\": only flags are expected here", MC_E_ARG },
        { "-b 1M -n 16 --working-set 16M",
          "--working-set: half of it, divided among the threads, holds 8 blocks of 1048576 bytes; "
          "a batch has 16",
          MC_E_RANGE },
        { "-t tcp -m attach", "--memory attach: is a way of shm, not of tcp", MC_E_ARG },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct bench_transfer_request r;
        struct faulty f;
        struct mc_error error = { 0 };

        faulty_init(&f, -1);
        assert_int_equal(read_words(&r, cases[i].words, &f.alloc, &error), cases[i].status);
        assert_string_equal(error.text, cases[i].text);
        bench_transfer_options_fini(&r);
        assert_int_equal(f.held, 0);
    }
}

static void test_a_case_is_named_as_the_plan_calls_it(void **state)
{
    char name[96];

    (void)state;
    bench_case_name(&(struct bench_case){ BENCH_SHM, BENCH_WRITE, 1 << 20, 16, 1, false, false },
                    name);
    assert_string_equal(name, "shm write 1M x16");
    bench_case_name(&(struct bench_case){ BENCH_TCP, BENCH_READ, 64, 1, 4, false, true }, name);
    assert_string_equal(name, "tcp read 64 x1 crc32c 4 threads");
    bench_case_name(&(struct bench_case){ BENCH_SHM, BENCH_READ, 65536, 2, 1, true, false }, name);
    assert_string_equal(name, "shm read 64K x2 attach");
    bench_case_name(
        &(struct bench_case){ BENCH_SELF, BENCH_READ, UINT64_C(4) << 30, 1, 1, false, false },
        name);
    assert_string_equal(name, "self read 4G x1");
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    mc_status status = MC_E_NOMEM;

    (void)state;
    for (long k = 0; status != MC_OK; k++) {
        struct bench_transfer_request r;
        struct faulty f;
        struct mc_error error = { 0 };

        faulty_init(&f, k);
        status = read_words(&r, "-t shm -b 4K", &f.alloc, &error);
        assert_true(status == MC_OK || status == MC_E_NOMEM);
        bench_transfer_options_fini(&r);
        assert_int_equal(f.held, 0);
        assert_true(k < 100);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists_become_a_sweep),
        cmocka_unit_test(test_wrong_usage_says_what_to_do),
        cmocka_unit_test(test_a_case_is_named_as_the_plan_calls_it),
        cmocka_unit_test(test_every_failed_allocation_leaves_nothing_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
