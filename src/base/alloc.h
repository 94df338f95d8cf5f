/*
 * alloc.h - checked helpers over the allocator that a library was given (struct mc_alloc).
 *
 * Sizes are computed as count x size with overflow checks here and nowhere else: a count that a
 * file or a socket named must never wrap into a small allocation.
 */
#ifndef BASE_ALLOC_H
#define BASE_ALLOC_H

#include <stdbool.h>
#include <string.h>

#include <mooncake/status.h>

/** a + b and a * b into *out_p; false on overflow, then *out_p is untouched. */
static inline bool size_add(size_t a, size_t b, size_t *out_p)
{
    if (a > SIZE_MAX - b)
        return false;
    *out_p = a + b;
    return true;
}

static inline bool size_mul(size_t a, size_t b, size_t *out_p)
{
    if (b != 0 && a > SIZE_MAX / b)
        return false;
    *out_p = a * b;
    return true;
}

/** `size` bytes, undefined contents, or NULL. A size of 0 gives a pointer that may be freed. */
static inline void *alloc_bytes(const struct mc_alloc *alloc, size_t size)
{
    return alloc->alloc(alloc->context, size ? size : 1);
}

/** count x size zeroed bytes; NULL when memory is out or the product overflows. */
static inline void *alloc_zeroed(const struct mc_alloc *alloc, size_t count, size_t size)
{
    size_t bytes;

    if (!size_mul(count, size, &bytes))
        return NULL;
    void *p = alloc_bytes(alloc, bytes);
    if (p)
        memset(p, 0, bytes);
    return p;
}

/** Resize to count x size bytes; NULL (p still valid) when memory is out or the product overflows. */
static inline void *alloc_resize(const struct mc_alloc *alloc, void *p, size_t count, size_t size)
{
    size_t bytes;

    if (!size_mul(count, size, &bytes))
        return NULL;
    return alloc->resize(alloc->context, p, bytes ? bytes : 1);
}

static inline void alloc_free(const struct mc_alloc *alloc, void *p)
{
    alloc->free(alloc->context, p);
}

/** A copy of length bytes with a NUL behind them, or NULL. Freed with alloc_free(). */
static inline char *alloc_text(const struct mc_alloc *alloc, const char *text, size_t length)
{
    char *copy = alloc_bytes(alloc, length + 1);

    if (copy) {
        memcpy(copy, text, length);
        copy[length] = '\0';
    }
    return copy;
}

#endif /* BASE_ALLOC_H */
