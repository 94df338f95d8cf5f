/* loop.c - the engine's loop: the control port, what transports serve, alarms, and segments that nobody
 * drives. */
#include "transfer/engine.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "net/net.h"
#include "os/clock.h"
#include "transfer/segment.h"

#define TICK_NS UINT64_C(1000000)
#define SILENCE_NS UINT64_C(5000000000)

enum { IDLE_TICKS = 20 }; /* ticks without entries before the ticker stops */

/* ------------------------------------------------------------------------------------------- alarms */

/* Any thread lowers alarm_ns; the loop sets its timer by it, and raises it when it has looked. */
static void set_alarm(mc_transfer *engine)
{
    const uint64_t at_ns = atomic_load(&engine->alarm_ns);

    if (at_ns != UINT64_MAX)
        (void)os_loop_timer(engine->loop, &engine->alarm, at_ns); /* else the next kick does it */
}

static void look_around(mc_transfer *engine, uint64_t now_ns)
{
    atomic_store(&engine->alarm_ns, UINT64_MAX); /* first: what comes meanwhile lowers it again */
    const uint64_t batch_ns = batches_expire(engine, now_ns);
    const uint64_t window_ns = windows_expire(engine, now_ns);
    const uint64_t revocation_ns = answer_revocations(engine, now_ns);
    uint64_t next_ns = batch_ns < window_ns ? batch_ns : window_ns;

    next_ns = revocation_ns < next_ns ? revocation_ns : next_ns;
    uint64_t now_set = atomic_load(&engine->alarm_ns);
    while (next_ns < now_set && !atomic_compare_exchange_weak(&engine->alarm_ns, &now_set, next_ns))
        ;
    set_alarm(engine);
}

static void on_alarm(void *user, uint64_t now_ns)
{
    look_around(user, now_ns);
}

static void on_kick(void *user)
{
    mc_transfer *engine = user;

    atomic_store(&engine->kicked, false);
    engine->stirred = true;
    look_around(engine, os_now_ns());
    if (atomic_load(&engine->ticking) && engine->ticker.place == 0)
        (void)os_loop_timer(engine->loop, &engine->ticker, os_now_ns() + TICK_NS);
}

void engine_kick(mc_transfer *engine)
{
    if (!atomic_exchange(&engine->kicked, true))
        os_loop_post(engine->loop, &engine->kick);
}

void engine_alarm(mc_transfer *engine, uint64_t at_ns)
{
    uint64_t set_ns = atomic_load(&engine->alarm_ns);

    while (at_ns < set_ns) {
        if (atomic_compare_exchange_weak(&engine->alarm_ns, &set_ns, at_ns)) {
            engine_kick(engine);
            return;
        }
    }
}

/* ------------------------------------------------------------------------------------------- segments */

static void unwatch_paths(struct segment *segment)
{
    for (uint32_t i = 0; i < segment->engine->carrier_count; i++) {
        struct path *path = segment->paths[i];
        if (path && path->watched) {
            os_loop_unwatch(segment->engine->loop, &path->watch);
            path->watched = false;
        }
    }
}

static void on_path_ready(void *user, uint32_t events)
{
    struct path *path = user;

    struct segment *segment = path->segment;

    (void)events;
    segment->engine->stirred = true;
    if (atomic_load_explicit(&segment->driven, memory_order_relaxed) == segment->driven_served) {
        segment_serve(segment);
        return;
    }
    /* Somebody else drives it meanwhile: get out of the way. The ticker sees when he stops. */
    if (pthread_mutex_trylock(&segment->lock) != 0)
        return;
    unwatch_paths(segment);
    segment_unlock(segment);
}

/* Watch the queues in which something flies. Under the segment's lock. */
static void watch_paths(struct segment *segment)
{
    for (uint32_t i = 0; i < segment->engine->carrier_count; i++) {
        struct path *path = segment->paths[i];
        int fd = -1;
        if (!path || !path->carrier->ops->arm)
            continue;
        const bool wanted = path->flying > 0 && !segment->watcher;
        if (!wanted && path->watched) {
            os_loop_unwatch(segment->engine->loop, &path->watch);
            path->watched = false;
        }
        if (!wanted)
            continue;
        if (path->carrier->ops->arm(path->queue, &fd) != MC_OK) /* news: the next tick */
            continue;
        if (path->watched && path->watch.fd == fd)
            continue;
        if (path->watched)
            os_loop_unwatch(segment->engine->loop, &path->watch);
        path->watch = (struct os_watch){ .fd = fd, .ready = on_path_ready, .user = path };
        path->watched = os_loop_watch(segment->engine->loop, &path->watch, OS_READABLE) == MC_OK;
    }
}

void segment_serve(struct segment *segment)
{
    if (pthread_mutex_trylock(&segment->lock) != 0)
        return;
    for (uint32_t i = 0; i < 16 && segment_step(segment); i++)
        ;
    watch_paths(segment);
    segment->driven_served = atomic_load_explicit(&segment->driven, memory_order_relaxed);
    segment_unlock(segment);
}

static void tick_segment(struct segment *segment)
{
    const uint32_t driven = atomic_load_explicit(&segment->driven, memory_order_relaxed);

    /* Somebody drives it, so leave it alone; a sleeping watcher is woken by its descriptors. */
    if (atomic_load(&segment->busy) > 0 && driven == segment->driven_seen)
        segment_serve(segment);
    segment->driven_seen = atomic_load_explicit(&segment->driven, memory_order_relaxed);
}

static bool tick_all(mc_transfer *engine)
{
    bool again = false;

    for (uint32_t i = 0; i < engine->sessions_max; i++) {
        pthread_mutex_lock(&engine->table);
        struct segment *segment = engine->segments[i];
        const bool dead = segment && segment->refs == 0;
        if (segment && !dead)
            segment->refs++;
        if (dead)
            segment_call(segment); /* it was not quiet when it was to be freed */
        pthread_mutex_unlock(&engine->table);
        again = again || dead;
        if (!segment || dead)
            continue;
        tick_segment(segment);
        segment_unref(segment);
    }
    return again;
}

static void on_tick(void *user, uint64_t now_ns)
{
    mc_transfer *engine = user;
    const bool again = tick_all(engine);

    if (again || atomic_load(&engine->busy) > 0)
        engine->idle_ticks = 0;
    else if (++engine->idle_ticks > IDLE_TICKS) {
        atomic_store(&engine->ticking, false);
        if (atomic_load(&engine->busy) == 0) /* else somebody came who saw it ticking */
            return;
        atomic_store(&engine->ticking, true);
        engine->idle_ticks = 0;
    }
    (void)os_loop_timer(engine->loop, &engine->ticker, now_ns + TICK_NS);
}

void engine_tick(mc_transfer *engine)
{
    if (!atomic_load_explicit(&engine->ticking, memory_order_relaxed) &&
        !atomic_exchange(&engine->ticking, true))
        engine_kick(engine);
}

/* ------------------------------------------------------------------------------------------- serving */

void carrier_serve(struct carrier *carrier)
{
    mc_transfer *engine = carrier->engine;
    uint64_t next_ns = 0;

    if (!carrier->ops->serve || pthread_mutex_trylock(&carrier->serving) != 0)
        return;
    carrier->ops->serve(carrier->state, os_now_ns(), &next_ns);
    pthread_mutex_unlock(&carrier->serving);
    engine->stirred = true;
    if (next_ns != 0 && next_ns != UINT64_MAX)
        (void)os_loop_timer(engine->loop, &carrier->timer, next_ns);
}

static void on_serve_ready(void *user, uint32_t events)
{
    (void)events;
    carrier_serve(user);
}

static void on_serve_due(void *user, uint64_t now_ns)
{
    (void)now_ns;
    carrier_serve(user);
}

static mc_status watch_carrier(struct carrier *carrier, struct mc_error *error)
{
    int fd = -1;

    if (!carrier->ops->serve)
        return MC_OK;
    carrier->timer = (struct os_timer){ .due = on_serve_due, .user = carrier };
    if (!carrier->ops->serve_fd)
        return MC_OK;
    mc_status status = carrier->ops->serve_fd(carrier->state, &fd);
    if (status == MC_OK) {
        carrier->watch = (struct os_watch){ .fd = fd, .ready = on_serve_ready, .user = carrier };
        status = os_loop_watch(carrier->engine->loop, &carrier->watch, OS_READABLE);
    }
    if (status != MC_OK)
        return error_set(error, status, "%s: what it serves cannot be watched", carrier->name);
    carrier_serve(carrier); /* says when it wants to be called next */
    return MC_OK;
}

/* ------------------------------------------------------------------------------------------- turning */

/* After something happened more is likely, and cheaper to wait for awake. */
static void turn_for_long(mc_transfer *engine)
{
    const uint64_t spin_ns = engine->spin ? SPIN_NS : 0;
    uint64_t idle_since_ns = os_now_ns();

    for (;;) {
        engine->stirred = false;
        (void)os_loop_turn(engine->loop, 0);
        const uint64_t now_ns = os_now_ns();
        if (engine->stirred)
            idle_since_ns = now_ns;
        else if (now_ns - idle_since_ns >= spin_ns)
            break;
    }
    if (!atomic_load(&engine->stopping)) /* its kick may have been taken while spinning */
        (void)os_loop_turn(engine->loop, UINT64_MAX);
}

static void thread_main(void *argument)
{
    mc_transfer *engine = argument;

    pthread_mutex_lock(&engine->turning);
    while (!atomic_load(&engine->stopping))
        turn_for_long(engine);
    pthread_mutex_unlock(&engine->turning);
}

bool engine_turn(mc_transfer *engine, bool *stirred_p)
{
    if (pthread_mutex_trylock(&engine->turning) != 0)
        return false;
    engine->stirred = false;
    (void)os_loop_turn(engine->loop, 0);
    *stirred_p = *stirred_p || engine->stirred;
    pthread_mutex_unlock(&engine->turning);
    return true;
}

void engine_pause(mc_transfer *engine, _Atomic uint32_t *word, uint32_t seen, uint64_t until_ns)
{
    const uint64_t nap_ns = os_now_ns() + TICK_NS;
    const uint64_t wake_ns = nap_ns < until_ns ? nap_ns : until_ns;

    if (engine->threaded) {
        os_wait_change(word, seen, wake_ns);
        return;
    }
    bool stirred = false;
    if (!engine_turn(engine, &stirred)) {
        os_wait_change(word, seen, os_now_ns() + PAUSE_NS);
        return;
    }
    for (uint32_t i = 0; i < engine->sessions_max && atomic_load(&engine->busy) > 0; i++) {
        struct segment *segment = segment_at(engine, i);
        if (!segment)
            continue;
        if (atomic_load(&segment->busy) > 0)
            (void)segment_drive(segment);
        segment_unref(segment);
    }
    if (!stirred && atomic_load(word) == seen) {
        const int fd = os_loop_fd(engine->loop);
        os_wait_readable(&fd, 1, wake_ns);
    }
}

mc_status mc_transfer_fd(mc_transfer *engine, int *fd_p)
{
    if (engine->threaded)
        return MC_E_ARG;
    *fd_p = os_loop_fd(engine->loop);
    return MC_OK;
}

/* Whoever drives from outside sleeps on our descriptor: have all that flies wake it. */
static void serve_segments(mc_transfer *engine)
{
    for (uint32_t i = 0; i < engine->sessions_max; i++) {
        struct segment *segment = segment_at(engine, i);
        if (!segment)
            continue;
        if (atomic_load(&segment->busy) > 0)
            segment_serve(segment);
        segment_unref(segment);
    }
}

mc_status mc_transfer_progress(mc_transfer *engine, uint64_t *next_ns_p)
{
    uint64_t next_ns = 0;

    if (pthread_mutex_trylock(&engine->turning) == 0) {
        (void)os_loop_turn(engine->loop, 0);
        if (atomic_load(&engine->busy) > 0)
            serve_segments(engine);
        next_ns = os_loop_next_ns(engine->loop);
        next_ns = next_ns == UINT64_MAX ? 0 : next_ns;
        pthread_mutex_unlock(&engine->turning);
    }
    if (next_ns_p)
        *next_ns_p = next_ns;
    return MC_OK;
}

/* ------------------------------------------------------------------------------------------- opening */

/* A name is what peers open; without one given it is the address, which is known once it is listened on. */
static mc_status take_name(mc_transfer *engine, const char *name, struct mc_error *error)
{
    const char *chosen = name ? name : engine->address;

    engine->name = alloc_text(engine->alloc, chosen, strlen(chosen));
    if (!engine->name)
        return error_set(error, MC_E_NOMEM, "out of memory for an engine");
    return net_name_set(engine->net, engine->name, engine->name);
}

mc_status loop_open(mc_transfer *engine, const struct mc_transfer_options *o,
                    struct mc_error *error)
{
    const char *listen = o->listen ? o->listen : "127.0.0.1:0";
    char address[80];

    mc_status status = os_loop_open(engine->alloc, &engine->loop, error);
    if (status != MC_OK)
        return status;
    const struct net_options options = {
        .alloc = engine->alloc,
        .loop = engine->loop,
        .role = NET_ENGINE,
        .name = o->name ? o->name : listen,
        .incarnation = engine->incarnation,
        .secret = engine->secret,
        .secret_size = engine->secret_size,
        .silence_ns = SILENCE_NS,
        .connections_max = engine->sessions_max,
    };
    engine->alarm = (struct os_timer){ .due = on_alarm, .user = engine };
    engine->ticker = (struct os_timer){ .due = on_tick, .user = engine };
    engine->kick = (struct os_post){ .run = on_kick, .user = engine };
    status = net_open(&options, &engine->net, error);
    if (status == MC_OK)
        status = net_listen(engine->net, listen, (engine->flags & MC_TRANSFER_INSECURE) != 0,
                            &answer_events, engine, address, sizeof(address), error);
    if (status != MC_OK)
        return status;
    engine->address = alloc_text(engine->alloc, address, strlen(address));
    if (!engine->address)
        return error_set(error, MC_E_NOMEM, "out of memory for an engine");
    return take_name(engine, o->name, error);
}

mc_status loop_start(mc_transfer *engine, struct mc_error *error)
{
    for (uint32_t i = 0; i < engine->carrier_count; i++) {
        const mc_status status = watch_carrier(&engine->carriers[i], error);
        if (status != MC_OK)
            return status;
    }
    if (engine->flags & MC_TRANSFER_DRIVEN)
        return MC_OK;
    const mc_status status = os_thread_start(&engine->thread, thread_main, engine, error);
    engine->threaded = status == MC_OK;
    return status;
}

void loop_stop(mc_transfer *engine)
{
    if (!engine->threaded)
        return;
    atomic_store(&engine->stopping, true);
    engine_kick(engine);
    os_thread_join(&engine->thread);
    engine->threaded = false; /* its caller turns the loop from now on */
}

void loop_close(mc_transfer *engine)
{
    if (!engine->loop)
        return;
    for (uint32_t i = 0; i < engine->carrier_count; i++) {
        os_loop_unwatch(engine->loop, &engine->carriers[i].watch);
        os_loop_timer_stop(engine->loop, &engine->carriers[i].timer);
    }
    answer_close(engine);
    net_close(engine->net);
    os_loop_close(engine->loop);
    engine->net = NULL;
    engine->loop = NULL;
}

/* ------------------------------------------------------------------------------------------- logs */

void engine_log(const mc_transfer *engine, enum mc_log_level level, const char *format, ...)
{
    char line[512];
    va_list args;

    if (!engine->log.write || level > engine->log.level_max)
        return;
    va_start(args, format);
    const int size = vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    if (size > 0)
        engine->log.write(engine->log.context, level, line,
                          (size_t)size < sizeof(line) ? (size_t)size : sizeof(line) - 1);
}
