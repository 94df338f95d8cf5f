/* workers.c - the workers there are: found by id and name, registered, heard of. */
#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "gateway/control.h"
#include "gateway/measure.h"

static_assert(offsetof(struct mc_cost, reserved) == 11 * sizeof(double), "as it is registered");
enum { COST_NUMBERS = 11 };

/* --------------------------------------------------------------------------------------- finding */

struct worker *gateway_control_find(const gateway *g, uint64_t instance)
{
    for (struct worker *w = g->workers; w && instance; w = w->next)
        if (w->as_instance.id == instance)
            return w;
    return NULL;
}

const struct worker *gateway_control_find_name(const gateway *g, const char *name)
{
    for (const struct worker *w = g->workers; w; w = w->next)
        if (w->as_instance.id && strcmp(w->name, name) == 0)
            return w;
    return NULL;
}

const char *gateway_worker_name(const struct worker *w)
{
    return w->name;
}

uint64_t gateway_worker_instance(const struct worker *w)
{
    return w->as_instance.id;
}

uint64_t gateway_worker_incarnation(const struct worker *w)
{
    return w->incarnation;
}

const char *gateway_worker_address(const struct worker *w)
{
    return w->address;
}

bool gateway_control_can_serve(const gateway *g)
{
    uint32_t roles = 0;

    for (const struct worker *w = g->workers; w; w = w->next)
        if (w->as_instance.id && !w->draining)
            roles |= w->as_instance.role;
    return (roles & MC_ROLE_BOTH) == MC_ROLE_BOTH;
}

uint32_t gateway_control_context_max(const gateway *g)
{
    uint64_t least = g->info.context_max;

    /* Who comes while all are lost is waited with, not turned away for what the next ones may take. */
    if (g->context_max && gateway_workers_count(g) == 0)
        return g->context_max;
    for (const struct worker *w = g->workers; w; w = w->next)
        if (w->as_instance.id && w->timing) /* not of this model, whose text they only borrow */
            least = UINT32_MAX;
    for (const struct worker *w = g->workers; w; w = w->next)
        if (w->as_instance.id && w->context_max < least)
            least = w->context_max;
    return (uint32_t)least;
}

uint32_t gateway_workers_count(const gateway *g)
{
    uint32_t count = 0;

    for (const struct worker *w = g->workers; w; w = w->next)
        count += w->as_instance.id != 0;
    return count;
}

/* --------------------------------------------------------------------------------- registration */

static bool take_text(const struct wire_slice *slice, char *text, size_t capacity)
{
    if (slice->size == 0 || slice->size >= capacity)
        return false;
    memcpy(text, slice->data, slice->size);
    text[slice->size] = '\0';
    return true;
}

static bool is_model(const gateway *g, const struct wire_slice *name)
{
    const char *known[] = { g->info.name, g->defaults.model };

    for (int i = 0; i < 2; i++)
        if (strlen(known[i]) == name->size && memcmp(known[i], name->data, name->size) == 0)
            return true;
    return false;
}

static bool others_registered(const gateway *g, const struct worker *w)
{
    for (const struct worker *other = g->workers; other; other = other->next)
        if (other != w && other->as_instance.id)
            return true;
    return false;
}

static bool is_layout(const gateway *g, const struct wire_layout *l)
{
    return l->layers == g->info.layers && l->kv_heads == g->info.kv_heads &&
           l->head_dim == g->info.head_dim;
}

/* Whether it can serve what this gateway serves, together with the workers there are. */
static mc_status check(const gateway *g, const struct worker *w,
                       const struct wire_worker_register *r, struct mc_error *why)
{
    const struct wire_layout *l = &r->layout;

    if (r->role < MC_ROLE_PREFILL || r->role > MC_ROLE_BOTH)
        return error_set(why, MC_E_UNSUPPORTED, "role %u is not one of a worker", r->role);
    if (!is_model(g, &r->model))
        return error_set(why, MC_E_ARG, "it serves the model \"%.*s\", this gateway \"%s\"",
                         (int)(r->model.size < 100 ? r->model.size : 100),
                         (const char *)r->model.data, g->info.name);
    if (r->cost.count == 0 && !is_layout(g, l))
        return error_set(why, MC_E_ARG,
                         "its pages are of another model: %u layers, %u KV heads of %u; the "
                         "gateway's has %u, %u of %u",
                         l->layers, l->kv_heads, l->head_dim, g->info.layers, g->info.kv_heads,
                         g->info.head_dim);
    if (l->page_tokens == 0 || l->page_bytes == 0)
        return error_set(why, MC_E_RANGE, "pages of nothing");
    if (r->kv_tokens_max == 0 || r->sequences_max == 0 || r->context_max == 0)
        return error_set(why, MC_E_RANGE, "a limit of 0 serves nobody");
    if (g->has_fingerprint && others_registered(g, w) &&
        memcmp(&g->fingerprint, &r->fingerprint, sizeof(g->fingerprint)) != 0)
        return error_set(why, MC_E_ARG,
                         "its fingerprint is not that of the workers there are: other weights, KV "
                         "dtype or kernel class (--kernel, --kv-dtype); their pages would not fit");
    return MC_OK;
}

/* Of a timing model, which knows; others are observed. What it says is checked by the scheduler. */
static void read_cost(const struct wire_worker_register *r, struct mc_cost *cost)
{
    double numbers[COST_NUMBERS] = { 0 };

    for (uint32_t i = 0; i < r->cost.count && i < COST_NUMBERS; i++) {
        const uint64_t bits = wire_u64_at(&r->cost, i);
        memcpy(&numbers[i], &bits, sizeof(bits));
    }
    memcpy(cost, numbers, sizeof(numbers));
}

static struct mc_sched_instance as_instance(gateway *g, const struct wire_worker_register *r)
{
    struct mc_sched_instance instance = {
        .id = ++g->last_instance,
        .role = r->role,
        .kv_tokens_max = r->kv_tokens_max,
        .sequences_max = r->sequences_max,
        .chunk_tokens = r->chunk_tokens,
        .kv_token_bytes = r->layout.page_bytes / r->layout.page_tokens,
    };

    if (r->kv_token_bytes)
        instance.kv_token_bytes = r->kv_token_bytes;
    memcpy(&instance.host, r->host.bytes, sizeof(instance.host));
    read_cost(r, &instance.cost);
    return instance;
}

static mc_status keep(struct worker *w, const struct wire_worker_register *r, struct mc_error *why)
{
    gateway *g = w->gateway;

    if (!take_text(&r->name, w->name, sizeof(w->name)) ||
        !take_text(&r->address, w->address, sizeof(w->address)))
        return error_set(why, MC_E_RANGE, "a name or address of 1 to %d bytes is wanted",
                         MC_NAME_MAX);
    w->incarnation = r->incarnation;
    w->context_max = r->context_max;
    w->timing = r->cost.count > 0;
    w->as_instance = as_instance(g, r);
    const struct mc_sched_event event = { .kind = MC_EVENT_INSTANCE, .instance = w->as_instance };
    const mc_status status = gateway_schedule(g, &event);
    if (status != MC_OK) {
        w->as_instance.id = 0;
        return error_set(why, status, "%s",
                         status == MC_E_ARG ? "its role or its costs are none that there could be"
                                            : "the scheduler takes no more instances");
    }
    g->fingerprint = r->fingerprint;
    g->has_fingerprint = true;
    return MC_OK;
}

static void refuse(struct worker *w, uint64_t id, const struct wire_worker_register *r,
                   const struct mc_error *why)
{
    gateway *g = w->gateway;

    metric_add(&g->metrics, METRIC_rejected, 0, 1);
    gateway_log(&g->log, MC_LOG_ERROR, "event=worker_refused worker=%.*s why=\"%s\"",
                (int)(r->name.size < 100 ? r->name.size : 100), (const char *)r->name.data,
                why->text);
    (void)net_answer_outcome(w->conn, id, why->status, why->text);
}

void gateway_worker_enlist(struct worker *w, uint64_t id, const struct wire_worker_register *r)
{
    gateway *g = w->gateway;
    struct mc_error why = { 0 };
    mc_status status = MC_OK;

    if (w->as_instance.id)
        status = error_set(&why, MC_E_EXISTS, "this connection has registered already");
    if (status == MC_OK)
        status = check(g, w, r, &why);
    if (status == MC_OK)
        status = keep(w, r, &why);
    if (status != MC_OK) {
        refuse(w, id, r, &why);
        return;
    }
    const struct wire_worker_registered answer = { .instance = w->as_instance.id,
                                                   .report_ns = g->options.report_ns };
    metric_add(&g->metrics, METRIC_registered, 0, 1);
    metric_set(&g->metrics, METRIC_workers, 0, gateway_workers_count(g));
    gateway_log(&g->log, MC_LOG_INFO,
                "event=worker_registered instance=%" PRIu64
                " worker=%s role=%u address=%s kv_tokens=%" PRIu64 " kernel=%.*s",
                w->as_instance.id, w->name, r->role, w->address, r->kv_tokens_max,
                (int)(r->kernel.size < 32 ? r->kernel.size : 32),
                r->kernel.size ? (const char *)r->kernel.data : "");
    g->context_max = gateway_control_context_max(g);
    gateway_worker_lease(w, g->options.first_lease_ns);
    if (net_answer(w->conn, id, WIRE_WORKER_REGISTERED, &answer) != MC_OK) {
        gateway_worker_drop(w, "its registration cannot be answered");
        return;
    }
    gateway_measure_soon(g);
    gateway_pump(g); /* who waits for a worker may go on */
}

/* --------------------------------------------------------------------------------------- reports */

static void take_draining(struct worker *w, bool draining)
{
    struct mc_sched_event event = { .kind = MC_EVENT_INSTANCE_DRAIN, .id = w->as_instance.id };

    if (w->draining == draining)
        return;
    w->draining = draining;
    if (!draining)
        event = (struct mc_sched_event){ .kind = MC_EVENT_INSTANCE, .instance = w->as_instance };
    gateway_schedule(w->gateway, &event);
    gateway_log(&w->gateway->log, MC_LOG_INFO, "event=worker_%s instance=%" PRIu64 " worker=%s",
                draining ? "draining" : "back", w->as_instance.id, w->name);
}

void gateway_worker_load(struct worker *w, const struct wire_load_report *l)
{
    gateway *g = w->gateway;
    struct mc_sched_event event = {
        .kind = MC_EVENT_LOAD,
        .load = { .id = w->as_instance.id,
                  .lease_ns = l->lease_ns,
                  .queued = l->queued,
                  .queued_tokens = l->queued_tokens,
                  .running = l->running,
                  .context_tokens = l->context_tokens,
                  .free_tokens = l->free_tokens,
                  .send_bytes = l->send_bytes,
                  .receive_bytes = l->receive_bytes,
                  .latest = l->latest },
    };

    if (l->instance != w->as_instance.id)
        return;
    gateway_worker_heard(w, l->lease_ns);
    w->load = *l;
    take_draining(w, l->draining);
    gateway_schedule(g, &event);
    if (l->step_ns && l->running) {
        event = (struct mc_sched_event){ .kind = MC_EVENT_DECODE_STEP,
                                         .progress = { .id = w->as_instance.id,
                                                       .tokens = l->context_tokens,
                                                       .sequences = l->running,
                                                       .duration_ns = l->step_ns } };
        gateway_schedule(g, &event);
    }
    gateway_pump(g);
}
