/* test_push_plan.c - every byte of a prompt's pages is pushed once, whoever is fast or slow. */
#include "test.h"

#include "base/prng.h"
#include "worker/core/push_plan.h"

enum { LAYERS = 5, PAGE = 16, LAYER_BYTES = 192, PAGE_BYTES = LAYERS * LAYER_BYTES };

static const struct push_layout layout = { LAYERS, PAGE, LAYER_BYTES };

static void test_one_layer_of_one_chunk_is_one_strided_transfer(void **state)
{
    (void)state;
    static const struct {
        struct push_span span;
        struct push_piece piece;
    } cases[] = {
        { { 0, 16, 0, 1 }, { 0, 1, 0, 192, 0, 960 } },
        { { 0, 16, 4, 1 }, { 0, 1, 768, 192, 768, 960 } },
        { { 32, 96, 2, 1 }, { 2, 4, 384, 192, 2 * 960 + 384, 960 } },
        { { 32, 33, 0, 5 }, { 2, 1, 0, 960, 2 * 960, 960 } }, /* part of a page moves whole */
        { { 16, 50, 1, 3 }, { 1, 3, 192, 576, 960 + 192, 960 } },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct push_piece piece = push_piece_of(&layout, &cases[i].span);
        assert_int_equal(piece.first_page, cases[i].piece.first_page);
        assert_int_equal(piece.page_count, cases[i].piece.page_count);
        assert_int_equal(piece.local_offset, cases[i].piece.local_offset);
        assert_int_equal(piece.length, cases[i].piece.length);
        assert_int_equal(piece.remote_offset, cases[i].piece.remote_offset);
        assert_int_equal(piece.remote_stride, cases[i].piece.remote_stride);
    }
}

static void assert_next(struct push_cursor *c, struct push_ready ready, struct push_span expected)
{
    struct push_span span;

    assert_true(push_next(c, &ready, &layout, 4, &span));
    assert_int_equal(span.begin, expected.begin);
    assert_int_equal(span.end, expected.end);
    assert_int_equal(span.layer, expected.layer);
    assert_int_equal(span.layer_count, expected.layer_count);
}

static void assert_none(struct push_cursor *c, struct push_ready ready)
{
    struct push_span span;

    assert_false(push_next(c, &ready, &layout, 4, &span));
}

static void test_spans_follow_the_engine_layer_by_layer(void **state)
{
    (void)state;
    struct push_cursor c = { 0 };

    assert_none(&c, (struct push_ready){ 0, 0, 0 });
    assert_none(&c, (struct push_ready){ 0, 32, 0 });
    assert_next(&c, (struct push_ready){ 0, 32, 1 }, (struct push_span){ 0, 32, 0, 1 });
    assert_none(&c, (struct push_ready){ 0, 32, 1 });
    assert_next(&c, (struct push_ready){ 0, 32, 3 }, (struct push_span){ 0, 32, 1, 2 });
    assert_next(&c, (struct push_ready){ 32, 32, 0 }, (struct push_span){ 0, 32, 3, 2 });
    assert_true(push_complete(&c, 32));
    assert_false(push_complete(&c, 33));
    assert_next(&c, (struct push_ready){ 32, 40, 4 }, (struct push_span){ 32, 40, 0, 4 });
    assert_false(push_complete(&c, 32));
    assert_next(&c, (struct push_ready){ 40, 40, 0 }, (struct push_span){ 32, 40, 4, 1 });
    assert_true(push_complete(&c, 40));
}

static void test_what_was_pulled_goes_as_whole_pages_in_bounded_spans(void **state)
{
    (void)state;
    const struct push_ready ready = { 16 * 10, 16 * 12, 2 };
    struct push_cursor c = { 0 };

    assert_next(&c, ready, (struct push_span){ 0, 64, 0, 5 });
    assert_next(&c, ready, (struct push_span){ 64, 128, 0, 5 });
    assert_next(&c, ready, (struct push_span){ 128, 160, 0, 5 });
    assert_next(&c, ready, (struct push_span){ 160, 192, 0, 2 });
    assert_none(&c, ready);
}

/* Random chunks, random lag: what is pushed covers every layer of every page once, and nothing before it
 * was computed. */
static void test_every_byte_is_pushed_once_and_none_too_early(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 300; seed++) {
        struct prng prng = { .seed = seed };
        const uint32_t tokens = 1 + prng_below(&prng, 400), pages = (tokens + PAGE - 1) / PAGE;
        uint8_t pushed[25][LAYERS] = { 0 };
        struct push_cursor c = { 0 };
        struct push_ready ready = { 0 };

        ready.done = ready.chunk_end = prng_below(&prng, tokens / PAGE + 1) / 2 * PAGE;
        while (!push_complete(&c, tokens)) {
            struct push_span span;
            if (ready.done < tokens && prng_below(&prng, 3) > 0) { /* the engine goes on */
                if (ready.chunk_end == ready.done) {
                    const uint32_t chunk = ready.done + PAGE * (1 + prng_below(&prng, 6));
                    ready.chunk_end = chunk < tokens ? chunk : tokens;
                    ready.chunk_layers = 0;
                } else if (++ready.chunk_layers == LAYERS)
                    ready = (struct push_ready){ ready.chunk_end, ready.chunk_end, 0 };
            }
            if (prng_below(&prng, 2) == 0 || !push_next(&c, &ready, &layout, 4, &span))
                continue;
            assert_true(span.end <= ready.done ||
                        (span.begin >= ready.done && span.end <= ready.chunk_end &&
                         span.layer + span.layer_count <= ready.chunk_layers));
            const struct push_piece piece = push_piece_of(&layout, &span);
            for (uint32_t i = 0; i < piece.page_count; i++)
                for (uint64_t at = 0; at < piece.length; at += LAYER_BYTES) {
                    const uint64_t remote = piece.remote_offset + i * piece.remote_stride + at;
                    assert_int_equal(remote / PAGE_BYTES, piece.first_page + i);
                    assert_int_equal(remote % PAGE_BYTES, piece.local_offset + at);
                    pushed[remote / PAGE_BYTES][remote % PAGE_BYTES / LAYER_BYTES]++;
                }
        }
        for (uint32_t page = 0; page < pages; page++)
            for (uint32_t layer = 0; layer < LAYERS; layer++)
                assert_int_equal(pushed[page][layer], 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_layer_of_one_chunk_is_one_strided_transfer),
        cmocka_unit_test(test_spans_follow_the_engine_layer_by_layer),
        cmocka_unit_test(test_what_was_pulled_goes_as_whole_pages_in_bounded_spans),
        cmocka_unit_test(test_every_byte_is_pushed_once_and_none_too_early),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
