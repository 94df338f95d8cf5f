/* Shared memory between two ends in one process: what moves, what is refused, what it costs nobody. */
#define _GNU_SOURCE
#include "shm_ends.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/prng.h"

enum { SIZE = 3 << 20 };

/* An owner with a region that is mapped and one that is not, and a peer with a queue to it. */
struct two {
    struct end owner, peer;
    struct os_shared shared;
    uint8_t *plain, *local;
    struct place mapped, attached;
    struct shm_queue queue;
};

static int setup(void **state)
{
    struct two *two = calloc(1, sizeof(*two));

    assert_int_equal(end_open(&two->owner, 11, NULL, -1), MC_OK);
    assert_int_equal(end_open(&two->peer, 22, NULL, -1), MC_OK);
    assert_int_equal(os_shared_open(SIZE, -1, &two->shared, NULL), MC_OK);
    two->plain = calloc(1, SIZE);
    two->local = malloc(SIZE);
    for (size_t i = 0; i < SIZE; i++)
        two->local[i] = (uint8_t)prng_at(3, i);
    place_init(&two->mapped, two->shared.address, SIZE, two->shared.fd, 1, 1000);
    place_init(&two->attached, two->plain, SIZE, -1, 2, 2000);
    assert_int_equal(place_open(&two->owner, &two->mapped), MC_OK);
    assert_int_equal(place_open(&two->owner, &two->attached), MC_OK);
    assert_int_equal(queue_open(&two->peer, &two->owner, &two->queue), MC_OK);
    *state = two;
    return 0;
}

static int teardown(void **state)
{
    struct two *two = *state;

    queue_end(&two->queue);
    place_end(&two->owner, &two->mapped);
    place_end(&two->owner, &two->attached);
    end_close(&two->peer);
    end_close(&two->owner);
    os_shared_close(&two->shared);
    free(two->plain);
    free(two->local);
    free(two);
    return 0;
}

static struct place *places(struct two *two, int i)
{
    return i == 0 ? &two->mapped : &two->attached;
}

/* ------------------------------------------------------------------------------------- moving */

static void check_round(struct two *two, struct place *place, uint64_t local, uint64_t offset,
                        uint64_t length)
{
    uint8_t *there = place->range.address;
    struct posted p;

    memset(there, 0xa5, SIZE);
    slice_init(&p, MC_WRITE, two->local + local, place, offset, length);
    assert_int_equal(run_slice(&two->queue, &two->owner, &p), MC_OK);
    assert_int_equal(p.bytes, length);
    assert_memory_equal(there + offset, two->local + local, length);
    if (offset > 0)
        assert_int_equal(there[offset - 1], 0xa5);
    if (offset + length < SIZE)
        assert_int_equal(there[offset + length], 0xa5);

    uint8_t *back = malloc(length + 1);
    back[length] = 0x77;
    slice_init(&p, MC_READ, back, place, offset, length);
    assert_int_equal(run_slice(&two->queue, &two->owner, &p), MC_OK);
    assert_memory_equal(back, two->local + local, length);
    assert_int_equal(back[length], 0x77);
    free(back);
}

static void test_bytes_move_both_ways_whatever_their_size_and_place(void **state)
{
    static const uint64_t sizes[] = { 1, 63, 64, 4095, 4097, 300001, 1 << 20, (2 << 20) + 13 };
    struct two *two = *state;

    for (int place = 0; place < 2; place++)
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            check_round(two, places(two, place), i, 3 * i, sizes[i]);
            check_round(two, places(two, place), 0, SIZE - sizes[i], sizes[i]);
        }
}

static void test_a_region_inside_a_file_is_found_there(void **state)
{
    struct two *two = *state;
    struct place inner;
    struct posted p;

    place_init(&inner, (uint8_t *)two->shared.address + 5000, 9000, two->shared.fd, 7, 70);
    inner.range.fd_offset = 5000;
    assert_int_equal(place_open(&two->owner, &inner), MC_OK);
    slice_init(&p, MC_WRITE, two->local, &inner, 10, 8990);
    assert_int_equal(run_slice(&two->queue, &two->owner, &p), MC_OK);
    assert_memory_equal((uint8_t *)two->shared.address + 5010, two->local, 8990);
    slice_init(&p, MC_WRITE, two->local, &inner, 10, 8991);
    assert_int_equal(run_slice(&two->queue, &two->owner, &p), MC_E_RANGE);
    place_end(&two->owner, &inner);
}

static void test_a_batch_larger_than_the_queue_goes_in_parts(void **state)
{
    enum { MANY = SHM_QUEUE_DEPTH + 100 };
    struct two *two = *state;
    struct posted *all = calloc(MANY, sizeof(*all));
    struct transport_slice **slices = calloc(MANY, sizeof(struct transport_slice *));
    uint32_t posted = 0;

    for (uint32_t i = 0; i < MANY; i++) {
        slice_init(&all[i], MC_WRITE, two->local + i, places(two, i % 2), i, 1);
        slices[i] = &all[i].slice;
    }
    assert_int_equal(transport_shm.post(&two->queue, slices, MANY, &posted), MC_OK);
    assert_int_equal(posted, SHM_QUEUE_DEPTH);
    assert_int_equal(finish_slice(&two->queue, &two->owner, &all[SHM_QUEUE_DEPTH - 1]), MC_OK);
    for (uint32_t i = 0; i < SHM_QUEUE_DEPTH; i++) {
        assert_int_equal(finish_slice(&two->queue, &two->owner, &all[i]), MC_OK);
        assert_int_equal(((uint8_t *)places(two, i % 2)->range.address)[i], two->local[i]);
    }
    assert_int_equal(transport_shm.post(&two->queue, slices + posted, 100, &posted), MC_OK);
    assert_int_equal(posted, 100);
    assert_int_equal(finish_slice(&two->queue, &two->owner, &all[MANY - 1]), MC_OK);
    free(slices);
    free(all);
}

/* Only the pages that are touched are taken: 5 GiB cost 4 MiB. */
static void test_a_sparse_region_beyond_4_GiB_works(void **state)
{
    const uint64_t size = UINT64_C(5) << 30, offset = (UINT64_C(9) << 29) + 4093;
    struct two *two = *state;
    const int fd = memfd_create("sparse", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    struct place sparse;
    struct posted p;

    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    uint8_t *there = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    assert_ptr_not_equal(there, MAP_FAILED);
    place_init(&sparse, there, size, fd, 3, 30);
    assert_int_equal(place_open(&two->owner, &sparse), MC_OK);
    slice_init(&p, MC_WRITE, two->local, &sparse, offset, SIZE);
    assert_int_equal(run_slice(&two->queue, &two->owner, &p), MC_OK);
    assert_memory_equal(there + offset, two->local, SIZE);
    slice_init(&p, MC_WRITE, two->local, &sparse, size - 5, 5);
    assert_int_equal(run_slice(&two->queue, &two->owner, &p), MC_OK);
    slice_init(&p, MC_WRITE, two->local, &sparse, size - 5, 6);
    assert_int_equal(run_slice(&two->queue, &two->owner, &p), MC_E_RANGE);
    place_end(&two->owner, &sparse);
    munmap(there, size);
    close(fd);
}

static void test_a_small_slice_passes_a_large_one(void **state)
{
    const uint64_t large_bytes = 64 << 20;
    struct two *two = *state;
    struct os_shared shared;
    struct place place;
    struct posted large, small;

    assert_int_equal(os_shared_open(large_bytes, -1, &shared, NULL), MC_OK);
    place_init(&place, shared.address, large_bytes, shared.fd, 4, 40);
    assert_int_equal(place_open(&two->owner, &place), MC_OK);
    uint8_t *local = calloc(1, large_bytes);
    slice_init(&large, MC_WRITE, local, &place, 0, large_bytes);
    slice_init(&small, MC_WRITE, local, &two->attached, 0, 64);
    post(&two->queue, &large);
    post(&two->queue, &small);
    assert_int_equal(finish_slice(&two->queue, &two->owner, &small), MC_OK);
    assert_int_equal(large.status, MC_PENDING);
    assert_int_equal(finish_slice(&two->queue, &two->owner, &large), MC_OK);
    place_end(&two->owner, &place);
    os_shared_close(&shared);
    free(local);
}

/* ------------------------------------------------------------------------------------ refusals */

static void check_refused(struct two *two, struct posted *p, const struct place *place,
                          mc_status expected)
{
    memset(place->range.address, 0x5a, SIZE);
    assert_int_equal(run_slice(&two->queue, &two->owner, p), expected);
    assert_int_equal(p->bytes, 0);
    const uint8_t *there = place->range.address; /* all bytes equal the one before, and the first */
    assert_int_equal(there[0], 0x5a);
    assert_int_equal(memcmp(there, there + 1, SIZE - 1), 0);
}

static void test_what_a_key_does_not_open_is_refused_and_not_touched(void **state)
{
    struct two *two = *state;

    for (int i = 0; i < 2; i++) {
        const struct place *place = places(two, i);
        struct posted p;

        slice_init(&p, MC_WRITE, two->local, place, SIZE - 4, 5);
        check_refused(two, &p, place, MC_E_RANGE);
        slice_init(&p, MC_WRITE, two->local, place, UINT64_MAX - 4, 5);
        check_refused(two, &p, place, MC_E_RANGE);
        slice_init(&p, MC_WRITE, two->local, place, 0, 5);
        p.slice.remote.generation++;
        check_refused(two, &p, place, MC_E_STALE);
        slice_init(&p, MC_WRITE, two->local, place, 0, 5);
        p.slice.remote.generation = 0;
        check_refused(two, &p, place, MC_E_STALE);
        slice_init(&p, MC_WRITE, two->local, place, 0, 5);
        p.slice.remote.region = 9;
        check_refused(two, &p, place, MC_E_DENIED);
        slice_init(&p, MC_WRITE, two->local, place, 0, 5);
        p.slice.remote.key[0] = 1; /* a window's, where the peer gave none */
        check_refused(two, &p, place, MC_E_DENIED);
        slice_init(&p, MC_WRITE, two->local, place, 0, 5);
        p.slice.remote_key = NULL;
        p.slice.remote_key_size = 0;
        check_refused(two, &p, place, MC_E_IO);
    }
}

static void test_permissions_hold(void **state)
{
    struct two *two = *state;

    for (int i = 0; i < 2; i++) {
        struct place only = *places(two, i);
        struct posted p;

        only.range.id = 20;
        only.range.permissions = MC_REMOTE_READ;
        assert_int_equal(place_open(&two->owner, &only), MC_OK);
        slice_init(&p, MC_WRITE, two->local, &only, 0, 5);
        check_refused(two, &p, &only, MC_E_DENIED);
        uint8_t back[5] = { 0 };
        slice_init(&p, MC_READ, back, &only, 0, 5);
        assert_int_equal(run_slice(&two->queue, &two->owner, &p), MC_OK);
        assert_int_equal(back[4], 0x5a);
        place_end(&two->owner, &only);
    }
}

static void test_a_closed_region_is_stale_and_its_slot_lives_again(void **state)
{
    struct two *two = *state;

    for (int i = 0; i < 2; i++) {
        struct place *place = places(two, i), old = *place;
        struct posted p;

        slice_init(&p, MC_WRITE, two->local, place, 0, 5); /* mapped by now */
        assert_int_equal(run_slice(&two->queue, &two->owner, &p), MC_OK);
        place_end(&two->owner, place);
        slice_init(&p, MC_WRITE, two->local, &old, 0, 5);
        check_refused(two, &p, &old, MC_E_STALE);

        place->range.generation++;
        assert_int_equal(place_open(&two->owner, place), MC_OK);
        check_refused(two, (slice_init(&p, MC_WRITE, two->local, &old, 0, 5), &p), &old,
                      MC_E_STALE);
        slice_init(&p, MC_WRITE, two->local, place, 0, 5);
        assert_int_equal(run_slice(&two->queue, &two->owner, &p), MC_OK);
        assert_memory_equal(place->range.address, two->local, 5);
    }
}

static void test_without_the_ticket_there_is_no_descriptor(void **state)
{
    struct two *two = *state;
    struct place forged = two->mapped;
    struct posted p;

    slice_init(&p, MC_WRITE, two->local, &two->attached, 0, 5);
    assert_int_equal(run_slice(&two->queue, &two->owner, &p), MC_OK); /* connected by now */
    two->queue.attach = false; /* which would need none: kernel's rights, not ours */
    forged.key[16] ^= 1;
    slice_init(&p, MC_WRITE, two->local, &forged, 0, 5);
    check_refused(two, &p, &forged, MC_E_IO);
}

/* ------------------------------------------------------------------------------------- windows */

struct lent {
    struct transport_window window;
    uint8_t key[TRANSPORT_KEY_MAX];
    size_t key_size;
};

static void lend(struct two *two, struct place *place, uint64_t mark, uint32_t permissions,
                 struct lent *lent)
{
    *lent = (struct lent){ .window = { .window = { .key = { mark, mark * 7 },
                                                   .incarnation = 11,
                                                   .size = 2 * 4096,
                                                   .region = place->range.id,
                                                   .permissions = permissions,
                                                   .generation = mark + 100,
                                                   .piece_bytes = 4096 },
                                       .count = 2,
                                       .piece_bytes = 4096 } };
    assert_int_equal(transport_shm.window_open(&two->owner.shm, &place->state, &lent->window,
                                               lent->key, &lent->key_size),
                     MC_OK);
    assert_int_equal(lent->key_size, SHM_KEY_BYTES);
}

static void slice_by(struct posted *p, enum mc_op op, void *local, const struct place *place,
                     const struct lent *lent, uint64_t offset, uint64_t length)
{
    slice_init(p, op, local, place, offset, length);
    p->slice.remote.key[0] = lent->window.window.key[0];
    p->slice.remote.key[1] = lent->window.window.key[1];
    p->slice.remote.generation = lent->window.window.generation;
    p->slice.remote.region_offset = 10000 + offset; /* what the window's map would say */
    p->slice.remote_key = lent->key;
    p->slice.remote_key_size = lent->key_size;
}

static void end_window(struct two *two, struct place *place, const struct lent *lent)
{
    uint64_t blocker;

    transport_shm.window_close(&two->owner.shm, &place->state, &lent->window.window);
    assert_int_equal(quiet(&two->owner, place, &lent->window.window, PATIENCE_NS, &blocker), MC_OK);
    assert_int_equal(quiet(&two->owner, place, &lent->window.window, 0, &blocker), MC_OK);
}

static void test_a_window_opens_what_it_says_and_nothing_else(void **state)
{
    struct two *two = *state;

    for (int i = 0; i < 2; i++) {
        struct place *place = places(two, i);
        struct lent lent, other;
        struct posted p;

        lend(two, place, 5, MC_REMOTE_WRITE, &lent);
        lend(two, place, 6, MC_REMOTE_READ, &other);
        slice_by(&p, MC_WRITE, two->local, place, &lent, 4096, 4096);
        assert_int_equal(run_slice(&two->queue, &two->owner, &p), MC_OK);
        assert_memory_equal((uint8_t *)place->range.address + 10000 + 4096, two->local, 4096);

        slice_by(&p, MC_WRITE, two->local, place, &lent, 4096, 4097); /* beyond its end */
        check_refused(two, &p, place, MC_E_RANGE);
        slice_by(&p, MC_WRITE, two->local, place, &lent, 4095, 2); /* two pieces */
        check_refused(two, &p, place, MC_E_RANGE);
        slice_by(&p, MC_READ, two->local, place, &lent, 0, 1);
        check_refused(two, &p, place, MC_E_DENIED);
        slice_by(&p, MC_WRITE, two->local, place, &other, 0, 1);
        check_refused(two, &p, place, MC_E_DENIED);
        slice_by(&p, MC_WRITE, two->local, place, &lent, 0, 1);
        p.slice.remote.key[1]++;
        check_refused(two, &p, place, MC_E_DENIED);
        slice_by(&p, MC_WRITE, two->local, place, &lent, 0, 1);
        p.slice.remote.generation++;
        check_refused(two, &p, place, MC_E_STALE);
        slice_by(&p, MC_WRITE, two->local, place, &lent, 0, 1);
        p.slice.remote.region_offset = UINT64_MAX; /* nobody asked where it lies */
        check_refused(two, &p, place, MC_E_IO);
        slice_by(&p, MC_WRITE, two->local, place, &lent, 0, 1);
        p.slice.remote.region_offset = SIZE;
        check_refused(two, &p, place, MC_E_RANGE);
        end_window(two, place, &lent);
        end_window(two, place, &other);
    }
}

static void test_a_revoked_window_is_stale_and_the_others_live_on(void **state)
{
    struct two *two = *state;

    for (int i = 0; i < 2; i++) {
        struct place *place = places(two, i);
        struct lent first, second, third;
        struct posted p;

        lend(two, place, 5, MC_REMOTE_WRITE, &first);
        lend(two, place, 6, MC_REMOTE_WRITE, &second);
        end_window(two, place, &first);
        slice_by(&p, MC_WRITE, two->local, place, &first, 0, 64);
        check_refused(two, &p, place, MC_E_STALE);
        slice_by(&p, MC_WRITE, two->local, place, &second, 0, 64);
        assert_int_equal(run_slice(&two->queue, &two->owner, &p), MC_OK);

        lend(two, place, 7, MC_REMOTE_WRITE, &third); /* in the slot of the first */
        assert_memory_equal(third.key, first.key, SHM_KEY_BYTES);
        slice_by(&p, MC_WRITE, two->local, place, &first, 0, 64);
        check_refused(two, &p, place, MC_E_STALE);
        end_window(two, place, &second);
        end_window(two, place, &third);
    }
}

static void test_windows_by_the_thousand_are_found_again(void **state)
{
    enum { MANY = 3000 };
    struct two *two = *state;
    struct lent *all = calloc(MANY, sizeof(*all));
    struct posted p;

    for (uint64_t i = 0; i < MANY; i++)
        lend(two, &two->mapped, i + 1, MC_REMOTE_WRITE, &all[i]);
    for (uint64_t i = 0; i < MANY; i += 2)
        end_window(two, &two->mapped, &all[i]);
    for (uint64_t i = 0; i < MANY; i += 100) {
        slice_by(&p, MC_WRITE, two->local, &two->mapped, &all[i], 0, 64);
        assert_int_equal(run_slice(&two->queue, &two->owner, &p), MC_E_STALE);
        slice_by(&p, MC_WRITE, two->local, &two->mapped, &all[i + 1], 0, 64);
        assert_int_equal(run_slice(&two->queue, &two->owner, &p), MC_OK);
    }
    for (uint64_t i = 1; i < MANY; i += 2)
        end_window(two, &two->mapped, &all[i]);
    free(all);
}

/* --------------------------------------------------------------------------------------- pins */

static void test_a_pin_holds_its_window_and_region_and_no_others(void **state)
{
    struct two *two = *state;
    struct lent pinned, other;
    struct posted p;
    uint64_t blocker = 0;

    lend(two, &two->mapped, 5, MC_REMOTE_WRITE, &pinned);
    lend(two, &two->mapped, 6, MC_REMOTE_WRITE, &other);
    slice_by(&p, MC_WRITE, two->local, &two->mapped, &pinned, 0, 64);
    assert_int_equal(run_slice(&two->queue, &two->owner, &p), MC_OK);

    struct shm_key key;
    assert_true(shm_key_decode(pinned.key, pinned.key_size, &key));
    atomic_store(&two->queue.pins->pin, shm_pin_word(key.region, key.window));
    end_window(two, &two->mapped, &other);
    transport_shm.window_close(&two->owner.shm, &two->mapped.state, &pinned.window.window);
    assert_int_equal(quiet(&two->owner, &two->mapped, &pinned.window.window, 0, &blocker),
                     MC_PENDING);
    assert_int_equal(blocker, 22);
    place_end(&two->owner, &two->attached);
    assert_int_equal(place_open(&two->owner, &two->attached), MC_OK);
    transport_shm.region_close(&two->owner.shm, &two->mapped.state);
    blocker = 0;
    assert_int_equal(quiet(&two->owner, &two->mapped, NULL, 0, &blocker), MC_PENDING);
    assert_int_equal(blocker, 22);

    atomic_store(&two->queue.pins->pin, 0);
    assert_int_equal(quiet(&two->owner, &two->mapped, &pinned.window.window, 0, &blocker), MC_OK);
    assert_int_equal(quiet(&two->owner, &two->mapped, NULL, 0, &blocker), MC_OK);
}

static void test_a_pin_page_full_of_lies_holds_nothing_else(void **state)
{
    struct two *two = *state;
    struct posted p;
    uint64_t blocker;

    slice_init(&p, MC_WRITE, two->local, &two->mapped, 0, 64);
    assert_int_equal(run_slice(&two->queue, &two->owner, &p), MC_OK);
    for (uint64_t i = 0; i < 1000; i++) {
        atomic_store(&two->queue.pins->pin, prng_at(9, i) | UINT64_C(1) << 63);
        transport_shm.region_close(&two->owner.shm, &two->mapped.state);
        assert_int_equal(quiet(&two->owner, &two->mapped, NULL, 0, &blocker), MC_OK);
        two->mapped.range.generation++;
        assert_int_equal(place_open(&two->owner, &two->mapped), MC_OK);
    }
    atomic_store(&two->queue.pins->pin, 0);
}

/* ---------------------------------------------------------------------------- cancel and close */

static void test_cancel_completes_everything_with_its_reason(void **state)
{
    struct two *two = *state;
    struct posted all[20];

    for (int i = 0; i < 20; i++) {
        slice_init(&all[i], MC_WRITE, two->local, places(two, i % 2), 0, 100);
        post(&two->queue, &all[i]);
    }
    transport_shm.cancel(&two->queue, MC_E_TIMEOUT);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(finish_slice(&two->queue, NULL, &all[i]), MC_E_TIMEOUT);
        assert_int_equal(all[i].bytes, 0);
    }
    slice_init(&all[0], MC_WRITE, two->local, &two->mapped, 0, 100); /* the queue goes on */
    assert_int_equal(run_slice(&two->queue, &two->owner, &all[0]), MC_OK);
}

static void test_a_queue_closes_once_all_completions_are_out(void **state)
{
    struct two *two = *state;
    struct shm_queue queue;
    struct posted p;

    assert_int_equal(queue_open(&two->peer, &two->owner, &queue), MC_OK);
    slice_init(&p, MC_WRITE, two->local, &two->mapped, 0, 100);
    post(&queue, &p);
    assert_int_equal(transport_shm.queue_close(&queue), MC_E_BUSY);
    assert_int_equal(poll_once(&queue), MC_OK);
    assert_int_equal(p.status, MC_E_CANCELLED);
    assert_int_equal(transport_shm.queue_close(&queue), MC_OK);
}

static void test_a_queue_says_when_it_is_worth_polling(void **state)
{
    struct two *two = *state;
    struct posted p;
    int fd = -1;

    assert_int_equal(transport_shm.arm(&two->queue, &fd), MC_OK); /* the answer is to come */
    assert_true(fd >= 0);
    slice_init(&p, MC_WRITE, two->local, &two->mapped, 0, 100);
    assert_int_equal(run_slice(&two->queue, &two->owner, &p), MC_OK);
    assert_int_equal(transport_shm.arm(&two->queue, &fd), MC_OK);
    post(&two->queue, &p);
    p.status = MC_PENDING;
    assert_int_equal(transport_shm.arm(&two->queue, &fd), MC_PENDING);
    assert_int_equal(finish_slice(&two->queue, NULL, &p), MC_OK);
}

/* ------------------------------------------------------------------------------------ the ends */

static void test_who_is_not_there_is_said_at_once(void **state)
{
    struct two *two = *state;
    struct end gone = two->owner;
    struct shm_queue queue;
    struct transport_peer to = { .name = "x",
                                 .address = (const uint8_t *)"rubbish",
                                 .address_size = 7 };

    gone.address.name[3] ^= 1;
    assert_int_equal(queue_open(&two->peer, &gone, &queue), MC_E_PEER);
    assert_int_equal(transport_shm.queue_open(&two->peer.shm, &to, &queue, NULL), MC_E_FORMAT);
}

static mc_status fails_with(struct two *two, const struct end *owner)
{
    struct shm_queue queue;
    struct posted p;
    struct mc_error error = { 0 };
    uint32_t posted;
    struct transport_slice *slice = &p.slice;

    assert_int_equal(queue_open(&two->peer, owner, &queue), MC_OK);
    slice_init(&p, MC_WRITE, two->local, &two->mapped, 0, 100);
    const mc_status status = run_slice(&queue, &two->owner, &p);
    assert_int_equal(poll_once(&queue), status); /* for good */
    assert_int_equal(transport_shm.post(&queue, &slice, 1, &posted), status);
    transport_shm.queue_error(&queue, &error);
    assert_non_null(strstr(error.text, "owner"));
    queue_end(&queue);
    return status;
}

static void test_the_handshake_refuses_who_does_not_know_the_nonces(void **state)
{
    struct two *two = *state;
    struct end owner = two->owner;

    owner.address.ask.bytes[0] ^= 1;
    assert_int_equal(fails_with(two, &owner), MC_E_DENIED);
    owner = two->owner;
    owner.address.answer.bytes[0] ^= 1;
    assert_int_equal(fails_with(two, &owner), MC_E_DENIED);
    owner = two->owner;
    owner.env.incarnation = 12; /* an earlier life of the peer is what the queue was for */
    assert_int_equal(fails_with(two, &owner), MC_E_STALE);
}

static void test_more_peers_than_sessions_are_refused(void **state)
{
    struct two *two = *state;
    struct shm_queue queues[3];
    struct posted p;

    for (int i = 0; i < 3; i++) {
        assert_int_equal(queue_open(&two->peer, &two->owner, &queues[i]), MC_OK);
        slice_init(&p, MC_WRITE, two->local, &two->mapped, 0, 100);
        assert_int_equal(run_slice(&queues[i], &two->owner, &p), MC_OK);
    }
    assert_int_equal(fails_with(two, &two->owner), MC_E_PEER);
    queue_end(&queues[0]);
    transport_shm.serve(&two->owner.shm, os_now_ns(), NULL);
    assert_int_equal(queue_open(&two->peer, &two->owner, &queues[0]), MC_OK); /* room again */
    slice_init(&p, MC_WRITE, two->local, &two->mapped, 0, 100);
    assert_int_equal(run_slice(&queues[0], &two->owner, &p), MC_OK);
    for (int i = 0; i < 3; i++)
        queue_end(&queues[i]);
}

static void test_who_connects_and_says_nothing_is_sent_away(void **state)
{
    struct two *two = *state;
    const uint64_t now_ns = os_now_ns();
    uint64_t next_ns = 0;
    char byte;
    int fd;

    assert_int_equal(shm_socket_dial(two->owner.address.name, &fd, NULL), MC_OK);
    transport_shm.serve(&two->owner.shm, now_ns, &next_ns);
    assert_true(next_ns > now_ns);
    transport_shm.serve(&two->owner.shm, next_ns - 1, &next_ns);
    assert_int_equal(read(fd, &byte, 1), -1); /* still connected */
    transport_shm.serve(&two->owner.shm, next_ns, &next_ns);
    assert_int_equal(read(fd, &byte, 1), 0);
    assert_int_equal(next_ns, 0);
    close(fd);
}

static void test_what_is_said_to_the_socket_never_harms_it(void **state)
{
    struct two *two = *state;

    for (uint64_t round = 0; round < 200; round++) {
        uint8_t bytes[2000];
        int fd;

        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = (uint8_t)prng_at(round, i);
        assert_int_equal(shm_socket_dial(two->owner.address.name, &fd, NULL), MC_OK);
        assert_true(write(fd, bytes, 1 + round * 9) > 0);
        transport_shm.serve(&two->owner.shm, os_now_ns(), NULL);
        close(fd);
        transport_shm.serve(&two->owner.shm, os_now_ns(), NULL);
    }
    struct posted p;
    slice_init(&p, MC_WRITE, two->local, &two->mapped, 0, 100);
    assert_int_equal(run_slice(&two->queue, &two->owner, &p), MC_OK);
}

static void test_settings_are_read_and_wrong_ones_refused(void **state)
{
    struct end end;

    (void)state;
    assert_int_equal(end_open(&end, 1, "attach=0,stream=0", -1), MC_OK);
    assert_false(end.shm.attach);
    assert_null(end.shm.copier.stream);
    end_close(&end);
    assert_int_equal(end_open(&end, 1, "attach=1,stream=1", -1), MC_OK);
    end_close(&end);
    assert_int_equal(end_open(&end, 1, "attach=2", -1), MC_E_ARG);
    end_close(&end);
}

static void test_without_attach_plain_memory_is_not_reached_this_way(void **state)
{
    struct two *two = *state;
    struct end closed;
    struct place place;

    assert_int_equal(end_open(&closed, 1, "attach=0", -1), MC_OK);
    place_init(&place, two->plain, SIZE, -1, 1, 5);
    assert_int_equal(place_open(&closed, &place), MC_OK);
    assert_int_equal(place.key_size, 0);
    place_end(&closed, &place);
    place_init(&place, two->plain, SIZE, -1, 1, 5);
    place.range.location = "cuda:0";
    assert_int_equal(place_open(&two->owner, (place.range.id = 30, &place)), MC_OK);
    assert_int_equal(place.key_size, 0);
    place_end(&two->owner, &place);
    end_close(&closed);
}

static void test_probe_says_what_there_is(void **state)
{
    struct transport_caps caps;

    (void)state;
    assert_int_equal(transport_shm.probe(NULL, &caps), MC_OK);
    assert_int_equal(caps.flags, TRANSPORT_SAME_HOST | TRANSPORT_ONE_SIDED);
    assert_non_null(strstr(caps.found, "memfd"));
}

static mc_status everything(struct end *owner, struct end *peer, struct os_shared *shared, long k)
{
    struct place place;
    struct transport_window window = { .window = { .key = { 1, 2 },
                                                   .size = 64,
                                                   .permissions = 1,
                                                   .generation = 3,
                                                   .piece_bytes = 64 } };
    uint8_t key[TRANSPORT_KEY_MAX];
    struct shm_queue queue;
    size_t size;
    uint64_t blocker;

    mc_status status = end_open(owner, 1, NULL, k);
    if (status != MC_OK)
        return status;
    place_init(&place, shared->address, 4096, shared->fd, 100, 1);
    status = place_open(owner, &place);
    if (status != MC_OK)
        return status;
    status = transport_shm.window_open(&owner->shm, &place.state, &window, key, &size);
    if (status == MC_OK) {
        transport_shm.window_close(&owner->shm, &place.state, &window.window);
        assert_int_equal(quiet(owner, &place, &window.window, 0, &blocker), MC_OK);
        status = queue_open(owner, peer, &queue);
    }
    if (status == MC_OK)
        queue_end(&queue);
    place_end(owner, &place);
    return status;
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    struct two *two = *state;
    mc_status status = MC_E_NOMEM;
    long k = 0;

    for (; status != MC_OK; k++) {
        struct end owner;
        status = everything(&owner, &two->owner, &two->shared, k);
        assert_true(status == MC_OK || status == MC_E_NOMEM);
        end_close(&owner);
    }
    assert_int_equal(k - 1, 5); /* sessions, regions, buckets, windows, maps */
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_bytes_move_both_ways_whatever_their_size_and_place),
        TEST(test_a_region_inside_a_file_is_found_there),
        TEST(test_a_batch_larger_than_the_queue_goes_in_parts),
        TEST(test_a_sparse_region_beyond_4_GiB_works),
        TEST(test_a_small_slice_passes_a_large_one),
        TEST(test_what_a_key_does_not_open_is_refused_and_not_touched),
        TEST(test_permissions_hold),
        TEST(test_a_closed_region_is_stale_and_its_slot_lives_again),
        TEST(test_without_the_ticket_there_is_no_descriptor),
        TEST(test_a_window_opens_what_it_says_and_nothing_else),
        TEST(test_a_revoked_window_is_stale_and_the_others_live_on),
        TEST(test_windows_by_the_thousand_are_found_again),
        TEST(test_a_pin_holds_its_window_and_region_and_no_others),
        TEST(test_a_pin_page_full_of_lies_holds_nothing_else),
        TEST(test_cancel_completes_everything_with_its_reason),
        TEST(test_a_queue_closes_once_all_completions_are_out),
        TEST(test_a_queue_says_when_it_is_worth_polling),
        TEST(test_who_is_not_there_is_said_at_once),
        TEST(test_the_handshake_refuses_who_does_not_know_the_nonces),
        TEST(test_more_peers_than_sessions_are_refused),
        TEST(test_who_connects_and_says_nothing_is_sent_away),
        TEST(test_what_is_said_to_the_socket_never_harms_it),
        TEST(test_settings_are_read_and_wrong_ones_refused),
        TEST(test_without_attach_plain_memory_is_not_reached_this_way),
        TEST(test_probe_says_what_there_is),
        TEST(test_every_failed_allocation_leaves_nothing_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
