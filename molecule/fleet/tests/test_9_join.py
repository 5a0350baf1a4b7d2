# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fourth host joins the group of three, and comes back after it was away; nobody else is touched, and no artifact is needed."""

from __future__ import annotations

import json
import os
import sys
import threading

import pytest
import yaml

sys.path.insert(0, os.path.join(os.environ["MOLECULE_PROJECT_DIRECTORY"], "tests"))

from support.bluegreen import Client, Site, artifact
from support.fleet import HOSTS, ROOT, SITES, broken, cut_off, inside, make_one, one_more, play, serving

NEW = "bluegreen-fleet4"
SITE = Site(18234, "sample.test")
SECRET = "a-secret-that-nobody-shows"
ENV = {"bluegreen_env": {"SECRET_KEY_BASE": "molecule-secret-key-base", "TOLD": SECRET}}


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """Words that add the fourth host to the group, which serves 0.1.1 and was on 0.1.0 before, both with the same environment."""
    make_one()
    for version in ("0.1.0", "0.1.1"):
        goal = {
            "bluegreen_artifact": artifact(f"sample_app-{version}"),
            "bluegreen_force": True,
            "bluegreen_promote": True,
        }
        play("deploy", {**goal, **ENV})
    with one_more(NEW, "172.30.231.14", 18224, 18234) as variables:
        path = tmp_path_factory.mktemp("extended") / "extended.yml"
        path.write_text(yaml.safe_dump({"bluegreen": {"hosts": {NEW: variables}}}))
        yield ["-i", str(path)]


def slots(host):
    """What a host holds and serves, without what is its own."""
    text = inside(
        host,
        f"cd {ROOT}; readlink live slots/*/release; cat /etc/ansible/facts.d/sample_app.fact; grep -h TOLD slots/*/env",
    )
    cookie = inside(host, f"cat {ROOT}/cookie")
    names, _brace, rest = text.partition("{")
    facts, _end, told = rest.rpartition("}")
    return names.split(), json.loads("{" + facts + "}"), told.split(), cookie


def processes():
    return {host: inside(host, "systemctl show -P MainPID sample_app@blue sample_app@green") for host in HOSTS}


@pytest.mark.long
def test_without_a_name_there_is_nobody_to_take_from(extended):
    run = play("join", *extended, rc=2)
    assert "no other host of the group is left to take from. Name the hosts that join: -l HOST" in run.says()


def test_a_host_joins(extended):
    before = processes()
    run = play("join", *extended, "-l", NEW, "--check")
    assert f"{NEW}: gets from {HOSTS[0]}: 0.1.1-" in run.says() and not inside(NEW, f"ls {ROOT}/slots", check=False)
    run = play("join", *extended, "-l", NEW, verbose="-vvv")
    assert SECRET not in run.text and processes() == before
    assert {(SITE.get().json()["color"], SITE.get().json()["version"])} == {found[:2] for found in serving()}
    here, there = slots(NEW), slots(HOSTS[0])
    assert here == there
    assert inside(NEW, f"stat -c %a {ROOT}/former") == "700"
    play("status", *extended, "strict=true").says("consistent: ")
    again = play("join", *extended, "-l", NEW)
    assert again.changed() == 0 and f"{NEW}: holds what {HOSTS[0]} holds already" in again.says()


def test_from_then_on_it_belongs_to_the_group(extended):
    color = SITE.color()
    with Client(SITE) as client:
        play("rollback", *extended)
        assert {site.color() for site in [*SITES.values(), SITE]} == {{"blue": "green", "green": "blue"}[color]}
        play("promote", *extended, f"color={color}")
    assert client.failed == [] and SITE.color() == color and {site.color() for site in SITES.values()} == {color}


@pytest.mark.parametrize("switches", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_host_that_was_away_comes_back_without_losing_a_request(extended, switches):
    """With another color live than the group, or with the same one: in the end the colors are those of the group."""
    goals = [{"bluegreen_artifact": artifact(f"sample_app-{version}")} for version in ("0.1.1-rebuilt", "0.1.0")][
        :switches
    ]
    with cut_off(NEW):
        for goal in goals:
            play(
                "deploy",
                {**goal, **ENV, "bluegreen_promote": True, "bluegreen_force": True, "bluegreen_lost_hosts": "proceed"},
                *extended,
            )
    before = processes()
    assert "the group serves 2 releases" in play("status", *extended).says()
    with Client(SITE) as client:
        play("join", *extended, "-l", NEW)
    assert client.failed == [] and processes() == before
    assert slots(NEW) == slots(HOSTS[0])
    play("status", *extended, "strict=true").says("consistent: ")
    play("rollback", *extended)
    play("status", *extended, "strict=true").says("consistent: ")


@pytest.mark.long
def test_an_environment_that_changed_meanwhile_is_taken_over(extended):
    """The same releases, and other values."""
    other = {"bluegreen_env": {**ENV["bluegreen_env"], "MORE": "1"}, "bluegreen_artifact": artifact("sample_app-0.1.0")}
    with cut_off(NEW):
        play(
            "deploy",
            {**other, "bluegreen_promote": True, "bluegreen_force": True, "bluegreen_lost_hosts": "proceed"},
            *extended,
        )
    play("join", *extended, "-l", NEW)
    assert slots(NEW) == slots(HOSTS[0]) and "MORE" in inside(NEW, f"cat {ROOT}/live/env")
    # A member of the group that has a cookie of its own is left as it is.
    before = processes()
    run = play("join", *extended, "-l", HOSTS[2])
    assert (
        run.changed() == 0
        and f"{HOSTS[2]}: holds what {HOSTS[0]} holds already" in run.says()
        and processes() == before
    )


def test_a_group_that_is_locked(extended):
    lock = json.dumps({"run": "x", "holder": "ann@laptop", "operation": "deploy", "since": "2026-01-01T00:00:00Z"})
    with broken(HOSTS[1], f"echo '{lock}' >{ROOT}/lock", f"rm -f {ROOT}/lock"):
        run = play("join", *extended, "-l", NEW, rc=2)
        assert f"{HOSTS[1]} is locked by ann@laptop for deploy" in run.says()
        # It waits for that, if it is told to.
        freed = threading.Timer(6, lambda: inside(HOSTS[1], f"mv {ROOT}/lock /tmp/lock"))
        freed.start()
        play("join", *extended, "-l", NEW, "bluegreen_lock_wait=60")
        freed.join()
        inside(HOSTS[1], f"mv /tmp/lock {ROOT}/lock")


def wipe(*hosts):
    """As hosts that were replaced: nothing of the app, except its account."""
    for host in hosts:
        inside(
            host,
            f"systemctl disable --now sample_app@blue sample_app@green; rm -rf {ROOT} /etc/ansible/facts.d/sample_app.fact",
        )


@pytest.mark.long
def test_two_hosts_at_once_and_a_rollback_to_what_has_lost_its_slot(extended):
    """What was live before is in no slot any more; the hosts that join get it all the same."""
    before = SITE.get().json()["version"]
    after = {"0.1.0": "0.1.1", "0.1.1": "0.1.0"}[before]
    goal = {"bluegreen_artifact": artifact(f"sample_app-{after}"), "bluegreen_force": True, "bluegreen_promote": True}
    play("deploy", {**goal, **ENV}, *extended)
    play(
        "deploy",
        {"bluegreen_artifact": artifact("sample_app-0.1.1-rebuilt"), "bluegreen_force": True, **ENV},
        *extended,
    )
    wipe(HOSTS[2], NEW)
    untouched = {host: mains for host, mains in processes().items() if host != HOSTS[2]}
    play("join", *extended, "-l", f"{HOSTS[2]},{NEW}")
    assert {host: mains for host, mains in processes().items() if host != HOSTS[2]} == untouched
    assert slots(NEW) == slots(HOSTS[2]) == slots(HOSTS[0])
    play("rollback", *extended)
    assert {version for _color, version, _build in serving()} == {before} == {SITE.get().json()["version"]}
    play("status", *extended, "strict=true").says("consistent: ")


@pytest.mark.long
def test_a_host_that_cannot_run_what_the_group_runs(extended):
    """The number of another machine in the header of the VM (elf(5), e_machine); the node that runs keeps the file that it has."""
    program = inside(HOSTS[0], f"ls $(readlink -f {ROOT}/live/release)/erts-*/bin/beam.smp")
    wipe(NEW)
    other = f"cp -p {program} /tmp/beam && printf '\\267' | dd of=/tmp/beam bs=1 seek=18 conv=notrunc 2>/dev/null"
    with broken(
        HOSTS[0], f"{other} && mv {program} {program}.kept && cp -p /tmp/beam {program}", f"mv {program}.kept {program}"
    ):
        run = play("join", *extended, "-l", NEW, rc=2)
    assert "taking over the releases: the release was built for aarch64, and this host is" in run.says()
    play("join", *extended, "-l", NEW)


@pytest.mark.long
def test_a_file_that_somebody_edited_is_not_handed_on(extended):
    """What another host holds is proven file by file."""
    wipe(NEW)
    place = f"$(readlink -f {ROOT}/live/release)/releases/start_erl.data"
    inside(HOSTS[0], f"cp {place} /tmp/start_erl.data; printf ' ' >>{place}")
    try:
        run = play("join", *extended, "-l", NEW, rc=2)
        assert "start_erl.data of" in run.says() and "is not as it was installed there" in run.says()
        assert SITE.get("/").status_code in (404, 502, 503)
    finally:
        inside(HOSTS[0], f"cat /tmp/start_erl.data >{place}")
    play("join", *extended, "-l", NEW)
    assert slots(NEW) == slots(HOSTS[0]) and SITE.get("/").status_code == 200
