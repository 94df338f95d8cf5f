/* body_attend.h - attention of queries to pages (part of kernels_body.h). */

/*
 * One query's state while it walks the pages (online softmax, Milakov and Gimelshein 2018): `largest`
 * score so far, `sums` of exp(score - largest) by key index mod 16, and out = sum of those times V.
 */
struct query {
    float sums[LANES];
    float p[LANES]; /* this page's weights */
    float *sum_v;   /* (dim, padded to a whole vector) */
    float largest;
    uint32_t position;
    char fill[2 * LINE_BYTES - 2 * LANES * sizeof(float) + LINE_BYTES - sizeof(void *) - 8];
};
_Static_assert(sizeof(struct query) % LINE_BYTES == 0, "its vectors lie in one line each");

enum { SCORE_QUERIES = 2 * ATTEND_QUERIES }; /* whose scores are computed side by side */

/* Scratch of attend(): queries side by side, K of one page transposed, V as floats, every query's sums. */
struct attend_space {
    float *asks; /* [query / SCORE_QUERIES][dim][SCORE_QUERIES]: one base and fixed steps from it */
    float *keys; /* [dim][16 tokens] */
    float *values; /* [16 tokens][padded dim] */
    float *sums;   /* [query][padded dim] */
    struct query *queries;
};

static uint32_t padded(uint32_t dim)
{
    return (dim + LANES - 1) / LANES * LANES;
}

/* Floats of `asks`, whole vectors of them. */
static size_t asks_of(uint32_t queries, uint32_t dim)
{
    const size_t groups = (queries + SCORE_QUERIES - 1) / SCORE_QUERIES;

    return groups * padded(dim) * SCORE_QUERIES;
}

static size_t attend_scratch(uint32_t dim, uint32_t head_count)
{
    const size_t queries = (size_t)ATTEND_ROWS * head_count;

    return sizeof(float) * LANES * ((size_t)padded(dim) * 2 + LANES) +
           queries * (sizeof(float) * padded(dim) + sizeof(struct query)) +
           sizeof(float) * asks_of((uint32_t)queries, dim);
}

static struct attend_space attend_space_in(void *scratch, uint32_t dim, uint32_t queries)
{
    struct attend_space s;

    s.queries = scratch;
    s.asks = (float *)(void *)(s.queries + queries);
    s.keys = s.asks + asks_of(queries, dim);
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

/* Keys [d, d + 2 LANES) of BF16: pairs are transposed as words, then parted. */
ALWAYS_INLINE void unpack_pairs(const struct attend *a, const char *page, uint32_t tokens,
                                uint32_t d, const struct attend_space *s)
{
    v16 r[LANES];

    for (uint32_t t = 0; t < LANES; t++)
        r[t] = t < tokens ? v_load_bits(page + a->key_offset + t * a->token_bytes + d * 2)
                          : v_set1(0.0f);
    v_transpose(r);
    for (uint32_t j = 0; j < LANES; j++) {
        v_store(s->keys + (d + 2 * j) * LANES, v_bf16_low(r[j]));
        v_store(s->keys + (d + 2 * j + 1) * LANES, v_bf16_high(r[j]));
    }
}

/* The first `tokens` of a page; what lies behind them may be anything and is not read. */
ALWAYS_INLINE void unpack_page(const struct attend *a, const char *page, uint32_t tokens,
                               enum mc_dtype dtype, const struct attend_space *s)
{
    const size_t element = dtype == MC_DTYPE_BF16 ? 2 : 4, stride = padded(a->dim);
    uint32_t begin = 0;

    for (; dtype == MC_DTYPE_BF16 && begin + 2 * LANES <= a->dim; begin += 2 * LANES)
        unpack_pairs(a, page, tokens, begin, s);
    for (uint32_t d = begin; d < a->dim; d += LANES) {
        v16 r[LANES];
        for (uint32_t t = 0; t < LANES; t++) {
            const char *key = page + a->key_offset + t * a->token_bytes + d * element;
            r[t] = t < tokens ? load_page(key, a->dim - d, dtype) : v_set1(0.0f);
        }
        v_transpose(r);
        for (uint32_t j = 0; j < LANES; j++)
            v_store(s->keys + (d + j) * LANES, r[j]);
    }
    for (uint32_t t = 0; t < tokens; t++) {
        const char *value = page + a->value_offset + t * a->token_bytes;
        for (uint32_t d = 0; d < a->dim; d += LANES)
            v_store(s->values + t * stride + d, load_page(value + d * element, a->dim - d, dtype));
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

/* Weights of `count` (a constant) queries for one page. asks: (dim, SCORE_QUERIES), from the first's. */
ALWAYS_INLINE void score(uint32_t count, struct query *queries, const float *asks,
                         const float *keys, uint32_t dim, uint32_t page_position, float scale,
                         bool whole)
{
    v16 s[SCORE_QUERIES];

    EACH (i, count)
        s[i] = v_set1(0.0f);
    for (size_t d = 0; d < dim; d++) {
        const v16 k = v_load(keys + d * LANES);
        EACH (i, count)
            s[i] = v_fma(v_set1(asks[d * SCORE_QUERIES + i]), k, s[i]);
    }
    EACH (i, count)
        weigh(&queries[i], v_mul(s[i], v_set1(scale)), queries[i].position - page_position + 1,
              whole, dim);
}

/* sum_v += p V for `count` queries and `vectors` vectors of the head (both constants). */
ALWAYS_INLINE void add_values(uint32_t count, uint32_t vectors, struct query *queries,
                              const float *values, uint32_t stride, uint32_t d, uint32_t tokens)
{
    v16 sum[ATTEND_QUERIES * ATTEND_VECTORS];

    EACH (i, count)
        EACH (j, vectors)
            sum[i * vectors + j] = v_load(queries[i].sum_v + d + j * LANES);
    for (uint32_t t = 0; t < tokens; t++) {
        v16 v[ATTEND_VECTORS];
        EACH (j, vectors)
            v[j] = v_load(values + t * stride + d + j * LANES);
        EACH (i, count) {
            const v16 p = v_set1(queries[i].p[t]);
            EACH (j, vectors)
                sum[i * vectors + j] = v_fma(p, v[j], sum[i * vectors + j]);
        }
    }
    EACH (i, count)
        EACH (j, vectors)
            v_store(queries[i].sum_v + d + j * LANES, sum[i * vectors + j]);
}

/* Vectors of the head [d, d + vectors) for as many whole tiles of `side` (a constant) queries as there
 * are, then one by one. */
ALWAYS_INLINE void add_tiles(uint32_t side, uint32_t vectors, struct query *queries, uint32_t count,
                             const float *values, uint32_t stride, uint32_t d, uint32_t tokens)
{
    uint32_t i = 0;

    for (; i + side <= count; i += side)
        add_values(side, vectors, queries + i, values, stride, d, tokens);
    for (; i < count; i++)
        add_values(1, vectors, queries + i, values, stride, d, tokens);
}

/* Wide heads in tiles of ATTEND_QUERIES by ATTEND_VECTORS, what is left of them, or a narrow head, in
 * tiles that are half as wide and twice as high: either way there are enough chains side by side. */
ALWAYS_INLINE void add_all_values(struct query *queries, uint32_t count, const float *values,
                                  uint32_t dim, uint32_t tokens)
{
    const uint32_t stride = padded(dim);
    uint32_t d = 0;

    for (; d + ATTEND_VECTORS * LANES <= stride; d += ATTEND_VECTORS * LANES)
        add_tiles(ATTEND_QUERIES, ATTEND_VECTORS, queries, count, values, stride, d, tokens);
    for (; d + ATTEND_VECTORS / 2 * LANES <= stride; d += ATTEND_VECTORS / 2 * LANES)
        add_tiles(2 * ATTEND_QUERIES, ATTEND_VECTORS / 2, queries, count, values, stride, d,
                  tokens);
    for (; d < stride; d += LANES)
        add_tiles(2 * ATTEND_QUERIES, 1, queries, count, values, stride, d, tokens);
}

/* Scores of up to SCORE_QUERIES queries side by side: one query's chain alone would wait for every
 * link. */
#define SCORE_CASE(n) \
    case n: \
        if (n <= SCORE_QUERIES) \
            score(n <= SCORE_QUERIES ? n : 1, queries, asks, keys, dim, page_position, scale, \
                  whole); \
        break;
ALWAYS_INLINE void score_up_to(uint32_t count, struct query *queries, const float *asks,
                               const float *keys, uint32_t dim, uint32_t page_position, float scale,
                               bool whole)
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
                                                   const float *asks, const struct attend_space *s,
                                                   const struct attend *a, uint32_t page_position)
{
    score_up_to(count, q, asks, s->keys, a->dim, page_position, a->scale, true);
    add_all_values(q, count, s->values, a->dim, LANES);
}

/* The page that the queries themselves are in: each sees it up to its own token. */
static __attribute__((noinline)) void attend_part(struct query *q, uint32_t count,
                                                  const float *asks, const struct attend_space *s,
                                                  const struct attend *a, uint32_t page_position)
{
    score_up_to(count, q, asks, s->keys, a->dim, page_position, a->scale, false);
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t seen = q[i].position - page_position + 1;
        add_all_values(q + i, 1, s->values, a->dim, seen < LANES ? seen : LANES);
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
    while (i < count) {
        struct query *q = &s->queries[i];
        const uint32_t place = i % SCORE_QUERIES, left = SCORE_QUERIES - place;
        const uint32_t some = count - i < left ? count - i : left;
        const float *asks = s->asks + (size_t)(i - place) * padded(a->dim) + place;
        if (q->position - page_position >= LANES - 1)
            attend_whole(q, some, asks, s, a, page_position);
        else
            attend_part(q, some, asks, s, a, page_position);
        i += some;
    }
}

/* Query `number` beside the others of its group. */
static void lay_query(const struct attend *a, const struct attend_space *s, uint32_t number,
                      const float *q)
{
    const uint32_t place = number % SCORE_QUERIES;
    float *asks = s->asks + (size_t)(number - place) * padded(a->dim) + place;

    for (uint32_t d = 0; d < a->dim; d++)
        asks[(size_t)d * SCORE_QUERIES] = q[d];
}

static uint32_t start_queries(const struct attend *a, const struct attend_space *s)
{
    uint32_t count = 0;

    for (uint32_t row = a->row_begin; row < a->row_end; row++)
        for (uint32_t h = 0; h < a->head_count; h++, count++) {
            struct query *q = &s->queries[count];
            lay_query(a, s, count, a->q + row * a->stride + (size_t)(a->head_begin + h) * a->dim);
            *q = (struct query){
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
