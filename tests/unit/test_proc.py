# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

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
