/*
 * bench_sched.c - what a decision takes among 1,000 instances, and what the prefix index holds and answers.
 *
 * The cluster is busy: queues, batches and load reports at every instance, a family of prompts shares a quarter
 * of its blocks with many instances, the rest of each prompt is at one to three. Every request asks for another
 * prompt at random, so that the index is read from memory and not from a cache. What is timed is the
 * step of a request alone, decision included; before each, some of the events of a live cluster are taken
 * in: an earlier request ends, its blocks are stored, an instance reports. There is no peer; what bounds a row
 * is in bench/results/README.md.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <mooncake/sched.h>

#include "base/error.h"
#include "base/prng.h"
#include "base/setting.h"
#include "cmd/figures.h"
#include "kv/index.h"
#include "os/clock.h"
#include "os/sysalloc.h"

/* clang-format off */
#define BENCH_SETTINGS(X)                                                                                                   \
    X(instances, "instances", 0, U32, "1000", 2, 65536, NULL, "N", "Bench", "Instances of the cluster.")                    \
    X(blocks, "blocks", 0, U32, "1048576", 65536, 1 << 28, NULL, "N", "Bench", "Blocks in the index of the decisions.")      \
    X(large, "large", 0, U32, "10000000", 0, 1 << 28, NULL, "N", "Bench", "Blocks of the large index; 0: leave it out.")    \
    X(rounds, "rounds", 0, U32, "11", 1, 101, NULL, "N", "Bench", "How often everything is measured.")                      \
    X(decisions, "decisions", 0, U32, "1000", 1, 1000000, NULL, "N", "Bench", "Decisions in a round.")                      \
    X(only, "only", 0, TEXT, NULL, 0, 0, NULL, "TEXT", "Bench", "Only cases whose name has this in it.")                    \
    X(huge, "huge", 0, ACTION, "false", 0, 0, NULL, NULL, "Bench", "Ask for huge pages.")                                   \
    X(json, "json", 0, TEXT, NULL, 0, 0, NULL, "FILE", "Bench", "Write the result here, too.")                              \
    X(commit, "commit", 0, TEXT, NULL, 0, 0, NULL, "ID", "Bench", "The commit that was built, for the result.")             \
    X(help, "help", 'h', ACTION, "false", 0, 0, NULL, NULL, "Bench", "Print this and end.")
/* clang-format on */

struct options {
    BENCH_SETTINGS(SETTING_FIELD)
};
#define BENCH_ROW(...) SETTING_ROW(options, __VA_ARGS__)
static const struct setting rows[] = { BENCH_SETTINGS(BENCH_ROW) };
enum { ROWS = sizeof(rows) / sizeof(rows[0]) };

enum { BLOCK_TOKENS = 16, FAMILY_CHAINS = 64, UNDER_WAY = 4096, DECILE_99 = 100 };

static void fail(const char *what, const struct mc_error *error)
{
    fprintf(stderr, "bench sched: %s%s%s\n", what, error ? ": " : "", error ? error->text : "");
    exit(1);
}

/* ------------------------------------------------------------------------------------------ memory */

struct counting {
    struct mc_alloc alloc;
    uint64_t calls;
    bool huge;
};

static void *count_alloc(void *context, size_t size)
{
    struct counting *c = context;
    void *p = NULL;

    c->calls++;
    if (!c->huge || size < (size_t)8 << 20)
        return malloc(size);
    if (posix_memalign(&p, (size_t)2 << 20, size) != 0)
        return NULL;
    os_advise_huge(p, size);
    return p;
}

static void *count_resize(void *context, void *p, size_t size)
{
    struct counting *c = context;

    if (!p)
        return count_alloc(context, size);
    c->calls++;
    return realloc(p, size);
}

static void count_free(void *context, void *p)
{
    (void)context;
    free(p);
}

static struct counting counting(bool huge)
{
    return (struct counting){ { count_alloc, count_resize, count_free, NULL }, 0, huge };
}

static uint64_t resident_bytes(void)
{
    unsigned long long size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");

    if (!file || fscanf(file, "%llu %llu", &size, &resident) != 2)
        fail("/proc/self/statm", NULL);
    fclose(file);
    return (uint64_t)resident * 4096;
}

/* ------------------------------------------------------------------------------------------ prompts */

/* Prompts in chains of blocks; the first quarter of a chain is that of its family. */
struct prompts {
    uint32_t chains, length, shared;
    uint32_t generation; /* raised when a chain is replaced by another one */
};

static struct mc_key key_of(const struct prompts *p, uint32_t chain, uint32_t i)
{
    const uint64_t owner =
        i < p->shared ? (uint64_t)chain / FAMILY_CHAINS : (uint64_t)1 << 32 | chain;
    const uint64_t bits[2] = { prng_at(owner, i),
                               prng_at(owner ^ 77, (uint64_t)p->generation << 32 | i) };
    struct mc_key key;

    memcpy(key.bytes, bits, sizeof(key.bytes));
    return key;
}

static void chain_keys(const struct prompts *p, uint32_t chain, struct mc_key *keys)
{
    for (uint32_t i = 0; i < p->length; i++)
        keys[i] = key_of(p, chain, i);
}

/* The n-th of those who have a chain whole; and how many have. */
static uint32_t owner_of(const struct prompts *p, uint32_t chain, uint32_t n, uint32_t instances)
{
    return (uint32_t)(prng_at((uint64_t)chain << 8 | n, p->generation) % instances);
}

static uint32_t owners_of(uint32_t chain)
{
    return 1 + (uint32_t)(prng_at(chain, 99) % 3);
}

/* ------------------------------------------------------------------------------------------ cluster */

struct cluster_case {
    const char *name;
    uint32_t keys;
    bool learnt;        /* costs are learnt, not given */
    bool scattered;     /* blocks were stored in random order */
    bool hot;           /* every instance has the family's part */
    bool split;         /* every second one decodes */
    const char *policy; /* NULL: the default */
};

struct bed {
    const struct options *options;
    const struct cluster_case *c;
    struct counting counting;
    struct prompts prompts;
    struct mc_key *keys; /* [prompts.length] */
    mc_sched *sched;
    struct prng prng;
    uint64_t now_ns, request;
    uint64_t placed_at[UNDER_WAY]; /* prefill instance, by request id; 0: refused or ended */
};

static void step(struct bed *b, const struct mc_sched_event *event)
{
    const mc_status status = mc_sched_step(b->sched, b->now_ns, event);

    if (status != MC_OK && status != MC_E_NOT_FOUND)
        fail(mc_status_name(status), NULL);
}

static uint32_t role_of(const struct bed *b, uint32_t instance)
{
    return !b->c->split ? MC_ROLE_BOTH : instance % 2 ? MC_ROLE_DECODE : MC_ROLE_PREFILL;
}

static void join(struct bed *b, uint32_t instance)
{
    struct mc_sched_event event = { .kind = MC_EVENT_INSTANCE };

    event.instance = (struct mc_sched_instance){ .id = instance + 1,
                                                 .role = role_of(b, instance),
                                                 .host = 1 + instance / 8,
                                                 .kv_tokens_max = 4000000,
                                                 .sequences_max = 256,
                                                 .kv_token_bytes = 320000 };
    if (!b->c->learnt)
        event.instance.cost = (struct mc_cost){ .p0 = 2e-3,
                                                .p1 = 5e-5,
                                                .p2 = 1e-9,
                                                .d0 = 1e-2,
                                                .d1 = 1e-4,
                                                .d2 = 1e-8,
                                                .t0 = 1e-3,
                                                .bytes_per_s = 2e10 };
    step(b, &event);
    for (int i = 0; i < 16 && b->c->learnt; i++) {
        event = (struct mc_sched_event){ .kind = MC_EVENT_MEASURED };
        event.progress =
            (struct mc_sched_progress){ .id = instance + 1, .tokens = 1000u + 500u * (uint32_t)i };
        event.progress.sequences = i % 2 ? 4u + (uint32_t)i : 0;
        event.progress.duration_ns =
            i % 2 ? 11000000 + prng_below(&b->prng, 2000000)
                  : 60000 * event.progress.tokens + prng_below(&b->prng, 3000000);
        step(b, &event);
        if (i % 2) {
            event.kind = MC_EVENT_DECODE_STEP;
            step(b, &event);
        }
    }
}

static void report(struct bed *b, uint32_t instance)
{
    struct mc_sched_event event = { .kind = MC_EVENT_LOAD };
    const uint32_t queued = prng_below(&b->prng, 4);

    event.load = (struct mc_sched_load){ .id = instance + 1,
                                         .lease_ns = 3000000000,
                                         .queued = queued,
                                         .queued_tokens = queued * (1 + prng_below(&b->prng, 8000)),
                                         .running = prng_below(&b->prng, 64),
                                         .context_tokens = prng_below(&b->prng, 400000),
                                         .free_tokens = 3000000,
                                         .send_bytes = prng_below(&b->prng, 4) ? 0 : 100000000 };
    step(b, &event);
}

static void stored(struct bed *b, uint32_t instance, const struct mc_key *keys, uint32_t count)
{
    struct mc_sched_event event = { .kind = MC_EVENT_STORED };

    event.blocks = (struct mc_sched_blocks){ .id = instance + 1, .keys = keys, .count = count };
    step(b, &event);
}

static void store_chain(struct bed *b, uint32_t chain, uint32_t from, uint32_t to)
{
    const uint32_t instances = b->options->instances;

    for (uint32_t n = 0; n < owners_of(chain); n++)
        stored(b, owner_of(&b->prompts, chain, n, instances), b->keys + from, to - from);
    if (chain % FAMILY_CHAINS != 0 || from >= b->prompts.shared)
        return;
    const uint32_t wide = b->c->hot ? instances : instances / 5, own = b->prompts.shared;
    for (uint32_t n = 0; n < wide; n++)
        stored(b, b->c->hot ? n : owner_of(&b->prompts, chain, 16 + n, instances), b->keys + from,
               to < own ? to - from : own - from);
}

/* All chains, whole; or block by block in random order. */
static void fill(struct bed *b)
{
    const struct prompts *p = &b->prompts;
    const uint64_t all = (uint64_t)p->chains * p->length;

    for (uint64_t i = 0; b->c->scattered && i < all; i++) {
        const uint64_t at = i * 2654435761u % all; /* each once: all has no such factor */
        const uint32_t chain = (uint32_t)(at / p->length), number = (uint32_t)(at % p->length);

        b->keys[number] = key_of(p, chain, number);
        store_chain(b, chain, number, number + 1);
    }
    for (uint32_t chain = 0; !b->c->scattered && chain < p->chains; chain++) {
        chain_keys(p, chain, b->keys);
        store_chain(b, chain, 0, p->length);
    }
}

static void open_bed(struct bed *b)
{
    const struct options *o = b->options;
    struct mc_error error = { 0 };
    const struct mc_sched_options options = { .alloc = &b->counting.alloc,
                                              .instances_max = o->instances,
                                              .blocks_max = o->blocks,
                                              .policy = b->c->policy,
                                              .slo = { .ttft_ns = 30000000000,
                                                       .tbt_ns = 200000000 } };

    /* The families' blocks count once, so it fills the index to nine tenths. */
    b->prompts = (struct prompts){ .chains = o->blocks / b->c->keys,
                                   .length = b->c->keys,
                                   .shared = b->c->keys / 4 };
    b->counting.alloc.context = &b->counting;
    b->keys = calloc(b->prompts.length, sizeof(*b->keys));
    if (!b->keys || mc_sched_open(&options, &b->sched, &error) != MC_OK)
        fail("open", &error);
    b->now_ns = 1000000000;
    for (uint32_t i = 0; i < o->instances; i++)
        join(b, i);
    fill(b);
    for (uint32_t i = 0; i < o->instances; i++)
        report(b, i);
}

/* ---------------------------------------------------------------------------------------- decisions */

static void progress(struct bed *b, uint32_t kind, uint64_t request)
{
    struct mc_sched_event event = { .kind = kind };
    const uint64_t at = b->placed_at[request % UNDER_WAY];

    event.progress =
        (struct mc_sched_progress){ .request = request,
                                    .id = at,
                                    .tokens = kind == MC_EVENT_REQUEST_END ? 200 : 4000,
                                    .duration_ns = 200000000 };
    step(b, &event);
}

/* What goes on besides, at 1,000 requests a second. */
static void live(struct bed *b)
{
    static const struct {
        uint32_t kind, after;
    } stages[] = { { MC_EVENT_PREFILL_BEGIN, 100 },
                   { MC_EVENT_PREFILL_END, 400 },
                   { MC_EVENT_DECODE_BEGIN, 410 },
                   { MC_EVENT_REQUEST_END, 3000 } };

    b->now_ns += 500000 + prng_below(&b->prng, 1000000);
    for (size_t i = 0; i < sizeof(stages) / sizeof(stages[0]); i++)
        if (b->request > stages[i].after &&
            b->placed_at[(b->request - stages[i].after) % UNDER_WAY])
            progress(b, stages[i].kind, b->request - stages[i].after);
    report(b, (uint32_t)(b->request % b->options->instances));
    if (b->request % 16 == 0) { /* some prompt is computed once more */
        const uint32_t chain = prng_below(&b->prng, b->prompts.chains);
        chain_keys(&b->prompts, chain, b->keys);
        stored(b, owner_of(&b->prompts, chain, 0, b->options->instances), b->keys,
               b->prompts.length);
    }
}

/* Nanoseconds of one. */
static uint64_t decide(struct bed *b, struct mc_decision *decision)
{
    struct mc_sched_event event = { .kind = MC_EVENT_REQUEST };
    size_t count = 0;

    chain_keys(&b->prompts, prng_below(&b->prng, b->prompts.chains), b->keys);
    event.request = (struct mc_sched_request){ .id = ++b->request,
                                               .tokens = b->prompts.length * BLOCK_TOKENS + 100,
                                               .keys = b->keys,
                                               .key_count = b->prompts.length,
                                               .output_max = 500 };
    const uint64_t begin = os_now_ns();
    const mc_status status = mc_sched_step(b->sched, b->now_ns, &event);
    const mc_status taken = mc_sched_take(b->sched, decision, 1, &count);
    const uint64_t ns = os_now_ns() - begin;

    if (status != MC_OK || taken != MC_OK)
        fail("a request got no decision", NULL);
    b->placed_at[b->request % UNDER_WAY] =
        decision->kind == MC_DECIDE_PLACE ? decision->prefill : 0;
    return ns;
}

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void measure_decisions(const struct options *o, const struct cluster_case *c,
                              struct bench *bench)
{
    struct bed *b = calloc(1, sizeof(*b));
    uint64_t *ns = calloc(o->decisions, sizeof(*ns)), placed = 0;
    struct samples middle = { 0 }, late = { 0 }, mean = { 0 };
    struct mc_decision decision;

    if (!b || !ns)
        fail("out of memory", NULL);
    *b = (struct bed){ .options = o, .c = c, .counting = counting(o->huge), .prng = { .seed = 1 } };
    open_bed(b);
    for (uint32_t i = 0; i < UNDER_WAY; i++) {
        live(b);
        decide(b, &decision);
    }
    const uint64_t calls = b->counting.calls;
    for (uint32_t round = 0; round < o->rounds; round++) {
        double sum = 0;

        for (uint32_t i = 0; i < o->decisions; i++) {
            live(b);
            ns[i] = decide(b, &decision);
            sum += (double)ns[i];
            placed += decision.kind == MC_DECIDE_PLACE;
        }
        qsort(ns, o->decisions, sizeof(*ns), by_value);
        samples_add(&middle, (double)ns[o->decisions / 2] / 1e3);
        samples_add(&late, (double)ns[o->decisions - 1 - o->decisions / DECILE_99] / 1e3);
        samples_add(&mean, sum / o->decisions / 1e3);
    }
    if (b->counting.calls != calls)
        fail("a decision allocated memory", NULL);
    if (placed == 0)
        fail("nothing was placed", NULL);
    bench_row(bench, c->name, "decision p50", "us", &middle, NULL, NULL);
    bench_row(bench, c->name, "decision mean", "us", &mean, NULL, NULL);
    bench_row(bench, c->name, "decision p99", "us", &late, NULL, NULL);
    mc_sched_close(b->sched);
    free(b->keys);
    free(ns);
    free(b);
}

/* ----------------------------------------------------------------------------------- the large index */

enum { INDEX_CHAIN = 256, INDEX_CHAINS_A_ROUND = 2000 };

struct shelf {
    struct prompts prompts;
    kv_index *index;
    struct kv_match match;
    struct mc_key keys[INDEX_CHAIN];
    uint32_t holders;
};

/* A chain comes to all who have it. Returns blocks stored. */
static uint64_t shelve(struct shelf *s, uint32_t chain)
{
    chain_keys(&s->prompts, chain, s->keys);
    for (uint32_t n = 0; n < owners_of(chain); n++)
        for (uint32_t i = 0; i < s->prompts.length; i++)
            kv_index_insert(s->index, &s->keys[i], owner_of(&s->prompts, chain, n, s->holders));
    return (uint64_t)owners_of(chain) * s->prompts.length;
}

static uint64_t unshelve(struct shelf *s, uint32_t chain)
{
    chain_keys(&s->prompts, chain, s->keys);
    for (uint32_t n = 0; n < owners_of(chain); n++)
        for (uint32_t i = s->prompts.length; i-- > s->prompts.shared;)
            kv_index_remove(s->index, &s->keys[i], owner_of(&s->prompts, chain, n, s->holders));
    return (uint64_t)owners_of(chain) * (s->prompts.length - s->prompts.shared);
}

static double look_up(struct shelf *s, struct prng *prng)
{
    uint64_t ns = 0;

    for (uint32_t i = 0; i < INDEX_CHAINS_A_ROUND; i++) {
        chain_keys(&s->prompts, prng_below(prng, s->prompts.chains), s->keys);
        const uint64_t begin = os_now_ns();
        kv_index_match(s->index, s->keys, INDEX_CHAIN, NULL, &s->match);
        ns += os_now_ns() - begin;
        if (s->match.count == 0)
            fail("a prompt was not found", NULL);
    }
    return (double)ns;
}

static double of_keys(const struct shelf *s, uint64_t count)
{
    const uint64_t begin = os_now_ns();
    struct mc_key key = { { 0 } };
    uint8_t sum = 0;

    for (uint64_t i = 0; i < count; i++) {
        key = key_of(&s->prompts, (uint32_t)(i / INDEX_CHAIN), (uint32_t)(i % INDEX_CHAIN));
        sum ^= key.bytes[3];
    }
    __asm__ volatile("" : : "r"(sum));
    return (double)(os_now_ns() - begin);
}

static void measure_changes(struct shelf *s, struct prng *prng, struct samples *gone,
                            struct samples *back)
{
    uint32_t chains[INDEX_CHAINS_A_ROUND];
    uint64_t events = 0;

    for (uint32_t i = 0; i < INDEX_CHAINS_A_ROUND; i++)
        chains[i] = prng_below(prng, s->prompts.chains);
    /* Making a key takes as long as a change: what that costs is taken off. */
    const double keys_ns = of_keys(s, (uint64_t)INDEX_CHAINS_A_ROUND * INDEX_CHAIN);
    uint64_t begin = os_now_ns();
    for (uint32_t i = 0; i < INDEX_CHAINS_A_ROUND; i++)
        events += unshelve(s, chains[i]);
    samples_add(gone, (double)events / ((double)(os_now_ns() - begin) - keys_ns) * 1e3);
    events = 0;
    begin = os_now_ns();
    for (uint32_t i = 0; i < INDEX_CHAINS_A_ROUND; i++)
        events += shelve(s, chains[i]);
    samples_add(back, (double)events / ((double)(os_now_ns() - begin) - keys_ns) * 1e3);
}

static void measure_index(const struct options *o, struct bench *bench)
{
    struct shelf *s = calloc(1, sizeof(*s));
    struct counting memory = counting(o->huge);
    struct samples found = { 0 }, prompts = { 0 }, gone = { 0 }, back = { 0 };
    struct samples bytes = { 0 };
    struct prng prng = { .seed = 5 };
    char name[48];

    if (!s)
        fail("out of memory", NULL);
    snprintf(name, sizeof(name), "index of %.3gM blocks x %u", o->large / 1e6, o->instances);
    memory.alloc.context = &memory;
    const uint64_t before = resident_bytes();
    if (kv_index_open(&(struct kv_index_options){ .alloc = &memory.alloc,
                                                  .blocks_max = o->large,
                                                  .holders_max = o->instances },
                      &s->index) != MC_OK)
        fail("index", NULL);
    s->holders = o->instances;
    s->match = (struct kv_match){ .blocks = calloc(s->holders, sizeof(uint32_t)),
                                  .held = calloc(s->holders, sizeof(uint32_t)),
                                  .holders = calloc(s->holders, sizeof(uint32_t)) };
    s->prompts = (struct prompts){ .length = INDEX_CHAIN, .shared = INDEX_CHAIN / 4 };
    while (kv_index_forgotten(s->index) == 0 && kv_index_blocks(s->index) < o->large - INDEX_CHAIN)
        shelve(s, s->prompts.chains++);
    samples_add(&bytes, (double)(resident_bytes() - before) / kv_index_blocks(s->index));
    for (uint32_t round = 0; round < o->rounds; round++) {
        const double ns = look_up(s, &prng) / INDEX_CHAINS_A_ROUND;
        samples_add(&found, INDEX_CHAIN / ns * 1e3);
        samples_add(&prompts, 1e6 / ns);
        measure_changes(s, &prng, &gone, &back);
    }
    bench_row(bench, name, "memory", "B/block", &bytes, NULL, NULL);
    bench_row(bench, name, "blocks looked up", "M/s", &found, NULL, NULL);
    bench_row(bench, name, "prompts looked up", "k/s", &prompts, NULL, NULL);
    bench_row(bench, name, "blocks evicted", "M/s", &gone, NULL, NULL);
    bench_row(bench, name, "blocks stored", "M/s", &back, NULL, NULL);
    kv_index_close(s->index);
    free(s->match.blocks);
    free(s->match.held);
    free(s->match.holders);
    free(s);
}

/* -------------------------------------------------------------------------------------------- main */

static const struct cluster_case cases[] = {
    { .name = "decide 256 keys", .keys = 256 },
    { .name = "decide 8192 keys", .keys = 8192 },
    { .name = "decide 256 keys, prefill and decode apart", .keys = 256, .split = true },
    { .name = "decide 256 keys, all share a prefix", .keys = 256, .hot = true },
    { .name = "decide 256 keys, stored at random", .keys = 256, .scattered = true },
    { .name = "decide 8192 keys, stored at random", .keys = 8192, .scattered = true },
    { .name = "decide 256 keys, costs learnt", .keys = 256, .learnt = true },
    { .name = "decide 256 keys, conductor", .keys = 256, .policy = "conductor" },
    { .name = "decide 256 keys, conductor, costs learnt",
      .keys = 256,
      .learnt = true,
      .policy = "conductor" },
    { .name = "decide 8192 keys, conductor", .keys = 8192, .policy = "conductor" },
};

static bool wanted(const struct options *o, const char *name)
{
    const size_t length = o->only ? strlen(o->only) : 0;

    if (length > 0 && o->only[length - 1] == '$') /* the end of the name */
        return strlen(name) == length - 1 && strncmp(name, o->only, length - 1) == 0;
    return !o->only || strstr(name, o->only) != NULL;
}

static void help(void)
{
    struct buf text = BUF_INIT(os_alloc());

    setting_help(rows, ROWS, &text);
    printf("usage: bench-sched [FLAGS]\n\n%s", text.failed ? "" : text.data);
    buf_fini(&text);
}

int main(int argc, char **argv)
{
    struct options options;
    struct settings settings;
    struct setting_list operands = { 0 };
    struct mc_error error = { 0 };
    struct bench bench;
    struct buf command = BUF_INIT(os_alloc());

    if (settings_init(&settings, rows, ROWS, &options, os_alloc(), &error) != MC_OK)
        fail("settings", &error);
    const mc_status read = settings_flags(&settings, argc - 1, argv + 1, &operands, &error);
    if (read == MC_OK && options.help) {
        help();
        return 0;
    }
    if (read == MC_OK && operands.count > 0)
        error_set(&error, MC_E_ARG, "give flags only");
    if (error.status != MC_OK) {
        fprintf(stderr, "bench sched: %s\n", error.text);
        return 2;
    }
    buf_add_text(&command, "bench-sched");
    for (int i = 1; i < argc; i++)
        buf_addf(&command, " %s", argv[i]);
    bench_init(&bench, "sched", command.data, options.commit);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        if (wanted(&options, cases[i].name))
            measure_decisions(&options, &cases[i], &bench);
    if (options.large != 0 && wanted(&options, "index"))
        measure_index(&options, &bench);
    const bool written = !options.json || bench_write(&bench, options.json);
    bench_fini(&bench);
    buf_fini(&command);
    setting_list_fini(&operands, os_alloc());
    settings_fini(&settings);
    return written ? 0 : 1;
}
