# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print lines as they are. Documented with the module of the same name."""

from __future__ import annotations

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        for line in self._task.args["lines"]:
            self._display.display(f"  {line}")
        failed = self._task.args.get("failed") or ""
        result.update(changed=False, failed=bool(failed), msg=failed)
        return result
