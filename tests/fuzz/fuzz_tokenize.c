/*
 * fuzz_tokenize.c - any bytes as the body of /tokenize (first byte even) or /detokenize: refused with a status
 * and a text, or answered with JSON; and text made of tokens is UTF-8.
 */
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/api_text.h"
#include "os/sysalloc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The model of the tests, which lies beside this file's folder. */
static mc_model *open_model(void)
{
    const char *end = strstr(__FILE__, "fuzz/fuzz_tokenize.c");
    struct mc_error error = { 0 };
    mc_model *model = NULL;
    char path[4096];

    snprintf(path, sizeof(path), "%.*sdata/models/plain", end ? (int)(end - __FILE__) : 0,
             __FILE__);
    if (mc_model_open(path, NULL, &model, &error) != MC_OK) {
        fprintf(stderr, "%s\n", error.text);
        abort();
    }
    return model;
}

static void check(const struct buf *out, bool detokenized)
{
    json_t *answer = json_loadb(out->data, out->size, 0, NULL);
    const json_t *tokens = json_object_get(answer, "tokens");

    if (out->failed)
        abort();
    if (detokenized ? !json_is_string(json_object_get(answer, "prompt"))
                    : !json_is_array(tokens) || (size_t)json_integer_value(json_object_get(
                                                    answer, "count")) != json_array_size(tokens))
        abort();
    json_decref(answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static mc_model *model; /* for the process's life */
    struct mc_model_info info;

    if (!model)
        model = open_model();
    if (size == 0)
        return 0;
    mc_model_info(model, &info);
    const struct api_defaults defaults = { .vocab_size = info.vocab_size, .model = "m" };
    const struct api_text_options options = { &defaults, model, os_alloc(), info.context_max };
    const bool back = data[0] % 2;
    struct buf out = BUF_INIT(os_alloc());
    struct api_error e = { 0 };
    if ((back ? api_detokenize : api_tokenize)(&options, (const char *)data + 1, size - 1, &out,
                                               &e))
        check(&out, back);
    else if (e.status < 400 || e.status > 599 || e.text[0] == '\0' || !e.type)
        abort();
    buf_fini(&out);
    return 0;
}
