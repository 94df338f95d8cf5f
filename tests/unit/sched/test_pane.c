/*
 * test_pane.c - what is kept between decisions against the same computed from scratch.
 *
 * A policy of the test's own is shown the view at each decision. It computes every row the long way, from what the
 * cluster holds, and asks every function for every row; then it lets Algorithm 1 place, and chooses itself the long way: both
 * choose the same. The events are random: leases
 * end, instances drain, go, come back and change, costs are learnt, blocks come and go, models take turns.
 */
#include "fixture.h"

#include "base/prng.h"
#include "kv/index.h"
#include "sched/place.h"
#include "sched/policy.h"

enum { INSTANCES = 20, CHAINS = 6, LENGTH = 24, BLOCK = 16, SECOND_MS = 1000 };

static struct mc_key chains[CHAINS][LENGTH];
static uint64_t looked_at;               /* decisions that were checked */
static uint64_t pulls, locals, refusals; /* of these */
static double threshold, overlap;
static bool all_learn;

/* ------------------------------------------------------------------------------------- the long way */

/* What the scheduler's view would be if nothing were kept. */
struct scratch {
    const struct place *place;
    uint64_t count;
    uint32_t cells[INSTANCES];
    struct mc_view_instance rows[INSTANCES];
    const struct cost *lender[4]; /* prefill, step, local, remote */
    uint32_t blocks[INSTANCES], held[INSTANCES], holders[INSTANCES];
    struct kv_match match;
    uint64_t best;
};

static const struct instance *instance_at(const struct scratch *s, uint64_t row)
{
    return &s->place->sched->cluster.instances[s->cells[row]];
}

static const struct cost *prefill_cost(const struct scratch *s, uint64_t row)
{
    const struct cost *own = &instance_at(s, row)->cost;

    return cost_knows_prefill(own) ? own : s->lender[0] ? s->lender[0] : &cost_nominal;
}

static const struct cost *step_cost(const struct scratch *s, uint64_t row)
{
    const struct cost *own = &instance_at(s, row)->cost;

    return cost_knows_step(own) ? own : s->lender[1] ? s->lender[1] : &cost_nominal;
}

static uint64_t prefill_ns(const struct scratch *s, uint64_t row, uint64_t tokens, uint64_t reused)
{
    const struct cost *cost = prefill_cost(s, row);

    return cost_ns(cost_prefill(cost, tokens, reused < tokens ? reused : tokens - 1) *
                   cost_prefill_pace(cost, s->place->view.now_ns));
}

static uint64_t tbt_ns(const struct scratch *s, uint64_t row, uint64_t sequences, uint64_t tokens)
{
    const struct cost *cost = step_cost(s, row);

    return cost_ns(
        cost_step(cost, s->rows[row].running + sequences, s->rows[row].context_tokens + tokens) *
        cost_step_pace(cost, s->place->view.now_ns));
}

static uint64_t transfer_ns(const struct scratch *s, uint64_t from, uint64_t to, uint64_t tokens)
{
    const struct instance *sender = instance_at(s, from), *receiver = instance_at(s, to);
    const enum cost_link link = sched_link(sender, receiver);
    const uint64_t bytes = tokens * receiver->info.kv_token_bytes;
    const bool receiver_knows = cost_knows_link(&receiver->cost, link);
    const bool sender_knows = sender->cost.given.bytes_per_s > 0;
    const double in = receiver_knows ? cost_transfer(&receiver->cost, link, bytes) : 0;
    const double out = sender_knows ? cost_transfer(&sender->cost, link, bytes) : 0;
    const struct cost *other = s->lender[2 + link] ? s->lender[2 + link] : &cost_nominal;
    const uint64_t send = s->rows[from].send_busy_ns, receive = s->rows[to].receive_busy_ns;

    return cost_ns(!receiver_knows && !sender_knows ? cost_transfer(other, link, bytes)
                   : in > out                       ? in
                                                    : out) +
           (send > receive ? send : receive);
}

static uint64_t holder_of(const struct scratch *s, uint64_t to, uint64_t tokens)
{
    uint64_t best = UINT64_MAX, best_ns = 0, most = UINT64_MAX;
    uint32_t most_held = 0;

    for (uint64_t row = 0; row < s->count; row++) {
        const uint32_t cell = s->cells[row];

        if (row == to || (s->blocks[cell] == 0 && s->held[cell] == 0))
            continue;
        if (s->rows[row].matched_tokens >= tokens) {
            const uint64_t ns = transfer_ns(s, row, to, tokens);
            if (best == UINT64_MAX || ns < best_ns) {
                best = row;
                best_ns = ns;
            }
        }
        if (s->held[cell] > most_held) {
            most = row;
            most_held = s->held[cell];
        }
    }
    return best != UINT64_MAX                          ? best
           : (uint64_t)s->match.pool * BLOCK >= tokens ? most
                                                       : UINT64_MAX;
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

static bool can_prefill(const struct instance *i, const struct mc_sched_request *request)
{
    const uint64_t most = i->info.kv_tokens_max;

    return (i->info.role & MC_ROLE_PREFILL) != 0 && !i->draining && i->info.id != request->barred &&
           (most == 0 || request->tokens < most);
}

static void scratch_row(struct scratch *s, uint32_t cell)
{
    const struct cluster *cluster = &s->place->sched->cluster;
    const struct instance *i = &cluster->instances[cell];
    const struct cluster_figures f = cluster_figures(cluster, cell);
    const uint64_t now = s->place->view.now_ns;
    const bool is_store = i->info.role == MC_ROLE_STORE;

    assert_false(i->reported && now >= i->load_until_ns); /* its lease is over */
    s->cells[s->count] = cell;
    s->rows[s->count++] = (struct mc_view_instance){
        .id = i->info.id,
        .host = i->info.host,
        .model = i->info.model,
        .role = is_store ? (uint32_t)MC_ROLE_STORE
                         : (i->info.role & MC_ROLE_DECODE) |
                               (can_prefill(i, s->place->request) ? MC_ROLE_PREFILL : 0u),
        .flags = (i->draining ? MC_VIEW_DRAINING : 0u) |
                 (i->ever_reported && !i->reported ? MC_VIEW_EXPIRED : 0u),
        .matched_tokens = (uint64_t)s->blocks[cell] * BLOCK,
        .queue_ns = cluster_queue_ns(cluster, cell, now),
        .queued = f.queued,
        .queued_tokens = f.queued_tokens,
        .running = f.running,
        .context_tokens = f.context_tokens,
        .free_tokens = f.free_tokens,
        .kv_tokens_max = i->info.kv_tokens_max,
        .sequences_max = i->info.sequences_max,
        .send_busy_ns = less(i->send_until_ns, now),
        .receive_busy_ns = less(i->receive_until_ns, now),
        .last_ns = i->last_ns,
    };
    const struct cost *cost = &i->cost;
    const bool knows[4] = { cost_knows_prefill(cost), cost_knows_step(cost),
                            cost_knows_link(cost, COST_LOCAL), cost_knows_link(cost, COST_REMOTE) };
    for (int k = 0; k < 4; k++)
        if (!s->lender[k] && knows[k] && !is_store)
            s->lender[k] = cost;
}

static void scratch_fill(struct scratch *s, const struct place *place)
{
    const mc_sched *sched = place->sched;
    const struct mc_sched_request *request = place->request;
    const uint64_t reusable = (request->tokens - 1) / BLOCK;

    *s = (struct scratch){ .place = place };
    s->match = (struct kv_match){ .blocks = s->blocks, .held = s->held, .holders = s->holders };
    kv_index_match(sched->index, request->keys,
                   request->key_count < reusable ? request->key_count : reusable, sched->pooled,
                   &s->match);
    s->best = (uint64_t)s->match.pool * BLOCK;
    for (uint32_t at = 0; at < sched->cluster.count; at++) {
        const uint32_t cell = sched->cluster.order[at];
        const struct mc_sched_instance *info = &sched->cluster.instances[cell].info;

        if (info->role != MC_ROLE_STORE && info->model != request->model)
            continue;
        scratch_row(s, cell);
        if (s->rows[s->count - 1].matched_tokens > s->best)
            s->best = s->rows[s->count - 1].matched_tokens;
    }
    for (uint64_t row = 0; row < s->count; row++)
        if (s->rows[row].role != MC_ROLE_STORE && s->rows[row].running > 0)
            s->rows[row].tbt_ns = tbt_ns(s, row, 0, 0);
}

/* ------------------------------------------------------------------------------------------- compare */

static void check_answers(const struct mc_view *view, const struct scratch *s, uint64_t tokens)
{
    for (uint64_t row = 0; row < s->count; row++) {
        for (uint64_t other = 0; other < s->count; other++)
            assert_int_equal(view->transfer_ns(view, other, row, tokens),
                             transfer_ns(s, other, row, tokens));
        assert_int_equal(view->prefill_ns(view, row, tokens + 100, tokens),
                         prefill_ns(s, row, tokens + 100, tokens));
        assert_int_equal(view->tbt_ns(view, row, 1, tokens), tbt_ns(s, row, 1, tokens));
        if (tokens > 0)
            assert_int_equal(view->holder(view, row, tokens), holder_of(s, row, tokens));
    }
}

/* What the kinds promise. */
static void check_kinds(const struct mc_view *view, const struct scratch *s)
{
    for (uint64_t a = 0; a < s->count; a++)
        for (uint64_t b = 0; b < a; b++) {
            if (view->kinds[a] == 0 || view->kinds[a] != view->kinds[b])
                continue;
            assert_int_equal(prefill_ns(s, a, 300, 40), prefill_ns(s, b, 300, 40));
            if (s->rows[a].matched_tokens != s->rows[b].matched_tokens)
                continue;
            const uint64_t more = s->rows[a].matched_tokens + BLOCK;
            const uint64_t from = holder_of(s, a, more);
            assert_int_equal(from, holder_of(s, b, more));
            if (from != UINT64_MAX)
                assert_int_equal(transfer_ns(s, from, a, more), transfer_ns(s, from, b, more));
        }
}

/* What is said of all at once is what is said of each. */
static void check_columns(const struct mc_view *view, const struct scratch *s, uint64_t tokens)
{
    const struct mc_view_columns *c = view->columns;
    const struct mc_view_work *work = view->work(view);
    uint64_t matched = 0;

    for (uint64_t row = 0; row < s->count; row++) {
        const struct mc_view_instance *r = &s->rows[row];
        const bool can = (r->role & MC_ROLE_PREFILL) != 0;

        assert_int_equal(c->queue_ns[row], can ? r->queue_ns : MC_VIEW_NEVER);
        assert_int_equal(c->last_ns[row], r->last_ns);
        assert_int_equal(work->rest_ns[row], prefill_ns(s, row, tokens, s->best));
        if (matched < c->matched_count && c->matched[matched] == row)
            matched++;
        else
            assert_int_equal(r->matched_tokens, 0);
        if (s->best != 0 && r->matched_tokens == 0 && holder_of(s, row, s->best) != UINT64_MAX)
            assert_true(work->pull_ns[row] <=
                        transfer_ns(s, holder_of(s, row, s->best), row, s->best));
    }
    assert_int_equal(matched, c->matched_count);
    assert_ptr_equal(view->work(view), work);
}

/* Algorithm 1, of every instance one after the other, the long way. */
struct naive_choice {
    uint64_t row, holder, ns; /* UINT64_MAX: none */
};

static struct naive_choice brute_force(const struct scratch *s, uint64_t tokens)
{
    struct naive_choice best = { UINT64_MAX, UINT64_MAX, 0 };

    for (uint64_t row = 0; row < s->count; row++) {
        const struct mc_view_instance *r = &s->rows[row];
        const uint64_t own = r->matched_tokens;
        uint64_t holder = UINT64_MAX, ns = r->queue_ns;

        if ((r->role & MC_ROLE_PREFILL) == 0)
            continue;
        if (s->best > own && (own == 0 || (double)s->best > threshold * (double)own))
            holder = holder_of(s, row, s->best);
        if (holder != UINT64_MAX) {
            const uint64_t pull = transfer_ns(s, holder, row, s->best - own);
            ns = overlap > 0 ? (pull > ns ? pull : ns) : ns + pull;
        }
        ns += prefill_ns(s, row, tokens, holder == UINT64_MAX ? own : s->best);
        if (best.row == UINT64_MAX || ns < best.ns ||
            (ns == best.ns && r->last_ns < s->rows[best.row].last_ns))
            best = (struct naive_choice){ row, holder, ns };
    }
    return best;
}

static void check_choice(const struct scratch *s, uint64_t tokens, const struct mc_decision *d)
{
    const struct naive_choice right = brute_force(s, tokens);

    if (right.row == UINT64_MAX) {
        assert_int_equal(d->kind, MC_DECIDE_REFUSE);
        refusals++;
        return;
    }
    assert_int_equal(d->kind, MC_DECIDE_PLACE);
    assert_int_equal(d->prefill, s->rows[right.row].id);
    assert_int_equal(d->holder, right.holder == UINT64_MAX ? 0 : s->rows[right.holder].id);
    assert_int_equal(d->pull_tokens, right.holder == UINT64_MAX ? 0 : s->best);
    assert_true(d->score >= (double)right.ns / 1e9 && d->score <= (double)right.ns / 1e9);
    pulls += right.holder != UINT64_MAX;
    locals += right.holder == UINT64_MAX && s->rows[right.row].matched_tokens != 0;
}

static void place(void *state, const struct mc_view *view, const struct mc_sched_request *request,
                  struct mc_decision *decision)
{
    static struct scratch s;

    scratch_fill(&s, view->context);
    assert_int_equal(view->count, s.count);
    assert_int_equal(view->best_matched_tokens, s.best);
    assert_memory_equal(view->instances, s.rows, s.count * sizeof(s.rows[0]));
    check_answers(view, &s, s.best);
    check_answers(view, &s, BLOCK);
    check_answers(view, &s, s.best);
    check_kinds(view, &s);
    check_columns(view, &s, request->tokens);
    looked_at++;
    policy_algorithm1.place(state, view, request, decision);
    check_choice(&s, request->tokens, decision);
}

static mc_status init(void *state, const char *parameters, struct mc_error *error)
{
    return policy_algorithm1.init(state, parameters, error);
}

/* -------------------------------------------------------------------------------------------- events */

static bool one_in(struct prng *prng, uint32_t n)
{
    return prng_below(prng, n) == 0;
}

static void instance_event(struct prng *prng, struct mc_sched_event *e, uint64_t id)
{
    static const uint32_t roles[] = { MC_ROLE_PREFILL, MC_ROLE_PREFILL, MC_ROLE_DECODE,
                                      MC_ROLE_BOTH,    MC_ROLE_BOTH,    MC_ROLE_STORE };

    e->kind = MC_EVENT_INSTANCE;
    e->instance =
        (struct mc_sched_instance){ .id = id,
                                    .role = roles[prng_below(prng, 6)],
                                    .host = prng_below(prng, 4),
                                    .kv_tokens_max =
                                        one_in(prng, 5) ? 0 : 500 + prng_below(prng, 4000),
                                    .sequences_max = one_in(prng, 2) ? 0 : 6,
                                    .kv_token_bytes = 1000 << prng_below(prng, 2),
                                    .model = one_in(prng, 4) };
    if (all_learn || one_in(prng, 2))
        return; /* costs to be learnt */
    e->instance.cost = (struct mc_cost){ .p0 = 1e-3,
                                         .p1 = 1e-5 * (1 + prng_below(prng, 2)),
                                         .p3 = 1e-7,
                                         .d0 = 1e-2,
                                         .d1 = 1e-3,
                                         .t0 = one_in(prng, 2) ? 1e-3 : 0,
                                         .bytes_per_s = one_in(prng, 3) ? 0 : 1e9,
                                         .load_bytes_per_s = one_in(prng, 3) ? 5e9 : 0 };
}

static void request_event(struct prng *prng, struct mc_sched_event *e, uint64_t *last, uint64_t id)
{
    const uint32_t keys = prng_below(prng, LENGTH + 1);

    e->kind = MC_EVENT_REQUEST;
    e->request =
        (struct mc_sched_request){ .id = ++*last,
                                   .tokens = (uint64_t)keys * BLOCK + 1 + prng_below(prng, 200) +
                                             (one_in(prng, 20) ? 2000 : 0),
                                   .keys = chains[prng_below(prng, CHAINS)],
                                   .key_count = keys,
                                   .model = one_in(prng, 4),
                                   .barred = one_in(prng, 4) ? id : 0,
                                   .barred_decode = one_in(prng, 4) ? id : 0 };
}

static void load_event(struct prng *prng, struct mc_sched_event *e, uint64_t request, uint64_t id)
{
    e->kind = MC_EVENT_LOAD;
    e->load =
        (struct mc_sched_load){ .id = id,
                                .lease_ns = one_in(prng, 8) ? UINT64_MAX
                                                            : (uint64_t)prng_below(prng, 900) * MS,
                                .queued = prng_below(prng, 3),
                                .queued_tokens = prng_below(prng, 3) * 700,
                                .running = prng_below(prng, 8),
                                .context_tokens = prng_below(prng, 3000),
                                .free_tokens = prng_below(prng, 5000),
                                .send_bytes = one_in(prng, 3) ? prng_below(prng, 1 << 24) : 0,
                                .receive_bytes = one_in(prng, 3) ? prng_below(prng, 1 << 24) : 0,
                                .latest = one_in(prng, 2) ? request : 0 };
}

static void blocks_event(struct prng *prng, struct mc_sched_event *e, uint64_t id, uint32_t kind)
{
    const uint32_t from = one_in(prng, 2) ? 0 : prng_below(prng, LENGTH);

    e->kind = kind;
    e->blocks = (struct mc_sched_blocks){ .id = id,
                                          .keys = chains[prng_below(prng, CHAINS)] + from,
                                          .count = prng_below(prng, LENGTH + 1 - from) };
}

static void progress_event(struct prng *prng, struct mc_sched_event *e, uint64_t request,
                           uint64_t id)
{
    static const uint32_t kinds[] = { MC_EVENT_PREFILL_BEGIN, MC_EVENT_PREFILL_END,
                                      MC_EVENT_PREFILL_END,   MC_EVENT_DECODE_BEGIN,
                                      MC_EVENT_REQUEST_END,   MC_EVENT_DECODE_STEP,
                                      MC_EVENT_MEASURED };

    e->kind = kinds[prng_below(prng, 7)];
    e->progress = (struct mc_sched_progress){ .request = request,
                                              .id = id,
                                              .tokens = prng_below(prng, 900),
                                              .reused = prng_below(prng, 100),
                                              .sequences = prng_below(prng, 5),
                                              .duration_ns = prng_below(prng, 40 * MS) };
    if (e->kind == MC_EVENT_DECODE_STEP || e->kind == MC_EVENT_MEASURED)
        e->progress.request = 0;
}

static struct mc_sched_event random_event(struct prng *prng, uint64_t *last)
{
    const uint64_t id = 1 + prng_below(prng, INSTANCES), some = 1 + prng_below(prng, 30);
    const uint64_t request = *last > some ? *last - some : 1;
    const uint32_t what = prng_below(prng, 100);
    struct mc_sched_event e = { .kind = MC_EVENT_TICK };

    if (what < 3)
        instance_event(prng, &e, id);
    else if (what < 6)
        e = (struct mc_sched_event){ .kind = what == 3   ? MC_EVENT_INSTANCE_GONE
                                             : what == 4 ? MC_EVENT_INSTANCE_DRAIN
                                                         : MC_EVENT_BLOCKS_RESET,
                                     .id = id };
    else if (what < 18)
        load_event(prng, &e, request, id);
    else if (what < 34)
        blocks_event(prng, &e, id, what < 28 ? MC_EVENT_STORED : MC_EVENT_EVICTED);
    else if (what < 68)
        request_event(prng, &e, last, id);
    else if (what < 97)
        progress_event(prng, &e, request, id);
    else
        e = (struct mc_sched_event){ .kind = MC_EVENT_TRANSFER_END,
                                     .transfer = { .from = id,
                                                   .to = 1 + prng_below(prng, INSTANCES),
                                                   .bytes = prng_below(prng, 1 << 24),
                                                   .duration_ns = prng_below(prng, 40 * MS) } };
    return e;
}

static void play(uint64_t seed, uint32_t events)
{
    const struct mc_policy spy = { .name = "spy",
                                   .summary = "looks at everything",
                                   .state_bytes = 64,
                                   .init = init,
                                   .place = place };
    struct prng prng = { .seed = seed };
    struct play p;
    uint64_t last = 0;

    assert_true(policy_algorithm1.state_bytes <= spy.state_bytes);
    threshold = seed % 3 == 2 ? 3 : 1.2;
    overlap = seed % 3 == 1;
    all_learn = seed % 4 == 2;
    play_open(
        &p, &(struct mc_sched_options){ .policy = "spy",
                                        .policies = &spy,
                                        .policy_count = 1,
                                        .policy_parameters = overlap > 0     ? "overlap=1"
                                                             : threshold > 2 ? "threshold=3"
                                                                             : "",
                                        .instances_max = INSTANCES,
                                        .requests_max = 2048,
                                        .slo = { .ttft_ns = seed % 2 ? 800 * (uint64_t)MS : 0 } });
    const long calls = p.faulty.calls;
    for (uint64_t id = 1; id <= INSTANCES; id++) {
        struct mc_sched_event e = { 0 };
        instance_event(&prng, &e, id);
        assert_int_equal(play_step(&p, e), MC_OK);
    }
    for (uint32_t i = 0; i < events; i++) {
        const struct mc_sched_event e = random_event(&prng, &last);
        struct mc_decision decisions[64];
        size_t count = 0;

        p.now_ns += one_in(&prng, 30) ? (uint64_t)prng_below(&prng, 2 * SECOND_MS) * MS
                                      : prng_below(&prng, 6 * MS);
        (void)!play_step(&p, e); /* many contradict the state, which is skipped */
        while (mc_sched_take(p.sched, decisions, 64, &count) == MC_OK)
            continue;
    }
    assert_int_equal(p.faulty.calls, calls); /* nothing is allocated on the way */
    play_close(&p);
}

static void test_what_is_kept_is_what_would_be_computed(void **state)
{
    (void)state;
    for (uint32_t chain = 0; chain < CHAINS; chain++) {
        play_keys(chains[chain], LENGTH, (uint8_t)(chain + 1));
        if (chain % 2) /* the first half is that of the one before */
            memcpy(chains[chain], chains[chain - 1], LENGTH / 2 * sizeof(chains[0][0]));
    }
    for (uint64_t seed = 0; seed < 12; seed++)
        play(seed, 1500);
    assert_true(looked_at > 4000 && pulls > 500 && locals > 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_kept_is_what_would_be_computed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
