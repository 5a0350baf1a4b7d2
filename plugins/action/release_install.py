# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of release_install: look at the artifact, ask the host, upload only what it does not have."""

from __future__ import annotations

import base64
import os

from ansible import constants as C
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.beamops.bluegreen.plugins.module_utils import _validate
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Refused
from ansible_collections.beamops.bluegreen.plugins.plugin_utils import _transfer, _variables

_MODULE = "beamops.bluegreen.release_install"
# Bytes up to which an artifact goes along with the module. A file of its own costs five more executions of ssh.
_ALONG = 1 << 18


class ActionModule(ActionBase):
    # No directory for uploads is made before it is known that there is something to send.
    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        args = dict(self._task.args)
        artifact, kept = args.get("artifact") or "", args.pop("host_content", None)
        if not isinstance(artifact, str) or _validate.is_url(artifact):
            # A module logs its options on the host; a signature or a password in a URL must not be among them.
            args.update(artifact=_variables.bare_url(artifact), url=artifact)
            return self._execute_module(module_name=_MODULE, module_args=args, task_vars=task_vars)
        # Relative to the working directory, not to a playbook that may be installed anywhere.
        path = os.path.abspath(os.path.expanduser(artifact))
        try:
            if not args.get("artifact_info"):
                args["artifact_info"] = _transfer.inspect(path, args.get("app"), C.DEFAULT_LOCAL_TMP)
                if (
                    args.get("checksum")
                    and _validate.check_checksum(args["checksum"]) != args["artifact_info"]["sha256"]
                ):
                    raise Refused(
                        f"bluegreen_artifact must match its checksum (got SHA-256 {args['artifact_info']['sha256']})"
                    )
        except Refused as error:
            raise AnsibleActionFail(str(error)) from None
        found = args["artifact_info"]
        there = (kept or {}).get("artifacts", {}).get(found["sha256"])
        # The release is named after the version that the artifact has, so a version that was asked for has been compared.
        if there:
            known = {"release": there, "version": found["version"], "sha256": found["sha256"]}
            return {"ok": True, "changed": False, "upload_needed": False, **known}
        return self._install(path, args, kept, task_vars)

    def _install(self, path, args, kept, task_vars):
        found = args["artifact_info"]
        original, path = path, _transfer.readable(path, C.DEFAULT_LOCAL_TMP)
        if kept is None or self._task.check_mode:
            asked = self._execute_module(module_name=_MODULE, module_args=args, task_vars=task_vars)
            if not asked.get("upload_needed") or self._task.check_mode:
                return asked
            kept = asked["host_content"]
        sent, left_out, files = _transfer.delta_for(path, found, kept["files"], C.DEFAULT_LOCAL_TMP)
        if left_out:
            number = _transfer.size(os.path.getsize(sent))
            self._tell(
                task_vars,
                f"sending {number} instead of {_transfer.size(found['bytes'])}: the host has {left_out} of {files} files",
            )
        else:
            self._tell(task_vars, f"sending {_transfer.size(found['bytes'])}")
        result = self._send(sent, {**args, "delta": bool(left_out) or path != original}, task_vars)
        if result.get("missing_files"):
            self._tell(task_vars, f"sending {_transfer.size(found['bytes'])} after all: {result['missing_files']}")
            result = self._send(path, {**args, "delta": path != original}, task_vars)
        return result

    def _send(self, path, args, task_vars):
        if os.path.getsize(path) <= _ALONG:
            with open(path, "rb") as stream:
                content = base64.b64encode(stream.read()).decode("ascii")
            return self._execute_module(
                module_name=_MODULE, module_args={**args, "content": content}, task_vars=task_vars
            )
        self._make_tmp_path()
        folder = self._connection._shell.tmpdir
        try:
            remote = self._connection._shell.join_path(folder, "artifact.tar.gz")
            with _transfer.report_progress(path, lambda words: self._tell(task_vars, words)):
                self._transfer_file(path, remote)
            # As root this needs no command on the host, because nobody executes the file.
            self._fixup_perms2((folder, remote), execute=False)
            return self._execute_module(module_name=_MODULE, module_args={**args, "src": remote}, task_vars=task_vars)
        finally:
            self._remove_tmp_path(folder)

    def _tell(self, task_vars, words):
        self._display.display(f"  {task_vars['inventory_hostname']}: {words}")
