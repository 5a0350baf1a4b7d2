# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of the certificate of a site. Private to this collection.

With V(_renewal) it is installed on hosts, where a timer runs it without a controller. So it needs nothing but Python.
"""

from __future__ import annotations

import hashlib
import re
import ssl
from collections.abc import Iterable, Mapping
from typing import Any

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
DAY = 86400


def read(path: str) -> dict[str, Any] | None:
    """The first certificate of a file: {"names", "not_before", "not_after", "issuer", "fingerprint"}, times in seconds since 1970.

    V(None) if there is none. Python decodes a certificate that it does not trust only with a function of its own tests, which has
    been there since 2.6.
    """
    try:
        with open(path, encoding="ascii") as stream:
            found = _PEM.search(stream.read())
        told: Any = ssl._ssl._test_decode_cert(path)  # type: ignore[attr-defined] # pylint: disable=protected-access
    except (OSError, ValueError):
        return None
    if not found:
        return None
    issuer = dict(pair for part in told.get("issuer", ()) for pair in part)
    return {
        "names": [value for kind, value in told.get("subjectAltName", ()) if kind == "DNS"],
        "not_before": ssl.cert_time_to_seconds(told["notBefore"]),
        "not_after": ssl.cert_time_to_seconds(told["notAfter"]),
        "issuer": issuer.get("organizationName") or issuer.get("commonName") or "",
        "fingerprint": hashlib.sha256(ssl.PEM_cert_to_DER_cert(found.group(0))).hexdigest(),
    }


def of_site(text: str) -> tuple[str, str]:
    """Paths of the certificate and the key that a site of nginx names; empty where it names none."""
    told = dict(re.findall(r"^\s*(ssl_certificate(?:_key)?)\s+([^;]+);", text, re.MULTILINE))
    return told.get("ssl_certificate", ""), told.get("ssl_certificate_key", "")


def covers(names: Iterable[str], wanted: str) -> bool:
    """Whether one of the names of a certificate stands for a host name; C(*.example.com) does for one label (RFC 6125)."""
    return any(name == wanted or (name[:2] == "*." and name[2:] == wanted.partition(".")[2]) for name in names)


def uncovered(found: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    return [name for name in names if not covers(found["names"], name)]


def worry(found: Mapping[str, Any], now: float) -> str:
    """V(soon) if a certificate ends so soon that its renewal must have failed, V(now) if there is hardly any time left, or empty.

    15 and 7 days, or the same shares of 90 days for one that lives shorter.
    """
    whole, left = found["not_after"] - found["not_before"], found["not_after"] - now
    if left < min(7 * DAY, whole * 7 / 90):
        return "now"
    return "soon" if left < min(15 * DAY, whole * 15 / 90) else ""


def is_pair(certificate: str, key: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: "")
        return True
    except (OSError, ValueError):
        return False
