/*
 * sessions.h - which requests go on from earlier ones, whether those were served or refused, and how often that happens.
 *
 * A prompt that begins with the whole of an earlier prompt is that session's next turn. Sessions that went on go on
 * again more often than new ones do; how much more is counted here, by turn. So a request's KVCache can be worth more
 * than its own answer: what it saves those that are still to come.
 *
 * The earlier prompts are remembered by the key of their last whole block, in a table where a newer one takes the place
 * of an older one.
 *
 * Values; one thread; the same calls in the same order give the same bits.
 */
#ifndef SCHED_SESSIONS_H
#define SCHED_SESSIONS_H

#include <stdint.h>

#include <mooncake/sched.h>

enum { SESSION_TURNS = 6, SESSION_SLOTS = 16384 };

struct session_end {
    uint64_t key; /* of the last block, folded; 0: none */
    uint32_t turn;
    uint32_t continued; /* 1: counted already */
};

struct sessions {
    struct session_end ends[SESSION_SLOTS];
    double seen[SESSION_TURNS],
        continued[SESSION_TURNS]; /* requests by turn; of these: another followed */
};

/** A request comes. Returns its turn: 0 is a session's first; the last one counts for all that are later. */
uint32_t sessions_turn(struct sessions *sessions, const struct mc_sched_request *request);

/** How many more of its session are to be expected after one of this turn. */
double sessions_to_come(const struct sessions *sessions, uint32_t turn);

#endif /* SCHED_SESSIONS_H */
