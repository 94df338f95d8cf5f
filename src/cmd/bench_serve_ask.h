/*
 * bench_serve_ask.h - what has to be known of a server before a load begins: its model, its context, the
 * token ids that it takes.
 *
 * Threads: one, the loop's. Each question turns the loop until its answer is there. Errors: texts name the URL
 * and say what the server said.
 */
#ifndef CMD_BENCH_SERVE_ASK_H
#define CMD_BENCH_SERVE_ASK_H

#include "cmd/http_client.h"

struct bench_server {
    char model[200];
    uint32_t context_tokens;        /* 0: it does not say */
    uint32_t token_low, token_high; /* ids are taken from [low, high) */
};

/** Ask for the models: `wanted`, or the first one if NULL. Returns MC_OK, MC_E_PEER (nobody there), MC_E_DENIED
 * (the key), MC_E_NOT_FOUND (no such model, or no such endpoint), MC_E_FORMAT, MC_E_TIMEOUT or MC_E_NOMEM. */
mc_status bench_ask_models(http_client *client, os_loop *loop, const char *url, const char *wanted,
                           struct bench_server *server, struct mc_error *error);

/** Find a range of ids that are ordinary in any vocabulary of that size: the middle of [0, H), where H is the
 * largest power of two, at most 16,384, whose last id the server takes. Asks for one token, a few times. Where
 * the server answers with neither yes nor no (it is full), H stays where it is. Returns as above. */
mc_status bench_ask_ids(http_client *client, os_loop *loop, struct bench_server *server,
                        struct mc_error *error);

#endif /* CMD_BENCH_SERVE_ASK_H */
