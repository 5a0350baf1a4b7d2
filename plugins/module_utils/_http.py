# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking a slot, or nginx, over HTTP. Private to this collection."""

from __future__ import annotations

import http.client
import socket
import ssl
from typing import TYPE_CHECKING, Any

from ansible_collections.beamops.bluegreen.plugins.module_utils import _validate
from ansible_collections.beamops.bluegreen.plugins.module_utils._validate import COLORS

if TYPE_CHECKING:
    from ansible_collections.beamops.bluegreen.plugins.module_utils._app import App
    from ansible_collections.beamops.bluegreen.plugins.module_utils._types import Answer


def http_get(
    address: str,
    port: int,
    path: str,
    host: str,
    timeout: float = 5.0,
    tls: bool = False,
    headers: dict[str, str] | None = None,
    size: int = 512,
) -> Answer:
    """One GET on a connection of its own: {"status", "location", "body"} or {"error"}.

    Not urllib: that follows redirects and proxies, and the answer of *this* port is wanted. With V(tls) the certificate is not
    judged here: that is done before a site is installed, and a browser's opinion does not tell which slot answers.
    """
    connection = http.client.HTTPConnection(address, port, timeout=timeout)
    try:
        if tls:
            connection.connect()
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection.sock = context.wrap_socket(connection.sock, server_hostname=host)
        sent = {"Host": host, "Connection": "close", "User-Agent": "bluegreen", **(headers or {})}
        connection.request("GET", path, headers=sent)
        answer = connection.getresponse()
        body = answer.read(size).decode("utf-8", "replace")
        return {"status": answer.status, "location": answer.getheader("Location"), "body": body}
    except socket.timeout:
        return {"error": f"no answer in {timeout:g} s"}
    except (OSError, http.client.HTTPException) as error:
        return {"error": (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()}
    finally:
        connection.close()


def through_nginx(app: App, path: str, headers: dict[str, str] | None = None, **kwargs: Any) -> Answer:
    """What a visitor of the site gets: an answer of V(http_get)."""
    site = app.site()
    address, port = _validate.listen_address(site["tls_listen"] or site["listen"])
    if site["proxied"]:
        headers = {"X-Forwarded-Proto": "https", **(headers or {})}
    tls = bool(site["tls_listen"])
    return http_get(address, port, path, _validate.request_host(site["domain"]), tls=tls, headers=headers, **kwargs)


def visitor_headers(app: App) -> dict[str, str]:
    """What nginx says of a visitor to the app: an app that forces https redirects everybody else (C(force_ssl) of Phoenix)."""
    site = app.site()
    _address, port = _validate.listen_address(site["tls_listen"] or site["listen"])
    return {
        "X-Forwarded-For": "127.0.0.1",
        "X-Forwarded-Host": _validate.request_host(site["domain"]),
        "X-Forwarded-Port": "443" if site["proxied"] else str(port),
        "X-Forwarded-Proto": "https" if site["tls_listen"] or site["proxied"] else "http",
    }


def describe(answer: Answer) -> str:
    """An answer of V(http_get) in a few words."""
    if "error" in answer:
        return answer["error"]
    if answer["location"]:
        return f"{answer['status']} to {answer['location']}"
    return str(answer["status"])


# Of an answer that a person is shown.
_SHOWN_LINES, _SHOWN_WIDTH = 5, 200


def first_lines(answer: Answer) -> str:
    """The first lines of the body of an answer, indented below what V(describe) says of it; empty where there is none.

    A health path often says in its body what is wrong. Whoever shows this takes the secrets out first.
    """
    lines = [line.strip() for line in answer.get("body", "").splitlines() if line.strip()][:_SHOWN_LINES]
    return "".join(f"\n    {line[:_SHOWN_WIDTH]}" for line in lines)


def deployment_id(app: App) -> tuple[str | None, str | None]:
    """Ask nginx for the live color: (color, None) or (None, why not)."""
    answer = through_nginx(app, "/deployment_id")
    body = answer.get("body", "").strip()
    if answer.get("status") == 200 and body in COLORS:
        return body, None
    site = app.site()
    address, port = _validate.listen_address(site["tls_listen"] or site["listen"])
    return None, f"{describe(answer)} at {address}:{port} for {site['domain']}"
