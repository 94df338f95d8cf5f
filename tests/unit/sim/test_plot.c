/* test_plot.c - pictures are well-formed, whatever they are given. */
#include "test.h"

#include <math.h>
#include <stdio.h>

#include "sim/plot.h"

/* Strict enough for what we write: tags nest, attributes are quoted, no bare & or <. */
static const char *name_end(const char *at)
{
    while ((*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') || (*at >= '0' && *at <= '9') ||
           *at == '-' || *at == ':')
        at++;
    return at;
}

static const char *skip_entity(const char *at)
{
    static const char *const known[] = { "&lt;", "&gt;", "&amp;", "&quot;" };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strncmp(at, known[i], strlen(known[i])) == 0)
            return at + strlen(known[i]);
    fail_msg("bare &: %.30s", at);
    return at;
}

static const char *skip_attributes(const char *at)
{
    while (*at == ' ') {
        const char *end = name_end(++at);
        assert_true(end > at && end[0] == '=' && end[1] == '"');
        for (at = end + 2; *at && *at != '"'; at++)
            assert_true(*at != '<' && *at != '&');
        assert_true(*at++ == '"');
    }
    return at;
}

static void check_xml(const char *text)
{
    char open[16][16] = { "" };
    int depth = 0;

    for (const char *at = text; *at;) {
        if (*at == '&') {
            at = skip_entity(at);
        } else if (*at != '<') {
            assert_true((unsigned char)*at >= 0x20 || *at == '\n');
            assert_true(*at != '>' || depth == 0 || strcmp(open[depth - 1], "style") != 0);
            at++;
        } else if (at[1] == '/') {
            const char *end = name_end(at + 2);
            assert_true(depth > 0 && *end == '>');
            assert_int_equal(strlen(open[depth - 1]), end - at - 2);
            assert_memory_equal(open[--depth], at + 2, (size_t)(end - at - 2));
            at = end + 1;
        } else {
            const char *end = name_end(at + 1), *rest = skip_attributes(end);
            assert_true(end > at + 1);
            if (rest[0] == '>') {
                assert_true(depth < 16);
                snprintf(open[depth++], 16, "%.*s", (int)(end - at - 1), at + 1);
            } else
                assert_true(*rest++ == '/' && *rest == '>');
            at = rest + 1;
        }
    }
    assert_int_equal(depth, 0);
    assert_null(strstr(text, "nan"));
    assert_null(strstr(text, "inf"));
}

static struct buf draw(const struct plot_page *page, struct faulty *f)
{
    struct buf out = BUF_INIT(&f->alloc);

    plot_write(page, &out);
    return out;
}

static void test_a_page_is_well_formed_and_says_what_it_shows(void **state)
{
    (void)state;
    const struct plot_point points[] = { { 0, 1 }, { 1, 5 }, { 2, 3.5 } };
    const struct plot_panel panels[] = {
        { "one",
          "s",
          "requests/s",
          { { "sent", points, 3, false }, { "late", points, 2, true } },
          2,
          false,
          0 },
        { "two", "ms", "%", { { NULL, points + 1, 2, false } }, 1, true, 100 },
        { "three", "", "", { { NULL, NULL, 0, false } }, 0, false, 0 },
    };
    const struct plot_page page = { "A & B <\"quoted\"> \xc3\xa9\x01\xff", "sub", panels, 3 };
    struct faulty f;

    faulty_init(&f, -1);
    struct buf out = draw(&page, &f);
    assert_false(out.failed);
    check_xml(out.data);
    assert_non_null(strstr(
        out.data,
        "<title>A &amp; B &lt;&quot;quoted&quot;&gt; \xc3\xa9\xef\xbf\xbd\xef\xbf\xbd</title>"));
    assert_non_null(strstr(out.data, ">sent</text>"));
    assert_non_null(strstr(out.data, ">10</text>")); /* a decade of the logarithmic axis */
    assert_non_null(strstr(out.data, "prefers-color-scheme:dark"));
    assert_non_null(strstr(out.data, "viewBox=\"0 0 1040 664\"")); /* two columns, two rows */
    buf_fini(&out);
    assert_int_equal(f.held, 0);
}

static void test_values_that_have_no_place_are_left_out(void **state)
{
    (void)state;
    const struct plot_point points[] = {
        { 0, 1 },      { 1, (double)NAN },      { (double)NAN, 2 },
        { -1, 2 },     { (double)INFINITY, 3 }, { 5, (double)-INFINITY },
        { 10, 1e300 }, { 1e-300, -5 }
    };
    struct faulty f;

    faulty_init(&f, -1);
    for (int logarithmic = 0; logarithmic < 2; logarithmic++) {
        const struct plot_panel panel = {
            "p", "x", "y", { { "s", points, 8, false } }, 1, logarithmic == 1, (double)NAN
        };
        const struct plot_page page = { "t", NULL, &panel, 1 };
        struct buf out = draw(&page, &f);
        assert_false(out.failed);
        check_xml(out.data);
        buf_fini(&out);
    }
    assert_int_equal(f.held, 0);
}

static void test_axes_of_numbers_that_hardly_differ_or_are_huge_have_an_end(void **state)
{
    (void)state;
    static const struct plot_point ends[][2] = {
        { { 0x1p53, 0x1p53 }, { 0x1p53, 0x1p53 } },
        { { 0x1p60, 1 }, { 0x1p60 + 256, 0x1p60 } },
        { { -0x1p60, -0x1p60 }, { -0x1p60, -0x1p60 } },
        { { 0, 0 }, { 1.7e308, 1.7e308 } },
        { { -1.7e308, -1.7e308 }, { 1.7e308, 1.7e308 } },
        { { -1e300, -1e300 }, { 1e300, 1e300 } },
        { { 0, 0 }, { 5e-324, 5e-324 } },
        { { 5e-324, 0 }, { 1e300, 0 } },
    };
    struct faulty f;

    faulty_init(&f, -1);
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]) * 2; i++) {
        const struct plot_panel panel = {
            "p", "x", "y", { { NULL, ends[i / 2], 2, false } }, 1, i % 2 == 1, 1.7e308
        };
        const struct plot_page page = { "t", NULL, &panel, 1 };
        struct buf out = draw(&page, &f);
        assert_false(out.failed);
        check_xml(out.data);
        assert_true(out.size < 200000);
        buf_fini(&out);
    }
    assert_int_equal(f.held, 0);
}

static void test_lines_run_from_data_to_picture(void **state)
{
    (void)state;
    const struct plot_point points[] = { { 0, 0 }, { 10, 10 } };
    const struct plot_panel panel = { "p", "x", "y", { { NULL, points, 2, false } }, 1, false, 0 };
    const struct plot_page page = { "t", NULL, &panel, 1 };
    struct faulty f;

    faulty_init(&f, -1);
    struct buf out = draw(&page, &f);
    /* From the lower left corner of the axes to the upper right one. */
    assert_non_null(strstr(out.data, "d=\"M62.0 300.0L504.0 104.0\""));
    buf_fini(&out);
}

static void test_memory_that_is_out_is_told(void **state)
{
    (void)state;
    const struct plot_point points[] = { { 0, 0 }, { 10, 10 } };
    const struct plot_panel panel = { "p", "x", "y", { { NULL, points, 2, false } }, 1, false, 0 };
    const struct plot_page page = { "t", NULL, &panel, 1 };

    for (long k = 0;; k++) {
        struct faulty f;
        faulty_init(&f, k);
        struct buf out = draw(&page, &f);
        const bool failed = out.failed;
        buf_fini(&out);
        assert_int_equal(f.held, 0);
        if (!failed) {
            assert_true(k > 2);
            return;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_page_is_well_formed_and_says_what_it_shows),
        cmocka_unit_test(test_values_that_have_no_place_are_left_out),
        cmocka_unit_test(test_axes_of_numbers_that_hardly_differ_or_are_huge_have_an_end),
        cmocka_unit_test(test_lines_run_from_data_to_picture),
        cmocka_unit_test(test_memory_that_is_out_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
