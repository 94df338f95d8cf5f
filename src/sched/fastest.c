/* fastest.c - bounds from below, and a search that stops at the first who reaches them. */
#include "sched/fastest.h"

#include "base/alloc.h"
#include "base/prng.h"

mc_status fastest_init(struct fastest *f, const struct mc_alloc *alloc, uint32_t instances_max)
{
    *f = (struct fastest){ .alloc = alloc };
    f->rows = alloc_zeroed(alloc, instances_max, sizeof(*f->rows));
    f->kinds = alloc_zeroed(alloc, instances_max, sizeof(*f->kinds));
    f->floors = alloc_zeroed(alloc, instances_max, sizeof(*f->floors));
    return f->rows && f->kinds && f->floors ? MC_OK : MC_E_NOMEM;
}

void fastest_fini(struct fastest *f)
{
    if (f->alloc) {
        alloc_free(f->alloc, f->floors);
        alloc_free(f->alloc, f->kinds);
        alloc_free(f->alloc, f->rows);
    }
    *f = (struct fastest){ 0 };
}

/* ------------------------------------------------------------------------------------- one transfer */

static enum cost_link link_between(const struct pane *pane, uint64_t from, uint64_t to)
{
    const uint64_t host = pane->rows[from].host;

    return host != 0 && host == pane->rows[to].host ? COST_LOCAL : COST_REMOTE;
}

/* Over a free network. */
static uint64_t transfer_ns(const struct pane *pane, const struct cluster *cluster,
                            enum cost_link link, uint64_t from, uint64_t to, uint64_t tokens)
{
    const struct price_link *sender = &pane->links[from], *receiver = &pane->links[to];
    const uint64_t bytes = tokens * receiver->token_bytes;
    const bool sender_knows = sender->bytes_per_s > 0; /* learnt is what comes in */
    double seconds = 0, other = 0;

    if (receiver->knows[link])
        seconds = price_transfer(receiver, link, bytes);
    if (sender_knows)
        other = price_transfer(sender, link, bytes);
    if (!receiver->knows[link] && !sender_knows) {
        const uint32_t lender = pane->lenders[2 + link];

        seconds = cost_transfer(
            lender == CLUSTER_NONE ? &cost_nominal : &cluster->instances[pane->cells[lender]].cost,
            link, bytes);
    }
    return cost_ns(seconds > other ? seconds : other);
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

uint64_t fastest_transfer_ns(struct fastest *f, const struct pane *pane,
                             const struct cluster *cluster, uint64_t from, uint64_t to,
                             uint64_t tokens)
{
    const enum cost_link link = link_between(pane, from, to);
    const uint32_t kind = pane->kinds[to].link;

    if (f->transfer.from != from || f->transfer.tokens != tokens || f->transfer.link != link ||
        f->transfer.kind != kind || (kind == 0 && f->transfer.to != to)) {
        f->transfer.ns = transfer_ns(pane, cluster, link, from, to, tokens);
        f->transfer.from = from;
        f->transfer.to = to;
        f->transfer.tokens = tokens;
        f->transfer.kind = kind;
        f->transfer.link = link;
    }
    return f->transfer.ns + later(pane->rows[from].send_busy_ns, pane->rows[to].receive_busy_ns);
}

/* ----------------------------------------------------------------------------------- who has it all */

static bool same_sender(const struct price_link *a, const struct price_link *b)
{
    return a->bytes_per_s == b->bytes_per_s && a->t0_s == b->t0_s &&
           a->load_bytes_per_s == b->load_bytes_per_s;
}

static uint8_t kind_of(struct fastest *f, const struct pane *pane, uint32_t row)
{
    const uint64_t busy_ns = pane->rows[row].send_busy_ns;

    for (uint32_t kind = 0; kind < f->kind_count; kind++)
        if (same_sender(&pane->links[row], &pane->links[f->kind_rows[kind]])) {
            if (busy_ns < f->least_busy_ns[kind])
                f->least_busy_ns[kind] = busy_ns;
            return (uint8_t)kind;
        }
    if (f->kind_count == SENDER_KINDS) {
        f->others = true;
        return SENDER_KINDS;
    }
    f->kind_rows[f->kind_count] = row;
    f->least_busy_ns[f->kind_count] = busy_ns;
    return (uint8_t)f->kind_count++;
}

static uint64_t host_bit(uint64_t host)
{
    return host ? (uint64_t)1 << (prng_mix(host) & 63) : 0;
}

static void collect(struct fastest *f, const struct pane *pane, uint64_t tokens)
{
    f->count = f->kind_count = 0;
    f->others = false;
    f->hosts = 0;
    for (uint32_t i = 0; i < pane->holder_count; i++) {
        const uint32_t row = pane->holders[i];

        if (pane->rows[row].matched_tokens < tokens)
            continue;
        f->kinds[f->count] = kind_of(f, pane, row);
        f->rows[f->count++] = row;
        f->hosts |= host_bit(pane->rows[row].host);
    }
    f->tokens = tokens;
    f->known = true;
}

/* ---------------------------------------------------------------------------------------- the search */

/* What a transfer takes from each kind of sender; and nobody is quicker than *floor_p. */
struct by_kind {
    uint64_t remote_ns[SENDER_KINDS], local_ns[SENDER_KINDS];
};

static struct by_kind price_by_kind(const struct fastest *f, const struct pane *pane,
                                    const struct cluster *cluster, uint64_t to, uint64_t *floor_p)
{
    const bool maybe_local = (f->hosts & host_bit(pane->rows[to].host)) != 0;
    const uint64_t receive_busy_ns = pane->rows[to].receive_busy_ns;
    struct by_kind k = { 0 };

    *floor_p = f->others ? 0 : UINT64_MAX;
    for (uint32_t kind = 0; kind < f->kind_count; kind++) {
        const uint64_t busy_ns = later(f->least_busy_ns[kind], receive_busy_ns);
        const uint32_t row = f->kind_rows[kind];

        k.remote_ns[kind] = k.local_ns[kind] =
            transfer_ns(pane, cluster, COST_REMOTE, row, to, f->tokens);
        if (maybe_local)
            k.local_ns[kind] = transfer_ns(pane, cluster, COST_LOCAL, row, to, f->tokens);
        const uint64_t ns =
            k.local_ns[kind] < k.remote_ns[kind] ? k.local_ns[kind] : k.remote_ns[kind];
        if (ns + busy_ns < *floor_p)
            *floor_p = ns + busy_ns;
    }
    return k;
}

static uint64_t search(struct fastest *f, const struct pane *pane, const struct cluster *cluster,
                       uint64_t to)
{
    uint64_t best = UINT64_MAX, best_ns = 0, floor_ns;
    const struct by_kind k = price_by_kind(f, pane, cluster, to, &floor_ns);

    for (uint32_t i = 0; i < f->count && (best == UINT64_MAX || best_ns > floor_ns); i++) {
        const uint32_t row = f->rows[i], kind = f->kinds[i];
        uint64_t ns;

        if (row == to)
            continue;
        if (kind == SENDER_KINDS)
            ns = fastest_transfer_ns(f, pane, cluster, row, to, f->tokens);
        else
            ns = (link_between(pane, row, to) == COST_LOCAL ? k.local_ns : k.remote_ns)[kind] +
                 later(pane->rows[row].send_busy_ns, pane->rows[to].receive_busy_ns);
        if (best == UINT64_MAX || ns < best_ns) {
            best = row;
            best_ns = ns;
        }
    }
    return best;
}

/* From any sender, on its host or not, while nothing comes to it. */
static uint64_t floor_of(const struct fastest *f, const struct pane *pane,
                         const struct cluster *cluster, uint64_t to)
{
    uint64_t least = f->others || f->count == 0 ? 0 : UINT64_MAX;

    for (uint32_t kind = 0; kind < f->kind_count && least != 0; kind++)
        for (int link = COST_LOCAL; link <= COST_REMOTE; link++) {
            const uint64_t ns =
                f->least_busy_ns[kind] +
                transfer_ns(pane, cluster, (enum cost_link)link, f->kind_rows[kind], to, f->tokens);
            least = ns < least ? ns : least;
        }
    return least;
}

void fastest_floors(struct fastest *f, const struct pane *pane, const struct cluster *cluster,
                    uint64_t tokens)
{
    uint64_t by_kind[PANE_KINDS + 1];
    bool known[PANE_KINDS + 1] = { false };

    if (!f->known || f->tokens != tokens)
        collect(f, pane, tokens);
    for (uint32_t row = 0; row < pane->count; row++) {
        const uint32_t kind = pane->kinds[row].link;

        if (kind == 0) {
            f->floors[row] = floor_of(f, pane, cluster, row);
            continue;
        }
        if (!known[kind])
            by_kind[kind] = floor_of(f, pane, cluster, row);
        known[kind] = true;
        f->floors[row] = by_kind[kind];
    }
}

/* Is its answer that of others of its kind? Not if it is on a host with one of those who are asked, and that
 * matters, nor if it is one of them. */
static bool as_others(const struct fastest *f, const struct pane *pane, uint64_t to)
{
    const uint32_t kind = pane->kinds[to].link;

    return kind != 0 && pane->rows[to].matched_tokens < f->tokens &&
           (pane->link_kinds[kind - 1].bytes_per_s > 0 ||
            (f->hosts & host_bit(pane->rows[to].host)) == 0);
}

uint64_t fastest_holder(struct fastest *f, const struct pane *pane, const struct cluster *cluster,
                        uint64_t to, uint64_t tokens)
{
    const uint64_t receive_busy_ns = pane->rows[to].receive_busy_ns;

    if (!f->known || f->tokens != tokens)
        collect(f, pane, tokens);
    if (f->count <= 1)
        return f->count == 0 || f->rows[0] == to ? UINT64_MAX : f->rows[0];
    if (!as_others(f, pane, to))
        return search(f, pane, cluster, to);
    if (f->holder.kind != pane->kinds[to].link || f->holder.tokens != tokens ||
        f->holder.receive_busy_ns != receive_busy_ns) {
        f->holder.row = search(f, pane, cluster, to);
        f->holder.kind = pane->kinds[to].link;
        f->holder.tokens = tokens;
        f->holder.receive_busy_ns = receive_busy_ns;
    }
    return f->holder.row;
}
