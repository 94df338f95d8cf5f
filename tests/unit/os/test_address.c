/* test_address.c - addresses as text, and sockets on loopback. */
#define _GNU_SOURCE
#include "test.h"

#include "os/address.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static struct os_address parsed(const char *text)
{
    struct os_address address = { 0 };

    assert_int_equal(os_address_parse(text, &address, NULL), MC_OK);
    return address;
}

static void test_what_is_parsed_formats_back(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } cases[] = {
        { "1.2.3.4:80", "1.2.3.4:80" },         { "localhost:1", "127.0.0.1:1" },
        { "0.0.0.0:0", "0.0.0.0:0" },           { "[::1]:65535", "[::1]:65535" },
        { "[::]:8000", "[::]:8000" },           { "[2001:db8::1]:5", "[2001:db8::1]:5" },
        { "1.2.3.4:00080", "1.2.3.4:80" },      { "[::ffff:1.2.3.4]:9", "[::ffff:1.2.3.4]:9" },
        { "[fe80::1%lo]:7", "[fe80::1%lo]:7" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[OS_ADDRESS_TEXT];
        const struct os_address address = parsed(cases[i].in);
        assert_string_equal(os_address_format(&address, text), cases[i].out);
    }
}

static void test_what_is_no_address_is_refused_by_name(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        ":",
        "1.2.3.4",
        "1.2.3.4:",
        ":80",
        "1.2.3.4:65536",
        "1.2.3.4:999999",
        "1.2.3.4:-1",
        "1.2.3.4:8x",
        "::1:80",
        "[::1]",
        "[::1]80",
        "[::1:80",
        "[]:80",
        "[x]:80",
        "[1.2.3.4]:80",
        "1.2:80",
        "1.2.3.4.5:80",
        "300.1.1.1:80",
        "80:80",
        "[fe80::1%nosuch0]:7",
        "[:80",
        "]:80",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct os_address address = { .size = 99 };
        struct mc_error error = { 0 };
        assert_int_equal(os_address_parse(bad[i], &address, &error), MC_E_ARG);
        assert_int_equal(address.size, 99);
        assert_ptr_equal(strstr(error.text, bad[i]), error.text);
    }
}

static void test_a_host_longer_than_any_is_refused(void **state)
{
    (void)state;
    char text[400];
    struct os_address address;

    memset(text, 'a', sizeof(text));
    memcpy(text + 300, ":80", 4);
    assert_int_equal(os_address_parse(text, &address, NULL), MC_E_ARG);
}

static void test_loopback_is_told_from_the_rest(void **state)
{
    (void)state;
    static const char *const near[] = { "127.0.0.1:1", "127.255.0.9:1", "[::1]:1", "localhost:0",
                                        "[::ffff:127.0.0.1]:1" };
    static const char *const far[] = { "0.0.0.0:1", "128.0.0.1:1",         "[::]:1",
                                       "[::2]:1",   "[::ffff:10.0.0.1]:1", "10.127.0.1:1" };
    for (size_t i = 0; i < sizeof(near) / sizeof(near[0]); i++) {
        const struct os_address address = parsed(near[i]);
        assert_true(os_address_is_loopback(&address));
    }
    for (size_t i = 0; i < sizeof(far) / sizeof(far[0]); i++) {
        const struct os_address address = parsed(far[i]);
        assert_false(os_address_is_loopback(&address));
    }
    const struct os_address none = { 0 };
    char text[OS_ADDRESS_TEXT];
    assert_false(os_address_is_loopback(&none));
    assert_string_equal(os_address_format(&none, text), "?");
}

static void test_equal_means_host_and_port(void **state)
{
    (void)state;
    struct os_address a = parsed("10.0.0.1:5"), b = parsed("10.0.0.1:6"), c = parsed("[::1]:5");

    assert_false(os_address_equal(&a, &b));
    assert_false(os_address_equal(&a, &c));
    os_address_port_set(&b, 5);
    assert_int_equal(os_address_port(&b), 5);
    assert_true(os_address_equal(&a, &b));
    os_address_port_set(&c, 6);
    assert_int_equal(os_address_port(&c), 6);
}

static void wait_for(int fd, short events)
{
    struct pollfd p = { .fd = fd, .events = events };

    assert_int_equal(poll(&p, 1, 10000), 1);
}

static void test_who_dials_reaches_who_listens(void **state)
{
    (void)state;
    const struct os_address any = parsed("127.0.0.1:0");
    struct os_address bound, peer, self = { 0 };
    int listener, dialled, accepted = -1;
    char byte = 0;

    assert_int_equal(os_tcp_listen(&any, &listener, &bound, NULL), MC_OK);
    assert_int_not_equal(os_address_port(&bound), 0);
    assert_int_equal(os_tcp_accept(listener, &accepted, &peer), MC_PENDING);
    assert_int_equal(accepted, -1);

    assert_int_equal(os_tcp_dial(&bound, &dialled, NULL), MC_OK);
    wait_for(dialled, POLLOUT);
    assert_int_equal(os_tcp_dialled(dialled, &bound, NULL), MC_OK);
    wait_for(listener, POLLIN);
    assert_int_equal(os_tcp_accept(listener, &accepted, &peer), MC_OK);
    assert_true(os_address_is_loopback(&peer));
    assert_false(os_address_equal(&peer, &self));
    assert_true(fcntl(accepted, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(accepted, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(send(dialled, "x", 1, 0), 1);
    wait_for(accepted, POLLIN);
    assert_int_equal(recv(accepted, &byte, 1, 0), 1);
    assert_int_equal(byte, 'x');
    close(dialled);
    close(accepted);
    close(listener);
}

static void test_a_port_that_is_taken_says_so(void **state)
{
    (void)state;
    const struct os_address any = parsed("127.0.0.1:0");
    struct os_address bound;
    struct mc_error error = { 0 };
    char text[OS_ADDRESS_TEXT];
    int first, second = -1;

    assert_int_equal(os_tcp_listen(&any, &first, &bound, NULL), MC_OK);
    assert_int_equal(os_tcp_listen(&bound, &second, NULL, &error), MC_E_EXISTS);
    assert_int_equal(second, -1);
    assert_non_null(strstr(error.text, os_address_format(&bound, text)));
    close(first);
    assert_int_equal(os_tcp_listen(&bound, &second, NULL, NULL), MC_OK); /* free again */
    close(second);
}

static void test_an_address_that_is_not_here_cannot_be_listened_at(void **state)
{
    (void)state;
    const struct os_address far = parsed("192.0.2.1:0"); /* for documentation only: nobody's */
    int fd;

    assert_int_equal(os_tcp_listen(&far, &fd, NULL, NULL), MC_E_IO);
}

static void test_nobody_listening_is_a_peer_that_is_gone(void **state)
{
    (void)state;
    const struct os_address any = parsed("127.0.0.1:0");
    struct os_address bound;
    struct mc_error error = { 0 };
    char text[OS_ADDRESS_TEXT];
    int listener, fd;

    assert_int_equal(os_tcp_listen(&any, &listener, &bound, NULL), MC_OK);
    close(listener);
    mc_status status = os_tcp_dial(&bound, &fd, &error);
    if (status == MC_OK) {
        wait_for(fd, POLLOUT);
        status = os_tcp_dialled(fd, &bound, &error);
        close(fd);
    }
    assert_int_equal(status, MC_E_PEER);
    assert_non_null(strstr(error.text, os_address_format(&bound, text)));
}

static void test_a_socket_that_meets_itself_counts_as_refused(void **state)
{
    (void)state;
    struct os_address self = parsed("127.0.0.1:0");
    struct os_address bound;
    int listener;

    assert_int_equal(os_tcp_listen(&self, &listener, &bound, NULL), MC_OK);
    close(listener);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); /* bound to what it dials */
    assert_int_equal(bind(fd, (struct sockaddr *)bound.bytes, bound.size), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)bound.bytes, bound.size), 0);
    assert_int_equal(os_tcp_dialled(fd, &bound, NULL), MC_E_PEER);
    close(fd);
}

static void test_a_socket_that_is_not_dialled_is_pending(void **state)
{
    (void)state;
    const struct os_address to = parsed("127.0.0.1:9");
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(os_tcp_dialled(fd, &to, NULL), MC_PENDING);
    close(fd);
}

static void test_no_descriptor_left_is_full_and_who_waits_goes_on_waiting(void **state)
{
    (void)state;
    const struct os_address any = parsed("127.0.0.1:0");
    struct os_address bound;
    struct rlimit before, none;
    int listener, dialled, fd = -1;

    assert_int_equal(os_tcp_listen(&any, &listener, &bound, NULL), MC_OK);
    assert_int_equal(os_tcp_dial(&bound, &dialled, NULL), MC_OK);
    wait_for(listener, POLLIN);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){ .rlim_cur = 0, .rlim_max = before.rlim_max };
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    const mc_status accepted = os_tcp_accept(listener, &fd, NULL);
    const mc_status dial = os_tcp_dial(&bound, &fd, NULL);
    const mc_status listen_status = os_tcp_listen(&any, &fd, NULL, NULL);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(accepted, MC_E_FULL);
    assert_int_equal(dial, MC_E_FULL);
    assert_int_equal(listen_status, MC_E_FULL);
    assert_int_equal(os_tcp_accept(listener, &fd, NULL), MC_OK);
    close(fd);
    close(dialled);
    close(listener);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_parsed_formats_back),
        cmocka_unit_test(test_what_is_no_address_is_refused_by_name),
        cmocka_unit_test(test_a_host_longer_than_any_is_refused),
        cmocka_unit_test(test_loopback_is_told_from_the_rest),
        cmocka_unit_test(test_equal_means_host_and_port),
        cmocka_unit_test(test_who_dials_reaches_who_listens),
        cmocka_unit_test(test_a_port_that_is_taken_says_so),
        cmocka_unit_test(test_an_address_that_is_not_here_cannot_be_listened_at),
        cmocka_unit_test(test_nobody_listening_is_a_peer_that_is_gone),
        cmocka_unit_test(test_a_socket_that_meets_itself_counts_as_refused),
        cmocka_unit_test(test_a_socket_that_is_not_dialled_is_pending),
        cmocka_unit_test(test_no_descriptor_left_is_full_and_who_waits_goes_on_waiting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
