# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import string

import pytest
from ansible_collections.beamops.bluegreen.plugins.module_utils import _validate
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Refused
from ansible_collections.beamops.bluegreen.plugins.plugin_utils import _variables
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (_validate.check_domain, "example.com"),
        (_validate.check_domain, "*.example.com"),
        (_validate.check_domain, "localhost"),
        (_validate.check_domain, "a-b.example.co"),
        (_validate.check_app, "my_app2"),
        (_validate.check_path, "/opt/my_app"),
        (_validate.check_listen, "80"),
        (_validate.check_listen, "127.0.0.1:8080"),
        (_validate.check_version, "1.0.0-rc.1+build.5"),
        (_validate.check_commit, "1a2b3c4d5e6f-dirty"),
        (_validate.check_commit, "release/v1.2+3"),
        (_validate.check_url_path, "/health?deep=1"),
        (_validate.check_release, "0.1.0-rc.1-1a2b3c4d"),
        (_validate.check_user, "www-data"),
        (_validate.check_shared, ["uploads", "my_db-2"]),
        (_variables.check_writable, ["/var/lib/app"]),
        (_variables.check_quorum, {}),
        (_variables.check_quorum, {"address": "10.0.0.1"}),
        (_variables.check_memory, {}),
        (_variables.check_memory, {"max": "512M"}),
        (_variables.check_memory, {"max": "40%"}),
    ],
)
def test_allowed(check, value):
    args = (value, "x") if check is _validate.check_path else (value,)
    assert check(*args) == value


@pytest.mark.parametrize(
    ("check", "values"),
    [
        (
            _validate.check_domain,
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
        (_validate.check_app, ["", "Sample", "1app", "my-app", "a" * 33, "a\n", "root", "nginx", 7, None]),
        (_validate.check_path, ["", "/", "opt", "/opt/../etc", "/opt/a b", "/opt/a;b", "/opt/$x", "/opt/a\n", None]),
        (
            _validate.check_listen,
            ["", "0", "65536", "80; server x", "[::]:80", "256.0.0.1:80", "localhost:80", "80\n", True],
        ),
        (_validate.check_user, ["", "root", "Web", "a b", "a\n", "a" * 33, 7, None]),
        (_validate.check_shared, ["uploads", ["a/b"], [".."], [""], [7], {"a": 1}]),
        (_variables.check_quorum, [True, "10.0.0.1", {"address": "a b"}, {"address": "a", "x": 1}, {"x": 1}]),
        (_variables.check_writable, ["/var", ["var"], ["/a/../b"], ["/a b"], [7]]),
        (_variables.check_memory, ["512M", {"max": "512"}, {"max": "lots"}, {"min": "1G"}, {"max": "1G\n"}]),
        (_validate.check_version, ["", ".1", "../1", "1/2", "1 2", "1\n", "a" * 65, None]),
        (_validate.check_commit, ["", "-x", "a b", "a\n", "$(id)", "a" * 65, 7, None]),
        (_validate.check_url_path, ["", "health", "/a b", "/a\r\nHost: x", "/" + "a" * 1024, None]),
        (_validate.check_color, ["", "purple", "$http_cookie", "Blue", "blue\n", None]),
        (
            _validate.check_release,
            ["0.1.0", "0.1.0-1a2b3c4", "../x-1a2b3c4d", "0.1.0-1A2B3C4D", "0.1.0-1a2b3c4d\n", None],
        ),
        (
            _validate.check_checksum,
            ["", "0" * 64, "sha256:" + "0" * 63, "sha256:" + "g" * 64, "sha256:" + "0" * 64 + "\n"],
        ),
    ],
)
def test_refused(check, values):
    for value in values:
        with pytest.raises(Refused):
            check(*((value, "x") if check is _validate.check_path else (value,)))


def test_ports():
    assert _validate.check_ports({"blue": "4000", "green": 5000}) == {"blue": 4000, "green": 5000}
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
            _validate.check_ports(ports)


@given(st.text())
def test_what_a_domain_may_be_says_nothing_to_nginx(text):
    try:
        _validate.check_domain(text)
    except Refused:
        return
    assert set(text) <= set(string.ascii_lowercase + string.digits + ".-*")


@given(st.text(alphabet=string.printable))
def test_what_a_path_may_be_needs_no_quoting(text):
    try:
        _validate.check_path(text, "x")
    except Refused:
        return
    assert set(text) <= set(string.ascii_letters + string.digits + "._/-") and "/../" not in text + "/"


def test_request_host_of_a_wildcard_is_a_name():
    assert _validate.request_host("*.example.com") == "www.example.com"
    assert _validate.request_host("example.com") == "example.com"


def test_bare_url_keeps_no_secret():
    assert _variables.bare_url("https://user:pw@a.test:8/b/c.tar.gz?sig=x@y#z") == "https://a.test:8/b/c.tar.gz"
    assert _variables.bare_url("https://a.test") == "https://a.test"


def test_module_name():
    assert _variables.module_name("my_app2") == "MyApp2"


@pytest.mark.parametrize(
    ("check", "values"),
    [
        (
            lambda value: _variables.check_aliases(value, "example.com"),
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
            _variables.check_trusted_proxies,
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
            lambda value: _variables.check_tls(value, "80"),
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
        (_variables.check_body_size, ["", "8m;", "8 m", "eight", -1, True, None, "8mb", "1" * 7]),
        (
            _variables.check_assets,
            ["/assets/", ["/"], ["assets/"], ["/assets"], ["/a/../b/"], ["/a b/"], ["/a;/"], ["/$uri/"], [7]],
        ),
        (
            _validate.check_token,
            ["", "short", "x" * 129, "with space and more", "a" * 16 + "$", "a" * 16 + "\n", "../" * 8, None],
        ),
        (_validate.check_percent, [-1, 101, "ten", 1.5, "1e1", True, None, "10%"]),
        (
            _validate.check_smoke,
            [{"path": "/"}, ["/"], [{"path": "x"}], [{"path": "/", "status": 99}], [{"path": "/", "contains": 7}]],
        ),
        (_variables.check_hooks, [[], {"before_lunch": ["a"]}, {"before_install": "a.yml"}, {"before_install": [7]}]),
        (_validate.check_url_path, ["/$uri", '/"', "/;", "/'", "/a b", "/\\", "/{", "x", "", "/a\n"]),
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
        _variables.check_body_size,
        _validate.check_token,
        lambda value: _variables.check_assets([value])[0],
        lambda value: _variables.check_aliases([value], "example.com")[0],
        lambda value: _variables.check_trusted_proxies([value])[0],
        _validate.check_url_path,
    ):
        try:
            passed = check(text)
        except Refused:
            continue
        assert passed == text and not set(text) & set("\"' \\$;{}\n\t#")


def test_smoke_checks_are_complete():
    assert _validate.check_smoke([{"path": "/"}]) == [{"path": "/", "status": 200, "contains": ""}]


# --- to the letter ---------------------------------------------------------------------------------------------------------

SAYS = [
    (
        _validate.check_app,
        ("My",),
        "bluegreen_app must be a release name: [a-z][a-z0-9_]*, at most 32 characters (got 'My')",
    ),
    (
        _validate.check_app,
        (7,),
        "bluegreen_app must be a release name: [a-z][a-z0-9_]*, at most 32 characters (got '7')",
    ),
    (_validate.check_color, ("red",), "color must be blue or green (got 'red')"),
    (
        _validate.check_domain,
        ("A.b",),
        "bluegreen_domain must be a host name such as example.com or *.example.com, in lower case and at most 253 characters (got 'A.b')",
    ),
    (
        _validate.check_ports,
        ({"blue": 1023, "green": 5000},),
        "bluegreen_ports.blue must be a whole number from 1024 to 65535 (got '1023')",
    ),
    (
        _validate.check_ports,
        ({"blue": 4000, "green": 65536},),
        "bluegreen_ports.green must be a whole number from 1024 to 65535 (got '65536')",
    ),
    (_validate.check_listen, (True,), "bluegreen_listen must be a port, or IPv4-address:port (got 'True')"),
    (_validate.check_listen, ("0",), "bluegreen_listen must be a whole number from 1 to 65535 (got '0')"),
    (
        _validate.check_path,
        ("opt", "bluegreen_root"),
        "bluegreen_root must be an absolute path of letters, digits and . _ / - without '..' (got 'opt')",
    ),
    (
        _validate.check_version,
        ("-1",),
        "version must be at most 64 letters, digits and . + _ -, the first a letter or digit (got '-1')",
    ),
    (_validate.check_release, ("x",), "release must be <version>-<first 8 digits of its SHA-256> (got 'x')"),
    (_validate.check_env_id, ("x",), "environment must be an id of 12 hexadecimal digits (got 'x')"),
    (
        _validate.check_checksum,
        ("md5:1",),
        "bluegreen_artifact_checksum must be sha256: and 64 hexadecimal digits (got 'md5:1')",
    ),
    (_validate.check_checksum, (7,), "bluegreen_artifact_checksum must be sha256: and 64 hexadecimal digits (got '7')"),
    (
        _validate.check_artifact,
        ("", None),
        "bluegreen_artifact is required: the path of the mix release tarball, or its http(s) URL",
    ),
    (
        _validate.check_artifact,
        (None, None),
        "bluegreen_artifact is required: the path of the mix release tarball, or its http(s) URL",
    ),
    (
        _validate.check_artifact,
        ("https://x/a b", "sha256:" + "0" * 64),
        "bluegreen_artifact must be a valid URL (got characters that no URL has)",
    ),
    (
        _validate.check_artifact,
        ("https://x/a", None),
        "bluegreen_artifact_checksum (sha256:…) is required where bluegreen_artifact is a URL",
    ),
    (
        _validate.check_artifact,
        ("ftp://x/a", None),
        "bluegreen_artifact must be a path, or an http or https URL (got 'ftp://x/a')",
    ),
    (_validate.check_url_path, ("x",), "bluegreen_health_path must be a URL path that starts with / (got 'x')"),
    (_variables.check_aliases, ("x", "a.b"), "bluegreen_aliases must be a list of host names (got 'x')"),
    (
        _variables.check_aliases,
        (["X"], "a.b"),
        "bluegreen_aliases must hold host names such as www.example.com (got 'X')",
    ),
    (
        _variables.check_aliases,
        (["a.b"], "a.b"),
        "bluegreen_aliases must not repeat a host name, nor name bluegreen_domain",
    ),
    (
        _variables.check_trusted_proxies,
        ("x",),
        "bluegreen_trusted_proxies must be a list of addresses and networks (got 'x')",
    ),
    (
        _variables.check_trusted_proxies,
        ([7],),
        "bluegreen_trusted_proxies must hold addresses such as 10.0.0.1 and networks such as 10.0.0.0/8, with no bit set after the prefix (got '7')",
    ),
    (
        _variables.check_trusted_proxies,
        (["0.0.0.0/0"],),
        "bluegreen_trusted_proxies must not trust everybody: any visitor could forge an address (got 0.0.0.0/0)",
    ),
    (
        _variables.check_tls,
        ("x", "80"),
        "bluegreen_tls must be a mapping of acme_email, or of certificate and key, and optionally listen (default 443), hsts and http3",
    ),
    (
        _variables.check_tls,
        ({"cert": "/x"}, "80"),
        "bluegreen_tls must be a mapping of acme_email, or of certificate and key, and optionally listen (default 443), hsts and http3",
    ),
    (
        _variables.check_tls,
        ({"certificate": "x", "key": "/k"}, "80"),
        "bluegreen_tls.certificate must be an absolute path of letters, digits and . _ / - without '..' (got 'x')",
    ),
    (
        _variables.check_tls,
        ({"certificate": "/c", "key": "k"}, "80"),
        "bluegreen_tls.key must be an absolute path of letters, digits and . _ / - without '..' (got 'k')",
    ),
    (
        _variables.check_tls,
        ({"certificate": "/c", "key": "/k", "listen": "x"}, "80"),
        "bluegreen_tls.listen must be a port, or IPv4-address:port (got 'x')",
    ),
    (
        _variables.check_tls,
        ({"certificate": "/c", "key": "/k"}, "443"),
        "bluegreen_tls.listen must differ from bluegreen_listen (got 443 for both)",
    ),
    (
        _variables.check_tls,
        ({"acme_email": "ops"}, "80"),
        "bluegreen_tls.acme_email must be an e-mail address (got 'ops')",
    ),
    (
        _variables.check_tls,
        ({"acme_email": "ops@example.com", "key": "/k"}, "80"),
        "bluegreen_tls has acme_email and key. Remove acme_email to use a certificate of your own, or key to get one.",
    ),
    (
        _variables.check_tls,
        ({"acme_email": "ops@example.com", "acme_directory": "http://x"}, "80"),
        "bluegreen_tls.acme_directory must be a URL that begins with https:// (got 'http://x')",
    ),
    (
        _variables.check_tls,
        ({"acme_email": "ops@example.com", "acme_ca": "x"}, "80"),
        "bluegreen_tls.acme_ca must be an absolute path of letters, digits and . _ / - without '..' (got 'x')",
    ),
    (
        _variables.check_tls,
        ({"certificate": "/c", "key": "/k", "acme_ca": "/x"}, "80"),
        "bluegreen_tls.acme_ca is for certificates of an authority: set acme_email too, or remove it",
    ),
    (
        _variables.check_tls,
        ({"acme_email": "ops@example.com"}, "80", ["example.com", "*.example.com"]),
        "bluegreen_tls.acme_email: an authority gives *.example.com only to who controls its DNS. Get that c"
        "ertificate with a DNS plugin of certbot, and set certificate and key: see docs/how-to/https.md",
    ),
    (
        _variables.check_tls,
        ({"acme_email": "ops@example.com"}, "80", ["app.local"]),
        "bluegreen_tls.acme_email: no public authority gives a certificate for app.local. Set bluegreen_domain to a public name.",
    ),
    (
        _variables.check_tls,
        ({"acme_email": "ops@example.com"}, "80", ["localhost"]),
        "bluegreen_tls.acme_email: no public authority gives a certificate for localhost. Set bluegreen_domain to a public name.",
    ),
    (
        _variables.check_tls,
        ({"acme_email": "ops@example.com"}, "80", ["203.0.113.1"]),
        "bluegreen_tls.acme_email: no public authority gives a certificate for 203.0.113.1. Set bluegreen_domain to a public name.",
    ),
    (
        _variables.check_tls,
        ({"certificate": "/c", "key": "/k", "http3": "yes"}, "80"),
        "bluegreen_tls.http3 must be true or false (got 'yes')",
    ),
    (
        _variables.check_tls,
        ({"certificate": "/c", "key": "/k", "hsts": "forever"}, "80"),
        "bluegreen_tls.hsts must be a time such as 30d, 26w or 1y (got 'forever')",
    ),
    (
        _variables.check_notify,
        ({"url": "https://x"},),
        "bluegreen_notify must be a list of mappings with url and optionally on (deployed, promoted, rolled_back, failed)",
    ),
    (
        _variables.check_notify,
        ([{"url": "https://x", "to": 1}],),
        "bluegreen_notify must be a list of mappings with url and optionally on (deployed, promoted, rolled_back, failed)",
    ),
    (
        _variables.check_notify,
        ([{"url": "hooks.example.com"}],),
        "bluegreen_notify[1].url must be a URL that begins with https:// (its value is not shown)",
    ),
    (
        _variables.check_notify,
        ([{"url": "http://ann:secret@hooks.example.com:80/secret"}],),
        "bluegreen_notify[1].url sends its secret unencrypted to hooks.example.com. Use https://, which http:"
        "// may replace only for this machine or an address of a private network.",
    ),
    (
        _variables.check_notify,
        ([{"url": "http://10.0.0.1/secret", "on": "failed"}],),
        "bluegreen_notify[1].on must be a list of deployed, promoted, rolled_back, failed (got 'failed')",
    ),
    (
        _variables.check_notify,
        ([{"url": "http://localhost:8080/secret", "on": ["broken"]}],),
        "each of bluegreen_notify[1].on must be deployed or promoted or rolled_back or failed (got 'broken')",
    ),
    (
        _variables.check_body_size,
        (True,),
        "bluegreen_body_size must be a number followed by k, m or g, such as 8m (got 'True')",
    ),
    (
        _variables.check_body_size,
        ([],),
        "bluegreen_body_size must be a number followed by k, m or g, such as 8m (got '[]')",
    ),
    (_variables.check_assets, ("x",), "bluegreen_assets must be a list of URL paths such as /assets/ (got 'x')"),
    (_variables.check_assets, ([7],), "bluegreen_assets must be a list of URL paths such as /assets/ (got '[7]')"),
    (
        _validate.check_token,
        (7,),
        "bluegreen_preview_token must be 16 to 128 letters, digits, _ and - (its value is not shown)",
    ),
    (
        _validate.check_token,
        ("smoke-0123456789abcdef",),
        "bluegreen_preview_token must be 16 to 128 letters, digits, _ and - (its value is not shown)",
    ),
    (_validate.check_percent, (101,), "percent must be a whole number from 0 to 100 (got '101')"),
    (_validate.check_percent, (-1,), "percent must be a whole number from 0 to 100 (got '-1')"),
    (
        _validate.check_smoke,
        ("x",),
        "bluegreen_smoke must be a list of checks, each with path and optionally status and contains",
    ),
    (
        _validate.check_smoke,
        (["x"],),
        "bluegreen_smoke must hold checks with path and optionally status and contains (got 'x')",
    ),
    (
        _validate.check_smoke,
        ([{"path": "/", "more": 1}],),
        "bluegreen_smoke must hold checks with path and optionally status and contains (got \"{'path': '/', 'more': 1}\")",
    ),
    (
        _validate.check_smoke,
        ([{"status": 200}],),
        "bluegreen_smoke must hold checks with path and optionally status and contains (got \"{'status': 200}\")",
    ),
    (_validate.check_smoke, ([{"path": "x"}],), "bluegreen_smoke.path must be a URL path that starts with / (got 'x')"),
    (
        _validate.check_smoke,
        ([{"path": "/", "status": 99}],),
        "bluegreen_smoke.status must be a whole number from 100 to 599 (got '99')",
    ),
    (
        _validate.check_smoke,
        ([{"path": "/", "status": 600}],),
        "bluegreen_smoke.status must be a whole number from 100 to 599 (got '600')",
    ),
    (_validate.check_smoke, ([{"path": "/", "contains": 7}],), "bluegreen_smoke.contains must be text (got '7')"),
    (
        _variables.check_hooks,
        ("x",),
        "bluegreen_hooks must be a mapping of before_install, after_install, before_start, after_start, before_promote, after_promote, "
        "on_failure to lists of task files (got 'x')",
    ),
    (
        _variables.check_hooks,
        ({"before_lunch": []},),
        "each key of bluegreen_hooks must be before_install or after_install or before_start or after_start or before_promote or "
        "after_promote or on_failure (got 'before_lunch')",
    ),
    (
        _variables.check_hooks,
        ({"after_start": "x"},),
        "bluegreen_hooks.after_start must be a list of task files (got 'x')",
    ),
    (
        _variables.check_hooks,
        ({"after_start": [""]},),
        "bluegreen_hooks.after_start must be a list of task files (got \"['']\")",
    ),
    (
        _variables.check_hooks,
        ({"after_start": [7]},),
        "bluegreen_hooks.after_start must be a list of task files (got '[7]')",
    ),
    (
        _variables.check_snippet,
        (7, "bluegreen_nginx_server"),
        "bluegreen_nginx_server must be text in nginx's language (got '7')",
    ),
    (_variables.check_snippet, ("a\x00b", "x"), "x must be text in nginx's language (got 'a\\x00b')"),
    (_validate.check_whole, (True, "x", 0, 9), "x must be a whole number from 0 to 9 (got 'True')"),
    (_validate.check_whole, (10, "x", 0, 9), "x must be a whole number from 0 to 9 (got '10')"),
    (_validate.check_choice, ("x", "y", ("a", "b")), "y must be a or b (got 'x')"),
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
        (_validate.check_domain, (LONG,), LONG),
        (_variables.check_aliases, ([LONG], "a.b"), [LONG]),
        (_validate.check_ports, ({"blue": "1024", "green": 65535},), {"blue": 1024, "green": 65535}),
        (_validate.check_listen, ("1",), "1"),
        (_validate.check_listen, (65535,), "65535"),
        (_validate.listen_address, ("80",), ("127.0.0.1", 80)),
        (_validate.listen_address, ("0.0.0.0:81",), ("127.0.0.1", 81)),
        (_validate.listen_address, ("10.0.0.1:82",), ("10.0.0.1", 82)),
        (_validate.request_host, ("*.example.com",), "www.example.com"),
        (_validate.request_host, ("example.com",), "example.com"),
        (_validate.check_path, ("/opt/app/", "x"), "/opt/app"),
        (_validate.check_path, ("/opt/X/", "x"), "/opt/X"),
        (_validate.release_id, ("1.0.0", "0123456789"), "1.0.0-01234567"),
        (_validate.release_version, ("1.0.0-01234567",), "1.0.0"),
        (_validate.check_checksum, ("sha256:" + "a" * 64,), "a" * 64),
        (_validate.is_url, ("http://x",), True),
        (_validate.is_url, ("https://x",), True),
        (_validate.is_url, ("/tmp/http://",), False),
        (_variables.bare_url, ("https://user:word@x.test/a/b?sig=1#c?d",), "https://x.test/a/b"),
        (_variables.bare_url, ("https://x.test/a?u=http://y/z",), "https://x.test/a"),
        (_variables.bare_url, ("https://x.test",), "https://x.test"),
        (_validate.check_artifact, ("https://x/a", "sha256:" + "0" * 64), "https://x/a"),
        (_validate.check_artifact, ("a.tar.gz", None), "a.tar.gz"),
        (_validate.check_url_path, ("/" + "a" * 1023,), "/" + "a" * 1023),
        (_variables.check_tls, ({}, "443"), {}),
        (
            _variables.check_tls,
            ({"certificate": "/c", "key": "/k", "listen": "8443"}, "80"),
            {"certificate": "/c", "key": "/k", "listen": "8443"},
        ),
        (_variables.check_tls, ({"certificate": "/c", "key": "/k"}, "80"), {"certificate": "/c", "key": "/k"}),
        (_variables.check_body_size, (8,), "8"),
        (_variables.check_body_size, ("8m",), "8m"),
        (_variables.check_assets, (["/assets/"],), ["/assets/"]),
        (_validate.check_percent, (100,), 100),
        (_validate.check_percent, ("0",), 0),
        (_validate.check_smoke, ([{"path": "/"}],), [{"path": "/", "status": 200, "contains": ""}]),
        (
            _validate.check_smoke,
            ([{"path": "/a", "status": "100", "contains": "b"}],),
            [{"path": "/a", "status": 100, "contains": "b"}],
        ),
        (_validate.check_smoke, ([{"path": "/", "status": 599}],), [{"path": "/", "status": 599, "contains": ""}]),
        (_variables.check_hooks, ({"after_start": ["a.yml"]},), {"after_start": ["a.yml"]}),
        (_variables.check_snippet, ("a;", "x"), "a;"),
        (_validate.check_whole, ("0", "x", 0, 9), 0),
        (_validate.check_whole, (9, "x", 0, 9), 9),
        (_validate.check_whole, (999_999_999, "x", 0, 10**9), 999_999_999),
        (_validate.check_choice, ("a", "x", ("a", "b")), "a"),
        (_validate.check_env_id, ("",), ""),
        (_validate.check_env_id, ("0123456789ab",), "0123456789ab"),
        (_variables.module_name, ("my_app2",), "MyApp2"),
        (_variables.check_trusted_proxies, (["10.0.0.0/8", "::1"],), ["10.0.0.0/8", "::1"]),
    ],
)
def test_what_is_accepted_and_what_becomes_of_it(check, given, found):
    assert check(*given) == found


@pytest.mark.parametrize(
    ("check", "given"),
    [
        (_validate.check_domain, (LONG + "b",)),
        (_variables.check_aliases, ([LONG + "b"], "a.b")),
        (_validate.check_listen, (65536,)),
        (_validate.check_url_path, ("/" + "a" * 1024,)),
        (_validate.check_path, ("/opt/../etc", "x")),
        (_validate.check_path, ("///", "x")),
        (_validate.check_artifact, ("https://x/a", "sha256:0")),
        (_validate.check_artifact, ("a.tar.gz", "sha256:0")),
        (_variables.check_trusted_proxies, (["fe80::1%eth0"],)),
    ],
)
def test_what_is_one_too_many(check, given):
    with pytest.raises(Refused):
        check(*given)


def test_how_far_back():
    assert [_validate.check_since(value) for value in ("30s", "10m", "2h", "1d")] == [30, 600, 7200, 86400]
    for wrong in ("10", "m", "-1m", "1w", "10m ", 10, None, "1234567s"):
        with pytest.raises(Refused, match="since must be a whole number"):
            _validate.check_since(wrong)
