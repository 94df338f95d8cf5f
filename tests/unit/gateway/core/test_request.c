/*
 * test_request.c - every event in every phase, by a table; then random lives, watched for what must hold
 * in all of them.
 */
#include "test.h"

#include <stdio.h>

#include "base/prng.h"
#include "gateway/core/request.h"

enum { P = 1, D = 2, BOTH = 3, STORE = 9, MS = 1000000 };
enum { PROMPT = 40, START_NS = 1000 * MS };

struct life {
    struct request request;
    struct request_options options;
    struct request_outbox outbox;
    uint64_t ids, now_ns;
};

static void life_init(struct life *l, bool stream)
{
    memset(l, 0, sizeof(*l));
    l->ids = 100;
    l->now_ns = START_NS;
    l->options = (struct request_options){ .sched = { .tokens = PROMPT, .output_hint = 7 },
                                           .ids = &l->ids,
                                           .stream = stream };
    request_init(&l->request, &l->options);
}

static void step(struct life *l, struct request_event event)
{
    l->outbox.count = 0;
    request_step(&l->request, l->now_ns, &event, &l->outbox);
}

/* ------------------------------------------------------------------------------- events in short form */

static void decide(struct life *l, struct mc_decision d)
{
    d.request = l->request.attempt;
    step(l,
         (struct request_event){ .kind = REQUEST_DECIDED, .attempt = d.request, .decision = &d });
}

static void place(struct life *l, uint64_t prefill, uint64_t decode)
{
    decide(l, (struct mc_decision){ .kind = MC_DECIDE_PLACE,
                                    .prefill = prefill,
                                    .decode = decode,
                                    .holder = STORE,
                                    .pull_tokens = 32,
                                    .pull_ns = 5 });
}

/* As above, where the scheduler decides again after the prefill. */
static void place_staged(struct life *l, uint64_t prefill, uint64_t decode)
{
    decide(l, (struct mc_decision){ .kind = MC_DECIDE_PLACE,
                                    .prefill = prefill,
                                    .decode = decode,
                                    .flags = MC_DECISION_STAGED });
}

static void refused(struct life *l, uint32_t reason, uint64_t retry_ns)
{
    decide(l, (struct mc_decision){
                  .kind = MC_DECIDE_REFUSE, .reason = reason, .retry_after_ns = retry_ns });
}

static void reserved(struct life *l)
{
    const struct wire_reserved m = { .reservation = 77,
                                     .pages = 3,
                                     .incarnation = 5,
                                     .segment = wire_text("seg"),
                                     .window = { .size = 11 } };
    step(l, (struct request_event){ .kind = REQUEST_RESERVED,
                                    .attempt = l->request.attempt,
                                    .from = l->request.decode,
                                    .reserved = &m });
}

static void failed(struct life *l, enum request_event_kind kind, mc_status status)
{
    step(l, (struct request_event){ .kind = kind,
                                    .attempt = l->request.attempt,
                                    .from = kind == REQUEST_NOT_TAKEN ? l->request.prefill
                                                                      : l->request.decode,
                                    .failure = { .status = status } });
}

static void taken(struct life *l)
{
    step(l, (struct request_event){
                .kind = REQUEST_TAKEN, .attempt = l->request.attempt, .from = l->request.prefill });
}

static void progress(struct life *l, uint32_t phase)
{
    const struct wire_prefill_progress m = { .tokens = 16, .pulled_bytes = 10, .phase = phase };
    step(l, (struct request_event){ .kind = REQUEST_PROGRESS,
                                    .attempt = l->request.attempt,
                                    .from = l->request.prefill,
                                    .progress = &m });
}

static void prefilled(struct life *l, mc_status status)
{
    const struct wire_prefill_end m = { .status = status,
                                        .reused_tokens = 32,
                                        .pulled_bytes = 1000,
                                        .pull_ns = 3 * MS,
                                        .compute_ns = 4 * MS };
    step(l, (struct request_event){ .kind = REQUEST_PREFILLED,
                                    .attempt = l->request.attempt,
                                    .from = l->request.prefill,
                                    .prefilled = &m });
}

static void tokens(struct life *l, uint64_t index, uint32_t count, uint32_t finish)
{
    const struct wire_tokens m = { .index = index,
                                   .samples = { .count = count },
                                   .finish = finish,
                                   .status = finish > 2 ? MC_E_NOMEM : MC_OK };
    step(l, (struct request_event){ .kind = REQUEST_TOKENS,
                                    .attempt = l->request.attempt,
                                    .from = l->request.decode,
                                    .tokens = &m });
}

static void lost(struct life *l, uint64_t instance)
{
    step(l, (struct request_event){ .kind = REQUEST_LOST, .from = instance });
}

static void simple(struct life *l, enum request_event_kind kind)
{
    step(l, (struct request_event){ .kind = kind, .failure = { .status = MC_E_FULL } });
}

/* -------------------------------------------------------------------------------- outbox in short form */

static const char *const phases[] = { "NEW",        "PLACING",  "WAITING", "RESERVING",
                                      "PREFILLING", "DECODING", "ENDED" };

static void show_sched(const struct mc_sched_event *e, char *text, size_t size)
{
    switch (e->kind) {
    case MC_EVENT_REQUEST:
        snprintf(text, size, " ask(%d,%d)", (int)e->request.barred, (int)e->request.barred_decode);
        break;
    case MC_EVENT_REQUEST_END:
        snprintf(text, size, " sched-end(%u)", e->progress.status);
        break;
    case MC_EVENT_PREFILL_BEGIN:
        snprintf(text, size, " sched-prefill");
        break;
    case MC_EVENT_PREFILL_END:
        snprintf(text, size, " sched-prefilled(%d,%d)", (int)e->progress.tokens,
                 (int)e->progress.reused);
        break;
    case MC_EVENT_DECODE_BEGIN:
        snprintf(text, size, " sched-decode");
        break;
    case MC_EVENT_TRANSFER_END:
        snprintf(text, size, " sched-pulled(%d,%d)", (int)e->transfer.from, (int)e->transfer.bytes);
        break;
    default:
        snprintf(text, size, " sched-?");
    }
}

static void show_out(const struct request_out *o, char *text, size_t size)
{
    switch (o->kind) {
    case REQUEST_OUT_SCHED:
        show_sched(&o->sched, text, size);
        break;
    case REQUEST_OUT_RESERVE:
        snprintf(text, size, " reserve@%d", (int)o->instance);
        break;
    case REQUEST_OUT_PREFILL:
        snprintf(text, size, " prefill@%d(%d)", (int)o->instance, (int)o->prefill.reservation);
        break;
    case REQUEST_OUT_CANCEL:
        snprintf(text, size, " cancel@%d(%u)", (int)o->instance, o->cancel.reason);
        break;
    case REQUEST_OUT_TOKENS:
        snprintf(text, size, " tokens(%u+%u)", o->tokens.skip, o->tokens.count);
        break;
    case REQUEST_OUT_RESTART:
        snprintf(text, size, " restart");
        break;
    case REQUEST_OUT_BEGIN:
        snprintf(text, size, " begin");
        break;
    case REQUEST_OUT_END:
        snprintf(text, size, " end(%s)", mc_status_name(o->end.status));
        break;
    }
}

/* "PHASE entry entry ..." */
static const char *shown(const struct life *l)
{
    static char text[512];
    size_t used = (size_t)snprintf(text, sizeof(text), "%s", phases[l->request.phase]);

    for (uint32_t i = 0; i < l->outbox.count; i++) {
        show_out(&l->outbox.items[i], text + used, sizeof(text) - used);
        used += strlen(text + used);
    }
    return text;
}

/* ------------------------------------------------------------------------------------------ the table */

/* Lives driven to a phase; DECODING is once before and once after the client saw something. */
enum scene {
    AT_NEW,
    AT_PLACING,
    AT_WAITING,
    AT_RESERVING,
    AT_PREFILLING,
    AT_TOKENS_FIRST, /* PREFILLING, but the first token is here already */
    AT_DECODING,     /* nothing shown yet */
    AT_SHOWN,
    AT_BOTH_PREFILLING, /* prefill and decode at one worker */
    AT_BOTH_SHOWN,
    AT_ENDED,
    SCENES,
};

static void drive(struct life *l, enum scene scene)
{
    const bool both = scene == AT_BOTH_PREFILLING || scene == AT_BOTH_SHOWN;

    life_init(l, true);
    if (scene == AT_NEW)
        return;
    simple(l, REQUEST_START);
    if (scene == AT_WAITING)
        refused(l, MC_REASON_KV_MEMORY, 1);
    if (scene == AT_ENDED)
        simple(l, REQUEST_CLIENT_GONE);
    if (scene == AT_PLACING || scene == AT_WAITING || scene == AT_ENDED)
        return;
    place(l, both ? BOTH : P, both ? BOTH : D);
    if (scene == AT_RESERVING)
        return;
    if (!both)
        reserved(l);
    if (scene == AT_TOKENS_FIRST)
        tokens(l, 0, 1, 0);
    if (scene == AT_PREFILLING || scene == AT_BOTH_PREFILLING || scene == AT_TOKENS_FIRST)
        return;
    prefilled(l, MC_OK);
    if (scene == AT_SHOWN || scene == AT_BOTH_SHOWN)
        tokens(l, 0, 1, 0);
}

enum act {
    ACT_START,
    ACT_PLACED,
    ACT_REFUSED,
    ACT_NO_MEMORY,
    ACT_WAIT,
    ACT_ABORT,
    ACT_NOT_DECIDED,
    ACT_RESERVED,
    ACT_NOT_RESERVED,
    ACT_NO_ROOM,
    ACT_RESERVE_LATE,
    ACT_TAKEN,
    ACT_NOT_TAKEN,
    ACT_TAKE_LATE,
    ACT_PROGRESS,
    ACT_PREFILLED,
    ACT_PREFILL_FAILED,
    ACT_TOKENS,
    ACT_LAST,
    ACT_DECODE_FAILED,
    ACT_GAP,
    ACT_LOST_P,
    ACT_LOST_D,
    ACT_LOST_OTHER,
    ACT_CLIENT_GONE,
    ACT_STOP,
    ACT_GIVE_UP,
    ACT_TIME,
    ACTS,
};

static const char *const act_names[ACTS] = {
    "start",       "placed",        "refused",      "no memory", "wait",           "abort",
    "not decided", "reserved",      "not reserved", "no room",   "reserve late",   "taken",
    "not taken",   "take late",     "progress",     "prefilled", "prefill failed", "tokens",
    "last",        "decode failed", "gap",          "lost P",    "lost D",         "lost other",
    "client gone", "stop",          "give up",      "time",
};

static void act(struct life *l, enum act a)
{
    struct request *r = &l->request;

    switch (a) {
    case ACT_START:
        simple(l, REQUEST_START);
        break;
    case ACT_PLACED:
        place(l, P, D);
        break;
    case ACT_REFUSED:
        refused(l, MC_REASON_TOO_LONG, 5);
        break;
    case ACT_NO_MEMORY:
        refused(l, MC_REASON_KV_MEMORY, 5);
        break;
    case ACT_WAIT:
        decide(l, (struct mc_decision){ .kind = MC_DECIDE_WAIT });
        break;
    case ACT_ABORT:
        decide(l, (struct mc_decision){ .kind = MC_DECIDE_ABORT });
        break;
    case ACT_NOT_DECIDED:
        failed(l, REQUEST_NOT_DECIDED, MC_E_FULL);
        break;
    case ACT_RESERVED:
        reserved(l);
        break;
    case ACT_NOT_RESERVED:
        failed(l, REQUEST_NOT_RESERVED, MC_E_PEER);
        break;
    case ACT_NO_ROOM:
        failed(l, REQUEST_NOT_RESERVED, MC_E_FULL);
        break;
    case ACT_RESERVE_LATE:
        failed(l, REQUEST_NOT_RESERVED, MC_E_TIMEOUT);
        break;
    case ACT_TAKEN:
        taken(l);
        break;
    case ACT_NOT_TAKEN:
        failed(l, REQUEST_NOT_TAKEN, MC_E_PEER);
        break;
    case ACT_TAKE_LATE:
        failed(l, REQUEST_NOT_TAKEN, MC_E_TIMEOUT);
        break;
    case ACT_PROGRESS:
        progress(l, 3);
        break;
    case ACT_PREFILLED:
        prefilled(l, MC_OK);
        break;
    case ACT_PREFILL_FAILED:
        prefilled(l, MC_E_PEER);
        break;
    case ACT_TOKENS:
        tokens(l, r->output_tokens, 2, 0);
        break;
    case ACT_LAST:
        tokens(l, r->output_tokens, 1, 2);
        break;
    case ACT_DECODE_FAILED:
        tokens(l, r->output_tokens, 0, 3);
        break;
    case ACT_GAP:
        tokens(l, r->output_tokens + 1, 1, 0);
        break;
    case ACT_LOST_P:
        lost(l, r->prefill ? r->prefill : P);
        break;
    case ACT_LOST_D:
        lost(l, r->decode ? r->decode : D);
        break;
    case ACT_LOST_OTHER:
        lost(l, 55);
        break;
    case ACT_CLIENT_GONE:
        simple(l, REQUEST_CLIENT_GONE);
        break;
    case ACT_STOP:
        simple(l, REQUEST_STOP);
        break;
    case ACT_GIVE_UP:
        simple(l, REQUEST_GIVE_UP);
        break;
    default:
        l->now_ns = request_due_ns(r) == UINT64_MAX ? l->now_ns + MS : request_due_ns(r);
        simple(l, REQUEST_TIME);
    }
}

/* What is not in the table is dropped: nothing changes, nothing is done. */
static const struct row {
    enum scene scene;
    enum act act;
    const char *result;
} rows[] = {
#include "request_rows.def"
};

static const char *expected(enum scene scene, enum act a)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (rows[i].scene == scene && rows[i].act == a)
            return rows[i].result;
    return NULL;
}

static void test_every_event_in_every_phase_does_what_the_table_says(void **state)
{
    (void)state;
    for (int scene = 0; scene < SCENES; scene++)
        for (int a = 0; a < ACTS; a++) {
            const char *result = expected((enum scene)scene, (enum act)a);
            struct life l;

            drive(&l, (enum scene)scene);
            const struct request before = l.request;
            act(&l, (enum act)a);
            if (result && strcmp(shown(&l), result) != 0)
                fail_msg("scene %d, %s: \"%s\", not \"%s\"", scene, act_names[a], shown(&l),
                         result);
            if (result)
                continue;
            if (l.outbox.count != 0 || l.request.phase != before.phase)
                fail_msg("scene %d, %s: \"%s\", not nothing", scene, act_names[a], shown(&l));
        }
}

/* ------------------------------------------------------------------------------------ single lives */

static void test_messages_say_what_workers_need(void **state)
{
    (void)state;
    struct life l;

    life_init(&l, true);
    l.options.sched.priority = 3;
    l.options.tenant = wire_text("t");
    l.options.fingerprint.bytes[0] = 9;
    l.options.cache = 2;
    simple(&l, REQUEST_START);
    assert_int_equal(l.request.attempt, 101);
    assert_int_equal(l.outbox.items[0].sched.request.id, 101);
    assert_int_equal(l.outbox.items[0].sched.request.tokens, PROMPT);
    place(&l, P, D);
    const struct wire_reserve *r = &l.outbox.items[0].reserve;
    assert_int_equal(r->request, 101);
    assert_int_equal(r->prompt_tokens, PROMPT);
    assert_int_equal(r->output_tokens, 7);
    assert_int_equal(r->fingerprint.bytes[0], 9);
    reserved(&l);
    const struct wire_prefill *p = &l.outbox.items[0].prefill;
    assert_int_equal(p->request, 101);
    assert_int_equal(p->reservation, 77);
    assert_int_equal(p->window.size, 11);
    assert_int_equal(p->decode_incarnation, 5);
    assert_int_equal(p->pull_tokens, 32);
    assert_int_equal(p->pull_ns, 5);
    assert_int_equal(p->holder, STORE);
    assert_int_equal(p->priority, 3);
    assert_int_equal(p->cache, 2);
    assert_int_equal(p->tenant.size, 1);
    taken(&l);
    prefilled(&l, MC_OK);
    assert_int_equal(l.request.pulled_bytes, 1000);
    assert_int_equal(l.request.reused_tokens, 32);
    assert_int_equal(l.request.times.taken_ns, START_NS);
}

/* PREFILLING, of an answer that is not streamed: a loss is no end of it. */
static void drive_whole(struct life *l)
{
    life_init(l, false);
    simple(l, REQUEST_START);
    place(l, P, D);
    reserved(l);
}

static void test_an_answer_that_is_not_streamed_is_shown_when_whole(void **state)
{
    (void)state;
    struct life l;

    drive_whole(&l);
    prefilled(&l, MC_OK);
    tokens(&l, 0, 3, 0);
    assert_string_equal(shown(&l), "DECODING tokens(0+3) sched-decode");
    lost(&l, D); /* not a byte was shown: tried again */
    assert_string_equal(shown(&l), "PLACING sched-end(1) restart ask(0,2)");
    place(&l, BOTH, BOTH);
    prefilled(&l, MC_OK);
    tokens(&l, 0, 3, 0);
    tokens(&l, 2, 2, 1); /* one of them again */
    assert_string_equal(shown(&l), "ENDED tokens(1+1) begin sched-end(0) end(MC_OK)");
    assert_int_equal(l.request.output_tokens, 4);
    assert_int_equal(l.request.tries, 1);
}

static void test_tokens_twice_or_from_elsewhere_are_dropped(void **state)
{
    (void)state;
    struct life l;

    drive(&l, AT_SHOWN);
    tokens(&l, 0, 1, 0);
    assert_string_equal(shown(&l), "DECODING");
    const struct wire_tokens m = { .index = 1, .samples = { .count = 1 } };
    step(&l, (struct request_event){
                 .kind = REQUEST_TOKENS, .attempt = l.request.attempt, .from = P, .tokens = &m });
    step(&l,
         (struct request_event){
             .kind = REQUEST_TOKENS, .attempt = l.request.attempt - 1, .from = D, .tokens = &m });
    assert_int_equal(l.request.dropped, 2);
    assert_int_equal(l.request.output_tokens, 1);
}

static const struct mc_sched_progress *sched_end(const struct life *l)
{
    for (uint32_t i = 0; i < l->outbox.count; i++) {
        const struct request_out *o = &l->outbox.items[i];
        if (o->kind == REQUEST_OUT_SCHED && o->sched.kind == MC_EVENT_REQUEST_END)
            return &o->sched.progress;
    }
    fail_msg("the scheduler is not told of an end");
    return NULL;
}

static void test_the_scheduler_is_told_the_longest_gaps(void **state)
{
    (void)state;
    struct life l;

    drive(&l, AT_TOKENS_FIRST);
    for (uint64_t i = 1; i < 21; i++) { /* 20 gaps: 40 and 60 ms are their longest tenth */
        l.now_ns += i == 3 ? 60 * MS : i == 7 ? 40 * MS : 10 * MS;
        tokens(&l, i, 1, 0);
    }
    l.now_ns += 50 * MS; /* ten at once, one of them twice: one gap, eight that are none */
    tokens(&l, 20, 10, 0);
    prefilled(&l, MC_OK); /* no gap either */
    l.now_ns += 70 * MS;
    tokens(&l, 30, 1, 2); /* 30 gaps */
    const struct mc_sched_progress *end = sched_end(&l);
    assert_int_equal(end->tokens, 31);
    assert_int_equal(end->gap_ns, 60 * MS);
}

static void test_gaps_of_a_lost_attempt_are_not_the_next_ones(void **state)
{
    (void)state;
    struct life l;

    drive_whole(&l);
    tokens(&l, 0, 1, 0);
    l.now_ns += 500 * MS;
    tokens(&l, 1, 1, 0);
    lost(&l, D);
    assert_int_equal(sched_end(&l)->gap_ns, 500 * MS);
    place(&l, BOTH, BOTH);
    l.now_ns += 500 * MS;
    tokens(&l, 0, 1, 0);
    l.now_ns += 20 * MS;
    tokens(&l, 1, 1, 2);
    prefilled(&l, MC_OK);
    assert_int_equal(sched_end(&l)->gap_ns, 20 * MS);
}

static void test_an_answer_of_one_token_has_no_gaps(void **state)
{
    (void)state;
    struct life l;

    drive(&l, AT_PREFILLING);
    l.now_ns += 30 * MS;
    tokens(&l, 0, 1, 2);
    prefilled(&l, MC_OK);
    assert_int_equal(sched_end(&l)->gap_ns, 0);
}

static void test_a_lost_attempt_cannot_speak_for_the_next(void **state)
{
    (void)state;
    struct life l;
    const struct wire_reserved m = { .reservation = 1 };
    const struct wire_tokens t = { .samples = { .count = 1 }, .finish = 1 };

    drive(&l, AT_RESERVING);
    const uint64_t before = l.request.attempt;
    failed(&l, REQUEST_NOT_RESERVED, MC_E_TIMEOUT);
    place(&l, P, D); /* the same workers again */
    step(&l, (struct request_event){
                 .kind = REQUEST_RESERVED, .attempt = before, .from = D, .reserved = &m });
    assert_string_equal(shown(&l), "RESERVING");
    reserved(&l);
    step(&l, (struct request_event){
                 .kind = REQUEST_TOKENS, .attempt = before, .from = D, .tokens = &t });
    assert_string_equal(shown(&l), "PREFILLING");
    assert_int_equal(l.request.dropped, 2);
}

static void test_three_attempts_fail_and_then_it_ends(void **state)
{
    (void)state;
    struct life l;

    drive(&l, AT_RESERVING);
    failed(&l, REQUEST_NOT_RESERVED, MC_E_PEER);
    place(&l, P, D);
    failed(&l, REQUEST_NOT_RESERVED, MC_E_IO);
    place(&l, P, D);
    failed(&l, REQUEST_NOT_RESERVED, MC_E_NOMEM);
    assert_string_equal(shown(&l), "ENDED sched-end(1) end(MC_E_NOMEM)");
    assert_int_equal(l.request.tries, 3);
}

static void test_what_no_worker_would_take_ends_at_once(void **state)
{
    (void)state;
    static const mc_status finals[] = { MC_E_ARG, MC_E_RANGE, MC_E_FORMAT, MC_E_UNSUPPORTED,
                                        MC_E_DENIED };

    for (size_t i = 0; i < 5; i++) {
        struct life l;

        drive(&l, AT_PREFILLING);
        failed(&l, REQUEST_NOT_TAKEN, finals[i]);
        assert_int_equal(l.request.phase, REQUEST_ENDED);
        assert_int_equal(l.outbox.items[0].kind, REQUEST_OUT_CANCEL);
        assert_int_equal(l.outbox.items[2].end.status, finals[i]);
    }
}

static void test_a_worker_that_comes_back_is_waited_for(void **state)
{
    (void)state;
    struct life l;

    drive(&l, AT_PREFILLING);
    lost(&l, P);
    assert_string_equal(shown(&l), "PLACING cancel@2(3) sched-end(1) ask(1,0)");
    for (int i = 0; i < 40; i++) {
        refused(&l, MC_REASON_NO_INSTANCE, 1);
        assert_string_equal(shown(&l), "WAITING");
        l.now_ns = request_due_ns(&l.request) - 1;
        simple(&l, REQUEST_TIME);
        assert_string_equal(shown(&l), "WAITING"); /* too early */
        l.now_ns++;
        simple(&l, REQUEST_TIME);
        assert_string_equal(shown(&l), "PLACING ask(0,0)"); /* nobody is barred any more */
    }
    assert_int_equal(l.now_ns, START_NS + 40ull * 50 * MS);
    place(&l, 7, D);
    assert_string_equal(shown(&l), "RESERVING reserve@2");
    assert_int_equal(l.request.tries, 1);
}

static void test_patience_ends(void **state)
{
    (void)state;
    struct life l;

    drive(&l, AT_RESERVING);
    for (int i = 0; i < 1000 && l.request.phase != REQUEST_ENDED; i++) {
        failed(&l, REQUEST_NOT_RESERVED, MC_E_FULL);
        if (l.request.phase == REQUEST_ENDED)
            break;
        l.now_ns = request_due_ns(&l.request);
        simple(&l, REQUEST_TIME);
        place(&l, P, D);
    }
    assert_string_equal(shown(&l), "ENDED sched-end(1) end(MC_E_FULL)");
    assert_int_equal(l.now_ns, START_NS + 10000ull * MS);
    assert_int_equal(l.request.tries, 0);

    drive(&l, AT_PLACING);
    refused(&l, MC_REASON_KV_MEMORY, 5);
    l.now_ns += 10000ull * MS;
    simple(&l, REQUEST_TIME);
    refused(&l, MC_REASON_KV_MEMORY, 5);
    assert_string_equal(shown(&l), "ENDED end(MC_E_FULL)");
    assert_int_equal(l.outbox.items[0].end.reason, MC_REASON_KV_MEMORY);
    assert_int_equal(l.outbox.items[0].end.retry_after_ns, 5);
}

static void test_the_only_worker_without_room_is_not_a_missing_one(void **state)
{
    (void)state;
    struct life l;

    drive(&l, AT_RESERVING);
    failed(&l, REQUEST_NOT_RESERVED, MC_E_FULL);
    l.now_ns = request_due_ns(&l.request);
    simple(&l, REQUEST_TIME); /* others first */
    l.now_ns = START_NS + 10000ull * MS;
    refused(&l, MC_REASON_NO_INSTANCE, 1);
    assert_string_equal(shown(&l), "ENDED end(MC_E_FULL)");
    assert_int_equal(l.outbox.items[0].end.reason, 0);

    drive(&l, AT_RESERVING);
    failed(&l, REQUEST_NOT_RESERVED, MC_E_FULL);
    for (int i = 0; i < 2; i++) { /* then it is gone, too */
        l.now_ns = request_due_ns(&l.request);
        simple(&l, REQUEST_TIME);
        l.now_ns = START_NS + (uint64_t)i * 10000 * MS;
        refused(&l, MC_REASON_NO_INSTANCE, 1);
    }
    assert_int_equal(l.outbox.items[0].end.reason, MC_REASON_NO_INSTANCE);
}

static void test_the_clients_own_bar_always_holds(void **state)
{
    (void)state;
    struct life l;

    life_init(&l, true);
    l.options.sched.barred = 8;
    simple(&l, REQUEST_START);
    assert_string_equal(shown(&l), "PLACING ask(8,0)");
    place(&l, P, D);
    lost(&l, P);
    assert_string_equal(shown(&l), "PLACING cancel@2(3) sched-end(1) ask(8,0)");
    refused(&l, MC_REASON_NO_INSTANCE, 1);
    l.now_ns = request_due_ns(&l.request);
    simple(&l, REQUEST_TIME);
    assert_string_equal(shown(&l), "PLACING ask(8,0)");
}

static void test_a_deadline_ends_every_phase(void **state)
{
    (void)state;
    for (int scene = AT_PLACING; scene < AT_ENDED; scene++) {
        struct life l;

        drive(&l, (enum scene)scene);
        l.options.sched.deadline_ns = l.now_ns + 5;
        assert_int_equal(request_due_ns(&l.request), l.now_ns + 5);
        l.now_ns += 5;
        simple(&l, REQUEST_TIME);
        assert_int_equal(l.request.phase, REQUEST_ENDED);
        const struct request_out *last = &l.outbox.items[l.outbox.count - 1];
        assert_int_equal(last->kind, REQUEST_OUT_END);
        assert_int_equal(last->end.status, MC_E_TIMEOUT);
        for (uint32_t i = 0; i < l.outbox.count; i++)
            if (l.outbox.items[i].kind == REQUEST_OUT_CANCEL)
                assert_int_equal(l.outbox.items[i].cancel.reason, 2);
        assert_true(request_due_ns(&l.request) == UINT64_MAX);
    }
}

static void test_all_tokens_before_the_prefills_end_wait_for_it(void **state)
{
    (void)state;
    struct life l;

    drive(&l, AT_PREFILLING);
    tokens(&l, 0, 5, 2);
    assert_string_equal(shown(&l), "PREFILLING tokens(0+5) sched-decode");
    lost(&l, D); /* it is not needed any more */
    assert_string_equal(shown(&l), "PREFILLING");
    prefilled(&l, MC_OK);
    assert_string_equal(
        shown(&l),
        "ENDED sched-prefilled(8,32) sched-pulled(9,1000) begin sched-end(0) end(MC_OK)");

    drive(&l, AT_PREFILLING);
    tokens(&l, 0, 5, 2);
    l.now_ns = request_due_ns(&l.request);
    simple(&l, REQUEST_TIME); /* it does not come: the answer does not wait for ever */
    assert_string_equal(shown(&l),
                        "ENDED sched-prefilled(0,0) begin cancel@1(5) sched-end(0) end(MC_OK)");
}

static void test_a_worker_of_both_roles_that_reports_late_is_still_given_back(void **state)
{
    (void)state;
    struct life l;

    drive(&l, AT_BOTH_PREFILLING);
    tokens(&l, 0, 1, 0);
    l.now_ns = request_due_ns(&l.request);
    simple(&l, REQUEST_TIME);
    assert_string_equal(shown(&l), "DECODING sched-prefilled(0,0) begin");
    prefilled(&l, MC_OK);
    simple(&l, REQUEST_CLIENT_GONE);
    assert_string_equal(shown(&l), "ENDED cancel@3(1) sched-end(2) end(MC_E_CANCELLED)");
}

static void test_a_worker_of_both_roles_that_was_stopped_early_is_still_given_back(void **state)
{
    (void)state;
    struct life l;

    drive(&l, AT_BOTH_PREFILLING);
    tokens(&l, 0, 1, 0);
    simple(&l, REQUEST_STOP);
    prefilled(&l, MC_OK);
    assert_string_equal(shown(&l), "ENDED sched-prefilled(8,32) sched-pulled(9,1000) begin "
                                   "cancel@3(5) sched-end(0) end(MC_OK)");
}

/* ------------------------------------------------------------------------------------ stage by stage */

static void drive_staged(struct life *l, bool stream)
{
    life_init(l, stream);
    simple(l, REQUEST_START);
    place_staged(l, P, D);
    reserved(l);
    tokens(l, 0, 1, 0);
    prefilled(l, MC_OK);
    assert_string_equal(shown(l), "DECODING sched-prefilled(8,32)");
}

static void test_what_may_be_refused_after_its_prefill_is_not_shown_before(void **state)
{
    (void)state;
    struct life l;

    drive_staged(&l, true);
    tokens(&l, 1, 2, 0);
    assert_string_equal(shown(&l), "DECODING tokens(0+2)");
    decide(&l, (struct mc_decision){ .kind = MC_DECIDE_DECODE, .prefill = P, .decode = D });
    assert_string_equal(shown(&l), "DECODING begin");
    tokens(&l, 3, 1, 1);
    assert_string_equal(shown(&l), "ENDED tokens(0+1) sched-end(0) end(MC_OK)");

    drive_staged(&l, false); /* all of it is there before the scheduler has spoken */
    tokens(&l, 1, 2, 2);
    assert_string_equal(shown(&l), "DECODING tokens(0+2)");
    decide(&l, (struct mc_decision){ .kind = MC_DECIDE_DECODE, .prefill = P, .decode = D });
    assert_string_equal(shown(&l), "ENDED begin sched-end(0) end(MC_OK)");
}

static void test_refused_after_its_prefill_the_decode_worker_is_told(void **state)
{
    (void)state;
    struct life l;

    drive_staged(&l, true);
    refused(&l, MC_REASON_TBT_SLO, 7);
    assert_string_equal(shown(&l), "ENDED cancel@2(6) end(MC_E_FULL)");
    const struct request_out_end *end = &l.outbox.items[l.outbox.count - 1].end;
    assert_int_equal(end->reason, MC_REASON_TBT_SLO);
    assert_int_equal(end->retry_after_ns, 7);
    assert_int_equal(l.request.decision.kind, MC_DECIDE_REFUSE);

    drive_staged(&l, true); /* what was lost meanwhile is placed again, and let go on */
    lost(&l, D);
    assert_int_equal(l.request.phase, REQUEST_PLACING);
    place(&l, P, D);
    reserved(&l);
    prefilled(&l, MC_OK);
    tokens(&l, 0, 1, 0);
    assert_true(l.request.begun);
}

/* --------------------------------------------------------------------------------------- random lives */

/* What workers, scheduler and client have seen of one request. */
struct world {
    struct {
        uint64_t attempt, instance;
    } held[64]; /* things at workers that nobody gave back yet */
    uint32_t held_count;
    uint64_t open_attempt; /* the scheduler's; 0: none */
    uint64_t kept;         /* tokens that the client would see */
    bool begun, ended;
    uint32_t outbox_max;
};

static void hold(struct world *w, uint64_t attempt, uint64_t instance)
{
    assert_true(w->held_count < 64);
    w->held[w->held_count].attempt = attempt;
    w->held[w->held_count++].instance = instance;
}

static bool let_go(struct world *w, uint64_t attempt, uint64_t instance)
{
    for (uint32_t i = 0; i < w->held_count; i++)
        if (w->held[i].attempt == attempt && w->held[i].instance == instance) {
            w->held[i] = w->held[--w->held_count];
            return true;
        }
    return false;
}

static void let_go_of_instance(struct world *w, uint64_t instance)
{
    for (uint32_t i = 0; i < w->held_count;)
        if (w->held[i].instance == instance)
            w->held[i] = w->held[--w->held_count];
        else
            i++;
}

static void watch_out(struct world *w, const struct life *l, const struct request_out *o)
{
    assert_false(w->ended);
    switch (o->kind) {
    case REQUEST_OUT_SCHED:
        if (o->sched.kind == MC_EVENT_REQUEST) {
            assert_int_equal(w->open_attempt, 0);
            w->open_attempt = o->sched.request.id;
        } else if (o->sched.kind == MC_EVENT_REQUEST_END) {
            assert_int_equal(w->open_attempt, o->sched.progress.request);
            w->open_attempt = 0;
        }
        break;
    case REQUEST_OUT_RESERVE:
        hold(w, o->reserve.request, o->instance);
        break;
    case REQUEST_OUT_PREFILL:
        hold(w, o->prefill.request, o->instance);
        break;
    case REQUEST_OUT_CANCEL:
        assert_true(let_go(w, o->cancel.request, o->instance));
        break;
    case REQUEST_OUT_TOKENS:
        assert_int_equal(o->tokens.message->index + o->tokens.skip, w->kept);
        w->kept += o->tokens.count;
        assert_true(o->tokens.count > 0);
        break;
    case REQUEST_OUT_RESTART:
        assert_false(w->begun);
        w->kept = 0;
        break;
    case REQUEST_OUT_BEGIN:
        assert_false(w->begun);
        w->begun = true;
        break;
    case REQUEST_OUT_END:
        w->ended = true;
        if (o->end.status == MC_OK)
            assert_true(w->begun && l->request.output_tokens == w->kept);
        break;
    }
}

static void watch(struct world *w, const struct life *l)
{
    if (l->outbox.count > w->outbox_max)
        w->outbox_max = l->outbox.count;
    for (uint32_t i = 0; i < l->outbox.count; i++)
        watch_out(w, l, &l->outbox.items[i]);
    assert_int_equal(w->ended, l->request.phase == REQUEST_ENDED);
}

/* What is true outside before the machine hears of it: whose words end what is held. */
static void note(struct world *w, const struct request *r, enum act a)
{
    const bool both = r->prefill == r->decode;

    switch (a) {
    case ACT_REFUSED:
    case ACT_NO_MEMORY:
    case ACT_NOT_DECIDED:
        if (r->phase == REQUEST_PLACING)
            w->open_attempt = 0;
        break;
    case ACT_ABORT:
        w->open_attempt = 0;
        break;
    case ACT_NOT_RESERVED:
    case ACT_NO_ROOM:
        if (r->phase == REQUEST_RESERVING)
            let_go(w, r->attempt, r->decode);
        break;
    case ACT_NOT_TAKEN:
        let_go(w, r->attempt, r->prefill);
        break;
    case ACT_PREFILLED:
        if (!both)
            let_go(w, r->attempt, r->prefill);
        break;
    case ACT_PREFILL_FAILED:
        let_go(w, r->attempt, r->prefill);
        break;
    case ACT_LAST:
    case ACT_DECODE_FAILED:
        let_go(w, r->attempt, r->decode);
        break;
    case ACT_LOST_P:
        let_go_of_instance(w, r->prefill ? r->prefill : P);
        break;
    case ACT_LOST_D:
        let_go_of_instance(w, r->decode ? r->decode : D);
        break;
    default:
        break;
    }
}

/* Could a worker, the scheduler or the client do this now? Machines that speak out of turn are the table's. */
static bool is_possible(const struct request *r, enum act a, bool prefill_over)
{
    const bool has_d = r->phase == REQUEST_PREFILLING || r->phase == REQUEST_DECODING;

    switch (a) {
    case ACT_START:
        return r->phase == REQUEST_NEW;
    case ACT_PLACED:
    case ACT_REFUSED:
    case ACT_NO_MEMORY:
    case ACT_WAIT:
    case ACT_NOT_DECIDED:
        return r->phase == REQUEST_PLACING;
    case ACT_ABORT:
        return r->in_sched && r->phase != REQUEST_NEW;
    case ACT_RESERVED:
    case ACT_NOT_RESERVED:
    case ACT_NO_ROOM:
    case ACT_RESERVE_LATE:
        return r->phase == REQUEST_RESERVING;
    case ACT_TAKEN:
    case ACT_NOT_TAKEN:
    case ACT_TAKE_LATE:
        return r->phase == REQUEST_PREFILLING && r->times.taken_ns == 0 && r->output_tokens == 0 &&
               r->finish == 0;
    case ACT_PROGRESS:
        return has_d && !prefill_over;
    case ACT_PREFILLED:
        return has_d && !prefill_over;
    case ACT_PREFILL_FAILED:
        return has_d && !prefill_over && r->output_tokens == 0 && r->finish == 0;
    case ACT_TOKENS:
    case ACT_LAST:
    case ACT_DECODE_FAILED:
    case ACT_GAP:
        return has_d && r->finish == 0 && (r->prefill != r->decode || prefill_over);
    default:
        return r->phase != REQUEST_NEW;
    }
}

/* These are drawn less often, so that lives are long. */
static bool is_bad(enum act a)
{
    static const enum act good[] = { ACT_PLACED,    ACT_RESERVED, ACT_TAKEN,      ACT_PROGRESS,
                                     ACT_PREFILLED, ACT_TOKENS,   ACT_LOST_OTHER, ACT_TIME };

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        if (good[i] == a)
            return false;
    return true;
}

/* The scheduler answers a prefill's end at once. */
static void decide_stage(struct world *w, struct life *l, struct prng *prng)
{
    const struct request *r = &l->request;

    if (r->phase != REQUEST_DECODING || !(r->decision.flags & MC_DECISION_STAGED) || r->may_decode)
        return;
    assert_false(w->begun);
    if (prng_below(prng, 4) == 0) {
        w->open_attempt = 0;
        refused(l, MC_REASON_TBT_SLO, 5);
        watch(w, l);
        assert_true(w->ended);
        return;
    }
    decide(l, (struct mc_decision){ .kind = MC_DECIDE_DECODE });
    watch(w, l);
}

static void live_randomly(uint64_t seed, uint32_t *ended_well, uint32_t *outbox_max)
{
    struct prng prng = { .seed = seed };
    struct world w = { 0 };
    struct life l;
    uint64_t over = 0; /* the attempt whose prefill has ended */

    life_init(&l, seed % 2);
    if (seed % 3 == 0)
        l.options.sched.deadline_ns = START_NS + prng_below(&prng, 400) * MS;
    act(&l, ACT_START);
    watch(&w, &l);
    for (int i = 0; i < 400 && !w.ended; i++) {
        const enum act a = (enum act)prng_below(&prng, ACTS);
        if (is_bad(a) && prng_below(&prng, 8) != 0)
            continue;
        if (!is_possible(&l.request, a, over == l.request.attempt))
            continue;
        l.now_ns += prng_below(&prng, 5 * MS);
        note(&w, &l.request, a);
        if (a == ACT_PREFILLED || a == ACT_PREFILL_FAILED)
            over = l.request.attempt;
        if (a == ACT_PLACED && prng_below(&prng, 3) == 0)
            place(&l, BOTH, BOTH);
        else if (a == ACT_PLACED && prng_below(&prng, 3) == 0)
            place_staged(&l, prng_below(&prng, 3) ? P : BOTH, prng_below(&prng, 2) ? D : BOTH);
        else
            act(&l, a);
        watch(&w, &l);
        decide_stage(&w, &l, &prng);
        if (w.outbox_max > *outbox_max)
            *outbox_max = w.outbox_max;
    }
    if (!w.ended) {
        act(&l, ACT_CLIENT_GONE);
        watch(&w, &l);
    }
    assert_true(w.ended);
    if (w.held_count != 0)
        fail_msg("seed %d: attempt %d is still held at %d", (int)seed, (int)w.held[0].attempt,
                 (int)w.held[0].instance);
    assert_int_equal(w.open_attempt, 0);
    *ended_well += w.begun;
}

static void test_whatever_happens_all_is_given_back_exactly_once(void **state)
{
    (void)state;
    uint32_t ended_well = 0, outbox_max = 0;

    for (uint64_t seed = 0; seed < 20000; seed++)
        live_randomly(seed, &ended_well, &outbox_max);
    assert_true(ended_well > 2000);
    assert_true(outbox_max >= 5 && outbox_max < REQUEST_OUTBOX_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_event_in_every_phase_does_what_the_table_says),
        cmocka_unit_test(test_messages_say_what_workers_need),
        cmocka_unit_test(test_an_answer_that_is_not_streamed_is_shown_when_whole),
        cmocka_unit_test(test_tokens_twice_or_from_elsewhere_are_dropped),
        cmocka_unit_test(test_the_scheduler_is_told_the_longest_gaps),
        cmocka_unit_test(test_gaps_of_a_lost_attempt_are_not_the_next_ones),
        cmocka_unit_test(test_an_answer_of_one_token_has_no_gaps),
        cmocka_unit_test(test_a_lost_attempt_cannot_speak_for_the_next),
        cmocka_unit_test(test_three_attempts_fail_and_then_it_ends),
        cmocka_unit_test(test_what_no_worker_would_take_ends_at_once),
        cmocka_unit_test(test_a_worker_that_comes_back_is_waited_for),
        cmocka_unit_test(test_patience_ends),
        cmocka_unit_test(test_the_only_worker_without_room_is_not_a_missing_one),
        cmocka_unit_test(test_the_clients_own_bar_always_holds),
        cmocka_unit_test(test_a_deadline_ends_every_phase),
        cmocka_unit_test(test_all_tokens_before_the_prefills_end_wait_for_it),
        cmocka_unit_test(test_a_worker_of_both_roles_that_reports_late_is_still_given_back),
        cmocka_unit_test(test_a_worker_of_both_roles_that_was_stopped_early_is_still_given_back),
        cmocka_unit_test(test_what_may_be_refused_after_its_prefill_is_not_shown_before),
        cmocka_unit_test(test_refused_after_its_prefill_the_decode_worker_is_told),
        cmocka_unit_test(test_whatever_happens_all_is_given_back_exactly_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
