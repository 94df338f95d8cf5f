/* scan.c - the grammar of RFC 8259, one production a function. */
#include "sim/scan.h"

#include <string.h>

#include "base/utf8.h"

static bool fail(struct scan *s, const char *problem)
{
    if (!s->problem)
        s->problem = problem;
    return false;
}

static void pass_blanks(struct scan *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\t' || *s->at == '\n' || *s->at == '\r'))
        s->at++;
}

static bool take(struct scan *s, char wanted, const char *problem)
{
    pass_blanks(s);
    if (s->problem || s->at == s->end || *s->at != wanted)
        return fail(s, problem);
    s->at++;
    return true;
}

enum scan_type scan_peek(struct scan *s)
{
    pass_blanks(s);
    if (s->problem || s->at == s->end)
        return SCAN_NONE;
    switch (*s->at) {
    case '{':
        return SCAN_OBJECT;
    case '[':
        return SCAN_ARRAY;
    case '"':
        return SCAN_STRING;
    case 't':
        return SCAN_TRUE;
    case 'f':
        return SCAN_FALSE;
    case 'n':
        return SCAN_NULL;
    default:
        return *s->at == '-' || (*s->at >= '0' && *s->at <= '9') ? SCAN_NUMBER : SCAN_NONE;
    }
}

/* ------------------------------------------------------------------------------------- containers */

bool scan_object(struct scan *s)
{
    return s->first = take(s, '{', "expected an object");
}

bool scan_array(struct scan *s)
{
    return s->first = take(s, '[', "expected an array");
}

/* Before the next member: false behind the closing bracket. */
static bool next(struct scan *s, char close, const char *problem)
{
    const bool first = s->first;

    s->first = false;
    pass_blanks(s);
    if (s->problem || s->at == s->end)
        return fail(s, problem);
    if (*s->at == close) {
        s->at++;
        return false;
    }
    return first || take(s, ',', problem);
}

bool scan_key(struct scan *s, struct scan_text *key_p)
{
    if (!next(s, '}', "expected ',' or '}'"))
        return false;
    if (scan_peek(s) != SCAN_STRING)
        return fail(s, "expected a key in double quotes");
    return scan_string(s, key_p) && take(s, ':', "expected ':'");
}

bool scan_element(struct scan *s)
{
    return next(s, ']', "expected ',' or ']'");
}

/* ---------------------------------------------------------------------------------------- strings */

static int hex(const char *at, const char *end)
{
    int value = 0;

    if (end - at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        const char c = at[i];
        const int digit = c >= '0' && c <= '9'   ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* The escape at `at` (a '\\'); returns how many characters it has, 0: it is none. */
static size_t escape(const char *at, const char *end, uint32_t *code_p)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";

    if (end - at < 2 || at[1] == '\0')
        return 0;
    const char *simple = strchr(names, at[1]);
    if (simple) {
        *code_p = (uint32_t)values[simple - names];
        return 2;
    }
    const int high = at[1] == 'u' ? hex(at + 2, end) : -1;
    if (high < 0 || (high >= 0xdc00 && high < 0xe000))
        return 0;
    *code_p = (uint32_t)high;
    if (high < 0xd800 || high >= 0xe000)
        return 6;
    const int low = end - at >= 12 && at[6] == '\\' && at[7] == 'u' ? hex(at + 8, end) : -1;
    if (low < 0xdc00 || low >= 0xe000)
        return 0;
    *code_p = 0x10000u + ((uint32_t)(high - 0xd800) << 10) + (uint32_t)(low - 0xdc00);
    return 12;
}

/* One character of a string that is neither a quote nor plain ASCII. */
static bool pass_character(struct scan *s)
{
    uint32_t code;
    size_t size;

    if (*s->at == '\\') {
        size = escape(s->at, s->end, &code);
        if (size == 0)
            return fail(s, "expected an escape that JSON has");
    } else if ((unsigned char)*s->at < 0x20) {
        return fail(s, "expected no control character in a string");
    } else {
        size = utf8_decode(s->at, (size_t)(s->end - s->at), &code);
        if (size == 0)
            return fail(s, "expected UTF-8");
    }
    s->at += size;
    return true;
}

bool scan_string(struct scan *s, struct scan_text *text_p)
{
    if (!take(s, '"', "expected a string"))
        return false;
    const char *start = s->at;
    bool escaped = false;
    while (s->at < s->end && *s->at != '"') {
        if ((unsigned char)*s->at >= 0x20 && (unsigned char)*s->at < 0x80 && *s->at != '\\') {
            s->at++;
            continue;
        }
        escaped = escaped || *s->at == '\\';
        if (!pass_character(s))
            return false;
    }
    if (s->at == s->end)
        return fail(s, "expected '\"' at the string's end");
    *text_p = (struct scan_text){ start, (size_t)(s->at++ - start), escaped };
    return true;
}

bool scan_is(const struct scan_text *text, const char *word)
{
    return text->size == strlen(word) && memcmp(text->data, word, text->size) == 0;
}

size_t scan_copy(const struct scan_text *text, char *to, size_t size)
{
    const char *at = text->data, *end = text->data + text->size;
    size_t length = 0;
    uint32_t code;

    while (at < end) {
        char character[4];
        const bool written = *at == '\\';
        const size_t from =
            written ? escape(at, end, &code) : utf8_decode(at, (size_t)(end - at), &code);
        if (from == 0)
            break; /* scan_string() accepted it, so this is another text */
        const size_t bytes = utf8_encode(code, character);
        if (length + bytes >= size)
            break;
        memcpy(to + length, character, bytes);
        length += bytes;
        at += from;
    }
    to[length] = '\0';
    return length;
}

/* ---------------------------------------------------------------------------------------- numbers */

static size_t pass_digits(struct scan *s)
{
    const char *start = s->at;

    while (s->at < s->end && *s->at >= '0' && *s->at <= '9')
        s->at++;
    return (size_t)(s->at - start);
}

bool scan_number(struct scan *s, struct scan_text *text_p)
{
    if (scan_peek(s) != SCAN_NUMBER)
        return fail(s, "expected a number");
    const char *start = s->at;
    s->at += *s->at == '-';
    const char *digits = s->at;
    if (pass_digits(s) == 0 || (*digits == '0' && s->at - digits > 1))
        return fail(s, "expected a number as JSON writes it");
    if (s->at < s->end && *s->at == '.') {
        s->at++;
        if (pass_digits(s) == 0)
            return fail(s, "expected digits behind the point");
    }
    if (s->at < s->end && (*s->at == 'e' || *s->at == 'E')) {
        s->at++;
        s->at += s->at < s->end && (*s->at == '+' || *s->at == '-');
        if (pass_digits(s) == 0)
            return fail(s, "expected digits of the exponent");
    }
    *text_p = (struct scan_text){ start, (size_t)(s->at - start), false };
    return true;
}

bool scan_whole(const struct scan_text *number, uint64_t max, uint64_t *value_p)
{
    uint64_t value = 0;

    for (size_t i = 0; i < number->size; i++) {
        if (number->data[i] < '0' || number->data[i] > '9')
            return false;
        const uint64_t digit = (uint64_t)(number->data[i] - '0');
        if (digit > max || value > (max - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *value_p = value;
    return number->size > 0;
}

/* ------------------------------------------------------------------------------------------- rest */

static bool pass_word(struct scan *s, const char *word)
{
    const size_t size = strlen(word);

    if ((size_t)(s->end - s->at) < size || memcmp(s->at, word, size) != 0)
        return fail(s, "expected a value");
    s->at += size;
    return true;
}

static bool skip(struct scan *s, uint32_t depth)
{
    struct scan_text text;

    if (depth == SCAN_DEPTH)
        return fail(s, "expected less nesting");
    switch (scan_peek(s)) {
    case SCAN_OBJECT:
        for (bool more = scan_object(s); more && scan_key(s, &text);)
            more = skip(s, depth + 1);
        return !s->problem;
    case SCAN_ARRAY:
        for (bool more = scan_array(s); more && scan_element(s);)
            more = skip(s, depth + 1);
        return !s->problem;
    case SCAN_STRING:
        return scan_string(s, &text);
    case SCAN_NUMBER:
        return scan_number(s, &text);
    case SCAN_TRUE:
        return pass_word(s, "true");
    case SCAN_FALSE:
        return pass_word(s, "false");
    case SCAN_NULL:
        return pass_word(s, "null");
    case SCAN_NONE:
        break;
    }
    return fail(s, "expected a value");
}

bool scan_skip(struct scan *s)
{
    return skip(s, 0);
}

bool scan_end(struct scan *s)
{
    pass_blanks(s);
    if (!s->problem && s->at != s->end)
        return fail(s, "expected nothing more");
    return !s->problem;
}
