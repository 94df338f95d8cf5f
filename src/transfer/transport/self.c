/*
 * self.c - a process's own memory: a copy, under the same pins and checks as a peer's access.
 *
 * Copies are made in poll, in pieces of COPY_MAX with a pin of its own each, so that a revoke waits for
 * one piece and not for a slice; at most POLL_BYTES for each poll, so that one queue keeps nobody waiting.
 */
#include "transfer/transport/table.h"

#include <assert.h>
#include <string.h>

#include "base/crc.h"
#include "transfer/copy.h"

enum { DEPTH = 256, COPY_MAX = 1 << 20, POLL_BYTES = 8 << 20, PIECE = 64 << 10 };

struct self {
    struct transport_env env;
    struct copier copier;
};

struct self_queue {
    struct self *self;
    struct transport_slice *slices[DEPTH]; /* a ring */
    uint32_t first, count;
    uint64_t done;         /* bytes of the first one */
    mc_status reason;      /* not MC_OK: what is there is called back */
    uint32_t reason_count; /* how many of the first ones it is for */
};

static mc_status self_probe(const struct transport_env *env, struct transport_caps *caps_p)
{
    (void)env;
    *caps_p = (struct transport_caps){
        .flags = TRANSPORT_SAME_HOST | TRANSPORT_CHECKSUM,
        .queue_depth = DEPTH,
        .slice_max = (uint64_t)64 << 20,
        .slice_best = (uint64_t)8 << 20,
        .bytes_per_s = UINT64_C(10000000000),
        .paths = 1,
        .found = "this process",
    };
    return MC_OK;
}

static mc_status self_open(void *transport, const struct transport_env *env, struct mc_error *error)
{
    struct self *self = transport;

    (void)error;
    self->env = *env;
    copier_init(&self->copier);
    return MC_OK;
}

static void self_close(void *transport)
{
    (void)transport;
}

/* Nobody else reaches it. */
static mc_status self_describe(void *transport, uint8_t address[TRANSPORT_KEY_MAX], size_t *size_p)
{
    (void)transport;
    (void)address;
    *size_p = 0;
    return MC_OK;
}

static mc_status self_queue_open(void *transport, const struct transport_peer *peer, void *queue,
                                 struct mc_error *error)
{
    struct self_queue *q = queue;
    struct self *self = transport;

    (void)error;
    if (peer->incarnation != self->env.incarnation)
        return MC_E_STALE;
    q->self = self;
    return MC_OK;
}

static mc_status self_post(void *queue, struct transport_slice *const *slices, uint32_t count,
                           uint32_t *posted_p)
{
    struct self_queue *q = queue;
    uint32_t posted = 0;

    for (; posted < count && q->count < DEPTH; posted++, q->count++)
        q->slices[(q->first + q->count) % DEPTH] = slices[posted];
    *posted_p = posted;
    return MC_OK;
}

/* Memory to memory nothing is lost, but who asks for a check gets one. */
static mc_status copy_checked(char *to, const char *from, uint64_t size)
{
    for (uint64_t at = 0; at < size; at += PIECE) {
        const size_t piece = size - at < PIECE ? size - at : PIECE;
        const uint32_t sum = crc32c_copy(0, to + at, from + at, piece);
        if (crc32c(0, to + at, piece) != sum)
            return MC_E_CORRUPT;
    }
    return MC_OK;
}

/* Ranges that overlap are moved as one, and cannot be compared: writing the one changes the other. */
static mc_status copy(const struct self *self, const struct transport_slice *slice, char *to,
                      const char *from, uint64_t size)
{
    const uintptr_t a = (uintptr_t)to, b = (uintptr_t)from;

    if (a < b + size && b < a + size)
        memmove(to, from, size);
    else if (slice->flags & 1)
        return copy_checked(to, from, size);
    else
        copier_copy(&self->copier, to, from, size, slice->length);
    return MC_OK;
}

/* One piece of a slice. */
static mc_status copy_piece(struct self_queue *q, const struct transport_slice *slice,
                            uint64_t length)
{
    struct transport_access access = slice->remote;
    const struct transport_env *env = &q->self->env;
    char *local = (char *)slice->local + q->done;
    void *there = NULL;
    uint64_t pin = 0;

    access.offset += q->done;
    access.length = length;
    const mc_status status = env->pin(env->engine, &access, &there, &pin);
    if (status != MC_OK)
        return status;
    char *to = slice->op == MC_READ ? local : there;
    const char *from = slice->op == MC_READ ? there : local;
    const mc_status copied = copy(q->self, slice, to, from, length);
    env->unpin(env->engine, pin);
    return copied;
}

static void take_first(struct self_queue *q, mc_status status,
                       struct transport_completion *completion)
{
    *completion = (struct transport_completion){ .slice = q->slices[q->first],
                                                 .status = status,
                                                 .bytes = q->done };
    q->first = (q->first + 1) % DEPTH;
    q->count--;
    q->done = 0;
    if (q->reason_count > 0)
        q->reason_count--;
}

static mc_status self_poll(void *queue, uint64_t now_ns, struct transport_completion *completions,
                           uint32_t max, uint32_t *count_p)
{
    struct self_queue *q = queue;
    uint64_t budget = POLL_BYTES;
    uint32_t count = 0;

    (void)now_ns;
    while (q->count > 0 && count < max && budget > 0) {
        const struct transport_slice *slice = q->slices[q->first];
        const uint64_t left = slice->length - q->done;
        if (q->reason_count > 0) {
            take_first(q, left == 0 ? MC_OK : q->reason, &completions[count++]);
            continue;
        }
        uint64_t length = left < COPY_MAX ? left : COPY_MAX;
        length = length < budget ? length : budget;
        const mc_status status = copy_piece(q, slice, length);
        if (status == MC_OK) {
            q->done += length;
            budget -= length;
        }
        if (status != MC_OK || q->done == slice->length)
            take_first(q, status, &completions[count++]);
    }
    *count_p = count;
    return MC_OK;
}

static void self_cancel(void *queue, mc_status reason)
{
    struct self_queue *q = queue;

    q->reason = reason;
    q->reason_count = q->count;
}

static mc_status self_queue_close(void *queue)
{
    struct self_queue *q = queue;

    self_cancel(queue, MC_E_CANCELLED);
    return q->count == 0 ? MC_OK : MC_E_BUSY;
}

const struct transport_ops transport_self = {
    .abi = TRANSPORT_ABI,
    .name = "self",
    .transport_bytes = sizeof(struct self),
    .queue_bytes = sizeof(struct self_queue),
    .probe = self_probe,
    .open = self_open,
    .close = self_close,
    .describe = self_describe,
    .queue_open = self_queue_open,
    .post = self_post,
    .poll = self_poll,
    .cancel = self_cancel,
    .queue_close = self_queue_close,
};
