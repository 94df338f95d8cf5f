/* recorder.c - a ring of bytes, one thread that writes what is in it. */
#include "gateway/recorder.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "gateway/gateway_log.h"
#include "os/lock.h"
#include "os/outfile.h"
#include "os/thread.h"
#include "sched/record.h"

enum { RING_DEFAULT = 16 << 20, RING_LEAST = 4096, NAMES = 100, SUFFIX = 4 };
enum { END_ROOM = RECORD_HEAD_BYTES + RECORD_END_BYTES };

struct recorder {
    const struct mc_alloc *alloc; /* borrowed */
    struct mc_log log;
    char *path; /* owned; what it is called in the end */
    int fd;
    uint8_t *ring;    /* owned; [capacity] */
    uint8_t *scratch; /* owned; one record, as it is made */
    size_t capacity;
    struct os_thread thread;
    bool threaded;

    /* The owner's thread. */
    struct recorder_counts counts;
    enum record_end why;

    struct os_lock
        lock; /* guards what follows; the bytes between are the writer's until `used` says not */
    struct os_condition filled;
    size_t first, used; /* of the ring */
    bool closing, failed;
    struct mc_error error; /* of the writer, once failed */
};

enum { SCRATCH_BYTES = RECORD_HEAD_BYTES + RECORD_EVENT_FIXED + RECORD_BODY_MAX };

/* ----------------------------------------------------------------------------------------- writing */

/* What lies in one piece at the ring's front; 0: nothing, and nothing will. */
static size_t wait_for_piece(struct recorder *r, const uint8_t **piece_p)
{
    os_lock(&r->lock);
    while (r->used == 0 && !r->closing)
        os_condition_wait(&r->filled, &r->lock);
    const size_t to_end = r->capacity - r->first;
    const size_t size = r->used < to_end ? r->used : to_end;
    *piece_p = r->ring + r->first;
    os_unlock(&r->lock);
    return size;
}

static void take_piece(struct recorder *r, size_t size)
{
    os_lock(&r->lock);
    r->first = (r->first + size) % r->capacity;
    r->used -= size;
    os_unlock(&r->lock);
}

static void run(void *argument)
{
    struct recorder *r = argument;
    const uint8_t *piece;
    size_t size;

    os_thread_name("recorder");
    while ((size = wait_for_piece(r, &piece)) > 0) {
        struct mc_error error = { 0 };
        if (os_outfile_write(r->fd, piece, size, &error) != MC_OK) {
            os_lock(&r->lock);
            r->failed = true;
            r->error = error;
            os_unlock(&r->lock);
            return;
        }
        take_piece(r, size);
    }
}

/* --------------------------------------------------------------------------------------- recording */

static void copy_in(struct recorder *r, size_t at, const void *bytes, size_t size)
{
    const size_t to_end = r->capacity - at;

    if (size <= to_end) {
        memcpy(r->ring + at, bytes, size);
        return;
    }
    memcpy(r->ring + at, bytes, to_end);
    memcpy(r->ring, (const uint8_t *)bytes + to_end, size - to_end);
}

static void stop(struct recorder *r, const char *why)
{
    r->counts.runs = false;
    gateway_log(&r->log, MC_LOG_ERROR,
                "event=recording_stopped file=%s why=\"%s\" events=%" PRIu64 " decisions=%" PRIu64,
                r->path, why, r->counts.events, r->counts.decisions);
}

/* Into the ring if there is room, and still room for `spare` after it. */
static bool add(struct recorder *r, const uint8_t *bytes, size_t size, size_t spare)
{
    os_lock(&r->lock);
    const bool failed = r->failed, fits = r->capacity - r->used >= size + spare;
    const size_t at = (r->first + r->used) % r->capacity;
    os_unlock(&r->lock);
    if (failed || !fits)
        return false;
    copy_in(r, at, bytes, size); /* not the writer's yet */
    os_lock(&r->lock);
    const bool was_empty = r->used == 0;
    r->used += size;
    if (was_empty)
        os_condition_wake_all(&r->filled);
    os_unlock(&r->lock);
    r->counts.bytes += size;
    return true;
}

static void add_end(struct recorder *r)
{
    const struct record_last last = { r->why, r->counts.events, r->counts.decisions };
    uint8_t bytes[END_ROOM];

    record_end_write(&last, bytes + RECORD_HEAD_BYTES);
    record_head(RECORD_END, bytes + RECORD_HEAD_BYTES, RECORD_END_BYTES, bytes);
    (void)add(r, bytes, sizeof(bytes), 0); /* a disk that fails writes no end */
}

static void stop_with_end(struct recorder *r, enum record_end why, const char *text)
{
    r->why = why;
    add_end(r);
    stop(r, text);
}

/* The body of `size` bytes is in scratch, behind the place for the head. */
static bool add_record(struct recorder *r, enum record_kind kind, size_t size)
{
    record_head(kind, r->scratch + RECORD_HEAD_BYTES, size, r->scratch);
    if (add(r, r->scratch, RECORD_HEAD_BYTES + size, END_ROOM))
        return true;
    os_lock(&r->lock);
    const bool failed = r->failed;
    const struct mc_error error = r->error;
    os_unlock(&r->lock);
    if (failed)
        stop(r, error.text);
    else
        stop_with_end(r, RECORD_TOO_SLOW,
                      "the disk does not take it as fast as it comes, and the buffer is full");
    return false;
}

void recorder_take(struct recorder *r, uint64_t now_ns, const struct mc_sched_event *event,
                   mc_status status)
{
    size_t size = 0;

    if (!r || !r->counts.runs)
        return;
    const mc_status written =
        record_event_write(now_ns, event, status, r->scratch + RECORD_HEAD_BYTES,
                           SCRATCH_BYTES - RECORD_HEAD_BYTES, &size);
    if (written != MC_OK || size > RECORD_BODY_MAX)
        stop_with_end(r, RECORD_TOO_LARGE, "an event that is no record");
    else if (add_record(r, RECORD_EVENT, size))
        r->counts.events++;
}

void recorder_take_decision(struct recorder *r, const struct mc_decision *decision)
{
    size_t size = 0;

    if (!r || !r->counts.runs)
        return;
    if (record_decision_write(decision, r->scratch + RECORD_HEAD_BYTES,
                              SCRATCH_BYTES - RECORD_HEAD_BYTES, &size) != MC_OK ||
        size > RECORD_BODY_MAX)
        stop_with_end(r, RECORD_TOO_LARGE, "a decision that is no record");
    else if (add_record(r, RECORD_DECISION, size))
        r->counts.decisions++;
}

struct recorder_counts recorder_counts(const struct recorder *r)
{
    return r ? r->counts : (struct recorder_counts){ 0 };
}

const char *recorder_path(const struct recorder *r)
{
    return r->path;
}

/* -------------------------------------------------------------------------------------------- life */

/* A recording is never written over: a gateway that is started again begins another file. */
static mc_status open_file(struct recorder *r, const char *path, struct mc_error *error)
{
    const size_t room = strlen(path) + SUFFIX;
    mc_status status = MC_E_EXISTS;

    r->path = alloc_bytes(r->alloc, room);
    if (!r->path)
        return error_set(error, MC_E_NOMEM, "out of memory for a recorder");
    for (int i = 0; i < NAMES && status == MC_E_EXISTS; i++) {
        (void)snprintf(r->path, room, i ? "%s.%d" : "%s", path, i);
        status = os_outfile_open(r->path, &r->fd, error);
    }
    return status;
}

static mc_status add_first(struct recorder *r, const struct mc_sched_options *sched,
                           struct mc_error *error)
{
    struct buf text = BUF_INIT(r->alloc);
    const mc_status status = record_options_write(sched, &text);

    if (status == MC_OK) {
        memcpy(r->scratch + RECORD_HEAD_BYTES, text.data, text.size);
        if (!add(r, (const uint8_t *)RECORD_MAGIC, RECORD_MAGIC_BYTES, END_ROOM) ||
            !add_record(r, RECORD_OPTIONS, text.size))
            error_set(error, MC_E_RANGE, "recording: the buffer is too small");
    }
    buf_fini(&text);
    return status == MC_OK ? MC_OK
                           : error_set(error, status,
                                       "recording: the scheduler's options cannot be written down: "
                                       "a line break in one, or too long");
}

static mc_status open_all(struct recorder *r, const struct recorder_options *o,
                          struct mc_error *error)
{
    r->capacity = o->ring_bytes ? o->ring_bytes : RING_DEFAULT;
    if (r->capacity < RING_LEAST)
        return error_set(error, MC_E_ARG, "recording: a buffer of %zu bytes", r->capacity);
    r->ring = alloc_bytes(r->alloc, r->capacity);
    r->scratch = alloc_bytes(r->alloc, SCRATCH_BYTES);
    if (!r->ring || !r->scratch)
        return error_set(error, MC_E_NOMEM, "out of memory for a recorder");
    r->counts.runs = true;
    mc_status status = add_first(r, o->sched, error);
    if (status == MC_OK)
        status = open_file(r, o->path, error);
    if (status == MC_OK)
        status = os_thread_start(&r->thread, run, r, error);
    r->threaded = status == MC_OK;
    return status;
}

mc_status recorder_open(const struct recorder_options *o, recorder **recorder_p,
                        struct mc_error *error)
{
    struct recorder *r = alloc_zeroed(o->alloc, 1, sizeof(*r));

    if (!r)
        return error_set(error, MC_E_NOMEM, "out of memory for a recorder");
    r->alloc = o->alloc;
    r->log = o->log;
    r->fd = -1;
    os_lock_init(&r->lock);
    os_condition_init(&r->filled);
    const mc_status status = open_all(r, o, error);
    if (status != MC_OK) {
        r->counts.runs = false; /* nothing of it is to be told */
        recorder_close(r);
        return status;
    }
    gateway_log(&r->log, MC_LOG_INFO, "event=recording file=%s", r->path);
    *recorder_p = r;
    return MC_OK;
}

static void end_thread(struct recorder *r)
{
    os_lock(&r->lock);
    r->closing = true;
    os_condition_wake_all(&r->filled);
    os_unlock(&r->lock);
    os_thread_join(&r->thread);
    if (r->failed && r->counts.runs) /* the last of it: the disk was full then */
        stop(r, r->error.text);
    else if (r->counts.runs)
        gateway_log(&r->log, MC_LOG_INFO,
                    "event=recorded file=%s events=%" PRIu64 " decisions=%" PRIu64
                    " bytes=%" PRIu64,
                    r->path, r->counts.events, r->counts.decisions, r->counts.bytes);
}

void recorder_close(struct recorder *r)
{
    if (!r)
        return;
    if (r->counts.runs && r->threaded)
        add_end(r);
    if (r->threaded)
        end_thread(r);
    os_outfile_close(r->fd);
    os_condition_fini(&r->filled);
    os_lock_fini(&r->lock);
    alloc_free(r->alloc, r->scratch);
    alloc_free(r->alloc, r->ring);
    alloc_free(r->alloc, r->path);
    alloc_free(r->alloc, r);
}
