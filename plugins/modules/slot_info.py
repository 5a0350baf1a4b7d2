#!/usr/bin/python
# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: slot_info
short_description: Tell which slot is live, which is idle, and whether a host agrees with itself
version_added: 0.1.0
description:
  - Asks nginx for C(/deployment_id), and compares the answer with the C(live) symlink, the facts file and the processes.
  - Picks the slot that a deploy goes to. That is the idle one; as long as neither slot holds a release it is the live
    one, so that the site is up at once.
  - Reads only; it is the same in check mode.
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
  health_path:
    description: URL path that tells the health of a slot.
    type: str
    default: /
  health_status:
    description: HTTP status that a healthy slot answers with.
    type: int
    default: 200
  history:
    description: How many lines of history to return.
    type: int
    default: 0
  expected_files:
    description:
      - The files of set-up, each with C(path) and the C(sha256) of its text.
      - What is missing or differs comes back as RV(setup_needed).
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where the file belongs.
        type: path
        required: true
      sha256:
        description: SHA-256 of the text that set-up would put there, hexadecimal.
        type: str
      content:
        description: The text itself, where it depends on the nginx of the host. Not logged, for it is long.
        type: str
  preview_token:
    description: The preview token that ought to be set, for RV(setup_needed). Not looked at without O(expected_files).
    type: str
    default: ''
"""

EXAMPLES = r"""
- name: Look at the slots
  beamops.bluegreen.slot_info:
    app: my_app
    root: /opt/my_app
    domain: example.com
    ports: {blue: 4000, green: 5000}
    listen: "80"
    service_manager: systemd
  register: info
"""

RETURN = r"""
ok:
  description: True; absent when the module failed.
  type: bool
  returned: success
live:
  description: Color that traffic goes to. V(blue) on a host that is not set up yet.
  type: str
  returned: success
idle:
  description: The other color.
  type: str
  returned: success
target:
  description: Color that a deploy goes to.
  type: str
  returned: success
link:
  description: Color that the C(live) symlink points to; null where there is none.
  type: str
  returned: success
deployment_id:
  description: What nginx answers at C(/deployment_id); null without an answer.
  type: str
  returned: success
deployment_id_error:
  description: Why nginx gave no such answer; null when it did.
  type: str
  returned: success
previous:
  description: Color and release that were live before the present one; null if there is nothing to go back to.
  type: dict
  returned: success
slots:
  description:
    - What each slot holds and does, by color.
    - Each has C(release), C(version), C(sha256), C(deployed_at), C(promoted_at), C(port), C(connections), C(running), C(pid),
      C(healthy), C(health) (the answer in words), C(process_release) (what the process really runs) and C(pending) (a deploy that is
      not confirmed, or null).
  type: dict
  returned: success
releases:
  description: Ids of the releases that are unpacked on the host, newest first.
  type: list
  elements: str
  returned: success
disagreements:
  description: Sentences for everything that the facts file, the symlink, nginx and the processes do not agree on.
  type: list
  elements: str
  returned: success
problems:
  description: Sentences for what cannot be read at all; they are part of RV(disagreements).
  type: list
  elements: str
  returned: success
traffic_unsure:
  description: True when nginx sends traffic elsewhere than the C(live) symlink says, so that no slot may be touched.
  type: bool
  returned: success
rollback:
  description:
    - Where a rollback goes, with C(release), C(color), and C(take), which is true if the slot has been reused since and the
      release has to go into it again.
    - Has C(refused), a sentence, when there is nothing to go back to.
  type: dict
  returned: success
migrate:
  description: Color of the slot whose release migrates unless one is named.
  type: str
  returned: success
refusals:
  description: Sentences for what forbids every run that changes something, such as the live slot being on another port.
  type: list
  elements: str
  returned: success
history:
  description: The last operations on this host, oldest first.
  type: list
  elements: dict
  returned: success
last_run:
  description: The last operation on this host that decided what is live; null if there was none.
  type: dict
  returned: success
migrations:
  description: Versions of the migrations that had run, by release, as far as the app told.
  type: dict
  returned: success
rolled_back:
  description: Releases that were rolled back from.
  type: list
  elements: str
  returned: success
canary:
  description: Percent of the visitors that get the idle slot.
  type: int
  returned: success
maintenance:
  description: Whether maintenance is on.
  type: bool
  returned: success
setup_needed:
  description: Paths that set-up would create or change.
  type: list
  elements: str
  returned: success
facts:
  description: The facts as they are in the file.
  type: dict
  returned: success
lock:
  description: Who holds the deploy lock; null if nobody does.
  type: dict
  returned: success
nginx_version:
  description: Version of nginx; null where it is not installed.
  type: str
  returned: success
is_root:
  description: Whether the module ran as root.
  type: bool
  returned: success
"""

import hashlib
import json
import os
import pwd

from ansible_collections.beamops.bluegreen.plugins.module_utils import _host, _nginx, _service, _slots
from ansible_collections.beamops.bluegreen.plugins.module_utils._module import run_module
from ansible_collections.beamops.bluegreen.plugins.module_utils._rules import (
    COLORS,
    Refused,
    check_url_path,
    other,
    release_version,
)


def digest(text):
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def setup_needed(app, params, nginx_version):
    """Paths of what set-up would write. Without O(expected_files) nobody asked."""
    expected, found = {}, []
    for file in params["expected_files"]:
        expected[file["path"]] = file["sha256"] or digest(_nginx.fit(file["content"], nginx_version))
    stamp = f"{app.root}/site.sha256"
    if stamp in expected:
        # It holds the hash of the site that nginx was last proven to have loaded.
        expected[stamp] = digest(expected[f"{app.nginx_conf_dir}/conf.d/{app.name}.conf"])
    for path, sha256 in expected.items():
        try:
            with open(path, "rb") as stream:
                fine = hashlib.sha256(stream.read()).hexdigest() == sha256
        except OSError:
            fine = False
        if not fine:
            found.append(path)
    if expected and not _host.has_token(app, params["preview_token"]):
        found.append(app.preview)
    return found


def pending(journal):
    """What the journal of a deploy that is not confirmed says, without the facts in it."""
    if not journal:
        return None
    return {**{name: journal[name] for name in ("release", "at", "run")}, "former": journal["former"]["release"]}


def foreign(app):
    """Sentences for what already has the app's name on this host and is not ours: set-up would overwrite it."""
    found = []
    try:
        home = pwd.getpwnam(app.name).pw_dir
        if app.service_manager == "systemd" and home != app.root:
            found.append(
                f"this host has a user {app.name} already, whose home is {home}, not {app.root}; rename the app"
            )
    except KeyError:
        pass
    units = [
        f"{place}/{app.name}@.service"
        for place in ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
    ]
    for path in [*units, f"{app.nginx_conf_dir}/conf.d/{app.name}.conf"]:
        text = _host.read_text(path)
        if text is not None and _host.MARK not in text:
            found.append(f"{path} is there already, and is not of beamops.bluegreen; move it away, or rename the app")
    return found


def history(app, count):
    """The last operations on this host, oldest first. A damaged line is left out."""
    found = []
    for line in (_host.read_text(app.history) or "").splitlines()[-count:] if count > 0 else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def last_run(entries):
    """The last operation that decided what is live; one that failed and left it as it was decided nothing."""
    for entry in reversed(entries):
        decides = entry.get("operation") in ("deploy", "promote", "rollback")
        if decides and (entry.get("result") == "ok" or entry.get("from") != entry.get("to")):
            return entry
    return None


def look_at_slot(app, color, facts, params):
    held = app.held(color)
    release = held["release"] if held else None
    slot_facts = facts["slots"][color] or {}
    if slot_facts.get("release") != release:
        slot_facts = {}
    pid = _service.service(app, color).pid() if release or app.service_manager == "daemon" else None
    answer = _service.answers(app, color, pid, params["health_path"], 2.0) if pid else {"error": "not running"}
    journal = _host.read_json(app.journal(color))
    return {
        "color": color,
        "port": app.ports[color],
        "connections": _host.connections(app.ports[color]),
        "release": release,
        "version": release_version(release) if release else None,
        "sha256": held["sha256"] if held else None,
        "deployed_at": slot_facts.get("deployed_at"),
        "promoted_at": slot_facts.get("promoted_at"),
        "running": bool(pid),
        "pid": pid,
        "healthy": answer.get("status") == params["health_status"],
        "health": _host.describe(answer),
        "process_release": _service.process_release(app, pid) if pid else None,
        "pending": pending(journal),
    }


def look(module, app):
    params = module.params
    check_url_path(params["health_path"])
    written, problem = app.facts_as_written()
    problems = [problem] if problem else []
    link = None
    try:
        link = app.link()
    except _host.Failure as error:
        problems.append(str(error))
    live = link or written["live"] or "blue"
    # What the facts ought to say: a run may have died before it could write them.
    facts = app.facts() if link else written
    slots = {color: look_at_slot(app, color, facts, params) for color in COLORS}
    nginx_says, why_not = _host.deployment_id(app)
    nginx_version = _nginx.Nginx(app).version()
    info = {
        "live": live,
        "idle": other(live),
        "target": _slots.target_slot(live, {color: _slots.counts(slots[color]) for color in COLORS}),
        "link": link,
        "deployment_id": nginx_says,
        "deployment_id_error": why_not,
        "previous": facts["previous"],
        "slots": slots,
        "releases": app.kept(),
        "facts": written,
        "problems": problems,
        "traffic_unsure": bool(link and nginx_says and nginx_says != link)
        or (link is None and _host.is_link(app.live)),
        "refusals": _host.port_conflicts(app, link) + foreign(app),
        "rolled_back": facts["rolled_back"],
        "history": history(app, params["history"]),
        "last_run": last_run(history(app, 50)),
        "migrations": app.migrations(),
        "canary": app.canary_percent(other(live)),
        "maintenance": os.path.exists(app.maintenance),
        "setup_needed": setup_needed(app, params, nginx_version),
        "lock": _host.read_json(app.lock),
        "nginx_version": nginx_version,
        "is_root": os.geteuid() == 0,
    }
    info["disagreements"] = _slots.disagreements(info)
    info["migrate"] = _slots.migrate_color(info)
    try:
        info["rollback"] = _slots.rollback_target(facts, info["releases"])
    except Refused as error:
        info["rollback"] = {"refused": str(error)}
    return info


def main():
    run_module(
        dict(
            health_path=dict(type="str", default="/"),
            health_status=dict(type="int", default=200),
            history=dict(type="int", default=0),
            expected_files=dict(
                type="list",
                elements="dict",
                default=[],
                options=dict(
                    path=dict(type="path", required=True),
                    sha256=dict(type="str"),
                    content=dict(type="str", no_log=True),
                ),
            ),
            preview_token=dict(type="str", default="", no_log=True),
        ),
        look,
        alone=False,
    )


if __name__ == "__main__":
    main()
