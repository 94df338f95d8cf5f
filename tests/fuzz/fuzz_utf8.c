/* fuzz_utf8.c - any bytes: decoded, kept back, written as JSON and quoted in an error. */
#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/utf8.h"
#include "os/sysalloc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_is_clean(const char *text, size_t size)
{
    for (size_t i = 0; i < size;) {
        uint32_t code = 0;
        const size_t length = utf8_decode(text + i, size - i, &code);
        assert(length > 0 && code >= ' ' && code != 0x7f);
        i += length;
    }
}

static void check_decoding(const char *text, size_t size)
{
    for (size_t i = 0; i < size;) {
        uint32_t code;
        char again[4];
        const size_t length = utf8_decode(text + i, size - i, &code);
        if (length > 0)
            assert(utf8_encode(code, again) == length && memcmp(again, text + i, length) == 0);
        i += length ? length : 1;
    }
}

/* What a stream has shown stays shown, and what it keeps back is no character yet. */
static void check_stream(const char *text, size_t size)
{
    size_t shown = 0;

    for (size_t n = size < 64 ? 0 : size - 64; n <= size; n++) {
        const size_t now = utf8_complete(text, n);
        uint32_t code;
        assert(now >= shown && now <= n && n - now <= 3);
        assert(now == n || utf8_decode(text + now, n - now, &code) == 0);
        shown = now;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    struct buf buf = BUF_INIT(os_alloc());
    struct mc_error error = { 0 };

    check_decoding(text, size);
    check_stream(text, size);

    buf_add_json(&buf, text, size);
    assert(!buf.failed && buf.size >= 2 && buf.data[0] == '"' && buf.data[buf.size - 1] == '"');
    check_is_clean(buf.data, buf.size);

    error_set(&error, MC_E_FORMAT, "%.*s", (int)(size < 10000 ? size : 10000), text);
    check_is_clean(error.text, strlen(error.text));
    error_prefix(&error, MC_E_FORMAT, "%s", buf.data);
    check_is_clean(error.text, strlen(error.text));

    buf_fini(&buf);
    return 0;
}
