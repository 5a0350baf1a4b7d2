# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes and sockets of this host, by /proc. Private to this collection."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ansible_collections.beamops.bluegreen.plugins.module_utils import _files

if TYPE_CHECKING:
    from ansible_collections.beamops.bluegreen.plugins.plugin_utils._types import Sockets

_LOADED = time.monotonic()


def _as_owner(pid: int, question: Callable[[int], Any]) -> Any:
    """Read something of a process that only its owner may read.

    Root can do it directly where it has CAP_SYS_PTRACE, which many containers lack; the process's own user always may.
    """
    try:
        return question(pid)
    except PermissionError:
        if os.geteuid() != 0:
            raise
    owner = os.stat(f"/proc/{pid}")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            os.setgroups([])
            os.setgid(owner.st_gid)
            os.setuid(owner.st_uid)
            with os.fdopen(writer, "w") as stream:
                json.dump(question(pid), stream)
        except BaseException:  # pylint: disable=broad-exception-caught
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    if os.waitpid(child, 0)[1] != 0 or not text:
        raise PermissionError(f"/proc/{pid} cannot be read")
    return json.loads(text)


def _environ(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/environ", "rb") as stream:
        pairs = stream.read().decode("utf-8", "surrogateescape").split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def _sockets(pid: int) -> list[str]:
    inodes = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            inodes.append(target[8:-1])
    return inodes


def environ_of(pid: int) -> dict[str, str]:
    """A process's environment, empty where it is gone or not ours to read."""
    try:
        return _as_owner(pid, _environ)
    except (OSError, ValueError):
        return {}


def sockets_of(pid: int) -> list[str]:
    try:
        return _as_owner(pid, _sockets)
    except (OSError, ValueError):
        return []


def all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def stat_of(pid: int) -> dict[str, Any] | None:
    """{"parent", "command", "state", "started"} of a process, or V(None) when it is gone; C(started) in clock ticks since boot (proc(5))."""
    text = None
    try:
        text = _files.read_text(f"/proc/{pid}/stat")
    except OSError:
        pass
    if not text:
        return None
    # The command may hold spaces and parentheses; it ends at the last one.
    command, rest = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
    return {"parent": int(rest[1]), "command": command, "state": rest[0], "started": int(rest[19])}


def seconds_since_start() -> float:
    """How long this module is at work, also while it stood still: from when its code was loaded, before it waited for anything."""
    return time.monotonic() - _LOADED


def uptime() -> float:
    """Seconds since this host booted, to a hundredth: no matter of its wall clock, which may be wrong, and may be set."""
    return float((_files.read_text("/proc/uptime") or "0").split()[0])


def age_of(pid: int) -> float:
    """How many seconds ago a process started; 0 if it is gone."""
    found = stat_of(pid)
    # Not uptime(): in an LXC container that is the age of the container, and what a process says of its start is of the host.
    return (
        max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - found["started"] / os.sysconf("SC_CLK_TCK"))
        if found
        else 0.0
    )


def is_running(pid: int) -> bool:
    found = stat_of(pid)
    return found is not None and found["state"] not in "ZX"


def process_tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for one in all_pids():
        found = stat_of(one)
        if found:
            children.setdefault(found["parent"], []).append(one)
    result, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        result.append(one)
        waiting.extend(children.get(one, []))
    return result


def tcp_sockets() -> Sockets:
    """The TCP sockets of this host, by /proc (ss may be missing): (inode, local address) by (local port, state of the kernel's).

    Read once for several questions: the kernel goes through its whole table for it, 5 ms for each of the two.
    """
    found: Sockets = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in (_files.read_text(table) or "").splitlines()[1:]:
            fields = line.split()
            address, port = fields[1].split(":")
            found.setdefault((int(port, 16), fields[3]), []).append((fields[9], address))
    return found


def listening(port: int, sockets: Sockets | None = None) -> list[str]:
    """Inodes of the sockets that listen on a TCP port. V(sockets) are those of V(tcp_sockets), if they were read already."""
    found = (tcp_sockets() if sockets is None else sockets).get((port, "0A"), [])
    return [inode for inode, _address in found]


def listening_places(port: int, sockets: Sockets) -> list[str]:
    """Where somebody listens on a port: C(127.0.0.1:4000), C([::]:4000), C(0.0.0.0:4000)."""
    return [_place(address, port) for _inode, address in sockets.get((port, "0A"), [])]


def listeners(pid: int) -> list[str]:
    """Where a process, or one that descends from it, listens on TCP: C(127.0.0.1:4000), C([::]:4000), C(0.0.0.0:4000). Sorted."""
    inodes = {inode for one in process_tree(pid) for inode in sockets_of(one)}
    return sorted(
        {
            _place(address, port)
            for (port, state), found in tcp_sockets().items()
            for inode, address in found
            if state == "0A" and inode in inodes
        }
    )


def _place(address: str, port: int) -> str:
    """An address of /proc/net/tcp, in words of 32 bits in the order of the host's bytes, as people write it."""
    step = -1 if sys.byteorder == "little" else 1
    raw = b"".join(bytes.fromhex(address[at : at + 8])[::step] for at in range(0, len(address), 8))
    text = str(ipaddress.ip_address(raw))
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"


def available_memory() -> int:
    """Bytes that can be had without swapping, by the estimate of the kernel (C(MemAvailable), proc(5))."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _files.read_text("/proc/meminfo") or "", re.MULTILINE)
    return int(found.group(1)) * 1024 if found else sys.maxsize


def memory_of(pid: int) -> int:
    """Bytes of memory that a process and its descendants hold (C(VmRSS))."""
    total = 0
    for one in process_tree(pid):
        try:
            found = re.search(r"^VmRSS:\s+(\d+) kB", _files.read_text(f"/proc/{one}/status") or "", re.MULTILINE)
        except OSError:
            continue
        total += int(found.group(1)) * 1024 if found else 0
    return total


def prefer_to_kill(pid: int, score: int) -> None:
    """Have the kernel end a process and its descendants sooner when memory is short (C(oom_score_adj), 0 to 1000); a wish, no more."""
    for one in process_tree(pid):
        try:
            with open(f"/proc/{one}/oom_score_adj", "w", encoding="ascii") as stream:
                stream.write(str(score))
        except OSError:
            continue


def connections(port: int, sockets: Sockets | None = None) -> int:
    """How many established TCP connections somebody has to a port of this host."""
    return len((tcp_sockets() if sockets is None else sockets).get((port, "01"), []))


def listening_process(port: int) -> tuple[int | None, str | None] | None:
    """Who listens on a port: (pid, command), (None, None) if somebody does that we cannot see, or V(None) if it is free.

    V(who_listens) has it in words.
    """
    inodes = set(listening(port))
    if not inodes:
        return None
    for pid in all_pids():
        if inodes & set(sockets_of(pid)):
            return pid, (stat_of(pid) or {}).get("command", "?")
    return None, None


def who_listens(holder: tuple[int | None, str | None]) -> str:
    """What V(listening_process) found, in words, with the unit that a process belongs to."""
    pid, command = holder
    if not pid:
        return "a process that cannot be seen from here"
    unit = unit_of(pid)
    return f"process {pid} ({command}{f' of {unit}' if unit else ''})"


def unit_of(pid: int) -> str | None:
    """Name of systemd's unit that a process belongs to, without its kind, or V(None)."""
    try:
        text = _files.read_text(f"/proc/{pid}/cgroup") or ""
    except OSError:
        return None
    found = re.search(r"/([^/\n]+)\.(?:service|scope)$", text, re.MULTILINE)
    return found.group(1) if found else None


def send_signal(pid: int, number: int) -> None:
    """Send a signal to a process that may be gone already."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
