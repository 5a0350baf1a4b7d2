# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Group or nothing, on three hosts. Converge has deployed 0.1.0 to all of them.

Every fault is made for one host; afterwards all that can be reached serve what they served before, the run says which host
and why, and the same command succeeds once the fault is gone. Clients ask all sites all the time.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

sys.path.insert(0, os.path.join(os.environ["MOLECULE_PROJECT_DIRECTORY"], "tests"))

from support.bluegreen import artifact
from support.fleet import (
    FAULT_PLUGIN,
    HOSTS,
    INVENTORY,
    ROOT,
    SITES,
    asking,
    broken,
    cut_off,
    docker,
    held,
    inside,
    play,
    serving,
    start,
    start_of,
)

REBUILT = {"bluegreen_artifact": artifact("sample_app-0.1.1-rebuilt"), "bluegreen_promote": True}


def test_all_good():
    with asking() as clients:
        play("deploy", {"bluegreen_artifact": artifact("sample_app-0.1.1")})
        assert serving() == {("blue", "0.1.0", "1")}
        run = play("promote", "color=green")
    assert serving() == {("green", "0.1.1", "1")}
    run.says(*(f"{host}: live blue 0.1.0-" for host in HOSTS), "all hosts switched within")
    # What is said of the whole group is said once.
    assert run.text.count("HOST ") == 1 and run.text.count("all hosts switched within") == 1
    assert all(set(client.seen) == {"blue", "green"} for client in clients.values())
    assert (
        play("deploy", {"bluegreen_artifact": artifact("sample_app-0.1.1"), "bluegreen_promote": True}).changed() == 0
    )


def test_one_host_that_never_gets_healthy():
    before, slots = serving(), held()
    env = "{{ {'SAMPLE_UNHEALTHY': '1'} if inventory_hostname == 'bluegreen-fleet2' else {} }}"
    with asking():
        run = play("deploy", {**REBUILT, "bluegreen_env": env, "bluegreen_health_timeout": 10}, rc=2)
    run.says("deploy failed on 1 host: bluegreen-fleet2: deploying: blue was not healthy within 10 s", "503")
    assert serving() == before
    # The other two had it running and healthy, and gave it back all the same.
    assert held() == slots


def test_one_host_that_cannot_be_reached_from_the_start():
    before, slots = serving(), held("bluegreen-fleet3")
    with cut_off("bluegreen-fleet3"), asking():
        run = play("deploy", REBUILT, rc=2)
    run.says("bluegreen-fleet3: locking: unreachable")
    assert serving() == before
    assert held("bluegreen-fleet3") == slots


def test_one_host_that_cannot_write():
    before, slots = serving(), held()
    read_only = f"mount --bind {ROOT} {ROOT} && mount -o remount,ro,bind {ROOT}"
    with broken("bluegreen-fleet2", read_only, f"umount {ROOT}"), asking():
        run = play("promote", "color=blue", rc=2)
    run.says("bluegreen-fleet2: locking: Read-only file system")
    assert serving() == before and held() == slots


def test_one_host_that_cannot_switch():
    """The switch itself fails on one host, after the others have switched: they come back."""
    before = serving()
    with broken("bluegreen-fleet1", f"mkdir {ROOT}/.live.new", f"rmdir {ROOT}/.live.new"), asking():
        run = play("promote", "color=blue", rc=2)
    run.says("bluegreen-fleet1: switching:")
    assert serving() == before
    play("status", "strict=true")


@pytest.mark.long
def test_one_host_that_is_lost_during_the_switch():
    before = serving()
    # nginx hangs there, so that the module is in the middle of its work when the host freezes.
    inside("bluegreen-fleet3", "pkill -STOP -u www-data nginx")
    with asking("bluegreen-fleet3"), start_of("slot_switch", "bluegreen-fleet3") as it_starts:
        run = start("promote", "-e", "color=blue")
        it_starts()
        docker("pause", "bluegreen-fleet3")
        text = run.communicate(timeout=240)[0]
    docker("unpause", "bluegreen-fleet3")
    inside("bluegreen-fleet3", "pkill -CONT -u www-data nginx")
    assert run.returncode != 0
    assert "bluegreen-fleet3: switching: " in text, text[-3000:]
    assert serving("bluegreen-fleet3") == before
    time.sleep(8)
    assert serving() == before
    # The lost host still has the lock of the run that lost it, which is dead: the same command takes over, and succeeds.
    with asking():
        run = play("promote", "color=blue")
    run.says("took over from a run of this machine that is dead")
    assert serving() == {("blue", "0.1.0", "1")}
    play("promote", "color=green")
    play("status", "strict=true")


def test_after_the_faults_the_same_command_succeeds():
    with asking():
        run = play("deploy", REBUILT)
    assert serving() == {("blue", "0.1.1", "2")}
    run.says("consistent:")
    with asking():
        play("rollback")
    assert serving() == {("green", "0.1.1", "1")}


def test_deploying_again_what_was_rolled_back_from_needs_consent():
    play("deploy", REBUILT, rc=2).says("was rolled back from. To deploy it again: -e bluegreen_force=true")
    with asking():
        play("deploy", REBUILT, "bluegreen_force=true")
    assert serving() == {("blue", "0.1.1", "2")}


def test_a_lost_host_and_consent_to_go_on_without_it():
    with cut_off("bluegreen-fleet1"), asking():
        run = play("rollback", "bluegreen_lost_hosts=proceed")
    run.says("unreachable and unchanged: bluegreen-fleet1")
    assert serving("bluegreen-fleet1") == {("green", "0.1.1", "1")}
    play("status", "strict=true", rc=2).says("the group serves 2 releases", "bluegreen-fleet1")
    with asking():
        play("deploy", {"bluegreen_artifact": artifact("sample_app-0.1.1"), "bluegreen_promote": True})
    assert serving() == {("green", "0.1.1", "1")}
    play("status", "strict=true")


def test_a_part_of_the_group_is_refused_without_consent():
    play("promote", "color=blue", "--limit", "bluegreen-fleet1", rc=2).says(
        "--limit leaves out bluegreen-fleet2, bluegreen-fleet3 of the group bluegreen",
        "bluegreen_partial=true",
    )
    assert serving() == {("green", "0.1.1", "1")}


def test_one_machine_under_two_names(tmp_path):
    with open(INVENTORY) as stream:
        text = stream.read()
    path = tmp_path / "hosts.yml"
    twin = "all: {children: {bluegreen: {hosts: {twin: {ansible_host: 127.0.0.1, ansible_port: 18221}}}}}"
    path.write_text(twin)
    extra = {
        "ansible_user": "deploy",
        "ansible_connection": "ssh",
        "ansible_ssh_private_key_file": os.environ["BLUEGREEN_TEST_KEY"],
        "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
    }
    assert "bluegreen-fleet1" in text
    run = play("promote", "color=blue", "-i", str(path), extra, rc=2)
    run.says("of the inventory are the same machine")
    assert serving() == {("green", "0.1.1", "1")}
    assert all("lock" not in text.splitlines()[-1] for text in held().values())


def test_ten_controllers_at_once():
    with asking():
        runs = [start("promote", "-e", "color=blue") for _number in range(10)]
        texts = [run.communicate(timeout=300)[0] for run in runs]
    won = [text for run, text in zip(runs, texts) if run.returncode == 0 and "changed=1" in text]
    assert len(won) == 1
    for run, text in zip(runs, texts):
        # Nobody does half: whoever came later found it held, or done already.
        assert text in won or "the lock is held by" in text or "is already live" in text
        assert run.returncode == (2 if "the lock is held by" in text else 0)
    assert any("the lock is held by" in text for text in texts)
    assert serving() == {("blue", "0.1.1", "2")}
    assert all(inside(host, f"ls {ROOT}/lock", check=False) == "" for host in HOSTS)


def test_waiting_for_a_lock():
    lock = {"run": "x", "holder": "ann@laptop", "operation": "deploy", "since": "2026-01-01T00:00:00Z"}
    inside("bluegreen-fleet1", f"echo '{json.dumps(lock)}' >{ROOT}/lock")
    play("promote", "color=blue", rc=2).says("the lock is held by ann@laptop for deploy since 2026-01-01T00:00:00Z")
    subprocess.Popen(["sh", "-c", f"sleep 8; docker exec bluegreen-fleet1 rm {ROOT}/lock"])
    run = play("promote", "color=blue", "bluegreen_lock_wait=60")
    run.says("FAILED - RETRYING: [bluegreen-fleet1]: Acquire the lock")
    assert run.changed() == 0


@pytest.mark.long
def test_one_host_whose_directory_becomes_read_only_before_the_switch():
    before, slots = serving(), held()
    mount = f"mount --bind {ROOT} {ROOT} && mount -o remount,ro,bind {ROOT}"
    fault = {
        "FAULT_TASK": "Switch the traffic and prove it",
        "FAULT_COMMAND": f"docker exec bluegreen-fleet2 sh -c '{mount}'",
    }
    other = {"blue": "green", "green": "blue"}[SITES["bluegreen-fleet1"].color()]
    with asking():
        run = start("promote", "-e", f"color={other}", env={**FAULT_PLUGIN, **fault})
        text = run.communicate(timeout=240)[0]
    assert run.returncode == 2 and "bluegreen-fleet2: switching: Read-only file system" in text, text[-3000:]
    assert serving() == before
    inside("bluegreen-fleet2", f"umount {ROOT}")
    with asking():
        play("promote", f"color={other}")
        assert serving() != before
        play("rollback")
    assert serving() == before
    assert [text.splitlines()[:2] for text in held().values()] == [text.splitlines()[:2] for text in slots.values()]


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGKILL])
def test_a_controller_that_was_ended_leaves_no_lock_that_matters(number):
    before = serving()
    goal = {"bluegreen_artifact": artifact("sample_app-0.1.0"), "bluegreen_env": {"RUN": str(int(number))}}
    with asking():
        with start_of("slot_service", "bluegreen-fleet2") as it_starts:
            run = start("deploy", "-e", json.dumps(goal))
            it_starts()
            os.killpg(run.pid, number)
            run.communicate(timeout=60)
        assert serving() == before
        # The same machine does not have to wait for the lock of a process of its own that is dead.
        again = play("deploy", goal)
    assert again.changed() > 0
    assert serving() == before
    play("status", "strict=true")


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGKILL])
def test_the_locks_of_a_controller_that_was_ended_are_freed(number):
    """Without anybody running anything again, for another machine must not have to wait."""
    with start_of("deploy_lock", "bluegreen-fleet3") as it_starts:
        run = start("promote", "-e", "color=blue")
        it_starts()
        os.killpg(run.pid, number)
        run.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while any(inside(host, f"ls {ROOT}/lock", check=False) for host in HOSTS):
        assert time.monotonic() < deadline, held()
        time.sleep(0.5)
    play("status", "history=1").says("promote died")


def test_history_of_the_group():
    run = play("status", "history=3")
    lines = [line for line in run.text.splitlines() if "  deploy  " in line or "  promote  " in line]
    assert len(lines) == 9
    assert any("  promote  died  " in line for line in lines) and any("  deploy  ok  " in line for line in lines)
    assert all("@" in line for line in lines)


@pytest.mark.long
def test_ten_deploys_at_once():
    goal = {
        "bluegreen_artifact": artifact("sample_app-0.1.0"),
        "bluegreen_env": {"RUN": "ten"},
        "bluegreen_force": True,
    }
    with asking():
        runs = [start("deploy", "-e", json.dumps(goal)) for _number in range(10)]
        texts = [run.communicate(timeout=600)[0] for run in runs]
    won = [text for run, text in zip(runs, texts) if run.returncode == 0]
    # One did the work; whoever came when it had ended had nothing to do.
    assert [any(int(number) for number in re.findall(r"changed=(\d+)", text)) for text in won].count(True) == 1
    for run, text in zip(runs, texts):
        assert run.returncode == (0 if text in won else 2)
        assert text in won or "the lock is held by" in text, text[-3000:]
    assert all(inside(host, f"ls {ROOT}/lock", check=False) == "" for host in HOSTS)
    play("status", "strict=true")


@pytest.mark.long
def test_a_rollback_across_migrations_is_refused():
    """What the app says on being asked is written down with each release; a release that says nothing stops no rollback."""
    live = SITES[HOSTS[0]].color()

    def tells(*versions):
        words = " ".join(versions)
        return {
            "bluegreen_migrations_command": f'IO.puts(String.replace("{words}", " ", "\\n"))',
            "bluegreen_force": True,
        }

    play("deploy", {"bluegreen_artifact": artifact("sample_app-0.1.0"), "bluegreen_promote": True, **tells("1", "2")})
    play(
        "deploy",
        {"bluegreen_artifact": artifact("sample_app-0.1.1"), "bluegreen_promote": True, **tells("1", "2", "3")},
    )
    before = serving()
    assert {answer[1] for answer in before} == {"0.1.1"}, live
    play("rollback", rc=2).says("0.1.0-", "was live: 3.", "bluegreen_force=true")
    assert serving() == before
    play("rollback", "bluegreen_force=true")
    assert {answer[1] for answer in serving()} == {"0.1.0"}
    # The tests after this one know nothing of migrations.
    for host in HOSTS:
        inside(host, f"rm {ROOT}/former/*.migrations")


def test_an_app_that_does_not_tell_its_migrations_gets_its_slots_back():
    before, slots = serving(), held()
    broken = {"bluegreen_migrations_command": 'raise "no database"'}
    goal = {"bluegreen_artifact": artifact("sample_app-0.1.1-rebuilt"), "bluegreen_force": True, **broken}
    play("deploy", goal, rc=2).says("listing its migrations", "no database")
    assert serving() == before and held() == slots
    play("status", "strict=true")


def test_hosts_on_different_live_colors_are_shown_and_made_one():
    play(
        "deploy",
        {"bluegreen_artifact": artifact("sample_app-0.1.1"), "bluegreen_force": True, "bluegreen_promote": True},
    )
    color = SITES["bluegreen-fleet1"].color()
    other = {"blue": "green", "green": "blue"}[color]
    play("promote", f"color={other}", "--limit", "bluegreen-fleet2", "bluegreen_partial=true")
    play("status", "strict=true", rc=2).says("the group serves 2 releases")
    with asking():
        play("promote", f"color={color}")
    assert len(serving()) == 1
    play("status", "strict=true")


@pytest.mark.parametrize(
    "text", ["not json", *(pytest.param(text, marks=pytest.mark.long) for text in ('{"live": "purple"}', ""))]
)
def test_facts_that_somebody_damaged(text):
    path = "/etc/ansible/facts.d/sample_app.fact"
    inside("bluegreen-fleet2", f"printf %s '{text}' >{path}")
    play("status", "strict=true", rc=2).says("bluegreen-fleet2")
    with asking():
        play("deploy", {"bluegreen_artifact": artifact("sample_app-0.1.1"), "bluegreen_force": True})
    assert json.loads(inside("bluegreen-fleet2", f"cat {path}"))["live"] == SITES["bluegreen-fleet2"].color()
    play("status", "strict=true")


def test_live_that_points_nowhere_is_not_guessed_about():
    color = SITES["bluegreen-fleet2"].color()
    inside("bluegreen-fleet2", f"ln -sfn slots/purple {ROOT}/live")
    run = play("deploy", {"bluegreen_artifact": artifact("sample_app-0.1.0"), "bluegreen_force": True}, rc=2)
    run.says("bluegreen-fleet2: cannot tell which slot is live", "which is neither slots/blue nor slots/green")
    inside("bluegreen-fleet2", f"ln -sfn slots/{color} {ROOT}/live")
    play("status", "strict=true")
