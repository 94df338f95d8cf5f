/* config.c - config.json field by field: what is refused by name first, then every number, bounded. */
#include "infer/config.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "infer/json.h"

/* Far above any model there is, and small enough that the products below stay exact. */
enum {
    HIDDEN_MAX = 1 << 17,
    INTERMEDIATE_MAX = 1 << 20,
    HEADS_MAX = 1 << 12,
    VOCAB_MAX = 1 << 22,
    CONTEXT_MAX = 1 << 24,
};
static_assert((uint64_t)LAYERS_MAX * HIDDEN_MAX <= UINT64_MAX / (4 * 4 * INTERMEDIATE_MAX),
              "bytes of all layers' MLP matrices fit 64 bits");
static_assert((uint64_t)HEADS_MAX * HEAD_DIM_MAX <= UINT32_MAX, "rows of a matrix fit 32 bits");

static const double THETA_MAX = 1e12;

static const struct family {
    const char *name, *model_type;
    enum architecture architecture;
    bool attention_bias; /* whether the field attention_bias means something */
} families[] = {
    { "LlamaForCausalLM", "llama", ARCH_LLAMA, true },
    { "Qwen2ForCausalLM", "qwen2", ARCH_QWEN2, false },
    { "Qwen3ForCausalLM", "qwen3", ARCH_QWEN3, true },
};
enum { FAMILIES = sizeof(families) / sizeof(*families) };

static const char SUPPORTED[] =
    "supported are LlamaForCausalLM, Qwen2ForCausalLM and Qwen3ForCausalLM";

const char *config_architecture_name(enum architecture architecture)
{
    for (size_t i = 0; i < FAMILIES; i++)
        if (families[i].architecture == architecture)
            return families[i].name;
    return "?";
}

/* Without architectures (some exports drop it) model_type tells the family. */
static const struct family *read_family(struct fields *f)
{
    const json_t *list = field(f, "architectures");
    const json_t *first = json_array_get(list, 0);
    const char *name = list ? json_string_value(first) : NULL, *type = NULL;

    field_text(f, "model_type", &type);
    if (list && !name) {
        field_fail(f, MC_E_FORMAT, "architectures", "expected a list of strings");
        return NULL;
    }
    for (size_t i = 0; i < FAMILIES; i++)
        if (name ? !strcmp(name, families[i].name) : type && !strcmp(type, families[i].model_type))
            return &families[i];
    if (name)
        field_fail(f, MC_E_UNSUPPORTED, "architectures", "%s is not supported; %s", name,
                   SUPPORTED);
    else if (type)
        field_fail(f, MC_E_UNSUPPORTED, "model_type", "%s is not supported; %s", type, SUPPORTED);
    else
        field_fail(f, MC_E_FORMAT, "architectures", "missing; %s", SUPPORTED);
    return NULL;
}

static void refuse_quantized(struct fields *f)
{
    const json_t *quantization = field(f, "quantization_config");
    const char *method = json_string_value(json_object_get(quantization, "quant_method"));

    if (quantization)
        field_fail(f, MC_E_UNSUPPORTED, "quantization_config",
                   "%s weights are not supported; only BF16 and F32 are",
                   method ? method : "quantised");
}

static void refuse_experts(struct fields *f)
{
    static const char *const names[] = { "num_experts", "num_local_experts", "n_routed_experts" };

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (json_number_value(field(f, names[i])) > 0)
            field_fail(f, MC_E_UNSUPPORTED, names[i], "mixtures of experts are not supported");
}

/* Qwen configurations carry a window that is switched off; only one in use is refused. */
static void refuse_window(struct fields *f, const struct model_config *config)
{
    const json_t *types = field(f, "layer_types"), *type;
    bool used = false;
    uint32_t full_layers = 28; /* what the families' default is */
    size_t i;

    field_bool(f, "use_sliding_window", &used);
    field_count(f, "max_window_layers", 0, CONTEXT_MAX, &full_layers);
    if (types && !json_is_array(types))
        field_fail(f, MC_E_FORMAT, "layer_types", "expected a list, found %s", json_kind(types));
    json_array_foreach(types, i, type)
    {
        const char *name = json_string_value(type);
        if (!name)
            field_fail(f, MC_E_FORMAT, "layer_types", "expected strings, found %s",
                       json_kind(type));
        else if (strcmp(name, "full_attention") != 0)
            field_fail(f, MC_E_UNSUPPORTED, "layer_types",
                       "%s is not supported; only full_attention is", name);
    }
    if (!types && used && field(f, "sliding_window") && full_layers < config->layers)
        field_fail(f, MC_E_UNSUPPORTED, "use_sliding_window",
                   "sliding window attention is not supported");
}

static void refuse_variants(struct fields *f)
{
    const char *act = "silu";
    bool bias = false;

    refuse_quantized(f);
    refuse_experts(f);
    field_text(f, "hidden_act", &act);
    if (strcmp(act, "silu") != 0)
        field_fail(f, MC_E_UNSUPPORTED, "hidden_act", "%s is not supported; only silu is", act);
    field_bool(f, "mlp_bias", &bias);
    if (bias)
        field_fail(f, MC_E_UNSUPPORTED, "mlp_bias", "biases in the MLP are not supported");
}

static void read_shape(struct fields *f, struct model_config *config)
{
    static const char *const required[] = {
        "hidden_size", "num_hidden_layers", "num_attention_heads",     "intermediate_size",
        "vocab_size",  "rms_norm_eps",      "max_position_embeddings",
    };
    double eps = 0;

    for (size_t i = 0; i < sizeof(required) / sizeof(*required); i++)
        field_required(f, required[i]);
    field_count(f, "hidden_size", 1, HIDDEN_MAX, &config->hidden);
    field_count(f, "num_hidden_layers", 1, LAYERS_MAX, &config->layers);
    field_count(f, "num_attention_heads", 1, HEADS_MAX, &config->heads);
    field_count(f, "intermediate_size", 1, INTERMEDIATE_MAX, &config->intermediate);
    field_count(f, "vocab_size", 1, VOCAB_MAX, &config->vocab_size);
    field_count(f, "max_position_embeddings", 1, CONTEXT_MAX, &config->context_max);
    field_number(f, "rms_norm_eps", 1e-30, 1, &eps);
    config->norm_eps = (float)eps;
    config->kv_heads = config->heads;
    field_count(f, "num_key_value_heads", 1, HEADS_MAX, &config->kv_heads);
    if (f->status == MC_OK && config->heads % config->kv_heads != 0)
        field_fail(f, MC_E_FORMAT, "num_key_value_heads",
                   "%u does not divide num_attention_heads %u", config->kv_heads, config->heads);
}

/* Absent, it follows from the others, but for Qwen3, whose configuration class says 128. */
static void read_head_dim(struct fields *f, struct model_config *config)
{
    if (f->status != MC_OK)
        return;
    if (!field(f, "head_dim") && config->architecture != ARCH_QWEN3) {
        config->head_dim = config->hidden / config->heads;
        if (config->hidden % config->heads != 0)
            field_fail(f, MC_E_FORMAT, "hidden_size",
                       "%u is not a multiple of num_attention_heads %u, and head_dim is missing",
                       config->hidden, config->heads);
        else if (config->head_dim > HEAD_DIM_MAX)
            field_fail(f, MC_E_RANGE, "head_dim",
                       "hidden_size / num_attention_heads is %u; at most %d", config->head_dim,
                       HEAD_DIM_MAX);
    } else {
        config->head_dim = 128;
        field_count(f, "head_dim", 2, HEAD_DIM_MAX, &config->head_dim);
    }
    if (config->head_dim % 2 != 0)
        field_fail(f, MC_E_FORMAT, "head_dim", "%u is odd; rotary embedding turns pairs",
                   config->head_dim);
}

static void read_llama3(struct fields *f, struct rope_scaling *rope)
{
    static const char *const required[] = { "low_freq_factor", "high_freq_factor",
                                            "original_max_position_embeddings" };

    for (size_t i = 0; i < sizeof(required) / sizeof(*required); i++)
        field_required(f, required[i]);
    field_number(f, "low_freq_factor", 1e-6, 1e6, &rope->low_freq);
    field_number(f, "high_freq_factor", 1e-6, 1e6, &rope->high_freq);
    field_number(f, "original_max_position_embeddings", 1, CONTEXT_MAX,
                 &rope->original_context_max);
    if (f->status == MC_OK && rope->low_freq >= rope->high_freq)
        field_fail(f, MC_E_FORMAT, "high_freq_factor", "%g is not above low_freq_factor %g",
                   rope->high_freq, rope->low_freq);
}

static void read_rope_kind(struct fields *f, struct rope_scaling *rope)
{
    const char *type = "default";

    field_text(f, "type", &type);
    field_text(f, "rope_type", &type);
    if (!strcmp(type, "default")) {
        rope->kind = ROPE_PLAIN;
        return;
    }
    if (!strcmp(type, "linear"))
        rope->kind = ROPE_LINEAR;
    else if (!strcmp(type, "llama3"))
        rope->kind = ROPE_LLAMA3;
    else
        field_fail(f, MC_E_UNSUPPORTED, field(f, "rope_type") ? "rope_type" : "type",
                   "%s is not supported; default, linear and llama3 are", type);
    field_required(f, "factor");
    field_number(f, "factor", 1, 1e6, &rope->factor);
    if (rope->kind == ROPE_LLAMA3)
        read_llama3(f, rope);
}

static void refuse_partial_rotary(struct fields *f)
{
    double factor = 1;

    field_number(f, "partial_rotary_factor", 0, 1, &factor);
    if (factor < 1)
        field_fail(f, MC_E_UNSUPPORTED, "partial_rotary_factor",
                   "%g is not supported; all of a head is rotated here", factor);
}

/* Two spellings: rope_theta beside rope_scaling, and, since transformers 5, both in rope_parameters.
 * The older one wins where a file has both, as it does there. */
static void read_rope(struct fields *f, struct model_config *config)
{
    const char *name = "rope_scaling";
    const json_t *value = field(f, name);

    config->rope_theta = 10000;
    field_number(f, "rope_theta", 1, THETA_MAX, &config->rope_theta);
    refuse_partial_rotary(f);
    if (!value || (json_is_object(value) && json_object_size(value) == 0)) {
        name = "rope_parameters";
        value = field(f, name);
    }
    if (value && !json_is_object(value))
        field_fail(f, MC_E_FORMAT, name, "expected an object, found %s", json_kind(value));
    if (!value || f->status != MC_OK)
        return;
    struct fields inner = { .object = value,
                            .file = f->file,
                            .prefix = value == field(f, "rope_scaling") ? "rope_scaling."
                                                                        : "rope_parameters.",
                            .error = f->error };
    if (json_is_object(field(&inner, "full_attention")))
        field_fail(&inner, MC_E_UNSUPPORTED, "full_attention",
                   "rotary embedding by layer type is not supported");
    read_rope_kind(&inner, &config->rope);
    field_number(&inner, "rope_theta", 1, THETA_MAX, &config->rope_theta);
    refuse_partial_rotary(&inner);
    f->status = inner.status;
}

/* Which tensors to expect besides those that all families have. */
static void read_parts(struct fields *f, const struct family *family, struct model_config *config)
{
    bool bias = false;

    field_bool(f, "tie_word_embeddings", &config->tied);
    config->untied = field(f, "tie_word_embeddings") && !config->tied;
    if (family->attention_bias)
        field_bool(f, "attention_bias", &bias);
    config->qkv_bias = bias || config->architecture == ARCH_QWEN2;
    config->o_bias = bias;
    config->qk_norm = config->architecture == ARCH_QWEN3;
}

static void read_id(struct fields *f, const char *name, const json_t *value,
                    const struct model_config *config, uint32_t *id_p)
{
    const double id = json_number_value(value);

    if (!json_is_number(value) || id != floor(id))
        field_fail(f, MC_E_FORMAT, name, "expected a token id, found %s", json_kind(value));
    else if (id < 0 || id >= config->vocab_size)
        field_fail(f, MC_E_RANGE, name, "%.15g is not a token id below vocab_size %u", id,
                   config->vocab_size);
    else
        *id_p = (uint32_t)id;
}

static void read_eos(struct fields *f, struct model_config *config)
{
    const json_t *value = field(f, "eos_token_id");
    const size_t count = json_is_array(value) ? json_array_size(value) : 1;

    if (!value)
        return;
    if (count > EOS_MAX) {
        field_fail(f, MC_E_RANGE, "eos_token_id", "%zu ids; at most %d are accepted", count,
                   EOS_MAX);
        return;
    }
    config->eos_count = (uint32_t)count;
    for (size_t i = 0; i < count; i++)
        read_id(f, "eos_token_id", json_is_array(value) ? json_array_get(value, i) : value, config,
                &config->eos[i]);
}

static void read_all(struct fields *f, struct model_config *config)
{
    const struct family *family = read_family(f);

    if (!family)
        return;
    config->architecture = family->architecture;
    refuse_variants(f);
    read_shape(f, config);
    read_head_dim(f, config);
    refuse_window(f, config);
    read_rope(f, config);
    read_parts(f, family, config);
    read_eos(f, config);
    if (f->status == MC_OK && field(f, "bos_token_id"))
        read_id(f, "bos_token_id", field(f, "bos_token_id"), config, &config->bos);
}

mc_status config_parse(const char *json, size_t size, const char *name,
                       struct model_config *config_p, struct mc_error *error)
{
    json_t *object;
    const mc_status status = json_read(json, size, name, &object, error);

    if (status != MC_OK)
        return status;
    struct model_config config = { .bos = UINT32_MAX, .temperature = 1, .top_p = 1 };
    struct fields f = { .object = object, .file = name, .prefix = "", .error = error };
    read_all(&f, &config);
    json_decref(object);
    if (f.status == MC_OK)
        *config_p = config;
    return f.status;
}

mc_status config_parse_generation(const char *json, size_t size, const char *name,
                                  struct model_config *config, struct mc_error *error)
{
    json_t *object;
    const mc_status status = json_read(json, size, name, &object, error);

    if (status != MC_OK)
        return status;
    struct model_config laid = *config;
    struct fields f = { .object = object, .file = name, .prefix = "", .error = error };
    double temperature = laid.temperature, top_p = laid.top_p;
    field_number(&f, "temperature", 0, 100, &temperature);
    field_number(&f, "top_p", 0, 1, &top_p);
    field_count(&f, "top_k", 0, INT32_MAX, &laid.top_k);
    read_eos(&f, &laid);
    laid.temperature = (float)temperature;
    laid.top_p = (float)top_p;
    json_decref(object);
    if (f.status == MC_OK)
        *config = laid;
    return f.status;
}
