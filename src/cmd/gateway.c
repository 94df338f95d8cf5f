/* gateway.c - mooncake gateway: the role that clients talk to. */
#define _POSIX_C_SOURCE 200809L /* signals */
#include "gateway/gateway.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/error.h"
#include "cmd/cmd.h"
#include "cmd/door.h"
#include "cmd/limits.h"
#include "cmd/keys.h"
#include "cmd/role.h"
#include "os/file.h"
#include "os/host.h"

enum { OTHER_DESCRIPTORS = 600, CONNECTIONS_LEAST = 16 };

/* clang-format off */
#define GATEWAY_SETTINGS(X)                                                                         \
    X(listen, "listen", 0, TEXT, "127.0.0.1:8000", 0, 0, NULL, "HOST:PORT", "Gateway",              \
      "Where HTTP is answered; port 0: any.")                                                       \
    X(control, "control", 0, TEXT, "127.0.0.1:8100", 0, 0, NULL, "HOST:PORT", "Gateway",            \
      "Where workers register.")                                                                    \
    X(master, "master", 0, TEXT, NULL, 0, 0, NULL, "HOST:PORT", "Gateway",                          \
      "The pool's master; without it nothing is reused.")                                           \
    X(model_name, "model-name", 0, TEXT, NULL, 0, 0, NULL, "NAME", "Gateway",                       \
      "What clients call the model; default: the last part of its path.")                           \
    X(record, "record", 0, TEXT, NULL, 0, 0, NULL, "FILE", "Gateway",                               \
      "Write every event of the scheduler and what it decides here: for mooncake sim --replay.")    \
    X(debug_headers, "debug-headers", 0, BOOL, "false", 0, 0, NULL, NULL, "Gateway",                \
      "Obey X-Mooncake-Bar, by which a client bars a worker from its request.")                         \
    X(patience, "patience", 0, DURATION, "10s", 1, 1e15, NULL, "TIME", "Limits",                       \
      "How long a request may wait for room or for a worker that is away.")                         \
    X(tries, "tries", 0, U32, "3", 1, 100, NULL, "N", "Limits",                                     \
      "How often a request is placed whose workers are lost before it sent a byte.")
/* clang-format on */

struct gateway_flags {
    ROLE_SETTINGS(SETTING_FIELD)
    GATEWAY_SETTINGS(SETTING_FIELD)
    LIMITS_SETTINGS(SETTING_FIELD)
    DOOR_SETTINGS(SETTING_FIELD)
    KEYS_SETTINGS(SETTING_FIELD)
};

#define GATEWAY_ROW(...) SETTING_ROW(gateway_flags, __VA_ARGS__)
static const struct setting rows[] = { GATEWAY_SETTINGS(GATEWAY_ROW) LIMITS_SETTINGS(
    GATEWAY_ROW) DOOR_SETTINGS(GATEWAY_ROW) KEYS_SETTINGS(GATEWAY_ROW) ROLE_SETTINGS(GATEWAY_ROW) };

static void help(struct buf *out)
{
    buf_add_text(
        out,
        "usage: mooncake gateway MODEL --control HOST:PORT [settings]\n"
        "\n"
        "Speak the OpenAI API to clients and place their requests on the workers that register at\n"
        "the control address. The directory MODEL is needed for its tokenizer and chat template;\n"
        "its weights are not read. SIGTERM lets what runs finish.\n"
        "\n");
    setting_help(rows, sizeof(rows) / sizeof(rows[0]), out);
}

static mc_status check(const void *options, const struct settings *settings, struct mc_error *error)
{
    const struct gateway_flags *flags = options;

    (void)settings;
    mc_status status = role_check_address("listen", flags->listen, error);
    if (status == MC_OK)
        status = role_check_address("control", flags->control, error);
    return status == MC_OK ? role_check_masters(flags->master, error) : status;
}

static const struct role_table table = {
    .name = "gateway",
    .rows = rows,
    .count = sizeof(rows) / sizeof(rows[0]),
    .operands = 1,
    .operand_help = "which model? Give the one directory that the workers are given",
    .check = check,
    .help = help,
};

struct gateway_role {
    struct role role;
    struct auth auth; /* the gateway borrows it */
    gateway *gateway;
};

static void on_drained(void *user)
{
    role_stop(user, CMD_OK);
}

static void drain(void *user)
{
    struct gateway_role *g = user;

    gateway_drain(g->gateway, on_drained, &g->role);
}

static void MC_PRINTF(2, 3) warn(const struct gateway_role *g, const char *format, ...)
{
    char line[600];
    va_list args;

    va_start(args, format);
    const int size = vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    if (size > 0 && g->role.log.write)
        g->role.log.write(g->role.log.context, MC_LOG_WARN, line,
                          (size_t)size < sizeof(line) ? (size_t)size : sizeof(line) - 1);
}

static mc_status read_keys(struct gateway_role *g, const struct gateway_flags *flags,
                           struct mc_error *error)
{
    auth_init(&g->auth, g->role.alloc);
    if (flags->api_key_file && os_is_open_to_others(flags->api_key_file))
        warn(g, "event=keys_open file=%s advice=\"chmod o-rw: others can read the keys\"",
             flags->api_key_file);
    return keys_read(&flags->api_key, flags->api_key_file, &g->auth, g->role.alloc, error);
}

/* As many connections as there are descriptors for, beside workers, the pool and files. */
static mc_status fit_connections(struct gateway_role *g, uint32_t wanted, uint32_t *connections_p,
                                 struct mc_error *error)
{
    const uint64_t limit = os_descriptors_raise();

    *connections_p = wanted;
    if (limit == 0 || limit >= (uint64_t)wanted + OTHER_DESCRIPTORS)
        return MC_OK;
    if (limit < OTHER_DESCRIPTORS + CONNECTIONS_LEAST)
        return error_set(
            error, MC_E_FULL,
            "this process may have %llu descriptors; a gateway needs %d for others and "
            "%d for clients at least: raise the hard limit (ulimit -Hn)",
            (unsigned long long)limit, OTHER_DESCRIPTORS, CONNECTIONS_LEAST);
    *connections_p = (uint32_t)(limit - OTHER_DESCRIPTORS);
    warn(g,
         "event=descriptors_short limit=%llu connections=%u wanted=%u advice=\"raise the hard "
         "limit: ulimit -Hn, LimitNOFILE=\"",
         (unsigned long long)limit, *connections_p, wanted);
    return MC_OK;
}

static int run(struct gateway_role *g, const struct gateway_flags *flags, const char *model)
{
    struct mc_error error = { 0 };
    uint32_t connections = 0;

    if (read_keys(g, flags, &error) != MC_OK ||
        fit_connections(g, flags->connections, &connections, &error) != MC_OK) {
        command_complain("gateway", "%s", error.text);
        auth_fini(&g->auth);
        return CMD_FAILED;
    }
    const struct gateway_options o = {
        .alloc = g->role.alloc,
        .loop = g->role.loop,
        .log = g->role.log,
        .listen = flags->listen,
        .control_listen = flags->control,
        .insecure = flags->insecure,
        .auth = &g->auth,
        .secret = g->role.secret,
        .secret_size = g->role.secret_size,
        .master = flags->master,
        .model = model,
        .model_name = flags->model_name,
        .policy = flags->policy,
        .policy_parameters = flags->policy_parameters,
        .slo_ttft_ns = flags->slo_ttft,
        .slo_tbt_ns = flags->slo_tbt,
        .admission = door_admission(flags->admission),
        .admission_parameters = flags->admission_parameters,
        .replication = flags->replication,
        .unmeasured = !flags->measure,
        .body_max = flags->body,
        .bodies_max = flags->bodies,
        .patience_ns = flags->patience,
        .requests_max = flags->requests,
        .connections_max = connections,
        .address_max = flags->address_connections,
        .headers_max = (uint32_t)flags->headers,
        .receive_ns = flags->receive_timeout,
        .idle_ns = flags->idle_timeout,
        .request_ns = flags->request_timeout,
        .tries_max = flags->tries,
        .record = flags->record,
        .debug_headers = flags->debug_headers,
    };

    if (gateway_open(&o, &g->gateway, &error) != MC_OK) {
        command_complain("gateway", "%s", error.text);
        auth_fini(&g->auth);
        return CMD_FAILED;
    }
    g->role.drain = drain;
    g->role.user = g;
    role_ready(&g->role, "address=%s control=%s", gateway_address(g->gateway),
               gateway_control_address(g->gateway));
    const int code = role_run(&g->role);
    gateway_close(g->gateway);
    auth_fini(&g->auth);
    return code;
}

static int gateway_main(int argc, char **argv)
{
    struct gateway_flags flags;
    struct gateway_role g = { 0 };
    struct role_asked asked;

    int code = role_read(&table, argc, argv, &flags, &asked);
    if (code < 0)
        code = role_begin(&g.role, "gateway", (const struct role_common *)&flags, asked.alloc);
    if (code < 0)
        code = run(&g, &flags, asked.operands.items[0]);
    role_end(&g.role);
    role_asked_fini(&asked);
    return code;
}

const struct command command_gateway = {
    .name = "gateway",
    .summary = "The role that clients talk to: the OpenAI API.",
    .main = gateway_main,
    .help = help,
};
