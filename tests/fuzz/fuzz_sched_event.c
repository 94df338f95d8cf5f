/* fuzz_sched_event.c - any bytes as an event: what is accepted must encode to one form, and a scheduler
 * that is given it must not care. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <mooncake/sched.h>

#include "os/sysalloc.h"

enum { KEYS_MAX = 4096, BYTES_MAX = 10 + 32 * 10 + 16 + KEYS_MAX * 16 };

/* Two workers that are there, then the event, then a request. By the time: which policy, which admission, and
 * whether there are objectives. */
static void play(uint64_t now_ns, const struct mc_sched_event *event)
{
    static const char *const policies[] = { NULL,     "local",  "dynamo", "lmetric",  "llm-d",
                                            "sglang", "aibrix", "preble", "conductor" };
    enum { POLICIES = sizeof(policies) / sizeof(policies[0]) };
    static const struct mc_sched_slo slos[] = { { 0 }, { .ttft_ns = 1000000, .tbt_ns = 1000 } };
    const struct mc_sched_options options = {
        .alloc = os_alloc(),
        .policy = policies[now_ns % POLICIES],
        .admission = (enum mc_admission)(now_ns / POLICIES % 6),
        .slo = slos[now_ns / POLICIES / 6 % 2],
        .replication = "asked=1,gain=0.1,rate=1000",
        .instances_max = 4,
        .requests_max = 4,
        .blocks_max = 8,
    };
    const struct mc_sched_event one = { .kind = MC_EVENT_INSTANCE,
                                        .instance = { .id = 1, .role = MC_ROLE_BOTH } };
    const struct mc_sched_event ask = { .kind = MC_EVENT_REQUEST,
                                        .request = { .id = UINT64_MAX, .tokens = 100 } };
    struct mc_decision decision;
    mc_sched *sched;
    size_t count;

    if (mc_sched_open(&options, &sched, NULL) != MC_OK)
        abort();
    (void)!mc_sched_step(sched, now_ns / 2, &one);
    (void)!mc_sched_step(sched, now_ns, event);
    if (mc_sched_step(sched, now_ns, &ask) == MC_OK &&
        (mc_sched_take(sched, &decision, 1, &count) != MC_OK || decision.request != UINT64_MAX))
        abort();
    mc_sched_close(sched);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct mc_key keys[KEYS_MAX];
    static uint8_t once[BYTES_MAX], twice[BYTES_MAX];
    struct mc_sched_event event;
    struct mc_error error = { 0 };
    uint64_t now_ns;
    size_t once_size, twice_size;

    if (mc_sched_event_decode(data, size, keys, KEYS_MAX, &now_ns, &event, &error) != MC_OK) {
        if (error.text[0] == '\0')
            abort();
        return 0;
    }
    if (mc_sched_event_encode(now_ns, &event, once, sizeof(once), &once_size) != MC_OK ||
        once_size > size ||
        mc_sched_event_decode(once, once_size, keys, KEYS_MAX, &now_ns, &event, &error) != MC_OK ||
        mc_sched_event_encode(now_ns, &event, twice, sizeof(twice), &twice_size) != MC_OK ||
        once_size != twice_size || memcmp(once, twice, once_size) != 0)
        abort();
    play(now_ns, &event);
    return 0;
}
