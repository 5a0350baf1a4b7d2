# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job on this machine, in one directory, with a real nginx and a real release: `make demo`, `make demo-stop`.

Deploys 0.1.0, deploys 0.1.1 to the other slot, promotes it, and rolls back, while requests flow. The site stays up.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import requests

BOLD, PLAIN = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
HOME = CHECKOUT / ".demo"
ADDRESS = "http://127.0.0.1:18080"
ARTIFACTS = CHECKOUT / "build" / "artifacts"
# Bounded: at most this many requests, and this long, whatever happens to the rest.
MOST_REQUESTS = 50_000
MOST_SECONDS = 300


class Requests(threading.Thread):
    """Two clients that never retry: one keeps its connection, one opens a new one for every request."""

    def __init__(self, kept):
        super().__init__(daemon=True)
        self.session = requests.Session() if kept else None
        self.asked, self.failed, self.versions = 0, [], {}
        self.ended = threading.Event()

    def run(self):
        deadline = time.monotonic() + MOST_SECONDS
        while not self.ended.is_set() and self.asked < MOST_REQUESTS and time.monotonic() < deadline:
            try:
                answer = (self.session or requests).get(ADDRESS + "/", headers={"Host": "localhost"}, timeout=10)
                if answer.status_code != 200:
                    raise requests.RequestException(f"status {answer.status_code}")
                version = answer.json()["version"]
                self.versions[version] = self.versions.get(version, 0) + 1
            except requests.RequestException as error:
                self.failed.append(str(error))
            self.asked += 1
            time.sleep(0.005)


def play(title, name, *extra):
    """Run a playbook and show what it says."""
    words = ["ansible-playbook", "-i", "inventories/local", f"playbooks/{name}.yml"]
    for pair in extra:
        words += ["-e", pair]
    print(f"\n{BOLD}{title}{PLAIN}\n$ {' '.join(words)}", flush=True)
    done = subprocess.run(words, cwd=CHECKOUT, check=False)
    if done.returncode:
        sys.exit(
            f"{name}.yml ended with status {done.returncode}; the site is left as it is. End it with: make demo-stop"
        )


def processes():
    """(pid, command) of what the demo started, found by the directory that only it uses."""
    found = []
    for folder in pathlib.Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            words = (folder / "cmdline").read_bytes().decode("utf-8", "replace").replace("\0", " ")
            env = (folder / "environ").read_bytes().decode("utf-8", "replace").split("\0")
            command = (folder / "comm").read_text().strip()
        except OSError:
            continue
        ours = f"RELEASE_TMP={HOME}/app/state/"
        if any(pair.startswith(ours) for pair in env) or (command == "nginx" and f"{HOME}/nginx/" in words):
            found.append((int(folder.name), command))
        elif command == "epmd" and any(pair == "ERL_EPMD_PORT=14369" for pair in env):
            found.append((int(folder.name), command))
    return found


def stop(quietly=False):
    """End every process of the demo by its pid, and remove its directory."""
    found = processes()
    for wait, number in ((8, signal.SIGTERM), (3, signal.SIGKILL)):
        for pid, _command in processes():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        deadline = time.monotonic() + wait
        while processes() and time.monotonic() < deadline:
            time.sleep(0.1)
    if HOME.exists():
        for folder, _folders, _files in os.walk(HOME):
            os.chmod(folder, 0o700)
        shutil.rmtree(HOME)
    if not quietly:
        print(f"Stopped {len(found)} processes, removed {HOME.name}/. Nothing of the demo is left.")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stop", action="store_true", help="end the demo and leave nothing behind")
    if parser.parse_args().stop:
        stop()
        return
    stop(quietly=True)
    began = time.monotonic()
    play(
        "1. Deploy 0.1.0: the first release is live at once",
        "deploy",
        f"bluegreen_artifact={ARTIFACTS}/sample_app-0.1.0.tar.gz",
    )
    clients = [Requests(kept=True), Requests(kept=False)]
    for client in clients:
        client.start()
    play(
        "2. Deploy 0.1.1: it goes to the idle slot", "deploy", f"bluegreen_artifact={ARTIFACTS}/sample_app-0.1.1.tar.gz"
    )
    play("3. Promote: the traffic moves", "promote", "color=green")
    play("4. Roll back: the traffic moves back", "rollback")
    play("5. Promote again, by color", "promote", "color=green")
    play("6. Where things stand", "status")
    for client in clients:
        client.ended.set()
        client.join()
    asked, failed = sum(client.asked for client in clients), [text for client in clients for text in client.failed]
    versions = {}
    for client in clients:
        for version, count in client.versions.items():
            versions[version] = versions.get(version, 0) + count
    shares = ", ".join(f"{count} by {version}" for version, count in sorted(versions.items()))
    print(f"\n{BOLD}{asked} requests while this went on: {len(failed)} failed{PLAIN} ({shares}; no client retries)")
    for text in failed[:5]:
        print(f"  {text}")
    print(f"\nThe site is up:  curl {ADDRESS}/   (and {ADDRESS}/deployment_id)")
    print("Go on by hand:   . .venv/bin/activate; ansible-playbook -i inventories/local playbooks/rollback.yml")
    print("A console:       .demo/app/bin/sample_app live remote")
    print(f"End it:          make demo-stop\n({time.monotonic() - began:.0f} s)")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
