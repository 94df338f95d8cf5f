/* test_config.c - what config.json means, and what is refused with which words. */
#include "test.h"

#include <jansson.h>

#include "infer/config.h"

static const char llama[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 64,"
    " \"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"num_key_value_heads\": 2,"
    " \"intermediate_size\": 128, \"vocab_size\": 512, \"max_position_embeddings\": 4096,"
    " \"rms_norm_eps\": 1e-5, \"hidden_act\": \"silu\"}";

/* `llama` with the fields of `patch` laid over it; freed with free(). */
static char *patched(const char *patch)
{
    json_t *base = json_loads(llama, 0, NULL), *over = json_loads(patch, 0, NULL);

    assert_non_null(base);
    assert_non_null(over);
    assert_int_equal(json_object_update(base, over), 0);
    char *text = json_dumps(base, 0);
    json_decref(base);
    json_decref(over);
    return text;
}

static mc_status parse(const char *patch, struct model_config *config, struct mc_error *error)
{
    char *text = patched(patch);
    const mc_status status = config_parse(text, strlen(text), "config.json", config, error);

    free(text);
    return status;
}

static struct model_config good(const char *patch)
{
    struct model_config config;
    struct mc_error error = { 0 };

    if (parse(patch, &config, &error) != MC_OK)
        fail_msg("%s: %s", patch, error.text);
    return config;
}

static void test_fields_that_are_absent_have_the_family_s_defaults(void **state)
{
    (void)state;
    const struct model_config c = good("{}");

    assert_int_equal(c.architecture, ARCH_LLAMA);
    assert_int_equal(c.hidden, 64);
    assert_int_equal(c.layers, 2);
    assert_int_equal(c.heads, 4);
    assert_int_equal(c.kv_heads, 2);
    assert_int_equal(c.head_dim, 16);
    assert_int_equal(c.intermediate, 128);
    assert_int_equal(c.vocab_size, 512);
    assert_int_equal(c.context_max, 4096);
    assert_true(c.norm_eps == 1e-5f);
    assert_true(c.rope_theta == 10000);
    assert_int_equal(c.rope.kind, ROPE_PLAIN);
    assert_false(c.tied || c.untied || c.qkv_bias || c.o_bias || c.qk_norm);
    assert_int_equal(c.eos_count, 0);
    assert_int_equal(c.bos, UINT32_MAX);
    assert_true(c.temperature == 1 && c.top_p == 1 && c.top_k == 0);
}

static void test_each_family_has_its_parts(void **state)
{
    (void)state;
    struct model_config c = good("{\"attention_bias\": true, \"tie_word_embeddings\": false}");
    assert_true(c.qkv_bias && c.o_bias && !c.qk_norm && c.untied && !c.tied);

    c = good("{\"architectures\": [\"Qwen2ForCausalLM\"], \"tie_word_embeddings\": true}");
    assert_int_equal(c.architecture, ARCH_QWEN2);
    assert_true(c.qkv_bias && !c.o_bias && !c.qk_norm && c.tied && !c.untied);

    c = good("{\"architectures\": [\"Qwen3ForCausalLM\"]}");
    assert_int_equal(c.architecture, ARCH_QWEN3);
    assert_true(!c.qkv_bias && !c.o_bias && c.qk_norm);
    assert_int_equal(c.head_dim, 128); /* the family's default, whatever hidden / heads is */
    assert_int_equal(
        good("{\"architectures\": null, \"model_type\": \"qwen3\", \"head_dim\": 32}").head_dim,
        32);
    assert_string_equal(config_architecture_name(ARCH_QWEN2), "Qwen2ForCausalLM");
}

static void test_both_spellings_of_rope_are_read(void **state)
{
    (void)state;
    static const char *const spellings[] = {
        "{\"rope_theta\": 500000, \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8,"
        " \"low_freq_factor\": 1, \"high_freq_factor\": 4, \"original_max_position_embeddings\": "
        "64}}",
        "{\"rope_theta\": 500000, \"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8.0,"
        " \"low_freq_factor\": 1, \"high_freq_factor\": 4, \"original_max_position_embeddings\": "
        "64}}",
        "{\"rope_parameters\": {\"rope_theta\": 5e5, \"rope_type\": \"llama3\", \"factor\": 8,"
        " \"low_freq_factor\": 1, \"high_freq_factor\": 4, \"original_max_position_embeddings\": "
        "64}}",
        "{\"rope_scaling\": {}, \"rope_theta\": 1, \"rope_parameters\": {\"rope_theta\": 5e5,"
        " \"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1, \"high_freq_factor\": "
        "4,"
        " \"original_max_position_embeddings\": 64}}",
    };
    for (size_t i = 0; i < sizeof(spellings) / sizeof(*spellings); i++) {
        const struct model_config c = good(spellings[i]);
        assert_int_equal(c.rope.kind, ROPE_LLAMA3);
        assert_true(c.rope_theta == 500000);
        assert_true(c.rope.factor == 8 && c.rope.low_freq == 1 && c.rope.high_freq == 4);
        assert_true(c.rope.original_context_max == 64);
    }
    const struct model_config c =
        good("{\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.5}}");
    assert_int_equal(c.rope.kind, ROPE_LINEAR);
    assert_true(c.rope.factor == 2.5);
    assert_int_equal(good("{\"rope_scaling\": {\"rope_type\": \"default\"}}").rope.kind,
                     ROPE_PLAIN);
}

/* config.json of Llama 3.2 1B, Qwen2.5 0.5B Instruct and Qwen3 0.6B, as they are published. */
static void test_published_configurations_are_read(void **state)
{
    (void)state;
    static const char *const files[] = {
        "{\"architectures\": [\"LlamaForCausalLM\"], \"attention_bias\": false,"
        " \"attention_dropout\": 0.0, \"bos_token_id\": 128000,"
        " \"eos_token_id\": [128001, 128008, 128009], \"head_dim\": 64, \"hidden_act\": \"silu\","
        " \"hidden_size\": 2048, \"initializer_range\": 0.02, \"intermediate_size\": 8192,"
        " \"max_position_embeddings\": 131072, \"mlp_bias\": false, \"model_type\": \"llama\","
        " \"num_attention_heads\": 32, \"num_hidden_layers\": 16, \"num_key_value_heads\": 8,"
        " \"pretraining_tp\": 1, \"rms_norm_eps\": 1e-05, \"rope_scaling\": {\"factor\": 32.0,"
        " \"high_freq_factor\": 4.0, \"low_freq_factor\": 1.0,"
        " \"original_max_position_embeddings\": 8192, \"rope_type\": \"llama3\"},"
        " \"rope_theta\": 500000.0, \"tie_word_embeddings\": true, \"torch_dtype\": \"bfloat16\","
        " \"transformers_version\": \"4.45.0\", \"use_cache\": true, \"vocab_size\": 128256}",
        "{\"architectures\": [\"Qwen2ForCausalLM\"], \"attention_dropout\": 0.0,"
        " \"bos_token_id\": 151643, \"eos_token_id\": 151645, \"hidden_act\": \"silu\","
        " \"hidden_size\": 896, \"initializer_range\": 0.02, \"intermediate_size\": 4864,"
        " \"max_position_embeddings\": 32768, \"max_window_layers\": 21, \"model_type\": \"qwen2\","
        " \"num_attention_heads\": 14, \"num_hidden_layers\": 24, \"num_key_value_heads\": 2,"
        " \"rms_norm_eps\": 1e-06, \"rope_theta\": 1000000.0, \"sliding_window\": 32768,"
        " \"tie_word_embeddings\": true, \"torch_dtype\": \"bfloat16\", \"use_cache\": true,"
        " \"use_sliding_window\": false, \"vocab_size\": 151936}",
        "{\"architectures\": [\"Qwen3ForCausalLM\"], \"attention_bias\": false,"
        " \"attention_dropout\": 0.0, \"bos_token_id\": 151643, \"eos_token_id\": 151645,"
        " \"head_dim\": 128, \"hidden_act\": \"silu\", \"hidden_size\": 1024,"
        " \"intermediate_size\": 3072, \"max_position_embeddings\": 40960,"
        " \"max_window_layers\": 28, \"model_type\": \"qwen3\", \"num_attention_heads\": 16,"
        " \"num_hidden_layers\": 28, \"num_key_value_heads\": 8, \"rms_norm_eps\": 1e-06,"
        " \"rope_scaling\": null, \"rope_theta\": 1000000, \"sliding_window\": null,"
        " \"tie_word_embeddings\": true, \"torch_dtype\": \"bfloat16\", \"use_cache\": true,"
        " \"use_sliding_window\": false, \"vocab_size\": 151936}",
    };
    static const struct {
        enum architecture architecture;
        uint32_t head_dim, eos_count, context_max;
    } expected[] = {
        { ARCH_LLAMA, 64, 3, 131072 },
        { ARCH_QWEN2, 64, 1, 32768 },
        { ARCH_QWEN3, 128, 1, 40960 },
    };
    for (size_t i = 0; i < 3; i++) {
        struct model_config c;
        struct mc_error error = { 0 };
        if (config_parse(files[i], strlen(files[i]), "config.json", &c, &error) != MC_OK)
            fail_msg("%s", error.text);
        assert_int_equal(c.architecture, expected[i].architecture);
        assert_int_equal(c.head_dim, expected[i].head_dim);
        assert_int_equal(c.eos_count, expected[i].eos_count);
        assert_int_equal(c.context_max, expected[i].context_max);
        assert_true(c.tied);
    }
}

static void test_a_window_that_is_switched_off_is_no_obstacle(void **state)
{
    (void)state;
    good("{\"sliding_window\": 4096, \"use_sliding_window\": false, \"max_window_layers\": 0}");
    good("{\"sliding_window\": 4096, \"use_sliding_window\": true, \"max_window_layers\": 2}");
    good("{\"sliding_window\": null, \"use_sliding_window\": true, \"max_window_layers\": 0}");
    good("{\"layer_types\": [\"full_attention\", \"full_attention\"]}");
}

static void test_generation_config_lies_over_config(void **state)
{
    (void)state;
    struct model_config c = good("{\"eos_token_id\": 7, \"bos_token_id\": 1}");
    assert_int_equal(c.eos_count, 1);
    assert_int_equal(c.eos[0], 7);
    assert_int_equal(c.bos, 1);

    static const char over[] =
        "{\"eos_token_id\": [5, 6], \"temperature\": 0.5, \"top_p\": 0.25, \"top_k\": 20,"
        " \"model_max_length\": 1000000000000000019884624838656}";
    assert_int_equal(config_parse_generation(over, strlen(over), "g", &c, NULL), MC_OK);
    assert_int_equal(c.eos_count, 2);
    assert_int_equal(c.eos[0], 5);
    assert_int_equal(c.eos[1], 6);
    assert_true(c.temperature == 0.5f && c.top_p == 0.25f && c.top_k == 20);

    assert_int_equal(config_parse_generation("{}", 2, "g", &c, NULL), MC_OK);
    assert_int_equal(c.eos_count, 2); /* what it does not say stays */
    assert_int_equal(c.top_k, 20);
}

static void test_a_failed_parse_leaves_its_output_alone(void **state)
{
    (void)state;
    struct model_config c = good("{\"eos_token_id\": 7}"), before = c;
    static const char bad[] = "{\"eos_token_id\": [1, 2], \"top_k\": -1}";
    struct mc_error error;

    assert_int_equal(
        config_parse_generation(bad, strlen(bad), "generation_config.json", &c, &error),
        MC_E_RANGE);
    assert_string_equal(error.text,
                        "generation_config.json: top_k: -1 is not within 0 to 2147483647");
    assert_memory_equal(&c, &before, sizeof(c));
    assert_int_equal(parse("{\"hidden_size\": 0}", &c, &error), MC_E_RANGE);
    assert_memory_equal(&c, &before, sizeof(c));
}

static const struct refusal {
    const char *patch;
    mc_status status;
    const char *words; /* the text is "config.json: " and begins so */
} refusals[] = {
    { "{\"architectures\": [\"MixtralForCausalLM\"]}", MC_E_UNSUPPORTED,
      "architectures: MixtralForCausalLM is not supported; supported are LlamaForCausalLM" },
    { "{\"architectures\": []}", MC_E_FORMAT, "architectures: expected a list of strings" },
    { "{\"architectures\": [5]}", MC_E_FORMAT, "architectures: expected a list of strings" },
    { "{\"architectures\": \"LlamaForCausalLM\"}", MC_E_FORMAT, "architectures: expected a list" },
    { "{\"architectures\": null, \"model_type\": \"gpt2\"}", MC_E_UNSUPPORTED,
      "model_type: gpt2 is not supported" },
    { "{\"architectures\": null, \"model_type\": null}", MC_E_FORMAT, "architectures: missing" },
    { "{\"quantization_config\": {\"quant_method\": \"awq\"}}", MC_E_UNSUPPORTED,
      "quantization_config: awq weights are not supported" },
    { "{\"num_experts\": 8}", MC_E_UNSUPPORTED, "num_experts: mixtures of experts" },
    { "{\"num_local_experts\": 8}", MC_E_UNSUPPORTED, "num_local_experts: mixtures of experts" },
    { "{\"hidden_act\": \"gelu\"}", MC_E_UNSUPPORTED, "hidden_act: gelu is not supported" },
    { "{\"mlp_bias\": true}", MC_E_UNSUPPORTED, "mlp_bias: " },
    { "{\"mlp_bias\": 1}", MC_E_FORMAT, "mlp_bias: expected true or false, found a number" },
    { "{\"use_sliding_window\": true, \"sliding_window\": 64, \"max_window_layers\": 1}",
      MC_E_UNSUPPORTED, "use_sliding_window: sliding window attention" },
    { "{\"layer_types\": [\"full_attention\", \"sliding_attention\"]}", MC_E_UNSUPPORTED,
      "layer_types: sliding_attention is not supported" },
    { "{\"layer_types\": 3}", MC_E_FORMAT, "layer_types: expected a list, found a number" },
    { "{\"partial_rotary_factor\": 0.5}", MC_E_UNSUPPORTED, "partial_rotary_factor: 0.5" },
    { "{\"rope_parameters\": {\"partial_rotary_factor\": 0.5}}", MC_E_UNSUPPORTED,
      "rope_parameters.partial_rotary_factor: 0.5" },
    { "{\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4}}", MC_E_UNSUPPORTED,
      "rope_scaling.rope_type: yarn is not supported; default, linear and llama3 are" },
    { "{\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 4}}", MC_E_UNSUPPORTED,
      "rope_scaling.type: dynamic is not supported" },
    { "{\"rope_parameters\": {\"rope_type\": \"longrope\"}}", MC_E_UNSUPPORTED,
      "rope_parameters.rope_type: longrope is not supported" },
    { "{\"rope_parameters\": {\"full_attention\": {}}}", MC_E_UNSUPPORTED,
      "rope_parameters.full_attention: " },
    { "{\"rope_scaling\": 8}", MC_E_FORMAT, "rope_scaling: expected an object, found a number" },
    { "{\"rope_scaling\": {\"type\": \"linear\"}}", MC_E_FORMAT, "rope_scaling.factor: missing" },
    { "{\"rope_scaling\": {\"type\": \"linear\", \"factor\": 0}}", MC_E_RANGE,
      "rope_scaling.factor: 0 is not within 1 to 1000000" },
    { "{\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4,"
      " \"high_freq_factor\": 4, \"original_max_position_embeddings\": 64}}",
      MC_E_FORMAT, "rope_scaling.high_freq_factor: 4 is not above low_freq_factor 4" },
    { "{\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1,"
      " \"high_freq_factor\": 4}}",
      MC_E_FORMAT, "rope_scaling.original_max_position_embeddings: missing" },
    { "{\"rope_theta\": -1}", MC_E_RANGE, "rope_theta: -1 is not within" },
    { "{\"rope_theta\": \"big\"}", MC_E_FORMAT, "rope_theta: expected a number, found a string" },
    { "{\"hidden_size\": null}", MC_E_FORMAT, "hidden_size: missing" },
    { "{\"hidden_size\": \"64\"}", MC_E_FORMAT, "hidden_size: expected a number, found a string" },
    { "{\"hidden_size\": 64.5}", MC_E_FORMAT, "hidden_size: 64.5 is not a whole number" },
    { "{\"hidden_size\": 1e15}", MC_E_RANGE, "hidden_size: 1e+15 is not within 1 to 131072" },
    { "{\"hidden_size\": 66}", MC_E_FORMAT, "hidden_size: 66 is not a multiple of" },
    { "{\"hidden_size\": 4096}", MC_E_RANGE,
      "head_dim: hidden_size / num_attention_heads is 1024" },
    { "{\"num_hidden_layers\": 0}", MC_E_RANGE, "num_hidden_layers: 0 is not within 1 to 1024" },
    { "{\"num_hidden_layers\": 1025}", MC_E_RANGE, "num_hidden_layers: 1025 is not within" },
    { "{\"num_attention_heads\": 5000}", MC_E_RANGE, "num_attention_heads: 5000 is not within" },
    { "{\"num_key_value_heads\": 3}", MC_E_FORMAT, "num_key_value_heads: 3 does not divide" },
    { "{\"head_dim\": 15}", MC_E_FORMAT, "head_dim: 15 is odd" },
    { "{\"head_dim\": 1024}", MC_E_RANGE, "head_dim: 1024 is not within 2 to 512" },
    { "{\"intermediate_size\": -4}", MC_E_RANGE, "intermediate_size: -4 is not within" },
    { "{\"vocab_size\": 1e10}", MC_E_RANGE, "vocab_size: 10000000000 is not within" },
    { "{\"max_position_embeddings\": 1e9}", MC_E_RANGE, "max_position_embeddings: 1000000000" },
    { "{\"rms_norm_eps\": 0}", MC_E_RANGE, "rms_norm_eps: 0 is not within" },
    { "{\"tie_word_embeddings\": \"no\"}", MC_E_FORMAT, "tie_word_embeddings: expected true or" },
    { "{\"eos_token_id\": 512}", MC_E_RANGE,
      "eos_token_id: 512 is not a token id below vocab_size 512" },
    { "{\"eos_token_id\": [1, -1]}", MC_E_RANGE, "eos_token_id: -1 is not a token id" },
    { "{\"eos_token_id\": [1, \"x\"]}", MC_E_FORMAT,
      "eos_token_id: expected a token id, found a s" },
    { "{\"eos_token_id\": [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}", MC_E_RANGE,
      "eos_token_id: 17 ids; at most 16" },
    { "{\"bos_token_id\": 0.5}", MC_E_FORMAT, "bos_token_id: expected a token id" },
};

static void test_each_refusal_names_the_field_and_why(void **state)
{
    (void)state;
    static const char prefix[] = "config.json: ";

    for (size_t i = 0; i < sizeof(refusals) / sizeof(*refusals); i++) {
        const struct refusal *r = &refusals[i];
        struct model_config config;
        struct mc_error error = { 0 };
        const mc_status status = parse(r->patch, &config, &error);
        if (status != r->status || error.status != r->status ||
            strncmp(error.text, prefix, strlen(prefix)) != 0 ||
            strncmp(error.text + strlen(prefix), r->words, strlen(r->words)) != 0)
            fail_msg("%s: %s: %s", r->patch, mc_status_name(status), error.text);
    }
}

static void test_text_that_is_not_json_says_where(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } texts[] = {
        { "", "line 1" },
        { "{\"hidden_size\": 64,\n oops}", "line 2" },
        { "{\"a\": 1, \"a\": 2}", "duplicate" },
        { "[1]", "expected an object, found an array" },
        { "{\"a\": 1} trailing", "end of file expected" },
        { "{\"a\": \"\xff\"}", "unable to decode byte 0xff" },
        { "{\"a\": 1e999}", "overflow" },
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        struct model_config config;
        struct mc_error error;
        assert_int_equal(
            config_parse(texts[i].text, strlen(texts[i].text), "config.json", &config, &error),
            MC_E_FORMAT);
        if (!strstr(error.text, texts[i].words) || strncmp(error.text, "config.json: ", 13) != 0)
            fail_msg("%s: %s", texts[i].text, error.text);
    }
}

/* jansson's allocator is the process's: the k-th call fails, and all after it. */
static struct faulty jansson_faulty;

static void *json_alloc(size_t size)
{
    return jansson_faulty.alloc.alloc(&jansson_faulty, size);
}

static void json_release(void *p)
{
    jansson_faulty.alloc.free(&jansson_faulty, p);
}

static void test_every_failed_allocation_of_the_parser_leaves_nothing_behind(void **state)
{
    (void)state;
    char *text =
        patched("{\"eos_token_id\": [1, 2], \"rope_scaling\": {\"rope_type\": \"default\"}}");
    json_malloc_t old_alloc;
    json_free_t old_free;

    json_get_alloc_funcs(&old_alloc, &old_free);
    for (long k = 0;; k++) {
        struct model_config config;
        struct mc_error error;
        faulty_init(&jansson_faulty, k);
        jansson_faulty.fail_after = true;
        json_set_alloc_funcs(json_alloc, json_release);
        const mc_status status = config_parse(text, strlen(text), "config.json", &config, &error);
        json_set_alloc_funcs(old_alloc, old_free);
        assert_int_equal(jansson_faulty.held, 0);
        if (jansson_faulty.calls <= k) {
            assert_int_equal(status, MC_OK);
            assert_true(k > 20);
            break;
        }
        /* jansson drops a character that it has no memory for, and then finds the syntax wrong. */
        assert_true(status == MC_E_NOMEM || status == MC_E_FORMAT);
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields_that_are_absent_have_the_family_s_defaults),
        cmocka_unit_test(test_each_family_has_its_parts),
        cmocka_unit_test(test_both_spellings_of_rope_are_read),
        cmocka_unit_test(test_published_configurations_are_read),
        cmocka_unit_test(test_a_window_that_is_switched_off_is_no_obstacle),
        cmocka_unit_test(test_generation_config_lies_over_config),
        cmocka_unit_test(test_a_failed_parse_leaves_its_output_alone),
        cmocka_unit_test(test_each_refusal_names_the_field_and_why),
        cmocka_unit_test(test_text_that_is_not_json_says_where),
        cmocka_unit_test(test_every_failed_allocation_of_the_parser_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
