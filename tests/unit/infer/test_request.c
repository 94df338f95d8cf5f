/* test_request.c - a request's rules without an engine: limits, end-of-text, stop strings, text. */
#include "test.h"

#include "base/alloc.h"
#include "infer/request.h"

enum { PIECES = 40, EOS = 1 };

/* Token i is the text pieces[i]; what `tail` says comes out at the end, as a stream's leftover does. */
struct speech {
    char pieces[PIECES][16];
    const char *tail;
    long fail_at; /* the push that fails; -1: none */
    long pushes;
};

static mc_status speech_push(void *context, uint32_t token, const char **text_p, size_t *size_p)
{
    struct speech *speech = context;

    if (speech->pushes++ == speech->fail_at)
        return MC_E_NOMEM;
    *text_p = speech->pieces[token];
    *size_p = strlen(speech->pieces[token]);
    return MC_OK;
}

static mc_status speech_finish(void *context, const char **text_p, size_t *size_p)
{
    struct speech *speech = context;

    *text_p = speech->tail ? speech->tail : "";
    *size_p = strlen(*text_p);
    return MC_OK;
}

struct heard {
    char text[256];
    size_t size;
    int events, tokens, lasts;
    enum request_finish finish;
    char why[200];
};

static void hear(void *user, struct request *r, const struct request_event *event)
{
    struct heard *heard = user;

    (void)r;
    memcpy(heard->text + heard->size, event->text, event->text_size);
    heard->size += event->text_size;
    heard->text[heard->size] = '\0';
    heard->events++;
    heard->tokens += event->sample != NULL;
    heard->lasts += event->finish != REQUEST_RUNNING;
    heard->finish = event->finish;
    if (event->why)
        strcpy(heard->why, event->why);
}

static const uint32_t prompt[] = { 3, 4, 5 }, eos[] = { EOS };

struct scene {
    struct faulty faulty;
    struct speech speech;
    struct heard heard;
    struct decoder decoder;
    struct request_options options;
    struct request *request;
    struct mc_error error;
};

static void begin(struct scene *s, long fail_at)
{
    memset(s, 0, sizeof(*s));
    faulty_init(&s->faulty, fail_at);
    s->speech.fail_at = -1;
    s->decoder = (struct decoder){ speech_push, speech_finish, &s->speech };
    s->options = (struct request_options){
        .prompt = prompt,
        .prompt_count = 3,
        .context_max = 100,
        .eos = eos,
        .eos_count = 1,
        .decoder = &s->decoder,
        .output = hear,
        .user = &s->heard,
        .alloc = &s->faulty.alloc,
    };
}

static void open_request(struct scene *s)
{
    assert_int_equal(request_open(&s->options, &s->request, &s->error), MC_OK);
}

static void end(struct scene *s)
{
    request_close(s->request);
    assert_int_equal(s->faulty.held, 0);
}

static void say(struct scene *s, uint32_t token)
{
    const struct mc_sample sample = { .chosen = { .token = token } };

    request_take(s->request, &sample);
    request_emit(s->request);
}

/* Say the pieces 2, 3, ... until one is empty or the request has ended. */
static void say_all(struct scene *s)
{
    for (uint32_t i = 2; s->speech.pieces[i][0] && s->heard.finish == REQUEST_RUNNING; i++)
        say(s, i);
}

/* Cut `text` into pieces behind each byte whose bit of `cuts` is set. */
static void cut(struct speech *speech, const char *text, uint32_t cuts)
{
    size_t piece = 2, size = 0;

    memset(speech->pieces, 0, sizeof(speech->pieces));
    for (size_t i = 0; text[i]; i++) {
        speech->pieces[piece][size++] = text[i];
        if (cuts >> i & 1) {
            piece++;
            size = 0;
        }
    }
}

static void test_a_stop_string_is_found_however_the_text_is_cut_into_tokens(void **state)
{
    (void)state;
    static const struct {
        const char *text, *stops[3], *shown;
        bool stopped;
    } cases[] = {
        { "one STOP two", { "STOP" }, "one ", true },
        { "aaaaaab", { "aab" }, "aaaa", true },
        { "ababac", { "abac" }, "ab", true },
        { "ababab", { "abac" }, "ababab", false },
        { "x\n\nUser:", { "\nUser:", "\n\n" }, "x", true },
        { "abc d", { "abc d", "bc" }, "a", true },
        { "abcd", { "bcd", "cd", "d" }, "a", true },
        { "STO", { "STOP" }, "STO", false },
        { "STOP", { "STOP" }, "", true },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const uint32_t ways = 1u << (strlen(cases[i].text) - 1);
        for (uint32_t cuts = 0; cuts < ways; cuts++) {
            struct scene s;
            begin(&s, -1);
            s.options.stops = cases[i].stops;
            while (s.options.stop_count < 3 && cases[i].stops[s.options.stop_count])
                s.options.stop_count++;
            cut(&s.speech, cases[i].text, cuts);
            open_request(&s);
            say_all(&s);
            if (!cases[i].stopped)
                say(&s, EOS);
            assert_int_equal(s.heard.finish, REQUEST_STOP);
            assert_string_equal(s.heard.text, cases[i].shown);
            assert_int_equal(s.heard.lasts, 1);
            end(&s);
        }
    }
}

static void test_only_what_may_become_a_stop_string_is_held_back(void **state)
{
    (void)state;
    struct scene s;
    begin(&s, -1);
    const char *stops[] = { "abcX", "cY" };
    s.options.stops = stops;
    s.options.stop_count = 2;
    cut(&s.speech, "zabcabZ", 0x7f);
    static const char *const shown[] = { "z", "z", "z", "z", "zabc", "zabc", "zabcabZ" };
    open_request(&s);

    for (uint32_t i = 0; i < 7; i++) {
        say(&s, i + 2);
        assert_string_equal(s.heard.text, shown[i]);
    }
    request_end(s.request, REQUEST_CANCELLED, NULL);
    request_emit(s.request);
    end(&s);
}

static void test_what_was_held_back_comes_out_at_the_end(void **state)
{
    (void)state;
    struct scene s;
    const char *stops[] = { "ab\xef" };

    begin(&s, -1);
    s.options.stops = stops;
    s.options.stop_count = 1;
    s.options.max_tokens = 2;
    s.speech.tail = "!";
    cut(&s.speech, "ab", 1);
    open_request(&s);
    say_all(&s);
    assert_int_equal(s.heard.finish, REQUEST_LENGTH);
    assert_string_equal(s.heard.text, "ab!");
    end(&s);

    begin(&s, -1);
    s.options.stops = stops;
    s.options.stop_count = 1;
    cut(&s.speech, "ab", 1);
    open_request(&s);
    say_all(&s);
    request_end(s.request, REQUEST_CANCELLED, NULL);
    request_emit(s.request);
    assert_string_equal(s.heard.text, "ab");
    assert_int_equal(s.heard.tokens, 2);
    assert_int_equal(s.heard.events, 3);
    end(&s);
}

static void test_a_stop_string_that_ends_in_the_last_bytes_still_counts(void **state)
{
    (void)state;
    struct scene s;
    const char *stops[] = { "b!" };
    begin(&s, -1);
    s.options.stops = stops;
    s.options.stop_count = 1;
    s.options.max_tokens = 2;
    s.speech.tail = "!";
    cut(&s.speech, "ab", 1);
    open_request(&s);

    say_all(&s);
    assert_int_equal(s.heard.finish, REQUEST_STOP);
    assert_string_equal(s.heard.text, "a");
    end(&s);
}

static void test_end_of_text_ends_and_is_not_shown(void **state)
{
    (void)state;
    struct scene s;
    begin(&s, -1);
    cut(&s.speech, "ab", 1);
    strcpy(s.speech.pieces[EOS], "<end>");
    open_request(&s);

    say_all(&s);
    say(&s, EOS);
    assert_int_equal(s.heard.finish, REQUEST_STOP);
    assert_string_equal(s.heard.text, "ab");
    assert_int_equal(request_made(s.request), 3);
    assert_int_equal(s.heard.tokens, 3);
    end(&s);
}

static void test_min_tokens_and_ignore_eos_ban_the_end(void **state)
{
    (void)state;
    struct scene s;
    begin(&s, -1);
    s.options.min_tokens = 2;
    cut(&s.speech, "abc", 7);
    open_request(&s);
    for (uint32_t i = 0; i < 2; i++) {
        const struct mc_sampling *sampling = request_sampling(s.request);
        assert_int_equal(sampling->banned_count, 1);
        assert_int_equal(sampling->banned[0], EOS);
        say(&s, i + 2);
    }
    assert_int_equal(request_sampling(s.request)->banned_count, 0);
    say(&s, EOS);
    end(&s);

    begin(&s, -1);
    s.options.ignore_eos = true;
    s.options.max_tokens = 1;
    open_request(&s);
    assert_int_equal(request_sampling(s.request)->banned_count, 1);
    say(&s, 2);
    assert_int_equal(s.heard.finish, REQUEST_LENGTH);
    end(&s);
}

static void test_banned_tokens_are_banned_with_and_without_the_end(void **state)
{
    (void)state;
    static const uint32_t banned[] = { 7, 9 };
    struct scene s;
    begin(&s, -1);
    s.options.banned = banned;
    s.options.banned_count = 2;
    s.options.min_tokens = 1;
    open_request(&s);

    const struct mc_sampling *sampling = request_sampling(s.request);
    assert_int_equal(sampling->banned_count, 3);
    assert_int_equal(sampling->banned[0], 7);
    assert_int_equal(sampling->banned[1], 9);
    assert_int_equal(sampling->banned[2], EOS);
    say(&s, 3);
    assert_int_equal(request_sampling(s.request)->banned_count, 2);
    end(&s);
}

static void test_min_tokens_also_holds_for_stop_strings(void **state)
{
    (void)state;
    struct scene s;
    const char *stops[] = { "b" };
    begin(&s, -1);
    s.options.stops = stops;
    s.options.stop_count = 1;
    s.options.min_tokens = 3;
    cut(&s.speech, "abcbd", 0x1f);
    open_request(&s);

    say_all(&s);
    assert_int_equal(s.heard.finish, REQUEST_STOP);
    assert_string_equal(s.heard.text, "abc");
    end(&s);
}

static void test_the_answer_ends_at_max_tokens_or_where_the_context_is_full(void **state)
{
    (void)state;
    static const struct {
        uint32_t context, max_tokens, made;
    } cases[] = { { 100, 1, 1 }, { 100, 7, 7 }, { 10, 0, 7 }, { 10, 50, 7 }, { 4, 0, 1 } };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct scene s;
        begin(&s, -1);
        s.options.context_max = cases[i].context;
        s.options.max_tokens = cases[i].max_tokens;
        s.options.decoder = NULL;
        open_request(&s);
        while (s.heard.finish == REQUEST_RUNNING)
            say(&s, 7);
        assert_int_equal(s.heard.finish, REQUEST_LENGTH);
        assert_int_equal(request_made(s.request), cases[i].made);
        assert_int_equal(s.heard.size, 0);
        end(&s);
    }
}

static void test_what_cannot_be_served_is_refused_with_both_numbers(void **state)
{
    (void)state;
    static const char *const no_stop[] = { "" };
    static const char *const many[STOPS_MAX + 1] = { "x", "x", "x", "x", "x", "x", "x", "x", "x",
                                                     "x", "x", "x", "x", "x", "x", "x", "x" };
    static const uint32_t long_prompt[100] = { 0 };
    static const struct {
        struct request_options change;
        const char *text;
    } cases[] = {
        { { .prompt = prompt }, "the prompt is empty: give it at least one token" },
        { { .prompt = long_prompt, .prompt_count = 100 },
          "the prompt has 100 tokens; the context holds 100, answer included" },
        { { .prompt_count = 1, .min_tokens = 5, .max_tokens = 4 },
          "min_tokens: 5 is more than max_tokens, 4" },
        { { .prompt_count = 1, .sampling.temperature = -1 },
          "temperature: -1 is neither 0 nor at least 0.0001" },
        { { .prompt_count = 1, .sampling.temperature = 1e-9f },
          "temperature: 1e-09 is neither 0 nor at least 0.0001" },
        { { .prompt_count = 1, .sampling.top_p = 1.5f }, "top_p: 1.5 is not in 0 to 1" },
        { { .prompt_count = 1, .sampling.logprobs = 21 }, "logprobs: 21 is more than 20" },
        { { .prompt_count = 1, .stops = no_stop, .stop_count = 1 },
          "stop: an empty text would stop every answer" },
        { { .prompt_count = 1, .stops = many, .stop_count = STOPS_MAX + 1 },
          "stop: 17 texts; at most 16 are accepted" },
        { { .prompt_count = 1, .eos_count = 65 }, "eos: 65 tokens; at most 64 are accepted" },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct scene s;
        begin(&s, -1);
        struct request_options o = cases[i].change;
        o.prompt = o.prompt ? o.prompt : prompt;
        o.context_max = 100;
        o.output = hear;
        o.decoder = &s.decoder;
        o.alloc = &s.faulty.alloc;
        assert_int_not_equal(request_open(&o, &s.request, &s.error), MC_OK);
        assert_string_equal(s.error.text, cases[i].text);
        assert_null(s.request);
        assert_int_equal(s.faulty.held, 0);
    }
    struct scene s;
    begin(&s, -1);
    s.options.decoder = NULL;
    s.options.stops = many;
    s.options.stop_count = 1;
    assert_int_equal(request_open(&s.options, &s.request, &s.error), MC_E_ARG);
    assert_string_equal(s.error.text, "stop: needs text, and this model has no tokenizer");
}

static void test_every_failed_allocation_is_told_and_leaves_nothing_behind(void **state)
{
    (void)state;
    const char *stops[] = { "one", "this is a longer stop string than anything that is said here, "
                                   "so that much is held back before it turns out to be none" };

    for (long k = 0;; k++) {
        struct scene s;
        begin(&s, k);
        s.options.stops = stops;
        s.options.stop_count = 2;
        for (size_t i = 0; i < 12; i++)
            memcpy(s.speech.pieces[i + 2], stops[1] + i * 8, 8);
        const mc_status status = request_open(&s.options, &s.request, &s.error);
        if (status == MC_OK) {
            say_all(&s);
            if (s.heard.finish == REQUEST_RUNNING)
                say(&s, EOS);
        }
        const bool failed = status != MC_OK || s.heard.finish == REQUEST_ERROR;
        if (status == MC_OK && failed)
            assert_string_equal(s.heard.why, "out of memory for the text");
        if (!failed)
            assert_memory_equal(s.heard.text, stops[1], 96);
        assert_true(failed == (s.faulty.calls > k));
        end(&s);
        if (!failed) {
            assert_true(k >= 7);
            return;
        }
    }
}

static void test_a_decoder_that_fails_ends_the_request(void **state)
{
    (void)state;
    struct scene s;
    begin(&s, -1);
    s.speech.fail_at = 1;
    cut(&s.speech, "abc", 7);
    open_request(&s);

    say_all(&s);
    assert_int_equal(s.heard.finish, REQUEST_ERROR);
    assert_string_equal(s.heard.why, "out of memory");
    assert_string_equal(s.heard.text, "a");
    end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_stop_string_is_found_however_the_text_is_cut_into_tokens),
        cmocka_unit_test(test_only_what_may_become_a_stop_string_is_held_back),
        cmocka_unit_test(test_what_was_held_back_comes_out_at_the_end),
        cmocka_unit_test(test_a_stop_string_that_ends_in_the_last_bytes_still_counts),
        cmocka_unit_test(test_end_of_text_ends_and_is_not_shown),
        cmocka_unit_test(test_min_tokens_and_ignore_eos_ban_the_end),
        cmocka_unit_test(test_banned_tokens_are_banned_with_and_without_the_end),
        cmocka_unit_test(test_min_tokens_also_holds_for_stop_strings),
        cmocka_unit_test(test_the_answer_ends_at_max_tokens_or_where_the_context_is_full),
        cmocka_unit_test(test_what_cannot_be_served_is_refused_with_both_numbers),
        cmocka_unit_test(test_every_failed_allocation_is_told_and_leaves_nothing_behind),
        cmocka_unit_test(test_a_decoder_that_fails_ends_the_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
