/* live_text.c - what watchers are told, as JSON; docs/live-page.md says what each field is. */
#include <inttypes.h>
#include <string.h>

#include "gateway/live_state.h"

static const char *const stage_names[] = {
#define STAGE(name, text) text,
    LIVE_STAGES(STAGE)
#undef STAGE
};

/* Times of events are milliseconds since the gateway's live state began. */
static uint64_t when_ms(const struct live *l, uint64_t at_ns)
{
    return at_ns > l->minute.begin_ns ? (at_ns - l->minute.begin_ns) / 1000000 : 0;
}

static void add_text(struct buf *out, const char *text)
{
    buf_add_json(out, text, strlen(text));
}

/* --------------------------------------------------------------------------------------- requests */

static uint64_t since_us(const struct live_record *r, uint64_t at_ns)
{
    return at_ns > r->arrived_ns ? (at_ns - r->arrived_ns) / 1000 : 0;
}

static void write_record(const struct live *l, const struct live_record *r, struct buf *out)
{
    buf_addf(out, "{\"n\":%" PRIu64 ",\"at\":%" PRIu64 ",\"id\":", r->serial,
             when_ms(l, r->arrived_ns));
    add_text(out, r->id);
    buf_addf(out,
             ",\"known\":%s,\"kind\":\"%s\",\"stage\":\"%s\",\"prompt\":%" PRIu64
             ",\"reused\":%" PRIu64 ",\"output\":%" PRIu64 ",\"pulled\":%" PRIu64
             ",\"pushed\":%" PRIu64 ",\"predicted\":%" PRIu64 ",\"ttft\":%" PRIu64
             ",\"tries\":%u,\"since\":%" PRIu64 ",\"spent\":",
             r->prefilled ? "true" : "false", r->chat ? "chat" : "completion",
             stage_names[r->stage], r->prompt, r->reused, r->output, r->pulled, r->pushed,
             r->predicted_ns / 1000, r->first_ns ? since_us(r, r->first_ns) : 0, r->tries,
             when_ms(l, r->entered_ns));
    for (int i = 0; i < LIVE_DONE; i++)
        buf_addf(out, "%c%" PRIu64, i ? ',' : '[', r->spent_ns[i] / 1000);
    buf_add_text(out, "],\"from\":");
    add_text(out, r->prefill);
    buf_add_text(out, ",\"to\":");
    add_text(out, r->decode);
    if (r->slo_ttft_ns || r->slo_tbt_ns)
        buf_addf(out, ",\"slo\":[%" PRIu64 ",%" PRIu64 "]", r->slo_ttft_ns / 1000,
                 r->slo_tbt_ns / 1000);
    if (r->ended) {
        buf_addf(out, ",\"total\":%" PRIu64 ",\"how\":\"%s\",\"reason\":", since_us(r, r->ended_ns),
                 r->how);
        add_text(out, r->reason);
    }
    buf_add_byte(out, '}');
}

/* Records with such news, oldest first, at most `most`; they count as told. */
static uint32_t write_news(struct live *l, enum live_news news, uint32_t most, uint32_t already,
                           struct buf *out)
{
    uint32_t count = 0;

    for (uint64_t i = 1; i <= LIVE_RECORDS && count < most; i++) {
        struct live_record *r = &l->records[(l->serial + i) % LIVE_RECORDS];
        if (r->serial == 0 || r->news != news)
            continue;
        if (already + count > 0)
            buf_add_byte(out, ',');
        write_record(l, r, out);
        r->news = LIVE_TOLD;
        count++;
    }
    return count;
}

static void write_all_records(struct live *l, struct buf *out)
{
    bool first = true;

    for (uint64_t i = 1; i <= LIVE_RECORDS; i++) {
        struct live_record *r = &l->records[(l->serial + i) % LIVE_RECORDS];
        if (r->serial == 0)
            continue;
        if (!first)
            buf_add_byte(out, ',');
        first = false;
        write_record(l, r, out);
        if (l->watching == 1) /* nobody else has yet to hear of it */
            r->news = LIVE_TOLD;
    }
}

/* ------------------------------------------------------------------------------------------ parts */

static void write_gateway(const gateway *g, struct buf *out)
{
    buf_add_text(out, "{\"model\":");
    add_text(out, g->defaults.model);
    buf_addf(out,
             ",\"version\":\"%s\",\"state\":\"%s\",\"started\":%" PRIu64
             ",\"context\":%u,\"requests_max\":%u,\"slo\":[%" PRIu64 ",%" PRIu64
             "],\"pool\":%s,\"policy\":",
             MC_VERSION,
             g->draining                    ? "draining"
             : gateway_control_can_serve(g) ? "ready"
                                            : "no_workers",
             g->started_s, gateway_control_context_max(g), g->options.requests_max,
             g->options.slo_ttft_ns / 1000, g->options.slo_tbt_ns / 1000,
             g->options.master ? "true" : "false");
    add_text(out, g->options.policy ? g->options.policy : "default");
    buf_add_byte(out, '}');
}

static void write_stages(const gateway *g, struct buf *out)
{
    for (int i = 0; i < LIVE_DONE; i++)
        buf_addf(out, "%c%" PRIu64, i ? ',' : '[', g->live->stages[i]);
    buf_add_byte(out, ']');
}

static void write_worker(const struct worker *w, struct buf *out)
{
    const struct mc_sched_instance *i = &w->as_instance;
    const struct wire_load_report *l = &w->load;

    buf_addf(out, "{\"id\":%" PRIu64 ",\"name\":", i->id);
    add_text(out, w->name);
    buf_addf(out,
             ",\"role\":\"%s\",\"state\":\"%s\",\"queued\":%" PRIu64 ",\"queued_tokens\":%" PRIu64
             ",\"running\":%" PRIu64 ",\"sequences\":%" PRIu64 ",\"context\":%" PRIu64
             ",\"free\":%" PRIu64 ",\"tokens\":%" PRIu64 "}",
             i->role == MC_ROLE_PREFILL  ? "prefill"
             : i->role == MC_ROLE_DECODE ? "decode"
                                         : "both",
             w->draining        ? "draining"
             : l->lease_ns == 0 ? "starting"
                                : "ready",
             l->queued, l->queued_tokens, l->running, i->sequences_max, l->context_tokens,
             l->free_tokens, i->kv_tokens_max);
}

static void write_workers(const gateway *g, struct buf *out)
{
    uint32_t count = 0;

    buf_add_text(out, "{\"list\":[");
    for (const struct worker *w = g->workers; w; w = w->next) {
        if (!w->as_instance.id || count++ >= LIVE_CARDS)
            continue;
        if (count > 1)
            buf_add_byte(out, ',');
        write_worker(w, out);
    }
    buf_addf(out, "],\"count\":%u}", count);
}

static void write_nodes(const gateway *g, struct buf *out)
{
    const struct pool *p = &g->pool;

    buf_add_text(out, "{\"list\":[");
    for (uint32_t i = 0; i < p->node_count && i < LIVE_CARDS; i++)
        buf_addf(out, "%s{\"id\":\"%016" PRIx64 "\",\"blocks\":%" PRIu64 ",\"bytes\":%" PRIu64 "}",
                 i ? "," : "", p->nodes[i].node, p->nodes[i].blocks, p->nodes[i].bytes);
    buf_addf(out, "],\"count\":%u}", p->node_count);
}

static void write_refusals(const gateway *g, struct buf *out)
{
    const struct live *l = g->live;
    bool first = true;

    buf_add_byte(out, '[');
    for (uint32_t i = 0; i < LIVE_REFUSALS; i++) {
        const struct live_refusal *r = &l->refusals[i];
        if (r->count == 0)
            continue;
        buf_add_text(out, first ? "{\"reason\":" : ",{\"reason\":");
        first = false;
        add_text(out, r->reason);
        buf_addf(out, ",\"count\":%" PRIu64 ",\"last\":%" PRIu64 ",\"text\":", r->count,
                 when_ms(l, r->last_ns));
        add_text(out, r->text);
        buf_add_byte(out, '}');
    }
    buf_add_byte(out, ']');
}

static const struct part {
    const char *name;
    void (*write)(const gateway *g, struct buf *out);
} parts[LIVE_PARTS] = {
    [LIVE_GATEWAY] = { "gateway", write_gateway },   [LIVE_STAGE_SUMS] = { "stages", write_stages },
    [LIVE_WORKERS] = { "workers", write_workers },   [LIVE_NODES] = { "nodes", write_nodes },
    [LIVE_REFUSED] = { "refusals", write_refusals },
};

static void write_part(const gateway *g, enum live_part part, struct buf *out)
{
    buf_addf(out, ",\"%s\":", parts[part].name);
    parts[part].write(g, out);
}

/* A part whose text is not the one that was told. */
static bool write_part_if_new(gateway *g, enum live_part part, struct buf *out)
{
    struct live *l = g->live;
    struct buf *told = &l->told[part];

    buf_truncate(&l->part, 0);
    write_part(g, part, &l->part);
    if (l->part.failed || (l->part.size == told->size && !told->failed &&
                           memcmp(l->part.data, told->data, told->size) == 0))
        return l->part.failed;
    buf_add(out, l->part.data, l->part.size);
    const struct buf old = *told;
    *told = l->part;
    l->part = old;
    return true;
}

/* ----------------------------------------------------------------------- once a second: all figures */

/* Counters and gauges as /metrics has them, by the same names. */
static void write_counters(const gateway *g, struct buf *out)
{
    const struct metrics *m = &g->metrics;
    bool first = true;

    buf_add_text(out, ",\"counters\":{");
    for (uint32_t i = 0; i < m->count; i++) {
        const struct metric *row = &m->rows[i];
        if (row->kind == METRIC_HISTOGRAM)
            continue;
        buf_addf(out, "%s\"%s\":", first ? "" : ",", row->name);
        first = false;
        if (!row->label) {
            buf_addf(out, "%" PRId64, (int64_t)metric_value(m, i, 0));
            continue;
        }
        for (uint32_t j = 0; j < row->label->count; j++)
            buf_addf(out, "%s\"%s\":%" PRId64, j ? "," : "{", row->label->values[j],
                     (int64_t)metric_value(m, i, j));
        buf_add_byte(out, '}');
    }
    buf_add_byte(out, '}');
}

static void write_times(const char *name, const struct live_times *t, struct buf *out)
{
    buf_addf(out, "\"%s\":[%" PRIu64 ",%" PRIu64 ",%u]", name, live_times_percentile(t, 50),
             live_times_percentile(t, 95), t->count);
}

static void write_minute(const struct live *l, struct buf *out)
{
    struct live_times sum;

    buf_add_text(out, ",\"minute\":{");
    live_minute_ttft(&l->minute, &sum);
    write_times("ttft", &sum, out);
    live_minute_tbt(&l->minute, &sum);
    buf_add_byte(out, ',');
    write_times("tbt", &sum, out);
    buf_add_byte(out, '}');
}

static void write_second(const struct live_second *s, struct buf *out)
{
    buf_addf(out,
             "{\"n\":%" PRIu64 ",\"arrived\":%" PRIu64 ",\"finished\":%" PRIu64
             ",\"refused\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"prompt\":%" PRIu64
             ",\"reused\":%" PRIu64 ",\"output\":%" PRIu64 ",\"pulled\":%" PRIu64
             ",\"pushed\":%" PRIu64 ",\"good\":%" PRIu64 ",",
             s->number, s->arrived, s->finished, s->refused, s->failed, s->prompt_tokens,
             s->reused_tokens, s->output_tokens, s->pulled_bytes, s->pushed_bytes, s->good);
    write_times("ttft", &s->ttft, out);
    buf_add_byte(out, ',');
    write_times("tbt", &s->tbt, out);
    buf_add_byte(out, '}');
}

/* Seconds from `from` on that are over. */
static void write_seconds(const struct live *l, uint64_t from, struct buf *out)
{
    bool first = true;

    if (l->minute.last >= LIVE_SECONDS && from < l->minute.last - LIVE_SECONDS + 1)
        from = l->minute.last - LIVE_SECONDS + 1;
    buf_add_text(out, ",\"seconds\":[");
    for (uint64_t i = from; i < l->minute.last; i++) {
        const struct live_second *s = live_minute_at(&l->minute, i);
        if (!s)
            continue;
        if (!first)
            buf_add_byte(out, ',');
        first = false;
        write_second(s, out);
    }
    buf_add_byte(out, ']');
}

/* ----------------------------------------------------------------------------------------- events */

static void begin(const gateway *g, const char *event, uint64_t now_ns, struct buf *out)
{
    buf_addf(out, "event: %s\ndata: {\"now\":%" PRIu64, event, when_ms(g->live, now_ns));
}

void gateway_live_snapshot(gateway *g, uint64_t now_ns, struct buf *out)
{
    struct live *l = g->live;

    live_minute_now(&l->minute, now_ns);
    begin(g, "snapshot", now_ns, out);
    for (int i = 0; i < LIVE_PARTS; i++)
        write_part(g, (enum live_part)i, out);
    write_counters(g, out);
    write_minute(l, out);
    write_seconds(l, 0, out);
    buf_add_text(out, ",\"requests\":[");
    write_all_records(l, out);
    buf_add_text(out, "]}\n\n");
    if (l->watching == 1)
        l->told_second = l->minute.last;
}

void gateway_live_change(gateway *g, uint64_t now_ns, struct buf *out)
{
    struct live *l = g->live;
    bool news = false;

    begin(g, "change", now_ns, out);
    for (int i = 0; i < LIVE_PARTS; i++)
        news |= write_part_if_new(g, (enum live_part)i, out);
    live_minute_now(&l->minute, now_ns);
    if (l->minute.last > l->told_second) {
        write_counters(g, out);
        write_minute(l, out);
        write_seconds(l, l->told_second, out);
        l->told_second = l->minute.last;
        news = true;
    }
    buf_add_text(out, ",\"requests\":[");
    const uint32_t moved = write_news(l, LIVE_MOVED, LIVE_NEWS_MAX, 0, out);
    const uint32_t grew = write_news(l, LIVE_GROWN, LIVE_PROGRESS_MAX, moved, out);
    buf_add_text(out, "]}\n\n");
    if (!news && moved + grew == 0)
        buf_truncate(out, 0);
}
