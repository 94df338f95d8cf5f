/*
 * stages.h - MC_ADMIT_STAGES, the paper's baseline: each stage is decided when its turn comes.
 *
 * At arrival the prefill stage alone is looked at (admit.h, less its TBT). When a prefill has ended, the decode
 * instance is: by those who decode there, or whose KVCache is on its way there, then. Who is refused then has had
 * its prefill in vain, which is counted: that is why the other admissions look ahead.
 */
#ifndef SCHED_STAGES_H
#define SCHED_STAGES_H

#include "sched/state.h"

/** Its prefill has ended: sched->decision becomes MC_DECIDE_DECODE, or MC_DECIDE_REFUSE, which ends it. */
void stages_prefill_end(mc_sched *sched, uint32_t request);

#endif /* SCHED_STAGES_H */
