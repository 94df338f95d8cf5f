/* tensor.h - a matrix or vector of weights, where it lies and what it is. Read-only. */
#ifndef INFER_TENSOR_H
#define INFER_TENSOR_H

#include <stdint.h>

#include <mooncake/infer.h>

struct tensor {
    const void *data;    /* (rows, cols), row-major, borrowed, aligned; NULL: not there */
    enum mc_dtype dtype; /* MC_DTYPE_F32 or MC_DTYPE_BF16 */
    uint32_t rows, cols; /* a vector has rows == 1 */
};

#endif /* INFER_TENSOR_H */
