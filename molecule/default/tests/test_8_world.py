# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What real servers and apps bring along: each kind goes through its deploys, promote and rollback, and no request is lost."""

from __future__ import annotations

import os
import time

import pytest
from support.bluegreen import Client, Site, artifact, broken, playbook, variant

INVENTORY = os.environ["MOLECULE_INVENTORY_FILE"]
ROOT = "/opt/sample_app"
OLD, NEW = artifact("sample_app-0.1.0"), artifact("sample_app-0.1.1")
HTTPS = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}


@pytest.fixture(scope="module", autouse=True)
def known_state(host):
    """0.1.0 is live, 0.1.1 is idle and has not been live."""
    del host
    playbook(INVENTORY, "deploy", {"bluegreen_artifact": OLD, "bluegreen_promote": True, "bluegreen_force": True})
    playbook(INVENTORY, "deploy", {"bluegreen_artifact": NEW, "bluegreen_force": True})


@pytest.fixture
def other_app(host):
    """Variables of an app that is not on the host yet, and is gone after the test."""
    yield {
        "bluegreen_app": "other_app",
        "bluegreen_domain": "other.test",
        "bluegreen_ports": {"blue": 6400, "green": 7400},
    }
    host.check_output(
        "sudo sh -c 'systemctl disable --now other_app@blue other_app@green; rm -rf /opt/other_app /etc/ansible/facts.d/other_app.fact "
        "/etc/nginx/conf.d/other_app.conf /etc/systemd/system/other_app*; systemctl daemon-reload; systemctl reload nginx; "
        "userdel other_app; true' 2>&1"
    )


@pytest.mark.parametrize("umask", ["0027", "0077"])
def test_a_hardened_umask(host, play, other_app, tmp_path, umask):
    """sudo gives root the umask that a hardening guide wants; the app and nginx have to read what we write all the same."""
    first = artifact("other_app-0.1.0")
    second = variant(first, str(tmp_path / "second.tar.gz"))
    site = Site(18180, "other.test")
    hardened = f"echo 'Defaults umask={umask}, umask_override' | sudo tee /etc/sudoers.d/hardened && sudo chmod 440 /etc/sudoers.d/hardened"
    with broken(host, hardened, "sudo rm /etc/sudoers.d/hardened"):
        play("deploy", other_app, {"bluegreen_artifact": first})
        with Client(site) as client:
            play("deploy", other_app, {"bluegreen_artifact": second})
            play("canary", other_app, "percent=50")
            seen = {site.get(headers={"User-Agent": f"visitor {number}"}).json()["color"] for number in range(60)}
            assert seen == {"blue", "green"}
            play("promote", other_app)
            play("rollback", other_app)
        assert client.failed == []
        play("maintenance", other_app, "state=on")
        assert site.get("/").status_code == 503
        play("maintenance", other_app, "state=off")
        assert site.get("/").status_code == 200


def test_an_app_that_forces_https_behind_a_load_balancer(host, play, site):
    """What the Phoenix generator writes: force_ssl with rewrite_on, and a health path that redirects like any other."""
    forced = {"bluegreen_env": {"SAMPLE_FORCE_SSL": "1"}, "bluegreen_trusted_proxies": ["172.16.0.0/12", "10.0.0.0/8"]}
    try:
        refused = play("deploy", {"bluegreen_artifact": OLD, "bluegreen_env": forced["bluegreen_env"]}, rc=2)
        refused.says("redirects /health to https", "force_ssl", "bluegreen_trusted_proxies if a load balancer ends TLS")
        play("deploy", {"bluegreen_artifact": NEW, **forced, "bluegreen_force": True, "bluegreen_promote": True})
        behind = Site(18180, "sample.test")
        behind.headers = {**behind.headers, **HTTPS}
        with Client(behind) as client:
            assert behind.get("/").status_code == 200
            play("deploy", {"bluegreen_artifact": OLD, **forced, "bluegreen_force": True})
            play("promote", forced)
            play("rollback", forced)
        assert client.failed == []
    finally:
        play("deploy", {"bluegreen_artifact": OLD, "bluegreen_promote": True, "bluegreen_force": True})


def test_a_live_slot_that_somebody_ends_comes_back(host, site):
    """SIGTERM from outside ends the VM with status 0, which is no failure to systemd."""
    unit = f"sample_app@{site.color()}"
    before = site.pid()
    host.check_output(f"sudo systemctl kill --kill-whom=main -s TERM {unit}")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        answer = site.get("/")
        if answer.status_code == 200 and answer.json()["pid"] != before:
            return
        time.sleep(0.2)
    raise AssertionError(host.run(f"systemctl status {unit}").stdout)
