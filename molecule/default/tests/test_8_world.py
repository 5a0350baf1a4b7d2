# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What real servers and apps bring along: each kind goes through its deploys, promote and rollback, and no request is lost."""

from __future__ import annotations

import base64
import os
import shlex
import time

import pytest
import requests
from support.bluegreen import Client, Site, artifact, broken, playbook, squatting, variant

INVENTORY = os.environ["MOLECULE_INVENTORY_FILE"]
ROOT = "/opt/sample_app"
OLD, NEW = artifact("sample_app-0.1.0"), artifact("sample_app-0.1.1")
HTTPS = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}


@pytest.fixture(scope="module", autouse=True)
def known_state(host):
    """0.1.0 is live, 0.1.1 is idle and has not been live."""
    del host
    playbook(INVENTORY, "deploy", {"bluegreen_artifact": OLD, "bluegreen_promote": True, "bluegreen_force": True})
    playbook(INVENTORY, "deploy", {"bluegreen_artifact": NEW, "bluegreen_force": True})


@pytest.fixture
def other_app(host):
    """Variables of an app that is not on the host yet, and is gone after the test."""
    yield {
        "bluegreen_app": "other_app",
        "bluegreen_domain": "other.test",
        "bluegreen_ports": {"blue": 6400, "green": 7400},
    }
    host.check_output(
        "sudo sh -c 'systemctl disable --now other_app@blue other_app@green; rm -rf /opt/other_app /etc/ansible/facts.d/other_app.fact "
        "/etc/nginx/conf.d/other_app.conf /etc/systemd/system/other_app*; systemctl daemon-reload; systemctl reload nginx; "
        "userdel other_app; true' 2>&1"
    )


@pytest.mark.parametrize("umask", ["0027", "0077"])
def test_a_hardened_umask(host, play, other_app, tmp_path, umask):
    """sudo gives root the umask that a hardening guide wants; the app and nginx have to read what we write all the same."""
    first = artifact("other_app-0.1.0")
    second = variant(first, str(tmp_path / "second.tar.gz"))
    site = Site(18180, "other.test")
    hardened = f"echo 'Defaults umask={umask}, umask_override' | sudo tee /etc/sudoers.d/hardened && sudo chmod 440 /etc/sudoers.d/hardened"
    with broken(host, hardened, "sudo rm /etc/sudoers.d/hardened"):
        play("deploy", other_app, {"bluegreen_artifact": first})
        with Client(site) as client:
            play("deploy", other_app, {"bluegreen_artifact": second})
            play("canary", other_app, "percent=50")
            seen = {site.get(headers={"User-Agent": f"visitor {number}"}).json()["color"] for number in range(60)}
            assert seen == {"blue", "green"}
            play("promote", other_app)
            play("rollback", other_app)
        assert client.failed == []
        play("maintenance", other_app, "state=on")
        assert site.get("/").status_code == 503
        play("maintenance", other_app, "state=off")
        assert site.get("/").status_code == 200


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


@pytest.mark.parametrize("rule", RULES)
def test_rules_for_visitors(host, play, other_app, tmp_path, rule):
    """Our own proof asks where they do not apply, so a promote and a rollback work, and no traffic moves in vain."""
    snippet, shown, others_get = RULES[rule]
    host.check_output("echo 'me:{PLAIN}secret' | sudo tee /etc/nginx/visitors")
    other_app = {
        **other_app,
        "bluegreen_nginx_server": snippet,
        "bluegreen_smoke": [{"path": "/", "contains": "color"}],
    }
    first = artifact("other_app-0.1.0")
    site = Site(18180, "other.test")
    play("deploy", other_app, {"bluegreen_artifact": first})
    assert site.get("/").status_code == others_get
    site.headers = {**site.headers, **shown}
    with Client(site) as client:
        play("deploy", other_app, {"bluegreen_artifact": variant(first, str(tmp_path / "second.tar.gz"))})
        play("promote", other_app)
        assert site.get("/").json()["color"] == "green"
        play("rollback", other_app)
        run = play("status", other_app, "strict=true")
    assert client.failed == []
    assert site.get("/").json()["color"] == "blue"
    if rule == "a redirect":
        run.says(
            "turn away what is not a visitor (301 to https://other.test/deployment_id at 127.0.0.1:80 for other.test)"
        )


def test_client_certificates(host, play, other_app, tmp_path):
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
            return requests.get(
                "https://127.0.0.1:18143/", headers={"Host": "other.test"}, verify=False, timeout=10, **kwargs
            )

    assert ask().status_code == 400 and ask(cert=str(tmp_path / "client.pem")).json()["color"] == "green"
    play("rollback", other_app)
    assert ask(cert=str(tmp_path / "client.pem")).json()["color"] == "blue"


def test_a_domain_that_another_site_has_taken_meanwhile(host, play, other_app, tmp_path):
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


@pytest.mark.parametrize("mode", ["0750", "0711"])
def test_a_root_below_a_home(host, play, other_app, tmp_path, mode):
    """Hoster and hardening guide close homes: nginx then sees no file of ours, and would always send to blue."""
    other_app = {**other_app, "bluegreen_root": "/home/someone/other_app"}
    made = f"sudo mkdir -p /home/someone && sudo chmod {mode} /home/someone"
    with broken(host, made, "sudo systemctl stop other_app@blue other_app@green; sudo rm -rf /home/someone"):
        first = artifact("other_app-0.1.0")
        if mode == "0750":
            run = play("deploy", other_app, {"bluegreen_artifact": first}, rc=2)
            run.says("nginx does not see /home/someone/other_app", "cannot enter /home/someone (0750)", "chmod o+x")
            assert not host.file("/etc/nginx/conf.d/other_app.conf").exists
            assert host.run("pgrep -u other_app").rc != 0
            return
        play("deploy", other_app, {"bluegreen_artifact": first})
        second = {"bluegreen_artifact": variant(first, str(tmp_path / "second.tar.gz")), "bluegreen_promote": True}
        play("deploy", other_app, second)
        assert Site(18180, "other.test").get("/").json()["color"] == "green"
        play("rollback", other_app)
        host.check_output("sudo chmod 0750 /home/someone")
        play("promote", other_app, "color=green", rc=2).says("cannot be checked")


CERTBOT = r"""
set -e
site=/etc/nginx/conf.d/other_app.conf
lines='    listen 443 ssl; # managed by Certbot\n    ssl_certificate /etc/ssl/other.pem; # managed by Certbot\n'
lines="$lines    ssl_certificate_key /etc/ssl/other.key; # managed by Certbot\n"
openssl req -x509 -newkey rsa:2048 -nodes -keyout /etc/ssl/other.key -out /etc/ssl/other.pem -subj /CN=other.test -days 9 2>/dev/null
# As certbot --nginx: https into the server that has the name, its plain port into a server of its own.
sed -i -e "0,\|^  listen 80;|s||$lines|" -e '0,/^  listen \[::\]:80;/s///' $site
printf '%s\n' 'server {' '    if ($host = other.test) { return 301 https://$host$request_uri; } # managed by Certbot' \
  '    listen 80;' '    server_name other.test;' '    return 404; # managed by Certbot' '}' >>$site
nginx -t && nginx -s reload && sleep 1
"""


def test_a_site_that_certbot_has_edited(host, play, other_app, tmp_path):
    first = artifact("other_app-0.1.0")
    site = Site(18180, "other.test")
    play("deploy", other_app, {"bluegreen_artifact": first})
    host.check_output(f"sudo bash -c {shlex.quote(CERTBOT)} 2>&1")
    edited = host.check_output("sudo cat /etc/nginx/conf.d/other_app.conf")
    assert site.get("/").status_code == 301

    def secure():
        with pytest.warns(match="Unverified HTTPS"):
            return requests.get("https://127.0.0.1:18143/", headers=site.headers, verify=False, timeout=10).json()

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


def test_an_app_that_forces_https_behind_a_load_balancer(host, play, site):
    """What the Phoenix generator writes: force_ssl with rewrite_on, and a health path that redirects like any other."""
    forced = {"bluegreen_env": {"SAMPLE_FORCE_SSL": "1"}, "bluegreen_trusted_proxies": ["172.16.0.0/12", "10.0.0.0/8"]}
    try:
        refused = play("deploy", {"bluegreen_artifact": OLD, "bluegreen_env": forced["bluegreen_env"]}, rc=2)
        refused.says("redirects /health to https", "force_ssl", "bluegreen_trusted_proxies if a load balancer ends TLS")
        play("deploy", {"bluegreen_artifact": NEW, **forced, "bluegreen_force": True, "bluegreen_promote": True})
        behind = Site(18180, "sample.test")
        behind.headers = {**behind.headers, **HTTPS}
        with Client(behind) as client:
            assert behind.get("/").status_code == 200
            play("deploy", {"bluegreen_artifact": OLD, **forced, "bluegreen_force": True})
            play("promote", forced)
            play("rollback", forced)
        assert client.failed == []
    finally:
        play("deploy", {"bluegreen_artifact": OLD, "bluegreen_promote": True, "bluegreen_force": True})


def test_a_live_slot_that_somebody_ends_comes_back(host, site):
    """SIGTERM from outside ends the VM with status 0, which is no failure to systemd."""
    unit = f"sample_app@{site.color()}"
    before = site.pid()
    host.check_output(f"sudo systemctl kill --kill-whom=main -s TERM {unit}")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        answer = site.get("/")
        if answer.status_code == 200 and answer.json()["pid"] != before:
            return
        time.sleep(0.2)
    raise AssertionError(host.run(f"systemctl status {unit}").stdout)


# --- accounts, places, memory ----------------------------------------------------------------------------------------


def main_pid(host, color):
    return host.check_output(f"systemctl show other_app@{color} -p MainPID --value").strip()


def test_an_account_and_a_root_that_are_there_already(host, play, other_app, tmp_path):
    """The app's name is an account's, the app is to run as another one, and its directory is a symlink to another file system."""
    first = artifact("other_app-0.1.0")
    made = (
        "sudo useradd --create-home other_app && sudo useradd --create-home --shell /bin/bash runner && "
        "sudo mkdir -p /data && sudo mount -t tmpfs -o exec none /data && sudo chmod 755 /data && sudo ln -s /data /opt/other_app"
    )
    gone = "sudo sh -c 'systemctl stop other_app@blue other_app@green; rm /opt/other_app; umount /data; userdel -r other_app; userdel -r runner' 2>&1"
    with broken(host, made, gone):
        run = play("deploy", other_app, {"bluegreen_artifact": first}, rc=2)
        run.says("already has a user other_app, whose home is /home/other_app", "bluegreen_user: other_app")
        assert not host.file("/etc/nginx/conf.d/other_app.conf").exists
        before = host.check_output("getent passwd runner")
        other_app = {**other_app, "bluegreen_user": "runner"}
        play("deploy", other_app, {"bluegreen_artifact": first})
        play(
            "deploy",
            other_app,
            {"bluegreen_artifact": variant(first, str(tmp_path / "second.tar.gz")), "bluegreen_promote": True},
        )
        play("rollback", other_app)
        assert host.check_output("getent passwd runner") == before
        assert host.check_output(f"stat -c %U /proc/{main_pid(host, 'blue')}") == "runner"
        assert (
            host.check_output(
                'sudo /opt/other_app/bin/other_app live rpc \'IO.puts(System.cmd("id", ["-un"]) |> elem(0))\''
            )
            == "runner"
        )
        assert play("setup", other_app).changed() == 0


def test_a_root_where_nothing_can_be_started(host, play, other_app):
    made = "sudo mkdir -p /srv/noexec && sudo mount -t tmpfs -o noexec none /srv/noexec"
    with broken(host, made, "sudo umount /srv/noexec"):
        run = play(
            "deploy",
            other_app,
            {"bluegreen_artifact": artifact("other_app-0.1.0"), "bluegreen_root": "/srv/noexec/app"},
            rc=2,
        )
        run.says("the file system of /srv/noexec/app is mounted noexec", "another bluegreen_root")
        assert host.run("id other_app").rc != 0


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


MEMINFO = "MemTotal: 524288 kB\\nMemAvailable: {} kB\\n"


def fake_memory(host, kilobytes):
    made = (
        f"printf '{MEMINFO.format(kilobytes)}' | sudo tee /run/meminfo && sudo mount --bind /run/meminfo /proc/meminfo"
    )
    return broken(host, made, "sudo umount /proc/meminfo")


def test_a_small_host(host, play, other_app, tmp_path):
    first = artifact("other_app-0.1.0")
    second = {"bluegreen_artifact": variant(first, str(tmp_path / "second.tar.gz"))}
    other_app = {**other_app, "bluegreen_memory": {"max": "300M"}}
    play("deploy", other_app, {"bluegreen_artifact": first})
    assert host.check_output("systemctl show other_app@blue -p MemoryMax --value") == str(300 << 20)
    with fake_memory(host, 20000):
        run = play("deploy", other_app, second, rc=2)
        run.says(
            "there is not enough memory for two copies: blue holds", "and 19 MiB are free", "-e bluegreen_force=true"
        )
        assert host.run("readlink /opt/other_app/slots/green/release").rc != 0
        play("deploy", other_app, second, "bluegreen_force=true")

    def scores():
        return [host.check_output(f"cat /proc/{main_pid(host, color)}/oom_score_adj") for color in ("blue", "green")]

    # The kernel ends the one first that serves nobody, also after a crash.
    assert scores() == ["0", "500"]
    play("promote", other_app)
    assert scores() == ["500", "0"]
    before = main_pid(host, "blue")
    host.check_output(f"sudo kill -9 {before}")
    wait_until(lambda: main_pid(host, "blue") not in (before, "0") and scores() == ["500", "0"])
    wait_until(lambda: "blue: ended by itself and was restarted 1 times" in play("status", other_app, rc=any).says())


def wait_until(question, seconds=30):
    deadline = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def test_units_that_cannot_be_confined(host, play, other_app):
    """An unprivileged container has no mount namespaces; a path that is missing gives the same status."""
    first = {"bluegreen_artifact": artifact("other_app-0.1.0")}
    run = play(
        "deploy", other_app, first, {"bluegreen_writable": ["/var/lib/missing"], "bluegreen_health_timeout": 5}, rc=2
    )
    run.says("exit status 226", "bluegreen_hardening: container", "a path of bluegreen_writable does not exist")
    play("deploy", other_app, first, {"bluegreen_hardening": "container"})
    shown = host.check_output("systemctl show other_app@blue -p ProtectSystem -p NoNewPrivileges -p PrivateTmp")
    assert set(shown.split()) == {"ProtectSystem=no", "NoNewPrivileges=yes", "PrivateTmp=no"}
    assert Site(18180, "other.test").get("/").json()["color"] == "blue"


# --- what an app writes, and where it listens ------------------------------------------------------------------------


def test_places_that_an_app_writes_to(host, play, other_app, tmp_path):
    first = artifact("other_app-0.1.0")
    second = variant(first, str(tmp_path / "second.tar.gz"))

    def deploy(path, place, rc=0, **more):
        env = {"bluegreen_env": {"SAMPLE_WRITE": path}, "bluegreen_health_timeout": 5, **more}
        return play("deploy", other_app, {"bluegreen_artifact": place, **env}, rc=rc)

    made = "sudo install -d -m 777 /etc/other_app"
    with broken(host, made, "sudo rm -r /etc/other_app"):
        deploy("/etc/other_app/db", first, rc=2).says("cannot write to <SAMPLE_WRITE>: let it with bluegreen_writable")
        deploy("/etc/other_app/db", first, bluegreen_writable=["/etc/other_app"])
        assert host.check_output("sudo cat /etc/other_app/db") == "written"
    # Both slots, over releases.
    shared = {"bluegreen_shared": ["uploads"]}
    deploy("/opt/other_app/shared/uploads/log", second, **shared)
    deploy("/opt/other_app/shared/uploads/log", first, bluegreen_promote=True, bluegreen_force=True, **shared)
    play(
        "deploy",
        other_app,
        {"bluegreen_artifact": second, "bluegreen_promote": True, "bluegreen_force": True, **shared},
    )
    assert host.check_output("sudo cat /opt/other_app/shared/uploads/log").split() == ["written"] * 2
    assert host.check_output("sudo stat -c '%U %a' /opt/other_app/shared/uploads") == "other_app 750"
    assert 'BLUEGREEN_SHARED="/opt/other_app/shared"' in host.check_output("sudo cat /opt/other_app/slots/green/env")


@pytest.mark.parametrize(
    ("listen", "says"),
    [
        ("9555", "It listens on 127.0.0.1:9555 and not on port 6400. Does runtime.exs read PORT?"),
        ("none", "It listens on no TCP port"),
    ],
)
def test_an_app_that_listens_elsewhere(play, other_app, listen, says):
    variables = {"bluegreen_env": {"SAMPLE_LISTEN": listen}, "bluegreen_health_timeout": 4}
    play("deploy", other_app, {"bluegreen_artifact": artifact("other_app-0.1.0"), **variables}, rc=2).says(says)


def test_ports_of_an_app(host, play, other_app, tmp_path):
    """One that the network reaches past nginx is said; a second one has to differ between the slots."""
    first = artifact("other_app-0.1.0")
    second, third = (variant(first, str(tmp_path / f"{name}.tar.gz")) for name in ("second", "third"))
    env = {
        "bluegreen_env": {"SAMPLE_LISTEN": "any", "SAMPLE_METRICS_PORT": 9568, "POOL": 7},
        "bluegreen_health_timeout": 5,
    }
    said = play("deploy", other_app, env, {"bluegreen_artifact": first}).says(
        "port 6400 is open to the network, past nginx"
    )
    assert "In runtime.exs: http: [ip: {127, 0, 0, 1}, port: port]" in said and "consistent" in said
    play("status", other_app, "strict=true").says("port 6400 is open to the network")
    run = play("deploy", other_app, env, {"bluegreen_artifact": second}, rc=2)
    run.says("blue has port 9568 already", "bluegreen_env_blue and bluegreen_env_green")
    env["bluegreen_env_blue"] = {"SAMPLE_METRICS_PORT": 9570}
    env["bluegreen_env_green"] = {"SAMPLE_METRICS_PORT": 9569}
    env["bluegreen_promote"] = True
    play("deploy", other_app, env, {"bluegreen_artifact": second})

    def names(color):
        text = host.check_output(f"sudo grep -h -E 'METRICS|POOL' /opt/other_app/slots/{color}/env")
        return sorted(text.replace('"', "").split())

    assert names("green") == ["POOL=7", "SAMPLE_METRICS_PORT=9569"]
    # What was live in green goes back into green, with its port.
    play("deploy", other_app, env, {"bluegreen_artifact": third})
    play(
        "deploy",
        other_app,
        env,
        {"bluegreen_artifact": variant(first, str(tmp_path / "fourth.tar.gz")), "bluegreen_promote": False},
    )
    host.check_output("sudo test -e /opt/other_app/former")
    play("rollback", other_app)
    assert names("green") == ["POOL=7", "SAMPLE_METRICS_PORT=9569"] and names("blue") == [
        "POOL=7",
        "SAMPLE_METRICS_PORT=9570",
    ]
    assert host.check_output("ss -ltn | grep -c -E ':95(69|70)'") == "2"
    # The same again is the same environment, whichever slot it is in.
    play("deploy", other_app, env, {"bluegreen_artifact": second, "bluegreen_force": True}).says("already live")


def test_names_and_who_asks_for_them(host, play, other_app):
    """A long name needs more of nginx than its default; a load balancer that checks by address asks for no name at all."""
    name = "a-name-that-is-longer-than-forty-seven-characters.of.other.test"
    play("deploy", other_app, {"bluegreen_artifact": artifact("other_app-0.1.0"), "bluegreen_domain": name})
    assert Site(18180, name).get("/").json()["color"] == "blue"
    by_address = Site(18180, "10.0.0.7")
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


def test_an_expression_beside_the_slot_serves_nobody(host, play, other_app):
    tell = 'IO.inspect({System.get_env("PHX_SERVER"), System.get_env("PORT"), File.exists?(System.get_env("BLUEGREEN_LIVE_FILE"))})'
    first = {"bluegreen_artifact": artifact("other_app-0.1.0")}
    run = play("deploy", other_app, first, {"bluegreen_migrate": True, "bluegreen_migrate_command": tell})
    run.says('{nil, "0", false}')
    assert host.check_output(f"sudo /opt/other_app/bin/other_app live eval {shlex.quote(tell)}") == '{nil, "0", false}'
    assert (
        host.check_output(f"sudo /opt/other_app/bin/other_app live rpc {shlex.quote(tell)}") == '{"true", "6400", true}'
    )
    assert '"other_app_blue@' in play("rpc", other_app, {"expr": "Node.self() |> to_string()"}).says()
    assert "\n  hello\n" in play("rpc", other_app, {"expr": 'IO.puts("hello")'}).text
