# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A C(mix release) tarball: what is in it, and getting it out safely. Private to this collection.

The controller looks at it before any host is touched; the host unpacks with the same checks.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import re
import shutil
import stat
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Refused
from ansible_collections.beamops.bluegreen.plugins.module_utils._validate import check_version

_BLOCK = 1 << 20
# In a delta, the header of a file that is left out because the host has one with this content.
_OMITTED = "BLUEGREEN.sha256"


# A Python that was built without it cannot read xz, and tarfile says so by itself.
_DAMAGED: tuple[type[Exception], ...] = (tarfile.TarError, EOFError, zlib.error, OSError)
with contextlib.suppress(ImportError):
    from lzma import LZMAError

    _DAMAGED += (LZMAError,)

_ZSTD = b"\x28\xb5\x2f\xfd"


class MissingFile(Exception):
    """A delta omits a file that is not there (any more)."""


def sha256_of(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(_BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


def _safe_name(name: str) -> str:
    """A member's name as a clean relative path. Raises: Refused."""
    clean = posixpath.normpath(name)
    if name.startswith("/") or clean == ".." or clean.startswith("../") or "\0" in name:
        raise Refused(f"the artifact has a member outside of itself: {name!r}")
    return clean


def _resolve(name: str, links: dict[str, str]) -> str | None:
    """Follow a path through the symlinks of the tarball. Returns where it ends, or V(None) if that is outside, or nowhere."""
    place: list[str] = []
    waiting, hops = name.split("/"), 0
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


def _outside(member: tarfile.TarInfo) -> Refused:
    return Refused(f"the artifact has a link that leads outside: {member.name!r} -> {member.linkname!r}")


def members_of(archive: tarfile.TarFile) -> list[tuple[str, tarfile.TarInfo]]:
    """Checked (name, member) pairs, in the order of the tarball. A member may well come twice: Mix does that.

    All names are read before the first is judged, for a link may lead through another one that comes later. Raises: Refused.
    """
    members = [
        (name, member)
        for name, member in ((_safe_name(member.name), member) for member in archive.getmembers())
        # A Mac adds these for itself.
        if not posixpath.basename(name).startswith("._") and not name.startswith("__MACOSX")
    ]
    top = _top_folder([name for name, _member in members])
    members = [(posixpath.relpath(name, top) if top else name, member) for name, member in members]
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
            end = _resolve(f"{posixpath.dirname(name)}/{member.linkname}", links)
            if end is None or member.linkname.startswith("/"):
                raise _outside(member)
        elif member.islnk():
            # The name of a member that came before; never followed anywhere.
            target = posixpath.normpath(member.linkname)
            target = posixpath.relpath(target, top) if top else target
            if target not in files:
                raise _outside(member)
            member.linkname = target
            files.add(name)
        elif member.isreg():
            files.add(name)
        elif not member.isdir():
            raise Refused(f"the artifact has a device or another special file: {member.name!r}")
    # One name that is a link here and a file there would be written through the link.
    if files & set(links):
        raise Refused(f"the artifact has a member that is both a file and a link: {sorted(files & set(links))[0]!r}")
    return [(name, member) for name, member in members if name != "."]


def _top_folder(names: list[str]) -> str:
    """The one folder that everything is below, where somebody packed a release with the folder that it was in; V('') for none."""
    tops = {name.partition("/")[0] for name in names} - {"."}
    top = tops.pop() if len(tops) == 1 else ""
    return top if f"{top}/releases/start_erl.data" in names else ""


def is_zstd(path: str) -> bool:
    with open(path, "rb") as stream:
        return stream.read(4) == _ZSTD


def _open(path: str) -> tarfile.TarFile:
    try:
        return tarfile.open(path, "r:*")  # pylint: disable=consider-using-with
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno:
            raise Refused(f"the artifact cannot be read: {error.strerror}: {path}") from None
        if is_zstd(path):
            raise Refused(
                f"the artifact is compressed with zstd, which Python reads since 3.14. Pack it with gzip: {path}"
            ) from None
        raise Refused(f"the artifact is not a tarball, or is truncated: {path} ({error})") from None


def _judge(path: str, app: str, names: dict[str, bool], start_data: bytes | None) -> str:
    """Whether what was found is a release of this app. Returns its version."""
    # Beside the release itself, bin/ may have scripts of the user's own: overlays.
    apps = sorted(name for name in (_release_in(name) for name in names) if name) or sorted(
        name[4:] for name in names if name.startswith("bin/") and names[name] and not name.endswith(".bat")
    )
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


def _release_in(name: str) -> str:
    """The name of a release, by the file C(releases/<version>/<name>.rel); V('') for any other file."""
    found = re.match(r"releases/[^/]+/([^/]+)\.rel\Z", name)
    return found.group(1) if found and not found.group(1).startswith("start") else ""


# By the number in the header of an ELF file (elf(5), e_machine): what uname calls it.
_MACHINES = {3: "i686", 40: "armv7l", 62: "x86_64", 183: "aarch64", 243: "riscv64"}


def needs_of(program: bytes) -> dict[str, str]:
    """What a program of ELF needs of a host: {"machine", "loader", "glibc"}, each V('') if it needs none, or that is not known.

    C(loader) is the path of the dynamic loader, which tells glibc from musl; C(glibc) the newest version that a symbol is of.
    """
    if program[:4] != b"\x7fELF" or len(program) < 20:
        return {"machine": "", "loader": "", "glibc": ""}
    order = "<" if program[5] == 1 else ">"
    machine = struct.unpack_from(f"{order}H", program, 18)[0]
    loader = re.search(rb"(/lib[A-Za-z0-9_/.-]*/ld-[A-Za-z0-9_.-]+)\0", program[:65536])
    versions = [tuple(map(int, found.split(b"."))) for found in set(re.findall(rb"GLIBC_(2\.\d+)", program))]
    return {
        "machine": _MACHINES.get(machine, f"machine {machine}"),
        "loader": loader.group(1).decode() if loader else "",
        "glibc": ".".join(map(str, max(versions))) if versions else "",
    }


def named_node(env_sh: str) -> tuple[int, str] | None:
    """(number, text) of the line of env.sh that gives every node one name, or V(None)."""
    if re.search(r"BLUEGREEN_COLOR|-z \"?\$\{?RELEASE_NODE|\$\{RELEASE_NODE:?[-=]", env_sh):
        return None
    for number, line in enumerate(env_sh.splitlines(), 1):
        if re.match(r"\s*(export\s+)?RELEASE_NODE=", line):
            return number, line.strip()
    return None


def _require_free_node(path: str, name: str, env_sh: bytes) -> None:
    found = named_node(env_sh.decode("utf-8", "replace"))
    if found:
        raise Refused(
            f"{name} of the artifact names the node in line {found[0]}: {found[1]}. Both slots would have that name. In rel/env.sh.eex write "
            f'export RELEASE_NODE="${{RELEASE_NODE:-…}}": {path}'
        )


def _blocks(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    stream = archive.extractfile(member)
    if stream:
        with stream:
            yield from iter(lambda: stream.read(_BLOCK), b"")


# What has to be known of an artifact beside the names in it: its version, what it needs of a host, and what names its node.
_READ = r"releases/start_erl\.data\Z|releases/[^/]+/env\.sh\Z|erts-[^/]+/bin/beam\.smp\Z"


def _on_disk(size: int) -> int:
    """Bytes that a file takes: whole blocks of 4 KiB on the usual file systems, and its inode."""
    return (size + 8191) // 4096 * 4096


def inspect(path: str, app: str) -> dict[str, Any]:
    """Read an artifact through. Raises: Refused.

    :returns: {"version", "sha256", "bytes", "unpacked_bytes", "needs", "files": {name: SHA-256}}, sizes in bytes, C(needs) as of
        V(needs_of). A name that comes twice with different contents is not in C(files).
    """
    names: dict[str, bool] = {}
    files: dict[str, str] = {}
    conflicting: set[str] = set()
    start_data, unpacked, needs, scripts = None, 0, needs_of(b""), {}
    with _open(path) as archive:
        try:
            for name, member in members_of(archive):
                if member.islnk():
                    names[name] = names[member.linkname]
                if member.isreg():
                    names[name] = bool(member.mode & 0o100)
                    unpacked += _on_disk(member.size)
                    digest, whole = hashlib.sha256(), []
                    is_wanted = re.match(_READ, name)
                    # Reading to the end is what finds a truncated member.
                    for block in _blocks(archive, member):
                        digest.update(block)
                        if is_wanted:
                            whole.append(block)
                    if name == "releases/start_erl.data":
                        start_data = b"".join(whole)
                    elif name.endswith("/env.sh"):
                        scripts[name] = b"".join(whole)
                    elif is_wanted:
                        needs = needs_of(b"".join(whole))
                    if files.setdefault(name, digest.hexdigest()) != digest.hexdigest():
                        conflicting.add(name)
            # The checksum of the compression is at its very end.
            while archive.fileobj and archive.fileobj.read(_BLOCK):
                pass
        except _DAMAGED as error:
            raise Refused(f"the artifact is truncated or damaged: {path} ({error})") from None
    version = _judge(path, app, names, start_data)
    script = f"releases/{version}/env.sh"
    _require_free_node(path, script, scripts.get(script, b""))
    return {
        "version": version,
        "needs": needs,
        "sha256": sha256_of(path),
        "bytes": os.path.getsize(path),
        "unpacked_bytes": unpacked,
        "files": {name: sha256 for name, sha256 in files.items() if name not in conflicting},
    }


def write_delta(path: str, target: str, files: dict[str, str], without: Iterable[str]) -> int:
    """Write an artifact in which some files are only named by their content. Returns its bytes.

    :param files: name to SHA-256, as of V(inspect).
    :param without: names of the files to leave out.
    """
    with _open(path) as archive, tarfile.open(target, "w:gz", format=tarfile.PAX_FORMAT) as slim:
        for name, member in members_of(archive):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.linkname = member.type, member.mode, member.linkname
            if not member.isreg():
                slim.addfile(info)
            elif name in without:
                info.pax_headers = {_OMITTED: files[name]}
                slim.addfile(info)
            else:
                info.size = member.size
                slim.addfile(info, archive.extractfile(member))
    return os.path.getsize(target)


def disk_usage(path: str) -> int:
    """Bytes that unpacking an artifact takes on a disk, which is less than its content for a delta."""
    with _open(path) as archive:
        members = members_of(archive)
        folders = {posixpath.dirname(name) for name, _member in members}
        new = [member for _name, member in members if _OMITTED not in member.pax_headers]
        return 4096 * len(folders) + sum(_on_disk(member.size) for member in new if member.isreg())


def _mode(name: str, member: tarfile.TarInfo) -> int:
    # The cookie of the build is not used (the app has its own), but it is a secret all the same.
    if name == "releases/COOKIE":
        return 0o440
    return 0o555 if member.mode & 0o100 else 0o444


def unpack(
    path: str, folder: str, kept: Callable[[str], str | None] | None = None, is_delta: bool = False
) -> dict[str, str]:
    """Unpack a checked artifact into an empty directory: files read-only, links as they are, nothing setuid.

    :param kept: function of a SHA-256 that returns the path of such a file, proven, or V(None). It is linked, so that the disk
        grows by what is new alone.
    :param is_delta: whether files may be left out of the artifact.
    :returns: {name: SHA-256}
    :raises MissingFile: where a file was left out that is not there.
    """
    files = {}
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
                os.link(os.path.join(folder, member.linkname), place)
            else:
                files[name] = _put(archive, member, place, _mode(name, member), kept, is_delta)
    return files


def _put(
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    place: str,
    mode: int,
    kept: Callable[[str], str | None] | None,
    is_delta: bool,
) -> str:
    """One file, from the artifact or from a release that has it. Returns its SHA-256."""
    sha256 = member.pax_headers.get(_OMITTED) if is_delta else None
    if not sha256:
        digest = hashlib.sha256()
        with open(place, "xb") as target:
            for block in _blocks(archive, member):
                digest.update(block)
                target.write(block)
            os.fchmod(target.fileno(), mode)
        sha256 = digest.hexdigest()
        source = kept(sha256) if kept else None
        if source:
            os.unlink(place)
            _link(source, place, mode)
        return sha256
    source = kept(sha256) if kept else None
    if not source:
        raise MissingFile(f"no release on this host has {member.name} any more")
    _link(source, place, mode)
    return sha256


def _link(source: str, place: str, mode: int) -> None:
    try:
        if stat.S_IMODE(os.stat(source).st_mode) == mode:
            os.link(source, place)
            return
    except OSError:
        # A file system without hard links, or a file that has too many of them.
        pass
    shutil.copyfile(source, place)
    os.chmod(place, mode)
