# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the scenarios with one host, for their conftest.py."""

from __future__ import annotations

import os

import pytest
import testinfra

from support import bluegreen

INVENTORY = os.environ["MOLECULE_INVENTORY_FILE"]


def named(name):
    """A host by its name. Not testinfra's own fixture: that is parametrized, and pytest would reorder the tests by it."""
    return testinfra.get_host(f"ansible://{name}?ansible_inventory={INVENTORY}")


@pytest.fixture
def play():
    """Run a playbook on the scenario's host: play("deploy", "bluegreen_artifact=…")."""

    def run(name, *args, **kwargs):
        return bluegreen.playbook(INVENTORY, name, *args, **kwargs)

    return run


@pytest.fixture
def other_app(host):
    """Variables of an app that is not on the host yet, and is gone after the test."""
    yield {
        "bluegreen_app": "other_app",
        "bluegreen_domain": "other.test",
        "bluegreen_ports": {"blue": 6400, "green": 7400},
    }
    host.check_output(
        'sudo sh -c \'systemctl stop "other_app*"; rm -rf /opt/other_app /etc/ansible/facts.d/other_app.fact '
        "/etc/nginx/conf.d/other_app.conf /etc/systemd/system/other_app* /etc/systemd/system/*.wants/other_app*; "
        "systemctl daemon-reload; systemctl reload nginx; userdel other_app; true' 2>&1"
    )


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    """When a test fails, show what the host logged."""
    report = (yield).get_result()
    host = item.funcargs.get("host")
    if report.when == "call" and report.failed and host is not None:
        log = host.check_output("sudo journalctl --no-pager -n 40 -o short-monotonic")
        report.sections.append(("journal of the host", log))
