# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the site writes down of each answer: when, from which slot, with which status, after how long. Private to this collection.

A line is V(1795860182.396 green 200 0.012): seconds since 1970, slot, status, and seconds that the slot took, V(-) if it gave no answer. No
address, no path and no cookie is in it. See roles/nginx/templates/site.conf.j2.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import Any

# The timer of set-up cuts the file at 16 MiB.
_MOST_BYTES = 32 << 20
_STEP = math.log(1.05)


def bucket_of(milliseconds: float) -> int:
    """Buckets are 5 % apart, so a time is known to 2.5 %."""
    return round(math.log(max(milliseconds, 0.5)) / _STEP)


def time_of(bucket: int) -> float:
    """Milliseconds that a bucket stands for."""
    return math.exp(bucket * _STEP)


def lines_of(path: str) -> list[str]:
    """The lines of the file, without what is too old to matter, or cut off."""
    try:
        with open(path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            stream.seek(max(0, size - _MOST_BYTES))
            return stream.read().decode("ascii", "replace").splitlines()
    except FileNotFoundError:
        return []


def sample(lines: Iterable[str], color: str, begin: float, end: float) -> dict[str, Any]:
    """The figures of a slot in a time: {"requests", "errors", "times"}, the last as bucket to number of requests.

    :param begin: seconds since 1970; V(end) too, and not included.
    """
    requests, errors = 0, 0
    times: dict[str, int] = {}
    for line in lines:
        words = line.split()
        # Two workers may write into one line when the file is cut.
        if len(words) != 4 or words[1] != color:
            continue
        try:
            at, status = float(words[0]), int(words[2])
            took = float(words[3].rstrip(",")) if words[3] != "-" else 0.0
        except ValueError:
            continue
        if not begin <= at < end:
            continue
        requests += 1
        errors += status >= 500
        # A websocket takes as long as its visitor stays.
        if status < 500 and status != 101:
            bucket = str(bucket_of(took * 1000))
            times[bucket] = times.get(bucket, 0) + 1
    return {"requests": requests, "errors": errors, "times": times}
