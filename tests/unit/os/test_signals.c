/* test_signals.c - signals come as events of the loop, and the mask comes back. */
#define _GNU_SOURCE
#include "test.h"

#include "os/clock.h"
#include "os/signals.h"
#include "os/sysalloc.h"

#include <sys/wait.h>
#include <unistd.h>

struct heard {
    int counts[65];
    struct os_signals signals;
    bool close;
};

static void came(void *user, int signal)
{
    struct heard *heard = user;

    heard->counts[signal]++;
    if (heard->close)
        os_signals_close(&heard->signals);
}

static os_loop *open_heard(struct heard *heard)
{
    os_loop *loop = NULL;

    *heard = (struct heard){ .signals = { .came = came, .user = heard } };
    assert_int_equal(os_loop_open(os_alloc(), &loop, NULL), MC_OK);
    assert_int_equal(
        os_signals_open(&heard->signals, loop, (const int[]){ SIGTERM, SIGHUP, SIGCHLD, 0 }, NULL),
        MC_OK);
    return loop;
}

static bool blocked(int signal)
{
    sigset_t mask;

    sigprocmask(SIG_SETMASK, NULL, &mask);
    return sigismember(&mask, signal);
}

static void turn(os_loop *loop)
{
    assert_int_equal(os_loop_turn(loop, os_now_ns() + UINT64_C(10000000000)), MC_OK);
}

static void test_signals_come_in_the_loop(void **state)
{
    (void)state;
    struct heard heard;
    os_loop *loop = open_heard(&heard);

    assert_true(blocked(SIGTERM));
    raise(SIGTERM);
    raise(SIGHUP);
    assert_int_equal(heard.counts[SIGTERM], 0);
    turn(loop);
    assert_int_equal(heard.counts[SIGTERM], 1);
    assert_int_equal(heard.counts[SIGHUP], 1);
    raise(SIGTERM);
    turn(loop);
    assert_int_equal(heard.counts[SIGTERM], 2);
    os_signals_close(&heard.signals);
    assert_false(blocked(SIGTERM));
    os_signals_close(&heard.signals);
    os_loop_close(loop);
}

static void test_a_child_that_ends_is_told_and_starts_with_nothing_blocked(void **state)
{
    (void)state;
    struct heard heard;
    os_loop *loop = open_heard(&heard);
    int status;

    const pid_t child = fork();
    if (child == 0) {
        const bool inherited = blocked(SIGTERM);
        os_signals_release();
        _exit(inherited && !blocked(SIGTERM) ? 7 : 1);
    }
    assert_true(child > 0);
    turn(loop);
    assert_int_equal(heard.counts[SIGCHLD], 1);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(WEXITSTATUS(status), 7);
    os_signals_close(&heard.signals);
    os_loop_close(loop);
}

static void test_a_callback_may_close(void **state)
{
    (void)state;
    struct heard heard;
    os_loop *loop = open_heard(&heard);

    heard.close = true;
    raise(SIGHUP);
    turn(loop);
    assert_int_equal(heard.counts[SIGHUP], 1);
    assert_false(blocked(SIGHUP));
    os_loop_close(loop);
}

static void test_what_cannot_be_waited_for_is_refused(void **state)
{
    (void)state;
    struct os_signals signals = { .came = came };
    struct mc_error error = { 0 };
    os_loop *loop = NULL;

    assert_int_equal(os_loop_open(os_alloc(), &loop, NULL), MC_OK);
    assert_int_equal(os_signals_open(&signals, loop, (const int[]){ SIGKILL, 0 }, &error),
                     MC_E_ARG);
    assert_int_equal(os_signals_open(&signals, loop, (const int[]){ SIGTERM, 9999, 0 }, &error),
                     MC_E_ARG);
    assert_non_null(strstr(error.text, "9999"));
    assert_false(blocked(SIGTERM));
    os_signals_close(&signals);
    os_loop_close(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signals_come_in_the_loop),
        cmocka_unit_test(test_a_child_that_ends_is_told_and_starts_with_nothing_blocked),
        cmocka_unit_test(test_a_callback_may_close),
        cmocka_unit_test(test_what_cannot_be_waited_for_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
