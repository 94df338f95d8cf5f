/*
 * bench_peer.h - the other process of `mooncake bench transfer`: an engine with one region, and the raw
 * sockets that it is measured against, over the same memory.
 *
 * Life:    bench_peer_start -> (bench_peer_fill, bench_peer_check)* -> bench_peer_end. The peer dies with
 *          this process.
 * Threads: one; started before this process has any other.
 * Errors:  events, with a text that says which end.
 */
#ifndef CMD_BENCH_PEER_H
#define CMD_BENCH_PEER_H

#include <mooncake/transfer.h>

#include "cmd/bench_transfer_options.h"

struct bench_peer_options {
    enum bench_transport transport;
    uint64_t size; /* of the region */
    uint32_t streams;
    const char *congestion;
    int processor; /* to stay on; -1: any */
    bool attach;   /* its own memory instead of the engine's */
    bool spin;
};

struct bench_peer {
    int pid, control; /* 0, -1: none */
    char segment[MC_NAME_MAX + 1];
    struct mc_region region;
    uint64_t address; /* of the region, there */
    uint64_t size;
    int memory_fd; /* the descriptor behind it, as numbered there; -1: none was found */
    uint32_t raw_port;
};

mc_status bench_peer_start(const struct bench_peer_options *options, struct bench_peer *peer,
                           struct mc_error *error);

/** Fill its memory with bench_pattern(), or with zeros. */
mc_status bench_peer_fill(struct bench_peer *peer, bool pattern, struct mc_error *error);

/** MC_OK, or MC_E_CORRUPT: [offset, offset + length) is not the pattern. */
mc_status bench_peer_check(struct bench_peer *peer, uint64_t offset, uint64_t length,
                           struct mc_error *error);

/** Kill it and wait for its end. `{ .control = -1 }` is allowed. */
void bench_peer_end(struct bench_peer *peer);

/** Open an engine for one transport. */
mc_status bench_engine_open(const struct bench_peer_options *options, mc_transfer **transfer_p,
                            struct mc_error *error);

/** Keep this thread, and those it starts, on one processor; -1: nothing. */
void bench_stay_on(int processor);

#endif /* CMD_BENCH_PEER_H */
