/* address.c - addresses as text, and TCP sockets that listen, accept and dial without blocking. */
#define _GNU_SOURCE
#include "os/address.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"

enum { BACKLOG = 1024, HOST_MAX = 255, SCOPE_MAX = 16 /* of an interface's name, with '%' */ };

static_assert(sizeof(struct sockaddr_in6) <= sizeof(((struct os_address *)0)->bytes),
              "an address holds either family");

/** What the system calls take and fill: one object seen as each of its families. */
union any_socket_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_storage room;
};

static union any_socket_address to_system(const struct os_address *address)
{
    union any_socket_address system = { .room = { 0 } };

    memcpy(&system, address->bytes, address->size);
    return system;
}

/** False for a family that is neither. */
static bool from_system(const union any_socket_address *system, struct os_address *address_p)
{
    const uint32_t size = system->any.sa_family == AF_INET    ? sizeof(system->v4)
                          : system->any.sa_family == AF_INET6 ? sizeof(system->v6)
                                                              : 0;

    *address_p = (struct os_address){ .size = size };
    memcpy(address_p->bytes, system, size);
    return size != 0;
}

/* ----------------------------------------------------------------------------------------- text */

/** Where host and port lie in "host:port" or "[host]:port". */
static bool split(const char *text, char host[HOST_MAX + 1], uint16_t *port_p)
{
    const char *colon = strrchr(text, ':');
    const char *begin = text, *end = colon;
    uint32_t port = 0;

    if (!colon || colon[1] == '\0' || strlen(colon + 1) > 5)
        return false;
    for (const char *p = colon + 1; *p; p++) {
        if (*p < '0' || *p > '9')
            return false;
        port = port * 10 + (uint32_t)(*p - '0');
    }
    if (text[0] == '[') {
        begin++;
        end--;
        if (end < begin || *end != ']')
            return false;
    } else if (memchr(text, ':', (size_t)(colon - text))) {
        return false; /* IPv6 without brackets: which colon is the port's? */
    }
    const size_t length = (size_t)(end - begin);
    if (port > UINT16_MAX || length == 0 || length > HOST_MAX)
        return false;
    memcpy(host, begin, length);
    host[length] = '\0';
    *port_p = (uint16_t)port;
    return true;
}

/** "fe80::1%eth0" or without the interface: the resolver reads numbers without asking anybody. */
static bool parse_v6(const char *host, struct sockaddr_in6 *v6)
{
    const struct addrinfo hints = { .ai_family = AF_INET6,
                                    .ai_socktype = SOCK_STREAM,
                                    .ai_flags = AI_NUMERICHOST };
    struct addrinfo *found = NULL;

    if (getaddrinfo(host, NULL, &hints, &found) != 0)
        return false;
    memcpy(v6, found->ai_addr, sizeof(*v6));
    freeaddrinfo(found);
    return true;
}

static bool has_letter(const char *host)
{
    for (; *host; host++)
        if ((*host | 0x20) >= 'a' && (*host | 0x20) <= 'z')
            return true;
    return false;
}

static mc_status resolve(const char *host, const char *text, union any_socket_address *system,
                         struct mc_error *error)
{
    const struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
    struct addrinfo *found = NULL;
    const int reason = getaddrinfo(host, NULL, &hints, &found);

    if (reason != 0)
        return error_set(error, MC_E_NOT_FOUND, "%s: cannot find the host: %s", text,
                         reason == EAI_SYSTEM ? strerror(errno) : gai_strerror(reason));
    memcpy(system, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return MC_OK;
}

static mc_status find_host(const char *text, const char *host, union any_socket_address *system,
                           struct mc_error *error)
{
    if (text[0] == '[') {
        if (!parse_v6(host, &system->v6))
            return error_set(error, MC_E_ARG, "%s: between the brackets is no IPv6 address", text);
        return MC_OK;
    }
    system->v4.sin_family = AF_INET;
    if (inet_pton(AF_INET, strcmp(host, "localhost") == 0 ? "127.0.0.1" : host,
                  &system->v4.sin_addr) == 1)
        return MC_OK;
    /* The resolver would take "1.2" or "80" as an address of old; nobody who writes them means it. */
    if (!has_letter(host))
        return error_set(error, MC_E_ARG, "%s: is no IPv4 address and no name", text);
    return resolve(host, text, system, error);
}

mc_status os_address_parse(const char *text, struct os_address *address_p, struct mc_error *error)
{
    union any_socket_address system = { .room = { 0 } };
    struct os_address address;
    char host[HOST_MAX + 1];
    uint16_t port;

    if (!split(text, host, &port))
        return error_set(error, MC_E_ARG, "%s: is not host:port or [IPv6]:port", text);
    const mc_status status = find_host(text, host, &system, error);
    if (status != MC_OK)
        return status;
    if (!from_system(&system, &address))
        return error_set(error, MC_E_NOT_FOUND, "%s: is neither IPv4 nor IPv6", text);
    os_address_port_set(&address, port);
    *address_p = address;
    return MC_OK;
}

char *os_address_format(const struct os_address *address, char text[OS_ADDRESS_TEXT])
{
    const union any_socket_address system = to_system(address);
    const bool v6 = system.any.sa_family == AF_INET6;
    char host[INET6_ADDRSTRLEN + SCOPE_MAX] = "";

    if (address->size == 0 ||
        getnameinfo(&system.any, address->size, host, sizeof(host), NULL, 0, NI_NUMERICHOST) != 0)
        snprintf(text, OS_ADDRESS_TEXT, "?");
    else
        snprintf(text, OS_ADDRESS_TEXT, "%s%s%s:%u", v6 ? "[" : "", host, v6 ? "]" : "",
                 os_address_port(address));
    return text;
}

bool os_address_is_loopback(const struct os_address *address)
{
    const union any_socket_address system = to_system(address);

    if (system.any.sa_family == AF_INET)
        return ntohl(system.v4.sin_addr.s_addr) >> 24 == 127;
    if (system.any.sa_family != AF_INET6)
        return false;
    return IN6_IS_ADDR_LOOPBACK(&system.v6.sin6_addr) ||
           (IN6_IS_ADDR_V4MAPPED(&system.v6.sin6_addr) && system.v6.sin6_addr.s6_addr[12] == 127);
}

bool os_address_equal(const struct os_address *a, const struct os_address *b)
{
    const union any_socket_address x = to_system(a), y = to_system(b);

    if (x.any.sa_family != y.any.sa_family)
        return false;
    if (x.any.sa_family == AF_INET)
        return x.v4.sin_port == y.v4.sin_port && x.v4.sin_addr.s_addr == y.v4.sin_addr.s_addr;
    return x.v6.sin6_port == y.v6.sin6_port && x.v6.sin6_scope_id == y.v6.sin6_scope_id &&
           memcmp(&x.v6.sin6_addr, &y.v6.sin6_addr, sizeof(x.v6.sin6_addr)) == 0;
}

/* The port lies at the same place in both families. */
static_assert(offsetof(struct sockaddr_in, sin_port) == offsetof(struct sockaddr_in6, sin6_port),
              "one way to the port");

uint16_t os_address_port(const struct os_address *address)
{
    return ntohs(to_system(address).v4.sin_port);
}

void os_address_port_set(struct os_address *address, uint16_t port)
{
    union any_socket_address system = to_system(address);

    system.v4.sin_port = htons(port);
    memcpy(address->bytes, &system, address->size);
}

/* -------------------------------------------------------------------------------------- sockets */

static mc_status status_of(int reason)
{
    switch (reason) {
    case EADDRINUSE:
        return MC_E_EXISTS;
    case EACCES:
    case EPERM:
        return MC_E_DENIED;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        return MC_E_FULL;
    default:
        return MC_E_IO;
    }
}

static mc_status fail(const struct os_address *address, const char *what, int reason,
                      mc_status status, struct mc_error *error)
{
    char text[OS_ADDRESS_TEXT];

    return error_set(error, status, "%s: cannot %s: %s", os_address_format(address, text), what,
                     strerror(reason));
}

static void send_at_once(int fd)
{
    const int on = 1;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static int open_socket(const struct os_address *address)
{
    return socket(to_system(address).any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

/** Bind and listen. Returns 0 or the system's reason. */
static int serve(int fd, const struct os_address *address)
{
    const union any_socket_address system = to_system(address);
    const int on = 1, off = 0;

    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0)
        return errno;
    if (system.any.sa_family == AF_INET6) /* whatever the machine's default is */
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    if (bind(fd, &system.any, address->size) != 0 || listen(fd, BACKLOG) != 0)
        return errno;
    return 0;
}

mc_status os_tcp_listen(const struct os_address *address, int *fd_p, struct os_address *bound_p,
                        struct mc_error *error)
{
    union any_socket_address bound = { .room = { 0 } };
    socklen_t size = sizeof(bound);
    const int fd = open_socket(address);

    if (fd < 0)
        return fail(address, "make a socket", errno, status_of(errno), error);
    int reason = serve(fd, address);
    if (reason == 0 && getsockname(fd, &bound.any, &size) != 0)
        reason = errno;
    if (reason != 0) {
        close(fd);
        return fail(address, "listen there", reason, status_of(reason), error);
    }
    if (bound_p)
        from_system(&bound, bound_p);
    *fd_p = fd;
    return MC_OK;
}

/** Whether accept() failed for the one who came and not for us: the next one may be fine. */
static bool concerns_one(int reason)
{
    switch (reason) {
    case EINTR:
    case ECONNABORTED:
    case EPROTO:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EPERM: /* a firewall's */
        return true;
    default:
        return false;
    }
}

mc_status os_tcp_accept(int listener, int *fd_p, struct os_address *peer_p)
{
    union any_socket_address peer = { .room = { 0 } };

    for (;;) {
        socklen_t size = sizeof(peer);
        const int fd = accept4(listener, &peer.any, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd >= 0) {
            send_at_once(fd);
            if (peer_p)
                from_system(&peer, peer_p);
            *fd_p = fd;
            return MC_OK;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return MC_PENDING;
        if (!concerns_one(errno))
            return status_of(errno) == MC_E_FULL ? MC_E_FULL : MC_E_IO;
    }
}

/** A dial's failure: nearly always the other end's or the way's. */
static mc_status dial_failed(const struct os_address *address, int reason, struct mc_error *error)
{
    mc_status status = MC_E_PEER;

    if (status_of(reason) == MC_E_FULL || reason == EADDRNOTAVAIL)
        status = MC_E_FULL;
    return fail(address, "connect", reason, status, error);
}

mc_status os_tcp_dial(const struct os_address *address, int *fd_p, struct mc_error *error)
{
    const union any_socket_address system = to_system(address);
    const int fd = open_socket(address);

    if (fd < 0)
        return fail(address, "make a socket", errno, status_of(errno), error);
    send_at_once(fd);
    /* Interrupted, it goes on by itself as if it were in progress. */
    if (connect(fd, &system.any, address->size) != 0 && errno != EINPROGRESS && errno != EINTR) {
        const int reason = errno;
        close(fd);
        return dial_failed(address, reason, error);
    }
    *fd_p = fd;
    return MC_OK;
}

mc_status os_tcp_dialled(int fd, const struct os_address *address, struct mc_error *error)
{
    union any_socket_address here = { .room = { 0 } }, there = { .room = { 0 } };
    socklen_t size = sizeof(int), here_size = sizeof(here), there_size = sizeof(there);
    struct os_address a, b;
    int reason = 0;

    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &reason, &size) != 0)
        reason = errno;
    if (reason != 0)
        return dial_failed(address, reason, error);
    if (getpeername(fd, &there.any, &there_size) != 0) {
        if (errno == ENOTCONN)
            return MC_PENDING;
        return dial_failed(address, errno, error);
    }
    if (getsockname(fd, &here.any, &here_size) == 0 && from_system(&here, &a) &&
        from_system(&there, &b) && os_address_equal(&a, &b))
        return dial_failed(address, ECONNREFUSED, error);
    return MC_OK;
}
