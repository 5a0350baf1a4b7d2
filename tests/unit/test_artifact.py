# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import gzip
import io
import os
import pathlib
import re
import stat
import subprocess
import sys
import tarfile

import pytest
from ansible_collections.beamops.bluegreen.plugins.module_utils import _artifact, _files, _install
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure, Refused
from ansible_collections.beamops.bluegreen.plugins.plugin_utils import _transfer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

RELEASE = [
    ("bin/my_app", b"#!/bin/sh\n", 0o4755),
    ("releases/start_erl.data", b"13.1.5 1.2.3", 0o644),
    ("releases/1.2.3/env.sh", b"", 0o644),
    ("releases/COOKIE", b"secret", 0o644),
    ("lib/a/ebin/a.beam", b"x" * 5000, 0o666),
]


def make(path, files, *special):
    with tarfile.open(path, "w:gz") as archive:
        for name, content, mode in files:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            archive.addfile(info, io.BytesIO(content))
        for name, kind, target in special:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    return str(path)


def test_a_release_is_seen_and_unpacked(tmp_path):
    # Mix lists some members twice.
    path = make(tmp_path / "a.tar.gz", RELEASE + RELEASE[:2], ("lib/current", tarfile.SYMTYPE, "a"))
    found = _artifact.inspect(path, "my_app")
    assert found["version"] == "1.2.3" and found["sha256"] == _artifact.sha256_of(path)
    assert found["bytes"] == os.path.getsize(path) and found["unpacked_bytes"] >= 5000
    folder = tmp_path / "out"
    folder.mkdir()
    _artifact.unpack(path, str(folder))
    assert stat.S_IMODE((folder / "bin/my_app").stat().st_mode) == 0o555
    assert stat.S_IMODE((folder / "lib/a/ebin/a.beam").stat().st_mode) == 0o444
    assert stat.S_IMODE((folder / "releases/COOKIE").stat().st_mode) == 0o440
    assert os.readlink(folder / "lib/current") == "a"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "not a mix release"),
        (RELEASE[1:], "is a release of nothing, not of my_app"),
        ([("bin/your_app", b"x", 0o755)] + RELEASE[1:], "is a release of your_app, not of my_app"),
        ([("bin/my_app", b"x", 0o644)] + RELEASE[1:], "is not executable"),
        ([RELEASE[0], ("releases/start_erl.data", b"13.1.5 9.9.9", 0o644), RELEASE[2]], "has no releases/9.9.9"),
        ([RELEASE[0], ("releases/start_erl.data", b"../../x", 0o644), RELEASE[2]], "is damaged"),
        ([RELEASE[0], ("releases/start_erl.data", b"1 ../x", 0o644), RELEASE[2]], "got '../x'"),
    ],
)
def test_what_is_not_a_release_of_this_app_is_refused(tmp_path, files, said):
    with pytest.raises(Refused, match=said):
        _artifact.inspect(make(tmp_path / "a.tar.gz", files), "my_app")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(cut=st.floats(0.01, 0.99))
def test_every_truncation_is_noticed(tmp_path, cut):
    whole = make(tmp_path / "a.tar.gz", [*RELEASE, ("lib/noise", os.urandom(20000), 0o644)])
    half = tmp_path / "half.tar.gz"
    with open(whole, "rb") as stream:
        half.write_bytes(stream.read(int(os.path.getsize(whole) * cut)))
    with pytest.raises(Refused):
        _artifact.inspect(str(half), "my_app")


@pytest.mark.parametrize(
    "special",
    [
        # Each link by itself stays inside, if one only looks at the words.
        [("a/b/c/up", tarfile.SYMTYPE, "../../.."), ("bin/x", tarfile.SYMTYPE, "../a/b/c/up/../x")],
        [("bin/x", tarfile.SYMTYPE, "../a/b/c/up/../x"), ("a/b/c/up", tarfile.SYMTYPE, "../../..")],
        [("out", tarfile.SYMTYPE, "lib"), ("bin/x", tarfile.LNKTYPE, "out/a")],
        [("bin/x", tarfile.LNKTYPE, "lib/later")],
        [("bin/x", tarfile.LNKTYPE, "../../x")],
        [("lib/x", tarfile.SYMTYPE, "y"), ("lib/y", tarfile.SYMTYPE, "x")],
        [("bin/my_app", tarfile.SYMTYPE, "x")],
        [("releases/COOKIE", tarfile.SYMTYPE, "/etc/shadow")],
    ],
)
def test_links_are_followed_before_they_are_believed(tmp_path, special):
    with pytest.raises(Refused, match="link"):
        _artifact.inspect(make(tmp_path / "a.tar.gz", RELEASE, *special), "my_app")


NAME = st.text(st.sampled_from("ab./"), min_size=1, max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(NAME, st.sampled_from([tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE]), NAME),
        max_size=5,
    )
)
def test_nothing_is_ever_written_outside(tmp_path_factory, members):
    base = tmp_path_factory.mktemp("x")
    path, folder = make(base / "a.tar", [], *members), base / "in" / "side"
    folder.mkdir(parents=True)
    try:
        _artifact.unpack(path, str(folder))
    except (Refused, OSError):
        pass
    assert sorted(os.listdir(base)) == ["a.tar", "in"] and os.listdir(base / "in") == ["side"]
    for where, folders, files in os.walk(folder):
        for name in folders + files:
            place = os.path.join(where, name)
            assert os.path.realpath(place).startswith(str(folder))


def tree(folder):
    """What is below a directory: name to kind, mode and content."""
    found = {}
    for place in sorted(folder.rglob("*")):
        name, mode = str(place.relative_to(folder)), stat.S_IMODE(place.lstat().st_mode)
        if place.is_symlink():
            found[name] = os.readlink(place)
        else:
            found[name] = (mode, place.read_bytes() if place.is_file() else None)
    return found


def unpacked(path, folder, **kwargs):
    folder.mkdir()
    return _artifact.unpack(path, str(folder), **kwargs)


def keeper(folder):
    """A function that finds files by content, as a host does in its releases."""
    files = [place for place in folder.rglob("*") if place.is_file() and not place.is_symlink()]
    return {_artifact.sha256_of(str(place)): str(place) for place in files}.get


CONTENT = st.sampled_from([b"", b"a", b"b" * 5000, b"c" * 9000, os.urandom(3000)])
FILES = st.lists(
    st.tuples(st.sampled_from(["a", "b", "x/a", "x/y/b", "z"]), CONTENT, st.sampled_from([0o644, 0o755])), max_size=8
)


@settings(max_examples=60, deadline=None)
@given(FILES, FILES)
def test_a_delta_unpacks_to_the_same_as_the_whole(tmp_path_factory, old, new):
    tmp_path = tmp_path_factory.mktemp("thin")
    # A file where a directory is would not be a tarball that anybody makes.
    clean = [[entry for entry in files if entry[0] not in ("x", "x/y")] for files in (old, new)]
    links = [
        ("hard", tarfile.LNKTYPE, "bin/my_app"),
        ("soft", tarfile.SYMTYPE, "bin/my_app"),
        ("d", tarfile.DIRTYPE, ""),
    ]
    before = make(tmp_path / "old.tar.gz", RELEASE + clean[0])
    after = make(tmp_path / "new.tar.gz", RELEASE + clean[1], *links)
    host = unpacked(before, tmp_path / "old")
    whole = unpacked(after, tmp_path / "whole")
    files = _artifact.inspect(after, "my_app")["files"]
    without = _files.known_files(files, _files.fingerprint(host.values()))
    assert {name for name, _content, _mode in RELEASE} - without <= {name for name, _c, _m in clean[1]}
    _artifact.write_delta(after, str(tmp_path / "thin.tar.gz"), files, without)
    thin = unpacked(str(tmp_path / "thin.tar.gz"), tmp_path / "thin", kept=keeper(tmp_path / "old"), is_delta=True)
    assert tree(tmp_path / "thin") == tree(tmp_path / "whole") and thin == whole


def test_what_a_release_has_is_linked_and_takes_no_room(tmp_path):
    path = make(tmp_path / "a.tar.gz", RELEASE)
    files = unpacked(path, tmp_path / "one")
    # Also where all of it was sent.
    unpacked(path, tmp_path / "two", kept=keeper(tmp_path / "one"))
    inodes = [(tmp_path / folder / "lib/a/ebin/a.beam").stat().st_ino for folder in ("one", "two")]
    assert inodes[0] == inodes[1]
    size = _artifact.write_delta(path, str(tmp_path / "thin.tar.gz"), files, set(files))
    assert size < os.path.getsize(path) + 600 and _artifact.disk_usage(str(tmp_path / "thin.tar.gz")) == 4096 * 4


def test_a_delta_is_honoured_only_where_one_is_expected(tmp_path):
    path = make(tmp_path / "a.tar.gz", RELEASE)
    files = unpacked(path, tmp_path / "one")
    _artifact.write_delta(path, str(tmp_path / "thin.tar.gz"), files, {"releases/COOKIE"})
    # Somebody's artifact with this header gets an empty file, and nothing of another release.
    unpacked(str(tmp_path / "thin.tar.gz"), tmp_path / "two", kept=keeper(tmp_path / "one"))
    assert (tmp_path / "two/releases/COOKIE").read_bytes() == b""
    with pytest.raises(_artifact.MissingFile, match="no release on this host has releases/COOKIE any more"):
        unpacked(str(tmp_path / "thin.tar.gz"), tmp_path / "three", kept={}.get, is_delta=True)


def test_a_name_that_comes_twice_with_two_contents_is_sent(tmp_path):
    path = make(tmp_path / "a.tar.gz", RELEASE + [("lib/a/ebin/a.beam", b"other", 0o644)])
    assert "lib/a/ebin/a.beam" not in _artifact.inspect(path, "my_app")["files"]


def test_the_controller_makes_one_delta_for_hosts_that_have_the_same(tmp_path):
    big = [("lib/a/ebin/big.beam", os.urandom(200_000), 0o644)]
    path = make(tmp_path / "a.tar.gz", RELEASE + big)
    found = _transfer.inspect(path, "my_app", str(tmp_path))
    assert "files" not in found
    files = unpacked(path, tmp_path / "one")
    assert _transfer.delta_for(path, found, _files.fingerprint([]), str(tmp_path)) == (path, 0, 6)
    first = _transfer.delta_for(path, found, _files.fingerprint(files.values()), str(tmp_path))
    assert first[1:] == (6, 6) and os.path.getsize(first[0]) < 10_000
    inode = os.stat(first[0]).st_ino
    assert _transfer.delta_for(path, found, _files.fingerprint(files.values()), str(tmp_path)) == first
    assert os.stat(first[0]).st_ino == inode
    # Without the one large file there is nothing to be won.
    small = {name: sha256 for name, sha256 in files.items() if "big" not in name}
    assert _transfer.delta_for(path, found, _files.fingerprint(small.values()), str(tmp_path)) == (path, 0, 6)


def test_how_far_a_transfer_is(tmp_path, monkeypatch):
    monkeypatch.setattr(_transfer, "_TELL_SECONDS", 0.1)
    path, lines = tmp_path / "file", []
    path.write_bytes(b"x" * 3_000_000)
    # Whatever sends it reads it.
    reader = (
        "import sys, time\nfile = open(sys.argv[1], 'rb')\nfor _ in range(3): file.read(1_000_000); time.sleep(0.25)"
    )
    with _transfer.report_progress(str(path), lines.append):
        subprocess.run([sys.executable, "-uc", reader, str(path)], check=True)
    assert lines and all(
        re.fullmatch(r"[\d.]+ MB of 3\.0 MB sent, [\d.]+ [kM]B a second, \d+ s left", line) for line in lines
    )
    assert lines[-1].startswith("3.0 MB")


# --- in any shape ------------------------------------------------------------------------------------------------------


def test_a_release_below_one_folder_is_one(tmp_path):
    files = [(f"my_app/{name}", text, mode) for name, text, mode in RELEASE]
    mac = [("my_app/bin/._my_app", b"mac", 0o755), ("__MACOSX/my_app/x", b"mac", 0o644)]
    make(f"{tmp_path}/a.tar.gz", files + mac)
    assert _artifact.inspect(f"{tmp_path}/a.tar.gz", "my_app")["version"] == "1.2.3"
    (tmp_path / "out").mkdir()
    _artifact.unpack(f"{tmp_path}/a.tar.gz", f"{tmp_path}/out")
    assert {name for name, _text, _mode in RELEASE} == {
        str(one.relative_to(tmp_path / "out")) for one in (tmp_path / "out").rglob("*") if one.is_file()
    }


def test_one_file_that_is_there_twice_as_a_hard_link(tmp_path):
    link = ("./my_app/bin/my_app", tarfile.LNKTYPE, "./my_app/bin/real")
    files = [(f"my_app/{name}", text, mode) for name, text, mode in RELEASE[1:]]
    make(f"{tmp_path}/a.tar.gz", [*files, ("my_app/bin/real", b"start", 0o755)], link)
    assert _artifact.inspect(f"{tmp_path}/a.tar.gz", "my_app")["version"] == "1.2.3"
    (tmp_path / "out").mkdir()
    _artifact.unpack(f"{tmp_path}/a.tar.gz", f"{tmp_path}/out")
    assert (tmp_path / "out/bin/my_app").read_bytes() == b"start"


def test_scripts_of_the_users_own_are_no_releases(tmp_path):
    files = [
        *RELEASE,
        ("bin/migrate", b"", 0o755),
        ("bin/server", b"", 0o755),
        ("releases/1.2.3/my_app.rel", b"", 0o644),
    ]
    make(f"{tmp_path}/a.tar.gz", files)
    with pytest.raises(Refused, match="is a release of my_app, not of your_app"):
        _artifact.inspect(f"{tmp_path}/a.tar.gz", "your_app")


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
@pytest.mark.parametrize("place", [0.3, 0.6, 0.95])
def test_damage_is_a_sentence_in_any_compression(tmp_path, kind, place):
    path = f"{tmp_path}/a.tar.{kind}"
    with tarfile.open(path, f"w:{kind}") as archive:
        for name, text, mode in [*RELEASE, ("lib/noise", os.urandom(20000), 0o644)]:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(text), mode
            archive.addfile(member, io.BytesIO(text))
    whole = bytearray(pathlib.Path(path).read_bytes())
    middle = int(len(whole) * place)
    whole[middle : middle + 40] = bytes(40)
    pathlib.Path(path).write_bytes(whole)
    with pytest.raises(Refused, match="truncated or damaged|is not a tarball"):
        _artifact.inspect(path, "my_app")


def test_zstd_is_read_where_the_controller_can(tmp_path, monkeypatch):
    make(f"{tmp_path}/a.tar.gz", RELEASE)
    plain = tmp_path / "a.tar"
    plain.write_bytes(gzip.decompress((tmp_path / "a.tar.gz").read_bytes()))
    packed = tmp_path / "a.tar.zst"
    # The magic number, and a program that stands for zstd: what it does is not ours to test.
    packed.write_bytes(b"\x28\xb5\x2f\xfd" + plain.read_bytes())
    program = tmp_path / "bin/zstd"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\ntail -c +5 "$2"\n')
    program.chmod(0o755)
    with pytest.raises(Refused, match="compressed with zstd, which Python reads since 3.14"):
        _artifact.inspect(str(packed), "my_app")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Refused, match="there is no zstd on this machine"):
        _transfer.readable(str(packed), str(tmp_path))
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    info = _transfer.inspect(str(packed), "my_app", str(tmp_path))
    assert (info["version"], info["sha256"]) == ("1.2.3", _artifact.sha256_of(str(packed)))
    assert _transfer.readable(str(packed), str(tmp_path)).endswith(".tar.gz")
    assert _transfer.readable(f"{tmp_path}/a.tar.gz", str(tmp_path)) == f"{tmp_path}/a.tar.gz"
    program.write_text("#!/bin/sh\necho corrupted block >&2\nexit 1\n")
    packed.write_bytes(packed.read_bytes() + b"x")
    with pytest.raises(Refused, match="truncated or damaged: .*corrupted block"):
        _transfer.readable(str(packed), str(tmp_path))


def test_what_a_program_needs_of_a_host():
    assert _artifact.needs_of(b"#!/bin/sh") == {"machine": "", "loader": "", "glibc": ""}
    with open(sys.executable, "rb") as stream:
        mine = _artifact.needs_of(stream.read())
    assert mine["machine"] == os.uname().machine and os.path.exists(mine["loader"]) and mine["glibc"].startswith("2.")
    arm = b"\x7fELF\x02\x01" + bytes(12) + b"\xb7\x00" + b"/lib/ld-musl-aarch64.so.1\0"
    assert _artifact.needs_of(arm) == {"machine": "aarch64", "loader": "/lib/ld-musl-aarch64.so.1", "glibc": ""}
    assert _artifact.needs_of(arm + b"GLIBC_2.9\0GLIBC_2.34\0GLIBC_2.4")["glibc"] == "2.34"


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        ({}, None),
        ({"machine": os.uname().machine, "loader": "", "glibc": "2.2"}, None),
        ({"machine": "sparc"}, "was built for sparc, and this host is"),
        ({"loader": "/lib/ld-musl-x86_64.so.1"}, "was built for musl"),
        ({"glibc": "2.99"}, "it needs glibc 2.99, and this host has 2."),
    ],
)
def test_a_release_that_this_host_cannot_run(needs, said):
    if not said:
        _install.require_host(needs)
        return
    with pytest.raises(Failure, match=said):
        _install.require_host(needs)


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ("#!/bin/sh\n# export RELEASE_NODE=<%= @release.name %>\n", None),
        ("export RELEASE_NODE=shop@10.0.0.1\n", 1),
        ('a=b\n  RELEASE_NODE="shop@$(hostname -f)"\n', 2),
        ('export RELEASE_NODE="${RELEASE_NODE:-shop}"\n', None),
        ('if [ -z "$RELEASE_NODE" ]; then\n  export RELEASE_NODE=shop\nfi\n', None),
        ('export RELEASE_NODE="shop_$BLUEGREEN_COLOR"\n', None),
    ],
)
def test_a_script_that_names_the_node(tmp_path, script, line):
    make(f"{tmp_path}/a.tar.gz", [*RELEASE, ("releases/1.2.3/env.sh", script.encode(), 0o644)])
    if line is None:
        _artifact.inspect(f"{tmp_path}/a.tar.gz", "my_app")
        return
    with pytest.raises(Refused, match=f"releases/1.2.3/env.sh of the artifact names the node in line {line}: "):
        _artifact.inspect(f"{tmp_path}/a.tar.gz", "my_app")
