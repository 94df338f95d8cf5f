/* name.c - identities of objects that are known by a name. */
#define OPENSSL_API_COMPAT \
    0x10100000L /* hashes whose context is the caller's: nothing is allocated */
#include <mooncake/store.h>

#include <string.h>

#include <openssl/sha.h>

mc_status mc_identity_of_name(const char *tenant, const void *name, size_t size,
                              struct mc_identity *identity_p)
{
    const char *whose = tenant && *tenant ? tenant : "default";
    SHA256_CTX hash;

    if (!name && size != 0)
        return MC_E_ARG;
    if (strlen(whose) > MC_NAME_MAX)
        return MC_E_RANGE;
    SHA256_Init(&hash);
    SHA256_Update(&hash, whose, strlen(whose) + 1); /* its NUL keeps tenant and name apart */
    if (size != 0)
        SHA256_Update(&hash, name, size);
    SHA256_Final(identity_p->bytes, &hash);
    return MC_OK;
}
