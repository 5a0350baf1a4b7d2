# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests on real hosts share: running playbooks, asking the site, and a client that never stops asking."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time

import requests

ARTIFACTS = os.environ.get("BLUEGREEN_TEST_ARTIFACTS", "")


# molecule asks for colors, whose codes stand between the words of the output.
PLAIN = {"ANSIBLE_FORCE_COLOR": "false", "ANSIBLE_NOCOLOR": "true"}


def artifact(name):
    return f"{ARTIFACTS}/{name}.tar.gz"


class Run:
    """What a playbook run printed and left."""

    def __init__(self, done):
        self.rc = done.returncode
        self.text = done.stdout

    def changed(self):
        """How many tasks changed something, over all hosts."""
        numbers = re.findall(r"\bchanged=(\d+)", self.text)
        assert numbers, f"no recap in {self.text!r}"
        return sum(int(number) for number in numbers)


def playbook(inventory, name, *args, rc=0, verbose=None, env=None):
    """Run a playbook of the collection. Fails, with all that it printed, unless it exits as expected.

    :param rc: expected exit status; V(None) for any but 0.
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
    fine = done.returncode != 0 if rc is None else done.returncode == rc
    assert fine, f"{' '.join(words)}: exit {done.returncode}\n{done.stdout[-12000:]}"
    return Run(done)


class Site:
    """The site of one host, as its users see it."""

    def __init__(self, port, domain):
        self.base = f"http://127.0.0.1:{port}"
        self.headers = {"Host": domain}

    def get(self, path="/", **kwargs):
        return requests.get(self.base + path, headers=self.headers, timeout=10, allow_redirects=False, **kwargs)

    def color(self):
        return self.get("/deployment_id").text

    def version(self):
        return self.get("/").json()["version"]

    def pid(self):
        return self.get("/").json()["pid"]


class Client(threading.Thread):
    """Asks a site again and again, and never retries: half of the requests on a kept connection, half on new ones.

    Bounded: it ends after V(seconds) at the latest, and asks at most 50 times a second.
    """

    def __init__(self, site, seconds=300):
        super().__init__(daemon=True)
        self.site, self.deadline = site, time.monotonic() + seconds
        self.asked, self.failed, self.seen = 0, [], {}
        self._ended = threading.Event()

    def run(self):
        kept = requests.Session()
        while not self._ended.is_set() and time.monotonic() < self.deadline:
            try:
                ask = kept.get if self.asked % 2 else requests.get
                answer = ask(self.site.base + "/", headers=self.site.headers, timeout=10)
                if answer.status_code == 200:
                    color = answer.json()["color"]
                    self.seen[color] = self.seen.get(color, 0) + 1
                else:
                    self.failed.append(f"{answer.status_code}")
            except requests.RequestException as error:
                self.failed.append(repr(error))
            self.asked += 1
            time.sleep(0.02)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_error):
        self._ended.set()
        self.join()
