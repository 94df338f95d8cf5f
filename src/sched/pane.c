/* pane.c - fill a pane, and keep it right as time goes by. */
#include "sched/pane.h"

#include <string.h>

#include "base/alloc.h"
#include "sched/row.h"

/* ------------------------------------------------------------------------------------------- life */

static mc_status pane_init(struct pane *p, const struct mc_alloc *alloc, uint32_t max)
{
    p->cells = alloc_resize(alloc, NULL, max, sizeof(*p->cells));
    p->row_of = alloc_resize(alloc, NULL, max, sizeof(*p->row_of));
    p->rows = alloc_resize(alloc, NULL, max, sizeof(*p->rows));
    p->lines = alloc_resize(alloc, NULL, max, sizeof(*p->lines));
    p->prices = alloc_resize(alloc, NULL, max, sizeof(*p->prices));
    p->steps = alloc_resize(alloc, NULL, max, sizeof(*p->steps));
    p->prefill_paces = alloc_resize(alloc, NULL, max, sizeof(*p->prefill_paces));
    p->step_paces = alloc_resize(alloc, NULL, max, sizeof(*p->step_paces));
    p->links = alloc_resize(alloc, NULL, max, sizeof(*p->links));
    p->lasts = alloc_resize(alloc, NULL, max, sizeof(*p->lasts));
    p->rest = alloc_resize(alloc, NULL, max, sizeof(*p->rest));
    p->taken_in = alloc_resize(alloc, NULL, max, sizeof(*p->taken_in));
    p->kinds = alloc_resize(alloc, NULL, max, sizeof(*p->kinds));
    p->alike = alloc_resize(alloc, NULL, max, sizeof(*p->alike));
    p->clocks = alloc_resize(alloc, NULL, max, sizeof(*p->clocks));
    p->ticks = alloc_resize(alloc, NULL, max, sizeof(*p->ticks));
    p->queues = alloc_resize(alloc, NULL, max, sizeof(*p->queues));
    p->cannot = alloc_resize(alloc, NULL, max, sizeof(*p->cannot));
    p->busy = alloc_resize(alloc, NULL, max, sizeof(*p->busy));
    p->berths = alloc_resize(alloc, NULL, max, sizeof(*p->berths));
    p->slots = alloc_resize(alloc, NULL, max, sizeof(*p->slots));
    p->holders = alloc_resize(alloc, NULL, max, sizeof(*p->holders));
    p->knows = alloc_resize(alloc, NULL, max, sizeof(*p->knows));
    return p->clocks && p->ticks && p->queues && p->cannot && p->busy && p->berths && p->slots &&
                   p->cells && p->row_of && p->rows && p->lines && p->prices && p->steps &&
                   p->prefill_paces && p->step_paces && p->links && p->lasts && p->rest &&
                   p->taken_in && p->holders && p->kinds && p->alike && p->knows
               ? MC_OK
               : MC_E_NOMEM;
}

static void pane_fini(struct pane *p, const struct mc_alloc *alloc)
{
    alloc_free(alloc, p->knows);
    alloc_free(alloc, p->holders);
    alloc_free(alloc, p->alike);
    alloc_free(alloc, p->slots);
    alloc_free(alloc, p->berths);
    alloc_free(alloc, p->busy);
    alloc_free(alloc, p->cannot);
    alloc_free(alloc, p->queues);
    alloc_free(alloc, p->ticks);
    alloc_free(alloc, p->clocks);
    alloc_free(alloc, p->kinds);
    alloc_free(alloc, p->taken_in);
    alloc_free(alloc, p->rest);
    alloc_free(alloc, p->lasts);
    alloc_free(alloc, p->links);
    alloc_free(alloc, p->step_paces);
    alloc_free(alloc, p->prefill_paces);
    alloc_free(alloc, p->steps);
    alloc_free(alloc, p->prices);
    alloc_free(alloc, p->lines);
    alloc_free(alloc, p->rows);
    alloc_free(alloc, p->row_of);
    alloc_free(alloc, p->cells);
}

mc_status panes_init(struct panes *panes, const struct mc_alloc *alloc, uint32_t instances_max)
{
    *panes = (struct panes){ .alloc = alloc, .instances_max = instances_max };
    for (int i = 0; i < PANES; i++)
        if (pane_init(&panes->all[i], alloc, instances_max) != MC_OK)
            return MC_E_NOMEM;
    return MC_OK;
}

void panes_fini(struct panes *panes)
{
    for (int i = 0; panes->alloc && i < PANES; i++)
        pane_fini(&panes->all[i], panes->alloc);
    *panes = (struct panes){ 0 };
}

/* ------------------------------------------------------------------------------------ from scratch */

static void expire(struct cluster *cluster, const struct pane *pane, uint32_t row, uint64_t now_ns)
{
    cluster_expire(cluster, pane->cells[row], now_ns);
}

static void choose_rows(struct pane *pane, const struct cluster *cluster, uint32_t instances_max)
{
    memset(pane->row_of, 0xff, instances_max * sizeof(*pane->row_of)); /* CLUSTER_NONE */
    pane->count = 0;
    for (uint32_t at = 0; at < cluster->count; at++) {
        const uint32_t cell = cluster->order[at];
        const struct mc_sched_instance *info = &cluster->instances[cell].info;

        if (info->role != MC_ROLE_STORE && info->model != pane->model)
            continue;
        pane->row_of[cell] = pane->count;
        pane->cells[pane->count++] = cell;
    }
}

static void fill(struct pane *pane, struct cluster *cluster, uint32_t instances_max,
                 uint64_t now_ns)
{
    choose_rows(pane, cluster, instances_max);
    pane->paced = pane->prefills = 0;
    pane->prefill_kind_count = pane->link_kind_count = 0;
    pane->bent = false;
    pane->holder_count = 0;
    pane->least_tokens_max = pane->first_report_until_ns = UINT64_MAX;
    pane->busy_count = 0;
    for (uint32_t row = 0; row < pane->count; row++) {
        expire(cluster, pane, row, now_ns);
        pane->rows[row].role = 0;
        pane->lines[row].paced = 0;
        pane->lines[row].busy = false;
        row_fill(pane, cluster, row);
        pane->knows[row] = row_knows(&cluster->instances[pane->cells[row]].cost);
        if (pane->rows[row].kv_tokens_max != 0 &&
            pane->rows[row].kv_tokens_max < pane->least_tokens_max)
            pane->least_tokens_max = pane->rows[row].kv_tokens_max;
    }
    row_find_lenders(pane);
    for (uint32_t row = 0; row < pane->count; row++)
        row_fill_price(pane, cluster, row);
    pane->filled = true;
    pane->members = cluster->members;
    pane->changes = cluster->changes;
}

/* ---------------------------------------------------------------------------------------- from now on */

static void refresh(struct pane *pane, const struct cluster *cluster, uint32_t row)
{
    row_fill(pane, cluster, row);
    row_learn(pane, cluster, row);
}

static void take_in_changes(struct pane *pane, const struct cluster *cluster)
{
    for (uint64_t at = pane->changes; at < cluster->changes; at++) {
        const uint32_t row = pane->row_of[cluster->changed[at & cluster->changed_mask]];

        if (row != CLUSTER_NONE && pane->taken_in[row] <= at)
            refresh(pane, cluster, row);
    }
    pane->changes = cluster->changes;
}

static void expire_reports(struct pane *pane, struct cluster *cluster, uint64_t now_ns)
{
    pane->first_report_until_ns = UINT64_MAX;
    for (uint32_t row = 0; row < pane->count; row++) {
        const uint64_t until_ns = pane->lines[row].report_until_ns;

        if (now_ns >= until_ns && until_ns != UINT64_MAX) {
            expire(cluster, pane, row, now_ns);
            refresh(pane, cluster, row);
        } else if (until_ns < pane->first_report_until_ns) {
            pane->first_report_until_ns = until_ns;
        }
    }
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/* Few are busy: the others' rows say so already. Who receives is like no other. */
static void let_links_go_on(struct pane *pane, uint64_t now_ns)
{
    for (uint32_t i = 0; i < pane->busy_count;) {
        const uint32_t row = pane->busy[i];
        struct mc_view_instance *r = &pane->rows[row];

        r->send_busy_ns = less(pane->lines[row].send_until_ns, now_ns);
        r->receive_busy_ns = less(pane->lines[row].receive_until_ns, now_ns);
        pane->alike[row] = r->receive_busy_ns != 0 ? 0 : row_alike(pane, row);
        if (r->send_busy_ns != 0 || r->receive_busy_ns != 0) {
            i++;
            continue;
        }
        pane->lines[row].busy = false;
        pane->busy[i] = pane->busy[--pane->busy_count];
    }
}

/* These two are the hot path: for all rows, at each decision. */
static void let_clocks_go_on(struct pane *pane, uint64_t now_ns)
{
    const struct clock *clocks = pane->clocks;
    const uint64_t *cannot = pane->cannot;
    uint64_t *queues = pane->queues;
    struct mc_view_instance *rows = pane->rows;

    for (uint32_t row = 0, count = pane->count; row < count; row++) {
        const int64_t left = clocks[row].until_ns - (int64_t)now_ns, least = clocks[row].least_ns;
        const uint64_t ns = (uint64_t)(left > least ? left : least);

        rows[row].queue_ns = ns;
        queues[row] = ns | cannot[row];
    }
}

/* Where somebody has a pace. Who has none has shares of 0. */
static void let_paces_go_on(struct pane *pane, uint64_t now_ns)
{
    const double left = cost_pace_left(now_ns);
    const uint64_t *cannot = pane->cannot;
    double *prefill_paces = pane->prefill_paces, *step_paces = pane->step_paces;
    uint64_t *queues = pane->queues;
    struct mc_view_instance *rows = pane->rows;

    for (uint32_t row = 0, count = pane->count; row < count; row++) {
        const struct tick *tick = &pane->ticks[row];
        const double pace = 1 + tick->queue_share * left, step = 1 + tick->step_share * left;
        const uint64_t gone = now_ns - tick->since_ns, first = cost_ns(tick->first_s * pace);
        const uint64_t ns = less(cost_ns(tick->queue_s * pace), gone < first ? gone : first);

        prefill_paces[row] = 1 + tick->prefill_share * left;
        step_paces[row] = step;
        rows[row].tbt_ns = cost_ns(tick->step_s * step);
        rows[row].queue_ns = ns;
        queues[row] = ns | cannot[row];
    }
}

static void let_time_pass(struct pane *pane, uint64_t now_ns)
{
    if (pane->paced != 0)
        let_paces_go_on(pane, now_ns);
    else
        let_clocks_go_on(pane, now_ns);
    let_links_go_on(pane, now_ns);
}

/* Shares are by the epoch. */
static void begin_epoch(struct pane *pane, uint64_t epoch)
{
    if (pane->epoch == epoch)
        return;
    pane->epoch = epoch;
    for (uint32_t row = 0; pane->filled && row < pane->count; row++)
        row_set_shares(pane, row);
}

/* The last request's part of the rows. */
static void undo_request(struct pane *pane)
{
    for (uint32_t i = 0; i < pane->holder_count; i++)
        pane->rows[pane->holders[i]].matched_tokens = 0;
    pane->holder_count = 0;
    for (uint32_t row = 0; pane->bent && row < pane->count; row++)
        row_set_role(pane, row, pane->lines[row].role);
    pane->bent = false;
}

static struct pane *pane_of(struct panes *panes, uint64_t model)
{
    struct pane *oldest = &panes->all[0];

    for (int i = 0; i < PANES; i++) {
        struct pane *pane = &panes->all[i];

        if (pane->filled && pane->model == model)
            return pane;
        if (pane->used_at < oldest->used_at)
            oldest = pane;
    }
    oldest->model = model;
    oldest->filled = false;
    return oldest;
}

struct pane *pane_open(struct panes *panes, struct cluster *cluster, uint64_t model,
                       uint64_t now_ns)
{
    struct pane *pane = pane_of(panes, model);

    cluster_settle(cluster, now_ns);
    cluster_price(cluster);
    pane->used_at = ++panes->decisions;
    begin_epoch(pane, cost_pace_epoch(now_ns));
    if (!pane->filled || pane->members != cluster->members ||
        cluster->changes - pane->changes > cluster->changed_mask) {
        fill(pane, cluster, panes->instances_max, now_ns);
    } else {
        undo_request(pane);
        take_in_changes(pane, cluster);
        if (now_ns >= pane->first_report_until_ns)
            expire_reports(pane, cluster, now_ns);
    }
    let_time_pass(pane, now_ns);
    return pane;
}

uint64_t pane_match(struct pane *pane, const struct kv_match *match, uint64_t block_tokens)
{
    const uint32_t *row_of = pane->row_of, *cells = match->holders;
    uint32_t *holders = pane->holders;
    uint32_t count = 0, last = 0;
    uint64_t most = 0;
    bool rising = true;

    for (uint32_t i = 0, all = match->count; i < all; i++) {
        const uint32_t row = row_of[cells[i]];

        if (row == CLUSTER_NONE)
            continue;
        const uint64_t tokens = match->blocks[cells[i]] * block_tokens;
        rising &= row >= last;
        last = row;
        holders[count++] = row;
        pane->rows[row].matched_tokens = tokens;
        most = tokens > most ? tokens : most;
    }
    pane->holder_count = count;
    if (!rising) { /* cells are mostly in order of ids; here they are not */
        pane->holder_count = 0;
        for (uint32_t row = 0; row < pane->count; row++)
            if (match->blocks[pane->cells[row]] != 0 || match->held[pane->cells[row]] != 0)
                holders[pane->holder_count++] = row;
    }
    return most;
}

void pane_bend(struct pane *pane, uint64_t tokens, uint64_t barred)
{
    if (barred == 0 && tokens < pane->least_tokens_max)
        return;
    pane->bent = true;
    for (uint32_t row = 0; row < pane->count; row++) {
        const struct mc_view_instance *r = &pane->rows[row];
        const bool fits = r->kv_tokens_max == 0 || tokens < r->kv_tokens_max; /* and one more */

        if (!fits || r->id == barred)
            row_set_role(pane, row, r->role & ~(uint32_t)MC_ROLE_PREFILL);
    }
}

/* Of one kind, which has no pace; or of a row. */
static uint64_t prefill_ns(const double t[5], const double f[4], double pace)
{
    return cost_ns((t[0] + t[1] * f[0] + t[2] * f[1] + t[3] * f[2] + t[4]) * pace);
}

void pane_price(const struct pane *pane, uint64_t tokens, uint64_t reused, uint64_t *ns)
{
    uint64_t by_kind[PANE_KINDS + 1];
    double f[4];

    cost_prefill_features(tokens, reused < tokens ? reused : tokens - 1, f);
    for (uint32_t kind = 0; kind < pane->prefill_kind_count; kind++)
        by_kind[kind + 1] = prefill_ns(pane->prefill_kinds[kind], f, 1);
    for (uint32_t row = 0, count = pane->count; row < count; row++) {
        const uint32_t kind = pane->kinds[row].prefill;

        ns[row] =
            kind ? by_kind[kind] : prefill_ns(pane->prices[row].terms, f, pane->prefill_paces[row]);
    }
}
