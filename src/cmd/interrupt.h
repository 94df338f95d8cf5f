/*
 * interrupt.h - SIGINT and SIGTERM as things to look at between two steps.
 *
 * A step cannot be broken off, so the first signal asks for a clean end and one signal too many ends
 * the process at once. SIGPIPE is ignored: a write that fails says so.
 */
#ifndef CMD_INTERRUPT_H
#define CMD_INTERRUPT_H

#include <stdbool.h>

/** limit: how many Ctrl-C in a row are looked at; one more ends the process with 130. */
void interrupt_install(int limit);

/** Ctrl-C since the last interrupt_clear(). */
int interrupt_count(void);
void interrupt_clear(void);

/** Wait until `fd` can be read; false: a signal came instead, or since interrupt_count() was `seen`. None
 * is lost between the look and the wait. */
bool interrupt_wait(int fd, int seen);

/** SIGTERM or SIGHUP came. */
bool interrupt_terminated(void);

/** Either: stop what you are doing. */
bool interrupt_pending(void);

/** CMD_TERMINATED, CMD_INTERRUPTED or CMD_OK. */
int interrupt_exit_code(void);

#endif /* CMD_INTERRUPT_H */
