/* kernels.c - which tables this processor can run, asked once per call of the processor itself. */
#include "infer/kernels.h"

#include <string.h>

const struct kernels *const *kernels_usable(void)
{
#if defined(__x86_64__)
    static const struct kernels *const all[] = { &kernels_avx512_bf16, &kernels_avx512,
                                                 &kernels_avx2, &kernels_ref, NULL };

    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vl");
    if (avx512 && __builtin_cpu_supports("avx512bf16"))
        return all;
    return all + (avx512 ? 1 : avx2 ? 2 : 3);
#else
    static const struct kernels *const all[] = { &kernels_ref, NULL };

    return all;
#endif
}

const struct kernels *kernels_find(const char *name)
{
    const struct kernels *const *table = kernels_usable();

    for (; *table && name; table++)
        if (strcmp((*table)->name, name) == 0)
            break;
    return *table;
}
