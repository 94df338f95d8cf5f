/* test_file.c - whole files, mapped or read, and what is said of those that cannot be. */
#define _GNU_SOURCE
#include "test.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "os/file.h"
#include "os/sysalloc.h"

struct place {
    char directory[64], path[128];
};

static int make_place(void **state)
{
    struct place *place = calloc(1, sizeof(*place));

    test_directory(place->directory);
    snprintf(place->path, sizeof(place->path), "%s/file", place->directory);
    *state = place;
    return 0;
}

static int remove_place(void **state)
{
    struct place *place = *state;

    test_remove(place->directory);
    free(place);
    return 0;
}

static int open_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int count = 0;

    assert_non_null(dir);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static void test_a_mapped_file_and_a_read_file_hold_the_same_bytes(void **state)
{
    const struct place *place = *state;
    unsigned char bytes[10000];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (unsigned char)(i * 7 >> 3);
    test_write(place->path, bytes, sizeof(bytes));
    const int descriptors = open_descriptors();

    struct os_map map;
    assert_int_equal(os_map_open(place->path, &map, NULL), MC_OK);
    assert_int_equal(map.size, sizeof(bytes));
    assert_memory_equal(map.data, bytes, sizeof(bytes));

    char *data;
    size_t size;
    assert_int_equal(os_file_read(place->path, sizeof(bytes), os_alloc(), &data, &size, NULL),
                     MC_OK);
    assert_int_equal(size, sizeof(bytes));
    assert_memory_equal(data, bytes, sizeof(bytes));
    assert_int_equal(data[size], '\0');

    assert_int_equal(open_descriptors(), descriptors); /* neither keeps its descriptor */
    alloc_free(os_alloc(), data);
    os_map_close(&map);
    assert_null(map.data);
    os_map_close(&map);
}

static void test_an_empty_file_is_no_bytes_and_no_error(void **state)
{
    const struct place *place = *state;
    struct os_map map;
    char *data;
    size_t size;

    test_write(place->path, "", 0);
    assert_int_equal(os_map_open(place->path, &map, NULL), MC_OK);
    assert_int_equal(map.size, 0);
    assert_null(map.data);
    os_map_close(&map);
    assert_int_equal(os_file_read(place->path, 0, os_alloc(), &data, &size, NULL), MC_OK);
    assert_int_equal(size, 0);
    assert_string_equal(data, "");
    alloc_free(os_alloc(), data);
}

/* Both ways in must refuse `path` with `status` and a text that names the path, and write nothing. */
static void assert_refused(const char *path, mc_status status)
{
    struct os_map map = { &map, 77 };
    char *data = (char *)&map;
    size_t size = 77;
    struct mc_error error = { 0 };

    assert_int_equal(os_map_open(path, &map, &error), status);
    assert_int_equal(error.status, status);
    assert_non_null(strstr(error.text, path));
    assert_ptr_equal(map.data, &map);
    assert_int_equal(map.size, 77);

    error = (struct mc_error){ 0 };
    assert_int_equal(os_file_read(path, 1000, os_alloc(), &data, &size, &error), status);
    assert_int_equal(error.status, status);
    assert_non_null(strstr(error.text, path));
    assert_ptr_equal(data, &map);
    assert_int_equal(size, 77);
}

static void test_what_is_not_a_regular_file_is_refused_by_name_and_never_waited_for(void **state)
{
    const struct place *place = *state;
    char below[160];
    const int descriptors = open_descriptors();

    assert_refused(place->path, MC_E_NOT_FOUND);
    assert_refused(place->directory, MC_E_FORMAT);
    assert_refused("/dev/null", MC_E_FORMAT);
    test_write(place->path, "x", 1);
    snprintf(below, sizeof(below), "%s/below", place->path);
    assert_refused(below, MC_E_NOT_FOUND);
    remove(place->path);
    assert_int_equal(mkfifo(place->path, 0600), 0);
    assert_refused(place->path, MC_E_FORMAT);
    assert_int_equal(open_descriptors(), descriptors);
}

static void test_a_file_over_the_limit_is_refused_before_memory_is_taken(void **state)
{
    const struct place *place = *state;
    struct faulty f;
    struct mc_error error = { 0 };
    char *data = NULL;
    size_t size;

    faulty_init(&f, -1);
    test_write(place->path, "12345", 5);
    assert_int_equal(os_file_read(place->path, 4, &f.alloc, &data, &size, &error), MC_E_RANGE);
    assert_int_equal(f.calls, 0);
    assert_null(data);
    assert_non_null(strstr(error.text, "5 bytes; at most 4"));
}

static void test_a_failed_allocation_leaves_nothing_behind(void **state)
{
    const struct place *place = *state;
    const int descriptors = open_descriptors();

    test_write(place->path, "12345", 5);
    for (long k = 0;; k++) {
        struct faulty f;
        char *data = NULL;
        size_t size;
        faulty_init(&f, k);
        const mc_status status = os_file_read(place->path, 5, &f.alloc, &data, &size, NULL);
        if (status == MC_OK) {
            alloc_free(&f.alloc, data);
            assert_int_equal(f.held, 0);
            assert_int_equal(k, 1);
            break;
        }
        assert_int_equal(status, MC_E_NOMEM);
        assert_null(data);
        assert_int_equal(f.held, 0);
    }
    assert_int_equal(open_descriptors(), descriptors);
}

static void test_a_file_is_open_to_others_by_its_mode(void **state)
{
    const struct place *place = *state;
    FILE *file = fopen(place->path, "w");

    assert_non_null(file);
    fclose(file);
    assert_int_equal(chmod(place->path, 0640), 0);
    assert_false(os_is_open_to_others(place->path));
    assert_int_equal(chmod(place->path, 0644), 0);
    assert_true(os_is_open_to_others(place->path));
    assert_int_equal(chmod(place->path, 0602), 0);
    assert_true(os_is_open_to_others(place->path));
    assert_int_equal(remove(place->path), 0);
    assert_false(os_is_open_to_others(place->path));
}

static void test_only_a_directory_is_one(void **state)
{
    const struct place *place = *state;

    assert_true(os_is_directory(place->directory));
    assert_false(os_is_directory(place->path));
    test_write(place->path, "x", 1);
    assert_false(os_is_directory(place->path));
}

#define WITH_PLACE(test) cmocka_unit_test_setup_teardown(test, make_place, remove_place)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_PLACE(test_a_mapped_file_and_a_read_file_hold_the_same_bytes),
        WITH_PLACE(test_an_empty_file_is_no_bytes_and_no_error),
        WITH_PLACE(test_what_is_not_a_regular_file_is_refused_by_name_and_never_waited_for),
        WITH_PLACE(test_a_file_over_the_limit_is_refused_before_memory_is_taken),
        WITH_PLACE(test_a_failed_allocation_leaves_nothing_behind),
        WITH_PLACE(test_a_file_is_open_to_others_by_its_mode),
        WITH_PLACE(test_only_a_directory_is_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
