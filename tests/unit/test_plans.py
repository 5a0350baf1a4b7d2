# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.beamops.bluegreen.plugins.plugin_utils import _plans
from hypothesis import given
from hypothesis import strategies as st
from infos import E1, E2, A, B, C, bad, info, told, was_live, without


def test_promote_goes_to_the_idle_slot_or_to_the_color_that_was_named():
    infos = {"a": info(), "b": info()}
    assert {entry["color"] for entry in _plans.switch_plan(infos)["hosts"].values()} == {"green"}
    plan = _plans.switch_plan(infos, "blue")
    assert plan["ok"] and all(entry["already"] for entry in plan["hosts"].values())


def test_a_group_never_ends_up_on_two_releases():
    plan = _plans.switch_plan({"a": info(), "b": info(green=C)})
    assert not plan["ok"] and len(plan["failures"]) == 2
    # Different colors are fine as long as the release is one.
    plan = _plans.switch_plan({"a": info(), "b": info(live="green", blue=B, green=A)})
    assert plan["ok"] and {host: entry["color"] for host, entry in plan["hosts"].items()} == {"a": "green", "b": "blue"}


def test_promote_refuses_an_empty_slot_and_what_was_rolled_back_from():
    assert "holds no release" in _plans.switch_plan({"a": info(green=None)}, "green")["failures"][0]["why"]
    assert "holds no release" in _plans.switch_plan({"a": info(blue=None, green=None)})["failures"][0]["why"]
    back = was_live(info(rolled_back=[bad(B)]), "green")
    assert "rolled back from" in _plans.switch_plan({"a": back})["failures"][0]["why"]
    assert _plans.switch_plan({"a": back}, "green")["ok"]


def test_nobody_switches_before_all_are_ready():
    ill = info()
    ill["slots"]["green"].update(healthy=False, health="503")
    plan = _plans.switch_plan({"a": info(), "b": ill})
    assert not plan["ok"] and plan["failures"][0]["host"] == "b" and "503 on port 5000" in plan["failures"][0]["why"]
    rest = info()
    rest["slots"]["green"]["pending"] = {"release": B, "at": "noon", "run": "x", "former": None}
    assert "interrupted deploy (noon)" in _plans.switch_plan({"a": rest}, "green")["failures"][0]["why"]


def test_nothing_is_done_while_it_is_unsure_what_is_live():
    unsure = {"a": info(deployment_id="green", live_unknown=True)}
    assert "/deployment_id says green, the live symlink says blue" in _plans.deploy_plan(unsure)["failures"][0]["why"]
    assert not _plans.switch_plan(unsure)["ok"]


def test_a_deploy_that_goes_on_to_promote_goes_where_it_deployed_to():
    # The same release with another env in the idle slot: the color counts, not the name of the release.
    infos = {"a": info(green=A), "b": info(live="green", green=A)}
    deployed = {"a": {"color": "green", "release": A}, "b": {"color": "green", "release": A, "already_live": True}}
    plan = _plans.switch_plan(infos, deployed=deployed)
    assert plan["ok"] and plan["hosts"]["b"]["already"] and not plan["hosts"]["a"]["already"]
    assert not _plans.switch_plan(infos, deployed={"a": deployed["a"]})["ok"]


def test_rollback_plan():
    goal = {"release": A, "color": "blue", "take": True}
    plan = _plans.rollback_plan({"a": info(live="green", rollback=goal), "b": info(live="green", rollback=goal)})
    assert plan["ok"] and plan["hosts"]["a"]["take"]
    mixed = _plans.rollback_plan({"a": info(rollback=goal), "b": info(rollback={**goal, "release": C})})
    assert not mixed["ok"]
    assert not _plans.rollback_plan({"a": info(rollback=goal), "b": info()})["ok"]


def test_rollback_across_migrations_needs_consent():
    goal = {"release": A, "color": "blue", "take": False}
    known = {A: told("1", "2"), B: told("1", "2", "3")}
    found = info(live="green", rollback=goal, migrations=known)
    refused = _plans.rollback_plan({"a": found})
    assert not refused["ok"] and f"migrations have run since {A} was live: 3." in refused["failures"][0]["why"]
    assert _plans.rollback_plan({"a": found}, force=True)["ok"]
    # Where the app did not tell, nothing is guessed.
    assert _plans.rollback_plan({"a": info(live="green", rollback=goal, migrations={B: told("1")})})["ok"]
    assert _plans.rollback_plan({"a": info(live="green", rollback=goal, migrations={A: told("1"), B: told("1")})})["ok"]


def test_what_was_rolled_back_from_is_deployed_again_only_with_consent():
    found = {"a": info(rolled_back=[bad(C)])}
    assert not _plans.deploy_plan(found, {"a": C})["ok"]
    assert _plans.deploy_plan(found, {"a": C}, force=True)["ok"]
    assert _plans.deploy_plan(found, {"a": A})["ok"]


def test_an_environment_that_was_rolled_back_from_is_deployed_again_only_with_consent():
    """The release itself is live, under another one: that one environment is what was bad."""
    back = {"rolled_back": [bad(A, E2)]}
    again = info(wanted={"env": E2, "env_changes": None}, **back)
    assert "env 2222 was rolled back from" in _plans.deploy_plan({"a": again}, {"a": A})["failures"][0]["why"]
    assert _plans.deploy_plan({"a": again}, {"a": A}, force=True)["ok"]
    assert _plans.deploy_plan({"a": info(wanted={"env": E1, "env_changes": None}, **back)}, {"a": A})["ok"]


def test_a_rollback_that_was_killed_is_finished_and_goes_no_further():
    died = {"operation": "rollback", "result": "died", "from": {"color": "green", "release": B}}
    went = info(
        last_run={**died, "to": {"color": "blue", "release": A}},
        rollback={"release": C, "color": "green", "take": True},
    )
    did_not = info(
        "green", last_run={**died, "to": died["from"]}, rollback={"release": A, "color": "blue", "take": False}
    )
    plan = _plans.rollback_plan({"web1": went, "web2": did_not})
    assert plan["ok"], plan
    assert plan["hosts"]["web1"] == {
        "release": A,
        "env": E1,
        "color": "blue",
        "take": False,
        "already": True,
        "runs": True,
    }
    assert plan["hosts"]["web2"]["release"] == A and not plan["hosts"]["web2"]["already"]
    # Killed while it freed its locks: it had ended on some hosts already, and goes no further there either.
    half = info(last_run={**went["last_run"], "result": "ok"}, rollback={"release": C, "color": "green", "take": True})
    plan = _plans.rollback_plan({"web1": went, "web2": half})
    assert plan["ok"] and plan["hosts"]["web2"]["already"], plan
    # One that came to its end is not finished again: the next one goes further.
    ended = info(last_run={**went["last_run"], "result": "ok"}, rollback={"release": C, "color": "green", "take": True})
    assert _plans.rollback_plan({"web1": ended})["hosts"]["web1"]["release"] == C


def test_nobody_is_sent_to_a_slot_that_is_not_ready():
    assert _plans.canary_plan({"web1": info(), "web2": info()}, 10)["ok"]
    empty, sick = info(green=None), info()
    sick["slots"]["green"]["healthy"] = False
    old = info(setup_needed=["/etc/nginx/conf.d/my_app.conf"])
    for other in (empty, sick, old, info(live_unknown=True), info(green=C)):
        judged = _plans.canary_plan({"web1": info(), "web2": other}, 10)
        assert not judged["ok"] and judged["failures"]
    # Taking the share away is always fine, as long as it is known where the traffic goes.
    assert _plans.canary_plan({"web1": info(), "web2": sick, "web3": empty}, 0)["ok"]


def refusals(plan):
    assert not plan["ok"] and plan["lost"] == []
    assert {entry["step"] for entry in plan["failures"]} == {"plan"}
    return {entry["host"]: entry["why"] for entry in plan["failures"]}


def test_why_a_deploy_may_not_go_on():
    unsure = info(live_unknown=True, deployment_id="green")
    said = "cannot tell which slot is live: /deployment_id says green, the live symlink says blue. Run setup.yml."
    assert refusals(_plans.deploy_plan({"a": unsure, "b": info()}, {"a": C, "b": C})) == {"a": said}
    back = info(rolled_back=[bad(C)])
    why = f"{C} was rolled back from. To deploy it again: -e bluegreen_force=true"
    assert refusals(_plans.deploy_plan({"a": back}, {"a": C})) == {"a": why}
    # Live by now, it is not bad as such.
    live = info(rolled_back=[bad(A)])
    fine = {"ok": True, "failures": [], "lost": [], "hosts": {"a": {"color": "green"}}}
    assert _plans.deploy_plan({"a": live}, {"a": A}) == _plans.deploy_plan({"a": info()}, {"a": C}) == fine
    assert _plans.deploy_plan({"a": info()})["ok"] and _plans.deploy_plan({"a": info()}, {"b": C})["ok"]


def test_why_a_switch_may_not_go_on():
    not_set_up = "is not set up. Run deploy.yml."
    assert refusals(_plans.switch_plan({"a": info(link=None)})) == {"a": not_set_up}
    lost = info(live_unknown=True, link=None)
    lost["disagreements"] = []
    assert refusals(_plans.switch_plan({"a": lost})) == {"a": "cannot tell which slot is live"}
    two = info(live_unknown=True)
    two["disagreements"] = ["one", "two"]
    assert refusals(_plans.switch_plan({"a": two})) == {"a": "one; two"}
    nothing = "green holds no release. Run deploy.yml first."
    assert refusals(_plans.switch_plan({"a": info(green=None)}, "green")) == {"a": nothing}
    assert refusals(_plans.switch_plan({"a": info(blue=None, green=None)})) == {"a": nothing}
    none = "the slot holds no release. Run deploy.yml first."
    assert refusals(_plans.switch_plan({"a": info()}, None, {})) == {"a": none}
    back = f"green holds {B} env 1111, which was rolled back from. To promote it anyway: -e color=green"
    assert refusals(_plans.switch_plan({"a": info(rolled_back=[bad(B)])})) == {"a": back}
    cut = {"pending": {"release": B, "at": "t9"}}
    said = f"green ({B}) is left over from an interrupted deploy (t9). Run deploy.yml again."
    assert refusals(_plans.switch_plan({"a": without({}, green=cut)}, "green")) == {"a": said}
    sick = {"healthy": False, "health": "503"}
    said = f"green ({B}) is not healthy: 503 on port 5000. Run deploy.yml with the same artifact to restart it."
    assert refusals(_plans.switch_plan({"a": without({}, green=sick)}, "green")) == {"a": said}
    # What was deployed in this run was proven there; and what is live is where it should be, however it is.
    plan = _plans.switch_plan({"a": without({}, green=sick)}, None, {"a": {"color": "green", "release": C, "env": E2}})
    assert plan["hosts"] == {"a": {"color": "green", "release": C, "env": E2, "already": False}}
    plan = _plans.switch_plan({"a": without({}, blue=sick)}, "blue")
    assert plan["hosts"] == {"a": {"color": "blue", "release": A, "env": E1, "already": True}}
    others = {"a": info(), "b": info(green=C)}
    why = {
        "a": f"would switch to {B}, other hosts to another release. Deploy to all first.",
        "b": f"would switch to {C}, other hosts to another release. Deploy to all first.",
    }
    assert refusals(_plans.switch_plan(others)) == why
    assert _plans.switch_plan({"a": info()}) == {
        "ok": True,
        "failures": [],
        "lost": [],
        "hosts": {"a": {"color": "green", "release": B, "env": E1, "already": False}},
    }


def test_why_nobody_may_be_sent_to_the_idle_slot():
    def why(found, percent=10):
        return refusals(_plans.canary_plan({"a": found}, percent))["a"]

    assert why(info(link=None)) == "is not set up. Run deploy.yml."
    for needed in ("/etc/nginx/conf.d/my_app.conf", "/opt/my_app/site.sha256"):
        assert why(info(setup_needed=[needed])) == "its site does not support canaries yet. Run setup.yml."
    assert _plans.canary_plan({"a": info(setup_needed=["/opt/my_app/bin/my_app"])}, 10)["ok"]
    assert why(info(green=None)) == "green holds no release. Run deploy.yml first."
    sick = without({}, green={"healthy": False, "health": "503"})
    assert (
        why(sick)
        == f"green ({B}) is not healthy: 503 on port 5000. Run deploy.yml with the same artifact to restart it."
    )
    # Taking it away is always fine, and has no release that hosts could differ in.
    fine = {"ok": True, "failures": [], "lost": []}
    others = {"a": sick, "b": info(green=None), "c": info(setup_needed=["/x.conf"]), "d": info(green=C)}
    assert _plans.canary_plan(others, 0) == fine
    assert why(info(link=None), 0) == "is not set up. Run deploy.yml."
    assert _plans.canary_plan({"a": info()}, 10) == {**fine, "hosts": {"a": {"release": B}}}


def test_why_a_rollback_may_not_go_on():
    goal = {"release": C, "env": E2, "color": "green", "take": True}
    assert refusals(_plans.rollback_plan({"a": info(link=None)})) == {"a": "is not set up. Run deploy.yml."}
    assert refusals(_plans.rollback_plan({"a": info()})) == {"a": "nothing"}
    known = {"migrations": {A: told("1", "2", "3"), C: told("1")}, "rollback": goal}
    said = (
        f"migrations have run since {C} was live: 2, 3. Undo them, or, if that release can work with them: "
        "-e bluegreen_force=true"
    )
    assert refusals(_plans.rollback_plan({"a": info(**known)})) == {"a": said}
    assert _plans.rollback_plan({"a": info(**known)}, True)["ok"]
    known["migrations"][A]["backup"] = "/backups/1.dump"
    said += "\nThe backup from before them: /backups/1.dump"
    assert refusals(_plans.rollback_plan({"a": info(**known)})) == {"a": said}
    for silent in ({A: told("1")}, {C: told("1")}, {}):
        assert _plans.rollback_plan({"a": info(migrations=silent, rollback=goal)})["ok"]
    plan = _plans.rollback_plan({"a": info(rollback=goal)})
    assert plan == {"ok": True, "failures": [], "lost": [], "hosts": {"a": {**goal, "already": False, "runs": False}}}


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
    there = _plans.rollback_plan({"a": info(last_run=died, rollback=goal)})["hosts"]["a"]
    assert there == {"release": A, "env": E1, "color": "blue", "take": False, "already": True, "runs": True}
    plan = _plans.rollback_plan({"a": info(last_run={**died, **other}, rollback=goal)})
    assert plan["hosts"]["a"] == {**goal, "already": False, "runs": False}


def test_a_rollback_starts_what_does_not_run():
    goal = {"release": A, "env": E1, "color": "green", "take": False}
    sick = {"healthy": False, "health": "503"}
    for found, runs in (
        (info(rollback=goal), True),
        # The slot was used for something else since, so it runs that.
        (info(rollback={**goal, "take": True}), False),
        (without({"rollback": goal}, green=sick), False),
        # It would not come back with the host.
        (without({"rollback": goal}, green={"enabled": False}), False),
    ):
        assert _plans.rollback_plan({"a": found})["hosts"]["a"]["runs"] is runs


def test_every_host_has_its_say():
    """One that cannot switch does not end what is said of the others."""
    sick = {"healthy": False, "health": "503"}
    for first in (info(link=None), info(green=None), without({}, green=sick)):
        assert set(refusals(_plans.switch_plan({"a": first, "b": info(green=None)}, "green"))) == {"a", "b"}
    back = info(rolled_back=[bad(B)])
    assert set(refusals(_plans.switch_plan({"a": back, "b": back}))) == {"a", "b"}
    # One that has the other slot waiting still goes there, though one beside it was rolled back from.
    plan = _plans.switch_plan({"a": info("green", blue=B, green=B, rolled_back=[bad(B)]), "b": info(blue=A)})
    assert plan["hosts"]["b"]["color"] == "green"


def test_pending_migrations_keep_a_release_from_visitors():
    """As it told itself when it was deployed, unless this run has asked again."""
    behind = without({}, green={"pending_migrations": ["2_add_price"]})
    said = (
        f"green ({B}) has migrations that have not run: 2_add_price. Run them: migrate.yml -e color=green. "
        "If it works without them: -e bluegreen_force=true"
    )
    for plan in (_plans.switch_plan, lambda infos, **how: _plans.canary_plan(infos, 10, **how)):
        assert refusals(plan({"a": behind, "b": info()})) == {"a": said}
        assert plan({"a": behind}, force=True)["ok"]
        assert plan({"a": behind}, asked={B: []})["ok"]
        assert refusals(plan({"a": info()}, asked={B: ["2_add_price"]})) == {"a": said}
    # What is live already does not move, and a share is always taken away.
    assert _plans.switch_plan({"a": without({}, blue={"pending_migrations": ["2"]})}, "blue")["ok"]
    assert _plans.canary_plan({"a": behind}, 0)["ok"]


def test_a_canary_is_for_visitors():
    worker = info(web=False, green=None)
    assert _plans.canary_plan({"a": info(), "b": worker}, 10)["hosts"] == {"a": {"release": B}}
    assert refusals(_plans.canary_plan({"b": worker}, 10)) == {
        "b": "has no visitors (bluegreen_web: false), so there is no share to send"
    }
    assert _plans.canary_plan({"b": worker}, 0)["ok"]


def test_a_worker_that_is_not_healthy_has_no_port():
    sick = without({"web": False}, green={"healthy": False, "health": "its node does not answer", "port": None})
    assert "is not healthy: its node does not answer. Run deploy.yml" in refusals(_plans.switch_plan({"a": sick}))["a"]


def steps_of(joiner, source):
    plan = _plans.join_plan({"new": joiner}, {"a": source})
    assert plan["ok"] and plan["hosts"]["new"]["source"] == "a"
    return [
        (step["do"], step["color"], step["release"]) if step["do"] == "deploy" else ("switch", step["color"])
        for step in plan["hosts"]["new"]["steps"]
    ]


def test_a_host_that_joins_gets_both_slots_of_another_one():
    empty = {"blue": None, "green": None}
    assert steps_of(info(**empty), info()) == [("deploy", "blue", A), ("deploy", "green", B)]
    assert steps_of(info(**empty), info(live="green")) == [("deploy", "green", B), ("deploy", "blue", A)]
    assert steps_of(info(**empty), info(green=None)) == [("deploy", "blue", A)]
    assert (
        steps_of(info(), info()) == [] and _plans.join_plan({"new": info()}, {"a": info()})["hosts"]["new"]["already"]
    )


def test_a_host_that_was_away_gets_there_with_its_visitors_on_a_proven_slot():
    # The other color is live: once over.
    assert steps_of(info(live="blue", blue=C, green=A), info(live="green")) == [
        ("deploy", "green", B),
        ("switch", "green"),
        ("deploy", "blue", A),
    ]
    # The same color: there and back.
    assert steps_of(info(live="blue", blue=C, green=A), info(live="blue")) == [
        ("deploy", "green", A),
        ("switch", "green"),
        ("deploy", "blue", A),
        ("switch", "blue"),
        ("deploy", "green", B),
    ]
    # Only what waits is another.
    assert steps_of(info(green=C), info()) == [("deploy", "green", B)]
    other = info(env_digests={"blue": E2, "green": E1})
    assert steps_of(other, info())[0] == ("deploy", "green", A)
    # The id of an environment is another where the cookie is.
    assert steps_of(without({}, blue={"env": E2}, green={"env": E2}), info()) == []


colors = st.sampled_from(["blue", "green"])
held_there = st.sampled_from([None, A, B, C])


@given(colors, held_there, held_there, colors, st.sampled_from([A, B, C]), held_there)
def test_whatever_a_host_holds_in_the_end_it_holds_what_the_other_does(live, blue, green, goal, served, idle):
    if not (blue if live == "blue" else green) and (blue or green):
        # Something idle and nothing live: no host is ever like that.
        return
    source = info(live=goal, **{goal: served, "green" if goal == "blue" else "blue": idle})
    slots, now = {"blue": blue, "green": green}, live
    fresh = not blue and not green
    for step in _plans.join_plan({"new": info(live=live, blue=blue, green=green)}, {"a": source})["hosts"]["new"][
        "steps"
    ]:
        if fresh:
            now, fresh = goal, False
            slots[step["color"]] = step["release"]
        elif step["do"] == "deploy":
            # Rule 1.
            assert step["color"] != now
            slots[step["color"]] = step["release"]
        else:
            assert slots[step["color"]] == served
            now = step["color"]
    assert now == goal and slots[goal] == served
    assert not idle or slots["green" if goal == "blue" else "blue"] == idle


def test_who_cannot_join():
    def why_not(others, joiner=None):
        return refusals(_plans.join_plan({"new": joiner or info()}, others))["new"]

    assert why_not({}) == "no other host of the group is left to take from. Name the hosts that join: -l HOST"
    gone = {"unreachable": True, "msg": "no route"}
    assert why_not({"a": gone}) == "no other host of the group is left to take from: a unreachable: no route"
    lock = {"holder": "ann@laptop", "operation": "deploy", "since": "t"}
    assert why_not({"a": info(), "b": info(lock=lock)}) == (
        "b is locked by ann@laptop for deploy since t. Join when that has ended."
    )
    assert why_not({"a": info(), "b": info(live="green")}).startswith(
        f"the group serves 2 releases ({A}, {B}). Make it one"
    )
    assert why_not({"a": info()}, info(web=False)) == "no other worker of the group is left to take from"
    assert why_not({"a": info(web=False)}) == "no other web host of the group is left to take from"
    assert why_not({"a": info()}, gone) == "unreachable: no route"
    unsure = info(live_unknown=True)
    unsure["disagreements"] = ["nginx says green"]
    assert why_not({"a": info()}, unsure) == "nginx says green"
    # One that is away, or cannot tell, is no reason as long as another one can.
    assert _plans.join_plan({"new": info()}, {"a": gone, "b": unsure, "c": info()})["hosts"]["new"]["source"] == "c"
