/*
 * api_reader.h - one field of a JSON object after another; for api*.c alone.
 *
 * The first failure stays and every later read is a no-op, so that a caller reads all fields and looks at
 * `failed` once. A field that is absent or null leaves what there was.
 */
#ifndef GATEWAY_API_READER_H
#define GATEWAY_API_READER_H

#include "gateway/api.h"

#define API_INVALID "invalid_request_error"

struct api_reader {
    const json_t *object;
    struct api_error *error;
    bool failed;
};

/** A body that is one JSON object, to be given back with json_decref(). False: *error_p says why not. */
bool api_parse(const char *body, size_t size, json_t **document_p, struct api_error *error_p);

/** NULL: absent, null, or something failed before. */
json_t *api_get(const struct api_reader *r, const char *name);

/** Fail: 400, `param` name; the text begins with the name. */
void api_refuse(struct api_reader *r, const char *code, const char *name, const char *format, ...)
    MC_PRINTF(4, 5);

/** Fail: another type was expected. what: "a string". */
void api_expect(struct api_reader *r, const char *name, const char *what, const json_t *found);

void api_read_bool(struct api_reader *r, const char *name, bool *out);
void api_read_count(struct api_reader *r, const char *name, uint32_t min, uint32_t max,
                    uint32_t *out);
void api_read_real(struct api_reader *r, const char *name, double min, double max, float *out);

/** The token ids, below vocab_size, of a list. *ids_p is owned by the caller; left alone when `list` is no
 * list or empty. */
void api_read_id_list(struct api_reader *r, const char *name, const json_t *list,
                      uint32_t vocab_size, const struct mc_alloc *alloc, uint32_t **ids_p,
                      size_t *count_p);

/** "model": absent, or the one that is served; else 404. */
void api_read_model(struct api_reader *r, const struct api_defaults *defaults);

/** What this release cannot do is refused by its name (api_refuse.c). */
void api_refuse_by_name(struct api_reader *r);

/** api_no_memory() as the reader's failure. */
void api_reader_no_memory(struct api_reader *r);

#endif /* GATEWAY_API_READER_H */
