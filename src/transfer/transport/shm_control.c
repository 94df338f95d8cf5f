/* shm_control.c - make, map and read the control page. */
#define _GNU_SOURCE
#include "transfer/transport/shm_control.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/prng.h"

uint64_t shm_tag(const uint64_t key[2])
{
    return prng_mix(key[0]) ^ prng_mix(key[1] + 1);
}

mc_status shm_memory_open(size_t size, int seals, int *fd_p, void **memory_p,
                          struct mc_error *error)
{
    const int fd = memfd_create("mooncake-control", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0)
        return error_set(error,
                         errno == EMFILE || errno == ENFILE ? MC_E_FULL
                         : errno == ENOMEM                  ? MC_E_NOMEM
                                                            : MC_E_IO,
                         "shm: memfd_create: %s", strerror(errno));
    if (ftruncate(fd, (off_t)size) != 0) {
        error_set(error, MC_E_IO, "shm: ftruncate to %zu bytes: %s", size, strerror(errno));
        close(fd);
        return MC_E_IO;
    }
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
        error_set(error, MC_E_NOMEM, "shm: mmap of %zu bytes: %s", size, strerror(errno));
        close(fd);
        return MC_E_NOMEM;
    }
    madvise(memory, size, MADV_DONTFORK);
    const int always = F_SEAL_SHRINK | F_SEAL_GROW;
    if (fcntl(fd, F_ADD_SEALS, always | seals | F_SEAL_SEAL) != 0 &&
        fcntl(fd, F_ADD_SEALS, always | F_SEAL_SEAL) != 0) { /* Linux < 5.1 lacks FUTURE_WRITE */
        error_set(error, MC_E_IO, "shm: sealing: %s", strerror(errno));
        munmap(memory, size);
        close(fd);
        return MC_E_IO;
    }
    *fd_p = fd;
    *memory_p = memory;
    return MC_OK;
}

mc_status shm_memory_map(int fd, uint64_t offset, size_t size, bool writable, void **memory_p,
                         struct mc_error *error)
{
    struct stat status;
    const int seals = fcntl(fd, F_GET_SEALS);

    if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &status) != 0)
        return error_set(error, MC_E_FORMAT, "shm: the peer sent a file that could shrink");
    const uint64_t file_bytes = (uint64_t)status.st_size;
    if (size == 0 || offset > file_bytes || size > file_bytes - offset)
        return error_set(error, MC_E_FORMAT,
                         "shm: the peer sent a file of %llu bytes for %zu at %llu",
                         (unsigned long long)file_bytes, size, (unsigned long long)offset);
    void *memory = mmap(NULL, size, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd,
                        (off_t)offset);
    if (memory == MAP_FAILED)
        return error_set(error, errno == ENOMEM ? MC_E_NOMEM : MC_E_IO,
                         "shm: mapping %zu bytes of the peer: %s", size, strerror(errno));
    madvise(memory, size, MADV_DONTFORK);
    *memory_p = memory;
    return MC_OK;
}

bool shm_memory_sealed(int fd)
{
    int seals = fcntl(fd, F_GET_SEALS);

    if (seals >= 0 && !(seals & F_SEAL_SHRINK) && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) == 0)
        seals |= F_SEAL_SHRINK;
    return seals >= 0 && seals & F_SEAL_SHRINK;
}

static const uint64_t MAGIC = 0x73656761702d636d; /* "mc-pages" */

void shm_page_init(struct shm_page *page, uint64_t incarnation)
{
    page->header = (struct shm_header){ .magic = MAGIC,
                                        .version = SHM_VERSION,
                                        .regions = SHM_REGIONS,
                                        .windows = SHM_WINDOWS,
                                        .incarnation = incarnation };
}

bool shm_page_valid(const struct shm_page *page, uint64_t incarnation)
{
    const struct shm_header h = page->header;

    return h.magic == MAGIC && h.version == SHM_VERSION && h.regions == SHM_REGIONS &&
           h.windows == SHM_WINDOWS && h.incarnation == incarnation;
}

static uint64_t get(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

/* Sequentially consistent, after the pin: shm_control.h. What was written to the slot before its generation
 * is there then. */
static uint64_t live(const _Atomic uint64_t *generation)
{
    return atomic_load(generation);
}

static uint32_t may(enum mc_op op)
{
    return op == MC_READ ? MC_REMOTE_READ : MC_REMOTE_WRITE;
}

static bool inside(uint64_t offset, uint64_t length, uint64_t size)
{
    return offset <= size && length <= size - offset;
}

static mc_status check_window(const struct shm_window_slot *slot, const struct shm_key *key,
                              const struct transport_access *access)
{
    if (live(&slot->generation) != access->generation)
        return MC_E_STALE;
    if (get(&slot->tag) != shm_tag(access->key) || slot->region != key->region ||
        !(slot->permissions & may(access->op)))
        return MC_E_DENIED;

    const uint64_t piece_bytes = get(&slot->piece_bytes);
    if (!inside(access->offset, access->length, get(&slot->size)) || piece_bytes == 0 ||
        !inside(access->offset % piece_bytes, access->length, piece_bytes))
        return MC_E_RANGE;
    return access->region_offset == UINT64_MAX ? MC_E_IO : MC_OK;
}

mc_status shm_check(const struct shm_page *page, const struct shm_key *key,
                    const struct transport_access *access, struct shm_place *place_p)
{
    const bool windowed = (access->key[0] | access->key[1]) != 0;

    if (key->region >= SHM_REGIONS || windowed != (key->window != SHM_NO_WINDOW) ||
        (windowed ? key->window >= SHM_WINDOWS : access->region != key->region))
        return MC_E_DENIED;

    const struct shm_region_slot *slot = &page->regions[key->region];
    const uint64_t generation = live(&slot->generation);
    if (generation != key->generation || (!windowed && generation != access->generation) ||
        access->generation == 0)
        return MC_E_STALE;
    if (windowed) {
        const mc_status status = check_window(&page->windows[key->window], key, access);
        if (status != MC_OK)
            return status;
    }

    const struct shm_place place = { .address = get(&slot->address),
                                     .size = get(&slot->size),
                                     .offset = windowed ? access->region_offset : access->offset,
                                     .permissions = slot->permissions,
                                     .flags = slot->flags };
    if (!(place.permissions & may(access->op)))
        return MC_E_DENIED;
    if (!inside(place.offset, access->length, place.size))
        return MC_E_RANGE;
    *place_p = place;
    return MC_OK;
}
