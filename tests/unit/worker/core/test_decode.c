/* test_decode.c - every event in every phase, and random lives that must let go of everything. */
#include "test.h"

#include "base/prng.h"
#include "worker/core/decode.h"

#define SECOND UINT64_C(1000000000)

/* What a step makes, one letter each, so that a table can be read. */
static char letter(enum decode_out_kind kind)
{
    static const char letters[] = {
        [DECODE_OUT_RENEW] = 'w',        [DECODE_OUT_REVOKE] = 'x',
        [DECODE_OUT_VERIFY] = 'v',       [DECODE_OUT_JOIN] = 'j',
        [DECODE_OUT_STOP_ENGINE] = 'C',  [DECODE_OUT_STOP_PUTS] = 'U',
        [DECODE_OUT_ANSWER_RENEW] = 'r', [DECODE_OUT_ANSWER_HAND_OFF] = 'h',
        [DECODE_OUT_TELL] = 't',         [DECODE_OUT_DROP] = 'd',
        [DECODE_OUT_FREE] = 'f',
    };

    return letters[kind];
}

/* The last answer's status. */
static mc_status answered;

static void step(struct decode *d, struct decode_event event, uint64_t now_ns, char *text)
{
    struct decode_outbox outbox = { 0 };

    decode_step(d, now_ns, &event, &outbox);
    for (uint32_t i = 0; i < outbox.count; i++) {
        *text++ = letter(outbox.items[i].kind);
        if (outbox.items[i].kind == DECODE_OUT_ANSWER_HAND_OFF ||
            outbox.items[i].kind == DECODE_OUT_ANSWER_RENEW)
            answered = outbox.items[i].status;
    }
    *text = '\0';
}

#define STEP(state, ...) step(state, (struct decode_event){ __VA_ARGS__ }, SECOND, out)

static void go_to(struct decode *d, enum decode_phase phase)
{
    char out[DECODE_OUTBOX_MAX + 1];

    decode_init(d, SECOND, SECOND);
    if (phase == DECODE_RESERVED)
        return;
    STEP(d, .kind = DECODE_HAND_OFF);
    if (phase == DECODE_CLOSING)
        return;
    if (phase == DECODE_ENDING) {
        STEP(d, .kind = DECODE_CANCEL); /* while the window is being revoked */
        return;
    }
    STEP(d, .kind = DECODE_QUIET);
    if (phase == DECODE_FULL)
        return;
    STEP(d, .kind = DECODE_VERIFIED);
    STEP(d, .kind = DECODE_PUT);
    if (phase == DECODE_DECODING)
        return;
    STEP(d, .kind = DECODE_OUT);
    if (phase == DECODE_LEAVING)
        return;
    STEP(d, .kind = DECODE_PUT_FINAL);
}

static const struct decode_event events[DECODE_EVENTS] = {
    [DECODE_HAND_OFF] = { .kind = DECODE_HAND_OFF },
    [DECODE_RENEW] = { .kind = DECODE_RENEW, .tokens = 16 },
    [DECODE_QUIET] = { .kind = DECODE_QUIET },
    [DECODE_VERIFIED] = { .kind = DECODE_VERIFIED, .status = MC_E_CORRUPT },
    [DECODE_OUT] = { .kind = DECODE_OUT },
    [DECODE_PUT] = { .kind = DECODE_PUT },
    [DECODE_PUT_FINAL] = { .kind = DECODE_PUT_FINAL },
    [DECODE_CANCEL] = { .kind = DECODE_CANCEL },
    [DECODE_TIME] = { .kind = DECODE_TIME },
};

static const struct {
    enum decode_phase from;
    enum decode_event_kind event;
    enum decode_phase to;
    const char *out;
    mc_status answered;
} expected[] = {
    { DECODE_RESERVED, DECODE_HAND_OFF, DECODE_CLOSING, "x", MC_OK },
    { DECODE_RESERVED, DECODE_RENEW, DECODE_RESERVED, "wr", MC_OK },
    { DECODE_RESERVED, DECODE_CANCEL, DECODE_ENDING, "x", MC_OK },
    { DECODE_RESERVED, DECODE_TIME, DECODE_ENDING, "xt", MC_OK },
    { DECODE_CLOSING, DECODE_RENEW, DECODE_CLOSING, "r", MC_OK },
    { DECODE_CLOSING, DECODE_QUIET, DECODE_FULL, "v", MC_OK },
    { DECODE_CLOSING, DECODE_CANCEL, DECODE_ENDING, "h", MC_E_CANCELLED },
    { DECODE_FULL, DECODE_RENEW, DECODE_FULL, "r", MC_OK },
    { DECODE_FULL, DECODE_VERIFIED, DECODE_DONE, "hdf", MC_E_CORRUPT },
    { DECODE_FULL, DECODE_CANCEL, DECODE_ENDING, "h", MC_E_CANCELLED },
    { DECODE_DECODING, DECODE_HAND_OFF, DECODE_DECODING, "h", MC_OK },
    { DECODE_DECODING, DECODE_RENEW, DECODE_DECODING, "r", MC_OK },
    { DECODE_DECODING, DECODE_OUT, DECODE_LEAVING, "", MC_OK },
    { DECODE_DECODING, DECODE_CANCEL, DECODE_ENDING, "CU", MC_OK },
    { DECODE_LEAVING, DECODE_HAND_OFF, DECODE_LEAVING, "h", MC_OK },
    { DECODE_LEAVING, DECODE_RENEW, DECODE_LEAVING, "r", MC_E_STALE },
    { DECODE_LEAVING, DECODE_PUT_FINAL, DECODE_DONE, "f", MC_OK },
    { DECODE_LEAVING, DECODE_CANCEL, DECODE_LEAVING, "U", MC_OK },
    { DECODE_ENDING, DECODE_HAND_OFF, DECODE_ENDING, "h", MC_E_CANCELLED },
    { DECODE_ENDING, DECODE_RENEW, DECODE_ENDING, "r", MC_E_STALE },
    { DECODE_ENDING, DECODE_QUIET, DECODE_DONE, "df", MC_OK },
    { DECODE_DONE, DECODE_HAND_OFF, DECODE_DONE, "h", MC_E_STALE },
    { DECODE_DONE, DECODE_RENEW, DECODE_DONE, "r", MC_E_STALE },
};

static void test_every_event_in_every_phase(void **state)
{
    (void)state;
    for (uint32_t phase = 0; phase < DECODE_PHASES; phase++)
        for (uint32_t kind = 0; kind < DECODE_EVENTS; kind++) {
            uint32_t to = phase;
            const char *what = "";
            mc_status status = MC_OK;
            for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
                if (expected[i].from == phase && expected[i].event == kind) {
                    to = expected[i].to;
                    what = expected[i].out;
                    status = expected[i].answered;
                }
            struct decode d;
            char out[DECODE_OUTBOX_MAX + 1];
            go_to(&d, phase);
            assert_int_equal(d.phase, phase);
            answered = MC_OK;
            step(&d, events[kind], 2 * SECOND, out);
            assert_string_equal(out, what);
            assert_int_equal(answered, status);
            assert_int_equal(d.phase, to);
        }
}

static void test_only_progress_or_its_turn_renew_a_lease(void **state)
{
    (void)state;
    struct decode d;
    char out[DECODE_OUTBOX_MAX + 1];

    decode_init(&d, SECOND, 0);
    step(&d, (struct decode_event){ .kind = DECODE_RENEW, .tokens = 5 }, 100, out);
    assert_string_equal(out, "wr");
    assert_int_equal(decode_due_ns(&d), SECOND + 100);
    step(&d, (struct decode_event){ .kind = DECODE_RENEW, .tokens = 5 }, 200, out);
    assert_string_equal(out, "r"); /* alive, and not a bit further */
    assert_int_equal(decode_due_ns(&d), SECOND + 100);
    step(&d, (struct decode_event){ .kind = DECODE_RENEW, .tokens = 5, .queued = true }, 300, out);
    assert_int_equal(decode_due_ns(&d), SECOND + 300);
    step(&d, (struct decode_event){ .kind = DECODE_RENEW, .tokens = 6, .lease_ns = 2 * SECOND },
         400, out);
    assert_int_equal(decode_due_ns(&d), 2 * SECOND + 400);
    step(&d, (struct decode_event){ .kind = DECODE_TIME }, 2 * SECOND + 399, out);
    assert_string_equal(out, "");
    step(&d, (struct decode_event){ .kind = DECODE_TIME }, 2 * SECOND + 400, out);
    assert_string_equal(out, "xt");
    step(&d, (struct decode_event){ .kind = DECODE_HAND_OFF }, 2 * SECOND + 401, out);
    assert_string_equal(out, "h"); /* too late */
    assert_int_equal(answered, MC_E_TIMEOUT);
    step(&d, (struct decode_event){ .kind = DECODE_QUIET }, 3 * SECOND, out);
    assert_string_equal(out, "df");
}

static void test_a_hand_off_that_does_not_fit_leaves_the_reservation(void **state)
{
    (void)state;
    struct decode d;
    char out[DECODE_OUTBOX_MAX + 1];

    decode_init(&d, SECOND, 0);
    step(&d, (struct decode_event){ .kind = DECODE_HAND_OFF, .status = MC_E_ARG }, 1, out);
    assert_string_equal(out, "h");
    assert_int_equal(answered, MC_E_ARG);
    assert_int_equal(d.phase, DECODE_RESERVED);
    step(&d, (struct decode_event){ .kind = DECODE_HAND_OFF }, 2, out);
    assert_string_equal(out, "x");
    step(&d, (struct decode_event){ .kind = DECODE_HAND_OFF }, 3, out); /* asked again */
    assert_string_equal(out, "");
    step(&d, (struct decode_event){ .kind = DECODE_QUIET }, 4, out);
    step(&d, (struct decode_event){ .kind = DECODE_VERIFIED }, 5, out);
    assert_string_equal(out, "jh"); /* and answered once */
}

struct outside {
    struct decode d;
    uint64_t now;
    bool revoke, verify, engine, dropped, joined, cancelled;
    uint32_t puts, frees, tells, hand_offs, answers;
};

static void carry_out(struct outside *o, const struct decode_out *out)
{
    assert_true(o->frees == 0 || out->kind == DECODE_OUT_ANSWER_RENEW ||
                out->kind == DECODE_OUT_ANSWER_HAND_OFF);
    switch (out->kind) {
    case DECODE_OUT_REVOKE:
        assert_false(o->revoke || o->verify || o->engine);
        o->revoke = true;
        break;
    case DECODE_OUT_VERIFY:
        assert_false(o->revoke || o->verify); /* quiet */
        o->verify = true;
        break;
    case DECODE_OUT_JOIN:
        assert_false(o->revoke || o->verify || o->engine || o->dropped);
        o->engine = o->joined = true;
        break;
    case DECODE_OUT_DROP:
        assert_false(o->revoke || o->verify || o->dropped || o->joined);
        o->dropped = true;
        break;
    case DECODE_OUT_FREE:
        assert_false(o->revoke || o->verify || o->engine || o->puts > 0);
        assert_true(o->dropped != o->joined);
        o->frees++;
        break;
    case DECODE_OUT_TELL:
        assert_int_equal(o->tells++, 0);
        assert_false(o->cancelled);
        break;
    case DECODE_OUT_ANSWER_HAND_OFF:
        o->answers++;
        break;
    case DECODE_OUT_RENEW:
        assert_false(o->revoke || o->verify || o->engine);
        break;
    case DECODE_OUT_ANSWER_RENEW:
    case DECODE_OUT_STOP_ENGINE:
    case DECODE_OUT_STOP_PUTS:
        break;
    }
}

static void happen(struct outside *o, struct decode_event event)
{
    struct decode_outbox outbox = { 0 };

    decode_step(&o->d, o->now, &event, &outbox);
    for (uint32_t i = 0; i < outbox.count; i++)
        carry_out(o, &outbox.items[i]);
}

static void something_happens(struct outside *o, struct prng *prng)
{
    switch (prng_below(prng, 8)) {
    case 0:
        if (prng_below(prng, 3))
            break;
        o->hand_offs++;
        happen(o, (struct decode_event){ .kind = DECODE_HAND_OFF,
                                         .status = prng_below(prng, 4) ? MC_OK : MC_E_ARG });
        break;
    case 1:
        happen(o, (struct decode_event){ .kind = DECODE_RENEW, .tokens = prng_below(prng, 99) });
        break;
    case 2:
        if (o->revoke) {
            o->revoke = false;
            happen(o, (struct decode_event){ .kind = DECODE_QUIET });
        }
        break;
    case 3:
        if (o->verify) {
            o->verify = false;
            happen(o,
                   (struct decode_event){ .kind = DECODE_VERIFIED,
                                          .status = prng_below(prng, 4) ? MC_OK : MC_E_CORRUPT });
        }
        break;
    case 4:
        if (o->engine && prng_below(prng, 4) == 0) {
            o->engine = false;
            happen(o, (struct decode_event){ .kind = DECODE_OUT });
        }
        break;
    case 5:
        if (o->engine && o->puts < 3) {
            o->puts++;
            happen(o, (struct decode_event){ .kind = DECODE_PUT });
        } else if (o->puts > 0) {
            o->puts--;
            happen(o, (struct decode_event){ .kind = DECODE_PUT_FINAL });
        }
        break;
    case 6:
        o->now += prng_below(prng, 500) * UINT64_C(1000000);
        happen(o, (struct decode_event){ .kind = DECODE_TIME });
        break;
    default:
        if (prng_below(prng, 30) == 0) {
            o->cancelled = true;
            happen(o, (struct decode_event){ .kind = DECODE_CANCEL });
        }
        break;
    }
}

static void test_any_life_ends_with_nothing_held(void **state)
{
    (void)state;
    uint32_t joined = 0, late = 0, corrupt = 0;

    for (uint64_t seed = 0; seed < 3000; seed++) {
        struct prng prng = { .seed = seed };
        struct outside o = { .now = SECOND };
        decode_init(&o.d, SECOND, o.now);
        for (uint32_t i = 0; i < 100000 && o.frees == 0; i++)
            something_happens(&o, &prng);
        assert_int_equal(o.frees, 1);
        assert_false(o.d.held || o.d.window);
        assert_false(o.d.waiting); /* nobody waits for an answer */
        joined += o.joined;
        late += o.d.status == MC_E_TIMEOUT;
        corrupt += o.d.status == MC_E_CORRUPT;
        for (uint32_t i = 0; i < 20; i++)
            something_happens(&o, &prng); /* what comes late is answered and changes nothing */
        assert_int_equal(o.frees, 1);
    }
    assert_true(joined > 500 && late > 200 && corrupt > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_event_in_every_phase),
        cmocka_unit_test(test_only_progress_or_its_turn_renew_a_lease),
        cmocka_unit_test(test_a_hand_off_that_does_not_fit_leaves_the_reservation),
        cmocka_unit_test(test_any_life_ends_with_nothing_held),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
