# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong: bad input, releases that do not start, hosts that are not as they should be. Nothing may be lost."""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile

import pytest
from support.bluegreen import Client, Site, artifact, broken, squatting, variant

ROOT = "/opt/sample_app"
GOOD = f"bluegreen_artifact={artifact('sample_app-0.1.1')}"
SECRET = "ecto://app:s3cret-p4ssword@db.internal/app"

THIRD = {
    "bluegreen_app": "third_app",
    "bluegreen_domain": "third.test",
    "bluegreen_ports": {"blue": 6200, "green": 7200},
}
OTHER = {
    "bluegreen_app": "other_app",
    "bluegreen_domain": "other.test",
    "bluegreen_ports": {"blue": 6100, "green": 7100},
    "bluegreen_artifact": artifact("other_app-0.1.0"),
}


def fingerprint(host):
    """Everything that must not change when a run is refused: links, env files, releases, sites, facts, processes."""
    return host.check_output(
        f"sudo sh -c 'cd {ROOT}; readlink live slots/*/release; sha256sum slots/*/env; ls -a releases slots/* . former; "
        "cat /etc/ansible/facts.d/*; cd /etc/nginx/conf.d; sha256sum * || true; "
        "systemctl show -P MainPID sample_app@blue sample_app@green nginx'"
    )


@pytest.fixture(scope="module", autouse=True)
def both_slots_run(host):
    """0.1.0 live on blue and 0.1.1 idle on green, whatever the tests before have left."""
    from support import bluegreen
    from support.one_host import INVENTORY

    if bluegreen.Site(18180, "sample.test").color() == "green":
        bluegreen.playbook(INVENTORY, "rollback")
    bluegreen.playbook(INVENTORY, "deploy", GOOD, "bluegreen_force=true")


@pytest.fixture
def play(play):
    """What was rolled back from is deployed again here, which needs consent."""

    def run(name, *args, **kwargs):
        return play(name, *args, *(["bluegreen_force=true"] if name == "deploy" else []), **kwargs)

    return run


@pytest.fixture
def untouched(host, site):
    """The host is the same afterwards, and its site lost no request meanwhile."""
    before = fingerprint(host)
    with Client(site) as client:
        yield client
    assert client.failed == []
    assert fingerprint(host) == before
    assert not host.file(f"{ROOT}/lock").exists


# --- input that is refused on the controller -------------------------------------------------------------------------


REFUSED = [
    ("promote", {"color": "purple"}, "color must be blue or green (got 'purple')"),
    ("stop", {}, "-e color="),
    ("deploy", {"bluegreen_artifact": "/nowhere/app.tar.gz"}, "there is no file /nowhere/app.tar.gz"),
    ("deploy", {"bluegreen_artifact": artifact("other_app-0.1.0")}, "is a release of other_app, not of sample_app"),
    (
        "deploy",
        {"bluegreen_artifact_checksum": "sha256:" + "0" * 64},
        "bluegreen_artifact must match bluegreen_artifact_checksum",
    ),
    ("deploy", {"bluegreen_domain": "x; return 302 http://evil"}, "bluegreen_domain must be"),
    (
        "deploy",
        {"bluegreen_helth_path": "/x"},
        "Unknown variable bluegreen_helth_path. Did you mean bluegreen_health_path?",
    ),
    ("deploy", {"bluegreen_hosts": "nowhere"}, "The inventory has no hosts in the group nowhere"),
]
# The unit tests of what checks them know many more.
REFUSED_TOO = [
    ("deploy", {}, "bluegreen_artifact is required"),
    ("deploy", {"bluegreen_artifact": "http://127.0.0.1:9/x.tar.gz"}, "bluegreen_artifact_checksum"),
    ("deploy", {"bluegreen_artifact_checksum": "md5:0"}, "must be sha256: and 64 hexadecimal digits"),
    (
        "deploy",
        {"bluegreen_version": "0.9.9"},
        "bluegreen_version must be the version of the artifact, 0.1.1 (got 0.9.9)",
    ),
    ("deploy", {"bluegreen_domain": "~.*"}, "bluegreen_domain must be"),
    ("deploy", {"bluegreen_domain": "a.test\n"}, "bluegreen_domain must be"),
    ("deploy", {"bluegreen_app": "Sample"}, "at most 32 characters (got 'Sample')"),
    ("deploy", {"bluegreen_app": "root"}, "the name of a system account"),
    ("deploy", {"bluegreen_ports": {"blue": 4000, "green": 4000}}, "because both run side by side (got 4000 twice)"),
    ("deploy", {"bluegreen_ports": {"blue": "4000; server 10.0.0.1", "green": 5000}}, "bluegreen_ports.blue"),
    ("deploy", {"bluegreen_ports": {"blue": 80, "green": 5000}}, "a whole number from 1024 to 65535"),
    ("deploy", {"bluegreen_root": "/opt/../etc"}, "bluegreen_root must be an absolute path"),
    ("deploy", {"bluegreen_env": {"A": "x\ny"}}, "the value of A has a newline"),
    ("deploy", {"bluegreen_env": {"PORT": "1"}}, "PORT belongs to the slot. Set bluegreen_ports instead."),
    ("deploy", {"bluegreen_env_file": "/nowhere/.env"}, "bluegreen_env_file cannot be read"),
    ("deploy", {"bluegreen_health_path": "health"}, "must be a URL path that starts with /"),
]


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [*REFUSED, *(pytest.param(*one, marks=pytest.mark.long) for one in REFUSED_TOO)],
)
def test_bad_input_is_refused_before_a_host_is_touched(play, untouched, name, given, said):
    goal = {"bluegreen_artifact": artifact("sample_app-0.1.1"), **given} if given or name != "deploy" else {}
    run = play(name, goal, rc=None)
    run.says(said)
    assert "Traceback" not in run.text


def tarball(path, *members, base=None):
    """A gzipped tarball of (TarInfo or name, bytes) members, after those of a base."""
    with tarfile.open(path, "w:gz") as archive:
        if base:
            with tarfile.open(base) as source:
                for member in source:
                    archive.addfile(member, source.extractfile(member) if member.isreg() else None)
        for member, content in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def device(name):
    info = tarfile.TarInfo(name)
    info.type = tarfile.CHRTYPE
    return info, b""


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("../../x", b"x")], "a member outside of itself"),
        ([link("lib/x", "."), ("lib/x/y", b"y")], "a member below a link"),
        *(
            pytest.param(*one, marks=pytest.mark.long)
            for one in (
                ([("/etc/cron.d/x", b"x")], "a member outside of itself"),
                ([link("lib/x", "/etc/shadow")], "a link that leads outside"),
                ([link("lib/x", "../../x")], "a link that leads outside"),
                ([link("lib/x", "../../x", tarfile.LNKTYPE)], "a link that leads outside"),
                ([device("lib/null")], "a device or another special file"),
            )
        ),
    ],
)
def test_hostile_members_are_refused(play, untouched, tmp_path, members, said):
    path = tarball(tmp_path / "hostile.tar.gz", *members, base=artifact("sample_app-0.1.1"))
    assert said in " ".join(play("deploy", f"bluegreen_artifact={path}", rc=2).text.split())


def test_what_is_no_release_is_refused(play, untouched, tmp_path):
    text = tmp_path / "text.tar.gz"
    text.write_text("hello")
    assert "not a tarball, or is truncated" in play("deploy", f"bluegreen_artifact={text}", rc=2).text
    half = tmp_path / "half.tar.gz"
    with open(artifact("sample_app-0.1.1"), "rb") as whole:
        half.write_bytes(whole.read(2_000_000))
    assert "truncated or damaged" in play("deploy", f"bluegreen_artifact={half}", rc=2).text
    empty = tarball(tmp_path / "empty.tar.gz", ("README", b"hello"))
    assert "not a mix release" in play("deploy", f"bluegreen_artifact={empty}", rc=2).text
    assert gzip.open(empty).read(1) != b""


# --- a release that does not start -----------------------------------------------------------------------------------


def failing(play, timeout, **env):
    """Deploy 0.1.1-rebuilt with an environment that makes it fail. Returns what was printed."""
    values = {"SECRET_KEY_BASE": "another-secret-key-base", "DATABASE_URL": SECRET, **env}
    goal = {
        "bluegreen_artifact": artifact("sample_app-0.1.1-rebuilt"),
        "bluegreen_env": values,
        "bluegreen_health_timeout": timeout,
    }
    return play("deploy", goal, "--diff", rc=2, verbose="-vvv").text


@pytest.mark.parametrize(
    ("env", "said"),
    [
        pytest.param(
            {"SAMPLE_UNHEALTHY": "1"},
            "was not healthy within 10 s: GET /health on port 5000: 503",
            marks=pytest.mark.long,
        ),
        ({"SAMPLE_EXIT_AT_BOOT": "1"}, "cannot reach the database at <DATABASE_URL>"),
        pytest.param(
            {"SAMPLE_FAIL_CONFIG": "1"}, "environment variable DATABASE_URL is missing", marks=pytest.mark.long
        ),
        ({"SAMPLE_REDIRECT": "1"}, "redirects /health to https: 301 to https://example.com/health"),
        pytest.param({"PHX_SERVER": "false"}, "was not healthy within 10 s", marks=pytest.mark.long),
        pytest.param({"SAMPLE_BOOT_MS": "30000"}, "was not healthy within 10 s", marks=pytest.mark.long),
    ],
)
def test_a_failed_deploy_gives_the_slot_back(host, site, play, env, said):
    held = host.check_output(f"readlink {ROOT}/slots/green/release")
    env_before = host.check_output(f"sudo sha256sum {ROOT}/slots/green/env")
    facts = host.check_output("cat /etc/ansible/facts.d/sample_app.fact")
    pid = site.pid()
    with Client(site) as client:
        # Enough to boot, and to end, beside whatever else the machine does.
        text = failing(play, 10 if "within 10 s" in said else 40, **env)
    assert client.failed == []
    assert said in " ".join(text.split())
    assert "unit sample_app@green.service is" in text and "journalctl -u sample_app@green" in text
    assert "green holds 0.1.1-" in text and "again and is running" in text
    assert (site.color(), site.pid()) == ("blue", pid)
    assert host.check_output(f"readlink {ROOT}/slots/green/release") == held
    assert host.check_output(f"sudo sha256sum {ROOT}/slots/green/env") == env_before
    assert json.loads(host.check_output("cat /etc/ansible/facts.d/sample_app.fact")) == json.loads(facts)
    assert host.service("sample_app@green").is_running
    assert host.check_output(f"ls -A {ROOT}/slots/green") == "all-green-none\nenv\nid\nis-green\nproven\nrelease"
    # Nothing secret in what was printed, with -vvv and --diff, nor on the host where others may look.
    for secret in ("s3cret-p4ssword", "another-secret-key-base"):
        assert secret not in text
    assert (
        host.run(f"grep -r s3cret {ROOT}/slots {ROOT}/state {ROOT}/former /etc/ansible /etc/systemd 2>/dev/null").stdout
        == ""
    )


def test_promote_refuses_an_unhealthy_target(host, site, play):
    stop, go_on = (f"sudo systemctl kill -s {signal} sample_app@green" for signal in ("STOP", "CONT"))
    with broken(host, stop, go_on):
        run = play("promote", "color=green", rc=2)
    run.says("is not healthy: no answer in 2 s on port 5000")
    assert site.color() == "blue"


@pytest.mark.long
def test_deploying_the_same_again_restarts_an_idle_slot_that_hangs(host, site, play):
    pid = host.check_output("systemctl show -P MainPID sample_app@green")
    host.check_output("sudo systemctl kill -s STOP sample_app@green")
    play("deploy", GOOD, "bluegreen_health_timeout=30", "bluegreen_stop_timeout=2")
    assert host.check_output("systemctl show -P MainPID sample_app@green") != pid
    assert site.color() == "blue"


def test_the_live_slot_keeps_its_port(host, play, untouched):
    run = play(
        "deploy",
        {"bluegreen_artifact": artifact("sample_app-0.1.1"), "bluegreen_ports": {"blue": 4001, "green": 5001}},
        rc=2,
    )
    run.says("blue is live on port 4000, and bluegreen_ports.blue says 4001")


@pytest.mark.parametrize(
    ("name", "said"),
    [("games", "already has a user games"), ("getty", "/getty@.service already exists and does not belong to")],
)
def test_what_others_have_is_not_overwritten(host, play, untouched, name, said):
    run = play("setup", {**THIRD, "bluegreen_app": name}, rc=2)
    run.says(said)
    assert not host.file(f"/etc/nginx/conf.d/{name}.conf").exists


@pytest.mark.long
def test_the_same_release_with_another_environment_is_promoted(host, site, play):
    release = host.check_output(f"readlink {ROOT}/live/release")
    goal = {
        "bluegreen_artifact": artifact("sample_app-0.1.0"),
        "bluegreen_env": {"ROTATED": "1"},
        "bluegreen_promote": True,
    }
    play("deploy", goal, "--check")
    play("deploy", goal)
    assert (site.color(), host.check_output(f"readlink {ROOT}/live/release")) == ("green", release)
    assert "ROTATED" in site.get("/env-names").text.split()
    play("rollback", "--check")
    play("rollback")
    assert site.color() == "blue" and "ROTATED" not in site.get("/env-names").text.split()
    play("deploy", GOOD)


def test_a_port_that_somebody_else_has(host, site, play):
    play("stop", "color=green")
    with squatting(host, 5000):
        run = play("deploy", f"bluegreen_artifact={artifact('sample_app-0.1.1-rebuilt')}", rc=2)
    assert "port 5000 of green is taken by process" in run.text and "(python3 of squatter)" in run.text
    assert site.version() == "0.1.0"
    play("deploy", GOOD)


def test_an_answer_of_somebody_else_is_not_health(host, play):
    """A squatter that takes the port while the slot boots: the slot is not healthy, whatever is answered."""
    play("stop", "color=green")
    script = "import time,socket,http.server\ntime.sleep(0.2)\nhttp.server.HTTPServer((str(),5000),http.server.SimpleHTTPRequestHandler).serve_forever()"
    env = {"SECRET_KEY_BASE": "x" * 20, "SAMPLE_BOOT_MS": "8000"}
    host.check_output(
        f"sudo mkdir -p /srv/squat && sudo touch /srv/squat/health && printf '{script}' | sudo tee /srv/squat/s.py"
    )
    squat = (
        "sudo systemd-run --unit=squatter --quiet --working-directory=/srv/squat sh -c "
        "'while ! systemctl is-active -q sample_app@green; do sleep 0.05; done; exec python3 s.py'"
    )
    goal = {
        "bluegreen_artifact": artifact("sample_app-0.1.1-rebuilt"),
        "bluegreen_env": env,
        "bluegreen_health_timeout": 5,
    }
    with broken(host, squat, "sudo systemctl stop squatter"):
        run = play("deploy", goal, rc=2)
    assert "port 5000 is answered by process" in run.text
    play("deploy", GOOD)


# --- the environment of a slot ----------------------------------------------------------------------------------------

NASTY = {
    "A_DOLLAR": "a$HOME${PATH}$(id)`id`",
    "A_QUOTES": "\"double\" and 'single'",
    "A_BACKSLASH": "\\ \\n \\$ \\\\",
    "A_HASH": "#no comment; rm -rf = ! * ? [x]",
    "A_SPACES": "  leading and trailing  ",
    "A_UNICODE": "žluťoučký 🐎 \u2028",
    "A_TAB": "a\tb",
    "AN_EMPTY": "",
    "A_LONG": "0123456789abcdef" * 512,
    "A_PERCENT": "%h %i %%",
    "A_TILDE": "~root",
    "ENDS_IN_BACKSLASH": "end\\",
    "A_BOOLEAN": True,
    "A_NUMBER": 8,
}


def test_systemd_and_a_shell_read_the_same_environment(host, play):
    wanted = {name: "true" if value is True else str(value) for name, value in NASTY.items()}
    play("deploy", {"bluegreen_artifact": artifact("sample_app-0.1.1-rebuilt"), "bluegreen_env": NASTY})
    tell = (
        "IO.puts(Enum.map_join(["
        + ", ".join(f":{name}" for name in wanted)
        + "], ~s( ), &(&1 |> to_string() |> System.get_env() |> Base.encode16() |> then(fn x -> ~s(_) <> x end))))"
    )
    expected = " ".join("_" + value.encode().hex().upper() for value in wanted.values())
    # rpc answers from the process that systemd started; eval from one that the shell command started.
    assert host.check_output(f"sudo {ROOT}/bin/sample_app green rpc '{tell}'") == expected
    assert host.check_output(f"sudo {ROOT}/bin/sample_app green eval '{tell}'") == expected


def test_changing_the_environment_alone_is_a_deploy(host, site, play):
    play("deploy", {"bluegreen_artifact": artifact("sample_app-0.1.1-rebuilt")})
    release = host.check_output(f"readlink {ROOT}/slots/green/release")
    run = play("deploy", {"bluegreen_artifact": artifact("sample_app-0.1.1-rebuilt"), "bluegreen_env": {"ONE": "1"}})
    assert run.changed() > 0
    assert host.check_output(f"readlink {ROOT}/slots/green/release") == release
    assert "ONE" in host.check_output("curl -fsS localhost:5000/env-names").split()
    assert site.version() == "0.1.0"


@pytest.mark.long
def test_rollback_brings_back_release_and_environment_after_the_slot_was_reused(host, site, play):
    play("promote", "color=green")
    play("deploy", f"bluegreen_artifact={artifact('sample_app-0.1.1')}")
    play("promote", "color=blue")
    play("deploy", f"bluegreen_artifact={artifact('sample_app-0.1.0')}")
    assert "ONE" not in host.check_output("curl -fsS localhost:5000/env-names").split()
    with Client(site) as client:
        play("rollback")
    assert client.failed == []
    assert (site.color(), site.get().json()["build"]) == ("green", "2")
    assert "ONE" in site.get("/env-names").text.split()
    play("rollback")
    assert (site.color(), site.version()) == ("blue", "0.1.0")


def kilobytes_of_releases(host):
    return int(host.check_output(f"sudo du -sk {ROOT}/releases | cut -f1"))


def test_only_what_is_new_is_sent_and_what_a_host_has_is_linked(host, site, play, tmp_path):
    before = kilobytes_of_releases(host)
    run = play("deploy", f"bluegreen_artifact={variant(artifact('sample_app-0.1.1'), tmp_path / 'new.tar.gz')}")
    assert re.search(
        r"bluegreen-web1: sending \d\d kB instead of 5\.\d MB: the host has (\d+) of (\d+) files", run.text
    ), run.text
    # It went along with the module, whose options are logged, but for this one.
    logged = host.check_output(
        "sudo journalctl --no-pager -q -o cat | grep 'Invoked with' | grep artifact_info= | tail -n 1"
    )
    assert "content=NOT_LOGGING_PARAMETER" in logged and "src=None" in logged
    # Directories, and a list of the files; an unpacked release has 13 MB.
    assert kilobytes_of_releases(host) - before < 1500
    release = host.check_output(f"basename $(readlink {ROOT}/slots/green/release)")
    told = json.loads(host.check_output(f"sudo cat {ROOT}/releases/{release}/.files.json"))
    for name in ("bin/sample_app", "releases/start_erl.data"):
        assert host.file(f"{ROOT}/releases/{release}/{name}").sha256sum == told[name]
        assert host.check_output(f"stat -c '%h %a' {ROOT}/releases/{release}/{name}").split()[0] != "1"
    # What is there already is not sent, nor asked for again.
    assert "sending" not in play("deploy", f"bluegreen_artifact={tmp_path / 'new.tar.gz'}").text


def test_a_file_that_somebody_edited_is_not_passed_on(host, site, play, tmp_path):
    """Whoever changed it changed it in all releases that share it; a new one gets what is in its artifact."""
    name = host.check_output(f"cd {ROOT}/slots/green/release && ls lib/elixir-*/ebin/elixir.app")
    edited = f"{ROOT}/slots/green/release/{name}"
    right = host.check_output(f"sha256sum {edited} | cut -c1-64")
    everywhere = f"for one in {ROOT}/releases/*/{name}"
    host.check_output(f"sudo cp -a {edited} /root/kept && sudo sh -c '{everywhere}; do echo % edited >>$one; done'")
    run = play("deploy", f"bluegreen_artifact={variant(artifact('sample_app-0.1.1'), tmp_path / 'new.tar.gz')}")
    run.says(f"after all: no release on this host has {name} any more")
    assert host.check_output(f"sha256sum {ROOT}/slots/green/release/{name} | cut -c1-64") == right
    host.check_output(f"sudo sh -c '{everywhere}; do cp --remove-destination -p /root/kept $one; done'")


@pytest.mark.long
def test_not_enough_disk(host, play, untouched):
    host.check_output("sudo mkdir -p /opt/other_app && sudo mount -t tmpfs -o size=8m,mode=755 tmpfs /opt/other_app")
    # A new site is a reload, and so is taking it away; one of this nginx can cut a request on a kept connection.
    with untouched.excused_while():
        text = " ".join(play("deploy", OTHER, rc=2).text.split())
        left = host.check_output("ls -A /opt/other_app/releases")
        host.check_output(
            "sudo umount /opt/other_app && sudo rm /etc/nginx/conf.d/other_app.conf && sudo systemctl reload nginx"
        )
    assert "the release needs" in text and "KiB are free" in text
    assert left == ""


# --- another app on the same server -------------------------------------------------------------------------------------


def test_two_apps_do_not_notice_each_other(host, site, play):
    second = Site(18180, "other.test")
    before, pid = fingerprint(host).split("{")[0], site.pid()
    with Client(site) as client:
        play("deploy", OTHER)
        assert second.color() == "blue"
        assert "green holds no release" in play("promote", {**OTHER, "color": "green"}, rc=2).text
        play("deploy", {**OTHER, "bluegreen_env": {"TWO": "2"}})
        play("promote", {**OTHER, "color": "green"})
        assert (second.color(), site.color()) == ("green", "blue")
        assert "other_app_green@" in play("rpc", {**OTHER, "expr": "IO.puts(node())"}).text
        play("rollback", OTHER)
    assert client.failed == []
    assert (second.color(), site.color(), site.pid()) == ("blue", "blue", pid)
    assert fingerprint(host).split("{")[0] == before
    assert second.get().json()["node"].startswith("other_app_blue@")


def test_a_domain_that_is_taken_is_refused(host, play):
    run = play("setup", {**THIRD, "bluegreen_domain": "sample.test"}, rc=2)
    run.says("another site of this nginx already answers to sample.test")
    assert not host.file("/etc/nginx/conf.d/third_app.conf").exists


# --- artifacts by URL ---------------------------------------------------------------------------------------------------


def test_artifacts_by_url(host, play):
    host.check_output(
        "sudo mkdir -p /srv/www && sudo systemd-run --unit=www --quiet --working-directory=/srv/www python3 -m http.server 9000; sleep 1"
    )
    url = "http://user:t0ken@127.0.0.1:9000/a.tar.gz?sig=s1gnature"
    goal = {"bluegreen_artifact": url, "bluegreen_artifact_checksum": "sha256:" + "0" * 64}
    text = play("deploy", goal, rc=2, verbose="-vvv").text
    assert "http://127.0.0.1:9000/a.tar.gz answered 404" in text
    # Neither in the output nor in the journal, where Ansible's modules log their options.
    journal = host.check_output("sudo journalctl --no-pager -q -o cat | grep 'Invoked with'")
    for secret in ("t0ken", "s1gnature"):
        assert secret not in text.replace(json.dumps(goal), "") and secret not in journal
    release = host.check_output(f"readlink {ROOT}/slots/blue/release").split("/")[-1]
    sha256 = json.loads(host.check_output(f"cat {ROOT}/releases/{release}/.bluegreen.json"))["sha256"]
    # The host has the release of that checksum: nothing is fetched.
    assert play("deploy", {**goal, "bluegreen_artifact_checksum": f"sha256:{sha256}"}).changed() == 0
    with open(artifact("sample_app-0.1.1-rebuilt"), "rb") as whole:
        content = whole.read()
    import hashlib
    import subprocess

    subprocess.run(
        ["docker", "cp", artifact("sample_app-0.1.1-rebuilt"), "bluegreen-web1:/srv/www/a.tar.gz"], check=True
    )
    goal["bluegreen_artifact_checksum"] = "sha256:" + hashlib.sha256(content).hexdigest()
    host.check_output(f"sudo rm -rf /tmp/kept && sudo cp -a {ROOT}/releases /tmp/kept")
    play("deploy", goal)
    assert "0.1.1-" in host.check_output(f"readlink {ROOT}/slots/green/release")
    wrong = {**goal, "bluegreen_artifact_checksum": "sha256:" + "1" * 64}
    assert "must have SHA-256 " + "1" * 64 in play("deploy", wrong, rc=2).text
    host.check_output("sudo systemctl stop www")


# --- hosts that are not as they should be -------------------------------------------------------------------------------


def test_nginx_that_somebody_else_broke_is_shown_and_left_alone(host, play, untouched):
    host.check_output("echo 'broken_by_somebody;' | sudo tee /etc/nginx/conf.d/theirs.conf")
    text = play("setup", THIRD, rc=2).text
    assert 'unknown directive "broken_by_somebody"' in text and "was already broken" in text
    host.check_output("sudo rm /etc/nginx/conf.d/theirs.conf")
    assert not host.file("/etc/nginx/conf.d/third_app.conf").exists


def test_nginx_missing_and_not_to_be_installed(host, play, untouched):
    host.check_output("sudo mv /usr/sbin/nginx /usr/sbin/nginx.away")
    run = play("setup", {**THIRD, "bluegreen_nginx_install": False}, rc=2)
    host.check_output("sudo mv /usr/sbin/nginx.away /usr/sbin/nginx")
    # The reason, where the run sums up.
    reason = "setting up: Require nginx, or consent to install it: nginx is not installed, and bluegreen_nginx_install is false"
    run.says(f"bluegreen-web1: {reason}")


def test_a_lock_names_its_holder_and_is_broken_by_unlock(host, play, untouched):
    lock = {"run": "x", "holder": "ann@laptop", "operation": "deploy", "since": "2026-01-01T00:00:00Z"}
    host.check_output(f"echo '{json.dumps(lock)}' | sudo tee {ROOT}/lock")
    text = play("promote", rc=2).text
    assert "the lock is held by ann@laptop for deploy since 2026-01-01T00:00:00Z" in text and "(stale)" in text
    assert "unlock.yml" in text
    assert "broke the lock" in play("unlock").text
    now = host.check_output("date -u +%Y-%m-%dT%H:%M:%SZ")
    host.check_output(f"echo '{json.dumps({**lock, 'since': now})}' | sudo tee {ROOT}/lock")
    assert "not stale yet" in play("unlock", rc=2).text
    play("unlock", "bluegreen_force=true")


def test_nginx_is_installed_where_it_is_missing(host, play):
    host.check_output(
        "sudo apt-get purge -y -qq nginx-light nginx-common >/dev/null 2>&1 && sudo apt-get autoremove -y -qq >/dev/null 2>&1"
    )
    assert not host.exists("nginx")
    play("setup", THIRD)
    assert Site(18180, "third.test").color() == "blue"
    # The distribution's default site is left alone.
    assert host.file("/etc/nginx/sites-enabled/default").exists
