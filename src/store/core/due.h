/*
 * due.h - what is due when: a heap of small ids, each with at most one time.
 *
 * Life:    due_open -> (due_set, due_stop, due_first)* -> due_close
 * Threads: one.
 * Memory:  all at open, from the allocator given.
 */
#ifndef STORE_DUE_H
#define STORE_DUE_H

#include <stdint.h>

#include <mooncake/status.h>

struct due {
    uint64_t *at;    /* owned; [ids] when an id is due */
    uint32_t *heap;  /* owned; [ids] ids, the first is due first */
    uint32_t *place; /* owned; [ids] index in heap + 1; 0: not set */
    uint32_t ids, count;
};

/** For ids 0 .. ids - 1. MC_OK or MC_E_NOMEM (then nothing is held). */
mc_status due_open(struct due *due, const struct mc_alloc *alloc, uint32_t ids);
void due_close(struct due *due, const struct mc_alloc *alloc);

/** Set, or set anew. */
void due_set(struct due *due, uint32_t id, uint64_t at_ns);

/** Not set: nothing happens. */
void due_stop(struct due *due, uint32_t id);

/** Time of the first id, UINT64_MAX when none is set; *id_p is written only if one is. */
uint64_t due_first(const struct due *due, uint32_t *id_p);

#endif /* STORE_DUE_H */
