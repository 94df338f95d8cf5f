/* sessions.c - a table of prompts' ends, and counts of who goes on. */
#include "sched/sessions.h"

#include <assert.h>
#include <string.h>

#include "base/prng.h"

/* Before anything was seen: so many requests of each turn, this share of which went on. */
static const double SEEN_AT_FIRST = 50,
                    CONTINUED_AT_FIRST[SESSION_TURNS] = { 0.2, 0.4, 0.5, 0.5, 0.5, 0.5 };
static const double MOST = 0.8; /* of a turn's share: nothing goes on for ever */

static uint64_t fold(const struct mc_key *key)
{
    uint64_t parts[2];

    static_assert(sizeof(parts) == sizeof(*key), "a key is 128 bits");
    memcpy(parts, key, sizeof(parts));
    return prng_at(parts[0], parts[1]) | 1;
}

static struct session_end *slot_of(struct sessions *s, uint64_t key)
{
    return &s->ends[(key >> 1) % SESSION_SLOTS];
}

/* The longest earlier prompt that this one begins with; NULL: none. */
static struct session_end *find_parent(struct sessions *s, const struct mc_sched_request *r)
{
    for (uint64_t i = r->key_count; i-- > 0;) {
        const uint64_t key = fold(&r->keys[i]);
        struct session_end *end = slot_of(s, key);

        if (end->key == key)
            return end;
    }
    return NULL;
}

uint32_t sessions_turn(struct sessions *s, const struct mc_sched_request *r)
{
    if (r->key_count == 0)
        return 0;
    const uint64_t own = fold(&r->keys[r->key_count - 1]);
    struct session_end *parent = find_parent(s, r);
    uint32_t turn = 0;

    if (parent && parent->key == own)
        return parent->turn; /* the same again */
    if (parent &&
        !parent->continued) { /* or many begin like that: it is a common beginning, not a session */
        s->continued[parent->turn]++;
        parent->continued = 1;
        turn = parent->turn < SESSION_TURNS - 1 ? parent->turn + 1 : parent->turn;
    }
    s->seen[turn]++;
    *slot_of(s, own) = (struct session_end){ .key = own, .turn = turn };
    return turn;
}

static double share(const struct sessions *s, uint32_t turn)
{
    const double share = (s->continued[turn] + SEEN_AT_FIRST * CONTINUED_AT_FIRST[turn]) /
                         (s->seen[turn] + SEEN_AT_FIRST);
    return share < MOST ? share : MOST;
}

double sessions_to_come(const struct sessions *s, uint32_t turn)
{
    const double last = share(s, SESSION_TURNS - 1);
    double more = last / (1 - last);

    for (uint32_t t = SESSION_TURNS - 1; t-- > turn;)
        more = share(s, t) * (1 + more);
    return more;
}
