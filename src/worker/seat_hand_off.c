/* seat_hand_off.c - what the prefill worker says of a reservation: it goes on, its pages are full. */
#include <string.h>

#include "base/alloc.h"
#include "base/crc.h"
#include "base/error.h"
#include "worker/state.h"

/* Whether it is what was reserved for. */
static mc_status check_hand_off(const struct seat *seat, const struct wire_hand_off *m,
                                struct mc_error *error)
{
    const struct worker *w = seat->worker;

    if (m->request != seat->answer.request)
        return error_set(error, MC_E_ARG, "reservation %llu is for another request",
                         (unsigned long long)seat->id);
    if (memcmp(&m->fingerprint, &w->fingerprint, sizeof(w->fingerprint)) != 0)
        return error_set(error, MC_E_ARG, "the request is for another model than %s's", w->name);
    if (m->tokens.count != seat->prompt_tokens || m->position != seat->prompt_tokens)
        return error_set(error, MC_E_ARG, "a prompt of %u tokens; %u were reserved",
                         m->tokens.count, seat->prompt_tokens);
    if (m->checksums.count != seat->window_pages)
        return error_set(error, MC_E_ARG, "checksums of %u pages; there are %u", m->checksums.count,
                         seat->window_pages);
    if (m->first.token >= w->info.vocab_size)
        return error_set(error, MC_E_RANGE, "first token: %u; the model has %u", m->first.token,
                         w->info.vocab_size);
    for (uint32_t i = 0; i < m->tokens.count; i++)
        if (wire_u32_at(&m->tokens, i) >= w->info.vocab_size)
            return error_set(error, MC_E_RANGE, "token %u of the prompt is beyond the model's %u",
                             i, w->info.vocab_size);
    return MC_OK;
}

static mc_status open_request(struct seat *seat, const struct wire_hand_off *m,
                              struct mc_error *error)
{
    struct worker *w = seat->worker;
    uint32_t *tokens = alloc_zeroed(w->alloc, m->tokens.count, sizeof(*tokens));

    if (!tokens)
        return error_set(error, MC_E_NOMEM, "out of memory for a prompt of %u tokens",
                         m->tokens.count);
    for (uint32_t i = 0; i < m->tokens.count; i++)
        tokens[i] = wire_u32_at(&m->tokens, i);
    const mc_status status =
        sampling_request(w, &seat->sampling, tokens, m->tokens.count, false, &seat->job, error);
    alloc_free(w->alloc, tokens);
    if (status != MC_OK)
        return status;
    const uint32_t pages_max = kv_pages(seat->job.request->token_max);
    seat->block_pages = alloc_zeroed(w->alloc, pages_max, sizeof(*seat->block_pages));
    if (!seat->block_pages ||
        blocks_init(w, &seat->blocks, &m->tenant, &m->salt, pages_max) != MC_OK)
        return error_set(error, MC_E_NOMEM, "out of memory for a request");
    for (uint32_t i = 0; i < seat->window_pages; i++)
        seat->checksums[i] = wire_u32_at(&m->checksums, i);
    seat->cache = m->cache;
    return MC_OK;
}

/* The first that fits is kept; one that comes again is only answered again. A failure leaves it as it was,
 * so that the same may be asked again. */
static mc_status accept(struct seat *seat, const struct wire_hand_off *m, struct mc_error *error)
{
    mc_status status = check_hand_off(seat, m, error);

    if (status != MC_OK || seat->machine.phase != DECODE_RESERVED)
        return status;
    if (!answer_read_sample(&m->first, &seat->first))
        return error_set(error, MC_E_FORMAT, "first token: not a sample");
    status = open_request(seat, m, error);
    if (status != MC_OK) {
        request_close(seat->job.request);
        seat->job.request = NULL;
        blocks_fini(seat->worker, &seat->blocks);
        alloc_free(seat->worker->alloc, seat->block_pages);
        seat->block_pages = NULL;
    }
    return status;
}

/* Only the worker that the pages were reserved for speaks of them. */
static bool is_holder(const struct seat *seat, const net_conn *conn)
{
    const struct net_peer *peer = net_conn_peer(conn);

    return seat->holder == 0 || (peer && peer->incarnation == seat->holder);
}

static mc_status recent_status(const struct worker *w, uint64_t reservation)
{
    for (uint32_t i = 0; i < WORKER_RECENT_MAX; i++)
        if (w->recent[i].reservation == reservation && reservation != 0)
            return w->recent[i].status;
    return MC_E_STALE;
}

void seat_hand_off(struct worker *w, net_conn *conn, uint64_t ask, const struct wire_hand_off *m)
{
    struct seat *seat = seat_of(w, m->reservation);
    struct mc_error error = { 0 };

    if (!seat) {
        worker_answer(conn, ask, recent_status(w, m->reservation),
                      "there is no such reservation (any more)");
        return;
    }
    if (!is_holder(seat, conn)) {
        worker_answer(conn, ask, MC_E_DENIED, "the reservation is for another worker");
        return;
    }
    const mc_status status = accept(seat, m, &error);
    if (status != MC_OK)
        worker_log(w, MC_LOG_WARN, "event=hand_off_refused request=%llu status=%s text=\"%s\"",
                   (unsigned long long)m->request, mc_status_name(status), error.text);
    seat->hand_off_conn = conn;
    seat->hand_off_ask = ask;
    seat_happen(seat, (struct decode_event){ .kind = DECODE_HAND_OFF, .status = status });
}

void seat_renew(struct worker *w, net_conn *conn, uint64_t ask,
                const struct wire_reservation_renew *m)
{
    struct seat *seat = seat_of(w, m->reservation);

    if (!seat) {
        const mc_status status = recent_status(w, m->reservation);
        worker_answer(conn, ask, status == MC_OK ? MC_OK : MC_E_STALE, NULL);
        return;
    }
    if (!is_holder(seat, conn)) {
        worker_answer(conn, ask, MC_E_DENIED, "the reservation is for another worker");
        return;
    }
    seat->renew_conn = conn;
    seat->renew_ask = ask;
    seat_happen(seat,
                (struct decode_event){ .kind = DECODE_RENEW,
                                       .tokens = m->tokens,
                                       .queued = m->queued,
                                       .lease_ns = m->lease_ns ? seat_lease(w, m->lease_ns) : 0 });
}

/* No write can come any more: what is there now is what will be read. */
void seat_verify(struct seat *seat)
{
    mc_status status = MC_OK;

    for (uint32_t i = 0; i < seat->window_pages && status == MC_OK; i++)
        if (crc32c(0, seat->pages[i], seat->worker->page_bytes) != seat->checksums[i]) {
            status = MC_E_CORRUPT;
            worker_count(seat->worker, METRIC_corrupt, 1);
            worker_log(seat->worker, MC_LOG_ERROR, "event=page_corrupt request=%llu page=%u",
                       (unsigned long long)seat->answer.request, i);
        }
    delay_verified(seat, status);
}
