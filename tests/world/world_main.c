/*
 * world_main.c - run many seeds; say which one broke a promise.
 *
 * usage: world [--seeds A-B] [--seed N [-v]] [--expect-failure]
 *              [--json FILE [--commit TEXT] [--machine TEXT]]
 * exit 0: all promises kept (with --expect-failure: one was broken); 1: not so; 2: usage.
 */
#define _GNU_SOURCE /* gmtime_r, clock_gettime */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "world.h"

struct run {
    uint64_t first, last;
    bool verbose, expect_failure;
    const char *json, *commit, *machine;
};

static bool number(const char *text, char end, uint64_t *value_p, const char **rest_p)
{
    char *rest;

    errno = 0;
    *value_p = strtoull(text, &rest, 10);
    *rest_p = rest + 1;
    return errno == 0 && rest != text && *rest == end;
}

static bool parse(int argc, char **argv, struct run *run)
{
    const char *rest;

    *run = (struct run){ .first = 1, .last = 2000, .commit = "", .machine = "" };
    for (int i = 1; i < argc; i++) {
        const bool more = i + 1 < argc;
        if (strcmp(argv[i], "-v") == 0) {
            run->verbose = true;
        } else if (strcmp(argv[i], "--expect-failure") == 0) {
            run->expect_failure = true;
        } else if (strcmp(argv[i], "--json") == 0 && more) {
            run->json = argv[++i];
        } else if (strcmp(argv[i], "--commit") == 0 && more) {
            run->commit = argv[++i];
        } else if (strcmp(argv[i], "--machine") == 0 && more) {
            run->machine = argv[++i];
        } else if (strcmp(argv[i], "--seed") == 0 && more) {
            if (!number(argv[++i], '\0', &run->first, &rest))
                return false;
            run->last = run->first;
        } else if (strcmp(argv[i], "--seeds") == 0 && more) {
            if (!number(argv[++i], '-', &run->first, &rest) ||
                !number(rest, '\0', &run->last, &rest))
                return false;
        } else {
            return false;
        }
    }
    return run->first <= run->last;
}

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void add(struct world_counts *sum, const struct world_counts *c)
{
    sum->events += c->events;
    sum->puts_ok += c->puts_ok;
    sum->gets_ok += c->gets_ok;
    sum->gets_missed += c->gets_missed;
    sum->gets_failed += c->gets_failed;
    sum->breaks += c->breaks;
    sum->crashes += c->crashes;
    sum->stops += c->stops;
    sum->evicted += c->evicted;
    sum->held += c->held;
}

static void row(FILE *f, const char *metric, const char *unit, double value, const char *end)
{
    fprintf(f,
            "  {\"case\": \"world\", \"metric\": \"%s\", \"unit\": \"%s\", \"value\": %.1f, "
            "\"min\": %.1f, \"max\": %.1f, \"n\": 1}%s\n",
            metric, unit, value, value, value, end);
}

/** The shape of bench/results. Commit and machine are plain text, as given. */
static int write_json(const struct run *run, const struct world_counts *c, double took)
{
    FILE *f = fopen(run->json, "w");
    const uint64_t seeds = run->last - run->first + 1;
    char date[32] = "";
    const time_t now = time(NULL);
    struct tm tm;

    if (!f) {
        fprintf(stderr, "world: %s: cannot be written\n", run->json);
        return 1;
    }
    if (gmtime_r(&now, &tm))
        strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%SZ", &tm);
    fprintf(f,
            "{ \"bench\": \"world\",\n  \"command\": \"world --seeds %llu-%llu --json FILE\",\n"
            "  \"commit\": \"%s\",\n  \"machine\": \"%s\",\n  \"date\": \"%s\",\n"
            "  \"rows\": [\n",
            (unsigned long long)run->first, (unsigned long long)run->last, run->commit,
            run->machine, date);
    row(f, "seeds", "1", (double)seeds, ",");
    row(f, "failed", "1", 0, ",");
    row(f, "seeds per second", "1/s", (double)seeds / took, ",");
    row(f, "events", "1", (double)c->events, ",");
    row(f, "puts stored", "1", (double)c->puts_ok, ",");
    row(f, "gets verified", "1", (double)c->gets_ok, ",");
    row(f, "gets missed", "1", (double)c->gets_missed, ",");
    row(f, "gets failed", "1", (double)c->gets_failed, ",");
    row(f, "objects evicted", "1", (double)c->evicted, ",");
    row(f, "objects told after a restart", "1", (double)c->held, ",");
    row(f, "connections broken", "1", (double)c->breaks, ",");
    row(f, "crashes", "1", (double)c->crashes, ",");
    row(f, "stopped processes", "1", (double)c->stops, "");
    fprintf(f, "]}\n");
    return fclose(f) == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct world *w = malloc(sizeof(*w));
    struct world_counts sum = { 0 };
    struct run run;

    if (!w || !parse(argc, argv, &run)) {
        fprintf(stderr, "usage: world [--seeds A-B] [--seed N [-v]] [--expect-failure] "
                        "[--json FILE [--commit TEXT] [--machine TEXT]]\n");
        free(w);
        return 2;
    }
    const double start = seconds();
    for (uint64_t seed = run.first; seed <= run.last; seed++) {
        const bool kept = world_run(seed, run.verbose, w);
        add(&sum, &w->counts);
        if (kept)
            continue;
        printf("seed %llu: %s\n", (unsigned long long)seed, w->why);
        printf("again, step by step: world --seed %llu -v\n", (unsigned long long)seed);
        free(w);
        return run.expect_failure ? 0 : 1;
    }
    const double took = seconds() - start;
    printf("%llu seeds in %.1f s: %llu events, %llu puts, %llu gets (%llu missed, %llu failed), "
           "%llu evicted, %llu told, %llu breaks, %llu crashes, %llu stops\n",
           (unsigned long long)(run.last - run.first + 1), took, (unsigned long long)sum.events,
           (unsigned long long)sum.puts_ok, (unsigned long long)sum.gets_ok,
           (unsigned long long)sum.gets_missed, (unsigned long long)sum.gets_failed,
           (unsigned long long)sum.evicted, (unsigned long long)sum.held,
           (unsigned long long)sum.breaks, (unsigned long long)sum.crashes,
           (unsigned long long)sum.stops);
    free(w);
    if (run.expect_failure)
        return 1;
    return run.json ? write_json(&run, &sum, took) : 0;
}
