/* events.c - a subscription: a connection of its own, the state of its stream, and a bounded queue. */
#include <string.h>

#include "base/alloc.h"
#include "os/clock.h"
#include "store/client/store.h"

enum { QUEUE_FIRST = 256, QUEUE_MAX = 1 << 20 };
#define SUBSCRIBE_RETRY_NS UINT64_C(200000000)

enum stream {
    STREAM_AWAY,     /* no connection, or to be asked again at `retry` */
    STREAM_ASKED,    /* what comes before the answer belongs to what was before */
    STREAM_SNAPSHOT, /* part `part` is due */
    STREAM_FOLLOWS,
    STREAM_STUCK, /* the queue was full: begins anew when the reader takes again */
};

struct mc_store_events {
    mc_store *store;
    struct link link; /* the loop's, as all down to `post` */
    enum stream stream;
    uint64_t epoch, sequence; /* of the last event told; 0, 0: from the start */
    uint64_t base;            /* of the snapshot that comes */
    uint64_t tag;             /* of the question that is out */
    uint32_t part;
    struct os_timer retry;
    struct os_post post; /* begin anew */
    mc_status opened;

    struct os_lock lock;          /* a leaf; guards what follows */
    struct mc_store_event *queue; /* owned; a ring of [capacity], a power of two */
    size_t capacity, head, count;
    bool stuck, posted;
    int fd; /* raised while there are events; set at open */
};

/* ----------------------------------------------------------------------------------------- queue */

static bool grow(struct mc_store_events *e)
{
    const size_t capacity = e->capacity ? 2 * e->capacity : QUEUE_FIRST;

    if (capacity > QUEUE_MAX)
        return false;
    struct mc_store_event *queue = alloc_zeroed(e->store->alloc, capacity, sizeof(*queue));
    if (!queue)
        return false;
    for (size_t i = 0; i < e->count; i++)
        queue[i] = e->queue[(e->head + i) & (e->capacity - 1)];
    alloc_free(e->store->alloc, e->queue);
    e->queue = queue;
    e->capacity = capacity;
    e->head = 0;
    return true;
}

static void put(struct mc_store_events *e, const struct mc_store_event *event)
{
    e->queue[(e->head + e->count++) & (e->capacity - 1)] = *event;
    if (e->count == 1)
        os_event_raise(e->fd);
}

/* What is in the queue means nothing any more. Under the lock. */
static void put_reset(struct mc_store_events *e, uint64_t epoch, uint64_t sequence)
{
    const struct mc_store_event event = { .kind = MC_STORE_RESET,
                                          .sequence = sequence,
                                          .epoch = epoch };

    e->count = 0;
    put(e, &event); /* there is room for one since open */
}

static void reset(struct mc_store_events *e, uint64_t epoch, uint64_t sequence)
{
    os_lock(&e->lock);
    put_reset(e, epoch, sequence);
    os_unlock(&e->lock);
}

/* False: the reader is too slow, and was told to begin anew. */
static bool push(struct mc_store_events *e, const struct mc_store_event *event)
{
    os_lock(&e->lock);
    const bool room = e->count < e->capacity || grow(e);
    if (room) {
        put(e, event);
    } else {
        put_reset(e, event->epoch, event->sequence);
        e->stuck = true;
    }
    os_unlock(&e->lock);
    if (!room)
        e->stream = STREAM_STUCK;
    return room;
}

/* ---------------------------------------------------------------------------------------- stream */

static void later(struct mc_store_events *e)
{
    e->stream = STREAM_AWAY;
    (void)os_loop_timer(e->store->loop, &e->retry, os_now_ns() + SUBSCRIBE_RETRY_NS);
}

static void subscribe(struct mc_store_events *e)
{
    const struct wire_events_subscribe message = { .sequence = e->sequence, .epoch = e->epoch };

    if (!link_is_up(&e->link))
        return;
    e->tag++;
    e->stream = STREAM_ASKED;
    if (link_ask(&e->link, e->tag, WIRE_EVENTS_SUBSCRIBE, &message, 0) != MC_OK)
        later(e);
}

static void from_the_start(struct mc_store_events *e)
{
    e->epoch = e->sequence = 0;
    subscribe(e);
}

static bool push_item(struct mc_store_events *e, const struct wire_store_event *item,
                      uint64_t epoch, uint64_t sequence)
{
    const struct mc_store_event event = {
        .kind = item->kind,
        .medium = (enum mc_medium)item->medium,
        .sequence = sequence,
        .epoch = epoch,
        .node = item->node,
        .length = item->length,
        .key = item->key,
    };

    return push(e, &event);
}

static void take_events(struct mc_store_events *e, const struct wire_events *message)
{
    struct wire_list items = message->items;
    struct wire_store_event item;

    if (message->epoch != e->epoch || message->sequence != e->sequence + 1) {
        from_the_start(e); /* a gap: never guessed */
        return;
    }
    e->stream = STREAM_FOLLOWS;
    while (wire_store_event_next(&items, &item))
        if (!push_item(e, &item, e->epoch, ++e->sequence))
            return;
}

static void snapshot_ends(struct mc_store_events *e, uint64_t epoch)
{
    const struct mc_store_event end = { .kind = MC_STORE_SNAPSHOT_END,
                                        .sequence = e->base,
                                        .epoch = epoch };

    e->stream = STREAM_FOLLOWS;
    e->epoch = epoch;
    e->sequence = e->base;
    (void)push(e, &end);
}

static void take_snapshot(struct mc_store_events *e, const struct wire_events_snapshot *message)
{
    struct wire_list items = message->items;
    struct wire_store_event item;

    if (message->part == 0) { /* the answer, or we fell behind at the master's */
        e->stream = STREAM_SNAPSHOT;
        e->epoch = e->sequence = 0; /* a connection lost meanwhile begins anew */
        e->part = 0;
        e->base = message->sequence;
        reset(e, message->epoch, message->sequence);
    }
    if (e->stream != STREAM_SNAPSHOT || message->part != e->part || message->sequence != e->base) {
        from_the_start(e);
        return;
    }
    e->part++;
    while (wire_store_event_next(&items, &item))
        if (!push_item(e, &item, message->epoch, message->sequence))
            return;
    if (message->last)
        snapshot_ends(e, message->epoch);
}

static void take(struct mc_store_events *e, uint32_t wire, const void *message)
{
    if (wire == WIRE_EVENTS)
        take_events(e, message);
    else if (wire == WIRE_EVENTS_SNAPSHOT)
        take_snapshot(e, message);
    else
        later(e); /* refused */
}

/* ------------------------------------------------------------------------------------ connection */

static void on_up(void *user)
{
    struct mc_store_events *e = user;

    if (e->stream == STREAM_AWAY)
        subscribe(e);
}

static void on_down(void *user)
{
    struct mc_store_events *e = user;

    (void)os_loop_timer(e->store->loop, &e->retry, UINT64_MAX);
    if (e->stream != STREAM_STUCK)
        e->stream = STREAM_AWAY;
}

static void on_answer(void *user, uint64_t tag, mc_status status, uint32_t wire,
                      const void *message)
{
    struct mc_store_events *e = user;

    if (tag != e->tag || e->stream != STREAM_ASKED)
        return;
    if (status == MC_OK)
        take(e, wire, message);
    else
        later(e);
}

static void on_message(void *user, uint64_t id, uint32_t wire, const void *message)
{
    struct mc_store_events *e = user;
    const struct wire_outcome outcome = { .status = MC_E_UNSUPPORTED };

    if (id != 0)
        (void)link_answer(&e->link, id, WIRE_OUTCOME, &outcome);
    else if (e->stream == STREAM_SNAPSHOT || e->stream == STREAM_FOLLOWS)
        take(e, wire, message);
}

static const struct link_events link_events = { on_up, on_down, on_answer, on_message };

static void retry_due(void *user, uint64_t now_ns)
{
    struct mc_store_events *e = user;

    (void)now_ns;
    (void)os_loop_timer(e->store->loop, &e->retry, UINT64_MAX); /* keeps its place in the heap */
    subscribe(e);
}

/* The reader of a queue that was full is there again. */
static void anew_posted(void *user)
{
    struct mc_store_events *e = user;

    os_lock(&e->lock);
    e->posted = false;
    os_unlock(&e->lock);
    if (e->stream != STREAM_STUCK)
        return;
    e->stream = STREAM_AWAY;
    from_the_start(e);
}

/* --------------------------------------------------------------------------------- open and close */

static void open_in_loop(void *argument)
{
    struct mc_store_events *e = argument;
    mc_store *store = e->store;

    e->opened = os_loop_timer(store->loop, &e->retry, UINT64_MAX); /* set anew without memory */
    if (e->opened != MC_OK)
        return;
    e->opened = link_open(&e->link, store->net, store->masters, store->alloc, &store->log,
                          &link_events, e, NULL);
    if (e->opened != MC_OK)
        os_loop_timer_stop(store->loop, &e->retry);
}

static void close_in_loop(void *argument)
{
    struct mc_store_events *e = argument;

    link_close(&e->link);
    os_loop_timer_stop(e->store->loop, &e->retry);
}

static void events_free(struct mc_store_events *e)
{
    os_event_close(e->fd);
    alloc_free(e->store->alloc, e->queue);
    os_lock_fini(&e->lock);
    alloc_free(e->store->alloc, e);
}

mc_status mc_store_events_open(mc_store *store, uint64_t epoch, uint64_t sequence,
                               mc_store_events **events_p)
{
    struct mc_store_events *e = alloc_zeroed(store->alloc, 1, sizeof(*e));

    if (!e)
        return MC_E_NOMEM;
    *e = (struct mc_store_events){ .store = store, .epoch = epoch, .sequence = sequence, .fd = -1 };
    e->retry = (struct os_timer){ .due = retry_due, .user = e };
    e->post = (struct os_post){ .run = anew_posted, .user = e };
    os_lock_init(&e->lock);
    mc_status status = grow(e) ? MC_OK : MC_E_NOMEM;
    if (status == MC_OK && os_event_open(&e->fd) != MC_OK) {
        e->fd = -1;
        status = MC_E_FULL;
    }
    if (status == MC_OK) {
        store_run(store, open_in_loop, e);
        status = e->opened;
    }
    if (status != MC_OK) {
        events_free(e);
        return status;
    }
    *events_p = e;
    return MC_OK;
}

void mc_store_events_close(mc_store_events *e)
{
    if (!e)
        return;
    store_run(e->store, close_in_loop, e);
    events_free(e);
}

/* -------------------------------------------------------------------------------------- reading */

static size_t take_queued(mc_store_events *e, struct mc_store_event *events_p, size_t capacity)
{
    size_t n = 0;

    os_lock(&e->lock);
    for (; n < capacity && e->count > 0; n++, e->count--) {
        events_p[n] = e->queue[e->head];
        e->head = (e->head + 1) & (e->capacity - 1);
    }
    if (e->count == 0)
        os_event_lower(e->fd);
    const bool anew = e->stuck && !e->posted;
    if (anew) {
        e->stuck = false;
        e->posted = true;
    }
    os_unlock(&e->lock);
    if (anew)
        os_loop_post(e->store->loop, &e->post);
    return n;
}

mc_status mc_store_events_take(mc_store_events *e, struct mc_store_event *events_p, size_t capacity,
                               size_t *count_p, uint64_t deadline_ns)
{
    const uint64_t until_ns = store_deadline(deadline_ns);

    for (;;) {
        const size_t n = take_queued(e, events_p, capacity);
        if (n > 0) {
            *count_p = n;
            return MC_OK;
        }
        if (capacity == 0 || (until_ns != UINT64_MAX && os_now_ns() >= until_ns))
            return MC_E_NOT_FOUND;
        os_wait_readable(&e->fd, 1, until_ns);
    }
}

mc_status mc_store_events_fd(mc_store_events *e, int *fd_p)
{
    *fd_p = e->fd;
    return MC_OK;
}
