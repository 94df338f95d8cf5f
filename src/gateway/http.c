/* http.c - the listener: who is let in, who makes room, its start and end. */
#define _POSIX_C_SOURCE 200809L
#include "gateway/http_state.h"

#include <assert.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"
#include "os/clock.h"

enum {
    BODY_MAX = 8 << 20,
    BODIES_MAX = 1 << 30,
    STREAM_MAX = 1 << 20,
    HEADERS_MAX = 32 << 10,
    CONNECTIONS_MAX = 8192,
    ACCEPTS_AT_ONCE = 64,
};

static const uint64_t S = 1000000000, RECEIVE_S = 30, IDLE_S = 120, RESUME_NS = 100000000;

/* ---------------------------------------------------------------------------------------- lists */

void http_link_init(struct http_link *list)
{
    list->next = list->previous = list;
}

bool http_link_empty(const struct http_link *list)
{
    return list->next == list;
}

void http_link_drop(struct http_link *link)
{
    if (!link->next)
        return;
    link->next->previous = link->previous;
    link->previous->next = link->next;
    *link = (struct http_link){ 0 };
}

void http_link_add(struct http_link *list, struct http_link *link)
{
    http_link_drop(link);
    link->next = list;
    link->previous = list->previous;
    list->previous->next = link;
    list->previous = link;
}

/* ----------------------------------------------------------------------------------- who comes in */

static struct http_link *bucket_of(http_server *h, const struct os_address *address)
{
    struct os_address host = *address;
    uint64_t sum = 0;

    os_address_port_set(&host, 0);
    for (size_t i = 0; i < sizeof(host.bytes) / sizeof(host.bytes[0]); i++)
        sum = (sum ^ host.bytes[i]) * UINT64_C(0x9e3779b97f4a7c15);
    return &h->buckets[(sum >> 32) % HTTP_ADDRESS_BUCKETS];
}

static bool same_host(const struct os_address *a, const struct os_address *b)
{
    struct os_address one = *a, other = *b;

    os_address_port_set(&one, 0);
    os_address_port_set(&other, 0);
    return os_address_equal(&one, &other);
}

/* Whether this address may have one more. What stands before a gateway on its own machine, a proxy, speaks for
 * many clients. */
static bool may_come(http_server *h, const struct os_address *peer)
{
    const struct http_link *bucket = bucket_of(h, peer);
    uint32_t count = 0;

    if (os_address_is_loopback(peer))
        return true;
    for (const struct http_link *l = bucket->next; l != bucket; l = l->next)
        count += same_host(&HTTP_REQUEST_OF(l, bucket)->peer, peer);
    return count < h->address_max;
}

static void let_in(http_server *h, int fd, const struct os_address *peer)
{
    h->counts.accepted++;
    if (h->address_max && !may_come(h, peer)) {
        h->counts.turned_away++;
        close(fd);
        return;
    }
    if (h->counts.connections >= h->connections_max) { /* an idle one is there: see has_room() */
        h->counts.evicted++;
        http_connection_close(HTTP_REQUEST_OF(h->idle.next, idle));
    }
    if (http_connection_open(h, fd, peer) == MC_OK && h->address_max)
        http_link_add(bucket_of(h, peer), &HTTP_REQUEST_OF(h->all.previous, all)->bucket);
}

static bool has_room(const http_server *h)
{
    return h->counts.connections < h->connections_max || !http_link_empty(&h->idle);
}

static void look_away(http_server *h)
{
    os_loop_unwatch(h->loop, &h->listener);
}

void http_listen_again(http_server *h)
{
    /* Out of memory for it: the next connection that ends tries again. */
    if (h->listener.fd >= 0 && !h->closing && !h->resume.place && has_room(h))
        (void)os_loop_watch(h->loop, &h->listener, OS_READABLE);
}

static void resume_due(void *user, uint64_t now_ns)
{
    (void)now_ns;
    http_listen_again(user);
}

static void someone_came(void *user, uint32_t events)
{
    http_server *h = user;
    struct os_address peer;
    int fd;

    (void)events;
    for (int i = 0; i < ACCEPTS_AT_ONCE && has_room(h); i++) {
        const mc_status status = os_tcp_accept(h->listener.fd, &fd, &peer);
        if (status == MC_PENDING)
            return;
        if (status != MC_OK) { /* no descriptors: they come back as others leave */
            if (os_loop_timer(h->loop, &h->resume, os_loop_now(h->loop) + RESUME_NS) == MC_OK)
                look_away(h);
            return;
        }
        let_in(h, fd, &peer);
    }
    if (!has_room(h))
        look_away(h);
}

mc_status http_adopt(http_server *h, int fd)
{
    h->counts.accepted++;
    return http_connection_open(h, fd, &(struct os_address){ 0 });
}

/* -------------------------------------------------------------------------------------- requests */

static void flush_due(void *user, uint64_t now_ns)
{
    http_server *h = user;
    struct http_link now;

    (void)now_ns;
    http_link_init(&now); /* what is marked meanwhile has its turn later */
    while (!http_link_empty(&h->dirty))
        http_link_add(&now, h->dirty.next);
    while (!http_link_empty(&now)) {
        http_request *c = HTTP_REQUEST_OF(now.next, dirty);
        http_link_drop(&c->dirty);
        http_connection_run(c);
    }
    if (!h->flush.place) /* never off the loop's heap, so that setting it needs no memory */
        (void)os_loop_timer(h->loop, &h->flush, UINT64_MAX);
}

/* Not strftime's %a and %b: a locale has no say in HTTP. */
const char *http_date(http_server *h)
{
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    const uint64_t date_s = os_date_s();
    const time_t seconds = (time_t)date_s;
    struct tm t;

    if (date_s == h->date_s || !gmtime_r(&seconds, &t))
        return h->date;
    h->date_s = date_s;
    (void)snprintf(h->date, sizeof(h->date), "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT",
                   days + t.tm_wday * 3, t.tm_mday % 100, months + t.tm_mon * 3,
                   (t.tm_year + 1900) % 10000, t.tm_hour % 100, t.tm_min % 100, t.tm_sec % 100);
    return h->date;
}

/* ----------------------------------------------------------------------------------- open, close */

static mc_status listen_at(http_server *h, const struct http_options *o, struct mc_error *error)
{
    struct os_address address;

    if (!o->listen)
        return MC_OK;
    mc_status status = os_address_parse(o->listen, &address, error);
    if (status == MC_OK && !o->insecure && !os_address_is_loopback(&address))
        status = error_set(error, MC_E_DENIED,
                           "%s: anyone who reaches this address could use the models: give "
                           "--api-key-file, listen on a loopback address, or say --insecure",
                           o->listen);
    if (status == MC_OK)
        status = os_tcp_listen(&address, &h->listener.fd, &address, error);
    if (status != MC_OK)
        return status;
    os_address_format(&address, h->address);
    status = os_loop_watch(h->loop, &h->listener, OS_READABLE);
    return status == MC_OK ? MC_OK : error_set(error, status, "%s: cannot watch it", h->address);
}

static void init(http_server *h, const struct http_options *o)
{
    *h = (http_server){
        .alloc = o->alloc,
        .loop = o->loop,
        .handler = o->handler,
        .body_max = o->body_max ? o->body_max : BODY_MAX,
        .bodies_max = o->bodies_max ? o->bodies_max : BODIES_MAX,
        .stream_max = o->stream_max ? o->stream_max : STREAM_MAX,
        .receive_ns = o->receive_ns ? o->receive_ns : RECEIVE_S * S,
        .idle_ns = o->idle_ns ? o->idle_ns : IDLE_S * S,
        .headers_max = o->headers_max ? o->headers_max : HEADERS_MAX,
        .connections_max = o->connections_max ? o->connections_max : CONNECTIONS_MAX,
        .address_max = o->address_max,
        .listener = { .fd = -1, .ready = someone_came, .user = h },
        .resume = { .due = resume_due, .user = h },
        .flush = { .due = flush_due, .user = h },
    };
    if (h->bodies_max < h->body_max)
        h->bodies_max = h->body_max;
    http_link_init(&h->all);
    http_link_init(&h->idle);
    http_link_init(&h->dirty);
    for (size_t i = 0; i < HTTP_ADDRESS_BUCKETS; i++)
        http_link_init(&h->buckets[i]);
}

mc_status http_open(const struct http_options *o, http_server **server_p, struct mc_error *error)
{
    http_server *h = alloc_zeroed(o->alloc, 1, sizeof(*h));

    assert(o->handler.request && o->handler.refuse && o->handler.quiet);
    if (!h)
        return error_set(error, MC_E_NOMEM, "out of memory for the HTTP server");
    init(h, o);
    h->scratch = alloc_bytes(o->alloc, HTTP_SCRATCH);
    mc_status status = MC_E_NOMEM;
    if (h->scratch && os_loop_timer(h->loop, &h->flush, UINT64_MAX) == MC_OK)
        status = listen_at(h, o, error);
    else
        error_set(error, status, "out of memory for the HTTP server");
    if (status != MC_OK) {
        http_close(h);
        return status;
    }
    *server_p = h;
    return MC_OK;
}

const char *http_address(const http_server *h)
{
    return h->address;
}

static void close_listener(http_server *h)
{
    look_away(h);
    os_loop_timer_stop(h->loop, &h->resume);
    if (h->listener.fd >= 0)
        close(h->listener.fd);
    h->listener.fd = -1;
}

void http_quiesce(http_server *h)
{
    h->quiesced = true;
    close_listener(h);
    while (!http_link_empty(&h->idle))
        http_connection_close(HTTP_REQUEST_OF(h->idle.next, idle));
}

uint32_t http_active(const http_server *h)
{
    return h->active;
}

struct http_counts http_counts(const http_server *h)
{
    struct http_counts counts = h->counts;

    counts.idle = 0;
    for (const struct http_link *l = h->idle.next; l != &h->idle; l = l->next)
        counts.idle++;
    return counts;
}

void http_close(http_server *h)
{
    if (!h)
        return;
    h->closing = true;
    close_listener(h);
    while (!http_link_empty(&h->all))
        http_connection_close(HTTP_REQUEST_OF(h->all.next, all));
    assert(h->active == 0 && h->bodies == 0);
    os_loop_timer_stop(h->loop, &h->flush);
    alloc_free(h->alloc, h->scratch);
    alloc_free(h->alloc, h);
}
