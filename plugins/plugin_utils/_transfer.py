# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's side of sending an artifact: what of it, and how far it is. Private to this collection."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Callable

from ansible_collections.beamops.bluegreen.plugins.module_utils import _artifact, _files
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Refused

_TELL_SECONDS = 5.0
# A delta that saves less than this share is not worth the second look at every file.
_WORTH = 0.1


def _files_path(folder: str, sha256: str) -> str:
    return os.path.join(folder, f"bluegreen-{sha256}.json")


def readable(path: str, folder: str) -> str:
    """The artifact in a compression that every host can read: itself, or, of zstd, a copy in gzip. Raises: Refused.

    :param folder: Ansible's own directory for temporary files of this run.
    """
    try:
        if not _artifact.is_zstd(path):
            return path
    except OSError:
        # What is wrong with it is said where it is opened.
        return path
    target = os.path.join(folder, f"bluegreen-{_artifact.sha256_of(path)}.tar.gz")
    if os.path.exists(target):
        return target
    program = shutil.which("zstd")
    if not program:
        raise Refused(
            f"the artifact is compressed with zstd, and there is no zstd on this machine. Install it, or pack with gzip: {path}"
        )
    with gzip.open(f"{target}.new", "wb", 6) as out:
        with subprocess.Popen([program, "-dcq", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            shutil.copyfileobj(process.stdout or io.BytesIO(), out)
            said = (process.stderr or io.BytesIO()).read().decode("utf-8", "replace").strip()
    if process.returncode:
        raise Refused(f"the artifact is truncated or damaged: {path} ({said})")
    os.rename(f"{target}.new", target)
    return target


def inspect(path: str, app: str, folder: str) -> dict:
    """As V(_artifact.inspect), without C(files), which is put aside for V(delta_for).

    :param folder: Ansible's own directory for temporary files of this run.
    """
    found = _artifact.inspect(readable(path, folder), app)
    # The release is named after what the user has.
    found["sha256"] = _artifact.sha256_of(path)
    with open(_files_path(folder, found["sha256"]), "w", encoding="utf-8") as stream:
        json.dump(found.pop("files"), stream)
    return found


def delta_for(path: str, info: dict, fingerprint: str, folder: str) -> tuple[str, int, int]:
    """The artifact without the files that a host has: (path, names left out, names in all).

    Hosts that have the same files share it. Where little is left out it is the artifact itself, and nothing.

    :param info: what V(inspect) found.
    :param fingerprint: what V(_files.fingerprint) made of the files of the host.
    """
    with open(_files_path(folder, info["sha256"]), encoding="utf-8") as stream:
        files = json.load(stream)
    without = _files.known_files(files, fingerprint)
    if not without:
        return path, 0, len(files)
    name = hashlib.sha256("\n".join([info["sha256"], *sorted(without)]).encode()).hexdigest()[:16]
    target = os.path.join(folder, f"bluegreen-{name}.tar.gz")
    with open(f"{target}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(target):
            _artifact.write_delta(path, f"{target}.new", files, without)
            os.rename(f"{target}.new", target)
    if os.path.getsize(target) > (1 - _WORTH) * info["bytes"]:
        return path, 0, len(files)
    return target, len(without), len(files)


def size(number: int | float) -> str:
    """Bytes in words."""
    if number < 1_000_000:
        return f"{max(1, round(number / 1000))} kB"
    return f"{number / 1_000_000:.1f} MB"


def _read_so_far(path: str) -> int | None:
    """How far a child of this process has read a file, in bytes; V(None) where that is not known, or there is no /proc.

    Whatever sends it (sftp, scp, dd) reads it from the beginning to the end.
    """
    waiting, seen = [os.getpid()], set()
    while waiting:
        pid = waiting.pop()
        if pid in seen:
            continue
        seen.add(pid)
        with contextlib.suppress(OSError, ValueError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children", encoding="utf-8") as stream:
                    waiting += [int(word) for word in stream.read().split()]
        if pid == os.getpid():
            continue
        with contextlib.suppress(OSError, ValueError):
            for handle in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{handle}") == path:
                    with open(f"/proc/{pid}/fdinfo/{handle}", encoding="utf-8") as stream:
                        return int(stream.readline().split()[1])
    return None


@contextlib.contextmanager
def report_progress(path: str, tell: Callable[[str], object]) -> Iterator[None]:
    """While a file is sent, tell every few seconds how far it is.

    :param tell: function that takes a line.
    """
    ended, whole, began = threading.Event(), os.path.getsize(path), time.monotonic()

    def watch() -> None:
        while not ended.wait(_TELL_SECONDS):
            sent = _read_so_far(os.path.realpath(path))
            if sent:
                rate = sent / (time.monotonic() - began)
                left = round((whole - sent) / rate)
                tell(f"{size(sent)} of {size(whole)} sent, {size(rate)} a second, {left} s left")

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
