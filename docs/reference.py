# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes docs/variables.md and docs/playbooks.md from the sources: `make reference`. A unit test fails when they are out of date."""

from __future__ import annotations

import json
import pathlib
import re

import yaml

TOP = pathlib.Path(__file__).parents[1]
SPECIFICATION = TOP / "roles/preflight/meta/argument_specs.yml"
NOTE = "<!-- Written by docs/reference.py. Change {source} instead. -->\n\n"


def markdown(text: str) -> str:
    """A description of Ansible's documentation as Markdown."""
    return re.sub(r"\b[CVOIM]\((.+?)\)", r"`\1`", " ".join(text.split()))


def default(option: dict) -> str:
    if option.get("required"):
        return "required"
    value = option.get("default")
    if value in ("", [], {}, None):
        return ""
    text = json.dumps(value) if isinstance(value, (list, dict, bool)) else str(value)
    return f"default `{text}`"


def variables() -> str:
    """The page of all variables, in the groups of the specification."""
    options = yaml.safe_load(SPECIFICATION.read_text())["argument_specs"]["variables"]["options"]
    text = "# Variables\n\n" + NOTE.format(source="roles/preflight/meta/argument_specs.yml")
    text += (
        "Put them into `group_vars`, or set one for a single run with `-e`. The collection checks all of them on your machine before "
        "it connects to a host, and refuses unknown `bluegreen_` variables.\n"
    )
    for title, names in groups().items():
        text += f"\n## {title}\n\n"
        for name in names:
            option = options[name]
            words = " ".join(markdown(part) for part in option["description"])
            kind = " or ".join(f"`{choice}`" for choice in option["choices"]) if "choices" in option else option["type"]
            text += f"- **`{name}`** ({', '.join(filter(None, [kind, default(option)]))}): {words}\n"
    return text + "\n" + SLOT_ENVIRONMENT


def groups() -> dict[str, list[str]]:
    """Title to names of variables: each group of the specification begins with a comment of its own."""
    found: dict[str, list[str]] = {}
    for title, name in re.findall(r"^      # --- (.+) ---$|^      (bluegreen_\w+):$", SPECIFICATION.read_text(), re.M):
        if title:
            found[title] = []
        else:
            found[list(found)[-1]].append(name)
    return found


SLOT_ENVIRONMENT = """## Set by the slot

Every slot also sets environment variables of its own.

| variable | value |
|---|---|
| `PORT`, `BLUEGREEN_COLOR`, `RELEASE_NODE`, `RELEASE_DISTRIBUTION`, `RELEASE_TMP` | what tells the two slots apart; you cannot set these |
| `ERL_EPMD_ADDRESS`, `ERL_AFLAGS`, `BLUEGREEN_VM_FLAGS` | where the node and its port mapper listen; you cannot set these, but `ERL_FLAGS` |
| `BLUEGREEN_NODES` | with `bluegreen_cluster`, the nodes that this one keeps a connection with, separated by commas; you cannot set it |
| `BLUEGREEN_LIVE_FILE` | path of a file that exists while this slot is live; you cannot set it |
| `PHX_SERVER`, `PHX_HOST` | `true`, and the domain; a worker has no `PHX_SERVER` |
| `RELEASE_COOKIE` | one for the app, kept on the server |
| `HOME`, `LANG`, `ERL_CRASH_DUMP` | the state directory, `C.UTF-8`, a file in the state directory |

A value in `bluegreen_env` replaces those that you can set.
"""


def playbooks() -> str:
    """The page of all playbooks, made of the comment that each begins with."""
    text = "# Playbooks\n\n" + NOTE.format(source="the comment at the top of the playbook")
    text += (
        "Run them as `ansible-playbook deploy.yml` in the folder that `init.yml` wrote, or as\n"
        "`ansible-playbook beamops.bluegreen.deploy` anywhere. All playbooks support `--check` and `--diff`. A second run\n"
        "changes nothing more, except that `rollback.yml` goes back one more release and `init.yml` refuses an existing folder.\n"
        "Every option is given with `-e`, and every [variable](variables.md) can be too.\n"
    )
    for name, (about, options) in descriptions().items():
        text += f"\n## {name}.yml\n\n{about}\n"
        if options:
            text += "\n| option | meaning |\n|---|---|\n" + "".join(
                f"| `{key}` | {words} |\n" for key, words in options
            )
    return text


def descriptions() -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """Name of each public playbook to (what it does, its options)."""
    order = "init setup build deploy promote rollback canary maintenance migrate status logs env rpc console join restart stop unlock adopt".split()
    found = {}
    for name in order:
        lines = (TOP / f"playbooks/{name}.yml").read_text().splitlines()[1:]
        comment = [line[1:].strip() for line in lines[: next(i for i, line in enumerate(lines) if line[:1] != "#")]]
        about, _blank, options = "\n".join(comment).partition("\n\n")
        pairs = [tuple(line.split(": ", 1)) for line in options.splitlines()]
        found[name] = (" ".join(about.split()), pairs)
    return found


PAGES = {"variables.md": variables, "playbooks.md": playbooks}

if __name__ == "__main__":
    for page, write in PAGES.items():
        (TOP / "docs" / page).write_text(write())
