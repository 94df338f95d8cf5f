/* bench_serve_options.c - read the table, say what does not go together. */
#include "cmd/bench_serve_options.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "sim/trace.h"

#define BENCH_ROW(...) SETTING_ROW(bench_serve_options, __VA_ARGS__)
static const struct setting rows[] = { BENCH_SERVE_SETTINGS(BENCH_ROW) };
enum { ROWS = sizeof(rows) / sizeof(rows[0]), TOKEN_ID_MAX = 1 << 24 };

static const uint64_t DURATION_DEFAULT_NS = UINT64_C(30000000000); /* of loads without an end */

static bool given(const struct bench_serve_request *r, const char *name)
{
    return settings_source(&r->settings, name) != SETTING_DEFAULT;
}

/* "100-4000" */
static mc_status read_ids(struct bench_serve_request *r, struct mc_error *error)
{
    const char *text = r->options.token_ids;
    char *end = NULL;

    if (!text)
        return MC_OK;
    const bool digits = strspn(text, "0123456789-") == strlen(text) && strchr(text, '-') != text;
    const unsigned long low = digits ? strtoul(text, &end, 10) : 0;
    const unsigned long high = digits && *end == '-' ? strtoul(end + 1, &end, 10) : 0;
    if (!digits || *end != '\0' || low >= high || high > TOKEN_ID_MAX)
        return error_set(error, MC_E_ARG, "--token-ids: \"%.40s\" is no range of ids like 100-4000",
                         text);
    r->token_low = (uint32_t)low;
    r->token_high = (uint32_t)high;
    return MC_OK;
}

static mc_status check_load(struct bench_serve_request *r, struct mc_error *error)
{
    struct bench_serve_options *o = &r->options;

    if (o->concurrency > 0 && o->rate > 0)
        return error_set(
            error, MC_E_ARG,
            "--concurrency and --rate: is the next request sent when one is answered, or "
            "at a time of its own?");
    if (o->concurrency == 0 && o->rate <= 0 && !o->trace)
        return error_set(error, MC_E_ARG,
                         "what is to be sent? Give --trace FILE, --rate R or --concurrency N");
    if (given(r, "speed") && (o->concurrency > 0 || o->rate > 0))
        return error_set(error, MC_E_ARG,
                         "--speed: is of a trace's own times, which --rate and "
                         "--concurrency replace");
    r->arrival = o->concurrency > 0 ? BENCH_CLOSED : o->rate > 0 ? BENCH_BY_RATE : BENCH_BY_TRACE;
    if (!o->trace && o->duration == 0 && o->limit == 0)
        o->duration = DURATION_DEFAULT_NS;
    return MC_OK;
}

static mc_status check(struct bench_serve_request *r, struct mc_error *error)
{
    static const char *const without_trace[] = { "input-tokens", "output-tokens", "shared-prefix" };
    struct bench_serve_options *o = &r->options;
    mc_status status = check_load(r, error);

    if (status != MC_OK)
        return status;
    if (r->operands.count > 0)
        return error_set(error, MC_E_ARG, "\"%.80s\": only flags are expected here",
                         r->operands.items[0]);
    for (size_t i = 0; i < sizeof(without_trace) / sizeof(without_trace[0]); i++)
        if (o->trace && given(r, without_trace[i]))
            return error_set(error, MC_E_ARG, "--%s: the trace says how long its requests are",
                             without_trace[i]);
    if (!o->trace && o->shared_prefix > o->input_tokens)
        return error_set(error, MC_E_RANGE, "--shared-prefix: more than the prompt's %u tokens",
                         o->input_tokens);
    if (o->context == 1)
        return error_set(error, MC_E_RANGE, "--context: no place for a prompt and an answer");
    if (o->send_slo && o->slo_ttft == 0 && o->slo_tbt == 0)
        return error_set(error, MC_E_ARG, "--send-slo: which? Give --slo-ttft or --slo-tbt");
    if (o->retry == 0 && given(r, "retry-share"))
        return error_set(error, MC_E_ARG, "--retry-share: needs --retry");
    if (o->endpoint == BENCH_CHAT && given(r, "prompt") && o->prompt == BENCH_TOKENS)
        return error_set(error, MC_E_ARG, "--prompt tokens: chats are text");
    if (o->endpoint == BENCH_CHAT)
        o->prompt = BENCH_TEXT;
    return read_ids(r, error);
}

mc_status bench_serve_options_read(struct bench_serve_request *request, int argc, char **argv,
                                   char *const *environment, const struct mc_alloc *alloc,
                                   struct mc_error *error)
{
    *request = (struct bench_serve_request){ .alloc = alloc };
    mc_status status =
        settings_init(&request->settings, rows, ROWS, &request->options, alloc, error);

    if (status == MC_OK)
        status = settings_flags(&request->settings, argc - 1, argv + 1, &request->operands, error);
    if (status != MC_OK || request->options.help)
        return status; /* help must come also where the environment is wrong */
    status = settings_env(&request->settings, environment, error);
    return status == MC_OK ? check(request, error) : status;
}

void bench_serve_options_fini(struct bench_serve_request *request)
{
    settings_fini(&request->settings);
    setting_list_fini(&request->operands, request->alloc);
}

void bench_serve_options_help(struct buf *out)
{
    buf_add_text(
        out, "usage: mooncake bench serve --url URL --trace FILE [settings]\n"
             "       mooncake bench serve --url URL --rate R | --concurrency N [settings]\n"
             "\n"
             "Send requests to a server that speaks OpenAI's API, and tell how it answers: at a\n"
             "trace's own times, at random times of a given rate, or always so many at once.\n"
             "Prompts are made from the trace's hash ids: what shared a prefix there shares one\n"
             "here. Beside the measured hit ratio stands the best there is: the same requests\n"
             "replayed on a pool without bounds.\n"
             "\n");
    setting_help(rows, ROWS, out);
    buf_add_text(
        out,
        "\n"
        "TTFT: from sending a request to its first token. TBT: of a request, the mean time from\n"
        "one token to the next, and its largest gap. Goodput: requests that met both objectives.\n"
        "\n"
        "Exit codes: 0 done, no request failed; 1 some failed, or it could not begin; 2 wrong\n"
        "usage; 130 interrupted, 143 terminated: the report is of what was done until then.\n"
        "\n"
        "Examples:\n"
        "  mooncake bench serve --trace conversation_trace.jsonl --speed 12 --duration 60s\n"
        "  mooncake bench serve --concurrency 64 --limit 1000 --json c64.json --svg c64.svg\n"
        "  mooncake bench serve --rate 20 --slo-ttft 500ms --slo-tbt 50ms --send-slo --retry 1\n");
}
