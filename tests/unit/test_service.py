# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of a slot that does not come up."""

from __future__ import annotations

import os
import types

import pytest
from ansible_collections.beamops.bluegreen.plugins.module_utils import _health, _service, _start
from ansible_collections.beamops.bluegreen.plugins.modules import slot_logs, slot_service


@pytest.mark.parametrize(
    ("places", "says"),
    [
        ([], "listens on no TCP port"),
        (["127.0.0.1:4000"], "It listens on 127.0.0.1:4000 and not on port 4100. Does runtime.exs read PORT?"),
        (["0.0.0.0:9568", "127.0.0.1:4000"], "It listens on 0.0.0.0:9568, 127.0.0.1:4000 and not on port 4100"),
        (["[::1]:4100"], "It listens on [::1]:4100 alone, and nginx asks 127.0.0.1:4100"),
    ],
)
def test_an_app_that_listens_elsewhere_is_told_where(places, says):
    assert says in _start.where_it_listens(places, 4100)


@pytest.mark.parametrize(
    ("log", "holders", "says"),
    [
        ("port 9568: eaddrinuse", {"9568": "blue", "7000": "blue"}, "blue has port 9568 already"),
        # An app that does not say which one.
        ("** (EXIT) :eaddrinuse", {"9568": "blue", "7000": "blue"}, "blue has port 7000 and 9568 already"),
        ("Address already in use", {}, None),
        ("listening on 9568", {"9568": "blue"}, None),
        (
            'could not write to file "{releases}/1-aaaaaaaa/lib/tz/priv/x": permission denied',
            {},
            "releases are read-only",
        ),
        (
            '(File.Error) could not write to file "/etc/shop/db": read-only file system',
            {},
            "bluegreen_writable: [/etc/shop]",
        ),
        ("{error,eacces} /var/spool/x", {}, "bluegreen_writable: [/var/spool]"),
        (
            'could not write to file "<DATABASE_PATH>": read-only file system',
            {},
            "to <DATABASE_PATH>: let it with bluegreen_writable, or",
        ),
        # Not ours to cure.
        ("/var/x: enospc", {}, None),
        ("permission denied for table users", {}, None),
    ],
)
def test_hints_of_a_log(app, log, holders, says):
    hints = slot_service.log_hints(app, ["booting", log.replace("{releases}", app.releases)], holders)
    assert (hints == []) if says is None else (len(hints) == 1 and says in hints[0])


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["SECRET_KEYBASE", "PORT"], "the app asks for SECRET_KEY_BASE, and bluegreen_env has SECRET_KEYBASE"),
        (["SECRET_KEY_BASE"], None),
        (["DATABASE_URL"], None),
    ],
)
def test_a_variable_with_a_typing_error(names, says):
    log = ["booting", "** (RuntimeError) environment variable SECRET_KEY_BASE is missing."]
    hints = slot_service.name_hints(log, dict.fromkeys(names, "x"))
    assert (hints == []) if says is None else (len(hints) == 1 and hints[0].startswith(says))


def test_a_log_of_the_journal(app, monkeypatch):
    lines = [
        '{"__REALTIME_TIMESTAMP": "1500000", "MESSAGE": "plain"}',
        '{"__REALTIME_TIMESTAMP": "2000000", "MESSAGE": [111, 107, 255]}',
        '{"__REALTIME_TIMESTAMP": "2000001", "MESSAGE": null}',
        "not json",
        '{"MESSAGE": "without a time"}',
    ]
    asked = []
    monkeypatch.setattr(_service, "run", lambda words: asked.append(words) or (0, "\n".join(lines)))
    found = _service.for_slot(app, "blue").log_since(600)
    assert found == [(1.5, "plain"), (2.0, "ok\ufffd"), (2.000001, "")]
    assert "--since=-600s" in asked[0] and asked[0][-1] == f"{app.name}@blue.service"


def test_the_last_lines_of_a_log(app, monkeypatch):
    lines = [(float(number), f"line {number}") for number in range(5)]
    monkeypatch.setattr(_service.Systemd, "log_since", lambda _self, _seconds: lines)
    params = {"color": "blue", "since": "10m", "grep": "", "lines": 2}
    found = slot_logs.work(types.SimpleNamespace(params=params), app)
    assert [entry["text"] for entry in found["entries"]] == ["line 3", "line 4"] and found["left_out"] == 3


def test_a_node_of_another_language_is_not_asked(app, monkeypatch):
    """It has no rpc that we know of: that it has run for a while is all there is to see."""
    monkeypatch.setattr(_service, "run", lambda *_words, **_more: pytest.fail("asked"))
    for age, good in ((0.5, False), (2.0, True)):
        monkeypatch.setattr(_service._proc, "age_of", lambda _pid, age=age: age)
        health = _health.ask_node(app, "blue", os.getpid(), "")
        assert (health.good, health.words) == (good, f"runs for {age:.0f} s")
