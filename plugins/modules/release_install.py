#!/usr/bin/python
# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: release_install
short_description: Install the tarball of a mix release on a host
version_added: 0.1.0
description:
  - Unpacks a release into C(<root>/releases/<version>-<first 8 digits of its SHA-256>) and never changes it again.
  - Unpacks beside that place, checks, syncs to disk and renames, so that a release is there completely or not at all.
  - Refuses members that are absolute, lead outside or are devices. A member may occur twice, because Mix does that.
  - Sends nothing if the host has the release, and otherwise only the files that no release on the host has. It links the others, so
    the disk grows only by what is new.
author:
  - The beamops.bluegreen contributors (@beamops)
extends_documentation_fragment:
  - beamops.bluegreen.app
  - action_common_attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  platform:
    platforms: posix
options:
  artifact:
    description: Path of the tarball on the controller, or an http(s) URL that the host fetches it from.
    type: str
    required: true
  url:
    description: The URL with its secrets. Set by the action plugin, which leaves the URL without them in O(artifact).
    type: str
  checksum:
    description: C(sha256:) and 64 hexadecimal digits. Required for a URL.
    type: str
  version:
    description:
      - Version that the artifact must have. By default any version is fine.
    type: str
  commit:
    description: What the artifact was built from, kept with a release that is newly installed.
    type: str
    default: ''
    version_added: 1.0.0
  run_id:
    description: Id of the run that must hold the lock. Without it the module does not check the lock.
    type: str
    default: ''
    aliases: [run]
  artifact_info:
    description:
      - What the controller found in the artifact, so that it is inspected once for the whole group.
      - A dictionary with C(version), C(sha256), C(bytes), C(unpacked_bytes), sizes in bytes, and C(needs), what its programs need of a host.
    type: dict
  host_content:
    description: What M(beamops.bluegreen.slot_info) returned as C(host_content), which saves a run on the host.
    type: dict
  src:
    description: Where the tarball was uploaded to. Set by the action plugin.
    type: path
  content:
    description: The tarball itself, in base64, instead of O(src). Set by the action plugin, for a small one.
    type: str
  delta:
    description: Whether the upload is not the artifact byte for byte. It omits files that the host has, or is compressed in another way. Set
      by the action plugin.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Install the release
  beamops.bluegreen.release_install:
    app: my_app
    root: /opt/my_app
    domain: example.com
    ports: {blue: 4000, green: 5000}
    listen: "80"
    service_manager: systemd
    artifact: _build/prod/my_app-0.1.1.tar.gz
"""

RETURN = r"""
ok:
  description: True; absent when the module failed.
  type: bool
  returned: success
release:
  description: Id of the release, C(<version>-<first 8 of its SHA-256>). Null in check mode for a URL that the host does not have.
  type: str
  returned: success
version:
  description: Version of the release.
  type: str
  returned: success
sha256:
  description: SHA-256 of the artifact.
  type: str
  returned: success
upload_needed:
  description: Whether the host does not have the release yet.
  type: bool
  returned: success
missing_files:
  description: Why files that the upload omitted must be sent after all.
  type: str
  returned: when they have to
"""

import base64
import os
from typing import TYPE_CHECKING, Any

from ansible.module_utils.urls import fetch_url
from ansible_collections.beamops.bluegreen.plugins.module_utils import _artifact, _files, _info, _install, _validate
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure, Refused
from ansible_collections.beamops.bluegreen.plugins.module_utils._module import renamed, run_module

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule
    from ansible_collections.beamops.bluegreen.plugins.module_utils._app import App


def result_for(release: str | None, sha256: str, changed: bool = False) -> dict[str, Any]:
    version = _validate.release_version(release) if release else None
    return {"changed": changed, "release": release, "version": version, "sha256": sha256, "upload_needed": changed}


def find_kept(app: App, sha256: str) -> str | None:
    """The release that was made of this very artifact, or V(None)."""
    for release in app.installed_releases():
        if app.about(release).get("sha256") == sha256:
            return release
    return None


def put_aside(module: AnsibleModule, artifact: str, path: str) -> None:
    """Write what came along, or what the URL has, to a file beside the releases."""
    if module.params["content"]:
        with open(path, "xb") as target:
            target.write(base64.b64decode(module.params["content"]))
        return
    url = module.params["url"] or artifact
    response, info = fetch_url(module, url, timeout=60)
    if info["status"] != 200:
        answer = info["status"] if info["status"] > 0 else info["msg"].replace(url, artifact)
        raise Failure(f"{artifact} answered {answer} instead of an artifact")
    with open(path, "xb") as target:
        for block in iter(lambda: response.read(1 << 20), b""):
            target.write(block)


def install(module: AnsibleModule, app: App) -> dict[str, Any]:
    params = module.params
    artifact = _validate.check_artifact(params["artifact"], params["checksum"])
    found = params["artifact_info"]
    sha256 = found["sha256"] if found else _validate.check_checksum(params["checksum"] or "")
    wanted = params["version"]
    if wanted:
        _validate.check_version(wanted)
    if params["commit"]:
        _validate.check_commit(params["commit"])
    kept = find_kept(app, sha256)
    if kept:
        if wanted and _validate.release_version(kept) != wanted:
            raise Refused(
                f"bluegreen_version must be the version of the artifact, {_validate.release_version(kept)} (got {wanted})"
            )
        return result_for(kept, sha256)
    if module.check_mode or not (params["src"] or params["content"] or _validate.is_url(artifact)):
        if found:
            _install.require_host(found.get("needs") or {})
            _install.require_space(app, int(found["unpacked_bytes"]))
        release = _validate.release_id(found["version"], sha256) if found else None
        return {**result_for(release, sha256, True), "host_content": _info.host_content(app)}
    os.makedirs(app.releases, mode=0o755, exist_ok=True)
    path = params["src"] or f"{app.releases}/.fetching.{os.getpid()}"
    try:
        if not params["src"]:
            put_aside(module, artifact, path)
        # Of a delta, each file is proven.
        really = sha256 if params["delta"] else _artifact.sha256_of(path)
        if really != sha256:
            raise Failure(f"the artifact must have SHA-256 {sha256} (got {really})")
        found = found or _artifact.inspect(path, app.name)
        if wanted and found["version"] != wanted:
            raise Refused(f"bluegreen_version must be the version of the artifact, {found['version']} (got {wanted})")
        _install.require_host(found.get("needs") or {})
        release = _validate.release_id(found["version"], sha256)
        needed = _artifact.disk_usage(path) if params["delta"] else found["unpacked_bytes"]
        _install.require_space(app, needed)
        _install.put_release(app, path, release, sha256, params["delta"], params["commit"])
    except _artifact.MissingFile as error:
        return {**result_for(release, sha256), "upload_needed": True, "missing_files": str(error)}
    except OSError as error:
        raise Failure(f"the release could not be unpacked below {app.releases}: {error.strerror}") from None
    finally:
        _files.remove(path)
    return result_for(release, sha256, True)


def main() -> None:
    run_module(
        dict(
            artifact=dict(type="str", required=True),
            url=dict(type="str", no_log=True),
            checksum=dict(type="str"),
            version=dict(type="str"),
            commit=dict(type="str", default=""),
            artifact_info=dict(type="dict"),
            run_id=dict(type="str", default="", **renamed("run")),
            host_content=dict(type="dict"),
            src=dict(type="path"),
            # Not a secret, but a module logs its options, and this one is long.
            content=dict(type="str", no_log=True),
            delta=dict(type="bool", default=False),
        ),
        install,
    )


if __name__ == "__main__":
    main()
