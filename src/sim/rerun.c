/* rerun.c - recorded events into a new scheduler, its decisions against the recorded ones. */
#include "sim/rerun.h"

#include <string.h>

#include "base/alloc.h"
#include "base/error.h"

enum { REASONS = 64, NOW_FIRST = 64, BODY_FIRST = 4096 };

/* --------------------------------------------------------------------------------------- differences */

static void differ(struct rerun *r, enum rerun_difference kind, const struct mc_decision *then,
                   const struct mc_decision *now)
{
    if (r->first.kind != RERUN_SAME)
        return;
    r->first.kind = kind;
    r->first.event = r->events;
    r->first.now_ns = r->end_ns;
    r->first.event_kind = r->event_kind;
    if (then)
        r->first.then = *then;
    if (now)
        r->first.now = *now;
    r->first.then.keys = r->first.now.keys = NULL; /* of a scheduler that goes on */
}

static void count(struct rerun *r, const struct mc_decision *d)
{
    r->decisions++;
    r->placed += d->kind == MC_DECIDE_PLACE;
    r->refused += d->kind == MC_DECIDE_REFUSE;
    r->others += d->kind != MC_DECIDE_PLACE && d->kind != MC_DECIDE_REFUSE;
    if (d->kind == MC_DECIDE_REFUSE)
        r->refused_by[d->reason < REASONS ? d->reason : REASONS - 1]++;
}

/* The recording goes on with another event, or ends: what is decided now and was not taken is too much. */
static void close_event(struct rerun *r)
{
    if (r->now_taken < r->now_count)
        differ(r, RERUN_EXTRA, NULL, &r->now[r->now_taken]);
    r->now_count = r->now_taken = 0;
}

/* ------------------------------------------------------------------------------------------ records */

static mc_status take_all(struct rerun *r)
{
    size_t taken = 0;

    while (mc_sched_take(r->sched, r->now + r->now_count, r->now_max - r->now_count, &taken) ==
           MC_OK) {
        r->now_count += (uint32_t)taken;
        if (r->now_count < r->now_max)
            continue;
        struct mc_decision *more =
            alloc_resize(r->alloc, r->now, (size_t)r->now_max * 2, sizeof(*more));
        if (!more)
            return MC_E_NOMEM;
        r->now = more;
        r->now_max *= 2;
    }
    return MC_OK;
}

static mc_status play_event(struct rerun *r, const struct record *record, struct mc_error *error)
{
    struct mc_sched_event event;
    uint64_t now_ns;
    mc_status then;

    close_event(r);
    mc_status status = record_event_read(record, r->keys, r->body_max / sizeof(*r->keys), &now_ns,
                                         &event, &then, error);
    if (status != MC_OK)
        return status;
    r->begin_ns = r->events == 0 ? now_ns : r->begin_ns;
    r->end_ns = now_ns;
    r->event_kind = event.kind;
    r->events++;
    status = mc_sched_step(r->sched, now_ns, &event);
    r->skipped += status != MC_OK;
    if (status != then && r->first.kind == RERUN_SAME) {
        r->first.then_status = then;
        r->first.now_status = status;
        differ(r, RERUN_STATUS, NULL, NULL);
    }
    return take_all(r) == MC_OK ? MC_OK
                                : error_set(error, MC_E_NOMEM, "out of memory for decisions");
}

static mc_status play_decision(struct rerun *r, const struct record *record, struct mc_error *error)
{
    struct mc_decision then;
    size_t size = 0;
    const mc_status status = record_decision_read(record, &then, error);

    if (status != MC_OK)
        return status;
    if (r->events == 0)
        return error_set(error, MC_E_FORMAT, "recording: a decision before any event");
    count(r, &then);
    if (r->now_taken == r->now_count) {
        differ(r, RERUN_MISSING, &then, NULL);
        return MC_OK;
    }
    const struct mc_decision *now = &r->now[r->now_taken++];
    if (record_decision_write(now, r->decision, r->body_max, &size) != MC_OK ||
        size != record->size || memcmp(r->decision, record->body, size) != 0)
        differ(r, RERUN_DECISION, &then, now);
    return MC_OK;
}

/* Room for whatever the record holds; a decision that is longer now is another one. */
static mc_status make_room(struct rerun *r, size_t size, struct mc_error *error)
{
    const size_t most = size > BODY_FIRST ? 2 * size : BODY_FIRST;

    if (size <= r->body_max)
        return MC_OK;
    struct mc_key *keys = alloc_resize(r->alloc, r->keys, most / sizeof(*keys), sizeof(*keys));
    if (keys)
        r->keys = keys;
    uint8_t *decision = keys ? alloc_resize(r->alloc, r->decision, most, 1) : NULL;
    if (!decision)
        return error_set(error, MC_E_NOMEM, "out of memory for a record of %zu bytes", size);
    r->decision = decision;
    r->body_max = most;
    return MC_OK;
}

static mc_status play(struct rerun *r, const struct record *record, struct mc_error *error)
{
    const mc_status room = make_room(r, record->size, error);

    if (room != MC_OK)
        return room;
    switch (record->kind) {
    case RECORD_EVENT:
        return play_event(r, record, error);
    case RECORD_DECISION:
        return play_decision(r, record, error);
    case RECORD_END:
        close_event(r);
        r->ended = true;
        return record_end_read(record, &r->last, error);
    case RECORD_OPTIONS:
        break;
    }
    return error_set(error, MC_E_FORMAT, "recording: byte %zu: options again", r->at);
}

mc_status rerun_step(struct rerun *r, uint64_t records, struct mc_error *error)
{
    struct record record;

    for (; records > 0; records--) {
        mc_status status = record_next(r->bytes, r->size, &r->at, &record, error);
        if (status == MC_E_NOT_FOUND || status == MC_PENDING) {
            /* Cut off where it ends, the last event's decisions may be what is missing. */
            r->cut = status == MC_PENDING;
            return MC_OK;
        }
        if (status == MC_OK && r->ended)
            status = error_set(error, MC_E_FORMAT, "recording: byte %zu: something behind its end",
                               r->at);
        if (status == MC_OK)
            status = play(r, &record, error);
        if (status != MC_OK)
            return status;
    }
    return MC_PENDING;
}

/* --------------------------------------------------------------------------------------------- life */

static mc_status take_memory(struct rerun *r, struct mc_error *error)
{
    r->now_max = NOW_FIRST;
    r->now = alloc_zeroed(r->alloc, r->now_max, sizeof(*r->now));
    return r->now ? MC_OK : error_set(error, MC_E_NOMEM, "out of memory to play a recording");
}

static mc_status open_sched(struct rerun *r, struct mc_error *error)
{
    struct record record = { 0 };
    mc_status status = record_next(r->bytes, r->size, &r->at, &record, error);

    if (status == MC_E_NOT_FOUND || status == MC_PENDING)
        return error_set(error, MC_E_FORMAT, "recording: it ends before its options");
    if (status == MC_OK && record.kind != RECORD_OPTIONS)
        status = error_set(error, MC_E_FORMAT, "recording: it does not begin with options");
    if (status == MC_OK)
        status = record_options_read(&record, &r->options, error);
    if (status != MC_OK)
        return status;
    r->options.options.alloc = r->alloc;
    return mc_sched_open(&r->options.options, &r->sched, error);
}

mc_status rerun_open(struct rerun *r, const void *bytes, size_t size, const struct mc_alloc *alloc,
                     struct mc_error *error)
{
    memset(r, 0, sizeof(*r));
    r->alloc = alloc;
    r->bytes = bytes;
    r->size = size;
    mc_status status = take_memory(r, error);
    if (status == MC_OK)
        status = open_sched(r, error);
    if (status != MC_OK)
        rerun_close(r);
    return status;
}

void rerun_close(struct rerun *r)
{
    if (!r->alloc)
        return;
    mc_sched_close(r->sched);
    alloc_free(r->alloc, r->now);
    alloc_free(r->alloc, r->decision);
    alloc_free(r->alloc, r->keys);
    r->sched = NULL;
    r->now = NULL;
    r->decision = NULL;
    r->keys = NULL;
    r->alloc = NULL;
}
