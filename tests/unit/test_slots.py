# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible_collections.beamops.bluegreen.plugins.module_utils import _slots
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Refused
from ansible_collections.beamops.bluegreen.plugins.module_utils._validate import other
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

A, B, C = "0.1.0-aaaaaaaa", "0.1.1-bbbbbbbb", "0.1.2-cccccccc"
# Environments.
E1, E2, E3, E4 = (digit * 12 for digit in "1234")


def of(release, env=E1):
    return {"release": release, "env": env, "sha256": release[-8:] * 8}


def held(blue=None, green=None):
    return {color: of(release) if release else None for color, release in (("blue", blue), ("green", green))}


def kept(*releases, env=E1):
    return [{"release": release, "env": env} for release in releases]


def deployed(facts, color, release, at="2026-01-01T00:00:00Z", env=E1):
    return _slots.after_deploy(facts, color, of(release, env), at)


def first(release=A):
    """Facts of a host after its first deploy."""
    return deployed({**_slots.empty_facts(), "live": "blue"}, "blue", release)


def test_the_first_deploy_goes_to_the_live_slot_and_every_other_to_the_idle_one():
    assert _slots.target_slot("blue", held()) == "blue"
    assert _slots.target_slot("green", held()) == "green"
    assert _slots.target_slot("blue", held(blue=A)) == "green"
    assert _slots.target_slot("green", held(blue=A, green=B)) == "blue"


def test_promote_and_rollback():
    facts = _slots.after_switch(deployed(first(), "green", B), "green", "promote", "2026-01-02T00:00:00Z")
    assert facts["live"] == "green"
    assert facts["previous"] == {"color": "blue", "release": A, "env": E1}
    assert facts["slots"]["green"]["promoted_at"] == "2026-01-02T00:00:00Z"
    assert _slots.rollback_target(facts, []) == {"release": A, "env": E1, "color": "blue", "take": False}
    back = _slots.after_switch(facts, "blue", "rollback", "2026-01-03T00:00:00Z")
    # Bad under any environment.
    assert back["live"] == "blue" and back["previous"] is None and back["rolled_back"] == [{"release": B, "env": ""}]
    with pytest.raises(Refused, match="nothing to roll back to"):
        _slots.rollback_target(back, kept(A, B))


def test_rollback_never_goes_forward_to_what_was_not_live_yet():
    facts = _slots.after_switch(deployed(first(), "green", B), "green", "promote", "t")
    facts = deployed(facts, "blue", C)
    assert _slots.rollback_target(facts, kept(A, B, C)) == {"release": A, "env": E1, "color": "blue", "take": True}
    with pytest.raises(Refused, match="0.1.0-aaaaaaaa env 1111 was live before, but is no longer installed"):
        _slots.rollback_target(facts, kept(B, C))


def test_the_same_release_under_another_env_is_a_way_back():
    facts = deployed(first(), "green", A, env=E2)
    facts = _slots.after_switch(facts, "green", "promote", "t")
    assert _slots.rollback_target(facts, []) == {"release": A, "env": E1, "color": "blue", "take": False}


def test_a_rollback_goes_to_the_environment_that_was_live_before_not_to_the_release_before():
    """C, then A with env 1, then A with env 2; env 3 and env 4 are deployed and not promoted: the way back is A with env 1."""
    facts = _slots.after_switch(deployed(first(C), "green", A, env=E1), "green", "promote", "t")
    facts = _slots.after_switch(deployed(facts, "blue", A, env=E2), "blue", "promote", "t")
    for env in (E3, E4):
        facts = deployed(facts, "green", A, env=env)
    assert facts["previous"] == {"color": "green", "release": A, "env": E1}
    goal = {"release": A, "env": E1, "color": "green", "take": True}
    assert _slots.rollback_target(facts, kept(A, C) + kept(A, env=E3)) == goal
    # The other environments are no stand-in for it: then it goes on to what was live before that, which is there.
    assert _slots.rollback_target(facts, kept(A, env=E3) + kept(C))["release"] == C


def test_facts_of_an_older_version_know_no_environments():
    old = {
        "live": "green",
        "slots": {"blue": {"release": A, "promoted_at": "t"}, "green": {"release": B, "promoted_at": "t"}},
        "was_live": [{"color": "blue", "release": A}, {"color": "green", "release": C}],
        "rolled_back": [C],
    }
    facts, problem = _slots.parse_facts(json.dumps(old))
    assert problem is None and facts["rolled_back"] == [{"release": C, "env": ""}]
    facts = _slots.reconcile(facts, "green", held(A, B), None, "t")
    assert [facts["slots"][color]["env"] for color in ("blue", "green")] == [E1, E1]
    assert facts["slots"]["blue"]["promoted_at"] == "t"
    assert _slots.rollback_target(facts, []) == {"release": A, "env": E1, "color": "blue", "take": False}
    # Its slot was reused: the one environment that was kept for the release.
    reused = deployed(facts, "blue", B, env=E2)
    assert _slots.rollback_target(reused, kept(A, env="")) == {"release": A, "env": "", "color": "blue", "take": True}


def test_consent_takes_the_mark_away():
    facts = _slots.after_switch(deployed(first(), "green", B), "green", "promote", "t")
    facts = _slots.after_switch(facts, "blue", "rollback", "t")
    again = deployed(facts, "green", B, env=E2)
    assert _slots.is_marked(again, again["slots"]["green"])
    assert _slots.after_consent(again, "green")["rolled_back"] == []
    # The very same that is in the slot still waits to be promoted then.
    assert "promoted_at" in facts["slots"]["green"]
    assert "promoted_at" not in _slots.after_consent(facts, "green")["slots"]["green"]
    other_release = deployed(facts, "green", C)
    assert _slots.after_consent(other_release, "green")["rolled_back"] == facts["rolled_back"]


def test_what_a_person_reads():
    assert _slots.named(of(A)) == "0.1.0-aaaaaaaa env 1111"
    assert _slots.named({"release": A, "env": ""}) == A
    assert _slots.named(None) == _slots.named({"release": None}) == "nothing"


def test_what_is_live_again_is_no_way_back_from_itself():
    """Two releases in turn, so that each was live in both colors; the second rollback went for the release that it left."""
    facts = first()
    for to, release in (("green", B), ("blue", C), ("green", A), ("blue", B), ("green", C), ("blue", A), ("green", B)):
        facts = _slots.after_switch(deployed(facts, to, release), to, "promote", "t")
    seen = [B]
    while facts["previous"]:
        goal = _slots.rollback_target(facts, kept(A, B, C))
        assert goal["release"] not in seen
        seen.append(goal["release"])
        if goal["take"]:
            facts = deployed(facts, goal["color"], goal["release"])
        facts = _slots.after_switch(facts, goal["color"], "rollback", "t")
    assert seen == [B, A, C]


def test_a_rollback_from_another_env_does_not_mark_the_release():
    facts = _slots.after_switch(deployed(first(), "green", A, env=E2), "green", "promote", "t")
    facts = _slots.after_switch(facts, "blue", "rollback", "t")
    assert facts["rolled_back"] == [{"release": A, "env": E2}]
    # So it stays a way back from what comes after it.
    facts = _slots.after_switch(deployed(facts, "green", B), "green", "promote", "t")
    assert _slots.rollback_target(facts, kept(A, B))["release"] == A


def test_promoting_what_was_rolled_back_from_takes_the_mark_away():
    facts = _slots.after_switch(deployed(first(), "green", B), "green", "promote", "t")
    facts = _slots.after_switch(facts, "blue", "rollback", "t")
    facts = _slots.after_switch(facts, "green", "promote", "t")
    assert facts["rolled_back"] == [] and facts["previous"] == {"color": "blue", "release": A, "env": E1}


@pytest.mark.parametrize("kind", ["promote", "rollback"])
def test_a_switch_cut_short_after_the_symlink_is_finished_by_the_next_run(kind):
    before = _slots.after_switch(deployed(first(), "green", B), "green", "promote", "t")
    journal = {"from": "green", "to": "blue", "kind": kind}
    found = _slots.reconcile(before, "blue", held(A, B), journal, "t")
    assert found == _slots.after_switch(before, "blue", kind, "t")
    # And then it is finished.
    assert _slots.reconcile(found, "blue", held(A, B), journal, "later") == found


def test_an_undo_cut_short_after_the_symlink_is_finished_by_the_next_run():
    before = deployed(first(), "green", B)
    journal = {"from": "blue", "to": "green", "kind": "promote", "facts": before}
    after = _slots.after_switch(before, "green", "promote", "t")
    found = _slots.reconcile(after, "blue", held(A, B), journal, "later")
    assert found == before
    with pytest.raises(Refused, match="nothing was live before"):
        _slots.rollback_target(found, kept(A, B))


def test_a_first_deploy_that_never_answered_does_not_count():
    slot = {"release": A, "healthy": False, "pending": {"former": None}}
    assert not _slots.is_occupied(slot)
    assert _slots.is_occupied({**slot, "healthy": True})
    assert _slots.is_occupied({**slot, "pending": None})
    assert _slots.is_occupied({**slot, "pending": {"former": B}})
    assert not _slots.is_occupied({"release": None, "healthy": False, "pending": None})


def test_facts_that_were_lost_are_made_up_from_what_is_there():
    facts, problem = _slots.parse_facts("{")
    assert "cannot be read" in problem
    facts = _slots.reconcile(facts, "green", held(A, B), None, "t")
    assert facts["live"] == "green"
    assert facts["slots"]["blue"]["release"] == A and facts["slots"]["green"]["version"] == "0.1.1"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "[]",
        "7",
        '{"live": "red"}',
        '{"slots": {"blue": {"release": "../x"}}}',
        '{"previous": {"color": "blue"}}',
        '{"rolled_back": ["x"]}',
        '{"slots": 7}',
        '{"was_live": [{"color": "blue", "release": "0.1.0-aaaaaaaa", "env": "../x"}]}',
    ],
)
def test_damaged_facts_are_a_problem_and_not_a_crash(text):
    facts, problem = _slots.parse_facts(text)
    assert facts == _slots.empty_facts() and "cannot be read" in problem


def test_facts_survive_the_file():
    facts = _slots.after_switch(deployed(first(), "green", B), "green", "promote", "t")
    assert _slots.parse_facts(json.dumps(facts)) == (facts, None)


@given(st.lists(st.sampled_from("abcdefgh"), unique=True), st.sets(st.sampled_from("abcdefgh")), st.integers(0, 5))
def test_prune_keeps_what_is_protected_and_the_newest(releases, protected, keep):
    doomed = _slots.prune(releases, protected, keep)
    kept = [one for one in releases if one not in doomed]
    assert not set(doomed) & protected
    assert len([one for one in kept if one not in protected]) == min(keep, len(set(releases) - protected))
    spare = [one for one in releases if one not in protected]
    assert doomed == spare[len(spare) - len(doomed) :]


RELEASES = [f"0.{number}.0-{number:08x}" for number in range(3)]


class Host(RuleBasedStateMachine):
    """Any order of deploys, promotes and rollbacks: live and previous are always right, and no rollback goes forward."""

    def __init__(self):
        super().__init__()
        self.facts = {**_slots.empty_facts(), "live": "blue"}
        # What was live, as (release, env), and what was rolled back from: a release, or one of its environments.
        self.was_live, self.bad, self.count = [], set(), 0

    def at(self, color):
        slot = self.facts["slots"][color]
        return slot and (slot["release"], slot["env"])

    def is_bad(self, pair):
        return pair in self.bad or pair[0] in self.bad

    # Few enough that they come again.
    @rule(release=st.sampled_from(RELEASES), env=st.sampled_from([E1, E2]), consent=st.booleans())
    def deploy(self, release, env, consent):
        self.count += 1
        color = _slots.target_slot(self.facts["live"], self.facts["slots"])
        if self.at(self.facts["live"]) == (release, env):
            return
        self.facts = deployed(self.facts, color, release, f"{self.count:04d}", env)
        if consent:
            self.facts = _slots.after_consent(self.facts, color)
            self.bad -= {release, (release, env)}
        if color == self.facts["live"]:
            self.was_live.append((release, env))

    @precondition(lambda self: self.facts["slots"][other(self.facts["live"])])
    @rule()
    def promote(self):
        to = other(self.facts["live"])
        self.facts = _slots.after_switch(self.facts, to, "promote", "t")
        self.was_live.append(self.at(to))
        self.bad -= {self.at(to)[0], self.at(to)}

    @precondition(lambda self: self.facts["previous"])
    @rule()
    def rollback(self):
        live = self.facts["live"]
        left = self.at(live)
        goal = _slots.rollback_target(
            self.facts, [{"release": one, "env": env} for one in RELEASES for env in (E1, E2)]
        )
        wanted = (goal["release"], goal["env"])
        assert wanted in self.was_live and wanted != left and not self.is_bad(wanted)
        assert goal["color"] == other(live) and (goal["take"] or self.at(goal["color"]) == wanted)
        if goal["take"]:
            self.facts = deployed(self.facts, goal["color"], goal["release"], env=goal["env"])
        self.facts = _slots.after_switch(self.facts, goal["color"], "rollback", "t")
        assert self.at(self.facts["live"]) == wanted
        self.bad.add(left[0] if left[0] != wanted[0] else left)

    @invariant()
    def what_is_live_is_not_the_way_back(self):
        previous = self.facts["previous"]
        if previous:
            pair = (previous["release"], previous["env"])
            assert pair in self.was_live and pair != self.at(self.facts["live"])

    @invariant()
    def marked_is_what_was_rolled_back_from(self):
        for color, slot in self.facts["slots"].items():
            if slot and len(self.facts["rolled_back"]) < 5:
                assert _slots.is_marked(self.facts, slot) == self.is_bad(self.at(color))

    @invariant()
    def a_run_that_dies_anywhere_changes_nothing_for_the_next(self):
        slots = {
            color: slot and {"release": slot["release"], "env": slot["env"], "sha256": slot["sha256"]}
            for color, slot in self.facts["slots"].items()
        }
        assert _slots.reconcile(self.facts, self.facts["live"], slots, None, "t") == self.facts
        # Facts that could not be written know nothing of the environment that a slot was given.
        for slot in slots.values():
            if slot:
                slot["env"] = E3
        found = _slots.reconcile(self.facts, self.facts["live"], slots, None, "t")["slots"]
        assert all(not slot or (slot["env"] == E3 and "promoted_at" not in slot) for slot in found.values())


Host.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestHost = Host.TestCase


# --- what is written down, to the letter -------------------------------------------------------------------------------------


def test_what_is_written_down_of_a_deploy():
    facts = deployed({**_slots.empty_facts(), "live": "blue"}, "blue", A, "t1")
    entry = {"version": "0.1.0", "release": A, "env": E1, "sha256": "aaaaaaaa" * 8, "deployed_at": "t1"}
    # The very first one is live at once.
    assert facts["slots"] == {"blue": {**entry, "promoted_at": "t1"}, "green": None}
    facts = _slots.after_deploy(facts, "green", {"release": B, "env": None, "sha256": None}, "t2")
    assert facts["slots"]["green"] == {"version": "0.1.1", "release": B, "env": "", "sha256": "", "deployed_at": "t2"}
    assert _slots.after_deploy(facts, "green", None, "t3")["slots"]["green"] is None
    assert _slots.after_deploy(facts, "blue", None, "t3")["slots"]["blue"] is None


def test_what_is_written_down_of_a_switch():
    facts = deployed(first(), "green", B, "t1")
    # Facts that were lost know nothing of when it was promoted.
    del facts["slots"]["blue"]["promoted_at"]
    after = _slots.after_switch(facts, "green", "promote", "t2")
    assert after["slots"]["blue"]["promoted_at"] == facts["slots"]["blue"]["deployed_at"]
    assert after["slots"]["green"]["promoted_at"] == "t2" and after["live"] == "green"
    del facts["slots"]["blue"]["deployed_at"]
    assert _slots.after_switch(facts, "green", "promote", "t2")["slots"]["blue"]["promoted_at"] == "t2"
    # To itself: nothing was left, so nothing is remembered.
    assert _slots.after_switch(facts, "blue", "promote", "t2")["was_live"] == []


def test_a_switch_to_or_from_an_empty_slot():
    empty = {**_slots.empty_facts(), "live": "blue"}
    after = _slots.after_switch(empty, "green", "promote", "t")
    assert (after["live"], after["was_live"], after["rolled_back"]) == ("green", [], [])
    after = _slots.after_switch(empty, "green", "rollback", "t")
    assert (after["live"], after["was_live"], after["rolled_back"]) == ("green", [], [])
    nowhere = _slots.after_switch(_slots.empty_facts(), "green", "promote", "t")
    assert (nowhere["live"], nowhere["was_live"]) == ("green", [])
    after = _slots.after_switch(first(), "green", "rollback", "t")
    assert after["rolled_back"] == [{"release": A, "env": ""}]


def history(*entries):
    return [{"color": color, "release": release, "env": E1} for color, release in entries]


def test_a_rollback_takes_away_all_that_was_live_after_what_it_goes_to():
    facts = _slots.after_switch(deployed(first(), "green", B), "green", "promote", "t")
    D = "0.1.3-dddddddd"
    facts["was_live"] = history(("blue", C), ("blue", A), ("green", D), ("blue", D))
    gone = _slots.after_switch(facts, "blue", "rollback", "t")
    assert gone["was_live"] == history(("green", D), ("blue", D))
    # What it goes to is not among what is remembered: the newest is what it has left behind.
    facts["was_live"] = history(("blue", C), ("green", D))
    assert _slots.after_switch(facts, "blue", "rollback", "t")["was_live"] == history(("green", D))


def test_what_is_promoted_is_no_way_back_from_itself():
    facts = deployed(first(), "green", B)
    facts["was_live"] = history(("green", B), ("blue", B), ("green", A))
    after = _slots.after_switch(facts, "green", "promote", "t")
    assert after["was_live"] == history(("blue", A), ("blue", B), ("green", A))


def test_no_more_than_ten_are_remembered():
    facts = deployed(first(), "green", B)
    facts["was_live"] = history(*[("blue", f"0.2.{number}-{number:08x}") for number in range(12)])
    assert len(_slots.after_switch(facts, "green", "promote", "t")["was_live"]) == 10
    facts = _slots.after_switch(facts, "green", "promote", "t")
    facts["rolled_back"] = [{"release": f"0.3.{number}-{number:08x}", "env": ""} for number in range(12)]
    marks = _slots.after_switch(facts, "blue", "rollback", "t")["rolled_back"]
    assert len(marks) == 10 and marks[0] == {"release": B, "env": ""}
    # Rolled back from once more, it is not there twice.
    facts["rolled_back"] = [{"release": C, "env": ""}, {"release": B, "env": ""}]
    marks = _slots.after_switch(facts, "blue", "rollback", "t")["rolled_back"]
    assert marks == [{"release": B, "env": ""}, {"release": C, "env": ""}]


def test_facts_of_an_older_version_have_previous_alone():
    text = json.dumps({"live": "green", "previous": {"color": "blue", "release": A}})
    assert _slots.parse_facts(text)[0]["was_live"] == [{"color": "blue", "release": A, "env": ""}]
    assert _slots.parse_facts('{"live": "green"}')[0]["was_live"] == []
    text = json.dumps({"live": "green", "rolled_back": [{"release": A, "env": E2}]})
    assert _slots.parse_facts(text)[0]["rolled_back"] == [{"release": A, "env": E2}]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"live": "red"}', "the facts file cannot be read (live is neither blue nor green)"),
        (
            '{"was_live": [{"color": "red", "release": "0.1.0-aaaaaaaa"}]}',
            "the facts file cannot be read (a former color is neither blue nor green)",
        ),
    ],
)
def test_why_facts_cannot_be_read(text, why):
    assert _slots.parse_facts(text) == (_slots.empty_facts(), why)


def test_what_is_one_and_the_same():
    assert _slots.same(of(A), of(A)) and not _slots.same(of(A), of(B)) and not _slots.same(of(A), of(A, E2))
    assert _slots.same(of(A), of(A, "")) and _slots.same(of(A, ""), of(A, E2))
    for one, two in ((None, None), (of(A), None), (None, of(A)), ({}, of(A))):
        assert not _slots.same(one, two)


def test_facts_are_brought_up_to_the_symlinks():
    # Nothing is known: what there is, is what is live.
    found = _slots.reconcile(_slots.empty_facts(), "green", held(A, B), None, "t")
    assert (found["live"], found["was_live"], found["previous"]) == ("green", [], None)
    assert found["slots"]["blue"] == {"version": "0.1.0", "release": A, "env": E1, "sha256": "aaaaaaaa" * 8}
    # A slot was emptied, and one whose environment was not known has one.
    facts = deployed(first(), "green", B, env="")
    found = _slots.reconcile(facts, "blue", {"blue": None, "green": of(B, E2)}, None, "t")
    assert found["slots"]["blue"] is None and found["slots"]["green"]["env"] == E2
    assert (
        _slots.reconcile(facts, "blue", {"blue": of(A), "green": of(B, "")}, None, "t")["slots"]["green"]["env"] == ""
    )
    # Somebody moved the symlink by hand: a promote, for nobody said that it was anything else.
    found = _slots.reconcile(deployed(first(), "green", B), "green", held(A, B), None, "t9")
    assert found == _slots.after_switch(deployed(first(), "green", B), "green", "promote", "t9")
    # The journal is of another switch.
    facts = deployed(first(), "green", B)
    for journal in (
        {"from": "green", "to": "green", "kind": "rollback"},
        {"from": "blue", "to": "blue", "kind": "rollback"},
    ):
        found = _slots.reconcile(facts, "green", held(A, B), {**journal, "facts": facts}, "t9")
        assert found["rolled_back"] == [] and found["live"] == "green"


def test_a_switch_that_was_taken_back_keeps_what_the_slots_hold_by_now():
    before = deployed(first(), "green", B)
    journal = {"from": "blue", "to": "green", "kind": "promote", "facts": before}
    after = _slots.after_switch(before, "green", "promote", "t")
    found = _slots.reconcile(after, "blue", held(A, C), journal, "later")
    assert found["slots"]["blue"] == before["slots"]["blue"] and found["slots"]["green"]["release"] == C
    assert found["live"] == "blue"


def look(live="blue", **slots):
    """What a host tells, as far as V(disagreements) and V(migrate_color) look at it."""
    found = {"blue": of(A), "green": of(B)}
    info = {
        "live": live,
        "idle": other(live),
        "link": live,
        "deployment_id": live,
        "deployment_id_error": "refused at 127.0.0.1:80 for example.com",
        "no_site": False,
        "web": True,
        "problems": [],
        "facts": {"live": live, "slots": dict(found)},
        "slots": {},
    }
    for color, held_ in found.items():
        info["slots"][color] = {
            **held_,
            **{"running": True, "healthy": True, "health": "200", "process_release": held_["release"], "pending": None},
            **{"deployed_at": "t1", "rolled_back": False},
            **slots.get(color, {}),
        }
    return info


def says(info, *sentences):
    assert _slots.disagreements(info) == list(sentences)


def test_hosts_that_agree_with_themselves():
    says(look())
    # One that is not set up has nothing to agree on; what cannot be read is said all the same.
    says({**look(), "link": None, "problems": ["the facts file cannot be read"]}, "the facts file cannot be read")
    # Set up, and nothing deployed yet.
    empty = {"release": None, "env": "", "running": False, "healthy": False, "process_release": None}
    fresh = look(blue=empty, green=empty)
    fresh["facts"] = {"live": None, "slots": {"blue": None, "green": None}}
    says(fresh)
    # Nobody asks the nginx of a worker.
    says({**look(), "web": False, "deployment_id": None})


def test_what_does_not_agree_is_said_to_the_letter():
    says(
        {**look(), "deployment_id": None},
        "nginx does not tell the live color: refused at 127.0.0.1:80 for example.com",
    )
    says(
        {**look(), "deployment_id": None, "no_site": True},
        "nginx has no site for this app yet. setup.yml, or the next deploy, installs it.",
    )
    says({**look(), "deployment_id": "green"}, "/deployment_id says green, the live symlink says blue")
    moved = look()
    moved["facts"]["live"] = "green"
    says(moved, "the facts file says green is live, the live symlink says blue")
    lost = look()
    lost["facts"]["live"] = None
    says(lost, "the facts file says nothing is live, the live symlink says blue")
    cut = {"release": C, "at": "t9"}
    says(look(green={"pending": cut}), f"green: a deploy of {C} was interrupted (t9)")
    other_release = look(green={**of(C), "process_release": C})
    says(other_release, f"green: the facts file says {B}, the slot holds {C}")
    gone = {"release": None, "env": "", "running": False, "healthy": False}
    says(look(green=gone), f"green: the facts file says {B}, the slot holds nothing")
    unknown = look()
    unknown["facts"]["slots"]["green"] = None
    says(unknown, f"green: the facts file says empty, the slot holds {B}")
    says(
        look(green={"env": E2}),
        f"green: the facts file says {B} env 1111, the slot holds {B} env 2222; somebody edited its environment, and the next "
        "deploy to it overwrites that",
    )
    says(look(green={"process_release": C}), f"green: the process is running {C}, the slot holds {B}")
    says(look(green={"process_release": None}))
    says(look(green={"running": False, "healthy": False, "process_release": C}))
    says(look(blue={"running": False, "healthy": False}), "blue: live but not running")
    sick = {"healthy": False, "health": "503"}
    says(look(blue=sick), "blue: running but not healthy (503)")
    says(look(green=sick), "green: running but not healthy (503)")


def test_which_release_migrates():
    """The idle one, if it came after what is live."""
    later, nothing = {"deployed_at": "t2"}, {"release": None}
    assert _slots.migrate_color(look(green=later)) == "green"
    assert _slots.migrate_color(look("green", blue=later)) == "blue"
    assert _slots.migrate_color(look()) == "blue"
    assert _slots.migrate_color(look(blue=later)) == "blue"
    assert _slots.migrate_color(look(green={**later, "rolled_back": True})) == "blue"
    assert _slots.migrate_color(look(green={**later, **nothing})) == "blue"
    assert _slots.migrate_color(look(blue={**later, **nothing})) == "green"
    assert _slots.migrate_color(look(blue={"deployed_at": None}, green=later)) == "green"
    assert _slots.migrate_color(look(blue={"deployed_at": None}, green={"deployed_at": None})) == "blue"


def test_why_there_is_no_way_back():
    with pytest.raises(Refused) as refused:
        _slots.rollback_target(first(), kept(A))
    assert str(refused.value) == "nothing was live before the current release, so there is nothing to roll back to"


def test_what_an_older_version_remembers_is_found_under_the_id_that_its_environment_has_by_now():
    """Its slot was taken by this version, which keeps the environment under its id; the facts still do not name it."""
    old = {"live": "green", "slots": {"green": {"release": B}}, "was_live": [{"color": "blue", "release": A}]}
    facts = deployed(_slots.parse_facts(json.dumps(old))[0], "blue", C)
    goal = {"release": A, "env": E2, "color": "blue", "take": True}
    assert _slots.rollback_target(facts, kept(A, env=E2)) == goal
    # The one that the older version kept itself goes before any other.
    assert _slots.rollback_target(facts, kept(A, env=E2) + kept(A, env=""))["env"] == ""
    # An environment that is known has no stand-in, not even one of which nobody knows what is in it.
    facts["was_live"][0]["env"] = E1
    with pytest.raises(Refused, match="no longer installed"):
        _slots.rollback_target(facts, kept(A, env=E2) + kept(A, env=""))


def test_a_host_that_joins_remembers_what_the_group_does():
    others = _slots.after_switch(deployed(first(), "green", B, env=E2), "green", "promote", "2026-01-02T00:00:00Z")
    others = _slots.after_switch(others, "blue", "rollback", "2026-01-03T00:00:00Z")
    others = deployed(others, "green", C, env=E2)
    # There the first slot is live at once, and both were filled just now; in a cluster its environments have other ids.
    own = deployed(
        deployed({**_slots.empty_facts(), "live": "blue"}, "blue", A, env=E3, at="now"), "green", C, env=E4, at="now"
    )
    joined = _slots.after_join(own, others, {E1: E3, E2: E4})
    assert joined["live"] == "blue" and joined["previous"] is None
    assert joined["rolled_back"] == [{"release": B, "env": ""}] and joined["was_live"] == others["was_live"]
    for color, env in (("blue", E3), ("green", E4)):
        assert joined["slots"][color] == {**others["slots"][color], "env": env}
    assert "promoted_at" not in joined["slots"]["green"]
    # A rollback goes where that of the others goes.
    back = _slots.after_switch(others, "green", "promote", "2026-01-04T00:00:00Z")
    own = deployed(deployed({**_slots.empty_facts(), "live": "green"}, "green", C, env=E4), "blue", A, env=E3)
    goal = _slots.rollback_target(_slots.after_join(own, back, {E1: E3, E2: E4}), [])
    assert goal == {**_slots.rollback_target(back, []), "env": E3}
