/*
 * weights.h - a model directory's tensors, found, checked against the configuration and put in place.
 *
 * One file, model.safetensors, or shards that model.safetensors.index.json names:
 *
 *     { "metadata": ..., "weight_map": { "model.norm.weight": "model-00002-of-00002.safetensors", ... } }
 *
 * Memory: matrices stay where the file is mapped; those that are not aligned there are copied.
 * Errors: texts name the file and the tensor.
 */
#ifndef INFER_WEIGHTS_H
#define INFER_WEIGHTS_H

#include "infer/model.h"

/**
 * Fill shards, layers, embedding, head, final_norm, vectors, copies, parameters, weight_bytes and
 * dtype of `model`, whose alloc and config are set and whose other fields are zero. Without
 * lm_head, and where the configuration does not ask for one, config.tied becomes true.
 *
 * On failure `model` holds what was opened so far; weights_fini() frees it in either case.
 *
 * Returns MC_OK, MC_E_NOT_FOUND, MC_E_FORMAT, MC_E_RANGE, MC_E_UNSUPPORTED, MC_E_IO, MC_E_NOMEM.
 */
mc_status weights_open(struct mc_model *model, const char *directory, struct mc_error *error);

void weights_fini(struct mc_model *model);

/** "directory/file" into path; MC_E_RANGE if it does not fit. */
enum { MODEL_PATH_MAX = 4096 };
mc_status model_path(const char *directory, const char *file, char path[MODEL_PATH_MAX],
                     struct mc_error *error);

#endif /* INFER_WEIGHTS_H */
