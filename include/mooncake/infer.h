/*
 * mooncake/infer.h - run a language model: model files, text and tokens, paged KVCache, one step.
 *
 * Life:    mc_model_open -> mc_engine_open -> mc_engine_step* -> mc_engine_close -> mc_model_close
 * Threads: a model is read-only once open: any number of threads and engines may share it. An engine
 *          belongs to one thread at a time and starts its own workers. A text stream: one thread.
 * Memory:  matrices are mapped, and copied only where a file does not align them. KV pages are the
 *          caller's: the engine reads and writes only the pages named in the step that is running and
 *          keeps no pointer to them.
 * Errors:  every function that can fail returns a mc_status; outputs end in _p and are written only
 *          on MC_OK. Files, text and tokens are input: what is wrong with them is an event with a
 *          text that names file and field, never a crash. Nothing here prints or exits.
 * Growth:  structs and the engine's table grow at their ends, where 0 is what is done today. While the
 *          version is 0.x, programs and engines are compiled against the headers of their library.
 *
 * The promise of this header: what a step computes for a sequence depends on that sequence alone:
 * not on what else is in the step, how its tokens were cut into chunks, how many threads ran, or
 * where its pages lie. On one kernel level (struct mc_engine_options) the bits are the same.
 */
#ifndef MC_INFER_H
#define MC_INFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <mooncake/status.h>

MC_C_BEGIN

typedef struct mc_model mc_model;             /* opaque: mapped weights, tokenizer, chat template */
typedef struct mc_engine mc_engine;           /* a table and its state; see mc_engine_ops */
typedef struct mc_text_stream mc_text_stream; /* opaque: tokens in, whole characters out */

enum mc_dtype { MC_DTYPE_DEFAULT, MC_DTYPE_F32, MC_DTYPE_BF16 };

/* ------------------------------------------------------------------------------------ models */

/** `{ 0 }` and NULL mean the defaults. */
struct mc_model_options {
    const struct mc_alloc *alloc; /* borrowed until close; default: malloc */
    /** Text, tokens and limits alone: *.safetensors are neither read nor missed, and no engine is opened
     * over it (mc_engine_open() says MC_E_ARG). */
    bool no_weights;
};

/** What a model is. Pointers live as long as the model. */
struct mc_model_info {
    const char *name;         /* last part of the directory's path */
    const char *architecture; /* "LlamaForCausalLM", "Qwen2ForCausalLM" or "Qwen3ForCausalLM" */
    uint32_t layers, hidden, heads, kv_heads, head_dim, vocab_size;
    uint32_t context_max;     /* tokens, prompt and output together */
    enum mc_dtype dtype;      /* of the matrices */
    uint64_t parameters;      /* weights counted once, also where two names share one matrix */
    uint64_t weight_bytes;    /* bytes of the same */
    const uint32_t *eos;      /* ids that end a text, [eos_count]; config, then generation_config */
    uint32_t eos_count;       /* 0 .. 16 */
    bool has_tokenizer;       /* tokenizer.json was there */
    bool has_chat_template;   /* a template that this library renders was there */
    float temperature, top_p; /* generation_config's, or 1 */
    uint32_t top_k;           /* generation_config's, or 0: no limit */
};

/**
 * Open a Hugging Face model directory: config.json, *.safetensors (one file, or shards by
 * model.safetensors.index.json), optional tokenizer.json, tokenizer_config.json,
 * chat_template.jinja and generation_config.json.
 *
 * Llama 3.x, Qwen2/2.5 and Qwen3, BF16 or F32. Anything else is MC_E_UNSUPPORTED with the name of what
 * is missing.
 *
 * directory  path; copied.
 * model_p    set to a model the caller owns and ends with mc_model_close().
 *
 * Returns MC_OK, MC_E_NOT_FOUND (a file or tensor is missing), MC_E_FORMAT (a file is malformed or
 * contradicts another), MC_E_RANGE (a size beyond what is accepted), MC_E_UNSUPPORTED, MC_E_IO,
 * MC_E_NOMEM.
 */
MC_API MC_MUST_USE mc_status mc_model_open(const char *directory,
                                           const struct mc_model_options *options,
                                           mc_model **model_p, struct mc_error *error);

/** Fill *info_p; no field is left as it was. */
MC_API void mc_model_info(const mc_model *model, struct mc_model_info *info_p);

/** After every engine and stream over it is closed. NULL is allowed. */
MC_API void mc_model_close(mc_model *model);

/* -------------------------------------------------------------------------------------- text */

enum mc_encode_flags {
    MC_ENCODE_BARE = 1,       /* do not add what the post-processor adds (BOS) */
    MC_ENCODE_NO_SPECIAL = 2, /* text that spells a special token is ordinary text */
};

/**
 * Text to tokens, exactly as the model's tokenizer.json says.
 *
 * text      [size] bytes; ill-formed UTF-8 is read as U+FFFD, one for each maximal ill-formed part
 *           (Unicode 15, 3.9).
 * tokens_p  set to [*count_p] ids, owned by the caller: mc_tokens_free(). NULL when *count_p is 0.
 *
 * Returns MC_OK, MC_E_UNSUPPORTED (no tokenizer), MC_E_RANGE (text over 1 GiB, or one that its pattern
 * takes too long over) or MC_E_NOMEM.
 */
MC_API MC_MUST_USE mc_status mc_model_encode(const mc_model *model, const char *text, size_t size,
                                             unsigned flags, uint32_t **tokens_p, size_t *count_p,
                                             struct mc_error *error);

/**
 * The bytes that one token stands for, special ones as they are spelt; maybe not whole characters (for
 * text as it comes, open a text stream).
 *
 * bytes_p  [*size_p], borrowed from the model.
 *
 * Returns MC_OK, MC_E_RANGE (no such token; also one that only pads the model's vocabulary) or
 * MC_E_UNSUPPORTED (no tokenizer).
 */
MC_API MC_MUST_USE mc_status mc_token_bytes(const mc_model *model, uint32_t token,
                                            const char **bytes_p, size_t *size_p);

/** Free the ids that mc_model_encode() handed out. NULL is allowed. */
MC_API void mc_tokens_free(const mc_model *model, uint32_t *tokens);

/** Free a text that this header handed out. NULL is allowed. */
MC_API void mc_text_free(const mc_model *model, char *text);

struct mc_chat_message {
    const char *role;    /* "system", "user", "assistant" */
    const char *content; /* UTF-8 */
};

/**
 * The prompt text of a conversation, as the model's chat template writes it, ending where the
 * assistant speaks. Encode it with MC_ENCODE_BARE: the template writes its own BOS. A template that asks
 * for the date gets today's, in UTC.
 *
 * text_p  owned by the caller, freed with mc_text_free(); NUL-terminated, *size_p bytes before it.
 *
 * Returns MC_OK, MC_E_UNSUPPORTED (no template, or not one of the families this library renders),
 * MC_E_ARG (a role or an order the template refuses) or MC_E_NOMEM.
 */
MC_API MC_MUST_USE mc_status mc_chat_render(const mc_model *model,
                                            const struct mc_chat_message *messages, size_t count,
                                            char **text_p, size_t *size_p, struct mc_error *error);

/**
 * Open a stream that turns tokens into text as they come. A character that is spelt by several
 * tokens comes out whole, with the last of them.
 *
 * keep_special  whether special tokens show as their text.
 *
 * Returns MC_OK, MC_E_UNSUPPORTED (no tokenizer) or MC_E_NOMEM.
 */
MC_API MC_MUST_USE mc_status mc_text_stream_open(const mc_model *model, bool keep_special,
                                                 mc_text_stream **stream_p, struct mc_error *error);

/**
 * Add one token. text_p: what can be shown now, *size_p bytes (maybe 0), borrowed until the next
 * call with this stream. An id that only pads the model's vocabulary has no text. Returns MC_OK, MC_E_RANGE (no such token) or MC_E_NOMEM.
 */
MC_API MC_MUST_USE mc_status mc_text_stream_push(mc_text_stream *stream, uint32_t token,
                                                 const char **text_p, size_t *size_p);

/** The end: what was kept back comes out, with U+FFFD for characters that were never finished. */
MC_API MC_MUST_USE mc_status mc_text_stream_finish(mc_text_stream *stream, const char **text_p,
                                                   size_t *size_p);

/** NULL is allowed. */
MC_API void mc_text_stream_close(mc_text_stream *stream);

/* ------------------------------------------------------------------------------------ KVCache */

/**
 * A page holds the keys and values of page_tokens successive positions of one sequence, in all
 * layers, as one contiguous range:
 *
 *     [layer][K, V][token][kv_head][head_dim]   elements of dtype
 *
 * Positions [16 i, 16 i + 16) of a sequence are in its page i. Rotary position embedding is already
 * applied to K.
 */
struct mc_kv_layout {
    uint32_t layers, kv_heads, head_dim;
    uint32_t page_tokens; /* 16 */
    enum mc_dtype dtype;  /* MC_DTYPE_F32 or MC_DTYPE_BF16 */
};

/** Bytes of one page. */
MC_API size_t mc_kv_page_bytes(const struct mc_kv_layout *layout);

/* ------------------------------------------------------------------------------------- engine */

enum { MC_TOP_LOGPROBS_MAX = 20 };

/** How the next token is chosen. `{ 0 }` is greedy. */
struct mc_sampling {
    float temperature;      /* 0: greedy (the lowest id among equals); else 1e-4 .. 100 */
    float top_p;            /* 0 or 1: all; else the smallest set with this probability */
    uint32_t top_k;         /* 0: all */
    uint64_t seed;          /* the draw is a function of (seed, position) alone */
    uint32_t logprobs;      /* 0 .. MC_TOP_LOGPROBS_MAX: how many of the likeliest to report */
    const uint32_t *banned; /* ids never chosen (ignore_eos, min_tokens), not all; borrowed */
    uint32_t banned_count;
};

struct mc_token_logprob {
    uint32_t token;
    float logprob; /* natural, of the model's distribution: before temperature and limits */
};

struct mc_sample {
    struct mc_token_logprob chosen;
    uint32_t top_count;
    struct mc_token_logprob top[MC_TOP_LOGPROBS_MAX]; /* falling; equal ones by id */
};

/**
 * One sequence's part in a step: compute `token_count` tokens that begin at `position`.
 *
 * Pages [0, position / 16) hold the KV of all earlier positions. A chunk must begin on a page
 * boundary unless it is a single token, and must end on one unless it is the prompt's last.
 */
struct mc_sequence {
    const uint32_t *tokens; /* [token_count], borrowed during the step */
    uint32_t token_count;   /* >= 1 */
    uint32_t position;      /* of tokens[0]; as many tokens are in the pages already */
    void *const *pages;     /* [>= (position + token_count + 15) / 16], each aligned to 64 bytes */
    const struct mc_sampling *sampling; /* NULL: nothing is sampled after this chunk */
    struct mc_sample *sample;           /* written if sampling is set; may be NULL otherwise */
    float *logits; /* optional: (token_count, vocab_size), of every token; for tests and scoring */
};

/** Called in the step's thread when a layer's KV of every sequence of the step is in the pages and
 * before the next layer begins; must not block for long. */
typedef void mc_layer_done(void *user, uint32_t layer);

struct mc_step {
    struct mc_sequence *sequences; /* [count]; order does not matter to any result */
    uint32_t count;                /* 1 .. sequences_max */
    mc_layer_done *layer_done;     /* optional */
    void *user;                    /* passed to layer_done */
};

/** What an engine can take in one step, and the shape of its pages. */
struct mc_engine_limits {
    struct mc_kv_layout layout;
    uint32_t tokens_max;    /* in one step, all sequences together */
    uint32_t sequences_max; /* in one step */
    uint32_t context_max;   /* positions of one sequence */
    uint32_t vocab_size;
};

/**
 * The table that every engine implements: the CPU engine of this library, the timing engine that
 * has no weights, and whatever is plugged in later. All entries are set.
 */
struct mc_engine_ops {
    const char *name; /* "cpu" */
    void (*limits)(const mc_engine *engine, struct mc_engine_limits *limits_p);
    /**
     * Run one step. Returns MC_OK with every sample and logit written, or, before anything was
     * computed, MC_E_RANGE (a token, position, count or sampling beyond the limits) or MC_E_ARG (a
     * chunk that does not begin on a page boundary, sampling without `sample`). A step allocates nothing and does not fail half-way.
     */
    mc_status (*step)(mc_engine *engine, const struct mc_step *step, struct mc_error *error);
    void (*close)(mc_engine *engine);
};

/** The head of every engine. */
struct mc_engine {
    const struct mc_engine_ops *ops;
};

/** `{ 0 }` and NULL mean the defaults. */
struct mc_engine_options {
    uint32_t threads;       /* default: one for each processor */
    const char *kernel;     /* "ref", "avx2", "avx512", "avx512-bf16"; default: the best this
                             * processor has. ref, avx2 and avx512 give the same bits as each other;
                             * avx512-bf16 rounds activations and gives its own. */
    enum mc_dtype kv_dtype; /* default: the model's */
    uint32_t tokens_max;    /* default 512, rounded up to whole pages; at most 65536 */
    uint32_t sequences_max; /* default 64; at most 4096 */
};

/**
 * Open the CPU engine over `model`, which must outlive it.
 *
 * All memory that steps need is taken here.
 *
 * Returns MC_OK, MC_E_RANGE, MC_E_ARG (the model has no weights), MC_E_UNSUPPORTED (a kernel this
 * processor lacks, with the names of those it has), MC_E_NOMEM or MC_E_IO (threads).
 */
MC_API MC_MUST_USE mc_status mc_engine_open(const mc_model *model,
                                            const struct mc_engine_options *options,
                                            mc_engine **engine_p, struct mc_error *error);

/** The level in use: "avx512" and the like. Only for engines from mc_engine_open(). */
MC_API const char *mc_engine_kernel(const mc_engine *engine);

static inline void mc_engine_limits(const mc_engine *engine, struct mc_engine_limits *limits_p)
{
    engine->ops->limits(engine, limits_p);
}

static inline mc_status mc_engine_step(mc_engine *engine, const struct mc_step *step,
                                       struct mc_error *error)
{
    return engine->ops->step(engine, step, error);
}

/** NULL is allowed. */
static inline void mc_engine_close(mc_engine *engine)
{
    if (engine)
        engine->ops->close(engine);
}

MC_C_END

#endif /* MC_INFER_H */
