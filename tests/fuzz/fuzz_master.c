/*
 * fuzz_master.c - the pool's master under any messages in any order, from anybody.
 *
 * Input: | what u8 | kind u8 | size u16 | size bytes | …: what's low 2 bits: 0 a question, 1 the answer to
 * what was asked last, 2 a connection ends, 3 time passes (kind x 16 ms); the next 2 bits: which connection.
 * All extents must fit together at the end: whatever was said, no byte may be lost or given twice.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "store/core/master_state.h"
#include "wire/bytes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void *take(void *context, size_t size)
{
    (void)context;
    return malloc(size);
}

static void *resize(void *context, void *p, size_t size)
{
    (void)context;
    return realloc(p, size);
}

static void release(void *context, void *p)
{
    (void)context;
    free(p);
}

struct asked {
    uint64_t conn, tag;
};

static mc_status answer(void *user, uint64_t conn, uint64_t id, enum wire_kind kind,
                        const void *message)
{
    (void)user;
    (void)conn;
    (void)id;
    assert(wire_encoded_size(kind, message) <= 8u << 20);
    return MC_OK;
}

static mc_status ask(void *user, uint64_t conn, uint64_t tag, enum wire_kind kind,
                     const void *message, uint64_t deadline_ns)
{
    (void)deadline_ns;
    assert(wire_encoded_size(kind, message) <= 8u << 20);
    *(struct asked *)user = (struct asked){ conn, tag };
    return MC_OK;
}

static mc_status say(void *user, uint64_t conn, enum wire_kind kind, const void *message)
{
    (void)user;
    (void)conn;
    assert(wire_encoded_size(kind, message) <= 8u << 20);
    return MC_OK;
}

static void check(const store_master *m)
{
    uint64_t used = 0, dying = 0, writing = 0;

    for (uint32_t l = 0; l < m->space.lents_max; l++) {
        uint64_t at = 0;
        for (uint32_t e = m->space.lents[l].used ? m->space.lents[l].first : 0; e != 0;
             e = m->space.extents[e].after) {
            const struct extent *x = &m->space.extents[e];
            assert(x->offset == at);
            at += x->size;
            used += x->state == EXTENT_HELD ? x->size : 0;
            writing += x->state == EXTENT_WRITING ? x->size : 0;
            dying += x->state == EXTENT_DYING || x->state == EXTENT_EVICTING ? x->size : 0;
        }
        assert(at == m->space.lents[l].size);
    }
    assert(used == m->used && dying == m->dying && writing == m->writing);
}

static void one(store_master *m, uint8_t what, uint8_t kind, const uint8_t *body, size_t size,
                uint64_t now, struct asked *last)
{
    const struct store_master_out out = { answer, ask, say, last };
    struct store_master_event event = { .conn = 1u + (what >> 2 & 3), .id = 1, .wire = kind };
    union {
        uint64_t align;
        unsigned char bytes[WIRE_STRUCT_MAX];
    } message;
    struct mc_error error;

    switch (what & 3) {
    case 0:
    case 1:
        if (wire_decode(kind, body, size, &message, &error) != MC_OK)
            return;
        event.message = &message;
        event.kind = (what & 3) == 0 ? STORE_MASTER_MESSAGE : STORE_MASTER_ANSWER;
        if (event.kind == STORE_MASTER_ANSWER) {
            event.conn = last->conn;
            event.id = last->tag;
        }
        break;
    case 2:
        event.kind = STORE_MASTER_DOWN;
        break;
    default:
        break;
    }
    store_master_step(m, &event, now, &out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct mc_alloc alloc = { take, resize, release, NULL };
    const struct store_master_options options = {
        .alloc = &alloc,
        .epoch = 5,
        .objects_max = 16,
        .extents_max = 40,
        .nodes_max = 3,
        .lents_max = 4,
        .tokens_max = 6,
        .leases_max = 4,
        .lease_items_max = 12,
        .requests_max = 3,
        .batch_max = 8,
        .events_max = 8,
        .subscribers_max = 2,
    };
    struct asked last = { 0 };
    store_master *m;
    uint64_t now = 1000000000;

    if (store_master_open(&options, &m) != MC_OK)
        return 0;
    while (size >= 4) {
        const uint8_t what = data[0], kind = data[1];
        size_t body = get_u16(data + 2);
        data += 4;
        size -= 4;
        body = body < size ? body : size;
        if ((what & 3) == 3)
            now += kind * UINT64_C(16000000);
        one(m, what, kind, data, body, now, &last);
        data += body;
        size -= body;
    }
    check(m);
    store_master_close(m);
    return 0;
}
