#!/usr/bin/python
# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: slot_join
short_description: Hand on what one host of a group holds to a host that joins it
version_added: 1.0.0
description:
  - V(packed) reads a host of the group, V(unpacked) gives that to another host, and V(recorded) writes down there what was live before. The slots
    themselves are filled by M(beamops.bluegreen.slot_service), so that each is proven.
  - A release goes from host to host through the controller, and each file of it is proven by its SHA-256.
  - The result of V(packed) has the environments of the slots and the cookie in it, so use it with C(no_log).
author:
  - The beamops.bluegreen contributors (@beamops)
extends_documentation_fragment:
  - beamops.bluegreen.app
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  state:
    description: Which half of it.
    type: str
    choices: [packed, unpacked, recorded]
    required: true
  folder:
    description: For V(packed), where to put the releases. Set by the action plugin.
    type: path
  without:
    description: For V(packed), releases that the host which joins has already.
    type: list
    elements: str
    default: []
  bundle:
    description: What V(packed) returned.
    type: str
  sources:
    description: For V(unpacked), what V(packed) returned. The action plugin uploads these files.
    type: dict
    default: {}
  env_ids:
    description: For V(recorded), what V(unpacked) returned.
    type: dict
    default: {}
  run_id:
    description: Id of the run that must hold the lock. Without it the module does not check the lock.
    type: str
    default: ''
"""

EXAMPLES = r"""
- name: Read what the group serves
  beamops.bluegreen.slot_join:
    app: my_app
    root: /opt/my_app
    domain: example.com
    ports: {blue: 4000, green: 5000}
    listen: "80"
    service_manager: systemd
    state: packed
  delegate_to: web1
  no_log: true
  register: packed
"""

RETURN = r"""
ok:
  description: True; absent when the module failed.
  type: bool
  returned: success
bundle:
  description:
    - C(live), the color; C(cookie); C(facts); C(contents), each with C(release), the id of its C(env), and that as C(text); C(migrations), as they
      are kept for each release; and C(releases), each with C(sha256), C(commit), C(needs) and C(files).
    - One word, base64 of JSON, because Ansible hides an option only as a whole.
  type: str
  returned: for V(packed)
sources:
  description: Release to the tarball it was packed to, on the controller.
  type: dict
  returned: for V(packed)
env_ids:
  description: Id of an environment there to its id here. They differ in a cluster, where the address of the host is part of it.
  type: dict
  returned: for V(unpacked)
"""

import base64
import json
import os
import tarfile
from typing import TYPE_CHECKING, Any

from ansible_collections.beamops.bluegreen.plugins.module_utils import (
    _app,
    _artifact,
    _cluster,
    _envfile,
    _files,
    _install,
    _slots,
    _validate,
)
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure, Refused
from ansible_collections.beamops.bluegreen.plugins.module_utils._module import run_module
from ansible_collections.beamops.bluegreen.plugins.module_utils._validate import COLORS

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule
    from ansible_collections.beamops.bluegreen.plugins.module_utils._app import App

# What we have written into a release; it is made anew where the release goes to.
_OURS = (".files.json", ".bluegreen.json")


# --- from ----------------------------------------------------------------------------------------------------------------


def contents(app: App) -> list[tuple[str, str, str]]:
    """(release, id of its environment, text of that) of both slots, and of what a rollback would bring back."""
    found = []
    for color in COLORS:
        held = app.slot_content(color)
        if held:
            found.append((held["release"], held["env"], _files.read_text(app.env_file(color)) or ""))
    there = [one for one in app.former_envs() if one["release"] in app.installed_releases()]
    try:
        goal = _slots.rollback_target(app.facts(), there)
    except Refused:
        return found
    if goal["take"]:
        text = _files.read_text(app.former_env(goal["release"] or "", goal["env"]))
        found.append((goal["release"] or "", goal["env"], text or ""))
    return found


def pack(app: App, release: str, folder: str) -> dict[str, Any]:
    """One release as a tarball that the user of the connection may read."""
    sha256 = app.about(release).get("sha256", "")
    found = {"sha256": sha256, "commit": app.commit(release), "files": app.release_files(release), "needs": {}}
    if not found["files"]:
        raise Failure(
            f"{release} was installed by a version of this collection that did not write down its files. Deploy it again."
        )
    programs = [name for name in found["files"] if name.startswith("erts-") and name.endswith("/bin/beam.smp")]
    for name in programs:
        with open(f"{app.release_dir(release)}/{name}", "rb") as stream:
            found["needs"] = _artifact.needs_of(stream.read())
    path = f"{folder}/{release}.tar.gz"

    def whole(info: tarfile.TarInfo) -> tarfile.TarInfo:
        # Files that are the same are one file on the disk, and each is proven by itself.
        if info.islnk():
            info.type, info.linkname = tarfile.REGTYPE, ""
            info.size = os.path.getsize(f"{app.release_dir(release)}/{info.name}")
        return info

    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name in sorted(os.listdir(app.release_dir(release))):
            if name not in _OURS:
                archive.add(f"{app.release_dir(release)}/{name}", name, filter=whole)
    owner = os.stat(folder)
    os.chown(path, owner.st_uid, owner.st_gid)
    return found


def packed(module: AnsibleModule, app: App) -> dict[str, Any]:
    params = module.params
    live = app.live_color()
    if not live or not app.slot_release(live):
        raise Failure("this host serves nothing that another one could take over")
    found = contents(app)
    releases = sorted({release for release, _env, _text in found} - set(params["without"]))
    kept = app.migrations()
    bundle = {
        "live": live,
        "cookie": app.own_cookie(),
        "facts": app.facts(),
        "contents": [{"release": release, "env": env, "text": text} for release, env, text in found],
        "migrations": {release: kept[release] for release, _env, _text in found if release in kept},
        "releases": {release: pack(app, release, params["folder"]) for release in releases if not module.check_mode},
    }
    return {
        "bundle": base64.b64encode(json.dumps(bundle).encode()).decode(),
        "sources": {release: f"{params['folder']}/{release}.tar.gz" for release in bundle["releases"]},
    }


# --- to ------------------------------------------------------------------------------------------------------------------


def read(bundle: str) -> dict[str, Any]:
    return json.loads(base64.b64decode(bundle))


def own_env(app: App, text: str) -> dict[str, str]:
    """An environment of another host, as it is on this one: its node has the address of this host."""
    env = _envfile.parse(text)
    there = _cluster.from_env(env)
    if there and app.cluster:
        env[_cluster.VARIABLE] = app.cluster._replace(generations=there.generations).text()
    return env


def unpacked(module: AnsibleModule, app: App) -> dict[str, Any]:
    params = module.params
    bundle, changed, env_ids = read(params["bundle"]), False, {}
    for release, about in bundle["releases"].items():
        _validate.check_release(release)
        if release in app.installed_releases():
            continue
        _install.require_host(about["needs"])
        os.makedirs(app.releases, mode=0o755, exist_ok=True)
        path = params["sources"][release]
        _install.require_space(app, _artifact.disk_usage(path))
        _install.put_release(app, path, release, about["sha256"], commit=about["commit"], expected=about["files"])
        changed = True
    for entry in bundle["contents"]:
        env = own_env(app, entry["text"])
        env_ids[entry["env"]] = _envfile.env_id(env)
        path, text = (
            app.former_env(_validate.check_release(entry["release"]), env_ids[entry["env"]]),
            _envfile.render(env),
        )
        if _files.read_text(path) != text and not module.check_mode:
            os.makedirs(f"{app.root}/former", mode=0o700, exist_ok=True)
            _files.write_file(path, text, 0o640, _app.group_of(app))
    if module.check_mode:
        return {"changed": True, "env_ids": env_ids}
    for release, told in bundle["migrations"].items():
        _files.write_json(app.migrations_file(_validate.check_release(release)), told)
    if bundle["cookie"] != app.own_cookie():
        _files.write_file(app.cookie, bundle["cookie"], 0o640, _app.group_of(app))
        changed = True
    if app.live_color() != bundle["live"] and not any(app.slot_content(color) for color in COLORS):
        # Nothing has ever been served here, so there is nobody whom this could move.
        _files.write_link(app.live, f"slots/{_validate.check_color(bundle['live'])}")
        changed = True
    return {"changed": changed, "env_ids": env_ids}


def recorded(module: AnsibleModule, app: App) -> dict[str, Any]:
    facts = _slots.after_join(app.facts(), read(module.params["bundle"])["facts"], module.params["env_ids"])
    if module.check_mode:
        return {"changed": facts != app.facts_as_written()[0]}
    for color in COLORS:
        # Both slots are as they are to stay: what they held before is of no use to anybody.
        _app.drop_journal(app, color)
    return {"changed": app.write_facts(facts)}


def work(module: AnsibleModule, app: App) -> dict[str, Any]:
    return {"packed": packed, "unpacked": unpacked, "recorded": recorded}[module.params["state"]](module, app)


def main() -> None:
    run_module(
        dict(
            state=dict(type="str", choices=["packed", "unpacked", "recorded"], required=True),
            folder=dict(type="path"),
            without=dict(type="list", elements="str", default=[]),
            bundle=dict(type="str", no_log=True),
            sources=dict(type="dict", default={}),
            env_ids=dict(type="dict", default={}),
            run_id=dict(type="str", default=""),
        ),
        work,
        # The other half is on a host whose lock this run does not hold.
        exclusive=lambda params: params["state"] != "packed",
    )


if __name__ == "__main__":
    main()
