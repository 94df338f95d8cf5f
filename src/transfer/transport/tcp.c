/* tcp.c - the TCP transport's table: what it can do, its settings, where it listens. */
#define _GNU_SOURCE
#include "transfer/transport/tcp.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/alloc.h"
#include "base/error.h"
#include "transfer/transport/tcp_conn.h"

enum { ROLE_ENGINE = 6 /* in a hello; wire/msg.def */ };

#define TCP_ROW(...) SETTING_ROW(tcp_options, __VA_ARGS__)
static const struct setting rows[] = { TCP_SETTINGS(TCP_ROW) };

static mc_status probe(const struct transport_env *env, struct transport_caps *caps_p)
{
    (void)env;
    *caps_p = (struct transport_caps){
        .flags = TRANSPORT_CHECKSUM,
        .queue_depth = TCP_QUEUE_DEPTH,
        .slice_max = TCP_SLICE_MAX,
        .slice_best = TCP_SLICE_MAX,
        .paths = 1,
        .found = "sockets",
    };
    return MC_OK;
}

/* -------------------------------------------------------------------------------------- settings */

/** "a=1,b=2" becomes lines, which settings_config() reads. */
static mc_status read_settings(struct tcp *tcp, struct mc_error *error)
{
    const struct mc_alloc *alloc = tcp->env->alloc;
    const char *text = tcp->env->settings ? tcp->env->settings : "";
    const size_t size = strlen(text);

    tcp->settings_text = alloc_text(alloc, text, size);
    if (!tcp->settings_text)
        return error_set(error, MC_E_NOMEM, "tcp: out of memory");
    for (size_t i = 0; i < size; i++) {
        if (tcp->settings_text[i] == ',')
            tcp->settings_text[i] = '\n';
    }
    mc_status status = settings_init(&tcp->settings, rows, sizeof(rows) / sizeof(rows[0]),
                                     &tcp->options, alloc, error);
    if (status == MC_OK)
        status = settings_config(&tcp->settings, tcp->settings_text, size, "tcp", error);
    return status;
}

void tcp_socket_options(const struct tcp *tcp, int fd)
{
    const struct tcp_options *o = &tcp->options;
    const int nodelay = o->nodelay, on = 1, buffer = (int)o->buffer;
    const unsigned int silence_ms = (unsigned int)(o->silence / 1000000);
    /* A silent machine is found by probes, which keep idle connections honest, too. */
    const int idle_s = (int)(o->silence / 2000000000) + 1, interval_s = idle_s / 3 + 1, probes = 3;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &nodelay, sizeof(nodelay));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, o->congestion,
                     (socklen_t)strlen(o->congestion));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &silence_ms, sizeof(silence_ms));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
    if (buffer != 0) {
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer));
    }
}

struct wire_self tcp_self(const struct tcp *tcp)
{
    return (struct wire_self){
        .incarnation = tcp->env->incarnation,
        .features = WIRE_FEATURE_CHECKSUM,
        .role = ROLE_ENGINE,
        .name = tcp->name,
        .software = "mooncake " MC_VERSION,
        .secret = tcp->env->secret,
        .secret_size = tcp->env->secret_size,
    };
}

/* ------------------------------------------------------------------------------------ open, close */

/** Whether an address names every interface. */
static bool is_any(const struct os_address *address)
{
    struct sockaddr_storage any = { 0 };

    memcpy(&any, address->bytes, address->size);
    if (any.ss_family == AF_INET)
        return ((struct sockaddr_in *)&any)->sin_addr.s_addr == INADDR_ANY;
    return memcmp(&((struct sockaddr_in6 *)&any)->sin6_addr, &in6addr_any, sizeof(in6addr_any)) ==
           0;
}

/** Peers cannot dial "every interface": tell them the first one that others reach, else loopback. */
static void choose_interface(struct os_address *address)
{
    const uint16_t port = os_address_port(address);
    struct sockaddr_storage any = { 0 };
    struct ifaddrs *list = NULL;

    memcpy(&any, address->bytes, address->size);
    if (getifaddrs(&list) != 0)
        list = NULL;
    (void)os_address_parse(any.ss_family == AF_INET ? "127.0.0.1:1" : "[::1]:1", address, NULL);
    for (const struct ifaddrs *i = list; i; i = i->ifa_next) {
        if (!i->ifa_addr || i->ifa_addr->sa_family != any.ss_family ||
            (i->ifa_flags & IFF_LOOPBACK) || !(i->ifa_flags & IFF_UP))
            continue;
        if (any.ss_family == AF_INET6 &&
            IN6_IS_ADDR_LINKLOCAL(&((struct sockaddr_in6 *)i->ifa_addr)->sin6_addr))
            continue;
        memset(address->bytes, 0, sizeof(address->bytes));
        memcpy(address->bytes, i->ifa_addr, address->size);
        break;
    }
    if (list)
        freeifaddrs(list);
    os_address_port_set(address, port);
}

static mc_status open_transport(void *transport, const struct transport_env *env,
                                struct mc_error *error)
{
    struct tcp *tcp = transport;
    struct os_address bound;

    tcp->env = env;
    mc_status status = read_settings(tcp, error);
    if (status == MC_OK)
        status = tcp_server_open(tcp, &bound, error);
    if (status != MC_OK)
        return status;
    if (is_any(&bound))
        choose_interface(&bound);
    os_address_format(&bound, tcp->name);
    return MC_OK;
}

static void close_transport(void *transport)
{
    struct tcp *tcp = transport;

    tcp_server_close(tcp->server);
    tcp->server = NULL;
    settings_fini(&tcp->settings);
    if (tcp->settings_text)
        alloc_free(tcp->env->alloc, tcp->settings_text);
    tcp->settings_text = NULL;
}

static mc_status describe(void *transport, uint8_t address[TRANSPORT_KEY_MAX], size_t *size_p)
{
    const struct tcp *tcp = transport;

    *size_p = strlen(tcp->name);
    memcpy(address, tcp->name, *size_p);
    return MC_OK;
}

static void serve(void *transport, uint64_t now_ns, uint64_t *next_ns_p)
{
    tcp_server_run(((struct tcp *)transport)->server, now_ns, next_ns_p);
}

static mc_status serve_fd(void *transport, int *fd_p)
{
    *fd_p = tcp_server_fd(((struct tcp *)transport)->server);
    return MC_OK;
}

static_assert((int)OS_ADDRESS_TEXT <= (int)TRANSPORT_KEY_MAX, "an address is told as text");

const struct transport_ops transport_tcp = {
    .abi = TRANSPORT_ABI,
    .name = "tcp",
    .transport_bytes = sizeof(struct tcp),
    .queue_bytes = TCP_QUEUE_BYTES,
    .slice_bytes = TCP_OP_BYTES,
    .probe = probe,
    .open = open_transport,
    .close = close_transport,
    .describe = describe,
    .serve = serve,
    .serve_fd = serve_fd,
    .queue_open = tcp_queue_open,
    .post = tcp_queue_post,
    .poll = tcp_queue_poll,
    .arm = tcp_queue_arm,
    .cancel = tcp_queue_cancel,
    .queue_close = tcp_queue_close,
    .queue_error = tcp_queue_error,
};
