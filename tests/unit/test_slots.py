# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible_collections.beamops.bluegreen.plugins.module_utils import _slots
from ansible_collections.beamops.bluegreen.plugins.module_utils._rules import Refused, other
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

A, B, C = "0.1.0-aaaaaaaa", "0.1.1-bbbbbbbb", "0.1.2-cccccccc"


def held(blue=None, green=None):
    return {
        color: {"release": release, "sha256": release[-8:] * 8} if release else None
        for color, release in (("blue", blue), ("green", green))
    }


def deployed(facts, color, release, at="2026-01-01T00:00:00Z"):
    return _slots.after_deploy(facts, color, release, release[-8:] * 8, at)


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
    assert facts["previous"] == {"color": "blue", "release": A}
    assert facts["slots"]["green"]["promoted_at"] == "2026-01-02T00:00:00Z"
    assert _slots.rollback_target(facts, [A, B]) == {"release": A, "color": "blue", "take": False}
    back = _slots.after_switch(facts, "blue", "rollback", "2026-01-03T00:00:00Z")
    assert back["live"] == "blue" and back["previous"] is None and back["rolled_back"] == [B]
    with pytest.raises(Refused, match="nothing to go back to"):
        _slots.rollback_target(back, [A, B])


def test_rollback_never_goes_forward_to_what_was_not_live_yet():
    facts = _slots.after_switch(deployed(first(), "green", B), "green", "promote", "t")
    facts = deployed(facts, "blue", C)
    assert _slots.rollback_target(facts, [A, B, C]) == {"release": A, "color": "blue", "take": True}
    with pytest.raises(Refused, match="no longer kept"):
        _slots.rollback_target(facts, [B, C])


def test_the_same_release_under_another_env_is_a_way_back():
    facts = deployed(first(), "green", A)
    facts = _slots.after_switch(facts, "green", "promote", "t")
    assert _slots.rollback_target(facts, [A]) == {"release": A, "color": "blue", "take": False}


def test_what_is_live_again_is_no_way_back_from_itself():
    """Two releases in turn, so that each was live in both colors; the second rollback went for the release that it left."""
    facts = first()
    for to, release in (("green", B), ("blue", C), ("green", A), ("blue", B), ("green", C), ("blue", A), ("green", B)):
        facts = _slots.after_switch(deployed(facts, to, release), to, "promote", "t")
    seen = [B]
    while facts["previous"]:
        goal = _slots.rollback_target(facts, [A, B, C])
        assert goal["release"] not in seen
        seen.append(goal["release"])
        if goal["take"]:
            facts = deployed(facts, goal["color"], goal["release"])
        facts = _slots.after_switch(facts, goal["color"], "rollback", "t")
    assert seen == [B, A, C]


def test_a_rollback_from_another_env_does_not_mark_the_release():
    facts = _slots.after_switch(deployed(first(), "green", A), "green", "promote", "t")
    facts = _slots.after_switch(facts, "blue", "rollback", "t")
    assert facts["rolled_back"] == []
    # So it stays a way back from what comes after it.
    facts = _slots.after_switch(deployed(facts, "green", B), "green", "promote", "t")
    assert _slots.rollback_target(facts, [A, B])["release"] == A


def test_promoting_what_was_rolled_back_from_takes_the_mark_away():
    facts = _slots.after_switch(deployed(first(), "green", B), "green", "promote", "t")
    facts = _slots.after_switch(facts, "blue", "rollback", "t")
    facts = _slots.after_switch(facts, "green", "promote", "t")
    assert facts["rolled_back"] == [] and facts["previous"] == {"color": "blue", "release": A}


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
        _slots.rollback_target(found, [A, B])


def test_a_first_deploy_that_never_answered_does_not_count():
    slot = {"release": A, "healthy": False, "pending": {"former": None}}
    assert not _slots.counts(slot)
    assert _slots.counts({**slot, "healthy": True})
    assert _slots.counts({**slot, "pending": None})
    assert _slots.counts({**slot, "pending": {"former": B}})
    assert not _slots.counts({"release": None, "healthy": False, "pending": None})


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


class Host(RuleBasedStateMachine):
    """Any order of deploys, promotes and rollbacks: live and previous are always right, and no rollback goes forward."""

    def __init__(self):
        super().__init__()
        self.facts = {**_slots.empty_facts(), "live": "blue"}
        self.was_live, self.count = [], 0

    # Few enough that they come again.
    @rule(release=st.sampled_from([f"0.{number}.0-{number:08x}" for number in range(4)]))
    def deploy(self, release):
        self.count += 1
        slots = self.facts["slots"]
        color = _slots.target_slot(self.facts["live"], slots)
        self.facts = deployed(self.facts, color, release, f"{self.count:04d}")
        if color == self.facts["live"]:
            self.was_live.append(release)

    @precondition(lambda self: self.facts["slots"][other(self.facts["live"])])
    @rule()
    def promote(self):
        to = other(self.facts["live"])
        self.facts = _slots.after_switch(self.facts, to, "promote", "t")
        self.was_live.append(self.facts["slots"][to]["release"])

    @precondition(lambda self: self.facts["previous"])
    @rule()
    def rollback(self):
        kept = [f"0.{number}.0-{number:08x}" for number in range(4)]
        left, bad = self.facts["slots"][self.facts["live"]]["release"], self.facts["rolled_back"]
        goal = _slots.rollback_target(self.facts, kept)
        assert goal["release"] in self.was_live and goal["release"] not in bad
        # The same release only under another env, which is in the other slot.
        assert goal["release"] != left or not goal["take"]
        if goal["take"]:
            self.facts = deployed(self.facts, goal["color"], goal["release"])
        self.facts = _slots.after_switch(self.facts, goal["color"], "rollback", "t")
        assert self.facts["slots"][self.facts["live"]]["release"] == goal["release"]
        assert (left in self.facts["rolled_back"]) == (left != goal["release"] or left in bad)

    @invariant()
    def what_is_live_is_not_the_way_back(self):
        live = self.facts["slots"][self.facts["live"]]
        if live and self.facts["previous"]:
            assert self.facts["previous"] != {"color": self.facts["live"], "release": live["release"]}
            assert self.facts["previous"]["release"] in self.was_live

    @invariant()
    def a_run_that_dies_anywhere_changes_nothing_for_the_next(self):
        slots = {
            color: slot and {"release": slot["release"], "sha256": slot["sha256"]}
            for color, slot in self.facts["slots"].items()
        }
        assert _slots.reconcile(self.facts, self.facts["live"], slots, None, "t") == self.facts


Host.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestHost = Host.TestCase
