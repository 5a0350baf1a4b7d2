# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import subprocess
import time

import pytest
from ansible_collections.beamops.bluegreen.plugins.plugin_utils import _clock
from hypothesis import given
from hypothesis import strategies as st

SECONDS = st.floats(0, 100)


def locked(start, end, offset=0.0, error=0.01):
    return {"lock_window": [start, end], "clock": {"offset": offset, "error": error}}


def test_this_machine_is_as_far_ahead_of_itself_as_it_says():
    found = _clock.measure(lambda command: subprocess.check_output(["sh", "-c", command], text=True))
    with open("/proc/uptime", encoding="utf-8") as stream:
        real = float(stream.read().split()[0]) - time.monotonic()
    assert abs(found["offset"] - real) <= found["error"] + 0.02


def test_the_quickest_answer_counts(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(_clock.time, "monotonic", lambda: now[0])

    def after(pause):
        def ask(_command):
            now[0] += pause / 2
            told = now[0] + 1000
            now[0] += pause / 2
            return f"{told}\n"

        return ask

    def broken(_command):
        return "sh: cannot open /proc/uptime"

    slow = _clock.measure(after(0.5))
    assert slow["error"] == pytest.approx(0.25) and not _clock.is_exact(slow)
    quick = _clock.measure(after(0.06), slow)
    assert quick["error"] == pytest.approx(0.03) and quick["offset"] == pytest.approx(1000, abs=0.006)
    assert _clock.measure(after(0.2), quick) == quick == _clock.measure(broken, quick)
    assert not _clock.is_exact(quick) and _clock.is_exact(_clock.measure(after(0.04)))
    assert _clock.measure(broken) is None and not _clock.is_exact(None)


@given(st.lists(st.tuples(SECONDS, SECONDS, st.floats(-1e6, 1e6)), min_size=2, max_size=20), SECONDS)
def test_a_group_agrees_on_one_moment_that_all_can_reach(runs, now):
    group = {str(index): locked(start, start + took, offset) for index, (start, took, offset) in enumerate(runs)}
    at = _clock.switch_times(group, now)
    moments = [at[host] - group[host]["clock"]["offset"] for host in group]
    assert max(moments) - min(moments) < 1e-6
    assert all(moment > now + took for moment, (_start, took, _offset) in zip(moments, runs))


def test_hosts_that_cannot_be_compared_agree_on_nothing():
    assert _clock.switch_times({"a": locked(0, 1)}, 5) == {}
    assert _clock.switch_times({"a": locked(0, 1), "b": {"lock_window": [0, 1], "clock": None}}, 5) == {}
    assert _clock.switch_times({"a": locked(0, 1), "b": {"unreachable": True}}, 5) == {}


def test_the_first_host_is_locked_before_the_others():
    group = {"a": locked(0, 1), "b": locked(1, 2), "c": locked(1.1, 2.2)}
    # Not 2.2 s, which is both rounds.
    assert 1.2 < _clock.switch_times(group, 10)["a"] - 10 < 1.9


def test_how_far_apart_a_group_switched():
    group = {"a": locked(0, 1, 1000.0, 0.01), "b": locked(0, 1, -3600.0, 0.02)}
    apart, exactly = _clock.skew({"a": 1050.0, "b": -3549.97}, group)
    assert apart == pytest.approx(0.03) and exactly == 0.02
    assert _clock.skew({"a": 1050.0}, group) is None and _clock.skew({"a": 1.0, "c": 2.0}, group) is None
