# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a benchmark has found, in the documentation."""

from __future__ import annotations


def table(head, rows):
    """A table in Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]) + "\n"


def put(path, mark, text):
    """Put a text in place of what is between the marks V(<!-- MARK -->) and V(<!-- end of MARK -->) of a document."""
    page, begin, end = path.read_text(), f"<!-- {mark} -->\n", f"<!-- end of {mark} -->\n"
    before, rest = page.split(begin)[0], page.split(end)[1]
    path.write_text(f"{before}{begin}{text}{end}{rest}")
