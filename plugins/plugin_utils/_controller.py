# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The process that runs a playbook: whether it is still alive, and what frees its locks when it is not.

Private to this collection.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, TextIO

# Options of ansible-playbook that ask a person, or that make it leave out tasks.
_ASKING = ("-K", "--ask-become-pass", "-k", "--ask-pass", "-J", "--ask-vault-password", "--ask-vault-pass", "--step")
_POLL_SECONDS = 0.5


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read().strip()
    except OSError:
        return None


def _started(pid: object) -> str | None:
    """Start time of a process, in clock ticks since boot: a pid comes again, the pair does not."""
    text = _read(f"/proc/{pid}/stat")
    fields = text[text.rindex(")") + 2 :].split() if text else ["X"]
    # One that has ended, and whose parent has not asked yet, is over too.
    return None if fields[0] in "ZX" else fields[19]


def _machine() -> str | None:
    """This boot of this machine, and the pid namespace in it; host names are the same for every CI job."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return None
    return f"{_read('/proc/sys/kernel/random/boot_id')} {namespace}"


def this_run() -> dict[str, Any] | None:
    """The process of ansible-playbook: action plugins run in a child of it. V(None) where there is no /proc."""
    pid = os.getppid()
    return {"machine": _machine(), "pid": pid, "started": _started(pid)} if _machine() else None


def is_dead(controller: object) -> bool:
    """Whether a run is over for certain: it was one of this boot of this machine, and its process is gone."""
    if not isinstance(controller, dict) or not controller.get("machine") or controller["machine"] != _machine():
        return False
    return _started(controller.get("pid")) != controller.get("started")


# --- when nobody reads what is printed any more -----------------------------------------------------------------------
#
# With `| head`, the pipe breaks in the middle of a run. Ansible's thread that collects the results of hosts also prints what their
# tasks say, and ends at the first OSError (plugins/strategy/__init__.py, results_thread_main): the run waits for ever then.


class _Outlives:
    """A text stream that turns into /dev/null when its reader is gone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _attempt(self, method: Callable[..., Any], *args: str) -> Any:
        try:
            return method(*args)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            # What is in its buffer goes there too.
            return method(*args)

    def write(self, text: str) -> int:
        return self._attempt(self._stream.write, text)

    def flush(self) -> None:
        return self._attempt(self._stream.flush)


def outlive_reader() -> None:
    """Let this process go on when nobody reads its output any more: it holds locks on hosts, and has to come to its end."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, _Outlives) and hasattr(stream, "fileno"):
            setattr(sys, name, _Outlives(stream))


# --- after Ctrl-C, or a kill -----------------------------------------------------------------------------------------
#
# Ansible runs nothing of a playbook any more after Ctrl-C, and nothing at all can run after a kill. So a run that has locked
# its hosts has a watchdog: a process that does nothing but wait, and when the run has died before it freed its locks, runs
# unlock.yml for just this run. What it cannot do (a password that a person typed), the next run or unlock.yml does.


def unlock_command(argv: list[str], playbooks: Iterable[str], run: str, unlock: str) -> list[str] | None:
    """The command line that breaks the locks of a run, made from the one that took them; V(None) if that is not known.

    :param argv: command line of ansible-playbook, with its interpreter in front.
    :param playbooks: those of its words that are playbooks.
    :param unlock: path of unlock.yml.
    """
    if len(argv) < 3 or os.path.basename(argv[1]) != "ansible-playbook":
        return None
    words = [word for word in argv if word not in playbooks and word not in _ASKING]
    return [*words, unlock, "-e", json.dumps({"bluegreen_force": True, "__bluegreen_dead_run_id": run})]


def _watchdog_file(folder: str, run: str) -> str:
    return os.path.join(folder, f"bluegreen-{run}.pid")


def start_watchdog(folder: str, run: str, playbooks: Iterable[str], unlock: str) -> None:
    """Start the watchdog of a run. V(folder) is where Ansible has its temporary files, and only its user may write."""
    controller = this_run()
    if not controller:
        # A Mac has no /proc, so nobody could tell later whether the run is alive: its lock is broken by unlock.yml.
        return
    with open(f"/proc/{os.getppid()}/cmdline", "rb") as stream:
        argv = [word.decode("utf-8", "surrogateescape") for word in stream.read().split(b"\0")[:-1]]
    words = unlock_command(argv, playbooks, run, unlock)
    if not words:
        return
    # It needs nothing that is installed, and starts quicker without looking for it.
    python = [sys.executable, "-I", "-S"]
    watchdog = subprocess.Popen(  # pylint: disable=consider-using-with
        [*python, os.path.abspath(__file__), json.dumps(controller), _watchdog_file(folder, run), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Not in the process group that Ctrl-C reaches.
        start_new_session=True,
    )
    with open(_watchdog_file(folder, run), "w", encoding="utf-8") as stream:
        stream.write(str(watchdog.pid))


def stop_watchdog(folder: str, run: str) -> None:
    """The run frees its locks itself."""
    path = _watchdog_file(folder, run)
    with contextlib.suppress(OSError, ValueError):
        os.kill(int(_read(path) or ""), signal.SIGTERM)
    with contextlib.suppress(OSError):
        os.unlink(path)


def _watchdog(controller: str, path: str, *words: str) -> None:
    while not is_dead(json.loads(controller)):
        time.sleep(_POLL_SECONDS)
    with contextlib.suppress(OSError):
        os.unlink(path)
    os.execv(words[0], words)


if __name__ == "__main__":
    _watchdog(*sys.argv[1:])
