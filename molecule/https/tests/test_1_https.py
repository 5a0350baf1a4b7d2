# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""https by itself on one host, with pebble as the authority. Groups are in fleet/test_9_https.py."""

from __future__ import annotations

import shlex
import time

import pytest
from support import http3
from support.authority import CA, CERTBOT, Authority
from support.bluegreen import Client, artifact, broken, variant, wait_until
from support.machines import reboot

ROOT = "/opt/other_app"
FIRST = artifact("other_app-0.1.0")


@pytest.fixture(scope="module")
def authority(host):
    def run(command):
        return host.check_output(f"sudo sh -c {shlex.quote(command)}")

    authority = Authority(run)
    authority.start()
    yield authority
    authority.stop()


@pytest.fixture
def app(other_app, authority):
    other_app["bluegreen_tls"] = {
        **{"acme_email": "ops@other.test", "acme_directory": authority.directory, "acme_ca": CA},
    }
    return other_app


def is_from(host, secure, authority):
    """Whether a visitor who trusts the authority trusts the site."""
    host.check_output(f"echo {shlex.quote(authority.root())} >/tmp/root.pem")
    ask = "curl -s --cacert /tmp/root.pem --connect-to ::127.0.0.1:443 https://other.test/deployment_id"
    return host.run(ask).stdout in ("blue", "green")


def test_the_first_deploy_ends_with_https(host, play, site, secure, app, authority, tmp_path):
    host.check_output("sudo apt-get purge -y -qq certbot >/dev/null 2>&1")
    assert not host.exists("certbot")
    app["bluegreen_aliases"] = ["www.other.test"]
    app["bluegreen_tls"]["hsts"] = "30d"
    play("deploy", app, {"bluegreen_artifact": FIRST}, "--check")
    play("deploy", app, {"bluegreen_artifact": FIRST})
    assert secure.get("/").json()["color"] == "blue" and is_from(host, secure, authority)
    assert secure.get("/").headers["Strict-Transport-Security"] == "max-age=2592000"
    answer = site.get("/path?q=1")
    assert (answer.status_code, answer.headers["Location"]) == (301, "https://other.test/path?q=1")
    names = "openssl x509 -noout -ext subjectAltName -in"
    host.check_output(f"sudo {names} {ROOT}/tls/fullchain.pem | grep -q DNS:www.other.test")
    assert host.check_output(f"sudo stat -c '%a %U' {ROOT}/tls/key.pem") == "600 root"
    assert play("setup", app).changed() == 0
    play("status", app, "history=5").says(
        "certificate of Pebble Intermediate CA", "89 days left", "certificate ok", "valid until"
    )
    # A switch and the way back.
    play("deploy", app, {"bluegreen_artifact": variant(FIRST, str(tmp_path / "second.tar.gz"))})
    with Client(secure) as client:
        play("promote", app, "color=green")
        assert secure.color() == "green"
        play("rollback", app)
    assert client.failed == [] and secure.color() == "blue"
    # What the timer does: nothing, until two thirds of the time are over.
    assert (
        host.check_output("systemctl is-enabled other_app-certificate.timer other_app-certificate.path").split()
        == ["enabled"] * 2
    )
    before = secure.certificate()
    host.check_output("sudo systemctl start other_app-certificate")
    assert secure.certificate() == before
    # The real authority after the one for trials: here the same by another name.
    app["bluegreen_tls"]["acme_directory"] = authority.directory.replace("127.0.0.1", "localhost")
    play("setup", app)
    assert secure.certificate() != before and play("setup", app).changed() == 0
    before = secure.certificate()
    # One more name is one more certificate.
    app["bluegreen_aliases"] = ["www.other.test", "old.other.test"]
    play("setup", app)
    host.check_output(f"sudo {names} {ROOT}/tls/fullchain.pem | grep -q DNS:old.other.test")
    assert secure.certificate() != before and play("setup", app).changed() == 0


def test_renewals(host, play, site, secure, app, authority):
    """Certificates that last 20 seconds: the timer's unit renews, and nginx serves the new one."""
    authority.start(seconds=20)
    play("deploy", app, {"bluegreen_artifact": FIRST})
    before = secure.certificate()
    time.sleep(14)
    # New connections alone: a reload of nginx before 1.27.4 ends kept ones, which docs/how-to/https.md says.
    with Client(secure, kept=False) as client:
        host.check_output("sudo systemctl start other_app-certificate")
        wait_until(lambda: secure.certificate() != before)
        time.sleep(1)
    assert client.failed == [] and is_from(host, secure, authority)
    play("status", app, "history=3").says("certificate ok", "issued by Pebble")
    # Who goes back to http is not told for ever that there is no new certificate.
    authority.stop()
    del app["bluegreen_tls"]
    play("setup", app)
    time.sleep(20)
    host.check_output("sudo systemctl start other_app-certificate")
    assert site.get("/").status_code == 200 and "certificate" not in play("status", app, "history=1").text
    authority.start()


@pytest.mark.long
def test_a_reboot(host, play, secure, app, authority):
    """The site has its certificate again, and the timer goes on."""
    authority.start(seconds=60)
    play("deploy", app, {"bluegreen_artifact": FIRST})
    before, began = secure.certificate(), time.monotonic()
    reboot("bluegreen-https1", "systemctl is-active ssh && curl -fsS localhost:6400/health")
    units = "other_app-certificate.timer other_app-certificate.path"
    assert host.check_output(f"systemctl is-active {units}").split() == ["active"] * 2
    assert secure.certificate() == before
    authority.start()
    time.sleep(max(0, 41 - (time.monotonic() - began)))
    host.check_output("sudo systemctl start other_app-certificate")
    assert secure.certificate() != before and is_from(host, secure, authority)


def test_http3(host, play, secure, app, tmp_path):
    """Where nginx has it; where it has not, the site goes without, and a deploy says so."""
    app["bluegreen_tls"]["http3"] = True
    play("deploy", app, {"bluegreen_artifact": FIRST}).says("bluegreen_tls.http3: nginx 1.22.1 has no HTTP/3")
    assert secure.get("/").status_code == 200 and "Alt-Svc" not in secure.get("/").headers
    # Without the modules of the other one.
    newer = "sudo mount --bind /opt/trixie/usr/sbin/nginx /usr/sbin/nginx && sudo mount -t tmpfs none /etc/nginx/modules-enabled"
    newer += " && sudo systemctl restart nginx"
    older = "sudo umount -l /usr/sbin/nginx /etc/nginx/modules-enabled && sudo systemctl restart nginx"
    with broken(host, newer, f"sudo rm -f /etc/nginx/conf.d/beside.conf /etc/nginx/conf.d/other_app.conf; {older}"):
        play("setup", app)
        assert play("setup", app).changed() == 0
        assert secure.get("/").headers["Alt-Svc"] == 'h3=":443"; ma=86400'
        headers, live = http3.get("127.0.0.1", "other.test", ["/headers", "/deployment_id"], secure.port)
        assert live == (200, "blue") and headers[0] == 200
        assert {"host: other.test", "x-forwarded-host: other.test", "x-forwarded-proto: https"} <= set(
            headers[1].splitlines()
        )
        play("deploy", app, {"bluegreen_artifact": variant(FIRST, str(tmp_path / "second.tar.gz"))})
        play("promote", app)
        # Many connections, to all workers.
        for _again in range(8):
            ((status, color),) = http3.get("127.0.0.1", "other.test", ["/deployment_id"], secure.port)
            assert (status, color) == (200, "green")
        # Another site that shares the port among the workers already: one has to say so for both.
        site = "server { listen 443 quic reuseport; listen [::]:443 quic reuseport; listen 443 ssl; server_name beside.test; "
        site += f"ssl_certificate {ROOT}/tls/fullchain.pem; ssl_certificate_key {ROOT}/tls/key.pem; }}"
        host.check_output(
            f"sudo rm /etc/nginx/conf.d/other_app.conf; echo '{site}' | sudo tee /etc/nginx/conf.d/beside.conf"
        )
        play("setup", app)
        assert "reuseport" not in host.file("/etc/nginx/conf.d/other_app.conf").content_string
        assert http3.get("127.0.0.1", "other.test", ["/deployment_id"], secure.port) == [(200, "green")]


@pytest.mark.parametrize(
    ("harm", "network", "words"),
    [
        pytest.param("systemctl stop pebble", {}, "Connection refused", marks=pytest.mark.long),
        ("true", {"leads_to": "''"}, "other.test: connection: "),
        # As behind a firewall that does not let port 80 in.
        pytest.param("true", {"port": 81}, "other.test: connection: ", marks=pytest.mark.long),
    ],
    ids=["away", "cannot find us", "port 80 closed"],
)
def test_an_authority_that_gives_none(host, play, site, secure, app, authority, harm, network, words):
    """The release is live over http all the same, the words of the authority are said, and the next run gets it."""
    authority.start(**network)
    host.check_output(f"sudo {harm}")
    run = play("deploy", app, {"bluegreen_artifact": FIRST})
    run.says("no new certificate: ", words)
    assert site.get("/").json()["color"] == "blue"
    play("status", app, "history=1").says("no new certificate: ")
    authority.start()
    play("setup", app)
    said = play("status", app).text
    assert is_from(host, secure, authority) and "no new certificate" not in said, said


MOVES = {
    "certbot by hand": """
openssl req -x509 -newkey rsa:2048 -nodes -keyout /etc/ssl/other.key -out /etc/ssl/other.pem -subj /CN=other.test -days 90 \
  -addext subjectAltName=DNS:other.test 2>/dev/null""",
    "certbot --nginx": CERTBOT,
}


@pytest.mark.parametrize("how", [pytest.param("certbot by hand", marks=pytest.mark.long), "certbot --nginx"])
def test_the_move_from_a_certificate_of_ones_own(host, play, site, secure, app, authority, how):
    """It is taken over, so the site never goes back to http, and the authority is asked when it is time."""
    ours = app.pop("bluegreen_tls")
    if how == "certbot by hand":
        app["bluegreen_tls"] = {"certificate": "/etc/ssl/other.pem", "key": "/etc/ssl/other.key"}
        host.check_output(f"sudo bash -c {shlex.quote(MOVES[how])}")
    play("deploy", app, {"bluegreen_artifact": FIRST})
    if how == "certbot --nginx":
        host.check_output(f"sudo bash -c {shlex.quote(MOVES[how])} 2>&1")
    before = secure.certificate()
    with Client(secure, kept=False) as client:
        app["bluegreen_tls"] = ours
        play("setup", app)
        time.sleep(1)
    assert client.failed == [] and site.get("/").status_code == 301
    # The one of the test lasts 90 days, that of `certbot --nginx` 9, of which hardly any are over.
    assert secure.certificate() == before and play("setup", app).changed() == 0
    with Client(secure, kept=False) as client:
        host.check_output(f"sudo python3 {ROOT}/bin/certificate.py {ROOT}/tls/config.json --force")
        time.sleep(1)
    assert client.failed == [] and is_from(host, secure, authority)


def test_a_renewed_certificate_of_ones_own(host, play, secure, app):
    """Whoever renews the file, nginx serves it, and nobody has to tell it."""

    def make(name, days, mode=600):
        """One that has lived 80 days, and has some left."""
        host.check_output(
            "sudo faketime -f '-80d' openssl req -x509 -newkey rsa:2048 -nodes -keyout /etc/ssl/new.key -out /etc/ssl/new.pem "
            f"-subj /CN=other.test -addext subjectAltName=DNS:{name} -days {80 + days} 2>/dev/null; sudo mv /etc/ssl/new.key "
            f"/etc/ssl/other.key; sudo mv /etc/ssl/new.pem /etc/ssl/other.pem; sudo chmod {mode} /etc/ssl/other.key"
        )

    host.check_output("sudo apt-get purge -y -qq certbot >/dev/null 2>&1")
    make("other.test", 60)
    app["bluegreen_tls"] = {"certificate": "/etc/ssl/other.pem", "key": "/etc/ssl/other.key"}
    play("deploy", app, {"bluegreen_artifact": FIRST})
    assert not host.exists("certbot")
    before = secure.certificate()
    make("else.test", 10, 644)
    wait_until(lambda: secure.certificate() != before)
    run = play("status", app, "strict=true")
    run.says(
        "/etc/ssl/other.pem ends in 9 days", "is for else.test, not for other.test", "chmod o-r /etc/ssl/other.key"
    )
    make("other.test", 5)
    assert "not for other.test" not in play("status", app, "strict=true", rc=2).says(
        "/etc/ssl/other.pem ends in 4 days"
    )


@pytest.mark.long
def test_an_authority_that_refuses_some_nonces(host, play, secure, app, authority):
    authority.start(PEBBLE_WFE_NONCEREJECT=15)
    play("deploy", app, {"bluegreen_artifact": FIRST})
    assert is_from(host, secure, authority)
    authority.start()


@pytest.mark.long
def test_an_authority_that_nobody_trusts(host, play, site, app, authority):
    del app["bluegreen_tls"]["acme_ca"]
    play("deploy", app, {"bluegreen_artifact": FIRST}).says("no new certificate: ", "certificate verify failed")
    assert site.get("/").json()["color"] == "blue"
