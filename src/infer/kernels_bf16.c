/*
 * kernels_bf16.c - AVX-512 with BF16 dot products: BF16 weights times activations rounded to BF16.
 *
 * vdpbf16ps takes two links of a chain at a time and treats subnormals as zero (Intel SDM). With
 * MC_EMULATE_BF16 the pairs are spelt as two multiply-adds, so that everything but the instruction
 * itself is tested on processors that lack it; that table is for tests and never among the usable ones.
 */
#include "infer/vec_avx512.h"

#define KERNELS_ROUND_ROWS 1
#ifndef MC_EMULATE_BF16
#define KERNELS_DOT_PAIRS
static inline v16 v_dot_pairs(v16 x, v16 w, v16 sum)
{
    return _mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)w);
}
#endif
#include "infer/kernels_body.h"

#ifdef MC_EMULATE_BF16
extern const struct kernels kernels_emulated_bf16;
const struct kernels kernels_emulated_bf16 = KERNELS_TABLE("avx512-bf16-emulated");
#else
const struct kernels kernels_avx512_bf16 = KERNELS_TABLE("avx512-bf16");
#endif
