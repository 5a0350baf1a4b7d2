#!/usr/bin/python
# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: slot_info
short_description: Read which slot is live, which is idle, and whether a host is consistent
version_added: 0.1.0
description:
  - Asks nginx for C(/deployment_id), and compares the answer with the C(live) symlink, the facts file and the processes.
  - Picks the slot for a deploy. That is the idle one, or the live one as long as neither slot holds a release, so that the site is up
    at once.
  - Only reads, also in check mode.
author:
  - The beamops.bluegreen contributors (@beamops)
extends_documentation_fragment:
  - beamops.bluegreen.app
  - beamops.bluegreen.app.health
  - beamops.bluegreen.app.look
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Read the slots
  beamops.bluegreen.slot_info:
    app: my_app
    root: /opt/my_app
    domain: example.com
    ports: {blue: 4000, green: 5000}
    listen: "80"
    service_manager: systemd
  register: info
"""

RETURN = r"""
ok:
  description: True; absent when the module failed.
  type: bool
  returned: success
live:
  description: Color that traffic goes to. V(blue) on a host that is not set up yet.
  type: str
  returned: success
idle:
  description: The other color.
  type: str
  returned: success
target:
  description: Color that a deploy goes to.
  type: str
  returned: success
link:
  description: Color that the C(live) symlink points to; null where there is none.
  type: str
  returned: success
deployment_id:
  description: The answer of nginx at C(/deployment_id); null if there is none.
  type: str
  returned: success
deployment_id_error:
  description: Why nginx gave no such answer; null if it did.
  type: str
  returned: success
previous:
  description: Color, release and C(env) that were live before the current ones; null if there is nothing to roll back to.
  type: dict
  returned: success
slots:
  description:
    - What each slot holds and does, by color.
    - Each has C(release), C(env) (the id of its environment), C(env_changes) (names of the variables that are C(added), C(removed) and
      C(changed) beside what is live), C(rolled_back), C(version), C(sha256), C(deployed_at), C(promoted_at), C(port), C(connections), C(running),
      C(enabled) (it starts with the host), C(pid),
      C(healthy), C(health) (the answer in words), C(process_release) (what the process really runs) and C(pending) (a deploy that is
      not confirmed, or null).
    - In a cluster, a slot that runs has C(node), with its C(name), the nodes that it was C(told) of and those that it C(sees) (null if it
      does not say), and C(node_listens), where it listens for other nodes.
  type: dict
  returned: success
releases:
  description: Ids of the releases that are unpacked on the host, newest first.
  type: list
  elements: str
  returned: success
host_content:
  description:
    - With O(with_files), what need not be sent to the host. C(artifacts) is SHA-256 to release, and C(files) the first bytes of
      the SHA-256 of all files, in base64.
  type: dict
  returned: success
disagreements:
  description: Sentences about everything on which facts, symlink, nginx and processes disagree.
  type: list
  elements: str
  returned: success
problems:
  description: Sentences about what cannot be read at all; part of RV(disagreements).
  type: list
  elements: str
  returned: success
live_unknown:
  description: True when nginx sends traffic elsewhere than the C(live) symlink says, so that no slot may be touched.
  type: bool
  returned: success
rollback:
  description:
    - Where a rollback goes, with C(release), C(env), C(color), and C(take), which is true if the slot has been reused since and
      both have to go into it again.
    - Has C(refused), a sentence, when there is nothing to go back to.
  type: dict
  returned: success
migrate_color:
  description: Color of the slot whose release migrates unless one is named.
  type: str
  returned: success
conflicts:
  description: Sentences about what forbids any change, such as the live slot being on another port.
  type: list
  elements: str
  returned: success
history:
  description: The last operations on this host, oldest first.
  type: list
  elements: dict
  returned: success
last_run:
  description: The last operation on this host that decided what is live; null if there was none.
  type: dict
  returned: success
figures:
  description:
    - With O(with_figures), the half hours of the last day in which a slot answered, in order. Each has C(at), when it began, in seconds since 1970, C(color),
      C(requests), C(errors) (5xx) and C(p95), the time that 95 % of the answers took at most, in milliseconds, null if none counts.
    - Empty unless the site writes down how it answers (C(bluegreen_watch)).
  type: list
  elements: dict
  returned: success
migrations:
  description: Versions of the migrations that had run, by release, as far as known.
  type: dict
  returned: success
rolled_back:
  description: What was rolled back from, each with C(release) and C(env), which is empty where the release is bad under any.
  type: list
  elements: dict
  returned: success
wanted:
  description: With O(env), the id of the environment that a deploy would bring (C(env)), and C(env_changes) as in RV(slots).
  type: dict
  returned: success
canary:
  description: Percent of the visitors that get the idle slot.
  type: int
  returned: success
maintenance:
  description: Whether maintenance is on.
  type: bool
  returned: success
no_site:
  description: True where nginx has no site of this app yet.
  type: bool
  returned: success
notes:
  description:
    - Sentences that are worth knowing and nothing to be in doubt about, such as settings of the site that are not installed yet, a rule for
      visitors that hides the site from the proof, or an edit of certbot.
  type: list
  elements: str
  returned: success
setup_needed:
  description: Paths that set-up would create or change.
  type: list
  elements: str
  returned: success
facts:
  description: The facts as they are in the file.
  type: dict
  returned: success
lock:
  description: Who holds the deploy lock; null if nobody does.
  type: dict
  returned: success
nginx_version:
  description: Version of nginx; null where it is not installed.
  type: str
  returned: success
cookie:
  description: A hash of the app's cookie on this host, which tells nothing of it; empty where there is none yet.
  type: str
  returned: success
env_names:
  description: With O(with_env_names), by color the names of the variables of the slot, each with a hash that tells nothing of its value.
  type: dict
  returned: success
has_user:
  description: Whether the host has the account that the app runs as.
  type: bool
  returned: success
is_root:
  description: Whether the module ran as root.
  type: bool
  returned: success
"""


from ansible_collections.beamops.bluegreen.plugins.module_utils._info import INFO_OPTIONS, collect
from ansible_collections.beamops.bluegreen.plugins.module_utils._module import run_module


def main() -> None:
    run_module(INFO_OPTIONS, lambda module, app: collect(app, module.params), exclusive=False)


if __name__ == "__main__":
    main()
