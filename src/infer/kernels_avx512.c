/* kernels_avx512.c - the kernels for AVX-512 (F, BW, DQ, VL). */
#include "infer/vec_avx512.h"

#include "infer/kernels_body.h"

const struct kernels kernels_avx512 = KERNELS_TABLE("avx512");
