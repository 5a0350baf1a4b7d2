# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is worse is found, what is not is left alone, at one request a second as at 500."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys

import pytest
from ansible_collections.beamops.bluegreen.plugins.module_utils import _figures
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Refused
from ansible_collections.beamops.bluegreen.plugins.modules import slot_watch
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


def node(restarts=0, queue=0, run_queue=1):
    return {
        "restarts": restarts,
        "memory": 95_400_000,
        "run_queue": run_queue,
        "queue": queue,
        "queue_of": "Shop.Mailer",
    }


def test_what_the_node_says_of_itself():
    old = {**figures(3000), "node": node()}
    assert _watch.worse({**figures(0), "node": node(2, 9_999)}, old, WATCH) == ""
    assert _watch.worse({**figures(0), "node": node(3)}, old, WATCH) == "supervisors"
    assert _watch.worse({**figures(0), "node": node(0, 10_000)}, old, WATCH) == "queue"
    assert _watch.worse({**figures(0), "node": node(99, 99_999)}, old, {**WATCH, "restarts": 0}) == ""
    # What the old one does too, or cannot say, is no reason to go back to it.
    assert _watch.worse({**figures(0), "node": node(9)}, {**old, "node": node(7)}, WATCH) == ""
    assert _watch.worse({**figures(0), "node": node(0, 19_000)}, {**old, "node": node(0, 9_999)}, WATCH) == ""
    assert _watch.worse({**figures(0), "node": node(99, 99_999)}, {**old, "node": None}, WATCH) == ""
    assert _watch.worse({**figures(0), "node": None}, old, WATCH) == ""
    worst = _watch.total(
        [{**figures(0), "node": node(1)}, {**figures(0), "node": None}, {**figures(0), "node": node(0, 5_000, 80)}]
    )
    said = "its supervisors restarted children 1 time, those of the other slot 0; 5,000 messages wait for Shop.Mailer; "
    said += "80 processes wait for a scheduler; memory 95 MB"
    assert _watch.evidence("green", worst, old, "blue before") == f"green had no request; {said}"
    assert (
        _watch.evidence("green", {**figures(0), "node": node()}, old, "blue before")
        == "green had no request; memory 95 MB"
    )


def test_who_says_nothing_is_said_once():
    told = {"new": {"node": node()}, "old": {"node": node()}}
    mute = {"new": {"node": None}, "old": {"node": node()}}
    failed = {
        "results": [
            {"__bluegreen_told_color": "blue", "ok": True},
            {"__bluegreen_told_color": "green", "msg": "rpc in green ended with 1:\n    (nothing)\n  is epmd gone?\n"},
        ]
    }
    assert _watch.silent({"a": told, "b": mute}, {"b": failed}, "green") == [
        "b: the node of green tells nothing, so only answers are judged: is epmd gone?"
    ]
    assert _watch.silent({"a": {"new": {}, "old": {}}}, {}, "blue") == [
        "a: the nodes of blue and green tell nothing, so only answers are judged"
    ]


def test_what_the_app_writes_is_not_trusted(tmp_path):
    def told(text, pid=71):
        (tmp_path / "watch").write_text(text and f"run-1 {text}")
        return slot_watch.of_node(str(tmp_path), pid, "run-1")

    good = "71 2 95400000 3 12 Shop.Mailer"
    assert told(good) == {"restarts": 2, "memory": 95_400_000, "run_queue": 3, "queue": 12, "queue_of": "Shop.Mailer"}
    assert told(good, 72) is None and told("71 2 9 3") is None and told("71 -2 9 3 1 a") is None and told("") is None
    assert told("71 2 9 3 1 :\x1b[31m a<b>")["queue_of"] == "31mab" and told("71 2 9 3 1 ")["queue_of"] == "?"
    # Of a run before this one.
    assert slot_watch.of_node(str(tmp_path), 71, "run-2") is None
    os.utime(tmp_path / "watch", (1, 1))
    assert slot_watch.of_node(str(tmp_path), 71, "run-1") is None
    (tmp_path / "watch").unlink()
    (tmp_path / "watch").symlink_to("/etc/passwd")
    assert slot_watch.of_node(str(tmp_path), 71, "run-1") is None
    (tmp_path / "watch").unlink()
    os.mkfifo(tmp_path / "watch")
    assert slot_watch.of_node(str(tmp_path), 71, "run-1") is None


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


# --- the file that the site writes ---------------------------------------------------------------------------------------


def write_log(root, begin, count, color="green"):
    """So many answers, one each 20 ms: every hundredth fails, every tenth takes 90 ms."""
    with open(root / "figures.log", "a") as stream:
        for number in range(count):
            status, took = (500, 0.01) if number % 100 == 0 else (200, 0.09 if number % 10 == 1 else 0.01)
            stream.write(f"{begin + number / 50:.3f} {color} {status} {took}\n")


def test_what_is_cut_off_is_remembered(tmp_path, monkeypatch):
    for name, size in (("_MOST", 60_000), ("_MOST_IN_A_RUN", 90_000), ("_KEPT", 20_000)):
        monkeypatch.setattr(_figures, name, size)
    begin = 1_795_860_000
    root, now = str(tmp_path), begin + 7200
    assert not _figures.keep_small(root, now) and _figures.day(root, now) == []
    write_log(tmp_path, begin, 1000)
    write_log(tmp_path, begin + 3600, 500, "blue")
    before = _figures.day(root, now)
    assert [(one["at"], one["color"], one["requests"], one["errors"]) for one in before] == [
        (begin, "green", 1000, 10),
        (begin + 3600, "blue", 500, 5),
    ]
    assert 85 < before[0]["p95"] < 95
    assert not _figures.keep_small(root, now)
    write_log(tmp_path, begin + 5400, 1000)
    # A run that may watch has the last word of it.
    (tmp_path / "lock").write_text("{}")
    assert not _figures.keep_small(root, now)
    (tmp_path / "lock").unlink()
    before = _figures.day(root, now)
    assert _figures.keep_small(root, now) and (tmp_path / "figures.log").stat().st_size <= 20_000
    assert _figures.day(root, now) == before
    # Again and again, of the same half hour.
    write_log(tmp_path, begin + 5420, 2000)
    assert _figures.keep_small(root, now)
    assert _figures.day(root, now)[-1]["requests"] == 3000
    # A full disk: it is cut all the same. Here a directory is in the way.
    (tmp_path / "figures.jsonl.new").mkdir()
    write_log(tmp_path, begin + 5500, 2000)
    assert _figures.keep_small(root, now) and (tmp_path / "figures.log").stat().st_size <= 20_000
    (tmp_path / "figures.jsonl.new").rmdir()
    assert _figures.day(root, now)[-1]["requests"] >= 3000
    # And two days later.
    with open(tmp_path / "figures.jsonl", "a") as stream:
        stream.write('{"at": 17958\n[]\n')
    assert _figures.day(root, now)[-1]["requests"] >= 3000
    write_log(tmp_path, begin + 3 * 86400, 2500)
    assert _figures.keep_small(root, begin + 3 * 86400 + 60)
    assert (tmp_path / "figures.jsonl").read_text().count("\n") == 1
    assert [one["at"] for one in _figures.day(root, begin + 3 * 86400 + 60)] == [begin + 3 * 86400]


def test_it_runs_alone(tmp_path):
    """Set-up copies it to the host without the rest of the collection."""
    write_log(tmp_path, 1_795_860_000, 10)
    words = [sys.executable, "-I", _figures.__file__, str(tmp_path)]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stderr == ""
