/* Peers in processes of their own, which are stopped, continued and killed in the middle of a copy. */
#define _GNU_SOURCE
#include "shm_ends.h"

#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SIZE = 4 << 20 };

/* What the test tells its peer, by a pipe: enough to make a queue and slices. */
struct order {
    struct shm_address address;
    uint64_t incarnation;
    struct place place; /* its pointers are not used there */
    struct mc_window window;
    uint8_t window_key[SHM_KEY_BYTES];
    bool windowed, trap; /* trap: stop in the middle of the first copy */
    bool for_ever;       /* write again and again until the owner refuses */
};

/* ------------------------------------------------------------------------------- in the peer */

/* The local memory of a trap: a file that ends in the middle of it. The copy runs into the end, SIGBUS
 * comes, and the process stops there, with its pin held; continued, it finds the file whole. */
static int trap_fd;

static void on_bus(int number)
{
    (void)number;
    raise(SIGSTOP);
    if (ftruncate(trap_fd, SIZE) != 0)
        _exit(9);
}

static uint8_t *local_memory(bool trap)
{
    const struct sigaction action = { .sa_handler = on_bus };

    trap_fd = memfd_create("trap", MFD_CLOEXEC);
    if (trap_fd < 0 || ftruncate(trap_fd, trap ? 512 << 10 : SIZE) != 0)
        _exit(8);
    uint8_t *local = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, trap_fd, 0);
    if (local == MAP_FAILED)
        _exit(8);
    memset(local, 0x11, trap ? 512 << 10 : SIZE);
    sigaction(SIGBUS, &action, NULL);
    return local;
}

/* Without asserts: those leave by longjmp into the parent's test. */
static mc_status peer_write(struct shm_queue *queue, const struct order *order, uint8_t *local)
{
    struct posted p;
    struct transport_slice *slice = &p.slice;
    struct transport_completion done;
    uint32_t count = 0, posted;
    const uint64_t until_ns = os_now_ns() + PATIENCE_NS;

    slice_init(&p, MC_WRITE, local, &order->place, 0, SIZE);
    if (order->windowed) {
        p.slice.remote.key[0] = order->window.key[0];
        p.slice.remote.key[1] = order->window.key[1];
        p.slice.remote.generation = order->window.generation;
        p.slice.remote.region_offset = 0;
        p.slice.remote_key = order->window_key;
    }
    mc_status status = transport_shm.post(queue, &slice, 1, &posted);
    while (status == MC_OK && count == 0 && os_now_ns() < until_ns)
        status = transport_shm.poll(queue, os_now_ns(), &done, 1, &count);
    return count ? done.status : status;
}

static void peer_main(int in, int out)
{
    struct order order;
    struct end end;
    struct shm_queue *queue = calloc(1, sizeof(*queue));
    mc_status status = MC_E_IO;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (read(in, &order, sizeof(order)) != sizeof(order) || end_open(&end, 77, NULL, -1) != MC_OK)
        _exit(7);
    end.address = order.address;
    struct end owner = { .address = order.address, .env.incarnation = order.incarnation };
    uint8_t *local = local_memory(order.trap);
    if (queue_open(&end, &owner, queue) == MC_OK)
        do {
            status = peer_write(queue, &order, local);
            if (write(out, &status, sizeof(status)) != sizeof(status))
                _exit(6);
        } while (order.for_ever && status == MC_OK);
    while (read(in, &order, 1) > 0) /* until the test is over */
        continue;
    _exit(0);
}

/* -------------------------------------------------------------------------------- in the test */

struct peer {
    int pid, in, out; /* in: to it; out: from it */
};

static struct peer peer_start(void)
{
    struct peer peer;
    int to[2], from[2];

    assert_int_equal(pipe(to), 0);
    assert_int_equal(pipe(from), 0);
    peer.pid = fork();
    if (peer.pid == 0) {
        close(to[1]);
        close(from[0]);
        peer_main(to[0], from[1]);
    }
    assert_true(peer.pid > 0);
    close(to[0]);
    close(from[1]);
    peer.in = to[1];
    peer.out = from[0];
    return peer;
}

static void peer_end(struct peer *peer)
{
    int how;

    kill(peer->pid, SIGKILL);
    assert_int_equal(waitpid(peer->pid, &how, 0), peer->pid);
    close(peer->in);
    close(peer->out);
}

struct scene {
    struct peer peer; /* started first, so that it inherits nothing */
    struct end owner;
    struct os_shared shared;
    uint8_t *plain;
    struct order order;
};

static void scene_open(struct scene *scene, bool mapped)
{
    scene->peer = peer_start();
    assert_int_equal(end_open(&scene->owner, 55, NULL, -1), MC_OK);
    assert_int_equal(os_shared_open(SIZE, -1, &scene->shared, NULL), MC_OK);
    scene->plain = calloc(1, SIZE);
    scene->order = (struct order){ .address = scene->owner.address, .incarnation = 55 };
    place_init(&scene->order.place, mapped ? scene->shared.address : scene->plain, SIZE,
               mapped ? scene->shared.fd : -1, 1, 1000);
    assert_int_equal(place_open(&scene->owner, &scene->order.place), MC_OK);
}

static void scene_close(struct scene *scene)
{
    end_close(&scene->owner);
    os_shared_close(&scene->shared);
    free(scene->plain);
}

static void grant(struct scene *scene, uint64_t mark, struct mc_window *window,
                  uint8_t key[SHM_KEY_BYTES])
{
    uint8_t bytes[TRANSPORT_KEY_MAX];
    size_t size;
    struct transport_window w = { .window = { .key = { mark, mark },
                                              .size = SIZE,
                                              .permissions = MC_REMOTE_WRITE,
                                              .generation = mark,
                                              .piece_bytes = SIZE },
                                  .count = 1,
                                  .piece_bytes = SIZE };

    assert_int_equal(
        transport_shm.window_open(&scene->owner.shm, &scene->order.place.state, &w, bytes, &size),
        MC_OK);
    *window = w.window;
    memcpy(key, bytes, SHM_KEY_BYTES);
}

static void send_order(struct scene *scene)
{
    assert_int_equal(write(scene->peer.in, &scene->order, sizeof(scene->order)),
                     sizeof(scene->order));
}

/* Serve until the peer has said something, or is stopped. */
static bool serve_until(struct scene *scene, bool stopped, mc_status *status_p)
{
    const uint64_t until_ns = os_now_ns() + PATIENCE_NS;
    struct pollfd said = { .fd = scene->peer.out, .events = POLLIN };
    int how;

    while (os_now_ns() < until_ns) {
        transport_shm.serve(&scene->owner.shm, os_now_ns(), NULL);
        if (stopped && waitpid(scene->peer.pid, &how, WNOHANG | WUNTRACED) == scene->peer.pid)
            return WIFSTOPPED(how);
        if (!stopped && poll(&said, 1, 0) > 0)
            return read(said.fd, status_p, sizeof(*status_p)) == sizeof(*status_p);
        sched_yield();
    }
    return false;
}

/* A peer that stands still in the middle of a copy. */
static void trap_peer(struct scene *scene, bool windowed)
{
    struct order *order = &scene->order;

    scene_open(scene, true);
    order->trap = true;
    order->windowed = windowed;
    grant(scene, 5, &order->window, order->window_key);
    send_order(scene);
    assert_true(serve_until(scene, true, NULL));
}

static void test_memory_pinned_by_a_stopped_peer_is_in_quarantine_until_it_goes_on(void **state)
{
    struct scene scene;
    uint64_t blocker = 0;
    mc_status status;

    (void)state;
    trap_peer(&scene, false);
    transport_shm.region_close(&scene.owner.shm, &scene.order.place.state);
    assert_int_equal(quiet(&scene.owner, &scene.order.place, NULL, 50000000, &blocker), MC_PENDING);
    assert_int_equal(blocker, 77);

    kill(scene.peer.pid, SIGCONT);
    assert_int_equal(quiet(&scene.owner, &scene.order.place, NULL, PATIENCE_NS, &blocker), MC_OK);
    assert_true(serve_until(&scene, false, &status));
    assert_int_equal(status, MC_E_STALE); /* the pieces after the first were refused */
    peer_end(&scene.peer);
    scene_close(&scene);
}

static void test_memory_pinned_by_a_killed_peer_is_quiet(void **state)
{
    struct scene scene;
    uint64_t blocker = 0;

    (void)state;
    trap_peer(&scene, false);
    transport_shm.region_close(&scene.owner.shm, &scene.order.place.state);
    assert_int_equal(quiet(&scene.owner, &scene.order.place, NULL, 0, &blocker), MC_PENDING);
    peer_end(&scene.peer);
    assert_int_equal(quiet(&scene.owner, &scene.order.place, NULL, PATIENCE_NS, &blocker), MC_OK);
    for (int i = 0; i < 10; i++)
        transport_shm.serve(&scene.owner.shm, os_now_ns(), NULL);
    assert_int_equal(scene.owner.shm.sessions_used, 0);
    scene_close(&scene);
}

static void test_a_window_waits_for_its_own_copies_only(void **state)
{
    struct scene scene;
    struct mc_window other;
    uint8_t key[SHM_KEY_BYTES];
    uint64_t blocker = 0;
    mc_status status;

    (void)state;
    trap_peer(&scene, true);
    grant(&scene, 6, &other, key);
    transport_shm.window_close(&scene.owner.shm, &scene.order.place.state, &other);
    assert_int_equal(quiet(&scene.owner, &scene.order.place, &other, 0, &blocker), MC_OK);
    transport_shm.window_close(&scene.owner.shm, &scene.order.place.state, &scene.order.window);
    assert_int_equal(quiet(&scene.owner, &scene.order.place, &scene.order.window, 0, &blocker),
                     MC_PENDING);
    assert_int_equal(blocker, 77);
    kill(scene.peer.pid, SIGCONT);
    assert_int_equal(
        quiet(&scene.owner, &scene.order.place, &scene.order.window, PATIENCE_NS, &blocker), MC_OK);
    assert_true(serve_until(&scene, false, &status));
    assert_int_equal(status, MC_E_STALE);
    peer_end(&scene.peer);
    place_end(&scene.owner, &scene.order.place);
    scene_close(&scene);
}

/* What quiet means: the owner writes the memory at once, and nobody else does any more. */
static void test_what_is_quiet_stays_as_it_is(void **state)
{
    (void)state;
    for (int round = 0; round < 6; round++) {
        struct scene scene;
        uint64_t blocker;
        mc_status status = MC_OK;

        scene_open(&scene, round % 2 == 0);
        uint8_t *memory = scene.order.place.range.address;
        scene.order.for_ever = true;
        send_order(&scene);
        for (int i = 0; i < 3 + round; i++)
            assert_true(serve_until(&scene, false, &status));
        transport_shm.region_close(&scene.owner.shm, &scene.order.place.state);
        assert_int_equal(quiet(&scene.owner, &scene.order.place, NULL, PATIENCE_NS, &blocker),
                         MC_OK);
        memset(memory, 0xdd, SIZE);
        while (status == MC_OK)
            assert_true(serve_until(&scene, false, &status));
        assert_int_equal(status, MC_E_STALE);
        assert_int_equal(memory[0], 0xdd);
        assert_int_equal(memcmp(memory, memory + 1, SIZE - 1), 0);
        peer_end(&scene.peer);
        scene_close(&scene);
    }
}

/* Whoever copies to a process that dies hears of it, and every slice completes. */
static void test_a_queue_to_a_killed_owner_fails(void **state)
{
    (void)state;
    for (int mapped = 0; mapped < 2; mapped++) {
        int pipes[2];
        struct order order;
        assert_int_equal(pipe(pipes), 0);
        const int pid = fork();
        if (pid == 0) { /* the owner */
            static struct end owner;
            struct os_shared shared;
            struct place place;
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (end_open(&owner, 55, NULL, -1) != MC_OK ||
                os_shared_open(SIZE, -1, &shared, NULL) != MC_OK)
                _exit(1);
            place_init(&place, shared.address, SIZE, mapped ? shared.fd : -1, 1, 9);
            if (place_open(&owner, &place) != MC_OK)
                _exit(2);
            order = (struct order){ .address = owner.address, .place = place };
            if (write(pipes[1], &order, sizeof(order)) != sizeof(order))
                _exit(3);
            for (;;)
                transport_shm.serve(&owner.shm, os_now_ns(), NULL);
        }
        assert_int_equal(read(pipes[0], &order, sizeof(order)), sizeof(order));
        struct end peer, owner = { .address = order.address, .env.incarnation = 55 };
        struct shm_queue *queue = calloc(1, sizeof(*queue));
        uint8_t *local = calloc(1, SIZE);
        struct posted p;
        int how;

        assert_int_equal(end_open(&peer, 77, NULL, -1), MC_OK);
        assert_int_equal(queue_open(&peer, &owner, queue), MC_OK);
        slice_init(&p, MC_WRITE, local, &order.place, 0, SIZE);
        assert_int_equal(run_slice(queue, NULL, &p), MC_OK);
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &how, 0), pid); /* its sockets are closed by then */
        struct posted more[5];
        for (int i = 0; i < 5; i++) {
            slice_init(&more[i], MC_READ, local, &order.place, 0, SIZE);
            post(queue, &more[i]);
        }
        (void)poll_at(queue, os_now_ns() + 2000000); /* later than the queue may trust */
        for (int i = 0; i < 5; i++)
            assert_int_equal(finish_slice(queue, NULL, &more[i]), MC_E_PEER);
        assert_int_equal(poll_once(queue), MC_E_PEER);
        queue_end(queue);
        end_close(&peer);
        free(queue);
        free(local);
        close(pipes[0]);
        close(pipes[1]);
    }
}

/* An owner that stands still: what is mapped goes on, what it must answer waits and can be cancelled. */
static void test_a_stopped_owner_is_not_on_the_path(void **state)
{
    struct end owner, peer;
    struct os_shared shared;
    struct place first, second;
    struct shm_queue queue;
    struct posted a, b;
    uint8_t *local = calloc(1, SIZE);

    (void)state;
    assert_int_equal(end_open(&owner, 55, NULL, -1), MC_OK);
    assert_int_equal(end_open(&peer, 77, NULL, -1), MC_OK);
    assert_int_equal(os_shared_open(SIZE, -1, &shared, NULL), MC_OK);
    place_init(&first, shared.address, SIZE, shared.fd, 1, 9);
    place_init(&second, shared.address, SIZE, shared.fd, 2, 9);
    assert_int_equal(place_open(&owner, &first), MC_OK);
    assert_int_equal(place_open(&owner, &second), MC_OK);
    assert_int_equal(queue_open(&peer, &owner, &queue), MC_OK);
    slice_init(&a, MC_WRITE, local, &first, 0, SIZE);
    assert_int_equal(run_slice(&queue, &owner, &a), MC_OK);

    /* from here on nobody serves */
    slice_init(&b, MC_WRITE, local, &second, 0, SIZE);
    post(&queue, &b);
    slice_init(&a, MC_WRITE, local, &first, 0, SIZE);
    assert_int_equal(run_slice(&queue, NULL, &a), MC_OK);
    assert_int_equal(b.status, MC_PENDING);
    transport_shm.cancel(&queue, MC_E_TIMEOUT);
    assert_int_equal(finish_slice(&queue, NULL, &b), MC_E_TIMEOUT);
    queue_end(&queue);
    place_end(&owner, &first);
    place_end(&owner, &second);
    end_close(&peer);
    end_close(&owner);
    os_shared_close(&shared);
    free(local);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_pinned_by_a_stopped_peer_is_in_quarantine_until_it_goes_on),
        cmocka_unit_test(test_memory_pinned_by_a_killed_peer_is_quiet),
        cmocka_unit_test(test_a_window_waits_for_its_own_copies_only),
        cmocka_unit_test(test_what_is_quiet_stays_as_it_is),
        cmocka_unit_test(test_a_queue_to_a_killed_owner_fails),
        cmocka_unit_test(test_a_stopped_owner_is_not_on_the_path),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
