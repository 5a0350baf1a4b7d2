# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder that init.yml writes: it deploys as it is, once it knows a server."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess

import pytest
import yaml
from support.bluegreen import PLAIN, Client, artifact, connection, variant
from support.one_host import INVENTORY

SERVER = "bluegreen-web1"


class Folder:
    """A folder of a user, with commands typed there: with its own ansible.cfg, and nothing of molecule."""

    def __init__(self, path):
        self.path = path
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "MOLECULE_"))}
        self.env = {**kept, **PLAIN, "ANSIBLE_COLLECTIONS_PATH": os.environ["BLUEGREEN_TEST_COLLECTIONS"]}

    def type(self, *words, rc=0, at="."):
        done = subprocess.run(
            words,
            cwd=self.path / at,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == rc, done.stdout
        return done.stdout

    def init(self, *words, rc=0):
        return self.type("ansible-playbook", "beamops.bluegreen.init", *words, rc=rc)

    def play(self, name, *words, rc=0):
        return self.type("ansible-playbook", "-i", "production.yml", f"{name}.yml", *words, rc=rc, at="deploy")


def put_server(folder, site):
    """Put the host of the scenario into the inventory of a site, as its user would."""
    path = folder.path / f"deploy/{site}.yml"
    inventory = yaml.safe_load(path.read_text())
    inventory["bluegreen"]["children"][site]["hosts"] = {SERVER: connection(INVENTORY, SERVER)}
    path.write_text(yaml.safe_dump(inventory))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """As init.yml wrote it, with a server in production.yml, and the one more variable that the sample app needs."""
    folder = Folder(tmp_path_factory.mktemp("first"))
    said = folder.init("-e", "app=sample_app", "-e", "domain=sample.test")
    assert f"Created {folder.path}/deploy. Next:" in said
    put_server(folder, "production")
    path = folder.path / "deploy/group_vars/bluegreen/main.yml"
    text = path.read_text()
    assert "bluegreen_health_path: /\n" in text
    path.write_text(text.replace("bluegreen_health_path: /\n", "bluegreen_health_path: /health\n"))
    return folder


@pytest.mark.long
def test_a_new_folder_passes_ansible_lint(tmp_path):
    folder = Folder(tmp_path)
    folder.init("-e", "app=sample_app", "-e", "domain=sample.test")
    folder.type("ansible-lint", "--offline", "--profile", "production", at="deploy")
    vault = tmp_path / "deploy/group_vars/bluegreen/vault.yml"
    assert (
        vault.stat().st_mode & 0o777 == 0o600 and len(yaml.safe_load(vault.read_text())["vault_secret_key_base"]) == 64
    )


def page(name):
    """A page of the documentation, for the sample app."""
    with open(os.path.join(os.environ["MOLECULE_PROJECT_DIRECTORY"], "docs", name), encoding="utf-8") as stream:
        return stream.read().replace("my_app", "sample_app").replace("example.com", "sample.test")


def commands():
    """What docs/tutorial.md tells to type, in its order. The first one writes the folder."""
    blocks = re.findall(r"```sh\n(.*?)```", page("tutorial.md"), re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


@pytest.fixture
def on_staging(folder):
    """The server and its domain stand where the tutorial says."""
    paths = [folder.path / "deploy/staging.yml", folder.path / "deploy/group_vars/staging.yml"]
    before = [path.read_text() for path in paths]
    put_server(folder, "staging")
    paths[1].write_text("bluegreen_domain: sample.test\n")
    yield
    for path, text in zip(paths, before):
        path.write_text(text)


@pytest.mark.usefixtures("on_staging")
def test_the_tutorial_works_as_it_is_written(folder, site):
    first, *others = commands()
    assert first == ["ansible-playbook", "beamops.bluegreen.init", "-e", "app=sample_app", "-e", "domain=sample.test"]
    built = folder.path / "_build/prod"
    built.mkdir(parents=True)
    for version in ("0.1.0", "0.1.1"):
        # Of a content that nobody has rolled back from.
        variant(artifact(f"sample_app-{version}"), str(built / f"sample_app-{version}.tar.gz"))
    before, versions, said = site.version(), [], []
    with Client(site) as client:
        for words in others:
            said.append(folder.type(*words, at="deploy"))
            versions.append(site.version())
    assert client.failed == []
    # The calm callback: a line for each step, with what it took and where it changed something.
    assert re.search(r"^ +\d+\.\d s  Install the release  changed bluegreen-web1$", said[1], re.MULTILINE)
    assert "TASK [" not in said[1] and re.search(r"^ +\d+\.\d s  in all$", said[1], re.MULTILINE)
    # deploy, deploy, status, promote, rollback, status: only the promote shows the visitors something else.
    assert versions == [before, before, before, "0.1.1", before, before]
    assert "promote.yml -e color=" in said[2] and "rollback" in said[5] and "consistent:" in said[5]


def guides():
    """The how-to guides that have something to type: {name: [(yaml, sh, or console for what is typed on the server; text)]}."""
    found = {}
    for name in sorted(os.listdir(os.path.join(os.environ["MOLECULE_PROJECT_DIRECTORY"], "docs/how-to"))):
        blocks = re.findall(r"```(sh|yaml|console)\n(.*?)```", page(f"how-to/{name}"), re.DOTALL)
        if any(kind == "sh" for kind, _text in blocks):
            found[name.removesuffix(".md")] = blocks
    # Three have tests of their own, such as fleet/test_9_join.py, and the last is what `make test-vagrant` is for.
    elsewhere = ("join", "watch", "other-languages", "virtual-machine")
    return {name: blocks for name, blocks in found.items() if name not in elsewhere}


@pytest.fixture
def certificate(host):
    """What certbot would have fetched."""
    there = "/etc/letsencrypt/live/sample.test"
    host.check_output(
        f"sudo mkdir -p {there} && sudo openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=sample.test "
        f"-keyout {there}/privkey.pem -out {there}/fullchain.pem 2>&1"
    )
    yield
    host.check_output("sudo rm -r /etc/letsencrypt")


@pytest.fixture
def uploads(host):
    """What an app has gathered before it came here."""
    host.check_output("sudo mkdir -p /var/www/sample_app/uploads && sudo touch /var/www/sample_app/uploads/cat.png")
    yield
    host.check_output("sudo rm -r /var/www/sample_app")


@pytest.mark.usefixtures("certificate", "uploads")
@pytest.mark.parametrize(
    "name", [name if name in ("ci", "migrations") else pytest.param(name, marks=pytest.mark.long) for name in guides()]
)
def test_what_the_how_tos_tell_works(folder, host, site, name):
    variant(artifact("sample_app-0.1.1"), str(folder.path / "deploy/sample_app-0.1.1.tar.gz"))
    variables = folder.path / "deploy/group_vars/bluegreen/of_this_section.yml"
    try:
        for kind, text in guides()[name]:
            if kind == "yaml":
                variables.write_text(text)
                continue
            if kind == "console":
                for line in text.splitlines():
                    host.check_output(line.removeprefix("$ "))
                continue
            for line in text.replace("/tmp/", f"{folder.path}/").splitlines():
                first, *words = shlex.split(line)
                folder.type(first, "-i", "production.yml", *words, at="deploy")
    finally:
        variables.unlink(missing_ok=True)
        folder.play("setup")
    assert site.get().status_code == 200


def test_what_fails_says_why_once(folder):
    said = folder.play("promote", "-e", "color=red", rc=2)
    assert said.count("color must be blue or green (got 'red')") == 1 and "in all, and it failed" in said
    assert "TASK [" in folder.play("promote", "-e", "color=red", "-v", rc=2)


def test_staging_is_what_changes_unless_production_is_named(folder):
    shown = folder.type("ansible-inventory", "--list", at="deploy")
    assert "staging1" in shown and SERVER not in shown
    assert json.loads(shown)["_meta"]["hostvars"]["staging1"]["bluegreen_domain"] == "staging.sample.test"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["app=sample_app", "domain=sample.test"], "deploy exists, so nothing was written"),
        (["app=Sample"], "Name the app and its domain"),
        (["app=Sample", "domain=sample.test", "to=other"], "app=Sample: must be a small letter"),
        (["app=sample", "domain=https://sample.test", "to=other"], "must be a host name"),
    ],
)
def test_init_refuses(folder, words, said):
    before = sorted(path.name for path in folder.path.iterdir())
    assert said in folder.init(*[part for word in words for part in ("-e", word)], rc=2)
    assert sorted(path.name for path in folder.path.iterdir()) == before


# --- status for others than a person at a terminal ---------------------------------------------------------------------


def test_status_for_machines_and_for_a_browser(folder, site):
    assert f"written to {folder.path}/deploy/status.json" in folder.play("status", "-e", "format=json")
    with open(folder.path / "deploy/status.json", encoding="utf-8") as stream:
        found = json.load(stream)
    host = found["hosts"][SERVER]
    assert (found["app"], found["in_doubt"], host["ok"], host["agree"]) == ("sample_app", False, True, True)
    live = host["slots"][site.color()]
    assert host["live"] == site.color() and live["release"].startswith(f"{site.version()}-")
    folder.play("status", "-e", "format=html", "-e", "out=page.html")
    page = (folder.path / "deploy/page.html").read_text()
    assert page.startswith("<!doctype html>") and host["slots"]["blue"]["release"] in page
    assert "must be one of: json, html" in folder.play("status", "-e", "format=xml", rc=2)
