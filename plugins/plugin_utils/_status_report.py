# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The status of a group for machines: JSON, and metrics for Prometheus. For a browser see _status_page.py. Private to this collection."""

from __future__ import annotations

import calendar
import json
import time
from typing import TYPE_CHECKING

from ansible_collections.beamops.bluegreen.plugins.module_utils._validate import COLORS
from ansible_collections.beamops.bluegreen.plugins.plugin_utils import _gate, _messages
from ansible_collections.beamops.bluegreen.plugins.plugin_utils._plans import unseen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ansible_collections.beamops.bluegreen.plugins.plugin_utils._types import Info, Infos

# Of a slot, what others may count on; the rest is ours to change.
_SLOT = (
    "release",
    "commit",
    "env",
    "env_changes",
    "running",
    "healthy",
    "restarts",
    "process_release",
    "deployed_at",
    "promoted_at",
    "pending_migrations",
    "port",
)


def report(infos: Infos, app: str, at: str) -> dict:
    """The status as plain data.

    :param infos: host to what it told, or to the result that says why it did not.
    :param app: name of the app.
    :param at: UTC, ISO 8601.
    :returns: {"app", "at", "in_doubt", "remarks", "next", "hosts": {host: {"ok", "remarks", …}}}.
    """
    hosts, missing = {}, unseen(infos)
    for host, info in infos.items():
        hosts[host] = {"ok": not _gate.why(info), "remarks": _messages.remarks(info) + list(info.get("notes") or [])}
        if hosts[host]["ok"]:
            hosts[host].update(_host(info, missing[host]))
    return {
        "app": app,
        "at": at,
        "in_doubt": _messages.in_doubt(infos),
        "remarks": _messages.drift(infos) + _messages.cluster_remarks(infos),
        "next": _messages.next_lines(infos),
        "hosts": hosts,
    }


def _node(info: Info, color: str, missing: Mapping[str, list[str]]) -> dict | None:
    """What a node says of its cluster: {"name", "sees", "missing", "listens"}."""
    slot = info["slots"][color]
    node = slot.get("node")
    if not node:
        return None
    return {"name": node["name"], "sees": node["sees"], "missing": missing[color], "listens": slot["node_listens"]}


def _host(info: Info, missing: Mapping[str, list[str]]) -> dict:
    live, certificate = info["slots"][info["live"]], info.get("certificate")
    slots = {
        color: {
            **{name: info["slots"][color].get(name) for name in _SLOT},
            "rolled_back": info["slots"][color]["rolled_back"] and color != info["live"],
            "node": _node(info, color, missing),
        }
        for color in COLORS
    }
    return {
        "web": info["web"],
        "live": info["live"],
        "truths": {
            "facts": info["facts"]["live"],
            "link": info["link"],
            "deployment_id": info["deployment_id"],
            "process": live["process_release"] if live["running"] else None,
        },
        "agree": not info["disagreements"] and info["link"] is not None,
        "slots": slots,
        "rollback": info["rollback"].get("release"),
        "rollback_env": info["rollback"].get("env"),
        "canary": info.get("canary") or 0,
        "maintenance": bool(info.get("maintenance")),
        "lock": info["lock"],
        "certificate": {name: certificate[name] for name in ("issuer", "names", "not_after", "days_left")}
        if certificate
        else None,
        **{name: info[name] for name in ("history", "figures") if info.get(name)},
    }


def as_json(found: dict) -> str:
    return json.dumps(found, indent=2) + "\n"


# What each metric says, for who reads them in Prometheus.
_METRICS = {
    "bluegreen_up": "Whether the host answered",
    "bluegreen_consistent": "Whether facts, symlink, nginx and processes of the host agree",
    "bluegreen_live": "Whether the slot is live",
    "bluegreen_slot_healthy": "Whether the slot is healthy; none for an empty one",
    "bluegreen_slot_restarts": "How often the slot ended by itself in the last hour",
    "bluegreen_slot_promoted_seconds": "When the slot was made live, in seconds since 1970",
    "bluegreen_slot_pending_migrations": "Migrations of the release in the slot that have not run",
    "bluegreen_release_info": "The release in the slot",
    "bluegreen_canary_percent": "Share of the visitors that gets the idle slot",
    "bluegreen_maintenance": "Whether the site is closed",
    "bluegreen_locked": "Whether a run holds the lock of the host",
    "bluegreen_certificate_not_after_seconds": "When the certificate of the site ends, in seconds since 1970",
}


def as_prometheus(found: dict) -> str:
    """Metrics for the textfile collector of node_exporter (https://prometheus.io/docs/instrumenting/exposition_formats/)."""
    samples: dict[str, list[str]] = {name: [] for name in _METRICS}

    def add(name: str, value: int, **labels: str) -> None:
        pairs = ",".join(f"{label}={json.dumps(text, ensure_ascii=False)}" for label, text in labels.items())
        samples[name].append(f"{name}{{{pairs}}} {int(value)}")

    for host, told in found["hosts"].items():
        of_host = {"app": found["app"], "host": host}
        add("bluegreen_up", told["ok"], **of_host)
        if not told["ok"]:
            continue
        add("bluegreen_consistent", told["agree"], **of_host)
        for color, slot in told["slots"].items():
            of_slot = {**of_host, "color": color}
            add("bluegreen_live", color == told["live"], **of_slot)
            if not slot["release"]:
                continue
            add("bluegreen_release_info", 1, **of_slot, release=slot["release"], commit=slot["commit"] or "")
            add("bluegreen_slot_healthy", bool(slot["healthy"]), **of_slot)
            add("bluegreen_slot_restarts", slot["restarts"], **of_slot)
            add("bluegreen_slot_pending_migrations", len(slot["pending_migrations"]), **of_slot)
            if slot["promoted_at"]:
                add("bluegreen_slot_promoted_seconds", seconds_of(slot["promoted_at"]), **of_slot)
        add("bluegreen_canary_percent", told["canary"], **of_host)
        add("bluegreen_maintenance", told["maintenance"], **of_host)
        add("bluegreen_locked", bool(told["lock"]), **of_host)
        if told["certificate"]:
            add("bluegreen_certificate_not_after_seconds", seconds_of(told["certificate"]["not_after"]), **of_host)
    lines = ["# HELP bluegreen_in_doubt Whether the group is in doubt, as status.yml -e strict=true judges"]
    lines += ["# TYPE bluegreen_in_doubt gauge", f'bluegreen_in_doubt{{app="{found["app"]}"}} {int(found["in_doubt"])}']
    for name, text in _METRICS.items():
        if samples[name]:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge", *samples[name]]
    return "\n".join(lines) + "\n"


def seconds_of(at: str) -> int:
    """Seconds since 1970 of a time such as V(2026-01-02T03:04:05Z)."""
    return calendar.timegm(time.strptime(at, "%Y-%m-%dT%H:%M:%SZ"))
