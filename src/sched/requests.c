/* requests.c - the requests that were placed: where they are, and what they take there (cluster.h). */
#include <assert.h>

#include "base/prng.h"
#include "sched/cluster.h"

static uint32_t *bucket_of(const struct cluster *cluster, uint64_t id)
{
    return &cluster->buckets[prng_mix(id) & cluster->bucket_mask];
}

uint32_t cluster_request(const struct cluster *cluster, uint64_t id)
{
    uint32_t at = *bucket_of(cluster, id);

    while (at != CLUSTER_NONE && cluster->requests[at].id != id)
        at = cluster->requests[at].next;
    return at;
}

bool cluster_has_room(const struct cluster *cluster)
{
    return cluster->free_request != CLUSTER_NONE || cluster->used_requests < cluster->requests_max;
}

static uint32_t take_cell(struct cluster *cluster)
{
    assert(cluster_has_room(cluster));
    if (cluster->free_request == CLUSTER_NONE)
        return cluster->used_requests++;
    const uint32_t cell = cluster->free_request;
    cluster->free_request = cluster->requests[cell].next;
    return cell;
}

void cluster_request_free(struct cluster *cluster, uint32_t cell)
{
    cluster->requests[cell].next = cluster->free_request;
    cluster->free_request = cell;
}

/* ------------------------------------------------------------------------------------------ lists */

static void prefill_link(struct cluster *cluster, struct instance *at, uint32_t cell)
{
    struct request *r = &cluster->requests[cell];

    r->at_prefill = (struct member){ .before = at->prefill_last, .after = CLUSTER_NONE };
    if (at->prefill_last == CLUSTER_NONE)
        at->prefill_first = cell;
    else
        cluster->requests[at->prefill_last].at_prefill.after = cell;
    at->prefill_last = cell;
    at->prefill.count++;
    at->prefill.tokens += r->to_compute;
    at->prefill.ns += r->prefill_ns;
    at->prefill_blind += r->blind;
}

/* What is worked on comes first in the list. */
static void prefill_to_front(struct cluster *cluster, struct instance *at, uint32_t cell)
{
    struct request *r = &cluster->requests[cell];
    const struct member m = r->at_prefill;

    if (at->prefill_first == cell)
        return;
    cluster->requests[m.before].at_prefill.after = m.after;
    if (m.after == CLUSTER_NONE)
        at->prefill_last = m.before;
    else
        cluster->requests[m.after].at_prefill.before = m.before;
    r->at_prefill = (struct member){ .before = CLUSTER_NONE, .after = at->prefill_first };
    cluster->requests[at->prefill_first].at_prefill.before = cell;
    at->prefill_first = cell;
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

static void work_subtract(struct work *work, const struct request *r)
{
    work->count--;
    work->tokens -= r->to_compute;
    work->ns -= r->prefill_ns;
}

static void prefill_unlink(struct cluster *cluster, uint32_t cell, uint64_t now_ns)
{
    struct request *r = &cluster->requests[cell];
    struct instance *at = &cluster->instances[r->prefill];
    const struct member m = r->at_prefill;

    if (m.before == CLUSTER_NONE) {
        at->prefill_first = m.after;
        at->working_since_ns = now_ns; /* the next one's turn */
    } else {
        cluster->requests[m.before].at_prefill.after = m.after;
    }
    if (m.after == CLUSTER_NONE)
        at->prefill_last = m.before;
    else
        cluster->requests[m.after].at_prefill.before = m.before;

    work_subtract(&at->prefill, r);
    at->prefill_blind -= r->blind;
    if (r->prefill_known) {
        work_subtract(&at->prefill_known, r);
        at->load.queued = less(at->load.queued, 1);
        at->load.queued_tokens = less(at->load.queued_tokens, r->to_compute);
        r->prefill_known = false;
    }
    cluster_touch(cluster, r->prefill);
    r->prefill = CLUSTER_NONE;
}

static void decode_link(struct cluster *cluster, struct instance *at, uint32_t cell)
{
    struct request *r = &cluster->requests[cell];

    r->at_decode = (struct member){ .before = at->decode_last, .after = CLUSTER_NONE };
    if (at->decode_last == CLUSTER_NONE)
        at->decode_first = cell;
    else
        cluster->requests[at->decode_last].at_decode.after = cell;
    at->decode_last = cell;
    at->decode_extra.count++;
    at->decode_extra.tokens += r->tokens;
    at->reserved_tokens += r->to_hold;
}

static void decode_unlink(struct cluster *cluster, uint32_t cell)
{
    struct request *r = &cluster->requests[cell];
    struct instance *at = &cluster->instances[r->decode];
    const struct member m = r->at_decode;

    if (m.before == CLUSTER_NONE)
        at->decode_first = m.after;
    else
        cluster->requests[m.before].at_decode.after = m.after;
    if (m.after == CLUSTER_NONE)
        at->decode_last = m.before;
    else
        cluster->requests[m.after].at_decode.before = m.before;

    if (r->running_known) {
        at->load.running = less(at->load.running, 1);
        at->load.context_tokens = less(at->load.context_tokens, r->tokens);
    } else {
        at->decode_extra.count--;
        at->decode_extra.tokens -= r->tokens;
    }
    if (!r->reserved_known)
        at->reserved_tokens -= r->to_hold;
    else if (at->load.free_tokens < UINT64_MAX - r->to_hold)
        at->load.free_tokens += r->to_hold;
    cluster_touch(cluster, r->decode);
    r->decode = CLUSTER_NONE;
}

/* --------------------------------------------------------------------------------------- the life */

uint32_t cluster_place(struct cluster *cluster, uint64_t now_ns, const struct request *request)
{
    const uint32_t cell = take_cell(cluster);
    struct request *r = &cluster->requests[cell];
    uint32_t *bucket = bucket_of(cluster, request->id);
    struct instance *prefill = &cluster->instances[request->prefill];
    struct instance *decode = &cluster->instances[request->decode];

    *r = *request;
    r->stage = STAGE_QUEUED;
    r->prefill_known = r->running_known = r->reserved_known = false;
    r->placed_ns = now_ns;
    r->next = *bucket;
    *bucket = cell;
    cluster->request_count++;
    if (prefill->prefill_first == CLUSTER_NONE &&
        cluster_queue_ns(cluster, request->prefill, now_ns) == 0) {
        prefill->working_since_ns = now_ns;
        prefill->load.queued = prefill->load.queued_tokens =
            0; /* the report's queue is done by now */
    }
    prefill_link(cluster, prefill, cell);
    decode_link(cluster, decode, cell);
    prefill->last_ns = decode->last_ns = now_ns;
    cluster_touch(cluster, request->prefill);
    cluster_touch(cluster, request->decode);
    return cell;
}

void cluster_prefill_begin(struct cluster *cluster, uint32_t cell, uint64_t now_ns)
{
    struct request *r = &cluster->requests[cell];

    if (r->stage != STAGE_QUEUED)
        return;
    r->stage = STAGE_PREFILL;
    struct instance *at = &cluster->instances[r->prefill];
    const uint32_t first = at->prefill_first;
    if (r->order != 0 && first != cell && cluster->requests[first].stage == STAGE_QUEUED)
        prefill_to_front(cluster, at, cell);
    if (at->prefill_first == cell) {
        at->working_since_ns = now_ns;
        cluster_touch(cluster, r->prefill);
    }
}

void cluster_prefill_end(struct cluster *cluster, uint32_t cell, uint64_t now_ns)
{
    struct request *r = &cluster->requests[cell];

    if (r->prefill != CLUSTER_NONE)
        prefill_unlink(cluster, cell, now_ns);
    if (r->stage < STAGE_PREFILLED) {
        r->stage = STAGE_PREFILLED;
        r->prefilled_ns = now_ns;
    }
}

void cluster_decode_begin(struct cluster *cluster, uint32_t cell)
{
    cluster->requests[cell].stage = STAGE_DECODE;
}

void cluster_end(struct cluster *cluster, uint32_t cell, uint64_t now_ns)
{
    struct request *r = &cluster->requests[cell];
    uint32_t *link = bucket_of(cluster, r->id);

    if (r->prefill != CLUSTER_NONE)
        prefill_unlink(cluster, cell, now_ns);
    if (r->decode != CLUSTER_NONE)
        decode_unlink(cluster, cell);
    while (*link != cell)
        link = &cluster->requests[*link].next;
    *link = r->next;
    cluster->request_count--;
}
