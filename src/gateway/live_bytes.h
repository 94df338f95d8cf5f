/* live_bytes.h - the page as bytes; live_bytes.c is made of page/index.html by page/embed.cmake. */
#ifndef GATEWAY_LIVE_BYTES_H
#define GATEWAY_LIVE_BYTES_H

#include <stddef.h>

extern const unsigned char live_page[]; /* [live_page_size] */
extern const size_t live_page_size;
extern const char live_page_tag[]; /* its ETag, quotes included */
extern const char
    live_page_policy[]; /* its Content-Security-Policy: its own script and style by hash */

#endif /* GATEWAY_LIVE_BYTES_H */
