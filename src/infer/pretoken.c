/* pretoken.c - the steps that cut text, their patterns translated for PCRE2, run in a budget. */
#include "infer/pretoken.h"

#include <assert.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/utf8.h"

enum {
    PATTERN_MAX = 4096,        /* bytes */
    HEAP_MAX_KIB = 64 * 1024,  /* of one match, where the JIT does not run it */
    STEPS_FREE = 512,          /* of one match; more are taken from the budget */
    BUDGET_BASE = 1024 * 1024, /* steps for any text */
    BUDGET_PER_BYTE = 64       /* and for each byte: a run of n blanks backtracks n times */
};

/* ByteLevel's own pattern, GPT-2's. */
static const char gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* ----------------------------------------------------------------------------------- translate */

/* White_Space, spelt out: PCRE2's own \s also has U+180E, which has not been a blank for long. */
static const char blanks[] = "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}"
                             "\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}";

struct translator {
    const char *at; /* the rest of the pattern, NUL-terminated */
    bool in_class;
    struct buf *out;
    char refused[8]; /* what both dialects do not read alike; "" while there is nothing */
};

static void refuse(struct translator *t, const char *what, size_t size)
{
    size_t i = 0;

    for (; i < size && i + 1 < sizeof(t->refused) && what[i]; i++)
        t->refused[i] = what[i];
    t->refused[i] = '\0';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static void copy(struct translator *t, size_t size)
{
    buf_add(t->out, t->at, size);
    t->at += size;
}

/* \p{L} and \x{41}: both dialects agree on the form with braces. */
static void braced(struct translator *t)
{
    const char *close = t->at[2] == '{' ? strchr(t->at, '}') : NULL;

    if (close)
        copy(t, (size_t)(close - t->at) + 1);
    else
        refuse(t, t->at, 2);
}

static void escape(struct translator *t)
{
    const char c = t->at[1];

    if (c == 's' || (c == 'S' && !t->in_class)) {
        buf_add_text(t->out, t->in_class ? "" : c == 's' ? "[" : "[^");
        buf_add_text(t->out, blanks);
        buf_add_text(t->out, t->in_class ? "" : "]");
        t->at += 2;
    } else if (c == 'p' || c == 'P' || c == 'x')
        braced(t);
    else if (c == 'r' || c == 'n' || c == 't' || c == 'f' || c == 'd' || c == 'D')
        copy(t, 2);
    else if (c == '\0' || is_letter(c) || is_digit(c))
        refuse(t, t->at, 2);
    else if ((unsigned char)c >= 0x80)
        refuse(t, t->at, 1);
    else
        copy(t, 2);
}

static void open_class(struct translator *t)
{
    t->in_class = true;
    copy(t, t->at[1] == '^' ? 2 : 1);
    if (t->at[0] == ']')
        refuse(t, "[]", 2);
}

/* `(`, and what may follow `(?`. */
static void group(struct translator *t)
{
    static const char *const known[] = { "(?:", "(?i:", "(?=", "(?!", "(?>", "(?<=", "(?<!" };

    if (t->at[1] == '*') {
        refuse(t, t->at, 2);
        return;
    }
    if (t->at[1] != '?') {
        copy(t, 1);
        return;
    }
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strncmp(t->at, known[i], strlen(known[i])) == 0) {
            copy(t, strlen(known[i]));
            return;
        }
    refuse(t, t->at, 4);
}

/* {n}, {n,} and {n,m}; "{,m}" and a "+" behind are read differently. */
static void quantifier(struct translator *t)
{
    size_t i = 1;

    while (is_digit(t->at[i]))
        i++;
    if (i > 1 && t->at[i] == ',')
        for (i++; is_digit(t->at[i]);)
            i++;
    if (i == 1 || t->at[i] != '}' || t->at[i + 1] == '+')
        refuse(t, t->at, i + 1);
    else
        copy(t, i + 1);
}

static void in_class(struct translator *t)
{
    if (t->at[0] == '[' || (t->at[0] == '&' && t->at[1] == '&'))
        refuse(t, t->at, 2); /* a class in a class, or an intersection */
    else {
        t->in_class = t->at[0] != ']';
        copy(t, 1);
    }
}

/* Oniguruma's dialect to PCRE2's. */
static mc_status translate(const char *pattern, struct buf *out, const char *name,
                           struct mc_error *error)
{
    struct translator t = { .at = pattern, .out = out };

    while (*t.at && !t.refused[0]) {
        if (*t.at == '\\')
            escape(&t);
        else if (t.in_class)
            in_class(&t);
        else if (*t.at == '[')
            open_class(&t);
        else if (*t.at == '(')
            group(&t);
        else if (*t.at == '{')
            quantifier(&t);
        else
            copy(&t, 1);
    }
    if (t.refused[0])
        return error_set(error, MC_E_UNSUPPORTED,
                         "%s: pre_tokenizer: \"%s\" in pattern \"%.200s\" is not supported", name,
                         t.refused, pattern);
    return MC_OK;
}

/* --------------------------------------------------------------------------------------- compile */

static void *pcre2_take(PCRE2_SIZE size, void *alloc)
{
    return alloc_bytes(alloc, size);
}

static void pcre2_give(void *p, void *alloc)
{
    alloc_free(alloc, p);
}

static mc_status compile(struct pretoken *pretoken, const char *pattern, uint32_t options,
                         pcre2_code **code_p, const char *name, struct mc_error *error)
{
    int problem;
    PCRE2_SIZE at;
    pcre2_compile_context *context = pcre2_compile_context_create(pretoken->memory);

    if (!context)
        return error_set(error, MC_E_NOMEM, "%s: no memory for the pattern", name);
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    *code_p = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, options | PCRE2_UTF,
                            &problem, &at, context);
    pcre2_compile_context_free(context);
    if (*code_p) {
        (void)pcre2_jit_compile(*code_p,
                                PCRE2_JIT_COMPLETE); /* where it cannot, PCRE2 interprets */
        return MC_OK;
    }
    if (problem == PCRE2_ERROR_NOMEMORY || problem == PCRE2_ERROR_HEAP_FAILED)
        return error_set(error, MC_E_NOMEM, "%s: no memory for the pattern", name);

    PCRE2_UCHAR words[120];
    pcre2_get_error_message(problem, words, sizeof(words));
    return error_set(error, MC_E_FORMAT, "%s: pre_tokenizer: pattern \"%.200s\": %s", name, pattern,
                     (const char *)words);
}

static mc_status compile_regex(struct pretoken *pretoken, const char *pattern, pcre2_code **code_p,
                               const char *name, struct mc_error *error)
{
    struct buf translated = BUF_INIT(pretoken->alloc);

    mc_status status = translate(pattern, &translated, name, error);
    if (status == MC_OK && translated.failed)
        status = error_set(error, MC_E_NOMEM, "%s: no memory for the pattern", name);
    if (status == MC_OK)
        status =
            compile(pretoken, translated.data, PCRE2_UCP | PCRE2_MULTILINE, code_p, name, error);
    buf_fini(&translated);
    return status;
}

/* ----------------------------------------------------------------------------------------- open */

static mc_status get_bool(const json_t *json, const char *key, bool fallback, bool *value_p,
                          const char *name, struct mc_error *error)
{
    const json_t *value = json_object_get(json, key);

    if (value && !json_is_boolean(value))
        return error_set(error, MC_E_FORMAT, "%s: pre_tokenizer: %s is not true or false", name,
                         key);
    *value_p = value ? json_is_true(value) : fallback;
    return MC_OK;
}

static mc_status open_split(struct pretoken *pretoken, struct pretoken_step *step,
                            const json_t *json, const char *name, struct mc_error *error)
{
    const json_t *pattern = json_object_get(json, "pattern");
    const char *regex = json_string_value(json_object_get(pattern, "Regex"));
    const char *literal = json_string_value(json_object_get(pattern, "String"));
    const char *text = regex ? regex : literal;
    const char *behavior = json_string_value(json_object_get(json, "behavior"));

    if (!text || !behavior)
        return error_set(
            error, MC_E_FORMAT,
            "%s: pre_tokenizer: Split needs a pattern (Regex or String) and a behavior", name);
    if (text[0] == '\0' || strlen(text) > PATTERN_MAX)
        return error_set(error, MC_E_RANGE,
                         "%s: pre_tokenizer: a pattern has %zu bytes; 1 to %d are accepted", name,
                         strlen(text), PATTERN_MAX);
    if (strcmp(behavior, "Isolated") != 0 && strcmp(behavior, "Removed") != 0)
        return error_set(error, MC_E_UNSUPPORTED,
                         "%s: pre_tokenizer: behavior \"%.80s\" is not supported, only "
                         "\"Isolated\" and \"Removed\"",
                         name, behavior);
    step->removed = strcmp(behavior, "Removed") == 0;
    const mc_status status = get_bool(json, "invert", false, &step->invert, name, error);
    if (status != MC_OK)
        return status;
    return regex ? compile_regex(pretoken, regex, &step->code, name, error)
                 : compile(pretoken, literal, PCRE2_LITERAL, &step->code, name, error);
}

static mc_status open_byte_level(struct pretoken *pretoken, struct pretoken_step *step,
                                 const json_t *json, const char *name, struct mc_error *error)
{
    bool use_regex = true;

    mc_status status = get_bool(json, "add_prefix_space", true, &step->prefix_space, name, error);
    if (status == MC_OK)
        status = get_bool(json, "use_regex", true, &use_regex, name, error);
    if (status == MC_OK && use_regex)
        status = compile_regex(pretoken, gpt2_pattern, &step->code, name, error);
    return status;
}

/* Digits: numbers are pieces of their own, whole or digit by digit. */
static mc_status open_digits(struct pretoken *pretoken, struct pretoken_step *step,
                             const json_t *json, const char *name, struct mc_error *error)
{
    bool individual = false;

    const mc_status status = get_bool(json, "individual_digits", false, &individual, name, error);
    if (status != MC_OK)
        return status;
    return compile_regex(pretoken, individual ? "\\p{N}" : "\\p{N}+", &step->code, name, error);
}

/* One step, which must be ByteLevel if it is the last and must not be before. */
static mc_status open_step(struct pretoken *pretoken, const json_t *json, bool last,
                           const char *name, struct mc_error *error)
{
    const char *type = json_string_value(json_object_get(json, "type"));

    if (!type)
        return error_set(error, MC_E_FORMAT, "%s: pre_tokenizer has no type", name);
    const bool byte_level = strcmp(type, "ByteLevel") == 0, digits = strcmp(type, "Digits") == 0;
    if (!byte_level && !digits && strcmp(type, "Split") != 0)
        return error_set(error, MC_E_UNSUPPORTED,
                         "%s: pre_tokenizer \"%.80s\" is not supported, only \"ByteLevel\", "
                         "\"Digits\", \"Split\" and one \"Sequence\" of them",
                         name, type);
    if (byte_level != last)
        return error_set(error, MC_E_UNSUPPORTED,
                         "%s: pre_tokenizer: the last step and no other must be \"ByteLevel\"",
                         name);
    /* Counted first, so that closing frees what a failing step has made. */
    struct pretoken_step *step = &pretoken->steps[pretoken->count++];
    if (byte_level)
        return open_byte_level(pretoken, step, json, name, error);
    return digits ? open_digits(pretoken, step, json, name, error)
                  : open_split(pretoken, step, json, name, error);
}

static mc_status open_sequence(struct pretoken *pretoken, const json_t *list, const char *name,
                               struct mc_error *error)
{
    const size_t count = json_array_size(list);
    mc_status status = MC_OK;

    if (count == 0)
        return error_set(error, MC_E_FORMAT,
                         "%s: pre_tokenizer: Sequence has no pretokenizers (an array)", name);
    if (count > STEPS_MAX)
        return error_set(error, MC_E_RANGE, "%s: pre_tokenizer has %zu steps, more than %d", name,
                         count, STEPS_MAX);
    for (size_t i = 0; i < count && status == MC_OK; i++)
        status = open_step(pretoken, json_array_get(list, i), i + 1 == count, name, error);
    return status;
}

mc_status pretoken_open(struct pretoken *pretoken, const json_t *json, const char *name,
                        const struct mc_alloc *alloc, struct mc_error *error)
{
    const char *type = json_string_value(json_object_get(json, "type"));

    *pretoken = (struct pretoken){ .alloc = alloc };
    if (!json || json_is_null(json))
        return error_set(error, MC_E_UNSUPPORTED,
                         "%s: pre_tokenizer is missing, but byte-level BPE needs \"ByteLevel\"",
                         name);
    /* PCRE2 passes its context back unchanged, so that casting const away harms nobody. */
    pretoken->memory =
        pcre2_general_context_create(pcre2_take, pcre2_give, (void *)(uintptr_t)alloc);
    if (!pretoken->memory)
        return error_set(error, MC_E_NOMEM, "%s: no memory for the pre_tokenizer", name);
    if (type && strcmp(type, "Sequence") == 0)
        return open_sequence(pretoken, json_object_get(json, "pretokenizers"), name, error);
    return open_step(pretoken, json, true, name, error);
}

void pretoken_close(struct pretoken *pretoken)
{
    for (size_t i = 0; i < pretoken->count; i++)
        pcre2_code_free(pretoken->steps[i].code);
    pcre2_general_context_free(pretoken->memory);
    *pretoken = (struct pretoken){ 0 };
}

/* ----------------------------------------------------------------------------------------- split */

mc_status splitter_open(struct splitter *splitter, const struct pretoken *pretoken,
                        size_t text_size, pretoken_piece *piece, void *user, struct mc_error *error)
{
    *splitter = (struct splitter){ .pretoken = pretoken,
                                   .data = pcre2_match_data_create(1, pretoken->memory),
                                   .context = pcre2_match_context_create(pretoken->memory),
                                   .spaced = BUF_INIT(pretoken->alloc),
                                   .budget = BUDGET_BASE + BUDGET_PER_BYTE * (uint64_t)text_size,
                                   .piece = piece,
                                   .user = user,
                                   .error = error };
    if (!splitter->data || !splitter->context)
        return error_set(error, MC_E_NOMEM, "no memory to split the text");
    pcre2_set_heap_limit(splitter->context, HEAP_MAX_KIB);
    return MC_OK;
}

void splitter_close(struct splitter *splitter)
{
    pcre2_match_data_free(splitter->data);
    pcre2_match_context_free(splitter->context);
    buf_fini(&splitter->spaced);
    *splitter = (struct splitter){ 0 };
}

/* A text and where the search in it begins. */
struct subject {
    const char *text;
    size_t size, from;
};

/* One call of PCRE2, of at most `limit` steps from any one place. */
static int try_match(struct splitter *s, const pcre2_code *code, const struct subject *subject,
                     uint32_t options, uint32_t limit)
{
    int result = PCRE2_ERROR_JIT_STACKLIMIT;

    pcre2_set_match_limit(s->context, limit);
    while (result == PCRE2_ERROR_JIT_STACKLIMIT) {
        result = pcre2_match(code, (PCRE2_SPTR)subject->text, subject->size, subject->from,
                             options | PCRE2_NO_UTF_CHECK | s->no_jit, s->data, s->context);
        if (s->no_jit)
            break;
        if (result == PCRE2_ERROR_JIT_STACKLIMIT)
            s->no_jit = PCRE2_NO_JIT; /* the interpreter keeps its stack in the heap */
    }
    return result;
}

/* The bytes of the character at `at`, 0 at the end. */
static size_t char_size(const struct subject *subject, size_t at)
{
    uint32_t code;

    return utf8_decode(subject->text + at, subject->size - at, &code);
}

/* The search again, place by place, each step of it taken from the budget. */
static int match_slowly(struct splitter *s, const pcre2_code *code, struct subject subject)
{
    for (;;) {
        int result = PCRE2_ERROR_MATCHLIMIT;
        for (uint32_t limit = STEPS_FREE; result == PCRE2_ERROR_MATCHLIMIT; limit *= 4) {
            if (limit > s->budget || limit > UINT32_MAX / 4)
                return PCRE2_ERROR_MATCHLIMIT;
            s->budget -= limit;
            result = try_match(s, code, &subject, PCRE2_ANCHORED, limit);
        }
        if (result != PCRE2_ERROR_NOMATCH || subject.from == subject.size)
            return result;
        subject.from += char_size(&subject, subject.from);
    }
}

/*
 * The next match from subject->from. The library counts steps from each starting place anew and does
 * not tell the count, so the sum is kept here: nearly every match ends within the free steps, which
 * bounds what it costs by the text it passes over; one that does not is searched again slowly.
 */
static mc_status find(struct splitter *s, const pcre2_code *code, const struct subject *subject,
                      bool *found_p, size_t *begin_p, size_t *end_p)
{
    int result = try_match(s, code, subject, 0, STEPS_FREE);

    if (result == PCRE2_ERROR_MATCHLIMIT)
        result = match_slowly(s, code, *subject);
    *found_p = result >= 0;
    if (result == PCRE2_ERROR_NOMATCH)
        return MC_OK;
    if (result == PCRE2_ERROR_NOMEMORY)
        return error_set(s->error, MC_E_NOMEM, "no memory to split the text");
    if (result < 0)
        return error_set(s->error, MC_E_RANGE,
                         "the pattern of tokenizer.json's pre_tokenizer goes on for too long in a "
                         "text of %zu bytes (PCRE2 error %d); simplify the pattern",
                         subject->size, result);
    const PCRE2_SIZE *offsets = pcre2_get_ovector_pointer(s->data);
    *begin_p = offsets[0];
    *end_p = offsets[1];
    return MC_OK;
}

static mc_status cut(struct splitter *s, size_t index, const char *text, size_t size);

static mc_status pass(struct splitter *s, size_t index, const char *text, size_t begin, size_t end,
                      bool matched)
{
    const struct pretoken_step *step = &s->pretoken->steps[index];

    if (begin == end || (step->removed && matched != step->invert))
        return MC_OK;
    return cut(s, index + 1, text + begin, end - begin);
}

/* Cut a text, not empty, by step `index` and those behind it. */
static mc_status cut(struct splitter *s, size_t index, const char *text, size_t size)
{
    if (index == s->pretoken->count)
        return s->piece(s->user, text, size);

    const struct pretoken_step *step = &s->pretoken->steps[index];
    if (step->prefix_space && text[0] != ' ') { /* only in the last step: `spaced` is free */
        buf_truncate(&s->spaced, 0);
        buf_add_byte(&s->spaced, ' ');
        buf_add(&s->spaced, text, size);
        if (s->spaced.failed)
            return error_set(s->error, MC_E_NOMEM, "no memory to split the text");
        text = s->spaced.data;
        size = s->spaced.size;
    }

    struct subject subject = { .text = text, .size = size };
    size_t done = 0;
    mc_status status = MC_OK;
    for (bool found = step->code != NULL; found && status == MC_OK;) {
        size_t begin = 0, end = 0;
        status = find(s, step->code, &subject, &found, &begin, &end);
        if (status != MC_OK || !found)
            break;
        assert(begin >= done && end >= begin && end <= size); /* \K, which could, is refused */
        status = pass(s, index, text, done, begin, false);
        if (status == MC_OK)
            status = pass(s, index, text, begin, end, true);
        done = end;
        /* An empty match cuts, and the search goes on behind the next character. */
        subject.from = end > begin ? end : end + char_size(&subject, end);
        if (subject.from == end && end == size)
            found = false;
    }
    return status == MC_OK ? pass(s, index, text, done, size, false) : status;
}

mc_status pretoken_split(struct splitter *splitter, const char *text, size_t size)
{
    return size ? cut(splitter, 0, text, size) : MC_OK;
}
