#!/usr/bin/python
# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: nginx_site
short_description: Install the nginx site of an app, and prove that nginx loaded it
version_added: 0.1.0
description:
  - Writes C(<nginx_conf_dir>/conf.d/<app>.conf), tests the whole configuration, and reloads nginx, or starts it. With systemd it also has
    nginx started at every boot.
  - A reload counts only if the workers were replaced, because neither the status of C(nginx -s reload) nor that of a signal
    tells whether the master accepted the configuration.
  - If anything fails, the module restores the previous site. It does not touch a configuration that is already broken, and shows why it is.
author:
  - The beamops.bluegreen contributors (@beamops)
extends_documentation_fragment:
  - beamops.bluegreen.app
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  content:
    description:
      - Text of the site.
      - A line that ends in C(# nginx >= 1.25.1), C(# nginx < 1.25.1), C(# with IPv6) or C(# unless set elsewhere) is dropped unless that applies
        to the host.
    type: str
    required: true
  run_id:
    description: Id of the run that must hold the lock. Without it the module does not check the lock.
    type: str
    default: ''
    aliases: [run]
  replaces:
    description:
      - Path of another site that this one replaces, in one reload. The module renames that file within its directory, to a name that begins
        with a dot and that nginx does not include, and renames it back if anything fails.
    type: path
    version_added: 1.0.0
  certificate:
    description: Path of the certificate that the site names. The module refuses it if it is missing, not valid now, or does not match O(key).
    type: path
  key:
    description: Path of the key of O(certificate).
    type: path
  overwrite_edits:
    description:
      - Overwrite a site that somebody edited. Without it the module refuses, and shows the edit.
      - What C(certbot --nginx) has edited stays as it is until the O(content) has a certificate.
    type: bool
    default: false
    version_added: 1.0.0
  preview_token:
    description: Secret that gets a request to the idle slot; empty for none. It becomes the name of a file, and is in no
      configuration.
    type: str
    default: ''
"""

EXAMPLES = r"""
- name: Install the site
  beamops.bluegreen.nginx_site:
    app: my_app
    root: /opt/my_app
    domain: example.com
    ports: {blue: 4000, green: 5000}
    listen: "80"
    service_manager: systemd
    content: "{{ lookup('ansible.builtin.template', 'site.conf.j2') }}"
"""

RETURN = r"""
ok:
  description: True; absent when the module failed.
  type: bool
  returned: success
actions:
  description: What was done, or would be done, in words.
  type: list
  elements: str
  returned: success
path:
  description: Path of the site.
  type: str
  returned: success
"""

import contextlib
import os
import re
from typing import TYPE_CHECKING

from ansible_collections.beamops.bluegreen.plugins.module_utils import (
    _app,
    _certificate,
    _files,
    _http,
    _nginx,
    _renewal,
    _validate,
)
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure
from ansible_collections.beamops.bluegreen.plugins.module_utils._module import renamed, run_module

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule
    from ansible_collections.beamops.bluegreen.plugins.module_utils._app import App

DEFAULT_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Back soon</title></head>
<body style="font-family: sans-serif; text-align: center; padding: 4em 1em">
<h1>Back soon</h1><p>We are working on this site. Please try again in a few minutes.</p></body></html>
"""


def write_or_remove(path: str, text: str | None) -> None:
    if text is None:
        _files.remove(path)
    else:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        _files.write_file(path, text, 0o644)


def test(nginx: _nginx.Nginx, app: App, path: str, text: str) -> None:
    """Raises Failure if nginx refuses the configuration, or would give the domain to another site."""
    fine, said = nginx.test()
    if not fine:
        raise Failure(f"nginx refuses the site:\n{said}{offending_line(said, path, text)}")
    # A second server block of the same name and port is a warning for nginx, and an app that nobody reaches for us.
    names = re.search(r"server_name ([^;]+);", text)
    for name in names.group(1).split() if names else []:
        taken = re.search(r'conflicting server name "' + re.escape(name) + r'" on \S+', said)
        if taken:
            raise Failure(
                f"another site of this nginx already answers to {name} ({taken.group(0)}). "
                "Remove the name there, or from bluegreen_domain and bluegreen_aliases."
            )


def offending_line(said: str, path: str, text: str) -> str:
    """The line of the site that nginx complains about, for the person who wrote a snippet."""
    found = re.search(re.escape(path) + r":(\d+)", said)
    lines = text.splitlines()
    if not found or not 0 < int(found.group(1)) <= len(lines):
        return ""
    return f"\n  line {found.group(1)} of it: {lines[int(found.group(1)) - 1].strip()}"


def backup_path(path: str) -> str:
    """Where a site is kept that ours has taken the place of: in its directory, where a * does not find it."""
    return os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.before-bluegreen")


def make_folders(app: App) -> None:
    """Where the site looks for files on every request. Only root may read which names there are below preview/."""
    for folder in (app.canary("blue"), app.canary("green"), os.path.dirname(app.maintenance)):
        os.makedirs(folder, mode=0o755, exist_ok=True)
    os.makedirs(app.preview, mode=0o711, exist_ok=True)
    for color in _validate.COLORS:
        # Deployed by an older version of this collection, whose site did not ask for that.
        journal = _files.read_json(app.journal(color))
        if (
            app.slot_content(color)
            and (not journal or journal["former"]["release"])
            and not os.path.exists(app.proven(color))
        ):
            _files.write_file(app.proven(color), "", 0o644)
    if not os.path.exists(app.maintenance_page):
        _files.write_file(app.maintenance_page, DEFAULT_PAGE, 0o644)


def put_token(app: App, token: str) -> None:
    """The one file below preview/."""
    if token:
        _files.write_file(f"{app.preview}/{token}", "", 0o644)
    for name in os.listdir(app.preview):
        if name != token:
            _files.remove(f"{app.preview}/{name}")


class Site:
    """The site of one app on one host: what is there, what is wanted, and how to get from the one to the other."""

    def __init__(self, module: AnsibleModule, app: App) -> None:
        """Read what is there. Raises: Refused, Failure."""
        params = module.params
        self.app, self.nginx = app, _nginx.Nginx(app)
        if params["certificate"]:
            _nginx.check_certificate(params["certificate"], params["key"])
        self.token = _validate.check_token(params["preview_token"]) if params["preview_token"] else ""
        conflicts = _app.port_conflicts(app, app.live_color())
        if conflicts:
            raise Failure(conflicts[0])
        self.path = app.site_file
        self.text = _nginx.fitted(app, params["content"], self.nginx.version())
        edit = _nginx.Edit(app, self.text)
        self.before = edit.before
        if edit.by_hand and self.before != self.text and not params["overwrite_edits"]:
            raise Failure(edit.refusal())
        if edit.is_kept and self.before is not None:
            self.text = self.before
        root = re.search(r"if \(-f (\S+)/live/is-green\)", self.before or "")
        if root and root.group(1) != app.root:
            raise Failure(
                f"{self.path} serves the app in {root.group(1)}. A different bluegreen_root would take that app offline."
            )
        self.master, self.at_boot = self.nginx.master(), self.nginx.starts_at_boot()
        # The site may have been written by a run that died before its reload; the stamp is written after the proof.
        self.digest = _files.sha256_hex(self.text)
        self.serves_old = bool(self.master) and self.before == self.text and self._serves_old_certificate()
        self.loaded = edit.is_kept or _files.read_text(app.site_stamp) == self.digest
        self.written = _files.read_text(app.site_written)
        self.replaced = params["replaces"]
        if self.replaced and not os.path.lexists(self.replaced):
            if not os.path.lexists(backup_path(self.replaced)):
                raise Failure(f"there is no site {self.replaced} to replace")
            self.replaced = None

    def _serves_old_certificate(self) -> bool:
        """Whether the file of the certificate is another one than nginx has loaded."""
        path, key = _certificate.of_site(self.text)
        if not path or not self.app.tls_listen:
            return False
        config = {"root": self.app.root, "domain": self.app.domain, "listen": self.app.tls_listen}
        certificate = _renewal.Certificate({**config, "certificate": path, "key": key})
        found = certificate.found()
        return bool(found) and certificate.served() not in (None, (found or {})["fingerprint"])

    def plan(self) -> list[str]:
        """What has to be done, in words."""
        actions = [] if self.before == self.text else [f"write {self.path}"]
        if self.replaced:
            actions.append(f"move {self.replaced} aside")
        if not self.master:
            actions.append("start nginx")
        elif actions or not self.loaded or self.serves_old:
            actions.append("reload nginx")
        if not self.at_boot:
            actions.append("start nginx at every boot")
        if not _app.has_token(self.app, self.token):
            actions.append("set the preview token")
        return actions

    def apply(self) -> None:
        """Do it, or leave everything as it was. Raises: Failure."""
        make_folders(self.app)
        if not self.at_boot:
            self.nginx.start_at_boot()
        if not _app.has_token(self.app, self.token):
            put_token(self.app, self.token)
        if self.before == self.text and self.loaded and self.master and not self.replaced and not self.serves_old:
            return
        fine, said = self.nginx.test()
        if not fine and self.before is None:
            raise Failure(
                f"the nginx configuration was already broken and was left unchanged. Repair it first:\n{said}"
            )
        try:
            if self.replaced:
                os.rename(self.replaced, backup_path(self.replaced))
            if self.before != self.text:
                os.makedirs(self.app.root, mode=0o755, exist_ok=True)
                # First, or a run that dies here would take its own site for one that somebody edited.
                _files.write_file(self.app.site_written, self.text, 0o644)
                write_or_remove(self.path, self.text)
                test(self.nginx, self.app, self.path, self.text)
            if self.master:
                self.nginx.reload()
            else:
                self.nginx.start()
            self.prove()
        except Failure as error:
            self.restore()
            raise Failure(f"{error}\n  {self.path} was restored") from None
        os.makedirs(self.app.root, mode=0o755, exist_ok=True)
        _files.write_file(self.app.site_stamp, self.digest, 0o644)

    def prove(self) -> None:
        """Raises Failure unless nginx sees the files that decide who gets which slot: its user may not be able to walk the path."""
        live = self.app.live_color()
        if not live:
            return
        with _http.preview(self.app) as headers:
            answer = _http.through_nginx(self.app, "/deployment_id", headers=headers)
        if answer.get("body", "").strip() == _validate.other(live):
            return
        closed = _nginx.closed_folders(self.app.root)
        raise Failure(
            f"nginx does not see {self.app.root}, so it could not follow a switch ({_http.describe(answer)}). "
            + (
                f"Its user cannot enter {' and '.join(closed)}. Let it (chmod o+x), or choose another bluegreen_root."
                if closed
                else "Look at its error log."
            )
        )

    def restore(self) -> None:
        """Put back what was there."""
        if self.replaced:
            os.rename(backup_path(self.replaced), self.replaced)
        if self.before == self.text:
            return
        write_or_remove(self.path, self.before)
        # An edit that was about to be overwritten is one again.
        write_or_remove(self.app.site_written, self.written)
        # The master may have taken half of it: hand it the previous configuration, if it takes that one.
        if self.master and self.nginx.test()[0]:
            with contextlib.suppress(Failure):
                self.nginx.reload()


def work(module: AnsibleModule, app: App) -> dict:
    site = Site(module, app)
    actions = site.plan()
    diff = {"before": site.before or "", "after": site.text, "before_header": site.path, "after_header": site.path}
    if actions and not module.check_mode:
        site.apply()
    return {"changed": bool(actions), "actions": actions, "path": site.path, "diff": diff}


def main() -> None:
    run_module(
        dict(
            content=dict(type="str", required=True),
            run_id=dict(type="str", default="", **renamed("run")),
            replaces=dict(type="path"),
            certificate=dict(type="path"),
            key=dict(type="path"),
            preview_token=dict(type="str", default="", no_log=True),
            overwrite_edits=dict(type="bool", default=False),
        ),
        work,
        required_together=[("certificate", "key")],
    )


if __name__ == "__main__":
    main()
