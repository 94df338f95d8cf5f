/* An owner that lies: what it says on the socket is an event for the peer, never a crash. */
#define _GNU_SOURCE
#include "shm_ends.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

/* A socket that answers what the test wants, in the place of a transport. */
struct liar {
    struct shm_address address;
    int listener, fd;
    int page_fd, pins_fd;
    struct shm_page *page;
    struct shm_pins *pins;
    struct end peer;
    struct shm_queue queue;
    struct os_shared shared;
    struct place place;
    struct posted posted;
    uint8_t local[8192];
};

static void *memory(size_t size, int *fd_p)
{
    void *p;

    assert_int_equal(shm_memory_open(size, 0, fd_p, &p, NULL), MC_OK);
    return p;
}

static int setup(void **state)
{
    struct liar *liar = calloc(1, sizeof(*liar));
    struct end owner;

    memset(&liar->address, 0x3c, sizeof(liar->address));
    const int pid = (int)getpid(); /* two runs at a time do not meet */
    memcpy(liar->address.name, &pid, sizeof(pid));
    assert_int_equal(shm_socket_listen(liar->address.name, &liar->listener, NULL), MC_OK);
    liar->page = memory(sizeof(*liar->page), &liar->page_fd);
    liar->pins = memory(sizeof(*liar->pins), &liar->pins_fd);
    shm_page_init(liar->page, 66);
    assert_int_equal(os_shared_open(8192, -1, &liar->shared, NULL), MC_OK);

    assert_int_equal(end_open(&liar->peer, 22, NULL, -1), MC_OK);
    owner.address = liar->address;
    owner.env.incarnation = 66;
    assert_int_equal(queue_open(&liar->peer, &owner, &liar->queue), MC_OK);
    assert_int_equal(shm_socket_accept(liar->listener, &liar->fd), MC_OK);

    /* A region that the page declares and for which the peer has a key. */
    liar->page->regions[1].address = (uint64_t)(uintptr_t)liar->shared.address;
    liar->page->regions[1].size = 8192;
    liar->page->regions[1].permissions = MC_REMOTE_READ | MC_REMOTE_WRITE;
    liar->page->regions[1].flags = SHM_MAPPED;
    liar->page->regions[1].generation = 5;
    place_init(&liar->place, liar->shared.address, 8192, liar->shared.fd, 1, 5);
    const struct shm_key key = { .region = 1, .generation = 5, .window = SHM_NO_WINDOW };
    shm_key_encode(&key, liar->place.key);
    liar->place.key_size = SHM_KEY_BYTES;
    slice_init(&liar->posted, MC_WRITE, liar->local, &liar->place, 0, 8192);
    post(&liar->queue, &liar->posted);
    *state = liar;
    return 0;
}

static int teardown(void **state)
{
    struct liar *liar = *state;

    queue_end(&liar->queue);
    end_close(&liar->peer);
    os_shared_close(&liar->shared);
    munmap(liar->page, sizeof(*liar->page));
    munmap(liar->pins, sizeof(*liar->pins));
    shm_close(&liar->page_fd);
    shm_close(&liar->pins_fd);
    shm_close(&liar->fd);
    shm_close(&liar->listener);
    free(liar);
    return 0;
}

/* The honest first answer, for tests to bend. `mappings` is [2]. */
static struct shm_packet honest(struct liar *liar, struct wire_mapping *mappings)
{
    struct shm_packet ask;

    assert_int_equal(shm_socket_receive(liar->fd, true, 0, &ask, NULL), MC_OK);
    mappings[0] = (struct wire_mapping){ .generation = 1, .size = sizeof(struct shm_page) };
    mappings[1] = (struct wire_mapping){ .generation = 1, .size = sizeof(struct shm_pins) };
    struct shm_packet answer = { .greeting = 66,
                                 .kind = WIRE_SAME_HOST_PROOF,
                                 .id = ask.id,
                                 .fds = { liar->page_fd, liar->pins_fd },
                                 .fd_count = 2 };
    answer.body.proof =
        (struct wire_same_host_proof){ .nonce = liar->address.answer,
                                       .incarnation = 66,
                                       .process = 1,
                                       .mappings = { .items = mappings, .count = 2 } };
    return answer;
}

static void give(struct liar *liar, const struct shm_packet *answer)
{
    assert_int_equal(shm_socket_send(liar->fd, answer, NULL), MC_OK);
}

/* The queue failed for good, with its slice, and says why. */
static void assert_left(struct liar *liar, const char *why)
{
    struct mc_error error = { 0 };

    assert_true(finish_slice(&liar->queue, NULL, &liar->posted) < 0);
    assert_true(poll_once(&liar->queue) < 0);
    transport_shm.queue_error(&liar->queue, &error);
    if (!strstr(error.text, why))
        fail_msg("\"%s\" does not say \"%s\"", error.text, why);
}

static void test_a_control_page_that_could_shrink_is_not_mapped(void **state)
{
    struct liar *liar = *state;
    struct wire_mapping mappings[2];
    struct shm_packet answer = honest(liar, mappings);
    const int loose = memfd_create("loose", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    assert_int_equal(ftruncate(loose, sizeof(struct shm_page)), 0);
    answer.fds[0] = loose;
    give(liar, &answer);
    assert_left(liar, "could shrink");
    close(loose);
}

static void test_a_file_smaller_than_its_mapping_is_not_mapped(void **state)
{
    struct liar *liar = *state;
    struct wire_mapping mappings[2];
    struct shm_packet answer = honest(liar, mappings);

    answer.fds[0] = liar->pins_fd;
    give(liar, &answer);
    assert_left(liar, "4096 bytes");
}

static void test_a_pipe_is_no_memory(void **state)
{
    struct liar *liar = *state;
    struct wire_mapping mappings[2];
    struct shm_packet answer = honest(liar, mappings);
    int pipes[2];

    assert_int_equal(pipe(pipes), 0);
    answer.fds[1] = pipes[0];
    give(liar, &answer);
    assert_left(liar, "could shrink");
    close(pipes[0]);
    close(pipes[1]);
}

static void test_an_answer_without_its_descriptors_is_refused(void **state)
{
    struct liar *liar = *state;
    struct wire_mapping mappings[2];
    struct shm_packet answer = honest(liar, mappings);

    answer.fd_count = 1;
    give(liar, &answer);
    assert_left(liar, "no control page");
}

static void test_more_descriptors_than_asked_for_are_an_error_and_do_not_stay(void **state)
{
    struct liar *liar = *state;
    struct wire_mapping mappings[2];
    struct shm_packet answer = honest(liar, mappings);
    const int before = dup(0);

    close(before);
    answer.fds[2] = answer.fds[3] = liar->page_fd;
    answer.fd_count = 4;
    give(liar, &answer);
    assert_int_equal(poll_once(&liar->queue), MC_OK); /* the two that belong there are enough */
    const int after = dup(0);
    close(after);
    assert_true(after <= before + 1); /* a pidfd at most */
}

static void test_another_layout_of_the_page_is_refused(void **state)
{
    struct liar *liar = *state;
    struct wire_mapping mappings[2];
    struct shm_packet answer = honest(liar, mappings);

    liar->page->header.version++;
    give(liar, &answer);
    assert_left(liar, "not a control page");
}

static void test_the_wrong_message_is_refused(void **state)
{
    struct liar *liar = *state;
    struct wire_mapping mappings[2];
    struct shm_packet answer = honest(liar, mappings);

    answer.kind = WIRE_OUTCOME;
    answer.fd_count = 0;
    answer.body.outcome = (struct wire_outcome){ .status = MC_OK };
    give(liar, &answer);
    assert_left(liar, "refused");
}

/* ------------------------------------------------------------------------- after the handshake */

static struct shm_packet connected(struct liar *liar, struct wire_mapping *mapping)
{
    struct wire_mapping mappings[2];
    struct shm_packet answer = honest(liar, mappings), ask;

    give(liar, &answer);
    poll_once(&liar->queue);
    assert_int_equal(liar->posted.status, MC_PENDING);
    assert_int_equal(shm_socket_receive(liar->fd, false, 0, &ask, NULL), MC_OK);
    *mapping = (struct wire_mapping){ .region = 1, .generation = 5, .size = 8192 };
    answer.greeting = 0;
    answer.fds[0] = liar->shared.fd;
    answer.fd_count = 1;
    answer.body.proof.mappings = (struct wire_list){ .items = mapping, .count = 1 };
    return answer;
}

static void test_an_honest_mapping_works(void **state)
{
    struct liar *liar = *state;
    struct wire_mapping mapping;
    struct shm_packet answer = connected(liar, &mapping);

    memset(liar->local, 0x42, sizeof(liar->local));
    give(liar, &answer);
    assert_int_equal(finish_slice(&liar->queue, NULL, &liar->posted), MC_OK);
    assert_memory_equal(liar->shared.address, liar->local, 8192);
}

static void test_a_mapping_shorter_than_the_page_says_bounds_what_is_touched(void **state)
{
    struct liar *liar = *state;
    struct wire_mapping mapping;
    struct shm_packet answer = connected(liar, &mapping);

    mapping.size = 8191;
    give(liar, &answer);
    assert_int_equal(finish_slice(&liar->queue, NULL, &liar->posted), MC_E_RANGE);
    liar->page->regions[1].size = UINT64_MAX;
    slice_init(&liar->posted, MC_WRITE, liar->local, &liar->place, UINT64_MAX - 10, 10);
    assert_int_equal(run_slice(&liar->queue, NULL, &liar->posted), MC_E_RANGE);
}

static void test_a_mapping_of_another_region_is_refused(void **state)
{
    struct liar *liar = *state;
    struct wire_mapping mapping;
    struct shm_packet answer = connected(liar, &mapping);

    mapping.region = 2;
    give(liar, &answer);
    assert_left(liar, "not asked for");
}

static void test_a_mapping_beyond_its_file_is_refused(void **state)
{
    struct liar *liar = *state;
    struct wire_mapping mapping;
    struct shm_packet answer = connected(liar, &mapping);

    mapping.offset = UINT64_MAX - 4095;
    give(liar, &answer);
    assert_left(liar, "bytes for");
}

/* The page says that its region became read-only after it was mapped so: nothing is written there. */
static void test_permissions_that_change_do_not_lead_to_a_fault(void **state)
{
    struct liar *liar = *state;
    struct wire_mapping mapping;
    struct shm_packet answer = connected(liar, &mapping);

    liar->page->regions[1].permissions = MC_REMOTE_READ;
    give(liar, &answer);
    assert_int_equal(finish_slice(&liar->queue, NULL, &liar->posted), MC_E_DENIED);
    liar->page->regions[1].permissions = MC_REMOTE_READ | MC_REMOTE_WRITE;
    slice_init(&liar->posted, MC_WRITE, liar->local, &liar->place, 0, 10);
    assert_int_equal(run_slice(&liar->queue, NULL, &liar->posted), MC_E_DENIED);
}

static void test_an_owner_that_hangs_up_is_noticed_in_every_phase(void **state)
{
    struct liar *liar = *state;
    struct wire_mapping mapping;

    connected(liar, &mapping);
    shm_close(&liar->fd);
    assert_int_equal(finish_slice(&liar->queue, NULL, &liar->posted), MC_E_PEER);
}

static void test_an_owner_that_hangs_up_before_it_answered_is_noticed(void **state)
{
    struct liar *liar = *state;

    shm_close(&liar->fd);
    assert_left(liar, "hung up");
}

/* An address that the page invents is read by the kernel for us, and refused by it. */
static void test_an_address_that_is_not_there_is_an_error(void **state)
{
    struct liar *liar = *state;
    struct wire_mapping mapping;
    struct shm_packet answer = connected(liar, &mapping);

    give(liar, &answer);
    assert_int_equal(finish_slice(&liar->queue, NULL, &liar->posted), MC_OK);
    liar->queue.attach = true;
    liar->page->regions[1].flags = 0;
    liar->page->regions[1].address = 4096;
    slice_init(&liar->posted, MC_WRITE, liar->local, &liar->place, 0, 10);
    assert_int_equal(run_slice(&liar->queue, NULL, &liar->posted), MC_E_IO);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_a_control_page_that_could_shrink_is_not_mapped),
        TEST(test_a_file_smaller_than_its_mapping_is_not_mapped),
        TEST(test_a_pipe_is_no_memory),
        TEST(test_an_answer_without_its_descriptors_is_refused),
        TEST(test_more_descriptors_than_asked_for_are_an_error_and_do_not_stay),
        TEST(test_another_layout_of_the_page_is_refused),
        TEST(test_the_wrong_message_is_refused),
        TEST(test_an_honest_mapping_works),
        TEST(test_a_mapping_shorter_than_the_page_says_bounds_what_is_touched),
        TEST(test_a_mapping_of_another_region_is_refused),
        TEST(test_a_mapping_beyond_its_file_is_refused),
        TEST(test_permissions_that_change_do_not_lead_to_a_fault),
        TEST(test_an_owner_that_hangs_up_is_noticed_in_every_phase),
        TEST(test_an_owner_that_hangs_up_before_it_answered_is_noticed),
        TEST(test_an_address_that_is_not_there_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
