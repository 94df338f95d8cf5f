/* json.c - JSON read field by field; the first failure sticks and names file and field. */
#include "infer/json.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/error.h"

mc_status json_failed(const json_error_t *reason, const char *file, struct mc_error *error)
{
    const enum json_error_code code = json_error_code(reason);

    /* jansson leaves the text empty at most of its failed allocations. */
    if (code == json_error_out_of_memory || reason->text[0] == '\0')
        return error_set(error, MC_E_NOMEM, "%s: out of memory while reading JSON", file);
    return error_set(error, MC_E_FORMAT, "%s: line %d, column %d: not valid JSON: %s", file,
                     reason->line, reason->column, reason->text);
}

mc_status json_read(const char *text, size_t size, const char *file, json_t **object_p,
                    struct mc_error *error)
{
    json_error_t reason;
    json_t *value =
        json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &reason);

    if (!value)
        return json_failed(&reason, file, error);
    if (!json_is_object(value)) {
        const char *kind = json_kind(value);
        json_decref(value);
        return error_set(error, MC_E_FORMAT, "%s: expected an object, found %s", file, kind);
    }
    *object_p = value;
    return MC_OK;
}

const char *json_kind(const json_t *value)
{
    if (!value)
        return "nothing";
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
        return "true";
    case JSON_FALSE:
        return "false";
    case JSON_NULL:
        return "null";
    }
    return "something else";
}

void field_fail(struct fields *f, mc_status status, const char *name, const char *format, ...)
{
    char what[400];
    va_list args;

    if (f->status != MC_OK)
        return;
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    f->status = error_set(f->error, status, "%s: %s%s: %s", f->file, f->prefix, name, what);
}

json_t *field(const struct fields *f, const char *name)
{
    json_t *value = json_object_get(f->object, name);

    return json_is_null(value) ? NULL : value;
}

void field_required(struct fields *f, const char *name)
{
    if (!field(f, name))
        field_fail(f, MC_E_FORMAT, name, "missing");
}

void field_number(struct fields *f, const char *name, double min, double max, double *out)
{
    const json_t *value = field(f, name);

    if (!value)
        return;
    if (!json_is_number(value)) {
        field_fail(f, MC_E_FORMAT, name, "expected a number, found %s", json_kind(value));
        return;
    }
    const double number = json_number_value(value);
    if (!(number >= min && number <= max))
        field_fail(f, MC_E_RANGE, name, "%.15g is not within %.15g to %.15g", number, min, max);
    else if (f->status == MC_OK)
        *out = number;
}

void field_count(struct fields *f, const char *name, uint32_t min, uint32_t max, uint32_t *out)
{
    double number = *out;

    field_number(f, name, min, max, &number);
    if (number != floor(number))
        field_fail(f, MC_E_FORMAT, name, "%.15g is not a whole number", number);
    else
        *out = (uint32_t)number;
}

void field_bool(struct fields *f, const char *name, bool *out)
{
    const json_t *value = field(f, name);

    if (value && !json_is_boolean(value))
        field_fail(f, MC_E_FORMAT, name, "expected true or false, found %s", json_kind(value));
    else if (value && f->status == MC_OK)
        *out = json_is_true(value);
}

void field_text(struct fields *f, const char *name, const char **out)
{
    const json_t *value = field(f, name);

    if (value && !json_is_string(value))
        field_fail(f, MC_E_FORMAT, name, "expected a string, found %s", json_kind(value));
    else if (value && f->status == MC_OK)
        *out = json_string_value(value);
}
