/*
 * attempt.h - what the files of this room share: one attempt to serve a request, and its outbox.
 *
 * All of it works on struct request of request.h, for request_step() alone.
 */
#ifndef GATEWAY_CORE_ATTEMPT_H
#define GATEWAY_CORE_ATTEMPT_H

#include <string.h>

#include "gateway/core/request.h"

/* What numbers mean on the wire and in scheduler events. */
enum { CANCEL_CLIENT = 1, CANCEL_DEADLINE, CANCEL_LOST, CANCEL_DRAIN, CANCEL_STOP, CANCEL_REFUSED };
enum { FINISH_STOP = 1, FINISH_LENGTH, FINISH_FAILED, FINISH_CANCELLED };
enum { SCHED_FINISHED, SCHED_FAILED, SCHED_CLIENT, SCHED_DEADLINE };

static inline uint64_t attempt_first(uint64_t a, uint64_t b)
{
    return a ? a : b;
}

static inline uint64_t attempt_add(uint64_t now_ns, uint64_t duration_ns)
{
    return duration_ns < UINT64_MAX - now_ns ? now_ns + duration_ns : UINT64_MAX;
}

static inline struct wire_slice attempt_text(const char *words)
{
    return (struct wire_slice){ words, (uint32_t)strlen(words) };
}

/* ------------------------------------------------------------------------------------- attempt.c */

/** Append an entry, zeroed but for these. */
struct request_out *attempt_put(struct request_outbox *outbox, enum request_out_kind kind,
                                uint64_t instance);

/** Append a scheduler event about this attempt. */
struct mc_sched_progress *attempt_tell(const struct request *r, uint32_t kind, uint64_t instance,
                                       struct request_outbox *outbox);

void attempt_cancel(const struct request *r, uint64_t instance, uint32_t reason,
                    struct request_outbox *outbox);

/** End the request as it is: nothing is held any more. */
struct request_out_end *attempt_end(struct request *r, uint64_t now_ns, mc_status status,
                                    struct request_outbox *outbox);

/** Give back what is held, then end the request with an error. */
struct request_out_end *attempt_give_up(struct request *r, uint64_t now_ns, mc_status status,
                                        uint32_t cancel, uint32_t sched,
                                        struct request_outbox *outbox);

/** Does the scheduler still have to say whether it is decoded? Until then nothing is shown. */
static inline bool attempt_is_staged(const struct request *r)
{
    return (r->decision.flags & MC_DECISION_STAGED) && !r->may_decode;
}

/** Show what is there to the client, and end when all is there. */
void attempt_show(struct request *r, uint64_t now_ns, struct request_outbox *outbox);

/** DECODING from now on; _unheard: without its prefill_end. */
void attempt_prefill_over(struct request *r, uint64_t now_ns, struct request_outbox *outbox);
void attempt_prefill_unheard(struct request *r, uint64_t now_ns, struct request_outbox *outbox);

/** A new attempt: PLACING. */
void attempt_ask(struct request *r, struct request_outbox *outbox);

/** WAITING for room, not less than retry_ns; false: patience is at its end. */
bool attempt_wait(struct request *r, uint64_t now_ns, uint64_t retry_ns);

/** The attempt has failed: give back what is held, then try again without the barred, wait, or end. */
void attempt_fail(struct request *r, uint64_t now_ns, const struct request_failure *failure,
                  uint64_t barred, uint64_t barred_decode, struct request_outbox *outbox);

/* -------------------------------------------------------------------------------------- decide.c */

/** The scheduler's words; false: they mean nothing now. */
bool attempt_decided(struct request *r, uint64_t now_ns, const struct mc_decision *d,
                     struct request_outbox *outbox);
bool attempt_not_decided(struct request *r, uint64_t now_ns, const struct request_failure *failure,
                         struct request_outbox *outbox);

/** PREFILLING. reserved: at another decode worker; NULL: it decodes where it prefills. */
void attempt_prefill(struct request *r, const struct wire_reserved *reserved,
                     struct request_outbox *outbox);

#endif /* GATEWAY_CORE_ATTEMPT_H */
