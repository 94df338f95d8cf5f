/* test_safetensors.c - headers that hold, headers that do not, and nothing left behind. */
#include "test.h"

#include <stdio.h>

#include "infer/safetensors.h"

/* A file in memory: the length, `header`, and data_bytes bytes 0, 1, 2, ... */
struct file {
    unsigned char bytes[4096];
    size_t size;
};

static struct file file_of(const char *header, size_t data_bytes)
{
    const size_t length = strlen(header);
    struct file file = { .size = 8 + length + data_bytes };

    assert_true(file.size <= sizeof(file.bytes));
    for (int i = 0; i < 8; i++)
        file.bytes[i] = (unsigned char)(length >> 8 * i);
    memcpy(file.bytes + 8, header, length);
    for (size_t i = 0; i < data_bytes; i++)
        file.bytes[8 + length + i] = (unsigned char)i;
    return file;
}

#define ENTRY(name, dtype, shape, offsets) \
    "\"" name "\": {\"dtype\": \"" dtype "\", \"shape\": " shape ", \"data_offsets\": " offsets "}"

static const char two_tensors[] = "{\"__metadata__\": {\"format\": \"pt\"}, " //
    ENTRY("b", "F32", "[2, 3]", "[8, 32]") ", " ENTRY("a", "BF16", "[4]", "[0, 8]") "}   ";

static void test_tensors_are_found_by_name(void **state)
{
    (void)state;
    struct faulty f;
    struct safetensors st;
    const struct file file = file_of(two_tensors, 32);

    faulty_init(&f, -1);
    assert_int_equal(safetensors_parse(file.bytes, file.size, "f", &f.alloc, &st, NULL), MC_OK);
    assert_int_equal(st.count, 2);
    const struct st_entry *a = safetensors_find(&st, "a"), *b = safetensors_find(&st, "b");
    assert_non_null(a);
    assert_non_null(b);
    assert_null(safetensors_find(&st, "c"));
    assert_null(safetensors_find(&st, ""));
    assert_null(safetensors_find(&st, "__metadata__"));
    assert_string_equal(a->dtype, "BF16");
    assert_int_equal(a->rank, 1);
    assert_int_equal(a->shape[0], 4);
    assert_int_equal(*(const unsigned char *)a->data, 0);
    assert_int_equal(a->bytes, 8);
    assert_int_equal(b->rank, 2);
    assert_int_equal(b->shape[1], 3);
    assert_int_equal(*(const unsigned char *)b->data, 8);
    assert_int_equal(b->bytes, 24);
    safetensors_fini(&st);
    assert_int_equal(f.held, 0);
}

static void test_what_the_format_allows_is_read(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t data_bytes;
    } files[] = {
        { "{}", 0 },
        { "{\"__metadata__\": {}}", 0 },
        { "{" ENTRY("scalar", "F32", "[]", "[0, 4]") "}", 4 },
        { "{" ENTRY("empty", "F32", "[0, 7]", "[0, 0]") "}", 0 },
        { "{" ENTRY("full", "U8", "[2]", "[0, 2]") ", " ENTRY("empty", "U8", "[0]", "[0, 0]") "}",
          2 },
        { "{" ENTRY("new", "F7_UNHEARD_OF_LONG_NAME", "[2]", "[0, 3]") "}", 3 },
        { "{" ENTRY("half", "F4", "[4]", "[0, 2]") "}", 2 },
    };
    for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
        const struct file file = file_of(files[i].header, files[i].data_bytes);
        struct faulty f;
        struct safetensors st;
        struct mc_error error = { 0 };
        faulty_init(&f, -1);
        if (safetensors_parse(file.bytes, file.size, "f", &f.alloc, &st, &error) != MC_OK)
            fail_msg("%s: %s", files[i].header, error.text);
        safetensors_fini(&st);
        assert_int_equal(f.held, 0);
    }
}

static const struct refusal {
    const char *header;
    size_t data_bytes;
    mc_status status;
    const char *words; /* the text begins with them */
} refusals[] = {
    { "", 0, MC_E_FORMAT, "f: header: does not begin with {" },
    { "  {}", 0, MC_E_FORMAT, "f: header: does not begin with {" },
    { "{", 0, MC_E_FORMAT, "f: header: line 1" },
    { "{}x", 0, MC_E_FORMAT, "f: header: line 1, column 3: not valid JSON" },
    { "{" ENTRY("a", "U8", "[1]", "[0, 1]") ", " ENTRY("a", "U8", "[1]", "[1, 2]") "}", 2,
      MC_E_FORMAT, "f: header: line 1, column 64: not valid JSON: duplicate" },
    { "{\"a\": 1}", 0, MC_E_FORMAT, "f: a: expected an object, found a number" },
    { "{\"a\": {\"shape\": [1], \"data_offsets\": [0, 1]}}", 1, MC_E_FORMAT,
      "f: a: dtype: expected" },
    { "{\"a\": {\"dtype\": 4, \"shape\": [1], \"data_offsets\": [0, 1]}}", 1, MC_E_FORMAT,
      "f: a: dtype: expected a string" },
    { "{\"a\": {\"dtype\": \"U8\", \"data_offsets\": [0, 1]}}", 1, MC_E_FORMAT,
      "f: a: shape: expected a list, found nothing" },
    { "{" ENTRY("a", "U8", "[-1]", "[0, 1]") "}", 1, MC_E_FORMAT,
      "f: a: shape[0]: expected a size, found a negative number" },
    { "{" ENTRY("a", "U8", "[1.5]", "[0, 1]") "}", 1, MC_E_FORMAT,
      "f: a: shape[0]: expected a size, found a number" },
    { "{" ENTRY("a", "U8", "[1,1,1,1,1,1,1,1,1]", "[0, 1]") "}", 1, MC_E_RANGE,
      "f: a: shape: 9 dimensions; at most 8" },
    { "{" ENTRY("a", "U8", "[4294967296, 4294967296]", "[0, 1]") "}", 1, MC_E_FORMAT,
      "f: a: shape: its product overflows" },
    { "{" ENTRY("a", "F32", "[4611686018427387904]", "[0, 0]") "}", 0, MC_E_FORMAT,
      "f: a: shape: its product overflows" },
    { "{\"a\": {\"dtype\": \"U8\", \"shape\": [1]}}", 1, MC_E_FORMAT,
      "f: a: data_offsets: expected [begin, end]" },
    { "{" ENTRY("a", "U8", "[1]", "[0]") "}", 1, MC_E_FORMAT, "f: a: data_offsets: expected" },
    { "{" ENTRY("a", "U8", "[1]", "[0, \"1\"]") "}", 1, MC_E_FORMAT,
      "f: a: data_offsets: expected" },
    { "{" ENTRY("a", "U8", "[1]", "[1, 0]") "}", 1, MC_E_FORMAT,
      "f: a: data_offsets: [1, 0] is not a range" },
    { "{" ENTRY("a", "U8", "[1]", "[-1, 0]") "}", 1, MC_E_FORMAT,
      "f: a: data_offsets: [-1, 0] is not a range" },
    { "{" ENTRY("a", "U8", "[2]", "[0, 2]") "}", 1, MC_E_FORMAT,
      "f: a: data_offsets: [0, 2] runs past the 1 bytes of data; is the file complete?" },
    { "{" ENTRY("a", "U8", "[1]", "[9223372036854775806, 9223372036854775807]") "}", 1, MC_E_FORMAT,
      "f: a: data_offsets: [9223372036854775806, 9223372036854775807] runs past" },
    { "{" ENTRY("a", "U8", "[1]", "[0, 18446744073709551617]") "}", 1, MC_E_FORMAT,
      "f: header: line 1, column 76: not valid JSON: too big integer" },
    { "{" ENTRY("a", "BF16", "[2]", "[0, 3]") "}", 3, MC_E_FORMAT,
      "f: a: data_offsets: 3 bytes, but dtype BF16 and shape need 4" },
    { "{" ENTRY("a", "F4", "[3]", "[0, 1]") "}", 1, MC_E_FORMAT,
      "f: a: data_offsets: 1 bytes, but" },
    { "{" ENTRY("a", "U8", "[2]", "[0, 2]") ", " ENTRY("b", "U8", "[2]", "[1, 3]") "}", 3,
      MC_E_FORMAT, "f: b: data_offsets: begins at byte 1, inside the tensor before it" },
    { "{" ENTRY("a", "U8", "[1]", "[0, 1]") ", " ENTRY("b", "U8", "[1]", "[2, 3]") "}", 3,
      MC_E_FORMAT, "f: b: data_offsets: begins at byte 2, with a gap after the tensor before it" },
    { "{" ENTRY("a", "U8", "[1]", "[0, 1]") "}", 2, MC_E_FORMAT,
      "f: 2 bytes of data, but the tensors in its header end at 1" },
    { "{\"__metadata__\": 7}", 0, MC_E_FORMAT,
      "f: __metadata__: expected an object, found a number" },
    { "{\"__metadata__\": {\"k\": 7}}", 0, MC_E_FORMAT,
      "f: __metadata__.k: expected a string, found a number" },
};

static void test_each_refusal_names_the_tensor_and_leaves_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(refusals) / sizeof(*refusals); i++) {
        const struct refusal *r = &refusals[i];
        const struct file file = file_of(r->header, r->data_bytes);
        struct faulty f;
        struct safetensors st;
        struct mc_error error = { 0 };
        faulty_init(&f, -1);
        const mc_status status =
            safetensors_parse(file.bytes, file.size, "f", &f.alloc, &st, &error);
        if (status != r->status || strncmp(error.text, r->words, strlen(r->words)) != 0)
            fail_msg("%s: %s: %s", r->header, mc_status_name(status), error.text);
        assert_int_equal(f.held, 0);
    }
}

static void test_a_header_length_beyond_the_file_is_refused(void **state)
{
    (void)state;
    struct file file = file_of("{}", 0);
    struct faulty f;
    struct safetensors st;
    struct mc_error error;

    faulty_init(&f, -1);
    for (size_t size = 0; size < 8; size++) {
        assert_int_equal(safetensors_parse(file.bytes, size, "f", &f.alloc, &st, &error),
                         MC_E_FORMAT);
        assert_non_null(strstr(error.text, "too short for the header's length"));
    }
    assert_int_equal(safetensors_parse(file.bytes, 9, "f", &f.alloc, &st, &error), MC_E_FORMAT);
    assert_string_equal(error.text, "f: header: length 2 runs past the file's 9 bytes");
    memset(file.bytes, 0xff, 8); /* would wrap round if 8 were added to it */
    assert_int_equal(safetensors_parse(file.bytes, file.size, "f", &f.alloc, &st, &error),
                     MC_E_RANGE);
    assert_non_null(strstr(error.text, "length 18446744073709551615; at most 100000000"));
    assert_int_equal(f.calls, 0);
}

static void test_every_cut_of_a_file_is_refused(void **state)
{
    (void)state;
    const struct file file = file_of(two_tensors, 32);

    for (size_t size = 0; size < file.size; size++) {
        unsigned char *cut = malloc(size ? size : 1); /* exact: reading past it is seen */
        struct faulty f;
        struct safetensors st;
        memcpy(cut, file.bytes, size);
        faulty_init(&f, -1);
        assert_int_equal(safetensors_parse(cut, size, "f", &f.alloc, &st, NULL), MC_E_FORMAT);
        assert_int_equal(f.held, 0);
        free(cut);
    }
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    (void)state;
    const struct file file = file_of(two_tensors, 32);

    for (long k = 0;; k++) {
        struct faulty f;
        struct safetensors st;
        faulty_init(&f, k);
        const mc_status status = safetensors_parse(file.bytes, file.size, "f", &f.alloc, &st, NULL);
        if (status == MC_OK) {
            safetensors_fini(&st);
            assert_int_equal(f.held, 0);
            assert_int_equal(k, 3); /* the table and two names */
            return;
        }
        assert_int_equal(status, MC_E_NOMEM);
        assert_int_equal(f.held, 0);
    }
}

static void test_a_mapped_file_is_like_one_in_memory(void **state)
{
    (void)state;
    const struct file file = file_of(two_tensors, 32);
    char directory[64], path[128];
    struct faulty f;
    struct safetensors st;
    struct mc_error error;

    faulty_init(&f, -1);
    test_directory(directory);
    snprintf(path, sizeof(path), "%s/model.safetensors", directory);
    assert_int_equal(safetensors_open(path, &f.alloc, &st, &error), MC_E_NOT_FOUND);
    assert_non_null(strstr(error.text, path));

    test_write(path, file.bytes, file.size);
    assert_int_equal(safetensors_open(path, &f.alloc, &st, &error), MC_OK);
    assert_int_equal(st.map.size, file.size);
    assert_int_equal(((const unsigned char *)safetensors_find(&st, "b")->data)[23], 31);
    safetensors_fini(&st);

    test_write(path, file.bytes, file.size - 1);
    assert_int_equal(safetensors_open(path, &f.alloc, &st, &error), MC_E_FORMAT);
    assert_memory_equal(error.text, "model.safetensors: b: data_offsets", 34);
    test_write(path, "", 0);
    assert_int_equal(safetensors_open(path, &f.alloc, &st, &error), MC_E_FORMAT);
    assert_int_equal(safetensors_open(directory, &f.alloc, &st, &error), MC_E_FORMAT);
    assert_non_null(strstr(error.text, "not a regular file"));
    assert_int_equal(f.held, 0);
    test_remove(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tensors_are_found_by_name),
        cmocka_unit_test(test_what_the_format_allows_is_read),
        cmocka_unit_test(test_each_refusal_names_the_tensor_and_leaves_nothing),
        cmocka_unit_test(test_a_header_length_beyond_the_file_is_refused),
        cmocka_unit_test(test_every_cut_of_a_file_is_refused),
        cmocka_unit_test(test_every_failed_allocation_leaves_nothing_behind),
        cmocka_unit_test(test_a_mapped_file_is_like_one_in_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
