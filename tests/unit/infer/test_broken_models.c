/*
 * test_broken_models.c - model directories that are wrong in one place each: every one is refused
 * with an error that names the file and the field, and leaves nothing behind.
 */
#include "model_files.h"

#include <sys/stat.h>

#include <mooncake/infer.h>

enum what {
    JSON,   /* key (or key, inner) becomes value; NULL: goes away; "=name": is renamed */
    TEXT,   /* key becomes value in the file's bytes */
    WRITE,  /* the file is value */
    REMOVE, /* the file is not there */
    FOLDER, /* a directory is in its place */
    FIFO,   /* a pipe that nobody writes is in its place */
    CUT,    /* the file ends after its first at bytes; if at < 0, after all but the last -at */
    APPEND, /* value is behind its end */
    BYTES,  /* the first eight bytes (a header's length) are all value[0] */
    SHARDS, /* an index that names at files */
};

struct row {
    const char *model; /* which good one is broken */
    enum what what;
    const char *file, *key, *inner, *value;
    long at;
    mc_status status;
    const char *words; /* the error begins so; with "...", it contains what follows */
};

#define ST "model.safetensors"
#define ST1 "model-00001-of-00002.safetensors"
#define ST2 "model-00002-of-00002.safetensors"
#define INDEX "model.safetensors.index.json"
#define L0 "model.layers.0."
#define L1 "model.layers.1."

#define CONFIG(key, value, status, words) \
    { \
        "plain", JSON, "config.json", key, NULL, value, 0, status, words \
    }
#define HEADER(tensor, field, value, status, words) \
    { \
        "plain", JSON, ST, tensor, field, value, 0, status, words \
    }
#define MAP(tensor, value, status, words) \
    { \
        "sharded", JSON, INDEX, "weight_map", tensor, value, 0, status, words \
    }

static const struct row rows[] = {
    /* config.json: there and readable */
    { "plain", REMOVE, "config.json", 0, 0, 0, 0, MC_E_NOT_FOUND, ".../config.json: cannot open" },
    { "plain", FOLDER, "config.json", 0, 0, 0, 0, MC_E_FORMAT, ".../config.json: not a regular" },
    { "plain", FIFO, "config.json", 0, 0, 0, 0, MC_E_FORMAT,
      ".../config.json: not a regular file" },
    { "plain", CUT, "config.json", 0, 0, 0, 0, MC_E_FORMAT, "config.json: line 1" },
    { "plain", CUT, "config.json", 0, 0, 0, 100, MC_E_FORMAT,
      "config.json: line 7, column 3: not valid JSON: premature end of input" },
    { "plain", WRITE, "config.json", 0, 0, "[]", 0, MC_E_FORMAT,
      "config.json: expected an object" },
    { "plain", TEXT, "config.json", "model_type", 0, "hidden_size", 0, MC_E_FORMAT,
      "config.json: line 6, column 15: not valid JSON: duplicate object key" },

    /* config.json: its fields (test_config.c has all of them) */
    CONFIG("architectures", "[\"GPT2LMHeadModel\"]", MC_E_UNSUPPORTED,
           "config.json: architectures: GPT2LMHeadModel is not supported; supported are Llama"),
    CONFIG("quantization_config", "{\"quant_method\": \"gptq\"}", MC_E_UNSUPPORTED,
           "config.json: quantization_config: gptq weights are not supported"),
    CONFIG("rope_scaling", "{\"rope_type\": \"yarn\", \"factor\": 4}", MC_E_UNSUPPORTED,
           "config.json: rope_scaling.rope_type: yarn is not supported"),
    CONFIG("hidden_size", "1e300", MC_E_RANGE, "config.json: hidden_size: 1e+300 is not within"),
    CONFIG("num_hidden_layers", "4294967298", MC_E_RANGE,
           "config.json: num_hidden_layers: 4294967"),
    CONFIG("vocab_size", "-264", MC_E_RANGE, "config.json: vocab_size: -264 is not within"),
    CONFIG("max_position_embeddings", "2000000000", MC_E_RANGE,
           "config.json: max_position_embeddings: 2000000000 is not within 1 to 16777216"),
    CONFIG("num_key_value_heads", "3", MC_E_FORMAT, "config.json: num_key_value_heads: 3 does not"),
    CONFIG("eos_token_id", "264", MC_E_RANGE, "config.json: eos_token_id: 264 is not a token id"),
    CONFIG("intermediate_size", NULL, MC_E_FORMAT, "config.json: intermediate_size: missing"),

    /* config.json against the tensors */
    CONFIG("hidden_size", "32", MC_E_FORMAT,
           ST ": model.embed_tokens.weight: shape [264, 16], expected [264, 32] by config.json"),
    CONFIG("vocab_size", "300", MC_E_FORMAT,
           ST ": model.embed_tokens.weight: shape [264, 16], expected [300, 16]"),
    CONFIG("intermediate_size", "28", MC_E_FORMAT,
           ST ": " L0 "mlp.gate_proj.weight: shape [24, 16], expected [28, 16]"),
    CONFIG("num_key_value_heads", "4", MC_E_FORMAT,
           ST ": " L0 "self_attn.k_proj.weight: shape [8, 16], expected [16, 16]"),
    CONFIG("head_dim", "8", MC_E_FORMAT,
           ST ": " L0 "self_attn.q_proj.weight: shape [16, 16], expected [32, 16]"),
    CONFIG("num_hidden_layers", "3", MC_E_NOT_FOUND,
           ST ": model.layers.2.self_attn.q_proj.weight: missing"),
    CONFIG("num_hidden_layers", "1", MC_E_FORMAT,
           ST ": " L1 "input_layernorm.weight: not part of a LlamaForCausalLM of 1 layers"),
    CONFIG("attention_bias", "true", MC_E_NOT_FOUND, ST ": " L0 "self_attn.q_proj.bias: missing"),
    CONFIG("architectures", "[\"Qwen2ForCausalLM\"]", MC_E_NOT_FOUND,
           ST ": " L0 "self_attn.q_proj.bias: missing"),
    { "sharded", JSON, "config.json", "architectures", NULL, "[\"LlamaForCausalLM\"]", 0,
      MC_E_FORMAT, ST1 ": " L0 "self_attn.k_norm.weight: not part of a LlamaForCausalLM" },

    /* generation_config.json */
    { "plain", CUT, "generation_config.json", 0, 0, 0, -3, MC_E_FORMAT,
      "generation_config.json: line" },
    { "plain", JSON, "generation_config.json", "temperature", NULL, "\"hot\"", 0, MC_E_FORMAT,
      "generation_config.json: temperature: expected a number, found a string" },
    { "plain", JSON, "generation_config.json", "top_p", NULL, "1.5", 0, MC_E_RANGE,
      "generation_config.json: top_p: 1.5 is not within 0 to 1" },
    { "plain", JSON, "generation_config.json", "eos_token_id", NULL, "[1000]", 0, MC_E_RANGE,
      "generation_config.json: eos_token_id: 1000 is not a token id below vocab_size 264" },
    { "plain", FOLDER, "generation_config.json", 0, 0, 0, 0, MC_E_FORMAT,
      ".../generation_config.json: not a regular file" },

    /* model.safetensors: the file and its header's length */
    { "plain", REMOVE, ST, 0, 0, 0, 0, MC_E_NOT_FOUND, "...neither " ST " nor " INDEX },
    { "plain", FOLDER, ST, 0, 0, 0, 0, MC_E_FORMAT, ".../" ST ": not a regular file" },
    { "plain", CUT, ST, 0, 0, 0, 0, MC_E_FORMAT,
      ST ": 0 bytes, too short for the header's length" },
    { "plain", CUT, ST, 0, 0, 0, 7, MC_E_FORMAT,
      ST ": 7 bytes, too short for the header's length" },
    { "plain", CUT, ST, 0, 0, 0, 500, MC_E_FORMAT,
      ST ": header: length 2104 runs past the file's" },
    { "plain", CUT, ST, 0, 0, 0, -1, MC_E_FORMAT, ST ": lm_head.weight: data_offsets: [" },
    { "plain", APPEND, ST, 0, 0, "x", 0, MC_E_FORMAT, ST ": 24737 bytes of data, but the tensors" },
    { "plain", BYTES, ST, 0, 0, "\xff", 0, MC_E_RANGE, ST ": header: length 18446744073709551615" },
    { "plain", BYTES, ST, 0, 0, "\x01", 0, MC_E_RANGE,
      ST ": header: length 72340172838076673; at" },

    /* its header */
    { "plain", TEXT, ST, "{\"__metadata__", 0, "x\"__metadata__", 0, MC_E_FORMAT,
      ST ": header: does not begin with {" },
    { "plain", TEXT, ST, "\"shape\"", 0, "'shape'", 0, MC_E_FORMAT, ST ": header: line 1, column" },
    { "plain", TEXT, ST, "layers.0.mlp.up_proj", 0, "layers.1.mlp.up_proj", 0, MC_E_FORMAT,
      ST ": header: line 1, column 1776: not valid JSON: duplicate object key" },
    HEADER(L0 "mlp.up_proj.weight", "shape", "[16, 24]", MC_E_FORMAT,
           ST ": " L0 "mlp.up_proj.weight: shape [16, 24], expected [24, 16]"),
    HEADER(L0 "mlp.up_proj.weight", "shape", "[384]", MC_E_FORMAT,
           ST ": " L0 "mlp.up_proj.weight: shape [384], expected [24, 16]"),
    HEADER(L0 "mlp.up_proj.weight", "shape", "[24, 4294967296, 4294967296]", MC_E_FORMAT,
           ST ": " L0 "mlp.up_proj.weight: shape: its product overflows"),
    HEADER(L0 "mlp.up_proj.weight", "shape", "[24, -16]", MC_E_FORMAT,
           ST ": " L0 "mlp.up_proj.weight: shape[1]: expected a size, found a negative number"),
    HEADER(L0 "mlp.up_proj.weight", "shape", NULL, MC_E_FORMAT,
           ST ": " L0 "mlp.up_proj.weight: shape: expected a list, found nothing"),
    HEADER(L0 "mlp.up_proj.weight", "dtype", "\"F16\"", MC_E_UNSUPPORTED,
           ST ": " L0 "mlp.up_proj.weight: dtype F16 is not supported; BF16 and F32 are"),
    HEADER(L0 "mlp.up_proj.weight", "dtype", "\"Q4_K\"", MC_E_UNSUPPORTED,
           ST ": " L0 "mlp.up_proj.weight: dtype Q4_K is not supported; BF16 and F32 are"),
    HEADER(L0 "mlp.up_proj.weight", "dtype", "\"F32\"", MC_E_FORMAT,
           ST ": " L0
              "mlp.up_proj.weight: data_offsets: 768 bytes, but dtype F32 and shape need 1536"),
    HEADER(L0 "mlp.up_proj.weight", NULL,
           "{\"dtype\": \"F32\", \"shape\": [24, 8], \"data_offsets\": [10816, 11584]}",
           MC_E_UNSUPPORTED,
           ST ": " L0 "mlp.up_proj.weight: dtype F32, while matrices before it are BF16"),
    HEADER("model.norm.weight", "dtype", "\"I16\"", MC_E_UNSUPPORTED,
           ST ": model.norm.weight: dtype I16 is not supported"),
    HEADER(L0 "mlp.up_proj.weight", "data_offsets", "[10815, 11583]", MC_E_FORMAT,
           ST ": " L0 "mlp.up_proj.weight: data_offsets: begins at byte 10815, inside the tensor"),
    HEADER(L0 "mlp.up_proj.weight", "data_offsets", "[0, 9223372036854775807]", MC_E_FORMAT,
           ST ": " L0 "mlp.up_proj.weight: data_offsets: [0, 9223372036854775807] runs past"),
    HEADER(L0 "mlp.up_proj.weight", "data_offsets", "[11584, 10816]", MC_E_FORMAT,
           ST ": " L0 "mlp.up_proj.weight: data_offsets: [11584, 10816] is not a range"),
    HEADER(L0 "mlp.up_proj.weight", "data_offsets", "7", MC_E_FORMAT,
           ST ": " L0 "mlp.up_proj.weight: data_offsets: expected [begin, end]"),
    HEADER(L0 "mlp.up_proj.weight", NULL, NULL, MC_E_FORMAT,
           ST ": " L0 "mlp.down_proj.weight: data_offsets: begins at byte 11584, with a gap after"),
    HEADER("model.norm.weight", NULL, "=model.nrom.weight", MC_E_NOT_FOUND,
           ST ": model.norm.weight: missing"),
    HEADER("lm_head.weight", NULL, "=lm.head.weight", MC_E_NOT_FOUND,
           ST ": lm_head.weight: missing"),

    /* the index */
    { "sharded", CUT, INDEX, 0, 0, 0, 300, MC_E_FORMAT, INDEX ": line " },
    { "sharded", JSON, INDEX, "weight_map", NULL, NULL, 0, MC_E_FORMAT,
      INDEX ": weight_map: expected tensors and their files, found nothing" },
    { "sharded", JSON, INDEX, "weight_map", NULL, "{}", 0, MC_E_FORMAT,
      INDEX ": weight_map: expected tensors and their files, found none" },
    { "sharded", JSON, INDEX, "weight_map", NULL, "[\"" ST1 "\"]", 0, MC_E_FORMAT,
      INDEX ": weight_map: expected tensors and their files, found an array" },
    { "sharded", SHARDS, INDEX, 0, 0, 0, 5000, MC_E_RANGE,
      INDEX ": weight_map: more than 4096 files" },
    MAP("model.norm.weight", "2", MC_E_FORMAT,
        INDEX ": weight_map.model.norm.weight: expected a file name, found a number"),
    MAP("model.norm.weight", "\"../" ST2 "\"", MC_E_FORMAT,
        INDEX ": weight_map.model.norm.weight: \"../" ST2
              "\" is not the name of a .safetensors file"),
    MAP("model.norm.weight", "\"/etc/" ST2 "\"", MC_E_FORMAT,
        INDEX ": weight_map.model.norm.weight: \"/etc/" ST2 "\" is not the name"),
    MAP("model.norm.weight", "\"" INDEX "\"", MC_E_FORMAT,
        INDEX ": weight_map.model.norm.weight: \"" INDEX
              "\" is not the name of a .safetensors file"),
    MAP("model.norm.weight", "\"\"", MC_E_FORMAT,
        INDEX ": weight_map.model.norm.weight: \"\" is not the name"),
    MAP("model.norm.weight", "\"" ST1 "\"", MC_E_FORMAT,
        INDEX ": weight_map.model.norm.weight: is not in " ST1),
    MAP("model.norm.weight", "\"model-00003-of-00002.safetensors\"", MC_E_NOT_FOUND,
        INDEX ": weight_map: model-00003-of-00002.safetensors is not there"),
    MAP("model.norm.weight", NULL, MC_E_NOT_FOUND, INDEX ": model.norm.weight: missing"),
    MAP("model.ghost.weight", "\"" ST2 "\"", MC_E_FORMAT,
        INDEX ": weight_map.model.ghost.weight: is not in " ST2),

    /* the shards */
    { "sharded", REMOVE, ST2, 0, 0, 0, 0, MC_E_NOT_FOUND,
      INDEX ": weight_map: " ST2 " is not there" },
    { "sharded", CUT, ST2, 0, 0, 0, -16, MC_E_FORMAT, ST2 ": model.norm.weight: data_offsets: [" },
    { "sharded", JSON, ST2, L1 "mlp.up_proj.weight", "shape", "[16, 24]", 0, MC_E_FORMAT,
      ST2 ": " L1 "mlp.up_proj.weight: shape [16, 24], expected [24, 16] by config.json" },
    { "sharded", FOLDER, ST1, 0, 0, 0, 0, MC_E_FORMAT, ".../" ST1 ": not a regular file" },

    /* text */
    { "plain", CUT, "tokenizer.json", 0, 0, 0, 1000, MC_E_FORMAT, "tokenizer.json: " },
    { "plain", WRITE, "tokenizer.json", 0, 0, "{}", 0, MC_E_FORMAT, "tokenizer.json: " },
    { "plain", TEXT, "tokenizer.json", "\"added_tokens\": [", 0,
      "\"added_tokens\": [{\"id\": 264, \"content\": \"<new>\", \"special\": true, \"lstrip\": "
      "false, "
      "\"rstrip\": false, \"single_word\": false, \"normalized\": false}, ",
      0, MC_E_FORMAT,
      "tokenizer.json: ids up to 264, but config.json: vocab_size is 264; are the" },
    { "plain", CUT, "tokenizer_config.json", 0, 0, 0, 40, MC_E_FORMAT,
      "tokenizer_config.json: line" },
    { "plain", JSON, "tokenizer_config.json", "bos_token", NULL, "7", 0, MC_E_FORMAT,
      "tokenizer_config.json: bos_token: expected a string or a token" },
    { "plain", JSON, "tokenizer_config.json", "chat_template", NULL, "7", 0, MC_E_FORMAT,
      "tokenizer_config.json: chat_template: expected a string, found a number" },
    { "plain", JSON, "tokenizer_config.json", "chat_template", NULL, "[{\"name\": \"default\"}]", 0,
      MC_E_FORMAT,
      "tokenizer_config.json: chat_template: entry 0: expected a name and a template" },
    { "plain", FOLDER, "chat_template.jinja", 0, 0, 0, 0, MC_E_FORMAT,
      ".../chat_template.jinja: not a regular file" },
};
enum { ROWS = sizeof(rows) / sizeof(*rows) };

/* ------------------------------------------------------------------------------------- breaking */

static void cut_file(const char *directory, const char *file, long at)
{
    size_t size;
    char *data = load_file(directory, file, &size);

    save_file(directory, file, data, at < 0 ? size - (size_t)-at : (size_t)at);
    free_file(data);
}

static void append_file(const char *directory, const char *file, const char *text)
{
    char path[PATH_SIZE];
    FILE *out = fopen(path_in(directory, file, path), "ab");

    assert_non_null(out);
    assert_true(fputs(text, out) >= 0);
    assert_int_equal(fclose(out), 0);
}

static void set_length(const char *directory, const char *file, char byte)
{
    size_t size;
    char *data = load_file(directory, file, &size);

    memset(data, byte, 8);
    save_file(directory, file, data, size);
    free_file(data);
}

static void write_index_of_many(const char *directory, const char *file, long count)
{
    char path[PATH_SIZE];
    FILE *out = fopen(path_in(directory, file, path), "wb");

    assert_non_null(out);
    for (long i = 0; i < count; i++)
        fprintf(out, "%s\"t%ld\": \"%ld.safetensors\"", i ? ", " : "{\"weight_map\": {", i, i);
    fputs("}}", out);
    assert_int_equal(fclose(out), 0);
}

static void replace_by(const char *directory, const char *file, enum what what)
{
    char path[PATH_SIZE];

    remove(path_in(directory, file, path)); /* not there in some rows */
    assert_int_equal(what == FIFO ? mkfifo(path, 0700) : mkdir(path, 0700), 0);
}

static void break_model(const struct row *r, const char *directory)
{
    switch (r->what) {
    case JSON:
        change_json(directory, r->file, r->key, r->inner, r->value);
        break;
    case TEXT:
        change_text(directory, r->file, r->key, r->value);
        break;
    case WRITE:
        save_file(directory, r->file, r->value, strlen(r->value));
        break;
    case REMOVE:
        remove_file(directory, r->file);
        break;
    case FOLDER:
    case FIFO:
        replace_by(directory, r->file, r->what);
        break;
    case CUT:
        cut_file(directory, r->file, r->at);
        break;
    case APPEND:
        append_file(directory, r->file, r->value);
        break;
    case BYTES:
        set_length(directory, r->file, r->value[0]);
        break;
    case SHARDS:
        write_index_of_many(directory, r->file, r->at);
        break;
    }
}

static bool says(const char *text, const char *words)
{
    return strncmp(words, "...", 3) ? !strncmp(text, words, strlen(words))
                                    : strstr(text, words + 3) != NULL;
}

static void test_every_broken_model_is_refused_by_file_and_field(void **state)
{
    (void)state;
    size_t wrong = 0; /* all of them are listed before the test fails */

    for (size_t i = 0; i < ROWS; i++) {
        const struct row *r = &rows[i];
        char directory[64];
        struct faulty f;
        mc_model *model = NULL;
        struct mc_error error = { 0 };

        copy_model(r->model, directory);
        break_model(r, directory);
        faulty_init(&f, -1);
        const mc_status status = mc_model_open(
            directory, &(struct mc_model_options){ .alloc = &f.alloc }, &model, &error);
        test_remove(directory);
        assert_null(model);
        assert_int_equal(f.held, 0);
        if (status == r->status && error.status == status && says(error.text, r->words))
            continue;
        wrong++;
        print_error("row %zu, \"%s\": %s: %s\n", i, r->words, mc_status_name(status), error.text);
    }
    assert_int_equal(wrong, 0);
}

static void test_the_models_that_are_broken_here_open_when_whole(void **state)
{
    (void)state;
    static const char *const models[] = { "plain", "sharded" };

    for (size_t i = 0; i < 2; i++) {
        char directory[64];
        mc_model *model = NULL;
        struct mc_error error = { 0 };
        copy_model(models[i], directory);
        if (mc_model_open(directory, NULL, &model, &error) != MC_OK)
            fail_msg("%s: %s", models[i], error.text);
        mc_model_close(model);
        test_remove(directory);
    }
}

static void test_a_directory_that_is_not_there_is_named(void **state)
{
    (void)state;
    char directory[64], path[PATH_SIZE];
    mc_model *model = NULL;
    struct mc_error error;

    test_directory(directory);
    assert_int_equal(mc_model_open(path_in(directory, "none", path), NULL, &model, &error),
                     MC_E_NOT_FOUND);
    assert_true(says(error.text, path));
    assert_int_equal(mc_model_open("", NULL, &model, &error), MC_E_NOT_FOUND);
    assert_int_equal(mc_model_open(directory, NULL, &model, &error), MC_E_NOT_FOUND);
    assert_true(says(error.text, ".../config.json: cannot open"));
    save_file(directory, "none", "", 0);
    assert_int_equal(mc_model_open(path, NULL, &model, &error), MC_E_NOT_FOUND); /* a file */
    test_remove(directory);

    char *deep = calloc(1, 5001);
    assert_non_null(deep);
    memset(deep, '/', 5000);
    assert_int_equal(mc_model_open(deep, NULL, &model, &error), MC_E_NOT_FOUND);
    free(deep);
    assert_null(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_broken_model_is_refused_by_file_and_field),
        cmocka_unit_test(test_the_models_that_are_broken_here_open_when_whole),
        cmocka_unit_test(test_a_directory_that_is_not_there_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
