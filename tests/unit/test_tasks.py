# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be read off the tasks of an operation without a host: that none of them acts while the gate of the group is shut."""

from __future__ import annotations

import functools
import pathlib
import re

import pytest
import yaml

TOP = pathlib.Path(__file__).parents[2]
# Lets a task act: the group is good, or the task undoes what was done when it was not.
GUARD = re.compile(r"__bluegreen_gate\.(ok|worse)|'\w+' in __bluegreen_gate\.undo|__bluegreen_switch_times\.back")
BUILTIN = "ansible.builtin."
INCLUDES = ("include_tasks", "import_tasks", "include_role", "import_role")
# Reads, decides or tells, and changes nothing.
HARMLESS = (
    "assert",
    "fail",
    "meta",
    "set_fact",
    "beamops.bluegreen.group",
    "beamops.bluegreen.say",
    "beamops.bluegreen.slot_info",
)
KEYWORDS = {
    *(
        "name",
        "when",
        "vars",
        "register",
        "run_once",
        "loop",
        "loop_control",
        "delegate_to",
        "no_log",
        "timeout",
        "until",
        "retries",
        "delay",
    ),
    *(
        "changed_when",
        "failed_when",
        "ignore_errors",
        "ignore_unreachable",
        "any_errors_fatal",
        "become",
        "check_mode",
        "module_defaults",
    ),
}


@functools.cache
def load(text):
    return yaml.safe_load(text)


class Walk:
    """Follows the tasks of an operation as Ansible does, and keeps in C(found) which of them act unguarded.

    :param changed: texts by path, instead of those in the tree.
    """

    def __init__(self, changed=None):
        self.changed, self.found = changed or {}, []

    def tasks(self, path):
        return load(self.changed.get(path) or (TOP / path).read_text())

    def file(self, path, guarded):
        """Whether a task after these is guarded as well: not once the gate has been asked again."""
        return self.sequence(self.tasks(path), path, guarded)

    def sequence(self, tasks, path, guarded):
        for task in tasks:
            guarded = self.task(task, path, guarded)
        return guarded

    def task(self, task, path, guarded):
        if task.get("register") == "__bluegreen_gate":
            return False
        conditions = task.get("when", [])
        here = guarded or any(
            GUARD.fullmatch(str(one)) for one in (conditions if isinstance(conditions, list) else [conditions])
        )
        if "block" in task:
            after = [self.sequence(task[part], path, here) for part in ("block", "rescue", "always") if part in task]
            return guarded and all(after)
        [module] = set(task) - KEYWORDS
        short = module.removeprefix(BUILTIN)
        if short in INCLUDES:
            after, files = [], self.included(path, short, task[module])
            if not files and not here:
                self.found.append(f"{path}: {task['name']}")
            for included in files:
                open_after = self.file(included, here)
                # The conditions of a loop are evaluated before its first round.
                after.append(self.file(included, False) if "loop" in task and here and not open_after else open_after)
            return guarded and all(after)
        if not here and short not in HARMLESS:
            self.found.append(f"{path}: {task['name']}")
        return guarded

    def included(self, path, how, what):
        """The files that an include may take: none, where they are the user's own."""
        if "role" in how:
            folder, name = f"roles/{what['name'].rpartition('.')[2]}/tasks", what.get("tasks_from", "main")
        else:
            folder, name = path.rpartition("/")[0], what.removesuffix(".yml")
        if name.startswith("{{"):
            return []
        pattern = re.sub(r"\{\{.*?\}\}", "*", name) + ".yml"
        found = sorted(str(one.relative_to(TOP)) for one in (TOP / folder).glob(pattern))
        assert found, f"{path} includes {folder}/{pattern}, which does not exist"
        return found


def operations():
    """The tasks of each playbook that locks hosts."""
    for playbook in sorted((TOP / "playbooks").glob("*.yml")):
        for play in load(playbook.read_text()):
            if play.get(f"{BUILTIN}import_playbook") == "_operation.yml":
                yield f"playbooks/tasks/{play['vars']['__bluegreen_operation']}.yml"


def unguarded(changed=None):
    """Tasks that act on a host although the gate may be shut."""
    walk = Walk(changed)
    for path in operations():
        # The lock that comes first asks the gate.
        walk.file(path, False)
    return sorted(set(walk.found))


def test_nothing_acts_while_the_gate_is_shut():
    assert unguarded() == []
    assert len(list(operations())) > 5


@pytest.mark.parametrize(
    ("path", "old", "new", "found"),
    [
        # An include that is not guarded any more, or by the opposite.
        ("playbooks/tasks/stop.yml", "  when: __bluegreen_gate.ok", "", "roles/slot/tasks/stop.yml: Stop the slot"),
        ("playbooks/tasks/stop.yml", "when: __b", "when: not __b", "roles/slot/tasks/stop.yml: Stop the slot"),
        # A task in a loop, after the first round has asked the gate.
        (
            "roles/slot/tasks/restart.yml",
            "    - __bluegreen_gate.ok\n",
            "",
            "roles/slot/tasks/restart.yml: Restart the slot and wait until it is healthy",
        ),
        # The user's own tasks.
        (
            "playbooks/tasks/deploy.yml",
            "    - bluegreen_hooks.after_install | default([]) | length > 0\n    - __bluegreen_gate.ok",
            "    - true",
            "roles/slot/tasks/hook.yml: Run the hook",
        ),
        # What undoes, where nothing is to be undone.
        (
            "playbooks/tasks/deploy.yml",
            "when: \"'slots' in __bluegreen_gate.undo\"",
            "when: true",
            "roles/slot/tasks/deploy_undo.yml: Give the slot back its previous content",
        ),
    ],
)
def test_what_acts_unguarded_is_found(path, old, new, found):
    text = (TOP / path).read_text()
    assert text.count(old) == 1
    assert unguarded({path: text.replace(old, new)}) == [found]
