/* buf.c - a byte buffer that doubles; a failure sticks until the end, where it is tested once. */
#include "base/buf.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/utf8.h"

static bool reserve(struct buf *buf, size_t more)
{
    size_t needed;

    if (buf->failed || !size_add(buf->size, more, &needed) || !size_add(needed, 1, &needed)) {
        buf->failed = true;
        return false;
    }
    if (needed <= buf->capacity)
        return true;

    size_t capacity = buf->capacity < 64 ? 64 : buf->capacity;
    while (capacity < needed)
        capacity = capacity > SIZE_MAX / 2 ? needed : capacity * 2;
    char *data = alloc_resize(buf->alloc, buf->data, capacity, 1);
    if (!data) {
        buf->failed = true;
        return false;
    }
    buf->data = data;
    buf->capacity = capacity;
    return true;
}

void buf_add(struct buf *buf, const void *bytes, size_t size)
{
    if (!reserve(buf, size))
        return;
    if (size)
        memcpy(buf->data + buf->size, bytes, size);
    buf->size += size;
    buf->data[buf->size] = '\0';
}

void buf_add_text(struct buf *buf, const char *text)
{
    buf_add(buf, text, strlen(text));
}

void buf_add_byte(struct buf *buf, unsigned char byte)
{
    buf_add(buf, &byte, 1);
}

void buf_addf(struct buf *buf, const char *format, ...)
{
    char small[256];
    va_list args, again;

    va_start(args, format);
    va_copy(again, args);
    const int wanted = vsnprintf(small, sizeof(small), format, args);
    va_end(args);
    if (wanted < 0)
        buf->failed = true;
    else if ((size_t)wanted < sizeof(small))
        buf_add(buf, small, (size_t)wanted);
    else if (reserve(buf, (size_t)wanted)) {
        vsnprintf(buf->data + buf->size, (size_t)wanted + 1, format, again);
        buf->size += (size_t)wanted;
    }
    va_end(again);
}

void buf_add_json(struct buf *buf, const char *text, size_t size)
{
    buf_add_byte(buf, '"');
    for (size_t i = 0; i < size;) {
        uint32_t code;
        const size_t length = utf8_decode(text + i, size - i, &code);

        if (length == 0) {
            buf_add_text(buf, "\xef\xbf\xbd");
            i++;
            continue;
        }
        if (code == '"' || code == '\\') {
            buf_add_byte(buf, '\\');
            buf_add_byte(buf, (unsigned char)code);
        } else if (code == '\n')
            buf_add_text(buf, "\\n");
        else if (code == '\t')
            buf_add_text(buf, "\\t");
        else if (code < 0x20 || code == 0x7f)
            buf_addf(buf, "\\u%04x", code);
        else
            buf_add(buf, text + i, length);
        i += length;
    }
    buf_add_byte(buf, '"');
}

void buf_truncate(struct buf *buf, size_t size)
{
    assert(size <= buf->size);
    buf->size = size;
    if (buf->data)
        buf->data[size] = '\0';
}

char *buf_take(struct buf *buf, size_t *size_p)
{
    if (!buf->data && !buf->failed)
        buf_add(buf, "", 0);
    if (buf->failed) {
        buf_fini(buf);
        return NULL;
    }

    char *data = buf->data;
    if (size_p)
        *size_p = buf->size;
    *buf = BUF_INIT(buf->alloc);
    return data;
}

void buf_fini(struct buf *buf)
{
    if (buf->alloc)
        alloc_free(buf->alloc, buf->data);
    *buf = BUF_INIT(buf->alloc);
}
