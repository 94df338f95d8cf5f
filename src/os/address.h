/*
 * address.h - where a process is reached by TCP, and the sockets made from that.
 *
 * Life:    os_address_parse -> os_tcp_listen -> os_tcp_accept*   or   -> os_tcp_dial -> os_tcp_dialled
 * Threads: any; an address is a plain value.
 * Memory:  nothing is allocated here. Descriptors are the caller's: close().
 * Errors:  events, with a text that names the address. Every socket is non-blocking, is not inherited by
 *          programs started, and sends small writes at once (TCP_NODELAY).
 */
#ifndef OS_ADDRESS_H
#define OS_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>

#include <mooncake/status.h>

enum { OS_ADDRESS_TEXT = 80 }; /* bytes of any address as text, with its NUL */

/** An IPv4 or IPv6 address and a port. Compared with os_address_equal(). */
struct os_address {
    uint64_t bytes[4]; /* a struct sockaddr_in or sockaddr_in6 */
    uint32_t size;     /* of it; 0: none */
};

/**
 * Read "1.2.3.4:80", "[2001:db8::1]:80", "[fe80::1%eth0]:80", "localhost:80" or "name:80". "localhost"
 * is 127.0.0.1 without asking anybody. Another name is asked of the system's resolver, once, and
 * **may block** for as long as that takes; its first answer is taken.
 *
 * Returns MC_OK, MC_E_ARG (not an address) or MC_E_NOT_FOUND (the resolver does not know the name).
 */
mc_status os_address_parse(const char *text, struct os_address *address_p, struct mc_error *error);

/** The text that os_address_parse() reads back; returns `text`. */
char *os_address_format(const struct os_address *address, char text[OS_ADDRESS_TEXT]);

/** Reached by this machine only: 127.0.0.0/8, ::1, and the former as IPv6. */
bool os_address_is_loopback(const struct os_address *address);

bool os_address_equal(const struct os_address *a, const struct os_address *b);

uint16_t os_address_port(const struct os_address *address);
void os_address_port_set(struct os_address *address, uint16_t port);

/**
 * Listen, with SO_REUSEADDR. Port 0: any that is free. "[::]" takes IPv4 too.
 *
 * bound_p  the address with its real port; may be NULL.
 *
 * Returns MC_OK, MC_E_EXISTS (another one listens there), MC_E_DENIED (a port that needs rights), MC_E_FULL
 * (descriptors) or MC_E_IO.
 */
mc_status os_tcp_listen(const struct os_address *address, int *fd_p, struct os_address *bound_p,
                        struct mc_error *error);

/**
 * Take one who wants to connect. peer_p may be NULL.
 *
 * Returns MC_OK, MC_PENDING (nobody waits), MC_E_FULL (no descriptor or memory left: the one who waits
 * goes on waiting, so do not ask again at once) or MC_E_IO.
 */
mc_status os_tcp_accept(int listener, int *fd_p, struct os_address *peer_p);

/**
 * Begin to connect. When the socket is writable, or hung up, os_tcp_dialled() says what became of it.
 *
 * Returns MC_OK, MC_E_PEER (known at once: refused, no route), MC_E_FULL (descriptors, ports) or MC_E_IO.
 */
mc_status os_tcp_dial(const struct os_address *address, int *fd_p, struct mc_error *error);

/**
 * How a dial ended: MC_OK, MC_PENDING (not yet) or MC_E_PEER. A socket that met itself (a port of the
 * range for outgoing ones where nobody listens) counts as refused.
 */
mc_status os_tcp_dialled(int fd, const struct os_address *address, struct mc_error *error);

#endif /* OS_ADDRESS_H */
