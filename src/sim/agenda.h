/*
 * agenda.h - what is due when: a heap of events of a virtual clock.
 *
 * Events of the same time come in the order in which they were added, so that a run depends on nothing but
 * its inputs. An event that is not wanted any more stays in and is recognised by whoever gets it: by its
 * `turn`, a number that its owner counts up.
 *
 * Life:    agenda_init -> agenda_add | agenda_next -> agenda_fini
 * Threads: one.
 * Memory:  grows by doubling; a run settles after its first seconds.
 */
#ifndef SIM_AGENDA_H
#define SIM_AGENDA_H

#include <stdbool.h>
#include <stdint.h>

#include <mooncake/status.h>

struct agenda_event {
    uint64_t ns, sequence; /* when; and which of those at the same time */
    uint32_t kind, whom, turn, unused;
};

struct agenda {
    const struct mc_alloc *alloc; /* borrowed */
    struct agenda_event *heap;    /* owned; [capacity] */
    uint32_t count, capacity;
    uint64_t sequence;
};

mc_status agenda_init(struct agenda *agenda, const struct mc_alloc *alloc);
void agenda_fini(struct agenda *agenda);

/** Returns MC_OK or MC_E_NOMEM. */
mc_status agenda_add(struct agenda *agenda, uint64_t ns, uint32_t kind, uint32_t whom,
                     uint32_t turn);

/** The next event, taken out; false: there is none. */
bool agenda_next(struct agenda *agenda, struct agenda_event *event_p);

/** When it is; UINT64_MAX: there is none. */
static inline uint64_t agenda_due(const struct agenda *agenda)
{
    return agenda->count ? agenda->heap[0].ns : UINT64_MAX;
}

#endif /* SIM_AGENDA_H */
