/*
 * test_msg.c - every message, as it is, cut, flipped, from a later release, and malformed by hand.
 *
 * `unit-wire-msg --corpus DIRECTORY` writes one input for fuzz_wire.c for each kind, and does no tests.
 */
#include "test.h"

#include "base/prng.h"
#include "unit/wire/messages.h"
#include "wire/bytes.h"
#include "wire/frame.h"

#include <stdio.h>

enum { BYTES_MAX = 1 << 16 };

/** Decode from memory of exactly this size, so that reading past it is caught. */
static mc_status decode_exact(uint32_t kind, const uint8_t *bytes, size_t size,
                              union any_message *message, uint8_t **copy_p, struct mc_error *error)
{
    uint8_t *copy = malloc(size ? size : 1);

    assert_non_null(copy);
    memcpy(copy, bytes, size);
    *copy_p = copy;
    return wire_decode(kind, copy, size, message, error);
}

static size_t encode(uint32_t kind, const union any_message *message, uint8_t bytes[BYTES_MAX])
{
    size_t size = 0;

    assert_int_equal(wire_encode(kind, message, bytes, BYTES_MAX, &size), MC_OK);
    assert_int_equal(wire_encoded_size(kind, message), size);
    return size;
}

static void test_every_message_comes_back_as_it_was(void **state)
{
    (void)state;
    static uint8_t bytes[BYTES_MAX], again[BYTES_MAX];
    union any_message in, out;

    for (const uint32_t *kind = message_kinds; *kind; kind++) {
        for (uint64_t seed = 0; seed < 40; seed++) {
            struct prng prng = { .seed = seed * 1000 + *kind };
            uint8_t *copy;

            make_message(*kind, seed == 0 ? FILL_ALL : FILL_RANDOM, &prng, &in);
            const size_t size = encode(*kind, &in, bytes);
            if (decode_exact(*kind, bytes, size, &out, &copy, NULL) != MC_OK ||
                !messages_equal(wire_message(*kind), &in, &out))
                fail_msg("%s, seed %d", wire_message(*kind)->name, (int)seed);
            assert_int_equal(encode(*kind, &out, again), size);
            assert_memory_equal(bytes, again, size);
            free(copy);
        }
    }
}

/** Whatever was accepted has one form. */
static void check_canonical(uint32_t kind, const union any_message *message)
{
    static uint8_t first[BYTES_MAX], second[BYTES_MAX];
    union any_message again;
    uint8_t *copy;
    const size_t size = encode(kind, message, first);

    assert_int_equal(decode_exact(kind, first, size, &again, &copy, NULL), MC_OK);
    assert_true(messages_equal(wire_message(kind), message, &again));
    assert_int_equal(encode(kind, &again, second), size);
    assert_memory_equal(first, second, size);
    free(copy);
}

static void test_a_message_cut_anywhere_is_refused_or_is_a_shorter_message(void **state)
{
    (void)state;
    static uint8_t bytes[BYTES_MAX];
    static const union any_message zero;
    union any_message in, out;

    for (const uint32_t *kind = message_kinds; *kind; kind++) {
        struct prng prng = { .seed = *kind };
        make_message(*kind, FILL_ALL, &prng, &in);
        const size_t size = encode(*kind, &in, bytes);

        for (size_t cut = 0; cut < size; cut++) {
            struct mc_error error = { 0 };
            uint8_t *copy;
            const mc_status status = decode_exact(*kind, bytes, cut, &out, &copy, &error);

            if (status == MC_OK) {
                check_canonical(*kind, &out);
                assert_int_equal(wire_encoded_size(*kind, &out), cut);
            } else {
                assert_int_equal(status, MC_E_FORMAT);
                assert_int_equal(error.status, MC_E_FORMAT);
                assert_ptr_equal(strstr(error.text, wire_message(*kind)->name), error.text);
                assert_memory_equal(&out, &zero, wire_message(*kind)->size);
            }
            free(copy);
        }
    }
}

static void test_a_flipped_bit_is_refused_or_gives_a_message_with_one_form(void **state)
{
    (void)state;
    static uint8_t bytes[BYTES_MAX];
    union any_message in, out;

    for (const uint32_t *kind = message_kinds; *kind; kind++) {
        struct prng prng = { .seed = *kind };
        make_message(*kind, FILL_ALL, &prng, &in);
        const size_t size = encode(*kind, &in, bytes);

        for (int i = 0; i < 400; i++) {
            const size_t bit = prng_below(&prng, (uint32_t)size * 8);
            uint8_t *copy;

            bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
            if (decode_exact(*kind, bytes, size, &out, &copy, NULL) == MC_OK)
                check_canonical(*kind, &out);
            bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
            free(copy);
        }
    }
}

static void test_fields_of_a_later_release_are_skipped(void **state)
{
    (void)state;
    static uint8_t bytes[BYTES_MAX];
    static const uint8_t sizes[] = { 4, 8, 16, 32, 4 };
    union any_message in, out;

    for (const uint32_t *kind = message_kinds; *kind; kind++) {
        struct prng prng = { .seed = *kind };
        make_message(*kind, FILL_ALL, &prng, &in);
        size_t size = encode(*kind, &in, bytes);

        for (unsigned shape = 0; shape <= 4; shape++) { /* one of each, behind all others */
            put_u16(bytes + size, (uint16_t)((8000 + shape) << 3 | shape));
            memset(bytes + size + 2, 0, sizes[shape]);
            size += 2 + sizes[shape];
        }
        uint8_t *copy;
        assert_int_equal(decode_exact(*kind, bytes, size, &out, &copy, NULL), MC_OK);
        assert_true(messages_equal(wire_message(*kind), &in, &out));
        free(copy);
    }
}

/** Bytes of the field at `bytes`: its key, size and value. */
static size_t field_bytes(const uint8_t *bytes)
{
    static const uint8_t sizes[] = { 4, 8, 16, 32 };
    const unsigned shape = get_u16(bytes) & 7;

    return shape < 4 ? 2u + sizes[shape] : 6u + get_u32(bytes + 2);
}

static void test_each_required_field_is_missed_by_name(void **state)
{
    (void)state;
    static uint8_t bytes[BYTES_MAX], less[BYTES_MAX];
    union any_message in, out;
    int seen = 0;

    for (const uint32_t *kind = message_kinds; *kind; kind++) {
        const struct wire_struct *type = wire_message(*kind);
        struct prng prng = { .seed = *kind };
        make_message(*kind, FILL_ALL, &prng, &in);
        const size_t size = encode(*kind, &in, bytes);

        for (size_t at = 0, i = 0; at < size; at += field_bytes(bytes + at), i++) {
            const size_t taken = field_bytes(bytes + at);
            struct mc_error error = { 0 };

            assert_int_equal(get_u16(bytes + at) >> 3, type->fields[i].number);
            memcpy(less, bytes, at);
            memcpy(less + at, bytes + at + taken, size - at - taken);
            const mc_status status = wire_decode(*kind, less, size - taken, &out, &error);
            if (!type->fields[i].required) {
                assert_int_equal(status, MC_OK);
                continue;
            }
            char text[200];
            snprintf(text, sizeof(text), "%s: %s: required and missing", type->name,
                     type->fields[i].name);
            assert_int_equal(status, MC_E_FORMAT);
            assert_string_equal(error.text, text);
            seen++;
        }
    }
    assert_true(seen > 100);
}

/** Decode a body written by hand. */
static void check_refused(uint32_t kind, const char *bytes, size_t size, const char *text)
{
    union any_message out;
    struct mc_error error = { 0 };
    uint8_t *copy;

    assert_int_equal(decode_exact(kind, (const uint8_t *)bytes, size, &out, &copy, &error),
                     MC_E_FORMAT);
    assert_string_equal(error.text, text);
    free(copy);
}

#define REFUSED(kind, bytes, text) check_refused(kind, bytes, sizeof(bytes) - 1, text)

static void test_malformed_bodies_are_refused_with_what_is_wrong(void **state)
{
    (void)state;
    /* ping.mark is field 1, shape 1: key 0x0009 */
    REFUSED(WIRE_PING, "", "ping: mark: required and missing");
    REFUSED(WIRE_PING, "\x09", "ping: cut short in a field's key");
    REFUSED(WIRE_PING, "\x09\x00\x01\x02\x03", "ping: field 1: cut short");
    REFUSED(WIRE_PING, "\x0f\x00\x01\x02\x03", "ping: field 1: no such shape: 7");
    REFUSED(WIRE_PING, "\x08\x00\x01\x02\x03\x04", "ping: mark: shape 0, not 1");
    REFUSED(WIRE_PING, "\x01\x00\x01\x02\x03\x04\x05\x06\x07\x08",
            "ping: field 0: behind field 0; fields rise");
    REFUSED(WIRE_PING,
            "\x09\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x00\x01\x02\x03\x04\x05\x06\x07\x08",
            "ping: field 1: behind field 1; fields rise");
    /* drain.back is field 1, shape 0 */
    REFUSED(WIRE_DRAIN, "\x08\x00\x02\x00\x00\x00", "drain: back: 2 is neither 0 nor 1");
    /* notify.name is field 1, sized */
    REFUSED(WIRE_NOTIFY, "\x0c\x00\x02\x00\x00\x00\xc3\x28",
            "notify: name: is not UTF-8 text without NUL");
    REFUSED(WIRE_NOTIFY, "\x0c\x00\x01\x00\x00\x00\x00",
            "notify: name: is not UTF-8 text without NUL");
    REFUSED(WIRE_NOTIFY, "\x0c\x00\xff\xff\xff\xff", "notify: field 1: cut short");
    /* exist.keys is an array of 16 bytes each */
    REFUSED(WIRE_EXIST, "\x0c\x00\x03\x00\x00\x00\x01\x02\x03",
            "exist: keys: 3 bytes are not a multiple of 16");
    /* window_renew.windows is a list; its elements need key and generation */
    REFUSED(WIRE_WINDOW_RENEW, "\x0c\x00\x02\x00\x00\x00\x01\x00",
            "window_renew: windows: a list without its count");
    REFUSED(WIRE_WINDOW_RENEW, "\x0c\x00\x04\x00\x00\x00\x01\x00\x00\x00",
            "window_renew: windows[0]: cut short");
    REFUSED(WIRE_WINDOW_RENEW, "\x0c\x00\x04\x00\x00\x00\x01\x10\x00\x00",
            "window_renew: windows: 4097 elements, at most 4096 are allowed");
    REFUSED(WIRE_WINDOW_RENEW, "\x0c\x00\x08\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00",
            "window_renew: windows[0]: key: required and missing");
    REFUSED(WIRE_WINDOW_RENEW, "\x0c\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00",
            "window_renew: windows: 1 bytes behind its last element");
    /* reserved.window is a part, behind two numbers */
    REFUSED(WIRE_RESERVED,
            "\x09\x00\x01\x02\x03\x04\x05\x06\x07\x08\x11\x00\x01\x02\x03\x04\x05\x06\x07\x08"
            "\x1c\x00\x00\x00\x00\x00",
            "reserved: window: key: required and missing");
}

static void test_a_kind_that_is_not_known_is_not_supported(void **state)
{
    (void)state;
    union any_message out;
    struct mc_error error = { 0 };

    assert_null(wire_message(0));
    assert_int_equal(wire_decode(60000, NULL, 0, &out, &error), MC_E_UNSUPPORTED);
    assert_string_equal(error.text, "message 60000: not known to this release");
}

static void test_encoding_never_writes_more_than_it_may(void **state)
{
    (void)state;
    static uint8_t bytes[BYTES_MAX];
    union any_message in;

    for (const uint32_t *kind = message_kinds; *kind; kind++) {
        struct prng prng = { .seed = *kind };
        make_message(*kind, FILL_ALL, &prng, &in);
        const size_t size = encode(*kind, &in, bytes);

        for (size_t capacity = 0; capacity < size; capacity += 1 + capacity / 8) {
            uint8_t *exact = malloc(capacity ? capacity : 1);
            size_t written = 12345;
            assert_non_null(exact);
            assert_int_equal(wire_encode(*kind, &in, exact, capacity, &written), MC_E_RANGE);
            assert_int_equal(written, 12345);
            free(exact);
        }
    }
}

static void test_text_that_is_not_utf8_and_lists_that_are_too_long_are_not_encoded(void **state)
{
    (void)state;
    uint8_t bytes[64];
    size_t size = 0;
    const struct wire_notify notify = { .name = { "\xff", 1 } };
    const struct wire_found_item item = { .status = MC_OK };
    static const struct wire_replica replicas[9];
    struct wire_found_item long_item = item;
    long_item.replicas = (struct wire_list){ .items = replicas, .count = 9 };
    const struct wire_found found = { .items = { .items = &long_item, .count = 1 } };

    assert_int_equal(wire_encode(WIRE_NOTIFY, &notify, bytes, sizeof(bytes), &size), MC_E_ARG);
    assert_int_equal(wire_encode(WIRE_FOUND, &found, bytes, sizeof(bytes), &size), MC_E_RANGE);
    assert_int_equal(size, 0);
}

enum { ITEMS_MAX = 4096, NAME_MAX_BYTES = 255 };

static void test_the_largest_answers_that_are_allowed_fit_into_a_body(void **state)
{
    (void)state;
    static struct wire_node_engine nodes[ITEMS_MAX];
    static struct wire_put_place places[ITEMS_MAX];
    static struct wire_found_item items[ITEMS_MAX];
    static char name[NAME_MAX_BYTES];
    struct wire_replica replicas[8];
    const struct wire_list eight = { .items = replicas, .count = 8 };

    memset(name, 'n', sizeof(name));
    memset(replicas, 0x55, sizeof(replicas)); /* all of numbers: every field is written */
    for (uint32_t i = 0; i < ITEMS_MAX; i++) {
        nodes[i] = (struct wire_node_engine){ i, { name, sizeof(name) }, ~UINT64_C(0) };
        places[i] = (struct wire_put_place){ .status = MC_OK, .replicas = eight };
        items[i] = (struct wire_found_item){ .status = MC_OK, .length = 1, .replicas = eight };
    }
    const struct wire_list all_nodes = { .items = nodes, .count = ITEMS_MAX };
    const struct wire_put_begun begun = { .places = { .items = places, .count = ITEMS_MAX },
                                          .nodes = all_nodes };
    const struct wire_found found = { .items = { .items = items, .count = ITEMS_MAX },
                                      .lease = 1,
                                      .lease_ns = 1,
                                      .nodes = all_nodes };

    assert_in_range(wire_encoded_size(WIRE_PUT_BEGUN, &begun), 4 << 20, WIRE_BODY_MAX);
    assert_in_range(wire_encoded_size(WIRE_FOUND, &found), 4 << 20, WIRE_BODY_MAX);
}

static void test_lists_and_arrays_are_walked_in_order(void **state)
{
    (void)state;
    const uint64_t leases[] = { 7, UINT64_MAX, 9 };
    const struct wire_lease_release release = { .leases = { leases, 3 }, .epoch = 5 };
    const struct wire_put_item items[] = { { .length = 1 }, { .length = 2 }, { .length = 3 } };
    const struct wire_put_begin begin = { .items = { .items = items, .count = 3 } };
    uint8_t bytes[512];
    size_t size;

    struct wire_lease_release out;
    assert_int_equal(wire_encode(WIRE_LEASE_RELEASE, &release, bytes, sizeof(bytes), &size), 0);
    assert_int_equal(wire_decode(WIRE_LEASE_RELEASE, bytes, size, &out, NULL), MC_OK);
    assert_int_equal(out.leases.count, 3);
    for (uint32_t i = 0; i < 3; i++)
        assert_true(wire_u64_at(&out.leases, i) == leases[i]);

    struct wire_put_begin put;
    assert_int_equal(wire_encode(WIRE_PUT_BEGIN, &begin, bytes, sizeof(bytes), &size), MC_OK);
    assert_int_equal(wire_decode(WIRE_PUT_BEGIN, bytes, size, &put, NULL), MC_OK);
    struct wire_list list = put.items;
    struct wire_put_item item;
    for (uint64_t i = 1; i <= 3; i++) {
        assert_true(wire_put_item_next(&list, &item));
        assert_int_equal(item.length, i);
    }
    assert_false(wire_put_item_next(&list, &item));
    assert_int_equal(put.items.count, 3); /* the list itself is still whole */
}

/** One file for each kind: its number, then the body (see tests/fuzz/fuzz_wire.c). */
static int write_corpus(const char *directory)
{
    static uint8_t bytes[2 + BYTES_MAX];
    union any_message in;

    for (const uint32_t *kind = message_kinds; *kind; kind++) {
        struct prng prng = { .seed = *kind };
        char path[4096];
        size_t size;

        make_message(*kind, FILL_ALL, &prng, &in);
        put_u16(bytes, (uint16_t)*kind);
        if (wire_encode(*kind, &in, bytes + 2, BYTES_MAX, &size) != MC_OK)
            return 1;
        snprintf(path, sizeof(path), "%s/%s", directory, wire_message(*kind)->name);
        FILE *file = fopen(path, "wb");
        if (!file || fwrite(bytes, 1, size + 2, file) != size + 2 || fclose(file) != 0)
            return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_message_comes_back_as_it_was),
        cmocka_unit_test(test_a_message_cut_anywhere_is_refused_or_is_a_shorter_message),
        cmocka_unit_test(test_a_flipped_bit_is_refused_or_gives_a_message_with_one_form),
        cmocka_unit_test(test_fields_of_a_later_release_are_skipped),
        cmocka_unit_test(test_each_required_field_is_missed_by_name),
        cmocka_unit_test(test_malformed_bodies_are_refused_with_what_is_wrong),
        cmocka_unit_test(test_a_kind_that_is_not_known_is_not_supported),
        cmocka_unit_test(test_encoding_never_writes_more_than_it_may),
        cmocka_unit_test(test_text_that_is_not_utf8_and_lists_that_are_too_long_are_not_encoded),
        cmocka_unit_test(test_the_largest_answers_that_are_allowed_fit_into_a_body),
        cmocka_unit_test(test_lists_and_arrays_are_walked_in_order),
    };
    if (argc == 3 && strcmp(argv[1], "--corpus") == 0)
        return write_corpus(argv[2]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
