/*
 * space.h - which bytes of which lent memory are given to whom.
 *
 * Every lent range is cut into extents, side by side without gaps, free or not. Free ones stand in lists
 * by size (four to each power of two), so taking and giving cost the same however full the range is.
 * Two free neighbours become one.
 *
 * Life:    space_open -> space_lend -> (space_take, space_give)* -> space_withdraw -> space_close
 * Threads: one.
 * Memory:  all at open. Extents and lent ranges are named by index; extent 0 is none.
 */
#ifndef STORE_SPACE_H
#define STORE_SPACE_H

#include <stdbool.h>
#include <stdint.h>

#include <mooncake/status.h>

enum extent_state {
    EXTENT_UNUSED, /* a record in no range */
    EXTENT_FREE,
    EXTENT_WRITING,  /* allotted, its object not committed */
    EXTENT_HELD,     /* a replica that can be read */
    EXTENT_DYING,    /* to be evicted, not before `until` */
    EXTENT_EVICTING, /* its node was asked to give it up */
};

enum extent_flags {
    EXTENT_ASKED = 1,  /* in the chain of a question about windows */
    EXTENT_QUEUED = 2, /* in its node's list of what is dying, or of what is to be opened */
};

struct extent {
    uint64_t offset, size; /* in its range, bytes; aligned */
    uint64_t generation;   /* of the place */
    union {
        struct {
            uint32_t object; /* whose replica it is */
            uint32_t other;  /* the next replica of the object */
        };
        struct {
            uint32_t smaller, larger; /* free: neighbours in the list of its size */
        };
        uint64_t until; /* dying: the last lease on it ends */
    };
    uint32_t before, after; /* neighbours in the range */
    uint32_t link;          /* in a question's chain or a node's list; unused: free records */
    uint32_t window;        /* writing: of the master's windows; 0: none yet */
    uint16_t node, lent;    /* index of the master's nodes; of the space's ranges */
    uint8_t state, flags;   /* enum extent_state, extent_flags */
    uint16_t unused;
};

enum { SPACE_CLASSES = 256 };

struct lent {
    uint64_t size, align, free_bytes;
    uint64_t region_generation;
    uint64_t classes[SPACE_CLASSES / 64]; /* bit i: list i is not empty */
    uint32_t lists[SPACE_CLASSES];        /* first free extent of each size */
    uint32_t first, last;                 /* extents at both ends */
    uint32_t region, medium;
    uint32_t taken; /* extents that are not free */
    uint16_t node;
    bool used;
};

struct space {
    struct extent *extents; /* owned; [extents_max + 1] */
    struct lent *lents;     /* owned; [lents_max] */
    uint32_t extents_max, lents_max;
    uint32_t spare;  /* first unused record */
    uint32_t spares; /* how many there are */
    uint32_t taken;  /* extents that are not free, of all ranges */
};

/** MC_OK or MC_E_NOMEM. */
mc_status space_open(struct space *space, const struct mc_alloc *alloc, uint32_t extents_max,
                     uint32_t lents_max);
void space_close(struct space *space, const struct mc_alloc *alloc);

/** A new range, all free. False when there is no room for it. */
bool space_lend(struct space *space, uint16_t node, uint32_t region, uint64_t region_generation,
                uint64_t size, uint32_t medium, uint64_t align, uint16_t *lent_p);

/** Forget a range and all its extents. */
void space_withdraw(struct space *space, uint16_t lent);

/** Take `size` bytes (rounded up to the range's alignment); 0 when no free extent holds them. The
 * caller sets the state. */
uint32_t space_take(struct space *space, uint16_t lent, uint64_t size);

/** Take [offset, offset + size) behind all that is taken; 0 when that is not so. */
uint32_t space_take_at(struct space *space, uint16_t lent, uint64_t offset, uint64_t size);

/** Free again. */
void space_give(struct space *space, uint32_t extent);

#endif /* STORE_SPACE_H */
