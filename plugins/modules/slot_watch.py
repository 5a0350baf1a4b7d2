#!/usr/bin/python
# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: slot_watch
short_description: Read how a slot answers its visitors, beside the other slot
version_added: 1.0.0
description:
  - Counts answers by status and time, from what the site writes down where C(bluegreen_watch) is set. Requests of the health path do not
    count, unless it is C(/).
  - Does not judge. A group is judged on the controller, by M(beamops.bluegreen.group).
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
    description: The slot to watch.
    type: str
    choices: [blue, green]
    required: true
  since:
    description: From when on, in seconds since the host booted. RV(since) of the first time, or C(switched_at) of
      M(beamops.bluegreen.slot_switch). By default from now on.
    type: float
  look_at:
    description: Wait until so many seconds after O(since), then count.
    type: float
    default: 0
  before:
    description: Seconds before O(since) in which the other slot is counted. With V(0) it is counted in the same time as O(color).
    type: float
    default: 0
  run_id:
    description: Id of the run. It ends when it does not hold the lock any more.
    type: str
    default: ''
"""

EXAMPLES = r"""
- name: Watch green for ten seconds
  beamops.bluegreen.slot_watch:
    app: my_app
    root: /opt/my_app
    domain: example.com
    ports: {blue: 4000, green: 5000}
    listen: "80"
    service_manager: systemd
    color: green
    look_at: 10
"""

RETURN = r"""
ok:
  description: True; absent when the module failed.
  type: bool
  returned: success
new:
  description: Of O(color), C(requests), C(errors) (5xx), C(times) (buckets of times that are 5 % apart, to number of requests), and
    C(restarts), whether its process is another than at first. C(node) is what its node writes of itself while bluegreen_watch lets it, that is
    C(restarts) of children by their supervisors, C(memory) in bytes, C(run_queue) in processes, C(queue), what a process with a name has not
    read for four seconds, in messages, and C(queue_of), that name; null if it writes nothing.
  type: dict
  returned: success
old:
  description: The same of the other slot, without C(restarts).
  type: dict
  returned: success
since:
  description: As O(since).
  type: float
  returned: success
seconds:
  description: How long O(color) was counted.
  type: float
  returned: success
"""

import re
import time
from typing import TYPE_CHECKING, Any

from ansible_collections.beamops.bluegreen.plugins.module_utils import (
    _exclusive,
    _figures,
    _files,
    _proc,
    _service,
    _validate,
)
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure
from ansible_collections.beamops.bluegreen.plugins.module_utils._module import run_module

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule
    from ansible_collections.beamops.bluegreen.plugins.module_utils._app import App


# A node writes every two seconds, see roles/slot/files/watch_node.exs.
_FRESH = 15
_NODE = re.compile(r"(\S{1,100}) ([0-9]{1,10}) ([0-9]{1,9}) ([0-9]{1,15}) ([0-9]{1,9}) ([0-9]{1,12}) :?(.*)\Z")


def has_restarted(pid: int | None, since: float) -> bool:
    """Whether the process of a slot is none that ran at a time (in seconds since the host booted)."""
    return pid is None or _proc.uptime() - _proc.age_of(pid) > since


def of_node(state_dir: str, pid: int | None, run: str) -> dict[str, Any] | None:
    """What the node of a slot writes of itself: {"restarts", "memory", "run_queue", "queue", "queue_of"}; V(None) if it has not lately.

    C(restarts) counts how often a supervisor has restarted children since the run C(run) asked, C(memory) is in bytes, C(run_queue) in processes,
    and C(queue) is what a process with a name, C(queue_of), has not read for four seconds, in messages.
    """
    lines = _files.lines_of_the_app(f"{state_dir}/watch", _FRESH)
    found = _NODE.match(lines[0]) if lines else None
    if not found or found.group(1) != run or found.group(2) != str(pid):
        return None
    restarts, memory, run_queue, queue = (int(word) for word in found.groups()[2:6])
    name = re.sub(r"[^A-Za-z0-9_.:]", "", found.group(7))[:100]
    return {"restarts": restarts, "memory": memory, "run_queue": run_queue, "queue": queue, "queue_of": name or "?"}


def work(module: AnsibleModule, app: App) -> dict[str, Any]:
    params, color = module.params, module.params["color"]
    if app.web and app.figures not in (_files.read_text(app.site_file) or ""):
        raise Failure(
            "the site does not write down how it answers. Set bluegreen_watch in the inventory and run setup.yml; an nginx without any "
            "access_log has to get one first."
        )
    since = params["since"] if params["since"] is not None else _proc.uptime()
    while not module.check_mode and (left := since + params["look_at"] - _proc.uptime()) > 0:
        time.sleep(min(left, 0.5))
        # Somebody may have ended the run, to roll back.
        _exclusive.require_lock(app, params["run_id"])
    now, seconds = time.time(), _proc.uptime() - since
    began = now - seconds
    before = (began - params["before"], began) if params["before"] else (began, now)
    lines = list(_figures.lines_since(app.figures, before[0]))
    new = _figures.sample(lines, color, began, now)
    old = _figures.sample(lines, _validate.other(color), *before)
    for slot, figures in ((color, new), (_validate.other(color), old)):
        pid = _service.for_slot(app, slot).pid()
        figures["node"] = of_node(app.state_dir(slot), pid, params["run_id"])
        if slot == color:
            figures["restarts"] = int(has_restarted(pid, since))
    return {"new": new, "old": old, "since": since, "seconds": round(seconds, 1)}


def main() -> None:
    run_module(
        dict(
            color=dict(type="str", choices=["blue", "green"], required=True),
            since=dict(type="float"),
            look_at=dict(type="float", default=0),
            before=dict(type="float", default=0),
            run_id=dict(type="str", default=""),
        ),
        work,
        exclusive=False,
    )


if __name__ == "__main__":
    main()
