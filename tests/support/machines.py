# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts without molecule: containers with systemd, sshd and nginx, over ssh on published ports of 127.0.0.1."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import subprocess
import time

import yaml

NAME = "bluegreen-bench"
SSH, HTTP = 18300, 18400
SSH_WORDS = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
# What the collection's own ansible.cfg sets too; the same for every rival that runs on Ansible.
SETTINGS = {
    "ANSIBLE_GATHERING": "explicit",
    "ANSIBLE_FORKS": "20",
    "ANSIBLE_PIPELINING": "true",
    "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=60s -o ServerAliveInterval=5 -o ServerAliveCountMax=3",
    "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3",
    "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "false",
    "ANSIBLE_LOCALHOST_WARNING": "false",
    "ANSIBLE_NOCOLOR": "true",
}
# What the sample app is deployed with.
VARIABLES = {
    "bluegreen_app": "sample_app",
    "bluegreen_domain": "sample.test",
    "bluegreen_health_path": "/health",
    "bluegreen_env": {"SECRET_KEY_BASE": "bench-secret-key-base"},
}


def docker(*words, check=True):
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"docker {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


def start_container(name, image, ports, *words):
    """A container with systemd.

    :param ports: port of 127.0.0.1 to the port of the container that is published there.
    :param words: more for C(docker run).
    """
    given = ["run", "--detach", "--name", name, "--hostname", name, "--cap-add", "SYS_ADMIN"]
    given += [
        "--security-opt",
        "seccomp=unconfined",
        "--cgroupns",
        "private",
        "--tmpfs",
        "/run",
        "--tmpfs",
        "/tmp:exec",
    ]
    given += [word for here, there in ports.items() for word in ("--publish", f"127.0.0.1:{here}:{there}")]
    docker(*given, *words, image)


def wait_until_up(name, seconds=60, ready="systemctl is-system-running | grep -Eqx 'running|degraded'"):
    """Wait until a shell command in a container succeeds.

    :raises RuntimeError: if it does not in time.
    """
    deadline = time.monotonic() + seconds
    while subprocess.run(["docker", "exec", name, "sh", "-c", ready], check=False, capture_output=True).returncode:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{name} is not ready after {seconds} s: {ready}")
        time.sleep(0.2)


def reboot(name, ready):
    """Restart a container, and wait until a shell command in it succeeds: its ports are forwarded long before anything listens."""
    docker("restart", name)
    wait_until_up(name, ready=ready)


class Host:
    """One container."""

    def __init__(self, number, key):
        self.number, self.key = number, key
        self.name = f"{NAME}{number}"
        self.ssh_port, self.http_port = SSH + number, HTTP + number

    def create(self, image):
        start_container(self.name, image, {self.ssh_port: 22, self.http_port: 80})

    def wait(self, seconds=60):
        wait_until_up(self.name, seconds)

    def run(self, command, check=True):
        return docker("exec", self.name, "sh", "-c", command, check=check)

    def received(self):
        """Bytes that came in over its network, ever."""
        return int(self.run("cat /sys/class/net/eth0/statistics/rx_bytes"))

    def ssh(self, user="root"):
        return ["ssh", *SSH_WORDS, "-i", self.key, "-p", str(self.ssh_port), f"{user}@127.0.0.1"]


class Machines:
    """Some hosts, and an inventory of the first few of them."""

    def __init__(self, count, image, key, folder):
        self.image, self.folder = image, folder
        self.hosts = [Host(number, key) for number in range(1, count + 1)]

    def up(self):
        self.down()
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda host: host.create(self.image), self.hosts))
            list(pool.map(lambda host: host.wait(), self.hosts))

    def down(self):
        found = docker("ps", "--all", "--quiet", "--filter", f"name=^{NAME}")
        if found:
            docker("rm", "--force", "--volumes", *found.split())

    @contextlib.contextmanager
    def only(self, count):
        """The first few alone: the others stand still, for also an idle BEAM takes its share of two cores."""
        others = [host.name for host in self.hosts[count:]]
        if others:
            docker("pause", *others)
        try:
            yield
        finally:
            if others:
                docker("unpause", *others)

    def inventory(self, count, **variables):
        """Path of an inventory with this many hosts in the group C(bluegreen)."""
        path = os.path.join(self.folder, f"{count}-hosts.yml")
        common = {
            "ansible_host": "127.0.0.1",
            "ansible_user": "deploy",
            "ansible_ssh_common_args": " ".join(SSH_WORDS),
            **variables,
        }
        hosts = {
            host.name: {"ansible_port": host.ssh_port, "ansible_ssh_private_key_file": host.key}
            for host in self.hosts[:count]
        }
        with open(path, "w", encoding="utf-8") as stream:
            yaml.safe_dump({"all": {"children": {"bluegreen": {"hosts": hosts, "vars": common}}}}, stream)
        return path
