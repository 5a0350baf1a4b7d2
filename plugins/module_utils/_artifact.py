# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A C(mix release) tarball: what is in it, and getting it out safely. Private to this collection.

The controller looks at it before any host is touched; the host unpacks with the same checks.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import tarfile
import zlib

from ansible_collections.beamops.bluegreen.plugins.module_utils._rules import Refused, check_version

_BLOCK = 1 << 20


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(_BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


def _safe_name(name):
    """A member's name as a clean relative path. Raises: Refused."""
    clean = posixpath.normpath(name)
    if name.startswith("/") or clean == ".." or clean.startswith("../") or "\0" in name:
        raise Refused(f"the artifact has a member outside of itself: {name!r}")
    return clean


def _resolve(name, links):
    """Follow a path through the symlinks of the tarball. Returns where it ends, or V(None) if that is outside, or nowhere."""
    waiting, place, hops = name.split("/"), [], 0
    while waiting:
        part = waiting.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            if not place:
                return None
            place.pop()
            continue
        place.append(part)
        target = links.get("/".join(place))
        if target is not None:
            hops += 1
            if hops > 40 or target.startswith("/"):
                return None
            place.pop()
            waiting = target.split("/") + waiting
    return "/".join(place)


def members_of(archive):
    """Checked (name, member) pairs, in the order of the tarball. A member may well come twice: Mix does that.

    All names are read before the first is judged, for a link may lead through another one that comes later. Raises: Refused.
    """
    members = [(_safe_name(member.name), member) for member in archive.getmembers()]
    links = {name: member.linkname for name, member in members if member.issym()}
    files = set()
    for name, member in members:
        parent = posixpath.dirname(name)
        while parent:
            # A member below a symlink would be written wherever that points to.
            if parent in links:
                raise Refused(f"the artifact has a member below a link: {member.name!r}")
            parent = posixpath.dirname(parent)
        if member.issym():
            if _resolve(posixpath.dirname(name) + "/" + member.linkname, links) is None or member.linkname.startswith(
                "/"
            ):
                raise Refused(f"the artifact has a link that leads outside: {member.name!r} -> {member.linkname!r}")
        elif member.islnk():
            if posixpath.normpath(member.linkname) not in files:
                raise Refused(f"the artifact has a link that leads outside: {member.name!r} -> {member.linkname!r}")
        elif member.isreg():
            files.add(name)
        elif not member.isdir():
            raise Refused(f"the artifact has a device or another special file: {member.name!r}")
    # One name that is a link here and a file there would be written through the link.
    if files & set(links):
        raise Refused(f"the artifact has a member that is both a file and a link: {sorted(files & set(links))[0]!r}")
    return [(name, member) for name, member in members if name != "."]


def _open(path):
    try:
        return tarfile.open(path, "r:*")  # pylint: disable=consider-using-with
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise Refused(f"the artifact cannot be read: {error.strerror}: {path}") from None
        raise Refused(f"the artifact is not a tarball, or is truncated: {path} ({error})") from None


def _judge(path, app, names, start_data):
    """Whether what was found is a release of this app. Returns its version."""
    apps = sorted(name[4:] for name in names if name.startswith("bin/") and names[name] and not name.endswith(".bat"))
    if start_data is None:
        raise Refused(f"the artifact is not a mix release, it has no releases/start_erl.data: {path}")
    words = start_data.decode("utf-8", "replace").split()
    if len(words) != 2:
        raise Refused(f"releases/start_erl.data of the artifact is damaged: {path}")
    version = check_version(words[1])
    if f"bin/{app}" not in names:
        raise Refused(f"the artifact is a release of {' and '.join(apps) or 'nothing'}, not of {app}: {path}")
    if not names[f"bin/{app}"]:
        raise Refused(f"bin/{app} in the artifact is not executable: {path}")
    if not any(name.startswith(f"releases/{version}/") for name in names):
        raise Refused(f"the artifact names version {version}, but has no releases/{version}: {path}")
    return version


def inspect(path, app):
    """Read an artifact through: {"version", "sha256", "bytes", "unpacked_bytes"}, sizes in bytes. Raises: Refused."""
    names, start_data, unpacked = {}, None, 0
    with _open(path) as archive:
        try:
            for name, member in members_of(archive):
                if member.isreg():
                    names[name] = bool(member.mode & 0o100)
                    # A file takes whole blocks of 4 KiB on the usual file systems.
                    unpacked += (member.size + 8191) // 4096 * 4096
                    stream = archive.extractfile(member)
                    if name == "releases/start_erl.data":
                        start_data = stream.read(4096)
                    # Reading to the end is what finds a truncated member.
                    for _block in iter(lambda stream=stream: stream.read(_BLOCK), b""):
                        pass
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            raise Refused(f"the artifact is truncated or damaged: {path} ({error})") from None
    return {
        "version": _judge(path, app, names, start_data),
        "sha256": sha256_of(path),
        "bytes": os.path.getsize(path),
        "unpacked_bytes": unpacked,
    }


def unpack(path, folder):
    """Unpack a checked artifact into an empty directory: files read-only, links as they are, nothing setuid."""
    with _open(path) as archive:
        for name, member in members_of(archive):
            place = os.path.join(folder, name)
            os.makedirs(place if member.isdir() else os.path.dirname(place), mode=0o755, exist_ok=True)
            if member.isdir():
                continue
            if os.path.lexists(place):
                os.unlink(place)
            if member.issym():
                os.symlink(member.linkname, place)
            elif member.islnk():
                os.link(os.path.join(folder, _safe_name(member.linkname)), place)
            else:
                mode = 0o555 if member.mode & 0o100 else 0o444
                # The cookie of the build is not used (the app has its own), but it is a secret all the same.
                mode = 0o440 if name == "releases/COOKIE" else mode
                with archive.extractfile(member) as source, open(place, "xb") as target:
                    for block in iter(lambda source=source: source.read(_BLOCK), b""):
                        target.write(block)
                    os.fchmod(target.fileno(), mode)
