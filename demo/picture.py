# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the demo, and make docs/demo.svg of what it prints: `make demo-picture`."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

from rich.console import Console
from rich.text import Text

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
# The first deploy sets up a directory, which takes a page by itself.
FIRST, LAST = "2. Deploy 0.1.1", "The site is up:"
# As rich makes it, without the fonts that it would fetch from elsewhere.
FRAME = """<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img">
<title>Deploy, promote and roll back in a terminal</title>
<style>
.{unique_id}-matrix {{ font: {char_height}px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect width="{terminal_width}" height="{terminal_height}"/></clipPath>{lines}</defs>
<rect width="{width}" height="{height}" rx="8" fill="#1d1f21"/>
<g transform="translate(10, 10)" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def main():
    env = {**os.environ, "ANSIBLE_FORCE_COLOR": "true", "PYTHONUNBUFFERED": "1"}
    demo = subprocess.run(
        [sys.executable, CHECKOUT / "demo/demo.py"], env=env, stdout=subprocess.PIPE, text=True, check=False
    )
    print(demo.stdout)
    if demo.returncode:
        sys.exit(demo.returncode)
    said = demo.stdout.replace(f"{CHECKOUT}/", "")
    shown = said[said.index(FIRST) : said.index(LAST)].rstrip()
    text = Text.from_ansi(shown)
    width = max(len(re.sub(r"\033\[[\d;]*m", "", line)) for line in shown.splitlines())
    console = Console(record=True, width=width + 2, file=open(os.devnull, "w", encoding="utf-8"))
    console.print(text, soft_wrap=True)
    console.save_svg(str(CHECKOUT / "docs/demo.svg"), title="", code_format=FRAME, unique_id="demo")


if __name__ == "__main__":
    main()
