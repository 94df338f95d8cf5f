/* test_frame.c - greetings, negotiation, and frames however the bytes come. */
#include "test.h"

#include "base/prng.h"
#include "wire/bytes.h"
#include "wire/frame.h"

enum { CAPACITY = 1000, PAYLOAD_MAX = 5000 };

static const struct wire_greeting GREETING = {
    .version = 3, .version_min = 2, .features = 5, .incarnation = 77
};

static void test_a_greeting_comes_back_as_it_was(void **state)
{
    (void)state;
    uint8_t bytes[WIRE_GREETING_BYTES];
    struct wire_greeting out;

    wire_greeting_encode(&GREETING, bytes);
    assert_int_equal(wire_greeting_decode(bytes, &out, NULL), MC_OK);
    assert_int_equal(out.version, 3);
    assert_int_equal(out.version_min, 2);
    assert_int_equal(out.features, 5);
    assert_int_equal(out.incarnation, 77);
}

static void test_a_greeting_with_any_bit_flipped_is_refused(void **state)
{
    (void)state;
    for (int bit = 0; bit < WIRE_GREETING_BYTES * 8; bit++) {
        uint8_t bytes[WIRE_GREETING_BYTES];
        struct wire_greeting out = { .version = 9 };
        struct mc_error error = { 0 };

        wire_greeting_encode(&GREETING, bytes);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        const mc_status status = wire_greeting_decode(bytes, &out, &error);
        assert_int_equal(status, bit < 32 ? MC_E_FORMAT : MC_E_CORRUPT);
        assert_int_equal(error.status, status);
        assert_int_equal(out.version, 9);
    }
}

static void test_a_greeting_that_cannot_be_is_refused(void **state)
{
    (void)state;
    const struct wire_greeting bad[] = {
        { .version = 0, .version_min = 0, .incarnation = 1 },
        { .version = 1, .version_min = 2, .incarnation = 1 },
        { .version = 1, .version_min = 1, .incarnation = 0 },
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint8_t bytes[WIRE_GREETING_BYTES];
        struct wire_greeting out;
        wire_greeting_encode(&bad[i], bytes);
        assert_int_equal(wire_greeting_decode(bytes, &out, NULL), MC_E_FORMAT);
    }
}

static void test_two_sides_speak_the_highest_version_that_both_know(void **state)
{
    (void)state;
    for (uint16_t a = 1; a <= 4; a++) {
        for (uint16_t b = 1; b <= 4; b++) {
            const struct wire_greeting ours = { a, a > 1 ? (uint16_t)(a - 1) : a, 0, 1 };
            const struct wire_greeting theirs = { b, b > 1 ? (uint16_t)(b - 1) : b, 0, 1 };
            const uint16_t low = a < b ? a : b;
            const bool can = low >= ours.version_min && low >= theirs.version_min;
            uint16_t version = 0;
            uint64_t features;
            struct mc_error error = { 0 };

            const mc_status status = wire_negotiate(&ours, &theirs, &version, &features, &error);
            assert_int_equal(status, can ? MC_OK : MC_E_UNSUPPORTED);
            assert_int_equal(version, can ? low : 0);
            assert_int_equal(error.text[0] != '\0', !can);
        }
    }
}

static void test_features_are_common_ones_and_insisted_ones_must_be_on_both_sides(void **state)
{
    (void)state;
    const uint64_t insist = UINT64_C(1) << 40;
    struct wire_greeting ours = { 1, 1, 6, 1 }, theirs = { 1, 1, 3, 1 };
    uint16_t version;
    uint64_t features;
    struct mc_error error = { 0 };

    assert_int_equal(wire_negotiate(&ours, &theirs, &version, &features, &error), MC_OK);
    assert_int_equal(features, 2);
    theirs.features |= insist;
    assert_int_equal(wire_negotiate(&ours, &theirs, &version, &features, &error), MC_E_UNSUPPORTED);
    assert_non_null(strstr(error.text, "the peer insists on features 0x10000000000"));
    assert_int_equal(wire_negotiate(&theirs, &ours, &version, &features, &error), MC_E_UNSUPPORTED);
    assert_non_null(strstr(error.text, "the peer does not set them"));
    ours.features |= insist;
    assert_int_equal(wire_negotiate(&ours, &theirs, &version, &features, &error), MC_OK);
    assert_true(features == (2 | insist));
}

/** A stream of frames with random bodies; payload bytes are 0xee. Returns its size. */
static size_t make_stream(uint64_t seed, struct wire_frame *frames, uint32_t count, uint8_t *bytes)
{
    static uint8_t bodies[8][CAPACITY];
    struct prng prng = { .seed = seed };
    size_t size = 0;

    for (uint32_t i = 0; i < count; i++) {
        struct wire_frame *f = &frames[i];
        *f = (struct wire_frame){ .kind = prng_below(&prng, 65536),
                                  .flags = prng_below(&prng, 2),
                                  .id = prng_next(&prng),
                                  .deadline_ns = prng_next(&prng),
                                  .payload = prng_below(&prng, 2) ? 0 : prng_below(&prng, 100),
                                  .body = bodies[i],
                                  .body_size = prng_below(&prng, 4) ? prng_below(&prng, 80) : 0 };
        for (uint32_t b = 0; b < f->body_size; b++)
            bodies[i][b] = (uint8_t)prng_next(&prng);
        wire_header_encode(f, bytes + size);
        memcpy(bytes + size + WIRE_HEADER_BYTES, f->body, f->body_size);
        size += WIRE_HEADER_BYTES + f->body_size;
        memset(bytes + size, 0xee, f->payload);
        size += f->payload;
    }
    return size;
}

static void check_frame(const struct wire_frame *got, const struct wire_frame *sent)
{
    assert_int_equal(got->kind, sent->kind);
    assert_int_equal(got->flags, sent->flags);
    assert_true(got->id == sent->id && got->deadline_ns == sent->deadline_ns);
    assert_int_equal(got->payload, sent->payload);
    assert_int_equal(got->body_size, sent->body_size);
    if (sent->body_size)
        assert_memory_equal(got->body, sent->body, sent->body_size);
}

static void test_frames_come_out_whole_however_the_bytes_come(void **state)
{
    (void)state;
    static uint8_t stream[8 * 2000], body[CAPACITY];
    struct wire_frame frames[8];

    for (uint64_t seed = 0; seed < 200; seed++) {
        const size_t size = make_stream(seed, frames, 8, stream);
        struct prng prng = { .seed = seed };
        struct wire_reader reader;
        size_t at = 0;
        uint32_t seen = 0;

        wire_reader_init(&reader, body, sizeof(body), CAPACITY, PAYLOAD_MAX);
        while (at < size) {
            size_t part = 1 + prng_below(&prng, seed % 2 ? 300 : 20), used;
            struct wire_frame frame;
            if (part > size - at)
                part = size - at;
            uint8_t *copy = malloc(part); /* of exactly this size: reading past it is caught */
            assert_non_null(copy);
            memcpy(copy, stream + at, part);
            const mc_status status = wire_reader_feed(&reader, copy, part, &used, &frame, NULL);
            at += used;
            if (status == MC_OK) {
                check_frame(&frame, &frames[seen++]);
                at += frame.payload; /* the payload is the caller's */
            } else {
                assert_int_equal(status, MC_PENDING);
                assert_int_equal(used, part);
                assert_true(wire_reader_wants(&reader) > 0);
            }
            free(copy);
        }
        assert_int_equal(seen, 8);
        assert_int_equal(wire_reader_wants(&reader), WIRE_HEADER_BYTES);
    }
}

static void test_a_frame_with_any_bit_flipped_ends_the_connection(void **state)
{
    (void)state;
    static uint8_t stream[2000], body[CAPACITY];
    struct wire_frame sent;
    uint64_t seed = 1;
    size_t size;

    do
        size = make_stream(seed++, &sent, 1, stream);
    while (sent.body_size == 0 || sent.payload != 0);
    for (size_t bit = 0; bit < size * 8; bit++) {
        struct wire_reader reader;
        struct wire_frame frame = { .kind = 9 };
        struct mc_error error = { 0 };
        size_t used;

        stream[bit / 8] ^= (uint8_t)(1 << bit % 8);
        wire_reader_init(&reader, body, sizeof(body), CAPACITY, PAYLOAD_MAX);
        assert_int_equal(wire_reader_feed(&reader, stream, size, &used, &frame, &error),
                         MC_E_CORRUPT);
        assert_int_equal(frame.kind, 9);
        assert_int_equal(error.status, MC_E_CORRUPT);
        stream[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(wire_reader_feed(&reader, stream, size, &used, &frame, &error),
                         MC_E_CORRUPT); /* for good */
        assert_int_equal(used, 0);
    }
}

/** Feed one header; expect this status and text. */
static void check_header(const struct wire_frame *frame, uint32_t body_claimed, mc_status expected,
                         const char *text)
{
    static uint8_t body[CAPACITY];
    uint8_t bytes[WIRE_HEADER_BYTES];
    struct wire_reader reader;
    struct wire_frame out;
    struct mc_error error = { 0 };
    struct wire_frame claimed = *frame;
    static const uint8_t zeros[WIRE_BODY_MAX];
    size_t used;

    claimed.body = zeros;
    claimed.body_size = body_claimed;
    wire_header_encode(&claimed, bytes);
    wire_reader_init(&reader, body, sizeof(body), CAPACITY, PAYLOAD_MAX);
    assert_int_equal(wire_reader_feed(&reader, bytes, sizeof(bytes), &used, &out, &error),
                     expected);
    assert_string_equal(error.text, text);
}

static void test_limits_hold_before_anything_is_collected(void **state)
{
    (void)state;
    check_header(&(struct wire_frame){ .kind = 5 }, CAPACITY, MC_PENDING, "");
    check_header(&(struct wire_frame){ .kind = 5 }, CAPACITY + 1, MC_E_RANGE,
                 "frame: a body of 1001 bytes, at most 1000 are allowed");
    check_header(&(struct wire_frame){ .kind = 5, .payload = PAYLOAD_MAX }, 0, MC_OK, "");
    check_header(&(struct wire_frame){ .kind = 5, .payload = PAYLOAD_MAX + 1 }, 0, MC_E_RANGE,
                 "frame: a payload of 5001 bytes, at most 5000 are allowed");
}

static void test_a_body_longer_than_the_buffer_is_taken_into_a_larger_one(void **state)
{
    (void)state;
    uint8_t stream[WIRE_HEADER_BYTES + 100], small[10], middle[100], large[100], body[100];
    const struct wire_frame sent = { .kind = 5, .id = 6, .body = body, .body_size = sizeof(body) };
    struct wire_reader reader;
    struct wire_frame frame;
    size_t used = 0;

    for (size_t i = 0; i < sizeof(body); i++)
        body[i] = (uint8_t)i;
    wire_header_encode(&sent, stream);
    memcpy(stream + WIRE_HEADER_BYTES, body, sizeof(body));
    wire_reader_init(&reader, small, sizeof(small), CAPACITY, PAYLOAD_MAX);
    assert_int_equal(wire_reader_body(&reader), 0);
    for (int again = 0; again < 2;
         again++) { /* not for good: it says so until the buffer is there */
        assert_int_equal(wire_reader_feed(&reader, stream + used * (size_t)again,
                                          again ? 7 : WIRE_HEADER_BYTES + 7, &used, &frame, NULL),
                         MC_E_FULL);
        assert_int_equal(used, again ? 0 : WIRE_HEADER_BYTES);
    }
    assert_int_equal(wire_reader_body(&reader), 100);

    wire_reader_buffer(&reader, middle, sizeof(middle));
    assert_int_equal(wire_reader_feed(&reader, stream + WIRE_HEADER_BYTES, 60, &used, &frame, NULL),
                     MC_PENDING);
    wire_reader_buffer(&reader, large, sizeof(large)); /* what was collected goes along */
    memset(middle, 0xee, sizeof(middle));
    assert_int_equal(
        wire_reader_feed(&reader, stream + WIRE_HEADER_BYTES + 60, 40, &used, &frame, NULL), MC_OK);
    check_frame(&frame, &sent);
}

static void test_low_flags_may_be_ignored_and_high_flags_may_not(void **state)
{
    (void)state;
    check_header(&(struct wire_frame){ .kind = 5, .flags = 0xff }, 0, MC_OK, "");
    check_header(&(struct wire_frame){ .kind = 5, .flags = 0x4001 }, 0, MC_E_UNSUPPORTED,
                 "frame: flags 0x4000 are not known here");
}

static void test_a_greeting_is_collected_byte_by_byte_and_frames_follow(void **state)
{
    (void)state;
    static uint8_t stream[2000], body[CAPACITY];
    struct wire_greeting greeting = { 0 };
    struct wire_reader reader;
    struct wire_frame sent, frame;
    size_t used;

    wire_greeting_encode(&GREETING, stream);
    const size_t size =
        WIRE_GREETING_BYTES + make_stream(3, &sent, 1, stream + WIRE_GREETING_BYTES);
    wire_reader_init(&reader, body, sizeof(body), CAPACITY, PAYLOAD_MAX);
    for (size_t i = 0; i < WIRE_GREETING_BYTES - 1; i++)
        assert_int_equal(wire_reader_greet(&reader, stream + i, 1, &used, &greeting, NULL),
                         MC_PENDING);
    assert_int_equal(wire_reader_greet(&reader, stream + WIRE_GREETING_BYTES - 1,
                                       size - WIRE_GREETING_BYTES + 1, &used, &greeting, NULL),
                     MC_OK);
    assert_int_equal(used, 1); /* what comes behind it stays the caller's */
    assert_int_equal(greeting.incarnation, 77);
    assert_int_equal(wire_reader_feed(&reader, stream + WIRE_GREETING_BYTES,
                                      size - WIRE_GREETING_BYTES, &used, &frame, NULL),
                     MC_OK);
    check_frame(&frame, &sent);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_greeting_comes_back_as_it_was),
        cmocka_unit_test(test_a_greeting_with_any_bit_flipped_is_refused),
        cmocka_unit_test(test_a_greeting_that_cannot_be_is_refused),
        cmocka_unit_test(test_two_sides_speak_the_highest_version_that_both_know),
        cmocka_unit_test(test_features_are_common_ones_and_insisted_ones_must_be_on_both_sides),
        cmocka_unit_test(test_frames_come_out_whole_however_the_bytes_come),
        cmocka_unit_test(test_a_frame_with_any_bit_flipped_ends_the_connection),
        cmocka_unit_test(test_limits_hold_before_anything_is_collected),
        cmocka_unit_test(test_a_body_longer_than_the_buffer_is_taken_into_a_larger_one),
        cmocka_unit_test(test_low_flags_may_be_ignored_and_high_flags_may_not),
        cmocka_unit_test(test_a_greeting_is_collected_byte_by_byte_and_frames_follow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
