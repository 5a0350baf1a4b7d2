#!/usr/bin/python
# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: slot_setup
short_description: Make the directories and files that an app needs on a host
version_added: 1.0.0
description:
  - Makes the directories of the app, the markers of its slots, the symlink C(live), the cookie, and the O(files) it is given.
  - Looks at all of them first and changes only what differs, so that a new host takes one run instead of one for each file.
  - What decides the traffic (C(live)) and what the nodes of the app share (the cookie) are only made where there are none.
  - Lets systemd read its units again if one of them has changed.
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
  files:
    description: Files to write, each owned by root.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where the file belongs. The module creates its directory if that is missing.
        type: path
        required: true
      content:
        description: Its text.
        type: str
        required: true
      mode:
        description: Its permissions, as an octal number.
        type: str
        default: '0644'
      once:
        description: Whether a file that is there stays as it is.
        type: bool
        default: false
  shared:
    description: Names of the directories below C(<root>/shared), which both slots write to.
    type: list
    elements: str
    default: []
  run_id:
    description: Id of the run that must hold the lock. Without it the module does not check the lock.
    type: str
    default: ''
"""

EXAMPLES = r"""
- name: Prepare the host
  beamops.bluegreen.slot_setup:
    app: my_app
    root: /opt/my_app
    domain: example.com
    ports: {blue: 4000, green: 5000}
    listen: "80"
    service_manager: systemd
    shared: [uploads]
    files:
      - path: /etc/systemd/system/my_app@.service
        content: "{{ lookup('ansible.builtin.template', 'my_app.service.j2') }}"
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
written:
  description: Paths of the files that were written, or would be.
  type: list
  elements: str
  returned: success
"""

import os
import secrets
import stat
import string
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from ansible_collections.beamops.bluegreen.plugins.module_utils import _app, _files, _validate
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure, Refused
from ansible_collections.beamops.bluegreen.plugins.module_utils._module import run_module
from ansible_collections.beamops.bluegreen.plugins.module_utils._service import run

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule
    from ansible_collections.beamops.bluegreen.plugins.module_utils._app import App

_UNITS = "/etc/systemd/system/"
_KINDS = {stat.S_IFDIR: "a directory", stat.S_IFREG: "a file", stat.S_IFLNK: "a link"}


class Entry(NamedTuple):
    """Something that set-up makes."""

    path: str
    mode: int
    # The text of a file, or None for a directory.
    text: str | None = None
    # Whom it belongs to: root, root and the app's group, or the app.
    owner: str = "root"
    # Its text stays as it is where there is one, and is nobody else's to see.
    once: bool = False
    # It is in a directory of the app, which could put a link there: what that leads to would be the app's from then on.
    in_reach: bool = False


def layout(app: App, shared: Iterable[str]) -> list[Entry]:
    """What every host of an app has, in the order in which it is made."""
    # nginx walks this path on every request, so its user must be able to: 0755 all the way.
    entries = [
        Entry(app.root, 0o755),
        Entry(f"{app.root}/bin", 0o755),
        Entry(app.releases, 0o755),
        Entry(f"{app.root}/slots", 0o755),
        Entry(f"{app.root}/former", 0o700),
        Entry(f"{app.root}/state", 0o755),
        Entry(os.path.dirname(app.facts_file), 0o755),
    ]
    for color in _validate.COLORS:
        # nginx tells the slots apart by their markers.
        entries += [Entry(app.slot(color), 0o755), Entry(f"{app.slot(color)}/is-{color}", 0o644, "")]
        entries.append(Entry(app.state_dir(color), 0o750, owner="app"))
    if shared:
        entries.append(Entry(f"{app.root}/shared", 0o750, owner="app"))
    entries += [Entry(f"{app.root}/shared/{name}", 0o750, owner="app", in_reach=True) for name in shared]
    entries.append(Entry(app.cookie, 0o640, new_cookie(), "group", once=True))
    return entries


def new_cookie() -> str:
    letters = string.ascii_letters + string.digits
    return "".join(secrets.choice(letters) for _letter in range(48))


def entries_of(files: Iterable[dict[str, Any]]) -> list[Entry]:
    """The O(files) as entries. Raises: Refused."""
    found = []
    for file in files:
        try:
            mode = int(file["mode"], 8)
        except ValueError:
            raise Refused(
                f"the mode of {file['path']} must be an octal number such as 0644 (got {file['mode']})"
            ) from None
        found.append(Entry(file["path"], mode, file["content"], once=file["once"]))
    return found


class Seen(NamedTuple):
    """What is at a path."""

    mode: int
    user: int
    group: int
    # None where nobody needs to know.
    text: str | None


def look(entry: Entry) -> Seen | None:
    """What is at the path of an entry, or V(None). Raises: Failure if it is of another kind."""
    try:
        found = os.lstat(entry.path) if entry.in_reach else os.stat(entry.path)
    except FileNotFoundError:
        return None
    wanted = stat.S_IFDIR if entry.text is None else stat.S_IFREG
    if stat.S_IFMT(found.st_mode) != wanted:
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise Failure(f"{entry.path} already exists as {kind}, not {_KINDS[wanted]}. Move it away, then run setup.yml.")
    text = None if entry.text is None or entry.once else _files.read_text(entry.path)
    return Seen(stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, text)


def is_written(entry: Entry, seen: Seen | None) -> bool:
    """Whether the text of an entry goes to its path."""
    return entry.text is not None and (not seen or seen.text not in (None, entry.text))


def changes(entry: Entry, seen: Seen | None, account: tuple[int, int] | None) -> list[str]:
    """What has to be done about an entry, in words.

    :param account: user and group of the app, by number; V(None) where it has none of its own.
    """
    if not seen:
        return [f"create {entry.path}"]
    found = []
    if is_written(entry, seen):
        found.append(f"write {entry.path}")
    if seen.mode != entry.mode:
        found.append(f"change the mode of {entry.path} from {seen.mode:04o} to {entry.mode:04o}")
    if account and entry.owner != "root":
        user, group = account
        if seen.group != group or (entry.owner == "app" and seen.user != user):
            found.append(f"give {entry.path} to the app")
    return found


def apply(entry: Entry, seen: Seen | None, account: tuple[int, int] | None) -> None:
    """Make an entry what it is to be."""
    user, group = account if account and entry.owner != "root" else (-1, -1)
    user = user if entry.owner == "app" else -1
    if is_written(entry, seen):
        os.makedirs(os.path.dirname(entry.path), mode=0o755, exist_ok=True)
        _files.write_file(entry.path, entry.text or "", entry.mode, None if group == -1 else group)
        return
    if not seen:
        os.makedirs(entry.path, mode=0o755, exist_ok=True)
    flags = os.O_RDONLY | (os.O_DIRECTORY if entry.text is None else 0) | (os.O_NOFOLLOW if entry.in_reach else 0)
    handle = os.open(entry.path, flags)
    try:
        # In this order, because a change of the owner takes bits from the mode.
        os.fchown(handle, user, group)
        os.fchmod(handle, entry.mode)
    finally:
        os.close(handle)


def difference(entry: Entry, seen: Seen | None) -> dict[str, str]:
    """For C(--diff)."""
    before = "" if not seen else f"mode {seen.mode:04o}\n" if seen.text is None else seen.text
    after = f"mode {entry.mode:04o}\n" if entry.text is None or entry.once else entry.text
    return {"before_header": entry.path, "after_header": entry.path, "before": before, "after": after}


def work(module: AnsibleModule, app: App) -> dict:
    entries = layout(app, _validate.check_shared(module.params["shared"])) + entries_of(module.params["files"])
    account = _app.account_to_give(app)
    found = [(entry, look(entry)) for entry in entries]
    todo = [(entry, seen, words) for entry, seen in found if (words := changes(entry, seen, account))]
    actions = [word for _entry, _seen, words in todo for word in words]
    needs_live = not os.path.lexists(app.live)
    if needs_live:
        actions.append("make blue live")
    written = [entry.path for entry, seen, _words in todo if is_written(entry, seen)]
    has_new_units = app.service_manager == "systemd" and any(path.startswith(_UNITS) for path in written)
    if not module.check_mode:
        for entry, seen, _words in todo:
            apply(entry, seen, account)
        if needs_live:
            # What it points to from now on is decided by promote and rollback.
            _files.write_link(app.live, "slots/blue")
        if has_new_units:
            rc, text = run(["systemctl", "daemon-reload"])
            if rc:
                raise Failure(f"systemd does not read its units again: {text.strip()}")
    diff = [difference(entry, seen) for entry, seen, _words in todo]
    return {"changed": bool(actions), "actions": actions, "written": written, "diff": diff}


def main() -> None:
    run_module(
        dict(
            files=dict(
                type="list",
                elements="dict",
                default=[],
                options=dict(
                    path=dict(type="path", required=True),
                    content=dict(type="str", required=True),
                    mode=dict(type="str", default="0644"),
                    once=dict(type="bool", default=False),
                ),
            ),
            shared=dict(type="list", elements="str", default=[]),
            run_id=dict(type="str", default=""),
        ),
        work,
    )


if __name__ == "__main__":
    main()
