/* calls.c - the public functions that begin a request, and leases given back. */
#include <string.h>

#include "base/alloc.h"
#include "store/client/request.h"

static struct mc_placement placed(const struct mc_placement *placement)
{
    return placement ? *placement : (struct mc_placement){ 0 };
}

mc_status mc_store_put_begin(mc_store *store, struct mc_put *puts, size_t count,
                             const struct mc_placement *placement, uint64_t deadline_ns,
                             mc_store_request **request_p)
{
    const struct store_call call = { .op = STORE_PUT,
                                     .items = puts,
                                     .count = count,
                                     .placement = placed(placement),
                                     .deadline_ns = deadline_ns };

    return request_begin(store, &call, request_p);
}

mc_status mc_store_get_begin(mc_store *store, struct mc_get *gets, size_t count,
                             uint64_t deadline_ns, mc_store_request **request_p)
{
    const struct store_call call = {
        .op = STORE_GET, .items = gets, .count = count, .deadline_ns = deadline_ns
    };

    return request_begin(store, &call, request_p);
}

mc_status mc_store_exist_begin(mc_store *store, struct mc_exist *exists, size_t count,
                               uint64_t deadline_ns, mc_store_request **request_p)
{
    const struct store_call call = {
        .op = STORE_EXIST, .items = exists, .count = count, .deadline_ns = deadline_ns
    };

    return request_begin(store, &call, request_p);
}

mc_status mc_store_remove_begin(mc_store *store, struct mc_remove *removes, size_t count,
                                uint64_t deadline_ns, mc_store_request **request_p)
{
    const struct store_call call = {
        .op = STORE_REMOVE, .items = removes, .count = count, .deadline_ns = deadline_ns
    };

    return request_begin(store, &call, request_p);
}

mc_status mc_store_lookup_begin(mc_store *store, struct mc_lookup *lookups, size_t count,
                                uint64_t lease_ns, uint32_t flags, uint64_t deadline_ns,
                                mc_store_request **request_p)
{
    const struct store_call call = { .op = STORE_LOOKUP,
                                     .items = lookups,
                                     .count = count,
                                     .lease_ns = lease_ns,
                                     .flags = flags,
                                     .deadline_ns = deadline_ns };

    return request_begin(store, &call, request_p);
}

mc_status mc_store_lease_renew_begin(mc_store *store, struct mc_lease *leases, size_t count,
                                     uint64_t lease_ns, uint64_t deadline_ns,
                                     mc_store_request **request_p)
{
    const struct store_call call = { .op = STORE_LEASE_RENEW,
                                     .items = leases,
                                     .count = count,
                                     .lease_ns = lease_ns,
                                     .deadline_ns = deadline_ns };

    return lease_ns == 0 ? MC_E_RANGE : request_begin(store, &call, request_p);
}

mc_status mc_store_allot_begin(mc_store *store, struct mc_allot *allots, size_t count,
                               const struct mc_placement *placement, uint64_t deadline_ns,
                               mc_store_request **request_p)
{
    const struct store_call call = { .op = STORE_ALLOT,
                                     .items = allots,
                                     .count = count,
                                     .placement = placed(placement),
                                     .deadline_ns = deadline_ns };

    return request_begin(store, &call, request_p);
}

mc_status mc_store_commit_begin(mc_store *store, struct mc_commit *commits, size_t count,
                                uint64_t deadline_ns, mc_store_request **request_p)
{
    const struct store_call call = {
        .op = STORE_COMMIT, .items = commits, .count = count, .deadline_ns = deadline_ns
    };

    return request_begin(store, &call, request_p);
}

mc_status mc_store_revoke_begin(mc_store *store, struct mc_commit *revokes, size_t count,
                                uint64_t deadline_ns, mc_store_request **request_p)
{
    const struct store_call call = {
        .op = STORE_REVOKE, .items = revokes, .count = count, .deadline_ns = deadline_ns
    };

    return request_begin(store, &call, request_p);
}

mc_status mc_store_allot_renew_begin(mc_store *store, struct mc_token *tokens, size_t count,
                                     uint64_t lease_ns, uint64_t deadline_ns,
                                     mc_store_request **request_p)
{
    const struct store_call call = { .op = STORE_ALLOT_RENEW,
                                     .items = tokens,
                                     .count = count,
                                     .lease_ns = lease_ns,
                                     .deadline_ns = deadline_ns };

    return lease_ns == 0 ? MC_E_RANGE : request_begin(store, &call, request_p);
}

/* -------------------------------------------------------------------------------- leases given back */

struct release {
    struct os_post post;
    mc_store *store;
    size_t count;
    struct mc_lease leases[];
};

static void release_posted(void *user)
{
    struct release *release = user;
    mc_store *store = release->store;

    store_client_release(store->core, release->leases, release->count, &store->out);
    alloc_free(store->alloc, release);
}

mc_status mc_store_lease_release(mc_store *store, const struct mc_lease *leases, size_t count)
{
    size_t size;

    if (count == 0 || !size_mul(count, sizeof(*leases), &size) ||
        !size_add(size, sizeof(struct release), &size))
        return MC_OK;
    struct release *release = alloc_bytes(store->alloc, size);
    if (!release)
        return MC_OK; /* they expire */
    *release = (struct release){ .post = { .run = release_posted, .user = release },
                                 .store = store,
                                 .count = count };
    memcpy(release->leases, leases, count * sizeof(*leases));
    os_loop_post(store->loop, &release->post);
    return MC_OK;
}
