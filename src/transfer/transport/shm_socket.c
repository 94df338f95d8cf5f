/* shm_socket.c - abstract Unix sockets that carry wire messages and descriptors. */
#define _GNU_SOURCE
#include "transfer/transport/shm_socket.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.h"
#include "wire/frame.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif

enum { BACKLOG = 256 };

void shm_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static socklen_t address_of(const uint8_t name[SHM_NAME_BYTES], struct sockaddr_un *address)
{
    static const char prefix[] = "mooncake-", digits[] = "0123456789abcdef";
    char *p = address->sun_path + 1; /* a NUL first: the abstract namespace */

    *address = (struct sockaddr_un){ .sun_family = AF_UNIX };
    memcpy(p, prefix, sizeof(prefix) - 1);
    p += sizeof(prefix) - 1;
    for (int i = 0; i < SHM_NAME_BYTES; i++) {
        *p++ = digits[name[i] >> 4];
        *p++ = digits[name[i] & 15];
    }
    return (socklen_t)(p - (char *)address);
}

static mc_status socket_open(int *fd_p, struct mc_error *error)
{
    *fd_p = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*fd_p >= 0)
        return MC_OK;
    return error_set(error, errno == EMFILE || errno == ENFILE ? MC_E_FULL : MC_E_UNSUPPORTED,
                     "shm: a local socket: %s", strerror(errno));
}

mc_status shm_socket_listen(const uint8_t name[SHM_NAME_BYTES], int *fd_p, struct mc_error *error)
{
    struct sockaddr_un address;
    const socklen_t size = address_of(name, &address);
    int fd;
    const mc_status status = socket_open(&fd, error);

    if (status != MC_OK)
        return status;
    if (bind(fd, (struct sockaddr *)&address, size) != 0 || listen(fd, BACKLOG) != 0) {
        error_set(error, MC_E_IO, "shm: listening on a local socket: %s", strerror(errno));
        close(fd);
        return MC_E_IO;
    }
    *fd_p = fd;
    return MC_OK;
}

mc_status shm_socket_accept(int listener, int *fd_p)
{
    const int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0)
        return errno == EMFILE || errno == ENFILE || errno == ENOMEM ? MC_E_FULL : MC_PENDING;
    *fd_p = fd;
    return MC_OK;
}

mc_status shm_socket_dial(const uint8_t name[SHM_NAME_BYTES], int *fd_p, struct mc_error *error)
{
    struct sockaddr_un address;
    const socklen_t size = address_of(name, &address);
    int fd;
    const mc_status status = socket_open(&fd, error);

    if (status != MC_OK)
        return status;
    if (connect(fd, (struct sockaddr *)&address, size) == 0) {
        *fd_p = fd;
        return MC_OK;
    }
    const int reason = errno;
    close(fd);
    if (reason == EAGAIN || reason == EINTR)
        return MC_PENDING;
    return error_set(error, MC_E_PEER, "shm: the peer is not on this machine, or gone: %s",
                     strerror(reason));
}

struct shm_process shm_socket_process(int fd)
{
    struct shm_process process = { .pidfd = -1 };
    struct ucred credentials;
    socklen_t size = sizeof(credentials);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) == 0)
        process.pid = credentials.pid;
    size = sizeof(process.pidfd);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &process.pidfd, &size) == 0)
        return process;
    process.pidfd = process.pid > 0 ? (int)syscall(SYS_pidfd_open, process.pid, 0) : -1;
    return process;
}

bool shm_process_dead(const struct shm_process *process, bool hung_up)
{
    struct pollfd pollfd = { .fd = process->pidfd, .events = POLLIN };

    if (process->pidfd < 0)
        return hung_up;
    return poll(&pollfd, 1, 0) > 0 && pollfd.revents != 0;
}

/* ------------------------------------------------------------------------------------- packets */

/* A union, so that the bytes are aligned as a cmsghdr must be. */
union control {
    struct cmsghdr header;
    uint8_t bytes[CMSG_SPACE(sizeof(int) * SHM_FDS_MAX)];
};

static size_t greeting_put(uint64_t incarnation, uint8_t *bytes)
{
    const struct wire_greeting greeting = { .version = WIRE_VERSION,
                                            .version_min = WIRE_VERSION_MIN,
                                            .features = WIRE_FEATURE_SAME_HOST,
                                            .incarnation = incarnation };

    if (incarnation == 0)
        return 0;
    wire_greeting_encode(&greeting, bytes);
    return WIRE_GREETING_BYTES;
}

static void attach_fds(struct msghdr *header, union control *control, const int *fds,
                       uint32_t count)
{
    if (count == 0)
        return;
    *control = (union control){ 0 };
    header->msg_control = control;
    header->msg_controllen = CMSG_SPACE(sizeof(int) * count);
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(header);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(int) * count);
    memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * count);
}

mc_status shm_socket_send(int fd, const struct shm_packet *packet, struct mc_error *error)
{
    uint8_t bytes[SHM_PACKET_MAX];
    size_t at = greeting_put(packet->greeting, bytes), size;
    const size_t body = at + WIRE_HEADER_BYTES;
    mc_status status =
        wire_encode(packet->kind, &packet->body, bytes + body, sizeof(bytes) - body, &size);

    if (status != MC_OK)
        return error_set(error, MC_E_IO, "shm: a message that does not fit its packet");
    const struct wire_frame frame = { .kind = packet->kind,
                                      .flags = packet->kind == WIRE_SAME_HOST ? 0 : WIRE_ANSWER,
                                      .id = packet->id,
                                      .body = bytes + body,
                                      .body_size = (uint32_t)size };
    wire_header_encode(&frame, bytes + at);
    at = body + size;

    struct iovec part = { .iov_base = bytes, .iov_len = at };
    struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1 };
    union control control;
    attach_fds(&header, &control, packet->fds, packet->fd_count);
    ssize_t sent;
    do {
        sent = sendmsg(fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent == (ssize_t)at)
        return MC_OK;
    return error_set(error, MC_E_PEER, "shm: sending to the peer: %s", strerror(errno));
}

static void take_fds(struct msghdr *header, struct shm_packet *packet)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
            if (packet->fd_count < SHM_FDS_MAX)
                packet->fds[packet->fd_count++] = fd;
            else
                close(fd);
        }
    }
}

void shm_packet_close(struct shm_packet *packet)
{
    for (uint32_t i = 0; i < packet->fd_count; i++)
        shm_close(&packet->fds[i]);
    packet->fd_count = 0;
}

static mc_status greeting_take(struct shm_packet *packet, size_t size, struct mc_error *error)
{
    struct wire_greeting theirs;
    const struct wire_greeting ours = { .version = WIRE_VERSION,
                                        .version_min = WIRE_VERSION_MIN,
                                        .features = WIRE_FEATURE_SAME_HOST,
                                        .incarnation = 1 };
    uint16_t version;
    uint64_t features;

    if (size < WIRE_GREETING_BYTES)
        return error_set(error, MC_E_FORMAT, "shm: a packet of %zu bytes is no greeting", size);
    mc_status status = wire_greeting_decode(packet->bytes, &theirs, error);
    if (status == MC_OK)
        status = wire_negotiate(&ours, &theirs, &version, &features, error);
    if (status == MC_OK)
        packet->greeting = theirs.incarnation;
    return status;
}

/* One packet is one frame, whole. */
static mc_status frame_take(struct shm_packet *packet, size_t at, size_t size,
                            struct mc_error *error)
{
    struct wire_reader reader;
    struct wire_frame frame;
    size_t used;

    wire_reader_init(&reader, NULL, 0, SHM_PACKET_MAX, 0);
    const mc_status status =
        wire_reader_feed(&reader, packet->bytes + at, size - at, &used, &frame, error);
    if (status < 0 && status != MC_E_FULL)
        return status;
    if (status != MC_OK || used != size - at)
        return error_set(error, MC_E_FORMAT, "shm: a packet that is not one message");
    if (frame.kind != WIRE_SAME_HOST && frame.kind != WIRE_SAME_HOST_PROOF &&
        frame.kind != WIRE_OUTCOME)
        return error_set(error, MC_E_FORMAT, "shm: a message of kind %u does not belong here",
                         frame.kind);
    packet->kind = frame.kind;
    packet->id = frame.id;
    return wire_decode(frame.kind, frame.body, frame.body_size, &packet->body, error);
}

mc_status shm_socket_receive(int fd, bool greeted, uint32_t fds_max, struct shm_packet *packet,
                             struct mc_error *error)
{
    union control control;
    struct iovec part = { .iov_base = packet->bytes, .iov_len = sizeof(packet->bytes) };
    struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1 };
    ssize_t got;

    packet->fd_count = 0;
    packet->greeting = 0;
    if (fds_max > 0) {
        header.msg_control = &control;
        header.msg_controllen = sizeof(control);
    }
    do {
        got = recvmsg(fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return MC_PENDING;
    if (got <= 0)
        return error_set(error, MC_E_PEER, "shm: the peer hung up");

    if (fds_max > 0)
        take_fds(&header, packet);
    mc_status status = MC_OK;
    size_t at = 0;
    if (header.msg_flags & MSG_TRUNC)
        status = error_set(error, MC_E_FORMAT, "shm: a packet over %d bytes", SHM_PACKET_MAX);
    else if (fds_max > 0 && header.msg_flags & MSG_CTRUNC)
        status = error_set(error, MC_E_FULL, "shm: no free descriptor for the peer's memory");
    if (status == MC_OK && greeted) {
        status = greeting_take(packet, (size_t)got, error);
        at = WIRE_GREETING_BYTES;
    }
    if (status == MC_OK)
        status = frame_take(packet, at, (size_t)got, error);
    if (status != MC_OK)
        shm_packet_close(packet);
    return status;
}
