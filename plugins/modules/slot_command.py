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
    returns which migrations have run.
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
    choices: [rpc, eval, migrate]
    required: true
  expr:
    description: Elixir expression.
    type: str
    required: true
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
    description: Seconds that the expression may take.
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
release:
  description: Release that the expression was run in.
  type: str
  returned: success
"""

import glob
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ansible_collections.beamops.bluegreen.plugins.module_utils import _envfile, _service, _validate
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure
from ansible_collections.beamops.bluegreen.plugins.module_utils._module import renamed, run_module

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule
    from ansible_collections.beamops.bluegreen.plugins.module_utils._app import App


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
    if not glob.glob(f"{app.release_dir(release)}/lib/elixir-*"):
        return params["expr"]
    if params["command"] == "migrate":
        return _MIGRATE % (params["expr"], _TELLS)
    # What prints something by itself need not have its value printed as well.
    if params["inspect"] and "IO." not in params["expr"]:
        return f"IO.inspect((\n{params['expr']}\n), pretty: true)"
    return params["expr"]


def quoted(output: Any) -> str:
    return "\n".join(f"    {line}" for line in output[-20:]) or "    (nothing)"


def work(module: AnsibleModule, app: App) -> dict[str, Any]:
    params = module.params
    if module.check_mode and params["release"]:
        # It may not be there yet.
        return {"changed": True, "output": [], "migrated": None, "release": params["release"]}
    release, env = environment(app, params)
    where = f"{params['color']} ({release})"
    if params["command"] == "rpc" and not _service.for_slot(app, params["color"]).pid():
        raise Failure(f"{where} is not running, so there is no node to ask. deploy.yml starts it.", output=[])
    if module.check_mode:
        return {"changed": True, "output": [], "migrated": None, "release": release}
    env["HOME"] = app.state_dir(params["color"])
    command = "rpc" if params["command"] == "rpc" else "eval"
    if command == "eval":
        env = _envfile.for_eval(env)
    try:
        rc, text = _service.run(
            [f"{app.release_dir(release)}/bin/{app.name}", command, expression(app, release, params)],
            timeout=params["timeout"],
            cwd=app.state_dir(params["color"]),
            env=_service.clean_environ(env),
            **_service.as_app_user(app),
        )
    except Failure as error:
        output = _envfile.redact(error.extra["output"], env).splitlines()
        raise Failure(
            f"{params['command']} in {where} did not finish within {params['timeout']} s and was killed. Its output:\n"
            f"{quoted(output)}",
            output=output,
        ) from None
    output = _envfile.redact(text, env).splitlines()
    if rc != 0:
        hint = ""
        if params["command"] == "rpc" and ":nodedown" in text:
            hint = "\n  the process runs, but its node cannot be reached: is it booting, or is epmd gone?"
        raise Failure(f"{params['command']} in {where} exited with status {rc}:\n{quoted(output)}{hint}", output=output)
    if params["command"] != "migrate":
        return {"changed": True, "output": output, "release": release}
    versions, output = migrated(output)
    return {"changed": versions != [], "output": output, "migrated": versions, "release": release}


def main() -> None:
    run_module(
        dict(
            color=dict(type="str", choices=["blue", "green"], required=True),
            command=dict(type="str", choices=["rpc", "eval", "migrate"], required=True),
            expr=dict(type="str", required=True),
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
