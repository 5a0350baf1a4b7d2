# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build module payloads in the background.

Ansible packs a module with all that it imports when it first runs it. That is 0.2 s of work for each of ours, while the hosts of
the group wait for it. Ansible keeps the package for the rest of the run, so a child of the first task can make it, beside whatever
else that task does.

Private to this collection.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ansible.plugins.action import ActionBase


@contextlib.contextmanager
def prebuild_modules(action: ActionBase, names: Sequence[str], task_vars: dict) -> Iterator[None]:
    """Build modules in the background while the body runs; if the body raises, that ends too, as the run will.

    :param action: an action plugin, of the first host.
    :param names: of modules of this collection, in the order in which they will be needed.
    """
    if sys.platform == "darwin":
        # There a child of a process with threads must not go on after fork(2). Modules are then built when they are needed.
        yield
        return
    pid = os.fork()
    if not pid:
        try:
            _prebuild(action, names, task_vars)
        finally:
            # Nothing of what the parent would do when it ends: it has its results to send, and its files to remove.
            os._exit(0)
    try:
        yield
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _prebuild(action: ActionBase, names: Sequence[str], task_vars: dict) -> None:
    # Which Python a host has is asked when a module runs there; packages are the same for all.
    task_vars = {**task_vars, "ansible_python_interpreter": "/usr/bin/python3"}
    # Whatever is wrong is said where the module runs.
    with contextlib.suppress(BaseException):
        for name in names:
            action._configure_module(f"beamops.bluegreen.{name}", {}, task_vars)
