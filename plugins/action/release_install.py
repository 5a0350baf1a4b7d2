# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of release_install: look at the artifact, ask the host, upload only what it does not have."""

from __future__ import annotations

import os

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.beamops.bluegreen.plugins.module_utils import _artifact, _rules

_MODULE = "beamops.bluegreen.release_install"


class ActionModule(ActionBase):
    TRANSFERS_FILES = True

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        args = dict(self._task.args)
        artifact = args.get("artifact") or ""
        if not isinstance(artifact, str) or _rules.is_url(artifact):
            # A module logs its options on the host; a signature or a password in a URL must not be among them.
            args.update(artifact=_rules.bare_url(artifact), url=artifact)
            return self._execute_module(module_name=_MODULE, module_args=args, task_vars=task_vars)
        try:
            # Beside the person who typed it, not beside a playbook that may be installed anywhere.
            path = os.path.abspath(os.path.expanduser(artifact))
            if not args.get("inspected"):
                args["inspected"] = _artifact.inspect(path, args.get("app"))
                if args.get("checksum") and _rules.check_checksum(args["checksum"]) != args["inspected"]["sha256"]:
                    raise _rules.Refused(
                        f"the artifact has SHA-256 {args['inspected']['sha256']}, not that of its checksum"
                    )
        except _rules.Refused as error:
            raise AnsibleActionFail(str(error)) from None
        try:
            asked = self._execute_module(module_name=_MODULE, module_args=args, task_vars=task_vars)
            if not asked.get("upload_needed") or self._task.check_mode:
                return asked
            # Made by super().run(), because of TRANSFERS_FILES.
            remote = self._connection._shell.join_path(self._connection._shell.tmpdir, "artifact.tar.gz")
            self._transfer_file(path, remote)
            self._fixup_perms2((self._connection._shell.tmpdir, remote))
            return self._execute_module(module_name=_MODULE, module_args={**args, "src": remote}, task_vars=task_vars)
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
