/* body_attend.h - attention of queries to pages (part of kernels_body.h). */

/*
 * One query's state while it walks the pages (online softmax, Milakov and Gimelshein 2018): `largest`
 * score so far, `sums` of exp(score - largest) by key index mod 16, and out = sum of those times V.
 */
struct query {
    float sums[LANES];
    float p[LANES]; /* this page's weights */
    const float *q;
    float *sum_v; /* (dim, padded to a whole vector) */
    float largest;
    uint32_t position;
    char fill[2 * LINE_BYTES - 2 * LANES * sizeof(float) + LINE_BYTES - 2 * sizeof(void *) - 8];
};
_Static_assert(sizeof(struct query) % LINE_BYTES == 0, "its vectors lie in one line each");

/* Scratch of attend(): K of one page transposed, V as floats, then every query's sums. */
struct attend_space {
    float *keys;   /* [dim][16 tokens] */
    float *values; /* [16 tokens][padded dim] */
    float *sums;   /* [query][padded dim] */
    struct query *queries;
};

static uint32_t padded(uint32_t dim)
{
    return (dim + LANES - 1) / LANES * LANES;
}

static size_t attend_scratch(uint32_t dim, uint32_t head_count)
{
    const size_t queries = (size_t)ATTEND_ROWS * head_count;

    return sizeof(float) * LANES * ((size_t)padded(dim) * 2 + LANES) +
           queries * (sizeof(float) * padded(dim) + sizeof(struct query));
}

static struct attend_space attend_space_in(void *scratch, uint32_t dim, uint32_t queries)
{
    struct attend_space s;

    s.queries = scratch;
    s.keys = (float *)(void *)(s.queries + queries);
    s.values = s.keys + (size_t)padded(dim) * LANES;
    s.sums = s.values + (size_t)padded(dim) * LANES;
    return s;
}

/* Sixteen elements of a page's row as floats; beyond `left` zeros. */
ALWAYS_INLINE v16 load_page(const void *p, uint32_t left, enum mc_dtype dtype)
{
    if (left >= LANES)
        return dtype == MC_DTYPE_BF16 ? v_load_bf16(p) : v_load(p);
    if (dtype == MC_DTYPE_F32)
        return load_first(p, left, 0.0f);
    uint16_t part[LANES] = { 0 };
    memcpy(part, p, left * sizeof(part[0]));
    return v_load_bf16(part);
}

/* The first `tokens` of a page; what lies behind them may be anything and is not read. */
ALWAYS_INLINE void unpack_page(const struct attend *a, const char *page, uint32_t tokens,
                               enum mc_dtype dtype, const struct attend_space *s)
{
    const size_t element = dtype == MC_DTYPE_BF16 ? 2 : 4, stride = padded(a->dim);

    for (uint32_t d = 0; d < a->dim; d += LANES) {
        v16 r[LANES];
        for (uint32_t t = 0; t < LANES; t++) {
            const char *key = page + a->key_offset + t * a->token_bytes + d * element;
            r[t] = t < tokens ? load_page(key, a->dim - d, dtype) : v_set1(0.0f);
        }
        v_transpose(r);
        for (uint32_t j = 0; j < LANES; j++)
            v_store(s->keys + (d + j) * LANES, r[j]);
        for (uint32_t t = 0; t < tokens; t++) {
            const char *value = page + a->value_offset + t * a->token_bytes + d * element;
            v_store(s->values + t * stride + d, load_page(value, a->dim - d, dtype));
        }
    }
}

/* One query's weights for a page out of its scores; keys behind `seen` are not there for it. */
ALWAYS_INLINE void weigh(struct query *q, v16 scores, uint32_t seen, bool whole, uint32_t dim)
{
    if (!whole)
        scores = v_first(scores, seen, -INFINITY);
    const float page_largest = v_largest(scores);
    if (page_largest > q->largest) {
        /* What was summed so far was relative to a smaller score. */
        const v16 shrink = v_set1(exact_exp(q->largest - page_largest));
        q->largest = page_largest;
        v_store(q->sums, v_mul(v_load(q->sums), shrink));
        for (uint32_t d = 0; d < padded(dim); d += LANES)
            v_store(q->sum_v + d, v_mul(v_load(q->sum_v + d), shrink));
    }
    v16 p = v_exp(v_sub(scores, v_set1(q->largest)));
    if (!whole)
        p = v_first(p, seen, 0.0f);
    v_store(q->p, p);
    v_store(q->sums, v_add(v_load(q->sums), p));
}

/* Weights of `count` (a constant) queries for one page. */
ALWAYS_INLINE void score(uint32_t count, struct query *queries, const float *keys, uint32_t dim,
                         uint32_t page_position, float scale, bool whole)
{
    v16 s[2 * ATTEND_QUERIES];

    for (uint32_t i = 0; i < count; i++)
        s[i] = v_set1(0.0f);
    for (size_t d = 0; d < dim; d++) {
        const v16 k = v_load(keys + d * LANES);
        for (uint32_t i = 0; i < count; i++)
            s[i] = v_fma(v_set1(queries[i].q[d]), k, s[i]);
    }
    for (uint32_t i = 0; i < count; i++)
        weigh(&queries[i], v_mul(s[i], v_set1(scale)), queries[i].position - page_position + 1,
              whole, dim);
}

/* sum_v += p V for `count` queries and `vectors` vectors of the head (both constants). */
ALWAYS_INLINE void add_values(uint32_t count, uint32_t vectors, struct query *queries,
                              const float *values, uint32_t stride, uint32_t d, uint32_t tokens)
{
    v16 sum[ATTEND_QUERIES][ATTEND_VECTORS];

    for (uint32_t i = 0; i < count; i++)
        for (uint32_t j = 0; j < vectors; j++)
            sum[i][j] = v_load(queries[i].sum_v + d + j * LANES);
    for (uint32_t t = 0; t < tokens; t++) {
        v16 v[ATTEND_VECTORS];
        for (uint32_t j = 0; j < vectors; j++)
            v[j] = v_load(values + t * stride + d + j * LANES);
        for (uint32_t i = 0; i < count; i++) {
            const v16 p = v_set1(queries[i].p[t]);
            for (uint32_t j = 0; j < vectors; j++)
                sum[i][j] = v_fma(p, v[j], sum[i][j]);
        }
    }
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t j = 0; j < vectors; j++)
            v_store(queries[i].sum_v + d + j * LANES, sum[i][j]);
}

ALWAYS_INLINE void add_all_values(uint32_t count, struct query *queries, const float *values,
                                  uint32_t dim, uint32_t tokens)
{
    const uint32_t stride = padded(dim);
    uint32_t d = 0;

    for (; d + ATTEND_VECTORS * LANES <= stride; d += ATTEND_VECTORS * LANES)
        add_values(count, ATTEND_VECTORS, queries, values, stride, d, tokens);
    for (; d < stride; d += LANES)
        add_values(count, 1, queries, values, stride, d, tokens);
}

/* Scores of up to 2 ATTEND_QUERIES queries side by side: one query's chain alone would wait for every
 * link. */
enum { SCORE_QUERIES = 2 * ATTEND_QUERIES };
#define SCORE_CASE(n) \
    case n: \
        if (n <= SCORE_QUERIES) \
            score(n <= SCORE_QUERIES ? n : 1, queries, keys, dim, page_position, scale, whole); \
        break;
ALWAYS_INLINE void score_up_to(uint32_t count, struct query *queries, const float *keys,
                               uint32_t dim, uint32_t page_position, float scale, bool whole)
{
    switch (count) {
        SCORE_CASE(1)
        SCORE_CASE(2)
        SCORE_CASE(3)
        SCORE_CASE(4)
        SCORE_CASE(5)
        SCORE_CASE(6)
        SCORE_CASE(7)
        SCORE_CASE(8)
    }
}

static __attribute__((noinline)) void attend_whole(struct query *q, uint32_t count,
                                                   const struct attend_space *s,
                                                   const struct attend *a, uint32_t page_position)
{
    uint32_t i = 0;

    score_up_to(count, q, s->keys, a->dim, page_position, a->scale, true);
    for (; i + ATTEND_QUERIES <= count; i += ATTEND_QUERIES)
        add_all_values(ATTEND_QUERIES, q + i, s->values, a->dim, LANES);
    for (; i < count; i++)
        add_all_values(1, q + i, s->values, a->dim, LANES);
}

/* The page that the queries themselves are in: each sees it up to its own token. */
static __attribute__((noinline)) void attend_part(struct query *q, uint32_t count,
                                                  const struct attend_space *s,
                                                  const struct attend *a, uint32_t page_position)
{
    score_up_to(count, q, s->keys, a->dim, page_position, a->scale, false);
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t seen = q[i].position - page_position + 1;
        add_all_values(1, q + i, s->values, a->dim, seen < LANES ? seen : LANES);
    }
}

/* All queries that see this page. They come in rising order of position: the first may be too early
 * for it, and once one sees the whole of it so do all behind. */
static void attend_page(const struct attend *a, const struct attend_space *s, uint32_t count,
                        uint32_t page_position)
{
    uint32_t i = 0;

    while (i < count && s->queries[i].position < page_position)
        i++;
    for (; i < count; i += SCORE_QUERIES) {
        struct query *q = &s->queries[i];
        const uint32_t some = count - i < SCORE_QUERIES ? count - i : SCORE_QUERIES;
        if (q->position - page_position >= LANES - 1)
            attend_whole(q, some, s, a, page_position);
        else
            attend_part(q, some, s, a, page_position);
    }
}

static uint32_t start_queries(const struct attend *a, const struct attend_space *s)
{
    uint32_t count = 0;

    for (uint32_t row = a->row_begin; row < a->row_end; row++)
        for (uint32_t h = 0; h < a->head_count; h++, count++) {
            struct query *q = &s->queries[count];
            *q = (struct query){
                .q = a->q + row * a->stride + (size_t)(a->head_begin + h) * a->dim,
                .sum_v = s->sums + (size_t)count * padded(a->dim),
                .largest = -INFINITY,
                .position = a->position + row,
            };
            memset(q->sum_v, 0, padded(a->dim) * sizeof(float));
        }
    return count;
}

static void finish_queries(const struct attend *a, const struct attend_space *s)
{
    uint32_t count = 0;

    for (uint32_t row = a->row_begin; row < a->row_end; row++)
        for (uint32_t h = 0; h < a->head_count; h++, count++) {
            const struct query *q = &s->queries[count];
            float *out = a->out + row * a->stride + (size_t)(a->head_begin + h) * a->dim;
            const v16 total = v_set1(v_sum(v_load(q->sums)));
            for (uint32_t d = 0; d < a->dim; d += LANES) {
                const v16 o = v_div(v_load(q->sum_v + d), total);
                if (a->dim - d >= LANES)
                    v_store(out + d, o);
                else
                    store_first(out + d, o, a->dim - d);
            }
        }
}

static void attend(const struct attend *a, void *scratch)
{
    assert(a->row_end > a->row_begin && a->row_end - a->row_begin <= ATTEND_ROWS);
    const uint32_t last = a->position + a->row_end - 1;
    const struct attend_space s =
        attend_space_in(scratch, a->dim, (a->row_end - a->row_begin) * a->head_count);
    const uint32_t count = start_queries(a, &s);

    for (uint32_t position = 0; position <= last; position += LANES) {
        const uint32_t left = last - position + 1, tokens = left < LANES ? left : LANES;
        const char *page = a->pages[position / LANES];
        if (a->dtype == MC_DTYPE_BF16)
            unpack_page(a, page, tokens, MC_DTYPE_BF16, &s);
        else
            unpack_page(a, page, tokens, MC_DTYPE_F32, &s);
        attend_page(a, &s, count, position);
    }
    finish_queries(a, &s);
}
