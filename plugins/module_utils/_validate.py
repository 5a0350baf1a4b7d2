# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What input is allowed. Private to this collection. What only a controller checks is in V(_variables).

Names end up in nginx configuration, unit files, paths and shell scripts, and C(nginx -t) accepts most injections, so
everything is matched against an allow-list before it is used anywhere. All functions return the accepted value or raise
V(Refused) with a sentence of the form C(X must be Y (got Z)).
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any

from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

COLORS = ("blue", "green")

# useradd(8) on Debian takes 32 characters; the same name is the app's user, unit, upstream and Erlang node prefix.
_APP = re.compile(r"\A[a-z][a-z0-9_]{0,31}\Z")
_RESERVED_APPS = ("root", "daemon", "bin", "sys", "nobody", "sync", "mail", "news", "proxy", "backup", "nginx", "sshd")
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
HOST_NAME = re.compile(r"\A(\*\.)?(" + _LABEL + r"\.)*" + _LABEL + r"\Z")
_PATH = re.compile(r"\A/[A-Za-z0-9._/-]*\Z")
_VERSION = re.compile(r"\A[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}\Z")
_RELEASE = re.compile(r"\A([0-9A-Za-z][0-9A-Za-z.+_-]{0,63})-([0-9a-f]{8})\Z")
_ENV_ID = re.compile(r"\A([0-9a-f]{12})?\Z")
_CHECKSUM = re.compile(r"\Asha256:([0-9a-f]{64})\Z")
_URL = re.compile(r"\Ahttps?://[A-Za-z0-9._~:/?#\[\]@!&'()*+,;=%-]+\Z")
# Without $ ; ' " and \: nginx would read more than a path, and a path stands in its configuration.
_URL_PATH = re.compile(r"\A/[A-Za-z0-9._~!&()*+,=:@%/?-]*\Z")
_USER = re.compile(r"\A[a-z_][a-z0-9_-]{0,31}\Z")
_SHARED = re.compile(r"\A[A-Za-z0-9_-]{1,64}\Z")
_TOKEN = re.compile(r"\A[A-Za-z0-9_-]{16,128}\Z")
_LISTEN = re.compile(r"\A(?:((?:[0-9]{1,3}\.){3}[0-9]{1,3}):)?([0-9]{1,5})\Z")


def other(color: str) -> str:
    """V(green) for V(blue), and the reverse."""
    return "green" if color == "blue" else "blue"


def shown(value: Any) -> str:
    """What was given, for a message."""
    return value if isinstance(value, str) else repr(value)


def check_app(value: Any) -> str:
    if not isinstance(value, str) or not _APP.match(value):
        raise Refused(
            f"bluegreen_app must be a release name: [a-z][a-z0-9_]*, at most 32 characters (got {shown(value)!r})"
        )
    if value in _RESERVED_APPS:
        raise Refused(
            f"bluegreen_app must not be the name of a system account, because the app gets a user of its own (got {value!r})"
        )
    return value


def check_user(value: Any) -> str:
    if not isinstance(value, str) or not _USER.match(value) or value == "root":
        raise Refused(
            f"bluegreen_user must be the name of an account other than root, at most 32 of a-z, 0-9, _ and - (got {shown(value)!r})"
        )
    return value


def check_color(value: Any, what: str = "color") -> str:
    if value not in COLORS:
        raise Refused(f"{what} must be blue or green (got {shown(value)!r})")
    return value


def check_domain(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 253 or not HOST_NAME.match(value):
        raise Refused(
            "bluegreen_domain must be a host name such as example.com or *.example.com, in lower case and at most 253 "
            f"characters (got {shown(value)!r})"
        )
    return value


def _port(value: Any, what: str, low: int) -> int:
    # bool is an int in Python; a YAML `true` is not a port.
    if isinstance(value, bool) or not re.match(r"\A[0-9]{1,5}\Z", str(value)) or not low <= int(value) <= 65535:
        raise Refused(f"{what} must be a whole number from {low} to 65535 (got {shown(value)!r})")
    return int(value)


def check_ports(value: Any) -> dict[str, int]:
    if not isinstance(value, dict) or sorted(value) != sorted(COLORS):
        raise Refused(f"bluegreen_ports must be a mapping with the keys blue and green (got {shown(value)!r})")
    ports = {color: _port(value[color], f"bluegreen_ports.{color}", 1024) for color in COLORS}
    if ports["blue"] == ports["green"]:
        raise Refused(
            f"bluegreen_ports must give each slot a port of its own, because both run side by side (got {ports['blue']} twice)"
        )
    return ports


def check_listen(value: Any) -> str:
    match = None if isinstance(value, bool) else _LISTEN.match(str(value))
    if not match or not all(int(part) < 256 for part in (match.group(1) or "0").split(".")):
        raise Refused(f"bluegreen_listen must be a port, or IPv4-address:port (got {shown(value)!r})")
    _port(match.group(2), "bluegreen_listen", 1)
    return str(value)


def listen_address(listen: str) -> tuple[str, int]:
    """Where to reach nginx from the host itself: (address, port)."""
    address, _colon, port = listen.rpartition(":")
    return (address if address not in ("", "0.0.0.0") else "127.0.0.1"), int(port)


def request_host(domain: str) -> str:
    """A Host header that this domain's server block answers to; a wildcard needs some name in place of the star."""
    return "www" + domain[1:] if domain.startswith("*") else domain


def check_path(value: Any, what: str) -> str:
    if not isinstance(value, str) or not _PATH.match(value) or ".." in value.split("/") or value.strip("/") == "":
        raise Refused(
            f"{what} must be an absolute path of letters, digits and . _ / - without '..' (got {shown(value)!r})"
        )
    return value.rstrip("/")


def check_commit(value: object) -> str:
    """What a release was built from: a hash, a tag, C(git describe). Raises: Refused."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,63}", value):
        raise Refused(
            f"bluegreen_commit must have 1 to 64 letters, digits or characters of ._/+-, and begin with a letter or digit (got {value!r})"
        )
    return value


def check_version(value: Any) -> str:
    if not isinstance(value, str) or not _VERSION.match(value):
        raise Refused(
            f"version must be at most 64 letters, digits and . + _ -, the first a letter or digit (got {shown(value)!r})"
        )
    return value


def check_release(value: Any) -> str:
    if not isinstance(value, str) or not _RELEASE.match(value):
        raise Refused(f"release must be <version>-<first 8 digits of its SHA-256> (got {shown(value)!r})")
    return value


def check_env_id(value: Any) -> str:
    """The id of an environment, or V('') where it is not known: a host that an older version of this collection deployed to."""
    if not isinstance(value, str) or not _ENV_ID.match(value):
        raise Refused(f"environment must be an id of 12 hexadecimal digits (got {shown(value)!r})")
    return value


def release_id(version: str, sha256: str) -> str:
    return f"{check_version(version)}-{sha256[:8]}"


def release_version(release: str) -> str:
    """The version part of a release id."""
    return check_release(release).rpartition("-")[0]


def check_checksum(value: Any) -> str:
    match = _CHECKSUM.match(value) if isinstance(value, str) else None
    if not match:
        raise Refused(f"bluegreen_artifact_checksum must be sha256: and 64 hexadecimal digits (got {shown(value)!r})")
    return match.group(1)


def is_url(artifact: str) -> bool:
    return artifact.startswith(("http://", "https://"))


def check_artifact(value: Any, checksum: str | None) -> str:
    """Only the words; whether the file is there and what is in it is V(_artifact)'s matter."""
    if not isinstance(value, str) or not value:
        raise Refused("bluegreen_artifact is required: the path of the mix release tarball, or its http(s) URL")
    if is_url(value):
        if not _URL.match(value):
            raise Refused("bluegreen_artifact must be a valid URL (got characters that no URL has)")
        if not checksum:
            raise Refused("bluegreen_artifact_checksum (sha256:…) is required where bluegreen_artifact is a URL")
    elif "://" in value:
        raise Refused(f"bluegreen_artifact must be a path, or an http or https URL (got {value!r})")
    if checksum:
        check_checksum(checksum)
    return value


def check_url_path(value: Any, what: str = "bluegreen_health_path") -> str:
    if not isinstance(value, str) or len(value) > 1024 or not _URL_PATH.match(value):
        raise Refused(f"{what} must be a URL path that starts with / (got {shown(value)!r})")
    return value


# How many ports the node of a slot may choose from, so that one that is still taken does no harm.
NODE_PORTS = 5
# The port of Erlang's port mapper, epmd(1).
EPMD = 4369
_GENERATIONS = ("together", "apart")


def check_cluster(value: Any, ports: Mapping[str, int] | None = None, listens: Iterable[str] = ()) -> dict[str, Any]:
    """{"address", "generations", "ports"}, complete, or an empty mapping for none.

    :param ports: of the slots, which those of the nodes must not overlap.
    :param listens: where nginx listens, likewise.
    """
    if not isinstance(value, dict) or not set(value) <= {"address", "generations", "ports"}:
        raise Refused(
            f"bluegreen_cluster must be a mapping of address and optionally generations and ports (got {shown(value)!r})"
        )
    if not value:
        return {}
    address, generations = value.get("address"), value.get("generations", "together")
    try:
        found = ipaddress.ip_address(address if isinstance(address, str) else "")
    except ValueError:
        found = None
    if not isinstance(found, ipaddress.IPv4Address) or found.is_unspecified or found.is_loopback or found.is_multicast:
        raise Refused(
            "bluegreen_cluster.address must be the IPv4 address at which the other hosts reach this one, such as 10.0.0.5: not a name, not "
            f"IPv6, not 0.0.0.0, not 127.0.0.1 (got {shown(address)!r})"
        )
    check_choice(generations, "bluegreen_cluster.generations", _GENERATIONS)
    given = value.get("ports", {"blue": 9100, "green": 9200})
    if not isinstance(given, dict) or sorted(given) != sorted(COLORS):
        raise Refused(f"bluegreen_cluster.ports must be a mapping with the keys blue and green (got {shown(given)!r})")
    firsts = {color: _port(given[color], f"bluegreen_cluster.ports.{color}", 1024) for color in COLORS}
    ranges = {color: range(first, first + NODE_PORTS) for color, first in firsts.items()}
    others = {EPMD: "the port mapper"}
    others.update({port: f"bluegreen_ports.{color}" for color, port in (ports or {}).items()})
    others.update({int(listen.rpartition(":")[2]): "nginx" for listen in listens})
    for color, mine in ranges.items():
        for port, whose in others.items():
            if port in mine:
                raise Refused(
                    f"bluegreen_cluster.ports.{color} must be the first of {NODE_PORTS} free ports, and {port} belongs to {whose} "
                    f"(got {mine[0]} to {mine[-1]})"
                )
    if set(ranges["blue"]) & set(ranges["green"]):
        raise Refused(
            f"bluegreen_cluster.ports must be {NODE_PORTS} apart, because each is the first of {NODE_PORTS} (got "
            f"{firsts['blue']} and {firsts['green']})"
        )
    if max(firsts.values()) + NODE_PORTS > 65536:
        raise Refused(
            f"bluegreen_cluster.ports must leave room for {NODE_PORTS} ports each (got {max(firsts.values())})"
        )
    return {"address": str(found), "generations": generations, "ports": firsts}


def check_token(value: Any) -> str:
    # Those that begin with smoke- are of a promote that checks a slot, and are swept.
    if not isinstance(value, str) or not _TOKEN.match(value) or value.startswith("smoke-"):
        # Not shown: it is a secret, and a wrong one may be nearly the right one.
        raise Refused("bluegreen_preview_token must be 16 to 128 letters, digits, _ and - (its value is not shown)")
    return value


_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def check_since(value: Any) -> int:
    """How far back, in seconds."""
    match = re.match(r"\A([0-9]{1,6})([smhd])\Z", value if isinstance(value, str) else "")
    if not match:
        raise Refused(f"since must be a whole number with s, m, h or d, such as 10m (got {shown(value)!r})")
    return int(match.group(1)) * _SECONDS[match.group(2)]


def check_percent(value: Any) -> int:
    return check_whole(value, "percent", 0, 100)


def check_smoke(value: Any) -> list[dict[str, Any]]:
    """List of {"path", "status", "contains"}, complete."""
    if not isinstance(value, list):
        raise Refused("bluegreen_smoke must be a list of checks, each with path and optionally status and contains")
    found = []
    for one in value:
        if not isinstance(one, dict) or not set(one) <= {"path", "status", "contains"} or "path" not in one:
            raise Refused(
                f"bluegreen_smoke must hold checks with path and optionally status and contains (got {shown(one)!r})"
            )
        check_url_path(one["path"], "bluegreen_smoke.path")
        status = check_whole(one.get("status", 200), "bluegreen_smoke.status", 100, 599)
        if not isinstance(one.get("contains", ""), str):
            raise Refused(f"bluegreen_smoke.contains must be text (got {shown(one['contains'])!r})")
        found.append({"path": one["path"], "status": status, "contains": one.get("contains", "")})
    return found


def check_whole(value: Any, what: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not re.match(r"\A[0-9]{1,9}\Z", str(value)) or not low <= int(value) <= high:
        raise Refused(f"{what} must be a whole number from {low} to {high} (got {shown(value)!r})")
    return int(value)


def check_choice(value: Any, what: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise Refused(f"{what} must be {' or '.join(choices)} (got {shown(value)!r})")
    return value


def check_shared(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) and _SHARED.match(one) for one in value):
        raise Refused(
            f"bluegreen_shared must be a list of directory names such as uploads, each of letters, digits, _ and - (got {shown(value)!r})"
        )
    return value
