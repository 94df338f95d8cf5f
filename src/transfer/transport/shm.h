/*
 * shm.h - what the files of the shared-memory transport share. See shm.c for the whole picture.
 *
 * Life:    as transport.h says. Threads: `lock` guards all that is marked with it; it is a leaf: nothing
 *          is called under it that takes another. A queue takes no lock at all.
 */
#ifndef TRANSFER_SHM_H
#define TRANSFER_SHM_H

#include <pthread.h>

#include "transfer/copy.h"
#include "transfer/transport/shm_control.h"
#include "transfer/transport/shm_socket.h"

/** Private to a region, in the engine's memory. */
struct shm_region {
    uint32_t slot; /* 0: peers do not reach it this way */
    int fd;        /* the engine's, borrowed until quiet; -1: none that peers may map */
    uint64_t fd_offset, size, generation;
    uint64_t ticket;
    bool open;
};

/** A window of ours. Index in the array is its slot in the control page. */
struct shm_window {
    uint64_t key[2], generation;
    uint32_t region;
    uint32_t next; /* in its bucket, or in the list of free ones; SHM_NO_WINDOW: the last */
    bool open;     /* else closed and not quiet yet */
};

/** A peer that has connected. Guarded by the transport's lock. */
struct shm_session {
    int fd; /* -1: hung up, or a free entry */
    struct shm_process process;
    struct shm_pins *pins; /* owned mapping; NULL until it proved itself */
    uint64_t incarnation;
    uint64_t since_ns; /* when it came: who says nothing is sent away */
    bool used;
};

/** The transport's private bytes. */
struct shm {
    const struct mc_alloc *alloc;
    struct mc_log log;
    uint64_t incarnation;
    struct copier copier;
    struct shm_address address;
    bool attach; /* cross-memory attach is allowed and works here */
    int listener, epoll;
    int page_fd;
    struct shm_page *page; /* owned mapping; slots are written under the lock */
    bool opened;           /* the lock exists */

    pthread_mutex_t lock;
    /* guarded by lock: */
    struct shm_session *sessions; /* owned; [sessions_max] */
    uint32_t sessions_max, sessions_used;
    uint64_t rest_until_ns;      /* the listener is not watched until then; 0: it is */
    struct shm_region **regions; /* owned; [regions_max] by slot, NULL: free; the engine's memory */
    uint32_t regions_max;
    struct shm_window *windows; /* owned; [windows_max] */
    uint32_t *buckets;          /* owned; [windows_max], heads of chains; a power of two */
    uint32_t windows_max, windows_free;
};

/* shm_owner.c: memory of ours, and who touches it */
mc_status shm_region_open(void *transport, const struct transport_region *range, void *region,
                          uint8_t key[TRANSPORT_KEY_MAX], size_t *key_size_p,
                          struct mc_error *error);
void shm_region_close(void *transport, void *region);
mc_status shm_region_poll(void *transport, void *region, uint64_t *blocker_p);

/** Under the lock: MC_PENDING while a living peer pins the region (and the window, unless
 * SHM_NO_WINDOW); *blocker_p is its incarnation. */
mc_status shm_pinned(struct shm *shm, uint32_t region, uint32_t window, uint64_t *blocker_p);

/* shm_window.c */
mc_status shm_window_open(void *transport, void *region, const struct transport_window *window,
                          uint8_t key[TRANSPORT_KEY_MAX], size_t *key_size_p);
void shm_window_close(void *transport, void *region, const struct mc_window *window);
mc_status shm_window_poll(void *transport, void *region, const struct mc_window *window,
                          uint64_t *blocker_p);

/* shm_serve.c: peers that come to map it */
mc_status shm_serve_open(struct shm *shm, uint32_t sessions_max, struct mc_error *error);
void shm_serve_close(struct shm *shm);
void shm_serve(void *transport, uint64_t now_ns, uint64_t *next_ns_p);
mc_status shm_serve_fd(void *transport, int *fd_p);

/* shm_queue.c: accesses to a peer's memory */
mc_status shm_queue_open(void *transport, const struct transport_peer *peer, void *queue,
                         struct mc_error *error);
mc_status shm_queue_post(void *queue, struct transport_slice *const *slices, uint32_t count,
                         uint32_t *posted_p);
mc_status shm_queue_poll(void *queue, uint64_t now_ns, struct transport_completion *completions,
                         uint32_t max, uint32_t *count_p);
mc_status shm_queue_arm(void *queue, int *fd_p);
void shm_queue_cancel(void *queue, mc_status reason);
mc_status shm_queue_close(void *queue);
void shm_queue_error(void *queue, struct mc_error *error);

extern const struct transport_ops transport_shm;

#endif /* TRANSFER_SHM_H */
