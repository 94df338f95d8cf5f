/* test_layout.c - a page is tiled exactly: every byte belongs to one (layer, part, token). */
#include "test.h"

#include "kv/layout.h"

static const struct mc_kv_layout layouts[] = {
    { .layers = 1, .kv_heads = 1, .head_dim = 2, .page_tokens = 16, .dtype = MC_DTYPE_BF16 },
    { .layers = 3, .kv_heads = 2, .head_dim = 8, .page_tokens = 16, .dtype = MC_DTYPE_F32 },
    { .layers = 2, .kv_heads = 4, .head_dim = 16, .page_tokens = 16, .dtype = MC_DTYPE_BF16 },
};

static void test_offsets_rise_in_the_drawn_order_and_tile_the_page(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
        const struct mc_kv_layout *l = &layouts[i];
        const size_t element = l->dtype == MC_DTYPE_F32 ? 4 : 2;
        size_t expected = 0;

        for (uint32_t layer = 0; layer < l->layers; layer++)
            for (int part = KV_KEY; part <= KV_VALUE; part++)
                for (uint32_t token = 0; token < l->page_tokens; token++) {
                    assert_int_equal(kv_offset(l, layer, (enum kv_part)part, token), expected);
                    expected += (size_t)l->kv_heads * l->head_dim * element;
                }
        assert_int_equal(mc_kv_page_bytes(l), expected);
    }
}

static void test_offsets_beyond_four_gigabytes_do_not_wrap(void **state)
{
    (void)state;
    const struct mc_kv_layout l = {
        .layers = 1024, .kv_heads = 1024, .head_dim = 512, .page_tokens = 16, .dtype = MC_DTYPE_F32
    };

    assert_true(kv_token_bytes(&l) == (size_t)1 << 21);
    assert_true(mc_kv_page_bytes(&l) == (size_t)1 << 36);
    assert_true(kv_offset(&l, 1023, KV_VALUE, 15) == ((size_t)1 << 36) - ((size_t)1 << 21));
}

static void test_pages_round_up_and_do_not_wrap(void **state)
{
    (void)state;
    assert_int_equal(kv_pages(0), 0);
    assert_int_equal(kv_pages(1), 1);
    assert_int_equal(kv_pages(16), 1);
    assert_int_equal(kv_pages(17), 2);
    assert_int_equal(kv_pages(UINT32_MAX), 1u << 28);
}

static void test_an_element_has_the_bytes_of_its_type(void **state)
{
    (void)state;
    assert_int_equal(kv_element_bytes(MC_DTYPE_F32), sizeof(float));
    assert_int_equal(kv_element_bytes(MC_DTYPE_BF16), sizeof(uint16_t));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_offsets_rise_in_the_drawn_order_and_tile_the_page),
        cmocka_unit_test(test_offsets_beyond_four_gigabytes_do_not_wrap),
        cmocka_unit_test(test_pages_round_up_and_do_not_wrap),
        cmocka_unit_test(test_an_element_has_the_bytes_of_its_type),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
