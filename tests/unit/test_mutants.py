# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `make mutants` makes of the tasks is what it says, and no broken file, which every test would notice."""

from __future__ import annotations

import pathlib
import sys
import warnings

import pytest
import yaml

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "mutants"))

with warnings.catch_warnings():
    # It makes collections known to Python by itself, as conftest.py has.
    warnings.simplefilter("ignore")
    import mutants

FILES = [path for path in mutants.files(["roles", "playbooks"]) if path not in mutants.PYTHON]


def tasks(text):
    return [yaml.safe_load(yaml.serialize(item)) for item, _keys in mutants.tasks_in(yaml.compose(text))]


@pytest.mark.parametrize("path", FILES)
def test_a_mutant_is_another_file_of_tasks(path):
    before, made = tasks((mutants.TOP / path).read_text()), list(mutants.mutants_of(path))
    assert len({what for what, _text in made}) == len(made)
    for what, text in made:
        found = tasks(text)
        assert found != before and all(isinstance(task, dict) for task in found), what
        # A block that is taken out takes its tasks with it.
        assert what.endswith("taken out") or len(found) == len(before), what


@pytest.mark.parametrize(
    ("failed", "number"),
    [("test_a.py::test_x", 0), ("test_a.py::test_xy[two words", 1), ("test_a.py::test_z", 2), ("", 2)],
)
def test_which_test_has_failed(failed, number):
    assert mutants.position(failed, ["fleet/test_a.py::test_x", "fleet/test_a.py::test_xy"]) == number


def test_an_include_stands_for_its_file_if_nothing_else_includes_it():
    folder = "roles/slot/tasks"
    alone = mutants.only_way_to(f"{folder}/switch_after.yml", f"{folder}/switch_after.yml: Watch: when false")
    assert alone == f"{folder}/switch_watch.yml"
    for file, what in (
        ("switch_after.yml", "Watch: when true"),
        # There are other hooks, and other gates.
        ("deploy_before_start.yml", "Run your hooks before the start: when false"),
        ("hook.yml", "Require that every hook succeeded: when false"),
        # The file is an expression.
        ("join.yml", "Fill the slots: when false"),
    ):
        assert mutants.only_way_to(f"{folder}/{file}", f"{folder}/{file}: {what}") is None, (file, what)
