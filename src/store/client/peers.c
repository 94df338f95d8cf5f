/* peers.c - node ids and their segments. */
#include "store/client/peers.h"

#include <string.h>

#include "base/alloc.h"

struct peer {
    uint64_t id; /* of the node; given once, so its engine's name never changes */
    uint64_t used;
    uint32_t segment;
};

mc_status peers_open(struct peers *peers, mc_transfer *transfer, const struct mc_alloc *alloc)
{
    *peers = (struct peers){ .alloc = alloc, .transfer = transfer };
    peers->peers = alloc_zeroed(alloc, PEERS_MAX, sizeof(*peers->peers));
    return peers->peers ? MC_OK : MC_E_NOMEM;
}

static struct peer *find(struct peers *peers, uint64_t id)
{
    if (peers->last < peers->count && peers->peers[peers->last].id == id)
        return &peers->peers[peers->last]; /* most objects of an answer lie at one node */
    for (uint32_t i = 0; i < peers->count; i++)
        if (peers->peers[i].id == id) {
            peers->last = i;
            return &peers->peers[i];
        }
    return NULL;
}

static void drop_oldest(struct peers *peers)
{
    uint32_t oldest = 0;

    for (uint32_t i = 1; i < peers->count; i++)
        if (peers->peers[i].used < peers->peers[oldest].used)
            oldest = i;
    mc_segment_close(peers->transfer, peers->peers[oldest].segment);
    peers->peers[oldest] = peers->peers[--peers->count];
}

static mc_status open_segment(struct peers *peers, struct wire_slice name, uint32_t *segment_p)
{
    char text[MC_NAME_MAX + 1];

    if (name.size == 0 || name.size > MC_NAME_MAX)
        return MC_E_ARG;
    memcpy(text, name.data, name.size);
    text[name.size] = '\0';
    mc_status status = mc_segment_open(peers->transfer, text, segment_p, NULL);
    if (status == MC_E_FULL && peers->count > 0) {
        drop_oldest(peers);
        status = mc_segment_open(peers->transfer, text, segment_p, NULL);
    }
    return status;
}

uint32_t peers_segment(struct peers *peers, uint64_t id, struct wire_slice name)
{
    struct peer *peer = find(peers, id);

    if (!peer) {
        uint32_t segment;
        if (open_segment(peers, name, &segment) != MC_OK)
            return 0;
        if (peers->count == PEERS_MAX)
            drop_oldest(peers);
        peer = &peers->peers[peers->count++];
        *peer = (struct peer){ .id = id, .segment = segment };
    }
    peer->used = ++peers->clock;
    return peer->segment;
}

void peers_close(struct peers *peers)
{
    if (!peers->peers)
        return;
    for (uint32_t i = 0; i < peers->count; i++)
        mc_segment_close(peers->transfer, peers->peers[i].segment);
    alloc_free(peers->alloc, peers->peers);
    *peers = (struct peers){ 0 };
}
