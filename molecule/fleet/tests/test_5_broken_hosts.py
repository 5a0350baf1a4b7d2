# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What breaks on one host while nobody deploys, or what was already broken: a process, a disk, a clock."""

from __future__ import annotations

import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.environ["MOLECULE_PROJECT_DIRECTORY"], "tests"))

from support.bluegreen import artifact, variant, wait_until
from support.faults import EVERY, FAULTS
from support.fleet import HOSTS, ROOT, SITES, asking, held, inside, make_one, play, serving

pytestmark = pytest.mark.faults

BROKEN = "bluegreen-fleet2"
REBUILT = {
    "bluegreen_artifact": artifact("sample_app-0.1.1-rebuilt"),
    "bluegreen_promote": True,
    "bluegreen_force": True,
}


@pytest.fixture
def fault():
    """Counts one fault, and shows what it was if the test fails."""
    since = len(FAULTS.fatal)

    def one(name):
        return FAULTS.one("things broken", name)

    yield one
    FAULTS.all_survived(since)


def answers():
    try:
        return SITES[BROKEN].get("/health").status_code == 200
    except OSError:
        return False


@pytest.mark.long
@pytest.mark.parametrize("which", ["live", "idle"] if EVERY == 1 else ["live"])
def test_the_process_of_a_slot_is_killed(which, fault):
    live, idle = make_one()
    color = {"live": live, "idle": idle}[which]
    with fault(f"the {which} slot killed"), asking() as clients:
        before, slots = serving(), held()
        with clients[BROKEN].excused_while():
            inside(BROKEN, f"systemctl kill --kill-who=all -s KILL sample_app@{color}")
            wait_until(answers)
        # Pinned: what comes back is what was there.
        wait_until(lambda: held() == slots)
        assert serving() == before
        assert which == "live" or clients[BROKEN].excused == 0
        wait_until(lambda: play("status").text.count(" healthy") == 2 * len(HOSTS))


@pytest.mark.long
def test_nginx_is_killed_and_started(fault):
    _live, idle = make_one()
    with fault("nginx killed"), asking() as clients:
        before = serving()
        with clients[BROKEN].excused_while():
            inside(BROKEN, "systemctl kill --kill-who=all -s KILL nginx")
            play("promote", f"color={idle}", rc=2).says(f"{BROKEN}: switching: nginx says", "Run setup.yml")
            assert serving(BROKEN) == before
            inside(BROKEN, "systemctl start nginx")
            wait_until(answers)
        assert serving() == before
        play("promote", f"color={idle}")
        assert serving() != before


@pytest.mark.long
def test_a_disk_is_full(fault, tmp_path):
    make_one()
    # Of which five megabytes are on no host.
    big = {
        **REBUILT,
        "bluegreen_artifact": variant(artifact("sample_app-0.1.1-rebuilt"), f"{tmp_path}/a.tar.gz", 5_000_000),
    }
    releases = f"{ROOT}/releases"
    with fault("the disk full of everything"), asking():
        before, slots = serving(), held()
        # What is kept of the release would not need room.
        spare = f"cd {releases} && for one in *; do readlink ../slots/*/release | grep -q $one || rm -rf $one; done"
        small = f"mount -t tmpfs -o size=$((used + 3000))k,mode=755 none {releases} && cp -a /run/kept/. {releases}"
        inside(BROKEN, f"{spare}; used=$(du -sk {releases} | cut -f1) && cp -a {releases} /run/kept && {small}")
        play("deploy", big, rc=2).says(f"{BROKEN}: installing: the release needs", "KiB are free")
        assert serving() == before and held() == slots
        inside(BROKEN, f"umount -l {releases} && rm -rf /run/kept")
        play("deploy", big)
        assert {answer[1:] for answer in serving()} == {("0.1.1", "2")}


def idle_color():
    return {"blue": "green", "green": "blue"}[SITES[BROKEN].color()]


@pytest.mark.long
@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_is_an_hour_wrong(hours, fault, tmp_path):
    make_one()
    wrapper = "/usr/local/bin/python-with-a-wrong-clock"
    script = f'#!/bin/sh\nexec faketime -f "{hours:+d}h" /usr/bin/python3 "$@"\n'
    inside(BROKEN, f"printf '%s' '{script}' >{wrapper} && chmod 755 {wrapper}")
    choice = f"'{wrapper}' if inventory_hostname == '{BROKEN}' else '/usr/bin/python3'"
    wrong = {"ansible_python_interpreter": "{{ " + choice + " }}"}
    with fault(f"the clock {hours:+d} h"), asking():
        play("deploy", REBUILT, wrong)
        assert {answer[1:] for answer in serving()} == {("0.1.1", "2")}
        play("rollback", wrong)
        assert {answer[1:] for answer in serving()} == {("0.1.0", "1")}
        # And right again: time goes backwards, or leaps.
        play("promote", f"color={idle_color()}")
        assert {answer[1:] for answer in serving()} == {("0.1.1", "2")}
        run = play("status", "strict=true", "history=3")
        assert run.text.count("  rollback  ok  ") == len(HOSTS)
