/* shm_key.c - addresses and keys of the shared-memory transport as bytes. */
#include "transfer/transport/shm_key.h"

#include <string.h>

#include "transfer/transport.h"
#include "wire/bytes.h"

static_assert((int)SHM_ADDRESS_BYTES <= (int)TRANSPORT_KEY_MAX &&
                  (int)SHM_KEY_BYTES <= (int)TRANSPORT_KEY_MAX,
              "both are published in fields of that size");

void shm_address_encode(const struct shm_address *address, uint8_t bytes[SHM_ADDRESS_BYTES])
{
    put_u32(bytes, SHM_VERSION);
    memcpy(bytes + 4, address->name, SHM_NAME_BYTES);
    memcpy(bytes + 20, address->ask.bytes, 32);
    memcpy(bytes + 52, address->answer.bytes, 32);
}

bool shm_address_decode(const uint8_t *bytes, size_t size, struct shm_address *address_p)
{
    if (!bytes || size != SHM_ADDRESS_BYTES || get_u32(bytes) != SHM_VERSION)
        return false;
    memcpy(address_p->name, bytes + 4, SHM_NAME_BYTES);
    memcpy(address_p->ask.bytes, bytes + 20, 32);
    memcpy(address_p->answer.bytes, bytes + 52, 32);
    return true;
}

void shm_key_encode(const struct shm_key *key, uint8_t bytes[SHM_KEY_BYTES])
{
    put_u32(bytes, SHM_VERSION);
    put_u32(bytes + 4, key->region);
    put_u64(bytes + 8, key->generation);
    put_u64(bytes + 16, key->ticket);
    put_u32(bytes + 24, key->window);
    put_u32(bytes + 28, 0);
}

bool shm_key_decode(const uint8_t *bytes, size_t size, struct shm_key *key_p)
{
    if (!bytes || size != SHM_KEY_BYTES || get_u32(bytes) != SHM_VERSION)
        return false;
    *key_p = (struct shm_key){ .region = get_u32(bytes + 4),
                               .generation = get_u64(bytes + 8),
                               .ticket = get_u64(bytes + 16),
                               .window = get_u32(bytes + 24) };
    return key_p->region != 0 && key_p->generation != 0;
}
