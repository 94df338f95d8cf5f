/* test_outfile.c - a file that is written once, by whoever made it. */
#include "test.h"

#include <stdio.h>
#include <sys/stat.h>

#include "os/file.h"
#include "os/outfile.h"
#include "os/sysalloc.h"

static void test_what_is_written_is_there_and_only_its_owner_may_read_it(void **state)
{
    char directory[64], path[96], *data;
    struct mc_error error = { 0 };
    struct stat st;
    size_t size;
    int fd = -1;

    (void)state;
    test_directory(directory);
    (void)snprintf(path, sizeof(path), "%s/out", directory);
    assert_int_equal(os_outfile_open(path, &fd, &error), MC_OK);
    assert_int_equal(os_outfile_write(fd, "one ", 4, &error), MC_OK);
    assert_int_equal(os_outfile_write(fd, "two", 3, &error), MC_OK);
    os_outfile_close(fd);
    assert_int_equal(os_file_read(path, 100, os_alloc(), &data, &size, &error), MC_OK);
    assert_string_equal(data, "one two");
    os_alloc()->free(os_alloc()->context, data);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    fd = 77;
    assert_int_equal(os_outfile_open(path, &fd, &error), MC_E_EXISTS);
    assert_int_equal(fd, 77);
    test_remove(directory);
}

static void test_what_cannot_be_written_is_said_with_the_systems_reason(void **state)
{
    char directory[64], path[96];
    struct mc_error error = { 0 };
    int fd = -1;

    (void)state;
    assert_int_equal(os_outfile_open("/nowhere/at/all", &fd, &error), MC_E_IO);
    assert_non_null(strstr(error.text, "/nowhere/at/all"));
    test_directory(directory);
    (void)snprintf(path, sizeof(path), "%s/out", directory);
    assert_int_equal(os_outfile_open(path, &fd, &error), MC_OK);
    os_outfile_close(fd);
    assert_int_equal(os_outfile_write(-1, "x", 1, &error), MC_E_IO);
    os_outfile_close(-1);
    test_remove(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_written_is_there_and_only_its_owner_may_read_it),
        cmocka_unit_test(test_what_cannot_be_written_is_said_with_the_systems_reason),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
