/*
 * tally.h - which of a policy's figures belong to which instance: ids to slots of arrays, in fixed memory.
 *
 * A part of a policy's state; one thread. Instances beyond TALLY_MAX have no slot: their figures are as at the
 * start. A slot that is dropped is given to another one later: whoever drops it clears its figures.
 */
#ifndef SCHED_TALLY_H
#define SCHED_TALLY_H

#include <stdint.h>

enum { TALLY_MAX = 4096 };
#define TALLY_NONE UINT32_MAX

struct tally {
    uint32_t count;
    uint64_t ids[TALLY_MAX];   /* [count], rising */
    uint16_t slots[TALLY_MAX]; /* of the same; behind them the free ones */
};

void tally_init(struct tally *tally);

/** Its slot, or TALLY_NONE. */
uint32_t tally_find(const struct tally *tally, uint64_t id);

/** The same, given one if it has none; TALLY_NONE: there is none left. */
uint32_t tally_take(struct tally *tally, uint64_t id);

/** Forget it, if it is there. */
void tally_drop(struct tally *tally, uint64_t id);

#endif /* SCHED_TALLY_H */
