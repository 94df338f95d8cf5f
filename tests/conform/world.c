/* world.c - two engines in two processes, and the pipe by which one tells the other what to do. */
#define _GNU_SOURCE
#include "world.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, size) ((void)(p), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(p, size) ((void)(p), (void)(size))
#endif

const struct variant *variant;

enum { ALIAS_BYTES = 16 << 20, GUARD_SEED = 31 };

enum what { HELLO, FILL, WRONG, REGISTER, UNREGISTER, GRANT, REVOKE, QUIT };

struct request {
    enum what what;
    uint64_t from, size, seed;
    uint32_t permissions, flags;
    struct mc_region region;
    struct mc_window window;
    struct mc_window_options grant;
    uint64_t offsets[PIECES_MAX];
};

struct reply {
    mc_status status;
    uint64_t number, incarnation;
    struct mc_region region;
    struct mc_window window;
    char name[MC_NAME_MAX + 1];
};

/** A peer: its engine and memory. */
struct host {
    mc_transfer *engine;
    bool own; /* the engine is the world's */
    uint8_t *memory;
    uint64_t space;
    bool allocated;
    struct mc_region region;
    struct reply last; /* of `self` */
    bool has_last;
};

/* The pattern is the same eight bytes all through 256 of them: most of it goes by words.
 *
 * What orders a peer's look at its memory after a transfer is a message from the other process, which TSan
 * does not see: it is told to leave these two alone. */
#if defined(__SANITIZE_THREAD__)
#define UNWATCHED __attribute__((no_sanitize("thread")))
#else
#define UNWATCHED
#endif

enum { BLOCK = 256 };

static void make_block(uint8_t block[BLOCK], uint64_t at, uint64_t seed)
{
    for (uint64_t i = 0; i < 8; i++)
        block[i] = pattern(seed, at + i);
    for (uint64_t i = 8; i < BLOCK; i *= 2)
        memcpy(block + i, block, i);
}

#if defined(__SANITIZE_THREAD__)
/* memcpy and memcmp are watched wherever they are called from. */
UNWATCHED static void copy(uint8_t *to, const uint8_t *from, uint64_t size)
{
    for (uint64_t i = 0; i < size; i++)
        ((volatile uint8_t *)to)[i] = from[i];
}

UNWATCHED static bool equal(const uint8_t *a, const uint8_t *b, uint64_t size)
{
    uint64_t i = 0;

    while (i < size && ((const volatile uint8_t *)a)[i] == b[i])
        i++;
    return i == size;
}
#else
static void copy(uint8_t *to, const uint8_t *from, uint64_t size)
{
    memcpy(to, from, size);
}

static bool equal(const uint8_t *a, const uint8_t *b, uint64_t size)
{
    return memcmp(a, b, size) == 0;
}
#endif

void fill(uint8_t *memory, uint64_t from, uint64_t size, uint64_t seed)
{
    uint8_t block[BLOCK];

    for (uint64_t i = from; i < from + size;) {
        const uint64_t at = i / BLOCK * BLOCK, end = from + size;
        const uint64_t until = at + BLOCK < end ? at + BLOCK : end;

        make_block(block, at, seed);
        copy(memory + i, block + (i - at), until - i);
        i = until;
    }
}

UNWATCHED uint64_t wrong(const uint8_t *memory, uint64_t from, uint64_t size, uint64_t seed)
{
    uint8_t block[BLOCK];
    uint64_t count = 0;

    for (uint64_t i = from; i < from + size;) {
        const uint64_t at = i / BLOCK * BLOCK, end = from + size;
        const uint64_t until = at + BLOCK < end ? at + BLOCK : end;

        make_block(block, at, seed);
        if (!equal(memory + i, block + (i - at), until - i))
            for (uint64_t b = i; b < until; b++)
                count += memory[b] != block[b - at];
        i = until;
    }
    return count;
}

/* ------------------------------------------------------------------------------------------- memory */

/** `space` bytes of which ALIAS_BYTES are there, mapped again and again. */
static uint8_t *map_aliased(uint64_t space)
{
    const int fd = memfd_create("conform", MFD_CLOEXEC);
    uint8_t *memory =
        mmap(NULL, space, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (fd < 0 || memory == MAP_FAILED || ftruncate(fd, ALIAS_BYTES) != 0)
        return NULL;
    for (uint64_t at = 0; at < space; at += ALIAS_BYTES) {
        const uint64_t left = space - at;
        if (mmap(memory + at, left < ALIAS_BYTES ? left : ALIAS_BYTES, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
            return NULL;
    }
    close(fd);
    return memory;
}

static uint8_t *take_memory(mc_transfer *engine, uint64_t space, bool allocated, bool aliased)
{
    void *memory = NULL;

    if (aliased)
        return map_aliased(space);
    if (allocated)
        return mc_memory_alloc(engine, space, NULL, &memory, NULL) == MC_OK ? memory : NULL;
    memory = mmap(NULL, space, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static void give_memory(mc_transfer *engine, uint8_t *memory, uint64_t space, bool allocated)
{
    if (allocated)
        mc_memory_free(engine, memory);
    else
        (void)munmap(memory, space);
}

static mc_status register_one(mc_transfer *engine, void *memory, uint64_t size,
                              uint32_t permissions, uint32_t flags, struct mc_region *region_p)
{
    const struct mc_region_options options = {
        .address = memory, .size = size, .permissions = permissions, .flags = flags
    };

    return mc_region_register(engine, &options, 1, region_p, NULL);
}

/* --------------------------------------------------------------------------------------------- host */

static bool host_open(struct host *host, mc_transfer *engine, const struct world_options *options)
{
    const bool allocated = variant->allocated && !options->aliased;

    *host = (struct host){ .engine = engine,
                           .own = engine != NULL,
                           .space = options->space ? options->space : SPACE,
                           .allocated = allocated };
    if (!engine) {
        const struct mc_transfer_options o = { .transports = variant->transports };
        struct mc_error error = { 0 };

        if (mc_transfer_open(&o, &host->engine, &error) != MC_OK) {
            fprintf(stderr, "peer: %s\n", error.text);
            return false;
        }
    }
    host->memory = take_memory(host->engine, host->space, allocated, options->aliased);
    return host->memory &&
           register_one(host->engine, host->memory, host->space, BOTH, 0, &host->region) == MC_OK;
}

static mc_status host_close(struct host *host)
{
    const mc_status status = mc_region_unregister(host->engine, &host->region, 1, soon(), NULL);

    if (status != MC_OK)
        return status;
    give_memory(host->engine, host->memory, host->space, host->allocated);
    if (!host->own)
        mc_transfer_close(host->engine);
    return MC_OK;
}

static void host_do(struct host *host, const struct request *r, struct reply *reply)
{
    struct mc_transfer_info info;
    struct mc_window_options grant = r->grant;

    *reply = (struct reply){ .status = MC_OK };
    switch (r->what) {
    case HELLO:
        (void)mc_transfer_info(host->engine, &info);
        (void)snprintf(reply->name, sizeof(reply->name), "%s", info.name);
        reply->incarnation = info.incarnation;
        reply->region = host->region;
        break;
    case FILL:
        fill(host->memory, r->from, r->size, r->seed);
        break;
    case WRONG:
        reply->number = wrong(host->memory, r->from, r->size, r->seed);
        break;
    case REGISTER:
        reply->status = register_one(host->engine, host->memory, host->space, r->permissions,
                                     r->flags, &reply->region);
        break;
    case UNREGISTER:
        reply->status = mc_region_unregister(host->engine, &r->region, 1, soon(), NULL);
        break;
    case GRANT:
        grant.offsets = grant.offsets ? r->offsets : NULL;
        reply->status = mc_window_grant(host->engine, &grant, &reply->window, NULL);
        break;
    case REVOKE:
        reply->status = mc_window_revoke(host->engine, &r->window, soon(), NULL);
        break;
    case QUIT:
        reply->status = host_close(host);
        break;
    }
}

/** The other process: does as told until it is told to quit, or its parent is gone. */
static void be_peer(int fd, const struct world_options *options)
{
    struct host host;
    struct request request;
    struct reply reply;

    if (!host_open(&host, NULL, options))
        _exit(3);
    for (bool going = true; going;) {
        if (recv(fd, &request, sizeof(request), 0) != (ssize_t)sizeof(request))
            _exit(4);
        host_do(&host, &request, &reply);
        if (send(fd, &reply, sizeof(reply), MSG_NOSIGNAL) != (ssize_t)sizeof(reply))
            _exit(5);
        going = request.what != QUIT;
    }
    _exit(0);
}

static void start_peer(struct world *world, const struct world_options *options)
{
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    world->fd = fds[0];
    const pid_t parent = getpid();
    world->pid = fork();
    assert_true(world->pid >= 0);
    if (world->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(2);
        close(fds[0]);
        be_peer(fds[1], options);
    }
    close(fds[1]);
}

/* ---------------------------------------------------------------------------------------- telling */

static void tell(struct world *world, const struct request *request)
{
    if (world->host) {
        host_do(world->host, request, &world->host->last);
        world->host->has_last = true;
        return;
    }
    assert_int_equal(send(world->fd, request, sizeof(*request), MSG_NOSIGNAL), sizeof(*request));
}

bool told_ready(struct world *world)
{
    return world->host || poll(&(struct pollfd){ world->fd, POLLIN, 0 }, 1, 0) == 1;
}

static void told(struct world *world, struct reply *reply)
{
    const uint64_t until_ns = soon(), alone_ns = os_now_ns() + SECOND_NS / 50;
    uint64_t next_ns;

    if (world->host) {
        assert_true(world->host->has_last);
        world->host->has_last = false;
        *reply = world->host->last;
        return;
    }
    while (!told_ready(world)) {
        if (os_now_ns() > until_ns)
            fail_msg("the peer does not answer");
        /* An engine without a thread may hold what the peer waits for; but at first let what is half way
         * stay there: it is what the peer must be safe from. */
        if (world->engine && os_now_ns() > alone_ns)
            (void)mc_transfer_progress(world->engine, &next_ns);
        (void)poll(&(struct pollfd){ world->fd, POLLIN, 0 }, 1, 1);
    }
    if (recv(world->fd, reply, sizeof(*reply), 0) != (ssize_t)sizeof(*reply))
        fail_msg("the peer is gone");
}

static struct reply ask(struct world *world, const struct request *request)
{
    struct reply reply;

    tell(world, request);
    told(world, &reply);
    return reply;
}

void tell_fill(struct world *world, uint64_t from, uint64_t size, uint64_t seed)
{
    (void)ask(world, &(struct request){ .what = FILL, .from = from, .size = size, .seed = seed });
}

uint64_t tell_wrong(struct world *world, uint64_t from, uint64_t size, uint64_t seed)
{
    return ask(world, &(struct request){ .what = WRONG, .from = from, .size = size, .seed = seed })
        .number;
}

struct mc_region tell_register(struct world *world, uint32_t permissions, uint32_t flags)
{
    const struct reply reply = ask(
        world, &(struct request){ .what = REGISTER, .permissions = permissions, .flags = flags });
    struct mc_segment_info info;

    assert_int_equal(reply.status, MC_OK);
    /* What was registered since the segment was opened is seen by asking again. */
    assert_int_equal(mc_segment_info(world->engine, world->segment, true, soon(), &info, NULL),
                     MC_OK);
    return reply.region;
}

void tell_unregister(struct world *world, struct mc_region region)
{
    tell(world, &(struct request){ .what = UNREGISTER, .region = region });
}

mc_status tell_grant(struct world *world, const struct mc_window_options *options,
                     struct mc_window *window_p)
{
    struct request request = { .what = GRANT, .grant = *options };

    assert_true(options->count <= PIECES_MAX);
    if (options->offsets)
        memcpy(request.offsets, options->offsets, options->count * sizeof(uint64_t));
    const struct reply reply = ask(world, &request);
    *window_p = reply.window;
    return reply.status;
}

void tell_revoke(struct world *world, const struct mc_window *window)
{
    tell(world, &(struct request){ .what = REVOKE, .window = *window });
}

mc_status told_status(struct world *world)
{
    struct reply reply;

    told(world, &reply);
    return reply.status;
}

void peer_stop(struct world *world)
{
    int how;

    assert_true(world->pid > 0);
    assert_int_equal(kill(world->pid, SIGSTOP), 0);
    assert_int_equal(waitpid(world->pid, &how, WUNTRACED), world->pid);
    assert_true(WIFSTOPPED(how));
}

void peer_continue(struct world *world)
{
    assert_int_equal(kill(world->pid, SIGCONT), 0);
}

void peer_kill(struct world *world)
{
    assert_true(world->pid > 0);
    assert_int_equal(kill(world->pid, SIGKILL), 0);
    assert_int_equal(waitpid(world->pid, NULL, 0), world->pid);
    world->pid = 0;
}

/* ------------------------------------------------------------------------------------- the world */

static void connect_own(struct world *world, const struct world_options *options)
{
    world->host = calloc(1, sizeof(*world->host));
    assert_non_null(world->host);
    assert_true(host_open(world->host, world->engine, options));
}

void world_open(struct world *world, const struct world_options *options)
{
    const struct mc_transfer_options o = { .transports = variant->transports,
                                           .settings = options->settings,
                                           .flags = options->driven ? MC_TRANSFER_DRIVEN : 0 };
    struct mc_error error = { 0 };

    *world = (struct world){ .fd = -1, .space = options->space ? options->space : SPACE };
    if (!variant->own)
        start_peer(world, options); /* before there is a thread here */
    if (mc_transfer_open(&o, &world->engine, &error) != MC_OK)
        fail_msg("engine: %s", error.text);
    if (variant->own)
        connect_own(world, options);
    const struct reply hello = ask(world, &(struct request){ .what = HELLO });
    world->region = hello.region;
    world->incarnation = hello.incarnation;
    memcpy(world->name, hello.name, sizeof(world->name));
    if (mc_segment_open(world->engine, hello.name, &world->segment, &error) != MC_OK)
        fail_msg("segment: %s", error.text);
    world->local = take_memory(world->engine, SPACE, variant->allocated, false);
    assert_non_null(world->local);
    assert_int_equal(register_one(world->engine, world->local, SPACE, 0, MC_REGION_PRIVATE,
                                  &world->local_region),
                     MC_OK);
    world->local_registered = true;
}

static void leave(struct world *world)
{
    mc_segment_close(world->engine, world->segment);
    if (world->local_registered)
        assert_int_equal(mc_region_unregister(world->engine, &world->local_region, 1, soon(), NULL),
                         MC_OK);
    give_memory(world->engine, world->local, SPACE, variant->allocated);
    mc_transfer_close(world->engine);
    world->engine = NULL;
    world->local = NULL;
}

void world_close(struct world *world)
{
    struct mc_transfer_stats stats;
    int how = 0;

    assert_int_equal(mc_transfer_stats(world->engine, UINT32_MAX, &stats), MC_OK);
    assert_true(stats.quarantined_bytes == 0);
    if (world->pid != 0 || world->host)
        assert_int_equal(ask(world, &(struct request){ .what = QUIT }).status, MC_OK);
    if (world->pid != 0) {
        assert_int_equal(waitpid(world->pid, &how, 0), world->pid);
        world->pid = 0;
        assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
    }
    leave(world);
    world_end(world);
}

void world_end(struct world *world)
{
    if (world->pid > 0) {
        (void)kill(world->pid, SIGKILL);
        (void)waitpid(world->pid, NULL, 0);
    }
    if (world->fd >= 0)
        close(world->fd);
    free(world->host);
    *world = (struct world){ .fd = -1 };
}

int world_setup(void **state)
{
    struct world *world = calloc(1, sizeof(*world));

    if (world)
        world->fd = -1;
    *state = world;
    return world ? 0 : -1;
}

int world_teardown(void **state)
{
    world_end(*state);
    free(*state);
    return 0;
}

/* ------------------------------------------------------------------------------------- transfers */

struct mc_xfer xfer_of(const struct world *world, enum mc_op op, uint64_t at, uint64_t offset,
                       uint64_t length)
{
    return (struct mc_xfer){ .op = op,
                             .segment = world->segment,
                             .region = world->region,
                             .offset = offset,
                             .length = length,
                             .local = world->local + at };
}

mc_batch *start(struct world *world, const struct mc_xfer *xfers, size_t count,
                uint64_t deadline_ns, enum mc_checksum checksum)
{
    const struct mc_batch_options options = { .capacity = count,
                                              .deadline_ns = deadline_ns,
                                              .checksum = checksum };
    mc_batch *batch = NULL;

    assert_int_equal(mc_batch_open(world->engine, &options, &batch), MC_OK);
    assert_int_equal(mc_batch_add(batch, xfers, count), MC_OK);
    (void)!mc_batch_submit(batch); /* OK, or final already: finish() says the same */
    return batch;
}

mc_status finish(mc_batch *batch)
{
    const mc_status status = mc_batch_wait(batch, soon());

    if (status == MC_PENDING)
        fail_msg("a batch does not end");
    return status;
}

mc_status move(struct world *world, const struct mc_xfer *xfer, enum mc_checksum checksum)
{
    mc_batch *batch = start(world, xfer, 1, 0, checksum);
    const mc_status status = finish(batch);
    struct mc_error error = { 0 };

    if (status != MC_OK) {
        (void)mc_batch_error(batch, &error);
        assert_int_equal(error.status, status);
        assert_true(error.text[0] != '\0');
    }
    mc_batch_close(batch);
    return status;
}

void let_pass(struct world *world, uint64_t ns)
{
    const uint64_t until_ns = os_now_ns() + ns;
    uint64_t next_ns;

    while (os_now_ns() < until_ns)
        (void)mc_transfer_progress(world->engine, &next_ns);
}

void guard(uint8_t *memory, size_t size)
{
    fill(memory, 0, size, GUARD_SEED);
    ASAN_POISON_MEMORY_REGION(memory, size);
}

void unguard(uint8_t *memory, size_t size)
{
    ASAN_UNPOISON_MEMORY_REGION(memory, size);
    const uint64_t count = wrong(memory, 0, size, GUARD_SEED);

    if (count != 0)
        fail_msg("%llu bytes were touched after the memory was quiet", (unsigned long long)count);
}

const uint32_t phases[PHASES] = { 0, 1, 2, 3, 5, 8, 13, 21, 40, 80, 200, 500 };

void load(const struct world *world, enum mc_op op, const struct mc_window *window,
          struct mc_xfer xfers[LOAD])
{
    for (uint64_t i = 0; i < LOAD; i++) {
        xfers[i] = xfer_of(world, op, i * LOAD_EACH, i * LOAD_EACH, LOAD_EACH);
        xfers[i].window = window;
    }
}

void take_steps(mc_batch *batch, uint32_t steps)
{
    for (uint32_t i = 0; i < steps && mc_batch_poll(batch) == MC_PENDING; i++)
        ;
}
