/*
 * gaps.h - the longest tenth of a request's gaps between tokens, in fixed memory.
 *
 * The mean of its longest tenth is what a reader notices of an answer that stumbles; its mean gap hides it. Gaps are
 * counted by length, in classes of a quarter of an octave, each with its sum and its longest. So what a class has
 * counts exactly when all of it belongs to the tenth; where only its longest do, they are taken to be spread evenly
 * from there down: exact where the gaps of a class are alike, else off by a few hundredths at most.
 *
 * Life:    `{ 0 }` is a valid start; nothing to free. Values only: copy as you like.
 * Threads: one. Pure. Memory: 700 bytes.
 */
#ifndef BASE_GAPS_H
#define BASE_GAPS_H

#include <stdint.h>

enum {
    GAPS_STEPS = 4, /* classes of an octave */
    GAPS_OCTAVES =
        14, /* from 256 us to 4 s; what is shorter or longer is in the first or the last */
    GAPS_CLASSES = GAPS_STEPS * GAPS_OCTAVES,
};

struct gaps {
    uint32_t count;
    struct {
        uint32_t count;
        float sum_us, most_us;
    } classes[GAPS_CLASSES];
};

/** Tokens came `gap_ns` after those before them: `together` of them, so that all but one came at once.
 * More than an hour counts as an hour. */
void gaps_add(struct gaps *gaps, uint64_t gap_ns, uint32_t together);

/** Mean of the longest tenth (rounded up to whole gaps), in nanoseconds; 0: none. */
uint64_t gaps_longest(const struct gaps *gaps);

#endif /* BASE_GAPS_H */
