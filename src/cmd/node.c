/* node.c - mooncake node: memory lent to the pool. */
#define _POSIX_C_SOURCE 200809L /* signals */
#include <mooncake/store.h>

#include "cmd/cmd.h"
#include "cmd/role.h"
#include "os/clock.h"

/* clang-format off */
#define NODE_SETTINGS(X)                                                                            \
    X(name, "name", 0, TEXT, "node", 0, 0, NULL, "NAME", "Node", "As in logs.")                     \
    X(master, "master", 0, TEXT, "127.0.0.1:8200", 0, 0, NULL, "HOST:PORT", "Node",                 \
      "The pool's master.")                                                                         \
    X(memory, "memory", 0, SIZE, "1G", 1048576, 1e15, NULL, "SIZE", "Node",                            \
      "How much to lend. It is taken, and touched, at the start.")                                  \
    X(objects, "objects", 0, U32, "0", 0, 16777216, NULL, "N", "Node",                               \
      "Objects held at a time; 0: one for each 8 KiB.")                                             \
    X(listen, "listen", 0, TEXT, "127.0.0.1:0", 0, 0, NULL, "HOST:PORT", "Node",                    \
      "Where its Transfer Engine is reached.")                                                      \
    X(transports, "transports", 0, TEXT, NULL, 0, 0, NULL, "LIST", "Node",                          \
      "By preference: shm,tcp; default: all that work here.")                                       \
    X(transport_settings, "transport-settings", 0, TEXT, NULL, 0, 0, NULL, "LIST", "Node",          \
      "The transports' own settings: tcp.port=7001.")                                               \
    X(drain, "drain", 0, DURATION, "5s", 0, 0, NULL, "TIME", "Node",                                \
      "At the end, how long to hand what it holds to other nodes; 0: not at all.")
/* clang-format on */

struct node_flags {
    ROLE_SETTINGS(SETTING_FIELD)
    NODE_SETTINGS(SETTING_FIELD)
};

#define NODE_ROW(...) SETTING_ROW(node_flags, __VA_ARGS__)
static const struct setting rows[] = { NODE_SETTINGS(NODE_ROW) ROLE_SETTINGS(NODE_ROW) };

static void help(struct buf *out)
{
    buf_add_text(out,
                 "usage: mooncake node --master HOST:PORT --memory SIZE [settings]\n"
                 "\n"
                 "Lend memory of this machine to the pool of KVCache, until it is told to end.\n"
                 "\n");
    setting_help(rows, sizeof(rows) / sizeof(rows[0]), out);
}

static mc_status check(const void *options, const struct settings *settings, struct mc_error *error)
{
    const struct node_flags *flags = options;

    (void)settings;
    const mc_status status = role_check_address("listen", flags->listen, error);
    return status == MC_OK ? role_check_masters(flags->master, error) : status;
}

static const struct role_table table = {
    .name = "node",
    .rows = rows,
    .count = sizeof(rows) / sizeof(rows[0]),
    .operand_help = "a node takes settings only; mooncake node --help lists them",
    .check = check,
    .help = help,
};

struct node_role {
    struct role role;
    mc_transfer *transfer;
    mc_store *store;
    mc_store_node *node;
};

static mc_status open_all(struct node_role *n, const struct node_flags *flags,
                          struct mc_error *error)
{
    const struct mc_transfer_options transfer = {
        .listen = flags->listen,
        .transports = flags->transports,
        .settings = flags->transport_settings,
        .alloc = n->role.alloc,
        .log = n->role.log,
        .secret = n->role.secret,
        .secret_size = n->role.secret_size,
        .flags = flags->insecure ? MC_TRANSFER_INSECURE : 0,
    };
    const struct mc_store_node_options node = { .capacity_bytes = flags->memory,
                                                .objects_max = flags->objects };

    mc_status status = mc_transfer_open(&transfer, &n->transfer, error);
    if (status != MC_OK)
        return status;
    const struct mc_store_options store = {
        .master = flags->master,
        .transfer = n->transfer,
        .alloc = n->role.alloc,
        .log = n->role.log,
        .secret = n->role.secret,
        .secret_size = n->role.secret_size,
    };
    status = mc_store_open(&store, &n->store, error);
    if (status == MC_OK)
        status = mc_store_node_open(n->store, &node, &n->node, error);
    return status;
}

/* What it holds goes to other nodes as far as there is time and room; the rest is lost, as said. Nobody
 * turns the loop meanwhile: another signal does to this process what it does to any. */
static void leave(struct node_role *n, const struct node_flags *flags)
{
    if (flags->drain == 0 || n->role.asked_to_end != 1)
        return;
    os_signals_close(&n->role.signals);
    if (mc_store_node_drain(n->node, os_now_ns() + flags->drain) != MC_OK)
        command_complain("node", "not all that it held could be handed to other nodes in time");
}

static int run(struct node_role *n, const struct node_flags *flags)
{
    struct mc_error error = { 0 };
    struct mc_transfer_info info;
    int code = CMD_FAILED;

    if (open_all(n, flags, &error) == MC_OK) {
        (void)mc_transfer_info(n->transfer, &info);
        role_ready(&n->role, "address=%s", info.address);
        code = role_run(&n->role);
        leave(n, flags);
    } else
        command_complain("node", "%s", error.text);
    mc_store_node_close(n->node);
    mc_store_close(n->store);
    mc_transfer_close(n->transfer);
    return code;
}

static int node_main(int argc, char **argv)
{
    struct node_flags flags;
    struct node_role n = { 0 };
    struct role_asked asked;

    int code = role_read(&table, argc, argv, &flags, &asked);
    if (code < 0)
        code = role_begin(&n.role, flags.name, (const struct role_common *)&flags, asked.alloc);
    if (code < 0)
        code = run(&n, &flags);
    role_end(&n.role);
    role_asked_fini(&asked);
    return code;
}

const struct command command_node = {
    .name = "node",
    .summary = "Lend memory of this machine to the pool.",
    .main = node_main,
    .help = help,
};
