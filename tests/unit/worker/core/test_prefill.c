/* test_prefill.c - every event in every phase, and random lives that must let go of everything. */
#include "test.h"

#include "base/prng.h"
#include "worker/core/prefill.h"

enum { LAYERS = 3, PROMPT = 40, PULL = 16 };
#define SECOND UINT64_C(1000000000)

static const struct prefill_options options = {
    .layout = { LAYERS, 16, 64 },
    .prompt_tokens = PROMPT,
    .pull_tokens = PULL,
    .remote = true,
    .pushes_max = 2,
    .push_pages = 8,
    .lease_ns = 3 * SECOND,
    .hand_off_ns = 2 * SECOND,
};

/* Events and what they make, one letter each, so that a table of them can be read. */
static char letter(enum prefill_out_kind kind)
{
    static const char letters[] = {
        [PREFILL_OUT_PULL] = 'p',        [PREFILL_OUT_COMPUTE] = 'c',
        [PREFILL_OUT_PUSH] = '>',        [PREFILL_OUT_HAND_OFF] = 'h',
        [PREFILL_OUT_RENEW] = 'r',       [PREFILL_OUT_TELL] = 't',
        [PREFILL_OUT_STOP_PULL] = 'P',   [PREFILL_OUT_STOP_ENGINE] = 'C',
        [PREFILL_OUT_STOP_PUSHES] = '<', [PREFILL_OUT_STOP_PUTS] = 'U',
        [PREFILL_OUT_STOP_ASK] = 'H',    [PREFILL_OUT_END] = 'e',
        [PREFILL_OUT_DROP] = 'd',        [PREFILL_OUT_FREE] = 'f',
    };

    return letters[kind];
}

static void step(struct prefill *p, struct prefill_event event, uint64_t now_ns, char *text)
{
    struct prefill_outbox outbox = { 0 };

    prefill_step(p, now_ns, &event, &outbox);
    for (uint32_t i = 0; i < outbox.count; i++)
        *text++ = letter(outbox.items[i].kind);
    *text = '\0';
}

#define STEP(state, ...) step(state, (struct prefill_event){ __VA_ARGS__ }, SECOND, out)

/* A request in each phase, as it is when all goes well and the most is in flight. */
static void go_to(struct prefill *p, enum prefill_phase phase)
{
    char out[PREFILL_OUTBOX_MAX + 1];

    prefill_init(p, &options, SECOND);
    if (phase == PREFILL_QUEUED)
        return;
    STEP(p, .kind = PREFILL_START);
    if (phase == PREFILL_PULLING)
        return;
    STEP(p, .kind = PREFILL_PULLED, .tokens = PULL);
    if (phase == PREFILL_DECODING) { /* only of requests that stay here */
        p->options.remote = false;
        p->held = false;
        p->pushes = 0;
        p->renew_ns = UINT64_MAX;
    }
    STEP(p, .kind = PREFILL_PROGRESS, .ready = { PULL, PROMPT, 1 });
    STEP(p, .kind = PREFILL_PUT);
    if (phase == PREFILL_COMPUTING)
        return;
    if (phase == PREFILL_ENDING) {
        STEP(p, .kind = PREFILL_PUSHED, .status = MC_E_PEER);
        return;
    }
    STEP(p, .kind = PREFILL_SAMPLED);
    if (phase == PREFILL_DECODING)
        return;
    STEP(p, .kind = PREFILL_OUT);
    STEP(p, .kind = PREFILL_PUSHED);
    STEP(p, .kind = PREFILL_PUSHED);
    STEP(p, .kind = PREFILL_PUSHED);
    if (phase == PREFILL_HANDING_OFF)
        return;
    STEP(p, .kind = PREFILL_ANSWERED);
    if (phase == PREFILL_LEAVING)
        return;
    STEP(p, .kind = PREFILL_PUT_FINAL);
}

static void test_what_is_pulled_may_change_while_it_waits(void **state)
{
    (void)state;
    for (uint32_t tokens = 0; tokens < PROMPT; tokens += 16) {
        const struct prefill_event start = { .kind = PREFILL_START };
        struct prefill_outbox outbox = { 0 };
        struct prefill p;

        prefill_init(&p, &options, SECOND);
        prefill_pull_set(&p, tokens);
        prefill_step(&p, SECOND, &start, &outbox);
        assert_int_equal(p.phase, tokens ? PREFILL_PULLING : PREFILL_COMPUTING);
        assert_int_equal(outbox.items[0].tokens, tokens);
    }
}

static const struct prefill_event events[PREFILL_EVENTS] = {
    [PREFILL_START] = { .kind = PREFILL_START },
    [PREFILL_PULLED] = { .kind = PREFILL_PULLED, .tokens = 16 },
    [PREFILL_PROGRESS] = { .kind = PREFILL_PROGRESS, .ready = { PULL, PROMPT, 2 } },
    [PREFILL_SAMPLED] = { .kind = PREFILL_SAMPLED },
    [PREFILL_OUT] = { .kind = PREFILL_OUT, .status = MC_E_RANGE },
    [PREFILL_PUSHED] = { .kind = PREFILL_PUSHED, .status = MC_E_STALE },
    [PREFILL_ANSWERED] = { .kind = PREFILL_ANSWERED, .status = MC_E_CORRUPT },
    [PREFILL_PEER_UP] = { .kind = PREFILL_PEER_UP },
    [PREFILL_PEER_GONE] = { .kind = PREFILL_PEER_GONE, .status = MC_E_STALE },
    [PREFILL_PUT] = { .kind = PREFILL_PUT },
    [PREFILL_PUT_FINAL] = { .kind = PREFILL_PUT_FINAL },
    [PREFILL_CANCEL] = { .kind = PREFILL_CANCEL },
    [PREFILL_TIME] = { .kind = PREFILL_TIME },
};

/* Where an event leads and what is to be done. What is not here means nothing in that phase. */
static const struct {
    enum prefill_phase from;
    enum prefill_event_kind event;
    enum prefill_phase to;
    const char *out;
} expected[] = {
    { PREFILL_QUEUED, PREFILL_START, PREFILL_PULLING, "pt" },
    { PREFILL_QUEUED, PREFILL_PEER_GONE, PREFILL_DONE, "ef" },
    { PREFILL_QUEUED, PREFILL_CANCEL, PREFILL_DONE, "f" },
    { PREFILL_QUEUED, PREFILL_TIME, PREFILL_QUEUED, "r" },
    { PREFILL_PULLING, PREFILL_PULLED, PREFILL_COMPUTING, "ct>" },
    { PREFILL_PULLING, PREFILL_PEER_GONE, PREFILL_ENDING, "Pe" },
    { PREFILL_PULLING, PREFILL_CANCEL, PREFILL_ENDING, "P" },
    { PREFILL_PULLING, PREFILL_TIME, PREFILL_PULLING, "r" },
    { PREFILL_COMPUTING, PREFILL_PROGRESS, PREFILL_COMPUTING, "" }, /* two pushes are in flight */
    { PREFILL_COMPUTING, PREFILL_SAMPLED, PREFILL_HANDING_OFF, "t" },
    { PREFILL_COMPUTING, PREFILL_OUT, PREFILL_ENDING, "<Ue" },
    { PREFILL_COMPUTING, PREFILL_PUSHED, PREFILL_ENDING, "C<Ue" },
    { PREFILL_COMPUTING, PREFILL_PEER_GONE, PREFILL_ENDING, "C<Ue" },
    { PREFILL_COMPUTING, PREFILL_CANCEL, PREFILL_ENDING, "C<U" },
    { PREFILL_COMPUTING, PREFILL_TIME, PREFILL_COMPUTING, "r" },
    { PREFILL_HANDING_OFF, PREFILL_ANSWERED, PREFILL_ENDING, "Ued" },
    { PREFILL_HANDING_OFF, PREFILL_PEER_GONE, PREFILL_ENDING, "UHed" },
    { PREFILL_HANDING_OFF, PREFILL_CANCEL, PREFILL_ENDING, "UHd" },
    { PREFILL_HANDING_OFF, PREFILL_TIME, PREFILL_ENDING, "UHed" },
    { PREFILL_DECODING, PREFILL_OUT, PREFILL_LEAVING, "" },
    { PREFILL_DECODING, PREFILL_CANCEL, PREFILL_ENDING, "CU" },
    { PREFILL_LEAVING, PREFILL_PUT_FINAL, PREFILL_DONE, "f" },
    { PREFILL_LEAVING, PREFILL_CANCEL, PREFILL_LEAVING, "U" },
};

static void test_every_event_in_every_phase(void **state)
{
    (void)state;
    for (uint32_t phase = 0; phase < PREFILL_PHASES; phase++)
        for (uint32_t kind = 0; kind < PREFILL_EVENTS; kind++) {
            uint32_t to = phase;
            const char *what = "";
            for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
                if (expected[i].from == phase && expected[i].event == kind) {
                    to = expected[i].to;
                    what = expected[i].out;
                }
            struct prefill p;
            char out[PREFILL_OUTBOX_MAX + 1];
            go_to(&p, phase);
            assert_int_equal(p.phase, phase);
            step(&p, events[kind], 3 * SECOND + 1, out);
            assert_string_equal(out, what);
            assert_int_equal(p.phase, to);
        }
}

static void test_a_life_without_surprises(void **state)
{
    (void)state;
    struct prefill p;
    char out[PREFILL_OUTBOX_MAX + 1];
    static const struct {
        struct prefill_event event;
        const char *out;
    } life[] = {
        { { .kind = PREFILL_START }, "pt" },
        { { .kind = PREFILL_PULLED, .tokens = PULL }, "ct>" },
        { { .kind = PREFILL_PROGRESS, .ready = { PULL, PROMPT, 1 } }, ">" },
        { { .kind = PREFILL_PROGRESS, .ready = { PULL, PROMPT, 2 } }, "" },
        { { .kind = PREFILL_PUSHED }, ">" }, /* the second layer waited for room */
        { { .kind = PREFILL_PUSHED }, "" },
        { { .kind = PREFILL_SAMPLED }, "t>" },
        { { .kind = PREFILL_PUSHED }, "" },
        { { .kind = PREFILL_PUSHED }, "" }, /* all is there, but the engine still has it */
        { { .kind = PREFILL_OUT }, "h" },
        { { .kind = PREFILL_ANSWERED, .status = MC_E_PEER }, "" },
        { { .kind = PREFILL_PEER_UP }, "h" },
        { { .kind = PREFILL_ANSWERED }, "edf" },
    };

    prefill_init(&p, &options, SECOND);
    for (size_t i = 0; i < sizeof(life) / sizeof(life[0]); i++) {
        step(&p, life[i].event, SECOND, out);
        assert_string_equal(out, life[i].out);
    }
    assert_int_equal(p.status, MC_OK);
    assert_int_equal(p.reused, PULL);
    assert_int_equal(prefill_due_ns(&p), UINT64_MAX);
}

static void test_a_hand_off_without_an_answer_is_asked_again_until_its_time_is_over(void **state)
{
    (void)state;
    struct prefill p;
    char out[PREFILL_OUTBOX_MAX + 1];
    uint64_t now = SECOND;
    uint32_t asked = 1;

    go_to(&p, PREFILL_HANDING_OFF);
    while (p.phase == PREFILL_HANDING_OFF) {
        step(&p, (struct prefill_event){ .kind = PREFILL_ANSWERED, .status = MC_E_PEER }, now, out);
        assert_string_equal(out, "");
        assert_true(prefill_due_ns(&p) > now && prefill_due_ns(&p) < UINT64_MAX);
        now = prefill_due_ns(&p);
        step(&p, (struct prefill_event){ .kind = PREFILL_TIME }, now, out);
        asked += strchr(out, 'h') != NULL;
    }
    assert_in_range(asked, 15, 21);
    assert_int_equal(now, 3 * SECOND);
    assert_int_equal(p.status, MC_E_PEER);
    assert_string_equal(out, "Ued");
}

/* ---------------------------------------------------------------------------------- random lives */

/* What the world outside owes the machine, and what it has been told. */
struct outside {
    struct prefill p;
    uint64_t now;
    bool pull, engine, ask, sampled, stopped;
    uint32_t pushes, puts, ends, drops, frees, cancels;
    bool dropped, cancelled;
};

static void carry_out(struct outside *o, const struct prefill_out *out)
{
    assert_int_equal(o->frees, 0); /* FREE is the last */
    switch (out->kind) {
    case PREFILL_OUT_PULL:
        assert_false(o->pull);
        o->pull = true;
        break;
    case PREFILL_OUT_COMPUTE:
        assert_false(o->engine || o->pull);
        o->engine = true;
        break;
    case PREFILL_OUT_PUSH:
        assert_false(o->dropped || o->stopped);
        assert_true(++o->pushes <= o->p.options.pushes_max);
        break;
    case PREFILL_OUT_HAND_OFF:
        assert_false(o->ask || o->engine || o->pushes > 0 || o->stopped);
        o->ask = true;
        break;
    case PREFILL_OUT_STOP_ASK:
        assert_true(o->ask);
        o->ask = false;
        break;
    case PREFILL_OUT_STOP_PULL:
    case PREFILL_OUT_STOP_ENGINE:
    case PREFILL_OUT_STOP_PUSHES:
        o->stopped = true;
        break;
    case PREFILL_OUT_END:
        assert_int_equal(o->ends++, 0);
        assert_false(o->cancelled);
        break;
    case PREFILL_OUT_DROP:
        assert_false(o->pull || o->engine || o->pushes > 0 || o->dropped);
        o->dropped = true;
        break;
    case PREFILL_OUT_FREE:
        assert_false(o->pull || o->engine || o->ask || o->pushes > 0 || o->puts > 0);
        o->frees++;
        break;
    case PREFILL_OUT_RENEW:
    case PREFILL_OUT_TELL:
    case PREFILL_OUT_STOP_PUTS:
        break;
    }
}

static void happen(struct outside *o, struct prefill_event event)
{
    struct prefill_outbox outbox = { 0 };

    prefill_step(&o->p, o->now, &event, &outbox);
    for (uint32_t i = 0; i < outbox.count; i++)
        carry_out(o, &outbox.items[i]);
}

/* The engine's next word: a layer, a chunk, the first token, or that it is over. */
static void engine_speaks(struct outside *o, struct prng *prng)
{
    struct push_ready ready = o->p.ready;

    if (o->p.phase != PREFILL_COMPUTING || o->sampled) {
        o->engine = false;
        happen(o, (struct prefill_event){ .kind = PREFILL_OUT,
                                          .status = o->sampled ? MC_OK : MC_E_CANCELLED });
    } else if (prng_below(prng, 40) == 0) {
        o->engine = false;
        happen(o, (struct prefill_event){ .kind = PREFILL_OUT, .status = MC_E_RANGE });
    } else if (ready.done + 16 >= PROMPT && ready.chunk_layers == LAYERS) {
        o->sampled = true;
        happen(o, (struct prefill_event){ .kind = PREFILL_SAMPLED });
    } else {
        if (ready.chunk_end == ready.done)
            ready = (struct push_ready){ ready.done,
                                         ready.done + 16 < PROMPT ? ready.done + 16 : PROMPT, 0 };
        else if (ready.chunk_layers < LAYERS)
            ready.chunk_layers++;
        else
            ready = (struct push_ready){ ready.chunk_end, ready.chunk_end, 0 };
        happen(o, (struct prefill_event){ .kind = PREFILL_PROGRESS, .ready = ready });
    }
}

static mc_status sometimes(struct prng *prng, uint32_t rarely, mc_status status)
{
    return prng_below(prng, rarely) == 0 ? status : MC_OK;
}

static void something_happens(struct outside *o, struct prng *prng)
{
    switch (prng_below(prng, 9)) {
    case 0:
        happen(o, (struct prefill_event){ .kind = PREFILL_START });
        break;
    case 1:
        if (!o->pull)
            break;
        o->pull = false;
        happen(o, (struct prefill_event){ .kind = PREFILL_PULLED,
                                          .tokens = prng_below(prng, 2) * PULL });
        break;
    case 2:
    case 3:
        if (o->engine)
            engine_speaks(o, prng);
        break;
    case 4:
        if (o->pushes == 0)
            break;
        o->pushes--;
        happen(o, (struct prefill_event){ .kind = PREFILL_PUSHED,
                                          .status = sometimes(prng, 30, MC_E_PEER) });
        break;
    case 5:
        if (!o->ask)
            break;
        o->ask = false;
        happen(o,
               (struct prefill_event){
                   .kind = PREFILL_ANSWERED,
                   .status = sometimes(prng, 3, prng_below(prng, 2) ? MC_E_PEER : MC_E_CORRUPT) });
        break;
    case 6:
        if (o->engine && o->puts < 3) {
            o->puts++;
            happen(o, (struct prefill_event){ .kind = PREFILL_PUT });
        } else if (o->puts > 0) {
            o->puts--;
            happen(o, (struct prefill_event){ .kind = PREFILL_PUT_FINAL });
        }
        break;
    case 7:
        o->now += prng_below(prng, 400) * UINT64_C(1000000);
        happen(o, (struct prefill_event){ .kind = PREFILL_TIME });
        break;
    default:
        if (prng_below(prng, 60) == 0) {
            o->cancelled = true;
            happen(o, (struct prefill_event){ .kind = PREFILL_CANCEL });
        } else
            happen(o, (struct prefill_event){ .kind = prng_below(prng, 80) ? PREFILL_PEER_UP
                                                                           : PREFILL_PEER_GONE,
                                              .status = MC_E_STALE });
        break;
    }
}

static void test_any_life_ends_with_nothing_held(void **state)
{
    (void)state;
    uint32_t well = 0, failed = 0, cancelled = 0;

    for (uint64_t seed = 0; seed < 3000; seed++) {
        struct prng prng = { .seed = seed };
        struct prefill_options mine = options;
        struct outside o = { .now = SECOND };
        mine.remote = seed % 4 > 0;
        mine.pull_tokens = seed % 3 > 0 ? PULL : 0;
        prefill_init(&o.p, &mine, o.now);
        for (uint32_t i = 0; i < 100000 && o.frees == 0; i++)
            something_happens(&o, &prng);
        assert_int_equal(o.frees, 1);
        assert_int_equal(o.p.phase, PREFILL_DONE);
        assert_false(o.p.held);
        assert_int_equal(prefill_due_ns(&o.p), UINT64_MAX);
        well += o.p.status == MC_OK;
        failed += o.p.status != MC_OK && !o.cancelled;
        cancelled += o.p.status == MC_E_CANCELLED;
        assert_true(o.ends == 1 || o.cancelled);
        something_happens(&o, &prng); /* what comes late means nothing */
    }
    assert_true(well > 500 && failed > 500 && cancelled > 300);
}

static void test_requests_wait_by_priority_then_order_then_arrival(void **state)
{
    (void)state;
    static const struct prefill_place line[] = {
        { 0, 1, 9 }, { 0, 2, 1 }, { 0, 2, 3 }, { 0, 0, 2 }, { 0, 0, 4 }, { 1, 1, 0 },
    };

    for (size_t i = 0; i < 6; i++)
        for (size_t k = 0; k < 6; k++)
            assert_int_equal(prefill_before(&line[i], &line[k]), i < k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_pulled_may_change_while_it_waits),
        cmocka_unit_test(test_every_event_in_every_phase),
        cmocka_unit_test(test_a_life_without_surprises),
        cmocka_unit_test(test_a_hand_off_without_an_answer_is_asked_again_until_its_time_is_over),
        cmocka_unit_test(test_any_life_ends_with_nothing_held),
        cmocka_unit_test(test_requests_wait_by_priority_then_order_then_arrival),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
