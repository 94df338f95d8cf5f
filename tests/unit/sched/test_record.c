/* test_record.c - recordings as bytes: what is written is read, and what is damaged is said to be. */
#include "test.h"

#include "sched/record.h"

static size_t add(uint8_t *file, size_t at, enum record_kind kind, const void *body, size_t size)
{
    record_head(kind, body, size, file + at);
    memcpy(file + at + RECORD_HEAD_BYTES, body, size);
    return at + RECORD_HEAD_BYTES + size;
}

static size_t make_file(uint8_t *file)
{
    memcpy(file, RECORD_MAGIC, RECORD_MAGIC_BYTES);
    const size_t at = add(file, RECORD_MAGIC_BYTES, RECORD_OPTIONS, "seed=7\n", 7);
    return add(file, at, RECORD_EVENT, "0123456789", 10);
}

static void test_records_are_read_one_by_one_to_the_end(void **state)
{
    uint8_t file[256];
    const size_t size = make_file(file);
    struct record record;
    struct mc_error error = { 0 };
    size_t at = 0;

    (void)state;
    assert_int_equal(record_next(file, size, &at, &record, &error), MC_OK);
    assert_int_equal(record.kind, RECORD_OPTIONS);
    assert_memory_equal(record.body, "seed=7\n", 7);
    assert_int_equal(record_next(file, size, &at, &record, &error), MC_OK);
    assert_int_equal(record.kind, RECORD_EVENT);
    assert_int_equal(record.size, 10);
    assert_int_equal(record_next(file, size, &at, &record, &error), MC_E_NOT_FOUND);
    assert_int_equal(at, size);
}

/* As a kill -9 leaves it. */
static void test_a_file_cut_anywhere_is_read_up_to_its_last_whole_record(void **state)
{
    uint8_t file[256];
    const size_t size = make_file(file), first = RECORD_MAGIC_BYTES + RECORD_HEAD_BYTES + 7;

    (void)state;
    for (size_t cut = 0; cut < size; cut++) {
        struct record record;
        struct mc_error error = { 0 };
        size_t at = 0, whole = 0;
        mc_status status;

        while ((status = record_next(file, cut, &at, &record, &error)) == MC_OK)
            whole++;
        assert_int_equal(whole, cut >= first);
        if (cut < RECORD_MAGIC_BYTES)
            assert_int_equal(status, MC_E_FORMAT);
        else
            assert_int_equal(status, cut == RECORD_MAGIC_BYTES || cut == first ? MC_E_NOT_FOUND
                                                                               : MC_PENDING);
    }
}

static void test_every_flipped_bit_of_a_record_is_seen(void **state)
{
    uint8_t file[256];
    const size_t size = make_file(file);

    (void)state;
    for (size_t bit = 0; bit < size * 8; bit++) {
        struct record record;
        struct mc_error error = { 0 };
        size_t at = 0, whole = 0;

        file[bit / 8] ^= (uint8_t)(1 << bit % 8);
        while (record_next(file, size, &at, &record, &error) == MC_OK)
            whole++;
        assert_true(whole < 2);
        file[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

static void test_options_come_back_as_they_were(void **state)
{
    struct faulty faulty;
    struct mc_error error = { 0 };
    struct record_options read;

    (void)state;
    faulty_init(&faulty, -1);
    struct buf text = BUF_INIT(&faulty.alloc);
    const struct mc_sched_options options = { .policy = "least-loaded",
                                              .policy_parameters = "a=1,b=2",
                                              .admission_parameters = "retry=3",
                                              .admission = MC_ADMIT_EARLY,
                                              .flags = 0,
                                              .slo = { 1, UINT64_MAX },
                                              .seed = UINT64_MAX - 1,
                                              .block_tokens = 16,
                                              .instances_max = 5,
                                              .requests_max = 6,
                                              .blocks_max = 7,
                                              .waiting_max = 8 };
    assert_int_equal(record_options_write(&options, &text), MC_OK);
    const struct record record = { RECORD_OPTIONS, (const uint8_t *)text.data, text.size };
    assert_int_equal(record_options_read(&record, &read, &error), MC_OK);
    assert_string_equal(read.options.policy, options.policy);
    assert_string_equal(read.options.policy_parameters, options.policy_parameters);
    assert_string_equal(read.options.admission_parameters, options.admission_parameters);
    read.options.policy = options.policy;
    read.options.policy_parameters = options.policy_parameters;
    read.options.admission_parameters = options.admission_parameters;
    assert_memory_equal(&read.options, &options, sizeof(options));
    buf_fini(&text);
}

static void test_options_that_are_none_are_refused(void **state)
{
    static const char *const bad[] = {
        "seed=7",  "seed\n",    "colour=red\n",       "seed=x\n",
        "seed=\n", "seed=1 \n", "flags=4294967296\n", "seed=18446744073709551616\n"
    };
    struct mc_error error = { 0 };
    struct record_options read;
    struct faulty faulty;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const struct record record = { RECORD_OPTIONS, (const uint8_t *)bad[i], strlen(bad[i]) };
        assert_int_equal(record_options_read(&record, &read, &error), MC_E_FORMAT);
    }
    faulty_init(&faulty, -1);
    struct buf text = BUF_INIT(&faulty.alloc);
    const struct mc_sched_options broken = { .policy = "two\nlines" };
    assert_int_equal(record_options_write(&broken, &text), MC_E_ARG);
    buf_fini(&text);
}

static void test_an_event_keeps_its_status_and_its_time(void **state)
{
    const struct mc_key keys[2] = { { { 1 } }, { { 2 } } };
    const struct mc_sched_event event = {
        .kind = MC_EVENT_REQUEST, .request = { .id = 9, .tokens = 40, .keys = keys, .key_count = 2 }
    };
    uint8_t bytes[RECORD_EVENT_FIXED + sizeof(keys)];
    struct mc_key room[2];
    struct mc_sched_event read;
    struct mc_error error = { 0 };
    mc_status status;
    uint64_t now_ns;
    size_t size;

    (void)state;
    assert_int_equal(record_event_write(77, &event, MC_E_FULL, bytes, sizeof(bytes), &size), MC_OK);
    const struct record record = { RECORD_EVENT, bytes, size };
    assert_int_equal(record_event_read(&record, room, 2, &now_ns, &read, &status, &error), MC_OK);
    assert_int_equal(now_ns, 77);
    assert_int_equal(status, MC_E_FULL);
    assert_int_equal(read.request.key_count, 2);
    assert_memory_equal(read.request.keys, keys, sizeof(keys));
    const struct record less = { RECORD_EVENT, bytes, 3 };
    assert_int_equal(record_event_read(&less, room, 2, &now_ns, &read, &status, &error),
                     MC_E_FORMAT);
}

/* What is not encoded would not be compared. */
static void test_every_field_of_a_decision_changes_its_bytes(void **state)
{
    const size_t keys_at = offsetof(struct mc_decision, keys);
    uint8_t plain[RECORD_DECISION_FIXED], changed[RECORD_DECISION_FIXED];
    struct mc_decision decision;
    size_t plain_size, changed_size;

    (void)state;
    memset(&decision, 0, sizeof(decision));
    assert_int_equal(record_decision_write(&decision, plain, sizeof(plain), &plain_size), MC_OK);
    for (size_t at = 0; at < offsetof(struct mc_decision, reserved); at++) {
        if (at >= keys_at && at < keys_at + sizeof(decision.keys) + sizeof(decision.key_count))
            continue; /* a pointer, and a count that means nothing without it */
        if (at >= offsetof(struct mc_decision, predicted.reserved) &&
            at < offsetof(struct mc_decision, predicted) + sizeof(decision.predicted))
            continue;
        ((uint8_t *)&decision)[at] ^= 1;
        assert_int_equal(record_decision_write(&decision, changed, sizeof(changed), &changed_size),
                         MC_OK);
        assert_true(changed_size != plain_size || memcmp(plain, changed, plain_size) != 0);
        ((uint8_t *)&decision)[at] ^= 1;
    }
}

static void test_a_decision_comes_back(void **state)
{
    const struct mc_key keys[3] = { { { 1 } } };
    const struct mc_decision decision = { .kind = MC_DECIDE_REPLICATE,
                                          .reason = MC_REASON_HOT_PREFIX,
                                          .prefill = 4,
                                          .keys = keys,
                                          .key_count = 3,
                                          .score = 0.5,
                                          .predicted = { .ttft_ns = 5, .decode_load = 1.5 },
                                          .flags = MC_DECISION_BACK };
    uint8_t bytes[RECORD_DECISION_FIXED + sizeof(keys)];
    struct mc_decision read;
    struct mc_error error = { 0 };
    size_t size;

    (void)state;
    assert_int_equal(record_decision_write(&decision, bytes, sizeof(bytes), &size), MC_OK);
    const struct record record = { RECORD_DECISION, bytes, size };
    assert_int_equal(record_decision_read(&record, &read, &error), MC_OK);
    assert_null(read.keys);
    read.keys = keys;
    assert_memory_equal(&read, &decision, sizeof(read));
    for (size_t less = 1; less < size; less++) { /* ends between fields are decisions too */
        const struct record part = { RECORD_DECISION, bytes, less };
        (void)!record_decision_read(&part, &read, &error);
    }
    for (size_t room = 0; room < size; room++)
        assert_int_equal(record_decision_write(&decision, bytes, room, &size), MC_E_RANGE);
}

static void test_an_end_comes_back(void **state)
{
    const struct record_last last = { RECORD_TOO_SLOW, 5, 6 };
    uint8_t bytes[RECORD_END_BYTES];
    struct record_last read;
    struct mc_error error = { 0 };

    (void)state;
    record_end_write(&last, bytes);
    const struct record record = { RECORD_END, bytes, sizeof(bytes) };
    assert_int_equal(record_end_read(&record, &read, &error), MC_OK);
    assert_int_equal(read.why, last.why);
    assert_int_equal(read.events, 5);
    assert_int_equal(read.decisions, 6);
    bytes[0] = 77;
    assert_int_equal(record_end_read(&record, &read, &error), MC_E_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records_are_read_one_by_one_to_the_end),
        cmocka_unit_test(test_a_file_cut_anywhere_is_read_up_to_its_last_whole_record),
        cmocka_unit_test(test_every_flipped_bit_of_a_record_is_seen),
        cmocka_unit_test(test_options_come_back_as_they_were),
        cmocka_unit_test(test_options_that_are_none_are_refused),
        cmocka_unit_test(test_an_event_keeps_its_status_and_its_time),
        cmocka_unit_test(test_every_field_of_a_decision_changes_its_bytes),
        cmocka_unit_test(test_a_decision_comes_back),
        cmocka_unit_test(test_an_end_comes_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
