/*
 * chat.h - chat templates of known families, rendered exactly; others are refused by name.
 *
 * A template is a Jinja program. We do not run Jinja: a template is recognised (by what it writes)
 * as one of the families that this file renders by hand, byte for byte as `transformers` would.
 *
 * Recognition reads the whole program: its text outside of tags, every name and every string in it
 * must be one that the family is known to use and that the hand-written code answers for. So a
 * template that was changed (another end of turn, a filter more) is refused, not rendered wrongly.
 * Tools, images and the like are not rendered; branches for them in a template do no harm.
 *
 * Threads: struct chat is read-only once filled. Memory: texts are copied and owned.
 */
#ifndef INFER_CHAT_H
#define INFER_CHAT_H

#include <mooncake/infer.h>

#include "base/buf.h"

enum chat_family {
    CHAT_NONE,   /* the model has no template */
    CHAT_OTHER,  /* it has one that we do not render: chat_render names it */
    CHAT_CHATML, /* <|im_start|>role\ncontent<|im_end|>\n */
    CHAT_QWEN2,  /* ChatML with Qwen2.5's default system message */
    CHAT_QWEN3,  /* ChatML, thinking blocks of earlier answers dropped */
    CHAT_LLAMA3, /* <|start_header_id|>role<|end_header_id|>\n\ncontent<|eot_id|> with BOS */
    CHAT_LLAMA31 /* the same with the "Cutting Knowledge Date" system block of 3.1 .. 3.3 */
};

struct chat {
    enum chat_family family;
    char *bos;            /* owned; text of the BOS token, "" if none */
    char *default_system; /* owned; the system message when none is given; NULL if none */
    char *seen; /* owned; for CHAT_OTHER: the first characters of the template, for errors */
    char *why;  /* owned; for CHAT_OTHER: the first thing in it that no family has */
    bool dated; /* the template asks for today's date (Llama 3.2), not for a fixed one */
};

enum { CHAT_DATE_SIZE = 12 };

/** `buffer` becomes "26 Jul 2024", the UTC date at date_s seconds since 1970; returns it. UTC, so that
 * all machines of a cluster write the same prompt at the same time. */
char *chat_date(uint64_t date_s, char buffer[CHAT_DATE_SIZE]);

/**
 * Recognise `template` (NUL-terminated Jinja, NULL for none) and keep what rendering needs.
 * bos: text of the BOS token, or NULL. Returns MC_OK or MC_E_NOMEM.
 */
mc_status chat_init(struct chat *chat, const char *template, const char *bos,
                    const struct mc_alloc *alloc);

void chat_fini(struct chat *chat, const struct mc_alloc *alloc);

/** Append the prompt to `out`. date: "26 Jul 2024" form, for templates that state one; NULL means the
 * template's own default. MC_OK, MC_E_UNSUPPORTED, MC_E_ARG or MC_E_NOMEM. */
mc_status chat_render(const struct chat *chat, const struct mc_chat_message *messages, size_t count,
                      const char *date, struct buf *out, struct mc_error *error);

#endif /* INFER_CHAT_H */
