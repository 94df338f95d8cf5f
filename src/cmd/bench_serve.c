/* bench_serve.c - mooncake bench serve: ask the server what it is, run the load, tell what came of it. */
#define _GNU_SOURCE /* struct rusage's fields under strict C */
#include "cmd/bench_serve.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/error.h"
#include "cmd/bench_serve_ask.h"
#include "cmd/bench_serve_load.h"
#include "cmd/bench_serve_report.h"
#include "cmd/cmd.h"
#include "os/host.h"
#include "os/signals.h"
#include "os/sysalloc.h"

extern char **environ;

enum { SLOTS_MOST = 65536, DESCRIPTORS_KEPT = 64 };

/** All of one run. */
struct serve_bench {
    const struct bench_serve_request *request;
    os_loop *loop;
    struct os_signals signals;
    http_client *client;
    struct bench_server server;
    struct bench_source source;
    struct bench_body body;
    struct bench_load load;
    FILE *csv;
    char authorization[1024], ttft[64], tbt[64]; /* headers */
    char name[400];                              /* of the case */
    int signal;                                  /* that came; 0: none */
    bool running;                                /* the load is */
    bool terminal;                               /* standard error is one */
    double cpu_s;
};

/* ---------------------------------------------------------------------------------------- the world */

static void on_signal(void *user, int number)
{
    struct serve_bench *b = user;

    if (b->signal != 0)
        _exit(number == SIGINT ? CMD_INTERRUPTED : CMD_TERMINATED); /* twice: at once */
    b->signal = number;
    if (b->running)
        bench_load_interrupt(&b->load);
    else
        os_loop_stop(b->loop);
}

/* As many descriptors as the system gives; how many requests that is. */
static uint32_t raise_descriptors(void)
{
    const uint64_t most = os_descriptors_raise();

    if (most > SLOTS_MOST + DESCRIPTORS_KEPT)
        return SLOTS_MOST;
    return most > 2 * DESCRIPTORS_KEPT ? (uint32_t)most - DESCRIPTORS_KEPT : DESCRIPTORS_KEPT;
}

static double processor_seconds(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* ----------------------------------------------------------------------------------------- progress */

static void on_progress(void *user, const struct bench_load *load, uint64_t elapsed_ns)
{
    const struct serve_bench *b = user;
    const struct bench_tally *t = &load->tally;
    const double s = (double)elapsed_ns / 1e9;

    fprintf(
        stderr,
        "%s%.0f s: sent %llu (%.1f/s), answered %llu, refused %llu, failed %llu, in flight %llu, "
        "waiting %llu; TTFT p50 %.0f ms, p99 %.0f ms%s",
        b->terminal ? "\r\033[K" : "mooncake bench: ", s, (unsigned long long)t->sent,
        (double)t->sent / s, (unsigned long long)t->ended[BENCH_ANSWERED],
        (unsigned long long)t->ended[BENCH_REFUSED], (unsigned long long)t->ended[BENCH_FAILED],
        (unsigned long long)t->in_flight, (unsigned long long)load->waiting,
        (double)percentile_at(&t->ttft, 0.5) / 1e6, (double)percentile_at(&t->ttft, 0.99) / 1e6,
        b->terminal ? "" : "\n");
    fflush(stderr);
}

/* ------------------------------------------------------------------------------------------- begin */

static mc_status open_client(struct serve_bench *b, struct mc_error *error)
{
    const struct bench_serve_options *o = &b->request->options;
    const char *headers[4] = { NULL };
    size_t count = 0;

    if (o->api_key) {
        if (strpbrk(o->api_key, "\r\n") || strlen(o->api_key) > 900)
            return error_set(error, MC_E_ARG, "--api-key: is not fit for a header");
        snprintf(b->authorization, sizeof(b->authorization), "Authorization: Bearer %s",
                 o->api_key);
        headers[count++] = b->authorization;
    }
    if (o->send_slo && o->slo_ttft > 0) {
        snprintf(b->ttft, sizeof(b->ttft), "x-slo-ttft-ms: %.6g", (double)o->slo_ttft / 1e6);
        headers[count++] = b->ttft;
    }
    if (o->send_slo && o->slo_tbt > 0) {
        snprintf(b->tbt, sizeof(b->tbt), "x-slo-tpot-ms: %.6g", (double)o->slo_tbt / 1e6);
        headers[count++] = b->tbt;
    }
    const struct http_client_options options = { .alloc = b->request->alloc,
                                                 .loop = b->loop,
                                                 .url = o->url,
                                                 .headers = headers,
                                                 .timeout_ns = o->timeout };
    return http_client_open(&options, &b->client, error);
}

static mc_status ask_server(struct serve_bench *b, struct mc_error *error)
{
    const struct bench_serve_request *r = b->request;
    struct bench_server *server = &b->server;
    mc_status status =
        bench_ask_models(b->client, b->loop, r->options.url, r->options.model, server, error);

    if (status != MC_OK)
        return status;
    if (r->options.context)
        server->context_tokens = r->options.context;
    if (server->context_tokens < 2) {
        server->context_tokens = 0;
        command_complain("bench", "the server does not tell its context: prompts are not cut "
                                  "(--context N says it)");
    }
    server->token_low = r->token_low;
    server->token_high = r->token_high;
    if (r->options.prompt == BENCH_TOKENS && server->token_high == 0)
        status = bench_ask_ids(b->client, b->loop, server, error);
    return status;
}

/* "conversation_trace.jsonl, scale block, speed 12": what the figures are of. */
static void name_case(struct serve_bench *b)
{
    const struct bench_serve_options *o = &b->request->options;
    const char *slash = o->trace ? strrchr(o->trace, '/') : NULL;
    char source[200], times[100];

    if (o->name) {
        snprintf(b->name, sizeof(b->name), "%s", o->name);
        return;
    }
    if (o->trace)
        snprintf(source, sizeof(source), "%.150s, scale %s", slash ? slash + 1 : o->trace,
                 o->scale == BENCH_SCALE_BLOCK ? "block" : "none");
    else
        snprintf(source, sizeof(source), "prompts of %u tokens, answers of %u", o->input_tokens,
                 o->output_tokens);
    if (b->request->arrival == BENCH_CLOSED)
        snprintf(times, sizeof(times), "%u at once", o->concurrency);
    else if (b->request->arrival == BENCH_BY_RATE)
        snprintf(times, sizeof(times), "%g a second", (double)o->rate);
    else
        snprintf(times, sizeof(times), "speed %g", (double)o->speed);
    snprintf(b->name, sizeof(b->name), "%s, %s", source, times);
}

/* Files are opened before the load: after an hour is too late to say that one cannot be written. */
static mc_status open_files(struct serve_bench *b, struct mc_error *error)
{
    const struct bench_serve_options *o = &b->request->options;
    const char *const later[] = { o->json, o->svg };

    if (o->csv) {
        b->csv = fopen(o->csv, "w");
        if (!b->csv)
            return error_set(error, MC_E_IO, "%s: %s", o->csv, strerror(errno));
        fputs(bench_record_head, b->csv);
    }
    for (size_t i = 0; i < sizeof(later) / sizeof(later[0]); i++) {
        FILE *file = later[i] ? fopen(later[i], "a") : NULL;
        if (later[i] && !file)
            return error_set(error, MC_E_IO, "%s: %s", later[i], strerror(errno));
        if (file)
            fclose(file);
    }
    return MC_OK;
}

static mc_status open_load(struct serve_bench *b, struct mc_error *error)
{
    const struct bench_serve_request *r = b->request;
    const struct bench_serve_options *o = &r->options;
    const uint32_t possible = raise_descriptors();

    if (o->in_flight > possible || o->concurrency > possible)
        return error_set(error, MC_E_FULL,
                         "this process may have %u connections and no more (ulimit -n)", possible);
    mc_status status = bench_source_open(&b->source, r, b->server.context_tokens, error);
    if (status == MC_OK)
        status = open_files(b, error);
    if (status != MC_OK)
        return status;
    b->body = (struct bench_body){ .model = b->server.model,
                                   .chat = o->endpoint == BENCH_CHAT,
                                   .text = o->prompt == BENCH_TEXT,
                                   .ignore_eos = o->ignore_eos,
                                   .seed = o->seed,
                                   .token_low = b->server.token_low,
                                   .token_high = b->server.token_high };
    b->terminal = isatty(STDERR_FILENO) == 1;
    b->load = (struct bench_load){ .request = r,
                                   .alloc = r->alloc,
                                   .loop = b->loop,
                                   .client = b->client,
                                   .source = &b->source,
                                   .body = &b->body,
                                   .csv = b->csv,
                                   .slots_max = o->in_flight ? o->in_flight : possible,
                                   .progress = on_progress,
                                   .user = b,
                                   .progress_ns = (uint64_t)(b->terminal ? 1 : 10) * 1000000000 };
    status = bench_load_open(&b->load, error);
    if (status != MC_OK)
        b->load.loop = NULL; /* not open */
    return status;
}

/* --------------------------------------------------------------------------------------------- end */

static bool write_picture(const struct bench_run *run, const char *path)
{
    struct buf out = BUF_INIT(os_alloc());

    bench_serve_picture(run, &out);
    FILE *file = out.failed ? NULL : fopen(path, "w");
    bool done = file && fwrite(out.data, 1, out.size, file) == out.size;
    if (file)
        done = fclose(file) == 0 && done;
    if (!done)
        command_complain("bench", "%s: cannot write it", path);
    buf_fini(&out);
    return done;
}

static bool write_figures(const struct bench_run *run, int argc, char **argv, const char *path,
                          const char *commit)
{
    struct bench bench;
    struct buf command = BUF_INIT(os_alloc());

    buf_add_text(&command, "mooncake bench");
    for (int i = 0; i < argc; i++) {
        const bool secret = i > 0 && strcmp(argv[i - 1], "--api-key") == 0;
        const bool key = strncmp(argv[i], "--api-key=", 10) == 0;
        buf_addf(&command, " %s", secret ? "***" : key ? "--api-key=***" : argv[i]);
    }
    bench_init(&bench, "serve", command.failed ? "mooncake bench serve" : command.data, commit);
    bench_serve_figures(run, &bench);
    const bool done = bench_write(&bench, path);
    bench_fini(&bench);
    buf_fini(&command);
    return done;
}

static bool report(struct serve_bench *b, int argc, char **argv)
{
    const struct bench_serve_options *o = &b->request->options;
    const struct bench_run run = {
        .load = &b->load, .name = b->name, .cpu_s = b->cpu_s, .context = b->server.context_tokens
    };
    struct buf out = BUF_INIT(os_alloc());
    bool done = true;

    if (b->terminal)
        fputs("\r\033[K", stderr);
    bench_serve_text(&run, &out);
    done = !out.failed && command_write("bench", out.data, out.size);
    buf_fini(&out);
    if (o->json)
        done = write_figures(&run, argc, argv, o->json, o->commit) && done;
    if (o->svg)
        done = write_picture(&run, o->svg) && done;
    if (b->csv) {
        const bool closed = fclose(b->csv) == 0;
        b->csv = NULL;
        if (b->load.csv_failed || !closed)
            command_complain("bench", "%s: cannot write it", o->csv);
        done = done && closed && !b->load.csv_failed;
    }
    return done;
}

static int exit_code(const struct serve_bench *b, bool reported)
{
    const struct bench_tally *t = &b->load.tally;

    if (b->load.error.status != MC_OK)
        command_complain("bench", "%s", b->load.error.text);
    if (b->signal != 0)
        return b->signal == SIGINT ? CMD_INTERRUPTED : CMD_TERMINATED;
    return reported && b->load.error.status == MC_OK && t->ended[BENCH_FAILED] == 0 &&
                   bench_tally_closed(t)
               ? CMD_OK
               : CMD_FAILED;
}

/* -------------------------------------------------------------------------------------------- life */

static mc_status begin(struct serve_bench *b, struct mc_error *error)
{
    static const int numbers[] = { SIGINT, SIGTERM, SIGHUP, 0 };
    mc_status status = os_loop_open(b->request->alloc, &b->loop, error);

    b->signals = (struct os_signals){ .came = on_signal, .user = b };
    if (status == MC_OK)
        status = os_signals_open(&b->signals, b->loop, numbers, error);
    if (status == MC_OK)
        status = open_client(b, error);
    if (status == MC_OK)
        status = ask_server(b, error);
    if (status == MC_OK)
        status = open_load(b, error);
    return status;
}

static void end(struct serve_bench *b)
{
    bench_load_close(&b->load);
    bench_source_close(&b->source);
    http_client_close(b->client);
    if (b->loop)
        os_signals_close(&b->signals);
    os_loop_close(b->loop);
    if (b->csv)
        fclose(b->csv);
}

static int run(const struct bench_serve_request *request, int argc, char **argv)
{
    struct serve_bench *b = calloc(1, sizeof(*b)); /* the tally's bins are too large for a stack */
    struct mc_error error = { 0 };
    int code;

    if (!b) {
        command_complain("bench", "out of memory");
        return CMD_FAILED;
    }
    signal(SIGPIPE, SIG_IGN);
    b->request = request;
    name_case(b);
    const mc_status status = begin(b, &error);
    if (b->signal != 0) {
        code = b->signal == SIGINT ? CMD_INTERRUPTED : CMD_TERMINATED;
    } else if (status != MC_OK) {
        command_complain("bench", "%s", error.text[0] ? error.text : mc_status_text(status));
        code = status == MC_E_ARG ? CMD_USAGE : CMD_FAILED;
    } else {
        const double before_s = processor_seconds();
        b->running = true;
        bench_load_run(&b->load);
        b->running = false;
        b->cpu_s = processor_seconds() - before_s;
        code = exit_code(b, report(b, argc, argv));
    }
    end(b);
    free(b);
    return code;
}

int bench_serve_main(int argc, char **argv)
{
    struct bench_serve_request r;
    struct mc_error error = { 0 };
    int code;

    const mc_status status = bench_serve_options_read(&r, argc, argv, environ, os_alloc(), &error);
    if (status != MC_OK) {
        command_complain("bench", "%s", error.text);
        code = status == MC_E_ARG || status == MC_E_RANGE ? CMD_USAGE : CMD_FAILED;
    } else if (r.options.help) {
        code = command_print("bench", bench_serve_options_help);
    } else {
        code = run(&r, argc, argv);
    }
    bench_serve_options_fini(&r);
    return code;
}
