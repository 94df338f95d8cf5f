/* engines.h - what tests of the Transfer Engine begin with. */
#ifndef UNIT_TRANSFER_ENGINES_H
#define UNIT_TRANSFER_ENGINES_H

#include "test.h"

#include <mooncake/transfer.h>

#include "os/clock.h"

#define SECOND_NS UINT64_C(1000000000)

static inline uint64_t in_seconds(uint64_t seconds)
{
    return os_now_ns() + seconds * SECOND_NS;
}

static inline mc_transfer *open_engine(const struct mc_transfer_options *options)
{
    mc_transfer *engine = NULL;
    struct mc_error error = { 0 };

    if (mc_transfer_open(options, &engine, &error) != MC_OK)
        fail_msg("engine: %s", error.text);
    return engine;
}

static inline struct mc_region register_memory(mc_transfer *engine, void *memory, size_t size,
                                               uint32_t permissions, uint32_t flags)
{
    struct mc_region region = { 0 };
    const struct mc_region_options options = {
        .address = memory, .size = size, .permissions = permissions, .flags = flags
    };

    assert_int_equal(mc_region_register(engine, &options, 1, &region, NULL), MC_OK);
    return region;
}

static inline void unregister(mc_transfer *engine, struct mc_region region)
{
    assert_int_equal(mc_region_unregister(engine, &region, 1, in_seconds(10), NULL), MC_OK);
}

/** The own segment. */
static inline uint32_t open_own(mc_transfer *engine)
{
    struct mc_transfer_info info;
    uint32_t segment = 0;

    assert_int_equal(mc_transfer_info(engine, &info), MC_OK);
    assert_int_equal(mc_segment_open(engine, info.name, &segment, NULL), MC_OK);
    return segment;
}

/** One transfer in a batch of its own, to its end. */
static inline mc_status move(mc_transfer *engine, const struct mc_xfer *xfer)
{
    mc_batch *batch = NULL;

    assert_int_equal(mc_batch_open(engine, NULL, &batch), MC_OK);
    mc_status status = mc_batch_add(batch, xfer, 1);
    if (status == MC_OK)
        status = mc_batch_submit(batch);
    if (status == MC_OK)
        status = mc_batch_wait(batch, in_seconds(20));
    mc_batch_close(batch);
    return status;
}

#endif /* UNIT_TRANSFER_ENGINES_H */
