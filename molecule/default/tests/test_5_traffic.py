# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No request is lost: clients of many kinds, none of which retries, while slots are deployed, promoted, rolled back and killed.

C(make test-traffic) runs the long form (C(BLUEGREEN_TRAFFIC=full)) and writes what it measured to build/traffic.json and
docs/zero-downtime.svg; C(make test) a short one. The load stays on 127.0.0.1 inside the test host, and is bounded in time.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import threading
import time

import pytest
import requests
from support import plot
from support.bluegreen import artifact

pytestmark = pytest.mark.traffic

HOST = "bluegreen-web1"
ROOT = "/opt/sample_app"
TOP = os.environ["MOLECULE_PROJECT_DIRECTORY"]
FULL = os.environ.get("BLUEGREEN_TRAFFIC") == "full"
SWITCHES, REQUESTS, DEPLOYS, FLIPS = (60, 100_000, 20, 30) if FULL else (4, 5_000, 2, 4)
MIXED = {"fresh": 4, "kept": 2, "thinking": 10, "post": 2, "slow": 4, "stream": 4, "websocket": 6}


def inside(command, **kwargs):
    words = ["docker", "exec", HOST, "sh", "-c", command]
    return subprocess.run(words, capture_output=True, text=True, check=True, **kwargs).stdout.strip()


@contextlib.contextmanager
def metering(kinds, port=80, seconds=1200):
    """Clients on the site. Yields a mapping that has the meter's answer in the end."""
    with open(f"{TOP}/tests/support/meter.py", "rb") as stream:
        subprocess.run(["docker", "exec", "-i", HOST, "sh", "-c", "cat >/run/meter.py"], stdin=stream, check=True)
    job = json.dumps({"port": port, "host": "sample.test", "seconds": seconds, "kinds": kinds})
    words = ["docker", "exec", "-i", HOST, "python3", "/run/meter.py", job]
    meter = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert meter.stdout.readline() == "ready\n"
    found = {}
    try:
        yield found
    finally:
        text = meter.communicate(timeout=90)[0]
    found.update(json.loads(text))
    found["asked"] = sum(kind["asked"] for kind in found["kinds"].values())
    found["failed"] = {name: kind["why"] for name, kind in found["kinds"].items() if kind["failed"]}


@contextlib.contextmanager
def volume(seconds):
    """wrk beside the others, for numbers. Yields a mapping with C(asked) and C(failed) in the end."""
    words = [
        "docker",
        "exec",
        HOST,
        "wrk",
        "-t1",
        "-c4",
        f"-d{seconds}s",
        "-H",
        "Host: sample.test",
        "http://127.0.0.1:80/",
    ]
    wrk = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    found = {}
    yield found
    text = wrk.communicate(timeout=seconds + 60)[0]
    found["asked"] = int(re.search(r"(\d+) requests in", text).group(1))
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    found["failed"] = sum(int(one) for one in errors.groups()) if errors else 0
    found["failed"] += int(bad.group(1)) if bad else 0


def other(color):
    return {"blue": "green", "green": "blue"}[color]


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0


def write_down(name, value):
    if FULL:
        path = f"{TOP}/build/traffic.json"
        found = json.load(open(path)) if os.path.exists(path) else {}
        found[name] = value
        with open(path, "w") as stream:
            json.dump(found, stream, indent=2)


@pytest.fixture(scope="module", autouse=True)
def two_releases():
    """0.1.0 is live, 0.1.1 idle, both healthy."""
    from support.bluegreen import playbook

    inventory = os.environ["MOLECULE_INVENTORY_FILE"]
    force = {"bluegreen_force": True}
    playbook(
        inventory, "deploy", {"bluegreen_artifact": artifact("sample_app-0.1.0"), "bluegreen_promote": True, **force}
    )
    playbook(inventory, "deploy", {"bluegreen_artifact": artifact("sample_app-0.1.1"), **force})


def test_promotes_and_rollbacks_lose_nothing(site, play):
    first = site.color()
    began, wrong_slot = time.monotonic(), []
    with metering(MIXED) as met, volume(5 * SWITCHES) as wrk:
        for number in range(SWITCHES):
            to = other(first) if number % 2 == 0 else first
            if number % 2 == 0:
                play("promote", f"color={to}")
            else:
                play("rollback")
            # Once the command has returned, a new connection gets the new slot, always.
            wrong_slot += [to for _again in range(5) if site.get().json()["color"] != to]
        # Websockets that were opened before a switch live on for half a minute behind it.
        time.sleep(max(0, 50 - (time.monotonic() - began)))
    assert wrong_slot == []
    assert met["failed"] == {} and wrk["failed"] == 0
    assert met["asked"] + wrk["asked"] >= REQUESTS
    for kind in MIXED:
        assert met["kinds"][kind]["asked"] > 0 and set(met["kinds"][kind]["colors"]) <= {"blue", "green"}
    assert set(met["kinds"]["fresh"]["colors"]) == {"blue", "green"}
    kinds = {name: {"asked": kind["asked"], "failed": kind["failed"]} for name, kind in met["kinds"].items()}
    write_down("switches", {"switches": SWITCHES, "kinds": {**kinds, "wrk": wrk}})


@pytest.mark.long
def test_a_slow_request_is_answered_by_the_slot_that_it_began_on(site, play):
    live, answers = site.color(), []

    def ask():
        answer = requests.get(site.base + "/slow?ms=25000", headers=site.headers, timeout=60)
        answers.append(answer.text.split()[0])

    slow = threading.Thread(target=ask)
    slow.start()
    time.sleep(0.3)
    play("promote", f"color={other(live)}")
    assert slow.is_alive(), "the promote took longer than the request"
    slow.join()
    assert answers == [live]
    play("rollback")


def test_deploys_to_the_idle_slot_lose_nothing(site, play):
    live = site.color()
    names = ["sample_app-0.1.1-rebuilt", "sample_app-0.1.1"]
    with metering(MIXED) as met:
        for number in range(DEPLOYS):
            play("deploy", {"bluegreen_artifact": artifact(names[number % 2]), "bluegreen_force": True})
    assert met["failed"] == {} and all(set(kind["colors"]) == {live} for kind in met["kinds"].values())
    write_down("deploys", {"deploys": DEPLOYS, "asked": met["asked"], "failed": 0})


def test_a_live_slot_that_is_killed_is_back_soon(site):
    live, pid = site.color(), site.pid()
    with metering({"fresh": 4, "thinking": 10}) as met:
        time.sleep(2)
        killed = time.time()
        inside(f"kill -9 {pid}")
        time.sleep(10)
    losses = sorted(at for kind in met["kinds"].values() for at in kind["losses"])
    assert losses and losses[0] >= killed - 0.1
    # All of them fall into the time that systemd and the app need: nothing is lost later.
    assert losses[-1] - killed < 8
    assert site.color() == live and site.pid() != pid
    outage = round(losses[-1] - killed, 1)
    print(f"\n{len(losses)} of {met['asked']} requests failed within {outage} s after the live slot was killed")
    write_down("killed", {"asked": met["asked"], "failed": len(losses), "seconds": outage})


RIVAL = """
server {
  listen 81;
  server_name sample.test;
  location / {
    proxy_pass http://127.0.0.1:%d;
    proxy_http_version 1.1;
    proxy_set_header Host $host;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection "upgrade";
  }
}
"""


def switch_ours(to):
    """What slot_switch does to the traffic: one rename."""
    inside(f"cd {ROOT} && ln -sfn slots/{to} .live.bench && mv -T .live.bench live")


def switch_theirs(to):
    """What the field does: point a symlink at the site of the other slot, and reload."""
    inside(f"ln -sfn /etc/nginx/rival-{to} /etc/nginx/conf.d/rival.conf && nginx -s reload")


@pytest.mark.long
def test_beside_a_symlink_and_a_reload(site):
    """The same nginx, the same load, in turns: what we lose per switch, and what a symlink with a reload loses."""
    live = site.color()
    for color, port in (("blue", 4000), ("green", 5000)):
        inside(f"cat >/etc/nginx/rival-{color} <<'END'\n{RIVAL % port}\nEND")
    switch_theirs(live)
    time.sleep(1)
    load = {"thinking": 40, "kept": 2, "post": 10}
    sides = {"ours": (80, switch_ours), "theirs": (81, switch_theirs)}
    found = {name: {"asked": 0, "failed": 0, "steady": [], "around": []} for name in sides}
    try:
        for _turn in range(2):
            for name, (port, switch) in sides.items():
                switched = []
                with metering(load, port) as met:
                    time.sleep(1)
                    for number in range(FLIPS // 2 // 2 * 2):
                        switch(other(live) if number % 2 == 0 else live)
                        switched.append(time.time())
                        time.sleep(2)
                found[name]["asked"] += met["asked"]
                found[name]["failed"] += sum(kind["failed"] for kind in met["kinds"].values())
                for at, milliseconds in met["latencies"]:
                    near = any(abs(at - one) <= 0.5 for one in switched)
                    found[name]["around" if near else "steady"].append(milliseconds)
    finally:
        inside("rm -f /etc/nginx/conf.d/rival.conf && nginx -s reload")
        switch_ours(live)
    for one in found.values():
        one["switches"] = FLIPS // 2 // 2 * 2 * 2
        one["p99_steady_ms"], one["p99_around_ms"] = (
            percentile(one.pop("steady"), 0.99),
            percentile(one.pop("around"), 0.99),
        )
    print("\n" + json.dumps(found))
    assert found["ours"]["failed"] == 0
    write_down("beside", found)
    if FULL:
        per_switch = {name: one["failed"] / one["switches"] for name, one in found.items()}
        labels = {"ours": "beamops.bluegreen: one rename, no reload", "theirs": "symlink and reload"}
        rows = [(labels[name], per_switch[name]) for name in sides]
        plot.bars(f"{TOP}/docs/zero-downtime.svg", "Requests lost per switch, same nginx, same load", rows)
