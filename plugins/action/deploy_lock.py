# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of deploy_lock: take over at once from a run of this machine that is dead.

After Ctrl-C, or when a CI job was killed and is run again on its machine, nobody has to wait for the lock to become stale.
"""

from __future__ import annotations

from ansible.plugins.action import ActionBase
from ansible_collections.beamops.bluegreen.plugins.plugin_utils import _controller

_MODULE = "beamops.bluegreen.deploy_lock"


class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        args = dict(self._task.args)
        result = self._execute_module(module_name=_MODULE, module_args=args, task_vars=task_vars)
        held = result.get("lock")
        if args.get("state", "present") != "present" or result.get("ok") or not held:
            return result
        if self._task.check_mode or not _controller.is_dead(held.get("controller")):
            return result
        app = {
            name: value
            for name, value in args.items()
            if name not in ("run", "holder", "operation", "host", "controller")
        }
        broken = self._execute_module(
            module_name=_MODULE,
            module_args={**app, "state": "broken", "run": held["run"], "force": True},
            task_vars=task_vars,
        )
        if not broken.get("ok"):
            return result
        self._display.display(
            f"  {task_vars['inventory_hostname']}: took over from a run of this machine that is dead: {broken['msg']}"
        )
        return self._execute_module(module_name=_MODULE, module_args=args, task_vars=task_vars)
