#!/usr/bin/python
# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: site_certificate
short_description: Get the certificate of a site from an authority, or from another host of the group
version_added: 1.0.0
description:
  - Works on what set-up wrote to C(<root>/tls/config.json). C(certbot) speaks with the authority.
  - The hosts of a group have one key. One of them gets the certificate, the others get it with O(bundle). Later they renew it themselves,
    and only the certificate, which is public, goes from host to host.
  - The result of O(state=read) has the key in it, so use it with C(no_log).
author:
  - The beamops.bluegreen contributors (@beamops)
extends_documentation_fragment:
  - beamops.bluegreen.app
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  state:
    description:
      - V(adopted) makes the directory, and takes over the certificate that the installed site has, if it is good for all names.
      - V(obtained) asks the authority if the certificate is due. A refusal does not fail the task, it is returned as RV(problem).
      - V(read) returns certificate and key.
      - V(written) puts O(bundle) there.
    type: str
    choices: [adopted, obtained, read, written]
    default: obtained
  bundle:
    description: What V(read) returned on another host.
    type: str
  run_id:
    description: Id of the run that holds the lock.
    type: str
    default: ''
"""

EXAMPLES = r"""
- name: Get the certificate
  beamops.bluegreen.site_certificate:
    app: my_app
    root: /opt/my_app
    domain: example.com
    ports: {blue: 4000, green: 5000}
    listen: "80"
    tls_listen: "443"
    service_manager: systemd
"""

RETURN = r"""
ok:
  description: True; absent when the module failed.
  type: bool
  returned: success
fingerprint:
  description: SHA-256 of the certificate, hexadecimal; empty if there is none for the names of the site.
  type: str
  returned: success
not_after:
  description: When it ends, in seconds since 1970; 0 without one.
  type: float
  returned: success
has_key:
  description: Whether there is a key.
  type: bool
  returned: success
certbot:
  description: Whether certbot is installed.
  type: bool
  returned: success
problem:
  description: Why there is no new certificate, in the words of the authority; empty if there is no problem.
  type: str
  returned: success
bundle:
  description: Certificate and key, as one word.
  type: str
  returned: O(state=read)
"""

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

from ansible_collections.beamops.bluegreen.plugins.module_utils import _certificate, _files, _renewal
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure, Refused
from ansible_collections.beamops.bluegreen.plugins.module_utils._module import run_module

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule
    from ansible_collections.beamops.bluegreen.plugins.module_utils._app import App


def adopt(certificate: _renewal.Certificate, site: str) -> bool:
    """Take over what certbot, or somebody by hand, got for this site before; so it never goes back to http. Whether there was something."""
    if certificate.found():
        return False
    theirs, key = _certificate.of_site(site)
    found = _certificate.read(theirs) if theirs != certificate.path else None
    if not found or not _certificate.is_pair(theirs, key) or _certificate.uncovered(found, certificate.config["names"]):
        return False
    for source, path, mode in ((key, certificate.key, 0o600), (theirs, certificate.path, 0o644)):
        _files.write_file(path, _files.read_text(source) or "", mode)
    return True


def state_of(certificate: _renewal.Certificate) -> dict[str, Any]:
    found = certificate.found()
    good = bool(found) and not _certificate.uncovered(found or {}, certificate.config["names"])
    return {
        "fingerprint": found["fingerprint"] if found and good else "",
        "not_after": found["not_after"] if found and good else 0.0,
        "has_key": os.path.exists(certificate.key),
        "certbot": bool(shutil.which("certbot", path=_renewal.PROGRAMS)),
        "problem": "",
    }


def write(certificate: _renewal.Certificate, bundle: str) -> bool:
    """Put the certificate and the key of another host there. Raises: Refused."""
    try:
        told = json.loads(bundle)
        pair = ((certificate.key, str(told["key"]), 0o600), (certificate.path, str(told["certificate"]), 0o644))
    except (ValueError, TypeError, KeyError):
        raise Refused(
            "the bundle is not what site_certificate returned on another host (its value is not shown)"
        ) from None
    if all(_files.read_text(path) == text for path, text, _mode in pair):
        return False
    for path, text, mode in pair:
        _files.write_file(path, text, mode)
    certificate.forget_authority()
    return True


def work(module: AnsibleModule, app: App) -> dict[str, Any]:
    config = _files.read_json(f"{app.root}/tls/config.json")
    if not config:
        if module.check_mode:
            # A dry run has written nothing.
            return {"fingerprint": "", "not_after": 0.0, "has_key": False, "certbot": True, "problem": ""}
        raise Failure(f"{app.root}/tls/config.json is missing. Run setup.yml.")
    certificate, changed, state = _renewal.Certificate(config), False, module.params["state"]
    if state == "read":
        texts = {"certificate": _files.read_text(certificate.path), "key": _files.read_text(certificate.key)}
        if None in texts.values():
            raise Failure("there is no certificate on this host")
        return {**state_of(certificate), "bundle": json.dumps(texts)}
    if module.check_mode:
        return {**state_of(certificate), "changed": state == "obtained" and bool(certificate.due())}
    problem = ""
    if state == "adopted":
        changed = adopt(certificate, _files.read_text(app.site_file) or "")
    elif state == "written":
        changed = write(certificate, module.params["bundle"])
    else:
        try:
            changed = certificate.renew()
        except _renewal.Problem as error:
            problem = str(error)
    return {**state_of(certificate), "changed": changed, "problem": problem}


def main() -> None:
    run_module(
        dict(
            state=dict(type="str", choices=["adopted", "obtained", "read", "written"], default="obtained"),
            bundle=dict(type="str", no_log=True),
            run_id=dict(type="str", default=""),
        ),
        work,
        required_if=[("state", "written", ["bundle"])],
    )


if __name__ == "__main__":
    main()
