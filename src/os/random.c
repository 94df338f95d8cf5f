/* random.c - getrandom, all of it. */
#define _GNU_SOURCE
#include "os/random.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

void os_random(void *bytes, size_t size)
{
    unsigned char *p = bytes;

    while (size > 0) {
        const ssize_t n = getrandom(p, size, 0);
        if (n < 0 && errno != EINTR)
            abort(); /* going on would mean tokens that can be guessed */
        if (n > 0) {
            p += n;
            size -= (size_t)n;
        }
    }
}

uint64_t os_random_u64(void)
{
    uint64_t bits = 0;

    while (bits == 0)
        os_random(&bits, sizeof(bits));
    return bits;
}
