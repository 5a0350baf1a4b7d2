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
from ansible_collections.beamops.bluegreen.plugins.module_utils._validate import other

# Of a normal distribution, one-sided: wrong once in 2,000 times. A watch of a minute judges a dozen times.
_Z = 3.29
# Milliseconds. What is slower by less nobody notices, however many times slower that is.
_NOTICED = 10.0
# Messages that wait for one process. It does not keep up any more.
_TOO_MANY = 10_000
# Processes that wait for a scheduler. A few always do.
_BUSY = 50
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
    return _figures.time_at_rank(times, min(rank, count - 1) if side <= 0 else rank)


def worse(new: Mapping[str, Any], old: Mapping[str, Any], watch: Mapping[str, Any]) -> str:
    """Why one slot of a host is worse than the other, as V(errors), V(slower), V(restarted), V(supervisors), V(queue) or empty.

    :param new: {"requests", "errors", "times"} of the slot that is watched, "restarts", whether its process ended meanwhile, and "node", what that
        writes of itself, if it does.
    :param old: the same of the slot to compare with, without C(restarts). What its node does in the same time, too, counts for nothing.
    :param watch: C(bluegreen_watch), complete.
    """
    if new.get("restarts"):
        return "restarted"
    node, beside = new.get("node"), old.get("node")
    if watch["restarts"] and node and beside:
        if node["restarts"] - beside["restarts"] >= watch["restarts"]:
            return "supervisors"
        if node["queue"] >= max(_TOO_MANY, 2 * beside["queue"]):
            return "queue"
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
    """The figures of several hosts as one; of their nodes the worst of each."""
    found: dict[str, Any] = {**_figures.nothing(), "restarts": 0, "node": None}
    for sample in samples:
        _figures.add_up(found, sample)
        found["restarts"] += sample.get("restarts", 0)
    nodes = [sample["node"] for sample in samples if sample.get("node")]
    if nodes:
        longest = max(nodes, key=lambda node: node["queue"])
        most = {name: max(node[name] for node in nodes) for name in ("restarts", "memory", "run_queue")}
        found["node"] = {**most, "queue": longest["queue"], "queue_of": longest["queue_of"]}
    return found


def _percent(sample: Mapping[str, Any]) -> str:
    share = 100 * sample["errors"] / sample["requests"] if sample["requests"] else 0.0
    return f"{share:.1f} % of {sample['requests']:,}"


def _p95(sample: Mapping[str, Any]) -> str:
    found = time_at(sample["times"], 0.95)
    return "?" if math.isinf(found) else f"{found:.0f} ms"


def _node(node: Mapping[str, Any] | None, beside: Mapping[str, Any] | None) -> str:
    """What a node says of itself, as far as it says something: V(; its supervisors restarted children 5 times, those of the other slot 0; memory 95 MB)."""
    if not node:
        return ""
    found = ""
    if node["restarts"]:
        compared = f", those of the other slot {beside['restarts']}" if beside else ""
        found = f"; its supervisors restarted children {node['restarts']} time{'s' * (node['restarts'] != 1)}{compared}"
    found += f"; {node['queue']:,} messages wait for {node['queue_of']}" if node["queue"] >= _TOO_MANY / 10 else ""
    found += f"; {node['run_queue']} processes wait for a scheduler" if node["run_queue"] >= _BUSY else ""
    return found + f"; memory {node['memory'] / 1e6:.0f} MB"


def evidence(color: str, new: Mapping[str, Any], old: Mapping[str, Any], what: str) -> str:
    """The figures in words: V(green 5xx 3.1 % of 1,204, blue before 0.1 % of 1,180; p95 480 ms, before 120 ms).

    :param what: how the other slot is called, such as V(blue before).
    """
    crashed = "its process ended; " if new.get("restarts") else ""
    node = _node(new.get("node"), old.get("node"))
    if not new["requests"]:
        return f"{crashed}{color} had no request{node}"
    compared = f", {what} {_percent(old)}" if old["requests"] else f", {what} none"
    time = f"; p95 {_p95(new)}" + (f", {what.rpartition(' ')[2]} {_p95(old)}" if old["requests"] else "")
    return f"{crashed}{color} 5xx {_percent(new)}{compared}{time}{node}"


def silent(seen: Mapping[str, Mapping[str, Any]], asked: Mapping[str, Mapping[str, Any]], color: str) -> list[str]:
    """A line for each host where the nodes of both slots do not tell of themselves, so that only answers are judged.

    :param seen: host to what slot_watch told.
    :param asked: host to what became of asking both.
    """
    lines = []
    for host, told in seen.items():
        mute = [slot for slot in (color, other(color)) if not told["new" if slot == color else "old"].get("node")]
        if not mute:
            continue
        results = asked.get(host, {}).get("results", [])
        why = next(
            (one.get("msg") for one in results if one.get("__bluegreen_told_color") == mute[0] and not one.get("ok")),
            None,
        )
        # The last line is the cause.
        reason = f": {why.strip().splitlines()[-1].strip()}" if why and why.strip() else ""
        nodes = f"the nodes of {' and '.join(mute)} tell" if len(mute) > 1 else f"the node of {mute[0]} tells"
        lines.append(f"{host}: {nodes} nothing, so only answers are judged{reason}")
    return lines
