# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A random walk over all operations, with random faults in the middle of them.

After each step the truths of all hosts agree, all serve one release, and no lock is left. No request is lost that a slot could
serve. `make test` walks a few steps, always the same; `make test-walk SEED=7 STEPS=200` as many as you like, and prints what it does.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time

import pytest

sys.path.insert(0, os.path.join(os.environ["MOLECULE_PROJECT_DIRECTORY"], "tests"))

from support.bluegreen import artifact
from support.fleet import HOSTS, ROOT, SITES, asking, docker, held, inside, make_one, play, start

pytestmark = pytest.mark.walk

SEED = int(os.environ.get("BLUEGREEN_WALK_SEED") or 13)
STEPS = int(os.environ.get("BLUEGREEN_WALK_STEPS") or 4)
ARTIFACTS = [artifact(name) for name in ("sample_app-0.1.0", "sample_app-0.1.1", "sample_app-0.1.1-rebuilt")]


def other(color):
    return {"blue": "green", "green": "blue"}[color]


def operation(choose):
    """(playbook, variables) of the next step. What it is refused for is right too, so some of them cannot be done."""
    live = SITES[HOSTS[0]].color()
    deploy = {"bluegreen_artifact": choose.choice(ARTIFACTS), "bluegreen_env": {"WALK": choose.choice("ab")}}
    deploy.update(bluegreen_promote=choose.random() < 0.5, bluegreen_force=choose.random() < 0.8)
    return choose.choice(
        [
            ("deploy", deploy),
            ("deploy", deploy),
            ("deploy", {**deploy, "bluegreen_keep_releases": 0}),
            ("deploy", {**deploy, "bluegreen_env": {"SAMPLE_UNHEALTHY": "1"}, "bluegreen_health_timeout": 5}),
            ("promote", {}),
            ("promote", {"color": other(live)}),
            ("rollback", {}),
            ("rollback", {}),
            ("canary", {"percent": choose.choice([0, 5, 50, 100])}),
            ("stop", {"color": other(live)}),
            ("setup", {}),
            ("migrate", {}),
        ]
    )


# --- faults: what happens to a run that is under way, or to one of its hosts -------------------------------------------------


def nothing(_run, _host, _choose):
    pass


def killed(run, _host, choose):
    time.sleep(choose.uniform(0.5, 8))
    if run.poll() is None:
        os.killpg(run.pid, choose.choice([signal.SIGKILL, signal.SIGINT]))


def frozen(_run, host, choose):
    time.sleep(choose.uniform(0.5, 6))
    docker("pause", host)
    time.sleep(choose.uniform(1, 6))
    docker("unpause", host)


def without_power(_run, host, choose):
    time.sleep(choose.uniform(0.5, 6))
    docker("kill", host)
    docker("start", host)


def crashed(_run, host, choose):
    color = choose.choice(["blue", "green"])
    time.sleep(choose.uniform(0.5, 6))
    inside(host, f"systemctl kill -s KILL sample_app@{color}", check=False)


FAULTS = [nothing, nothing, killed, killed, frozen, without_power, crashed]
HURT_A_HOST = (frozen, without_power, crashed)


def wait_until(good, seconds, what):
    deadline = time.monotonic() + seconds
    while not good():
        assert time.monotonic() < deadline, what()
        time.sleep(0.3)


def serves(host):
    with contextlib.suppress(OSError, ValueError):
        return SITES[host].get("/health").status_code == 200 and SITES[host].get().status_code == 200
    return False


def locks():
    return [host for host in HOSTS if inside(host, f"ls {ROOT}/lock", check=False)]


def words(name, variables):
    return [name, *(part for key, value in variables.items() for part in ("-e", json.dumps({key: value})))]


def step(choose, clients):
    name, variables = operation(choose)
    fault, host = choose.choice(FAULTS), choose.choice(HOSTS)
    # To be read where a step fails, and held against the times of requests that failed.
    print(time.strftime("%H:%M:%S"), fault.__name__, host, name, json.dumps(variables), flush=True)
    # What the test itself has frozen, switched off or killed may fail to answer; nobody else may.
    with clients[host].excused_while() if fault in HURT_A_HOST else contextlib.nullcontext():
        run = start(*words(name, variables))
        fault(run, host, choose)
        text = run.communicate(timeout=400)[0]
        if fault in HURT_A_HOST:
            wait_until(lambda: serves(host), 90, lambda: f"{host} does not serve")
    if run.returncode not in (0, 2):
        wait_until(lambda: not locks(), 40, lambda: f"locked: {locks()}")
    if fault is not nothing:
        # Whatever the fault has left, the same command finishes it or says why not.
        again = play(name, variables, rc=any)
        text = again.text
        assert again.rc in (0, 2), text[-3000:]
    status = play("status", "strict=true", rc=any)
    if "the group serves 2 releases" in status.says():
        # A host that came back alone, as docs/reliability.md has it.
        assert fault in (frozen, without_power), text[-3000:]
        goal = {"bluegreen_artifact": ARTIFACTS[0], "bluegreen_force": True, "bluegreen_promote": True}
        play("deploy", goal)
        status = play("status", "strict=true", rc=any)
    assert status.rc == 0, f"{status.text[-3000:]}\nafter {text[-3000:]}"
    assert not locks(), held()
    assert {SITES[one].color() for one in HOSTS} == {SITES[host].color()}


def test_a_walk():
    choose = random.Random(SEED)
    make_one()
    with asking() as clients:
        for number in range(STEPS):
            print(f"step {number + 1} of {STEPS}, seed {SEED}:", end=" ")
            step(choose, clients)
        play("canary", "percent=0")
