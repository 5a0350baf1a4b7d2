# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import time

import pytest
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


# --- to the letter ---------------------------------------------------------------------------------------------------------


def without(answer, **more):
    """A host as it tells of itself, with something else in one of its slots."""
    found = info()
    for color, slot in more.items():
        found["slots"][color].update(slot)
    found.update(answer)
    return found


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (None, "did not come this far"),
        ({}, "did not come this far"),
        ({"unreachable": True, "msg": "no route\nmore"}, "unreachable: no route"),
        ({"unreachable": True}, "unreachable: no answer"),
        ({"unreachable": True, "msg": "\n"}, "unreachable: no answer"),
        # A host that was lost is lost, whatever it said before.
        ({"unreachable": True, "ok": True, "msg": "gone"}, "unreachable: gone"),
        ({"ok": True}, None),
        ({"ok": True, "skipped": True}, None),
        ({"ok": 1}, "failed without a word"),
        ({"skipped": True}, "was skipped"),
        ({"msg": " because "}, "because"),
        ({"msg": "MODULE FAILURE", "module_stderr": "a\nValueError: x\n"}, "MODULE FAILURE: ValueError: x"),
        ({"msg": "Module failure: see", "exception": "T\nKeyError: y"}, "Module failure: see: KeyError: y"),
        ({"msg": "MODULE FAILURE", "module_stderr": "first", "exception": "second"}, "MODULE FAILURE: first"),
        # It said itself what is wrong.
        ({"msg": "MODULE FAILURE", "module_stderr": "x", "ok": False}, "MODULE FAILURE"),
        ({"msg": "refused", "module_stderr": "x"}, "refused"),
        ({"msg": "MODULE FAILURE"}, "MODULE FAILURE"),
    ],
)
def test_why_a_step_is_not_good(result, reason):
    assert _group.why(result) == reason


def test_what_a_group_is_judged_by():
    good, lost = {"ok": True, "info": {"refusals": []}}, {"unreachable": True, "msg": "no route"}
    results = {"a": {"lock": good, "deployed": {"ok": True}}, "b": {"lock": good, "deployed": {"msg": "sick"}}}
    judged = _group.verdict(results, ["a", "b"], ["lock", "deployed"])
    assert judged == {"ok": False, "failed": [{"host": "b", "step": "deployed", "why": "sick"}], "lost": []}
    assert _group.verdict(results, ["a"], ["lock", "deployed"]) == {"ok": True, "failed": [], "lost": []}
    # The first bad step of a host is the one that is told.
    both = {"a": {"lock": {"msg": "held"}, "deployed": {"msg": "sick"}}}
    assert _group.verdict(both, ["a"], ["lock", "deployed"])["failed"] == [{"host": "a", "step": "lock", "why": "held"}]
    # What may have been left out.
    for left_out in (None, {}, {"skipped": True}):
        assert _group.verdict({"a": {"hooked": left_out}}, ["a"], ["hooked?"])["ok"]
    assert (
        _group.verdict({"a": {"hooked": {**lost, "skipped": True}}}, ["a"], ["hooked?"])["failed"][0]["step"]
        == "hooked"
    )
    assert not _group.verdict({"a": {"hooked": {"msg": "no"}}}, ["a"], ["hooked?"])["ok"]
    assert not _group.verdict({"a": {}}, ["a"], ["hooked"])["ok"] and not _group.verdict({}, [], ["hooked?"])["ok"]
    # Set-up that left something, and what forbids everything.
    setup = {"a": {"setup": {"ok": True, "setup_needed": ["/x", "/y"]}}}
    assert _group.verdict(setup, ["a"], ["setup"])["failed"][0]["why"] == "set-up is not complete: /x, /y"
    assert _group.verdict({"a": {"setup": {"ok": True, "setup_needed": []}}}, ["a"], ["setup"])["ok"]
    refused = {"a": {"lock": {"ok": True, "info": {"refusals": ["one", "two"]}}}}
    assert _group.verdict(refused, ["a"], ["lock"])["failed"] == [{"host": "a", "step": "lock", "why": "one; two"}]
    assert _group.verdict({"a": {"lock": {"ok": True, "info": None}}}, ["a"], ["lock"])["ok"]
    # Without those that are lost, as long as one is there.
    half = {"a": {"lock": good}, "b": {"lock": lost}}
    assert _group.verdict(half, ["a", "b"], ["lock"], True) == {"ok": True, "failed": [], "lost": ["b"]}
    assert _group.verdict(half, ["a", "b"], ["lock"])["failed"] == [
        {"host": "b", "step": "lock", "why": "unreachable: no route"}
    ]
    gone = _group.verdict({"a": {"lock": lost}, "b": {"lock": lost}}, ["a", "b"], ["lock"], True)
    assert gone["lost"] == [] and not gone["ok"]
    assert gone["failed"] == [{"host": host, "step": "lock", "why": "unreachable: no route"} for host in "ab"]
    later = {"a": {"lock": good, "deployed": lost}}
    assert _group.verdict(later, ["a"], ["lock", "deployed"], True)["failed"] == [
        {"host": "a", "step": "lock", "why": "lost"}
    ]


def refusals(plan):
    assert not plan["ok"] and plan["lost"] == []
    assert {entry["step"] for entry in plan["failed"]} == {"plan"}
    return {entry["host"]: entry["why"] for entry in plan["failed"]}


def test_why_a_deploy_may_not_go_on():
    unsure = info(traffic_unsure=True, deployment_id="green")
    said = "it is not sure which slot is live: /deployment_id says green, the live symlink says blue; run setup.yml"
    assert refusals(_group.deploy_plan({"a": unsure, "b": info()}, {"a": C, "b": C})) == {"a": said}
    back = info(rolled_back=[bad(C)])
    why = f"{C} was rolled back from; to deploy it again: -e bluegreen_force=true"
    assert refusals(_group.deploy_plan({"a": back}, {"a": C})) == {"a": why}
    # Live by now, it is not bad as such.
    live = info(rolled_back=[bad(A)])
    fine = {"ok": True, "failed": [], "lost": [], "hosts": {"a": {"color": "green"}}}
    assert _group.deploy_plan({"a": live}, {"a": A}) == _group.deploy_plan({"a": info()}, {"a": C}) == fine
    assert _group.deploy_plan({"a": info()})["ok"] and _group.deploy_plan({"a": info()}, {"b": C})["ok"]


def test_why_a_switch_may_not_go_on():
    not_set_up = "is not set up; run deploy.yml"
    assert refusals(_group.switch_plan({"a": info(link=None)})) == {"a": not_set_up}
    lost = info(traffic_unsure=True, link=None)
    lost["disagreements"] = []
    assert refusals(_group.switch_plan({"a": lost})) == {"a": "nobody knows which slot is live"}
    two = info(traffic_unsure=True)
    two["disagreements"] = ["one", "two"]
    assert refusals(_group.switch_plan({"a": two})) == {"a": "one; two"}
    nothing = "green holds no release, so there is nothing to promote; run deploy.yml"
    assert refusals(_group.switch_plan({"a": info(green=None)}, "green")) == {"a": nothing}
    assert refusals(_group.switch_plan({"a": info(blue=None, green=None)})) == {"a": nothing}
    none = "no slot holds no release, so there is nothing to promote; run deploy.yml"
    assert refusals(_group.switch_plan({"a": info()}, None, {})) == {"a": none}
    back = f"green holds {B} env 1111, which was rolled back from; to promote it all the same: -e color=green"
    assert refusals(_group.switch_plan({"a": info(rolled_back=[bad(B)])})) == {"a": back}
    cut = {"pending": {"release": B, "at": "t9"}}
    said = f"green ({B}) is the rest of a deploy that was cut short (t9); run deploy.yml again"
    assert refusals(_group.switch_plan({"a": without({}, green=cut)}, "green")) == {"a": said}
    sick = {"healthy": False, "health": "503"}
    said = f"green ({B}) is not healthy: 503 on port 5000; deploy.yml with the same artifact starts it again"
    assert refusals(_group.switch_plan({"a": without({}, green=sick)}, "green")) == {"a": said}
    # What was deployed in this run was proven there; and what is live is where it should be, however it is.
    plan = _group.switch_plan({"a": without({}, green=sick)}, None, {"a": {"color": "green", "release": C, "env": E2}})
    assert plan["hosts"] == {"a": {"color": "green", "release": C, "env": E2, "already": False}}
    plan = _group.switch_plan({"a": without({}, blue=sick)}, "blue")
    assert plan["hosts"] == {"a": {"color": "blue", "release": A, "env": E1, "already": True}}
    others = {"a": info(), "b": info(green=C)}
    why = {
        "a": f"would go to {B}, others to another release; deploy to all of them first",
        "b": f"would go to {C}, others to another release; deploy to all of them first",
    }
    assert refusals(_group.switch_plan(others)) == why
    assert _group.switch_plan({"a": info()}) == {
        "ok": True,
        "failed": [],
        "lost": [],
        "hosts": {"a": {"color": "green", "release": B, "env": E1, "already": False}},
    }


def test_why_nobody_may_be_sent_to_the_idle_slot():
    def why(found, percent=10):
        return refusals(_group.canary_plan({"a": found}, percent))["a"]

    assert why(info(link=None)) == "is not set up; run deploy.yml"
    for needed in ("/etc/nginx/conf.d/my_app.conf", "/opt/my_app/site.sha256"):
        assert why(info(setup_needed=[needed])) == "its site is not the one that knows of canaries; run setup.yml"
    assert _group.canary_plan({"a": info(setup_needed=["/opt/my_app/bin/my_app"])}, 10)["ok"]
    assert why(info(green=None)) == "green holds no release, so nobody can be sent there; run deploy.yml"
    sick = without({}, green={"healthy": False, "health": "503"})
    assert (
        why(sick) == f"green ({B}) is not healthy: 503 on port 5000; deploy.yml with the same artifact starts it again"
    )
    # Taking it away is always fine, and has no release that hosts could differ in.
    fine = {"ok": True, "failed": [], "lost": []}
    others = {"a": sick, "b": info(green=None), "c": info(setup_needed=["/x.conf"]), "d": info(green=C)}
    assert _group.canary_plan(others, 0) == fine
    assert why(info(link=None), 0) == "is not set up; run deploy.yml"
    assert _group.canary_plan({"a": info()}, 10) == {**fine, "hosts": {"a": {"release": B}}}


def test_why_a_rollback_may_not_go_on():
    goal = {"release": C, "env": E2, "color": "green", "take": True}
    assert refusals(_group.rollback_plan({"a": info(link=None)})) == {"a": "is not set up; run deploy.yml"}
    assert refusals(_group.rollback_plan({"a": info()})) == {"a": "nothing"}
    known = {"migrations": {A: ["1", "2", "3"], C: ["1"]}, "rollback": goal}
    said = (
        f"{C} does not know the migrations 2, 3, which have run since; undo them, or, if it can live with them: "
        "-e bluegreen_force=true"
    )
    assert refusals(_group.rollback_plan({"a": info(**known)})) == {"a": said}
    assert _group.rollback_plan({"a": info(**known)}, True)["ok"]
    for silent in ({A: ["1"]}, {C: ["1"]}, {}):
        assert _group.rollback_plan({"a": info(migrations=silent, rollback=goal)})["ok"]
    plan = _group.rollback_plan({"a": info(rollback=goal)})
    assert plan == {"ok": True, "failed": [], "lost": [], "hosts": {"a": {**goal, "already": False}}}


@pytest.mark.parametrize(
    "other",
    [
        {"operation": "promote"},
        {"result": "failed"},
        {"to": {"color": "blue", "release": B}},
        {"to": {"color": "green", "release": A}},
        {"to": {"color": "blue", "release": A, "env": E2}},
        {"to": None},
        {"from": {"color": "blue", "release": A, "env": E1}},
    ],
)
def test_a_run_that_was_no_rollback_to_what_is_live_is_not_finished(other):
    died = {"operation": "rollback", "result": "died", "run": "r", "from": {"color": "green", "release": B}}
    died["to"] = {"color": "blue", "release": A, "env": E1}
    goal = {"release": C, "env": E1, "color": "green", "take": True}
    there = _group.rollback_plan({"a": info(last_run=died, rollback=goal)})["hosts"]["a"]
    assert there == {"release": A, "env": E1, "color": "blue", "take": False, "already": True}
    plan = _group.rollback_plan({"a": info(last_run={**died, **other}, rollback=goal)})
    assert plan["hosts"]["a"] == {**goal, "already": False}


STEPS = {
    "lock": "locking",
    "trouble": "setting up",
    "setup": "setting up",
    "release": "installing",
    "predicted": "deploying",
    "deployed": "deploying",
    "migrated": "migrating",
    "listed": "asking for its migrations",
    "ended": "ending",
    "smoked": "checking",
    "hooked": "hook",
    "told_idle": "bluegreen_on_idle",
    "told_live": "bluegreen_on_live",
    "drained": "draining",
    "shared": "changing who gets which slot",
    "switched": "switching",
    "stopped": "stopping",
    "another": "another",
}


def test_what_a_person_reads_when_a_run_failed():
    for step, word in STEPS.items():
        failed = [{"host": "a", "step": step, "why": "no\nmore"}]
        assert _group.failure_lines("deploy", failed, "Repair.") == [
            "deploy failed on 1 host:",
            f"a: {word}: no",
            "  more",
            "Repair.",
        ]
    plan = [{"host": host, "step": "plan", "why": "no"} for host in "ab"]
    assert _group.failure_lines("promote", plan, "One\ntwo") == [
        "promote failed on 2 hosts:",
        "a: no",
        "b: no",
        "One",
        "  two",
    ]
    assert _group.failure_lines("promote", [], "") == ["promote failed on 0 hosts:", ""]


def told_of(**more):
    return {"operation": "deploy", "gate": {"ok": True}, "later": {}, "lost": [], "advice": "Repair it.", **more}


def test_the_last_words_of_a_run_to_the_letter():
    failed = [{"host": "a", "step": "lock", "why": "no"}]
    bad_ = {"ok": False, "failed": failed}
    assert _group.ending(told_of(), {}, ["table"]) == {"lines": ["table"], "failed": ""}
    said = _group.ending(told_of(lost=["b", "c"]), {}, ["table"], (0.0123, 0.005), ["1", "2"])["lines"]
    assert said == [
        "table",
        "2 migrations ran: 1, 2",
        "12 ms between the first and the last switch, as far as clocks tell (+-5 ms)",
        "lost, and not changed: b, c; when they are back, run the same deploy again, with bluegreen_promote=true",
    ]
    ended = _group.ending(told_of(gate=bad_), bad_, ["table"], (0.01, 0.001))
    assert ended["lines"] == ["table", "deploy failed on 1 host:", "a: locking: no", "Repair it."]
    assert ended["failed"] == "deploy failed on a; the reasons are above"
    behind = _group.ending(told_of(later=bad_), {}, [])
    assert behind["lines"][-1].startswith("The traffic is on the new slot and stays there; nothing was undone.")
    not_ended = _group.ending(told_of(), bad_, [])
    assert not_ended["lines"][-1].startswith("What came before that went well on every host, and stays.")
    assert not_ended["failed"] == behind["failed"] == "deploy failed on a; the reasons are above"
    assert _group.ending(told_of(gate={}), {}, []) == {"lines": [], "failed": "deploy failed; the reasons are above"}
    twice = _group.ending(told_of(gate={"ok": True, "failed": failed}, later=bad_), {}, [])
    assert twice["failed"] == "deploy failed on a; the reasons are above"


def test_what_is_about_to_be_deployed():
    empty = info(blue=None, green=None, target="blue")
    assert _group.deploy_lines({"a": empty}, {}) == ["a: live blue nothing -> deploying the artifact to blue"]
    assert _group.deploy_lines({"a": info()}, {"a": B}) == [f"a: live blue {A} env 1111 -> deploying {B} to green"]
    again = info(wanted={"env": E1, "env_changes": None}, target="blue")
    assert _group.deploy_lines({"a": again}, {"a": A}) == [
        f"a: live blue {A} env 1111 -> deploying {A} env 1111 to blue"
    ]


def test_what_is_about_to_be_switched():
    plan = _group.switch_plan({"a": info(blue=None)}, "green")
    assert _group.switch_lines({"a": info(blue=None)}, plan) == [f"a: live blue nothing -> green {B} env 1111"]
    plan = _group.switch_plan({"a": info()}, "blue")
    assert _group.switch_lines({"a": info()}, plan) == [f"a: blue {A} env 1111 is live already"]
    # Another environment goes into the slot only now: what is there says nothing of it.
    there = without({}, green={"env_changes": {"added": ["X"], "removed": [], "changed": []}})
    plan = _group.switch_plan({"a": there}, None, {"a": {"color": "green", "release": B, "env": E2}})
    assert _group.switch_lines({"a": there}, plan) == [f"a: live blue {A} env 1111 -> green {B} env 2222"]


def test_what_a_migration_is_said_to_have_done():
    def says(**result):
        return _group.migrate_lines({"a": {"output": [], "migrated": None, "changed": True, **result}}, "M.migrate()")

    assert says(release=A) == [f"a: would migrate with {A}: M.migrate()"]
    assert says(output=["x"], release=A) == ["  x", "a: M.migrate() has run; it does not tell which migrations did"]
    assert says(changed=False) == ["a: M.migrate() has run; it does not tell which migrations did"]
    assert says(migrated=[]) == ["a: no migration was pending"]
    assert says(migrated=["1"], output=["x"]) == ["  x", "a: 1 migration ran: 1"]
    assert says(migrated=["1", "2"]) == ["a: 2 migrations ran: 1, 2"]


def test_the_table_to_the_letter():
    down = {"running": False, "healthy": False}
    sick = without({}, blue={"healthy": False, "health": "503", "process_release": None}, green=down)
    sick["disagreements"] = _slots.disagreements(sick)
    fresh = info(blue=None, green=None, link=None, deployment_id=None)
    fresh["facts"]["live"] = None
    lines = _group.status_lines({"web1": sick, "b": {"skipped": True}, "c": fresh})
    assert lines == [
        "HOST  FACTS  LINK  /deployment_id  PROCESS          BLUE                                    GREEN",
        f"web1  blue   blue  blue            unknown release  {A} env 1111 live unhealthy  {B} env 1111 idle stopped",
        "b     ?      ?     ?               ?                ?                                       ?",
        "c     -      -     -               -                empty                                   empty",
        "web1: blue: runs but is not healthy (503)",
        "b: not asked",
        "c: is not set up; run deploy.yml",
    ]
    back = without({"live": "green", "idle": "blue"}, green={"rolled_back": True}, blue={"rolled_back": True})
    cells = _group.status_lines({"a": back})[1]
    assert f"{A} env 1111 idle rolled-back healthy" in cells and f"{B} env 1111 live healthy" in cells
    # The process is that of the live slot.
    assert _group.status_lines({"a": info()})[1].split()[4] == A


def test_what_there_is_to_say_of_a_host():
    assert _group.remarks({"msg": "no\nmore"}) == ["no"] and _group.remarks({"skipped": True}) == ["not asked"]
    assert _group.remarks(info()) == []
    locked = {"holder": "ann@laptop", "operation": "deploy", "since": "t1"}
    found = info(canary=10, maintenance=True, lock=locked, not_installed=["not there yet"])
    assert _group.remarks(found) == [
        "not there yet",
        "canary: 10 % of the visitors get green",
        "closed for maintenance; maintenance.yml -e state=off opens it",
        "locked by ann@laptop for deploy since t1",
    ]


def test_a_group_of_more_than_one_release():
    assert _group.drift({"a": info(), "b": info()}) == [] and _group.drift({"a": info(), "b": {"msg": "no"}}) == []
    assert _group.drift({"a": info(), "b": info(blue=None)}) == []
    several = {"a": info(), "b": info(blue=C), "c": info()}
    assert _group.drift(several) == [
        f"the group serves 2 releases ({A}: a, c; {C}: b); deploy.yml -e bluegreen_promote=true makes it one"
    ]
    assert (
        _group.in_doubt(several) and _group.in_doubt({"a": info(link=None)}) and _group.in_doubt({"a": {"msg": "no"}})
    )
    assert _group.status_lines(several)[-1] == _group.drift(several)[0]


def test_which_commands_can_follow():
    assert _group.next_lines({}) == [] and _group.next_lines({"a": {"msg": "no"}}) == []
    both = {"a": info(), "b": info("green", blue=B, green=A)}
    both["b"]["slots"]["blue"]["promoted_at"] = None
    assert _group.next_lines(both) == [f"to make {B} env 1111 live: promote.yml"]
    others = {"a": info(), "b": info(green=C)}
    assert _group.next_lines(others) == [f"to make {B} and {C} live: promote.yml -e color=green"]
    # Not while one of them has nothing that waits, or is not ready.
    assert _group.next_lines({"a": info(), "b": info(green=None)}) == []
    assert _group.next_lines({"a": without({}, green={"healthy": False})}) == []
    assert _group.next_lines({"a": info(rolled_back=[bad(B)])}) == []


def test_the_history_to_the_letter():
    first = {"at": "t1", "operation": "deploy", "result": "failed", "seconds": 3, "who": "ann", "why": "no room"}
    first.update({"from": None, "to": {"color": "blue", "release": None}})
    second = {"at": "t2", "operation": "promote", "result": "ok", "seconds": None, "who": "bob"}
    second["from"] = second["to"] = {"color": "blue", "release": A, "env": E1}
    infos = {"b": info(history=[second]), "a": info(history=[first]), "c": info()}
    assert _group.history_lines(infos) == [
        "t1  a  deploy  failed  3 s  ann  live - nothing -> blue nothing  (no room)",
        f"t2  b  promote  ok  None s  bob  live blue {A} env 1111",
    ]


def test_every_host_has_its_say():
    """One that cannot, or need not, does not end what is to be said of the others."""
    late = {"a": {"hooked": None, "deployed": {"msg": "sick"}}}
    assert _group.verdict(late, ["a"], ["hooked?", "deployed"])["failed"][0]["step"] == "deployed"
    sick = {"healthy": False, "health": "503"}
    for first in (info(link=None), info(green=None), without({}, green=sick)):
        assert set(refusals(_group.switch_plan({"a": first, "b": info(green=None)}, "green"))) == {"a", "b"}
    back = info(rolled_back=[bad(B)])
    assert set(refusals(_group.switch_plan({"a": back, "b": back}))) == {"a", "b"}
    # One that has the other slot waiting still goes there, though one beside it was rolled back from.
    plan = _group.switch_plan({"a": info("green", blue=B, green=B, rolled_back=[bad(B)]), "b": info(blue=A)})
    assert plan["hosts"]["b"]["color"] == "green"
    again = info(wanted={"env": E1, "env_changes": None})
    assert len(_group.deploy_lines({"a": again, "b": info()}, {"a": A, "b": A})) == 2
    # Two entries of one second on one host stay in their order.
    entry = {"at": "t", "operation": "stop", "result": "ok", "seconds": 1, "who": "ann", "from": None, "to": None}
    both = _group.history_lines({"a": info(history=[entry, {**entry, "operation": "deploy"}])})
    assert [line.split()[2] for line in both] == ["stop", "deploy"]
    ran = {"output": ["x"], "migrated": ["1"], "changed": True}
    assert _group.migrate_lines({"a": ran, "b": ran}, "m") == [
        "  x",
        "a: 1 migration ran: 1",
        "  x",
        "b: 1 migration ran: 1",
    ]
    bad_ = {"ok": False, "failed": [{"host": "b", "step": "told_live", "why": "no"}]}
    both = _group.ending(
        told_of(gate={"ok": True, "failed": [{"host": "a", "step": "lock", "why": "no"}]}, later=bad_), {}, []
    )
    assert both["failed"] == "deploy failed on a, b; the reasons are above"
