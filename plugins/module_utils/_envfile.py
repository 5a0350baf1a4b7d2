# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The environment of a slot: read from the user, written for systemd and a shell alike. Private to this collection.

One quoting serves both readers of the written file: a double-quoted value in which a backslash stands before the four
characters backslash, double quote, dollar and backtick. POSIX sh (2.2.3) and systemd.exec(5), EnvironmentFile=, both give
back the same text; C(tests/unit) and the molecule scenario compare the two.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import urllib.parse
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ansible_collections.beamops.bluegreen.plugins.module_utils import _cluster
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Refused

if TYPE_CHECKING:
    from ansible_collections.beamops.bluegreen.plugins.plugin_utils._types import EnvChanges

_NAME = re.compile(r"\A[A-Za-z_][A-Za-z0-9_]*\Z")
# Tab is the one control character that systemd lets into a variable.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# An atom of at most 255 characters, of which the hash of a release may take nine; on the command line of the VM.
_COOKIE = re.compile(r"\A[!-~]{1,240}\Z")
_QUOTED = re.compile(r'([\\"$`])')

# What makes a slot a slot; a value of the user's would point one slot at the other.
OWNED = (
    "BLUEGREEN_COLOR",
    "BLUEGREEN_LIVE_FILE",
    "BLUEGREEN_NODES",
    "BLUEGREEN_VM_FLAGS",
    "ERL_AFLAGS",
    "ERL_EPMD_ADDRESS",
    "PORT",
    "RELEASE_DISTRIBUTION",
    "RELEASE_NODE",
    "RELEASE_TMP",
)
_INSTEAD = {
    "PORT": "Set bluegreen_ports instead.",
    "BLUEGREEN_NODES": "Set bluegreen_cluster on every host instead.",
    "BLUEGREEN_CLUSTER": "Set bluegreen_cluster instead.",
    "ERL_AFLAGS": "Set ERL_FLAGS instead.",
    "ERL_EPMD_ADDRESS": "Set bluegreen_cluster instead.",
}
# What differs between the slots, of both of them, so that what moves to the other slot gets what is meant for that.
BY_COLOR = "BLUEGREEN_BY_COLOR"
# bin/<app> works these out itself; an inherited RELEASE_VSN, for one, breaks every other version.
_COMPUTED = ("RELEASE_COMMAND", "RELEASE_NAME", "RELEASE_PROG", "RELEASE_ROOT", "RELEASE_SYS_CONFIG", "RELEASE_VSN")

# Too short or too common to be a secret, and hiding them would make a log unreadable.
_PLAIN = re.compile(r"\A(\d{1,5}|.{0,3}|true|false|prod|production|staging|info|debug|warn|warning|error|C\.UTF-8)\Z")


def _check(name: str, value: str, where: str) -> str:
    if not isinstance(name, str) or not _NAME.match(name):
        raise Refused(f"{where}: a variable name must be letters, digits and _, no digit first (got {name!r})")
    if name in (*OWNED, _cluster.VARIABLE):
        hint = _INSTEAD.get(name, "It tells the two slots apart. Leave it out.")
        raise Refused(f"{where}: {name} belongs to the slot. {hint}")
    if name in _COMPUTED:
        raise Refused(f"{where}: bin/<app> works out {name} itself. Leave it out.")
    # Values are never shown: any of them may be a secret.
    if name == "RELEASE_COOKIE" and where in ("bluegreen_env_blue", "bluegreen_env_green"):
        raise Refused(f"{where}: RELEASE_COOKIE must be the same in both slots. Set it in bluegreen_env.")
    if name == "RELEASE_COOKIE" and not _COOKIE.match(value):
        raise Refused(
            f"{where}: RELEASE_COOKIE must be 1 to 240 ASCII characters without spaces (its value is not shown)"
        )
    if _CONTROL.search(value):
        raise Refused(
            f"{where}: the value of {name} has a newline or another control character, which an env file cannot hold. "
            "Encode it (for example in base64) and decode it in runtime.exs."
        )
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError:
        raise Refused(f"{where}: the value of {name} is not valid Unicode") from None
    if size > 65536:
        raise Refused(f"{where}: the value of {name} must have at most 65536 bytes (got {size})")
    return value


def from_mapping(env: Any, where: str = "bluegreen_env") -> dict[str, str]:
    """Check a mapping of the user's; booleans and numbers become the text that a shell would have."""
    if not isinstance(env, dict):
        raise Refused(f"{where} must be a mapping of variable names to values")
    result = {}
    for name, value in env.items():
        if value is None:
            raise Refused(f"{where}: {name} has no value. Write '' for an empty one.")
        if isinstance(value, bool):
            value = "true" if value else "false"
        elif isinstance(value, (int, float)):
            value = str(value)
        elif not isinstance(value, str):
            raise Refused(f"{where}: {name} must be text, a number or true/false (got a {type(value).__name__})")
        result[name] = _check(name, str(value), where)
    return result


def parse_dotenv(text: str, where: str = "bluegreen_env_file") -> dict[str, str]:
    """Read a dotenv file: NAME=value lines, with or without C(export), single or double quotes, comments.

    Programs disagree on what C($) means in such a file, so outside single quotes it has to be escaped: better an error
    than another value than the one meant.
    """
    result = {}
    # Some editors begin a file with a byte order mark.
    for number, line in enumerate(text.lstrip("\ufeff").split("\n"), 1):
        line = line.rstrip("\r").lstrip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("export "):
            line = line[7:].lstrip()
        name, equals, rest = line.partition("=")
        place = f"{where} line {number}"
        if not equals or not _NAME.match(name):
            raise Refused(f"{place}: each line must be NAME=value, with a name of letters, digits and _")
        result[name] = _check(name, _dotenv_value(rest, name, place), place)
    return result


def read_dotenv(path: str) -> dict[str, str]:
    """Read a dotenv file of the controller; a relative path is one of the directory that the run was started in."""
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as stream:
            return parse_dotenv(stream.read(), f"bluegreen_env_file {path}")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise Refused(f"bluegreen_env_file cannot be read: {reason}: {path}") from None


def _dotenv_value(rest: str, name: str, place: str) -> str:
    if rest[:1] == "'":
        value, quote, tail = rest[1:].partition("'")
        closed = bool(quote)
    elif rest[:1] == '"':
        match = re.match(r'"((?:[^"\\]|\\.)*)"', rest)
        closed, tail = bool(match), rest[match.end() :] if match else ""
        value = match.group(1) if match else ""
        if re.search(r"(?<!\\)(?:\\\\)*[$`]", value):
            raise Refused(f"{place}: {name} has a $ or a backtick in double quotes. Put the value in single quotes.")
        if re.search(r"(?<!\\)(?:\\\\)*\\[nrt]", value):
            # Readers of dotenv take it for a line end, an env file cannot hold one, and two characters would be neither.
            raise Refused(
                f"{place}: {name} has \\n, \\r or \\t in double quotes, a line end or tab that an env file cannot hold. Encode the value "
                "(for example in base64) and decode it in runtime.exs, or put it in single quotes if a backslash is meant."
            )
        value = re.sub(r'\\([\\"$`])', r"\1", value)
    else:
        value, closed, tail = re.split(r"\s#", rest, maxsplit=1)[0].strip(), True, ""
        if re.search(r"[$`\\'\"]", value):
            raise Refused(f"{place}: {name} has a quote, $, backtick or backslash. Put the value in single quotes.")
    if not closed:
        raise Refused(f"{place}: the quote that opens the value of {name} is not closed on that line")
    if tail.strip() and not tail.lstrip().startswith("#"):
        raise Refused(f"{place}: something follows the closing quote of {name}")
    return value


def with_colors(env: dict[str, str], by_color: dict[str, dict[str, str]]) -> dict[str, str]:
    """An env that also says what differs between the slots, over what is in it.

    :param by_color: V(blue) and V(green) to the variables of the slot.
    """
    names = sorted(set(by_color["blue"]) | set(by_color["green"]))
    if not names:
        return env
    both = {
        color: {name: {**env, **by_color[color]}[name] for name in names if name in {**env, **by_color[color]}}
        for color in ("blue", "green")
    }
    text = json.dumps(both, sort_keys=True).encode("utf-8")
    rest = {name: value for name, value in env.items() if name not in names}
    return {**rest, BY_COLOR: base64.b64encode(text).decode("ascii")}


def _by_color(env: dict[str, str]) -> dict[str, dict[str, str]]:
    try:
        return json.loads(base64.b64decode(env[BY_COLOR]))
    except (KeyError, ValueError):
        return {"blue": {}, "green": {}}


def names_by_color(env: dict[str, str]) -> list[str]:
    """Names of the variables that have a value of their own in each slot."""
    both = _by_color(env)
    return sorted(set(both["blue"]) | set(both["green"]))


def _for_color(env: dict[str, str], color: str) -> dict[str, str]:
    """An env with what is meant for one slot, and without what is meant for the other alone."""
    both = _by_color(env)
    names = set(both["blue"]) | set(both["green"])
    return {**{name: value for name, value in env.items() if name not in names}, **both[color]}


def _same_for_both(env: dict[str, str]) -> dict[str, str]:
    """An env as it is for both slots: what differs has the values of both."""
    both = _by_color(env)
    names = set(both["blue"]) | set(both["green"])
    rest = {name: value for name, value in env.items() if name not in names and name != BY_COLOR}
    return {**rest, **{name: json.dumps([both["blue"].get(name), both["green"].get(name)]) for name in names}}


def pack(env: dict[str, str]) -> str:
    """A mapping as one opaque word. Ansible hides an option only as a whole: hiding each value by itself would also
    blank every C(10) or C(true) in the rest of the output."""
    return base64.b64encode(json.dumps(env, sort_keys=True).encode("utf-8")).decode("ascii")


def unpack(packed: str) -> dict[str, str]:
    return from_mapping(json.loads(base64.b64decode(packed).decode("utf-8")))


def slot_variables(
    color: str,
    port: int,
    app: str,
    state_dir: str,
    cluster: _cluster.Cluster | None = None,
    nodes: Iterable[str] = (),
) -> dict[str, str]:
    """What names the slot, and is not for the user to set."""
    root = state_dir[: -len(f"/state/{color}")]
    return {
        "BLUEGREEN_COLOR": color,
        # There while the slot is live: what a booting app asks before it starts its queues, also after a crash or a reboot.
        "BLUEGREEN_LIVE_FILE": f"{root}/live/is-{color}",
        "PORT": str(port),
        "RELEASE_TMP": f"{state_dir}/tmp",
        **_cluster.variables(app, color, root, cluster, nodes),
    }


def slot_env(
    user: dict[str, str],
    color: str,
    port: int,
    app: str,
    state_dir: str,
    cookie: str,
    domain: str,
    cluster: _cluster.Cluster | None = None,
    nodes: Iterable[str] = (),
    release: str = "",
    web: bool = True,
) -> dict[str, str]:
    """All variables of a slot: the user's over our defaults, and what the slot owns over both.

    :param nodes: names of the nodes that this one keeps a connection with.
    :param release: what the slot is to hold; without it the cookie is that of no release where generations are apart.
    :param web: whether it serves visitors, on V(domain).
    """
    env = {
        "ERL_CRASH_DUMP": f"{state_dir}/erl_crash.dump",
        "HOME": state_dir,
        "LANG": "C.UTF-8",
        # One cookie for all builds of an app: each `mix release` makes a new one, and rpc would fail across builds.
        "RELEASE_COOKIE": cookie,
    }
    if web:
        # Without it a Phoenix release boots, answers `pid`, and listens to nobody: just what a worker is to do.
        env["PHX_SERVER"] = "true"
    if domain and not domain.startswith("*"):
        env["PHX_HOST"] = domain
    env.update(_for_color(user, color))
    env["RELEASE_COOKIE"] = _cluster.cookie_for(env["RELEASE_COOKIE"], cluster, release)
    if cluster:
        env[_cluster.VARIABLE] = cluster.text()
    env.update(slot_variables(color, port, app, state_dir, cluster, nodes))
    return env


def render(env: dict[str, str]) -> str:
    """The text of the env file."""
    return "".join(name + '="' + _QUOTED.sub(r"\\\1", env[name]) + '"\n' for name in sorted(env))


def parse(text: str) -> dict[str, str]:
    """Read back what V(render) wrote."""
    result = {}
    # Not splitlines(): a value may hold U+2028 or another character that Python, but no shell, takes for a line end.
    for line in text.split("\n"):
        if not line:
            continue
        name, _equals, value = line.partition("=")
        result[name] = re.sub(r'\\([\\"$`])', r"\1", value[1:-1])
    return result


def user_variables(env: dict[str, str]) -> dict[str, str]:
    """The variables of a written env that may move to the other slot."""
    return {name: value for name, value in env.items() if name not in OWNED}


def _moved_dir(env: dict[str, str], state_dir: str) -> dict[str, str]:
    """The part that may move, with what lies in the state directory of its slot in another one."""
    former_dir = env["RELEASE_TMP"][: -len("/tmp")] if env.get("RELEASE_TMP", "").endswith("/tmp") else None
    result = user_variables(env)
    if former_dir:
        for name in ("HOME", "ERL_CRASH_DUMP"):
            if result.get(name, "").startswith(former_dir):
                result[name] = state_dir + result[name][len(former_dir) :]
    return result


def for_slot(
    env: dict[str, str], color: str, port: int, app: str, state_dir: str, nodes: Iterable[str] = ()
) -> dict[str, str]:
    """The env of a release that goes back to work in another slot: the same values, save what names the slot."""
    own = slot_variables(color, port, app, state_dir, _cluster.from_env(env), nodes)
    return {**_for_color(_moved_dir(env, state_dir), color), **own}


def same_but_nodes(one: str, other: str) -> bool:
    """Whether two texts of V(render) differ in nothing but in which nodes there are to meet: no reason to start anything anew."""
    return {**parse(one), "BLUEGREEN_NODES": ""} == {**parse(other), "BLUEGREEN_NODES": ""}


def for_eval(env: dict[str, str]) -> dict[str, str]:
    """The env of a slot for an expression beside it: a system that serves nobody, whatever it boots.

    As C(bin/migrate) of Phoenix, which has no PHX_SERVER. The port is one that the kernel picks, because runtime.exs may need a number,
    and the slot has its own.
    """
    live_file = os.path.join(os.path.dirname(env.get("BLUEGREEN_LIVE_FILE", "/")), "is-eval")
    rest = {name: value for name, value in env.items() if name != "PHX_SERVER"}
    return {**rest, "PORT": "0", "BLUEGREEN_LIVE_FILE": live_file}


# Hexadecimal digits: of an id, and of what a person is shown of it.
ID_LENGTH, ID_SHOWN = 12, 4


def env_id(env: dict[str, str]) -> str:
    """The id of a written env, the same in both slots: 12 hexadecimal digits, of which 4 are shown. V('') for an empty env.

    It tells nothing of the values: the cookie of the app, 48 random characters that only the host knows, is hashed with them.
    """
    if not env:
        return ""
    return hashlib.sha256(render(_comparable(env)).encode("utf-8", "surrogatepass")).hexdigest()[:ID_LENGTH]


def _comparable(env: dict[str, str]) -> dict[str, str]:
    """An env without what is another in each slot, and for each release."""
    found = _same_for_both(_moved_dir(env, ""))
    return {**found, "RELEASE_COOKIE": _cluster.cookie_of(found)} if "RELEASE_COOKIE" in found else found


def digest_across_hosts(env: dict[str, str], salt: str) -> str:
    """A hash of an env without what is another on each host; V('') for an empty one. It tells as little of the values as the salt is known."""
    if not env:
        return ""
    own = ("RELEASE_COOKIE", _cluster.VARIABLE)
    found = {name: value for name, value in _comparable(env).items() if name not in own}
    return hashlib.sha256(f"{salt}\n{render(found)}".encode("utf-8", "surrogatepass")).hexdigest()


def changes(before: dict[str, str], after: dict[str, str]) -> EnvChanges:
    """Names of the variables in which one env differs from another: {"added", "removed", "changed"}, sorted. Never values."""
    old, new = _comparable(before), _comparable(after)
    return {
        "added": sorted(set(new) - set(old)),
        "removed": sorted(set(old) - set(new)),
        "changed": sorted(name for name in set(old) & set(new) if old[name] != new[name]),
    }


def digests(env: dict[str, str], salt: str) -> dict[str, str]:
    """Name to a hash of the value, of the variables that may be the same in both slots: 8 digits, the same for the same value.

    :param salt: the cookie of the app, which only the host knows. Without it nothing tells the values apart.
    """
    return {
        name: hashlib.sha256(f"{salt} {name} {value}".encode("utf-8", "surrogatepass")).hexdigest()[:8] if salt else ""
        for name, value in _moved_dir(env, "").items()
        if name != BY_COLOR
    }


def _secrets(env: dict[str, str]) -> list[tuple[str, str]]:
    """(value, name) of all that must not be shown, longest first: the values, and the password in a URL."""
    found = []
    for name, value in env.items():
        if (
            name in (*OWNED, _cluster.VARIABLE)
            or name in ("HOME", "ERL_CRASH_DUMP", "PHX_HOST", "LANG")
            or _PLAIN.match(value)
        ):
            continue
        found.append((value, name))
        # A driver shows the parts of DATABASE_URL rather than the whole.
        password = re.match(r"[a-z][a-z0-9+.-]*://[^/@:]*:([^/]+)@", value)
        if password:
            parts = (password.group(1), urllib.parse.unquote(password.group(1)))
            found += [(part, name) for part in parts if not _PLAIN.match(part)]
    return sorted(found, key=lambda item: -len(item[0]))


_BYTES = re.compile(r"<<(\d{1,3}(?:,\d{1,3}){3,})>>")


def readable(text: str) -> str:
    """A text of Erlang's with its binaries as text: an exception in runtime.exs is logged as C(<<101,110,118,...>>)."""

    def decoded(found: re.Match) -> str:
        try:
            return json.dumps(bytes(map(int, found.group(1).split(","))).decode("utf-8"), ensure_ascii=False)
        except ValueError:
            return found.group(0)

    return _BYTES.sub(decoded, text)


def redact(text: str, env: dict[str, str]) -> str:
    """Take the values of an env out of a text (a log, an answer) and put the names there instead."""
    text = readable(text)
    for value, name in _secrets(env):
        text = text.replace(value, f"<{name}>")
    return text
