/*
 * record.h - a scheduler's life as bytes: what it was opened with, each event it was given, what it decided.
 *
 *     file   = | magic: 8 bytes "mcsched1" | record | record | ...
 *     record = | size: u32 | kind: u16 | 0: u16 | crc32c: u32 | size bytes |      the sum is of all but itself
 *
 *     OPTIONS   once, first: lines "name=value", of struct mc_sched_options
 *     EVENT     | status: u32 | mc_sched_event_encode() |     the step's status beside what it was given
 *     DECISION  numbered fields as in event.c; those that an event made follow it, in their order
 *     END       | why: u32 | 0: u32 | events: u64 | decisions: u64 |    nothing follows
 *
 * All numbers are little-endian. A file without an END, or cut in the middle of a record, is what a process
 * that was killed leaves: all records before count. The same options and events give the same decisions, so
 * whoever plays a file again compares bytes (sim/rerun.h).
 *
 * Threads: values only. Memory: what is read is borrowed from the bytes. Pure.
 * Errors:  texts say at which byte of the file.
 */
#ifndef SCHED_RECORD_H
#define SCHED_RECORD_H

#include <mooncake/sched.h>

#include "base/buf.h"

#define RECORD_MAGIC "mcsched1"
enum {
    RECORD_MAGIC_BYTES = 8,
    RECORD_HEAD_BYTES = 12,
    RECORD_BODY_MAX = 4 << 20, /* more is not a record; a quarter of a million keys fit */
    RECORD_EVENT_FIXED =
        4 + 10 + 40 * 10 + 6,            /* an event's, all but the bytes of its keys, at most */
    RECORD_DECISION_FIXED = 40 * 10 + 6, /* likewise */
    RECORD_OPTIONS_MAX = 4096,           /* of their text */
    RECORD_END_BYTES = 24,
};

enum record_kind { RECORD_OPTIONS = 1, RECORD_EVENT, RECORD_DECISION, RECORD_END };

/** Why a recording ends. */
enum record_end { RECORD_CLOSED, RECORD_TOO_SLOW, RECORD_TOO_LARGE };

struct record {
    enum record_kind kind;
    const uint8_t *body; /* [size] */
    size_t size;
};

/** The head of a record whose body is `body`. size <= RECORD_BODY_MAX. */
void record_head(enum record_kind kind, const void *body, size_t size,
                 uint8_t head_p[RECORD_HEAD_BYTES]);

/**
 * The record that begins at *at_p of a file; *at_p goes behind it. The first call, with 0, goes over the magic.
 *
 * Returns MC_OK; MC_E_NOT_FOUND: the file ends here; MC_PENDING: it ends in the middle of a record;
 * MC_E_FORMAT: not a recording, or one of a later release; MC_E_CORRUPT: a sum does not fit.
 */
MC_MUST_USE mc_status record_next(const void *bytes, size_t size, size_t *at_p,
                                  struct record *record_p, struct mc_error *error);

/* ---------------------------------------------------------------------------------------- bodies */

/** MC_OK; MC_E_ARG: a text of the options has a line break; MC_E_RANGE: over RECORD_OPTIONS_MAX; MC_E_NOMEM. */
MC_MUST_USE mc_status record_options_write(const struct mc_sched_options *options, struct buf *out);

struct record_options {
    struct mc_sched_options options; /* alloc, policies and predictor are the reader's to set */
    char texts[RECORD_OPTIONS_MAX];  /* that it points to: do not move it */
};

/** MC_OK, or MC_E_FORMAT: a line that is not one, or an option that this release does not know. */
MC_MUST_USE mc_status record_options_read(const struct record *record,
                                          struct record_options *options_p, struct mc_error *error);

/** The body of an event; capacity RECORD_EVENT_FIXED and 16 bytes a key suffices. As mc_sched_event_encode(). */
MC_MUST_USE mc_status record_event_write(uint64_t now_ns, const struct mc_sched_event *event,
                                         mc_status status, void *bytes_p, size_t capacity,
                                         size_t *size_p);
/** As mc_sched_event_decode(). */
MC_MUST_USE mc_status record_event_read(const struct record *record, struct mc_key *keys,
                                        size_t key_capacity, uint64_t *now_ns_p,
                                        struct mc_sched_event *event_p, mc_status *status_p,
                                        struct mc_error *error);

/** The body of a decision: RECORD_DECISION_FIXED and 16 bytes a key suffice. MC_OK or MC_E_RANGE. */
MC_MUST_USE mc_status record_decision_write(const struct mc_decision *decision, void *bytes_p,
                                            size_t capacity, size_t *size_p);
/** Its keys are counted but not read. MC_OK or MC_E_FORMAT. */
MC_MUST_USE mc_status record_decision_read(const struct record *record,
                                           struct mc_decision *decision_p, struct mc_error *error);

struct record_last {
    enum record_end why;
    uint64_t events, decisions;
};
void record_end_write(const struct record_last *last, uint8_t bytes_p[RECORD_END_BYTES]);
/** MC_OK or MC_E_FORMAT. */
MC_MUST_USE mc_status record_end_read(const struct record *record, struct record_last *last_p,
                                      struct mc_error *error);

#endif /* SCHED_RECORD_H */
