# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What follows from what is on a server: pure decisions, no effects. Private to this collection.

The C(live) symlink is the one truth that traffic follows. The facts file tells the rest (what was live before, when), is
written after the symlink, and is therefore brought up to date by V(reconcile) before anything is decided from it.
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Any

from ansible_collections.beamops.bluegreen.plugins.module_utils import _envfile
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Refused
from ansible_collections.beamops.bluegreen.plugins.module_utils._validate import (
    COLORS,
    check_env_id,
    check_release,
    other,
    release_version,
)

if TYPE_CHECKING:
    from ansible_collections.beamops.bluegreen.plugins.plugin_utils._types import (
        Facts,
        FormerlyLive,
        Goal,
        Held,
        Info,
        SlotFacts,
        SwitchJournal,
    )

# How many formerly live releases are remembered; more than bluegreen_keep_releases ever keeps by default.
_REMEMBERED = 10


# Restarts within an hour from which a slot is in doubt.
CRASH_LOOP = 5


def empty_facts() -> Facts:
    return {"live": None, "previous": None, "slots": {"blue": None, "green": None}, "was_live": [], "rolled_back": []}


def same(one: Mapping[str, Any] | None, two: Mapping[str, Any] | None) -> bool:
    """Whether two things are one release under one environment: what a slot holds, what was live, what was rolled back from.

    An empty environment stands for any: facts that an older version of this collection wrote do not name it, and what was rolled back
    from in favour of another release is bad under any.
    """
    if not one or not two or one["release"] != two["release"]:
        return False
    return not one.get("env") or not two.get("env") or one["env"] == two["env"]


def is_marked(facts: Facts, held: Any) -> bool:
    """Whether what a slot holds was rolled back from."""
    return any(same(mark, held) for mark in facts["rolled_back"])


def _parse_pair(found: Any) -> Held:
    return {"release": check_release(found["release"]), "env": check_env_id(found.get("env") or "")}


def parse_facts(text: str | None) -> tuple[Facts, str | None]:
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
                known: Any = {**{name: str(slot[name]) for name in slot}, **_parse_pair(slot)}
                facts["slots"][color] = known
        for entry in found.get("was_live") or ([found["previous"]] if found.get("previous") else []):
            if entry["color"] not in COLORS:
                raise ValueError("a former color is neither blue nor green")
            pair: Any = _parse_pair(entry)
            former: Any = {"color": entry["color"], **pair}
            facts["was_live"].append(former)
        for mark in found.get("rolled_back") or []:
            # Older versions of this collection wrote the release alone.
            facts["rolled_back"].append(_parse_pair(mark if isinstance(mark, dict) else {"release": mark}))
        return _with_previous(facts), None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return empty_facts(), f"the facts file cannot be read ({error})"


def _entry(held: Any, at: str | None) -> SlotFacts:
    entry: Any = {
        "version": release_version(held["release"]),
        "release": held["release"],
        "env": held.get("env") or "",
        "sha256": held.get("sha256") or "",
    }
    if at:
        entry["deployed_at"] = at
    return entry


def _copy(facts: Facts) -> Any:
    return json.loads(json.dumps(facts))


def after_deploy(facts: Facts, color: str, held: Any, at: str | None) -> Facts:
    """Facts once a slot holds something new.

    :param held: {"release", "env", "sha256"}, or V(None) where the slot holds nothing.
    """
    new = _copy(facts)
    new["slots"][color] = _entry(held, at) if held else None
    if held and new["live"] == color:
        # The very first deploy goes to the live slot and so needs no promote.
        new["slots"][color]["promoted_at"] = at
    return _with_previous(new)


def after_consent(facts: Facts, color: str) -> Facts:
    """Facts once somebody has deployed again what was rolled back from, and meant it: it may be promoted like any other."""
    new = _copy(facts)
    slot = new["slots"][color]
    new["rolled_back"] = [mark for mark in new["rolled_back"] if not same(mark, slot)]
    if slot and color != new["live"]:
        # It waits to be promoted, also where the slot held it all the time.
        slot.pop("promoted_at", None)
    return _with_previous(new)


def rollback_candidates(facts: Facts) -> list[FormerlyLive]:
    """Of what was live, newest first, that which a rollback may go to: {"color", "release", "env"}.

    Nothing that was rolled back from, however often it was live before that, and not what is live itself: the same release under
    another environment is something else.
    """
    color = facts["live"] or ""
    live, idle = facts["slots"].get(color) or {}, facts["slots"][other(color or COLORS[0])] or {}
    return [
        entry
        for entry in facts["was_live"]
        if not is_marked(facts, entry) and (not same(entry, live) or _was_live(idle, entry))
    ]


def _was_live(slot: Any, entry: Any) -> bool:
    return bool(slot) and same(slot, entry) and bool(slot.get("promoted_at"))


def _with_previous(facts: Facts) -> Facts:
    facts["previous"] = next(iter(rollback_candidates(facts)), None)
    return facts


def after_switch(facts: Facts, to: str, kind: str, at: str | None) -> Facts:
    """Facts once the traffic goes to another slot.

    A promote remembers what was live on top of what was live before it. A rollback takes away what it goes to and all that
    was live after that, and marks what it left, so that neither a second rollback nor a promote without a color goes forward
    to it again.
    """
    new = _copy(facts)
    left, gone_to = new["live"], new["slots"][to]
    left_slot = new["slots"].get(left) if left else None
    past = new["was_live"]
    if left_slot:
        # It was live, even if the run that made it so could not write that down.
        left_slot.setdefault("promoted_at", left_slot.get("deployed_at") or at)
    if kind == "rollback":
        if left_slot and not (gone_to and same(gone_to, left_slot)):
            # From one environment of a release to another of the same, it is not the release that was bad.
            same_release = gone_to and gone_to["release"] == left_slot["release"]
            mark = {"release": left_slot["release"], "env": left_slot["env"] if same_release else ""}
            others = [one for one in new["rolled_back"] if one != mark]
            new["rolled_back"] = [mark, *others][:_REMEMBERED]
        # Not always the top: what was rolled back from before may lie there.
        reached = next((index for index, entry in enumerate(past) if same(entry, gone_to)), 0)
        past = past[reached + 1 :]
    elif left_slot and left != to:
        past = [{"color": left, "release": left_slot["release"], "env": left_slot["env"]}] + past
    if gone_to:
        gone_to["promoted_at"] = at
        # What is live is not a way back; the same release under another environment is.
        past = [entry for entry in past if entry["color"] != to or not same(entry, gone_to)]
        if kind != "rollback":
            new["rolled_back"] = [mark for mark in new["rolled_back"] if not same(mark, gone_to)]
    new["was_live"] = past[:_REMEMBERED]
    new["live"] = to
    return _with_previous(new)


def reconcile(facts: Facts, link: str | None, held: Any, switch: SwitchJournal | None, at: str | None) -> Facts:
    """Bring the facts up to what the symlinks say: a run may have died between the rename and the facts.

    :param link: the color that C(live) points to, or V(None).
    :param held: color to {"release", "env", "sha256"} of what each slot holds, or V(None).
    :param switch: the journal of the last switch: {"from", "to", "kind", …}, or V(None).
    """
    new = _copy(facts)
    for color in COLORS:
        known, real = new["slots"][color], held.get(color)
        if known and real and same(known, real):
            known["env"] = known["env"] or real.get("env") or ""
        elif known or real:
            new["slots"][color] = _entry(real, None) if real else None
    if new["live"] is None:
        new["live"] = link
    if link is None or new["live"] == link:
        return _with_previous(new)
    if switch and switch.get("from") == link and switch.get("to") == new["live"]:
        # The switch was undone, so the facts from before it are true again, except for what the slots hold by now.
        before = switch["facts"]["slots"]
        slots = {
            color: before[color] if same(before[color], new["slots"][color]) else new["slots"][color]
            for color in COLORS
        }
        return {**switch["facts"], "slots": slots}
    was_interrupted = switch and switch.get("to") == link and switch.get("from") == new["live"]
    return after_switch(new, link, switch["kind"] if switch and was_interrupted else "promote", at)


def target_slot(live: str, held: Any) -> str:
    """Where a deploy goes: the idle slot; the live one while no slot holds anything, so that the site is up at once.

    :param held: color to whether the slot holds something that counts. A first deploy that was cut short before its slot
        was ever healthy does not: see V(is_occupied).
    """
    return live if not any(held.get(color) for color in COLORS) else other(live)


def is_occupied(slot: Any) -> bool:
    """Whether a slot holds something that has to be left alone: a release that was proven, or that answers now."""
    never_proven = slot["pending"] and not slot["pending"]["former"]
    return bool(slot["release"]) and (not never_proven or slot["healthy"])


def after_join(facts: Facts, others: Facts, env_ids: Mapping[str, str]) -> Facts:
    """Facts of a host that holds what another one of its group holds: what was live before, and what was rolled back from, is the group's.

    :param others: facts of the host that it was taken from.
    :param env_ids: id of an environment there to its id here.
    """
    new = _copy(facts)
    for color in COLORS:
        here, there = new["slots"][color], others["slots"][color]
        if here and there and here["release"] == there["release"]:
            # When, by the group and not by this host.
            here.update({name: there[name] for name in ("deployed_at", "promoted_at") if name in there})  # type: ignore[literal-required]
            if "promoted_at" not in there:
                here.pop("promoted_at", None)
    for name in ("was_live", "rolled_back"):
        new[name] = [{**entry, "env": env_ids.get(entry["env"], entry["env"])} for entry in others[name]]  # type: ignore[literal-required]
    return _with_previous(new)


def rollback_target(facts: Facts, kept: list[dict[str, str]]) -> Goal:
    """Where a rollback goes: {"release", "env", "color", "take"}; V(take) when both have to go into the slot again.

    :param kept: what can be put into a slot again, as {"release", "env"}: the release is unpacked, and its environment is there.
    """
    color = other(facts["live"] or "")
    candidates = rollback_candidates(facts)
    for entry in candidates:
        goal: Goal = {"release": entry["release"], "env": entry["env"], "color": color}
        slot: Any = facts["slots"][color]
        if _was_live(slot, entry):
            return {**goal, "env": slot["env"], "take": False}
        envs = [one["env"] for one in kept if one["release"] == entry["release"]]
        if entry["env"] in envs:
            return {**goal, "take": True}
        if envs and not entry["env"]:
            # An older version of this collection did not write down which one; the slot has been taken since, by this one.
            return {**goal, "env": envs[0], "take": True}
    if candidates:
        raise Refused(
            f"{named(candidates[0])} was live before, but is no longer installed on this host. Deploy it again."
        )
    raise Refused("nothing was live before the current release, so there is nothing to roll back to")


def named(held: Any) -> str:
    """What a slot holds, as a person reads it: release, the beginning of the id of its environment, and what it was built from."""
    if not held or not held.get("release"):
        return "nothing"
    env = f" env {held['env'][: _envfile.ID_SHOWN]}" if held.get("env") else ""
    return held["release"] + env + (f" commit {held['commit']}" if held.get("commit") else "")


def migrate_color(info: Info) -> str:
    """Which slot's release migrates: the idle one if it holds something deployed after the live one, else the live one."""
    live, idle = info["slots"][info["live"]], info["slots"][info["idle"]]
    if idle["rolled_back"]:
        return info["live"]
    if idle["release"] and (not live["release"] or (idle["deployed_at"] or "") > (live["deployed_at"] or "")):
        return info["idle"]
    return info["live"]


def disagreements(info: Info) -> list[str]:
    """Sentences for whatever the four truths of a host do not agree on: facts, symlink, /deployment_id, process."""
    found = list(info["problems"])
    link, answer, facts = info["link"], info["deployment_id"], info["facts"]
    if link is None:
        return found
    if answer is None and info["web"]:
        missing = "nginx has no site for this app yet. setup.yml, or the next deploy, installs it."
        found.append(
            missing if info["no_site"] else f"nginx does not tell the live color: {info['deployment_id_error']}"
        )
    elif answer not in (None, link):
        found.append(f"/deployment_id says {answer}, the live symlink says {link}")
    if facts["live"] != link and (facts["live"] or info["slots"][link]["release"]):
        found.append(f"the facts file says {facts['live'] or 'nothing'} is live, the live symlink says {link}")
    for color in COLORS:
        slot = info["slots"][color]
        known = (facts["slots"][color] or {}).get("release")
        if slot["pending"]:
            found.append(f"{color}: a deploy of {slot['pending']['release']} was interrupted ({slot['pending']['at']})")
        elif known != slot["release"]:
            found.append(
                f"{color}: the facts file says {known or 'empty'}, the slot holds {slot['release'] or 'nothing'}"
            )
        elif slot["release"] and not same(facts["slots"][color], slot):
            found.append(
                f"{color}: the facts file says {named(facts['slots'][color])}, the slot holds {named(slot)}; "
                "somebody edited its environment, and the next deploy to it overwrites that"
            )
        if slot["running"] and slot["process_release"] and slot["process_release"] != slot["release"]:
            found.append(f"{color}: the process is running {slot['process_release']}, the slot holds {slot['release']}")
        if slot.get("restarts", 0) >= CRASH_LOOP:
            found.append(f"{color}: ended by itself and was restarted {slot['restarts']} times in the last hour")
        if color == link and slot["release"] and not slot["running"]:
            found.append(f"{color}: live but not running")
        elif slot["running"] and not slot["healthy"]:
            found.append(f"{color}: running but not healthy ({slot['health']})")
    return found


def prune(newest_first: list[str], protected: Container[str | None], keep: int) -> list[str]:
    """Which releases to remove: all but V(keep) of those that nothing protects."""
    spare = [release for release in newest_first if release not in protected]
    return spare[keep:]
