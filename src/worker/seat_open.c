/* seat_open.c - a reservation: checked, given pages and a window over them, and freed again. */
#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "worker/state.h"

#define LEASE_LEAST_NS UINT64_C(100000000)
#define LEASE_MOST_NS UINT64_C(3600000000000)

void seat_free(struct seat *seat)
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

uint64_t seat_lease(const struct worker *w, uint64_t asked_ns)
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
    return grant(seat, seat_lease(w, m->lease_ns), error);
}

void seat_drop_pages(struct seat *seat)
{
    pages_drop(seat->worker->pages, seat->pages, seat->page_count);
    seat->page_count = 0;
    worker_look_soon(seat->worker);
}

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
        .timer = { .due = seat_due, .user = seat },
        .revoke_timer = { .due = seat_revoke_due, .user = seat },
        .answer = { .worker = w, .gateway = gateway, .request = m->request },
        .holder = m->holder,
        .prompt_tokens = (uint32_t)m->prompt_tokens,
        .window_pages = kv_pages((uint32_t)m->prompt_tokens),
    };
    seat->job = (struct job){ .tell = seat_news, .owner = seat };
    status = fill(seat, m, error);
    if (status != MC_OK) {
        if (seat->page_count > 0)
            seat_drop_pages(seat);
        seat_free(seat);
        return status;
    }
    w->reservations++;
    decode_init(&seat->machine, seat->window.lease_ns, os_loop_now(w->loop));
    seat->index = w->seat_count;
    w->seats[w->seat_count++] = seat;
    seat_due(seat, 0); /* sets its timer */
    *seat_p = seat;
    return MC_OK;
}
