# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What follows from what is on a server: pure decisions, no effects. Private to this collection.

The C(live) symlink is the one truth that traffic follows. The facts file tells the rest (what was live before, when), is
written after the symlink, and is therefore brought up to date by V(reconcile) before anything is decided from it.
"""

from __future__ import annotations

import json

from ansible_collections.beamops.bluegreen.plugins.module_utils._rules import (
    COLORS,
    Refused,
    check_release,
    other,
    release_version,
)

# How many formerly live releases are remembered; more than bluegreen_keep_releases ever keeps by default.
_REMEMBERED = 10


def empty_facts():
    return {"live": None, "previous": None, "slots": {"blue": None, "green": None}, "was_live": [], "rolled_back": []}


def parse_facts(text):
    """The facts file's text to (facts, problem). A damaged file is a problem to tell, never a reason to stop: all it
    says, except what was live before, can be seen elsewhere."""
    if text is None:
        return empty_facts(), None
    try:
        found = json.loads(text)
        facts = empty_facts()
        if found.get("live") is not None and found["live"] not in COLORS:
            raise ValueError("live is neither blue nor green")
        facts["live"] = found.get("live")
        for color in COLORS:
            slot = (found.get("slots") or {}).get(color)
            if slot:
                check_release(slot["release"])
                facts["slots"][color] = {name: str(slot[name]) for name in slot}
        for entry in found.get("was_live") or ([found["previous"]] if found.get("previous") else []):
            check_release(entry["release"])
            if entry["color"] not in COLORS:
                raise ValueError("a former color is neither blue nor green")
            facts["was_live"].append({"color": entry["color"], "release": entry["release"]})
        facts["rolled_back"] = [check_release(release) for release in found.get("rolled_back") or []]
        return _with_previous(facts), None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return empty_facts(), f"the facts file cannot be read ({error})"


def _entry(release, sha256, at):
    entry = {"version": release_version(release), "release": release, "sha256": sha256 or ""}
    if at:
        entry["deployed_at"] = at
    return entry


def after_deploy(facts, color, release, sha256, at):
    """Facts once a slot holds a (new) release. V(None) as release: the slot holds nothing."""
    facts = json.loads(json.dumps(facts))
    facts["slots"][color] = _entry(release, sha256, at) if release else None
    if release and facts["live"] == color:
        # The very first deploy goes to the live slot and so needs no promote.
        facts["slots"][color]["promoted_at"] = at
    return _with_previous(facts)


def ways_back(facts):
    """Of what was live, newest first, that which a rollback may go to: {"color", "release"}.

    Nothing that was rolled back from, however often it was live before that. What is live is no way back from itself, unless it
    is in the other slot as it was when it was live: under another env.
    """
    live, idle = (facts["slots"].get(color) or {} for color in (facts["live"], other(facts["live"] or COLORS[0])))
    return [
        entry
        for entry in facts["was_live"]
        if entry["release"] not in facts["rolled_back"]
        and (entry["release"] != live.get("release") or _was_live_in(idle, entry["release"]))
    ]


def _was_live_in(slot, release):
    return bool(slot) and slot["release"] == release and bool(slot.get("promoted_at"))


def _with_previous(facts):
    facts["previous"] = next(iter(ways_back(facts)), None)
    return facts


def after_switch(facts, to, kind, at):
    """Facts once the traffic goes to another slot.

    A promote remembers what was live on top of what was live before it. A rollback takes away what it goes to and all that
    was live after that, and marks what it left, so that neither a second rollback nor a promote without a color goes forward
    to it again.
    """
    facts = json.loads(json.dumps(facts))
    left, gone_to = facts["live"], facts["slots"][to]
    left_slot = facts["slots"].get(left) if left else None
    past = facts["was_live"]
    if left_slot:
        # It was live, even if the run that made it so could not write that down.
        left_slot.setdefault("promoted_at", left_slot.get("deployed_at") or at)
    if kind == "rollback":
        # From one env of a release to another of the same: it is not the release that was left.
        if left_slot and (not gone_to or gone_to["release"] != left_slot["release"]):
            facts["rolled_back"] = ([left_slot["release"]] + facts["rolled_back"])[:_REMEMBERED]
        # Not always the top: what was rolled back from before may lie there.
        releases = [entry["release"] for entry in past]
        reached = releases.index(gone_to["release"]) if gone_to and gone_to["release"] in releases else 0
        past = past[reached + 1 :]
    elif left_slot and left != to:
        past = [{"color": left, "release": left_slot["release"]}] + past
    if gone_to:
        gone_to["promoted_at"] = at
        # What is live is not a way back; the same release under another env is.
        past = [entry for entry in past if entry != {"color": to, "release": gone_to["release"]}]
        if kind != "rollback":
            facts["rolled_back"] = [release for release in facts["rolled_back"] if release != gone_to["release"]]
    facts["was_live"] = past[:_REMEMBERED]
    facts["live"] = to
    return _with_previous(facts)


def reconcile(facts, link, held, switch, at):
    """Bring the facts up to what the symlinks say: a run may have died between the rename and the facts.

    :param link: the color that C(live) points to, or V(None).
    :param held: color to {"release", "sha256"} of what each slot holds, or V(None).
    :param switch: the journal of the last switch: {"from", "to", "kind", …}, or V(None).
    """
    facts = json.loads(json.dumps(facts))
    for color in COLORS:
        known, real = facts["slots"][color], held.get(color)
        if (known or {}).get("release") != (real or {}).get("release"):
            facts["slots"][color] = _entry(real["release"], real.get("sha256"), None) if real else None
    if facts["live"] is None:
        facts["live"] = link
    if link is None or facts["live"] == link:
        return _with_previous(facts)
    if switch and switch.get("from") == link and switch.get("to") == facts["live"]:
        # The switch was taken back: the facts before it are true again, save what the slots hold by now.
        before = switch["facts"]["slots"]
        same = {
            color: (before[color] or {}).get("release") == (facts["slots"][color] or {}).get("release")
            for color in COLORS
        }
        slots = {color: before[color] if same[color] else facts["slots"][color] for color in COLORS}
        return {**switch["facts"], "slots": slots}
    cut_short = switch and switch.get("to") == link and switch.get("from") == facts["live"]
    return after_switch(facts, link, switch["kind"] if cut_short else "promote", at)


def target_slot(live, held):
    """Where a deploy goes: the idle slot; the live one while no slot holds anything, so that the site is up at once.

    :param held: color to whether the slot holds something that counts. A first deploy that was cut short before its slot
        was ever healthy does not: see V(counts).
    """
    return live if not any(held.get(color) for color in COLORS) else other(live)


def counts(slot):
    """Whether a slot holds something that has to be left alone: a release that was proven, or that answers now."""
    never_proven = slot["pending"] and not slot["pending"]["former"]
    return bool(slot["release"]) and (not never_proven or slot["healthy"])


def rollback_target(facts, kept):
    """Where a rollback goes: {"release", "color", "take"}; V(take) when the release has to go into the slot again.

    :param kept: ids of the releases that are unpacked on the host.
    """
    color = other(facts["live"])
    candidates = ways_back(facts)
    for entry in candidates:
        release = entry["release"]
        if _was_live_in(facts["slots"][color], release):
            return {"release": release, "color": color, "take": False}
        if release in kept:
            return {"release": release, "color": color, "take": True}
    if candidates:
        raise Refused(
            f"{candidates[0]['release']} was live before, but is no longer kept on this host; deploy it again"
        )
    raise Refused("nothing was live before the present release, so there is nothing to go back to")


def migrate_color(info):
    """Which slot's release migrates: the idle one if it holds something deployed after the live one, else the live one."""
    live, idle = info["slots"][info["live"]], info["slots"][info["idle"]]
    if idle["release"] in info["rolled_back"]:
        return info["live"]
    if idle["release"] and (not live["release"] or (idle["deployed_at"] or "") > (live["deployed_at"] or "")):
        return info["idle"]
    return info["live"]


def disagreements(info):
    """Sentences for whatever the four truths of a host do not agree on: facts, symlink, /deployment_id, process."""
    found = list(info["problems"])
    link, answer, facts = info["link"], info["deployment_id"], info["facts"]
    if link is None:
        return found
    if answer is None:
        found.append(f"nginx does not tell the live color: {info['deployment_id_error']}")
    elif answer != link:
        found.append(f"/deployment_id says {answer}, the live symlink says {link}")
    if facts["live"] != link and (facts["live"] or info["slots"][link]["release"]):
        found.append(f"the facts file says {facts['live'] or 'nothing'} is live, the live symlink says {link}")
    for color in COLORS:
        slot = info["slots"][color]
        known = (facts["slots"][color] or {}).get("release")
        if slot["pending"]:
            found.append(f"{color}: a deploy of {slot['pending']['release']} was cut short ({slot['pending']['at']})")
        elif known != slot["release"]:
            found.append(
                f"{color}: the facts file says {known or 'empty'}, the slot holds {slot['release'] or 'nothing'}"
            )
        if slot["running"] and slot["process_release"] and slot["process_release"] != slot["release"]:
            found.append(f"{color}: the process runs {slot['process_release']}, the slot holds {slot['release']}")
        if color == link and slot["release"] and not slot["running"]:
            found.append(f"{color}: is live and not running")
        elif slot["running"] and not slot["healthy"]:
            found.append(f"{color}: runs but is not healthy ({slot['health']})")
    return found


def prune(newest_first, protected, keep):
    """Which releases to remove: all but V(keep) of those that nothing protects."""
    spare = [release for release in newest_first if release not in protected]
    return spare[keep:]
