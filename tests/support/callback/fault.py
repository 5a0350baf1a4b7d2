# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A callback of the tests: harm at a chosen point of a playbook.

C(FAULT_POINT=N) kills the run, with all its children, at the N-th point: when the first host of a task has answered and the
others may be at work, and when all of them have. Tasks that only work on the controller make no points: a kill after one of
those is the same, for the hosts, as a kill after the task before it. C(FAULT_POINTS=FILE) gets the number of points.
C(FAULT_TASK=NAME) runs the shell command C(FAULT_COMMAND) before the task of that name starts, and goes on.
"""

from __future__ import annotations

import os
import signal
import subprocess

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: fault
type: aggregate
short_description: Harm at a chosen point of a playbook
description: For the tests of this collection.
"""

HARMLESS = (
    "set_fact",
    "include_tasks",
    "include_role",
    "import_tasks",
    "import_role",
    "meta",
    "assert",
    "fail",
    "group",
    "say",
    "preflight",
)


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "fault"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.points, self.answered, self.touching = 0, False, False

    def _point(self):
        self.points += 1
        if str(self.points) == os.environ.get("FAULT_POINT"):
            os.killpg(os.getpgrp(), signal.SIGKILL)

    def _over(self):
        if self.answered:
            self._point()
        self.answered = False

    def _result(self, *_args, **_kwargs):
        if self.touching and not self.answered:
            self.answered = True
            self._point()

    v2_runner_on_ok = v2_runner_on_failed = v2_runner_on_unreachable = _result

    def v2_playbook_on_task_start(self, task, is_conditional):
        self._over()
        self.touching = task.action.rpartition(".")[2] not in HARMLESS
        if task.get_name().endswith(os.environ.get("FAULT_TASK", "no such task")):
            subprocess.run(["sh", "-c", os.environ["FAULT_COMMAND"]], check=True, stdout=subprocess.DEVNULL)

    def v2_playbook_on_stats(self, stats):
        self._over()
        if "FAULT_POINTS" in os.environ:
            with open(os.environ["FAULT_POINTS"], "w", encoding="utf-8") as stream:
                stream.write(str(self.points))
