/*
 * http_parse.h - HTTP/1.1 as bytes: where a request's head ends, what it says, and a body in chunks.
 *
 * Strict where leniency lets two servers read two requests from the same bytes: lines end with CR LF, no
 * control characters, no blank before a colon, no folded lines, one Content-Length or one
 * "Transfer-Encoding: chunked" and never both.
 *
 * Threads: one. Pure: no clock, no allocation, no I/O.
 * Memory:  a head is cut in place and borrowed by what is read from it.
 * Errors:  what strangers send is an event: a struct http_wrong with the status to answer.
 */
#ifndef GATEWAY_HTTP_PARSE_H
#define GATEWAY_HTTP_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HTTP_FIELDS_MAX = 100, HTTP_METHOD_MAX = 20 };

/** Why bytes are refused. Texts are static. status 0: nothing is wrong. */
struct http_wrong {
    unsigned status;  /* of the answer */
    const char *code; /* "bad_request" */
    const char *text; /* a sentence */
};

/** How far a head has been looked at; `{ 0 }` before its first byte. */
struct http_scan {
    size_t at, line; /* looked at; where the line under way begins */
    uint32_t lines;  /* that are whole, the first one included */
    uint32_t blank;  /* empty ones before it */
};

enum http_scanned { HTTP_SCAN_MORE, HTTP_SCAN_WHOLE, HTTP_SCAN_WRONG };

/**
 * Look at what is new of a head in [0, size) of `bytes`, of which earlier calls saw a beginning. Nonsense is
 * told as soon as its first line shows it. WHOLE: the head is [0, scan->at).
 *
 * max  bytes that a head may have.
 */
enum http_scanned http_scan(struct http_scan *scan, const char *bytes, size_t size, size_t max,
                            struct http_wrong *wrong_p);

/** What a head says. */
struct http_head {
    const char *method, *path; /* decoded; without what is behind '?' */
    const char *fields;        /* name, NUL, value, NUL, ...; [fields_size] */
    size_t fields_size;
    uint64_t length; /* of the body, unless it comes in chunks */
    bool chunked;
    bool keep;    /* the client wants the connection to stay */
    bool expects; /* it waits for "100 Continue" */
    bool is_1_1;  /* else HTTP/1.0 */
};

/** Read a whole head, [size] bytes that http_scan() accepted, in place. False: *wrong_p says why not. */
bool http_head_read(char *bytes, size_t size, struct http_head *head_p, struct http_wrong *wrong_p);

/** The first field of this name, in any case of letters; NULL: none. count_p (may be NULL): how many. */
const char *http_head_field(const struct http_head *head, const char *name, uint32_t *count_p);

/** Where a body in chunks stands; `{ 0 }` before its first byte. */
struct http_chunks {
    uint32_t state;
    uint32_t extra; /* bytes of this size line, or of the trailer */
    uint64_t left;  /* of this chunk */
};

/**
 * Take some of [0, size), size > 0; returns how many bytes, > 0 unless it is done or wrong. What of them is
 * data: *data_p, [*data_size_p].
 */
size_t http_chunks_take(struct http_chunks *chunks, const char *bytes, size_t size,
                        const char **data_p, size_t *data_size_p);
bool http_chunks_done(const struct http_chunks *chunks);
bool http_chunks_wrong(const struct http_chunks *chunks);

#endif /* GATEWAY_HTTP_PARSE_H */
