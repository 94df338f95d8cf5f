/*
 * world.h - a whole pool in one thread: a master, nodes, clients, their connections and memories, on a clock
 * that jumps from event to event. What happens is a function of the seed.
 *
 * The cores are those of the product. Simulated are: connections (messages are encoded, in order, delayed;
 * a break loses what is under way, and each side hears of it when it does), memory and the Transfer Engine
 * (transfers move in fragments, each pinned, checked and copied at its own time; windows, leases,
 * generations, incarnations), crashes, restarts and processes that are stopped and go on later.
 */
#ifndef WORLD_H
#define WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/prng.h"
#include "store/core/client.h"
#include "store/core/master.h"
#include "store/core/node.h"

enum {
    NODES_MAX = 4,
    CLIENTS_MAX = 3,
    KEYS = 24,
    LENGTH_MAX = 400,
    LENT_BYTES = 2048, /* few enough that places are used again and again */
    BATCH = 8,
    ASKS_MAX = 128,
    WINDOWS_MAX = 128,
    OPS_MAX = 4, /* of one client at a time */
    MOVES_MAX = 256,
    LEASES_MAX = 64,
    OBJECTS_MAX = 48,
};

#define MS UINT64_C(1000000)
#define SEC UINT64_C(1000000000)

enum trouble {
    TROUBLE_BREAK,
    TROUBLE_STOP_CLIENT,
    TROUBLE_STOP,
    TROUBLE_CRASH,
    TROUBLE_CRASH_MASTER,
    TROUBLE_FLIP,
    TROUBLES,
};

struct world;
struct event;

typedef void event_run(struct world *w, struct event *e);

/** Something that will happen to an actor (or, with actor NULL, to the world). */
struct event {
    uint64_t at, order;
    event_run *run;
    struct actor *actor;
    uint64_t life; /* of the actor: those of a life before do not happen */
    uint64_t a, b, c;
    void *data; /* malloc'ed, freed after it ran */
    size_t size;
};

enum actor_kind { ACTOR_MASTER, ACTOR_NODE, ACTOR_CLIENT };

struct block { /* an allocation of an actor; a crash frees them all */
    struct block *next, **at;
};

struct actor {
    enum actor_kind kind;
    uint32_t index;
    uint64_t life; /* grows with each start; odd: it runs */
    uint64_t stopped_until;
    uint64_t tick_at;  /* the earliest tick under way; 0: none */
    struct conn *conn; /* node, client: to the master; NULL: none */
    struct block *blocks;
    struct mc_alloc alloc;
    struct world *world;
};

struct net_ask {
    uint64_t id, tag;
    bool out;
};

/** Between an actor and the master. Side 0 is the actor, 1 the master. */
struct conn {
    uint64_t id;
    struct actor *actor;
    uint64_t lives[2];
    uint64_t last[2]; /* when the last message to that side arrives: they stay in order */
    bool broken, told[2];
    struct net_ask asks[2][ASKS_MAX]; /* by side that asked */
    uint32_t ask_count[2];
    struct conn *next;
};

struct sim_window {
    uint64_t key, until, offset, size, generation;
    uint32_t pins;
    bool open;
};

struct owner { /* of bytes of a node, as the master said */
    uint64_t offset, size, generation;
};

struct sim_node {
    struct actor actor;
    store_node *core;
    uint64_t incarnation, id;
    char name[16];
    uint8_t memory[LENT_BYTES];
    struct sim_window windows[WINDOWS_MAX];
    uint32_t window_count;
    struct owner owners[256];
    uint32_t owner_count;
};

struct move {
    bool used, stop;
    struct actor *actor; /* the client */
    uint64_t life, tag, serial;
    enum mc_op op;
    uint32_t node; /* index + 1; 0: nobody has that incarnation */
    uint64_t incarnation, key, window_generation, offset, size, done, fragment, generation;
    struct mc_range parts[16];
    size_t part_count;
    bool pinned;
    mc_status status;
};

enum op_kind {
    OP_NONE,
    OP_PUT,
    OP_GET,
    OP_EXIST,
    OP_REMOVE,
    OP_LOOKUP,
    OP_RENEW,
    OP_ALLOT,
    OP_END
};

struct op {
    enum op_kind kind;
    bool finished, commits, forged;
    store_request *request;
    uint32_t count;
    uint64_t begun_ns;
    uint32_t keys[BATCH];
    uint8_t bytes[BATCH][LENGTH_MAX + 8];
    struct mc_range ranges[BATCH][2];
    union {
        struct mc_put puts[BATCH];
        struct mc_get gets[BATCH];
        struct mc_exist exists[BATCH];
        struct mc_remove removes[BATCH];
        struct mc_lookup lookups[BATCH];
        struct mc_lease leases[BATCH];
        struct mc_allot allots[BATCH];
        struct mc_commit commits_of[BATCH];
    };
    struct mc_replica replicas[BATCH][2];
};

/** A lease that a client holds and counts on. */
struct sim_lease {
    bool used, removed; /* removed: by force, or its replicas were reported */
    uint32_t key, client;
    uint64_t life, master_life;
    struct mc_lease lease;
    uint32_t replica_count;
    struct {
        uint64_t node, generation;
    } replicas[2];
};

struct index_entry { /* what the events say */
    uint64_t node;
    uint32_t key;
};

struct sim_index {
    bool fresh; /* a snapshot began and ended */
    bool whole;
    uint64_t epoch, sequence;
    struct index_entry entries[64];
    uint32_t count;
    uint64_t nodes[32];
    uint32_t node_count;
};

struct sim_client {
    struct actor actor;
    store_client *core;
    uint64_t serial; /* of tokens */
    struct op ops[OPS_MAX];
    struct sim_index index;
    uint64_t subscribe_id;
    uint32_t scratch_used;
};

struct world {
    uint64_t seed, now, order, master_epoch;
    struct prng prng;
    bool verbose, failed, calm; /* calm: nothing breaks any more */
    char why[400];

    struct event **heap;
    uint32_t heap_count, heap_max;
    struct event *spare;

    struct actor master;
    store_master *master_core;
    struct sim_node nodes[NODES_MAX];
    struct sim_client clients[CLIENTS_MAX];
    uint32_t node_count, client_count;
    struct conn *conns;
    uint64_t conn_ids, frame_ids;

    struct move moves[MOVES_MAX];
    uint64_t move_serial;
    struct sim_lease leases[LEASES_MAX];
    struct {
        uint64_t generation, life, offset;
        uint32_t node;
    } places[4096];     /* opened ever, by generation: each for one place only */
    uint64_t feed_seen; /* the last of the master's events that was looked at */
    struct {
        struct mc_key token;
        uint64_t master_life, until;
    } committed[256]; /* what was answered */
    uint32_t committed_count;
    const struct wire_put_commit *commit; /* that the master is answering */
    uint32_t lengths[KEYS];
    uint32_t loss; /* of 1000 messages, how many break their connection */
    uint32_t troubles[8], trouble_gap, act_gap; /* weights by enum trouble; ms */

    /* What happened, for --json and to know that the world is not idle. */
    struct world_counts {
        uint64_t events, puts_ok, gets_ok, gets_missed, gets_failed, breaks, crashes, stops,
            evicted, held;
    } counts;
};

/* ---- world_sim.c */
void world_fail(struct world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
void world_trace(struct world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
uint32_t world_below(struct world *w, uint32_t bound);
bool world_chance(struct world *w, uint32_t of_1000);
struct event *world_after(struct world *w, uint64_t delay_ns, struct actor *actor, event_run *run);
/** One event; false: nothing is left before `until`. */
bool world_turn(struct world *w, uint64_t until);
/** A process that gets no time for a while, and then goes on as if nothing had been. */
void world_stop(struct world *w, struct actor *actor, uint64_t time_ns);
bool actor_runs(const struct actor *actor);
void actor_init(struct world *w, struct actor *actor, enum actor_kind kind, uint32_t index);
void actor_free_all(struct actor *actor);
const char *actor_name(const struct actor *actor);

/* ---- world_net.c */
void net_dial_soon(struct world *w, struct actor *actor);
void net_break(struct world *w, struct conn *conn);
/** Of one side's life that ended. */
void net_break_all(struct world *w, struct actor *actor);
struct conn *net_find(struct world *w, uint64_t id);
mc_status net_ask_from(struct world *w, struct conn *conn, int side, uint64_t tag,
                       enum wire_kind kind, const void *message, uint64_t deadline_ns);
mc_status net_answer_from(struct world *w, struct conn *conn, int side, uint64_t id,
                          enum wire_kind kind, const void *message);
mc_status net_send_from(struct world *w, struct conn *conn, int side, enum wire_kind kind,
                        const void *message);
void net_forget(struct conn *conn, int side, uint64_t tag);
void net_free_all(struct world *w);

/* ---- world_memory.c */
mc_status memory_grant(struct world *w, struct sim_node *node, uint64_t offset, uint64_t size,
                       uint64_t lease_ns, struct mc_window *window_p);
mc_status memory_renew(struct world *w, struct sim_node *node, const struct mc_window *window,
                       uint64_t lease_ns);
mc_status memory_revoke(struct world *w, struct sim_node *node, const struct mc_window *window);
mc_status memory_move(struct world *w, struct sim_client *client, uint64_t tag, enum mc_op op,
                      const struct mc_replica *replica, const struct mc_range *parts, size_t count);
void memory_stop(struct world *w, struct actor *actor, uint64_t tag);
/** The client died: its pins go, nothing of its is written any more. */
void memory_client_gone(struct world *w, struct actor *actor);
void memory_node_new(struct world *w, struct sim_node *node);

/* ---- world_actors.c */
void actor_start(struct world *w, struct actor *actor);
void actor_crash(struct world *w, struct actor *actor);
/** What arrived: what == 0 a question or statement, 1 an answer, 2 up, 3 down. */
void actor_message(struct world *w, struct actor *actor, struct conn *conn, int what, uint64_t id,
                   mc_status status, uint32_t kind, const void *message);
void actor_moved(struct world *w, struct actor *actor, uint64_t tag, mc_status status);

/* ---- world_ops.c */
void ops_begin_one(struct world *w, struct sim_client *client);
void ops_look(struct world *w, struct sim_client *client);
struct mc_identity ops_identity(uint32_t key);
uint32_t ops_key_of(const struct mc_key *key);
void ops_content(const struct world *w, uint32_t key, uint8_t *bytes);
void ops_drop(struct world *w, struct sim_client *client);
bool ops_idle(const struct world *w);
const struct store_client_out *client_out(struct world *w, struct sim_client *client);

/* ---- world_check.c */
/** The master asks for windows over a place; the node grants one: from then on it is the writer's. */
void check_opened(struct world *w, struct sim_node *node, const struct wire_place *place);
void check_granted(struct world *w, struct sim_node *node, const struct wire_place *place);
/** The node found an object under `offset`: is it one? */
void check_whole(struct world *w, const struct sim_node *node, uint64_t offset,
                 const struct mc_object_header *header);
void check_held(struct world *w, struct sim_node *node, const struct wire_node_held *message);
/** The master's answer to w->commit: the same as before, if it was asked before. */
void check_committed(struct world *w, const struct wire_outcomes *outcomes);
/** Has the master a replica with this generation, that is not dying? */
bool check_holds(const struct world *w, uint64_t generation);
void check_write(struct world *w, struct sim_node *node, uint64_t offset, uint64_t size,
                 uint64_t generation);
void check_events(struct world *w, struct sim_client *client, const struct wire_events *events);
void check_snapshot(struct world *w, struct sim_client *client,
                    const struct wire_events_snapshot *snapshot);
void check_master(struct world *w);
void check_end(struct world *w);

/* ---- world_run.c */
/** Very soon the actor and the master crash together. */
void world_power_cut(struct world *w, struct actor *actor);
/** Run one seed; false, and w->why, when something promised was not kept. */
bool world_run(uint64_t seed, bool verbose, struct world *w);

#endif /* WORLD_H */
