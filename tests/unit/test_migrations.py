# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.beamops.bluegreen.plugins.module_utils import _migrations
from hypothesis import given
from hypothesis import strategies as st
from infos import A, B, C, told

TWO = {"1": "create_items", "2": "add_price"}


def from_ecto(*lines):
    return _migrations.from_ecto(["a warning of the app", "", *(f"bluegreen-migration: {line}" for line in lines)])


def test_what_ecto_tells():
    assert from_ecto("Shop.Repo up 1 create_items", "Shop.Repo down 2 add_price", "asked 1") == told("1", files=TWO)
    # One of a newer release, which this one does not have.
    found = from_ecto("Shop.Repo up 1 create_items", "Shop.Repo up 3 ** FILE NOT FOUND **", "asked 1")
    assert found == told("1", "3", files={"1": "create_items"})
    # The same versions in two databases are two migrations.
    found = from_ecto("Shop.Repo up 1 create_items", "Shop.Log down 1 create_log", "asked 2")
    assert found == told("Shop.Repo 1", files={"Shop.Repo 1": "create_items", "Shop.Log 1": "create_log"})
    assert from_ecto("asked 0") == told(files={})


def test_an_answer_that_was_cut_off_is_none():
    assert from_ecto("Shop.Repo up 1 create_items") is None and from_ecto() is None


def test_what_an_expression_of_the_user_prints():
    assert _migrations.from_versions(["1", "", " 2 "]) == told("1", "2")


def test_what_is_kept_of_a_release():
    assert _migrations.as_kept(["1", 2]) == told("1", "2")
    assert _migrations.as_kept(told("1", files=TWO, at="t")) == told("1", files=TWO, at="t")
    for other in (None, "1", {}, {"ran": "1"}):
        assert _migrations.as_kept(other) is None


def test_what_is_pending_is_what_no_other_release_has_run_meanwhile():
    behind = told("1", files=TWO, at="t1")
    assert _migrations.pending(B, {B: behind}) == ["2_add_price"]
    assert _migrations.pending(B, {B: behind, A: told("1", files={"1": "x"}, at="t0")}) == ["2_add_price"]
    assert _migrations.pending(B, {B: behind, C: told("1", "2", files={}, at="t2")}) == []
    assert _migrations.pending(B, {A: behind}) == _migrations.pending(None, {B: behind}) == []
    # Of an expression of the user's own only those that have run are known.
    assert _migrations.pending(B, {B: told("1"), A: told()}) == []
    # It was there before times were kept.
    assert _migrations.pending(B, {B: behind, A: told("1", "2")}) == ["2_add_price"]


def test_what_has_run_since_another_release_was_live():
    old, new = told("1", files={"1": "create_items"}, at="t1"), told("1", "2", files=TWO, at="t2")
    assert _migrations.since(B, A, {A: old, B: new}) == ["2_add_price"]
    # Pending still, so nothing stands in the way.
    assert _migrations.since(B, A, {A: old, B: {**new, "ran": ["1"]}}) == []
    # Those of a third release, which the live one does not have either, are no reason.
    later = told("1", "2", "3", files={**TWO, "3": "x"}, at="t3")
    assert _migrations.since(B, A, {A: old, B: new, C: later}) == ["2_add_price"]
    # Deployed before it was migrated: the newest answer counts.
    assert _migrations.since(B, A, {A: old, B: told("1", files=TWO, at="t1"), C: later}) == ["2_add_price"]
    # An expression of the user's own, on one side or on both.
    assert _migrations.since(B, A, {A: told("1"), B: told("1", "2")}) == ["2"]
    assert _migrations.since(B, A, {A: told("1"), B: new}) == ["2"]
    for unknown in ({A: old}, {B: new}, {}):
        assert _migrations.since(B, A, unknown) == []


versions = st.lists(st.integers(1, 9).map(str), unique=True)


@given(versions, versions, versions)
def test_nothing_pending_has_run_and_all_else_is_there(ran, files, later):
    kept = {A: told(*ran, files=dict.fromkeys(files, "x"), at="t1"), B: told(*ran, *later, files={}, at="t2")}
    pending = {name.partition("_")[0] for name in _migrations.pending(A, kept)}
    assert pending == set(files) - set(ran) - set(later)
