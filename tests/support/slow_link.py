# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A link that is as long and as narrow as one to a real server, in front of ports of this machine.

    slow_link.py DELAY_MS BYTES_PER_SECOND PORT:TARGET_PORT...

Whatever comes to 127.0.0.1:PORT goes to 127.0.0.1:TARGET_PORT, and back: each byte arrives DELAY_MS later, all connections of a port share
its rate (in each direction), and to open one takes a round trip. It needs no kernel module, as `tc netem` does.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import subprocess
import sys
import time

# Bytes that may be on their way in one direction of a connection: more than 20 Mbit/s carry in 160 ms, as a tuned TCP window is.
WINDOW = 4 * 1024 * 1024


class Lane:
    """One direction of one port."""

    def __init__(self, delay, rate):
        self.delay, self.rate, self.free = delay, rate, 0.0

    def arrival(self, size):
        """When the last of so many bytes arrives, if they are sent now."""
        self.free = max(self.free, time.monotonic()) + size / self.rate
        return self.free + self.delay


class End(asyncio.Protocol):
    """One end of a connection: what it receives arrives at the other end later."""

    def __init__(self, lane):
        self.lane, self.other, self.transport = lane, None, None
        # What came before there was another end, what is on its way, in its order, and how many bytes that is.
        self.early, self.way, self.size = [], collections.deque(), 0

    def connection_made(self, transport):
        self.transport = transport

    def join(self, other):
        self.other = other
        for data in self.early:
            self.data_received(data)

    def data_received(self, data):
        if not self.other:
            self.early.append(data)
            return
        self.size += len(data)
        if self.size > WINDOW and not self.transport.is_closing():
            self.transport.pause_reading()
        self.send(data)

    def eof_received(self):
        if self.other:
            self.send(b"")
        return True

    def connection_lost(self, _error):
        if self.other:
            self.send(None)

    def send(self, data):
        """V(b"") ends what this end sends, V(None) the connection."""
        self.way.append(data)
        asyncio.get_running_loop().call_at(self.lane.arrival(len(data or b"")), self.arrive)

    def arrive(self):
        data, far = self.way.popleft(), self.other.transport
        self.size -= len(data or b"")
        if self.size <= WINDOW and not self.transport.is_closing():
            self.transport.resume_reading()
        if far.is_closing():
            return
        if data:
            far.write(data)
        elif data is None:
            far.close()
        else:
            with contextlib.suppress(OSError):
                far.write_eof()


async def listen(delay, rate, port, target):
    there, back = Lane(delay, rate), Lane(delay, rate)
    loop = asyncio.get_running_loop()
    connecting = set()

    async def connect(here):
        await asyncio.sleep(2 * delay)
        try:
            _transport, far = await loop.create_connection(lambda: End(back), "127.0.0.1", target)
        except OSError:
            here.transport.close()
            return
        far.join(here)
        here.join(far)

    class Near(End):
        def connection_made(self, transport):
            super().connection_made(transport)
            task = loop.create_task(connect(self))
            connecting.add(task)
            task.add_done_callback(connecting.discard)

    return await loop.create_server(lambda: Near(there), "127.0.0.1", port)


async def serve(delay, rate, ports):
    servers = [await listen(delay, rate, *pair) for pair in ports.items()]
    await asyncio.gather(*(server.serve_forever() for server in servers))


@contextlib.contextmanager
def slow_link(ports, delay_ms=80, bytes_per_second=2_500_000):
    """Runs one beside the caller.

    :param ports: port of 127.0.0.1 to the port behind the link.
    """
    words = [sys.executable, __file__, str(delay_ms), str(bytes_per_second)]
    process = subprocess.Popen([*words, *(f"{here}:{there}" for here, there in ports.items())])
    try:
        yield
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    milliseconds, rate_, *pairs = sys.argv[1:]
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(
            serve(
                float(milliseconds) / 1000,
                float(rate_),
                {int(here): int(there) for here, there in (pair.split(":") for pair in pairs)},
            )
        )
