/* length.h - the built-in length predictor. */
#ifndef SCHED_LENGTH_H
#define SCHED_LENGTH_H

#include <mooncake/sched.h>

extern const struct mc_length_predictor length_history;

#endif /* SCHED_LENGTH_H */
