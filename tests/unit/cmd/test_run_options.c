/* test_run_options.c - what mooncake run accepts, and what it says about the rest. */
#include "test.h"

#include <stdio.h>

#include "cmd/run_options.h"

static char *const nothing[] = { NULL };

/* `words` are the arguments behind "run", one blank between two. */
static mc_status read_words(struct run_request *run, char *words, char *const *environment,
                            const struct mc_alloc *alloc, struct mc_error *error)
{
    char *arguments[32] = { "run" };
    int count = 1;

    for (char *word = strtok(words, " "); word; word = strtok(NULL, " "))
        arguments[count++] = word;
    return run_options_read(run, count, arguments, environment, alloc, error);
}

static void test_wrong_usage_says_what_to_do(void **state)
{
    (void)state;
    static const struct {
        const char *words, *text;
        mc_status status;
    } cases[] = {
        { "-p x",
          "which model? Give a directory with config.json, *.safetensors and tokenizer.json, as "
          "Hugging Face has them; a clone of this project has models/tiny-random",
          MC_E_ARG },
        { "m -p one two", "\"two\": one model at a time; quote a prompt that has blanks",
          MC_E_ARG },
        { "m",
          "no prompt: give -p TEXT or -f FILE (- reads standard input), or --chat for a "
          "conversation",
          MC_E_ARG },
        { "m -p x -f y", "both --prompt and --file: the prompt comes from one of them", MC_E_ARG },
        { "m -p x --chat --raw", "both --chat and --raw: a chat uses the model's template",
          MC_E_ARG },
        { "m -p x --system s", "--system: needs --chat, a plain prompt has no messages", MC_E_ARG },
        { "m --chat --json", "--json: a conversation has no end to print it at; give -p or -f",
          MC_E_ARG },
        { "m -p x --logprobs 3", "--logprobs: only --json shows them; add it", MC_E_ARG },
        { "m -p x --json --logprobs 21", "--logprobs: 21 is out of range; accepted are 0 to 20",
          MC_E_RANGE },
        { "m -p x --chunk 100", "--chunk: 100 is not a multiple of 16", MC_E_RANGE },
        { "m -p x --chunk 0", "--chunk: 0 is out of range; accepted are 16 to 65536", MC_E_RANGE },
        { "m -p x --temperature 0.00001",
          "--temperature: 1e-05 is neither 0 (greedy) nor at least 0.0001", MC_E_RANGE },
        { "m -p x --min-tokens 9 -n 8", "--min-tokens: 9 is more than --max-tokens, 8",
          MC_E_RANGE },
        { "m -p x --kernel sse", "--kernel: \"sse\" is not one of auto|ref|avx2|avx512|avx512-bf16",
          MC_E_ARG },
        { "m -p x --kv-dtype f16", "--kv-dtype: \"f16\" is not one of auto|f32|bf16", MC_E_ARG },
        { "m -p x --config nowhere.conf", "nowhere.conf: cannot open: No such file or directory",
          MC_E_IO },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct run_request run;
        struct faulty f;
        struct mc_error error = { 0 };
        char words[100];
        faulty_init(&f, -1);
        strcpy(words, cases[i].words);
        assert_int_equal(read_words(&run, words, nothing, &f.alloc, &error), cases[i].status);
        assert_string_equal(error.text, cases[i].text);
        run_options_fini(&run);
        assert_int_equal(f.held, 0);
    }
}

static void test_the_three_sources_meet(void **state)
{
    (void)state;
    char directory[64], path[80], words[200];
    struct run_request run;
    struct faulty f;
    struct mc_error error = { 0 };
    static const char config[] = "seed = 1\nmax-tokens = 11\nstop = \"\\n\\n\"\nkernel = ref\n";
    faulty_init(&f, -1);
    snprintf(path, sizeof(path), "%s/c", test_directory(directory));
    test_write(path, config, sizeof(config) - 1);
    char file_variable[100];
    snprintf(file_variable, sizeof(file_variable), "MC_CONFIG=%s", path);
    char *const environment[] = { file_variable, "MC_SEED=2", "MC_TOP_K=5", NULL };

    strcpy(words, "m -p x --top-k 6");
    assert_int_equal(read_words(&run, words, environment, &f.alloc, &error), MC_OK);
    assert_int_equal(run.options.seed, 2);
    assert_int_equal(run.options.max_tokens, 11);
    assert_int_equal(run.options.top_k, 6);
    assert_string_equal(run.options.stop.items[0], "\n\n");
    assert_string_equal(run_options_kernel(&run.options), "ref");
    assert_string_equal(run.operands.items[0], "m");
    run_options_fini(&run);
    assert_int_equal(f.held, 0);
    test_remove(directory);
}

static void test_help_comes_whatever_else_is_wrong_in_the_environment(void **state)
{
    (void)state;
    struct run_request run;
    struct faulty f;
    struct mc_error error = { 0 };
    char *const environment[] = { "MC_SEED=x", NULL };
    char words[] = "--help";
    faulty_init(&f, -1);

    assert_int_equal(read_words(&run, words, environment, &f.alloc, &error), MC_OK);
    assert_true(run.options.help);
    run_options_fini(&run);
    assert_int_equal(f.held, 0);
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    (void)state;
    char directory[64], path[80];
    snprintf(path, sizeof(path), "%s/c", test_directory(directory));
    test_write(path, "stop = x\n", 9);

    for (long k = 0;; k++) {
        struct run_request run;
        struct faulty f;
        struct mc_error error = { 0 };
        char words[100];
        faulty_init(&f, k);
        snprintf(words, sizeof(words), "m -p x --config %s", path);
        const mc_status status = read_words(&run, words, nothing, &f.alloc, &error);
        run_options_fini(&run);
        assert_int_equal(f.held, 0);
        if (status == MC_OK) {
            assert_int_equal(k, 4); /* states, operands, the file, the list of stops */
            break;
        }
        assert_int_equal(status, MC_E_NOMEM);
        assert_non_null(strstr(error.text, "out of memory"));
    }
    test_remove(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_usage_says_what_to_do),
        cmocka_unit_test(test_the_three_sources_meet),
        cmocka_unit_test(test_help_comes_whatever_else_is_wrong_in_the_environment),
        cmocka_unit_test(test_every_failed_allocation_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
