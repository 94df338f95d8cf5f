/* test_recorder.c - what the recorder writes can be read, also when the disk, or memory, says no. */
#include "test.h"

#include <stdio.h>
#include <sys/resource.h>
#include <signal.h>

#include "gateway/recorder.h"
#include "os/file.h"
#include "os/sysalloc.h"
#include "sched/record.h"

struct room {
    char directory[64], path[96];
    struct faulty faulty;
    char log[4096];
};

static void take_line(void *context, enum mc_log_level level, const char *line, size_t size)
{
    struct room *room = context;

    (void)level;
    strncat(room->log, line, size < 500 ? size : 500);
    strcat(room->log, "\n");
}

static void room_open(struct room *room)
{
    memset(room, 0, sizeof(*room));
    test_directory(room->directory);
    (void)snprintf(room->path, sizeof(room->path), "%s/rec", room->directory);
    faulty_init(&room->faulty, -1);
}

static mc_status open_with(struct room *room, size_t ring, recorder **recorder_p)
{
    static const struct mc_sched_options sched = { .policy = "random", .seed = 3 };
    const struct recorder_options o = {
        .alloc = &room->faulty.alloc,
        .log = { .write = take_line, .context = room, .level_max = MC_LOG_DEBUG },
        .path = room->path,
        .sched = &sched,
        .ring_bytes = ring
    };
    struct mc_error error = { 0 };

    return recorder_open(&o, recorder_p, &error);
}

static void take(recorder *r, uint64_t now_ns)
{
    const struct mc_key keys[4] = { { { 1 } } };
    const struct mc_sched_event event = {
        .kind = MC_EVENT_REQUEST,
        .request = { .id = now_ns, .tokens = 64, .keys = keys, .key_count = 4 }
    };
    const struct mc_decision decision = { .kind = MC_DECIDE_REFUSE, .request = now_ns };

    recorder_take(r, now_ns, &event, MC_OK);
    recorder_take_decision(r, &decision);
}

struct seen {
    uint64_t events, decisions;
    bool ended;
    struct record_last last;
};

static struct seen read_back(const struct room *room, const char *path)
{
    struct mc_error error = { 0 };
    struct record record;
    struct seen seen = { 0 };
    char *bytes;
    size_t size, at = 0;

    (void)room;
    assert_int_equal(os_file_read(path, 64 << 20, os_alloc(), &bytes, &size, &error), MC_OK);
    mc_status status;
    while ((status = record_next(bytes, size, &at, &record, &error)) == MC_OK) {
        seen.events += record.kind == RECORD_EVENT;
        seen.decisions += record.kind == RECORD_DECISION;
        seen.ended = record.kind == RECORD_END;
        if (seen.ended)
            assert_int_equal(record_end_read(&record, &seen.last, &error), MC_OK);
    }
    assert_true(status == MC_E_NOT_FOUND || status == MC_PENDING);
    os_alloc()->free(os_alloc()->context, bytes);
    return seen;
}

static void test_all_that_was_taken_is_in_the_file_with_an_end(void **state)
{
    struct room room;
    recorder *r;

    (void)state;
    room_open(&room);
    assert_int_equal(open_with(&room, 0, &r), MC_OK);
    for (uint64_t i = 1; i <= 1000; i++)
        take(r, i);
    assert_int_equal(recorder_counts(r).events, 1000);
    assert_true(recorder_counts(r).runs);
    recorder_close(r);
    const struct seen seen = read_back(&room, room.path);
    assert_int_equal(seen.events, 1000);
    assert_int_equal(seen.decisions, 1000);
    assert_true(seen.ended);
    assert_int_equal(seen.last.why, RECORD_CLOSED);
    assert_int_equal(seen.last.events, 1000);
    assert_int_equal(room.faulty.held, 0);
    test_remove(room.directory);
}

static void test_a_file_that_is_there_is_not_written_over(void **state)
{
    struct room room;
    char other[128];
    recorder *r;

    (void)state;
    room_open(&room);
    test_write(room.path, "precious", 8);
    assert_int_equal(open_with(&room, 0, &r), MC_OK);
    (void)snprintf(other, sizeof(other), "%s.1", room.path);
    assert_string_equal(recorder_path(r), other);
    take(r, 1);
    recorder_close(r);
    assert_int_equal(read_back(&room, other).events, 1);
    test_remove(room.directory);
}

static void test_a_directory_that_is_not_there_is_said_at_once(void **state)
{
    struct room room;
    recorder *r;

    (void)state;
    room_open(&room);
    (void)snprintf(room.path, sizeof(room.path), "%s/no/rec", room.directory);
    assert_int_equal(open_with(&room, 0, &r), MC_E_IO);
    assert_int_equal(room.faulty.held, 0);
    test_remove(room.directory);
}

/* A record larger than what is free stands for a disk that is behind: whole records stay, and an end. */
static void test_a_full_buffer_ends_the_recording_and_says_so(void **state)
{
    static const struct mc_key keys[1024];
    const struct mc_sched_event event = {
        .kind = MC_EVENT_REQUEST,
        .request = { .id = 9, .tokens = 99999, .keys = keys, .key_count = 1024 }
    };
    struct room room;
    recorder *r;

    (void)state;
    room_open(&room);
    assert_int_equal(open_with(&room, 4096, &r), MC_OK);
    take(r, 1);
    recorder_take(r, 2, &event, MC_OK); /* 16 KiB: never fits */
    assert_false(recorder_counts(r).runs);
    take(r, 3); /* nothing happens */
    assert_int_equal(recorder_counts(r).events, 1);
    recorder_close(r);
    assert_non_null(strstr(room.log, "event=recording_stopped"));
    assert_non_null(strstr(room.log, "the buffer is full"));
    const struct seen seen = read_back(&room, room.path);
    assert_int_equal(seen.events, 1);
    assert_true(seen.ended);
    assert_int_equal(seen.last.why, RECORD_TOO_SLOW);
    test_remove(room.directory);
}

/* A limit on the size of files stands for a full disk. */
static void test_a_full_disk_ends_the_recording_and_whole_records_stay(void **state)
{
    struct rlimit before, small;
    struct room room;
    recorder *r;

    (void)state;
    room_open(&room);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = (struct rlimit){ 8192, before.rlim_max };
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_int_equal(open_with(&room, 0, &r), MC_OK);
    for (uint64_t i = 1; i <= 2000; i++)
        take(r, i);
    recorder_close(r); /* says so at the latest here */
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_non_null(strstr(room.log, "event=recording_stopped"));
    assert_non_null(strstr(room.log, "cannot write"));
    const struct seen seen = read_back(&room, room.path);
    assert_true(seen.events > 10 && seen.events < 2000);
    assert_false(seen.ended);
    test_remove(room.directory);
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    (void)state;
    for (long k = 0;; k++) {
        struct room room;
        recorder *r = NULL;

        room_open(&room);
        faulty_init(&room.faulty, k);
        const mc_status status = open_with(&room, 0, &r);
        if (status == MC_OK)
            recorder_close(r);
        assert_int_equal(room.faulty.held, 0);
        test_remove(room.directory);
        if (status == MC_OK)
            return;
        assert_int_equal(status, MC_E_NOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_that_was_taken_is_in_the_file_with_an_end),
        cmocka_unit_test(test_a_file_that_is_there_is_not_written_over),
        cmocka_unit_test(test_a_directory_that_is_not_there_is_said_at_once),
        cmocka_unit_test(test_a_full_buffer_ends_the_recording_and_says_so),
        cmocka_unit_test(test_a_full_disk_ends_the_recording_and_whole_records_stay),
        cmocka_unit_test(test_every_failed_allocation_leaves_nothing_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
