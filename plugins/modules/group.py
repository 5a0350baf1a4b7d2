#!/usr/bin/python
# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: group
short_description: Decide for a whole group of hosts
version_added: 1.0.0
description:
  - Reads what all hosts of the group have registered in this run, and decides for all of them. Whether the run may go on, where each host
    goes, what has to be undone, and what a person is told.
  - Works on the controller only, for the playbooks of this collection. Use it with C(run_once), and register its result as
    C(__bluegreen_gate) after O(check) and O(plan).
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
  check:
    description:
      - Steps that every host must have behind it. One that ends in V(?) may have been left out.
      - With O(ignore:bluegreen_lost_hosts=proceed) the run goes on without hosts that cannot be reached.
    type: list
    elements: str
  plan:
    description: Decide where each host goes, print it, and shut the gate where that cannot be carried out.
    type: str
    choices: [deploy, switch, canary, rollback, join]
  color:
    description: For O(plan=switch), the slot that the user named.
    type: str
  percent:
    description: For O(plan=canary), the share of the visitors.
    type: int
    default: 0
  force:
    description: For O(plan=deploy) and O(plan=rollback), the consent to what they refuse otherwise.
    type: bool
    default: false
  certificate:
    description: Work out which host gets the certificate for all.
    type: bool
    default: false
  cookie:
    description: Work out which host of a cluster has the cookie that the others lack.
    type: bool
    default: false
  meetings:
    description: Work out which nodes each node that was just deployed must be connected with.
    type: bool
    default: false
  switch_times:
    description: Work out when each host switches, so that all of them do at one moment.
    type: bool
    default: false
  watch:
    description: Judge the slot O(color) by what M(beamops.bluegreen.slot_watch) has registered as C(__bluegreen_watched), so many seconds after
      the watch began.
    type: int
    version_added: 1.0.0
  meanwhile:
    description: For O(watch), whether the other slot was counted at the same time, rather than before.
    type: bool
    default: false
    version_added: 1.0.0
  sum_up:
    description: Work out how the run went, for the history of the hosts and for what is confirmed when the lock is freed.
    type: bool
    default: false
  tell:
    description: Print something. V(ending) also fails if the run did.
    type: str
    choices: [migration, pending, status, env, logs, ending]
  format:
    description: For O(tell=status), also return it as a file of this kind.
    type: str
    choices: [json, html, prometheus]
"""

EXAMPLES = r"""
- name: Require that every slot is healthy
  beamops.bluegreen.group:
    check: [deployed]
  register: __bluegreen_gate
  run_once: true

- name: Take the traffic back on every host
  beamops.bluegreen.slot_switch:
    state: undone
  when: "'switch' in __bluegreen_gate.undo"
"""

RETURN = r"""
ok:
  description: Whether the run may go on.
  type: bool
  returned: with O(check), O(plan) and O(watch)
failures:
  description: C(host), C(step) and C(why) of each host that keeps it from going on.
  type: list
  elements: dict
  returned: with O(check), O(plan) and O(watch)
lost:
  description: Hosts that the run goes on without.
  type: list
  elements: str
  returned: with O(check), O(plan) and O(watch)
begun:
  description: Steps that the run has come to.
  type: list
  elements: str
  returned: with O(check), O(plan) and O(watch)
undo:
  description: What has to be undone, of V(slots), V(switch) and V(traffic). Empty while the run may go on.
  type: list
  elements: str
  returned: with O(check), O(plan) and O(watch)
worse:
  description: Whether what went live, or a canary, was judged worse than the other slot.
  type: bool
  returned: with O(check), O(plan) and O(watch)
steps:
  description: The shares that a promote goes up by before it switches, in percent.
  type: list
  elements: int
  returned: with O(check), O(plan) and O(watch)
kept:
  description: Whether the slots keep what a deploy put into them, however the promote after it ends.
  type: bool
  returned: with O(check), O(plan) and O(watch)
run:
  description: Id of the run.
  type: str
  returned: with O(check), O(plan) and O(watch)
hosts:
  description:
    - Host to its goal (C(color), C(release), C(env), C(already), C(take), C(nodes)), with O(meetings) to names of nodes, or, with
      O(switch_times), to seconds since it booted.
  type: dict
  returned: with O(check), O(plan), O(meetings) and O(switch_times)
looks:
  description: When a watch of what goes live looks, in seconds; empty for none.
  type: list
  elements: int
  returned: with O(switch_times)
before:
  description: Seconds before the switch that a watch compares with.
  type: int
  returned: with O(switch_times), if there is a watch
back:
  description: Whether all hosts could go back.
  type: bool
  returned: with O(switch_times)
finish:
  description: How a host that is the whole group ends the run by itself, as options of M(beamops.bluegreen.deploy_lock).
  type: dict
  returned: with O(switch_times), if it may
ended:
  description: Host to what it returned when it ended the run by itself.
  type: dict
  returned: with O(sum_up)
source:
  description: The host whose cookie the others get.
  type: str
  returned: with O(cookie)
targets:
  description: Hosts that have another cookie.
  type: list
  elements: str
  returned: with O(cookie)
result:
  description: V(ok) or V(failed).
  type: str
  returned: with O(sum_up)
reason:
  description: Why the run failed, in one line.
  type: str
  returned: with O(sum_up)
confirm:
  description: Host to the color whose deploy was good.
  type: dict
  returned: with O(sum_up)
prune:
  description: Whether old releases may be removed.
  type: bool
  returned: with O(sum_up)
migrations:
  description: Versions of the migrations that have run, as the app told them; null if it was not asked.
  type: list
  elements: str
  returned: with O(sum_up)
in_doubt:
  description: Whether a host gave no answer, or does not agree with itself.
  type: bool
  returned: with O(tell=status)
report:
  description: The content of the file.
  type: str
  returned: with O(tell=status)
"""
