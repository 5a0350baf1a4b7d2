# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One module at a time on an app, and only for the run that holds its lock. Private to this collection."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ansible_collections.beamops.bluegreen.plugins.module_utils import _files
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure
from ansible_collections.beamops.bluegreen.plugins.module_utils._validate import COLORS

if TYPE_CHECKING:
    from ansible_collections.beamops.bluegreen.plugins.module_utils._app import App

# Longer than a slot may take to stop, start and be given back with the default timeouts.
ALONE_SECONDS = 180


def _at_work(inode: Any) -> list[str]:
    """Process ids that hold a lock of flock(2) on an inode."""
    lines = (_files.read_text("/proc/locks") or "").splitlines()
    return [line.split()[4] for line in lines if " FLOCK " in line and line.split()[5].endswith(f":{inode}")]


@contextlib.contextmanager
def exclusive_access(app: App) -> Iterator[None]:
    """Be the only module at work on an app on this host; the kernel ends that when the process ends, however it does.

    The deploy lock is between runs. This is between processes: a module goes on when its controller is killed, and whoever
    takes the deploy lock over from the dead run waits here until that module has ended. What killed ones left half done is
    removed. Raises: Failure.
    """
    try:
        handle = os.open(app.root, os.O_RDONLY)
    except FileNotFoundError:
        yield
        return
    try:
        deadline = time.monotonic() + ALONE_SECONDS
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    who = ", ".join(_at_work(os.fstat(handle).st_ino)) or "unknown"
                    raise Failure(
                        f"another process (pid {who}) is still changing {app.name} on this host. "
                        "Try again when it has finished."
                    ) from None
                time.sleep(0.1)
        remove_leftovers(app)
        yield
    finally:
        os.close(handle)


def remove_leftovers(app: App) -> None:
    """Remove what killed modules left behind. Only for whoever is alone: of nobody else's is anything half done then."""
    doomed = []
    for folder, beginnings, end in (
        (app.root, (".",), (".new", ".broken")),
        (app.slot("blue"), (".",), ".new"),
        (app.slot("green"), (".",), ".new"),
        (f"{app.root}/former", (".",), ".new"),
        (app.releases, (".unpacking.", ".fetching.", ".removing."), ""),
        (app.preview, ("smoke-",), ""),
        (f"{app.root}/maintenance", (".",), ".new"),
        (os.path.dirname(app.facts_file), (f".{app.name}.fact",), ".new"),
        (f"{app.nginx_conf_dir}/conf.d", (f".{app.name}.conf",), ".new"),
    ):
        names = os.listdir(folder) if os.path.isdir(folder) else []
        doomed += [f"{folder}/{name}" for name in names if name.startswith(beginnings) and name.endswith(end)]
    for color in COLORS:
        if not os.path.exists(app.journal(color)):
            # A deploy was confirmed and killed before it could remove the previous environment.
            doomed.append(app.env_former(color))
    for path in doomed:
        if not os.path.isdir(path) or _files.is_link(path):
            _files.remove(path)
        elif path.startswith(f"{app.releases}/"):
            _files.remove_tree(path)


def require_lock(app: App, run: str) -> None:
    """Refuse to act for a run that has lost the lock meanwhile: it was dead, or was taken for dead. Raises: Failure.

    Without the name of a run (a module that somebody uses by itself) there is nothing to compare.
    """
    held = _files.read_json(app.lock) or {}
    if run and held.get("run") != run:
        raise Failure(
            f"this run no longer holds the lock of {app.name}"
            + (f", {held.get('holder')} does, for {held.get('operation')}" if held else "")
        )
