/* seats.c - the decode side of requests: carries out what core/decode.h decides. */
#include <assert.h>
#include <string.h>

#include "worker/state.h"

#define REVOKE_FIRST_NS UINT64_C(1000000)
#define REVOKE_MOST_NS UINT64_C(50000000)

void seat_due(void *user, uint64_t now_ns)
{
    (void)now_ns;
    seat_happen(user, (struct decode_event){ .kind = DECODE_TIME });
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
    seat_free(seat);
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

void seat_revoke_due(void *user, uint64_t now_ns)
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

void seat_news(void *owner, const struct runner_news *news)
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
        seat_verify(seat);
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
        seat_drop_pages(seat);
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

/* Stopping a long request's puts ends any number of them at once: one event for all. */
static bool joins_last(struct seat *seat, const struct decode_event *event)
{
    struct decode_event *last =
        &seat->inbox[(seat->inbox_first + seat->inbox_count + WORKER_INBOX_MAX - 1) %
                     WORKER_INBOX_MAX];

    if (seat->inbox_count == 0 || event->kind != DECODE_PUT_FINAL || last->kind != event->kind)
        return false;
    last->more += event->more + 1;
    return true;
}

/* Events that an outbox makes wait until it is carried out. */
void seat_happen(struct seat *seat, struct decode_event event)
{
    if (joins_last(seat, &event))
        return;
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
