# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whoever has a webhook, for the tests of notifications."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
import time


@contextlib.contextmanager
def webhook(answer):
    """A server on this machine that answers with a status, or with None not at all; gives its URL and what it was sent."""
    sent = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            sent.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            if answer is None:
                time.sleep(8)
                return
            self.send_response(answer)
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.end_headers()

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/secret-token", sent
    finally:
        server.shutdown()
        server.server_close()
