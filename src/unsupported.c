/*
 * unsupported.c - every public function that this release declares and does not have: it says so.
 *
 * A function leaves this file when its room gets its first code; tests/unit/api holds the exported
 * names against the headers, so none can be forgotten or doubled.
 */
#include <mooncake/p2p.h>
#include <mooncake/transfer.h>

#include "base/error.h"

/* The parameters are the headers'; nothing here reads them. */
#pragma GCC diagnostic ignored "-Wunused-parameter"

/* It takes these macros for the starts of functions: */
/* clang-format off */

/** A function whose status says all there is to say. */
#define UNSUPPORTED(function, ...)                                                                  \
    mc_status function(__VA_ARGS__)                                                                 \
    {                                                                                               \
        return MC_E_UNSUPPORTED;                                                                    \
    }

/** A function with a parameter `error`, which gets a text. */
#define UNSUPPORTED_TEXT(function, ...)                                                             \
    mc_status function(__VA_ARGS__)                                                                 \
    {                                                                                               \
        return error_set(error, MC_E_UNSUPPORTED, "%s: not in this release (%s); see its header",   \
                         #function, mc_version());                                                  \
    }

/** A closer: nothing was opened, so nothing is left to do. */
#define NOTHING_TO_CLOSE(function, ...)                                                             \
    void function(__VA_ARGS__)                                                                      \
    {                                                                                               \
    }


/* mooncake/transfer.h */
UNSUPPORTED(mc_resolution_done, mc_resolution *resolution, mc_status status, const void *descriptor,
            size_t size, const struct mc_error *error)

/* mooncake/p2p.h */
UNSUPPORTED_TEXT(mc_p2p_open, const struct mc_p2p_options *options, mc_p2p **p2p_p,
                 struct mc_error *error)
NOTHING_TO_CLOSE(mc_p2p_close, mc_p2p *p2p)
UNSUPPORTED_TEXT(mc_p2p_share, mc_p2p *p2p, const char *name, const struct mc_range *ranges,
                 size_t count, mc_p2p_job **job_p, struct mc_error *error)
UNSUPPORTED_TEXT(mc_p2p_fetch, mc_p2p *p2p, const char *name, const struct mc_digest *digest,
                 const struct mc_range *ranges, size_t count, uint64_t deadline_ns,
                 mc_p2p_job **job_p, struct mc_error *error)
UNSUPPORTED(mc_p2p_progress, const mc_p2p_job *job, struct mc_p2p_progress *progress_p)
UNSUPPORTED(mc_p2p_poll, mc_p2p_job *job)
UNSUPPORTED_TEXT(mc_p2p_wait, mc_p2p_job *job, uint64_t deadline_ns, struct mc_error *error)
NOTHING_TO_CLOSE(mc_p2p_end, mc_p2p_job *job)
UNSUPPORTED_TEXT(mc_p2p_list, mc_p2p *p2p, const char *prefix, uint64_t deadline_ns,
                 struct mc_p2p_object *objects_p, size_t capacity, size_t *count_p, size_t *total_p,
                 struct mc_error *error)
