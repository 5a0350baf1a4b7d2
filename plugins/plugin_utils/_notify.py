# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell a chat, or whoever has a webhook, what a run has done. Best effort: a message that does not arrive fails nothing."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ansible_collections.beamops.bluegreen.plugins.module_utils._slots import named
from ansible_collections.beamops.bluegreen.plugins.plugin_utils._gate import why

if TYPE_CHECKING:
    from ansible_collections.beamops.bluegreen.plugins.plugin_utils._types import Infos, Result

# Seconds for all of them: a run must not wait for a chat.
_PATIENCE = 10
# What a phone shows of a message.
_LENGTH = 300
_SWITCHED = {"promote": "promoted", "deploy": "promoted", "rollback": "rolled_back"}


def event(operation: str, failed: str, deployed: Mapping[str, Result], switched: Mapping[str, Result]) -> str:
    """What has happened: V(deployed), V(promoted), V(rolled_back), V(failed), or empty if nothing has.

    :param failed: how the run failed; empty if it did not.
    :param deployed: host to result of slot_service, of this run.
    :param switched: host to result of slot_switch, of this run.
    """
    if operation not in ("deploy", "promote", "rollback", "migrate"):
        return ""
    if failed:
        return "failed"
    if any(result.get("changed") for result in switched.values()):
        return _SWITCHED[operation]
    changed = operation == "deploy" and any(result.get("changed") for result in deployed.values())
    return "deployed" if changed else ""


def message(what: str, app: str, who: str, infos: Infos, operation: str, reason: str) -> dict[str, Any]:
    """The message: C(text), which a chat shows, and the same in parts for programs.

    :param what: as V(event).
    :param who: who has run it, C(user@machine).
    :param infos: host to what it told in the end.
    :param reason: why it failed, in one line.
    """
    told = {host: info for host, info in infos.items() if not why(info)}
    slots = [info["slots"][info["idle"] if what == "deployed" else info["live"]] for info in told.values()]
    releases = list(dict.fromkeys(named(slot) for slot in slots if slot["release"]))
    commits = list(dict.fromkeys(slot["commit"][:12] for slot in slots if slot.get("commit")))
    before = list(
        dict.fromkeys(named(info["previous"]) for info in told.values() if info["previous"] and what != "deployed")
    )
    release = " and ".join(releases) or "nothing"
    group = ", ".join(infos) if len(infos) <= 3 else f"{len(infos)} hosts"
    was = f" (before: {' and '.join(before)})" if before else ""
    words = {
        "deployed": f"{release} waits for a promote on {group}",
        "promoted": f"{release} is live on {group}{was}",
        "rolled_back": f"rolled back to {release} on {group}",
        "failed": f"{reason or f'{operation} failed'}. Live on {group}: {release}",
    }[what]
    text = f"{app}: {words}. By {who}"
    return {
        "text": text if len(text) <= _LENGTH else f"{text[: _LENGTH - 1]}…",
        **{"event": what, "operation": operation, "app": app, "by": who, "hosts": list(infos)},
        **{"releases": releases, "commits": commits, "reason": reason if what == "failed" else ""},
    }


def send(hooks: Sequence[Mapping[str, Any]], what: str, body: Mapping[str, Any]) -> Iterable[str]:
    """Send a message to those who want to know of an event. Gives sentences for those that did not take it, without their URLs, which are secret."""
    # Here, because it takes 35 ms, and most runs tell nobody.
    from ansible.module_utils.urls import open_url

    deadline = time.monotonic() + _PATIENCE
    for hook in hooks:
        if what not in (hook.get("on") or [what]):
            continue
        host = urlsplit(hook["url"]).hostname
        left = deadline - time.monotonic()
        if left <= 0:
            yield f"{host} was not told: the others took {_PATIENCE} s"
            continue
        try:
            open_url(
                hook["url"],
                method="POST",
                data=json.dumps(body).encode(),
                headers={"Content-Type": "application/json"},
                timeout=min(left, 5),
                follow_redirects="none",
                use_proxy=_may_ask_for_proxies(),
            ).close()
        except Exception as error:  # pylint: disable=broad-exception-caught
            # Whatever it is, the run is over and has its own words.
            yield f"{host} did not take the message: {_words(error, hook['url'])}"


def _may_ask_for_proxies() -> bool:
    """Whether a proxy may be looked for. Without one in the environment a Mac asks its system, which ends a forked process, as ours is."""
    from urllib.request import getproxies_environment

    return sys.platform != "darwin" or bool(getproxies_environment())


def _words(error: Exception, url: str) -> str:
    """What went wrong, in one line, and without the URL."""
    code = getattr(error, "code", None)
    text = f"HTTP {code}" if code else str(getattr(error, "reason", None) or error)
    return " ".join(text.replace(url, "its URL").split())[:200]
