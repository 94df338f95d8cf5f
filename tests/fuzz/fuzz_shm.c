/* Addresses and keys that a peer published, and what its control page may say of them. */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "transfer/transport/shm_control.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct shm_page page; /* sparse: what is not touched takes no memory */

/* Whatever key and page say, an access that is allowed lies inside its region. */
static void check(const struct shm_key *key, const uint8_t *data, size_t size)
{
    struct shm_region_slot *region = &page.regions[key->region % SHM_REGIONS];
    struct shm_window_slot *window = &page.windows[key->window % SHM_WINDOWS];
    struct transport_access access;
    struct shm_place place;

    if (size < sizeof(*region) + sizeof(*window) + sizeof(access))
        return;
    memcpy((void *)region, data, sizeof(*region));
    memcpy((void *)window, data + sizeof(*region), sizeof(*window));
    memcpy(&access, data + sizeof(*region) + sizeof(*window), sizeof(access));
    access.op = data[0] & 1 ? MC_READ : MC_WRITE;
    if (data[0] & 2)
        window->tag = shm_tag(access.key);
    if (shm_check(&page, key, &access, &place) == MC_OK) {
        assert(place.offset <= place.size && access.length <= place.size - place.offset);
        assert(place.permissions & (access.op == MC_READ ? MC_REMOTE_READ : MC_REMOTE_WRITE));
    }
    memset((void *)region, 0, sizeof(*region));
    memset((void *)window, 0, sizeof(*window));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t again[SHM_ADDRESS_BYTES];
    struct shm_address address;
    struct shm_key key;

    if (shm_address_decode(data, size, &address)) {
        shm_address_encode(&address, again);
        assert(memcmp(again, data, size) == 0);
    }
    const size_t key_size = size < SHM_KEY_BYTES ? size : SHM_KEY_BYTES;
    if (shm_key_decode(data, key_size, &key)) {
        shm_key_encode(&key, again);
        assert(memcmp(again, data, SHM_KEY_BYTES - 4) == 0); /* what is reserved is not kept */
        check(&key, data + key_size, size - key_size);
    }
    return 0;
}
