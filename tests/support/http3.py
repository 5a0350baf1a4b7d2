# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A visitor who comes by HTTP/3, for the tests: no client that is everywhere does."""

from __future__ import annotations

import asyncio
import ssl

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration


class _Visitor(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._http = H3Connection(self._quic)
        self._answers, self._ended = {}, {}

    async def get(self, host, path):
        stream = self._quic.get_next_available_stream_id()
        self._answers[stream], self._ended[stream] = [0, b""], self._loop.create_future()
        headers = {":method": "GET", ":scheme": "https", ":authority": host, ":path": path}
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._http.send_headers(stream, encoded, end_stream=True)
        self.transmit()
        await asyncio.wait_for(self._ended[stream], 10)
        status, body = self._answers[stream]
        return status, body.decode()

    def quic_event_received(self, event):
        for told in self._http.handle_event(event):
            answer = self._answers[told.stream_id]
            if isinstance(told, HeadersReceived):
                answer[0] = int(dict(told.headers)[b":status"])
            elif isinstance(told, DataReceived):
                answer[1] += told.data
            if told.stream_ended:
                self._ended[told.stream_id].set_result(None)


def get(address, host, paths, port=443):
    """[(status, body)] of requests on one connection, one after the other. Fails if the server does not speak HTTP/3."""

    async def ask():
        configuration = QuicConfiguration(alpn_protocols=H3_ALPN, server_name=host, verify_mode=ssl.CERT_NONE)
        async with connect(address, port, configuration=configuration, create_protocol=_Visitor) as visitor:
            return [await visitor.get(host, path) for path in paths]

    return asyncio.run(asyncio.wait_for(ask(), 30))
