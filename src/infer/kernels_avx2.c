/* kernels_avx2.c - the kernels for AVX2 with FMA (2013 and later). */
#include "infer/vec_avx2.h"

#include "infer/kernels_body.h"

const struct kernels kernels_avx2 = KERNELS_TABLE("avx2");
