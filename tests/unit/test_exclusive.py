# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import time

import pytest
from ansible_collections.beamops.bluegreen.plugins.module_utils import _exclusive
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure


def test_what_killed_modules_leave_is_swept_and_nothing_else(app, tmp_path):
    ours = [
        ".live.new",
        ".lock.1.new",
        ".lock.1.broken",
        "slots/blue/.env.new",
        "slots/green/env.former",
        "facts/.my_app.fact.new",
        "preview/smoke-abcdef",
    ]
    others = [
        ".bashrc",
        "lock",
        "slots/blue/env",
        "slots/blue/env.former",
        "slots/blue/deploy.json",
        "preview/a-token-of-somebody",
        "facts/.other.fact.new",
        "releases/1.0.0-aaaaaaaa/bin/my_app",
    ]
    for name in ours + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("releases/.unpacking.7/lib", "releases/.removing.8", ".somebody.new"):
        (tmp_path / name).mkdir(parents=True)
    with _exclusive.exclusive_access(app):
        pass
    assert [name for name in ours if (tmp_path / name).exists()] == []
    assert [name for name in others if not (tmp_path / name).exists()] == []
    assert sorted(path.name for path in (tmp_path / "releases").iterdir()) == ["1.0.0-aaaaaaaa"]
    assert (tmp_path / ".somebody.new").is_dir()


def test_only_one_module_is_at_work_on_an_app(app, monkeypatch):
    monkeypatch.setattr(_exclusive, "ALONE_SECONDS", 0.3)
    with _exclusive.exclusive_access(app):
        began = time.monotonic()
        with pytest.raises(Failure, match="is still changing my_app on this host"), _exclusive.exclusive_access(app):
            pass
        assert 0.2 < time.monotonic() - began < 3
    with _exclusive.exclusive_access(app):
        pass


def test_a_run_that_lost_the_lock_may_not_act(app, tmp_path):
    _exclusive.require_lock(app, "")
    with pytest.raises(Failure, match="no longer holds the lock of my_app"):
        _exclusive.require_lock(app, "one")
    (tmp_path / "lock").write_text('{"run": "two", "holder": "ann@laptop", "operation": "deploy"}')
    with pytest.raises(Failure, match="ann@laptop does, for deploy"):
        _exclusive.require_lock(app, "one")
    _exclusive.require_lock(app, "two")
