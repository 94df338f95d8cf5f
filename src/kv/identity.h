/*
 * identity.h - what a block is called: a SHA-256 chain over everything its bytes depend on.
 *
 *     fingerprint = SHA-256(model: weights, config, KV dtype, layout, kernel class)
 *     root        = SHA-256(fingerprint, tenant, salt)
 *     identity i  = SHA-256(identity i-1, the 16 token ids of block i)       identity -1 = root
 *     key i       = the first 16 bytes of identity i
 *
 * so that an equal identity means an equal whole prefix, of the same model, seen by the same tenant. Each
 * of the three hashes begins with a tag of its own, and every value that can vary in length has its length
 * before it (u64, little-endian): no two different inputs give the same bytes to hash.
 *
 * Known answers are in tests/unit/kv/test_identity.c, made with another implementation: they never change,
 * or every pool would be forgotten.
 *
 * Pure functions; any thread; nothing is allocated.
 */
#ifndef KV_IDENTITY_H
#define KV_IDENTITY_H

#include <mooncake/infer.h>
#include <mooncake/store.h>

#include "kv/layout.h"

/** One tensor of the weights, as it is in the model's files. */
struct kv_tensor {
    const char *name;
    const char *dtype;     /* as the file says: "BF16" */
    const uint64_t *shape; /* [dimensions] */
    uint32_t dimensions;
    uint32_t crc; /* CRC32C of its bytes */
};

/** What a KVCache depends on besides tokens, tenant and salt. All borrowed during the call. */
struct kv_model {
    const struct kv_tensor *tensors; /* [tensor_count], names strictly rising (by strcmp) */
    size_t tensor_count;
    /** Whatever else the arithmetic depends on (rotary base, epsilon, ...), in one form: the bytes of
     * config.json will do. */
    const void *config;
    size_t config_size;
    struct mc_kv_layout layout; /* of its pages, KV dtype among it */
    const char *kernel;         /* kernel level, as mc_engine says: "avx512" */
};

/** The kernel levels whose results are the same bit for bit have one class: "exact" for ref, avx2 and
 * avx512; any other level is a class of its own. Static, or `level`. */
const char *kv_kernel_class(const char *level);

/** Returns MC_OK, or MC_E_ARG when names do not rise or a text is NULL; then nothing is written. */
MC_MUST_USE mc_status kv_fingerprint(const struct kv_model *model,
                                     struct mc_identity *fingerprint_p);

/** Where a chain begins. An empty tenant is the tenant of that name; an empty salt is none. */
void kv_root(const struct mc_identity *fingerprint, const void *tenant, uint32_t tenant_size,
             const void *salt, uint32_t salt_size, struct mc_identity *root_p);

/** The identity of the block of these tokens behind `parent` (a block's, or the root). */
void kv_chain_next(const struct mc_identity *parent, const uint32_t tokens[KV_PAGE_TOKENS],
                   struct mc_identity *identity_p);

/**
 * The identities of the whole blocks of a prompt, in order.
 *
 * identities_p  [capacity]
 *
 * Returns how many were written: min(token_count / 16, capacity).
 */
size_t kv_identities(const struct mc_identity *root, const uint32_t *tokens, size_t token_count,
                     struct mc_identity *identities_p, size_t capacity);

/** What it is looked up by. */
static inline struct mc_key kv_key(const struct mc_identity *identity)
{
    struct mc_key key;

    for (size_t i = 0; i < sizeof(key.bytes); i++)
        key.bytes[i] = identity->bytes[i];
    return key;
}

#endif /* KV_IDENTITY_H */
