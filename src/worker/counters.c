/* counters.c - the worker's figures: gauges read when they are asked for, counters kept and gathered. */
#include <string.h>

#include "base/alloc.h"
#include "net/counters.h"
#include "worker/state.h"

static const char *const transport_names[] = { "self", "shm", "tcp", "hook", "other" };
enum { TRANSPORTS = sizeof(transport_names) / sizeof(transport_names[0]) };
static const struct metric_label worker_transports = { "transport", transport_names, TRANSPORTS };

static const struct metric rows[] = { WORKER_METRICS(METRIC_ROW) };
enum { ROWS = sizeof(rows) / sizeof(rows[0]) };

mc_status counters_open(struct worker *w)
{
    return metrics_init(&w->metrics, rows, ROWS, "mooncake_worker", w->alloc);
}

void counters_close(struct worker *w)
{
    metrics_fini(&w->metrics);
}

static void set(struct worker *w, uint32_t row, uint64_t value)
{
    metric_set(&w->metrics, row, 0, (int64_t)value);
}

/* What is counted elsewhere. */
static void bring_to(struct worker *w, uint32_t row, uint32_t series, uint64_t value)
{
    metric_add(&w->metrics, row, series, value - metric_value(&w->metrics, row, series));
}

static void refresh_requests(struct worker *w)
{
    uint64_t queued = 0, prefilling = 0, decoding = 0, reserved = 0, quarantined = 0;

    for (uint32_t i = 0; i < w->task_count; i++) {
        const enum prefill_phase phase = w->tasks[i]->machine.phase;
        queued += phase == PREFILL_QUEUED;
        prefilling += phase >= PREFILL_PULLING && phase <= PREFILL_HANDING_OFF;
        decoding += phase == PREFILL_DECODING;
    }
    for (uint32_t i = 0; i < w->seat_count; i++) {
        const struct seat *seat = w->seats[i];
        reserved += seat->page_count;
        quarantined += seat->revoke_wait_ns ? seat->page_count : 0;
        decoding += seat->machine.phase == DECODE_DECODING;
    }
    set(w, METRIC_queued, queued);
    set(w, METRIC_prefilling, prefilling);
    set(w, METRIC_decoding, decoding);
    set(w, METRIC_reservations, w->seat_count);
    set(w, METRIC_pages_reserved, reserved);
    set(w, METRIC_pages_quarantined, quarantined);
}

static void refresh_pool(struct worker *w)
{
    const struct pool_counts *c = &w->pool.counts;

    bring_to(w, METRIC_pulled, 0, c->pulled_bytes);
    bring_to(w, METRIC_pulls_failed, 0, c->pull_failed);
    bring_to(w, METRIC_put, 0, c->put_bytes);
    bring_to(w, METRIC_puts_stored, 0, c->put_stored);
    bring_to(w, METRIC_puts_copied, 0, c->copied);
    bring_to(w, METRIC_puts_existed, 0, c->put_existed);
    bring_to(w, METRIC_puts_failed, 0, c->put_failed);
    bring_to(w, METRIC_puts_dropped, 0, c->put_dropped);
}

static uint32_t transport_number(const char *name)
{
    for (uint32_t i = 0; i + 1 < TRANSPORTS; i++)
        if (!strcmp(name, transport_names[i]))
            return i;
    return TRANSPORTS - 1;
}

static void refresh_transfer(struct worker *w)
{
    uint64_t read[TRANSPORTS] = { 0 }, written[TRANSPORTS] = { 0 }, served[TRANSPORTS] = { 0 };
    struct mc_transfer_stats stats;

    for (uint32_t i = 0; mc_transfer_stats(w->transfer, i, &stats) == MC_OK; i++) {
        const uint32_t number = transport_number(stats.transport);
        read[number] += stats.read_bytes;
        written[number] += stats.write_bytes;
        served[number] += stats.served_read_bytes + stats.served_write_bytes;
    }
    for (uint32_t i = 0; i < TRANSPORTS; i++) {
        bring_to(w, METRIC_transfer_read, i, read[i]);
        bring_to(w, METRIC_transfer_written, i, written[i]);
        bring_to(w, METRIC_transfer_served, i, served[i]);
    }
}

void counters_refresh(struct worker *w)
{
    struct runner_state engine;
    uint64_t registered = 0;

    runner_state(w->runner, &engine);
    bring_to(w, METRIC_steps, 0, engine.batcher.steps);
    bring_to(w, METRIC_preemptions, 0, engine.batcher.preemptions);
    for (uint32_t i = 0; i < w->gateway_count; i++)
        registered += w->gateways[i].registered;
    set(w, METRIC_gateways, registered);
    set(w, METRIC_draining, w->draining);
    set(w, METRIC_pages, pages_count(w->pages));
    set(w, METRIC_pages_free, pages_free(w->pages));
    refresh_requests(w);
    refresh_pool(w);
    refresh_transfer(w);
}

/* ----------------------------------------------------------------------------------------- answers */

static void gather(struct worker *w, const struct wire_slice *prefix, struct net_counters *counters)
{
    counters_refresh(w);
    net_counters_init(counters, prefix);
    net_counters_add_metrics(counters, &w->metrics);
}

void counters_answer(struct worker *w, net_conn *conn, uint64_t ask,
                     const struct wire_slice *prefix)
{
    struct net_counters counters;

    gather(w, prefix, &counters);
    if (net_counters_answer(&counters, conn, ask) != MC_OK)
        worker_log(w, MC_LOG_DEBUG, "event=stats_not_answered");
}

uint64_t worker_counter(worker *w, const char *name)
{
    struct net_counters counters;

    gather(w, &(struct wire_slice){ 0 }, &counters);
    return net_counters_value(&counters, name);
}
