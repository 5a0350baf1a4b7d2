# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nginx of a host: test its configuration, start it, reload it with proof. Private to this collection."""

from __future__ import annotations

import difflib
import glob
import os
import re
import shutil
import signal
import socket
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ansible_collections.beamops.bluegreen.plugins.module_utils import _certificate, _files, _proc
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure
from ansible_collections.beamops.bluegreen.plugins.module_utils._service import clean_environ, run

if TYPE_CHECKING:
    from ansible_collections.beamops.bluegreen.plugins.module_utils._app import App

_CONDITION = re.compile(
    r"^(.*?)\s*# (?:nginx (<|>=) ([0-9.]+)|(with IPv6)|(with|without) HTTP/3|(if|unless) set elsewhere|(if|unless) shared elsewhere"
    r"|(with|without) a certificate)$"
)
# ssl.VERIFY_X509_PARTIAL_CHAIN, which Python has a name for since 3.10: trust the certificate itself, without its issuer.
_PARTIAL_CHAIN = 0x80000
# Of the edit that a refusal shows.
_SHOWN_LINES = 30
_VERIFY_CODES = {9: "is not valid yet", 10: "has expired"}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def for_host(
    text: str,
    version: str | None,
    has_ipv6: bool = True,
    is_set: Callable[[str], bool] = lambda directive: False,
    has_certificate: bool = True,
    has_http3: bool = False,
    is_shared: Callable[[str], bool] = lambda listen: False,
) -> str:
    """A site for this host: a line that ends in conditions, such as C(# nginx >= 1.25.1), stays only where they are so.

    :param is_set: whether another file of this nginx has a directive, which may be there once only.
    :param has_certificate: whether the certificate that the site names is there.
    :param has_http3: whether this nginx can.
    :param is_shared: whether another site shares an address of C(listen … quic) among the workers, which one has to say for all.
    """
    lines = []
    for whole in text.splitlines(keepends=True):
        line: str | None = whole
        while line and (found := _CONDITION.match(line.rstrip("\n"))):
            line, sign, wanted, ipv6, http3, once, shared, certificate = found.groups()
            if wanted:
                stays = (_numbers(version or "0") >= _numbers(wanted)) == (sign == ">=")
            elif certificate:
                stays = has_certificate == (certificate == "with")
            elif shared:
                stays = is_shared(line.split()[1]) == (shared == "if")
            elif once:
                stays = is_set(line.split()[0]) == (once == "if")
            else:
                stays = has_ipv6 if ipv6 else has_http3 == (http3 == "with")
            line = line + "\n" if stays else None
        lines.append(line or "")
    return "".join(lines)


def has_ipv6() -> bool:
    """Whether this host can listen on IPv6: its kernel may be without."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::", 0))
        return True
    except OSError:
        return False


def closed_folders(path: str) -> list[str]:
    """Of a directory and those above it, the ones that not everybody can enter, each with its mode."""
    found, folder = [], path
    while folder != "/":
        mode = os.stat(folder).st_mode & 0o7777 if os.path.exists(folder) else 0o755
        if not mode & 0o001:
            found.append(f"{folder} ({mode:04o})")
        folder = os.path.dirname(folder)
    return found[::-1]


class Edit:
    """What somebody else has done to the site that set-up wrote."""

    def __init__(self, app: App, wanted: str | None) -> None:
        """:param wanted: the text that set-up would write, if it is known."""
        self.path, self.before = app.site_file, _files.read_text(app.site_file)
        written = _files.read_text(app.site_written)
        digest = _files.sha256_hex(self.before) if self.before is not None else ""
        stamp = _files.read_text(app.site_stamp)
        # Older versions of this collection kept the hash alone, and one that was cut short before its reload left another.
        is_ours = self.before is None or self.before == written or (written is None and stamp in (None, digest))
        is_ours = is_ours or self.before == wanted or stamp == digest
        self._ours = (wanted if written is None else written) or ""
        self.by_certbot = "# managed by Certbot" in (self.before or "")
        self.by_hand = not is_ours and not self.by_certbot
        # Until the user says so in the inventory, nothing is taken away: the site would lose its https.
        self.is_kept = self.by_certbot and "ssl_certificate " not in (wanted or "")

    def note(self) -> str:
        """What to do about the edit of certbot, as a sentence."""
        certificate, key = _certificate.of_site(self.before or "")
        return (
            f"certbot has edited {self.path}, which stays as it is. To let this collection write the site again: bluegreen_tls: "
            f"{{certificate: {certificate or '…'}, key: {key or '…'}}}"
        )

    def refusal(self) -> str:
        """Why the edit of somebody is not overwritten, with the edit."""
        lines = difflib.unified_diff(self._ours.splitlines(), (self.before or "").splitlines(), lineterm="", n=1)
        shown = [line for line in lines if not line.startswith(("---", "+++"))][:_SHOWN_LINES]
        return (
            f"somebody edited {self.path}, and this run would overwrite that. Move it to bluegreen_nginx_server or "
            "bluegreen_nginx_location, then repeat with -e bluegreen_force=true:\n"
            + "\n".join(f"    {line}" for line in shown)
        )


def check_certificate(certificate: str, key: str) -> None:
    """Raises Failure if nginx, or every browser, would refuse them: missing, not a pair, expired, not valid yet.

    A handshake in memory tells all of that with what Python has; nginx itself only notices the first two.
    """
    for name, path in (("certificate", certificate), ("key", key)):
        if not os.path.isfile(path):
            raise Failure(f"bluegreen_tls.{name}: there is no file {path} on this host")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # An encrypted key would ask the terminal for its password, and so would nginx at every start.
        server.load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise Failure(f"bluegreen_tls: the key {key} does not belong to the certificate {certificate}") from None
        raise Failure(
            f"bluegreen_tls: {certificate} and {key} are not a PEM certificate and a key without a password "
            f"({(error.reason or str(error)).lower().replace('_', ' ')})"
        ) from None
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(certificate)
    client.verify_flags |= _PARTIAL_CHAIN
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (ours, theirs, ours, theirs):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as error:
            what = _VERIFY_CODES.get(error.verify_code)
            if what:
                raise Failure(f"bluegreen_tls: the certificate {certificate} {what}") from None
            return


def binary() -> str | None:
    """Path of nginx, or V(None)."""
    return shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/local/nginx/sbin:/usr/bin:/usr/local/bin:/sbin")


def fitted(app: App, text: str, version: str | None) -> str:
    """The site as it is to be on this host: see V(for_host)."""
    return for_host(
        text,
        version,
        has_ipv6(),
        lambda directive: _is_elsewhere(app, rf"{directive}\s+(?!off\b)"),
        os.path.exists(_certificate.of_site(text)[0]),
        wants_http3(text) and Nginx(app).has_http3(),
        lambda listen: _is_elsewhere(
            app, rf"listen\s+(?:\*:|0\.0\.0\.0:)?{re.escape(listen)}\s(?=[^;]*\bquic\b)[^;]*\breuseport\b"
        ),
    )


def wants_http3(text: str) -> bool:
    """Whether HTTP/3 is wanted of a site, as set-up has it, or as it is on a host that cannot do it."""
    return "# with HTTP/3" in text or "# bluegreen_tls.http3 is set" in text


def _is_elsewhere(app: App, pattern: str) -> bool:
    """Whether another file of this nginx has a directive, given as the beginning of its line."""
    paths = [
        path
        for place in ("nginx.conf", "conf.d/*.conf", "sites-enabled/*")
        for path in glob.glob(f"{app.nginx_conf_dir}/{place}")
        if path != app.site_file and os.path.isfile(path)
    ]
    return any(re.search(rf"(?:^|[;{{])\s*{pattern}", _files.read_text(path) or "", re.MULTILINE) for path in paths)


class Nginx:
    """The nginx that reads C(<nginx_conf_dir>/nginx.conf)."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.conf = f"{app.nginx_conf_dir}/nginx.conf"
        self.binary = binary()

    def _run(self, *words: str) -> tuple[int, str]:
        if not self.binary:
            raise Failure(
                "nginx is not installed. Install it, or let setup.yml install it: bluegreen_nginx_install=true"
            )
        return run([self.binary, "-c", self.conf, *words], env=clean_environ())

    def version(self) -> str | None:
        """As text such as C(1.22.1), or V(None)."""
        if not self.binary:
            return None
        _rc, text = run([self.binary, "-v"], env=clean_environ())
        found = re.search(r"nginx/([0-9.]+)", text)
        return found.group(1) if found else None

    def has_http3(self) -> bool:
        return bool(self.binary) and "http_v3_module" in run([self.binary or "", "-V"], env=clean_environ())[1]

    def test(self) -> tuple[bool, str]:
        """C(nginx -t): (fine or not, what it said)."""
        rc, text = self._run("-t")
        return rc == 0, text.strip()

    def _pid_file(self) -> str:
        rc, text = self._run("-T")
        found = re.search(r"^\s*pid\s+([^;\s]+)\s*;", text, re.MULTILINE) if rc == 0 else None
        if found:
            return found.group(1)
        _rc, text = run([self.binary or "nginx", "-V"], env=clean_environ())
        found = re.search(r"--pid-path=(\S+)", text)
        return found.group(1) if found else "/run/nginx.pid"

    def master(self) -> int | None:
        """Process id of the master, or V(None) where nginx does not run."""
        if not self.binary:
            return None
        text = _files.read_text(self._pid_file())
        try:
            pid = int(text or "")
        except ValueError:
            return None
        status = _proc.stat_of(pid)
        return pid if status and _proc.is_running(pid) and status["command"] == "nginx" else None

    def _workers(self, master: int | None) -> set[int]:
        """Workers that take new connections. One that shuts down says so in its title."""
        found = set()
        for pid in _proc.all_pids():
            status = _proc.stat_of(pid)
            if not status or status["parent"] != master or status["state"] in "ZX":
                continue
            try:
                title = _files.read_text(f"/proc/{pid}/cmdline") or ""
            except OSError:
                continue
            if "worker process" in title and "shutting down" not in title:
                found.add(pid)
        return found

    def starts_at_boot(self) -> bool:
        """Where there is no systemd, it is somebody else's business."""
        if self.app.service_manager != "systemd" or not self.binary:
            return True
        # "enabled", "static", "indirect": only of those below it is certain that nothing starts it.
        return run(["systemctl", "is-enabled", "nginx"])[1].strip() not in ("disabled", "masked")

    def start_at_boot(self) -> None:
        """Raises: Failure."""
        # Nothing that systemd knows of the unit changes, so it need not read all of them again.
        rc, text = run(["systemctl", "enable", "--no-reload", "nginx"])
        if rc:
            raise Failure(f"nginx would not start at the next boot: {text.strip()}")

    def start(self) -> None:
        if self.app.service_manager == "systemd":
            rc, text = run(["systemctl", "start", "nginx"])
        else:
            rc, text = self._run()
        if rc != 0:
            raise Failure(f"nginx does not start: {text.strip()}")

    def reload(self) -> None:
        """Reload and prove it. Raises: Failure, with the end of the error log, when the master kept its old configuration.

        Neither C(nginx -s reload) nor C(kill -HUP) says whether the master took the new configuration: their status is 0
        for a port that is taken and for a log directory that is missing. The workers tell: a new one appears, and
        every old one is gone or shutting down.
        """
        master = self.master()
        old = self._workers(master)
        began = time.monotonic()
        self.test()
        patience = 2 + 2 * (time.monotonic() - began)
        if master:
            os.kill(master, signal.SIGHUP)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            now = self._workers(master)
            if now and not now & old:
                return
            time.sleep(0.05)
        raise Failure(f"nginx refused the reload and keeps its previous configuration:\n{self._error_tail()}")

    def _error_tail(self) -> str:
        _rc, text = self._run("-T")
        found = re.search(r"^\s*error_log\s+([^;\s]+)", text, re.MULTILINE)
        log = _files.read_text(found.group(1)) if found and os.path.isfile(found.group(1)) else None
        return "\n".join((log or "").splitlines()[-5:])
