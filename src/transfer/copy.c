/* copy.c - streaming copies for AVX-512 and AVX2; memcpy everywhere else. */
#include "transfer/copy.h"

#include <stdint.h>
#include <string.h>

/* What a processor's caches may still hold when it is read again is copied faster by memcpy (three times,
 * from L2); cold memory faster by streaming (1.5 times on Cascade Lake, 2 on Zen 4). Blocks of KVCache
 * are cold, and from here on what is copied mostly is one. */
enum { STREAM_MIN = 256 << 10 };

#if defined(__x86_64__)
#include <immintrin.h>

/* Four pages are walked side by side, 256 bytes each in turn: the processor then has four times the
 * rows of memory open and the misses of four TLB entries in flight (as large copies of glibc do). One
 * page after the other gains nothing on Cascade Lake. */
enum { LINE = 64, STEP = 4 * LINE, PAGE = 4096, PAGES = 4, BLOCK = PAGES * PAGE };

/* Bytes until `to` is at the start of a cache line: streaming stores need whole lines. */
static size_t to_line(const void *to, size_t size)
{
    const size_t head = (size_t)(-(uintptr_t)to & (LINE - 1));

    return head < size ? head : size;
}

static inline void fetch(const char *from)
{
    for (size_t line = 0; line < STEP; line += LINE)
        _mm_prefetch(from + line, _MM_HINT_T0);
}

__attribute__((target("avx512f"))) static inline void step_avx512(char *to, const char *from)
{
    const __m512i a = _mm512_loadu_si512(from), b = _mm512_loadu_si512(from + LINE),
                  c = _mm512_loadu_si512(from + 2 * LINE), d = _mm512_loadu_si512(from + 3 * LINE);

    _mm512_stream_si512((void *)to, a);
    _mm512_stream_si512((void *)(to + LINE), b);
    _mm512_stream_si512((void *)(to + 2 * LINE), c);
    _mm512_stream_si512((void *)(to + 3 * LINE), d);
}

__attribute__((target("avx2"))) static inline void line_avx2(char *to, const char *from)
{
    const __m256i a = _mm256_loadu_si256((const void *)from);
    const __m256i b = _mm256_loadu_si256((const void *)(from + LINE / 2));

    _mm256_stream_si256((void *)to, a);
    _mm256_stream_si256((void *)(to + LINE / 2), b);
}

__attribute__((target("avx2"))) static inline void step_avx2(char *to, const char *from)
{
    for (size_t line = 0; line < STEP; line += LINE)
        line_avx2(to + line, from + line);
}

/* The same walk for each width: blocks of four pages, then single steps, then what is left. A function
 * of its own for each, because inlining does not cross targets. */
#define STREAM(name, isa, step) \
    __attribute__((target(isa))) static void name(void *to, const void *from, size_t size) \
    { \
        const size_t head = to_line(to, size); \
        char *t = to; \
        const char *f = from; \
\
        memcpy(t, f, head); \
        t += head, f += head, size -= head; \
        for (; size >= BLOCK; t += BLOCK, f += BLOCK, size -= BLOCK) \
            for (size_t in = 0; in < PAGE; in += STEP) \
                for (size_t page = 0; page < BLOCK; page += PAGE) { \
                    fetch(f + page + (in + STEP) % PAGE); \
                    step(t + page + in, f + page + in); \
                } \
        for (; size >= STEP; t += STEP, f += STEP, size -= STEP) \
            step(t, f); \
        _mm_sfence(); /* streaming stores have no order: all before whatever follows */ \
        memcpy(t, f, size); \
    }

STREAM(stream_avx512, "avx512f", step_avx512)
STREAM(stream_avx2, "avx2", step_avx2)
#endif

const struct copy_way *copy_ways(void)
{
#if defined(__x86_64__)
    static const struct copy_way all[] = {
        { "avx512", stream_avx512 }, { "avx2", stream_avx2 }, { "memcpy", NULL }, { NULL, NULL }
    };

    __builtin_cpu_init();
    return all + (__builtin_cpu_supports("avx512f") ? 0 : __builtin_cpu_supports("avx2") ? 1 : 2);
#else
    static const struct copy_way all[] = { { "memcpy", NULL }, { NULL, NULL } };

    return all;
#endif
}

void copier_init(struct copier *copier)
{
    const struct copy_way *best = copy_ways();

    *copier =
        (struct copier){ .stream = best->stream, .stream_min = STREAM_MIN, .name = best->name };
}

void copier_copy(const struct copier *copier, void *to, const void *from, size_t size, size_t total)
{
    if (copier->stream && total >= copier->stream_min)
        copier->stream(to, from, size);
    else if (size)
        memcpy(to, from, size);
}
