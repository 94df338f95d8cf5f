/* bench_serve_load.c - slots, the times of sending, and the end of each request. */
#define _POSIX_C_SOURCE 200809L
#include "cmd/bench_serve_load.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/alloc.h"
#include "base/error.h"
#include "cmd/answer_part.h"
#include "cmd/sse.h"
#include "os/clock.h"

enum { ERROR_BODY_MAX = 8192 };

static const uint64_t SECOND_NS = 1000000000;
static const uint64_t WAIT_MAX_NS = UINT64_C(3600) * 1000000000; /* of a Retry-After */

struct bench_slot {
    struct bench_load *load;
    struct http_call call;
    struct bench_record r;
    struct buf body;   /* of the request; kept for another try */
    struct buf answer; /* a body that is no stream, its first ERROR_BODY_MAX bytes */
    struct sse sse;
    struct os_timer again; /* when a refused one goes once more */
    bool streaming;        /* the answer is a stream of events */
    bool used;
    struct bench_slot *next_free, *next_all;
};

static void pump(struct bench_load *load);

static uint64_t elapsed(const struct bench_load *load)
{
    return os_now_ns() - load->start_ns;
}

/* -------------------------------------------------------------------------------- what comes back */

static bool named(const char *name, size_t size, const char *wanted)
{
    return strlen(wanted) == size && strncasecmp(name, wanted, size) == 0;
}

/* A number of at least 0, perhaps with a fraction; -1: it is none. */
static double number_of(const char *text, size_t size)
{
    char copy[32], *end;

    if (size == 0 || size >= sizeof(copy) || text[0] < '0' || text[0] > '9')
        return -1;
    memcpy(copy, text, size);
    copy[size] = '\0';
    const double value = strtod(copy, &end);
    return *end == '\0' ? value : -1;
}

static void keep(char *to, size_t room, const char *value, size_t size)
{
    snprintf(to, room, "%.*s", size < room ? (int)size : (int)room - 1, value);
}

static uint64_t to_ns(double value, double unit_ns)
{
    return value * unit_ns < (double)WAIT_MAX_NS ? (uint64_t)(value * unit_ns) : WAIT_MAX_NS;
}

static void on_header(void *user, const char *name, size_t name_size, const char *value,
                      size_t value_size)
{
    struct bench_slot *slot = user;
    struct bench_record *r = &slot->r;
    double number;

    if (named(name, name_size, "content-type"))
        slot->streaming = value_size >= 17 && strncasecmp(value, "text/event-stream", 17) == 0;
    else if (named(name, name_size, "x-request-id"))
        keep(r->id, sizeof(r->id), value, value_size);
    else if (named(name, name_size, "x-mooncake-refused")) /* says more than its code */
        keep(r->reason, sizeof(r->reason), value, value_size);
    else if (named(name, name_size, "x-mooncake-prefill"))
        keep(r->prefill, sizeof(r->prefill), value, value_size);
    else if (named(name, name_size, "x-mooncake-decode"))
        keep(r->decode, sizeof(r->decode), value, value_size);
    else if (named(name, name_size, "x-mooncake-predicted-ttft-ms")) {
        if ((number = number_of(value, value_size)) > 0)
            r->predicted_ns = to_ns(number, 1e6);
    } else if (named(name, name_size, "retry-after-ms")) { /* finer, so it is the one that counts */
        if ((number = number_of(value, value_size)) >= 0)
            r->waited_ns = to_ns(number, 1e6);
    } else if (named(name, name_size, "retry-after") && r->waited_ns == 0) {
        if ((number = number_of(value, value_size)) >= 0)
            r->waited_ns = to_ns(number, 1e9);
    }
}

static void fail(struct bench_record *r, const char *reason)
{
    if (r->reason[0] == '\0') /* the first one is the cause */
        snprintf(r->reason, sizeof(r->reason), "%.*s", (int)sizeof(r->reason) - 1, reason);
}

/* Hot: once for each token. */
static bool on_event(void *user, const char *data, size_t size)
{
    struct bench_slot *slot = user;
    struct bench_record *r = &slot->r;
    struct answer_part part;

    if (!answer_part_read(data, size, &part)) {
        fail(r, "not_json");
        return false;
    }
    if (part.token) {
        const uint64_t now_ns = elapsed(slot->load);
        const uint64_t gap_ns = now_ns - r->last_ns;
        if (r->pieces++ == 0) {
            r->first_ns = now_ns;
        } else {
            r->gap_max_ns = gap_ns > r->gap_max_ns ? gap_ns : r->gap_max_ns;
            gaps_add(&r->gaps, gap_ns, 1);
        }
        r->last_ns = now_ns;
    }
    if (part.usage) {
        r->usage = true;
        r->prompt_tokens = part.prompt_tokens;
        r->output_tokens = part.completion_tokens;
        r->cached = part.cached;
        r->cached_tokens = part.cached_tokens;
    }
    if (part.error)
        fail(r, part.code[0] ? part.code : "error");
    r->done = r->done || part.done;
    return !part.error;
}

static bool on_data(void *user, const char *bytes, size_t size)
{
    struct bench_slot *slot = user;

    if (!slot->streaming) {
        const size_t room = ERROR_BODY_MAX - slot->answer.size;
        buf_add(&slot->answer, bytes, size < room ? size : room);
        return true;
    }
    const mc_status status = sse_feed(&slot->sse, bytes, size, on_event, slot);
    if (status == MC_E_RANGE)
        fail(&slot->r, "event_too_long");
    else if (status == MC_E_NOMEM)
        fail(&slot->r, "client_memory");
    return status == MC_OK;
}

/* -------------------------------------------------------------------------------------- outcomes */

/* A 503 says "not now" where the server is full, and "not at all" where it has lost its workers. */
static bool is_refusal(const struct bench_record *r)
{
    static const char *const lost[] = { "no_workers", "worker_lost", "cancelled", "out_of_memory" };

    if (r->code == 429 || r->code == 529)
        return true;
    for (size_t i = 0; i < sizeof(lost) / sizeof(lost[0]); i++)
        if (strcmp(r->reason, lost[i]) == 0)
            return false;
    return r->code == 503;
}

static void read_error(struct bench_slot *slot)
{
    struct bench_record *r = &slot->r;
    struct answer_part part = { 0 };
    char text[24];

    if (slot->answer.size > 0)
        (void)answer_part_read(slot->answer.data, slot->answer.size, &part);
    snprintf(text, sizeof(text), "http_%ld", r->code);
    fail(r, part.code[0] ? part.code : text);
}

static enum bench_outcome judge_stream(struct bench_record *r)
{
    if (r->reason[0] != '\0')
        return BENCH_FAILED;
    if (!r->done)
        fail(r, "cut_off");
    else if (r->pieces == 0)
        fail(r, "no_token");
    return r->reason[0] ? BENCH_FAILED : BENCH_ANSWERED;
}

static enum bench_outcome judge(struct bench_slot *slot, const struct http_end *end)
{
    struct bench_record *r = &slot->r;

    r->code = end->code;
    if (end->code == 0 || (end->status != MC_OK && !r->done)) {
        fail(r, end->status == MC_E_TIMEOUT ? "timeout"
                : end->code == 0            ? "no_connection"
                : end->status == MC_E_PEER  ? "cut_off"
                                            : "http_broken");
        return BENCH_FAILED;
    }
    if (end->code == 200 && slot->streaming)
        return judge_stream(r);
    if (end->code == 200)
        fail(r, "not_a_stream");
    else
        read_error(slot);
    return is_refusal(r) ? BENCH_REFUSED : BENCH_FAILED;
}

/* -------------------------------------------------------------------------------------- one line */

const char bench_record_head[] =
    "number,line,due_s,sent_s,outcome,code,reason,tries,cut,input_tokens,wanted_tokens,replay_"
    "tokens,"
    "prompt_tokens,cached_tokens,output_tokens,ttft_ms,tbt_mean_ms,tbt_longest_ms,tbt_max_ms,total_"
    "ms,"
    "retry_after_s,predicted_ttft_ms,prefill,decode,request_id\n";

/* Names come from a server: what would break the line is left out. */
static const char *plain(char *text)
{
    for (char *c = text; *c; c++)
        if (*c == ',' || *c == '"' || (unsigned char)*c < 0x20)
            *c = '_';
    return text;
}

static void write_line(struct bench_load *load, struct bench_record *r)
{
    const bool answered = r->outcome == BENCH_ANSWERED;
    const double ms = 1e6;

    if (!load->csv)
        return;
    const int size = fprintf(
        load->csv,
        "%" PRIu64 ",%" PRIu64 ",%.6f,%.6f,%s,%ld,%s,%u,%d,%u,%u,%u,%" PRIu64 ",%" PRIu64
        ",%" PRIu64 ",%.3f,%.3f,%.3f,%.3f,%.3f,%.3f,%.3f,%s,%s,%s\n",
        r->number, r->line, (double)r->due_ns / 1e9, (double)r->first_try_ns / 1e9,
        bench_outcome_name(r->outcome), r->code, plain(r->reason), r->tries, r->cut,
        r->input_tokens, r->wanted_tokens, r->replay_tokens, r->prompt_tokens, r->cached_tokens,
        r->output_tokens, answered ? (double)(r->first_ns - r->sent_ns) / ms : 0,
        (double)bench_record_gap_mean(r) / ms, (double)gaps_longest(&r->gaps) / ms,
        (double)r->gap_max_ns / ms, (double)(r->end_ns - r->sent_ns) / ms,
        (double)r->waited_ns / 1e9, (double)r->predicted_ns / ms, plain(r->prefill),
        plain(r->decode), plain(r->id));
    load->csv_failed = load->csv_failed || size < 0;
}

/* ------------------------------------------------------------------------------------ slots' ends */

static void finish_if_done(struct bench_load *load)
{
    if (load->ended && load->in_use == 0) {
        os_loop_timer_stop(load->loop, &load->tick);
        os_loop_stop(load->loop);
    }
}

static void end_slot(struct bench_slot *slot, enum bench_outcome outcome)
{
    struct bench_load *load = slot->load;
    struct bench_record *r = &slot->r;

    r->outcome = outcome;
    r->end_ns = elapsed(load);
    if (!r->usage) {
        r->output_tokens = r->pieces;
        r->prompt_tokens = r->input_tokens;
    }
    bench_tally_end(&load->tally, r);
    write_line(load, r);
    slot->used = false;
    slot->next_free = load->free;
    load->free = slot;
    load->in_use--;
}

static mc_status go(struct bench_slot *slot, bool again, uint64_t late_ns)
{
    struct bench_load *load = slot->load;
    struct bench_record *r = &slot->r;

    sse_reset(&slot->sse);
    buf_truncate(&slot->answer, 0);
    slot->streaming = false;
    r->sent_ns = elapsed(load);
    r->first_ns = r->last_ns = r->gap_max_ns = r->predicted_ns = r->waited_ns = 0;
    r->pieces = 0;
    r->gaps = (struct gaps){ .count = 0 };
    r->done = r->usage = r->cached = r->waiting = false;
    r->reason[0] = r->id[0] = r->prefill[0] = r->decode[0] = '\0';
    r->tries++;
    if (!again)
        r->first_try_ns = r->sent_ns;
    bench_tally_sent(&load->tally, r, again, late_ns);
    slot->call.body = slot->body.data;
    slot->call.body_size = slot->body.size;
    return slot->body.failed ? MC_E_NOMEM : http_client_begin(load->client, &slot->call);
}

static void on_again(void *user, uint64_t now_ns)
{
    struct bench_slot *slot = user;
    struct bench_load *load = slot->load;

    (void)now_ns;
    load->waiting--;
    if (go(slot, true, UINT64_MAX) != MC_OK) {
        fail(&slot->r, "client_memory");
        end_slot(slot, BENCH_FAILED);
        pump(load);
        finish_if_done(load);
    }
}

/* Whether a refused request waits and goes again: the same ones for the same seed. */
static bool wait_to_retry(struct bench_slot *slot)
{
    struct bench_load *load = slot->load;
    const struct bench_serve_options *o = &load->request->options;
    struct bench_record *r = &slot->r;

    if (r->tries > o->retry ||
        prng_unit(prng_at(prng_mix(o->seed) ^ 1, r->number)) >= (double)o->retry_share)
        return false;
    /* Without a word from the server: a second, as its clients do. */
    const uint64_t at_ns = os_now_ns() + (r->waited_ns ? r->waited_ns : SECOND_NS);
    if (os_loop_timer(load->loop, &slot->again, at_ns) != MC_OK)
        return false;
    r->waiting = true;
    bench_tally_waits(&load->tally, r);
    load->waiting++;
    return true;
}

static void on_end(void *user, const struct http_end *end)
{
    struct bench_slot *slot = user;
    struct bench_load *load = slot->load;
    const enum bench_outcome outcome = judge(slot, end);

    if (outcome == BENCH_REFUSED && wait_to_retry(slot))
        return;
    end_slot(slot, outcome);
    pump(load);
    finish_if_done(load);
}

/* ----------------------------------------------------------------------------------------- sending */

static struct bench_slot *take_slot(struct bench_load *load)
{
    struct bench_slot *slot = load->free;

    if (slot) {
        load->free = slot->next_free;
    } else {
        slot = alloc_zeroed(load->alloc, 1, sizeof(*slot));
        if (!slot)
            return NULL;
        slot->load = load;
        slot->body = BUF_INIT(load->alloc);
        slot->answer = BUF_INIT(load->alloc);
        sse_init(&slot->sse, load->alloc);
        slot->again = (struct os_timer){ .due = on_again, .user = slot };
        slot->call = (struct http_call){
            .path = load->body->chat ? "/v1/chat/completions" : "/v1/completions",
            .header = on_header,
            .data = on_data,
            .end = on_end,
            .user = slot,
        };
        slot->next_all = load->slots;
        load->slots = slot;
        load->slot_count++;
    }
    slot->used = true;
    load->in_use++;
    return slot;
}

static void stop_sending(struct bench_load *load, mc_status status, const char *text)
{
    if (text)
        error_set(&load->error, status, "%s", text);
    load->ended = true;
    load->have_next = false;
}

/* `next` goes out. */
static void send_next(struct bench_load *load)
{
    const struct scaled *q = &load->next;
    struct bench_slot *slot = take_slot(load);
    uint32_t replayed = 0;

    load->have_next = false;
    if (!slot || replay_add(&load->replay, q->runs, q->run_count, &replayed) != MC_OK) {
        if (slot) {
            slot->used = false;
            slot->next_free = load->free;
            load->free = slot;
            load->in_use--;
        }
        stop_sending(load, MC_E_NOMEM, "out of memory: nothing more is sent");
        return;
    }
    const bool timed = load->request->arrival != BENCH_CLOSED;
    const uint64_t now_ns = elapsed(load);
    slot->r = (struct bench_record){ .number = load->source->count,
                                     .line = q->line,
                                     .due_ns = timed ? q->at_ns : now_ns,
                                     .input_tokens = q->input_tokens,
                                     .wanted_tokens = q->output_tokens,
                                     .replay_tokens = replayed,
                                     .cut = q->cut };
    buf_truncate(&slot->body, 0);
    slot->body.failed = false;
    bench_body_add(load->body, q, &slot->body);
    const uint64_t late_ns = !timed ? UINT64_MAX : now_ns > q->at_ns ? now_ns - q->at_ns : 0;
    if (go(slot, false, late_ns) != MC_OK) {
        fail(&slot->r, "client_memory");
        end_slot(slot, BENCH_FAILED);
    }
}

/* The next request is at hand; false: there is none. */
static bool look_ahead(struct bench_load *load)
{
    struct mc_error error = { 0 };

    if (load->have_next || load->ended)
        return load->have_next;
    const mc_status status = bench_source_next(load->source, &load->next, &error);
    if (status == MC_OK)
        load->have_next = true;
    else
        stop_sending(load, status, status == MC_E_NOT_FOUND ? NULL : error.text);
    return load->have_next;
}

/* Send what is due. Also called whenever a slot has become free. */
static void pump(struct bench_load *load)
{
    const struct bench_serve_options *o = &load->request->options;
    const bool closed = load->request->arrival == BENCH_CLOSED;
    const uint32_t most =
        closed && o->concurrency < load->slots_max ? o->concurrency : load->slots_max;

    while (load->in_use < most && look_ahead(load)) {
        const uint64_t now_ns = elapsed(load);
        if (o->duration > 0 && now_ns >= o->duration) {
            stop_sending(load, MC_OK, NULL);
            return;
        }
        if (load->next.at_ns > now_ns) {
            if (os_loop_timer(load->loop, &load->due, load->start_ns + load->next.at_ns) != MC_OK)
                stop_sending(load, MC_E_NOMEM, "out of memory for a timer: nothing more is sent");
            return;
        }
        send_next(load);
    }
}

static void on_due(void *user, uint64_t now_ns)
{
    (void)now_ns;
    pump(user);
    finish_if_done(user);
}

static void on_tick(void *user, uint64_t now_ns)
{
    struct bench_load *load = user;

    load->progress(load->user, load, elapsed(load));
    (void)os_loop_timer(load->loop, &load->tick,
                        now_ns + load->progress_ns); /* its place is free */
}

/* -------------------------------------------------------------------------------------------- life */

mc_status bench_load_open(struct bench_load *load, struct mc_error *error)
{
    const struct bench_serve_options *o = &load->request->options;
    const struct bench_objectives objectives = { .ttft_ns = o->slo_ttft,
                                                 .tbt_ns = o->slo_tbt,
                                                 .by = (enum bench_tbt)o->slo_tbt_by };

    replay_init(&load->replay, o->page_tokens, load->alloc);
    load->due = (struct os_timer){ .due = on_due, .user = load };
    load->tick = (struct os_timer){ .due = on_tick, .user = load };
    if (bench_tally_init(&load->tally, &objectives, 0, load->alloc) != MC_OK)
        return error_set(error, MC_E_NOMEM, "no memory to count in");
    return MC_OK;
}

void bench_load_run(struct bench_load *load)
{
    load->start_ns = os_now_ns();
    if (load->progress &&
        os_loop_timer(load->loop, &load->tick, load->start_ns + load->progress_ns) != MC_OK)
        load->progress = NULL;
    if (os_loop_timer(load->loop, &load->due, load->start_ns) != MC_OK)
        error_set(&load->error, MC_E_NOMEM, "out of memory for a timer");
    else
        os_loop_run(load->loop);
}

void bench_load_interrupt(struct bench_load *load)
{
    load->interrupted = true;
    stop_sending(load, MC_OK, NULL);
    os_loop_timer_stop(load->loop, &load->due);
    for (struct bench_slot *slot = load->slots; slot; slot = slot->next_all) {
        if (!slot->used)
            continue;
        os_loop_timer_stop(load->loop, &slot->again);
        http_client_cancel(load->client, &slot->call);
        if (slot->r.waiting)
            load->waiting--;
        else
            fail(&slot->r, "interrupted");
        end_slot(slot, slot->r.waiting ? BENCH_REFUSED : BENCH_ABANDONED);
    }
    finish_if_done(load);
}

void bench_load_close(struct bench_load *load)
{
    if (!load->loop)
        return;
    os_loop_timer_stop(load->loop, &load->due);
    os_loop_timer_stop(load->loop, &load->tick);
    while (load->slots) {
        struct bench_slot *slot = load->slots;
        load->slots = slot->next_all;
        http_client_cancel(load->client, &slot->call);
        os_loop_timer_stop(load->loop, &slot->again);
        buf_fini(&slot->body);
        buf_fini(&slot->answer);
        sse_fini(&slot->sse);
        alloc_free(load->alloc, slot);
    }
    replay_fini(&load->replay);
    bench_tally_fini(&load->tally);
}
