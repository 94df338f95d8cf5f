/*
 * pretoken.h - cut text into the pieces that BPE merges within, by the file's own patterns.
 *
 * A pattern is a program that came with a file. It is written for Oniguruma (Ruby's dialect) and run
 * by PCRE2: where the two differ it is translated or refused by name. Matching is counted: a pattern
 * that backtracks for too long ends in an error that says so. What is a letter is asked of the Unicode
 * tables that PCRE2 was built with (14.0 in 10.42): characters that are younger than those are cut
 * as symbols, where a tokenizer with newer tables would see letters.
 *
 * Life:    pretoken_open -> (splitter_open -> pretoken_split* -> splitter_close)* -> pretoken_close
 * Threads: a struct pretoken is read-only once open; a splitter belongs to one thread.
 * Memory:  from the allocator given, also PCRE2's, but for the code that its JIT makes.
 * Errors:  texts name the file and the field.
 */
#ifndef INFER_PRETOKEN_H
#define INFER_PRETOKEN_H

#include <jansson.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/buf.h"

enum { STEPS_MAX = 8 };

struct pretoken_step {
    pcre2_code *code;  /* owned; NULL: the step cuts nothing */
    bool removed;      /* behavior Removed: matches are dropped; else Isolated: they are pieces */
    bool invert;       /* what matches and what lies between change places */
    bool prefix_space; /* ByteLevel's add_prefix_space */
};

struct pretoken {
    const struct mc_alloc *alloc;
    pcre2_general_context *memory; /* owned; the allocator, as PCRE2 wants it */
    struct pretoken_step steps[STEPS_MAX];
    size_t count; /* >= 1 once open; the last is ByteLevel */
};

/** Over the "pre_tokenizer" object. MC_OK, MC_E_FORMAT, MC_E_UNSUPPORTED, MC_E_RANGE, MC_E_NOMEM;
 * pretoken_close() may follow in any case. `pretoken` must not move while it is open. */
mc_status pretoken_open(struct pretoken *pretoken, const json_t *json, const char *name,
                        const struct mc_alloc *alloc, struct mc_error *error);

/** `{ 0 }` is allowed. */
void pretoken_close(struct pretoken *pretoken);

/** A piece, never empty, borrowed during the call. Anything but MC_OK ends the cutting. */
typedef mc_status pretoken_piece(void *user, const char *text, size_t size);

/** What matching needs; for one text, whose size sets how many steps its matches may take. */
struct splitter {
    const struct pretoken *pretoken;
    pcre2_match_data *data;       /* owned */
    pcre2_match_context *context; /* owned */
    struct buf spaced;            /* a piece with the space that add_prefix_space puts before it */
    uint64_t budget;              /* steps of backtracking left */
    uint32_t no_jit;              /* PCRE2_NO_JIT once the JIT's stack was too small */
    pretoken_piece *piece;
    void *user;
    struct mc_error *error; /* may be NULL */
};

/** text_size: bytes of all texts that will be split. MC_OK or MC_E_NOMEM; close it in any case. */
mc_status splitter_open(struct splitter *splitter, const struct pretoken *pretoken,
                        size_t text_size, pretoken_piece *piece, void *user,
                        struct mc_error *error);

void splitter_close(struct splitter *splitter);

/** Hand the pieces of well-formed `text` to the splitter's function, in order. MC_OK, MC_E_RANGE (a
 * pattern goes on for too long), MC_E_NOMEM, or what the function returned. */
mc_status pretoken_split(struct splitter *splitter, const char *text, size_t size);

#endif /* INFER_PRETOKEN_H */
