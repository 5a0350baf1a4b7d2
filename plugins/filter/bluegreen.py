# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the playbooks; each is documented in a file of its own name beside this one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.beamops.bluegreen.plugins.module_utils import _envfile
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Refused
from ansible_collections.beamops.bluegreen.plugins.plugin_utils import _controller
from ansible_collections.beamops.bluegreen.plugins.plugin_utils._variables import module_name


def slot_env(
    env: Mapping | None,
    env_file: str | None = None,
    blue: Mapping | None = None,
    green: Mapping | None = None,
    shared: str | None = None,
) -> str:
    try:
        user = {"BLUEGREEN_SHARED": shared} if shared else {}
        user.update(_envfile.read_dotenv(env_file) if env_file else {})
        user.update(_envfile.from_mapping(env or {}))
        by_color = {
            "blue": _envfile.from_mapping(blue or {}, "bluegreen_env_blue"),
            "green": _envfile.from_mapping(green or {}, "bluegreen_env_green"),
        }
        return _envfile.pack(_envfile.with_colors(user, by_color))
    except Refused as error:
        raise AnsibleFilterError(str(error)) from None


def play_hosts(name: str, groups: Mapping) -> str:
    _controller.outlive_reader()
    return name if groups.get(name) else "localhost"


class FilterModule:
    def filters(self) -> dict[str, Callable]:
        return {
            "slot_env": slot_env,
            "module_name": module_name,
            "play_hosts": play_hosts,
        }
