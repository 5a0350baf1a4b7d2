# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What went live is watched, and the host goes back if it is worse. Groups are in fleet/test_9_watch.py."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time

import pytest
from support.bluegreen import Client, Site, artifact, variant, wait_until

ROOT = "/opt/sample_app"
WATCH = {"bluegreen_watch": {"seconds": 10}}


def other(color):
    return "green" if color == "blue" else "blue"


def promote(play, site, tmp_path, worse="0 0", rc=0, more=None, **watch):
    """Deploy a new release beside the live one, and promote it under load. Returns (what was said, client)."""
    env = {"SECRET_KEY_BASE": "k", "SAMPLE_WORSE": worse, **(more or {})}
    new = variant(artifact("sample_app-0.1.1"), str(tmp_path / "new.tar.gz"))
    goal = {"bluegreen_watch": {**WATCH["bluegreen_watch"], **watch}}
    play("deploy", {"bluegreen_artifact": new, "bluegreen_env": env, "bluegreen_force": True}, goal)
    with Client(site) as client:
        # What was live before is known from this time.
        time.sleep(8)
        return play("promote", goal, rc=rc), client


def test_a_release_that_is_fine_stays(host, site, play, tmp_path):
    live = site.color()
    run, client = promote(play, site, tmp_path)
    run.says(
        "watched 5 s of 10 s: ",
        "watched 10 s of 10 s: ",
        f"{other(live)} 5xx 0.0 % of ",
        f", {live} before 0.0 % of ",
        "; p95 ",
        "; memory ",
    )
    assert "restarted" not in run.text
    assert client.failed == [] and site.color() == other(live)


@pytest.mark.parametrize(
    ("worse", "words"),
    [
        pytest.param("50 0", " 5xx ", id="errors"),
        pytest.param("0 60", "; p95 ", id="slower", marks=pytest.mark.long),
    ],
)
def test_a_release_that_is_worse_goes_back(host, site, play, tmp_path, worse, words):
    live = site.color()
    run, client = promote(play, site, tmp_path, worse, rc=2)
    run.says("watching: ", words, "The whole group went back")
    assert site.color() == live
    # Beyond those that the release itself has failed, no request is lost.
    assert {one.partition(" ")[2] for one in client.failed} <= {"status 500"}
    # It counts as rolled back from, and the history has the evidence.
    play("promote", WATCH, rc=2).says("was rolled back from")
    last = json.loads(host.check_output(f"sudo tail -n 2 {ROOT}/history.jsonl | head -n 1"))
    assert last["result"] == "failed" and "before" in last["why"] and last["to"]["color"] == live


@pytest.mark.long
def test_what_only_the_node_knows(host, site, play, tmp_path):
    """Children that are restarted again and again, and messages that pile up. What the old slot does too counts for nothing."""
    live, flaky = site.color(), {"SAMPLE_FLAKY_MS": "300"}
    run, client = promote(play, site, tmp_path, rc=2, more=flaky)
    run.says(
        "watching: ",
        "; its supervisors restarted children ",
        ", those of the other slot 0",
        "The whole group went back",
    )
    assert client.failed == [] and site.color() == live
    # Nothing runs on in it once the run has ended.
    asked = {"expr": "IO.puts(Process.whereis(:bluegreen_watch) == nil)", "color": other(live)}
    wait_until(lambda: "true" in play("rpc", asked).text, 10)
    # Nobody wants it judged.
    quiet = play("promote", {"bluegreen_watch": {"seconds": 5, "restarts": 0}, "color": other(live)})
    assert "restarted" not in quiet.text and "memory" not in quiet.text and site.color() == other(live)
    run, client = promote(play, site, tmp_path, more=flaky)
    run.says("; its supervisors restarted children ", ", those of the other slot ")
    assert site.color() == live
    beside(play, tmp_path)
    pile = "pid = spawn(fn -> Process.sleep(:infinity) end); Process.register(pid, :writer); for one <- 1..20_000, do: send(pid, one)"
    play("rpc", {"expr": pile, "color": other(live)})
    play("promote", WATCH, rc=2).says("; 20,000 messages wait for writer")
    assert site.color() == live


@pytest.mark.long
def test_a_node_that_cannot_be_asked(site, play, tmp_path):
    live = site.color()
    beside(play, tmp_path)
    play("rpc", {"expr": "Node.set_cookie(:another)", "color": other(live)})
    run = play("promote", WATCH)
    run.says(f": the node of {other(live)} tells nothing, so only answers are judged: ", "watched 10 s of 10 s: ")
    assert "; memory" not in run.text and site.color() == other(live)
    play("restart", "color=live")


def beside(play, tmp_path, worse="0 0"):
    """A new release in the idle slot."""
    env = {"SECRET_KEY_BASE": "k", "SAMPLE_WORSE": worse}
    new = variant(artifact("sample_app-0.1.1"), str(tmp_path / "new.tar.gz"))
    play("deploy", {"bluegreen_artifact": new, "bluegreen_env": env, "bluegreen_force": True}, WATCH)


def canary(host, color):
    return int(host.check_output(f"ls {ROOT}/canary/{color} 2>/dev/null | wc -l"))


def test_a_canary_that_is_worse_ends(host, site, play, tmp_path):
    live = site.color()
    beside(play, tmp_path, "200 0")
    with visitors(site) as clients:
        run = play("canary", "percent=50", "watch=30", WATCH, rc=2)
    run.says(f"{other(live)} 5xx", f", {live} meanwhile 0.0 % of ", "; memory ")
    assert canary(host, other(live)) == 0 and site.color() == live
    assert {one.partition(" ")[2] for client in clients for one in client.failed} <= {"status 500"}


def test_a_promote_goes_up_by_steps(host, site, play, tmp_path):
    live = site.color()
    beside(play, tmp_path, "200 0")
    watch = {"bluegreen_watch": {"seconds": 10, "least": 10}}
    with visitors(site):
        play("promote", "steps=50,80", watch, rc=2).says("watching: ", " meanwhile ", "; memory ")
    assert canary(host, other(live)) == 0 and site.color() == live
    beside(play, tmp_path)
    with visitors(site) as clients:
        run = play("promote", "steps=5,50", watch)
    assert run.text.count("watched 10 s of 10 s") == 3 and " before " in run.text and " meanwhile " in run.text
    assert site.color() == other(live) and [client.failed for client in clients] == [[]] * len(clients)


@contextlib.contextmanager
def visitors(site, count=4):
    """Several of them: a canary is a matter of who asks. Of the user agents one in two, or more, is in each share that is tried."""
    clients = [Client(Visitor(site, f"visitor {number}")) for number in range(count)]
    with contextlib.ExitStack() as stack:
        for client in clients:
            stack.enter_context(client)
        yield clients


class Visitor(Site):
    def __init__(self, site, agent):
        super().__init__(site.port, site.domain)
        self.headers = {**self.headers, "User-Agent": agent}


@pytest.mark.long
def test_a_watch_that_was_ended_leaves_the_promote(host, site, play, tmp_path):
    """Whoever ends the watch, or breaks its lock, has decided; the next run is told."""
    live = site.color()
    beside(play, tmp_path)
    run = threading.Thread(target=play, args=("promote", {"bluegreen_watch": {"seconds": 60}}), kwargs={"rc": any})
    run.start()
    wait_until(lambda: site.color() != live)
    time.sleep(2)
    play("unlock", "bluegreen_force=true")
    run.join()
    assert site.color() == other(live)
    play("status", "strict=true", "history=3").says("died", "its lock was broken")


@pytest.mark.long
def test_a_watch_without_visitors(site, play, tmp_path):
    live = site.color()
    beside(play, tmp_path)
    play("promote", WATCH).says(f"{other(live)} had no request", "Nothing to judge by, so it stays")
    assert site.color() == other(live)


def shows_the_last_day(play, tmp_path):
    """Write the page, require that it shows the last day and who did what, and return it; the table on the screen has no more lines for it."""
    run = play("status", "format=html", f"out={tmp_path}/page.html", WATCH)
    text = (tmp_path / "page.html").read_text()
    found = re.search(r"([0-9,]+) requests in 24 h, ([0-9,]+) failed", text)
    assert int(found[1].replace(",", "")) > 1000 and int(found[2]) > 0
    assert "p95: " in text and "<svg" in text and "Who did what" in text
    assert "  promote  " not in run.text
    play("status", "format=json", f"out={tmp_path}/page.json", WATCH)
    assert "figures" not in json.loads((tmp_path / "page.json").read_text())["hosts"]["bluegreen-web1"]
    return text


def test_the_page_shows_the_last_day(play, tmp_path):
    assert "<strong>promote</strong>" in shows_the_last_day(play, tmp_path)


def test_the_figures_stay_small(host, play, tmp_path):
    # A dry run starts nothing, whether it is there or not.
    play("setup", WATCH, "--check")
    play("setup", WATCH)
    assert host.check_output("systemctl is-active sample_app-figures.timer") == "active"
    for status, count in ((200, 2000), (500, 20)):
        host.check_output(
            f"sudo sh -c 'yes $(date +%s).000 green {status} 0.010 | head -n {count} >>{ROOT}/figures.log'"
        )
    host.check_output(f"sudo sh -c 'yes 1.000 green 200 0.001 | head -n 800000 >>{ROOT}/figures.log'")
    host.check_output("sudo systemctl start sample_app-figures")
    assert host.check_output("systemctl show -P Nice sample_app-figures") == "19"
    # It is cut between two lines.
    assert (4 << 20) - 100 <= host.file(f"{ROOT}/figures.log").size < 5 << 20
    # What was cut off is remembered, and is in the page; those 800,000 are of 1970.
    shows_the_last_day(play, tmp_path)
    assert json.loads(host.check_output(f"sudo tail -n 1 {ROOT}/figures.jsonl"))["requests"] > 0
    # An address, a path or a cookie is in none of its lines.
    told = host.check_output(
        f"sudo tail -n +2 {ROOT}/figures.log | cut -d ' ' -f 2- | grep -Evc '^(blue|green) [0-9]+ [0-9.-]+$' || true"
    )
    assert told == "0"


def test_without_it_the_site_writes_nothing(host, site, play):
    assert host.file(f"{ROOT}/figures.log").size > 0
    play("setup")
    before = host.file(f"{ROOT}/figures.log").size
    assert site.get("/").status_code == 200
    time.sleep(2)
    assert host.file(f"{ROOT}/figures.log").size == before
