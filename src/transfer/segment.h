/*
 * segment.h - one peer from inside: its description, the queues that lead to it, entries on their way.
 *
 * Threads: whoever holds `lock` drives: routes entries, cuts and posts slices, takes completions. Others
 *          leave entries in `inbox` and go on; who unlocks looks at it once more, so nothing stays there.
 *          What is marked "the loop's" belongs to the thread that turns the loop.
 * Memory:  a segment lives while `refs` > 0: one for all opens together, one for each batch that names
 *          it, one while the loop works for it. Driving allocates nothing but when a queue is opened, a map
 *          or a description comes.
 */
#ifndef TRANSFER_SEGMENT_H
#define TRANSFER_SEGMENT_H

#include "transfer/batch.h"
#include "transfer/control.h"
#include "transfer/description.h"
#include "transfer/engine.h"

enum { MAPS_MAX = 1024, MAP_BUCKETS = 256, POST_MAX = 64, CUT_MAX = 16, PRIORITIES = 3 };

/** First in, first out. */
struct entry_list {
    struct entry *first, **end; /* end: NULL stands for &first */
};

/** A slice that is cut: on its way, or waiting for room in the queue. */
struct work {
    struct work *next;
    struct entry *entry;
    struct region *region;         /* held while it is cut */
    struct transport_slice *slice; /* owned, with its private bytes */
    uint8_t key[TRANSPORT_KEY_MAX];
};

/** A queue to the peer through one transport. Under segment->lock. */
struct path {
    struct path *next; /* of those that are dying */
    struct segment *segment;
    struct carrier *carrier;
    void *queue, *queue_block;
    struct work *works;     /* owned; [depth] */
    void *slices_block;     /* owned */
    uint32_t depth, flying; /* flying: posted and not completed */
    struct work *idle;
    struct work *ready, **ready_end;       /* cut, not posted */
    struct entry_list pending[PRIORITIES]; /* not wholly cut */
    struct entry_list judged;              /* all slices back, with an error */
    mc_status status;                      /* MC_OK, or why the queue has failed */
    bool over;                             /* it has failed, and all its slices are back */
    bool watched;                          /* the loop has its descriptor */
    struct mc_error error;
    bool calling_back;    /* cancelled: nothing is posted until all that flies has come back */
    bool proved;          /* a slice has moved: the peer answered */
    uint64_t incarnation; /* that it leads to */
    uint8_t address[TRANSPORT_KEY_MAX];
    struct os_watch watch; /* the loop's */
};

/** Where a window's pieces lie, as the peer told. */
struct map {
    struct map *next, *previous; /* newest first */
    struct map *beside;          /* in its bucket */
    struct segment *segment;
    uint64_t key[2], generation, incarnation;
    mc_status status; /* MC_PENDING until it is there */
    struct mc_error error;
    uint32_t region;
    uint64_t piece_bytes;
    uint64_t *offsets; /* owned; [count] */
    uint64_t count;
    struct transport_key *keys; /* owned; [carriers] */
    uint32_t users;             /* entries that read it */
    bool useless;               /* its window was refused: not to be used again */
    bool asked;                 /* the loop has a question out */
    struct peer_ask ask;        /* the loop's */
};

/** A thread that sleeps until something happens here. Under segment->lock. */
struct sleeper {
    struct sleeper *next;
    int event;
};

struct segment {
    mc_transfer *engine;
    char *name; /* owned */
    uint32_t id;
    bool own;             /* it is this engine's */
    bool self;            /* and a transport for that is open: nothing is asked */
    uint32_t refs, opens; /* under engine->table */
    _Atomic bool closed;

    _Atomic(struct entry *) inbox; /* newest first */
    _Atomic bool attention;        /* a batch was stopped, or the segment closed */
    _Atomic uint32_t busy;         /* entries here that are not finished */
    _Atomic uint32_t changes;      /* raised when the description is another one, or was not got */
    _Atomic uint32_t driven;       /* raised with each drive */

    pthread_mutex_t lock;
    struct description *description; /* owned; NULL: not read yet */
    uint64_t read_ns;                /* when it was asked for */
    bool stale;                      /* it must be read again before it is used */
    uint32_t rounds;                 /* answers so far, good or bad */
    mc_status failure;               /* of the last asking, MC_OK if it went well */
    struct mc_error failure_error;
    struct entry_list waiting;            /* for the description or a map */
    struct map *maps, *oldest_map;        /* newest first */
    struct map *map_buckets[MAP_BUCKETS]; /* the same by key, which is random */
    uint32_t map_count, maps_unasked;     /* unasked: MC_PENDING, no question is out yet */
    uint64_t map_bytes;
    struct path *paths[TRANSPORTS_MAX];
    struct path *dying;                /* queues that failed and are not closed yet */
    uint64_t again_ns[TRANSPORTS_MAX]; /* a queue that failed is not opened again before */
    struct sleeper *sleepers;
    struct sleeper *watcher; /* the sleeper that has the queues armed */
    uint64_t asked_ns;       /* when the question that is out was asked */
    bool ask_all;            /* changes are not enough: ask for everything */
    bool wanted;             /* somebody waits for a description */

    /* The loop's. */
    struct os_post post;
    _Atomic bool posted;
    bool asking;
    uint32_t driven_seen, driven_served;
    struct segment *dead_next; /* of those to be freed */
    struct control control;
    struct peer_ask ask;
};

/* ---- segment.c */

/** The open segment of an id with one more ref, or NULL. */
struct segment *segment_take(mc_transfer *engine, uint32_t id);
void segment_ref(struct segment *segment);
void segment_unref(struct segment *segment);
/** A ref to place `index` of the table, or NULL: for walks. */
struct segment *segment_at(mc_transfer *engine, uint32_t index);
/** Have the loop look after it (description, maps, death). Any thread. */
void segment_call(struct segment *segment);
/** End all that are left; engine close. */
void segments_close(mc_transfer *engine);

/* ---- drive.c */

/** Give it entries, linked by `next`, newest first. Any thread. */
void segment_push(struct segment *segment, struct entry *newest, struct entry *oldest);
/** Move everything along unless another thread is at it. Returns whether something moved. */
bool segment_drive(struct segment *segment);
/** Unlock, and see to what others left meanwhile. */
void segment_unlock(struct segment *segment);
/** Under lock: route, cut, post, complete once. Returns whether something moved. */
bool segment_step(struct segment *segment);
/** Under lock: something flies or waits to be posted. */
bool segment_is_flying(const struct segment *segment);
/** Under lock: wake a sleeper to take over, if there is one. */
void segment_wake_one(struct segment *segment);

/** The loop: drive it and have its queues wake the loop, unless another thread is at it. */
void segment_serve(struct segment *segment);

/* ---- route.c. Under lock. */

/** Send an entry on its way: to a path, to wait, or to its end. */
void route_entry(struct segment *segment, struct entry *entry);
/** Send those on that waited. */
void route_waiting(struct segment *segment);
/** Take entries of stopped batches out; have what flies called back. */
void route_stopped(struct segment *segment);
/** Its slices are all back and it has an error: another path, or the end. path->over: the queue failed. */
void route_again(struct segment *segment, struct entry *entry, const struct path *path);
/** The end of an entry. */
void route_finish(struct segment *segment, struct entry *entry, mc_status status);

/* ---- path.c. Under lock. */

/** The queue through a carrier, opened if need be. */
mc_status path_open(struct segment *segment, struct carrier *carrier, struct path **path_p,
                    struct mc_error *error);
void path_add(struct path *path, struct entry *entry);
/** Cut, post, take completions. Returns whether something moved. */
bool path_step(struct path *path, uint64_t now_ns);
/** Stop what flies: some of it is not wanted any more. The rest goes again. */
void path_call_back(struct path *path);
/** Take out entries of stopped batches, all if the segment is closed. */
void path_drop_stopped(struct path *path);
/** Close those that are dying; what cannot be yet stays. */
void paths_bury(struct segment *segment);
/** Nothing flies: close all. */
void paths_close(struct segment *segment);

/* ---- lists */

void list_push(struct entry_list *list, struct entry *entry);
struct entry *list_pop(struct entry_list *list);

#endif /* TRANSFER_SEGMENT_H */
