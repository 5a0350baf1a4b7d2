# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The three hosts of molecule/fleet: what runs on them, what they answer, and how to do them harm."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time

from support.bluegreen import PLAIN, Client, Site, artifact, connection, playbook
from support.machines import start_container, wait_until_up

INVENTORY = os.environ["MOLECULE_INVENTORY_FILE"]
HOSTS = ["bluegreen-fleet1", "bluegreen-fleet2", "bluegreen-fleet3"]
SITES = {host: Site(18231 + index, "sample.test") for index, host in enumerate(HOSTS)}
ROOT = "/opt/sample_app"


def play(name, *args, **kwargs):
    return playbook(INVENTORY, name, *args, **kwargs)


def start(name, *args, env=None):
    """Start a playbook, in a process group of its own."""
    words = ["ansible-playbook", f"beamops.bluegreen.{name}", "-i", INVENTORY, *args]
    return subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **PLAIN, **(env or {})},
        start_new_session=True,
    )


def inside(host, command, check=True):
    done = subprocess.run(["docker", "exec", host, "sh", "-c", command], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def docker(*words):
    subprocess.run(["docker", *words], check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def asking(*but):
    """Clients on all sites except some; every request has to succeed, save those that the test excuses."""
    clients = {host: Client(SITES[host]) for host in HOSTS if host not in but}
    for client in clients.values():
        client.start()
    try:
        yield clients
    finally:
        for client in clients.values():
            client.__exit__()
    failed = {host: client.failed for host, client in clients.items() if client.failed}
    asked = {host: client.asked for host, client in clients.items()}
    assert not failed and min(asked.values()) > 10, f"asked {asked}, failed {failed}"


def serving(*but):
    """What every site answers: {(color, version, build)}."""
    found = set()
    for host, site in SITES.items():
        if host not in but:
            answer = site.get().json()
            assert site.color() == answer["color"]
            found.add((answer["color"], answer["version"], answer["build"]))
    return found


def held(*but):
    """What the slots of every host hold, and which of them run."""
    command = f"cd {ROOT}; readlink slots/*/release; systemctl is-active sample_app@blue sample_app@green; ls -A slots/*; ls lock || true"
    return {host: inside(host, command, check=False) for host in HOSTS if host not in but}


@contextlib.contextmanager
def broken(host, harm, repair):
    """While the block runs, a command has done harm to a host; another one repairs it, whatever happens in the block."""
    inside(host, harm)
    try:
        yield
    finally:
        inside(host, repair)


def cut_off(host):
    """While the block runs: no new ssh connection, and none that an earlier run has kept open."""
    return broken(host, "systemctl stop ssh; pkill -KILL sshd; true", "systemctl start ssh")


@contextlib.contextmanager
def start_of(module, host):
    """Something to wait for: the start of a module on a host, which Ansible's modules write into the journal."""
    tag = f"ansible-beamops.bluegreen.{module}"
    words = ["docker", "exec", host, "journalctl", "-f", "-n", "0", "-o", "cat", "-t", tag]
    watcher = subprocess.Popen(words, stdout=subprocess.PIPE)
    time.sleep(0.5)

    def wait():
        # A run that was refused never comes so far.
        assert select.select([watcher.stdout], [], [], 120)[0], f"{module} was not started on {host}"
        return watcher.stdout.readline()

    try:
        yield wait
    finally:
        watcher.kill()
        watcher.wait()


def make_live():
    """0.1.0 live on all hosts, on one color, whatever a test left; what the other slots hold is open. Returns (live, idle)."""
    for host in HOSTS:
        # What a test has crashed counts for an hour, and five make a crash loop.
        inside(host, "systemctl reset-failed 'sample_app@*'")
    play(
        "deploy",
        {"bluegreen_artifact": artifact("sample_app-0.1.0"), "bluegreen_force": True, "bluegreen_promote": True},
    )
    if len({site.color() for site in SITES.values()}) > 1:
        play("deploy", {"bluegreen_artifact": artifact("sample_app-0.1.0"), "bluegreen_env": {"ONE": "1"}})
        play("promote", "color=blue")
    live = SITES[HOSTS[0]].color()
    return live, {"blue": "green", "green": "blue"}[live]


def make_one():
    """The same on all hosts: 0.1.0 live and 0.1.1 idle, on one color each. Returns (live, idle)."""
    colors = make_live()
    play("deploy", {"bluegreen_artifact": artifact("sample_app-0.1.1"), "bluegreen_force": True})
    play("status", "strict=true")
    return colors


@contextlib.contextmanager
def one_more(name, address, ssh_port, http_port, but=""):
    """While the block runs, there is one more host like the three, and in their network; gives its variables for an inventory.

    :param but: a command that makes it different, as root.
    """
    subprocess.run(["docker", "rm", "--force", "--volumes", name], check=False, capture_output=True)
    more = ["--cap-add", "NET_ADMIN", "--network", "bluegreen-fleet", "--ip", address]
    start_container(name, os.environ["BLUEGREEN_TEST_IMAGE"], {ssh_port: 22, http_port: 80}, *more)
    try:
        wait_until_up(name)
        if but:
            inside(name, but)
        yield {**connection(INVENTORY, HOSTS[0]), "ansible_port": ssh_port}
    finally:
        docker("rm", "--force", "--volumes", name)


FAULT_PLUGIN = {
    "ANSIBLE_CALLBACK_PLUGINS": os.path.join(os.path.dirname(os.path.abspath(__file__)), "callback"),
    "ANSIBLE_CALLBACKS_ENABLED": "fault",
}
