/* body_rows.h - what is done row by row, and loops that measure the machine (part of kernels_body.h). */

static void norm(float *y, const float *x, const float *weight, uint32_t count, float eps)
{
    v16 sums = v_set1(0.0f);
    uint32_t i = 0;

    for (; i + LANES <= count; i += LANES) {
        const v16 v = v_load(x + i);
        sums = v_fma(v, v, sums);
    }
    if (i < count) {
        const v16 v = load_first(x + i, count - i, 0.0f);
        sums = v_fma(v, v, sums);
    }
    const float scale = 1.0f / sqrtf(v_sum(sums) / (float)count + eps);
    for (i = 0; i + LANES <= count; i += LANES)
        v_store(y + i, v_mul(v_mul(v_load(x + i), v_set1(scale)), v_load(weight + i)));
    for (; i < count; i++)
        y[i] = x[i] * scale * weight[i];
}

ALWAYS_INLINE v16 silu(v16 gate, v16 up)
{
    const v16 one = v_set1(1.0f);

    return v_mul(v_div(gate, v_add(one, v_exp(v_sub(v_set1(0.0f), gate)))), up);
}

static void silu_mul(float *y, const float *gate, const float *up, uint32_t count)
{
    uint32_t i = 0;

    for (; i + LANES <= count; i += LANES)
        v_store(y + i, silu(v_load(gate + i), v_load(up + i)));
    if (i < count)
        store_first(y + i,
                    silu(load_first(gate + i, count - i, 0), load_first(up + i, count - i, 0)),
                    count - i);
}

static void weights(float *y, const float *x, uint32_t count, float shift, float scale)
{
    const v16 a = v_set1(shift), b = v_set1(scale);
    uint32_t i = 0;

    for (; i + LANES <= count; i += LANES)
        v_store(y + i, v_exp(v_mul(v_sub(v_load(x + i), a), b)));
    if (i < count)
        store_first(y + i, v_exp(v_mul(v_sub(load_first(x + i, count - i, 0), a), b)), count - i);
}

static void softmax_stats(const float *x, uint32_t count, float *largest_p, float *sum_p)
{
    v16 top = v_set1(-INFINITY), sums = v_set1(0.0f);
    uint32_t i = 0;

    for (; i + LANES <= count; i += LANES)
        top = v_max(v_load(x + i), top);
    if (i < count)
        top = v_max(load_first(x + i, count - i, -INFINITY), top);
    const float largest = v_largest(top);
    const v16 shift = v_set1(largest);
    for (i = 0; i + LANES <= count; i += LANES)
        sums = v_add(sums, v_exp(v_sub(v_load(x + i), shift)));
    if (i < count)
        sums = v_add(sums, v_exp(v_sub(load_first(x + i, count - i, -INFINITY), shift)));
    *largest_p = largest;
    *sum_p = v_sum(sums);
}

enum {
    PEAK_TURNS = 64,
    PEAK_FLOPS_PER_LINK = 2 * LANES,
    READ_AHEAD = 1024 /* floats: what a prefetch needs to come in time */
};

ALWAYS_INLINE uint64_t links(uint64_t rounds, float *sink, enum form form)
{
    v16 sum[GEMM_ROWS][GEMM_PANEL];
    v16 x = v_set1(*sink), w = x;

    for (uint32_t r = 0; r < GEMM_ROWS; r++)
        for (uint32_t g = 0; g < GEMM_PANEL; g++)
            sum[r][g] = v_set1((float)(r * GEMM_PANEL + g));
    for (uint64_t i = 0; i < rounds * PEAK_TURNS; i++)
        for (uint32_t r = 0; r < GEMM_ROWS; r++)
            for (uint32_t g = 0; g < GEMM_PANEL; g++)
                sum[r][g] = link(x, w, sum[r][g], form);
    for (uint32_t r = 0; r < GEMM_ROWS; r++)
        for (uint32_t g = 0; g < GEMM_PANEL; g++)
            x = v_add(x, sum[r][g]);
    *sink = v_sum(x);
    return rounds * PEAK_TURNS * GEMM_ROWS * GEMM_PANEL * PEAK_FLOPS_PER_LINK *
           (form == PAIRS ? 2 : 1);
}

static uint64_t peak(uint64_t rounds, float *sink)
{
    return links(rounds, sink, FLOATS);
}

static uint64_t peak_bf16(uint64_t rounds, float *sink)
{
    return links(rounds, sink, KERNELS_ROUND_ROWS ? PAIRS : WIDENED);
}

static void read_floats(const float *data, size_t count, float *sink)
{
    v16 a = v_set1(0.0f), b = a, c = a, d = a;
    size_t i = 0;

    for (; i + 4 * LANES <= count; i += 4 * LANES) {
        for (uint32_t line = 0; line < 4; line++)
            v_prefetch(data + i + READ_AHEAD + line * LANES);
        a = v_add(a, v_load(data + i));
        b = v_add(b, v_load(data + i + LANES));
        c = v_add(c, v_load(data + i + 2 * LANES));
        d = v_add(d, v_load(data + i + 3 * LANES));
    }
    *sink = v_sum(v_add(v_add(a, b), v_add(c, d)));
}
