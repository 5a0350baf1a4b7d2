# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""build.yml, both ways; what it makes is what deploy.yml takes."""

from __future__ import annotations

import os
import pathlib
import shutil

from support.bluegreen import artifact

SAMPLE = pathlib.Path(os.environ["MOLECULE_PROJECT_DIRECTORY"]) / "tests" / "sample_app"


def test_with_mix(tmp_path, play):
    source = shutil.copytree(SAMPLE, tmp_path / "app", ignore=shutil.ignore_patterns("_build"))
    run = play("build", f"bluegreen_build_dir={source}")
    made = source / "_build" / "prod" / "sample_app-0.1.0.tar.gz"
    assert made.exists()
    assert f"bluegreen_artifact={made}" in "".join(run.text.split("\n"))
    play("deploy", f"bluegreen_artifact={made}", "--check")
    # Other commands, in their order, in that directory.
    made.unlink()
    commands = ["touch made-by-hand", "mix release sample_app --overwrite", "mv made-by-hand made-after"]
    play("build", {"bluegreen_build_dir": str(source), "bluegreen_build_commands": commands})
    assert made.exists() and (source / "made-after").exists()


def test_with_assets(tmp_path, play):
    """What mix phx.new writes has an alias for them, and a version that is computed."""
    source = shutil.copytree(SAMPLE, tmp_path / "app", ignore=shutil.ignore_patterns("_build"))
    mix = (source / "mix.exs").read_text()
    mix = mix.replace("deps: [],", 'deps: [],\n      aliases: ["assets.deploy": ["cmd touch deployed"]],')
    (source / "mix.exs").write_text(mix.replace('System.get_env("SAMPLE_VERSION", "0.1.0")', '"0.1." <> "7"'))
    play("build", f"bluegreen_build_dir={source}").says("sample_app-0.1.7.tar.gz")
    assert (source / "deployed").exists()


def test_with_the_dockerfile_of_phoenix(tmp_path, play):
    """The release itself is in /app, without a tarball."""
    shutil.copy(artifact("sample_app-0.1.0"), tmp_path / "built.tar.gz")
    (tmp_path / "Dockerfile").write_text(f"FROM {os.environ['BLUEGREEN_TEST_IMAGE']}\nADD built.tar.gz /app/\n")
    play("build", {"bluegreen_build_with": "docker", "bluegreen_build_dir": str(tmp_path)})
    made = tmp_path / "sample_app-0.1.0.tar.gz"
    play("deploy", f"bluegreen_artifact={made}", "--check")
    (tmp_path / "Dockerfile").write_text(f"FROM {os.environ['BLUEGREEN_TEST_IMAGE']}\nRUN mkdir -p /app/empty\n")
    run = play("build", {"bluegreen_build_with": "docker", "bluegreen_build_dir": str(tmp_path)}, rc=2)
    run.says("has neither sample_app-*.tar.gz nor a release", "mix phx.gen.release --docker")


def test_with_docker(tmp_path, play):
    """The Dockerfile stands for one that runs mix release; a container of it is made, and never run."""
    shutil.copy(SAMPLE / "mix.exs", tmp_path)
    shutil.copy(artifact("sample_app-0.1.0"), tmp_path / "built.tar.gz")
    (tmp_path / "Dockerfile").write_text(
        f"FROM {os.environ['BLUEGREEN_TEST_IMAGE']}\nCOPY built.tar.gz /app/sample_app-0.1.0.tar.gz\n"
    )
    goal = {"bluegreen_build_with": "docker", "bluegreen_build_dir": str(tmp_path), "bluegreen_version": "0.1.0"}
    play("build", goal)
    assert (tmp_path / "sample_app-0.1.0.tar.gz").stat().st_size == (tmp_path / "built.tar.gz").stat().st_size
