# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pathlib
import socket
import time

import pytest
import yaml
from ansible_collections.beamops.bluegreen.plugins.action import preflight
from ansible_collections.beamops.bluegreen.plugins.module_utils import _app, _exclusive, _info, _proc
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure


@pytest.fixture
def app(tmp_path):
    options = {
        "app": "my_app",
        "root": str(tmp_path),
        "domain": "example.com",
        "ports": {"blue": 4000, "green": 5000},
        "listen": "80",
        "tls_listen": "",
        "service_manager": "systemd",
        "nginx_conf_dir": "/etc/nginx",
        "facts_dir": str(tmp_path / "facts"),
    }
    return _app.App(options)


def make(folder, *names):
    for name in names:
        (folder / name).mkdir(parents=True)


@pytest.mark.parametrize(
    ("libraries", "expected"),
    [
        (["my_app-1.0.0-rc.1", "phoenix-1.7.0", "phoenix_live_view-1.0.0"], "my_app-1.0.0-rc.1"),
        (["my_app_web-1.0.0", "phoenix-1.7.0"], "my_app_web-1.0.0"),
        (["other-1.0.0"], "other-1.0.0"),
        (["other-1.0.0", "phoenix-1.7.0"], None),
        ([], None),
    ],
)
def test_where_a_release_has_its_static_files(app, tmp_path, libraries, expected):
    release = "1.0.0-rc.1-aaaaaaaa"
    lib = tmp_path / "releases" / release / "lib"
    make(lib, *[f"{name}/priv/static" for name in libraries])
    found = _app.static_dir(app, release)
    assert found == (f"{lib}/{expected}/priv/static" if expected else None)


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
    make(tmp_path, "releases/.unpacking.7/lib", "releases/.removing.8", ".somebody.new")
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


def test_who_listens_and_how_many_are_connected():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        assert _proc.listening(port) == [] and _proc.connections(port) == 0
        server.listen()
        assert len(_proc.listening(port)) == 1 and _proc.connections(port) == 0
        with socket.create_connection(("127.0.0.1", port)), server.accept()[0]:
            assert len(_proc.listening(port)) == 1 and _proc.connections(port) == 1


def test_how_long_a_module_is_at_work():
    before = _proc.seconds_since_start()
    time.sleep(0.05)
    assert 0.04 < _proc.seconds_since_start() - before < 5


def test_which_run_decided_what_is_live():
    a, b = {"color": "blue", "release": "a"}, {"color": "green", "release": "b"}
    died = {"operation": "rollback", "result": "died", "from": b, "to": a}
    nothing = [
        {"operation": "rollback", "result": "failed", "from": a, "to": a},
        {"operation": "rollback", "result": "died", "from": a, "to": a},
        {"operation": "maintenance", "result": "ok", "from": a, "to": a},
    ]
    assert _info.last_run([died, *nothing]) == died
    ended = {"operation": "rollback", "result": "ok", "from": b, "to": a}
    assert _info.last_run([died, ended, *nothing]) == ended
    assert _info.last_run([]) is None and _info.last_run(nothing) is None


def test_the_words_of_a_hook():
    tasks = [{"name": "x", "block": [{"debug": None, "run_once": True}], "rescue": [{"any_errors_fatal": True}]}]
    assert {"run_once", "any_errors_fatal"} <= preflight.task_keywords(tasks)
    assert preflight.task_keywords(None) == set() and preflight.task_keywords(["x"]) == set()


def test_a_wrong_type_is_said_in_short_and_names_the_variable():
    given = {
        "bluegreen_app": "my_app",
        "bluegreen_domain": "example.com",
        "bluegreen_ports": [1],
        "bluegreen_health_timeout": "soon",
        "bluegreen_service_manager": "runit",
        "bluegreen_promote": "yes",
        "bluegreen_keep_releases": "7",
    }
    wrong, values = preflight.check_types(given, preflight.variables())
    assert sorted(wrong) == [
        "bluegreen_health_timeout must be of type int (\"'soon'\" cannot be converted to an int)",
        "bluegreen_ports must be of type dict",
        "value of bluegreen_service_manager must be one of: systemd, daemon, got: runit",
    ]
    assert values["bluegreen_promote"] is True and values["bluegreen_keep_releases"] == 7
    # What was not given is left to the defaults of the role.
    assert set(values) == set(given)


def test_the_value_of_a_secret_is_not_in_what_is_said_of_its_type():
    given = {"bluegreen_app": "a", "bluegreen_domain": "b.c", "bluegreen_env": "s3cret"}
    wrong, _values = preflight.check_types(given, preflight.variables())
    assert len(wrong) == 1 and "bluegreen_env" in wrong[0] and "s3cret" not in wrong[0]


def test_an_ansible_core_that_is_too_old_is_known_by_its_number():
    assert [preflight.too_old(one) for one in ("2.16.19", "2.17.0rc1", "2.19.14", "3.0.0", "1.9")] == [
        True,
        False,
        False,
        False,
        True,
    ]
    oldest = yaml.safe_load((pathlib.Path(__file__).parents[2] / "meta/runtime.yml").read_text())["requires_ansible"]
    assert oldest == ">=" + ".".join(map(str, preflight._OLDEST)) + ".0"
