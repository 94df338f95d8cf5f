/*
 * plot.h - a picture of a few graphs as one SVG text that needs nothing else: no script, no font, no network.
 *
 * It follows the reader's light or dark setting, and is laid out in two columns.
 *
 *     struct plot_page page = { .title = "...", .panels = panels, .panel_count = 2 };
 *     plot_write(&page, &out);
 *
 * Pure. Memory: all borrowed; the text grows `out`. Errors: none of its own; look at out->failed. Values that
 * are not finite, beyond 1e300, or not above 0 on a logarithmic axis, are left out.
 */
#ifndef SIM_PLOT_H
#define SIM_PLOT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

enum { PLOT_SERIES_MAX = 6 }; /* of one panel; more colours cannot be told apart */

struct plot_point {
    double x, y;
};

struct plot_series {
    const char *name;                /* in the legend; NULL: none */
    const struct plot_point *points; /* [count], x rising */
    uint32_t count;
    bool dashed;
};

struct plot_panel {
    const char *title, *x_label, *y_label;
    struct plot_series series[PLOT_SERIES_MAX];
    uint32_t series_count;
    bool x_log;
    double y_max; /* the axis goes at least this far; from 0 or the least value below it */
};

struct plot_page {
    const char *title, *subtitle; /* both may be NULL: one panel, with its own title alone */
    const struct plot_panel *panels;
    uint32_t panel_count;
};

/** Append the picture. */
void plot_write(const struct plot_page *page, struct buf *out);

#endif /* SIM_PLOT_H */
