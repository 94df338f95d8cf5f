/*
 * kernel_tables.h - every kernel table that a test can run here: the processor's own, and the BF16
 * level with its pairs spelt as multiply-adds where there is AVX-512 (tests/unit/infer/CMakeLists.txt).
 */
#ifndef TESTS_KERNEL_TABLES_H
#define TESTS_KERNEL_TABLES_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "infer/kernels.h"

enum { KERNEL_TABLES_MAX = 8 };

#ifdef MC_EMULATED_BF16
extern const struct kernels kernels_emulated_bf16;

static inline const struct kernels *emulated_bf16(void)
{
    return kernels_find("avx512") ? &kernels_emulated_bf16 : NULL;
}
#else
static inline const struct kernels *emulated_bf16(void)
{
    return NULL;
}
#endif

/** Best first, "ref" last but for the emulated one; returns how many. */
static inline size_t kernel_tables(const struct kernels *tables[KERNEL_TABLES_MAX])
{
    size_t count = 0;

    for (const struct kernels *const *k = kernels_usable(); *k; k++)
        tables[count++] = *k;
    if (emulated_bf16())
        tables[count++] = emulated_bf16();
    return count;
}

/** Whether subnormals are zero in this table's BF16 products (vdpbf16ps). */
static inline bool flushes_subnormals(const struct kernels *kernels)
{
    return strcmp(kernels->name, "avx512-bf16") == 0;
}

#endif /* TESTS_KERNEL_TABLES_H */
