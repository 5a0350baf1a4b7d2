# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each variable does what it says: set to something else than its default, and something else is seen on the host."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time

import pytest
import requests
from support.bluegreen import PLAIN, Client, Site, artifact, broken, playbook, squatting, variant

INVENTORY = os.environ["MOLECULE_INVENTORY_FILE"]
ROOT = "/opt/sample_app"
FORCE = {"bluegreen_force": True}
OLD, NEW = artifact("sample_app-0.1.0"), artifact("sample_app-0.1.1")


def other(color):
    return {"blue": "green", "green": "blue"}[color]


@pytest.fixture(scope="module", autouse=True)
def known_state(host):
    """0.1.0 is live, 0.1.1 is idle and has not been live."""
    del host
    playbook(INVENTORY, "deploy", {"bluegreen_artifact": OLD, "bluegreen_promote": True, **FORCE})
    playbook(INVENTORY, "deploy", {"bluegreen_artifact": NEW, **FORCE})


@pytest.fixture(scope="module")
def clean(host):
    """Nothing of other_app, whatever ran before."""
    forget(host, "other_app")


def forget(host, app):
    host.check_output(
        f'sudo sh -c \'systemctl stop "{app}*"; rm -rf /opt/{app} /srv/{app} /etc/ansible/facts.d/{app}.fact /etc/nginx/conf.d/{app}.conf '
        f"/etc/systemd/system/{app}* /etc/systemd/system/*.wants/{app}*; systemctl daemon-reload; systemctl reload nginx; userdel {app}; true' 2>&1"
    )


def app(number, **more):
    """Another app on the host, with ports of its own."""
    return {
        "bluegreen_app": "other_app",
        "bluegreen_domain": "other.test",
        "bluegreen_ports": {"blue": 6000 + number, "green": 7000 + number},
        "bluegreen_artifact": artifact("other_app-0.1.0"),
        **more,
    }


def inside(host, words):
    return host.run(f"curl -sS -m 5 {words}").stdout


# --- the environment ---------------------------------------------------------------------------------------------------


def test_env_file(host, play, tmp_path):
    path = tmp_path / ".env"
    path.write_text("# of the developer\nexport A_FILE='of the file'\nBOTH=the-file-says-this\n")
    goal = {
        "bluegreen_artifact": NEW,
        "bluegreen_env_file": str(path),
        "bluegreen_env": {"BOTH": "the-mapping"},
        **FORCE,
    }
    run = play("deploy", goal, "--diff", verbose="-vvv")
    idle = json.loads(host.check_output("cat /etc/ansible/facts.d/sample_app.fact"))["live"]
    tell = 'IO.puts(System.get_env("A_FILE") <> "/" <> System.get_env("BOTH"))'
    assert host.check_output(f"sudo {ROOT}/bin/sample_app {other(idle)} rpc '{tell}'") == "of the file/the-mapping"
    assert "of the file" not in run.text and "the-file-says-this" not in run.text


def test_a_rollback_goes_to_the_environment_that_was_live_before(host, site, play):
    """Two deploys of the live release with other environments, never promoted, are not what was live before."""

    def deploy(number, **more):
        env = {"SECRET_KEY_BASE": "k" * 20, "NUMBER": str(number)}
        return play("deploy", {"bluegreen_artifact": OLD, "bluegreen_env": env, **FORCE, **more})

    def number(color):
        return host.check_output(f"sudo {ROOT}/bin/sample_app {color} rpc 'IO.puts(System.get_env(\"NUMBER\"))'")

    deploy(1, bluegreen_promote=True)
    play("deploy", {"bluegreen_artifact": NEW, "bluegreen_promote": True, **FORCE})
    deploy(1, bluegreen_promote=True)
    run = deploy(2, bluegreen_promote=True)
    assert number(site.color()) == "2" and "(~NUMBER)" in run.says()
    facts = json.loads(host.check_output("cat /etc/ansible/facts.d/sample_app.fact"))
    first = facts["previous"]["env"]
    assert facts["previous"]["release"].startswith("0.1.0-") and len(first) == 12
    deploy(3)
    run = deploy(4)
    # They are told apart wherever they are named, and by name alone.
    slots = json.loads(host.check_output("cat /etc/ansible/facts.d/sample_app.fact"))["slots"]
    live, idle = slots[site.color()], slots[other(site.color())]
    assert live["release"] == idle["release"] and live["env"] != idle["env"]
    assert f"env {live['env'][:4]} live healthy" in run.says() and f"env {idle['env'][:4]} idle healthy" in run.says()
    assert f"the environment of {other(site.color())} differs from the live one: ~NUMBER" in run.says()
    assert f"to go back to {facts['previous']['release']} env {first[:4]}: rollback.yml" in run.says()
    run = play("rollback")
    assert number(site.color()) == "1" and site.version() == "0.1.0"
    assert f"{facts['previous']['release']} env {first[:4]}" in run.says()
    assert f"env {live['env'][:4]} -> {site.color()} 0.1.0-" in play("status", "history=1").says()
    # And from there to the release before; of the environments that nothing goes back to, none is kept.
    play("rollback")
    assert site.version() == "0.1.1"
    kept = host.check_output(f"sudo ls {ROOT}/former").split()
    facts = json.loads(host.check_output("cat /etc/ansible/facts.d/sample_app.fact"))
    wanted = {f"{entry['release']}.{entry['env']}.env" for entry in facts["was_live"]}
    assert {name for name in kept if name.endswith(".env")} <= wanted


@pytest.mark.long
def test_what_is_deployed_again_with_consent_is_promoted_without_naming_it(site, play):
    play("deploy", {"bluegreen_artifact": NEW, "bluegreen_promote": True, **FORCE})
    play("deploy", {"bluegreen_artifact": OLD, "bluegreen_env": {"AGAIN": "1"}, "bluegreen_promote": True, **FORCE})
    play("rollback")
    goal = {"bluegreen_artifact": OLD, "bluegreen_env": {"AGAIN": "1"}}
    assert "was rolled back from" in play("promote", rc=2).says()
    assert "was rolled back from" in play("deploy", goal, rc=2).says()
    run = play("deploy", goal, FORCE)
    assert "rolled-back" not in run.says()
    play("promote")
    assert "AGAIN" in site.get("/env-names").text.split()


# --- health ------------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_health_status(host, play, clean):
    odd = app(1, bluegreen_health_path="/health", bluegreen_env={"SAMPLE_HEALTH_STATUS": "418"})
    run = play("deploy", {**odd, "bluegreen_health_timeout": 5}, rc=2)
    assert "was not healthy within 5 s: GET /health on port 6001: 418 as the test wants it" in run.says()
    odd["bluegreen_health_status"] = 418
    play("deploy", odd)
    odd["bluegreen_env"] = {**odd["bluegreen_env"], "TWO": "2"}
    play("deploy", odd)
    play("canary", {**odd, "percent": 1})
    play("promote", odd)
    assert Site(18180, "other.test").color() == "green"
    assert "consistent:" in play("status", {**odd, "strict": True}).says()
    play("rollback", odd)


@pytest.mark.long
def test_health_expr(host, play, clean):
    """Beside the health path: what the port does not tell, the node does."""
    forget(host, "other_app")
    goal = app(9, bluegreen_health_path="/health", bluegreen_health_timeout=5)
    for expr, said in (
        ("1 + 1 == 3", "was not healthy within 5 s: bluegreen_health_expr gives false"),
        (":starting", "bluegreen_health_expr gives :starting"),
        ('raise "the queues are not there"', "bluegreen_health_expr raises ** (RuntimeError) the queues are not there"),
    ):
        assert said in play("deploy", {**goal, "bluegreen_health_expr": expr}, rc=2).says()
    good = {
        **goal,
        "bluegreen_health_expr": 'Process.whereis(SampleApp.Jobs) != nil and System.get_env("BLUEGREEN_COLOR") != nil',
    }
    play("deploy", good)
    play("deploy", {**good, "bluegreen_env": {"TWO": "2"}})
    idle = {**good, "bluegreen_health_expr": 'System.get_env("BLUEGREEN_COLOR") == "blue"'}
    assert "bluegreen_health_expr gives false" in play("promote", idle, rc=2).says()
    assert "running but not healthy (bluegreen_health_expr gives false)" in play("status", idle).says()
    play("promote", good)
    assert "consistent:" in play("status", {**good, "strict": True}).says()
    forget(host, "other_app")


FLAPS = """#!/bin/sh
exec python3 -c '
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    count = 0
    def do_GET(self):
        Handler.count += 1
        self.send_response(200 if Handler.count % 2 else 503)
        self.end_headers()
    def log_message(self, *args):
        pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
'
"""


def test_one_good_answer_is_not_enough(play, tmp_path, clean, host):
    """A slot that is healthy every other time never answers twice in a row."""
    forget(host, "flaps")
    (tmp_path / "bin").mkdir()
    (tmp_path / "releases/1.0.0").mkdir(parents=True)
    (tmp_path / "bin/flaps").write_text(FLAPS)
    (tmp_path / "bin/flaps").chmod(0o755)
    (tmp_path / "releases/start_erl.data").write_text("0 1.0.0\n")
    (tmp_path / "releases/1.0.0/flaps.rel").touch()
    subprocess.run(["tar", "-czf", "flaps.tar.gz", "bin", "releases"], cwd=tmp_path, check=True)
    goal = app(2, bluegreen_app="flaps", bluegreen_domain="flaps.test", bluegreen_health_timeout=4)
    run = play("deploy", {**goal, "bluegreen_artifact": str(tmp_path / "flaps.tar.gz")}, rc=2)
    assert "was not healthy within 4 s" in run.says()


def test_a_switch_that_nginx_does_not_follow_is_taken_back(host, site, play):
    """The proof behind the rename: a site that looks elsewhere."""
    play("deploy", {"bluegreen_artifact": OLD, **FORCE})
    live = site.color()
    if live == "green":
        play("promote", "color=blue")
        live = "blue"
        play("deploy", {"bluegreen_artifact": NEW, **FORCE})
    before = host.check_output("cat /etc/ansible/facts.d/sample_app.fact")
    conf = "/etc/nginx/conf.d/sample_app.conf"
    host.check_output(f"sudo sed -i s,/live/,/nothing/, {conf} && sudo systemctl reload nginx && sleep 1")
    run = play("promote", "color=green", rc=2)
    assert "the switch to green was undone: /deployment_id says blue, not green" in run.says()
    assert os.path.basename(host.check_output(f"readlink {ROOT}/live")) == "blue"
    assert host.check_output("cat /etc/ansible/facts.d/sample_app.fact") == before
    play("setup", "bluegreen_force=true")
    assert site.color() == "blue"


# --- how long things may take --------------------------------------------------------------------------------------------


@pytest.mark.long
def test_stop_timeout(host, site, play):
    """Below the time that a request takes it is cut, above it the request gets its answer."""
    play("deploy", {"bluegreen_artifact": NEW, **FORCE})
    idle = other(site.color())
    port = {"blue": 4000, "green": 5000}[idle]
    for timeout, milliseconds, answered in ((2, 25000, False), (30, 14000, True)):
        play("setup", f"bluegreen_stop_timeout={timeout}")
        said = []
        asking = threading.Thread(
            target=lambda found=said, slow=milliseconds: found.append(
                host.run(f"curl -sS -m 30 'http://127.0.0.1:{port}/slow?ms={slow}'").rc
            )
        )
        asking.start()
        play("stop", f"color={idle}", f"bluegreen_stop_timeout={timeout}")
        asking.join()
        assert (said == [0]) == answered, (timeout, said)
        play("deploy", {"bluegreen_artifact": NEW, **FORCE})


# --- the site ------------------------------------------------------------------------------------------------------------


def test_body_size(site, play):
    def post(size):
        return requests.post(site.base + "/echo", b"x" * size, headers=site.headers, timeout=10).status_code

    # That nginx may not be installed is no matter where it is.
    play("setup", "bluegreen_body_size=1k", {"bluegreen_nginx_install": False})
    assert (post(500), post(2000)) == (200, 413)
    play("setup")
    assert (post(2000), post(9_000_000)) == (200, 413)


def test_nginx_location(site, play):
    play("setup", {"bluegreen_nginx_location": "add_header X-Mine yes always;"})
    build = f"{site.version()}-{site.get().json()['build']}"
    assert site.get("/").headers["X-Mine"] == site.get(f"/assets/app-{build}.js").headers["X-Mine"] == "yes"
    assert "X-Mine" not in site.get("/deployment_id").headers
    play("setup")
    assert "X-Mine" not in site.get("/").headers


@pytest.mark.long
def test_assets(site, play, tmp_path):
    """What the release before has is found below these paths, and below no others."""
    play("deploy", {"bluegreen_artifact": OLD, "bluegreen_promote": True, **FORCE})
    name = "/assets/app-0.1.0-1.js"
    path = variant(NEW, str(tmp_path / "new.tar.gz"))
    play("deploy", {"bluegreen_artifact": path, "bluegreen_promote": True, **FORCE})
    assert site.get(name).status_code == 200
    play("setup", {"bluegreen_assets": []})
    assert site.get(name).status_code == 404
    play("setup", {"bluegreen_assets": ["/static/", "/assets/"]})
    assert site.get(name).status_code == 200
    play("setup")
    play("rollback")


def test_trusted_proxies(host, site, play):
    says = "-H 'Host: sample.test' -H 'X-Forwarded-For: 203.0.113.9' -H 'X-Forwarded-Proto: https' http://127.0.0.1/headers"
    play("setup", {"bluegreen_trusted_proxies": ["127.0.0.0/8"]})
    told = inside(host, says)
    for line in ("x-real-ip: 203.0.113.9", "x-forwarded-proto: https", "x-forwarded-port: 443"):
        assert line in told, told
    # Somebody else who says so is not believed.
    stranger = site.get("/headers", headers={"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}).text
    assert "x-forwarded-proto: http\n" in stranger and "x-real-ip: 203.0.113.9" not in stranger
    play("setup")
    assert "x-forwarded-proto: http\n" in inside(host, says)


@pytest.mark.long
def test_listen(host, play, clean):
    """Where nginx listens, and where our own questions go; changed in the inventory, the old address is asked until set-up."""
    forget(host, "other_app")
    where = app(3, bluegreen_listen="127.0.0.1:8081")
    play("deploy", where)
    play("deploy", {**where, "bluegreen_env": {"TWO": "2"}})
    play("promote", where)
    ask = "-H 'Host: other.test' http://%s/deployment_id"
    assert inside(host, ask % "127.0.0.1:8081") == "green"
    node = "-H 'Host: other.test' http://127.0.0.1:%s/"
    assert "other_app_green" in inside(host, node % 8081) and "other_app" not in inside(host, node % 80)
    moved = {**where, "bluegreen_listen": "8082"}
    run = play("status", {**moved, "strict": True})
    assert "bluegreen_listen (8082) is not installed yet: the site has 127.0.0.1:8081" in run.says()
    play("setup", moved)
    assert inside(host, ask % "127.0.0.1:8082") == "green"
    # On IPv6 too, which the loopback of the test host may not have.
    assert "[::]:8082" in host.check_output("sudo ss -Hltn 'sport = :8082'")
    assert "consistent:" in play("status", {**moved, "strict": True}).says()


def test_tls_that_is_not_installed_yet(host, site, play):
    """In the inventory before set-up has run: what is there is asked, and what is not there yet is said."""
    tls = {"bluegreen_tls": {"certificate": "/etc/ssl/none.pem", "key": "/etc/ssl/none.key"}}
    run = play("status", {**tls, "strict": True})
    assert "bluegreen_tls (443) is not installed yet: the site has none. setup.yml, or the next deploy" in run.says()
    live = site.color()
    play("deploy", {"bluegreen_artifact": NEW, **FORCE})
    play("promote", {**tls, "color": other(live)})
    assert site.color() == other(live)
    play("rollback", tls)


# --- a second app --------------------------------------------------------------------------------------------------------


def test_the_ports_of_another_app_are_refused_by_its_name_before_anything_is_set_up(host, site, play, clean):
    """Its ports forgotten, its domain would have answered with the first app."""
    forget(host, "other_app")
    goal = app(0, bluegreen_ports={"blue": 4000, "green": 5000})
    with Client(site) as client:
        run = play("deploy", goal, rc=2)
    assert (
        "port 4000 belongs to sample_app on this host, for its blue. Choose another bluegreen_ports.blue for other_app."
        in run.says()
    )
    assert (
        client.failed == []
        and "stop" not in run.says().split("PLAY RECAP")[0].split("refused")[-1].split("port 4000")[-1]
    )
    untouched = "ls /etc/nginx/conf.d/other_app.conf; ls /opt/other_app; id other_app"
    assert host.run(untouched).stdout in ("", "history.jsonl\n")
    assert Site(18180, "other.test").get("/").text != site.get("/").text
    # A port of somebody who is no app of ours.
    with squatting(host, 6004):
        play("deploy", app(4), rc=2).says("port 6004 is taken by process", "(python3 of squatter)")
        assert host.run(untouched).stdout in ("", "history.jsonl\n")


def test_a_site_whose_slot_holds_nothing_never_answers_with_another_process(host, play, clean):
    forget(host, "other_app")
    play("setup", app(5))
    second = Site(18180, "other.test")
    with squatting(host, 6005):
        assert second.get("/").status_code == 503 and second.color() == "blue"
    play("deploy", app(5))
    assert second.get("/").status_code == 200
    # A first deploy that fails leaves it as it was.
    forget(host, "other_app")
    play("deploy", app(5, bluegreen_env={"SAMPLE_EXIT_AT_BOOT": "1"}), rc=2)
    assert second.get("/").status_code == 503
    assert not host.file("/opt/other_app/slots/blue/proven").exists


@pytest.mark.long
def test_root_and_facts_elsewhere(host, play, clean):
    forget(host, "other_app")
    goal = app(6, bluegreen_root="/srv/other_app", bluegreen_facts_dir="/srv/facts")
    play("deploy", goal)
    play("deploy", {**goal, "bluegreen_env": {"TWO": "2"}})
    play("promote", goal)
    assert host.check_output("readlink /srv/other_app/live") == "slots/green"
    assert json.loads(host.check_output("cat /srv/facts/other_app.fact"))["live"] == "green"
    assert host.run("ls /opt/other_app /etc/ansible/facts.d/other_app.fact").stdout == ""
    host.check_output("sudo rm -rf /srv/facts")
    forget(host, "other_app")


@pytest.mark.long
def test_one_directory_without_root(host, play):
    """The embedded default: the release's own daemon, an nginx of our own, and nothing outside of one directory."""
    forget(host, "other_app")
    home = "/home/deploy/own"
    host.check_output(f"rm -rf {home}")
    own = {
        "bluegreen_app": "other_app",
        "bluegreen_domain": "own.test",
        "bluegreen_service_manager": "daemon",
        "bluegreen_root": f"{home}/app",
        "bluegreen_nginx_conf_dir": f"{home}/nginx",
        "bluegreen_facts_dir": f"{home}/facts",
        "bluegreen_listen": "127.0.0.1:18080",
        "bluegreen_ports": {"blue": 14000, "green": 15000},
        "bluegreen_artifact": artifact("other_app-0.1.0"),
        "bluegreen_health_path": "/health",
    }
    ask = "-H 'Host: own.test' http://127.0.0.1:18080"
    try:
        play("deploy", own)
        play("deploy", {**own, "bluegreen_env": {"TWO": "2"}})
        play("promote", own)
        assert inside(host, f"{ask}/deployment_id") == "green"
        assert "consistent:" in play("status", {**own, "strict": True}).says()
        for path in ("app/live", "nginx/nginx.conf", "facts/other_app.fact"):
            assert host.file(f"{home}/{path}").exists and host.file(f"{home}/{path}").user == "deploy"
        outside = "/opt/other_app /etc/nginx/conf.d/other_app.conf /etc/ansible/facts.d/other_app.fact"
        assert host.run(f"ls -d {outside}").stdout == ""
        # One that fails gives the slot back, with the end of the log of run_erl.
        bad = {"SAMPLE_UNHEALTHY": "1", "THREE": "3"}
        run = play("deploy", {**own, "bluegreen_env": bad, "bluegreen_health_timeout": 5}, rc=2)
        assert "listening on port 14000" in run.says() and "blue holds" in run.says()
        play("rollback", own)
        assert inside(host, f"{ask}/deployment_id") == "blue"
        # What takes longer than a slot may take to stop is cut.
        said = []
        slow = "curl -sS -m 30 'http://127.0.0.1:15000/slow?ms=25000'"
        asking = threading.Thread(target=lambda: said.append(host.run(slow).rc))
        asking.start()
        time.sleep(1)
        play("stop", {**own, "color": "green", "bluegreen_stop_timeout": 2})
        asking.join()
        assert said != [0] and host.run("curl -s localhost:15000/health").rc != 0
    finally:
        host.run(f"pkill -u deploy beam.smp; kill $(cat {home}/nginx/nginx.pid)")


# --- artifacts -----------------------------------------------------------------------------------------------------------

SERVER = """
import base64, http.server
class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        wanted = "Basic " + base64.b64encode(b"user:t0ken").decode()
        if "sig=s1gnature" not in self.path:
            self.send_error(403)
        elif self.headers.get("Authorization") != wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic realm=artifacts")
            self.end_headers()
        else:
            super().do_GET()
http.server.HTTPServer(("127.0.0.1", 9100), Handler).serve_forever()
"""


@pytest.mark.long
def test_a_url_with_secrets_in_it(host, site, play, tmp_path):
    """They are sent, and shown nowhere; the version and the bytes have to be those that were named."""
    import hashlib

    path = variant(NEW, str(tmp_path / "a.tar.gz"))
    with open(path, "rb") as stream:
        sha256 = hashlib.sha256(stream.read()).hexdigest()
    host.check_output("sudo mkdir -p /srv/signed")
    (tmp_path / "s.py").write_text(SERVER)
    for name in ("a.tar.gz", "s.py"):
        subprocess.run(["docker", "cp", str(tmp_path / name), f"bluegreen-web1:/srv/signed/{name}"], check=True)
    host.check_output(
        "sudo systemd-run --unit=signed --quiet --working-directory=/srv/signed python3 /srv/signed/s.py; sleep 1"
    )
    try:
        url = "http://user:t0ken@127.0.0.1:9100/a.tar.gz?sig=s1gnature"
        goal = {"bluegreen_artifact": url, "bluegreen_artifact_checksum": f"sha256:{sha256}", **FORCE}
        before = host.check_output(f"ls -A {ROOT}/releases")
        run = play("deploy", {**goal, "bluegreen_version": "0.9.9"}, rc=2)
        assert "bluegreen_version must be the version of the artifact, 0.1.1 (got 0.9.9)" in run.says()
        assert host.check_output(f"ls -A {ROOT}/releases") == before
        text = play("deploy", goal, verbose="-vvv").text.replace(json.dumps(goal), "")
        assert f"0.1.1-{sha256[:8]}" in host.check_output(f"readlink {ROOT}/slots/*/release")
        journal = host.check_output("sudo journalctl --no-pager -q -o cat | grep 'Invoked with'")
        for secret in ("t0ken", "s1gnature"):
            assert secret not in text and secret not in journal
        run = play("deploy", {**goal, "bluegreen_version": "0.9.9"}, rc=2)
        assert "bluegreen_version must be the version of the artifact, 0.1.1 (got 0.9.9)" in run.says()
    finally:
        host.check_output("sudo systemctl stop signed")


@pytest.mark.long
def test_keep_releases(host, site, play, tmp_path):
    """So many beside those in the slots and the last one that was live."""

    def releases():
        return set(host.check_output(f"ls {ROOT}/releases").split())

    play("deploy", {"bluegreen_artifact": OLD, "bluegreen_promote": True, "bluegreen_keep_releases": 0, **FORCE})
    needed = len(releases())
    assert needed <= 3
    for number in range(3):
        path = variant(NEW, str(tmp_path / f"{number}.tar.gz"))
        play("deploy", {"bluegreen_artifact": path, "bluegreen_keep_releases": 1, **FORCE})
    assert len(releases()) in (needed + 1, needed + 2)
    goal = {"bluegreen_artifact": path, "bluegreen_keep_releases": 0, **FORCE}
    # What cannot be removed is said at the end; the deploy stands, and nobody waits for its lock.
    held = {os.path.basename(one) for one in host.check_output(f"readlink {ROOT}/slots/*/release").split()}
    stuck = " ".join(f"{ROOT}/releases/{one}" for one in releases() - held)
    with broken(host, f"for one in {stuck}; do sudo mount --bind $one $one; done", f"sudo umount {stuck}"):
        play("deploy", goal, rc=2).says("finishing: cleanup failed: ", "Device or resource busy")
    assert not host.file(f"{ROOT}/lock").exists and host.service(f"sample_app@{other(site.color())}").is_running
    play("deploy", goal)
    assert len(releases()) <= 3


def test_a_host_is_asked_once_what_it_has(host, site, play, tmp_path):
    """It told that when it was locked: one run installs a new release, and none one that is there."""

    def installs():
        count = (
            "sudo journalctl --no-pager -q -o cat -t ansible-beamops.bluegreen.release_install | grep -c 'Invoked with'"
        )
        return int(host.run(count).stdout or 0)

    path, before = variant(NEW, str(tmp_path / "once.tar.gz")), installs()
    play("deploy", {"bluegreen_artifact": path, **FORCE})
    assert installs() == before + 1
    play("deploy", {"bluegreen_artifact": path, **FORCE})
    assert installs() == before + 1


# --- what a rollback gets past -------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_rollback_goes_on_where_a_hook_or_the_app_says_no(site, play, tmp_path):
    """The way back must not depend on what it leaves; what went wrong is said in the end, and is the exit status."""
    bad = tmp_path / "bad.yml"
    bad.write_text("- name: Ask the webhook\n  ansible.builtin.fail:\n    msg: the webhook says no\n")
    for wrong, word in (
        ({"bluegreen_hooks": {"before_promote": [str(bad)]}}, "the webhook says no"),
        ({"bluegreen_on_idle": 'raise "queue is stuck"'}, "queue is stuck"),
    ):
        play(
            "deploy",
            {"bluegreen_artifact": NEW, "bluegreen_env": {"N": str(len(word))}, "bluegreen_promote": True, **FORCE},
        )
        left = site.color()
        run = play("rollback", wrong, rc=2)
        assert word in run.says() and site.color() == other(left)
        assert "Traffic is on the new slot and was not rolled back" in run.says()


def test_a_slot_that_was_told_to_be_idle_is_told_that_it_is_live_again(host, site, play):
    """Where the switch fails behind bluegreen_on_idle."""
    jobs = {"bluegreen_on_live": "SampleApp.Jobs.run()", "bluegreen_on_idle": "SampleApp.Jobs.pause()"}
    play("deploy", {"bluegreen_artifact": OLD, "bluegreen_env": {"JOBS": "1"}, **FORCE})
    live = site.color()
    play("rpc", {"expr": "SampleApp.Jobs.run()"})
    host.check_output(f"sudo mkdir {ROOT}/.live.new && sudo touch {ROOT}/.live.new/x")
    try:
        play("promote", {"color": other(live), **jobs}, rc=2)
    finally:
        host.check_output(f"sudo rm -r {ROOT}/.live.new || true")
    assert site.color() == live and site.get("/jobs").text == "running\n"


@pytest.mark.parametrize("verbose", [pytest.param("-v", marks=pytest.mark.long), "-vvvv"])
def test_a_run_whose_output_nobody_reads_comes_to_its_end(host, site, play, verbose):
    """As with `| head`: it goes on, holds its lock as long as it works, and ends."""
    goal = {"bluegreen_artifact": NEW, "bluegreen_env": {"HEAD": verbose}, **FORCE}
    words = ["ansible-playbook", "beamops.bluegreen.deploy", "-i", INVENTORY, "-e", json.dumps(goal), verbose]
    run = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0)
    # Before that, it is Ansible that ends, and nothing has begun.
    while b"Check the input" not in run.stdout.readline():
        pass
    run.stdout.close()
    assert run.wait(timeout=120) == 0
    assert not host.file(f"{ROOT}/lock").exists
    assert "HEAD" in host.check_output(f"sudo {ROOT}/bin/sample_app {other(site.color())} env-names").split()


def test_unlock_frees_at_once_what_a_dead_run_of_this_machine_left(host, play):
    """Though it is not stale: nobody else can know that."""
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as stream:
        machine = f"{stream.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    now = host.check_output("date -u +%Y-%m-%dT%H:%M:%SZ")
    lock = {"run": "x", "holder": "ann@laptop", "operation": "deploy", "since": now, "host": "bluegreen-web1"}
    dead = {"machine": machine, "pid": 999_999, "started": "1"}
    for controller, rc in (({**dead, "machine": "another"}, 2), (dead, 0)):
        host.check_output(f"echo '{json.dumps({**lock, 'controller': controller})}' | sudo tee {ROOT}/lock")
        run = play("unlock", rc=rc)
    assert "broke the lock" in run.says() and not host.file(f"{ROOT}/lock").exists


# --- the smaller playbooks -------------------------------------------------------------------------------------------------


def test_rpc(site, play):
    live = site.color()
    assert f"sample_app_{live}@" in play("rpc", {"expr": "IO.puts(node())"}).text
    assert f"sample_app_{other(live)}@" in play("rpc", {"expr": "IO.puts(node())", "color": other(live)}).text
    assert play("rpc", {"expr": ":ok"}).text.count("\n  :ok\n") == 1
    assert "no output" in play("rpc", {"expr": "IO.write([])"}).says()
    assert "Name the expression, as JSON" in play("rpc", rc=2).says()


@pytest.mark.long
def test_stop(host, site, play):
    idle = other(site.color())
    play("deploy", {"bluegreen_artifact": NEW, **FORCE})
    assert "Name the slot to stop, one that is not live" in play("stop", rc=2).says()
    play("stop", f"color={idle}", "--check")
    assert host.service(f"sample_app@{idle}").is_running
    assert play("stop", f"color={idle}").changed() == 1
    assert not host.service(f"sample_app@{idle}").is_running and play("stop", f"color={idle}").changed() == 0
    run = play("stop", f"color={site.color()}", rc=2)
    assert "stopping:" in run.says() and "The live slots keep running." in run.says()
    play("deploy", {"bluegreen_artifact": NEW, **FORCE})


@pytest.mark.long
def test_restart(host, site, play):
    """A slot that is not live by its color; the live one only by the word."""
    live, idle = site.color(), other(site.color())
    play("deploy", {"bluegreen_artifact": NEW, **FORCE})
    started = f"systemctl show -P MainPID sample_app@{idle}"
    before, ours = host.check_output(started), site.pid()
    assert "Name the slot to restart" in play("restart", rc=2).says()
    play("restart", f"color={idle}", "--check")
    assert host.check_output(started) == before
    with Client(site) as client:
        assert play("restart", f"color={idle}").changed() == 1
    assert host.check_output(started) != before and client.failed == [] and site.pid() == ours
    assert f"cannot restart {live}: it is live." in play("restart", f"color={live}", rc=2).says() and site.pid() == ours
    play("stop", f"color={idle}")
    play("restart", f"color={idle}")
    assert host.service(f"sample_app@{idle}").is_running
    play("restart", "color=live")
    assert site.pid() != ours and site.color() == live and site.get("/").status_code == 200
    assert " restart ok " in play("status", "history=1").says()


def test_status_in_doubt(host, site, play, tmp_path):
    live = site.color()
    host.check_output(f"sudo ln -sfn slots/{other(live)} {ROOT}/live")
    try:
        run = play("status", "strict=true", rc=2)
        assert "Some hosts are unreachable or inconsistent" in run.says()
        assert play("status").changed() == 0
        run = play("status", "history=20", "format=json", f"out={tmp_path}/status.json", "--check")
        assert f"written to {tmp_path}/status.json" in run.says() and " deploy ok " in run.says()
    finally:
        host.check_output(f"sudo ln -sfn slots/{live} {ROOT}/live")
    assert json.loads((tmp_path / "status.json").read_text())["in_doubt"]
    assert " deploy ok " not in play("status").says()


@pytest.mark.long
def test_a_lock_that_is_waited_for(host, play):
    """Waited for is a lock; whatever else is wrong will not pass by itself."""
    lock = {"run": "x", "holder": "ann@laptop", "operation": "deploy", "since": "2026-01-01T00:00:00Z"}
    host.check_output(f"echo '{json.dumps(lock)}' | sudo tee {ROOT}/lock")
    host.check_output(f"sudo systemd-run --quiet sh -c 'sleep 7; rm {ROOT}/lock'")
    began = time.monotonic()
    assert play("setup", "bluegreen_lock_wait=60").changed() == 0
    assert 5 < time.monotonic() - began < 40
    began = time.monotonic()
    play("setup", {"bluegreen_ports": {"blue": 4001, "green": 5001}, "bluegreen_lock_wait": 60}, rc=2)
    assert time.monotonic() - began < 20


@pytest.mark.long
def test_a_rollback_that_fails_gives_the_slot_back(host, site, play):
    """What was live before is put into the slot again, and does not answer where it should."""
    play("deploy", {"bluegreen_artifact": OLD, "bluegreen_promote": True, **FORCE})
    play("deploy", {"bluegreen_artifact": NEW, "bluegreen_env": {"N": "1"}, "bluegreen_promote": True, **FORCE})
    play("deploy", {"bluegreen_artifact": NEW, "bluegreen_env": {"N": "2"}, **FORCE})
    idle, live = other(site.color()), site.color()
    before = host.check_output(f"sudo sha256sum {ROOT}/slots/{idle}/env; readlink {ROOT}/slots/{idle}/release")
    wrong = {"bluegreen_health_path": "/assets/app-0.1.1-1.js", "bluegreen_health_timeout": 5}
    run = play("rollback", wrong, rc=2)
    assert (
        f"deploying: {idle} was not healthy within 5 s" in run.says() and "serves what it served before" in run.says()
    )
    assert site.color() == live
    after = host.check_output(f"sudo sha256sum {ROOT}/slots/{idle}/env; readlink {ROOT}/slots/{idle}/release")
    assert after == before and host.service(f"sample_app@{idle}").is_running
    # The switch that fails behind it does so too.
    host.check_output(f"sudo mkdir {ROOT}/.live.new && sudo touch {ROOT}/.live.new/x")
    try:
        play("rollback", rc=2)
    finally:
        host.check_output(f"sudo rm -r {ROOT}/.live.new")
    after = host.check_output(f"sudo sha256sum {ROOT}/slots/{idle}/env; readlink {ROOT}/slots/{idle}/release")
    assert after == before and site.color() == live
    assert "consistent:" in play("status", "strict=true").says()
    play("rollback")
    assert site.version() == "0.1.0"


def test_check_mode_of_all_that_may_be_asked_for(host, site, play, tmp_path):
    """What comes before and behind a switch is left out of a rehearsal, where the slots are not yet what they would be."""
    idle, live = other(site.color()), site.color()
    play("stop", f"color={idle}")
    jobs = site.get("/jobs").text
    asked = {
        "bluegreen_artifact": NEW,
        "bluegreen_env": {"CHECK": "1"},
        "bluegreen_promote": True,
        "bluegreen_on_live": 'raise "not in a rehearsal"',
        "bluegreen_on_idle": 'raise "not in a rehearsal"',
        "bluegreen_smoke": [{"path": "/health"}],
        "bluegreen_drain_timeout": 3,
        "bluegreen_stop_idle": True,
        "bluegreen_migrations_command": "IO.puts(1)",
    }
    before = host.check_output(
        f"sudo sh -c 'sha256sum {ROOT}/slots/*/env; cat /etc/ansible/facts.d/sample_app.fact; ls {ROOT}/former'"
    )
    play("deploy", asked, FORCE, "--check", "--diff")
    after = host.check_output(
        f"sudo sh -c 'sha256sum {ROOT}/slots/*/env; cat /etc/ansible/facts.d/sample_app.fact; ls {ROOT}/former'"
    )
    assert after == before and site.color() == live and site.get("/jobs").text == jobs
    play("deploy", {"bluegreen_artifact": NEW, **FORCE})


# --- set-up ----------------------------------------------------------------------------------------------------------------


def test_everything_that_set_up_does(host, play, clean):
    forget(host, "other_app")
    goal, root = app(7), "/opt/other_app"
    play("setup", goal, "--check", "--diff")
    assert host.run("id other_app; ls /etc/systemd/system/other_app@.service").stdout == ""
    play("setup", goal)
    user = host.user("other_app")
    assert (user.group, user.home, user.shell) == ("other_app", root, "/usr/sbin/nologin")
    assert user.uid < 1000 and host.group("other_app").gid < 1000
    wanted = {
        "": 0o755,
        "/bin": 0o755,
        "/releases": 0o755,
        "/slots/blue": 0o755,
        "/slots/green": 0o755,
        "/former": 0o700,
    }
    wanted.update({"/state": 0o755, "/state/blue": 0o750, "/state/green": 0o750})
    assert {path: host.file(root + path).mode for path in wanted} == wanted
    for color in ("blue", "green"):
        assert host.file(f"{root}/slots/{color}/is-{color}").mode == 0o644
        assert host.file(f"{root}/state/{color}").user == host.file(f"{root}/state/{color}").group == "other_app"
    assert host.check_output(f"readlink {root}/live") == "slots/blue"
    cookie = host.file(f"{root}/cookie")
    assert (cookie.user, cookie.group, cookie.mode, cookie.size) == ("root", "other_app", 0o640, 48)
    assert host.file(f"{root}/bin/other_app").mode == 0o755
    needs = "systemctl show -P NeedDaemonReload other_app@blue other_app-epmd"
    assert host.check_output(needs).split() == ["no", "no"]
    assert host.service("nginx").is_running and host.service("nginx").is_enabled
    first = host.check_output(f"sudo cat {root}/cookie")
    assert play("setup", goal).changed() == 0
    # What somebody edited is put right; what decides the traffic, and the cookie, stay.
    play("deploy", goal)
    play("deploy", {**goal, "bluegreen_env": {"TWO": "2"}, "bluegreen_promote": True})
    host.check_output(
        'sudo sh -c \'echo "# edited" >>/etc/systemd/system/other_app@.service; systemctl daemon-reload; '
        'echo "# edited" >>/etc/systemd/system/other_app-epmd.service; echo >>/opt/other_app/bin/other_app; '
        "systemctl disable nginx'"
    )
    assert not host.service("nginx").is_enabled
    assert play("setup", goal).changed() > 0
    assert "edited" not in host.check_output("cat /etc/systemd/system/other_app*") and host.check_output(
        needs
    ).split() == ["no", "no"]
    assert host.check_output(f"readlink {root}/live") == "slots/green" and host.service("nginx").is_enabled
    assert host.check_output(f"sudo cat {root}/cookie") == first
    assert play("setup", goal).changed() == 0


@pytest.mark.long
def test_a_role_by_itself(host, clean, tmp_path):
    """The roles in a playbook of somebody's own, without the playbooks of the collection around them."""
    forget(host, "other_app")
    path = tmp_path / "own.yml"

    def own(roles, variables, rc):
        named = "".join(f"    - role: beamops.bluegreen.{name}\n" for name in roles)
        path.write_text(f"- name: Own\n  hosts: bluegreen\n  become: true\n  gather_facts: false\n  roles:\n{named}")
        words = ["ansible-playbook", "-i", INVENTORY, str(path), "-e", json.dumps(variables)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, **PLAIN})
        said = " ".join((done.stdout + done.stderr).split())
        assert done.returncode == rc, said[-3000:]
        return said

    goal = app(8)
    for name in ("slot", "nginx", "release"):
        assert "bluegreen_domain" in own([name], {**goal, "bluegreen_domain": "no domain"}, 2)
    assert not host.file("/opt/other_app").exists
    own(["slot"], goal, 0)
    assert host.file("/opt/other_app/slots").is_directory
    forget(host, "other_app")
    own(["nginx", "release"], goal, 0)
    assert host.file("/opt/other_app/live").exists and host.file("/etc/nginx/conf.d/other_app.conf").exists
    assert host.check_output("ls /opt/other_app/releases").startswith("0.1.0-")
    bad = {**goal, "bluegreen_artifact": artifact("sample_app-0.1.1")}
    assert "is a release of sample_app, not of other_app" in own(["release"], bad, 2)
    forget(host, "other_app")
