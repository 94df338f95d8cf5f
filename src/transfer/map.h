/*
 * map.h - where the pieces of peers' windows lie, as a segment remembers it.
 *
 * Threads: whoever has segment->lock. Memory: owned by the segment; bounded by MAPS_MAX and MAPS_BYTES,
 * the oldest that nobody reads go first.
 */
#ifndef TRANSFER_MAP_H
#define TRANSFER_MAP_H

#include "transfer/segment.h"

/** The map of a window, in whichever state, or NULL. */
struct map *map_find(struct segment *segment, const struct mc_window *window);
/** Begin to ask for one. NULL: out of memory. */
struct map *map_new(struct segment *segment, const struct mc_window *window);
/** An entry reads it no more; `forget`: it is of no use any more. */
void map_unuse(struct map *map, bool forget);
/** Keep the peer's answer, or why there is none. */
void map_answer(struct map *map, mc_status status, const struct wire_frame *frame,
                const struct mc_error *error);
/** Forget those that failed and those of another life of the peer. */
void maps_clean(struct segment *segment);
/** Nothing is asked, nobody reads: free all. */
void maps_free(struct segment *segment);

#endif /* TRANSFER_MAP_H */
