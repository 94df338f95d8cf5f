/* added.c - find added tokens in text, with the strip flags as the `tokenizers` package reads them. */
#include "infer/added.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/utf8.h"
#include "infer/normal.h"

enum { ADDED_MAX = 64 * 1024, CONTENT_MAX = 1024 };

/* ------------------------------------------------------------------------------------- matcher */

/* By bytes; what is a prefix of the other comes first. */
static int compare_text(const char *a, size_t a_size, const char *b, size_t b_size)
{
    const int order = memcmp(a, b, a_size < b_size ? a_size : b_size);

    return order ? order : (a_size > b_size) - (a_size < b_size);
}

static int compare_patterns(const void *a, const void *b)
{
    const struct pattern *p = a, *q = b;

    return compare_text(p->text, p->size, q->text, q->size);
}

/* The patterns are there; sort them and note where each first byte begins. */
static void matcher_sort(struct matcher *m)
{
    size_t at = 0;

    if (m->count)
        qsort(m->patterns, m->count, sizeof(*m->patterns), compare_patterns);
    for (uint32_t byte = 0; byte < 257; byte++) {
        while (at < m->count && (unsigned char)m->patterns[at].text[0] < byte)
            at++;
        m->first[byte] = (uint32_t)at;
    }
}

/* Of patterns [low, high), which agree before `depth`, the first whose byte there is >= `byte`. */
static size_t lower_bound(const struct matcher *m, size_t low, size_t high, size_t depth,
                          unsigned byte)
{
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if ((unsigned char)m->patterns[middle].text[depth] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The longest pattern that `text` begins with, or NULL. */
static const struct pattern *longest(const struct matcher *m, const char *text, size_t size)
{
    const unsigned char first = (unsigned char)text[0];
    size_t low = m->first[first], high = m->first[first + 1];
    const struct pattern *best = NULL;

    for (size_t depth = 1; low < high; depth++) {
        if (m->patterns[low].size == depth)
            best = &m->patterns[low++]; /* the rest are longer: no two are alike */
        if (depth == size)
            break;
        const unsigned byte = (unsigned char)text[depth];
        low = lower_bound(m, low, high, depth, byte);
        high = lower_bound(m, low, high, depth, byte + 1);
    }
    return best;
}

/* -------------------------------------------------------------------------------- blanks, words */

/* The last character of text, which is well-formed and not empty. */
static uint32_t last_char(const char *text, size_t size, size_t *length_p)
{
    uint32_t code = 0;
    size_t i = size - 1;

    while (i > 0 && ((unsigned char)text[i] & 0xc0) == 0x80)
        i--;
    *length_p = size - i;
    utf8_decode(text + i, *length_p, &code);
    return code;
}

static size_t blanks_before(const char *text, size_t from, size_t at)
{
    size_t length;

    while (at > from && char_is_blank(last_char(text + from, at - from, &length)))
        at -= length;
    return at;
}

static size_t blanks_after(const char *text, size_t size, size_t at)
{
    uint32_t code = 0;

    for (size_t length; at < size; at += length) {
        length = utf8_decode(text + at, size - at, &code);
        if (!char_is_blank(code))
            break;
    }
    return at;
}

static bool stands_alone(const char *text, size_t size, size_t begin, size_t end)
{
    size_t length;
    uint32_t code = 0;

    if (begin > 0 && char_is_word(last_char(text, begin, &length)))
        return false;
    if (end < size)
        utf8_decode(text + end, size - end, &code);
    return end == size || !char_is_word(code);
}

/* ----------------------------------------------------------------------------------------- cut */

struct cutter {
    const char *text;
    size_t size;
    size_t done;                   /* what lies before is handed out */
    size_t blank_begin, blank_end; /* the last run of blanks seen: it is not read again */
    added_part *part;
    void *user;
};

static size_t strip_after(struct cutter *c, size_t at)
{
    if (at < c->blank_begin || at >= c->blank_end) {
        c->blank_begin = at;
        c->blank_end = blanks_after(c->text, c->size, at);
    }
    return c->blank_end;
}

/* The token was found at [begin, end). The search goes on at `end` whatever rstrip took, so a token
 * that itself is blank may be found again among those blanks: the package does so, and so do we. */
static mc_status take(struct cutter *c, const struct added_token *token, size_t begin, size_t end)
{
    mc_status status = MC_OK;

    if (token->lstrip) {
        begin = blanks_before(c->text, c->done < begin ? c->done : begin, begin);
        begin = begin > c->done ? begin : c->done;
    }
    if (token->rstrip)
        end = strip_after(c, end);
    if (c->done < begin)
        status = c->part(c->user, NULL, c->text + c->done, begin - c->done);
    if (status == MC_OK && begin < end)
        status = c->part(c->user, token, c->text + begin, end - begin);
    c->done = end;
    return status;
}

mc_status added_cut(const struct added *added, const struct matcher *matcher, const char *text,
                    size_t size, bool no_special, added_part *part, void *user)
{
    struct cutter c = { .text = text, .size = size, .part = part, .user = user };
    mc_status status = MC_OK;

    for (size_t at = 0; at < size && matcher->count && status == MC_OK;) {
        const struct pattern *found = longest(matcher, text + at, size - at);
        if (!found) {
            at++;
            continue;
        }
        const struct added_token *token = &added->tokens[found->token];
        const size_t end = at + found->size;
        if (!(no_special && token->special) &&
            (!token->single_word || stands_alone(text, size, at, end)))
            status = take(&c, token, at, end);
        at = end;
    }
    if (status == MC_OK && c.done < size)
        status = part(user, NULL, text + c.done, size - c.done);
    return status;
}

/* ---------------------------------------------------------------------------------------- open */

static mc_status get_flag(const json_t *token, const char *key, size_t index, const char *name,
                          bool *flag_p, struct mc_error *error)
{
    const json_t *value = json_object_get(token, key);

    if (value && !json_is_boolean(value))
        return error_set(error, MC_E_FORMAT, "%s: added_tokens[%zu].%s is not true or false", name,
                         index, key);
    *flag_p = json_is_true(value);
    return MC_OK;
}

static mc_status get_flags(struct added_token *token, const json_t *value, size_t index,
                           const char *name, struct mc_error *error)
{
    const struct {
        const char *key;
        bool *flag;
    } flags[] = { { "single_word", &token->single_word },
                  { "lstrip", &token->lstrip },
                  { "rstrip", &token->rstrip },
                  { "normalized", &token->normalized },
                  { "special", &token->special } };

    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        const mc_status status = get_flag(value, flags[i].key, index, name, flags[i].flag, error);
        if (status != MC_OK)
            return status;
    }
    return MC_OK;
}

/* The id must be the vocabulary's for this word, if it has the word, and nobody else's. */
static mc_status check_id(const struct added_token *token, const struct bpe *bpe, size_t index,
                          const char *name, struct mc_error *error)
{
    const uint32_t in_vocab = bpe_find(bpe, token->content, token->size);

    if (in_vocab != ID_NONE && in_vocab != token->id)
        return error_set(error, MC_E_FORMAT,
                         "%s: added_tokens[%zu].id is %u, but model.vocab gives \"%.80s\" id %u",
                         name, index, token->id, token->content, in_vocab);
    if (in_vocab == ID_NONE && token->id < bpe->count && bpe->words[token->id].size != ID_NONE)
        return error_set(error, MC_E_FORMAT,
                         "%s: added_tokens[%zu].id is %u, which model.vocab gives another word",
                         name, index, token->id);
    return MC_OK;
}

static mc_status read_token(struct added *added, const json_t *value, const struct bpe *bpe,
                            const char *name, struct mc_error *error)
{
    const size_t index = added->count;
    const json_t *id = json_object_get(value, "id"), *content = json_object_get(value, "content");
    struct added_token *token = &added->tokens[index];

    if (!json_is_object(value) || !json_is_integer(id) || !json_is_string(content))
        return error_set(error, MC_E_FORMAT,
                         "%s: added_tokens[%zu] has no id (a number) or no content (a text)", name,
                         index);
    if (json_integer_value(id) < 0 || json_integer_value(id) >= ID_MAX)
        return error_set(error, MC_E_RANGE, "%s: added_tokens[%zu].id is %lld, but ids are 0 to %d",
                         name, index, (long long)json_integer_value(id), ID_MAX - 1);
    const size_t size = json_string_length(content);
    if (size == 0 || size > CONTENT_MAX)
        return error_set(error, MC_E_RANGE,
                         "%s: added_tokens[%zu].content has %zu bytes; 1 to %d are accepted", name,
                         index, size, CONTENT_MAX);

    token->content = alloc_text(added->alloc, json_string_value(content), size);
    if (!token->content)
        return error_set(error, MC_E_NOMEM, "%s: no memory for the added tokens", name);
    added->count++;
    token->size = size;
    token->id = (uint32_t)json_integer_value(id);
    if (token->id >= added->id_end)
        added->id_end = token->id + 1;
    const mc_status status = get_flags(token, value, index, name, error);
    return status == MC_OK ? check_id(token, bpe, index, name, error) : status;
}

/* Collect the tokens whose `normalized` is as asked; in `normal_text` they stand one after another. */
static mc_status fill_matchers(struct added *added, bool nfc)
{
    struct matcher *all[3] = { &added->by_content, &added->raw, &added->normal };

    added->normal_text = BUF_INIT(added->alloc);
    for (size_t i = 0; i < 3; i++) {
        all[i]->patterns = alloc_zeroed(added->alloc, added->count, sizeof(struct pattern));
        if (!all[i]->patterns)
            return MC_E_NOMEM;
    }
    for (size_t i = 0; i < added->count; i++) {
        const struct added_token *t = &added->tokens[i];
        struct matcher *m = t->normalized ? &added->normal : &added->raw;
        const struct pattern content = { t->content, t->size, i };
        const size_t before = added->normal_text.size;

        added->by_content.patterns[added->by_content.count++] = content;
        m->patterns[m->count] = content;
        if (t->normalized && nfc) {
            text_nfc(t->content, t->size, &added->normal_text);
            m->patterns[m->count].size = added->normal_text.size - before;
        } else if (t->normalized)
            buf_add(&added->normal_text, t->content, t->size);
        m->count++;
    }
    if (added->normal_text.failed)
        return MC_E_NOMEM;
    const char *text = added->normal_text.data; /* it no longer moves */
    for (size_t i = 0; i < added->normal.count; i++) {
        added->normal.patterns[i].text = text;
        text += added->normal.patterns[i].size;
    }
    for (size_t i = 0; i < 3; i++)
        matcher_sort(all[i]);
    return MC_OK;
}

static mc_status refuse_twins(const struct matcher *m, const char *what, const char *name,
                              struct mc_error *error)
{
    for (size_t i = 1; i < m->count; i++) {
        const struct pattern *a = &m->patterns[i - 1], *b = &m->patterns[i];
        const size_t later = a->token > b->token ? a->token : b->token;
        if (compare_patterns(a, b) == 0)
            return error_set(error, MC_E_FORMAT, "%s: added_tokens[%zu].content is %s %zu's", name,
                             later, what, a->token + b->token - later);
    }
    return MC_OK;
}

static int compare_ids(const void *a, const void *b)
{
    const struct added_token *const *p = a, *const *q = b;

    return ((*p)->id > (*q)->id) - ((*p)->id < (*q)->id);
}

static mc_status refuse_shared_ids(const struct added *added, const char *name,
                                   struct mc_error *error)
{
    const struct added_token **order =
        alloc_zeroed(added->alloc, added->count, sizeof(struct added_token *));
    mc_status status = MC_OK;

    if (!order)
        return error_set(error, MC_E_NOMEM, "%s: no memory for the added tokens", name);
    for (size_t i = 0; i < added->count; i++)
        order[i] = &added->tokens[i];
    if (added->count)
        qsort(order, added->count, sizeof(struct added_token *), compare_ids);
    for (size_t i = 1; i < added->count && status == MC_OK; i++)
        if (order[i]->id == order[i - 1]->id)
            status = error_set(error, MC_E_FORMAT,
                               "%s: added_tokens: \"%.80s\" and \"%.80s\" both have id %u", name,
                               order[i - 1]->content, order[i]->content, order[i]->id);
    alloc_free(added->alloc, order);
    return status;
}

mc_status added_open(struct added *added, const json_t *tokens, const struct bpe *bpe, bool nfc,
                     const char *name, const struct mc_alloc *alloc, struct mc_error *error)
{
    const size_t count = json_array_size(tokens);

    *added = (struct added){ .alloc = alloc };
    if (tokens && !json_is_null(tokens) && !json_is_array(tokens))
        return error_set(error, MC_E_FORMAT, "%s: added_tokens is not an array", name);
    if (count > ADDED_MAX)
        return error_set(error, MC_E_RANGE, "%s: added_tokens has %zu entries, more than %d", name,
                         count, ADDED_MAX);
    added->tokens = alloc_zeroed(alloc, count, sizeof(*added->tokens));
    if (!added->tokens)
        return error_set(error, MC_E_NOMEM, "%s: no memory for the added tokens", name);

    mc_status status = MC_OK;
    for (size_t i = 0; i < count && status == MC_OK; i++)
        status = read_token(added, json_array_get(tokens, i), bpe, name, error);
    if (status == MC_OK && fill_matchers(added, nfc) != MC_OK)
        status = error_set(error, MC_E_NOMEM, "%s: no memory for the added tokens", name);
    if (status == MC_OK)
        status = refuse_twins(&added->by_content, "also", name, error);
    if (status == MC_OK)
        status = refuse_twins(&added->normal, "after NFC also", name, error);
    return status == MC_OK ? refuse_shared_ids(added, name, error) : status;
}

void added_close(struct added *added)
{
    if (!added->alloc)
        return;
    for (size_t i = 0; i < added->count; i++)
        alloc_free(added->alloc, added->tokens[i].content);
    alloc_free(added->alloc, added->tokens);
    alloc_free(added->alloc, added->by_content.patterns);
    alloc_free(added->alloc, added->raw.patterns);
    alloc_free(added->alloc, added->normal.patterns);
    buf_fini(&added->normal_text);
    *added = (struct added){ 0 };
}

const struct added_token *added_find(const struct added *added, const char *content, size_t size)
{
    const struct matcher *m = &added->by_content;
    size_t low = 0, high = m->count;

    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const struct pattern *p = &m->patterns[middle];
        const int order = compare_text(p->text, p->size, content, size);
        if (order == 0)
            return &added->tokens[p->token];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}
