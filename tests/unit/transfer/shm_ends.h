/*
 * shm_ends.h - two ends of the shared-memory transport without an engine between them: what the tests of it
 * share. Times are bounded: what does not happen within a minute fails the test.
 */
#ifndef SHM_ENDS_H
#define SHM_ENDS_H

#include "test.h"

#include <sched.h>

#include "os/clock.h"
#include "os/shared.h"
#include "transfer/transport/shm_queue.h"

static const uint64_t PATIENCE_NS = UINT64_C(60000000000);

/** One engine's end. */
struct end {
    struct faulty faulty;
    struct transport_env env;
    struct shm shm;
    struct shm_address address;
};

/** A range with its state and key, as the engine would keep them. */
struct place {
    struct transport_region range;
    struct shm_region state;
    uint8_t key[TRANSPORT_KEY_MAX];
    size_t key_size;
};

/** A slice with the transport's bytes behind it. */
struct posted {
    struct transport_slice slice;
    struct shm_slice state;
    mc_status status; /* of its completion; MC_PENDING before */
    uint64_t bytes;
};
static_assert(offsetof(struct posted, state) == sizeof(struct transport_slice), "behind it");

static inline mc_status end_open(struct end *end, uint64_t incarnation, const char *settings,
                                 long fail_at)
{
    faulty_init(&end->faulty, fail_at);
    end->env = (struct transport_env){ .alloc = &end->faulty.alloc,
                                       .incarnation = incarnation,
                                       .settings = settings,
                                       .sessions_max = 4 };
    const mc_status status = transport_shm.open(&end->shm, &end->env, NULL);
    if (status == MC_OK)
        end->address = end->shm.address;
    return status;
}

static inline void end_close(struct end *end)
{
    transport_shm.close(&end->shm);
    assert_int_equal(end->faulty.held, 0);
}

static inline void place_init(struct place *place, void *address, uint64_t size, int fd,
                              uint32_t id, uint64_t generation)
{
    *place = (struct place){ .range = { .address = address,
                                        .size = size,
                                        .generation = generation,
                                        .id = id,
                                        .permissions = MC_REMOTE_READ | MC_REMOTE_WRITE,
                                        .fd = fd,
                                        .location = "cpu:0" } };
}

static inline mc_status place_open(struct end *end, struct place *place)
{
    return transport_shm.region_open(&end->shm, &place->range, &place->state, place->key,
                                     &place->key_size, NULL);
}

static inline void queue_to(const struct shm_address *address, uint64_t incarnation,
                            struct transport_peer *peer, uint8_t bytes[SHM_ADDRESS_BYTES])
{
    shm_address_encode(address, bytes);
    *peer = (struct transport_peer){ .name = "owner",
                                     .incarnation = incarnation,
                                     .address = bytes,
                                     .address_size = SHM_ADDRESS_BYTES,
                                     .same_host = 1 };
}

static inline mc_status queue_open(struct end *peer, const struct end *owner,
                                   struct shm_queue *queue)
{
    uint8_t bytes[SHM_ADDRESS_BYTES];
    struct transport_peer to;

    queue_to(&owner->address, owner->env.incarnation, &to, bytes);
    return transport_shm.queue_open(&peer->shm, &to, queue, NULL);
}

/** An access to a region by its key. */
static inline void slice_init(struct posted *p, enum mc_op op, void *local,
                              const struct place *place, uint64_t offset, uint64_t length)
{
    *p = (struct posted){ .slice = { .op = op,
                                     .local = local,
                                     .length = length,
                                     .remote = { .op = op,
                                                 .region = place->range.id,
                                                 .generation = place->range.generation,
                                                 .offset = offset,
                                                 .length = length,
                                                 .region_offset = UINT64_MAX },
                                     .remote_key = place->key,
                                     .remote_key_size = place->key_size,
                                     .user = p },
                          .status = MC_PENDING };
}

static inline void post(struct shm_queue *queue, struct posted *p)
{
    struct transport_slice *slice = &p->slice;
    uint32_t posted = 0;

    assert_int_equal(transport_shm.post(queue, &slice, 1, &posted), MC_OK);
    assert_int_equal(posted, 1);
}

/** Poll once, as if it were `now_ns`, and note what completed. */
static inline mc_status poll_at(struct shm_queue *queue, uint64_t now_ns)
{
    struct transport_completion done[8];
    uint32_t count = 0;
    const mc_status status = transport_shm.poll(queue, now_ns, done, 8, &count);

    for (uint32_t i = 0; i < count; i++) {
        struct posted *p = done[i].slice->user;
        assert_int_equal(p->status, MC_PENDING); /* each completes once */
        p->status = done[i].status;
        p->bytes = done[i].bytes;
    }
    return status;
}

static inline mc_status poll_once(struct shm_queue *queue)
{
    return poll_at(queue, os_now_ns());
}

/** Poll the queue, and serve the owner if it is in this process, until the slice is done. */
static inline mc_status finish_slice(struct shm_queue *queue, struct end *owner, struct posted *p)
{
    const uint64_t until_ns = os_now_ns() + PATIENCE_NS;

    while (p->status == MC_PENDING && os_now_ns() < until_ns) {
        poll_once(queue);
        if (owner)
            transport_shm.serve(&owner->shm, os_now_ns(), NULL);
    }
    return p->status;
}

static inline mc_status run_slice(struct shm_queue *queue, struct end *owner, struct posted *p)
{
    post(queue, p);
    return finish_slice(queue, owner, p);
}

/** Close a queue, taking what is left in it. */
static inline void queue_end(struct shm_queue *queue)
{
    mc_status status;

    for (int i = 0; (status = transport_shm.queue_close(queue)) == MC_E_BUSY && i < 10000; i++)
        poll_once(queue);
    assert_int_equal(status, MC_OK);
}

/** Wait until a region or (window not NULL) a window is quiet. */
static inline mc_status quiet(struct end *owner, struct place *place,
                              const struct mc_window *window, uint64_t patience_ns,
                              uint64_t *blocker_p)
{
    const uint64_t until_ns = os_now_ns() + patience_ns;
    mc_status status;

    for (;;) {
        status = window ? transport_shm.window_poll(&owner->shm, &place->state, window, blocker_p)
                        : transport_shm.region_poll(&owner->shm, &place->state, blocker_p);
        if (status != MC_PENDING || os_now_ns() >= until_ns)
            return status;
        transport_shm.serve(&owner->shm, os_now_ns(), NULL);
        sched_yield();
    }
}

static inline void place_end(struct end *owner, struct place *place)
{
    uint64_t blocker;

    transport_shm.region_close(&owner->shm, &place->state);
    assert_int_equal(quiet(owner, place, NULL, PATIENCE_NS, &blocker), MC_OK);
}

#endif /* SHM_ENDS_H */
