/* test_bench_raw.c - what the engine is measured against moves the right bytes, too. */
#define _GNU_SOURCE
#include "test.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd/bench_pattern.h"
#include "cmd/bench_raw.h"

enum { SIZE = 3 << 19 };

struct scene {
    uint8_t *local, *remote;
    struct bench_raw_server *server;
    struct bench_peer peer; /* a process of its own */
    int stop[2];            /* a pipe to it */
};

static void scene_open(struct scene *scene, bool spin)
{
    struct mc_error error = { 0 };

    scene->local = malloc(SIZE);
    scene->peer = (struct bench_peer){ .control = -1, .size = SIZE };
    scene->peer.memory_fd = memfd_create("mooncake", MFD_CLOEXEC);
    assert_int_equal(ftruncate(scene->peer.memory_fd, SIZE), 0);
    scene->remote = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, scene->peer.memory_fd, 0);
    assert_ptr_not_equal(scene->remote, MAP_FAILED);
    scene->peer.address = (uint64_t)(uintptr_t)scene->remote;
    assert_int_equal(pipe(scene->stop), 0);
    assert_int_equal(bench_raw_serve_open(scene->remote, SIZE, spin, "cubic", &scene->server,
                                          &scene->peer.raw_port, &error),
                     MC_OK);
    scene->peer.pid = fork();
    if (scene->peer.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        bench_raw_serve(scene->server, scene->stop[0]);
        _exit(0);
    }
    assert_true(scene->peer.pid > 0);
}

static void scene_close(struct scene *scene)
{
    assert_int_equal(write(scene->stop[1], "", 1), 1);
    assert_int_equal(waitpid(scene->peer.pid, NULL, 0), scene->peer.pid);
    bench_raw_serve_close(scene->server);
    munmap(scene->remote, SIZE);
    close(scene->peer.memory_fd);
    close(scene->stop[0]);
    close(scene->stop[1]);
    free(scene->local);
}

static void check(struct scene *scene, struct bench_case c, bool spin)
{
    const struct bench_peer_options options = {
        .transport = c.transport, .size = SIZE, .streams = 3, .congestion = "cubic", .spin = spin
    };
    const uint64_t bytes = c.block_bytes * c.batch, offset = 12288;
    uint8_t *from = c.op == BENCH_WRITE ? scene->local : scene->remote;
    uint8_t *to = c.op == BENCH_WRITE ? scene->remote : scene->local;
    struct bench_raw raw;
    struct mc_error error = { 0 };
    uint64_t wrong;

    bench_pattern(from, 0, SIZE);
    memset(to, 0, SIZE);
    assert_int_equal(bench_raw_open(&c, &options, &scene->peer, scene->local, NULL, &raw, &error),
                     MC_OK);
    for (uint64_t thread = 0; thread < c.threads; thread++)
        for (int again = 0; again < 3; again++)
            assert_int_equal(bench_raw_move(&raw, (uint32_t)thread, offset + thread * bytes),
                             MC_OK);
    bench_raw_close(&raw);
    assert_true(bench_pattern_is(to + offset, offset, bytes * c.threads, &wrong));
    assert_int_equal(to[offset - 1], 0);
    assert_int_equal(to[offset + bytes * c.threads], 0);
}

static void check_all(bool spin)
{
    static const struct {
        uint64_t block;
        uint32_t batch;
    } shapes[] = { { 64, 1 }, { 64, 16 }, { 4099, 3 }, { 65536, 8 }, { 300000, 1 } };
    struct scene scene;

    scene_open(&scene, spin);
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        for (int op = 0; op < 2; op++)
            for (int way = 0; way < 3; way++)
                check(&scene,
                      (struct bench_case){ .transport = way == 2 ? BENCH_TCP : BENCH_SHM,
                                           .op = op ? BENCH_READ : BENCH_WRITE,
                                           .block_bytes = shapes[i].block,
                                           .batch = shapes[i].batch,
                                           .threads = 2,
                                           .attach = way == 1 },
                      spin);
    scene_close(&scene);
}

static void test_every_raw_way_moves_the_bytes(void **state)
{
    (void)state;
    check_all(false);
}

static void test_so_it_does_when_it_spins(void **state)
{
    (void)state;
    check_all(true);
}

static void test_a_pattern_finds_any_wrong_byte(void **state)
{
    uint8_t bytes[100];
    uint64_t wrong = 0;

    (void)state;
    for (uint64_t offset = 0; offset < 9; offset++) {
        bench_pattern(bytes, offset, sizeof(bytes));
        assert_true(bench_pattern_is(bytes, offset, sizeof(bytes), &wrong));
        for (size_t i = 0; i < sizeof(bytes); i++) {
            bytes[i] ^= 4;
            assert_false(bench_pattern_is(bytes, offset, sizeof(bytes), &wrong));
            assert_true(wrong <= offset + i && wrong + 8 > offset + i);
            bytes[i] ^= 4;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_raw_way_moves_the_bytes),
        cmocka_unit_test(test_so_it_does_when_it_spins),
        cmocka_unit_test(test_a_pattern_finds_any_wrong_byte),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
