# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the collection agree with each other."""

from __future__ import annotations

import pathlib
import re

import yaml

TOP = pathlib.Path(__file__).parents[2]


def load(path):
    return yaml.safe_load((TOP / path).read_text())


def test_every_variable_has_a_default_a_specification_and_a_check():
    defaults = load("roles/preflight/defaults/main.yml")
    spec = load("roles/preflight/meta/argument_specs.yml")["argument_specs"]["variables"]["options"]
    required = {name for name, option in spec.items() if option.get("required")}
    assert set(spec) - required == set(defaults)
    assert {name: option["default"] for name, option in spec.items() if name not in required} == defaults
    used = re.findall(r'settings(?:\.get\()?\[?"(\w+)"', (TOP / "plugins/action/preflight.py").read_text())
    assert {f"bluegreen_{name}" for name in used} <= set(spec)


def test_every_variable_is_in_the_readme():
    text = (TOP / "README.md").read_text()
    spec = load("roles/preflight/meta/argument_specs.yml")["argument_specs"]["variables"]["options"]
    assert [name for name in spec if f"`{name}`" not in text] == []


def test_every_module_that_takes_the_options_of_an_app_is_in_the_action_group():
    group = set(load("meta/runtime.yml")["action_groups"]["app"])
    takes = {
        path.stem for path in (TOP / "plugins/modules").glob("*.py") if "- beamops.bluegreen.app" in path.read_text()
    }
    assert group == takes


def test_every_filter_is_documented():
    listed = set(
        re.findall(r'^            "(\w+)": \w+,$', (TOP / "plugins/filter/bluegreen.py").read_text(), re.MULTILINE)
    )
    assert listed == {path.stem for path in (TOP / "plugins/filter").glob("*.yml")}


def test_every_playbook_is_in_the_readme():
    text = (TOP / "README.md").read_text()
    names = [path.name for path in (TOP / "playbooks").glob("*.yml") if not path.name.startswith("_")]
    assert [name for name in names if f"`{name}" not in text] == []


def test_no_document_has_a_gap():
    for path in [TOP / "README.md", *(TOP / "docs").glob("*.md")]:
        assert re.findall(r"\b(?:TABLE|FAULTS|TODO|[A-Z]+_LINE)(?:_[A-Z]+)?\b", path.read_text()) == [], path


def test_every_link_leads_somewhere():
    for path in [TOP / "README.md", *(TOP / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
            assert target.startswith("http") or (path.parent / target).exists(), f"{path}: {target}"
