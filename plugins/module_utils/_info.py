# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host tells of an app on it. Private to this collection.

A run on a host costs more than looking does, so V(deploy_lock) looks too, when a run begins and when it ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pwd
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ansible_collections.beamops.bluegreen.plugins.module_utils import (
    _app,
    _certificate,
    _cluster,
    _envfile,
    _figures,
    _files,
    _health,
    _http,
    _migrations,
    _nginx,
    _proc,
    _service,
    _slots,
)
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure, Refused
from ansible_collections.beamops.bluegreen.plugins.module_utils._validate import (
    COLORS,
    check_url_path,
    other,
    release_version,
)

if TYPE_CHECKING:
    from ansible_collections.beamops.bluegreen.plugins.module_utils._app import App
    from ansible_collections.beamops.bluegreen.plugins.plugin_utils._types import Facts, Info, Migrations, Slot

# Documented in the fragments app.health and app.look.
INFO_OPTIONS = dict(
    **_app.HEALTH_OPTIONS,
    history=dict(type="int", default=0),
    expected_files=dict(
        type="list",
        elements="dict",
        default=[],
        options=dict(
            path=dict(type="path", required=True),
            content=dict(type="str", no_log=True),
            mode=dict(type="str"),
            once=dict(type="bool", default=False),
        ),
    ),
    preview_token=dict(type="str", default="", no_log=True),
    overwrite_edits=dict(type="bool", default=False),
    with_figures=dict(type="bool", default=False),
    with_files=dict(type="bool", default=False),
    with_env_names=dict(type="bool", default=False),
    env_salt=dict(type="str", default="", no_log=True),
    env=dict(type="str", no_log=True),
)


def site_edit(app: App, params: Mapping[str, Any], nginx_version: str | None) -> _nginx.Edit:
    """What somebody did to the site that set-up wrote."""
    wanted = [file["content"] for file in params["expected_files"] if file["path"] == app.site_file]
    return _nginx.Edit(app, _nginx.fitted(app, wanted[0], nginx_version) if wanted else None)


def setup_needed(app: App, params: Mapping[str, Any], nginx_version: str | None, edit: _nginx.Edit) -> list[str]:
    """Paths of what set-up would write. Without O(expected_files) nobody asked."""
    expected, found = {}, []
    for file in params["expected_files"]:
        path, text = file["path"], file["content"]
        if file["once"] or text is None:
            found += [] if os.path.exists(path) else [path]
            continue
        fitted = _nginx.fitted(app, text, nginx_version) if path in (app.site_file, app.site_stamp) else text
        expected[path] = _files.sha256_hex(fitted)
    if app.site_stamp in expected:
        # It holds the hash of the site that nginx was last proven to have loaded.
        expected[app.site_stamp] = _files.sha256_hex(expected[app.site_file])
    if edit.is_kept:
        expected = {path: sha256 for path, sha256 in expected.items() if path not in (app.site_file, app.site_stamp)}
    for path, sha256 in expected.items():
        try:
            with open(path, "rb") as stream:
                fine = hashlib.sha256(stream.read()).hexdigest() == sha256
        except OSError:
            fine = False
        if not fine:
            found.append(path)
    if expected and app.web and not _app.has_token(app, params["preview_token"]):
        found.append(app.preview)
    return found


def host_content(app: App) -> dict[str, Any]:
    """What need not be sent to this host: {"artifacts": SHA-256 to release, "files": a word of V(_files.fingerprint)}."""
    artifacts, files = {}, set[str]()
    for release in app.installed_releases():
        artifacts[app.about(release).get("sha256")] = release
        files.update(app.release_files(release).values())
    return {"artifacts": artifacts, "files": _files.fingerprint(files)}


def pending(journal: Any) -> dict[str, Any] | None:
    """What the journal of a deploy that is not confirmed says, without the facts in it."""
    if not journal:
        return None
    return {**{name: journal[name] for name in ("release", "at", "run")}, "former": journal["former"]["release"]}


def name_conflicts(app: App) -> list[str]:
    """Sentences for what already has the app's name on this host and is not ours: set-up would overwrite it."""
    found = []
    try:
        home = pwd.getpwnam(app.user).pw_dir
        if app.service_manager == "systemd" and home != app.root and not app.named_user:
            found.append(
                f"this host already has a user {app.user}, whose home is {home}, not {app.root}. To run the app as that user: "
                f"bluegreen_user: {app.user}. Otherwise name another user there, or rename the app."
            )
    except KeyError:
        pass
    if os.path.exists(f"{app.slot('blue')}/is-blue"):
        # Set up by us. 0.1.0 did not mark its files.
        return found
    units = [
        f"{place}/{app.name}@.service"
        for place in ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
    ]
    for path in [*units, f"{app.nginx_conf_dir}/conf.d/{app.name}.conf"]:
        text = _files.read_text(path)
        if text is not None and _app.MARK not in text:
            found.append(
                f"{path} already exists and does not belong to beamops.bluegreen. Move it away, or rename the app."
            )
    return found


def not_installed(app: App) -> list[str]:
    """Sentences for what is wanted of the site and is not there yet. It is asked where it is, not where it will be."""
    if not app.web:
        return []
    wanted, there = app.wanted_site(), app.site()
    words = {"listen": "bluegreen_listen", "tls_listen": "bluegreen_tls", "domain": "bluegreen_domain"}
    return [
        f"{words[name]} ({wanted[name] or 'none'}) is not installed yet: the site has {there[name] or 'none'}. setup.yml, or the "
        "next deploy, installs it."
        for name in words
        if wanted[name] != there[name]
    ]


def certificate(app: App) -> dict[str, Any] | None:
    """The certificate of the site that is installed: {"path", "key", "names", "issuer", "not_after", "days_left", "worry"}, or V(None)."""
    path, key = _certificate.of_site(_files.read_text(app.site_file) or "")
    found = _certificate.read(path)
    if not found:
        return None
    now = time.time()
    return {
        **{
            "path": path,
            "key": key,
            "names": found["names"],
            "issuer": found["issuer"],
        },
        "not_after": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(found["not_after"])),
        "days_left": int((found["not_after"] - now) // 86400),
        "worry": _certificate.worry(found, now),
    }


def alone(app: App) -> str | None:
    """A sentence if a balancer is told to leave this host out."""
    words = _files.read_text(app.alone)
    if words is None:
        return None
    return f"{words.strip()}, so its health path answers 503 (bluegreen_quorum). To make the group one: promote.yml, or join.yml -l HOST"


def no_http3(app: App, nginx_version: str | None) -> list[str]:
    """A sentence if HTTP/3 is wanted of the site and this nginx cannot do it."""
    if not _nginx.wants_http3(_files.read_text(app.site_file) or ""):
        return []
    return [
        f"bluegreen_tls.http3: nginx {nginx_version} has no HTTP/3, so the site goes without. That of Debian 13, or of nginx.org, has it."
    ]


def certificate_notes(app: App, told: Mapping[str, Any] | None) -> list[str]:
    """Sentences for what is wrong, or soon will be, with the certificate.

    :param told: as V(certificate).
    """
    found = []
    problem = (_files.read_text(f"{app.root}/tls/problem") or "").strip()
    if problem and app.tls_listen:
        # Set-up has nothing to do where a certificate is there, though it is old.
        again = f"systemctl start {app.name}-certificate, on the host" if told else "setup.yml"
        found.append(f"no new certificate: {problem}. To try again: {again}; the timer does so twice a day")
    if not told:
        return found
    if told["worry"]:
        when = f"ends in {told['days_left']} days" if told["days_left"] >= 0 else "has expired"
        found.append(f"the certificate {told['path']} {when} ({told['not_after']}). Renew it.")
    domain = app.site()["domain"]
    if not _certificate.covers(told["names"], domain):
        found.append(f"the certificate {told['path']} is for {', '.join(told['names']) or 'no name'}, not for {domain}")
    with contextlib.suppress(OSError):
        if os.stat(told["key"]).st_mode & 0o004:
            found.append(f"everybody on this host can read the key {told['key']}. Close it: chmod o-r {told['key']}")
    return found


def site_ports(app: App) -> list[str]:
    """Sentences if somebody other than nginx listens where the site is to listen."""
    found, wanted = [], {"bluegreen_listen": app.listen, "bluegreen_tls.listen": app.tls_listen} if app.web else {}
    for variable, listen in wanted.items():
        holder = _proc.listening_process(int(listen.rpartition(":")[2])) if listen else None
        if holder and holder[0] and holder[1] != "nginx":
            found.append(
                f"port {listen.rpartition(':')[2]} is taken by {_proc.who_listens(holder)}, so nginx cannot listen there. Stop that, or "
                f"choose another {variable}."
            )
    return found


def no_programs(app: App) -> list[str]:
    """A sentence if nothing below the app's directory could be started."""
    place = app.root
    while not os.path.exists(place):
        place = os.path.dirname(place)
    if os.statvfs(place).f_flag & os.ST_NOEXEC:
        return [
            f"the file system of {place} is mounted noexec, so a release there cannot start. Choose another bluegreen_root."
        ]
    return []


def _is_open(places: list[str], but: Iterable[str] = ()) -> bool:
    good = ("127.", "[::1]", "[::ffff:127.", *(f"{address}:" for address in but))
    return any(not place.startswith(good) for place in places)


def open_ports(app: App, seen: dict[str, Any]) -> list[str]:
    """Sentences for what of the app can be reached past nginx, from the network."""
    found = [str(app.ports[color]) for color in COLORS if app.web and _is_open(seen[color]["listens"])]
    mapper = []
    runs = any(seen[color]["pid"] for color in COLORS)
    if runs and _is_open(seen["blue"]["mapper"], _cluster.mapper_addresses()):
        holder = _proc.listening_process(_cluster.EPMD)
        unit = _proc.unit_of(holder[0]) if holder and holder[0] else None
        again = f"systemctl restart {unit or f'{app.name}-epmd'}"
        if not unit and app.service_manager == "daemon":
            again = "stop both slots, epmd -kill, and start them"
        mapper = [
            f"Erlang's port mapper is open to the network (port {_cluster.EPMD}). Deploy to both slots, then restart it, unless another "
            f"program needs it like that: {again}"
        ]
    if not found:
        return mapper
    what = f"port {found[0]} is" if len(found) == 1 else f"ports {' and '.join(found)} are"
    return [
        f"{what} open to the network, past nginx. In runtime.exs: http: [ip: {{127, 0, 0, 1}}, port: port]",
        *mapper,
    ]


def taken_ports(app: App, seen: dict[str, Any], slots: dict[str, Slot]) -> list[str]:
    """Sentences if somebody else listens on a port of a new app, of which no slot holds anything yet."""
    if any(slot["release"] for slot in slots.values()) or not app.web:
        return []
    found = []
    for color in COLORS:
        holder = None if seen[color]["pid"] else _proc.listening_process(app.ports[color])
        if holder:
            found.append(
                f"port {app.ports[color]} is taken by {_proc.who_listens(holder)}. Choose another "
                f"bluegreen_ports.{color} for {app.name}."
            )
    return found


def history(app: App, count: int) -> list[dict[str, Any]]:
    """The last operations on this host, oldest first. A damaged line is left out."""
    found = []
    for line in (_files.read_text(app.history) or "").splitlines()[-count:]:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def last_run(entries: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The last operation that decided what is live; one that failed and left it as it was decided nothing."""
    for entry in reversed(entries):
        decides = entry.get("operation") in ("deploy", "promote", "rollback")
        if decides and (entry.get("result") == "ok" or entry.get("from") != entry.get("to")):
            return entry
    return None


def probe_slots(app: App, path: str) -> dict[str, dict[str, Any]]:
    """Process, answer and number of connections of each slot. The sockets of the host are read once, when both have answered."""
    seen: dict[str, dict[str, Any]] = {}
    for color in COLORS:
        wanted = app.slot_content(color) or app.service_manager == "daemon"
        service = _service.for_slot(app, color)
        pid = service.pid() if wanted else None
        answer = _health.http_probe(app, color, path, 2.0) if pid and app.web else {"error": "not running"}
        restarts = service.restarts_in_last_hour() if pid else 0
        seen[color] = {"pid": pid, "answer": answer, "restarts": restarts, "enabled": service.is_enabled()}
    sockets = _proc.tcp_sockets()
    for color, one in seen.items():
        one["answer"] = _health.require_own_process(app, color, one["pid"], one["answer"], sockets)
        one["connections"] = _proc.connections(app.ports[color], sockets)
        one["mapper"] = _proc.listening_places(_cluster.EPMD, sockets)
        one["node_listens"] = _cluster.places(_cluster.from_env(app.env(color)), color, one["pid"], sockets)
        one["listens"] = _proc.listening_places(app.ports[color], sockets) if one["pid"] else []
    return seen


def read_slot(
    app: App,
    color: str,
    facts: Facts,
    params: Mapping[str, Any],
    seen: dict[str, Any],
    told: Mapping[str, Migrations],
) -> Slot:
    live = facts["live"] if facts["live"] and app.slot_content(facts["live"]) else None
    held = app.slot_content(color)
    release = held["release"] if held else None
    pid = seen["pid"]
    health = _health.check_health(app, color, pid, params, answer=seen["answer"])
    slot_facts = facts["slots"][color] or {}
    if not _slots.same(slot_facts, held):
        slot_facts = {}
    journal = _files.read_json(app.journal(color))
    return {
        "color": color,
        "port": app.ports[color] if app.web else None,
        "connections": seen["connections"],
        "release": release,
        "env": held["env"] if held else "",
        # Names alone; what is live has none to compare with.
        "env_changes": _envfile.changes(app.env(live), app.env(color)) if held and live not in (None, color) else None,
        "rolled_back": _slots.is_marked(facts, held),
        "version": release_version(release) if release else None,
        "sha256": held["sha256"] if held else None,
        "commit": app.commit(release),
        "deployed_at": slot_facts.get("deployed_at"),
        "promoted_at": slot_facts.get("promoted_at"),
        "running": bool(pid),
        "pid": pid,
        "healthy": health.good,
        "health": health.words,
        "process_release": _service.process_release(app, pid) if pid else None,
        "pending": pending(journal),
        "restarts": seen["restarts"],
        "enabled": seen["enabled"],
        "pending_migrations": _migrations.pending(release, told),
        "node": app.node(color, pid),
        "node_listens": seen["node_listens"],
    }


def wanted(app: App, packed: str, info: Info) -> dict[str, Any]:
    """What a deploy would bring along: {"env", "env_changes"}, beside what is live."""
    env = app.wanted_env(info["target"], packed)
    has_live = info["slots"][info["live"]]["release"]
    changes = _envfile.changes(app.env(info["live"]), env) if has_live else None
    return {"env": _envfile.env_id(env), "env_changes": changes}


def collect(app: App, params: Mapping[str, Any]) -> Info:
    """Everything that V(slot_info) returns; reads only. Options as in INFO_OPTIONS."""
    check_url_path(params["health_path"])
    written, problem = app.facts_as_written()
    problems = [problem] if problem else []
    link = None
    try:
        link = app.live_color()
    except Failure as error:
        problems.append(str(error))
    live = link or written["live"] or "blue"
    # What the facts ought to say: a run may have died before it could write them.
    facts = app.facts() if link else written
    seen = probe_slots(app, params["health_path"])
    told = app.migrations()
    slots = {color: read_slot(app, color, facts, params, seen[color], told) for color in COLORS}
    past = history(app, max(50, params["history"]))
    nginx_says, why_not = _http.deployment_id(app)
    nginx_version = _nginx.Nginx(app).version()
    edit = site_edit(app, params, nginx_version)
    visitors_wrong, visitors_note = _http.check_visitors(app)
    told_of_certificate = certificate(app) if app.web else None
    info: Info = {
        "web": app.web,
        "live": live,
        "idle": other(live),
        "target": _slots.target_slot(live, {color: _slots.is_occupied(slots[color]) for color in COLORS}),
        "link": link,
        "deployment_id": nginx_says,
        "deployment_id_error": why_not,
        "previous": facts["previous"],
        "slots": slots,
        "releases": app.installed_releases(),
        "host_content": host_content(app) if params["with_files"] else None,
        "facts": written,
        "problems": problems + ([visitors_wrong] if visitors_wrong else []),
        "live_unknown": bool(link and nginx_says and nginx_says != link) or (link is None and _files.is_link(app.live)),
        "conflicts": (_app.port_conflicts(app, link) + _app.claimed_ports(app) if app.web else [])
        + name_conflicts(app),
        "notes": not_installed(app)
        + open_ports(app, seen)
        + (certificate_notes(app, told_of_certificate) + no_http3(app, nginx_version) if app.web else [])
        + [note for note in (visitors_note, edit.note() if edit.is_kept else None, alone(app)) if note],
        "no_site": app.web and not app.has_site(),
        "rolled_back": facts["rolled_back"],
        "history": past[-params["history"] :] if params["history"] > 0 else [],
        "last_run": last_run(past[-50:]),
        "figures": _figures.day(app.root, time.time()) if params["with_figures"] and app.web else [],
        "migrations": told,
        "canary": app.canary_percent(other(live)) if app.web else 0,
        "maintenance": os.path.exists(app.maintenance),
        "certificate": told_of_certificate,
        "setup_needed": setup_needed(app, params, nginx_version, edit),
        "lock": _files.read_json(app.lock),
        "nginx_version": nginx_version,
        "is_root": os.geteuid() == 0,
        "has_user": _app.account(app) is not None,
        "cookie": _files.sha256_hex(app.own_cookie())[:12] if app.own_cookie() else "",
    }
    info["notes"] += [
        f"{color}: ended by itself and was restarted {slot['restarts']} times in the last hour"
        for color, slot in slots.items()
        if 0 < slot["restarts"] < _slots.CRASH_LOOP
    ]
    if params["with_env_names"]:
        info["env_names"] = {color: _envfile.digests(app.env(color), app.own_cookie()) for color in COLORS}
    if params["env_salt"]:
        info["env_digests"] = {
            color: _envfile.digest_across_hosts(app.env(color), params["env_salt"]) for color in COLORS
        }
    _add_conclusions(info, app, params, facts, seen)
    if edit.by_hand and app.site_file in info["setup_needed"] and not params["overwrite_edits"]:
        info["conflicts"].append(edit.refusal())
    return info


def _add_conclusions(info: Info, app: App, params: Mapping[str, Any], facts: Facts, seen: dict[str, Any]) -> None:
    """What follows from what was read."""
    info["wanted"] = wanted(app, params["env"], info) if params["env"] and _files.read_text(app.cookie) else None
    if params["expected_files"] and not info["conflicts"]:
        # Before anything is set up, because the site would send its visitors to that process.
        info["conflicts"] += taken_ports(app, seen, info["slots"])
        info["conflicts"] += site_ports(app) + no_programs(app)
    if params["expected_files"] and app.cluster:
        pids = [one["pid"] for one in seen.values() if one["pid"]]
        info["conflicts"] += _cluster.address_conflicts(app.cluster)
        info["conflicts"] += _cluster.port_conflicts(app.name, app.cluster, pids, _proc.tcp_sockets())
    info["disagreements"] = _slots.disagreements(info)
    info["migrate_color"] = _slots.migrate_color(info)
    try:
        there = [one for one in app.former_envs() if one["release"] in info["releases"]]
        info["rollback"] = _slots.rollback_target(facts, there)
    except Refused as error:
        info["rollback"] = {"refused": str(error)}
