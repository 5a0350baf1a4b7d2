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


# --- to the letter ---------------------------------------------------------------------------------------------------------

SAYS = [
    (
        _rules.check_app,
        ("My",),
        "bluegreen_app is 'My': a release name of [a-z][a-z0-9_]*, at most 32 characters, is allowed",
    ),
    (
        _rules.check_app,
        (7,),
        "bluegreen_app is '7': a release name of [a-z][a-z0-9_]*, at most 32 characters, is allowed",
    ),
    (_rules.check_color, ("red",), "color is 'red': blue or green is allowed"),
    (
        _rules.check_domain,
        ("A.b",),
        "bluegreen_domain is 'A.b': a host name such as example.com or *.example.com, in lower case and at most 253 characters, "
        "is allowed",
    ),
    (
        _rules.check_ports,
        ({"blue": 1023, "green": 5000},),
        "bluegreen_ports.blue is '1023': a whole number from 1024 to 65535 is allowed",
    ),
    (
        _rules.check_ports,
        ({"blue": 4000, "green": 65536},),
        "bluegreen_ports.green is '65536': a whole number from 1024 to 65535 is allowed",
    ),
    (_rules.check_listen, (True,), "bluegreen_listen is 'True': a port, or IPv4-address:port, is allowed"),
    (_rules.check_listen, ("0",), "bluegreen_listen is '0': a whole number from 1 to 65535 is allowed"),
    (
        _rules.check_path,
        ("opt", "bluegreen_root"),
        "bluegreen_root is 'opt': an absolute path of letters, digits and . _ / - without '..' is allowed",
    ),
    (
        _rules.check_version,
        ("-1",),
        "version is '-1': letters, digits and . + _ - are allowed, at most 64, the first a letter or digit",
    ),
    (_rules.check_release, ("x",), "release is 'x': <version>-<first 8 of its sha256> is allowed"),
    (_rules.check_env_id, ("x",), "environment is 'x': an id of 12 hexadecimal digits is allowed"),
    (
        _rules.check_checksum,
        ("md5:1",),
        "bluegreen_artifact_checksum is 'md5:1': sha256: and 64 hexadecimal digits is allowed",
    ),
    (_rules.check_checksum, (7,), "bluegreen_artifact_checksum is '7': sha256: and 64 hexadecimal digits is allowed"),
    (
        _rules.check_artifact,
        ("", None),
        "bluegreen_artifact is not set: give the path of the mix release tarball, or its http(s) URL",
    ),
    (
        _rules.check_artifact,
        (None, None),
        "bluegreen_artifact is not set: give the path of the mix release tarball, or its http(s) URL",
    ),
    (
        _rules.check_artifact,
        ("https://x/a b", "sha256:" + "0" * 64),
        "bluegreen_artifact is a URL with characters that a URL does not have",
    ),
    (
        _rules.check_artifact,
        ("https://x/a", None),
        "bluegreen_artifact is a URL: bluegreen_artifact_checksum (sha256:…) has to say what it holds",
    ),
    (
        _rules.check_artifact,
        ("ftp://x/a", None),
        "bluegreen_artifact is 'ftp://x/a': a path, or an http or https URL is allowed",
    ),
    (_rules.check_url_path, ("x",), "bluegreen_health_path is 'x': a URL path that starts with / is allowed"),
    (_rules.check_aliases, ("x", "a.b"), "bluegreen_aliases is 'x': a list of host names is allowed"),
    (
        _rules.check_aliases,
        (["X"], "a.b"),
        "bluegreen_aliases has 'X': only host names such as www.example.com are allowed",
    ),
    (_rules.check_aliases, (["a.b"], "a.b"), "bluegreen_aliases names a host name twice, or bluegreen_domain itself"),
    (
        _rules.check_trusted_proxies,
        ("x",),
        "bluegreen_trusted_proxies is 'x': a list of addresses and networks is allowed",
    ),
    (
        _rules.check_trusted_proxies,
        ([7],),
        "bluegreen_trusted_proxies has '7': an address such as 10.0.0.1 or a network such as 10.0.0.0/8 is allowed, with no bit set "
        "behind its prefix",
    ),
    (
        _rules.check_trusted_proxies,
        (["0.0.0.0/0"],),
        "bluegreen_trusted_proxies has 0.0.0.0/0: anybody could say then who they are",
    ),
    (_rules.check_tls, ("x", "80"), "bluegreen_tls is a mapping with certificate, key and, if it is not 443, listen"),
    (
        _rules.check_tls,
        ({"cert": "/x"}, "80"),
        "bluegreen_tls is a mapping with certificate, key and, if it is not 443, listen",
    ),
    (
        _rules.check_tls,
        ({"certificate": "x", "key": "/k"}, "80"),
        "bluegreen_tls.certificate is 'x': an absolute path of letters, digits and . _ / - without '..' is allowed",
    ),
    (
        _rules.check_tls,
        ({"certificate": "/c", "key": "k"}, "80"),
        "bluegreen_tls.key is 'k': an absolute path of letters, digits and . _ / - without '..' is allowed",
    ),
    (
        _rules.check_tls,
        ({"certificate": "/c", "key": "/k", "listen": "x"}, "80"),
        "bluegreen_tls.listen is 'x': a port, or IPv4-address:port, is allowed",
    ),
    (
        _rules.check_tls,
        ({"certificate": "/c", "key": "/k"}, "443"),
        "bluegreen_tls.listen is 443, as bluegreen_listen: plain and encrypted need a port each",
    ),
    (
        _rules.check_body_size,
        (True,),
        "bluegreen_body_size is 'True': a number with k, m or g behind it is allowed, such as 8m",
    ),
    (
        _rules.check_body_size,
        ([],),
        "bluegreen_body_size is '[]': a number with k, m or g behind it is allowed, such as 8m",
    ),
    (_rules.check_assets, ("x",), "bluegreen_assets is 'x': a list of URL paths such as /assets/ is allowed"),
    (_rules.check_assets, ([7],), "bluegreen_assets is '[7]': a list of URL paths such as /assets/ is allowed"),
    (_rules.check_token, (7,), "bluegreen_preview_token: 16 to 128 letters, digits, _ and - are allowed"),
    (
        _rules.check_token,
        ("smoke-0123456789abcdef",),
        "bluegreen_preview_token: 16 to 128 letters, digits, _ and - are allowed",
    ),
    (_rules.check_percent, (101,), "percent is '101': a whole number from 0 to 100 is allowed"),
    (_rules.check_percent, (-1,), "percent is '-1': a whole number from 0 to 100 is allowed"),
    (
        _rules.check_smoke,
        ("x",),
        "bluegreen_smoke is a list of checks, each with path and, if wanted, status and contains",
    ),
    (_rules.check_smoke, (["x"],), "bluegreen_smoke has 'x': path and, if wanted, status and contains are allowed"),
    (
        _rules.check_smoke,
        ([{"path": "/", "more": 1}],),
        "bluegreen_smoke has \"{'path': '/', 'more': 1}\": path and, if wanted, status and contains are allowed",
    ),
    (
        _rules.check_smoke,
        ([{"status": 200}],),
        "bluegreen_smoke has \"{'status': 200}\": path and, if wanted, status and contains are allowed",
    ),
    (_rules.check_smoke, ([{"path": "x"}],), "bluegreen_smoke.path is 'x': a URL path that starts with / is allowed"),
    (
        _rules.check_smoke,
        ([{"path": "/", "status": 99}],),
        "bluegreen_smoke.status is '99': a whole number from 100 to 599 is allowed",
    ),
    (
        _rules.check_smoke,
        ([{"path": "/", "status": 600}],),
        "bluegreen_smoke.status is '600': a whole number from 100 to 599 is allowed",
    ),
    (_rules.check_smoke, ([{"path": "/", "contains": 7}],), "bluegreen_smoke.contains is '7': text is allowed"),
    (
        _rules.check_hooks,
        ("x",),
        "bluegreen_hooks is 'x': a mapping of before_install, after_install, before_start, after_start, before_promote, after_promote "
        "to lists of task files is allowed",
    ),
    (
        _rules.check_hooks,
        ({"before_lunch": []},),
        "bluegreen_hooks has a key that is 'before_lunch': before_install or after_install or before_start or after_start or "
        "before_promote or after_promote is allowed",
    ),
    (
        _rules.check_hooks,
        ({"after_start": "x"},),
        "bluegreen_hooks.after_start is 'x': a list of task files is allowed",
    ),
    (
        _rules.check_hooks,
        ({"after_start": [""]},),
        "bluegreen_hooks.after_start is \"['']\": a list of task files is allowed",
    ),
    (
        _rules.check_hooks,
        ({"after_start": [7]},),
        "bluegreen_hooks.after_start is '[7]': a list of task files is allowed",
    ),
    (
        _rules.check_snippet,
        (7, "bluegreen_nginx_server"),
        "bluegreen_nginx_server is '7': text in nginx's language is allowed",
    ),
    (_rules.check_snippet, ("a\0b", "x"), "x is 'a\\x00b': text in nginx's language is allowed"),
    (_rules.check_whole, (True, "x", 0, 9), "x is 'True': a whole number from 0 to 9 is allowed"),
    (_rules.check_whole, (10, "x", 0, 9), "x is '10': a whole number from 0 to 9 is allowed"),
    (_rules.check_choice, ("x", "y", ("a", "b")), "y is 'x': a or b is allowed"),
]


@pytest.mark.parametrize(("check", "given", "text"), SAYS)
def test_what_a_refusal_says(check, given, text):
    with pytest.raises(Refused) as refused:
        check(*given)
    assert str(refused.value) == text


LONG = ".".join(["a" * 63] * 3 + ["b" * 61])


@pytest.mark.parametrize(
    ("check", "given", "found"),
    [
        (_rules.check_domain, (LONG,), LONG),
        (_rules.check_aliases, ([LONG], "a.b"), [LONG]),
        (_rules.check_ports, ({"blue": "1024", "green": 65535},), {"blue": 1024, "green": 65535}),
        (_rules.check_listen, ("1",), "1"),
        (_rules.check_listen, (65535,), "65535"),
        (_rules.listen_address, ("80",), ("127.0.0.1", 80)),
        (_rules.listen_address, ("0.0.0.0:81",), ("127.0.0.1", 81)),
        (_rules.listen_address, ("10.0.0.1:82",), ("10.0.0.1", 82)),
        (_rules.request_host, ("*.example.com",), "www.example.com"),
        (_rules.request_host, ("example.com",), "example.com"),
        (_rules.check_path, ("/opt/app/", "x"), "/opt/app"),
        (_rules.check_path, ("/opt/X/", "x"), "/opt/X"),
        (_rules.release_id, ("1.0.0", "0123456789"), "1.0.0-01234567"),
        (_rules.release_version, ("1.0.0-01234567",), "1.0.0"),
        (_rules.check_checksum, ("sha256:" + "a" * 64,), "a" * 64),
        (_rules.is_url, ("http://x",), True),
        (_rules.is_url, ("https://x",), True),
        (_rules.is_url, ("/tmp/http://",), False),
        (_rules.bare_url, ("https://user:word@x.test/a/b?sig=1#c?d",), "https://x.test/a/b"),
        (_rules.bare_url, ("https://x.test/a?u=http://y/z",), "https://x.test/a"),
        (_rules.bare_url, ("https://x.test",), "https://x.test"),
        (_rules.check_artifact, ("https://x/a", "sha256:" + "0" * 64), "https://x/a"),
        (_rules.check_artifact, ("a.tar.gz", None), "a.tar.gz"),
        (_rules.check_url_path, ("/" + "a" * 1023,), "/" + "a" * 1023),
        (_rules.check_tls, ({}, "443"), {}),
        (
            _rules.check_tls,
            ({"certificate": "/c", "key": "/k", "listen": "8443"}, "80"),
            {"certificate": "/c", "key": "/k", "listen": "8443"},
        ),
        (_rules.check_tls, ({"certificate": "/c", "key": "/k"}, "80"), {"certificate": "/c", "key": "/k"}),
        (_rules.check_body_size, (8,), "8"),
        (_rules.check_body_size, ("8m",), "8m"),
        (_rules.check_assets, (["/assets/"],), ["/assets/"]),
        (_rules.check_percent, (100,), 100),
        (_rules.check_percent, ("0",), 0),
        (_rules.check_smoke, ([{"path": "/"}],), [{"path": "/", "status": 200, "contains": ""}]),
        (
            _rules.check_smoke,
            ([{"path": "/a", "status": "100", "contains": "b"}],),
            [{"path": "/a", "status": 100, "contains": "b"}],
        ),
        (_rules.check_smoke, ([{"path": "/", "status": 599}],), [{"path": "/", "status": 599, "contains": ""}]),
        (_rules.check_hooks, ({"after_start": ["a.yml"]},), {"after_start": ["a.yml"]}),
        (_rules.check_snippet, ("a;", "x"), "a;"),
        (_rules.check_whole, ("0", "x", 0, 9), 0),
        (_rules.check_whole, (9, "x", 0, 9), 9),
        (_rules.check_whole, (999_999_999, "x", 0, 10**9), 999_999_999),
        (_rules.check_choice, ("a", "x", ("a", "b")), "a"),
        (_rules.check_env_id, ("",), ""),
        (_rules.check_env_id, ("0123456789ab",), "0123456789ab"),
        (_rules.module_name, ("my_app2",), "MyApp2"),
        (_rules.check_trusted_proxies, (["10.0.0.0/8", "::1"],), ["10.0.0.0/8", "::1"]),
    ],
)
def test_what_is_accepted_and_what_becomes_of_it(check, given, found):
    assert check(*given) == found


@pytest.mark.parametrize(
    ("check", "given"),
    [
        (_rules.check_domain, (LONG + "b",)),
        (_rules.check_aliases, ([LONG + "b"], "a.b")),
        (_rules.check_listen, (65536,)),
        (_rules.check_url_path, ("/" + "a" * 1024,)),
        (_rules.check_path, ("/opt/../etc", "x")),
        (_rules.check_path, ("///", "x")),
        (_rules.check_artifact, ("https://x/a", "sha256:0")),
        (_rules.check_artifact, ("a.tar.gz", "sha256:0")),
        (_rules.check_trusted_proxies, (["fe80::1%eth0"],)),
    ],
)
def test_what_is_one_too_many(check, given):
    with pytest.raises(Refused):
        check(*given)
