/* batch.c - a batch's life: collect transfers, submit them, count what is finished. */
#include "transfer/batch.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "os/clock.h"
#include "transfer/segment.h"

enum { CAPACITY_DEFAULT = 64, CAPACITY_MAX = 1 << 20 };

/* ------------------------------------------------------------------------------- opening, adding */

mc_status mc_batch_open(mc_transfer *engine, const struct mc_batch_options *options,
                        mc_batch **batch_p)
{
    const struct mc_batch_options o = options ? *options : (struct mc_batch_options){ 0 };
    const uint64_t capacity = o.capacity ? o.capacity : CAPACITY_DEFAULT;

    if (o.reserved[0] | o.reserved[1] | o.reserved[2] | o.reserved[3])
        return MC_E_UNSUPPORTED;
    if (capacity > CAPACITY_MAX || o.priority >= PRIORITIES || o.checksum > MC_CHECKSUM_CRC32C)
        return MC_E_RANGE;
    mc_batch *batch = alloc_zeroed(engine->alloc, 1, sizeof(*batch));
    if (!batch)
        return MC_E_NOMEM;
    batch->segments_max =
        capacity < engine->sessions_max ? (uint32_t)capacity : engine->sessions_max;
    size_t bytes;
    const bool fits = size_mul(capacity, sizeof(struct entry), &bytes);
    batch->entries = fits ? alloc_bytes(engine->alloc, bytes) : NULL; /* set when they are added */
    batch->segments = alloc_zeroed(engine->alloc, batch->segments_max, sizeof(struct segment *));
    if (!batch->entries || !batch->segments) {
        alloc_free(engine->alloc, batch->entries);
        alloc_free(engine->alloc, batch->segments);
        alloc_free(engine->alloc, batch);
        return MC_E_NOMEM;
    }
    batch->engine = engine;
    batch->capacity = capacity;
    batch->priority = o.priority;
    batch->checksum = o.checksum;
    batch->final = MC_PENDING;
    batch->event = -1;
    batch->post = (struct os_post){ .run = notices_run, .user = batch };
    atomic_init(&batch->deadline_ns, deadline_of(o.deadline_ns));
    pthread_mutex_init(&batch->lock, NULL);
    pthread_mutex_lock(&engine->batches_lock);
    batch->next = engine->batches;
    batch->prev_p = &engine->batches;
    if (batch->next)
        batch->next->prev_p = &batch->next;
    engine->batches = batch;
    engine->batch_count++;
    pthread_mutex_unlock(&engine->batches_lock);
    *batch_p = batch;
    return MC_OK;
}

/* The segment of an id, of which the batch keeps one ref. NULL: there is none, or no room. */
static struct segment *segment_of(mc_batch *batch, uint32_t id, bool *full_p)
{
    const uint32_t count = atomic_load_explicit(&batch->segment_count, memory_order_relaxed);

    for (uint32_t i = count; i-- > 0;) { /* the last one is most likely */
        if (batch->segments[i]->id == id && !atomic_load(&batch->segments[i]->closed))
            return batch->segments[i];
    }
    struct segment *segment = segment_take(batch->engine, id);
    if (!segment)
        return NULL;
    if (count == batch->segments_max) {
        segment_unref(segment);
        *full_p = true;
        return NULL;
    }
    batch->segments[count] = segment;
    atomic_store_explicit(&batch->segment_count, count + 1, memory_order_release);
    return segment;
}

/* Pieces side by side or strided mostly lie in one region, so ask for all at once first. */
static bool local_is_registered(mc_transfer *engine, const struct mc_xfer *xfer)
{
    const uint64_t pieces = plan_pieces(xfer);
    const bool write = xfer->op == MC_READ;

    if (xfer->length == 0)
        return true;
    if (!xfer->local_table) {
        const uint64_t span = (pieces - 1) * xfer->local_stride + xfer->length;
        if (use_allowed(engine, xfer->local, span, write))
            return true;
        if (pieces == 1)
            return false;
    }
    for (uint64_t i = 0; i < pieces; i++) {
        if (!use_allowed(engine, plan_local(xfer, i), xfer->length, write))
            return false;
    }
    return true;
}

static mc_status check_xfer(mc_batch *batch, const struct mc_xfer *xfer, struct entry *entry)
{
    bool full = false;

    if ((xfer->op != MC_READ && xfer->op != MC_WRITE) || (xfer->reserved[0] | xfer->reserved[1]))
        return MC_E_ARG;
    struct segment *segment = segment_of(batch, xfer->segment, &full);
    if (!segment)
        return full ? MC_E_FULL : MC_E_ARG;
    uint64_t end = 0;
    if (plan_check(xfer, &end) != MC_OK)
        return MC_E_RANGE;
    if (!local_is_registered(batch->engine, xfer))
        return MC_E_DENIED;
    memset(entry, 0, sizeof(*entry));
    entry->batch = batch;
    entry->segment = segment;
    entry->xfer = *xfer;
    if (xfer->window)
        entry->window = *xfer->window;
    entry->end = end;
    entry->total = plan_pieces(xfer) * xfer->length;
    atomic_init(&entry->status, MC_PENDING);
    atomic_init(&entry->transport, "");
    return xfer->window && !(entry->window.key[0] | entry->window.key[1]) ? MC_E_ARG : MC_OK;
}

mc_status mc_batch_add(mc_batch *batch, const struct mc_xfer *xfers, size_t count)
{
    if (batch->final != MC_PENDING)
        return batch->final == MC_OK ? MC_E_BUSY : batch->final;
    if (count > batch->capacity - batch->added)
        return MC_E_FULL;
    for (size_t i = 0; i < count; i++) {
        const mc_status status = check_xfer(batch, &xfers[i], &batch->entries[batch->added + i]);
        if (status != MC_OK)
            return status;
    }
    batch->added += count;
    return MC_OK;
}

/* -------------------------------------------------------------------------------- parts, and errors */

void batch_fail(struct mc_batch *batch, mc_status status, const struct mc_error *error)
{
    pthread_mutex_lock(&batch->lock);
    if (batch->error == MC_OK) {
        batch->error = status;
        if (error && error->status != MC_OK)
            batch->text = *error;
        else
            error_set(&batch->text, status, "%s", mc_status_text(status));
        batch->text.status = status;
    }
    pthread_mutex_unlock(&batch->lock);
}

/* The owner frees the batch once it has seen that nothing is unfinished and has held the lock after
 * that, so whoever counts down to nothing does all the rest under it. */
void batch_part_done(struct mc_batch *batch)
{
    pthread_mutex_lock(&batch->lock);
    if (batch->notices && !batch->noticing && batch->error == MC_OK &&
        batch_stopped(batch) == MC_OK && atomic_load(&batch->unfinished) == 1) {
        /* What is counted goes over to the notices: the owner, who does not lock to look, must never
         * see nothing in between. */
        batch->noticing = true;
        os_loop_post(batch->engine->loop, &batch->post);
    } else if (atomic_fetch_sub(&batch->unfinished, 1) == 1 && batch->wanted) {
        os_event_raise(batch->event);
    }
    pthread_mutex_unlock(&batch->lock);
}

void batch_entry_done(struct entry *entry, mc_status status, const struct mc_error *error)
{
    struct mc_batch *batch = entry->batch;

    if (status != MC_OK)
        batch_fail(batch, status, error);
    atomic_store_explicit(&entry->finished_ns, os_now_ns(), memory_order_relaxed);
    atomic_store_explicit(&entry->status, (int)status, memory_order_release);
    batch_part_done(batch);
}

/* ------------------------------------------------------------------------------------ submitting */

/* Entries that follow each other to the same segment go there in one chain, newest first. */
static void push_new(mc_batch *batch, uint64_t now_ns)
{
    uint64_t i = batch->submitted;

    batch->submitted = batch->added;
    while (i < batch->added) {
        struct entry *oldest = &batch->entries[i], *newest = NULL;
        struct segment *segment = oldest->segment;
        for (; i < batch->added && batch->entries[i].segment == segment; i++) {
            struct entry *entry = &batch->entries[i];
            entry->submitted_ns = now_ns;
            entry->next = newest;
            newest = entry;
        }
        segment_push(segment, newest, oldest);
    }
}

mc_status mc_batch_submit(mc_batch *batch)
{
    const uint64_t count = batch->added - batch->submitted;

    if (batch->final != MC_PENDING)
        return batch->final;
    batch->started = true;
    const uint64_t deadline_ns = atomic_load(&batch->deadline_ns);
    const uint64_t now_ns = os_now_ns();
    if (deadline_ns <= now_ns) /* nothing is begun after it */
        batch_stop(batch, MC_E_TIMEOUT, true);
    if (batch_stopped(batch) != MC_OK) {
        batch->submitted = batch->added; /* they end with the batch */
        batch_fail(batch, batch_stopped(batch), NULL);
        return MC_OK;
    }
    atomic_fetch_add(&batch->unfinished, count + 1); /* one for this call */
    if (deadline_ns != UINT64_MAX)
        engine_alarm(batch->engine, deadline_ns);
    if (count > 0) {
        atomic_fetch_add(&batch->engine->busy, (uint32_t)count);
        engine_tick(batch->engine);
        push_new(batch, now_ns);
    }
    batch_part_done(batch);
    return MC_OK;
}

/* -------------------------------------------------------------------------------------- stopping */

void batch_stop(struct mc_batch *batch, mc_status reason, bool drive)
{
    int none = MC_OK;

    if (!atomic_compare_exchange_strong(&batch->stop, &none, (int)reason))
        return;
    pthread_mutex_lock(&batch->lock);
    if (batch->noticing)
        engine_kick(batch->engine); /* the loop has them, and sees that it is stopped */
    if (batch->wanted)
        os_event_raise(batch->event);
    pthread_mutex_unlock(&batch->lock);
    const uint32_t count = atomic_load_explicit(&batch->segment_count, memory_order_acquire);
    for (uint32_t i = 0; i < count; i++) {
        atomic_store(&batch->segments[i]->attention, true);
        if (drive)
            (void)segment_drive(batch->segments[i]);
        else
            segment_call(batch->segments[i]);
    }
}

uint64_t batches_expire(mc_transfer *engine, uint64_t now_ns)
{
    uint64_t next_ns = UINT64_MAX;

    pthread_mutex_lock(&engine->batches_lock);
    for (mc_batch *batch = engine->batches; batch; batch = batch->next) {
        if (atomic_load(&batch->unfinished) == 0)
            continue;
        const uint64_t at_ns = atomic_load(&batch->deadline_ns);
        if (at_ns <= now_ns)
            batch_stop(batch, MC_E_TIMEOUT, false);
        else if (at_ns < next_ns)
            next_ns = at_ns;
        if (batch_stopped(batch) != MC_OK)
            notices_stop(batch);
    }
    pthread_mutex_unlock(&engine->batches_lock);
    return next_ns;
}

mc_status mc_batch_cancel(mc_batch *batch)
{
    batch_stop(batch, MC_E_CANCELLED, true);
    return MC_OK;
}

/* ------------------------------------------------------------------------------------ what became */

/* What the owner is told from now on, if nothing touches its memory any more. */
static mc_status settle(mc_batch *batch)
{
    const mc_status stopped = batch_stopped(batch);

    if (atomic_load(&batch->unfinished) != 0 || (!batch->started && stopped == MC_OK))
        return MC_PENDING;
    pthread_mutex_lock(&batch->lock); /* whoever counted last has let go of it now */
    const bool silent = batch->notices && !batch->noticing;
    mc_status status = batch->error;
    pthread_mutex_unlock(&batch->lock);
    if (status == MC_OK && stopped != MC_OK &&
        (!batch->started || batch->added > batch->submitted || silent)) {
        batch_fail(batch, stopped, NULL);
        status = stopped;
    }
    if (status == MC_OK && batch->added > batch->submitted)
        return MC_PENDING; /* the rest is not submitted yet */
    batch->final = status;
    return status;
}

mc_status batch_look(struct mc_batch *batch, bool *moved_p)
{
    if (batch->final != MC_PENDING)
        return batch->final;
    const mc_status status = settle(batch);
    if (status != MC_PENDING)
        return status;
    const uint64_t deadline_ns = atomic_load(&batch->deadline_ns);
    if (deadline_ns != UINT64_MAX && deadline_ns <= os_now_ns())
        batch_stop(batch, MC_E_TIMEOUT, true);
    const uint32_t count = atomic_load_explicit(&batch->segment_count, memory_order_relaxed);
    for (uint32_t i = 0; i < count; i++) {
        if (segment_drive(batch->segments[i]))
            *moved_p = true;
    }
    if (!batch->engine->threaded)
        (void)engine_turn(batch->engine, moved_p);
    return settle(batch);
}

mc_status mc_batch_poll(mc_batch *batch)
{
    bool moved = false;

    return batch_look(batch, &moved);
}

mc_status mc_batch_result(const mc_batch *batch, uint64_t index, struct mc_xfer_result *result_p)
{
    if (index >= batch->added)
        return MC_E_RANGE;
    const struct entry *entry = &batch->entries[index];
    const mc_status status = (mc_status)atomic_load_explicit(&entry->status, memory_order_acquire);
    const bool dropped =
        status == MC_PENDING && batch->final != MC_PENDING; /* never submitted: the batch ended */
    *result_p = (struct mc_xfer_result){
        .status = dropped ? batch->final : status,
        .attempts = atomic_load_explicit(&entry->attempts, memory_order_relaxed),
        .bytes = atomic_load_explicit(&entry->bytes, memory_order_relaxed),
        .submitted_ns = entry->submitted_ns,
        .posted_ns = atomic_load_explicit(&entry->posted_ns, memory_order_relaxed),
        .finished_ns = atomic_load_explicit(&entry->finished_ns, memory_order_relaxed),
        .transport = atomic_load_explicit(&entry->transport, memory_order_relaxed),
    };
    return MC_OK;
}

mc_status mc_batch_error(const mc_batch *batch, struct mc_error *error)
{
    mc_batch *it = (mc_batch *)(uintptr_t)batch; /* its lock is not part of what it is */

    pthread_mutex_lock(&it->lock);
    if (error && batch->final != MC_PENDING)
        *error = it->text;
    pthread_mutex_unlock(&it->lock);
    if (error && batch->final == MC_PENDING)
        *error = (struct mc_error){ .status = MC_PENDING };
    return batch->final;
}

/* --------------------------------------------------------------------------------- again, and the end */

static void empty(mc_batch *batch)
{
    const uint32_t count = atomic_load(&batch->segment_count);

    atomic_store(&batch->segment_count, 0);
    for (uint32_t i = 0; i < count; i++)
        segment_unref(batch->segments[i]);
    while (batch->notices) {
        struct batch_notice *notice = batch->notices;
        batch->notices = notice->next;
        segment_unref(notice->segment);
        alloc_free(batch->engine->alloc, notice);
    }
}

mc_status mc_batch_reset(mc_batch *batch, uint64_t deadline_ns)
{
    if (batch->final == MC_PENDING && batch->started)
        return MC_E_BUSY;
    /* The loop may be looking at the life that is over: its deadline is not the next one's. */
    pthread_mutex_lock(&batch->engine->batches_lock);
    empty(batch);
    batch->added = batch->submitted = 0;
    batch->started = false;
    batch->final = MC_PENDING;
    pthread_mutex_lock(&batch->lock);
    batch->error = MC_OK;
    batch->text = (struct mc_error){ 0 };
    batch->noticing = false;
    if (batch->event >= 0)
        os_event_lower(batch->event);
    pthread_mutex_unlock(&batch->lock);
    atomic_store(&batch->stop, MC_OK);
    atomic_store(&batch->deadline_ns, deadline_of(deadline_ns));
    pthread_mutex_unlock(&batch->engine->batches_lock);
    return MC_OK;
}

void mc_batch_close(mc_batch *batch)
{
    bool moved;

    if (!batch)
        return;
    mc_transfer *engine = batch->engine;
    if (batch->final == MC_PENDING)
        batch_stop(batch, MC_E_CANCELLED, true);
    while (batch->final == MC_PENDING && batch_look(batch, &moved) == MC_PENDING)
        batch_sleep(batch, UINT64_MAX);
    pthread_mutex_lock(&engine->batches_lock);
    *batch->prev_p = batch->next;
    if (batch->next)
        batch->next->prev_p = batch->prev_p;
    engine->batch_count--;
    pthread_mutex_unlock(&engine->batches_lock);
    empty(batch);
    os_event_close(batch->event);
    pthread_mutex_destroy(&batch->lock);
    alloc_free(engine->alloc, batch->entries);
    alloc_free(engine->alloc, batch->segments);
    alloc_free(engine->alloc, batch);
}
