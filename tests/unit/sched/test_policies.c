/*
 * test_policies.c - the other routers' formulas against themselves, written down once more without any of the
 * policies' structures, on random views; and what they remember from one decision to the next.
 */
#include "fixture.h"

#include <math.h>
#include <stdio.h>

#include "base/prng.h"
#include "sched/policy.h"
#include "sched/tally.h"

enum { ROWS = 8, BLOCK = 16, SECOND = 1000000000 };

/* --------------------------------------------------------------------------------- a view of numbers */

struct world {
    struct mc_view view;
    struct mc_view_instance rows[ROWS];
    double speed[ROWS]; /* of prefill: seconds a token */
    uint64_t seed;
};

static uint64_t world_prefill_ns(const struct mc_view *view, uint64_t index, uint64_t tokens,
                                 uint64_t reused)
{
    const struct world *w = view->context;

    return (uint64_t)(w->speed[index] * (double)(tokens - reused) * 1e9);
}

static uint64_t world_holder(const struct mc_view *view, uint64_t to, uint64_t tokens)
{
    for (uint64_t i = 0; i < view->count; i++)
        if (i != to && view->instances[i].matched_tokens >= tokens)
            return i;
    return UINT64_MAX;
}

static uint64_t world_chance(const struct mc_view *view, uint64_t counter)
{
    return prng_at(((const struct world *)view->context)->seed, counter);
}

/* Instances of every kind: some cannot prefill, some only hold, many are equal in something. */
static void world_draw(struct world *w, uint64_t seed, uint64_t now_ns)
{
    struct prng prng = { .seed = seed };

    memset(w, 0, sizeof(*w));
    w->seed = seed;
    w->view = (struct mc_view){ .now_ns = now_ns,
                                .instances = w->rows,
                                .count = 2 + prng_below(&prng, ROWS - 1),
                                .block_tokens = BLOCK,
                                .prefill_ns = world_prefill_ns,
                                .holder = world_holder,
                                .chance = world_chance,
                                .context = w };
    const bool crowded = prng_below(&prng, 2);
    for (uint64_t i = 0; i < w->view.count; i++) {
        struct mc_view_instance *r = &w->rows[i];
        const uint64_t queued = prng_below(&prng, crowded ? 100 : 4);

        w->speed[i] = (1 + prng_below(&prng, 5)) * 1e-4;
        *r =
            (struct mc_view_instance){ .id = 5 + 2 * i,
                                       .role = prng_below(&prng, 5) ? MC_ROLE_BOTH : MC_ROLE_DECODE,
                                       .matched_tokens = BLOCK * prng_below(&prng, 20),
                                       .queue_ns = prng_below(&prng, 4) * SECOND / 10,
                                       .queued = queued,
                                       .queued_tokens = queued * 100,
                                       .running = prng_below(&prng, 5),
                                       .kv_tokens_max = 10000 * prng_below(&prng, 3),
                                       .tbt_ns = 1000000 * (1 + prng_below(&prng, 20)) };
        if (i == 1 && prng_below(&prng, 3) == 0)
            r->role = MC_ROLE_STORE;
        else if (i == 0)
            r->role = MC_ROLE_PREFILL;
        r->context_tokens = r->running * 77;
        r->free_tokens = r->kv_tokens_max / 100 * prng_below(&prng, 90);
        if (r->matched_tokens > w->view.best_matched_tokens)
            w->view.best_matched_tokens = r->matched_tokens;
    }
}

static bool can(const struct mc_view_instance *r)
{
    return r->role == MC_ROLE_PREFILL || r->role == MC_ROLE_BOTH;
}

/* Each in the state of a policy: as large as the largest, and as aligned. */
struct machine {
    const struct mc_policy *policy;
    void *state;
};

static struct machine machine(const struct mc_policy *policy, const char *parameters)
{
    struct machine m = { policy, calloc(1, policy->state_bytes + 1) };
    struct mc_error error = { 0 };

    assert_non_null(m.state);
    if (policy->init && policy->init(m.state, parameters, &error) != MC_OK)
        fail_msg("%s", error.text);
    return m;
}

static struct mc_decision ask(const struct machine *m, const struct world *w, uint64_t tokens)
{
    const struct mc_sched_request request = { .id = 1, .tokens = tokens };
    struct mc_decision d = { .request = 1 };

    m->policy->place(m->state, &w->view, &request, &d);
    return d;
}

static void observe(const struct machine *m, struct mc_sched_event event)
{
    m->policy->observe(m->state, 0, &event);
}

/* A pull is from where all of it lies, and is there exactly if there is more than the own prefix. */
static void check_pull(const struct world *w, uint64_t row, const struct mc_decision *d, bool pulls)
{
    const bool more = w->view.best_matched_tokens > w->rows[row].matched_tokens;

    assert_int_equal(d->holder != 0, pulls && more);
    assert_int_equal(d->pull_tokens, pulls && more ? w->view.best_matched_tokens : 0);
}

/* ------------------------------------------------------------------------------------------ compare */

/* What each instance is worth; the least is right. */
typedef void formula(const struct world *w, uint64_t tokens, double values[ROWS]);

static double pulled(const struct world *w, uint64_t i)
{
    return (double)(w->view.best_matched_tokens - w->rows[i].matched_tokens);
}

static void dynamo(const struct world *w, uint64_t tokens, double values[ROWS])
{
    for (uint64_t i = 0; i < w->view.count; i++) {
        const struct mc_view_instance *r = &w->rows[i];
        const double credit = (double)r->matched_tokens / 16 + 0.75 * pulled(w, i) / 16;
        const double prefill =
            fmax((double)r->queued_tokens / 16 + (double)tokens / 16 - credit, 0);
        values[i] = prefill + (double)r->context_tokens / 16 + (double)tokens / 16;
    }
}

/* scale=2,device=0.5,pull=0 */
static void dynamo_told(const struct world *w, uint64_t tokens, double values[ROWS])
{
    for (uint64_t i = 0; i < w->view.count; i++) {
        const struct mc_view_instance *r = &w->rows[i];
        const double blocks = (double)(r->queued_tokens + tokens) / 16;
        values[i] = 2 * fmax(blocks - 0.5 * (double)r->matched_tokens / 16, 0) +
                    (double)(r->context_tokens + tokens) / 16;
    }
}

static void lmetric(const struct world *w, uint64_t tokens, double values[ROWS])
{
    for (uint64_t i = 0; i < w->view.count; i++) {
        const struct mc_view_instance *r = &w->rows[i];
        const double credit = (double)r->matched_tokens / 16 + 0.75 * pulled(w, i) / 16;
        values[i] = fmax((double)(r->queued_tokens + tokens) / 16 - credit, 0) *
                    ((double)(r->context_tokens + tokens) / 16 + 1);
    }
}

static void local(const struct world *w, uint64_t tokens, double values[ROWS])
{
    for (uint64_t i = 0; i < w->view.count; i++)
        values[i] = (double)w->rows[i].queue_ns / 1e9 +
                    w->speed[i] * (double)(tokens - w->rows[i].matched_tokens);
}

static void llm_d(const struct world *w, uint64_t tokens, double values[ROWS])
{
    double least = 1e9, most = 0;

    for (uint64_t i = 0; i < w->view.count; i++)
        if (can(&w->rows[i])) {
            least = fmin(least, (double)w->rows[i].queued);
            most = fmax(most, (double)w->rows[i].queued);
        }
    for (uint64_t i = 0; i < w->view.count; i++) {
        const struct mc_view_instance *r = &w->rows[i];
        const double queue = most > least ? (most - (double)r->queued) / (most - least) : 1;
        const double used = r->kv_tokens_max ? (double)(r->kv_tokens_max - r->free_tokens) /
                                                   (double)r->kv_tokens_max
                                             : 0;
        const double prefix = (double)(r->matched_tokens / 16) / (double)(tokens / 16);
        values[i] = -(2 * queue + 2 * (1 - used) + 3 * prefix);
    }
}

struct right {
    uint64_t row;
    double value, margin; /* margin: to the second best */
};

static struct right least_of(const struct world *w, const double values[ROWS])
{
    struct right right = { UINT64_MAX, 1e300, 1e300 };

    for (uint64_t i = 0; i < w->view.count; i++) {
        if (!can(&w->rows[i]))
            continue;
        if (values[i] < right.value)
            right = (struct right){ i, values[i], right.value - values[i] };
        else if (values[i] - right.value < right.margin)
            right.margin = values[i] - right.value;
    }
    return right;
}

static void compare(const struct mc_policy *policy, const char *parameters, formula *values_of,
                    bool pulls, double sign)
{
    const struct machine m = machine(policy, parameters);
    uint32_t compared = 0, many = 0;

    for (uint64_t seed = 1; seed <= 2000; seed++) {
        struct world w;
        double values[ROWS];

        world_draw(&w, seed, seed);
        const uint64_t tokens = 320 + seed % 500;
        values_of(&w, tokens, values);
        const struct right right = least_of(&w, values);
        if (right.margin < 1e-6)
            continue;
        const struct mc_decision d = ask(&m, &w, tokens);
        assert_int_equal(d.kind, MC_DECIDE_PLACE);
        if (d.prefill != w.rows[right.row].id)
            fail_msg("%s, seed %d: %d, not %d", policy->name, (int)seed, (int)d.prefill,
                     (int)w.rows[right.row].id);
        assert_true(fabs(d.score - sign * right.value) < 1e-6 * (1 + fabs(right.value)));
        check_pull(&w, right.row, &d, pulls);
        compared++;
        many += right.margin < 1e299;
    }
    assert_true(compared > 1000 && many > 500);
    free(m.state);
}

static void test_formulas_of_one_number_are_as_published(void **state)
{
    (void)state;
    compare(&policy_dynamo, "", dynamo, true, 1);
    compare(&policy_dynamo, "scale=2,device=0.5,pull=0", dynamo_told, false, 1);
    compare(&policy_lmetric, NULL, lmetric, true, 1);
    compare(&policy_llm_d, "", llm_d, true, -1);
    compare(&policy_local, NULL, local, false, 1);
}

/* ---------------------------------------------------------------------------------- formulas of rules */

struct fact {
    double least, most, mean, deviation;
    uint64_t fewest; /* the first of those with the least */
};

static struct fact facts(const struct world *w)
{
    struct fact f = { 1e9, 0, 0, 0, 0 };
    double count = 0;

    for (uint64_t i = 0; i < w->view.count; i++) {
        const double n = (double)(w->rows[i].queued + w->rows[i].running);

        if (!can(&w->rows[i]))
            continue;
        count++;
        f.mean += n;
        f.most = fmax(f.most, n);
        if (n < f.least) {
            f.least = n;
            f.fewest = i;
        }
    }
    f.mean /= count;
    for (uint64_t i = 0; i < w->view.count; i++)
        if (can(&w->rows[i]))
            f.deviation +=
                pow((double)(w->rows[i].queued + w->rows[i].running) - f.mean, 2) / count;
    f.deviation = sqrt(f.deviation);
    return f;
}

static uint64_t aibrix(const struct world *w, uint32_t *reason_p)
{
    const struct fact f = facts(w);
    uint64_t best = UINT64_MAX;

    *reason_p = MC_REASON_LEAST_LOAD;
    if (f.most - f.least > 16)
        return f.fewest;
    for (uint64_t i = 0; i < w->view.count; i++) {
        const struct mc_view_instance *r = &w->rows[i], *b = &w->rows[best % ROWS];
        if (!can(r) || r->matched_tokens == 0 ||
            (double)(r->queued + r->running) > f.mean + 2 * f.deviation)
            continue;
        if (best == UINT64_MAX || r->matched_tokens > b->matched_tokens ||
            (r->matched_tokens == b->matched_tokens &&
             r->queued + r->running < b->queued + b->running))
            best = i;
    }
    if (best == UINT64_MAX)
        return f.fewest;
    *reason_p = MC_REASON_LOCAL_PREFIX;
    return best;
}

static uint32_t only_one(const struct world *w, uint32_t reason)
{
    uint64_t count = 0;

    for (uint64_t i = 0; i < w->view.count; i++)
        count += can(&w->rows[i]);
    return count == 1 ? MC_REASON_ONLY_ONE : reason;
}

static void test_aibrix_is_as_published(void **state)
{
    (void)state;
    const struct machine m = machine(&policy_aibrix, "");
    uint32_t reasons[2] = { 0 };

    for (uint64_t seed = 1; seed <= 3000; seed++) {
        struct world w;
        uint32_t reason;

        world_draw(&w, seed, 0);
        const uint64_t right = aibrix(&w, &reason);
        const struct mc_decision d = ask(&m, &w, 400);
        if (d.prefill != w.rows[right].id)
            fail_msg("seed %d: %d, not %d", (int)seed, (int)d.prefill, (int)w.rows[right].id);
        assert_int_equal(d.reason, only_one(&w, reason));
        check_pull(&w, right, &d, true);
        reasons[reason == MC_REASON_LEAST_LOAD]++;
    }
    assert_true(reasons[0] > 500 && reasons[1] > 500);
    free(m.state);
}

/* Its trees are the test's own: a plain array by row. */
static void test_sglang_is_as_published(void **state)
{
    (void)state;
    const struct machine m = machine(&policy_sglang, "");
    uint64_t trees[ROWS] = { 0 };
    uint32_t rules[3] = { 0 };

    for (uint64_t seed = 1; seed <= 4000; seed++) {
        struct world w;
        uint64_t right = UINT64_MAX, longest = UINT64_MAX;
        int rule = 2;

        world_draw(&w, seed, 0);
        const uint64_t tokens = 320 + seed * 7 % 900;
        const struct fact f = facts(&w);
        for (uint64_t i = 0; i < w.view.count; i++) {
            if (!can(&w.rows[i]))
                continue;
            if (longest == UINT64_MAX || w.rows[i].matched_tokens > w.rows[longest].matched_tokens)
                longest = i;
            if (right == UINT64_MAX || trees[i] < trees[right])
                right = i;
        }
        if (f.most - f.least > 64 && f.most > 1.5 * f.least) {
            right = f.fewest;
            rule = 0;
        } else if ((double)w.rows[longest].matched_tokens / (double)tokens > 0.3) {
            right = longest;
            rule = 1;
        }
        const struct mc_decision d = ask(&m, &w, tokens);
        if (d.prefill != w.rows[right].id)
            fail_msg("seed %d, rule %d: %d, not %d", (int)seed, rule, (int)d.prefill,
                     (int)w.rows[right].id);
        static const uint32_t reasons[] = { MC_REASON_LEAST_LOAD, MC_REASON_LOCAL_PREFIX,
                                            MC_REASON_POLICY };
        assert_int_equal(d.reason, only_one(&w, reasons[rule]));
        trees[right] += tokens - w.rows[right].matched_tokens;
        rules[rule]++;
        if (seed % 5 == 0) { /* some of it goes */
            const uint64_t at = seed % ROWS, blocks = seed % 30;
            observe(&m, (struct mc_sched_event){ .kind = MC_EVENT_EVICTED,
                                                 .blocks = { .id = 5 + 2 * at, .count = blocks } });
            trees[at] -= blocks * BLOCK < trees[at] ? blocks * BLOCK : trees[at];
        }
        if (seed % 97 == 0) {
            observe(&m, (struct mc_sched_event){ .kind = seed % 2 ? MC_EVENT_INSTANCE_GONE
                                                                  : MC_EVENT_BLOCKS_RESET,
                                                 .id = 5 + 2 * (seed % ROWS) });
            trees[seed % ROWS] = 0;
        }
        if (seed == 2001) {
            observe(&m, (struct mc_sched_event){ .kind = MC_EVENT_BLOCKS_RESET });
            memset(trees, 0, sizeof(trees));
        }
    }
    assert_true(rules[0] > 100 && rules[1] > 100 && rules[2] > 100);
    free(m.state);
}

/* What Preble placed, as a list. */
struct placed {
    uint64_t ns, row, reused, missed;
    double seconds;
};

static double past(const struct placed *list, uint32_t count, uint64_t row, uint64_t now_ns,
                   double *reused_p, double *missed_p)
{
    const uint64_t part = 15 * (uint64_t)SECOND; /* a twelfth of three minutes */
    double seconds = 0;

    *reused_p = *missed_p = 0;
    for (uint32_t i = 0; i < count; i++)
        if (list[i].row == row && now_ns / part - list[i].ns / part < 12) {
            seconds += list[i].seconds;
            *reused_p += (double)list[i].reused;
            *missed_p += (double)list[i].missed;
        }
    return seconds;
}

static void test_preble_is_as_published(void **state)
{
    (void)state;
    enum { TURNS = 3000 };
    const struct machine m = machine(&policy_preble, "");
    struct placed *list = calloc(TURNS, sizeof(*list));
    uint32_t kinds[3] = { 0 }, compared = 0, evicting = 0;
    uint64_t now_ns = 0;
    double answer = 0;

    assert_non_null(list);
    for (uint32_t turn = 0; turn < TURNS; turn++) {
        struct world w;
        double load[ROWS], cost[ROWS], least_load = 1e300;
        uint64_t longest = 0;

        now_ns += turn % 40 ? 3 * (uint64_t)SECOND / 10 : 60 * (uint64_t)SECOND;
        world_draw(&w, turn + 1, now_ns);
        const uint64_t tokens = 320 + turn * 11 % 400;
        for (uint64_t i = 0; i < w.view.count; i++) {
            const struct mc_view_instance *r = &w.rows[i];
            double reused, missed;

            if (!can(r))
                continue;
            load[i] = past(list, turn, i, now_ns, &reused, &missed) +
                      (double)r->running * answer * (double)r->tbt_ns / 1e9;
            cost[i] = load[i] + w.speed[i] * (double)(tokens - r->matched_tokens);
            const double more = (double)(tokens - r->matched_tokens) - (double)r->free_tokens;
            if (r->kv_tokens_max && more > 0 && reused + missed > 0) {
                cost[i] += w.speed[i] * more * reused / (reused + missed);
                evicting++;
            }
            least_load = fmin(least_load, load[i]);
            if (r->matched_tokens > longest)
                longest = r->matched_tokens;
        }
        int kind = longest >= tokens - longest && longest > 0;
        uint64_t right = UINT64_MAX;
        double margin;
        for (int again = 0; again < 2; again++) {
            right = UINT64_MAX;
            margin = 1e300;
            for (uint64_t i = 0; i < w.view.count; i++) {
                if (!can(&w.rows[i]) || (kind == 1 && w.rows[i].matched_tokens < longest))
                    continue;
                if (right == UINT64_MAX || cost[i] < cost[right]) {
                    margin = right == UINT64_MAX ? 1e300 : cost[right] - cost[i];
                    right = i;
                } else {
                    margin = fmin(margin, cost[i] - cost[right]);
                }
            }
            if (kind != 1 || load[right] <= 1.4 * least_load ||
                (double)w.rows[right].queue_ns / 1e9 <=
                    w.speed[right] * (double)(tokens - w.rows[right].matched_tokens))
                break;
            kind = 2;
        }
        const struct mc_decision d = ask(&m, &w, tokens);
        if (margin > 1e-4) { /* it keeps floats */
            compared++;
            if (d.prefill != w.rows[right].id)
                fail_msg("turn %d: %d, not %d", (int)turn, (int)d.prefill, (int)w.rows[right].id);
            assert_int_equal(d.reason,
                             only_one(&w, kind == 1 ? MC_REASON_LOCAL_PREFIX : MC_REASON_POLICY));
            kinds[kind]++;
        }
        const uint64_t at = (d.prefill - 5) / 2;
        const uint64_t reused = w.view.best_matched_tokens; /* its own or pulled */
        list[turn] = (struct placed){ now_ns, at, reused, tokens - reused,
                                      w.speed[at] * (double)(tokens - reused) };
        if (turn % 3 == 0) {
            const double was = answer;
            observe(&m, (struct mc_sched_event){ .kind = MC_EVENT_REQUEST_END,
                                                 .progress = { .tokens = 10 + turn % 50 } });
            answer = turn == 0 ? 10 : was + 0.05 * (10 + turn % 50 - was);
        }
    }
    assert_true(compared > 2000 && evicting > 200);
    assert_true(kinds[0] > 300 && kinds[1] > 300 && kinds[2] > 50);
    free(list);
    free(m.state);
}

/* -------------------------------------------------------------------------------------------- chance */

static void test_a_temperature_draws_by_weight(void **state)
{
    (void)state;
    const struct machine m = machine(&policy_dynamo, "temperature=0.5,pull=0");
    uint32_t at[3] = { 0 };
    struct world w;

    world_draw(&w, 1, 0);
    w.view.count = 3;
    for (uint64_t i = 0; i < 3; i++) /* 0, 50 and 100 blocks more: x = 0, 1/2, 1 */
        w.rows[i] = (struct mc_view_instance){ .id = 5 + 2 * i,
                                               .role = MC_ROLE_PREFILL,
                                               .queued_tokens = 50 * BLOCK * i };
    for (uint64_t seed = 0; seed < 20000; seed++) {
        w.seed = seed;
        const struct mc_decision d = ask(&m, &w, 160);
        assert_int_equal(d.reason, MC_REASON_CHANCE);
        at[(d.prefill - 5) / 2]++;
    }
    const double sum = 1 + exp(-1) + exp(-2);
    for (int i = 0; i < 3; i++)
        assert_true(fabs(at[i] / 20000.0 - exp(-i) / sum) < 0.015);
    free(m.state);
}

static void test_equal_scores_of_llm_d_are_drawn_evenly(void **state)
{
    (void)state;
    const struct machine m = machine(&policy_llm_d, "");
    uint32_t at[4] = { 0 };
    struct world w;

    world_draw(&w, 1, 0);
    w.view.count = 4;
    for (uint64_t i = 0; i < 4; i++)
        w.rows[i] = (struct mc_view_instance){ .id = 5 + 2 * i, .role = MC_ROLE_PREFILL };
    for (uint64_t seed = 0; seed < 8000; seed++) {
        w.seed = seed;
        at[(ask(&m, &w, 160).prefill - 5) / 2]++;
    }
    for (int i = 0; i < 4; i++)
        assert_in_range(at[i], 1800, 2200);
    free(m.state);
}

/* ------------------------------------------------------------------------------------- all of them */

static const struct mc_policy *const all[] = { &policy_local, &policy_dynamo, &policy_lmetric,
                                               &policy_llm_d, &policy_sglang, &policy_aibrix,
                                               &policy_preble };
enum { ALL = sizeof(all) / sizeof(all[0]) };

static void test_where_nobody_can_all_refuse(void **state)
{
    (void)state;
    for (size_t i = 0; i < ALL; i++) {
        const struct machine m = machine(all[i], NULL);
        struct world w;

        world_draw(&w, 3, 0);
        for (uint64_t r = 0; r < w.view.count; r++)
            w.rows[r].role = r % 2 ? MC_ROLE_STORE : MC_ROLE_DECODE;
        for (int turn = 0; turn < 2; turn++) { /* and then none at all */
            const struct mc_decision d = ask(&m, &w, 100);
            assert_int_equal(d.kind, MC_DECIDE_REFUSE);
            assert_int_equal(d.reason, MC_REASON_NO_INSTANCE);
            w.view.count = 0;
        }
        free(m.state);
    }
}

static void test_all_are_found_by_name_and_say_what_they_take(void **state)
{
    (void)state;
    for (size_t i = 0; i < ALL; i++) {
        struct mc_error error = { 0 };
        void *room = calloc(1, all[i]->state_bytes + 1);

        assert_non_null(room);
        assert_ptr_equal(policy_find(all[i]->name, NULL, 0, &error), all[i]);
        assert_true(strlen(all[i]->summary) > 10);
        if (all[i]->init) {
            assert_int_equal(all[i]->init(room, "nonsense=1", &error), MC_E_ARG);
            assert_non_null(strstr(error.text, "nonsense"));
            assert_int_equal(all[i]->init(room, "pull=2", &error), MC_E_ARG);
        }
        free(room);
    }
    struct mc_error error = { 0 };
    assert_null(policy_find("dynam", NULL, 0, &error));
    for (size_t i = 0; i < ALL; i++) /* none is cut off */
        assert_non_null(strstr(error.text, all[i]->name));
}

static void test_a_tally_gives_each_id_its_own_slot(void **state)
{
    (void)state;
    struct tally *t = calloc(1, sizeof(*t));
    uint8_t *taken = calloc(1, TALLY_MAX);
    struct prng prng = { .seed = 4 };

    assert_non_null(t);
    assert_non_null(taken);
    tally_init(t);
    for (uint64_t id = 1; id <= TALLY_MAX; id++) {
        const uint32_t slot = tally_take(t, id * 3 % 8191);
        assert_in_range(slot, 0, TALLY_MAX - 1);
        assert_false(taken[slot]++);
        assert_int_equal(tally_take(t, id * 3 % 8191), slot);
    }
    assert_int_equal(tally_take(t, 100000), TALLY_NONE);
    for (int i = 0; i < 2000; i++) { /* drop one, take another: the slots stay a permutation */
        const uint64_t id = prng_below(&prng, TALLY_MAX) + 1;
        const uint32_t slot = tally_find(t, id * 3 % 8191);
        if (slot == TALLY_NONE)
            continue;
        tally_drop(t, id * 3 % 8191);
        assert_int_equal(tally_find(t, id * 3 % 8191), TALLY_NONE);
        assert_int_equal(tally_take(t, 20000 + (uint64_t)i), slot);
    }
    tally_drop(t, 99999); /* not there */
    assert_int_equal(t->count, TALLY_MAX);
    free(taken);
    free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formulas_of_one_number_are_as_published),
        cmocka_unit_test(test_aibrix_is_as_published),
        cmocka_unit_test(test_sglang_is_as_published),
        cmocka_unit_test(test_preble_is_as_published),
        cmocka_unit_test(test_a_temperature_draws_by_weight),
        cmocka_unit_test(test_equal_scores_of_llm_d_are_drawn_evenly),
        cmocka_unit_test(test_where_nobody_can_all_refuse),
        cmocka_unit_test(test_all_are_found_by_name_and_say_what_they_take),
        cmocka_unit_test(test_a_tally_gives_each_id_its_own_slot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
