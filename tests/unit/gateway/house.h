/*
 * house.h - a gateway under test in one loop with its HTTP clients (http_talk.h) and fake workers.
 *
 * Life:   setup_bare -> (open_gateway -> start_worker ...) -> teardown, which fails if anything is still held.
 * Memory: all is static: a test file has one house. The gateway's memory is from `f`.
 */
#ifndef TESTS_GATEWAY_HOUSE_H
#define TESTS_GATEWAY_HOUSE_H

#include "fake_worker.h"
#include "http_talk.h"

#include "gateway/gateway.h"

static os_loop *loop;
static gateway *g;
static mc_model *model;
static struct faulty f;
static struct fake_worker w[3];
static char log_text[20000];
static size_t log_size;

#define COMPLETION "/v1/completions"

/** Turn the loop until it is so; fail after a minute. */
#define WAIT(condition) \
    for (const uint64_t until = os_now_ns() + UINT64_C(60000000000); !(condition);) { \
        if (os_now_ns() > until) \
            fail_msg("too late: %s; log: %s", #condition, log_text); \
        talk_turn(loop); \
    }

static inline void write_log(void *context, enum mc_log_level level, const char *line, size_t size)
{
    (void)context;
    (void)level;
    if (log_size + size + 2 > sizeof(log_text))
        return;
    memcpy(log_text + log_size, line, size);
    log_size += size;
    log_text[log_size++] = '\n';
    log_text[log_size] = '\0';
}

/** After setup_bare(): the loop is in it. */
static inline struct gateway_options options(void)
{
    return (struct gateway_options){
        .alloc = &f.alloc,
        .loop = loop,
        .unmeasured = true, /* these workers cannot */
        .log = { .write = write_log, .level_max = MC_LOG_INFO },
        .listen = "127.0.0.1:0",
        .model = test_data("models/plain"),
        .model_name = "served",
        .debug_headers = true,
    };
}

static inline void open_gateway(const struct gateway_options *o)
{
    struct mc_error error = { 0 };

    if (gateway_open(o, &g, &error) != MC_OK)
        fail_msg("%s", error.text);
}

static inline int setup_bare(void **state)
{
    (void)state;
    faulty_init(&f, -1);
    log_size = 0;
    log_text[0] = '\0';
    memset(w, 0, sizeof(w));
    g = NULL;
    assert_int_equal(os_loop_open(os_alloc(), &loop, NULL), MC_OK);
    assert_int_equal(mc_model_open(test_data("models/plain"), NULL, &model, NULL), MC_OK);
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(w) / sizeof(w[0]); i++)
        fake_close(&w[i]);
    gateway_close(g);
    os_loop_close(loop);
    mc_model_close(model);
    return f.held == 0 ? 0 : -1;
}

/** Registered, or refused. */
static inline void start_worker(int i, const char *name, uint32_t role)
{
    w[i].loop = loop;
    w[i].model = model;
    w[i].name = name;
    w[i].role = role;
    fake_open(&w[i], gateway_control_address(g));
    WAIT(w[i].instance != 0 || w[i].refused != MC_OK);
}

/** P prefills and D decodes; each hands on to the other. */
static inline void start_pair(void)
{
    start_worker(0, "P", MC_ROLE_PREFILL);
    start_worker(1, "D", MC_ROLE_DECODE);
    w[0].peer = &w[1];
    w[1].peer = &w[0];
}

/** The value on the line of /metrics that begins with `series`. */
static inline uint64_t figure(const char *series)
{
    struct buf text = BUF_INIT(os_alloc());

    gateway_metrics(g, &text);
    const char *at = text.data;
    while (strncmp(at, series, strlen(series)) != 0) {
        at = strchr(at, '\n');
        assert_non_null(at);
        at++;
    }
    const uint64_t value = strtoull(at + strlen(series), NULL, 10);
    buf_fini(&text);
    return value;
}

static inline void assert_idle(void)
{
    WAIT(figure("mooncake_gateway_requests_active ") == 0);
}

static inline bool has(const struct talk *t, const char *text)
{
    return strstr(t->in.data, text) != NULL;
}

#endif /* TESTS_GATEWAY_HOUSE_H */
