/* command.c - the table of commands, help and version. */
#define _POSIX_C_SOURCE 200809L
#include "cmd/cmd.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/setting.h"
#include "os/sysalloc.h"

static const struct command *const commands[] = { &command_serve,  &command_run,   &command_gateway,
                                                  &command_worker, &command_node,  &command_master,
                                                  &command_stats,  &command_bench, &command_sim,
                                                  &command_trace };
enum { COMMANDS = sizeof(commands) / sizeof(commands[0]) };

void command_complain(const char *name, const char *format, ...)
{
    va_list args;

    flockfile(stderr); /* one line, also while another thread speaks */
    fprintf(stderr, "mooncake%s%s: ", name ? " " : "", name ? name : "");
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    funlockfile(stderr);
}

bool command_write(const char *name, const char *text, size_t size)
{
    errno = 0;
    if (fwrite(text, 1, size, stdout) == size && fflush(stdout) == 0)
        return true;
    command_complain(name, "standard output: cannot write: %s", strerror(errno));
    return false;
}

int command_print(const char *name, void (*help)(struct buf *out))
{
    struct buf out = BUF_INIT(os_alloc());

    help(&out);
    if (out.failed) {
        command_complain(name, "out of memory");
        return CMD_FAILED;
    }
    const bool written = command_write(name, out.data, out.size);
    buf_fini(&out);
    return written ? CMD_OK : CMD_FAILED;
}

static void help_all(struct buf *out)
{
    buf_add_text(out, "usage: mooncake COMMAND [ARGUMENTS]\n"
                      "       mooncake help COMMAND\n"
                      "       mooncake --version\n"
                      "\n"
                      "A KVCache-centred platform that serves large language models.\n"
                      "\n"
                      "Commands:\n");
    for (size_t i = 0; i < COMMANDS; i++)
        buf_addf(out, "  %-10s%s\n", commands[i]->name, commands[i]->summary);
    buf_add_text(out,
                 "  help      What a command does and every setting it has.\n"
                 "\n"
                 "Every setting is a flag (--max-tokens 8), a variable (MC_MAX_TOKENS=8) and a\n"
                 "line of a config file (max-tokens = 8); a flag beats a variable beats the file.\n"
                 "\n"
                 "Exit codes: 0 done; 1 failed; 2 wrong usage; 130 interrupted; 143 terminated.\n");
}

static void version(struct buf *out)
{
    buf_addf(out, "mooncake %s\n", mc_version());
}

static const struct command *find(const char *name)
{
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];

    const char *words[COMMANDS + 3] = { "help", "--help", "--version" };
    for (size_t i = 0; i < COMMANDS; i++)
        words[i + 3] = commands[i]->name;
    const char *near = setting_nearest(name, words, COMMANDS + 3);
    command_complain(NULL, "unknown command \"%.80s\"%s%s%s", name,
                     near ? "; did you mean " : "; mooncake --help lists the commands",
                     near ? near : "", near ? "?" : "");
    return NULL;
}

static int help_main(int argc, char **argv)
{
    if (argc < 2)
        return command_print(NULL, help_all);
    const struct command *command = find(argv[1]);
    return command ? command_print(command->name, command->help) : CMD_USAGE;
}

int command_main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : NULL;

    if (!name) {
        command_complain(NULL, "which command? mooncake --help lists them");
        return CMD_USAGE;
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        return command_print(NULL, help_all);
    if (strcmp(name, "--version") == 0)
        return command_print(NULL, version);
    if (strcmp(name, "help") == 0)
        return help_main(argc - 1, argv + 1);
    const struct command *command = find(name);
    return command ? command->main(argc - 1, argv + 1) : CMD_USAGE;
}
