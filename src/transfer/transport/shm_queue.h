/*
 * shm_queue.h - the initiator's side: a connection to one engine on this machine, and what it maps.
 *
 * Threads: a queue belongs to one thread at a time and shares nothing with others but read-only fields
 *          of the transport.
 * Memory:  what a queue needs is allocated when it opens. Mappings of a peer's regions are made when first
 *          used and go with the queue, or when another region needs their place.
 */
#ifndef TRANSFER_SHM_QUEUE_H
#define TRANSFER_SHM_QUEUE_H

#include "transfer/transport/shm.h"

enum {
    SHM_QUEUE_DEPTH = 4096,   /* slices posted and not completed */
    SHM_MAPS = 512,           /* regions mapped at a time; a slot has one place */
    SHM_POLL_BYTES = 8 << 20, /* that one poll moves: others wait for their turn */
    SHM_TOUCH = 2 << 20,      /* bytes of a mapping that are made ready at once */
    SHM_TOUCH_MORE = 2,       /* so many of these with each poll that moves something */
};

/** A peer's region, mapped here. */
struct shm_map {
    uint32_t region; /* slot; 0: none */
    bool attach;     /* it cannot be mapped: read and write through the kernel */
    uint64_t generation;
    uint8_t *bytes; /* of the region's start; NULL if attach */
    uint64_t size;  /* of the region, as mapped */
    void *mapping;  /* owned; [mapping_bytes], from the page where the region starts */
    size_t mapping_bytes;
    uint8_t *touched; /* owned mapping; a bit for each SHM_TOUCH bytes that were made ready */
    size_t touched_bytes;
    uint64_t next_touch; /* chunk; all before it are touched, or never mind */
    bool writable;
};

/** Private to a slice, behind it. */
struct shm_slice {
    struct transport_slice *next;
    uint64_t done;    /* bytes moved */
    mc_status status; /* in `finished`: how it ended */
};

struct shm_list {
    struct transport_slice *first, *last;
};

enum shm_state {
    SHM_DIALLING, /* too many wait at the peer's socket: ask again */
    SHM_ASKED,    /* same_host is sent */
    SHM_READY,
    SHM_FAILED, /* for good */
};

struct shm_queue {
    const struct shm *shm; /* borrowed; what is not guarded by its lock */
    struct shm_address address;
    uint64_t incarnation; /* the peer's */
    char name[64];        /* of the peer, for errors, perhaps cut */
    enum shm_state state;
    int fd;
    struct shm_process process;
    bool attach;              /* the peer's memory can be reached through the kernel */
    struct shm_page *page;    /* owned mapping, read-only */
    struct shm_pins *pins;    /* owned mapping */
    struct shm_map *maps;     /* owned; [SHM_MAPS] by slot % SHM_MAPS */
    struct shm_map *used;     /* by the last slice of this poll; NULL: none */
    struct shm_key asked;     /* region whose descriptor is asked for; region 0: none */
    uint32_t posted;          /* slices in the three lists */
    struct shm_list ready;    /* may move */
    struct shm_list waiting;  /* for the mapping of a region */
    struct shm_list finished; /* to be handed out */
    uint64_t checked_ns;      /* when it was last asked whether the peer is alive */
    struct mc_error error;    /* why it failed */
};

static inline struct shm_slice *shm_slice_of(struct transport_slice *slice)
{
    return (struct shm_slice *)(void *)(slice + 1);
}

void shm_list_add(struct shm_list *list, struct transport_slice *slice);
struct transport_slice *shm_list_take(struct shm_list *list); /* NULL: empty */
void shm_list_move(struct shm_list *to, struct shm_list *from);

/* shm_connect.c */

/** Move the connection along: MC_OK once it is ready, MC_PENDING, or why it failed (queue->error set). */
mc_status shm_connect_step(struct shm_queue *queue);

/** Ask for a region's descriptor; one at a time. MC_OK or why the connection failed. */
mc_status shm_connect_ask(struct shm_queue *queue, const struct shm_key *key);

/** Take the answer, and see whether the peer lives. MC_OK (nothing is asked any more), MC_PENDING or why
 * the connection failed. */
mc_status shm_connect_answer(struct shm_queue *queue);

/** Close socket and pages. */
void shm_connect_end(struct shm_queue *queue);

/* shm_map.c */

/** The mapping of a region, or NULL: not there (yet). */
struct shm_map *shm_map_find(struct shm_queue *queue, uint32_t region, uint64_t generation);

/** Map it; fd -1: it cannot be mapped, so use the kernel. */
mc_status shm_map_add(struct shm_queue *queue, const struct shm_key *key, int fd, uint64_t offset,
                      uint64_t size, struct mc_error *error);
void shm_map_end(struct shm_queue *queue);

/** Make [offset, offset + length) ready to be touched without faults, and without signals where there
 * is no memory left. MC_OK or MC_E_IO. */
mc_status shm_map_touch(struct shm_map *map, uint64_t offset, uint64_t length);

/** A few MiB of what is not ready yet. */
void shm_map_touch_more(struct shm_map *map);

/* shm_attach.c */

/** Whether this process's memory may be opened to others of its user, and process_vm_readv works. */
bool shm_attach_probe(struct mc_error *error);

/** Let processes of this user attach, where the kernel wants to be told (Yama). */
void shm_attach_allow(void);

/** Whether [size] bytes at `address` in the process equal `expected`. */
bool shm_attach_proves(int pid, uint64_t address, const void *expected, size_t size);

/** Copy between local memory and the process's. MC_OK, MC_E_PEER (dead) or MC_E_IO. */
mc_status shm_attach_copy(int pid, enum mc_op op, void *local, uint64_t address, uint64_t length,
                          struct mc_error *error);

#endif /* TRANSFER_SHM_QUEUE_H */
