/* Every way to copy moves exactly the bytes it is told to, whatever their alignment. */
#include "test.h"

#include "base/prng.h"
#include "transfer/copy.h"

enum { GUARD = 128, LARGE = (1 << 20) + 777, ROOM = LARGE + 4 * GUARD };

struct memory {
    uint8_t *from, *to;
};

static int setup(void **state)
{
    static struct memory memory;

    memory.from = malloc(ROOM);
    memory.to = malloc(ROOM);
    for (size_t i = 0; memory.from && i < ROOM; i++)
        memory.from[i] = (uint8_t)prng_at(7, i);
    *state = &memory;
    return memory.from && memory.to ? 0 : -1;
}

static int teardown(void **state)
{
    struct memory *memory = *state;

    free(memory->from);
    free(memory->to);
    return 0;
}

static bool all_are(const uint8_t *bytes, size_t size, uint8_t value)
{
    while (size > 0 && bytes[size - 1] == value)
        size--;
    return size == 0;
}

static void check(const struct memory *m, const struct copier *copier, size_t to, size_t from,
                  size_t size)
{
    memset(m->to, 0xee, to + size + 2 * GUARD);
    copier_copy(copier, m->to + GUARD + to, m->from + from, size, size);
    assert_true(all_are(m->to, GUARD + to, 0xee));
    assert_memory_equal(m->to + GUARD + to, m->from + from, size);
    assert_true(all_are(m->to + GUARD + to + size, GUARD, 0xee));
}

static void test_every_way_copies_exactly(void **state)
{
    static const size_t sizes[] = { 0,    1,    63,    64,    65,    255,   256,   257,   4095,
                                    4096, 4097, 16383, 16384, 16385, 32768, 65536, 70001, LARGE };

    for (const struct copy_way *way = copy_ways(); way->name; way++) {
        const struct copier copier = { .stream = way->stream, .name = way->name };

        for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++)
            for (size_t shift = 0; shift<70; shift += sizes[s]> 40000 ? 23 : 3)
                check(*state, &copier, shift, (shift * 5) % 67, sizes[s]);
    }
}

static void test_small_transfers_are_not_streamed(void **state)
{
    struct copier copier;

    (void)state;
    copier_init(&copier);
    assert_string_equal(copier.name, copy_ways()->name);
    assert_true(copier.stream_min >= 4096);
    assert_ptr_equal(copier.stream, copy_ways()->stream);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_way_copies_exactly),
        cmocka_unit_test(test_small_transfers_are_not_streamed),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
