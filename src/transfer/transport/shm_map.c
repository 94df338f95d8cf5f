/* shm_map.c - a peer's regions in this process's address space. */
#define _GNU_SOURCE
#include "transfer/transport/shm_queue.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#define MADV_POPULATE_WRITE 23
#endif

#define SHM_TOUCH_MOST (UINT64_C(4) << 30) /* before it is used */

static struct shm_map *place_of(struct shm_queue *queue, uint32_t region)
{
    return &queue->maps[region % SHM_MAPS];
}

struct shm_map *shm_map_find(struct shm_queue *queue, uint32_t region, uint64_t generation)
{
    struct shm_map *map = place_of(queue, region);

    return map->region == region && map->generation == generation ? map : NULL;
}

static void unmap(struct shm_map *map)
{
    if (map->mapping)
        munmap(map->mapping, map->mapping_bytes);
    if (map->touched)
        munmap(map->touched, map->touched_bytes);
    *map = (struct shm_map){ 0 };
}

void shm_map_end(struct shm_queue *queue)
{
    for (uint32_t i = 0; queue->maps && i < SHM_MAPS; i++)
        unmap(&queue->maps[i]);
}

static void *bits_open(size_t size)
{
    void *bits = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return bits == MAP_FAILED ? NULL : bits;
}

/* One call for 2 MiB instead of 512 faults; and where the memory cannot be had, an error instead of
 * a SIGBUS. */
static mc_status touch(struct shm_map *map, uint64_t chunk)
{
    const uint64_t start = chunk * SHM_TOUCH, left = map->mapping_bytes - start;
    const uint64_t size = left < SHM_TOUCH ? left : SHM_TOUCH;
    const int advice = map->writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;
    int failed;

    do {
        failed = madvise((uint8_t *)map->mapping + start, size, advice);
    } while (failed && (errno == EINTR || errno == EAGAIN));
    if (failed && errno != EINVAL) /* EINVAL: an older kernel; the copy will fault the pages in */
        return MC_E_IO;
    map->touched[chunk / 8] |= (uint8_t)(1u << chunk % 8);
    return MC_OK;
}

/* A pool's memory would be touched bit by bit for as long as it fills, and a process would seem to grow for
 * minutes; all of it at once would hold up what waits (150 ms for a cold GiB). What fails, fails where it is used. */
void shm_map_touch_more(struct shm_map *map)
{
    const uint64_t chunks = (map->mapping_bytes + SHM_TOUCH - 1) / SHM_TOUCH;

    for (uint32_t i = 0; i < SHM_TOUCH_MORE && map->next_touch < chunks; map->next_touch++)
        if (!(map->touched[map->next_touch / 8] & 1u << map->next_touch % 8)) {
            if (map->next_touch * SHM_TOUCH >= SHM_TOUCH_MOST ||
                touch(map, map->next_touch) != MC_OK)
                map->next_touch = chunks;
            i++;
        }
}

mc_status shm_map_add(struct shm_queue *queue, const struct shm_key *key, int fd, uint64_t offset,
                      uint64_t size, struct mc_error *error)
{
    struct shm_map *map = place_of(queue, key->region);
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), before = offset % page;

    unmap(map); /* an older life of the slot, or another region: it will be asked for again */
    struct shm_map m = { .region = key->region, .generation = key->generation, .size = size };
    if (fd < 0) {
        m.attach = true;
        *map = m;
        return MC_OK;
    }
    if (size == 0 || size > SIZE_MAX / 2)
        return error_set(error, MC_E_FORMAT, "shm: a region of %llu bytes",
                         (unsigned long long)size);

    /* What peers may not write is mapped so that a mistake here cannot either. */
    m.writable = queue->page->regions[key->region].permissions & MC_REMOTE_WRITE;
    m.mapping_bytes = size + before;
    m.touched_bytes = (m.mapping_bytes / SHM_TOUCH + 8) / 8;
    mc_status status =
        shm_memory_map(fd, offset - before, m.mapping_bytes, m.writable, &m.mapping, error);
    if (status != MC_OK)
        return status;
    m.touched = bits_open(m.touched_bytes);
    if (!m.touched) {
        unmap(&m);
        return error_set(error, MC_E_NOMEM, "shm: no memory to map a region");
    }
    m.bytes = (uint8_t *)m.mapping + before;
    *map = m;
    return MC_OK;
}

mc_status shm_map_touch(struct shm_map *map, uint64_t offset, uint64_t length)
{
    const uint64_t before = (uint64_t)(map->bytes - (uint8_t *)map->mapping);
    const uint64_t first = (before + offset) / SHM_TOUCH;
    const uint64_t last = (before + offset + length - 1) / SHM_TOUCH;

    for (uint64_t chunk = first; chunk <= last; chunk++)
        if (!(map->touched[chunk / 8] & 1u << chunk % 8) && touch(map, chunk) != MC_OK)
            return MC_E_IO;
    return MC_OK;
}
