/* test_api_stop.c - stop texts are found where a plain search finds them, however many there are. */
#include "test.h"

#include <string.h>

#include "base/prng.h"
#include "gateway/api_stop.h"
#include "os/sysalloc.h"

static void add(struct api_stops *stops, const char *text)
{
    assert_true(api_stops_add(stops, text, strlen(text), os_alloc()));
}

/* The first byte behind which a text ends, and the longest that ends there; NULL: none. */
static const struct api_stop *search(const struct api_stops *stops, const char *text, size_t size,
                                     size_t *end_p)
{
    for (size_t end = 1; end <= size; end++) {
        const struct api_stop *found = NULL;
        for (uint32_t i = 0; i < stops->count; i++) {
            const struct api_stop *s = &stops->items[i];
            if (s->size <= end && memcmp(text + end - s->size, s->text, s->size) == 0 &&
                (!found || s->size > found->size))
                found = s;
        }
        if (found) {
            *end_p = end;
            return found;
        }
    }
    return NULL;
}

/* Bytes at the end of text that begin some stop text, and are not all of it. */
static size_t count_hopeful(const struct api_stops *stops, const char *text, size_t size)
{
    size_t most = 0;

    for (uint32_t i = 0; i < stops->count; i++)
        for (size_t n = 1; n < stops->items[i].size && n <= size; n++)
            if (n > most && memcmp(text + size - n, stops->items[i].text, n) == 0)
                most = n;
    return most;
}

static void test_a_text_is_found_at_its_last_byte(void **state)
{
    struct api_stops stops = { .count = 0 };
    struct api_stop_state at = { 0 };
    const char text[] = "ababaababac";

    (void)state;
    add(&stops, "ababac");
    for (size_t i = 0; i < strlen(text); i++) {
        const struct api_stop *found = api_stop_push(&stops, &at, (unsigned char)text[i]);
        assert_int_equal(found != NULL, i + 1 == strlen(text));
    }
    assert_int_equal(api_stop_hopeful(&stops, &at), 0);
    api_stops_fini(&stops, os_alloc());
    api_stops_fini(&stops, os_alloc());
}

static void test_the_longest_of_those_that_end_together_counts(void **state)
{
    struct api_stops stops = { .count = 0 };
    struct api_stop_state at = { 0 };

    (void)state;
    add(&stops, "c");
    add(&stops, "abc");
    add(&stops, "bc");
    assert_null(api_stop_push(&stops, &at, 'a'));
    assert_null(api_stop_push(&stops, &at, 'b'));
    assert_int_equal(api_stop_hopeful(&stops, &at), 2);
    assert_ptr_equal(api_stop_push(&stops, &at, 'c'), &stops.items[1]);
    api_stops_fini(&stops, os_alloc());
}

static void test_random_texts_agree_with_a_plain_search(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2000; seed++) {
        struct prng prng = { .seed = seed };
        struct api_stops stops = { .count = 0 };
        struct api_stop_state at = { 0 };
        const struct api_stop *found = NULL;
        char text[64];
        size_t size = 0, end = 0;
        const uint64_t count = 1 + prng_below(&prng, API_STOPS_MAX);
        for (uint64_t i = 0; i < count; i++) {
            char stop[8];
            const size_t length = 3 + prng_below(&prng, 5);
            for (size_t k = 0; k < length; k++)
                stop[k] = (char)('a' + prng_below(&prng, 2));
            assert_true(api_stops_add(&stops, stop, length, os_alloc()));
        }
        while (!found && size < sizeof(text)) {
            text[size] = (char)('a' + prng_below(&prng, 2));
            found = api_stop_push(&stops, &at, (unsigned char)text[size++]);
            if (!found)
                assert_int_equal(api_stop_hopeful(&stops, &at), count_hopeful(&stops, text, size));
        }
        const struct api_stop *expected = search(&stops, text, size, &end);
        assert_int_equal(found != NULL, expected != NULL);
        if (found) {
            assert_int_equal(end, size);
            assert_int_equal(found->size, expected->size);
            /* who does not end there goes on as if nothing had been */
            assert_int_equal(api_stop_hopeful(&stops, &at), count_hopeful(&stops, text, size));
        }
        api_stops_fini(&stops, os_alloc());
    }
}

static void test_the_longest_text_is_found(void **state)
{
    struct api_stops stops = { .count = 0 };
    struct api_stop_state at = { 0 };
    char text[API_STOP_BYTES_MAX];

    (void)state;
    memset(text, 'a', sizeof(text));
    text[sizeof(text) - 1] = 'b';
    assert_true(api_stops_add(&stops, text, sizeof(text), os_alloc()));
    for (int i = 0; i < 5000; i++)
        assert_null(api_stop_push(&stops, &at, 'a'));
    assert_int_equal(api_stop_hopeful(&stops, &at), sizeof(text) - 1);
    assert_non_null(api_stop_push(&stops, &at, 'b'));
    api_stops_fini(&stops, os_alloc());
}

static void test_without_memory_nothing_is_added(void **state)
{
    struct api_stops stops = { .count = 0 };
    struct faulty f;

    (void)state;
    faulty_init(&f, 0);
    assert_false(api_stops_add(&stops, "x", 1, &f.alloc));
    assert_int_equal(stops.count, 0);
    assert_int_equal(f.held, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_text_is_found_at_its_last_byte),
        cmocka_unit_test(test_the_longest_of_those_that_end_together_counts),
        cmocka_unit_test(test_random_texts_agree_with_a_plain_search),
        cmocka_unit_test(test_the_longest_text_is_found),
        cmocka_unit_test(test_without_memory_nothing_is_added),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
