# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Apps as they are written: they force https, write to the disk, listen elsewhere, and end by themselves."""

from __future__ import annotations

import io
import json
import re
import shlex
import tarfile
import threading

import pytest
from support.bluegreen import Client, artifact, broken, variant, wait_until
from support.machines import reboot


def test_an_app_that_forces_https_behind_a_load_balancer(play, site, other_app, tmp_path):
    """What the Phoenix generator writes: force_ssl with rewrite_on, and a health path that redirects like any other."""
    first = artifact("other_app-0.1.0")
    other_app = {**other_app, "bluegreen_env": {"SAMPLE_FORCE_SSL": "1"}}
    refused = play("deploy", other_app, {"bluegreen_artifact": first}, rc=2)
    refused.says("redirects /health to https", "force_ssl", "bluegreen_trusted_proxies if a load balancer ends TLS")
    other_app["bluegreen_trusted_proxies"] = ["172.16.0.0/12", "10.0.0.0/8"]
    play("deploy", other_app, {"bluegreen_artifact": first})
    site.headers = {**site.headers, "X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}
    with Client(site) as client:
        assert site.get("/").status_code == 200
        play("deploy", other_app, {"bluegreen_artifact": variant(first, str(tmp_path / "second.tar.gz"))})
        play("promote", other_app)
        play("rollback", other_app)
    assert client.failed == []


def test_a_live_slot_that_somebody_ends_comes_back(host, play, site, other_app):
    """SIGTERM from outside ends the VM with status 0, which is no failure to systemd."""
    play("deploy", other_app, {"bluegreen_artifact": artifact("other_app-0.1.0")})
    before = site.pid()
    host.check_output("sudo systemctl kill --kill-whom=main -s TERM other_app@blue")
    wait_until(lambda: site.get("/").status_code == 200 and site.pid() != before)


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


# Run by the app, within what its unit allows: the numbers of one slot into a database that the other one has open too.
_INSERT = """
import os, sqlite3
db = sqlite3.connect(os.environ["BLUEGREEN_SHARED"] + "/db/notes.db", timeout=20, isolation_level=None)
db.execute("pragma journal_mode=wal")
db.execute("create table if not exists notes (slot text)")
for _number in range(int(os.environ["COUNT"])):
    db.execute("insert into notes values (?)", (os.environ["BLUEGREEN_COLOR"],))
print(sorted(db.execute("select slot, count(*) from notes group by slot").fetchall()))
"""


@pytest.mark.long
def test_both_slots_write_to_one_sqlite_database(host, play, site, other_app, tmp_path):
    """In the WAL mode, at the same time; nothing of it is lost by a promote, a rollback, or a reboot."""
    other_app = {**other_app, "bluegreen_shared": ["db"]}
    first = artifact("other_app-0.1.0")
    play("deploy", other_app, {"bluegreen_artifact": first})
    play("deploy", other_app, {"bluegreen_artifact": variant(first, str(tmp_path / "second.tar.gz"))})

    def insert(color, count):
        script = json.dumps(_INSERT).replace("#", "\\#")
        words = (
            f'elem(System.cmd("python3", ["-c", {script}], env: [{{"COUNT", "{count}"}}], stderr_to_stdout: true), 0)'
        )
        return play("rpc", other_app, {"expr": f"IO.puts({words})", "color": color}).text

    both = [threading.Thread(target=insert, args=(color, 300)) for color in ("blue", "green")]
    for one in both:
        one.start()
    for one in both:
        one.join()
    play("promote", other_app)
    assert "[('blue', 300), ('green', 301)]" in insert("green", 1)
    play("rollback", other_app)
    assert "[('blue', 301), ('green', 301)]" in insert("blue", 1)
    reboot("bluegreen-world1", "systemctl is-active ssh && curl -fsS localhost:6400/health")
    assert "[('blue', 301), ('green', 301)]" in insert("blue", 0)


@pytest.mark.long
def test_a_shared_directory_that_leads_elsewhere(host, play, other_app):
    other_app = {**other_app, "bluegreen_shared": ["uploads"], "bluegreen_artifact": artifact("other_app-0.1.0")}
    host.check_output(
        "sudo sh -c 'mkdir -p /opt/other_app/shared /srv/elsewhere; ln -sfn /srv/elsewhere /opt/other_app/shared/uploads'"
    )
    run = play("deploy", other_app, rc=2)
    assert "/opt/other_app/shared/uploads already exists as a link" in run.says()
    assert host.check_output("stat -c %U /srv/elsewhere") == "root"
    host.check_output("sudo rm /opt/other_app/shared/uploads")
    play("deploy", other_app)


@pytest.mark.long
def test_an_app_that_listens_elsewhere(play, other_app):
    for listen, says in (
        ("9555", "It listens on 127.0.0.1:9555 and not on port 6400. Does runtime.exs read PORT?"),
        ("none", "It listens on no TCP port"),
    ):
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


def test_nothing_but_nginx_is_reachable(host, play, other_app):
    """Not the port mapper, not the nodes, and not the app either; and nobody asks what the host is called."""
    play("deploy", other_app, {"bluegreen_artifact": artifact("other_app-0.1.0")})
    places = {line.split()[3] for line in host.check_output("ss -ltnH").splitlines()}
    reachable = {place for place in places if not place.startswith(("127.", "[::1]"))}
    assert {place.rpartition(":")[2] for place in reachable} == {"22", "80"}
    nodes = host.check_output("sudo /opt/other_app/slots/blue/release/erts-*/bin/epmd -names")
    assert "name other_app_blue at port" in nodes and "127.0.0.1:4369" in places
    with broken(host, "sudo hostname not-in-any-dns", "sudo hostname bluegreen-world1"):
        play("rpc", other_app, {"expr": "Node.self()"}).says(':"other_app_blue@127.0.0.1"')
        play("migrate", other_app, {"bluegreen_migrate_command": 'IO.puts("migrated")'}).says("migrated")
        command = "sudo /opt/other_app/bin/other_app live remote"
        assert command in play("console", other_app).text
        assert "other_app_blue@127.0.0.1" in host.check_output(f"echo 'node()' | {command} 2>&1")


def with_env_sh(path, text):
    """The release of the other app with an env.sh of the user's own. Returns its path."""
    with tarfile.open(artifact("other_app-0.1.0")) as source, tarfile.open(path, "w:gz") as target:
        for member in source.getmembers():
            stream = source.extractfile(member) if member.isreg() else None
            if member.name.endswith("releases/0.1.0/env.sh"):
                member.size, stream = len(text), io.BytesIO(text.encode())
            target.addfile(member, stream)
    return str(path)


@pytest.mark.long
def test_what_env_sh_says_of_the_node(host, play, site, other_app, tmp_path):
    play("deploy", other_app, {"bluegreen_artifact": artifact("other_app-0.1.0")})
    good = (
        'export RELEASE_NODE="${RELEASE_NODE:-mine}"\nexport ERL_AFLAGS="$ERL_AFLAGS -kernel shell_history enabled"\n'
    )
    play("deploy", other_app, {"bluegreen_artifact": with_env_sh(tmp_path / "good.tar.gz", good)})
    before = host.check_output(
        "sudo readlink /opt/other_app/slots/green/release; sudo sha256sum /opt/other_app/slots/green/env"
    )
    for number, (line, name) in enumerate(
        {
            "export RELEASE_COOKIE=s3cret-cookie": "RELEASE_COOKIE",
            "export RELEASE_NODE=${BLUEGREEN_COLOR}@10.0.0.1": "RELEASE_NODE",
            "export RELEASE_DISTRIBUTION=none": "RELEASE_DISTRIBUTION",
            'export ERL_AFLAGS="-proto_dist inet6_tcp"': "ERL_AFLAGS",
        }.items()
    ):
        bad = with_env_sh(tmp_path / f"{number}.tar.gz", f"#!/bin/sh\n{line}\n")
        run = play("deploy", other_app, {"bluegreen_artifact": bad}, rc=2)
        run.says(
            "line 2 of env.sh in 0.1.0-", f"sets {name}, which belongs to the slot", "Take it out of rel/env.sh.eex"
        )
        assert "s3cret-cookie" not in run.text
    after = host.check_output(
        "sudo readlink /opt/other_app/slots/green/release; sudo sha256sum /opt/other_app/slots/green/env"
    )
    assert after == before and site.color() == "blue"


def test_what_the_slots_logged_and_how_their_environments_differ(host, play, site, other_app, tmp_path):
    first = artifact("other_app-0.1.0")
    secret = {"DATABASE_URL": "ecto://app:s3cret-p4ssword@db.internal/app"}
    play("deploy", other_app, {"bluegreen_artifact": first, "bluegreen_env": {**secret, "POOL_SIZE": "10"}})
    second = {"bluegreen_artifact": variant(first, str(tmp_path / "second.tar.gz"))}
    play("deploy", other_app, second, {"bluegreen_env": {**secret, "POOL_SIZE": "12", "NEW": "1"}})

    run = play("env", other_app)
    lines = [" ".join(line.split()) for line in run.text.splitlines()]
    assert "bluegreen-world1: blue live and green idle" in lines
    assert {"DATABASE_URL same", "HOME same", "POOL_SIZE differs", "NEW only in green"} <= set(lines)
    assert "s3cret" not in run.text and run.changed() == 0

    host.check_output(
        "sudo /opt/other_app/bin/other_app green rpc 'require Logger; Logger.warning(System.get_env(~s(DATABASE_URL)))'"
    )
    wait_until(lambda: "<DATABASE_URL>" in play("logs", other_app, "color=idle", "grep=DATABASE").text)
    both = play("logs", other_app, "since=1h")
    assert "s3cret" not in both.text and both.changed() == 0
    logged = re.findall(r"^ +(\S+Z)  bluegreen-world1  (blue|green)  (.*)$", both.text, re.MULTILINE)
    assert [at for at, _color, _text in logged] == sorted(at for at, _color, _text in logged)
    assert {color for _at, color, _text in logged} == {"blue", "green"}
    assert set(re.findall("  (blue|green)  ", play("logs", other_app, "color=live").text)) == {"blue"}
    both.says("to follow: ssh", "journalctl -f -u other_app@blue", "journalctl -f -u other_app@green")
    play("logs", other_app, "since=1h", "grep=nobody-logs-this").says("nothing was logged")
    play("logs", other_app, "since=soon", rc=2).says(
        "since must be a whole number with s, m, h or d, such as 10m (got 'soon')"
    )
    play("logs", other_app, "color=red", rc=2).says("color must be blue or green")
