# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host is lost before the deploy, between deploy and switch, and in the middle of the switch; and it comes back.

It is cut off (its sshd ends), it freezes (its container is paused), or its power goes (its container is killed and started).
Meanwhile the others serve what they served; afterwards the same command makes the group one.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time

import pytest

sys.path.insert(0, os.path.join(os.environ["MOLECULE_PROJECT_DIRECTORY"], "tests"))

from support.bluegreen import artifact
from support.faults import EVERY, FAULTS
from support.fleet import (
    FAULT_PLUGIN,
    SITES,
    asking,
    inside,
    make_one,
    play,
    serving,
    start,
    start_of,
)

pytestmark = pytest.mark.faults

LOST = "bluegreen-fleet3"
PLACES = ("before the deploy", "between deploy and switch", "during the switch")
HARM = {
    "cut off": (
        "docker exec {0} sh -c 'systemctl stop ssh; pkill -KILL sshd; true'",
        "docker exec {0} systemctl start ssh",
    ),
    "frozen": ("docker pause {0}", "docker unpause {0}"),
    "power": ("docker kill {0}", "docker start {0}"),
}
# Of the other harms, the sample has some in test_1_group.
ALL = [(harm, place) for harm in HARM for place in PLACES]
SOME = [pytest.param("power", PLACES[2], marks=pytest.mark.long)]


def shell(command):
    assert os.system(command.format(LOST) + " >/dev/null") == 0


def deploy_until(place, harm, name):
    """Deploy and promote, and lose the host at a place. Returns (exit status, text)."""
    words = [
        "-e",
        json.dumps({"bluegreen_artifact": artifact(name), "bluegreen_promote": True, "bluegreen_force": True}),
    ]
    if place == PLACES[0]:
        shell(HARM[harm][0])
        run = start("deploy", *words)
    elif place == PLACES[1]:
        fault = {"FAULT_TASK": "Switch the traffic and prove it", "FAULT_COMMAND": HARM[harm][0].format(LOST)}
        run = start("deploy", *words, env={**FAULT_PLUGIN, **fault})
    else:
        # nginx hangs there, so that the module is in the middle of its work.
        fault = {"FAULT_TASK": "Switch the traffic and prove it"}
        fault["FAULT_COMMAND"] = f"docker exec {LOST} pkill -STOP -u www-data nginx"
        with start_of("slot_switch", LOST) as it_starts:
            run = start("deploy", *words, env={**FAULT_PLUGIN, **fault})
            it_starts()
            time.sleep(0.5)
            shell(HARM[harm][0])
    text = run.communicate(timeout=300)[0]
    return run.returncode, text


def wait_for(site):
    """A host whose power came back serves within a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            if site.get("/health").status_code == 200 and site.get().json()["color"] == site.color():
                return
        time.sleep(0.3)
    raise AssertionError(f"{LOST} does not serve")


@pytest.mark.parametrize("harm, place", ALL if EVERY == 1 else SOME)
def test_a_host_is_lost(harm, place):
    since = len(FAULTS.fatal)
    make_one()
    before = serving()
    with FAULTS.one("hosts lost", f"{harm} {place}"), asking() as clients:
        # Only the lost host may fail to answer, and only when it is off, or frozen, or its nginx hangs.
        with clients[LOST].excused_while():
            code, text = deploy_until(place, harm, "sample_app-0.1.1-rebuilt")
            assert code == 2 and f"{LOST}: " in text, text[-3000:]
            assert serving(LOST) == before
            shell(HARM[harm][1])
            inside(LOST, "pkill -CONT -u www-data nginx", check=False)
            wait_for(SITES[LOST])
        run = play(
            "deploy",
            {
                "bluegreen_artifact": artifact("sample_app-0.1.1-rebuilt"),
                "bluegreen_promote": True,
                "bluegreen_force": True,
            },
        )
        assert {answer[1:] for answer in serving()} == {("0.1.1", "2")}, run.text[-3000:]
        play("status", "strict=true")
    FAULTS.all_survived(since)
