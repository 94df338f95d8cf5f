/* tokenizer.c - tokenizer.json put together: what each stage is, and text through all of them. */
#include "infer/tokenizer.h"

#include <jansson.h>

#include <mooncake/infer.h>

#include "base/alloc.h"
#include "base/error.h"
#include "infer/added.h"
#include "infer/bpe.h"
#include "infer/normal.h"
#include "infer/pretoken.h"

enum { JSON_MAX = 256 * 1024 * 1024, TEXT_MAX = 1024 * 1024 * 1024, FRAME_MAX = 64 };

/* What the post-processor puts before or behind every text. */
struct frame_ids {
    uint32_t ids[FRAME_MAX];
    size_t count;
};

struct tokenizer {
    const struct mc_alloc *alloc;
    struct bpe bpe;
    struct added added;
    struct pretoken pretoken;
    bool nfc;
    struct frame_ids before, after;
    uint32_t size;      /* one more than the highest id */
    struct buf bytes;   /* what all tokens stand for, one after another */
    uint32_t *bytes_at; /* owned; [size + 1] where each one's bytes begin */
    bool *special;      /* owned; [size] */
    size_t bytes_max;   /* of one token */
};

/* ------------------------------------------------------------------- normalizer, decoder: one kind */

/* Type of an optional object: NULL if it is missing or null, "" if it has none. */
static const char *type_of(const json_t *json)
{
    const char *type = json_string_value(json_object_get(json, "type"));

    return !json || json_is_null(json) ? NULL : type ? type : "";
}

static mc_status open_normalizer(struct tokenizer *t, const json_t *json, int depth,
                                 const char *name, struct mc_error *error)
{
    const char *type = type_of(json);
    const json_t *list = json_object_get(json, "normalizers");

    if (!type)
        return MC_OK;
    if (strcmp(type, "NFC") == 0) {
        t->nfc = true;
        return MC_OK;
    }
    if (strcmp(type, "Sequence") != 0 || depth > 0)
        return error_set(error, MC_E_UNSUPPORTED,
                         "%s: normalizer \"%.80s\" is not supported, only \"NFC\", none, or one "
                         "\"Sequence\" of \"NFC\"",
                         name, type);
    if (!json_is_array(list))
        return error_set(error, MC_E_FORMAT, "%s: normalizer.normalizers is not an array", name);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const mc_status status =
            open_normalizer(t, json_array_get(list, i), depth + 1, name, error);
        if (status != MC_OK)
            return status;
    }
    return MC_OK;
}

static mc_status check_decoder(const json_t *json, const char *name, struct mc_error *error)
{
    const char *type = type_of(json);

    if (type && strcmp(type, "ByteLevel") == 0)
        return MC_OK;
    return error_set(error, MC_E_UNSUPPORTED,
                     "%s: decoder \"%.80s\" is not supported, only \"ByteLevel\"", name,
                     type ? type : "null");
}

/* ------------------------------------------------------------------------------- post-processor */

static mc_status frame_token(struct frame_ids *frame, const json_t *special, const char *token,
                             const char *name, struct mc_error *error)
{
    const json_t *ids = json_object_get(json_object_get(special, token), "ids");

    if (!json_is_array(ids))
        return error_set(error, MC_E_FORMAT,
                         "%s: post_processor.special_tokens has no ids for \"%.80s\"", name, token);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= ID_MAX)
            return error_set(error, MC_E_RANGE,
                             "%s: post_processor.special_tokens[\"%.80s\"].ids[%zu] is no token id",
                             name, token, i);
        if (frame->count == FRAME_MAX)
            return error_set(error, MC_E_RANGE, "%s: post_processor adds more than %d tokens", name,
                             FRAME_MAX);
        frame->ids[frame->count++] = (uint32_t)json_integer_value(id);
    }
    return MC_OK;
}

/* {"single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}], "special_tokens": ...} */
static mc_status open_template(struct tokenizer *t, const json_t *json, const char *name,
                               struct mc_error *error)
{
    const json_t *single = json_object_get(json, "single");
    const json_t *special = json_object_get(json, "special_tokens");
    struct frame_ids *frame = &t->before;

    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *part = json_array_get(single, i);
        const char *token =
            json_string_value(json_object_get(json_object_get(part, "SpecialToken"), "id"));
        const char *sequence =
            json_string_value(json_object_get(json_object_get(part, "Sequence"), "id"));

        if (token) {
            const mc_status status = frame_token(frame, special, token, name, error);
            if (status != MC_OK)
                return status;
        } else if (sequence && strcmp(sequence, "A") == 0 && frame == &t->before)
            frame = &t->after;
        else
            return error_set(error, MC_E_FORMAT,
                             "%s: post_processor.single[%zu] is neither a SpecialToken nor the "
                             "first Sequence \"A\"",
                             name, i);
    }
    if (frame == &t->before)
        return error_set(error, MC_E_FORMAT,
                         "%s: post_processor.single has no Sequence \"A\": it would drop the text",
                         name);
    return MC_OK;
}

static mc_status open_processor(struct tokenizer *t, const json_t *json, bool nested,
                                bool *template_seen, const char *name, struct mc_error *error)
{
    const char *type = type_of(json);
    const json_t *list = json_object_get(json, "processors");

    if (!type || strcmp(type, "ByteLevel") == 0) /* moves offsets, which nobody here asks for */
        return MC_OK;
    if (strcmp(type, "TemplateProcessing") == 0 && !*template_seen) {
        *template_seen = true;
        return open_template(t, json, name, error);
    }
    if (strcmp(type, "Sequence") != 0 || nested)
        return error_set(error, MC_E_UNSUPPORTED,
                         "%s: post_processor \"%.80s\" is not supported here, only one "
                         "\"TemplateProcessing\", \"ByteLevel\", and one \"Sequence\" of them",
                         name, type);
    if (!json_is_array(list))
        return error_set(error, MC_E_FORMAT, "%s: post_processor.processors is not an array", name);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const mc_status status =
            open_processor(t, json_array_get(list, i), true, template_seen, name, error);
        if (status != MC_OK)
            return status;
    }
    return MC_OK;
}

static mc_status check_frame(const struct tokenizer *t, const struct frame_ids *frame,
                             const char *name, struct mc_error *error)
{
    for (size_t i = 0; i < frame->count; i++)
        if (frame->ids[i] >= t->size)
            return error_set(error, MC_E_FORMAT,
                             "%s: post_processor adds token %u, but the highest id is %u", name,
                             frame->ids[i], t->size - 1);
    return MC_OK;
}

/* ----------------------------------------------------------------------------------------- open */

/* Added tokens by id, as they are looked for in text: those of `normalized` in their NFC form. */
static void index_patterns(const struct tokenizer *t, const struct matcher *matcher,
                           const struct pattern **by_id)
{
    for (size_t i = 0; i < matcher->count; i++)
        by_id[t->added.tokens[matcher->patterns[i].token].id] = &matcher->patterns[i];
}

/* Special is what the file lists so, by its content: where NFC changes that, the package no longer
 * knows the token as special when it decodes, and neither do we. */
static bool is_special(const struct tokenizer *t, const struct pattern *pattern)
{
    const struct added_token *token = &t->added.tokens[pattern->token];

    return token->special && token->size == pattern->size &&
           memcmp(token->content, pattern->text, token->size) == 0;
}

/* The bytes of token `id`, from its pattern if it is an added one, or else from its word. */
static mc_status collect_token(struct tokenizer *t, uint32_t id, const struct pattern *pattern,
                               const char *name, struct mc_error *error)
{
    const struct word *word = id < t->bpe.count ? &t->bpe.words[id] : NULL;

    if (pattern) {
        bpe_unspell(pattern->text, pattern->size, &t->bytes);
        t->special[id] = is_special(t, pattern);
    } else if (word && word->size != ID_NONE)
        bpe_unspell(t->bpe.text + word->offset, word->size, &t->bytes);
    else
        return error_set(error, MC_E_FORMAT,
                         "%s: no token has id %u: neither in model.vocab nor in added_tokens", name,
                         id);
    if (t->bytes.failed || t->bytes.size >= UINT32_MAX)
        return error_set(error, MC_E_NOMEM, "%s: no memory for the tokens", name);
    t->bytes_at[id + 1] = (uint32_t)t->bytes.size;
    if (t->bytes_at[id + 1] - t->bytes_at[id] > t->bytes_max)
        t->bytes_max = t->bytes_at[id + 1] - t->bytes_at[id];
    return MC_OK;
}

static mc_status collect_bytes(struct tokenizer *t, const char *name, struct mc_error *error)
{
    const struct pattern **by_id = alloc_zeroed(t->alloc, t->size, sizeof(struct pattern *));
    mc_status status = MC_OK;

    t->bytes_at = alloc_zeroed(t->alloc, (size_t)t->size + 1, sizeof(*t->bytes_at));
    t->special = alloc_zeroed(t->alloc, t->size, sizeof(*t->special));
    if (by_id && t->bytes_at && t->special) {
        index_patterns(t, &t->added.raw, by_id);
        index_patterns(t, &t->added.normal, by_id);
        for (uint32_t id = 0; id < t->size && status == MC_OK; id++)
            status = collect_token(t, id, by_id[id], name, error);
    } else
        status = error_set(error, MC_E_NOMEM, "%s: no memory for the tokens", name);
    alloc_free(t->alloc, by_id);
    return status;
}

static mc_status open_parts(struct tokenizer *t, const json_t *json, const char *name,
                            struct mc_error *error)
{
    bool template_seen = false;

    if (!json_is_object(json))
        return error_set(error, MC_E_FORMAT, "%s: not a JSON object", name);
    mc_status status = bpe_open(&t->bpe, json_object_get(json, "model"), name, t->alloc, error);
    if (status == MC_OK)
        status = open_normalizer(t, json_object_get(json, "normalizer"), 0, name, error);
    if (status == MC_OK)
        status = added_open(&t->added, json_object_get(json, "added_tokens"), &t->bpe, t->nfc, name,
                            t->alloc, error);
    if (status == MC_OK)
        status = pretoken_open(&t->pretoken, json_object_get(json, "pre_tokenizer"), name, t->alloc,
                               error);
    if (status == MC_OK)
        status = check_decoder(json_object_get(json, "decoder"), name, error);
    if (status == MC_OK)
        status = open_processor(t, json_object_get(json, "post_processor"), false, &template_seen,
                                name, error);
    if (status != MC_OK)
        return status;

    t->size = t->bpe.count > t->added.id_end ? t->bpe.count : t->added.id_end;
    status = check_frame(t, &t->before, name, error);
    if (status == MC_OK)
        status = check_frame(t, &t->after, name, error);
    return status == MC_OK ? collect_bytes(t, name, error) : status;
}

static mc_status parse(const char *json, size_t size, const char *name, json_t **root_p,
                       struct mc_error *error)
{
    json_error_t problem;

    if (size > JSON_MAX)
        return error_set(error, MC_E_RANGE, "%s: %zu bytes, more than %d", name, size, JSON_MAX);
    *root_p = json_loadb(json, size, JSON_REJECT_DUPLICATES, &problem);
    if (*root_p)
        return MC_OK;
    if (json_error_code(&problem) == json_error_out_of_memory)
        return error_set(error, MC_E_NOMEM, "%s: no memory to read it", name);
    return error_set(error, MC_E_FORMAT, "%s: line %d: %s", name, problem.line, problem.text);
}

mc_status tokenizer_open(const char *json, size_t size, const char *name,
                         const struct mc_alloc *alloc, tokenizer **tokenizer_p,
                         struct mc_error *error)
{
    json_t *root;
    mc_status status = parse(json, size, name, &root, error);

    if (status != MC_OK)
        return status;
    struct tokenizer *t = alloc_zeroed(alloc, 1, sizeof(*t));
    if (!t) {
        json_decref(root);
        return error_set(error, MC_E_NOMEM, "%s: no memory for the tokenizer", name);
    }
    t->alloc = alloc;
    t->bytes = BUF_INIT(alloc);
    status = open_parts(t, root, name, error);
    json_decref(root);
    if (status == MC_OK)
        *tokenizer_p = t;
    else
        tokenizer_close(t);
    return status;
}

void tokenizer_close(tokenizer *t)
{
    if (!t)
        return;
    const struct mc_alloc *alloc = t->alloc;
    bpe_close(&t->bpe);
    added_close(&t->added);
    pretoken_close(&t->pretoken);
    buf_fini(&t->bytes);
    alloc_free(alloc, t->bytes_at);
    alloc_free(alloc, t->special);
    alloc_free(alloc, t);
}

uint32_t tokenizer_size(const tokenizer *t)
{
    return t->size;
}

bool tokenizer_find(const tokenizer *t, const char *token, uint32_t *id_p)
{
    const size_t size = strlen(token);
    const struct added_token *added = added_find(&t->added, token, size);
    const uint32_t id = added ? added->id : bpe_find(&t->bpe, token, size);

    if (id == ID_NONE)
        return false;
    *id_p = id;
    return true;
}

/* --------------------------------------------------------------------------------------- encode */

/* One text on its way. */
struct encoding {
    const struct tokenizer *tokenizer;
    bool no_special;
    struct splitter splitter;
    struct bpe_scratch scratch;
    struct buf normal; /* the part in hand, normalised */
    struct tokens *out;
    struct mc_error *error; /* may be NULL */
};

static mc_status no_memory(struct encoding *e)
{
    return error_set(e->error, MC_E_NOMEM, "no memory to encode the text");
}

static mc_status encode_piece(void *user, const char *text, size_t size)
{
    struct encoding *e = user;
    const mc_status status = bpe_encode(&e->tokenizer->bpe, text, size, &e->scratch, e->out);

    if (status == MC_E_RANGE)
        return error_set(e->error, status, "a piece of %zu bytes is too long to encode", size);
    return status == MC_OK ? MC_OK : no_memory(e);
}

static mc_status add_token(struct encoding *e, const struct added_token *token)
{
    return tokens_add(e->out, &token->id, 1) == MC_OK ? MC_OK : no_memory(e);
}

static mc_status add_frame(struct encoding *e, const struct frame_ids *frame)
{
    return tokens_add(e->out, frame->ids, frame->count) == MC_OK ? MC_OK : no_memory(e);
}

/* Normalised text, or an added token that was found in it. */
static mc_status encode_normal(void *user, const struct added_token *token, const char *text,
                               size_t size)
{
    struct encoding *e = user;

    return token ? add_token(e, token) : pretoken_split(&e->splitter, text, size);
}

/* Raw text, or an added token that was found in it. */
static mc_status encode_raw(void *user, const struct added_token *token, const char *text,
                            size_t size)
{
    struct encoding *e = user;
    const struct added *added = &e->tokenizer->added;

    if (token)
        return add_token(e, token);
    if (e->tokenizer->nfc) {
        buf_truncate(&e->normal, 0);
        text_nfc(text, size, &e->normal);
        if (e->normal.failed)
            return no_memory(e);
        text = e->normal.data;
        size = e->normal.size;
    }
    return added_cut(added, &added->normal, text, size, e->no_special, encode_normal, e);
}

/* `text` is well-formed. */
static mc_status encode_good(struct encoding *e, const char *text, size_t size)
{
    const struct added *added = &e->tokenizer->added;

    mc_status status =
        splitter_open(&e->splitter, &e->tokenizer->pretoken, size, encode_piece, e, e->error);
    if (status == MC_OK)
        status = added_cut(added, &added->raw, text, size, e->no_special, encode_raw, e);
    splitter_close(&e->splitter);
    return status;
}

static mc_status encode_any(struct encoding *e, const char *text, size_t size)
{
    struct buf repaired = BUF_INIT(e->tokenizer->alloc);
    mc_status status;

    if (text_is_utf8(text, size))
        return encode_good(e, text, size);
    text_repair(text, size, &repaired);
    status = repaired.failed ? no_memory(e) : encode_good(e, repaired.data, repaired.size);
    buf_fini(&repaired);
    return status;
}

mc_status tokenizer_encode(const tokenizer *t, const char *text, size_t size, unsigned flags,
                           struct tokens *out, struct mc_error *error)
{
    const struct mc_alloc *alloc = t->alloc;
    struct encoding e = { .tokenizer = t,
                          .no_special = (flags & MC_ENCODE_NO_SPECIAL) != 0,
                          .scratch = { .alloc = alloc },
                          .normal = BUF_INIT(alloc),
                          .out = out,
                          .error = error };
    const bool bare = (flags & MC_ENCODE_BARE) != 0;
    const size_t before = out->count;
    mc_status status = MC_OK;

    if (size > TEXT_MAX)
        return error_set(error, MC_E_RANGE, "a text of %zu bytes; at most %d can be encoded", size,
                         TEXT_MAX);
    if (!bare)
        status = add_frame(&e, &t->before);
    if (status == MC_OK && size > 0)
        status = encode_any(&e, text, size);
    if (status == MC_OK && !bare)
        status = add_frame(&e, &t->after);
    if (status != MC_OK)
        out->count = before;
    bpe_scratch_fini(&e.scratch);
    buf_fini(&e.normal);
    return status;
}

/* --------------------------------------------------------------------------------------- decode */

size_t tokenizer_bytes_max(const tokenizer *t)
{
    return t->bytes_max;
}

mc_status tokenizer_bytes(const tokenizer *t, uint32_t id, bool keep_special, const char **bytes_p,
                          size_t *size_p)
{
    if (id >= t->size)
        return MC_E_RANGE;
    const uint32_t begin = t->bytes_at[id];
    *bytes_p = t->bytes.data ? t->bytes.data + begin : "";
    *size_p = t->special[id] && !keep_special ? 0 : t->bytes_at[id + 1] - begin;
    return MC_OK;
}

mc_status tokenizer_decode(const tokenizer *t, const uint32_t *ids, size_t count, bool keep_special,
                           struct buf *out)
{
    struct buf raw = BUF_INIT(t->alloc);
    mc_status status = MC_OK;

    for (size_t i = 0; i < count && status == MC_OK; i++) {
        const char *bytes;
        size_t size;
        status = tokenizer_bytes(t, ids[i], keep_special, &bytes, &size);
        if (status == MC_OK)
            buf_add(&raw, bytes, size);
    }
    if (status == MC_OK && !raw.failed)
        text_repair(raw.data, raw.size, out);
    if (status == MC_OK && (raw.failed || out->failed))
        status = MC_E_NOMEM;
    buf_fini(&raw);
    return status;
}
