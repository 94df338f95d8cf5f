/* pane.c - fill rows, and keep them right. */
#include "sched/pane.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"

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
    p->seats = alloc_resize(alloc, NULL, max, sizeof(*p->seats));
    p->slots = alloc_resize(alloc, NULL, max, sizeof(*p->slots));
    p->holders = alloc_resize(alloc, NULL, max, sizeof(*p->holders));
    p->knows = alloc_resize(alloc, NULL, max, sizeof(*p->knows));
    return p->seats && p->slots && p->cells && p->row_of && p->rows && p->lines && p->prices &&
                   p->links && p->paces && p->taken_in && p->holders && p->kinds && p->alike &&
                   p->knows
               ? MC_OK
               : MC_E_NOMEM;
}

static void pane_fini(struct pane *p, const struct mc_alloc *alloc)
{
    alloc_free(alloc, p->knows);
    alloc_free(alloc, p->holders);
    alloc_free(alloc, p->alike);
    alloc_free(alloc, p->slots);
    alloc_free(alloc, p->seats);
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

/* ------------------------------------------------------------------------------------------ prices */

static bool same_link(const struct price_link *a, const struct price_link *b)
{
    return a->t0_s == b->t0_s && a->bytes_per_s == b->bytes_per_s &&
           a->load_bytes_per_s == b->load_bytes_per_s && a->token_bytes == b->token_bytes &&
           a->knows[0] == b->knows[0] && a->knows[1] == b->knows[1] &&
           a->learnt[0][0] == b->learnt[0][0] && a->learnt[0][1] == b->learnt[0][1] &&
           a->learnt[1][0] == b->learnt[1][0] && a->learnt[1][1] == b->learnt[1][1];
}

/* Kinds are numbered from 1 as they are met, in a table of PANE_KINDS; when that is full, the others are 0. */
static uint8_t link_kind(struct pane *pane, const struct price_link *link)
{
    for (uint32_t i = 0; i < pane->link_kind_count; i++)
        if (same_link(&pane->link_kinds[i], link))
            return (uint8_t)(i + 1);
    if (pane->link_kind_count == PANE_KINDS)
        return 0;
    pane->link_kinds[pane->link_kind_count] = *link;
    return ++pane->link_kind_count;
}

static uint8_t prefill_kind(struct pane *pane, const double terms[5])
{
    for (uint32_t i = 0; i < pane->prefill_kind_count; i++) {
        const double *known = pane->prefill_kinds[i];

        if (known[0] == terms[0] && known[1] == terms[1] && known[2] == terms[2] &&
            known[3] == terms[3] && known[4] == terms[4])
            return (uint8_t)(i + 1);
    }
    if (pane->prefill_kind_count == PANE_KINDS)
        return 0;
    memcpy(pane->prefill_kinds[pane->prefill_kind_count], terms, sizeof(pane->prefill_kinds[0]));
    return ++pane->prefill_kind_count;
}

static_assert(PANE_KINDS * PANE_KINDS <= UINT8_MAX, "a number for each pair of kinds");

/* One number for both kinds that a prefill and a pull go by. A link whose costs are learnt says another thing of
 * others on its own host. */
static uint8_t alike(const struct pane *pane, uint32_t row)
{
    const struct kinds *kinds = &pane->kinds[row];

    if (kinds->prefill == 0 || kinds->link == 0 || pane->rows[row].role == MC_ROLE_STORE ||
        (pane->links[row].bytes_per_s == 0 && pane->rows[row].host != 0))
        return 0;
    return (uint8_t)((kinds->prefill - 1) * PANE_KINDS + kinds->link);
}

static void set_kinds(struct pane *pane, uint32_t row)
{
    const struct price *p = &pane->prices[row];
    const uint32_t paced = pane->lines[row].paced;

    pane->kinds[row].prefill = 0;
    if ((paced & LINE_PACED_PREFILL) == 0)
        pane->kinds[row].prefill = prefill_kind(pane, p->prefill);
    pane->alike[row] = alike(pane, row);
}

static void price_link(const struct instance *i, struct price_link *p)
{
    const struct cost *cost = &i->cost;

    *p = (struct price_link){ .t0_s = cost->given.t0,
                              .bytes_per_s = cost->given.bytes_per_s,
                              .load_bytes_per_s = cost->given.load_bytes_per_s,
                              .token_bytes = i->info.kv_token_bytes };
    for (int kind = COST_LOCAL; kind <= COST_REMOTE; kind++) {
        p->knows[kind] = cost_knows_link(cost, (enum cost_link)kind);
        p->learnt[kind][0] = cost->link[kind].x[0];
        p->learnt[kind][1] = cost->link[kind].x[1];
    }
}

/* As cost_transfer(). */
double price_transfer(const struct price_link *p, enum cost_link kind, uint64_t bytes)
{
    const double size = (double)bytes;
    double seconds = p->bytes_per_s > 0 ? p->t0_s + size / p->bytes_per_s
                                        : p->learnt[kind][0] * size + p->learnt[kind][1];

    if (p->load_bytes_per_s > 0)
        seconds += size / p->load_bytes_per_s;
    return seconds;
}

static uint8_t what_it_knows(const struct cost *cost)
{
    return (uint8_t)((cost_knows_prefill(cost) ? KNOWS_PREFILL : 0) |
                     (cost_knows_step(cost) ? KNOWS_STEP : 0) |
                     (cost_knows_link(cost, COST_LOCAL) ? KNOWS_LOCAL : 0) |
                     (cost_knows_link(cost, COST_REMOTE) ? KNOWS_REMOTE : 0));
}

/* Its own costs, or another one's of its model, or the nominal ones. */
static const struct cost *cost_for(const struct pane *pane, const struct cluster *cluster,
                                   uint32_t row, int bit)
{
    const uint32_t lender = pane->knows[row] >> bit & 1 ? row : pane->lenders[bit];

    return lender == CLUSTER_NONE ? &cost_nominal : &cluster->instances[pane->cells[lender]].cost;
}

static void set_paced(struct pane *pane, uint32_t row)
{
    const struct price *price = &pane->prices[row];
    const uint32_t paced =
        (price->prefill_cost->prefill_pace.ratio > 0 ? LINE_PACED_PREFILL : 0u) |
        (price->step_cost->step_pace.ratio > 0 ? LINE_PACED_STEP : 0u) |
        /* What is queued goes by its own costs: who does not know them has no pace. */
        (price->prefill_cost->prefill_pace.ratio > 0 && (pane->knows[row] & KNOWS_PREFILL)
             ? LINE_PACED_QUEUE
             : 0u);

    pane->paced += paced != 0;
    pane->paced -= pane->lines[row].paced != 0;
    pane->lines[row].paced = paced;
    pane->paces[row].prefill = price->prefill_cost->prefill_pace;
    pane->paces[row].step = price->step_cost->step_pace;
}

static uint64_t tbt_of(const struct pane *pane, uint32_t row)
{
    const struct mc_view_instance *r = &pane->rows[row];
    const struct price *p = &pane->prices[row];

    if (r->role == MC_ROLE_STORE || r->running == 0)
        return 0;
    return cost_ns(
        (p->step[0] + p->step[1] * (double)r->running + p->step[2] * (double)r->context_tokens) *
        p->step_pace);
}

static void fill_seat(struct pane *pane, uint32_t row)
{
    const struct mc_view_instance *r = &pane->rows[row];
    const struct price *p = &pane->prices[row];
    const bool decodes = (r->role & MC_ROLE_DECODE) != 0 && (r->flags & MC_VIEW_DRAINING) == 0;

    pane->slots[row] = r->sequences_max == 0 || r->running < r->sequences_max;
    pane->seats[row] = (struct seat){
        .seconds = p->step[0] + p->step[1] * (double)(r->running + 1),
        .each = p->step[2],
        .pace = p->step_pace,
        .context = r->context_tokens,
        .free_tokens = !decodes                ? 0
                       : r->kv_tokens_max == 0 ? UINT64_MAX
                                               : r->free_tokens,
    };
}

/* After the row and `knows`, of all, are filled. */
static void fill_price(struct pane *pane, const struct cluster *cluster, uint32_t row)
{
    struct price *p = &pane->prices[row];

    p->prefill_cost = cost_for(pane, cluster, row, 0);
    p->step_cost = cost_for(pane, cluster, row, 1);
    p->prefill_pace = p->step_pace = 1;
    cost_prefill_terms(p->prefill_cost, p->prefill);
    cost_step_terms(p->step_cost, p->step);
    set_paced(pane, row);
    set_kinds(pane, row);
    pane->rows[row].tbt_ns = tbt_of(pane, row);
    fill_seat(pane, row);
}

/* -------------------------------------------------------------------------------------------- rows */

static void set_role(struct pane *pane, uint32_t row, uint32_t role)
{
    const bool was = pane->rows[row].role & MC_ROLE_PREFILL, is = role & MC_ROLE_PREFILL;

    pane->prefills += is;
    pane->prefills -= was;
    pane->rows[row].role = role;
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static void fill_line(struct pane *pane, const struct cluster *cluster, uint32_t row)
{
    const uint32_t cell = pane->cells[row];
    const struct instance *i = &cluster->instances[cell];
    const struct cluster_queue queue = cluster_queue(cluster, cell);
    struct line *line = &pane->lines[row];
    uint32_t role = i->info.role;

    if (i->draining)
        role &= ~(uint32_t)MC_ROLE_PREFILL;
    *line = (struct line){
        .queue_ns = cost_ns((double)queue.ns / 1e9),
        .first_ns =
            queue.first_ns == UINT64_MAX ? UINT64_MAX : cost_ns((double)queue.first_ns / 1e9),
        .since_ns = queue.since_ns,
        .send_until_ns = i->send_until_ns,
        .receive_until_ns = i->receive_until_ns,
        .report_until_ns = i->reported ? i->load_until_ns : UINT64_MAX,
        .role = role,
        .paced = line->paced, /* set_paced() counts */
    };
    pane->paces[row].queue_ns = queue.ns;
    pane->paces[row].first_ns = queue.first_ns;
    if (line->report_until_ns < pane->first_report_until_ns)
        pane->first_report_until_ns = line->report_until_ns;
    pane->last_busy_until_ns =
        later(pane->last_busy_until_ns, later(line->send_until_ns, line->receive_until_ns));
    pane->idle_links = false; /* to be looked at */
}

/* All but what is a matter of time or of the request, and the price. */
static void fill_row(struct pane *pane, const struct cluster *cluster, uint32_t row)
{
    const uint32_t cell = pane->cells[row];
    const struct instance *i = &cluster->instances[cell];
    const struct cluster_figures f = cluster_figures(cluster, cell);
    struct mc_view_instance *r = &pane->rows[row];

    fill_line(pane, cluster, row);
    set_role(pane, row, pane->lines[row].role);
    *r = (struct mc_view_instance){
        .id = i->info.id,
        .host = i->info.host,
        .model = i->info.model,
        .role = r->role,
        .flags = (i->draining ? MC_VIEW_DRAINING : 0u) |
                 (i->ever_reported && !i->reported ? MC_VIEW_EXPIRED : 0u),
        .queued = f.queued,
        .queued_tokens = f.queued_tokens,
        .running = f.running,
        .context_tokens = f.context_tokens,
        .free_tokens = f.free_tokens,
        .kv_tokens_max = i->info.kv_tokens_max,
        .sequences_max = i->info.sequences_max,
        .last_ns = i->last_ns,
    };
    price_link(i, &pane->links[row]);
    pane->kinds[row].link = link_kind(pane, &pane->links[row]);
    pane->taken_in[row] = cluster->changes;
}

/* ------------------------------------------------------------------------------------- who borrows */

/* True: somebody lends now who did not. */
static bool find_lenders(struct pane *pane)
{
    uint32_t lenders[4] = { CLUSTER_NONE, CLUSTER_NONE, CLUSTER_NONE, CLUSTER_NONE };
    const uint8_t both = KNOWS_PREFILL | KNOWS_STEP;

    pane->all_know = true;
    for (uint32_t row = pane->count; row-- > 0;) {
        pane->all_know &= (pane->knows[row] & both) == both;
        for (int bit = 0; bit < 4 && pane->rows[row].role != MC_ROLE_STORE; bit++)
            if (pane->knows[row] >> bit & 1)
                lenders[bit] = row;
    }
    if (memcmp(lenders, pane->lenders, sizeof(lenders)) == 0)
        return false;
    memcpy(pane->lenders, lenders, sizeof(lenders));
    return true;
}

static void price_borrowers(struct pane *pane, const struct cluster *cluster)
{
    for (uint32_t row = 0; row < pane->count; row++)
        if ((~pane->knows[row] & (KNOWS_PREFILL | KNOWS_STEP)) != 0)
            fill_price(pane, cluster, row);
}

/* What one row knows has changed, or may have. */
static void learn_row(struct pane *pane, const struct cluster *cluster, uint32_t row)
{
    const uint8_t knows = what_it_knows(&cluster->instances[pane->cells[row]].cost);
    const bool lends = pane->lenders[0] == row || pane->lenders[1] == row;
    const bool changed = knows != pane->knows[row];

    pane->knows[row] = knows;
    if (((changed && find_lenders(pane)) || lends) && !pane->all_know)
        price_borrowers(pane, cluster);
    fill_price(pane, cluster, row);
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
    pane->last_busy_until_ns = 0;
    for (uint32_t row = 0; row < pane->count; row++) {
        expire(cluster, pane, row, now_ns);
        pane->rows[row].role = 0;
        pane->lines[row].paced = 0;
        fill_row(pane, cluster, row);
        pane->knows[row] = what_it_knows(&cluster->instances[pane->cells[row]].cost);
        if (pane->rows[row].kv_tokens_max != 0 &&
            pane->rows[row].kv_tokens_max < pane->least_tokens_max)
            pane->least_tokens_max = pane->rows[row].kv_tokens_max;
    }
    find_lenders(pane);
    for (uint32_t row = 0; row < pane->count; row++)
        fill_price(pane, cluster, row);
    pane->filled = true;
    pane->members = cluster->members;
    pane->changes = cluster->changes;
}

/* ---------------------------------------------------------------------------------------- from now on */

static void refresh(struct pane *pane, const struct cluster *cluster, uint32_t row)
{
    fill_row(pane, cluster, row);
    learn_row(pane, cluster, row);
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
    struct line *line = &pane->lines[row];
    struct price *price = &pane->prices[row];
    const struct paces *paces = &pane->paces[row];

    if (line->paced & LINE_PACED_PREFILL)
        price->prefill_pace = cost_pace(&paces->prefill, now_ns);
    if (line->paced & LINE_PACED_QUEUE) {
        line->queue_ns = cost_ns((double)paces->queue_ns / 1e9 * price->prefill_pace);
        if (paces->first_ns != UINT64_MAX)
            line->first_ns = cost_ns((double)paces->first_ns / 1e9 * price->prefill_pace);
    }
    if (line->paced & LINE_PACED_STEP) {
        price->step_pace = cost_pace(&paces->step, now_ns);
        pane->seats[row].pace = price->step_pace;
        pane->rows[row].tbt_ns = tbt_of(pane, row);
    }
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/* This is the hot path: for all rows, at each decision. */
static void let_time_pass(struct pane *pane, uint64_t now_ns)
{
    for (uint32_t row = 0; pane->paced != 0 && row < pane->count; row++)
        if (pane->lines[row].paced)
            set_paces(pane, row, now_ns);
    for (uint32_t row = 0; row < pane->count; row++) {
        const struct line *line = &pane->lines[row];
        const uint64_t gone = now_ns - line->since_ns;

        pane->rows[row].queue_ns =
            less(line->queue_ns, gone < line->first_ns ? gone : line->first_ns);
        if (!pane->idle_links) {
            pane->rows[row].send_busy_ns = less(line->send_until_ns, now_ns);
            pane->rows[row].receive_busy_ns = less(line->receive_until_ns, now_ns);
        }
    }
    pane->idle_links = now_ns >= pane->last_busy_until_ns;
}

/* The last request's part of the rows. */
static void undo_request(struct pane *pane)
{
    for (uint32_t i = 0; i < pane->holder_count; i++)
        pane->rows[pane->holders[i]].matched_tokens = 0;
    pane->holder_count = 0;
    for (uint32_t row = 0; pane->bent && row < pane->count; row++)
        set_role(pane, row, pane->lines[row].role);
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
            set_role(pane, row, r->role & ~(uint32_t)MC_ROLE_PREFILL);
    }
}
