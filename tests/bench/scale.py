# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a hundred hosts cost the controller: `make bench-scale`.

Each host is a directory with an nginx and a release of its own, in a network namespace of its own, without ssh (about 10 ms of CPU a run on
the controller). So all of them share this machine, and the seconds say little of real hosts; what the controller computes, what grows with the
hosts and what breaks says much. Prints a table, and writes it into docs/performance.md.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import yaml

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tests"))

from support import document
from support.machines import SETTINGS, VARIABLES

COUNTS = [int(word) for word in os.environ.get("BENCH_HOSTS", "10 30 100").split()]
FOLDER = CHECKOUT / "build" / "scale"
ARTIFACTS = CHECKOUT / "build" / "artifacts"
NAME = "bluegreen-scale"
PLAYS = (
    ("first deploy", "deploy", {"bluegreen_artifact": str(ARTIFACTS / "sample_app-0.1.0.tar.gz")}),
    ("deploy", "deploy", {"bluegreen_artifact": str(ARTIFACTS / "sample_app-0.1.1.tar.gz")}),
    ("promote", "promote", {"color": "green"}),
    ("rollback", "rollback", {}),
    ("status", "status", {}),
)


def run(*words):
    subprocess.run(words, check=True, capture_output=True, text=True)


class Hosts:
    """Network namespaces, and a directory for each."""

    def __init__(self, count):
        self.names = [f"{NAME}{number}" for number in range(1, count + 1)]

    def up(self):
        self.down()
        FOLDER.mkdir(parents=True, exist_ok=True)
        for name in self.names:
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
            (FOLDER / name).mkdir()
            python = FOLDER / name / "python3"
            python.write_text(f'#!/bin/sh\nexec ip netns exec {name} /usr/bin/python3 "$@"\n')
            python.chmod(0o755)

    def down(self):
        """Ends what runs in our namespaces, and nothing else."""
        found = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout.split()
        for name in [word for word in found if word.startswith(NAME)]:
            for sign in (signal.SIGTERM, signal.SIGKILL):
                pids = subprocess.run(["ip", "netns", "pids", name], check=True, capture_output=True, text=True).stdout
                for pid in map(int, pids.split()):
                    try:
                        os.kill(pid, sign)
                    except ProcessLookupError:
                        continue
                time.sleep(0.1 if pids else 0)
            run("ip", "netns", "delete", name)
        shutil.rmtree(FOLDER, ignore_errors=True)

    def inventory(self):
        hosts = {}
        for name in self.names:
            folder = FOLDER / name
            hosts[name] = {
                "ansible_python_interpreter": str(folder / "python3"),
                "bluegreen_root": str(folder / "app"),
                "bluegreen_nginx_conf_dir": str(folder / "nginx"),
                "bluegreen_facts_dir": str(folder / "facts.d"),
            }
        common = {**VARIABLES, "ansible_connection": "local", "bluegreen_service_manager": "daemon"}
        # Two cores boot a hundred of them.
        common |= {"bluegreen_health_timeout": 600}
        path = FOLDER / "hosts.yml"
        path.write_text(yaml.safe_dump({"all": {"children": {"bluegreen": {"hosts": hosts, "vars": common}}}}))
        return str(path)


class Watcher(threading.Thread):
    """What ansible-playbook takes: bytes with its forks, at the most, and CPU seconds of its one main process."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.memory, self.cpu, self.over = pid, 0, 0.0, threading.Event()

    def run(self):
        while not self.over.wait(0.2):
            family = self.family()
            self.memory = max(self.memory, sum(self.proportional(pid) for pid in family))

    def family(self):
        """The controller and its forks: what they start on a host is not of it."""
        found = [self.pid]
        for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(path.parent.name) == self.pid:
                self.cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            elif int(fields[1]) == self.pid:
                found.append(int(path.parent.name))
        return found

    @staticmethod
    def proportional(pid):
        """Its share of what processes share, in bytes."""
        try:
            text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            return 0
        return next(1024 * int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))


def play(name, inventory, extra, forks):
    """(seconds, CPU seconds of the main process, bytes) of a playbook; ends the program if that fails."""
    words = ["ansible-playbook", "-i", inventory, f"beamops.bluegreen.{name}", "-e", json.dumps(extra)]
    env = {**os.environ, **SETTINGS, "ANSIBLE_FORKS": str(forks)}
    env.pop("ANSIBLE_CONFIG", None)
    env["ANSIBLE_COLLECTIONS_PATH"] = os.environ["BLUEGREEN_TEST_COLLECTIONS"]
    began = time.monotonic()
    with open(FOLDER / "last.log", "w+", encoding="utf-8") as log:
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, env=env, cwd=FOLDER)
        watcher = Watcher(process.pid)
        watcher.start()
        code = process.wait()
        watcher.over.set()
        watcher.join()
        log.seek(0)
        if code:
            sys.exit(f"{name} ended with {code}:\n{log.read()[-6000:]}")
    return time.monotonic() - began, watcher.cpu, watcher.memory


def table(found):
    rows = []
    for words, _name, _extra in PLAYS:
        of_each = [found[words, count] for count in COUNTS]
        cells = [f"{seconds:.0f} s, {cpu:.1f} s, {memory / 1e6:.0f} MB" for seconds, cpu, memory in of_each]
        rows.append([words, *cells])
    head = ["seconds, CPU seconds of the main process, MB", *(f"{count} hosts" for count in COUNTS)]
    return document.table(head, rows)


def main():
    signal.signal(signal.SIGTERM, lambda *_what: sys.exit("ended"))
    found = {}
    for count in COUNTS:
        hosts = Hosts(count)
        try:
            hosts.up()
            inventory = hosts.inventory()
            for words, name, extra in PLAYS:
                found[words, count] = play(name, inventory, extra, count)
                print(
                    "  {:4} hosts  {:14} {:7.1f} s {:7.1f} s {:14,} bytes".format(count, words, *found[words, count]),
                    flush=True,
                )
        finally:
            hosts.down()
    text = table(found)
    print("\n" + text)
    document.put(CHECKOUT / "docs" / "performance.md", "scale", text)


if __name__ == "__main__":
    main()
