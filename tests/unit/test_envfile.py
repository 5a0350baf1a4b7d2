# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import re
import subprocess

import pytest
from ansible_collections.beamops.bluegreen.plugins.module_utils import _envfile
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Refused
from hypothesis import given, settings
from hypothesis import strategies as st

NAMES = st.from_regex(r"\AX[A-Z0-9_]{0,8}\Z")
# Everything but control characters; a shell cannot hold what is not UTF-8.
VALUES = st.text(st.characters(blacklist_categories=("Cs", "Cc")) | st.sampled_from("\t\"'\\$`#;=!*& ~%"), max_size=60)
ENVS = st.dictionaries(NAMES, VALUES, max_size=6)


def read_as_systemd(text):
    """A model of how systemd reads an env file (parse_env_file of its sources, by its states), for what we write."""
    env = {}
    for line in text.split("\n"):
        if not line:
            continue
        name, _equals, rest = line.partition("=")
        assert rest[0] == '"'
        value, index = "", 1
        while rest[index] != '"':
            if rest[index] == "\\":
                index += 1
                value += rest[index] if rest[index] in '"\\`$' else "\\" + rest[index]
            else:
                value += rest[index]
            index += 1
        assert index == len(rest) - 1
        env[name] = value
    return env


@given(ENVS)
def test_what_is_written_is_read_back(env):
    text = _envfile.render(env)
    assert _envfile.parse(text) == env
    assert read_as_systemd(text) == env


@settings(max_examples=40, deadline=None)
@given(ENVS)
def test_a_shell_reads_what_systemd_reads(tmp_path_factory, env):
    path = tmp_path_factory.mktemp("env") / "env"
    path.write_text(_envfile.render(env), encoding="utf-8")
    script = f"set -a; . {path}; exec python3 -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    done = subprocess.run(
        ["sh", "-c", script], capture_output=True, check=True, env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    )
    found = json.loads(done.stdout)
    assert {name: found[name] for name in env} == env


@given(ENVS)
def test_a_packed_env_is_one_word_and_comes_back(env):
    packed = _envfile.pack(env)
    assert set(packed) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")
    assert _envfile.unpack(packed) == env


@given(ENVS, st.sampled_from(["blue", "green"]))
def test_an_env_moves_between_slots_and_keeps_its_values(env, color):
    other = {"blue": "green", "green": "blue"}[color]
    here = _envfile.slot_env(env, color, 4000, "app", f"/opt/app/state/{color}", "cookie", "a.test")
    there = _envfile.slot_env(env, other, 5000, "app", f"/opt/app/state/{other}", "cookie", "a.test")
    assert _envfile.for_slot(here, other, 5000, "app", f"/opt/app/state/{other}") == there


def test_what_the_user_may_and_may_not_set():
    env = _envfile.slot_env({"PHX_HOST": "b.test"}, "green", 5000, "app", "/opt/app/state/green", "c", "a.test")
    assert env["PHX_HOST"] == "b.test" and env["PORT"] == "5000" and env["RELEASE_NODE"] == "app_green@127.0.0.1"
    assert "PHX_HOST" not in _envfile.slot_env({}, "green", 5000, "app", "/s", "c", "*.a.test")


def test_a_worker_does_not_listen():
    worker = _envfile.slot_env({}, "blue", 4000, "app", "/opt/app/state/blue", "c", "", web=False)
    assert "PHX_SERVER" not in worker and "PHX_HOST" not in worker
    web = _envfile.slot_env({}, "blue", 4000, "app", "/opt/app/state/blue", "c", "a.test")
    assert web["PHX_SERVER"] == "true" and web["PHX_HOST"] == "a.test"
    # What the user wants, wins.
    assert _envfile.slot_env({"PHX_SERVER": "true"}, "blue", 1, "app", "/s", "c", "", web=False)["PHX_SERVER"] == "true"
    for name in ("PORT", "RELEASE_NODE", "RELEASE_TMP", "BLUEGREEN_COLOR", "RELEASE_VSN", "1A", "A-B", "A=B", ""):
        with pytest.raises(Refused):
            _envfile.from_mapping({name: "x"})
    for value in ("a\nb", "a\rb", "a\0b", "\x1b[2J", None, ["x"], "x" * 65537):
        with pytest.raises(Refused):
            _envfile.from_mapping({"A": value})
    assert _envfile.from_mapping({"A": True, "B": 8, "C": "", "D": 1.5}) == {"A": "true", "B": "8", "C": "", "D": "1.5"}


def test_errors_never_show_a_value():
    with pytest.raises(Refused) as error:
        _envfile.from_mapping({"TOKEN": "s3cret\nvalue"})
    assert "s3cret" not in str(error.value) and "TOKEN" in str(error.value)


def test_dotenv():
    text = """
# comment
export A=1
B='it is $literal #not a comment'   # comment
C="double \\"quoted\\" \\$5"
D=plain value  # comment
E=
F=a=b#c
"""
    assert _envfile.parse_dotenv(text) == {
        "A": "1",
        "B": "it is $literal #not a comment",
        "C": 'double "quoted" $5',
        "D": "plain value",
        "E": "",
        "F": "a=b#c",
    }


@pytest.mark.parametrize(
    "line", ["A", "1A=x", "A=$HOME", 'A="$(id)"', "A=`id`", "A='open", 'A="open', "A='x'y", "A=a'b", "A=a\\b"]
)
def test_dotenv_refuses_what_programs_read_differently(line):
    with pytest.raises(Refused, match="line 2"):
        _envfile.parse_dotenv("B=1\n" + line)


def test_redact_puts_names_in_the_place_of_values():
    env = {
        "DATABASE_URL": "ecto://app:pw@db/app",
        "POOL_SIZE": "10",
        "PORT": "4000",
        "SECRET": "ecto://app",
        "FLAG": "true",
    }
    text = "10 connections to ecto://app:pw@db/app on 4000, ecto://app: true"
    assert _envfile.redact(text, env) == "10 connections to <DATABASE_URL> on 4000, <SECRET>: true"


def in_slot(color, user, cookie="c" * 48):
    port = {"blue": 4000, "green": 5000}[color]
    return _envfile.slot_env(user, color, port, "app", f"/opt/app/state/{color}", cookie, "example.com")


@given(env=st.dictionaries(st.from_regex(r"\A[A-Z]{1,8}\Z"), st.text("ab/:", max_size=6), max_size=4))
def test_an_environment_has_the_same_id_in_both_slots_and_after_it_has_moved(env):
    user = _envfile.from_mapping({name: value for name, value in env.items() if name not in _envfile.OWNED})
    blue, green = in_slot("blue", user), in_slot("green", user)
    assert _envfile.env_id(blue) == _envfile.env_id(green)
    assert _envfile.env_id(_envfile.for_slot(blue, "green", 5000, "app", "/opt/app/state/green")) == _envfile.env_id(
        green
    )
    assert _envfile.changes(blue, green) == {"added": [], "removed": [], "changed": []}
    assert _envfile.env_id(in_slot("blue", {**user, "MORE": "x"})) != _envfile.env_id(blue)


def test_the_id_of_an_environment_tells_nothing_without_the_cookie_of_the_host():
    ids = {_envfile.env_id(in_slot("blue", {"PIN": "1234"}, cookie * 48)) for cookie in "abc"}
    assert len(ids) == 3 and all(re.match(r"\A[0-9a-f]{12}\Z", one) for one in ids)
    assert _envfile.env_id({}) == ""


def test_what_differs_is_told_by_name():
    before, after = in_slot("blue", {"A": "1", "GONE": "x"}), in_slot("green", {"A": "2", "NEW": "y"})
    assert _envfile.changes(before, after) == {"added": ["NEW"], "removed": ["GONE"], "changed": ["A"]}


def test_the_password_in_a_url_is_a_secret_of_its_own():
    env = {"DATABASE_URL": "ecto://app:p%40ssw0rd@db.internal:5432/app"}
    text = "no login for app with p@ssw0rd (p%40ssw0rd) at db.internal"
    assert _envfile.redact(text, env) == "no login for app with <DATABASE_URL> (<DATABASE_URL>) at db.internal"
    assert _envfile.redact("ecto://app:p%40ssw0rd@db.internal:5432/app", env) == "<DATABASE_URL>"


def test_what_erlang_logs_as_numbers_is_read_and_has_no_secret_in_it():
    def logged(text):
        return "<<" + ",".join(str(byte) for byte in text.encode()) + ">>"

    env = {"DATABASE_URL": "ecto://app:s3cret-w0rd@db/app"}
    assert _envfile.redact(f"message=>{logged('DATABASE_URL is missing')}", {}) == 'message=>"DATABASE_URL is missing"'
    assert _envfile.redact(f"got {logged('ecto://app:s3cret-w0rd@db/app?')}", env) == 'got "<DATABASE_URL>?"'
    for other in ("<<1,2>>", "<<999,1,1,1>>", "<<255,254,253,252>>"):
        assert _envfile.readable(other) == other


# --- to the letter ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("PORT", "1", "bluegreen_env: PORT belongs to the slot. Set bluegreen_ports instead."),
        (
            "RELEASE_NODE",
            "x",
            "bluegreen_env: RELEASE_NODE belongs to the slot. It tells the two slots apart. Leave it out.",
        ),
        ("RELEASE_VSN", "1", "bluegreen_env: bin/<app> works out RELEASE_VSN itself. Leave it out."),
        ("A B", "1", "bluegreen_env: a variable name must be letters, digits and _, no digit first (got 'A B')"),
        ("A", None, "bluegreen_env: A has no value. Write '' for an empty one."),
        ("A", [], "bluegreen_env: A must be text, a number or true/false (got a list)"),
        ("A", "x" * 65537, "bluegreen_env: the value of A must have at most 65536 bytes (got 65537)"),
        ("A", "\ud800", "bluegreen_env: the value of A is not valid Unicode"),
    ],
)
def test_what_a_refused_variable_is_told(name, value, text):
    with pytest.raises(Refused) as refused:
        _envfile.from_mapping({name: value})
    assert str(refused.value) == text


def test_what_becomes_of_a_mapping():
    found = _envfile.from_mapping({"A": True, "B": False, "C": 7, "D": 1.5, "E": "x" * 65536})
    assert found == {"A": "true", "B": "false", "C": "7", "D": "1.5", "E": "x" * 65536}
    with pytest.raises(Refused, match="^here must be a mapping of variable names to values$"):
        _envfile.from_mapping([], "here")


def test_what_becomes_of_a_dotenv_file():
    text = "  # a comment\n\n  A=1 \r\nexport  B='two # words' # why\nC=a #b #c\nD=\"q\\\"d\\$\"\nE=''\nF=\nG=xX\r\n"
    wanted = {"A": "1", "B": "two # words", "C": "a", "D": 'q"d$', "E": "", "F": "", "G": "xX"}
    assert _envfile.parse_dotenv(text) == wanted
    assert _envfile.parse_dotenv("A='b'c'd'".replace("c'd'", "")) == {"A": "b"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x", "bluegreen_env_file line 1: each line must be NAME=value, with a name of letters, digits and _"),
        ("A=1\nB='x", "bluegreen_env_file line 2: the quote that opens the value of B is not closed on that line"),
        ('A="x', "bluegreen_env_file line 1: the quote that opens the value of A is not closed on that line"),
        ("A='x' y", "bluegreen_env_file line 1: something follows the closing quote of A"),
        ("A='x'y'", "bluegreen_env_file line 1: something follows the closing quote of A"),
        (
            'A="$x"',
            "bluegreen_env_file line 1: A has a $ or a backtick in double quotes. Put the value in single quotes.",
        ),
        ("A=$x", "bluegreen_env_file line 1: A has a quote, $, backtick or backslash. Put the value in single quotes."),
        ("PORT=1", "bluegreen_env_file line 1: PORT belongs to the slot. Set bluegreen_ports instead."),
    ],
)
def test_what_a_refused_dotenv_file_is_told(text, says):
    with pytest.raises(Refused) as refused:
        _envfile.parse_dotenv(text)
    assert str(refused.value) == says


def test_dotenv_files_that_are_read_and_that_are_not(tmp_path, monkeypatch):
    path = tmp_path / ".env"
    path.write_text("A='ž'\n", encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _envfile.read_dotenv(str(path)) == _envfile.read_dotenv("~/.env") == {"A": "ž"}
    path.write_text("x")
    with pytest.raises(Refused, match=f"^bluegreen_env_file {path} line 1: each line must be NAME=value"):
        _envfile.read_dotenv(str(path))
    path.write_bytes(b"A=\xff\n")
    with pytest.raises(Refused, match=f"^bluegreen_env_file cannot be read: it is not UTF-8: {path}$"):
        _envfile.read_dotenv(str(path))
    with pytest.raises(Refused, match=f"^bluegreen_env_file cannot be read: No such file or directory: {path}x$"):
        _envfile.read_dotenv(f"{path}x")


def test_all_that_a_slot_gets():
    own = {
        "BLUEGREEN_COLOR": "blue",
        "BLUEGREEN_LIVE_FILE": "/opt/app/live/is-blue",
        "BLUEGREEN_NODES": "",
        "BLUEGREEN_VM_FLAGS": "",
        "ERL_AFLAGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "ERL_CRASH_DUMP": "/opt/app/state/blue/erl_crash.dump",
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "HOME": "/opt/app/state/blue",
        "LANG": "C.UTF-8",
        "PHX_HOST": "example.com",
        "PHX_SERVER": "true",
        "PORT": "4000",
        "RELEASE_COOKIE": "c" * 48,
        "RELEASE_DISTRIBUTION": "name",
        "RELEASE_NODE": "app_blue@127.0.0.1",
        "RELEASE_TMP": "/opt/app/state/blue/tmp",
    }
    assert in_slot("blue", {}) == own
    assert in_slot("blue", {"LANG": "de", "PHX_HOST": "x", "RELEASE_COOKIE": "y"}) == {
        **own,
        **{"LANG": "de", "PHX_HOST": "x", "RELEASE_COOKIE": "y"},
    }
    assert "PHX_HOST" not in _envfile.slot_env({}, "blue", 1, "app", "/opt/app/state/blue", "", "*.example.com")


def test_what_lies_in_the_state_directory_moves_with_the_slot():
    blue = in_slot(
        "blue", {"HOME": "/opt/app/state/blue/home", "ERL_CRASH_DUMP": "/var/dump", "DATA": "/opt/app/state/blue"}
    )
    green = _envfile.for_slot(blue, "green", 5000, "app", "/opt/app/state/green")
    assert (green["HOME"], green["ERL_CRASH_DUMP"]) == ("/opt/app/state/green/home", "/var/dump")
    # A value of the user's stays what it is.
    assert green["DATA"] == "/opt/app/state/blue" and green["RELEASE_NODE"] == "app_green@127.0.0.1"
    # One that was written by somebody else names no directory of a slot.
    assert _envfile.for_slot({"A": "1", "RELEASE_TMP": "/x"}, "green", 1, "app", "/s")["A"] == "1"
    assert _envfile.for_slot({"A": "1"}, "green", 1, "app", "/s")["A"] == "1"


def test_the_id_of_an_environment_is_the_same_for_ever():
    """It is in the facts and in names of files: another way to work it out would make all of them strangers."""
    assert (
        _envfile.env_id(in_slot("blue", {"A": "1"})) == _envfile.env_id(in_slot("green", {"A": "1"})) == "8463944de56e"
    )
    assert len(_envfile.env_id({"A": "\udcff"})) == 12


def test_packed_in_the_order_of_names():
    assert _envfile.pack({"B": "1", "A": "ž"}) == _envfile.pack({"A": "ž", "B": "1"})
    assert _envfile.unpack(_envfile.pack({"B": "1", "A": "ž"})) == {"A": "ž", "B": "1"}


def test_what_names_the_slot_is_no_secret():
    env = in_slot("blue", {"SECRET": "s3cr3t-word"})
    text = "/opt/app/state/blue/erl_crash.dump of app_blue at example.com in C.UTF-8: s3cr3t-word " + "c" * 48
    assert _envfile.redact(text, env) == text.replace("s3cr3t-word", "<SECRET>").replace("c" * 48, "<RELEASE_COOKIE>")
    assert _envfile.redact("žluť", {"A": "žluť"}) == "<A>"
    numbers = ",".join(str(byte) for byte in "žluť".encode())
    assert _envfile.readable(f"<<{numbers}>>") == '"žluť"'


def test_read_back_whatever_is_between():
    assert _envfile.parse('A="1"\n\nB="2"\n') == {"A": "1", "B": "2"}


# --- what differs between the slots -----------------------------------------------------------------------------------


def slot(user, color):
    port = {"blue": 4000, "green": 5000}[color]
    return _envfile.slot_env(user, color, port, "app", f"/opt/app/state/{color}", "cookie", "a.test")


DIFFERING = st.sampled_from(["METRICS_PORT", "NODE", "POOL", "OTHER"])
TEXTS = st.text("abc019", max_size=4)


@given(
    st.dictionaries(DIFFERING, TEXTS),
    st.dictionaries(DIFFERING, TEXTS),
    st.dictionaries(DIFFERING, TEXTS),
    st.sampled_from(["blue", "green"]),
)
def test_each_slot_gets_what_is_meant_for_it(both, blue, green, color):
    user = _envfile.unpack(_envfile.pack(_envfile.with_colors(both, {"blue": blue, "green": green})))
    wanted = {"blue": {**both, **blue}, "green": {**both, **green}}
    there = slot(user, color)
    assert {name: there[name] for name in wanted[color]} == wanted[color]
    assert not set(there) & (set(wanted["blue"]) | set(wanted["green"])) - set(wanted[color])
    # It is one environment in both slots, and moving it to the other one gives that its own.
    other = {"blue": "green", "green": "blue"}[color]
    assert _envfile.env_id(there) == _envfile.env_id(slot(user, other))
    moved = _envfile.for_slot(there, other, {"blue": 4000, "green": 5000}[other], "app", f"/opt/app/state/{other}")
    assert moved == slot(user, other)
    assert _envfile.changes(there, moved) == {"added": [], "removed": [], "changed": []}


def test_a_change_for_one_slot_is_a_change():
    one, two = (_envfile.with_colors({"A": "1"}, {"blue": {"P": port}, "green": {"P": "2"}}) for port in ("1", "3"))
    assert _envfile.env_id(slot(one, "green")) != _envfile.env_id(slot(two, "green"))
    assert _envfile.changes(slot(one, "green"), slot(two, "green"))["changed"] == ["P"]
    plain = slot({"A": "1"}, "green")
    assert _envfile.changes(plain, slot(one, "green")) == {"added": ["P"], "removed": [], "changed": []}
    assert _envfile.with_colors({"A": "1"}, {"blue": {}, "green": {}}) == {"A": "1"}


def test_an_expression_beside_a_slot_serves_nobody():
    env = _envfile.for_eval(slot({"A": "1"}, "green"))
    assert "PHX_SERVER" not in env and (env["PORT"], env["A"]) == ("0", "1")
    assert env["BLUEGREEN_LIVE_FILE"] == "/opt/app/live/is-eval"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ERL_AFLAGS", "Set ERL_FLAGS instead"),
        ("ERL_EPMD_ADDRESS", "Set bluegreen_cluster instead"),
        ("BLUEGREEN_CLUSTER", "Set bluegreen_cluster instead"),
        ("RELEASE_DISTRIBUTION", "tells the two slots apart"),
    ],
)
def test_what_keeps_a_node_to_itself_is_not_for_the_user(name, says):
    with pytest.raises(Refused, match=says):
        _envfile.from_mapping({name: "x"})


@pytest.mark.parametrize("cookie", ["", "two words", "c" * 241, "kéks", "tab\t"])
def test_cookies_that_erlang_would_not_take(cookie):
    with pytest.raises(Refused, match="RELEASE_COOKIE must be 1 to 240") as refused:
        _envfile.from_mapping({"RELEASE_COOKIE": cookie})
    assert not cookie or cookie not in str(refused.value)
    assert _envfile.from_mapping({"RELEASE_COOKIE": "my-own_cookie!"})
    with pytest.raises(Refused, match="the same in both slots"):
        _envfile.from_mapping({"RELEASE_COOKIE": "mine"}, "bluegreen_env_blue")


def test_what_readers_of_dotenv_agree_on():
    assert _envfile.parse_dotenv("\ufeffA=1\r\nB='a\\nb'\r\n") == {"A": "1", "B": "a\\nb"}
    assert _envfile.parse_dotenv('A="a\\\\n"') == {"A": "a\\n"}
    with pytest.raises(Refused, match="line end or tab that an env file cannot hold"):
        _envfile.parse_dotenv('KEY="-----BEGIN\\nabc"')
    with pytest.raises(Refused, match="PORT belongs to the slot. Set bluegreen_ports"):
        _envfile.parse_dotenv("PORT=4000")


def test_equal_values_are_told_by_a_hash_that_tells_nothing_else():
    blue, green = in_slot("blue", {"A": "1", "B": "2"}), in_slot("green", {"A": "1", "B": "3"})
    first, second = _envfile.digests(blue, "salt"), _envfile.digests(green, "salt")
    assert first["A"] == second["A"] and first["B"] != second["B"] and "PORT" not in first
    assert first["HOME"] == second["HOME"]
    assert _envfile.digests(blue, "pepper")["A"] != first["A"] and _envfile.digests({"A": "1"}, "") == {"A": ""}


def test_a_hash_that_hosts_can_compare():
    def env(color, cookie, **user):
        return _envfile.slot_env(user, color, 4000, "app", f"/opt/app/state/{color}", cookie, "a.test")

    one = _envfile.digest_across_hosts(env("blue", "c1", A="1"), "salt")
    assert one == _envfile.digest_across_hosts(env("green", "c2", A="1"), "salt")
    assert one != _envfile.digest_across_hosts(env("blue", "c1", A="2"), "salt")
    assert one != _envfile.digest_across_hosts(env("blue", "c1", A="1"), "another")
    assert _envfile.digest_across_hosts({}, "salt") == ""
