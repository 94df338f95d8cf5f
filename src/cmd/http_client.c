/* http_client.c - libcurl's multi interface by sockets: what it wants watched, the loop watches. */
#define _POSIX_C_SOURCE 200809L
#include "cmd/http_client.h"

#include <curl/curl.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "os/address.h"
#include "os/clock.h"

enum { RECEIVE_BYTES = 4096, SEND_BYTES = 16384, CONNECTIONS_KEPT = 1 << 20 };

/** A handle of libcurl and its texts; used again by one call after another. */
struct http_exchange {
    CURL *easy;
    struct http_call *call; /* NULL: free */
    struct http_exchange *next_free, *next_all;
    bool deaf; /* its socket cannot be watched: it is to be ended */
    char error[CURL_ERROR_SIZE];
    char url[1024];
};

/** A socket that libcurl wants watched. */
struct http_socket {
    struct os_watch watch;
    http_client *client;
    struct http_socket *next, **link;
};

struct http_client {
    struct http_client_options o;
    CURLM *multi;
    struct os_timer timer;
    struct curl_slist *headers, *resolve;
    struct http_exchange *free, *all;
    struct http_socket *sockets;
    bool deaf;      /* an exchange is */
    char base[512]; /* [base_size], without '/' at the end */
    size_t base_size;
};

/* ---------------------------------------------------------------------------------- ends of calls */

static mc_status status_of(CURLcode code)
{
    switch (code) {
    case CURLE_OK:
        return MC_OK;
    case CURLE_OPERATION_TIMEDOUT:
        return MC_E_TIMEOUT;
    case CURLE_OUT_OF_MEMORY:
        return MC_E_NOMEM;
    case CURLE_WRITE_ERROR:
        return MC_E_CANCELLED; /* our own callback said stop */
    case CURLE_COULDNT_CONNECT:
    case CURLE_GOT_NOTHING:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_PARTIAL_FILE:
        return MC_E_PEER;
    default:
        return MC_E_IO;
    }
}

static void release(http_client *client, struct http_exchange *x)
{
    curl_multi_remove_handle(client->multi, x->easy);
    x->deaf = false;
    x->call->exchange = NULL;
    x->call = NULL;
    x->next_free = client->free;
    client->free = x;
}

/* Tell what has ended. Callbacks may begin new calls. */
static void tell_ends(http_client *client)
{
    const CURLMsg *message;
    int left;

    while ((message = curl_multi_info_read(client->multi, &left))) {
        char *private;
        if (message->msg != CURLMSG_DONE)
            continue;
        const CURLcode code = message->data.result; /* gone with the handle's removal */
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &private);
        struct http_exchange *x = (void *)private;
        struct http_end end = { .status = status_of(code), .text = "" };
        char text[CURL_ERROR_SIZE];
        curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &end.code);
        if (code != CURLE_OK) {
            snprintf(text, sizeof(text), "%s", x->error[0] ? x->error : curl_easy_strerror(code));
            end.text = text;
        }
        struct http_call *call = x->call;
        release(client, x);
        call->end(call->user, &end);
    }
}

/* A transfer whose socket nobody watches would wait for ever. */
static void end_deaf(http_client *client)
{
    const struct http_end end = { .status = MC_E_NOMEM, .text = "no memory to watch a socket" };

    client->deaf = false;
    for (struct http_exchange *x = client->all; x; x = x->next_all) {
        if (!x->deaf)
            continue;
        struct http_call *call = x->call;
        release(client, x);
        call->end(call->user, &end);
    }
}

/* ----------------------------------------------------------------------- what libcurl asks the loop */

static void act(http_client *client, curl_socket_t socket, int events)
{
    int running;

    (void)curl_multi_socket_action(client->multi, socket, events, &running);
    tell_ends(client);
    if (client->deaf)
        end_deaf(client);
}

static void on_ready(void *user, uint32_t events)
{
    struct http_socket *s = user; /* may be gone when act() returns */
    const int flags = (events & (OS_READABLE | OS_HUNG_UP) ? CURL_CSELECT_IN : 0) |
                      (events & OS_WRITABLE ? CURL_CSELECT_OUT : 0);

    act(s->client, s->watch.fd, flags);
}

/* The timer is always set, perhaps for ever, so that setting it anew cannot fail for want of memory. */
static void on_due(void *user, uint64_t now_ns)
{
    http_client *client = user;

    (void)now_ns;
    (void)os_loop_timer(client->o.loop, &client->timer, UINT64_MAX); /* its place is free */
    act(user, CURL_SOCKET_TIMEOUT, 0);
}

static void forget(struct http_socket *s)
{
    os_loop_unwatch(s->client->o.loop, &s->watch);
    *s->link = s->next;
    if (s->next)
        s->next->link = s->link;
    alloc_free(s->client->o.alloc, s);
}

static struct http_socket *remember(http_client *client, curl_socket_t fd)
{
    struct http_socket *s = alloc_zeroed(client->o.alloc, 1, sizeof(*s));

    if (!s)
        return NULL;
    s->watch = (struct os_watch){ .fd = fd, .ready = on_ready, .user = s };
    s->client = client;
    s->next = client->sockets;
    s->link = &client->sockets;
    if (s->next)
        s->next->link = &s->next;
    client->sockets = s;
    return s;
}

/* libcurl must not be told: it would end every transfer there is, and take no new one. */
static void cannot_watch(http_client *client, CURL *easy)
{
    char *private;

    curl_easy_getinfo(easy, CURLINFO_PRIVATE, &private);
    ((struct http_exchange *)(void *)private)->deaf = true;
    client->deaf = true;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *known)
{
    http_client *client = user;
    struct http_socket *s = known;

    if (what == CURL_POLL_REMOVE) {
        if (s)
            forget(s);
        return 0;
    }
    if (!s) {
        s = remember(client, fd);
        if (!s) {
            cannot_watch(client, easy);
            return 0;
        }
        curl_multi_assign(client->multi, fd, s);
    }
    const uint32_t events =
        (what & CURL_POLL_IN ? OS_READABLE : 0u) | (what & CURL_POLL_OUT ? OS_WRITABLE : 0u);
    if (os_loop_watch(client->o.loop, &s->watch, events) != MC_OK)
        cannot_watch(client, easy);
    return 0;
}

static int on_timer(CURLM *multi, long timeout_ms, void *user)
{
    http_client *client = user;

    (void)multi;
    const uint64_t at_ns =
        timeout_ms < 0 ? UINT64_MAX : os_now_ns() + (uint64_t)timeout_ms * 1000000;
    (void)os_loop_timer(client->o.loop, &client->timer, at_ns); /* it is set, so this cannot fail */
    return 0;
}

/* ---------------------------------------------------------------------------------------- answers */

static size_t on_data(char *bytes, size_t one, size_t size, void *user)
{
    const struct http_exchange *x = user;
    const struct http_call *call = x->call;

    return !call->data || call->data(call->user, bytes, one * size) ? one * size : 0;
}

/* A status line and the empty line have no colon in front. */
static size_t on_header(char *line, size_t one, size_t size, void *user)
{
    const struct http_exchange *x = user;
    const struct http_call *call = x->call;
    const char *end = line + one * size, *colon = memchr(line, ':', one * size);

    if (!colon || !call->header)
        return one * size;
    const char *value = colon + 1;
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    while (end > value && (end[-1] == '\r' || end[-1] == '\n' || end[-1] == ' '))
        end--;
    call->header(call->user, line, (size_t)(colon - line), value, (size_t)(end - value));
    return one * size;
}

/* ----------------------------------------------------------------------------------------- calls */

static bool set_up(http_client *client, struct http_exchange *x)
{
    CURL *easy = x->easy;
    CURLcode code = curl_easy_setopt(easy, CURLOPT_PRIVATE, (void *)x);
    const long connect_ms = (long)(client->o.connect_ns ? client->o.connect_ns / 1000000 : 10000);

    code = code ? code : curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, x->error);
    code = code ? code : curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_data);
    code = code ? code : curl_easy_setopt(easy, CURLOPT_WRITEDATA, (void *)x);
    code = code ? code : curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    code = code ? code : curl_easy_setopt(easy, CURLOPT_HEADERDATA, (void *)x);
    code = code ? code : curl_easy_setopt(easy, CURLOPT_HTTPHEADER, client->headers);
    code = code ? code : curl_easy_setopt(easy, CURLOPT_RESOLVE, client->resolve);
    code = code ? code : curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    code = code ? code : curl_easy_setopt(easy, CURLOPT_PROXY, "");
    code = code ? code : curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    code = code ? code : curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)RECEIVE_BYTES);
    code = code ? code : curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, (long)SEND_BYTES);
    code = code ? code : curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, connect_ms);
    code = code ? code
                : curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS,
                                   (long)((client->o.timeout_ns + 999999) / 1000000));
    return code == CURLE_OK;
}

static struct http_exchange *exchange(http_client *client)
{
    struct http_exchange *x = client->free;

    if (x) {
        client->free = x->next_free;
        return x;
    }
    x = alloc_zeroed(client->o.alloc, 1, sizeof(*x));
    if (!x)
        return NULL;
    x->easy = curl_easy_init();
    if (!x->easy || !set_up(client, x)) {
        curl_easy_cleanup(x->easy);
        alloc_free(client->o.alloc, x);
        return NULL;
    }
    x->next_all = client->all;
    client->all = x;
    return x;
}

static bool ask(struct http_exchange *x, const http_client *client, const struct http_call *call)
{
    CURLcode code = CURLE_OK;

    x->error[0] = '\0';
    if (strcmp(x->url + (x->url[0] ? client->base_size : 0), call->path) != 0) {
        if (snprintf(x->url, sizeof(x->url), "%s%s", client->base, call->path) >=
            (int)sizeof(x->url))
            return false;
        code = curl_easy_setopt(x->easy, CURLOPT_URL, x->url);
    }
    if (call->body) {
        code = code ? code : curl_easy_setopt(x->easy, CURLOPT_POST, 1L);
        code = code ? code
                    : curl_easy_setopt(x->easy, CURLOPT_POSTFIELDSIZE_LARGE,
                                       (curl_off_t)call->body_size);
        code = code ? code : curl_easy_setopt(x->easy, CURLOPT_POSTFIELDS, call->body);
    } else {
        code = code ? code : curl_easy_setopt(x->easy, CURLOPT_HTTPGET, 1L);
    }
    return code == CURLE_OK;
}

mc_status http_client_begin(http_client *client, struct http_call *call)
{
    struct http_exchange *x = exchange(client);

    if (!x)
        return MC_E_NOMEM;
    x->call = call;
    call->client = client;
    call->exchange = x;
    if (ask(x, client, call) && curl_multi_add_handle(client->multi, x->easy) == CURLM_OK)
        return MC_OK;
    release(client, x);
    return MC_E_NOMEM;
}

void http_client_cancel(http_client *client, struct http_call *call)
{
    if (call->exchange)
        release(client, call->exchange);
}

/* ------------------------------------------------------------------------------------------ life */

static bool add_header(http_client *client, const char *line)
{
    struct curl_slist *list = curl_slist_append(client->headers, line);

    if (list)
        client->headers = list;
    return list != NULL;
}

static mc_status add_headers(http_client *client, struct mc_error *error)
{
    /* An empty "Expect:" keeps libcurl from waiting for "100 Continue" before large bodies. */
    bool done = add_header(client, "Content-Type: application/json") &&
                add_header(client, "Expect:") && add_header(client, "User-Agent: mooncake");

    for (const char *const *line = client->o.headers; line && *line && done; line++)
        done = add_header(client, *line);
    return done ? MC_OK : error_set(error, MC_E_NOMEM, "no memory for headers");
}

/* libcurl would resolve a name in a thread of its own, again and again. */
static mc_status resolve(http_client *client, const char *host, const char *port,
                         struct mc_error *error)
{
    char text[300], address_text[OS_ADDRESS_TEXT], entry[400];
    struct os_address address;

    snprintf(text, sizeof(text), "%s:%s", host, port);
    const mc_status status = os_address_parse(text, &address, error);
    if (status != MC_OK || host[0] == '[')
        return status;
    os_address_format(&address, address_text);
    *strrchr(address_text, ':') = '\0';
    snprintf(entry, sizeof(entry), "%s:%s:%s", host, port, address_text);
    client->resolve = curl_slist_append(NULL, entry);
    return client->resolve ? MC_OK : error_set(error, MC_E_NOMEM, "no memory for an address");
}

/* Take the URL apart; its parts are asked of libcurl, so that both understand the same. */
static mc_status take_url(http_client *client, struct mc_error *error)
{
    const char *url = client->o.url;
    char *host = NULL, *port = NULL, *path = NULL, *scheme = NULL, *user = NULL;
    CURLU *parts = curl_url();
    mc_status status;

    if (!parts)
        return error_set(error, MC_E_NOMEM, "no memory for a URL");
    if (curl_url_set(parts, CURLUPART_URL, url, 0) != CURLUE_OK ||
        curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
        (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0) ||
        curl_url_get(parts, CURLUPART_HOST, &host, 0) != CURLUE_OK ||
        curl_url_get(parts, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) != CURLUE_OK ||
        curl_url_get(parts, CURLUPART_PATH, &path, 0) != CURLUE_OK ||
        curl_url_get(parts, CURLUPART_USER, &user, 0) == CURLUE_OK || strpbrk(url, "?#") ||
        strlen(url) >= sizeof(client->base))
        status = error_set(error, MC_E_ARG, "%.200s: is no URL like http://127.0.0.1:8000", url);
    else
        status = resolve(client, host, port, error);
    if (status == MC_OK) {
        client->base_size = strlen(url);
        while (client->base_size > 0 && url[client->base_size - 1] == '/')
            client->base_size--;
        memcpy(client->base, url, client->base_size);
    }
    curl_free(host);
    curl_free(port);
    curl_free(path);
    curl_free(scheme);
    curl_free(user);
    curl_url_cleanup(parts);
    return status;
}

static mc_status begin_multi(http_client *client, struct mc_error *error)
{
    CURLMcode code;

    client->multi = curl_multi_init();
    if (!client->multi)
        return error_set(error, MC_E_NOMEM, "no memory for HTTP");
    code = curl_multi_setopt(client->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    code = code ? code : curl_multi_setopt(client->multi, CURLMOPT_SOCKETDATA, (void *)client);
    code = code ? code : curl_multi_setopt(client->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    code = code ? code : curl_multi_setopt(client->multi, CURLMOPT_TIMERDATA, (void *)client);
    code = code ? code
                : curl_multi_setopt(client->multi, CURLMOPT_MAXCONNECTS, (long)CONNECTIONS_KEPT);
    return code == CURLM_OK ? MC_OK : error_set(error, MC_E_IO, "%s", curl_multi_strerror(code));
}

mc_status http_client_open(const struct http_client_options *options, http_client **client_p,
                           struct mc_error *error)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return error_set(error, MC_E_IO, "libcurl does not start");
    http_client *client = alloc_zeroed(options->alloc, 1, sizeof(*client));
    if (!client) {
        curl_global_cleanup();
        return error_set(error, MC_E_NOMEM, "no memory for HTTP");
    }
    client->o = *options;
    client->timer = (struct os_timer){ .due = on_due, .user = client };
    mc_status status = take_url(client, error);
    if (status == MC_OK)
        status = add_headers(client, error);
    if (status == MC_OK)
        status = begin_multi(client, error);
    if (status == MC_OK && os_loop_timer(client->o.loop, &client->timer, UINT64_MAX) != MC_OK)
        status = error_set(error, MC_E_NOMEM, "no memory for a timer");
    client->o.headers = NULL;
    client->o.url = NULL;
    if (status != MC_OK) {
        http_client_close(client);
        return status;
    }
    *client_p = client;
    return MC_OK;
}

void http_client_close(http_client *client)
{
    if (!client)
        return;
    while (client->all) {
        struct http_exchange *x = client->all;
        client->all = x->next_all;
        if (x->call)
            release(client, x);
        curl_easy_cleanup(x->easy);
        alloc_free(client->o.alloc, x);
    }
    curl_multi_cleanup(client->multi); /* closes connections, and so lets go of sockets */
    while (client->sockets)
        forget(client->sockets);
    os_loop_timer_stop(client->o.loop, &client->timer);
    curl_slist_free_all(client->headers);
    curl_slist_free_all(client->resolve);
    alloc_free(client->o.alloc, client);
    curl_global_cleanup();
}
