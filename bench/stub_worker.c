/*
 * stub_worker.c - workers without an engine: what a gateway costs, with nothing behind it that takes time.
 *
 *     stub-worker --gateway HOST:PORT --model DIR [--each]
 *
 * One process with two connections, a prefill worker's and a decode worker's, so that the gateway does all it
 * does for real ones: it reserves, prefills, hears of the prefill's end and of tokens. Every reservation is
 * granted, every prompt is "computed" at once, and the answer's tokens (as many as were asked for, all the
 * same) follow in one message, or in one message for each token with --each. No page exists; nothing moves.
 *
 * Threads: one. Ends at SIGTERM or SIGINT. Errors: it is a bench's part: they are said and it exits.
 */
#define _POSIX_C_SOURCE 200809L /* signals */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <mooncake/infer.h>
#include <mooncake/sched.h>

#include "base/error.h"
#include "base/setting.h"
#include "net/net.h"
#include "os/signals.h"
#include "os/sysalloc.h"

#define REGISTER_NS UINT64_C(5000000000)
#define LEASE_NS UINT64_C(10000000000)
enum { TOKENS_AT_ONCE = 4096, PAGE_TOKENS = 16, FINISH_LENGTH = 2, SEQUENCES = 65536 };

/* clang-format off */
#define STUB_SETTINGS(X)                                                                            \
    X(gateway, "gateway", 0, TEXT, NULL, 0, 0, NULL, "HOST:PORT", "Stub", "Its control address.")   \
    X(model, "model", 0, TEXT, NULL, 0, 0, NULL, "DIR", "Stub", "The gateway's model.")             \
    X(token, "token", 0, U32, "65", 0, 1e6, NULL, "ID", "Stub", "What every answer is made of.")    \
    X(each, "each", 0, BOOL, "false", 0, 0, NULL, NULL, "Stub", "A message for each token.")        \
    X(help, "help", 'h', ACTION, NULL, 0, 0, NULL, NULL, "Stub", "Print this and end.")
/* clang-format on */

struct options {
    STUB_SETTINGS(SETTING_FIELD)
};
#define STUB_ROW(...) SETTING_ROW(options, __VA_ARGS__)
static const struct setting rows[] = { STUB_SETTINGS(STUB_ROW) };
enum { ROWS = sizeof(rows) / sizeof(rows[0]) };

struct stub;

/** One of the two workers. */
struct half {
    struct stub *stub;
    const char *name;
    uint32_t role; /* enum mc_role */
    net_conn *conn;
    uint64_t instance, report_ns;
    struct os_timer timer;
};

struct stub {
    const struct options *options;
    struct mc_model_info info;
    os_loop *loop;
    net *net;
    struct half prefill, decode;
    struct mc_identity fingerprint;
    uint64_t reservations;
    struct wire_sample samples[TOKENS_AT_ONCE];
};

static void fail(const char *what, const struct mc_error *error)
{
    fprintf(stderr, "stub-worker: %s: %s\n", what, error ? error->text : "failed");
    exit(1);
}

static void must(mc_status status, const char *what)
{
    if (status != MC_OK) {
        fprintf(stderr, "stub-worker: %s: %s\n", what, mc_status_text(status));
        exit(1);
    }
}

/* ------------------------------------------------------------------------------------- tokens */

static void send_tokens(struct stub *s, uint64_t request, uint64_t index, uint32_t count, bool last)
{
    const struct wire_tokens tokens = {
        .request = request,
        .index = index,
        .samples = { .items = s->samples, .count = count },
        .finish = last ? FINISH_LENGTH : 0,
    };

    must(net_send(s->decode.conn, WIRE_TOKENS, &tokens), "tokens");
}

static void answer_whole(struct stub *s, uint64_t request, uint64_t count)
{
    const uint64_t step = s->options->each ? 1 : TOKENS_AT_ONCE;

    for (uint64_t at = 0; at < count; at += step) {
        const uint64_t some = count - at < step ? count - at : step;
        send_tokens(s, request, at, (uint32_t)some, at + some == count);
    }
}

/* ------------------------------------------------------------------------------------- questions */

static void reserve(struct half *h, const struct wire_frame *frame)
{
    struct wire_reserve m;
    struct mc_error error;

    if (wire_decode(frame->kind, frame->body, frame->body_size, &m, &error) != MC_OK)
        fail("reserve", &error);
    const uint64_t pages = (m.prompt_tokens + PAGE_TOKENS - 1) / PAGE_TOKENS;
    const struct wire_reserved answer = {
        .reservation = ++h->stub->reservations,
        .pages = pages,
        .window = { .size = pages, .permissions = 2, .piece_bytes = 1, .lease_ns = LEASE_NS },
        .segment = wire_text("stub"),
        .incarnation = 1,
    };
    must(net_answer(h->conn, frame->id, WIRE_RESERVED, &answer), "reserved");
}

static void prefill(struct half *h, const struct wire_frame *frame)
{
    struct wire_prefill m;
    struct mc_error error;

    if (wire_decode(frame->kind, frame->body, frame->body_size, &m, &error) != MC_OK)
        fail("prefill", &error);
    must(net_answer_outcome(h->conn, frame->id, MC_OK, NULL), "taken");
    const struct wire_prefill_end end = { .request = m.request,
                                          .pushed_bytes = m.tokens.count,
                                          .compute_ns = 1000 };
    must(net_send(h->conn, WIRE_PREFILL_END, &end), "prefilled");
    answer_whole(h->stub, m.request, m.sampling.tokens_max ? m.sampling.tokens_max : 1);
}

static void on_message(void *user, net_conn *conn, const struct wire_frame *frame)
{
    struct half *h = user;

    if (frame->kind == WIRE_RESERVE)
        reserve(h, frame);
    else if (frame->kind == WIRE_PREFILL)
        prefill(h, frame);
    else if (frame->id) /* a cancel comes too late: all was sent */
        must(net_answer_outcome(conn, frame->id, MC_OK, NULL), "outcome");
}

/* ---------------------------------------------------------------------------------- registration */

static void on_timer(void *user, uint64_t now_ns)
{
    struct half *h = user;
    const struct wire_load_report report = { .instance = h->instance,
                                             .lease_ns = LEASE_NS,
                                             .free_tokens = UINT64_C(1) << 30 };

    must(net_send(h->conn, WIRE_LOAD_REPORT, &report), "report");
    must(os_loop_timer(h->stub->loop, &h->timer, now_ns + h->report_ns), "timer");
}

static void on_registered(void *user, mc_status status, const struct wire_frame *frame)
{
    struct half *h = user;
    struct wire_worker_registered answer;
    struct mc_error error = { 0 };

    if (status == MC_OK)
        status = net_take(frame, WIRE_WORKER_REGISTERED, &answer, &error);
    if (status != MC_OK)
        fail("not registered", &error);
    h->instance = answer.instance;
    h->report_ns = answer.report_ns;
    printf("%s registered\n", h->name);
    fflush(stdout);
    on_timer(h, os_loop_now(h->stub->loop));
}

static void on_up(void *user, net_conn *conn, const struct net_peer *peer)
{
    struct half *h = user;
    struct stub *s = h->stub;
    const struct mc_model_info *i = &s->info;
    const struct wire_worker_register message = {
        .name = wire_text(h->name),
        .role = h->role,
        .model = wire_text(i->name),
        .fingerprint = s->fingerprint,
        .address = wire_text("127.0.0.1:1"),
        .segment = wire_text("stub"),
        .incarnation = 1,
        .layout = { i->layers, i->kv_heads, i->head_dim, PAGE_TOKENS, MC_DTYPE_BF16, PAGE_TOKENS },
        .kv_tokens_max = UINT64_C(1) << 30,
        .sequences_max = SEQUENCES,
        .chunk_tokens = 512,
        .context_max = i->context_max,
        .host = *net_host(s->net),
        .kernel = wire_text("stub"),
    };

    (void)peer;
    must(net_ask(conn, WIRE_WORKER_REGISTER, &message, os_loop_now(s->loop) + REGISTER_NS,
                 on_registered, h, NULL),
         "register");
}

static void on_down(void *user, net_conn *conn, mc_status status, const char *text)
{
    (void)user;
    (void)conn;
    fprintf(stderr, "stub-worker: %s: %s\n", mc_status_name(status), text);
    exit(1);
}

static const struct net_events events = { on_up, on_message, on_down };

static void open_half(struct half *h, struct stub *s, const char *name, uint32_t role)
{
    struct mc_error error;

    *h = (struct half){ .stub = s, .name = name, .role = role };
    h->timer = (struct os_timer){ .due = on_timer, .user = h };
    if (net_dial(s->net, s->options->gateway, &events, h, &h->conn, &error) != MC_OK)
        fail("dial", &error);
}

/* -------------------------------------------------------------------------------------- the end */

static void on_signal(void *user, int number)
{
    const struct stub *s = user;

    (void)number;
    os_loop_stop(s->loop);
}

static void run(struct stub *s)
{
    struct mc_error error;
    const int numbers[] = { SIGTERM, SIGINT, 0 };
    struct os_signals signals = { .came = on_signal, .user = s };

    if (os_loop_open(os_alloc(), &s->loop, &error) != MC_OK ||
        os_signals_open(&signals, s->loop, numbers, &error) != MC_OK)
        fail("loop", &error);
    const struct net_options options = {
        .alloc = os_alloc(), .loop = s->loop, .role = NET_WORKER, .name = "stub"
    };
    if (net_open(&options, &s->net, &error) != MC_OK)
        fail("net", &error);
    open_half(&s->prefill, s, "prefill-stub", MC_ROLE_PREFILL);
    open_half(&s->decode, s, "decode-stub", MC_ROLE_DECODE);
    os_loop_run(s->loop);
    net_close(s->net);
    os_signals_close(&signals);
    os_loop_close(s->loop);
}

int main(int argc, char **argv)
{
    static struct stub stub;
    struct options options;
    struct settings settings;
    struct setting_list operands = { 0 };
    struct mc_error error = { 0 };
    mc_model *model;

    if (settings_init(&settings, rows, ROWS, &options, os_alloc(), &error) != MC_OK ||
        settings_flags(&settings, argc - 1, argv + 1, &operands, &error) != MC_OK)
        fail("settings", &error);
    if (options.help || !options.gateway || !options.model || operands.count) {
        fprintf(stderr, "usage: stub-worker --gateway HOST:PORT --model DIR [--each]\n");
        return 2;
    }
    if (mc_model_open(options.model, NULL, &model, &error) != MC_OK)
        fail("model", &error);
    mc_model_info(model, &stub.info);
    stub.options = &options;
    for (uint32_t i = 0; i < TOKENS_AT_ONCE; i++)
        stub.samples[i].token = options.token;
    memset(&stub.fingerprint, 1, sizeof(stub.fingerprint));
    run(&stub);
    mc_model_close(model);
    settings_fini(&settings);
    return 0;
}
