/*
 * fingerprint.h - what a worker's KVCache depends on, as one hash: the same at every worker whose pages may
 * be mixed with this one's.
 */
#ifndef WORKER_FINGERPRINT_H
#define WORKER_FINGERPRINT_H

#include <mooncake/infer.h>
#include <mooncake/store.h>

/**
 * Of an open model, its config.json, the layout of the engine's pages and its kernel level. Reads every
 * byte of the weights once.
 *
 * Returns MC_OK, MC_E_NOMEM, or what reading config.json returns.
 */
mc_status fingerprint_of(const mc_model *model, const char *directory,
                         const struct mc_kv_layout *layout, const char *kernel,
                         const struct mc_alloc *alloc, struct mc_identity *fingerprint_p,
                         struct mc_error *error);

#endif /* WORKER_FINGERPRINT_H */
