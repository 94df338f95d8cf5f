/* test_prompt.c - a prompt arrives byte for byte, from wherever it is. */
#include "test.h"

#include <stdio.h>

#include "base/alloc.h"
#include "cmd/prompt.h"

/* A stream that holds [size] bytes. */
static FILE *stream_of(const char *bytes, size_t size)
{
    FILE *file = tmpfile();

    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    rewind(file);
    return file;
}

static void test_argument_file_and_stream_arrive_unchanged(void **state)
{
    (void)state;
    static const char odd[] = "a\0b\xff\n\n";
    char directory[64], path[80], *text;
    size_t size;
    struct faulty f;
    struct mc_error error = { 0 };
    FILE *input = stream_of(odd, sizeof(odd));
    faulty_init(&f, -1);
    snprintf(path, sizeof(path), "%s/p", test_directory(directory));
    test_write(path, odd, sizeof(odd));

    assert_int_equal(prompt_read("text", NULL, NULL, &f.alloc, &text, &size, &error), MC_OK);
    assert_string_equal(text, "text");
    assert_int_equal(size, 4);
    alloc_free(&f.alloc, text);
    assert_int_equal(prompt_read(NULL, path, NULL, &f.alloc, &text, &size, &error), MC_OK);
    assert_int_equal(size, sizeof(odd));
    assert_memory_equal(text, odd, sizeof(odd));
    alloc_free(&f.alloc, text);
    assert_int_equal(prompt_read("-", NULL, input, &f.alloc, &text, &size, &error), MC_OK);
    assert_int_equal(size, sizeof(odd));
    assert_memory_equal(text, odd, sizeof(odd));
    alloc_free(&f.alloc, text);
    rewind(input);
    assert_int_equal(prompt_read(NULL, "-", input, &f.alloc, &text, &size, &error), MC_OK);
    assert_int_equal(size, sizeof(odd));
    alloc_free(&f.alloc, text);
    fclose(input);
    test_remove(directory);
    assert_int_equal(f.held, 0);
}

static void test_a_stream_that_is_too_long_is_refused(void **state)
{
    (void)state;
    struct faulty f;
    struct mc_error error = { 0 };
    char *text = NULL;
    size_t size;
    faulty_init(&f, -1);
    FILE *input = stream_of("", 0);

    assert_int_equal(fseek(input, PROMPT_BYTES_MAX, SEEK_SET), 0); /* a hole: nothing is stored */
    assert_int_equal(fputc('x', input), 'x');
    rewind(input);
    assert_int_equal(prompt_read("-", NULL, input, &f.alloc, &text, &size, &error), MC_E_RANGE);
    assert_string_equal(error.text, "standard input: more than 16777216 bytes");
    fclose(input);
    assert_null(text);
    assert_int_equal(f.held, 0);
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    (void)state;
    FILE *input = stream_of("one prompt", 10);

    for (int from_stream = 0; from_stream < 2; from_stream++)
        for (long k = 0;; k++) {
            struct faulty f;
            struct mc_error error = { 0 };
            char *text = NULL;
            size_t size;
            faulty_init(&f, k);
            rewind(input);
            const mc_status status = prompt_read(from_stream ? "-" : "one prompt", NULL, input,
                                                 &f.alloc, &text, &size, &error);
            alloc_free(&f.alloc, text);
            assert_int_equal(f.held, 0);
            if (status == MC_OK) {
                assert_int_equal(k, 1);
                break;
            }
            assert_int_equal(status, MC_E_NOMEM);
            assert_non_null(strstr(error.text, "out of memory"));
        }
    fclose(input);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_argument_file_and_stream_arrive_unchanged),
        cmocka_unit_test(test_a_stream_that_is_too_long_is_refused),
        cmocka_unit_test(test_every_failed_allocation_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
