# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which process runs a playbook, so that it is known later whether it is dead. Private to this collection."""

from __future__ import annotations

import os


def _read(path):
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read().strip()
    except OSError:
        return None


def _started(pid):
    """Start time of a process, in clock ticks since boot: a pid comes again, the pair does not."""
    text = _read(f"/proc/{pid}/stat")
    return text[text.rindex(")") + 2 :].split()[19] if text else None


def _machine():
    """This boot of this machine, and the pid namespace in it; host names are the same for every CI job."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return None
    return f"{_read('/proc/sys/kernel/random/boot_id')} {namespace}"


def this_run():
    """The process of ansible-playbook: action plugins run in a child of it. V(None) where there is no /proc."""
    pid = os.getppid()
    return {"machine": _machine(), "pid": pid, "started": _started(pid)} if _machine() else None


def is_dead(controller):
    """Whether a run is over for certain: it was one of this boot of this machine, and its process is gone."""
    if not isinstance(controller, dict) or not controller.get("machine") or controller["machine"] != _machine():
        return False
    return _started(controller.get("pid")) != controller.get("started")
