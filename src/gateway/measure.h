/*
 * measure.h - workers that joined are asked to time themselves, one after another (they may share a machine), while
 * no request is under way; what they say teaches the scheduler its costs before the first request.
 *
 * A request that comes ends it at once; a worker that was interrupted is asked again, a few times. One that cannot,
 * or an off switch, costs nothing but that: costs are learnt from what is served, too.
 */
#ifndef GATEWAY_MEASURE_H
#define GATEWAY_MEASURE_H

#include "gateway/state.h"

/** Somebody joined: look soon who is to be asked. */
void gateway_measure_soon(gateway *g);

/** A request comes. */
void gateway_measure_yield(gateway *g);

void gateway_measure_close(gateway *g);

#endif /* GATEWAY_MEASURE_H */
