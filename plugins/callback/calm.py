# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A terminal that is quiet while all is well."""

from __future__ import annotations

DOCUMENTATION = """
name: calm
type: stdout
short_description: A line for each step with the seconds it took, and what the playbooks say
version_added: 1.0.0
description:
  - Steps that touch a host, how long they took, and where they changed something. What fails, with its reason. Nothing else, so
    that the plan, the table and the reasons that the playbooks of this collection print can be read.
  - With C(-v) it is as the callback P(ansible.builtin.default#callback).
author:
  - The beamops.bluegreen contributors (@beamops)
extends_documentation_fragment:
  - default_callback
  - result_format_callback
requirements:
  - V(stdout_callback = beamops.bluegreen.calm) in C(ansible.cfg)
"""

import functools
import time

from ansible import constants as C
from ansible.plugins.callback.default import CallbackModule as Default

# These run on the controller, and print what there is to print themselves.
_QUIET = (
    "assert",
    "debug",
    "fail",
    "group",
    "include_role",
    "include_tasks",
    "meta",
    "say",
    "set_fact",
    "validate_argument_spec",
)
# A line names no more hosts than these.
_NAMED = 4


def _part(result, name):
    """The parts of a result have lost their underscore in ansible-core 2.19."""
    return getattr(result, name) if hasattr(result, name) else getattr(result, f"_{name}")


def _action(task):
    return task.action.rpartition(".")[2]


def _with_v(method):
    """What the default callback does, and nothing without C(-v)."""

    @functools.wraps(method)
    def only_then(self, *args, **kwargs):
        if not self._calm():
            method(self, *args, **kwargs)

    return only_then


class CallbackModule(Default):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "beamops.bluegreen.calm"

    def __init__(self):
        super().__init__()
        self._began = time.monotonic()
        self._step, self._step_began, self._touched, self._changed = None, 0.0, False, []

    def _calm(self):
        return not self._display.verbosity

    v2_playbook_on_start = _with_v(Default.v2_playbook_on_start)
    v2_playbook_on_include = _with_v(Default.v2_playbook_on_include)
    v2_playbook_on_notify = _with_v(Default.v2_playbook_on_notify)
    v2_runner_on_skipped = _with_v(Default.v2_runner_on_skipped)
    v2_runner_item_on_ok = _with_v(Default.v2_runner_item_on_ok)
    v2_runner_item_on_failed = _with_v(Default.v2_runner_item_on_failed)
    v2_runner_item_on_skipped = _with_v(Default.v2_runner_item_on_skipped)

    # --- steps ---

    def _end_step(self):
        if self._step and self._touched:
            seconds = time.monotonic() - self._step_began
            hosts = sorted(self._changed)
            names = ", ".join(hosts) if len(hosts) <= _NAMED else f"{len(hosts)} hosts"
            self._display.display(
                f"{seconds:7.1f} s  {self._step}" + (f"  changed {names}" if hosts else ""),
                color=C.COLOR_CHANGED if hosts else C.COLOR_OK,
            )
        self._step, self._touched, self._changed = None, False, []

    def _begin_step(self, task):
        self._end_step()
        # Without the role that it comes from.
        self._step = None if _action(task) in _QUIET else task.get_name().rpartition(" : ")[2].strip()
        self._step_began = time.monotonic()

    def v2_playbook_on_play_start(self, play):
        if not self._calm():
            super().v2_playbook_on_play_start(play)
        self._end_step()
        self._play = play

    def v2_playbook_on_task_start(self, task, is_conditional):
        if self._calm():
            self._begin_step(task)
        else:
            super().v2_playbook_on_task_start(task, is_conditional)

    def v2_playbook_on_handler_task_start(self, task):
        if self._calm():
            self._begin_step(task)
        else:
            super().v2_playbook_on_handler_task_start(task)

    def v2_playbook_on_stats(self, stats):
        if not self._calm():
            super().v2_playbook_on_stats(stats)
            return
        self._end_step()
        bad = [host for host in sorted(stats.processed) if stats.failures.get(host) or stats.dark.get(host)]
        self._display.display(
            f"{time.monotonic() - self._began:7.1f} s  in all" + (", and it failed" if bad else ""),
            color=C.COLOR_ERROR if bad else C.COLOR_OK,
        )

    # --- results ---

    def _seen(self, result):
        found = _part(result, "result")
        self._touched = True
        for warning in found.get("warnings") or []:
            self._display.warning(str(warning))
        return found, _part(result, "host").get_name()

    def _bad(self, result, what):
        found, host = self._seen(result)
        # What is said for the whole group is not of the host that says it.
        whose = "" if _action(_part(result, "task")) in ("group", "say") else f"{host}: "
        items = [one for one in found.get("results") or [] if isinstance(one, dict) and one.get("failed")]
        for one in items or [found]:
            reason = one.get("msg") or one.get("censored") or "it does not say why; -v shows all"
            first, *rest = str(reason).splitlines()
            lines = [f"  {whose}{what}{first}", *(f"    {line}" for line in rest)]
            self._display.display("\n".join(lines), color=C.COLOR_ERROR)

    def v2_runner_on_ok(self, result):
        if not self._calm():
            super().v2_runner_on_ok(result)
            return
        found, host = self._seen(result)
        if found.get("changed"):
            self._changed.append(host)
        if _action(_part(result, "task")) == "debug" and found.get("msg"):
            self._display.display(f"  {host}: {found['msg']}")

    def v2_runner_on_failed(self, result, ignore_errors=False):
        if not self._calm():
            super().v2_runner_on_failed(result, ignore_errors)
        elif ignore_errors:
            # The playbook that ignores the failure reports it itself.
            self._seen(result)
        else:
            self._bad(result, "")

    def v2_runner_on_unreachable(self, result):
        if not self._calm():
            super().v2_runner_on_unreachable(result)
        elif getattr(_part(result, "task"), "ignore_unreachable", False):
            self._seen(result)
        else:
            self._bad(result, "unreachable: ")

    def v2_runner_retry(self, result):
        if not self._calm():
            super().v2_runner_retry(result)
            return
        found, host = self._seen(result)
        left = found.get("retries", 0) - found.get("attempts", 0)
        self._display.display(f"  {host}: {found.get('msg') or 'not yet'} Retrying, {left} left.")
