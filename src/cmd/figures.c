/* figures.c - medians and the JSON of a bench. */
#include "cmd/figures.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "os/clock.h"
#include "os/crew.h"
#include "os/sysalloc.h"

void samples_add(struct samples *samples, double value)
{
    if (samples->count < SAMPLES_MAX)
        samples->values[samples->count++] = value;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static struct samples sorted(const struct samples *samples)
{
    struct samples s = *samples;

    assert(s.count > 0);
    qsort(s.values, s.count, sizeof(s.values[0]), by_value);
    return s;
}

double samples_median(const struct samples *samples)
{
    const struct samples s = sorted(samples);
    const uint32_t half = s.count / 2;

    return s.count % 2 ? s.values[half] : (s.values[half - 1] + s.values[half]) / 2;
}

void bench_init(struct bench *bench, const char *name, const char *command, const char *commit)
{
    *bench = (struct bench){ name, command, commit ? commit : "unknown", BUF_INIT(os_alloc()), 0 };
}

static void add_text(struct buf *out, const char *key, const char *text)
{
    buf_addf(out, "\"%s\": ", key);
    buf_add_json(out, text, strlen(text));
}

void bench_row(struct bench *bench, const char *name, const char *metric, const char *unit,
               const struct samples *own, const char *peer_name, const struct samples *peer)
{
    struct buf *out = &bench->rows;
    const struct samples s = sorted(own);
    struct samples ratios = { 0 };

    buf_add_text(out, bench->count++ ? ",\n  { " : "  { ");
    add_text(out, "case", name);
    buf_add_text(out, ", ");
    add_text(out, "metric", metric);
    buf_add_text(out, ", ");
    add_text(out, "unit", unit);
    buf_addf(out, ", \"value\": %.6g, \"min\": %.6g, \"max\": %.6g, \"n\": %u", samples_median(own),
             s.values[0], s.values[s.count - 1], s.count);
    printf("%-34s %9.4g %-9s (%.4g to %.4g)", name, samples_median(own), unit, s.values[0],
           s.values[s.count - 1]);
    if (peer) {
        for (uint32_t i = 0; i < own->count && i < peer->count; i++)
            samples_add(&ratios, own->values[i] / peer->values[i]);
        const struct samples r = sorted(&ratios);
        buf_add_text(out, ", ");
        add_text(out, "peer", peer_name);
        buf_addf(
            out,
            ", \"peer_value\": %.6g, \"ratio\": %.4g, \"ratio_min\": %.4g, \"ratio_max\": %.4g",
            samples_median(peer), samples_median(&ratios), r.values[0], r.values[r.count - 1]);
        printf("  %.3f x %s (%.3f to %.3f)", samples_median(&ratios), peer_name, r.values[0],
               r.values[r.count - 1]);
    }
    buf_add_text(out, " }");
    putchar('\n');
    fflush(stdout);
}

void bench_figure(struct bench *bench, const struct figure *f)
{
    struct buf *out = &bench->rows;

    buf_add_text(out, bench->count++ ? ",\n  { " : "  { ");
    add_text(out, "case", f->name);
    buf_add_text(out, ", ");
    add_text(out, "metric", f->metric);
    buf_add_text(out, ", ");
    add_text(out, "unit", f->unit);
    buf_addf(out, ", \"value\": %.6g, \"min\": %.6g, \"max\": %.6g, \"n\": %" PRIu64, f->value,
             f->min, f->max, f->n);
    if (f->peer) {
        buf_add_text(out, ", ");
        add_text(out, "peer", f->peer);
        buf_addf(out, ", \"peer_value\": %.6g", f->peer_value);
        if (f->peer_value != 0)
            buf_addf(out, ", \"ratio\": %.4g", f->value / f->peer_value);
    }
    if (f->note) {
        buf_add_text(out, ", ");
        add_text(out, "note", f->note);
    }
    buf_add_text(out, " }");
}

/* "Intel(R) Xeon(R) ..., 2 processors": what a reader needs to judge a figure. */
static void machine_text(char text[256])
{
    char line[256] = "", model[200] = "unknown processor";
    FILE *file = fopen("/proc/cpuinfo", "r");

    while (file && fgets(line, sizeof(line), file)) {
        const char *colon = strncmp(line, "model name", 10) == 0 ? strchr(line, ':') : NULL;
        if (!colon)
            continue;
        snprintf(model, sizeof(model), "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        break;
    }
    if (file)
        fclose(file);
    snprintf(text, 256, "%s, %u processors", model, os_processors());
}

bool bench_write(const struct bench *bench, const char *path)
{
    struct buf out = BUF_INIT(os_alloc());
    char machine[256], date[21];

    machine_text(machine);
    buf_add_text(&out, "{ ");
    add_text(&out, "bench", bench->name);
    buf_add_text(&out, ",\n  ");
    add_text(&out, "command", bench->command);
    buf_add_text(&out, ",\n  ");
    add_text(&out, "commit", bench->commit);
    buf_add_text(&out, ",\n  ");
    add_text(&out, "machine", machine);
    buf_add_text(&out, ",\n  ");
    add_text(&out, "date", os_date_text(os_date_s(), date));
    buf_addf(&out, ",\n  \"rows\": [\n%s\n] }\n", bench->rows.data ? bench->rows.data : "");

    FILE *file = out.failed ? NULL : fopen(path, "w");
    bool done = file && fwrite(out.data, 1, out.size, file) == out.size;
    if (file)
        done = fclose(file) == 0 && done;
    if (!done)
        fprintf(stderr, "bench: cannot write %s\n", path);
    buf_fini(&out);
    return done;
}

void bench_fini(struct bench *bench)
{
    buf_fini(&bench->rows);
}
