/* route.c - which path is what: the small endpoints answer here. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "gateway/api_text.h"
#include "gateway/live.h"
#include "gateway/reason.h"
#include "gateway/state.h"

#define MODELS "/v1/models/"

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
    if (error->reason) {
        char name[REASON_NAME];
        gateway_reason_name(error->reason, name);
        http_header_add(http, "X-Mooncake-Refused", name);
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

static void add_model(const gateway *g, struct buf *body)
{
    buf_add_text(body, "{\"id\":");
    buf_add_json(body, g->defaults.model, strlen(g->defaults.model));
    buf_addf(body,
             ",\"object\":\"model\",\"created\":%" PRIu64
             ",\"owned_by\":\"mooncake\",\"max_model_len\":%u}",
             g->started_s, gateway_control_context_max(g));
}

static void models(gateway *g, http_request *http)
{
    struct buf body = BUF_INIT(g->alloc);

    buf_add_text(&body, "{\"object\":\"list\",\"data\":[");
    add_model(g, &body);
    buf_add_text(&body, "]}\n");
    answer(g, http, 200, JSON, &body);
}

static void model(gateway *g, http_request *http)
{
    const char *name = http_path(http) + strlen(MODELS);
    struct buf body = BUF_INIT(g->alloc);
    struct api_error error;

    if (strcmp(name, g->defaults.model) != 0) {
        api_fail(&error, 404, "not_found_error", "model_not_found", "model",
                 "model: \"%.100s\" is not served here; \"%.200s\" is", name, g->defaults.model);
        gateway_route_error(g, http, &error);
        return;
    }
    add_model(g, &body);
    buf_add_byte(&body, '\n');
    answer(g, http, 200, JSON, &body);
}

static void version(gateway *g, http_request *http)
{
    struct buf body = BUF_INIT(g->alloc);

    buf_addf(&body, "{\"version\":\"%s\"}\n", mc_version());
    answer(g, http, 200, JSON, &body);
}

/* Text to tokens and back: the tokenizer is here, no worker is asked. */
static void convert(gateway *g, http_request *http,
                    bool (*run)(const struct api_text_options *options, const char *body,
                                size_t size, struct buf *out, struct api_error *error_p))
{
    const struct api_text_options options = { &g->defaults, g->model, g->alloc,
                                              gateway_control_context_max(g) };
    struct buf body = BUF_INIT(g->alloc);
    struct api_error error;
    size_t size;
    const char *text = http_body(http, &size);

    if (run(&options, text, size, &body, &error)) {
        answer(g, http, 200, JSON, &body);
        return;
    }
    buf_fini(&body);
    gateway_route_error(g, http, &error);
}

static void tokenize(gateway *g, http_request *http)
{
    convert(g, http, api_tokenize);
}

static void detokenize(gateway *g, http_request *http)
{
    convert(g, http, api_detokenize);
}

static void answer_health(gateway *g, http_request *http, unsigned status, const char *words)
{
    struct buf body = BUF_INIT(g->alloc);

    buf_addf(&body, "{\"status\":\"%s\",\"workers\":%" PRIu64 "}\n", words,
             metric_value(&g->metrics, METRIC_workers, 0));
    if (status != 200)
        http_header_add(http, "Retry-After", "1");
    answer(g, http, status, JSON, &body);
}

/* Whether this process serves; for supervisors, which would restart it else. */
static void health(gateway *g, http_request *http)
{
    answer_health(g, http, g->draining ? 503 : 200, g->draining ? "draining" : "ok");
}

/* Whether a request would find workers; for load balancers, which would ask another one else. */
static void ready(gateway *g, http_request *http)
{
    if (g->draining)
        answer_health(g, http, 503, "draining");
    else if (gateway_control_can_serve(g))
        answer_health(g, http, 200, "ok");
    else
        answer_health(g, http, 503,
                      metric_value(&g->metrics, METRIC_workers, 0)
                          ? "no worker prefills, or none decodes"
                          : "no workers");
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
    bool below; /* whatever begins with the path */
} routes[] = {
    { "POST", "/v1/completions", completions, false },
    { "POST", "/v1/chat/completions", chat, false },
    { "GET", "/v1/models", models, false },
    { "GET", MODELS, model, true },
    { "GET", "/health", health, false },
    { "GET", "/health/ready", ready, false },
    { "GET", "/metrics", metrics, false },
    { "GET", "/version", version, false },
    { "POST", "/tokenize", tokenize, false },
    { "POST", "/detokenize", detokenize, false },
    { "GET", "/", gateway_live_page, false },
    { "GET", "/live", gateway_live_watch, false },
};

static const struct route *find_route(const char *path)
{
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        const struct route *r = &routes[i];
        if (r->below ? strncmp(path, r->path, strlen(r->path)) == 0 : strcmp(path, r->path) == 0)
            return r;
    }
    return NULL;
}

static bool allows(const struct route *route, const char *method)
{
    return strcmp(route->method, method) == 0 ||
           (strcmp(route->method, "GET") == 0 && strcmp(method, "HEAD") == 0);
}

static void add_allow(const struct route *route, http_request *http)
{
    http_header_add(http, "Allow",
                    !route                              ? "GET, HEAD, POST, OPTIONS"
                    : strcmp(route->method, "GET") == 0 ? "GET, HEAD, OPTIONS"
                                                        : "POST, OPTIONS");
}

/* What a path takes; of the server as a whole: "*". */
static void answer_options(gateway *g, http_request *http, const struct route *route)
{
    struct buf body = BUF_INIT(g->alloc);

    add_allow(route, http);
    answer(g, http, 200, JSON, &body);
}

static void refuse_path(gateway *g, http_request *http)
{
    struct buf paths = BUF_INIT(g->alloc);
    struct api_error error;

    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++)
        buf_addf(&paths, "%s%s %s%s", i ? ", " : "", routes[i].method, routes[i].path,
                 routes[i].below ? "{id}" : "");
    api_fail(&error, 404, "not_found_error", "not_found", NULL, "%.100s is not here; there are %s",
             http_path(http), paths.failed ? "others" : paths.data);
    buf_fini(&paths);
    gateway_route_error(g, http, &error);
}

static void refuse_method(gateway *g, http_request *http, const struct route *route)
{
    struct api_error error;

    add_allow(route, http);
    api_fail(&error, 405, "invalid_request_error", "method_not_allowed", NULL, "%s takes %s",
             route->path, route->method);
    gateway_route_error(g, http, &error);
}

static void take_request(void *user, http_request *http)
{
    gateway *g = user;
    const struct route *route = find_route(http_path(http));
    const bool asks = strcmp(http_method(http), "OPTIONS") == 0;

    if (asks && (route || strcmp(http_path(http), "*") == 0))
        answer_options(g, http, route);
    else if (!route)
        refuse_path(g, http);
    else if (!allows(route, http_method(http)))
        refuse_method(g, http, route);
    else
        route->run(g, http);
}

static void went_quiet(void *user)
{
    gateway_pump(user); /* a drain may have waited for the last answer to be taken */
}

struct http_handler gateway_route_handler(gateway *g)
{
    return (struct http_handler){
        .admit = gateway_entrance_admit,
        .request = take_request,
        .refuse = gateway_entrance_refuse,
        .quiet = went_quiet,
        .user = g,
    };
}
