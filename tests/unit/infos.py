# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts, as they tell of themselves, for tests of what a group decides."""

from __future__ import annotations

from ansible_collections.beamops.bluegreen.plugins.module_utils import _slots

A, B, C = "0.1.0-aaaaaaaa", "0.1.1-bbbbbbbb", "0.1.2-cccccccc"


E1, E2 = "1" * 12, "2" * 12


def bad(release, env=""):
    """What was rolled back from: a release, or one of its environments."""
    return {"release": release, "env": env}


def told(*ran, files=None, **more):
    """What a release has told of its migrations: those that had run, and those that it has."""
    return {"ran": list(ran), "files": files, **more}


def info(live="blue", blue=A, green=B, **more):
    def slot(color, release):
        return {
            "color": color,
            "release": release,
            "env": E1 if release else "",
            "env_changes": None,
            "rolled_back": any(mark["release"] == release for mark in more.get("rolled_back", [])),
            "running": bool(release),
            "healthy": bool(release),
            "health": "200",
            "process_release": release,
            "promoted_at": "t" if color == live else None,
            "deployed_at": "t",
            "pending": None,
            "enabled": True,
            "pending_migrations": [],
            "port": {"blue": 4000, "green": 5000}[color],
        }

    found = {
        "ok": True,
        "web": True,
        "live": live,
        "idle": "green" if live == "blue" else "blue",
        "link": live,
        "deployment_id": live,
        "deployment_id_error": None,
        "no_site": False,
        "slots": {"blue": slot("blue", blue), "green": slot("green", green)},
        "problems": [],
        "facts": {
            "live": live,
            "rolled_back": [],
            "slots": {
                "blue": blue and {"release": blue, "env": E1},
                "green": green and {"release": green, "env": E1},
            },
        },
        "live_unknown": False,
        "conflicts": [],
        "rolled_back": [],
        "lock": None,
        "rollback": {"refused": "nothing"},
        "migrations": {},
        "env_digests": {"blue": E1 if blue else "", "green": E1 if green else ""},
        "setup_needed": [],
        "target": "green",
    }
    found.update(more)
    found["disagreements"] = _slots.disagreements(found)
    return found


def was_live(found, color):
    found["slots"][color]["promoted_at"] = "t"
    return found


def without(answer, **more):
    """A host as it tells of itself, with something else in one of its slots."""
    found = info()
    for color, slot in more.items():
        found["slots"][color].update(slot)
    found.update(answer)
    return found
