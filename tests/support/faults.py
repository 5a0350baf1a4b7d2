# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counting faults, and running one module on a test host while strace does it harm.

C(BLUEGREEN_FAULTS_EVERY=1) tries every fault there is (C(make test-faults)); a larger number, for the sample in C(make test),
every so many.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import subprocess
import tarfile
import threading
import time

import ansible

from support.fleet import ROOT, inside

EVERY = int(os.environ.get("BLUEGREEN_FAULTS_EVERY", "128"))
APP = {
    "app": "sample_app",
    "root": ROOT,
    "domain": "sample.test",
    "ports": {"blue": 4000, "green": 5000},
    "listen": "80",
    "service_manager": "systemd",
}
HEALTH = {"health_path": "/health"}


class Faults:
    """What was tried, and what did not survive it. One for the whole session; tests run threads."""

    def __init__(self):
        self.tried, self.fatal = {}, []
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def noted(self, name):
        """What goes wrong is noted, and the test goes on."""
        try:
            yield
        except (AssertionError, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            with self._lock:
                # Of what a playbook printed, the end says why.
                self.fatal.append(f"{name}: {(str(error) or repr(error))[-6000:]}")

    @contextlib.contextmanager
    def one(self, kind, name):
        """One fault of a kind."""
        with self._lock:
            self.tried[kind] = self.tried.get(kind, 0) + 1
        # Shown where a test fails, to be held against the times of requests that failed.
        print(time.strftime("%H:%M:%S"), kind, name)
        with self.noted(f"{kind}: {name}"):
            yield

    def all_survived(self, since):
        """Raises AssertionError with whatever did not survive since there were V(since) of them."""
        assert not self.fatal[since:], "\n\n".join(self.fatal[since:])

    def summary(self):
        tried = sum(self.tried.values())
        parts = ", ".join(f"{number} {kind}" for kind, number in self.tried.items())
        return f"{tried} faults tried, {tried - len(self.fatal)} survived ({parts})"


FAULTS = Faults()


def chosen(points):
    """Of many points, every so many, and one of few."""
    points = list(points)
    return points if EVERY == 1 else points[EVERY // 2 :: EVERY] or points[len(points) // 2 :][:1]


# --- modules under strace ------------------------------------------------------------------------------------------


def prepare(host):
    """Copy to a host what a module needs to run there without Ansible around it."""
    here = os.path.dirname(os.path.abspath(__file__))
    installed = os.environ["BLUEGREEN_TEST_COLLECTIONS"]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(f"{here}/target.py", "target.py")
        tar.addfile(tarfile.TarInfo("ansible/__init__.py"))
        tar.add(f"{os.path.dirname(ansible.__file__)}/module_utils", "ansible/module_utils")
        place = "ansible_collections/beamops/bluegreen/plugins"
        tar.add(f"{installed}/{place}", place)
    inside(host, "rm -rf /root/faults && mkdir -p /root/faults")
    subprocess.run(
        ["docker", "exec", "-i", host, "tar", "-C", "/root/faults", "-x"], input=buffer.getvalue(), check=True
    )


def _target(host, job):
    words = ["docker", "exec", "-i", host, "python3", "/root/faults/target.py"]
    done = subprocess.run(words, input=json.dumps(job), capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def picture(host):
    """All that can be seen of the app on a host; fails if its site does not answer from one slot."""
    seen = _target(host, APP)
    assert not seen["wrong"], f"{seen['wrong']}: {seen['site']}"
    return seen


def comparable(seen):
    """Of a picture, what two runs that did the same have in common."""
    return {name: seen[name] for name in ("files", "units", "site")}


def differences(seen, wanted):
    """Sentences on what is not as after an undisturbed run."""
    lines = []
    for part in wanted:
        for name in sorted({*wanted[part], *seen[part]}):
            if wanted[part].get(name) != seen[part].get(name):
                lines.append(
                    f"{name}: {wanted[part].get(name)!r} undisturbed, {seen[part].get(name)!r} after the fault"
                )
    return lines


def module(host, name, args, **how):
    """Run a module on a host; C(inject) and C(list) as in target.py."""
    return _target(host, {"module": name, "args": {**APP, **args}, **how})


def well(host, name, args):
    """Run a module that has to succeed."""
    answer = module(host, name, args)
    assert answer["result"] and answer["result"].get("ok"), f"{name} {args}: {answer}"
    return answer["result"]


def packed(host, env):
    """An environment as slot_service takes it. Packed on the host, where the collection can be imported."""
    code = (
        "import sys, json; sys.path.insert(0, '/root/faults');"
        "from ansible_collections.beamops.bluegreen.plugins.module_utils import _envfile;"
        "print(_envfile.pack(json.load(sys.stdin)))"
    )
    words = ["docker", "exec", "-i", host, "python3", "-B", "-c", code]
    return subprocess.run(words, input=json.dumps(env), capture_output=True, text=True, check=True).stdout.strip()


def points_of(calls, polling=("vfork", "clone", "wait4")):
    """The calls of an undisturbed run as [(name, which of its kind)].

    A module that waits starts the same harmless programs again and again, and how often depends on the time of day: of a
    long row of those only the beginning and the end are kept.
    """
    counts, points = {}, []
    for name in calls:
        counts[name] = counts.get(name, 0) + 1
        points.append((name, counts[name]))
    kept = []
    for waits, group in itertools.groupby(points, lambda point: point[0] in polling):
        row = list(group)
        kept += row[:20] + row[-2:] if waits and len(row) > 22 else row
    return kept
