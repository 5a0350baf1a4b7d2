# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock of a run on a host, and what a run leaves there when it ends. Private to this collection."""

from __future__ import annotations

import calendar
import json
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ansible_collections.beamops.bluegreen.plugins.module_utils import _app, _files, _info, _slots
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure, Refused
from ansible_collections.beamops.bluegreen.plugins.module_utils._validate import COLORS

if TYPE_CHECKING:
    from ansible_collections.beamops.bluegreen.plugins.module_utils._app import App

# About 150 KB; older lines are dropped.
HISTORY_LINES = 500
# Of the options of deploy_lock, how a run ends that has gone well.
_WELL: dict[str, Any] = {
    **{"result": "ok", "reason": "", "backup": "", "confirm": None, "consent": False, "migrations": None},
    "keep_releases": None,
}


def age_of(lock: dict[str, Any]) -> float:
    """Seconds since the lock was taken; negative after the clock went backwards."""
    try:
        return time.time() - calendar.timegm(time.strptime(lock["since"], "%Y-%m-%dT%H:%M:%SZ"))
    except (KeyError, TypeError, ValueError):
        return float("inf")


def describe(lock: dict[str, Any], stale_after: float) -> str:
    age = age_of(lock)
    since = "at an unknown time" if age == float("inf") else f"since {lock['since']}, {max(0, int(age)) // 60} min ago"
    text = f"the lock is held by {lock.get('holder') or 'somebody'} for {lock.get('operation') or 'a run'} {since}"
    return text + (" (stale)" if age >= stale_after else "")


def read(app: App) -> dict[str, Any] | None:
    """The lock that is there, or V(None). An unreadable one is a lock all the same."""
    text = _files.read_text(app.lock)
    if text is None:
        return None
    found = _files.read_json(app.lock)
    return found if isinstance(found, dict) else {"run": "", "holder": "", "operation": "", "since": ""}


def live_now(app: App) -> dict[str, Any]:
    """What is live now: {"color", "release", "env"}, and "commit" where it is known, for the history."""
    try:
        color = app.live_color()
        held = app.slot_content(color) if color else None
    except (Failure, Refused):
        return {"color": None, "release": None, "env": None}
    live = {"color": color, "release": held["release"] if held else None, "env": held["env"] if held else None}
    commit = app.commit(live["release"])
    return {**live, "commit": commit} if commit else live


def append_history(app: App, lock: dict[str, Any], result: str, why: str, backup: str = "") -> None:
    """One line of history for a run that has ended: who did what, from where to where, how long, and how it went."""
    age = age_of(lock)
    entry = {
        "at": lock.get("since"),
        "who": lock.get("holder"),
        "operation": lock.get("operation"),
        "run": lock.get("run"),
        "from": lock.get("before"),
        "to": live_now(app),
        "result": result,
        "why": why[:1000],
        "seconds": max(0, int(age)) if age != float("inf") else None,
        **({"backup": backup} if backup else {}),
    }
    lines = (_files.read_text(app.history) or "").splitlines()[-HISTORY_LINES + 1 :]
    if lines and json.dumps(entry["run"]) in lines[-1]:
        # It was killed after this, and before the lock was removed.
        return
    try:
        _files.write_file(app.history, "\n".join([*lines, json.dumps(entry, sort_keys=True)]) + "\n", 0o644)
    except OSError:
        # A full disk must not keep the lock.
        pass


def end(app: App, params: Mapping[str, Any], found: Any, check: bool) -> dict[str, Any]:
    """End a run: confirm what was deployed, prune, write the history, free the lock. Raises: Failure.

    :param params: options of deploy_lock.
    :param found: the lock that is there.
    """
    wrong, result = None, {"msg": "this run does not hold the lock", "lock": found}
    ours = bool(found) and found["run"] == params["run_id"]
    if ours or check:
        try:
            result["actions"] = confirm_and_prune(app, params, check)
        except (Failure, Refused, OSError) as error:
            # It keeps neither the lock nor the group: the slots run what they should.
            wrong = f"cleanup failed: {error}"
    if ours:
        if not check:
            append_history(
                app, found, "failed" if wrong else params["result"], wrong or params["reason"], params["backup"]
            )
            _files.remove(app.lock)
        result.update(changed=True, msg="freed the lock")
    result["info"] = _info.collect(app, params)
    if wrong:
        raise Failure(wrong, info=result["info"])
    return result


def end_well(app: App, params: Mapping[str, Any], finish: Mapping[str, Any]) -> dict[str, Any]:
    """End a run with its last step, which saves a run on the host. Returns what deploy_lock would have, also where that fails.

    :param params: options of that step.
    :param finish: options of deploy_lock that say how.
    """
    options: dict[str, Any] = _info.INFO_OPTIONS
    defaults = {name: option.get("default") for name, option in options.items()}
    try:
        return {"ok": True, **end(app, {**defaults, **_WELL, **params, **finish}, read(app), False)}
    except Exception as error:  # pylint: disable=broad-exception-caught
        # Whatever it is, that step itself has succeeded.
        return {"msg": str(error), **getattr(error, "extra", {})}


def confirm_and_prune(app: App, params: Mapping[str, Any], check: bool) -> list[str]:
    """The group is good: nobody needs the former content of the slot any more, nor old releases. Returns what is done, in words."""
    actions, color = [], params["confirm"]

    def do(words: str, effect: Callable[..., object], *args: Any) -> None:
        actions.append(words)
        if not check:
            effect(*args)

    if color:
        release = app.slot_release(color) or ""
        if os.path.exists(app.journal(color)):
            do(f"confirm {release} in {color}", _app.drop_journal, app, color)
        facts = app.facts()
        if params["consent"] and _slots.is_marked(facts, facts["slots"][color]):
            facts = _slots.after_consent(facts, color)
            do(f"forget that {release} was rolled back from", app.write_facts, facts)
        elif not check and app.write_facts(facts):
            actions.append("write the facts")
    if params["migrations"]:
        told = dict(params["migrations"])
        release = told.pop("release")
        kept: dict[str, Any] = {**app.migrations().get(release, {})}
        kept.pop("at", None)
        if params["backup"] or "backup" in kept:
            told["backup"] = params["backup"] or kept["backup"]
        if os.path.isdir(app.release_dir(release)) and told != kept:
            words = f"record {len(told['ran'])} migrations of {release}"
            do(words, note_migrations, app, release, {**told, "at": _files.now()})
    if params["keep_releases"] is None:
        return actions
    facts = app.facts()
    protected: set[str | None] = {entry["release"] for entry in _slots.rollback_candidates(facts)[:1]}
    for slot in COLORS:
        protected.add(app.slot_release(slot))
        protected.add(((_files.read_json(app.journal(slot)) or {}).get("former") or {}).get("release"))
    for old in _slots.prune(app.installed_releases(), protected, params["keep_releases"]):
        do(f"remove {old}", remove_release, app, old)
    for one in app.former_envs():
        if not any(_slots.same(one, entry) for entry in facts["was_live"]):
            do(f"remove the previous environment {_slots.named(one)}", _files.remove, app.former_env(**one))
    return actions


def note_migrations(app: App, release: str, told: dict[str, Any]) -> None:
    os.makedirs(f"{app.root}/former", mode=0o700, exist_ok=True)
    _files.write_json(app.migrations_file(release), told)


def remove_release(app: App, release: str) -> None:
    # Renamed first: what is called like a release is one, whole, until it is gone.
    doomed = f"{app.releases}/.removing.{os.getpid()}"
    os.rename(app.release_dir(release), doomed)
    _files.remove_tree(doomed)
    for one in app.former_envs():
        if one["release"] == release:
            _files.remove(app.former_env(**one))
    _files.remove(app.migrations_file(release))
