# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""May the group go on? Every host has proven its step, or the run stops on all of them. Pure; private to this collection.

A host counts as good only if its result is there and says C(ok: true). Whatever else happens to a host (lost, skipped, a
traceback, no result at all) makes the answer no.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ansible_collections.beamops.bluegreen.plugins.plugin_utils._types import FailedStep, Gate, Result


class Step(NamedTuple):
    """One step of a run. Each host registers its result as C(__bluegreen_<name of the step>)."""

    # How a message calls it.
    label: str
    # What has to be undone if the run fails once this step was begun.
    undo: str = ""
    # One host does it for the group.
    first_only: bool = False


STEPS: dict[str, Step] = {
    "lock": Step("locking"),
    "setup_error": Step("setting up"),
    "setup": Step("setting up"),
    "release": Step("installing"),
    # A plan says whose fault it is by itself.
    "plan": Step(""),
    "rehearsed": Step("rehearsing the migration", first_only=True),
    "migrated": Step("migrating", first_only=True),
    "deployed": Step("deploying", undo="slots"),
    "cookie_read": Step("reading the cookie"),
    "cookie_written": Step("writing the cookie"),
    "met": Step("meeting the other nodes"),
    "listed": Step("listing its migrations", first_only=True),
    "hooked": Step("hook"),
    "smoked": Step("smoke check"),
    "on_idle_sent": Step("bluegreen_on_idle", undo="switch"),
    "switched": Step("switching", undo="switch"),
    "watched": Step("watching"),
    "on_live_sent": Step("bluegreen_on_live"),
    "moved": Step("moving the sockets"),
    "drained": Step("draining"),
    "stopped": Step("stopping"),
    "restarted": Step("restarting"),
    "traffic_set": Step("changing the traffic", undo="traffic"),
    "packed": Step("reading what the group serves"),
    "unpacked": Step("taking over the releases"),
    "recorded": Step("recording what was live"),
    "joined": Step("comparing it with the others"),
    "finished": Step("finishing"),
}
# What may go wrong once the traffic has moved: the run reports it and fails, and the traffic stays where it is.
AFTER_SWITCH = ("on_idle_sent?", "on_live_sent?", "hooked?", "watched?", "moved?", "drained?", "stopped?")
FINISH = ("finished?",)


def new(run: str) -> Gate:
    """The gate of a run that has not done anything yet."""
    return {
        "run": run,
        "ok": True,
        "failures": [],
        "lost": [],
        "begun": [],
        "undo": [],
        "hosts": {},
        "kept": False,
        "worse": False,
        "steps": [],
    }


def why(result: Mapping | None) -> str | None:
    """Why a step of a host is not good, in the host's own words; V(None) if it is good."""
    if not result:
        return "did not reach this step"
    if result.get("unreachable"):
        return f"unreachable: {first_line(result.get('msg'))}"
    if result.get("ok") is True:
        return None
    if result.get("skipped"):
        return "was skipped"
    text = str(result.get("msg") or "failed without a message").strip()
    trace = str(result.get("module_stderr") or result.get("exception") or "").strip()
    if trace and "ok" not in result and "MODULE FAILURE" in text.upper():
        return f"{text}: {trace.splitlines()[-1]}"
    return text


def first_line(text: object) -> str:
    return (str(text or "no answer").strip().splitlines() or ["no answer"])[0]


def _bad(step: str, result: Mapping) -> str | None:
    """Why a result that looks good is not."""
    if step == "setup" and result["setup_needed"]:
        return f"set-up is not complete: {', '.join(result['setup_needed'])}"
    if step == "joined" and result["disagreements"]:
        return "; ".join(result["disagreements"])
    if step == "lock" and (result.get("info") or {}).get("conflicts"):
        return "; ".join(result["info"]["conflicts"])
    return None


def judge(results: Mapping[str, Mapping], hosts: list[str], steps: list[str], without_lost: bool = False) -> Gate:
    """Judge a group by itself, whatever was before.

    :param results: host to {step: result}, as registered.
    :param hosts: the hosts that have to be good, in the order of the inventory.
    :param steps: names of STEPS, in order. One that ends in C(?) may have been left out.
    :param without_lost: go on without hosts that cannot be reached, as long as one can.
    :returns: C(ok), C(failures) with the first bad step of each bad host, C(lost).
    """
    failures: list[FailedStep] = []
    lost: list[str] = []
    for host in hosts:
        for step in steps:
            name = step.rstrip("?")
            result: Result = results.get(host, {}).get(name) or {}
            left_out = not result or (result.get("skipped") and not result.get("unreachable"))
            if left_out and (step.endswith("?") or (STEPS[name].first_only and host != hosts[0])):
                continue
            # A step that one host does for all of them may have been done, or not: nobody can go on without knowing.
            if without_lost and result.get("unreachable") and not STEPS[name].first_only:
                lost.append(host)
                break
            reason = why(result) or _bad(name, result)
            if reason:
                failures.append({"host": host, "step": name, "why": reason})
                break
    if lost and len(lost) == len(hosts):
        first = steps[0].rstrip("?")
        failures = [{"host": host, "step": first, "why": why(results[host][first]) or "lost"} for host in lost]
        lost = []
    return {"ok": bool(hosts) and not failures, "failures": failures, "lost": lost}


def check(
    before: Gate, results: Mapping[str, Mapping], hosts: list[str], steps: list[str], without_lost: bool = False
) -> Gate:
    """The gate behind some steps. One that is shut stays shut, and keeps its reasons."""
    if not before["ok"]:
        return before
    return _then(before, judge(results, hosts, steps, without_lost), [step.rstrip("?") for step in steps])


def watched(before: Gate, failures: list[FailedStep]) -> Gate:
    """The gate behind a look at what went live."""
    gate = _then(before, {"ok": not failures, "failures": failures, "lost": []}, ["watched"])
    gate["worse"] = bool(failures)
    return gate


def planned(before: Gate, plan: Gate) -> Gate:
    """The gate behind a plan: open if the plan can be carried out."""
    if not before["ok"]:
        return before
    gate = _then(before, plan, ["plan"])
    # A plan that follows a deploy in the same run is one for the traffic: the slots are not given back any more.
    gate["kept"] = "deployed" in before["begun"]
    gate["hosts"] = plan.get("hosts", {})
    return gate


def _then(before: Gate, now: Gate, steps: list[str]) -> Gate:
    begun = before["begun"] + [step for step in steps if step not in before["begun"]]
    undo = [] if now["ok"] else sorted({STEPS[step].undo for step in begun} - {""})
    gate: Gate = {**before, "ok": now["ok"], "failures": now["failures"], "begun": begun, "undo": undo}
    gate["lost"] = before["lost"] + now["lost"]
    return gate


def summary(operation: str, gate: Gate, after_switch: Gate, deployed: Mapping[str, Result]) -> dict:
    """What the hosts are told at the end of a run, when they free their locks.

    :param after_switch: gate of AFTER_SWITCH.
    :param deployed: host to result of slot_service.
    :returns: C(result), V(ok) or V(failed); C(confirm), host to the color whose deploy was good; C(prune), whether old
        releases may go.
    """
    failed = not gate["ok"] or bool(after_switch["failures"])
    kept = deployed if (gate["ok"] or gate["kept"]) and "deployed" in gate["begun"] else {}
    return {
        "result": "failed" if failed else "ok",
        "confirm": {host: result["color"] for host, result in kept.items() if result.get("ok")},
        "prune": gate["ok"] and operation in ("deploy", "promote", "rollback"),
    }
