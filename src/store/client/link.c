/* link.c - masters dialled, one of them spoken to; questions and their tags. */
#include "store/client/link.h"

#include <stdalign.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/log.h"

struct link_ask {
    struct link *link;
    struct link_ask *next, **at;
    uint64_t tag, id;
};

/* ------------------------------------------------------------------------------------- questions */

static void ask_free(struct link_ask *ask)
{
    *ask->at = ask->next;
    if (ask->next)
        ask->next->at = ask->at;
    alloc_free(ask->link->alloc, ask);
}

static void answered(void *user, mc_status status, const struct wire_frame *frame)
{
    struct link_ask *ask = user;
    struct link *link = ask->link;
    const uint64_t tag = ask->tag;
    alignas(16) unsigned char message[WIRE_STRUCT_MAX];

    ask_free(ask);
    if (status == MC_E_PEER || status == MC_E_CANCELLED)
        return; /* the connection is gone: `down` says so for all */
    if (status == MC_OK)
        status = wire_decode(frame->kind, frame->body, frame->body_size, message, NULL);
    if (status == MC_OK)
        link->events->answer(link->user, tag, MC_OK, frame->kind, message);
    else
        link->events->answer(link->user, tag, status, 0, NULL);
}

mc_status link_ask(struct link *link, uint64_t tag, enum wire_kind kind, const void *message,
                   uint64_t deadline_ns)
{
    if (!link->active)
        return MC_E_PEER;
    struct link_ask *ask = alloc_zeroed(link->alloc, 1, sizeof(*ask));
    if (!ask)
        return MC_E_NOMEM;
    *ask = (struct link_ask){ .link = link, .next = link->asks, .at = &link->asks, .tag = tag };
    const mc_status status =
        net_ask(link->active->conn, kind, message, deadline_ns, answered, ask, &ask->id);
    if (status != MC_OK) {
        alloc_free(link->alloc, ask);
        return status;
    }
    if (ask->next)
        ask->next->at = &ask->next;
    link->asks = ask;
    return MC_OK;
}

void link_forget(struct link *link, uint64_t tag)
{
    for (struct link_ask *ask = link->asks; ask; ask = ask->next)
        if (ask->tag == tag) {
            net_ask_forget(link->active->conn, ask->id);
            ask_free(ask);
            return;
        }
}

mc_status link_answer(struct link *link, uint64_t id, enum wire_kind kind, const void *message)
{
    return link->active ? net_answer(link->active->conn, id, kind, message) : MC_E_PEER;
}

/* ------------------------------------------------------------------------------------ connections */

static void on_up(void *user, net_conn *conn, const struct net_peer *peer)
{
    struct link_master *master = user;
    struct link *link = master->link;

    (void)conn;
    master->told = false;
    log_write(link->log, MC_LOG_INFO, "event=master_up master=%s", peer->address);
    if (link->active)
        return; /* this one is spared until the other is lost */
    link->active = master;
    link->events->up(link->user);
}

static void on_message(void *user, net_conn *conn, const struct wire_frame *frame)
{
    struct link_master *master = user;
    struct link *link = master->link;
    alignas(16) unsigned char message[WIRE_STRUCT_MAX];
    struct mc_error error = { 0 };

    if (master != link->active) {
        (void)net_answer_outcome(conn, frame->id, MC_E_BUSY, "another master is spoken to");
        return;
    }
    const mc_status status =
        wire_decode(frame->kind, frame->body, frame->body_size, message, &error);
    if (status == MC_OK)
        link->events->message(link->user, frame->id, frame->kind, message);
    else
        (void)net_answer_outcome(conn, frame->id, status, error.text);
}

static void take_another(struct link *link)
{
    for (uint32_t i = 0; i < link->count && !link->active; i++)
        if (link->masters[i].conn && net_conn_is_up(link->masters[i].conn)) {
            link->active = &link->masters[i];
            link->events->up(link->user);
        }
}

static void on_down(void *user, net_conn *conn, mc_status status, const char *text)
{
    struct link_master *master = user;
    struct link *link = master->link;

    (void)conn;
    snprintf(link->why, sizeof(link->why), "%s", text);
    if (!master->told) /* not for each time that it is dialled */
        log_write(link->log, MC_LOG_WARN, "event=master_away status=%s reason=\"%s\"",
                  mc_status_name(status), text);
    master->told = true;
    if (master != link->active)
        return;
    link->active = NULL;
    link->events->down(link->user);
    take_another(link);
}

static const struct net_events events = { on_up, on_message, on_down };

/* --------------------------------------------------------------------------------- open and close */

static mc_status dial(struct link *link, net *n, const char *text, size_t size,
                      struct mc_error *error)
{
    char address[MC_NAME_MAX + 16];
    struct link_master *master = &link->masters[link->count];

    if (link->count == LINK_MASTERS_MAX)
        return error_set(error, MC_E_RANGE, "more than %d masters", LINK_MASTERS_MAX);
    if (size == 0 || size >= sizeof(address))
        return error_set(error, MC_E_ARG, "\"%.*s\" is not the address of a master: host:port",
                         (int)(size < 80 ? size : 80), text);
    memcpy(address, text, size);
    address[size] = '\0';
    master->link = link;
    const mc_status status = net_dial(n, address, &events, master, &master->conn, error);
    link->count += status == MC_OK;
    return status;
}

mc_status link_open(struct link *link, net *n, const char *masters, const struct mc_alloc *alloc,
                    const struct mc_log *log, const struct link_events *link_events, void *user,
                    struct mc_error *error)
{
    *link = (struct link){ .alloc = alloc, .log = log, .events = link_events, .user = user };
    for (const char *at = masters;; at++) {
        const size_t size = strcspn(at, ";");
        const mc_status status = dial(link, n, at, size, error);
        if (status != MC_OK) {
            link_close(link);
            return status;
        }
        at += size;
        if (*at == '\0')
            return MC_OK;
    }
}

void link_close(struct link *link)
{
    for (uint32_t i = 0; i < link->count; i++)
        net_hang_up(link->masters[i].conn, true);
    link->count = 0;
    link->active = NULL;
}
