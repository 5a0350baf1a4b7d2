#!/usr/bin/python
# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: slot_command
short_description: Run an Elixir expression in a slot
version_added: 0.1.0
description:
  - V(rpc) evaluates it on the running node of the slot, V(eval) in a new system that is not booted. V(migrate) is V(eval) and also
    returns which migrations have run. V(migrations) changes nothing, and returns which have run so far and which are pending.
  - Runs as the app's user with the environment of the slot. Values of that environment do not appear in the output.
author:
  - The beamops.bluegreen contributors (@beamops)
extends_documentation_fragment:
  - beamops.bluegreen.app
attributes:
  check_mode:
    support: partial
    details: Nothing is run in check mode; that it would be run is reported.
  diff_mode:
    support: none
options:
  color:
    description: The slot.
    type: str
    choices: [blue, green]
    required: true
  command:
    description: Where to run the expression.
    type: str
    choices: [rpc, eval, migrate, migrations]
    required: true
  expr:
    description:
      - Elixir expression. With V(migrations) one that prints the versions of those that have run, one per line, or V(auto) to ask Ecto if
        the release has ecto_sql.
    type: str
    required: true
  backup:
    description:
      - With V(migrate), a command line for C(/bin/sh) that runs before it, as the same user and with the same environment. If it fails,
        nothing migrates. It is left out if the release has ecto_sql and no migration is pending.
    type: str
    default: ''
    version_added: 1.0.0
  release:
    description: Evaluate it in this release, which the slot does not hold yet. Needs O(env).
    type: str
  env:
    description: The user's variables for O(release), packed by the P(beamops.bluegreen.slot_env#filter) filter.
    type: str
  run_id:
    description: Id of the run that must hold the lock. Without it the module does not check the lock.
    type: str
    default: ''
    aliases: [run]
  inspect:
    description: Print the value of O(expr), unless the expression prints something by itself (C(IO.)).
    type: bool
    default: false
    version_added: 1.0.0
  timeout:
    description: Seconds that the expression may take, and the backup before it.
    type: int
    default: 3600
"""

EXAMPLES = r"""
- name: Count the processes of the live node
  beamops.bluegreen.slot_command:
    app: my_app
    root: /opt/my_app
    domain: example.com
    ports: {blue: 4000, green: 5000}
    listen: "80"
    service_manager: systemd
    color: green
    command: rpc
    expr: IO.puts(length(Process.list()))
"""

RETURN = r"""
ok:
  description: True; absent when the module failed.
  type: bool
  returned: success
output:
  description: Lines that the expression printed, both outputs together.
  type: list
  elements: str
  returned: always
migrated:
  description:
    - Versions of the migrations that V(migrate) has run; null if that is unknown.
    - They come from the return value of C(migrate/0) in Ecto's documentation, a list of C({:ok, versions, apps}), or from the lines
      that Ecto logs for each (ecto_sql 3.13, C(Ecto.Migrator.run/4), C(with_repo/3)).
  type: list
  elements: str
  returned: with O(command=migrate)
migrations:
  description: Of the migrations, C(ran) and C(files) as the release has told them, and C(pending), the names of those that have not run.
  type: dict
  returned: with O(command=migrations), unless O(expr=auto) and nothing tells
unknown:
  description: Why Ecto could not be asked with O(expr=auto); empty if the release has no ecto_sql.
  type: str
  returned: with O(command=migrations), if C(migrations) is missing
backup:
  description: The last line that O(backup) printed.
  type: str
  returned: if it ran
release:
  description: Release that the expression was run in.
  type: str
  returned: success
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ansible_collections.beamops.bluegreen.plugins.module_utils import _envfile, _migrations, _service, _validate
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure
from ansible_collections.beamops.bluegreen.plugins.module_utils._module import renamed, run_module

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule
    from ansible_collections.beamops.bluegreen.plugins.module_utils._app import App
    from ansible_collections.beamops.bluegreen.plugins.plugin_utils import _types


def environment(app: App, params: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """(release, env) that the expression runs with."""
    color = params["color"]
    if params["release"]:
        return _validate.check_release(params["release"]), app.wanted_env(color, params["env"])
    held = app.slot_content(color)
    if not held:
        raise Failure(f"{color} holds no release. Run deploy.yml.", output=[])
    return held["release"], app.env(color)


_TELLS = "bluegreen-migrated:"
# What `migrate` of the Ecto documentation returns is {:ok, versions, started apps} for each repo.
_MIGRATE = """bluegreen_migrated = (
%s
)
if is_list(bluegreen_migrated) and
     Enum.all?(bluegreen_migrated, &match?({:ok, versions, _} when is_list(versions), &1)) do
  versions = Enum.flat_map(bluegreen_migrated, &elem(&1, 1))
  IO.puts("\\n" <> "%s" <> Enum.join(versions, " "))
end
"""


def migrated(output: Any) -> Any:
    """Versions that have run, and the output without the line that says so; V(None) for them if nothing tells."""
    told = [line for line in output if line.startswith(_TELLS)]
    rest = [line for line in output if line.strip() and not line.startswith(_TELLS)]
    logged = re.findall(r"== Migrated (\d+) in ", "\n".join(rest))
    return (told[-1][len(_TELLS) :].split() if told else logged or None), rest


def expression(app: App, release: str, params: Mapping[str, Any]) -> str:
    """What is run. Only Elixir can be asked what came of it; an app of another language takes its words as they are."""
    if not app.has_library(release, "elixir"):
        return params["expr"]
    if params["command"] == "migrate":
        return _MIGRATE % (params["expr"], _TELLS)
    # What prints something by itself need not have its value printed as well.
    if params["inspect"] and "IO." not in params["expr"]:
        return f"IO.inspect((\n{params['expr']}\n), pretty: true)"
    return params["expr"]


def quoted(output: Any) -> str:
    return "\n".join(f"    {line}" for line in output[-20:]) or "    (nothing)"


class Place:
    """Where a command runs: a release, with an environment, as the app's user."""

    def __init__(self, app: App, release: str, env: dict[str, str], params: Mapping[str, Any]) -> None:
        self.app, self.release, self.params = app, release, params
        self.env = {**env, "HOME": app.state_dir(params["color"])}
        self.named = f"{params['color']} ({release})"

    def run(self, words: list[str], env: dict[str, str], what: str) -> tuple[int, list[str]]:
        """(exit status, lines) of a command line. Raises: Failure, if it does not end in time."""
        try:
            rc, text = _service.run_as_app(self.app, self.params["color"], words, env, self.params["timeout"])
        except Failure as error:
            output = _envfile.redact(error.extra["output"], self.env).splitlines()
            raise Failure(
                f"{what} in {self.named} did not finish within {self.params['timeout']} s and was killed. Its output:\n"
                f"{quoted(output)}",
                output=output,
            ) from None
        return rc, _envfile.redact(text, self.env).splitlines()

    def evaluate(self, command: str, expr: str) -> list[str]:
        """The lines that an expression prints. Raises: Failure."""
        script = f"{self.app.release_dir(self.release)}/bin/{self.app.name}"
        env = self.env if command == "rpc" else _envfile.for_eval(self.env)
        what = self.params["command"]
        rc, output = self.run([script, command, expr], env, what)
        if rc != 0:
            hint = ""
            if command == "rpc" and any(":nodedown" in line for line in output):
                hint = "\n  the process runs, but its node cannot be reached: is it booting, or is epmd gone?"
            raise Failure(f"{what} in {self.named} exited with status {rc}:\n{quoted(output)}{hint}", output=output)
        return output

    def has_ecto(self) -> bool:
        return self.app.has_library(self.release, _migrations.LIBRARY)

    def ask_ecto(self) -> _types.Migrations:
        """What Ecto tells of the migrations. Raises: Failure."""
        output = self.evaluate("eval", _migrations.ECTO)
        found = _migrations.from_ecto(output)
        if not found:
            raise Failure(f"Ecto in {self.named} did not tell:\n{quoted(output)}", output=output)
        return found

    def back_up(self, command: str) -> str | None:
        """The last line that a backup prints; V(None) if there is no need of one. Raises: Failure."""
        if self.has_ecto():
            try:
                found = self.ask_ecto()
            except Failure:
                # A backup too many does no harm.
                found = None
            if found and not _migrations.waiting(found, found["ran"]):
                return None
        rc, output = self.run(["/bin/sh", "-c", command], self.env, "bluegreen_backup_command")
        told = [line for line in output if line.strip()]
        if rc != 0:
            raise Failure(
                f"bluegreen_backup_command in {self.named} exited with status {rc}, so nothing was migrated:\n{quoted(output)}",
                output=output,
            )
        return told[-1].strip() if told else ""


def list_migrations(place: Place, expr: str) -> dict[str, Any]:
    """What a release tells of its migrations. Raises: Failure, for an expression of the user's own."""
    if expr != _migrations.AUTO:
        output = place.evaluate("eval", expr)
        found = _migrations.from_versions(output)
    elif not place.has_ecto():
        return {"output": [], "unknown": ""}
    else:
        try:
            found, output = place.ask_ecto(), []
        except Failure as error:
            # Nobody has asked for this question, so it must not be what a deploy fails by.
            return {"output": error.extra.get("output", []), "unknown": str(error)}
    return {"output": output, "migrations": {**found, "pending": _migrations.waiting(found, found["ran"])}}


def work(module: AnsibleModule, app: App) -> dict[str, Any]:
    params = module.params
    if module.check_mode and params["release"]:
        # It may not be there yet.
        return {"changed": True, "output": [], "migrated": None, "release": params["release"]}
    release, env = environment(app, params)
    place = Place(app, release, env, params)
    if params["command"] == "rpc" and not _service.for_slot(app, params["color"]).pid():
        raise Failure(f"{place.named} is not running, so there is no node to ask. deploy.yml starts it.", output=[])
    if params["command"] == "migrations":
        return {"changed": False, "release": release, **list_migrations(place, params["expr"])}
    if module.check_mode:
        return {"changed": True, "output": [], "migrated": None, "release": release}
    backup = place.back_up(params["backup"]) if params["command"] == "migrate" and params["backup"] else None
    result = {} if backup is None else {"backup": backup}
    try:
        output = place.evaluate("rpc" if params["command"] == "rpc" else "eval", expression(app, release, params))
    except Failure as error:
        if backup:
            raise Failure(f"{error}\nThe backup from before it: {backup}", **{**error.extra, **result}) from None
        raise
    if params["command"] != "migrate":
        return {"changed": True, "output": output, "release": release}
    versions, output = migrated(output)
    return {"changed": versions != [], "output": output, "migrated": versions, "release": release, **result}


def main() -> None:
    run_module(
        dict(
            color=dict(type="str", choices=["blue", "green"], required=True),
            command=dict(type="str", choices=["rpc", "eval", "migrate", "migrations"], required=True),
            expr=dict(type="str", required=True),
            backup=dict(type="str", default=""),
            release=dict(type="str"),
            env=dict(type="str", no_log=True),
            timeout=dict(type="int", default=3600),
            inspect=dict(type="bool", default=False),
            run_id=dict(type="str", default="", **renamed("run")),
        ),
        work,
        exclusive=False,
        required_by={"release": ("env",)},
    )


if __name__ == "__main__":
    main()
