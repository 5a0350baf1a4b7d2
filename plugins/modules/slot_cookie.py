#!/usr/bin/python
# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: slot_cookie
short_description: Read or replace the Erlang cookie of an app
version_added: 1.0.0
description:
  - Reads the cookie of an app, or replaces it with the one of another host, so that the nodes of both can connect.
  - A node that runs keeps the cookie that it was started with. The next deploy to its slot brings the new one.
  - The result of a task without O(cookie) has the cookie in it, so use it with C(no_log).
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
  cookie:
    description: The cookie that the app is to have, 8 to 255 letters, digits, C(_) and C(-). Without it the module reads.
    type: str
  run_id:
    description: Id of the run that holds the lock.
    type: str
    default: ''
"""

EXAMPLES = r"""
- name: Read the cookie
  beamops.bluegreen.slot_cookie:
    app: my_app
    root: /opt/my_app
    domain: example.com
    ports: {blue: 4000, green: 5000}
    listen: "80"
    service_manager: systemd
  no_log: true
  register: cookie
"""

RETURN = r"""
ok:
  description: True; absent when the module failed.
  type: bool
  returned: success
cookie:
  description: The cookie of the app.
  type: str
  returned: without O(cookie)
"""

import re
from typing import TYPE_CHECKING, Any

from ansible_collections.beamops.bluegreen.plugins.module_utils import _app, _files
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure, Refused
from ansible_collections.beamops.bluegreen.plugins.module_utils._module import run_module

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule
    from ansible_collections.beamops.bluegreen.plugins.module_utils._app import App

_COOKIE = re.compile(r"\A[A-Za-z0-9_-]{8,255}\Z")


def work(module: AnsibleModule, app: App) -> dict[str, Any]:
    wanted, there = module.params["cookie"], app.own_cookie()
    if wanted is None:
        if not there:
            raise Failure(f"{app.cookie} is missing. Run setup.yml.")
        return {"cookie": there}
    if not _COOKIE.match(wanted):
        raise Refused("the cookie must be 8 to 255 letters, digits, _ and - (its value is not shown)")
    if wanted == there:
        return {}
    if not module.check_mode:
        _files.write_file(app.cookie, wanted, 0o640, _app.group_of(app))
    return {"changed": True}


def main() -> None:
    run_module(dict(cookie=dict(type="str", no_log=True), run_id=dict(type="str", default="")), work)


if __name__ == "__main__":
    main()
