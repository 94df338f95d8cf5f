/* role.c - settings, log, secret, loop and signals of a process that serves. */
#define _POSIX_C_SOURCE 200809L
#include "cmd/role.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"
#include "cmd/cmd.h"
#include "os/address.h"
#include "os/clock.h"
#include "os/file.h"
#include "os/sysalloc.h"
#include "os/thread.h"

extern char **environ;

enum { CONFIG_BYTES_MAX = 1 << 20, SECRET_MIN = 16, SECRET_MAX = 1024, LINE_MAX_BYTES = 1200 };

/* ------------------------------------------------------------------------------------- settings */

static mc_status read_config(const struct role_common *common, struct role_asked *asked,
                             struct mc_error *error)
{
    size_t size;

    if (!common->config)
        return MC_OK;
    const mc_status status = os_file_read(common->config, CONFIG_BYTES_MAX, asked->alloc,
                                          &asked->config_text, &size, error);
    if (status != MC_OK)
        return status == MC_E_NOMEM ? status : MC_E_IO; /* not a matter of usage */
    return settings_config(&asked->settings, asked->config_text, size, common->config, error);
}

static mc_status check_operands(const struct role_table *table, const struct role_asked *asked,
                                struct mc_error *error)
{
    const uint32_t count = asked->operands.count;

    if (count < table->operands)
        return error_set(error, MC_E_ARG, "%s", table->operand_help);
    if (count > table->operands)
        return error_set(error, MC_E_ARG, "\"%.80s\": %s", asked->operands.items[table->operands],
                         table->operand_help);
    return MC_OK;
}

static mc_status read_all(const struct role_table *table, int argc, char **argv, void *options,
                          struct role_asked *asked, struct mc_error *error)
{
    const struct role_common *common = options;

    mc_status status =
        settings_init(&asked->settings, table->rows, table->count, options, asked->alloc, error);
    if (status == MC_OK)
        status = settings_flags(&asked->settings, argc - 1, argv + 1, &asked->operands, error);
    if (status != MC_OK || common->help)
        return status; /* help must come also where the environment is wrong */
    status = settings_env(&asked->settings, environ, error);
    if (status == MC_OK)
        status = read_config(common, asked, error);
    if (status != MC_OK || common->print_config)
        return status;
    status = check_operands(table, asked, error);
    if (status == MC_OK && table->check)
        status = table->check(options, &asked->settings, error);
    return status;
}

static int print_config(const struct role_table *table, const struct role_asked *asked)
{
    struct buf out = BUF_INIT(asked->alloc);

    settings_print(&asked->settings, &out);
    const bool done = !out.failed && command_write(table->name, out.data, out.size);
    buf_fini(&out);
    return done ? CMD_OK : CMD_FAILED;
}

int role_read(const struct role_table *table, int argc, char **argv, void *options,
              struct role_asked *asked)
{
    const struct role_common *common = options;
    struct mc_error error = { 0 };

    *asked = (struct role_asked){ .alloc = os_alloc() };
    const mc_status status = read_all(table, argc, argv, options, asked, &error);
    if (status != MC_OK) {
        command_complain(table->name, "%s", error.text);
        return status == MC_E_ARG || status == MC_E_RANGE ? CMD_USAGE : CMD_FAILED;
    }
    if (common->help)
        return command_print(table->name, table->help);
    return common->print_config ? print_config(table, asked) : -1;
}

mc_status role_check_address(const char *flag, const char *text, struct mc_error *error)
{
    struct os_address address;

    const mc_status status = text ? os_address_parse(text, &address, error) : MC_OK;
    return status == MC_OK ? MC_OK : error_prefix(error, status, "--%s", flag);
}

mc_status role_check_masters(const char *text, struct mc_error *error)
{
    char one[256];
    mc_status status = MC_OK;

    while (text && status == MC_OK) {
        const size_t size = strcspn(text, ";");
        const int most = size < sizeof(one) ? (int)size : (int)sizeof(one) - 1;
        (void)snprintf(one, sizeof(one), "%.*s", most, text);
        status = role_check_address("master", one, error);
        text = text[size] ? text + size + 1 : NULL;
    }
    return status;
}

void role_asked_fini(struct role_asked *asked)
{
    if (!asked->alloc)
        return;
    settings_fini(&asked->settings);
    setting_list_fini(&asked->operands, asked->alloc);
    alloc_free(asked->alloc, asked->config_text);
}

/* ------------------------------------------------------------------------------------------ log */

/* One write for a line, so that lines of threads do not mix; a pipe takes all of it or nothing. */
static bool put_line(const struct role *role, enum mc_log_level level, const char *line,
                     size_t size)
{
    static const char *const names[] = { "error", "warn", "info", "debug" };
    char date[21], text[LINE_MAX_BYTES];

    const int most = size < LINE_MAX_BYTES - 100 ? (int)size : LINE_MAX_BYTES - 100;
    const int length =
        snprintf(text, sizeof(text), "%s %s level=%s %.*s\n", os_date_text(os_date_s(), date),
                 role->name, names[level], most, line);
    return length <= 0 || write(STDERR_FILENO, text, (size_t)length) >= 0;
}

static void write_line(void *context, enum mc_log_level level, const char *line, size_t size)
{
    struct role *role = context;
    char text[64];

    const uint32_t lost = atomic_exchange_explicit(&role->lost, 0, memory_order_relaxed);
    const int length = snprintf(text, sizeof(text), "event=log_lines_lost lines=%u", lost);
    if (lost > 0 && !put_line(role, MC_LOG_WARN, text, (size_t)length))
        atomic_fetch_add_explicit(&role->lost, lost, memory_order_relaxed);
    if (!put_line(role, level, line, size))
        atomic_fetch_add_explicit(&role->lost, 1, memory_order_relaxed);
}

/* --------------------------------------------------------------------------------------- begin */

static mc_status read_secret(struct role *role, struct mc_error *error)
{
    const char *path = role->common->secret_file;

    if (!path)
        return MC_OK;
    const mc_status status =
        os_file_read(path, SECRET_MAX, role->alloc, &role->secret, &role->secret_size, error);
    if (status != MC_OK)
        return error_prefix(error, status, "--secret-file");
    if (role->secret_size < SECRET_MIN)
        return error_set(error, MC_E_RANGE, "--secret-file: %s: %zu bytes; a secret has %d to %d",
                         path, role->secret_size, SECRET_MIN, SECRET_MAX);
    return MC_OK;
}

static void on_signal(void *user, int number)
{
    struct role *role = user;

    if (number == SIGHUP && role->common->ready_fd == 0)
        number = SIGTERM; /* the terminal is gone */
    if (number != SIGINT && number != SIGTERM)
        return;
    role->signal = role->signal ? role->signal : number;
    if (++role->asked_to_end == 1 && role->drain)
        role->drain(role->user);
    else
        role_stop(role, CMD_OK);
}

static mc_status begin(struct role *role, struct mc_error *error)
{
    static const int numbers[] = { SIGINT, SIGTERM, SIGHUP, 0 };

    mc_status status = read_secret(role, error);
    if (status == MC_OK)
        status = os_loop_open(role->alloc, &role->loop, error);
    if (status == MC_OK)
        status = os_signals_open(&role->signals, role->loop, numbers, error);
    return status;
}

int role_begin(struct role *role, const char *name, const struct role_common *common,
               const struct mc_alloc *alloc)
{
    struct mc_error error = { 0 };

    *role = (struct role){ .name = name, .alloc = alloc, .common = common };
    role->signals = (struct os_signals){ .came = on_signal, .user = role };
    role->log = (struct mc_log){ write_line, role, (enum mc_log_level)common->log_level };
    os_thread_name("mooncake"); /* started by `serve` it would be called "exe" */
    if (begin(role, &error) == MC_OK)
        return -1;
    command_complain(name, "%s", error.text);
    return CMD_FAILED;
}

void role_ready(struct role *role, const char *format, ...)
{
    char line[LINE_MAX_BYTES];
    va_list args;

    va_start(args, format);
    const int head = snprintf(line, sizeof(line), "ready ");
    int size = head + vsnprintf(line + head, sizeof(line) - (size_t)head - 1, format, args);
    va_end(args);
    size = size < LINE_MAX_BYTES - 2 ? size : LINE_MAX_BYTES - 2;
    if (MC_LOG_INFO <= role->log.level_max) {
        char text[LINE_MAX_BYTES + 16];
        const int length = snprintf(text, sizeof(text), "event=%s", line);
        write_line(role, MC_LOG_INFO, text, (size_t)length);
    }
    if (role->common->ready_fd == 0)
        return;
    line[size++] = '\n';
    /* Who started us may be gone: then the parent-death signal says it louder. */
    if (write((int)role->common->ready_fd, line, (size_t)size) < 0 ||
        close((int)role->common->ready_fd) < 0)
        return;
}

int role_run(struct role *role)
{
    os_loop_run(role->loop);
    return role->code;
}

void role_stop(struct role *role, int code)
{
    role->code = code;
    os_loop_stop(role->loop);
}

void role_end(struct role *role)
{
    if (!role->alloc)
        return;
    os_signals_close(&role->signals);
    os_loop_close(role->loop);
    if (role->secret)
        memset(role->secret, 0, role->secret_size);
    alloc_free(role->alloc, role->secret);
}
