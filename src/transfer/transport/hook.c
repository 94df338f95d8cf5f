/* hook.c - the hook's table: settings, and what goes on to the inner transport as it is. */
#define _GNU_SOURCE
#include "transfer/transport/hook.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"

#define HOOK_ROW(...) SETTING_ROW(hook_options, __VA_ARGS__)
static const struct setting rows[] = { HOOK_SETTINGS(HOOK_ROW) };

enum { ALIGNMENT = 64 };

/* ------------------------------------------------------------------------------------------ memory */

bool hook_memory_take(struct hook_memory *memory, const struct mc_alloc *alloc, size_t size)
{
    memory->raw = alloc_zeroed(alloc, 1, size + ALIGNMENT);
    memory->p = NULL;
    if (!memory->raw)
        return false;
    memory->p =
        (void *)(((uintptr_t)memory->raw + ALIGNMENT - 1) / ALIGNMENT * (uintptr_t)ALIGNMENT);
    return true;
}

void hook_memory_free(struct hook_memory *memory, const struct mc_alloc *alloc)
{
    if (memory->raw)
        alloc_free(alloc, memory->raw);
    *memory = (struct hook_memory){ 0 };
}

/* ---------------------------------------------------------------------------------------- settings */

/** Split "a=1,tcp.b=2" into lines for us ("a=1") and a list for the inner transport ("b=2"). Each
 * item ends in its separator, so both texts have room for one byte more than all. */
static void split(const char *settings, const char *name, char *ours, char *inner)
{
    const size_t name_size = strlen(name);

    while (*settings) {
        const size_t size = strcspn(settings, ",");
        const bool for_inner = size > name_size && settings[name_size] == '.' &&
                               strncmp(settings, name, name_size) == 0;
        const size_t skip = for_inner ? name_size + 1 : 0;
        char **to = for_inner ? &inner : &ours;

        memcpy(*to, settings + skip, size - skip);
        *to += size - skip;
        *(*to)++ = for_inner ? ',' : '\n';
        settings += size + (settings[size] == ',');
    }
    *ours = *inner = '\0';
}

static mc_status read_settings(struct hook *hook, struct mc_error *error)
{
    const struct mc_alloc *alloc = hook->env->alloc;
    const char *text = hook->env->settings ? hook->env->settings : "";
    const size_t size = strlen(text) + 2;

    hook->text = alloc_zeroed(alloc, 1, size);
    hook->inner_text = alloc_zeroed(alloc, 1, size);
    if (!hook->text || !hook->inner_text)
        return error_set(error, MC_E_NOMEM, "hook: out of memory");
    split(text, hook->inner->name, hook->text, hook->inner_text);
    const size_t inner_size = strlen(hook->inner_text);
    if (inner_size != 0)
        hook->inner_text[inner_size - 1] = '\0'; /* the last comma */
    mc_status status = settings_init(&hook->settings, rows, sizeof(rows) / sizeof(rows[0]),
                                     &hook->options, alloc, error);
    if (status == MC_OK)
        status = settings_config(&hook->settings, hook->text, strlen(hook->text), "hook", error);
    return status;
}

/* ------------------------------------------------------------------------------------ open, close */

static mc_status probe(const struct transport_env *env, struct transport_caps *caps_p)
{
    char found[sizeof(caps_p->found)];

    if (!env->inner) {
        *caps_p = (struct transport_caps){ .found = "needs a transport to wrap: hook:tcp" };
        return MC_E_UNSUPPORTED;
    }
    const mc_status status = env->inner->probe(env, caps_p);
    (void)snprintf(found, sizeof(found), "%s: %.100s", env->inner->name, caps_p->found);
    memcpy(caps_p->found, found, sizeof(found));
    return status;
}

static mc_status open_transport(void *transport, const struct transport_env *env,
                                struct mc_error *error)
{
    struct hook *hook = transport;

    hook->env = env;
    hook->inner = env->inner;
    hook->fd = -1;
    if (!hook->inner)
        return error_set(error, MC_E_ARG, "hook: it needs a transport to wrap: hook:tcp");
    const mc_status status = read_settings(hook, error);
    if (status != MC_OK)
        return status;
    if (!hook_memory_take(&hook->transport, env->alloc, hook->inner->transport_bytes))
        return error_set(error, MC_E_NOMEM, "hook: out of memory");
    if (!hook->inner->serve_fd && (hook->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0)
        return error_set(error, MC_E_IO, "hook: no descriptor left");
    hook->inner_env = *env;
    hook->inner_env.inner = NULL;
    hook->inner_env.settings = hook->inner_text[0] ? hook->inner_text : NULL;
    hook->opened = true; /* close accepts one that failed half-way */
    return hook->inner->open(hook->transport.p, &hook->inner_env, error);
}

static void log_counts(const struct hook *hook)
{
    const struct mc_log *log = &hook->env->log;
    const struct hook_counts c = hook_counts(hook);
    char line[256];

    if (!log->write || log->level_max < MC_LOG_INFO)
        return;
    const int size =
        snprintf(line, sizeof(line),
                 "event=hook_closed transport=%s slices=%llu failed=%llu corrupted=%llu "
                 "dropped=%llu ended=%llu",
                 hook->inner->name, (unsigned long long)c.slices, (unsigned long long)c.failed,
                 (unsigned long long)c.corrupted, (unsigned long long)c.dropped,
                 (unsigned long long)c.ended);
    log->write(log->context, MC_LOG_INFO, line, (size_t)size);
}

static void close_transport(void *transport)
{
    struct hook *hook = transport;

    if (!hook->env)
        return;
    if (hook->opened) {
        hook->inner->close(hook->transport.p);
        log_counts(hook);
    }
    hook->opened = false;
    if (hook->fd >= 0)
        close(hook->fd);
    hook->fd = -1;
    hook_memory_free(&hook->transport, hook->env->alloc);
    settings_fini(&hook->settings);
    alloc_free(hook->env->alloc, hook->text);
    alloc_free(hook->env->alloc, hook->inner_text);
    hook->text = hook->inner_text = NULL;
}

struct hook_counts hook_counts(const void *transport)
{
    const struct hook *hook = transport;

    return (struct hook_counts){
        .slices = atomic_load_explicit(&hook->slices, memory_order_relaxed),
        .failed = atomic_load_explicit(&hook->failed, memory_order_relaxed),
        .corrupted = atomic_load_explicit(&hook->corrupted, memory_order_relaxed),
        .dropped = atomic_load_explicit(&hook->dropped, memory_order_relaxed),
        .ended = atomic_load_explicit(&hook->ended, memory_order_relaxed),
    };
}

static mc_status describe(void *transport, uint8_t address[TRANSPORT_KEY_MAX], size_t *size_p)
{
    const struct hook *hook = transport;

    return hook->inner->describe(hook->transport.p, address, size_p);
}

static void serve(void *transport, uint64_t now_ns, uint64_t *next_ns_p)
{
    const struct hook *hook = transport;

    *next_ns_p = 0;
    if (hook->inner->serve)
        hook->inner->serve(hook->transport.p, now_ns, next_ns_p);
}

static mc_status serve_fd(void *transport, int *fd_p)
{
    const struct hook *hook = transport;

    if (hook->inner->serve_fd)
        return hook->inner->serve_fd(hook->transport.p, fd_p);
    *fd_p = hook->fd;
    return MC_OK;
}

/* -------------------------------------------------------------------------------- regions, windows */

/** Private bytes of a region. */
struct hook_region {
    struct hook_memory inner; /* none where the inner transport keeps nothing */
};

static mc_status region_open(void *transport, const struct transport_region *range, void *region,
                             uint8_t key[TRANSPORT_KEY_MAX], size_t *key_size_p,
                             struct mc_error *error)
{
    const struct hook *hook = transport;
    struct hook_region *mine = region;

    *mine = (struct hook_region){ 0 };
    if (!hook->inner->region_open) {
        *key_size_p = 0;
        return MC_OK;
    }
    if (!hook_memory_take(&mine->inner, hook->env->alloc, hook->inner->region_bytes))
        return error_set(error, MC_E_NOMEM, "hook: out of memory");
    const mc_status status =
        hook->inner->region_open(hook->transport.p, range, mine->inner.p, key, key_size_p, error);
    if (status != MC_OK)
        hook_memory_free(&mine->inner, hook->env->alloc);
    return status;
}

static void region_close(void *transport, void *region)
{
    const struct hook *hook = transport;
    struct hook_region *mine = region;

    if (hook->inner->region_close && mine->inner.p)
        hook->inner->region_close(hook->transport.p, mine->inner.p);
}

static mc_status region_poll(void *transport, void *region, uint64_t *blocker_p)
{
    const struct hook *hook = transport;
    struct hook_region *mine = region;
    mc_status status = MC_OK;

    *blocker_p = 0;
    if (hook->inner->region_poll && mine->inner.p)
        status = hook->inner->region_poll(hook->transport.p, mine->inner.p, blocker_p);
    if (status == MC_OK)
        hook_memory_free(&mine->inner, hook->env->alloc);
    return status;
}

const void *hook_region_inner(const void *region)
{
    return region ? ((const struct hook_region *)region)->inner.p : NULL;
}

static mc_status window_open(void *transport, void *region, const struct transport_window *window,
                             uint8_t key[TRANSPORT_KEY_MAX], size_t *key_size_p)
{
    const struct hook *hook = transport;
    struct hook_region *mine = region;

    *key_size_p = 0;
    if (!hook->inner->window_open)
        return MC_OK;
    return hook->inner->window_open(hook->transport.p, mine->inner.p, window, key, key_size_p);
}

static void window_close(void *transport, void *region, const struct mc_window *window)
{
    const struct hook *hook = transport;
    struct hook_region *mine = region;

    if (hook->inner->window_close)
        hook->inner->window_close(hook->transport.p, mine->inner.p, window);
}

static mc_status window_poll(void *transport, void *region, const struct mc_window *window,
                             uint64_t *blocker_p)
{
    const struct hook *hook = transport;
    struct hook_region *mine = region;

    *blocker_p = 0;
    if (!hook->inner->window_poll)
        return MC_OK;
    return hook->inner->window_poll(hook->transport.p, mine->inner.p, window, blocker_p);
}

const struct transport_ops transport_hook = {
    .abi = TRANSPORT_ABI,
    .name = "hook",
    .transport_bytes = sizeof(struct hook),
    .region_bytes = sizeof(struct hook_region),
    .queue_bytes = HOOK_QUEUE_BYTES,
    .slice_bytes = 0, /* inner slices with their private state lie in a pool of the queue */
    .probe = probe,
    .open = open_transport,
    .close = close_transport,
    .describe = describe,
    .region_open = region_open,
    .region_close = region_close,
    .region_poll = region_poll,
    .window_open = window_open,
    .window_close = window_close,
    .window_poll = window_poll,
    .serve = serve,
    .serve_fd = serve_fd,
    .queue_open = hook_queue_open,
    .post = hook_queue_post,
    .poll = hook_queue_poll,
    .arm = hook_queue_arm,
    .cancel = hook_queue_cancel,
    .queue_close = hook_queue_close,
    .queue_error = hook_queue_error,
};
