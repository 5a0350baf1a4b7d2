# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import time

from ansible_collections.beamops.bluegreen.plugins.filter import bluegreen
from ansible_collections.beamops.bluegreen.plugins.module_utils import _slots
from ansible_collections.beamops.bluegreen.plugins.plugin_utils import _controller, _group
from hypothesis import given
from hypothesis import strategies as st

A, B, C = "0.1.0-aaaaaaaa", "0.1.1-bbbbbbbb", "0.1.2-cccccccc"
E1, E2 = "1" * 12, "2" * 12


def bad(release, env=""):
    """What was rolled back from: a release, or one of its environments."""
    return {"release": release, "env": env}


def info(live="blue", blue=A, green=B, **more):
    def slot(color, release):
        return {
            "color": color,
            "release": release,
            "env": E1 if release else "",
            "env_changes": None,
            "rolled_back": any(mark["release"] == release for mark in more.get("rolled_back", [])),
            "running": bool(release),
            "healthy": bool(release),
            "health": "200",
            "process_release": release,
            "promoted_at": "t" if color == live else None,
            "deployed_at": "t",
            "pending": None,
            "port": {"blue": 4000, "green": 5000}[color],
        }

    found = {
        "ok": True,
        "live": live,
        "idle": "green" if live == "blue" else "blue",
        "link": live,
        "deployment_id": live,
        "deployment_id_error": None,
        "no_site": False,
        "slots": {"blue": slot("blue", blue), "green": slot("green", green)},
        "problems": [],
        "facts": {
            "live": live,
            "rolled_back": [],
            "slots": {
                "blue": blue and {"release": blue, "env": E1},
                "green": green and {"release": green, "env": E1},
            },
        },
        "traffic_unsure": False,
        "refusals": [],
        "rolled_back": [],
        "lock": None,
        "rollback": {"refused": "nothing"},
        "migrations": {},
        "setup_needed": [],
        "target": "green",
    }
    found.update(more)
    found["disagreements"] = _slots.disagreements(found)
    return found


RESULTS = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {},
        optional={
            "ok": st.booleans(),
            "unreachable": st.booleans(),
            "skipped": st.booleans(),
            "failed": st.booleans(),
            "msg": st.text(max_size=5),
            "changed": st.booleans(),
        },
    ),
)


@given(
    st.dictionaries(st.sampled_from("abc"), st.fixed_dictionaries({"lock": RESULTS, "info": RESULTS})),
    st.sets(st.sampled_from("abc")),
)
def test_a_group_is_good_only_if_every_host_proved_every_step(results, hosts):
    judged = _group.verdict(results, sorted(hosts), ["lock", "info"])
    good = [
        host
        for host in hosts
        if all(
            ((results.get(host) or {}).get(step) or {}).get("ok") is True and not results[host][step].get("unreachable")
            for step in ("lock", "info")
        )
    ]
    assert judged["ok"] == (bool(hosts) and set(good) == set(hosts))
    assert {entry["host"] for entry in judged["failed"]} == set(hosts) - set(good)
    assert all(entry["why"] for entry in judged["failed"])


def test_the_first_bad_step_is_named():
    results = {
        "a": {"lock": {"ok": True}, "info": {"unreachable": True, "msg": "timed out\nmore"}},
        "b": {"lock": {"msg": "held by ann"}},
    }
    assert _group.verdict(results, ["a", "b", "c"], ["lock", "info"])["failed"] == [
        {"host": "a", "step": "info", "why": "unreachable: timed out"},
        {"host": "b", "step": "lock", "why": "held by ann"},
        {"host": "c", "step": "lock", "why": "did not come this far"},
    ]


def test_an_optional_step_may_be_left_out_but_not_fail():
    assert _group.verdict({"a": {"x": {"skipped": True}}}, ["a"], ["x?"])["ok"]
    assert _group.verdict({"a": {}}, ["a"], ["x?"])["ok"]
    assert not _group.verdict({"a": {"x": {"msg": "no"}}}, ["a"], ["x?"])["ok"]
    assert not _group.verdict({"a": {"x": {"unreachable": True}}}, ["a"], ["x?"])["ok"]


def test_set_up_is_good_only_if_nothing_is_missing():
    assert not _group.verdict({"a": {"setup": {"ok": True, "setup_needed": ["/x"]}}}, ["a"], ["setup"])["ok"]
    assert _group.verdict({"a": {"setup": {"ok": True, "setup_needed": []}}}, ["a"], ["setup"])["ok"]


def test_promote_goes_to_the_idle_slot_or_to_the_color_that_was_named():
    infos = {"a": info(), "b": info()}
    assert {entry["color"] for entry in _group.switch_plan(infos)["hosts"].values()} == {"green"}
    plan = _group.switch_plan(infos, "blue")
    assert plan["ok"] and all(entry["already"] for entry in plan["hosts"].values())


def test_a_group_never_ends_up_on_two_releases():
    plan = _group.switch_plan({"a": info(), "b": info(green=C)})
    assert not plan["ok"] and len(plan["failed"]) == 2
    # Different colors are fine as long as the release is one.
    plan = _group.switch_plan({"a": info(), "b": info(live="green", blue=B, green=A)})
    assert plan["ok"] and {host: entry["color"] for host, entry in plan["hosts"].items()} == {"a": "green", "b": "blue"}


def was_live(found, color):
    found["slots"][color]["promoted_at"] = "t"
    return found


def test_promote_refuses_an_empty_slot_and_what_was_rolled_back_from():
    assert "holds no release" in _group.switch_plan({"a": info(green=None)}, "green")["failed"][0]["why"]
    assert "holds no release" in _group.switch_plan({"a": info(blue=None, green=None)})["failed"][0]["why"]
    back = was_live(info(rolled_back=[bad(B)]), "green")
    assert "rolled back from" in _group.switch_plan({"a": back})["failed"][0]["why"]
    assert _group.switch_plan({"a": back}, "green")["ok"]


def test_a_promote_that_is_run_again_does_not_move_the_traffic_back():
    after = was_live(info(live="green"), "blue")
    plan = _group.switch_plan({"a": after})
    assert plan["ok"] and plan["hosts"]["a"] == {"color": "green", "release": B, "env": E1, "already": True}
    assert f"blue {A} env 1111 was live before: rollback.yml" in _group.switch_lines({"a": after}, plan)[0]
    # A controller that died between two hosts: the one that has switched stays, the other follows.
    plan = _group.switch_plan({"a": after, "b": info()})
    assert plan["ok"] and plan["hosts"]["a"]["already"] and plan["hosts"]["b"]["color"] == "green"
    assert _group.switch_plan({"a": after}, "blue")["hosts"]["a"]["already"] is False


def test_nobody_switches_before_all_are_ready():
    ill = info()
    ill["slots"]["green"].update(healthy=False, health="503")
    plan = _group.switch_plan({"a": info(), "b": ill})
    assert not plan["ok"] and plan["failed"][0]["host"] == "b" and "503 on port 5000" in plan["failed"][0]["why"]
    rest = info()
    rest["slots"]["green"]["pending"] = {"release": B, "at": "noon", "run": "x", "former": None}
    assert "cut short (noon)" in _group.switch_plan({"a": rest}, "green")["failed"][0]["why"]


def test_nothing_is_done_while_it_is_unsure_what_is_live():
    unsure = {"a": info(deployment_id="green", traffic_unsure=True)}
    assert "/deployment_id says green, the live symlink says blue" in _group.deploy_plan(unsure)["failed"][0]["why"]
    assert not _group.switch_plan(unsure)["ok"]


def test_a_deploy_that_goes_on_to_promote_goes_where_it_deployed_to():
    # The same release with another env in the idle slot: the color counts, not the name of the release.
    infos = {"a": info(green=A), "b": info(live="green", green=A)}
    deployed = {"a": {"color": "green", "release": A}, "b": {"color": "green", "release": A, "already_live": True}}
    plan = _group.switch_plan(infos, deployed=deployed)
    assert plan["ok"] and plan["hosts"]["b"]["already"] and not plan["hosts"]["a"]["already"]
    assert not _group.switch_plan(infos, deployed={"a": deployed["a"]})["ok"]


def test_a_host_that_refuses_is_bad():
    judged = _group.verdict(
        {"a": {"lock": {"ok": True, "info": info(refusals=["blue is live on port 4000"])}}}, ["a"], ["lock"]
    )
    assert judged["failed"] == [{"host": "a", "step": "lock", "why": "blue is live on port 4000"}]


def test_rollback_plan():
    goal = {"release": A, "color": "blue", "take": True}
    plan = _group.rollback_plan({"a": info(live="green", rollback=goal), "b": info(live="green", rollback=goal)})
    assert plan["ok"] and plan["hosts"]["a"]["take"]
    mixed = _group.rollback_plan({"a": info(rollback=goal), "b": info(rollback={**goal, "release": C})})
    assert not mixed["ok"]
    assert not _group.rollback_plan({"a": info(rollback=goal), "b": info()})["ok"]


def test_rollback_across_migrations_needs_consent():
    goal = {"release": A, "color": "blue", "take": False}
    known = {A: ["1", "2"], B: ["1", "2", "3"]}
    found = info(live="green", rollback=goal, migrations=known)
    refused = _group.rollback_plan({"a": found})
    assert not refused["ok"] and f"{A} does not know the migrations 3" in refused["failed"][0]["why"]
    assert _group.rollback_plan({"a": found}, force=True)["ok"]
    # Where the app did not tell, nothing is guessed.
    assert _group.rollback_plan({"a": info(live="green", rollback=goal, migrations={B: ["1"]})})["ok"]
    assert _group.rollback_plan({"a": info(live="green", rollback=goal, migrations={A: ["1"], B: ["1"]})})["ok"]


def test_lost_hosts_are_left_out_with_consent_as_long_as_one_is_there():
    results = {"a": {"lock": {"ok": True}}, "b": {"lock": {"unreachable": True, "msg": "gone"}}}
    judged = _group.verdict(results, ["a", "b"], ["lock"], without_lost=True)
    assert judged == {"ok": True, "failed": [], "lost": ["b"]}
    assert not _group.verdict(results, ["a", "b"], ["lock"])["ok"]
    assert not _group.verdict(results, ["b"], ["lock"], without_lost=True)["ok"]


def test_what_was_rolled_back_from_is_deployed_again_only_with_consent():
    found = {"a": info(rolled_back=[bad(C)])}
    assert not _group.deploy_plan(found, {"a": C})["ok"]
    assert _group.deploy_plan(found, {"a": C}, force=True)["ok"]
    assert _group.deploy_plan(found, {"a": A})["ok"]


def test_a_dead_controller_is_told_from_a_live_one_and_from_another_machine():
    me = {"machine": _controller._machine(), "pid": os.getpid(), "started": _controller._started(os.getpid())}
    assert not _controller.is_dead(me)
    assert _controller.is_dead({**me, "started": "1"})
    assert _controller.is_dead({**me, "pid": 2**22 + 1})
    child = os.fork()
    if child == 0:
        os._exit(0)
    started = me["started"]
    while _controller._started(child):
        time.sleep(0.01)
    # Nobody has waited for it yet.
    assert _controller.is_dead({**me, "pid": child, "started": started})
    os.waitpid(child, 0)
    assert not _controller.is_dead({**me, "machine": "another", "started": "1"})
    assert not _controller.is_dead(None) and not _controller.is_dead({})


def test_the_table_tells_what_does_not_agree():
    odd = info(deployment_id="green")
    odd["disagreements"] = _slots.disagreements(odd)
    lines = _group.status_lines({"web1": info(), "web2": odd, "web3": {"unreachable": True, "msg": "timed out"}})
    assert lines[1].split()[:4] == ["web1", "blue", "blue", "blue"]
    assert "web2: /deployment_id says green, the live symlink says blue" in lines
    assert "web3: unreachable: timed out" in lines
    assert _group.status_lines({"web1": info()})[-1] == "all truths agree"
    assert _group.in_doubt({"web1": odd}) and not _group.in_doubt({"web1": info()})


def test_the_next_commands_are_said():
    assert _group.next_lines({"a": info()}) == [f"to make {B} env 1111 live: promote.yml -e color=green"]
    back = info(live="green", rollback={"release": A, "env": E2, "color": "blue", "take": False})
    back["slots"]["blue"]["promoted_at"] = "t"
    assert _group.next_lines({"a": back}) == [f"to go back to {A} env 2222: rollback.yml"]
    # The cookies of two hosts differ, and with them the ids of one environment.
    there = info(live="green", rollback={"release": A, "env": E1, "color": "blue", "take": False})
    assert _group.next_lines({"a": back, "b": there})[-1] == f"to go back to {A}: rollback.yml"
    assert _group.next_lines({"a": info(green=None)}) == []


def test_what_differs_between_two_environments_is_said_by_name():
    assert _group.env_words(None) == _group.env_words({"added": [], "removed": [], "changed": []}) == ""
    changes = {"added": ["POOL_SIZE"], "removed": ["OLD"], "changed": ["DATABASE_URL"]}
    assert _group.env_words(changes) == "+POOL_SIZE, -OLD, ~DATABASE_URL"
    many = {**changes, "added": [f"A{number}" for number in range(10)]}
    assert _group.env_words(many) == "+A0, +A1, +A2, +A3, +A4, +A5 and 6 more"
    found = info(green=A)
    found["slots"]["green"].update(env=E2, env_changes=changes)
    plan = _group.switch_plan({"web1": found}, "green")
    words = "(+POOL_SIZE, -OLD, ~DATABASE_URL)"
    assert _group.switch_lines({"web1": found}, plan) == [f"web1: live blue {A} env 1111 -> green {A} env 2222 {words}"]
    table = _group.status_lines({"web1": found})
    assert f"{A} env 1111 live healthy" in table[1] and f"{A} env 2222 idle healthy" in table[1]
    assert table[2] == "web1: the environment of green differs from what is live: +POOL_SIZE, -OLD, ~DATABASE_URL"
    assert table[3] == "all truths agree"


def test_before_a_deploy_it_is_said_what_will_be_there():
    coming = info(wanted={"env": E2, "env_changes": {"added": ["NEW"], "removed": [], "changed": []}})
    line = f"web1: live blue {A} env 1111 -> deploying {C} env 2222 to green (+NEW) (holds {B} env 1111)"
    assert _group.deploy_lines({"web1": coming}, {"web1": C}) == [line]
    there = info(wanted={"env": E1, "env_changes": {"added": [], "removed": [], "changed": []}})
    assert _group.deploy_lines({"web1": there}, {"web1": A}) == [f"web1: live blue {A} env 1111: it is live already"]


def test_an_environment_that_was_rolled_back_from_is_deployed_again_only_with_consent():
    """The release itself is live, under another one: that one environment is what was bad."""
    back = {"rolled_back": [bad(A, E2)]}
    again = info(wanted={"env": E2, "env_changes": None}, **back)
    assert "env 2222 was rolled back from" in _group.deploy_plan({"a": again}, {"a": A})["failed"][0]["why"]
    assert _group.deploy_plan({"a": again}, {"a": A}, force=True)["ok"]
    assert _group.deploy_plan({"a": info(wanted={"env": E1, "env_changes": None}, **back)}, {"a": A})["ok"]


def test_the_history_tells_environments_apart():
    entry = {"at": "t", "operation": "promote", "result": "ok", "seconds": 2, "who": "ann"}
    entry.update({"from": {"color": "blue", **bad(A, E1)}, "to": {"color": "green", **bad(A, E2)}})
    line = _group.history_lines({"a": info(history=[entry])})[0]
    assert line.endswith(f"live blue {A} env 1111 -> green {A} env 2222")


def test_a_companion_unlocks_with_the_words_of_its_run():
    argv = [
        "/venv/bin/python",
        "/venv/bin/ansible-playbook",
        "-i",
        "hosts",
        "-K",
        "deploy.yml",
        "-e",
        "bluegreen_app=a",
    ]
    words = _controller.unlock_words(argv, ("deploy.yml",), "run-1", "/c/playbooks/unlock.yml")
    assert words[:6] == ["/venv/bin/python", "/venv/bin/ansible-playbook", "-i", "hosts", "-e", "bluegreen_app=a"]
    assert words[6:8] == ["/c/playbooks/unlock.yml", "-e"]
    assert json.loads(words[8]) == {"bluegreen_force": True, "__bluegreen_dead_run": "run-1"}
    # Something else runs the playbook, and nobody knows how to call it.
    assert _controller.unlock_words(["python", "runner.py", "x"], (), "run-1", "/u") is None


def test_a_rollback_that_was_killed_is_finished_and_goes_no_further():
    died = {"operation": "rollback", "result": "died", "from": {"color": "green", "release": B}}
    went = info(
        last_run={**died, "to": {"color": "blue", "release": A}},
        rollback={"release": C, "color": "green", "take": True},
    )
    did_not = info(
        "green", last_run={**died, "to": died["from"]}, rollback={"release": A, "color": "blue", "take": False}
    )
    plan = _group.rollback_plan({"web1": went, "web2": did_not})
    assert plan["ok"], plan
    assert plan["hosts"]["web1"] == {"release": A, "env": E1, "color": "blue", "take": False, "already": True}
    assert plan["hosts"]["web2"]["release"] == A and not plan["hosts"]["web2"]["already"]
    # Killed while it freed its locks: it had ended on some hosts already, and goes no further there either.
    half = info(last_run={**went["last_run"], "result": "ok"}, rollback={"release": C, "color": "green", "take": True})
    plan = _group.rollback_plan({"web1": went, "web2": half})
    assert plan["ok"] and plan["hosts"]["web2"]["already"], plan
    # One that came to its end is not finished again: the next one goes further.
    ended = info(last_run={**went["last_run"], "result": "ok"}, rollback={"release": C, "color": "green", "take": True})
    assert _group.rollback_plan({"web1": ended})["hosts"]["web1"]["release"] == C


def test_nobody_is_sent_to_a_slot_that_is_not_ready():
    assert _group.canary_plan({"web1": info(), "web2": info()}, 10)["ok"]
    empty, sick = info(green=None), info()
    sick["slots"]["green"]["healthy"] = False
    old = info(setup_needed=["/etc/nginx/conf.d/my_app.conf"])
    for bad in (empty, sick, old, info(traffic_unsure=True), info(green=C)):
        judged = _group.canary_plan({"web1": info(), "web2": bad}, 10)
        assert not judged["ok"] and judged["failed"]
    # Taking the share away is always fine, as long as it is known where the traffic goes.
    assert _group.canary_plan({"web1": info(), "web2": sick, "web3": empty}, 0)["ok"]


def test_a_canary_and_maintenance_are_in_the_table():
    text = "\n".join(_group.status_lines({"web1": info(canary=10, maintenance=True)}))
    assert "web1: canary: 10 % of the visitors get green" in text
    assert "web1: closed for maintenance" in text and "all truths agree" not in text


def test_a_first_deploy_can_go_on_to_promote():
    """What was seen when the host was locked is older than its set-up."""
    bare = info(link=None, blue=None, green=None)
    host = {
        "__bluegreen_lock": {"ok": True, "info": bare},
        "__bluegreen_setup": info(blue=None, green=None),
        "__bluegreen_deployed": {"ok": True, "color": "blue", "release": A},
    }
    plan = bluegreen.switch_plan({"a": host}, ["a"], deployed=True)
    assert plan["ok"] and plan["hosts"]["a"]["already"]
    del host["__bluegreen_setup"]
    assert not bluegreen.switch_plan({"a": host}, ["a"], deployed=True)["ok"]


def story(**more):
    found = {"operation": "promote", "gate": {"ok": True, "failed": []}, "later": {"ok": True, "failed": []}}
    return {**found, "lost": [], "advice": "Run promote.yml again.", **more}


def test_the_last_words_of_a_run():
    fine = {"ok": True, "failed": []}
    assert _group.ending(story(), fine, ["table"]) == {"lines": ["table"], "failed": ""}
    assert _group.ending(story(), fine, [], (0.012, 0.008))["lines"] == [
        "12 ms between the first and the last switch, as far as clocks tell (+-8 ms)"
    ]
    bad = {"ok": False, "failed": [{"host": "b", "step": "switched", "why": "no"}]}
    ended = _group.ending(story(gate=bad), bad, [], (0.012, 0.008))
    # A host that failed in the switch is not reported again because its end failed too.
    assert ended["failed"] == "promote failed on b; the reasons are above"
    assert ended["lines"][1:] == ["b: switching: no", "Run promote.yml again."]
    ended = _group.ending(story(), {"ok": False, "failed": [{"host": "c", "step": "ended", "why": "lost"}]}, [])
    assert ended["failed"] and ended["lines"][1] == "c: ending: lost" and "unlock.yml" in ended["lines"][2]
    ended = _group.ending(story(later=bad), fine, [])
    assert " on b;" in ended["failed"] and "nothing was undone" in ended["lines"][2]
    # A run that never came to a verdict did not go well.
    assert _group.ending(story(gate={}), fine, [])["failed"] == "promote failed; the reasons are above"
    assert "run the same deploy again" in _group.ending(story(lost=["d"]), fine, [])["lines"][0]
