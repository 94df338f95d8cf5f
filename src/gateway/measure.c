/* measure.c - who is asked to time itself, when, and what its answer teaches. */
#include "gateway/measure.h"

#include <inttypes.h>

#include "gateway/control.h"

enum { TRIES = 4 };
static const uint64_t LOOK_NS = 300000000; /* others that start with it have joined by then */
static const uint64_t BUDGET_NS = 1500000000, ANSWER_NS = 10000000000;

static void look(void *user, uint64_t now_ns);

static void set_timer(gateway *g)
{
    if (g->draining || g->options.unmeasured)
        return;
    g->measure_timer.due = look;
    g->measure_timer.user = g;
    if (os_loop_timer(g->loop, &g->measure_timer, os_loop_now(g->loop) + LOOK_NS) != MC_OK)
        gateway_log(&g->log, MC_LOG_ERROR, "event=no_memory what=measure");
}

void gateway_measure_soon(gateway *g)
{
    if (!g->measure_timer.place)
        set_timer(g);
}

/* The one that has been here for longest. */
static struct worker *next_worker(const gateway *g)
{
    struct worker *first = NULL;

    for (struct worker *w = g->workers; w; w = w->next)
        if (w->as_instance.id && !w->timing && !w->draining && w->measure_tries < TRIES &&
            (!first || w->as_instance.id < first->as_instance.id))
            first = w;
    return first;
}

static void take_row(gateway *g, uint64_t instance, const struct wire_measure_row *row)
{
    const struct mc_sched_event event = { .kind = MC_EVENT_MEASURED,
                                          .progress = { .id = instance,
                                                        .tokens = row->tokens,
                                                        .reused = row->reused,
                                                        .sequences = row->sequences,
                                                        .duration_ns = row->duration_ns } };
    gateway_schedule(g, &event);
}

static void take(gateway *g, struct worker *w, const struct wire_measured *m)
{
    struct wire_list rows = m->rows;
    struct wire_measure_row row;
    uint32_t steps = 0;

    while (wire_measure_row_next(&rows, &row)) {
        take_row(g, w->as_instance.id, &row);
        steps += row.sequences != 0;
    }
    if (!m->stopped) {
        w->measure_tries = TRIES;
        metric_add(&g->metrics, METRIC_measured, 0, 1);
    }
    gateway_log(&g->log, MC_LOG_INFO,
                "event=worker_measured instance=%" PRIu64
                " worker=%s prefills=%u steps=%u stopped=%d",
                w->as_instance.id, w->name, m->rows.count - steps, steps, m->stopped);
}

static void answered(void *user, mc_status status, const struct wire_frame *frame)
{
    gateway *g = user;
    struct worker *w = gateway_control_find(g, g->measuring);
    struct wire_measured measured;
    struct mc_error why = { 0 };

    g->measuring = 0;
    if (g->draining)
        return;
    if (status == MC_E_CANCELLED) { /* it is being dropped: the others still wait for their turn */
        set_timer(g);
        return;
    }
    if (status == MC_OK)
        status = net_take(frame, WIRE_MEASURED, &measured, &why);
    if (w && status == MC_OK)
        take(g, w, &measured);
    else if (w && status != MC_E_BUSY) { /* it cannot */
        w->measure_tries = TRIES;
        gateway_log(&g->log, MC_LOG_WARN, "event=worker_not_measured worker=%s why=\"%s\"", w->name,
                    why.text[0] ? why.text : mc_status_text(status));
    }
    set_timer(g);
    gateway_pump(g);
}

static void look(void *user, uint64_t now_ns)
{
    gateway *g = user;
    struct worker *w = next_worker(g);
    const struct wire_measure message = { .budget_ns = BUDGET_NS };

    if (!w || g->measuring || g->draining)
        return; /* whoever joins, or answers, looks again */
    if (g->client_count > 0) {
        set_timer(g);
        return;
    }
    w->measure_tries++;
    g->measuring = w->as_instance.id;
    if (net_ask(w->conn, WIRE_MEASURE, &message, now_ns + BUDGET_NS + ANSWER_NS, answered, g,
                NULL) == MC_OK)
        return;
    g->measuring = 0;
    set_timer(g);
}

static void nobody_waits(void *user, mc_status status, const struct wire_frame *frame)
{
    (void)user;
    (void)status;
    (void)frame;
}

void gateway_measure_yield(gateway *g)
{
    const struct worker *w = gateway_control_find(g, g->measuring);
    const struct wire_measure message = { .stop = true };

    if (w)
        (void)net_ask(w->conn, WIRE_MEASURE, &message, os_loop_now(g->loop) + ANSWER_NS,
                      nobody_waits, NULL, NULL);
}

void gateway_measure_close(gateway *g)
{
    if (g->loop)
        os_loop_timer_stop(g->loop, &g->measure_timer);
    g->measuring = 0;
}
