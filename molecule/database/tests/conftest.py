# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.environ["MOLECULE_PROJECT_DIRECTORY"], "tests"))

from support.one_host import named, play, pytest_runtest_makereport

__all__ = ["play", "pytest_runtest_makereport"]


@pytest.fixture(scope="session")
def host():
    return named("bluegreen-database1")
