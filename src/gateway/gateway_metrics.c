/* gateway_metrics.c - the gateway's table of metrics. */
#include "gateway/gateway_metrics.h"

static const char *const ends[GATEWAY_ENDS] = { "stop", "length", "refused", "client_left",
                                                "failed" };
static const char *const classes[] = { "2xx", "4xx", "5xx" };

const struct metric_label gateway_ends = { "how", ends, GATEWAY_ENDS };
const struct metric_label gateway_status_classes = { "class", classes, 3 };

static const char *const refusals[GATEWAY_REFUSALS] = { "ttft_slo",    "tbt_slo",  "decode_load",
                                                        "kv_memory",   "deadline", "queue_full",
                                                        "no_instance", "too_long", "other" };
static const char *const objectives[GATEWAY_OBJECTIVES] = { "ttft", "tbt", "tbt_longest" };
static const uint64_t errors[] = { 10000,  25000,  50000,   100000,  200000,
                                   400000, 800000, 1600000, 3200000, 10000000 };

const struct metric_label gateway_refusals = { "reason", refusals, GATEWAY_REFUSALS };
const struct metric_label gateway_objectives = { "which", objectives, GATEWAY_OBJECTIVES };
const struct metric_bounds gateway_errors = { errors, sizeof(errors) / sizeof(errors[0]) };

const struct metric gateway_metric_rows[] = { GATEWAY_METRICS(METRIC_ROW) };
