# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make ansible_collections.beamops.bluegreen importable from the checkout, as `make venv` laid it out."""

from __future__ import annotations

import os
import pathlib

os.environ.setdefault("ANSIBLE_CONFIG", str(pathlib.Path(__file__).parents[2] / "ansible.cfg"))

import hypothesis
from ansible.plugins.loader import init_plugin_loader

init_plugin_loader()
# Beside the hosts of other tests this machine may be slow, which is no fault of the code.
hypothesis.settings.register_profile("any", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("any")
