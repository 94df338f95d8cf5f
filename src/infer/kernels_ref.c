/* kernels_ref.c - the kernels in plain C: what they mean, and what runs where nothing else does. */
#include "infer/vec_ref.h"

#include "infer/kernels_body.h"

const struct kernels kernels_ref = KERNELS_TABLE("ref");
