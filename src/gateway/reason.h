/*
 * reason.h - the scheduler's reasons (enum mc_reason) as clients, logs and watchers know them.
 *
 * Pure. A number that nobody here knows is "refused", in name and words.
 */
#ifndef GATEWAY_REASON_H
#define GATEWAY_REASON_H

#include <stdint.h>

enum { REASON_NAME = 32 }; /* bytes of a name with its NUL */

/** "ttft_slo" */
void gateway_reason_name(uint32_t reason, char name[REASON_NAME]);

/** "the first token would be late"; static. */
const char *gateway_reason_words(uint32_t reason);

#endif /* GATEWAY_REASON_H */
