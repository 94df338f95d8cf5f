/*
 * bpe.h - the model of a byte-level BPE: vocabulary, merges, and one piece of text to tokens.
 *
 * Byte-level: every byte of text is written as one printable character (a space as U+0120, say), so
 * that the words of a vocabulary are text whatever bytes they stand for. This file speaks both:
 * "spelling" is as the file writes a word, "bytes" is what it stands for.
 *
 * Life:    bpe_open -> bpe_encode* -> bpe_close
 * Threads: read-only once open; a scratch belongs to one thread.
 * Memory:  vocabulary and merges are sized once, at open. A scratch grows to the longest piece.
 * Errors:  texts name the file and the field.
 */
#ifndef INFER_BPE_H
#define INFER_BPE_H

#include <jansson.h>

#include "base/buf.h"
#include "infer/tokens.h"

#define ID_NONE UINT32_MAX /* no token; above every id and every rank */

enum { ID_MAX = 4 * 1024 * 1024 };

/** One word's spelling, [size] bytes in bpe.text; size ID_NONE: the id has no word. */
struct word {
    uint32_t offset, size;
};

/** Two neighbours that merge; a slot is empty while rank is ID_NONE. */
struct pair {
    uint32_t left, right, rank;
};

struct bpe {
    const struct mc_alloc *alloc;
    char *text;         /* owned; all spellings, one after another */
    struct word *words; /* owned; [count], by id */
    uint32_t count;     /* one more than the highest id of model.vocab */
    uint32_t *slots;    /* owned; [slot_mask + 1] ids by the hash of the spelling, or ID_NONE */
    uint32_t slot_mask;
    struct pair *pairs; /* owned; [pair_mask + 1] by the hash of the two ids */
    uint32_t pair_mask;
    uint32_t *merged;       /* owned; the id that a merge gives, by its rank */
    uint32_t byte_ids[256]; /* the token of each byte; ID_NONE for bytes that UTF-8 never has */
    bool ignore_merges;     /* a piece that is a word is that word, without merging */
};

/** Memory that encoding needs: `{ .alloc = a }` is a valid start. */
struct bpe_scratch {
    const struct mc_alloc *alloc;
    uint32_t *ids, *previous, *next; /* owned, one block; a list of the piece's symbols */
    uint64_t *heap;                  /* owned; candidates, rank and position in one number */
    size_t capacity;                 /* symbols */
    struct buf spelled;
};

/** Over the "model" object of tokenizer.json. MC_OK, MC_E_FORMAT, MC_E_UNSUPPORTED, MC_E_RANGE or
 * MC_E_NOMEM; whatever it returns, bpe_close() may follow. */
mc_status bpe_open(struct bpe *bpe, const json_t *model, const char *name,
                   const struct mc_alloc *alloc, struct mc_error *error);

/** `{ 0 }` is allowed. */
void bpe_close(struct bpe *bpe);

/** The id of the word of this spelling, or ID_NONE. */
uint32_t bpe_find(const struct bpe *bpe, const char *spelling, size_t size);

/** Append the tokens of one piece, `size` > 0 bytes. O(n log n). MC_OK, MC_E_RANGE (4 GiB) or
 * MC_E_NOMEM. */
mc_status bpe_encode(const struct bpe *bpe, const char *bytes, size_t size,
                     struct bpe_scratch *scratch, struct tokens *out);

void bpe_scratch_fini(struct bpe_scratch *scratch);

/** Append the bytes that a spelling stands for. A spelling with any character that no byte is
 * written as stands for itself, as in the `tokenizers` package. */
void bpe_unspell(const char *spelling, size_t size, struct buf *out);

#endif /* INFER_BPE_H */
