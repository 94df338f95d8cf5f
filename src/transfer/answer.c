/* answer.c - what peers ask on the control port: descriptions, windows, notices, counters. */
#include "transfer/engine.h"

#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "net/counters.h"
#include "os/clock.h"
#include "transfer/description.h"

enum { REVOCATIONS_MAX = 256, WINDOWS_MAX = 4096 };

#define REVOCATION_POLL_NS UINT64_C(1000000)
#define REVOCATION_MAX_NS UINT64_C(60000000000) /* of one that names no deadline */

/* Windows that a peer wants to be quiet. Answered when all are, or at the deadline. */
struct revocation {
    struct revocation *next;
    net_conn *conn;
    uint64_t id, deadline_ns;
    uint32_t count, settled;
    struct revoked {
        uint64_t key[2], generation;
        mc_status status; /* MC_PENDING */
    } windows[];          /* [count] */
};

/* ------------------------------------------------------------------------------------- descriptions */

struct question {
    net_conn *conn;
    uint64_t id;
};

static mc_status tell_description(void *user, const struct wire_segment_description *message)
{
    const struct question *question = user;

    return net_answer(question->conn, question->id, WIRE_SEGMENT_DESCRIPTION, message);
}

static void on_segment_ask(mc_transfer *engine, net_conn *conn, const struct wire_frame *frame)
{
    struct wire_segment_ask ask;
    struct question question = { conn, frame->id };
    struct mc_error error = { 0 };

    mc_status status = wire_decode(frame->kind, frame->body, frame->body_size, &ask, &error);
    if (status == MC_OK && ask.name.size > 0 &&
        (ask.name.size != strlen(engine->name) ||
         memcmp(ask.name.data, engine->name, ask.name.size) != 0))
        status = error_set(&error, MC_E_NOT_FOUND, "this is the engine %s", engine->name);
    if (status == MC_OK)
        status = description_tell(engine, ask.known, tell_description, &question);
    if (status != MC_OK)
        (void)net_answer_outcome(conn, frame->id, status, error.text);
}

/* ------------------------------------------------------------------------------------------- windows */

static void key_of(const struct mc_key *from, uint64_t key[2])
{
    memcpy(key, from->bytes, sizeof(from->bytes));
}

static void answer_outcomes(net_conn *conn, uint64_t id, const uint32_t *statuses, uint32_t count)
{
    const struct wire_outcomes outcomes = { .statuses = { statuses, count } };

    (void)net_answer(conn, id, WIRE_OUTCOMES, &outcomes);
}

static void on_window_renew(mc_transfer *engine, net_conn *conn, const struct wire_frame *frame)
{
    struct wire_window_renew renew;
    struct wire_window_name name;
    struct mc_error error = { 0 };
    uint32_t count = 0;

    const mc_status status =
        wire_decode(frame->kind, frame->body, frame->body_size, &renew, &error);
    uint32_t *statuses = status == MC_OK
                             ? alloc_zeroed(engine->alloc, renew.windows.count, sizeof(*statuses))
                             : NULL;
    if (!statuses) {
        (void)net_answer_outcome(conn, frame->id, status == MC_OK ? MC_E_NOMEM : status,
                                 error.text);
        return;
    }
    while (wire_window_name_next(&renew.windows, &name)) {
        uint64_t key[2];
        key_of(&name.key, key);
        statuses[count++] =
            (uint32_t)window_renew_key(engine, key, name.generation, renew.lease_ns);
    }
    answer_outcomes(conn, frame->id, statuses, count);
    alloc_free(engine->alloc, statuses);
}

static void answer_revocation(mc_transfer *engine, const struct revocation *revocation)
{
    uint32_t statuses[WINDOWS_MAX];

    (void)engine;
    for (uint32_t i = 0; i < revocation->count; i++)
        statuses[i] = (uint32_t)revocation->windows[i].status;
    answer_outcomes(revocation->conn, revocation->id, statuses, revocation->count);
}

/* Returns whether all have their answer. */
static bool poll_revocation(mc_transfer *engine, struct revocation *revocation, uint64_t now_ns)
{
    for (uint32_t i = 0; i < revocation->count; i++) {
        struct revoked *window = &revocation->windows[i];
        uint64_t blocker = 0;
        if (window->status != MC_PENDING)
            continue;
        window->status = window_revoke_step(engine, window->key, window->generation, &blocker);
        if (window->status == MC_PENDING && now_ns >= revocation->deadline_ns) {
            window->status = MC_E_TIMEOUT;
            window_quarantine(engine, window->key);
        }
        revocation->settled += window->status != MC_PENDING;
    }
    return revocation->settled == revocation->count;
}

static void on_window_revoke(mc_transfer *engine, net_conn *conn, const struct wire_frame *frame)
{
    struct wire_window_revoke revoke;
    struct wire_window_name name;
    struct mc_error error = { 0 };
    uint32_t waiting = 0;

    for (const struct revocation *r = engine->revocations; r; r = r->next)
        waiting++;
    mc_status status = wire_decode(frame->kind, frame->body, frame->body_size, &revoke, &error);
    if (status == MC_OK && waiting >= REVOCATIONS_MAX)
        status = error_set(&error, MC_E_FULL, "%d revocations wait already", REVOCATIONS_MAX);
    struct revocation *revocation = NULL;
    if (status == MC_OK) {
        revocation = alloc_zeroed(
            engine->alloc, 1, sizeof(*revocation) + revoke.windows.count * sizeof(struct revoked));
        status = revocation ? MC_OK : MC_E_NOMEM;
    }
    if (status != MC_OK) {
        (void)net_answer_outcome(conn, frame->id, status, error.text);
        return;
    }
    const uint64_t now_ns = os_now_ns();
    revocation->conn = conn;
    revocation->id = frame->id;
    revocation->deadline_ns =
        now_ns + (frame->deadline_ns && frame->deadline_ns < REVOCATION_MAX_NS ? frame->deadline_ns
                                                                               : REVOCATION_MAX_NS);
    while (wire_window_name_next(&revoke.windows, &name)) {
        struct revoked *window = &revocation->windows[revocation->count++];
        key_of(&name.key, window->key);
        window->generation = name.generation;
        window->status = MC_PENDING;
    }
    if (poll_revocation(engine, revocation, now_ns)) {
        answer_revocation(engine, revocation);
        alloc_free(engine->alloc, revocation);
        return;
    }
    revocation->next = engine->revocations;
    engine->revocations = revocation;
    engine_alarm(engine, now_ns + REVOCATION_POLL_NS);
}

uint64_t answer_revocations(mc_transfer *engine, uint64_t now_ns)
{
    for (struct revocation **at = &engine->revocations; *at;) {
        struct revocation *revocation = *at;
        if (!poll_revocation(engine, revocation, now_ns)) {
            at = &revocation->next;
            continue;
        }
        *at = revocation->next;
        answer_revocation(engine, revocation);
        alloc_free(engine->alloc, revocation);
    }
    return engine->revocations ? now_ns + REVOCATION_POLL_NS : UINT64_MAX;
}

/* Its windows stay refused; nobody is left to be told. */
static void forget_revocations(mc_transfer *engine, const net_conn *conn)
{
    for (struct revocation **at = &engine->revocations; *at;) {
        struct revocation *revocation = *at;
        if (conn && revocation->conn != conn) {
            at = &revocation->next;
            continue;
        }
        *at = revocation->next;
        alloc_free(engine->alloc, revocation);
    }
}

void answer_close(mc_transfer *engine)
{
    forget_revocations(engine, NULL);
}

static mc_status answer_window_map(void *user, const struct wire_window_map *message)
{
    const struct question *question = user;

    return net_answer(question->conn, question->id, WIRE_WINDOW_MAP, message);
}

static void on_window_map_ask(mc_transfer *engine, net_conn *conn, const struct wire_frame *frame)
{
    struct wire_window_map_ask ask;
    struct mc_error error = { 0 };
    uint64_t key[2];

    mc_status status = wire_decode(frame->kind, frame->body, frame->body_size, &ask, &error);
    if (status == MC_OK) {
        struct question question = { conn, frame->id };
        const struct net_peer *peer = net_conn_peer(conn);
        key_of(&ask.key, key);
        status = window_tell(engine, key, ask.generation, peer ? peer->incarnation : 0,
                             answer_window_map, &question);
    }
    if (status != MC_OK)
        (void)net_answer_outcome(conn, frame->id, status, error.text);
}

/* -------------------------------------------------------------------------------- notices, counters */

static void on_notify(mc_transfer *engine, net_conn *conn, const struct wire_frame *frame)
{
    struct wire_notify notify;
    struct mc_error error = { 0 };
    const struct net_peer *peer = net_conn_peer(conn);

    mc_status status = wire_decode(frame->kind, frame->body, frame->body_size, &notify, &error);
    if (status == MC_OK && peer)
        status = notice_keep(engine, peer->name, peer->incarnation, notify.name.data,
                             notify.name.size, notify.message.data, notify.message.size);
    (void)net_answer_outcome(conn, frame->id, status, error.text);
}

static void add_counter(void *user, const char *name, uint64_t value)
{
    net_counters_add(user, name, value);
}

static void on_stats(mc_transfer *engine, net_conn *conn, const struct wire_frame *frame)
{
    struct wire_stats ask;
    struct mc_error error = { 0 };

    const mc_status status = wire_decode(frame->kind, frame->body, frame->body_size, &ask, &error);
    if (status != MC_OK) {
        (void)net_answer_outcome(conn, frame->id, status, error.text);
        return;
    }
    struct net_counters counters;
    net_counters_init(&counters, &ask.prefix);
    stats_walk(engine, add_counter, &counters);
    (void)net_counters_answer(&counters, conn, frame->id);
}

/* --------------------------------------------------------------------------------------- the events */

static void on_up(void *user, net_conn *conn, const struct net_peer *peer)
{
    (void)user;
    (void)conn;
    (void)peer;
}

static void on_down(void *user, net_conn *conn, mc_status status, const char *text)
{
    (void)status;
    (void)text;
    forget_revocations(user, conn);
}

static void on_message(void *user, net_conn *conn, const struct wire_frame *frame)
{
    mc_transfer *engine = user;

    engine->stirred = true;
    if (frame->id == 0) /* nothing that is not asked is for an engine */
        return;
    switch (frame->kind) {
    case WIRE_SEGMENT_ASK:
        on_segment_ask(engine, conn, frame);
        return;
    case WIRE_WINDOW_RENEW:
        on_window_renew(engine, conn, frame);
        return;
    case WIRE_WINDOW_REVOKE:
        on_window_revoke(engine, conn, frame);
        return;
    case WIRE_WINDOW_MAP_ASK:
        on_window_map_ask(engine, conn, frame);
        return;
    case WIRE_NOTIFY:
        on_notify(engine, conn, frame);
        return;
    case WIRE_STATS:
        on_stats(engine, conn, frame);
        return;
    default:
        (void)net_answer_outcome(conn, frame->id, MC_E_UNSUPPORTED, "not a question for an engine");
    }
}

const struct net_events answer_events = { on_up, on_message, on_down };
