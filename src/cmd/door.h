/* door.h - settings of where requests go and who is let in: `mooncake gateway` has them, `mooncake serve` hands them
 * on. */
#ifndef CMD_DOOR_H
#define CMD_DOOR_H

#include <mooncake/sched.h>

#include "base/setting.h"
#include "cmd/policies.h"

#define DOOR_ADMISSIONS "default|all|early|early-system|early-request|stages"

/* clang-format off */
#define DOOR_SETTINGS(X)                                                                            \
    X(policy, "policy", 0, TEXT, NULL, 0, 0, NULL, "NAME", "Scheduling", POLICIES_HELP)              \
    X(policy_parameters, "policy-parameters", 0, TEXT, NULL, 0, 0, NULL, "LIST", "Scheduling",      \
      "The policy's own settings: threshold=1.2; see docs/scheduler.md.")                           \
    X(replication, "replication", 0, TEXT, "on", 0, 0, NULL, "LIST", "Scheduling",                  \
      "Spread hot prefixes over the pool: on, off, or rate=1,gain=4,asked=8,window=60.")            \
    X(slo_ttft, "slo-ttft", 0, DURATION, "0s", 0, 1e15, NULL, "TIME", "Objectives",                 \
      "To the first token at most, else a request is refused; 0s: whatever it takes.")              \
    X(slo_tbt, "slo-tbt", 0, DURATION, "0s", 0, 1e15, NULL, "TIME", "Objectives",                   \
      "Between the tokens of an answer, on average; 0s: whatever it takes.")                        \
    X(admission, "admission", 0, CHOICE, "default", 0, 0, DOOR_ADMISSIONS, "NAME", "Objectives",    \
      "What a refusal looks at: the load now (early), when the prefill would end (early-system, the default), each request's length (early-request), the prefill alone and decoding when that has ended (stages), or nothing (all).") \
    X(admission_parameters, "admission-parameters", 0, TEXT, NULL, 0, 0, NULL, "LIST", "Objectives", \
      "threshold=1,observations=20,quantile=0.95,retry=300,bookings=1: see docs/admission.md.")     \
    X(measure, "measure", 0, BOOL, "true", 0, 0, NULL, NULL, "Objectives",                          \
      "Let workers time themselves when they join.")
/* clang-format on */

static inline enum mc_admission door_admission(uint32_t choice)
{
    static const enum mc_admission by_choice[] = { MC_ADMIT_DEFAULT,       MC_ADMIT_ALL,
                                                   MC_ADMIT_EARLY,         MC_ADMIT_EARLY_SYSTEM,
                                                   MC_ADMIT_EARLY_REQUEST, MC_ADMIT_STAGES };
    return by_choice[choice];
}

#endif /* CMD_DOOR_H */
