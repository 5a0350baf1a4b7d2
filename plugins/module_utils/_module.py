# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The frame of every module of this collection: options in, one try, result out. Private to this collection."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beamops.bluegreen.plugins.module_utils import _exclusive
from ansible_collections.beamops.bluegreen.plugins.module_utils._app import APP_OPTIONS, App, set_shortcuts, write_ids
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure, Refused


def renamed(old: str) -> dict:
    """What the specification of an option says of the name that it had before 1.0.0."""
    until = {"name": old, "version": "2.0.0", "collection_name": "beamops.bluegreen"}
    return {"aliases": [old], "deprecated_aliases": [until]}


def run_module(
    options: dict[str, Any],
    work: Any,
    exclusive: bool | Callable[[Mapping[str, Any]], bool] = True,
    needs_lock: bool = True,
    **kwargs: Any,
) -> None:
    """Build the module, hand it and its App to V(work), and report what comes back.

    A result without C(ok: true) is a failure, whatever else it says: that is how the verdict over a group of hosts tells
    a proven host from one that was lost, skipped or broken.

    :param exclusive: whether it waits for other modules that are at work on this app on this host. One goes on there when its
        controller was killed, and the next run must not work beside it. Or a function of the options that tells.
    :param needs_lock: whether it refuses to act for a run (option C(run_id)) that does not hold the lock any more.
    """
    # Whatever sudo or the login shell has: nginx reads our folders, and the app its release.
    os.umask(0o022)
    module = AnsibleModule(argument_spec={**APP_OPTIONS, **options}, supports_check_mode=True, **kwargs)
    try:
        app = App(module.params)
        if callable(exclusive):
            exclusive = exclusive(module.params)
        is_exclusive = exclusive and not module.check_mode
        with _exclusive.exclusive_access(app) if is_exclusive else contextlib.nullcontext():
            if needs_lock and not module.check_mode:
                _exclusive.require_lock(app, module.params.get("run_id"))
            try:
                result = work(module, app)
            finally:
                if is_exclusive:
                    # They save nginx some work. A full disk must not hide what came of the module.
                    with contextlib.suppress(OSError):
                        set_shortcuts(app)
                        write_ids(app)
    except Refused as error:
        module.fail_json(msg=str(error), changed=False)
    except Failure as error:
        module.fail_json(msg=str(error), **{"changed": False, **error.extra})
    except OSError as error:
        module.fail_json(msg=f"{error.strerror or error}: {error.filename or 'on this host'}", changed=False)
    module.exit_json(ok=True, **{"changed": False, **result})
