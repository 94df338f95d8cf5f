/*
 * calendar.h - when sequences join, in all decode instances together: what is due, and what has just been.
 *
 * Time is cut into bins. A join counts in its own by its tokens, and in those around it by less: half at half a second, as
 * it hurts those who join there (joins.h). So what is near a moment is one number. All is in whole numbers: what was added
 * and is taken away leaves nothing behind.
 *
 * Life:    zeroed
 * Threads: one.
 * Memory:  none besides itself, 8 KiB.
 * Errors:  none; what is due beyond CALENDAR_BINS is not counted.
 */
#ifndef SCHED_CALENDAR_H
#define SCHED_CALENDAR_H

#include <stdint.h>

enum { CALENDAR_BINS = 1024 }; /* of a tenth of a second */

struct calendar {
    uint64_t
        first; /* the oldest bin's number, since time began; a bin is at its number modulo CALENDAR_BINS */
    uint64_t near[CALENDAR_BINS];
};

/** At `now_ns` it is known that a prompt of `tokens` joins at `at_ns` >= now_ns. What to say when it does not; 0: it was not
 * counted. Times do not go back from call to call. */
uint64_t calendar_add(struct calendar *calendar, uint64_t now_ns, uint64_t at_ns, uint64_t tokens);

/** It does not, or did not then. `mark` is what calendar_add() said; 0 is allowed. */
void calendar_remove(struct calendar *calendar, uint64_t now_ns, uint64_t mark, uint64_t tokens);

/** Tokens that join at about `at_ns`. */
double calendar_near(const struct calendar *calendar, uint64_t at_ns);

#endif /* SCHED_CALENDAR_H */
