# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pathlib
import re

import pytest
import yaml
from ansible_collections.beamops.bluegreen.plugins.plugin_utils import _gate
from hypothesis import given
from hypothesis import strategies as st
from infos import info

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
    st.dictionaries(st.sampled_from("abc"), st.fixed_dictionaries({"lock": RESULTS, "release": RESULTS})),
    st.sets(st.sampled_from("abc")),
)
def test_a_group_is_good_only_if_every_host_proved_every_step(results, hosts):
    judged = _gate.judge(results, sorted(hosts), ["lock", "release"])
    good = [
        host
        for host in hosts
        if all(
            ((results.get(host) or {}).get(step) or {}).get("ok") is True and not results[host][step].get("unreachable")
            for step in ("lock", "release")
        )
    ]
    assert judged["ok"] == (bool(hosts) and set(good) == set(hosts))
    assert {entry["host"] for entry in judged["failures"]} == set(hosts) - set(good)
    assert all(entry["why"] for entry in judged["failures"])


def test_the_first_bad_step_is_named():
    results = {
        "a": {"lock": {"ok": True}, "release": {"unreachable": True, "msg": "timed out\nmore"}},
        "b": {"lock": {"msg": "held by ann"}},
    }
    assert _gate.judge(results, ["a", "b", "c"], ["lock", "release"])["failures"] == [
        {"host": "a", "step": "release", "why": "unreachable: timed out"},
        {"host": "b", "step": "lock", "why": "held by ann"},
        {"host": "c", "step": "lock", "why": "did not reach this step"},
    ]


def test_an_optional_step_may_be_left_out_but_not_fail():
    assert _gate.judge({"a": {"x": {"skipped": True}}}, ["a"], ["x?"])["ok"]
    assert _gate.judge({"a": {}}, ["a"], ["x?"])["ok"]
    assert not _gate.judge({"a": {"x": {"msg": "no"}}}, ["a"], ["x?"])["ok"]
    assert not _gate.judge({"a": {"x": {"unreachable": True}}}, ["a"], ["x?"])["ok"]


def test_set_up_is_good_only_if_nothing_is_missing():
    assert not _gate.judge({"a": {"setup": {"ok": True, "setup_needed": ["/x"]}}}, ["a"], ["setup"])["ok"]
    assert _gate.judge({"a": {"setup": {"ok": True, "setup_needed": []}}}, ["a"], ["setup"])["ok"]


def test_a_host_that_refuses_is_bad():
    judged = _gate.judge(
        {"a": {"lock": {"ok": True, "info": info(conflicts=["blue is live on port 4000"])}}}, ["a"], ["lock"]
    )
    assert judged["failures"] == [{"host": "a", "step": "lock", "why": "blue is live on port 4000"}]


def test_lost_hosts_are_left_out_with_consent_as_long_as_one_is_there():
    results = {"a": {"lock": {"ok": True}}, "b": {"lock": {"unreachable": True, "msg": "gone"}}}
    judged = _gate.judge(results, ["a", "b"], ["lock"], without_lost=True)
    assert judged == {"ok": True, "failures": [], "lost": ["b"]}
    assert not _gate.judge(results, ["a", "b"], ["lock"])["ok"]
    assert not _gate.judge(results, ["b"], ["lock"], without_lost=True)["ok"]


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (None, "did not reach this step"),
        ({}, "did not reach this step"),
        ({"unreachable": True, "msg": "no route\nmore"}, "unreachable: no route"),
        ({"unreachable": True}, "unreachable: no answer"),
        ({"unreachable": True, "msg": "\n"}, "unreachable: no answer"),
        # A host that was lost is lost, whatever it said before.
        ({"unreachable": True, "ok": True, "msg": "gone"}, "unreachable: gone"),
        ({"ok": True}, None),
        ({"ok": True, "skipped": True}, None),
        ({"ok": 1}, "failed without a message"),
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
    assert _gate.why(result) == reason


def test_what_a_group_is_judged_by():
    good, lost = {"ok": True, "info": {"conflicts": []}}, {"unreachable": True, "msg": "no route"}
    results = {"a": {"lock": good, "deployed": {"ok": True}}, "b": {"lock": good, "deployed": {"msg": "sick"}}}
    judged = _gate.judge(results, ["a", "b"], ["lock", "deployed"])
    assert judged == {"ok": False, "failures": [{"host": "b", "step": "deployed", "why": "sick"}], "lost": []}
    assert _gate.judge(results, ["a"], ["lock", "deployed"]) == {"ok": True, "failures": [], "lost": []}
    # The first bad step of a host is the one that is told.
    both = {"a": {"lock": {"msg": "held"}, "deployed": {"msg": "sick"}}}
    assert _gate.judge(both, ["a"], ["lock", "deployed"])["failures"] == [{"host": "a", "step": "lock", "why": "held"}]
    # What may have been left out.
    for left_out in (None, {}, {"skipped": True}):
        assert _gate.judge({"a": {"hooked": left_out}}, ["a"], ["hooked?"])["ok"]
    assert (
        _gate.judge({"a": {"hooked": {**lost, "skipped": True}}}, ["a"], ["hooked?"])["failures"][0]["step"] == "hooked"
    )
    assert not _gate.judge({"a": {"hooked": {"msg": "no"}}}, ["a"], ["hooked?"])["ok"]
    assert not _gate.judge({"a": {}}, ["a"], ["hooked"])["ok"] and not _gate.judge({}, [], ["hooked?"])["ok"]
    # Set-up that left something, and what forbids everything.
    setup = {"a": {"setup": {"ok": True, "setup_needed": ["/x", "/y"]}}}
    assert _gate.judge(setup, ["a"], ["setup"])["failures"][0]["why"] == "set-up is not complete: /x, /y"
    assert _gate.judge({"a": {"setup": {"ok": True, "setup_needed": []}}}, ["a"], ["setup"])["ok"]
    refused = {"a": {"lock": {"ok": True, "info": {"conflicts": ["one", "two"]}}}}
    assert _gate.judge(refused, ["a"], ["lock"])["failures"] == [{"host": "a", "step": "lock", "why": "one; two"}]
    assert _gate.judge({"a": {"lock": {"ok": True, "info": None}}}, ["a"], ["lock"])["ok"]
    # Without those that are lost, as long as one is there.
    half = {"a": {"lock": good}, "b": {"lock": lost}}
    assert _gate.judge(half, ["a", "b"], ["lock"], True) == {"ok": True, "failures": [], "lost": ["b"]}
    assert _gate.judge(half, ["a", "b"], ["lock"])["failures"] == [
        {"host": "b", "step": "lock", "why": "unreachable: no route"}
    ]
    gone = _gate.judge({"a": {"lock": lost}, "b": {"lock": lost}}, ["a", "b"], ["lock"], True)
    assert gone["lost"] == [] and not gone["ok"]
    assert gone["failures"] == [{"host": host, "step": "lock", "why": "unreachable: no route"} for host in "ab"]
    later = {"a": {"lock": good, "deployed": lost}}
    assert _gate.judge(later, ["a"], ["lock", "deployed"], True)["failures"] == [
        {"host": "a", "step": "lock", "why": "lost"}
    ]


# --- the gate of a run -----------------------------------------------------------------------------------------------------

GOOD, BAD = {"ok": True}, {"msg": "no"}


def run_of(*steps):
    """The gate of a run on one host that came through some steps: (names to check, result of each)."""
    gate = _gate.new("run-1")
    for names, result in steps:
        gate = _gate.check(gate, {"a": {name.rstrip("?"): result for name in names}}, ["a"], names)
    return gate


def test_a_gate_that_is_shut_stays_shut_and_keeps_its_reasons():
    gate = run_of((["lock"], GOOD), (["release"], BAD), (["deployed"], GOOD))
    assert not gate["ok"] and gate["failures"] == [{"host": "a", "step": "release", "why": "no"}]
    assert gate["begun"] == ["lock", "release"] and gate["run"] == "run-1"
    assert _gate.planned(gate, {"ok": True, "failures": [], "lost": [], "hosts": {"a": {}}}) == gate


@pytest.mark.parametrize(
    ("steps", "undo"),
    [
        (["lock"], []),
        (["lock", "release", "hooked?"], []),
        (["lock", "release", "migrated"], []),
        (["lock", "deployed"], ["slots"]),
        (["lock", "deployed", "hooked?"], ["slots"]),
        (["lock", "deployed", "listed"], ["slots"]),
        (["lock", "smoked"], []),
        (["lock", "on_idle_sent?"], ["switch"]),
        (["lock", "switched"], ["switch"]),
        (["lock", "deployed", "switched"], ["slots", "switch"]),
        (["lock", "traffic_set"], ["traffic"]),
        (["lock", "stopped"], []),
    ],
)
def test_what_was_begun_is_undone(steps, undo):
    """The last of the steps fails: whatever the run has begun by then has to be undone, on every host."""
    *good, last = steps
    assert run_of(*(([step], GOOD) for step in steps))["undo"] == []
    assert run_of(*(([step], GOOD) for step in good), ([last], BAD))["undo"] == undo


def test_a_step_that_one_host_does_for_the_group_is_asked_of_that_host():
    here, skipped = {"migrated": GOOD}, {"migrated": {"skipped": True}}
    assert _gate.judge({"a": here, "b": skipped}, ["a", "b"], ["migrated"])["ok"]
    assert _gate.judge({"a": here}, ["a", "b"], ["migrated"])["ok"]
    assert not _gate.judge({"a": skipped, "b": here}, ["a", "b"], ["migrated"])["ok"]
    assert not _gate.judge({"b": skipped}, ["a", "b"], ["migrated"])["ok"]
    lost = {"migrated": {"unreachable": True}}
    assert not _gate.judge({"a": here, "b": lost}, ["a", "b"], ["migrated"])["ok"]
    # With consent to go on without lost hosts, nobody knows all the same whether the database is migrated.
    assert not _gate.judge({"a": lost, "b": skipped}, ["a", "b"], ["migrated"], True)["ok"]


def test_hosts_that_are_lost_are_remembered_through_all_steps():
    gone = {"unreachable": True, "msg": "gone"}
    gate = _gate.check(
        _gate.new("r"), {"a": {"lock": GOOD}, "b": {"lock": gone}, "c": {"lock": GOOD}}, list("abc"), ["lock"], True
    )
    assert gate["ok"] and gate["lost"] == ["b"]
    gate = _gate.check(gate, {"a": {"release": GOOD}, "c": {"release": gone}}, ["a", "c"], ["release"], True)
    assert gate["ok"] and gate["lost"] == ["b", "c"]


def test_what_a_deploy_has_put_into_the_slots_is_kept_once_its_promote_is_planned():
    plan = {"ok": True, "failures": [], "lost": [], "hosts": {"a": {"color": "green"}}}
    deployed = {"a": {"ok": True, "color": "green"}}
    gate = _gate.planned(run_of((["lock"], GOOD)), plan)
    assert gate["hosts"] == plan["hosts"] and not gate["kept"]
    shut = _gate.check(gate, {"a": {"deployed": BAD}}, ["a"], ["deployed"])
    assert _gate.summary("deploy", shut, {"failures": []}, deployed)["confirm"] == {}
    gate = _gate.check(gate, {"a": {"deployed": GOOD}}, ["a"], ["deployed"])
    assert _gate.summary("deploy", gate, {"failures": []}, deployed) == {
        "result": "ok",
        "confirm": {"a": "green"},
        "prune": True,
    }
    gate = _gate.check(_gate.planned(gate, plan), {"a": {"switched": BAD}}, ["a"], ["switched"])
    assert gate["kept"] and gate["undo"] == ["slots", "switch"]
    assert _gate.summary("deploy", gate, {"failures": []}, deployed) == {
        "result": "failed",
        "confirm": {"a": "green"},
        "prune": False,
    }
    # Also where the promote could not even be planned.
    refused = _gate.planned(run_of((["deployed"], GOOD)), {**plan, "ok": False, "failures": [{}]})
    assert refused["kept"] and not refused["ok"]


def test_how_a_run_went():
    gate, fine, later = _gate.new("r"), {"failures": []}, {"failures": [{"host": "a"}]}
    for operation in ("deploy", "promote", "rollback"):
        assert _gate.summary(operation, gate, fine, {}) == {"result": "ok", "confirm": {}, "prune": True}
    assert not _gate.summary("canary", gate, fine, {})["prune"]
    assert _gate.summary("promote", gate, later, {})["result"] == "failed"
    assert _gate.summary("promote", {**gate, "ok": False}, fine, {})["result"] == "failed"
    # What was deployed in an earlier play of the same ansible-playbook is not of this run.
    assert _gate.summary("setup", gate, fine, {"a": {"ok": True, "color": "blue"}})["confirm"] == {}
    begun = {**gate, "begun": ["deployed"]}
    assert _gate.summary("deploy", begun, fine, {"a": BAD, "b": {"ok": True, "color": "blue"}})["confirm"] == {
        "b": "blue"
    }


def test_every_step_is_checked_where_it_is_registered():
    """A file of tasks that checks a step registers it; every step is checked somewhere."""
    top, checked = pathlib.Path(__file__).parents[2], set()
    for path in [*top.glob("roles/*/tasks/*.yml"), *top.glob("playbooks/**/*.yml")]:
        text = path.read_text()
        steps = {
            step for found in re.findall(r"__bluegreen_steps: \[([^\]]*)\]", text) for step in re.findall(r"\w+", found)
        }
        assert steps <= set(_gate.STEPS), path
        # With what the file includes.
        text += "".join((path.parent / name).read_text() for name in re.findall(r"include_tasks: (\w+\.yml)", text))
        for step in steps:
            assert f"__bluegreen_{step}:" in text or f"register: __bluegreen_{step}\n" in text, f"{path}: {step}"
        checked |= steps
    after = {step.rstrip("?") for step in (*_gate.AFTER_SWITCH, *_gate.FINISH)}
    assert checked | after | {"plan"} == set(_gate.STEPS)


def test_no_gate_is_skipped_by_a_condition():
    """Ansible registers a skipped task too, and the gate would be gone."""
    top = pathlib.Path(__file__).parents[2]

    def tasks(found, when=()):
        """Each task, with the conditions of the blocks around it, which Ansible hands down to an import too."""
        for task in found:
            conditions = [*when, task["when"]] if "when" in task else list(when)
            yield task, conditions
            for part in ("block", "rescue", "always", "tasks"):
                yield from tasks(task.get(part) or [], conditions)

    count = 0
    for path in [*top.glob("roles/*/tasks/*.yml"), *top.glob("playbooks/**/*.yml")]:
        for task, conditions in tasks(yaml.safe_load(path.read_text())):
            if (
                task.get("register") == "__bluegreen_gate"
                or str(task.get("ansible.builtin.import_tasks")) == "gate.yml"
            ):
                assert not conditions, f"{path}: {task['name']}"
                count += 1
    assert count > 12
