/* fuzz_assume.c - assumptions of any bytes: refused with a reason and nothing changed, or read; what is then
 * printed reads back as the same. And the same bytes as a cluster. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "os/sysalloc.h"
#include "sim/sim.h"

static void cluster(const uint8_t *data, size_t size)
{
    struct sim_group groups[SIM_GROUPS_MAX];
    struct mc_error error = { 0 };
    uint32_t count = 0;
    char text[64] = "";

    memcpy(text, data, size < sizeof(text) ? size : sizeof(text) - 1);
    const mc_status status = sim_cluster_read(text, groups, &count, &error);
    if (status != MC_OK && error.text[0] == '\0')
        abort();
    for (uint32_t i = 0; status == MC_OK && i < count; i++)
        if (groups[i].count == 0 || groups[i].stages == 0 || groups[i].role == 0)
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sim_assume assume, before, again;
    struct mc_error error = { 0 };
    struct buf out = BUF_INIT(os_alloc());

    cluster(data, size);
    assume_defaults(&assume);
    assume_defaults(&before);
    if (assume_read(&assume, (const char *)data, size, &error) != MC_OK) {
        if (memcmp(&assume, &before, sizeof(assume)) != 0 || error.text[0] == '\0')
            abort();
        return 0;
    }
    (void)assume_node(&assume);
    assume_print(&assume, &out);
    assume_defaults(&again);
    /* Own hardware and models have no line of their own in what is printed; names do. */
    if (out.failed || assume_read(&again, out.data, out.size, &error) != MC_OK)
        abort();
    buf_fini(&out);
    return 0;
}
