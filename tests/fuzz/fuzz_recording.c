/* fuzz_recording.c - any bytes as a recording: read record by record, then played; and whatever a scheduler
 * made of given events must play the same.
 *
 * The sums of records are made to fit, or nothing but the first would ever be read. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sim/rerun.h"

enum { BYTES_MAX = 1 << 16, RECORDS_MAX = 512 };

static void *plain_alloc(void *context, size_t size)
{
    (void)context;
    return size > (1u << 28) ? NULL : malloc(size);
}

static void *plain_resize(void *context, void *p, size_t size)
{
    (void)context;
    return realloc(p, size);
}

static void plain_free(void *context, void *p)
{
    (void)context;
    free(p);
}

static const struct mc_alloc plain = { plain_alloc, plain_resize, plain_free, NULL };

/* Give every record the sum that it would have. */
static void mend(uint8_t *bytes, size_t size)
{
    size_t at = RECORD_MAGIC_BYTES;

    while (size >= at && size - at >= RECORD_HEAD_BYTES) {
        const size_t length = bytes[at] | (size_t)bytes[at + 1] << 8;

        bytes[at + 2] = bytes[at + 3] = 0;
        bytes[at + 4] = (uint8_t)(1 + bytes[at + 4] % 4);
        bytes[at + 5] = 0;
        if (size - at - RECORD_HEAD_BYTES < length)
            return;
        record_head((enum record_kind)bytes[at + 4], bytes + at + RECORD_HEAD_BYTES, length,
                    bytes + at);
        at += RECORD_HEAD_BYTES + length;
    }
}

static void play(const uint8_t *bytes, size_t size)
{
    struct mc_error error = { 0 };
    struct rerun rerun;
    struct buf out = BUF_INIT(&plain);

    if (rerun_open(&rerun, bytes, size, &plain, &error) != MC_OK) {
        if (error.text[0] == '\0')
            abort();
        return;
    }
    const mc_status status = rerun_step(&rerun, RECORDS_MAX, &error);
    if (status != MC_OK && status != MC_PENDING && error.text[0] == '\0')
        abort();
    rerun_print(&rerun, &out);
    buf_fini(&out);
    rerun_close(&rerun);
}

/* A valid beginning with small limits, so that most inputs come to their events; then the input's records. */
static size_t begin(uint8_t *bytes)
{
    static const char options[] = "instances_max=4\nrequests_max=8\nblocks_max=64\nwaiting_max=4\n";
    const size_t size = sizeof(options) - 1;

    memcpy(bytes, RECORD_MAGIC, RECORD_MAGIC_BYTES);
    memcpy(bytes + RECORD_MAGIC_BYTES + RECORD_HEAD_BYTES, options, size);
    record_head(RECORD_OPTIONS, options, size, bytes + RECORD_MAGIC_BYTES);
    return RECORD_MAGIC_BYTES + RECORD_HEAD_BYTES + size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t bytes[BYTES_MAX];

    if (size < 1 || size > BYTES_MAX / 2)
        return 0;
    if (data[0] % 4 == 0) { /* as it is */
        play(data + 1, size - 1);
        return 0;
    }
    const size_t head = data[0] % 4 == 1 ? 0 : begin(bytes);
    memcpy(bytes + head, data + 1, size - 1);
    mend(bytes, head + size - 1);
    play(bytes, head + size - 1);
    return 0;
}
