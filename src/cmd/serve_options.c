/* serve_options.c - the rows of serve_options.h and what no single row can check. */
#define _POSIX_C_SOURCE 200809L /* signals */
#include "cmd/serve_options.h"

#include "base/error.h"

#define SERVE_ROW(...) SETTING_ROW(serve_options, __VA_ARGS__)
static const struct setting rows[] = { SERVE_SETTINGS(SERVE_ROW) PROFILE_SETTINGS(SERVE_ROW)
                                           LIMITS_SETTINGS(SERVE_ROW) DOOR_SETTINGS(SERVE_ROW)
                                               KEYS_SETTINGS(SERVE_ROW) ROLE_SETTINGS(SERVE_ROW) };

static mc_status check(const void *options, const struct settings *settings, struct mc_error *error)
{
    const struct serve_options *o = options;

    (void)settings;
    if (o->both == 0 && o->prefill == 0)
        return error_set(error, MC_E_ARG,
                         "no worker computes prompts: --prefill or --both must be "
                         "at least 1");
    if (o->both == 0 && o->decode == 0)
        return error_set(error, MC_E_ARG,
                         "no worker computes answers: --decode or --both must be "
                         "at least 1");
    if (o->chunk % 16 != 0)
        return error_set(error, MC_E_RANGE, "--chunk: %u is not a multiple of 16", o->chunk);
    return role_check_address("listen", o->listen, error);
}

static void help(struct buf *out)
{
    buf_add_text(
        out,
        "usage: mooncake serve MODEL [settings]\n"
        "\n"
        "Serve the language model in the directory MODEL from separate processes on this machine:\n"
        "a master and nodes for the pool of KVCache, workers for prefill and decode, and a "
        "gateway\n"
        "that speaks the OpenAI API. A process that dies is started again. Ctrl-C ends in order,\n"
        "a second one at once. Each role also runs by itself: mooncake master, node, worker,\n"
        "gateway.\n"
        "\n");
    setting_help(rows, sizeof(rows) / sizeof(rows[0]), out);
    buf_add_text(out,
                 "\n"
                 "Exit codes: 0 ended as asked; 1 failed; 2 wrong usage.\n"
                 "\n"
                 "Examples:\n"
                 "  mooncake serve models/tiny-random\n"
                 "  mooncake serve MODEL --prefill 2 --decode 2 --pool-memory 4G\n"
                 "  curl http://127.0.0.1:8000/v1/completions -d '{\"prompt\": \"One, two,\"}'\n");
}

const struct role_table serve_table = {
    .name = "serve",
    .rows = rows,
    .count = sizeof(rows) / sizeof(rows[0]),
    .operands = 1,
    .operand_help = "which model? Give one directory with config.json, *.safetensors and "
                    "tokenizer.json, as Hugging Face has them; a clone of this project has "
                    "models/tiny-random",
    .check = check,
    .help = help,
};
