/* bench_serve_source.c - lines of a trace, or prompts of a given length; their times. */
#include "cmd/bench_serve_source.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "os/file.h"

enum { PIECE_BYTES = 65536 };

/* Runs of made prompts: all share the first, each has another second one. */
static const uint64_t SHARED_RUN = UINT64_C(1) << 62;

static mc_status open_trace(struct bench_source *s, struct mc_error *error)
{
    const struct bench_serve_request *r = s->request;
    const struct trace_options options = { .alloc = r->alloc,
                                           .name = r->options.trace,
                                           /* times do not matter where others replace them */
                                           .unsorted = r->arrival != BENCH_BY_TRACE };

    if (os_is_directory(options.name))
        return error_set(error, MC_E_FORMAT, "%s: is a directory", options.name);
    s->file = fopen(options.name, "rb");
    if (!s->file)
        return error_set(error, errno == ENOENT ? MC_E_NOT_FOUND : MC_E_IO, "%s: %s", options.name,
                         strerror(errno));
    setvbuf(s->file, NULL, _IONBF, 0); /* pieces are large already */
    s->piece = alloc_bytes(r->alloc, PIECE_BYTES);
    if (!s->piece)
        return error_set(error, MC_E_NOMEM, "%s: no memory to read it", options.name);
    return trace_open(&options, &s->reader, error);
}

mc_status bench_source_open(struct bench_source *s, const struct bench_serve_request *request,
                            uint32_t context_tokens, struct mc_error *error)
{
    const struct bench_serve_options *o = &request->options;
    const struct scale_options scale = {
        .alloc = request->alloc,
        .kind = o->scale == BENCH_SCALE_BLOCK ? SCALE_BLOCK : SCALE_NONE,
        .page_tokens = o->page_tokens,
        .context_tokens = context_tokens,
        .speed = (double)o->speed,
    };

    *s = (struct bench_source){ .request = request,
                                .context_tokens = context_tokens,
                                .times = { .seed = prng_mix(o->seed) } };
    scaler_init(&s->scaler, &scale);
    const mc_status status = o->trace ? open_trace(s, error) : MC_OK;
    if (status != MC_OK)
        bench_source_close(s);
    return status;
}

void bench_source_close(struct bench_source *s)
{
    if (!s->request)
        return;
    trace_close(s->reader);
    if (s->file)
        fclose(s->file);
    alloc_free(s->request->alloc, s->piece);
    scaler_fini(&s->scaler);
    *s = (struct bench_source){ 0 };
}

static mc_status next_of_trace(struct bench_source *s, struct scaled *scaled_p,
                               struct mc_error *error)
{
    struct trace_request q;
    mc_status status;

    while ((status = trace_next(s->reader, &q, error)) == MC_PENDING) {
        errno = 0;
        const size_t size = fread(s->piece, 1, PIECE_BYTES, s->file);
        if (size > 0)
            trace_feed(s->reader, s->piece, size);
        else if (ferror(s->file))
            return error_set(error, MC_E_IO, "%s: %s", s->request->options.trace, strerror(errno));
        else
            trace_finish(s->reader);
    }
    if (status != MC_OK)
        return status;
    status = scaler_next(&s->scaler, &q, scaled_p);
    return status == MC_OK ? status : error_set(error, status, "no memory for a prompt");
}

static void make(struct bench_source *s, struct scaled *scaled_p)
{
    const struct bench_serve_options *o = &s->request->options;
    uint32_t count = 0;

    if (o->shared_prefix > 0)
        s->made[count++] = (struct scale_run){ SHARED_RUN, o->shared_prefix };
    if (o->input_tokens > o->shared_prefix)
        s->made[count++] = (struct scale_run){ s->count, o->input_tokens - o->shared_prefix };
    *scaled_p = (struct scaled){ .input_tokens = o->input_tokens,
                                 .output_tokens = o->output_tokens,
                                 .runs = s->made,
                                 .run_count = count };
    if (s->context_tokens)
        scale_cut(scaled_p, s->made, s->context_tokens);
}

/* Gaps of a Poisson process are exponential. */
static uint64_t next_time(struct bench_source *s)
{
    const uint64_t at_ns = (uint64_t)(s->at_s * 1e9);

    s->at_s -= log(1 - prng_unit(prng_next(&s->times))) / (double)s->request->options.rate;
    return at_ns;
}

mc_status bench_source_next(struct bench_source *s, struct scaled *scaled_p, struct mc_error *error)
{
    const struct bench_serve_request *r = s->request;
    mc_status status = MC_OK;

    if (r->options.limit > 0 && s->count >= r->options.limit)
        return MC_E_NOT_FOUND;
    if (s->reader)
        status = next_of_trace(s, scaled_p, error);
    else
        make(s, scaled_p);
    if (status != MC_OK)
        return status;
    if (r->arrival == BENCH_BY_RATE)
        scaled_p->at_ns = next_time(s);
    else if (r->arrival == BENCH_CLOSED)
        scaled_p->at_ns = 0;
    if (r->options.duration > 0 && scaled_p->at_ns >= r->options.duration)
        return MC_E_NOT_FOUND;
    s->count++;
    return MC_OK;
}
