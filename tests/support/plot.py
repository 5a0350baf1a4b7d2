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
