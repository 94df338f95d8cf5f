/* setting.c - texts from flags, environment and file become fields of a struct, by one table. */
#include "base/setting.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"

enum { WORD_MAX = 64, HELP_COLUMN = 28, HELP_WIDTH = 96 };

/* A value on its way into a field: `where` is how errors name its source. */
struct value {
    const struct setting *row;
    const char *where, *text;
};

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit size_units[] = {
    { "", 1 }, { "K", 1u << 10 }, { "M", 1u << 20 }, { "G", 1u << 30 }, { "T", (uint64_t)1 << 40 },
};

static const struct unit duration_units[] = {
    { "ns", 1 },
    { "us", 1000 },
    { "ms", 1000000 },
    { "s", 1000000000 },
    { "m", 60 * (uint64_t)1000000000 },
    { "h", 3600 * (uint64_t)1000000000 },
};

/* ------------------------------------------------------------------------------------- lists */

static bool is_list(const struct setting *row)
{
    return row->type == SETTING_LIST || row->type == SETTING_SECRET;
}

mc_status setting_list_add(struct setting_list *list, const char *text,
                           const struct mc_alloc *alloc)
{
    if (list->count == list->capacity) {
        const uint32_t capacity = list->capacity ? list->capacity * 2 : 8;
        const char **items = alloc_resize(alloc, list->items, capacity, sizeof(*items));
        if (!items)
            return MC_E_NOMEM;
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->count++] = text;
    return MC_OK;
}

void setting_list_fini(struct setting_list *list, const struct mc_alloc *alloc)
{
    alloc_free(alloc, list->items);
    *list = (struct setting_list){ 0 };
}

/* ----------------------------------------------------------------------------------- nearness */

static size_t smallest(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Edits between two words: a letter more, less, other, or two swapped (Damerau, Levenshtein). */
static size_t distance(const char *a, size_t a_size, const char *b, size_t b_size)
{
    size_t rows[3][WORD_MAX + 1];
    size_t *before = rows[0], *last = rows[1], *now = rows[2];

    for (size_t j = 0; j <= b_size; j++)
        last[j] = j;
    for (size_t i = 1; i <= a_size; i++) {
        now[0] = i;
        for (size_t j = 1; j <= b_size; j++) {
            now[j] = smallest(last[j] + 1, now[j - 1] + 1);
            now[j] = smallest(now[j], last[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = smallest(now[j], before[j - 2] + 1);
        }
        size_t *const spare = before;
        before = last;
        last = now;
        now = spare;
    }
    return last[b_size];
}

const char *setting_nearest(const char *word, const char *const *words, size_t count)
{
    const size_t size = strlen(word);
    const char *best = NULL;
    size_t best_distance = size / 4 + 1; /* more edits than this, and it is another word */

    if (size < 2 || size > WORD_MAX)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        const size_t other = strlen(words[i]);
        if (other > WORD_MAX)
            continue;
        const size_t d = distance(word, size, words[i], other);
        if (d < best_distance || (d == best_distance && !best)) {
            best = words[i];
            best_distance = d;
        }
    }
    return best;
}

static const struct setting *find(const struct settings *s, const char *name, size_t size)
{
    for (size_t i = 0; i < s->count; i++)
        if (strlen(s->rows[i].name) == size && memcmp(s->rows[i].name, name, size) == 0)
            return &s->rows[i];
    return NULL;
}

static const char *nearest_row(const struct settings *s, const char *name, size_t size)
{
    char word[WORD_MAX + 1];
    const char *best = NULL;

    if (size > WORD_MAX)
        return NULL;
    memcpy(word, name, size);
    word[size] = '\0';
    for (size_t i = 0; i < s->count; i++) {
        const char *pair[2] = { best, s->rows[i].name };
        best = best ? setting_nearest(word, pair, 2) : setting_nearest(word, pair + 1, 1);
    }
    return best;
}

/* ------------------------------------------------------------------------------------- values */

static mc_status refuse(const struct value *v, mc_status status, const char *expected,
                        struct mc_error *error)
{
    return error_set(error, status, "%s: \"%.80s\" is not %s", v->where, v->text, expected);
}

static mc_status check_range(const struct value *v, double number, struct mc_error *error)
{
    const struct setting *row = v->row;

    if ((row->min == 0 && row->max == 0) || (number >= row->min && number <= row->max))
        return MC_OK;
    return error_set(error, MC_E_RANGE, "%s: %.80s is out of range; accepted are %.15g to %.15g",
                     v->where, v->text, row->min, row->max);
}

/* Digits into a number; *end_p is set behind them. False: no digit, or more than 64 bits hold. */
static bool parse_digits(const char *text, uint64_t *number_p, const char **end_p)
{
    uint64_t number = 0;
    const char *c = text;

    for (; *c >= '0' && *c <= '9'; c++) {
        const uint64_t digit = (uint64_t)(*c - '0');
        if (number > (UINT64_MAX - digit) / 10)
            return false;
        number = number * 10 + digit;
    }
    *number_p = number;
    *end_p = c;
    return c != text;
}

static bool is_integer(const char *text)
{
    const size_t sign = text[0] == '-'; /* below any bound: out of range, not malformed */

    return text[sign] != '\0' && text[sign + strspn(text + sign, "0123456789")] == '\0';
}

static mc_status parse_integer(const struct value *v, uint64_t type_max, uint64_t *number_p,
                               struct mc_error *error)
{
    uint64_t number;
    const char *end;

    if (!is_integer(v->text))
        return refuse(v, MC_E_ARG, "a whole number", error);
    if (!parse_digits(v->text, &number, &end) || number > type_max) {
        const bool bounded = v->row->max != 0;
        const uint64_t min = bounded ? (uint64_t)v->row->min : 0;
        const uint64_t max = bounded ? (uint64_t)v->row->max : type_max;
        return error_set(error, MC_E_RANGE,
                         "%s: %.80s is out of range; accepted are %" PRIu64 " to %" PRIu64,
                         v->where, v->text, min, max);
    }
    *number_p = number;
    return check_range(v, (double)number, error);
}

static mc_status parse_units(const struct value *v, const struct unit *units, size_t count,
                             const char *expected, uint64_t *number_p, struct mc_error *error)
{
    uint64_t number;
    const char *end;

    if (!parse_digits(v->text, &number, &end))
        return refuse(v, MC_E_ARG, expected, error);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(end, units[i].name) != 0 && !(number == 0 && *end == '\0'))
            continue;
        if (number > UINT64_MAX / units[i].factor)
            return refuse(v, MC_E_RANGE, "within 64 bits", error);
        *number_p = number * units[i].factor;
        return check_range(v, (double)*number_p, error);
    }
    return refuse(v, MC_E_ARG, expected, error);
}

static mc_status parse_float(const struct value *v, float *number_p, struct mc_error *error)
{
    char *end;
    const double number = strtod(v->text, &end);

    /* strtod also takes "nan", "inf", hexadecimal and blanks before the number. */
    if (end == v->text || *end != '\0' || strspn(v->text, "0123456789.+-eE") != strlen(v->text))
        return refuse(v, MC_E_ARG, "a number", error);
    if (number > 3.4e38 || number < -3.4e38)
        return refuse(v, MC_E_RANGE, "within the range of a 32-bit float", error);
    const mc_status status = check_range(v, number, error);
    if (status == MC_OK)
        *number_p = (float)number;
    return status;
}

static mc_status parse_bool(const struct value *v, bool *yes_p, struct mc_error *error)
{
    static const char *const words[] = { "false", "true", "no", "yes", "off", "on", "0", "1" };

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (strcmp(v->text, words[i]) == 0) {
            *yes_p = i % 2 == 1;
            return MC_OK;
        }
    return refuse(v, MC_E_ARG, "true or false", error);
}

static mc_status parse_choice(const struct value *v, uint32_t *choice_p, struct mc_error *error)
{
    const size_t size = strlen(v->text);
    uint32_t index = 0;

    for (const char *word = v->row->choices;; index++) {
        const size_t length = strcspn(word, "|");
        if (length == size && memcmp(word, v->text, size) == 0) {
            *choice_p = index;
            return MC_OK;
        }
        if (word[length] == '\0')
            break;
        word += length + 1;
    }
    return error_set(error, MC_E_ARG, "%s: \"%.80s\" is not one of %s", v->where, v->text,
                     v->row->choices);
}

static void *field(const struct settings *s, const struct setting *row)
{
    return (char *)s->options + row->offset;
}

static mc_status parse_into(const struct settings *s, const struct value *v, void *out,
                            struct mc_error *error)
{
    uint64_t number = 0;
    mc_status status = MC_OK;

    switch (v->row->type) {
    case SETTING_TEXT:
        *(const char **)out = v->text;
        return MC_OK;
    case SETTING_LIST:
    case SETTING_SECRET:
        status = setting_list_add(out, v->text, s->alloc);
        return status == MC_OK ? MC_OK : error_set(error, status, "%s: out of memory", v->where);
    case SETTING_BOOL:
    case SETTING_ACTION:
        return parse_bool(v, out, error);
    case SETTING_FLOAT:
        return parse_float(v, out, error);
    case SETTING_CHOICE:
        return parse_choice(v, out, error);
    case SETTING_U32:
        status = parse_integer(v, UINT32_MAX, &number, error);
        if (status == MC_OK)
            *(uint32_t *)out = (uint32_t)number;
        return status;
    case SETTING_U64:
        status = parse_integer(v, UINT64_MAX, &number, error);
        break;
    case SETTING_SIZE:
        status = parse_units(v, size_units, sizeof(size_units) / sizeof(size_units[0]),
                             "a size: bytes, or a number with K, M, G or T", &number, error);
        break;
    case SETTING_DURATION:
        status = parse_units(v, duration_units, sizeof(duration_units) / sizeof(duration_units[0]),
                             "a duration: a number with ns, us, ms, s, m or h", &number, error);
        break;
    }
    if (status == MC_OK)
        *(uint64_t *)out = number;
    return status;
}

/* Take a value unless a stronger source has spoken. It is checked in either case: a slip in the config
 * file must not hide behind today's flag. */
static mc_status assign(struct settings *s, const struct setting *row, enum setting_source source,
                        const char *where, const char *text, struct mc_error *error)
{
    struct setting_state *state = &s->states[row - s->rows];
    const struct value value = { row, where, text };
    const bool weaker = source < state->source;
    uint64_t aside[2]; /* room for any field but a list */

    if (is_list(row)) {
        if (weaker)
            return MC_OK;
        if (source > state->source)
            setting_list_fini(field(s, row), s->alloc);
    }
    const mc_status status = parse_into(s, &value, weaker ? aside : field(s, row), error);
    if (status == MC_OK && !weaker)
        *state = (struct setting_state){ source, text };
    return status;
}

static size_t field_size(enum setting_type type)
{
    switch (type) {
#define SIZE_CASE(name) \
    case SETTING_##name: \
        return sizeof(SETTING_C_##name);
        SIZE_CASE(TEXT)
        SIZE_CASE(LIST)
        SIZE_CASE(SECRET)
        SIZE_CASE(BOOL)
        SIZE_CASE(U32)
        SIZE_CASE(U64)
        SIZE_CASE(SIZE)
        SIZE_CASE(DURATION)
        SIZE_CASE(FLOAT)
        SIZE_CASE(CHOICE)
        SIZE_CASE(ACTION)
    }
    assert(false && "a type of the table");
    return 0;
}

mc_status settings_init(struct settings *s, const struct setting *rows, size_t count, void *options,
                        const struct mc_alloc *alloc, struct mc_error *error)
{
    struct setting_state *states = alloc_zeroed(alloc, count, sizeof(*states));

    if (!states)
        return error_set(error, MC_E_NOMEM, "out of memory for %zu settings", count);
    *s = (struct settings){ alloc, rows, count, options, states };
    for (size_t i = 0; i < count; i++) {
        assert(!is_list(&rows[i]) || !rows[i].initial);
        memset(field(s, &rows[i]), 0, field_size(rows[i].type));
        if (!rows[i].initial)
            continue;
        const mc_status status =
            assign(s, &rows[i], SETTING_DEFAULT, rows[i].name, rows[i].initial, error);
        assert(status == MC_OK);
        (void)status;
    }
    return MC_OK;
}

void settings_fini(struct settings *s)
{
    if (!s->states)
        return;
    for (size_t i = 0; i < s->count; i++)
        if (is_list(&s->rows[i]))
            setting_list_fini(field(s, &s->rows[i]), s->alloc);
    alloc_free(s->alloc, s->states);
    s->states = NULL;
}

enum setting_source settings_source(const struct settings *s, const char *name)
{
    const struct setting *row = find(s, name, strlen(name));

    assert(row);
    return s->states[row - s->rows].source;
}

/* ------------------------------------------------------------------------------------- flags */

struct arguments {
    int count, next;
    char *const *items;
};

static mc_status unknown_flag(const struct settings *s, const char *argument, size_t size,
                              struct mc_error *error)
{
    const char *near = nearest_row(s, argument + 2, size > 2 ? size - 2 : 0);

    if (near)
        return error_set(error, MC_E_ARG, "unknown flag %.*s; did you mean --%s?", (int)size,
                         argument, near);
    return error_set(error, MC_E_ARG, "unknown flag %.*s; --help lists the flags", (int)size,
                     argument);
}

static mc_status take_flag(struct settings *s, const struct setting *row, const char *where,
                           const char *attached, struct arguments *args, struct mc_error *error)
{
    const char *text = attached;

    if (row->type == SETTING_ACTION && attached)
        return error_set(error, MC_E_ARG, "%s: takes no value", where);
    if (!text && (row->type == SETTING_BOOL || row->type == SETTING_ACTION))
        text = "true";
    if (!text && args->next < args->count)
        text = args->items[args->next++];
    if (!text)
        return error_set(error, MC_E_ARG, "%s: needs a value: %s %s", where, where, row->metavar);
    return assign(s, row, SETTING_FLAG, where, text, error);
}

static mc_status take_long(struct settings *s, const char *argument, struct arguments *args,
                           struct mc_error *error)
{
    const size_t size = strcspn(argument, "=");
    const char *attached = argument[size] == '=' ? argument + size + 1 : NULL;
    const struct setting *row = find(s, argument + 2, size - 2);
    char where[WORD_MAX + 3];

    if (!row && size > 5 && memcmp(argument, "--no-", 5) == 0) {
        row = find(s, argument + 5, size - 5);
        if (row && row->type == SETTING_BOOL && !attached)
            return assign(s, row, SETTING_FLAG, argument, "false", error);
        if (row)
            return error_set(error, MC_E_ARG, "unknown flag %.*s; did you mean --%s?", (int)size,
                             argument, row->name);
    }
    if (!row)
        return unknown_flag(s, argument, size, error);
    assert(size < sizeof(where)); /* names of rows are shorter than WORD_MAX */
    memcpy(where, argument, size);
    where[size] = '\0';
    return take_flag(s, row, where, attached, args, error);
}

static mc_status take_short(struct settings *s, const char *argument, struct arguments *args,
                            struct mc_error *error)
{
    const char where[3] = { '-', argument[1], '\0' };

    for (size_t i = 0; i < s->count; i++)
        if (s->rows[i].letter == argument[1]) {
            const bool more = argument[2] != '\0';
            if (more && (s->rows[i].type == SETTING_BOOL || s->rows[i].type == SETTING_ACTION))
                break;
            return take_flag(s, &s->rows[i], where, more ? argument + 2 : NULL, args, error);
        }
    return unknown_flag(s, argument, strlen(argument), error);
}

mc_status settings_flags(struct settings *s, int count, char *const *arguments,
                         struct setting_list *operands, struct mc_error *error)
{
    struct arguments args = { count, 0, arguments };
    mc_status status = MC_OK;
    bool only_operands = false;

    while (args.next < count && status == MC_OK) {
        const char *argument = arguments[args.next++];
        if (only_operands || argument[0] != '-' || argument[1] == '\0') {
            status = setting_list_add(operands, argument, s->alloc);
            if (status != MC_OK)
                error_set(error, status, "out of memory for the arguments");
        } else if (strcmp(argument, "--") == 0)
            only_operands = true;
        else if (argument[1] == '-')
            status = take_long(s, argument, &args, error);
        else
            status = take_short(s, argument, &args, error);
    }
    return status;
}

/* ------------------------------------------------------------------------- environment and file */

/* "MC_MAX_TOKENS" from "max-tokens", and back: one character at a time, both ways. */
static char upper(char c)
{
    return c == '-' ? '_' : c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
}

static char lower(char c)
{
    return c == '_' ? '-' : c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static void environment_name(const char *name, char out[WORD_MAX + 4])
{
    size_t size = 3;

    memcpy(out, "MC_", 3);
    for (const char *c = name; *c && size < WORD_MAX + 3; c++)
        out[size++] = upper(*c);
    out[size] = '\0';
}

static mc_status take_variable(struct settings *s, const char *entry, struct mc_error *error)
{
    char name[WORD_MAX + 1], where[WORD_MAX + 4];
    const size_t size = strcspn(entry + 3, "=");

    if (size > WORD_MAX || entry[3 + size] != '=')
        return MC_OK;
    for (size_t i = 0; i < size; i++)
        name[i] = lower(entry[3 + i]);
    name[size] = '\0';
    const struct setting *row = find(s, name, size);
    if (row && row->type != SETTING_ACTION) {
        environment_name(name, where);
        return assign(s, row, SETTING_ENV, where, entry + 3 + size + 1, error);
    }
    const char *near = row ? NULL : nearest_row(s, name, size);
    if (!near || find(s, near, strlen(near))->type == SETTING_ACTION)
        return MC_OK;
    environment_name(near, where);
    return error_set(error, MC_E_ARG, "MC_%.*s: no such setting; did you mean %s?", (int)size,
                     entry + 3, where);
}

mc_status settings_env(struct settings *s, char *const *environment, struct mc_error *error)
{
    mc_status status = MC_OK;

    for (; *environment && status == MC_OK; environment++)
        if (strncmp(*environment, "MC_", 3) == 0)
            status = take_variable(s, *environment, error);
    return status;
}

static char *trim(char *text)
{
    size_t size;

    text += strspn(text, " \t");
    size = strlen(text);
    while (size > 0 && strchr(" \t\r", text[size - 1]))
        size--;
    text[size] = '\0';
    return text;
}

/* "..." to what it stands for, in place. NULL: a quote is missing or an escape is unknown. */
static char *unquote(char *text)
{
    static const char escapes[] = "\"\"\\\\n\nt\t"; /* pairs: what is written, what it means */
    char *out = text, *c = text + 1;

    for (; *c && *c != '"'; c++) {
        *out = *c;
        if (*c == '\\') {
            size_t i = 0;
            c++;
            while (escapes[i] && escapes[i] != *c)
                i += 2;
            if (!*c || !escapes[i])
                return NULL;
            *out = escapes[i + 1];
        }
        out++;
    }
    if (*c != '"' || c[1] != '\0')
        return NULL;
    *out = '\0';
    return text;
}

static mc_status take_line(struct settings *s, char *line, const char *file, size_t number,
                           struct mc_error *error)
{
    char where[256];

    line = trim(line);
    if (*line == '\0' || *line == '#')
        return MC_OK;
    char *equals = strchr(line, '=');
    if (!equals)
        return error_set(error, MC_E_ARG, "%s:%zu: \"%.80s\" is not `name = value`", file, number,
                         line);
    *equals = '\0';
    const char *name = trim(line);
    const struct setting *row = find(s, name, strlen(name));
    if (!row || row->type == SETTING_ACTION) {
        const char *near = row ? NULL : nearest_row(s, name, strlen(name));
        return error_set(error, MC_E_ARG, "%s:%zu: unknown setting \"%.80s\"%s%s%s", file, number,
                         name, near ? "; did you mean " : "; --help lists the settings",
                         near ? near : "", near ? "?" : "");
    }
    char *text = trim(equals + 1);
    if (*text == '"' && !(text = unquote(text)))
        return error_set(error, MC_E_ARG,
                         "%s:%zu: %s: a text in quotes ends with one and knows \\\" \\\\ \\n \\t",
                         file, number, name);
    snprintf(where, sizeof(where), "%s:%zu: %s", file, number, name);
    return assign(s, row, SETTING_CONFIG, where, text, error);
}

mc_status settings_config(struct settings *s, char *text, size_t size, const char *name,
                          struct mc_error *error)
{
    size_t number = 1;
    mc_status status = MC_OK;

    if (memchr(text, '\0', size))
        return error_set(error, MC_E_ARG, "%s: holds a zero byte; a config file is text", name);
    for (char *line = text; line && status == MC_OK; number++) {
        char *end = memchr(line, '\n', (size_t)(text + size - line));
        if (end)
            *end = '\0';
        status = take_line(s, line, name, number, error);
        line = end ? end + 1 : NULL;
    }
    return status;
}

/* -------------------------------------------------------------------------------- help, print */

static void pad(struct buf *out, size_t from, size_t column)
{
    for (; from < column; from++)
        buf_add_byte(out, ' ');
}

/* Words of `text` from `column` on, wrapped; returns the column behind them. */
static size_t wrap(struct buf *out, const char *text, size_t column)
{
    while (*text) {
        const size_t size = strcspn(text, " ");
        if (column > HELP_COLUMN && column + 1 + size > HELP_WIDTH) {
            buf_add_byte(out, '\n');
            pad(out, 0, HELP_COLUMN);
            column = HELP_COLUMN;
        } else if (column > HELP_COLUMN) {
            buf_add_byte(out, ' ');
            column++;
        }
        buf_add(out, text, size);
        column += size;
        text += size + strspn(text + size, " ");
    }
    return column;
}

static void help_facts(const struct setting *row, struct buf *out, size_t column)
{
    char facts[256] = "[", variable[WORD_MAX + 4];
    int size = 1;

    if (row->type == SETTING_ACTION)
        return;
    environment_name(row->name, variable);
    if (row->max != 0)
        size += snprintf(facts + size, sizeof(facts) - (size_t)size, "%.15g to %.15g; ", row->min,
                         row->max);
    if (row->choices)
        size += snprintf(facts + size, sizeof(facts) - (size_t)size, "%.120s; ", row->choices);
    if (row->initial && row->type != SETTING_BOOL)
        size +=
            snprintf(facts + size, sizeof(facts) - (size_t)size, "default %.30s; ", row->initial);
    snprintf(facts + size, sizeof(facts) - (size_t)size, "%s]", variable);
    wrap(out, facts, column);
}

static void help_row(const struct setting *row, struct buf *out)
{
    const size_t start = out->size;

    if (row->letter)
        buf_addf(out, "  -%c, ", row->letter);
    else
        buf_add_text(out, "      ");
    buf_addf(out, "--%s", row->name);
    if (row->metavar)
        buf_addf(out, " %s", row->metavar);
    size_t column = out->size - start;
    if (column + 2 > HELP_COLUMN) {
        buf_add_byte(out, '\n');
        column = 0;
    }
    pad(out, column, HELP_COLUMN);
    help_facts(row, out, wrap(out, row->help, HELP_COLUMN));
    buf_add_byte(out, '\n');
}

void setting_help(const struct setting *rows, size_t count, struct buf *out)
{
    const char *group = NULL;

    for (size_t i = 0; i < count; i++) {
        if (!group || strcmp(group, rows[i].group) != 0)
            buf_addf(out, "%s%s:\n", i ? "\n" : "", rows[i].group);
        group = rows[i].group;
        help_row(&rows[i], out);
    }
}

static const char *const sources[] = { "default", "config file", "environment", "flag" };

static void print_secret(const char *name, const struct setting_list *list,
                         enum setting_source source, struct buf *out)
{
    if (list->count > 0)
        buf_addf(out, "# %s\n# %s: %u, not shown\n", sources[source], name, list->count);
}

static void print_value(const char *name, const char *text, enum setting_source source,
                        struct buf *out)
{
    buf_addf(out, "# %s\n%s = \"", sources[source], name);
    for (; *text; text++) {
        if (*text == '\n' || *text == '\t') {
            buf_add_text(out, *text == '\n' ? "\\n" : "\\t");
            continue;
        }
        if (*text == '"' || *text == '\\')
            buf_add_byte(out, '\\');
        buf_add_byte(out, (unsigned char)*text);
    }
    buf_add_text(out, "\"\n");
}

void settings_print(const struct settings *s, struct buf *out)
{
    for (size_t i = 0; i < s->count; i++) {
        const struct setting *row = &s->rows[i];
        const struct setting_state *state = &s->states[i];

        if (row->type == SETTING_SECRET)
            print_secret(row->name, field(s, row), state->source, out);
        else if (row->type == SETTING_LIST) {
            const struct setting_list *list = field(s, row);
            for (uint32_t k = 0; k < list->count; k++)
                print_value(row->name, list->items[k], state->source, out);
        } else if (state->text && row->type != SETTING_ACTION)
            print_value(row->name, state->text, state->source, out);
    }
}
