# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The process of a slot, under systemd or as the release's own daemon. Private to this collection.

Both managers answer the same five questions: what runs, start, stop, whose port is it, what did it log last.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ansible_collections.beamops.bluegreen.plugins.module_utils import (
    _app,
    _cluster,
    _envfile,
    _files,
    _http,
    _proc,
    _validate,
)
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure

if TYPE_CHECKING:
    from ansible_collections.beamops.bluegreen.plugins.module_utils._app import App
    from ansible_collections.beamops.bluegreen.plugins.module_utils._types import Answer, Sockets

# Of a log, so that a host with a chatty app does not send all of its memory.
_MOST_LINES = 20000
# Commands of bin/<app> that carry a slot's environment and are not the slot's process.
_CLIENT_COMMANDS = ("eval", "pid", "remote", "restart", "rpc", "stop", "version")


def clean_environ(extra: dict[str, str] | None = None) -> dict[str, str]:
    """An environment for bin/<app>: nothing of ours, above all no RELEASE_* of another release."""
    env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
    env.update(extra or {})
    return env


def as_app_user(app: App) -> dict[str, Any]:
    """Arguments for subprocess that make a child run as the app's user; none where we are not root, or it has no user."""
    if os.geteuid() != 0:
        return {}
    try:
        user = pwd.getpwnam(app.user)
    except KeyError:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def run(argv: list[str], timeout: float = 60.0, **kwargs: Any) -> tuple[int, str]:
    """Run a program: (exit status, its stdout and stderr together).

    Raises: Failure, with all that it said as C(output), if it takes longer than V(timeout) seconds. Whatever it started is ended too:
    the VM of a migration that hangs would go on and hold its lock in the database.
    """
    kwargs = {"start_new_session": True, **kwargs}
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kwargs
    ) as process:
        try:
            output, _none = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _none = process.communicate()
            raise Failure(
                f"{os.path.basename(argv[0])} {argv[1]} did not finish within {timeout:g} s",
                output=output.decode("utf-8", "replace"),
            ) from None
    return process.returncode, output.decode("utf-8", "replace")


def run_as_app(app: App, color: str, argv: list[str], env: dict[str, str], timeout: float = 60.0) -> tuple[int, str]:
    """V(run) as the app's user, in the directory that a slot may write to, with an environment and nothing of ours beside it."""
    return run(argv, timeout, cwd=app.state_dir(color), env=clean_environ(env), **as_app_user(app))


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


class ServiceManager:
    """What runs the process of one slot."""

    def __init__(self, app: App, color: str) -> None:
        self.app, self.color = app, color

    def is_enabled(self) -> bool:
        """Whether the slot starts at boot; V(True) where nothing could start it."""
        raise NotImplementedError

    def enable(self) -> None:
        """Let the slot start at boot."""

    def is_stopped(self) -> bool:
        """Whether nothing of the slot is running, and nothing would start it."""
        raise NotImplementedError

    def pid(self) -> int | None:
        """Process id of the VM, or V(None) if it is not running."""
        raise NotImplementedError

    def state(self) -> str:
        """How it is, in words, for an error."""
        raise NotImplementedError

    def watch(self) -> None:
        """Remember how it is now, for V(poll)."""
        raise NotImplementedError

    def poll(self) -> tuple[int | None, bool]:
        """(process id, whether it has died since V(watch))."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it, now and at every boot; does not wait until it answers. Raises: Failure."""
        raise NotImplementedError

    def stop(self, timeout: float) -> None:
        """Stop it: SIGTERM, and SIGKILL after V(timeout) seconds. Returns when the process is gone. Raises: Failure."""
        raise NotImplementedError

    def log_tail(self, lines: int) -> list[str]:
        """The last lines of its log."""
        raise NotImplementedError

    def log_command(self) -> str:
        """The command that shows its log, for a person."""
        raise NotImplementedError

    def log_since(self, seconds: int) -> list[tuple[float, str]]:
        """What the slot logged in the last seconds, oldest first: (seconds since the epoch, line)."""
        raise NotImplementedError

    def follow_command(self) -> str:
        """What a person types on the host to follow the log."""
        raise NotImplementedError

    def restarts_in_last_hour(self) -> int:
        """How often it has ended by itself and was brought back."""
        return 0


class Systemd(ServiceManager):
    """<app>@<color>.service."""

    def __init__(self, app: App, color: str) -> None:
        super().__init__(app, color)
        self.unit = f"{app.name}@{color}.service"
        self.restarts = 0
        self._shown: dict[str, str] = {}

    def _show(self) -> dict[str, str]:
        _rc, text = run(
            [
                "systemctl",
                "show",
                self.unit,
                "--property",
                "ActiveState,SubState,Result,ExecMainStatus,MainPID,NRestarts,InvocationID,LoadState,NeedDaemonReload,"
                "UnitFileState",
            ]
        )
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def is_enabled(self) -> bool:
        """Whether the slot comes back after a reboot, and systemd says so."""
        return self._enabled_on_disk() and self._show().get("UnitFileState") == "enabled"

    def _enabled_on_disk(self) -> bool:
        return run(["systemctl", "is-enabled", "--quiet", self.unit])[0] == 0

    def enable(self) -> None:
        rc, text = run(["systemctl", "enable", "--quiet", "--no-reload", self.unit])
        if rc != 0:
            raise Failure(f"systemctl enable {self.unit}: {text.strip()}")
        self._reload_if_stale("enabled")

    def _reload_if_stale(self, wanted: str) -> None:
        """Have systemd show what its files say. It reads all units again for that, so only if it does not know already."""
        if self._show().get("UnitFileState") != wanted:
            run(["systemctl", "daemon-reload"])

    def is_stopped(self) -> bool:
        """Nothing runs, nothing waits to be restarted, and nothing would start at boot."""
        shown = self._show()
        return (shown.get("ActiveState"), shown.get("UnitFileState")) == (
            "inactive",
            "disabled",
        ) and not self._enabled_on_disk()

    def pid(self) -> int | None:
        """Main process of the slot in a whole number, or V(None)."""
        self._shown = self._show()
        return self._pid(self._shown)

    @staticmethod
    def _pid(shown: dict[str, str]) -> int | None:
        pid = int(shown.get("MainPID") or 0)
        return pid if pid and shown.get("ActiveState") in ("active", "activating", "reloading") else None

    def state(self) -> str:
        shown = self._show()
        text = f"unit {self.unit} is {shown.get('ActiveState', 'unknown')} ({shown.get('SubState', '?')})"
        if shown.get("Result", "success") != "success" or shown.get("ExecMainStatus", "0") != "0":
            text += f", result {shown.get('Result')}, exit status {shown.get('ExecMainStatus')}"
        if shown.get("ExecMainStatus") == "226":
            # systemd.exec(5): EXIT_NAMESPACE.
            text += (
                ". systemd cannot confine the unit: in an unprivileged container set bluegreen_hardening: container; otherwise a path of "
                "bluegreen_writable does not exist"
            )
        return text

    def watch(self) -> None:
        """From now on V(poll) tells of the process that runs now. A start by hand counts restarts from 0 again."""
        self.restarts = int(self._show().get("NRestarts") or 0)

    def poll(self) -> tuple[int | None, bool]:
        """Main process as V(pid), and whether the one that was watched has ended, even if systemd has brought it back since."""
        shown = self._show()
        died = int(shown.get("NRestarts") or 0) > self.restarts or shown.get("ActiveState") in ("failed", "inactive")
        return self._pid(shown), died

    def start(self) -> None:
        shown = self._show()
        if shown.get("LoadState") == "not-found" or shown.get("NeedDaemonReload") == "yes":
            # The run that wrote the unit may have died before it told systemd.
            run(["systemctl", "daemon-reload"])
        if self._show().get("LoadState") == "not-found":
            raise Failure(f"unit {self.app.name}@.service is not installed. Run setup.yml.")
        run(["systemctl", "reset-failed", self.unit])
        # Enabled is "was running": what runs comes back after a reboot, what was stopped stays stopped. First of all,
        # so that there is no moment in which it runs and would not come back.
        self.enable()
        rc, text = run(["systemctl", "start", self.unit], timeout=120)
        if rc != 0:
            raise Failure(f"systemctl start {self.unit}: {text.strip()}")

    def stop(self, timeout: float) -> None:
        run(["systemctl", "disable", "--quiet", "--no-reload", self.unit])
        # systemd itself goes from SIGTERM to SIGKILL (TimeoutStopSec) and returns when the last process is gone.
        rc, text = run(["systemctl", "stop", self.unit], timeout=timeout + 60)
        if rc != 0:
            raise Failure(f"systemctl stop {self.unit}: {text.strip()}")
        run(["systemctl", "reset-failed", self.unit])
        # As a rule it has forgotten a unit that neither runs nor is enabled, and reads its files when it is asked next.
        self._reload_if_stale("disabled")

    def log_tail(self, lines: int) -> list[str]:
        invocation = self._show().get("InvocationID")
        which = [f"_SYSTEMD_INVOCATION_ID={invocation}"] if invocation else ["-u", self.unit]
        _rc, text = run(["journalctl", "--no-pager", "-q", "-o", "cat", "-n", str(lines)] + which)
        if not text.strip():
            _rc, text = run(["journalctl", "--no-pager", "-q", "-o", "cat", "-n", str(lines), "-u", self.unit])
        return text.strip("\n").splitlines()[-lines:]

    def log_command(self) -> str:
        return f"journalctl -u {self.unit}"

    def log_since(self, seconds: int) -> list[tuple[float, str]]:
        words = ["journalctl", "--no-pager", "-q", "-o", "json", "--output-fields=MESSAGE", "-n", str(_MOST_LINES)]
        _rc, text = run([*words, f"--since=-{seconds}s", "-u", self.unit])
        found = []
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                message = entry["MESSAGE"]
                # systemd.journal-fields(7): what is not text comes as numbers.
                message = message if isinstance(message, str) else bytes(message or []).decode("utf-8", "replace")
                found.append((int(entry["__REALTIME_TIMESTAMP"]) / 1e6, message))
            except (ValueError, KeyError, TypeError):
                continue
        return found

    def follow_command(self) -> str:
        return f"journalctl -f -u {self.unit}"

    def restarts_in_last_hour(self) -> int:
        # systemd is slow to answer, and was asked for the process just before.
        if not int((self._shown or self._show()).get("NRestarts") or 0):
            return 0
        words = ["journalctl", "--no-pager", "-q", "-o", "cat", "--since=-1h", "-u", self.unit]
        return run(words)[1].count("Scheduled restart job")


class Daemon(ServiceManager):
    """C(bin/<app> daemon), as the post does it: for hosts without systemd, and for one directory without root."""

    def __init__(self, app: App, color: str) -> None:
        super().__init__(app, color)
        # run_erl and all that the release starts inherit it, and no other slot of any app has the same.
        self.mark = f"{app.state_dir(color)}/tmp"
        self.since = 0.0

    def is_enabled(self) -> bool:
        """There is nothing that would start it at boot, so nothing is missing either."""
        return True

    def is_stopped(self) -> bool:
        return not self._pids()

    def _pids(self) -> list[int]:
        found = []
        for pid in _proc.all_pids():
            env = _proc.environ_of(pid)
            if env.get("RELEASE_TMP") == self.mark and env.get("RELEASE_COMMAND") not in _CLIENT_COMMANDS:
                if _proc.is_running(pid):
                    found.append(pid)
        return found

    def pid(self) -> int | None:
        pids = self._pids()
        for pid in sorted(pids):
            if (_proc.stat_of(pid) or {}).get("command", "").startswith("beam"):
                return pid
        return None

    def state(self) -> str:
        pid = self.pid()
        return f"process {pid} runs" if pid else "no process runs"

    def watch(self) -> None:
        self.since = time.monotonic()

    def poll(self) -> tuple[int | None, bool]:
        # `daemon` forks and execs its way to the VM, which takes some hundred milliseconds.
        pid = self.pid()
        return pid, not pid and time.monotonic() - self.since > 3 and not self._pids()

    def start(self) -> None:
        # `daemon` returns 0 even when the node dies at once, so its status says nothing; the health check does.
        words = [f"{self.app.slot(self.color)}/release/bin/{self.app.name}", "daemon"]
        run_as_app(self.app, self.color, words, _of_process(self.app.env(self.color)))

    def stop(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        pid = self.pid()
        if pid:
            # Not `bin/<app> stop`: it returns before the process is gone, and unloads modules at 100 % CPU for seconds.
            _signal(pid, signal.SIGTERM)
        while self._pids() and time.monotonic() < deadline:
            if not pid:
                for one in self._pids():
                    _signal(one, signal.SIGTERM)
            time.sleep(0.1)
        for one in self._pids():
            _signal(one, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while self._pids():
            if time.monotonic() > deadline:
                raise Failure(f"{self.color}: processes {self._pids()} survive SIGKILL")
            time.sleep(0.1)

    def log_tail(self, lines: int) -> list[str]:
        folder = f"{self.mark}/log"
        try:
            # run_erl numbers its logs round and round; the newest is the one written last.
            newest = max((os.path.join(folder, name) for name in os.listdir(folder)), key=os.path.getmtime)
        except (FileNotFoundError, ValueError):
            return []
        with open(newest, "rb") as stream:
            stream.seek(max(0, os.path.getsize(newest) - 65536))
            text = stream.read().decode("utf-8", "replace")
        return [line for line in text.replace("\r", "").splitlines() if line.strip()][-lines:]

    def log_command(self) -> str:
        return f"tail {self.mark}/log/erlang.log.*"

    def log_since(self, seconds: int) -> list[tuple[float, str]]:
        """All of its lines have the time of the last one: run_erl writes none."""
        try:
            at = max(os.path.getmtime(os.path.join(self.mark, "log", name)) for name in os.listdir(f"{self.mark}/log"))
        except (FileNotFoundError, ValueError):
            return []
        return [(at, line) for line in self.log_tail(_MOST_LINES)] if time.time() - at <= seconds else []

    def follow_command(self) -> str:
        return f"tail -f {self.mark}/log/erlang.log.*"


def _of_process(env: dict[str, str]) -> dict[str, str]:
    """The env of a slot for its own process and for nothing beside it, as the unit has it."""
    flags = [env[name] for name in ("BLUEGREEN_VM_FLAGS", "ERL_AFLAGS") if env.get(name)]
    return {**env, "ERL_AFLAGS": " ".join(flags)} if flags else env


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
    before = _of_process(env)
    own = {"RELEASE_ROOT": root, "RELEASE_NAME": app.name, "RELEASE_VSN": version, "RELEASE_COMMAND": "start"}
    words = ["/bin/sh", "-c", _EVALUATE, "sh", script, *_OURS]
    _rc, text = run_as_app(app, color, words, {**before, **own}, 10)
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
            _signal(pid, signal.SIGTERM)
            unit = f"{app.name}-epmd"
        run(["systemctl", "restart", f"{unit}.service"])
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


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def for_slot(app: App, color: str) -> ServiceManager:
    """The service of a slot under the app's service manager."""
    return (Systemd if app.service_manager == "systemd" else Daemon)(app, color)


# As in the unit, where a slot that starts while it is idle gets it.
_IDLE_SCORE = 500


def spare(app: App, live: str) -> None:
    """Have the kernel end the idle slot first when memory is short."""
    if app.service_manager != "systemd":
        return
    for color, score in ((live, 0), (_validate.other(live), _IDLE_SCORE)):
        pid = for_slot(app, color).pid()
        if pid:
            _proc.prefer_to_kill(pid, score)


def process_release(app: App, pid: int) -> str | None:
    """Id of the release that a process runs, or V(None) when that cannot be seen.

    The VM is started with C(-root <release>), which anybody may read; without an ERTS of its own it is in the environment.
    """
    try:
        words = (_files.read_text(f"/proc/{pid}/cmdline") or "").split("\0")
    except OSError:
        return None
    places = [words[index + 1] for index, word in enumerate(words[:-1]) if word == "-root"]
    places.append(_proc.environ_of(pid).get("RELEASE_ROOT", ""))
    for place in places:
        if place.startswith(os.path.realpath(app.releases) + "/"):
            return os.path.basename(place.rstrip("/"))
    return None


def probe(app: App, color: str, pid: int | None, path: str, timeout: float = 5.0) -> Answer:
    """Ask a slot's port; the answer counts only if the slot's own process gives it: see V(_http.http_get)."""
    answer = http_probe(app, color, path, timeout)
    return require_own_process(app, color, pid, answer, _proc.tcp_sockets()) if "status" in answer else answer


def http_probe(app: App, color: str, path: str, timeout: float) -> Answer:
    """What whoever listens on a slot's port answers."""
    return _http.http_get(
        "127.0.0.1",
        app.ports[color],
        path,
        _validate.request_host(app.domain),
        timeout,
        headers=_http.visitor_headers(app),
    )


def require_own_process(app: App, color: str, pid: int | None, answer: Answer, sockets: Sockets) -> Answer:
    """The answer that was had from a slot's port, or an error if the slot's process is not who listens there."""
    port = app.ports[color]
    if "status" in answer:
        ours = _proc.process_tree(pid) if pid else []
        inodes = set(_proc.listening(port, sockets))
        if not any(inodes & set(_proc.sockets_of(one)) for one in ours):
            holder = _proc.listening_process(port)
            who = f"process {holder[0]} ({holder[1]})" if holder and holder[0] else "a process of somebody else"
            return {"error": f"port {port} is answered by {who}, not by this slot"}
    return answer


class Health(NamedTuple):
    """How a slot is."""

    good: bool
    # What it answered, in a few words.
    words: str
    # More of that, in lines of its own below; secrets may be in it.
    said: str = ""
    # What was asked, if it is not good: C(GET /health on port 4000: ).
    asked: str = ""
    # Where it redirects to.
    location: str = ""


def check_health(
    app: App, color: str, pid: int | None, params: Mapping[str, Any], timeout: float = 5.0, answer: Answer | None = None
) -> Health:
    """Ask a slot whether it is healthy: over HTTP, and its node by rpc where there is an expression, or where it serves nobody.

    :param params: options C(health_path), C(health_status) and C(health_expr).
    :param answer: what V(probe) has given, if it was asked before.
    """
    if not pid:
        return Health(False, "not running")
    words = ""
    if app.web:
        answer = answer or probe(app, color, pid, params["health_path"], timeout)
        words = _http.describe(answer)
        if answer.get("status") != params["health_status"]:
            asked = f"GET {params['health_path']} on port {app.ports[color]}: "
            return Health(False, words, _http.first_lines(answer), asked, answer.get("location") or "")
        if not params["health_expr"]:
            return Health(True, words)
    return ask_node(app, color, pid, params["health_expr"])


# A node of another language that has run for so long has not died of its start.
_SETTLED_SECONDS = 2.0
# `rpc` boots a VM of its own, on a host that may be busy.
_RPC_SECONDS = 15.0
_HEALTH = "bluegreen-health:"


def ask_node(app: App, color: str, pid: int, expr: str) -> Health:
    """Whether the node of a slot gives V(true) for an expression; without one, whether it answers."""
    release = app.slot_release(color) or ""
    if not app.has_library(release, "elixir"):
        age = _proc.age_of(pid)
        return Health(age >= _SETTLED_SECONDS, f"runs for {age:.0f} s")
    env = {**app.env(color), "HOME": app.state_dir(color)}
    # Its applications start while it answers already, and one that fails takes it along.
    asked = f"if match?({{:started, _}}, :init.get_status()), do: (\n{expr or 'true'}\n), else: :booting"
    question = f'IO.puts("\\n{_HEALTH}" <> inspect({asked}))'
    try:
        script = f"{app.release_dir(release)}/bin/{app.name}"
        _rc, text = run_as_app(app, color, [script, "rpc", question], env, _RPC_SECONDS)
    except Failure:
        return Health(False, f"its node did not answer within {_RPC_SECONDS:g} s")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line[len(_HEALTH) :] for line in lines if line.startswith(_HEALTH)]
    if told and told[-1] == "true":
        return Health(True, "its node answers" if not expr else "bluegreen_health_expr is true")
    if told and told[-1] == ":booting":
        return Health(False, "its node is booting")
    if told:
        return Health(False, f"bluegreen_health_expr gives {told[-1][:100]}")
    if any(":nodedown" in line for line in lines) or not lines:
        return Health(False, "its node does not answer")
    return Health(False, "bluegreen_health_expr raises", "".join(f"\n    {line[:200]}" for line in lines[:5]))


def require_ready(app: App, color: str, params: Mapping[str, Any]) -> str:
    """Returns the release of a slot that can take traffic. Raises: Failure.

    :param params: options of V(check_health), and C(run_id); and C(release), if it has to be just that.
    """
    held = app.slot_content(color)
    if not held:
        raise Failure(f"{color} holds no release. Run deploy.yml.")
    release = held["release"]
    if params.get("release") and release != params["release"]:
        raise Failure(f"{color} holds {release}, not {params['release']}")
    journal = _files.read_json(app.journal(color))
    # This run may have put the release there itself, and confirms that in the end.
    if journal and journal["run"] != params["run_id"]:
        raise Failure(
            f"the deploy of {journal['release']} to {color} was interrupted ({journal['at']}). Run deploy.yml again."
        )
    health = check_health(app, color, for_slot(app, color).pid(), params)
    if not health.good:
        said = _envfile.redact(health.said, app.env(color))
        raise Failure(
            f"{color} ({release}) is not healthy: {health.asked}{health.words}. "
            f"Run status.yml to see more, or deploy.yml to restart it.{said}"
        )
    return release


def wait_until_healthy(slot_service: ServiceManager, params: Mapping[str, Any], timeout: float) -> float:
    """Wait for two good answers in a row of the slot's own process. Returns the seconds it took. Raises: Failure.

    Two, because a Phoenix endpoint answers 500 for some milliseconds after its port opens, and one good answer may be
    the last of a process that is about to exit.

    :param params: options of V(check_health).
    """
    app, color = slot_service.app, slot_service.color
    is_https = _http.visitor_headers(app)["X-Forwarded-Proto"] == "https"
    started = time.monotonic()
    slot_service.watch()
    good, redirects, pause, first_pid = 0, 0, 0.05, None
    health = Health(False, "no answer yet")
    while True:
        pid, died = slot_service.poll()
        first_pid = first_pid or pid
        if died or (first_pid and pid != first_pid):
            raise Failure(f"{color} exited during its start; last answer: {health.words}{health.said}")
        if pid:
            health = check_health(app, color, pid, params, max(0.2, min(5.0, timeout)))
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
