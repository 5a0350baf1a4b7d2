#!/usr/bin/python
# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: slot_switch
short_description: Switch the traffic of a host to the other slot, prove it, and undo it if the proof fails
version_added: 0.1.0
description:
  - Replaces the C(live) symlink with rename(2). The site reads it on every request, so nginx is not reloaded, and no request
    and no connection is lost.
  - The slot must be healthy on its own port before the switch, and must answer through nginx after it. Otherwise the module
    restores the symlink and fails.
author:
  - The beamops.bluegreen contributors (@beamops)
extends_documentation_fragment:
  - beamops.bluegreen.app
  - beamops.bluegreen.app.health
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  state:
    description:
      - V(ready) proves that O(color) could take the traffic, and changes nothing. The slot must be healthy on its port and pass the
        O(smoke) checks through nginx.
      - V(switched) switches the traffic to O(color), which also ends a canary.
      - V(undone) switches back if O(run_id) made the last switch. Otherwise it does nothing. With O(operation=rollback) it is a rollback.
    type: str
    choices: [ready, switched, undone]
    default: switched
  color:
    description: The slot to make live. Required for V(ready) and V(switched).
    type: str
    choices: [blue, green]
  release:
    description: Release that the slot must hold.
    type: str
  operation:
    description: What the switch counts as. A V(rollback) marks the release that it leaves, so that no promote without a color returns to it.
    type: str
    choices: [promote, rollback]
    default: promote
    aliases: [kind]
  smoke:
    description: Requests for V(ready), each a GET and the answer that must arrive within 10 seconds.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: URL path.
        type: str
        required: true
      status:
        description: HTTP status.
        type: int
        default: 200
      contains:
        description: Text that the first MiB of the body must contain.
        type: str
        default: ''
  switch_at:
    description:
      - When to switch, in seconds since the host booted, so that a whole group can switch at one moment. Without it, or if
        the time has passed or is more than a minute away, the module switches at once.
    type: float
    aliases: [at]
  assume_ready:
    description: In check mode, assume that the slot holds O(release) and is healthy, as it would be by then.
    type: bool
    default: false
  finish:
    description:
      - How the run ends, as options of M(beamops.bluegreen.deploy_lock) such as C(confirm) and C(keep_releases). For the last step of a
        run on a host that is the whole group, it saves one run on the host.
    type: dict
    version_added: 1.0.0
  run_id:
    description: Id of the run, for V(undone).
    type: str
    default: ''
    aliases: [run]
"""

EXAMPLES = r"""
- name: Make green live
  beamops.bluegreen.slot_switch:
    app: my_app
    root: /opt/my_app
    domain: example.com
    ports: {blue: 4000, green: 5000}
    listen: "80"
    service_manager: systemd
    color: green
"""

RETURN = r"""
ok:
  description: True; absent when the module failed.
  type: bool
  returned: success
live:
  description: Color that is live now.
  type: str
  returned: success
release:
  description: Release that is live now.
  type: str
  returned: success
switched_at:
  description: When the traffic moved, in seconds since the host booted.
  type: float
  returned: when it moved
ended:
  description: What M(beamops.bluegreen.deploy_lock) returns for C(state=absent).
  type: dict
  returned: with O(finish)
previous:
  description: Color that was live before.
  type: str
  returned: success
"""

import contextlib
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ansible_collections.beamops.bluegreen.plugins.module_utils import (
    _app,
    _envfile,
    _exclusive,
    _files,
    _health,
    _http,
    _proc,
    _service,
    _slots,
    _validate,
)
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure
from ansible_collections.beamops.bluegreen.plugins.module_utils._module import renamed, run_module

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule
    from ansible_collections.beamops.bluegreen.plugins.module_utils._app import App
    from ansible_collections.beamops.bluegreen.plugins.plugin_utils._types import Facts

# One answer may come from luck; three new connections meet more than one nginx worker.
PROOFS = 3
PROOF_SECONDS = 5
# A host that freezes in the middle of a switch is given up by its run, and the others go back. When it thaws, it must not
# go on to switch alone. A switch takes a fraction of a second, and one that is slow in every step still less than this.
GIVEN_UP_SECONDS = 20
# A host that was rebooted since its clock was measured would otherwise wait for its old uptime.
LONGEST_WAIT_SECONDS = 60


class Switch:
    """Moves the traffic of one host, and proves where it goes."""

    def __init__(self, module: AnsibleModule, app: App) -> None:
        self.params = module.params
        self.check = module.check_mode
        self.app = app
        self.planned = 0.0
        link = app.live_color()
        if link is None:
            raise Failure(f"{app.live} does not exist, so this host is not set up. Run deploy.yml.")
        self.link: str = link

    def through_nginx(self, color: str) -> str | None:
        """Whether a new connection gets the color and a healthy answer: None, or what is wrong. A worker has the symlink alone."""
        if not self.app.web:
            return None if self.app.live_color() == color else f"the live symlink does not point to {color}"
        told, why_not = _http.deployment_id(self.app)
        if told != color:
            return f"/deployment_id says {told or why_not}, not {color}"
        path, expected = self.params["health_path"], self.params["health_status"]
        answer = _http.through_nginx(self.app, path)
        if answer.get("status") == 503 and os.path.exists(self.app.maintenance):
            # Nobody gets further than this; which slot it would be has been told.
            return None
        if answer.get("status") != expected:
            return f"GET {path} through nginx: {_http.describe(answer)}, expected {expected}"
        return None

    def prove(self, color: str) -> None:
        """Raises Failure unless several new connections in a row reach the slot."""
        deadline = time.monotonic() + PROOF_SECONDS
        good = 0
        while good < PROOFS:
            wrong = self.through_nginx(color)
            good = 0 if wrong else good + 1
            if wrong and time.monotonic() > deadline:
                raise Failure(wrong)
            if wrong:
                time.sleep(0.1)

    @contextlib.contextmanager
    def preview(self, color: str) -> Iterator[dict[str, str]]:
        """Headers that get a request to a slot that is not live. Raises: Failure."""
        with _http.preview(self.app) as shown:
            told = _http.through_nginx(self.app, "/deployment_id", headers=shown)
            if told.get("body", "").strip() != color:
                raise Failure(
                    f"a preview gets {_http.describe(told)}, not {color}, so {color} cannot be checked. Run setup.yml."
                )
            yield shown

    def prove_before(self, color: str) -> None:
        """All that can be proven before any traffic moves: nginx follows the files, reaches the slot, and is where visitors come."""
        wrong, _note = _http.check_visitors(self.app)
        if wrong:
            raise Failure(wrong)
        if not self.app.web or not self.app.site()["proof"]:
            # A site of an older version of this collection; it may not know of previews, and the rules for visitors would hide them.
            return
        path, expected = self.params["health_path"], self.params["health_status"]
        with self.preview(color) as shown:
            answer = _http.through_nginx(self.app, path, headers=shown)
        if answer.get("status") != expected:
            raise Failure(
                f"{color} answers on its port, but through nginx GET {path} gets {_http.describe(answer)}, expected {expected}"
            )

    def smoke(self, color: str) -> None:
        """The user's own checks, through nginx, with a preview token that is valid for as long as they take."""
        with self.preview(color) as shown:
            for check in _validate.check_smoke(self.params["smoke"]):
                answer = _http.through_nginx(
                    self.app, check["path"], headers=shown, timeout=_health.SMOKE_SECONDS, size=_health.SMOKE_BYTES
                )
                wrong = _health.smoke_problem(check, answer)
                if wrong:
                    said = _envfile.redact(_http.first_lines(answer), self.app.env(color))
                    raise Failure(f"smoke: GET {check['path']}: {wrong}{said}")

    def ready(self) -> dict[str, Any]:
        """Prove that O(color) could take the traffic; changes nothing. Raises: Failure."""
        color = self.params["color"]
        if color != self.link and not (self.check and self.params["assume_ready"]):
            _health.require_ready(self.app, color, self.params)
            # A dry run writes no file, and the token is one.
            if not self.check and self.params["smoke"] and self.app.web:
                self.smoke(color)
        return {"live": self.link, "previous": self.link}

    def link_previous_assets(self, facts: Facts, color: str) -> None:
        """Pages of the release that was live before go on asking for its assets."""
        former = facts["slots"][color]
        place = _app.static_dir(self.app, former["release"]) if former else None
        if place:
            _files.write_link(self.app.former_static, os.path.relpath(place, self.app.root))

    def wait_for_switch_time(self) -> None:
        """Everything is ready. Returns when the whole group is."""
        left = (self.params["switch_at"] or 0) - _proc.uptime()
        if 0 < left < LONGEST_WAIT_SECONDS:
            self.planned = left
            time.sleep(left)
            # The run may have given up on this host meanwhile.
            _exclusive.require_lock(self.app, self.params["run_id"])

    def check_deadline(self) -> None:
        seconds = _proc.seconds_since_start() - self.planned
        if seconds > GIVEN_UP_SECONDS:
            raise Failure(
                f"the switch took {seconds:.0f} s longer than planned, and the run has already given up on this host"
            )

    def point_live_to(self, color: str) -> None:
        _files.write_link(self.app.live, f"slots/{color}")

    def switched(self) -> dict[str, Any]:
        """Move the traffic to O(color), prove it, and write that down. Raises: Failure."""
        color, previous = self.params["color"], self.link
        if previous == color:
            return self.already_live()
        if self.check and self.params["assume_ready"]:
            release = self.params["release"]
        else:
            release = _health.require_ready(self.app, color, self.params)
        told, why_not = _http.deployment_id(self.app)
        if told != previous and self.app.web:
            raise Failure(
                f"nginx says {told or why_not} while {previous} is live, so a switch could not be proven. Run setup.yml."
            )
        if not self.check:
            self.prove_before(color)
        result = {
            "changed": True,
            "live": color,
            "previous": previous,
            "release": release,
            "diff": {"before": f"live -> slots/{previous}\n", "after": f"live -> slots/{color}\n"},
        }
        if self.check:
            return result
        facts = self.app.facts()
        self.app.write_facts(facts)
        self.write_journal(facts)
        _app.end_canary(self.app, previous)
        self.wait_for_switch_time()
        self.check_deadline()
        result["switched_at"] = self.move()
        _files.remove(self.app.alone)
        _service.spare(self.app, color)
        self.app.write_facts(_slots.after_switch(facts, color, self.params["operation"], _files.now()))
        self.link_previous_assets(facts, previous)
        return result

    def already_live(self) -> dict[str, Any]:
        """Finish what a run that switched may have been killed before."""
        color = self.params["color"]
        if not self.check:
            # The run makes the group one, and this host is as it wants it.
            _files.remove(self.app.alone)
            self.app.write_facts(self.app.facts())
            journal = _files.read_json(self.app.switch_journal)
            if journal and journal["to"] == color:
                self.link_previous_assets(journal["facts"], journal["from"])
        return {"live": color, "previous": color, "release": self.app.slot_release(color)}

    def write_journal(self, facts: Facts) -> None:
        """Write down who switches from where to where, and the facts before it."""
        journal = {
            "run": self.params["run_id"],
            "from": self.link,
            "to": self.params["color"],
            "kind": self.params["operation"],
            "facts": facts,
            "at": _files.now(),
        }
        _files.write_json(self.app.switch_journal, journal)

    def move(self) -> float:
        """Switch, and back if the proof fails. Returns when, in seconds since the host booted. Raises: Failure."""
        color = self.params["color"]
        try:
            # The rename is the next thing; what follows it, the sync, may take a while.
            switched_at = _proc.uptime()
            self.point_live_to(color)
            self.prove(color)
            self.check_deadline()
        except (Failure, OSError) as error:
            self.point_live_to(self.link)
            raise Failure(f"the switch to {color} was undone: {error}") from None
        return switched_at

    def undone(self) -> dict[str, Any]:
        """Move the traffic back if it was this run that moved it. Raises: Failure."""
        journal = _files.read_json(self.app.switch_journal)
        if not journal or journal["run"] != self.params["run_id"] or self.link != journal["to"]:
            # It may be back already, and have been killed before it could say so.
            behind = not self.check and self.app.write_facts(self.app.facts())
            return {"changed": behind, "live": self.link, "previous": self.link}
        back = journal["from"]
        if not self.check:
            facts = journal["facts"]
            if self.params["operation"] == "rollback":
                facts = _slots.after_switch(self.app.facts(), back, "rollback", _files.now())
            self.wait_for_switch_time()
            self.point_live_to(back)
            self.app.write_facts(facts)
            self.prove(back)
            _service.spare(self.app, back)
        return {
            "changed": True,
            "live": back,
            "previous": self.link,
            "diff": {"before": f"live -> slots/{self.link}\n", "after": f"live -> slots/{back}\n"},
        }


def work(module: AnsibleModule, app: App) -> dict[str, Any]:
    params = module.params
    result = getattr(Switch(module, app), params["state"])()
    if params["state"] == "switched" and params["finish"] and not module.check_mode:
        # Here, because a host of a larger group would compile it for nothing.
        from ansible_collections.beamops.bluegreen.plugins.module_utils import _lock

        result["ended"] = _lock.end_well(app, params, params["finish"])
    return result


def main() -> None:
    run_module(
        dict(
            **_app.HEALTH_OPTIONS,
            state=dict(type="str", choices=["ready", "switched", "undone"], default="switched"),
            color=dict(type="str", choices=["blue", "green"]),
            release=dict(type="str"),
            operation=dict(type="str", choices=["promote", "rollback"], default="promote", **renamed("kind")),
            smoke=dict(
                type="list",
                elements="dict",
                default=[],
                options=dict(
                    path=dict(type="str", required=True),
                    status=dict(type="int", default=200),
                    contains=dict(type="str", default=""),
                ),
            ),
            switch_at=dict(type="float", **renamed("at")),
            assume_ready=dict(type="bool", default=False),
            finish=dict(type="dict"),
            run_id=dict(type="str", default="", **renamed("run")),
        ),
        work,
        required_if=[("state", "switched", ("color",)), ("state", "ready", ("color",))],
    )


if __name__ == "__main__":
    main()
