/* test_chat.c - chat templates: rendered as `transformers` does, or refused with the reason.
 *
 * Templates and expectations: tools/make_chat_fixtures.py. */
#include "test.h"

#include <stdio.h>

#include <jansson.h>

#include "base/alloc.h"
#include "infer/chat.h"
#include "os/file.h"
#include "os/sysalloc.h"

enum { MESSAGES_MAX = 16 };

static char *read_data(const char *name, const char *suffix, size_t *size_p)
{
    char path[128], *data;
    struct mc_error error = { 0 };

    snprintf(path, sizeof(path), "chat/%s.%s", name, suffix);
    if (os_file_read(test_data(path), 1 << 20, os_alloc(), &data, size_p, &error) != MC_OK)
        fail_msg("%s", error.text);
    return data;
}

static struct chat open_template(const char *name, const char *bos)
{
    struct chat chat;
    size_t size;

    char *template = read_data(name, "jinja", &size);
    assert_int_equal(chat_init(&chat, template, bos, os_alloc()), MC_OK);
    alloc_free(os_alloc(), template);
    return chat;
}

/* One case of the fixture: [[role, content], ...] and the text it must give. */
static void render_case(const char *name, const struct chat *chat, const json_t *one,
                        const char *date)
{
    struct mc_chat_message messages[MESSAGES_MAX];
    struct buf text = BUF_INIT(os_alloc());
    struct mc_error error = { 0 };
    const json_t *list = json_object_get(one, "messages");
    const char *expected = json_string_value(json_object_get(one, "text"));

    assert_in_range(json_array_size(list), 1, MESSAGES_MAX);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *message = json_array_get(list, i);
        messages[i].role = json_string_value(json_array_get(message, 0));
        messages[i].content = json_string_value(json_array_get(message, 1));
    }
    if (chat_render(chat, messages, json_array_size(list), date, &text, &error) != MC_OK)
        fail_msg("%s: %s", name, error.text);
    assert_non_null(expected);
    if (strcmp(text.data, expected) != 0)
        fail_msg("%s\nrendered: %s\nexpected: %s", name, text.data, expected);
    buf_fini(&text);
}

static void test_every_family_is_recognised_and_rendered_as_transformers_does(void **state)
{
    static const struct {
        const char *name;
        enum chat_family family;
        bool dated;
    } templates[] = {
        { "chatml", CHAT_CHATML, false },   { "chatml_lines", CHAT_CHATML, false },
        { "qwen2", CHAT_QWEN2, false },     { "qwen25", CHAT_QWEN2, false },
        { "qwen3", CHAT_QWEN3, false },     { "llama3", CHAT_LLAMA3, false },
        { "llama31", CHAT_LLAMA31, false }, { "llama32", CHAT_LLAMA31, true },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(templates) / sizeof(templates[0]); i++) {
        size_t size;
        char *json = read_data(templates[i].name, "json", &size);
        json_t *root = json_loadb(json, size, 0, NULL);
        assert_non_null(root);
        const json_t *cases = json_object_get(root, "cases");
        struct chat chat =
            open_template(templates[i].name, json_string_value(json_object_get(root, "bos")));
        if (chat.family != templates[i].family)
            fail_msg("%s is family %d because of \"%s\"", templates[i].name, chat.family,
                     chat.why ? chat.why : "");
        assert_int_equal(chat.dated, templates[i].dated);
        assert_in_range(json_array_size(cases), 100, 1000);
        for (size_t j = 0; j < json_array_size(cases); j++)
            render_case(templates[i].name, &chat, json_array_get(cases, j),
                        json_string_value(json_object_get(root, "date")));
        chat_fini(&chat, os_alloc());
        json_decref(root);
        alloc_free(os_alloc(), json);
    }
}

/* `from` is replaced by `to` in the template `name`, once; the caller frees. */
static char *changed(const char *name, const char *from, const char *to)
{
    struct buf out = BUF_INIT(os_alloc());
    size_t size;

    char *template = read_data(name, "jinja", &size);
    const char *at = strstr(template, from);
    assert_non_null(at);
    buf_add(&out, template, (size_t)(at - template));
    buf_add_text(&out, to);
    buf_add_text(&out, at + strlen(from));
    alloc_free(os_alloc(), template);
    return buf_take(&out, NULL);
}

static void assert_refused(const char *template, const char *why)
{
    const struct mc_chat_message hello = { "user", "Hello" };
    struct buf text = BUF_INIT(os_alloc());
    struct mc_error error = { 0 };
    struct chat chat;

    assert_int_equal(chat_init(&chat, template, "<s>", os_alloc()), MC_OK);
    if (chat.family != CHAT_OTHER)
        fail_msg("taken for family %d: %s", chat.family, template);
    assert_int_equal(chat_render(&chat, &hello, 1, NULL, &text, &error), MC_E_UNSUPPORTED);
    if (!strstr(error.text, why))
        fail_msg("\"%s\" does not say \"%s\"", error.text, why);
    assert_int_equal(text.size, 0);
    chat_fini(&chat, os_alloc());
}

static void test_a_template_that_was_changed_is_refused_and_says_why(void **state)
{
    static const struct {
        const char *name, *from, *to, *why;
    } changes[] = {
        { "chatml", "message['content']", "message['content'] | trim", "trim" },
        { "chatml", "message['content']", "message['content'] | upper", "upper" },
        { "chatml", "'\\n' + message", "' ' + message", "because of \" \"" },
        { "chatml", "'<|im_end|>' + '\\n'", "'<|im_end|>'", "end of turn" },
        { "chatml", "'<|im_end|>' + '\\n'", "'<|im_end|>' + eos_token", "eos_token" },
        { "chatml", "{% for", "{{ bos_token }}{% for", "bos_token" },
        { "chatml", "{% for", "Instructions: {% for", "text outside of tags" },
        { "chatml", "{% for", "\n{% for", "text outside of tags" },
        { "chatml", "assistant\\n", "assistant\\n<think>\\n", "<think>" },
        { "chatml", "assistant\\n", "assistant<|im_sep|>", "<|im_sep|>" },
        { "chatml", "if add_generation_prompt", "if add_generation_prompt and messages",
          "add_generation_prompt and" },
        { "chatml", "{% endif %}", "{% endif ", "a tag that does not end" },
        { "chatml_lines", "{{- \"<|im_start|>", "{{ \"<|im_start|>", "text outside of tags" },
        { "qwen2", "You are a helpful assistant.", "You are' + name + '.", "<|im_start|>system" },
        { "qwen2", "{% for", "{{ '<|im_start|>system\\nOther.<|im_end|>\\n' }}{% for",
          "<|im_start|>system" },
        { "qwen25", "message.content + '<|im_end|>'", "message.content.strip() + '<|im_end|>'",
          "a part of it is missing" },
        { "qwen3", "enable_thinking is defined and enable_thinking is false", "tools",
          "a part of it is missing" },
        { "qwen3", "'<|im_start|>assistant\\n'", "'<|im_start|>assistant\\n<think>\\n'",
          "<think>" },
        { "llama3", " | trim", "", "a part of it is missing" },
        { "llama3", "bos_token + content", "content", "a part of it is missing" },
        { "llama3", "'<|eot_id|>'", "'<|eot_id|>\\n'", "<|eot_id|>" },
        { "llama3", "+ '<|end_header_id|>\\n\\n'", "+ '<|end_header_id|>\\n'",
          "<|end_header_id|>" },
        { "llama31", "December 2023", "July 2025", "July 2025" },
        { "llama31", "Today Date: ", "Today: ", "a part of it is missing" },
        { "llama31", "26 Jul 2024", "27 Jul 2024", "a part of it is missing" },
        { "llama31", "[1:]", "[1:] | reverse", "reverse" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        char *template = changed(changes[i].name, changes[i].from, changes[i].to);
        assert_refused(template, changes[i].why);
        alloc_free(os_alloc(), template);
    }
}

static void test_other_families_are_refused_with_their_first_characters(void **state)
{
    (void)state;
    assert_refused("{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}",
                   "beginning \"{% for m in messages %}");
    assert_refused("{{ '<|user|>' + messages[0].content + '<|end|>' }}", "<|user|>");
    assert_refused("", "beginning \"\"");
    assert_refused("{{", "a tag that does not end");
    assert_refused("{{ 'open", "a tag that does not end");
    assert_refused(
        "\xd1\x8f\xd1\x8f\xd1\x8f\xd1\x8f\xd1\x8f\xd1\x8f\xd1\x8f\xd1\x8f\xd1\x8f\xd1\x8f"
        "\xd1\x8f\xd1\x8f\xd1\x8f\xd1\x8f\xd1\x8f\xd1\x8f\xd1\x8f\xd1\x8f\xd1\x8f\xd1\x8f"
        "\xd1\x8f\xd1\x8f\xd1\x8f\xd1\x8f\xd1\x8f\xd1\x8f\xd1\x8f\xd1\x8f\xd1\x8f\xd1\x8f"
        "x\xd1\x8f",
        "\xd1\x8f\" is none of");
}

static void test_no_template_and_bad_messages_are_errors_that_name_the_field(void **state)
{
    const struct mc_chat_message tool[] = { { "user", "a" }, { "tool", "b" } };
    const struct mc_chat_message empty[] = { { "user", NULL } };
    struct chat chat = open_template("chatml", NULL), none;
    struct buf text = BUF_INIT(os_alloc());
    struct mc_error error = { 0 };

    (void)state;
    assert_int_equal(chat_init(&none, NULL, NULL, os_alloc()), MC_OK);
    assert_int_equal(none.family, CHAT_NONE);
    assert_int_equal(chat_render(&none, tool, 1, NULL, &text, &error), MC_E_UNSUPPORTED);
    assert_non_null(strstr(error.text, "no chat template"));
    assert_int_equal(chat_render(&chat, tool, 2, NULL, &text, &error), MC_E_ARG);
    assert_non_null(strstr(error.text, "messages[1].role \"tool\""));
    assert_int_equal(chat_render(&chat, empty, 1, NULL, &text, &error), MC_E_ARG);
    assert_non_null(strstr(error.text, "messages[0].content"));
    assert_int_equal(chat_render(&chat, tool, 0, NULL, &text, &error), MC_E_ARG);
    assert_int_equal(text.size, 0);
    chat_fini(&chat, os_alloc());
    chat_fini(&none, os_alloc());
}

static void test_a_date_reads_as_llama_writes_it(void **state)
{
    char date[CHAT_DATE_SIZE];

    (void)state;
    assert_string_equal(chat_date(0, date), "01 Jan 1970");
    assert_string_equal(chat_date(1721952000, date), "26 Jul 2024");
    assert_string_equal(chat_date(1709164800 + 86399, date), "29 Feb 2024");
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    static const char *const names[] = { "qwen25", "llama32", "other" };
    const struct mc_chat_message hello = { "user", "Hello, this is long enough to need room." };

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        size_t size;
        char *template = i < 2 ? read_data(names[i], "jinja", &size)
                               : alloc_text(os_alloc(), "{{ 'x' | shout }}", 17);
        bool done = false;
        for (long k = 0; !done; k++) {
            struct faulty f;
            struct chat chat;
            faulty_init(&f, k);
            struct buf text = BUF_INIT(&f.alloc);
            mc_status status = chat_init(&chat, template, "<s>", &f.alloc);
            if (status == MC_OK) {
                const mc_status expected = i < 2 ? MC_OK : MC_E_UNSUPPORTED;
                status = chat_render(&chat, &hello, 1, NULL, &text, NULL);
                assert_true(status == MC_E_NOMEM || status == expected);
                chat_fini(&chat, &f.alloc);
            }
            buf_fini(&text);
            done = f.calls <= k;
            assert_true(done == (status != MC_E_NOMEM));
            assert_int_equal(f.held, 0);
            assert_true(!done || k > 2);
        }
        alloc_free(os_alloc(), template);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_family_is_recognised_and_rendered_as_transformers_does),
        cmocka_unit_test(test_a_template_that_was_changed_is_refused_and_says_why),
        cmocka_unit_test(test_other_families_are_refused_with_their_first_characters),
        cmocka_unit_test(test_no_template_and_bad_messages_are_errors_that_name_the_field),
        cmocka_unit_test(test_a_date_reads_as_llama_writes_it),
        cmocka_unit_test(test_every_failed_allocation_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
