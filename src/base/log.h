/* log.h - one line for the sink that was given, made only if somebody wants it. Any thread that the sink
 * allows; nothing is allocated. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <mooncake/transfer.h>

/** logfmt, lower case, without a newline; cut at 1000 bytes. */
void log_write(const struct mc_log *log, enum mc_log_level level, const char *format, ...)
    MC_PRINTF(3, 4);

#endif /* BASE_LOG_H */
