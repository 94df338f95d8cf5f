/* live.c - records of requests as they go, and watchers who are told. */
#include "gateway/live.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "gateway/live_state.h"
#include "gateway/reason.h"

static const uint64_t TELL_NS = 200000000;
static const uint64_t COME_AGAIN_NS = 5000000000;

/* ---------------------------------------------------------------------------------------- records */

/* NULL: newer ones took its place. */
static struct live_record *record_of(struct live *l, const struct client *c)
{
    struct live_record *r = &l->records[c->live.serial % LIVE_RECORDS];

    return c->live.serial && r->serial == c->live.serial ? r : NULL;
}

static void copy_text(char *to, size_t capacity, const char *from)
{
    snprintf(to, capacity, "%.*s", (int)capacity - 1, from);
}

void gateway_live_begin(gateway *g, struct client *c)
{
    struct live *l = g->live;
    const uint64_t now_ns = os_loop_now(g->loop);

    c->live = (struct live_mark){ .serial = ++l->serial, .stage = LIVE_QUEUE };
    l->stages[LIVE_QUEUE]++;
    live_minute_now(&l->minute, now_ns)->arrived++;
    struct live_record *r = &l->records[l->serial % LIVE_RECORDS];
    *r = (struct live_record){
        .serial = l->serial,
        .arrived_ns = c->call->arrived_ns,
        .entered_ns = c->call->arrived_ns,
        .prompt = c->prompt->id_count,
        .slo_ttft_ns = c->options.sched.slo.ttft_ns,
        .slo_tbt_ns = c->options.sched.slo.tbt_ns,
        .stage = LIVE_QUEUE,
        .news = LIVE_MOVED,
        .chat = c->call->api.kind == API_CHAT,
    };
    copy_text(r->id, sizeof(r->id), c->call->request_id);
}

static enum live_stage stage_of(const struct client *c)
{
    const struct request *r = &c->request;

    if (r->phase == REQUEST_ENDED)
        return LIVE_DONE;
    if (r->phase == REQUEST_DECODING || r->output_tokens > 0)
        return LIVE_DECODE;
    if (r->phase != REQUEST_PREFILLING)
        return LIVE_QUEUE;
    switch (c->live.phase) { /* of wire's prefill_progress */
    case 2:
        return LIVE_PULL;
    case 3:
        return LIVE_PREFILL;
    case 4:
        return LIVE_HAND_OFF;
    default:
        return LIVE_QUEUE;
    }
}

/* What a figure grew by since it was last seen; an attempt that begins anew starts from 0. */
static uint64_t grown(uint64_t *seen, uint64_t now)
{
    const uint64_t by = now > *seen ? now - *seen : 0;

    *seen = now;
    return by;
}

static uint64_t between(uint64_t from_ns, uint64_t to_ns)
{
    return from_ns && to_ns > from_ns ? to_ns - from_ns : 0;
}

/* Into the minute's sums. True: something grew. */
static bool count_growth(struct live *l, struct client *c, uint64_t now_ns)
{
    const struct request *r = &c->request;
    struct live_mark *m = &c->live;
    const uint64_t pulled = grown(&m->pulled, r->pulled_bytes);
    const uint64_t pushed = grown(&m->pushed, r->pushed_bytes);
    const bool goes_on = m->output > 0;
    const uint64_t tokens = grown(&m->output, r->output_tokens);

    if (pulled + pushed + tokens == 0)
        return false;
    struct live_second *second = live_minute_now(&l->minute, now_ns);
    second->pulled_bytes += pulled;
    second->pushed_bytes += pushed;
    second->output_tokens += tokens;
    if (tokens && goes_on)
        live_times_add(&second->tbt, between(m->token_ns, now_ns) / tokens, (uint32_t)tokens);
    else if (tokens && !m->first)
        live_times_add(&second->ttft, between(c->call->arrived_ns, r->times.first_ns), 1);
    if (tokens) {
        m->first = true;
        m->token_ns = now_ns;
    }
    return true;
}

static void copy_worker(const gateway *g, uint64_t instance, char name[LIVE_NAME])
{
    const struct worker *w = gateway_control_find(g, instance);

    copy_text(name, LIVE_NAME, w ? gateway_worker_name(w) : "");
}

static void copy_figures(struct live_record *to, const struct client *c)
{
    const struct request *r = &c->request;

    to->reused = r->reused_tokens;
    to->prefilled = r->times.prefilled_ns != 0;
    to->output = r->output_tokens;
    to->pulled = r->pulled_bytes;
    to->pushed = r->pushed_bytes;
    to->first_ns = r->output_tokens ? r->times.first_ns : 0;
    to->tries = r->tries;
    if (r->phase > REQUEST_PLACING)
        to->predicted_ns = r->decision.predicted.ttft_ns;
}

/* Times in its stages, as seen from here. Once the prefill worker has said what they were, which it knows
 * better, waiting is what remains of the time to the first token. */
static void spend(struct live_record *to, const struct client *c, enum live_stage next,
                  uint64_t now_ns)
{
    const struct request *r = &c->request;
    const uint64_t known_ns = r->pull_ns + r->compute_ns + r->hand_off_ns;
    const uint64_t until_ns = to->first_ns ? to->first_ns : now_ns;

    if (next != to->stage) {
        to->spent_ns[to->stage] += between(to->entered_ns, now_ns);
        to->entered_ns = next == LIVE_DECODE ? until_ns : now_ns;
    }
    if (r->times.prefilled_ns == 0 || known_ns == 0)
        return;
    to->spent_ns[LIVE_QUEUE] = between(to->arrived_ns + known_ns, until_ns);
    to->spent_ns[LIVE_PULL] = r->pull_ns;
    to->spent_ns[LIVE_PREFILL] = r->compute_ns;
    to->spent_ns[LIVE_HAND_OFF] = r->hand_off_ns;
}

static void follow(gateway *g, struct client *c)
{
    struct live *l = g->live;
    struct live_mark *m = &c->live;
    const struct request *r = &c->request;
    const enum live_stage stage = stage_of(c);
    const bool placed = r->prefill != m->prefill || r->decode != m->decode;
    const bool moved = stage != m->stage || placed;
    const bool prefilled = r->times.prefilled_ns != 0;
    const bool grew = count_growth(l, c, os_loop_now(g->loop)) || prefilled != m->prefilled;

    if (!moved && !grew)
        return;
    l->stages[m->stage]--;
    l->stages[stage]++;
    m->stage = stage;
    m->prefilled = prefilled;
    m->prefill = r->prefill;
    m->decode = r->decode;
    struct live_record *record = record_of(l, c);
    if (!record)
        return;
    copy_figures(record, c);
    if (record->stage != LIVE_DONE)
        spend(record, c, stage, os_loop_now(g->loop));
    record->stage = stage;
    if (placed && r->prefill) { /* one that has ended keeps where it was */
        copy_worker(g, r->prefill, record->prefill);
        copy_worker(g, r->decode ? r->decode : r->prefill, record->decode);
    }
    if (moved)
        record->news = LIVE_MOVED;
    else if (record->news == LIVE_TOLD)
        record->news = LIVE_GROWN;
}

void gateway_live_step(gateway *g, struct client *c, const struct request_event *event)
{
    if (c->live.serial == 0)
        return;
    if (c->request.phase < REQUEST_PREFILLING)
        c->live.phase = 0;
    else if (event->kind == REQUEST_PROGRESS)
        c->live.phase = event->progress->phase;
    follow(g, c);
}

/* --------------------------------------------------------------------------------------- refusals */

static void count_refusal(gateway *g, const char *reason, const char *text)
{
    struct live *l = g->live;
    uint32_t i = 0;

    while (i < LIVE_REFUSALS - 1 && l->refusals[i].count && strcmp(l->refusals[i].reason, reason))
        i++;
    struct live_refusal *r = &l->refusals[i];
    copy_text(r->reason, sizeof(r->reason), i == LIVE_REFUSALS - 1 ? "other" : reason);
    copy_text(r->text, sizeof(r->text), text);
    r->count++;
    r->last_ns = os_loop_now(g->loop);
    live_minute_now(&l->minute, r->last_ns)->refused++;
}

/* What is wrong with a request may quote it, so that is not shown: only which field it was. */
void gateway_live_refused(gateway *g, const struct api_error *error)
{
    char text[LIVE_TEXT];

    if (error->status == 429 || error->status == 503)
        copy_text(text, sizeof(text), error->text);
    else
        snprintf(text, sizeof(text), "answered with %u%s%.60s", error->status,
                 error->param[0] ? ", field " : "", error->param);
    live_minute_now(&g->live->minute, os_loop_now(g->loop))->arrived++;
    count_refusal(g, error->code ? error->code : "refused", text);
}

static void explain_refusal(const struct client *c, uint32_t reason, char name[REASON_NAME],
                            char text[LIVE_TEXT])
{
    const struct mc_prediction *p = &c->request.decision.predicted;
    const char *words = gateway_reason_words(reason);

    gateway_reason_name(reason, name);
    if (p->ttft_ns)
        snprintf(text, LIVE_TEXT,
                 "%.80s: predicted %.1f ms to the first token, %.1f ms between tokens", words,
                 (double)p->ttft_ns / 1e6, (double)p->tbt_ns / 1e6);
    else
        copy_text(text, LIVE_TEXT, words);
}

/* -------------------------------------------------------------------------------------------- ends */

static void count_end(struct live *l, struct live_second *second, const struct client *c,
                      uint32_t how)
{
    const struct metrics *m = &c->gateway->metrics;

    second->good += grown(&l->good_seen, metric_value(m, METRIC_goodput_requests, 0));
    second->finished += how == GATEWAY_END_STOP || how == GATEWAY_END_LENGTH;
    second->failed += how == GATEWAY_END_FAILED;
    if (!c->begun)
        return;
    second->prompt_tokens += c->prompt->id_count;
    second->reused_tokens += c->request.reused_tokens;
}

void gateway_live_end(gateway *g, struct client *c, const struct request_out_end *end, uint32_t how)
{
    struct live *l = g->live;
    const uint64_t now_ns = os_loop_now(g->loop);
    char reason[LIVE_NAME] = "", text[LIVE_TEXT];

    if (c->live.serial == 0)
        return;
    follow(g, c);
    l->stages[c->live.stage]--;
    count_end(l, live_minute_now(&l->minute, now_ns), c, how);
    if (how == GATEWAY_END_REFUSED) {
        explain_refusal(c, end->reason, reason, text);
        count_refusal(g, reason, text);
    } else if (how == GATEWAY_END_FAILED)
        copy_text(reason, sizeof(reason), mc_status_text(end->status));
    struct live_record *r = record_of(l, c);
    c->live.serial = 0;
    if (!r)
        return;
    copy_figures(r, c);
    if (r->stage != LIVE_DONE)
        spend(r, c, LIVE_DONE, now_ns);
    r->stage = LIVE_DONE;
    r->ended = true;
    r->ended_ns = now_ns;
    r->how = gateway_ends.values[how];
    copy_text(r->reason, sizeof(r->reason), reason);
    r->news = LIVE_MOVED;
}

/* --------------------------------------------------------------------------------------- watchers */

static void count_watchers(gateway *g)
{
    metric_set(&g->metrics, METRIC_watchers, 0, g->live->watching);
}

static void let_go(struct live_watcher *w)
{
    gateway *g = w->gateway;

    w->http = NULL;
    g->live->watching--;
    if (g->live->watching == 0)
        os_loop_timer_stop(g->loop, &g->live->timer);
    count_watchers(g);
}

static void watcher_gone(void *user)
{
    let_go(user);
}

static void cut_off(struct live_watcher *w)
{
    http_abort(w->http);
    metric_add(&w->gateway->metrics, METRIC_watchers_cut, 0, 1);
    let_go(w);
}

static void tell(struct live_watcher *w, const struct buf *event)
{
    if (event->failed ||
        (event->size > 0 && http_stream_add(w->http, event->data, event->size) != MC_OK))
        cut_off(w);
}

/* A buffer that could not grow is as good as new. */
static void empty(struct buf *buf)
{
    if (buf->failed) {
        const struct mc_alloc *alloc = buf->alloc;
        buf_fini(buf);
        *buf = BUF_INIT(alloc);
    }
    buf_truncate(buf, 0);
}

static void set_timer(gateway *g, uint64_t now_ns)
{
    struct live *l = g->live;

    if (l->watching == 0 || os_loop_timer(g->loop, &l->timer, now_ns + TELL_NS) == MC_OK)
        return;
    gateway_log(&g->log, MC_LOG_ERROR, "event=no_memory what=live_timer");
    gateway_live_end_watching(g);
}

static void time_to_tell(void *user, uint64_t now_ns)
{
    gateway *g = user;
    struct live *l = g->live;

    empty(&l->event);
    empty(&l->part);
    gateway_live_change(g, now_ns, &l->event);
    for (uint32_t i = 0; i < LIVE_WATCHERS; i++)
        if (l->watchers[i].http)
            tell(&l->watchers[i], &l->event);
    set_timer(g, now_ns);
}

static struct live_watcher *free_place(struct live *l)
{
    for (uint32_t i = 0; i < LIVE_WATCHERS; i++)
        if (!l->watchers[i].http)
            return &l->watchers[i];
    return NULL;
}

static void turn_away(gateway *g, http_request *http)
{
    struct api_error error;

    if (g->draining)
        api_fail(&error, 503, "service_unavailable_error", "draining", NULL,
                 "this gateway is shutting down");
    else
        api_fail(&error, 503, "service_unavailable_error", "too_many_watchers", NULL,
                 "%u watch already, as many as are told: close another page", g->live->watching);
    error.retry_ns = COME_AGAIN_NS;
    gateway_route_error(g, http, &error);
}

static const char EVENTS[] = "text/event-stream; charset=utf-8";

/* HEAD: what a GET would be answered, without the stream. */
static void answer_head(gateway *g, http_request *http)
{
    struct buf nothing = BUF_INIT(g->alloc);

    gateway_route_count(g, 200);
    http_answer(http, 200, EVENTS, &nothing);
}

void gateway_live_watch(gateway *g, http_request *http)
{
    struct live *l = g->live;
    struct live_watcher *w = free_place(l);
    const uint64_t now_ns = os_loop_now(g->loop);

    if (!w || g->draining) {
        turn_away(g, http);
        return;
    }
    if (strcmp(http_method(http), "GET") != 0) {
        answer_head(g, http);
        return;
    }
    *w = (struct live_watcher){ g, http };
    http_hold(http, watcher_gone, w);
    http_header_add(http, "Cache-Control", "no-store");
    http_header_add(http, "X-Accel-Buffering", "no"); /* a proxy must not gather it */
    http_stream_begin(http, EVENTS);
    gateway_route_count(g, 200);
    l->watching++;
    count_watchers(g);
    empty(&l->event);
    gateway_live_snapshot(g, now_ns, &l->event);
    if (l->watching == 1)
        set_timer(g, now_ns);
    if (w->http)
        tell(w, &l->event);
}

void gateway_live_end_watching(gateway *g)
{
    for (uint32_t i = 0; i < LIVE_WATCHERS; i++) {
        struct live_watcher *w = &g->live->watchers[i];
        if (!w->http)
            continue;
        http_abort(w->http); /* ended well, it would be waited for */
        let_go(w);
    }
}

/* ------------------------------------------------------------------------------------ open, close */

mc_status gateway_live_open(gateway *g, struct mc_error *error)
{
    struct live *l = alloc_zeroed(g->alloc, 1, sizeof(*l));

    if (!l)
        return error_set(error, MC_E_NOMEM, "out of memory for the live page");
    g->live = l;
    l->timer = (struct os_timer){ .due = time_to_tell, .user = g };
    l->event = l->part = BUF_INIT(g->alloc);
    for (int i = 0; i < LIVE_PARTS; i++)
        l->told[i] = BUF_INIT(g->alloc);
    live_minute_init(&l->minute, os_loop_now(g->loop));
    return MC_OK;
}

void gateway_live_close(gateway *g)
{
    struct live *l = g->live;

    if (!l)
        return;
    assert(l->watching == 0);
    os_loop_timer_stop(g->loop, &l->timer);
    buf_fini(&l->event);
    buf_fini(&l->part);
    for (int i = 0; i < LIVE_PARTS; i++)
        buf_fini(&l->told[i]);
    alloc_free(g->alloc, l);
    g->live = NULL;
}
