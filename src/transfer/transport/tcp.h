/*
 * tcp.h - the TCP transport: payload over plain sockets, several for each peer.
 *
 * Messages are data_read, data_write and data_done of wire/msg.def. A queue (tcp_queue.c) asks, over up to
 * `streams` sockets, any number of messages at once; its peer (tcp_serve.c, tcp_served.c) does what is
 * asked in the order of each socket. Payload goes from the memory where it lies to the memory where it
 * belongs; the processor of the target is on the path and pins memory only while it sends or receives.
 *
 * Life:    as transport.h says.
 * Threads: serving and each queue have nothing in common but what is written at open: no lock, no atomic.
 * Memory:  env->alloc, at open, queue_open and when a connection is accepted, which is the opening of it.
 */
#ifndef TRANSPORT_TCP_H
#define TRANSPORT_TCP_H

#include "base/setting.h"
#include "os/address.h"
#include "transfer/transport.h"
#include "wire/handshake.h"

/* Settings of the transport, "tcp.<name>=<value>" in mc_transfer_options.settings. */
#define TCP_SETTINGS(X) \
    X(port, "port", 0, U32, "0", 0, 65535, NULL, "N", "TCP", \
      "Listen for transfers here, at the engine's host; 0 is any free port.") \
    X(congestion, "congestion", 0, TEXT, "cubic", 0, 0, NULL, "NAME", "TCP", \
      "Congestion control of the kernel; one that is not there is the system's default.") \
    X(nodelay, "nodelay", 0, BOOL, "yes", 0, 0, NULL, NULL, "TCP", "Send small messages at once.") \
    X(buffer, "buffer", 0, SIZE, "0", 0, 1 << 30, NULL, "SIZE", "TCP", \
      "Bytes of each socket's buffers; 0 lets the kernel adapt them.") \
    X(greet, "greet", 0, DURATION, "5s", 1e6, 3600e9, NULL, "TIME", "TCP", \
      "A peer must have greeted within this time.") \
    X(silence, "silence", 0, DURATION, "30s", 1e9, 3600e9, NULL, "TIME", "TCP", \
      "Give a connection up when the other machine has been silent for so long.")

struct tcp_options {
    TCP_SETTINGS(SETTING_FIELD)
};

struct tcp_server; /* tcp_serve.c */

/** The transport's private bytes. Read-only after open, but for `server`, which is serve's. */
struct tcp {
    const struct transport_env *env; /* borrowed */
    struct tcp_options options;
    struct settings settings;   /* of options */
    char *settings_text;        /* owned; what the texts of options lie in */
    char name[OS_ADDRESS_TEXT]; /* where we listen: who we are in hellos */
    struct tcp_server *server;  /* owned */
};

/** Who we are, for a handshake. */
struct wire_self tcp_self(const struct tcp *tcp);

/** Set on a fresh socket what the settings say. What the kernel refuses stays as it is. */
void tcp_socket_options(const struct tcp *tcp, int fd);

/** Listen at env->listen's host. As os_tcp_listen(), or MC_E_NOMEM; nothing stays behind on error. */
mc_status tcp_server_open(struct tcp *tcp, struct os_address *bound_p, struct mc_error *error);
void tcp_server_close(struct tcp_server *server); /* NULL is allowed */
void tcp_server_run(struct tcp_server *server, uint64_t now_ns, uint64_t *next_ns_p);
int tcp_server_fd(const struct tcp_server *server);

/* The queue entries of the table (tcp_queue.c), and what they keep: checked there. */
enum { TCP_QUEUE_DEPTH = 1024, TCP_QUEUE_BYTES = 1024, TCP_OP_BYTES = 512 };
mc_status tcp_queue_open(void *transport, const struct transport_peer *peer, void *queue,
                         struct mc_error *error);
mc_status tcp_queue_post(void *queue, struct transport_slice *const *slices, uint32_t count,
                         uint32_t *posted_p);
mc_status tcp_queue_poll(void *queue, uint64_t now_ns, struct transport_completion *completions,
                         uint32_t max, uint32_t *count_p);
mc_status tcp_queue_arm(void *queue, int *fd_p);
void tcp_queue_cancel(void *queue, mc_status reason);
mc_status tcp_queue_close(void *queue);
void tcp_queue_error(void *queue, struct mc_error *error);

extern const struct transport_ops transport_tcp;

#endif /* TRANSPORT_TCP_H */
