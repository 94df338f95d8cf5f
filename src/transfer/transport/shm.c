/*
 * shm.c - transfers between processes of one machine: one copy, by whoever asks for it.
 *
 * The owner of memory answers on an abstract Unix socket (shm_serve.c) and hands over a control page that
 * says which regions and windows live (shm_control.h, shm_owner.c, shm_window.c). A peer connects,
 * maps regions as it needs them (shm_connect.c, shm_map.c) and copies by itself (shm_queue.c); memory
 * that has no descriptor it reaches through the kernel (shm_attach.c). The owner's processor does nothing,
 * so the check happens at the peer, under a pin that the owner can see.
 *
 * What this protects from, and what not: a peer that is late, restarted, stopped or dead; mistakes; and
 * descriptors in the hands of those who were never told a ticket. A process that was given the descriptor of
 * writable memory can write it as it likes: the kernel knows no finer right. Who must not be trusted so
 * far belongs behind tcp.
 */
#define _GNU_SOURCE
#include "transfer/transport/shm.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/alloc.h"
#include "base/error.h"
#include "transfer/transport/shm_queue.h"

enum { SESSIONS_DEFAULT = 1024 };

/* --------------------------------------------------------------------------------- settings */

static bool is(const char *text, size_t size, const char *expected)
{
    return size == strlen(expected) && memcmp(text, expected, size) == 0;
}

static mc_status setting(struct shm *shm, const char *text, size_t size, struct mc_error *error)
{
    if (is(text, size, "attach=0"))
        shm->attach = false;
    else if (is(text, size, "stream=0"))
        shm->copier.stream = NULL;
    else if (!is(text, size, "attach=1") && !is(text, size, "stream=1"))
        return error_set(error, MC_E_ARG, "shm: \"%.*s\": known are attach=0|1 and stream=0|1",
                         (int)size, text);
    return MC_OK;
}

static mc_status settings(struct shm *shm, const char *text, struct mc_error *error)
{
    mc_status status = MC_OK;

    while (text && *text && status == MC_OK) {
        const size_t size = strcspn(text, ",");
        status = setting(shm, text, size, error);
        text += size + (text[size] == ',');
    }
    return status;
}

/* -------------------------------------------------------------------------------------- life */

static mc_status probe(const struct transport_env *env, struct transport_caps *caps_p)
{
    struct mc_error error = { 0 };
    void *memory;
    int fd;

    (void)env;
    *caps_p = (struct transport_caps){ .flags = TRANSPORT_SAME_HOST | TRANSPORT_ONE_SIDED,
                                       .queue_depth = SHM_QUEUE_DEPTH,
                                       .slice_max = UINT64_C(1) << 40,
                                       .slice_best = 64 << 20,
                                       .bytes_per_s = UINT64_C(8000000000),
                                       .paths = 1 };
    const mc_status status = shm_memory_open(4096, 0, &fd, &memory, &error);
    if (status != MC_OK) {
        snprintf(caps_p->found, sizeof(caps_p->found), "%.100s", error.text);
        return MC_E_UNSUPPORTED;
    }
    munmap(memory, 4096);
    shm_close(&fd);
    if (shm_attach_probe(&error))
        snprintf(caps_p->found, sizeof(caps_p->found), "memfd, cross-memory attach; copies by %s",
                 copy_ways()->name);
    else
        snprintf(caps_p->found, sizeof(caps_p->found), "memfd; %.50s; copies by %s", error.text,
                 copy_ways()->name);
    return MC_OK;
}

static mc_status open_transport(void *transport, const struct transport_env *env,
                                struct mc_error *error)
{
    struct shm *shm = transport;
    void *page;

    *shm = (struct shm){ .alloc = env->alloc,
                         .log = env->log,
                         .incarnation = env->incarnation,
                         .attach = shm_attach_probe(NULL),
                         .listener = -1,
                         .epoll = -1,
                         .page_fd = -1,
                         .windows_free = SHM_NO_WINDOW };
    copier_init(&shm->copier);
    mc_status status = settings(shm, env->settings, error);
    if (status != MC_OK)
        return status;
    if (pthread_mutex_init(&shm->lock, NULL) != 0)
        return error_set(error, MC_E_NOMEM, "shm: no memory for a lock");
    shm->opened = true;

    int seals = 0;
#ifdef F_SEAL_FUTURE_WRITE
    seals = F_SEAL_FUTURE_WRITE; /* peers get it to read */
#endif
    status = shm_memory_open(sizeof(*shm->page), seals, &shm->page_fd, &page, error);
    if (status != MC_OK)
        return status;
    shm->page = page;
    shm_page_init(shm->page, shm->incarnation);
    if (shm->attach)
        shm_attach_allow();
    return shm_serve_open(shm, env->sessions_max ? env->sessions_max : SESSIONS_DEFAULT, error);
}

static void close_transport(void *transport)
{
    struct shm *shm = transport;

    if (!shm->opened)
        return;
    shm_serve_close(shm);
    if (shm->page)
        munmap(shm->page, sizeof(*shm->page));
    shm_close(&shm->page_fd);
    alloc_free(shm->alloc, shm->regions);
    alloc_free(shm->alloc, shm->windows);
    alloc_free(shm->alloc, shm->buckets);
    pthread_mutex_destroy(&shm->lock);
    *shm = (struct shm){ 0 };
}

static mc_status describe(void *transport, uint8_t address[TRANSPORT_KEY_MAX], size_t *size_p)
{
    const struct shm *shm = transport;

    shm_address_encode(&shm->address, address);
    *size_p = SHM_ADDRESS_BYTES;
    return MC_OK;
}

const struct transport_ops transport_shm = {
    .abi = TRANSPORT_ABI,
    .name = "shm",
    .transport_bytes = sizeof(struct shm),
    .region_bytes = sizeof(struct shm_region),
    .queue_bytes = sizeof(struct shm_queue),
    .slice_bytes = sizeof(struct shm_slice),
    .probe = probe,
    .open = open_transport,
    .close = close_transport,
    .describe = describe,
    .region_open = shm_region_open,
    .region_close = shm_region_close,
    .region_poll = shm_region_poll,
    .window_open = shm_window_open,
    .window_close = shm_window_close,
    .window_poll = shm_window_poll,
    .serve = shm_serve,
    .serve_fd = shm_serve_fd,
    .queue_open = shm_queue_open,
    .post = shm_queue_post,
    .poll = shm_queue_poll,
    .arm = shm_queue_arm,
    .cancel = shm_queue_cancel,
    .queue_close = shm_queue_close,
    .queue_error = shm_queue_error,
};
