/* bench_peer.c - start the other process, and be it. */
#define _GNU_SOURCE
#include "cmd/bench_peer.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "cmd/bench_pattern.h"
#include "cmd/bench_raw.h"

/* -------------------------------------------------------------------------------- what both do */

void bench_stay_on(int processor)
{
    cpu_set_t set;

    if (processor < 0)
        return;
    CPU_ZERO(&set);
    CPU_SET((size_t)processor, &set);
    sched_setaffinity(0, sizeof(set), &set); /* not allowed: then it is not pinned */
}

mc_status bench_engine_open(const struct bench_peer_options *options, mc_transfer **transfer_p,
                            struct mc_error *error)
{
    char settings[128];

    snprintf(settings, sizeof(settings), "tcp.congestion=%s", options->congestion);
    const struct mc_transfer_options o = {
        .transports = bench_transport_name(options->transport),
        .streams = options->streams,
        .settings = options->transport == BENCH_TCP ? settings : NULL,
    };
    return mc_transfer_open(&o, transfer_p, error);
}

/* ------------------------------------------------------------------------------------- the peer */

enum ask { ASK_ZERO, ASK_PATTERN, ASK_CHECK };

struct question {
    uint64_t ask, offset, length;
};

struct answer {
    int64_t status;
    uint64_t wrong; /* offset */
};

/* What it tells first. */
struct greeting {
    struct mc_error error; /* status MC_OK: it stands */
    char segment[MC_NAME_MAX + 1];
    struct mc_region region;
    uint64_t address;
    int memory_fd;
    uint32_t raw_port;
};

/* The descriptor of engine memory: the file of that name and size. */
static int find_memory(uint64_t size)
{
    DIR *folder = opendir("/proc/self/fd");
    int found = -1;

    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        char path[300], target[64];
        struct stat status;
        const int fd = atoi(entry->d_name);
        snprintf(path, sizeof(path), "/proc/self/fd/%s", entry->d_name);
        const ssize_t length = readlink(path, target, sizeof(target) - 1);
        if (length <= 0 || fstat(fd, &status) != 0)
            continue;
        target[length] = '\0';
        if (strncmp(target, "/memfd:mooncake", 15) == 0 && (uint64_t)status.st_size >= size &&
            (uint64_t)status.st_size < size + 4096)
            found = fd;
    }
    if (folder)
        closedir(folder);
    return found;
}

static mc_status memory_open(mc_transfer *transfer, const struct bench_peer_options *options,
                             void **memory_p, struct mc_error *error)
{
    if (!options->attach)
        return mc_memory_alloc(transfer, options->size, NULL, memory_p, error);
    void *memory = mmap(NULL, options->size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED)
        return error_set(error, MC_E_NOMEM, "no memory for a region of %llu bytes",
                         (unsigned long long)options->size);
    *memory_p = memory;
    return MC_OK;
}

static mc_status stand_up(const struct bench_peer_options *options, struct greeting *g,
                          uint8_t **memory_p, struct bench_raw_server **server_p)
{
    mc_transfer *transfer;
    struct mc_transfer_info info;
    void *memory;
    mc_status status = bench_engine_open(options, &transfer, &g->error);

    if (status == MC_OK)
        status = memory_open(transfer, options, &memory, &g->error);
    if (status != MC_OK)
        return status;
    const struct mc_region_options region = { .address = memory,
                                              .size = options->size,
                                              .tag = "bench",
                                              .permissions = MC_REMOTE_READ | MC_REMOTE_WRITE };
    status = mc_region_register(transfer, &region, 1, &g->region, &g->error);
    if (status == MC_OK)
        status = mc_transfer_info(transfer, &info);
    if (status != MC_OK)
        return status;
    snprintf(g->segment, sizeof(g->segment), "%s", info.name);
    g->address = (uint64_t)(uintptr_t)memory;
    g->memory_fd = find_memory(options->size);
    *memory_p = memory;
    return bench_raw_serve_open(memory, options->size, options->spin, options->congestion, server_p,
                                &g->raw_port, &g->error);
}

static struct answer reply(const struct question *q, uint8_t *memory, uint64_t size)
{
    struct answer a = { .status = MC_OK };

    if (q->ask == ASK_ZERO)
        memset(memory, 0, size);
    else if (q->ask == ASK_PATTERN)
        bench_pattern(memory, 0, size);
    else if (q->offset > size || q->length > size - q->offset)
        a.status = MC_E_RANGE;
    else if (!bench_pattern_is(memory + q->offset, q->offset, q->length, &a.wrong))
        a.status = MC_E_CORRUPT;
    return a;
}

/* Never returns; the kernel takes everything back. */
static void peer_main(const struct bench_peer_options *options, int control)
{
    struct greeting greeting = { .memory_fd = -1 };
    struct bench_raw_server *server = NULL;
    struct question question;
    uint8_t *memory = NULL;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    bench_stay_on(options->processor);
    const mc_status status = stand_up(options, &greeting, &memory, &server);
    greeting.error.status = status;
    if (send(control, &greeting, sizeof(greeting), MSG_NOSIGNAL) != sizeof(greeting) ||
        status != MC_OK)
        _exit(1);
    for (;;) {
        bench_raw_serve(server, control);
        if (recv(control, &question, sizeof(question), 0) != sizeof(question))
            _exit(0);
        const struct answer answer = reply(&question, memory, options->size);
        if (send(control, &answer, sizeof(answer), MSG_NOSIGNAL) != sizeof(answer))
            _exit(0);
    }
}

/* ---------------------------------------------------------------------------------- its parent */

mc_status bench_peer_start(const struct bench_peer_options *options, struct bench_peer *peer,
                           struct mc_error *error)
{
    struct greeting greeting;
    int pair[2];

    *peer = (struct bench_peer){ .control = -1, .memory_fd = -1 };
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return error_set(error, MC_E_IO, "a socket to the peer: %s", strerror(errno));
    fflush(NULL);
    peer->pid = fork();
    if (peer->pid == 0) {
        close(pair[0]);
        peer_main(options, pair[1]);
    }
    close(pair[1]);
    peer->control = pair[0];
    if (peer->pid < 0) {
        error_set(error, MC_E_IO, "a process for the peer: %s", strerror(errno));
        peer->pid = 0;
        bench_peer_end(peer);
        return MC_E_IO;
    }
    if (recv(peer->control, &greeting, sizeof(greeting), 0) != sizeof(greeting)) {
        bench_peer_end(peer);
        return error_set(error, MC_E_PEER, "the peer ended before it stood");
    }
    if (greeting.error.status != MC_OK) {
        bench_peer_end(peer);
        return error_set(error, greeting.error.status, "peer: %s", greeting.error.text);
    }
    memcpy(peer->segment, greeting.segment, sizeof(peer->segment));
    peer->region = greeting.region;
    peer->address = greeting.address;
    peer->size = options->size;
    peer->memory_fd = greeting.memory_fd;
    peer->raw_port = greeting.raw_port;
    return MC_OK;
}

static mc_status ask(struct bench_peer *peer, struct question question, struct mc_error *error)
{
    struct answer answer;

    if (send(peer->control, &question, sizeof(question), MSG_NOSIGNAL) != sizeof(question) ||
        recv(peer->control, &answer, sizeof(answer), 0) != sizeof(answer))
        return error_set(error, MC_E_PEER, "the peer is gone");
    if (answer.status != MC_OK)
        return error_set(error, (mc_status)answer.status, "at the peer, byte %llu is wrong",
                         (unsigned long long)answer.wrong);
    return MC_OK;
}

mc_status bench_peer_fill(struct bench_peer *peer, bool pattern, struct mc_error *error)
{
    return ask(peer, (struct question){ .ask = pattern ? ASK_PATTERN : ASK_ZERO }, error);
}

mc_status bench_peer_check(struct bench_peer *peer, uint64_t offset, uint64_t length,
                           struct mc_error *error)
{
    return ask(peer, (struct question){ ASK_CHECK, offset, length }, error);
}

void bench_peer_end(struct bench_peer *peer)
{
    if (peer->pid > 0) {
        kill(peer->pid, SIGKILL);
        waitpid(peer->pid, NULL, 0);
    }
    if (peer->control >= 0)
        close(peer->control);
    *peer = (struct bench_peer){ .control = -1, .memory_fd = -1 };
}
