/* net.c - who we are, opened and closed; dialling. */
#include "net/net_conn.h"

#include <assert.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "os/host.h"
#include "os/random.h"

enum { CONNECTIONS_MAX = 1024, ASKS_MAX = 4096 };

static const uint64_t GREET_NS = 5000000000, OUT_MAX = 32 << 20;

/** Two machines of one boot id are one machine; the hash keeps the id itself to us. */
static struct mc_identity this_host(void)
{
    struct mc_identity host = { { 0 } };
    char text[64] = "mooncake host ";

    if (!os_boot_id(text + strlen(text)) ||
        !SHA256((const unsigned char *)text, strlen(text), host.bytes))
        return (struct mc_identity){ { 0 } }; /* not said: then nobody is on the same host */
    return host;
}

static uint32_t or_u32(uint32_t value, uint32_t otherwise)
{
    return value ? value : otherwise;
}

static uint64_t or_u64(uint64_t value, uint64_t otherwise)
{
    return value ? value : otherwise;
}

/** A copy; NULL stays NULL. Sets *failed if memory is out. */
static const char *copy_text(const char *text, const struct mc_alloc *alloc, bool *failed)
{
    char *copy = text ? alloc_text(alloc, text, strlen(text)) : NULL;

    *failed = *failed || (text && !copy);
    return copy;
}

/** Options with their defaults, texts and secret copied. */
static mc_status copy_options(net *n, const struct net_options *options)
{
    struct net_options *own = &n->options;
    const struct mc_alloc *alloc = options->alloc;
    bool failed = false;

    *own = *options;
    own->incarnation = or_u64(options->incarnation, os_random_u64());
    own->greet_ns = or_u64(options->greet_ns, GREET_NS);
    own->connections_max = or_u32(options->connections_max, CONNECTIONS_MAX);
    own->asks_max = or_u32(options->asks_max, ASKS_MAX);
    own->out_max = or_u64(options->out_max, OUT_MAX);
    if (own->silence_ns > UINT64_MAX / 4) /* nobody lives so long */
        own->silence_ns = 0;
    own->name = copy_text(options->name, alloc, &failed);
    own->segment = copy_text(options->segment, alloc, &failed);
    own->tenant = copy_text(options->tenant ? options->tenant : "default", alloc, &failed);
    own->secret = options->secret ? alloc_bytes(alloc, options->secret_size) : NULL;
    if (failed || (options->secret && !own->secret))
        return MC_E_NOMEM;
    if (own->secret)
        memcpy((void *)(uintptr_t)own->secret, options->secret, options->secret_size);
    return MC_OK;
}

/** By beginning a handshake that nobody reads. */
static mc_status check_self(const struct wire_self *self, const struct mc_alloc *alloc,
                            struct mc_error *error)
{
    struct wire_handshake *trial = alloc_bytes(alloc, sizeof(*trial));
    const struct mc_identity nonce = { { 1 } };

    if (!trial)
        return error_set(error, MC_E_NOMEM, "out of memory");
    const mc_status status = wire_handshake_init(trial, self, true, &nonce, error);
    alloc_free(alloc, trial);
    return status;
}

static void free_text(const net *n, const void *text)
{
    alloc_free(n->options.alloc, (void *)(uintptr_t)text);
}

mc_status net_name_set(net *n, const char *name, const char *segment)
{
    const struct mc_alloc *alloc = n->options.alloc;
    bool failed = false;
    const char *names[2] = { copy_text(name, alloc, &failed), copy_text(segment, alloc, &failed) };
    struct wire_self self = n->self;

    self.name = names[0];
    self.segment = names[1];
    const mc_status status = failed ? MC_E_NOMEM : check_self(&self, alloc, NULL);
    const char *const unused[2] = { status == MC_OK ? n->options.name : names[0],
                                    status == MC_OK ? n->options.segment : names[1] };
    if (status == MC_OK) {
        n->self = self;
        n->options.name = names[0];
        n->options.segment = names[1];
    }
    free_text(n, unused[0]);
    free_text(n, unused[1]);
    return status;
}

mc_status net_open(const struct net_options *options, net **net_p, struct mc_error *error)
{
    assert(options->alloc && options->loop && options->role != 0);
    if (options->secret && (options->secret_size == 0 || options->secret_size > WIRE_SECRET_MAX))
        return error_set(error, MC_E_RANGE, "secret: has %zu bytes; 1 to %d are allowed",
                         options->secret_size, WIRE_SECRET_MAX);
    net *n = alloc_zeroed(options->alloc, 1, sizeof(*n));
    if (!n)
        return error_set(error, MC_E_NOMEM, "out of memory");
    mc_status status = copy_options(n, options);
    n->in = alloc_bytes(options->alloc, NET_IN_BYTES);
    if (status != MC_OK || !n->in) {
        status = error_set(error, MC_E_NOMEM, "out of memory");
        goto err;
    }
    n->host = this_host();
    n->self = (struct wire_self){
        .incarnation = n->options.incarnation,
        .features = WIRE_FEATURE_CHECKSUM | WIRE_FEATURE_SAME_HOST,
        .role = n->options.role,
        .name = n->options.name,
        .software = n->software,
        .segment = n->options.segment,
        .tenant = n->options.tenant,
        .host = n->host,
        .secret = n->options.secret,
        .secret_size = n->options.secret_size,
    };
    snprintf(n->software, sizeof(n->software), "mooncake %s", mc_version());
    status = check_self(&n->self, options->alloc, error);
    if (status != MC_OK)
        goto err;
    *net_p = n;
    return MC_OK;

err:
    net_close(n);
    return status;
}

void net_close(net *n)
{
    if (!n)
        return;
    assert(n->calling == 0);
    while (n->listeners)
        listener_close(n->listeners);
    while (n->conns)
        conn_end(n->conns);
    free_text(n, n->options.name);
    free_text(n, n->options.segment);
    free_text(n, n->options.tenant);
    if (n->options.secret) /* not left lying in memory that others get */
        memset((void *)(uintptr_t)n->options.secret, 0, n->options.secret_size);
    free_text(n, n->options.secret);
    alloc_free(n->options.alloc, n->in);
    alloc_free(n->options.alloc, n);
}

uint32_t net_flushing(const net *n)
{
    return n->flushing;
}

struct net_counts net_counts(const net *n)
{
    return n->counts;
}

uint64_t net_incarnation(const net *n)
{
    return n->options.incarnation;
}

const struct mc_identity *net_host(const net *n)
{
    return &n->host;
}

mc_status net_dial(net *n, const char *address, const struct net_events *events, void *user,
                   net_conn **conn_p, struct mc_error *error)
{
    struct os_address to;

    if (os_address_parse(address, &to, error) != MC_OK) {
        if (error)
            error->status = MC_E_ARG;
        return MC_E_ARG;
    }
    if (os_address_port(&to) == 0)
        return error_set(error, MC_E_ARG, "%s: nobody is reached at port 0", address);
    const mc_status status = conn_open(n, &to, -1, events, user, conn_p);
    if (status != MC_OK)
        return error_set(error, status, "%s: out of memory for a connection", address);
    return MC_OK;
}
