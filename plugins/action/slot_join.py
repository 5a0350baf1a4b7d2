# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carry packed releases from one host to another. Documented with the module of the same name."""

from __future__ import annotations

import os
import tempfile

from ansible import constants as C
from ansible.plugins.action import ActionBase
from ansible_collections.beamops.bluegreen.plugins.plugin_utils import _transfer

_MODULE = "beamops.bluegreen.slot_join"


class ActionModule(ActionBase):
    # Both ways need a directory on the host that the user of the connection owns.
    TRANSFERS_FILES = True

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        args = dict(self._task.args)
        if args["state"] == "packed":
            return self._packed(args, task_vars)
        if args["state"] == "unpacked":
            return self._unpacked(args, task_vars)
        return self._execute_module(module_name=_MODULE, module_args=args, task_vars=task_vars)

    def _packed(self, args, task_vars):
        folder = self._make_tmp_path()
        try:
            result = self._execute_module(
                module_name=_MODULE, module_args={**args, "folder": folder}, task_vars=task_vars
            )
            # Of its own: several hosts may join at once, and take the same release.
            local = tempfile.mkdtemp(prefix="bluegreen-", dir=C.DEFAULT_LOCAL_TMP)
            for release, there in result.get("sources", {}).items():
                here = os.path.join(local, os.path.basename(there))
                self._connection.fetch_file(there, here)
                result["sources"][release] = here
                self._display.display(f"  {release}: {_transfer.size(os.path.getsize(here))} from a host of the group")
            return result
        finally:
            self._remove_tmp_path(folder)

    def _unpacked(self, args, task_vars):
        folder, sources = self._make_tmp_path(), {}
        try:
            for release, here in args["sources"].items():
                sources[release] = self._connection._shell.join_path(folder, f"{release}.tar.gz")
                self._transfer_file(here, sources[release])
            if sources:
                self._fixup_perms2((folder, *sources.values()), execute=False)
            return self._execute_module(
                module_name=_MODULE, module_args={**args, "sources": sources}, task_vars=task_vars
            )
        finally:
            self._remove_tmp_path(folder)
