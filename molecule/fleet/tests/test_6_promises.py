# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Promises about a group, and about single modules, that no other test would miss."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time

import pytest

sys.path.insert(0, os.path.join(os.environ["MOLECULE_PROJECT_DIRECTORY"], "tests"))

from support.bluegreen import artifact
from support.faults import HEALTH, comparable, module, picture, prepare, well
from support.fleet import (
    FAULT_PLUGIN,
    HOSTS,
    INVENTORY,
    ROOT,
    SITES,
    asking,
    cut_off,
    docker,
    held,
    inside,
    make_one,
    play,
    serving,
    start,
)

ONE, TWO, THREE = HOSTS
FORCE = {"bluegreen_force": True}
REBUILT = {"bluegreen_artifact": artifact("sample_app-0.1.1-rebuilt"), **FORCE}


@pytest.fixture(scope="module", autouse=True)
def colors():
    """(live, idle): 0.1.0 live and 0.1.1 idle on all hosts, which can run modules by themselves."""
    live, idle = make_one()
    for host in HOSTS:
        prepare(host)
    return live, idle


@pytest.fixture
def reachable():
    """Whoever is cut off in the test is back after it."""
    yield
    for host in HOSTS:
        inside(host, "systemctl start ssh")


# --- the group ---------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_live_slots_are_restarted_one_host_after_the_other(colors):
    """At every moment at most one host of three has nobody to answer; one that does not come back keeps its fellows up."""
    live, _idle = colors
    unit = f"sample_app@{live}"

    def last(host, word):
        """When systemd last said so of the unit; the clocks of the containers are one."""
        lines = inside(
            host, f"journalctl -u {unit} -o short-unix --no-pager -q | grep ' systemd.*: {word} '", check=False
        )
        return float(lines.splitlines()[-1].split()[0]) if lines else 0.0

    play("restart", "color=live")
    ups, downs = [last(host, "Started") for host in HOSTS], [last(host, "Stopped") for host in HOSTS]
    assert all(down < up for up, down in zip(ups, downs)) and all(up < down for up, down in zip(ups, downs[1:]))
    inside(TWO, f"mv {ROOT}/slots/{live}/release/bin /tmp/bin-of-two")
    try:
        run = play("restart", "color=live", "bluegreen_health_timeout=10", rc=2)
        assert f"{TWO}: restarting: " in run.says() and f"{THREE}: restarting" not in run.says()
        assert last(ONE, "Started") > ups[0] and last(THREE, "Started") == ups[2]
    finally:
        inside(TWO, f"mv /tmp/bin-of-two {ROOT}/slots/{live}/release/bin; systemctl reset-failed {unit}")
    play("restart", "color=live")
    assert {color for color, _version, _build in serving()} == {live}
    assert not any(inside(host, f"ls {ROOT}/lock", check=False) for host in HOSTS)


def test_another_group_of_the_inventory(colors, tmp_path):
    live, idle = colors
    pair = tmp_path / "pair.yml"
    pair.write_text(f"pair:\n  hosts:\n    {ONE}:\n    {TWO}:\n")
    with asking():
        play("promote", f"color={idle}", "bluegreen_hosts=pair", "-i", str(pair))
        assert [SITES[host].color() for host in HOSTS] == [idle, idle, live]
        play("rollback", "bluegreen_hosts=pair", "-i", str(pair))
    assert [SITES[host].color() for host in HOSTS] == [live] * 3
    play("deploy", {"bluegreen_artifact": artifact("sample_app-0.1.1"), **FORCE})


def test_one_that_is_not_healthy_keeps_all_from_switching(colors):
    """All are proven ready before the first one switches: no visitor saw the other color on any host."""
    live, idle = colors
    inside(THREE, f"systemctl kill -s STOP sample_app@{idle}")
    with asking() as clients:
        run = play("promote", f"color={idle}", "bluegreen_health_timeout=5", rc=2)
    inside(THREE, f"systemctl kill -s CONT sample_app@{idle}")
    run.says(f"{THREE}: {idle} (", "is not healthy")
    assert all(set(client.seen) == {live} for client in clients.values())


@pytest.mark.long
def test_a_host_that_is_slow_switches_at_the_same_instant(colors):
    """Each run of a module takes 2 s longer on one host; without a common instant it would switch 2 s later."""
    live, idle = colors
    wrapper = "/usr/local/bin/slow-python"
    script = '#!/bin/sh\nsleep 2\nexec /usr/bin/python3 "$@"\n'
    inside(TWO, f"printf '%s' '{script}' >{wrapper} && chmod 755 {wrapper}")
    choice = f"'{wrapper}' if inventory_hostname == '{TWO}' else '/usr/bin/python3'"
    slow = {"ansible_python_interpreter": "{{ " + choice + " }}"}
    with asking():
        run = play("promote", f"color={idle}", slow)
        apart = int(re.search(r"all hosts switched within (\d+) ms", run.text).group(1))
        play("rollback", slow)
    assert apart < 700, run.text[-2000:]
    play("deploy", {"bluegreen_artifact": artifact("sample_app-0.1.1"), **FORCE})


@pytest.mark.long
@pytest.mark.parametrize(
    "task",
    [
        "Install the release",
        "Put the release into the slot and wait until it is healthy",
        "Request the smoke paths from the slot through nginx",
        "Switch the traffic and prove it",
    ],
)
def test_a_host_that_is_lost_and_consent_to_go_on_without_it(reachable, task):
    """bluegreen_lost_hosts holds in every step."""
    fault = {"FAULT_TASK": task}
    fault["FAULT_COMMAND"] = f"docker exec {THREE} sh -c 'systemctl stop ssh; pkill -KILL sshd; true'"
    before = SITES[THREE].get().json()
    goal = {
        **REBUILT,
        "bluegreen_lost_hosts": "proceed",
        "bluegreen_promote": True,
        "bluegreen_smoke": [{"path": "/health"}],
    }
    with asking():
        run = start("deploy", "-e", json.dumps(goal), env={**FAULT_PLUGIN, **fault})
        text = run.communicate(timeout=300)[0]
    assert run.returncode == 0 and f"unreachable and unchanged: {THREE}" in " ".join(text.split()), text[-3000:]
    assert {answer[1:] for answer in serving(THREE)} == {("0.1.1", "2")}
    assert SITES[THREE].get().json()["version"] == before["version"]
    inside(THREE, "systemctl start ssh")
    # What is back is brought up to the others by the same command.
    play("deploy", goal)
    assert {answer[1:] for answer in serving()} == {("0.1.1", "2")}
    play("status", "strict=true")
    make_one()


@pytest.mark.long
def test_one_host_whose_set_up_was_edited_is_repaired_among_the_others():
    """The others need no set-up, and that is no failure."""
    unit = "/etc/systemd/system/sample_app@.service"
    inside(TWO, f"echo '# edited' >>{unit}")
    play("deploy", {"bluegreen_artifact": artifact("sample_app-0.1.1"), **FORCE})
    assert "# edited" not in inside(TWO, f"cat {unit}")


def test_one_that_cannot_switch_takes_all_back(colors):
    live, idle = colors
    inside(TWO, f"mkdir -p {ROOT}/.live.new/x")
    try:
        with asking():
            run = play("promote", f"color={idle}", rc=2)
    finally:
        inside(TWO, f"rm -r {ROOT}/.live.new")
    run.says(f"{TWO}: switching:", "serves what it served before")
    assert {SITES[host].color() for host in HOSTS} == {live}
    play("status", "strict=true")


def test_one_that_fails_has_all_of_them_give_back():
    slots = held()
    env = "{{ {'SAMPLE_UNHEALTHY': '1'} if inventory_hostname == 'bluegreen-fleet2' else {} }}"
    run = play("deploy", {**REBUILT, "bluegreen_env": env, "bluegreen_health_timeout": 5}, rc=2)
    run.says(f"deploy failed on 1 host: {TWO}: deploying:")
    assert held() == slots
    play("status", "strict=true")


def test_the_history_says_why_a_run_failed():
    env = "{{ {'SAMPLE_UNHEALTHY': '1'} if inventory_hostname == 'bluegreen-fleet2' else {} }}"
    play("deploy", {**REBUILT, "bluegreen_env": env, "bluegreen_health_timeout": 5}, rc=2)
    text = play("status", "history=1").says()
    assert text.count("  deploy  failed".replace("  ", " ")) == len(HOSTS)
    assert f"{TWO}: deploying:" in text and "was not healthy within 5 s" in text


def test_status_names_a_host_that_cannot_be_asked(tmp_path):
    out = tmp_path / "status.json"
    with cut_off(ONE):
        play("status", "strict=true", rc=None).says(f"{ONE}: unreachable")
        play("status", "format=json", f"out={out}")
    found = json.loads(out.read_text())
    assert found["in_doubt"] and not found["hosts"][ONE]["ok"] and found["hosts"][TWO]["ok"]


def test_one_machine_migrates_for_the_group():
    run = play("migrate")
    assert run.text.count("migrated by 0.1.") == 1 and f"{ONE}: migrating with" in run.text
    goal = {**REBUILT, "bluegreen_migrate": True}
    run = play("deploy", goal)
    assert run.text.count("migrated by 0.1.1") == 1 and f"{ONE}: SampleApp.Release.migrate() has run" in run.says()
    make_one()


@pytest.mark.long
def test_a_canary_goes_to_one_release_only(colors):
    _live, idle = colors
    play("deploy", {**REBUILT, "bluegreen_partial": True}, "--limit", THREE)
    run = play("canary", "percent=10", rc=2)
    run.says("would switch to 0.1.1-", "other hosts to another release")
    assert all(inside(host, f"ls {ROOT}/canary/{idle}") == "" for host in HOSTS)
    play("deploy", {"bluegreen_artifact": artifact("sample_app-0.1.1"), **FORCE})


@pytest.mark.parametrize(
    ("name", "words", "folder"),
    [("canary", "percent=10", "canary/{idle}"), ("maintenance", "state=on", "maintenance")],
)
def test_who_gets_which_slot_changes_on_all_hosts_or_on_none(colors, name, words, folder):
    folder = f"{ROOT}/{folder.format(idle=colors[1])}"
    inside(TWO, f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder}")
    try:
        run = play(name, words, rc=2)
    finally:
        inside(TWO, f"umount {folder}")
    run.says(f"{TWO}: changing the traffic: Read-only file system")
    for host in HOSTS:
        assert inside(host, f"ls {ROOT}/canary/*; ls {ROOT}/maintenance").split() == [
            f"{ROOT}/canary/blue:",
            f"{ROOT}/canary/green:",
            "page.html",
        ]
        assert SITES[host].get().status_code == 200


# --- one at a time -----------------------------------------------------------------------------------------------------


def test_whoever_takes_over_waits_for_the_modules_of_a_dead_run(colors):
    """A module that is still at work on one host, as after a kill of its controller."""
    live, idle = colors
    busy = subprocess.Popen(["docker", "exec", TWO, "flock", ROOT, "sleep", "12"])
    time.sleep(1)
    began = time.monotonic()
    run = start("promote", "-e", f"color={idle}")
    while busy.poll() is None:
        assert {SITES[host].color() for host in HOSTS} == {live}
        time.sleep(0.3)
    text = run.communicate(timeout=120)[0]
    assert run.returncode == 0 and time.monotonic() - began > 10, text[-3000:]
    assert {SITES[host].color() for host in HOSTS} == {idle}
    play("rollback")
    play("deploy", {"bluegreen_artifact": artifact("sample_app-0.1.1"), **FORCE})


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("slot_switch", {"state": "switched"}),
        ("slot_service", {"state": "stopped"}),
        ("slot_command", {"command": "eval", "expr": "IO.puts(1)"}),
        ("slot_traffic", {"percent": 10}),
        ("nginx_site", {"content": "server { server_name sample.test; }"}),
        ("release_install", {"artifact": "tiny.tar.gz", "src": "/run/none.tar.gz"}),
    ],
)
def test_a_module_whose_run_was_taken_for_dead_does_nothing(colors, name, args):
    """Its controller was given up, and somebody else has the lock by now."""
    if name in ("slot_switch", "slot_service", "slot_command"):
        args = {**args, "color": colors[1]}
    lock = {"run": "another", "holder": "ann@laptop", "operation": "deploy", "since": "2026-01-01T00:00:00Z"}
    inside(TWO, f"echo '{json.dumps(lock)}' >{ROOT}/lock")
    try:
        before = comparable(picture(TWO))
        # By the name that the option had before 1.0.0.
        answer = module(TWO, name, {**args, "run": "nobody"})
        assert "no longer holds the lock of sample_app, ann@laptop does" in answer["result"]["msg"], answer
        assert comparable(picture(TWO)) == before
    finally:
        inside(TWO, f"rm {ROOT}/lock")


def test_a_lock_is_stale_after_as_long_as_it_says():
    lock = {"run_id": "one", "holder": "test@test", "operation": "deploy", "host": TWO}
    well(TWO, "deploy_lock", lock)
    assert "not stale yet" in module(TWO, "deploy_lock", {"state": "broken"})["result"]["msg"]
    assert "broke the lock" in well(TWO, "deploy_lock", {"state": "broken", "stale_after": 0})["msg"]


# --- single modules ------------------------------------------------------------------------------------------------------


def test_an_expression_has_its_time(colors):
    began = time.monotonic()
    asked = {"color": colors[0], "command": "rpc", "expr": 'IO.puts("first"); Process.sleep(20000)', "timeout": 3}
    message = module(TWO, "slot_command", asked)["result"]["msg"]
    assert "did not finish within 3 s and was killed" in message and "first" in message
    assert time.monotonic() - began < 10


def test_a_switch_goes_to_the_release_that_was_planned(colors):
    live, idle = colors
    answer = module(TWO, "slot_switch", {"color": idle, "release": "9.9.9-00000000", **HEALTH})
    assert f"{idle} holds 0.1.1-" in answer["result"]["msg"] and "not 9.9.9-00000000" in answer["result"]["msg"]
    assert SITES[TWO].color() == live


def uptime(host):
    return float(inside(host, "cut -d' ' -f1 /proc/uptime"))


def test_a_switch_waits_for_its_instant(colors):
    live, idle = colors
    at = uptime(TWO) + 4
    moment = well(TWO, "slot_switch", {"color": idle, "switch_at": at, **HEALTH})["switched_at"]
    assert 0 <= moment - at < 0.5
    well(TWO, "slot_switch", {"color": live, **HEALTH})


def test_a_host_that_froze_in_a_switch_does_not_switch_alone(colors):
    """Its run has given it up by the time that it thaws."""
    live, idle = colors
    answers, before = [], held()
    goal = {"color": idle, "switch_at": uptime(TWO) + 4, **HEALTH}
    switching = threading.Thread(target=lambda: answers.append(module(TWO, "slot_switch", goal)))
    switching.start()
    time.sleep(2)
    docker("pause", TWO)
    time.sleep(26)
    docker("unpause", TWO)
    switching.join()
    assert "longer than planned" in answers[0]["result"]["msg"], answers
    assert SITES[TWO].color() == live and held() == before
    play("status", "strict=true")
    assert INVENTORY


def test_the_first_host_decides_who_gets_all():
    """Two runs meet there: whoever does not get the first host takes none of the others."""
    lock = {"run": "another", "holder": "ann@laptop", "operation": "deploy", "since": "2026-01-01T00:00:00Z"}
    inside(ONE, f"echo '{json.dumps(lock)}' >{ROOT}/lock")
    try:
        run = play("promote", rc=2)
    finally:
        inside(ONE, f"rm {ROOT}/lock")
    run.says(
        "promote failed on 3 hosts",
        f"{ONE}: locking: the lock is held by ann@laptop",
        f"{TWO}: locking: did not reach this step",
    )
