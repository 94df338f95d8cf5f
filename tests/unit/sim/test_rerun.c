/* test_rerun.c - a scheduler's life, recorded here, is the same again; one changed byte of it is not. */
#include "test.h"

#include "sim/rerun.h"

enum { FILE_MAX = 1 << 20 };

struct tape {
    uint8_t bytes[FILE_MAX];
    size_t size;
    mc_sched *sched;
    struct faulty faulty;
    uint64_t now_ns, events, decisions;
};

static void add(struct tape *t, enum record_kind kind, const void *body, size_t size)
{
    record_head(kind, body, size, t->bytes + t->size);
    memmove(t->bytes + t->size + RECORD_HEAD_BYTES, body, size);
    t->size += RECORD_HEAD_BYTES + size;
}

static void tape_open(struct tape *t)
{
    struct mc_sched_options o = { .policy = "algorithm1",
                                  .slo = { .ttft_ns = 50000000 },
                                  .seed = 5,
                                  .instances_max = 8,
                                  .requests_max = 64,
                                  .blocks_max = 256 };
    struct mc_error error = { 0 };

    faulty_init(&t->faulty, -1);
    struct buf text = BUF_INIT(&t->faulty.alloc);
    o.alloc = &t->faulty.alloc;
    assert_int_equal(mc_sched_open(&o, &t->sched, &error), MC_OK);
    assert_int_equal(record_options_write(&o, &text), MC_OK);
    memcpy(t->bytes, RECORD_MAGIC, RECORD_MAGIC_BYTES);
    t->size = RECORD_MAGIC_BYTES;
    add(t, RECORD_OPTIONS, text.data, text.size);
    buf_fini(&text);
    t->now_ns = 1000;
    t->events = t->decisions = 0;
}

static void step(struct tape *t, struct mc_sched_event event)
{
    static uint8_t body[RECORD_EVENT_FIXED + RECORD_BODY_MAX];
    struct mc_decision d;
    size_t size, count;

    t->now_ns += 1000000;
    const mc_status status = mc_sched_step(t->sched, t->now_ns, &event);
    assert_int_equal(record_event_write(t->now_ns, &event, status, body, sizeof(body), &size),
                     MC_OK);
    add(t, RECORD_EVENT, body, size);
    t->events++;
    while (mc_sched_take(t->sched, &d, 1, &count) == MC_OK) {
        assert_int_equal(record_decision_write(&d, body, sizeof(body), &size), MC_OK);
        add(t, RECORD_DECISION, body, size);
        t->decisions++;
    }
}

static void tape_end(struct tape *t)
{
    const struct record_last last = { RECORD_CLOSED, t->events, t->decisions };
    uint8_t body[RECORD_END_BYTES];

    record_end_write(&last, body);
    add(t, RECORD_END, body, sizeof(body));
    mc_sched_close(t->sched);
    assert_int_equal(t->faulty.held, 0);
}

/* Two instances, requests that pile up until some are refused, one unknown id, one instance lost. */
static void tape_fill(struct tape *t)
{
    struct mc_key keys[4];

    tape_open(t);
    for (uint64_t id = 1; id <= 2; id++)
        step(t, (struct mc_sched_event){
                    .kind = MC_EVENT_INSTANCE,
                    .instance = {
                        .id = id,
                        .role = MC_ROLE_BOTH,
                        .kv_tokens_max = 100000,
                        .cost = { .p0 = 1e-3, .p1 = 1e-4, .d0 = 1e-2, .bytes_per_s = 1e9 } } });
    for (uint64_t id = 1; id <= 40; id++) {
        memset(keys, (int)(id % 3), sizeof(keys));
        step(t, (struct mc_sched_event){
                    .kind = MC_EVENT_REQUEST,
                    .request = { .id = id, .tokens = 100, .keys = keys, .key_count = 4 } });
        if (id % 8 == 0)
            step(t, (struct mc_sched_event){
                        .kind = MC_EVENT_STORED,
                        .blocks = { .id = 1, .keys = keys, .count = 4, .medium = 0 } });
    }
    step(t,
         (struct mc_sched_event){ .kind = MC_EVENT_REQUEST_END, .progress = { .request = 999 } });
    step(t, (struct mc_sched_event){ .kind = MC_EVENT_INSTANCE_GONE, .id = 2 });
    tape_end(t);
}

static mc_status play(const struct tape *t, size_t size, struct rerun *r, struct mc_error *error)
{
    static struct faulty faulty;
    mc_status status;

    faulty_init(&faulty, -1);
    status = rerun_open(r, t->bytes, size, &faulty.alloc, error);
    if (status != MC_OK)
        return status;
    while ((status = rerun_step(r, 7, error)) == MC_PENDING)
        ;
    return status;
}

static struct tape tape;

static void test_a_recorded_life_is_the_same_again(void **state)
{
    struct rerun r;
    struct mc_error error = { 0 };

    (void)state;
    tape_fill(&tape);
    assert_int_equal(play(&tape, tape.size, &r, &error), MC_OK);
    assert_int_equal(r.first.kind, RERUN_SAME);
    assert_int_equal(r.events, tape.events);
    assert_int_equal(r.decisions, tape.decisions);
    assert_true(r.placed > 0 && r.refused > 0 && r.others > 0);
    assert_int_equal(r.placed + r.refused + r.others, r.decisions);
    assert_int_equal(r.refused_by[MC_REASON_TTFT_SLO], r.refused);
    assert_int_equal(r.skipped, 1);
    assert_true(r.ended && !r.cut);
    assert_int_equal(r.last.events, r.events);
    rerun_close(&r);
}

static void test_a_killed_recorders_file_is_the_same_as_far_as_it_goes(void **state)
{
    struct mc_error error = { 0 };

    (void)state;
    tape_fill(&tape);
    for (size_t size = tape.size; size > 400; size -= 61) {
        struct rerun r;
        assert_int_equal(play(&tape, size, &r, &error), MC_OK);
        assert_int_equal(r.first.kind, RERUN_SAME);
        rerun_close(&r);
    }
}

/* The nth record of a kind. */
static size_t find(const struct tape *t, enum record_kind kind, uint32_t nth)
{
    struct record record;
    size_t at = 0, begin = RECORD_MAGIC_BYTES;

    while (record_next(t->bytes, t->size, &at, &record, NULL) == MC_OK) {
        if (record.kind == kind && nth-- == 0)
            return begin;
        begin = at;
    }
    fail_msg("no such record");
    return 0;
}

static void again(struct tape *t, size_t at)
{
    const uint8_t *head = t->bytes + at;
    const size_t size = head[0] | (size_t)head[1] << 8;
    record_head((enum record_kind)head[4], t->bytes + at + RECORD_HEAD_BYTES, size, t->bytes + at);
}

static void take_out(struct tape *t, size_t at)
{
    const size_t size = RECORD_HEAD_BYTES + (t->bytes[at] | (size_t)t->bytes[at + 1] << 8);

    memmove(t->bytes + at, t->bytes + at + size, t->size - at - size);
    t->size -= size;
}

static enum rerun_difference difference(struct tape *t, struct rerun_sides *sides_p)
{
    struct rerun r;
    struct mc_error error = { 0 };
    struct faulty faulty;

    faulty_init(&faulty, -1);
    struct buf text = BUF_INIT(&faulty.alloc);
    assert_int_equal(play(t, t->size, &r, &error), MC_OK);
    const struct rerun_sides sides = r.first;
    rerun_print(&r, &text);
    assert_non_null(strstr(text.data, sides.kind == RERUN_SAME ? "byte for byte" : "first differ"));
    buf_fini(&text);
    rerun_close(&r);
    *sides_p = sides;
    return sides.kind;
}

static void test_the_first_difference_is_found_and_shown_from_both_sides(void **state)
{
    struct rerun_sides sides;
    size_t at;

    (void)state;
    tape_fill(&tape);
    at = find(&tape, RECORD_DECISION, 3);
    tape.bytes[at + RECORD_HEAD_BYTES + 2] ^= 3; /* its kind */
    again(&tape, at);
    assert_int_equal(difference(&tape, &sides), RERUN_DECISION);
    assert_int_equal(sides.event, 2 + 4);
    assert_int_equal(sides.then.request, sides.now.request);
    assert_int_not_equal(sides.then.kind, sides.now.kind);

    tape_fill(&tape);
    take_out(&tape, find(&tape, RECORD_DECISION, 5));
    assert_int_equal(difference(&tape, &sides), RERUN_EXTRA);
    assert_int_equal(sides.now.request, 6);

    tape_fill(&tape);
    take_out(&tape, find(&tape, RECORD_EVENT, 41 + 5 + 2)); /* the one that is gone */
    assert_int_equal(difference(&tape, &sides), RERUN_MISSING);

    tape_fill(&tape);
    at = find(&tape, RECORD_EVENT, 0);
    tape.bytes[at + RECORD_HEAD_BYTES] ^= 1; /* its status */
    again(&tape, at);
    assert_int_equal(difference(&tape, &sides), RERUN_STATUS);
}

static void test_what_is_no_recording_is_refused(void **state)
{
    struct rerun r;
    struct mc_error error = { 0 };

    (void)state;
    tape_fill(&tape);
    take_out(&tape, RECORD_MAGIC_BYTES); /* its options */
    assert_int_equal(play(&tape, tape.size, &r, &error), MC_E_FORMAT);
    tape_fill(&tape);
    assert_int_equal(play(&tape, RECORD_MAGIC_BYTES + 3, &r, &error), MC_E_FORMAT);
    tape.bytes[0] ^= 1;
    assert_int_equal(play(&tape, tape.size, &r, &error), MC_E_FORMAT);
    rerun_close(&(struct rerun){ 0 });
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    struct mc_error error = { 0 };

    (void)state;
    tape_fill(&tape);
    for (long k = 0;; k++) {
        struct faulty faulty;
        struct rerun r;

        faulty_init(&faulty, k);
        mc_status status = rerun_open(&r, tape.bytes, tape.size, &faulty.alloc, &error);
        if (status == MC_OK)
            status = rerun_step(&r, UINT64_MAX, &error);
        rerun_close(&r);
        assert_int_equal(faulty.held, 0);
        if (status == MC_OK)
            return;
        assert_int_equal(status, MC_E_NOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_recorded_life_is_the_same_again),
        cmocka_unit_test(test_a_killed_recorders_file_is_the_same_as_far_as_it_goes),
        cmocka_unit_test(test_the_first_difference_is_found_and_shown_from_both_sides),
        cmocka_unit_test(test_what_is_no_recording_is_refused),
        cmocka_unit_test(test_every_failed_allocation_leaves_nothing_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
