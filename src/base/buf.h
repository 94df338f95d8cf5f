/*
 * buf.h - a byte buffer that grows: text being built, a message being encoded.
 *
 * Life:    BUF_INIT(alloc) or buf_init -> buf_add* -> buf_take or buf_fini
 * Threads: one. Memory: owned, from the allocator given, which must outlive the buffer.
 * Errors:  an add that fails sets `failed`, drops the bytes, and every later add is a no-op, so a
 *          caller may write a whole document and test `failed` once at the end.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdbool.h>

#include <mooncake/status.h>

struct buf {
    const struct mc_alloc *alloc; /* borrowed */
    char *data; /* owned; [size], then a NUL that size does not count; NULL while empty */
    size_t size, capacity;
    bool failed; /* an allocation failed: the contents are incomplete */
};

#define BUF_INIT(allocator) ((struct buf){ .alloc = (allocator) })

void buf_add(struct buf *buf, const void *bytes, size_t size);
void buf_add_text(struct buf *buf, const char *text);
void buf_add_byte(struct buf *buf, unsigned char byte);
void buf_addf(struct buf *buf, const char *format, ...) MC_PRINTF(2, 3);

/** `text` as a JSON string with its quotes; bytes that are not UTF-8 become U+FFFD. */
void buf_add_json(struct buf *buf, const char *text, size_t size);

/** Drop all but the first `size` bytes. size <= buf->size. */
void buf_truncate(struct buf *buf, size_t size);

/** Hand the bytes (NUL behind them) to the caller, who frees them with the same allocator. NULL when
 * an allocation failed. The buffer is empty afterwards. */
char *buf_take(struct buf *buf, size_t *size_p);

void buf_fini(struct buf *buf);

#endif /* BASE_BUF_H */
