# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

from ansible_collections.beamops.bluegreen.plugins.plugin_utils import _status_report
from infos import A, B, info

AT = "2026-01-01T00:00:00Z"


def test_machines_get_the_truths_of_every_host():
    infos = {"a": info(), "b": info(deployment_id="green"), "c": {"unreachable": True, "msg": "no route"}}
    found = json.loads(_status_report.as_json(_status_report.report(infos, "my_app", AT)))
    assert (found["app"], found["at"], found["in_doubt"]) == ("my_app", AT, True)
    assert found["hosts"]["a"]["agree"] and not found["hosts"]["b"]["agree"]
    assert found["hosts"]["a"]["slots"]["green"]["release"] == B
    assert found["hosts"]["a"]["truths"] == {"facts": "blue", "link": "blue", "deployment_id": "blue", "process": A}
    assert found["hosts"]["c"] == {"ok": False, "remarks": ["unreachable: no route"]}


def test_prometheus_gets_metrics_of_every_host():
    told = info(
        certificate={"issuer": "x", "names": [], "not_after": "2026-01-02T00:00:00Z", "days_left": 1, "worry": ""}
    )
    told["slots"]["blue"].update(restarts=2, promoted_at="2026-01-01T00:00:10Z", commit="abc")
    told["slots"]["green"].update(restarts=0, pending_migrations=["20260101_x"], healthy=False)
    infos = {"a": told, 'b"': {"unreachable": True, "msg": "no route"}}
    lines = _status_report.as_prometheus(_status_report.report(infos, "my_app", AT)).splitlines()
    for line in (
        'bluegreen_in_doubt{app="my_app"} 1',
        'bluegreen_up{app="my_app",host="a"} 1',
        'bluegreen_up{app="my_app",host="b\\""} 0',
        'bluegreen_live{app="my_app",host="a",color="blue"} 1',
        'bluegreen_live{app="my_app",host="a",color="green"} 0',
        'bluegreen_slot_healthy{app="my_app",host="a",color="green"} 0',
        'bluegreen_slot_restarts{app="my_app",host="a",color="blue"} 2',
        'bluegreen_slot_promoted_seconds{app="my_app",host="a",color="blue"} 1767225610',
        'bluegreen_slot_pending_migrations{app="my_app",host="a",color="green"} 1',
        f'bluegreen_release_info{{app="my_app",host="a",color="blue",release="{A}",commit="abc"}} 1',
        'bluegreen_certificate_not_after_seconds{app="my_app",host="a"} 1767312000',
    ):
        assert line in lines
    # Each metric with its words and its kind first, and once.
    helps = [line.split()[2] for line in lines if line.startswith("# HELP")]
    assert len(helps) == len(set(helps)) and helps == [line.split()[2] for line in lines if line.startswith("# TYPE")]
