/* batch.c - stretches of steps in closed form, and the gaps that sequences see. */
#include "sim/batch.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

enum { LOG_FIRST = 256 };

mc_status batch_init(struct batch *batch, const struct mc_alloc *alloc, const struct mc_cost *cost,
                     uint32_t members_max)
{
    *batch = (struct batch){ .alloc = alloc,
                             .d0 = cost->d0,
                             .d1 = cost->d1,
                             .d2 = cost->d2,
                             .members_max = members_max,
                             .log_capacity = LOG_FIRST };
    batch->members = alloc_zeroed(alloc, members_max, sizeof(*batch->members));
    batch->log = alloc_zeroed(alloc, LOG_FIRST, sizeof(*batch->log));
    if (!batch->members || !batch->log) {
        batch_fini(batch);
        return MC_E_NOMEM;
    }
    return MC_OK;
}

void batch_fini(struct batch *batch)
{
    if (!batch->alloc)
        return;
    alloc_free(batch->alloc, batch->log);
    alloc_free(batch->alloc, batch->members);
    *batch = (struct batch){ 0 };
}

double batch_step_s(const struct batch *batch, uint64_t sequences, uint64_t tokens)
{
    return batch->d0 + batch->d1 * (double)(batch->count + sequences) +
           batch->d2 * (double)(batch->context + tokens);
}

/* ---------------------------------------------------------------------------------------- members */

void batch_join(struct batch *batch, uint32_t whom, uint64_t context, uint64_t steps, bool first,
                double skip_s)
{
    assert(!batch->runs && batch->count < batch->members_max && steps >= 1);
    batch->members[batch->count++] = (struct batch_member){ .whom = whom,
                                                            .waits = first,
                                                            .last_step = batch->steps + steps,
                                                            .log_first = batch->log_count,
                                                            .skip_s = (float)skip_s,
                                                            .context = context - batch->steps };
    batch->context += context;
}

uint32_t batch_waiting(const struct batch *batch)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < batch->count; i++)
        count += batch->members[i].waits;
    return count;
}

void batch_drop(struct batch *batch, uint32_t index)
{
    assert(!batch->runs && index < batch->count);
    batch->context -= batch->members[index].context + batch->steps;
    batch->members[index] = batch->members[--batch->count];
}

bool batch_leave(struct batch *batch, struct batch_member *member_p)
{
    assert(!batch->runs);
    for (uint32_t i = 0; i < batch->count; i++)
        if (batch->members[i].last_step <= batch->steps) {
            *member_p = batch->members[i];
            batch_drop(batch, i);
            return true;
        }
    return false;
}

static uint64_t steps_to_leave(const struct batch *batch)
{
    uint64_t least = UINT64_MAX;

    for (uint32_t i = 0; i < batch->count; i++) {
        const uint64_t left = batch->members[i].last_step - batch->steps;
        least = left < least ? left : least;
    }
    return least;
}

/* -------------------------------------------------------------------------------------- stretches */

/* The first n steps of the stretch: n first + slope n (n - 1) / 2. */
static double stretch_s(const struct batch *batch, uint64_t n)
{
    const double steps = (double)n, slope = batch->d2 * batch->count;

    return batch->stall_s + steps * batch_step_s(batch, 0, 0) + slope * steps * (steps - 1) / 2;
}

static uint64_t after(uint64_t ns, double seconds)
{
    return ns + (uint64_t)(seconds * 1e9 + 0.5);
}

uint64_t batch_begin(struct batch *batch, uint64_t now_ns, double stall_s, double late_s,
                     uint64_t *first_p)
{
    assert(!batch->runs && batch->count > 0);
    batch->runs = true;
    batch->begin_ns = now_ns;
    batch->stall_s = stall_s;
    batch->late_s = late_s;
    batch->stretch = steps_to_leave(batch);
    assert(batch->stretch >= 1);
    *first_p = after(now_ns, stretch_s(batch, 1));
    return after(now_ns, stretch_s(batch, batch->stretch));
}

uint64_t batch_cut(struct batch *batch, uint64_t now_ns)
{
    assert(batch->runs && now_ns >= batch->begin_ns);
    const double seconds = (double)(now_ns - batch->begin_ns) / 1e9 - batch->stall_s;
    const double first = batch_step_s(batch, 0, 0), slope = batch->d2 * batch->count;
    uint64_t n = 1;

    if (seconds > first) { /* slope / 2 n^2 + (first - slope / 2) n = seconds */
        const double b = first - slope / 2;
        const double root = slope * seconds < first * first * 1e-9
                                ? seconds / b
                                : (sqrt(b * b + 2 * slope * seconds) - b) / slope;
        n = root > 1 ? (uint64_t)root : 1;
        while (n > 1 && after(batch->begin_ns, stretch_s(batch, n - 1)) >= now_ns)
            n--;
        while (after(batch->begin_ns, stretch_s(batch, n)) < now_ns)
            n++;
    }
    if (n < batch->stretch)
        batch->stretch = n;
    return after(batch->begin_ns, stretch_s(batch, batch->stretch));
}

static mc_status log_add(struct batch *batch, uint64_t steps, double step_s)
{
    if (batch->log_count == batch->log_capacity) {
        struct batch_stretch *log =
            alloc_resize(batch->alloc, batch->log, (size_t)batch->log_capacity * 2, sizeof(*log));
        if (!log)
            return MC_E_NOMEM;
        batch->log = log;
        batch->log_capacity *= 2;
    }
    batch->log[batch->log_count++] =
        (struct batch_stretch){ .steps = (uint32_t)steps, .step_s = (float)step_s };
    return MC_OK;
}

/* Their first token is there: from here on, steps are gaps. */
static void first_tokens(struct batch *batch)
{
    for (uint32_t i = 0; i < batch->count; i++)
        if (batch->members[i].waits) {
            batch->members[i].waits = 0;
            batch->members[i].log_first = batch->log_count;
        }
}

mc_status batch_end(struct batch *batch)
{
    const uint64_t n = batch->stretch;
    const double first = stretch_s(batch, 1), all = stretch_s(batch, n);

    assert(batch->runs);
    batch->runs = false;
    mc_status status = log_add(batch, 1, first + batch->late_s);
    if (status != MC_OK)
        return status;
    first_tokens(batch);
    if (n > 1)
        status = log_add(batch, n - 1, (all - first) / (double)(n - 1));
    batch->steps += n;
    batch->context += n * batch->count;
    return status;
}

mc_status batch_step(struct batch *batch, double seconds)
{
    assert(!batch->runs);
    const mc_status status = log_add(batch, 1, seconds);

    if (status != MC_OK)
        return status;
    first_tokens(batch);
    batch->steps++;
    batch->context += batch->count;
    return MC_OK;
}

/* ------------------------------------------------------------------------------------------- gaps */

static int slowest_first(const void *a, const void *b)
{
    const float x = ((const struct batch_stretch *)a)->step_s;
    const float y = ((const struct batch_stretch *)b)->step_s;

    return x > y ? -1 : x < y;
}

struct batch_gaps batch_gaps(const struct batch *batch, const struct batch_member *member,
                             struct batch_stretch *scratch)
{
    const uint32_t count = batch->log_count - member->log_first;
    uint64_t gaps = 0, left;
    double sum = 0, worst = 0;

    if (count == 0)
        return (struct batch_gaps){ 0 };
    memcpy(scratch, &batch->log[member->log_first], count * sizeof(*scratch));
    scratch[0].step_s -= member->skip_s; /* a stretch's first step has an entry of its own */
    for (uint32_t i = 0; i < count; i++) {
        gaps += scratch[i].steps;
        sum += (double)scratch[i].step_s * scratch[i].steps;
    }
    qsort(scratch, count, sizeof(*scratch), slowest_first);
    const uint64_t tenth = (gaps + 9) / 10;
    left = tenth;
    for (uint32_t i = 0; i < count && left > 0; i++) {
        const uint64_t steps = scratch[i].steps < left ? scratch[i].steps : left;
        worst += (double)scratch[i].step_s * (double)steps;
        left -= steps;
    }
    return (struct batch_gaps){ .mean = sum / (double)gaps,
                                .worst_tenth = worst / (double)tenth,
                                .most = scratch[0].step_s };
}
