# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where each host of a group goes: decided once for all of them, before anything moves. Pure; private to this collection.

Each plan is {"ok", "failures", "lost", "hosts"}, as V(_gate.planned) takes it: C(hosts) has the goal of each host.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ansible_collections.beamops.bluegreen.plugins.module_utils import _cluster, _migrations
from ansible_collections.beamops.bluegreen.plugins.module_utils._slots import named, same
from ansible_collections.beamops.bluegreen.plugins.module_utils._validate import COLORS
from ansible_collections.beamops.bluegreen.plugins.module_utils._validate import other as other_color
from ansible_collections.beamops.bluegreen.plugins.plugin_utils._gate import first_line, why

if TYPE_CHECKING:
    from ansible_collections.beamops.bluegreen.plugins.module_utils._cluster import Cluster
    from ansible_collections.beamops.bluegreen.plugins.plugin_utils._types import (
        FailedStep,
        Gate,
        Goal,
        Held,
        Info,
        Infos,
        Node,
        Result,
        Slot,
        Step,
    )


def deploy_plan(infos: Infos, releases: Mapping[str, str | None] | None = None, force: bool = False) -> Gate:
    """Which slot each host deploys to.

    Refused while nobody knows which slot is live and, without force, for a release that was rolled back from.

    :param releases: host to the id of the release that was installed on it.
    """
    failures = []
    for host, info in infos.items():
        new = new_release(info, (releases or {}).get(host))
        if info["live_unknown"]:
            reason = "; ".join(info["disagreements"])
            failures.append(_refusal(host, f"cannot tell which slot is live: {reason}. Run setup.yml."))
        elif _marked(info, new) and not force:
            failures.append(
                _refusal(host, f"{named(new)} was rolled back from. To deploy it again: -e bluegreen_force=true")
            )
    hosts: dict[str, Goal] = {host: {"color": info["target"]} for host, info in infos.items()}
    return {"ok": not failures, "failures": failures, "lost": [], "hosts": hosts}


def switch_plan(
    infos: Infos,
    color: str | None = None,
    deployed: Mapping[str, Result] | None = None,
    force: bool = False,
    asked: Mapping[str, list[str]] | None = None,
) -> Gate:
    """Which slot each host switches to.

    With a color, to that one. Without, to the idle slot if what it holds has not been live since it was deployed: a promote
    that runs twice does not move the traffic back. All hosts are ready before the first one switches. Refused, without force, for a
    release whose migrations have not run: its health tells nothing of its pages.

    :param color: the color that the user named, or V(None).
    :param deployed: host to result of slot_service, for a run that promotes what it has just deployed.
    :param asked: release to the migrations that are pending, where this run has asked.
    """
    plan: dict[str, Goal] = {}
    failures = []
    waiting = {held(info, info["idle"]) for info in infos.values() if waits(info)}
    for host, info in infos.items():
        result = None if deployed is None else deployed.get(host) or {}
        goal, reason = _switch(info, color, result, bool(waiting))
        if goal and not goal["already"] and not force:
            reason = _behind(info, goal["color"] or "", goal["release"] or "", asked or {})
        if goal and not reason:
            plan[host] = goal
        else:
            failures.append(_refusal(host, reason))
    return _one_release(plan, failures)


def _switch(info: Info, color: str | None, deployed: Result | None, others_wait: bool) -> tuple[Goal | None, str]:
    """The goal of one host, or why it has none."""
    if _unsure(info):
        return None, _unsure(info) or ""
    idle = info["slots"][info["idle"]]
    env = None
    if deployed is not None:
        to, release, env = deployed.get("color"), deployed.get("release"), deployed.get("env")
    elif color:
        to, release = color, held(info, color)
    elif not held(info, info["live"]) and not idle["release"]:
        to, release = info["idle"], None
    elif idle["rolled_back"] and not others_wait:
        return None, (
            f"{info['idle']} holds {named(idle)}, which was rolled back from. "
            f"To promote it anyway: -e color={info['idle']}"
        )
    else:
        to = info["idle"] if waits(info) else info["live"]
        release = held(info, to)
    if not to or not release:
        return None, f"{to or 'the slot'} holds no release. Run deploy.yml first."
    already = to == info["live"]
    reason = not_ready(info["slots"][to]) if not already and deployed is None else None
    if reason:
        return None, f"{to} ({release}) {reason}"
    return {"color": to, "release": release, "env": env or info["slots"][to]["env"], "already": already}, ""


def _behind(info: Info, color: str, release: str, asked: Mapping[str, list[str]]) -> str:
    """Why the database keeps a release from getting visitors; empty if it does not."""
    pending = asked.get(release, info["slots"][color]["pending_migrations"])
    if not pending:
        return ""
    return (
        f"{color} ({release}) has migrations that have not run: {', '.join(pending)}. Run them: migrate.yml -e color={color}. "
        "If it works without them: -e bluegreen_force=true"
    )


def canary_plan(infos: Infos, percent: int, force: bool = False, asked: Mapping[str, list[str]] | None = None) -> Gate:
    """Whether a share of the visitors may get the idle slot. Taking the share away is always possible."""
    plan: dict[str, Goal] = {}
    failures = []
    visited = {host: info for host, info in infos.items() if info["web"]}
    if percent and not visited:
        failures = [
            _refusal(host, "has no visitors (bluegreen_web: false), so there is no share to send") for host in infos
        ]
    for host, info in visited.items():
        reason = _unsure(info) or (_no_canary(info) if percent else None)
        if not reason and percent and not force:
            reason = _behind(info, info["idle"], held(info, info["idle"]) or "", asked or {})
        if reason:
            failures.append(_refusal(host, reason))
        else:
            plan[host] = {"release": held(info, info["idle"]) if percent else None}
    return _one_release(plan, failures) if percent else {"ok": not failures, "failures": failures, "lost": []}


def _no_canary(info: Info) -> str | None:
    idle = info["slots"][info["idle"]]
    if [path for path in info["setup_needed"] if path.endswith((".conf", "/site.sha256"))]:
        return "its site does not support canaries yet. Run setup.yml."
    if not idle["release"]:
        return f"{info['idle']} holds no release. Run deploy.yml first."
    reason = not_ready(idle)
    return f"{info['idle']} ({idle['release']}) {reason}" if reason else None


def rollback_plan(infos: Infos, force: bool = False) -> Gate:
    """Where each host rolls back to.

    Refused, without force, if migrations have run since, as far as the app tells: the previous release does not know them.
    """
    plan: dict[str, Goal] = {}
    failures = []
    # Killed while it freed its locks, a rollback has ended on some hosts and died on others: it is finished on all of them.
    died = {(info["last_run"] or {}).get("run") for info in infos.values() if _went_back(info, ("died",))}
    for host, info in infos.items():
        goal = info["rollback"]
        if _unsure(info):
            failures.append(_refusal(host, _unsure(info) or ""))
        elif _went_back(info, ("died", "ok")) and (info["last_run"] or {}).get("run") in died:
            live = info["slots"][info["live"]]
            plan[host] = {
                **{"release": live["release"], "env": live["env"], "color": info["live"]},
                **{"take": False, "already": True, "runs": _runs(live)},
            }
        elif goal.get("refused"):
            failures.append(_refusal(host, goal["refused"]))
        elif _migrated_since(info, goal["release"]) and not force:
            failures.append(_refusal(host, _across_migrations(info, goal["release"])))
        else:
            runs = not goal["take"] and _runs(info["slots"][goal["color"] or ""])
            plan[host] = {**goal, "already": False, "runs": runs}
    return _one_release(plan, failures)


def join_plan(infos: Infos, others: Infos) -> Gate:
    """What hosts that are new, or come back, get from a host of their group: {"source", "steps"} for each. Nobody else is touched.

    :param infos: hosts that join.
    :param others: the other hosts of the group, or the results that say why they did not tell.
    """
    good = {
        host: info for host, info in others.items() if not why(info) and not _unsure(info) and held(info, info["live"])
    }
    releases = sorted({held(info, info["live"]) or "" for info in good.values()})
    locks = [(host, info["lock"]) for host, info in good.items() if info["lock"]]
    wrong = ""
    if not others:
        wrong = "no other host of the group is left to take from. Name the hosts that join: -l HOST"
    elif not good:
        reasons = [
            f"{host} {first_line(why(info) or _unsure(info) or 'serves nothing')}" for host, info in others.items()
        ]
        wrong = f"no other host of the group is left to take from: {'; '.join(reasons)}"
    elif locks:
        host, lock = locks[0]
        wrong = f"{host} is locked by {lock['holder']} for {lock['operation']} since {lock['since']}. Join when that has ended."
    elif len(releases) > 1:
        wrong = f"the group serves {len(releases)} releases ({', '.join(releases)}). Make it one first: deploy.yml -e bluegreen_promote=true"
    plan: dict[str, Goal] = {}
    failures: list[FailedStep] = []
    for joiner, info in infos.items():
        reason = why(info) or wrong
        alike = [host for host in good if not reason and good[host]["web"] == info["web"]]
        if not reason and info["live_unknown"]:
            reason = "; ".join(info["disagreements"])
        if not reason and not alike:
            reason = f"no other {'web host' if info['web'] else 'worker'} of the group is left to take from"
        if reason:
            failures.append(_refusal(joiner, reason))
            continue
        source = good[alike[0]]
        steps = _steps_to_join(info, source)
        live = source["slots"][source["live"]]
        plan[joiner] = {
            **{"source": alike[0], "steps": steps, "already": not steps},
            **{"color": source["live"], "release": live["release"], "env": live["env"]},
        }
    return {"ok": bool(plan) and not failures, "failures": failures, "lost": [], "hosts": plan}


def _steps_to_join(info: Info, source: Info) -> list[Step]:
    """How a host comes to hold in each slot what another host holds there, with visitors on a slot that is proven all the time."""

    def content(of: Info, color: str) -> tuple[str, str]:
        # The id of an environment is another where the cookie is, or the address of a node.
        return of["slots"][color]["release"] or "", of["env_digests"][color]

    live, goal = info["live"], source["live"]
    holds = {color: content(info, color) for color in COLORS}
    steps: list[Step] = []

    def deploy(color: str, to: str) -> None:
        slot = source["slots"][color]
        steps.append({"do": "deploy", "color": to, "release": slot["release"] or "", "env": slot["env"]})
        holds[to] = content(source, color)

    if not any(slot["release"] for slot in info["slots"].values()):
        # Nobody is served here yet, so its first slot is live at once.
        live = goal
        deploy(goal, goal)
    while live != goal or holds[live] != content(source, goal):
        # At the most twice: the slot that is not live gets it, and if that has the wrong color, the other one then.
        live = other_color(live)
        deploy(goal, live)
        steps.append({"do": "switch", "color": live, "release": source["slots"][goal]["release"] or ""})
    idle = other_color(goal)
    if source["slots"][idle]["release"] and holds[idle] != content(source, idle):
        deploy(idle, idle)
    return steps


# --- the cluster -------------------------------------------------------------------------------------------------------


def live_already(infos: Infos, releases: Mapping[str, str | None]) -> dict[str, str]:
    """Host to its live color, of the hosts that have what a deploy brings live."""
    found = {}
    for host, info in infos.items():
        if info.get("wanted") and same(new_release(info, releases.get(host)), info["slots"][info["live"]]):
            found[host] = info["live"]
    return found


def with_nodes(plan: Gate, app: str, clusters: Mapping[str, Cluster], live: Mapping[str, str] | None = None) -> Gate:
    """A plan of which each goal also says which nodes the new one keeps a connection with.

    :param clusters: host to its cluster, of all hosts of the group.
    :param live: what V(live_already) has found.
    """
    colors = {host: goal.get("color") for host, goal in plan.get("hosts", {}).items()}
    # Where the release is live already, nothing is deployed to the slot that the plan names.
    colors.update(live or {})
    nodes = _cluster.nodes_to_meet(app, {host: color for host, color in colors.items() if color}, clusters)
    hosts: dict[str, Goal] = {
        host: {**goal, "nodes": nodes[host]} if host in nodes else goal for host, goal in plan.get("hosts", {}).items()
    }
    return {**plan, "hosts": hosts}


def cookie_plan(infos: Infos) -> dict:
    """Whose cookie the hosts of a cluster get: {"source", "targets"}.

    The first host's, unless nodes of other hosts run in a cluster already: then the one that most of those have, so that a new host does
    not cut them off.
    """
    there = {host: info for host, info in infos.items() if info["cookie"]}
    most = _most_common(there)
    source = next((host for host, info in there.items() if most in (None, info["cookie"])), None)
    targets = [host for host, info in there.items() if source and info["cookie"] != there[source]["cookie"]]
    return {"source": source, "targets": targets}


def certificate_source(told: Mapping[str, Result]) -> str:
    """The host whose certificate all hosts of a group get: the one that lasts longest, else one that has a key, else the first.

    :param told: host to result of site_certificate.
    """
    good = {host: result for host, result in told.items() if result.get("ok")}
    return max(good, key=lambda host: (good[host]["not_after"], good[host]["has_key"]), default="")


def strangers(infos: Infos) -> list[str]:
    """Hosts that run nodes in a cluster and have another cookie than most of those: a new host that was deployed to by itself."""
    most = _most_common(infos)
    return [host for host, info in infos.items() if _nodes(info) and info["cookie"] != most]


def _most_common(infos: Infos) -> str | None:
    """The cookie that most hosts have, of those that run nodes in a cluster."""
    clustered = [info["cookie"] for info in infos.values() if _nodes(info)]
    return max(clustered, key=clustered.count, default=None)


def meetings(infos: Infos, deployed: Mapping[str, Result]) -> dict[str, list[str]]:
    """Host to the nodes that the one that was just deployed there must be connected with: new ones and, as far as they may, old ones.

    :param deployed: host to result of slot_service.
    """
    new = {host: result["node"] for host, result in deployed.items() if result.get("node")}
    # What a slot held before it was deployed to does not run any more, and where the release was live already, an idle slot may have got
    # back what it held. A sick one may be what this deploy is for.
    old = [
        node
        for host, info in infos.items()
        for color, node in _nodes(info).items()
        if color != deployed.get(host, {}).get("color") and not deployed.get(host, {}).get("already_live")
        if info["slots"][color]["healthy"]
    ]
    return {host: _cluster.peers(node, [*new.values(), *old]) for host, node in new.items()}


def unseen(infos: Infos) -> dict[str, dict[str, list[str]]]:
    """Host to color to the nodes that the one of that slot ought to be connected with and is not."""
    nodes = {host: _nodes(info) for host, info in infos.items()}
    everyone = [node for of_host in nodes.values() for node in of_host.values()]
    return {
        host: {
            color: [name for name in _cluster.peers(node, everyone) if name not in (node["sees"] or [])]
            for color, node in of_host.items()
        }
        for host, of_host in nodes.items()
    }


def _nodes(info: Info) -> dict[str, Node]:
    """Color to the node of each slot that runs in a cluster."""
    nodes = {color: slot.get("node") for color, slot in (info.get("slots") or {}).items()}
    return {color: node for color, node in nodes.items() if node}


# --- what the plans are made of ----------------------------------------------------------------------------------------


def held(info: Info, color: str) -> str | None:
    """The release in a slot."""
    return info["slots"][color]["release"]


def new_release(info: Info, release: str | None) -> Held:
    """What a deploy brings to a host: {"release", "env", "env_changes"}, as far as that is known yet."""
    return {"release": release, "env": "", "env_changes": None, **(info.get("wanted") or {})}  # type: ignore[typeddict-item]


def waits(info: Info) -> bool:
    """Whether the idle slot holds something that has not been live since it was deployed."""
    idle = info["slots"][info["idle"]]
    return bool(idle["release"] and not idle["promoted_at"] and not idle["rolled_back"])


def not_ready(slot: Slot) -> str | None:
    """Why a slot cannot take the traffic; V(None) if it can."""
    if slot["pending"]:
        return f"is left over from an interrupted deploy ({slot['pending']['at']}). Run deploy.yml again."
    if not slot["healthy"]:
        where = f" on port {slot['port']}" if slot["port"] else ""
        return f"is not healthy: {slot['health']}{where}. Run deploy.yml with the same artifact to restart it."
    return None


def _runs(slot: Slot) -> bool:
    """Whether nothing has to be started, now or at the next boot."""
    return not not_ready(slot) and slot["enabled"]


def _marked(info: Info, new: Held) -> bool:
    """Whether this was rolled back from. A release that is live by now is not bad as such."""
    is_live = new["release"] == held(info, info["live"])
    return any(same(mark, new) for mark in info["rolled_back"] if mark["env"] or not is_live)


def _unsure(info: Info) -> str | None:
    """Why a host must not be switched at all; V(None) if it may."""
    if info["link"] is None and not info["live_unknown"]:
        return "is not set up. Run deploy.yml."
    if info["live_unknown"]:
        return "; ".join(info["disagreements"]) or "cannot tell which slot is live"
    return None


def _went_back(info: Info, results: tuple[str, ...]) -> bool:
    """Whether the last run here was a rollback that switched, and ended in one of these ways.

    A rollback that is run again to finish one that was killed must not go back one release further.
    """
    last = info.get("last_run") or {}
    to = last.get("to") or {}
    return (
        last.get("operation") == "rollback"
        and last.get("result") in results
        and to != last.get("from")
        and to.get("color") == info["live"]
        and same({"release": None, **to}, info["slots"][info["live"]])
    )


def _migrated_since(info: Info, release: str | None) -> list[str]:
    """Migrations that have run, and that the live release knows and another does not."""
    return _migrations.since(held(info, info["live"]), release, info["migrations"])


def _across_migrations(info: Info, release: str | None) -> str:
    names = ", ".join(_migrated_since(info, release))
    backup = info["migrations"][held(info, info["live"]) or ""].get("backup")
    return (
        f"migrations have run since {release} was live: {names}. Undo them, or, if that release can work with them: "
        "-e bluegreen_force=true" + (f"\nThe backup from before them: {backup}" if backup else "")
    )


def _refusal(host: str, reason: str) -> FailedStep:
    return {"host": host, "step": "plan", "why": reason}


def _one_release(plan: dict[str, Goal], failures: list[FailedStep]) -> Gate:
    """Refuse to leave a group on different releases."""
    if len({goal["release"] for goal in plan.values()}) > 1:
        for host, goal in plan.items():
            failures.append(
                _refusal(
                    host, f"would switch to {goal['release']}, other hosts to another release. Deploy to all first."
                )
            )
    return {"ok": bool(plan) and not failures, "failures": failures, "lost": [], "hosts": plan}
