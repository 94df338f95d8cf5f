/* route.c - which path is what: the small endpoints answer here. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "gateway/state.h"

static const char JSON[] = "application/json";
static const char METRICS_TEXT[] = "text/plain; version=0.0.4; charset=utf-8";

/* -------------------------------------------------------------------------------------- answers */

void gateway_route_count(gateway *g, unsigned status)
{
    metric_add(&g->metrics, METRIC_answers, status < 400 ? 0 : status < 500 ? 1 : 2, 1);
}

void gateway_route_error(gateway *g, http_request *http, const struct api_error *error)
{
    struct buf body = BUF_INIT(g->alloc);

    if (error->retry_ns) {
        char seconds[24];
        snprintf(seconds, sizeof(seconds), "%" PRIu64,
                 error->retry_ns / 1000000000 + (error->retry_ns % 1000000000 != 0));
        http_header_add(http, "Retry-After", seconds);
    }
    api_answer_write_error(error, false, &body);
    gateway_route_count(g, error->status);
    if (body.failed) {
        buf_fini(&body);
        http_abort(http);
    } else
        http_answer(http, error->status, JSON, &body);
}

static void answer(gateway *g, http_request *http, unsigned status, const char *type,
                   struct buf *body)
{
    if (body->failed) {
        buf_fini(body);
        http_abort(http);
        return;
    }
    gateway_route_count(g, status);
    http_answer(http, status, type, body);
}

/* ------------------------------------------------------------------------------------ endpoints */

static void completions(gateway *g, http_request *http)
{
    gateway_client_take(g, http, API_COMPLETION);
}

static void chat(gateway *g, http_request *http)
{
    gateway_client_take(g, http, API_CHAT);
}

static void models(gateway *g, http_request *http)
{
    struct buf body = BUF_INIT(g->alloc);

    buf_add_text(&body, "{\"object\":\"list\",\"data\":[{\"id\":");
    buf_add_json(&body, g->defaults.model, strlen(g->defaults.model));
    buf_addf(&body,
             ",\"object\":\"model\",\"created\":%" PRIu64
             ",\"owned_by\":\"mooncake\",\"max_model_len\":%u}]}\n",
             g->started_s, gateway_control_context_max(g));
    answer(g, http, 200, JSON, &body);
}

/* 200 when a request would find workers; for supervisors and load balancers. */
static void health(gateway *g, http_request *http)
{
    const bool ready = gateway_control_can_serve(g) && !g->draining;
    struct buf body = BUF_INIT(g->alloc);

    buf_addf(&body, "{\"status\":\"%s\",\"workers\":%" PRIu64 "}\n",
             g->draining ? "draining"
             : ready     ? "ok"
                         : "no workers",
             metric_value(&g->metrics, METRIC_workers, 0));
    answer(g, http, ready ? 200 : 503, JSON, &body);
}

static void metrics(gateway *g, http_request *http)
{
    struct buf body = BUF_INIT(g->alloc);

    gateway_metrics(g, &body);
    answer(g, http, 200, METRICS_TEXT, &body);
}

static const struct route {
    const char *method, *path;
    void (*run)(gateway *g, http_request *http);
} routes[] = {
    { "POST", "/v1/completions", completions },
    { "POST", "/v1/chat/completions", chat },
    { "GET", "/v1/models", models },
    { "GET", "/health", health },
    { "GET", "/metrics", metrics },
};

static bool allows(const struct route *route, const char *method)
{
    return strcmp(route->method, method) == 0 ||
           (strcmp(route->method, "GET") == 0 && strcmp(method, "HEAD") == 0);
}

static void take_request(void *user, http_request *http)
{
    gateway *g = user;
    struct api_error error;

    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (strcmp(routes[i].path, http_path(http)) != 0)
            continue;
        if (allows(&routes[i], http_method(http))) {
            routes[i].run(g, http);
            return;
        }
        http_header_add(http, "Allow", routes[i].method);
        api_fail(&error, 405, "invalid_request_error", "method_not_allowed", NULL, "%s takes %s",
                 routes[i].path, routes[i].method);
        gateway_route_error(g, http, &error);
        return;
    }
    api_fail(&error, 404, "not_found_error", "not_found", NULL,
             "%.200s is not here; POST /v1/completions, POST /v1/chat/completions, GET /v1/models, "
             "GET /health and GET /metrics are",
             http_path(http));
    gateway_route_error(g, http, &error);
}

static void refuse_body(void *user, http_request *http)
{
    gateway *g = user;
    struct api_error error;

    api_fail(&error, 413, "invalid_request_error", "body_too_large", NULL,
             "the body is larger than %" PRIu64 " bytes", g->options.body_max);
    gateway_route_error(g, http, &error);
}

static void went_quiet(void *user)
{
    gateway_pump(user); /* a drain may have waited for the last answer to be taken */
}

struct http_handler gateway_route_handler(gateway *g)
{
    return (struct http_handler){
        .request = take_request, .too_large = refuse_body, .quiet = went_quiet, .user = g
    };
}
