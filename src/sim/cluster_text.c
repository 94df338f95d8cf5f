/* cluster_text.c - "10P+6D", "4P+4D+1S" as groups of instances. */
#include <string.h>

#include "base/error.h"
#include "sim/sim.h"

static bool read_number(const char **text_p, uint32_t *number_p)
{
    uint32_t number = 0;
    const char *text = *text_p;

    for (; *text >= '0' && *text <= '9'; text++) {
        number = number * 10 + (uint32_t)(*text - '0');
        if (number > 4096)
            return false;
    }
    if (text == *text_p)
        return false;
    *text_p = text;
    *number_p = number;
    return number > 0;
}

static uint32_t role_of(char letter)
{
    return letter == 'P' || letter == 'p'   ? MC_ROLE_PREFILL
           : letter == 'D' || letter == 'd' ? MC_ROLE_DECODE
           : letter == 'C' || letter == 'c' ? MC_ROLE_BOTH
           : letter == 'S' || letter == 's' ? MC_ROLE_STORE
                                            : 0u;
}

mc_status sim_cluster_read(const char *text, struct sim_group *groups, uint32_t *count_p,
                           struct mc_error *error)
{
    struct sim_group read[SIM_GROUPS_MAX];
    const char *at = text;
    uint32_t count = 0;

    for (;;) {
        struct sim_group *g = &read[count];

        if (count == SIM_GROUPS_MAX)
            return error_set(error, MC_E_FORMAT, "cluster %.60s: more than %d groups", text,
                             SIM_GROUPS_MAX);
        *g = (struct sim_group){ .stages = 1 };
        if (!read_number(&at, &g->count) || (g->role = role_of(*at)) == 0)
            return error_set(error, MC_E_FORMAT,
                             "cluster \"%.60s\": want groups like 10P (prefill), 6D (decode), 16C "
                             "(both), 2S (nodes of a pool) with + between",
                             text);
        at++;
        count++;
        if (g->role == MC_ROLE_STORE) { /* blocks lie on all its nodes alike: they are as one */
            g->stages = g->count;
            g->count = 1;
        }
        if (g->role == MC_ROLE_PREFILL && *at >= '0' && *at <= '9' &&
            (!read_number(&at, &g->stages) || g->stages > 64))
            return error_set(error, MC_E_FORMAT, "cluster \"%.60s\": a pipeline has 1 to 64 nodes",
                             text);
        if (*at == '\0')
            break;
        if (*at++ != '+')
            return error_set(error, MC_E_FORMAT, "cluster \"%.60s\": '+' wanted between groups",
                             text);
    }
    memcpy(groups, read, count * sizeof(read[0]));
    *count_p = count;
    return MC_OK;
}
