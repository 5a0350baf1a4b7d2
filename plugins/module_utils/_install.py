# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A release gets onto this host: whole or not at all, and only where it can run. Private to this collection."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ansible_collections.beamops.bluegreen.plugins.module_utils import _app, _artifact, _files, _validate
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure

if TYPE_CHECKING:
    from ansible_collections.beamops.bluegreen.plugins.module_utils._app import App


def require_space(app: App, needed: int) -> None:
    free = _files.free_bytes(app.releases)
    if free < needed:
        raise Failure(
            f"the release needs {needed // 1024} KiB below {app.releases}, and {free // 1024} KiB are free. "
            "Free some space, or lower bluegreen_keep_releases."
        )


def require_host(needs: dict[str, str]) -> None:
    """Raises Failure unless the programs of a release can run on this host.

    :param needs: see V(_artifact.needs_of); empty if that is not known.
    """
    here = os.uname().machine
    machine, loader, glibc = (needs.get(name) or "" for name in ("machine", "loader", "glibc"))
    if machine and machine != here and not (machine == "i686" and here == "x86_64"):
        raise Failure(
            f"the release was built for {machine}, and this host is {here}. Build it on a machine like this host."
        )
    if loader and not os.path.exists(loader):
        what = "musl (Alpine)" if "musl" in loader else loader
        raise Failure(
            f"the release was built for {what}, which this host does not have. Build it on the distribution of this host."
        )
    there = dict([(os.confstr("CS_GNU_LIBC_VERSION") or "none 0").split()[:2]]).get("glibc")
    if glibc and there and [int(part) for part in there.split(".")] < [int(part) for part in glibc.split(".")]:
        raise Failure(
            f"the release was built with a newer C library: it needs glibc {glibc}, and this host has {there}. Build it on the distribution of "
            "this host, or an older one."
        )


def finder(app: App) -> Callable[[str], str | None]:
    """A function that finds a file by SHA-256 in the releases on this host, and proves that it still is that."""
    places: dict[str, list[str]] = {}
    for release in app.installed_releases():
        for name, sha256 in app.release_files(release).items():
            places.setdefault(sha256, []).append(f"{app.release_dir(release)}/{name}")

    def find(sha256: str) -> str | None:
        for place in places.get(sha256, []):
            try:
                # Somebody may have edited it, whatever its mode says.
                if not os.path.islink(place) and _artifact.sha256_of(place) == sha256:
                    return place
            except OSError:
                continue
        return None

    return find


def put_release(
    app: App,
    path: str,
    release: str,
    sha256: str,
    is_delta: bool = False,
    commit: str = "",
    expected: Mapping[str, str] | None = None,
) -> None:
    """Unpack a checked artifact into a directory of its own, sync, and give it its name. Raises: Failure, MissingFile.

    :param sha256: of the artifact that the release was made of.
    :param expected: name to SHA-256 of all files that must be in it, where another host had them.
    """
    temporary = f"{app.releases}/.unpacking.{os.getpid()}"
    os.mkdir(temporary, 0o755)
    try:
        files = _artifact.unpack(path, temporary, finder(app), is_delta)
        if expected is not None and files != dict(expected):
            wrong = sorted(name for name in {*files, *expected} if files.get(name) != expected.get(name))
            raise Failure(f"{wrong[0]} of {release} is not as it was installed there. Deploy that release again.")
        group = _app.group_of(app)
        cookie = f"{temporary}/releases/COOKIE"
        if group is not None and os.path.isfile(cookie) and not os.path.islink(cookie):
            os.chown(cookie, -1, group, follow_symlinks=False)
        _files.write_json(f"{temporary}/.files.json", files, 0o444)
        _files.write_json(
            f"{temporary}/.bluegreen.json",
            {
                **{"version": _validate.release_version(release), "sha256": sha256, "installed_at": _files.now()},
                **({"commit": commit} if commit else {}),
            },
            0o444,
        )
        # A release has a thousand small files; one sync for all of them costs less than an fsync for each.
        os.sync()
        if os.path.isdir(app.release_dir(release)):
            # Not one of ours: it has no .bluegreen.json, or find_kept() had seen it.
            raise Failure(f"{app.release_dir(release)} already exists with other content. Move it away.")
        os.rename(temporary, app.release_dir(release))
        _files.sync_dir(app.releases)
    except BaseException:
        if os.path.isdir(temporary):
            _files.remove_tree(temporary)
        raise
