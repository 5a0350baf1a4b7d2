#!/usr/bin/python
# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Check all input of a run before a host is touched
version_added: 0.1.0
description:
  - Checks the variables of the collection as the host has them. Their types are those of the role P(beamops.bluegreen.preflight#role).
  - Matches names, domains, ports, paths and versions against allow-lists, checks that an env file can hold the environment variables, and
    refuses unknown variables that start with C(bluegreen_).
  - Reads the whole artifact. It must be a complete tarball of a release of this app, without members that lead outside.
  - Works on the controller only, and reports everything that is wrong at once.
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
  operation:
    description: Name of the operation or query, such as V(deploy). Some cannot do without O(color), O(percent), O(state) or O(expr).
    type: str
    default: ''
    version_added: 1.0.0
  left_out:
    description: Hosts of the group that C(--limit) leaves out; any are refused.
    type: list
    elements: str
    default: []
  group:
    description: Name of the group. With O(operation), one without hosts is refused.
    type: str
    default: ''
  color:
    description: The color that was named on the command line, if any.
    type: str
    default: ''
  percent:
    description: The percent that was named on the command line, if any.
    type: str
    default: ''
  state:
    description: The state that was named on the command line, if any.
    type: str
    default: ''
    version_added: 1.0.0
  expr:
    description: The expression that was named on the command line, if any.
    type: str
    default: ''
    version_added: 1.0.0
  since:
    description: For V(logs), how far back, as it was named on the command line, if it was.
    type: str
    default: ''
    version_added: 1.0.0
  watch:
    description: For V(canary), the seconds that were named on the command line, if any.
    type: str
    default: ''
    version_added: 1.0.0
  steps:
    description: For V(promote), the shares that were named on the command line, if any.
    type: str
    default: ''
    version_added: 1.0.0
  artifact_needed:
    description: Whether the run needs the artifact.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Check the input
  beamops.bluegreen.preflight:
    artifact_needed: true
"""

RETURN = r"""
maintenance_page:
  description: Absolute path of the maintenance page, or empty.
  type: str
  returned: success
run:
  description: Id of the run (C(id)) and who started it (C(holder)), for the lock.
  type: dict
  returned: success
hooks:
  description: Absolute paths of the user's own task files, by when they run.
  type: dict
  returned: success
artifact_info:
  description: What is in the artifact, with C(version), C(sha256), C(bytes) and C(unpacked_bytes), sizes in bytes.
  type: dict
  returned: when a local artifact was needed
"""
