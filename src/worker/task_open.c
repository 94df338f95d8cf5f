/* task_open.c - a request to prefill: checked against what this worker is, copied, and freed again. */
#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "worker/state.h"

enum {
    PUSH_PAGES = 64,
    PULL_BLOCKS_MAX = WORKER_PULL_BLOCKS
}; /* of one push of whole pages; of one pull */

void task_free(struct task *task)
{
    struct worker *w = task->worker;

    assert(task->page_count == 0);
    os_loop_timer_stop(w->loop, &task->timer);
    if (task->hand_off_ask)
        net_ask_forget(task->peer->conn, task->hand_off_ask);
    if (task->renew_ask)
        net_ask_forget(task->peer->conn, task->renew_ask);
    mc_segment_close(w->transfer, task->segment);
    worker_peer_drop(task->peer);
    request_close(task->job.request);
    blocks_fini(w, &task->blocks);
    sampling_fini(w, &task->sampling);
    alloc_free(w->alloc, (void *)task->salt.data);
    alloc_free(w->alloc, (void *)task->tenant.data);
    alloc_free(w->alloc, task->block_pages);
    alloc_free(w->alloc, task->checksums);
    alloc_free(w->alloc, task->pages);
    alloc_free(w->alloc, task->tokens);
    alloc_free(w->alloc, task);
}

static mc_status check(const struct worker *w, const struct wire_prefill *m, struct mc_error *error)
{
    const uint32_t count = m->tokens.count;

    if (w->draining)
        return error_set(error, MC_E_BUSY, "%s is draining: it takes no more", w->name);
    if (!(w->role & MC_ROLE_PREFILL))
        return error_set(error, MC_E_UNSUPPORTED, "%s only decodes", w->name);
    if (m->reservation == 0 && !(w->role & MC_ROLE_DECODE))
        return error_set(error, MC_E_UNSUPPORTED, "%s only prefills: name a reservation", w->name);
    if (memcmp(&m->fingerprint, &w->fingerprint, sizeof(w->fingerprint)) != 0)
        return error_set(error, MC_E_ARG, "the request is for another model than %s's", w->name);
    if (count == 0 || count >= w->context_max)
        return error_set(error, MC_E_RANGE,
                         "a prompt of %u tokens; the context holds %u, answer included", count,
                         w->context_max);
    if (m->reservation != 0 &&
        (m->decode_address.size == 0 || m->decode_segment.size == 0 ||
         m->window.size < kv_pages(count) * w->page_bytes || m->window.lease_ns == 0))
        return error_set(error, MC_E_ARG, "a reservation without address, segment or window");
    if (w->task_count == w->limits.requests_max)
        return error_set(error, MC_E_FULL, "%u requests are here already", w->task_count);
    return MC_OK;
}

static mc_status copy_tokens(struct task *task, const struct wire_array *tokens,
                             struct mc_error *error)
{
    const struct worker *w = task->worker;

    task->tokens = alloc_zeroed(w->alloc, tokens->count, sizeof(*task->tokens));
    if (!task->tokens)
        return error_set(error, MC_E_NOMEM, "out of memory for a prompt of %u tokens",
                         tokens->count);
    task->token_count = tokens->count;
    for (uint32_t i = 0; i < tokens->count; i++) {
        task->tokens[i] = wire_u32_at(tokens, i);
        if (task->tokens[i] >= w->info.vocab_size)
            return error_set(error, MC_E_RANGE, "token %u of the prompt is %u; the model has %u", i,
                             task->tokens[i], w->info.vocab_size);
    }
    return MC_OK;
}

static bool copy_bytes(const struct worker *w, const struct wire_slice *from, struct wire_slice *to)
{
    *to = (struct wire_slice){ alloc_text(w->alloc, from->data ? from->data : "", from->size),
                               from->size };
    return to->data != NULL;
}

/* What a request for another worker's pages needs besides. */
static mc_status open_remote(struct task *task, const struct wire_prefill *m,
                             struct mc_error *error)
{
    struct worker *w = task->worker;
    char segment[MC_NAME_MAX + 1];

    if (m->decode_segment.size > MC_NAME_MAX)
        return error_set(error, MC_E_ARG, "decode_segment: longer than %d bytes", MC_NAME_MAX);
    memcpy(segment, m->decode_segment.data, m->decode_segment.size);
    segment[m->decode_segment.size] = '\0';
    task->window = (struct mc_window){ .incarnation = m->window.incarnation,
                                       .size = m->window.size,
                                       .region = m->window.region,
                                       .permissions = m->window.permissions,
                                       .generation = m->window.generation,
                                       .lease_ns = m->window.lease_ns,
                                       .piece_bytes = m->window.piece_bytes };
    memcpy(task->window.key, m->window.key.bytes, sizeof(task->window.key));
    task->reservation = m->reservation;
    task->decode_incarnation = m->decode_incarnation;
    mc_status status = worker_peer_take(w, &m->decode_address, &task->peer, error);
    if (status == MC_OK)
        status = worker_peer_segment(task->peer, segment, &task->segment, error);
    return status;
}

static mc_status fill(struct task *task, const struct wire_prefill *m, struct mc_error *error)
{
    struct worker *w = task->worker;
    const bool remote = m->reservation != 0;

    mc_status status = copy_tokens(task, &m->tokens, error);
    if (status == MC_OK)
        status = sampling_read(w, &m->sampling, &task->sampling, error);
    if (status == MC_OK)
        status = sampling_request(w, &task->sampling, task->tokens, task->token_count, remote,
                                  &task->job, error);
    if (status != MC_OK)
        return status;
    const uint32_t pages = kv_pages(task->token_count),
                   pages_max = kv_pages(task->job.request->token_max);
    task->pages = alloc_zeroed(w->alloc, pages, sizeof(*task->pages));
    task->checksums = alloc_zeroed(w->alloc, pages, sizeof(*task->checksums));
    task->block_pages = alloc_zeroed(w->alloc, pages_max, sizeof(*task->block_pages));
    if (!task->pages || !task->checksums || !task->block_pages ||
        blocks_init(w, &task->blocks, &m->tenant, &m->salt, pages_max) != MC_OK ||
        !copy_bytes(w, &m->salt, &task->salt) || !copy_bytes(w, &m->tenant, &task->tenant))
        return error_set(error, MC_E_NOMEM, "out of memory for a request of %u tokens",
                         task->token_count);
    return remote ? open_remote(task, m, error) : MC_OK;
}

/* Whole blocks that may be pulled, so that at least one token is left to compute. */
enum { COPY_BLOCKS_MAX = 4096 }; /* who asks for more is not understood */

static uint32_t pull_most(const struct task *task, const struct wire_prefill *m)
{
    const uint32_t blocks = (task->token_count - 1) / KV_PAGE_TOKENS;

    if (!task->worker->store || (m->cache & CACHE_UNREAD))
        return 0;
    return (blocks < PULL_BLOCKS_MAX ? blocks : PULL_BLOCKS_MAX) * KV_PAGE_TOKENS;
}

mc_status task_open(struct worker *w, struct gateway_link *gateway, const struct wire_prefill *m,
                    struct mc_error *error)
{
    mc_status status = check(w, m, error);

    if (status != MC_OK)
        return status;
    struct task *task = alloc_zeroed(w->alloc, 1, sizeof(*task));
    if (!task)
        return error_set(error, MC_E_NOMEM, "out of memory for a request");
    *task = (struct task){
        .worker = w,
        .timer = { .due = task_due, .user = task },
        .answer = { .worker = w, .gateway = gateway, .request = m->request },
        .place = { m->priority, m->order, ++w->arrivals },
        .cache = m->cache,
        .pull_ns = m->pull_ns ? m->pull_ns : TASK_PULL_NS,
    };
    task->job = (struct job){ .tell = task_news, .owner = task };
    status = fill(task, m, error);
    if (status != MC_OK) {
        task_free(task);
        return status;
    }
    const struct mc_kv_layout *layout = &w->engine_limits.layout;
    const uint64_t known = m->pull_tokens / KV_PAGE_TOKENS * KV_PAGE_TOKENS;
    task->pull_most = pull_most(task, m);
    if (!(m->cache & CACHE_UNWRITTEN) && m->copy_tokens / KV_PAGE_TOKENS <= COPY_BLOCKS_MAX) {
        task->copy_blocks = (uint32_t)(m->copy_tokens / KV_PAGE_TOKENS);
        task->copy_node = m->copy_node;
    }
    task->pull_known = known < task->pull_most ? (uint32_t)known : task->pull_most;
    const struct prefill_options options = {
        .layout = { layout->layers, KV_PAGE_TOKENS, w->page_bytes / layout->layers },
        .prompt_tokens = task->token_count,
        .pull_tokens = task->pull_known,
        .remote = m->reservation != 0,
        .pushes_max = w->limits.pushes_max,
        .push_pages = PUSH_PAGES,
        .lease_ns = task->window.lease_ns,
        .hand_off_ns = w->limits.hand_off_ns,
    };
    prefill_init(&task->machine, &options, os_loop_now(w->loop));
    task->index = w->task_count;
    w->tasks[w->task_count++] = task;
    task_happen(task, (struct prefill_event){ .kind = PREFILL_TIME }); /* sets its timer */
    return MC_OK;
}
