/*
 * bench_serve_load.h - send the requests of a source at their times, follow their streams, add up what becomes
 * of them.
 *
 * Open loop: a request goes out when its time has come, whatever the server does; what goes late is measured.
 * Closed loop: always `concurrency` at once. A refused request may wait for what Retry-After says and go again.
 *
 * Life:    bench_load_open -> bench_load_run (bench_load_interrupt) -> read tally and replay -> bench_load_close
 * Threads: one, the loop's.
 * Memory:  a slot for each request under way, at most `slots_max`; no more for those that ended.
 * Errors:  what happens to a request is its outcome; what happens to the source ends the sending and is kept.
 */
#ifndef CMD_BENCH_SERVE_LOAD_H
#define CMD_BENCH_SERVE_LOAD_H

#include "cmd/bench_serve_body.h"
#include "cmd/bench_serve_source.h"
#include "cmd/bench_serve_tally.h"
#include "cmd/http_client.h"
#include "sim/replay.h"

struct bench_slot; /* a request under way */

/** `{ 0 }` and then what is above the line. */
struct bench_load {
    const struct bench_serve_request *request; /* borrowed, as all that follows */
    const struct mc_alloc *alloc;
    os_loop *loop;
    http_client *client;
    struct bench_source *source;
    const struct bench_body *body;
    FILE *csv;          /* may be NULL */
    uint32_t slots_max; /* > 0 */
    /** Once a second or so. May be NULL. */
    void (*progress)(void *user, const struct bench_load *load, uint64_t elapsed_ns);
    void *user;
    uint64_t progress_ns; /* how often */
    /* ------ */
    struct bench_tally tally;
    struct replay replay;
    struct bench_slot *slots, *free; /* all; those not in use */
    uint32_t slot_count, in_use;     /* in use: in flight, or waiting to go again */
    struct scaled next;
    bool have_next, ended; /* the source is */
    struct os_timer due, tick;
    uint64_t start_ns;
    uint64_t waiting;
    bool interrupted, csv_failed;
    struct mc_error error; /* of the source, or memory: what ended the sending early */
};

/** MC_OK or MC_E_NOMEM, after which close is not due. */
mc_status bench_load_open(struct bench_load *load, struct mc_error *error);

/** Turn the loop until all that was sent has ended. */
void bench_load_run(struct bench_load *load);

/** Send nothing more, break off what is under way: run returns soon. From a callback of the loop. */
void bench_load_interrupt(struct bench_load *load);

/** Safe on `{ 0 }`. */
void bench_load_close(struct bench_load *load);

/** The head line of the CSV. */
extern const char bench_record_head[];

#endif /* CMD_BENCH_SERVE_LOAD_H */
