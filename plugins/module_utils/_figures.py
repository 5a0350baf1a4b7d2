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
import re
from collections.abc import Iterable, Iterator
from typing import Any

_STEP = math.log(1.05)
# A request that nginx tried again has a time for each try.
_LINE = re.compile(r"([0-9.]+) (blue|green) ([0-9]{3}) ((?:[0-9.]+|-)(?:(?:, | : )(?:[0-9.]+|-))*)\Z")


def bucket_of(milliseconds: float) -> int:
    """Buckets are 5 % apart, so a time is known to 2.5 %."""
    return round(math.log(max(milliseconds, 0.5)) / _STEP)


def time_of(bucket: int) -> float:
    """Milliseconds that a bucket stands for."""
    return math.exp(bucket * _STEP)


def _at(line: bytes) -> float:
    """When a line was written, or 0 if it does not say: its beginning may be cut off."""
    try:
        return float(line.split(b" ", 1)[0])
    except ValueError:
        return 0.0


def lines_since(path: str, begin: float) -> Iterator[str]:
    """The lines of the file from a time on, in seconds since 1970, and a few before it. Reads no more of the file than that."""
    try:
        with open(path, "rb") as stream:
            low, high = 0, os.fstat(stream.fileno()).st_size
            while high - low > 65536:
                middle = (low + high) // 2
                stream.seek(middle)
                stream.readline()
                # Workers write when their buffers are full, or a second has passed.
                if _at(stream.readline()) < begin - 5:
                    low = middle
                else:
                    high = middle
            stream.seek(low)
            for line in stream:
                yield line.decode("ascii", "replace").rstrip("\n")
    except FileNotFoundError:
        return


def sample(lines: Iterable[str], color: str, begin: float, end: float) -> dict[str, Any]:
    """The figures of a slot in a time: {"requests", "errors", "times"}, the last as bucket to number of requests.

    :param begin: seconds since 1970; V(end) too, and not included.
    """
    requests, errors = 0, 0
    times: dict[str, int] = {}
    for line in lines:
        # Two workers may write into one line when the file is cut.
        found = _LINE.match(line)
        if not found or found.group(2) != color:
            continue
        try:
            at, status = float(found.group(1)), int(found.group(3))
            took = sum(float(one) for one in re.findall(r"[0-9.]+", found.group(4)))
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
