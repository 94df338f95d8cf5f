/* sim_options.c - read the table, take its lists apart, make the options of one run. */
#include "cmd/sim_options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "os/file.h"

#define SIM_ROW(...) SETTING_ROW(sim_settings, __VA_ARGS__)
static const struct setting rows[] = { SIM_SETTINGS(SIM_ROW) };
enum { ROWS = sizeof(rows) / sizeof(rows[0]), ASSUME_FILE_MAX = 1 << 20 };

static const struct {
    const char *name;
    enum mc_admission admission;
} admissions[] = {
    { "all", MC_ADMIT_ALL },
    { "default", MC_ADMIT_DEFAULT },
    { "stages", MC_ADMIT_STAGES },
    { "early", MC_ADMIT_EARLY },
    { "early-system", MC_ADMIT_EARLY_SYSTEM },
    { "early-request", MC_ADMIT_EARLY_REQUEST },
};
enum { ADMISSIONS = sizeof(admissions) / sizeof(admissions[0]) };

/* --------------------------------------------------------------------------------------------- lists */

/* Cut a copy of `text` at its commas. */
static mc_status split(const char *flag, const char *text, char **room_p, const char *room_end,
                       const char **items, uint32_t *count_p, struct mc_error *error)
{
    uint32_t count = 0;

    for (;;) {
        const size_t size = strcspn(text, ",");
        if (count == SIM_SWEEP_MAX || size + 1 > (size_t)(room_end - *room_p))
            return error_set(error, MC_E_RANGE, "--%s: more than %d elements", flag, SIM_SWEEP_MAX);
        if (size == 0)
            return error_set(error, MC_E_ARG, "--%s: an element is empty", flag);
        memcpy(*room_p, text, size);
        (*room_p)[size] = '\0';
        items[count++] = *room_p;
        *room_p += size + 1;
        if (text[size] == '\0')
            break;
        text += size + 1;
    }
    *count_p = count;
    return MC_OK;
}

static mc_status read_lists(struct sim_request_options *r, struct mc_error *error)
{
    const struct sim_settings *o = &r->options;
    char *room = r->texts;
    const char *end = r->texts + sizeof(r->texts);

    mc_status status =
        split("cluster", o->cluster, &room, end, r->clusters, &r->cluster_count, error);
    if (status == MC_OK && o->policy)
        status = split("policy", o->policy, &room, end, r->policies, &r->policy_count, error);
    else
        r->policy_count = 1; /* NULL: the default */
    if (status == MC_OK)
        status =
            split("admission", o->admission, &room, end, r->admissions, &r->admission_count, error);
    if (status == MC_OK)
        status = split("speed", o->speed, &room, end, r->speeds, &r->speed_count, error);
    return status;
}

static mc_status read_admission(const char *name, enum mc_admission *admission_p,
                                struct mc_error *error)
{
    for (int i = 0; i < ADMISSIONS; i++)
        if (strcmp(admissions[i].name, name) == 0) {
            *admission_p = admissions[i].admission;
            return MC_OK;
        }
    return error_set(error, MC_E_ARG,
                     "--admission: \"%.40s\" is not one of all, default, stages, early, "
                     "early-system, early-request",
                     name);
}

/* "600s:fail:3" */
static mc_status read_change(const char *text, struct sim_change *change_p, struct mc_error *error)
{
    static const char *const kinds[] = { "fail", "drain", "join" };
    char *end;
    const double time = strtod(text, &end);
    const double unit = strncmp(end, "ms:", 3) == 0  ? 1e-3
                        : strncmp(end, "s:", 2) == 0 ? 1
                        : strncmp(end, "m:", 2) == 0 ? 60
                        : strncmp(end, "h:", 2) == 0 ? 3600
                                                     : 0;
    const char *kind = strchr(end, ':');

    if (end == text || unit <= 0 || !(time >= 0 && time < 1e9) || !kind)
        return error_set(error, MC_E_ARG, "--change \"%.60s\": want TIME:WHAT:N, like 600s:fail:3",
                         text);
    for (int i = 0; i < 3; i++) {
        const size_t size = strlen(kinds[i]);
        if (strncmp(kind + 1, kinds[i], size) != 0 || kind[1 + size] != ':')
            continue;
        const unsigned long number = strtoul(kind + 2 + size, &end, 10);
        if (*end != '\0' || end == kind + 2 + size || number < 1 || number > 4096)
            break;
        *change_p = (struct sim_change){ .at_ns = (uint64_t)(time * unit * 1e9),
                                         .kind = (enum sim_change_kind)i,
                                         .instance = (uint32_t)number - 1 };
        return MC_OK;
    }
    return error_set(error, MC_E_ARG,
                     "--change \"%.60s\": want fail, drain or join, and a number from 1", text);
}

static mc_status read_changes(struct sim_request_options *r, struct mc_error *error)
{
    const struct setting_list *list = &r->options.change;
    uint64_t last = 0;

    if (list->count > SIM_CHANGES_MAX)
        return error_set(error, MC_E_RANGE, "--change: more than %d", SIM_CHANGES_MAX);
    for (uint32_t i = 0; i < list->count; i++) {
        const mc_status status = read_change(list->items[i], &r->changes[i], error);
        if (status != MC_OK)
            return status;
        if (r->changes[i].at_ns < last)
            return error_set(error, MC_E_ARG, "--change %.60s: is before the one given before it",
                             list->items[i]);
        last = r->changes[i].at_ns;
    }
    r->change_count = list->count;
    return MC_OK;
}

static mc_status read_assume(struct sim_request_options *r, struct mc_error *error)
{
    const char *path = r->options.assume;
    char *text = NULL;
    size_t size = 0;

    assume_defaults(&r->assume);
    if (!assume_gpu(&r->assume, r->options.gpu) || !assume_llm(&r->assume, r->options.llm)) {
        struct buf names = BUF_INIT(r->alloc);
        assume_names(&names);
        const mc_status status = error_set(error, MC_E_ARG, "--gpu or --llm: there is %.300s",
                                           names.data ? names.data : "?");
        buf_fini(&names);
        return status;
    }
    if (!path)
        return MC_OK;
    mc_status status = os_file_read(path, ASSUME_FILE_MAX, r->alloc, &text, &size, error);
    if (status != MC_OK)
        return status;
    status = assume_read(&r->assume, text, size, error);
    if (status != MC_OK)
        error_prefix(error, status, "%s", path);
    alloc_free(r->alloc, text);
    return status;
}

static mc_status check(const struct sim_request_options *r, struct mc_error *error)
{
    struct sim_options options;
    char name[160];

    if (r->operands.count > 0)
        return error_set(error, MC_E_ARG, "\"%.80s\": only flags are expected here",
                         r->operands.items[0]);
    if (r->options.replay && r->options.trace)
        return error_set(error, MC_E_ARG,
                         "--replay: a recording is played alone, not with --trace");
    if (r->options.replay)
        return MC_OK;
    if (!r->options.trace)
        return error_set(error, MC_E_ARG, "--trace FILE or --replay FILE is required");
    for (uint32_t i = 0; i < sim_options_runs(r); i++) {
        const mc_status status = sim_options_run(r, i, &options, name, error);
        if (status != MC_OK)
            return status;
    }
    return MC_OK;
}

mc_status sim_options_read(struct sim_request_options *r, int argc, char **argv,
                           char *const *environment, const struct mc_alloc *alloc,
                           struct mc_error *error)
{
    memset(r, 0, sizeof(*r));
    r->alloc = alloc;
    mc_status status = settings_init(&r->settings, rows, ROWS, &r->options, alloc, error);

    if (status == MC_OK)
        status = settings_flags(&r->settings, argc - 1, argv + 1, &r->operands, error);
    if (status != MC_OK || r->options.help)
        return status; /* help must come also where the environment is wrong */
    status = settings_env(&r->settings, environment, error);
    if (status == MC_OK)
        status = read_lists(r, error);
    if (status == MC_OK)
        status = read_changes(r, error);
    if (status == MC_OK)
        status = read_assume(r, error);
    if (status == MC_OK && !r->options.print_config && !r->options.print_assumptions)
        status = check(r, error);
    return status;
}

void sim_options_fini(struct sim_request_options *r)
{
    settings_fini(&r->settings);
    setting_list_fini(&r->operands, r->alloc);
}

/* ---------------------------------------------------------------------------------------------- runs */

uint32_t sim_options_runs(const struct sim_request_options *r)
{
    return r->cluster_count * r->policy_count * r->admission_count * r->speed_count;
}

static bool is_coupled(const struct sim_options *o)
{
    for (uint32_t i = 0; i < o->group_count; i++)
        if (o->groups[i].role == MC_ROLE_BOTH)
            return true;
    return false;
}

static void fill(const struct sim_request_options *r, struct sim_options *o)
{
    const struct sim_settings *s = &r->options;

    *o = (struct sim_options){ .alloc = r->alloc,
                               .assume = r->assume,
                               .changes = r->changes,
                               .change_count = r->change_count,
                               .policy_parameters = s->parameters,
                               .admission_parameters = s->admission_parameters,
                               .replication = s->replication,
                               .check_decode = s->check_decode,
                               .slo_ttft_ns = s->slo_ttft,
                               .slo_tbt_ns = s->slo_tbt,
                               .seed = s->seed,
                               .order = (enum sim_order)s->order,
                               .chunk_tokens = s->chunk,
                               .interleave = s->interleave,
                               .coupled = (enum sim_coupled)s->coupled,
                               .dram_tokens = s->dram,
                               .ssd_tokens = s->ssd,
                               .eviction = (enum tier_policy)s->eviction,
                               .net_gbps = (double)s->gbps,
                               .input_max = s->input_max,
                               .output_max = s->output_max,
                               .retries = s->retries,
                               .come_back = (double)s->come_back,
                               .sample_ns = s->sample };
}

mc_status sim_options_run(const struct sim_request_options *r, uint32_t index,
                          struct sim_options *o, char name[160], struct mc_error *error)
{
    const char *speed = r->speeds[index % r->speed_count];
    const uint32_t rest = index / r->speed_count;
    const char *admission = r->admissions[rest % r->admission_count];
    const char *policy = r->policies[rest / r->admission_count % r->policy_count];
    const char *cluster = r->clusters[rest / r->admission_count / r->policy_count];
    char *end;

    fill(r, o);
    mc_status status = sim_cluster_read(cluster, o->groups, &o->group_count, error);
    if (status == MC_OK)
        status = read_admission(admission, &o->admission, error);
    if (status != MC_OK)
        return status;
    o->speed = strtod(speed, &end);
    if (end == speed || *end != '\0' || !(o->speed >= 1e-6 && o->speed <= 1e6))
        return error_set(error, MC_E_ARG, "--speed: \"%.40s\" is not a number from 1e-6 to 1e6",
                         speed);
    o->policy = policy ? policy : is_coupled(o) ? "coupled-round-robin" : NULL;
    snprintf(name, 160, "%s %s %s %sx", cluster, o->policy ? o->policy : "algorithm1", admission,
             speed);
    return MC_OK;
}

void sim_options_help(struct buf *out)
{
    buf_add_text(out,
                 "usage: mooncake sim --trace FILE [settings]\n"
                 "       mooncake sim --replay FILE [--json FILE]\n"
                 "       mooncake sim paper --traces DIR [--json FILE]\n"
                 "\n"
                 "Play a trace through a simulated cluster, with the scheduler that decides live.\n"
                 "Lists span a sweep: one run for each combination, several at a time.\n"
                 "\n");
    setting_help(rows, ROWS, out);
    buf_add_text(
        out,
        "\n"
        "The table: requests that finished, were refused, met both SLOs (of all that were\n"
        "offered); of those that finished, TTFT in seconds (mean, percentiles), TBT in ms (mean\n"
        "of each one's longest tenth of gaps), prompt tokens that were reused, GPU-node seconds "
        "of\n"
        "a prefill; and prefill seconds spent on requests that did not finish.\n"
        "\n"
        "`mooncake sim paper` runs the papers' experiments again, and prints what was published\n"
        "beside what is simulated.\n"
        "\n"
        "`mooncake sim --replay` gives the events that a gateway recorded to this scheduler "
        "again;\n"
        "it says how many there were and where the first decision differs, if one does.\n"
        "\n"
        "Exit codes: 0 done; 1 failed, or --replay found a difference; 2 wrong usage; 130 "
        "interrupted.\n"
        "\n"
        "Examples:\n"
        "  mooncake sim -t conversation_trace.jsonl -c 6P+10D,8P+8D -p algorithm1,local\n"
        "  mooncake sim -t conversation_trace.jsonl -c 8P+8D -s 1,1.5,2 --html report.html\n"
        "  mooncake sim -t synthetic_trace.jsonl -c 16C --coupled chunked --csv decisions.csv\n");
}
