/*
 * bench_raw.h - the same bytes between the same buffers without the engine: what it is measured against.
 *
 * A raw side moves ranges: `length` bytes at `offset` of the local memory to or from the same offset of
 * the peer's. By sockets a range is cut into one part for each stream; a write's part is answered by one
 * byte.
 *
 * Life:    bench_raw_open -> bench_raw_move* -> bench_raw_close.
 * Threads: bench_raw_move by thread t only for its own number t.
 */
#ifndef CMD_BENCH_RAW_H
#define CMD_BENCH_RAW_H

#include "cmd/bench_peer.h"

struct bench_raw {
    const struct bench_case *c;
    enum { BENCH_RAW_COPY, BENCH_RAW_ATTACH, BENCH_RAW_SOCKETS } way;
    uint8_t *local;  /* borrowed */
    uint8_t *remote; /* the peer's memory, mapped here (copy); owned unless the transport is self */
    uint64_t size;
    const struct bench_peer *peer;
    uint32_t streams;
    bool spin;
    int *sockets; /* owned; [threads * streams] */
};

/** What the rows call it. */
const char *bench_raw_name(const struct bench_raw *raw);

/** remote  of this process (self); NULL: the peer's is mapped. */
mc_status bench_raw_open(const struct bench_case *c, const struct bench_peer_options *options,
                         const struct bench_peer *peer, uint8_t *local, uint8_t *remote,
                         struct bench_raw *raw, struct mc_error *error);

/** One batch: blocks side by side from `offset` on. MC_OK, MC_E_IO or MC_E_PEER. */
mc_status bench_raw_move(struct bench_raw *raw, uint32_t thread, uint64_t offset);

void bench_raw_close(struct bench_raw *raw);

/* ------------------------------------------------------------------- the peer's end of sockets */

struct bench_raw_server; /* opaque */

/** Listen on loopback, for moves from and to memory [size]. */
mc_status bench_raw_serve_open(uint8_t *memory, uint64_t size, bool spin, const char *congestion,
                               struct bench_raw_server **server_p, uint32_t *port_p,
                               struct mc_error *error);

/** Serve until `other_fd` is readable. */
void bench_raw_serve(struct bench_raw_server *server, int other_fd);

/** Close its sockets, free it. */
void bench_raw_serve_close(struct bench_raw_server *server);

/** The header before each part. */
struct bench_raw_header {
    uint64_t op, offset, length;
};

/** A socket's options, alike at both ends. */
void bench_raw_tune(int fd, const char *congestion);

#endif /* CMD_BENCH_RAW_H */
