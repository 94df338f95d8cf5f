/*
 * fuzz_config.c - any bytes as config.json and, after the first NUL, as generation_config.json:
 * refused, or every number is within what the rest of the code relies on.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "infer/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct model_config *c)
{
    const uint64_t rows = (uint64_t)c->heads * c->head_dim;

    if (c->hidden == 0 || c->layers == 0 || c->layers > LAYERS_MAX || c->kv_heads == 0 ||
        c->heads % c->kv_heads != 0 || c->head_dim < 2 || c->head_dim > HEAD_DIM_MAX ||
        c->head_dim % 2 != 0 || c->intermediate == 0 || c->vocab_size == 0 || c->context_max == 0)
        abort();
    if (rows > UINT32_MAX || (uint64_t)c->vocab_size * c->hidden > UINT64_MAX / 8 / c->layers)
        abort();
    if (!(c->norm_eps > 0 && c->norm_eps <= 1) || !(c->rope_theta >= 1 && c->rope_theta <= 1e12))
        abort();
    if (c->rope.kind != ROPE_PLAIN && !(c->rope.factor >= 1))
        abort();
    if (c->rope.kind == ROPE_LLAMA3 && !(c->rope.high_freq > c->rope.low_freq))
        abort();
    if (c->eos_count > EOS_MAX || !(c->top_p >= 0 && c->top_p <= 1) || !(c->temperature >= 0))
        abort();
    for (uint32_t i = 0; i < c->eos_count; i++)
        if (c->eos[i] >= c->vocab_size)
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    const size_t first = nul ? (size_t)(nul - data) : size;
    struct model_config config;
    struct mc_error error;

    if (config_parse((const char *)data, first, "config.json", &config, &error) != MC_OK)
        return 0;
    check(&config);
    if (nul && config_parse_generation((const char *)nul + 1, size - first - 1,
                                       "generation_config.json", &config, &error) == MC_OK)
        check(&config);
    return 0;
}
