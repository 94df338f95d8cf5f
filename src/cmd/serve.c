/* serve.c - mooncake serve: start the roles of this machine, watch over them, end them in order. */
#define _POSIX_C_SOURCE 200809L
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/error.h"
#include "cmd/cmd.h"
#include "cmd/family.h"
#include "cmd/serve_options.h"
#include "cmd/supervise.h"
#include "os/clock.h"
#include "os/sysalloc.h"

enum { FAILURES_MAX = 8, START_S = 600, YOUNG_S = 20 };
static const uint64_t S = 1000000000;

struct serve {
    const struct serve_options *options;
    struct role role;
    struct family *family; /* owned */
    struct supervise supervise;
    struct os_signals children;
    struct os_timer tick;
};

static void MC_PRINTF(1, 2) tell(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fprintf(stderr, "serve     | ");
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

/* ------------------------------------------------------------------------------------ actions */

static void print_welcome(const struct serve *s)
{
    const char *address = family_first(s->family, MEMBER_GATEWAY)->address;

    tell("ready: http://%s/v1", address);
    tell("try: curl -N http://%s/v1/completions -H 'Content-Type: application/json' "
         "-d '{\"prompt\": \"The KVCache of a prompt\", \"max_tokens\": 32, \"stream\": true}'",
         address);
    tell("Ctrl-C ends it");
}

static void start(struct serve *s, uint32_t member)
{
    struct mc_error error = { 0 };

    if (family_start(s->family, member, &error) == MC_OK) {
        tell("%s runs as process %d", s->family->members[member].name,
             (int)s->family->members[member].pid);
        return;
    }
    tell("%s", error.text);
    if (s->family->members[member].pid == 0)
        supervise_event(&s->supervise, SUPERVISE_EXITED, member, CMD_FAILED, os_now_ns());
}

static void act(struct serve *s, const struct supervise_action *a)
{
    const char *name = s->family->members[a->child].name;

    switch (a->kind) {
    case SUPERVISE_START:
        start(s, a->child);
        return;
    case SUPERVISE_TERM:
        family_signal(s->family, a->child, SIGTERM);
        return;
    case SUPERVISE_KILL:
        tell("%s is killed: %s", name, a->why);
        family_signal(s->family, a->child, SIGKILL);
        return;
    case SUPERVISE_ALL_UP:
        print_welcome(s);
        if (s->options->ready_fd)
            role_ready(&s->role, "address=%s", family_first(s->family, MEMBER_GATEWAY)->address);
        return;
    case SUPERVISE_GIVE_UP:
        tell("%s: %s; everything ends", name, a->why);
        return;
    case SUPERVISE_DONE:
        role_stop(&s->role, s->supervise.code);
        return;
    }
}

static void settle(struct serve *s)
{
    struct supervise_action action;

    while (supervise_take(&s->supervise, &action)) {
        act(s, &action);
        if (action.kind == SUPERVISE_DONE)
            return;
    }
    const uint64_t due = supervise_due(&s->supervise);
    if (due == UINT64_MAX)
        os_loop_timer_stop(s->role.loop, &s->tick);
    else if (os_loop_timer(s->role.loop, &s->tick, due) != MC_OK)
        role_stop(&s->role, CMD_FAILED);
}

static void event(struct serve *s, enum supervise_event_kind kind, uint32_t member, int value)
{
    supervise_event(&s->supervise, kind, member, value, os_now_ns());
    settle(s);
}

/* -------------------------------------------------------------------------------------- events */

static void on_ready(void *user, uint32_t member)
{
    event(user, SUPERVISE_READY, member, 0);
}

static void on_exited(void *user, uint32_t member, int code)
{
    struct serve *s = user;

    if (!s->supervise.stopping || code != CMD_OK)
        tell("%s has ended: %s %d", s->family->members[member].name,
             code > 128 ? "signal" : "exit code", code > 128 ? code - 128 : code);
    event(s, SUPERVISE_EXITED, member, code);
}

static void on_stopped(void *user, uint32_t member, bool stopped)
{
    event(user, stopped ? SUPERVISE_STOPPED : SUPERVISE_CONTINUED, member, 0);
}

static void on_child(void *user, int number)
{
    struct serve *s = user;

    (void)number;
    family_reap(s->family);
}

static void on_tick(void *user, uint64_t now_ns)
{
    (void)now_ns;
    event(user, SUPERVISE_TICK, 0, 0);
}

/* The first signal; role.c ends the loop at the second, so that one is not asked for. */
static void on_end(void *user)
{
    struct serve *s = user;

    tell("ending: the gateway, then workers, nodes and the master; again: at once");
    event(s, SUPERVISE_STOP, 0, 0);
}

/* ----------------------------------------------------------------------------------------- life */

static mc_status begin(struct serve *s, const char *model, struct mc_error *error)
{
    static const struct family_events events = { on_ready, on_exited, on_stopped };
    static const int numbers[] = { SIGCHLD, 0 };
    const struct supervise_options o = {
        .stall_ns = s->options->stall,
        .grace_ns = s->options->grace,
        .start_ns = START_S * S,
        .young_ns = YOUNG_S * S,
        .failures_max = FAILURES_MAX,
    };

    family_open(s->family, s->options, model, s->role.loop, &events, s);
    supervise_init(&s->supervise, s->family->children, s->family->count, &o, os_now_ns());
    s->tick = (struct os_timer){ .due = on_tick, .user = s };
    s->role.drain = on_end;
    s->role.user = s;
    s->children = (struct os_signals){ .came = on_child, .user = s };
    return os_signals_open(&s->children, s->role.loop, numbers, error);
}

/* Its settings are the roles' flags, not their config file too: they would refuse what only serve knows. Texts
 * of the environment stay where they are. */
static void keep_config_from_roles(void)
{
    (void)unsetenv("MC_CONFIG");
}

/* Not by the gateway's arguments, which others can see. */
static mc_status hand_on_keys(const struct setting_list *keys, const struct mc_alloc *alloc,
                              struct mc_error *error)
{
    struct buf text = BUF_INIT(alloc);

    for (uint32_t i = 0; i < keys->count; i++) {
        buf_add_text(&text, i ? "," : "");
        buf_add_text(&text, keys->items[i]);
    }
    const bool done = keys->count == 0 || (!text.failed && setenv("MC_API_KEY", text.data, 1) == 0);
    buf_fini(&text);
    return done ? MC_OK : error_set(error, MC_E_NOMEM, "out of memory for API keys");
}

/* Whoever still runs goes with this process, by the parent-death signal. */
static int run(struct serve *s, const char *model)
{
    struct mc_error error = { 0 };

    if (hand_on_keys(&s->options->api_key, s->role.alloc, &error) != MC_OK ||
        begin(s, model, &error) != MC_OK) {
        command_complain("serve", "%s", error.text);
        return CMD_FAILED;
    }
    settle(s);
    const int code = role_run(&s->role);
    family_close(s->family);
    os_signals_close(&s->children);
    return code;
}

static int serve_main(int argc, char **argv)
{
    struct serve_options options;
    struct role_asked asked;
    struct serve s = { .options = &options };

    int code = role_read(&serve_table, argc, argv, &options, &asked);
    if (code < 0)
        code = role_begin(&s.role, "serve", (const struct role_common *)&options, asked.alloc);
    if (code < 0) {
        keep_config_from_roles();
        s.family = alloc_zeroed(asked.alloc, 1, sizeof(*s.family));
        if (s.family)
            code = run(&s, asked.operands.items[0]);
        else {
            command_complain("serve", "out of memory");
            code = CMD_FAILED;
        }
    }
    alloc_free(asked.alloc, s.family);
    role_end(&s.role);
    role_asked_fini(&asked);
    return code;
}

static void serve_help(struct buf *out)
{
    serve_table.help(out);
}

const struct command command_serve = {
    .name = "serve",
    .summary = "Serve a model from separate processes on this machine.",
    .main = serve_main,
    .help = serve_help,
};
