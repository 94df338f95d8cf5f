/* stats.c - mooncake stats: ask a role for its counters. */
#define _POSIX_C_SOURCE 200809L /* signals */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "cmd/cmd.h"
#include "cmd/role.h"
#include "net/net.h"
#include "os/clock.h"

/* clang-format off */
#define STATS_SETTINGS(X)                                                                           \
    X(prefix, "prefix", 0, TEXT, "", 0, 0, NULL, "TEXT", "Counters",                                \
      "Only counters whose names begin so.")                                                        \
    X(json, "json", 0, BOOL, "false", 0, 0, NULL, NULL, "Counters",                                 \
      "Print one line of JSON instead of one line each.")                                           \
    X(timeout, "timeout", 0, DURATION, "5s", 1, 0, NULL, "TIME", "Counters",                        \
      "How long to wait for the answer.")
/* clang-format on */

struct stats_options {
    ROLE_SETTINGS(SETTING_FIELD)
    STATS_SETTINGS(SETTING_FIELD)
};

#define STATS_ROW(...) SETTING_ROW(stats_options, __VA_ARGS__)
static const struct setting rows[] = { STATS_SETTINGS(STATS_ROW) ROLE_SETTINGS(STATS_ROW) };

struct stats {
    const struct stats_options *options;
    struct role role;
    net *net;
    struct os_timer late;
    char why[200]; /* the connection's last failure */
};

static void help(struct buf *out)
{
    buf_add_text(out,
                 "usage: mooncake stats HOST:PORT [settings]\n"
                 "\n"
                 "Ask a master, worker, gateway (its control address) or Transfer Engine for its\n"
                 "counters: what there is now, and what happened since it started.\n"
                 "\n");
    setting_help(rows, sizeof(rows) / sizeof(rows[0]), out);
}

static const struct role_table table = {
    .name = "stats",
    .rows = rows,
    .count = sizeof(rows) / sizeof(rows[0]),
    .operands = 1,
    .operand_help = "whose counters? Give one address, HOST:PORT",
    .help = help,
};

static void finish(struct stats *s, int code, const char *why)
{
    if (code != CMD_OK)
        command_complain("stats", "%s", why);
    role_stop(&s->role, code);
}

static void print(struct stats *s, struct wire_counters *counters)
{
    struct buf out = BUF_INIT(s->role.alloc);
    struct wire_counter c;
    bool first = true;

    if (s->options->json)
        buf_add_byte(&out, '{');
    for (; wire_counter_next(&counters->items, &c); first = false) {
        const char *name = c.name.data;
        if (s->options->json) {
            buf_add_text(&out, first ? "" : ", ");
            buf_add_json(&out, name, c.name.size);
            buf_addf(&out, ": %llu", (unsigned long long)c.value);
        } else
            buf_addf(&out, "%.*s %llu\n", (int)c.name.size, name, (unsigned long long)c.value);
    }
    if (s->options->json)
        buf_add_text(&out, "}\n");
    const bool done = !out.failed && command_write("stats", out.data ? out.data : "", out.size);
    buf_fini(&out);
    role_stop(&s->role, done ? CMD_OK : CMD_FAILED);
}

static void on_answer(void *user, mc_status status, const struct wire_frame *frame)
{
    struct stats *s = user;
    struct wire_counters counters;
    struct mc_error error = { 0 };

    if (status != MC_OK)
        finish(s, CMD_FAILED, mc_status_text(status));
    else if (net_take(frame, WIRE_COUNTERS, &counters, &error) != MC_OK)
        finish(s, CMD_FAILED, error.text);
    else
        print(s, &counters);
}

static void on_up(void *user, net_conn *conn, const struct net_peer *peer)
{
    struct stats *s = user;
    const struct wire_stats ask = { .prefix = wire_text(s->options->prefix) };

    (void)peer;
    const mc_status status = net_ask(conn, WIRE_STATS, &ask, 0, on_answer, s, NULL);
    if (status != MC_OK)
        finish(s, CMD_FAILED, mc_status_text(status));
}

static void on_message(void *user, net_conn *conn, const struct wire_frame *frame)
{
    (void)user;
    if (frame->id != 0)
        (void)net_answer_outcome(conn, frame->id, MC_E_UNSUPPORTED, "only asks for counters");
}

static void on_down(void *user, net_conn *conn, mc_status status, const char *text)
{
    struct stats *s = user;

    (void)conn;
    (void)snprintf(s->why, sizeof(s->why), "%s", text);
    if (status == MC_E_DENIED || status == MC_E_UNSUPPORTED) /* it will not change its mind */
        finish(s, CMD_FAILED, text);
}

static void on_late(void *user, uint64_t now_ns)
{
    struct stats *s = user;

    (void)now_ns;
    finish(s, CMD_FAILED, s->why[0] ? s->why : "no answer in time");
}

static mc_status begin(struct stats *s, const char *address, struct mc_error *error)
{
    static const struct net_events events = { on_up, on_message, on_down };
    const struct net_options o = {
        .alloc = s->role.alloc,
        .loop = s->role.loop,
        .role = NET_CLIENT,
        .name = "stats",
        .secret = s->role.secret,
        .secret_size = s->role.secret_size,
    };
    net_conn *conn;

    s->late = (struct os_timer){ .due = on_late, .user = s };
    mc_status status = net_open(&o, &s->net, error);
    if (status == MC_OK)
        status = net_dial(s->net, address, &events, s, &conn, error);
    if (status == MC_OK)
        status = os_loop_timer(s->role.loop, &s->late, os_now_ns() + s->options->timeout);
    return status;
}

static int stats_main(int argc, char **argv)
{
    struct stats_options options;
    struct stats s = { .options = &options };
    struct role_asked asked;
    struct mc_error error = { 0 };

    int code = role_read(&table, argc, argv, &options, &asked);
    if (code < 0)
        code = role_begin(&s.role, "stats", (const struct role_common *)&options, asked.alloc);
    if (code < 0) {
        if (begin(&s, asked.operands.items[0], &error) == MC_OK)
            code = role_run(&s.role);
        else {
            command_complain("stats", "%s", error.text);
            code = CMD_FAILED;
        }
    }
    net_close(s.net);
    role_end(&s.role);
    role_asked_fini(&asked);
    return code;
}

const struct command command_stats = {
    .name = "stats",
    .summary = "Ask a running role for its counters.",
    .main = stats_main,
    .help = help,
};
