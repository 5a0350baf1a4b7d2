# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""build.yml, both ways; what it makes is what deploy.yml takes."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest
from support.bluegreen import artifact


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def rebuild(path, to, number):
    """The same release with other content."""
    folder = to.with_suffix("")
    folder.mkdir()
    subprocess.run(["tar", "-C", str(folder), "-xzf", str(path)], check=True)
    (folder / "lib" / "number").write_text(str(number))
    subprocess.run(["tar", "-C", str(folder), "-czf", str(to), "."], check=True)


SAMPLE = pathlib.Path(os.environ["MOLECULE_PROJECT_DIRECTORY"]) / "tests" / "sample_app"


def test_with_mix(tmp_path, play):
    source = shutil.copytree(SAMPLE, tmp_path / "app", ignore=shutil.ignore_patterns("_build"))
    run = play("build", f"bluegreen_build_dir={source}")
    made = source / "_build" / "prod" / "sample_app-0.1.0.tar.gz"
    assert made.exists()
    assert f"bluegreen_artifact={made}" in "".join(run.text.split("\n"))
    play("deploy", f"bluegreen_artifact={made}", "--check")
    # Not from a git repository, so there is nothing to tell.
    commit = pathlib.Path(f"{made}.commit")
    assert not commit.exists()
    # Other commands, in their order, in that directory.
    made.unlink()
    commands = ["touch made-by-hand", "mix release sample_app --overwrite", "mv made-by-hand made-after"]
    play("build", {"bluegreen_build_dir": str(source), "bluegreen_build_commands": commands})
    assert made.exists() and (source / "made-after").exists()
    # What makes no tarball says what mix.exs must have.
    made.unlink()
    commands = {"bluegreen_build_dir": str(source), "bluegreen_build_commands": ["true"]}
    play("build", commands, rc=2).says("mix release built no sample_app-*.tar.gz", "steps: [:assemble, :tar]")


@pytest.mark.long
def test_the_commit_goes_from_the_build_into_status_and_history(host, tmp_path, play):
    """In a file beside the artifact, which counts for that artifact alone."""
    source = shutil.copytree(SAMPLE, tmp_path / "app", ignore=shutil.ignore_patterns("_build"))
    git = ["git", "-C", str(source), "-c", "user.name=x", "-c", "user.email=x@example.com"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    commit = subprocess.run(
        [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    play("build", f"bluegreen_build_dir={source}")
    made = source / "_build" / "prod" / "sample_app-0.1.0.tar.gz"
    beside = pathlib.Path(f"{made}.commit")
    # What was built is in it by now, beside what was committed.
    assert beside.read_text().split()[1].removesuffix("-dirty") == commit
    for number, (text, given, shown) in enumerate(
        (
            (beside.read_text(), {}, beside.read_text().split()[1]),
            (beside.read_text(), {"bluegreen_commit": "v1.2.3"}, "v1.2.3"),
            (f"{'0' * 64} {commit}\n", {}, ""),
            ("no such thing", {}, ""),
        )
    ):
        other = tmp_path / f"other-{number}.tar.gz"
        rebuild(made, other, number)
        pathlib.Path(f"{other}.commit").write_text(text.replace(sha256(made), sha256(other)))
        play("deploy", {"bluegreen_artifact": str(other), "bluegreen_force": True, **given})
        said = play("status", {"format": "json", "out": str(tmp_path / "status.json")}).says()
        slots = json.loads((tmp_path / "status.json").read_text())["hosts"]["bluegreen-web1"]["slots"]
        idle = next(slot for slot in slots.values() if sha256(other)[:8] in (slot["release"] or ""))
        assert idle["commit"] == shown and (f" commit {shown} " in said if shown else True)
        if given:
            play("promote")
            assert "commit v1.2.3" in play("status", "history=1").says()
            play("rollback")


def test_with_assets(tmp_path, play):
    """What mix phx.new writes has an alias for them, and a version that is computed."""
    source = shutil.copytree(SAMPLE, tmp_path / "app", ignore=shutil.ignore_patterns("_build"))
    mix = (source / "mix.exs").read_text()
    mix = mix.replace("deps: [", 'aliases: ["assets.deploy": ["cmd touch deployed"]],\n      deps: [')
    (source / "mix.exs").write_text(mix.replace('System.get_env("SAMPLE_VERSION", "0.1.0")', '"0.1." <> "7"'))
    play("build", f"bluegreen_build_dir={source}").says("sample_app-0.1.7.tar.gz")
    assert (source / "deployed").exists()


def left_behind():
    """Containers of the image, and directories of what was copied out of one."""
    words = ["docker", "ps", "--all", "--quiet", "--filter", "ancestor=sample_app"]
    found = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    return {*found, *pathlib.Path(tempfile.gettempdir()).glob("bluegreen-build-*")}


@pytest.mark.long
def test_with_the_dockerfile_of_phoenix(tmp_path, play):
    """The release itself is in /app, without a tarball."""
    shutil.copy(artifact("sample_app-0.1.0"), tmp_path / "built.tar.gz")
    (tmp_path / "Dockerfile").write_text(f"FROM {os.environ['BLUEGREEN_TEST_IMAGE']}\nADD built.tar.gz /app/\n")
    play("build", {"bluegreen_build_with": "docker", "bluegreen_build_dir": str(tmp_path)})
    made = tmp_path / "sample_app-0.1.0.tar.gz"
    play("deploy", f"bluegreen_artifact={made}", "--check")
    (tmp_path / "Dockerfile").write_text(f"FROM {os.environ['BLUEGREEN_TEST_IMAGE']}\nRUN mkdir -p /app/empty\n")
    before = left_behind()
    run = play("build", {"bluegreen_build_with": "docker", "bluegreen_build_dir": str(tmp_path)}, rc=2)
    assert left_behind() == before
    run.says("has neither sample_app-*.tar.gz nor a release", "mix phx.gen.release --docker")
    # An image that no container can be made of.
    (tmp_path / "Dockerfile").write_text("FROM scratch\nADD built.tar.gz /app/\n")
    run = play("build", {"bluegreen_build_with": "docker", "bluegreen_build_dir": str(tmp_path)}, rc=2)
    assert left_behind() == before
    assert "no command specified" in run.text.lower()


def test_with_docker(tmp_path, play):
    """The Dockerfile stands for one that runs mix release; a container of it is made, and never run."""
    shutil.copy(SAMPLE / "mix.exs", tmp_path)
    shutil.copy(artifact("sample_app-0.1.0"), tmp_path / "built.tar.gz")
    (tmp_path / "Dockerfile").write_text(
        f"FROM {os.environ['BLUEGREEN_TEST_IMAGE']}\nCOPY built.tar.gz /app/sample_app-0.1.0.tar.gz\n"
    )
    goal = {"bluegreen_build_with": "docker", "bluegreen_build_dir": str(tmp_path), "bluegreen_version": "0.1.0"}
    before = left_behind()
    # Once, however many hosts the group has.
    pair = tmp_path / "pair.yml"
    pair.write_text("bluegreen:\n  hosts:\n    beside:\n")
    run = play("build", {**goal, "bluegreen_commit": "v1.2.3"}, "-i", str(pair))
    assert run.text.count("next: deploy.yml") == 1
    made = tmp_path / "sample_app-0.1.0.tar.gz"
    assert made.stat().st_size == (tmp_path / "built.tar.gz").stat().st_size
    assert pathlib.Path(f"{made}.commit").read_text().split()[1] == "v1.2.3"
    assert left_behind() == before
