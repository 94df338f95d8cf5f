/*
 * test.h - cmocka with its headers in the order it needs, and the doubles that most tests want.
 *
 * A failed assert leaves by longjmp: use asserts only in the test's own thread.
 */
#ifndef TEST_H
#define TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <mooncake/status.h>

/** An allocator whose call number `fail_at` (from 0) fails, and which counts what is still held. */
struct faulty {
    struct mc_alloc alloc; /* give this to the code under test */
    long calls;            /* allocations and growing resizes so far */
    long fail_at;          /* the call that fails; -1: none */
    bool fail_after;       /* every later call fails too */
    long held;             /* blocks not yet freed */
};

/** In place, because alloc.context points back at `faulty`. */
void faulty_init(struct faulty *faulty, long fail_at);

/** Path of a file in the tests' data, from MC_TEST_DATA; static buffer, overwritten by the next call. */
const char *test_data(const char *name);

/** A fresh directory under the system's temporary one; test_remove() deletes it and all in it. */
char *test_directory(char path[64]);
void test_remove(const char *path);

/** Write a whole file; asserts on failure. */
void test_write(const char *path, const void *data, size_t size);

#endif /* TEST_H */
