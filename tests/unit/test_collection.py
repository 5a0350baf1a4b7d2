# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the collection agree with each other."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import re
import shlex

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


def documents():
    """Everything that a person reads first."""
    return [TOP / "README.md", *(TOP / "docs").rglob("*.md")]


def test_the_reference_pages_say_what_the_sources_say():
    """`make reference` writes them."""
    spec = importlib.util.spec_from_file_location("reference", TOP / "docs/reference.py")
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    for page, write in reference.PAGES.items():
        assert (TOP / "docs" / page).read_text() == write(), f"{page} is out of date: make reference"
    listed = [name for names in reference.groups().values() for name in names]
    options = load("roles/preflight/meta/argument_specs.yml")["argument_specs"]["variables"]["options"]
    assert sorted(listed) == sorted(options)
    public = {path.stem for path in (TOP / "playbooks").glob("*.yml") if not path.name.startswith("_")}
    assert set(reference.descriptions()) == public


def test_action_groups_hold_the_modules_that_take_their_options():
    groups = {name: set(modules) for name, modules in load("meta/runtime.yml")["action_groups"].items()}
    signs = {"app": "- beamops.bluegreen.app\n", "health": "- beamops.bluegreen.app.health\n", "locked": "  run_id:\n"}
    modules = {path.stem: path.read_text() for path in (TOP / "plugins/modules").glob("*.py")}
    takes = {group: {name for name, text in modules.items() if sign in text} for group, sign in signs.items()}
    assert groups == takes


def test_what_is_decided_for_the_group_is_decided_once():
    """Each host would decide by itself, and say so."""

    def tasks(found):
        for one in found or []:
            yield one
            for part in ("tasks", "block", "rescue", "always"):
                yield from tasks(one.get(part))

    decide = [
        (path.name, one["name"], one.get("run_once"))
        for folder in ("roles", "playbooks")
        for path in (TOP / folder).rglob("*.yml")
        if path.parent.name in ("tasks", "playbooks")
        for one in tasks(yaml.safe_load(path.read_text()))
        if "beamops.bluegreen.group" in one
    ]
    assert len(decide) > 15 and [one for one in decide if one[2] is not True] == []


def test_the_defaults_of_a_play_need_nothing_that_a_task_of_it_finds_out():
    """Before 2.19 Ansible evaluates all of them for each task, preflight included, and only preflight knows the id of the run."""
    for name in ("_operation", "_query"):
        for play in load(f"playbooks/{name}.yml"):
            assert "__bluegreen_locked_options" not in str(play.get("module_defaults"))


def test_every_filter_is_documented():
    listed = set(
        re.findall(r'^            "(\w+)": \w+,$', (TOP / "plugins/filter/bluegreen.py").read_text(), re.MULTILINE)
    )
    assert listed == {path.stem for path in (TOP / "plugins/filter").glob("*.yml")}


def test_every_playbook_is_in_the_readme():
    text = (TOP / "README.md").read_text()
    names = [path.name for path in (TOP / "playbooks").glob("*.yml") if not path.name.startswith("_")]
    assert [name for name in names if f"`{name}" not in text] == []


def test_the_version_is_the_same_everywhere():
    version = load("galaxy.yml")["version"]
    assert version.count(".") == 2
    released = set(load("changelogs/changelog.yaml")["releases"])
    fragments = list((TOP / "changelogs/fragments").glob("*.yml"))
    # Either it waits in fragments, or it is in the changelog.
    assert (version in released) != bool(fragments)
    known = released | {version}
    for path in [*(TOP / "plugins").rglob("*.py"), *(TOP / "plugins").rglob("*.yml")]:
        assert set(re.findall(r"version_added: ([\d.]+)", path.read_text())) <= known, path


def test_the_virtual_machine_is_the_same_everywhere():
    """Vagrantfile, inventory, scenario and how-to name one machine and one port."""
    inventory = "".join(path.read_text() for path in (TOP / "inventories/vagrant").rglob("*.yml"))
    for text in ((TOP / "Vagrantfile").read_text(), inventory):
        assert "bluegreen-web1" in text
    for path in ("Vagrantfile", "docs/how-to/virtual-machine.md", "molecule/vagrant/molecule.yml"):
        assert "18980" in (TOP / path).read_text(), path
    assert {"bluegreen_app", "bluegreen_domain"} <= set(re.findall(r"bluegreen_\w+", inventory))


def test_no_document_has_a_gap():
    for path in documents():
        assert re.findall(r"\b(?:TABLE|FAULTS|TODO|[A-Z]+_LINE)(?:_[A-Z]+)?\b", path.read_text()) == [], path


def test_every_link_leads_somewhere():
    for path in documents():
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
            assert target.startswith("http") or (path.parent / target).exists(), f"{path}: {target}"


def typed():
    """Every ansible-playbook that a document tells to type: (document, words)."""
    found = []
    for path in [*documents(), TOP / "roles/init/templates/README.md.j2"]:
        for line in path.read_text().splitlines():
            if line.startswith("ansible-playbook "):
                found.append((path.name, shlex.split(re.sub(r"{{.*?}}", "my_app", line), comments=True)))
    return found


def test_every_command_of_the_documents_names_a_playbook_and_variables_that_exist():
    known = set(load("roles/preflight/meta/argument_specs.yml")["argument_specs"]["variables"]["options"])
    words_of = {
        "init": {"app", "domain", "to"},
        "canary": {"percent", "watch"},
        "maintenance": {"state"},
        "rpc": {"expr", "color"},
    }
    words_of |= {
        "status": {"strict", "history", "format", "out"},
        "logs": {"color", "since", "grep"},
        "promote": {"color", "steps"},
        "stop": {"color"},
        "console": {"color"},
        "adopt": {"site", "port"},
    }
    assert len(typed()) > 25
    for document, words in typed():
        values = [word for word, before in zip(words[1:], words) if before == "-e"]
        options = [word for word, before in zip(words[1:], words) if before not in ("-e", "-i", "-l")]
        names = [word for word in options if not word.startswith("-")]
        assert len(names) == 1, f"{document}: {words}"
        name = names[0].removeprefix("beamops.bluegreen.").removeprefix("playbooks/").removesuffix(".yml")
        assert (TOP / f"playbooks/{name}.yml").is_file(), f"{document}: {names[0]}"
        for value in values:
            for variable in json.loads(value) if value.startswith("{") else [value.partition("=")[0]]:
                assert variable in known | words_of.get(name, set()), f"{document}: {value}"


def test_every_variable_that_a_document_sets_exists():
    known = set(load("roles/preflight/meta/argument_specs.yml")["argument_specs"]["variables"]["options"])
    for path in [
        *documents(),
        *(TOP / "roles/init/templates/group_vars").rglob("*.j2"),
    ]:
        named = set(re.findall(r"\bbluegreen_[a-z_]+", path.read_text()))
        named -= {
            "bluegreen_preview",
            "bluegreen_operation",
            "bluegreen_release",
            "bluegreen_slot",
            "bluegreen_hook",
            "bluegreen_reason",
        }
        assert {name for name in named if name not in known and f"{name}s" not in known} == set(), path


def test_no_text_of_set_up_begins_with_a_brace():
    """Before ansible-core 2.19 a template whose result begins with one is a dictionary, and a file of JSON would be one of Python."""
    texts = yaml.safe_load((TOP / "roles/preflight/vars/main/setup_files.yml").read_text())
    found = [text for text in texts.values() if isinstance(text, str) and "to_nice_json" in text]
    assert len(found) == 2 and all(text.startswith("\n") for text in found)
