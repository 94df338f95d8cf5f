/*
 * bench_serve_tally.h - what became of the requests, added up: counts, spreads, and how they went over time.
 *
 * Life:    bench_tally_init -> (bench_tally_sent, bench_tally_waits, bench_tally_end)* -> read
 *          -> bench_tally_fini
 * Threads: one. Pure.
 * Memory:  fixed, however many requests there are: spreads by buckets (percentile.h), time by at most
 *          TALLY_BINS bins that double in width, reasons by their first TALLY_REASONS.
 */
#ifndef CMD_BENCH_SERVE_TALLY_H
#define CMD_BENCH_SERVE_TALLY_H

#include <stdbool.h>

#include "base/gaps.h"
#include "sim/percentile.h"

enum { TALLY_BINS = 512, TALLY_REASONS = 32, TALLY_REASON_TEXT = 64 };

/** Every request has one of these in the end. */
enum bench_outcome {
    BENCH_ANSWERED,  /* its stream came to its end */
    BENCH_REFUSED,   /* the server would not take it now: 429, 529, or 503 for load */
    BENCH_FAILED,    /* anything else */
    BENCH_ABANDONED, /* under way when the bench was interrupted */
    BENCH_OUTCOMES,
};

/** One request, from its first sending to its end. Times count from the start of the load. */
struct bench_record {
    uint64_t number, line; /* from 1; line of the trace, or 0 */
    uint64_t due_ns;       /* when it should have been sent; closed loop: when it was */
    uint64_t first_try_ns, sent_ns, first_ns, last_ns, end_ns; /* sent: of the last try */
    uint64_t gap_max_ns;                                       /* between two tokens */
    struct gaps gaps;                                          /* between tokens */
    uint32_t tries, pieces; /* pieces: events that brought tokens */
    uint32_t input_tokens, wanted_tokens, replay_tokens;
    bool cut, usage, cached, done;
    bool waiting; /* for its time to try again: not in flight */
    uint64_t prompt_tokens, output_tokens, cached_tokens; /* as the server counts, where it does */
    enum bench_outcome outcome;
    long code;                      /* HTTP's, of the last try; 0: none */
    uint64_t waited_ns;             /* what Retry-After said, of the last refusal */
    uint64_t predicted_ns;          /* the server's word on TTFT; 0: none */
    char reason[TALLY_REASON_TEXT]; /* why it was refused or failed */
    char id[72], prefill[40], decode[40];
};

/** What of a request's gaps between tokens is held against an objective: as --slo-tbt-by lists them. */
enum bench_tbt { BENCH_TBT_MEAN, BENCH_TBT_LONGEST /* mean of the longest tenth */, BENCH_TBT_MAX };

struct bench_objectives {
    uint64_t ttft_ns, tbt_ns; /* 0: none */
    enum bench_tbt by;
};

struct bench_reason {
    char text[TALLY_REASON_TEXT];
    enum bench_outcome outcome;
    uint64_t count;
};

/** What happened in one piece of time. */
struct bench_bin {
    uint64_t sent, ended[BENCH_OUTCOMES], good;
    uint64_t prompt_tokens, cached_tokens, output_tokens;
    uint64_t replay_prompt, replay_tokens; /* of those sent */
    uint64_t in_flight;                    /* the most at once */
};

struct bench_tally {
    struct bench_objectives objectives;
    uint64_t sent, ended[BENCH_OUTCOMES], tries, cut, other_length;
    uint64_t in_flight, in_flight_most;
    uint64_t retried, got_in; /* requests that waited and tried again; answered then */
    uint64_t met_ttft, met_tbt, good, good_tokens; /* of the answered ones */
    uint64_t good_mean, good_longest, good_max; /* good, if that were held against the objective */
    uint64_t input_tokens, prompt_tokens, output_tokens;
    uint64_t cached_known,
        cached_tokens;         /* prompt tokens of answers that tell, and what they tell */
    uint64_t replay_answered;  /* replayed tokens of the answered ones */
    uint64_t start_ns, end_ns; /* first sending, last end */
    struct percentile ttft, gap_mean, gap_longest, gap_max, total, late, retry_after,
        prediction_error;
    struct bench_reason reasons[TALLY_REASONS];
    uint32_t reason_count;
    struct bench_bin bins[TALLY_BINS];
    uint32_t bin_count;
    uint64_t bin_ns; /* width */
};

/** A second is the first width of a bin unless `bin_ns` says otherwise. MC_OK or MC_E_NOMEM. */
mc_status bench_tally_init(struct bench_tally *tally, const struct bench_objectives *objectives,
                           uint64_t bin_ns, const struct mc_alloc *alloc);

/** Safe on `{ 0 }`. */
void bench_tally_fini(struct bench_tally *tally);

/** A request goes out for the first time (`again`: once more). late_ns: UINT64_MAX where there is no due time. */
void bench_tally_sent(struct bench_tally *tally, const struct bench_record *record, bool again,
                      uint64_t late_ns);

/** A refused one (`waiting`) is not in flight until it is sent again. */
void bench_tally_waits(struct bench_tally *tally, const struct bench_record *record);

/** Its outcome, once for each that was sent. */
void bench_tally_end(struct bench_tally *tally, const struct bench_record *record);

/** answered + refused + failed + abandoned = sent: what the tally must come to when nothing is under way. */
bool bench_tally_closed(const struct bench_tally *tally);

/** From first to last token, by the tokens between; 0: fewer than two tokens. */
uint64_t bench_record_gap_mean(const struct bench_record *record);

/** Seconds from the first sending to the last end, > 0. */
double bench_tally_seconds(const struct bench_tally *tally);

const char *bench_outcome_name(enum bench_outcome outcome);

#endif /* CMD_BENCH_SERVE_TALLY_H */
