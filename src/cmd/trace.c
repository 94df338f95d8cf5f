/* trace.c - `mooncake trace stats | slice | generate`: what a trace is like, a part of it, another one like it. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/setting.h"
#include "cmd/cmd.h"
#include "cmd/interrupt.h"
#include "cmd/sim_trace.h"
#include "os/sysalloc.h"
#include "sim/generate.h"
#include "sim/tracestats.h"

extern char **environ;

/* clang-format off */
#define TRACE_SETTINGS(X)                                                                           \
    X(from, "from", 0, DURATION, "0s", 0, 1e18, NULL, "TIME", "stats, slice",                       \
      "Leave out what comes before, by the trace's own time.")                                      \
    X(to, "to", 0, DURATION, "0s", 0, 1e18, NULL, "TIME", "stats, slice",                           \
      "Leave out what comes then or later; 0: nothing.")                                            \
    X(limit, "limit", 0, U64, "0", 0, 0, NULL, "N", "stats, slice", "So many requests; 0: all.")    \
    X(memory, "memory", 0, SIZE, "4G", 1048576, 1e15, NULL, "SIZE", "stats, generate",              \
      "A trace that would take more than this is refused.")                                         \
    X(json, "json", 0, BOOL, "false", 0, 0, NULL, NULL, "stats, slice", "stats: as JSON.")          \
    X(like, "like", 0, TEXT, NULL, 0, 0, NULL, "FILE", "generate",                                  \
      "A trace to learn from: arrivals, lengths, families, sessions.")                              \
    X(requests, "requests", 'n', U32, "1000", 1, 1e8, NULL, "N", "generate", "How many.")           \
    X(rate, "rate", 0, FLOAT, "1", 1e-6, 1e6, NULL, "X", "generate",                                \
      "Requests a second, without --like.")                                                         \
    X(input_tokens, "input-tokens", 0, U32, "8000", 1, 1e6, NULL, "N", "generate",                  \
      "Mean length of a prompt that begins anew, without --like.")                                  \
    X(output_tokens, "output-tokens", 0, U32, "200", 1, 1e6, NULL, "N", "generate",                 \
      "Mean length of an answer, without --like.")                                                  \
    X(sessions, "sessions", 0, FLOAT, "0.5", 0, 1, NULL, "SHARE", "generate",                       \
      "Of requests that go on with an earlier prompt, without --like.")                             \
    X(seed, "seed", 0, U64, "0", 0, 0, NULL, "N", "generate", "Of whatever is drawn.")              \
    X(out, "out", 'o', TEXT, "-", 0, 0, NULL, "FILE", "slice, generate",                            \
      "Where the lines go; - is standard output.")                                                  \
    X(help, "help", 'h', ACTION, NULL, 0, 0, NULL, NULL, "Other", "Print this and end.")
/* clang-format on */

struct trace_settings {
    TRACE_SETTINGS(SETTING_FIELD)
};
#define TRACE_ROW(...) SETTING_ROW(trace_settings, __VA_ARGS__)
static const struct setting rows[] = { TRACE_SETTINGS(TRACE_ROW) };
enum { ROWS = sizeof(rows) / sizeof(rows[0]), OUT_BYTES = 1 << 16 };

static void help(struct buf *out)
{
    buf_add_text(out, "usage: mooncake trace stats FILE [settings]\n"
                      "       mooncake trace slice FILE --from 10m --to 20m [settings]\n"
                      "       mooncake trace generate [--like FILE] [settings]\n"
                      "\n"
                      "What a trace of requests is like; a part of it; another one like it.\n"
                      "\n");
    setting_help(rows, ROWS, out);
    buf_add_text(
        out, "\nExit codes: 0 done; 1 failed; 2 wrong usage; 130 interrupted.\n"
             "\n"
             "Examples:\n"
             "  mooncake trace stats conversation_trace.jsonl\n"
             "  mooncake trace generate --like conversation_trace.jsonl -n 100000 -o big.jsonl\n");
}

/* --------------------------------------------------------------------------------------- lines out */

struct lines {
    FILE *file;
    const char *name;
    struct buf text;
    const struct sim_trace_part *part;
    uint64_t first_ns, count;
    bool begun;
};

static mc_status flush(struct lines *l, struct mc_error *error)
{
    errno = 0;
    if (l->text.failed)
        return error_set(error, MC_E_NOMEM, "out of memory");
    if (l->text.size && fwrite(l->text.data, 1, l->text.size, l->file) != l->text.size)
        return error_set(error, MC_E_IO, "%s: %s", l->name, strerror(errno));
    buf_truncate(&l->text, 0);
    return MC_OK;
}

static mc_status open_lines(struct lines *l, const char *path, struct mc_error *error)
{
    *l = (struct lines){ .name = path, .text = BUF_INIT(os_alloc()) };
    l->file = strcmp(path, "-") == 0 ? stdout : fopen(path, "w");
    if (strcmp(path, "-") == 0)
        l->name = "standard output";
    return l->file ? MC_OK : error_set(error, MC_E_IO, "%s: %s", path, strerror(errno));
}

static mc_status close_lines(struct lines *l, mc_status status, struct mc_error *error)
{
    if (l->file && status == MC_OK)
        status = flush(l, error);
    if (l->file && (l->file == stdout ? fflush(l->file) : fclose(l->file)) != 0 && status == MC_OK)
        status = error_set(error, MC_E_IO, "%s: cannot write", l->name);
    buf_fini(&l->text);
    return status;
}

static mc_status put(struct lines *l, const struct trace_request *request, struct mc_error *error)
{
    trace_line(request, &l->text);
    if (interrupt_pending())
        return error_set(error, MC_E_CANCELLED, "interrupted");
    return l->text.size >= OUT_BYTES || l->text.failed ? flush(l, error) : MC_OK;
}

/* -------------------------------------------------------------------------------------------- slice */

static mc_status take_slice(void *user, const struct trace_request *request, struct mc_error *error)
{
    struct lines *l = user;
    struct trace_request moved = *request;

    if (!l->begun)
        l->first_ns = request->arrival_ns;
    l->begun = true;
    const uint64_t ns = request->arrival_ns - l->first_ns;
    if (ns < l->part->begin_ns)
        return MC_OK;
    if ((l->part->end_ns && ns >= l->part->end_ns) ||
        (l->part->limit && l->count >= l->part->limit))
        return MC_PENDING;
    l->count++;
    moved.arrival_ns = ns - l->part->begin_ns;
    return put(l, &moved, error);
}

/* What is read must not be cut short by what is written. */
static bool is_same_file(const char *a, const char *b)
{
    struct stat x, y;

    return stat(a, &x) == 0 && stat(b, &y) == 0 && S_ISREG(x.st_mode) && x.st_dev == y.st_dev &&
           x.st_ino == y.st_ino;
}

static mc_status slice(const struct trace_settings *o, const char *path, struct mc_error *error)
{
    const struct sim_trace_part part = { o->from, o->to, o->limit, { 0 } };
    struct lines lines;

    if (is_same_file(path, o->out))
        return error_set(error, MC_E_ARG, "%s: is what the slice is taken of; write it elsewhere",
                         o->out);
    mc_status status = open_lines(&lines, o->out, error);
    lines.part = &part;
    if (status == MC_OK)
        status = sim_trace_each(path, take_slice, &lines, error);
    if (status == MC_OK && lines.count == 0)
        status =
            error_set(error, MC_E_FORMAT, "%s: no request in the part that was asked for", path);
    return close_lines(&lines, status, error);
}

/* -------------------------------------------------------------------------------------------- stats */

/* Lengths, gaps and chains are sorted aside. */
static struct requests_room room_of(const struct trace_settings *o)
{
    return (struct requests_room){ .bytes = o->memory, .request_bytes = 64, .block_bytes = 32 };
}

static mc_status stats(const struct trace_settings *o, const char *path, struct mc_error *error)
{
    const struct sim_trace_part part = { o->from, o->to, o->limit, room_of(o) };
    struct requests requests = { 0 };
    struct tracestats s;
    struct sim_assume assume;
    struct buf out = BUF_INIT(os_alloc());

    assume_defaults(&assume);
    const struct sim_node node = assume_node(&assume);
    mc_status status = sim_trace_read(path, &part, &requests, error);
    if (status == MC_OK) {
        const struct sim_trace trace = requests_trace(&requests);
        status = tracestats_make(&trace, &node.cost, os_alloc(), &s);
        if (status != MC_OK)
            error_set(error, status, "out of memory");
    }
    if (status == MC_OK) {
        (o->json ? tracestats_json : tracestats_text)(&s, &out);
        if (out.failed || !command_write("trace", out.data, out.size))
            status = error_set(error, MC_E_IO, "the figures were not written");
    }
    buf_fini(&out);
    requests_fini(&requests);
    return status;
}

/* ----------------------------------------------------------------------------------------- generate */

struct generating {
    struct lines lines;
    struct mc_error *error;
};

static mc_status take_made(void *user, const struct trace_request *request)
{
    struct generating *g = user;

    return put(&g->lines, request, g->error);
}

static mc_status learn(const struct trace_settings *o, struct trace_fit *fit,
                       struct mc_error *error)
{
    struct requests requests = { 0 };

    if (!o->like) {
        trace_fit_plain(fit, (double)o->rate, o->input_tokens, o->output_tokens,
                        (double)o->sessions);
        return MC_OK;
    }
    mc_status status =
        sim_trace_read(o->like, &(struct sim_trace_part){ .room = room_of(o) }, &requests, error);
    if (status == MC_OK) {
        const struct sim_trace trace = requests_trace(&requests);
        status = trace_fit_make(&trace, os_alloc(), fit);
        if (status != MC_OK)
            error_set(error, status, "%s: %s", o->like,
                      status == MC_E_ARG ? "one request is nothing to learn from"
                                         : "out of memory");
    }
    requests_fini(&requests);
    return status;
}

static mc_status generate(const struct trace_settings *o, struct mc_error *error)
{
    struct generating g = { .error = error };
    struct trace_fit fit;

    mc_status status = learn(o, &fit, error);
    if (status != MC_OK)
        return status;
    status = open_lines(&g.lines, o->out, error);
    if (status == MC_OK) {
        status = trace_generate(&fit, o->requests, o->seed, os_alloc(), take_made, &g);
        if (status == MC_E_NOMEM)
            error_set(error, status, "out of memory");
    }
    return close_lines(&g.lines, status, error);
}

/* --------------------------------------------------------------------------------------------- main */

static mc_status read_options(struct settings *settings, struct trace_settings *o, int argc,
                              char **argv, struct setting_list *operands, struct mc_error *error)
{
    mc_status status = settings_init(settings, rows, ROWS, o, os_alloc(), error);

    if (status == MC_OK)
        status = settings_flags(settings, argc - 1, argv + 1, operands, error);
    if (status != MC_OK || o->help)
        return status;
    status = settings_env(settings, environ, error);
    if (status != MC_OK)
        return status;
    const bool generates = operands->count > 0 && strcmp(operands->items[0], "generate") == 0;
    if (operands->count == 0)
        return error_set(error, MC_E_ARG, "what is to be done? There are: stats, slice, generate");
    if (!generates && strcmp(operands->items[0], "stats") != 0 &&
        strcmp(operands->items[0], "slice") != 0)
        return error_set(error, MC_E_ARG, "\"%.60s\" is not one of stats, slice, generate",
                         operands->items[0]);
    if (operands->count != (generates ? 1u : 2u))
        return error_set(error, MC_E_ARG,
                         generates ? "generate takes no file; --like FILE does"
                                   : "want one trace file");
    if (o->to && o->to <= o->from)
        return error_set(error, MC_E_ARG, "--to: is not after --from");
    return MC_OK;
}

static int trace_main(int argc, char **argv)
{
    struct trace_settings o;
    struct settings settings = { 0 };
    struct setting_list operands = { 0 };
    struct mc_error error = { 0 };
    int code = CMD_OK;

    interrupt_install(1);
    mc_status status = read_options(&settings, &o, argc, argv, &operands, &error);
    if (status != MC_OK) {
        command_complain("trace", "%s", error.text);
        code = status == MC_E_NOMEM ? CMD_FAILED : CMD_USAGE;
    } else if (o.help) {
        code = command_print("trace", help);
    } else {
        status = strcmp(operands.items[0], "stats") == 0   ? stats(&o, operands.items[1], &error)
                 : strcmp(operands.items[0], "slice") == 0 ? slice(&o, operands.items[1], &error)
                                                           : generate(&o, &error);
        if (status != MC_OK && !interrupt_pending())
            command_complain("trace", "%s", error.text[0] ? error.text : mc_status_text(status));
        code = interrupt_pending() ? interrupt_exit_code() : status == MC_OK ? CMD_OK : CMD_FAILED;
    }
    if (settings.alloc)
        settings_fini(&settings);
    setting_list_fini(&operands, os_alloc());
    return code;
}

const struct command command_trace = { "trace", "Look at a trace of requests, or make one.",
                                       trace_main, help };
