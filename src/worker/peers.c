/* peers.c - one connection to each decode worker, shared by all requests that go there. */
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "worker/state.h"

enum { IDLE_MAX = 64 }; /* connections kept for the next request */

static void on_up(void *user, net_conn *conn, const struct net_peer *who)
{
    struct peer *peer = user;
    struct worker *w = peer->worker;

    (void)conn;
    for (uint32_t i = w->task_count; i > 0; i--) { /* backwards: one may go */
        struct task *task = w->tasks[i - 1];
        if (task->peer != peer)
            continue;
        if (task->decode_incarnation && task->decode_incarnation != who->incarnation)
            task_happen(task,
                        (struct prefill_event){ .kind = PREFILL_PEER_GONE, .status = MC_E_STALE });
        else
            task_happen(task, (struct prefill_event){ .kind = PREFILL_PEER_UP });
    }
}

static void on_message(void *user, net_conn *conn, const struct wire_frame *frame)
{
    (void)user;
    if (frame->id)
        worker_answer(conn, frame->id, MC_E_UNSUPPORTED, "nothing is asked over this connection");
}

/* What was asked has been told already; the rest waits for it to be up again, each as long as it may. */
static void on_down(void *user, net_conn *conn, mc_status status, const char *text)
{
    struct peer *peer = user;

    (void)conn;
    worker_log(peer->worker, MC_LOG_DEBUG, "event=peer_down address=%s status=%s text=\"%s\"",
               peer->address, mc_status_name(status), text);
}

static const struct net_events peer_events = { on_up, on_message, on_down };

static struct peer *find(struct worker *w, const struct wire_slice *address)
{
    for (struct peer *peer = w->peers; peer; peer = peer->next)
        if (strlen(peer->address) == address->size &&
            !memcmp(peer->address, address->data, address->size))
            return peer;
    return NULL;
}

static void close_peer(struct peer *peer)
{
    struct peer **list = &peer->worker->peers;
    const struct mc_alloc *alloc = peer->worker->alloc;

    while (*list != peer)
        list = &(*list)->next;
    *list = peer->next;
    net_hang_up(peer->conn, false);
    mc_segment_close(peer->worker->transfer, peer->segment);
    alloc_free(alloc, peer->address);
    alloc_free(alloc, peer);
}

mc_status worker_peer_take(struct worker *w, const struct wire_slice *address, struct peer **peer_p,
                           struct mc_error *error)
{
    struct peer *peer = find(w, address);

    if (!peer) {
        peer = alloc_zeroed(w->alloc, 1, sizeof(*peer));
        if (!peer)
            return error_set(error, MC_E_NOMEM, "out of memory for a connection");
        *peer = (struct peer){ .worker = w,
                               .next = w->peers,
                               .address = alloc_text(w->alloc, address->data, address->size) };
        w->peers = peer;
        const mc_status status =
            peer->address ? net_dial(w->net, peer->address, &peer_events, peer, &peer->conn, error)
                          : error_set(error, MC_E_NOMEM, "out of memory for a connection");
        if (status != MC_OK) {
            close_peer(peer);
            return status;
        }
    }
    peer->users++;
    *peer_p = peer;
    return MC_OK;
}

mc_status worker_peer_segment(struct peer *peer, const char *name, uint32_t *segment_p,
                              struct mc_error *error)
{
    mc_transfer *transfer = peer->worker->transfer;
    uint32_t kept = 0;
    const mc_status status = mc_segment_open(transfer, name, segment_p, error);

    if (status != MC_OK || *segment_p == peer->segment)
        return status;
    /* A name opened again is the same id; another name is another life of that worker. */
    if (mc_segment_open(transfer, name, &kept, NULL) == MC_OK) {
        mc_segment_close(transfer, peer->segment);
        peer->segment = kept;
    }
    return MC_OK;
}

void worker_peer_drop(struct peer *peer)
{
    uint32_t idle = 0;

    if (!peer || --peer->users > 0)
        return;
    for (const struct peer *p = peer->worker->peers; p; p = p->next)
        idle += p->users == 0;
    /* Who is not reached is not kept: it would be dialled for ever. */
    if (idle > IDLE_MAX || !net_conn_is_up(peer->conn))
        close_peer(peer);
}

void worker_peers_close(struct worker *w)
{
    while (w->peers)
        close_peer(w->peers);
}
