/* move.c - bytes between nodes: prefixes that are pulled, KVCache that goes to the decode node. */
#include <string.h>

#include "base/alloc.h"
#include "sim/world.h"

/* The next flow that will be through. */
void move_plan(sim *s)
{
    const uint64_t due = links_due(&s->links);

    s->links_turn++;
    if (due != UINT64_MAX)
        world_add(s, due > s->now_ns ? due : s->now_ns, EVENT_FLOW, 0, s->links_turn);
}

void move_flow_add(sim *s, const struct flow *flow)
{
    links_advance(&s->links, s->now_ns);
    if (links_add(&s->links, flow) != MC_OK)
        s->failed = true;
    move_plan(s);
}

static void tell(sim *s, uint32_t kind, uint32_t request, uint32_t from, uint32_t to, double bytes)
{
    const struct mc_sched_event event = { .kind = kind,
                                          .transfer = { .request = s->lives[request].attempt,
                                                        .from = (uint64_t)from + 1,
                                                        .to = (uint64_t)to + 1,
                                                        .bytes = (uint64_t)bytes } };
    (void)decide_event(s, &event);
}

/* ---------------------------------------------------------------------------------------------- pulls */

static double pull_bytes(const sim *s, uint32_t request)
{
    const struct life *life = &s->lives[request];

    return kv_bytes(s, (uint64_t)(life->pull_blocks - life->own_blocks) *
                           s->options.trace->block_tokens);
}

void move_pull(sim *s, uint32_t request)
{
    const struct sim_record *r = &s->records[request];

    if (!s->lives[request].holds_pull)
        return; /* its holder is gone */
    tell(s, MC_EVENT_TRANSFER_BEGIN, request, r->holder, r->prefill, pull_bytes(s, request));
    move_flow_add(s, &(struct flow){ .from = s->instances[r->holder].node,
                                     .to = s->instances[r->prefill].node,
                                     .whom = request,
                                     .kind = FLOW_PULL,
                                     .bytes = pull_bytes(s, request) });
    if (s->lives[request].pull_ns)
        world_add(s, s->now_ns + s->lives[request].pull_ns, EVENT_PULL_LATE, request,
                  s->lives[request].turn);
}

/* Lines were busier than the scheduler knew: compute it instead. */
void move_pull_late(sim *s, uint32_t request)
{
    struct life *life = &s->lives[request];
    struct flow flow;

    if (!life->pulling)
        return;
    links_advance(&s->links, s->now_ns);
    if (!links_cancel(&s->links, NOBODY, FLOW_PULL, request, &flow))
        return;
    move_plan(s);
    blocks_release_pull(s, request);
    life->pull_blocks = life->own_blocks;
    life->pulling = 0;
    if (!life->reading)
        prefill_kick(s, s->records[request].prefill);
}

/* The prefix is here, and a copy of it stays. */
static void pulled(sim *s, uint32_t request)
{
    struct life *life = &s->lives[request];
    const struct sim_record *r = &s->records[request];

    tell(s, MC_EVENT_TRANSFER_END, request, r->holder, r->prefill, pull_bytes(s, request));
    blocks_release_pull(s, request);
    blocks_store(s, r->prefill, request, life->pull_blocks);
    life->pulling = 0;
    if (!life->reading)
        prefill_kick(s, r->prefill);
}

/* ---------------------------------------------------------------------------------------------- sending */

/* All but what the decode node has. The last token is never among that. */
static double send_bytes(const sim *s, uint32_t request)
{
    const uint64_t kept = (uint64_t)s->lives[request].kept_blocks * s->options.trace->block_tokens;

    return kv_bytes(s, s->records[request].input - kept);
}

/* Within `seconds` at the least; 0: as fast as it goes. */
static void send_flow(sim *s, uint32_t request, double seconds)
{
    const struct sim_record *r = &s->records[request];

    blocks_hold_kept(s, request);
    const double bytes = send_bytes(s, request);
    s->lives[request].sending = 1;
    tell(s, MC_EVENT_TRANSFER_BEGIN, request, r->prefill, r->decode, bytes);
    move_flow_add(s, &(struct flow){ .from = s->instances[r->prefill].node,
                                     .to = s->instances[r->decode].node,
                                     .whom = request,
                                     .kind = FLOW_SEND,
                                     .bytes = bytes,
                                     .rate_max = seconds > 0 ? bytes / seconds : 0 });
}

void move_stream(sim *s, uint32_t request, double seconds)
{
    const struct sim_record *r = &s->records[request];

    if (s->options.assume.stream >= 0.5 && r->prefill != r->decode && seconds > 0)
        send_flow(s, request, seconds);
}

/* Refused after its prefill: what was streamed meanwhile goes no further. */
void move_send_stop(sim *s, uint32_t request)
{
    struct flow flow;

    if (s->lives[request].sending != 1)
        return;
    s->lives[request].sending = 0;
    links_advance(&s->links, s->now_ns);
    if (links_cancel(&s->links, NOBODY, FLOW_SEND, request, &flow))
        move_plan(s);
}

/* From DRAM into VRAM at the decode node, one request after the other. */
static void load(sim *s, uint32_t request)
{
    struct sim_record *r = &s->records[request];
    struct instance *d = &s->instances[r->decode];
    const uint64_t begin = d->load_free_ns > s->now_ns ? d->load_free_ns : s->now_ns;

    r->moved_ns = s->now_ns;
    d->load_free_ns = begin + (uint64_t)(kv_bytes(s, r->input) / s->node.vram_bytes_per_s * 1e9);
    world_add(s, d->load_free_ns, EVENT_LOADED, request, s->lives[request].turn);
}

static void sent(sim *s, uint32_t request)
{
    const struct sim_record *r = &s->records[request];
    struct life *life = &s->lives[request];

    tell(s, MC_EVENT_TRANSFER_END, request, r->prefill, r->decode, send_bytes(s, request));
    blocks_keep(s, request);
    life->sending = 2;
    if (life->computed)
        load(s, request);
}

/* The last layers are stored a little later. Then all is sent, or what was not yet sent follows. */
void move_computed(sim *s, uint32_t request)
{
    const struct sim_assume *a = &s->options.assume;
    struct life *life = &s->lives[request];
    const double tail = a->store_tail_s + (life->sending ? 0 : a->link_latency_s);

    if (s->records[request].prefill == s->records[request].decode)
        load(s, request);
    else
        world_add(s, world_after(s, tail), EVENT_SEND, request, life->turn);
}

void move_send(sim *s, uint32_t request)
{
    struct life *life = &s->lives[request];

    life->computed = 1;
    if (life->sending == 0 && !s->instances[s->records[request].prefill].alive)
        change_unsent(s, request);
    else if (life->sending == 0)
        send_flow(s, request, 0);
    else if (life->sending == 2)
        load(s, request);
}

/* --------------------------------------------------------------------------------------------- copies */

static bool copies_room(sim *s)
{
    const uint32_t max = s->copies_max ? s->copies_max * 2 : 16;
    struct copy *more = alloc_resize(s->alloc, s->copies, max, sizeof(*more));

    if (!more) {
        s->failed = true;
        return false;
    }
    memset(more + s->copies_max, 0, (max - s->copies_max) * sizeof(*more));
    s->copies = more;
    s->copies_max = max;
    return true;
}

void move_copy(sim *s, uint32_t from, uint32_t to, uint32_t request, uint32_t blocks)
{
    uint32_t copy = 0;

    while (copy < s->copies_max && s->copies[copy].blocks != 0)
        copy++;
    if (copy == s->copies_max && !copies_room(s))
        return;
    s->copies[copy] = (struct copy){ .to = to, .request = request, .blocks = blocks };
    move_flow_add(s, &(struct flow){
                         .from = s->instances[from].node,
                         .to = s->instances[to].node,
                         .whom = copy,
                         .kind = FLOW_REPLICA,
                         .bytes = kv_bytes(s, (uint64_t)blocks * s->options.trace->block_tokens) });
}

void move_copy_end(sim *s, uint32_t copy)
{
    s->copies[copy] = (struct copy){ 0 };
}

static void copied(sim *s, uint32_t index)
{
    const struct copy copy = s->copies[index];

    move_copy_end(s, index);
    s->copied_blocks += copy.blocks;
    blocks_store(s, copy.to, copy.request, copy.blocks);
}

/* ------------------------------------------------------------------------------------------------ flows */

void move_flows(sim *s, uint32_t turn)
{
    struct flow flow;

    if (turn != s->links_turn)
        return;
    links_advance(&s->links, s->now_ns);
    while (links_done(&s->links, &flow)) {
        if (flow.kind == FLOW_PULL)
            pulled(s, flow.whom);
        else if (flow.kind == FLOW_SEND)
            sent(s, flow.whom);
        else
            copied(s, flow.whom);
    }
    move_plan(s);
}
