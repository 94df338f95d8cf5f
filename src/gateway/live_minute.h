/*
 * live_minute.h - what the last minute was like: sums for each second, and how late tokens came.
 *
 * Life:    zeroed memory and live_minute_init -> (live_minute_now | live_minute_ttft | ...)*
 * Threads: one. Pure: time is an argument, memory is the caller's; what goes in costs an index and an add.
 * Errors:  none. Time that goes back counts as the latest seen.
 *
 * Times are kept in classes an eighth of an octave wide, so a percentile is at most 9 % above the truth.
 */
#ifndef GATEWAY_LIVE_MINUTE_H
#define GATEWAY_LIVE_MINUTE_H

#include <stdint.h>

enum {
    LIVE_SECONDS = 60,
    LIVE_STEPS = 8, /* classes of an octave */
    LIVE_CLASSES =
        28 * LIVE_STEPS, /* from 1 us to about 4 min; what is longer is in the last one */
};

/** How many times were in each class. */
struct live_times {
    uint32_t in[LIVE_CLASSES];
    uint32_t count;
};

struct live_second {
    uint64_t number; /* seconds since init */
    uint64_t arrived, finished, refused, failed;
    uint64_t good; /* of those finished: within both objectives */
    uint64_t prompt_tokens, reused_tokens, output_tokens;
    uint64_t pulled_bytes, pushed_bytes;
    struct live_times ttft, tbt;
};

struct live_minute {
    uint64_t begin_ns;
    uint64_t last; /* the second that is under way */
    struct live_second seconds[LIVE_SECONDS];
};

void live_minute_init(struct live_minute *minute, uint64_t now_ns);

/** The second under way, to be added to; seconds in which nothing happened are emptied on the way. */
struct live_second *live_minute_now(struct live_minute *minute, uint64_t now_ns);

/** Second `number`, which is one of the last LIVE_SECONDS; NULL: it is not. */
const struct live_second *live_minute_at(const struct live_minute *minute, uint64_t number);

void live_times_add(struct live_times *times, uint64_t duration_ns, uint32_t count);

/** The sum of all seconds'. */
void live_minute_ttft(const struct live_minute *minute, struct live_times *sum_p);
void live_minute_tbt(const struct live_minute *minute, struct live_times *sum_p);

/** Microseconds that `percent` of the times do not exceed; 0: there are none. */
uint64_t live_times_percentile(const struct live_times *times, uint32_t percent);

#endif /* GATEWAY_LIVE_MINUTE_H */
