/* session.c - open model and engine, and drive one request through the batcher. */
#define _POSIX_C_SOURCE 200809L
#include "cmd/session.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"
#include "cmd/cmd.h"
#include "cmd/interrupt.h"
#include "infer/batcher.h"
#include "infer/model.h"
#include "kv/layout.h"
#include "os/clock.h"
#include "os/crew.h"
#include "os/file.h"

static const uint64_t PROGRESS_AFTER_NS = 1000000000;
enum { LIMIT_ROUNDS = 5 };

static mc_status open_engine(struct session *s, struct mc_error *error)
{
    const struct run_options *o = s->options;
    const struct mc_engine_options engine = {
        .threads = o->threads,
        .kernel = run_options_kernel(o),
        .kv_dtype = (enum mc_dtype)o->kv_dtype,
        .tokens_max = o->chunk,
        .sequences_max = 1,
    };
    static_assert(MC_DTYPE_DEFAULT == 0 && MC_DTYPE_F32 == 1 && MC_DTYPE_BF16 == 2,
                  "--kv-dtype's choices are in this order");

    if (o->context > s->info.context_max)
        return error_set(error, MC_E_RANGE, "--context: %u is more than the model's, %u",
                         o->context, s->info.context_max);
    s->context_max = o->context ? o->context : s->info.context_max;
    const mc_status status = mc_engine_open(s->model, &engine, &s->engine, error);
    if (status == MC_OK)
        mc_engine_limits(s->engine, &s->limits);
    return status;
}

mc_status session_open(struct session *s, const char *directory, const struct run_options *options,
                       const struct mc_alloc *alloc, struct mc_error *error)
{
    const struct mc_model_options model = { .alloc = alloc };

    *s = (struct session){ .options = options,
                           .alloc = alloc,
                           .threads = options->threads ? options->threads : os_processors(),
                           .progress = isatty(STDERR_FILENO) == 1 };
    if (!os_is_directory(directory))
        return error_set(error, MC_E_NOT_FOUND,
                         "%s: no such directory; MODEL is one with config.json, *.safetensors and "
                         "tokenizer.json, as Hugging Face has them; a clone of this project has "
                         "models/tiny-random",
                         directory);
    mc_status status = mc_model_open(directory, &model, &s->model, error);
    if (status != MC_OK)
        return status;
    mc_model_info(s->model, &s->info);
    status = open_engine(s, error);
    if (status == MC_OK && options->timing)
        status = limits_measure(mc_engine_kernel(s->engine), s->info.dtype, s->threads,
                                LIMIT_ROUNDS, alloc, &s->machine, error);
    if (status != MC_OK)
        session_close(s);
    return status;
}

void session_close(struct session *s)
{
    mc_engine_close(s->engine);
    mc_model_close(s->model);
    s->engine = NULL;
    s->model = NULL;
}

/* -------------------------------------------------------------------------------------- turns */

static void keep_sample(struct turn *turn, const struct mc_sample *sample)
{
    if (turn->sample_count == turn->sample_capacity) {
        const uint32_t capacity = turn->sample_capacity ? turn->sample_capacity * 2 : 64;
        struct mc_sample *samples =
            alloc_resize(turn->session->alloc, turn->samples, capacity, sizeof(*samples));
        if (!samples) {
            turn->out_of_memory = true;
            return;
        }
        turn->samples = samples;
        turn->sample_capacity = capacity;
    }
    turn->samples[turn->sample_count++] = *sample;
}

static void clear_progress(struct turn *turn)
{
    if (turn->progress_shown)
        fputs("\r\033[K", stderr);
    turn->progress_shown = false;
}

static void hear(void *user, struct request *request, const struct request_event *event)
{
    struct turn *turn = user;
    const bool json = turn->session->options->json;

    if (event->sample) {
        turn->last_ns = os_now_ns();
        if (turn->first_ns == 0)
            turn->first_ns = turn->last_ns;
        turn->made++;
        if (json)
            keep_sample(turn, event->sample);
    }
    clear_progress(turn);
    buf_add(&turn->text, event->text, event->text_size);
    if (!json && event->text_size > 0 && !turn->write_failed)
        turn->write_failed = !command_write("run", event->text, event->text_size);
    turn->finish = event->finish;
    if (event->why)
        snprintf(turn->why, sizeof(turn->why), "%s", event->why);
    if (event->finish != REQUEST_RUNNING) {
        request_close(request);
        turn->request = NULL;
    }
}

static void show_progress(struct turn *turn)
{
    if (!turn->session->progress || !turn->request || turn->first_ns != 0 ||
        os_now_ns() - turn->start_ns < PROGRESS_AFTER_NS)
        return;
    fprintf(stderr, "\rprompt: %u of %u tokens", turn->request->computed, turn->prompt_count);
    fflush(stderr);
    turn->progress_shown = true;
}

static mc_status open_request(struct turn *turn, const uint32_t *tokens, size_t count,
                              const struct decoder *decoder, struct mc_error *error)
{
    const struct session *s = turn->session;
    const struct run_options *o = s->options;
    const struct request_options options = {
        .prompt = tokens,
        .prompt_count = count,
        .context_max = s->context_max,
        .max_tokens = o->max_tokens,
        .min_tokens = o->min_tokens,
        .eos = s->info.eos,
        .eos_count = s->info.eos_count,
        .ignore_eos = o->ignore_eos,
        .stops = o->stop.items,
        .stop_count = o->stop.count,
        .sampling = { .temperature = o->temperature,
                      .top_p = o->top_p,
                      .top_k = o->top_k,
                      .seed = o->seed,
                      .logprobs = o->logprobs },
        .decoder = decoder,
        .output = hear,
        .user = turn,
        .alloc = s->alloc,
    };

    return request_open(&options, &turn->request, error);
}

static mc_status drive(struct turn *turn, batcher *b, struct mc_error *error)
{
    mc_status status = MC_OK;

    while (status == MC_OK && batcher_busy(b)) {
        if (turn->request && (interrupt_pending() || turn->write_failed || turn->out_of_memory))
            batcher_cancel(b, turn->request);
        status = batcher_step(b, error);
        show_progress(turn);
    }
    if (status == MC_OK && turn->finish == REQUEST_ERROR)
        status = error_set(error, MC_E_IO, "%s", turn->why);
    if (status == MC_OK && (turn->out_of_memory || turn->text.failed))
        status = error_set(error, MC_E_NOMEM, "out of memory for the answer");
    return status;
}

static mc_status answer(struct turn *turn, const uint32_t *tokens, size_t count,
                        const struct decoder *decoder, struct mc_error *error)
{
    const struct session *s = turn->session;
    batcher *b = NULL;

    mc_status status = open_request(turn, tokens, count, decoder, error);
    if (status != MC_OK)
        return status;
    const struct batcher_options options = {
        .pages = kv_pages(turn->request->token_max - 1), /* the last token is never computed */
        .waiting_max = 1,
        .chunk_tokens = s->options->chunk,
        .alloc = s->alloc,
    };
    status = batcher_open(s->engine, &options, &b, error);
    if (status == MC_OK)
        status = batcher_add(b, turn->request, error);
    if (status == MC_OK)
        status = drive(turn, b, error);
    batcher_close(b);
    request_close(turn->request);
    turn->request = NULL;
    return status;
}

mc_status turn_run(struct turn *turn, const struct session *s, const uint32_t *tokens, size_t count,
                   struct mc_error *error)
{
    mc_text_stream *stream = NULL;

    *turn = (struct turn){ .session = s,
                           .text = BUF_INIT(s->alloc),
                           .prompt_count = (uint32_t)count,
                           .start_ns = os_now_ns() };
    mc_status status = mc_text_stream_open(s->model, s->options->special, &stream, error);
    if (status == MC_OK) {
        const struct decoder decoder = decoder_of_stream(stream);
        status = answer(turn, tokens, count, &decoder, error);
    }
    mc_text_stream_close(stream);
    return status;
}

void turn_fini(struct turn *turn)
{
    if (!turn->session)
        return;
    alloc_free(turn->session->alloc, turn->samples);
    buf_fini(&turn->text);
}

struct timing turn_timing(const struct turn *turn)
{
    const struct session *s = turn->session;
    const struct work work = work_of(&s->info, s->model->config.tied, &s->limits.layout);
    struct timing timing = {
        .prompt_tokens = turn->prompt_count,
        .decode_tokens = turn->made > 0 ? turn->made - 1 : 0,
        .prefill_ns = turn->first_ns ? turn->first_ns - turn->start_ns : 0,
        .decode_ns = turn->last_ns - turn->first_ns,
        .kernel = mc_engine_kernel(s->engine),
        .threads = s->threads,
        .peak_flops = s->machine.peak_flops,
        .read_bandwidth = s->machine.read_bandwidth,
    };

    timing_count(&timing, &work);
    return timing;
}
