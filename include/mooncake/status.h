/*
 * mooncake/status.h - what every other header shares: statuses, error text, the allocator, keys, the
 * version.
 *
 * Life:    values only; nothing here is opened or closed.
 * Threads: every function may be called from any thread at any time.
 * Memory:  strings returned are static. struct mc_alloc is borrowed by whatever was opened with it
 *          and must outlive it.
 * Errors:  a function that can fail returns a mc_status; outputs come last, end in _p and are
 *          written only on MC_OK. Where the caller can learn more than the code says, the function
 *          also takes a struct mc_error and writes one line: what is wrong, where, what to do.
 */
#ifndef MC_STATUS_H
#define MC_STATUS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define MC_C_BEGIN extern "C" {
#define MC_C_END }
#else
#define MC_C_BEGIN
#define MC_C_END
#endif

#if defined(__GNUC__)
#define MC_API __attribute__((visibility("default")))
#define MC_MUST_USE __attribute__((warn_unused_result))
#define MC_PRINTF(format_index, first_index) \
    __attribute__((format(printf, format_index, first_index)))
#else
#define MC_API
#define MC_MUST_USE
#define MC_PRINTF(format_index, first_index)
#endif

MC_C_BEGIN

/*
 * Every status, once: name, number, words. Numbers never change meaning; new ones go at the end.
 * 0 is success, positive is not finished, negative is an event that the caller must handle.
 */
#define MC_STATUS_MAP(X) \
    X(OK, 0, "success") \
    X(PENDING, 1, "still in progress") \
    X(E_NOMEM, -1, "out of memory") \
    X(E_ARG, -2, "invalid argument") \
    X(E_RANGE, -3, "value out of range") \
    X(E_FULL, -4, "no room left") \
    X(E_NOT_FOUND, -5, "not found") \
    X(E_UNSUPPORTED, -6, "not supported") \
    X(E_FORMAT, -7, "malformed input") \
    X(E_IO, -8, "input or output failed") \
    X(E_TIMEOUT, -9, "deadline passed") \
    X(E_CANCELLED, -10, "cancelled") \
    X(E_DENIED, -11, "permission denied") \
    X(E_STALE, -12, "generation or lease is no longer valid") \
    X(E_EXISTS, -13, "already exists") \
    X(E_PEER, -14, "peer is gone") \
    X(E_CORRUPT, -15, "checksum does not match") \
    X(E_BUSY, -16, "in use")

typedef enum mc_status {
#define MC_STATUS_ENUM(name, number, words) MC_##name = (number),
    MC_STATUS_MAP(MC_STATUS_ENUM)
#undef MC_STATUS_ENUM
} mc_status;

/** "MC_E_NOMEM" and the like; "MC_E_?" for a number that is not in the list. Static. */
MC_API const char *mc_status_name(mc_status status);

/** The status in words, for people; "unknown status" for a number not in the list. Static. */
MC_API const char *mc_status_text(mc_status status);

/** One line about a failure. The caller's memory; `{ 0 }` is a valid start. */
struct mc_error {
    mc_status status;
    char text[500]; /* UTF-8, no newline, cut with "..." if longer; "" while status is MC_OK */
};

/**
 * Where memory comes from. All three functions are set, and may be called from any thread that
 * uses the object they were given to. `context` is the caller's and is passed back unread.
 */
struct mc_alloc {
    /** At least `size` bytes aligned to 16, contents undefined, or NULL. size > 0. */
    void *(*alloc)(void *context, size_t size);
    /** Move `p` (NULL allowed) to `size` bytes, keeping the first min(old, new); NULL leaves p. */
    void *(*resize)(void *context, void *p, size_t size);
    /** NULL is allowed. */
    void (*free)(void *context, void *p);
    void *context;
};

/** What a block is known by wherever it is looked up, priced or stored: the first 128 bits of its
 * chained identity, so that an equal key means an equal whole prefix. */
struct mc_key {
    uint8_t bytes[16];
};

/** What holds an object's bytes. */
enum mc_medium { MC_MEDIUM_ANY, MC_MEDIUM_DRAM, MC_MEDIUM_SSD };

/** "0.1.0": the version of the library that is linked, which may be newer than these headers. */
MC_API const char *mc_version(void);

MC_C_END

#endif /* MC_STATUS_H */
