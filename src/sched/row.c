/* row.c - one row of a pane: what it shows, what work costs there, and who borrows that from whom. */
#include "sched/row.h"

#include <assert.h>
#include <math.h>
#include <string.h>

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
uint8_t row_alike(const struct pane *pane, uint32_t row)
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
        pane->kinds[row].prefill = prefill_kind(pane, p->terms);
    pane->alike[row] = row_alike(pane, row);
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

uint8_t row_knows(const struct cost *cost)
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

void row_set_shares(struct pane *pane, uint32_t row)
{
    struct tick *tick = &pane->ticks[row];

    tick->prefill_share = cost_pace_share(&pane->prices[row].cost->prefill_pace, pane->epoch);
    tick->step_share = cost_pace_share(&pane->steps[row].cost->step_pace, pane->epoch);
    /* What is queued goes by its own costs: who does not know them has no pace. */
    tick->queue_share = pane->knows[row] & KNOWS_PREFILL ? tick->prefill_share : 0;
}

static void set_paced(struct pane *pane, uint32_t row)
{
    const uint32_t bits =
        (pane->prices[row].cost->prefill_pace.ratio > 0 ? LINE_PACED_PREFILL : 0u) |
        (pane->steps[row].cost->step_pace.ratio > 0 ? LINE_PACED_STEP : 0u);

    pane->paced += bits != 0;
    pane->paced -= pane->lines[row].paced != 0;
    pane->lines[row].paced = (uint16_t)bits;
    pane->prefill_paces[row] = pane->step_paces[row] = 1;
    row_set_shares(pane, row);
}

/* A step of its running batch, without pace. */
static double step_s(const struct pane *pane, uint32_t row)
{
    const struct mc_view_instance *r = &pane->rows[row];
    const double *t = pane->steps[row].terms;

    if (r->role == MC_ROLE_STORE || r->running == 0)
        return 0;
    return t[0] + t[1] * (double)r->running + t[2] * (double)r->context_tokens;
}

static void fill_berth(struct pane *pane, uint32_t row)
{
    const struct mc_view_instance *r = &pane->rows[row];
    const double *t = pane->steps[row].terms;
    const bool decodes = (r->role & MC_ROLE_DECODE) != 0 && (r->flags & MC_VIEW_DRAINING) == 0;

    pane->slots[row] = r->sequences_max == 0 || r->running < r->sequences_max;
    pane->berths[row] = (struct berth){
        .seconds = decodes ? t[0] + t[1] * (double)(r->running + 1) : INFINITY,
        .each = t[2],
        .context = (double)r->context_tokens,
        .free_tokens = !decodes                ? 0
                       : r->kv_tokens_max == 0 ? INFINITY
                                               : (double)r->free_tokens,
    };
}

/* After the row and `knows`, of all, are filled. */
void row_fill_price(struct pane *pane, const struct cluster *cluster, uint32_t row)
{
    struct price *price = &pane->prices[row];
    struct step_price *step = &pane->steps[row];

    price->cost = cost_for(pane, cluster, row, 0);
    step->cost = cost_for(pane, cluster, row, 1);
    cost_prefill_terms(price->cost, price->terms);
    cost_step_terms(step->cost, step->terms);
    set_paced(pane, row);
    set_kinds(pane, row);
    pane->ticks[row].step_s = step_s(pane, row);
    pane->rows[row].tbt_ns = cost_ns(pane->ticks[row].step_s);
    fill_berth(pane, row);
}

/* -------------------------------------------------------------------------------------------- rows */

void row_set_role(struct pane *pane, uint32_t row, uint32_t role)
{
    const bool was = pane->rows[row].role & MC_ROLE_PREFILL, is = role & MC_ROLE_PREFILL;

    pane->prefills += is;
    pane->prefills -= was;
    pane->rows[row].role = role;
    pane->cannot[row] = is ? 0 : MC_VIEW_NEVER;
    pane->queues[row] = pane->rows[row].queue_ns | pane->cannot[row];
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
    const uint64_t all_ns = cost_ns((double)queue.ns / 1e9);
    const uint64_t first_ns =
        queue.first_ns == UINT64_MAX ? UINT64_MAX : cost_ns((double)queue.first_ns / 1e9);
    pane->clocks[row] = (struct clock){
        .until_ns = (int64_t)(queue.since_ns + all_ns),
        .least_ns = all_ns > first_ns ? (int64_t)(all_ns - first_ns) : 0,
    };
    *line = (struct line){
        .send_until_ns = i->send_until_ns,
        .receive_until_ns = i->receive_until_ns,
        .report_until_ns = i->reported ? i->load_until_ns : UINT64_MAX,
        .role = role,
        .paced = line->paced, /* set_paced() counts */
        .busy = line->busy,
    };
    if (!line->busy && (i->send_until_ns != 0 || i->receive_until_ns != 0)) {
        line->busy = true;
        pane->busy[pane->busy_count++] = row;
    }
    pane->ticks[row].queue_s = (double)queue.ns / 1e9;
    pane->ticks[row].first_s =
        queue.first_ns == UINT64_MAX ? INFINITY : (double)queue.first_ns / 1e9;
    pane->ticks[row].since_ns = queue.since_ns;
    if (line->report_until_ns < pane->first_report_until_ns)
        pane->first_report_until_ns = line->report_until_ns;
}

/* All but what is a matter of time or of the request, and the price. */
void row_fill(struct pane *pane, const struct cluster *cluster, uint32_t row)
{
    const uint32_t cell = pane->cells[row];
    const struct instance *i = &cluster->instances[cell];
    const struct cluster_figures f = cluster_figures(cluster, cell);
    struct mc_view_instance *r = &pane->rows[row];

    fill_line(pane, cluster, row);
    row_set_role(pane, row, pane->lines[row].role);
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
    pane->lasts[row] = i->last_ns;
    price_link(i, &pane->links[row]);
    pane->kinds[row].link = link_kind(pane, &pane->links[row]);
    pane->taken_in[row] = cluster->changes;
}

/* ------------------------------------------------------------------------------------- who borrows */

/* True: somebody lends now who did not. */
bool row_find_lenders(struct pane *pane)
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
            row_fill_price(pane, cluster, row);
}

/* What one row knows has changed, or may have. */
void row_learn(struct pane *pane, const struct cluster *cluster, uint32_t row)
{
    const uint8_t knows = row_knows(&cluster->instances[pane->cells[row]].cost);
    const bool lends = pane->lenders[0] == row || pane->lenders[1] == row;
    const bool changed = knows != pane->knows[row];

    pane->knows[row] = knows;
    if (((changed && row_find_lenders(pane)) || lends) && !pane->all_know)
        price_borrowers(pane, cluster);
    row_fill_price(pane, cluster, row);
}
