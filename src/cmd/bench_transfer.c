/* bench_transfer.c - mooncake bench transfer: what the Transfer Engine moves, beside what could be moved. */
#define _GNU_SOURCE
#include "cmd/bench_transfer.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"
#include "cmd/bench_pattern.h"
#include "cmd/bench_raw.h"
#include "cmd/cmd.h"
#include "cmd/figures.h"
#include "os/clock.h"
#include "os/sysalloc.h"

extern char **environ;

enum { LATENCIES_MAX = 1 << 20, THREADS_MAX = 256 };

/* What lives as long as one transport is measured. Offsets are the same on both sides. */
struct ground {
    const struct bench_transfer_options *options;
    struct bench_peer_options peer_options;
    struct bench_peer peer; /* pid 0: the transport is self */
    mc_transfer *transfer;
    uint8_t *local;  /* [half], engine memory */
    uint8_t *remote; /* self: [half] of this process; else NULL */
    struct mc_region local_region, region;
    uint32_t segment;
    uint64_t half; /* bytes on each side */
};

/* One side of a case: the engine, or what it is measured against. */
struct side {
    const struct ground *ground;
    const struct bench_case *c;
    struct bench_raw *raw; /* NULL: the engine */
};

struct worker {
    const struct side *side;
    uint32_t number;
    uint64_t start, span; /* bytes of each side that are its own */
    uint64_t until_ns;    /* 0: once over its bytes */
    mc_batch *batch;      /* the engine's side */
    struct mc_xfer *xfers;
    _Atomic uint32_t *waiting; /* workers that are not ready yet */
    uint64_t bytes, batches, elapsed_ns;
    double *latencies; /* ns of each batch; [LATENCIES_MAX], or NULL */
    mc_status status;
    struct mc_error error;
};

/* -------------------------------------------------------------------------------- one batch */

static uint64_t batch_bytes(const struct bench_case *c)
{
    return c->block_bytes * c->batch;
}

/* Hot. */
static mc_status engine_move(struct worker *w, uint64_t offset)
{
    const struct ground *g = w->side->ground;
    const struct bench_case *c = w->side->c;

    for (uint32_t i = 0; i < c->batch; i++) {
        w->xfers[i].offset = offset + i * c->block_bytes;
        w->xfers[i].local = g->local + w->xfers[i].offset;
    }
    mc_status status = mc_batch_reset(w->batch, MC_FOREVER);
    if (status == MC_OK)
        status = mc_batch_add(w->batch, w->xfers, c->batch);
    if (status == MC_OK)
        status = mc_batch_submit(w->batch);
    if (status == MC_OK)
        status = mc_batch_wait(w->batch, MC_FOREVER);
    if (status != MC_OK && mc_batch_error(w->batch, &w->error) == MC_OK)
        error_set(&w->error, status, "a batch: %s", mc_status_text(status));
    return status;
}

static mc_status move(struct worker *w, uint64_t offset)
{
    if (!w->side->raw)
        return engine_move(w, offset);
    const mc_status status = bench_raw_move(w->side->raw, w->number, offset);
    return status == MC_OK
               ? status
               : error_set(&w->error, status, "the raw side: %s", mc_status_text(status));
}

static mc_status worker_open(struct worker *w)
{
    const struct bench_case *c = w->side->c;
    const struct ground *g = w->side->ground;
    const struct mc_batch_options options = { .capacity = c->batch,
                                              .checksum = c->checksum ? MC_CHECKSUM_CRC32C
                                                                      : MC_CHECKSUM_DEFAULT };

    if (w->side->raw)
        return MC_OK;
    w->xfers = calloc(c->batch, sizeof(*w->xfers));
    if (!w->xfers)
        return error_set(&w->error, MC_E_NOMEM, "no memory for a batch");
    for (uint32_t i = 0; i < c->batch; i++)
        w->xfers[i] = (struct mc_xfer){ .op = c->op == BENCH_READ ? MC_READ : MC_WRITE,
                                        .segment = g->segment,
                                        .region = g->region,
                                        .length = c->block_bytes };
    return mc_batch_open(g->transfer, &options, &w->batch);
}

static void worker_close(struct worker *w)
{
    mc_batch_close(w->batch);
    free(w->xfers);
    free(w->latencies);
}

/* Walk over the worker's bytes, batch by batch, until the time is over. */
static void *worker_main(void *argument)
{
    struct worker *w = argument;
    const uint64_t step = batch_bytes(w->side->c);
    uint64_t at = 0;

    atomic_fetch_sub(w->waiting, 1);
    while (atomic_load(w->waiting) > 0)
        sched_yield();
    const uint64_t start_ns = os_now_ns();
    uint64_t now_ns = start_ns;
    do {
        w->status = move(w, w->start + at);
        const uint64_t then_ns = now_ns;
        now_ns = os_now_ns();
        if (w->latencies && w->batches < LATENCIES_MAX)
            w->latencies[w->batches] = (double)(now_ns - then_ns);
        w->batches++;
        w->bytes += step;
        at = at + 2 * step <= w->span ? at + step : 0;
    } while (w->status == MC_OK && (w->until_ns ? now_ns - start_ns < w->until_ns : at != 0));
    w->elapsed_ns = now_ns - start_ns;
    return NULL;
}

/* ------------------------------------------------------------------------------------ one turn */

struct turn {
    double bytes_per_s;
    double latency_ns; /* median of a batch; only with one thread */
};

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static double median(double *values, uint64_t count)
{
    qsort(values, count, sizeof(*values), by_value);
    return values[count / 2];
}

static void turn_sum(struct worker *workers, uint32_t count, struct turn *turn_p)
{
    double bytes = 0, seconds = 1e-9;

    for (uint32_t i = 0; i < count; i++) {
        bytes += (double)workers[i].bytes;
        const double s = (double)workers[i].elapsed_ns / 1e9;
        seconds = s > seconds ? s : seconds;
    }
    *turn_p = (struct turn){ .bytes_per_s = bytes / seconds };
    if (workers[0].latencies) {
        const uint64_t n = workers[0].batches < LATENCIES_MAX ? workers[0].batches : LATENCIES_MAX;
        turn_p->latency_ns = median(workers[0].latencies, n);
    }
}

/* The first worker works in this thread. */
static mc_status run_workers(struct worker *workers, uint32_t count, struct mc_error *error)
{
    pthread_t threads[THREADS_MAX];
    _Atomic uint32_t waiting = count;
    uint32_t started = 1;
    mc_status status = MC_OK;

    for (uint32_t i = 0; i < count; i++)
        workers[i].waiting = &waiting;
    while (started < count &&
           pthread_create(&threads[started], NULL, worker_main, &workers[started]) == 0)
        started++;
    if (started < count) {
        atomic_store(&waiting, 1); /* those that stand run their turn, which then does not count */
        status =
            error_set(error, MC_E_NOMEM, "only %u of %u threads could be started", started, count);
    }
    worker_main(&workers[0]);
    for (uint32_t i = 1; i < started; i++)
        pthread_join(threads[i], NULL);
    for (uint32_t i = 0; i < started && status == MC_OK; i++)
        if (workers[i].status != MC_OK)
            status = error_set(error, workers[i].status, "%s", workers[i].error.text);
    return status;
}

/* time_ns 0: once over all bytes. */
static mc_status run_turn(const struct side *side, uint64_t time_ns, struct turn *turn_p,
                          struct mc_error *error)
{
    const uint32_t count = side->c->threads;
    const uint64_t span = side->ground->half / count / 4096 * 4096;
    struct worker *workers = calloc(count, sizeof(*workers));
    mc_status status = workers ? MC_OK : error_set(error, MC_E_NOMEM, "no memory for threads");

    for (uint32_t i = 0; i < count && status == MC_OK; i++) {
        workers[i] = (struct worker){
            .side = side, .number = i, .start = i * span, .span = span, .until_ns = time_ns
        };
        if (count == 1 && time_ns != 0)
            workers[i].latencies = malloc(LATENCIES_MAX * sizeof(double));
        status = worker_open(&workers[i]);
        if (status != MC_OK)
            error_set(error, status, "%s", workers[i].error.text);
    }
    if (status == MC_OK)
        status = run_workers(workers, count, error);
    if (status == MC_OK)
        turn_sum(workers, count, turn_p);
    for (uint32_t i = 0; workers && i < count; i++)
        worker_close(&workers[i]);
    free(workers);
    return status;
}

/* ------------------------------------------------------------------------------------- checking */

/* The pattern at where the bytes come from, zeros at where they go. */
static mc_status prepare(struct ground *g, const struct bench_case *c, struct mc_error *error)
{
    const bool write = c->op == BENCH_WRITE;

    if (write)
        bench_pattern(g->local, 0, g->half);
    else
        memset(g->local, 0, g->half);
    if (!g->remote)
        return bench_peer_fill(&g->peer, !write, error);
    if (write)
        memset(g->remote, 0, g->half);
    else
        bench_pattern(g->remote, 0, g->half);
    return MC_OK;
}

/* Every batch that a thread has room for has moved at least once. */
static mc_status verify(struct ground *g, const struct bench_case *c, struct mc_error *error)
{
    const uint64_t span = g->half / c->threads / 4096 * 4096;
    const uint64_t moved = span / batch_bytes(c) * batch_bytes(c);
    mc_status status = MC_OK;
    uint64_t wrong;

    for (uint32_t i = 0; i < c->threads && status == MC_OK; i++) {
        const uint64_t at = i * span;
        const uint8_t *here = c->op == BENCH_READ ? g->local : g->remote;
        if (!here)
            status = bench_peer_check(&g->peer, at, moved, error);
        else if (!bench_pattern_is(here + at, at, moved, &wrong))
            status =
                error_set(error, MC_E_CORRUPT, "byte %llu is wrong", (unsigned long long)wrong);
    }
    return status;
}

/* ------------------------------------------------------------------------------------ one case */

struct outcome {
    struct samples rate, latency;         /* of the engine */
    struct samples raw_rate, raw_latency; /* of the raw side */
};

static void note(struct samples *rate, struct samples *latency, const struct turn *turn)
{
    samples_add(rate, turn->bytes_per_s / 1e9);
    samples_add(latency, turn->latency_ns / 1e3);
}

static mc_status run_rounds(const struct side *own, const struct side *raw, struct outcome *o,
                            struct mc_error *error)
{
    const struct bench_transfer_options *options = own->ground->options;
    const uint64_t time_ns = (uint64_t)((double)options->seconds * 1e9 / options->rounds);
    mc_status status = MC_OK;
    struct turn turn;

    for (uint32_t i = 0; i < options->rounds && status == MC_OK; i++) {
        status = run_turn(own, time_ns, &turn, error);
        if (status == MC_OK)
            note(&o->rate, &o->latency, &turn);
        if (status == MC_OK && raw->raw)
            status = run_turn(raw, time_ns, &turn, error);
        if (status == MC_OK && raw->raw)
            note(&o->raw_rate, &o->raw_latency, &turn);
    }
    return status;
}

static void report(struct bench *bench, const struct bench_case *c, const struct outcome *o,
                   const char *peer)
{
    char name[96];

    bench_case_name(c, name);
    bench_row(bench, name, "throughput", "GB/s", &o->rate, peer, peer ? &o->raw_rate : NULL);
    if (c->batch == 1 && c->threads == 1) {
        strncat(name, ", p50", sizeof(name) - strlen(name) - 1);
        bench_row(bench, name, "latency", "us", &o->latency, peer, peer ? &o->raw_latency : NULL);
    }
}

static mc_status run_case(struct ground *g, const struct bench_case *c, struct bench *bench,
                          struct mc_error *error)
{
    struct bench_raw raw;
    const bool against = g->options->against == 1;
    const struct side own = { g, c, NULL }, other = { g, c, against ? &raw : NULL };
    struct outcome *o = calloc(1, sizeof(*o));
    struct turn turn;

    if (!o)
        return error_set(error, MC_E_NOMEM, "no memory for figures");
    mc_status status = prepare(g, c, error);
    if (status == MC_OK)
        status = run_turn(&own, 0, &turn, error); /* all bytes once, which also warms up */
    if (status == MC_OK)
        status = verify(g, c, error);
    if (status == MC_OK && against)
        status = bench_raw_open(c, &g->peer_options, &g->peer, g->local, g->remote, &raw, error);
    if (status == MC_OK) {
        status = run_rounds(&own, &other, o, error);
        if (against)
            bench_raw_close(&raw);
    }
    if (status == MC_OK)
        status = verify(g, c, error);
    if (status == MC_OK)
        report(bench, c, o, against ? bench_raw_name(&raw) : NULL);
    free(o);
    return status;
}

/* ----------------------------------------------------------------------------------- the sweep */

/* The n-th processor that this process may use; -1: there are fewer. */
static int processor(int n)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof(set), &set) != 0)
        return -1;
    for (size_t i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &set) && n-- == 0)
            return (int)i;
    return -1;
}

static mc_status ground_open(struct ground *g, struct mc_error *error)
{
    struct mc_transfer_info info;
    void *local, *remote = NULL;
    mc_status status = bench_engine_open(&g->peer_options, &g->transfer, error);

    if (status == MC_OK)
        status = mc_memory_alloc(g->transfer, g->half, NULL, &local, error);
    if (status != MC_OK)
        return status;
    g->local = local;
    const bool self = g->peer_options.transport == BENCH_SELF;
    struct mc_region_options region = {
        .address = local, .size = g->half, .flags = MC_REGION_PRIVATE, .tag = "local"
    };
    status = mc_region_register(g->transfer, &region, 1, &g->local_region, error);
    if (status == MC_OK && self)
        status = mc_memory_alloc(g->transfer, g->half, NULL, &remote, error);
    if (status == MC_OK && self) {
        g->remote = remote;
        region = (struct mc_region_options){ .address = remote,
                                             .size = g->half,
                                             .tag = "remote",
                                             .permissions = MC_REMOTE_READ | MC_REMOTE_WRITE };
        status = mc_region_register(g->transfer, &region, 1, &g->region, error);
    } else if (status == MC_OK) {
        g->region = g->peer.region;
    }
    if (status == MC_OK)
        status = mc_transfer_info(g->transfer, &info);
    return status == MC_OK ? mc_segment_open(g->transfer, self ? info.name : g->peer.segment,
                                             &g->segment, error)
                           : status;
}

static void ground_close(struct ground *g)
{
    if (g->transfer) {
        struct mc_region regions[2];
        size_t count = 0;
        mc_segment_close(g->transfer, g->segment);
        if (g->local_region.id)
            regions[count++] = g->local_region;
        if (g->remote && g->region.id)
            regions[count++] = g->region;
        if (mc_region_unregister(g->transfer, regions, count, MC_FOREVER, NULL) == MC_OK) {
            mc_memory_free(g->transfer, g->local);
            mc_memory_free(g->transfer, g->remote);
        }
        mc_transfer_close(g->transfer);
    }
    bench_peer_end(&g->peer);
}

static mc_status run_cases(struct ground *g, const struct bench_transfer_request *r,
                           struct bench *bench, struct mc_error *error)
{
    const struct bench_sweep *s = &r->sweep;
    const uint64_t total =
        (uint64_t)s->op_count * s->thread_count * s->batch_count * s->block_count;
    mc_status status = MC_OK;

    for (uint64_t i = 0; i < total && status == MC_OK; i++) {
        uint64_t at = i;
        struct bench_case c = { .transport = g->peer_options.transport,
                                .attach = r->options.memory == 1,
                                .checksum = r->options.checksum };
        c.block_bytes = s->blocks[at % s->block_count];
        at /= s->block_count;
        c.batch = (uint32_t)s->batches[at % s->batch_count];
        at /= s->batch_count;
        c.threads = (uint32_t)s->threads[at % s->thread_count];
        at /= s->thread_count;
        c.op = (enum bench_op)s->ops[at];
        status = run_case(g, &c, bench, error);
        if (status != MC_OK) {
            char name[96];
            bench_case_name(&c, name);
            error_prefix(error, status, "%s", name);
        }
    }
    return status;
}

static mc_status run_transport(const struct bench_transfer_request *r,
                               enum bench_transport transport, struct bench *bench,
                               struct mc_error *error)
{
    const struct bench_transfer_options *o = &r->options;
    const bool pin = o->pin && r->sweep.thread_count == 1 && r->sweep.threads[0] == 1;
    struct ground g = { .options = o,
                        .half = o->working_set / 2 / 4096 * 4096,
                        .peer = { .control = -1 } };
    mc_status status = MC_OK;

    g.peer_options = (struct bench_peer_options){ .transport = transport,
                                                  .size = g.half,
                                                  .streams = o->streams,
                                                  .congestion = o->congestion,
                                                  .processor = pin ? processor(1) : -1,
                                                  .attach = o->memory == 1,
                                                  .spin = o->spin };
    if (transport != BENCH_SELF)
        status = bench_peer_start(&g.peer_options, &g.peer, error);
    cpu_set_t before;
    const bool known = sched_getaffinity(0, sizeof(before), &before) == 0;
    if (pin)
        bench_stay_on(processor(0));
    if (status == MC_OK)
        status = ground_open(&g, error);
    if (status == MC_OK)
        status = run_cases(&g, r, bench, error);
    ground_close(&g);
    if (known)
        sched_setaffinity(0, sizeof(before), &before);
    return status;
}

/* ------------------------------------------------------------------------------------ the command */

static void join_words(int argc, char **argv, char *text, size_t size)
{
    size_t at = (size_t)snprintf(text, size, "mooncake bench");

    for (int i = 0; i < argc && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, " %s", argv[i]);
}

static int run(const struct bench_transfer_request *r, int argc, char **argv)
{
    struct bench bench;
    struct mc_error error = { 0 };
    char command[1000];
    mc_status status = MC_OK;

    join_words(argc, argv, command, sizeof(command));
    bench_init(&bench, "transfer", command, r->options.commit);
    for (uint32_t i = 0; i < r->sweep.transport_count && status == MC_OK; i++)
        status = run_transport(r, (enum bench_transport)r->sweep.transports[i], &bench, &error);
    if (status != MC_OK)
        command_complain("bench", "%s", error.text[0] ? error.text : mc_status_text(status));
    const bool written =
        status == MC_OK && (!r->options.json || bench_write(&bench, r->options.json));
    bench_fini(&bench);
    return written ? CMD_OK : CMD_FAILED;
}

int bench_transfer_main(int argc, char **argv)
{
    struct bench_transfer_request r;
    struct mc_error error = { 0 };
    int code = CMD_OK;

    const mc_status status =
        bench_transfer_options_read(&r, argc, argv, environ, os_alloc(), &error);
    if (status != MC_OK) {
        command_complain("bench", "%s", error.text);
        code = status == MC_E_ARG || status == MC_E_RANGE ? CMD_USAGE : CMD_FAILED;
    } else if (r.options.help) {
        code = command_print("bench", bench_transfer_options_help);
    } else if (r.options.print_config) {
        struct buf out = BUF_INIT(os_alloc());
        settings_print(&r.settings, &out);
        code = !out.failed && command_write("bench", out.data, out.size) ? CMD_OK : CMD_FAILED;
        buf_fini(&out);
    } else {
        code = run(&r, argc, argv);
    }
    bench_transfer_options_fini(&r);
    return code;
}
