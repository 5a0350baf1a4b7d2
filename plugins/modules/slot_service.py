#!/usr/bin/python
# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: slot_service
short_description: The lifecycle of one slot, from taking it for a release to giving it back
version_added: 0.1.0
description:
  - Puts a release and its environment into a slot, starts it, and waits until its own process answers healthy twice.
  - What the slot held before is written down first. When anything fails, the slot gets back its former release, its former
    environment and its former state (running or not), and the failure says why, with the end of the slot's log.
  - The live slot is never taken for another release and never stopped.
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
  color:
    description: The slot.
    type: str
    choices: [blue, green]
    required: true
  state:
    description:
      - V(deployed) puts O(release) into the slot and starts it. The former content is kept until V(restored), or until
        M(beamops.bluegreen.deploy_lock) confirms the deploy.
      - V(restored) gives the slot back its former content, if a deploy was not confirmed; otherwise it does nothing.
      - V(started) and V(restarted) run what the slot holds and wait until it is healthy.
      - V(drained) waits until nobody has a connection to the slot any more, for O(drain_timeout) at the most. What is left
        then is no failure, and is said.
      - V(stopped) ends the process with SIGTERM, and SIGKILL after O(stop_timeout).
    type: str
    choices: [deployed, restored, started, restarted, drained, stopped]
    required: true
  release:
    description: Id of the release to put into the slot. Required for V(deployed).
    type: str
  env:
    description:
      - The user's variables, packed by the P(beamops.bluegreen.slot_env#filter) filter.
      - Without it, V(deployed) brings back an environment that the release was live with, O(env_id).
    type: str
  env_id:
    description: Id of the former environment that V(deployed) brings back, as RV(env) told it.
    type: str
    default: ''
    version_added: 0.2.0
  run:
    description: Name of the run, kept with the former content.
    type: str
    default: ''
  health_timeout:
    description: Seconds until the slot must be healthy.
    type: int
    default: 60
  stop_timeout:
    description: Seconds that SIGTERM may take before SIGKILL.
    type: int
    default: 30
  drain_timeout:
    description: Seconds that V(drained) waits.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Put a release into the green slot
  beamops.bluegreen.slot_service:
    app: my_app
    root: /opt/my_app
    domain: example.com
    ports: {blue: 4000, green: 5000}
    listen: "80"
    service_manager: systemd
    color: green
    state: deployed
    release: 0.1.1-1a2b3c4d
    env: "{{ {'SECRET_KEY_BASE': vault_secret_key_base} | beamops.bluegreen.slot_env }}"
"""

RETURN = r"""
ok:
  description: True; absent when the module failed.
  type: bool
  returned: success
actions:
  description: What was done, or would be done, in words.
  type: list
  elements: str
  returned: always
seconds:
  description: Seconds from the start of the process to the second healthy answer.
  type: float
  returned: when the slot was started
release:
  description: Release that the slot holds now.
  type: str
  returned: success
env:
  description: Id of the environment that the slot has now. It tells nothing of the values.
  type: str
  returned: success
color:
  description: The slot. For V(deployed) the live one, if that holds just this release and environment already.
  type: str
  returned: success
already_live:
  description: True if there was nothing to deploy because the live slot holds just this.
  type: bool
  returned: success
connections:
  description: Connections that the slot still had in the end.
  type: int
  returned: when the state is V(drained)
restored:
  description: Whether a failed deploy gave the slot its former content back. Null if it did not come that far.
  type: bool
  returned: failure
log:
  description: The last lines that the slot logged, without the values of its environment.
  type: list
  elements: str
  returned: failure
"""

import os
import time

from ansible_collections.beamops.bluegreen.plugins.module_utils import _envfile, _host, _rules, _service, _slots
from ansible_collections.beamops.bluegreen.plugins.module_utils._host import Failure
from ansible_collections.beamops.bluegreen.plugins.module_utils._module import run_module

LOG_LINES = 20


class Slot:
    """One slot under the hands of one module run."""

    def __init__(self, module, app):
        self.params = module.params
        self.check = module.check_mode
        self.app = app
        self.color = self.params["color"]
        self.service = _service.service(app, self.color)
        self.link = f"{app.slot(self.color)}/release"
        self.env_file = app.env_file(self.color)
        self.former_env = app.env_former(self.color)
        self.journal_file = app.journal(self.color)
        self.held = app.held(self.color)
        self.release = self.held["release"] if self.held else None
        self.journal = _host.read_json(self.journal_file)
        self.actions = []
        self.timeout = self.params["health_timeout"]
        _rules.check_url_path(self.params["health_path"])

    # --- small steps, each safe to repeat ---

    def do(self, words, effect, *args):
        """Note an action in words, and carry it out unless this is a rehearsal."""
        self.actions.append(words)
        if not self.check:
            effect(*args)

    def place(self, release):
        """Make the slot hold a release, or nothing."""
        if release:
            _host.write_link(self.link, f"../../releases/{release}")
        else:
            _host.remove(self.app.proven(self.color))
            _host.remove(self.link)

    def write_env(self, text):
        _host.write_file(self.env_file, text, 0o640, _host.group_of(self.app.name))

    def write_facts(self):
        """Facts for a slot whose content changed."""
        self.app.write_facts(_slots.after_deploy(self.app.facts(), self.color, self.app.held(self.color), _host.now()))

    def wait(self):
        params = self.params
        return _service.wait_until_healthy(self.service, params["health_path"], params["health_status"], self.timeout)

    def start(self):
        """Start and prove. Returns seconds."""
        holder = _host.holder_of(self.app.ports[self.color])
        if holder:
            raise Failure(
                f"port {self.app.ports[self.color]} of {self.color} is taken by {_host.who_listens(holder)}, which is not this "
                f"slot; give the slot another bluegreen_ports.{self.color}"
            )
        self.service.start()
        seconds = self.wait()
        self.mark_proven()
        return seconds

    def mark_proven(self):
        """From now on nginx may send somebody here."""
        if not os.path.exists(self.app.proven(self.color)):
            _host.write_file(self.app.proven(self.color), "", 0o644)

    def stop(self):
        # Whoever is sent here would get an error now, and then a release that nobody has proven.
        _host.end_canary(self.app, self.color)
        self.service.stop(self.params["stop_timeout"])

    def report(self, error):
        """Everything that a person needs to see what a slot died of (rule 9), without a secret in it."""
        env = self.app.env(self.color)
        log = [_envfile.redact(line, env) for line in self.service.log_tail(LOG_LINES)]
        lines = [_envfile.redact(str(error), env), f"  state: {self.service.state()}"]
        lines += [f"  last {len(log)} lines of {self.service.log_command()}:"] + [f"    {line}" for line in log]
        if not log:
            lines[-1] = f"  the slot logged nothing ({self.service.log_command()})"
        return "\n".join(lines), log

    # --- states ---

    def must_not_be_live(self, what):
        # The symlink says where traffic ought to go; nginx, where it goes. Neither may be this slot.
        if self.color in (self.app.link(), _host.deployment_id(self.app)[0]):
            raise Failure(
                f"{self.color} is live, so it is not {what}; promote the other slot first: "
                f"promote.yml -e color={_rules.other(self.color)}"
            )

    def wanted_env(self, color):
        """Text of the env file for O(release) in a slot."""
        app, params = self.app, self.params
        if params["env"] is not None:
            if not _host.read_text(app.cookie) and not self.check:
                raise Failure(f"{app.cookie} is missing; run setup.yml")
            return _envfile.render(app.wanted_env(color, params["env"]))
        former = _host.read_text(app.former_env(params["release"], _rules.check_env_id(params["env_id"])))
        if former is None:
            raise Failure(f"the environment that {params['release']} had when it was live is gone; deploy it again")
        return _envfile.render(
            _envfile.moved(_envfile.parse(former), color, app.ports[color], app.name, app.state_dir(color))
        )

    def deployed(self):
        params, release = self.params, _rules.check_release(self.params["release"])
        if not self.check and not os.path.isdir(self.app.release_dir(release)):
            raise Failure(f"{release} is not unpacked on this host; kept are {', '.join(self.app.kept()) or 'none'}")
        live = self.app.link()
        if live and live != self.color:
            self.settle(live)
            if (self.app.held(live) or {}).get("release") == release:
                if _host.read_text(self.app.env_file(live)) == self.wanted_env(live):
                    # What a run that was cut short left in the idle slot is nobody's wish any more.
                    left = self.restored()
                    return {**left, "release": release, "color": live, "already_live": True}
        text = self.wanted_env(self.color)
        same = self.release == release and _host.read_text(self.env_file) == text
        if same:
            result = self.started()
            if self.journal and not self.check:
                # The run that put it there died before it could say so. What it took is this run's now, to confirm or give back.
                self.write_facts()
                if params["run"]:
                    self.journal["run"] = params["run"]
                    _host.write_json(self.journal_file, self.journal)
                result["changed"] = True
            return result
        former = self.journal["former"]["release"] if self.journal else self.release
        if former:
            self.must_not_be_live(f"given {release}")
        running = bool(self.service.pid())
        if self.app.canary_percent(self.color):
            self.actions.append(f"end the canary of {self.color}")
        if running:
            self.actions.append(f"stop {self.color} ({self.release})")
        self.actions += [f"put {release} into {self.color}", f"start {self.color}"]
        env = _envfile.parse(text)
        diff = {
            "before": shown(self.release, self.app.env(self.color)),
            "after": shown(release, env),
        }
        result = {"changed": True, "diff": diff, "release": release, "env": _envfile.env_id(env)}
        if self.check:
            return result
        try:
            seconds = self.take(release, text, running)
        except (Failure, OSError) as error:
            raise self.give_back(error) from None
        self.write_facts()
        return {**result, "seconds": seconds, "run": params["run"]}

    def settle(self, live):
        """A deploy to the slot that is live by now was cut short before it was confirmed: what serves, stays."""
        if os.path.exists(self.app.journal(live)):
            self.do(
                f"confirm {self.app.held(live)['release']} in {live}, which is live",
                _host.remove,
                self.app.journal(live),
            )

    def take(self, release, text, running):
        """Write down what is there, then replace it. Returns seconds until healthy."""
        former = self.journal["former"] if self.journal else None
        if not former:
            slot_facts = self.app.facts()["slots"][self.color]
            former = {"release": self.release, "running": running, "facts": slot_facts}
            if self.release and os.path.exists(self.env_file):
                if (slot_facts or {}).get("promoted_at"):
                    # It was live: a rollback may want it after this slot has been taken for something else.
                    os.makedirs(f"{self.app.root}/former", mode=0o700, exist_ok=True)
                    _host.write_hard_link(self.env_file, self.app.former_env(self.release, self.held["env"]))
                _host.write_hard_link(self.env_file, self.former_env)
        self.journal = {"run": self.params["run"], "at": _host.now(), "release": release, "former": former}
        _host.write_json(self.journal_file, self.journal)
        self.stop()
        self.place(release)
        self.write_env(text)
        return self.start()

    def give_back(self, error):
        """The slot failed with its new release: report, then bring the former one back. Returns a Failure."""
        text, log = self.report(error)
        restored, last = True, ""
        try:
            last = self.restored().get("note", "")
        except (Failure, OSError) as second:
            restored, last = False, f"giving the slot back failed too: {second}; run deploy.yml again"
        return Failure(f"{text}\n  {last}", log=log, restored=restored, actions=self.actions)

    def restored(self):
        if not self.journal:
            return {"release": self.release}
        former = self.journal["former"]
        if former["release"]:
            self.must_not_be_live(f"given back to {former['release']}")
        self.actions.append(f"give {self.color} back to {former['release'] or 'nothing'}")
        if self.check:
            return {"changed": True, "release": former["release"]}
        self.stop()
        self.place(former["release"])
        if former["release"] and os.path.exists(self.former_env):
            _host.write_hard_link(self.former_env, self.env_file)
        else:
            _host.remove(self.env_file)
        facts = self.app.facts()
        facts["slots"][self.color] = former["facts"]
        self.app.write_facts(facts)
        note = f"{self.color} holds {former['release'] or 'nothing'} again"
        # The former release has shown that it works; a timeout that was set for the new one must not fail it.
        self.timeout = max(self.timeout, 60)
        if former["release"] and former["running"]:
            self.start()
            note += " and runs"
        self.forget()
        return {"changed": True, "release": former["release"], "note": note}

    def forget(self):
        _host.forget_former(self.app, self.color)
        self.journal = None

    def must_hold_something(self):
        if not self.release:
            raise Failure(f"{self.color} holds no release; deploy.yml puts one into it")

    def started(self):
        self.must_hold_something()
        pid = self.service.pid()
        if pid:
            answer = _service.answers(self.app, self.color, pid, self.params["health_path"])
            if answer.get("status") == self.params["health_status"]:
                if not self.check:
                    self.mark_proven()
                if self.service.is_enabled():
                    return {"release": self.release}
                # Started by a run that died before it could make that last over a reboot.
                self.do(f"enable {self.color}", self.service.enable)
                return {"changed": True, "release": self.release}
        self.actions.append(f"start {self.color} ({self.release})")
        if self.check:
            return {"changed": True, "release": self.release}
        try:
            seconds = self.wait_or_restart() if pid else self.start()
        except (Failure, OSError) as error:
            text, log = self.report(error)
            raise Failure(text, log=log, restored=None, actions=self.actions) from None
        return {"changed": True, "release": self.release, "seconds": seconds}

    def wait_or_restart(self):
        """What runs may still be about to answer. If it does not, and is not live, it is started anew. Returns seconds."""
        try:
            return self.wait()
        except Failure:
            self.must_not_be_live("restarted")
            self.actions.append(f"restart {self.color}, which runs and does not answer")
            self.stop()
            return self.start()

    def restarted(self):
        self.must_hold_something()
        self.must_not_be_live("restarted")
        if self.service.pid():
            self.do(f"stop {self.color} ({self.release})", self.stop)
        if self.check:
            self.actions.append(f"start {self.color} ({self.release})")
            return {"changed": True, "release": self.release}
        return self.started()

    def drained(self):
        self.must_not_be_live("drained")
        port = self.app.ports[self.color]
        deadline = time.monotonic() + (0 if self.check else self.params["drain_timeout"])
        left = _host.connections(port)
        while left and time.monotonic() < deadline:
            time.sleep(0.2)
            # Nothing waits for this: somebody may have ended the run to roll back.
            _host.must_hold_lock(self.app, self.params["run"])
            left = _host.connections(port)
        return {"release": self.release, "connections": left}

    def stopped(self):
        self.must_not_be_live("stopped")
        if self.service.is_stopped():
            return {"release": self.release}
        self.do(f"stop {self.color} ({self.release})", self.stop)
        return {"changed": True, "release": self.release}


def shown(release, env):
    """What a slot holds, as a diff may show it: of the environment its id and the names in it."""
    return {"release": release or "nothing", "env": _envfile.env_id(env)[: _envfile.ID_SHOWN], "names": sorted(env)}


def work(module, app):
    slot = Slot(module, app)
    result = getattr(slot, module.params["state"])()
    color = result.get("color", slot.color)
    return {"color": color, "env": _envfile.env_id(app.env(color)), "actions": slot.actions, **result}


def main():
    run_module(
        dict(
            **_host.HEALTH_OPTIONS,
            color=dict(type="str", choices=["blue", "green"], required=True),
            state=dict(
                type="str",
                choices=["deployed", "restored", "started", "restarted", "drained", "stopped"],
                required=True,
            ),
            release=dict(type="str"),
            env=dict(type="str", no_log=True),
            env_id=dict(type="str", default=""),
            run=dict(type="str", default=""),
            health_timeout=dict(type="int", default=60),
            stop_timeout=dict(type="int", default=30),
            drain_timeout=dict(type="int", default=0),
        ),
        work,
        # Draining only looks, for as long as it takes.
        alone=lambda params: params["state"] != "drained",
        required_if=[("state", "deployed", ("release",))],
    )


if __name__ == "__main__":
    main()
