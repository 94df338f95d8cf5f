/*
 * api_stop.h - texts that end an answer, found byte by byte wherever tokens cut the text.
 *
 * Life:    api_stops_add* -> (a struct api_stop_state for each choice, api_stop_push*) -> api_stops_fini
 * Threads: the texts are read-only once added, and shared by the choices of a request.
 * Memory:  from the allocator: three bytes for each byte of a text. A state has none.
 * Errors:  api_stops_add: false, no memory.
 *
 * Each text is looked for by its table of borders (Knuth, Morris and Pratt): a byte costs a few steps,
 * whatever the texts and the answer are.
 */
#ifndef GATEWAY_API_STOP_H
#define GATEWAY_API_STOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <mooncake/status.h>

enum {
    API_STOPS_MAX = 16,
    API_STOP_BYTES_MAX = 1024, /* of one text; as in `mooncake run` */
};

struct api_stop {
    uint16_t
        *borders; /* owned; [size]: of the first i + 1 bytes, the longest border that is shorter */
    const char *text; /* [size]; behind the borders, in the same piece of memory */
    uint32_t size;    /* 1 .. API_STOP_BYTES_MAX */
};

struct api_stops {
    struct api_stop items[API_STOPS_MAX];
    uint32_t count;
};

/** How much of each text the answer ends with now: always less than all of it. */
struct api_stop_state {
    uint16_t matched[API_STOPS_MAX];
};

/** text: copied. */
bool api_stops_add(struct api_stops *stops, const char *text, size_t size,
                   const struct mc_alloc *alloc);

/** Safe on `{ 0 }`. */
void api_stops_fini(struct api_stops *stops, const struct mc_alloc *alloc);

/** The answer goes on with `byte`: the text that ends with it (the longest, if several do), or NULL. */
const struct api_stop *api_stop_push(const struct api_stops *stops, struct api_stop_state *state,
                                     unsigned char byte);

/** Bytes at the answer's end that later ones may complete to a stop text. */
size_t api_stop_hopeful(const struct api_stops *stops, const struct api_stop_state *state);

#endif /* GATEWAY_API_STOP_H */
