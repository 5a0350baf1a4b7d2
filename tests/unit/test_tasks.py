# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be read off the tasks of an operation without a host: none acts while the gate of the group is shut, and each is judged."""

from __future__ import annotations

import functools
import pathlib
import re

import pytest
import yaml
from ansible.playbook.task import Task
from ansible_collections.beamops.bluegreen.plugins.plugin_utils import _gate

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


@functools.cache
def load(text):
    return yaml.safe_load(text)


class Walk:
    """Follows the tasks of an operation as Ansible does. Keeps in C(unguarded) which of them act while the gate may be shut, and in C(unjudged)
    which have a result that no gate has asked for since.

    :param changed: texts by path, instead of those in the tree.
    """

    def __init__(self, changed=None):
        self.changed, self.unguarded = changed or {}, []
        # Those that Finish judges need no gate of their own.
        self._judged_in_the_end, self._results = {step.rstrip("?") for step in _gate.AFTER_SWITCH}, {}

    def tasks(self, path):
        return load(self.changed.get(path) or (TOP / path).read_text())

    def file(self, path, guarded):
        """Whether a task after these is guarded as well: not once the gate has been asked again."""
        return self.sequence(self.tasks(path), path, guarded)

    def sequence(self, tasks, path, guarded):
        for task in tasks:
            guarded = self.task(task, path, guarded)
        return guarded

    @property
    def unjudged(self):
        return list(self._results.values())

    def task(self, task, path, guarded):
        if task.get("when") is False:
            return guarded
        if task.get("register") == "__bluegreen_gate":
            return False
        for name in (task.get("register", ""), *task.get(f"{BUILTIN}set_fact", ())):
            step = name.removeprefix("__bluegreen_")
            if step in _gate.STEPS and step not in self._judged_in_the_end:
                self._results[step] = f"{path}: {task['name']}"
        for step in task.get("vars", {}).get("__bluegreen_steps", ()):
            self._results.pop(step.rstrip("?"), None)
        conditions = task.get("when", [])
        here = guarded or any(
            GUARD.fullmatch(str(one)) for one in (conditions if isinstance(conditions, list) else [conditions])
        )
        if "block" in task:
            after = [self.sequence(task[part], path, here) for part in ("block", "rescue", "always") if part in task]
            return guarded and all(after)
        [module] = set(task) - set(Task.fattributes)
        short = module.removeprefix(BUILTIN)
        if short in INCLUDES:
            after, files = [], self.included(path, short, task[module])
            if not files and not here:
                self.unguarded.append(f"{path}: {task['name']}")
            for included in files:
                open_after = self.file(included, here)
                # The conditions of a loop are evaluated before its first round.
                after.append(self.file(included, False) if "loop" in task and here and not open_after else open_after)
            return guarded and all(after)
        if not here and short not in HARMLESS:
            self.unguarded.append(f"{path}: {task['name']}")
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
        files = sorted(str(one.relative_to(TOP)) for one in (TOP / folder).glob(pattern))
        assert files, f"{path} includes {folder}/{pattern}, which does not exist"
        return files


def operations():
    """The tasks of each playbook that locks hosts."""
    for playbook in sorted((TOP / "playbooks").glob("*.yml")):
        for play in load(playbook.read_text()):
            if play.get(f"{BUILTIN}import_playbook") == "_operation.yml":
                yield f"playbooks/tasks/{play['vars']['__bluegreen_operation']}.yml"


def found(changed=None):
    """What is wrong with the operations."""
    wrong = set()
    for path in operations():
        walk = Walk(changed)
        walk.file("roles/slot/tasks/lock.yml", True)
        walk.file(path, False)
        wrong |= {f"{one} (unguarded)" for one in walk.unguarded} | {f"{one} (unjudged)" for one in walk.unjudged}
    return sorted(wrong)


def test_nothing_acts_while_the_gate_is_shut_and_every_step_is_judged():
    assert found() == []
    assert len(list(operations())) > 5


@pytest.mark.parametrize(
    ("path", "old", "new", "wrong"),
    [
        # An include that is not guarded any more, or by the opposite.
        (
            "playbooks/tasks/stop.yml",
            "  when: __bluegreen_gate.ok",
            "",
            "roles/slot/tasks/stop.yml: Stop the slot (unguarded)",
        ),
        (
            "playbooks/tasks/stop.yml",
            "when: __b",
            "when: not __b",
            "roles/slot/tasks/stop.yml: Stop the slot (unguarded)",
        ),
        # A task in a loop, after the first round has asked the gate.
        (
            "roles/slot/tasks/restart.yml",
            "    - __bluegreen_gate.ok\n",
            "",
            "roles/slot/tasks/restart.yml: Restart the slot and wait until it is healthy (unguarded)",
        ),
        # The user's own tasks.
        (
            "playbooks/tasks/deploy.yml",
            "    - bluegreen_hooks.after_install | default([]) | length > 0\n    - __bluegreen_gate.ok",
            "    - true",
            "roles/slot/tasks/hook.yml: Run the hook (unguarded)",
        ),
        # What undoes, where nothing is to be undone.
        (
            "playbooks/tasks/deploy.yml",
            "when: \"'slots' in __bluegreen_gate.undo\"",
            "when: true",
            "roles/slot/tasks/deploy_undo.yml: Give the slot back its previous content (unguarded)",
        ),
        # A result that nobody asks for.
        (
            "roles/slot/tasks/deploy_slot.yml",
            "__bluegreen_steps: [deployed]",
            "__bluegreen_steps: [listed]",
            "roles/slot/tasks/deploy_slot.yml: Put the release into the slot and wait until it is healthy (unjudged)",
        ),
        (
            "roles/slot/tasks/lock.yml",
            "  ansible.builtin.import_tasks: gate.yml\n",
            "  ansible.builtin.import_tasks: gate.yml\n  when: false\n",
            "roles/slot/tasks/lock_host.yml: Acquire the lock and read the slots (unjudged)",
        ),
    ],
)
def test_what_is_wrong_is_found(path, old, new, wrong):
    text = (TOP / path).read_text()
    assert text.count(old) == 1
    assert found({path: text.replace(old, new)}) == [wrong]
