# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures for the documentation, as SVG that needs no library and reads well in the dark."""

from __future__ import annotations

from html import escape

WIDTH, BAR, GAP, LEFT = 720, 26, 34, 20


def bars(path, title, rows, unit=""):
    """Write a chart of horizontal bars: rows of (label, number)."""
    most = max([number for _label, number in rows] + [1e-9])
    height = 60 + len(rows) * (BAR + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="14">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{LEFT}" y="30" font-size="17" font-weight="bold" fill="#222">{escape(title)}</text>',
    ]
    for index, (label, number) in enumerate(rows):
        top = 60 + index * (BAR + GAP)
        width = max(2, (WIDTH - 2 * LEFT - 120) * number / most)
        color = "#2a7" if number == 0 or index == 0 else "#c54"
        parts += [
            f'<text x="{LEFT}" y="{top - 5}" fill="#222">{escape(label)}</text>',
            f'<rect x="{LEFT}" y="{top}" width="{width:.0f}" height="{BAR}" fill="{color}"/>',
            f'<text x="{LEFT + width + 8:.0f}" y="{top + 18}" fill="#222">{number:.3g}{escape(unit)}</text>',
        ]
    with open(path, "w", encoding="utf-8") as stream:
        stream.write("\n".join([*parts, "</svg>"]) + "\n")


def lines(path, title, series, height=420):
    """Write a chart of lines: name to [(x, y)], each with its name at its end."""
    points = [point for line in series.values() for point in line]
    most_x, most_y = max(x for x, _y in points), max(y for _x, y in points)
    across, up = WIDTH - 2 * LEFT - 150, height - 110

    def place(x, y):
        return LEFT + 30 + across * x / most_x, height - 40 - up * y / most_y

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{LEFT}" y="30" font-size="17" font-weight="bold" fill="#222">{escape(title)}</text>',
    ]
    for step in range(5):
        left, top = place(0, most_y * step / 4)
        parts.append(f'<path d="M{left:.0f} {top:.0f} H{left + across:.0f}" stroke="#ddd"/>')
        parts.append(
            f'<text x="{left - 6:.0f}" y="{top + 4:.0f}" text-anchor="end" fill="#555">{most_y * step / 4:.0f}</text>'
        )
    for x in sorted({x for x, _y in points}):
        left, top = place(x, 0)
        parts.append(f'<text x="{left:.0f}" y="{top + 18:.0f}" text-anchor="middle" fill="#555">{x}</text>')
    used = []
    for color, (name, line) in zip(("#c54", "#2a7", "#27a", "#a72", "#777", "#727"), series.items()):
        route = " L".join("{:.1f} {:.1f}".format(*place(x, y)) for x, y in line)
        left, top = place(*line[-1])
        while any(abs(top - other) < 15 for other in used):
            top -= 4
        used.append(top)
        parts.append(f'<path d="M{route}" fill="none" stroke="{color}" stroke-width="2.5"/>')
        parts.append(f'<text x="{left + 8:.0f}" y="{top + 4:.0f}" fill="{color}">{escape(name)}</text>')
    with open(path, "w", encoding="utf-8") as stream:
        stream.write("\n".join([*parts, "</svg>"]) + "\n")


def panels(path, title, found, height=130):
    """Write small charts, two in a row: (title, shares in percent, numbers, what the numbers are), both lists by the second."""
    across = (WIDTH - 3 * LEFT) / 2
    rows = -(-len(found) // 2)
    total = 50 + rows * (height + 60)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{total}" fill="#fff"/>',
        f'<text x="{LEFT}" y="30" font-size="17" font-weight="bold" fill="#222">{escape(title)}</text>',
    ]
    for index, (name, shares, numbers, what) in enumerate(found):
        left, top = LEFT + index % 2 * (across + LEFT), 80 + index // 2 * (height + 60)
        bottom, most = top + height, max([*numbers, 1e-9])
        step = across / max(1, len(shares) - 1)

        def route(values, high, left=left, bottom=bottom, step=step):
            return " L".join(
                f"{left + number * step:.1f} {bottom - (height - 6) * value / high:.1f}"
                for number, value in enumerate(values)
            )

        parts += [
            f'<text x="{left:.0f}" y="{top - 22}" font-weight="bold" fill="#222">{escape(name)}</text>',
            f'<text x="{left:.0f}" y="{top - 7}" fill="#b32">{escape(what)}, at most {max(numbers):.3g}</text>',
            f'<text x="{left + across:.0f}" y="{top - 7}" text-anchor="end" fill="#276">answers of the new slot</text>',
            f'<path d="M{left:.1f} {bottom} L{route(shares, 100)} L{left + across:.1f} {bottom} Z" fill="#2a7" fill-opacity="0.25"/>',
            f'<path d="M{route(numbers, most)}" fill="none" stroke="#b32" stroke-width="2"/>',
            f'<path d="M{left:.0f} {bottom} h{across:.0f}" stroke="#888"/>',
            f'<text x="{left:.0f}" y="{bottom + 15}" fill="#555">0 s</text>',
            f'<text x="{left + across:.0f}" y="{bottom + 15}" text-anchor="end" fill="#555">{len(shares)} s</text>',
        ]
    with open(path, "w", encoding="utf-8") as stream:
        stream.write("\n".join([*parts, "</svg>"]) + "\n")
