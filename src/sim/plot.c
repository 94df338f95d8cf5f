/* plot.c - axes, ticks, lines and legends. */
#include "sim/plot.h"

#include <math.h>
#include <string.h>

#include "base/utf8.h"

enum {
    WIDTH = 520, /* of a panel with its margins */
    HEIGHT = 300,
    LEFT = 62, /* margins */
    RIGHT = 16,
    TOP = 40,
    BOTTOM = 64,
    HEAD = 64, /* above all panels */

    TICKS_MAX = 700, /* of an axis: more than a double has powers of ten */
};

/* What lies further out has no place: ends of an axis, rounded to ticks, must be finite. */
static const double FARTHEST = 1e300;
/* Of the axis' values, a range at least: below it ticks would be the same number. */
static const double NARROWEST = 1e-9;

static const char style[] =
    "<style>"
    "svg{--paper:#fff;--ink:#1f2328;--soft:#59636e;--rule:#d1d9e0;"
    "--c0:#1f6feb;--c1:#c2571a;--c2:#1a7f4b;--c3:#b3261e;--c4:#7a3fc4;--c5:#59636e;"
    "font:12px system-ui,sans-serif}"
    "@media(prefers-color-scheme:dark){svg{--paper:#14181d;--ink:#e6edf3;--soft:#9aa7b4;"
    "--rule:#323b45;--c0:#6cb0ff;--c1:#ffa45c;--c2:#5fd39a;--c3:#ff8a80;--c4:#c9a1ff;--c5:#9aa7b4}}"
    ".paper{fill:var(--paper)}text{fill:var(--ink)}.soft{fill:var(--soft)}"
    ".rule{stroke:var(--rule);stroke-width:1}.axis{stroke:var(--soft);stroke-width:1}"
    ".line{fill:none;stroke-width:1.8;stroke-linejoin:round}.dash{stroke-dasharray:5 4}"
    "</style>\n";

/* ------------------------------------------------------------------------------------------- text */

/* For XML: what it cannot hold becomes U+FFFD. */
static void add_text(struct buf *out, const char *text)
{
    const size_t size = strlen(text);
    size_t length;
    uint32_t code;

    for (size_t i = 0; i < size; i += length) {
        length = utf8_decode(text + i, size - i, &code);
        const bool legal = length > 0 && (code >= 0x20 || code == '\t' || code == '\n') &&
                           code != 0xfffe && code != 0xffff;
        length = length ? length : 1;
        if (!legal)
            buf_add_text(out, "\xef\xbf\xbd");
        else if (code == '<')
            buf_add_text(out, "&lt;");
        else if (code == '>')
            buf_add_text(out, "&gt;");
        else if (code == '&')
            buf_add_text(out, "&amp;");
        else if (code == '"')
            buf_add_text(out, "&quot;");
        else
            buf_add(out, text + i, length);
    }
}

static void add_label(struct buf *out, double x, double y, const char *attributes, const char *text)
{
    buf_addf(out, "<text x=\"%.1f\" y=\"%.1f\"%s>", x, y, attributes);
    add_text(out, text);
    buf_add_text(out, "</text>\n");
}

/* ------------------------------------------------------------------------------------------- axes */

/** Data to picture, one way. */
struct axis {
    double low, high;   /* of the data; logarithms on a logarithmic axis */
    double start, size; /* in the picture */
    double step;        /* between ticks */
    bool log;
};

static double decimal_log(double value)
{
    return log2(value) / log2(10);
}

/* A number, not too far out, and a place on the axis. */
static bool usable(double value, bool logarithmic)
{
    return fabs(value) <= FARTHEST && (!logarithmic || value > 0);
}

static double place(const struct axis *a, double value)
{
    return a->start +
           ((a->log ? decimal_log(value) : value) - a->low) / (a->high - a->low) * a->size;
}

/* 1, 2 or 5 times a power of ten: about `ticks` of them in `range`. */
static double nice_step(double range, double ticks)
{
    const double power = pow(10, floor(decimal_log(range / ticks)));
    const double rough = range / ticks / power;

    return power * (rough <= 1 ? 1 : rough <= 2 ? 2 : rough <= 5 ? 5 : 10);
}

/* Ends of the axis at ticks, around [low, high]. */
static void fit(struct axis *a, double low, double high, double ticks)
{
    if (a->log) {
        a->low = floor(decimal_log(low));
        a->high = ceil(decimal_log(high));
        a->high = a->high > a->low ? a->high : a->low + 1;
        a->step = 1;
        return;
    }
    const double narrowest = (fabs(low) > fabs(high) ? fabs(low) : fabs(high)) * NARROWEST;
    if (high - low <= narrowest || high - low < 1 / FARTHEST)
        high = low + (narrowest > 1 ? narrowest : 1);
    a->step = nice_step(high - low, ticks);
    a->low = floor(low / a->step) * a->step;
    a->high = ceil(high / a->step) * a->step;
}

static void fit_panel(const struct plot_panel *p, struct axis *x, struct axis *y)
{
    double x_low = 0, x_high = 0, y_low = 0, y_high = usable(p->y_max, false) ? p->y_max : 0;
    bool any = false;

    for (uint32_t i = 0; i < p->series_count; i++)
        for (uint32_t k = 0; k < p->series[i].count; k++) {
            const struct plot_point at = p->series[i].points[k];
            if (!usable(at.x, p->x_log) || !usable(at.y, false))
                continue;
            x_low = !any || at.x < x_low ? at.x : x_low;
            x_high = !any || at.x > x_high ? at.x : x_high;
            y_low = at.y < y_low ? at.y : y_low;
            y_high = at.y > y_high ? at.y : y_high;
            any = true;
        }
    x->log = p->x_log && any;
    fit(x, x_low, x_high, 6);
    fit(y, y_low, y_high, 5);
}

static void add_rule(struct buf *out, const char *kind, double x1, double y1, double x2, double y2)
{
    buf_addf(out, "<line class=\"%s\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", kind,
             x1, y1, x2, y2);
}

/* Also behind rounding errors of the sums, no tick has a tail of digits. */
static void add_ticks(struct buf *out, const struct axis *x, const struct axis *y)
{
    struct buf number = BUF_INIT(out->alloc);

    for (int k = 0; k < TICKS_MAX && x->low + k * x->step <= x->high + x->step / 2; k++) {
        const double value = x->low + k * x->step;
        const double at = x->start + (value - x->low) / (x->high - x->low) * x->size;
        add_rule(out, "rule", at, y->start, at, y->start + y->size);
        buf_truncate(&number, 0);
        buf_addf(&number, "%.6g",
                 x->log                                        ? pow(10, value)
                 : value > -x->step / 2 && value < x->step / 2 ? 0
                                                               : value);
        add_label(out, at, y->start + 16, " text-anchor=\"middle\" class=\"soft\"",
                  number.failed ? "" : number.data);
    }
    for (int k = 0; k < TICKS_MAX && y->low + k * y->step <= y->high + y->step / 2; k++) {
        const double value = y->low + k * y->step;
        const double at = y->start + (value - y->low) / (y->high - y->low) * y->size;
        add_rule(out, k > 0 ? "rule" : "axis", x->start, at, x->start + x->size, at);
        buf_truncate(&number, 0);
        buf_addf(&number, "%.6g", value > -y->step / 2 && value < y->step / 2 ? 0 : value);
        add_label(out, x->start - 8, at + 4, " text-anchor=\"end\" class=\"soft\"",
                  number.failed ? "" : number.data);
    }
    out->failed = out->failed || number.failed;
    buf_fini(&number);
}

/* ------------------------------------------------------------------------------------------ series */

static void add_series(struct buf *out, const struct plot_series *s, uint32_t colour,
                       const struct axis *x, const struct axis *y)
{
    bool pen_down = false;

    buf_addf(out, "<path class=\"line%s\" style=\"stroke:var(--c%u)\" d=\"",
             s->dashed ? " dash" : "", colour);
    for (uint32_t i = 0; i < s->count; i++) {
        const struct plot_point at = s->points[i];
        if (!usable(at.x, x->log) || !usable(at.y, false)) {
            pen_down = false; /* a gap is shown as one */
            continue;
        }
        buf_addf(out, "%c%.1f %.1f", pen_down ? 'L' : 'M', place(x, at.x), place(y, at.y));
        pen_down = true;
    }
    buf_add_text(out, "\"/>\n");
}

static void add_legend(struct buf *out, const struct plot_panel *p, double left, double y)
{
    double x = left;

    for (uint32_t i = 0; i < p->series_count; i++) {
        if (!p->series[i].name)
            continue;
        buf_addf(out,
                 "<line class=\"line%s\" style=\"stroke:var(--c%u)\" x1=\"%.1f\" y1=\"%.1f\" "
                 "x2=\"%.1f\" y2=\"%.1f\"/>\n",
                 p->series[i].dashed ? " dash" : "", i, x, y - 4, x + 18, y - 4);
        add_label(out, x + 23, y, "", p->series[i].name);
        x += 23 + 6.6 * (double)strlen(p->series[i].name) + 16; /* about the width of a letter */
    }
}

static void add_panel(struct buf *out, const struct plot_panel *p, double left, double top)
{
    struct axis x = { .start = left + LEFT, .size = WIDTH - LEFT - RIGHT };
    struct axis y = { .start = top + HEIGHT - BOTTOM, .size = -(HEIGHT - TOP - BOTTOM) };

    fit_panel(p, &x, &y);
    add_label(out, x.start, top + 22, " font-weight=\"600\"", p->title);
    add_label(out, x.start + x.size, top + 22, " text-anchor=\"end\" class=\"soft\"", p->y_label);
    add_ticks(out, &x, &y);
    add_label(out, x.start + x.size, y.start + 32, " text-anchor=\"end\" class=\"soft\"",
              p->x_label);
    for (uint32_t i = 0; i < p->series_count; i++)
        add_series(out, &p->series[i], i, &x, &y);
    add_legend(out, p, x.start, y.start + 50);
}

void plot_write(const struct plot_page *page, struct buf *out)
{
    const int columns = page->panel_count > 1 ? 2 : 1;
    const int rows = (int)(page->panel_count + (uint32_t)columns - 1) / columns;
    const int head = page->title ? HEAD : 0;
    const int width = columns * WIDTH, height = head + rows * HEIGHT;
    const char *title = page->title ? page->title : page->panel_count ? page->panels[0].title : "";

    buf_addf(out,
             "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" "
             "height=\"%d\" role=\"img\">\n<title>",
             width, height, width, height);
    add_text(out, title);
    buf_add_text(out, "</title>\n");
    buf_add_text(out, style);
    buf_addf(out, "<rect class=\"paper\" width=\"%d\" height=\"%d\"/>\n", width, height);
    if (page->title)
        add_label(out, 16, 28, " font-size=\"17\" font-weight=\"600\"", page->title);
    if (page->subtitle)
        add_label(out, 16, 48, " class=\"soft\"", page->subtitle);
    for (uint32_t i = 0; i < page->panel_count; i++)
        add_panel(out, &page->panels[i], (double)((int)i % columns * WIDTH),
                  (double)(head + (int)i / columns * HEIGHT));
    buf_add_text(out, "</svg>\n");
}
