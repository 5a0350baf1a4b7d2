# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sites as real servers have them: rules for visitors, edits by others, names. Each goes through its deploys, promote and rollback."""

from __future__ import annotations

import base64
import shlex

import pytest
import requests
from support.authority import CERTBOT
from support.bluegreen import Client, Site, artifact, broken, squatting, variant

BASIC = {"Authorization": "Basic " + base64.b64encode(b"me:secret").decode()}
RULES = {
    "a password": (
        "auth_basic private;\nauth_basic_user_file /etc/nginx/visitors;",
        BASIC,
        401,
    ),
    "an address list": ("allow 172.16.0.0/12;\nallow 10.0.0.0/8;\ndeny all;", {}, 200),
    "a redirect": (
        "if ($http_x_forwarded_proto != https) {\n  return 301 https://$host$request_uri;\n}",
        {"X-Forwarded-Proto": "https"},
        301,
    ),
}


def test_rules_for_visitors(host, play, site, other_app, tmp_path):
    """Our own proof asks where they do not apply, so a promote and a rollback work, and no traffic moves in vain."""
    host.check_output("echo 'me:{PLAIN}secret' | sudo tee /etc/nginx/visitors")
    other_app["bluegreen_smoke"] = [{"path": "/", "contains": "color"}]
    first, unknown = artifact("other_app-0.1.0"), dict(site.headers)
    play("deploy", other_app, {"bluegreen_artifact": first})
    play("deploy", other_app, {"bluegreen_artifact": variant(first, str(tmp_path / "second.tar.gz"))})
    for rule, (snippet, shown, others_get) in RULES.items():
        other_app["bluegreen_nginx_server"], site.headers = snippet, unknown
        play("setup", other_app)
        assert site.get("/").status_code == others_get, rule
        site.headers = {**unknown, **shown}
        with Client(site) as client:
            play("promote", other_app, "color=green")
            assert site.get("/").json()["color"] == "green", rule
            run = play("rollback", other_app)
        assert client.failed == [] and site.get("/").json()["color"] == "blue", rule
    run.says("turn away what is not a visitor (301 to https://other.test/deployment_id at 127.0.0.1:80 for other.test)")


@pytest.mark.long
def test_client_certificates(host, play, secure_url, other_app, tmp_path):
    host.check_output(
        "sudo openssl req -x509 -newkey rsa:2048 -nodes -keyout /etc/ssl/other.key -out /etc/ssl/other.pem -subj /CN=other.test -days 9 2>&1"
    )
    (tmp_path / "client.pem").write_text(host.check_output("sudo cat /etc/ssl/other.pem /etc/ssl/other.key"))
    other_app = {
        **other_app,
        "bluegreen_tls": {"certificate": "/etc/ssl/other.pem", "key": "/etc/ssl/other.key"},
        "bluegreen_nginx_server": "ssl_client_certificate /etc/ssl/other.pem;\nssl_verify_client on;",
    }
    first = artifact("other_app-0.1.0")
    play("deploy", other_app, {"bluegreen_artifact": first})
    second = {"bluegreen_artifact": variant(first, str(tmp_path / "second.tar.gz")), "bluegreen_promote": True}
    play("deploy", other_app, second).says("turn away what is not a visitor (400 at 127.0.0.1:443 for other.test)")

    def ask(**kwargs):
        with pytest.warns(match="Unverified HTTPS"):
            return requests.get(secure_url, headers={"Host": "other.test"}, verify=False, timeout=10, **kwargs)

    assert ask().status_code == 400 and ask(cert=str(tmp_path / "client.pem")).json()["color"] == "green"
    play("rollback", other_app)
    assert ask(cert=str(tmp_path / "client.pem")).json()["color"] == "blue"


@pytest.mark.long
def test_a_domain_that_another_site_has_taken_meanwhile(host, play, site, other_app, tmp_path):
    """A switch would be without effect for its visitors, and is refused before anything moves."""
    first = artifact("other_app-0.1.0")
    play("deploy", other_app, {"bluegreen_artifact": first})
    play("deploy", other_app, {"bluegreen_artifact": variant(first, str(tmp_path / "second.tar.gz"))})
    # nginx takes the first of two servers with one name and port.
    theirs = "server { listen 80; server_name other.test; location / { return 404; } }"
    taken = f"echo '{theirs}' | sudo tee /etc/nginx/conf.d/a.conf && sudo nginx -s reload && sleep 1"
    with broken(host, taken, "sudo rm /etc/nginx/conf.d/a.conf && sudo nginx -s reload && sleep 1"):
        run = play("promote", other_app, rc=2)
        run.says("visitors of other.test do not come to the site of other_app: 404 at 127.0.0.1:80", "nginx -T")
        assert "was undone" not in run.text
        play("status", other_app, "strict=true", rc=2).says("visitors of other.test do not come")
    play("promote", other_app)


def test_a_site_that_certbot_has_edited(host, play, site, secure_url, other_app, tmp_path):
    first = artifact("other_app-0.1.0")
    play("deploy", other_app, {"bluegreen_artifact": first})
    host.check_output(f"sudo bash -c {shlex.quote(CERTBOT)} 2>&1")
    edited = host.check_output("sudo cat /etc/nginx/conf.d/other_app.conf")
    assert site.get("/").status_code == 301

    def secure():
        with pytest.warns(match="Unverified HTTPS"):
            return requests.get(secure_url, headers=site.headers, verify=False, timeout=10).json()

    run = play("deploy", other_app, {"bluegreen_artifact": variant(first, str(tmp_path / "second.tar.gz"))})
    line = "bluegreen_tls: {certificate: /etc/ssl/other.pem, key: /etc/ssl/other.key}"
    run.says("certbot has edited /etc/nginx/conf.d/other_app.conf, which stays as it is", line)
    play("promote", other_app)
    assert secure()["color"] == "green"
    play("rollback", other_app)
    assert secure()["color"] == "blue" and host.check_output("sudo cat /etc/nginx/conf.d/other_app.conf") == edited
    play("status", other_app, "strict=true").says(line)
    # Once it says so in the inventory, the site is ours again, and still https.
    tls = {"bluegreen_tls": {"certificate": "/etc/ssl/other.pem", "key": "/etc/ssl/other.key"}}
    play("setup", other_app, tls)
    assert "Certbot" not in host.check_output("sudo cat /etc/nginx/conf.d/other_app.conf")
    assert secure()["color"] == "blue" and site.get("/").status_code == 301


def test_a_port_of_the_site_that_somebody_has(host, play, other_app):
    with squatting(host, 8088):
        run = play(
            "deploy",
            {**other_app, "bluegreen_listen": "8088"},
            {"bluegreen_artifact": artifact("other_app-0.1.0")},
            rc=2,
        )
        run.says(
            "port 8088 is taken by process", "(python3 of squatter), so nginx cannot listen there", "bluegreen_listen"
        )
        assert host.run("id other_app").rc != 0


def test_names_and_who_asks_for_them(host, play, site, other_app):
    """A long name needs more of nginx than its default; a load balancer that checks by address asks for no name at all."""
    name = "a-name-that-is-longer-than-forty-seven-characters.of.other.test"
    play("deploy", other_app, {"bluegreen_artifact": artifact("other_app-0.1.0"), "bluegreen_domain": name})
    assert Site(site.port, name).get("/").json()["color"] == "blue"
    by_address = Site(site.port, "10.0.0.7")
    assert '"color"' not in by_address.get("/").text
    theirs = "server { listen 80 default_server; server_name theirs.test; return 204; }"
    wanted = {"bluegreen_default_server": True}
    with broken(
        host, f"echo '{theirs}' | sudo tee /etc/nginx/conf.d/theirs.conf", "sudo rm /etc/nginx/conf.d/theirs.conf"
    ):
        play("setup", other_app, wanted, rc=2).says("a duplicate default server for 0.0.0.0:80 in", "was restored")
    host.check_output("sudo rm -f /etc/nginx/sites-enabled/default")
    play("setup", other_app, wanted)
    assert by_address.get("/").json()["color"] == "blue"
