# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An app that is not Elixir goes through the same playbooks: the example of docs/how-to/other-languages.md, as it stands there."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess

import pytest
import yaml
from support.bluegreen import Client, Site

PAGE = (pathlib.Path(os.environ["MOLECULE_PROJECT_DIRECTORY"]) / "docs/how-to/other-languages.md").read_text()
MAKING = re.search(r"```sh\n(.*?)```", PAGE, re.DOTALL)[1]
HELLO = yaml.safe_load(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1])


def artifact(folder, version):
    folder.mkdir()
    subprocess.run(["sh", "-euc", MAKING.replace("0.1.0", version)], cwd=folder, check=True)
    return {"bluegreen_artifact": str(folder / f"hello-{version}.tar.gz")}


@pytest.mark.long
def test_the_cycle_of_an_app_without_erlang(host, play, tmp_path):
    site = Site(18180, HELLO["bluegreen_domain"])
    play("deploy", HELLO, artifact(tmp_path / "one", "0.1.0"))
    assert site.version() == "0.1.0"
    with Client(site) as client:
        new = artifact(tmp_path / "two", "0.1.1")
        play("deploy", HELLO, new)
        assert site.version() == "0.1.0"
        play("promote", HELLO)
        assert site.version() == "0.1.1"
        assert play("deploy", HELLO, new).changed() == 0
        play("rollback", HELLO)
    assert client.failed == [] and set(client.seen) == {"blue", "green"}
    assert site.version() == "0.1.0"
    told = play("status", HELLO, "strict=true").text
    assert "0.1.0-" in told and "0.1.1-" in told
    # Its port mapper is not started again and again: there is none to start.
    assert host.check_output("systemctl show -P NRestarts,ConditionResult hello-epmd").split() == ["0", "no"]
