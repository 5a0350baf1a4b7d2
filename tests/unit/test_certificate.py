# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import http.server
import subprocess
import threading
import time

import pytest
from ansible_collections.beamops.bluegreen.plugins.module_utils import _certificate, _renewal
from ansible_collections.beamops.bluegreen.plugins.plugin_utils import _plans
from hypothesis import given
from hypothesis import strategies as st

DAY = 86400


def lasting(days, since=0.0, names=("example.com",)):
    return {"names": list(names), "not_before": since, "not_after": since + days * DAY}


def make(folder, name="one", names="DNS:example.com,DNS:*.example.net", days=90):
    pair = [str(folder / f"{name}.{kind}") for kind in ("pem", "key")]
    words = f"openssl req -x509 -newkey rsa:2048 -nodes -subj /O=Ours -days {days} -addext subjectAltName={names} -out {pair[0]} -keyout {pair[1]}"
    subprocess.run(words.split(), check=True, capture_output=True)
    return pair


def test_what_is_read_of_a_certificate(tmp_path):
    path, key = make(tmp_path)
    found = _certificate.read(path)
    assert found["names"] == ["example.com", "*.example.net"] and found["issuer"] == "Ours"
    assert found["not_after"] - found["not_before"] == 90 * DAY and abs(found["not_before"] - time.time()) < 60
    told = subprocess.run(
        f"openssl x509 -noout -fingerprint -sha256 -in {path}".split(), check=True, capture_output=True, text=True
    ).stdout
    assert found["fingerprint"] == told.partition("=")[2].strip().replace(":", "").lower()
    assert _certificate.is_pair(path, key) and not _certificate.is_pair(path, make(tmp_path, "other")[1])
    assert _certificate.read(key) is None and _certificate.read("/none") is None


def test_which_files_a_site_names():
    site = "  ssl_certificate /a/b.pem; # with a certificate\n  ssl_certificate_key /a/b.key; # managed by Certbot\n"
    assert _certificate.of_site(site) == ("/a/b.pem", "/a/b.key") and _certificate.of_site("listen 80;") == ("", "")


def test_which_names_it_is_good_for():
    names = ["example.com", "*.example.net"]
    assert _certificate.covers(names, "example.com") and _certificate.covers(names, "www.example.net")
    for other in ("www.example.com", "example.net", "a.b.example.net"):
        assert not _certificate.covers(names, other)


@pytest.mark.parametrize(
    ("age", "position", "says"),
    [
        (0, 0, ""),
        (59, 0, ""),
        (60, 0, "it ends in 30 days"),
        (91, 0, "it ends in 0 days"),
        (60, 1, ""),
        (65, 1, "it ends in 25 days"),
    ],
)
def test_when_it_is_renewed(age, position, says):
    assert _renewal.due(lasting(90), ["example.com"], age * DAY, position) == says


def test_it_is_got_where_there_is_none_for_the_names():
    assert _renewal.due(None, ["example.com"], 0) == "there is none"
    assert _renewal.due(lasting(90), ["example.com", "www.example.com"], 0) == "it is not for www.example.com"


@given(days=st.floats(0.001, 400), age=st.floats(0, 1), position=st.integers(0, 1000))
def test_it_is_renewed_before_anybody_worries(days, age, position):
    """Whatever its length, and wherever in its group a host stands; and the first host is never later than another."""
    found, now = lasting(days), days * DAY * age
    first, other = (_renewal.due(found, ["example.com"], now, at) for at in (0, position))
    assert not other or first
    assert other or not _certificate.worry(found, now)


@pytest.mark.parametrize(("left", "says"), [(16, ""), (14, "soon"), (8, "soon"), (6, "now"), (-1, "now")])
def test_when_somebody_has_to_worry(left, says):
    assert _certificate.worry(lasting(90), (90 - left) * DAY) == says


def test_the_words_of_the_authority():
    said = """Saving debug log to /x
Certbot failed to authenticate some domains (authenticator: webroot). The Certificate Authority reported these problems:
  Domain: example.com
  Type:   unauthorized
  Detail: 203.0.113.1: Invalid response from http://example.com/.well-known/acme-challenge/x: 404

Hint: The Certificate Authority failed"""
    words = "example.com: unauthorized: 203.0.113.1: Invalid response from http://example.com/.well-known/acme-challenge/x: 404"
    assert _renewal.words_of(said) == words
    masked = "An unexpected error occurred:\nAttributeError: can't set attribute\nAsk for help or search"
    log = "acme.messages.Error: urn:ietf:params:acme:error:rateLimited :: There were too many requests :: too many certificates (5) already issued\n"
    assert _renewal.words_of(masked, log) == "rateLimited: too many certificates (5) already issued"
    assert (
        _renewal.words_of("Saving debug log\n\nrequests.exceptions.ConnectionError: refused\n")
        == "requests.exceptions.ConnectionError: refused"
    )
    assert _renewal.words_of("") == "certbot said nothing"


def test_whose_certificate_a_group_gets():
    none = {"ok": True, "not_after": 0.0, "has_key": False}
    key, old, new = ({**none, "has_key": True}, {**none, "not_after": 5.0}, {**none, "not_after": 9.0})
    assert _plans.certificate_source({"a": none, "b": none}) == "a"
    assert _plans.certificate_source({"a": none, "b": key}) == "b"
    assert _plans.certificate_source({"a": key, "b": old, "c": new}) == "c"
    assert _plans.certificate_source({"a": {"unreachable": True}, "b": none}) == "b"
    assert _plans.certificate_source({}) == ""


def certificate(folder, **more):
    path, key = make(folder)
    (folder / "tls").mkdir()
    config = {
        "root": str(folder),
        "certificate": path,
        "key": key,
        "names": ["example.com"],
        "site": str(folder / "site.conf"),
    }
    return _renewal.Certificate({**config, **more})


def test_a_certificate_of_another_authority_is_due(tmp_path):
    """As after the trials. The position is a text, for before ansible-core 2.19 a template gives no numbers."""
    ours = certificate(tmp_path, acme={"directory": "https://real/dir"}, position="3")
    assert ours.due() == ""
    (tmp_path / "tls/authority").write_text("https://real/dir")
    assert ours.due() == ""
    (tmp_path / "tls/authority").write_text("https://trials/dir")
    assert ours.due() == "it is from another authority"
    ours.forget_authority()
    assert ours.due() == ""


def test_a_host_whose_site_does_not_answer_the_authority_does_not_ask_it(tmp_path):
    """Its user went back to http, or to a certificate of his own; the timer is still there."""
    acme = {"directory": "https://127.0.0.1:9/dir", "email": "ops@example.com", "webroot": "/var/www/acme"}
    theirs = certificate(tmp_path, acme=acme, names=["other.com"], domain="other.com")
    assert theirs.due() and theirs.renew(force=True) is False
    (tmp_path / "site.conf").write_text("location ^~ /.well-known/acme-challenge/ {\n  root /var/www/acme;\n}\n")
    with pytest.raises(_renewal.Problem):
        theirs.renew()
    assert "certificate" in (tmp_path / "history.jsonl").read_text() and (tmp_path / "tls/problem").exists()
    assert certificate_without_acme(tmp_path).renew() is False


def test_a_peer_that_answers_something_else(tmp_path):
    """Such as the page of an app, where the site of the peer does not know the path yet."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write("<title>Grüße</title>".encode())

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        peers = ["127.0.0.1:9", f"127.0.0.1:{server.server_address[1]}"]
        ours = certificate(tmp_path, peers=peers, domain="example.com")
        before = ours.found()
        assert ours.fetch() is False and ours.found() == before
        server.shutdown()


def certificate_without_acme(folder):
    config = {
        "root": str(folder),
        "certificate": "/none",
        "key": "/none",
        "names": ["example.com"],
        "site": "/none",
        "acme": {},
    }
    return _renewal.Certificate(config)
