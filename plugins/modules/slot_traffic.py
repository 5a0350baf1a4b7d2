#!/usr/bin/python
# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: slot_traffic
short_description: Send a share of the visitors to the idle slot (canary), or close the site (maintenance)
version_added: 0.1.0
description:
  - Both are files that nginx looks for on every request, so nginx is not reloaded.
  - A visitor, identified by address and user agent, stays in the same share. A promote ends the canary.
author:
  - The beamops.bluegreen contributors (@beamops)
extends_documentation_fragment:
  - beamops.bluegreen.app
  - beamops.bluegreen.app.health
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  percent:
    description:
      - Percent of the visitors that get the idle slot, from 0 to 100. The slot must be healthy, unless it is 0.
      - Without it, the canary stays as it is.
    type: int
  maintenance:
    description: Whether the site is closed. Without it, that stays as it is.
    type: bool
  page:
    description: HTML page that the closed site answers with status 503. Without it, the page stays as it is.
    type: str
  run_id:
    description: Id of the run that must hold the lock.
    type: str
    default: ''
    aliases: [run]
"""

EXAMPLES = r"""
- name: Let ten percent of the visitors try the idle slot
  beamops.bluegreen.slot_traffic:
    app: my_app
    root: /opt/my_app
    domain: example.com
    ports: {blue: 4000, green: 5000}
    listen: "80"
    service_manager: systemd
    percent: 10
"""

RETURN = r"""
ok:
  description: True; absent when the module failed.
  type: bool
  returned: success
idle:
  description: The slot that the canary gets.
  type: str
  returned: success
percent:
  description: Percent of the visitors that get the idle slot now.
  type: int
  returned: success
maintenance:
  description: Whether the site is closed now.
  type: bool
  returned: success
"""

import os
from typing import TYPE_CHECKING, Any

from ansible_collections.beamops.bluegreen.plugins.module_utils import _app, _files, _health, _http, _validate
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure
from ansible_collections.beamops.bluegreen.plugins.module_utils._module import renamed, run_module

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule
    from ansible_collections.beamops.bluegreen.plugins.module_utils._app import App


def set_canary(app: App, color: str, percent: Any) -> Any:
    """A file for each percent; every number in between is a canary too, so it does not matter where this is killed."""
    folder = app.canary(color)
    _app.close_shortcuts(app)
    os.makedirs(folder, mode=0o755, exist_ok=True)
    wanted = {f"{share:02d}" for share in range(percent)}
    there = set(os.listdir(folder))
    for name in sorted(wanted - there):
        _files.write_file(f"{folder}/{name}", "", 0o644)
    for name in sorted(there - wanted):
        _files.remove(f"{folder}/{name}")


def set_maintenance(app: App, closed: Any) -> Any:
    if closed:
        _app.close_shortcuts(app)
        _files.write_file(app.maintenance, "", 0o644)
    else:
        _files.remove(app.maintenance)


def prove(app: App, page: Any, closed: Any) -> None:
    """Raises Failure unless nginx looks at what was written: an older site does not know of it."""
    answer = _http.through_nginx(app, "/bluegreen-is-this-closed", size=1 << 20)
    if (answer.get("body") == _files.read_text(page)) != closed:
        state = "closed" if closed else "open"
        raise Failure(f"the site is not {state} (GET: {_http.describe(answer)}). Run setup.yml, then try again.")


def work(module: AnsibleModule, app: App) -> dict[str, Any]:
    params = module.params
    _validate.check_url_path(params["health_path"])
    live = app.live_color()
    if live is None:
        raise Failure("this host is not set up. Run deploy.yml.")
    idle = _validate.other(live)
    if not app.web:
        # A worker has no visitors to send elsewhere, or away.
        return {"idle": idle, "percent": 0, "maintenance": False}
    percent, closed = app.canary_percent(idle), os.path.exists(app.maintenance)
    changed = False
    if params["percent"] is not None:
        wanted = _validate.check_percent(params["percent"])
        if wanted:
            _health.require_ready(app, idle, params)
        if wanted != percent:
            changed, percent = True, wanted
            if not module.check_mode:
                set_canary(app, idle, wanted)
    page = app.maintenance_page
    text = params["page"]
    if params["maintenance"] and text and _files.read_text(page) != text:
        changed = True
        if not module.check_mode:
            os.makedirs(os.path.dirname(page), mode=0o755, exist_ok=True)
            _files.write_file(page, text, 0o644)
    if params["maintenance"] is not None and params["maintenance"] != closed:
        changed, closed = True, params["maintenance"]
        if not module.check_mode:
            set_maintenance(app, closed)
    if params["maintenance"] is not None and not module.check_mode:
        prove(app, page, closed)
    return {"changed": changed, "idle": idle, "percent": percent, "maintenance": closed}


def main() -> None:
    run_module(
        dict(
            **_app.HEALTH_OPTIONS,
            percent=dict(type="int"),
            maintenance=dict(type="bool"),
            page=dict(type="str"),
            run_id=dict(type="str", default="", **renamed("run")),
        ),
        work,
    )


if __name__ == "__main__":
    main()
