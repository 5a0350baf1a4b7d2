# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is worse is found, what is not is left alone, at one request a second as at 500."""

from __future__ import annotations

import math
import random

import pytest
from ansible_collections.beamops.bluegreen.plugins.module_utils import _figures
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Refused
from ansible_collections.beamops.bluegreen.plugins.plugin_utils import _gate, _variables, _watch
from hypothesis import given
from hypothesis import strategies as st

WATCH = _variables.check_watch({"seconds": 60})


def figures(count, errors=0.0, median=20.0, seed=0, restarts=0):
    """Answers of a site: a share of errors, and times that vary as those of real apps do, with a long tail."""
    chance = random.Random(seed)
    failed = sum(chance.random() < errors for _one in range(count))
    times: dict[str, int] = {}
    for _one in range(count - failed):
        bucket = str(_figures.bucket_of(median * math.exp(chance.gauss(0, 0.8))))
        times[bucket] = times.get(bucket, 0) + 1
    return {"requests": count, "errors": failed, "times": times, "restarts": restarts}


@pytest.mark.parametrize("rate", [1, 5, 50, 500])
def test_what_is_fine_stays(rate):
    """A watch of a minute looks twelve times. Fifty of them on a site that has errors and slow answers of its own."""
    for seed in range(50):
        old = figures(60 * rate if rate < 500 else 6000, 0.004, seed=seed)
        for second in WATCH["looks"]:
            count = min(second * rate, 6000)
            assert _watch.worse(figures(count, 0.004, seed=f"{seed} {second}"), old, WATCH) == ""


@pytest.mark.parametrize(
    ("new", "found"),
    [
        ({"errors": 0.05}, "errors"),
        ({"median": 60.0}, "slower"),
        ({"restarts": 1}, "restarted"),
        ({"errors": 0.05, "median": 60.0}, "errors"),
    ],
)
def test_what_is_worse_is_found(new, found):
    """Twenty of twenty, within ten seconds of 50 requests each."""
    for seed in range(20):
        old = figures(3000, 0.001, seed=seed)
        assert _watch.worse(figures(500, seed=f"new {seed}", **new), old, WATCH) == found


def test_few_requests_say_nothing():
    old = figures(1000)
    assert _watch.worse(figures(49, 0.5), old, WATCH) == "" and _watch.worse(figures(50, 0.5), old, WATCH) == "errors"
    # There was nobody before to be slower than.
    assert _watch.worse(figures(500, median=900), figures(0), WATCH) == ""
    assert _watch.worse(figures(500, 0.05), figures(0), WATCH) == "errors"
    # What was as bad before is no reason to go back to it.
    assert _watch.worse(figures(500, 0.05), figures(3000, 0.05), WATCH) == ""
    # Three times as slow, and nobody notices.
    assert _watch.worse(figures(5000, median=3.0), figures(5000, median=1.0), WATCH) == ""


@given(st.integers(0, 5000), st.integers(0, 5000))
def test_a_share_is_never_more_than_what_was_seen(one, other):
    errors, requests = sorted((one, other))
    assert 0 <= _watch.share_at_least(errors, requests) <= (errors / requests if requests else 0) + 1e-9


@given(st.dictionaries(st.integers(-10, 200).map(str), st.integers(1, 50), min_size=1), st.floats(0.05, 0.95))
def test_a_quantile_lies_between_its_bounds(times, quantile):
    least, about, most = (_watch.time_at(times, quantile, side) for side in (-1, 0, 1))
    assert least <= about <= most and _watch.time_at({}, quantile, 1) == math.inf


@given(st.floats(0.5, 600_000))
def test_a_time_is_known_to_five_percent(milliseconds):
    assert abs(_figures.time_of(_figures.bucket_of(milliseconds)) / milliseconds - 1) < 0.026


def test_what_the_site_writes_is_counted():
    lines = [
        "100.000 green 200 0.010",
        "100.100 green 502 0.000",
        "100.200 blue 200 0.010",
        "100.300 green 101 900.0",
        "100.400 green 504 -",
        "100.450 green 502 0.001, 0.000",
        "100.460 green 200 0.004, 0.006 : 0.000",
        "100.500 gre",
        "100.600 green 200 0.010 100.700 green 200 0.010",
        "x green 200 0.010",
        "200.000 green 200 0.010",
        "99.999 green 200 0.010",
    ]
    found = _figures.sample(lines, "green", 100, 200)
    assert found == {"requests": 6, "errors": 3, "times": {str(_figures.bucket_of(10)): 2}}


@pytest.mark.parametrize("begin", [0, 5.5, 5000, 19999, 30000])
def test_no_more_of_the_file_is_read_than_is_asked_for(tmp_path, begin):
    path = tmp_path / "figures.log"
    path.write_text("cut off\n" + "".join(f"{second}.000 green 200 0.010\n" for second in range(20000)))
    lines = list(_figures.lines_since(str(path), begin))
    wanted = max(0, 20000 - math.ceil(begin))
    assert _figures.sample(lines, "green", begin, 1e9)["requests"] == wanted
    assert len(lines) <= wanted + 5 + 65536 // 20
    assert list(_figures.lines_since("/none", begin)) == []


@pytest.mark.parametrize(
    ("snippet", "found"),
    [
        ("", ""),
        ("location = /robots.txt { access_log off; }", ""),
        ("# access_log off;\nadd_header X y;", ""),
        ("access_log /var/log/nginx/mine.log;", "/var/log/nginx/mine.log"),
        ("location / { deny all; }\naccess_log  off;", "off"),
        ("access_log off; access_log /var/log/nginx/mine.log;", "off"),
        ("access_log", ""),
        ("access_log /a.log; access_log off;", "off"),
    ],
)
def test_an_access_log_of_the_user(snippet, found):
    assert _variables.access_log(snippet) == found


def test_the_evidence_is_said_in_words():
    new = {"requests": 1204, "errors": 37, "times": {str(_figures.bucket_of(480)): 1167}}
    old = {"requests": 1180, "errors": 1, "times": {str(_figures.bucket_of(120)): 1179}}
    said = _watch.evidence("green", new, old, "blue before")
    assert said.startswith("green 5xx 3.1 % of 1,204, blue before 0.1 % of 1,180; p95 4") and ", before 1" in said
    none = {"requests": 0, "errors": 0, "times": {}}
    assert _watch.evidence("green", none, old, "blue before") == "green had no request"
    assert _watch.evidence("green", new, none, "blue before").startswith(
        "green 5xx 3.1 % of 1,204, blue before none; p95 "
    )
    assert _watch.evidence("green", {**new, "restarts": 1}, old, "x y").startswith("its process ended; green 5xx")
    both = _watch.total([new, new])
    assert both["requests"] == 2408 and sum(both["times"].values()) == 2 * 1167


def test_the_gate_behind_a_look():
    before = {**_gate.new("run"), "begun": ["lock", "plan", "switched"]}
    assert _gate.watched(before, [])["ok"] and _gate.watched(before, [])["undo"] == []
    bad = _gate.watched(before, [{"host": "web1", "step": "watched", "why": "x"}])
    assert not bad["ok"] and bad["undo"] == ["switch"] and bad["worse"]
    # A switch that fails after steps that were good is not worse than anything.
    later = _gate.check(_gate.watched(before, []), {}, ["web1"], ["on_live_sent"])
    assert not later["ok"] and not later["worse"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "must be a mapping"),
        ({"minutes": 1}, "must be a mapping of seconds, errors, slower, least"),
        ({"seconds": 3601}, "bluegreen_watch.seconds must be a whole number from 0 to 3600"),
        ({"seconds": "x"}, "bluegreen_watch.seconds must be a whole number"),
        ({"least": 0}, "bluegreen_watch.least must be a whole number from 1"),
        ({"errors": 101}, "bluegreen_watch.errors must be a number from 0 to 100 (got '101')"),
        ({"errors": True}, "bluegreen_watch.errors must be a number"),
        ({"errors": None}, "bluegreen_watch.errors must be a number"),
        ({"slower": 0.5}, "bluegreen_watch.slower must be a number from 1 to 1000"),
        ({"slower": "nan"}, "bluegreen_watch.slower must be a number"),
    ],
)
def test_a_watch_that_makes_no_sense(value, words):
    with pytest.raises(Refused, match=words.replace("(", r"\(").replace(")", r"\)")):
        _variables.check_watch(value)


def test_when_a_watch_looks():
    assert _variables.check_watch({})["looks"] == [] and _variables.check_watch({"seconds": 0})["looks"] == []
    assert _variables.check_watch({"seconds": 12, "errors": "0.5"})["looks"] == [5, 10, 12]
    assert _variables.looks(3) == [3] and _variables.looks(10) == [5, 10]


def test_steps():
    assert _variables.check_steps("5,25,50") == [5, 25, 50] and _variables.check_steps(10) == [10]
    for wrong in ("", "0", "100", "25,5", "5,5", "5, 25", "a", None, "5,,6"):
        with pytest.raises(Refused):
            _variables.check_steps(wrong)
