/*
 * mutant.c - a mooncake whose workers spoil KVCache that was moved, past every checksum: it shows that
 * tests/e2e/test_same_answer.py can fail.
 *
 * Linked with --wrap=runner_add: whenever a request joins the engine with pages that came from elsewhere (a
 * prefix that was pulled, a prompt that was handed off), the mutation named by the environment
 * variable MUTATION is made first. The geometry is that of models/tiny-random.
 */
#include <stdlib.h>
#include <string.h>

#include "worker/runner.h"

enum {
    LAYERS = 4,
    TOKENS = 16,
    TOKEN_BYTES = 2 * 32 * 2, /* heads, dimensions, bytes of BF16 */
    PART_BYTES = TOKENS * TOKEN_BYTES,
    LAYER_BYTES = 2 * PART_BYTES, /* K and V */
    PAGE_BYTES = LAYERS * LAYER_BYTES,
};

void __real_runner_add(runner *runner, struct job *job);
void __wrap_runner_add(runner *runner, struct job *job);

/* One bit of one byte: the sign of one value of one key. */
static void flip(uint8_t *page, uint8_t *next)
{
    (void)next;
    page[LAYER_BYTES + 7 * TOKEN_BYTES + 1] ^= 0x80;
}

static void swap(uint8_t *page, uint8_t *next)
{
    static uint8_t between[PAGE_BYTES];

    memcpy(between, page, PAGE_BYTES);
    memcpy(page, next, PAGE_BYTES);
    memcpy(next, between, PAGE_BYTES);
}

/* Where layer 2 should be, there is still layer 1. */
static void late(uint8_t *page, uint8_t *next)
{
    (void)next;
    memcpy(page + 2 * LAYER_BYTES, page + LAYER_BYTES, LAYER_BYTES);
}

/* Every key of one layer lies one position too far. */
static void off(uint8_t *page, uint8_t *next)
{
    (void)next;
    memmove(page + TOKEN_BYTES, page, PART_BYTES - TOKEN_BYTES);
}

static const struct {
    const char *name;
    void (*mutate)(uint8_t *page, uint8_t *next);
} mutations[] = { { "flip", flip }, { "swap", swap }, { "late", late }, { "off", off } };

void __wrap_runner_add(runner *runner, struct job *job)
{
    const char *name = getenv("MUTATION");
    const struct request *r = job->request;

    for (size_t i = 0; name && i < sizeof(mutations) / sizeof(mutations[0]); i++)
        if (strcmp(name, mutations[i].name) == 0 && r->computed >= 2 * TOKENS)
            mutations[i].mutate(r->pages[0], r->pages[1]);
    __real_runner_add(runner, job);
}
