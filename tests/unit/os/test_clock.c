/* test_clock.c - time moves forward, and dates read as people and protocols write them. */
#include "test.h"

#include "os/clock.h"

static void test_the_monotonic_clock_never_goes_back_and_does_move(void **state)
{
    (void)state;
    const uint64_t begin = os_now_ns();
    uint64_t last = begin, now = begin;

    for (int i = 0; i < 1000 || now == begin; i++) {
        now = os_now_ns();
        assert_true(now >= last);
        last = now;
    }
}

static void test_dates_read_as_rfc_3339_in_utc(void **state)
{
    (void)state;
    static const struct {
        uint64_t date_s;
        const char *text;
    } rows[] = {
        { 0, "1970-01-01T00:00:00Z" },
        { 951782400, "2000-02-29T00:00:00Z" },
        { 1763822520, "2025-11-22T14:42:00Z" },
        { 4294967296, "2106-02-07T06:28:16Z" }, /* beyond 32 bits */
        { 253402300799, "9999-12-31T23:59:59Z" },
    };
    char buffer[21];

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_ptr_equal(os_date_text(rows[i].date_s, buffer), buffer);
        assert_string_equal(buffer, rows[i].text);
    }
}

static void test_a_date_beyond_four_digits_of_years_is_the_last_one(void **state)
{
    (void)state;
    char buffer[21];

    assert_string_equal(os_date_text(253402300800, buffer), "9999-12-31T23:59:59Z");
    assert_string_equal(os_date_text(UINT64_MAX, buffer), "9999-12-31T23:59:59Z");
}

static void test_today_is_later_than_this_test(void **state)
{
    (void)state;
    assert_true(os_date_s() > 1763822520);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_monotonic_clock_never_goes_back_and_does_move),
        cmocka_unit_test(test_dates_read_as_rfc_3339_in_utc),
        cmocka_unit_test(test_a_date_beyond_four_digits_of_years_is_the_last_one),
        cmocka_unit_test(test_today_is_later_than_this_test),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
