/*
 * prng.h - random numbers that are a function of their arguments.
 *
 * A counter-based generator has no state to carry: the number for (seed, position) is the same on
 * every machine, in every batch, after every restart. Not for secrets.
 */
#ifndef BASE_PRNG_H
#define BASE_PRNG_H

#include <stdint.h>

/** SplitMix64's finaliser (Steele, Lea, Flood 2014): a bijection that mixes all 64 bits. */
static inline uint64_t prng_mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/** 64 random bits for `counter` of the stream `seed`. */
static inline uint64_t prng_at(uint64_t seed, uint64_t counter)
{
    return prng_mix(prng_mix(seed) ^ prng_mix(counter ^ 0xd1b54a32d192ed03u));
}

/** A sequence, for simulations and tests: `{ .seed = n }` is a valid start. One thread. */
struct prng {
    uint64_t seed, counter;
};

static inline uint64_t prng_next(struct prng *prng)
{
    return prng_at(prng->seed, prng->counter++);
}

/** Evenly from [0, bound); bound > 0. The bias of the multiply is below 2^-32 for bounds < 2^32. */
static inline uint32_t prng_below(struct prng *prng, uint32_t bound)
{
    return (uint32_t)(((prng_next(prng) >> 32) * bound) >> 32);
}

/** A double in [0, 1) from 53 of the bits. */
static inline double prng_unit(uint64_t bits)
{
    return (double)(bits >> 11) * 0x1p-53;
}

#endif /* BASE_PRNG_H */
