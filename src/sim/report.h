/*
 * report.h - what simulations came to, for people: a table, a line for each decision, a page with pictures.
 *
 * Life:    report_take for each run -> report_table, report_page -> report_fini for each run
 * Threads: report_take of different runs may be called by different threads.
 * Memory:  a run's summary, its samples and, if wanted, its CSV.
 */
#ifndef SIM_REPORT_H
#define SIM_REPORT_H

#include "sim/summary.h"

/** What a report keeps of each request of a run, about; and with its line of CSV. */
enum { REPORT_REQUEST_BYTES = 16, REPORT_LINE_BYTES = 400 };

struct report_run {
    char name[160];
    const struct mc_alloc *alloc; /* borrowed */
    struct summary summary;       /* owned */
    struct sim_sample *samples;   /* owned; [sample_count] */
    uint32_t sample_count, watched_count;
    double speed;
    struct buf csv; /* owned: a line for each request, without the heading */
    bool done;
};

/** Keep of a run what is reported. csv: also a line for each of its requests. MC_OK or MC_E_NOMEM. */
mc_status report_take(struct report_run *run, const struct sim_options *options,
                      const struct sim_result *result, bool csv);

/** Safe on `{ 0 }`. */
void report_fini(struct report_run *run);

extern const char report_csv_heading[];

/** A row for each run that is done. */
void report_table(const struct report_run *runs, uint32_t count, struct buf *out);

/** One HTML file that needs nothing else. settings: text that is shown as it is. */
void report_page(const struct report_run *runs, uint32_t count, const char *title,
                 const char *settings, const struct mc_alloc *alloc, struct buf *out);

#endif /* SIM_REPORT_H */
