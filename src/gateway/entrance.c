/* entrance.c - before a request is anybody's: who may ask, and what is not a request at all. */
#include <inttypes.h>
#include <string.h>

#include "gateway/auth.h"
#include "gateway/state.h"

static const uint64_t RETRY_NS = 1000000000;

bool gateway_entrance_has_keys(const gateway *g)
{
    return g->options.auth && g->options.auth->count > 0;
}

/* Without a key: what supervisors ask, and the page, which holds no data. */
static bool is_open(const char *method, const char *path)
{
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
        return false;
    return strcmp(path, "/") == 0 || strcmp(path, "/health") == 0 ||
           strncmp(path, "/health/", 8) == 0;
}

bool gateway_entrance_admit(void *user, http_request *http)
{
    gateway *g = user;
    struct api_error error;

    if (!gateway_entrance_has_keys(g) || is_open(http_method(http), http_path(http)))
        return true;
    const char *value = http_header(http, "Authorization");
    if (auth_admits(g->options.auth, value))
        return true;
    metric_add(&g->metrics, METRIC_unauthorized, 0, 1);
    gateway_log(&g->log, MC_LOG_DEBUG, "event=unauthorized request=%s key=%s",
                http_request_id(http), value ? "wrong" : "none");
    http_header_add(http, "WWW-Authenticate", "Bearer realm=\"mooncake\"");
    api_fail(&error, 401, "authentication_error", "invalid_api_key", NULL,
             value ? "the key is not one of this gateway's"
                   : "no key: send one as the header \"Authorization: Bearer KEY\"");
    gateway_route_error(g, http, &error);
    return false;
}

void gateway_entrance_refuse(void *user, http_request *http, unsigned status, const char *code,
                             const char *text)
{
    gateway *g = user;
    struct api_error error;

    gateway_log(&g->log, MC_LOG_DEBUG, "event=http_refused request=%s status=%u code=%s",
                http_request_id(http), status, code);
    if (status == 413)
        api_fail(&error, status, "invalid_request_error", code, NULL,
                 "the body is larger than %" PRIu64 " bytes", g->options.body_max);
    else if (status == 503)
        api_fail(&error, status, "service_unavailable_error", code, NULL, "%s: come again", text);
    else
        api_fail(&error, status, status == 408 ? "timeout_error" : "invalid_request_error", code,
                 NULL, "%s", text);
    error.retry_ns = status == 503 ? RETRY_NS : 0;
    gateway_route_error(g, http, &error);
}

void gateway_entrance_count(gateway *g)
{
    struct http_counts *seen = &g->http_seen;

    if (!g->http)
        return;
    const struct http_counts now = http_counts(g->http);
    metric_set(&g->metrics, METRIC_connections, 0, now.connections);
    metric_set(&g->metrics, METRIC_connections_idle, 0, now.idle);
    metric_add(&g->metrics, METRIC_accepted, 0, now.accepted - seen->accepted);
    metric_add(&g->metrics, METRIC_turned_away, 0, now.turned_away - seen->turned_away);
    metric_add(&g->metrics, METRIC_evicted, 0, now.evicted - seen->evicted);
    metric_add(&g->metrics, METRIC_not_http, 0, now.refused - seen->refused);
    metric_add(&g->metrics, METRIC_late_requests, 0, now.late - seen->late);
    metric_add(&g->metrics, METRIC_no_room, 0, now.no_room - seen->no_room);
    *seen = now;
}
