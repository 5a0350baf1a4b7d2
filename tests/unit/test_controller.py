# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import time

import pytest
from ansible_collections.beamops.bluegreen.plugins.plugin_utils import _controller, _prebuild


def test_a_dead_controller_is_told_from_a_live_one_and_from_another_machine():
    me = {"machine": _controller._machine(), "pid": os.getpid(), "started": _controller._started(os.getpid())}
    assert not _controller.is_dead(me)
    assert _controller.is_dead({**me, "started": "1"})
    assert _controller.is_dead({**me, "pid": 2**22 + 1})
    child = os.fork()
    if child == 0:
        os._exit(0)
    started = me["started"]
    while _controller._started(child):
        time.sleep(0.01)
    # Nobody has waited for it yet.
    assert _controller.is_dead({**me, "pid": child, "started": started})
    os.waitpid(child, 0)
    assert not _controller.is_dead({**me, "machine": "another", "started": "1"})
    assert not _controller.is_dead(None) and not _controller.is_dead({})


def test_a_watchdog_unlocks_with_the_command_line_of_its_run():
    argv = [
        "/venv/bin/python",
        "/venv/bin/ansible-playbook",
        "-i",
        "hosts",
        "-K",
        "deploy.yml",
        "-e",
        "bluegreen_app=a",
    ]
    words = _controller.unlock_command(argv, ("deploy.yml",), "run-1", "/c/playbooks/unlock.yml")
    assert words[:6] == ["/venv/bin/python", "/venv/bin/ansible-playbook", "-i", "hosts", "-e", "bluegreen_app=a"]
    assert words[6:8] == ["/c/playbooks/unlock.yml", "-e"]
    assert json.loads(words[8]) == {"bluegreen_force": True, "__bluegreen_dead_run_id": "run-1"}
    # Something else runs the playbook, and nobody knows how to call it.
    assert _controller.unlock_command(["python", "runner.py", "x"], (), "run-1", "/u") is None


def test_a_controller_without_proc_runs_without_a_watchdog(monkeypatch, tmp_path):
    """A Mac: nobody could tell later whether the run is alive."""
    there = os.path.exists
    monkeypatch.setattr(_controller, "_machine", lambda: None)
    assert _controller.this_run() is None
    _controller.start_watchdog(str(tmp_path), "run-1", (), "/c/unlock.yml")
    assert list(tmp_path.iterdir()) == [] and there("/proc")
    _controller.stop_watchdog(str(tmp_path), "run-1")
    assert not _controller.is_dead({"machine": None, "pid": 1, "started": "1"})


def test_where_fork_is_not_safe_modules_are_built_when_they_are_needed(monkeypatch):
    monkeypatch.setattr(_prebuild.sys, "platform", "darwin")
    monkeypatch.setattr(_prebuild.os, "fork", lambda: pytest.fail("forked"))
    with _prebuild.prebuild_modules(None, ["slot_info"], {}):
        pass
