/* timing.c - counts of arithmetic and bytes, and their rates against the machine's. */
#include "cmd/timing.h"

#include "kv/layout.h"

struct work work_of(const struct mc_model_info *info, bool embedding_is_head,
                    const struct mc_kv_layout *layout)
{
    const double table = (double)info->vocab_size * info->hidden;
    const double element = info->dtype == MC_DTYPE_BF16 ? 2 : 4;

    return (struct work){
        .matrix_parameters = (double)info->parameters - (embedding_is_head ? table : 2 * table),
        .head_parameters = table,
        /* One row of the embedding is read, so a table of its own is not. */
        .weight_bytes_read = (double)info->weight_bytes - (embedding_is_head ? 0 : table * element),
        .attention_flop = 4.0 * info->heads * info->head_dim * info->layers,
        .kv_bytes = 2.0 * (double)kv_token_bytes(layout) * layout->layers,
    };
}

void timing_count(struct timing *t, const struct work *w)
{
    const double prompt = t->prompt_tokens, decode = t->decode_tokens;

    t->prefill_flop = 2 * (w->matrix_parameters * prompt + w->head_parameters) +
                      w->attention_flop * prompt * (prompt + 1) / 2;
    t->decode_bytes =
        decode * w->weight_bytes_read + w->kv_bytes * (decode * prompt + decode * (decode + 1) / 2);
}

static double rate(double amount, uint64_t ns)
{
    return ns > 0 ? amount * 1e9 / (double)ns : 0;
}

static double seconds(uint64_t ns)
{
    return (double)ns / 1e9;
}

void timing_text(const struct timing *t, struct buf *out)
{
    const double flops = rate(t->prefill_flop, t->prefill_ns);
    const double bytes = rate(t->decode_bytes, t->decode_ns);

    buf_addf(out, "prefill: %u tokens in %.3f s, %.1f tokens/s, %.1f GFLOP/s", t->prompt_tokens,
             seconds(t->prefill_ns), rate(t->prompt_tokens, t->prefill_ns), flops / 1e9);
    if (t->peak_flops > 0)
        buf_addf(out, ", %.0f%% of the FMA peak of %.1f", 100 * flops / t->peak_flops,
                 t->peak_flops / 1e9);
    buf_addf(out, " (%s, %u threads)\n", t->kernel, t->threads);
    buf_addf(out, "decode: %u tokens in %.3f s, %.1f tokens/s, %.2f GB/s", t->decode_tokens,
             seconds(t->decode_ns), rate(t->decode_tokens, t->decode_ns), bytes / 1e9);
    if (t->read_bandwidth > 0)
        buf_addf(out, ", %.0f%% of the read bandwidth of %.2f", 100 * bytes / t->read_bandwidth,
                 t->read_bandwidth / 1e9);
    buf_add_byte(out, '\n');
}

void timing_json(const struct timing *t, struct buf *out)
{
    const double flops = rate(t->prefill_flop, t->prefill_ns);
    const double bytes = rate(t->decode_bytes, t->decode_ns);

    buf_addf(out,
             "{\"kernel\":\"%s\",\"threads\":%u,\"prefill_tokens\":%u,\"prefill_s\":%.6f,"
             "\"prefill_tokens_per_s\":%.6g,\"prefill_flops\":%.6g",
             t->kernel, t->threads, t->prompt_tokens, seconds(t->prefill_ns),
             rate(t->prompt_tokens, t->prefill_ns), flops);
    if (t->peak_flops > 0)
        buf_addf(out, ",\"peak_flops\":%.6g,\"prefill_share_of_peak\":%.4f", t->peak_flops,
                 flops / t->peak_flops);
    buf_addf(out,
             ",\"decode_tokens\":%u,\"decode_s\":%.6f,\"decode_tokens_per_s\":%.6g,"
             "\"decode_bytes_per_s\":%.6g",
             t->decode_tokens, seconds(t->decode_ns), rate(t->decode_tokens, t->decode_ns), bytes);
    if (t->read_bandwidth > 0)
        buf_addf(out, ",\"read_bandwidth\":%.6g,\"decode_share_of_bandwidth\":%.4f",
                 t->read_bandwidth, bytes / t->read_bandwidth);
    buf_add_byte(out, '}');
}
