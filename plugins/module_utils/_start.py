# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The start of a slot, beside its service: its node, the port mapper, and how long it takes. Private to this collection."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ansible_collections.beamops.bluegreen.plugins.module_utils import (
    _app,
    _cluster,
    _files,
    _health,
    _http,
    _proc,
    _service,
    _validate,
)
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure

if TYPE_CHECKING:
    from ansible_collections.beamops.bluegreen.plugins.module_utils._app import App


def distribution_ports() -> list[int]:
    """Ports that Erlang nodes of this host listen on for other nodes, as the port mapper tells (C(NAMES_REQ) of its protocol)."""
    try:
        with socket.create_connection(("127.0.0.1", 4369), 1) as connection:
            connection.sendall(b"\x00\x01n")
            said = b""
            while part := connection.recv(4096):
                said += part
    except OSError:
        return []
    return [int(port) for port in re.findall(rb" at port (\d+)", said)]


def app_listeners(pid: int) -> list[str]:
    """Where the app of a node listens, without the node itself: see V(_proc.listeners)."""
    ours = distribution_ports()
    return [place for place in _proc.listeners(pid) if int(place.rpartition(":")[2]) not in ours]


def where_it_listens(places: list[str], port: int) -> str:
    """What to do about an app whose port refuses connections, as a sentence.

    :param places: see V(app_listeners).
    """
    here = [place for place in places if place.rpartition(":")[2] == str(port)]
    if here:
        return (
            f"It listens on {' and '.join(here)} alone, and nginx asks 127.0.0.1:{port}. In runtime.exs: http: [ip: {{127, 0, 0, 1}}, "
            "port: port]"
        )
    if places:
        return f"It listens on {', '.join(places)} and not on port {port}. Does runtime.exs read PORT?"
    return "It listens on no TCP port. Does its endpoint start (PHX_SERVER, server: true), and has its http a port rather than a socket?"


# What env.sh must leave as it is: it is read after the environment of the slot, and wins over it.
_OURS = ("RELEASE_NODE", "RELEASE_DISTRIBUTION", "RELEASE_COOKIE", "ERL_EPMD_ADDRESS", "ERL_AFLAGS")
_EVALUATE = '. "$1" >/dev/null 2>&1; shift; for name; do eval "printf \'%s\\000\' \\"\\${$name}\\""; done'


def require_own_node(app: App, color: str, release: str, env: dict[str, str]) -> None:
    """Raises Failure if env.sh of a release would make another node of a slot than its environment says.

    It is evaluated as C(bin/<app>) would do it, as the app's user, and nothing else is run.
    """
    version = _validate.release_version(release)
    root = app.release_dir(release)
    script = f"{root}/releases/{version}/env.sh"
    if not os.path.isfile(script):
        return
    before = _service.of_process(env)
    own = {"RELEASE_ROOT": root, "RELEASE_NAME": app.name, "RELEASE_VSN": version, "RELEASE_COMMAND": "start"}
    words = ["/bin/sh", "-c", _EVALUATE, "sh", script, *_OURS]
    _rc, text = _service.run_as_app(app, color, words, {**before, **own}, 10)
    values = text.split("\0")
    if len(values) <= len(_OURS):
        # It ended the shell, as it will end the start, which has the words for it.
        return
    after = dict(zip(_OURS, values))
    wrong = [name for name in _OURS if after[name] != before.get(name, "")]
    # Flags of its own do no harm behind ours.
    if "ERL_AFLAGS" in wrong and before.get("ERL_AFLAGS", "") in after["ERL_AFLAGS"]:
        wrong.remove("ERL_AFLAGS")
    if not wrong:
        return
    lines = (_files.read_text(script) or "").splitlines()
    found = [str(number) for number, line in enumerate(lines, 1) if any(f"{name}=" in line for name in wrong)]
    where = f"line {' and '.join(found)} of " if found else ""
    keep = 'ERL_AFLAGS="$ERL_AFLAGS …"' if wrong == ["ERL_AFLAGS"] else f'{wrong[0]}="${{{wrong[0]}:-…}}"'
    raise Failure(
        f"{where}env.sh in {release} sets {' and '.join(wrong)}, which belong{'s' if len(wrong) == 1 else ''} to the slot. Take it out of "
        f"rel/env.sh.eex, or keep what is there: export {keep}"
    )


def open_port_mapper(app: App, color: str) -> None:
    """Have the port mapper, one for all apps of the host, listen where other hosts ask for the node of a slot. Raises: Failure.

    Restarted, it knows all nodes again within two seconds: they register by themselves (OTP 25).
    """
    cluster = _cluster.from_env(app.env(color))
    if not cluster:
        return
    port = _cluster.EPMD
    good = {f"{address}:{port}" for address in (cluster.address, "0.0.0.0", "[::]")}
    places = _proc.listening_places(port, _proc.tcp_sockets())
    if not places or good & set(places):
        return
    holder = _proc.listening_process(port)
    pid = holder[0] if holder else None
    unit = _proc.unit_of(pid) if pid else None
    # A slot that found none has started one in a cgroup of its own: app@blue.
    name = re.sub(r"@.*", "@", unit or "")
    text = _files.read_text(f"/etc/systemd/system/{name}.service") if name else None
    if pid and unit and text and _app.MARK in text:
        if "@" in unit:
            _proc.send_signal(pid, signal.SIGTERM)
            unit = f"{app.name}-epmd"
        _service.run(["systemctl", "restart", f"{unit}.service"])
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if good & set(_proc.listening_places(port, _proc.tcp_sockets())):
                return
            time.sleep(0.1)
    who = _proc.who_listens(holder) if holder else "a process"
    raise Failure(
        f"Erlang's port mapper ({who}) does not listen on {cluster.address}:{port}, so the other hosts would not find the node. "
        f"Set ERL_EPMD_ADDRESS={cluster.address} in its environment, or stop it: the next deploy starts one that listens there."
    )


def wait_until_healthy(slot_service: _service.ServiceManager, params: Mapping[str, Any], timeout: float) -> float:
    """Wait for two good answers in a row of the slot's own process. Returns the seconds it took. Raises: Failure.

    Two, because a Phoenix endpoint answers 500 for some milliseconds after its port opens, and one good answer may be
    the last of a process that is about to exit.

    :param params: options of V(_health.check_health).
    """
    app, color = slot_service.app, slot_service.color
    is_https = _http.visitor_headers(app)["X-Forwarded-Proto"] == "https"
    started = time.monotonic()
    slot_service.watch()
    good, redirects, pause, first_pid = 0, 0, 0.05, None
    health = _health.Health(False, "no answer yet")
    while True:
        pid, died = slot_service.poll()
        first_pid = first_pid or pid
        if died or (first_pid and pid != first_pid):
            raise Failure(f"{color} exited during its start; last answer: {health.words}{health.said}")
        if pid:
            health = _health.check_health(app, color, pid, params, max(0.2, min(5.0, timeout)))
            good = good + 1 if health.good else 0
            # A redirect is an answer on purpose; waiting longer will not change it.
            redirects = redirects + 1 if health.location and not good else 0
            if good == 2:
                return round(time.monotonic() - started, 1)
            path = params["health_path"]
            if redirects == 5 and health.location.startswith("https://") and not is_https:
                raise Failure(
                    f"{color} redirects {path} to https: {health.words}. Its endpoint probably has force_ssl, so the site needs https: set "
                    "bluegreen_tls, or bluegreen_trusted_proxies if a load balancer ends TLS."
                )
            if redirects == 5:
                raise Failure(
                    f"{color} answers {path} with a redirect: {health.words}, expected {params['health_status']}. Set bluegreen_health_path "
                    "to a path that does not redirect, or bluegreen_health_status to this status."
                )
        # One good answer in time is enough to wait for the second.
        if time.monotonic() - started > timeout and not good:
            elsewhere = (
                f". {where_it_listens(app_listeners(pid), app.ports[color])}"
                if pid and "refused" in health.words
                else ""
            )
            raise Failure(
                f"{color} was not healthy within {timeout} s: {health.asked}{health.words}{elsewhere}{health.said}"
            )
        time.sleep(0.1 if good else pause)
        pause = min(0.5, pause * 1.15)
