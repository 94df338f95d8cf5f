/*
 * unsupported.c - every public function that this release declares and does not have: it says so.
 *
 * A function leaves this file when its room gets its first code; tests/unit/api holds the exported
 * names against the headers, so none can be forgotten or doubled.
 */
#include <mooncake/p2p.h>
#include <mooncake/sched.h>
#include <mooncake/store.h>
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

/* mooncake/store.h */
UNSUPPORTED(mc_identity_of_name, const char *tenant, const void *name, size_t size,
            struct mc_identity *identity_p)
UNSUPPORTED_TEXT(mc_store_open, const struct mc_store_options *options, mc_store **store_p,
                 struct mc_error *error)
NOTHING_TO_CLOSE(mc_store_close, mc_store *store)
UNSUPPORTED(mc_store_request_poll, mc_store_request *request)
UNSUPPORTED(mc_store_request_wait, mc_store_request *request, uint64_t deadline_ns)
UNSUPPORTED(mc_store_request_fd, mc_store_request *request, int *fd_p)
UNSUPPORTED(mc_store_request_cancel, mc_store_request *request)
UNSUPPORTED_TEXT(mc_store_request_error, const mc_store_request *request, struct mc_error *error)
NOTHING_TO_CLOSE(mc_store_request_close, mc_store_request *request)
UNSUPPORTED(mc_store_put_begin, mc_store *store, struct mc_put *puts, size_t count,
            const struct mc_placement *placement, uint64_t deadline_ns, mc_store_request **request_p)
UNSUPPORTED(mc_store_get_begin, mc_store *store, struct mc_get *gets, size_t count,
            uint64_t deadline_ns, mc_store_request **request_p)
UNSUPPORTED(mc_store_exist_begin, mc_store *store, struct mc_exist *exists, size_t count,
            uint64_t deadline_ns, mc_store_request **request_p)
UNSUPPORTED(mc_store_remove_begin, mc_store *store, struct mc_remove *removes, size_t count,
            uint64_t deadline_ns, mc_store_request **request_p)
UNSUPPORTED(mc_store_lookup_begin, mc_store *store, struct mc_lookup *lookups, size_t count,
            uint64_t lease_ns, uint32_t flags, uint64_t deadline_ns, mc_store_request **request_p)
UNSUPPORTED(mc_store_lease_renew_begin, mc_store *store, struct mc_lease *leases, size_t count,
            uint64_t lease_ns, uint64_t deadline_ns, mc_store_request **request_p)
UNSUPPORTED(mc_store_lease_release, mc_store *store, const struct mc_lease *leases, size_t count)
UNSUPPORTED(mc_store_allot_begin, mc_store *store, struct mc_allot *allots, size_t count,
            const struct mc_placement *placement, uint64_t deadline_ns, mc_store_request **request_p)
UNSUPPORTED(mc_store_commit_begin, mc_store *store, struct mc_commit *commits, size_t count,
            uint64_t deadline_ns, mc_store_request **request_p)
UNSUPPORTED(mc_store_revoke_begin, mc_store *store, struct mc_commit *revokes, size_t count,
            uint64_t deadline_ns, mc_store_request **request_p)
UNSUPPORTED(mc_store_allot_renew_begin, mc_store *store, struct mc_token *tokens, size_t count,
            uint64_t lease_ns, uint64_t deadline_ns, mc_store_request **request_p)
UNSUPPORTED(mc_store_events_open, mc_store *store, uint64_t epoch, uint64_t sequence,
            mc_store_events **events_p)
UNSUPPORTED(mc_store_events_take, mc_store_events *events, struct mc_store_event *events_p,
            size_t capacity, size_t *count_p, uint64_t deadline_ns)
UNSUPPORTED(mc_store_events_fd, mc_store_events *events, int *fd_p)
NOTHING_TO_CLOSE(mc_store_events_close, mc_store_events *events)
UNSUPPORTED_TEXT(mc_store_stats, mc_store *store, uint64_t deadline_ns,
                 struct mc_store_stats *stats_p, struct mc_error *error)
UNSUPPORTED_TEXT(mc_store_node_open, mc_store *store, const struct mc_store_node_options *options,
                 mc_store_node **node_p, struct mc_error *error)
UNSUPPORTED(mc_store_node_drain, mc_store_node *node, uint64_t deadline_ns)
NOTHING_TO_CLOSE(mc_store_node_close, mc_store_node *node)

/* mooncake/sched.h */
UNSUPPORTED_TEXT(mc_sched_open, const struct mc_sched_options *options, mc_sched **sched_p,
                 struct mc_error *error)
NOTHING_TO_CLOSE(mc_sched_close, mc_sched *sched)
UNSUPPORTED(mc_sched_step, mc_sched *sched, uint64_t now_ns, const struct mc_sched_event *event)
UNSUPPORTED(mc_sched_take, mc_sched *sched, struct mc_decision *decisions_p, size_t capacity,
            size_t *count_p)
UNSUPPORTED(mc_sched_due, const mc_sched *sched, uint64_t *due_ns_p)
UNSUPPORTED(mc_sched_stats, const mc_sched *sched, struct mc_sched_stats *stats_p)
UNSUPPORTED(mc_sched_event_encode, uint64_t now_ns, const struct mc_sched_event *event,
            void *bytes_p, size_t capacity, size_t *size_p)
UNSUPPORTED_TEXT(mc_sched_event_decode, const void *bytes, size_t size, struct mc_key *keys,
                 size_t key_capacity, uint64_t *now_ns_p, struct mc_sched_event *event_p,
                 struct mc_error *error)
