# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One moment for a whole group, whatever the clocks of its hosts say. Private to this collection.

A host is told when to switch in seconds since it booted, for its wall clock may be wrong, or be set meanwhile. How these relate to
the clock of the controller is measured as NTP does it: the host reads its clock somewhere between question and answer.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Callable

if TYPE_CHECKING:
    from ansible_collections.beamops.bluegreen.plugins.plugin_utils._types import Result

# Understood by any shell, and starts no process.
COMMAND = "read up idle </proc/uptime; echo $up"
# /proc/uptime is truncated to hundredths of a second.
_CUT_OFF = 0.005
# Seconds between question and answer.
_GOOD_ENOUGH = 0.05
# Seconds that a switch may take longer to begin than a lock: another module, and machines are never as quick twice.
_MARGIN = 0.2


def measure(ask: Callable[[str], str], known: dict[str, float] | None = None) -> dict[str, float] | None:
    """How far the clock of a host is ahead of this machine's: {"offset", "error"} in seconds, or V(None) if it does not tell.

    :param ask: function that runs a command on the host and returns what it printed.
    :param known: what was measured before, if anything; the better of both is returned.
    """
    sent = time.monotonic()
    answer = ask(COMMAND)
    back = time.monotonic()
    try:
        uptime = float(answer) + _CUT_OFF
    except ValueError:
        return known
    if known and back - sent >= 2 * known["error"]:
        return known
    return {"offset": uptime - (sent + back) / 2, "error": (back - sent) / 2}


def is_exact(measured: dict[str, float] | None) -> bool:
    """Whether another question would hardly tell more. An answer takes long where the connection had to be opened, and over a long link."""
    return bool(measured) and 2 * (measured or {})["error"] <= _GOOD_ENOUGH


def switch_times(locked: Mapping[str, Result], now: float) -> dict[str, float]:
    """When each host of a group switches: host to seconds since it booted; empty where they cannot agree on a moment.

    As soon as all of them can be there: what took a while when they were locked takes no longer now.

    :param locked: host to result of deploy_lock with C(clock) and C(lock_window), which is when it was started and ended.
    :param now: seconds of the monotonic clock of this machine.
    """
    if len(locked) < 2 or any(not result.get("clock") or not result.get("lock_window") for result in locked.values()):
        return {}
    runs = sorted(tuple(result["lock_window"]) for result in locked.values())
    # The first host is locked before the others are.
    together = runs[1:] if runs[0][1] <= runs[1][0] else runs
    longest = max(max(end for _start, end in together) - together[0][0], runs[0][1] - runs[0][0])
    at = now + 1.1 * longest + _MARGIN
    return {host: at + result["clock"]["offset"] for host, result in locked.items()}


def skew(moments: Mapping[str, float], locked: Mapping[str, Result]) -> tuple[float, float] | None:
    """Seconds between the first and the last switch of a group, and how exactly that is known; V(None) for less than two.

    :param moments: host to when it switched, in seconds since it booted.
    :param locked: as for V(switch_times).
    """
    clocks: dict[str, dict] = {host: (locked.get(host) or {}).get("clock") or {} for host in moments}
    if len(moments) < 2 or not all(clocks.values()):
        return None
    times = [moment - clocks[host]["offset"] for host, moment in moments.items()]
    return max(times) - min(times), max(clock["error"] for clock in clocks.values())
