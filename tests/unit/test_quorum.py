# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import http.server
import os
import threading

import pytest
from ansible_collections.beamops.bluegreen.plugins.module_utils import _quorum
from hypothesis import given
from hypothesis import strategies as st

A, B, C = "a" * 16, "b" * 16, "c" * 16


@pytest.mark.parametrize(
    ("own", "told", "hosts", "expected"),
    [
        (A, [A, A], 3, False),
        (A, [B, B], 3, True),
        (A, [B, A], 3, False),
        # Not a majority of the whole group.
        (A, [B], 3, None),
        (A, [B, C], 3, None),
        (A, [], 3, None),
        (A, [A], 3, False),
        (A, [B], 2, None),
        (A, [A], 2, False),
        (A, [B, B], 4, None),
        (A, [B, B, B], 4, True),
        (A, [A, B, B], 4, None),
        (A, [], 1, False),
    ],
)
def test_who_is_alone(own, told, hosts, expected):
    assert _quorum.is_alone(own, told, hosts) is expected


@given(st.lists(st.sampled_from([A, B, C]), min_size=1, max_size=9), st.data())
def test_never_more_than_a_minority_is_out(serves, data):
    """Whoever sees whom: those that leave themselves out are less than half of the group."""
    out = 0
    for number, own in enumerate(serves):
        others = serves[:number] + serves[number + 1 :]
        seen = [one for one in others if data.draw(st.booleans())]
        out += _quorum.is_alone(own, seen, len(serves)) is True
    assert 2 * out < len(serves)


class Peer:
    """Another host of the group."""

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def __enter__(self):
        peer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                peer.asked.append((self.path, self.headers["Host"]))
                status, text = peer.answer
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_words):
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"127.0.0.1:{self.server.server_port}"
        return self

    def __exit__(self, *_error):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.setattr(_quorum, "_AGAIN_SECONDS", 0)
    for color in ("blue", "green"):
        (tmp_path / "slots" / color).mkdir(parents=True)
        (tmp_path / f"slots/{color}/all-{color}-none").touch()
    (tmp_path / "slots/blue/id").write_text(A)
    (tmp_path / "live").symlink_to("slots/blue")
    return tmp_path


def shortcuts(root):
    return sorted(
        name for color in ("blue", "green") for name in os.listdir(root / "slots" / color) if name.startswith("all-")
    )


def test_a_host_that_is_alone_says_so_until_it_is_not(host):
    with Peer((200, f"{B}\n")) as first, Peer((200, B)) as second:
        one = _quorum.Host({"root": str(host), "domain": "example.com", "peers": [first.address, second.address]})
        (host / "lock").touch()
        assert one.act() == "" and not (host / "alone").exists() and not first.asked
        (host / "lock").unlink()
        assert one.act() == "out: 2 of 3 hosts serve another release"
        assert (host / "alone").read_text() == "2 of 3 hosts serve another release\n" and shortcuts(host) == []
        assert first.asked[0] == ("/.well-known/bluegreen-live", "example.com")
        assert one.act() == "" and (host / "alone").exists()
        first.answer = (503, B)
        assert one.act() == "" and (host / "alone").exists()
        first.answer = second.answer = (200, A)
        assert one.act().startswith("in again") and not (host / "alone").exists()


@pytest.mark.parametrize("answer", [(404, B), (200, "<html>"), (200, "B" * 16), (200, ""), (500, "")])
def test_what_is_no_answer_counts_for_nobody(host, answer):
    with Peer(answer) as peer:
        config = {"root": str(host), "domain": "example.com", "peers": [peer.address, "127.0.0.1:1"]}
        assert _quorum.ask(peer.address, "example.com") == "" and _quorum.Host(config).act() == ""


def test_looks_that_disagree_change_nothing(host, monkeypatch):
    """A group that switches is not one for a moment."""
    with Peer((200, B)) as first, Peer((200, B)) as second:
        one = _quorum.Host({"root": str(host), "domain": "example.com", "peers": [first.address, second.address]})

        def pause(_seconds):
            first.answer = second.answer = (200, A)

        monkeypatch.setattr(_quorum.time, "sleep", pause)
        assert one.act() == "" and not (host / "alone").exists() and len(shortcuts(host)) == 2


def test_a_host_that_serves_nothing_has_no_say(host):
    (host / "slots/blue/id").unlink()
    assert _quorum.Host({"root": str(host), "domain": "example.com", "peers": []}).act() == ""
