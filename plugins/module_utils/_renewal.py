# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificate of a site: get it from an authority, renew it, let nginx load it. Private to this collection.

The modules use it, and set-up installs it on the host as C(<root>/bin/certificate.py), where a timer runs it without a controller. So it
needs nothing but Python and V(_certificate), which is installed beside it. ACME, the protocol, is left to certbot.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

try:
    from ansible_collections.beamops.bluegreen.plugins.module_utils import _certificate
except ImportError:
    import _certificate  # type: ignore[no-redef]

# Where a host offers its certificate to the others of its group. It is public: every visitor gets it.
OFFER = "/.well-known/bluegreen-certificate"
PROGRAMS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin"
# How long certbot may take, in seconds: authorities answer in some, and retry a host that is slow.
_PATIENCE = 300
_HISTORY_LINES = 1000
_ATTEMPTS = 4


class Problem(Exception):
    """The certificate could not be had; the text says why, in the words of the authority if it has any."""


def due(found: Mapping[str, Any] | None, names: Iterable[str], now: float, position: int = 0) -> str:
    """Why a certificate has to be got now; empty if it has not.

    When two thirds of its time are over, which is what Let's Encrypt recommends for any length
    (https://letsencrypt.org/docs/integration-guide/).

    :param position: of this host in its group. The later ones wait some days longer, so that the first renews and they take over what it got.
    """
    if not found:
        return "there is none"
    missing = _certificate.uncovered(found, names)
    if missing:
        return f"it is not for {', '.join(missing)}"
    whole, left = found["not_after"] - found["not_before"], found["not_after"] - now
    share = 1 / (3 + min(position, 6) * 0.5)
    return f"it ends in {max(0, int(left // _certificate.DAY))} days" if left <= whole * share else ""


def put(path: str, text: str, mode: int) -> None:
    """A file, whole or not at all."""
    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.new")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="ascii") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def words_of(said: str, log: str = "") -> str:
    """What certbot said, without what it says around it.

    :param log: of certbot. Some errors of the authority it cannot say: certbot 2.1 on Python 3.11 dies of them with C(AttributeError: can't
        set attribute), and only its log has them.
    """
    refusals = re.findall(
        r"^acme\.messages\.Error: urn:ietf:params:acme:error:(\w+) :: .*? :: (.+)$", log, re.MULTILINE
    )
    if refusals:
        return ": ".join(refusals[-1])
    problems = re.findall(r"^\s*Domain: *(\S+)\s+Type: *(\S+)\s+Detail: *(.+)$", said, re.MULTILINE)
    if problems:
        return "; ".join(f"{domain}: {kind}: {detail}" for domain, kind, detail in problems)
    around = re.compile(
        r"Saving debug log|Ask for help|See the logfile|Requesting a certificate|An unexpected error|- - -"
    )
    lines = [line.strip() for line in said.splitlines() if line.strip() and not around.search(line)]
    return " ".join(lines)[-500:] or "certbot said nothing"


class Certificate:
    """The certificate of one site on this host."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """:param config: what set-up wrote to C(<root>/tls/config.json)."""
        self.config = config
        self.folder = f"{config['root']}/tls"
        self.path, self.key = config["certificate"], config["key"]
        self.acme: Mapping[str, str] = config.get("acme") or {}
        self.problem_file = f"{self.folder}/problem"
        # Only while the certificate is one that this host asked for.
        self.authority_file = f"{self.folder}/authority"

    def found(self) -> dict[str, Any] | None:
        """As V(_certificate.read), if the key belongs to it."""
        return _certificate.read(self.path) if _certificate.is_pair(self.path, self.key) else None

    def due(self) -> str:
        """As V(due); also after a change of the authority, as from one for trials to the real one."""
        with contextlib.suppress(OSError):
            with open(self.authority_file, encoding="ascii") as stream:
                if stream.read() != self.acme["directory"]:
                    return "it is from another authority"
        return due(self.found(), self.config["names"], time.time(), int(self.config.get("position") or 0))

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """The timer and a deploy must not ask for the same certificate at once."""
        os.makedirs(self.folder, mode=0o755, exist_ok=True)
        with open(f"{self.folder}/lock", "w", encoding="ascii") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    # --- get it ---

    def obtain(self) -> None:
        """Get it from the authority. Raises: Problem."""
        if not os.path.exists(self.key):
            new = f"{self.folder}/.key.new"
            self._run(*"openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out".split(), new)
            os.chmod(new, 0o600)
            os.replace(new, self.key)
        request, got = f"{self.folder}/.request.pem", f"{self.folder}/.got.pem"
        names = ",".join(f"DNS:{name}" for name in self.config["names"])
        # A request of ours, not certbot's own book-keeping: so the key stays, which the other hosts of the group have too.
        words = ["-key", self.key, "-addext", f"subjectAltName={names}", "-out", request]
        self._run(*"openssl req -new -subj /".split(), *words)
        for left_over in (got, f"{self.folder}/.chain.pem", f"{self.folder}/.certificate.pem"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(left_over)
        os.makedirs(self.acme["webroot"], mode=0o755, exist_ok=True)
        for attempt in range(_ATTEMPTS):
            try:
                self._ask(request, got)
                break
            except Problem as problem:
                # Authorities forget some of what they hand out for the next request; certbot asks a second time only. Those for trials
                # forget accounts too.
                if not re.match("badNonce|accountDoesNotExist", str(problem)) or attempt == _ATTEMPTS - 1:
                    raise
                if str(problem).startswith("account"):
                    shutil.rmtree(f"{self.folder}/certbot/accounts", ignore_errors=True)
        self._take(got)
        put(self.authority_file, self.acme["directory"], 0o644)

    def _ask(self, request: str, got: str) -> None:
        """Let certbot have a request signed. Raises: Problem."""
        own, acme = f"{self.folder}/certbot", self.acme
        options = {
            "email": acme["email"],
            "server": acme["directory"],
            "webroot-path": acme["webroot"],
            "csr": request,
            "fullchain-path": got,
            "chain-path": f"{self.folder}/.chain.pem",
            "cert-path": f"{self.folder}/.certificate.pem",
            # What the user's own certbot has is left alone.
            "config-dir": own,
            "work-dir": f"{own}/work",
            "logs-dir": f"{own}/logs",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        env = {"REQUESTS_CA_BUNDLE": acme["ca"]} if acme.get("ca") else {}
        log = f"{own}/logs/letsencrypt.log"
        self._run(
            *"certbot certonly --non-interactive --agree-tos --no-eff-email --webroot".split(), *words, env=env, log=log
        )

    def fetch(self) -> bool:
        """Take over a newer certificate of another host of the group, for the key that they share. Whether there was one."""
        for address in self.config.get("peers", []):
            with contextlib.suppress(OSError, http.client.HTTPException, Problem):
                connection = http.client.HTTPConnection(address, timeout=5)
                with contextlib.closing(connection):
                    connection.request("GET", OFFER, headers={"Host": self.config["domain"]})
                    answer = connection.getresponse()
                    text = answer.read(100_000).decode("ascii", "ignore") if answer.status == 200 else ""
                if text:
                    got = f"{self.folder}/.got.pem"
                    put(got, text, 0o644)
                    if (_certificate.read(got) or {"not_after": 0})["not_after"] > (self.found() or {"not_after": 0})[
                        "not_after"
                    ]:
                        self._take(got)
                        return True
        return False

    def _take(self, path: str) -> None:
        """Put a certificate in place. Raises: Problem if it is not what was asked for."""
        got = _certificate.read(path)
        if not got or not _certificate.is_pair(path, self.key) or _certificate.uncovered(got, self.config["names"]):
            raise Problem(
                f"the certificate is not for the key and the names of this site: {', '.join((got or {}).get('names', [])) or 'unreadable'}"
            )
        with open(path, encoding="ascii") as stream:
            put(self.path, stream.read(), 0o644)
        self.forget_authority()

    def forget_authority(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.authority_file)

    @staticmethod
    def _run(*words: str, env: Mapping[str, str] | None = None, log: str = "") -> None:
        program = shutil.which(words[0], path=PROGRAMS)
        if not program:
            raise Problem(f"{words[0]} is not installed")
        try:
            done = subprocess.run(
                [program, *words[1:]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_PATIENCE,
                check=False,
                text=True,
                errors="replace",
                umask=0o077 if words[0] == "openssl" else 0o022,
                env={"PATH": PROGRAMS, "LANG": "C.UTF-8", "HOME": "/root", **(env or {})},
            )
        except subprocess.TimeoutExpired:
            raise Problem(f"{words[0]} did not finish within {_PATIENCE} s") from None
        if done.returncode:
            with contextlib.suppress(OSError), open(log or os.devnull, encoding="utf-8", errors="replace") as stream:
                log = stream.read()
            raise Problem(words_of(done.stdout, log))

    # --- let nginx load it ---

    def served(self) -> str | None:
        """Fingerprint of what nginx serves for the domain, or V(None) if it serves none."""
        address, _colon, port = self.config["listen"].rpartition(":")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with socket.create_connection((address or "127.0.0.1", int(port)), timeout=5) as plain:
                with context.wrap_socket(plain, server_hostname=self.config["domain"].replace("*", "x")) as encrypted:
                    return hashlib.sha256(encrypted.getpeercert(binary_form=True) or b"").hexdigest()
        except (OSError, ValueError):
            return None

    def site(self) -> str:
        """The text of the site that is installed."""
        try:
            with open(self.config["site"], encoding="utf-8", errors="replace") as stream:
                return stream.read()
        except OSError:
            return ""

    def load(self) -> bool:
        """Let nginx load it, if it serves another one. Whether that was needed. Raises: Problem."""
        found = self.found()
        if (
            not found
            or f"ssl_certificate {self.path};" not in self.site()
            or self.served() in (None, found["fingerprint"])
        ):
            return False
        # A configuration that somebody broke meanwhile would cost the reload, and stays as it is.
        self._run("nginx", "-c", self.config["nginx_conf"], "-t", "-q")
        self._run("nginx", "-c", self.config["nginx_conf"], "-s", "reload")
        deadline = time.monotonic() + 15
        while self.served() != found["fingerprint"]:
            if time.monotonic() > deadline:
                raise Problem("nginx does not serve the new certificate 15 s after a reload. Its error log says why.")
            time.sleep(0.2)
        return True

    # --- all of it ---

    def renew(self, force: bool = False) -> bool:
        """Get the certificate if it is due. Whether there is a new one. Raises: Problem."""
        with self.alone():
            # Somebody may have gone back to http, or to a certificate of his own, and left us here.
            wanted = bool(self.acme) and f"root {self.acme['webroot']};" in self.site()
            if not wanted or not (force or self.due()):
                return False
            began = time.monotonic()
            try:
                if force or not self.fetch() or self.due():
                    self.obtain()
            except Problem as problem:
                put(self.problem_file, f"{problem}\n".encode("ascii", "replace").decode(), 0o644)
                self._record("failed", str(problem), time.monotonic() - began)
                raise
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.problem_file)
            found = _certificate.read(self.path) or {}
            until = time.strftime("%Y-%m-%d", time.gmtime(found.get("not_after", 0)))
            self._record("ok", f"issued by {found.get('issuer')}, valid until {until}", time.monotonic() - began)
            return True

    def _record(self, result: str, why: str, seconds: float) -> None:
        """A line of the history."""
        path = f"{self.config['root']}/history.jsonl"
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        entry = {
            "at": at,
            "operation": "certificate",
            "result": result,
            "seconds": round(seconds, 1),
            "who": "this host",
            "why": why,
        }
        lines = []
        with contextlib.suppress(OSError):
            with open(path, encoding="utf-8") as stream:
                lines = stream.read().splitlines()[-_HISTORY_LINES + 1 :]
        put(path, "\n".join([*lines, json.dumps(entry, sort_keys=True)]) + "\n", 0o644)


def main() -> int:
    """C(certificate.py CONFIG [--force]): what the timer and the path unit run."""
    with open(sys.argv[1], encoding="utf-8") as stream:
        certificate = Certificate(json.load(stream))
    try:
        got = certificate.renew(force="--force" in sys.argv)
        loaded = certificate.load()
    except Problem as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    sys.stdout.write(
        f"{'new certificate' if got else 'no certificate due'}, nginx {'reloaded' if loaded else 'has it'}\n"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
