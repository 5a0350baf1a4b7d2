#!/usr/bin/python
# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: say
short_description: Print lines to the terminal as they are
version_added: 0.1.0
description:
  - The callback of Ansible prints messages as JSON or YAML, which wraps tables and escapes line ends.
  - Works on the controller only.
author:
  - The beamops.bluegreen contributors (@beamops)
extends_documentation_fragment:
  - action_common_attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  platform:
    platforms: posix
options:
  lines:
    description: What to print.
    type: list
    elements: str
    required: true
  failed:
    description: Fail with this message after printing, unless it is empty.
    type: str
    default: ""
    version_added: 1.0.0
"""

EXAMPLES = r"""
- name: Show the next command
  beamops.bluegreen.say:
    lines: ["next: promote.yml -e color=green"]
"""

RETURN = r"""#"""
