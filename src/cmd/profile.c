/* profile.c - a GPU and an LLM by name, or a file of assumptions, as a timing model. */
#include "cmd/profile.h"

#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "os/file.h"
#include "sim/assume.h"

enum { FILE_MOST = 1 << 20, CONTEXT_MOST = 1 << 18 };

/* "a800-llama3-70b": the GPU is up to the first dash. */
static bool by_name(const char *name, struct sim_assume *assume)
{
    const char *dash = strchr(name, '-');
    char gpu[32];

    if (!dash || (size_t)(dash - name) >= sizeof(gpu))
        return false;
    memcpy(gpu, name, (size_t)(dash - name));
    gpu[dash - name] = '\0';
    return assume_gpu(assume, gpu) && assume_llm(assume, dash + 1);
}

static mc_status unknown(const char *name, const struct mc_alloc *alloc, struct mc_error *error)
{
    struct buf names = BUF_INIT(alloc);

    assume_names(&names);
    const mc_status status =
        error_set(error, MC_E_ARG,
                  "--profile \"%.100s\": neither a file nor a GPU and an LLM with a dash: %.300s",
                  name, names.data ? names.data : "?");
    buf_fini(&names);
    return status;
}

static mc_status by_file(const char *path, const struct mc_alloc *alloc, struct sim_assume *assume,
                         struct mc_error *error)
{
    char *text = NULL;
    size_t size = 0;
    mc_status status = os_file_read(path, FILE_MOST, alloc, &text, &size, error);

    if (status == MC_E_NOT_FOUND)
        return unknown(path, alloc, error);
    if (status != MC_OK)
        return status;
    status = assume_read(assume, text, size, error);
    if (status != MC_OK)
        error_prefix(error, status, "%s: ", path);
    alloc_free(alloc, text);
    return status;
}

mc_status profile_read(const char *name, double kv_scale, const struct mc_alloc *alloc,
                       struct worker_timing *timing_p, struct mc_error *error)
{
    struct sim_assume assume;
    mc_status status = MC_OK;

    assume_defaults(&assume);
    if (!by_name(name, &assume)) {
        assume_defaults(&assume);
        status = by_file(name, alloc, &assume, error);
    }
    if (status != MC_OK)
        return status;
    const struct sim_node node = assume_node(&assume);
    if (node.kv_tokens < 1024)
        return error_set(error, MC_E_RANGE,
                         "--profile %.100s: the LLM leaves no memory for KVCache on its GPUs",
                         name);
    *timing_p = (struct worker_timing){
        .model = { .cost = node.cost,
                   .kv_token_bytes = node.kv_token_bytes,
                   .load_bytes_per_s = node.vram_bytes_per_s,
                   .join_fixed_s = assume.join_fixed_s,
                   .join_load_share = assume.join_load_share,
                   .tail_s = assume.store_tail_s,
                   .kv_tokens = node.kv_tokens,
                   .context_max = CONTEXT_MOST },
        .layers = (uint32_t)assume.llm.layers,
        .kv_scale = kv_scale,
    };
    return MC_OK;
}
