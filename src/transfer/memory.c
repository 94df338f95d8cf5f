/* memory.c - blocks of memory that peers on this machine can map. */
#include "transfer/engine.h"

#include <assert.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/error.h"

/* The node of memory in "cpu:N"; -1: any, or not a place for such memory. */
static int node_of(const char *location)
{
    if (!location || strncmp(location, "cpu:", 4) != 0 || location[4] < '0' || location[4] > '9')
        return -1;
    const long node = strtol(location + 4, NULL, 10);
    return node >= 0 && node < 1024 ? (int)node : -1;
}

mc_status mc_memory_alloc(mc_transfer *engine, size_t size, const char *location, void **memory_p,
                          struct mc_error *error)
{
    struct registry *registry = &engine->registry;

    if (size == 0)
        return error_set(error, MC_E_RANGE, "memory of 0 bytes");
    pthread_mutex_lock(&registry->admin);
    const bool fits =
        size <= engine->memory_max && registry->block_bytes <= engine->memory_max - size;
    if (fits)
        registry->block_bytes += size; /* before it is taken: that takes long, without the lock */
    pthread_mutex_unlock(&registry->admin);
    if (!fits)
        return error_set(error, MC_E_FULL, "%zu bytes more than memory_max allows", size);

    struct os_shared shared = { .fd = -1 };
    struct memory_block *block = alloc_zeroed(engine->alloc, 1, sizeof(*block));
    mc_status status = block ? os_shared_open(size, node_of(location), &shared, error)
                             : error_set(error, MC_E_NOMEM, "out of memory for a block");
    if (status != MC_OK)
        status = MC_E_NOMEM; /* want of descriptors too: the text says it */
    pthread_mutex_lock(&registry->admin);
    if (status == MC_OK) {
        *block = (struct memory_block){ .next = registry->blocks, .shared = shared, .size = size };
        registry->blocks = block;
    } else {
        registry->block_bytes -= size;
    }
    pthread_mutex_unlock(&registry->admin);
    if (status != MC_OK) {
        alloc_free(engine->alloc, block);
        if (error)
            error->status = status;
        return status;
    }
    *memory_p = shared.address;
    return MC_OK;
}

void mc_memory_free(mc_transfer *engine, void *memory)
{
    struct registry *registry = &engine->registry;
    struct memory_block *found = NULL;

    if (!memory)
        return;
    pthread_mutex_lock(&registry->admin);
    for (struct memory_block **at = &registry->blocks; *at; at = &(*at)->next) {
        if ((*at)->shared.address == memory) {
            found = *at;
            *at = found->next;
            registry->block_bytes -= found->size;
            break;
        }
    }
    pthread_mutex_unlock(&registry->admin);
    assert(found && "memory that mc_memory_alloc() did not give, or freed twice");
    os_shared_close(&found->shared);
    alloc_free(engine->alloc, found);
}

const struct memory_block *memory_find(const struct registry *registry, const void *address,
                                       uint64_t size)
{
    const uintptr_t at = (uintptr_t)address;

    for (const struct memory_block *block = registry->blocks; block; block = block->next) {
        const uintptr_t begin = (uintptr_t)block->shared.address;
        if (at >= begin && at - begin <= block->shared.size &&
            size <= block->shared.size - (at - begin))
            return block;
    }
    return NULL;
}

void memory_close(mc_transfer *engine)
{
    struct registry *registry = &engine->registry;

    while (registry->blocks) {
        struct memory_block *block = registry->blocks;
        registry->blocks = block->next;
        os_shared_close(&block->shared);
        alloc_free(engine->alloc, block);
    }
}
