/* sim_trace.h - a trace file into memory, for simulations and statistics. */
#ifndef CMD_SIM_TRACE_H
#define CMD_SIM_TRACE_H

#include "sim/requests.h"

#define SIM_TRACE_MEMORY (UINT64_C(4) << 30)

/** Which requests of it. `{ 0 }`: all. */
struct sim_trace_part {
    uint64_t begin_ns, end_ns; /* of the trace's own time; end 0: to its end */
    uint64_t limit;            /* requests at most; 0: all */
    struct requests_room room; /* bytes 0: SIM_TRACE_MEMORY */
};

/**
 * Read `path` piece by piece; "-" is standard input.
 *
 * requests_p  ended with requests_fini(), also after an error.
 *
 * Returns MC_OK, MC_E_NOT_FOUND, MC_E_IO, MC_E_FORMAT or MC_E_RANGE (the text names the line) or MC_E_NOMEM.
 */
mc_status sim_trace_read(const char *path, const struct sim_trace_part *part,
                         struct requests *requests_p, struct mc_error *error);

/** Likewise, but each request is given to `take` and nothing is kept. take: MC_OK, or an error that ends it, or
 * MC_PENDING: enough. */
mc_status sim_trace_each(const char *path,
                         mc_status (*take)(void *user, const struct trace_request *request,
                                           struct mc_error *error),
                         void *user, struct mc_error *error);

#endif /* CMD_SIM_TRACE_H */
