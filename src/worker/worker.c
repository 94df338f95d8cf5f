/* worker.c - open in the order of need, close in the reverse; one log, one look at who can go on. */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/prng.h"
#include "os/clock.h"
#include "worker/measure.h"
#include "worker/state.h"
#include "worker/timing_engine.h"

enum {
    KV_TOKENS_DEFAULT = 16384,
    SEQUENCES_DEFAULT = 256,
    CHUNK_DEFAULT = 512,
    REQUESTS_DEFAULT = 1024,
    REQUESTS_MOST = 65536,
    PUSHES_DEFAULT = 8,
    PUT_BLOCKS_DEFAULT = 1024,
    PUTS_IN_FLIGHT = 4,
    SEATS_PER_SEQUENCE =
        4, /* reservations: those decoded, and prompts on their way. Beyond, gateways
                            * ask again and again, and not in the order of arrival */
};
#define LEASE_DEFAULT_NS UINT64_C(10000000000)
#define PUSH_DEFAULT_NS UINT64_C(30000000000)
#define HAND_OFF_DEFAULT_NS UINT64_C(3000000000)
#define PUT_TIMEOUT_NS UINT64_C(10000000000)
#define QUIET_NS UINT64_C(5000000000)
#define SILENCE_NS UINT64_C(2000000000)

void worker_log(const struct worker *w, enum mc_log_level level, const char *format, ...)
{
    char line[700];
    va_list arguments;

    if (!w->log.write || level > w->log.level_max)
        return;
    int size = snprintf(line, sizeof(line), "worker=%s ", w->name);
    va_start(arguments, format);
    size += vsnprintf(line + size, sizeof(line) - (size_t)size, format, arguments);
    va_end(arguments);
    if (size >= (int)sizeof(line))
        size = (int)sizeof(line) - 1;
    w->log.write(w->log.context, level, line, (size_t)size);
}

/* ---------------------------------------------------------------------------------- who can go on */

static void look(void *user, uint64_t now_ns)
{
    struct worker *w = user;

    (void)now_ns;
    if (w->closing)
        return;
    runner_wake(w->runner);
    tasks_start(w);
    worker_drained(w);
}

void worker_look_soon(struct worker *w)
{
    if (w->closing || w->line_timer.place)
        return;
    if (os_loop_timer(w->loop, &w->line_timer, os_loop_now(w->loop)) != MC_OK)
        worker_log(w, MC_LOG_ERROR, "event=no_timer text=\"out of memory\"");
}

static void on_pages_freed(void *user)
{
    worker_look_soon(user);
}

/* ------------------------------------------------------------------------------------------ limits */

static uint32_t either(uint32_t value, uint32_t otherwise)
{
    return value ? value : otherwise;
}

static uint64_t either_ns(uint64_t value, uint64_t otherwise)
{
    return value ? value : otherwise;
}

static mc_status settle(struct worker *w, const struct worker_options *o, struct mc_error *error)
{
    if (!o->model || !o->listen)
        return error_set(error, MC_E_ARG, "a worker needs a model and an address to listen at");
    if (o->role != 0 && o->role != MC_ROLE_PREFILL && o->role != MC_ROLE_DECODE &&
        o->role != MC_ROLE_BOTH)
        return error_set(error, MC_E_UNSUPPORTED, "role %d is not a worker's", (int)o->role);
    if (o->chunk_tokens % KV_PAGE_TOKENS != 0)
        return error_set(error, MC_E_ARG, "chunk: %u is not a multiple of %d", o->chunk_tokens,
                         KV_PAGE_TOKENS);
    if (o->requests_max > REQUESTS_MOST / 2 || o->sequences_max > 4096)
        return error_set(error, MC_E_RANGE, "at most %d requests and 4096 sequences",
                         REQUESTS_MOST / 2);
    if (o->pushes_max > PREFILL_PUSHES_MAX)
        return error_set(error, MC_E_RANGE, "pushes: at most %d of a request", PREFILL_PUSHES_MAX);
    w->role = o->role ? o->role : MC_ROLE_BOTH;
    w->limits = *o;
    w->limits.sequences_max = either(o->sequences_max, SEQUENCES_DEFAULT);
    w->limits.chunk_tokens = either(o->chunk_tokens, CHUNK_DEFAULT);
    w->limits.requests_max = either(o->requests_max, REQUESTS_DEFAULT);
    w->limits.pushes_max = either(o->pushes_max, PUSHES_DEFAULT);
    w->limits.put_blocks_max = either(o->put_blocks_max, PUT_BLOCKS_DEFAULT);
    w->limits.lease_ns = either_ns(o->lease_ns, LEASE_DEFAULT_NS);
    w->limits.push_ns = either_ns(o->push_ns, PUSH_DEFAULT_NS);
    w->limits.hand_off_ns = either_ns(o->hand_off_ns, HAND_OFF_DEFAULT_NS);
    w->seats_max = SEATS_PER_SEQUENCE * w->limits.sequences_max;
    w->name =
        alloc_text(w->alloc, o->name ? o->name : "worker", strlen(o->name ? o->name : "worker"));
    w->tasks = alloc_zeroed(w->alloc, w->limits.requests_max, sizeof(struct task *));
    w->seats = alloc_zeroed(w->alloc, w->seats_max, sizeof(struct seat *));
    if (!w->name || !w->tasks || !w->seats || counters_open(w) != MC_OK)
        return error_set(error, MC_E_NOMEM, "out of memory for a worker");
    return MC_OK;
}

/* -------------------------------------------------------------------------------------------- open */

/* "host:0" of "host:port": the Transfer Engine listens beside us. */
static mc_status beside(const char *listen, char text[OS_ADDRESS_TEXT], struct mc_error *error)
{
    struct os_address address;
    const mc_status status = os_address_parse(listen, &address, error);

    if (status != MC_OK)
        return status;
    os_address_port_set(&address, 0);
    os_address_format(&address, text);
    return MC_OK;
}

static mc_status open_transfer(struct worker *w, const struct worker_options *o,
                               struct mc_error *error)
{
    char listen[OS_ADDRESS_TEXT];
    mc_status status = beside(o->listen, listen, error);

    if (status != MC_OK)
        return status;
    const struct mc_transfer_options options = {
        .listen = listen,
        .transports = o->transports,
        .settings = o->transfer_settings,
        .alloc = w->alloc,
        .log = o->log,
        .secret = o->secret,
        .secret_size = o->secret_size,
        .flags = o->insecure ? MC_TRANSFER_INSECURE : 0,
    };
    status = mc_transfer_open(&options, &w->transfer, error);
    if (status == MC_OK)
        status = mc_transfer_info(w->transfer, &w->transfer_info);
    w->reservations = prng_mix(w->transfer_info.incarnation) >> 16; /* no two lives share numbers */
    return status;
}

static mc_status count_pages(const struct worker *w, const struct worker_options *o,
                             uint32_t *count_p, struct mc_error *error)
{
    const uint64_t tokens = either_ns(o->kv_tokens, KV_TOKENS_DEFAULT);
    const uint64_t count =
        o->kv_bytes ? o->kv_bytes / pages_stride(w->page_bytes) : tokens / KV_PAGE_TOKENS;

    if (count < 2 || count > UINT32_MAX / KV_PAGE_TOKENS)
        return error_set(error, MC_E_RANGE,
                         "working memory of %llu pages of %llu bytes; a worker needs 2 to %u",
                         (unsigned long long)count, (unsigned long long)w->page_bytes,
                         UINT32_MAX / KV_PAGE_TOKENS);
    *count_p = (uint32_t)count;
    return MC_OK;
}

static mc_status open_pages(struct worker *w, const struct worker_options *o,
                            struct mc_error *error)
{
    const size_t stride = pages_stride(w->page_bytes);
    uint32_t count = 0;
    size_t bytes = 0;
    mc_status status = count_pages(w, o, &count, error);

    if (status != MC_OK)
        return status;
    if (!size_mul(count, stride, &bytes))
        return error_set(error, MC_E_RANGE, "working memory: %u pages are too many", count);
    status = mc_memory_alloc(w->transfer, bytes, NULL, &w->memory, error);
    if (status != MC_OK)
        return status;
    const struct mc_region_options region = { .address = w->memory,
                                              .size = bytes,
                                              .tag = "kv pages",
                                              .permissions = MC_REMOTE_WRITE,
                                              .flags = MC_REGION_PRIVATE };
    status = mc_region_register(w->transfer, &region, 1, &w->region, error);
    if (status == MC_OK)
        status = pages_open(w->alloc, w->memory, stride, count, &w->pages, error);
    /* The last token of a sequence is never computed; one page is left to grow. */
    const uint64_t most = (uint64_t)(count - 1) * KV_PAGE_TOKENS;
    w->context_max = either(o->context_max, w->info.context_max);
    if (w->context_max > w->info.context_max)
        return error_set(error, MC_E_RANGE, "context: %u is more than the model's, %u",
                         o->context_max, w->info.context_max);
    if (w->context_max > most)
        w->context_max = (uint32_t)most;
    return status;
}

static mc_status open_store(struct worker *w, const struct worker_options *o,
                            struct mc_error *error)
{
    const struct mc_store_options options = {
        .master = o->master,
        .transfer = w->transfer,
        .alloc = w->alloc,
        .log = o->log,
        .secret = o->secret,
        .secret_size = o->secret_size,
        .requests_max = w->limits.requests_max + PUTS_IN_FLIGHT,
        .items_max = WORKER_PULL_BLOCKS,
    };

    return o->master ? mc_store_open(&options, &w->store, error) : MC_OK;
}

static mc_status open_runner(struct worker *w, struct mc_error *error)
{
    const struct runner_options engine = {
        .alloc = w->alloc,
        .loop = w->loop,
        .engine = w->engine,
        .pages = w->pages,
        .jobs_max = w->limits.requests_max + w->seats_max + MEASURE_JOBS_MAX,
        .running_max = w->engine_limits.sequences_max,
        .chunk_tokens = w->limits.chunk_tokens,
    };
    const struct pool_options pool = {
        .alloc = w->alloc,
        .loop = w->loop,
        .store = w->store,
        .pages = w->pages,
        .page_bytes = w->page_bytes,
        .puts_max = w->limits.put_blocks_max,
        .puts_in_flight = PUTS_IN_FLIGHT,
        .put_timeout_ns = PUT_TIMEOUT_NS,
        .freed = on_pages_freed,
        .user = w,
    };

    pool_init(&w->pool, &pool);
    pushes_init(&w->pushes, w->alloc, w->loop, w->transfer, w->limits.push_ns);
    return runner_open(&engine, &w->runner, error);
}

static mc_status open_net(struct worker *w, const struct worker_options *o, struct mc_error *error)
{
    const struct net_options options = {
        .alloc = w->alloc,
        .loop = w->loop,
        .role = NET_WORKER,
        .name = w->name,
        .incarnation = w->transfer_info.incarnation,
        .segment = w->transfer_info.name,
        .secret = o->secret,
        .secret_size = o->secret_size,
        .silence_ns = SILENCE_NS,
    };

    mc_status status = net_open(&options, &w->net, error);
    if (status == MC_OK)
        status = net_listen(w->net, o->listen, o->insecure, &worker_events, w, w->address,
                            sizeof(w->address), error);
    return status;
}

static mc_status open_all(struct worker *w, const struct worker_options *o, struct mc_error *error)
{
    mc_status status = settle(w, o, error);

    if (status == MC_OK)
        status = worker_open_engine(w, o, error);
    if (status == MC_OK)
        status = open_transfer(w, o, error);
    if (status == MC_OK)
        status = open_pages(w, o, error);
    if (status == MC_OK)
        status = open_store(w, o, error);
    if (status == MC_OK)
        status = open_runner(w, error);
    if (status == MC_OK)
        status = open_net(w, o, error);
    if (status == MC_OK)
        status = gateways_open(w, o, error);
    return status;
}

mc_status worker_open(const struct worker_options *options, worker **worker_p,
                      struct mc_error *error)
{
    struct worker *w = alloc_zeroed(options->alloc, 1, sizeof(*w));

    if (!w)
        return error_set(error, MC_E_NOMEM, "out of memory for a worker");
    w->alloc = options->alloc;
    w->loop = options->loop;
    w->log = options->log;
    w->line_timer = (struct os_timer){ .due = look, .user = w };
    const mc_status status = open_all(w, options, error);
    if (status != MC_OK) {
        worker_close(w);
        return status;
    }
    worker_log(w, MC_LOG_INFO,
               "event=open address=%s segment=%s pages=%u page_bytes=%llu context=%u", w->address,
               w->transfer_info.name, pages_count(w->pages), (unsigned long long)w->page_bytes,
               w->context_max);
    *worker_p = w;
    return MC_OK;
}

const char *worker_address(const worker *w)
{
    return w->address;
}

const struct mc_identity *worker_fingerprint(const worker *w)
{
    return &w->fingerprint;
}

void worker_drain(worker *w, void (*done)(void *user), void *user)
{
    w->draining = true;
    w->drained = done;
    w->drained_user = user;
    worker_log(w, MC_LOG_INFO, "event=draining");
    worker_drained(w);
}

/* ------------------------------------------------------------------------------------------- close */

/* Whatever is left waits for something that was stopped: windows, pushes, puts. Each is made quiet, or its
 * memory stays mapped. */
static void end_requests(struct worker *w)
{
    const uint64_t until = os_now_ns() + QUIET_NS;

    if (w->timing)
        timing_engine_stop(w->engine);
    for (uint32_t i = w->task_count; i > 0; i--)
        task_cancel(w->tasks[i - 1], 0);
    for (uint32_t i = w->seat_count; i > 0; i--) {
        struct seat *seat = w->seats[i - 1];
        const bool held_back = seat->held_back; /* then it stays until it is not */
        seat_cancel(seat, 0);
        if (held_back)
            delay_verify_stop(seat);
    }
    runner_close(w->runner); /* each that was in the engine is told */
    w->runner = NULL;
    pushes_fini(&w->pushes);
    pool_fini(&w->pool);
    for (uint32_t i = w->seat_count; i > 0; i--)
        seat_quieten(w->seats[i - 1], until);
    assert(w->task_count == 0 && w->seat_count == 0);
}

static void close_memory(struct worker *w)
{
    struct mc_error error = { 0 };
    mc_status status = MC_OK;

    pages_close(w->pages);
    if (w->region.id)
        status = mc_region_unregister(w->transfer, &w->region, 1, os_now_ns() + QUIET_NS, &error);
    if (status == MC_OK)
        mc_memory_free(w->transfer, w->memory);
    else /* closing the Transfer Engine keeps what a stopped peer still maps */
        worker_log(w, MC_LOG_ERROR, "event=memory_not_quiet status=%s text=\"%s\"",
                   mc_status_name(status), error.text);
}

void worker_close(worker *w)
{
    if (!w)
        return;
    w->closing = true;
    w->draining = true;
    os_loop_timer_stop(w->loop, &w->line_timer);
    if (w->gateways)
        gateways_close(w);
    if (w->runner)
        end_requests(w);
    worker_peers_close(w);
    net_close(w->net);
    mc_store_close(w->store);
    if (w->transfer)
        close_memory(w);
    mc_transfer_close(w->transfer);
    mc_engine_close(w->engine);
    mc_model_close(w->model);
    counters_close(w);
    alloc_free(w->alloc, w->seats);
    alloc_free(w->alloc, w->tasks);
    alloc_free(w->alloc, w->name);
    alloc_free(w->alloc, w);
}
