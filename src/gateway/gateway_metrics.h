/* gateway_metrics.h - what the gateway counts; see base/metric.h. */
#ifndef GATEWAY_GATEWAY_METRICS_H
#define GATEWAY_GATEWAY_METRICS_H

#include "base/metric.h"

extern const struct metric_label gateway_ends, gateway_status_classes, gateway_refusals,
    gateway_objectives;
extern const struct metric_bounds gateway_errors;

/* Values of gateway_refusals, in its order. */
enum gateway_refused {
    GATEWAY_REFUSED_TTFT_SLO,
    GATEWAY_REFUSED_TBT_SLO,
    GATEWAY_REFUSED_DECODE_LOAD,
    GATEWAY_REFUSED_KV_MEMORY,
    GATEWAY_REFUSED_DEADLINE,
    GATEWAY_REFUSED_QUEUE_FULL,
    GATEWAY_REFUSED_NO_INSTANCE,
    GATEWAY_REFUSED_TOO_LONG,
    GATEWAY_REFUSED_OTHER,
    GATEWAY_REFUSALS,
};

/* Values of gateway_objectives, in its order. */
enum gateway_objective {
    GATEWAY_OBJECTIVE_TTFT,
    GATEWAY_OBJECTIVE_TBT,
    GATEWAY_OBJECTIVE_TBT_LONGEST,
    GATEWAY_OBJECTIVES,
};

/* Values of gateway_ends, in its order. */
enum gateway_end {
    GATEWAY_END_STOP,
    GATEWAY_END_LENGTH,
    GATEWAY_END_REFUSED,
    GATEWAY_END_CLIENT_LEFT,
    GATEWAY_END_FAILED,
    GATEWAY_ENDS,
};

/* clang-format off */
#define GATEWAY_METRICS(X) \
    X(answers, "http_answers", COUNTER, NONE, NULL, &gateway_status_classes, \
      "HTTP answers, by class of status.") \
    X(requests, "requests", COUNTER, NONE, NULL, NULL, "Completions and chats taken in.") \
    X(ended, "requests_ended", COUNTER, NONE, NULL, &gateway_ends, "Requests that ended, by how.") \
    X(active, "requests_active", GAUGE, NONE, NULL, NULL, "Requests under way.") \
    X(tries, "retries", COUNTER, NONE, NULL, NULL, "Attempts that failed and were made again.") \
    X(late, "late_messages", COUNTER, NONE, NULL, NULL, \
      "Messages of workers that nobody waited for.") \
    X(prompt_tokens, "prompt_tokens", COUNTER, NONE, NULL, NULL, "Tokens of prompts answered.") \
    X(reused_tokens, "reused_tokens", COUNTER, NONE, NULL, NULL, \
      "Of these, not computed because the pool had them.") \
    X(output_tokens, "output_tokens", COUNTER, NONE, NULL, NULL, "Tokens of answers.") \
    X(pulled_bytes, "pulled", COUNTER, BYTES, NULL, NULL, "KVCache taken from the pool for prompts.") \
    X(pushed_bytes, "pushed", COUNTER, BYTES, NULL, NULL, "KVCache handed from prefill to decode.") \
    X(ttft, "time_to_first_token", HISTOGRAM, SECONDS, &metric_latencies, NULL, \
      "From a request's arrival to its first token.") \
    X(whole, "request_time", HISTOGRAM, SECONDS, &metric_latencies, NULL, \
      "From a request's arrival to its end.") \
    X(tbt, "time_between_tokens", HISTOGRAM, SECONDS, &metric_latencies, NULL, \
      "Of each request that ended whole: the mean.") \
    X(tbt_longest, "time_between_tokens_longest", HISTOGRAM, SECONDS, &metric_latencies, NULL, \
      "Of each request that ended whole: the mean of the longest tenth.") \
    X(refused, "refused", COUNTER, NONE, NULL, &gateway_refusals, \
      "Requests refused, by reason.") \
    X(goodput_requests, "goodput_requests", COUNTER, NONE, NULL, NULL, \
      "Requests that ended whole and met their objectives.") \
    X(goodput_tokens, "goodput_tokens", COUNTER, NONE, NULL, NULL, "Tokens of their answers.") \
    X(slo_missed, "slo_missed", COUNTER, NONE, NULL, &gateway_objectives, \
      "Requests that ended whole and missed an objective, by which; tbt_longest: the longest tenth of " \
      "its gaps did, whatever the mean.") \
    X(soft_refused, "soft_refused", COUNTER, NONE, NULL, NULL, \
      "Requests let in although a prediction was against it: too little was observed yet.") \
    X(booked, "booked", COUNTER, NONE, NULL, NULL, "Refusals with room kept for the client's return.") \
    X(back, "booked_back", COUNTER, NONE, NULL, NULL, "Of these, came back when told to.") \
    X(back_placed, "booked_back_placed", COUNTER, NONE, NULL, NULL, "And were let in then.") \
    X(shadowed, "refusals_judged", COUNTER, NONE, NULL, NULL, \
      "Refusals of which it is known what would have become of them.") \
    X(would_have_met, "refusals_would_have_met", COUNTER, NONE, NULL, NULL, \
      "Of these, would have met their objectives.") \
    X(wasted_prefill, "prefill_wasted", COUNTER, SECONDS, NULL, NULL, \
      "Prefill of requests that were refused, failed or left afterwards.") \
    X(ttft_error, "ttft_error", HISTOGRAM, RATIO, &gateway_errors, NULL, \
      "|predicted - observed| / observed time to the first token.") \
    X(ttft_error_p50, "ttft_error_p50", GAUGE, RATIO, NULL, NULL, "Of the last 128 first tokens.") \
    X(ttft_error_p90, "ttft_error_p90", GAUGE, RATIO, NULL, NULL, "Of the last 128 first tokens.") \
    X(measured, "workers_measured", COUNTER, NONE, NULL, NULL, \
      "Times that a worker has timed itself.") \
    X(slow, "slow_clients", COUNTER, NONE, NULL, NULL, "Streams ended because the client did not read.") \
    X(connections, "http_connections", GAUGE, NONE, NULL, NULL, "HTTP connections.") \
    X(connections_idle, "http_connections_idle", GAUGE, NONE, NULL, NULL, \
      "Of these, without a request.") \
    X(accepted, "http_connections_accepted", COUNTER, NONE, NULL, NULL, "HTTP connections taken in.") \
    X(turned_away, "http_connections_turned_away", COUNTER, NONE, NULL, NULL, \
      "Closed at once: too many from one address.") \
    X(evicted, "http_connections_evicted", COUNTER, NONE, NULL, NULL, \
      "Idle ones closed because their place was needed.") \
    X(not_http, "http_requests_refused", COUNTER, NONE, NULL, NULL, \
      "Requests that were not HTTP, too long or too slow.") \
    X(late_requests, "http_requests_late", COUNTER, NONE, NULL, NULL, \
      "Requests and answers cut off for not being through in time.") \
    X(no_room, "http_requests_without_room", COUNTER, NONE, NULL, NULL, \
      "Requests refused because others' bodies had taken all that they may together.") \
    X(unauthorized, "http_requests_unauthorized", COUNTER, NONE, NULL, NULL, \
      "Requests without a valid key.") \
    X(watchers, "watchers", GAUGE, NONE, NULL, NULL, "Who watches /live.") \
    X(watchers_cut, "watchers_cut", COUNTER, NONE, NULL, NULL, "Watchers cut off: they did not read.") \
    X(workers, "workers", GAUGE, NONE, NULL, NULL, "Workers registered.") \
    X(registered, "workers_registered", COUNTER, NONE, NULL, NULL, "Registrations accepted.") \
    X(rejected, "workers_rejected", COUNTER, NONE, NULL, NULL, "Registrations refused.") \
    X(lost, "workers_lost", COUNTER, NONE, NULL, NULL, "Workers gone without a drain, or silent.") \
    X(pool_nodes, "pool_nodes", GAUGE, NONE, NULL, NULL, "Nodes of the pool.") \
    X(pool_events, "pool_events", COUNTER, NONE, NULL, NULL, "Events of the pool taken in.") \
    X(pool_resets, "pool_resets", COUNTER, NONE, NULL, NULL, \
      "Times that the view of the pool began anew.") \
    X(copies, "copies_ordered", COUNTER, NONE, NULL, NULL, \
      "Hot prefixes of which a worker was told to put a further copy.") \
    X(recorded_events, "recorded_events", COUNTER, NONE, NULL, NULL, \
      "Events of the scheduler that went into the recording.") \
    X(recording, "recording", GAUGE, NONE, NULL, NULL, "1: the scheduler's events are being recorded.") \
    X(decisions_dropped, "decisions_dropped", COUNTER, NONE, NULL, NULL, \
      "Decisions that found no room to wait in.")
/* clang-format on */

enum { GATEWAY_METRICS(METRIC_ENUM) GATEWAY_METRIC_COUNT };

extern const struct metric gateway_metric_rows[];

#endif /* GATEWAY_GATEWAY_METRICS_H */
