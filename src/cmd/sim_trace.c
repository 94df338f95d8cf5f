/* sim_trace.c - pieces of a file to the trace reader, requests to whoever wants them. */
#include "cmd/sim_trace.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "os/file.h"
#include "os/sysalloc.h"

enum { PIECE_BYTES = 1 << 18 };

static mc_status open_file(const char *path, FILE **file_p, struct mc_error *error)
{
    if (strcmp(path, "-") == 0) {
        *file_p = stdin;
        return MC_OK;
    }
    if (os_is_directory(path))
        return error_set(error, MC_E_FORMAT, "%s: is a directory", path);
    *file_p = fopen(path, "rb");
    if (*file_p)
        return MC_OK;
    return error_set(error, errno == ENOENT ? MC_E_NOT_FOUND : MC_E_IO, "%s: %s", path,
                     strerror(errno));
}

/* More bytes for the reader, or the end. */
static mc_status feed(trace_reader *reader, FILE *file, char *piece, const char *path,
                      struct mc_error *error)
{
    errno = 0;
    const size_t size = fread(piece, 1, PIECE_BYTES, file);

    if (size > 0)
        trace_feed(reader, piece, size);
    else if (ferror(file))
        return error_set(error, MC_E_IO, "%s: %s", path, strerror(errno));
    else
        trace_finish(reader);
    return MC_OK;
}

mc_status sim_trace_each(const char *path,
                         mc_status (*take)(void *user, const struct trace_request *request,
                                           struct mc_error *error),
                         void *user, struct mc_error *error)
{
    const struct trace_options options = { .alloc = os_alloc(), .name = path };
    struct trace_request request;
    trace_reader *reader = NULL;
    FILE *file = NULL;

    mc_status status = open_file(path, &file, error);
    if (status != MC_OK)
        return status;
    char *piece = alloc_bytes(os_alloc(), PIECE_BYTES);
    status = piece ? trace_open(&options, &reader, error)
                   : error_set(error, MC_E_NOMEM, "%s: no memory to read it", path);
    while (status == MC_OK) {
        status = trace_next(reader, &request, error);
        if (status == MC_PENDING)
            status = feed(reader, file, piece, path, error);
        else if (status == MC_OK)
            status = take(user, &request, error);
    }
    trace_close(reader);
    alloc_free(os_alloc(), piece);
    if (file != stdin)
        fclose(file);
    return status == MC_E_NOT_FOUND || status == MC_PENDING ? MC_OK : status;
}

struct keep {
    const struct sim_trace_part *part;
    struct requests *requests;
    const char *path;
    uint64_t first_ns;
    bool begun;
};

static mc_status keep(void *user, const struct trace_request *request, struct mc_error *error)
{
    struct keep *k = user;

    if (!k->begun)
        k->first_ns = request->arrival_ns;
    k->begun = true;
    const uint64_t ns = request->arrival_ns - k->first_ns;
    if (ns < k->part->begin_ns)
        return MC_OK;
    if ((k->part->end_ns && ns >= k->part->end_ns) ||
        (k->part->limit && k->requests->count >= k->part->limit))
        return MC_PENDING;
    const mc_status status = requests_add(k->requests, request);
    if (status == MC_E_RANGE)
        return error_set(error, status,
                         "%s:%llu: up to here is what %.6g MiB hold; take a part of it (--limit, "
                         "mooncake trace slice) or allow more memory",
                         k->path, (unsigned long long)request->line,
                         (double)k->requests->room.bytes / (1 << 20));
    return status == MC_OK ? status
                           : error_set(error, status, "%s:%llu: out of memory", k->path,
                                       (unsigned long long)request->line);
}

mc_status sim_trace_read(const char *path, const struct sim_trace_part *part,
                         struct requests *requests_p, struct mc_error *error)
{
    struct keep k = { .part = part, .requests = requests_p, .path = path };

    requests_init(requests_p, TRACE_BLOCK_TOKENS, os_alloc());
    requests_p->room = part->room;
    if (requests_p->room.bytes == 0)
        requests_p->room.bytes = SIM_TRACE_MEMORY;
    const mc_status status = sim_trace_each(path, keep, &k, error);
    if (status == MC_OK && requests_p->count == 0)
        return error_set(error, MC_E_FORMAT, "%s: no request in the part that was asked for", path);
    return status;
}
