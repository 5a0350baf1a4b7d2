# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The loss meter: clients of many kinds that never retry, and count what they lost and which slot answered.

Runs on a test host, against 127.0.0.1, with nothing but Python. One JSON value comes in on the command line: C(port), C(host)
(the Host header), C(seconds) (at most), and C(kinds): how many clients of each kind. It ends at the end of stdin, and prints one
JSON value. A loss is any request that did not get its complete, right answer: a refused or reset connection, a status other
than 200, a body that is cut, an echo that does not come. That a server says it will close a connection is no loss.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import re
import struct
import sys
import time

BODY = b"x" * 200_000


class Meter:
    def __init__(self, port, host, seconds):
        self.port, self.host, self.deadline = port, host, time.monotonic() + seconds
        self.over = asyncio.Event()
        self.kinds, self.latencies = {}, []

    def going(self):
        return not self.over.is_set() and time.monotonic() < self.deadline

    def count(self, kind, color=None, wrong=None):
        found = self.kinds.setdefault(kind, {"asked": 0, "failed": 0, "why": {}, "colors": {}, "losses": []})
        found["asked"] += 1
        if wrong:
            found["failed"] += 1
            found["why"][wrong] = found["why"].get(wrong, 0) + 1
            found["losses"].append(round(time.time(), 3))
        else:
            found["colors"][color] = found["colors"].get(color, 0) + 1

    async def connect(self):
        return await asyncio.wait_for(asyncio.open_connection("127.0.0.1", self.port), 10)

    def head(self, method, path, extra=""):
        return f"{method} {path} HTTP/1.1\r\nHost: {self.host}\r\n{extra}\r\n".encode()

    async def answer(self, reader):
        """(color, body, whether the server goes on listening). Raises: ValueError, OSError, EOFError, asyncio.TimeoutError."""
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)).decode("latin-1")
        status, lines = head.split("\r\n")[0], head.lower()
        if " 200 " not in status:
            raise ValueError(status)
        if "transfer-encoding: chunked" in lines:
            body = b""
            while True:
                size = int((await asyncio.wait_for(reader.readuntil(b"\r\n"), 30)).strip(), 16)
                body += (await reader.readexactly(size + 2))[:-2]
                if not size:
                    break
        else:
            length = int(re.search(r"content-length: (\d+)", lines).group(1))
            body = await asyncio.wait_for(reader.readexactly(length), 30)
        color = re.search(r"x-color: (\w+)", lines).group(1)
        return color, body, "connection: close" not in lines

    async def clients(self, kind, once, think=0.0):
        """One client: once(connection or None) gives (color, connection to keep or None), again and again."""
        kept = None
        while self.going():
            began = time.monotonic()
            try:
                color, kept = await once(kept)
                self.count(kind, color)
                if kind == "thinking":
                    # A client without thought measures itself, and all of them would be a lot of numbers.
                    self.latencies.append((round(time.time(), 3), round((time.monotonic() - began) * 1000, 2)))
            except (OSError, EOFError, ValueError, AttributeError, asyncio.TimeoutError) as error:
                kept = None
                self.count(kind, wrong=f"{type(error).__name__} {error}"[:80])
                await asyncio.sleep(0.05)
            if think:
                await asyncio.sleep(think * random.uniform(0.5, 1.5))
        if kept:
            kept[1].close()

    async def get(self, kept, path="/", keep=True):
        reader, writer = kept or await self.connect()
        writer.write(self.head("GET", path, "" if keep else "Connection: close\r\n"))
        color, body, more = await self.answer(reader)
        if path == "/" and json.loads(body)["color"] != color:
            raise ValueError("the answer is of two slots")
        if keep and more:
            return color, (reader, writer)
        writer.close()
        return color, None

    async def fresh(self, _kept):
        return await self.get(None, keep=False)

    async def kept(self, kept):
        return await self.get(kept)

    async def slow(self, _kept):
        return await self.get(None, "/slow?ms=5000", keep=False)

    async def post(self, kept):
        """A body in two halves, with a pause between them."""
        reader, writer = kept or await self.connect()
        writer.write(self.head("POST", "/echo", f"Content-Length: {len(BODY)}\r\n") + BODY[: len(BODY) // 2])
        await asyncio.sleep(0.05)
        writer.write(BODY[len(BODY) // 2 :])
        await writer.drain()
        color, body, more = await self.answer(reader)
        if body != BODY:
            raise ValueError("the echo is not what was sent")
        return color, (reader, writer) if more else None

    async def stream(self, _kept):
        """A chunked answer of two seconds: whole, and of one slot."""
        reader, writer = await self.connect()
        writer.write(self.head("GET", "/stream?n=20&ms=100", "Connection: close\r\n"))
        color, body, _more = await self.answer(reader)
        writer.close()
        if body.decode().split("\n")[:-1] != [f"{number} {color}" for number in range(1, 21)]:
            raise ValueError("the stream is not whole")
        return color, None

    async def websocket(self, _kept):
        """Open for 40 seconds, an echo each second; whatever slot it began on has to go on answering."""
        reader, writer = await self.connect()
        key = base64.b64encode(os.urandom(16)).decode()
        upgrade = (
            f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        )
        writer.write(self.head("GET", "/ws", upgrade))
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode("latin-1").lower()
        if " 101 " not in head:
            raise ValueError(head.split("\r\n", maxsplit=1)[0])
        color = re.search(r"x-color: (\w+)", head).group(1)
        until = time.monotonic() + 40
        while time.monotonic() < until and self.going():
            text, mask = f"{time.monotonic()}".encode(), os.urandom(4)
            masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(text))
            writer.write(struct.pack("!BB", 0x81, 0x80 | len(text)) + mask + masked)
            opcode, length = await asyncio.wait_for(reader.readexactly(2), 10)
            answer = await asyncio.wait_for(reader.readexactly(length & 0x7F), 10)
            if opcode != 0x81 or answer != f"{color} ".encode() + text:
                raise ValueError("the websocket was closed" if opcode == 0x88 else "the echo is not what was sent")
            await asyncio.sleep(1)
        writer.close()
        return color, None


# Seconds of thought between two requests of a client.
THINK = {"fresh": 0.02, "kept": 0.0, "thinking": 0.02, "post": 0.2, "slow": 0.0, "stream": 0.0, "websocket": 0.0}


async def main(job):
    meter = Meter(job["port"], job["host"], job["seconds"])
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, lambda: meter.over.set() if not os.read(0, 4096) else None)
    tasks = []
    for kind, number in job["kinds"].items():
        once = getattr(meter, "kept" if kind == "thinking" else kind)
        tasks += [asyncio.create_task(meter.clients(kind, once, THINK[kind])) for _one in range(number)]
    print("ready", flush=True)
    await asyncio.gather(*tasks)
    print(json.dumps({"kinds": meter.kinds, "latencies": meter.latencies}))


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
