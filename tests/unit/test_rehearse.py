# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import fcntl
import os
import sys
import time

import pytest
from ansible_collections.beamops.bluegreen.plugins.module_utils import _envfile, _health, _service
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure
from ansible_collections.beamops.bluegreen.plugins.modules import slot_rehearse


def test_what_a_rehearsal_is_told():
    user = _envfile.with_colors(
        {"DATABASE_URL": "ecto://real/db", "ERL_AFLAGS": "-x"},
        {"blue": {"METRICS_PORT": "9568"}, "green": {"METRICS_PORT": "9569"}},
    )
    env = {
        **user,
        "METRICS_PORT": "9568",
        "PORT": "4000",
        "RELEASE_NODE": "my_app_blue@127.0.0.1",
        "PHX_SERVER": "true",
    }
    told = slot_rehearse.environment("my_app", env, {"DATABASE_URL": "ecto://real/copy"}, "/there")
    assert told["DATABASE_URL"] == "ecto://real/copy" and told["BLUEGREEN_REHEARSAL"] == "true"
    # What the slots have is taken: their ports, and the names of their nodes.
    assert told["METRICS_PORT"].isdigit() and told["METRICS_PORT"] not in ("9568", "9569")
    assert (told["RELEASE_NODE"], told["RELEASE_DISTRIBUTION"]) == ("my_app_rehearsal@127.0.0.1", "none")
    assert (told["HOME"], told["RELEASE_TMP"], told["ERL_AFLAGS"]) == ("/there", "/there/tmp", "")
    assert told["BLUEGREEN_LIVE_FILE"].endswith("is-eval") and "PHX_SERVER" not in told


@pytest.fixture
def rehearsal(app):
    found = object.__new__(slot_rehearse.Rehearsal)
    found.app, found.folder = app, f"{app.root}/rehearsal"
    return found


def test_one_at_a_time(rehearsal):
    os.makedirs(rehearsal.folder)
    handle = os.open(rehearsal.folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(Failure, match="another rehearsal is still at work on this host"), rehearsal.place():
        pass
    # That of the other one stays.
    assert os.path.isdir(rehearsal.folder)
    os.close(handle)


def test_what_a_killed_one_has_left_is_gone(rehearsal):
    os.makedirs(f"{rehearsal.folder}/tmp")
    os.symlink("/etc", f"{rehearsal.folder}/link")
    with rehearsal.place():
        assert os.listdir(rehearsal.folder) == [] and os.path.isdir("/etc")
    assert not os.path.exists(rehearsal.folder)


def test_what_runs_beside_is_expendable_and_ends_with_the_body(app, tmp_path):
    script = "import os, time; print(open('/proc/self/oom_score_adj').read(), os.getpid(), flush=True); time.sleep(60)"
    with _service.running(app, [sys.executable, "-c", script], {}, str(tmp_path)) as (poll, said):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and len(said().split()) < 2:
            time.sleep(0.05)
        score, pid = said().split()
        assert score == "1000" and poll() is None
    assert not os.path.exists(f"/proc/{pid}") and os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"status": 200, "body": "a tea b"}, ""),
        ({"status": 500, "body": "tea", "location": None}, "500, expected 200"),
        ({"error": "no answer"}, "no answer, expected 200"),
        ({"status": 200, "body": "coffee"}, "the answer does not contain 'tea'"),
    ],
)
def test_what_is_wrong_with_an_answer(answer, said):
    assert _health.smoke_problem({"path": "/", "status": 200, "contains": "tea"}, answer) == said
