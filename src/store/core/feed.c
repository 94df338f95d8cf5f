/* feed.c - the log of events, who follows it, and snapshots for those who cannot. */
#include <string.h>

#include "store/core/master_state.h"

enum { SNAPSHOT_SCAN_MAX = 65536 };      /* records walked in one go */
#define FEED_RETRY_NS UINT64_C(10000000) /* a connection that was full is tried again */

void feed_add(store_master *m, enum mc_store_event_kind kind, uint64_t node, uint32_t medium,
              const struct mc_key *key, uint64_t length)
{
    m->sequence++;
    m->feed[m->sequence % m->o.events_max] = (struct feed_event){
        .node = node,
        .length = length,
        .key = *key,
        .kind = (uint8_t)kind,
        .medium = (uint8_t)medium,
    };
    if (m->sequence - m->feed_first >= m->o.events_max)
        m->feed_first = m->sequence - m->o.events_max + 1;
    m->feed_dirty = true;
}

static void reader_restart(store_master *m, struct reader *reader)
{
    reader->state = READER_SNAPSHOT;
    reader->base = m->sequence;
    reader->cursor = 0;
    reader->part = 0;
}

void feed_subscribe(store_master *m, uint64_t conn, uint64_t id,
                    const struct wire_events_subscribe *message)
{
    struct reader *reader = NULL;

    for (uint32_t i = 0; i < m->o.subscribers_max; i++) {
        if (m->readers[i].state != READER_FREE && m->readers[i].conn == conn) {
            reader = &m->readers[i]; /* begins anew */
            break;
        }
        if (!reader && m->readers[i].state == READER_FREE)
            reader = &m->readers[i];
    }
    if (!reader) {
        say_outcome(m, conn, id, MC_E_FULL, "events_subscribe: too many subscribers");
        return;
    }
    *reader = (struct reader){ .conn = conn, .answer = id, .next = message->sequence + 1 };
    if (message->epoch == m->o.epoch && message->sequence <= m->sequence &&
        reader->next >= m->feed_first && message->sequence != 0)
        reader->state = READER_FOLLOWS;
    else
        reader_restart(m, reader);
    m->feed_dirty = true;
}

void feed_down(store_master *m, uint64_t conn)
{
    for (uint32_t i = 0; i < m->o.subscribers_max; i++)
        if (m->readers[i].state != READER_FREE && m->readers[i].conn == conn)
            m->readers[i] = (struct reader){ 0 };
}

/** Say it, as the answer to the question if nothing was said yet. */
static mc_status tell(store_master *m, struct reader *reader, enum wire_kind kind,
                      const void *message)
{
    const mc_status status =
        reader->answer != 0
            ? m->out->answer(m->out->user, reader->conn, reader->answer, kind, message)
            : m->out->send(m->out->user, reader->conn, kind, message);

    if (status == MC_OK)
        reader->answer = 0;
    return status;
}

static mc_status tell_events(store_master *m, struct reader *reader)
{
    struct wire_store_event *items = m->say_items;

    while (reader->next <= m->sequence) {
        uint32_t n = 0;
        for (uint64_t s = reader->next; s <= m->sequence && n < m->o.batch_max; s++) {
            const struct feed_event *e = &m->feed[s % m->o.events_max];
            items[n++] = (struct wire_store_event){
                .kind = e->kind,
                .node = e->node,
                .key = e->key,
                .length = e->length,
                .medium = e->medium,
            };
        }
        const struct wire_events events = {
            .epoch = m->o.epoch,
            .sequence = reader->next,
            .items = { .items = items, .count = n },
        };
        const mc_status status = tell(m, reader, WIRE_EVENTS, &events);
        if (status != MC_OK)
            return status;
        reader->next += n;
    }
    return MC_OK;
}

static uint32_t snapshot_object(const store_master *m, uint32_t i, struct wire_store_event *items)
{
    const struct object *o = &m->objects[i];
    uint32_t n = 0;

    for (uint32_t e = o->state == OBJECT_COMMITTED ? o->places : 0; e != 0 && n < MC_REPLICAS_MAX;
         e = m->space.extents[e].other)
        items[n++] = (struct wire_store_event){
            .kind = MC_STORE_STORED,
            .node = m->nodes[m->space.extents[e].node].id,
            .key = o->key,
            .length = o->length,
            .medium = m->space.lents[m->space.extents[e].lent].medium,
        };
    return n;
}

/** Fill one part from *cursor on. */
static uint32_t snapshot_part(const store_master *m, uint32_t *cursor,
                              struct wire_store_event *items)
{
    const uint32_t end = m->nodes_high + m->o.objects_max;
    uint32_t n = 0, c = *cursor;

    for (int looked = 0;
         c < end && n + MC_REPLICAS_MAX <= m->o.batch_max && looked < SNAPSHOT_SCAN_MAX;
         c++, looked++) {
        if (c >= m->nodes_high)
            n += snapshot_object(m, c - m->nodes_high + 1, items + n);
        else if (m->nodes[c].state != NODE_FREE)
            items[n++] =
                (struct wire_store_event){ .kind = MC_STORE_NODE_UP, .node = m->nodes[c].id };
    }
    *cursor = c;
    return n;
}

static mc_status tell_snapshot(store_master *m, struct reader *reader)
{
    struct wire_store_event *items = m->say_items;
    const uint32_t end = m->nodes_high + m->o.objects_max;

    for (bool last = false; !last;) {
        uint32_t cursor = reader->cursor;
        const uint32_t n = snapshot_part(m, &cursor, items);
        last = cursor == end;
        const struct wire_events_snapshot snapshot = {
            .epoch = m->o.epoch,
            .sequence = reader->base,
            .part = reader->part,
            .items = { .items = items, .count = n },
            .last = last,
        };
        const mc_status status = tell(m, reader, WIRE_EVENTS_SNAPSHOT, &snapshot);
        if (status != MC_OK)
            return status;
        reader->cursor = cursor;
        reader->part++;
    }
    reader->state = READER_FOLLOWS;
    reader->next = reader->base + 1;
    return MC_OK;
}

void feed_flush(store_master *m)
{
    if (!m->feed_dirty)
        return;
    m->feed_dirty = false;
    for (uint32_t i = 0; i < m->o.subscribers_max; i++) {
        struct reader *reader = &m->readers[i];
        mc_status status = MC_OK;
        if (reader->state == READER_FOLLOWS && reader->next < m->feed_first)
            reader_restart(m, reader);
        if (reader->state == READER_SNAPSHOT)
            status = tell_snapshot(m, reader);
        if (status == MC_OK && reader->state == READER_FOLLOWS)
            status = tell_events(m, reader);
        if (status == MC_E_FULL)
            due_set(&m->due, due_feed(m), m->now + FEED_RETRY_NS);
        else if (status != MC_OK)
            *reader = (struct reader){ 0 }; /* its connection is gone */
    }
}
