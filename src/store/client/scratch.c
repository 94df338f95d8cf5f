/* scratch.c - slots of one region, and regions of their own for what is larger. */
#include "store/client/scratch.h"

#include <assert.h>

#include "base/alloc.h"

enum { ALIGN = 64 };

/** In front of a large piece. */
struct scratch_large {
    struct scratch_large *next;
    void *bytes;
    struct mc_region region;
};

static mc_status enlist(struct scratch *scratch, void *p, size_t size, struct mc_region *region_p,
                        struct mc_error *error)
{
    const struct mc_region_options options = {
        .address = p, .size = size, .tag = "store scratch", .flags = MC_REGION_PRIVATE
    };

    return mc_region_register(scratch->transfer, &options, 1, region_p, error);
}

/* No peer may touch it, so it is quiet. */
static void delist(struct scratch *scratch, struct mc_region region)
{
    const mc_status status = mc_region_unregister(scratch->transfer, &region, 1, MC_FOREVER, NULL);

    assert(status == MC_OK);
    (void)status;
}

static void *aligned(void *block)
{
    return (void *)(((uintptr_t)block + ALIGN - 1) & ~(uintptr_t)(ALIGN - 1));
}

mc_status scratch_open(struct scratch *scratch, mc_transfer *transfer, const struct mc_alloc *alloc,
                       struct mc_error *error)
{
    const size_t size = (size_t)SCRATCH_SLOT * SCRATCH_SLOTS;

    *scratch = (struct scratch){ .alloc = alloc, .transfer = transfer };
    scratch->block = alloc_bytes(alloc, size + ALIGN);
    if (!scratch->block)
        return MC_E_NOMEM;
    scratch->slots = aligned(scratch->block);
    const mc_status status = enlist(scratch, scratch->slots, size, &scratch->region, error);
    if (status != MC_OK) {
        alloc_free(alloc, scratch->block);
        *scratch = (struct scratch){ 0 };
        return status;
    }
    for (uint32_t i = SCRATCH_SLOTS; i > 0; i--) {
        void *slot = scratch->slots + (size_t)(i - 1) * SCRATCH_SLOT;
        *(void **)slot = scratch->spare;
        scratch->spare = slot;
    }
    return MC_OK;
}

static void *take_large(struct scratch *scratch, size_t size)
{
    struct scratch_large *large = alloc_zeroed(scratch->alloc, 1, sizeof(*large));

    if (!large)
        return NULL;
    large->bytes = alloc_bytes(scratch->alloc, size);
    if (!large->bytes || enlist(scratch, large->bytes, size, &large->region, NULL) != MC_OK) {
        alloc_free(scratch->alloc, large->bytes);
        alloc_free(scratch->alloc, large);
        return NULL;
    }
    large->next = scratch->large;
    scratch->large = large;
    return large->bytes;
}

static void give_large(struct scratch *scratch, const void *p)
{
    struct scratch_large **at = &scratch->large;

    while ((*at)->bytes != p)
        at = &(*at)->next;
    struct scratch_large *large = *at;
    *at = large->next;
    delist(scratch, large->region);
    alloc_free(scratch->alloc, large->bytes);
    alloc_free(scratch->alloc, large);
}

void *scratch_take(struct scratch *scratch, size_t size)
{
    if (size > SCRATCH_SLOT)
        return take_large(scratch, size);
    void *slot = scratch->spare;
    if (slot)
        scratch->spare = *(void **)slot;
    return slot;
}

void scratch_give(struct scratch *scratch, void *p, size_t size)
{
    if (size > SCRATCH_SLOT) {
        give_large(scratch, p);
        return;
    }
    *(void **)p = scratch->spare;
    scratch->spare = p;
}

void scratch_close(struct scratch *scratch)
{
    if (!scratch->block)
        return;
    assert(!scratch->large);
    delist(scratch, scratch->region);
    alloc_free(scratch->alloc, scratch->block);
    *scratch = (struct scratch){ 0 };
}
