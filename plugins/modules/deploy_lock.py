#!/usr/bin/python
# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: deploy_lock
short_description: One deploy, promote or rollback of an app at a time
version_added: 0.1.0
description:
  - Takes, frees or breaks the lock of an app on a host. The lock is a file that appears whole or not at all and says who
    holds it, for what, and since when.
  - A lock belongs to a run. Taking what the run holds already, and freeing what it does not hold, change nothing.
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
    description:
      - V(present) takes the lock, or fails and says who holds it.
      - V(absent) frees it if O(run) holds it.
      - V(broken) removes the lock of another run if it is stale, or with O(force).
    type: str
    choices: [present, absent, broken]
    default: present
  run:
    description: Name of the run that takes or frees the lock.
    type: str
    default: ''
  holder:
    description: Who runs it, for others to read, such as C(ann@laptop).
    type: str
    default: ''
  operation:
    description: What the lock is taken for, such as C(deploy).
    type: str
    default: ''
  stale_after:
    description: Age in seconds from which a lock counts as left behind.
    type: int
    default: 1800
  force:
    description: Break a lock that is not stale.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Take the lock
  beamops.bluegreen.deploy_lock:
    app: my_app
    root: /opt/my_app
    domain: example.com
    ports: {blue: 4000, green: 5000}
    listen: "80"
    service_manager: systemd
    run: 2026-11-23T03:00:00Z-4711
    holder: ann@laptop
    operation: deploy
"""

RETURN = r"""
ok:
  description: True; absent when the module failed.
  type: bool
  returned: success
lock:
  description: The lock that was found before the module acted, with C(run), C(holder), C(operation) and C(since); null if none.
  type: dict
  returned: always
msg:
  description: What was done, or who holds the lock.
  type: str
  returned: always
"""

import calendar
import json
import os
import time

from ansible_collections.beamops.bluegreen.plugins.module_utils import _host
from ansible_collections.beamops.bluegreen.plugins.module_utils._module import run_module


def age_of(lock):
    """Seconds since the lock was taken; negative after the clock went backwards."""
    try:
        return time.time() - calendar.timegm(time.strptime(lock["since"], "%Y-%m-%dT%H:%M:%SZ"))
    except (KeyError, TypeError, ValueError):
        return float("inf")


def words(lock, stale_after):
    age = age_of(lock)
    since = "at an unknown time" if age == float("inf") else f"since {lock['since']}, {max(0, int(age)) // 60} min ago"
    text = f"the lock is held by {lock.get('holder') or 'somebody'} for {lock.get('operation') or 'a run'} {since}"
    return text + (" (stale)" if age >= stale_after else "")


def read(app):
    """The lock that is there, or V(None). An unreadable one is a lock all the same."""
    text = _host.read_text(app.lock)
    if text is None:
        return None
    return _host.read_json(app.lock) or {"run": "", "holder": "", "operation": "", "since": ""}


def take(module, app, found):
    params = module.params
    if found and found["run"] == params["run"]:
        return {"msg": "this run holds the lock already", "lock": found}
    if found:
        raise _host.Failure(
            words(found, params["stale_after"]) + "; wait for it to end, or, if it is dead, run unlock.yml", lock=found
        )
    if module.check_mode:
        return {"changed": True, "msg": "the lock is free", "lock": None}
    os.makedirs(app.root, mode=0o755, exist_ok=True)
    lock = {"run": params["run"], "holder": params["holder"], "operation": params["operation"], "since": _host.now()}
    temporary = f"{app.root}/.lock.{os.getpid()}.new"
    _host.remove(temporary)
    with open(temporary, "x", encoding="utf-8") as stream:
        json.dump(lock, stream)
        stream.flush()
        os.fsync(stream.fileno())
    try:
        # link(2) fails when the name is taken: the lock appears with its text, and only one of two runs gets it.
        os.link(temporary, app.lock)
    except FileExistsError:
        raise _host.Failure(words(read(app) or {}, params["stale_after"]) + "; it was quicker") from None
    finally:
        _host.remove(temporary)
    return {"changed": True, "msg": "took the lock", "lock": None}


def free(module, app, found):
    if not found or found["run"] != module.params["run"]:
        return {"msg": "this run does not hold the lock", "lock": found}
    if not module.check_mode:
        _host.remove(app.lock)
    return {"changed": True, "msg": "freed the lock", "lock": found}


def break_it(module, app, found):
    if not found:
        return {"msg": "there is no lock", "lock": None}
    text = words(found, module.params["stale_after"])
    if age_of(found) < module.params["stale_after"] and not module.params["force"]:
        raise _host.Failure(
            f"{text}: not stale yet, so its run may be at work. If it is dead for certain: -e bluegreen_force=true",
            lock=found,
        )
    if not module.check_mode:
        _host.remove(app.lock)
    return {"changed": True, "msg": f"broke the lock: {text}", "lock": found}


def work(module, app):
    act = {"present": take, "absent": free, "broken": break_it}[module.params["state"]]
    return act(module, app, read(app))


def main():
    run_module(
        dict(
            state=dict(type="str", choices=["present", "absent", "broken"], default="present"),
            run=dict(type="str", default=""),
            holder=dict(type="str", default=""),
            operation=dict(type="str", default=""),
            stale_after=dict(type="int", default=1800),
            force=dict(type="bool", default=False),
        ),
        work,
        required_if=[("state", "present", ("run", "holder", "operation"))],
    )


if __name__ == "__main__":
    main()
