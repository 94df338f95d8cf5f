/* counters.c - collect figures by name, and answer with them. */
#include "net/counters.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

void net_counters_init(struct net_counters *counters, const struct wire_slice *prefix)
{
    counters->prefix = *prefix;
    counters->count = 0;
}

static bool is_asked(const struct net_counters *c, const char *name)
{
    return c->prefix.size == 0 ||
           (strlen(name) >= c->prefix.size && memcmp(name, c->prefix.data, c->prefix.size) == 0);
}

void net_counters_add(struct net_counters *c, const char *name, uint64_t value)
{
    assert(strlen(name) < NET_COUNTER_NAME_BYTES);
    if (!is_asked(c, name) || c->count == NET_COUNTERS_MAX)
        return;
    uint32_t at = c->count++;
    for (; at > 0 && strcmp(c->items[at - 1].name, name) > 0; at--)
        c->items[at] = c->items[at - 1];
    memcpy(c->items[at].name, name, strlen(name) + 1);
    c->items[at].value = value;
}

static void add_series(struct net_counters *c, const struct metrics *metrics, uint32_t row,
                       uint32_t series)
{
    static const char house[] = "mooncake_";
    const struct metric *m = &metrics->rows[row];
    const char *prefix = metrics->prefix;
    char name[NET_COUNTER_NAME_BYTES];

    if (strncmp(prefix, house, sizeof(house) - 1) == 0)
        prefix += sizeof(house) - 1;
    const int size = m->label ? snprintf(name, sizeof(name), "%s_%s{%s=\"%s\"}", prefix, m->name,
                                         m->label->name, m->label->values[series])
                              : snprintf(name, sizeof(name), "%s_%s", prefix, m->name);
    assert(size > 0 && size < NET_COUNTER_NAME_BYTES);
    net_counters_add(c, name, metric_value(metrics, row, series));
}

void net_counters_add_metrics(struct net_counters *c, const struct metrics *metrics)
{
    for (uint32_t row = 0; row < metrics->count; row++) {
        const struct metric_label *label = metrics->rows[row].label;
        for (uint32_t i = 0; i < (label ? label->count : 1); i++)
            add_series(c, metrics, row, i);
    }
}

uint64_t net_counters_value(const struct net_counters *c, const char *name)
{
    for (uint32_t i = 0; i < c->count; i++)
        if (strcmp(c->items[i].name, name) == 0)
            return c->items[i].value;
    return 0;
}

mc_status net_counters_answer(const struct net_counters *c, net_conn *conn, uint64_t id)
{
    struct wire_counter items[NET_COUNTERS_MAX];

    for (uint32_t i = 0; i < c->count; i++)
        items[i] = (struct wire_counter){ wire_text(c->items[i].name), c->items[i].value };
    const struct wire_counters answer = { .items = { .items = items, .count = c->count } };
    return net_answer(conn, id, WIRE_COUNTERS, &answer);
}
