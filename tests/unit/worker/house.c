/* house.c - a gateway of two hundred lines. */
#include "house.h"

#include <stdio.h>

#include "base/prng.h"
#include "infer/batcher.h"
#include "os/clock.h"
#include "os/sysalloc.h"

#define SECOND UINT64_C(1000000000)

const char *house_transports;
const char *house_master = "127.0.0.1:1";

static struct guest *guest_of(struct house *h, const net_conn *conn)
{
    for (uint32_t i = 0; i < h->count; i++)
        if (h->guests[i].conn == conn)
            return &h->guests[i];
    return NULL;
}

static struct client *client_of(struct house *h, uint64_t request)
{
    for (uint32_t i = 0; i < h->client_count; i++)
        if (h->clients[i].request == request)
            return &h->clients[i];
    return NULL;
}

/* -------------------------------------------------------------------------------------- messages */

static void copy_text(char *to, size_t capacity, const struct wire_slice *from)
{
    assert_true(from->size < capacity);
    memcpy(to, from->data, from->size);
    to[from->size] = '\0';
}

static void on_register(struct house *h, net_conn *conn, const struct wire_frame *frame,
                        const struct wire_worker_register *m)
{
    char name[32];

    copy_text(name, sizeof(name), &m->name);
    for (uint32_t i = 0; i < h->count; i++) {
        struct guest *g = &h->guests[i];
        if (strcmp(g->name, name) != 0)
            continue;
        g->conn = conn;
        g->incarnation = m->incarnation;
        g->fingerprint = m->fingerprint;
        copy_text(g->address, sizeof(g->address), &m->address);
        const struct wire_worker_registered answer = { .instance = ++g->instance,
                                                       .report_ns = 10000000 };
        assert_int_equal(net_answer(conn, frame->id, WIRE_WORKER_REGISTERED, &answer), MC_OK);
        return;
    }
    fail_msg("%s registers", name);
}

static void on_tokens(struct house *h, const struct wire_tokens *m)
{
    struct client *c = client_of(h, m->request);
    struct wire_list samples = m->samples;
    struct wire_sample sample;

    assert_non_null(c);
    assert_int_equal(c->finish, GOES_ON);
    assert_int_equal(m->index, c->count);
    while (wire_sample_next(&samples, &sample)) {
        c->tokens[c->count] = sample.token;
        c->logprobs[c->count++] = sample.logprob;
    }
    c->finish = m->finish;
    c->status = m->status;
}

static void on_message(void *user, net_conn *conn, const struct wire_frame *frame)
{
    struct house *h = user;
    union {
        _Alignas(16) char bytes[WIRE_STRUCT_MAX];
        struct wire_worker_register registration;
        struct wire_tokens tokens;
        struct wire_prefill_end end;
        struct wire_load_report report;
    } m;

    assert_int_equal(wire_decode(frame->kind, frame->body, frame->body_size, &m, NULL), MC_OK);
    switch (frame->kind) {
    case WIRE_WORKER_REGISTER:
        on_register(h, conn, frame, &m.registration);
        break;
    case WIRE_TOKENS:
        on_tokens(h, &m.tokens);
        break;
    case WIRE_PREFILL_END: {
        struct client *c = client_of(h, m.end.request);
        assert_false(c->ended);
        c->ended = true;
        c->end = m.end;
        c->end_status = m.end.status;
        break;
    }
    case WIRE_LOAD_REPORT:
        guest_of(h, conn)->reports++;
        guest_of(h, conn)->report = m.report;
        break;
    case WIRE_PREFILL_PROGRESS:
        break;
    default:
        fail_msg("message of kind %u", frame->kind);
    }
}

static void on_up(void *user, net_conn *conn, const struct net_peer *peer)
{
    (void)user;
    (void)conn;
    assert_int_equal(peer->role, NET_WORKER);
}

static void on_down(void *user, net_conn *conn, mc_status status, const char *text)
{
    struct guest *g = guest_of(user, conn);

    (void)status;
    (void)text;
    if (g)
        g->conn = NULL;
}

static const struct net_events events = { on_up, on_message, on_down };

/* ------------------------------------------------------------------------------------ open, close */

struct house *house_open(void)
{
    struct house *h = calloc(1, sizeof(*h));

    assert_non_null(h);
#ifndef MC_REAL_POOL
    fake_moves_reset();
#endif
    assert_int_equal(os_loop_open(os_alloc(), &h->loop, NULL), MC_OK);
    const struct net_options options = {
        .alloc = os_alloc(), .loop = h->loop, .role = NET_GATEWAY, .name = "gateway"
    };
    assert_int_equal(net_open(&options, &h->gateway, NULL), MC_OK);
    assert_int_equal(net_listen(h->gateway, "127.0.0.1:0", false, &events, h, h->address,
                                sizeof(h->address), NULL),
                     MC_OK);
    return h;
}

struct worker_options house_options(const char *name, enum mc_role role)
{
    return (struct worker_options){ .name = name,
                                    .role = role,
                                    .model = MC_DEFAULT_MODEL,
                                    .listen = "127.0.0.1:0",
                                    .threads = 1,
                                    .kv_tokens = 3200,
                                    .sequences_max = 16,
                                    .chunk_tokens = 64 };
}

uint32_t house_add(struct house *h, const struct worker_options *options)
{
    struct worker_options o = *options;
    const char *gateways[] = { h->address };
    struct guest *g = &h->guests[h->count++];
    struct mc_error error = { 0 };

    if (!o.alloc)
        o.alloc = os_alloc();
    o.loop = h->loop;
    o.gateways = gateways;
    o.gateway_count = 1;
    snprintf(g->name, sizeof(g->name), "%s", o.name);
    if (worker_open(&o, &g->worker, &error) != MC_OK)
        fail_msg("%s", error.text);
    house_until(h, g->conn && g->reports > 0);
    return h->count - 1;
}

void house_lose_last(struct house *h)
{
    struct guest *g = &h->guests[h->count - 1];

    worker_close(g->worker);
    g->worker = NULL;
    house_until(h, !g->conn);
    h->count--;
    *g = (struct guest){ 0 };
}

struct house *house_pair(uint32_t chunk_tokens, bool pool)
{
    return house_fill(house_open(), chunk_tokens, pool);
}

struct house *house_fill(struct house *h, uint32_t chunk_tokens, bool pool)
{
    struct worker_options p = house_options("p", MC_ROLE_PREFILL),
                          d = house_options("d", MC_ROLE_DECODE);

    p.chunk_tokens = d.chunk_tokens = chunk_tokens;
    p.master = d.master = pool ? house_master : NULL;
    p.transports = d.transports = house_transports;
    house_add(h, &p);
    house_add(h, &d);
    assert_memory_equal(&h->guests[0].fingerprint, &h->guests[1].fingerprint,
                        sizeof(struct mc_identity));
    return h;
}

void house_close(struct house *h)
{
    for (uint32_t i = 0; i < h->count; i++)
        worker_close(h->guests[i].worker);
    net_close(h->gateway);
    os_loop_close(h->loop);
#ifndef MC_REAL_TRANSFER
    assert_int_equal(fake_windows(), 0);
    assert_int_equal(fake_engines(), 0);
#endif
#ifndef MC_REAL_POOL
    assert_int_equal(fake_stores(), 0);
    fake_moves_reset();
#endif
    free(h);
}

void house_turn(struct house *h)
{
#ifndef MC_REAL_TRANSFER
    fake_move_batches();
#endif
#ifndef MC_REAL_POOL
    fake_move_requests();
#endif
    assert_int_equal(os_loop_turn(h->loop, os_now_ns() + 1000000), MC_OK);
}

/* ------------------------------------------------------------------------------------------ asking */

struct client *house_client(struct house *h, uint64_t seed, uint32_t prompt_count,
                            uint32_t answer_max)
{
    struct client *c = &h->clients[h->client_count++];

    assert_true(h->client_count <= HOUSE_CLIENTS && prompt_count <= HOUSE_PROMPT);
    *c = (struct client){
        .house = h,
        .request = 100 + h->client_count,
        .prompt_count = prompt_count,
        .decode = 1,
        .sampling = { .temperature = 1,
                      .seed = seed,
                      .tokens_max = answer_max,
                      .tokens_min = answer_max,
                      .report = true },
        .reserve_status = MC_PENDING,
        .take_status = MC_PENDING,
        .end_status = MC_PENDING,
    };
    for (uint32_t i = 0; i < prompt_count; i++)
        c->prompt[i] = (uint32_t)(prng_at(seed, i) % 500);
    return c;
}

static void on_taken(void *user, mc_status status, const struct wire_frame *frame)
{
    struct client *c = user;
    struct wire_outcome outcome;
    struct mc_error error = { 0 };

    c->take_status = status == MC_OK ? net_take(frame, WIRE_OUTCOME, &outcome, &error) : status;
    c->taken = c->take_status == MC_OK;
}

static void ask_prefill(struct client *c)
{
    const struct house *h = c->house;
    const struct guest *p = &h->guests[c->prefill], *d = &h->guests[c->decode];
    struct wire_prefill m = { .request = c->request,
                              .tokens = { c->prompt, c->prompt_count },
                              .sampling = c->sampling,
                              .fingerprint = p->fingerprint,
                              .pull_tokens = c->pull_tokens,
                              .copy_tokens = c->copy_tokens,
                              .copy_node = c->copy_tokens ? 77 : 0,
                              .pull_ns = c->pull_ns ? c->pull_ns : 5 * SECOND,
                              .cache = c->cache };

    if (c->reserved) {
        m.reservation = c->reservation;
        m.decode_address = wire_text(d->address);
        m.decode_segment = wire_text(c->segment);
        m.decode_incarnation = d->incarnation;
        m.window = c->grant.window;
    }
    assert_int_equal(
        net_ask(p->conn, WIRE_PREFILL, &m, os_now_ns() + 5 * SECOND, on_taken, c, NULL), MC_OK);
}

static void on_reserved(void *user, mc_status status, const struct wire_frame *frame)
{
    struct client *c = user;
    struct wire_reserved answer;
    struct mc_error error = { 0 };

    c->reserve_status = status == MC_OK ? net_take(frame, WIRE_RESERVED, &answer, &error) : status;
    if (c->reserve_status != MC_OK)
        return;
    c->reserved = true;
    c->grant = answer;
    c->reservation = answer.reservation;
    copy_text(c->segment, sizeof(c->segment), &answer.segment);
    if (c->house->guests[c->prefill].conn && !c->alone)
        ask_prefill(c);
}

void house_ask(struct client *c)
{
    const struct guest *p = &c->house->guests[c->prefill], *d = &c->house->guests[c->decode];
    const struct wire_reserve m = { .request = c->request,
                                    .prompt_tokens = c->prompt_count,
                                    .sampling = c->sampling,
                                    .lease_ns = c->lease_ns,
                                    .holder = p->incarnation,
                                    .fingerprint = d->fingerprint };

    if (c->prefill == c->decode)
        ask_prefill(c);
    else
        assert_int_equal(
            net_ask(d->conn, WIRE_RESERVE, &m, os_now_ns() + 5 * SECOND, on_reserved, c, NULL),
            MC_OK);
}

/* How many workers are still to say that nothing is held. */
static void on_cancelled(void *user, mc_status status, const struct wire_frame *frame)
{
    struct client *c = user;

    (void)frame;
    assert_int_equal(status, MC_OK);
    c->cancel_answered = c->told;
    c->told = true;
}

void house_cancel(struct client *c)
{
    const struct wire_request_cancel m = { .request = c->request, .reason = 1 };
    const uint32_t at[] = { c->prefill, c->decode };

    c->alone = true;
    c->told = c->prefill == c->decode; /* one answer is enough */
    for (uint32_t i = 0; i < (c->prefill == c->decode ? 1u : 2u); i++)
        assert_int_equal(net_ask(c->house->guests[at[i]].conn, WIRE_REQUEST_CANCEL, &m,
                                 os_now_ns() + 10 * SECOND, on_cancelled, c, NULL),
                         MC_OK);
}

bool client_done(const struct client *c)
{
    if (c->end_status != MC_PENDING && c->end_status != MC_OK)
        return true;
    return c->end_status == MC_OK && c->finish != GOES_ON;
}

bool house_is_empty(struct house *h)
{
    for (uint32_t i = 0; i < h->count; i++)
        if (house_counter(h, i, "pages_free") != house_counter(h, i, "pages") ||
            house_counter(h, i, "queued") || house_counter(h, i, "prefilling") ||
            house_counter(h, i, "decoding") || house_counter(h, i, "reservations"))
            return false;
#ifndef MC_REAL_TRANSFER
    if (fake_windows() > 0)
        return false;
#endif
    return true;
}

uint64_t house_counter(struct house *h, uint32_t guest, const char *name)
{
    char whole[80];

    (void)snprintf(whole, sizeof(whole), "worker_%s", name);
    return worker_counter(h->guests[guest].worker, whole);
}

void house_show(struct house *h)
{
    static const char *const figures[] = { "pages_free", "pages_reserved", "queued",
                                           "prefilling", "decoding",       "reservations",
                                           "steps",      "preemptions",    "joined",
                                           "handed_off", "cancelled",      "failed",
                                           "refused",    "expired",        "puts_stored" };

    for (uint32_t i = 0; i < h->client_count; i++) {
        const struct client *c = &h->clients[i];
        fprintf(stderr, "request %u: reserve %d take %d end %d finish %u count %u told %d\n", i,
                c->reserve_status, c->take_status, c->end_status, c->finish, c->count, c->told);
    }
    for (uint32_t i = 0; i < h->count; i++)
        for (size_t k = 0; k < sizeof(figures) / sizeof(figures[0]); k++)
            fprintf(stderr, "%s %s %llu\n", h->guests[i].name, figures[k],
                    (unsigned long long)house_counter(h, i, figures[k]));
}

/* ---------------------------------------------------------------------------- the answer it must be */

struct alone {
    uint32_t tokens[HOUSE_ANSWER], count;
    float logprobs[HOUSE_ANSWER];
};

static void hear(void *user, struct request *r, const struct request_event *event)
{
    struct alone *a = user;

    if (event->sample) {
        a->tokens[a->count] = event->sample->chosen.token;
        a->logprobs[a->count++] = event->sample->chosen.logprob;
    }
    if (event->finish != REQUEST_RUNNING)
        request_close(r);
}

/* One engine for all answers of a test program: opening one takes longer than using it. */
static mc_engine *engine_alone(struct mc_model_info *info_p)
{
    static mc_model *model;
    static mc_engine *engine;
    const struct mc_engine_options options = { .threads = 1, .tokens_max = 512 };

    if (!engine) {
        assert_int_equal(mc_model_open(MC_DEFAULT_MODEL, NULL, &model, NULL), MC_OK);
        assert_int_equal(mc_engine_open(model, &options, &engine, NULL), MC_OK);
    }
    mc_model_info(model, info_p);
    return engine;
}

void assert_right(const struct client *c)
{
    struct alone alone = { 0 };
    struct mc_model_info info;
    mc_engine *engine = engine_alone(&info);
    const struct batcher_options batcher_options = { .pages = 100, .alloc = os_alloc() };
    batcher *b = NULL;
    struct request *r = NULL;
    const struct request_options options = {
        .prompt = c->prompt,
        .prompt_count = c->prompt_count,
        .context_max = 1600,
        .max_tokens = (uint32_t)c->sampling.tokens_max,
        .min_tokens = (uint32_t)c->sampling.tokens_min,
        .eos = info.eos,
        .eos_count = info.eos_count,
        .sampling = { .temperature = c->sampling.temperature, .seed = c->sampling.seed },
        .output = hear,
        .user = &alone,
        .alloc = os_alloc(),
    };

    assert_int_equal(batcher_open(engine, &batcher_options, &b, NULL), MC_OK);
    assert_int_equal(request_open(&options, &r, NULL), MC_OK);
    assert_int_equal(batcher_add(b, r, NULL), MC_OK);
    while (batcher_busy(b))
        assert_int_equal(batcher_step(b, NULL), MC_OK);
    batcher_close(b);
    assert_int_equal(c->count, alone.count);
    assert_memory_equal(c->tokens, alone.tokens, c->count * sizeof(c->tokens[0]));
    assert_memory_equal(c->logprobs, alone.logprobs, c->count * sizeof(c->logprobs[0]));
}
