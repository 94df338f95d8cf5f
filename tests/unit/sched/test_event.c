/*
 * test_event.c - events as bytes and back: every kind, cut, from a later release, and malformed by hand.
 *
 * `unit-sched-event --corpus DIRECTORY` writes one input for fuzz_sched_event.c for each kind.
 */
#include "test.h"

#include <stdio.h>

#include <mooncake/sched.h>

#include "base/prng.h"

enum { BYTES_MAX = 1024, KEYS = 3 };

static const struct mc_key keys[KEYS] = { { { 1 } }, { { 2, 3 } }, { { 0xff } } };

/* Every field of the kind is set, to another value. */
static struct mc_sched_event full_event(uint32_t kind)
{
    struct mc_sched_event e;

    memset(&e, 0, sizeof(e));
    e.kind = kind;
    switch (kind) {
    case MC_EVENT_TICK:
        break;
    case MC_EVENT_INSTANCE:
        e.instance = (struct mc_sched_instance){
            .id = 1,
            .role = 2,
            .stages = 3,
            .host = UINT64_MAX,
            .kv_tokens_max = 5,
            .sequences_max = 6,
            .chunk_tokens = 7,
            .kv_token_bytes = 8,
            .model = 9,
            .cost = { 1, 2.5, -0.0, 4, 5, 6, 7, 8, 9e9, 10, 0.25, { 0 } }
        };
        break;
    case MC_EVENT_LOAD:
        e.load = (struct mc_sched_load){ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, { 0 } };
        break;
    case MC_EVENT_STORED:
    case MC_EVENT_EVICTED:
        e.blocks.id = 1;
        e.blocks.keys = keys;
        e.blocks.count = KEYS;
        e.blocks.medium = MC_MEDIUM_SSD;
        break;
    case MC_EVENT_REQUEST:
        e.request = (struct mc_sched_request){ .id = 1,
                                               .tokens = 2,
                                               .keys = keys,
                                               .key_count = KEYS,
                                               .output_max = 4,
                                               .output_hint = 5,
                                               .slo = { 6, 7 },
                                               .deadline_ns = 8,
                                               .tenant = 9,
                                               .model = 10,
                                               .priority = UINT32_MAX,
                                               .flags = 12,
                                               .barred = 13,
                                               .barred_decode = 14,
                                               .identity = 15,
                                               .arrived_ns = 16 };
        break;
    case MC_EVENT_TRANSFER_BEGIN:
    case MC_EVENT_TRANSFER_END:
        e.transfer.request = 1;
        e.transfer.from = 2;
        e.transfer.to = 3;
        e.transfer.bytes = 4;
        e.transfer.duration_ns = 5;
        e.transfer.status = 1;
        break;
    case MC_EVENT_SLO:
        e.slo = (struct mc_sched_slo){ 1, 2 };
        break;
    case MC_EVENT_INSTANCE_GONE:
    case MC_EVENT_INSTANCE_DRAIN:
    case MC_EVENT_BLOCKS_RESET:
        e.id = 77;
        break;
    default:
        e.progress.request = 1;
        e.progress.id = 2;
        e.progress.tokens = 3;
        e.progress.reused = 4;
        e.progress.sequences = 5;
        e.progress.duration_ns = 6;
        e.progress.status = 2;
    }
    return e;
}

/* Decode from memory of exactly this size, so that reading past it is caught. */
static mc_status decode(const uint8_t *bytes, size_t size, struct mc_key *room, size_t capacity,
                        uint64_t *now_p, struct mc_sched_event *event_p, struct mc_error *error)
{
    uint8_t *copy = malloc(size ? size : 1);

    assert_non_null(copy);
    memcpy(copy, bytes, size);
    const mc_status status =
        mc_sched_event_decode(copy, size, room, capacity, now_p, event_p, error);
    free(copy);
    return status;
}

static size_t encode(const struct mc_sched_event *event, uint8_t bytes[BYTES_MAX])
{
    size_t size = 0;

    assert_int_equal(mc_sched_event_encode(0x0102030405060708, event, bytes, BYTES_MAX, &size),
                     MC_OK);
    return size;
}

/* Equal but for where the keys lie. */
static void assert_same_event(struct mc_sched_event a, struct mc_sched_event b)
{
    assert_int_equal(a.kind, b.kind);
    if (a.kind == MC_EVENT_REQUEST || a.kind == MC_EVENT_STORED || a.kind == MC_EVENT_EVICTED) {
        const struct mc_key **pa = a.kind == MC_EVENT_REQUEST ? &a.request.keys : &a.blocks.keys;
        const struct mc_key **pb = b.kind == MC_EVENT_REQUEST ? &b.request.keys : &b.blocks.keys;
        const size_t count = a.kind == MC_EVENT_REQUEST ? a.request.key_count : a.blocks.count;
        if (count != 0)
            assert_memory_equal(*pa, *pb, count * sizeof(**pa));
        *pa = *pb = NULL;
    }
    assert_memory_equal(&a, &b, sizeof(a));
}

static void test_every_kind_comes_back_as_it_was(void **state)
{
    (void)state;
    for (uint32_t kind = MC_EVENT_TICK; kind <= MC_EVENT_MEASURED; kind++) {
        const struct mc_sched_event event = full_event(kind);
        struct mc_sched_event back;
        struct mc_key room[KEYS];
        uint8_t bytes[BYTES_MAX], again[BYTES_MAX];
        uint64_t now;
        const size_t size = encode(&event, bytes);

        assert_int_equal(decode(bytes, size, room, KEYS, &now, &back, NULL), MC_OK);
        assert_true(now == 0x0102030405060708);
        assert_same_event(event, back);
        assert_int_equal(encode(&back, again), size);
        assert_memory_equal(bytes, again, size);
    }
}

static void test_an_event_with_nothing_set_is_its_head_alone(void **state)
{
    (void)state;
    for (uint32_t kind = MC_EVENT_TICK; kind <= MC_EVENT_MEASURED; kind++) {
        struct mc_sched_event event, back;
        uint8_t bytes[BYTES_MAX];
        uint64_t now;

        memset(&event, 0, sizeof(event));
        event.kind = kind;
        assert_int_equal(encode(&event, bytes), 10);
        assert_int_equal(decode(bytes, 10, NULL, 0, &now, &back, NULL), MC_OK);
        assert_memory_equal(&event, &back, sizeof(event));
    }
}

static void test_the_bytes_are_those_that_older_records_hold(void **state)
{
    (void)state;
    const struct mc_sched_event event = {
        .kind = MC_EVENT_STORED,
        .blocks = { .id = 0x1122, .keys = keys, .count = 1, .medium = MC_MEDIUM_DRAM }
    };
    static const uint8_t expected[] = {
        8,          7, 6,    5,    4, 3, 2,          1, 6,  0, /* now, kind */
        1 << 3 | 1, 0, 0x22, 0x11, 0, 0, 0,          0, 0,  0, 2 << 3 | 1, 0, 1, 0,
        0,          0, 0,    0,    0, 0, 3 << 3 | 4, 0, 16, 0, 0,          0, 1, 0,
        0,          0, 0,    0,    0, 0, 0,          0, 0,  0, 0,          0, 0, 0,
    };
    uint8_t bytes[BYTES_MAX];

    assert_int_equal(encode(&event, bytes), sizeof(expected));
    assert_memory_equal(bytes, expected, sizeof(expected));
}

static void test_no_room_is_said_at_every_size(void **state)
{
    (void)state;
    for (uint32_t kind = MC_EVENT_TICK; kind <= MC_EVENT_MEASURED; kind++) {
        const struct mc_sched_event event = full_event(kind);
        uint8_t bytes[BYTES_MAX];
        const size_t size = encode(&event, bytes);
        size_t written = 99;

        for (size_t capacity = 0; capacity < size; capacity++) {
            uint8_t *exact = malloc(capacity ? capacity : 1);
            assert_int_equal(mc_sched_event_encode(1, &event, exact, capacity, &written),
                             MC_E_RANGE);
            free(exact);
        }
        assert_int_equal(written, 99);
    }
}

static void test_an_event_cut_anywhere_is_malformed_or_a_shorter_one(void **state)
{
    (void)state;
    for (uint32_t kind = MC_EVENT_TICK; kind <= MC_EVENT_MEASURED; kind++) {
        const struct mc_sched_event event = full_event(kind);
        struct mc_sched_event back = { .kind = 99 };
        struct mc_key room[KEYS];
        uint8_t bytes[BYTES_MAX], again[BYTES_MAX];
        uint64_t now = 98;
        const size_t size = encode(&event, bytes);

        for (size_t cut = 0; cut < size; cut++) {
            struct mc_error error = { 0 };
            back.kind = 99;
            const mc_status status = decode(bytes, cut, room, KEYS, &now, &back, &error);
            if (status == MC_OK) { /* cut between two fields */
                assert_int_equal(encode(&back, again), cut);
                continue;
            }
            assert_int_equal(status, MC_E_FORMAT);
            assert_int_equal(back.kind, 99);
            assert_non_null(strstr(error.text, "byte"));
        }
    }
}

static void test_fields_of_a_later_release_are_skipped(void **state)
{
    (void)state;
    const struct mc_sched_event event = full_event(MC_EVENT_SLO);
    struct mc_sched_event back;
    uint8_t bytes[BYTES_MAX];
    uint64_t now;
    size_t size = encode(&event, bytes);
    static const uint8_t later[] = { 0x88, 0x13 | 0x01, 1, 2, 3, 4, 5, 6, 7, 8 };
    static const uint8_t sized[] = { 0x04, 0xf0, 3, 0, 0, 0, 1, 2, 3 };

    memcpy(bytes + size, later, sizeof(later));
    bytes[size] |= 1;
    size += sizeof(later);
    memcpy(bytes + size, sized, sizeof(sized));
    size += sizeof(sized);
    assert_int_equal(decode(bytes, size, NULL, 0, &now, &back, NULL), MC_OK);
    assert_same_event(event, back);
}

static void test_malformed_bytes_are_refused_with_a_reason(void **state)
{
    (void)state;
#define HEAD(kind) 0, 0, 0, 0, 0, 0, 0, 0, (kind), 0
    static const struct {
        const char *says;
        size_t size;
        uint8_t bytes[48];
    } wrong[] = {
        { "too short", 9, { 0 } },
        { "kind", 10, { HEAD(0) } },
        { "kind", 10, { HEAD(19) } },
        { "kind", 10, { 0, 0, 0, 0, 0, 0, 0, 0, 1, 1 } },
        { "shape", 20, { HEAD(17), 1 << 3 | 0, 0, 1 } },
        { "shape", 20, { HEAD(17), 1 << 3 | 7, 0, 1 } },
        { "wrong shape", 16, { HEAD(17), 1 << 3 | 4, 0 } },
        { "wrong shape", 20, { HEAD(6), 3 << 3 | 1, 0 } },
        { "order", 20, { HEAD(17), 0 << 3 | 1, 0 } },
        { "order", 30, { HEAD(17), 2 << 3 | 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1 << 3 | 1, 0 } },
        { "order", 30, { HEAD(17), 1 << 3 | 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1 << 3 | 1, 0 } },
        { "too large", 20, { HEAD(6), 2 << 3 | 1, 0, 0, 0, 0, 0, 1 } },
        { "part of a key", 33, { HEAD(6), 3 << 3 | 4, 0, 17, 0, 0, 0 } },
        { "ends", 31, { HEAD(6), 3 << 3 | 4, 0, 16, 0, 0, 0 } },
        { "ends", 32, { HEAD(6), 3 << 3 | 4, 0, 255, 255, 255, 255 } },
    };

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct mc_sched_event back = { .kind = 99 };
        struct mc_key room[KEYS];
        struct mc_error error = { 0 };
        uint64_t now;

        const mc_status status =
            decode(wrong[i].bytes, wrong[i].size, room, KEYS, &now, &back, &error);
        if (status != MC_E_FORMAT || !strstr(error.text, wrong[i].says))
            fail_msg("row %d: %s", (int)i, error.text);
        assert_int_equal(back.kind, 99);
    }
}

static void test_keys_without_room_are_a_range_error(void **state)
{
    (void)state;
    const struct mc_sched_event event = full_event(MC_EVENT_REQUEST);
    struct mc_sched_event back = { .kind = 99 };
    struct mc_key room[KEYS];
    struct mc_error error = { 0 };
    uint8_t bytes[BYTES_MAX];
    uint64_t now;
    const size_t size = encode(&event, bytes);

    assert_int_equal(decode(bytes, size, room, KEYS - 1, &now, &back, &error), MC_E_RANGE);
    assert_int_equal(back.kind, 99);
    assert_non_null(strstr(error.text, "3 keys"));
}

static void test_what_is_no_event_is_not_encoded(void **state)
{
    (void)state;
    uint8_t bytes[BYTES_MAX];
    size_t size;
    const struct mc_sched_event wrong[] = {
        { .kind = 0 },
        { .kind = 19 },
        { .kind = MC_EVENT_STORED, .blocks = { .count = 1 } },
        { .kind = MC_EVENT_REQUEST, .request = { .key_count = 1 } },
    };

    for (size_t i = 0; i < 4; i++)
        assert_int_equal(mc_sched_event_encode(0, &wrong[i], bytes, BYTES_MAX, &size), MC_E_ARG);
}

static int write_corpus(const char *directory)
{
    for (uint32_t kind = MC_EVENT_TICK; kind <= MC_EVENT_MEASURED; kind++) {
        const struct mc_sched_event event = full_event(kind);
        uint8_t bytes[BYTES_MAX];
        char path[4096];
        size_t size;

        if (mc_sched_event_encode(kind, &event, bytes, sizeof(bytes), &size) != MC_OK)
            return 1;
        snprintf(path, sizeof(path), "%s/kind_%02u", directory, (unsigned)kind);
        FILE *file = fopen(path, "wb");
        if (!file)
            return 1;
        const bool good = fwrite(bytes, 1, size, file) == size;
        if (fclose(file) != 0 || !good)
            return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind_comes_back_as_it_was),
        cmocka_unit_test(test_an_event_with_nothing_set_is_its_head_alone),
        cmocka_unit_test(test_the_bytes_are_those_that_older_records_hold),
        cmocka_unit_test(test_no_room_is_said_at_every_size),
        cmocka_unit_test(test_an_event_cut_anywhere_is_malformed_or_a_shorter_one),
        cmocka_unit_test(test_fields_of_a_later_release_are_skipped),
        cmocka_unit_test(test_malformed_bytes_are_refused_with_a_reason),
        cmocka_unit_test(test_keys_without_room_are_a_range_error),
        cmocka_unit_test(test_what_is_no_event_is_not_encoded),
    };

    if (argc == 3 && strcmp(argv[1], "--corpus") == 0)
        return write_corpus(argv[2]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
