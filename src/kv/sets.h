/*
 * sets.h - sets of holders, each kept once, with the blocks that are at just these holders.
 *
 * The blocks of a prompt are stored together and at the same holders: a set that all of them share costs no memory
 * for each, and who follows a chain sees from a number that nothing changed. A set is named by an id: 0 is the
 * empty one, 1 + h is {h}, larger ones are found by their members and live while a block has them.
 *
 *     cell    | next | size | bucket | hash | first | 3 members |     a set's first cell
 *             | next |  0   | 6 members                         |     further members, in rising order
 *
 * Life:    kv_sets_init -> ... -> kv_sets_fini
 * Threads: one.
 * Memory:  all at init: `cells_max` cells, and as many more as the largest set takes, for a set that is made before
 *          the one that it replaces is dropped. Whoever goes over cells_max drops sets until it fits again.
 */
#ifndef KV_SETS_H
#define KV_SETS_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include <mooncake/status.h>

#define KV_SET_NONE 0u

struct kv_set_cell {
    uint32_t next; /* of the same set; while free: the next free one; NONE at the end */
    uint32_t size; /* members; 0: not the first cell of a set */
    union {
        struct {
            uint32_t bucket_next; /* a set's id */
            uint32_t hash;
            uint32_t blocks; /* the first of its blocks; the caller's */
            uint32_t members[3];
        } first;
        uint32_t more[6];
    };
};
static_assert(sizeof(struct kv_set_cell) == 32, "two to a cache line");

struct kv_sets {
    const struct mc_alloc *alloc; /* borrowed */
    struct kv_set_cell *cells;    /* owned; [limit] */
    uint32_t *buckets;            /* owned; [bucket_mask + 1]: ids */
    uint32_t *blocks;             /* owned; [holders]: the first block of each {h}; the caller's */
    uint32_t *scratch;            /* owned; [holders]: members of a set that is being made */
    uint32_t holders, bucket_mask;
    uint32_t free, used, limit; /* of cells */
    uint32_t cells_max, in_use;
    /* The last changes that were asked for: a chain's blocks ask for the same. */
    struct kv_set_change {
        uint32_t from, holder, to; /* from KV_SET_NONE: nothing is known */
    } added, removed;
};

/** MC_OK or MC_E_NOMEM, then it can be closed all the same. */
mc_status kv_sets_init(struct kv_sets *sets, const struct mc_alloc *alloc, uint32_t holders,
                       uint32_t cells_max);

/** What a set of so many members takes: nothing for less than two. */
static inline uint32_t kv_sets_cells(uint32_t members)
{
    return members < 2 ? 0 : members <= 3 ? 1 : 1 + (members - 3 + 5) / 6;
}

/** More cells are in use than there should be: drop some before the next set is made. */
static inline bool kv_sets_over(const struct kv_sets *sets)
{
    return sets->in_use > sets->cells_max;
}
void kv_sets_fini(struct kv_sets *sets); /* safe on zeroes */

/** Forget all of them. */
void kv_sets_clear(struct kv_sets *sets);

/** The set with `holder` in it, made if need be; `set` itself if it has it. */
uint32_t kv_sets_with(struct kv_sets *sets, uint32_t set, uint32_t holder);

/** The set without it. `set` itself if it has it not; KV_SET_NONE if nobody is left. */
uint32_t kv_sets_without(struct kv_sets *sets, uint32_t set, uint32_t holder);

/** No block has it any more: its id may be another's. Of {h}: nothing. */
void kv_sets_drop(struct kv_sets *sets, uint32_t set);

bool kv_sets_has(const struct kv_sets *sets, uint32_t set, uint32_t holder);
uint32_t kv_sets_size(const struct kv_sets *sets, uint32_t set);

/** The next id after `set` of a set of two or more; KV_SET_NONE: that was the last. Begin with KV_SET_NONE. */
uint32_t kv_sets_next(const struct kv_sets *sets, uint32_t set);

/** Where the caller keeps the first of a set's blocks; 0 in a new one. */
static inline uint32_t *kv_sets_blocks(const struct kv_sets *sets, uint32_t set)
{
    assert(set != KV_SET_NONE);
    return set <= sets->holders ? &sets->blocks[set - 1]
                                : &sets->cells[set - sets->holders].first.blocks;
}

/* To go through the members, in rising order. */
struct kv_members {
    const struct kv_sets *sets;
    const uint32_t *at, *end;
    uint32_t next, left;
    uint32_t single;
};

static inline struct kv_members kv_members(const struct kv_sets *sets, uint32_t set)
{
    struct kv_members m = { .sets = sets };

    if (set <= sets->holders) {
        m.left = set != KV_SET_NONE;
        m.single = set - 1;
        return m;
    }
    const struct kv_set_cell *cell = &sets->cells[set - sets->holders];
    m.left = cell->size;
    m.at = cell->first.members;
    m.end = cell->first.members + 3;
    m.next = cell->next;
    return m;
}

/** False: there are no more. */
static inline bool kv_members_next(struct kv_members *m, uint32_t *holder_p)
{
    if (m->left == 0)
        return false;
    m->left--;
    if (!m->at) {
        *holder_p = m->single;
        return true;
    }
    if (m->at == m->end) {
        const struct kv_set_cell *cell = &m->sets->cells[m->next];
        m->at = cell->more;
        m->end = cell->more + 6;
        m->next = cell->next;
    }
    *holder_p = *m->at++;
    return true;
}

/** The same in pieces that lie one behind the other. NULL: there are no more. */
static inline const uint32_t *kv_members_piece(struct kv_members *m, uint32_t *count_p)
{
    if (m->left == 0)
        return NULL;
    if (!m->at) {
        m->left = 0;
        *count_p = 1;
        return &m->single;
    }
    if (m->at == m->end) {
        const struct kv_set_cell *cell = &m->sets->cells[m->next];
        m->at = cell->more;
        m->end = cell->more + 6;
        m->next = cell->next;
    }
    const uint32_t *piece = m->at, most = (uint32_t)(m->end - piece);
    *count_p = m->left < most ? m->left : most;
    m->left -= *count_p;
    m->at = m->end;
    return piece;
}

#endif /* KV_SETS_H */
