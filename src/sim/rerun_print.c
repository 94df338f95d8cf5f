/* rerun_print.c - where a recorded run and the same run now part, side by side. */
#include "sim/rerun.h"

static const char *reason_name(uint32_t reason)
{
    switch (reason) {
#define REASON_CASE(name, number, words) \
    case number: \
        return words;
        MC_REASON_MAP(REASON_CASE)
#undef REASON_CASE
    default:
        return "a reason that this release does not know";
    }
}

static const char *kind_name(uint32_t kind)
{
    static const char *const names[] = { "nothing", "place",     "refuse", "wait",
                                         "decode",  "replicate", "abort" };
    return kind < sizeof(names) / sizeof(names[0]) ? names[kind] : "something unknown";
}

static void print_number(struct buf *out, const char *name, uint64_t then, uint64_t now)
{
    if (then != 0 || now != 0)
        buf_addf(out, "  %c %-22s %20llu %20llu\n", then == now ? ' ' : '*', name,
                 (unsigned long long)then, (unsigned long long)now);
}

static void print_double(struct buf *out, const char *name, double then, double now)
{
    const bool same = !(then < now) && !(then > now);

    if (!same || then < 0 || then > 0)
        buf_addf(out, "  %c %-22s %20.9g %20.9g\n", same ? ' ' : '*', name, then, now);
}

static void print_decisions(const struct mc_decision *then, const struct mc_decision *now,
                            struct buf *out)
{
    const struct mc_prediction *t = &then->predicted, *n = &now->predicted;

    buf_addf(out, "    %-22s %20s %20s\n", "", "recorded", "now");
    buf_addf(out, "    %-22s %20s %20s\n", "kind", kind_name(then->kind), kind_name(now->kind));
    buf_addf(out, "    reason, recorded: %s; now: %s\n", reason_name(then->reason),
             reason_name(now->reason));
#define DIFFER_NUMBER(field) print_number(out, #field, then->field, now->field);
    DIFFER_NUMBER(request)
    DIFFER_NUMBER(prefill)
    DIFFER_NUMBER(decode)
    DIFFER_NUMBER(holder)
    DIFFER_NUMBER(pull_tokens)
    DIFFER_NUMBER(reuse_tokens)
    DIFFER_NUMBER(order)
    DIFFER_NUMBER(retry_after_ns)
    DIFFER_NUMBER(considered)
    DIFFER_NUMBER(pull_ns)
    DIFFER_NUMBER(soft)
    DIFFER_NUMBER(flags)
    DIFFER_NUMBER(key_count)
#undef DIFFER_NUMBER
#define DIFFER_PREDICTED(field) print_number(out, "predicted " #field, t->field, n->field);
    DIFFER_PREDICTED(queue_ns)
    DIFFER_PREDICTED(transfer_ns)
    DIFFER_PREDICTED(prefill_ns)
    DIFFER_PREDICTED(ttft_ns)
    DIFFER_PREDICTED(ttft_low_ns)
    DIFFER_PREDICTED(ttft_high_ns)
    DIFFER_PREDICTED(tbt_ns)
    DIFFER_PREDICTED(tbt_high_ns)
    DIFFER_PREDICTED(output_tokens)
    DIFFER_PREDICTED(other_ns)
#undef DIFFER_PREDICTED
    print_double(out, "score", then->score, now->score);
    print_double(out, "predicted decode_load", t->decode_load, n->decode_load);
}

static void print_refusals(const struct rerun *r, struct buf *out)
{
    for (uint32_t i = 0; i < sizeof(r->refused_by) / sizeof(r->refused_by[0]); i++)
        if (r->refused_by[i])
            buf_addf(out, "  refused %llu: %s\n", (unsigned long long)r->refused_by[i],
                     reason_name(i));
}

static const char *how_it_ends(const struct rerun *r)
{
    static const char *const whys[] = { "whole", "the disk was too slow for it",
                                        "a record was too large for it" };

    if (r->ended)
        return whys[r->last.why];
    return r->cut ? "cut off in the middle of a record" : "without an end";
}

void rerun_print(const struct rerun *r, struct buf *out)
{
    const struct rerun_sides *f = &r->first;

    buf_addf(out,
             "recording: %llu events in %.3f s, %llu decisions (%llu placed, %llu refused, %llu "
             "others), %llu events skipped; %s\n",
             (unsigned long long)r->events, (double)(r->end_ns - r->begin_ns) / 1e9,
             (unsigned long long)r->decisions, (unsigned long long)r->placed,
             (unsigned long long)r->refused, (unsigned long long)r->others,
             (unsigned long long)r->skipped, how_it_ends(r));
    print_refusals(r, out);
    if (f->kind == RERUN_SAME) {
        buf_add_text(out, "the same decisions, byte for byte\n");
        return;
    }
    buf_addf(out, "the first difference is at event %llu (kind %u), %.6f s after the first:\n",
             (unsigned long long)f->event, f->event_kind, (double)(f->now_ns - r->begin_ns) / 1e9);
    if (f->kind == RERUN_STATUS)
        buf_addf(out, "    the scheduler returned %s then, %s now\n",
                 mc_status_name(f->then_status), mc_status_name(f->now_status));
    else if (f->kind == RERUN_MISSING)
        buf_add_text(out, "    decided then, not now:\n");
    else if (f->kind == RERUN_EXTRA)
        buf_add_text(out, "    decided now, not then:\n");
    if (f->kind != RERUN_STATUS)
        print_decisions(&f->then, &f->now, out);
}
