/*
 * unsupported.c - every public function that this release declares and does not have: it says so.
 *
 * A function leaves this file when its room gets its first code; tests/unit/api holds the exported
 * names against the headers, so none can be forgotten or doubled.
 */
#include <mooncake/p2p.h>
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
UNSUPPORTED_TEXT(mc_transfer_open, const struct mc_transfer_options *options,
                 mc_transfer **transfer_p, struct mc_error *error)
UNSUPPORTED(mc_transfer_info, const mc_transfer *transfer, struct mc_transfer_info *info_p)
UNSUPPORTED(mc_transfer_fd, mc_transfer *transfer, int *fd_p)
UNSUPPORTED(mc_transfer_progress, mc_transfer *transfer, uint64_t *next_ns_p)
NOTHING_TO_CLOSE(mc_transfer_close, mc_transfer *transfer)
UNSUPPORTED_TEXT(mc_memory_alloc, mc_transfer *transfer, size_t size, const char *location,
                 void **memory_p, struct mc_error *error)
NOTHING_TO_CLOSE(mc_memory_free, mc_transfer *transfer, void *memory)
UNSUPPORTED_TEXT(mc_region_register, mc_transfer *transfer, const struct mc_region_options *options,
                 size_t count, struct mc_region *regions_p, struct mc_error *error)
UNSUPPORTED_TEXT(mc_region_unregister, mc_transfer *transfer, const struct mc_region *regions,
                 size_t count, uint64_t deadline_ns, struct mc_error *error)
UNSUPPORTED_TEXT(mc_window_grant, mc_transfer *transfer, const struct mc_window_options *options,
                 struct mc_window *window_p, struct mc_error *error)
UNSUPPORTED(mc_window_renew, mc_transfer *transfer, const struct mc_window *window,
            uint64_t lease_ns)
UNSUPPORTED_TEXT(mc_window_revoke, mc_transfer *transfer, const struct mc_window *window,
                 uint64_t deadline_ns, struct mc_error *error)
UNSUPPORTED_TEXT(mc_segment_open, mc_transfer *transfer, const char *name, uint32_t *segment_p,
                 struct mc_error *error)
UNSUPPORTED_TEXT(mc_segment_info, mc_transfer *transfer, uint32_t segment, bool refresh,
                 uint64_t deadline_ns, struct mc_segment_info *info_p, struct mc_error *error)
UNSUPPORTED(mc_segment_region, mc_transfer *transfer, uint32_t segment, uint32_t index,
            struct mc_segment_region *region_p)
UNSUPPORTED(mc_segment_find, mc_transfer *transfer, uint32_t segment, uint64_t address,
            uint64_t size, struct mc_region *region_p, uint64_t *offset_p)
NOTHING_TO_CLOSE(mc_segment_close, mc_transfer *transfer, uint32_t segment)
UNSUPPORTED(mc_batch_open, mc_transfer *transfer, const struct mc_batch_options *options,
            mc_batch **batch_p)
UNSUPPORTED(mc_batch_add, mc_batch *batch, const struct mc_xfer *xfers, size_t count)
UNSUPPORTED(mc_batch_submit, mc_batch *batch)
UNSUPPORTED(mc_batch_poll, mc_batch *batch)
UNSUPPORTED(mc_batch_wait, mc_batch *batch, uint64_t deadline_ns)
UNSUPPORTED(mc_batch_fd, mc_batch *batch, int *fd_p)
UNSUPPORTED(mc_batch_cancel, mc_batch *batch)
UNSUPPORTED(mc_batch_result, const mc_batch *batch, uint64_t index, struct mc_xfer_result *result_p)
UNSUPPORTED_TEXT(mc_batch_error, const mc_batch *batch, struct mc_error *error)
UNSUPPORTED(mc_batch_reset, mc_batch *batch, uint64_t deadline_ns)
NOTHING_TO_CLOSE(mc_batch_close, mc_batch *batch)
UNSUPPORTED(mc_batch_notify, mc_batch *batch, uint32_t segment, const char *name,
            const void *message, size_t size)
UNSUPPORTED(mc_notice_take, mc_transfer *transfer, uint64_t deadline_ns, struct mc_notice *notice_p,
            void *message_p, size_t capacity)
UNSUPPORTED(mc_transfer_stats, const mc_transfer *transfer, uint32_t index,
            struct mc_transfer_stats *stats_p)

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
