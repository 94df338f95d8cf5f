/* sim.c - `mooncake sim`: runs in parallel, then table, JSON, CSV and page. `sim paper` is in sim_paper.c. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"
#include "cmd/cmd.h"
#include "cmd/figures.h"
#include "cmd/interrupt.h"
#include "cmd/sim_command.h"
#include "cmd/sim_options.h"
#include "cmd/sim_shared.h"
#include "cmd/sim_trace.h"
#include "os/clock.h"
#include "os/crew.h"
#include "os/sysalloc.h"
#include "sim/report.h"
#include "sim/tracestats.h"

extern char **environ;

/* What the threads of a sweep share; each writes its own runs and nothing else but the atomics. */
struct sweep {
    const struct sim_request_options *request;
    struct sim_trace trace;
    uint32_t watched[SIM_WATCHED_MAX], watched_count;
    struct report_run *runs; /* [count] */
    struct mc_error *errors; /* [count] */
    uint64_t *cpu_ns;        /* [count]: that each run took */
    uint32_t count;
    bool csv, shows;
    atomic_uint over; /* runs; relaxed: only shown */
};

static void run_one(void *argument, uint32_t index, uint32_t thread)
{
    struct sweep *sweep = argument;
    struct report_run *run = &sweep->runs[index];
    struct mc_error *error = &sweep->errors[index];
    struct sim_options options;
    sim *s = NULL;

    (void)thread;
    if (interrupt_pending())
        return;
    mc_status status = sim_options_run(sweep->request, index, &options, run->name, error);
    options.trace = &sweep->trace;
    memcpy(options.watched, sweep->watched, sizeof(options.watched));
    options.watched_count = sweep->watched_count;
    if (status == MC_OK)
        status = sim_open(&options, &s, error);
    const uint64_t begin_ns = os_now_ns();
    if (status == MC_OK)
        status = sim_run_all(s, error);
    sweep->cpu_ns[index] = os_now_ns() - begin_ns;
    if (status == MC_OK) {
        const struct sim_result result = sim_result(s);
        status = report_take(run, &options, &result, sweep->csv);
        if (status != MC_OK)
            error_set(error, status, "out of memory for the report");
    }
    sim_close(s);
    const unsigned over = atomic_fetch_add_explicit(&sweep->over, 1, memory_order_relaxed) + 1;
    if (sweep->shows && sweep->count > 1)
        fprintf(stderr, "\rmooncake sim: %u of %u runs%s", over, sweep->count,
                over == sweep->count ? "\n" : "");
}

/* ------------------------------------------------------------------------------------------ output */

static void figures_of(struct bench *bench, const struct report_run *run, uint64_t wall_ns)
{
    const struct summary *m = &run->summary;
    const double offered = m->offered ? m->offered : 1;

    sim_figure(bench, run->name, "finished", "share", m->finished / offered, m->offered);
    sim_figure(bench, run->name, "refused", "share", (m->refused + m->late) / offered, m->offered);
    sim_figure(bench, run->name, "within SLOs", "share", m->good / offered, m->offered);
    sim_figure(bench, run->name, "goodput", "1/s", m->goodput, m->good);
    sim_figure(bench, run->name, "goodput tokens", "1/s", m->goodput_tokens, m->good);
    sim_figure(bench, run->name, "ttft mean", "s", m->ttft_mean, m->finished);
    sim_figure(bench, run->name, "ttft p50", "s", summary_at(m->ttft, m->finished, .5),
               m->finished);
    sim_figure(bench, run->name, "ttft p90", "s", summary_at(m->ttft, m->finished, .9),
               m->finished);
    sim_figure(bench, run->name, "ttft p99", "s", summary_at(m->ttft, m->finished, .99),
               m->finished);
    sim_figure(bench, run->name, "tbt mean", "s", m->tbt_mean, m->finished);
    sim_figure(bench, run->name, "tbt p90", "s", summary_at(m->tbt, m->finished, .9), m->finished);
    sim_figure(bench, run->name, "hit ratio", "share", m->hit, m->finished);
    sim_figure(bench, run->name, "prefill time", "s", m->busy_mean, m->finished);
    sim_figure(bench, run->name, "wasted prefill", "s", m->wasted_s, m->offered);
    sim_figure(bench, run->name, "regret mean", "s", m->regret_mean, m->finished);
    if (m->copies)
        sim_figure(bench, run->name, "hot prefixes copied", "blocks", (double)m->copied_blocks,
                   m->copies);
    if (m->came_back)
        sim_figure(bench, run->name, "came back and got in", "share",
                   (double)m->got_in / m->came_back, m->came_back);
    if (m->refusals)
        sim_figure(bench, run->name, "refused but would have met", "share",
                   (double)m->would_have_met / (double)m->refusals, m->refusals);
    for (uint32_t d = 0; d < SUMMARY_DECILES; d++) {
        char metric[48];
        snprintf(metric, sizeof(metric), "finished, decile %u of lengths", d + 1);
        sim_figure(bench, run->name, metric, "share", m->accepted[d], m->offered / SUMMARY_DECILES);
    }
    if (wall_ns)
        sim_figure(bench, run->name, "throughput", "x real time",
                   m->span_s / ((double)wall_ns / 1e9), 1);
}

static bool write_csv(const struct sweep *sweep, const char *path)
{
    FILE *file = fopen(path, "w");
    bool done = file && fputs(report_csv_heading, file) >= 0;

    for (uint32_t i = 0; done && i < sweep->count; i++)
        done = sweep->runs[i].csv.size == 0 ||
               fwrite(sweep->runs[i].csv.data, 1, sweep->runs[i].csv.size, file) ==
                   sweep->runs[i].csv.size;
    if (file)
        done = fclose(file) == 0 && done;
    if (!done)
        command_complain("sim", "cannot write %s", path);
    return done;
}

static bool write_page(const struct sweep *sweep, const char *path)
{
    struct buf settings = BUF_INIT(os_alloc()), page = BUF_INIT(os_alloc());

    settings_print(&sweep->request->settings, &settings);
    assume_print(&sweep->request->assume, &settings);
    report_page(sweep->runs, sweep->count, "Mooncake simulation",
                settings.data ? settings.data : "", os_alloc(), &page);
    const bool done = sim_write_file(path, &page);
    buf_fini(&settings);
    buf_fini(&page);
    return done;
}

static bool write_all(const struct sweep *sweep, int argc, char **argv)
{
    const struct sim_settings *o = &sweep->request->options;
    struct buf table = BUF_INIT(os_alloc());
    bool done;

    report_table(sweep->runs, sweep->count, &table);
    done = !table.failed && command_write("sim", table.data, table.size);
    buf_fini(&table);
    if (o->json) {
        struct bench bench;
        char command[1000];

        sim_join_words(argc, argv, command, sizeof(command));
        bench_init(&bench, "sim", command, o->commit);
        for (uint32_t i = 0; i < sweep->count; i++)
            if (sweep->runs[i].done)
                figures_of(&bench, &sweep->runs[i], sweep->cpu_ns[i]);
        done = bench_write(&bench, o->json) && done;
        bench_fini(&bench);
    }
    if (o->csv)
        done = write_csv(sweep, o->csv) && done;
    if (o->html)
        done = write_page(sweep, o->html) && done;
    return done;
}

/* --------------------------------------------------------------------------------------------- sweep */

static bool complain_all(const struct sweep *sweep)
{
    bool fine = true;

    for (uint32_t i = 0; i < sweep->count; i++)
        if (sweep->errors[i].status != MC_OK && sweep->errors[i].status != MC_E_CANCELLED) {
            command_complain("sim", "%s: %s", sweep->runs[i].name, sweep->errors[i].text);
            fine = false;
        }
    return fine;
}

static uint32_t threads_of(const struct sim_request_options *r, uint32_t runs)
{
    const uint32_t threads = r->options.threads ? r->options.threads : os_processors();

    return threads < runs ? threads : runs;
}

static mc_status open_sweep(struct sweep *sweep, const struct requests *requests)
{
    const struct sim_node node = assume_node(&sweep->request->assume);
    struct tracestats stats;

    sweep->trace = requests_trace(requests);
    sweep->count = sim_options_runs(sweep->request);
    sweep->runs = alloc_zeroed(os_alloc(), sweep->count, sizeof(*sweep->runs));
    sweep->errors = alloc_zeroed(os_alloc(), sweep->count, sizeof(*sweep->errors));
    sweep->cpu_ns = alloc_zeroed(os_alloc(), sweep->count, sizeof(*sweep->cpu_ns));
    if (!sweep->runs || !sweep->errors || !sweep->cpu_ns)
        return MC_E_NOMEM;
    const mc_status status = tracestats_make(&sweep->trace, &node.cost, os_alloc(), &stats);
    if (status == MC_OK && sweep->trace.block_ids >= 10) {
        memcpy(sweep->watched, stats.rank_block, sizeof(sweep->watched));
        for (uint64_t rank = 10; rank <= sweep->trace.block_ids && sweep->watched_count < 4;
             rank *= 10)
            sweep->watched_count++;
    }
    return status;
}

static int run_sweep(const struct sim_request_options *r, const struct requests *requests, int argc,
                     char **argv)
{
    struct sweep sweep = { .request = r, .csv = r->options.csv != NULL, .shows = isatty(2) };
    struct mc_error error = { 0 };
    os_crew *crew = NULL;
    int code = CMD_FAILED;

    mc_status status = open_sweep(&sweep, requests);
    if (status == MC_OK)
        status = os_crew_open(threads_of(r, sweep.count), os_alloc(), &crew, &error);
    if (status != MC_OK) {
        command_complain("sim", "%s", error.text[0] ? error.text : mc_status_text(status));
    } else {
        os_crew_run(crew, run_one, &sweep, sweep.count);
        const bool fine = complain_all(&sweep), written = write_all(&sweep, argc, argv);
        code = interrupt_pending() ? interrupt_exit_code() : fine && written ? CMD_OK : CMD_FAILED;
    }
    os_crew_close(crew);
    for (uint32_t i = 0; sweep.runs && i < sweep.count; i++)
        report_fini(&sweep.runs[i]);
    alloc_free(os_alloc(), sweep.cpu_ns);
    alloc_free(os_alloc(), sweep.errors);
    alloc_free(os_alloc(), sweep.runs);
    return code;
}

/* What the settings of a run contradict is said before a long trace is read. */
static bool check_runs(const struct sim_request_options *r)
{
    const struct sim_trace nothing = { .block_tokens = TRACE_BLOCK_TOKENS };
    struct mc_error error = { 0 };
    struct sim_options options;
    char name[160];

    for (uint32_t i = 0; i < sim_options_runs(r); i++) {
        sim *s = NULL;

        mc_status status = sim_options_run(r, i, &options, name, &error);
        options.trace = &nothing;
        if (status == MC_OK)
            status = sim_open(&options, &s, &error);
        sim_close(s);
        if (status == MC_OK || status == MC_E_NOMEM) /* memory: the run will say so */
            continue;
        command_complain("sim", "%s: %s", name, error.text);
        return false;
    }
    return true;
}

/* Nothing is cut short yet: what is there of an earlier run stays until there is a new one. */
static bool check_output(const char *path)
{
    FILE *file = path ? fopen(path, "ab") : NULL;

    if (path && !file)
        command_complain("sim", "cannot write %s: %s", path, strerror(errno));
    if (file)
        fclose(file);
    return !path || file;
}

/* All runs keep what their tables, plots and CSV need; those under way have all of the simulation. */
static struct requests_room room_of(const struct sim_request_options *r)
{
    const uint32_t runs = sim_options_runs(r), threads = threads_of(r, runs);

    return (struct requests_room){ .bytes = r->options.memory,
                                   .request_bytes =
                                       (uint64_t)threads * SIM_REQUEST_BYTES +
                                       (uint64_t)runs * REPORT_REQUEST_BYTES +
                                       (r->options.csv ? (uint64_t)runs * REPORT_LINE_BYTES : 0),
                                   .block_bytes = (uint64_t)threads * SIM_BLOCK_BYTES };
}

static int read_and_run(const struct sim_request_options *r, int argc, char **argv)
{
    const struct sim_trace_part part = { .end_ns = r->options.duration,
                                         .limit = r->options.limit,
                                         .room = room_of(r) };
    struct requests requests = { 0 };
    struct mc_error error = { 0 };
    int code = CMD_FAILED;

    if (!check_runs(r))
        return CMD_USAGE;
    if (!check_output(r->options.json) || !check_output(r->options.csv) ||
        !check_output(r->options.html))
        return CMD_FAILED;
    if (sim_trace_read(r->options.trace, &part, &requests, &error) != MC_OK)
        command_complain("sim", "%s", error.text);
    else
        code = run_sweep(r, &requests, argc, argv);
    requests_fini(&requests);
    return code;
}

static int print_assumptions(const struct sim_request_options *r)
{
    struct buf out = BUF_INIT(os_alloc());

    assume_print(&r->assume, &out);
    const bool done = !out.failed && command_write("sim", out.data, out.size);
    buf_fini(&out);
    return done ? CMD_OK : CMD_FAILED;
}

static int print_config(const struct sim_request_options *r)
{
    struct buf out = BUF_INIT(os_alloc());

    settings_print(&r->settings, &out);
    const bool done = !out.failed && command_write("sim", out.data, out.size);
    buf_fini(&out);
    return done ? CMD_OK : CMD_FAILED;
}

static int replay(const struct sim_request_options *r, int argc, char **argv)
{
    char command[1000];
    const struct sim_replay_output output = { .file = r->options.replay,
                                              .json = r->options.json,
                                              .commit = r->options.commit,
                                              .command = command };

    sim_join_words(argc, argv, command, sizeof(command));
    return sim_replay_main(&output);
}

static int sim_main(int argc, char **argv)
{
    struct sim_request_options *r;
    struct mc_error error = { 0 };
    int code;

    if (argc > 1 && strcmp(argv[1], "paper") == 0)
        return sim_paper_main(argc, argv);
    r = alloc_zeroed(os_alloc(), 1, sizeof(*r));
    if (!r) {
        command_complain("sim", "out of memory");
        return CMD_FAILED;
    }
    interrupt_install(1);
    const mc_status status = sim_options_read(r, argc, argv, environ, os_alloc(), &error);
    if (status != MC_OK) {
        command_complain("sim", "%s", error.text);
        code = status == MC_E_ARG || status == MC_E_RANGE || status == MC_E_FORMAT ? CMD_USAGE
                                                                                   : CMD_FAILED;
    } else if (r->options.help) {
        code = command_print("sim", sim_options_help);
    } else if (r->options.print_config) {
        code = print_config(r);
    } else if (r->options.print_assumptions) {
        code = print_assumptions(r);
    } else if (r->options.replay) {
        code = replay(r, argc, argv);
    } else {
        code = read_and_run(r, argc, argv);
    }
    sim_options_fini(r);
    alloc_free(os_alloc(), r);
    return code;
}

const struct command command_sim = { "sim", "Play a trace through a simulated cluster.", sim_main,
                                     sim_options_help };
