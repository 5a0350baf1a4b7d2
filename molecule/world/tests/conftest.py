# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.environ["MOLECULE_PROJECT_DIRECTORY"], "tests"))

from support.bluegreen import Site
from support.one_host import named, play, pytest_runtest_makereport

__all__ = ["play", "pytest_runtest_makereport"]

HTTP, HTTPS = 18380, 18343


@pytest.fixture(scope="session")
def host():
    return named("bluegreen-world1")


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


@pytest.fixture
def site():
    """The site of that app, as its visitors see it."""
    return Site(HTTP, "other.test")


@pytest.fixture(scope="session")
def secure_url():
    return f"https://127.0.0.1:{HTTPS}/"
