/* assume.c - the tables of GPUs and LLMs, and what a node made of them costs. */
#include "sim/assume.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* Peaks are the makers' (dense, no sparsity); the network is what the papers' F12 measured on 4 x 200 and
 * 8 x 400 Gbps, the second also for the newer ones. */
static const struct sim_gpu gpus[] = {
    { "a800", 312e12, 80e9, 2.039e12, 87e9 },
    { "h800", 989e12, 80e9, 3.35e12, 190e9 },
    { "h100", 989e12, 80e9, 3.35e12, 190e9 },
    { "h200", 989e12, 141e9, 4.8e12, 190e9 },
};

/* name, layers, hidden, heads, KV heads, head size, inner size, parameters */
static const struct sim_llm llms[] = {
    { "llama2-70b", 80, 8192, 64, 8, 128, 28672, 69.0e9 },
    { "llama3-70b", 80, 8192, 64, 8, 128, 28672, 70.6e9 },
    { "qwen3-0.6b", 28, 1024, 16, 8, 128, 3072, 0.6e9 },
    { "qwen3-1.7b", 28, 2048, 16, 8, 128, 6144, 1.7e9 },
    { "qwen3-4b", 36, 2560, 32, 8, 128, 9728, 4.0e9 },
    { "qwen3-8b", 36, 4096, 32, 8, 128, 12288, 8.2e9 },
    { "qwen3-14b", 40, 5120, 40, 8, 128, 17408, 14.8e9 },
    { "qwen3-32b", 64, 5120, 64, 8, 128, 25600, 32.8e9 },
};

enum { GPUS = sizeof(gpus) / sizeof(gpus[0]), LLMS = sizeof(llms) / sizeof(llms[0]) };
enum { GPU_FITTED = 0, LLM_FITTED = 1 }; /* what the constants were measured on */

static const double BYTES_PER_NUMBER = 2; /* BF16 */
static const double TOKENS_MOST = 1e15;   /* in the memory of a node: sums of some do not wrap */

bool assume_gpu(struct sim_assume *assume, const char *name)
{
    for (int i = 0; i < GPUS; i++)
        if (strcmp(gpus[i].name, name) == 0) {
            assume->gpu = gpus[i];
            return true;
        }
    return false;
}

bool assume_llm(struct sim_assume *assume, const char *name)
{
    for (int i = 0; i < LLMS; i++)
        if (strcmp(llms[i].name, name) == 0) {
            assume->llm = llms[i];
            return true;
        }
    return false;
}

void assume_names(struct buf *out)
{
    for (int i = 0; i < GPUS; i++)
        buf_addf(out, "%s%s", i ? ", " : "gpu: ", gpus[i].name);
    for (int i = 0; i < LLMS; i++)
        buf_addf(out, "%s%s", i ? ", " : "; llm: ", llms[i].name);
}

void assume_defaults(struct sim_assume *assume)
{
    *assume = (struct sim_assume){
#define SIM_ASSUME_VALUE(name, value, unit, source) .name = (value),
        SIM_ASSUME_MAP(SIM_ASSUME_VALUE)
#undef SIM_ASSUME_VALUE
    };
    assume->gpu = gpus[GPU_FITTED];
    assume->llm = llms[LLM_FITTED];
}

/* ------------------------------------------------------------------------------------------- read */

struct key {
    const char *name;
    size_t offset;
};

static const struct key keys[] = {
#define SIM_ASSUME_KEY(name, value, unit, source) { #name, offsetof(struct sim_assume, name) },
    SIM_ASSUME_MAP(SIM_ASSUME_KEY)
#undef SIM_ASSUME_KEY
        { "gpu.flops", offsetof(struct sim_assume, gpu.flops) },
    { "gpu.bytes", offsetof(struct sim_assume, gpu.bytes) },
    { "gpu.bytes_per_s", offsetof(struct sim_assume, gpu.bytes_per_s) },
    { "gpu.net_bytes_per_s", offsetof(struct sim_assume, gpu.net_bytes_per_s) },
    { "llm.layers", offsetof(struct sim_assume, llm.layers) },
    { "llm.hidden", offsetof(struct sim_assume, llm.hidden) },
    { "llm.heads", offsetof(struct sim_assume, llm.heads) },
    { "llm.kv_heads", offsetof(struct sim_assume, llm.kv_heads) },
    { "llm.head_size", offsetof(struct sim_assume, llm.head_size) },
    { "llm.inner", offsetof(struct sim_assume, llm.inner) },
    { "llm.parameters", offsetof(struct sim_assume, llm.parameters) },
};
enum { KEYS = sizeof(keys) / sizeof(keys[0]) };

static double *field(struct sim_assume *assume, const char *name)
{
    for (int i = 0; i < KEYS; i++)
        if (strcmp(keys[i].name, name) == 0)
            return (double *)(void *)((char *)assume + keys[i].offset);
    return NULL;
}

static const char *skip_blanks(const char *text)
{
    return text + strspn(text, " \t\r");
}

/* `line` is a text of its own: "name = value # why". */
static mc_status read_line(struct sim_assume *assume, char *line, unsigned number,
                           struct mc_error *error)
{
    line[strcspn(line, "#")] = '\0';
    char *name = line + strspn(line, " \t\r");
    if (*name == '\0')
        return MC_OK;
    char *equals = strchr(name, '=');
    if (!equals)
        return error_set(error, MC_E_FORMAT, "line %u: no '=' in \"%.60s\"", number, name);
    const char *value = skip_blanks(equals + 1);
    for (*equals-- = '\0'; equals >= name && (*equals == ' ' || *equals == '\t'); equals--)
        *equals = '\0';

    char word[32] = "";
    const size_t length = strcspn(value, " \t\r");
    memcpy(word, value, length < sizeof(word) ? length : sizeof(word) - 1);
    if (strcmp(name, "gpu") == 0 && assume_gpu(assume, word))
        return MC_OK;
    if (strcmp(name, "llm") == 0 && assume_llm(assume, word))
        return MC_OK;
    if (strcmp(name, "gpu") == 0 || strcmp(name, "llm") == 0)
        return error_set(error, MC_E_FORMAT, "line %u: no %s is called \"%s\"", number, name, word);

    double *target = field(assume, name);
    if (!target)
        return error_set(error, MC_E_FORMAT, "line %u: unknown name \"%.60s\"", number, name);
    char *end;
    const double parsed = strtod(value, &end);
    if (end == value || *skip_blanks(end) != '\0' || !(parsed >= 0) || parsed > 1e18)
        return error_set(error, MC_E_FORMAT, "line %u: %s is not a number from 0 to 1e18", number,
                         name);
    *target = parsed;
    return MC_OK;
}

/* Nothing is without size or speed, or so large that times and tokens could not be counted. */
static mc_status check(const struct sim_assume *a, struct mc_error *error)
{
    static const double TIME_MOST = 1e6, BYTES_PER_S_LEAST = 1e5;

    if (a->llm.layers < 1 || a->llm.kv_heads < 1 || a->llm.head_size < 1 || a->gpu.flops < 1)
        return error_set(error, MC_E_FORMAT, "a GPU or an LLM without size or speed");
    if (a->gpu.bytes_per_s < BYTES_PER_S_LEAST || a->gpu.net_bytes_per_s < BYTES_PER_S_LEAST ||
        a->vram_load_bytes_per_s < BYTES_PER_S_LEAST || a->ssd_bytes_per_s < BYTES_PER_S_LEAST)
        return error_set(error, MC_E_FORMAT, "memory or a line of less than %g bytes a second",
                         BYTES_PER_S_LEAST);
    if (a->gpus < 1 || a->gpus > 1e4 || a->sequences_max < 1 || a->sequences_max > 65536 ||
        a->vram_share > 1)
        return error_set(error, MC_E_FORMAT,
                         "gpus is 1 to 10000, sequences_max 1 to 65536, vram_share at most 1");
    for (int i = 0; i < KEYS; i++) {
        const size_t length = strlen(keys[i].name);
        struct sim_assume copy = *a;

        if (length > 2 && strcmp(keys[i].name + length - 2, "_s") == 0 &&
            !strstr(keys[i].name, "bytes_per") && *field(&copy, keys[i].name) > TIME_MOST)
            return error_set(error, MC_E_FORMAT, "%s is above 1e6 seconds", keys[i].name);
    }
    return MC_OK;
}

mc_status assume_read(struct sim_assume *assume, const char *text, size_t size,
                      struct mc_error *error)
{
    struct sim_assume next = *assume;
    const char *end = text + size;
    char line[256];

    for (unsigned number = 1; text < end; number++) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        const size_t length = (size_t)((newline ? newline : end) - text);

        if (length >= sizeof(line) || memchr(text, '\0', length))
            return error_set(error, MC_E_FORMAT, "line %u: too long, or not text", number);
        memcpy(line, text, length);
        line[length] = '\0';
        const mc_status status = read_line(&next, line, number, error);
        if (status != MC_OK)
            return status;
        text += length + (newline != NULL);
    }
    const mc_status status = check(&next, error);
    if (status != MC_OK)
        return status;
    *assume = next;
    return MC_OK;
}

/* ------------------------------------------------------------------------------------------- node */

/* Multiplications of one token with all matrices, two operations each; the head counts for nothing. */
static double token_flop(const struct sim_llm *m)
{
    const double query = m->hidden * m->heads * m->head_size;
    const double kv = m->hidden * m->kv_heads * m->head_size;

    return 2 * m->layers * (2 * query + 2 * kv + 3 * m->hidden * m->inner);
}

/* Of each pair of positions: scores and values, causal. */
static double pair_flop(const struct sim_llm *m)
{
    return 2 * m->layers * m->heads * m->head_size;
}

static double kv_bytes(const struct sim_llm *m)
{
    return 2 * m->layers * m->kv_heads * m->head_size * BYTES_PER_NUMBER;
}

struct sim_node assume_node(const struct sim_assume *a)
{
    const struct sim_gpu *g = &a->gpu, *g0 = &gpus[GPU_FITTED];
    const struct sim_llm *m = &a->llm, *m0 = &llms[LLM_FITTED];
    const double share = 8 / a->gpus; /* fewer GPUs, less of everything */
    const double compute = share * g0->flops / g->flops;
    const double memory = share * g0->bytes_per_s / g->bytes_per_s;
    const double weights = m->parameters * BYTES_PER_NUMBER;
    const double room = a->vram_share * a->gpus * g->bytes - weights;
    const double bytes = kv_bytes(m), linear = token_flop(m) / token_flop(m0) * compute;

    return (struct sim_node){
        .cost = { .p0 = a->prefill_fixed_s * m->layers / m0->layers,
                  .p1 = a->prefill_token_s * linear,
                  .p2 = a->prefill_pair_s * pair_flop(m) / pair_flop(m0) * compute,
                  .p3 = a->load_token_s * bytes / kv_bytes(m0) * share,
                  .d0 = a->step_fixed_s * m->parameters / m0->parameters * memory,
                  .d1 = a->step_sequence_s * linear,
                  .d2 = a->step_token_s * bytes / kv_bytes(m0) * memory,
                  .t0 = a->link_latency_s,
                  .bytes_per_s = g->net_bytes_per_s / share },
        .kv_token_bytes = bytes,
        .kv_tokens =
            room > bytes ? (uint64_t)(room / bytes < TOKENS_MOST ? room / bytes : TOKENS_MOST) : 0,
        .net_bytes_per_s = g->net_bytes_per_s / share,
        .vram_bytes_per_s = a->vram_load_bytes_per_s / share,
        .ssd_bytes_per_s = a->ssd_bytes_per_s,
    };
}

/* ------------------------------------------------------------------------------------------ print */

void assume_print(const struct sim_assume *assume, struct buf *out)
{
    struct sim_assume copy = *assume; /* field() gives what can be written to */

    buf_addf(out, "gpu = %s\nllm = %s\n", assume->gpu.name, assume->llm.name);
    for (int i = 0; i < KEYS; i++)
        if (strchr(keys[i].name, '.'))
            buf_addf(out, "%s = %.10g\n", keys[i].name, *field(&copy, keys[i].name));
#define SIM_ASSUME_PRINT(name, value, unit, source) \
    buf_addf(out, "%s = %.10g # %s%s%s\n", #name, assume->name, unit, unit[0] ? "; " : "", source);
    SIM_ASSUME_MAP(SIM_ASSUME_PRINT)
#undef SIM_ASSUME_PRINT
}
