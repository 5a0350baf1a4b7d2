# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person reads: lines before a step, reasons of a failure, the status table. Pure; private to this collection."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from ansible_collections.beamops.bluegreen.plugins.module_utils._slots import named, same
from ansible_collections.beamops.bluegreen.plugins.module_utils._validate import COLORS
from ansible_collections.beamops.bluegreen.plugins.plugin_utils._gate import STEPS, first_line, why
from ansible_collections.beamops.bluegreen.plugins.plugin_utils._plans import (
    held,
    new_release,
    not_ready,
    strangers,
    unseen,
    waits,
)

if TYPE_CHECKING:
    from ansible_collections.beamops.bluegreen.plugins.plugin_utils._types import (
        EnvChanges,
        FailedStep,
        Gate,
        Info,
        Infos,
        Result,
    )

# A line names no more variables than these.
_NAMED = 6

# --- before a step -----------------------------------------------------------------------------------------------------


def deploy_lines(infos: Infos, releases: Mapping[str, str | None]) -> list[str]:
    """One line for each host: what the deploy is about to do."""
    lines = []
    for host, info in infos.items():
        target, new = info["target"], new_release(info, releases.get(host) or "the artifact")
        live, slot = info["slots"][info["live"]], info["slots"][target]
        if target != info["live"] and info.get("wanted") and same(new, live):
            lines.append(f"{host}: live {info['live']} {named(live)}: already live")
            continue
        lines.append(
            f"{host}: live {info['live']} {named(live)} -> deploying {named(new)} to {target}"
            + _differs(new)
            + (f" (holds {named(slot)})" if slot["release"] and not same(slot, new) else "")
        )
    return lines


def switch_lines(infos: Infos, plan: Gate) -> list[str]:
    """One line for each host: which slot its traffic is about to go to."""
    lines = []
    for host, goal in plan["hosts"].items():
        info = infos[host]
        if goal["already"]:
            lines.append(f"{host}: {goal['color']} {named(goal)} is already live{_instead(info)}")
        else:
            live, to = info["slots"][info["live"]], info["slots"][goal["color"] or ""]
            # What goes into the slot only now is compared where it does.
            differs = _differs(to) if same(to, goal) else ""
            lines.append(f"{host}: live {info['live']} {named(live)} -> {goal['color']} {named(goal)}{differs}")
    return lines


def _instead(info: Info) -> str:
    """What a person may have meant who promotes what is already live."""
    if not held(info, info["idle"]) or not info["slots"][info["idle"]]["promoted_at"]:
        return ""
    return f"; {info['idle']} {named(info['slots'][info['idle']])} was live before, and rollback.yml goes back to it"


def env_words(changes: EnvChanges | None) -> str:
    """Names of the variables that differ: C(+NEW, -GONE, ~OTHER_VALUE). Empty if none do."""
    found = [
        sign + name
        for sign, what in (("+", "added"), ("-", "removed"), ("~", "changed"))
        for name in cast("dict", changes or {}).get(what, [])
    ]
    return ", ".join(found[:_NAMED]) + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else "")


def _differs(slot: Mapping) -> str:
    words = env_words(slot.get("env_changes"))
    return f" ({words})" if words else ""


def join_lines(infos: Infos, plan: Gate) -> list[str]:
    """What each host that joins its group is about to get."""
    lines = []
    for host in infos:
        goal = plan["hosts"].get(host) if plan["ok"] else None
        if not goal:
            continue
        if not goal["steps"]:
            lines.append(f"{host}: holds what {goal['source']} holds already")
            continue
        words = [
            f"{step['release']} to {step['color']}" if step["do"] == "deploy" else f"switch to {step['color']}"
            for step in goal["steps"]
        ]
        lines.append(f"{host}: gets from {goal['source']}: {', '.join(words)}")
    return lines


def migration_lines(results: Mapping[str, Result], command: str) -> list[str]:
    """What a migration printed, and how many have run.

    :param results: host to result of slot_command with command=migrate.
    """
    lines = []
    for host, result in results.items():
        lines += [f"  {line}" for line in result["output"]]
        if result.get("backup") is not None:
            lines.append(f"{host}: the backup from before it: {result['backup'] or 'it printed no path'}")
        if not result["output"] and result["migrated"] is None and result["changed"]:
            lines.append(f"{host}: would migrate with {result['release']}: {command}")
        elif result["migrated"] is None:
            lines.append(f"{host}: {command} has run, and does not tell which migrations did")
        else:
            lines.append(f"{host}: {_migrated(result['migrated'])}")
    return lines


def pending_lines(results: Mapping[str, Result]) -> list[str]:
    """Which migrations are pending, or why nobody knows.

    :param results: host to result of slot_command with command=migrations.
    """
    lines = []
    for host, result in results.items():
        names = (result.get("migrations") or {}).get("pending")
        if names:
            lines.append(f"{host}: {len(names)} migration{'s' if len(names) > 1 else ''} pending: {', '.join(names)}")
        if result.get("unknown"):
            lines += _indented(f"{host}: nobody knows which migrations are pending: ", result["unknown"])
    return lines


def _migrated(versions: Sequence[str]) -> str:
    if not versions:
        return "no migration was pending"
    return f"{len(versions)} migration{'s' if len(versions) > 1 else ''} ran: {', '.join(versions)}"


# --- the end of a run --------------------------------------------------------------------------------------------------

_AFTER_SWITCH = (
    "Traffic is on the new slot and was not rolled back. Fix the problem above, then rerun the failed step: rpc.yml with the "
    "expression for bluegreen_on_live, your own tasks for a hook, stop.yml for a slot that did not stop."
)
_WENT_BACK = (
    "The whole group went back, and the release counts as rolled back from. To promote it all the same, name its color; to judge it otherwise, "
    "set bluegreen_watch."
)
_CANARY_ENDED = "The canary has ended on every host. Nothing is marked, so promote.yml would still promote the release."
_STAYS = "Look at the table above. rollback.yml takes the group back, canary.yml -e percent=0 ends a canary."
_CANARY_GOES_ON = "The canary goes on. To end it: canary.yml -e percent=0"
_NOT_FINISHED = "The operation itself succeeded on every host. The next run from this machine, or unlock.yml, removes the leftover lock."


def failure_lines(operation: str, failures: Sequence[FailedStep], hint: str) -> list[str]:
    """What a person reads when a run failed.

    :param hint: what follows from the failure, and what to do.
    """
    hosts = f"{len(failures)} host{'s' if len(failures) != 1 else ''}"
    lines = [f"{operation} failed on {hosts}:"]
    if failures and all(entry["step"] == "watched" for entry in failures):
        ended = "ended" if operation == "canary" else "went back"
        lines = [f"{operation} {ended} by itself, because it is worse on {hosts}:"]
    for entry in failures:
        label = STEPS[entry["step"]].label
        lines += _indented(f"{entry['host']}: {label}: " if label else f"{entry['host']}: ", entry["why"])
    return lines + _indented("", hint)


def reason(operation: str, gate: Gate, after_switch: Gate) -> str:
    """Why a run failed, or which hosts it went on without, in one line for the history; empty if there is nothing to say."""
    failures = gate["failures"] + (after_switch["failures"] if gate["ok"] else [])
    if failures:
        return " ".join(failure_lines(operation, failures, "")).strip()
    return " ".join(["went on without", *gate["lost"]]) if gate["lost"] else ""


def ending(
    operation: str,
    gates: tuple[Gate, Gate, Gate],
    hint: str,
    status: Iterable[str],
    apart: tuple[float, float] | None = None,
    migrated: Sequence[str] = (),
    stays: Mapping[str, str] | None = None,
) -> dict:
    """The last words of a run.

    :param gates: of the run itself, of what comes after a switch, and of the finish.
    :param hint: what follows from a failure of the run itself.
    :param status: lines of the table.
    :param apart: seconds between the first and the last switch, and how exactly that is known, if there were several.
    :param migrated: versions of the migrations that have run.
    :param stays: host to why it did not go back, or did not end its canary, after that was judged worse.
    :returns: {"lines", "failed": in one sentence, and empty if nothing did}.
    """
    gate, after_switch, finished = gates
    lines, failed = list(status), []
    if migrated:
        lines.append(_migrated(migrated))
    if apart and gate["ok"]:
        lines.append(f"all hosts switched within {apart[0] * 1000:.0f} ms (+-{apart[1] * 1000:.0f} ms)")
    if gate["lost"]:
        lines.append(
            f"unreachable and unchanged: {', '.join(gate['lost'])}. "
            "Once reachable again, rerun the deploy with -e bluegreen_promote=true"
        )
    if gate.get("worse"):
        hint = _WENT_BACK if "switched" in gate["begun"] else _CANARY_ENDED
        if stays:
            hint = "\n".join([*(f"{host} stays: {reason}" for host, reason in stays.items()), _STAYS])
    after = _CANARY_GOES_ON if operation == "canary" else _AFTER_SWITCH
    hints = ((gate, hint), (after_switch, after), (finished, _NOT_FINISHED))
    for judged, text in hints if gate["ok"] else hints[:1]:
        if judged["failures"]:
            lines += failure_lines(operation, judged["failures"], text)
            failed += [entry["host"] for entry in judged["failures"]]
    if gate["ok"] and not failed:
        return {"lines": lines, "failed": ""}
    on = f" on {', '.join(dict.fromkeys(failed))}" if failed else ""
    if gate["ok"]:
        return {
            "lines": lines,
            "failed": f"the {operation} itself succeeded, but a step after it failed{on}. See the reasons above.",
        }
    return {"lines": lines, "failed": f"{operation} failed{on}. See the reasons above."}


def _indented(head: str, text: str) -> list[str]:
    first, *rest = str(text).splitlines() or [""]
    return [f"{head}{first}"] + [f"  {line}" for line in rest]


# --- the status --------------------------------------------------------------------------------------------------------


def status_lines(infos: Infos) -> list[str]:
    """The status table: four sources side by side for each host, then what they do not agree on."""
    missing = unseen(infos)
    clustered = any(missing.values())
    head = ["HOST", "FACTS", "LINK", "/deployment_id", "PROCESS", *["CLUSTER"] * clustered, "BLUE", "GREEN"]
    rows, about, notes = [], [], []
    for host, info in infos.items():
        if why(info):
            rows.append([host] + ["?"] * (len(head) - 1))
            notes += [f"{host}: {text}" for text in remarks(info)]
            continue
        live = info["slots"][info["live"]]
        rows.append(
            [
                host,
                info["facts"]["live"] or "-",
                info["link"] or "-",
                info["deployment_id"] or ("-" if info["web"] else "worker"),
                (live["process_release"] or "unknown release") if live["running"] else "-",
            ]
            + [_cluster_cell(info, missing[host])] * clustered
            + [_slot_cell(info, color) for color in COLORS]
        )
        notes += [f"{host}: {text}" for text in remarks(info)]
        about += [f"{host}: {text}" for text in info.get("notes") or []]
        differs = env_words(info["slots"][info["idle"]]["env_changes"])
        if differs:
            about.append(f"{host}: the environment of {info['idle']} differs from the live one: {differs}")
    told = [info for info in infos.values() if not why(info)]
    if told and not any(info["web"] for info in told):
        about.append("every host is a worker (bluegreen_web: false), so nobody serves visitors")
    about += _certificate_lines(infos)
    notes += drift(infos) + cluster_remarks(infos)
    widths = [max(len(row[index]) for row in [head] + rows) for index in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in [head] + rows]
    return lines + about + (notes or ["consistent: facts, symlink, nginx and processes agree"])


def _certificate_lines(infos: Infos) -> list[str]:
    """How long the certificates last: a line for all hosts that have the same."""
    hosts: dict[str, list[str]] = {}
    for host, info in infos.items():
        told = info.get("certificate")
        if told and not told["worry"]:
            words = f"certificate of {told['issuer'] or 'an unknown issuer'}, {told['days_left']} days left"
            hosts.setdefault(words, []).append(host)
    return [f"{', '.join(names)}: {words}" for words, names in hosts.items()]


def _cluster_cell(info: Info, missing: Mapping[str, list[str]]) -> str:
    """How many of the nodes that it should be connected with the live node sees, and where it listens for them."""
    live = info["slots"][info["live"]]
    node = live.get("node")
    if not node:
        return "-"
    if node["sees"] is None:
        return "?"
    absent = len(missing[info["live"]])
    there = len([name for name in node["sees"] if name not in missing[info["live"]]])
    return f"sees {there} of {there + absent}, {' '.join(live['node_listens']) or 'listens nowhere'}"


def cluster_remarks(infos: Infos) -> list[str]:
    """Sentences for nodes that are not connected though they should be: the names of those that a node misses."""
    found = []
    for host, by_color in unseen(infos).items():
        for color, names in by_color.items():
            node = infos[host]["slots"][color]["node"]
            if names and node and node["sees"] is None:
                found.append(f"{host}: {color} does not say which nodes it is connected with")
            elif names:
                found.append(f"{host}: {color} is not connected with {', '.join(names)}")
    if found:
        found.append(
            "Nodes that miss each other: do their hosts reach each other on port 4369 and the ports of bluegreen_cluster?"
        )
    return found + [
        f"{host}: its cookie is not the one of the group, so its nodes meet nobody. Deploy to the whole group."
        for host in strangers(infos)
    ]


def _slot_cell(info: Info, color: str) -> str:
    slot = info["slots"][color]
    if not slot["release"]:
        return "empty"
    words = [named(slot), "live" if color == info["live"] else "idle"]
    if slot["rolled_back"] and color != info["live"]:
        words.append("rolled-back")
    if slot["pending_migrations"]:
        words.append(f"{len(slot['pending_migrations'])} pending")
    return " ".join([*words, health(slot)])


def health(slot: Mapping) -> str:
    """How a slot that holds something is, in a word."""
    return "healthy" if slot["healthy"] else "unhealthy" if slot["running"] else "stopped"


def remarks(info: Info) -> list[str]:
    """What there is to say about one host beside its row in a table."""
    reason = why(info)
    if reason:
        return ["was not asked" if info.get("skipped") else first_line(reason)]
    found = list(info["disagreements"])
    if info["link"] is None:
        found.append("is not set up. Run deploy.yml.")
    if info.get("canary"):
        found.append(f"canary: {info['canary']} % of the visitors get {info['idle']}")
    if info.get("maintenance"):
        found.append("closed for maintenance. To open it: maintenance.yml -e state=off")
    lock = info["lock"]
    if lock:
        found.append(f"locked by {lock['holder']} for {lock['operation']} since {lock['since']}")
    return found


def drift(infos: Infos) -> list[str]:
    """What to say of a group that serves more than one release: a host was lost, or has joined."""
    serving: dict[str, list[str]] = {}
    for host, info in infos.items():
        live = None if why(info) else held(info, info["live"])
        if live:
            serving.setdefault(live, []).append(host)
    if len(serving) < 2:
        return []
    who = "; ".join(f"{release}: {', '.join(hosts)}" for release, hosts in sorted(serving.items()))
    return [
        f"the group serves {len(serving)} releases ({who}). To make it one: deploy.yml -e bluegreen_promote=true, or, for a host that is "
        "behind, join.yml -l HOST"
    ]


def in_doubt(infos: Infos) -> bool:
    """Whether a host cannot be trusted: it gave no answer, its sources do not agree, or its certificate is about to end."""
    return bool(drift(infos) or cluster_remarks(infos)) or any(
        why(info)
        or info["disagreements"]
        or info["link"] is None
        or (info.get("certificate") or {}).get("worry") == "now"
        for info in infos.values()
    )


def next_lines(infos: Infos) -> list[str]:
    """The commands that can follow: to make live what waits in the idle slots, and to go back."""
    good = [info for info in infos.values() if not why(info)]
    waiting = [info["slots"][info["idle"]] for info in good if waits(info)]
    lines = [
        f"to run what is pending ({', '.join(names)}): migrate.yml -e color={color}"
        for color, names in _pending(good).items()
    ]
    if good and all(waits(info) and not not_ready(info["slots"][info["idle"]]) for info in good) and not _pending(good):
        color = f" -e color={waiting[0]['color']}" if len({slot["color"] for slot in waiting}) == 1 else ""
        lines.append(f"to make {_all_named(waiting)} live: promote.yml{color}")
    goals = [info["rollback"] for info in good if not info["rollback"].get("refused")]
    if goals:
        lines.append(f"to go back to {_all_named(goals)}: rollback.yml")
    return lines


def _pending(infos: Sequence[Info]) -> dict[str, list[str]]:
    """Color to the migrations that are pending in a slot of this color on some host."""
    found: dict[str, list[str]] = {}
    for info in infos:
        for color in COLORS:
            names = found.setdefault(color, [])
            names += [name for name in info["slots"][color]["pending_migrations"] if name not in names]
    return {color: names for color, names in found.items() if names}


def _all_named(slots: Sequence[Mapping]) -> str:
    """What several hosts hold, in a few words. The id of one environment is another on a host with another cookie."""
    names = {named(slot) for slot in slots}
    return " and ".join(names if len(names) == 1 else sorted({slot["release"] for slot in slots}))


# Of a reason in the history; the run itself printed all of it.
_WHY_WIDTH = 160


def shortened(text: str) -> str:
    return text if len(text) <= _WHY_WIDTH else text[: _WHY_WIDTH - 1].rstrip() + "…"


def log_lines(results: Mapping[str, Result]) -> list[str]:
    """The logs of a group in order of time, each line with its time (UTC), host and slot.

    :param results: host to result of slot_logs, or to the result that says why there is none.
    """
    good = {host: result for host, result in results.items() if not why(result)}
    entries = [(entry["at"], host, entry) for host, result in good.items() for entry in result["entries"]]
    lines = []
    for at, host, entry in sorted(entries, key=lambda item: item[:2]):
        moment = datetime.datetime.fromtimestamp(at, datetime.timezone.utc).isoformat(timespec="milliseconds")
        lines.append(f"{moment[:-6]}Z  {host}  {entry['color']}  {entry['text']}")
    if good and not lines:
        lines.append("nothing was logged. To look further back: -e since=1d")
    left_out = {host: result["left_out"] for host, result in good.items() if result["left_out"]}
    lines += [
        f"{host}: {count} older lines are left out. To see fewer: -e since=1m, -e grep=TEXT"
        for host, count in left_out.items()
    ]
    return lines + [f"{host}: {first_line(why(result))}" for host, result in results.items() if host not in good]


def env_lines(infos: Infos) -> list[str]:
    """Names of the variables of both slots, and how they compare; hosts on which that is the same stand together."""
    found: dict[tuple[str, ...], list[str]] = {}
    for host, info in infos.items():
        reason = why(info)
        found.setdefault((first_line(reason),) if reason else _env_table(info), []).append(host)
    lines = []
    for table, hosts in found.items():
        lines += [f"{', '.join(hosts)}: {table[0]}", *table[1:]]
    return lines


def _env_table(info: Info) -> tuple[str, ...]:
    names = info["env_names"]
    everything = sorted(set(names["blue"]) | set(names["green"]))
    width = max((len(name) for name in everything), default=0)
    heads = [
        f"{color} {'live' if color == info['live'] else 'idle'}" for color in COLORS if info["slots"][color]["release"]
    ]
    rows = []
    for name in everything:
        blue, green = names["blue"].get(name), names["green"].get(name)
        word = "same" if blue == green else "differs" if blue and green else f"only in {'blue' if blue else 'green'}"
        rows.append(f"  {name.ljust(width)}  {word}" if len(heads) > 1 else f"  {name}")
    return (" and ".join(heads) or "no slot holds anything", *rows)


def history_lines(infos: Infos) -> list[str]:
    """The history of a group: the lines of all hosts in order of time, newest last."""
    entries = [
        (str(entry.get("at")), host, entry) for host, info in infos.items() for entry in info.get("history") or []
    ]
    lines = []
    for at, host, entry in sorted(entries, key=lambda item: item[:2]):
        ends: list[dict] = [entry.get("from") or {}, entry.get("to") or {}]
        before, after = (f"{end.get('color') or '-'} {named(end)}" for end in ends)
        change = f"live {before}" + (f" -> {after}" if before != after else "") if any(ends) else ""
        text = f"{at}  {host}  {entry.get('operation')}  {entry.get('result')}  {entry.get('seconds')} s  {entry.get('who')}  {change}"
        text += f"  backup {entry['backup']}" if entry.get("backup") else ""
        lines.append(text + (f"  ({shortened(str(entry['why']))})" if entry.get("why") else ""))
    return lines
