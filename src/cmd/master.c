/* master.c - mooncake master: who has what in the pool. */
#define _POSIX_C_SOURCE 200809L /* signals */
#include "store/master/server.h"

#include "cmd/cmd.h"
#include "cmd/role.h"

/* clang-format off */
#define MASTER_SETTINGS(X)                                                                          \
    X(listen, "listen", 0, TEXT, "127.0.0.1:8200", 0, 0, NULL, "HOST:PORT", "Master",               \
      "Where nodes and clients of the pool dial; port 0: any.")                                     \
    X(objects, "objects", 0, U32, "1048576", 1024, 268435456, NULL, "N", "Limits",                  \
      "Objects that the pool can know of; about 450 bytes of memory each.")                         \
    X(nodes, "nodes", 0, U32, "1024", 1, 65535, NULL, "N", "Limits",                                \
      "Nodes that can lend memory.")                                                                \
    X(connections, "connections", 0, U32, "4096", 1, 65535, NULL, "N", "Limits",                    \
      "Nodes, clients and subscribers at a time.")                                                  \
    X(lease, "lease", 0, DURATION, "5s", 1, 1e15, NULL, "TIME", "Times",                               \
      "How long what a reader found is kept for it, unless it says otherwise.")                     \
    X(node_silence, "node-silence", 0, DURATION, "10s", 1, 1e15, NULL, "TIME", "Times",                \
      "A node that is silent for so long is forgotten.")                                            \
    X(node_gone, "node-gone", 0, DURATION, "2s", 1, 1e15, NULL, "TIME", "Times",                       \
      "One whose connection is lost, for so long.")
/* clang-format on */

struct master_flags {
    ROLE_SETTINGS(SETTING_FIELD)
    MASTER_SETTINGS(SETTING_FIELD)
};

#define MASTER_ROW(...) SETTING_ROW(master_flags, __VA_ARGS__)
static const struct setting rows[] = { MASTER_SETTINGS(MASTER_ROW) ROLE_SETTINGS(MASTER_ROW) };

static void help(struct buf *out)
{
    buf_add_text(out,
                 "usage: mooncake master [settings]\n"
                 "\n"
                 "Keep the table of the pool: which node holds which object, who may read and who\n"
                 "may write it. Nothing is on disk: after a restart nodes tell what they hold.\n"
                 "\n");
    setting_help(rows, sizeof(rows) / sizeof(rows[0]), out);
}

static mc_status check(const void *options, const struct settings *settings, struct mc_error *error)
{
    const struct master_flags *flags = options;

    (void)settings;
    return role_check_address("listen", flags->listen, error);
}

static const struct role_table table = {
    .name = "master",
    .rows = rows,
    .count = sizeof(rows) / sizeof(rows[0]),
    .operand_help = "a master takes settings only; mooncake master --help lists them",
    .check = check,
    .help = help,
};

static int run(struct role *role, const struct master_flags *flags)
{
    const struct store_server_options options = {
        .alloc = role->alloc,
        .loop = role->loop,
        .log = role->log,
        .listen = flags->listen,
        .insecure = flags->insecure,
        .secret = role->secret,
        .secret_size = role->secret_size,
        .connections_max = flags->connections,
        .master = { .objects_max = flags->objects,
                    .nodes_max = flags->nodes,
                    .lease_ns = flags->lease,
                    .node_ns = flags->node_silence,
                    .gone_ns = flags->node_gone },
    };
    store_server *server = NULL;
    struct mc_error error = { 0 };

    if (store_server_open(&options, &server, &error) != MC_OK) {
        command_complain("master", "%s", error.text);
        return CMD_FAILED;
    }
    role_ready(role, "address=%s", store_server_address(server));
    const int code = role_run(role);
    store_server_close(server);
    return code;
}

static int master_main(int argc, char **argv)
{
    struct master_flags flags;
    struct role role = { 0 };
    struct role_asked asked;

    int code = role_read(&table, argc, argv, &flags, &asked);
    if (code < 0)
        code = role_begin(&role, "master", (const struct role_common *)&flags, asked.alloc);
    if (code < 0)
        code = run(&role, &flags);
    role_end(&role);
    role_asked_fini(&asked);
    return code;
}

const struct command command_master = {
    .name = "master",
    .summary = "Know who has what in the pool.",
    .main = master_main,
    .help = help,
};
