/* bench_raw.c - memcpy, process_vm_* and sockets, as plainly as they can be used. */
#define _GNU_SOURCE
#include "cmd/bench_raw.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/error.h"

enum { PART_MIN = 64 << 10 }; /* smaller ranges go over one stream */

const char *bench_raw_name(const struct bench_raw *raw)
{
    static const char *const names[] = { "memcpy", "process_vm", "sockets" };

    return names[raw->way];
}

/* The peer told the number of its descriptor; the kernel lets its own user open it. */
static mc_status map_peer(struct bench_raw *raw, struct mc_error *error)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/fd/%d", raw->peer->pid, raw->peer->memory_fd);
    const int fd = raw->peer->memory_fd < 0 ? -1 : open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return error_set(error, MC_E_IO, "raw: the peer's memory cannot be opened: %s",
                         strerror(errno));
    raw->remote = mmap(NULL, raw->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    close(fd);
    if (raw->remote == MAP_FAILED) {
        raw->remote = NULL;
        return error_set(error, MC_E_NOMEM, "raw: the peer's memory cannot be mapped: %s",
                         strerror(errno));
    }
    return MC_OK;
}

static mc_status dial(struct bench_raw *raw, const char *congestion, int *fd_p,
                      struct mc_error *error)
{
    const struct sockaddr_in address = { .sin_family = AF_INET,
                                         .sin_port = htons((uint16_t)raw->peer->raw_port),
                                         .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return error_set(error, MC_E_IO, "raw: a socket: %s", strerror(errno));
    bench_raw_tune(fd, congestion);
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        error_set(error, MC_E_PEER, "raw: connecting to the peer: %s", strerror(errno));
        close(fd);
        return MC_E_PEER;
    }
    *fd_p = fd;
    return MC_OK;
}

static mc_status dial_all(struct bench_raw *raw, const char *congestion, struct mc_error *error)
{
    const uint32_t count = raw->c->threads * raw->streams;
    mc_status status = MC_OK;

    raw->sockets = malloc(count * sizeof(*raw->sockets));
    if (!raw->sockets)
        return error_set(error, MC_E_NOMEM, "raw: no memory for %u sockets", count);
    for (uint32_t i = 0; i < count; i++)
        raw->sockets[i] = -1;
    for (uint32_t i = 0; i < count && status == MC_OK; i++)
        status = dial(raw, congestion, &raw->sockets[i], error);
    return status;
}

mc_status bench_raw_open(const struct bench_case *c, const struct bench_peer_options *options,
                         const struct bench_peer *peer, uint8_t *local, uint8_t *remote,
                         struct bench_raw *raw, struct mc_error *error)
{
    mc_status status = MC_OK;

    *raw = (struct bench_raw){ .c = c,
                               .way = c->transport == BENCH_TCP ? BENCH_RAW_SOCKETS
                                      : c->attach               ? BENCH_RAW_ATTACH
                                                                : BENCH_RAW_COPY,
                               .local = local,
                               .remote = remote,
                               .size = options->size,
                               .peer = peer,
                               .streams = options->streams,
                               .spin = options->spin };
    if (raw->way == BENCH_RAW_SOCKETS)
        status = dial_all(raw, options->congestion, error);
    else if (raw->way == BENCH_RAW_COPY && !remote)
        status = map_peer(raw, error);
    if (status != MC_OK)
        bench_raw_close(raw);
    return status;
}

void bench_raw_close(struct bench_raw *raw)
{
    if (raw->remote && raw->c->transport != BENCH_SELF)
        munmap(raw->remote, raw->size);
    for (uint32_t i = 0; raw->sockets && i < raw->c->threads * raw->streams; i++)
        if (raw->sockets[i] >= 0)
            close(raw->sockets[i]);
    free(raw->sockets);
    raw->remote = NULL;
    raw->sockets = NULL;
}

/* ---------------------------------------------------------------------------- copy and attach */

static void copy_block(struct bench_raw *raw, uint64_t offset)
{
    if (raw->c->op == BENCH_WRITE)
        memcpy(raw->remote + offset, raw->local + offset, raw->c->block_bytes);
    else
        memcpy(raw->local + offset, raw->remote + offset, raw->c->block_bytes);
}

static mc_status attach_block(struct bench_raw *raw, uint64_t offset)
{
    const uint64_t length = raw->c->block_bytes;

    for (uint64_t done = 0; done < length;) {
        const struct iovec here = { raw->local + offset + done, length - done };
        const struct iovec there = { (void *)(uintptr_t)(raw->peer->address + offset + done),
                                     length - done };
        const ssize_t moved = raw->c->op == BENCH_WRITE
                                  ? process_vm_writev(raw->peer->pid, &here, 1, &there, 1, 0)
                                  : process_vm_readv(raw->peer->pid, &here, 1, &there, 1, 0);
        if (moved <= 0)
            return MC_E_IO;
        done += (uint64_t)moved;
    }
    return MC_OK;
}

/* ------------------------------------------------------------------------------------ sockets */

/* A stream's part of the range that moves now. */
struct part {
    struct bench_raw_header header;
    uint64_t sent, received; /* bytes of header and payload; of payload or the answer */
};

static uint64_t to_send(const struct part *p)
{
    return sizeof(p->header) + (p->header.op == BENCH_WRITE ? p->header.length : 0);
}

static uint64_t to_receive(const struct part *p)
{
    return p->header.op == BENCH_WRITE ? 1 : p->header.length;
}

static ssize_t send_part(const struct bench_raw *raw, int fd, struct part *p, int flags)
{
    const uint64_t head = p->sent < sizeof(p->header) ? sizeof(p->header) - p->sent : 0;
    const uint64_t body = p->sent > sizeof(p->header) ? p->sent - sizeof(p->header) : 0;
    struct iovec parts[2] = {
        { (uint8_t *)&p->header + sizeof(p->header) - head, head },
        { raw->local + p->header.offset + body, to_send(p) - p->sent - head },
    };
    const struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };
    const ssize_t moved = sendmsg(fd, &message, MSG_NOSIGNAL | flags);

    if (moved > 0)
        p->sent += (uint64_t)moved;
    return moved;
}

static ssize_t receive_part(const struct bench_raw *raw, int fd, struct part *p, int flags)
{
    uint8_t answer;
    uint8_t *to =
        p->header.op == BENCH_WRITE ? &answer : raw->local + p->header.offset + p->received;
    const ssize_t moved = recv(fd, to, to_receive(p) - p->received, flags);

    if (moved > 0)
        p->received += (uint64_t)moved;
    return moved == 0 ? -1 : moved;
}

static bool part_done(const struct part *p)
{
    return p->sent == to_send(p) && p->received == to_receive(p);
}

/* Send and receive what can be. Returns false at an error. */
static bool part_step(const struct bench_raw *raw, int fd, struct part *p, int flags)
{
    ssize_t moved = 1;

    while (moved > 0 && p->sent < to_send(p))
        moved = send_part(raw, fd, p, flags);
    while (moved > 0 && p->received < to_receive(p))
        moved = receive_part(raw, fd, p, flags);
    return moved > 0 || errno == EAGAIN || errno == EINTR;
}

/* Sleep until one of the parts can go on. */
static void wait_parts(const int *sockets, const struct part *parts, uint32_t count)
{
    struct pollfd fds[64];
    uint32_t waiting = 0;

    for (uint32_t i = 0; i < count; i++)
        if (!part_done(&parts[i]))
            fds[waiting++] =
                (struct pollfd){ .fd = sockets[i],
                                 .events = parts[i].sent < to_send(&parts[i]) ? POLLOUT : POLLIN };
    poll(fds, waiting, -1);
}

static mc_status move_parts(struct bench_raw *raw, const int *sockets, struct part *parts,
                            uint32_t count)
{
    /* One stream blocks in its calls, as the simplest program would. */
    const int flags = count == 1 && !raw->spin ? 0 : MSG_DONTWAIT;

    for (;;) {
        uint32_t done = 0;
        for (uint32_t i = 0; i < count; i++) {
            if (!part_done(&parts[i]) && !part_step(raw, sockets[i], &parts[i], flags))
                return MC_E_PEER;
            done += part_done(&parts[i]);
        }
        if (done == count)
            return MC_OK;
        if (!raw->spin)
            wait_parts(sockets, parts, count);
    }
}

static mc_status move_range(struct bench_raw *raw, uint32_t thread, uint64_t offset,
                            uint64_t length)
{
    struct part parts[64];
    const uint32_t count = length / raw->streams < PART_MIN ? 1 : raw->streams;

    for (uint32_t i = 0; i < count; i++) {
        const uint64_t from = length * i / count, to = length * (i + 1) / count;
        parts[i] = (struct part){ .header = { raw->c->op, offset + from, to - from } };
    }
    return move_parts(raw, raw->sockets + thread * raw->streams, parts, count);
}

mc_status bench_raw_move(struct bench_raw *raw, uint32_t thread, uint64_t offset)
{
    const struct bench_case *c = raw->c;
    mc_status status = MC_OK;

    if (raw->way == BENCH_RAW_SOCKETS)
        return move_range(raw, thread, offset, c->block_bytes * c->batch);
    for (uint32_t i = 0; i < c->batch && status == MC_OK; i++) {
        if (raw->way == BENCH_RAW_COPY)
            copy_block(raw, offset + i * c->block_bytes);
        else
            status = attach_block(raw, offset + i * c->block_bytes);
    }
    return status;
}
