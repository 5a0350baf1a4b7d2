#!/usr/bin/python
# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: slot_rehearse
short_description: Migrate a copy of the database, and see whether what is live still works with it
version_added: 1.0.0
description:
  - Copies the database, migrates the copy with a release that no slot holds yet, and starts first the release that is live and then the new one
    against the copy, each on a spare port. Each must answer its health path and the O(smoke) checks.
  - It ends what it has started and removes the copy, also after a failure. Of a module that was killed, the next rehearsal removes the copy. The
    real database is only read.
  - The releases run as the app's user, without distribution, with C(BLUEGREEN_REHEARSAL=true) in their environment and the background work of
    an idle slot.
author:
  - The beamops.bluegreen contributors (@beamops)
extends_documentation_fragment:
  - beamops.bluegreen.app
  - beamops.bluegreen.app.health
attributes:
  check_mode:
    support: partial
    details: Nothing is rehearsed in check mode.
  diff_mode:
    support: none
options:
  color:
    description: The slot that is to hold the release.
    type: str
    choices: [blue, green]
    required: true
  release:
    description: The release that migrates.
    type: str
    required: true
  env:
    description: The user's variables for O(release), packed by the P(beamops.bluegreen.slot_env#filter) filter.
    type: str
    required: true
  expr:
    description: Elixir expression that migrates.
    type: str
    required: true
  copy:
    description:
      - V(auto) copies a database of PostgreSQL with C(pg_dump) and C(psql), or a file of SQLite, as C(DATABASE_URL) or C(DATABASE_PATH) say.
      - Otherwise a command line for C(/bin/sh), which runs as the app's user with its environment, first with the word C(copy) and in the end
        with C(drop). With C(copy) it prints the variables that lead to the copy, one C(NAME=VALUE) per line.
    type: str
    default: auto
  smoke:
    description: Paths that both releases must answer, each with C(path) and optionally C(status) and C(contains).
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: URL path.
        type: str
        required: true
      status:
        description: HTTP status.
        type: int
        default: 200
      contains:
        description: Text that must be in the body.
        type: str
        default: ''
  health_timeout:
    description: Seconds that each release may take to become healthy.
    type: int
    default: 60
  timeout:
    description: Seconds that copying may take, and the migration.
    type: int
    default: 600
  run_id:
    description: Id of the run that must hold the lock. Without it the module does not check the lock.
    type: str
    default: ''
"""

EXAMPLES = r"""
- name: Rehearse the migration
  beamops.bluegreen.slot_rehearse:
    app: my_app
    root: /opt/my_app
    domain: example.com
    ports: {blue: 4000, green: 5000}
    listen: "80"
    service_manager: systemd
    color: green
    release: 1.1.0-89abcdef
    env: "{{ my_env | beamops.bluegreen.slot_env }}"
    expr: MyApp.Release.migrate()
    smoke: [{path: /products}]
"""

RETURN = r"""
ok:
  description: True; absent when the module failed.
  type: bool
  returned: success
rehearsed:
  description: Releases that have answered on the migrated copy. Empty if nothing is live yet, so that nothing can break.
  type: list
  elements: str
  returned: success
seconds:
  description: How long it took.
  type: float
  returned: success
"""

import contextlib
import fcntl
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ansible_collections.beamops.bluegreen.plugins.module_utils import (
    _app,
    _database,
    _envfile,
    _health,
    _http,
    _service,
    _validate,
)
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure
from ansible_collections.beamops.bluegreen.plugins.module_utils._module import run_module

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule
    from ansible_collections.beamops.bluegreen.plugins.module_utils._app import App

LOG_LINES = 20
# Seconds that a worker, which answers nobody, has to live.
SETTLED = 5.0


def spare_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(app: str, env: Mapping[str, str], copy: Mapping[str, str], folder: str) -> dict[str, str]:
    """What everything of a rehearsal is told: the copy, ports that are free, and that it is none of the real."""
    # Ports beside the one that we give, which the slots have.
    names = _envfile.names_by_color(dict(env))
    ports = {name: str(spare_port()) for name in names if env.get(name, "").isdigit()}
    own = {
        "BLUEGREEN_REHEARSAL": "true",
        "ERL_CRASH_DUMP": f"{folder}/erl_crash.dump",
        "HOME": folder,
        # A node of the same name is there already.
        "RELEASE_DISTRIBUTION": "none",
        "RELEASE_NODE": f"{app}_rehearsal@127.0.0.1",
        "RELEASE_TMP": f"{folder}/tmp",
    }
    rest = _envfile.for_eval(dict(env))
    return {**rest, **ports, **copy, **own, "ERL_AFLAGS": ""}


class Rehearsal:
    """One rehearsal on one host."""

    def __init__(self, app: App, params: Mapping[str, Any]) -> None:
        self.app, self.params = app, params
        self.folder = f"{app.root}/rehearsal"
        self.new = _validate.check_release(params["release"])
        self.new_env = app.wanted_env(params["color"], params["env"])
        self.smoke = _validate.check_smoke(params["smoke"])
        self.copied: dict[str, str] = {}

    def redact(self, text: str) -> str:
        live = self.app.live_color()
        for env in (self.new_env, self.app.env(live) if live else {}, self.copied):
            text = _envfile.redact(text, env)
        return text

    def lines(self, text: str) -> list[str]:
        """The end of what a program said, for a person, without secrets."""
        return [f"    {line}" for line in self.redact(text).splitlines() if line.strip()][-LOG_LINES:]

    def run(self, words: list[str], env: Mapping[str, str]) -> tuple[int, str]:
        how = {"cwd": self.folder, "env": _service.clean_environ(dict(env)), **_service.as_app_user(self.app)}
        try:
            return _service.run(words, self.params["timeout"], **how)
        except Failure as error:
            text = "\n".join([f"{error}. What it said so far:", *self.lines(error.extra.get("output", ""))])
            raise Failure(text) from None

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A directory of the app's user, which is gone in the end. Raises: Failure."""
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            # A module goes on when its controller was killed; what it left when it was killed itself is removed.
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Failure(
                    "another rehearsal is still at work on this host. Try again when it has finished."
                ) from None
            try:
                for entry in list(os.scandir(self.folder)):
                    shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)
                account = _app.account_to_give(self.app)
                if account:
                    os.fchown(handle, *account)
                yield
            finally:
                shutil.rmtree(self.folder, ignore_errors=True)
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def copy(self) -> Iterator[dict[str, str]]:
        """The variables that lead to a copy of the database, which is gone in the end. Raises: Failure."""
        base = self.app.state_dir(self.params["color"])
        copy = _database.Copy(
            self.app.name, self.new_env, self.params["copy"], self.folder, base, self.run, self.redact
        )
        try:
            self.copied = copy.make()
            yield self.copied
        except BaseException:
            # What went wrong first is what counts.
            with contextlib.suppress(Failure):
                copy.drop()
            raise
        copy.drop()

    def migrate(self, env: Mapping[str, str]) -> None:
        """Raises: Failure."""
        script = f"{self.app.release_dir(self.new)}/bin/{self.app.name}"
        rc, text = self.run([script, "eval", self.params["expr"]], env)
        if rc:
            raise Failure("\n".join([f"{self.new} cannot migrate a copy of the database:", *self.lines(text)]))

    def try_out(self, release: str, env: Mapping[str, str], words: str) -> None:
        """Start a release and ask it what a deploy and a promote ask. Raises: Failure, with the end of its log."""
        port = spare_port()
        env = {**env, "PORT": str(port), **({"PHX_SERVER": "true"} if self.app.web else {})}
        command = [f"{self.app.release_dir(release)}/bin/{self.app.name}", "start"]
        with _service.running(self.app, command, env, self.folder) as (poll, said):
            wrong = self.ask(poll, port)
            log = said()
        if wrong:
            lines = self.lines(log)
            log = "\n".join(["  the end of its log:", *lines]) if lines else "  it logged nothing"
            raise Failure(f"{release}, {words}, does not work with a migrated copy of the database: {wrong}\n{log}")

    def ask(self, poll: Callable[[], int | None], port: int) -> str:
        """What is wrong with a release that was started, or empty.

        :param poll: function that returns the exit status of its process, or V(None) while it runs.
        """
        began = time.monotonic()
        path, good = self.params["health_path"], 0
        answer: Any = {"error": "no answer yet"}
        while good < 2:
            status = poll()
            if status is not None:
                return f"it exited with status {status}"
            if not self.app.web:
                if time.monotonic() - began > SETTLED:
                    return ""
            else:
                answer = self.get(port, path)
                good = good + 1 if answer.get("status") == self.params["health_status"] else 0
            if not good and time.monotonic() - began > self.params["health_timeout"]:
                said = self.redact(_http.first_lines(answer))
                return f"it was not healthy within {self.params['health_timeout']} s: GET {path}: {_http.describe(answer)}{said}"
            time.sleep(0.1)
        for check in self.smoke:
            answer = self.get(port, check["path"])
            wrong = _health.smoke_problem(check, answer)
            if wrong:
                return f"GET {check['path']}: {wrong}{self.redact(_http.first_lines(answer))}"
        return ""

    def get(self, port: int, path: str) -> Any:
        headers = _http.visitor_headers(self.app)
        return _http.http_get(
            "127.0.0.1",
            port,
            path,
            _validate.request_host(self.app.domain),
            _health.SMOKE_SECONDS,
            headers=headers,
            size=_health.SMOKE_BYTES,
        )

    def rehearse(self) -> list[str]:
        """Releases that have answered. Raises: Failure."""
        live = self.app.live_color()
        held = self.app.slot_content(live) if live else None
        if not live or not held:
            return []
        with self.place(), self.copy() as copy:
            new_env = environment(self.app.name, self.new_env, copy, self.folder)
            self.migrate(new_env)
            # Between the migration and the switch, and after a rollback, visitors get this one.
            live_env = environment(self.app.name, self.app.env(live), copy, self.folder)
            self.try_out(held["release"], live_env, "which is live")
            self.try_out(self.new, new_env, "which is new")
        return [held["release"], self.new]


def work(module: AnsibleModule, app: App) -> dict[str, Any]:
    _validate.check_url_path(module.params["health_path"])
    began = time.monotonic()
    rehearsed = [] if module.check_mode else Rehearsal(app, module.params).rehearse()
    return {"changed": False, "rehearsed": rehearsed, "seconds": round(time.monotonic() - began, 1)}


def main() -> None:
    run_module(
        dict(
            **_app.HEALTH_OPTIONS,
            color=dict(type="str", choices=["blue", "green"], required=True),
            release=dict(type="str", required=True),
            env=dict(type="str", required=True, no_log=True),
            expr=dict(type="str", required=True),
            copy=dict(type="str", default="auto"),
            smoke=dict(
                type="list",
                elements="dict",
                default=[],
                options=dict(
                    path=dict(type="str", required=True),
                    status=dict(type="int", default=200),
                    contains=dict(type="str", default=""),
                ),
            ),
            health_timeout=dict(type="int", default=60),
            timeout=dict(type="int", default=600),
            run_id=dict(type="str", default=""),
        ),
        work,
        # It touches no slot, and a rollback must not wait for it.
        exclusive=False,
    )


if __name__ == "__main__":
    main()
