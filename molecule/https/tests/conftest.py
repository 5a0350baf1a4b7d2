# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.environ["MOLECULE_PROJECT_DIRECTORY"], "tests"))

from support.bluegreen import Site
from support.one_host import named, other_app, play, pytest_runtest_makereport

__all__ = ["other_app", "play", "pytest_runtest_makereport"]

HTTP, HTTPS = 18580, 18543


@pytest.fixture(scope="session")
def host():
    return named("bluegreen-https1")


@pytest.fixture
def site():
    """The site of that app, as its visitors see it."""
    return Site(HTTP, "other.test")


@pytest.fixture
def secure():
    """The same over https."""
    return Site(HTTPS, "other.test", secure=True)
