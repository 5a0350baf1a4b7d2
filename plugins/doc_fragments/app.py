# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    """Options that say which app is meant and where it lives; every module takes them."""

    DOCUMENTATION = r"""
options:
  app:
    description: Name of the release, C([a-z][a-z0-9_]{0,31}). User, units and nginx upstreams are named after it.
    type: str
    required: true
  root:
    description: Directory of the app on the host, an absolute path.
    type: path
    required: true
  domain:
    description: The C(server_name) that nginx answers to for this app. May be empty without O(web).
    type: str
    required: true
  web:
    description: Whether the host serves visitors. If not, it has no site, and nginx is not asked.
    type: bool
    default: true
    version_added: 1.0.0
  user:
    description: Account that the app runs as. By default it has one of its own, of the same name.
    type: str
    default: ''
    version_added: 1.0.0
  ports:
    description: TCP port of each slot, two different whole numbers from 1024 to 65535 under the keys C(blue) and C(green).
    type: dict
    required: true
  listen:
    description: Port, or IPv4 address and port, that nginx listens on for this app.
    type: str
    required: true
  tls_listen:
    description: Port, or IPv4 address and port, that nginx listens on with TLS; empty where the site has none.
    type: str
    default: ''
  service_manager:
    description:
      - What runs the slots.
      - With V(systemd), a unit for each slot; with V(daemon), the release's own C(daemon) command.
    type: str
    required: true
    choices: [systemd, daemon]
  nginx_conf_dir:
    description: Directory of C(nginx.conf).
    type: path
    default: /etc/nginx
  facts_dir:
    description: Directory of the host's local facts.
    type: path
    default: /etc/ansible/facts.d
  cluster:
    description:
      - The cluster that the nodes of the app are in, with C(address) (IPv4, of this host), C(generations) (V(together) or V(apart)) and
        C(ports), the first of five for each slot. Empty for none.
    type: dict
    default: {}
    version_added: 1.0.0
attributes:
  check_mode:
    description: Can run in check mode and predict what would change, without changing it.
  diff_mode:
    description: Can show what changed, or would change, in diff mode.
"""

    # What of a slot counts as healthy.
    HEALTH = r"""
options:
  health_path:
    description: URL path of the health check.
    type: str
    default: /
  health_status:
    description: HTTP status that counts as healthy.
    type: int
    default: 200
  health_expr:
    description:
      - Elixir expression that must give V(true) on the node of the slot, beside O(health_path). Without O(web) it is asked instead, and an empty
        one asks whether the node answers at all.
    type: str
    default: ''
    version_added: 1.0.0
"""

    # What V(slot_info) can be asked for beside that.
    LOOK = r"""
options:
  history:
    description: How many lines of history to return.
    type: int
    default: 0
  expected_files:
    description:
      - The files of set-up, as M(beamops.bluegreen.slot_setup) takes them. Of one without C(content) it does not matter what is in it.
      - The module returns those that are missing or differ as C(setup_needed).
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where the file belongs.
        type: path
        required: true
      content:
        description: The text that set-up would put there. Not logged, because it is long.
        type: str
      mode:
        description: Its permissions, which the module does not compare.
        type: str
      once:
        description: Whether a file that is there stays as it is, so that nothing in it differs.
        type: bool
        default: false
  preview_token:
    description: The preview token that should be set, for C(setup_needed). Ignored without O(expected_files).
    type: str
    default: ''
  overwrite_edits:
    description:
      - Whether set-up may overwrite a site that somebody edited. Without it such an edit is among the conflicts.
    type: bool
    default: false
  env:
    description: The user's variables, packed by the P(beamops.bluegreen.slot_env#filter) filter, for C(wanted).
    type: str
  with_env_names:
    description: Return in C(env_names) the names of the variables of both slots, each with a hash that tells equal values.
    type: bool
    default: false
    version_added: 1.0.0
  env_salt:
    description:
      - Return in C(env_digests) a hash of the environment of each slot, without what is another on each host. With the same salt, hosts with the
        same values have the same hash.
    type: str
    default: ''
    version_added: 1.0.0
  with_figures:
    description: Return in C(figures) how the site answered in the last day, by the half hour.
    type: bool
    default: false
    version_added: 1.0.0
  with_files:
    description: Return in C(host_content) which files the releases on the host have, for M(beamops.bluegreen.release_install).
    type: bool
    default: false
"""
