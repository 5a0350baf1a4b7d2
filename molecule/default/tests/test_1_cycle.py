# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole cycle, in the order in which a person goes through it. Converge has deployed 0.1.0 to a fresh host."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess

import pytest
from support.bluegreen import PLAIN, Client, artifact

ROOT = "/opt/sample_app"
# The same cycle on a virtual machine: `make test-vagrant`.
VAGRANT = os.environ.get("MOLECULE_SCENARIO_NAME") == "vagrant"


def release_of(host, color):
    return os.path.basename(host.check_output(f"readlink {ROOT}/slots/{color}/release"))


def facts(host):
    return json.loads(host.check_output("cat /etc/ansible/facts.d/sample_app.fact"))


def unit(host, color, name):
    return host.check_output(f"systemctl show -P {name} sample_app@{color}")


@contextlib.contextmanager
def modules_on(host):
    """The names of the modules of the collection that run on a host meanwhile."""
    began, names = host.check_output("date +%s.%N"), []
    yield names
    log = host.check_output(f"sudo journalctl --no-pager --since @{began}")
    names += re.findall(r"ansible-beamops\.bluegreen\.(\w+)\[\d+\]: Invoked", log)


def test_the_first_deploy_is_live_at_once(host, site):
    answer = site.get("/deployment_id")
    assert answer.text == "blue"
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert site.version() == "0.1.0"
    assert host.file(f"{ROOT}/live").linked_to == f"{ROOT}/slots/blue"


def test_layout_and_permissions(host):
    release = release_of(host, "blue")
    folder = host.file(f"{ROOT}/releases/{release}")
    assert folder.user == "root" and folder.mode == 0o755
    env = host.file(f"{ROOT}/slots/blue/env")
    assert (env.user, env.group, env.mode) == ("root", "sample_app", 0o640)
    cookie = host.file(f"{ROOT}/cookie")
    assert (cookie.user, cookie.group, cookie.mode) == ("root", "sample_app", 0o640)
    writable = host.check_output(f"sudo find {ROOT}/releases -user sample_app -o -type f -perm /0222")
    assert writable == ""
    assert unit(host, "blue", "MainPID") == host.check_output("pgrep -u sample_app beam.smp")


def test_facts_are_local_facts(host):
    inventory = os.environ["MOLECULE_INVENTORY_FILE"]
    shown = subprocess.run(
        ["ansible", "bluegreen", "-i", inventory, "-m", "setup", "-a", "filter=ansible_local"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **PLAIN, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
    ).stdout
    app = json.loads(shown[shown.index("{") :])["ansible_facts"]["ansible_local"]["sample_app"]
    assert app["live"] == "blue" and app["previous"] is None and app["slots"]["green"] is None
    assert app["slots"]["blue"]["version"] == "0.1.0"
    assert app["slots"]["blue"]["release"] == release_of(host, "blue")
    assert app["slots"]["blue"]["deployed_at"].endswith("Z")


def test_a_deploy_leaves_the_live_slot_alone(host, site, play):
    pid = site.pid()
    before = host.check_output(
        f"sudo find {ROOT}/slots/blue {ROOT}/releases -newer {ROOT}/slots/blue/is-blue -ls | sort"
    )
    with Client(site) as client:
        run = play("deploy", f"bluegreen_artifact={artifact('sample_app-0.1.1')}")
    assert client.failed == [] and set(client.seen) == {"blue"}
    assert "live blue 0.1.0-" in run.text and "to green" in run.text
    assert (site.color(), site.version(), site.pid()) == ("blue", "0.1.0", pid)
    after = host.check_output(
        f"sudo find {ROOT}/slots/blue {ROOT}/releases/{release_of(host, 'blue')} {ROOT}/releases "
        f"-newer {ROOT}/slots/blue/is-blue -not -path '*/0.1.1-*' -ls | sort -u"
    )
    assert {line.split()[0] for line in after.splitlines() if "/slots/blue" in line} == {
        line.split()[0] for line in before.splitlines() if "/slots/blue" in line
    }
    assert facts(host)["slots"]["green"]["version"] == "0.1.1"


def test_check_mode_predicts_a_promote_and_changes_nothing(site, play):
    run = play("promote", "color=green", "--check", "--diff")
    assert run.changed() == 1
    assert "-live -> slots/blue" in run.text and "+live -> slots/green" in run.text
    assert site.color() == "blue"
    assert play("status", "strict=true").changed() == 0


def test_promote_without_losing_a_request(host, site, play):
    with Client(site) as client, modules_on(host) as modules:
        run = play("promote", "color=green")
    assert client.failed == [] and set(client.seen) == {"blue", "green"}
    # A host that is the whole group ends the run with its last step. A run on a host is what takes time.
    assert modules == ["deploy_lock", "slot_switch"] and not host.file(f"{ROOT}/lock").exists
    last = json.loads(host.check_output(f"sudo tail -n 1 {ROOT}/history.jsonl"))
    assert (last["operation"], last["result"], last["from"]["color"], last["to"]["color"]) == (
        "promote",
        "ok",
        "blue",
        "green",
    )
    assert "live blue 0.1.0-" in run.text
    assert (site.color(), site.version()) == ("green", "0.1.1")
    told = facts(host)
    assert told["live"] == "green"
    assert (told["previous"]["color"], told["previous"]["release"]) == ("blue", release_of(host, "blue"))
    assert "promoted_at" in told["slots"]["green"]


def test_promoting_what_is_live_says_so_and_changes_nothing(play):
    run = play("promote", "color=green")
    assert "is already live" in run.text
    assert run.changed() == 0


def test_rollback(host, site, play):
    with Client(site) as client, modules_on(host) as modules:
        play("rollback")
    # It runs still, so nothing has to be started, and this takes no longer than a promote.
    assert client.failed == [] and modules == ["deploy_lock", "slot_switch"]
    assert (site.color(), site.version()) == ("blue", "0.1.0")
    assert facts(host)["previous"] is None


def test_rolling_back_again_does_not_go_forward(site, play):
    run = play("rollback", rc=2)
    assert "nothing to roll back to" in run.text
    assert site.version() == "0.1.0"


def test_promote_without_a_color_refuses_what_was_rolled_back_from(site, play):
    run = play("promote", rc=2)
    assert "was rolled back from" in run.text and "-e color=green" in run.text
    assert site.version() == "0.1.0"


def test_the_same_version_with_other_content_is_another_release(host, site, play):
    former = release_of(host, "green")
    play("deploy", f"bluegreen_artifact={artifact('sample_app-0.1.1-rebuilt')}")
    release = release_of(host, "green")
    assert release.startswith("0.1.1-") and release != former
    assert host.file(f"{ROOT}/releases/{former}").is_directory
    assert site.version() == "0.1.0"


def test_deploying_the_same_again_changes_nothing(host, play):
    with modules_on(host) as modules:
        run = play("deploy", f"bluegreen_artifact={artifact('sample_app-0.1.1-rebuilt')}")
    assert run.changed() == 0 and modules == ["deploy_lock", "slot_service"]


def test_deploy_and_promote_in_one_run_and_again(site, play):
    goal = [f"bluegreen_artifact={artifact('sample_app-0.1.1-rebuilt')}", "bluegreen_promote=true"]
    with Client(site) as client:
        play("deploy", *goal)
    assert client.failed == []
    assert (site.color(), site.get().json()["build"]) == ("green", "2")
    # Neither a switch back, nor the live release once more in the idle slot.
    assert play("deploy", *goal).changed() == 0
    assert (site.color(), site.get().json()["build"]) == ("green", "2")


def test_a_promote_that_is_run_again_does_not_go_back(site, play):
    run = play("promote")
    assert "is already live" in run.text and "rollback.yml goes back to it" in run.text
    assert run.changed() == 0
    assert site.color() == "green"


def test_migrate_says_which_release_and_runs_it_once(host, play):
    run = play("migrate")
    assert "migrating with green 0.1.1-" in run.text and "migrated by 0.1.1" in run.text
    assert host.check_output("sudo cat /opt/sample_app/state/blue/database") == "migrated by 0.1.1"
    run = play("migrate", "color=blue")
    assert "migrating with blue 0.1.0-" in run.text


def test_rpc_runs_on_the_node_of_the_slot(play):
    assert "sample_app_green@" in play("rpc", {"expr": "IO.puts(node())"}).text
    assert "sample_app_blue@" in play("rpc", {"expr": "IO.puts(node())", "color": "blue"}).text


def test_console_prints_the_command(play):
    # Vagrant's own ssh configuration knows port and user.
    where = "/ssh-config bluegreen-web1" if VAGRANT else " -p 18122 deploy@127.0.0.1"
    said = play("console").text
    assert f"{where} sudo /opt/sample_app/bin/sample_app live remote" in said
    # What the inventory says of ssh, such as the way through a bastion.
    assert VAGRANT or "ssh -t -o StrictHostKeyChecking=no" in said


def test_the_command_on_the_server(host):
    command = f"sudo {ROOT}/bin/sample_app"
    assert host.check_output(f"{command} live version") == release_of(host, "green")
    assert host.check_output(f"{command} blue pid") == unit(host, "blue", "MainPID")
    assert "sample_app_green@" in host.check_output(f"{command} live rpc 'IO.puts(node())'")
    assert host.check_output(f"{command} idle eval 'IO.puts(System.get_env(~s(PORT)))'") == "0"
    assert host.check_output(f"{command} idle eval ':os.cmd(~c(id -un)) |> IO.puts()'") == "sample_app"
    assert "SECRET_KEY_BASE" in host.check_output(f"{command} green env-names").split()
    assert "listening on port 5000" in host.check_output(f"{command} green logs")
    assert host.run(f"{command} purple pid").rc == 64


def test_stop_refuses_the_live_slot(site, play):
    assert "cannot stop green: it is live" in play("stop", "color=green", rc=2).text
    assert site.version() == "0.1.1"


def test_after_the_slot_that_started_first_is_stopped_rpc_works_on_the_other(host, site, play):
    # blue started first, and would have had the port mapper in its cgroup.
    assert play("stop", "color=blue").changed() == 1
    assert not host.service("sample_app@blue").is_running
    assert "sample_app_green@" in play("rpc", {"expr": "IO.puts(node())"}).text
    assert play("stop", "color=blue").changed() == 0
    assert site.color() == "green"


def test_promote_refuses_a_slot_that_does_not_run(site, play):
    run = play("promote", "color=blue", rc=2)
    assert "blue (0.1.0-" in run.text and "is not healthy: not running on port 4000" in run.text
    assert site.color() == "green"


def test_rollback_starts_what_was_stopped(site, play):
    with Client(site) as client:
        play("rollback")
    assert client.failed == []
    assert (site.color(), site.version()) == ("blue", "0.1.0")


def test_status_is_one_table(play):
    run = play("status", "strict=true")
    assert "consistent:" in run.text
    assert run.changed() == 0


def test_status_tells_when_somebody_moved_the_symlink(host, play):
    host.check_output(f"sudo ln -sfn slots/green {ROOT}/live")
    run = play("status", "strict=true", rc=2)
    assert "the facts file says blue is live, the live symlink says green" in run.text
    host.check_output(f"sudo ln -sfn slots/blue {ROOT}/live")
    play("status", "strict=true")


def test_a_crash_brings_the_same_release_back(host, site):
    pid = site.pid()
    host.check_output(f"sudo kill -KILL {pid}")
    host.check_output("for i in $(seq 100); do curl -fsS localhost:4000/health && exit 0; sleep 0.1; done; exit 1")
    assert site.version() == "0.1.0" and site.pid() != pid


def test_a_reboot_brings_both_slots_back(host, site):
    versions = {"blue": site.version(), "green": release_of(host, "green").split("-")[0]}
    # With Vagrant a real one, which forwards the port again when it is through.
    again, there, tries = ["docker", "restart", "bluegreen-web1"], ["docker", "exec", "bluegreen-web1", "sh", "-c"], 200
    if VAGRANT:
        again, there, tries = ["vagrant", "reload"], ["vagrant", "ssh", "-c"], 600
    wait = f"for i in $(seq {tries}); do curl -fsS localhost:%d/health && exit 0; sleep 0.1; done; exit 1"
    for words in (again, [*there, wait % 4000], [*there, wait % 5000]):
        subprocess.run(
            words, check=True, stdout=subprocess.DEVNULL, cwd=os.environ["MOLECULE_PROJECT_DIRECTORY"], timeout=900
        )
    assert (site.color(), site.version()) == ("blue", versions["blue"])
    green = json.loads(host.check_output("curl -fsS localhost:5000/"))
    assert (green["version"], green["color"]) == (versions["green"], "green")


def test_what_was_stopped_stays_stopped_over_a_reboot(host, play):
    play("stop", "color=green")
    assert host.check_output("systemctl is-enabled sample_app@green || true") == "disabled"
    assert host.check_output("systemctl is-enabled sample_app@blue") == "enabled"


@pytest.mark.long
def test_a_hand_edited_site_is_overwritten_with_consent_alone(host, site, play):
    path = "/etc/nginx/conf.d/sample_app.conf"
    good = host.check_output(f"cat {path}")
    host.check_output(f"echo '# edited' | sudo tee -a {path}")
    again = [f"bluegreen_artifact={artifact('sample_app-0.1.1-rebuilt')}"]
    before = host.check_output("sudo cat /etc/ansible/facts.d/sample_app.fact")
    for name in ("deploy", "setup"):
        run = play(name, *again, rc=2)
        run.says(f"somebody edited {path}", "+# edited", "-e bluegreen_force=true")
    assert host.check_output("sudo cat /etc/ansible/facts.d/sample_app.fact") == before
    # What writes no site does not mind.
    play("promote", "color=blue")
    again.append("bluegreen_force=true")
    run = play("deploy", *again, "--check")
    assert "reload" not in host.check_output(f"tail -n 1 {path}")
    assert run.changed() > 0
    play("deploy", *again)
    assert host.check_output(f"cat {path}") == good
    assert site.version() == "0.1.0"
