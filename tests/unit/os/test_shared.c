/* test_shared.c - shared memory is there when open says so, and gone after close. */
#define _GNU_SOURCE
#include "test.h"

#include "os/shared.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

static void test_another_mapping_of_the_descriptor_sees_the_same_bytes(void **state)
{
    (void)state;
    struct os_shared shared;

    assert_int_equal(os_shared_open(10000, 0, &shared, NULL), MC_OK);
    assert_int_equal(shared.size % 4096, 0);
    assert_true(shared.size >= 10000);
    for (size_t i = 0; i < shared.size; i++)
        assert_int_equal(((char *)shared.address)[i], 0);
    char *other = mmap(NULL, shared.size, PROT_READ, MAP_SHARED, shared.fd, 0);
    assert_true(other != MAP_FAILED);
    ((char *)shared.address)[9999] = 42;
    assert_int_equal(other[9999], 42);
    munmap(other, shared.size);
    os_shared_close(&shared);
    assert_int_equal(shared.fd, -1);
    os_shared_close(&shared);
}

static void test_nobody_can_shrink_it_under_a_reader(void **state)
{
    (void)state;
    struct os_shared shared;

    assert_int_equal(os_shared_open(8192, -1, &shared, NULL), MC_OK);
    assert_int_not_equal(ftruncate(shared.fd, 4096), 0);
    os_shared_close(&shared);
}

static void test_more_than_there_is_is_an_event(void **state)
{
    (void)state;
    struct os_shared shared;
    struct mc_error error = { 0 };

    assert_int_equal(os_shared_open(SIZE_MAX, -1, &shared, &error), MC_E_NOMEM);
    assert_int_equal(os_shared_open((size_t)1 << 46, -1, &shared, &error), MC_E_NOMEM);
    assert_int_equal(error.status, MC_E_NOMEM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_another_mapping_of_the_descriptor_sees_the_same_bytes),
        cmocka_unit_test(test_nobody_can_shrink_it_under_a_reader),
        cmocka_unit_test(test_more_than_there_is_is_an_event),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
