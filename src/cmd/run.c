/* run.c - mooncake run: one prompt, one chat turn, or a conversation. */
#define _POSIX_C_SOURCE 200809L
#include "cmd/cmd.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/prng.h"
#include "cmd/answer.h"
#include "cmd/interrupt.h"
#include "cmd/prompt.h"
#include "cmd/run_options.h"
#include "cmd/session.h"
#include "infer/model.h"
#include "os/clock.h"
#include "os/sysalloc.h"

extern char **environ;

/* The messages of a conversation. Contents are owned but for the system message. */
struct conversation {
    const struct mc_alloc *alloc;
    struct mc_chat_message *messages; /* owned; [count] */
    size_t count, capacity, owned_from;
};

static int report(const struct mc_error *error, int code)
{
    command_complain("run", "%s", error->text);
    return code;
}

/* ------------------------------------------------------------------------------------- output */

static void token_text(void *context, uint32_t token, bool shown, const char **text_p,
                       size_t *size_p)
{
    const struct session *s = context;

    if (tokenizer_bytes(s->model->tokenizer, token, !shown || s->options->special, text_p,
                        size_p) != MC_OK) {
        *text_p = ""; /* an id beyond the tokenizer's: models pad their vocabulary */
        *size_p = 0;
    }
}

static bool write_json(const struct session *s, const struct turn *turn,
                       const struct timing *timing, bool logprobs)
{
    char id[40];
    struct buf line = BUF_INIT(s->alloc);
    const struct token_texts texts = { token_text, (void *)(uintptr_t)s };

    snprintf(id, sizeof(id), "%s-%016llx", s->options->chat ? "chatcmpl" : "cmpl",
             (unsigned long long)prng_at(os_date_s(), turn->start_ns));
    const struct answer answer = {
        .chat = s->options->chat,
        .id = id,
        .model = s->info.name,
        .created_s = os_date_s(),
        .text = turn->text.data ? turn->text.data : "",
        .text_size = turn->text.size,
        .finish_reason = request_finish_name(turn->finish),
        .prompt_count = turn->prompt_count,
        .samples = turn->samples,
        .sample_count = turn->sample_count,
        .with_logprobs = logprobs,
        .texts = &texts,
        .timing = timing,
    };
    answer_write(&answer, &line);
    bool done = !line.failed;
    if (!done)
        command_complain("run", "out of memory for the answer");
    else
        done = command_write("run", line.data, line.size);
    buf_fini(&line);
    return done;
}

static bool write_timing(const struct session *s, const struct timing *timing)
{
    struct buf text = BUF_INIT(s->alloc);

    timing_text(timing, &text);
    const bool done = !text.failed && fputs(text.data, stderr) >= 0;
    buf_fini(&text);
    return done;
}

/* What comes behind a turn's text: the newline or the JSON, and the times. */
static bool finish_turn(const struct session *s, const struct turn *turn, bool logprobs)
{
    struct timing timing = { 0 };

    if (turn->write_failed)
        return false;
    if (!s->options->json && !command_write("run", "\n", 1))
        return false;
    if (s->options->timing)
        timing = turn_timing(turn);
    if (s->options->timing && !write_timing(s, &timing))
        return false;
    return !s->options->json || write_json(s, turn, s->options->timing ? &timing : NULL, logprobs);
}

/* ------------------------------------------------------------------------------------- chat */

static mc_status say(struct conversation *c, const char *role, const char *content,
                     struct mc_error *error)
{
    if (c->count == c->capacity) {
        const size_t capacity = c->capacity ? c->capacity * 2 : 16;
        struct mc_chat_message *messages =
            alloc_resize(c->alloc, c->messages, capacity, sizeof(*messages));
        if (!messages)
            return error_set(error, MC_E_NOMEM, "out of memory for the conversation");
        c->messages = messages;
        c->capacity = capacity;
    }
    c->messages[c->count++] = (struct mc_chat_message){ role, content };
    return MC_OK;
}

static mc_status say_copy(struct conversation *c, const char *role, const char *text, size_t size,
                          struct mc_error *error)
{
    char *copy = alloc_text(c->alloc, text, size);
    mc_status status = copy ? MC_OK : error_set(error, MC_E_NOMEM, "out of memory for the text");

    if (status == MC_OK)
        status = say(c, role, copy, error);
    if (status != MC_OK)
        alloc_free(c->alloc, copy);
    return status;
}

static mc_status say_user(struct conversation *c, const char *text, size_t size,
                          struct mc_error *error)
{
    const char *nul = memchr(text, '\0', size);

    if (nul)
        return error_set(error, MC_E_ARG, "the message has a NUL at byte %zu; a chat is text",
                         (size_t)(nul - text));
    return say_copy(c, "user", text, size, error);
}

/* A message ends at a NUL, so one that the model wrote is remembered as a blank. */
static mc_status say_answer(struct conversation *c, struct buf *text, struct mc_error *error)
{
    for (size_t i = 0; i < text->size; i++)
        if (text->data[i] == '\0')
            text->data[i] = ' ';
    return say_copy(c, "assistant", text->data ? text->data : "", text->size, error);
}

static void unsay(struct conversation *c)
{
    assert(c->count > c->owned_from);
    alloc_free(c->alloc, (void *)(uintptr_t)c->messages[--c->count].content);
}

static mc_status conversation_init(struct conversation *c, const struct session *s,
                                   struct mc_error *error)
{
    *c = (struct conversation){ .alloc = s->alloc };
    if (!s->options->system)
        return MC_OK;
    c->owned_from = 1;
    return say(c, "system", s->options->system, error);
}

static void conversation_fini(struct conversation *c)
{
    while (c->count > c->owned_from)
        unsay(c);
    alloc_free(c->alloc, c->messages);
}

/* The conversation so far as tokens. */
static mc_status encode_chat(const struct session *s, const struct conversation *c,
                             uint32_t **tokens_p, size_t *count_p, struct mc_error *error)
{
    char *text = NULL;
    size_t size = 0;

    mc_status status = mc_chat_render(s->model, c->messages, c->count, &text, &size, error);
    if (status == MC_OK)
        status = mc_model_encode(s->model, text, size, MC_ENCODE_BARE, tokens_p, count_p, error);
    mc_text_free(s->model, text);
    return status;
}

static mc_status chat_turn(const struct session *s, const struct conversation *c, struct turn *turn,
                           struct mc_error *error)
{
    uint32_t *tokens = NULL;
    size_t count = 0;

    mc_status status = encode_chat(s, c, &tokens, &count, error);
    if (status == MC_OK)
        status = turn_run(turn, s, tokens, count, error);
    mc_tokens_free(s->model, tokens);
    return status;
}

/* One message and its answer. A message that cannot be answered leaves the conversation. Returns
 * whether to go on; *code_p is set when something was wrong. */
static bool exchange(const struct session *s, struct conversation *c, const char *line, size_t size,
                     int *code_p)
{
    struct mc_error error = { 0 };
    struct turn turn = { 0 };

    mc_status status = say_user(c, line, size, &error);
    if (status == MC_OK) {
        status = chat_turn(s, c, &turn, &error);
        if (status != MC_OK)
            unsay(c);
    }
    if (status == MC_OK && finish_turn(s, &turn, false))
        status = say_answer(c, &turn.text, &error);
    const bool gone = turn.write_failed || ferror(stdout);
    turn_fini(&turn);
    if (status != MC_OK)
        report(&error, CMD_FAILED);
    if (status != MC_OK || gone)
        *code_p = CMD_FAILED;
    return !gone;
}

/* A line without its newline; false at the end of the conversation, *code_p then says how. Standard input
 * is unbuffered, so what was not read yet is where interrupt_wait() sees it. */
static bool read_line(char **line, size_t *capacity, size_t *size_p, int *code_p)
{
    const bool terminal = isatty(STDIN_FILENO) == 1;
    int seen = interrupt_count();

    for (;;) {
        if (terminal)
            fputs("> ", stderr);
        errno = 0;
        const bool ready = interrupt_wait(STDIN_FILENO, seen);
        const ssize_t n = ready ? getline(line, capacity, stdin) : -1;
        /* A line that a signal cut is dropped, as a terminal does. */
        if (n >= 0 && !ferror(stdin)) {
            *size_p = (size_t)n - (n > 0 && (*line)[n - 1] == '\n');
            (*line)[*size_p] = '\0';
            return true;
        }
        if (terminal)
            fputc('\n', stderr);
        if (interrupt_terminated() || interrupt_count() > 1) {
            *code_p = interrupt_exit_code();
            return false;
        }
        if (interrupt_count() == seen) { /* no signal: the end, or an error */
            if (ferror(stdin)) {
                command_complain("run", "standard input: cannot read: %s", strerror(errno));
                *code_p = CMD_FAILED;
            }
            return false;
        }
        seen = interrupt_count();
        clearerr(stdin);
        fputs("(Ctrl-C again, or Ctrl-D, ends)\n", stderr);
    }
}

static int converse(const struct session *s)
{
    struct conversation c;
    struct mc_error error = { 0 };
    char *line = NULL;
    size_t capacity = 0, size = 0;
    int code = CMD_OK;

    if (conversation_init(&c, s, &error) != MC_OK)
        return report(&error, CMD_FAILED);
    setvbuf(stdin, NULL, _IONBF, 0);
    while (read_line(&line, &capacity, &size, &code)) {
        interrupt_clear();
        if (size > 0 && !exchange(s, &c, line, size, &code))
            break;
        if (interrupt_count() > 1 || interrupt_terminated()) {
            code = interrupt_exit_code();
            break;
        }
    }
    free(line);
    conversation_fini(&c);
    return code;
}

/* ------------------------------------------------------------------------------ one prompt */

static mc_status plain_turn(const struct session *s, const char *text, size_t size,
                            struct turn *turn, struct mc_error *error)
{
    uint32_t *tokens = NULL;
    size_t count = 0;
    const unsigned flags = s->options->raw ? MC_ENCODE_BARE : 0;

    mc_status status = mc_model_encode(s->model, text, size, flags, &tokens, &count, error);
    if (status == MC_OK)
        status = turn_run(turn, s, tokens, count, error);
    mc_tokens_free(s->model, tokens);
    return status;
}

static mc_status chat_once(const struct session *s, const char *text, size_t size,
                           struct turn *turn, struct mc_error *error)
{
    struct conversation c;

    mc_status status = conversation_init(&c, s, error);
    if (status == MC_OK)
        status = say_user(&c, text, size, error);
    if (status == MC_OK)
        status = chat_turn(s, &c, turn, error);
    conversation_fini(&c);
    return status;
}

static int answer_once(const struct session *s, const char *text, size_t size, bool logprobs)
{
    struct mc_error error = { 0 };
    struct turn turn = { 0 };

    const mc_status status = s->options->chat ? chat_once(s, text, size, &turn, &error)
                                              : plain_turn(s, text, size, &turn, &error);
    int code = status == MC_OK ? interrupt_exit_code() : report(&error, CMD_FAILED);
    if (status == MC_OK && !finish_turn(s, &turn, logprobs))
        code = CMD_FAILED;
    turn_fini(&turn);
    return code;
}

static int run(const struct run_request *asked, const char *text, size_t size)
{
    const bool logprobs = settings_source(&asked->settings, "logprobs") != SETTING_DEFAULT;
    struct session s;
    struct mc_error error = { 0 };

    if (session_open(&s, asked->operands.items[0], &asked->options, asked->alloc, &error) != MC_OK)
        return report(&error, CMD_FAILED);
    const int code = text ? answer_once(&s, text, size, logprobs) : converse(&s);
    session_close(&s);
    return code;
}

static int print_config(const struct run_request *asked)
{
    struct buf out = BUF_INIT(asked->alloc);

    settings_print(&asked->settings, &out);
    const bool done = !out.failed && command_write("run", out.data, out.size);
    buf_fini(&out);
    return done ? CMD_OK : CMD_FAILED;
}

static int start(const struct run_request *asked)
{
    const struct run_options *o = &asked->options;
    struct mc_error error = { 0 };
    char *text = NULL;
    size_t size = 0;

    if (o->help)
        return command_print("run", run_options_help);
    if (o->print_config)
        return print_config(asked);
    const bool once = o->prompt || o->file;
    interrupt_install(once ? 1 : 2);
    mc_status status = MC_OK;
    if (once)
        status = prompt_read(o->prompt, o->file, stdin, asked->alloc, &text, &size, &error);
    int code = interrupt_exit_code(); /* reading may have ended by a signal */
    if (code == CMD_OK)
        code = status == MC_OK ? run(asked, text, size) : report(&error, CMD_FAILED);
    alloc_free(asked->alloc, text);
    return code;
}

static int run_main(int argc, char **argv)
{
    struct run_request asked;
    struct mc_error error = { 0 };

    const mc_status status = run_options_read(&asked, argc, argv, environ, os_alloc(), &error);
    const bool usage = status == MC_E_ARG || status == MC_E_RANGE;
    const int code =
        status == MC_OK ? start(&asked) : report(&error, usage ? CMD_USAGE : CMD_FAILED);
    run_options_fini(&asked);
    return code;
}

const struct command command_run = {
    .name = "run",
    .summary = "Run a model here: a prompt in, text out.",
    .main = run_main,
    .help = run_options_help,
};
