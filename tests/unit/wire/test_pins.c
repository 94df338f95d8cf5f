/*
 * test_pins.c - numbers, types and names on the wire are fixed for ever.
 *
 * tests/data/wire/pins.txt is what has been promised. To add a message or an optional field, add its
 * line there; a line that is there may never change or go.
 */
#include "test.h"

#include "wire/msg.h"

#include <stdio.h>

static char listing[1 << 16], pinned[1 << 16];

static const char *value_name(enum wire_value value)
{
    static const char *const names[] = {
        "U32",  "U64",   "F32",  "BOOL", "STATUS", "KEY",  "HASH",
        "TEXT", "BYTES", "U32S", "U64S", "KEYS",   "PART", "LIST"
    };

    return names[value];
}

static size_t list_struct(size_t at, const struct wire_struct *type)
{
    for (uint32_t i = 0; i < type->count; i++) {
        const struct wire_field *f = &type->fields[i];
        at += (size_t)snprintf(listing + at, sizeof(listing) - at, "%s %u %s%s%s %s %s\n",
                               type->name, f->number, value_name(f->value), f->inner ? " " : "",
                               f->inner ? f->inner->name : "",
                               f->required ? "required" : "optional", f->name);
        assert_true(at < sizeof(listing));
    }
    return at;
}

static void list_all(void)
{
    size_t at = 0;
#define TYPE(name, words) at = list_struct(at, &wire_struct_##name);
#define MESSAGE(number, NAME, name, words) \
    at += (size_t)snprintf(listing + at, sizeof(listing) - at, "message %d %s\n", number, #name); \
    TYPE(name, words)
#include "wire/msg.def"
}

/** Whether `text` has this line, whole. */
static bool has_line(const char *text, const char *line, size_t size)
{
    for (const char *p = text; (p = strstr(p, "\n")) != NULL; p++)
        if (strncmp(p + 1, line, size) == 0 && p[1 + size] == '\n')
            return true;
    return false;
}

static void check_lines(const char *text, const char *in, const char *why)
{
    for (const char *line = text + 1; *line;) {
        const size_t size = strcspn(line, "\n");
        if (!has_line(in, line, size))
            fail_msg("%.*s: %s", (int)size, line, why);
        line += size + 1;
    }
}

static void test_what_was_promised_is_there_and_what_is_there_is_promised(void **state)
{
    (void)state;
    FILE *file = fopen(test_data("wire/pins.txt"), "rb");

    assert_non_null(file);
    pinned[0] = '\n';
    const size_t size = fread(pinned + 1, 1, sizeof(pinned) - 2, file);
    assert_int_equal(fclose(file), 0);
    assert_true(size > 1000 && size < sizeof(pinned) - 2);

    list_all();
    memmove(listing + 1, listing, sizeof(listing) - 1);
    listing[0] = '\n';
    check_lines(pinned, listing, "was promised in pins.txt and is not in msg.def");
    check_lines(listing, pinned, "is in msg.def: if it is new, add this line to pins.txt");
}

static void check_struct(const struct wire_struct *type)
{
    uint32_t last = 0;

    assert_true(type->count > 0);
    for (uint32_t i = 0; i < type->count; i++) {
        const struct wire_field *f = &type->fields[i];
        if (f->number <= last || f->number > 8191)
            fail_msg("%s.%s: numbers rise, up to 8191", type->name, f->name);
        if (f->value == WIRE_VALUE_LIST && f->max == 0)
            fail_msg("%s.%s: a list has a limit", type->name, f->name);
        if (f->value == WIRE_VALUE_BOOL && f->required)
            fail_msg("%s.%s: a BOOL is optional, so that false costs nothing", type->name, f->name);
        last = f->number;
    }
}

static void test_fields_rise_and_lists_have_limits(void **state)
{
    (void)state;
    uint32_t last = 0;
#define TYPE(name, words) check_struct(&wire_struct_##name);
#define MESSAGE(number, NAME, name, words) \
    assert_true((number) > last && (number) <= UINT16_MAX); \
    last = (number); \
    TYPE(name, words)
#include "wire/msg.def"
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_promised_is_there_and_what_is_there_is_promised),
        cmocka_unit_test(test_fields_rise_and_lists_have_limits),
    };
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        list_all();
        fputs(listing, stdout);
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
