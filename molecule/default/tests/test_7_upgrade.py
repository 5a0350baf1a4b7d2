# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that an older version of this collection deployed to is taken on by this one, as docs/upgrading.md says."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess

import pytest
from support.bluegreen import Client, Site, artifact, playbook, variant

INVENTORY = os.environ["MOLECULE_INVENTORY_FILE"]
TOP = pathlib.Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
# Commits of this repository: 0.1.0, and the last one before 1.0.0, which no release has.
OLDER = {"0.1.0": "74f429b", "before 1.0.0": "4dac283"}
APP = {
    "bluegreen_app": "other_app",
    "bluegreen_domain": "other.test",
    "bluegreen_ports": {"blue": 6300, "green": 7300},
}


def forget(host):
    host.check_output(
        "sudo sh -c 'systemctl disable --now other_app@blue other_app@green; rm -rf /opt/other_app /etc/ansible/facts.d/other_app.fact "
        "/etc/nginx/conf.d/other_app.conf /etc/systemd/system/other_app*; systemctl daemon-reload; systemctl reload nginx; "
        "userdel other_app; true' 2>&1"
    )


@pytest.fixture
def older(host, request, tmp_path):
    """Run a playbook of an older version."""
    commit, place = OLDER[request.param], tmp_path / "ansible_collections/beamops/bluegreen"
    if subprocess.run(["git", "cat-file", "-e", commit], cwd=TOP, capture_output=True, check=False).returncode:
        pytest.skip("this clone is too shallow to have an older version")
    place.mkdir(parents=True)
    tree = subprocess.run(["git", "archive", commit], cwd=TOP, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "-x"], cwd=place, input=tree, check=True)
    forget(host)
    yield lambda name, *args: playbook(INVENTORY, name, APP, *args, env={"ANSIBLE_COLLECTIONS_PATH": str(tmp_path)})
    forget(host)


@pytest.mark.long
@pytest.mark.parametrize("older", ["0.1.0", pytest.param("before 1.0.0", marks=pytest.mark.long)], indirect=True)
def test_a_host_of_an_older_version_is_taken_on(host, play, older, tmp_path):
    site = Site(18180, "other.test")
    first = artifact("other_app-0.1.0")
    second, third = (variant(first, str(tmp_path / f"{name}.tar.gz")) for name in ("second", "third"))

    def live():
        facts = json.loads(host.check_output("sudo cat /etc/ansible/facts.d/other_app.fact"))
        return facts["slots"][site.color()]["release"]

    older("deploy", {"bluegreen_artifact": first})
    one = live()
    older("deploy", {"bluegreen_artifact": second})
    older("promote")
    two = live()
    assert one != two
    # New connections: the deploy changes the site, and that reload may cut a kept one.
    with Client(site, kept=False) as client:
        # There and back before anything of this version was installed, between what the older one deployed.
        play("rollback", APP)
        assert live() == one
        play("promote", APP, f"color={'green' if site.color() == 'blue' else 'blue'}")
        assert live() == two
        play("deploy", APP, {"bluegreen_artifact": third})
        assert live() == two
        play("promote", APP)
        three = live()
        assert three not in (one, two)
        # Across the upgrade, to what the older version deployed and this one has kept.
        play("rollback", APP)
        assert live() == two
        assert play("status", APP, "strict=true").says().count("consistent:") == 1
    assert client.failed == [] and set(client.seen) == {"blue", "green"}
