# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What input is allowed. Private to this collection.

Names end up in nginx configuration, unit files, paths and shell scripts, and C(nginx -t) accepts most injections, so
everything is matched against an allow-list before it is used anywhere. All functions return the accepted value or raise
V(Refused) with a sentence that says what is wrong and what is allowed.
"""

from __future__ import annotations

import re

COLORS = ("blue", "green")

# useradd(8) on Debian takes 32 characters; the same name is the app's user, unit, upstream and Erlang node prefix.
_APP = re.compile(r"\A[a-z][a-z0-9_]{0,31}\Z")
_RESERVED_APPS = ("root", "daemon", "bin", "sys", "nobody", "sync", "mail", "news", "proxy", "backup", "nginx", "sshd")
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(r"\A(\*\.)?(" + _LABEL + r"\.)*" + _LABEL + r"\Z")
_PATH = re.compile(r"\A/[A-Za-z0-9._/-]*\Z")
_VERSION = re.compile(r"\A[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}\Z")
_RELEASE = re.compile(r"\A([0-9A-Za-z][0-9A-Za-z.+_-]{0,63})-([0-9a-f]{8})\Z")
_CHECKSUM = re.compile(r"\Asha256:([0-9a-f]{64})\Z")
_URL = re.compile(r"\Ahttps?://[A-Za-z0-9._~:/?#\[\]@!&'()*+,;=%-]+\Z")
_URL_PATH = re.compile(r"\A/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*\Z")
_LISTEN = re.compile(r"\A(?:((?:[0-9]{1,3}\.){3}[0-9]{1,3}):)?([0-9]{1,5})\Z")


class Refused(ValueError):
    """Input outside the allow-list; the text is meant for the person who typed it."""


def other(color):
    """The other color."""
    return "green" if color == "blue" else "blue"


def _text(value):
    return value if isinstance(value, str) else repr(value)


def check_app(value):
    if not isinstance(value, str) or not _APP.match(value):
        raise Refused(
            f"bluegreen_app is {_text(value)!r}: a release name of [a-z][a-z0-9_]*, at most 32 characters, is allowed"
        )
    if value in _RESERVED_APPS:
        raise Refused(f"bluegreen_app is {value!r}: that is an account of the system; the app gets a user of its own")
    return value


def check_color(value, what="color"):
    if value not in COLORS:
        raise Refused(f"{what} is {_text(value)!r}: blue or green is allowed")
    return value


def check_domain(value):
    if not isinstance(value, str) or len(value) > 253 or not _DOMAIN.match(value):
        raise Refused(
            f"bluegreen_domain is {_text(value)!r}: a host name such as example.com or *.example.com, in lower case and "
            "at most 253 characters, is allowed"
        )
    return value


def _port(value, what, low):
    # bool is an int in Python; a YAML `true` is not a port.
    if isinstance(value, bool) or not re.match(r"\A[0-9]{1,5}\Z", str(value)) or not low <= int(value) <= 65535:
        raise Refused(f"{what} is {_text(value)!r}: a whole number from {low} to 65535 is allowed")
    return int(value)


def check_ports(value):
    if not isinstance(value, dict) or sorted(value) != sorted(COLORS):
        raise Refused(f"bluegreen_ports is {_text(value)!r}: a mapping with just the keys blue and green is allowed")
    ports = {color: _port(value[color], f"bluegreen_ports.{color}", 1024) for color in COLORS}
    if ports["blue"] == ports["green"]:
        raise Refused(f"bluegreen_ports gives both slots port {ports['blue']}: they run side by side and need two")
    return ports


def check_listen(value):
    match = None if isinstance(value, bool) else _LISTEN.match(str(value))
    if not match or not all(int(part) < 256 for part in (match.group(1) or "0").split(".")):
        raise Refused(f"bluegreen_listen is {_text(value)!r}: a port, or IPv4-address:port, is allowed")
    _port(match.group(2), "bluegreen_listen", 1)
    return str(value)


def listen_address(listen):
    """Where to reach nginx from the host itself: (address, port)."""
    match = _LISTEN.match(listen)
    address = match.group(1) or "127.0.0.1"
    return ("127.0.0.1" if address == "0.0.0.0" else address), int(match.group(2))


def request_host(domain):
    """A Host header that this domain's server block answers to; a wildcard needs some name in place of the star."""
    return "www" + domain[1:] if domain.startswith("*") else domain


def check_path(value, what):
    if not isinstance(value, str) or not _PATH.match(value) or ".." in value.split("/") or value.strip("/") == "":
        raise Refused(
            f"{what} is {_text(value)!r}: an absolute path of letters, digits and . _ / - without '..' is allowed"
        )
    return value.rstrip("/")


def check_version(value):
    if not isinstance(value, str) or not _VERSION.match(value):
        raise Refused(
            f"version is {_text(value)!r}: letters, digits and . + _ - are allowed, at most 64, the first a letter or digit"
        )
    return value


def check_release(value):
    if not isinstance(value, str) or not _RELEASE.match(value):
        raise Refused(f"release is {_text(value)!r}: <version>-<first 8 of its sha256> is allowed")
    return value


def release_id(version, sha256):
    return f"{check_version(version)}-{sha256[:8]}"


def release_version(release):
    """The version part of a release id."""
    return _RELEASE.match(release).group(1)


def check_checksum(value):
    match = _CHECKSUM.match(value) if isinstance(value, str) else None
    if not match:
        raise Refused(f"bluegreen_artifact_checksum is {_text(value)!r}: sha256: and 64 hexadecimal digits is allowed")
    return match.group(1)


def is_url(artifact):
    return artifact.startswith(("http://", "https://"))


def bare_url(url):
    """A URL without what may be secret in it: user, password, query, fragment."""
    scheme, _slashes, rest = str(url).partition("://")
    place, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{place.rpartition('@')[2]}{slash}{path}"


def check_artifact(value, checksum):
    """Only the words; whether the file is there and what is in it is V(_artifact)'s matter."""
    if not isinstance(value, str) or not value:
        raise Refused("bluegreen_artifact is not set: give the path of the mix release tarball, or its http(s) URL")
    if is_url(value):
        if not _URL.match(value):
            raise Refused("bluegreen_artifact is a URL with characters that a URL does not have")
        if not checksum:
            raise Refused(
                "bluegreen_artifact is a URL: bluegreen_artifact_checksum (sha256:…) has to say what it holds"
            )
    elif "://" in value:
        raise Refused(f"bluegreen_artifact is {value!r}: a path, or an http or https URL is allowed")
    if checksum:
        check_checksum(checksum)
    return value


def check_url_path(value, what="bluegreen_health_path"):
    if not isinstance(value, str) or len(value) > 1024 or not _URL_PATH.match(value):
        raise Refused(f"{what} is {_text(value)!r}: a URL path that starts with / is allowed")
    return value


def check_whole(value, what, low, high):
    if isinstance(value, bool) or not re.match(r"\A[0-9]{1,9}\Z", str(value)) or not low <= int(value) <= high:
        raise Refused(f"{what} is {_text(value)!r}: a whole number from {low} to {high} is allowed")
    return int(value)


def check_choice(value, what, choices):
    if value not in choices:
        raise Refused(f"{what} is {_text(value)!r}: {' or '.join(choices)} is allowed")
    return value


def module_name(app):
    """bluegreen_app as an Elixir module: my_app is MyApp, as `mix new` does it."""
    return "".join(part[:1].upper() + part[1:] for part in app.split("_"))
