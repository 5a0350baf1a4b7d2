# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the site writes down of each answer: when, from which slot, with which status, after how long. Private to this collection.

A line is V(1795860182.396 green 200 0.012): seconds since 1970, slot, status, and seconds that the slot took, V(-) if it gave no answer. No
address, no path and no cookie is in it. See roles/nginx/templates/site.conf.j2.

On a host it is also a program, which a timer starts and set-up copies there alone: it keeps the file small, and what it cuts off it adds up by the half
hour in C(figures.jsonl), for the last two days.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

_STEP = math.log(1.05)
# A request that nginx tried again has a time for each try.
_LINE = re.compile(r"([0-9.]+) (blue|green) ([0-9]{3}) ((?:[0-9.]+|-)(?:(?:, | : )(?:[0-9.]+|-))*)\Z")
# Bytes: at how many the file is cut, while no run is at work and while one is, which may watch; and how many stay.
_MOST, _MOST_IN_A_RUN, _KEPT = 16 << 20, 256 << 20, 4 << 20
# Seconds that are added up together, and for how long.
STEP, _REMEMBERED = 1800, 2 * 86400


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


def _read(line: str) -> tuple[float, str, int, float] | None:
    """(when, slot, status, seconds) of a line. Two workers may write into one line when the file is cut."""
    words = line.split(" ")
    try:
        if len(words) == 4 and words[1] in ("blue", "green") and len(words[2]) == 3:
            # Nearly all of them, without the cost of a pattern.
            return float(words[0]), words[1], int(words[2]), 0.0 if words[3] == "-" else float(words[3])
        found = _LINE.match(line)
        if not found:
            return None
        took = sum(float(one) for one in re.findall(r"[0-9.]+", found.group(4)))
        return float(found.group(1)), found.group(2), int(found.group(3)), took
    except ValueError:
        return None


def nothing() -> dict[str, Any]:
    """Figures of no request yet."""
    return {"requests": 0, "errors": 0, "times": {}}


def add_up(into: dict[str, Any], figures: Mapping[str, Any]) -> None:
    """Add figures to others: those of a half hour, or of several hosts."""
    for name in ("requests", "errors"):
        into[name] += figures[name]
    for bucket, count in figures["times"].items():
        into["times"][bucket] = into["times"].get(bucket, 0) + count


def _add(figures: dict[str, Any], status: int, took: float) -> None:
    figures["requests"] += 1
    figures["errors"] += status >= 500
    # A websocket takes as long as its visitor stays.
    if status < 500 and status != 101:
        bucket = str(bucket_of(took * 1000))
        figures["times"][bucket] = figures["times"].get(bucket, 0) + 1


def sample(lines: Iterable[str], color: str, begin: float, end: float) -> dict[str, Any]:
    """The figures of a slot in a time: {"requests", "errors", "times"}, the last as bucket to number of requests.

    :param begin: seconds since 1970; V(end) too, and not included.
    """
    figures = nothing()
    for line in lines:
        found = _read(line)
        if found and found[1] == color and begin <= found[0] < end:
            _add(figures, *found[2:])
    return figures


def by_half_hour(lines: Iterable[str]) -> dict[tuple[int, str], dict[str, Any]]:
    """(when the half hour began, slot) to figures as V(sample) has them."""
    sums: dict[tuple[int, str], dict[str, Any]] = {}
    for line in lines:
        found = _read(line)
        if found:
            key = int(found[0]) // STEP * STEP, found[1]
            _add(sums.setdefault(key, nothing()), *found[2:])
    return sums


def remembered(path: str, begin: float) -> list[dict[str, Any]]:
    """What was added up since a time: {"at", "color", "requests", "errors", "times"}, of a half hour maybe several."""
    found = []
    try:
        with open(path, encoding="ascii", errors="replace") as stream:
            for line in stream:
                try:
                    entry = json.loads(line)
                    if entry["at"] >= begin:
                        found.append(entry)
                except (ValueError, KeyError, TypeError):
                    # The disk was full.
                    continue
    except FileNotFoundError:
        pass
    return found


def day(root: str, now: float) -> list[dict[str, Any]]:
    """The last 24 hours by the half hour, in order: {"at", "color", "requests", "errors", "p95"}, p95 in milliseconds, null without times."""
    begin = int(now - 86400) // STEP * STEP
    sums = by_half_hour(lines_since(f"{root}/figures.log", begin))
    for entry in remembered(f"{root}/figures.jsonl", begin):
        add_up(sums.setdefault((entry["at"], entry["color"]), nothing()), entry)
    return [
        {
            "at": at,
            "color": color,
            "requests": one["requests"],
            "errors": one["errors"],
            "p95": round(time_at_rank(one["times"], 0.95 * sum(one["times"].values())), 1) if one["times"] else None,
        }
        for (at, color), one in sorted(sums.items())
        if begin <= at <= now
    ]


def time_at_rank(times: Mapping[str, int], rank: float) -> float:
    """The time of the request with a rank among all, from the quickest, in milliseconds; V(inf) if there are not so many."""
    passed = 0
    for bucket in sorted(times, key=int):
        passed += times[bucket]
        if passed > rank:
            return time_of(int(bucket))
    return math.inf


def keep_small(root: str, now: float) -> bool:
    """Cut the file once it is too large, and remember what is cut off. Whether it did."""
    path, memory = f"{root}/figures.log", f"{root}/figures.jsonl"
    try:
        size = os.path.getsize(path)
    except FileNotFoundError:
        return False
    if size < (_MOST_IN_A_RUN if os.path.exists(f"{root}/lock") else _MOST):
        return False
    # Not another file: nginx goes on writing to the one that it has open.
    with open(path, "r+b") as stream:
        cut = (line.decode("ascii", "replace").rstrip("\n") for line in _until(stream, size - _KEPT))
        sums, begin = by_half_hour(cut), now - _REMEMBERED
        entries = remembered(memory, begin)
        entries += [{"at": at, "color": color, **one} for (at, color), one in sorted(sums.items()) if at >= begin]
        # Before anything is cut. Where the disk is full it is cut all the same.
        with contextlib.suppress(OSError):
            _replace(memory, "".join(json.dumps(entry) + "\n" for entry in entries))
        kept = stream.read()
        stream.seek(0)
        stream.write(kept)
        stream.truncate()
    return True


def _replace(path: str, text: str) -> None:
    """Raises: OSError."""
    try:
        with open(f"{path}.new", "w", encoding="ascii") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(f"{path}.new", path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(f"{path}.new")
        raise


def _until(stream: BinaryIO, place: int) -> Iterator[bytes]:
    while stream.tell() < place and (line := stream.readline()):
        yield line


if __name__ == "__main__":
    keep_small(sys.argv[1], time.time())
