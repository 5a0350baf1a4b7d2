# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the variables of an inventory may be, as far as no host has to know. Private to this collection.

As in V(_validate), which has the checks that hosts make too: all functions return the accepted value or raise V(Refused).
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Refused
from ansible_collections.beamops.bluegreen.plugins.module_utils._validate import (
    HOST_NAME,
    check_choice,
    check_listen,
    check_path,
    check_whole,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_FOLDER = re.compile(r"\A/([A-Za-z0-9_-][A-Za-z0-9._-]*/)+\Z")
_SIZE = re.compile(r"\A[0-9]{1,6}[kmg]?\Z")
# Also a share of the memory of the host: systemd.resource-control(5), MemoryMax=.
_MEMORY = re.compile(r"\A[0-9]{1,6}[KMGT%]\Z")
# A comment begins where a word could; in quotes, and in ${name}, nothing is special.
_NGINX_TOKENS = re.compile(
    r"""#[^\n]*|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[{};]|(?:\$\{[^}]*\}|\\.|[^\s{};\\])+""", re.DOTALL
)
# Those of nginx's rewrite module, and what may bring them along.
_REWRITES = {"break", "if", "include", "return", "rewrite", "set"}
_EMAIL = re.compile(r"\A[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+\Z")
_OWN = {"certificate", "key"}
_ACME = {"acme_email", "acme_directory", "acme_ca", "address"}
HOOKS = (
    *(f"{when}_{what}" for what in ("install", "start", "promote") for when in ("before", "after")),
    "on_failure",
)
EVENTS = ("deployed", "promoted", "rolled_back", "failed")


def check_writable(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise Refused(f"bluegreen_writable must be a list of absolute paths (got {shown(value)!r})")
    return [check_path(one, "each of bluegreen_writable") for one in value]


def check_quorum(value: Any) -> dict[str, str]:
    if value and (
        not isinstance(value, dict) or set(value) != {"address"} or not HOST_NAME.match(str(value["address"]))
    ):
        raise Refused(
            f"bluegreen_quorum must be a mapping with the address of this host, such as {{address: 10.0.0.1}} (got {shown(value)!r})"
        )
    return value


def check_memory(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not set(value) <= {"max"} or not _MEMORY.match(str(value.get("max", "1G"))):
        raise Refused(f"bluegreen_memory must be a mapping with max, such as {{max: 512M}} (got {shown(value)!r})")
    return value


def bare_url(url: str) -> str:
    """A URL without what may be secret in it: user, password, query, fragment."""
    scheme, _slashes, rest = str(url).partition("://")
    place, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{place.rpartition('@')[2]}{slash}{path}"


def check_aliases(value: Any, domain: str) -> list[str]:
    if not isinstance(value, list):
        raise Refused(f"bluegreen_aliases must be a list of host names (got {shown(value)!r})")
    for one in value:
        if not isinstance(one, str) or len(one) > 253 or not HOST_NAME.match(one):
            raise Refused(f"bluegreen_aliases must hold host names such as www.example.com (got {shown(one)!r})")
    if len({domain, *value}) <= len(value):
        raise Refused("bluegreen_aliases must not repeat a host name, nor name bluegreen_domain")
    return value


def check_trusted_proxies(value: Any) -> list[str]:
    """Addresses and networks, of which none is everybody."""
    if not isinstance(value, list):
        raise Refused(f"bluegreen_trusted_proxies must be a list of addresses and networks (got {shown(value)!r})")
    for one in value:
        try:
            # A scope (fe80::1%eth0) may have anything in it.
            network = ipaddress.ip_network(one if isinstance(one, str) and "%" not in one else "")
        except ValueError:
            raise Refused(
                "bluegreen_trusted_proxies must hold addresses such as 10.0.0.1 and networks such as 10.0.0.0/8, with no bit set "
                f"after the prefix (got {shown(one)!r})"
            ) from None
        if not network.prefixlen:
            raise Refused(
                f"bluegreen_trusted_proxies must not trust everybody: any visitor could forge an address (got {one})"
            )
    return value


def check_tls(value: Any, listen: str, names: Iterable[Any] = ()) -> dict[str, Any]:
    """{"certificate", "key"} or {"acme_email", …}, each with "listen", "hsts" and "http3", or an empty mapping for none.

    :param names: of the site, for which an authority would be asked.
    """
    if not isinstance(value, dict) or not set(value) <= _OWN | _ACME | {"listen", "hsts", "http3"}:
        raise Refused(
            "bluegreen_tls must be a mapping of acme_email, or of certificate and key, and optionally listen (default 443), hsts and http3"
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
        raise Refused(f"bluegreen_tls.hsts must be a time such as 30d, 26w or 1y (got {shown(value['hsts'])!r})")
    if not isinstance(value.get("http3", False), bool):
        raise Refused(f"bluegreen_tls.http3 must be true or false (got {shown(value['http3'])!r})")
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
        raise Refused(f"bluegreen_tls.acme_email must be an e-mail address (got {shown(value['acme_email'])!r})")
    both = sorted(_OWN & set(value))
    if both:
        raise Refused(
            f"bluegreen_tls has acme_email and {both[0]}. Remove acme_email to use a certificate of your own, or {both[0]} to get one."
        )
    directory = value.get("acme_directory", "https://x")
    if not isinstance(directory, str) or not directory.startswith("https://"):
        raise Refused(
            f"bluegreen_tls.acme_directory must be a URL that begins with https:// (got {shown(directory)!r})"
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


_WATCH = {"seconds": 60, "errors": 1, "slower": 2, "least": 50, "restarts": 3}
# Seconds between two looks.
_LOOK_EVERY = 5


def check_watch(value: Any) -> dict[str, Any]:
    """{"seconds", "errors", "slower", "least", "restarts"}, complete, and C(looks), when to look in seconds; all empty for none."""
    if not isinstance(value, dict) or not set(value) <= set(_WATCH):
        raise Refused(f"bluegreen_watch must be a mapping of {', '.join(_WATCH)} (got {shown(value)!r})")
    found: dict[str, Any] = {**_WATCH, **value}
    for name, low, high in (("seconds", 0, 3600), ("least", 1, 1000000), ("restarts", 0, 1000)):
        found[name] = check_whole(found[name], f"bluegreen_watch.{name}", low, high)
    for name, low, high in (("errors", 0, 100), ("slower", 1, 1000)):
        try:
            number = float(found[name]) if not isinstance(found[name], bool) else math.nan
        except (TypeError, ValueError):
            number = math.nan
        if not low <= number <= high:
            raise Refused(f"bluegreen_watch.{name} must be a number from {low} to {high} (got {shown(found[name])!r})")
        found[name] = number
    return {**found, "looks": looks(found["seconds"]) if value else []}


def _directives(snippet: str) -> Iterator[list[str]]:
    """The directives that a snippet of nginx has outside of any block, each as its words."""
    depth, words = 0, list[str]()
    for token in _NGINX_TOKENS.findall(snippet or ""):
        if token in ("{", "}", ";"):
            if words and not depth:
                yield words
            words = []
            depth += {"{": 1, "}": -1}.get(token, 0)
        elif not token.startswith("#"):
            words.append(token)
    if words and not depth:
        yield words


def access_log(snippet: str) -> str:
    """The first value of an access_log that a snippet has outside of any block, or empty: it puts out those of the whole nginx there."""
    found = ""
    for words in _directives(snippet):
        if words[0] == "access_log" and len(words) > 1 and found != "off":
            found = words[1]
    return found


def rewrites(snippet: str) -> bool:
    """Whether a snippet for the server may have directives that nginx skips behind a C(break)."""
    # set_by_lua and its like are of the rewrite phase, too.
    return any(
        words[0] in _REWRITES or (words[0].startswith("set_") and words[0] != "set_real_ip_from")
        for words in _directives(snippet)
    )


def looks(seconds: int) -> list[int]:
    """When a watch looks, in seconds from its beginning; the last time is its end."""
    return [*range(_LOOK_EVERY, seconds, _LOOK_EVERY), seconds] if seconds else []


def check_steps(value: Any) -> list[int]:
    """The shares of a promote that goes up by itself, in percent, such as 5,25,50."""
    words = str(value).split(",")
    wrong = Refused(f"steps must be growing shares from 1 to 99, such as 5,25,50 (got {shown(value)!r})")
    if not all(re.match(r"\A[1-9][0-9]?\Z", word) for word in words):
        raise wrong
    found = [int(word) for word in words]
    if sorted(set(found)) != found:
        raise wrong
    return found


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
        raise Refused(f"bluegreen_body_size must be a number followed by k, m or g, such as 8m (got {shown(value)!r})")
    return str(value)


def check_assets(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) and _FOLDER.match(one) for one in value):
        raise Refused(f"bluegreen_assets must be a list of URL paths such as /assets/ (got {shown(value)!r})")
    return value


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
            raise Refused(f"{name}.on must be a list of {', '.join(EVENTS)} (got {shown(events)!r})")
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
            f"bluegreen_hooks must be a mapping of {', '.join(HOOKS)} to lists of task files (got {shown(value)!r})"
        )
    for name, files in value.items():
        check_choice(name, "each key of bluegreen_hooks", HOOKS)
        if not isinstance(files, list) or not all(isinstance(one, str) and one for one in files):
            raise Refused(f"bluegreen_hooks.{name} must be a list of task files (got {shown(files)!r})")
    return value


def check_snippet(value: Any, what: str) -> str:
    """Configuration of the user's own. nginx judges it; here only what could not stand in a file of ours."""
    if not isinstance(value, str) or "\0" in value:
        raise Refused(f"{what} must be text in nginx's language (got {shown(value)!r})")
    return value


def module_name(app: str) -> str:
    """bluegreen_app as an Elixir module: my_app is MyApp, as `mix new` does it."""
    return "".join(part[:1].upper() + part[1:] for part in app.split("_"))
