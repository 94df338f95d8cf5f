/* run_options.c - read the table from its three sources and check what no single row can. */
#include "cmd/run_options.h"

#include "base/alloc.h"
#include "base/error.h"
#include "infer/request.h"
#include "os/file.h"

enum { CONFIG_BYTES_MAX = 1 << 20 };

#define RUN_ROW(...) SETTING_ROW(run_options, __VA_ARGS__)
static const struct setting rows[] = { RUN_SETTINGS(RUN_ROW) };
enum { ROWS = sizeof(rows) / sizeof(rows[0]) };

static mc_status read_config(struct run_request *run, struct mc_error *error)
{
    const char *path = run->options.config;
    size_t size;

    if (!path)
        return MC_OK;
    const mc_status status =
        os_file_read(path, CONFIG_BYTES_MAX, run->alloc, &run->config_text, &size, error);
    if (status != MC_OK)
        return status == MC_E_NOMEM ? status : MC_E_IO; /* not a matter of usage */
    return settings_config(&run->settings, run->config_text, size, path, error);
}

static mc_status check_prompt(const struct run_request *run, struct mc_error *error)
{
    const struct run_options *o = &run->options;

    if (o->prompt && o->file)
        return error_set(error, MC_E_ARG,
                         "both --prompt and --file: the prompt comes from one of them");
    if (!o->prompt && !o->file && !o->chat)
        return error_set(error, MC_E_ARG,
                         "no prompt: give -p TEXT or -f FILE (- reads standard "
                         "input), or --chat for a conversation");
    if (o->chat && o->raw)
        return error_set(error, MC_E_ARG,
                         "both --chat and --raw: a chat uses the model's template");
    if (o->system && !o->chat)
        return error_set(error, MC_E_ARG, "--system: needs --chat, a plain prompt has no messages");
    if (o->json && o->chat && !o->prompt && !o->file)
        return error_set(error, MC_E_ARG,
                         "--json: a conversation has no end to print it at; give -p or -f");
    return MC_OK;
}

static mc_status check(const struct run_request *run, struct mc_error *error)
{
    const struct run_options *o = &run->options;

    if (run->operands.count == 0)
        return error_set(error, MC_E_ARG,
                         "which model? Give a directory with config.json, *.safetensors and "
                         "tokenizer.json, as Hugging Face has them; a clone of this project has "
                         "models/tiny-random");
    if (run->operands.count > 1)
        return error_set(error, MC_E_ARG,
                         "\"%.80s\": one model at a time; quote a prompt that has blanks",
                         run->operands.items[1]);
    if (o->chunk % 16 != 0)
        return error_set(error, MC_E_RANGE, "--chunk: %u is not a multiple of 16", o->chunk);
    if (o->temperature > 0 && o->temperature < 1e-4f)
        return error_set(error, MC_E_RANGE,
                         "--temperature: %g is neither 0 (greedy) nor at least 0.0001",
                         (double)o->temperature);
    if (o->max_tokens != 0 && o->min_tokens > o->max_tokens)
        return error_set(error, MC_E_RANGE, "--min-tokens: %u is more than --max-tokens, %u",
                         o->min_tokens, o->max_tokens);
    if (o->stop.count > STOPS_MAX)
        return error_set(error, MC_E_RANGE, "--stop: given %u times; at most %d are accepted",
                         o->stop.count, STOPS_MAX);
    for (uint32_t i = 0; i < o->stop.count; i++)
        if (o->stop.items[i][0] == '\0')
            return error_set(error, MC_E_ARG, "--stop: an empty text would end every answer");
    if (settings_source(&run->settings, "logprobs") == SETTING_FLAG && !o->json)
        return error_set(error, MC_E_ARG, "--logprobs: only --json shows them; add it");
    return check_prompt(run, error);
}

mc_status run_options_read(struct run_request *run, int argc, char **argv, char *const *environment,
                           const struct mc_alloc *alloc, struct mc_error *error)
{
    *run = (struct run_request){ .alloc = alloc };
    mc_status status = settings_init(&run->settings, rows, ROWS, &run->options, alloc, error);

    if (status == MC_OK)
        status = settings_flags(&run->settings, argc - 1, argv + 1, &run->operands, error);
    if (status != MC_OK || run->options.help)
        return status; /* help must come also where the environment is wrong */
    status = settings_env(&run->settings, environment, error);
    if (status == MC_OK)
        status = read_config(run, error);
    if (status == MC_OK && !run->options.print_config)
        status = check(run, error);
    return status;
}

void run_options_fini(struct run_request *run)
{
    settings_fini(&run->settings);
    setting_list_fini(&run->operands, run->alloc);
    alloc_free(run->alloc, run->config_text);
}

void run_options_help(struct buf *out)
{
    buf_add_text(out,
                 "usage: mooncake run MODEL -p TEXT | -f FILE | --chat  [settings]\n"
                 "\n"
                 "Run the language model in the directory MODEL on this machine's processors. The\n"
                 "answer goes to standard output as it comes, everything else to standard error.\n"
                 "\n");
    setting_help(rows, ROWS, out);
    buf_add_text(out,
                 "\n"
                 "Exit codes: 0 done; 1 failed; 2 wrong usage; 130 interrupted; 143 terminated.\n"
                 "\n"
                 "Examples:\n"
                 "  mooncake run models/tiny-random -p 'The KVCache of a prompt'\n"
                 "  mooncake run MODEL --chat --system 'Answer in one sentence.'\n"
                 "  mooncake run MODEL -f essay.txt --max-tokens 200 --timing\n"
                 "  mooncake run MODEL -p 'One, two,' --json --logprobs 5\n");
}

const char *run_options_kernel(const struct run_options *options)
{
    static const char *const names[] = { NULL, "ref", "avx2", "avx512", "avx512-bf16" };

    return names[options->kernel];
}
