/* body_gemm.h - matrix products: packed for many rows, streamed for few (part of kernels_body.h). */

/* K is taken in blocks; a block continues the chain where the last one left it in y. Long ones, because
 * writing and reading y again costs more than a panel that only the second-level cache holds.
 * GEMM_GROUP columns are packed at a time, so that the rows of x are fetched once for all of them. */
enum {
    GEMM_BLOCK = 1024,
    GEMM_GROUP = 128,
    PANEL_COLUMNS = GEMM_PANEL * LANES,
    STREAM_AHEAD = 8,
    STREAM_ROWS_MAX = 4 /* up to so many rows, weights are used as they come and never packed */
};
_Static_assert(GEMM_BLOCK % 32 == 0, "packing moves 32 BF16 at a time, and a pair in one block");
_Static_assert(GEMM_COLUMNS_STEP % PANEL_COLUMNS == 0, "a range of columns holds whole panels");

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
