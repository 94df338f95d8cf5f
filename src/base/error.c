/* error.c - error text: formatted once, cut with "..." so that a long path never overflows. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void format_cut(char *text, size_t size, const char *format, va_list args)
{
    const int wanted = vsnprintf(text, size, format, args);

    if (wanted < 0)
        text[0] = '\0';
    else if ((size_t)wanted >= size)
        memcpy(text + size - 4, "...", 4);
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = ' '; /* what came from a file must not steer a terminal or split a log line */
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
