# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests on real hosts share: running playbooks, asking the site, and a client that never stops asking."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import re
import select
import socket
import ssl
import subprocess
import tarfile
import threading
import time
import warnings

import requests
import urllib3

_TRUSTING = ssl.create_default_context()
_TRUSTING.check_hostname, _TRUSTING.verify_mode = False, ssl.CERT_NONE
ARTIFACTS = os.environ.get("BLUEGREEN_TEST_ARTIFACTS", "")


# molecule asks for colors, whose codes stand between the words of the output.
PLAIN = {"ANSIBLE_FORCE_COLOR": "false", "ANSIBLE_NOCOLOR": "true"}


def artifact(name):
    return f"{ARTIFACTS}/{name}.tar.gz"


def variant(artifact_path, path, extra=0):
    """An artifact that nobody has yet: another one with one other line in an asset. Returns its path.

    :param extra: bytes, which do not compress, of one more file.
    """
    with tarfile.open(artifact_path) as source, tarfile.open(path, "w:gz") as target:
        for member in source.getmembers():
            stream = source.extractfile(member) if member.isreg() else None
            if "/priv/static/" in member.name and member.isreg():
                text = f"// made {time.time_ns()}\n".encode()
                member.size, stream = len(text), io.BytesIO(text)
            target.addfile(member, stream)
        if extra:
            member = tarfile.TarInfo(f"lib/film/priv/film-{extra}.bin")
            member.size = extra
            with open("/dev/urandom", "rb") as noise:
                target.addfile(member, noise)
    return path


class Run:
    """What a playbook run printed and left."""

    def __init__(self, done):
        self.rc = done.returncode
        self.text = done.stdout

    def says(self, *words):
        """All of it in one line, whatever lines it was broken into. Fails unless it has all the words."""
        text = " ".join(self.text.split())
        for word in words:
            assert word in text, f"{word!r} is not in:\n{self.text[-3000:]}"
        return text

    def lines(self):
        return [line.strip().strip('",') for line in self.text.splitlines()]

    def changed(self):
        """How many tasks changed something, over all hosts."""
        numbers = re.findall(r"\bchanged=(\d+)", self.text)
        assert numbers, f"no recap in {self.text!r}"
        return sum(int(number) for number in numbers)


def playbook(inventory, name, *args, rc=0, verbose=None, env=None):
    """Run a playbook of the collection. Fails, with all that it printed, unless it exits as expected.

    :param rc: expected exit status; V(None) for any but 0, C(any) for any at all.
    """
    words = ["ansible-playbook", f"beamops.bluegreen.{name}", "-i", inventory]
    for arg in args:
        if isinstance(arg, dict):
            words += ["-e", json.dumps(arg)]
        else:
            words += ["-e", arg] if "=" in arg and not arg.startswith("-") else [arg]
    done = subprocess.run(
        words + ([verbose] if verbose else []),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, **PLAIN, **(env or {})},
    )
    fine = rc is any or (done.returncode != 0 if rc is None else done.returncode == rc)
    assert fine, f"{' '.join(words)}: exit {done.returncode}\n{done.stdout[-12000:]}"
    return Run(done)


def connection(inventory, host):
    """How Ansible connects with a host of an inventory: its variables C(ansible_…)."""
    words = ["ansible-inventory", "-i", inventory, "--host", host]
    known = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    return {name: value for name, value in known.items() if name.startswith("ansible_")}


@contextlib.contextmanager
def broken(host, harm, repair):
    """While the block runs, a command has done harm to a host; another one repairs it, whatever happens in the block."""
    host.check_output(harm)
    try:
        yield
    finally:
        host.check_output(repair)


def squatting(host, port):
    """While the block runs, a process that is not ours listens on a port of a host."""
    start = f"sudo systemd-run --unit=squatter --quiet python3 -m http.server {port}; sleep 1"
    return broken(host, start, "sudo systemctl stop squatter")


def wait_until(question, seconds=30):
    """Wait for something to become true. Fails if it does not."""
    deadline = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < deadline
        time.sleep(0.2)


class Site:
    """The site of one host, as its users see it.

    :param secure: over https; whose certificate it is does not matter, V(certificate) tells.
    """

    def __init__(self, port, domain, secure=False):
        self.port, self.domain, self.secure = port, domain, secure
        self.base = f"{'https' if secure else 'http'}://127.0.0.1:{port}"
        self.headers = {"Host": domain}

    def get(self, path="/", headers=None, **kwargs):
        headers = {**self.headers, **(headers or {})}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
            return requests.get(
                self.base + path, headers=headers, timeout=10, allow_redirects=False, verify=False, **kwargs
            )

    def connection(self):
        if not self.secure:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=_TRUSTING)

    def certificate(self):
        """PEM of what a visitor of the domain is shown."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as plain:
            with _TRUSTING.wrap_socket(plain, server_hostname=self.domain) as encrypted:
                return ssl.DER_cert_to_PEM_cert(encrypted.getpeercert(binary_form=True))

    def color(self):
        return self.get("/deployment_id").text

    def version(self):
        return self.get("/").json()["version"]

    def pid(self):
        return self.get("/").json()["pid"]


class Background(threading.Thread):
    """What goes on while the body of a C(with) runs, until C(ended) is set."""

    def __init__(self):
        super().__init__(daemon=True)
        self.ended = threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_error):
        self.ended.set()
        self.join()


class Client(Background):
    """Asks a site 50 times a second and never retries: half of the requests on a kept connection, half on new ones; with
    C(kept=False), all on new ones.

    Bounded: it ends after V(seconds) at the latest. Not with V(requests): at this rate that would take a core of its own.
    """

    PERIOD = 0.02

    def __init__(self, site, seconds=3600, kept=True):
        super().__init__()
        self.site, self.deadline, self.keeps = site, time.monotonic() + seconds, kept
        self.asked, self.failed, self.excused, self.seen = 0, [], 0, {}
        self._kept, self._excuses = None, 0

    @contextlib.contextmanager
    def excused_while(self, after=2.0):
        """While the test itself kills what has to answer, and V(after) seconds longer, failures are counted apart."""
        self._excuses += 1
        try:
            yield
            time.sleep(after)
        finally:
            self._excuses -= 1

    def _connection(self, kept):
        """The kept connection, or a new one where it was closed: noticing that before a request is no retry."""
        if kept and self._kept and self._kept.sock and not select.select([self._kept.sock], [], [], 0)[0]:
            return self._kept
        connection = self.site.connection()
        if kept:
            self._kept = connection
        return connection

    def _ask(self, kept):
        connection = self._connection(kept)
        try:
            headers = self.site.headers if kept else {**self.site.headers, "Connection": "close"}
            connection.request("GET", "/", headers=headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                return f"status {answer.status}"
            color = json.loads(text)["color"]
            self.seen[color] = self.seen.get(color, 0) + 1
            return None
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return repr(error)
        finally:
            if not kept:
                connection.close()

    def run(self):
        due = time.monotonic()
        while not self.ended.is_set() and time.monotonic() < self.deadline:
            wrong = self._ask(self.keeps and self.asked % 2 == 1)
            self.asked += 1
            if wrong and self._excuses:
                self.excused += 1
            elif wrong:
                self.failed.append(f"{time.strftime('%H:%M:%S')} {wrong}")
            due = max(due + self.PERIOD, time.monotonic() - 1)
            time.sleep(max(0.0, due - time.monotonic()))


class Listener(threading.Thread):
    """A websocket that stays open: C(color) of the slot it is on, what it has C(heard), and C(closed): when, and with which code."""

    def __init__(self, site):
        super().__init__(daemon=True)
        self.heard, self.closed = [], None
        self._socket = socket.create_connection(("127.0.0.1", site.port), timeout=10)
        self._socket.sendall(
            f"GET /ws HTTP/1.1\r\nHost: {site.headers['Host']}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: bGlzdGVuZXItbGlzdGVuZXI=\r\n\r\n".encode()
        )
        self._stream = self._socket.makefile("rb")
        head = b"".join(iter(self._stream.readline, b"\r\n")).decode("latin-1").lower()
        assert " 101 " in head, head
        self.color = re.search(r"x-color: (\w+)", head).group(1)
        self._socket.settimeout(None)
        self.start()

    def run(self):
        # Frames of text below 126 bytes, as a broadcast of a test is.
        with contextlib.suppress(OSError, ValueError):
            while True:
                opcode, length = self._stream.read(2)
                text = self._stream.read(length & 0x7F)
                if opcode == 0x88:
                    self.closed = (time.monotonic(), int.from_bytes(text, "big"))
                if opcode != 0x81:
                    return
                self.heard.append(text.decode())

    def close(self):
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
