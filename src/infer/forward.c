/* forward.c - a step's rows through embedding, layers and head. */
#include "infer/forward.h"

#include <assert.h>
#include <string.h>

#include "infer/exact.h"
#include "kv/layout.h"

enum {
    /* One thread's piece of a matrix product: of many rows, or of the few that are being decoded. */
    ROWS_PER_PRODUCT = 528,
    ROWS_STEP =
        48, /* whole tiles of every kernel; fewer rows are not worth packing the matrix for */
    COLUMNS_PER_PRODUCT = 128,
    ROWS_FEW = 16,
    COLUMNS_FOR_FEW = 128,
    ROWS_PER_TASK = 8, /* of everything done row by row */
    HEADS_PER_TASK = 8 /* query heads of one KV head that share an unpacked page */
};

/* Multiply-adds below which a step is one thread's: the crew meets ten times a layer, and in between its
 * members spin on processors that others have a use for. A third of a millisecond, about. */
#define WORK_TO_SHARE 8e6

/* Passed to the crew; which fields are set depends on the work. */
struct work {
    struct cpu_engine *e;
    const struct mc_step *step;
    uint32_t row_count, block_count, layer;
    bool alone; /* too little work to share */
    struct gemm gemms[3];
    uint32_t gemm_count;
    float *source; /* added to the residual stream before the norm; NULL: nothing */
    const float *norm_weight;
    uint32_t sample_begin; /* first row of the running group of logits */
};

static uint32_t pieces(uint32_t total, uint32_t size)
{
    return total / size + (total % size != 0);
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static void *thread_scratch(const struct cpu_engine *e, uint32_t thread)
{
    return e->scratch + thread * e->scratch_bytes;
}

/* Run `function` for each index, with the crew if that pays. */
static void run(struct work *w, os_crew_work *function, uint32_t count)
{
    if (w->alone)
        for (uint32_t i = 0; i < count; i++)
            function(w, i, 0);
    else
        os_crew_run(w->e->crew, function, w, count);
}

/* Run `function` over all rows, ROWS_PER_TASK at a time. */
static void each_rows(struct work *w, os_crew_work *function)
{
    run(w, function, pieces(w->row_count, ROWS_PER_TASK));
}

static void round_row(const struct cpu_engine *e, uint32_t row, const float *x, size_t stride,
                      uint32_t count)
{
    if (!e->kernels->rounds_rows)
        return;
    uint16_t *out = e->rounded + row * stride;
    for (uint32_t i = 0; i < count; i++)
        out[i] = bf16_from_f32(x[i]);
    if (count % 2 != 0)
        out[count] = 0; /* the other half of the last pair */
}

/* ------------------------------------------------------------------------------- matrix products */

/* How a product is cut: columns and rows per piece, and how many pieces there are each way. */
struct cut {
    uint32_t columns, rows, across, down;
};

/* Many rows by a narrow matrix are cut by rows, too, so that there is a piece for every thread. */
static struct cut cut_gemm(const struct work *w, const struct gemm *g)
{
    const uint32_t columns = g->rows <= ROWS_FEW ? COLUMNS_FOR_FEW : COLUMNS_PER_PRODUCT;
    const uint32_t across = pieces(g->w->rows, columns);
    const uint32_t wanted = w->alone ? 1 : pieces(os_crew_size(w->e->crew), across);
    const uint32_t each = (pieces(g->rows, wanted) + ROWS_STEP - 1) / ROWS_STEP * ROWS_STEP;
    const uint32_t rows = smaller(each, ROWS_PER_PRODUCT);

    return (struct cut){ columns, rows, across, pieces(g->rows, rows) };
}

static void gemm_task(void *argument, uint32_t index, uint32_t thread)
{
    const struct work *w = argument;
    const struct gemm *g = w->gemms;
    struct cut cut = cut_gemm(w, g);

    for (; index >= cut.across * cut.down; cut = cut_gemm(w, ++g))
        index -= cut.across * cut.down;
    const uint32_t row = index / cut.across * cut.rows;
    const uint32_t begin = index % cut.across * cut.columns;
    struct gemm piece = *g;
    piece.x += row * g->x_stride;
    piece.x16 += w->e->kernels->rounds_rows ? row * g->x_stride : 0;
    piece.y += row * g->y_stride;
    piece.rows = smaller(g->rows - row, cut.rows);
    w->e->kernels->gemm(&piece, begin, smaller(begin + cut.columns, g->w->rows),
                        thread_scratch(w->e, thread));
}

/* Up to three products of the same rows in one go: fewer meetings of the crew. */
static void run_gemms(struct work *w)
{
    uint32_t tasks = 0;

    for (uint32_t i = 0; i < w->gemm_count; i++) {
        const struct cut cut = cut_gemm(w, &w->gemms[i]);
        tasks += cut.across * cut.down;
    }
    run(w, gemm_task, tasks);
    w->gemm_count = 0;
}

static void add_gemm(struct work *w, const struct tensor *weight, const float *bias, const float *x,
                     size_t x_stride, float *y, size_t y_stride, uint32_t rows)
{
    w->gemms[w->gemm_count++] = (struct gemm){ .w = weight,
                                               .x = x,
                                               .x16 = w->e->rounded,
                                               .x_stride = x_stride,
                                               .bias = bias,
                                               .y = y,
                                               .y_stride = y_stride,
                                               .rows = rows };
}

/* --------------------------------------------------------------------------------------- by rows */

static void embed_row(const struct cpu_engine *e, const struct row *row, float *x)
{
    const struct tensor *t = &e->model->embedding;
    const size_t at = (size_t)row->token * t->cols;

    if (t->dtype == MC_DTYPE_F32) {
        memcpy(x, (const float *)t->data + at, t->cols * sizeof(float));
        return;
    }
    const uint16_t *from = (const uint16_t *)t->data + at;
    for (uint32_t i = 0; i < t->cols; i++)
        x[i] = bf16_to_f32(from[i]);
}

static void rotation_row(const struct cpu_engine *e, const struct row *row, float *cosines)
{
    const uint32_t half = e->limits.layout.head_dim / 2;

    for (uint32_t i = 0; i < half; i++) {
        /* The angle is rounded to a float first, as in the models' own training code. */
        const float angle = (float)row->position * e->inverse_frequency[i];
        double sine, cosine;
        exact_sincos((double)angle, &sine, &cosine);
        cosines[i] = (float)cosine;
        cosines[half + i] = (float)sine;
    }
}

static void begin_rows(void *argument, uint32_t index, uint32_t thread)
{
    struct work *w = argument;
    struct cpu_engine *e = w->e;
    const uint32_t end = smaller((index + 1) * ROWS_PER_TASK, w->row_count);

    (void)thread;
    for (uint32_t r = index * ROWS_PER_TASK; r < end; r++) {
        embed_row(e, &e->rows[r], e->x + r * e->hidden_stride);
        rotation_row(e, &e->rows[r], e->rotation + r * (size_t)e->limits.layout.head_dim);
    }
}

/* x += source, normed = norm(x). */
static void norm_rows(void *argument, uint32_t index, uint32_t thread)
{
    struct work *w = argument;
    struct cpu_engine *e = w->e;
    const struct model_config *c = &e->model->config;
    const uint32_t end = smaller((index + 1) * ROWS_PER_TASK, w->row_count);

    (void)thread;
    for (uint32_t r = index * ROWS_PER_TASK; r < end; r++) {
        float *x = e->x + r * e->hidden_stride, *normed = e->normed + r * e->hidden_stride;
        if (w->source) {
            const float *source = w->source + r * e->hidden_stride;
            for (uint32_t i = 0; i < c->hidden; i++)
                x[i] += source[i];
        }
        e->kernels->norm(normed, x, w->norm_weight, c->hidden, c->norm_eps);
        round_row(e, r, normed, e->hidden_stride, c->hidden);
    }
}

static void run_norm(struct work *w, float *source, const float *weight)
{
    w->source = source;
    w->norm_weight = weight;
    each_rows(w, norm_rows);
}

/* Rotate each head's halves against each other (Su et al. 2021, in the "rotate half" layout). */
static void rotate(float *head, const float *cosines, uint32_t dim)
{
    const uint32_t half = dim / 2;

    for (uint32_t i = 0; i < half; i++) {
        const float a = head[i], b = head[half + i], c = cosines[i], s = cosines[half + i];
        head[i] = a * c - b * s;
        head[half + i] = b * c + a * s;
    }
}

static void prepare_heads(const struct cpu_engine *e, float *heads, uint32_t count,
                          const float *norm_weight, const float *cosines)
{
    const uint32_t dim = e->limits.layout.head_dim;

    for (uint32_t h = 0; h < count; h++, heads += dim) {
        if (norm_weight)
            e->kernels->norm(heads, heads, norm_weight, dim, e->model->config.norm_eps);
        rotate(heads, cosines, dim);
    }
}

static void store_page_row(const struct mc_kv_layout *layout, char *to, const float *from)
{
    const uint32_t count = layout->kv_heads * layout->head_dim;

    if (layout->dtype == MC_DTYPE_F32) {
        memcpy(to, from, count * sizeof(float));
        return;
    }
    uint16_t *out = (uint16_t *)(void *)to;
    for (uint32_t i = 0; i < count; i++)
        out[i] = bf16_from_f32(from[i]);
}

/* q and k normalised and rotated; k and v into the row's page. */
static void store_rows(void *argument, uint32_t index, uint32_t thread)
{
    struct work *w = argument;
    struct cpu_engine *e = w->e;
    const struct mc_kv_layout *layout = &e->limits.layout;
    const struct layer_weights *l = &e->model->layers[w->layer];
    const uint32_t end = smaller((index + 1) * ROWS_PER_TASK, w->row_count);

    (void)thread;
    for (uint32_t r = index * ROWS_PER_TASK; r < end; r++) {
        const struct row *row = &e->rows[r];
        const float *cosines = e->rotation + r * (size_t)layout->head_dim;
        float *k = e->k + r * e->kv_stride, *v = e->v + r * e->kv_stride;
        prepare_heads(e, e->q + r * e->q_stride, e->model->config.heads, l->q_norm, cosines);
        prepare_heads(e, k, layout->kv_heads, l->k_norm, cosines);

        char *page = w->step->sequences[row->sequence].pages[row->position / KV_PAGE_TOKENS];
        const uint32_t token = row->position % KV_PAGE_TOKENS;
        store_page_row(layout, page + kv_offset(layout, w->layer, KV_KEY, token), k);
        store_page_row(layout, page + kv_offset(layout, w->layer, KV_VALUE, token), v);
    }
}

static void round_attention_rows(void *argument, uint32_t index, uint32_t thread)
{
    struct work *w = argument;
    struct cpu_engine *e = w->e;
    const uint32_t width = e->model->config.heads * e->limits.layout.head_dim;
    const uint32_t end = smaller((index + 1) * ROWS_PER_TASK, w->row_count);

    (void)thread;
    for (uint32_t r = index * ROWS_PER_TASK; r < end; r++)
        round_row(e, r, e->attention + r * e->q_stride, e->q_stride, width);
}

static void activate_rows(void *argument, uint32_t index, uint32_t thread)
{
    struct work *w = argument;
    struct cpu_engine *e = w->e;
    const uint32_t width = e->model->config.intermediate;
    const uint32_t end = smaller((index + 1) * ROWS_PER_TASK, w->row_count);

    (void)thread;
    for (uint32_t r = index * ROWS_PER_TASK; r < end; r++) {
        float *gate = e->gate + r * e->mlp_stride;
        e->kernels->silu_mul(gate, gate, e->up + r * e->mlp_stride, width);
        round_row(e, r, gate, e->mlp_stride, width);
    }
}

/* ------------------------------------------------------------------------------------- attention */

static void attend_task(void *argument, uint32_t index, uint32_t thread)
{
    const struct work *w = argument;
    const struct cpu_engine *e = w->e;
    const struct model_config *c = &e->model->config;
    const struct mc_kv_layout *layout = &e->limits.layout;
    const uint32_t group = c->heads / c->kv_heads, parts = pieces(group, HEADS_PER_TASK);
    /* Later blocks of a prompt see more pages: begin with them, so that threads end together. */
    const struct row_block *b = &e->blocks[w->block_count - 1 - index / (parts * c->kv_heads)];
    const uint32_t kv_head = index / parts % c->kv_heads;
    const uint32_t part = index % parts * HEADS_PER_TASK;
    const struct mc_sequence *s = &w->step->sequences[b->sequence];
    const size_t head_bytes = layout->head_dim * kv_element_bytes(layout->dtype);

    const struct attend a = {
        .q = e->q + b->begin * e->q_stride,
        .out = e->attention + b->begin * e->q_stride,
        .stride = e->q_stride,
        .pages = s->pages,
        .key_offset = kv_offset(layout, w->layer, KV_KEY, 0) + kv_head * head_bytes,
        .value_offset = kv_offset(layout, w->layer, KV_VALUE, 0) + kv_head * head_bytes,
        .token_bytes = kv_token_bytes(layout),
        .dtype = layout->dtype,
        .position = e->rows[b->begin].position,
        .row_begin = 0,
        .row_end = b->end - b->begin,
        .head_begin = kv_head * group + part,
        .head_count = smaller(group - part, HEADS_PER_TASK),
        .dim = layout->head_dim,
        .scale = 1.0f / sqrtf((float)layout->head_dim),
    };
    e->kernels->attend(&a, thread_scratch(e, thread));
}

static void run_attention(struct work *w)
{
    const struct model_config *c = &w->e->model->config;
    const uint32_t parts = pieces(c->heads / c->kv_heads, HEADS_PER_TASK);

    run(w, attend_task, w->block_count * c->kv_heads * parts);
    if (w->e->kernels->rounds_rows)
        each_rows(w, round_attention_rows);
}

/* ---------------------------------------------------------------------------------------- layers */

static void run_layer(struct work *w, uint32_t layer)
{
    struct cpu_engine *e = w->e;
    const struct layer_weights *l = &e->model->layers[layer];
    const uint32_t n = w->row_count;

    w->layer = layer;
    run_norm(w, layer == 0 ? NULL : e->normed, l->attention_norm);
    add_gemm(w, &l->q, l->q_bias, e->normed, e->hidden_stride, e->q, e->q_stride, n);
    add_gemm(w, &l->k, l->k_bias, e->normed, e->hidden_stride, e->k, e->kv_stride, n);
    add_gemm(w, &l->v, l->v_bias, e->normed, e->hidden_stride, e->v, e->kv_stride, n);
    run_gemms(w);
    each_rows(w, store_rows);
    if (w->step->layer_done)
        w->step->layer_done(w->step->user, layer);
    run_attention(w);
    add_gemm(w, &l->o, l->o_bias, e->attention, e->q_stride, e->normed, e->hidden_stride, n);
    run_gemms(w);

    run_norm(w, e->normed, l->mlp_norm);
    add_gemm(w, &l->gate, NULL, e->normed, e->hidden_stride, e->gate, e->mlp_stride, n);
    add_gemm(w, &l->up, NULL, e->normed, e->hidden_stride, e->up, e->mlp_stride, n);
    run_gemms(w);
    each_rows(w, activate_rows);
    /* The layer's output waits in `normed`; the next norm adds it to the residual stream. */
    add_gemm(w, &l->down, NULL, e->gate, e->mlp_stride, e->normed, e->hidden_stride, n);
    run_gemms(w);
}

/* ------------------------------------------------------------------------------------------ head */

/* Rows whose logits are wanted are moved to the front of `normed` (they only move down), so that the
 * head is one product over them. */
static void move_row(struct cpu_engine *e, uint32_t from, uint32_t to)
{
    if (from == to)
        return;
    memcpy(e->normed + to * e->hidden_stride, e->normed + from * e->hidden_stride,
           e->hidden_stride * sizeof(float));
    if (e->kernels->rounds_rows)
        memcpy(e->rounded + to * e->hidden_stride, e->rounded + from * e->hidden_stride,
               e->hidden_stride * sizeof(uint16_t));
}

static void sample_task(void *argument, uint32_t index, uint32_t thread)
{
    const struct work *w = argument;
    const struct cpu_engine *e = w->e;
    const uint32_t vocab_size = e->limits.vocab_size;
    const struct mc_sequence *s = &w->step->sequences[e->rows[w->sample_begin + index].sequence];
    float *weights = thread_scratch(e, thread);
    const struct sample_space space = { weights,
                                        (struct candidate *)(void *)(weights + vocab_size) };

    sample_token(e->kernels, e->logits + index * e->logit_stride, vocab_size, s->sampling,
                 s->position + s->token_count, &space, s->sample);
}

/* Sample the rows [begin, begin + count) of `normed`, whose sequences `rows` names. */
static void run_samples(struct work *w, uint32_t begin, uint32_t count)
{
    struct cpu_engine *e = w->e;

    add_gemm(w, &e->model->head, NULL, e->normed + begin * e->hidden_stride, e->hidden_stride,
             e->logits, e->logit_stride, count);
    w->gemms[0].x16 += e->kernels->rounds_rows ? begin * e->hidden_stride : 0;
    run_gemms(w);
    w->sample_begin = begin;
    run(w, sample_task, count);
}

static void run_head(struct work *w)
{
    struct cpu_engine *e = w->e;
    const struct mc_step *step = w->step;
    uint32_t row = 0, wanted = 0;

    run_norm(w, e->normed, e->model->final_norm);
    for (uint32_t i = 0; i < step->count; i++) {
        const struct mc_sequence *s = &step->sequences[i];
        if (s->logits) {
            add_gemm(w, &e->model->head, NULL, e->normed + row * e->hidden_stride, e->hidden_stride,
                     s->logits, e->limits.vocab_size, s->token_count);
            w->gemms[0].x16 += e->kernels->rounds_rows ? row * e->hidden_stride : 0;
            run_gemms(w);
        }
        row += s->token_count;
    }
    row = 0;
    for (uint32_t i = 0; i < step->count; i++) {
        row += step->sequences[i].token_count;
        if (step->sequences[i].sampling) {
            move_row(e, row - 1, wanted);
            e->rows[wanted++].sequence = i;
        }
    }
    for (uint32_t begin = 0; begin < wanted; begin += e->logit_rows)
        run_samples(w, begin, smaller(wanted - begin, e->logit_rows));
}

/* ------------------------------------------------------------------------------------------ step */

static void lay_rows(struct work *w)
{
    struct cpu_engine *e = w->e;

    for (uint32_t i = 0; i < w->step->count; i++) {
        const struct mc_sequence *s = &w->step->sequences[i];
        const uint32_t first = w->row_count;
        for (uint32_t t = 0; t < s->token_count; t++)
            e->rows[w->row_count++] = (struct row){ s->tokens[t], s->position + t, i };
        for (uint32_t r = first; r < w->row_count; r += ATTEND_ROWS)
            e->blocks[w->block_count++] =
                (struct row_block){ i, r, smaller(r + ATTEND_ROWS, w->row_count) };
    }
}

/* Multiply-adds of a step, about: its rows through every matrix, and what they attend to. */
static double step_work(const struct cpu_engine *e, const struct mc_step *step)
{
    const struct model_config *c = &e->model->config;
    const double q = (double)c->heads * c->head_dim, kv = (double)c->kv_heads * c->head_dim;
    const double row = c->layers * (double)c->hidden * (2 * q + 2 * kv + 3.0 * c->intermediate);
    double work = 0;

    for (uint32_t i = 0; i < step->count; i++) {
        const struct mc_sequence *s = &step->sequences[i];
        work += s->token_count * (row + c->layers * 2 * q * (s->position + s->token_count));
        work += s->sampling ? (double)c->hidden * c->vocab_size : 0;
    }
    return work;
}

void forward_step(struct cpu_engine *engine, const struct mc_step *step)
{
    struct work w = { .e = engine, .step = step, .alone = step_work(engine, step) < WORK_TO_SHARE };

    lay_rows(&w);
    each_rows(&w, begin_rows);
    for (uint32_t layer = 0; layer < engine->model->config.layers; layer++)
        run_layer(&w, layer);
    run_head(&w);
}

/* Llama 3's scaling: long waves are stretched by `factor`, short ones kept, those between blended by
 * how many of them fit the original context (Llama 3 report; transformers' "llama3"). */
static double llama3_scaled(const struct rope_scaling *rope, double frequency)
{
    const double wavelength = 2 * 3.14159265358979323846 / frequency;
    const double turns = rope->original_context_max / wavelength;

    if (turns < rope->low_freq)
        return frequency / rope->factor;
    if (turns > rope->high_freq)
        return frequency;
    const double smooth = (turns - rope->low_freq) / (rope->high_freq - rope->low_freq);
    return (1 - smooth) * frequency / rope->factor + smooth * frequency;
}

void forward_frequencies(const struct model_config *config, float *inverse_frequency)
{
    const uint32_t half = config->head_dim / 2;

    for (uint32_t i = 0; i < half; i++) {
        const double frequency = 1.0 / exact_pow(config->rope_theta, 2.0 * i / config->head_dim);
        if (config->rope.kind == ROPE_LLAMA3)
            inverse_frequency[i] = (float)llama3_scaled(&config->rope, frequency);
        else if (config->rope.kind == ROPE_LINEAR)
            inverse_frequency[i] = (float)(frequency / config->rope.factor);
        else
            inverse_frequency[i] = (float)frequency;
    }
}
