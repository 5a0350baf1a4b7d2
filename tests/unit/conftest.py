# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make ansible_collections.beamops.bluegreen importable from the checkout, as `make venv` laid it out."""

from __future__ import annotations

import os
import pathlib

os.environ.setdefault("ANSIBLE_CONFIG", str(pathlib.Path(__file__).parents[2] / "ansible.cfg"))

import hypothesis
import pytest
from ansible.plugins.loader import init_plugin_loader

init_plugin_loader()
# Beside the hosts of other tests this machine may be slow, which is no fault of the code.
hypothesis.settings.register_profile("any", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("any")


@pytest.fixture
def app(tmp_path):
    """An app of which nothing is installed, in a folder of its own."""
    options = {
        "app": "my_app",
        "root": str(tmp_path),
        "domain": "example.com",
        "ports": {"blue": 4000, "green": 5000},
        "listen": "80",
        "tls_listen": "",
        "service_manager": "systemd",
        "nginx_conf_dir": "/etc/nginx",
        "facts_dir": str(tmp_path / "facts"),
    }
    from ansible_collections.beamops.bluegreen.plugins.module_utils import _app

    return _app.App(options)
