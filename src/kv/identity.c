/* identity.c - the chained hash over OpenSSL's SHA-256. */
/* The functions with a context of the caller's: those that OpenSSL 3 prefers allocate one for each hash. */
#define OPENSSL_API_COMPAT 0x10100000L
#include "kv/identity.h"

#include <stdbool.h>
#include <string.h>

#include <openssl/sha.h>

/* The number is the form's: another form of the bytes hashed is another number. */
static const char tag_model[] = "mooncake kv model 1";
static const char tag_root[] = "mooncake kv root 1";
static const char tag_block[] = "mooncake kv block 1";

static void store_u32(uint8_t *p, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(value >> 8 * i);
}

static void add_u32(SHA256_CTX *hash, uint32_t value)
{
    uint8_t bytes[4];

    store_u32(bytes, value);
    SHA256_Update(hash, bytes, sizeof(bytes));
}

static void add_u64(SHA256_CTX *hash, uint64_t value)
{
    add_u32(hash, (uint32_t)value);
    add_u32(hash, (uint32_t)(value >> 32));
}

static void add_sized(SHA256_CTX *hash, const void *bytes, size_t size)
{
    add_u64(hash, size);
    if (size != 0)
        SHA256_Update(hash, bytes, size);
}

static void add_text(SHA256_CTX *hash, const char *text)
{
    add_sized(hash, text, strlen(text));
}

static void begin(SHA256_CTX *hash, const char *tag)
{
    SHA256_Init(hash);
    add_text(hash, tag);
}

const char *kv_kernel_class(const char *level)
{
    static const char *const exact[] = { "ref", "avx2", "avx512" };

    for (size_t i = 0; i < sizeof(exact) / sizeof(exact[0]); i++)
        if (strcmp(level, exact[i]) == 0)
            return "exact";
    return level;
}

static bool tensors_are_in_order(const struct kv_model *model)
{
    for (size_t i = 0; i < model->tensor_count; i++) {
        const struct kv_tensor *t = &model->tensors[i];

        if (!t->name || !t->dtype)
            return false;
        if (i > 0 && strcmp(model->tensors[i - 1].name, t->name) >= 0)
            return false;
    }
    return true;
}

static void add_layout(SHA256_CTX *hash, const struct mc_kv_layout *layout)
{
    add_u32(hash, layout->layers);
    add_u32(hash, layout->kv_heads);
    add_u32(hash, layout->head_dim);
    add_u32(hash, layout->page_tokens);
    add_u32(hash, (uint32_t)layout->dtype);
}

mc_status kv_fingerprint(const struct kv_model *model, struct mc_identity *fingerprint_p)
{
    SHA256_CTX hash;

    if (!model->kernel || !tensors_are_in_order(model))
        return MC_E_ARG;
    begin(&hash, tag_model);
    add_text(&hash, kv_kernel_class(model->kernel));
    add_layout(&hash, &model->layout);
    add_sized(&hash, model->config, model->config_size);
    add_u64(&hash, model->tensor_count);
    for (size_t i = 0; i < model->tensor_count; i++) {
        const struct kv_tensor *t = &model->tensors[i];

        add_text(&hash, t->name);
        add_text(&hash, t->dtype);
        add_u32(&hash, t->dimensions);
        for (uint32_t d = 0; d < t->dimensions; d++)
            add_u64(&hash, t->shape[d]);
        add_u32(&hash, t->crc);
    }
    SHA256_Final(fingerprint_p->bytes, &hash);
    return MC_OK;
}

void kv_root(const struct mc_identity *fingerprint, const void *tenant, uint32_t tenant_size,
             const void *salt, uint32_t salt_size, struct mc_identity *root_p)
{
    SHA256_CTX hash;

    begin(&hash, tag_root);
    add_sized(&hash, fingerprint->bytes, sizeof(fingerprint->bytes));
    add_sized(&hash, tenant, tenant_size);
    add_sized(&hash, salt, salt_size);
    SHA256_Final(root_p->bytes, &hash);
}

void kv_chain_next(const struct mc_identity *parent, const uint32_t tokens[KV_PAGE_TOKENS],
                   struct mc_identity *identity_p)
{
    uint8_t bytes[KV_PAGE_TOKENS * 4];
    SHA256_CTX hash;

    for (size_t i = 0; i < KV_PAGE_TOKENS; i++)
        store_u32(bytes + 4 * i, tokens[i]);
    begin(&hash, tag_block);
    add_sized(&hash, parent->bytes, sizeof(parent->bytes));
    add_sized(&hash, bytes, sizeof(bytes));
    SHA256_Final(identity_p->bytes, &hash);
}

size_t kv_identities(const struct mc_identity *root, const uint32_t *tokens, size_t token_count,
                     struct mc_identity *identities_p, size_t capacity)
{
    const size_t blocks = token_count / KV_PAGE_TOKENS;
    const size_t count = blocks < capacity ? blocks : capacity;

    for (size_t i = 0; i < count; i++)
        kv_chain_next(i == 0 ? root : &identities_p[i - 1], tokens + i * KV_PAGE_TOKENS,
                      &identities_p[i]);
    return count;
}
