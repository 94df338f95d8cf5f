/*
 * scan.h - walk over one JSON text, value by value, without building anything.
 *
 * For lines that come by the million and of which few fields matter: a trace's, an event's of a stream. As
 * strict as RFC 8259: control characters, bad escapes, lone surrogates and what is not UTF-8 are refused, and
 * so is nesting beyond SCAN_DEPTH. Duplicate keys are the caller's to find: nothing is remembered here.
 *
 *     struct scan s = scan_begin(line, size);
 *     for (bool more = scan_object(&s); more && scan_key(&s, &key);)
 *         scan_is(&key, "id") ? scan_number(&s, &id) : scan_skip(&s);
 *     if (!scan_end(&s))
 *         complain(s.problem, s.at);
 *
 * Threads: one. Memory: texts found are borrowed from the text given. Errors: the first problem is kept with
 * its place, and every later call says false.
 */
#ifndef SIM_SCAN_H
#define SIM_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SCAN_DEPTH = 32 };

struct scan {
    const char *start, *at, *end;
    const char *problem; /* NULL: none so far. Static, "expected ..."; `at` is where */
    bool first;          /* just behind a '{' or '[' */
};

enum scan_type {
    SCAN_NONE, /* the end, or no value */
    SCAN_OBJECT,
    SCAN_ARRAY,
    SCAN_STRING,
    SCAN_NUMBER,
    SCAN_TRUE,
    SCAN_FALSE,
    SCAN_NULL,
};

/** A string as it is written between its quotes, or the characters of a number. */
struct scan_text {
    const char *data;
    size_t size;
    bool escaped; /* holds a '\\' */
};

static inline struct scan scan_begin(const char *text, size_t size)
{
    return (struct scan){ .start = text, .at = text, .end = text + size };
}

/** What comes next. Never fails. */
enum scan_type scan_peek(struct scan *scan);

/** Enter an object; then scan_key() before each value, until it says false: behind the '}', or a problem. */
bool scan_object(struct scan *scan);
bool scan_key(struct scan *scan, struct scan_text *key_p);

/** Enter an array; then scan_element() before each value, until it says false: behind the ']', or a problem. */
bool scan_array(struct scan *scan);
bool scan_element(struct scan *scan);

bool scan_string(struct scan *scan, struct scan_text *text_p);
bool scan_number(struct scan *scan, struct scan_text *text_p);

/** Pass over any value, checked. */
bool scan_skip(struct scan *scan);

/** Nothing but blanks is left, and there was no problem. */
bool scan_end(struct scan *scan);

/** Whether a text is this word, written without escapes. */
bool scan_is(const struct scan_text *text, const char *word);

/** The number as a whole one from 0 to `max`; false: it is negative, larger, or has a fraction or exponent. */
bool scan_whole(const struct scan_text *number, uint64_t max, uint64_t *value_p);

/** Copy a string with its escapes resolved, cut at a character's end, NUL behind it; `size` > 0. Returns
 * its length. */
size_t scan_copy(const struct scan_text *text, char *to, size_t size);

#endif /* SIM_SCAN_H */
