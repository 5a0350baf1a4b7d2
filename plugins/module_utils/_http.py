# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking a slot, or nginx, over HTTP. Private to this collection."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ansible_collections.beamops.bluegreen.plugins.module_utils import _files, _validate
from ansible_collections.beamops.bluegreen.plugins.module_utils._validate import COLORS

if TYPE_CHECKING:
    from ansible_collections.beamops.bluegreen.plugins.module_utils._app import App
    from ansible_collections.beamops.bluegreen.plugins.plugin_utils._types import Answer


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
    except (ConnectionResetError, http.client.BadStatusLine, ssl.SSLError) as error:
        # Somebody listens and hangs up: return 444, a handshake or a PROXY header that is missing.
        return {"error": (getattr(error, "strerror", None) or str(error)).lower(), "turned_away": True}
    except (OSError, http.client.HTTPException) as error:
        return {"error": (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()}
    finally:
        connection.close()


def through_nginx(app: App, path: str, **kwargs: Any) -> Answer:
    """What nginx answers to our own proof: an answer of V(http_get).

    It is asked where the site decides as it does for visitors, and the user's rules for visitors (a password, an address list, client
    certificates) do not apply; a site of an older version of this collection has no such place, and is asked as a visitor.
    """
    site = app.site()
    if not site["proof"]:
        return as_visitor(app, path, **kwargs)
    address, port = _validate.listen_address(site["proof"])
    return http_get(address, port, path, _validate.request_host(site["domain"]), **kwargs)


def as_visitor(app: App, path: str, headers: dict[str, str] | None = None, **kwargs: Any) -> Answer:
    """What a visitor of the site gets: an answer of V(http_get)."""
    site = app.site()
    address, port = _validate.listen_address(site["tls_listen"] or site["listen"])
    if site["proxied"]:
        headers = {"X-Forwarded-Proto": "https", **(headers or {})}
    tls = bool(site["tls_listen"])
    return http_get(address, port, path, _validate.request_host(site["domain"]), tls=tls, headers=headers, **kwargs)


@contextlib.contextmanager
def preview(app: App) -> Iterator[dict[str, str]]:
    """Headers that get a request to the idle slot, by a token that is valid within the block."""
    token = f"smoke-{uuid.uuid4().hex}"
    path = f"{app.preview}/{token}"
    _files.write_file(path, "", 0o644)
    try:
        yield {"X-Bluegreen-Preview": token}
    finally:
        _files.remove(path)


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
    """Ask nginx for the live color: (color, None) or (None, why not). Nobody asks a worker, which has no site."""
    if not app.web:
        return None, None
    answer, site = through_nginx(app, "/deployment_id"), app.site()
    color = _color(answer)
    return (color, None) if color else (None, _where(answer, site, site["proof"]))


def _color(answer: Answer) -> str | None:
    body = answer.get("body", "").strip()
    return body if answer.get("status") == 200 and body in COLORS else None


def _where(answer: Answer, site: dict[str, str], listen: str = "") -> str:
    address, port = _validate.listen_address(listen or site["tls_listen"] or site["listen"])
    return f"{describe(answer)} at {address}:{port} for {site['domain']}"


# What a rule for visitors answers: a redirect, no certificate of theirs, no password, not their address, not so many of them.
_TURNED_AWAY = (301, 302, 303, 307, 308, 400, 401, 403, 405, 429)


def check_visitors(app: App) -> tuple[str | None, str | None]:
    """Whether visitors come to the site that the proof is had from: (what is wrong or None, what to know or None).

    A rule for visitors may turn our question away. Another site that answers to the domain would leave every switch without effect.
    """
    site = app.site()
    if not site["proof"] or not app.web:
        # They were asked already, or there are none.
        return None, None
    answer, said = as_visitor(app, "/deployment_id"), _color(through_nginx(app, "/deployment_id"))
    told = _color(answer)
    if told and told == said:
        return None, None
    turned_away = answer.get("status") in _TURNED_AWAY or answer.get("turned_away")
    if turned_away and not told:
        return None, (
            f"the rules of the site turn away what is not a visitor ({_where(answer, site)}), so switches are proven at "
            f"{site['proof']} instead"
        )
    return (
        f"visitors of {site['domain']} do not come to the site of {app.name}: {f'{told}, ' if told else ''}{_where(answer, site)}. "
        "Find out which site answers to the name: nginx -T"
    ), None
