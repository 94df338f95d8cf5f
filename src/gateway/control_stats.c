/* control_stats.c - the table of metrics as counters of the wire. */
#include "gateway/control_stats.h"

#include <stdio.h>
#include <string.h>

enum { COUNTERS_MAX = 64, NAME_MAX_BYTES = 64 };

struct counters {
    struct wire_counter items[COUNTERS_MAX];
    char names[COUNTERS_MAX][NAME_MAX_BYTES];
    uint32_t count;
};

static void add(struct counters *c, const struct wire_stats *stats, const char *name,
                const char *label, uint64_t value)
{
    char *text = c->names[c->count];

    if (c->count == COUNTERS_MAX)
        return;
    snprintf(text, NAME_MAX_BYTES, "gateway_%s%s%s", name, label ? "." : "", label ? label : "");
    if (strlen(text) < stats->prefix.size ||
        memcmp(text, stats->prefix.data ? stats->prefix.data : "", stats->prefix.size) != 0)
        return;
    c->items[c->count++] = (struct wire_counter){ wire_text(text), value };
}

void control_answer_stats(gateway *g, net_conn *conn, uint64_t id, const struct wire_stats *stats)
{
    struct counters c = { .count = 0 };

    for (uint32_t row = 0; row < GATEWAY_METRIC_COUNT; row++) {
        const struct metric *m = &gateway_metric_rows[row];
        for (uint32_t i = 0; i < (m->label ? m->label->count : 1); i++)
            add(&c, stats, m->name, m->label ? m->label->values[i] : NULL,
                metric_value(&g->metrics, row, i));
    }
    const struct wire_counters answer = { .items = { .items = c.items, .count = c.count } };
    (void)net_answer(conn, id, WIRE_COUNTERS, &answer);
}
