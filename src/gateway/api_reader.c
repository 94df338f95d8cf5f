/* api_reader.c - JSON bodies, and values of their fields. */
#include "gateway/api_reader.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

bool api_fail(struct api_error *error, unsigned status, const char *type, const char *code,
              const char *param, const char *format, ...)
{
    va_list args;

    *error = (struct api_error){ .status = status, .type = type, .code = code };
    snprintf(error->param, sizeof(error->param), "%s", param ? param : "");
    va_start(args, format);
    vsnprintf(error->text, sizeof(error->text), format, args);
    va_end(args);
    return false;
}

bool api_no_memory(struct api_error *error)
{
    api_fail(error, 503, "service_unavailable_error", "out_of_memory", NULL,
             "out of memory for the request: try again later");
    error->retry_ns = UINT64_C(1000000000);
    return false;
}

void api_reader_no_memory(struct api_reader *r)
{
    if (!r->failed)
        api_no_memory(r->error);
    r->failed = true;
}

/* ---------------------------------------------------------------------------------- document */

/* Before it is parsed, so that a parser's stack is no matter of what a client sends. Brackets in strings do
 * not count; whether the rest is JSON is the parser's question. */
static bool is_deep(const char *body, size_t size)
{
    unsigned depth = 0;
    bool quoted = false;

    for (size_t i = 0; i < size; i++) {
        const char c = body[i];
        if (quoted && c == '\\')
            i++;
        else if (c == '"')
            quoted = !quoted;
        else if (!quoted && (c == '[' || c == '{') && ++depth > API_DEPTH_MAX)
            return true;
        else if (!quoted && (c == ']' || c == '}') && depth > 0)
            depth--;
    }
    return false;
}

static const char *kind_of(const json_t *value)
{
    static const char *const kinds[] = {
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "an array", [JSON_STRING] = "a string",
        [JSON_INTEGER] = "a number", [JSON_REAL] = "a number",  [JSON_TRUE] = "true",
        [JSON_FALSE] = "false",      [JSON_NULL] = "null",
    };

    return kinds[json_typeof(value)];
}

bool api_parse(const char *body, size_t size, json_t **document_p, struct api_error *error)
{
    json_error_t reason;

    if (is_deep(body, size))
        return api_fail(error, 400, API_INVALID, "invalid_json", NULL,
                        "the body: arrays and objects more than %d deep", API_DEPTH_MAX);
    json_t *document = json_loadb(body, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &reason);
    if (!document && json_error_code(&reason) == json_error_out_of_memory)
        return api_no_memory(error);
    if (!document)
        return api_fail(error, 400, API_INVALID, "invalid_json", NULL,
                        "the body: line %d, column %d: not valid JSON: %.160s", reason.line,
                        reason.column, reason.text);
    if (!json_is_object(document)) {
        api_fail(error, 400, API_INVALID, "invalid_json", NULL,
                 "the body: expected an object, found %s", kind_of(document));
        json_decref(document);
        return false;
    }
    *document_p = document;
    return true;
}

/* ------------------------------------------------------------------------------------ values */

json_t *api_get(const struct api_reader *r, const char *name)
{
    json_t *value = r->failed ? NULL : json_object_get(r->object, name);

    return json_is_null(value) ? NULL : value;
}

void api_refuse(struct api_reader *r, const char *code, const char *name, const char *format, ...)
{
    char text[300];
    va_list args;

    if (r->failed)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    r->failed = true;
    api_fail(r->error, 400, API_INVALID, code, name, "%s: %s", name, text);
}

void api_expect(struct api_reader *r, const char *name, const char *what, const json_t *found)
{
    api_refuse(r, "invalid_type", name, "expected %s, found %s", what, kind_of(found));
}

void api_read_bool(struct api_reader *r, const char *name, bool *out)
{
    const json_t *value = api_get(r, name);

    if (value && !json_is_boolean(value))
        api_expect(r, name, "true or false", value);
    else if (value)
        *out = json_is_true(value);
}

void api_read_count(struct api_reader *r, const char *name, uint32_t min, uint32_t max,
                    uint32_t *out)
{
    const json_t *value = api_get(r, name);

    if (!value)
        return;
    if (!json_is_integer(value)) {
        api_expect(r, name, "a whole number", value);
        return;
    }
    const json_int_t number = json_integer_value(value);
    if (number < min || number > max)
        api_refuse(r, "out_of_range", name, "%" JSON_INTEGER_FORMAT " is not within %u to %u",
                   number, min, max);
    else
        *out = (uint32_t)number;
}

void api_read_real(struct api_reader *r, const char *name, double min, double max, float *out)
{
    const json_t *value = api_get(r, name);

    if (!value)
        return;
    if (!json_is_number(value)) {
        api_expect(r, name, "a number", value);
        return;
    }
    const double number = json_number_value(value);
    if (!(number >= min && number <= max))
        api_refuse(r, "out_of_range", name, "%.9g is not within %g to %g", number, min, max);
    else
        *out = (float)number;
}

static bool read_id(struct api_reader *r, const char *name, size_t index, const json_t *item,
                    uint32_t vocab_size, uint32_t *id_p)
{
    if (!json_is_integer(item)) {
        api_refuse(r, "invalid_type", name,
                   "item %zu is no whole number: a list of token ids has nothing else", index);
        return false;
    }
    const json_int_t id = json_integer_value(item);
    if (id < 0 || id >= (json_int_t)vocab_size) {
        api_refuse(r, "out_of_range", name,
                   "item %zu, %" JSON_INTEGER_FORMAT
                   ", is no token id of this model: they are below %u",
                   index, id, vocab_size);
        return false;
    }
    *id_p = (uint32_t)id;
    return true;
}

void api_read_id_list(struct api_reader *r, const char *name, const json_t *list,
                      uint32_t vocab_size, const struct mc_alloc *alloc, uint32_t **ids_p,
                      size_t *count_p)
{
    const size_t count = json_array_size(list);

    if (r->failed || count == 0)
        return;
    uint32_t *ids = alloc_zeroed(alloc, count, sizeof(*ids));
    if (!ids) {
        api_reader_no_memory(r);
        return;
    }
    for (size_t i = 0; i < count; i++)
        if (!read_id(r, name, i, json_array_get(list, i), vocab_size, &ids[i])) {
            alloc_free(alloc, ids);
            return;
        }
    *ids_p = ids;
    *count_p = count;
}

void api_read_model(struct api_reader *r, const struct api_defaults *defaults)
{
    const json_t *value = api_get(r, "model");

    if (!value) /* one model is served: who names none means that one */
        return;
    if (!json_is_string(value))
        api_expect(r, "model", "a string", value);
    else if (strcmp(json_string_value(value), defaults->model) != 0) {
        r->failed = true;
        api_fail(r->error, 404, "not_found_error", "model_not_found", "model",
                 "model: \"%.100s\" is not served here; \"%.200s\" is", json_string_value(value),
                 defaults->model);
    }
}
