/*
 * added.h - added tokens: words that are cut out of text before anything else is done to it.
 *
 * A token says whether blanks around it belong to it (lstrip, rstrip), whether it must stand as a
 * word of its own (single_word), whether it is looked for in the raw or in the normalised text
 * (normalized), and whether decoding may leave it out (special).
 *
 * Life:    added_open -> added_cut* -> added_close
 * Threads: read-only once open. Memory: owned, sized at open. Errors: texts name file and field.
 */
#ifndef INFER_ADDED_H
#define INFER_ADDED_H

#include <jansson.h>

#include "infer/bpe.h"

struct added_token {
    char *content; /* owned, UTF-8 */
    size_t size;
    uint32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
};

/** What is looked for, in order of text; all that begin alike lie together. */
struct pattern {
    const char *text; /* borrowed from a token, or from added.normal_text */
    size_t size;
    size_t token; /* index */
};

struct matcher {
    struct pattern *patterns; /* owned; [count] */
    size_t count;
    uint32_t first[257]; /* patterns [first[b], first[b + 1]) begin with byte b */
};

struct added {
    const struct mc_alloc *alloc;
    struct added_token *tokens; /* owned; [count], as in the file */
    size_t count;
    struct matcher by_content;  /* all of them */
    struct matcher raw, normal; /* those of normalized false, and true */
    struct buf normal_text;     /* owned; what `normal` looks for */
    uint32_t id_end;            /* one more than the highest id; 0 if there is none */
};

/**
 * Over the "added_tokens" array (NULL or null: none). Ids are checked against `bpe`. nfc: the file's
 * normalizer is NFC. MC_OK, MC_E_FORMAT, MC_E_RANGE, MC_E_NOMEM; added_close() may follow in any case.
 */
mc_status added_open(struct added *added, const json_t *tokens, const struct bpe *bpe, bool nfc,
                     const char *name, const struct mc_alloc *alloc, struct mc_error *error);

/** `{ 0 }` is allowed. */
void added_close(struct added *added);

/** The token of exactly this content, or NULL. */
const struct added_token *added_find(const struct added *added, const char *content, size_t size);

/** One part of a text: an added token (then text and size are the blanks and all), or, with token
 * NULL, text between them, never empty. Anything but MC_OK ends the cutting. */
typedef mc_status added_part(void *user, const struct added_token *token, const char *text,
                             size_t size);

/**
 * Cut well-formed `text` at the tokens of `matcher` (added.raw or added.normal): the leftmost, and of
 * those that begin there the longest. no_special: special ones are text.
 * Returns MC_OK or what `part` returned.
 */
mc_status added_cut(const struct added *added, const struct matcher *matcher, const char *text,
                    size_t size, bool no_special, added_part *part, void *user);

#endif /* INFER_ADDED_H */
