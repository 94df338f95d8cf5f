/*
 * setting.h - one table per command or role: its flags, environment, config file, help and defaults.
 *
 *     #define DEMO_SETTINGS(X) \
 *         X(port, "port", 'P', U32, "8080", 1, 65535, NULL, "N", "Network", "Where to listen.")
 *     struct demo { DEMO_SETTINGS(SETTING_FIELD) };
 *     #define DEMO_ROW(...) SETTING_ROW(demo, __VA_ARGS__)
 *     static const struct setting demo_rows[] = { DEMO_SETTINGS(DEMO_ROW) };
 *
 * is the setting `--port 9000`, `-P 9000`, `MC_PORT=9000` and `port = 9000`. A flag beats the
 * environment, the environment beats the config file, the file beats the default, in whichever order
 * they are read.
 *
 * Life:    settings_init -> settings_flags, settings_env, settings_config -> settings_fini
 * Threads: one. Pure: what the world says comes in as text.
 * Memory:  texts are borrowed: arguments, environment and the config text must outlive the options.
 *          Lists inside the options are owned by the settings and freed by settings_fini().
 * Errors:  texts name the source ("--port", "MC_PORT", "mooncake.conf:3: port"), the value and what is
 *          accepted. An unknown key is an error and says which known one it resembles.
 */
#ifndef BASE_SETTING_H
#define BASE_SETTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

/** Texts in the order given. */
struct setting_list {
    const char **items; /* owned; [count], the texts borrowed */
    uint32_t count, capacity;
};

enum setting_type {
    SETTING_TEXT,     /* const char *; NULL when there is no default */
    SETTING_LIST,     /* struct setting_list; the flag may be repeated */
    SETTING_SECRET,   /* the same, and never printed */
    SETTING_BOOL,     /* bool; --name, --no-name, or = true, false, yes, no, on, off, 1, 0 */
    SETTING_U32,      /* uint32_t */
    SETTING_U64,      /* uint64_t */
    SETTING_SIZE,     /* uint64_t bytes; units K M G T are powers of 1024 */
    SETTING_DURATION, /* uint64_t nanoseconds; units ns us ms s m h */
    SETTING_FLOAT,    /* float */
    SETTING_CHOICE,   /* uint32_t: which word of `choices`, from 0 */
    SETTING_ACTION,   /* bool; --name only: no environment, no config file (--help) */
};

struct setting {
    const char *name; /* "max-tokens"; lower case, digits and '-' */
    char letter;      /* -x, or 0 */
    enum setting_type type;
    size_t offset;       /* of the field in the options */
    const char *initial; /* the default, written as a user would; NULL: zero, and nothing to show */
    double min, max;     /* of numbers; both 0: whatever the type holds */
    const char *choices; /* "auto|ref|avx2" for SETTING_CHOICE, else NULL */
    const char *metavar; /* "N" in "--max-tokens N"; NULL for bool */
    const char *group;   /* heading in the help; rows of one group stand together */
    const char *help;    /* a sentence */
};

/* clang-format off */
#define SETTING_C_TEXT     const char *
#define SETTING_C_LIST     struct setting_list
#define SETTING_C_SECRET   struct setting_list
#define SETTING_C_BOOL     bool
#define SETTING_C_U32      uint32_t
#define SETTING_C_U64      uint64_t
#define SETTING_C_SIZE     uint64_t
#define SETTING_C_DURATION uint64_t
#define SETTING_C_FLOAT    float
#define SETTING_C_CHOICE   uint32_t
#define SETTING_C_ACTION   bool
/* clang-format on */

/* One row of the table as a field of the options, and as a struct setting of `struct options`. */
#define SETTING_FIELD(field, name, letter, type, initial, min, max, choices, metavar, group, help) \
    SETTING_C_##type field;
#define SETTING_ROW(options, field, name, letter, type, initial, min, max, choices, metavar, \
                    group, help) \
    { name, \
      letter, \
      SETTING_##type, \
      offsetof(struct options, field), \
      initial, \
      min, \
      max, \
      choices, \
      metavar, \
      group, \
      help },

/** What beats what: a later source of this list wins. */
enum setting_source { SETTING_DEFAULT, SETTING_CONFIG, SETTING_ENV, SETTING_FLAG };

struct setting_state {
    enum setting_source source; /* where the value came from */
    const char *text;           /* as it was written; borrowed. Lists: in the list */
};

struct settings {
    const struct mc_alloc *alloc; /* borrowed */
    const struct setting *rows;   /* borrowed; [count] */
    size_t count;
    void *options;                /* borrowed; the struct that the rows describe */
    struct setting_state *states; /* owned; [count] */
};

/**
 * Fill `options` with the defaults. Afterwards settings_fini() is due.
 *
 * A default that its own row does not accept is a bug (assert). Returns MC_OK or MC_E_NOMEM, after
 * which there is nothing to end.
 */
mc_status settings_init(struct settings *settings, const struct setting *rows, size_t count,
                        void *options, const struct mc_alloc *alloc, struct mc_error *error);

void settings_fini(struct settings *settings);

/**
 * Read arguments [0, count): `--name value`, `--name=value`, `-x value`, `-xvalue`; what is no flag,
 * and everything behind `--`, goes to `operands` (freed with setting_list_fini()).
 *
 * A flag that takes a value takes the next argument, whatever it looks like.
 *
 * Returns MC_OK, MC_E_ARG (unknown flag, no value, malformed value), MC_E_RANGE or MC_E_NOMEM.
 */
mc_status settings_flags(struct settings *settings, int count, char *const *arguments,
                         struct setting_list *operands, struct mc_error *error);

/**
 * Read "MC_NAME=value" entries up to a NULL. One environment serves every role, so a name that no row
 * has is left alone unless it is nearly one of these, which is a slip of the pen: MC_E_ARG.
 */
mc_status settings_env(struct settings *settings, char *const *environment, struct mc_error *error);

/**
 * Read a config file: lines of `name = value`, `# comment` and empty lines. A value is taken to the
 * end of its line, without blanks around it; between double quotes it may hold \" \\ \n \t.
 *
 * text  [size] bytes, cut in place, borrowed as long as the options are used.
 * name  of the file, for errors.
 *
 * Returns as settings_flags.
 */
mc_status settings_config(struct settings *settings, char *text, size_t size, const char *name,
                          struct mc_error *error);

/** Where the value of the row `name` came from. The row exists. */
enum setting_source settings_source(const struct settings *settings, const char *name);

/** The settings as a config file that settings_config() reads back, each with its source. Of secrets only
 * that there are some. */
void settings_print(const struct settings *settings, struct buf *out);

/** The rows for --help, by group, in at most 100 columns. */
void setting_help(const struct setting *rows, size_t count, struct buf *out);

/** Which of the known `words` ([count]) `word` was perhaps meant to be; NULL if none is near. */
const char *setting_nearest(const char *word, const char *const *words, size_t count);

/** Append a borrowed text. MC_OK or MC_E_NOMEM, after which the list is as before. */
mc_status setting_list_add(struct setting_list *list, const char *text,
                           const struct mc_alloc *alloc);
void setting_list_fini(struct setting_list *list, const struct mc_alloc *alloc);

#endif /* BASE_SETTING_H */
