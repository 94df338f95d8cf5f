/* unsupported.h - the table that api.py writes: one call for each function of src/unsupported.c. */
#ifndef UNIT_API_UNSUPPORTED_H
#define UNIT_API_UNSUPPORTED_H

#include <stdbool.h>
#include <stddef.h>

#include <mooncake/status.h>

struct unsupported_call {
    const char *name;
    /** `poison` for every pointer parameter; `error_p` where the function takes a struct mc_error. */
    mc_status (*call)(void *poison, struct mc_error *error_p);
    bool says_why; /* it takes a struct mc_error */
};

extern const struct unsupported_call unsupported_calls[]; /* [unsupported_count] */
extern const size_t unsupported_count;

#endif /* UNIT_API_UNSUPPORTED_H */
