# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A group is watched host by host, and goes back as one."""

from __future__ import annotations

import json
import os
import sys
import time

import pytest

sys.path.insert(0, os.path.join(os.environ["MOLECULE_PROJECT_DIRECTORY"], "tests"))

from support.bluegreen import Client, artifact, variant
from support.fleet import HOSTS, SITES, asking, cut_off, inside, make_live, play, start, start_of

WATCH = {"bluegreen_watch": {"seconds": 15}}
JOBS = {"bluegreen_on_live": "SampleApp.Jobs.run()", "bluegreen_on_idle": "SampleApp.Jobs.pause()"}
PORTS = {"blue": 4000, "green": 5000}


@pytest.fixture
def prepared(tmp_path):
    """Makes a new release wait on all hosts, whose environment is worse as an expression says. Returns (live, idle)."""
    live, idle = make_live()

    def deploy(worse):
        new = variant(artifact("sample_app-0.1.1"), str(tmp_path / "new.tar.gz"))
        env = {"SECRET_KEY_BASE": "k", "SAMPLE_WORSE": worse}
        play("deploy", WATCH, {"bluegreen_artifact": new, "bluegreen_env": env, "bluegreen_force": True})
        return live, idle

    yield deploy
    play("setup")


def colors():
    return {site.color() for site in SITES.values()}


def test_one_host_that_is_worse(prepared):
    """The others are fine, and go back with it, at one moment."""
    live, idle = prepared(f"{{{{ '50 0' if inventory_hostname == '{HOSTS[1]}' else '0 0' }}}}")
    # The one that fails some itself is asked by a client of its own.
    with asking(HOSTS[1]), Client(SITES[HOSTS[1]]) as client:
        time.sleep(8)
        run = play("promote", WATCH, JOBS, rc=2)
    run.says(
        f"{HOSTS[1]}: watching: ",
        "promote went back by itself, because it is worse on 1 host",
        "The whole group went back",
    )
    assert colors() == {live}
    for color, doing in ((live, "running"), (idle, "paused")):
        assert {inside(host, f"curl -s localhost:{PORTS[color]}/jobs") for host in HOSTS} == {doing}
    assert {one.partition(" ")[2] for one in client.failed} <= {"status 500"}
    assert "rolled-back" in play("status", "strict=true").text


@pytest.mark.long
def test_a_process_that_ends_while_it_is_watched(prepared):
    live, idle = prepared("0 0")
    end = f"sleep 1; until [ $(readlink /opt/sample_app/live) = slots/{idle} ]; do sleep 0.1; done; sleep 2; systemctl kill -s KILL sample_app@{idle}"
    inside(HOSTS[2], f"systemd-run --quiet sh -c '{end}'")
    with asking(HOSTS[2]):
        run = play("promote", WATCH, rc=2)
    run.says(f"{HOSTS[2]}: watching: its process ended; ")
    assert colors() == {live}


def test_a_group_whose_old_slot_has_died_stays(prepared):
    """Nobody is sent to a slot that does not answer any more, and no host goes back without the others."""
    live, idle = prepared("50 0")
    stop = f"until [ $(readlink /opt/sample_app/live) = slots/{idle} ]; do sleep 0.1; done; sleep 1; systemctl stop sample_app@{live}"
    inside(HOSTS[0], f"systemd-run --quiet sh -c '{stop}'")
    with Client(SITES[HOSTS[1]]):
        time.sleep(8)
        run = play("promote", WATCH, JOBS, rc=2)
    run.says(
        "watching: ", f"{HOSTS[0]} stays: {live} (", "is not healthy: not running", "rollback.yml takes the group back"
    )
    assert colors() == {idle}
    # What stays live was not told that it will be idle.
    assert SITES[HOSTS[1]].get("/jobs").text == "running\n"


@pytest.mark.long
def test_steps_that_were_good_and_a_switch_that_is_not(prepared):
    """The visitors get what they got before, and nothing is marked."""
    live, idle = prepared("0 0")
    watch = {"bluegreen_watch": {"seconds": 5}}
    run = play("promote", watch, "steps=10", {"bluegreen_on_idle": 'raise "no"'}, rc=2)
    run.says("watched 5 s of 5 s", "bluegreen_on_idle")
    assert colors() == {live}
    shares = {inside(host, f"ls /opt/sample_app/canary/{idle} | wc -l") for host in HOSTS}
    assert shares == {"0"} and "rolled-back" not in play("status", "strict=true").text
    # What is live already is no canary: the same again does nothing.
    play("promote", watch)
    run = play("promote", watch, "steps=10,50")
    assert "is already live" in run.text and run.changed() == 0


@pytest.mark.long
def test_a_host_that_is_lost_while_it_is_watched(prepared):
    """It decides nothing: the others judge. The run says so, and fails."""
    _live, idle = prepared("0 0")
    with start_of("slot_watch", HOSTS[2]) as it_starts:
        run = start("promote", "-e", json.dumps(WATCH))
        it_starts()
    with cut_off(HOSTS[2]):
        text = " ".join(run.communicate(timeout=120)[0].split())
    assert run.returncode == 2 and "the promote itself succeeded" in text
    assert f"{HOSTS[2]}: watching: unreachable" in text and "watched 15 s of 15 s: " in text
    assert colors() == {idle}
