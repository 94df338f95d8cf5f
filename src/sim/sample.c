/* sample.c - the cluster at a moment, for the time series. */
#include "base/alloc.h"
#include "sim/world.h"

static double queue_seconds(const sim *s, const struct instance *i)
{
    double seconds = 0;

    for (uint32_t at = i->queue.count ? i->queue.first : NOBODY; at != NOBODY;
         at = s->lives[at].next)
        seconds +=
            prefill_seconds(i, request_of(s, at)->input,
                            (uint64_t)s->lives[at].pull_blocks * s->options.trace->block_tokens) /
            i->stages;
    for (uint32_t at = i->active.count ? i->active.first : NOBODY; at != NOBODY;
         at = s->lives[at].next) {
        const double all = prefill_seconds(i, request_of(s, at)->input, s->records[at].reused);
        const double done = (double)(s->now_ns - s->records[at].prefill_begin_ns) / 1e9;
        seconds += all > done ? all - done : 0;
    }
    return seconds;
}

static void loads(const sim *s, struct sim_sample *sample)
{
    uint32_t prefills = 0, decodes = 0;

    for (uint32_t n = 0; n < s->instance_count; n++) {
        const struct instance *i = &s->instances[n];
        if (!i->alive)
            continue;
        if (i->role & MC_ROLE_PREFILL) {
            sample->queue_s += queue_seconds(s, i);
            prefills++;
        }
        if (i->role & MC_ROLE_DECODE) {
            sample->step_s += batch_step_s(&i->batch, i->waiting.count + 1, 0);
            decodes++;
        }
    }
    sample->queue_s /= prefills ? prefills : 1;
    sample->step_s /= decodes ? decodes : 1;
    if (s->options.slo_ttft_ns)
        sample->prefill_load = sample->queue_s / ((double)s->options.slo_ttft_ns / 1e9);
    if (s->options.slo_tbt_ns)
        sample->decode_load = sample->step_s / ((double)s->options.slo_tbt_ns / 1e9);
}

/* A request that comes after a year must not cost a year of samples: every second one goes, and they are taken
 * half as often from here on. */
static void thin_out(sim *s)
{
    for (uint32_t i = 1; i < s->sample_count / 2; i++)
        s->samples[i] = s->samples[2 * i];
    s->sample_count /= 2;
    s->options.sample_ns *= 2;
}

static bool make_room(sim *s)
{
    if (s->sample_count < s->samples_max)
        return true;
    if (s->samples_max >= SIM_SAMPLES_MAX) {
        thin_out(s);
        return true;
    }
    struct sim_sample *samples =
        alloc_resize(s->alloc, s->samples, (size_t)s->samples_max * 2, sizeof(*samples));
    if (!samples) {
        s->failed = true;
        return false;
    }
    s->samples = samples;
    s->samples_max *= 2;
    return true;
}

void sample_take(sim *s)
{
    if (!make_room(s))
        return;
    struct sim_sample *sample = &s->samples[s->sample_count++];
    *sample = (struct sim_sample){ .ns = s->now_ns,
                                   .waiting = s->counts[STAGE_QUEUE] + s->counts[STAGE_DECIDING],
                                   .prefilling = s->counts[STAGE_PREFILL],
                                   .moving = s->counts[STAGE_MOVE] + s->counts[STAGE_WAIT],
                                   .decoding = s->counts[STAGE_DECODE],
                                   .finished = s->finished,
                                   .refused = s->refused,
                                   .hit_tokens = s->hit_tokens,
                                   .prompt_tokens = s->prompt_tokens };
    for (uint32_t i = 0; i < s->options.watched_count; i++)
        sample->replicas[i] = s->replicas[s->options.watched[i]];
    loads(s, sample);
}
