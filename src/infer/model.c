/* model.c - a model directory opened file by file: configuration, weights, tokenizer, chat template. */
#define _XOPEN_SOURCE 700 /* realpath */
#include "infer/model.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/error.h"
#include "infer/json.h"
#include "infer/weights.h"
#include "os/sysalloc.h"

#define TOKENIZER_CONFIG_FILE "tokenizer_config.json"
#define TEMPLATE_FILE "chat_template.jinja"

/* Far above what models have: Qwen's and Llama's tokenizer.json are 7 and 17 MB. */
enum { SMALL_FILE_MAX = 16 << 20, TOKENIZER_FILE_MAX = 256 << 20 };

/** A file's text, owned: alloc_free(). data is NULL where an optional file is not there. */
struct text {
    char *data;
    size_t size;
};

static mc_status read_optional(const struct mc_alloc *alloc, const char *directory,
                               const char *file, size_t size_max, struct text *text_p,
                               struct mc_error *error)
{
    struct mc_error reason;
    char path[MODEL_PATH_MAX];
    mc_status status = model_path(directory, file, path, error);

    if (status != MC_OK)
        return status;
    status = os_file_read(path, size_max, alloc, &text_p->data, &text_p->size, &reason);
    if (status == MC_E_NOT_FOUND)
        return MC_OK;
    return status == MC_OK ? status : error_set(error, status, "%s", reason.text);
}

static mc_status read_config(struct mc_model *model, const char *directory, struct mc_error *error)
{
    char path[MODEL_PATH_MAX];
    struct text text = { 0 };
    mc_status status = model_path(directory, "config.json", path, error);

    if (status == MC_OK)
        status = os_file_read(path, SMALL_FILE_MAX, model->alloc, &text.data, &text.size, error);
    if (status != MC_OK)
        return status;
    status = config_parse(text.data, text.size, "config.json", &model->config, error);
    alloc_free(model->alloc, text.data);
    return status;
}

static mc_status read_generation(struct mc_model *model, const char *directory,
                                 struct mc_error *error)
{
    static const char file[] = "generation_config.json";
    struct text text = { 0 };
    mc_status status = read_optional(model->alloc, directory, file, SMALL_FILE_MAX, &text, error);

    if (text.data)
        status = config_parse_generation(text.data, text.size, file, &model->config, error);
    alloc_free(model->alloc, text.data);
    return status;
}

static mc_status read_tokenizer(struct mc_model *model, const char *directory,
                                struct mc_error *error)
{
    static const char file[] = "tokenizer.json";
    struct text text = { 0 };
    mc_status status =
        read_optional(model->alloc, directory, file, TOKENIZER_FILE_MAX, &text, error);

    if (text.data)
        status = tokenizer_open(text.data, text.size, file, model->alloc, &model->tokenizer, error);
    alloc_free(model->alloc, text.data);
    if (status == MC_OK && model->tokenizer &&
        tokenizer_size(model->tokenizer) > model->config.vocab_size)
        return error_set(
            error, MC_E_FORMAT,
            "%s: ids up to %u, but config.json: vocab_size is %u; are the files of one "
            "model?",
            file, tokenizer_size(model->tokenizer) - 1, model->config.vocab_size);
    return status;
}

/* A string, or a list of named templates, of which "default" is the one for chat. */
static void read_template_field(struct fields *f, const char **template_p)
{
    const json_t *value = field(f, "chat_template"), *entry;
    size_t i;

    if (!json_is_array(value)) {
        field_text(f, "chat_template", template_p);
        return;
    }
    json_array_foreach(value, i, entry)
    {
        const char *name = json_string_value(json_object_get(entry, "name"));
        const char *template = json_string_value(json_object_get(entry, "template"));
        if (!name || !template)
            field_fail(f, MC_E_FORMAT, "chat_template", "entry %zu: expected a name and a template",
                       i);
        else if (!strcmp(name, "default"))
            *template_p = template;
    }
}

/* A string, or an added token spelt as an object. */
static void read_bos_field(struct fields *f, const char **bos_p)
{
    const json_t *value = field(f, "bos_token");
    const json_t *content = json_is_object(value) ? json_object_get(value, "content") : value;

    if (value && !json_is_string(content))
        field_fail(f, MC_E_FORMAT, "bos_token", "expected a string or a token with a content");
    else if (value)
        *bos_p = json_string_value(content);
}

/* `jinja` is the text of chat_template.jinja, which goes before the field, or NULL. */
static mc_status init_chat(struct mc_model *model, const struct text *config, const char *jinja,
                           struct mc_error *error)
{
    const char *template = NULL, *bos = NULL;
    json_t *object = NULL;
    mc_status status = MC_OK;

    if (config->data)
        status = json_read(config->data, config->size, TOKENIZER_CONFIG_FILE, &object, error);
    if (status != MC_OK)
        return status;
    struct fields f = {
        .object = object, .file = TOKENIZER_CONFIG_FILE, .prefix = "", .error = error
    };
    read_template_field(&f, &template);
    read_bos_field(&f, &bos);
    status = f.status;
    if (status == MC_OK) {
        status = chat_init(&model->chat, jinja ? jinja : template, bos, model->alloc);
        if (status != MC_OK)
            error_set(error, status, "out of memory for the chat template");
    }
    json_decref(object);
    return status;
}

static mc_status read_chat(struct mc_model *model, const char *directory, struct mc_error *error)
{
    struct text config = { 0 }, jinja = { 0 };
    mc_status status = read_optional(model->alloc, directory, TOKENIZER_CONFIG_FILE, SMALL_FILE_MAX,
                                     &config, error);

    if (status == MC_OK)
        status =
            read_optional(model->alloc, directory, TEMPLATE_FILE, SMALL_FILE_MAX, &jinja, error);
    if (status == MC_OK && jinja.data && strlen(jinja.data) != jinja.size)
        status = error_set(error, MC_E_FORMAT, TEMPLATE_FILE ": byte %zu is NUL; not a text file",
                           strlen(jinja.data));
    if (status == MC_OK)
        status = init_chat(model, &config, jinja.data, error);
    alloc_free(model->alloc, jinja.data);
    alloc_free(model->alloc, config.data);
    return status;
}

/* "models/tiny/" is called "tiny"; "." has the name of the directory that it is. */
static mc_status read_name(struct mc_model *model, const char *directory, struct mc_error *error)
{
    char real[MODEL_PATH_MAX];
    size_t end = strlen(directory);

    while (end > 1 && directory[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin > 0 && directory[begin - 1] != '/')
        begin--;
    const char *name = directory + begin;
    size_t size = end - begin;
    if ((size <= 2 && strspn(name, ".") >= size) && realpath(directory, real)) {
        name = strrchr(real, '/') + 1;
        size = strlen(name);
    }
    model->name = alloc_text(model->alloc, name, size);
    return model->name ? MC_OK : error_set(error, MC_E_NOMEM, "out of memory");
}

static mc_status open_all(struct mc_model *model, const char *directory, bool weights,
                          struct mc_error *error)
{
    if (!os_is_directory(directory))
        return error_set(error, MC_E_NOT_FOUND,
                         "%s: no such directory; a model is a directory with config.json, "
                         "model.safetensors and tokenizer.json",
                         directory);
    mc_status status = read_name(model, directory, error);
    if (status == MC_OK)
        status = read_config(model, directory, error);
    if (status == MC_OK)
        status = read_generation(model, directory, error);
    if (status == MC_OK && weights)
        status = weights_open(model, directory, error);
    if (status == MC_OK)
        status = read_tokenizer(model, directory, error);
    if (status == MC_OK)
        status = read_chat(model, directory, error);
    return status;
}

mc_status mc_model_open(const char *directory, const struct mc_model_options *options,
                        mc_model **model_p, struct mc_error *error)
{
    const struct mc_alloc *alloc = options && options->alloc ? options->alloc : os_alloc();
    mc_model *model = alloc_zeroed(alloc, 1, sizeof(*model));

    if (!model)
        return error_set(error, MC_E_NOMEM, "out of memory");
    model->alloc = alloc;
    const mc_status status = open_all(model, directory, !(options && options->no_weights), error);
    if (status != MC_OK)
        mc_model_close(model);
    else
        *model_p = model;
    return status;
}

void mc_model_info(const mc_model *model, struct mc_model_info *info_p)
{
    const struct model_config *c = &model->config;

    *info_p = (struct mc_model_info){
        .name = model->name,
        .architecture = config_architecture_name(c->architecture),
        .layers = c->layers,
        .hidden = c->hidden,
        .heads = c->heads,
        .kv_heads = c->kv_heads,
        .head_dim = c->head_dim,
        .vocab_size = c->vocab_size,
        .context_max = c->context_max,
        .dtype = model->dtype,
        .parameters = model->parameters,
        .weight_bytes = model->weight_bytes,
        .eos = c->eos,
        .eos_count = c->eos_count,
        .has_tokenizer = model->tokenizer != NULL,
        .has_chat_template = model->chat.family != CHAT_NONE && model->chat.family != CHAT_OTHER,
        .temperature = c->temperature,
        .top_p = c->top_p,
        .top_k = c->top_k,
    };
}

void mc_model_close(mc_model *model)
{
    if (!model)
        return;

    const struct mc_alloc *alloc = model->alloc;
    chat_fini(&model->chat, alloc);
    tokenizer_close(model->tokenizer);
    weights_fini(model);
    alloc_free(alloc, model->name);
    alloc_free(alloc, model);
}
