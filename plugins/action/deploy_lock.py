# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of deploy_lock: take over at once from a run of this machine that is dead.

After Ctrl-C, or when a CI job was killed and is run again on its machine, nobody has to wait for the lock to become stale.
"""

from __future__ import annotations

import contextlib
import os
import time

from ansible import constants as C
from ansible import context
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible_collections.beamops.bluegreen.plugins.module_utils import _app
from ansible_collections.beamops.bluegreen.plugins.plugin_utils import _clock, _controller

_MODULE = "beamops.bluegreen.deploy_lock"
_UNLOCK = os.path.join(os.path.dirname(__file__), "..", "..", "playbooks", "unlock.yml")


class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        args = dict(self._task.args)
        state, run = args.get("state", "present"), args.get("run_id") or args.get("run")
        # One watchdog for the whole group; the first host is locked first and freed with the others.
        first = task_vars["inventory_hostname"] == task_vars["ansible_play_hosts_all"][0]
        folder = os.path.dirname(C.DEFAULT_LOCAL_TMP)
        if state == "absent" and run and first and not self._task.check_mode:
            _controller.stop_watchdog(folder, run)
        ended = args.pop("ended", None)
        if state == "absent" and ended:
            return dict(ended)
        with_clock = args.pop("with_clock", False)
        # Before it, because that also opens the connection, which tells nothing of how long the next step will take.
        clock = _clock.measure(self._ask) if with_clock else None
        began = time.monotonic()
        result = self._execute_module(module_name=_MODULE, module_args=args, task_vars=task_vars)
        refused = state != "absent" and not result.get("ok") and result.get("lock") and not self._task.check_mode
        if refused and _controller.is_dead(result["lock"].get("controller")):
            result = (self._take_over if state == "present" else self._break)(args, result, task_vars)
        if state == "present" and run and result.get("changed") and first and not self._task.check_mode:
            playbooks = context.CLIARGS.get("args") or ()
            _controller.start_watchdog(folder, run, playbooks, os.path.abspath(_UNLOCK))
        if result.get("ok") and with_clock:
            result["lock_window"] = [began, time.monotonic()]
            # The lock is held all the same; the next step reports that the host is unreachable.
            with contextlib.suppress(AnsibleConnectionFailure):
                clock = clock if _clock.is_exact(clock) else _clock.measure(self._ask, clock)
            result["clock"] = clock
        return result

    def _ask(self, command):
        return self._low_level_execute_command(command, sudoable=False).get("stdout", "")

    def _break(self, args, refused, task_vars):
        """Break the lock of just this run, which is dead for certain."""
        app = {name: value for name, value in args.items() if name in _app.APP_OPTIONS}
        return self._execute_module(
            module_name=_MODULE,
            module_args={**app, "state": "broken", "run_id": refused["lock"]["run"], "force": True},
            task_vars=task_vars,
        )

    def _take_over(self, args, refused, task_vars):
        broken = self._break(args, refused, task_vars)
        if not broken.get("ok"):
            # Its watchdog may have been quicker.
            return refused if broken.get("lock") else broken
        self._display.display(
            f"  {task_vars['inventory_hostname']}: took over from a run of this machine that is dead: {broken['msg']}"
        )
        return self._execute_module(module_name=_MODULE, module_args=args, task_vars=task_vars)
