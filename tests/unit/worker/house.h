/*
 * house.h - workers and a gateway that asks them what it is told to, in one thread and one loop; only the
 * engines have threads of their own.
 */
#ifndef HOUSE_H
#define HOUSE_H

#include "test.h"

#include "fake_moves.h"
#include "net/net.h"
#include "worker/worker.h"

enum { HOUSE_WORKERS = 3, HOUSE_CLIENTS = 40, HOUSE_PROMPT = 1200, HOUSE_ANSWER = 200 };

enum house_finish { GOES_ON, STOP, LENGTH, FAILED, CANCELLED };

/** One request and what came of it. */
struct client {
    struct house *house;
    uint64_t request;
    uint32_t prompt[HOUSE_PROMPT], prompt_count;
    struct wire_sampling sampling;
    uint32_t prefill, decode; /* indices of workers; equal: one does it all */
    uint32_t pull_tokens, copy_tokens, cache;
    uint64_t lease_ns, pull_ns;

    bool alone; /* the reservation is not followed by a prefill */
    bool reserved, taken, cancel_answered, ended, told;
    mc_status reserve_status, take_status, end_status; /* MC_PENDING: not answered */
    mc_status status;                                  /* of a failed answer */
    uint64_t reservation;
    struct wire_reserved grant;
    char segment[80];
    struct wire_prefill_end end;
    uint32_t tokens[HOUSE_ANSWER], count;
    float logprobs[HOUSE_ANSWER];
    uint32_t finish; /* enum house_finish */
};

struct guest {
    worker *worker;
    net_conn *conn; /* it dialled; NULL: not up */
    uint64_t instance, incarnation;
    char name[32], address[80];
    struct mc_identity fingerprint;
    uint32_t reports;
    struct wire_load_report report;
};

struct house {
    os_loop *loop;
    net *gateway;
    char address[80];
    struct guest guests[HOUSE_WORKERS];
    uint32_t count;
    struct client clients[HOUSE_CLIENTS];
    uint32_t client_count;
};

/** What most tests want of a worker. */
struct worker_options house_options(const char *name, enum mc_role role);

/** A gateway and no worker yet. */
struct house *house_open(void);

/** Open a worker, wait until it is registered. Returns its index. */
uint32_t house_add(struct house *house, const struct worker_options *options);

/** The worker that came last is closed, and the gateway knows. */
void house_lose_last(struct house *house);

/** What house_pair()'s workers may move by; NULL: anything. */
extern const char *house_transports;
extern const char *house_master; /* of the pool, where there is one */

/** Prefill at 0, decode at 1. */
struct house *house_pair(uint32_t chunk_tokens, bool pool);
struct house *house_fill(struct house *house, uint32_t chunk_tokens, bool pool);

/** Everything ends; asserts that nothing is left. */
void house_close(struct house *house);

/** Turn the loop until it is so; fails after a minute. */
#define house_until(house, condition) \
    do { \
        const uint64_t began = os_now_ns(); \
        while (!(condition)) { \
            house_turn(house); \
            if (os_now_ns() - began > UINT64_C(60000000000)) { \
                house_show(house); \
                fail_msg("not within a minute: %s", #condition); \
            } \
        } \
    } while (0)

void house_turn(struct house *house);

/** To stderr: what each request and worker is at, for a test that fails. */
void house_show(struct house *house);

/** A request whose prompt follows from `seed`; asked with house_ask(). */
struct client *house_client(struct house *house, uint64_t seed, uint32_t prompt_count,
                            uint32_t answer_max);

/** RESERVE, then PREFILL once that is answered; or PREFILL alone where prefill = decode. */
void house_ask(struct client *client);
void house_cancel(struct client *client);

/** The prompt was taken over or failed, and the answer has ended. */
bool client_done(const struct client *client);

/** Holds the answer against one computed here, by one batcher, tokens and logprobs bit for bit. */
void assert_right(const struct client *client);

/** All pages of every worker are free, nothing is queued, no window is open. */
bool house_is_empty(struct house *house);

uint64_t house_counter(struct house *house, uint32_t guest, const char *name);

#endif /* HOUSE_H */
