/* family.c - fork, exec, pipes and waiting for the processes of `mooncake serve`. */
#define _GNU_SOURCE /* pipe2 */
#include "cmd/family.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "os/signals.h"

enum { READY_FD = 3 };

/* ------------------------------------------------------------------------------------- members */

static void add(struct family *f, enum member_role role, const char *work, const char *name,
                uint32_t number)
{
    static const struct supervise_child ranks[] = {
        [MEMBER_MASTER] = { .start_rank = 0, .stop_rank = 3 },
        [MEMBER_NODE] = { .start_rank = 1, .stop_rank = 2 },
        [MEMBER_GATEWAY] = { .start_rank = 1, .stop_rank = 0 },
        [MEMBER_WORKER] = { .start_rank = 2, .stop_rank = 1 },
    };
    struct member *m = &f->members[f->count];

    assert(f->count < FAMILY_MAX);
    f->children[f->count] = ranks[role];
    *m = (struct member){ .family = f, .index = f->count, .role = role, .work = work };
    m->output.fd = m->ready.fd = -1;
    if (number)
        (void)snprintf(m->name, sizeof(m->name), "%s-%u", name, number);
    else
        (void)snprintf(m->name, sizeof(m->name), "%s", name);
    f->count++;
}

void family_open(struct family *f, const struct serve_options *o, const char *model, os_loop *loop,
                 const struct family_events *events, void *user)
{
    *f = (struct family){
        .options = o, .model = model, .loop = loop, .events = events, .user = user
    };
    if (o->nodes > 0)
        add(f, MEMBER_MASTER, NULL, "master", 0);
    for (uint32_t i = 1; i <= o->nodes; i++)
        add(f, MEMBER_NODE, NULL, "node", i);
    add(f, MEMBER_GATEWAY, NULL, "gateway", 0);
    for (uint32_t i = 1; i <= o->prefill; i++)
        add(f, MEMBER_WORKER, "prefill", "prefill", i);
    for (uint32_t i = 1; i <= o->decode; i++)
        add(f, MEMBER_WORKER, "decode", "decode", i);
    for (uint32_t i = 1; i <= o->both; i++)
        add(f, MEMBER_WORKER, "both", "both", i);
}

const struct member *family_first(const struct family *f, enum member_role role)
{
    for (uint32_t i = 0; i < f->count; i++)
        if (f->members[i].role == role)
            return &f->members[i];
    return NULL;
}

/* ----------------------------------------------------------------------------------- arguments */

struct arguments {
    char *items[MEMBER_ARGUMENTS]; /* into text; ends with NULL */
    uint32_t count;
    char text[MEMBER_TEXT];
    size_t used;
    bool full;
};

static void MC_PRINTF(2, 3) say(struct arguments *a, const char *format, ...)
{
    const size_t room = sizeof(a->text) - a->used;
    va_list args;

    va_start(args, format);
    const int size = vsnprintf(a->text + a->used, room, format, args);
    va_end(args);
    if (size < 0 || (size_t)size >= room || a->count + 1 >= MEMBER_ARGUMENTS) {
        a->full = true;
        return;
    }
    a->items[a->count++] = a->text + a->used;
    a->used += (size_t)size + 1;
}

static void say_text(struct arguments *a, const char *flag, const char *value)
{
    if (value)
        say(a, "--%s=%s", flag, value);
}

/* The row's word for a choice: "auto|ref|avx2", 1 -> "ref". */
static void say_choice(struct arguments *a, const char *flag, const char *words, uint32_t choice)
{
    for (; choice > 0; choice--)
        words = strchr(words, '|') + 1;
    say(a, "--%s=%.*s", flag, (int)strcspn(words, "|"), words);
}

static void say_common(struct arguments *a, const struct family *f, const struct member *m)
{
    const struct member *master = family_first(f, MEMBER_MASTER);

    say(a, "--ready-fd=%d", READY_FD);
    say_text(a, "secret-file", f->options->secret_file);
    say_choice(a, "log-level", "error|warn|info|debug", f->options->log_level);
    if (master && master != m)
        say_text(a, "master", master->address);
}

static void say_worker(struct arguments *a, const struct family *f, const struct member *m)
{
    const struct serve_options *o = f->options;

    say(a, "--role=%s", m->work);
    say(a, "--name=%s", m->name);
    say(a, "--listen=%s", m->address[0] ? m->address : "127.0.0.1:0");
    say_text(a, "gateway", family_first(f, MEMBER_GATEWAY)->control);
    say(a, "--kv-memory=%llu", (unsigned long long)o->kv_memory);
    say(a, "--threads=%u", o->threads);
    say(a, "--sequences=%u", o->sequences);
    say(a, "--queue=%u", o->queue);
    say(a, "--chunk=%u", o->chunk);
    say(a, "--context=%u", o->context);
    say_choice(a, "kernel", "auto|ref|avx2|avx512|avx512-bf16", o->kernel);
    say_choice(a, "kv-dtype", "auto|f32|bf16", o->kv_dtype);
    say_text(a, "transports", o->transports);
    say_choice(a, "engine", "cpu|timing", o->engine);
    say_text(a, "profile", o->profile);
    say(a, "--kv-scale=%.9g", (double)o->kv_scale);
    say(a, "--");
    say(a, "%s", f->model);
}

static void say_door(struct arguments *a, const struct serve_options *o)
{
    say_text(a, "policy", o->policy);
    say_text(a, "policy-parameters", o->policy_parameters);
    say_text(a, "replication", o->replication);
    say(a, "--slo-ttft=%lluns", (unsigned long long)o->slo_ttft);
    say(a, "--slo-tbt=%lluns", (unsigned long long)o->slo_tbt);
    say_choice(a, "admission", DOOR_ADMISSIONS, o->admission);
    say_text(a, "admission-parameters", o->admission_parameters);
    say(a, "--measure=%s", o->measure ? "true" : "false");
}

static void say_gateway(struct arguments *a, const struct family *f, const struct member *m)
{
    const struct serve_options *o = f->options;

    say(a, "--listen=%s", m->address[0] ? m->address : o->listen);
    say(a, "--control=%s", m->control[0] ? m->control : "127.0.0.1:0");
    say_text(a, "model-name", o->model_name);
    say_text(a, "api-key-file", o->api_key_file); /* keys by flag go by MC_API_KEY: serve.c */
    say(a, "--requests=%u", o->requests);
    say(a, "--connections=%u", o->connections);
    say(a, "--connections-per-address=%u", o->address_connections);
    say(a, "--body=%llu", (unsigned long long)o->body);
    say(a, "--bodies=%llu", (unsigned long long)o->bodies);
    say(a, "--headers=%llu", (unsigned long long)o->headers);
    say(a, "--receive-timeout=%lluns", (unsigned long long)o->receive_timeout);
    say(a, "--idle-timeout=%lluns", (unsigned long long)o->idle_timeout);
    say(a, "--request-timeout=%lluns", (unsigned long long)o->request_timeout);
    if (o->insecure)
        say(a, "--insecure");
    if (o->debug_headers)
        say(a, "--debug-headers");
    say_text(a, "record", o->record);
    say_door(a, o);
    say(a, "--");
    say(a, "%s", f->model);
}

static uint64_t timing_objects(uint64_t pool_memory)
{
    enum { OBJECT_BYTES = 384, OBJECTS_MOST = 1 << 22 };
    const uint64_t objects = pool_memory / OBJECT_BYTES;

    return objects < OBJECTS_MOST ? objects : OBJECTS_MOST;
}

static void say_all(struct arguments *a, const struct family *f, const struct member *m)
{
    static const char *const commands[] = { "master", "node", "gateway", "worker" };

    say(a, "mooncake");
    say(a, "%s", commands[m->role]);
    say_common(a, f, m);
    switch (m->role) {
    case MEMBER_MASTER:
        say(a, "--listen=%s", m->address[0] ? m->address : "127.0.0.1:0");
        break;
    case MEMBER_NODE:
        say(a, "--name=%s", m->name);
        say(a, "--listen=127.0.0.1:0"); /* MC_LISTEN is the gateway's */
        say(a, "--memory=%llu", (unsigned long long)f->options->pool_memory);
        if (f->options->engine == PROFILE_TIMING) /* their blocks are small */
            say(a, "--objects=%llu", (unsigned long long)timing_objects(f->options->pool_memory));
        say_text(a, "transports", f->options->transports);
        break;
    case MEMBER_GATEWAY:
        say_gateway(a, f, m);
        break;
    case MEMBER_WORKER:
        say_worker(a, f, m);
        break;
    }
}

/* --------------------------------------------------------------------------------------- pipes */

static void end_watch(struct member *m, struct os_watch *watch)
{
    if (watch->fd < 0)
        return;
    os_loop_unwatch(m->family->loop, watch);
    close(watch->fd);
    watch->fd = -1;
}

static void print_line(const struct member *m, const char *text, size_t size)
{
    char line[MEMBER_LINE + 40];

    const int length = snprintf(line, sizeof(line), "%-9s | %.*s\n", m->name, (int)size, text);
    if (length > 0 && write(STDERR_FILENO, line, (size_t)length) < 0)
        return; /* nowhere to say it */
}

/* Print the whole lines of what is there, and the rest too if `all`. */
static void print_lines(struct member *m, bool all)
{
    size_t begin = 0;

    for (size_t i = 0; i < m->line_size; i++)
        if (m->line[i] == '\n') {
            print_line(m, m->line + begin, i - begin);
            begin = i + 1;
        }
    if (begin < m->line_size && (all || (begin == 0 && m->line_size == sizeof(m->line)))) {
        print_line(m, m->line + begin, m->line_size - begin);
        begin = m->line_size;
    }
    m->line_size -= begin;
    memmove(m->line, m->line + begin, m->line_size);
}

static void on_output(void *user, uint32_t events)
{
    struct member *m = user;

    (void)events;
    const ssize_t got = read(m->output.fd, m->line + m->line_size, sizeof(m->line) - m->line_size);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got > 0)
        m->line_size += (size_t)got;
    print_lines(m, got <= 0);
    if (got <= 0)
        end_watch(m, &m->output);
}

/* "key=" in "ready address=1.2.3.4:5 control=..." to a field. */
static void take_value(const char *line, const char *key, char *value, size_t capacity)
{
    const char *at = strstr(line, key);

    if (!at)
        return;
    at += strlen(key);
    const size_t size = strcspn(at, " \n");
    if (size < capacity) {
        memcpy(value, at, size);
        value[size] = '\0';
    }
}

static void on_ready(void *user, uint32_t events)
{
    struct member *m = user;
    const size_t room = sizeof(m->ready_line) - 1 - m->ready_size;

    (void)events;
    const ssize_t got = room ? read(m->ready.fd, m->ready_line + m->ready_size, room) : 0;
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) { /* it is gone, or talks nonsense: its exit will tell */
        end_watch(m, &m->ready);
        return;
    }
    m->ready_size += (size_t)got;
    m->ready_line[m->ready_size] = '\0';
    if (!strchr(m->ready_line, '\n'))
        return;
    take_value(m->ready_line, " address=", m->address, sizeof(m->address));
    take_value(m->ready_line, " control=", m->control, sizeof(m->control));
    end_watch(m, &m->ready);
    m->family->events->ready(m->family->user, m->index);
}

/* --------------------------------------------------------------------------------------- start */

/* In the child, between fork and exec: nothing that allocates or locks. */
static void become(const struct arguments *a, pid_t parent, int output, int ready)
{
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1); /* it died before the line above */
    os_signals_release();
    const int nothing = open("/dev/null", O_RDONLY);
    /* `ready` may be any number above 2; the others go first so that 3 is free for it. */
    if (nothing < 0 || dup2(nothing, STDIN_FILENO) < 0 || dup2(output, STDOUT_FILENO) < 0 ||
        dup2(output, STDERR_FILENO) < 0)
        _exit(1);
    if (ready == READY_FD ? fcntl(ready, F_SETFD, 0) < 0 : dup2(ready, READY_FD) < 0)
        _exit(1);
    execv("/proc/self/exe", (char *const *)a->items);
    _exit(1);
}

static mc_status watch(struct member *m, struct os_watch *watch, int fd,
                       void (*ready)(void *, uint32_t))
{
    *watch = (struct os_watch){ .fd = fd, .ready = ready, .user = m };
    return os_loop_watch(m->family->loop, watch, OS_READABLE);
}

mc_status family_start(struct family *f, uint32_t index, struct mc_error *error)
{
    struct member *m = &f->members[index];
    struct arguments a = { 0 };
    int output[2], ready[2];

    assert(m->pid == 0);
    say_all(&a, f, m);
    if (a.full)
        return error_set(error, MC_E_RANGE, "%s: arguments longer than %d bytes", m->name,
                         MEMBER_TEXT);
    if (pipe2(output, O_CLOEXEC) < 0)
        return error_set(error, MC_E_IO, "%s: pipe: %s", m->name, strerror(errno));
    if (pipe2(ready, O_CLOEXEC) < 0) {
        close(output[0]);
        close(output[1]);
        return error_set(error, MC_E_IO, "%s: pipe: %s", m->name, strerror(errno));
    }
    /* A supervisor that is stopped, or whose terminal is, must not stop its members: lines are lost instead. */
    (void)fcntl(output[1], F_SETFL, O_NONBLOCK);
    const pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        become(&a, parent, output[1], ready[1]);
    const int reason = errno;
    close(output[1]);
    close(ready[1]);
    (void)fcntl(output[0], F_SETFL, O_NONBLOCK);
    (void)fcntl(ready[0], F_SETFL, O_NONBLOCK);
    m->line_size = m->ready_size = 0;
    end_watch(m, &m->output);
    end_watch(m, &m->ready);
    mc_status status = watch(m, &m->output, output[0], on_output);
    if (status == MC_OK)
        status = watch(m, &m->ready, ready[0], on_ready);
    else
        close(ready[0]);
    if (pid < 0)
        return error_set(error, MC_E_IO, "%s: fork: %s", m->name, strerror(reason));
    m->pid = pid;
    return status == MC_OK ? MC_OK : error_set(error, status, "%s: its pipes", m->name);
}

void family_signal(const struct family *f, uint32_t index, int number)
{
    if (f->members[index].pid > 0)
        kill(f->members[index].pid, number);
}

/* ---------------------------------------------------------------------------------------- reap */

static void last_words(struct member *m)
{
    while (m->output.fd >= 0) {
        const size_t before = m->line_size;
        on_output(m, 0);
        if (m->line_size == before)
            return; /* the pipe is empty, and somebody else holds its other end */
    }
}

static void reap(struct family *f, struct member *m)
{
    siginfo_t info;

    while (m->pid > 0) {
        info.si_pid = 0;
        if (waitid(P_PID, (id_t)m->pid, &info, WEXITED | WSTOPPED | WCONTINUED | WNOHANG) < 0 ||
            info.si_pid == 0)
            return;
        switch (info.si_code) {
        case CLD_STOPPED:
        case CLD_CONTINUED:
            f->events->stopped(f->user, m->index, info.si_code == CLD_STOPPED);
            break;
        case CLD_EXITED:
            m->pid = 0;
            last_words(m);
            f->events->exited(f->user, m->index, info.si_status);
            break;
        case CLD_KILLED:
        case CLD_DUMPED:
            m->pid = 0;
            last_words(m);
            f->events->exited(f->user, m->index, 128 + info.si_status);
            break;
        default:
            break;
        }
    }
}

void family_reap(struct family *f)
{
    for (uint32_t i = 0; i < f->count; i++)
        reap(f, &f->members[i]);
}

void family_close(struct family *f)
{
    for (uint32_t i = 0; i < f->count; i++) {
        print_lines(&f->members[i], true);
        end_watch(&f->members[i], &f->members[i].output);
        end_watch(&f->members[i], &f->members[i].ready);
    }
}
