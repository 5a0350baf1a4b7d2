# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import time

import pytest
from ansible_collections.beamops.bluegreen.plugins.plugin_utils import _notify
from infos import E1, A, B, info
from support.webhook import webhook

CHANGED, SAME = {"web1": {"ok": True, "changed": True}}, {"web1": {"ok": True, "changed": False}}


@pytest.mark.parametrize(
    ("operation", "failed", "deployed", "switched", "expected"),
    [
        ("deploy", "", CHANGED, {}, "deployed"),
        ("deploy", "", CHANGED, CHANGED, "promoted"),
        ("deploy", "", SAME, {}, ""),
        ("promote", "", {}, CHANGED, "promoted"),
        ("promote", "", {}, SAME, ""),
        ("rollback", "", SAME, CHANGED, "rolled_back"),
        ("promote", "promote failed on web1", {}, CHANGED, "failed"),
        ("migrate", "migrate failed", {}, {}, "failed"),
        ("setup", "setup failed", {}, {}, ""),
        ("maintenance", "", {}, {}, ""),
    ],
)
def test_what_has_happened(operation, failed, deployed, switched, expected):
    assert _notify.event(operation, failed, deployed, switched) == expected


def told(**more):
    found = info(live="green", previous={"release": A, "env": E1}, **more)
    found["slots"]["green"]["commit"] = "0123456789abcdef"
    return found


def text(what, infos, operation="promote", reason=""):
    return _notify.message(what, "my_app", "ann@laptop", infos, operation, reason)["text"]


def test_what_a_phone_shows():
    group = {"web1": told(), "web2": told()}
    assert text("promoted", group) == (
        f"my_app: {B} env 1111 commit 0123456789abcdef is live on web1, web2 (before: {A} env 1111). By ann@laptop"
    )
    assert text("deployed", {"web1": told()}) == f"my_app: {A} env 1111 waits for a promote on web1. By ann@laptop"
    four = {f"web{number}": told() for number in range(4)}
    assert f"rolled back to {B} env 1111 commit 0123456789abcdef on 4 hosts" in text("rolled_back", four)
    why = "promote failed on 1 host: web2: switching: Read-only file system"
    lost = {**group, "web2": {"unreachable": True, "msg": "no route"}}
    assert text("failed", lost, reason=why).startswith(f"my_app: {why}. Live on web1, web2: {B}")
    assert len(text("failed", group, reason="x" * 999)) == 300
    body = _notify.message("failed", "my_app", "ann@laptop", lost, "promote", why)
    assert (body["event"], body["hosts"], body["reason"]) == ("failed", ["web1", "web2"], why)


def test_who_wants_to_know_is_told_and_who_does_not_take_it_is_named_without_the_secret():
    body = {"text": "hello"}
    with webhook(200) as (good, took), webhook(500) as (bad, _sent), webhook(302) as (moved, _sent):
        hooks = [
            {"url": bad},
            {"url": moved},
            {"url": "http://127.0.0.1:9/secret-token"},
            {"url": good, "on": ["failed"]},
        ]
        said = list(_notify.send(hooks, "failed", body))
        assert took == [body]
        assert list(_notify.send([{"url": good, "on": ["failed"]}], "promoted", body)) == [] and took == [body]
    assert said[0] == "127.0.0.1 did not take the message: HTTP 500" and said[1].endswith("HTTP 302")
    assert "refused" in said[2] and len(said) == 3 and "secret-token" not in str(said)


def test_nobody_waits_for_one_that_hangs():
    with webhook(None) as (url, _sent):
        began = time.monotonic()
        said = list(_notify.send([{"url": url}] * 4, "failed", {"text": "hello"}))
    assert time.monotonic() - began < 12 and len(said) == 4 and "was not told" in said[3]
