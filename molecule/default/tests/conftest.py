# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.environ["MOLECULE_PROJECT_DIRECTORY"], "tests"))

from support import bluegreen
from support.one_host import named, play, pytest_runtest_makereport

__all__ = ["play", "pytest_runtest_makereport"]


def pytest_configure(config):
    config.addinivalue_line("markers", "traffic: load while slots switch; `make test-traffic` runs the long form")


@pytest.fixture(scope="session")
def host():
    return named("bluegreen-web1")


@pytest.fixture(scope="session")
def site():
    return bluegreen.Site(int(os.environ.get("SITE_PORT", "18180")), "sample.test")
