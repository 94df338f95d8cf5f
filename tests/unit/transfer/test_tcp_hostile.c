/* test_tcp_hostile.c - the TCP transport against peers that say what they should not. */
#define _GNU_SOURCE
#include "transport_pair.h"

#include <sys/socket.h>
#include <unistd.h>

#include "base/crc.h"
#include "transfer/transport/tcp.h"
#include "transfer/transport/tcp_conn.h"
#include "wire/bytes.h"

enum { SPACE = 1 << 20 };

/* A peer made of a connection alone: it keeps the last frame's head and counts frames. */
struct raw {
    struct tcp_conn conn; /* first */
    uint32_t frames, kind;
    uint64_t id, payload;
    mc_status done; /* of a data_done */
};

static bool raw_ready(struct tcp_conn *conn)
{
    (void)conn;
    return true;
}

static mc_status raw_frame(struct tcp_conn *conn, const struct wire_frame *frame,
                           struct mc_error *error)
{
    struct raw *raw = (struct raw *)(void *)conn;
    struct wire_data_done done;

    raw->frames++;
    raw->kind = frame->kind;
    raw->id = frame->id;
    raw->payload = frame->payload;
    if (frame->kind == WIRE_DATA_DONE) {
        assert_int_equal(wire_decode(frame->kind, frame->body, frame->body_size, &done, error),
                         MC_OK);
        raw->done = done.status;
    }
    return MC_OK;
}

static void *raw_target(struct tcp_conn *conn, uint64_t *size_p)
{
    (void)conn, (void)size_p;
    return NULL;
}

static void raw_arrived(struct tcp_conn *conn, const void *bytes, uint64_t size)
{
    (void)conn, (void)bytes, (void)size;
}

static void raw_unwritable(struct tcp_conn *conn)
{
    (void)conn;
}

static const struct tcp_side raw_side = { raw_ready, raw_frame, raw_target, raw_arrived,
                                          raw_unwritable };

struct fixture {
    struct pair pair;
    uint8_t *remote, *local;
    struct raw raw;
    int listener; /* of a hostile server */
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->remote = calloc(1, SPACE);
    f->local = calloc(1, SPACE);
    f->raw.conn.fd = f->listener = -1;
    pair_init(&f->pair, &transport_tcp, f->remote, SPACE);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    tcp_conn_close(&f->raw.conn);
    if (f->listener >= 0)
        close(f->listener);
    pair_close(&f->pair);
    free(f->local);
    free(f->remote);
    free(f);
    return 0;
}

static const struct wire_self raw_self = {
    .incarnation = 77, .features = WIRE_FEATURE_CHECKSUM, .role = 6, .name = "raw"
};

/** Frame `message` and send it whole; sums are right. */
static void raw_say(struct raw *raw, enum wire_kind kind, const void *message, uint64_t id,
                    uint32_t flags, const void *payload, uint64_t payload_size)
{
    uint8_t bytes[4096];
    size_t size;

    assert_int_equal(wire_encode(kind, message, bytes + WIRE_HEADER_BYTES,
                                 sizeof(bytes) - WIRE_HEADER_BYTES, &size),
                     MC_OK);
    wire_header_encode(&(struct wire_frame){ .kind = kind,
                                             .flags = flags,
                                             .id = id,
                                             .payload = payload_size,
                                             .body = bytes + WIRE_HEADER_BYTES,
                                             .body_size = (uint32_t)size },
                       bytes);
    assert_true(send(raw->conn.fd, bytes, WIRE_HEADER_BYTES + size, MSG_NOSIGNAL) > 0);
    if (payload)
        assert_true(send(raw->conn.fd, payload, payload_size, MSG_NOSIGNAL) ==
                    (ssize_t)payload_size);
}

/** Connect as a client and greet. */
static void raw_connect(struct fixture *f)
{
    struct os_address address;
    struct mc_error error = { 0 };
    char text[OS_ADDRESS_TEXT] = { 0 };
    mc_status status;
    bool unsent;
    int fd;

    memcpy(text, f->pair.address, f->pair.address_size);
    assert_int_equal(os_address_parse(text, &address, &error), MC_OK);
    assert_int_equal(os_tcp_dial(&address, &fd, &error), MC_OK);
    while (os_tcp_dialled(fd, &address, &error) == MC_PENDING)
        ;
    memset(&f->raw, 0, sizeof(f->raw));
    assert_int_equal(tcp_conn_init(&f->raw.conn, fd, &raw_side, &raw_self, true, &error), MC_OK);
    while ((status = tcp_conn_greet(&f->raw.conn, &unsent, &error)) == MC_PENDING)
        pair_serve(&f->pair);
    assert_int_equal(status, MC_OK);
}

static void start_server(struct fixture *f)
{
    struct mc_error error = { 0 };

    assert_int_equal(pair_open(&f->pair, &error), MC_OK);
    raw_connect(f);
}

/** Turn until `frames` came or the server ended the connection; returns how that was. */
static mc_status raw_wait(struct fixture *f, uint32_t frames)
{
    struct mc_error error = { 0 };
    mc_status status = MC_OK;

    for (int i = 0; i < 100000 && status == MC_OK && f->raw.frames < frames; i++) {
        pair_serve(&f->pair);
        status = tcp_conn_read(&f->raw.conn, &error);
    }
    assert_true(status != MC_OK || f->raw.frames >= frames);
    return status;
}

static struct wire_data_write a_write(uint64_t length, uint32_t *sums, uint32_t count)
{
    return (struct wire_data_write){ .generation = PAIR_GENERATION,
                                     .length = length,
                                     .region = PAIR_REGION,
                                     .checksums = { .data = sums, .count = count } };
}

static void test_a_write_whose_sum_is_wrong_is_corrupt(void **state)
{
    struct fixture *f = *state;
    uint32_t sums[16];

    start_server(f);
    memset(f->local, 3, SPACE);
    for (uint32_t i = 0; i < 16; i++)
        sums[i] = crc32c(0, f->local, 65536);
    for (uint32_t wrong = 0; wrong <= 16; wrong++) {
        struct wire_data_write write = a_write(SPACE, sums, 16);

        if (wrong < 16)
            sums[wrong] ^= 1;
        raw_say(&f->raw, WIRE_DATA_WRITE, &write, wrong + 1, 0, NULL, SPACE);
        for (uint64_t at = 0; at < SPACE;) {
            const ssize_t sent = send(f->raw.conn.fd, f->local + at, SPACE - at, MSG_DONTWAIT);

            at += sent > 0 ? (uint64_t)sent : 0;
            pair_serve(&f->pair);
        }
        assert_int_equal(raw_wait(f, wrong + 1), MC_OK);
        assert_true(f->raw.id == wrong + 1);
        assert_int_equal(f->raw.done, wrong < 16 ? MC_E_CORRUPT : MC_OK);
        if (wrong < 16)
            sums[wrong] ^= 1;
    }
}

static void test_pieces_in_one_message_are_refused_and_the_connection_lives(void **state)
{
    struct fixture *f = *state;
    struct wire_data_write write = a_write(8, NULL, 0);
    struct wire_data_read read = {
        .generation = PAIR_GENERATION, .length = 8, .region = PAIR_REGION, .count = 3, .stride = 16
    };

    start_server(f);
    write.count = 2;
    raw_say(&f->raw, WIRE_DATA_WRITE, &write, 1, 0, "0123456789abcdef", 16);
    assert_int_equal(raw_wait(f, 1), MC_OK);
    assert_int_equal(f->raw.done, MC_E_UNSUPPORTED);
    raw_say(&f->raw, WIRE_DATA_READ, &read, 2, 0, NULL, 0);
    assert_int_equal(raw_wait(f, 2), MC_OK);
    assert_int_equal(f->raw.done, MC_E_UNSUPPORTED);
    read.count = 0;
    read.length = (1 << 20) + 1;
    raw_say(&f->raw, WIRE_DATA_READ, &read, 3, 0, NULL, 0);
    assert_int_equal(raw_wait(f, 3), MC_OK);
    assert_int_equal(f->raw.done, MC_E_RANGE);
    for (size_t i = 0; i < SPACE; i++)
        assert_int_equal(f->remote[i], 0);
}

/** Each of these ends the connection, and it alone. */
static void test_what_breaks_the_protocol_ends_the_connection(void **state)
{
    struct fixture *f = *state;
    struct wire_data_read read = { .generation = PAIR_GENERATION, .length = 8, .region = 7 };
    struct wire_ping ping = { .mark = 1 };
    uint32_t sums[2] = { 0, 0 };
    struct mc_error error;

    assert_int_equal(pair_open(&f->pair, &error), MC_OK);
    for (int how = 0; how < 9; how++) {
        struct wire_data_write write = a_write(8, sums, 0);

        raw_connect(f);
        switch (how) {
        case 0: /* length and payload differ */
            raw_say(&f->raw, WIRE_DATA_WRITE, &write, 1, 0, "0123456", 7);
            break;
        case 1: /* two sums for 8 bytes */
            write.checksums.count = 2;
            raw_say(&f->raw, WIRE_DATA_WRITE, &write, 1, 0, "01234567", 8);
            break;
        case 2: /* an answer to nothing */
            raw_say(&f->raw, WIRE_DATA_WRITE, &write, 1, WIRE_ANSWER, "01234567", 8);
            break;
        case 3: /* a statement where there are only questions */
            raw_say(&f->raw, WIRE_DATA_WRITE, &write, 0, 0, "01234567", 8);
            break;
        case 4:
            raw_say(&f->raw, WIRE_DATA_READ, &read, 1, 0, "01234567", 8);
            break;
        case 5:
            raw_say(&f->raw, WIRE_PING, &ping, 1, 0, NULL, 0);
            break;
        case 6: /* more payload than a message may have */
            write.length = SPACE + 1;
            raw_say(&f->raw, WIRE_DATA_WRITE, &write, 1, 0, NULL, SPACE + 1);
            break;
        case 7:
            assert_int_equal(send(f->raw.conn.fd, f->local, 100, MSG_NOSIGNAL), 100);
            break;
        default: /* half a payload, then the end */
            raw_say(&f->raw, WIRE_DATA_WRITE, &write, 1, 0, NULL, 8);
            assert_int_equal(send(f->raw.conn.fd, "0123", 4, MSG_NOSIGNAL), 4);
            pair_serve(&f->pair);
            assert_int_equal(shutdown(f->raw.conn.fd, SHUT_WR), 0);
        }
        assert_int_equal(raw_wait(f, 1), MC_E_PEER);
        tcp_conn_close(&f->raw.conn);
    }
    /* Others never noticed. */
    assert_int_equal(pair_connect_to(&f->pair, PAIR_SERVER, &error), MC_OK);
    struct transport_slice *slice = pair_slice(&f->pair, MC_WRITE, f->local, 0, 64, 1);
    assert_int_equal(pair_move(&f->pair, slice), MC_OK);
    free(slice);
}

/* Reads of 64 KiB asked for as fast as the socket takes them, no answer taken. */
static void test_one_who_asks_and_does_not_listen_holds_up_nobody(void **state)
{
    struct fixture *f = *state;
    struct wire_data_read read = { .generation = PAIR_GENERATION, .length = 65536, .region = 7 };
    struct mc_error error;
    uint8_t frame[WIRE_HEADER_BYTES + 256];
    uint32_t asked = 0, refused = 0;
    size_t size;

    start_server(f);
    assert_int_equal(wire_encode(WIRE_DATA_READ, &read, frame + WIRE_HEADER_BYTES, 256, &size),
                     MC_OK);
    while (refused < 100) {
        wire_header_encode(&(struct wire_frame){ .kind = WIRE_DATA_READ,
                                                 .id = asked + 1,
                                                 .body = frame + WIRE_HEADER_BYTES,
                                                 .body_size = (uint32_t)size },
                           frame);
        const ssize_t sent =
            send(f->raw.conn.fd, frame, WIRE_HEADER_BYTES + size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0)
            refused++;
        else if (sent == (ssize_t)(WIRE_HEADER_BYTES + size))
            asked++;
        else /* the rest of this one must follow: give up asking */
            refused = 100;
        pair_serve(&f->pair);
    }
    assert_true(asked > 100);
    assert_int_equal(pair_connect_to(&f->pair, PAIR_SERVER, &error), MC_OK);
    struct transport_slice *slice = pair_slice(&f->pair, MC_READ, f->local, 0, 4096, 0);
    for (int i = 0; i < 10; i++)
        assert_int_equal(pair_move(&f->pair, slice), MC_OK);
    free(slice);
    /* Once it listens, it gets what it asked for: two answers for each, the second with the verdict. */
    assert_int_equal(raw_wait(f, 2 * asked), MC_OK);
    assert_int_equal(f->raw.done, MC_OK);
}

/* ------------------------------------------------------------------------------- hostile servers */

/** The queue's peer is the test itself, on a socket of its own. */
static void start_hostile(struct fixture *f)
{
    struct os_address any, bound, peer;
    struct mc_error error = { 0 };
    char text[OS_ADDRESS_TEXT];
    mc_status status = MC_PENDING;
    struct transport_completion completion;
    uint32_t got;
    bool unsent;
    int fd = -1;

    assert_int_equal(os_address_parse("127.0.0.1:0", &any, &error), MC_OK);
    assert_int_equal(os_tcp_listen(&any, &f->listener, &bound, &error), MC_OK);
    assert_int_equal(pair_open(&f->pair, &error), MC_OK);
    os_address_format(&bound, text);
    f->pair.address_size = strlen(text);
    memcpy(f->pair.address, text, f->pair.address_size);
    assert_int_equal(pair_connect_to(&f->pair, raw_self.incarnation, &error), MC_OK);
    while (os_tcp_accept(f->listener, &fd, &peer) == MC_PENDING)
        ;
    memset(&f->raw, 0, sizeof(f->raw));
    assert_int_equal(tcp_conn_init(&f->raw.conn, fd, &raw_side, &raw_self, false, &error), MC_OK);
    while (status == MC_PENDING) {
        status = tcp_conn_greet(&f->raw.conn, &unsent, &error);
        assert_int_equal(f->pair.ops->poll(f->pair.queue, os_now_ns(), &completion, 1, &got),
                         MC_OK);
    }
    assert_int_equal(status, MC_OK);
}

static void stop_hostile(struct fixture *f)
{
    pair_disconnect(&f->pair);
    tcp_conn_close(&f->raw.conn);
    close(f->listener);
    f->listener = -1;
    f->pair.ops->close(f->pair.client);
    f->pair.ops->close(f->pair.server);
    memset(f->pair.client, 0, f->pair.ops->transport_bytes);
    memset(f->pair.server, 0, f->pair.ops->transport_bytes);
}

/** Post, wait until the question is here, answer as told, and see how the slice ends. */
static mc_status answered(struct fixture *f, enum mc_op op, uint64_t length, uint32_t flags,
                          const struct wire_data_done *done, uint64_t id_more, uint64_t payload)
{
    struct transport_slice *slice = pair_slice(&f->pair, op, f->local, 0, length, flags);
    struct transport_completion completion = { .status = MC_PENDING };
    struct mc_error error;
    uint32_t posted, got = 0;
    static const uint8_t zeros[8192];

    start_hostile(f);
    assert_int_equal(f->pair.ops->post(f->pair.queue, &slice, 1, &posted), MC_OK);
    while (f->raw.frames == 0)
        assert_int_equal(tcp_conn_read(&f->raw.conn, &error), MC_OK);
    raw_say(&f->raw, WIRE_DATA_DONE, done, f->raw.id + id_more, WIRE_ANSWER, payload ? zeros : NULL,
            payload);
    while (got == 0)
        assert_int_equal(f->pair.ops->poll(f->pair.queue, os_now_ns(), &completion, 1, &got),
                         MC_OK);
    stop_hostile(f);
    free(slice);
    return completion.status;
}

static void test_answers_that_cannot_be_end_the_queue(void **state)
{
    struct fixture *f = *state;
    const struct wire_data_done ok = { .status = MC_OK }, more = { .status = MC_OK, .more = true },
                                no = { .status = MC_E_STALE };

    assert_int_equal(answered(f, MC_WRITE, 8, 0, &ok, 0, 0), MC_OK);
    assert_int_equal(answered(f, MC_READ, 8, 0, &ok, 0, 8), MC_OK);
    assert_int_equal(answered(f, MC_READ, 8, 0, &no, 0, 0), MC_E_STALE);
    assert_int_equal(answered(f, MC_WRITE, 8, 0, &ok, 1, 0), MC_E_IO);   /* never asked */
    assert_int_equal(answered(f, MC_WRITE, 8, 0, &ok, 0, 8), MC_E_IO);   /* payload for a write */
    assert_int_equal(answered(f, MC_READ, 8, 0, &ok, 0, 7), MC_E_IO);    /* too little */
    assert_int_equal(answered(f, MC_READ, 8, 0, &ok, 0, 9), MC_E_IO);    /* too much */
    assert_int_equal(answered(f, MC_READ, 8, 0, &ok, 0, 0), MC_E_IO);    /* none */
    assert_int_equal(answered(f, MC_READ, 8, 0, &no, 0, 8), MC_E_IO);    /* an error with payload */
    assert_int_equal(answered(f, MC_WRITE, 8, 0, &more, 0, 0), MC_E_IO); /* more of nothing */
    assert_int_equal(answered(f, MC_READ, 8, 1, &ok, 0, 8), MC_E_IO);    /* no sum */
}

static void test_a_read_whose_sum_is_wrong_is_corrupt(void **state)
{
    struct fixture *f = *state;
    uint8_t zeros[8] = { 0 };
    uint32_t sum = crc32c(0, zeros, 8);
    struct wire_data_done done = { .status = MC_OK, .checksums = { .data = &sum, .count = 1 } };

    assert_int_equal(answered(f, MC_READ, 8, 1, &done, 0, 8), MC_OK);
    sum ^= 0x80000000u;
    assert_int_equal(answered(f, MC_READ, 8, 1, &done, 0, 8), MC_E_CORRUPT);
}

static void test_a_status_that_no_slice_may_have_is_io(void **state)
{
    struct fixture *f = *state;
    const struct wire_data_done odd = { .status = MC_E_BUSY };

    assert_int_equal(answered(f, MC_WRITE, 8, 0, &odd, 0, 0), MC_E_IO);
}

/* Free slots have no id, and 0 is the id of none. */
static void test_an_answer_to_question_0_ends_the_queue(void **state)
{
    struct fixture *f = *state;
    const struct wire_data_done ok = { .status = MC_OK };
    struct transport_slice *slice = pair_slice(&f->pair, MC_WRITE, f->local, 0, 8, 0);
    struct transport_completion completion = { .status = MC_PENDING };
    struct mc_error error;
    uint32_t posted, got = 0;

    start_hostile(f);
    assert_int_equal(f->pair.ops->post(f->pair.queue, &slice, 1, &posted), MC_OK);
    while (f->raw.frames == 0)
        assert_int_equal(tcp_conn_read(&f->raw.conn, &error), MC_OK);
    raw_say(&f->raw, WIRE_DATA_DONE, &ok, f->raw.id, WIRE_ANSWER, NULL, 0);
    raw_say(&f->raw, WIRE_DATA_DONE, &ok, 0, WIRE_ANSWER, NULL, 0);
    mc_status status = MC_OK;
    while (status == MC_OK) {
        status = f->pair.ops->poll(f->pair.queue, os_now_ns(), &completion, 1, &got);
        assert_true(got == 0 || completion.status == MC_OK);
    }
    assert_int_equal(status, MC_E_IO);
    stop_hostile(f);
    free(slice);
}

/** Poll until `count` slices have ended; how the last one did. */
static mc_status ended(struct fixture *f, uint32_t count)
{
    struct transport_completion completion = { .status = MC_PENDING };

    while (count > 0) {
        uint32_t got;
        assert_int_equal(f->pair.ops->poll(f->pair.queue, os_now_ns(), &completion, 1, &got),
                         MC_OK);
        count -= got;
    }
    return completion.status;
}

/* The engine posts again what it called back and still wants: what was sent before must not land later. */
static void test_nothing_overtakes_a_write_that_was_let_go(void **state)
{
    struct fixture *f = *state;
    const struct wire_data_done ok = { .status = MC_OK };
    struct transport_slice *slice = pair_slice(&f->pair, MC_WRITE, f->local, 0, 8, 0);
    struct transport_completion completion;
    struct mc_error error;
    uint32_t posted, got;

    start_hostile(f);
    assert_int_equal(f->pair.ops->post(f->pair.queue, &slice, 1, &posted), MC_OK);
    while (f->raw.frames == 0)
        assert_int_equal(tcp_conn_read(&f->raw.conn, &error), MC_OK);
    const uint64_t first = f->raw.id;
    f->pair.ops->cancel(f->pair.queue, MC_E_CANCELLED);
    assert_int_equal(ended(f, 1), MC_E_CANCELLED);
    assert_int_equal(f->pair.ops->post(f->pair.queue, &slice, 1, &posted), MC_OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(f->pair.ops->poll(f->pair.queue, os_now_ns(), &completion, 1, &got),
                         MC_OK);
        assert_int_equal(tcp_conn_read(&f->raw.conn, &error), MC_OK);
        assert_int_equal(f->raw.frames, 1);
    }
    raw_say(&f->raw, WIRE_DATA_DONE, &ok, first, WIRE_ANSWER, NULL, 0);
    while (f->raw.frames == 1) {
        assert_int_equal(f->pair.ops->poll(f->pair.queue, os_now_ns(), &completion, 1, &got),
                         MC_OK);
        assert_int_equal(tcp_conn_read(&f->raw.conn, &error), MC_OK);
    }
    raw_say(&f->raw, WIRE_DATA_DONE, &ok, f->raw.id, WIRE_ANSWER, NULL, 0);
    assert_int_equal(ended(f, 1), MC_OK);
    stop_hostile(f);
    free(slice);
}

/* The same, where a socket must be given up because half a request is on it. */
static void test_a_new_socket_waits_until_the_peer_is_through_with_the_old_one(void **state)
{
    struct fixture *f = *state;
    enum { COUNT = 64 }; /* more than sockets hold */
    struct transport_slice *slices[COUNT];
    struct transport_completion completion;
    struct os_address peer;
    struct mc_error error;
    uint32_t posted, got;
    int fd = -1;

    start_hostile(f);
    for (uint32_t i = 0; i < COUNT; i++)
        slices[i] = pair_slice(&f->pair, MC_WRITE, f->local, 0, SPACE, 0);
    for (uint32_t i = 0; i < COUNT; i++)
        assert_int_equal(f->pair.ops->post(f->pair.queue, slices + i, 1, &posted), MC_OK);
    while (os_tcp_accept(f->listener, &fd, &peer) == MC_OK)
        close(fd); /* the other streams; the queue does without */
    f->pair.ops->cancel(f->pair.queue, MC_E_CANCELLED);
    (void)ended(f, COUNT);
    assert_int_equal(f->pair.ops->post(f->pair.queue, slices, 1, &posted), MC_OK);
    for (int i = 0; i < 3; i++)
        assert_int_equal(f->pair.ops->poll(f->pair.queue, os_now_ns(), &completion, 1, &got),
                         MC_OK);
    assert_int_equal(os_tcp_accept(f->listener, &fd, &peer), MC_PENDING);
    while (tcp_conn_read(&f->raw.conn, &error) == MC_OK)
        ;
    tcp_conn_close(&f->raw.conn);
    while (os_tcp_accept(f->listener, &fd, &peer) == MC_PENDING)
        assert_int_equal(f->pair.ops->poll(f->pair.queue, os_now_ns(), &completion, 1, &got),
                         MC_OK);
    close(fd);
    stop_hostile(f);
    for (uint32_t i = 0; i < COUNT; i++)
        free(slices[i]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_write_whose_sum_is_wrong_is_corrupt),
        TEST(test_pieces_in_one_message_are_refused_and_the_connection_lives),
        TEST(test_what_breaks_the_protocol_ends_the_connection),
        TEST(test_one_who_asks_and_does_not_listen_holds_up_nobody),
        TEST(test_answers_that_cannot_be_end_the_queue),
        TEST(test_a_read_whose_sum_is_wrong_is_corrupt),
        TEST(test_a_status_that_no_slice_may_have_is_io),
        TEST(test_an_answer_to_question_0_ends_the_queue),
        TEST(test_nothing_overtakes_a_write_that_was_let_go),
        TEST(test_a_new_socket_waits_until_the_peer_is_through_with_the_old_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
