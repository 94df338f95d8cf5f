/* requests.c - number the blocks of a trace, and keep its requests. */
#include "sim/requests.h"

#include "base/alloc.h"
#include "base/prng.h"

static const uint64_t LIMIT = (uint64_t)1 << 31;

void requests_init(struct requests *r, uint32_t block_tokens, const struct mc_alloc *alloc)
{
    *r = (struct requests){ .alloc = alloc, .block_tokens = block_tokens };
}

void requests_fini(struct requests *r)
{
    if (!r->alloc)
        return;
    alloc_free(r->alloc, r->requests);
    alloc_free(r->alloc, r->blocks);
    alloc_free(r->alloc, r->ids);
    alloc_free(r->alloc, r->numbers);
    *r = (struct requests){ 0 };
}

/* ------------------------------------------------------------------------------------------ numbers */

static uint64_t place_of(const struct requests *r, uint64_t id)
{
    uint64_t at = prng_mix(id) & (r->id_capacity - 1);

    while (r->ids[at] != 0 && r->ids[at] != id + 1)
        at = (at + 1) & (r->id_capacity - 1);
    return at;
}

static mc_status ids_grow(struct requests *r)
{
    struct requests next = *r;

    next.id_capacity = r->id_capacity ? r->id_capacity * 2 : 1024;
    next.ids = alloc_zeroed(r->alloc, next.id_capacity, sizeof(*next.ids));
    next.numbers = alloc_zeroed(r->alloc, next.id_capacity, sizeof(*next.numbers));
    if (!next.ids || !next.numbers) {
        alloc_free(r->alloc, next.ids);
        alloc_free(r->alloc, next.numbers);
        return MC_E_NOMEM;
    }
    for (uint64_t i = 0; i < r->id_capacity; i++)
        if (r->ids[i] != 0) {
            const uint64_t at = place_of(&next, r->ids[i] - 1);
            next.ids[at] = r->ids[i];
            next.numbers[at] = r->numbers[i];
        }
    alloc_free(r->alloc, r->ids);
    alloc_free(r->alloc, r->numbers);
    *r = next;
    return MC_OK;
}

static mc_status number_of(struct requests *r, uint64_t id, uint32_t *number_p)
{
    if (r->id_count * (uint64_t)2 >= r->id_capacity) {
        const mc_status status = ids_grow(r);
        if (status != MC_OK)
            return status;
    }
    const uint64_t at = place_of(r, id);
    if (r->ids[at] == 0) {
        if (r->id_count == LIMIT)
            return MC_E_RANGE;
        r->ids[at] = id + 1;
        r->numbers[at] = r->id_count++;
    }
    *number_p = r->numbers[at];
    return MC_OK;
}

/* ---------------------------------------------------------------------------------------------- add */

static mc_status make_room(struct requests *r, uint32_t blocks)
{
    if (r->count == LIMIT || r->block_count + blocks > LIMIT)
        return MC_E_RANGE;
    if (r->count == r->capacity) {
        const uint32_t capacity = r->capacity ? r->capacity * 2 : 256;
        struct sim_request *more = alloc_resize(r->alloc, r->requests, capacity, sizeof(*more));
        if (!more)
            return MC_E_NOMEM;
        r->requests = more;
        r->capacity = capacity;
    }
    if (r->block_count + blocks > r->block_capacity) {
        uint64_t capacity = r->block_capacity ? r->block_capacity * 2 : 1024;
        while (capacity < r->block_count + blocks)
            capacity *= 2;
        uint32_t *more = alloc_resize(r->alloc, r->blocks, capacity, sizeof(*more));
        if (!more)
            return MC_E_NOMEM;
        r->blocks = more;
        r->block_capacity = capacity;
    }
    return MC_OK;
}

static bool is_within(const struct requests *r)
{
    const uint64_t here = r->capacity * sizeof(*r->requests) +
                          r->block_capacity * sizeof(*r->blocks) +
                          r->id_capacity * (sizeof(*r->ids) + sizeof(*r->numbers));

    return r->room.bytes == 0 ||
           here + r->count * r->room.request_bytes + r->id_count * r->room.block_bytes <=
               r->room.bytes;
}

mc_status requests_add(struct requests *r, const struct trace_request *t)
{
    const uint32_t whole = t->input_tokens / r->block_tokens;
    const uint32_t blocks = t->hash_count < whole ? t->hash_count : whole;
    mc_status status = make_room(r, blocks);

    if (status != MC_OK)
        return status;
    if (r->count == 0)
        r->first_ns = t->arrival_ns;
    const uint64_t ns = t->arrival_ns > r->first_ns ? t->arrival_ns - r->first_ns : 0;
    for (uint32_t i = 0; i < blocks; i++) {
        status = number_of(r, t->hash_ids[i], &r->blocks[r->block_count + i]);
        if (status != MC_OK)
            return status;
    }
    r->requests[r->count++] =
        (struct sim_request){ .arrival_ns = ns,
                              .first_block = r->block_count,
                              .block_count = blocks,
                              .input = t->input_tokens,
                              .output = t->output_tokens ? t->output_tokens : 1 };
    r->block_count += blocks;
    return is_within(r) ? MC_OK : MC_E_RANGE;
}

struct sim_trace requests_trace(const struct requests *r)
{
    return (struct sim_trace){ .requests = r->requests,
                               .blocks = r->blocks,
                               .count = r->count,
                               .block_ids = r->id_count,
                               .block_tokens = r->block_tokens };
}
