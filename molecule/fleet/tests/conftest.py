# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.join(os.environ["MOLECULE_PROJECT_DIRECTORY"], "tests"))

from support.faults import FAULTS


def pytest_configure(config):
    config.addinivalue_line("markers", "faults: kills, cuts and floods; `make test-faults` tries all of them")
    config.addinivalue_line("markers", "walk: a random walk; `make test-walk` goes as far as you like")


def pytest_terminal_summary(terminalreporter):
    if FAULTS.tried:
        terminalreporter.write_line(FAULTS.summary())
