/*
 * json.h - JSON files read field by field, with errors that name the file and the field.
 *
 * Life:    json_read -> fields_of -> field_* -> json_decref
 * Threads: one. Memory: values belong to the document; jansson allocates them.
 * Errors:  a reader keeps its first failure: later calls do nothing, so that a caller asks for every
 *          field and looks at `status` once. Outputs keep their value where a field is absent or
 *          null, which is how defaults are given.
 */
#ifndef INFER_JSON_H
#define INFER_JSON_H

#include <stdbool.h>

#include <jansson.h>

#include <mooncake/status.h>

/** Why jansson gave no value: error_set() with MC_E_NOMEM or MC_E_FORMAT, and the place. */
mc_status json_failed(const json_error_t *reason, const char *file, struct mc_error *error);

/**
 * Parse one object; keys that come twice are refused. Numbers become reals, so that an integer
 * beyond 64 bits (model_max_length is often 10^30) is read and not an error.
 * *object_p is owned: json_decref(). Returns MC_OK, MC_E_FORMAT or MC_E_NOMEM.
 */
mc_status json_read(const char *text, size_t size, const char *file, json_t **object_p,
                    struct mc_error *error);

/** "a string", "an object": what a value is, for errors. NULL: "nothing". */
const char *json_kind(const json_t *value);

struct fields {
    const json_t *object;
    const char *file;   /* before every error text */
    const char *prefix; /* before every field's name: "" or "rope_scaling." */
    struct mc_error *error;
    mc_status status; /* of the first failure; MC_OK so far */
};

/** The value of a field, or NULL where it is absent or null. */
json_t *field(const struct fields *f, const char *name);

/** A number in [min, max] if the field is there. */
void field_number(struct fields *f, const char *name, double min, double max, double *out);

/** A whole number in [min, max] if the field is there. */
void field_count(struct fields *f, const char *name, uint32_t min, uint32_t max, uint32_t *out);

/** true or false if the field is there. */
void field_bool(struct fields *f, const char *name, bool *out);

/** A string, borrowed from the document, if the field is there. */
void field_text(struct fields *f, const char *name, const char **out);

/** Fail, MC_E_FORMAT, if the field is absent or null. */
void field_required(struct fields *f, const char *name);

/** Record a failure about a field: "file: prefix+name: ..." unless one is recorded already. */
void field_fail(struct fields *f, mc_status status, const char *name, const char *format, ...)
    MC_PRINTF(4, 5);

#endif /* INFER_JSON_H */
