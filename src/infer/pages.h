/*
 * pages.h - the KVCache pages of one engine, shared by all who take some: who is free, who holds what.
 *
 * A page may have several holders: a sequence that computes in it, a push or a put that still reads it.
 * It is free again when the last one lets go, so a cancelled request never waits for its transfers and
 * no transfer ever reads what is another's by now.
 *
 * Life:    pages_open -> (pages_take, pages_hold, pages_drop)* -> pages_close
 * Threads: any. One lock, a leaf, held for a few pages' work: a reservation does not wait for a step.
 * Memory:  the pages are the caller's; the tables are taken at open.
 * Errors:  "none free" is an answer. Dropping what is not held is a bug: assert.
 */
#ifndef INFER_PAGES_H
#define INFER_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <mooncake/status.h>

struct pages; /* opaque; no typedef: `pages` is what half the locals are called */

enum { PAGES_ALIGN = 64 }; /* bytes: what the engine asks of a page's address */

/** Bytes from one page to the next for pages of `page_bytes`. */
static inline size_t pages_stride(size_t page_bytes)
{
    return (page_bytes + PAGES_ALIGN - 1) / PAGES_ALIGN * PAGES_ALIGN;
}

/**
 * base    `count` pages, `stride` bytes apart, aligned to PAGES_ALIGN as is stride; borrowed until close.
 * alloc   borrowed until close.
 *
 * Returns MC_OK or MC_E_NOMEM.
 */
mc_status pages_open(const struct mc_alloc *alloc, void *base, size_t stride, uint32_t count,
                     struct pages **pages_p, struct mc_error *error);

/** All pages must be free. NULL is allowed. */
void pages_close(struct pages *pages);

uint32_t pages_count(const struct pages *pages);

/** Free now. */
uint32_t pages_free(struct pages *pages);

/**
 * Take `count` free pages if `spare` more are free besides: all, or none.
 *
 * taken_p  [count], written when true; the caller is their one holder.
 */
bool pages_take(struct pages *pages, uint32_t count, uint32_t spare, void **taken_p);

/** As pages_take(), leaving also what pages_want() asked for: for whoever is not in line. */
bool pages_reserve(struct pages *pages, uint32_t count, uint32_t spare, void **taken_p);

/** So many free pages are waited for by who is first in line; 0: nobody waits. */
void pages_want(struct pages *pages, uint32_t count);

/** One more holder of each. They must be held. */
void pages_hold(struct pages *pages, void *const *held, uint32_t count);

/** One holder less of each; who was the last frees it. */
void pages_drop(struct pages *pages, void *const *held, uint32_t count);

/** Bytes from the first page's start to `page`'s. */
uint64_t pages_offset(const struct pages *pages, const void *page);

#endif /* INFER_PAGES_H */
