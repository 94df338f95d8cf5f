/*
 * bench_infer.c - the engine against what the machine can do: prefill beside the peak of its own
 * multiply-adds, decode beside the bandwidth of memory, one matrix product beside oneDNN's.
 *
 * Every round measures each thing and its peer one after the other; a ratio is the median over rounds
 * of own / peer. oneDNN is loaded at run time, so that its threads can be told to sleep when idle; where
 * it is missing its rows are left out, and the bench says so.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <mooncake/infer.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/prng.h"
#include "base/setting.h"
#include "cmd/figures.h"
#include "cmd/timing.h"
#include "infer/kernels.h"
#include "infer/limits.h"
#include "infer/model.h"
#include "kv/layout.h"
#include "os/clock.h"
#include "os/crew.h"
#include "os/sysalloc.h"

/* clang-format off */
#define BENCH_SETTINGS(X)                                                                                                   \
    X(model, "model", 'm', TEXT, NULL, 0, 0, NULL, "DIR", "Bench", "The model; tools/make_checkpoint.py --preset 100m makes one.") \
    X(prefill, "prefill", 0, U32, "1024", 16, 65536, NULL, "N", "Bench", "Tokens of the prompt.")                           \
    X(decode, "decode", 0, U32, "32", 1, 65536, NULL, "N", "Bench", "Tokens generated, after a prompt of 16.")              \
    X(chunk, "chunk", 0, U32, "512", 16, 65536, NULL, "N", "Bench", "Tokens in one step.")                                  \
    X(rounds, "rounds", 0, U32, "7", 1, 101, NULL, "N", "Bench", "How often everything is measured.")                       \
    X(threads, "threads", 0, U32, "0", 0, 1024, NULL, "N", "Bench", "0: one for each processor.")                           \
    X(kernel, "kernel", 0, TEXT, NULL, 0, 0, NULL, "NAME", "Bench", "Kernel level; default: the best.")                     \
    X(json, "json", 0, TEXT, NULL, 0, 0, NULL, "FILE", "Bench", "Write the result here, too.")                              \
    X(commit, "commit", 0, TEXT, NULL, 0, 0, NULL, "ID", "Bench", "The commit that was built, for the result.")             \
    X(help, "help", 'h', ACTION, "false", 0, 0, NULL, NULL, "Bench", "Print this and end.")
/* clang-format on */

struct options {
    BENCH_SETTINGS(SETTING_FIELD)
};
#define BENCH_ROW(...) SETTING_ROW(options, __VA_ARGS__)
static const struct setting rows[] = { BENCH_SETTINGS(BENCH_ROW) };
enum { ROWS = sizeof(rows) / sizeof(rows[0]), DECODE_PROMPT = 16 };

typedef int sgemm_function(char, char, int64_t, int64_t, int64_t, float, const float *, int64_t,
                           const float *, int64_t, float, float *, int64_t);

struct subject {
    const struct options *options;
    mc_model *model;
    mc_engine *engine;
    struct mc_model_info info;
    struct mc_engine_limits limits;
    void **pages;     /* [page_count] */
    uint32_t *tokens; /* [options->prefill] */
    uint32_t page_count;
    os_crew *crew;
    sgemm_function *sgemm; /* NULL: no oneDNN here */
};

/* One product, 512 rows by the model's gate matrix: the shape that prefill spends most time in. */
enum { PRODUCT_ROWS = 512 };
struct product {
    const struct kernels *kernels;
    struct tensor bf16, f32;
    float *x, *y, *weights;
    uint16_t *weights16, *x16;
    char *scratch;
    size_t scratch_bytes;
    struct gemm gemm;
};

static void fail(const char *what, const struct mc_error *error)
{
    fprintf(stderr, "bench infer: %s%s%s\n", what, error ? ": " : "", error ? error->text : "");
    exit(1);
}

static void *take(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);

    if (!p)
        fail("out of memory", NULL);
    os_advise_huge(p, bytes);
    memset(p, 0, bytes);
    return p;
}

/* ------------------------------------------------------------------------------------ the engine */

static void step(struct subject *s, const uint32_t *tokens, uint32_t count, uint32_t position,
                 struct mc_sample *sample)
{
    const struct mc_sampling greedy = { 0 };
    struct mc_error error = { 0 };
    struct mc_sequence sequence = {
        .tokens = tokens,
        .token_count = count,
        .position = position,
        .pages = s->pages,
        .sampling = sample ? &greedy : NULL,
        .sample = sample,
    };
    const struct mc_step one = { .sequences = &sequence, .count = 1 };

    if (mc_engine_step(s->engine, &one, &error) != MC_OK)
        fail("step", &error);
}

/* Seconds from the first chunk to the first token of the answer. */
static double prefill(struct subject *s, uint32_t count, struct mc_sample *sample)
{
    const uint64_t start_ns = os_now_ns();

    for (uint32_t at = 0; at < count; at += s->options->chunk) {
        const uint32_t left = count - at;
        const bool last = left <= s->options->chunk;
        step(s, s->tokens + at, last ? left : s->options->chunk, at, last ? sample : NULL);
    }
    return (double)(os_now_ns() - start_ns) / 1e9;
}

/* Seconds for one token, averaged over options->decode. */
static double decode(struct subject *s)
{
    struct mc_sample sample;

    prefill(s, DECODE_PROMPT, &sample);
    const uint64_t start_ns = os_now_ns();
    for (uint32_t i = 0; i < s->options->decode; i++) {
        const uint32_t token = sample.chosen.token;
        step(s, &token, 1, DECODE_PROMPT + i, &sample);
    }
    return (double)(os_now_ns() - start_ns) / 1e9 / s->options->decode;
}

/* The arithmetic of one prefill, counted as `mooncake run --timing` counts it. */
static double prefill_flop(const struct subject *s)
{
    const struct work work = work_of(&s->info, s->model->config.tied, &s->limits.layout);
    struct timing timing = { .prompt_tokens = s->options->prefill };

    timing_count(&timing, &work);
    return timing.prefill_flop;
}

/* ----------------------------------------------------------------------------------- one product */

enum { PIECE_COLUMNS = 128 }; /* as the engine cuts it */

static void product_piece(void *argument, uint32_t index, uint32_t thread)
{
    const struct product *p = argument;
    const uint32_t begin = index * PIECE_COLUMNS, end = begin + PIECE_COLUMNS;

    p->kernels->gemm(&p->gemm, begin, end < p->gemm.w->rows ? end : p->gemm.w->rows,
                     p->scratch + thread * p->scratch_bytes);
}

static double product_flops(const struct subject *s, struct product *p, const struct tensor *w)
{
    p->gemm.w = w;
    const uint64_t start_ns = os_now_ns();
    os_crew_run(s->crew, product_piece, p, (w->rows + PIECE_COLUMNS - 1) / PIECE_COLUMNS);
    return 2.0 * PRODUCT_ROWS * w->rows * w->cols * 1e9 / (double)(os_now_ns() - start_ns);
}

static double onednn_flops(const struct subject *s, const struct product *p)
{
    const int64_t n = p->f32.rows, k = p->f32.cols;
    const uint64_t start_ns = os_now_ns();

    s->sgemm('N', 'T', PRODUCT_ROWS, n, k, 1.0f, p->x, (int64_t)p->gemm.x_stride, p->weights, k,
             0.0f, p->y, (int64_t)p->gemm.y_stride);
    return 2.0 * PRODUCT_ROWS * (double)(n * k) * 1e9 / (double)(os_now_ns() - start_ns);
}

static void product_open(struct product *p, const struct subject *s)
{
    const struct mc_model *model = s->model;
    const uint32_t n = model->layers[0].gate.rows, k = model->layers[0].gate.cols;
    struct prng prng = { .seed = 1 };

    *p = (struct product){ .kernels = kernels_find(mc_engine_kernel(s->engine)) };
    p->gemm = (struct gemm){ .rows = PRODUCT_ROWS, .x_stride = k + 16, .y_stride = n + 16 };
    p->x = take(PRODUCT_ROWS * p->gemm.x_stride * sizeof(float));
    p->x16 = take(PRODUCT_ROWS * p->gemm.x_stride * sizeof(uint16_t));
    p->y = take(PRODUCT_ROWS * p->gemm.y_stride * sizeof(float));
    p->weights = take((size_t)n * k * sizeof(float));
    p->weights16 = take((size_t)n * k * sizeof(uint16_t));
    for (size_t i = 0; i < PRODUCT_ROWS * p->gemm.x_stride; i++) {
        p->x[i] = (float)prng_unit(prng_next(&prng)) - 0.5f;
        p->x16[i] = bf16_from_f32(p->x[i]);
    }
    for (size_t i = 0; i < (size_t)n * k; i++) {
        p->weights16[i] = bf16_from_f32((float)prng_unit(prng_next(&prng)) - 0.5f);
        p->weights[i] = bf16_to_f32(p->weights16[i]);
    }
    p->bf16 = (struct tensor){ p->weights16, MC_DTYPE_BF16, n, k };
    p->f32 = (struct tensor){ p->weights, MC_DTYPE_F32, n, k };
    p->gemm.x = p->x;
    p->gemm.x16 = p->x16;
    p->gemm.y = p->y;
    p->scratch_bytes = (p->kernels->gemm_scratch() + 63) / 64 * 64;
    p->scratch = take(p->scratch_bytes * os_crew_size(s->crew));
}

static void product_close(struct product *p)
{
    free(p->x);
    free(p->x16);
    free(p->y);
    free(p->weights);
    free(p->weights16);
    free(p->scratch);
}

/* ----------------------------------------------------------------------------------------- rounds */

static struct limits measure_limits(const struct subject *s, enum mc_dtype dtype)
{
    struct limits limits;
    struct mc_error error = { 0 };

    if (limits_measure(mc_engine_kernel(s->engine), dtype, s->options->threads, 3, os_alloc(),
                       &limits, &error) != MC_OK)
        fail("limits", &error);
    return limits;
}

static void run_rounds(struct subject *s, struct bench *bench)
{
    static struct samples prefills, peaks, decodes, reads, ours, ours16, theirs, peaks32;
    const double flop = prefill_flop(s) / 1e9;
    const bool progress = isatty(STDERR_FILENO) == 1;
    struct product p;
    char name[96];

    product_open(&p, s);
    for (uint32_t round = 0; round <= s->options->rounds; round++) {
        struct mc_sample sample;
        if (progress)
            fprintf(stderr, "round %u of %u\r", round, s->options->rounds);
        const struct limits limits = measure_limits(s, s->info.dtype);
        const double prefill_s = prefill(s, s->options->prefill, &sample);
        const double decode_s = decode(s);
        const double our16 = product_flops(s, &p, &p.bf16), our = product_flops(s, &p, &p.f32);
        const double their = s->sgemm ? onednn_flops(s, &p) : 0;
        const struct limits limits32 = measure_limits(s, MC_DTYPE_F32);
        if (round == 0)
            continue; /* page faults, oneDNN's code generation, cold clocks */
        samples_add(&prefills, flop / prefill_s);
        samples_add(&peaks, limits.peak_flops / 1e9);
        samples_add(&decodes, (double)s->info.weight_bytes / decode_s / 1e9);
        samples_add(&reads, limits.read_bandwidth / 1e9);
        samples_add(&ours16, our16 / 1e9);
        samples_add(&ours, our / 1e9);
        samples_add(&theirs, their / 1e9);
        samples_add(&peaks32, limits32.peak_flops / 1e9);
    }
    if (progress)
        fprintf(stderr, "%20s\r", "");
    snprintf(name, sizeof(name), "prefill %u", s->options->prefill);
    bench_row(bench, name, "throughput", "GFLOP/s", &prefills, "peak of the same instructions",
              &peaks);
    snprintf(name, sizeof(name), "decode after %d", DECODE_PROMPT);
    bench_row(bench, name, "throughput", "GB/s", &decodes, "read bandwidth", &reads);
    snprintf(name, sizeof(name), "gemm %ux%ux%u bf16 weights", PRODUCT_ROWS, p.bf16.rows,
             p.bf16.cols);
    bench_row(bench, name, "throughput", "GFLOP/s", &ours16, "peak of the same instructions",
              &peaks);
    snprintf(name, sizeof(name), "gemm %ux%ux%u f32", PRODUCT_ROWS, p.f32.rows, p.f32.cols);
    bench_row(bench, name, "throughput", "GFLOP/s", &ours, "peak of f32 multiply-adds", &peaks32);
    if (s->sgemm) {
        bench_row(bench, name, "throughput", "GFLOP/s", &ours, "oneDNN sgemm", &theirs);
        strncat(name, " oneDNN", sizeof(name) - strlen(name) - 1);
        bench_row(bench, name, "throughput", "GFLOP/s", &theirs, "peak of f32 multiply-adds",
                  &peaks32);
    } else {
        fprintf(stderr, "bench infer: libdnnl.so.2 is not here, so oneDNN's rows are left out\n");
    }
    product_close(&p);
}

/* ------------------------------------------------------------------------------------------ setup */

static void load_onednn(struct subject *s)
{
    char threads[16];

    snprintf(threads, sizeof(threads), "%u", os_crew_size(s->crew));
    setenv("OMP_NUM_THREADS", threads, 1);
    setenv("OMP_WAIT_POLICY", "PASSIVE", 1); /* its threads must not spin through our turns */
    void *library = dlopen("libdnnl.so.2", RTLD_NOW);
    void *symbol = library ? dlsym(library, "dnnl_sgemm") : NULL;
    memcpy(&s->sgemm, &symbol, sizeof(symbol));
}

static void open_subject(struct subject *s)
{
    const struct options *o = s->options;
    const struct mc_engine_options engine = { .threads = o->threads,
                                              .kernel = o->kernel,
                                              .tokens_max = o->chunk };
    struct mc_error error = { 0 };

    if (mc_model_open(o->model, NULL, &s->model, &error) != MC_OK ||
        mc_engine_open(s->model, &engine, &s->engine, &error) != MC_OK ||
        os_crew_open(o->threads, os_alloc(), &s->crew, &error) != MC_OK)
        fail("open", &error);
    mc_model_info(s->model, &s->info);
    mc_engine_limits(s->engine, &s->limits);
    const uint32_t longest =
        o->prefill > DECODE_PROMPT + o->decode ? o->prefill : DECODE_PROMPT + o->decode;
    if (longest > s->limits.context_max)
        fail("--prefill and --decode exceed the model's context", NULL);
    s->page_count = kv_pages(longest);
    s->pages = take(s->page_count * sizeof(*s->pages));
    for (uint32_t i = 0; i < s->page_count; i++)
        s->pages[i] = take(mc_kv_page_bytes(&s->limits.layout));
    s->tokens = take(longest * sizeof(*s->tokens));
    struct prng prng = { .seed = 2 };
    for (uint32_t i = 0; i < longest; i++)
        s->tokens[i] = prng_below(&prng, s->limits.vocab_size);
    load_onednn(s);
}

static void close_subject(struct subject *s)
{
    for (uint32_t i = 0; i < s->page_count; i++)
        free(s->pages[i]);
    free(s->pages);
    free(s->tokens);
    os_crew_close(s->crew);
    mc_engine_close(s->engine);
    mc_model_close(s->model);
}

static void help(void)
{
    struct buf text = BUF_INIT(os_alloc());

    setting_help(rows, ROWS, &text);
    printf("usage: bench-infer --model DIR [FLAGS]\n\n%s", text.failed ? "" : text.data);
    buf_fini(&text);
}

int main(int argc, char **argv)
{
    struct options options;
    struct settings settings;
    struct setting_list operands = { 0 };
    struct mc_error error = { 0 };
    struct bench bench;
    struct buf command = BUF_INIT(os_alloc());

    if (settings_init(&settings, rows, ROWS, &options, os_alloc(), &error) != MC_OK)
        fail("settings", &error);
    const mc_status read = settings_flags(&settings, argc - 1, argv + 1, &operands, &error);
    if (read == MC_OK && options.help) {
        help();
        return 0;
    }
    if (read == MC_OK && (!options.model || operands.count > 0 || options.chunk % 16 != 0))
        error_set(&error, MC_E_ARG, "give --model DIR, a --chunk of whole pages, and nothing else");
    if (error.status != MC_OK) {
        fprintf(stderr, "bench infer: %s\n", error.text);
        return 2;
    }
    buf_add_text(&command, "bench-infer");
    for (int i = 1; i < argc; i++)
        buf_addf(&command, " %s", argv[i]);

    struct subject subject = { .options = &options };
    open_subject(&subject);
    printf("%s, %.1f M parameters, kernel %s, %u threads\n", subject.info.architecture,
           (double)subject.info.parameters / 1e6, mc_engine_kernel(subject.engine),
           os_crew_size(subject.crew));
    bench_init(&bench, "infer", command.data, options.commit);
    run_rounds(&subject, &bench);
    const bool written = !options.json || bench_write(&bench, options.json);
    bench_fini(&bench);
    close_subject(&subject);
    buf_fini(&command);
    setting_list_fini(&operands, os_alloc());
    settings_fini(&settings);
    return written ? 0 : 1;
}
