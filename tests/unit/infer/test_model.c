/* test_model.c - model directories opened: what is in them, and what failures leave behind. */
#include "model_files.h"

#include <sys/resource.h>
#include <unistd.h>

#include <mooncake/infer.h>

#include "infer/model.h"

static mc_model *open_in(const char *directory, const struct mc_alloc *alloc)
{
    const struct mc_model_options options = { .alloc = alloc };
    mc_model *model = NULL;
    struct mc_error error = { 0 };

    if (mc_model_open(directory, &options, &model, &error) != MC_OK)
        fail_msg("%s: %s", directory, error.text);
    return model;
}

static const char *fixture(const char *name)
{
    char path[PATH_SIZE];

    snprintf(path, sizeof(path), "models/%s", name);
    return test_data(path);
}

static void test_the_files_say_what_the_model_is(void **state)
{
    (void)state;
    mc_model *model = open_in(fixture("plain"), NULL);
    struct mc_model_info info;

    mc_model_info(model, &info);
    assert_string_equal(info.name, "plain");
    assert_string_equal(info.architecture, "LlamaForCausalLM");
    assert_int_equal(info.layers, 2);
    assert_int_equal(info.hidden, 16);
    assert_int_equal(info.heads, 4);
    assert_int_equal(info.kv_heads, 2);
    assert_int_equal(info.head_dim, 4);
    assert_int_equal(info.vocab_size, 264);
    assert_int_equal(info.context_max, 64);
    assert_int_equal(info.dtype, MC_DTYPE_BF16);
    const uint64_t layer = 2 * 16 + 2 * 16 * 16 + 2 * 8 * 16 + 3 * 24 * 16;
    assert_int_equal(info.parameters, 2 * 264 * 16 + 2 * layer + 16);
    assert_int_equal(info.weight_bytes, 2 * info.parameters);
    assert_int_equal(info.eos_count, 2); /* generation_config's, not config's one */
    assert_int_equal(info.eos[0], 263);
    assert_int_equal(info.eos[1], 260);
    assert_true(info.temperature == 0.7f && info.top_p == 0.9f && info.top_k == 50);
    assert_true(info.has_tokenizer);
    assert_true(info.has_chat_template);
    assert_true(model->head.data != model->embedding.data);
    assert_null(model->copies);
    mc_model_close(model);
}

static void test_a_shared_matrix_counts_once(void **state)
{
    (void)state;
    mc_model *model = open_in(fixture("sharded"), NULL);
    struct mc_model_info info;

    mc_model_info(model, &info);
    const uint64_t layer = 2 * 16 + 2 * 8 + 2 * 32 * 16 + 2 * 16 * 16 + 3 * 24 * 16;
    assert_int_equal(info.parameters, 32 * 16 + 2 * layer + 16);
    assert_int_equal(info.weight_bytes, 4 * info.parameters);
    assert_ptr_equal(model->head.data, model->embedding.data);
    assert_int_equal(info.eos_count, 0);
    assert_false(info.has_tokenizer);
    assert_false(info.has_chat_template);
    mc_model_close(model);
}

/* The bytes of `tensor` are those that `shard` has under `name`. */
static void assert_is(const struct tensor *tensor, const struct safetensors *shard,
                      const char *name)
{
    const struct st_entry *entry = safetensors_find(shard, name);

    assert_non_null(entry);
    assert_ptr_equal(tensor->data, entry->data);
    assert_int_equal(tensor->rows, entry->shape[0]);
    assert_int_equal(tensor->cols, entry->shape[1]);
    assert_int_equal(tensor->dtype, MC_DTYPE_F32);
}

static void assert_is_vector(const float *vector, const struct safetensors *shard, const char *name)
{
    const struct st_entry *entry = safetensors_find(shard, name);

    assert_non_null(entry);
    assert_memory_equal(vector, entry->data, entry->bytes);
}

static void test_every_tensor_of_every_shard_has_its_role(void **state)
{
    (void)state;
    mc_model *model = open_in(fixture("sharded"), NULL);

    assert_int_equal(model->shard_count, 2);
    assert_is(&model->embedding, &model->shards[0], "model.embed_tokens.weight");
    assert_is_vector(model->final_norm, &model->shards[1], "model.norm.weight");
    for (uint32_t i = 0; i < 2; i++) {
        const struct safetensors *shard = &model->shards[i];
        const struct layer_weights *layer = &model->layers[i];
        char names[11][64];
        static const char *const parts[11] = {
            "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",        "self_attn.o_proj",
            "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj",           "self_attn.q_norm",
            "self_attn.k_norm", "input_layernorm",  "post_attention_layernorm"
        };
        for (size_t k = 0; k < 11; k++)
            snprintf(names[k], sizeof(names[k]), "model.layers.%u.%s.weight", i, parts[k]);
        const struct tensor *const matrices[7] = { &layer->q,    &layer->k,  &layer->v,   &layer->o,
                                                   &layer->gate, &layer->up, &layer->down };
        const float *const vectors[4] = { layer->q_norm, layer->k_norm, layer->attention_norm,
                                          layer->mlp_norm };
        for (size_t k = 0; k < 7; k++)
            assert_is(matrices[k], shard, names[k]);
        for (size_t k = 0; k < 4; k++)
            assert_is_vector(vectors[k], shard, names[7 + k]);
        assert_true(!layer->q_bias && !layer->k_bias && !layer->v_bias && !layer->o_bias);
    }
    mc_model_close(model);
}

static void test_vectors_become_f32(void **state)
{
    (void)state;
    mc_model *model = open_in(fixture("plain"), NULL);
    const struct st_entry *entry = safetensors_find(&model->shards[0], "model.norm.weight");

    for (size_t i = 0; i < 16; i++) {
        uint16_t bits;
        memcpy(&bits, (const char *)entry->data + 2 * i, 2);
        uint32_t found;
        memcpy(&found, &model->final_norm[i], 4);
        assert_int_equal(found, (uint32_t)bits << 16);
        assert_true(model->final_norm[i] > 0.5f && model->final_norm[i] < 1.5f);
    }
    mc_model_close(model);
}

static void test_matrices_that_the_file_does_not_align_are_copied(void **state)
{
    (void)state;
    char directory[64];
    mc_model *whole = open_in(fixture("plain"), NULL);

    copy_model("plain", directory);
    /* One space more in the header: every tensor begins at an odd address. */
    change_text(directory, "model.safetensors", "{\"__metadata__\"", " {\"__metadata__\"");
    change_text(directory, "model.safetensors", " {", "{ ");
    size_t size;
    char *data = load_file(directory, "model.safetensors", &size);
    assert_int_equal((unsigned char)data[0], 2104 & 0xff);
    data[0]++;
    save_file(directory, "model.safetensors", data, size);
    free_file(data);

    mc_model *model = open_in(directory, NULL);
    assert_non_null(model->copies);
    assert_int_equal((uintptr_t)model->layers[1].down.data % 2, 0);
    assert_memory_equal(model->layers[1].down.data, whole->layers[1].down.data, 2 * 16 * 24);
    assert_memory_equal(model->head.data, whole->head.data, 2 * 264 * 16);
    assert_memory_equal(model->layers[0].mlp_norm, whole->layers[0].mlp_norm, 4 * 16);
    mc_model_close(model);
    mc_model_close(whole);
    test_remove(directory);
}

static void test_a_model_without_a_head_is_tied_unless_it_says_otherwise(void **state)
{
    (void)state;
    char directory[64];

    copy_model("plain", directory);
    change_json(directory, "config.json", "tie_word_embeddings", NULL, NULL);
    mc_model *model = open_in(directory, NULL);
    assert_false(model->config.tied); /* there is a head */
    mc_model_close(model);

    change_json(directory, "model.safetensors", "lm_head.weight", NULL, "=extra.weight");
    model = open_in(directory, NULL);
    assert_true(model->config.tied);
    assert_ptr_equal(model->head.data, model->embedding.data);
    mc_model_close(model);
    test_remove(directory);
}

static void test_optional_files_may_be_missing(void **state)
{
    (void)state;
    static const char *const files[] = { "generation_config.json", "tokenizer_config.json",
                                         "tokenizer.json" };
    char directory[64];
    struct mc_model_info info;

    copy_model("plain", directory);
    for (size_t i = 0; i < 3; i++) {
        remove_file(directory, files[i]);
        mc_model *model = open_in(directory, NULL);
        mc_model_info(model, &info);
        assert_int_equal(info.eos_count, 1);
        assert_true(info.temperature == 1);
        assert_true(info.has_chat_template == (i < 1));
        assert_true(info.has_tokenizer == (i < 2));
        mc_model_close(model);
    }
    test_remove(directory);
}

static enum chat_family family_in(const char *directory)
{
    mc_model *model = open_in(directory, NULL);
    const enum chat_family family = model->chat.family;

    mc_model_close(model);
    return family;
}

static void test_a_chat_template_comes_from_three_places(void **state)
{
    (void)state;
    static const char jinja[] = "{% raw %}none that we know{% endraw %}";
    char directory[64];

    copy_model("plain", directory);
    assert_int_equal(family_in(directory), CHAT_LLAMA3);
    change_json(directory, "tokenizer_config.json", "chat_template", NULL,
                "[{\"name\": \"tool_use\", \"template\": \"{{ tools }}\"}]");
    assert_int_equal(family_in(directory), CHAT_NONE); /* no default among them */
    change_json(directory, "tokenizer_config.json", "chat_template", NULL,
                "[{\"name\": \"tool_use\", \"template\": \"{{ tools }}\"},"
                " {\"name\": \"default\", \"template\": \"{{ unheard_of }}\"}]");
    assert_int_equal(family_in(directory), CHAT_OTHER);
    change_json(directory, "tokenizer_config.json", "chat_template", NULL, NULL);
    assert_int_equal(family_in(directory), CHAT_NONE);
    save_file(directory, "chat_template.jinja", jinja, strlen(jinja));
    assert_int_equal(family_in(directory), CHAT_OTHER);

    mc_model *model = NULL;
    struct mc_error error;
    save_file(directory, "chat_template.jinja", "{{ a }}\0{{ b }}", 15);
    assert_int_equal(mc_model_open(directory, NULL, &model, &error), MC_E_FORMAT);
    assert_string_equal(error.text, "chat_template.jinja: byte 7 is NUL; not a text file");
    test_remove(directory);
}

static void test_the_bos_token_is_a_text_or_an_object(void **state)
{
    (void)state;
    static const struct {
        const char *value, *bos;
    } spellings[] = {
        { "\"<s>\"", "<s>" },
        { "{\"content\": \"<t>\", \"lstrip\": false}", "<t>" },
        { "null", "" },
    };
    char directory[64];

    copy_model("plain", directory);
    for (size_t i = 0; i < 3; i++) {
        change_json(directory, "tokenizer_config.json", "bos_token", NULL, spellings[i].value);
        mc_model *model = open_in(directory, NULL);
        assert_string_equal(model->chat.bos, spellings[i].bos);
        mc_model_close(model);
    }
    test_remove(directory);
}

static void test_a_name_is_the_last_part_of_the_path(void **state)
{
    (void)state;
    char directory[64], path[PATH_SIZE], old[PATH_SIZE];

    copy_model("sharded", directory);
    const char *name = strrchr(directory, '/') + 1;
    snprintf(path, sizeof(path), "%s///", directory);
    mc_model *model = open_in(path, NULL);
    assert_string_equal(model->name, name);
    mc_model_close(model);

    assert_non_null(getcwd(old, sizeof(old)));
    assert_int_equal(chdir(directory), 0);
    model = open_in(".", NULL);
    assert_string_equal(model->name, name);
    mc_model_close(model);
    assert_int_equal(chdir(old), 0);
    test_remove(directory);
}

static void test_the_model_that_comes_with_the_program_opens(void **state)
{
    (void)state;
    mc_model *model = open_in(test_data("../../models/tiny-random"), NULL);
    struct mc_model_info info;

    mc_model_info(model, &info);
    assert_int_equal(info.parameters, 854144);
    assert_true(info.has_tokenizer && info.has_chat_template);
    assert_int_equal(info.context_max, 4096);
    mc_model_close(model);
}

/* ---------------------------------------------------------------------------------- failure sweeps */

/* Open `directory` with the k-th allocation failing, for every k. Returns how many there are. */
static long sweep(const char *directory)
{
    for (long k = 0;; k++) {
        struct faulty f;
        mc_model *model = NULL;
        struct mc_error error = { 0 };
        faulty_init(&f, k);
        const struct mc_model_options options = { .alloc = &f.alloc };
        const mc_status status = mc_model_open(directory, &options, &model, &error);
        mc_model_close(model);
        assert_int_equal(f.held, 0);
        if (f.calls <= k) {
            assert_int_equal(status, MC_OK);
            return k;
        }
        if (status == MC_OK)
            continue; /* PCRE2 does without its compiler */
        assert_int_equal(status, MC_E_NOMEM);
        assert_int_equal(error.status, MC_E_NOMEM);
        assert_null(model);
    }
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    (void)state;
    assert_true(sweep(fixture("plain")) > 30);
    assert_true(sweep(fixture("sharded")) > 30);
}

/* jansson's allocator belongs to the process. */
static struct faulty jansson_faulty;

static void *json_alloc(size_t size)
{
    return jansson_faulty.alloc.alloc(&jansson_faulty, size);
}

static void json_release(void *p)
{
    jansson_faulty.alloc.free(&jansson_faulty, p);
}

/* Every seventh only: there are thousands, most of them alike. */
static void test_failed_allocations_of_the_json_library_leave_nothing_behind(void **state)
{
    (void)state;
    json_malloc_t old_alloc;
    json_free_t old_free;

    json_get_alloc_funcs(&old_alloc, &old_free);
    for (long k = 0;; k += 7) {
        struct faulty f;
        mc_model *model = NULL;
        struct mc_error error = { 0 };
        faulty_init(&f, -1);
        faulty_init(&jansson_faulty, k);
        jansson_faulty.fail_after = true;
        const struct mc_model_options options = { .alloc = &f.alloc };
        json_set_alloc_funcs(json_alloc, json_release);
        const mc_status status = mc_model_open(fixture("sharded"), &options, &model, &error);
        json_set_alloc_funcs(old_alloc, old_free);
        mc_model_close(model);
        assert_int_equal(f.held, 0);
        assert_int_equal(jansson_faulty.held, 0);
        if (jansson_faulty.calls <= k) {
            assert_int_equal(status, MC_OK);
            return;
        }
        /* jansson drops a character that it has no memory for, and then finds the syntax wrong. */
        assert_true(status == MC_E_NOMEM || status == MC_E_FORMAT);
        assert_null(model);
    }
}

static void test_a_process_without_descriptors_gets_an_error(void **state)
{
    (void)state;
    struct rlimit old, none;
    mc_model *model = NULL;
    struct mc_error error = { 0 };

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = (struct rlimit){ .rlim_cur = 0, .rlim_max = old.rlim_max };
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    const mc_status status = mc_model_open(fixture("plain"), NULL, &model, &error);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(status, MC_E_IO);
    assert_non_null(strstr(error.text, "plain/config.json: cannot open: Too many open files"));
    assert_null(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_files_say_what_the_model_is),
        cmocka_unit_test(test_a_shared_matrix_counts_once),
        cmocka_unit_test(test_every_tensor_of_every_shard_has_its_role),
        cmocka_unit_test(test_vectors_become_f32),
        cmocka_unit_test(test_matrices_that_the_file_does_not_align_are_copied),
        cmocka_unit_test(test_a_model_without_a_head_is_tied_unless_it_says_otherwise),
        cmocka_unit_test(test_optional_files_may_be_missing),
        cmocka_unit_test(test_a_chat_template_comes_from_three_places),
        cmocka_unit_test(test_the_bos_token_is_a_text_or_an_object),
        cmocka_unit_test(test_a_name_is_the_last_part_of_the_path),
        cmocka_unit_test(test_the_model_that_comes_with_the_program_opens),
        cmocka_unit_test(test_every_failed_allocation_leaves_nothing_behind),
        cmocka_unit_test(test_a_process_without_descriptors_gets_an_error),
        cmocka_unit_test(test_failed_allocations_of_the_json_library_leave_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
