# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people need around the switch: preview, smoke checks, canary, maintenance, former assets, jobs, hooks, drain, TLS."""

from __future__ import annotations

import contextlib
import os
import time

import pytest
import requests
from support.bluegreen import Client, Listener, artifact, wait_until
from support.webhook import webhook

ROOT = "/opt/sample_app"
TOKEN = "a-secret-for-the-preview"


@pytest.fixture(scope="module", autouse=True)
def known_state(host):
    """0.1.0 is live, 0.1.1 is idle and has not been live."""
    del host
    from support import bluegreen

    inventory = os.environ["MOLECULE_INVENTORY_FILE"]
    force = {"bluegreen_force": True}
    bluegreen.playbook(
        inventory, "deploy", {"bluegreen_artifact": artifact("sample_app-0.1.0"), "bluegreen_promote": True, **force}
    )
    bluegreen.playbook(inventory, "deploy", {"bluegreen_artifact": artifact("sample_app-0.1.1"), **force})


def other(color):
    return {"blue": "green", "green": "blue"}[color]


def reloads(host):
    """When the workers of nginx were started: another answer after a reload."""
    return host.check_output("pgrep -u www-data nginx | sort | tr '\\n' ' '")


def test_a_preview_of_the_idle_slot(host, site, play):
    live = site.color()
    secret = {"bluegreen_preview_token": TOKEN}
    before = reloads(host)
    run = play("setup", secret, verbose="-vvv")
    assert TOKEN not in run.text and reloads(host) == before
    assert play("setup", secret).changed() == 0
    for shown in ({"X-Bluegreen-Preview": TOKEN}, {"Cookie": f"bluegreen_preview={TOKEN}"}):
        assert site.get(headers=shown).json()["version"] == "0.1.1"
        assert site.get("/deployment_id", headers=shown).text == other(live)
    assert site.get(headers={"X-Bluegreen-Preview": TOKEN[:-1] + "x"}).json()["version"] == "0.1.0"
    # The secret is in no file that the app or anybody else may read, and in no log.
    assert host.run(f"sudo -u sample_app ls {ROOT}/preview").rc != 0
    assert host.run(f"sudo grep -rl {TOKEN} /etc {ROOT}").stdout == ""
    assert TOKEN not in host.check_output("sudo journalctl --no-pager -t ansible-beamops.bluegreen.nginx_site")
    play("setup")
    assert site.get(headers={"X-Bluegreen-Preview": TOKEN}).json()["version"] == "0.1.0"


@pytest.mark.parametrize(
    "token", ["short", "has $variables {and} braces", "semi;colon-semi;colon", "a" * 129, "new\nline-new-line-new"]
)
def test_a_preview_token_that_nginx_would_read_otherwise(play, token):
    run = play("setup", {"bluegreen_preview_token": token}, rc=2)
    run.says("bluegreen_preview_token must be 16 to 128 letters, digits, _ and -")
    assert token not in run.text


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ({"path": "/health", "status": 418}, "smoke: GET /health: 200, expected 418"),
        ({"path": "/", "contains": "no such text"}, "does not contain 'no such text'"),
        pytest.param(
            {"path": "/slow?ms=30000"}, "smoke: GET /slow?ms=30000: no answer in 10 s", marks=pytest.mark.long
        ),
        ({"path": "no path"}, "bluegreen_smoke.path must be a URL path that starts with / (got 'no path')"),
        ({"url": "/"}, "path and optionally status and contains"),
    ],
)
def test_a_smoke_check_that_fails_stops_the_promote(host, site, play, check, message):
    live = site.color()
    play("promote", f"color={other(live)}", {"bluegreen_smoke": [check]}, rc=2).says(message)
    assert site.color() == live
    assert host.check_output(f"sudo ls {ROOT}/preview") == ""


def test_a_canary(host, site, play):
    live, before = site.color(), reloads(host)

    def colors():
        return [site.get(headers={"User-Agent": f"visitor {number}"}).json()["color"] for number in range(200)]

    assert set(colors()) == {live}
    with Client(site) as client:
        run = play("canary", "percent=25")
        run.says(f"canary: 25 % of the visitors get {other(live)}")
        share = colors()
        assert 0.1 < share.count(other(live)) / 200 < 0.4 and colors() == share
        assert play("canary", "percent=25").changed() == 0
        play("canary", "percent=0")
        assert set(colors()) == {live}
        play("canary", "percent=100")
        assert set(colors()) == {other(live)} and site.color() == live
        play("promote", f"color={other(live)}")
        assert set(colors()) == {other(live)} and site.color() == other(live)
        # The canary ended with the promote: going back does not bring it back.
        play("rollback")
        assert set(colors()) == {live}
        # So does a deploy, which stops the slot that the visitors were sent to.
        play("canary", "percent=100")
        play("deploy", {"bluegreen_artifact": artifact("sample_app-0.1.1-rebuilt"), "bluegreen_force": True})
        assert set(colors()) == {live}
    assert client.failed == [] and reloads(host) == before


def test_a_rollback_does_not_depend_on_smoke_checks(site, play):
    live = site.color()
    play("promote", f"color={other(live)}")
    play("rollback", {"bluegreen_smoke": [{"path": "/of-the-new-release-only"}]})
    assert site.color() == live


@pytest.mark.parametrize("percent", ["-1", "101", "ten", "1.5"])
def test_a_percent_that_is_none(play, percent):
    play("canary", f"percent={percent}", rc=2).says(f"percent must be a whole number from 0 to 100 (got '{percent}')")


def test_nobody_is_sent_to_a_slot_that_is_not_healthy(site, play):
    idle = other(site.color())
    play("stop", f"color={idle}")
    play("canary", "percent=10", rc=2).says("is not healthy", "canary failed")
    play("canary", rc=2).says("Name the share of the visitors")
    play("deploy", {"bluegreen_artifact": artifact("sample_app-0.1.1"), "bluegreen_force": True})


def test_maintenance(host, site, play, tmp_path):
    before = reloads(host)
    page = tmp_path / "page.html"
    page.write_text("<h1>Gone fishing</h1>")
    play("maintenance", "state=on", f"bluegreen_maintenance_page={page}").says("closed for maintenance")
    answer = site.get("/any", headers={})
    assert (answer.status_code, answer.text, answer.headers["Retry-After"]) == (503, page.read_text(), "120")
    assert requests.post(site.base + "/echo", "x", headers=site.headers, timeout=10).status_code == 503
    assert site.get("/health").status_code == 200 and site.color() in ("blue", "green")
    # A switch behind the curtain is proven all the same.
    live = site.color()
    play("promote", f"color={other(live)}")
    assert site.color() == other(live) and site.get().status_code == 503
    play("rollback")
    run = play("maintenance", "state=off")
    assert site.get().status_code == 200 and run.changed() == 1 and reloads(host) == before
    assert play("maintenance", "state=off").changed() == 0
    play("maintenance", "state=maybe", rc=2).says("state must be on or off")


def test_assets_of_the_former_release(host, site, play):
    version = site.version()
    old = f"/assets/app-{version}-1.js"
    play("deploy", {"bluegreen_artifact": artifact("sample_app-0.1.1-rebuilt"), "bluegreen_force": True})
    assert site.get(old).status_code == 200 and site.get("/assets/app-0.1.1-2.js").status_code == 404
    play("promote", f"color={other(site.color())}")
    # A page that was loaded before the switch asks for what only the former release has.
    assert site.get("/assets/app-0.1.1-2.js").text == "// 0.1.1 build 2\n"
    assert site.get(old).text == f"// {version} build 1\n"
    play("stop", f"color={other(site.color())}")
    assert site.get(old).text == f"// {version} build 1\n"
    assert site.get("/assets/none.js").status_code == 404
    play("rollback")
    assert site.get(old).status_code == 200 and site.get("/assets/app-0.1.1-2.js").status_code == 200


JOBS = {"bluegreen_on_live": "SampleApp.Jobs.run()", "bluegreen_on_idle": "SampleApp.Jobs.pause()"}


def jobs(host, color):
    return host.run(f"curl -s http://127.0.0.1:{ {'blue': 4000, 'green': 5000}[color] }/jobs").stdout.strip()


def test_jobs_run_in_the_live_slot_only(host, site, play):
    play("deploy", {"bluegreen_artifact": artifact("sample_app-0.1.1"), "bluegreen_force": True})
    live = site.color()
    # The tests before had told nobody anything.
    play("promote", f"color={other(live)}", JOBS)
    play("rollback", JOBS)
    assert (jobs(host, live), jobs(host, other(live))) == ("running", "paused")
    # What stays live is told so once more, which changes nothing.
    assert play("promote", f"color={live}", JOBS).changed() == 0
    assert jobs(host, live) == "running"
    play("promote", f"color={other(live)}", JOBS)
    assert (jobs(host, live), jobs(host, other(live))) == ("paused", "running")
    # Also after a crash, when nobody is there to tell it.
    pid = site.pid()
    host.check_output(f"sudo kill -9 {pid}")
    deadline = time.monotonic() + 30
    while jobs(host, other(live)) != "running":
        assert time.monotonic() < deadline
        time.sleep(0.3)
    play("rollback", JOBS)
    assert (jobs(host, live), jobs(host, other(live))) == ("running", "paused")


def test_a_slot_that_cannot_be_told_that_it_will_be_idle_stays_live(host, site, play):
    live = site.color()
    run = play("promote", f"color={other(live)}", {**JOBS, "bluegreen_on_idle": 'raise "queue is stuck"'}, rc=2)
    run.says("bluegreen_on_idle", "queue is stuck", "serves what it served before")
    assert site.color() == live and jobs(host, live) == "running"


def test_a_slot_that_cannot_be_told_that_it_is_live_is_reported(host, site, play):
    live = site.color()
    run = play("promote", f"color={other(live)}", {**JOBS, "bluegreen_on_live": 'raise "no queue"'}, rc=2)
    run.says("bluegreen_on_live", "no queue", "Traffic is on the new slot and was not rolled back")
    assert site.color() == other(live)
    play("rollback", JOBS)
    assert site.color() == live


def test_hooks_of_your_own(site, play, tmp_path):
    log = tmp_path / "log"
    note = tmp_path / "note.yml"
    note.write_text(
        "- name: Note\n  ansible.builtin.shell: >-\n"
        "    echo {{ bluegreen_hook }} {{ bluegreen_operation }} {{ bluegreen_release or '-' }} {{ bluegreen_slot }} "
        f">>{log}\n  delegate_to: localhost\n  become: false\n  vars:\n    ansible_connection: local\n"
    )
    names = [f"{when}_{what}" for what in ("install", "start", "promote") for when in ("before", "after")]
    hooks = {"bluegreen_hooks": {name: [str(note)] for name in names}}
    goal = {
        "bluegreen_artifact": artifact("sample_app-0.1.1-rebuilt"),
        "bluegreen_promote": True,
        "bluegreen_force": True,
    }
    live = site.color()
    play("deploy", {**goal, **hooks})
    lines = [line.split() for line in log.read_text().splitlines()]
    assert [line[0] for line in lines] == names
    assert {line[1] for line in lines} == {"deploy"} and lines[-1][3] == other(live)
    assert lines[0][2] == "-" and lines[-1][2].startswith("0.1.1-")
    play("rollback")


@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(name, marks=pytest.mark.long) for name in ("before_install", "after_start")),
        "before_promote",
        "after_promote",
    ],
)
def test_a_hook_that_fails(host, site, play, tmp_path, name):
    bad = tmp_path / "bad.yml"
    bad.write_text("- name: Ask the webhook\n  ansible.builtin.fail:\n    msg: the webhook says no\n")
    goal = {"bluegreen_artifact": artifact("sample_app-0.1.0"), "bluegreen_promote": True, "bluegreen_force": True}
    goal["bluegreen_env"] = {"SECRET_KEY_BASE": "k", "HOOK": name}
    live, slots = site.color(), host.check_output(f"readlink {ROOT}/slots/blue/release {ROOT}/slots/green/release")
    run = play("deploy", {**goal, "bluegreen_hooks": {name: [str(bad)]}}, rc=2)
    run.says(f"{name}: Ask the webhook: the webhook says no")
    assert (site.color() == live) == (name != "after_promote")
    if name in ("before_install", "after_start"):
        assert host.check_output(f"readlink {ROOT}/slots/blue/release {ROOT}/slots/green/release") == slots
    assert host.run(f"test -e {ROOT}/lock").rc != 0
    if name == "after_promote":
        play("rollback")


def test_who_wants_to_know_is_told(host, site, play, tmp_path):
    """What has happened, once, and nothing where nothing has; one that does not answer hides neither the end nor the error."""
    live, log = site.color(), tmp_path / "log"
    note = tmp_path / "note.yml"
    note.write_text(
        "- name: Note\n  ansible.builtin.shell: >-\n    echo {{ bluegreen_hook }} {{ bluegreen_operation }} {{ bluegreen_reason | quote }} "
        f">>{log}; exit 3\n  delegate_to: localhost\n  become: false\n  vars:\n    ansible_connection: local\n"
    )
    goal = {"bluegreen_artifact": artifact("sample_app-0.1.1"), "bluegreen_force": True}
    with webhook(200) as (good, took), webhook(500) as (bad, _sent):
        told = {
            "bluegreen_notify": [{"url": bad, "on": ["failed"]}, {"url": good}],
            "bluegreen_hooks": {"on_failure": [str(note)]},
        }
        for _twice in range(2):
            play("deploy", {**goal, **told, "bluegreen_env": {"SECRET_KEY_BASE": "k", "TOLD": "1"}})
        run = play(
            "promote", told, f"color={other(live)}", {"bluegreen_smoke": [{"path": "/", "contains": "nowhere"}]}, rc=2
        )
        run.says("127.0.0.1 did not take the message: HTTP 500", "on_failure: Note: non-zero return code", "nowhere")
        assert "secret-token" not in run.text
        play("promote", told, f"color={other(live)}")
        play("rollback", told, "--check")
        play("rollback", told)
    assert [one["event"] for one in took] == ["deployed", "failed", "promoted", "rolled_back"]
    assert took[2]["text"].startswith("sample_app: 0.1.1-") and "is live on" in took[2]["text"]
    (line,) = log.read_text().splitlines()
    assert line.startswith("on_failure promote promote failed on 1 host") and "nowhere" in line


@pytest.mark.long
def test_a_hook_after_a_failure_that_hangs(site, play, tmp_path):
    """The run ends with its own error, a minute later."""
    hang = tmp_path / "hang.yml"
    hang.write_text("- name: Hang\n  ansible.builtin.command: sleep 600\n")
    play("deploy", {"bluegreen_artifact": artifact("sample_app-0.1.1"), "bluegreen_force": True})
    failing = {
        "bluegreen_smoke": [{"path": "/", "contains": "nowhere"}],
        "bluegreen_hooks": {"on_failure": [str(hang)]},
    }
    began = time.monotonic()
    play("promote", failing, f"color={other(site.color())}", rc=2).says("on_failure: Hang: ", "nowhere")
    assert 60 < time.monotonic() - began < 120


def test_a_hook_that_would_leave_hosts_behind(play, tmp_path):
    bad = tmp_path / "bad.yml"
    bad.write_text("- name: Once\n  run_once: true\n  ansible.builtin.debug:\n")
    play("promote", {"bluegreen_hooks": {"before_promote": [str(bad)]}}, rc=2).says(
        "run_once is not supported in hooks"
    )


def test_an_alias_that_another_site_has(host, play):
    theirs = "server { listen 80; server_name taken.test; }"
    host.check_output(f"echo '{theirs}' | sudo tee /etc/nginx/conf.d/another.conf; sudo nginx -s reload")
    play("setup", {"bluegreen_aliases": ["taken.test"]}, rc=2).says(
        "another site of this nginx already answers to taken.test",
    )
    host.check_output("sudo rm /etc/nginx/conf.d/another.conf; sudo nginx -s reload")
    play("setup")


def test_a_hook_that_is_not_there(play):
    play("promote", {"bluegreen_hooks": {"before_promote": ["no-such.yml"]}}, rc=2).says(
        "there is no file",
        "no-such.yml",
    )
    play("promote", {"bluegreen_hooks": {"before_lunch": ["x.yml"]}}, rc=2).says("before_lunch", "before_promote")


def test_the_old_slot_is_drained_and_stopped(host, site, play):
    play("deploy", {"bluegreen_artifact": artifact("sample_app-0.1.1"), "bluegreen_force": True})
    live = site.color()
    slow = requests.Session()
    stream = slow.get(site.base + "/stream?n=60&ms=100", headers=site.headers, stream=True, timeout=30)
    run = play("promote", f"color={other(live)}", "bluegreen_drain_timeout=30", "bluegreen_stop_idle=true")
    lines = stream.text.splitlines()
    # What was under way on the old slot came to its end there.
    assert len(lines) == 60 and {line.split()[1] for line in lines} == {live}
    assert host.check_output(f"systemctl show -P ActiveState sample_app@{live}") == "inactive"
    run.says(f"{live}", "stopped")
    assert " moved " not in run.text
    play("rollback")
    assert site.color() == live


def test_the_websockets_of_the_old_slot_are_moved(site, play):
    live = site.color()
    listeners = [Listener(site) for _number in range(40)]
    try:
        run = play("promote", f"color={other(live)}", "bluegreen_move_sockets=2", "bluegreen_drain_timeout=30")
        run.says(f"{live} moved 40 of 40 channels")
        wait_until(lambda: all(one.closed for one in listeners), 5)
        assert {one.color for one in listeners} == {live}
        # As Phoenix closes them, so that phoenix.js comes back; not all at once.
        assert {one.closed[1] for one in listeners} == {1012}
        times = sorted(one.closed[0] for one in listeners)
        assert 1 < times[-1] - times[0] < 3 and times[20] - times[0] > 0.5
        # Nobody is left for the drain to wait for.
        assert "still has" not in run.text
        with contextlib.closing(Listener(site)) as again:
            assert again.color == other(live)
    finally:
        for one in listeners:
            one.close()
        play("rollback")


@pytest.mark.long
def test_websockets_that_cannot_be_moved(site, play):
    """What does not listen is counted; a slot that cannot be asked is said, and what is live stays."""
    live = site.color()
    listeners = [Listener(site) for _number in range(3)]
    pools = "{_, pool, :supervisor, _} <- Supervisor.which_children(SampleApp.Endpoint)"
    channels = f"for {pools}, {{_, pid, _, _}} <- DynamicSupervisor.which_children(pool), do: pid"
    play("rpc", {"expr": f":sys.suspend(hd({channels}))"})
    try:
        run = play("promote", f"color={other(live)}", "bluegreen_move_sockets=1")
        # That one is left is no news to whoever does not drain.
        assert "still has" not in run.says(f"{live} moved 2 of 3 channels")
        assert [one.closed is None for one in listeners].count(True) == 1
    finally:
        for one in listeners:
            one.close()
    old = ":application.stop(:phoenix); :application.unload(:phoenix); :application.load({:application, :phoenix, vsn: '1.7.3', modules: []})"
    play("rpc", {"expr": old, "color": other(live)})
    play("rollback", "bluegreen_move_sockets=1").says(f"{other(live)} has Phoenix 1.7.3, which cannot move its sockets")
    # The endpoint of an app that runs without it.
    play("rpc", {"expr": "Supervisor.terminate_child(SampleApp.Supervisor, SampleApp.Endpoint)", "color": live})
    play("promote", {"color": other(live), "bluegreen_move_sockets": 1}).says(f"{live} has no Phoenix endpoint")
    play("rollback")
    play("restart", f"color={other(live)}")
    play("restart", "color=live")
    # A socket with drainer: false has no drainer that runs.
    play("rpc", {"expr": "Supervisor.terminate_child(SampleApp.Endpoint, {:terminator, SampleApp.Channel})"})
    with contextlib.closing(Listener(site)) as listener:
        play("promote", f"color={other(live)}", "bluegreen_move_sockets=1").says(f"{live} moved 0 of 0 channels")
        assert listener.closed is None
    play("rollback")
    play("restart", "color=live")
    play("promote", {"color": other(live), "bluegreen_move_sockets": 3601}, rc=2).says("bluegreen_move_sockets")


@pytest.mark.long
def test_a_drain_that_does_not_end(host, site, play):
    live = site.color()
    stream = requests.get(site.base + "/stream?n=300&ms=100", headers=site.headers, stream=True, timeout=60)
    run = play("promote", f"color={other(live)}", "bluegreen_drain_timeout=3")
    run.says(f"{live} still has", "connections after 3 s")
    stream.close()
    play("rollback")


def make_certificate(host, name, days):
    key = f"-newkey rsa:2048 -nodes -keyout /etc/ssl/{name}.key -out /etc/ssl/{name}.pem -subj /CN=sample.test"
    host.check_output(f"sudo faketime -f '-10d' openssl req -x509 {key} -days {days} 2>/dev/null")
    return {"certificate": f"/etc/ssl/{name}.pem", "key": f"/etc/ssl/{name}.key"}


@pytest.mark.long
def test_certificates_that_will_not_do(host, site, play):
    good, old = make_certificate(host, "good", 40), make_certificate(host, "old", 5)
    before = host.check_output("sudo cat /etc/nginx/conf.d/sample_app.conf")
    for tls, message in (
        ({**good, "certificate": "/etc/ssl/none.pem"}, "there is no file /etc/ssl/none.pem on this host"),
        (old, "the certificate /etc/ssl/old.pem has expired"),
        ({**good, "key": old["key"]}, "does not belong to the certificate"),
        ({"certificate": "relative.pem", "key": "/x"}, "bluegreen_tls.certificate must be an absolute path"),
        ({**good, "listen": "80"}, "must differ from bluegreen_listen"),
    ):
        play("setup", {"bluegreen_tls": tls}, rc=2).says(message)
        assert (
            host.check_output("sudo cat /etc/nginx/conf.d/sample_app.conf") == before and site.get().status_code == 200
        )


def test_tls(host, site, play):
    tls = {"bluegreen_tls": make_certificate(host, "good", 40), "bluegreen_acme_webroot": "/var/www/acme"}
    host.check_output("sudo mkdir -p /var/www/acme/.well-known/acme-challenge")
    host.check_output("echo challenge | sudo tee /var/www/acme/.well-known/acme-challenge/token")
    play("setup", tls)
    assert play("setup", tls).changed() == 0
    answer = site.get("/path")
    assert (answer.status_code, answer.headers["Location"]) == (301, "https://sample.test/path")
    assert site.get("/.well-known/acme-challenge/token").text == "challenge\n"
    live = site.color()

    def secure(path):
        with pytest.warns(match="Unverified HTTPS"):
            return requests.get(f"https://127.0.0.1:18143{path}", headers=site.headers, verify=False, timeout=10)

    assert secure("/").json()["color"] == live
    play("promote", f"color={other(live)}", tls)
    assert secure("/").json()["color"] == other(live) and secure("/deployment_id").text == other(live)
    play("status", "strict=true", tls)
    play("rollback", tls)
    play("setup")
    assert site.get("/").status_code == 200


@pytest.mark.long
def test_a_snippet_that_breaks_nginx(host, site, play):
    before = host.check_output("sudo cat /etc/nginx/conf.d/sample_app.conf")
    run = play("setup", {"bluegreen_nginx_server": "location /mine {\n  retrun 200;\n}"}, rc=2)
    run.says('unknown directive "retrun"', "of it: retrun 200;", "was restored")
    assert host.check_output("sudo cat /etc/nginx/conf.d/sample_app.conf") == before and site.get().status_code == 200
    play(
        "setup",
        {"bluegreen_nginx_server": "location = /mine { return 204; }", "bluegreen_aliases": ["www.sample.test"]},
    )
    assert site.get("/mine").status_code == 204
    assert site.get("/", headers={"Host": "www.sample.test"}).status_code == 200
    play("setup")
    play("status", "strict=true")
