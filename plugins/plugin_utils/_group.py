# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a group of hosts does together: pure decisions of the controller. Private to this collection.

Group or nothing: a host counts as good only if its result is there and says C(ok: true). Whatever else happens to a
host (lost, skipped, a traceback, no result at all) makes the group's answer no.
"""

from __future__ import annotations

from ansible_collections.beamops.bluegreen.plugins.module_utils._rules import COLORS
from ansible_collections.beamops.bluegreen.plugins.module_utils._slots import named, same


def why(result):
    """Why a step of a host is not good, in the host's own words; V(None) if it is good."""
    if not result:
        return "did not come this far"
    if result.get("unreachable"):
        return f"unreachable: {_first(result.get('msg'))}"
    if result.get("ok") is True:
        return None
    if result.get("skipped"):
        return "was skipped"
    text = str(result.get("msg") or "failed without a word").strip()
    trace = str(result.get("module_stderr") or result.get("exception") or "").strip()
    return (
        f"{text}: {trace.splitlines()[-1]}"
        if trace and "ok" not in result and "MODULE FAILURE" in text.upper()
        else text
    )


def _first(text):
    return (str(text or "no answer").strip().splitlines() or ["no answer"])[0]


def verdict(results, hosts, steps, without_lost=False):
    """Judge a group.

    :param results: host to {step: result}, as registered.
    :param hosts: all hosts that have to be good.
    :param steps: the steps that each has to have behind it, in order. One that ends in C(?) may have been left out.
    :param without_lost: go on without hosts that cannot be reached, as long as one can.
    :returns: {"ok": bool, "failed": [{"host", "step", "why"}], "lost": [host]}, with the first bad step of each bad host.
    """
    failed, lost = [], []
    for host in hosts:
        for step in steps:
            name = step.rstrip("?")
            result = results.get(host, {}).get(name)
            if step.endswith("?") and (not result or (result.get("skipped") and not result.get("unreachable"))):
                continue
            reason = why(result)
            if without_lost and (result or {}).get("unreachable"):
                lost.append(host)
                break
            if not reason and name == "setup" and result["setup_needed"]:
                reason = f"set-up is not complete: {', '.join(result['setup_needed'])}"
            if not reason and name == "lock" and (result.get("info") or {}).get("refusals"):
                reason = "; ".join(result["info"]["refusals"])
            if reason:
                failed.append({"host": host, "step": name, "why": reason})
                break
    if lost and len(lost) == len(hosts):
        failed, lost = (
            [{"host": host, "step": steps[0], "why": why(results[host][steps[0]]) or "lost"} for host in lost],
            [],
        )
    return {"ok": bool(hosts) and not failed, "failed": failed, "lost": lost}


def _held(info, color):
    return info["slots"][color]["release"]


def deploy_plan(infos, releases=None, force=False):
    """Whether a deploy may go on: {"ok", "failed", "lost", "hosts": {host: {"color"}}}.

    Not while it is unsure what is live, nor, without force, with a release that was rolled back from.
    """
    failed = []
    for host, info in infos.items():
        new = _new(info, (releases or {}).get(host))
        if info["traffic_unsure"]:
            reason = "; ".join(info["disagreements"])
            failed.append(_refusal(host, f"it is not sure which slot is live: {reason}; run setup.yml"))
        elif _marked(info, new) and not force:
            failed.append(
                _refusal(host, f"{named(new)} was rolled back from; to deploy it again: -e bluegreen_force=true")
            )
    hosts = {host: {"color": info["target"]} for host, info in infos.items()}
    return {"ok": not failed, "failed": failed, "lost": [], "hosts": hosts}


def _new(info, release):
    """What a deploy brings to a host: {"release", "env", "env_changes"}, as far as that is known yet."""
    return {"release": release, "env": "", "env_changes": None, **(info.get("wanted") or {})}


def _marked(info, new):
    """Whether this was rolled back from. A release that is live by now is not bad as such."""
    is_live = new["release"] == _held(info, info["live"])
    return any(same(mark, new) for mark in info["rolled_back"] if mark["env"] or not is_live)


def switch_plan(infos, color=None, deployed=None):
    """Which slot each host switches to.

    With a color, to that one. Without, to the idle slot, if what it holds has not been live since it was deployed: a
    promote that is run again does not move the traffic back. All hosts are ready before the first one switches.

    :param infos: host to result of slot_info.
    :param color: the color that was named, or V(None).
    :param deployed: host to result of slot_service, for a run that goes on to promote what it just deployed.
    :returns: {"ok", "failed", "hosts": {host: {"color", "release", "env", "already"}}}.
    """
    plan, failed = {}, []
    waiting = {_held(info, info["idle"]) for info in infos.values() if _waits(info)}
    for host, info in infos.items():
        if _unsure(info):
            failed.append(_refusal(host, _unsure(info)))
            continue
        live, idle, env = _held(info, info["live"]), _held(info, info["idle"]), None
        if deployed is not None:
            result = deployed.get(host) or {}
            to, held, env = result.get("color"), result.get("release"), result.get("env")
        elif color:
            to, held = color, _held(info, color)
        elif not live and not idle:
            to, held = info["idle"], None
        elif info["slots"][info["idle"]]["rolled_back"] and not waiting:
            failed.append(
                _refusal(
                    host,
                    f"{info['idle']} holds {named(info['slots'][info['idle']])}, which was rolled back from; "
                    f"to promote it all the same: -e color={info['idle']}",
                )
            )
            continue
        else:
            to = info["idle"] if _waits(info) else info["live"]
            held = _held(info, to)
        if not held:
            failed.append(
                _refusal(host, f"{to or 'no slot'} holds no release, so there is nothing to promote; run deploy.yml")
            )
            continue
        already = to == info["live"]
        if not already and deployed is None:
            reason = _not_ready(info["slots"][to])
            if reason:
                failed.append(_refusal(host, f"{to} ({held}) {reason}"))
                continue
        plan[host] = {"color": to, "release": held, "env": env or info["slots"][to]["env"], "already": already}
    return _one_release(plan, failed)


def _unsure(info):
    """Why a host must not be switched at all; V(None) if it may."""
    if info["link"] is None and not info["traffic_unsure"]:
        return "is not set up; run deploy.yml"
    return ("; ".join(info["disagreements"]) or "nobody knows which slot is live") if info["traffic_unsure"] else None


def _not_ready(slot):
    """Why a slot cannot take the traffic; V(None) if it can."""
    if slot["pending"]:
        return f"is the rest of a deploy that was cut short ({slot['pending']['at']}); run deploy.yml again"
    if not slot["healthy"]:
        return f"is not healthy: {slot['health']} on port {slot['port']}; deploy.yml with the same artifact starts it again"
    return None


def canary_plan(infos, percent):
    """Whether a share of the visitors may get the idle slot: {"ok", "failed", "lost"}. Taking it away is always fine."""
    plan, failed = {}, []
    for host, info in infos.items():
        held = _held(info, info["idle"])
        if _unsure(info):
            failed.append(_refusal(host, _unsure(info)))
        elif percent and [one for one in info["setup_needed"] if one.endswith((".conf", "/site.sha256"))]:
            failed.append(_refusal(host, "its site is not the one that knows of canaries; run setup.yml"))
        elif percent and not held:
            failed.append(
                _refusal(host, f"{info['idle']} holds no release, so nobody can be sent there; run deploy.yml")
            )
        elif percent and _not_ready(info["slots"][info["idle"]]):
            failed.append(_refusal(host, f"{info['idle']} ({held}) {_not_ready(info['slots'][info['idle']])}"))
        else:
            plan[host] = {"release": held if percent else None}
    return _one_release(plan, failed) if percent else {"ok": not failed, "failed": failed, "lost": []}


def rollback_plan(infos, force=False):
    """Where each host rolls back to: as V(switch_plan), and V(take) where the release has to go into the slot again.

    Refused, without force, if migrations have run since, as far as the app tells: the former release does not know them.
    """
    plan, failed = {}, []
    # Killed while it freed its locks, a rollback has ended on some hosts and died on others: it is finished on all of them.
    died = {info["last_run"].get("run") for info in infos.values() if _went_back(info, ("died",))}
    for host, info in infos.items():
        goal = info["rollback"]
        if _unsure(info):
            failed.append(_refusal(host, _unsure(info)))
        elif _went_back(info, ("died", "ok")) and info["last_run"].get("run") in died:
            live = info["slots"][info["live"]]
            plan[host] = {
                **{"release": live["release"], "env": live["env"], "color": info["live"]},
                **{"take": False, "already": True},
            }
        elif goal.get("refused"):
            failed.append(_refusal(host, goal["refused"]))
        elif _migrated_since(info, goal["release"]) and not force:
            names = ", ".join(_migrated_since(info, goal["release"]))
            failed.append(
                _refusal(
                    host,
                    f"{goal['release']} does not know the migrations {names}, which have run since; undo them, or, if it can "
                    "live with them: -e bluegreen_force=true",
                )
            )
        else:
            plan[host] = {**goal, "already": False}
    return _one_release(plan, failed)


def _went_back(info, results):
    """Whether the last run here was a rollback that switched, and ended in one of these ways.

    A rollback that is run again to finish one that was killed must not go back one release further.
    """
    last = info.get("last_run") or {}
    went = last.get("to") or {}
    return (
        last.get("operation") == "rollback"
        and last.get("result") in results
        and went != last.get("from")
        and went.get("color") == info["live"]
        and same({"release": None, **went}, info["slots"][info["live"]])
    )


def _migrated_since(info, release):
    """Migrations that the live release knew of and a former one did not; none where either is not known."""
    now, then = info["migrations"].get(_held(info, info["live"])), info["migrations"].get(release)
    return [] if now is None or then is None else [one for one in now if one not in then]


def _refusal(host, reason):
    return {"host": host, "step": "plan", "why": reason}


def _one_release(plan, failed):
    """Refuse to leave a group on different releases."""
    releases = sorted({entry["release"] for entry in plan.values()})
    if len(releases) > 1:
        for host, entry in plan.items():
            failed.append(
                _refusal(
                    host, f"would go to {entry['release']}, others to another release; deploy to all of them first"
                )
            )
    return {"ok": bool(plan) and not failed, "failed": failed, "lost": [], "hosts": plan}


# What a step is called while it fails.
_STEPS = {
    "lock": "locking",
    "trouble": "setting up",
    "setup": "setting up",
    "plan": "",
    "release": "installing",
    "predicted": "deploying",
    "deployed": "deploying",
    "migrated": "migrating",
    "listed": "asking for its migrations",
    "ended": "ending",
    "smoked": "checking",
    "hooked": "hook",
    "told_idle": "bluegreen_on_idle",
    "told_live": "bluegreen_on_live",
    "drained": "draining",
    "shared": "changing who gets which slot",
    "switched": "switching",
    "stopped": "stopping",
}


def failure_lines(operation, failed, after):
    """What a person reads when a run failed."""
    lines = [f"{operation} failed on {len(failed)} host{'s' if len(failed) != 1 else ''}:"]
    for entry in failed:
        step = _STEPS.get(entry["step"], entry["step"])
        lines += _indented(f"{entry['host']}: {step}: " if step else f"{entry['host']}: ", entry["why"])
    return lines + _indented("", after)


_BEHIND = (
    "The traffic is on the new slot and stays there; nothing was undone. Repair what is named, and run what failed again: "
    "rpc.yml with the expression for bluegreen_on_live, your own tasks for a hook, stop.yml for a slot that did not stop."
)
_NOT_ENDED = (
    "What came before that went well on every host, and stays. A lock that was left behind is freed by the next run from this "
    "machine, or by unlock.yml."
)


def ending(story, end, status, apart=None, migrated=()):
    """The last words of a run.

    :param story: C(operation); C(gate), its last verdict, empty if it had none; C(later), the verdict over what comes behind a
        switch; C(lost), hosts that it went on without; C(advice), what follows from a failure.
    :param end: verdict over the freeing of the locks.
    :param status: lines of the table.
    :param migrated: versions of the migrations that have run.
    :param apart: seconds between the first and the last switch, and how exactly that is known, if there were several.
    :returns: {"lines", "failed": in one sentence, and empty if nothing did}.
    """
    operation, gate, later, lost = (story[name] for name in ("operation", "gate", "later", "lost"))
    lines, failed = list(status), []
    if migrated:
        lines.append(_migrated(migrated))
    if apart and gate.get("ok"):
        lines.append(
            f"{apart[0] * 1000:.0f} ms between the first and the last switch, as far as clocks tell (+-{apart[1] * 1000:.0f} ms)"
        )
    if lost:
        lines.append(
            f"lost, and not changed: {', '.join(lost)}; when they are back, run the same deploy again, with bluegreen_promote=true"
        )
    for judged, advice in ((gate, story["advice"]), (later, _BEHIND), (end if gate.get("ok") else {}, _NOT_ENDED)):
        if judged.get("failed"):
            lines += failure_lines(operation, judged["failed"], advice)
            failed += [entry["host"] for entry in judged["failed"]]
    if gate.get("ok") and not failed:
        return {"lines": lines, "failed": ""}
    on = f" on {', '.join(dict.fromkeys(failed))}" if failed else ""
    return {"lines": lines, "failed": f"{operation} failed{on}; the reasons are above"}


def _indented(head, text):
    first, *rest = str(text).splitlines() or [""]
    return [f"{head}{first}"] + [f"  {line}" for line in rest]


def deploy_lines(infos, releases):
    """One line for each host on what is about to happen."""
    lines = []
    for host, info in infos.items():
        target, new = info["target"], _new(info, releases.get(host) or "the artifact")
        live, held = info["slots"][info["live"]], info["slots"][target]
        if target != info["live"] and info.get("wanted") and same(new, live):
            lines.append(f"{host}: live {info['live']} {named(live)}: it is live already")
            continue
        lines.append(
            f"{host}: live {info['live']} {named(live)} -> deploying {named(new)} to {target}"
            + _differs(new)
            + (f" (holds {named(held)})" if held["release"] and not same(held, new) else "")
        )
    return lines


# A line names no more variables than these.
_NAMED = 6


def env_words(changes):
    """Names of the variables that differ, in a few words: C(+NEW, -GONE, ~OTHER_VALUE). Empty if none do."""
    found = [
        sign + name
        for sign, what in (("+", "added"), ("-", "removed"), ("~", "changed"))
        for name in (changes or {}).get(what, [])
    ]
    return ", ".join(found[:_NAMED]) + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else "")


def _differs(slot):
    words = env_words(slot.get("env_changes"))
    return f" ({words})" if words else ""


def migrate_lines(results, command):
    """What a migration did, for each host that ran it: what it printed, and how many have run.

    :param results: host to result of slot_command with command=migrate.
    """
    lines = []
    for host, result in results.items():
        lines += [f"  {line}" for line in result["output"]]
        if not result["output"] and result["migrated"] is None and result["changed"]:
            lines.append(f"{host}: would migrate with {result['release']}: {command}")
        elif result["migrated"] is None:
            lines.append(f"{host}: {command} has run; it does not tell which migrations did")
        else:
            lines.append(f"{host}: {_migrated(result['migrated'])}")
    return lines


def _migrated(versions):
    if not versions:
        return "no migration was pending"
    return f"{len(versions)} migration{'s' if len(versions) > 1 else ''} ran: {', '.join(versions)}"


def switch_lines(infos, plan):
    lines = []
    for host, entry in plan["hosts"].items():
        info = infos[host]
        if entry["already"]:
            lines.append(f"{host}: {entry['color']} {named(entry)} is live already{_instead(info)}")
        else:
            live, to = info["slots"][info["live"]], info["slots"][entry["color"]]
            # What goes into the slot only now is compared where it does.
            differs = _differs(to) if same(to, entry) else ""
            lines.append(f"{host}: live {info['live']} {named(live)} -> {entry['color']} {named(entry)}{differs}")
    return lines


def _instead(info):
    """What a person may have meant who promotes what is live already."""
    held = _held(info, info["idle"])
    if not held or not info["slots"][info["idle"]]["promoted_at"]:
        return ""
    return f"; {info['idle']} {named(info['slots'][info['idle']])} was live before: rollback.yml goes back to it"


def status_lines(infos):
    """The status table: four truths side by side for each host, then what they do not agree on."""
    head = ["HOST", "FACTS", "LINK", "/deployment_id", "PROCESS", "BLUE", "GREEN"]
    rows, about, notes = [], [], []
    for host, info in infos.items():
        reason = why(info)
        if reason:
            rows.append([host, "?", "?", "?", "?", "?", "?"])
            notes += [f"{host}: {text}" for text in remarks(info)]
            continue
        live = info["slots"][info["live"]]
        rows.append(
            [
                host,
                info["facts"]["live"] or "-",
                info["link"] or "-",
                info["deployment_id"] or "-",
                (live["process_release"] or "unknown release") if live["running"] else "-",
            ]
            + [_slot_cell(info, color) for color in COLORS]
        )
        notes += [f"{host}: {text}" for text in remarks(info)]
        differs = env_words(info["slots"][info["idle"]]["env_changes"])
        if differs:
            about.append(f"{host}: the environment of {info['idle']} differs from what is live: {differs}")
    notes += drift(infos)
    widths = [max(len(row[index]) for row in [head] + rows) for index in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in [head] + rows]
    return lines + about + (notes if notes else ["all truths agree"])


def remarks(info):
    """What there is to say about one host beside its row in a table."""
    if why(info):
        return ["not asked" if info.get("skipped") else _first(why(info))]
    found = list(info["disagreements"]) + list(info.get("not_installed") or [])
    if info["link"] is None:
        found.append("is not set up; run deploy.yml")
    if info.get("canary"):
        found.append(f"canary: {info['canary']} % of the visitors get {info['idle']}")
    if info.get("maintenance"):
        found.append("closed for maintenance; maintenance.yml -e state=off opens it")
    if info["lock"]:
        found.append(
            f"locked by {info['lock']['holder']} for {info['lock']['operation']} since {info['lock']['since']}"
        )
    return found


def next_lines(infos):
    """The commands that can follow: to make live what waits in the idle slots, and to go back."""
    good = [info for info in infos.values() if not why(info)]
    waiting = [info["slots"][info["idle"]] for info in good if _waits(info)]
    lines = []
    if good and all(_waits(info) and not _not_ready(info["slots"][info["idle"]]) for info in good):
        color = f" -e color={waiting[0]['color']}" if len({slot["color"] for slot in waiting}) == 1 else ""
        lines.append(f"to make {_all_named(waiting)} live: promote.yml{color}")
    goals = [info["rollback"] for info in good if not info["rollback"].get("refused")]
    if goals:
        lines.append(f"to go back to {_all_named(goals)}: rollback.yml")
    return lines


def _all_named(held):
    """What several hosts hold, in a few words. The id of one environment is another on a host with another cookie."""
    names = {named(one) for one in held}
    return " and ".join(names if len(names) == 1 else sorted({one["release"] for one in held}))


def _waits(info):
    """Whether the idle slot holds something that has not been live since it was deployed."""
    idle = info["slots"][info["idle"]]
    return bool(idle["release"] and not idle["promoted_at"] and not idle["rolled_back"])


def _slot_cell(info, color):
    slot = info["slots"][color]
    if not slot["release"]:
        return "empty"
    words = [named(slot), "live" if color == info["live"] else "idle"]
    if slot["rolled_back"] and color != info["live"]:
        words.append("rolled-back")
    return " ".join([*words, health(slot)])


def health(slot):
    """How a slot that holds something is, in a word."""
    return "healthy" if slot["healthy"] else "unhealthy" if slot["running"] else "stopped"


def drift(infos):
    """What a group that serves more than one release is told: a host was lost, or joined."""
    serving = {}
    for host, info in infos.items():
        if not why(info) and _held(info, info["live"]):
            serving.setdefault(_held(info, info["live"]), []).append(host)
    if len(serving) < 2:
        return []
    who = "; ".join(f"{release}: {', '.join(hosts)}" for release, hosts in sorted(serving.items()))
    return [f"the group serves {len(serving)} releases ({who}); deploy.yml -e bluegreen_promote=true makes it one"]


def history_lines(infos):
    """The history of a group: the lines of all hosts in order of time, newest last."""
    entries = [
        (str(entry.get("at")), host, entry) for host, info in infos.items() for entry in info.get("history") or []
    ]
    lines = []
    for at, host, entry in sorted(entries, key=lambda item: item[:2]):
        before, after = entry.get("from") or {}, entry.get("to") or {}
        places = [f"{one.get('color') or '-'} {named(one)}" for one in (before, after)]
        went = f"live {places[0]}" + (f" -> {places[1]}" if places[0] != places[1] else "")
        text = f"{at}  {host}  {entry.get('operation')}  {entry.get('result')}  {entry.get('seconds')} s  {entry.get('who')}  {went}"
        lines.append(text + (f"  ({entry['why']})" if entry.get("why") else ""))
    return lines


def in_doubt(infos):
    """Whether a host of the status cannot be trusted: no answer, or its truths do not agree."""
    return bool(drift(infos)) or any(
        why(info) or info["disagreements"] or info["link"] is None for info in infos.values()
    )
