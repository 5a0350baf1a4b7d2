# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""tests/promises.yml names a test for everything that the collection promises; what is new has a row, and a row has a test."""

from __future__ import annotations

import ast
import functools
import pathlib
import re

import pytest
import yaml

TOP = pathlib.Path(__file__).parents[2]
LEDGER = yaml.safe_load((TOP / "tests/promises.yml").read_text())
PLACES = {
    **{path.parent.name: f"molecule/{path.parent.name}/tests" for path in TOP.glob("molecule/*/tests")},
    "unit": "tests/unit",
}
# The options that modules share have rows of their own.
SHARED = {
    "_app": ("plugins/module_utils/_app.py", "APP_OPTIONS"),
    "_health": ("plugins/module_utils/_app.py", "HEALTH_OPTIONS"),
    "_look": ("plugins/module_utils/_info.py", "INFO_OPTIONS"),
}


def rows(section=None, found=None):
    """(section, name, row) of the whole ledger, or of a part."""
    found = LEDGER if found is None else found
    for name, row in found.items():
        if isinstance(row, dict) and "because" not in row:
            yield from rows(f"{section}/{name}" if section else name, row)
        else:
            yield section, name, row


def named_in(row):
    return row["unit"] if isinstance(row, dict) else row


@functools.cache
def module_of(test):
    """(path, syntax tree) of the file of a test such as default/test_1_cycle.py::test_rollback."""
    place, name = test.partition("::")[0].split("/")
    path = TOP / PLACES[place] / name
    return path, ast.parse(path.read_text()) if path.exists() else None


@functools.cache
def definitions(test):
    """Name to syntax tree of all that a file of tests defines at its top."""
    found = {}
    for node in module_of(test)[1].body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = node
        elif isinstance(node, ast.Assign):
            found.update({target.id: node for target in node.targets if isinstance(target, ast.Name)})
    return found


def parts_of(test):
    """The syntax trees that a test is made of: itself, and what it uses of its file, fixtures that run by themselves included."""
    known = definitions(test)
    waiting = [test.partition("::")[2]]
    waiting += [name for name, node in known.items() if "autouse" in ast.dump(node)]
    seen = set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in known:
            continue
        seen.add(name)
        yield known[name]
        for node in ast.walk(known[name]):
            if isinstance(node, (ast.Name, ast.arg)):
                waiting.append(node.id if isinstance(node, ast.Name) else node.arg)


def values_of(test, variable):
    """What a test, or the inventory of its scenario, sets a variable to; V(None) for what is only known when it runs."""
    for part in parts_of(test):
        for node in ast.walk(part):
            pairs = list(zip(node.keys, node.values)) if isinstance(node, ast.Dict) else []
            if isinstance(node, ast.Call):
                pairs += [(ast.Constant(word.arg), word.value) for word in node.keywords if word.arg]
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
                pairs.append((node.targets[0].slice, node.value))
            for key, value in pairs:
                if isinstance(key, ast.Constant) and key.value == variable:
                    try:
                        yield ast.literal_eval(value)
                    except ValueError:
                        yield None
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield from re.findall(rf"^{variable}=(.*)", node.value)
            if isinstance(node, ast.JoinedStr) and ast.unparse(node)[2:].startswith(f"{variable}="):
                yield None
    scenario = TOP / "molecule" / test.split("/")[0] / "molecule.yml"
    if scenario.exists():
        text = scenario.read_text() + (scenario.parents[1] / "common.yml").read_text()
        yield from re.findall(rf"^ +{variable}: *(.*)$", text, re.MULTILINE)


def variables():
    spec = yaml.safe_load((TOP / "roles/preflight/meta/argument_specs.yml").read_text())
    return spec["argument_specs"]["variables"]["options"]


def options_in(path, name):
    """Names of the options in a call of dict(...) that a name is assigned to."""
    for node in ast.walk(ast.parse((TOP / path).read_text())):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == name:
            return {word.arg for word in node.value.keywords if word.arg}
    raise AssertionError(f"{path} has no {name}")


def test_every_variable_has_a_row():
    assert set(LEDGER["variables"]) == set(variables())


def test_every_playbook_has_a_row():
    assert set(LEDGER["playbooks"]) == {
        path.stem for path in (TOP / "playbooks").glob("*.yml") if not path.name.startswith("_")
    }


def test_every_file_of_tasks_has_a_row():
    found = [*TOP.glob("roles/*/tasks/*.yml"), *TOP.glob("playbooks/tasks/*.yml")]
    # A playbook that only imports has nothing to take out.
    found += [path for path in TOP.glob("playbooks/*.yml") if "  tasks:" in path.read_text()]
    assert set(LEDGER["tasks"]) == {str(path.relative_to(TOP)) for path in found}


def test_every_filter_has_a_row():
    assert set(LEDGER["filters"]) == {path.stem for path in (TOP / "plugins/filter").glob("*.yml")}


def test_every_option_of_every_module_has_a_row():
    wanted = {name: options_in(*place) for name, place in SHARED.items()}
    for path in (TOP / "plugins/modules").glob("*.py"):
        documented = yaml.safe_load(re.search(r'DOCUMENTATION = r"""(.*?)"""', path.read_text(), re.DOTALL).group(1))
        if documented.get("options"):
            wanted[path.stem] = set(documented["options"])
    found = {name: set(options) for name, options in LEDGER["modules"].items()}
    assert found == wanted


DOCUMENTS = (
    "README.md",
    "docs/comparison.md",
    "docs/how-to",
    "docs/reliability.md",
    "docs/zero-downtime.md",
    "docs/tutorial.md",
    "docs/coming-from.md",
    "docs/upgrading.md",
)


def text_of(path):
    """The text of a document, or of all documents in a folder."""
    place = TOP / path
    return "\n".join(page.read_text() for page in sorted(place.glob("*.md"))) if place.is_dir() else place.read_text()


def promises(path):
    """What a document promises: its table rows that say yes, its bold points, its headings."""
    text = text_of(path)
    if path == "README.md":
        part = text.partition("\n## Features")[2].partition("\n## ")[0]
        undo = text.partition("\n## Undo")[2].partition("\n## ")[0]
        return set(re.findall(r"^- \*\*(.+?)\*\*", part, re.MULTILINE)) | set(
            re.findall(r"^\| ((?!you want|---)[^|]+?) \|", undo, re.MULTILINE)
        )
    if path == "docs/comparison.md":
        return set(re.findall(r"^\| ([^|]+?) \| (?:yes|a lock|the next run)", text, re.MULTILINE))
    if path == "docs/reliability.md":
        found = set(re.findall(r"^\d\. \*\*(.+?)\*\*", text, re.MULTILINE))
        table = text.partition("\n## How it holds")[2].partition("\n## ")[0]
        return found | set(re.findall(r"^\| ((?!what could|---)[^|]+?) \|", table, re.MULTILINE))
    if path == "docs/how-to":
        return set(re.findall(r"^# ([A-Z].+)$", text, re.MULTILINE))
    return set(re.findall(r"^## (.+)$", text, re.MULTILINE))


@pytest.mark.parametrize("path", DOCUMENTS)
def test_every_promise_of_the_documents_has_a_row(path):
    missing = promises(path) - set(LEDGER["documents"][path])
    assert not missing, f"{path}: {sorted(missing)}"
    # A row for what no document says any more proves nothing to anybody.
    assert [name for name in LEDGER["documents"][path] if name not in text_of(path)] == []


def test_every_row_names_tests_that_exist():
    for section, name, row in rows():
        assert row != "MISSING" and named_in(row), f"{section}: {name} has no test"
        for test in named_in(row):
            path, tree = module_of(test)
            assert tree is not None, f"{section}: {name}: there is no {path}"
            # A whole file goes through its tests in their order, each where the last has left off.
            assert "::" not in test or test.partition("::")[2] in definitions(test), f"{section}: {name}: no {test}"


def test_only_what_no_host_can_show_is_proven_without_one():
    for section, name, row in rows():
        if isinstance(row, list):
            assert any(not test.startswith("unit/") for test in row), f"{section}: {name}: say why, in `because`"
        else:
            assert len(row["because"].split()) > 3, f"{section}: {name}"


def test_the_test_of_a_variable_sets_it_to_something_else_than_its_default():
    spec = variables()
    for name, row in LEDGER["variables"].items():
        default = str(spec[name].get("default", "")).lower()
        for test in named_in(row):
            values = list(values_of(test, name))
            assert values, f"{test} does not set {name}"
            assert any(value is None or str(value).lower() != default for value in values), (
                f"{test}: {name} is {values}"
            )
