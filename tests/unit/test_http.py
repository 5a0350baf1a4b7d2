# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.beamops.bluegreen.plugins.module_utils import _http

PLAIN = "server {\n  listen 80;\n  server_name example.com;\n}\n"
TLS = "server {\n  listen 443 ssl;\n  server_name *.example.com;\n}\n"
PROXIED = "geo $realip_remote_addr $my_app_proxied {\n}\n" + PLAIN


@pytest.mark.parametrize(
    ("site", "host", "port", "proto"),
    [
        (PLAIN, "example.com", "80", "http"),
        (TLS, "www.example.com", "443", "https"),
        (PROXIED, "example.com", "443", "https"),
    ],
)
def test_a_slot_is_asked_as_nginx_would_ask_it_for_a_visitor(app, tmp_path, site, host, port, proto):
    app.site_file = str(tmp_path / "my_app.conf")
    (tmp_path / "my_app.conf").write_text(site)
    assert _http.visitor_headers(app) == {
        "X-Forwarded-For": "127.0.0.1",
        "X-Forwarded-Host": host,
        "X-Forwarded-Port": port,
        "X-Forwarded-Proto": proto,
    }
