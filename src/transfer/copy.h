/*
 * copy.h - large copies between memories, by instructions chosen at run time.
 *
 * A copy whose target is not read soon by the one who copies is twice as fast when its stores go past
 * the caches: the target's lines are not fetched first, only to be overwritten, and what the caches
 * hold stays. A copy that stays in the caches is faster with plain stores. So the size of the whole
 * transfer decides, not that of the piece that is copied now.
 *
 * Life:    copier_init once; a copier is plain memory and is only read afterwards.
 * Threads: any number may copy with one copier.
 * Memory:  nothing is allocated; ranges may have any address and must not overlap.
 */
#ifndef TRANSFER_COPY_H
#define TRANSFER_COPY_H

#include <stddef.h>

/** Copies with stores that go past the caches; when it returns, they are visible like others. */
typedef void copy_stream(void *to, const void *from, size_t size);

struct copier {
    copy_stream *stream; /* NULL: this processor has none; memcpy serves */
    size_t stream_min;   /* bytes of a transfer from which on `stream` is used */
    const char *name;    /* "avx512", "avx2", "memcpy"; static */
};

/** How to copy. `stream` may be NULL. Static. */
struct copy_way {
    const char *name;
    copy_stream *stream;
};

/** What this processor can do, best first, ended by a NULL name; "memcpy" is always there. */
const struct copy_way *copy_ways(void);

/** The best way here. */
void copier_init(struct copier *copier);

/** Copy `size` bytes, a part of a transfer of `total` bytes. Hot. */
void copier_copy(const struct copier *copier, void *to, const void *from, size_t size,
                 size_t total);

#endif /* TRANSFER_COPY_H */
