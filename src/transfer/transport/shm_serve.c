/* shm_serve.c - peers that come to the local socket: who they are, what they may map, when they died. */
#define _GNU_SOURCE
#include "transfer/transport/shm.h"

#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"
#include "os/random.h"

enum {
    EVENTS = 64,
    ROUNDS = 4,   /* of events in one call: other work waits */
    PACKETS = 16, /* of one peer in one round */
};
static const uint64_t SILENT_NS =
    UINT64_C(5000000000);                  /* until one proves itself, or is sent away */
static const uint64_t REST_NS = 100000000; /* without a descriptor for who wants to connect */

/* What an epoll event is about: the listener, a session's socket, or its process's end. */
#define TAG_LISTENER UINT64_C(0xffffffff)
#define TAG_PROCESS (UINT64_C(1) << 32)

static void say(const struct shm *shm, enum mc_log_level level, const char *line)
{
    if (shm->log.write && shm->log.level_max >= level)
        shm->log.write(shm->log.context, level, line, strlen(line));
}

/* MC_OK or MC_E_IO. */
static mc_status watch(const struct shm *shm, int fd, uint64_t tag)
{
    struct epoll_event event = { .events = EPOLLIN | EPOLLRDHUP, .data.u64 = tag };

    return epoll_ctl(shm->epoll, EPOLL_CTL_ADD, fd, &event) == 0 ? MC_OK : MC_E_IO;
}

mc_status shm_serve_open(struct shm *shm, uint32_t sessions_max, struct mc_error *error)
{
    shm->sessions = alloc_zeroed(shm->alloc, sessions_max, sizeof(*shm->sessions));
    if (!shm->sessions)
        return error_set(error, MC_E_NOMEM, "shm: no memory for %u sessions", sessions_max);
    shm->sessions_max = sessions_max;

    os_random(&shm->address, sizeof(shm->address));
    const mc_status status = shm_socket_listen(shm->address.name, &shm->listener, error);
    if (status != MC_OK)
        return status;
    shm->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (shm->epoll < 0 || watch(shm, shm->listener, TAG_LISTENER) != MC_OK)
        return error_set(error, MC_E_FULL, "shm: no descriptor for epoll");
    return MC_OK;
}

/* ---------------------------------------------------------------------------- a session's end */

/* Told to epoll too: a child of a fork may hold the socket open, which then would be reported for ever. */
static void socket_end(struct shm *shm, struct shm_session *session)
{
    if (session->fd >= 0)
        epoll_ctl(shm->epoll, EPOLL_CTL_DEL, session->fd, NULL);
    shm_close(&session->fd);
}

static void session_free(struct shm *shm, struct shm_session *session)
{
    socket_end(shm, session);
    if (session->process.pidfd >= 0)
        epoll_ctl(shm->epoll, EPOLL_CTL_DEL, session->process.pidfd, NULL);
    shm_close(&session->process.pidfd);
    if (session->pins)
        munmap(session->pins, sizeof(*session->pins));
    *session = (struct shm_session){ .fd = -1, .process.pidfd = -1 };
    shm->sessions_used--;
}

/* The peer hung up. A pin that it left behind counts until its process is dead. */
static void session_end(struct shm *shm, struct shm_session *session)
{
    socket_end(shm, session);
    const bool pinning = session->pins && atomic_load(&session->pins->pin) != 0;
    if (!pinning || shm_process_dead(&session->process, true))
        session_free(shm, session);
    else /* if it cannot be watched, tidy() finds it some time */
        watch(shm, session->process.pidfd, TAG_PROCESS | (uint64_t)(session - shm->sessions));
}

void shm_serve_close(struct shm *shm)
{
    for (uint32_t i = 0; i < shm->sessions_max; i++)
        if (shm->sessions[i].used)
            session_free(shm, &shm->sessions[i]);
    shm_close(&shm->listener);
    shm_close(&shm->epoll);
    alloc_free(shm->alloc, shm->sessions);
    shm->sessions = NULL;
    shm->sessions_max = 0;
}

/* ------------------------------------------------------------------------------- what is asked */

static mc_status refuse(const struct shm_session *session, uint64_t greeting, uint64_t id,
                        mc_status reason, const char *text)
{
    struct shm_packet answer = { .greeting = greeting, .kind = WIRE_OUTCOME, .id = id };

    answer.body.outcome = (struct wire_outcome){ .status = reason, .text = wire_text(text) };
    return shm_socket_send(session->fd, &answer, NULL);
}

static mc_status pins_open(struct shm_session *session, int *fd_p, struct mc_error *error)
{
    void *pins;
    const mc_status status = shm_memory_open(sizeof(struct shm_pins), 0, fd_p, &pins, error);

    if (status == MC_OK)
        session->pins = pins;
    return status;
}

/* First ask: prove that we are one machine, and give the two pages. */
static mc_status answer_proof(struct shm *shm, struct shm_session *session,
                              const struct shm_packet *ask)
{
    struct mc_error error = { 0 };
    int pins_fd = -1;

    if (memcmp(&ask->body.ask.nonce, &shm->address.ask, sizeof(shm->address.ask)) != 0 ||
        ask->body.ask.incarnation != ask->greeting) {
        say(shm, MC_LOG_WARN, "event=shm_refused reason=nonce");
        refuse(session, shm->incarnation, ask->id, MC_E_DENIED, "this is another engine's socket");
        return MC_E_DENIED;
    }
    mc_status status = pins_open(session, &pins_fd, &error);
    if (status != MC_OK) {
        refuse(session, shm->incarnation, ask->id, status, error.text);
        return status;
    }
    session->incarnation = ask->greeting;

    const struct wire_mapping mappings[2] = { { .generation = 1, .size = sizeof(*shm->page) },
                                              { .generation = 1,
                                                .size = sizeof(struct shm_pins) } };
    struct shm_packet answer = { .greeting = shm->incarnation,
                                 .kind = WIRE_SAME_HOST_PROOF,
                                 .id = ask->id,
                                 .fds = { shm->page_fd, pins_fd },
                                 .fd_count = 2 };
    answer.body.proof = (struct wire_same_host_proof){
        .nonce = shm->address.answer,
        .incarnation = shm->incarnation,
        .process = (uint32_t)getpid(),
        .mappings = { .items = mappings, .count = 2 },
        .attach = shm->attach ? (uint64_t)(uintptr_t)&shm->address.answer : 0,
    };
    status = shm_socket_send(session->fd, &answer, &error);
    close(pins_fd);
    return status;
}

static const struct shm_region *wanted_region(const struct shm *shm,
                                              const struct wire_mapping_ask *wanted)
{
    const struct shm_region *r =
        wanted->region < shm->regions_max ? shm->regions[wanted->region] : NULL;

    return r && r->open && r->generation == wanted->generation && r->ticket == wanted->ticket
               ? r
               : NULL;
}

/* Later asks: a region's descriptor. */
static mc_status answer_mapping(struct shm *shm, struct shm_session *session,
                                const struct shm_packet *ask)
{
    struct wire_list list = ask->body.ask.wanted;
    struct wire_mapping_ask wanted;

    if (!wire_mapping_ask_next(&list, &wanted))
        return refuse(session, 0, ask->id, MC_E_ARG, "no region was named");
    const struct shm_region *r = wanted_region(shm, &wanted);
    if (!r)
        return refuse(session, 0, ask->id, MC_E_STALE, "no such region, or not for this ticket");
    if (r->fd < 0)
        return refuse(session, 0, ask->id, MC_E_UNSUPPORTED, "its memory cannot be mapped");

    const struct wire_mapping mapping = {
        .region = r->slot, .generation = r->generation, .size = r->size, .offset = r->fd_offset
    };
    struct shm_packet answer = {
        .kind = WIRE_SAME_HOST_PROOF, .id = ask->id, .fds = { r->fd }, .fd_count = 1
    };
    answer.body.proof =
        (struct wire_same_host_proof){ .nonce = shm->address.answer,
                                       .incarnation = shm->incarnation,
                                       .process = (uint32_t)getpid(),
                                       .mappings = { .items = &mapping, .count = 1 } };
    return shm_socket_send(session->fd, &answer, NULL);
}

static mc_status session_step(struct shm *shm, struct shm_session *session)
{
    struct shm_packet ask;
    const mc_status status = shm_socket_receive(session->fd, !session->pins, 0, &ask, NULL);

    if (status != MC_OK)
        return status;
    if (ask.kind != WIRE_SAME_HOST)
        return MC_E_FORMAT;
    return session->pins ? answer_mapping(shm, session, &ask) : answer_proof(shm, session, &ask);
}

/* ------------------------------------------------------------------------------------- events */

static struct shm_session *session_free_entry(struct shm *shm)
{
    for (uint32_t i = 0; i < shm->sessions_max; i++)
        if (!shm->sessions[i].used)
            return &shm->sessions[i];
    return NULL;
}

/* No descriptor is left for one who waits: the listener would be readable for ever, so do not look at it
 * for a while. */
static void listener_rest(struct shm *shm, uint64_t now_ns)
{
    epoll_ctl(shm->epoll, EPOLL_CTL_DEL, shm->listener, NULL);
    shm->rest_until_ns = now_ns + REST_NS;
}

/* Returns whether another one may wait. */
static bool accept_one(struct shm *shm, uint64_t now_ns)
{
    int fd;
    const mc_status status = shm_socket_accept(shm->listener, &fd);

    if (status == MC_E_FULL)
        listener_rest(shm, now_ns);
    if (status != MC_OK)
        return false;
    struct shm_session *session = session_free_entry(shm);
    if (!session) {
        const struct shm_session full = { .fd = fd };
        refuse(&full, shm->incarnation, 0, MC_E_FULL, "it has as many sessions as it may");
        close(fd);
        return true;
    }
    *session = (struct shm_session){ .fd = fd, .since_ns = now_ns, .used = true };
    shm->sessions_used++;
    session->process = shm_socket_process(fd);
    if (watch(shm, fd, (uint64_t)(session - shm->sessions)) != MC_OK)
        session_free(shm, session);
    return true;
}

static void handle(struct shm *shm, uint64_t tag, uint64_t now_ns)
{
    if (tag == TAG_LISTENER) {
        for (int i = 0; i < PACKETS && accept_one(shm, now_ns); i++)
            continue;
        return;
    }
    struct shm_session *session = &shm->sessions[(uint32_t)tag];
    if (!session->used)
        return; /* ended by an earlier event of this round */
    if (tag & TAG_PROCESS) {
        session_free(shm, session);
        return;
    }
    mc_status status = MC_OK;
    for (int i = 0; i < PACKETS && status == MC_OK && session->fd >= 0; i++)
        status = session_step(shm, session);
    if (status != MC_OK && status != MC_PENDING)
        session_end(shm, session);
}

static void earlier(uint64_t *next_ns, uint64_t at_ns)
{
    if (*next_ns == 0 || at_ns < *next_ns)
        *next_ns = at_ns;
}

/* Send away who says nothing, forget who died; the time to look again, or 0. */
static uint64_t tidy(struct shm *shm, uint64_t now_ns)
{
    uint64_t next_ns = 0;

    if (shm->rest_until_ns != 0) {
        if (now_ns >= shm->rest_until_ns && watch(shm, shm->listener, TAG_LISTENER) == MC_OK)
            shm->rest_until_ns = 0;
        else
            earlier(&next_ns, now_ns + REST_NS);
    }
    for (uint32_t i = 0; i < shm->sessions_max && shm->sessions_used > 0; i++) {
        struct shm_session *s = &shm->sessions[i];
        if (!s->used || (s->pins && s->fd >= 0))
            continue;
        if (s->pins ? shm_process_dead(&s->process, true) : now_ns >= s->since_ns + SILENT_NS)
            session_free(shm, s);
        else if (!s->pins)
            earlier(&next_ns, s->since_ns + SILENT_NS);
    }
    return next_ns;
}

void shm_serve(void *transport, uint64_t now_ns, uint64_t *next_ns_p)
{
    struct shm *shm = transport;
    struct epoll_event events[EVENTS];
    int count = EVENTS;

    pthread_mutex_lock(&shm->lock);
    for (int round = 0; round < ROUNDS && count == EVENTS; round++) {
        count = epoll_wait(shm->epoll, events, EVENTS, 0);
        for (int i = 0; i < count; i++)
            handle(shm, events[i].data.u64, now_ns);
    }
    const uint64_t next_ns = tidy(shm, now_ns);
    pthread_mutex_unlock(&shm->lock);
    if (next_ns_p)
        *next_ns_p = next_ns;
}

mc_status shm_serve_fd(void *transport, int *fd_p)
{
    const struct shm *shm = transport;

    *fd_p = shm->epoll;
    return MC_OK;
}
