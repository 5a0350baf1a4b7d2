#!/usr/bin/python
# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: slot_service
short_description: Deploy a release to a slot, start, drain and stop it, or restore what it held before
version_added: 0.1.0
description:
  - Puts a release and its environment into a slot, starts it, and waits until its own process answers healthy twice.
  - Writes down first what the slot holds. If anything fails, the module restores the previous release, environment and state (running
    or not), and the error says why, with the end of the slot's log.
  - Never deploys to the live slot and never stops it.
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
      - V(deployed) puts O(release) into the slot and starts it. The previous content is kept until V(restored), or until
        M(beamops.bluegreen.deploy_lock) confirms the deploy.
      - V(restored) restores the previous content if a deploy was not confirmed. Otherwise it does nothing.
      - V(started) and V(restarted) run what the slot holds and wait until it is healthy.
      - V(drained) waits until the slot has no connections left, at most O(drain_timeout). Connections that remain are reported in
        RV(connections) and are not a failure.
      - V(stopped) ends the process with SIGTERM, and with SIGKILL after O(stop_timeout).
      - V(met) waits until the node of the slot is connected with O(nodes), at most O(health_timeout).
    type: str
    choices: [deployed, restored, started, restarted, drained, stopped, met]
    required: true
  release:
    description: Id of the release to put into the slot. Required for V(deployed).
    type: str
  env:
    description:
      - The user's variables, packed by the P(beamops.bluegreen.slot_env#filter) filter.
      - Without it, V(deployed) brings back the environment O(env_id), which the release was live with.
    type: str
  env_id:
    description: Id of the previous environment that V(deployed) brings back, as returned in RV(env).
    type: str
    default: ''
    version_added: 1.0.0
  nodes:
    description:
      - Names of Erlang nodes. For V(deployed), those that the node of the slot keeps a connection with; for V(met), those that it must be
        connected with.
    type: list
    elements: str
    default: []
    version_added: 1.0.0
  run_id:
    description: Id of the run, kept with the previous content.
    type: str
    default: ''
    aliases: [run]
  force:
    description: Deploy although less memory is free than the live slot holds.
    type: bool
    default: false
    version_added: 1.0.0
  anew:
    description: For V(deployed), put it into the slot although the live one holds just the same. For a host whose colors are to be those of its
      group.
    type: bool
    default: false
    version_added: 1.0.0
  allow_live:
    description: For V(restarted), restart the slot although it is live. Visitors of this host get errors meanwhile.
    type: bool
    default: false
    version_added: 1.0.0
  finish:
    description:
      - How the run ends, as options of M(beamops.bluegreen.deploy_lock) such as C(confirm) and C(keep_releases). For the last step of a
        run on a host that is the whole group, it saves one run on the host.
      - Of V(deployed). With C(unless_ecto), not where the release has ecto_sql in it, because its migrations are to be listed.
    type: dict
    version_added: 1.0.0
  health_timeout:
    description: Seconds within which the slot must become healthy.
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
node:
  description: The node of the slot in a cluster, as in M(beamops.bluegreen.slot_info); null otherwise.
  type: dict
  returned: success
has_ecto:
  description: Whether the release in the slot has ecto_sql in it.
  type: bool
  returned: success
ended:
  description: What M(beamops.bluegreen.deploy_lock) returns for C(state=absent).
  type: dict
  returned: with O(finish)
connections:
  description: Connections that the slot still had in the end.
  type: int
  returned: when the state is V(drained)
restored:
  description: Whether a failed deploy restored the previous content. Null if it failed before it replaced anything.
  type: bool
  returned: failure
log:
  description: The last lines that the slot logged, without the values of its environment.
  type: list
  elements: str
  returned: failure
"""

import difflib
import os
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ansible_collections.beamops.bluegreen.plugins.module_utils import (
    _app,
    _cluster,
    _envfile,
    _exclusive,
    _files,
    _health,
    _http,
    _migrations,
    _proc,
    _service,
    _slots,
    _start,
    _validate,
)
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure
from ansible_collections.beamops.bluegreen.plugins.module_utils._module import renamed, run_module

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule
    from ansible_collections.beamops.bluegreen.plugins.module_utils._app import App

LOG_LINES = 20


class Slot:
    """One slot under the hands of one module run."""

    def __init__(self, module: AnsibleModule, app: App) -> None:
        self.params = module.params
        self.check = module.check_mode
        self.app = app
        self.color = self.params["color"]
        self.service = _service.for_slot(app, self.color)
        self.link = f"{app.slot(self.color)}/release"
        self.env_file = app.env_file(self.color)
        self.former_env = app.env_former(self.color)
        self.journal_file = app.journal(self.color)
        self.held = app.slot_content(self.color)
        self.release = self.held["release"] if self.held else None
        self.journal = _files.read_json(self.journal_file)
        self.actions: list[str] = []
        self.timeout = self.params["health_timeout"]
        _validate.check_url_path(self.params["health_path"])

    def act(self, words: str, effect: Callable[..., object], *args: Any) -> None:
        """Note an action in words, and carry it out unless this is a rehearsal."""
        self.actions.append(words)
        if not self.check:
            effect(*args)

    def link_release(self, release: str) -> None:
        """Make the slot hold a release, or nothing."""
        if release:
            _files.write_link(self.link, f"../../releases/{release}")
        else:
            _files.remove(self.app.shortcut(self.color))
            _files.remove(self.app.proven(self.color))
            _files.remove(self.link)

    def write_env(self, text: str) -> None:
        _files.write_file(self.env_file, text, 0o640, _app.group_of(self.app))

    def write_facts(self) -> None:
        """Facts for a slot whose content changed."""
        self.app.write_facts(
            _slots.after_deploy(self.app.facts(), self.color, self.app.slot_content(self.color), _files.now())
        )

    def wait(self) -> float:
        return _start.wait_until_healthy(self.service, self.params, self.timeout)

    def start(self) -> float:
        """Start and prove. Returns seconds."""
        holder = _proc.listening_process(self.app.ports[self.color]) if self.app.web else None
        if holder:
            raise Failure(
                f"port {self.app.ports[self.color]} of {self.color} is taken by {_proc.who_listens(holder)}, which is not this "
                f"slot. Choose another bluegreen_ports.{self.color}."
            )
        _start.open_port_mapper(self.app, self.color)
        self.service.start()
        seconds = self.wait()
        self.mark_proven()
        return seconds

    def mark_proven(self) -> None:
        """From now on nginx may send somebody here."""
        if not os.path.exists(self.app.proven(self.color)):
            _files.write_file(self.app.proven(self.color), "", 0o644)

    def stop(self) -> None:
        # A canary would send visitors to an error, and then to a release that is not proven.
        _app.end_canary(self.app, self.color)
        self.service.stop(self.params["stop_timeout"])

    def report(self, error: Exception) -> tuple[str, list[str]]:
        """Everything that a person needs to see what a slot died of (rule 9), without a secret in it."""
        env = self.app.env(self.color)
        log = [_envfile.redact(line, env) for line in self.service.log_tail(LOG_LINES)]
        lines = [_envfile.redact(str(error), env), f"  state: {self.service.state()}"]
        lines += [f"  {hint}" for hint in log_hints(self.app, log, self.port_holders()) + name_hints(log, env)]
        lines += [f"  last {len(log)} lines of {self.service.log_command()}:"] + [f"    {line}" for line in log]
        if not log:
            lines[-1] = f"  the slot has logged nothing ({self.service.log_command()})"
        return "\n".join(lines), log

    def port_holders(self) -> dict[str, str]:
        """Ports that the other slot has beside its own, as text, to its color: a second port that this one may have wanted too."""
        color = _validate.other(self.color)
        pid = _service.for_slot(self.app, color).pid()
        places = _start.app_listeners(pid) if pid else []
        ports = {place.rpartition(":")[2] for place in places} - {str(self.app.ports[color])}
        return {port: color for port in ports}

    def require_memory(self) -> None:
        """Raises Failure if a second copy as large as the live one would not fit: the kernel would end one of them."""
        live = self.app.live_color()
        pid = _service.for_slot(self.app, live).pid() if live and live != self.color else None
        if not pid or self.params["force"]:
            return
        mine = self.service.pid()
        needed = _proc.memory_of(pid)
        free = _proc.available_memory() + (_proc.memory_of(mine) if mine else 0)
        if free < needed:
            raise Failure(
                f"there is not enough memory for two copies: {live} holds {needed >> 20} MiB, and {free >> 20} MiB are free. Add memory or swap, "
                "or repeat with -e bluegreen_force=true"
            )

    # --- states ---

    def require_idle(self, verb: str) -> None:
        # The symlink says where traffic ought to go; nginx, where it goes. Neither may be this slot.
        if self.color in (self.app.live_color(), _http.deployment_id(self.app)[0]):
            raise Failure(
                f"cannot {verb} {self.color}: it is live. Promote the other slot first: "
                f"promote.yml -e color={_validate.other(self.color)}"
            )

    def render_env(self, color: str) -> str:
        """Text of the env file for O(release) in a slot."""
        app, params = self.app, self.params
        if params["env"] is not None:
            if not _files.read_text(app.cookie) and not self.check:
                raise Failure(f"{app.cookie} is missing. Run setup.yml.")
            return _envfile.render(app.wanted_env(color, params["env"], params["nodes"], params["release"]))
        former = _files.read_text(app.former_env(params["release"], _validate.check_env_id(params["env_id"])))
        if former is None:
            raise Failure(f"the environment that {params['release']} had when it was live is gone. Deploy it again.")
        env = _envfile.parse(former)
        return _envfile.render(
            _envfile.for_slot(env, color, app.ports[color], app.name, app.state_dir(color), params["nodes"])
        )

    def deployed(self) -> dict[str, Any]:
        """Put a release and its environment into the slot, start it and wait until it is healthy; undone if that fails. Raises: Failure."""
        params, release = self.params, _validate.check_release(self.params["release"])
        if not self.check and not os.path.isdir(self.app.release_dir(release)):
            raise Failure(
                f"{release} is not installed on this host, only {', '.join(self.app.installed_releases()) or 'none'}"
            )
        live = self.app.live_color()
        if live and live != self.color:
            self.confirm_live(live)
            if self.app.slot_release(live) == release and not params["anew"]:
                if _envfile.same_but_nodes(_files.read_text(self.app.env_file(live)) or "", self.render_env(live)):
                    # An interrupted run may have left something in the idle slot that nobody wants any more.
                    left = self.restored()
                    return {**left, "release": release, "color": live, "already_live": True}
        text = self.render_env(self.color)
        same = self.release == release and _envfile.same_but_nodes(_files.read_text(self.env_file) or "", text)
        if same:
            result = self.started()
            if self.journal and not self.check:
                # The run that put it there died before it could record that. The deploy now belongs to this run, which confirms or undoes it.
                self.write_facts()
                if params["run_id"]:
                    self.journal["run"] = params["run_id"]
                    _files.write_json(self.journal_file, self.journal)
                result["changed"] = True
            return result
        former = self.journal["former"]["release"] if self.journal else self.release
        if former:
            self.require_idle("deploy to")
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
        self.require_memory()
        if self.check:
            return result
        _start.require_own_node(self.app, self.color, release, env)
        try:
            seconds = self.replace_content(release, text, running)
        except (Failure, OSError) as error:
            raise self.restore_after(error) from None
        self.write_facts()
        return {**result, "seconds": seconds, "run": params["run_id"]}

    def confirm_live(self, live: str) -> None:
        """A deploy to the slot that is live by now was cut short before it was confirmed: what serves, stays."""
        if os.path.exists(self.app.journal(live)):
            self.act(
                f"confirm {self.app.slot_release(live)} in {live}, which is live",
                _files.remove,
                self.app.journal(live),
            )

    def replace_content(self, release: str, text: str, running: bool) -> float:
        """Write down what is there, then replace it. Returns seconds until healthy."""
        former = self.journal["former"] if self.journal else None
        if not former:
            slot_facts = self.app.facts()["slots"][self.color]
            former = {"release": self.release, "running": running, "facts": slot_facts}
            if self.held and os.path.exists(self.env_file):
                if (slot_facts or {}).get("promoted_at"):
                    # It was live: a rollback may want it after this slot has been taken for something else.
                    os.makedirs(f"{self.app.root}/former", mode=0o700, exist_ok=True)
                    _files.write_hard_link(self.env_file, self.app.former_env(self.held["release"], self.held["env"]))
                _files.write_hard_link(self.env_file, self.former_env)
        self.journal = {"run": self.params["run_id"], "at": _files.now(), "release": release, "former": former}
        _files.write_json(self.journal_file, self.journal)
        self.stop()
        self.link_release(release)
        self.write_env(text)
        return self.start()

    def restore_after(self, error: Exception) -> Failure:
        """The slot failed with its new release: report, then bring the previous one back. Returns a Failure."""
        text, log = self.report(error)
        restored, last = True, ""
        try:
            last = self.restored().get("note", "")
        except (Failure, OSError) as second:
            restored, last = False, f"restoring the slot failed too: {second}. Run deploy.yml again."
        return Failure(f"{text}\n  {last}", log=log, restored=restored, actions=self.actions)

    def restored(self) -> dict[str, Any]:
        """Give the slot what it held before a deploy that was not confirmed; otherwise nothing. Raises: Failure."""
        if not self.journal:
            return {"release": self.release}
        former = self.journal["former"]
        if former["release"]:
            self.require_idle("restore")
        self.actions.append(f"restore {former['release'] or 'nothing'} in {self.color}")
        if self.check:
            return {"changed": True, "release": former["release"]}
        self.stop()
        self.link_release(former["release"])
        if former["release"] and os.path.exists(self.former_env):
            _files.write_hard_link(self.former_env, self.env_file)
        else:
            _files.remove(self.env_file)
        facts = self.app.facts()
        facts["slots"][self.color] = former["facts"]
        self.app.write_facts(facts)
        note = f"{self.color} holds {former['release'] or 'nothing'} again"
        # The previous release is known to work; a short timeout that was meant for the new one must not fail it.
        self.timeout = max(self.timeout, 60)
        if former["release"] and former["running"]:
            self.start()
            note += " and is running"
        self.drop_journal()
        return {"changed": True, "release": former["release"], "note": note}

    def drop_journal(self) -> None:
        _app.drop_journal(self.app, self.color)
        self.journal = None

    def require_release(self) -> None:
        if not self.release:
            raise Failure(f"{self.color} holds no release. Run deploy.yml.")

    def started(self) -> dict[str, Any]:
        """Start the slot if it does not answer, and prove it. Raises: Failure."""
        self.require_release()
        pid = self.service.pid()
        if pid:
            if _health.check_health(self.app, self.color, pid, self.params).good:
                if not self.check:
                    self.mark_proven()
                if self.service.is_enabled():
                    return {"release": self.release}
                # Started by a run that died before it could make that last over a reboot.
                self.act(f"enable {self.color}", self.service.enable)
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

    def wait_or_restart(self) -> float:
        """What runs may still be about to answer. If it does not, and is not live, it is started anew. Returns seconds."""
        try:
            return self.wait()
        except Failure:
            self.require_idle("restart")
            self.actions.append(f"restart {self.color}, which is running and does not answer")
            self.stop()
            return self.start()

    def restarted(self) -> dict[str, Any]:
        """Stop and start a slot, one that is not live unless that is wanted. Raises: Failure."""
        self.require_release()
        if not self.params["allow_live"]:
            self.require_idle("restart")
        if self.service.pid():
            self.act(f"stop {self.color} ({self.release})", self.stop)
        if self.check:
            self.actions.append(f"start {self.color} ({self.release})")
            return {"changed": True, "release": self.release}
        return self.started()

    def drained(self) -> dict[str, Any]:
        """Wait until nobody has a connection to a slot that is not live, at most O(drain_timeout) seconds. Raises: Failure."""
        self.require_idle("drain")
        port = self.app.ports[self.color]
        deadline = time.monotonic() + (0 if self.check else self.params["drain_timeout"])
        left = _proc.connections(port)
        while left and time.monotonic() < deadline:
            time.sleep(0.2)
            # Nothing waits for this: somebody may have ended the run to roll back.
            _exclusive.require_lock(self.app, self.params["run_id"])
            left = _proc.connections(port)
        return {"release": self.release, "connections": left}

    def met(self) -> dict[str, Any]:
        """Wait until the node of the slot is connected with others, at most O(health_timeout) seconds. Raises: Failure."""
        deadline = time.monotonic() + self.timeout
        while True:
            node = self.app.node(self.color, self.service.pid())
            sees = node["sees"] if node else None
            missing = [name for name in self.params["nodes"] if name not in (sees or [])]
            if self.check or not missing:
                return {"release": self.release}
            if time.monotonic() > deadline:
                why = (
                    "it does not say which it is connected with"
                    if sees is None
                    else f"it is connected with {', '.join(sees) or 'none'}"
                )
                raise Failure(
                    f"{self.color} has not met {' and '.join(missing)} within {self.timeout} s: {why}. The hosts must reach each other on "
                    f"port {_cluster.EPMD} and on the ports of bluegreen_cluster."
                )
            time.sleep(0.2)

    def stopped(self) -> dict[str, Any]:
        """Stop a slot that is not live. Raises: Failure."""
        self.require_idle("stop")
        if self.service.is_stopped():
            return {"release": self.release}
        self.act(f"stop {self.color} ({self.release})", self.stop)
        return {"changed": True, "release": self.release}


# Beside the word for what went wrong, Erlang and Elixir log the path or the port.
_DENIED = re.compile(r"\b(eacces|erofs|enospc|permission denied|read-only file system)\b", re.IGNORECASE)


def log_hints(app: App, log: list[str], holders: dict[str, str]) -> list[str]:
    """What to do about a log, as sentences: about a place that cannot be written to, and a port that the other slot has.

    :param holders: see V(Slot.port_holders).
    """
    hints, text = [], "\n".join(log)
    if "eaddrinuse" in text or "address already in use" in text.lower():
        named = [port for port in holders if re.search(rf"\b{port}\b", text)] or sorted(holders)
        if named:
            color = holders[named[0]]
            hints.append(
                f"{color} has port {' and '.join(named)} already: what two copies of the app cannot share goes into bluegreen_env_blue and "
                "bluegreen_env_green, for example {METRICS_PORT: 9568} and {METRICS_PORT: 9569}"
            )
    for line in log:
        found = _DENIED.search(line)
        # Of a path in the environment only the name of the variable is left.
        path = re.search(r"(?<!<)/[A-Za-z0-9._/@+-]+|<[A-Z][A-Z0-9_]*>", line)
        if not found or not path or found.group(1).lower() == "enospc":
            continue
        where = path.group(0)
        if where.startswith(f"{app.releases}/"):
            cure = "releases are read-only. Let it write below BLUEGREEN_SHARED (bluegreen_shared) or its HOME"
        else:
            place = f": [{os.path.dirname(where)}]" if where.startswith("/") else ""
            cure = f"let it with bluegreen_writable{place}, or move that to BLUEGREEN_SHARED (bluegreen_shared)"
        hints.append(f"the app cannot write to {where}: {cure}")
        break
    return hints


def name_hints(log: list[str], env: dict[str, str]) -> list[str]:
    """A sentence for a variable that the app misses and that the user has under nearly that name."""
    for missing in re.findall(r"environment variable ([A-Z][A-Z0-9_]+) is missing", "\n".join(log)):
        near = difflib.get_close_matches(missing, [name for name in env if name != missing], 1, 0.75)
        if near and missing not in env:
            return [f"the app asks for {missing}, and bluegreen_env has {near[0]}: is that a typing error?"]
    return []


def shown(release: str | None, env: dict[str, str]) -> dict[str, Any]:
    """What a slot holds, as a diff may show it: of the environment its id and the names in it."""
    return {"release": release or "nothing", "env": _envfile.env_id(env)[: _envfile.ID_SHOWN], "names": sorted(env)}


def work(module: AnsibleModule, app: App) -> dict[str, Any]:
    slot = Slot(module, app)
    result = getattr(slot, module.params["state"])()
    color = result.get("color", slot.color)
    node = app.node(color, _service.for_slot(app, color).pid())
    has_ecto = app.has_library(app.slot_release(color), _migrations.LIBRARY)
    finish = dict(module.params["finish"] or {})
    asks = finish.pop("unless_ecto", False) and has_ecto
    if module.params["state"] == "deployed" and finish and not asks and not module.check_mode:
        # Here, because a host of a larger group would compile it for nothing.
        from ansible_collections.beamops.bluegreen.plugins.module_utils import _lock

        result["ended"] = _lock.end_well(app, module.params, {**finish, "confirm": color})
    return {
        **{"color": color, "env": _envfile.env_id(app.env(color)), "node": node, "actions": slot.actions},
        **{"has_ecto": has_ecto, **result},
    }


def main() -> None:
    run_module(
        dict(
            **_app.HEALTH_OPTIONS,
            color=dict(type="str", choices=["blue", "green"], required=True),
            state=dict(
                type="str",
                choices=["deployed", "restored", "started", "restarted", "drained", "stopped", "met"],
                required=True,
            ),
            release=dict(type="str"),
            env=dict(type="str", no_log=True),
            env_id=dict(type="str", default=""),
            finish=dict(type="dict"),
            force=dict(type="bool", default=False),
            anew=dict(type="bool", default=False),
            allow_live=dict(type="bool", default=False),
            nodes=dict(type="list", elements="str", default=[]),
            run_id=dict(type="str", default="", **renamed("run")),
            health_timeout=dict(type="int", default=60),
            stop_timeout=dict(type="int", default=30),
            drain_timeout=dict(type="int", default=0),
        ),
        work,
        # These only look, for as long as it takes.
        exclusive=lambda params: params["state"] not in ("drained", "met"),
        required_if=[("state", "deployed", ("release",))],
    )


if __name__ == "__main__":
    main()
