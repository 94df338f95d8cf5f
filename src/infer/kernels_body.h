/*
 * kernels_body.h - every kernel once, over the sixteen-lane vector that the including file chose.
 *
 * Included by kernels_<level>.c after its vec_<level>.h. What those headers may differ in is speed:
 * v16 operations are exactly rounded per lane, and the shapes of the tiles below (GEMM_ROWS x
 * GEMM_PANEL vectors, ATTEND_QUERIES x ATTEND_VECTORS) only say which outputs are computed side by
 * side, never in which order one output's terms are added.
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "infer/config.h"
#include "infer/exact.h"
#include "infer/kernels.h"

/* K is taken in blocks; a block continues the chain where the last one left it in y. Long ones, because
 * writing and reading y again costs more than a panel that only the second-level cache holds.
 * GEMM_GROUP columns are packed at a time, so that the rows of x are fetched once for all of them. */
enum {
    GEMM_BLOCK = 1024,
    GEMM_GROUP = 128,
    PANEL_COLUMNS = GEMM_PANEL * LANES,
    LINE_BYTES = 64,
    STREAM_AHEAD = 8,
    STREAM_ROWS_MAX = 4 /* up to so many rows, weights are used as they come and never packed */
};
_Static_assert(GEMM_BLOCK % 32 == 0, "packing moves 32 BF16 at a time, and a pair in one block");
_Static_assert(GEMM_COLUMNS_STEP % PANEL_COLUMNS == 0, "a range of columns holds whole panels");

/* 1 before the include: inputs of BF16 matrices come rounded to BF16 and are multiplied in pairs. */
#ifndef KERNELS_ROUND_ROWS
#define KERNELS_ROUND_ROWS 0
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* ------------------------------------------------------------------------------------- vectors */

static inline v16 v_exp(v16 x)
{
    const v16 clamped = v_min(v_max(x, v_set1(EXACT_EXP_MIN)), v_set1(EXACT_EXP_MAX));
    const v16 n = v_rint(v_mul(clamped, v_set1(EXACT_LOG2E)));
    v16 r = v_fma(n, v_set1(-EXACT_LN2_HIGH), clamped);
    r = v_fma(n, v_set1(-EXACT_LN2_LOW), r);
    v16 p = v_set1(EXACT_EXP_C0);
    p = v_fma(p, r, v_set1(EXACT_EXP_C1));
    p = v_fma(p, r, v_set1(EXACT_EXP_C2));
    p = v_fma(p, r, v_set1(EXACT_EXP_C3));
    p = v_fma(p, r, v_set1(EXACT_EXP_C4));
    p = v_fma(p, r, v_set1(EXACT_EXP_C5));
    p = v_add(v_fma(p, v_mul(r, r), r), v_set1(1.0f));
    return v_where_ge(x, v_set1(EXACT_EXP_MIN), v_scale2(p, n));
}

/* The first `count` (1 .. 16) floats at p, the rest `other`, without reading past them. */
static v16 load_first(const float *p, uint32_t count, float other)
{
    float lanes[LANES];

    for (uint32_t i = 0; i < LANES; i++)
        lanes[i] = i < count ? p[i] : other;
    return v_load(lanes);
}

static void store_first(float *p, v16 a, uint32_t count)
{
    float lanes[LANES];

    v_store(lanes, a);
    memcpy(p, lanes, count * sizeof(float));
}

/* -------------------------------------------------------------------------------- matrix product */

/*
 * How the weights lie and how a chain goes on; a constant wherever speed matters.
 *
 * FLOATS and WIDENED (BF16 made floats): one fused multiply-add for every k. PAIRS, as vdpbf16ps does:
 * for two successive k in one word of x and of w, first the product at the odd k, then the one at the
 * even k, each added with one rounding.
 */
enum form { FLOATS, WIDENED, PAIRS };

/* Elements of a weight row in one 32-bit word. */
ALWAYS_INLINE uint32_t word_elements(enum form form)
{
    return form == FLOATS ? 1 : 2;
}

#ifndef KERNELS_DOT_PAIRS
ALWAYS_INLINE v16 v_dot_pairs(v16 x, v16 w, v16 sum)
{
    sum = v_fma(v_bf16_high(x), v_bf16_high(w), sum);
    return v_fma(v_bf16_low(x), v_bf16_low(w), sum);
}
#endif

ALWAYS_INLINE v16 link(v16 x, v16 w, v16 sum, enum form form)
{
    return form == PAIRS ? v_dot_pairs(x, w, sum) : v_fma(x, w, sum);
}

/* Sixteen 32-bit words (one float or two BF16 each) of a weight row from column k; zero beyond. */
static __attribute__((noinline)) void load_edge(const struct tensor *w, uint32_t row, uint32_t k,
                                                float words[LANES])
{
    const size_t element = w->dtype == MC_DTYPE_BF16 ? 2 : 4;
    const size_t left = w->cols - k, whole = LANES * 4 / element;

    memset(words, 0, LANES * 4);
    if (row < w->rows)
        memcpy(words, (const char *)w->data + ((size_t)row * w->cols + k) * element,
               (left < whole ? left : whole) * element);
}

/* Sixteen rows from n, sixteen words from k, transposed: r[j] is word j of all rows. */
ALWAYS_INLINE void load_square(const struct tensor *w, uint32_t n, uint32_t k, enum form form,
                               v16 r[LANES])
{
    const uint32_t word_k = word_elements(form);
    const size_t row_bytes = (size_t)w->cols * 4 / word_k;

    if (n + LANES <= w->rows && k + LANES * word_k <= w->cols) {
        const char *p = (const char *)w->data + n * row_bytes + (size_t)k * 4 / word_k;
        for (uint32_t i = 0; i < LANES; i++)
            r[i] = v_load_bits(p + i * row_bytes);
    } else {
        for (uint32_t i = 0; i < LANES; i++) {
            float words[LANES];
            load_edge(w, n + i, k, words);
            r[i] = v_load(words);
        }
    }
    v_transpose(r);
}

ALWAYS_INLINE void pack_form(const struct tensor *w, uint32_t n, uint32_t k, uint32_t count,
                             enum form form, float *panel)
{
    const uint32_t step = LANES * word_elements(form);

    for (uint32_t kk = 0; kk < count; kk += step) {
        for (uint32_t c = 0; c < PANEL_COLUMNS; c += LANES) {
            v16 r[LANES];
            float *out = panel + (form == PAIRS ? kk / 2 : kk) * PANEL_COLUMNS + c;
            load_square(w, n + c, k + kk, form, r);
            for (uint32_t j = 0; j < LANES; j++) {
                if (form != WIDENED) {
                    v_store(out + j * PANEL_COLUMNS, r[j]);
                } else {
                    v_store(out + (2 * j) * PANEL_COLUMNS, v_bf16_low(r[j]));
                    v_store(out + (2 * j + 1) * PANEL_COLUMNS, v_bf16_high(r[j]));
                }
            }
        }
    }
}

/*
 * Columns [n, n + PANEL_COLUMNS) of w's transpose, k in [k, k + count): panel[k][column], or
 * panel[k / 2][column] for pairs, so that a vector holds sixteen columns. May write up to 30 lines of
 * zeros behind the last k; a panel has room for them.
 */
static __attribute__((noinline)) void pack(const struct tensor *w, uint32_t n, uint32_t k,
                                           uint32_t count, float *panel)
{
    if (w->dtype == MC_DTYPE_F32)
        pack_form(w, n, k, count, FLOATS, panel);
    else
        pack_form(w, n, k, count, KERNELS_ROUND_ROWS ? PAIRS : WIDENED, panel);
}

/* Where row m of g's input begins: floats, or BF16 for pairs. */
ALWAYS_INLINE const char *input_row(const struct gemm *g, uint32_t m, enum form form)
{
    const size_t at = m * g->x_stride;

    return form == PAIRS ? (const char *)(g->x16 + at) : (const char *)(g->x + at);
}

/* One word of an input row in every lane: the float at k, or the pair at k and k + 1. */
ALWAYS_INLINE v16 input_at(const char *row, size_t k, enum form form)
{
    float word;

    memcpy(&word, row + k * (form == PAIRS ? 2 : 4), sizeof(word));
    return v_set1(word);
}

/* One tile of y: `rows` (a constant) rows from m on by one panel; every chain goes on from k by
 * `count`. */
ALWAYS_INLINE void tile(const struct gemm *g, uint32_t m, uint32_t rows, uint32_t k, uint32_t count,
                        const float *panel, float *y, size_t y_stride, enum form form)
{
    const size_t step = form == PAIRS ? 2 : 1, end = (size_t)k + count;
    const char *x[GEMM_ROWS];
    v16 sum[GEMM_ROWS][GEMM_PANEL];

    for (uint32_t r = 0; r < rows; r++)
        x[r] = input_row(g, m + r, form);
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t c = 0; c < GEMM_PANEL; c++)
            sum[r][c] = k == 0 ? v_set1(0.0f) : v_load(y + r * y_stride + c * LANES);
    for (size_t i = k; i < end; i += step, panel += PANEL_COLUMNS) {
        v16 w[GEMM_PANEL];
        for (uint32_t c = 0; c < GEMM_PANEL; c++)
            w[c] = v_load(panel + c * LANES);
        for (uint32_t r = 0; r < rows; r++) {
            const v16 xi = input_at(x[r], i, form);
            for (uint32_t c = 0; c < GEMM_PANEL; c++)
                sum[r][c] = link(xi, w[c], sum[r][c], form);
        }
    }
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t c = 0; c < GEMM_PANEL; c++)
            v_store(y + r * y_stride + c * LANES, sum[r][c]);
}

/* A tile of 1 .. GEMM_ROWS rows: the number of rows is a constant in each, so that sums stay in
 * registers. */
#define TILE_CASE(n) \
    case n: \
        if (n <= GEMM_ROWS) \
            tile(g, m, n <= GEMM_ROWS ? n : 1, k, count, panel, y, y_stride, form); \
        break;
ALWAYS_INLINE void tile_of(const struct gemm *g, uint32_t m, uint32_t rows, uint32_t k,
                           uint32_t count, const float *panel, float *y, size_t y_stride,
                           enum form form)
{
    switch (rows) {
        TILE_CASE(1)
        TILE_CASE(2)
        TILE_CASE(3)
        TILE_CASE(4)
        TILE_CASE(5)
        TILE_CASE(6)
        TILE_CASE(7)
        TILE_CASE(8)
        TILE_CASE(9)
        TILE_CASE(10)
        TILE_CASE(11)
        TILE_CASE(12)
    }
}

/* Functions of their own, where the compiler keeps every sum in a register. FLOATS and WIDENED differ
 * only in how the panel was packed. */
static __attribute__((noinline)) void plain_tile(const struct gemm *g, uint32_t m, uint32_t rows,
                                                 uint32_t k, uint32_t count, const float *panel,
                                                 float *y, size_t y_stride)
{
    tile_of(g, m, rows, k, count, panel, y, y_stride, FLOATS);
}

#if KERNELS_ROUND_ROWS
static __attribute__((noinline)) void pairs_tile(const struct gemm *g, uint32_t m, uint32_t rows,
                                                 uint32_t k, uint32_t count, const float *panel,
                                                 float *y, size_t y_stride)
{
    tile_of(g, m, rows, k, count, panel, y, y_stride, PAIRS);
}
#else
#define pairs_tile plain_tile
#endif

ALWAYS_INLINE void any_tile(const struct gemm *g, uint32_t m, uint32_t rows, uint32_t k,
                            uint32_t count, const float *panel, float *y, size_t y_stride,
                            enum form form)
{
    if (form == PAIRS)
        pairs_tile(g, m, rows, k, count, panel, y, y_stride);
    else
        plain_tile(g, m, rows, k, count, panel, y, y_stride);
}

/* The last panel of a matrix may be narrower than a tile: work in a square of its own. */
ALWAYS_INLINE void narrow_tile(const struct gemm *g, uint32_t m, uint32_t rows, uint32_t k,
                               uint32_t count, const float *panel, float *y, uint32_t columns,
                               enum form form)
{
    float square[GEMM_ROWS * PANEL_COLUMNS];

    for (uint32_t r = 0; r < rows && k > 0; r++)
        memcpy(square + r * PANEL_COLUMNS, y + r * g->y_stride, columns * sizeof(float));
    any_tile(g, m, rows, k, count, panel, square, PANEL_COLUMNS, form);
    for (uint32_t r = 0; r < rows; r++)
        memcpy(y + r * g->y_stride, square + r * PANEL_COLUMNS, columns * sizeof(float));
}

/* Columns [n, end) of all rows: `count` links from k, out of a panel that holds them. */
ALWAYS_INLINE void panel_rows(const struct gemm *g, uint32_t m, uint32_t n, uint32_t end,
                              uint32_t k, uint32_t count, const float *panel, enum form form)
{
    const uint32_t rows = g->rows - m < GEMM_ROWS ? g->rows - m : GEMM_ROWS;
    float *y = g->y + m * g->y_stride + n;

    if (end - n >= PANEL_COLUMNS)
        any_tile(g, m, rows, k, count, panel, y, g->y_stride, form);
    else
        narrow_tile(g, m, rows, k, count, panel, y, end - n, form);
}

/* Ask for the next tile's inputs and sums while this one is computed: row by row they are too short for
 * the processor to see a stream. Panel number `part` of `parts` asks for its share. */
ALWAYS_INLINE void prefetch_tile(const struct gemm *g, uint32_t m, uint32_t n, uint32_t k,
                                 uint32_t count, uint32_t part, uint32_t parts, enum form form)
{
    const uint32_t rows = m < g->rows ? (g->rows - m < GEMM_ROWS ? g->rows - m : GEMM_ROWS) : 0;
    const size_t element = form == PAIRS ? 2 : 4;

    for (uint32_t r = part; r < rows; r += parts) {
        const char *x = input_row(g, m + r, form) + k * element;
        for (size_t byte = 0; byte < count * element; byte += LINE_BYTES)
            v_prefetch(x + byte);
    }
    for (uint32_t r = 0; r < rows && k > 0; r++)
        for (uint32_t c = 0; c < PANEL_COLUMNS; c += LANES)
            v_prefetch(g->y + (m + r) * g->y_stride + n + c);
}

ALWAYS_INLINE void gemm_group(const struct gemm *g, uint32_t begin, uint32_t end, enum form form,
                              float *panels)
{
    const uint32_t depth = g->w->cols, parts = (end - begin + PANEL_COLUMNS - 1) / PANEL_COLUMNS;

    for (uint32_t k = 0; k < depth; k += GEMM_BLOCK) {
        const uint32_t count = depth - k < GEMM_BLOCK ? depth - k : GEMM_BLOCK;
        for (uint32_t n = begin; n < end; n += PANEL_COLUMNS)
            pack(g->w, n, k, count, panels + (n - begin) * GEMM_BLOCK);
        for (uint32_t m = 0; m < g->rows; m += GEMM_ROWS) {
            for (uint32_t part = 0; part < parts; part++) {
                const uint32_t n = begin + part * PANEL_COLUMNS;
                prefetch_tile(g, m + GEMM_ROWS, n, k, count, part, parts, form);
                panel_rows(g, m, n, end, k, count, panels + (n - begin) * GEMM_BLOCK, form);
            }
        }
    }
}

/*
 * The same chains for a few rows, where time goes into fetching the weights once: sixteen columns'
 * words are transposed in registers and used at once. Sixteen rows of w are too many streams for the
 * processor to follow by itself, so each row's line is asked for STREAM_AHEAD steps before its use,
 * going on into the next sixteen rows.
 */
ALWAYS_INLINE void stream_columns(const struct gemm *g, uint32_t rows, uint32_t n, uint32_t depth,
                                  enum form form)
{
    const uint32_t word_k = word_elements(form), step = LANES * word_k;
    const size_t row_bytes = (size_t)g->w->cols * 4 / word_k;
    const char *w = (const char *)g->w->data + n * row_bytes;
    const size_t steps = depth / step, skip = LANES * row_bytes - steps * LINE_BYTES;
    const char *x[STREAM_ROWS_MAX];
    v16 sum[STREAM_ROWS_MAX];

    for (uint32_t m = 0; m < rows; m++) {
        x[m] = input_row(g, m, form);
        sum[m] = v_set1(0.0f);
    }
    for (size_t i = 0; i < steps; i++) {
        const size_t k = i * step, ahead = i + STREAM_AHEAD;
        const char *p = w + i * LINE_BYTES;
        const char *next = w + ahead * LINE_BYTES + (ahead < steps ? 0 : skip);
        v16 r[LANES];
        for (uint32_t j = 0; j < LANES; j++) {
            r[j] = v_load_bits(p + j * row_bytes);
            v_prefetch(next + j * row_bytes);
        }
        v_transpose(r);
        for (uint32_t j = 0; j < LANES; j++) {
            for (uint32_t m = 0; m < rows; m++) {
                const size_t at = k + j * word_k;
                if (form != WIDENED) {
                    sum[m] = link(input_at(x[m], at, form), r[j], sum[m], form);
                } else {
                    sum[m] = v_fma(input_at(x[m], at, form), v_bf16_low(r[j]), sum[m]);
                    sum[m] = v_fma(input_at(x[m], at + 1, form), v_bf16_high(r[j]), sum[m]);
                }
            }
        }
    }
    for (uint32_t m = 0; m < rows; m++)
        v_store(g->y + m * g->y_stride + n, sum[m]);
}

#define STREAM_CASE(n_rows) \
    case n_rows: \
        stream_columns(g, n_rows, n, depth, form); \
        break;
ALWAYS_INLINE void stream(const struct gemm *g, uint32_t begin, uint32_t end, enum form form,
                          float *panel)
{
    const uint32_t step = LANES * word_elements(form);
    const uint32_t depth = g->w->cols - g->w->cols % step;
    uint32_t n = begin;

    for (; depth > 0 && n + LANES <= end; n += LANES) {
        switch (g->rows) {
            STREAM_CASE(1)
            STREAM_CASE(2)
            STREAM_CASE(3)
            STREAM_CASE(4)
        }
    }
    /* What is left: the last columns, and the last k of the others; both by the packed way. */
    if (n < end)
        gemm_group(g, n, end, form, panel);
    if (depth == g->w->cols)
        return;
    for (uint32_t c = begin; c < n; c += PANEL_COLUMNS) {
        pack(g->w, c, depth, g->w->cols - depth, panel);
        panel_rows(g, 0, c, n, depth, g->w->cols - depth, panel, form);
    }
}

ALWAYS_INLINE void gemm_columns(const struct gemm *g, uint32_t begin, uint32_t end, enum form form,
                                void *scratch)
{
    assert(begin % GEMM_COLUMNS_STEP == 0 && end <= g->w->rows);
    if (g->rows <= STREAM_ROWS_MAX && g->rows <= GEMM_ROWS)
        stream(g, begin, end, form, scratch);
    else
        for (uint32_t n = begin; n < end; n += GEMM_GROUP)
            gemm_group(g, n, end - n < GEMM_GROUP ? end : n + GEMM_GROUP, form, scratch);
    for (uint32_t m = 0; m < g->rows && g->bias; m++)
        for (uint32_t n = begin; n < end; n++)
            g->y[m * g->y_stride + n] += g->bias[n];
}

static void gemm(const struct gemm *g, uint32_t begin, uint32_t end, void *scratch)
{
    if (g->w->dtype == MC_DTYPE_F32)
        gemm_columns(g, begin, end, FLOATS, scratch);
    else if (KERNELS_ROUND_ROWS)
        gemm_columns(g, begin, end, PAIRS, scratch);
    else
        gemm_columns(g, begin, end, WIDENED, scratch);
}

static size_t gemm_scratch(void)
{
    return sizeof(float) * GEMM_BLOCK * GEMM_GROUP;
}

/* ------------------------------------------------------------------------------------- attention */

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

/* ------------------------------------------------------------------------------------------ rows */

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

/* ---------------------------------------------------------------------------------------- limits */

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

#define KERNELS_TABLE(level_name) \
    { \
        .name = level_name, .rounds_rows = KERNELS_ROUND_ROWS, .gemm = gemm, \
        .gemm_scratch = gemm_scratch, .attend = attend, .attend_scratch = attend_scratch, \
        .norm = norm, .silu_mul = silu_mul, .weights = weights, .softmax_stats = softmax_stats, \
        .peak = peak, .peak_bf16 = peak_bf16, .read = read_floats, \
    }
