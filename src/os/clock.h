/* clock.h - the one place that asks what time it is. Any thread. */
#ifndef OS_CLOCK_H
#define OS_CLOCK_H

#include <stdint.h>

/** Nanoseconds of CLOCK_MONOTONIC: for intervals and deadlines, never for dates. */
uint64_t os_now_ns(void);

/** Seconds since 1970, for time stamps that people and protocols see. */
uint64_t os_date_s(void);

/** `buffer` becomes "2026-11-22T14:42:00Z"; returns it. Later than the year 9999 is its end. */
char *os_date_text(uint64_t date_s, char buffer[21]);

#endif /* OS_CLOCK_H */
