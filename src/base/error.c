/* error.c - error text: formatted once, cut to fit, and clean UTF-8 whatever it quotes. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

/* What came from a file must not steer a terminal, split a log line or break the JSON around it:
 * controls (also those of U+0080 .. U+009F) become blanks, bytes that are not UTF-8 become "?". */
static void make_printable(char *text)
{
    const size_t size = strlen(text);
    size_t out = 0;

    for (size_t in = 0, length; in < size; in += length) {
        uint32_t code = '?';
        length = utf8_decode(text + in, size - in, &code);
        if (length == 0 || code < ' ' || (code >= 0x7f && code <= 0x9f)) {
            text[out++] = length == 0 ? '?' : ' ';
            length = length ? length : 1;
            continue;
        }
        memmove(text + out, text + in, length);
        out += length;
    }
    text[out] = '\0';
}

static void format_cut(char *text, size_t size, const char *format, va_list args)
{
    const int wanted = vsnprintf(text, size, format, args);

    if (wanted < 0)
        text[0] = '\0';
    else if ((size_t)wanted >= size)
        memcpy(text + utf8_complete(text, size - 4), "...", 4);
    make_printable(text);
}

mc_status error_set(struct mc_error *error, mc_status status, const char *format, ...)
{
    if (!error)
        return status;

    va_list args;
    va_start(args, format);
    format_cut(error->text, sizeof(error->text), format, args);
    va_end(args);
    error->status = status;
    return status;
}

mc_status error_prefix(struct mc_error *error, mc_status status, const char *format, ...)
{
    if (!error)
        return status;

    char prefix[sizeof(error->text)], old[sizeof(error->text)];
    va_list args;
    va_start(args, format);
    format_cut(prefix, sizeof(prefix), format, args);
    va_end(args);
    memcpy(old, error->text, sizeof(old));
    error_set(error, status, "%s: %s", prefix, old);
    return status;
}
