# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import io
import os
import stat
import tarfile

import pytest
from ansible_collections.beamops.bluegreen.plugins.module_utils import _artifact
from ansible_collections.beamops.bluegreen.plugins.module_utils._rules import Refused
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
        ([RELEASE[0], ("releases/start_erl.data", b"1 ../x", 0o644), RELEASE[2]], "version is '../x'"),
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
