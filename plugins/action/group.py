# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide for the group, on the controller. Documented with the module of the same name; the decisions are in plugin_utils."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.beamops.bluegreen.plugins.module_utils import _cluster
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Refused
from ansible_collections.beamops.bluegreen.plugins.module_utils._validate import other
from ansible_collections.beamops.bluegreen.plugins.plugin_utils import (
    _clock,
    _gate,
    _messages,
    _notify,
    _plans,
    _status_page,
    _status_report,
    _watch,
)

if TYPE_CHECKING:
    from ansible_collections.beamops.bluegreen.plugins.module_utils._cluster import Cluster
    from ansible_collections.beamops.bluegreen.plugins.plugin_utils._types import FailedStep, Gate, Infos, Result

_WHAT = ("check", "plan", "certificate", "cookie", "meetings", "switch_times", "watch", "sum_up", "tell")
_OPTIONS = {
    "check": {"type": "list", "elements": "str"},
    "plan": {"type": "str", "choices": ["deploy", "switch", "canary", "rollback", "join"]},
    "color": {"type": "str"},
    "percent": {"type": "int", "default": 0},
    "force": {"type": "bool", "default": False},
    "certificate": {"type": "bool", "default": False},
    "cookie": {"type": "bool", "default": False},
    "meetings": {"type": "bool", "default": False},
    "switch_times": {"type": "bool", "default": False},
    "watch": {"type": "int"},
    "meanwhile": {"type": "bool", "default": False},
    "sum_up": {"type": "bool", "default": False},
    "tell": {"type": "str", "choices": ["migration", "pending", "status", "env", "logs", "ending"]},
    "format": {"type": "str", "choices": ["json", "html", "prometheus"]},
}
_WRITERS = {
    "json": _status_report.as_json,
    "html": _status_page.as_html,
    "prometheus": _status_report.as_prometheus,
}


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        self._given = task_vars
        self._hostvars: dict[str, Any] = {}
        self._known: Gate | None = None
        self._hosts = self._var("__bluegreen_group")
        _checked, self._args = self.validate_argument_spec(
            _OPTIONS, mutually_exclusive=[_WHAT], required_one_of=[_WHAT]
        )
        if self._args["check"]:
            found = self._check(self._args["check"])
        elif self._args["plan"]:
            found = self._plan(self._args["plan"])
        elif self._args["switch_times"]:
            found = self._switch_times()
        elif self._args["watch"] is not None:
            found = self._watch(self._args["watch"])
        elif self._args["certificate"]:
            found = {"source": self._certificate_source()}
        elif self._args["cookie"]:
            found = self._cookie()
        elif self._args["meetings"]:
            found = self._meetings()
        elif self._args["sum_up"]:
            found = self._sum_up()
        else:
            found = self._tell(self._args["tell"])
        return {"changed": False, **found}

    # --- what is known ---

    def _var(self, name: str) -> Any:
        """The value of a variable of the playbooks, or of the user; V(None) where it is not set."""
        return self._templar.template(self._given.get(name))

    def _is(self, name: str) -> bool:
        return boolean(self._var(name))

    def _of(self, host: str) -> Mapping[str, Any]:
        """The variables of a host. Ansible puts them together anew, in milliseconds, each time they are asked for."""
        if host not in self._hostvars:
            hostvars = self._given["hostvars"]
            self._hostvars[host] = hostvars[host] if host in hostvars else {}
        return self._hostvars[host]

    def _registered(self, name: str) -> dict[str, Result]:
        """Host to what it registered under the name of a step; only hosts that did."""
        found = {host: self._of(host).get(f"__bluegreen_{name}") for host in self._hosts}
        return {host: result for host, result in found.items() if result}

    def _by_host(self, steps: Iterable[str]) -> dict[str, dict]:
        """Host to {step: what it registered}, as the gate judges it."""
        names = [step.rstrip("?") for step in steps]
        found = {name: self._registered(name) for name in names}
        return {host: {name: found[name].get(host) for name in names} for host in self._hosts}

    def _infos(self) -> Infos:
        """Host to what it told of its slots when it was locked, or when set-up ended; only hosts that did."""
        found = {host: result["info"] for host, result in self._registered("lock").items() if result.get("info")}
        found.update({host: result for host, result in self._of_this_run("setup").items() if result.get("ok")})
        return found

    def _of_this_run(self, name: str) -> dict[str, Result]:
        """As V(_registered), without what an earlier play of the same ansible-playbook has left."""
        return self._registered(name) if name in self._gate()["begun"] else {}

    def _last(self, name: str) -> Infos:
        """Host to what it told in the end, or to the result that says why it did not."""
        registered = self._registered(name)
        results = {host: registered.get(host) or {} for host in self._hosts}
        found: dict[str, Any] = {}
        for host, result in results.items():
            found[host] = {"ok": True, **result["info"]} if result.get("info") else result
        return found

    def _gate(self) -> Gate:
        """How this run stands. What an earlier play of the same ansible-playbook has left is not of this run."""
        if self._known is None:
            run = self._var("__bluegreen_run")["id"]
            known: Any = self._given.get("__bluegreen_gate") or {}
            self._known = known if known.get("run") == run else _gate.new(run)
        return self._known

    def _say(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._display.display(f"  {line}")

    # --- what it does with it ---

    def _check(self, steps: list[str]) -> Gate:
        without_lost = self._var("bluegreen_lost_hosts") == "proceed"
        return _gate.check(self._gate(), self._by_host(steps), self._hosts, steps, without_lost)

    def _plan(self, kind: str) -> Gate:
        before, infos, force = self._gate(), self._infos(), self._args["force"]
        if not before["ok"]:
            return before
        releases = {host: result.get("release") for host, result in self._registered("release").items()}
        asked = self._pending_migrations()
        if kind == "deploy":
            plan = _plans.deploy_plan(infos, releases, force)
            lines = _messages.deploy_lines(infos, releases)
        elif kind == "join":
            everyone = self._everyone()
            infos = {host: everyone.get(host, {}) for host in infos}
            plan = _plans.join_plan(infos, {host: info for host, info in everyone.items() if host not in infos})
            lines = _messages.join_lines(infos, plan)
        elif kind == "canary":
            plan, lines = _plans.canary_plan(infos, self._args["percent"], force, asked), []
        else:
            # A run that has just deployed promotes what it has put into the slots.
            deployed = self._registered("deployed") if "deployed" in before["begun"] else None
            plan = (
                _plans.rollback_plan(infos, force)
                if kind == "rollback"
                else _plans.switch_plan(infos, self._args["color"] or None, deployed, force, asked)
            )
            lines = _messages.switch_lines(infos, plan)
        clusters = self._clusters() if kind in ("deploy", "rollback", "join") else {}
        if clusters:
            live = _plans.live_already(infos, releases) if kind == "deploy" else {}
            plan = _plans.with_nodes(plan, self._var("bluegreen_app"), clusters, live)
        if plan["ok"]:
            self._say(lines)
        gate = _gate.planned(before, plan)
        goals = gate["hosts"].values()
        # Not where a run was cut short half way: what is live on one host is no canary on the others.
        goes_up = kind == "switch" and plan["ok"] and not any(goal.get("already") for goal in goals)
        gate["steps"] = self._told()["steps"] if goes_up and not self._task.check_mode else []
        finish = self._finish("deploy") if kind == "deploy" and plan["ok"] else {}
        if finish:
            for goal in gate["hosts"].values():
                goal["finish"] = {**finish, "unless_ecto": self._var("bluegreen_migrations_command") == "auto"}
        return gate

    def _everyone(self) -> Infos:
        """Host to what it told, of all hosts of the group, whether they are in this run or not."""
        told = self._given.get("__bluegreen_everyone") or {}
        return {result["item"]: result for result in told.get("results") or []}

    def _pending_migrations(self) -> dict[str, list[str]]:
        """Release to its migrations that are pending, if this run has asked for them and got an answer."""
        told = self._of_this_run("listed").values()
        return {result["release"]: result["migrations"]["pending"] for result in told if result.get("migrations")}

    def _clusters(self) -> dict[str, Cluster]:
        """Host to its cluster, of all hosts of the group, or empty without one."""
        # The variables of another host are slow to get. preflight has made sure that all hosts have a cluster, or none.
        if not self._var("bluegreen_cluster"):
            return {}
        found = {}
        for host in self._given["groups"].get(self._var("bluegreen_hosts"), []):
            # Of a host that --limit leaves out nobody has checked it, and nobody needs to.
            with contextlib.suppress(AnsibleError, Refused):
                cluster = _cluster.from_option(self._of(host).get("bluegreen_cluster") or {})
                if cluster:
                    found[host] = cluster
        return found

    def _certificate_source(self) -> str:
        """The host that the others get their certificate from. One that joins gets it from where it gets the releases."""
        goals = self._gate().get("hosts") or {}
        given = [goal["source"] for goal in goals.values() if isinstance(goal, dict) and goal.get("source")]
        return given[0] if given else _plans.certificate_source(self._registered("adopted"))

    def _cookie(self) -> dict:
        return _plans.cookie_plan(self._infos())

    def _meetings(self) -> dict:
        return {"hosts": _plans.meetings(self._infos(), self._registered("deployed"))}

    def _switch_times(self) -> dict:
        # With fewer forks than hosts the first would wait for the moment, and keep the last from being there in time.
        together = 1 < len(self._hosts) <= self._given["ansible_forks"] and not self._task.check_mode
        times = _clock.switch_times(self._registered("lock"), time.monotonic()) if together else {}
        finish = self._finish("switch")
        watch = self._watches()
        told = {"looks": watch["looks"], "before": watch["seconds"]} if watch else {"looks": []}
        ready = self._registered("back_ready")
        back = all(ready.get(host, {}).get("ok") for host in self._hosts)
        return {"hosts": times, "back": back, **told, **({"finish": finish} if finish else {})}

    def _told(self) -> Mapping[str, Any]:
        """What preflight has found for the group."""
        return self._of(self._hosts[0])["__bluegreen_preflight"]

    def _watches(self) -> dict[str, Any]:
        """C(bluegreen_watch), complete, if what this run makes live is to be watched; empty otherwise."""
        watch = self._told()["watch"]
        goals = self._gate()["hosts"].values()
        goes_on = self._var("__bluegreen_operation") != "rollback" and not all(goal.get("already") for goal in goals)
        return watch if goes_on and watch["looks"] and not self._task.check_mode else {}

    def _watch(self, look: int) -> Gate:
        """Judge what went live by its figures, on each host; one that cannot be asked is said in the end, and decides nothing."""
        before = self._gate()
        if not before["ok"]:
            return before
        told, color = self._told(), self._args["color"]
        watch, looks = told["watch"], told["looks"] if self._args["meanwhile"] else told["watch"]["looks"]
        beside = f"{other(color)} {'meanwhile' if self._args['meanwhile'] else 'before'}"
        registered = self._registered("watched")
        seen = {host: result for host, result in registered.items() if result.get("ok")}
        failures: list[FailedStep] = []
        # What is live already stays where nobody can say how it is; a canary does not go up unseen.
        unseen = [host for host in self._hosts if host not in seen] if self._args["meanwhile"] else []
        failures += [{"host": host, "step": "watched", "why": _gate.why(registered.get(host)) or ""} for host in unseen]
        for host, result in seen.items():
            if _watch.worse(result["new"], result["old"], watch):
                why = _watch.evidence(color, result["new"], result["old"], beside)
                failures.append({"host": host, "step": "watched", "why": why})
        if watch["restarts"] and look == looks[0]:
            self._say(_watch.silent(seen, self._registered("node_asked"), color))
        if seen:
            new, old = (_watch.total([result[name] for result in seen.values()]) for name in ("new", "old"))
            stays = ". Nothing to judge by, so it stays" if look == looks[-1] and not new["requests"] else ""
            self._say([f"watched {look} s of {looks[-1]} s: {_watch.evidence(color, new, old, beside)}{stays}"])
        return _gate.watched(before, failures)

    def _finish(self, step: str) -> dict[str, Any]:
        """How a host ends the run with a step, as options of deploy_lock. Empty where it must not: others have a say, or more is to come."""
        hooks = self._var("bluegreen_hooks")
        if step == "deploy":
            command = self._var("bluegreen_migrations_command")
            more = [self._is("bluegreen_promote"), self._var("bluegreen_cluster"), hooks.get("after_start")]
            # What a migration and its backup say is not known yet.
            more += [command and command != "auto", self._is("bluegreen_migrate")]
        else:
            more = [self._var("bluegreen_on_live"), self._is("bluegreen_stop_idle"), hooks.get("after_promote")]
            more += [int(self._var(f"bluegreen_{name}")) for name in ("move_sockets", "drain_timeout")]
            more += [self._watches(), self._ends()[1]["failures"]]
        if len(self._given["ansible_play_hosts_all"]) > 1 or self._task.check_mode or any(more):
            return {}
        summary = self._summary(self._gate(), {"ok": True, "failures": [], "lost": []})
        return {
            "confirm": next(iter(summary["confirm"].values()), None),
            "consent": self._is("bluegreen_force") and self._var("__bluegreen_operation") == "deploy",
            "migrations": summary["migrations"],
            "backup": summary["backup"],
            "keep_releases": int(self._var("bluegreen_keep_releases")),
        }

    def _ends(self) -> tuple[Gate, Gate, Gate]:
        """Gates of the run itself, of what comes after a switch, and of the finish."""
        after_switch, finished = (
            _gate.judge(self._by_host(steps), self._hosts, list(steps)) for steps in (_gate.AFTER_SWITCH, _gate.FINISH)
        )
        gate = self._gate()
        if not gate["begun"]:
            # Not even the locks were judged, so nothing is known to be good.
            gate = {**gate, "ok": False}
        return gate, after_switch, finished

    def _sum_up(self) -> dict:
        gate, after_switch, _finished = self._ends()
        ended = {
            host: result["ended"]
            for name in ("deployed", "switched")
            for host, result in self._of_this_run(name).items()
            if result.get("ended")
        }
        return {**self._summary(gate, after_switch), "ended": ended}

    def _summary(self, gate: Gate, after_switch: Gate) -> dict[str, Any]:
        listed = next((one for one in self._of_this_run("listed").values() if one.get("migrations")), None)
        told = listed["migrations"] if listed else {}
        migrated = next(iter(self._of_this_run("migrated").values()), {})
        deployed = self._registered("deployed")
        return _gate.summary(self._var("__bluegreen_operation"), gate, after_switch, deployed) | {
            "reason": _messages.reason(self._var("__bluegreen_operation"), gate, after_switch),
            "migrations": {"release": listed["release"], "ran": told["ran"], "files": told["files"]}
            if listed
            else None,
            "backup": migrated.get("backup") or "",
        }

    def _tell(self, what: str) -> dict:
        if what == "migration":
            ran = {host: result for host, result in self._registered("migrated").items() if result.get("ok")}
            self._say(_messages.migration_lines(ran, self._var("bluegreen_migrate_command")))
            return {}
        if what == "pending":
            self._say(_messages.pending_lines(self._registered("listed")))
            return {}
        if what == "logs":
            logs = self._registered("logs")
            self._say(_messages.log_lines({host: logs.get(host) or {} for host in self._hosts}))
            return {}
        infos = self._last("finished" if what == "ending" else "info")
        if what == "env":
            self._say(_messages.env_lines(infos))
            return {}
        lines = _messages.status_lines(infos) + _messages.next_lines(infos)
        if what == "status":
            # A page has read it too, and shows it.
            self._say((_messages.history_lines(infos) if self._var("history") else []) + lines)
            return {"in_doubt": _messages.in_doubt(infos), "report": self._report(infos)}
        switched = self._of_this_run("switched")
        times = {host: result["switched_at"] for host, result in switched.items() if result.get("switched_at")}
        migrated = [result["migrated"] for result in self._of_this_run("migrated").values() if result.get("migrated")]
        ending = _messages.ending(
            self._var("__bluegreen_operation"),
            self._ends(),
            self._var("__bluegreen_failure_hint"),
            lines,
            _clock.skew(times, self._registered("lock")),
            next(iter(migrated), []),
            self._stays(),
        )
        self._say(ending["lines"])
        self._notify(infos, ending["failed"])
        return {"failed": bool(ending["failed"]), "msg": ending["failed"]}

    def _stays(self) -> dict[str, str]:
        """Host to why it did not go back, or did not end its canary, after it was judged worse."""
        gate = self._gate()
        if not gate.get("worse"):
            return {}
        name = "undone" if "switched" in gate["begun"] else "canary_ended"
        done, ready = self._registered(name), self._registered("back_ready")
        found = {}
        for host in self._hosts:
            color, result = gate["hosts"].get(host, {}).get("color"), done.get(host) or {}
            reason = _gate.why(ready[host]) if name == "undone" and host in ready else None
            if name == "undone" and result.get("live") == color:
                reason = reason or "it was live there before this run"
            if reason or _gate.why(result):
                found[host] = reason or _gate.why(result) or ""
        return found

    def _notify(self, infos: Infos, failed: str) -> None:
        """Tell those who want to know what this run has done."""
        hooks = self._var("bluegreen_notify")
        if not hooks or self._task.check_mode:
            return
        operation, (gate, after_switch, _finished) = self._var("__bluegreen_operation"), self._ends()
        what = _notify.event(operation, failed, self._of_this_run("deployed"), self._of_this_run("switched"))
        if not what:
            return
        reason = _messages.reason(operation, gate, after_switch) or failed
        who = self._var("__bluegreen_run")["holder"]
        body = _notify.message(what, self._var("bluegreen_app"), who, infos, operation, reason)
        self._say(_notify.send(hooks, what, body))

    def _report(self, infos: Infos) -> str:
        """The status as a file; empty if none is wanted."""
        kind = self._args["format"]
        if not kind:
            return ""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return _WRITERS[kind](_status_report.report(infos, self._var("bluegreen_app"), at))
