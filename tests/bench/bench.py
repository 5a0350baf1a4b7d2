# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a deploy, a promote and a status take, beside the same cycle typed by hand and a usual Ansible playbook: `make bench`.

All of it on the same containers, over ssh, in turns, so that only ratios count; over loopback and over a link of 80 ms (one way) and
20 Mbit/s. Prints them, and writes them into docs/performance.md and docs/performance.svg.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tests"))

from support import bluegreen, document, plot
from support.document import table
from support.machines import SETTINGS, VARIABLES, Machines
from support.slow_link import slow_link

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
COUNTS = [int(word) for word in os.environ.get("BENCH_HOSTS", "1 4 16").split()]
# How often with more than one host.
MANY = int(os.environ.get("BENCH_MANY", "3"))
LOOPBACK, LONG = "loopback", "80 ms"
# The long link: its ports are so much higher, and it carries 20 Mbit/s.
FAR, BYTES_PER_SECOND = 200, 2_500_000
ORDER = [
    "first deploy",
    "deploy",
    "hand deploy",
    "usual",
    "again",
    "promote",
    "hand promote",
    "rollback",
    "status",
    "1 ping",
]
ORDER += ["promote, open", "rollback, open", "status, open", "1 ping, open", "3 ping, open", "4 ping, open"]
FOLDER = CHECKOUT / "build" / "bench"
HERE = CHECKOUT / "tests" / "bench"
ARTIFACTS = CHECKOUT / "build" / "artifacts"
ROOT = "/opt/sample_app"
OTHER = {"blue": "green", "green": "blue"}
HAND_ENV = "PHX_SERVER=true\nSECRET_KEY_BASE=bench-secret-key-base\n"


class Bench:
    def __init__(self):
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir(parents=True)
        (FOLDER / "env").write_text(HAND_ENV)
        for number in range(1, 6):
            pings = "".join("    - ansible.builtin.ping:\n" for _again in range(number))
            play = f"- hosts: bluegreen\n  gather_facts: false\n  become: true\n  tasks:\n{pings}"
            (FOLDER / f"ping{number}.yml").write_text(play)
        key, image = os.environ["BLUEGREEN_TEST_KEY"], os.environ["BLUEGREEN_TEST_IMAGE"]
        self.machines = Machines(max(COUNTS), image, key, str(FOLDER))
        self.env = {**os.environ, **SETTINGS, "KEY": key, "STATE": str(FOLDER)}
        self.env.pop("ANSIBLE_CONFIG", None)
        self.env["ANSIBLE_COLLECTIONS_PATH"] = os.environ["BLUEGREEN_TEST_COLLECTIONS"]
        self.sockets = FOLDER / "sockets"
        self.sockets.mkdir()
        self.env["ANSIBLE_SSH_CONTROL_PATH_DIR"] = str(self.sockets)
        self.number, self.times, self.memory, self.said, self.link = 0, {}, 0, "", LOOPBACK

    # --- running things ---

    def run(self, words, **env):
        """Returns seconds; what it printed and the memory of its largest process are kept."""
        began = time.monotonic()
        with open(FOLDER / "last.log", "w+", encoding="utf-8") as log:
            process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, env={**self.env, **env}, cwd=FOLDER)
            _pid, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            seconds = time.monotonic() - began
            log.seek(0)
            self.said = log.read()
        if process.returncode:
            sys.exit(f"{' '.join(map(str, words))} ended with {process.returncode}:\n{self.said[-6000:]}")
        self.memory = used.ru_maxrss * 1024
        return seconds

    def inventory(self, count):
        return self.machines.inventory(count, **VARIABLES)

    def play(self, name, count, extra=None, **env):
        words = ["ansible-playbook", "-i", self.inventory(count), name]
        return self.run(words + (["-e", json.dumps(extra)] if extra else []), **env)

    def ours(self, name, count, extra=None, **env):
        return self.play(f"beamops.bluegreen.{name}", count, extra, **env)

    def deploy(self, path, count, **extra):
        return self.ours("deploy", count, {"bluegreen_artifact": str(path), **extra})

    def by_hand(self, what, count, *words):
        ports = [str(host.ssh_port) for host in self.machines.hosts[:count]]
        return self.run([HERE / "by_hand.sh", what, *map(str, words), *ports])

    def new(self, extra=0):
        self.number += 1
        return bluegreen.variant(ARTIFACTS / "sample_app-0.1.1.tar.gz", FOLDER / f"variant-{self.number}.tar.gz", extra)

    def idle(self):
        return OTHER[self.machines.hosts[0].run(f"basename $(readlink {ROOT}/live)")]

    # --- what is measured ---

    def note(self, name, count, seconds):
        self.times.setdefault((self.link, name, count), []).append(seconds)
        print(f"  {self.link:8} {count:2} hosts  {name:14} {seconds:6.2f} s", flush=True)

    def close(self):
        """Ends the connections that ssh keeps: somebody who comes back to type the next command has none."""
        for socket in self.sockets.iterdir():
            subprocess.run(["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "x"], capture_output=True, check=False)

    def closed(self, name, count, run):
        self.close()
        self.note(name, count, run())

    def first_deploys(self, hosts):
        """On hosts that have nginx and nothing else, one after the other."""
        everybody = self.machines.hosts
        for host in hosts:
            self.machines.hosts = [host]
            self.closed("1 ping", 1, lambda: self.play("ping1.yml", 1))
            self.closed("first deploy", 1, lambda: self.deploy(ARTIFACTS / "sample_app-0.1.0.tar.gz", 1))
        self.machines.hosts = everybody

    def rounds(self, count, rounds, rivals):
        """Everything in turns, so that whatever else the machine does hits all alike."""
        self.deploy(ARTIFACTS / "sample_app-0.1.0.tar.gz", count, bluegreen_promote=True, bluegreen_force=True)
        self.deploy(ARTIFACTS / "sample_app-0.1.1.tar.gz", count, bluegreen_force=True)
        for _slot in ("blue", "green") if "hand" in rivals else ():
            # Into an occupied slot, for both.
            self.by_hand("deploy", count, ARTIFACTS / "sample_app-0.1.0.tar.gz", "0.1.0")
            self.by_hand("promote", count, self.by_hand_idle())
        for number in range(rounds):
            path = self.new()
            self.closed("deploy", count, lambda path=path: self.deploy(path, count))
            if number < rivals.get("hand", 0):
                version = f"0.1.1-{self.number % 4}"
                self.note("hand deploy", count, self.by_hand("deploy", count, path, version))
                self.note("hand promote", count, self.by_hand("promote", count, self.by_hand_idle()))
            if number < rivals.get("usual", 0):
                wanted = {"tarball": str(path), "version": str(self.number % 4)}
                self.note("usual", count, self.play(HERE / "conventional.yml", count, wanted))
            self.closed("1 ping", count, lambda: self.play("ping1.yml", count))
            self.closed("promote", count, lambda: self.ours("promote", count, {"color": self.idle()}))
            self.closed("again", count, lambda path=path: self.deploy(path, count))
            assert not sum(map(int, re.findall(r"changed=(\d+)", self.said))) and ": sending " not in self.said, (
                self.said
            )
            self.closed("rollback", count, lambda: self.ours("rollback", count))
            self.closed("status", count, lambda: self.ours("status", count))
            # And once more with the connection that the last one has left.
            for pings in (1, 3, 4):
                self.note(f"{pings} ping, open", count, self.play(f"ping{pings}.yml", count))
            self.note("promote, open", count, self.ours("promote", count, {"color": self.idle()}))
            self.note("rollback, open", count, self.ours("rollback", count))
            self.note("status, open", count, self.ours("status", count))

    def large(self):
        """An artifact of 60 MB as a whole, and with 1 % of it changed: (bytes, seconds) of both."""
        whole = bluegreen.variant(ARTIFACTS / "sample_app-0.1.1.tar.gz", FOLDER / "large.tar.gz", 54_500_000)
        sizes, seconds = [], []
        for path in (whole, bluegreen.variant(whole, FOLDER / "large-changed.tar.gz", 600_000)):
            self.close()
            seconds.append(self.deploy(path, 1))
            sent = re.search(r": sending ([\d.]+) (kB|MB)", self.said)
            sizes.append(float(sent[1]) * {"kB": 1e3, "MB": 1e6}[sent[2]])
        return sizes, seconds

    def site(self):
        """Requests a second of our site beside a plain proxy to the same slot of the same nginx, by the color that is live."""
        host, found = self.machines.hosts[0], {}
        address = host.run("hostname -i").split()[0]
        for _color in OTHER:
            live = OTHER[self.idle()]
            port = {"blue": 4000, "green": 5000}[live]
            text = (HERE / "plain.conf").read_text().replace("PORT", str(port))
            host.run(f"printf '%s' '{text}' >/etc/nginx/conf.d/plain.conf && nginx -s reload && sleep 1")
            rates = {"plain.test": [], "sample.test": []}
            for _round in range(max(3, ROUNDS)):
                for name, found_rates in rates.items():
                    words = ["wrk", "-t1", "-c16", "-d3", "-H", f"Host: {name}", f"http://{address}/"]
                    self.run(words)
                    assert "Non-2xx" not in self.said, self.said
                    found_rates.append(float(re.search(r"Requests/sec:\s+([\d.]+)", self.said)[1]))
            found[live] = statistics.median(rates["sample.test"]) / statistics.median(rates["plain.test"])
            self.ours("promote", 1, {"color": self.idle()})
        host.run("rm /etc/nginx/conf.d/plain.conf && nginx -s reload")
        return found

    @contextlib.contextmanager
    def over(self, link):
        """All that runs meanwhile reaches the hosts over this link."""
        far = FAR if link == LONG else 0
        self.link = link
        for host in self.machines.hosts:
            host.ssh_port += far
        try:
            yield
        finally:
            self.close()
            self.link = LOOPBACK
            for host in self.machines.hosts:
                host.ssh_port -= far

    def by_hand_idle(self):
        return OTHER[self.machines.hosts[0].run("curl -s -H Host:hand.test http://127.0.0.1/deployment_id")]

    def median(self, name, count, link=LOOPBACK):
        return statistics.median(self.times[link, name, count])

    def ratio(self, name, beside, count, link=LOOPBACK):
        """As text, for a table; empty where it was not measured."""
        if (link, name, count) not in self.times or (link, beside, count) not in self.times:
            return ""
        return f"{self.median(name, count, link) / self.median(beside, count, link):.2f}"

    def boot(self):
        """Seconds that a slot of one host takes to stop, to start and to answer, which no tool can do without."""
        host = self.machines.hosts[0]
        unit = f"sample_app@{self.idle()}"
        wait = "until curl -fs -o /dev/null http://127.0.0.1:$port/health; do sleep 0.05; done"
        port = 4000 if self.idle() == "blue" else 5000
        times = []
        for _round in range(ROUNDS):
            began = time.monotonic()
            host.run(f"port={port}; systemctl restart {unit} && {wait}")
            times.append(time.monotonic() - began)
        return statistics.median(times)

    def traffic(self):
        """What is sent to a host, and what its disk grows by: first deploy, one line changed, nothing changed."""
        host, rows = self.machines.hosts[0], []
        size = (ARTIFACTS / "sample_app-0.1.0.tar.gz").stat().st_size
        steps = [
            ("first deploy", ARTIFACTS / "sample_app-0.1.0.tar.gz"),
            ("next version", ARTIFACTS / "sample_app-0.1.1.tar.gz"),
            ("one line changed", ARTIFACTS / "sample_app-0.1.1-rebuilt.tar.gz"),
            ("nothing changed", ARTIFACTS / "sample_app-0.1.1-rebuilt.tar.gz"),
        ]
        self.ours("setup", 1)
        for name, path in steps:
            before, disk = host.received(), self.disk(host)
            self.deploy(path, 1)
            sent = re.search(r": sending ([\d.]+) (kB|MB)", self.said)
            artifact = float(sent[1]) * {"kB": 1e3, "MB": 1e6}[sent[2]] if sent else 0
            rows.append((name, size, artifact, host.received() - before, self.disk(host) - disk))
        return rows, self.disk(host, True)

    @staticmethod
    def disk(host, whole=False):
        command = f"du -sk {ROOT}/releases | cut -f1" if not whole else f"du -sk {ROOT}/releases/0.1.0-* | cut -f1"
        return int(host.run(command)) * 1024

    def executions(self):
        """How often ssh and sftp are run for one host, for each playbook."""
        log, rows = FOLDER / "counted.log", []
        for name in ("ssh", "sftp"):
            (FOLDER / f"counted-{name}").symlink_to(HERE / "counted")
        env = {
            "COUNTED": str(log),
            "ANSIBLE_SSH_EXECUTABLE": str(FOLDER / "counted-ssh"),
            "ANSIBLE_SFTP_EXECUTABLE": str(FOLDER / "counted-sftp"),
        }
        path = self.new()
        count = min(4, max(COUNTS))
        for words, name, extra in (
            ("1 ping", None, None),
            ("status", "status", None),
            ("deploy, a new release", "deploy", {"bluegreen_artifact": str(path)}),
            ("deploy, nothing changed", "deploy", {"bluegreen_artifact": str(path)}),
            ("promote", "promote", {"color": self.idle()}),
            ("rollback", "rollback", None),
        ):
            log.write_text("")
            if name:
                self.ours(name, count, extra, **env)
            else:
                self.play("ping1.yml", count, **env)
            rows.append((words, len(log.read_text().split()) / count))
        return rows

    def skew(self):
        """Milliseconds between the first and the last switch of four hosts, by the inodes of their symlinks; one clock is wrong."""
        hosts = self.machines.hosts[:4]
        wrapper = "/usr/local/bin/python-with-a-wrong-clock"
        script = '#!/bin/sh\nexec faketime -f "+1h" /usr/bin/python3 "$@"\n'
        hosts[1].run(f"printf '%s' '{script}' >{wrapper} && chmod 755 {wrapper}")
        wrong = f"{{{{ '{wrapper}' if inventory_hostname == '{hosts[1].name}' else '/usr/bin/python3' }}}}"
        rows = []
        for words, extra in (("right clocks", {}), ("one clock an hour wrong", {"ansible_python_interpreter": wrong})):
            real, said = [], []
            for _round in range(ROUNDS):
                self.ours("promote", 4, {"color": self.idle(), **extra})
                # The kernel's time of the rename, the same for all containers, whatever a library makes of clocks.
                moments = [float(host.run(f"stat -c %.9Z {ROOT}/live")) for host in hosts]
                real.append(1000 * (max(moments) - min(moments)))
                said.append(int(re.search(r"switched within (\d+) ms", self.said)[1]))
            rows.append((words, statistics.median(real), max(real), statistics.median(said)))
        return rows

    def peaks(self):
        """Bytes of the largest process of the controller, for a small artifact and one of 100 MB, to all hosts."""
        rows = []
        for words, extra in (("5.5 MB", 0), ("100 MB", 95_000_000)):
            path = self.new(extra)
            self.deploy(path, max(COUNTS))
            rows.append((words, self.memory))
            path.unlink()
        return rows


def verdicts(bench, found):
    """(what, wanted over 80 ms, measured there, over loopback)"""
    rows = []

    def row(words, wanted, name, beside, count):
        both = [bench.ratio(name, beside, count, link) for link in (LONG, LOOPBACK)]
        if any(both):
            rows.append((words, wanted, *both))

    row("first deploy to a host that has nginx, in pings", "<= 11", "first deploy", "1 ping", 1)
    for count in COUNTS:
        hosts = f"{count} host{'s' if count > 1 else ''}"
        row(f"deploy, {hosts}, beside typed by hand", "<= 0.6", "deploy", "hand deploy", count)
        for name, wanted in (("promote", "<= 2.2"), ("rollback", "<= 2.2"), ("status", "<= 1.3"), ("again", "<= 2.2")):
            row(f"{name}, {hosts}, in pings", wanted, name, "1 ping", count)
        for name, wanted in (("promote", "<= 2.2"), ("rollback", "<= 2.2"), ("status", "<= 1.3")):
            row(
                f"{name}, {hosts}, in pings, with a connection that is open",
                wanted,
                f"{name}, open",
                "1 ping, open",
                count,
            )
    for live, ratio in found["site"].items():
        rows.append((f"requests a second, {live} live, beside a plain proxy", ">= 0.95", "", f"{ratio:.2f}"))
    (large, small), (slow, fast) = found["large"][LONG]
    rate = (large - small) / (slow - fast)
    rows.append(("60 MB as a whole, of what the link carries", ">= 85 %", f"{100 * rate / BYTES_PER_SECOND:.0f} %", ""))
    by_name, whole = {one[0]: one for one in found["traffic"]}, found["whole"]
    first, line = by_name["first deploy"], by_name["one line changed"]
    rows += [
        ("first deploy, bytes of the tarball", "<= 102 %", "", f"{100 * first[2] / first[1]:.0f} %"),
        ("one line changed, bytes of the tarball", "<= 5 %", "", f"{100 * line[2] / line[1]:.1f} %"),
        (
            "one line changed, growth of the disk, of an unpacked release",
            "<= 10 %",
            "",
            f"{100 * line[4] / whole:.1f} %",
        ),
        ("nothing changed, bytes of an artifact", "0", "", f"{by_name['nothing changed'][2]:.0f}"),
    ]
    rows += [
        (f"first to last switch of 4 hosts, {one[0]}, worst", "<= 50 ms", "", f"{one[2]:.0f} ms")
        for one in found["skew"]
    ]
    peaks = found["peaks"]
    rows.append(
        ("largest process of the controller, 100 MB beside 5.5 MB", "1.0", "", f"{peaks[1][1] / peaks[0][1]:.2f}")
    )
    return rows


def seconds(bench, link):
    names = sorted({name for where, name, _count in bench.times if where == link}, key=ORDER.index)
    rows = [
        [name]
        + [f"{bench.median(name, count, link):.2f}" if (link, name, count) in bench.times else "" for count in COUNTS]
        for name in names
    ]
    return table([f"{link}, median seconds"] + [f"{count} hosts" for count in COUNTS], rows)


def page(bench, found):
    """What goes between the marks of docs/performance.md."""
    (large, small), (slow, fast) = found["large"][LONG]
    parts = [
        table(["what", "wanted over 80 ms", "80 ms", "loopback"], verdicts(bench, found)),
        seconds(bench, LONG),
        seconds(bench, LOOPBACK),
        f"Over 80 ms an artifact of {large / 1e6:.0f} MB takes {slow:.1f} s to deploy, and {fast:.1f} s when 1 % of it changed ({small / 1e3:.0f} kB are "
        f"sent). A slot of one host takes {found['boot']:.2f} s to stop, start and answer.\n",
        table(
            ["one host", "ssh and sftp executions"], [(name, f"{number:.1f}") for name, number in found["executions"]]
        ),
        table(
            ["one host", "bytes of the artifact", "bytes in all", "growth of releases/"],
            [
                (name, f"{artifact:,.0f}", f"{every:,}", f"{disk:,}")
                for name, _size, artifact, every, disk in found["traffic"]
            ],
        ),
        table(
            ["switch of 4 hosts", "median", "worst", "said, median"],
            [
                (name, f"{middle:.0f} ms", f"{most:.0f} ms", f"{said:.0f} ms")
                for name, middle, most, said in found["skew"]
            ],
        ),
        table(
            [f"artifact, to {max(COUNTS)} hosts", "largest process of the controller"],
            [(name, f"{memory / 1e6:.0f} MB") for name, memory in found["peaks"]],
        ),
    ]
    return "\n".join(parts)


def main():
    bench, found = Bench(), {"large": {}}
    # Ended from outside it takes its containers along, too.
    signal.signal(signal.SIGTERM, lambda *_what: sys.exit("ended"))
    bench.machines.up()
    hosts = bench.machines.hosts
    try:
        print(f"{max(COUNTS)} hosts, {os.cpu_count()} cores, Python {platform.python_version()}", flush=True)
        with slow_link({host.ssh_port + FAR: host.ssh_port for host in hosts}, 80, BYTES_PER_SECOND):
            for link, fresh in ((LOOPBACK, hosts[1 : 1 + ROUNDS]), (LONG, hosts[-ROUNDS:])):
                with bench.over(link):
                    bench.first_deploys(fresh)
        found["traffic"], found["whole"] = bench.traffic()
        bench.deploy(ARTIFACTS / "sample_app-0.1.0.tar.gz", max(COUNTS), bluegreen_promote=True)
        bench.by_hand("prepare", max(COUNTS))
        found["boot"] = bench.boot()
        with slow_link({host.ssh_port + FAR: host.ssh_port for host in hosts}, 80, BYTES_PER_SECOND):
            for count in COUNTS:
                with bench.machines.only(count):
                    for link in (LOOPBACK, LONG):
                        rounds = ROUNDS if count == 1 else min(ROUNDS, MANY)
                        # Typed by hand, 16 hosts over a long link take five minutes.
                        rivals = {"hand": rounds if count <= 4 else 1 if link == LOOPBACK else 0}
                        rivals["usual"] = rounds if count <= 4 and link == LOOPBACK else 0
                        with bench.over(link):
                            bench.rounds(count, rounds, {name: often for name, often in rivals.items() if often})
            with bench.over(LONG):
                found["large"][LONG] = bench.large()
        with bench.machines.only(1):
            found["site"] = bench.site()
        found["executions"], found["skew"], found["peaks"] = bench.executions(), bench.skew(), bench.peaks()
    finally:
        bench.machines.down()
    text = page(bench, found)
    print("\n" + text)
    document.put(CHECKOUT / "docs" / "performance.md", "bench", text)
    lines = {
        name: [(count, bench.median(name, count, LONG)) for count in COUNTS if (LONG, name, count) in bench.times]
        for name in ("hand deploy", "deploy", "promote", "status", "1 ping")
    }
    plot.lines(CHECKOUT / "docs" / "performance.svg", "Seconds over a link of 80 ms, by number of hosts", lines)


if __name__ == "__main__":
    main()
