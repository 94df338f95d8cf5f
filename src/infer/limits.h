/*
 * limits.h - what this machine can do at most, measured now: the two figures that prefill and decode
 * are held against.
 *
 * Threads: one owner; a crew of its own runs the loops. Takes about half a second and 256 MiB.
 * Errors:  as os_crew_open, mc_engine_open's for an unknown kernel, and MC_E_NOMEM.
 */
#ifndef INFER_LIMITS_H
#define INFER_LIMITS_H

#include <mooncake/infer.h>

struct limits {
    double peak_flops; /* multiply-adds counted as two, per second, all threads: a loop of the same
                            * instructions as a matrix product's, that stays in registers */
    double read_bandwidth; /* bytes per second, all threads, from memory that no cache holds */
};

/**
 * kernel   a level's name (mc_engine_kernel()).
 * weights  the matrices' type: which multiply-add counts.
 * rounds   how often each is measured, 1 .. 100; the median is taken.
 */
mc_status limits_measure(const char *kernel, enum mc_dtype weights, uint32_t threads,
                         uint32_t rounds, const struct mc_alloc *alloc, struct limits *limits_p,
                         struct mc_error *error);

#endif /* INFER_LIMITS_H */
