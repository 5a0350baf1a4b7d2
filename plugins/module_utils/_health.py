# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a slot is well: its own process answers as it should, or its node does. Private to this collection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ansible_collections.beamops.bluegreen.plugins.module_utils import (
    _envfile,
    _files,
    _http,
    _proc,
    _service,
    _validate,
)
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure

if TYPE_CHECKING:
    from ansible_collections.beamops.bluegreen.plugins.module_utils._app import App
    from ansible_collections.beamops.bluegreen.plugins.plugin_utils._types import Answer, Sockets


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
        _rc, text = _service.run_as_app(app, color, [script, "rpc", question], env, _RPC_SECONDS)
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


# For an answer to a check of bluegreen_smoke, and for its body.
SMOKE_SECONDS = 10.0
SMOKE_BYTES = 1 << 20


def smoke_problem(check: Mapping[str, Any], answer: Answer) -> str:
    """What is wrong with the answer to a check of C(bluegreen_smoke), as V(_validate.check_smoke) has it; empty if nothing is."""
    if answer.get("status") != check["status"]:
        return f"{_http.describe(answer)}, expected {check['status']}"
    if check["contains"] not in answer["body"]:
        return f"the answer does not contain {check['contains']!r}"
    return ""


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
    health = check_health(app, color, _service.for_slot(app, color).pid(), params)
    if not health.good:
        said = _envfile.redact(health.said, app.env(color))
        raise Failure(
            f"{color} ({release}) is not healthy: {health.asked}{health.words}. "
            f"Run status.yml to see more, or deploy.yml to restart it.{said}"
        )
    return release
