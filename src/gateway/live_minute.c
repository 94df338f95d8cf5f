/* live_minute.c - a ring of seconds, and percentiles by counting. */
#include "gateway/live_minute.h"

#include <string.h>

static const uint64_t SECOND_NS = 1000000000;

/* ---------------------------------------------------------------------------------------- seconds */

void live_minute_init(struct live_minute *m, uint64_t now_ns)
{
    memset(m, 0, sizeof(*m));
    m->begin_ns = now_ns;
}

struct live_second *live_minute_now(struct live_minute *m, uint64_t now_ns)
{
    const uint64_t number = now_ns > m->begin_ns ? (now_ns - m->begin_ns) / SECOND_NS : 0;

    if (number > m->last) {
        uint64_t from = m->last + 1;
        if (number - m->last > LIVE_SECONDS)
            from = number - LIVE_SECONDS + 1;
        for (uint64_t i = from; i <= number; i++) {
            struct live_second *second = &m->seconds[i % LIVE_SECONDS];
            memset(second, 0, sizeof(*second));
            second->number = i;
        }
        m->last = number;
    }
    return &m->seconds[m->last % LIVE_SECONDS];
}

const struct live_second *live_minute_at(const struct live_minute *m, uint64_t number)
{
    const struct live_second *second = &m->seconds[number % LIVE_SECONDS];

    return number <= m->last && second->number == number ? second : NULL;
}

/* ------------------------------------------------------------------------------------------ times */

/* Class of a time: the octave of its microseconds, then the next three bits. */
static uint32_t class_of(uint64_t us)
{
    uint32_t octave = 0;

    while (us >> octave > 1)
        octave++;
    const uint64_t step = octave >= 3 ? us >> (octave - 3) : us << (3 - octave);
    const uint32_t at = octave * LIVE_STEPS + (uint32_t)(step & (LIVE_STEPS - 1));
    return at < LIVE_CLASSES ? at : LIVE_CLASSES - 1;
}

/* The first microsecond that is in the class behind. */
static uint64_t end_of(uint32_t at)
{
    const uint32_t octave = at / LIVE_STEPS, step = at % LIVE_STEPS;

    return ((UINT64_C(1) << octave) * (LIVE_STEPS + step + 1)) / LIVE_STEPS;
}

void live_times_add(struct live_times *t, uint64_t duration_ns, uint32_t count)
{
    const uint64_t us = duration_ns / 1000;

    t->in[class_of(us ? us : 1)] += count;
    t->count += count;
}

static void sum(struct live_times *into, const struct live_times *t)
{
    if (t->count == 0)
        return;
    for (uint32_t i = 0; i < LIVE_CLASSES; i++)
        into->in[i] += t->in[i];
    into->count += t->count;
}

void live_minute_ttft(const struct live_minute *m, struct live_times *sum_p)
{
    *sum_p = (struct live_times){ .count = 0 };
    for (uint32_t i = 0; i < LIVE_SECONDS; i++)
        sum(sum_p, &m->seconds[i].ttft);
}

void live_minute_tbt(const struct live_minute *m, struct live_times *sum_p)
{
    *sum_p = (struct live_times){ .count = 0 };
    for (uint32_t i = 0; i < LIVE_SECONDS; i++)
        sum(sum_p, &m->seconds[i].tbt);
}

uint64_t live_times_percentile(const struct live_times *t, uint32_t percent)
{
    const uint64_t wanted = ((uint64_t)t->count * percent + 99) / 100;
    uint64_t seen = 0;

    if (t->count == 0)
        return 0;
    for (uint32_t i = 0; i < LIVE_CLASSES; i++) {
        seen += t->in[i];
        if (seen >= wanted && seen > 0)
            return end_of(i);
    }
    return end_of(LIVE_CLASSES - 1);
}
