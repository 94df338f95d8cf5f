/* http_state.h - the server and its connections inside; for http.c, http_connection.c and http_request.c alone. */
#ifndef GATEWAY_HTTP_STATE_H
#define GATEWAY_HTTP_STATE_H

#include "gateway/http.h"
#include "gateway/http_parse.h"
#include "os/address.h"

enum { HTTP_SCRATCH = 64 << 10, HTTP_ADDRESS_BUCKETS = 1024, HTTP_ID_MAX = 64 };

/* A place in one of the server's lists; alone when next is itself or NULL. */
struct http_link {
    struct http_link *next, *previous;
};

struct http_server {
    const struct mc_alloc *alloc;
    os_loop *loop;
    struct http_handler handler;
    uint64_t body_max, bodies_max, stream_max, receive_ns, idle_ns;
    uint32_t headers_max, connections_max, address_max;
    struct os_watch listener;      /* fd -1: none */
    struct os_timer resume, flush; /* listen again after descriptors ran out; see to `dirty` */
    struct http_link all, idle; /* connections; those without a request, the longest idle first */
    struct http_link dirty;     /* those whose user did something since they were seen to */
    struct http_link buckets[HTTP_ADDRESS_BUCKETS]; /* by address, when address_max is set */
    uint64_t bodies; /* bytes of all bodies that are held, <= bodies_max */
    uint32_t active; /* requests under way */
    bool quiesced, closing;
    struct http_counts counts;
    uint64_t date_s; /* of the text */
    char date[40];
    char address[OS_ADDRESS_TEXT];
    char *scratch; /* owned; [HTTP_SCRATCH]: what recv() fills */
};

enum http_phase {
    HTTP_HEAD,    /* idle, or receiving a head */
    HTTP_BODY,    /* receiving the body */
    HTTP_WAITING, /* the user's, no answer yet */
    HTTP_WHOLE,   /* answered whole */
    HTTP_STREAM,  /* a stream is under way */
    HTTP_ENDED,   /* all of the stream was added */
    HTTP_ABORTED, /* to be closed */
    HTTP_LINGER,  /* the answer is out; what the client still sends is thrown away for a moment */
};

/* A connection, and the request that is under way on it. */
struct http_request {
    http_server *http; /* borrowed */
    struct http_link all, idle, dirty, bucket;
    struct os_watch watch;
    struct os_timer timer; /* what is due next, by phase */
    struct os_address peer;
    enum http_phase phase;
    bool counted; /* in http->active */
    bool keep;    /* the connection stays after this answer */
    bool unread;  /* some of the request was left unread */
    bool served;  /* a request before */
    bool waits;   /* for its turn, in `dirty`: the next request is there already */

    struct buf in; /* received and not read: a part of a head, or later requests */
    struct http_scan scan;
    struct http_head head; /* borrows `text` */
    struct buf text;       /* the head, cut */
    struct http_chunks chunks;
    uint64_t left; /* of a body with a length */
    struct buf body;
    uint64_t body_bytes; /* of it that are in http->bodies */
    uint64_t lingered;   /* bytes thrown away */
    char id[HTTP_ID_MAX + 1];

    void (*gone)(void *user);
    void *user;
    unsigned status;
    const char *content_type; /* static */
    struct buf headers;       /* the user's, as they are sent */
    struct buf head_out;      /* status line and headers, to be sent before `out` */
    struct buf out;           /* the answer, or what of the stream waits */
    size_t head_sent, sent;
    bool chunked;  /* the answer is */
    bool bodiless; /* HEAD, 204, 304 */
};

void http_link_init(struct http_link *list);
void http_link_add(struct http_link *list, struct http_link *link); /* last; off any other place */
void http_link_drop(struct http_link *link);
bool http_link_empty(const struct http_link *list);
#define HTTP_REQUEST_OF(link, member) \
    ((http_request *)(void *)((char *)(link)-offsetof(struct http_request, member)))

/* http.c */

/** The date for headers, as of this second. */
const char *http_date(http_server *h);

/** A place is free: accept again. */
void http_listen_again(http_server *h);

/* http_connection.c */

/** A new connection; fd is closed on failure. */
mc_status http_connection_open(http_server *h, int fd, const struct os_address *peer);

/** Tells a held request's user, frees everything. */
void http_connection_close(http_request *c);

/** Go on as far as bytes and answers allow. May close. */
void http_connection_run(http_request *c);

/* http_request.c */

/** See to it soon, outside of the caller. */
void http_mark(http_request *c);

/** Send what there is. MC_OK: all of it; MC_PENDING: the socket is full; MC_E_PEER. */
mc_status http_send(http_request *c);

/** Its answer is over: forget all of it. */
void http_request_reset(http_request *c);

#endif /* GATEWAY_HTTP_STATE_H */
