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
    p->links = alloc_resize(alloc, NULL, max, sizeof(*p->links));
    p->paces = alloc_resize(alloc, NULL, max, sizeof(*p->paces));
    p->taken_in = alloc_resize(alloc, NULL, max, sizeof(*p->taken_in));
    p->kinds = alloc_resize(alloc, NULL, max, sizeof(*p->kinds));
    p->alike = alloc_resize(alloc, NULL, max, sizeof(*p->alike));
    p->clocks = alloc_resize(alloc, NULL, max, sizeof(*p->clocks));
    p->busy = alloc_resize(alloc, NULL, max, sizeof(*p->busy));
    p->berths = alloc_resize(alloc, NULL, max, sizeof(*p->berths));
    p->slots = alloc_resize(alloc, NULL, max, sizeof(*p->slots));
    p->holders = alloc_resize(alloc, NULL, max, sizeof(*p->holders));
    p->knows = alloc_resize(alloc, NULL, max, sizeof(*p->knows));
    return p->clocks && p->busy && p->berths && p->slots && p->cells && p->row_of && p->rows &&
                   p->lines && p->prices && p->links && p->paces && p->taken_in && p->holders &&
                   p->kinds && p->alike && p->knows
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
    alloc_free(alloc, p->clocks);
    alloc_free(alloc, p->kinds);
    alloc_free(alloc, p->taken_in);
    alloc_free(alloc, p->paces);
    alloc_free(alloc, p->links);
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

static void set_paces(struct pane *pane, uint32_t row, uint64_t now_ns)
{
    const struct line *line = &pane->lines[row];
    struct clock *clock = &pane->clocks[row];
    struct price *price = &pane->prices[row];
    const struct paces *paces = &pane->paces[row];

    if (line->paced & LINE_PACED_PREFILL)
        price->prefill_pace = cost_pace(&paces->prefill, now_ns);
    if (line->paced & LINE_PACED_QUEUE) {
        clock->queue_ns = cost_ns((double)paces->queue_ns / 1e9 * price->prefill_pace);
        if (paces->first_ns != UINT64_MAX)
            clock->first_ns = cost_ns((double)paces->first_ns / 1e9 * price->prefill_pace);
    }
    if (line->paced & LINE_PACED_STEP) {
        price->step_pace = cost_pace(&paces->step, now_ns);
        pane->berths[row].pace = price->step_pace;
        pane->rows[row].tbt_ns = row_tbt_ns(pane, row);
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

/* This is the hot path: for all rows, at each decision. */
static void let_time_pass(struct pane *pane, uint64_t now_ns)
{
    const struct clock *clocks = pane->clocks;
    struct mc_view_instance *rows = pane->rows;

    for (uint32_t row = 0; pane->paced != 0 && row < pane->count; row++)
        if (pane->lines[row].paced)
            set_paces(pane, row, now_ns);
    for (uint32_t row = 0, count = pane->count; row < count; row++) {
        const uint64_t gone = now_ns - clocks[row].since_ns, first = clocks[row].first_ns;

        rows[row].queue_ns = less(clocks[row].queue_ns, gone < first ? gone : first);
    }
    let_links_go_on(pane, now_ns);
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

void pane_match(struct pane *pane, const struct kv_match *match, uint64_t block_tokens)
{
    uint32_t count = 0;
    bool rising = true;

    for (uint32_t i = 0; i < match->count; i++) {
        const uint32_t row = pane->row_of[match->holders[i]];

        if (row == CLUSTER_NONE)
            continue;
        rising &= count == 0 || row > pane->holders[count - 1];
        pane->holders[count++] = row;
        pane->rows[row].matched_tokens = match->blocks[match->holders[i]] * block_tokens;
    }
    pane->holder_count = count;
    if (rising)
        return;
    pane->holder_count = 0; /* cells are mostly in order of ids; here they are not */
    for (uint32_t row = 0; row < pane->count; row++)
        if (match->blocks[pane->cells[row]] != 0 || match->held[pane->cells[row]] != 0)
            pane->holders[pane->holder_count++] = row;
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
