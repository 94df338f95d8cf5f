/* clock.c - monotonic and wall time from Linux. */
#define _GNU_SOURCE
#include "os/clock.h"

#include <time.h>

uint64_t os_now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t os_date_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec;
}

char *os_date_text(uint64_t date_s, char buffer[21])
{
    const uint64_t last_s = 253402300799; /* the end of the year 9999: RFC 3339 has four digits */
    const time_t seconds = (time_t)(date_s < last_s ? date_s : last_s);
    struct tm tm;

    gmtime_r(&seconds, &tm);
    strftime(buffer, 21, "%Y-%m-%dT%H:%M:%SZ", &tm);
    return buffer;
}
