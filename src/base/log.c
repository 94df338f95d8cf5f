/* log.c - lines for a struct mc_log. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

void log_write(const struct mc_log *log, enum mc_log_level level, const char *format, ...)
{
    char line[1000];
    va_list args;

    if (!log->write || level > log->level_max)
        return;
    va_start(args, format);
    const int size = vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    if (size > 0)
        log->write(log->context, level, line,
                   (size_t)size < sizeof(line) ? (size_t)size : sizeof(line) - 1);
}
