/*
 * api.h - what a client asks by OpenAI's API, read strictly from JSON.
 *
 * Life:    api_read -> api_encode (api_prompt.h) -> api_request_settle -> ... -> api_request_fini
 * Threads: one.
 * Memory:  texts and messages are borrowed from the parsed document, which the request owns until it is
 *          settled; jansson takes its memory from malloc. Ids, stop texts and the salt are from the
 *          allocator.
 * Errors:  anything wrong is answered with a struct api_error: an HTTP status and OpenAI's type, param and
 *          code. What this release cannot do is refused by its field's name, never ignored; a value of such a
 *          field that asks for nothing (n: 1, stop: null) passes, and so do fields that nobody here knows.
 */
#ifndef GATEWAY_API_H
#define GATEWAY_API_H

#include <jansson.h>

#include <mooncake/infer.h>

#include "base/buf.h"
#include "gateway/api_stop.h"

enum api_kind { API_COMPLETION, API_CHAT };

/** `{ 0 }` is no error. type and code are static. */
struct api_error {
    unsigned status;   /* of HTTP */
    const char *type;  /* "invalid_request_error" */
    const char *code;  /* "unsupported", ...; NULL: none */
    char param[64];    /* the field; "": none */
    char text[400];    /* for people, with what to do */
    uint64_t retry_ns; /* Retry-After; 0: none */
    uint32_t reason;   /* enum mc_reason, where it is refused for want of something; else 0 */
};

/** What a model and its gateway give to requests that do not say. */
struct api_defaults {
    float temperature, top_p;
    uint32_t top_k;
    uint32_t vocab_size;
    uint32_t token_bytes_max; /* api_token_bytes_max() of its model; 0: not known */
    const char *model;        /* the served name; another one in a request is 404 */
};

/** One prompt of a request: its answer is one choice. */
struct api_prompt {
    const char *text; /* [text_size]; NULL: ids, or the chat's messages */
    size_t text_size;
    uint32_t *ids; /* owned; [id_count]; NULL: not encoded yet */
    size_t id_count;
};

struct api_request {
    enum api_kind kind;
    bool stream, include_usage;
    bool continuous_usage;      /* each chunk of a stream has it */
    bool return_token_ids;      /* ours, and vLLM's: choices have the ids of the answer */
    bool keep_special;          /* skip_special_tokens: false */
    bool bare;                  /* add_special_tokens: false */
    struct api_prompt *prompts; /* owned; [prompt_count], 1 or more; a chat has one */
    size_t prompt_count;
    struct mc_chat_message *messages; /* owned; [message_count]; of a chat */
    size_t message_count;
    uint32_t max_tokens; /* 0: the context's end */
    uint32_t min_tokens;
    bool ignore_eos;
    bool with_logprobs;          /* of the chosen token, and of sampling.logprobs others */
    bool has_seed;               /* else sampling.seed is to be drawn */
    struct mc_sampling sampling; /* banned is not used */
    struct api_stops stops;      /* owned; texts that end an answer */
    uint32_t *stop_tokens;       /* owned; [stop_token_count]; ids that do */
    size_t stop_token_count;
    bool show_stop; /* include_stop_str_in_output */
    char *salt;     /* owned; [salt_size]; of the cache's keys; NULL: none */
    size_t salt_size;

    const struct mc_alloc *alloc; /* borrowed */
    json_t *document;             /* owned */
    char **joined;                /* owned; [joined_count]: contents put together from parts */
    size_t joined_count;
};

enum {
    API_DEPTH_MAX = 32,         /* arrays and objects in each other */
    API_MESSAGES_MAX = 4096,    /* of a chat */
    API_PROMPTS_MAX = 128,      /* of a completion */
    API_STOP_TOKENS_MAX = 32,   /* with the model's own ends, what workers take */
    API_SALT_MAX = 256,         /* bytes */
    API_COMPLETION_TOKENS = 16, /* max_tokens of a completion that does not say: OpenAI's */
};

/**
 * Read a request's body.
 *
 * request_p  always to be ended with api_request_fini(), which is safe on what a failure left.
 *
 * True: read. False: *error_p says why not.
 */
bool api_read(enum api_kind kind, const char *body, size_t size,
              const struct api_defaults *defaults, const struct mc_alloc *alloc,
              struct api_request *request_p, struct api_error *error_p);

/** The ids are made: what they were made from is given back. */
void api_request_settle(struct api_request *request);

void api_request_fini(struct api_request *request);

/** Fill in an error; false, so that a failing line reads `return api_fail(...)`. param may be NULL. */
bool api_fail(struct api_error *error, unsigned status, const char *type, const char *code,
              const char *param, const char *format, ...) MC_PRINTF(6, 7);

/** Fail: 503, out_of_memory; false. */
bool api_no_memory(struct api_error *error);

#endif /* GATEWAY_API_H */
