/*
 * llm_d.c - llm-d's endpoint picker: a weighted sum of scores from 0 to 1; the most is placed at, equal ones are
 * drawn.
 *
 *     queue:  (most queued - queued) / (most queued - least queued); 1 where all are equal
 *     kv:     1 - share of its KV memory in use
 *     prefix: blocks of its own cache / blocks of the prompt
 *     load:   0.5 with an empty queue, else 0.5 x (1 - min(queued, 128) / 128)
 *
 * Source: llm-d's router (pkg/epp: scorers and their default profile): weights queue 2, kv 2, prefix 3; load, its
 * other scorer of queues, 0 by default.
 */
#include "sched/policy.h"

static const double QUEUE_LONG = 128;

struct llm_d {
    double queue, kv, prefix, load, pull;
};

static mc_status init(void *state, const char *parameters, struct mc_error *error)
{
    struct llm_d *s = state;
    const struct policy_parameter known[] = {
        { "queue", 0, 1e6, &s->queue },   { "kv", 0, 1e6, &s->kv },
        { "prefix", 0, 1e6, &s->prefix }, { "load", 0, 1e6, &s->load },
        { "pull", 0, 1, &s->pull },
    };

    *s = (struct llm_d){ .queue = 2, .kv = 2, .prefix = 3, .pull = 1 };
    return policy_read(parameters, known, sizeof(known) / sizeof(known[0]), error);
}

struct queues {
    uint64_t least, most;
};

static struct queues queues_of(const struct mc_view *view)
{
    struct queues q = { UINT64_MAX, 0 };

    for (uint64_t i = 0; i < view->count; i++) {
        const struct mc_view_instance *p = &view->instances[i];

        if (!policy_can_prefill(p))
            continue;
        q.least = p->queued < q.least ? p->queued : q.least;
        q.most = p->queued > q.most ? p->queued : q.most;
    }
    return q;
}

static double score(const struct llm_d *s, const struct mc_view *view,
                    const struct mc_view_instance *p, const struct queues *q, uint64_t tokens)
{
    const double queue =
        q->most > q->least ? (double)(q->most - p->queued) / (double)(q->most - q->least) : 1;
    const double kv =
        p->kv_tokens_max ? (double)p->free_tokens / (double)p->kv_tokens_max : 1; /* no limit */
    const uint64_t blocks = tokens / view->block_tokens;
    const double prefix =
        blocks ? (double)(p->matched_tokens / view->block_tokens) / (double)blocks : 0;
    const double queued = (double)p->queued < QUEUE_LONG ? (double)p->queued : QUEUE_LONG;

    return s->queue * queue + s->kv * kv + s->prefix * prefix +
           s->load * 0.5 * (1 - queued / QUEUE_LONG);
}

static void place(void *state, const struct mc_view *view, const struct mc_sched_request *request,
                  struct mc_decision *decision)
{
    const struct llm_d *s = state;
    const struct queues queues = queues_of(view);
    uint64_t pick = UINT64_MAX, equal = 0;
    double most = 0;

    for (uint64_t i = 0; i < view->count; i++) {
        if (!policy_can_prefill(&view->instances[i]))
            continue;
        const double sum = score(s, view, &view->instances[i], &queues, request->tokens);
        if (pick == UINT64_MAX || sum > most) {
            pick = i;
            most = sum;
            equal = 1;
        } else if (sum >= most) {
            equal++; /* the k-th of equals replaces with one chance in k */
            if (view->chance(view, equal) % equal == 0)
                pick = i;
        }
    }
    policy_finish(view, pick, MC_REASON_POLICY, s->pull, decision);
    decision->score = most;
}

const struct mc_policy policy_llm_d = {
    .name = "llm-d",
    .summary = "weighted scores of queue, KV memory and own prefix (llm-d's endpoint picker)",
    .state_bytes = sizeof(struct llm_d),
    .init = init,
    .place = place,
};
