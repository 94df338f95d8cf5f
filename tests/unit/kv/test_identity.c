/*
 * test_identity.c - known answers of the block chain, and what must and must not change them.
 *
 * The answers were made with Python's hashlib from the description in identity.h.
 */
#include "test.h"

#include <stdio.h>

#include "kv/identity.h"

static const char *hex(const struct mc_identity *identity)
{
    static char text[65];

    for (size_t i = 0; i < sizeof(identity->bytes); i++)
        snprintf(text + 2 * i, 3, "%02x", identity->bytes[i]);
    return text;
}

static struct mc_identity counting_fingerprint(void)
{
    struct mc_identity fingerprint;

    for (size_t i = 0; i < sizeof(fingerprint.bytes); i++)
        fingerprint.bytes[i] = (uint8_t)i;
    return fingerprint;
}

static struct mc_identity default_root(void)
{
    const struct mc_identity fingerprint = counting_fingerprint();
    struct mc_identity root;

    kv_root(&fingerprint, "default", 7, NULL, 0, &root);
    return root;
}

static void some_tokens(uint32_t *tokens, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        tokens[i] = i * 7919;
    tokens[0] = UINT32_MAX;
}

static void test_chains_have_their_known_answers(void **state)
{
    (void)state;
    static const char *const answers[] = {
        "20c3c8b2a85c70f83e219dc8eeb1fb904ff2d20ee032618d5e7dfee625cada06",
        "38f9170c6d81b4e5a7b18250a3b592b44f736224bd3ad4c99de636fd3dcf4dbd",
        "321b8d0e4a05b06e25f0c107d4f2d78f5c2837b8053dd8436760b4ff65badab2",
    };
    const struct mc_identity root = default_root();
    struct mc_identity blocks[4];
    uint32_t tokens[48];

    assert_string_equal(hex(&root),
                        "b82d61883ca6bffb70a81048b3dacb5b4aab997f622761e1120f3d32ebad2caf");
    some_tokens(tokens, 48);
    assert_int_equal(kv_identities(&root, tokens, 48, blocks, 4), 3);
    for (size_t i = 0; i < 3; i++)
        assert_string_equal(hex(&blocks[i]), answers[i]);

    const struct mc_key key = kv_key(&blocks[2]);
    assert_memory_equal(key.bytes, blocks[2].bytes, 16);
}

static void test_only_whole_blocks_that_fit_are_named(void **state)
{
    (void)state;
    const struct mc_identity root = default_root();
    struct mc_identity blocks[3] = { 0 }, one = { 0 };
    const struct mc_identity zeros = { 0 };
    uint32_t tokens[47];

    some_tokens(tokens, 47);
    assert_int_equal(kv_identities(&root, tokens, 15, blocks, 3), 0);
    assert_int_equal(kv_identities(&root, tokens, 47, blocks, 3), 2);
    assert_memory_equal(&blocks[2], &zeros, sizeof(zeros));
    assert_int_equal(kv_identities(&root, tokens, 47, &one, 1), 1);
    assert_memory_equal(&one, &blocks[0], sizeof(one));
}

static void test_salt_tenant_and_their_border_change_the_root(void **state)
{
    (void)state;
    const struct mc_identity fingerprint = counting_fingerprint();
    struct mc_identity root = default_root(), other;

    kv_root(&fingerprint, "default", 7, "salt", 4, &other);
    assert_string_equal(hex(&other),
                        "253b18509730bc5adb6cbcd9e18772264a66d42e3c46c526e440d1b2dba58201");
    kv_root(&fingerprint, "defaul", 6, "t", 1, &other);
    assert_memory_not_equal(&root, &other, sizeof(root));
    kv_root(&fingerprint, "", 0, "default", 7, &other);
    assert_memory_not_equal(&root, &other, sizeof(root));
}

static void test_one_token_changes_its_block_and_all_behind(void **state)
{
    (void)state;
    const struct mc_identity root = default_root();
    struct mc_identity before[3], after[3];
    uint32_t tokens[48];

    some_tokens(tokens, 48);
    kv_identities(&root, tokens, 48, before, 3);
    tokens[20] ^= 1;
    kv_identities(&root, tokens, 48, after, 3);
    assert_memory_equal(&before[0], &after[0], sizeof(before[0]));
    assert_memory_not_equal(&before[1], &after[1], sizeof(before[0]));
    assert_memory_not_equal(&before[2], &after[2], sizeof(before[0]));
}

static const uint64_t shape_a[] = { 3, 5 }, shape_b[] = { 7 };
static const struct kv_tensor tensors[] = {
    { "a", "BF16", shape_a, 2, 0x12345678 },
    { "b", "F32", shape_b, 1, 0 },
};

static struct kv_model small_model(void)
{
    return (struct kv_model){
        .tensors = tensors,
        .tensor_count = 2,
        .config = "{}",
        .config_size = 2,
        .layout = { .layers = 2,
                    .kv_heads = 4,
                    .head_dim = 64,
                    .page_tokens = 16,
                    .dtype = MC_DTYPE_F32 },
        .kernel = "avx2",
    };
}

static void test_fingerprints_have_their_known_answers(void **state)
{
    (void)state;
    struct kv_model model = small_model();
    struct mc_identity fingerprint;

    static const char *const same[] = { "ref", "avx2", "avx512" };
    for (size_t i = 0; i < 3; i++) {
        model.kernel = same[i];
        assert_int_equal(kv_fingerprint(&model, &fingerprint), MC_OK);
        assert_string_equal(hex(&fingerprint),
                            "9cc0397d4908c2ed3b8dd9aa3a24399edcccf7ae93f82ebbcd87aac05f476025");
    }
    model.kernel = "avx512-bf16";
    assert_int_equal(kv_fingerprint(&model, &fingerprint), MC_OK);
    assert_string_equal(hex(&fingerprint),
                        "f06afae0b35ce9ee56835b96c4babe2d58c7a7e267d8880352867f715a370943");
}

static void test_everything_that_bytes_depend_on_changes_the_fingerprint(void **state)
{
    (void)state;
    struct mc_identity seen[12];
    size_t count = 0;

    for (size_t change = 0; change < 12; change++) {
        struct kv_model model = small_model();
        struct kv_tensor changed[2] = { tensors[0], tensors[1] };
        const uint64_t shape[] = { 5, 3 };

        model.tensors = changed;
        switch (change) {
        case 1:
            changed[0].crc++;
            break;
        case 2:
            changed[0].name = "A";
            break;
        case 3:
            changed[1].dtype = "F16";
            break;
        case 4:
            changed[0].shape = shape;
            break;
        case 5:
            changed[0].dimensions = 1;
            break;
        case 6:
            model.tensor_count = 1;
            break;
        case 7:
            model.config = "[]";
            break;
        case 8:
            model.layout.dtype = MC_DTYPE_BF16;
            break;
        case 9:
            model.layout.kv_heads = 8;
            break;
        case 10:
            model.layout.layers = 3;
            break;
        case 11:
            model.kernel = "other";
            break;
        default:
            break;
        }
        assert_int_equal(kv_fingerprint(&model, &seen[count]), MC_OK);
        for (size_t i = 0; i < count; i++)
            assert_memory_not_equal(&seen[i], &seen[count], sizeof(seen[0]));
        count++;
    }
}

static void test_tensors_out_of_order_are_refused(void **state)
{
    (void)state;
    struct kv_model model = small_model();
    struct kv_tensor wrong[2] = { tensors[1], tensors[0] };
    struct mc_identity fingerprint = { { 1 } };

    model.tensors = wrong;
    assert_int_equal(kv_fingerprint(&model, &fingerprint), MC_E_ARG);
    wrong[1] = wrong[0];
    assert_int_equal(kv_fingerprint(&model, &fingerprint), MC_E_ARG);
    wrong[0].name = NULL;
    assert_int_equal(kv_fingerprint(&model, &fingerprint), MC_E_ARG);
    model = small_model();
    model.kernel = NULL;
    assert_int_equal(kv_fingerprint(&model, &fingerprint), MC_E_ARG);
    assert_int_equal(fingerprint.bytes[0], 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chains_have_their_known_answers),
        cmocka_unit_test(test_only_whole_blocks_that_fit_are_named),
        cmocka_unit_test(test_salt_tenant_and_their_border_change_the_root),
        cmocka_unit_test(test_one_token_changes_its_block_and_all_behind),
        cmocka_unit_test(test_fingerprints_have_their_known_answers),
        cmocka_unit_test(test_everything_that_bytes_depend_on_changes_the_fingerprint),
        cmocka_unit_test(test_tensors_out_of_order_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
