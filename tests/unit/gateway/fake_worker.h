/*
 * fake_worker.h - a worker as the gateway sees it: registers, reports, answers; what it does not do is
 * compute. Prompts are answered with the bytes of TEXT, one token each.
 */
#ifndef TESTS_FAKE_WORKER_H
#define TESTS_FAKE_WORKER_H

#include "http_talk.h"

#include <mooncake/infer.h>
#include <mooncake/sched.h>

#include "net/net.h"

enum { FAKE_REQUESTS = 64 };

static const char TEXT[] = "The answer is always the same, and long enough to be cut.";

/** One attempt that a fake worker has. */
struct fake_work {
    uint64_t request;
    uint32_t sent; /* tokens */
    uint32_t wanted;
    bool cancelled;
    uint32_t prompt; /* tokens */
};

struct fake_worker {
    os_loop *loop;
    net *net;
    net_conn *conn;
    const char *name;
    uint32_t role;
    uint64_t instance; /* as registered; 0: not */
    mc_status refused; /* why it was not registered */
    char refused_text[300];
    const mc_model *model;
    struct mc_identity fingerprint;
    const char *model_name;     /* default: the model's */
    const struct mc_cost *cost; /* of a model of time: it registers with it */
    uint64_t context;           /* default: 1000 */
    struct fake_worker *peer;   /* who decodes what this one prefills, and the other way */

    bool deaf_reserve, deaf_prefill; /* does not answer */
    bool full;                       /* refuses reservations */
    bool held;                       /* prefill is taken and not ended */
    bool slow;                       /* tokens come by fake_push() alone */
    uint32_t reserves, prefills, cancels, registered;
    uint32_t measures, measure_stops; /* asked for; the former are answered by the test */
    uint64_t measure_id;
    struct wire_prefill last; /* without its arrays */
    char decode_address[64];
    struct fake_work work[FAKE_REQUESTS];
    uint32_t work_count;
};

static inline struct fake_work *fake_find(struct fake_worker *w, uint64_t request)
{
    for (uint32_t i = 0; i < w->work_count; i++)
        if (w->work[i].request == request)
            return &w->work[i];
    assert_true(w->work_count < FAKE_REQUESTS);
    w->work[w->work_count] = (struct fake_work){ .request = request, .wanted = 5 };
    return &w->work[w->work_count++];
}

static inline uint32_t fake_token(const struct fake_worker *w, char letter)
{
    uint32_t *ids, id;
    size_t count;

    assert_int_equal(mc_model_encode(w->model, &letter, 1, MC_ENCODE_BARE, &ids, &count, NULL),
                     MC_OK);
    assert_int_equal(count, 1);
    id = ids[0];
    mc_tokens_free(w->model, ids);
    return id;
}

/** Send `count` tokens of an answer that goes on (finish 0) or ends. */
static inline void fake_push(struct fake_worker *w, uint64_t request, uint32_t count,
                             uint32_t finish)
{
    struct fake_work *work = fake_find(w, request);
    struct wire_sample samples[256];

    assert_true(count <= 256);
    for (uint32_t i = 0; i < count; i++)
        samples[i] = (struct wire_sample){
            .token = fake_token(w, TEXT[(work->sent + i) % (sizeof(TEXT) - 1)]),
            .logprob = -0.1f * (float)(work->sent + i + 1),
        };
    const struct wire_tokens m = { .request = request,
                                   .index = work->sent,
                                   .samples = { .items = samples, .count = count },
                                   .finish = finish };
    assert_int_equal(net_send(w->conn, WIRE_TOKENS, &m), MC_OK);
    work->sent += count;
}

static inline void fake_report(struct fake_worker *w, uint64_t lease_ns, bool draining)
{
    const struct wire_load_report m = {
        .instance = w->instance, .lease_ns = lease_ns, .free_tokens = 100000, .draining = draining
    };

    assert_int_equal(net_send(w->conn, WIRE_LOAD_REPORT, &m), MC_OK);
}

/* What it was asked to time: enough of it to be believed, and as regular as nothing real is. */
static inline void fake_measured(struct fake_worker *w, bool stopped)
{
    enum { PROMPTS = 30, STEPS = 10 };
    struct wire_measure_row rows[PROMPTS + STEPS];
    const struct wire_measured m = { .rows = { .items = rows, .count = PROMPTS + STEPS },
                                     .stopped = stopped };

    for (uint64_t i = 0; i < PROMPTS; i++) {
        const uint64_t tokens = UINT64_C(16) << (i / 2 % 5), reused = i % 2 * tokens / 2;
        rows[i] = (struct wire_measure_row){ .tokens = tokens - reused,
                                             .reused = reused,
                                             .duration_ns = 1000000 + 10000 * (tokens - reused) +
                                                            100 * reused };
    }
    for (uint64_t i = 0; i < STEPS; i++)
        rows[PROMPTS + i] = (struct wire_measure_row){ .tokens = (i % 5 + 1) * 64,
                                                       .sequences = (uint32_t)i % 5 + 1,
                                                       .duration_ns = 200000 + 1000 * i };
    assert_int_equal(net_answer(w->conn, w->measure_id, WIRE_MEASURED, &m), MC_OK);
}

static inline void fake_reserved(struct fake_worker *w, uint64_t id, const struct wire_reserve *r)
{
    const struct wire_reserved m = { .reservation = r->request + 1000,
                                     .pages = 8,
                                     .window = { .key = { { 1 } },
                                                 .incarnation = 7,
                                                 .size = 64,
                                                 .region = 1,
                                                 .permissions = 2,
                                                 .generation = 3,
                                                 .lease_ns = 1000000000,
                                                 .piece_bytes = 64 },
                                     .segment = wire_text("127.0.0.1:9"),
                                     .incarnation = 7 };

    w->reserves++;
    if (w->deaf_reserve)
        return;
    if (w->full)
        assert_int_equal(net_answer_outcome(w->conn, id, MC_E_FULL, "no pages"), MC_OK);
    else
        assert_int_equal(net_answer(w->conn, id, WIRE_RESERVED, &m), MC_OK);
}

/** The prefill is over: say so, and let whoever decodes send the tokens. */
static inline void fake_finish_prefill(struct fake_worker *w, uint64_t request)
{
    struct fake_worker *decode = w->last.reservation ? w->peer : w;
    struct fake_work *work = fake_find(w, request);
    const struct wire_prefill_end m = { .request = request,
                                        .status = MC_OK,
                                        .reused_tokens = 16,
                                        .pulled_bytes = 4096,
                                        .pushed_bytes = 100,
                                        .compute_ns = 1000 };

    assert_int_equal(net_send(w->conn, WIRE_PREFILL_END, &m), MC_OK);
    fake_find(decode, request)->wanted = work->wanted;
    if (!decode->slow)
        fake_push(decode, request, work->wanted, 2);
}

static inline void fake_prefill(struct fake_worker *w, uint64_t id, const struct wire_prefill *p)
{
    struct fake_work *work = fake_find(w, p->request);

    w->prefills++;
    w->last = *p;
    work->prompt = p->tokens.count;
    work->wanted = (uint32_t)p->sampling.tokens_max;
    snprintf(w->decode_address, sizeof(w->decode_address), "%.*s", (int)p->decode_address.size,
             p->decode_address.size ? (const char *)p->decode_address.data : "");
    if (w->deaf_prefill)
        return;
    assert_int_equal(net_answer_outcome(w->conn, id, MC_OK, NULL), MC_OK);
    if (!w->held)
        fake_finish_prefill(w, p->request);
}

static inline void fake_message(void *user, net_conn *conn, const struct wire_frame *frame)
{
    struct fake_worker *w = user;
    union {
        struct wire_reserve reserve;
        struct wire_prefill prefill;
        struct wire_request_cancel cancel;
        struct wire_measure measure;
    } m;
    struct mc_error why = { 0 };

    if (wire_decode(frame->kind, frame->body, frame->body_size, &m, &why) != MC_OK)
        fail_msg("%s", why.text);
    if (frame->kind == WIRE_RESERVE)
        fake_reserved(w, frame->id, &m.reserve);
    else if (frame->kind == WIRE_PREFILL)
        fake_prefill(w, frame->id, &m.prefill);
    else if (frame->kind == WIRE_REQUEST_CANCEL) {
        assert_false(fake_find(w, m.cancel.request)->cancelled); /* once */
        fake_find(w, m.cancel.request)->cancelled = true;
        w->cancels++;
        assert_int_equal(net_answer_outcome(conn, frame->id, MC_OK, NULL), MC_OK);
    } else if (frame->kind == WIRE_MEASURE && m.measure.stop) {
        w->measure_stops++;
        assert_int_equal(net_answer_outcome(conn, frame->id, MC_OK, NULL), MC_OK);
    } else if (frame->kind == WIRE_MEASURE) {
        w->measures++;
        w->measure_id = frame->id;
    } else
        fail_msg("message %u", frame->kind);
}

static inline void fake_registered(void *user, mc_status status, const struct wire_frame *frame)
{
    struct fake_worker *w = user;
    struct wire_worker_registered answer;
    struct mc_error why = { 0 };

    if (status != MC_OK)
        return;
    w->refused = net_take(frame, WIRE_WORKER_REGISTERED, &answer, &why);
    snprintf(w->refused_text, sizeof(w->refused_text), "%.299s", why.text);
    if (w->refused == MC_OK) {
        w->instance = answer.instance;
        w->registered++;
        fake_report(w, UINT64_C(60000000000), false);
    }
}

static inline void fake_up(void *user, net_conn *conn, const struct net_peer *peer)
{
    struct fake_worker *w = user;
    struct mc_model_info info;

    assert_int_equal(peer->role, NET_GATEWAY);
    mc_model_info(w->model, &info);
    const struct wire_worker_register m = {
        .name = wire_text(w->name),
        .role = w->role,
        .model = wire_text(w->model_name ? w->model_name : info.name),
        .fingerprint = w->fingerprint,
        .address = wire_text(w->name),
        .segment = wire_text("127.0.0.1:9"),
        .incarnation = net_incarnation(w->net),
        .layout = { info.layers + (w->cost != NULL), info.kv_heads, info.head_dim, 16,
                    MC_DTYPE_BF16, 1024 },
        .kv_tokens_max = 100000,
        .sequences_max = 16,
        .chunk_tokens = 64,
        .context_max = w->context ? w->context : 1000,
        .kernel = wire_text(w->cost ? "timing" : "ref"),
        .cost = { w->cost, w->cost ? 11 : 0 },
        .kv_token_bytes = w->cost ? 327680 : 0,
    };
    assert_int_equal(net_ask(conn, WIRE_WORKER_REGISTER, &m, 0, fake_registered, w, NULL), MC_OK);
}

static inline void fake_down(void *user, net_conn *conn, mc_status status, const char *text)
{
    struct fake_worker *w = user;

    (void)conn;
    (void)status;
    (void)text;
    w->instance = 0;
}

/** Before: loop, name, role, model and what it is to do. Registers as the loop turns. */
static inline void fake_open(struct fake_worker *w, const char *address)
{
    static const struct net_events events = { fake_up, fake_message, fake_down };
    const struct net_options options = {
        .alloc = os_alloc(), .loop = w->loop, .role = NET_WORKER, .name = w->name
    };

    assert_int_equal(net_open(&options, &w->net, NULL), MC_OK);
    assert_int_equal(net_dial(w->net, address, &events, w, &w->conn, NULL), MC_OK);
}

/** It dies. */
static inline void fake_close(struct fake_worker *w)
{
    net_close(w->net);
    w->net = NULL;
    w->conn = NULL;
    w->instance = 0;
}

#endif /* TESTS_FAKE_WORKER_H */
