# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import socket
import time

from ansible_collections.beamops.bluegreen.plugins.module_utils import _proc


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


def test_where_a_process_listens():
    with socket.socket() as loopback, socket.socket() as everywhere, socket.socket(socket.AF_INET6) as six:
        for one, address in ((loopback, "127.0.0.1"), (everywhere, "0.0.0.0"), (six, "::1")):
            one.bind((address, 0))
            one.listen()
        ports = [one.getsockname()[1] for one in (loopback, everywhere, six)]
        wanted = {f"127.0.0.1:{ports[0]}", f"0.0.0.0:{ports[1]}", f"[::1]:{ports[2]}"}
        assert wanted <= set(_proc.listeners(os.getpid()))
        assert _proc.listening_places(ports[2], _proc.tcp_sockets()) == [f"[::1]:{ports[2]}"]
    assert not wanted & set(_proc.listeners(os.getpid()))


def test_how_much_memory_there_is():
    assert 1 << 20 < _proc.memory_of(os.getpid()) < _proc.available_memory() < 1 << 50


def test_who_is_ended_first():
    child = os.fork()
    if child == 0:
        time.sleep(30)
        os._exit(0)
    try:
        _proc.prefer_to_kill(child, 700)
        with open(f"/proc/{child}/oom_score_adj", encoding="ascii") as stream:
            assert stream.read() == "700\n"
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    # A process that is gone has no wish.
    _proc.prefer_to_kill(child, 700)
