# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a watch finds what is bad and leaves alone what is fine, again and again, on three hosts under load: `make bench-watch`.

Releases that are bad in four ways are promoted TIMES=20 times each, and one that is fine 50 times at one request a second and 50 times at 500. Prints
what became of them, and writes it into docs/how-to/watch.md, with a picture of one run of each, docs/watch.svg.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
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
from support.machines import SETTINGS, VARIABLES, Machines

BAD = int(os.environ.get("TIMES", "20"))
FINE = BAD * 5 // 2
FOLDER = CHECKOUT / "build" / "bench-watch"
ARTIFACTS = CHECKOUT / "build" / "artifacts"
OTHER = {"blue": "green", "green": "blue"}
SECONDS = 15
PAGE = CHECKOUT / "docs" / "how-to" / "watch.md"
# Title, environment on all hosts, and on the first alone; requests a second of the whole group.
KINDS = {
    "5 % of 500": ({"SAMPLE_WORSE": "50 0"}, {}, 150),
    "three times as slow": ({"SAMPLE_WORSE": "0 60"}, {}, 150),
    "supervisors that restart": ({"SAMPLE_FLAKY_MS": "500"}, {}, 150),
    "5 % of 500 on one host": ({}, {"SAMPLE_WORSE": "50 0"}, 150),
    "fine, 1 request a second": ({}, {}, 1),
    "fine, 500 requests a second": ({}, {}, 500),
}
# What every release takes for an answer, so that three times as slow is something.
ALWAYS = "0 20"


class Load(bluegreen.Background):
    """Asks the hosts in turns, so often a second in all, on kept connections, and never again when it failed."""

    LANES = 30

    def __init__(self, hosts, rate):
        super().__init__()
        self.hosts, self.rate = hosts, rate
        # (when, number of the host, color, status or 0, seconds)
        self.answers = []

    def run(self):
        asyncio.run(self._all())

    async def _all(self):
        lanes = min(self.LANES, self.rate)
        await asyncio.gather(*(self._lane(number, lanes) for number in range(lanes)))

    async def _lane(self, number, lanes):
        due, turn, kept = time.monotonic() + number / self.rate, number, {}
        while not self.ended.is_set():
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due = max(due + lanes / self.rate, time.monotonic() - 1)
            host = self.hosts[turn % len(self.hosts)]
            turn += 1
            began, color, status = time.monotonic(), "", 0
            try:
                color, status = await asyncio.wait_for(self._ask(host, kept), 10)
            except (OSError, EOFError, ValueError, asyncio.TimeoutError):
                kept.pop(host.number, None)
            self.answers.append((began, host.number, color, status, time.monotonic() - began))
        for _reader, writer in kept.values():
            writer.close()

    @staticmethod
    async def _ask(host, kept):
        if host.number in kept and kept[host.number][0].at_eof():
            # Closed before there was a request on it.
            kept.pop(host.number)[1].close()
        if host.number not in kept:
            kept[host.number] = await asyncio.open_connection("127.0.0.1", host.http_port)
        reader, writer = kept[host.number]
        writer.write(b"GET / HTTP/1.1\r\nHost: sample.test\r\n\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        lines = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        await reader.readexactly(int(lines["content-length"]))
        return lines.get("x-color", ""), int(head.split()[1])


class Watching:
    def __init__(self):
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir(parents=True)
        self.machines = Machines(3, os.environ["BLUEGREEN_TEST_IMAGE"], os.environ["BLUEGREEN_TEST_KEY"], str(FOLDER))
        self.env = {**os.environ, **SETTINGS, "ANSIBLE_COLLECTIONS_PATH": os.environ["BLUEGREEN_TEST_COLLECTIONS"]}
        self.env.pop("ANSIBLE_CONFIG", None)
        self.count = len(self.machines.hosts)

    def play(self, name, *, env=None, first=None, watch=SECONDS, **extra):
        """(exit status, what it printed)"""
        common = {"SECRET_KEY_BASE": "k", "SAMPLE_WORSE": ALWAYS, **(env or {})}
        each = json.dumps({**common, **(first or {})})
        mine = f"{{{{ {each} if inventory_hostname == '{self.machines.hosts[0].name}' else {json.dumps(common)} }}}}"
        inventory = self.machines.inventory(
            self.count,
            **{
                **VARIABLES,
                "bluegreen_env": mine if first else common,
                "bluegreen_watch": {"seconds": watch} if watch else {},
            },
        )
        words = ["ansible-playbook", "-i", inventory, f"beamops.bluegreen.{name}", "-e", json.dumps(extra)]
        done = subprocess.run(words, capture_output=True, text=True, env=self.env, cwd=FOLDER, check=False)
        return done.returncode, done.stdout + done.stderr

    def must(self, name, **given):
        status, said = self.play(name, **given)
        if status:
            sys.exit(f"{name} ended with {status}:\n{said[-4000:]}")

    def live(self):
        found = {host.run("basename $(readlink /opt/sample_app/live)") for host in self.machines.hosts}
        assert len(found) == 1, found
        return found.pop()

    def trials(self, title):
        """[(as wanted, seconds from the switch until it was back, requests lost)], and the answers of the first."""
        env, first, rate = KINDS[title]
        times = FINE if title.startswith("fine") else BAD
        path = bluegreen.variant(ARTIFACTS / "sample_app-0.1.1.tar.gz", FOLDER / "new.tar.gz")
        self.must("deploy", env=env, first=first, bluegreen_artifact=str(path), bluegreen_force=True)
        found, kept = [], ()
        with Load(self.machines.hosts, rate) as load:
            time.sleep(20)
            for number in range(times):
                color = OTHER[self.live()]
                status, said = self.play("promote", color=color)
                stays = self.live() == color
                wanted = (status == 0 and stays) if title.startswith("fine") else (status == 2 and not stays)
                mine, load.answers = load.answers, []
                on_new = [one[0] for one in mine if one[2] == color]
                lost = [one for one in mine if one[3] != 200 and not (one[3] == 500 and one[2] == color)]
                found.append((wanted, max(on_new, default=0) - min(on_new, default=0), len(lost)))
                kept = kept or (color, mine)
                evidence = next(
                    (line.strip() for line in reversed(said.splitlines()) if " 5xx " in line or "no request" in line),
                    "",
                )
                print(
                    f"  {title}: {number + 1} of {times}, {'as wanted' if wanted else 'NOT AS WANTED'}, {len(lost)} lost: {evidence}",
                    flush=True,
                )
                if not wanted:
                    print(said[-3000:], flush=True)
        return found, kept

    def cost(self):
        """What the log costs a request, with it and without it in turns: {with it: {"p50", "p99", "cpu"}}, medians, in microseconds."""
        host, found = self.machines.hosts[0], {True: [], False: []}
        self.count = 1
        address = host.run("hostname -i").split()[0]
        ticks = "cat $(pgrep -u www-data nginx | sed 's|.*|/proc/&/stat|') | awk '{sum += $14 + $15} END {print sum}'"
        for _round in range(5):
            for with_log, rounds in found.items():
                self.must("setup", watch=SECONDS if with_log else 0)
                # The workers of the configuration before this end.
                time.sleep(2)
                before = int(host.run(ticks))
                words = [
                    "wrk",
                    "-t1",
                    "-c8",
                    "-d8",
                    "--latency",
                    "-H",
                    "Host: sample.test",
                    f"http://{address}/headers",
                ]
                said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
                used = (int(host.run(ticks)) - before) * 1e6 / os.sysconf("SC_CLK_TCK")
                times = {
                    rank: float(value) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]
                    for rank, value, unit in re.findall(r"(50|99)%\s+([\d.]+)(us|ms|s)", said)
                }
                requests = int(re.search(r"(\d+) requests in", said)[1])
                rounds.append({"p50": times["50"], "p99": times["99"], "cpu": used / requests})
        return {
            with_log: {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
            for with_log, rounds in found.items()
        }


def panel(title, color, answers):
    """By the second: the share of the answers that the new slot gave, and how they were."""
    began = min(one[0] for one in answers if one[2] == color) - 8
    last = int(max(one[0] for one in answers) - began)
    by_second = [[one for one in answers if second <= one[0] - began < second + 1] for second in range(last)]
    # At one request a second some have none.
    by_second = [some or before for before, some in zip([[], *by_second], by_second)]
    share = [100 * sum(one[2] == color for one in some) / len(some) if some else 0 for some in by_second]
    worst = []
    for some in by_second:
        if "slow" in title:
            times = sorted(one[4] for one in some)
            worst.append(1000 * times[int(0.95 * len(times))] if times else 0)
        else:
            worst.append(100 * sum(one[3] != 200 for one in some) / len(some) if some else 0)
    return title, share, worst, "p95, ms" if "slow" in title else "failed, %"


def main():
    watching = Watching()
    signal.signal(signal.SIGTERM, lambda *_what: sys.exit("ended"))
    watching.machines.up()
    rows, panels = [], []
    try:
        for version in ("0.1.0", "0.1.1"):
            artifact = str(ARTIFACTS / f"sample_app-{version}.tar.gz")
            watching.must("deploy", bluegreen_artifact=artifact, bluegreen_promote=version == "0.1.0")
        for title in KINDS:
            found, (color, answers) = watching.trials(title)
            wanted = sum(one[0] for one in found)
            what, on_it = "stayed", ""
            if not title.startswith("fine"):
                times = [one[1] for one in found]
                what, on_it = "went back", f"{statistics.median(times):.0f} s, at most {max(times):.0f} s"
            rows.append((title, f"{wanted} of {len(found)} {what}", on_it, sum(one[2] for one in found)))
            panels.append(panel(title, color, answers))
        with watching.machines.only(1):
            cost = watching.cost()
    finally:
        with contextlib.suppress(RuntimeError):
            watching.machines.down()
    text = document.table(["release", "promotes", "time on it", "requests lost that it did not fail itself"], rows)
    parts = (("p50", "median"), ("p99", "slowest hundredth"), ("cpu", "CPU of nginx"))
    costs = [(words, f"{cost[True][name]:.0f} µs", f"{cost[False][name]:.0f} µs") for name, words in parts]
    text += "\n" + document.table(["a request", "with the log", "without it"], costs)
    text += "\n![One promote of each, by the second](../watch.svg)\n\n![A request with and without the log](../watch-cost.svg)\n"
    print("\n" + text)
    document.put(PAGE, "bench-watch", text)
    bars = [
        (f"{name}, {'with' if with_log else 'without'} the log", cost[with_log][name] / 1000)
        for name in ("p50", "p99")
        for with_log in (True, False)
    ]
    plot.bars(CHECKOUT / "docs" / "watch-cost.svg", "What the log of the site costs a request", bars, " ms")
    plot.panels(CHECKOUT / "docs" / "watch.svg", "One promote of each, by the second", panels)


if __name__ == "__main__":
    main()
