/* supervise.c - the rules of supervise.h. */
#include "cmd/supervise.h"

#include <assert.h>

#include "cmd/cmd.h"

enum { BACK_OFF_MS = 100, BACK_OFF_MAX_MS = 5000 };
static const uint64_t MS = 1000000;

static bool runs(const struct supervise_child *c)
{
    return c->state == SUPERVISE_STARTING || c->state == SUPERVISE_UP;
}

void supervise_init(struct supervise *s, struct supervise_child *children, uint32_t count,
                    const struct supervise_options *options, uint64_t now_ns)
{
    *s = (struct supervise){
        .children = children, .count = count, .options = *options, .now_ns = now_ns
    };
    for (uint32_t i = 0; i < count; i++)
        children[i] = (struct supervise_child){
            .start_rank = children[i].start_rank,
            .stop_rank = children[i].stop_rank,
            .since_ns = now_ns,
            .start_ns = now_ns,
        };
}

/* --------------------------------------------------------------------------------------- events */

static uint64_t back_off_ns(uint32_t failures)
{
    uint64_t ms = BACK_OFF_MS;

    for (uint32_t i = 1; i < failures && ms < BACK_OFF_MAX_MS; i++)
        ms *= 2;
    return (ms < BACK_OFF_MAX_MS ? ms : BACK_OFF_MAX_MS) * MS;
}

static void exited(struct supervise *s, struct supervise_child *c, int code)
{
    const bool young = s->now_ns - c->since_ns < s->options.young_ns;

    if (!runs(c))
        return;
    /* One that we killed because somebody had stopped it has not failed. */
    c->failures = c->killed && c->stopped_ns ? 1 : young ? c->failures + 1 : 1;
    /* Wrong arguments, a model that is not there, a port that is taken: as wrong the next time. */
    if (code == CMD_USAGE || (code == CMD_FAILED && !c->was_up))
        c->failures = s->options.failures_max + 1;
    c->state = s->stopping ? SUPERVISE_LEFT : SUPERVISE_DOWN;
    c->start_ns = s->now_ns + back_off_ns(c->failures);
    c->since_ns = s->now_ns;
    c->stopped_ns = 0;
    c->told = c->killed = false;
}

static void begin_stop(struct supervise *s)
{
    s->killing = s->stopping; /* asked twice */
    if (!s->stopping)
        s->stop_since_ns = s->now_ns;
    s->stopping = true;
    for (uint32_t i = 0; i < s->count; i++)
        if (s->children[i].state == SUPERVISE_DOWN)
            s->children[i].state = SUPERVISE_LEFT;
}

void supervise_event(struct supervise *s, enum supervise_event_kind kind, uint32_t child, int value,
                     uint64_t now_ns)
{
    struct supervise_child *c = child < s->count ? &s->children[child] : NULL;

    s->now_ns = now_ns > s->now_ns ? now_ns : s->now_ns;
    switch (kind) {
    case SUPERVISE_TICK:
        return;
    case SUPERVISE_STOP:
        begin_stop(s);
        return;
    default:
        break;
    }
    assert(c);
    switch (kind) {
    case SUPERVISE_READY:
        if (c->state == SUPERVISE_STARTING) {
            c->state = SUPERVISE_UP; /* since_ns stays: a life begins at the start */
            c->was_up = true;
        }
        return;
    case SUPERVISE_EXITED:
        exited(s, c, value);
        return;
    case SUPERVISE_STOPPED:
        c->stopped_ns = c->stopped_ns ? c->stopped_ns : s->now_ns;
        return;
    case SUPERVISE_CONTINUED:
        c->stopped_ns = 0;
        return;
    default:
        assert(false);
    }
}

/* -------------------------------------------------------------------------------------- actions */

static bool rank_below_is_up(const struct supervise *s, uint32_t rank)
{
    for (uint32_t i = 0; i < s->count; i++)
        if (s->children[i].start_rank < rank && s->children[i].state != SUPERVISE_UP)
            return false;
    return true;
}

/* Whether somebody must be killed now, and why. */
static const char *doom(const struct supervise *s, const struct supervise_child *c)
{
    if (!runs(c) || c->killed)
        return NULL;
    if (s->killing)
        return "asked twice to end";
    if (s->stopping)
        return c->told && s->now_ns - s->stop_since_ns >= s->options.grace_ns
                   ? "did not end in time"
                   : NULL;
    if (c->stopped_ns && s->options.stall_ns && s->now_ns - c->stopped_ns >= s->options.stall_ns)
        return "stopped by a signal, and dead to its peers";
    if (c->state == SUPERVISE_STARTING && s->now_ns - c->since_ns >= s->options.start_ns)
        return "not ready in time";
    return NULL;
}

static bool take_kill(struct supervise *s, struct supervise_action *action)
{
    for (uint32_t i = 0; i < s->count; i++) {
        const char *why = doom(s, &s->children[i]);
        if (!why)
            continue;
        s->children[i].killed = true;
        *action = (struct supervise_action){ SUPERVISE_KILL, i, why };
        return true;
    }
    return false;
}

static bool take_give_up(struct supervise *s, struct supervise_action *action)
{
    for (uint32_t i = 0; i < s->count && !s->stopping; i++) {
        if (s->children[i].failures <= s->options.failures_max)
            continue;
        s->code = CMD_FAILED;
        begin_stop(s);
        *action = (struct supervise_action){ SUPERVISE_GIVE_UP, i,
                                             s->children[i].was_up
                                                 ? "it fails again and again"
                                                 : "it cannot start, for the reason above" };
        return true;
    }
    return false;
}

static bool take_start(struct supervise *s, struct supervise_action *action)
{
    for (uint32_t i = 0; i < s->count && !s->stopping; i++) {
        struct supervise_child *c = &s->children[i];
        if (c->state != SUPERVISE_DOWN || s->now_ns < c->start_ns ||
            (!c->was_up && !rank_below_is_up(s, c->start_rank)))
            continue;
        c->state = SUPERVISE_STARTING;
        c->since_ns = s->now_ns;
        *action = (struct supervise_action){ SUPERVISE_START, i, NULL };
        return true;
    }
    return false;
}

/* The lowest stop rank that still runs; UINT32_MAX: nobody does. */
static uint32_t rank_that_runs(const struct supervise *s)
{
    uint32_t rank = UINT32_MAX;

    for (uint32_t i = 0; i < s->count; i++)
        if (runs(&s->children[i]) && s->children[i].stop_rank < rank)
            rank = s->children[i].stop_rank;
    return rank;
}

static bool take_term(struct supervise *s, struct supervise_action *action)
{
    const uint32_t rank = rank_that_runs(s);

    if (!s->stopping || rank == UINT32_MAX)
        return false;
    if (rank != s->stop_rank) { /* its time begins now */
        s->stop_rank = rank;
        s->stop_since_ns = s->now_ns;
    }
    for (uint32_t i = 0; i < s->count; i++) {
        struct supervise_child *c = &s->children[i];
        if (!runs(c) || c->stop_rank != rank || c->told)
            continue;
        c->told = true;
        *action = (struct supervise_action){ SUPERVISE_TERM, i, NULL };
        return true;
    }
    return false;
}

static bool take_all_up(struct supervise *s, struct supervise_action *action)
{
    if (s->said_up || s->stopping)
        return false;
    for (uint32_t i = 0; i < s->count; i++)
        if (s->children[i].state != SUPERVISE_UP)
            return false;
    s->said_up = true;
    *action = (struct supervise_action){ SUPERVISE_ALL_UP, 0, NULL };
    return true;
}

bool supervise_take(struct supervise *s, struct supervise_action *action_p)
{
    if (take_give_up(s, action_p) || take_term(s, action_p) || take_kill(s, action_p) ||
        take_start(s, action_p) || take_all_up(s, action_p))
        return true;
    if (!s->stopping || rank_that_runs(s) != UINT32_MAX)
        return false;
    *action_p = (struct supervise_action){ SUPERVISE_DONE, 0, NULL };
    return true;
}

static uint64_t child_due(const struct supervise *s, const struct supervise_child *c)
{
    uint64_t due = UINT64_MAX;

    if (c->state == SUPERVISE_DOWN && (c->was_up || rank_below_is_up(s, c->start_rank)))
        return c->start_ns;
    if (!runs(c) || c->killed)
        return UINT64_MAX;
    if (s->stopping)
        return c->told ? s->stop_since_ns + s->options.grace_ns : UINT64_MAX;
    if (c->state == SUPERVISE_STARTING)
        due = c->since_ns + s->options.start_ns;
    if (c->stopped_ns && s->options.stall_ns && c->stopped_ns + s->options.stall_ns < due)
        due = c->stopped_ns + s->options.stall_ns;
    return due;
}

uint64_t supervise_due(const struct supervise *s)
{
    uint64_t due = UINT64_MAX;

    for (uint32_t i = 0; i < s->count; i++) {
        const uint64_t at = child_due(s, &s->children[i]);
        due = at < due ? at : due;
    }
    return due;
}
