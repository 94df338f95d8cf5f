/* live_page.c - GET /: one static page, which asks for nothing but this gateway's /live and API. */
#include <string.h>

#include "gateway/live.h"
#include "gateway/live_bytes.h"
#include "gateway/state.h"

void gateway_live_page(gateway *g, http_request *http)
{
    const char *known = http_header(http, "If-None-Match");
    const bool same = known && strcmp(known, live_page_tag) == 0;
    struct buf body = BUF_INIT(g->alloc);

    if (!same)
        buf_add(&body, live_page, live_page_size);
    if (body.failed) {
        buf_fini(&body);
        http_abort(http);
        return;
    }
    http_header_add(http, "ETag", live_page_tag);
    http_header_add(http, "Cache-Control", "no-cache"); /* ask each time: 304 costs little */
    http_header_add(http, "Content-Security-Policy", live_page_policy);
    http_header_add(http, "X-Content-Type-Options", "nosniff");
    http_header_add(http, "Referrer-Policy", "no-referrer");
    gateway_route_count(g, same ? 304 : 200);
    http_answer(http, same ? 304 : 200, "text/html; charset=utf-8", &body);
}
