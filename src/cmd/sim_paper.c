/* sim_paper.c - `mooncake sim paper`: the papers' experiments, published beside simulated. */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/setting.h"
#include "cmd/cmd.h"
#include "cmd/interrupt.h"
#include "cmd/sim_command.h"
#include "cmd/sim_shared.h"
#include "cmd/sim_trace.h"
#include "os/crew.h"
#include "os/sysalloc.h"
#include "sim/paper.h"

extern char **environ;

/* clang-format off */
#define PAPER_SETTINGS(X)                                                                           \
    X(traces, "traces", 0, TEXT, NULL, 0, 0, NULL, "DIR", "What comes",                             \
      "Where conversation_trace.jsonl, synthetic_trace.jsonl, toolagent_trace.jsonl and "           \
      "mooncake_trace.jsonl are; those that are not there are left out.")                           \
    X(threads, "threads", 'j', U32, "0", 0, 1024, NULL, "N", "Running",                             \
      "Runs at the same time; 0: one on each processor.")                                           \
    X(json, "json", 0, TEXT, NULL, 0, 0, NULL, "FILE", "Output", "Write the figures here, too.")    \
    X(commit, "commit", 0, TEXT, NULL, 0, 0, NULL, "NAME", "Output",                                \
      "Of the tree that was built, for --json.")                                                    \
    X(help, "help", 'h', ACTION, NULL, 0, 0, NULL, NULL, "Other", "Print this and end.")
/* clang-format on */

struct paper_options {
    PAPER_SETTINGS(SETTING_FIELD)
};
#define PAPER_ROW(...) SETTING_ROW(paper_options, __VA_ARGS__)
static const struct setting rows[] = { PAPER_SETTINGS(PAPER_ROW) };
enum { ROWS = sizeof(rows) / sizeof(rows[0]) };

static void help(struct buf *out)
{
    buf_add_text(out, "usage: mooncake sim paper --traces DIR [settings]\n"
                      "\n"
                      "Run the papers' experiments again: published, simulated, ratio.\n"
                      "\n");
    setting_help(rows, ROWS, out);
    buf_add_text(out, "\nExit codes: 0 done; 1 failed; 2 wrong usage; 130 interrupted.\n");
}

/* ------------------------------------------------------------------------------------------- running */

struct work {
    struct paper *paper;
    struct mc_error *errors; /* [run_count] */
    bool shows;
    atomic_uint over; /* runs; relaxed: only shown */
};

static void run_one(void *argument, uint32_t index, uint32_t thread)
{
    struct work *work = argument;
    struct mc_error *error = &work->errors[index];
    sim *s = NULL;

    (void)thread;
    if (interrupt_pending()) {
        error->status = MC_E_CANCELLED;
        return;
    }
    mc_status status = sim_open(paper_options(work->paper, index), &s, error);
    if (status == MC_E_UNSUPPORTED) /* its rows are left out */
        *error = (struct mc_error){ 0 };
    if (status == MC_OK)
        status = sim_run_all(s, error);
    if (status == MC_OK) {
        const struct sim_result result = sim_result(s);
        if (paper_take(work->paper, index, &result) != MC_OK)
            error_set(error, MC_E_NOMEM, "out of memory");
    }
    sim_close(s);
    const unsigned over = atomic_fetch_add_explicit(&work->over, 1, memory_order_relaxed) + 1;
    if (work->shows)
        fprintf(stderr, "\rmooncake sim: %u of %u runs%s", over, work->paper->run_count,
                over == work->paper->run_count ? "\n" : "");
}

static mc_status run_all(struct paper *paper, uint32_t threads, struct mc_error *error)
{
    struct work work = { .paper = paper, .shows = isatty(2) };
    os_crew *crew = NULL;

    mc_status status = paper_plan(paper);
    work.errors = alloc_zeroed(os_alloc(), paper->run_count + 1, sizeof(*work.errors));
    if (status == MC_OK && !work.errors)
        status = MC_E_NOMEM;
    if (status == MC_OK)
        status = os_crew_open(threads, os_alloc(), &crew, error);
    if (status == MC_OK)
        os_crew_run(crew, run_one, &work, paper->run_count);
    for (uint32_t i = 0; status == MC_OK && i < paper->run_count; i++)
        if (work.errors[i].status != MC_OK)
            status = error_set(error, work.errors[i].status, "%s: %.400s", paper->runs[i].name,
                               work.errors[i].text);
    os_crew_close(crew);
    alloc_free(os_alloc(), work.errors);
    return status == MC_OK ? paper_report(paper) : status;
}

/* -------------------------------------------------------------------------------------------- output */

/* "10 %", "5 points": how near it is to be; "" where nobody has said. */
static void bound_text(const struct paper_row *row, char text[24])
{
    text[0] = '\0';
    if (row->bound == PAPER_PERCENT)
        snprintf(text, 24, "%g %%", row->limit);
    else if (row->bound == PAPER_POINTS)
        snprintf(text, 24, "%g points", row->limit);
    else if (row->bound == PAPER_BLOCKS)
        snprintf(text, 24, "%.3f-%.3f", row->low, row->high);
    else if (row->bound == PAPER_ORDER)
        snprintf(text, 24, "the order");
}

static const char *verdict(const struct paper_row *row)
{
    return row->bound == PAPER_FREE ? "" : paper_row_holds(row) ? "yes" : "NO";
}

static void print_row(const struct paper_row *row, struct buf *out)
{
    char bound[24];

    bound_text(row, bound);
    buf_addf(out, "%-40s %-23s %-11s ", row->name, row->metric, row->unit);
    if (isnan(row->published))
        buf_addf(out, "%9s %9.4g\n", "-", row->simulated);
    else if (row->absent)
        buf_addf(out, "%9.4g trace not at hand\n", row->published);
    else
        buf_addf(out, "%9.4g %9.4g %7.3f%s%-12s%s\n", row->published, row->simulated,
                 row->published != 0 ? row->simulated / row->published : 0, bound[0] ? "  " : "",
                 bound, verdict(row));
}

/* How many rows are to be how near, and which are not. */
static void print_verdict(const struct paper *paper, struct buf *out)
{
    uint32_t bounded = 0, held = 0;

    for (uint32_t i = 0; i < paper->row_count; i++) {
        const struct paper_row *row = &paper->rows[i];

        bounded += row->bound != PAPER_FREE && !row->absent;
        held += row->bound != PAPER_FREE && !row->absent && paper_row_holds(row);
    }
    buf_addf(out, "\n%u of %u rows that have a bound are within it.", held, bounded);
    for (uint32_t i = 0; i < paper->row_count; i++)
        if (!paper_row_holds(&paper->rows[i]))
            buf_addf(out, "\n  not: %s, %s", paper->rows[i].name, paper->rows[i].metric);
    buf_add_text(out, "\n");
}

static bool print_rows(const struct paper *paper)
{
    struct buf out = BUF_INIT(os_alloc());

    buf_addf(&out, "%-40s %-23s %-11s %9s %9s %7s  %-12s%s\n", "case", "metric", "unit",
             "published", "simulated", "ratio", "bound", "within");
    for (uint32_t i = 0; i < paper->row_count; i++)
        print_row(&paper->rows[i], &out);
    print_verdict(paper, &out);
    buf_add_text(&out, "\nWhat the papers leave open, and what was taken:\n");
    for (const struct paper_note *note = paper_notes; note->experiment; note++)
        buf_addf(&out, "  %-8s %s\n", note->experiment, note->text);
    buf_add_text(&out,
                 "\nAssumptions, the same for every row (mooncake sim --print-assumptions):\n");
    assume_print(&paper->assume, &out);
    const bool done = !out.failed && command_write("sim", out.data, out.size);
    buf_fini(&out);
    return done;
}

/* Of a trace that is not at hand there is no value: the row says so. */
static void absent_row(struct bench *bench, const struct paper_row *row)
{
    struct buf *out = &bench->rows;

    buf_add_text(out, bench->count++ ? ",\n  { \"case\": " : "  { \"case\": ");
    buf_add_json(out, row->name, strlen(row->name));
    buf_add_text(out, ", \"metric\": ");
    buf_add_json(out, row->metric, strlen(row->metric));
    buf_addf(
        out,
        ", \"unit\": \"%s\", \"value\": null, \"n\": 0, \"peer\": \"paper\", \"peer_value\": %.6g, "
        "\"note\": \"trace not at hand\" }",
        row->unit, row->published);
}

static bool write_json(const struct paper *paper, const struct paper_options *o, int argc,
                       char **argv)
{
    struct bench bench;
    char command[1000];

    sim_join_words(argc, argv, command, sizeof(command));
    bench_init(&bench, "sim paper", command, o->commit);
    for (uint32_t i = 0; i < paper->row_count; i++) {
        const struct paper_row *row = &paper->rows[i];
        char bound[24], note[64];

        bound_text(row, bound);
        snprintf(note, sizeof(note), "bound %s: %s", bound, verdict(row));
        if (row->absent)
            absent_row(&bench, row);
        else
            bench_figure(&bench, &(struct figure){ .name = row->name,
                                                   .metric = row->metric,
                                                   .unit = row->unit,
                                                   .value = row->simulated,
                                                   .min = row->low,
                                                   .max = row->high,
                                                   .n = 1,
                                                   .peer = isnan(row->published) ? NULL : "paper",
                                                   .peer_value = row->published,
                                                   .note = bound[0] ? note : NULL });
    }
    const bool done = bench_write(&bench, o->json);
    bench_fini(&bench);
    return done;
}

/* ----------------------------------------------------------------------------------------------- main */

static mc_status read_traces(const char *directory, struct requests *requests,
                             struct sim_trace *traces, struct mc_error *error)
{
    char path[1024];
    uint32_t found = 0;

    for (int t = 0; t < PAPER_TRACES; t++) {
        if (!paper_files[t])
            continue;
        snprintf(path, sizeof(path), "%s/%s", directory, paper_files[t]);
        const mc_status status =
            sim_trace_read(path, &(struct sim_trace_part){ 0 }, &requests[t], error);
        if (status == MC_E_NOT_FOUND)
            continue;
        if (status != MC_OK)
            return status;
        traces[t] = requests_trace(&requests[t]);
        found++;
    }
    if (found == 0)
        return error_set(error, MC_E_NOT_FOUND, "%s: none of the papers' traces is there",
                         directory);
    *error = (struct mc_error){ 0 };
    return MC_OK;
}

static int run(const struct paper_options *o, int argc, char **argv)
{
    struct requests requests[PAPER_TRACES] = { 0 };
    struct sim_trace traces[PAPER_TRACES] = { 0 };
    struct paper paper = { 0 };
    struct sim_assume assume;
    struct mc_error error = { 0 };
    bool done = false;

    assume_defaults(&assume);
    mc_status status = read_traces(o->traces, requests, traces, &error);
    if (status == MC_OK)
        status = paper_init(&paper, &assume, traces, os_alloc());
    if (status == MC_OK)
        status = run_all(&paper, o->threads ? o->threads : os_processors(), &error);
    if (status == MC_OK)
        done = print_rows(&paper) && (!o->json || write_json(&paper, o, argc, argv));
    else if (!interrupt_pending())
        command_complain("sim", "%s", error.text[0] ? error.text : mc_status_text(status));
    paper_fini(&paper);
    for (int t = 0; t < PAPER_TRACES; t++)
        requests_fini(&requests[t]);
    return interrupt_pending() ? interrupt_exit_code() : done ? CMD_OK : CMD_FAILED;
}

int sim_paper_main(int argc, char **argv)
{
    struct paper_options o;
    struct settings settings;
    struct setting_list operands = { 0 };
    struct mc_error error = { 0 };
    int code;

    interrupt_install(1);
    mc_status status = settings_init(&settings, rows, ROWS, &o, os_alloc(), &error);
    if (status == MC_OK) {
        status = settings_flags(&settings, argc - 2, argv + 2, &operands, &error);
        if (status == MC_OK && !o.help)
            status = settings_env(&settings, environ, &error);
        if (status == MC_OK && !o.help && operands.count > 0)
            status = error_set(&error, MC_E_ARG, "\"%.80s\": only flags are expected here",
                               operands.items[0]);
        if (status == MC_OK && !o.help && !o.traces)
            status = error_set(&error, MC_E_ARG, "paper: --traces DIR is required");
    }
    if (status != MC_OK) {
        command_complain("sim", "%s", error.text);
        code = status == MC_E_NOMEM ? CMD_FAILED : CMD_USAGE;
    } else {
        code = o.help ? command_print("sim", help) : run(&o, argc, argv);
    }
    settings_fini(&settings);
    setting_list_fini(&operands, os_alloc());
    return code;
}
