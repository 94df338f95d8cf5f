/*
 * trace.h - requests of a trace file, one after another, from bytes that come in pieces.
 *
 * One request a line, as Mooncake publishes them (JSON Lines):
 *
 *     {"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, ..., 2354]}
 *
 * timestamp: milliseconds, whole or with a fraction. hash_ids: one for each `block_tokens` (512) tokens of the
 * prompt, the last block perhaps partial; equal ids are equal tokens behind equal prefixes. Other fields are
 * passed over; blank lines and CRLF are taken, and so is a last line without a newline.
 *
 * Life:    trace_open -> (trace_feed, trace_next until MC_PENDING)* -> trace_finish, trace_next until
 *          MC_E_NOT_FOUND -> trace_close
 * Threads: one. Pure.
 * Memory:  the part of a line that spans two pieces, at most `line_max` bytes, and the ids of one request:
 *          a file of any length is read in as much.
 * Errors:  texts begin "NAME:LINE: ". After one the reader says the same for good.
 */
#ifndef SIM_TRACE_H
#define SIM_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <mooncake/status.h>

enum {
    TRACE_BLOCK_TOKENS = 512,
    TRACE_TOKENS_MAX = 1 << 24, /* of one prompt, and of one answer */
    TRACE_LINE_MAX = 1 << 20,   /* bytes, unless the options say otherwise */
};

/** Hash ids are below 2^63, timestamps below 2^53 / 1000 s. */
#define TRACE_HASH_MAX ((UINT64_C(1) << 63) - 1)
#define TRACE_MS_MAX UINT64_C(9007199254740)

/** One request. Also what other makers of requests give to scale.h and replay.h. */
struct trace_request {
    uint64_t arrival_ns;      /* the trace's own time; may begin anywhere */
    uint32_t input_tokens;    /* 1 .. TRACE_TOKENS_MAX */
    uint32_t output_tokens;   /* 0 .. TRACE_TOKENS_MAX */
    const uint64_t *hash_ids; /* [hash_count], of the reader: valid until the next call of it */
    uint32_t hash_count;      /* input_tokens / block_tokens, rounded up */
    uint64_t line;            /* from 1 */
};

/** `{ 0 }` and then: alloc, name. */
struct trace_options {
    const struct mc_alloc *alloc; /* borrowed */
    const char *name;             /* borrowed; the file's, for errors */
    uint32_t block_tokens;        /* 0: TRACE_BLOCK_TOKENS */
    size_t line_max;              /* 0: TRACE_LINE_MAX */
    bool unsorted;                /* times may go back; else that is an error */
};

typedef struct trace_reader trace_reader; /* opaque */

/** Returns MC_OK or MC_E_NOMEM. */
mc_status trace_open(const struct trace_options *options, trace_reader **reader_p,
                     struct mc_error *error);

/** More of the file, borrowed until trace_next() has said MC_PENDING, which is due first. */
void trace_feed(trace_reader *reader, const void *bytes, size_t size);

/** The file is over. Likewise not before MC_PENDING. */
void trace_finish(trace_reader *reader);

/**
 * The next request.
 *
 * Returns MC_OK, MC_PENDING (feed more, or finish), MC_E_NOT_FOUND (the file is over, no error), MC_E_FORMAT
 * (what is there, also a file without any request), MC_E_RANGE (a number or a line beyond the bounds) or
 * MC_E_NOMEM.
 */
mc_status trace_next(trace_reader *reader, struct trace_request *request_p, struct mc_error *error);

/** NULL is allowed. */
void trace_close(trace_reader *reader);

#endif /* SIM_TRACE_H */
