/* notify.c - notices to be sent: when all transfers of their batch have moved, and only then. */
#include "transfer/batch.h"

#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/utf8.h"
#include "net/net.h"
#include "transfer/segment.h"

mc_status mc_batch_notify(mc_batch *batch, uint32_t segment_id, const char *name,
                          const void *message, size_t size)
{
    const size_t name_size = name ? strlen(name) : 0;
    struct segment *segment = NULL;

    if (size > MC_NOTICE_MAX || name_size > MC_NAME_MAX)
        return MC_E_RANGE;
    if (batch->started || batch->final != MC_PENDING)
        return MC_E_ARG;
    segment = segment_take(batch->engine, segment_id);
    if (!segment)
        return MC_E_ARG;
    struct batch_notice *notice = alloc_bytes(batch->engine->alloc, sizeof(*notice) + size);
    if (!notice) {
        segment_unref(segment);
        return MC_E_NOMEM;
    }
    memset(notice, 0, sizeof(*notice));
    notice->batch = batch;
    notice->segment = segment;
    notice->size = size;
    memcpy(notice->name, name ? name : "", name_size);
    if (size > 0)
        memcpy(notice->message, message, size);
    struct batch_notice **at = &batch->notices;
    while (*at)
        at = &(*at)->next;
    *at = notice;
    return MC_OK;
}

/* ------------------------------------------------------------------------------------- the loop's */

static void answered(struct batch_notice *notice, mc_status status, const struct mc_error *error)
{
    struct mc_batch *batch = notice->batch;

    notice->answered = true;
    if (status == MC_OK)
        count_add(&batch->engine->counts, COUNT_notices_sent, 1);
    else
        batch_fail(batch, status, error);
    batch_part_done(batch);
}

static void on_answer(void *user, mc_status status, const struct wire_frame *frame,
                      const struct mc_error *error)
{
    struct mc_error text = error ? *error : (struct mc_error){ 0 };
    struct wire_outcome outcome;

    if (status == MC_OK)
        status = net_take(frame, WIRE_OUTCOME, &outcome, &text);
    answered(user, status, &text);
}

static void send_one(struct batch_notice *notice)
{
    struct segment *segment = notice->segment;
    mc_transfer *engine = segment->engine;

    notice->sent = true;
    if (segment->own) {
        const mc_status status =
            notice_keep(engine, engine->name, engine->incarnation, notice->name,
                        strlen(notice->name), notice->message, notice->size);
        answered(notice, status, NULL);
        return;
    }
    notice->ask = (struct peer_ask){
        .kind = WIRE_NOTIFY,
        .message.notify = { .name = wire_text(notice->name),
                            .message = { notice->message, (uint32_t)notice->size } },
        .until_ns = atomic_load(&notice->batch->deadline_ns),
        .answered = on_answer,
        .user = notice,
    };
    peer_ask(&segment->control, &notice->ask);
}

/* batch->unfinished counts one for this run; each notice is counted before the first is sent. */
void notices_run(void *user)
{
    struct mc_batch *batch = user;
    uint64_t count = 0;

    for (const struct batch_notice *notice = batch->notices; notice; notice = notice->next)
        count++;
    atomic_fetch_add(&batch->unfinished, count);
    /* Whoever stops it from here on has the loop look again, and notices_stop() finds what was sent. */
    const mc_status stopped = batch_stopped(batch);
    for (struct batch_notice *notice = batch->notices, *next; notice; notice = next) {
        next = notice->next; /* the batch lives: this run is not done */
        if (stopped != MC_OK || (atomic_load(&notice->segment->closed) && !notice->segment->own)) {
            notice->sent = true;
            answered(notice, stopped != MC_OK ? stopped : MC_E_CANCELLED, NULL);
        } else {
            send_one(notice);
        }
    }
    batch_part_done(batch);
}

void notices_stop(struct mc_batch *batch)
{
    pthread_mutex_lock(&batch->lock);
    const bool noticing = batch->noticing;
    pthread_mutex_unlock(&batch->lock);
    if (!noticing || atomic_load(&batch->unfinished) == 0)
        return;
    atomic_fetch_add(&batch->unfinished, 1); /* the list lives until this is taken back */
    for (struct batch_notice *notice = batch->notices; notice; notice = notice->next) {
        if (!notice->sent || notice->answered)
            continue;
        peer_forget(&notice->ask);
        answered(notice, batch_stopped(batch), NULL);
    }
    batch_part_done(batch);
}
