# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import string

import pytest
from ansible_collections.beamops.bluegreen.plugins.module_utils import _rules
from ansible_collections.beamops.bluegreen.plugins.module_utils._rules import Refused
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (_rules.check_domain, "example.com"),
        (_rules.check_domain, "*.example.com"),
        (_rules.check_domain, "localhost"),
        (_rules.check_domain, "a-b.example.co"),
        (_rules.check_app, "my_app2"),
        (_rules.check_path, "/opt/my_app"),
        (_rules.check_listen, "80"),
        (_rules.check_listen, "127.0.0.1:8080"),
        (_rules.check_version, "1.0.0-rc.1+build.5"),
        (_rules.check_url_path, "/health?deep=1"),
        (_rules.check_release, "0.1.0-rc.1-1a2b3c4d"),
    ],
)
def test_allowed(check, value):
    args = (value, "x") if check is _rules.check_path else (value,)
    assert check(*args) == value


@pytest.mark.parametrize(
    ("check", "values"),
    [
        (
            _rules.check_domain,
            [
                "",
                "x; return 302 http://evil",
                "x; location /etc/ { root /; } #",
                "~.*",
                "$host",
                "a..b",
                "-a.b",
                "a-.b",
                "A.b",
                "a.b\n",
                "a b",
                "*",
                "a.*.b",
                "a" * 64,
                "a." * 127 + "ab",
                7,
                None,
            ],
        ),
        (_rules.check_app, ["", "Sample", "1app", "my-app", "a" * 33, "a\n", "root", "nginx", 7, None]),
        (_rules.check_path, ["", "/", "opt", "/opt/../etc", "/opt/a b", "/opt/a;b", "/opt/$x", "/opt/a\n", None]),
        (
            _rules.check_listen,
            ["", "0", "65536", "80; server x", "[::]:80", "256.0.0.1:80", "localhost:80", "80\n", True],
        ),
        (_rules.check_version, ["", ".1", "../1", "1/2", "1 2", "1\n", "a" * 65, None]),
        (_rules.check_url_path, ["", "health", "/a b", "/a\r\nHost: x", "/" + "a" * 1024, None]),
        (_rules.check_color, ["", "purple", "$http_cookie", "Blue", "blue\n", None]),
        (_rules.check_release, ["0.1.0", "0.1.0-1a2b3c4", "../x-1a2b3c4d", "0.1.0-1A2B3C4D", "0.1.0-1a2b3c4d\n", None]),
        (
            _rules.check_checksum,
            ["", "0" * 64, "sha256:" + "0" * 63, "sha256:" + "g" * 64, "sha256:" + "0" * 64 + "\n"],
        ),
    ],
)
def test_refused(check, values):
    for value in values:
        with pytest.raises(Refused):
            check(*((value, "x") if check is _rules.check_path else (value,)))


def test_ports():
    assert _rules.check_ports({"blue": "4000", "green": 5000}) == {"blue": 4000, "green": 5000}
    for ports in (
        None,
        {},
        {"blue": 4000},
        {"blue": 4000, "green": 4000},
        {"blue": 80, "green": 5000},
        {"blue": True, "green": 5000},
        {"blue": "4000; server 10.0.0.1", "green": 5000},
        {"blue": 4000, "green": 70000},
        {"blue": 4000, "green": 5000, "red": 1},
    ):
        with pytest.raises(Refused):
            _rules.check_ports(ports)


@given(st.text())
def test_what_a_domain_may_be_says_nothing_to_nginx(text):
    try:
        _rules.check_domain(text)
    except Refused:
        return
    assert set(text) <= set(string.ascii_lowercase + string.digits + ".-*")


@given(st.text(alphabet=string.printable))
def test_what_a_path_may_be_needs_no_quoting(text):
    try:
        _rules.check_path(text, "x")
    except Refused:
        return
    assert set(text) <= set(string.ascii_letters + string.digits + "._/-") and "/../" not in text + "/"


def test_request_host_of_a_wildcard_is_a_name():
    assert _rules.request_host("*.example.com") == "www.example.com"
    assert _rules.request_host("example.com") == "example.com"


def test_bare_url_keeps_no_secret():
    assert _rules.bare_url("https://user:pw@a.test:8/b/c.tar.gz?sig=x@y#z") == "https://a.test:8/b/c.tar.gz"
    assert _rules.bare_url("https://a.test") == "https://a.test"


def test_module_name():
    assert _rules.module_name("my_app2") == "MyApp2"


@pytest.mark.parametrize(
    ("check", "values"),
    [
        (
            lambda value: _rules.check_aliases(value, "example.com"),
            [
                "www.example.com",
                ["a b"],
                ["x; return 302 http://evil"],
                ["$host"],
                ["example.com"],
                ["a.b", "a.b"],
                [7],
                None,
            ],
        ),
        (
            _rules.check_trusted_proxies,
            [
                "10.0.0.1",
                ["10.0.0.1/8"],
                ["0.0.0.0/0"],
                ["::/0"],
                ["lb.example.com"],
                ["10.0.0.1; x"],
                ["fe80::1%x; y"],
                [7],
                [""],
                None,
            ],
        ),
        (
            lambda value: _rules.check_tls(value, "80"),
            [
                "yes",
                {"certificate": "/a"},
                {"certificate": "a.pem", "key": "/k"},
                {"certificate": "/a;b", "key": "/k"},
                {"certificate": "/a", "key": "/k", "listen": "80"},
                {"certificate": "/a", "key": "/k", "listen": "443 ssl"},
                {"certificate": "/a", "key": "/k", "ciphers": "x"},
            ],
        ),
        (_rules.check_body_size, ["", "8m;", "8 m", "eight", -1, True, None, "8mb", "1" * 7]),
        (
            _rules.check_assets,
            ["/assets/", ["/"], ["assets/"], ["/assets"], ["/a/../b/"], ["/a b/"], ["/a;/"], ["/$uri/"], [7]],
        ),
        (
            _rules.check_token,
            ["", "short", "x" * 129, "with space and more", "a" * 16 + "$", "a" * 16 + "\n", "../" * 8, None],
        ),
        (_rules.check_percent, [-1, 101, "ten", 1.5, "1e1", True, None, "10%"]),
        (
            _rules.check_smoke,
            [{"path": "/"}, ["/"], [{"path": "x"}], [{"path": "/", "status": 99}], [{"path": "/", "contains": 7}]],
        ),
        (_rules.check_hooks, [[], {"before_lunch": ["a"]}, {"before_install": "a.yml"}, {"before_install": [7]}]),
        (_rules.check_url_path, ["/$uri", '/"', "/;", "/'", "/a b", "/\\", "/{", "x", "", "/a\n"]),
    ],
)
def test_refused_for_the_site(check, values):
    for value in values:
        with pytest.raises(Refused):
            check(value)


@given(st.text(max_size=40))
def test_what_passes_for_the_site_cannot_be_read_otherwise(text):
    """Whatever text gets through stands in the configuration of nginx as one word, and as itself."""
    for check in (
        _rules.check_body_size,
        _rules.check_token,
        lambda value: _rules.check_assets([value])[0],
        lambda value: _rules.check_aliases([value], "example.com")[0],
        lambda value: _rules.check_trusted_proxies([value])[0],
        _rules.check_url_path,
    ):
        try:
            passed = check(text)
        except Refused:
            continue
        assert passed == text and not set(text) & set("\"' \\$;{}\n\t#")


def test_smoke_checks_are_complete():
    assert _rules.check_smoke([{"path": "/"}]) == [{"path": "/", "status": 200, "contains": ""}]
