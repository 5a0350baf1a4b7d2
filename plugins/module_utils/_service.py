# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The process of a slot, under systemd or as the release's own daemon. Private to this collection.

Both managers answer the same five questions: what runs, start, stop, whose port is it, what did it log last.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ansible_collections.beamops.bluegreen.plugins.module_utils import (
    _app,
    _files,
    _proc,
    _validate,
)
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure

if TYPE_CHECKING:
    from ansible_collections.beamops.bluegreen.plugins.module_utils._app import App

# Of a log, so that a host with a chatty app does not send all of its memory.
_MOST_LINES = 20000
_PR_SET_PDEATHSIG = 1
# Commands of bin/<app> that carry a slot's environment and are not the slot's process.
_CLIENT_COMMANDS = ("eval", "pid", "remote", "restart", "rpc", "stop", "version")


def clean_environ(extra: dict[str, str] | None = None) -> dict[str, str]:
    """An environment for bin/<app>: nothing of ours, above all no RELEASE_* of another release."""
    env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
    env.update(extra or {})
    return env


def as_app_user(app: App) -> dict[str, Any]:
    """Arguments for subprocess that make a child run as the app's user; none where we are not root, or it has no user."""
    account = _app.account_to_give(app)
    return {"user": account[0], "group": account[1], "extra_groups": []} if account else {}


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


def _be_expendable() -> None:
    """In the child: whoever kills the module kills it, too (prctl(2), PR_SET_PDEATHSIG), and the kernel ends it before what is live."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as stream:
        stream.write("1000")


@contextlib.contextmanager
def running(
    app: App, argv: list[str], env: dict[str, str], folder: str
) -> Iterator[tuple[Callable[[], int | None], Callable[[], str]]]:
    """Run a program as the app's user for as long as the body does.

    Gives two functions: one returns its exit status, V(None) while it runs, the other what it has said.

    :param folder: where it runs.
    """
    # Without a name: in a directory of the app, its user could put a link there for us to follow.
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            argv,
            cwd=folder,
            env=clean_environ(env),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_be_expendable,
            **as_app_user(app),
        )

        def said() -> str:
            log.seek(0)
            return log.read().decode("utf-8", "replace")

        try:
            yield process.poll, said
        finally:
            # Also what it has started, which may outlive it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


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
        run_as_app(self.app, self.color, words, of_process(self.app.env(self.color)))

    def stop(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        pid = self.pid()
        if pid:
            # Not `bin/<app> stop`: it returns before the process is gone, and unloads modules at 100 % CPU for seconds.
            _proc.send_signal(pid, signal.SIGTERM)
        while self._pids() and time.monotonic() < deadline:
            if not pid:
                for one in self._pids():
                    _proc.send_signal(one, signal.SIGTERM)
            time.sleep(0.1)
        for one in self._pids():
            _proc.send_signal(one, signal.SIGKILL)
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


def of_process(env: dict[str, str]) -> dict[str, str]:
    """The env of a slot for its own process and for nothing beside it, as the unit has it."""
    flags = [env[name] for name in ("BLUEGREEN_VM_FLAGS", "ERL_AFLAGS") if env.get(name)]
    return {**env, "ERL_AFLAGS": " ".join(flags)} if flags else env


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
