/* bench_serve_ask.c - a few questions, one after another. */
#include "cmd/bench_serve_ask.h"

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/error.h"
#include "cmd/answer_part.h"
#include "os/sysalloc.h"
#include "sim/scan.h"

enum { BODY_MAX = 1 << 20, HIGH_FIRST = 16384, HIGH_LEAST = 16 };

/** One question and its answer. */
struct question {
    struct http_call call;
    os_loop *loop;
    struct buf body;
    mc_status status;
    long code;
    char text[300]; /* what went wrong on the way */
};

static bool on_data(void *user, const char *bytes, size_t size)
{
    struct question *q = user;

    if (q->body.size + size > BODY_MAX)
        return false;
    buf_add(&q->body, bytes, size);
    return !q->body.failed;
}

static void on_end(void *user, const struct http_end *end)
{
    struct question *q = user;

    q->status = end->status;
    q->code = end->code;
    snprintf(q->text, sizeof(q->text), "%s", end->text);
    os_loop_stop(q->loop);
}

static mc_status put_question(struct question *q, http_client *client, os_loop *loop,
                              const char *path, const char *body, struct mc_error *error)
{
    *q = (struct question){ .loop = loop, .body = BUF_INIT(os_alloc()), .status = MC_E_CANCELLED };
    q->call = (struct http_call){ .path = path,
                                  .body = body,
                                  .body_size = body ? strlen(body) : 0,
                                  .data = on_data,
                                  .end = on_end,
                                  .user = q };
    if (http_client_begin(client, &q->call) != MC_OK)
        return error_set(error, MC_E_NOMEM, "no memory for a question");
    os_loop_run(loop);
    http_client_cancel(client, &q->call); /* a signal ended the loop first */
    if (q->status == MC_OK)
        return MC_OK;
    return error_set(error, q->status, "%s", q->text[0] ? q->text : mc_status_text(q->status));
}

/* The server said no. */
static mc_status refused(const struct question *q, const char *where, struct mc_error *error)
{
    struct answer_part part = { 0 };

    if (q->body.size > 0)
        (void)answer_part_read(q->body.data, q->body.size, &part);
    const mc_status status = q->code == 401 || q->code == 403 ? MC_E_DENIED
                             : q->code == 404                 ? MC_E_NOT_FOUND
                                                              : MC_E_FORMAT;
    return error_set(error, status, "%s: answered %ld%s%s", where, q->code,
                     part.message[0] ? ": " : "", part.message);
}

/* ---------------------------------------------------------------------------------------- models */

/** One element of "data". */
struct model {
    char id[200];
    uint64_t context;
};

static bool take_model(struct scan *s, struct model *m)
{
    struct scan_text key, text;

    *m = (struct model){ 0 };
    for (bool more = scan_object(s); more && scan_key(s, &key);) {
        if (scan_is(&key, "id") && scan_peek(s) == SCAN_STRING) {
            if (scan_string(s, &text))
                scan_copy(&text, m->id, sizeof(m->id));
        } else if (scan_is(&key, "max_model_len") && scan_peek(s) == SCAN_NUMBER) {
            if (scan_number(s, &text) && !scan_whole(&text, UINT32_MAX, &m->context))
                m->context = 0;
        } else
            scan_skip(s);
    }
    return !s->problem;
}

/* Find the model in {"data": [...]}. false: this is no such list. */
static bool find_model(const struct buf *body, const char *wanted, struct model *found)
{
    struct scan s = scan_begin(body->size ? body->data : "", body->size);
    struct scan_text key;
    struct model m;

    *found = (struct model){ 0 };
    for (bool more = scan_object(&s); more && scan_key(&s, &key);) {
        if (!scan_is(&key, "data") || scan_peek(&s) != SCAN_ARRAY) {
            scan_skip(&s);
            continue;
        }
        for (bool inner = scan_array(&s); inner && scan_element(&s);)
            if (take_model(&s, &m) && found->id[0] == '\0' &&
                (!wanted || strcmp(m.id, wanted) == 0))
                *found = m;
    }
    return scan_end(&s);
}

mc_status bench_ask_models(http_client *client, os_loop *loop, const char *url, const char *wanted,
                           struct bench_server *server, struct mc_error *error)
{
    struct question q;
    struct model model;
    char where[320];

    *server = (struct bench_server){ 0 };
    snprintf(where, sizeof(where), "%.256s: /v1/models", url);
    mc_status status = put_question(&q, client, loop, "/v1/models", NULL, error);
    if (status != MC_OK)
        error_prefix(error, status, "%.256s", url);
    else if (q.code != 200)
        status = refused(&q, where, error);
    else if (!find_model(&q.body, wanted, &model))
        status = error_set(error, MC_E_FORMAT, "%s: the answer is no list of models", where);
    else if (model.id[0] == '\0')
        status = error_set(error, MC_E_NOT_FOUND, "%s: does not list %s%s", where,
                           wanted ? "the model " : "any model", wanted ? wanted : "");
    else {
        snprintf(server->model, sizeof(server->model), "%s", model.id);
        server->context_tokens = (uint32_t)model.context;
    }
    buf_fini(&q.body);
    return status;
}

/* ------------------------------------------------------------------------------------------- ids */

/* Does the server take this id? MC_E_RANGE: no. */
static mc_status try_id(http_client *client, os_loop *loop, const char *model, uint32_t id,
                        struct mc_error *error)
{
    struct buf body = BUF_INIT(os_alloc());
    struct question q;

    buf_add_text(&body, "{\"model\":");
    buf_add_json(&body, model, strlen(model));
    buf_addf(&body, ",\"prompt\":[%u],\"max_tokens\":1,\"temperature\":0}", id);
    if (body.failed)
        return error_set(error, MC_E_NOMEM, "no memory for a question");
    mc_status status = put_question(&q, client, loop, "/v1/completions", body.data, error);
    if (status == MC_OK && (q.code == 400 || q.code == 422)) {
        (void)refused(&q, "/v1/completions", error);
        status = MC_E_RANGE;
    } else if (status == MC_OK && (q.code == 401 || q.code == 403 || q.code == 404))
        status = refused(&q, "/v1/completions", error);
    buf_fini(&q.body);
    buf_fini(&body);
    return status;
}

mc_status bench_ask_ids(http_client *client, os_loop *loop, struct bench_server *server,
                        struct mc_error *error)
{
    mc_status status = MC_E_RANGE;
    uint32_t high = HIGH_FIRST;

    for (;; high /= 2) {
        status = try_id(client, loop, server->model, high - 1, error);
        if (status != MC_E_RANGE || high == HIGH_LEAST)
            break;
    }
    if (status == MC_E_RANGE)
        return error_prefix(error, MC_E_RANGE,
                            "the server takes no lists of token ids (--prompt text does without)");
    if (status != MC_OK)
        return status;
    /* Away from both ends: that is where special tokens are. */
    server->token_low = high / 4;
    server->token_high = high - high / 4;
    return MC_OK;
}
