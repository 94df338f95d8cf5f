/* fuzz_setting.c - a config file of any bytes; what is accepted must print and read back the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/setting.h"
#include "os/sysalloc.h"

#define FUZZ_SETTINGS(X) \
    X(count, "max-tokens", 0, U32, "16", 1, 1000, NULL, "N", "All", "U32.") \
    X(seed, "seed", 0, U64, "0", 0, 0, NULL, "N", "All", "U64.") \
    X(memory, "memory", 0, SIZE, "1M", 0, 0, NULL, "SIZE", "All", "Size.") \
    X(wait_ns, "wait", 0, DURATION, "2s", 0, 0, NULL, "TIME", "All", "Duration.") \
    X(heat, "temperature", 0, FLOAT, "0", 0, 2, NULL, "X", "All", "Float.") \
    X(kind, "kernel", 0, CHOICE, "auto", 0, 0, "auto|ref|avx2", "KIND", "All", "Choice.") \
    X(loud, "loud", 0, BOOL, "false", 0, 0, NULL, NULL, "All", "Bool.") \
    X(name, "name", 0, TEXT, NULL, 0, 0, NULL, "TEXT", "All", "Text.") \
    X(stops, "stop", 0, LIST, NULL, 0, 0, NULL, "TEXT", "All", "List.")

struct fuzz {
    FUZZ_SETTINGS(SETTING_FIELD)
};
#define FUZZ_ROW(...) SETTING_ROW(fuzz, __VA_ARGS__)
static const struct setting rows[] = { FUZZ_SETTINGS(FUZZ_ROW) };
enum { ROWS = sizeof(rows) / sizeof(rows[0]) };

/* Read `text`, print what came of it to `out`; false if it was refused. */
static bool read_and_print(char *text, size_t size, struct buf *out)
{
    struct fuzz fuzz = { 0 };
    struct settings settings;
    struct mc_error error = { 0 };

    if (settings_init(&settings, rows, ROWS, &fuzz, os_alloc(), &error) != MC_OK)
        abort();
    const bool accepted = settings_config(&settings, text, size, "fuzz", &error) == MC_OK;
    if (accepted)
        settings_print(&settings, out);
    else if (error.text[0] == '\0')
        abort();
    settings_fini(&settings);
    return accepted;
}

/* The sources differ between the two readings; the settings must not. */
static void drop_comments(struct buf *text)
{
    size_t size = 0;

    for (size_t i = 0; i < text->size;) {
        const char *end = memchr(text->data + i, '\n', text->size - i);
        const size_t length = (size_t)(end - (text->data + i)) + 1;
        if (text->data[i] != '#') {
            memmove(text->data + size, text->data + i, length);
            size += length;
        }
        i += length;
    }
    buf_truncate(text, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf once = BUF_INIT(os_alloc()), twice = BUF_INIT(os_alloc());
    char *text = alloc_text(os_alloc(), (const char *)data, size);

    if (!text)
        abort();
    if (read_and_print(text, size, &once)) {
        char *copy = alloc_text(os_alloc(), once.data, once.size);
        if (!copy || !read_and_print(copy, once.size, &twice))
            abort();
        drop_comments(&once);
        drop_comments(&twice);
        if (once.size != twice.size || memcmp(once.data, twice.data, once.size) != 0)
            abort();
        free(copy);
    }
    free(text);
    buf_fini(&once);
    buf_fini(&twice);
    return 0;
}
