/* gateway_metrics.c - the gateway's table of metrics. */
#include "gateway/gateway_metrics.h"

static const char *const ends[GATEWAY_ENDS] = { "stop", "length", "refused", "client_left",
                                                "failed" };
static const char *const classes[] = { "2xx", "4xx", "5xx" };

const struct metric_label gateway_ends = { "how", ends, GATEWAY_ENDS };
const struct metric_label gateway_status_classes = { "class", classes, 3 };

const struct metric gateway_metric_rows[] = { GATEWAY_METRICS(METRIC_ROW) };
