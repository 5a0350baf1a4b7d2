# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import html.parser
import json

from ansible_collections.beamops.bluegreen.plugins.plugin_utils import _status_report
from infos import A, B, bad, info

AT = "2026-01-01T00:00:00Z"
NEVER_CLOSED = ("meta", "br")


class Page(html.parser.HTMLParser):
    """Raises AssertionError where tags do not match; keeps the text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag not in NEVER_CLOSED:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_machines_get_the_truths_of_every_host():
    infos = {"a": info(), "b": info(deployment_id="green"), "c": {"unreachable": True, "msg": "no route"}}
    found = json.loads(_status_report.as_json(_status_report.report(infos, "my_app", AT)))
    assert (found["app"], found["at"], found["in_doubt"]) == ("my_app", AT, True)
    assert found["hosts"]["a"]["agree"] and not found["hosts"]["b"]["agree"]
    assert found["hosts"]["a"]["slots"]["green"]["release"] == B
    assert found["hosts"]["a"]["truths"] == {"facts": "blue", "link": "blue", "deployment_id": "blue", "process": A}
    assert found["hosts"]["c"] == {"ok": False, "remarks": ["unreachable: no route"]}


def test_a_browser_gets_one_page_that_says_in_words_what_it_says_in_colors():
    infos = {"a": info(), "<b>": {"failed": True, "msg": "no <script>"}}
    text = _status_report.as_html(_status_report.report(infos, "my_app", AT))
    words = " ".join(Page(text).words)
    for word in (A, B, "live, healthy", "idle, healthy", "in doubt", "<b>", "no <script>"):
        assert word in words or word.split(", ", maxsplit=1)[0] in words
    assert "<script" not in text and "http" not in text
    fine = " ".join(Page(_status_report.as_html(_status_report.report({"a": info()}, "my_app", AT))).words)
    assert "in doubt" not in fine and "consistent" in fine


def test_a_browser_sees_how_long_the_certificate_is_good():
    certificate = {"issuer": "x", "names": [], "not_after": "2026-01-02T00:00:00Z", "days_left": 71, "worry": ""}
    report = _status_report.report({"a": info(certificate=certificate), "b": info()}, "my_app", AT)
    words = " ".join(Page(_status_report.as_html(report)).words)
    assert words.count("certificate: 71 days left") == words.count("certificate") == 1


def test_a_slot_that_was_rolled_back_from_or_is_down_says_so():
    down = info(rolled_back=[bad(B)])
    down["slots"]["blue"].update(running=False, healthy=False)
    words = " ".join(Page(_status_report.as_html(_status_report.report({"a": down}, "my_app", AT))).words)
    assert "rolled back from" in words and "stopped" in words
    assert _status_report.report({"a": down}, "my_app", AT)["hosts"]["a"]["slots"]["green"]["rolled_back"]


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
