# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What input is allowed. Private to this collection.

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
_DOMAIN = re.compile(r"\A(\*\.)?(" + _LABEL + r"\.)*" + _LABEL + r"\Z")
_PATH = re.compile(r"\A/[A-Za-z0-9._/-]*\Z")
_VERSION = re.compile(r"\A[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}\Z")
_RELEASE = re.compile(r"\A([0-9A-Za-z][0-9A-Za-z.+_-]{0,63})-([0-9a-f]{8})\Z")
_ENV_ID = re.compile(r"\A([0-9a-f]{12})?\Z")
_CHECKSUM = re.compile(r"\Asha256:([0-9a-f]{64})\Z")
_URL = re.compile(r"\Ahttps?://[A-Za-z0-9._~:/?#\[\]@!&'()*+,;=%-]+\Z")
# Without $ ; ' " and \: nginx would read more than a path, and a path stands in its configuration.
_URL_PATH = re.compile(r"\A/[A-Za-z0-9._~!&()*+,=:@%/?-]*\Z")
_FOLDER = re.compile(r"\A/([A-Za-z0-9_-][A-Za-z0-9._-]*/)+\Z")
_SIZE = re.compile(r"\A[0-9]{1,6}[kmg]?\Z")
_USER = re.compile(r"\A[a-z_][a-z0-9_-]{0,31}\Z")
_SHARED = re.compile(r"\A[A-Za-z0-9_-]{1,64}\Z")
# Also a share of the memory of the host: systemd.resource-control(5), MemoryMax=.
_MEMORY = re.compile(r"\A[0-9]{1,6}[KMGT%]\Z")
_TOKEN = re.compile(r"\A[A-Za-z0-9_-]{16,128}\Z")
_LISTEN = re.compile(r"\A(?:((?:[0-9]{1,3}\.){3}[0-9]{1,3}):)?([0-9]{1,5})\Z")


def other(color: str) -> str:
    """V(green) for V(blue), and the reverse."""
    return "green" if color == "blue" else "blue"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def check_app(value: Any) -> str:
    if not isinstance(value, str) or not _APP.match(value):
        raise Refused(
            f"bluegreen_app must be a release name: [a-z][a-z0-9_]*, at most 32 characters (got {_text(value)!r})"
        )
    if value in _RESERVED_APPS:
        raise Refused(
            f"bluegreen_app must not be the name of a system account, because the app gets a user of its own (got {value!r})"
        )
    return value


def check_user(value: Any) -> str:
    if not isinstance(value, str) or not _USER.match(value) or value == "root":
        raise Refused(
            f"bluegreen_user must be the name of an account other than root, at most 32 of a-z, 0-9, _ and - (got {_text(value)!r})"
        )
    return value


def check_shared(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) and _SHARED.match(one) for one in value):
        raise Refused(
            f"bluegreen_shared must be a list of directory names such as uploads, each of letters, digits, _ and - (got {_text(value)!r})"
        )
    return value


def check_writable(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise Refused(f"bluegreen_writable must be a list of absolute paths (got {_text(value)!r})")
    return [check_path(one, "each of bluegreen_writable") for one in value]


def check_memory(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not set(value) <= {"max"} or not _MEMORY.match(str(value.get("max", "1G"))):
        raise Refused(f"bluegreen_memory must be a mapping with max, such as {{max: 512M}} (got {_text(value)!r})")
    return value


def check_color(value: Any, what: str = "color") -> str:
    if value not in COLORS:
        raise Refused(f"{what} must be blue or green (got {_text(value)!r})")
    return value


def check_domain(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 253 or not _DOMAIN.match(value):
        raise Refused(
            "bluegreen_domain must be a host name such as example.com or *.example.com, in lower case and at most 253 "
            f"characters (got {_text(value)!r})"
        )
    return value


def _port(value: Any, what: str, low: int) -> int:
    # bool is an int in Python; a YAML `true` is not a port.
    if isinstance(value, bool) or not re.match(r"\A[0-9]{1,5}\Z", str(value)) or not low <= int(value) <= 65535:
        raise Refused(f"{what} must be a whole number from {low} to 65535 (got {_text(value)!r})")
    return int(value)


def check_ports(value: Any) -> dict[str, int]:
    if not isinstance(value, dict) or sorted(value) != sorted(COLORS):
        raise Refused(f"bluegreen_ports must be a mapping with the keys blue and green (got {_text(value)!r})")
    ports = {color: _port(value[color], f"bluegreen_ports.{color}", 1024) for color in COLORS}
    if ports["blue"] == ports["green"]:
        raise Refused(
            f"bluegreen_ports must give each slot a port of its own, because both run side by side (got {ports['blue']} twice)"
        )
    return ports


def check_listen(value: Any) -> str:
    match = None if isinstance(value, bool) else _LISTEN.match(str(value))
    if not match or not all(int(part) < 256 for part in (match.group(1) or "0").split(".")):
        raise Refused(f"bluegreen_listen must be a port, or IPv4-address:port (got {_text(value)!r})")
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
            f"{what} must be an absolute path of letters, digits and . _ / - without '..' (got {_text(value)!r})"
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
            f"version must be at most 64 letters, digits and . + _ -, the first a letter or digit (got {_text(value)!r})"
        )
    return value


def check_release(value: Any) -> str:
    if not isinstance(value, str) or not _RELEASE.match(value):
        raise Refused(f"release must be <version>-<first 8 digits of its SHA-256> (got {_text(value)!r})")
    return value


def check_env_id(value: Any) -> str:
    """The id of an environment, or V('') where it is not known: a host that an older version of this collection deployed to."""
    if not isinstance(value, str) or not _ENV_ID.match(value):
        raise Refused(f"environment must be an id of 12 hexadecimal digits (got {_text(value)!r})")
    return value


def release_id(version: str, sha256: str) -> str:
    return f"{check_version(version)}-{sha256[:8]}"


def release_version(release: str) -> str:
    """The version part of a release id."""
    return check_release(release).rpartition("-")[0]


def check_checksum(value: Any) -> str:
    match = _CHECKSUM.match(value) if isinstance(value, str) else None
    if not match:
        raise Refused(f"bluegreen_artifact_checksum must be sha256: and 64 hexadecimal digits (got {_text(value)!r})")
    return match.group(1)


def is_url(artifact: str) -> bool:
    return artifact.startswith(("http://", "https://"))


def bare_url(url: str) -> str:
    """A URL without what may be secret in it: user, password, query, fragment."""
    scheme, _slashes, rest = str(url).partition("://")
    place, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{place.rpartition('@')[2]}{slash}{path}"


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
        raise Refused(f"{what} must be a URL path that starts with / (got {_text(value)!r})")
    return value


def check_aliases(value: Any, domain: str) -> list[str]:
    if not isinstance(value, list):
        raise Refused(f"bluegreen_aliases must be a list of host names (got {_text(value)!r})")
    for one in value:
        if not isinstance(one, str) or len(one) > 253 or not _DOMAIN.match(one):
            raise Refused(f"bluegreen_aliases must hold host names such as www.example.com (got {_text(one)!r})")
    if len({domain, *value}) <= len(value):
        raise Refused("bluegreen_aliases must not repeat a host name, nor name bluegreen_domain")
    return value


def check_trusted_proxies(value: Any) -> list[str]:
    """Addresses and networks, of which none is everybody."""
    if not isinstance(value, list):
        raise Refused(f"bluegreen_trusted_proxies must be a list of addresses and networks (got {_text(value)!r})")
    for one in value:
        try:
            # A scope (fe80::1%eth0) may have anything in it.
            network = ipaddress.ip_network(one if isinstance(one, str) and "%" not in one else "")
        except ValueError:
            raise Refused(
                "bluegreen_trusted_proxies must hold addresses such as 10.0.0.1 and networks such as 10.0.0.0/8, with no bit set "
                f"after the prefix (got {_text(one)!r})"
            ) from None
        if not network.prefixlen:
            raise Refused(
                f"bluegreen_trusted_proxies must not trust everybody: any visitor could forge an address (got {one})"
            )
    return value


_EMAIL = re.compile(r"\A[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+\Z")
_OWN = {"certificate", "key"}
_ACME = {"acme_email", "acme_directory", "acme_ca", "address"}


def check_tls(value: Any, listen: str, names: Iterable[Any] = ()) -> dict[str, Any]:
    """{"certificate", "key"} or {"acme_email", …}, each with "listen" and "hsts", or an empty mapping for none.

    :param names: of the site, for which an authority would be asked.
    """
    if not isinstance(value, dict) or not set(value) <= _OWN | _ACME | {"listen", "hsts"}:
        raise Refused(
            "bluegreen_tls must be a mapping of acme_email, or of certificate and key, and optionally listen (default 443) and hsts"
        )
    if not value:
        return value
    if "acme_email" in value:
        _check_acme(value, names)
    else:
        beside = sorted(_ACME & set(value))
        if beside:
            raise Refused(
                f"bluegreen_tls.{beside[0]} is for certificates of an authority: set acme_email too, or remove it"
            )
        for name in sorted(_OWN):
            check_path(value.get(name), f"bluegreen_tls.{name}")
    if "hsts" in value and not re.match(r"\A[1-9][0-9]{0,3}[dwy]\Z", str(value["hsts"])):
        raise Refused(f"bluegreen_tls.hsts must be a time such as 30d, 26w or 1y (got {_text(value['hsts'])!r})")
    try:
        check_listen(value.get("listen", "443"))
    except Refused as error:
        raise Refused(str(error).replace("bluegreen_listen", "bluegreen_tls.listen")) from None
    if str(value.get("listen", "443")) == str(listen):
        raise Refused(f"bluegreen_tls.listen must differ from bluegreen_listen (got {listen} for both)")
    return value


def _check_acme(value: Mapping[str, Any], names: Iterable[Any]) -> None:
    """Raises: Refused for what no authority, or none over http, gives a certificate for."""
    if not _EMAIL.match(str(value["acme_email"])):
        raise Refused(f"bluegreen_tls.acme_email must be an e-mail address (got {_text(value['acme_email'])!r})")
    both = sorted(_OWN & set(value))
    if both:
        raise Refused(
            f"bluegreen_tls has acme_email and {both[0]}. Remove acme_email to use a certificate of your own, or {both[0]} to get one."
        )
    directory = value.get("acme_directory", "https://x")
    if not isinstance(directory, str) or not directory.startswith("https://"):
        raise Refused(
            f"bluegreen_tls.acme_directory must be a URL that begins with https:// (got {_text(directory)!r})"
        )
    if "acme_ca" in value:
        check_path(value["acme_ca"], "bluegreen_tls.acme_ca")
    for name in [str(name) for name in names if name]:
        if name.startswith("*."):
            raise Refused(
                f"bluegreen_tls.acme_email: an authority gives {name} only to who controls its DNS. Get that certificate with a DNS plugin of "
                "certbot, and set certificate and key: see docs/how-to/https.md"
            )
        if "." not in name or name.endswith((".local", ".localhost", ".internal")) or re.match(r"\A[0-9.]+\Z", name):
            raise Refused(
                f"bluegreen_tls.acme_email: no public authority gives a certificate for {name}. Set bluegreen_domain to a public name."
            )


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
            f"bluegreen_cluster must be a mapping of address and optionally generations and ports (got {_text(value)!r})"
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
            f"IPv6, not 0.0.0.0, not 127.0.0.1 (got {_text(address)!r})"
        )
    check_choice(generations, "bluegreen_cluster.generations", _GENERATIONS)
    given = value.get("ports", {"blue": 9100, "green": 9200})
    if not isinstance(given, dict) or sorted(given) != sorted(COLORS):
        raise Refused(f"bluegreen_cluster.ports must be a mapping with the keys blue and green (got {_text(given)!r})")
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


def check_group_of_clusters(clusters: Mapping[str, Any]) -> list[str]:
    """Sentences for what does not go together in the clusters of the hosts of a group, each of them good by itself.

    :param clusters: host to bluegreen_cluster, of all hosts.
    """
    given = {host: value for host, value in clusters.items() if isinstance(value, dict) and value.get("address")}
    if not given:
        return []
    without = [host for host in clusters if host not in given]
    if without:
        return [f"bluegreen_cluster is missing on {', '.join(without)}. Set it on every host of the group, or on none."]
    wrong: list[str] = []
    owner: dict[str, str] = {}
    for host, value in given.items():
        first = owner.setdefault(value["address"], host)
        if first != host:
            wrong.append(
                f"bluegreen_cluster.address must differ on every host (got {value['address']} on {first} and {host})"
            )
    if len({value.get("generations", "together") for value in given.values()}) > 1:
        wrong.append("bluegreen_cluster.generations must be the same on every host of the group")
    return wrong


def check_body_size(value: Any) -> str:
    if not isinstance(value, (int, str)) or isinstance(value, bool) or not _SIZE.match(str(value)):
        raise Refused(f"bluegreen_body_size must be a number followed by k, m or g, such as 8m (got {_text(value)!r})")
    return str(value)


def check_assets(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) and _FOLDER.match(one) for one in value):
        raise Refused(f"bluegreen_assets must be a list of URL paths such as /assets/ (got {_text(value)!r})")
    return value


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
        raise Refused(f"since must be a whole number with s, m, h or d, such as 10m (got {_text(value)!r})")
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
                f"bluegreen_smoke must hold checks with path and optionally status and contains (got {_text(one)!r})"
            )
        check_url_path(one["path"], "bluegreen_smoke.path")
        status = check_whole(one.get("status", 200), "bluegreen_smoke.status", 100, 599)
        if not isinstance(one.get("contains", ""), str):
            raise Refused(f"bluegreen_smoke.contains must be text (got {_text(one['contains'])!r})")
        found.append({"path": one["path"], "status": status, "contains": one.get("contains", "")})
    return found


HOOKS = (
    *(f"{when}_{what}" for what in ("install", "start", "promote") for when in ("before", "after")),
    "on_failure",
)
EVENTS = ("deployed", "promoted", "rolled_back", "failed")


def check_notify(value: Any) -> list[dict[str, Any]]:
    """[{"url", "on": events}]. The URL is a secret, so no message shows it."""
    if not isinstance(value, list) or not all(isinstance(one, dict) and set(one) <= {"url", "on"} for one in value):
        raise Refused(f"bluegreen_notify must be a list of mappings with url and optionally on ({', '.join(EVENTS)})")
    for number, one in enumerate(value, 1):
        url, events, name = one.get("url"), one.get("on", []), f"bluegreen_notify[{number}]"
        if not isinstance(url, str) or not re.match(r"\Ahttps?://[^\s/]+", url):
            raise Refused(f"{name}.url must be a URL that begins with https:// (its value is not shown)")
        host = re.sub(r":[0-9]+\Z", "", url.split("/")[2].rpartition("@")[2])
        if url.startswith("http://") and not _is_private(host):
            raise Refused(
                f"{name}.url sends its secret unencrypted to {host}. Use https://, which http:// may replace only for this machine or "
                "an address of a private network."
            )
        if not isinstance(events, list):
            raise Refused(f"{name}.on must be a list of {', '.join(EVENTS)} (got {_text(events)!r})")
        for event in events:
            check_choice(event, f"each of {name}.on", EVENTS)
    return value


def _is_private(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_private
    except ValueError:
        return False


def check_hooks(value: Any) -> dict[str, list[str]]:
    if not isinstance(value, dict):
        raise Refused(
            f"bluegreen_hooks must be a mapping of {', '.join(HOOKS)} to lists of task files (got {_text(value)!r})"
        )
    for name, files in value.items():
        check_choice(name, "each key of bluegreen_hooks", HOOKS)
        if not isinstance(files, list) or not all(isinstance(one, str) and one for one in files):
            raise Refused(f"bluegreen_hooks.{name} must be a list of task files (got {_text(files)!r})")
    return value


def check_snippet(value: Any, what: str) -> str:
    """Configuration of the user's own. nginx judges it; here only what could not stand in a file of ours."""
    if not isinstance(value, str) or "\0" in value:
        raise Refused(f"{what} must be text in nginx's language (got {_text(value)!r})")
    return value


def check_whole(value: Any, what: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not re.match(r"\A[0-9]{1,9}\Z", str(value)) or not low <= int(value) <= high:
        raise Refused(f"{what} must be a whole number from {low} to {high} (got {_text(value)!r})")
    return int(value)


def check_choice(value: Any, what: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise Refused(f"{what} must be {' or '.join(choices)} (got {_text(value)!r})")
    return value


def module_name(app: str) -> str:
    """bluegreen_app as an Elixir module: my_app is MyApp, as `mix new` does it."""
    return "".join(part[:1].upper() + part[1:] for part in app.split("_"))
