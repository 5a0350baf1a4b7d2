# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os

import pytest
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure, Refused
from ansible_collections.beamops.bluegreen.plugins.modules import slot_setup
from ansible_collections.beamops.bluegreen.plugins.modules.slot_setup import Entry, Seen, apply, changes, look

ME = (os.geteuid(), os.getegid())
NOBODY = (65534, 65534)


def test_what_every_host_has(app):
    entries = {entry.path.removeprefix(app.root): entry for entry in slot_setup.layout(app, [])}
    assert {path: (entry.mode, entry.owner) for path, entry in entries.items() if entry.text is None} == {
        "": (0o755, "root"),
        "/bin": (0o755, "root"),
        "/releases": (0o755, "root"),
        "/slots": (0o755, "root"),
        "/former": (0o700, "root"),
        "/state": (0o755, "root"),
        os.path.dirname(app.facts_file).removeprefix(app.root): (0o755, "root"),
        "/slots/blue": (0o755, "root"),
        "/slots/green": (0o755, "root"),
        "/state/blue": (0o750, "app"),
        "/state/green": (0o750, "app"),
    }
    assert entries["/slots/green/is-green"][1:4] == (0o644, "", "root")
    cookie = entries["/cookie"]
    assert (cookie.mode, cookie.owner, cookie.once) == (0o640, "group", True)
    assert len(cookie.text or "") == 48 and (cookie.text or "").isalnum()
    assert cookie.text != slot_setup.layout(app, [])[-1].text
    # Nothing is made in a directory that is not there yet, but for that of the facts.
    made: set[str] = set()
    for entry in slot_setup.layout(app, ["uploads"]):
        assert os.path.dirname(entry.path) in made or entry.path in (app.root, os.path.dirname(app.facts_file))
        made.add(entry.path)


def test_directories_that_both_slots_share(app):
    found = [entry for entry in slot_setup.layout(app, ["uploads", "db"]) if "/shared" in entry.path]
    assert [(entry.path.removeprefix(app.root), entry.mode, entry.owner) for entry in found] == [
        (path, 0o750, "app") for path in ("/shared", "/shared/uploads", "/shared/db")
    ]


def test_a_mode_is_octal():
    file = {"path": "/x", "content": "a", "mode": "0755", "once": False}
    assert slot_setup.entries_of([file]) == [Entry("/x", 0o755, "a")]
    assert slot_setup.entries_of([{**file, "once": True}])[0].once
    with pytest.raises(Refused, match="the mode of /x must be an octal number such as 0644 .got 0o9."):
        slot_setup.entries_of([{**file, "mode": "0o9"}])


FILE, FOLDER = Entry("/x", 0o644, "new"), Entry("/x", 0o750, owner="app")


@pytest.mark.parametrize(
    ("entry", "seen", "expected"),
    [
        (FILE, None, ["create /x"]),
        (FILE, Seen(0o644, 0, 0, "new"), []),
        (FILE, Seen(0o644, 0, 0, "old"), ["write /x"]),
        (FILE, Seen(0o600, 0, 0, "new"), ["change the mode of /x from 0600 to 0644"]),
        (FILE, Seen(0o600, 0, 0, "old"), ["write /x", "change the mode of /x from 0600 to 0644"]),
        # What belongs to root was written by root, and whom an administrator gave it to is theirs to say.
        (FILE, Seen(0o644, 7, 7, "new"), []),
        (FILE._replace(once=True), Seen(0o644, 0, 0, None), []),
        (FILE._replace(once=True), None, ["create /x"]),
        (FOLDER, Seen(0o750, *NOBODY, None), []),
        (FOLDER, Seen(0o750, 0, 65534, None), ["give /x to the app"]),
        (FOLDER, Seen(0o750, 65534, 0, None), ["give /x to the app"]),
        (FOLDER._replace(owner="group"), Seen(0o750, 0, 65534, None), []),
        (FOLDER._replace(owner="group"), Seen(0o750, 65534, 0, None), ["give /x to the app"]),
    ],
)
def test_what_has_to_be_done(entry, seen, expected):
    assert changes(entry, seen, NOBODY) == expected
    if expected == ["give /x to the app"]:
        # There is no such account, or whoever runs this cannot give anything away.
        assert changes(entry, seen, None) == []


@pytest.mark.parametrize("text", [None, "new"])
@pytest.mark.parametrize("owner", ["root", "group", "app"])
def test_what_is_done_is_done(tmp_path, text, owner):
    entry = Entry(str(tmp_path / "deep/er/x"), 0o640 if text else 0o750, text, owner)
    assert changes(entry, look(entry), ME) == [f"create {entry.path}"]
    for _again in "ab":
        apply(entry, look(entry), ME)
        assert changes(entry, look(entry), ME) == []
    os.chmod(entry.path, 0o777)
    apply(entry, look(entry), ME)
    assert changes(entry, look(entry), ME) == []
    if text:
        (tmp_path / "deep/er/x").write_text("edited")
        apply(entry, look(entry), ME)
        assert (tmp_path / "deep/er/x").read_text() == text and changes(entry, look(entry), ME) == []
        assert os.listdir(tmp_path / "deep/er") == ["x"]


def test_what_is_there_once_stays(tmp_path):
    (tmp_path / "cookie").write_text("theirs")
    entry = Entry(str(tmp_path / "cookie"), 0o640, "ours", "group", once=True)
    seen = look(entry)
    assert seen and seen.text is None and not slot_setup.is_written(entry, seen)
    apply(entry, seen, ME)
    assert (tmp_path / "cookie").read_text() == "theirs" and changes(entry, look(entry), ME) == []
    # Nobody sees it in --diff.
    assert "ours" not in str(slot_setup.difference(entry, seen)) and "ours" not in str(
        slot_setup.difference(entry, None)
    )


def test_what_is_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    with pytest.raises(
        Failure, match="file already exists as a file, not a directory. Move it away, then run setup.yml."
    ):
        look(Entry(str(tmp_path / "file"), 0o755))
    with pytest.raises(Failure, match="folder already exists as a directory, not a file"):
        look(Entry(str(tmp_path / "folder"), 0o644, ""))
    # The app may have put it there, and would own what it leads to. What root has linked is fine.
    with pytest.raises(Failure, match="link already exists as a link, not a directory"):
        look(Entry(str(tmp_path / "link"), 0o755, owner="app", in_reach=True))
    assert look(Entry(str(tmp_path / "link"), 0o755)) and look(Entry(str(tmp_path / "link"), 0o755, owner="app"))
    with pytest.raises(OSError, match="Too many levels|Not a directory"):
        apply(Entry(str(tmp_path / "link"), 0o755, owner="app", in_reach=True), Seen(0o700, 0, 0, None), ME)
