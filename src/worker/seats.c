/* seats.c - the decode side of requests: carries out what core/decode.h decides. */
#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/crc.h"
#include "base/error.h"
#include "worker/state.h"

#define REVOKE_FIRST_NS UINT64_C(1000000)
#define REVOKE_MOST_NS UINT64_C(50000000)
#define LEASE_LEAST_NS UINT64_C(100000000)
#define LEASE_MOST_NS UINT64_C(3600000000000)

static void seat_happen(struct seat *seat, struct decode_event event);

/* ------------------------------------------------------------------------------------- open, free */

static void free_seat(struct seat *seat)
{
    struct worker *w = seat->worker;

    assert(seat->page_count == 0);
    os_loop_timer_stop(w->loop, &seat->timer);
    os_loop_timer_stop(w->loop, &seat->revoke_timer);
    request_close(seat->job.request);
    blocks_fini(w, &seat->blocks);
    sampling_fini(w, &seat->sampling);
    alloc_free(w->alloc, seat->block_pages);
    alloc_free(w->alloc, seat->checksums);
    alloc_free(w->alloc, seat->pages);
    alloc_free(w->alloc, seat);
}

static mc_status check(const struct worker *w, const struct wire_reserve *m, struct mc_error *error)
{
    if (w->draining)
        return error_set(error, MC_E_BUSY, "%s is draining: it takes no more", w->name);
    if (!(w->role & MC_ROLE_DECODE))
        return error_set(error, MC_E_UNSUPPORTED, "%s only prefills", w->name);
    if (memcmp(&m->fingerprint, &w->fingerprint, sizeof(w->fingerprint)) != 0)
        return error_set(error, MC_E_ARG, "the request is for another model than %s's", w->name);
    if (m->prompt_tokens == 0 || m->prompt_tokens >= w->context_max)
        return error_set(error, MC_E_RANGE,
                         "a prompt of %llu tokens; the context holds %u, answer included",
                         (unsigned long long)m->prompt_tokens, w->context_max);
    if (w->seat_count == w->seats_max)
        return error_set(error, MC_E_FULL, "%u reservations are here already", w->seat_count);
    return MC_OK;
}

static mc_status grant(struct seat *seat, uint64_t lease_ns, struct mc_error *error)
{
    struct worker *w = seat->worker;
    uint64_t *offsets = alloc_zeroed(w->alloc, seat->window_pages, sizeof(*offsets));

    if (!offsets)
        return error_set(error, MC_E_NOMEM, "out of memory for a window");
    for (uint32_t i = 0; i < seat->window_pages; i++)
        offsets[i] = pages_offset(w->pages, seat->pages[i]);
    const struct mc_window_options options = {
        .region = w->region,
        .offsets = offsets,
        .count = seat->window_pages,
        .piece_bytes = w->page_bytes,
        .lease_ns = lease_ns,
        .holder = seat->holder,
        .permissions = MC_REMOTE_WRITE,
    };
    const mc_status status = mc_window_grant(w->transfer, &options, &seat->window, error);
    alloc_free(w->alloc, offsets);
    return status;
}

static uint64_t lease_of(const struct worker *w, uint64_t asked_ns)
{
    const uint64_t lease = asked_ns ? asked_ns : w->limits.lease_ns;

    return lease < LEASE_LEAST_NS ? LEASE_LEAST_NS : lease < LEASE_MOST_NS ? lease : LEASE_MOST_NS;
}

/* Sampling, pages, window: all or nothing. */
static mc_status fill(struct seat *seat, const struct wire_reserve *m, struct mc_error *error)
{
    struct worker *w = seat->worker;
    /* One position more than the prompt: its first token can be computed at once. */
    const uint32_t pages = kv_pages(seat->prompt_tokens + 1);

    const mc_status status = sampling_read(w, &m->sampling, &seat->sampling, error);
    if (status != MC_OK)
        return status;
    seat->pages = alloc_zeroed(w->alloc, pages, sizeof(*seat->pages));
    seat->checksums = alloc_zeroed(w->alloc, pages, sizeof(*seat->checksums));
    if (!seat->pages || !seat->checksums)
        return error_set(error, MC_E_NOMEM, "out of memory for a reservation");
    /* A page for each that runs to grow into: fewer, and one would soon be thrown out. */
    if (!pages_reserve(w->pages, pages, w->seat_count, seat->pages))
        return error_set(error, MC_E_FULL,
                         "%u pages are asked for; %u are free, and %u others grow", pages,
                         pages_free(w->pages), w->seat_count);
    seat->page_count = pages;
    return grant(seat, lease_of(w, m->lease_ns), error);
}

static void drop_pages(struct seat *seat)
{
    pages_drop(seat->worker->pages, seat->pages, seat->page_count);
    seat->page_count = 0;
    worker_look_soon(seat->worker);
}

static void on_timer(void *user, uint64_t now_ns)
{
    (void)now_ns;
    seat_happen(user, (struct decode_event){ .kind = DECODE_TIME });
}

static void on_revoke_timer(void *user, uint64_t now_ns);
static void on_news(void *owner, const struct runner_news *news);

mc_status seat_open(struct worker *w, struct gateway_link *gateway, const struct wire_reserve *m,
                    struct seat **seat_p, struct mc_error *error)
{
    mc_status status = check(w, m, error);

    if (status != MC_OK)
        return status;
    struct seat *seat = alloc_zeroed(w->alloc, 1, sizeof(*seat));
    if (!seat)
        return error_set(error, MC_E_NOMEM, "out of memory for a reservation");
    *seat = (struct seat){
        .worker = w,
        .id = w->reservations + 1,
        .timer = { .due = on_timer, .user = seat },
        .revoke_timer = { .due = on_revoke_timer, .user = seat },
        .answer = { .worker = w, .gateway = gateway, .request = m->request },
        .holder = m->holder,
        .prompt_tokens = (uint32_t)m->prompt_tokens,
        .window_pages = kv_pages((uint32_t)m->prompt_tokens),
    };
    seat->job = (struct job){ .tell = on_news, .owner = seat };
    status = fill(seat, m, error);
    if (status != MC_OK) {
        if (seat->page_count > 0)
            drop_pages(seat);
        free_seat(seat);
        return status;
    }
    w->reservations++;
    decode_init(&seat->machine, seat->window.lease_ns, os_loop_now(w->loop));
    seat->index = w->seat_count;
    w->seats[w->seat_count++] = seat;
    seat_happen(seat, (struct decode_event){ .kind = DECODE_TIME }); /* sets its timer */
    *seat_p = seat;
    return MC_OK;
}

struct seat *seat_find(const struct worker *w, const struct gateway_link *gateway, uint64_t request)
{
    for (uint32_t i = 0; i < w->seat_count; i++)
        if (w->seats[i]->answer.gateway == gateway && w->seats[i]->answer.request == request)
            return w->seats[i];
    return NULL;
}

struct seat *seat_of(const struct worker *w, uint64_t reservation)
{
    for (uint32_t i = 0; i < w->seat_count; i++)
        if (w->seats[i]->id == reservation)
            return w->seats[i];
    return NULL;
}

static void remove_seat(struct seat *seat)
{
    struct worker *w = seat->worker;
    struct seat *last = w->seats[--w->seat_count];

    last->index = seat->index;
    w->seats[seat->index] = last;
    w->recent[w->recent_next++ % WORKER_RECENT_MAX] =
        (struct recent){ seat->id, seat->machine.status };
    if (seat->cancel_ask && seat->answer.gateway)
        worker_answer(seat->answer.gateway->conn, seat->cancel_ask, MC_OK, NULL);
    free_seat(seat);
    worker_look_soon(w);
}

void seat_cancel(struct seat *seat, uint64_t ask)
{
    if (ask)
        seat->cancel_ask = ask;
    seat_happen(seat, (struct decode_event){ .kind = DECODE_CANCEL });
}

void seats_forget_conn(struct worker *w, const net_conn *conn)
{
    for (uint32_t i = 0; i < w->seat_count; i++)
        if (w->seats[i]->hand_off_conn == conn)
            w->seats[i]->hand_off_conn = NULL;
}

/* ---------------------------------------------------------------------------------------- window */

/* Until it is quiet, its pages are in quarantine. */
static void revoke(struct seat *seat)
{
    struct worker *w = seat->worker;
    struct mc_error error = { 0 };
    const mc_status status = mc_window_revoke(w->transfer, &seat->window, MC_AT_ONCE, &error);

    if (status != MC_E_TIMEOUT) {
        if (status != MC_OK)
            worker_log(w, MC_LOG_ERROR,
                       "event=window_unknown reservation=%llu status=%s text=\"%s\"",
                       (unsigned long long)seat->id, mc_status_name(status), error.text);
        seat->revoke_wait_ns = 0;
        seat_happen(seat, (struct decode_event){ .kind = DECODE_QUIET });
        return;
    }
    seat->revoke_wait_ns = seat->revoke_wait_ns == 0 ? REVOKE_FIRST_NS : 2 * seat->revoke_wait_ns;
    if (seat->revoke_wait_ns > REVOKE_MOST_NS)
        seat->revoke_wait_ns = REVOKE_MOST_NS;
    if (os_loop_timer(w->loop, &seat->revoke_timer, os_loop_now(w->loop) + seat->revoke_wait_ns) !=
        MC_OK)
        worker_log(w, MC_LOG_ERROR, "event=no_timer text=\"out of memory\"");
}

static void on_revoke_timer(void *user, uint64_t now_ns)
{
    (void)now_ns;
    revoke(user);
}

void seat_quieten(struct seat *seat, uint64_t until_ns)
{
    struct mc_error error = { 0 };

    if (seat->revoke_wait_ns == 0)
        return; /* it waits for something else, which is a bug: the caller asserts */
    const mc_status status =
        mc_window_revoke(seat->worker->transfer, &seat->window, until_ns, &error);
    if (status != MC_OK) /* the region, and with it the memory, is not given back either */
        worker_log(seat->worker, MC_LOG_ERROR, "event=window_not_quiet status=%s text=\"%s\"",
                   mc_status_name(status), error.text);
    seat->revoke_wait_ns = 0;
    seat_happen(seat, (struct decode_event){ .kind = DECODE_QUIET });
}

/* -------------------------------------------------------------------------------------- hand-off */

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
                                       .lease_ns = m->lease_ns ? lease_of(w, m->lease_ns) : 0 });
}

/* No write can come any more: what is there now is what will be read. */
static void verify(struct seat *seat)
{
    mc_status status = MC_OK;

    for (uint32_t i = 0; i < seat->window_pages && status == MC_OK; i++)
        if (crc32c(0, seat->pages[i], seat->worker->page_bytes) != seat->checksums[i]) {
            status = MC_E_CORRUPT;
            worker_count(seat->worker, METRIC_corrupt, 1);
            worker_log(seat->worker, MC_LOG_ERROR, "event=page_corrupt request=%llu page=%u",
                       (unsigned long long)seat->answer.request, i);
        }
    seat_happen(seat, (struct decode_event){ .kind = DECODE_VERIFIED, .status = status });
}

/* ------------------------------------------------------------------------------------- the answer */

/* The first token is there already, and may be the last one. */
static void join(struct seat *seat)
{
    struct worker *w = seat->worker;
    struct request *r = seat->job.request;

    worker_count(w, METRIC_joined, 1);
    memcpy(r->pages, seat->pages, seat->page_count * sizeof(*r->pages));
    r->page_count = seat->page_count;
    r->computed = seat->prompt_tokens;
    seat->page_count = 0;
    request_take(r, &seat->first);
    const enum request_finish finish = r->finish;
    const bool heard = answer_token(&seat->answer, &seat->first, finish, 0);
    if (finish == REQUEST_RUNNING) {
        seat->job.first_block = w->store && !(seat->cache & CACHE_UNWRITTEN)
                                    ? seat->prompt_tokens / KV_PAGE_TOKENS
                                    : UINT32_MAX;
        seat->job.block_pages = seat->block_pages;
        runner_add(w->runner, &seat->job);
    } else {
        pages_drop(w->pages, r->pages, r->page_count);
        r->page_count = 0;
        r->computed = 0;
        worker_look_soon(w);
        seat_happen(seat, (struct decode_event){ .kind = DECODE_OUT });
    }
    if (!heard)
        seat_cancel(seat, 0);
}

static void on_put_final(void *owner)
{
    seat_happen(owner, (struct decode_event){ .kind = DECODE_PUT_FINAL });
}

static void put_blocks(struct seat *seat, uint32_t first, uint32_t count)
{
    struct worker *w = seat->worker;

    if (seat->machine.phase == DECODE_ENDING) {
        pages_drop(w->pages, seat->block_pages + first, count);
        return;
    }
    blocks_name(&seat->blocks, seat->job.request->tokens, first + count);
    while (count > 0) {
        const uint32_t some = count < PUT_BLOCKS_MAX ? count : PUT_BLOCKS_MAX;
        if (pool_put(&w->pool, seat->blocks.identities + first, seat->block_pages + first, some,
                     on_put_final, seat))
            seat_happen(seat, (struct decode_event){ .kind = DECODE_PUT });
        first += some;
        count -= some;
    }
    pool_go_on(&w->pool);
}

static void on_out(struct seat *seat, const struct runner_news *news)
{
    const struct request *r = seat->job.request;

    if (news->finish == REQUEST_ERROR) {
        worker_log(seat->worker, MC_LOG_ERROR, "event=engine_failed request=%llu text=\"%s\"",
                   (unsigned long long)seat->answer.request, r->why);
        answer_failed(&seat->answer, MC_E_IO, r->why);
    }
    seat_happen(seat, (struct decode_event){ .kind = DECODE_OUT });
}

static void on_news(void *owner, const struct runner_news *news)
{
    struct seat *seat = owner;
    struct runner_state engine;

    switch (news->kind) {
    case RUNNER_PROGRESS:
        break; /* a prompt that was thrown out is computed again */
    case RUNNER_BLOCKS:
        put_blocks(seat, news->first, news->count);
        break;
    case RUNNER_TOKEN:
        if (seat->machine.phase != DECODE_DECODING)
            break;
        runner_state(seat->worker->runner, &engine);
        if (!answer_token(&seat->answer, &news->sample, news->finish, engine.step_ns))
            seat_cancel(seat, 0);
        break;
    case RUNNER_OUT:
        on_out(seat, news);
        break;
    }
}

/* ------------------------------------------------------------------------------------------ steps */

static void tell(struct seat *seat, mc_status status)
{
    worker_count(seat->worker, METRIC_expired, 1);
    answer_failed(&seat->answer, status, "the prefill made no progress: its reservation ended");
}

static void carry_out(struct seat *seat, const struct decode_out *out)
{
    struct worker *w = seat->worker;

    switch (out->kind) {
    case DECODE_OUT_RENEW:
        if (mc_window_renew(w->transfer, &seat->window, out->lease_ns) != MC_OK)
            worker_log(w, MC_LOG_WARN, "event=window_not_renewed reservation=%llu",
                       (unsigned long long)seat->id); /* it has just ended: so will we */
        break;
    case DECODE_OUT_REVOKE:
        revoke(seat);
        break;
    case DECODE_OUT_VERIFY:
        verify(seat);
        break;
    case DECODE_OUT_JOIN:
        join(seat);
        break;
    case DECODE_OUT_STOP_ENGINE:
        runner_cancel(w->runner, &seat->job);
        break;
    case DECODE_OUT_STOP_PUTS:
        pool_stop_puts(&w->pool, seat);
        break;
    case DECODE_OUT_ANSWER_RENEW:
        worker_answer(seat->renew_conn, seat->renew_ask, out->status, NULL);
        break;
    case DECODE_OUT_ANSWER_HAND_OFF:
        worker_answer(seat->hand_off_conn, seat->hand_off_ask, out->status,
                      out->status == MC_OK ? NULL : mc_status_text(out->status));
        break;
    case DECODE_OUT_TELL:
        tell(seat, out->status);
        break;
    case DECODE_OUT_DROP:
        drop_pages(seat);
        break;
    case DECODE_OUT_FREE:
        break; /* when the outbox is empty */
    }
}

static void set_timer(struct seat *seat)
{
    os_loop *loop = seat->worker->loop;
    const uint64_t due = decode_due_ns(&seat->machine);

    if (due == UINT64_MAX)
        os_loop_timer_stop(loop, &seat->timer);
    else if (due != seat->timer.at_ns || !seat->timer.place)
        if (os_loop_timer(loop, &seat->timer, due) != MC_OK)
            worker_log(seat->worker, MC_LOG_ERROR, "event=no_timer text=\"out of memory\"");
}

/* Events that an outbox makes wait until it is carried out. */
static void seat_happen(struct seat *seat, struct decode_event event)
{
    assert(seat->inbox_count < WORKER_INBOX_MAX);
    seat->inbox[(seat->inbox_first + seat->inbox_count++) % WORKER_INBOX_MAX] = event;
    if (seat->stepping)
        return;
    seat->stepping = true;
    while (seat->inbox_count > 0) {
        struct decode_outbox outbox = { 0 };
        const struct decode_event next = seat->inbox[seat->inbox_first];
        seat->inbox_first = (seat->inbox_first + 1) % WORKER_INBOX_MAX;
        seat->inbox_count--;
        decode_step(&seat->machine, os_loop_now(seat->worker->loop), &next, &outbox);
        for (uint32_t i = 0; i < outbox.count; i++)
            carry_out(seat, &outbox.items[i]);
    }
    seat->stepping = false;
    if (seat->machine.phase == DECODE_DONE)
        remove_seat(seat);
    else
        set_timer(seat);
}
