#!/usr/bin/python
# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: slot_logs
short_description: Read what the slots of a host have logged
version_added: 1.0.0
description:
  - Reads the journal of the slots, or the log files of the release's own daemon, whose lines have no time of their own.
  - Removes the values of the slot's environment from the lines.
  - Only reads, also in check mode.
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
  color:
    description: The slot, V(live) or V(idle). By default both.
    type: str
    choices: [blue, green, live, idle]
  since:
    description: How far back, a whole number with V(s), V(m), V(h) or V(d).
    type: str
    default: 10m
  grep:
    description: Text that a line must contain, in any case. Not a regular expression.
    type: str
    default: ''
  lines:
    description: At most so many lines, the last ones.
    type: int
    default: 1000
"""

EXAMPLES = r"""
- name: Read the errors of the last hour
  beamops.bluegreen.slot_logs:
    app: my_app
    root: /opt/my_app
    domain: example.com
    ports: {blue: 4000, green: 5000}
    listen: "80"
    service_manager: systemd
    since: 1h
    grep: error
  register: logs
"""

RETURN = r"""
ok:
  description: True; absent when the module failed.
  type: bool
  returned: success
entries:
  description: Each with C(at) (seconds since the epoch), C(color) and C(text), oldest first.
  type: list
  elements: dict
  returned: success
left_out:
  description: How many older lines are left out.
  type: int
  returned: success
commands:
  description: Color to the command that follows the log of the slot.
  type: dict
  returned: success
"""

from typing import TYPE_CHECKING, Any

from ansible_collections.beamops.bluegreen.plugins.module_utils import _envfile, _service, _validate
from ansible_collections.beamops.bluegreen.plugins.module_utils._module import run_module

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule
    from ansible_collections.beamops.bluegreen.plugins.module_utils._app import App


def colors(app: App, wanted: str | None) -> tuple[str, ...]:
    """The slots that are meant."""
    if wanted in ("live", "idle"):
        live = app.live_color() or "blue"
        return (live if wanted == "live" else _validate.other(live),)
    return (wanted,) if wanted else _validate.COLORS


def work(module: AnsibleModule, app: App) -> dict[str, Any]:
    params = module.params
    since, text = _validate.check_since(params["since"]), params["grep"].lower()
    entries: list[dict[str, Any]] = []
    commands = {}
    for color in colors(app, params["color"]):
        service, env = _service.for_slot(app, color), app.env(color)
        commands[color] = service.follow_command()
        for at, line in service.log_since(since):
            line = _envfile.redact(line, env)
            if text in line.lower():
                entries.append({"at": at, "color": color, "text": line})
    entries.sort(key=lambda entry: entry["at"])
    last = entries[-params["lines"] :] if params["lines"] > 0 else []
    return {"entries": last, "left_out": len(entries) - len(last), "commands": commands}


def main() -> None:
    run_module(
        dict(
            color=dict(type="str", choices=["blue", "green", "live", "idle"]),
            since=dict(type="str", default="10m"),
            grep=dict(type="str", default=""),
            lines=dict(type="int", default=1000),
        ),
        work,
        exclusive=False,
    )


if __name__ == "__main__":
    main()
