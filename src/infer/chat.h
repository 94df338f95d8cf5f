/*
 * chat.h - chat templates of known families, rendered exactly; others are refused by name.
 *
 * A template is a Jinja program. We do not run Jinja: a template is recognised (by what it writes)
 * as one of the families that this file renders by hand, byte for byte as `transformers` would.
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
};

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
