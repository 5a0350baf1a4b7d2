# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is what went live worse than what was live before? Pure; private to this collection.

The judgement is made again every few seconds, on one host of few visitors as on one of many, and must not cry wolf. So nothing is compared
by its value alone: a share, or a time, counts only as far as it is certain (C(_Z)) from so many requests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ansible_collections.beamops.bluegreen.plugins.module_utils import _figures

# Of a normal distribution, one-sided: wrong once in 2,000 times. A watch of a minute judges a dozen times.
_Z = 3.29
# Milliseconds. What is slower by less nobody notices, however many times slower that is.
_NOTICED = 10.0
# Half of the visitors, or the slowest twentieth, have to wait longer.
_QUANTILES = (0.5, 0.95)


def share_at_least(errors: int, requests: int) -> float:
    """The share that requests fail with, for certain: the lower end of Wilson's interval.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference (1927).
    """
    if not requests:
        return 0.0
    share, z2 = errors / requests, _Z * _Z / requests
    spread = _Z * math.sqrt(share * (1 - share) / requests + z2 / (4 * requests))
    return max(0.0, (share + z2 / 2 - spread) / (1 + z2))


def _at(times: Mapping[str, int], rank: float) -> float:
    """The time of the request with a rank among all, from the quickest, in milliseconds."""
    passed = 0
    for bucket in sorted(times, key=int):
        passed += times[bucket]
        if passed > rank:
            return _figures.time_of(int(bucket))
    return math.inf


def time_at(times: Mapping[str, int], quantile: float, side: int = 0) -> float:
    """A quantile of times in milliseconds: at least (V(-1)), about (V(0)) or at most (V(1)), for certain. V(inf) if it is not known.

    The ranks that a quantile lies between follow a binomial distribution, whatever the distribution of the times is.

    :param times: bucket to number of requests.
    """
    count = sum(times.values())
    if not count:
        return 0.0 if side < 0 else math.inf
    rank = count * quantile + side * _Z * math.sqrt(count * quantile * (1 - quantile))
    if rank < 0:
        return 0.0
    return _at(times, min(rank, count - 1) if side <= 0 else rank)


def worse(new: Mapping[str, Any], old: Mapping[str, Any], watch: Mapping[str, Any]) -> str:
    """Why one slot of a host is worse than the other, as V(errors), V(slower), V(restarted) or empty.

    :param new: {"requests", "errors", "times"} of the slot that is watched, and "restarts", whether its process ended meanwhile.
    :param old: the same of the slot to compare with, without C(restarts).
    :param watch: C(bluegreen_watch), complete.
    """
    if new.get("restarts"):
        return "restarted"
    if new["requests"] < watch["least"]:
        return ""
    before = old["errors"] / old["requests"] if old["requests"] else 0.0
    if share_at_least(new["errors"], new["requests"]) > max(watch["errors"] / 100, before):
        return "errors"
    if old["requests"] < watch["least"]:
        return ""
    for quantile in _QUANTILES:
        least, most = time_at(new["times"], quantile, -1), time_at(old["times"], quantile, 1)
        if least > watch["slower"] * most and least > most + _NOTICED:
            return "slower"
    return ""


def total(samples: list[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of several hosts as one."""
    found: dict[str, Any] = {"requests": 0, "errors": 0, "times": {}, "restarts": 0}
    for sample in samples:
        for name in ("requests", "errors", "restarts"):
            found[name] += sample.get(name, 0)
        for bucket, count in sample["times"].items():
            found["times"][bucket] = found["times"].get(bucket, 0) + count
    return found


def _percent(sample: Mapping[str, Any]) -> str:
    share = 100 * sample["errors"] / sample["requests"] if sample["requests"] else 0.0
    return f"{share:.1f} % of {sample['requests']:,}"


def _p95(sample: Mapping[str, Any]) -> str:
    found = time_at(sample["times"], 0.95)
    return "?" if math.isinf(found) else f"{found:.0f} ms"


def evidence(color: str, new: Mapping[str, Any], old: Mapping[str, Any], what: str) -> str:
    """The figures in words: V(green 5xx 3.1 % of 1,204, blue before 0.1 % of 1,180; p95 480 ms, before 120 ms).

    :param what: how the other slot is called, such as V(blue before).
    """
    crashed = "its process ended; " if new.get("restarts") else ""
    if not new["requests"]:
        return f"{crashed}{color} had no request"
    compared = f", {what} {_percent(old)}" if old["requests"] else f", {what} none"
    time = f"; p95 {_p95(new)}" + (f", {what.rpartition(' ')[2]} {_p95(old)}" if old["requests"] else "")
    return f"{crashed}{color} 5xx {_percent(new)}{compared}{time}"
