# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading and writing files so that a crash at any moment leaves a whole one. Private to this collection."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Iterable
from typing import Any

# Bytes of a hash that are enough to guess by; what is linked is compared in full.
_PREFIX = 8


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def read_text(path: str) -> str | None:
    """The text of a file, or V(None) where there is none."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as handle:
            return handle.read()
    except FileNotFoundError:
        return None


def lines_of_the_app(path: str, fresh: float) -> list[str] | None:
    """The lines of a file that the app writes again and again; V(None) if it has not done so for C(fresh) seconds.

    The directory belongs to the app, so nothing in it is trusted: no link is followed, and no more than 64 KiB are read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode) or time.time() - about.st_mtime > fresh:
            return None
        return os.read(handle, 65536).decode("ascii", "replace").split("\n")
    except OSError:
        return None
    finally:
        os.close(handle)


def sha256_hex(text: str) -> str:
    """SHA-256 of a text as it is in a file, in hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def read_json(path: str) -> Any:
    text = read_text(path)
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None


def sync_dir(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_file(path: str, text: str, mode: int, group: int | None = None) -> None:
    """Put a file in place whole or not at all: temporary file beside it, fsync, rename(2), fsync of the directory.

    The temporary name starts with a dot, so that no C(include *) of nginx and no fact reader ever loads it.
    """
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.new")
    remove(temporary)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(text)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            if group is not None:
                os.fchown(stream.fileno(), -1, group)
            os.fsync(stream.fileno())
        os.rename(temporary, path)
    except OSError:
        remove(temporary)
        raise
    sync_dir(folder)


def write_json(path: str, value: Any, mode: int = 0o644) -> None:
    write_file(path, json.dumps(value, indent=2, sort_keys=True) + "\n", mode)


def write_link(path: str, target: str) -> None:
    """Point a symlink elsewhere in one step; there is no moment without it."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.new")
    remove(temporary)
    os.symlink(target, temporary)
    os.rename(temporary, path)
    sync_dir(folder)


def write_hard_link(source: str, path: str) -> None:
    """Give a file a second name, replacing what had it."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.new")
    remove(temporary)
    os.link(source, temporary)
    os.rename(temporary, path)
    # rename(2) does nothing at all when both names are the same file already.
    remove(temporary)
    sync_dir(folder)


def remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    sync_dir(os.path.dirname(path))


def remove_tree(path: str) -> None:
    """Remove a directory tree of ours; releases are unpacked without write permission."""
    for folder, _folders, _files in os.walk(path):
        os.chmod(folder, 0o700)
    shutil.rmtree(path)


def free_bytes(path: str) -> int:
    """Bytes that this process could still write below the nearest directory of a path that exists."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    found = os.statvfs(path)
    return (found.f_bfree if os.geteuid() == 0 else found.f_bavail) * found.f_frsize


def is_link(path: str) -> bool:
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def fingerprint(hashes: Iterable[str]) -> str:
    """Some SHA-256 as one word, for a controller to compare with: the files that a host has."""
    return base64.b64encode(b"".join(sorted({bytes.fromhex(one)[:_PREFIX] for one in hashes}))).decode()


def known_files(files: dict[str, str], word: str) -> set[str]:
    """Names of the files of an artifact that a host has, by what V(fingerprint) made of them there."""
    packed = base64.b64decode(word)
    known = {packed[place : place + _PREFIX] for place in range(0, len(packed), _PREFIX)}
    return {name for name, sha256 in files.items() if bytes.fromhex(sha256)[:_PREFIX] in known}
