# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A group of two web hosts and two workers, which serve nobody: one deploy, one verdict, one instant for all four.

Another app than that of the other tests, so that the first three hosts are what they were.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time

import pytest
import yaml

sys.path.insert(0, os.path.join(os.environ["MOLECULE_PROJECT_DIRECTORY"], "tests"))

from support.bluegreen import PLAIN, Client, Site, artifact, connection, playbook
from support.fleet import HOSTS, INVENTORY, broken, cut_off, docker, inside, one_more, start_of
from support.machines import reboot

ROOT = "/opt/other_app"
WEB, WORKERS = HOSTS[:2], [HOSTS[2], "bluegreen-fleet4"]
ALL = WEB + WORKERS
WORKER = WORKERS[1]
SITES = {host: Site(18231 + index, "other.test") for index, host in enumerate(WEB)}
# A host without nginx: a worker needs none.
WITHOUT_NGINX = "systemctl disable --now nginx; mv /usr/sbin/nginx /usr/sbin/not-nginx"


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Path of the inventory of the four."""
    reached = {host: connection(INVENTORY, host) for host in HOSTS}
    with one_more(WORKER, "172.30.231.14", 18224, 18234, WITHOUT_NGINX) as more:
        reached[WORKER] = more
        common = {
            "bluegreen_app": "other_app",
            "bluegreen_ports": {"blue": 4300, "green": 5300},
            "bluegreen_health_path": "/health",
            "bluegreen_artifact": artifact("other_app-0.1.0"),
        }
        groups = {
            "web": {"hosts": {host: reached[host] for host in WEB}, "vars": {"bluegreen_domain": "other.test"}},
            "workers": {"hosts": {host: reached[host] for host in WORKERS}, "vars": {"bluegreen_web": False}},
        }
        path = tmp_path_factory.mktemp("mixed") / "mixed.yml"
        path.write_text(yaml.safe_dump({"all": {"children": {"bluegreen": {"vars": common, "children": groups}}}}))
        forget()
        yield str(path)
        forget()


def forget():
    for host in ALL:
        inside(
            host,
            "systemctl disable --now other_app@blue other_app@green other_app-epmd 2>/dev/null; rm -rf /opt/other_app "
            "/etc/systemd/system/other_app* /etc/ansible/facts.d/other_app.fact /etc/nginx/conf.d/other_app.conf; "
            "systemctl daemon-reload; pgrep nginx >/dev/null && systemctl reload nginx; true",
        )


@pytest.fixture
def play(mixed, request):
    def run(name, *args, **kwargs):
        return playbook(mixed, name, *args, **kwargs)

    if request.function is not test_the_first_deploy and not inside(WORKER, f"ls {ROOT}", check=False):
        run("deploy")
    return run


def live():
    return {host: inside(host, f"basename $(readlink {ROOT}/live)") for host in ALL}


def held():
    command = f"cd {ROOT}; readlink slots/*/release; systemctl is-active other_app@blue other_app@green; ls -A slots/*; ls lock || true"
    return {host: inside(host, command, check=False) for host in ALL}


def test_the_first_deploy(mixed, play):
    run = play("deploy")
    assert live() == dict.fromkeys(ALL, "blue")
    for host in WORKERS:
        # It runs, and serves nobody.
        assert inside(host, "systemctl is-active other_app@blue") == "active"
        assert "4300" not in inside(host, "ss -lnt") and not inside(
            host, "ls /etc/nginx/conf.d/other_app.conf", check=False
        )
        assert "PHX_SERVER" not in inside(host, f"cat {ROOT}/slots/blue/env")
        assert re.search(rf"{host} +blue +blue +worker ", run.text)
    assert all(site.color() == "blue" for site in SITES.values())
    # A second run changes nothing.
    assert play("deploy").changed() == 0 and play("setup").changed() == 0
    play("status", "strict=true").says("consistent: ")


def test_one_deploy_one_instant(play):
    with Client(SITES[WEB[0]]) as one, Client(SITES[WEB[1]]) as two:
        play("deploy", {"bluegreen_env": {"NUMBER": "2"}})
        assert live() == dict.fromkeys(ALL, "blue")
        run = play("promote")
        apart = int(re.search(r"all hosts switched within (\d+) ms", run.text).group(1))
        assert live() == dict.fromkeys(ALL, "green") and apart < 500
        play("rollback")
        assert live() == dict.fromkeys(ALL, "blue")
        play("promote", "color=green")
    assert one.failed == two.failed == []
    # The file that tells a worker that it is live is that of its slot.
    name = inside(WORKER, f"grep -h LIVE_FILE {ROOT}/slots/green/env | cut -d= -f2").strip('"')
    assert inside(WORKER, f"test -e {name} && echo yes") == "yes"


FAULTS = {
    "not healthy": (
        {"bluegreen_env": {"NUMBER": "3"}, "bluegreen_health_timeout": 8},
        {"bluegreen_health_expr": "System.get_env(~s(NUMBER)) != ~s(3)"},
        "deploying: blue was not healthy within 8 s: bluegreen_health_expr gives false",
    ),
    "does not boot": (
        {"bluegreen_health_timeout": 8},
        {"bluegreen_env": {"NUMBER": "3", "SAMPLE_EXIT_AT_BOOT": "1"}},
        "the sample was told to exit at boot",
    ),
}


@pytest.mark.parametrize("name", ["not healthy", pytest.param("does not boot", marks=pytest.mark.long)])
def test_a_worker_that_fails_keeps_the_whole_group(play, name):
    everywhere, there, said = FAULTS[name]
    before, slots = live(), held()
    variables = {"bluegreen_env": {"NUMBER": "3"}, "bluegreen_health_expr": "", **everywhere}
    for key, value in there.items():
        choice = f"{json.dumps(value)} if inventory_hostname == '{WORKER}' else {json.dumps(variables[key])}"
        variables[key] = "{{ " + choice + " }}"
    with Client(SITES[WEB[0]]) as client:
        run = play("deploy", {**variables, "bluegreen_promote": True}, rc=2)
    assert f"deploy failed on 1 host: {WORKER}: " in run.says() and said in run.says()
    assert live() == before and held() == slots and client.failed == []


def test_a_worker_that_cannot_be_reached(play):
    before = live()
    with cut_off(WORKER):
        run = play("promote", "color=blue", rc=2)
    assert f"{WORKER}: locking: unreachable" in run.says() and live() == before


def test_a_worker_that_cannot_write(play):
    before = live()
    read_only = f"mount --bind {ROOT} {ROOT} && mount -o remount,ro,bind {ROOT}"
    with broken(WORKER, read_only, f"umount {ROOT}"):
        run = play("promote", "color=blue", rc=2)
    assert f"{WORKER}: locking: Read-only file system" in run.says() and live() == before


@pytest.mark.long
def test_a_worker_that_cannot_switch_takes_all_back(play):
    before = live()
    with broken(WORKER, f"mkdir {ROOT}/.live.new", f"rmdir {ROOT}/.live.new"):
        with Client(SITES[WEB[0]]) as client:
            run = play("promote", "color=blue", rc=2)
    assert f"{WORKER}: switching: " in run.says() and live() == before and client.failed == []
    play("status", "strict=true")


@pytest.mark.long
def test_a_worker_whose_node_does_not_answer_keeps_the_group_from_switching(play):
    before = live()
    with broken(WORKER, "systemctl kill -s STOP other_app@blue", "systemctl kill -s CONT other_app@blue"):
        run = play("promote", "color=blue", rc=2)
    assert f"{WORKER}: " in run.says() and "is not healthy" in run.says() and live() == before


@pytest.mark.long
def test_a_worker_that_is_lost_during_the_switch(mixed, play):
    play("deploy", {"bluegreen_env": {"NUMBER": "5"}})
    before = live()
    color = {"blue": "green", "green": "blue"}[before[WORKER]]
    with start_of("slot_switch", WORKER) as it_starts:
        words = ["ansible-playbook", "beamops.bluegreen.promote", "-i", mixed, "-e", f"color={color}"]
        run = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **PLAIN}
        )
        it_starts()
        docker("pause", WORKER)
        text = run.communicate(timeout=240)[0]
    docker("unpause", WORKER)
    assert run.returncode != 0 and f"{WORKER}: switching: " in text, text[-3000:]
    time.sleep(8)
    after = live()
    assert {host: after[host] for host in ALL if host != WORKER} == {
        host: before[host] for host in ALL if host != WORKER
    }
    play("promote", f"color={color}")
    assert live() == dict.fromkeys(ALL, color)


@pytest.mark.long
def test_what_is_for_visitors_leaves_workers_alone(play):
    play("deploy", {"bluegreen_env": {"NUMBER": "4"}})
    play("canary", "percent=10")
    assert inside(WORKER, f"ls {ROOT}/canary", check=False) == ""
    play("canary", "percent=0")
    play("maintenance", "state=on")
    assert SITES[WEB[0]].get("/").status_code == 503 and not inside(WORKER, f"ls {ROOT}/maintenance", check=False)
    play("maintenance", "state=off")
    run = play("canary", "percent=10", "bluegreen_hosts=workers", rc=2)
    assert f"{WORKER}: has no visitors (bluegreen_web: false)" in run.says()


def test_a_group_of_workers_alone(play):
    """Allowed, and said; it needs no domain."""
    before = live()
    run = play("status", "bluegreen_hosts=workers")
    assert "every host is a worker (bluegreen_web: false), so nobody serves visitors" in run.says()
    play("deploy", {"bluegreen_hosts": "workers", "bluegreen_env": {"NUMBER": "5"}, "bluegreen_promote": True})
    after = live()
    assert all(after[host] == before[host] for host in WEB) and all(after[host] != before[host] for host in WORKERS)
    play("rollback", "bluegreen_hosts=workers")


@pytest.mark.long
def test_a_worker_comes_back_after_a_reboot(play):
    reboot(WORKER, f"systemctl is-active ssh other_app@{live()[WORKER]}")
    # nginx is away still: nothing started it.
    assert inside(WORKER, "pgrep nginx", check=False) == ""
    deadline = time.monotonic() + 30
    while "consistent: " not in play("status", rc=any).says():
        assert time.monotonic() < deadline
        time.sleep(1)


@pytest.mark.long
def test_a_worker_that_was_replaced_joins(play):
    """It gets what the other worker holds: the environment of a web host would make it listen."""
    inside(
        WORKER,
        "systemctl disable --now other_app@blue other_app@green; rm -rf /opt/other_app /etc/ansible/facts.d/other_app.fact",
    )
    play("join", "-l", WORKER)
    color = live()[WORKER]
    assert live() == dict.fromkeys(ALL, color) and "PHX_SERVER" not in inside(WORKER, f"cat {ROOT}/slots/{color}/env")
    assert held()[WORKER] == held()[WORKERS[0]]
    play("status", "strict=true")
