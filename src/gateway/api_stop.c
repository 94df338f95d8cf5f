/* api_stop.c - stop texts: their tables of borders, and one step for each byte of an answer. */
#include "gateway/api_stop.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"

/* How much of the text is matched when `byte` follows `matched` bytes of it. */
static uint32_t follow(const struct api_stop *stop, uint32_t matched, unsigned char byte)
{
    while (matched > 0 && (unsigned char)stop->text[matched] != byte)
        matched = stop->borders[matched - 1];
    return matched + ((unsigned char)stop->text[matched] == byte);
}

bool api_stops_add(struct api_stops *stops, const char *text, size_t size,
                   const struct mc_alloc *alloc)
{
    assert(stops->count < API_STOPS_MAX && size > 0 && size <= API_STOP_BYTES_MAX);
    struct api_stop *stop = &stops->items[stops->count];
    uint16_t *borders = alloc_zeroed(alloc, size, sizeof(*borders) + 1);

    if (!borders)
        return false;
    char *copy = (char *)(borders + size);
    memcpy(copy, text, size);
    *stop = (struct api_stop){ borders, copy, (uint32_t)size };
    for (size_t i = 1; i < size; i++)
        borders[i] = (uint16_t)follow(stop, borders[i - 1], (unsigned char)copy[i]);
    stops->count++;
    return true;
}

void api_stops_fini(struct api_stops *stops, const struct mc_alloc *alloc)
{
    for (uint32_t i = 0; i < stops->count; i++)
        alloc_free(alloc, stops->items[i].borders);
    stops->count = 0;
}

const struct api_stop *api_stop_push(const struct api_stops *stops, struct api_stop_state *state,
                                     unsigned char byte)
{
    const struct api_stop *found = NULL;

    for (uint32_t i = 0; i < stops->count; i++) {
        const struct api_stop *stop = &stops->items[i];
        uint32_t matched = follow(stop, state->matched[i], byte);
        if (matched == stop->size) {
            matched =
                stop->borders[matched - 1]; /* whoever goes on, goes on with what may follow */
            if (!found || stop->size > found->size)
                found = stop;
        }
        state->matched[i] = (uint16_t)matched;
    }
    return found;
}

size_t api_stop_hopeful(const struct api_stops *stops, const struct api_stop_state *state)
{
    size_t most = 0;

    for (uint32_t i = 0; i < stops->count; i++)
        if (state->matched[i] > most)
            most = state->matched[i];
    return most;
}
