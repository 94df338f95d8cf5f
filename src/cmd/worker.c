/* worker.c - mooncake worker: a serving instance. */
#define _POSIX_C_SOURCE 200809L /* signals */
#include "worker/worker.h"

#include "base/error.h"
#include "cmd/cmd.h"
#include "cmd/profile.h"
#include "cmd/role.h"
#include "os/clock.h"

/* clang-format off */
#define WORKER_SETTINGS(X)                                                                          \
    X(role, "role", 0, CHOICE, "both", 0, 0, "both|prefill|decode", "ROLE", "Worker",               \
      "What it computes: prompts, answers, or both.")                                               \
    X(name, "name", 0, TEXT, "worker", 0, 0, NULL, "NAME", "Worker",                                \
      "As in logs and in the answers' headers.")                                                    \
    X(gateway, "gateway", 0, LIST, NULL, 0, 0, NULL, "HOST:PORT", "Worker",                         \
      "The gateway's control address; may be given more than once.")                                \
    X(master, "master", 0, TEXT, NULL, 0, 0, NULL, "HOST:PORT", "Worker",                           \
      "The pool's master; without it every prompt is computed.")                                    \
    X(listen, "listen", 0, TEXT, "127.0.0.1:0", 0, 0, NULL, "HOST:PORT", "Worker",                  \
      "Where other workers hand prompts off; its Transfer Engine is at the same host.")             \
    X(transports, "transports", 0, TEXT, NULL, 0, 0, NULL, "LIST", "Worker",                        \
      "By preference: shm,tcp; default: all that work here.")                                       \
    X(transport_settings, "transport-settings", 0, TEXT, NULL, 0, 0, NULL, "LIST", "Worker",        \
      "The transports' own settings: tcp.port=7001.")                                               \
    X(kv_memory, "kv-memory", 0, SIZE, "256M", 0, 0, NULL, "SIZE", "Engine",                        \
      "Working memory for KVCache. It is taken, and touched, at the start; with --engine timing as " \
      "much as the profile's GPUs have.")                                                           \
    X(sequences, "sequences", 0, U32, "256", 1, 4096, NULL, "N", "Engine",                           \
      "Requests computed at a time.")                                                               \
    X(queue, "queue", 0, U32, "1024", 1, 65536, NULL, "N", "Engine",                                 \
      "Requests to prefill, queued ones included; beyond they are refused.")                        \
    X(chunk, "chunk", 0, U32, "512", 16, 65536, NULL, "N", "Engine",                                \
      "Tokens of a prompt in one step, a multiple of 16.")                                          \
    X(context, "context", 0, U32, "0", 0, 16777216, NULL, "N", "Engine",                            \
      "Tokens of prompt and answer together; 0: what the model was made for.")                      \
    X(threads, "threads", 0, U32, "0", 0, 1024, NULL, "N", "Engine",                                \
      "0: one for each processor.")                                                                 \
    X(kernel, "kernel", 0, CHOICE, "auto", 0, 0, "auto|ref|avx2|avx512|avx512-bf16", "NAME",        \
      "Engine", "The code that computes; auto: the best that this processor has.")                  \
    X(kv_dtype, "kv-dtype", 0, CHOICE, "auto", 0, 0, "auto|f32|bf16", "NAME", "Engine",             \
      "How keys and values are kept; auto: as the model's weights.")
/* clang-format on */

struct worker_flags {
    ROLE_SETTINGS(SETTING_FIELD)
    WORKER_SETTINGS(SETTING_FIELD)
    PROFILE_SETTINGS(SETTING_FIELD)
};

#define WORKER_ROW(...) SETTING_ROW(worker_flags, __VA_ARGS__)
static const struct setting rows[] = { WORKER_SETTINGS(WORKER_ROW) PROFILE_SETTINGS(WORKER_ROW)
                                           ROLE_SETTINGS(WORKER_ROW) };

enum { LOOK_MS = 5 };
/* Prompts of a trace are long and their blocks small; a prompt waits behind others to be loaded. */
enum { TIMING_PUT_BLOCKS = 32768 };
#define TIMING_HAND_OFF_NS UINT64_C(60000000000)

static mc_status check(const void *options, const struct settings *settings, struct mc_error *error)
{
    const struct worker_flags *flags = options;

    (void)settings;
    if (flags->gateway.count == 0)
        return error_set(error, MC_E_ARG,
                         "--gateway: give the control address of a gateway: "
                         "requests come from there");
    if (flags->chunk % 16 != 0)
        return error_set(error, MC_E_RANGE, "--chunk: %u is not a multiple of 16", flags->chunk);
    mc_status status = role_check_address("listen", flags->listen, error);
    if (status == MC_OK)
        status = role_check_masters(flags->master, error);
    for (uint32_t i = 0; i < flags->gateway.count && status == MC_OK; i++)
        status = role_check_address("gateway", flags->gateway.items[i], error);
    return status;
}

static void help(struct buf *out)
{
    buf_add_text(out, "usage: mooncake worker MODEL --gateway HOST:PORT [settings]\n"
                      "\n"
                      "Compute prompts, answers or both for the gateways that it registers with.\n"
                      "SIGTERM lets what is here finish; a second one ends at once.\n"
                      "\n");
    setting_help(rows, sizeof(rows) / sizeof(rows[0]), out);
}

static const struct role_table table = {
    .name = "worker",
    .rows = rows,
    .count = sizeof(rows) / sizeof(rows[0]),
    .operands = 1,
    .operand_help = "which model? Give one directory, as to mooncake run",
    .check = check,
    .help = help,
};

struct worker_role {
    struct role role;
    worker *worker;
    struct os_timer look;
    uint32_t gateways;
};

static void on_drained(void *user)
{
    role_stop(user, CMD_OK);
}

static void drain(void *user)
{
    struct worker_role *w = user;

    worker_drain(w->worker, on_drained, &w->role);
}

/* Ready is who can be asked: registered with every gateway. */
static void look(void *user, uint64_t now_ns)
{
    struct worker_role *w = user;

    if (worker_counter(w->worker, "worker_gateways") >= w->gateways)
        role_ready(&w->role, "address=%s", worker_address(w->worker));
    else if (os_loop_timer(w->role.loop, &w->look, now_ns + LOOK_MS * UINT64_C(1000000)) != MC_OK)
        role_stop(&w->role, CMD_FAILED);
}

static int run(struct worker_role *w, const struct worker_flags *flags, const char *model)
{
    static const char *const kernels[] = { NULL, "ref", "avx2", "avx512", "avx512-bf16" };
    static const enum mc_dtype dtypes[] = { MC_DTYPE_DEFAULT, MC_DTYPE_F32, MC_DTYPE_BF16 };
    static const enum mc_role roles[] = { MC_ROLE_BOTH, MC_ROLE_PREFILL, MC_ROLE_DECODE };
    const bool timing = flags->engine == PROFILE_TIMING;
    struct worker_timing profile = { 0 };
    struct mc_error error = { 0 };

    if (timing && profile_read(flags->profile, (double)flags->kv_scale, w->role.alloc, &profile,
                               &error) != MC_OK) {
        command_complain("worker", "%s", error.text);
        return CMD_FAILED;
    }
    const struct worker_options o = {
        .alloc = w->role.alloc,
        .loop = w->role.loop,
        .log = w->role.log,
        .name = flags->name,
        .role = roles[flags->role],
        .model = model,
        .listen = flags->listen,
        .insecure = flags->insecure,
        .secret = w->role.secret,
        .secret_size = w->role.secret_size,
        .master = flags->master,
        .gateways = flags->gateway.items,
        .gateway_count = flags->gateway.count,
        .timing = timing ? &profile : NULL,
        .kv_bytes = timing ? 0 : flags->kv_memory,
        .kv_tokens = profile.model.kv_tokens,
        .put_blocks_max = timing ? TIMING_PUT_BLOCKS : 0,
        .hand_off_ns = timing ? TIMING_HAND_OFF_NS : 0,
        .sequences_max = flags->sequences,
        .chunk_tokens = flags->chunk,
        .requests_max = flags->queue,
        .context_max = flags->context,
        .threads = flags->threads,
        .kernel = kernels[flags->kernel],
        .kv_dtype = dtypes[flags->kv_dtype],
        .transports = flags->transports,
        .transfer_settings = flags->transport_settings,
    };

    if (worker_open(&o, &w->worker, &error) != MC_OK) {
        command_complain("worker", "%s", error.text);
        return CMD_FAILED;
    }
    w->role.drain = drain;
    w->role.user = w;
    w->gateways = flags->gateway.count;
    w->look = (struct os_timer){ .due = look, .user = w };
    look(w, os_now_ns());
    const int code = role_run(&w->role);
    worker_close(w->worker);
    return code;
}

static int worker_main(int argc, char **argv)
{
    struct worker_flags flags;
    struct worker_role w = { 0 };
    struct role_asked asked;

    int code = role_read(&table, argc, argv, &flags, &asked);
    if (code < 0)
        code = role_begin(&w.role, flags.name, (const struct role_common *)&flags, asked.alloc);
    if (code < 0)
        code = run(&w, &flags, asked.operands.items[0]);
    role_end(&w.role);
    role_asked_fini(&asked);
    return code;
}

const struct command command_worker = {
    .name = "worker",
    .summary = "A serving instance: computes prompts, answers or both.",
    .main = worker_main,
    .help = help,
};
