/* weights.c - shards opened, every tensor of the configuration found, checked and given its role. */
#include "infer/weights.h"

#include <stdio.h>
#include <stdlib.h>

#include <jansson.h>

#include "base/alloc.h"
#include "base/error.h"
#include "infer/json.h"

#define SINGLE_FILE "model.safetensors"
#define INDEX_FILE "model.safetensors.index.json"

enum { SHARDS_MAX = 4096, INDEX_BYTES_MAX = 64 << 20, COPY_ALIGN = 64 };

/* -------------------------------------------------------------- what a model of a shape consists of */

enum size { ONE, HIDDEN, Q_ROWS, KV_ROWS, INTERMEDIATE, HEAD_DIM, VOCAB };
enum part { ALWAYS, IF_QKV_BIAS, IF_O_BIAS, IF_QK_NORM, IF_UNTIED };

/** One tensor's name and shape, and where it goes: a struct tensor, or, if rows is ONE, a float *. */
struct role {
    const char *name; /* in a layer: what follows "model.layers.N." */
    size_t offset;    /* in struct layer_weights or struct mc_model */
    enum size rows, cols;
    enum part part;
};

#define IN_LAYER(field) offsetof(struct layer_weights, field)
#define IN_MODEL(field) offsetof(struct mc_model, field)

static const struct role layer_roles[] = {
    { "self_attn.q_proj.weight", IN_LAYER(q), Q_ROWS, HIDDEN, ALWAYS },
    { "self_attn.k_proj.weight", IN_LAYER(k), KV_ROWS, HIDDEN, ALWAYS },
    { "self_attn.v_proj.weight", IN_LAYER(v), KV_ROWS, HIDDEN, ALWAYS },
    { "self_attn.o_proj.weight", IN_LAYER(o), HIDDEN, Q_ROWS, ALWAYS },
    { "mlp.gate_proj.weight", IN_LAYER(gate), INTERMEDIATE, HIDDEN, ALWAYS },
    { "mlp.up_proj.weight", IN_LAYER(up), INTERMEDIATE, HIDDEN, ALWAYS },
    { "mlp.down_proj.weight", IN_LAYER(down), HIDDEN, INTERMEDIATE, ALWAYS },
    { "input_layernorm.weight", IN_LAYER(attention_norm), ONE, HIDDEN, ALWAYS },
    { "post_attention_layernorm.weight", IN_LAYER(mlp_norm), ONE, HIDDEN, ALWAYS },
    { "self_attn.q_proj.bias", IN_LAYER(q_bias), ONE, Q_ROWS, IF_QKV_BIAS },
    { "self_attn.k_proj.bias", IN_LAYER(k_bias), ONE, KV_ROWS, IF_QKV_BIAS },
    { "self_attn.v_proj.bias", IN_LAYER(v_bias), ONE, KV_ROWS, IF_QKV_BIAS },
    { "self_attn.o_proj.bias", IN_LAYER(o_bias), ONE, HIDDEN, IF_O_BIAS },
    { "self_attn.q_norm.weight", IN_LAYER(q_norm), ONE, HEAD_DIM, IF_QK_NORM },
    { "self_attn.k_norm.weight", IN_LAYER(k_norm), ONE, HEAD_DIM, IF_QK_NORM },
};

static const struct role model_roles[] = {
    { "model.embed_tokens.weight", IN_MODEL(embedding), VOCAB, HIDDEN, ALWAYS },
    { "model.norm.weight", IN_MODEL(final_norm), ONE, HIDDEN, ALWAYS },
    { "lm_head.weight", IN_MODEL(head), VOCAB, HIDDEN, IF_UNTIED },
};

enum {
    LAYER_ROLES = sizeof(layer_roles) / sizeof(*layer_roles),
    MODEL_ROLES = sizeof(model_roles) / sizeof(*model_roles),
};

static uint32_t size_of(const struct model_config *c, enum size size)
{
    switch (size) {
    case HIDDEN:
        return c->hidden;
    case Q_ROWS:
        return c->heads * c->head_dim;
    case KV_ROWS:
        return c->kv_heads * c->head_dim;
    case INTERMEDIATE:
        return c->intermediate;
    case HEAD_DIM:
        return c->head_dim;
    case VOCAB:
        return c->vocab_size;
    case ONE:
        break;
    }
    return 1;
}

static bool has_part(const struct model_config *c, enum part part)
{
    switch (part) {
    case IF_QKV_BIAS:
        return c->qkv_bias;
    case IF_O_BIAS:
        return c->o_bias;
    case IF_QK_NORM:
        return c->qk_norm;
    case IF_UNTIED:
        return !c->tied;
    case ALWAYS:
        break;
    }
    return true;
}

/* ------------------------------------------------------------------------------------- the shards */

struct opening {
    struct mc_model *model;
    const char *directory;
    struct mc_error *error;
    json_t *index;      /* owned; the index file, NULL with a single file */
    json_t *weight_map; /* borrowed from index: tensor -> file */
    json_t *shard_of;   /* owned; file -> number of its shard */
    size_t vector_floats, copy_bytes;
    float *vector_next; /* in model->vectors */
    char *copy_next;    /* in model->copies */
};

/** A tensor of the files: where it is, and in which file for errors. entry is NULL if there is none. */
struct found {
    const struct st_entry *entry;
    const char *file;
};

static mc_status no_memory(struct mc_error *error)
{
    return error_set(error, MC_E_NOMEM, "out of memory for the table of weights");
}

static struct found find(const struct opening *o, const char *name)
{
    struct found found = { .file = SINGLE_FILE };
    json_int_t shard = 0;

    if (o->weight_map) {
        const json_t *file = json_object_get(o->weight_map, name);
        if (!file)
            return (struct found){ .file = INDEX_FILE };
        found.file = json_string_value(file);
        shard = json_integer_value(json_object_get(o->shard_of, found.file));
    }
    found.entry = safetensors_find(&o->model->shards[shard], name);
    return found;
}

/* A name that an index gives is joined to the path of the directory: without "/" it stays in there. */
static bool is_file_name(const char *file)
{
    const size_t size = strlen(file), suffix = strlen(".safetensors");

    return size > suffix && file[0] != '.' && !strchr(file, '/') &&
           !strcmp(file + size - suffix, ".safetensors");
}

static mc_status add_shard(struct opening *o, const char *tensor, const json_t *value)
{
    const char *file = json_string_value(value);

    if (!file)
        return error_set(o->error, MC_E_FORMAT,
                         INDEX_FILE ": weight_map.%s: expected a file name, found %s", tensor,
                         json_kind(value));
    if (!is_file_name(file))
        return error_set(o->error, MC_E_FORMAT,
                         INDEX_FILE
                         ": weight_map.%s: \"%s\" is not the name of a .safetensors file "
                         "in this directory",
                         tensor, file);
    if (json_object_get(o->shard_of, file))
        return MC_OK;
    const size_t count = json_object_size(o->shard_of);
    if (count >= SHARDS_MAX)
        return error_set(o->error, MC_E_RANGE, INDEX_FILE ": weight_map: more than %d files",
                         SHARDS_MAX);
    if (json_object_set_new(o->shard_of, file, json_integer((json_int_t)count)) != 0)
        return no_memory(o->error);
    return MC_OK;
}

static mc_status read_index(struct opening *o, const char *path)
{
    const char *tensor;
    char *text;
    size_t size;
    json_t *value;
    mc_status status = os_file_read(path, INDEX_BYTES_MAX, o->model->alloc, &text, &size, o->error);

    if (status != MC_OK)
        return status;
    status = json_read(text, size, INDEX_FILE, &o->index, o->error);
    alloc_free(o->model->alloc, text);
    if (status != MC_OK)
        return status;
    o->weight_map = json_object_get(o->index, "weight_map");
    if (!json_is_object(o->weight_map) || json_object_size(o->weight_map) == 0)
        return error_set(o->error, MC_E_FORMAT,
                         INDEX_FILE ": weight_map: expected tensors and their files, found %s",
                         json_is_object(o->weight_map) ? "none" : json_kind(o->weight_map));
    json_object_foreach(o->weight_map, tensor, value)
    {
        status = add_shard(o, tensor, value);
        if (status != MC_OK)
            return status;
    }
    return MC_OK;
}

static mc_status open_shard(struct opening *o, const char *file, struct safetensors *shard)
{
    char path[MODEL_PATH_MAX];
    mc_status status = model_path(o->directory, file, path, o->error);

    if (status == MC_OK)
        status = safetensors_open(path, o->model->alloc, shard, o->error);
    if (status == MC_E_NOT_FOUND && o->weight_map)
        return error_set(o->error, status, INDEX_FILE ": weight_map: %s is not there", file);
    return status;
}

/* Every promise of the index is held: a tensor that is elsewhere means files of different models. */
static mc_status check_promises(const struct opening *o)
{
    const char *tensor;
    json_t *value;

    json_object_foreach(o->weight_map, tensor, value) if (!find(o, tensor).entry) return error_set(
        o->error, MC_E_FORMAT, INDEX_FILE ": weight_map.%s: is not in %s", tensor,
        json_string_value(value));
    return MC_OK;
}

static mc_status open_files(struct opening *o)
{
    struct mc_model *model = o->model;
    const char *file;
    json_t *number;

    model->shards =
        alloc_zeroed(model->alloc, json_object_size(o->shard_of), sizeof(*model->shards));
    if (!model->shards)
        return no_memory(o->error);
    json_object_foreach(o->shard_of, file, number)
    {
        struct safetensors *shard = &model->shards[json_integer_value(number)];
        const mc_status status = open_shard(o, file, shard);
        if (status != MC_OK)
            return status;
        model->shard_count++; /* shards are numbered in the order of this loop */
    }
    return o->weight_map ? check_promises(o) : MC_OK;
}

/* As transformers does: one file if it is there, else the index. */
static mc_status open_shards(struct opening *o)
{
    struct mc_error reason;
    struct os_map map;
    char path[MODEL_PATH_MAX];
    mc_status status = model_path(o->directory, SINGLE_FILE, path, o->error);

    if (status != MC_OK)
        return status;
    o->shard_of = json_object();
    if (!o->shard_of)
        return no_memory(o->error);
    status = os_map_open(path, &map, &reason);
    if (status == MC_OK) {
        os_map_close(&map);
        if (json_object_set_new(o->shard_of, SINGLE_FILE, json_integer(0)) != 0)
            return no_memory(o->error);
        return open_files(o);
    }
    if (status != MC_E_NOT_FOUND)
        return error_set(o->error, status, "%s", reason.text);
    status = model_path(o->directory, INDEX_FILE, path, o->error);
    if (status == MC_OK)
        status = read_index(o, path);
    if (status == MC_E_NOT_FOUND)
        return error_set(o->error, status,
                         "%s: neither " SINGLE_FILE " nor " INDEX_FILE
                         " is there; weights in other formats are not read",
                         o->directory);
    return status == MC_OK ? open_files(o) : status;
}

/* ------------------------------------------------------------------------------ tensor by tensor */

static mc_status check_dtype(struct opening *o, struct found found, bool matrix,
                             enum mc_dtype *dtype_p)
{
    const char *name = found.entry->dtype;
    const enum mc_dtype dtype = !strcmp(name, "BF16")  ? MC_DTYPE_BF16
                                : !strcmp(name, "F32") ? MC_DTYPE_F32
                                                       : MC_DTYPE_DEFAULT;
    enum mc_dtype *all = &o->model->dtype;

    if (dtype == MC_DTYPE_DEFAULT)
        return error_set(o->error, MC_E_UNSUPPORTED,
                         "%s: %s: dtype %s is not supported; BF16 and F32 are", found.file,
                         found.entry->name, name);
    if (matrix && *all == MC_DTYPE_DEFAULT)
        *all = dtype;
    if (matrix && *all != dtype)
        return error_set(o->error, MC_E_UNSUPPORTED,
                         "%s: %s: dtype %s, while matrices before it are %s; a mixture is not "
                         "supported",
                         found.file, found.entry->name, name,
                         *all == MC_DTYPE_F32 ? "F32" : "BF16");
    *dtype_p = dtype;
    return MC_OK;
}

static mc_status check_shape(struct opening *o, struct found found, bool matrix, uint32_t rows,
                             uint32_t cols)
{
    const struct st_entry *entry = found.entry;
    char shape[SHAPE_MAX * 24] = "", expected[48];
    size_t used = 0;

    if (!matrix && entry->rank == 1 && entry->shape[0] == cols)
        return MC_OK;
    if (matrix && entry->rank == 2 && entry->shape[0] == rows && entry->shape[1] == cols)
        return MC_OK;
    for (uint32_t i = 0; i < entry->rank; i++)
        used += (size_t)snprintf(shape + used, sizeof(shape) - used, "%s%llu", i ? ", " : "",
                                 (unsigned long long)entry->shape[i]);
    if (matrix)
        snprintf(expected, sizeof(expected), "%u, %u", rows, cols);
    else
        snprintf(expected, sizeof(expected), "%u", cols);
    return error_set(o->error, MC_E_FORMAT, "%s: %s: shape [%s], expected [%s] by config.json",
                     found.file, entry->name, shape, expected);
}

static size_t element_size(enum mc_dtype dtype)
{
    return dtype == MC_DTYPE_F32 ? 4 : 2;
}

static size_t round_up(size_t size)
{
    return (size + COPY_ALIGN - 1) / COPY_ALIGN * COPY_ALIGN;
}

static bool is_aligned(const struct st_entry *entry, enum mc_dtype dtype)
{
    return (uintptr_t)entry->data % element_size(dtype) == 0;
}

/** What is done with each tensor of the configuration: place is where its role says it goes. */
typedef mc_status visit(struct opening *o, const struct role *role, void *place, const char *name);

/* First round: everything is there and fits, and how much memory the second round takes. */
static mc_status check(struct opening *o, const struct role *role, void *place, const char *name)
{
    const struct found found = find(o, name);
    const uint32_t rows = size_of(&o->model->config, role->rows),
                   cols = size_of(&o->model->config, role->cols);
    const bool matrix = role->rows != ONE;
    enum mc_dtype dtype = MC_DTYPE_DEFAULT;

    (void)place;
    if (!found.entry)
        return error_set(o->error, MC_E_NOT_FOUND, "%s: %s: missing", found.file, name);
    mc_status status = check_dtype(o, found, matrix, &dtype);
    if (status == MC_OK)
        status = check_shape(o, found, matrix, rows, cols);
    if (status != MC_OK)
        return status;
    if (!matrix)
        o->vector_floats += cols;
    else if (!is_aligned(found.entry, dtype))
        o->copy_bytes += round_up(found.entry->bytes);
    o->model->parameters += (uint64_t)rows * cols;
    o->model->weight_bytes += found.entry->bytes;
    return MC_OK;
}

static void to_f32(float *out, const struct st_entry *entry, size_t count)
{
    const unsigned char *in = entry->data; /* as bytes: a vector may lie anywhere */

    if (!strcmp(entry->dtype, "F32")) {
        memcpy(out, in, count * sizeof(*out));
        return;
    }
    for (size_t i = 0; i < count; i++) {
        const uint32_t bits = (uint32_t)in[2 * i] << 16 | (uint32_t)in[2 * i + 1] << 24;
        memcpy(&out[i], &bits, sizeof(bits));
    }
}

/* Second round: cannot fail any more. */
static mc_status put(struct opening *o, const struct role *role, void *place, const char *name)
{
    const struct st_entry *entry = find(o, name).entry;
    const uint32_t rows = size_of(&o->model->config, role->rows),
                   cols = size_of(&o->model->config, role->cols);

    if (role->rows == ONE) {
        to_f32(o->vector_next, entry, cols);
        *(const float **)place = o->vector_next;
        o->vector_next += cols;
        return MC_OK;
    }
    const void *data = entry->data;
    if (!is_aligned(entry, o->model->dtype)) {
        data = memcpy(o->copy_next, data, entry->bytes);
        o->copy_next += round_up(entry->bytes);
    }
    *(struct tensor *)place =
        (struct tensor){ .data = data, .dtype = o->model->dtype, .rows = rows, .cols = cols };
    return MC_OK;
}

static mc_status for_each(struct opening *o, visit *each)
{
    struct mc_model *model = o->model;
    char name[96];

    for (size_t i = 0; i < MODEL_ROLES; i++) {
        const struct role *role = &model_roles[i];
        if (!has_part(&model->config, role->part))
            continue;
        const mc_status status = each(o, role, (char *)model + role->offset, role->name);
        if (status != MC_OK)
            return status;
    }
    for (uint32_t layer = 0; layer < model->config.layers; layer++)
        for (size_t i = 0; i < LAYER_ROLES; i++) {
            const struct role *role = &layer_roles[i];
            if (!has_part(&model->config, role->part))
                continue;
            snprintf(name, sizeof(name), "model.layers.%u.%s", layer, role->name);
            const mc_status status =
                each(o, role, (char *)&model->layers[layer] + role->offset, name);
            if (status != MC_OK)
                return status;
        }
    return MC_OK;
}

/* ------------------------------------------------------------------------------------ all of them */

static bool is_used(const struct model_config *c, const char *name)
{
    static const char prefix[] = "model.layers.";
    char *rest;

    if (strncmp(name, prefix, strlen(prefix)) != 0)
        return true; /* outside the layers: heads of other tasks and the like, no part of this model */
    const unsigned long layer = strtoul(name + strlen(prefix), &rest, 10);
    if (!strcmp(rest, ".self_attn.rotary_emb.inv_freq"))
        return true; /* old exports keep it; it follows from config.json */
    for (size_t i = 0; i < LAYER_ROLES; i++)
        if (*rest == '.' && !strcmp(rest + 1, layer_roles[i].name))
            return layer < c->layers && has_part(c, layer_roles[i].part);
    return false;
}

/* A layer that holds what the configuration does not speak of would compute something else. */
static mc_status refuse_surplus(const struct opening *o)
{
    const struct mc_model *model = o->model;
    const char *file;
    json_t *number;

    json_object_foreach(o->shard_of, file, number)
    {
        const struct safetensors *shard = &model->shards[json_integer_value(number)];
        for (size_t i = 0; i < shard->count; i++)
            if (!is_used(&model->config, shard->entries[i].name))
                return error_set(
                    o->error, MC_E_FORMAT,
                    "%s: %s: not part of a %s of %u layers as config.json describes it", file,
                    shard->entries[i].name, config_architecture_name(model->config.architecture),
                    model->config.layers);
    }
    return MC_OK;
}

static mc_status take_memory(struct opening *o)
{
    struct mc_model *model = o->model;

    model->vectors = alloc_zeroed(model->alloc, o->vector_floats, sizeof(*model->vectors));
    if (!model->vectors)
        return no_memory(o->error);
    if (o->copy_bytes > 0 && !(model->copies = alloc_bytes(model->alloc, o->copy_bytes)))
        return error_set(o->error, MC_E_NOMEM,
                         "out of memory for %zu bytes of weights that the file does not align",
                         o->copy_bytes);
    o->vector_next = model->vectors;
    o->copy_next = model->copies;
    return MC_OK;
}

static mc_status open_all(struct opening *o)
{
    struct mc_model *model = o->model;
    mc_status status = open_shards(o);

    if (status != MC_OK)
        return status;
    model->layers = alloc_zeroed(model->alloc, model->config.layers, sizeof(*model->layers));
    if (!model->layers)
        return no_memory(o->error);
    if (!model->config.untied && !find(o, "lm_head.weight").entry)
        model->config.tied = true;
    status = for_each(o, check);
    if (status == MC_OK)
        status = refuse_surplus(o);
    if (status == MC_OK)
        status = take_memory(o);
    if (status == MC_OK)
        status = for_each(o, put);
    if (status == MC_OK && model->config.tied)
        model->head = model->embedding;
    return status;
}

mc_status weights_open(struct mc_model *model, const char *directory, struct mc_error *error)
{
    struct opening o = { .model = model, .directory = directory, .error = error };
    const mc_status status = open_all(&o);

    json_decref(o.shard_of);
    json_decref(o.index);
    return status;
}

void weights_fini(struct mc_model *model)
{
    for (size_t i = 0; i < model->shard_count; i++)
        safetensors_fini(&model->shards[i]);
    alloc_free(model->alloc, model->copies);
    alloc_free(model->alloc, model->vectors);
    alloc_free(model->alloc, model->layers);
    alloc_free(model->alloc, model->shards);
}

mc_status model_path(const char *directory, const char *file, char path[MODEL_PATH_MAX],
                     struct mc_error *error)
{
    const int size = snprintf(path, MODEL_PATH_MAX, "%s/%s", directory, file);

    if (size < 0 || size >= MODEL_PATH_MAX)
        return error_set(error, MC_E_RANGE, "%s: the path is longer than %d bytes", directory,
                         MODEL_PATH_MAX - 1);
    return MC_OK;
}
