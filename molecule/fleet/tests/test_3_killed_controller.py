# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller is SIGKILLed, with all its children, after each task of deploy, promote and rollback: when the first host has
answered and the others may be in the middle, and when all have.

What the hosts were doing goes on there, with nobody to report to. The same command is run again at once; it has to succeed, and
to leave on every host exactly what an undisturbed run leaves. No request fails meanwhile.
"""

from __future__ import annotations

import json
import os
import signal
import sys

import pytest

sys.path.insert(0, os.path.join(os.environ["MOLECULE_PROJECT_DIRECTORY"], "tests"))

from support.bluegreen import artifact
from support.faults import EVERY, FAULTS, chosen, comparable, differences, picture, prepare
from support.fleet import FAULT_PLUGIN, HOSTS, asking, make_one, play, start

pytestmark = pytest.mark.faults


def stories(live, idle):
    """Each is commands in turn, so that the end of one is the beginning of the next and of the last the beginning of the first;
    which of them are killed; and how many tasks of each change something on every host.

    Two releases would stay in the two slots, with nothing left for a deploy to do. Of three, with none kept, each is sent,
    unpacked, started and removed anew. Their number is odd, so a round in which every slot has had them all is twice as long.
    """
    releases = ("sample_app-0.1.1-rebuilt", "sample_app-0.1.1", "sample_app-0.1.0")
    wishes = {"bluegreen_promote": True, "bluegreen_force": True, "bluegreen_keep_releases": 0}
    deploys = [["deploy", {"bluegreen_artifact": artifact(name), **wishes}] for name in releases * 2]
    return {
        "deploy": (deploys, range(6), 4),
        "promote": ([["promote", f"color={idle}"], ["promote", f"color={live}"]], (0, 1), 1),
        "rollback": ([["promote", f"color={idle}"], ["rollback"]], (1,), 1),
    }


def pictures():
    return {host: comparable(picture(host)) for host in HOSTS}


def killed_at(command, point):
    """Run a command and kill it at a point. Returns whether it came that far."""
    name, *extra = command
    words = []
    for one in extra:
        words += ["-e", one if isinstance(one, str) else json.dumps(one)]
    run = start(name, *words, env={**FAULT_PLUGIN, "FAULT_POINT": str(point)})
    text = run.communicate(timeout=300)[0]
    assert run.returncode in (0, -signal.SIGKILL), text[-3000:]
    return run.returncode != 0


def number_of_points(command, folder, changing):
    path = str(folder / "points")
    run = play(*command, env={**FAULT_PLUGIN, "FAULT_POINTS": path})
    assert run.changed() == changing * len(HOSTS), run.text
    with open(path, encoding="utf-8") as stream:
        return int(stream.read())


# The sample tries the shortest; killed deploys are also in the walk.
@pytest.mark.parametrize("story", ["deploy", "promote", "rollback"] if EVERY == 1 else ["promote"])
def test_the_controller_is_killed_after_each_task(story, tmp_path):
    since = len(FAULTS.fatal)
    live, idle = make_one()
    for host in HOSTS:
        prepare(host)
    commands, kill, changing = stories(live, idle)[story]
    wanted, points = {}, {}
    with asking():
        # The first round only makes the beginning of all rounds the same, and what was live is remembered for longer than one.
        for command in commands:
            play(*command)
        for index, command in enumerate(commands):
            points[index] = number_of_points(command, tmp_path, changing)
            wanted[index] = pictures()
        last = max(points[index] for index in kill)
        if story == "rollback":
            # Once it has freed its locks it has ended, and the next rollback is another one, which goes further back. That is
            # the last thing it does on a host, and modules go on when their controller is killed.
            last -= 2
        faults = iter(chosen(range(1, last + 1)))
        index, point = 0, next(faults)
        while point:
            if index not in kill or point > points[index]:
                play(*commands[index])
            else:
                with FAULTS.one("controllers killed", f"{story} at point {point} of {points[index]}"):
                    assert killed_at(commands[index], point), "it ended before"
                    for host in HOSTS:
                        picture(host)
                    play(*commands[index])
                    seen = pictures()
                    wrong = [
                        f"{host}: {line}" for host in HOSTS for line in differences(seen[host], wanted[index][host])
                    ]
                    assert not wrong, "\n".join(wrong)
                point = next(faults, None)
            index = (index + 1) % len(commands)
    FAULTS.all_survived(since)
