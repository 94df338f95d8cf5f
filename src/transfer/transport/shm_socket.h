/*
 * shm_socket.h - the local socket on which two engines of one machine meet: packets with descriptors.
 *
 * An abstract Unix socket of type SEQPACKET: no name in a file system, gone with its process, and one
 * packet is one message. Who the other process is, the kernel says, not the peer.
 *
 * Threads: any. Memory: nothing is allocated; descriptors are the caller's.
 * Errors:  events. A packet that is cut, malformed or from another protocol is MC_E_FORMAT.
 */
#ifndef TRANSFER_SHM_SOCKET_H
#define TRANSFER_SHM_SOCKET_H

#include "transfer/transport/shm_key.h"
#include "wire/msg.h"

enum {
    SHM_PACKET_MAX = 1024, /* bytes: the longest message here */
    SHM_FDS_MAX = 4,       /* descriptors of one packet */
};

/** A message between two engines of one machine. The first of each side has a greeting before it. */
struct shm_packet {
    uint64_t greeting; /* incarnation of the sender; 0: none */
    uint32_t kind;     /* enum wire_kind */
    uint64_t id;
    union {
        struct wire_same_host ask;
        struct wire_same_host_proof proof;
        struct wire_outcome outcome;
    } body;               /* decoded: borrows from `bytes` */
    int fds[SHM_FDS_MAX]; /* [fd_count]; received ones are the caller's to close */
    uint32_t fd_count;
    uint8_t bytes[SHM_PACKET_MAX];
};

/** Who is at the other end. */
struct shm_process {
    int pid;   /* in this process's namespace; 0: in another one */
    int pidfd; /* polls readable once it is dead; -1: the kernel has none */
};

/** MC_OK, MC_E_UNSUPPORTED, MC_E_FULL (descriptors) or MC_E_IO. */
mc_status shm_socket_listen(const uint8_t name[SHM_NAME_BYTES], int *fd_p, struct mc_error *error);

/** MC_OK, MC_PENDING (nobody waits), MC_E_FULL or MC_E_IO. */
mc_status shm_socket_accept(int listener, int *fd_p);

/** MC_OK (connected), MC_PENDING (too many wait there: ask again), MC_E_PEER (nobody listens under that
 * name here), MC_E_FULL or MC_E_IO. */
mc_status shm_socket_dial(const uint8_t name[SHM_NAME_BYTES], int *fd_p, struct mc_error *error);

/** The process that listens or has connected. Its pidfd is the caller's to close. */
struct shm_process shm_socket_process(int fd);

/** Whether it is dead; a process of which nothing is known counts as dead once the socket is. */
bool shm_process_dead(const struct shm_process *process, bool hung_up);

/** Send body `message` of `packet->kind` with its fds. MC_OK, MC_E_PEER (gone, or does not read) or
 * MC_E_IO. */
mc_status shm_socket_send(int fd, const struct shm_packet *packet, struct mc_error *error);

/**
 * Take one packet.
 *
 * greeted  whether a greeting is expected before the message.
 * fds_max  0: descriptors that come all the same are closed by the kernel.
 *
 * Returns MC_OK, MC_PENDING (nothing there), MC_E_PEER (hung up), MC_E_FULL (no descriptor is free here),
 * MC_E_FORMAT, MC_E_CORRUPT or MC_E_UNSUPPORTED.
 */
mc_status shm_socket_receive(int fd, bool greeted, uint32_t fds_max, struct shm_packet *packet,
                             struct mc_error *error);

/** Close the descriptors of a received packet. */
void shm_packet_close(struct shm_packet *packet);

/** Close and forget; -1 is allowed. */
void shm_close(int *fd);

#endif /* TRANSFER_SHM_SOCKET_H */
