# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a deploy, a promote and a status take, beside the same cycle typed by hand and a usual Ansible playbook: `make bench`.

All of it on the same containers, over ssh, in turns, so that only ratios count. Prints them, and writes them into
docs/performance.md and docs/performance.svg.
"""

from __future__ import annotations

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

from support import bluegreen, plot
from support.machines import SETTINGS, VARIABLES, Machines

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
COUNTS = [int(word) for word in os.environ.get("BENCH_HOSTS", "1 2 4 8 16").split()]
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
        self.number, self.times, self.memory, self.said = 0, {}, 0, ""

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
        self.times.setdefault((name, count), []).append(seconds)
        print(f"  {count:2} hosts  {name:12} {seconds:6.2f} s", flush=True)

    def rounds(self, count, rivals):
        """Everything in turns, so that whatever else the machine does hits all alike."""
        self.deploy(ARTIFACTS / "sample_app-0.1.0.tar.gz", count, bluegreen_promote=True, bluegreen_force=True)
        self.deploy(ARTIFACTS / "sample_app-0.1.1.tar.gz", count, bluegreen_force=True)
        for _slot in ("blue", "green") if "hand" in rivals else ():
            # Into an occupied slot, for both.
            self.by_hand("deploy", count, ARTIFACTS / "sample_app-0.1.0.tar.gz", "0.1.0")
            self.by_hand("promote", count, self.by_hand_idle())
        for _round in range(ROUNDS):
            path = self.new()
            self.note("deploy", count, self.deploy(path, count))
            if "hand" in rivals:
                self.note("hand deploy", count, self.by_hand("deploy", count, path, f"0.1.1-{self.number % 4}"))
            if "usual" in rivals:
                self.note(
                    "usual",
                    count,
                    self.play(
                        HERE / "conventional.yml", count, {"tarball": str(path), "version": str(self.number % 4)}
                    ),
                )
            for number in (1, 3, 4):
                self.note(f"{number} ping", count, self.play(f"ping{number}.yml", count))
            self.note("promote", count, self.ours("promote", count, {"color": self.idle()}))
            if "hand" in rivals:
                self.note("hand promote", count, self.by_hand("promote", count, self.by_hand_idle()))
            self.note("status", count, self.ours("status", count))
            self.note("again", count, self.deploy(path, count))
            assert not sum(map(int, re.findall(r"changed=(\d+)", self.said))) and ": sending " not in self.said, (
                self.said
            )

    def by_hand_idle(self):
        return OTHER[self.machines.hosts[0].run("curl -s -H Host:hand.test http://127.0.0.1/deployment_id")]

    def median(self, name, count):
        return statistics.median(self.times[name, count])

    def ratio(self, name, beside, count):
        return self.median(name, count) / self.median(beside, count)

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


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]) + "\n"


def verdicts(bench, boot, traffic, whole, skew, peaks):
    """(what, wanted, measured, beside the floor)"""
    rows = []
    counts = [count for count in (1, 4, 16) if count in COUNTS]
    for count, most in ((1, 1.0), (4, 0.5), (16, 0.4)):
        if count in counts:
            floor = bench.median("deploy", count) / (bench.median("4 ping", count) + boot * max(1, count / 2))
            found = bench.ratio("deploy", "hand deploy", count)
            rows.append((f"deploy, {count} hosts, beside typed by hand", f"<= {most}", f"{found:.2f}", f"{floor:.2f}"))
    for count in counts:
        found, floor = bench.ratio("promote", "1 ping", count), bench.ratio("promote", "3 ping", count)
        rows.append((f"promote, {count} hosts, beside one ping", "<= 1.5", f"{found:.2f}", f"{floor:.2f}"))
    for count in counts:
        rows.append(
            (f"status, {count} hosts, beside one ping", "<= 1.3", f"{bench.ratio('status', '1 ping', count):.2f}", "")
        )
    for count in counts:
        floor = bench.ratio("again", "3 ping", count)
        rows.append(
            (
                f"deploy again, {count} hosts, beside one ping",
                "<= 2",
                f"{bench.ratio('again', '1 ping', count):.2f}",
                f"{floor:.2f}",
            )
        )
    by_name = {row[0]: row for row in traffic}
    first, line = by_name["first deploy"], by_name["one line changed"]
    rows += [
        ("first deploy, bytes of the tarball", "<= 102 %", f"{100 * first[2] / first[1]:.0f} %", ""),
        ("one line changed, bytes of the tarball", "<= 5 %", f"{100 * line[2] / line[1]:.1f} %", ""),
        (
            "one line changed, growth of the disk, of an unpacked release",
            "<= 10 %",
            f"{100 * line[4] / whole:.1f} %",
            "",
        ),
        ("nothing changed, bytes of an artifact", "0", f"{by_name['nothing changed'][2]:.0f}", ""),
    ]
    rows += [(f"first to last switch of 4 hosts, {row[0]}, worst", "<= 50 ms", f"{row[2]:.0f} ms", "") for row in skew]
    rows.append(
        ("largest process of the controller, 100 MB beside 5.5 MB", "1.0", f"{peaks[1][1] / peaks[0][1]:.2f}", "")
    )
    return rows


def page(bench, boot, traffic, whole, executions, skew, peaks):
    """What goes between the marks of docs/performance.md."""
    names = (
        "deploy",
        "hand deploy",
        "usual",
        "again",
        "promote",
        "hand promote",
        "status",
        "1 ping",
        "3 ping",
        "4 ping",
    )
    head = [f"median of {ROUNDS}, seconds"] + [f"{count} hosts" for count in COUNTS]
    rows = [
        [name] + [f"{bench.median(name, count):.2f}" if (name, count) in bench.times else "" for count in COUNTS]
        for name in names
    ]
    parts = [
        table(
            ["what", "wanted", "measured", "beside its floor"],
            verdicts(bench, boot, traffic, whole, skew, peaks),
        ),
        table(head, rows),
        f"A slot of one host takes {boot:.2f} s to stop, start and answer.\n",
        table(["one host", "ssh and sftp executions"], [(name, f"{number:.1f}") for name, number in executions]),
        table(
            ["one host", "bytes of the artifact", "bytes in all", "growth of releases/"],
            [(name, f"{artifact:,.0f}", f"{every:,}", f"{disk:,}") for name, _size, artifact, every, disk in traffic],
        ),
        table(
            ["switch of 4 hosts", "median", "worst", "said, median"],
            [(name, f"{middle:.0f} ms", f"{most:.0f} ms", f"{said:.0f} ms") for name, middle, most, said in skew],
        ),
        table(
            [f"artifact, to {max(COUNTS)} hosts", "largest process of the controller"],
            [(name, f"{memory / 1e6:.0f} MB") for name, memory in peaks],
        ),
    ]
    return "\n".join(parts)


def main():
    bench = Bench()
    # Ended from outside it takes its containers along, too.
    signal.signal(signal.SIGTERM, lambda *_what: sys.exit("ended"))
    bench.machines.up()
    try:
        print(f"{max(COUNTS)} hosts, {os.cpu_count()} cores, Python {platform.python_version()}", flush=True)
        traffic, whole = bench.traffic()
        bench.deploy(ARTIFACTS / "sample_app-0.1.0.tar.gz", max(COUNTS), bluegreen_promote=True)
        bench.by_hand("prepare", max(COUNTS))
        boot = bench.boot()
        for count in COUNTS:
            with bench.machines.only(count):
                bench.rounds(count, ("hand", "usual") if count in (1, 4) else ("hand",) if count == 16 else ())
        executions = bench.executions()
        skew = bench.skew()
        peaks = bench.peaks()
    finally:
        bench.machines.down()
    text = page(bench, boot, traffic, whole, executions, skew, peaks)
    print("\n" + text)
    path = CHECKOUT / "docs" / "performance.md"
    before, rest = path.read_text().split("<!-- bench -->\n")[0], path.read_text().split("<!-- end of bench -->\n")[1]
    path.write_text(f"{before}<!-- bench -->\n{text}<!-- end of bench -->\n{rest}")
    lines = {
        name: [(count, bench.median(name, count)) for count in COUNTS if (name, count) in bench.times]
        for name in ("hand deploy", "deploy", "promote", "status", "1 ping")
    }
    plot.lines(CHECKOUT / "docs" / "performance.svg", "Seconds, by number of hosts", lines)


if __name__ == "__main__":
    main()
