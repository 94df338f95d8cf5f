/* test.c - the faulty allocator and temporary files. */
#define _GNU_SOURCE
#include "test.h"

#include <ftw.h>
#include <stdio.h>
#include <unistd.h>

static bool refuse(struct faulty *f)
{
    const long call = f->calls++;

    return f->fail_at >= 0 && (call == f->fail_at || (f->fail_after && call > f->fail_at));
}

static void *faulty_alloc(void *context, size_t size)
{
    struct faulty *f = context;
    void *p = refuse(f) ? NULL : malloc(size);

    if (p)
        f->held++;
    return p;
}

static void *faulty_resize(void *context, void *old, size_t size)
{
    struct faulty *f = context;
    void *p = refuse(f) ? NULL : realloc(old, size);

    if (p && !old)
        f->held++;
    return p;
}

static void faulty_free(void *context, void *p)
{
    struct faulty *f = context;

    if (p)
        f->held--;
    free(p);
}

void faulty_init(struct faulty *f, long fail_at)
{
    *f = (struct faulty){ .alloc = { faulty_alloc, faulty_resize, faulty_free, f },
                          .fail_at = fail_at };
}

const char *test_data(const char *name)
{
    static char path[4096];

    snprintf(path, sizeof(path), "%s/%s", MC_TEST_DATA, name);
    return path;
}

char *test_directory(char path[64])
{
    snprintf(path, 64, "/tmp/mooncake-test-XXXXXX");
    assert_non_null(mkdtemp(path));
    return path;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *walk)
{
    (void)st;
    (void)kind;
    (void)walk;
    return remove(path);
}

void test_remove(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void test_write(const char *path, const void *data, size_t size)
{
    FILE *file = fopen(path, "wb");

    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}
