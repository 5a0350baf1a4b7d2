# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts as they are: hardened, small, with accounts and mounts of their own."""

from __future__ import annotations

import pytest
from support.bluegreen import Client, artifact, broken, variant, wait_until


def main_pid(host, color):
    return host.check_output(f"systemctl show other_app@{color} -p MainPID --value").strip()


def test_a_hardened_umask(host, play, site, other_app, tmp_path):
    """sudo gives root the umask that a hardening guide wants; the app and nginx have to read what we write all the same."""
    first = artifact("other_app-0.1.0")
    second = variant(first, str(tmp_path / "second.tar.gz"))
    hardened = "echo 'Defaults umask=0077, umask_override' | sudo tee /etc/sudoers.d/hardened && sudo chmod 440 /etc/sudoers.d/hardened"
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


def test_somebody_who_puts_a_file_back(host, play, other_app):
    """Another configuration management, say. What set-up has written is looked at once more before anything is built on it."""
    unit, theirs = "/etc/systemd/system/other_app@.service", "/usr/local/share/theirs"
    watch = f"systemd-run --quiet --unit=theirs --path-property=PathChanged={unit} cp {theirs} {unit}"
    with broken(host, f"sudo sh -c 'echo theirs >{theirs} && {watch}'", "sudo systemctl stop theirs.path"):
        run = play("deploy", other_app, {"bluegreen_artifact": artifact("other_app-0.1.0")}, rc=2)
        run.says("setting up", unit)
        assert host.run("pgrep -u other_app").rc != 0


def test_a_root_below_a_home(host, play, site, other_app, tmp_path):
    """Hoster and hardening guide close homes: nginx then sees no file of ours, and would always send to blue."""
    other_app = {**other_app, "bluegreen_root": "/home/someone/other_app"}
    made = "sudo mkdir -p /home/someone && sudo chmod 0750 /home/someone"
    with broken(host, made, "sudo systemctl stop other_app@blue other_app@green; sudo rm -rf /home/someone"):
        first = artifact("other_app-0.1.0")
        run = play("deploy", other_app, {"bluegreen_artifact": first}, rc=2)
        run.says("nginx does not see /home/someone/other_app", "cannot enter /home/someone (0750)", "chmod o+x")
        assert not host.file("/etc/nginx/conf.d/other_app.conf").exists
        assert host.run("pgrep -u other_app").rc != 0
        host.check_output("sudo chmod o+x /home/someone")
        play("deploy", other_app, {"bluegreen_artifact": first})
        second = {"bluegreen_artifact": variant(first, str(tmp_path / "second.tar.gz")), "bluegreen_promote": True}
        play("deploy", other_app, second)
        assert site.get("/").json()["color"] == "green"
        play("rollback", other_app)
        host.check_output("sudo chmod 0750 /home/someone")
        play("promote", other_app, "color=green", rc=2).says("cannot be checked")


@pytest.mark.long
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


MEMINFO = "MemTotal: 524288 kB\\nMemAvailable: {} kB\\n"


def fake_memory(host, kilobytes):
    made = (
        f"printf '{MEMINFO.format(kilobytes)}' | sudo tee /run/meminfo && sudo mount --bind /run/meminfo /proc/meminfo"
    )
    return broken(host, made, "sudo umount /proc/meminfo")


@pytest.mark.long
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


def test_units_that_cannot_be_confined(host, play, site, other_app):
    """An unprivileged container has no mount namespaces; a path that is missing gives the same status."""
    first = {"bluegreen_artifact": artifact("other_app-0.1.0")}
    run = play(
        "deploy", other_app, first, {"bluegreen_writable": ["/var/lib/missing"], "bluegreen_health_timeout": 5}, rc=2
    )
    run.says("exit status 226", "bluegreen_hardening: container", "a path of bluegreen_writable does not exist")
    play("deploy", other_app, first, {"bluegreen_hardening": "container"})
    shown = host.check_output("systemctl show other_app@blue -p ProtectSystem -p NoNewPrivileges -p PrivateTmp")
    assert set(shown.split()) == {"ProtectSystem=no", "NoNewPrivileges=yes", "PrivateTmp=no"}
    assert site.get("/").json()["color"] == "blue"
