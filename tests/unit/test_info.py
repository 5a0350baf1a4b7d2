# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.beamops.bluegreen.plugins.module_utils import _info


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


def test_what_to_do_about_a_certificate_that_was_not_had(app, tmp_path, monkeypatch):
    """Set-up asks for one that is not there; of one that is there it knows nothing to do."""
    problem = tmp_path / "tls/problem"
    problem.parent.mkdir()
    problem.write_text("rateLimited: too many\n")
    monkeypatch.setattr(app, "root", str(tmp_path))
    monkeypatch.setattr(app, "tls_listen", "443")
    there = {"path": "/c", "key": "/k", "names": [app.domain], "not_after": "t", "days_left": 20, "worry": ""}
    (without,), (old,) = _info.certificate_notes(app, None), _info.certificate_notes(app, there)
    assert without.startswith("no new certificate: rateLimited: too many. To try again: setup.yml;")
    assert f"To try again: systemctl start {app.name}-certificate, on the host;" in old
    # Who does not want https is not told of it.
    monkeypatch.setattr(app, "tls_listen", "")
    assert _info.certificate_notes(app, None) == []


def test_a_port_mapper_that_everybody_reaches_is_restarted_by_who_has_started_it(app, monkeypatch):
    slot = {"pid": 7, "listens": ["127.0.0.1:4000"], "mapper": ["0.0.0.0:4369"]}
    seen = {"blue": slot, "green": {**slot, "pid": None, "listens": []}}
    monkeypatch.setattr(_info._proc, "listening_process", lambda port: (8, "epmd"))
    for manager, unit, command in (
        ("systemd", None, f"systemctl restart {app.name}-epmd"),
        ("systemd", "epmd.service", "systemctl restart epmd.service"),
        ("daemon", "epmd.service", "systemctl restart epmd.service"),
        ("daemon", None, "stop both slots, epmd -kill, and start them"),
    ):
        monkeypatch.setattr(app, "service_manager", manager)
        monkeypatch.setattr(_info._proc, "unit_of", lambda pid, unit=unit: unit)
        (said,) = _info.open_ports(app, seen)
        assert said.endswith(f": {command}"), said
