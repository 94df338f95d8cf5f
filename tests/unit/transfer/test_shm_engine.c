/* Quarantine as users of the engine see it: a peer that stops in the middle of a copy into shared memory. */
#define _GNU_SOURCE
#include "test.h"

#include <mooncake/transfer.h>

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "os/clock.h"

enum { SIZE = 4 << 20, HALF = 512 << 10 };

/* What the owner tells its peer. */
struct order {
    char segment[MC_NAME_MAX + 1];
    struct mc_region region;
    struct mc_window window; /* all of the region */
    bool windowed;
};

/* ------------------------------------------------------------------------------------ the peer */

/* Its local memory is a file that ends in the middle: the copy runs into the end and stops the process
 * with its pin held. Continued, it finds the file whole. */
static int trap_fd;

static void on_bus(int number)
{
    (void)number;
    raise(SIGSTOP);
    if (ftruncate(trap_fd, SIZE) != 0)
        _exit(9);
}

static void peer_main(int in, int out)
{
    const struct sigaction action = { .sa_handler = on_bus };
    /* Driven: threads of the engine block signals, and a blocked SIGBUS would end the process. */
    const struct mc_transfer_options options = { .transports = "shm", .flags = MC_TRANSFER_DRIVEN };
    struct mc_region_options region = { .size = SIZE, .flags = MC_REGION_PRIVATE };
    struct mc_region own;
    struct order order;
    mc_transfer *transfer;
    mc_batch *batch;
    uint32_t segment;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    trap_fd = memfd_create("trap", MFD_CLOEXEC);
    if (ftruncate(trap_fd, HALF) != 0 || sigaction(SIGBUS, &action, NULL) != 0)
        _exit(8);
    region.address = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, trap_fd, 0);
    if (read(in, &order, sizeof(order)) != sizeof(order) ||
        mc_transfer_open(&options, &transfer, NULL) != MC_OK ||
        mc_region_register(transfer, &region, 1, &own, NULL) != MC_OK ||
        mc_segment_open(transfer, order.segment, &segment, NULL) != MC_OK ||
        mc_batch_open(transfer, NULL, &batch) != MC_OK)
        _exit(7);
    const struct mc_xfer xfer = { .op = MC_WRITE,
                                  .segment = segment,
                                  .region = order.region,
                                  .window = order.windowed ? &order.window : NULL,
                                  .local = region.address,
                                  .length = SIZE };
    mc_status status = mc_batch_add(batch, &xfer, 1);
    if (status == MC_OK)
        status = mc_batch_submit(batch);
    uint64_t next_ns;
    for (status = status == MC_OK ? MC_PENDING : status; status == MC_PENDING;) {
        mc_transfer_progress(transfer, &next_ns);
        status = mc_batch_poll(batch);
    }
    if (write(out, &status, sizeof(status)) != sizeof(status))
        _exit(6);
    while (read(in, &order, 1) > 0) /* until the test is over */
        continue;
    _exit(0);
}

/* ----------------------------------------------------------------------------------- the owner */

struct scene {
    int pid, in, out;
    mc_transfer *transfer;
    void *memory;
    struct order order;
};

static void scene_open(struct scene *scene, bool windowed)
{
    const struct mc_transfer_options options = { .transports = "shm" };
    struct mc_transfer_info info;
    int to[2], from[2], how;

    *scene = (struct scene){ .order.windowed = windowed };
    assert_int_equal(pipe(to), 0);
    assert_int_equal(pipe(from), 0);
    scene->pid = fork(); /* before there is anything to inherit */
    if (scene->pid == 0) {
        close(to[1]);
        close(from[0]);
        peer_main(to[0], from[1]);
    }
    close(to[0]);
    close(from[1]);
    scene->in = to[1];
    scene->out = from[0];

    assert_int_equal(mc_transfer_open(&options, &scene->transfer, NULL), MC_OK);
    assert_int_equal(mc_memory_alloc(scene->transfer, SIZE, NULL, &scene->memory, NULL), MC_OK);
    const struct mc_region_options region = { .address = scene->memory,
                                              .size = SIZE,
                                              .permissions = MC_REMOTE_WRITE };
    assert_int_equal(mc_region_register(scene->transfer, &region, 1, &scene->order.region, NULL),
                     MC_OK);
    const struct mc_window_options window = { .region = scene->order.region,
                                              .count = 1,
                                              .piece_bytes = SIZE,
                                              .permissions = MC_REMOTE_WRITE };
    assert_int_equal(mc_window_grant(scene->transfer, &window, &scene->order.window, NULL), MC_OK);
    assert_int_equal(mc_transfer_info(scene->transfer, &info), MC_OK);
    strcpy(scene->order.segment, info.name);
    assert_int_equal(write(scene->in, &scene->order, sizeof(scene->order)), sizeof(scene->order));
    assert_int_equal(waitpid(scene->pid, &how, WUNTRACED), scene->pid);
    assert_true(WIFSTOPPED(how));
}

static void scene_close(struct scene *scene)
{
    kill(scene->pid, SIGKILL);
    assert_int_equal(waitpid(scene->pid, NULL, 0), scene->pid);
    close(scene->in);
    close(scene->out);
    assert_int_equal(mc_region_unregister(scene->transfer, &scene->order.region, 1,
                                          os_now_ns() + UINT64_C(10000000000), NULL),
                     MC_OK);
    mc_memory_free(scene->transfer, scene->memory);
    mc_transfer_close(scene->transfer);
}

static uint64_t quarantined(const struct scene *scene)
{
    struct mc_transfer_stats stats;

    assert_int_equal(mc_transfer_stats(scene->transfer, UINT32_MAX, &stats), MC_OK);
    return stats.quarantined_bytes;
}

/* Takes back the window or the region, whichever the peer writes by. */
static mc_status take_back(struct scene *scene, uint64_t patience_ns)
{
    const uint64_t deadline_ns = os_now_ns() + patience_ns;

    if (scene->order.windowed)
        return mc_window_revoke(scene->transfer, &scene->order.window, deadline_ns, NULL);
    return mc_region_unregister(scene->transfer, &scene->order.region, 1, deadline_ns, NULL);
}

static void check_quarantine(bool windowed, bool killed)
{
    struct scene scene;
    mc_status status;

    scene_open(&scene, windowed);
    assert_int_equal(quarantined(&scene), 0);
    assert_int_equal(take_back(&scene, 20000000), MC_E_TIMEOUT);
    assert_int_equal(quarantined(&scene), SIZE);
    kill(scene.pid, killed ? SIGKILL : SIGCONT);
    assert_int_equal(take_back(&scene, UINT64_C(10000000000)), MC_OK);
    assert_int_equal(quarantined(&scene), 0);

    /* It is ours alone now, whatever the peer still has in mind. */
    memset(scene.memory, 0xdd, SIZE);
    if (!killed) {
        assert_int_equal(read(scene.out, &status, sizeof(status)), sizeof(status));
        assert_int_equal(status, MC_E_STALE);
    }
    assert_int_equal(*(uint8_t *)scene.memory, 0xdd);
    assert_int_equal(memcmp(scene.memory, (uint8_t *)scene.memory + 1, SIZE - 1), 0);
    if (!windowed) { /* so that there is one to unregister at the end */
        const struct mc_region_options region = { .address = scene.memory, .size = SIZE };
        assert_int_equal(mc_region_register(scene.transfer, &region, 1, &scene.order.region, NULL),
                         MC_OK);
    }
    scene_close(&scene);
}

static void test_a_region_pinned_by_a_stopped_peer_is_in_quarantine(void **state)
{
    (void)state;
    check_quarantine(false, false);
}

static void test_a_window_pinned_by_a_stopped_peer_is_in_quarantine(void **state)
{
    (void)state;
    check_quarantine(true, false);
}

static void test_the_death_of_the_peer_ends_it(void **state)
{
    (void)state;
    check_quarantine(false, true);
    check_quarantine(true, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_region_pinned_by_a_stopped_peer_is_in_quarantine),
        cmocka_unit_test(test_a_window_pinned_by_a_stopped_peer_is_in_quarantine),
        cmocka_unit_test(test_the_death_of_the_peer_ends_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
