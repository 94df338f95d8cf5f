/* log.h - one line for the sink that was given, made only if somebody wants it. */
#ifndef GATEWAY_LOG_H
#define GATEWAY_LOG_H

#include <mooncake/transfer.h>

/** logfmt, lower case, without a newline; cut at 1000 bytes. */
void log_line(const struct mc_log *log, enum mc_log_level level, const char *format, ...)
    MC_PRINTF(3, 4);

#endif /* GATEWAY_LOG_H */
