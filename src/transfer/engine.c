/* engine.c - the life of an engine. */
#include "transfer/engine.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "os/clock.h"
#include "os/crew.h"
#include "os/random.h"
#include "os/sysalloc.h"
#include "transfer/segment.h"

#define OR(value, otherwise) ((value) ? (value) : (otherwise))

enum { SECRET_MIN = 16, SECRET_MAX = 1024, NAMED_MAX = 1 << 20 };

static mc_status check_options(const struct mc_transfer_options *o, struct mc_error *error)
{
    for (size_t i = 0; i < sizeof(o->reserved) / sizeof(o->reserved[0]); i++) {
        if (o->reserved[i])
            return error_set(error, MC_E_UNSUPPORTED, "options: a reserved field is set (%s)",
                             mc_version());
    }
    if (o->resolver)
        return error_set(error, MC_E_UNSUPPORTED,
                         "options: a resolver (%s): not in this release; names are host:port",
                         OR(o->resolver->name, "?"));
    if (o->flags & ~(uint32_t)(MC_TRANSFER_INSECURE | MC_TRANSFER_DRIVEN))
        return error_set(error, MC_E_ARG, "options: unknown flag in 0x%x", o->flags);
    if (o->name && (!*o->name || strlen(o->name) > MC_NAME_MAX))
        return error_set(error, MC_E_RANGE, "name: 1 to %d bytes", MC_NAME_MAX);
    if (o->secret ? o->secret_size < SECRET_MIN || o->secret_size > SECRET_MAX : o->secret_size > 0)
        return error_set(error, MC_E_RANGE, "secret: %d to %d bytes", SECRET_MIN, SECRET_MAX);
    if (o->sessions_max > SESSIONS_LIMIT || o->regions_max > NAMED_MAX ||
        o->windows_max > NAMED_MAX)
        return error_set(error, MC_E_RANGE, "at most %d sessions, %d regions and windows",
                         SESSIONS_LIMIT, NAMED_MAX);
    if (o->streams > 64)
        return error_set(error, MC_E_RANGE, "streams: at most 64");
    return MC_OK;
}

static char *copy_optional(const struct mc_alloc *alloc, const char *text, bool *failed)
{
    char *copy = text ? alloc_text(alloc, text, strlen(text)) : NULL;

    *failed = *failed || (text && !copy);
    return copy;
}

/* All that needs no undoing in an order of its own. */
static mc_status set_up(mc_transfer *engine, const struct mc_transfer_options *o)
{
    bool failed = false;

    engine->log = o->log;
    engine->memory_max = OR(o->memory_max, UINT64_MAX);
    engine->quiesce_ns = OR(o->quiesce_ns, UINT64_C(5000000000));
    engine->sessions_max = OR(o->sessions_max, 1024);
    engine->regions_max = OR(o->regions_max, 4096);
    engine->windows_max = OR(o->windows_max, 65536);
    engine->notices_max = OR(o->notices_max, 1024);
    engine->streams = OR(o->streams, 4);
    engine->flags = o->flags;
    engine->incarnation = os_random_u64();
    engine->spin = os_processors() > 1;
    atomic_init(&engine->alarm_ns, UINT64_MAX);
    engine->notices_end = &engine->notices;
    pthread_mutex_init(&engine->turning, NULL);
    pthread_mutex_init(&engine->table, NULL);
    pthread_mutex_init(&engine->batches_lock, NULL);
    pthread_mutex_init(&engine->notices_lock, NULL);
    engine->topology = copy_optional(engine->alloc, o->topology, &failed);
    if (o->secret) {
        engine->secret = alloc_bytes(engine->alloc, o->secret_size);
        engine->secret_size = o->secret_size;
        if (engine->secret)
            memcpy(engine->secret, o->secret, o->secret_size);
    }
    engine->segments = alloc_zeroed(engine->alloc, engine->sessions_max, sizeof(struct segment *));
    engine->salts = alloc_zeroed(engine->alloc, engine->sessions_max, sizeof(uint16_t));
    const mc_status status = registry_init(engine);
    return failed || (o->secret && !engine->secret) || !engine->segments || !engine->salts
               ? MC_E_NOMEM
               : status;
}

/* Turn the loop until peers are gone or their time is. Returns whether they are. */
static bool bury_segments(mc_transfer *engine, uint64_t until_ns)
{
    segments_close(engine);
    for (;;) {
        bool stirred = false;
        (void)engine_turn(engine, &stirred);
        pthread_mutex_lock(&engine->table);
        const bool gone = engine->segment_count == 0;
        pthread_mutex_unlock(&engine->table);
        if (gone || os_now_ns() >= until_ns)
            return gone;
        if (!stirred) {
            const int fd = os_loop_fd(engine->loop);
            os_wait_readable(&fd, 1, os_now_ns() + PAUSE_NS);
            engine_tick(engine);
        }
    }
}

static void free_all(mc_transfer *engine)
{
    const struct mc_alloc *alloc = engine->alloc;

    notices_close(engine);
    memory_close(engine);
    alloc_free(alloc, engine->segments);
    alloc_free(alloc, engine->salts);
    alloc_free(alloc, engine->topology);
    if (engine->secret)
        memset(engine->secret, 0, engine->secret_size);
    alloc_free(alloc, engine->secret);
    alloc_free(alloc, engine->name);
    alloc_free(alloc, engine->address);
    registry_free(engine);
    pthread_mutex_destroy(&engine->turning);
    pthread_mutex_destroy(&engine->table);
    pthread_mutex_destroy(&engine->batches_lock);
    pthread_mutex_destroy(&engine->notices_lock);
    alloc_free(alloc, engine);
}

void mc_transfer_close(mc_transfer *engine)
{
    if (!engine)
        return;
    assert(!engine->batches && "batches are closed before their engine");
    loop_stop(engine);
    const uint64_t until_ns = os_now_ns() + engine->quiesce_ns;
    if (engine->loop && !bury_segments(engine, until_ns))
        engine_log(engine, MC_LOG_ERROR, "event=peers_abandoned");
    registry_fini(engine, until_ns);
    loop_close(engine);
    carriers_close(engine);
    free_all(engine);
}

mc_status mc_transfer_open(const struct mc_transfer_options *options, mc_transfer **transfer_p,
                           struct mc_error *error)
{
    const struct mc_transfer_options o = options ? *options : (struct mc_transfer_options){ 0 };
    const struct mc_alloc *alloc = OR(o.alloc, os_alloc());

    mc_status status = check_options(&o, error);
    if (status != MC_OK)
        return status;
    mc_transfer *engine = alloc_zeroed(alloc, 1, sizeof(*engine));
    if (!engine)
        return error_set(error, MC_E_NOMEM, "out of memory for an engine");
    engine->alloc = alloc;
    status = set_up(engine, &o);
    if (status != MC_OK)
        error_set(error, status, "out of memory for an engine");
    if (status == MC_OK)
        status = loop_open(engine, &o, error);
    if (status == MC_OK)
        status = carriers_open(engine, &o, error);
    if (status == MC_OK)
        status = loop_start(engine, error);
    if (status != MC_OK) {
        mc_transfer_close(engine);
        return status;
    }
    engine_log(engine, MC_LOG_INFO, "event=engine_open name=%s address=%s incarnation=%016llx",
               engine->name, engine->address, (unsigned long long)engine->incarnation);
    *transfer_p = engine;
    return MC_OK;
}

mc_status mc_transfer_info(const mc_transfer *engine, struct mc_transfer_info *info_p)
{
    *info_p = (struct mc_transfer_info){
        .name = engine->name,
        .address = engine->address,
        .incarnation = engine->incarnation,
        .transports = engine->carrier_count,
    };
    return MC_OK;
}
