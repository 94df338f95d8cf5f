/*
 * slo.h - a request's objectives and its refusal, as clients see them; goodput. docs/admission.md is the user's page.
 *
 * Who is refused is the scheduler's to decide (src/sched/admit.h). Here: what a request's headers ask, the 429
 * that says why with figures and when to come back, and the counters.
 */
#ifndef GATEWAY_SLO_H
#define GATEWAY_SLO_H

#include "gateway/client.h"

/** Read x-slo-ttft-ms and x-slo-tpot-ms into the scheduler's question, and name the request. False: *error says why
 * not. After its ids are there. */
bool gateway_slo_read(struct client *client, struct api_error *error);

/** Headers of an answer that begins: what was predicted for it. */
void gateway_slo_headers(const struct client *client);

/** Answer a refusal of the scheduler's with its figures. False: it is none; nothing was done. */
bool gateway_slo_refuse(struct client *client, const struct request_out_end *end);

/** Count an ended request: did it meet its objectives? */
void gateway_slo_ended(struct client *client, const struct request_out_end *end);

/** Count refusals by their reason. */
void gateway_slo_count_refusal(gateway *g, uint32_t reason, uint64_t count);

/** Bring the scheduler's counters into the table of metrics. */
void gateway_slo_refresh(gateway *g);

#endif /* GATEWAY_SLO_H */
