/*
 * session.h - a model ready to answer, and one answer after another.
 *
 * Life:    session_open -> (turn_run, turn_fini)* -> session_close
 * Threads: one; the engine has its own. Errors: texts name the file, flag or number.
 */
#ifndef CMD_SESSION_H
#define CMD_SESSION_H

#include <mooncake/infer.h>

#include "base/buf.h"
#include "cmd/run_options.h"
#include "cmd/timing.h"
#include "infer/limits.h"
#include "infer/request.h"

struct session {
    const struct run_options *options; /* borrowed */
    const struct mc_alloc *alloc;      /* borrowed */
    mc_model *model;                   /* owned */
    mc_engine *engine;                 /* owned */
    struct mc_model_info info;
    struct mc_engine_limits limits;
    struct limits machine; /* measured at open with options.timing, else zeros */
    uint32_t context_max, threads;
    bool progress; /* standard error is a terminal: say how far a long prompt is */
};

/** Returns MC_OK, or what mc_model_open and mc_engine_open return; then there is nothing to close. */
mc_status session_open(struct session *session, const char *directory,
                       const struct run_options *options, const struct mc_alloc *alloc,
                       struct mc_error *error);
void session_close(struct session *session);

/** One answer. `{ 0 }` is a valid start. */
struct turn {
    struct buf text;           /* owned; all that was shown */
    struct mc_sample *samples; /* owned; [sample_count]; only with options.json */
    uint32_t sample_count, sample_capacity;
    uint32_t prompt_count, made;
    uint64_t start_ns, first_ns, last_ns; /* first_ns: 0 before the first token */
    enum request_finish finish;
    bool write_failed; /* standard output is gone; it was complained about */

    const struct session *session; /* borrowed */
    struct request *request;       /* owned; NULL once finished */
    bool out_of_memory, progress_shown;
    char why[200]; /* with REQUEST_ERROR */
};

/**
 * Answer a prompt. Text goes to standard output as it comes, unless options.json. A signal cancels.
 *
 * Returns MC_OK with turn->finish set, also when it was cancelled; MC_E_ARG or MC_E_RANGE (the prompt cannot
 * be served); MC_E_NOMEM, or the engine's error. turn_fini() is due in every case.
 */
mc_status turn_run(struct turn *turn, const struct session *session, const uint32_t *tokens,
                   size_t count, struct mc_error *error);
void turn_fini(struct turn *turn);

/** The times and costs of a finished turn, and the machine's limits if the session measured them. */
struct timing turn_timing(const struct turn *turn);

#endif /* CMD_SESSION_H */
