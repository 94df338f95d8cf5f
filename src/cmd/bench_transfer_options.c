/* bench_transfer_options.c - read the table, take its lists apart, name a case. */
#include "cmd/bench_transfer_options.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"

#define BENCH_ROW(...) SETTING_ROW(bench_transfer_options, __VA_ARGS__)
static const struct setting rows[] = { BENCH_TRANSFER_SETTINGS(BENCH_ROW) };
enum { ROWS = sizeof(rows) / sizeof(rows[0]) };

static const char *const transport_names[] = { "self", "shm", "tcp", NULL };
static const char *const op_names[] = { "write", "read", NULL };

const char *bench_transport_name(enum bench_transport transport)
{
    return transport_names[transport];
}

const char *bench_op_name(enum bench_op op)
{
    return op_names[op];
}

/* ------------------------------------------------------------------------------------- lists */

static bool read_word(const char *text, size_t size, const char *const *words, uint64_t *value_p)
{
    for (uint64_t i = 0; words[i]; i++) {
        if (strlen(words[i]) == size && memcmp(words[i], text, size) == 0) {
            *value_p = i;
            return true;
        }
    }
    return false;
}

/* "64K": digits, then perhaps one unit. */
static bool read_number(const char *text, size_t size, uint64_t max, uint64_t *value_p)
{
    static const char units[] = "KMG";
    uint64_t value = 0;
    size_t at = 0;

    for (; at < size && text[at] >= '0' && text[at] <= '9'; at++) {
        value = value * 10 + (uint64_t)(text[at] - '0');
        if (value > max)
            return false;
    }
    if (at == 0)
        return false;
    const char *unit = at + 1 == size ? strchr(units, text[at]) : NULL;
    for (long shift = unit ? unit - units + 1 : 0; shift > 0; shift--)
        value = value > max / 1024 ? max + 1 : value * 1024;
    *value_p = value;
    return (unit || at == size) && value >= 1 && value <= max;
}

/* words: what an element may be; NULL: a number of 1 .. max. */
static mc_status read_list(const char *flag, const char *text, const char *const *words,
                           uint64_t max, uint64_t *values, uint32_t *count_p,
                           struct mc_error *error)
{
    uint32_t count = 0;

    for (;;) {
        const size_t size = strcspn(text, ",");
        if (count == SWEEP_MAX)
            return error_set(error, MC_E_RANGE, "--%s: more than %d elements", flag, SWEEP_MAX);
        if (words ? !read_word(text, size, words, &values[count])
                  : !read_number(text, size, max, &values[count]))
            return error_set(error, MC_E_ARG, "--%s: \"%.*s\" is not one of %s", flag,
                             size > 40 ? 40 : (int)size, text,
                             words == transport_names ? "self, shm, tcp"
                             : words                  ? "write, read"
                                                      : "the numbers it takes (like 16 or 64K)");
        count++;
        if (text[size] == '\0')
            break;
        text += size + 1;
    }
    *count_p = count;
    return MC_OK;
}

static mc_status read_sweep(const struct bench_transfer_options *o, struct bench_sweep *s,
                            struct mc_error *error)
{
    mc_status status = read_list("transport", o->transport, transport_names, 0, s->transports,
                                 &s->transport_count, error);

    if (status == MC_OK)
        status = read_list("op", o->op, op_names, 0, s->ops, &s->op_count, error);
    if (status == MC_OK)
        status = read_list("block", o->block, NULL, UINT64_C(1) << 32, s->blocks, &s->block_count,
                           error);
    if (status == MC_OK)
        status = read_list("batch", o->batch, NULL, 1 << 20, s->batches, &s->batch_count, error);
    if (status == MC_OK)
        status = read_list("threads", o->threads, NULL, 256, s->threads, &s->thread_count, error);
    return status;
}

static uint64_t largest(const uint64_t *values, uint32_t count)
{
    uint64_t most = 0;

    for (uint32_t i = 0; i < count; i++)
        most = values[i] > most ? values[i] : most;
    return most;
}

static mc_status check(const struct bench_transfer_request *r, struct mc_error *error)
{
    const struct bench_sweep *s = &r->sweep;

    if (r->operands.count > 0)
        return error_set(error, MC_E_ARG, "\"%.80s\": only flags are expected here",
                         r->operands.items[0]);
    /* Threads have their own bytes, in whole pages; each a batch of blocks side by side. */
    const uint64_t own =
        r->options.working_set / 2 / largest(s->threads, s->thread_count) / 4096 * 4096;
    const uint64_t block = largest(s->blocks, s->block_count);
    const uint64_t batch = largest(s->batches, s->batch_count);
    if (own / block < batch)
        return error_set(error, MC_E_RANGE,
                         "--working-set: half of it, divided among the threads, holds %llu blocks "
                         "of %llu bytes; a batch has %llu",
                         (unsigned long long)(own / block), (unsigned long long)block,
                         (unsigned long long)batch);
    for (uint32_t i = 0; i < s->transport_count; i++)
        if (r->options.memory == 1 && s->transports[i] != BENCH_SHM)
            return error_set(error, MC_E_ARG, "--memory attach: is a way of shm, not of %s",
                             transport_names[s->transports[i]]);
    return MC_OK;
}

mc_status bench_transfer_options_read(struct bench_transfer_request *request, int argc, char **argv,
                                      char *const *environment, const struct mc_alloc *alloc,
                                      struct mc_error *error)
{
    *request = (struct bench_transfer_request){ .alloc = alloc };
    mc_status status =
        settings_init(&request->settings, rows, ROWS, &request->options, alloc, error);

    if (status == MC_OK)
        status = settings_flags(&request->settings, argc - 1, argv + 1, &request->operands, error);
    if (status != MC_OK || request->options.help)
        return status; /* help must come also where the environment is wrong */
    status = settings_env(&request->settings, environment, error);
    if (status == MC_OK)
        status = read_sweep(&request->options, &request->sweep, error);
    if (status == MC_OK && !request->options.print_config)
        status = check(request, error);
    return status;
}

void bench_transfer_options_fini(struct bench_transfer_request *request)
{
    settings_fini(&request->settings);
    setting_list_fini(&request->operands, request->alloc);
}

void bench_transfer_options_help(struct buf *out)
{
    buf_add_text(out,
                 "usage: mooncake bench transfer [settings]\n"
                 "\n"
                 "Measure transfers between this process and a peer that it starts, and check the\n"
                 "bytes that moved. Lists span a sweep: one row for each combination.\n"
                 "\n");
    setting_help(rows, ROWS, out);
    buf_add_text(
        out, "\n"
             "With --against raw both sides use the same buffers and processors, in turns; the\n"
             "ratio is the median of the turns' ratios. A batch counts when it is complete: raw\n"
             "sockets answer each batch with a byte for each stream.\n"
             "\n"
             "Exit codes: 0 done; 1 failed, or a byte was wrong; 2 wrong usage.\n"
             "\n"
             "Examples:\n"
             "  mooncake bench transfer --against raw\n"
             "  mooncake bench transfer -t shm,tcp --op write,read -b 4K,64K,1M --json t.json\n"
             "  mooncake bench transfer -t tcp -b 64 -n 1 --against raw\n");
}

/* -------------------------------------------------------------------------------------- names */

static void size_text(uint64_t bytes, char text[24])
{
    static const char units[] = { 'K', 'M', 'G' };
    int unit = -1;

    while (unit < 2 && bytes % 1024 == 0) {
        bytes /= 1024;
        unit++;
    }
    if (unit < 0)
        snprintf(text, 24, "%llu", (unsigned long long)bytes);
    else
        snprintf(text, 24, "%llu%c", (unsigned long long)bytes, units[unit]);
}

void bench_case_name(const struct bench_case *c, char name[96])
{
    char block[24], threads[24] = "";

    size_text(c->block_bytes, block);
    if (c->threads > 1)
        snprintf(threads, sizeof(threads), " %u threads", c->threads);
    snprintf(name, 96, "%s %s %s x%u%s%s%s", bench_transport_name(c->transport),
             bench_op_name(c->op), block, c->batch, c->attach ? " attach" : "",
             c->checksum ? " crc32c" : "", threads);
}
