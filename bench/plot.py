"""Panels of lines as one SVG, for results that are drawn."""
from xml.sax.saxutils import escape

COLOURS = ["#1b6ca8", "#c0392b", "#2e8b57", "#8e44ad", "#b7791f", "#16a2b8", "#6b7280", "#d35480", "#5d7a1f", "#444444",
           "#a05a2c", "#0f766e"]
WIDTH, HEIGHT, COLUMNS = 420, 260, 2


def panel(title, lines, at_x, at_y, colours, bold):
    left, top, width, height = at_x + 60, at_y + 30, WIDTH - 80, HEIGHT - 70
    points = [p for line in lines.values() for p in line]
    x_most, y_most = max(p[0] for p in points), max(p[1] for p in points) * 1.05 or 1

    def place(point):
        return f"{left + width * point[0] / x_most:.1f},{top + height * (1 - point[1] / y_most):.1f}"

    out = [f'<text x="{left}" y="{at_y + 20}" font-weight="bold">{escape(title)}</text>',
           f'<path d="M{left},{top}V{top + height}H{left + width}" fill="none" stroke="#888"/>']
    for i in range(5):
        y, x = y_most * i / 4, x_most * i / 4
        out.append(f'<text x="{left - 4}" y="{top + height * (1 - i / 4) + 4:.1f}" text-anchor="end">{y:.3g}</text>')
        out.append(f'<text x="{left + width * i / 4:.1f}" y="{top + height + 16}" text-anchor="middle">{x:.3g}</text>')
    for name, line in sorted(lines.items(), key=lambda item: item[0] == bold):
        out.append(f'<polyline points="{" ".join(place(p) for p in line)}" fill="none" stroke="{colours[name]}" '
                   f'stroke-width="{3 if name == bold else 1.2}"/>')
    return out


def lines_svg(panels, x_title, bold):
    """panels: [(title, {line: [(x, y), ...]})]; the line called `bold` is drawn thick, on top."""
    names = sorted({name for _, lines in panels for name in lines})
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    rows = (len(panels) + COLUMNS - 1) // COLUMNS
    height = rows * HEIGHT + 60
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {COLUMNS * WIDTH} {height}" font-family="sans-serif" '
           'font-size="11"><rect width="100%" height="100%" fill="#fff"/>']
    for i, (title, lines) in enumerate(panels):
        out += panel(title, lines, i % COLUMNS * WIDTH, i // COLUMNS * HEIGHT, colours, bold)
    out.append(f'<text x="{COLUMNS * WIDTH / 2}" y="{rows * HEIGHT + 8}" text-anchor="middle">{escape(x_title)}</text>')
    for i, name in enumerate(names):
        x, y = 60 + i % 6 * 125, rows * HEIGHT + 30 + i // 6 * 16
        out.append(f'<path d="M{x},{y - 4}h18" stroke="{colours[name]}" stroke-width="3"/>'
                   f'<text x="{x + 22}" y="{y}">{escape(name)}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"
