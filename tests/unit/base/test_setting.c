/* test_setting.c - one table: values from every source, who wins, and what each error says. */
#include "test.h"

#include "base/alloc.h"
#include "base/setting.h"

#define DEMO_SETTINGS(X) \
    X(count, "max-tokens", 'n', U32, "16", 1, 1000, NULL, "N", "Work", "How many.") \
    X(seed, "seed", 0, U64, "0", 0, 0, NULL, "N", "Work", "Where chance begins.") \
    X(memory, "memory", 0, SIZE, "1M", 0, 0, NULL, "SIZE", "Work", "How much.") \
    X(wait_ns, "wait", 0, DURATION, "2s", 0, 0, NULL, "TIME", "Work", "How long.") \
    X(heat, "temperature", 't', FLOAT, "0", 0, 2, NULL, "X", "Work", "How wild.") \
    X(kind, "kernel", 0, CHOICE, "auto", 0, 0, "auto|ref|avx2", "KIND", "How", "Which one.") \
    X(loud, "loud", 'l', BOOL, "false", 0, 0, NULL, NULL, "How", "Whether to say it aloud.") \
    X(name, "name", 0, TEXT, NULL, 0, 0, NULL, "TEXT", "How", "What to call it.") \
    X(stops, "stop", 0, LIST, NULL, 0, 0, NULL, "TEXT", "How", "Where to stop; repeatable.") \
    X(keys, "key", 0, SECRET, NULL, 0, 0, NULL, "KEY", "How", "What opens it; repeatable.") \
    X(help, "help", 'h', ACTION, NULL, 0, 0, NULL, NULL, "Other", "Print this.")

struct demo {
    DEMO_SETTINGS(SETTING_FIELD)
};
#define DEMO_ROW(...) SETTING_ROW(demo, __VA_ARGS__)
static const struct setting rows[] = { DEMO_SETTINGS(DEMO_ROW) };
enum { ROWS = sizeof(rows) / sizeof(rows[0]) };

struct world {
    struct faulty faulty;
    struct demo demo;
    struct settings settings;
    struct setting_list operands;
    struct mc_error error;
};

static void begin(struct world *w)
{
    memset(w, 0, sizeof(*w));
    memset(&w->demo, 0xa5, sizeof(w->demo)); /* the options need not be zeroed by the caller */
    faulty_init(&w->faulty, -1);
    assert_int_equal(settings_init(&w->settings, rows, ROWS, &w->demo, &w->faulty.alloc, &w->error),
                     MC_OK);
}

static void end(struct world *w)
{
    settings_fini(&w->settings);
    setting_list_fini(&w->operands, &w->faulty.alloc);
    assert_int_equal(w->faulty.held, 0);
}

/* `words` are the arguments, one blank between two. */
static mc_status flags(struct world *w, char *words)
{
    char *arguments[32];
    int count = 0;

    for (char *word = strtok(words, " "); word; word = strtok(NULL, " "))
        arguments[count++] = word;
    return settings_flags(&w->settings, count, arguments, &w->operands, &w->error);
}

static void test_every_setting_starts_at_its_default(void **state)
{
    (void)state;
    struct world w;
    begin(&w);

    assert_int_equal(w.demo.count, 16);
    assert_int_equal(w.demo.memory, 1 << 20);
    assert_int_equal(w.demo.wait_ns, 2000000000);
    assert_true(w.demo.heat == 0);
    assert_int_equal(w.demo.kind, 0);
    assert_false(w.demo.loud);
    assert_null(w.demo.name);
    assert_int_equal(w.demo.stops.count, 0);
    assert_int_equal(settings_source(&w.settings, "seed"), SETTING_DEFAULT);
    end(&w);
}

static void test_a_flag_of_each_kind_is_read(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    char words[] = "model -n 7 --seed=18446744073709551615 --memory 3G --wait 250ms -t0.5 "
                   "--kernel avx2 --loud --name x --stop a --stop=b -h - -- --last";

    assert_int_equal(flags(&w, words), MC_OK);
    assert_int_equal(w.demo.count, 7);
    assert_true(w.demo.seed == UINT64_MAX);
    assert_true(w.demo.memory == (uint64_t)3 << 30);
    assert_int_equal(w.demo.wait_ns, 250000000);
    assert_true(w.demo.heat == 0.5f);
    assert_int_equal(w.demo.kind, 2);
    assert_true(w.demo.loud);
    assert_string_equal(w.demo.name, "x");
    assert_int_equal(w.demo.stops.count, 2);
    assert_string_equal(w.demo.stops.items[1], "b");
    assert_true(w.demo.help);
    assert_int_equal(w.operands.count, 3);
    assert_string_equal(w.operands.items[0], "model");
    assert_string_equal(w.operands.items[1], "-");
    assert_string_equal(w.operands.items[2], "--last");
    end(&w);
}

static void test_no_takes_a_yes_back(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    char words[] = "--loud --no-loud";

    assert_int_equal(flags(&w, words), MC_OK);
    assert_false(w.demo.loud);
    assert_int_equal(settings_source(&w.settings, "loud"), SETTING_FLAG);
    end(&w);
}

static void test_a_flag_beats_the_environment_beats_the_file_in_any_order(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    char words[] = "--max-tokens 1 --stop flag";
    char *environment[] = { "HOME=/", "MC_MAX_TOKENS=2", "MC_SEED=2", "MC_STOP=env", NULL };
    char config[] = "max-tokens = 3\nseed=3\r\n# note\n\nname = \"a \\\"b\\\"\\n\" \nstop=file";

    assert_int_equal(flags(&w, words), MC_OK);
    assert_int_equal(settings_env(&w.settings, environment, &w.error), MC_OK);
    assert_int_equal(settings_config(&w.settings, config, strlen(config), "f", &w.error), MC_OK);
    assert_int_equal(w.demo.count, 1);
    assert_int_equal(w.demo.seed, 2);
    assert_string_equal(w.demo.name, "a \"b\"\n");
    assert_int_equal(w.demo.stops.count, 1);
    assert_string_equal(w.demo.stops.items[0], "flag");
    end(&w);

    begin(&w);
    char again[] = "stop = one\nstop = two\nseed = 3";
    char words_again[] = "--seed 9";
    assert_int_equal(settings_config(&w.settings, again, strlen(again), "f", &w.error), MC_OK);
    assert_int_equal(w.demo.stops.count, 2);
    assert_int_equal(settings_env(&w.settings, environment, &w.error), MC_OK);
    assert_int_equal(w.demo.stops.count, 1);
    assert_string_equal(w.demo.stops.items[0], "env");
    assert_int_equal(flags(&w, words_again), MC_OK);
    assert_int_equal(w.demo.seed, 9);
    end(&w);
}

static void test_a_wrong_flag_says_what_is_accepted(void **state)
{
    (void)state;
    static const struct {
        const char *words, *text;
        mc_status status;
    } cases[] = {
        { "--max-token 3", "unknown flag --max-token; did you mean --max-tokens?", MC_E_ARG },
        { "--tempreature=1", "unknown flag --tempreature; did you mean --temperature?", MC_E_ARG },
        { "--xyz", "unknown flag --xyz; --help lists the flags", MC_E_ARG },
        { "-z", "unknown flag -z; --help lists the flags", MC_E_ARG },
        { "-lx", "unknown flag -lx; --help lists the flags", MC_E_ARG },
        { "--no-seed", "unknown flag --no-seed; did you mean --seed?", MC_E_ARG },
        { "--seed", "--seed: needs a value: --seed N", MC_E_ARG },
        { "-n", "-n: needs a value: -n N", MC_E_ARG },
        { "-n x", "-n: \"x\" is not a whole number", MC_E_ARG },
        { "-n 1.5", "-n: \"1.5\" is not a whole number", MC_E_ARG },
        { "-n +5", "-n: \"+5\" is not a whole number", MC_E_ARG },
        { "-n -1", "-n: -1 is out of range; accepted are 1 to 1000", MC_E_RANGE },
        { "-n 0", "-n: 0 is out of range; accepted are 1 to 1000", MC_E_RANGE },
        { "-n 1001", "-n: 1001 is out of range; accepted are 1 to 1000", MC_E_RANGE },
        { "--seed=18446744073709551616",
          "--seed: 18446744073709551616 is out of range; accepted are 0 to 18446744073709551615",
          MC_E_RANGE },
        { "--seed=", "--seed: \"\" is not a whole number", MC_E_ARG },
        { "--memory 3X", "--memory: \"3X\" is not a size: bytes, or a number with K, M, G or T",
          MC_E_ARG },
        { "--memory 99999999999T", "--memory: \"99999999999T\" is not within 64 bits", MC_E_RANGE },
        { "--wait 3", "--wait: \"3\" is not a duration: a number with ns, us, ms, s, m or h",
          MC_E_ARG },
        { "-t nan", "-t: \"nan\" is not a number", MC_E_ARG },
        { "-t 1e99", "-t: \"1e99\" is not within the range of a 32-bit float", MC_E_RANGE },
        { "-t -0.1", "-t: -0.1 is out of range; accepted are 0 to 2", MC_E_RANGE },
        { "--kernel sse", "--kernel: \"sse\" is not one of auto|ref|avx2", MC_E_ARG },
        { "--loud=perhaps", "--loud: \"perhaps\" is not true or false", MC_E_ARG },
        { "--help=yes", "--help: takes no value", MC_E_ARG },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct world w;
        char words[100];
        begin(&w);
        strcpy(words, cases[i].words);
        assert_int_equal(flags(&w, words), cases[i].status);
        assert_string_equal(w.error.text, cases[i].text);
        end(&w);
    }
}

static void test_a_slip_in_the_environment_is_found_and_other_roles_are_left_alone(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    char *others[] = { "MC_GID_INDEX=3", "MC_HELP=1", "MC_=", "MC", "MCX=1", NULL };
    char *slip[] = { "MC_TEMPRATURE=1", NULL }, *wrong[] = { "MC_SEED=x", NULL };

    assert_int_equal(settings_env(&w.settings, others, &w.error), MC_OK);
    assert_false(w.demo.help);
    assert_int_equal(settings_env(&w.settings, slip, &w.error), MC_E_ARG);
    assert_string_equal(w.error.text,
                        "MC_TEMPRATURE: no such setting; did you mean MC_TEMPERATURE?");
    assert_int_equal(settings_env(&w.settings, wrong, &w.error), MC_E_ARG);
    assert_string_equal(w.error.text, "MC_SEED: \"x\" is not a whole number");
    end(&w);
}

static void test_a_wrong_config_line_is_named_by_file_and_number(void **state)
{
    (void)state;
    static const struct {
        const char *config, *text;
    } cases[] = {
        { "\nseed 3", "f:2: \"seed 3\" is not `name = value`" },
        { "sead = 3", "f:1: unknown setting \"sead\"; did you mean seed?" },
        { "zzzzzz = 3", "f:1: unknown setting \"zzzzzz\"; --help lists the settings" },
        { "help = true", "f:1: unknown setting \"help\"; --help lists the settings" },
        { "seed = x", "f:1: seed: \"x\" is not a whole number" },
        { "name = \"x", "f:1: name: a text in quotes ends with one and knows \\\" \\\\ \\n \\t" },
        { "name = \"\\x\"",
          "f:1: name: a text in quotes ends with one and knows \\\" \\\\ \\n \\t" },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct world w;
        char config[100];
        begin(&w);
        strcpy(config, cases[i].config);
        assert_int_equal(settings_config(&w.settings, config, strlen(config), "f", &w.error),
                         MC_E_ARG);
        assert_string_equal(w.error.text, cases[i].text);
        end(&w);
    }
    struct world w;
    char zero[] = "seed = 1\0seed = 2";
    begin(&w);
    assert_int_equal(settings_config(&w.settings, zero, sizeof(zero) - 1, "f", &w.error), MC_E_ARG);
    assert_string_equal(w.error.text, "f: holds a zero byte; a config file is text");
    end(&w);
}

static void test_a_slip_in_the_file_is_found_although_a_flag_overrides_it(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    char words[] = "--seed 1";
    char config[] = "seed = many";

    assert_int_equal(flags(&w, words), MC_OK);
    assert_int_equal(settings_config(&w.settings, config, strlen(config), "f", &w.error), MC_E_ARG);
    assert_int_equal(w.demo.seed, 1);
    end(&w);
}

static void test_secrets_are_read_and_never_printed(void **state)
{
    (void)state;
    char words[] = "--key hunter2 --key=hunter3";
    struct world w;

    begin(&w);
    struct buf out = BUF_INIT(&w.faulty.alloc);
    assert_int_equal(flags(&w, words), MC_OK);
    assert_int_equal(w.demo.keys.count, 2);
    assert_string_equal(w.demo.keys.items[1], "hunter3");
    settings_print(&w.settings, &out);
    assert_null(strstr(out.data, "hunter"));
    assert_non_null(strstr(out.data, "# flag\n# key: 2, not shown\n"));
    buf_fini(&out);
    end(&w);
}

static void test_what_is_printed_reads_back_as_the_same(void **state)
{
    (void)state;
    struct world w, again;
    begin(&w);
    begin(&again);
    char *arguments[] = { "--name", " a\t\"\\\n", "--stop", "x", "--stop", "#", "--wait", "3m" };
    struct buf out = BUF_INIT(&w.faulty.alloc);

    assert_int_equal(settings_flags(&w.settings, 8, arguments, &w.operands, &w.error), MC_OK);
    settings_print(&w.settings, &out);
    assert_non_null(strstr(out.data, "# flag\nwait = \"3m\"\n"));
    assert_int_equal(settings_config(&again.settings, out.data, out.size, "f", &again.error),
                     MC_OK);
    assert_string_equal(again.demo.name, " a\t\"\\\n");
    assert_int_equal(again.demo.stops.count, 2);
    assert_string_equal(again.demo.stops.items[1], "#");
    assert_true(again.demo.wait_ns == 180000000000);
    end(&again);
    buf_fini(&out);
    end(&w);
}

static void test_help_shows_every_row_with_bounds_default_and_variable(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    struct buf out = BUF_INIT(&w.faulty.alloc);

    setting_help(rows, ROWS, &out);
    assert_non_null(strstr(out.data, "Work:\n  -n, --max-tokens N        How many. [1 to 1000; "
                                     "default 16; MC_MAX_TOKENS]\n"));
    assert_non_null(strstr(out.data, "\n\nHow:\n      --kernel KIND "));
    assert_non_null(strstr(out.data, "auto|ref|avx2; default auto; MC_KERNEL]"));
    assert_non_null(strstr(out.data, "  -h, --help                Print this.\n"));
    for (char *line = strtok(out.data, "\n"); line; line = strtok(NULL, "\n"))
        assert_true(strlen(line) <= 100);
    buf_fini(&out);
    end(&w);
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    (void)state;
    for (long k = 0;; k++) {
        struct world w;
        memset(&w, 0, sizeof(w));
        faulty_init(&w.faulty, k);
        mc_status status =
            settings_init(&w.settings, rows, ROWS, &w.demo, &w.faulty.alloc, &w.error);
        if (status == MC_OK) {
            char words[] = "a b c d e f g h i --stop 1 --stop 2 --stop 3";
            status = flags(&w, words);
        }
        end(&w);
        if (status == MC_OK) {
            assert_int_equal(k, 4); /* states, operands twice, stops */
            return;
        }
        assert_int_equal(status, MC_E_NOMEM);
        assert_non_null(strstr(w.error.text, "out of memory"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_setting_starts_at_its_default),
        cmocka_unit_test(test_a_flag_of_each_kind_is_read),
        cmocka_unit_test(test_no_takes_a_yes_back),
        cmocka_unit_test(test_a_flag_beats_the_environment_beats_the_file_in_any_order),
        cmocka_unit_test(test_a_wrong_flag_says_what_is_accepted),
        cmocka_unit_test(test_a_slip_in_the_environment_is_found_and_other_roles_are_left_alone),
        cmocka_unit_test(test_a_wrong_config_line_is_named_by_file_and_number),
        cmocka_unit_test(test_a_slip_in_the_file_is_found_although_a_flag_overrides_it),
        cmocka_unit_test(test_secrets_are_read_and_never_printed),
        cmocka_unit_test(test_what_is_printed_reads_back_as_the_same),
        cmocka_unit_test(test_help_shows_every_row_with_bounds_default_and_variable),
        cmocka_unit_test(test_every_failed_allocation_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
