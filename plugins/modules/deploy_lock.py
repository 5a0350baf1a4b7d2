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
  - Acquires, frees or breaks the lock of an app on a host. The lock is a file that says who holds it, for what, and since when.
  - Freeing it writes a line of history, which says who did what, from where to where, how long it took, and how it ended.
  - A lock belongs to a run. Acquiring a lock that the run already holds, and freeing one that it does not hold, change nothing.
  - Also returns what M(beamops.bluegreen.slot_info) returns, which saves a run on the host.
author:
  - The beamops.bluegreen contributors (@beamops)
extends_documentation_fragment:
  - beamops.bluegreen.app
  - beamops.bluegreen.app.health
  - beamops.bluegreen.app.look
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  state:
    description:
      - V(present) acquires the lock, or fails and says who holds it.
      - V(absent) frees it if O(run_id) holds it, after it has confirmed what the run deployed (O(confirm)).
      - V(broken) removes the lock of another run if it is stale, or with O(force).
    type: str
    choices: [present, absent, broken]
    default: present
  run_id:
    description: Id of the run that acquires or frees the lock.
    type: str
    default: ''
    aliases: [run]
  holder:
    description: Who started the run, such as C(ann@laptop).
    type: str
    default: ''
  operation:
    description: What the run does, such as C(deploy).
    type: str
    default: ''
  host:
    description: Name of the host in the inventory. One machine under two names is refused.
    type: str
    default: ''
  controller:
    description: The process that runs the playbook. The same machine takes over from a dead process of its own.
    type: dict
  with_clock:
    description: Measure the difference between the clocks of host and controller, for a switch at one moment.
    type: bool
    default: false
  result:
    description: How the run went, for the history that V(absent) writes.
    type: str
    choices: [ok, failed]
    default: ok
  reason:
    description: Why it failed, for the history.
    type: str
    default: ''
    aliases: [why]
  stale_after:
    description: Age in seconds from which a lock counts as stale.
    type: int
    default: 1800
  confirm:
    description:
      - For V(absent), the slot whose deploy was good. Its previous content is dropped.
    type: str
    choices: [blue, green]
  migrations:
    description:
      - What a release has told of the migrations of its database, to keep for as long as the release is installed. C(release), C(ran)
        and C(files) as M(beamops.bluegreen.slot_command) returns them.
    type: dict
  backup:
    description: What the backup before a migration printed last, for the history and for a rollback across that migration.
    type: str
    default: ''
    version_added: 1.0.0
  consent:
    description:
      - With O(confirm), accept what the slot holds although it was rolled back from. It can then be promoted like any other release.
    type: bool
    default: false
    version_added: 1.0.0
  ended:
    description:
      - For V(absent), what M(beamops.bluegreen.slot_switch) or M(beamops.bluegreen.slot_service) has returned as C(ended). Then the host
        is not asked again.
    type: dict
    version_added: 1.0.0
  keep_releases:
    description:
      - For V(absent), how many old releases to keep, besides those in slots and the last one that was live. Without it none is removed.
    type: int
  force:
    description: Break a lock that is not stale.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Acquire the lock
  beamops.bluegreen.deploy_lock:
    app: my_app
    root: /opt/my_app
    domain: example.com
    ports: {blue: 4000, green: 5000}
    listen: "80"
    service_manager: systemd
    run_id: 2026-11-23T03:00:00Z-4711
    holder: ann@laptop
    operation: deploy
"""

RETURN = r"""
ok:
  description: True; absent when the module failed.
  type: bool
  returned: success
lock:
  description: The lock that existed before, with C(run), C(holder), C(operation) and C(since); null if none.
  type: dict
  returned: always
msg:
  description: What was done, or who holds the lock.
  type: str
  returned: always
clock:
  description:
    - How many seconds the time since this host booted is ahead of the monotonic clock of the controller (C(offset)), and how
      exactly that is known (C(error)). Null where it could not be measured.
  type: dict
  returned: with O(with_clock)
lock_window:
  description: When the lock was asked for, and when it was had, by the monotonic clock of the controller.
  type: list
  elements: float
  returned: with O(with_clock)
info:
  description: What M(beamops.bluegreen.slot_info) returns, as it is after the lock was taken or freed.
  type: dict
  returned: success, unless O(state=broken)
actions:
  description: What was done to confirm a deploy, in words.
  type: list
  elements: str
  returned: with O(confirm)
"""

import json
import os
from typing import TYPE_CHECKING, Any

from ansible_collections.beamops.bluegreen.plugins.module_utils import _exclusive, _files, _lock
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure
from ansible_collections.beamops.bluegreen.plugins.module_utils._info import INFO_OPTIONS, collect
from ansible_collections.beamops.bluegreen.plugins.module_utils._module import renamed, run_module

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule
    from ansible_collections.beamops.bluegreen.plugins.module_utils._app import App


def acquire(module: AnsibleModule, app: App, found: Any) -> dict[str, Any]:
    """Acquire the lock for this run, or say who holds it. Raises: Failure."""
    params = module.params
    if found and found["run"] == params["run_id"]:
        if found.get("host") != params["host"]:
            raise Failure(
                f"{found.get('host')} and {params['host']} of the inventory are the same machine. Remove one of them.",
                lock=None,
            )
        return {"msg": "this run already holds the lock", "lock": found}
    if found:
        raise Failure(
            _lock.describe(found, params["stale_after"])
            + ". Wait for it to finish, or, if it is dead, run unlock.yml.",
            lock=found,
        )
    if module.check_mode:
        return {"changed": True, "msg": "the lock is free", "lock": None}
    os.makedirs(app.root, mode=0o755, exist_ok=True)
    lock = {name: params[name] for name in ("holder", "operation", "host", "controller")}
    lock.update(run=params["run_id"], since=_files.now(), before=_lock.live_now(app))
    temporary = f"{app.root}/.lock.{os.getpid()}.new"
    with open(temporary, "x", encoding="utf-8") as stream:
        json.dump(lock, stream)
        stream.flush()
        os.fsync(stream.fileno())
    try:
        # link(2) fails when the name is taken: the lock appears with its text, and only one of two runs gets it.
        os.link(temporary, app.lock)
    except FileExistsError:
        other = _lock.read(app)
        raise Failure(
            "another run acquired the lock first: " + _lock.describe(other or {}, params["stale_after"]), lock=other
        ) from None
    finally:
        _files.remove(temporary)
    return {"changed": True, "msg": "acquired the lock", "lock": None}


def break_lock(module: AnsibleModule, app: App, found: Any) -> dict[str, Any]:
    """Break a lock that is stale, or whose run is known to be dead. Raises: Failure."""
    if not found:
        return {"msg": "there is no lock", "lock": None}
    text = _lock.describe(found, module.params["stale_after"])
    if _lock.age_of(found) < module.params["stale_after"] and not module.params["force"]:
        raise Failure(
            f"{text}. It is not stale yet, so its run may still be working. If you are sure it is dead: -e bluegreen_force=true",
            lock=found,
        )
    if module.params["run_id"] and found["run"] != module.params["run_id"]:
        raise Failure(f"{text}. That is not the run that died.", lock=found)
    if not module.check_mode:
        # Renamed before it is removed: if somebody else was quicker and holds a new lock by now, that goes back.
        doomed = f"{app.root}/.lock.{os.getpid()}.broken"
        os.rename(app.lock, doomed)
        really = _files.read_json(doomed) or {}
        if really.get("run", "") != found["run"]:
            os.link(doomed, app.lock)
            _files.remove(doomed)
            raise Failure(
                f"another run acquired the lock first: {_lock.describe(really, module.params['stale_after'])}",
                lock=really,
            )
        _lock.append_history(app, found, "died", "its lock was broken")
        _files.remove(doomed)
    return {"changed": True, "msg": f"broke the lock: {text}", "lock": found}


def free(module: AnsibleModule, app: App, found: Any) -> dict[str, Any]:
    """End the run, and free the lock. Raises: Failure."""
    return _lock.end(app, module.params, found, module.check_mode)


def work(module: AnsibleModule, app: App) -> dict[str, Any]:
    params, found = module.params, _lock.read(app)
    state, ours = params["state"], found is not None and found["run"] == params["run_id"]
    act = {"present": acquire, "absent": free, "broken": break_lock}[state]
    # Freeing does not wait: a module that hangs must not keep the lock.
    nothing_to_do = params["confirm"] is None and params["keep_releases"] is None
    at_once = nothing_to_do if state == "absent" else state == "present" and found and not ours
    if module.check_mode or at_once:
        result = act(module, app, found)
    else:
        # A run that takes over from a dead one waits until the modules of that run have finished on this host.
        with _exclusive.exclusive_access(app):
            result = act(module, app, _lock.read(app))
    if state == "present":
        result["info"] = collect(app, params)
    return result


def main() -> None:
    run_module(
        dict(
            **INFO_OPTIONS,
            state=dict(type="str", choices=["present", "absent", "broken"], default="present"),
            run_id=dict(type="str", default="", **renamed("run")),
            holder=dict(type="str", default=""),
            operation=dict(type="str", default=""),
            host=dict(type="str", default=""),
            controller=dict(type="dict"),
            result=dict(type="str", choices=["ok", "failed"], default="ok"),
            reason=dict(type="str", default="", **renamed("why")),
            with_clock=dict(type="bool", default=False),
            confirm=dict(type="str", choices=["blue", "green"]),
            migrations=dict(type="dict"),
            ended=dict(type="dict"),
            backup=dict(type="str", default=""),
            consent=dict(type="bool", default=False),
            keep_releases=dict(type="int"),
            stale_after=dict(type="int", default=1800),
            force=dict(type="bool", default=False),
        ),
        work,
        exclusive=False,
        needs_lock=False,
        required_if=[("state", "present", ("run_id", "holder", "operation"))],
    )


if __name__ == "__main__":
    main()
