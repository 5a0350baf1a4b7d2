# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.beamops.bluegreen.plugins.module_utils import _app


@pytest.mark.parametrize(
    ("libraries", "expected"),
    [
        (["my_app-1.0.0-rc.1", "phoenix-1.7.0", "phoenix_live_view-1.0.0"], "my_app-1.0.0-rc.1"),
        (["my_app_web-1.0.0", "phoenix-1.7.0"], "my_app_web-1.0.0"),
        (["other-1.0.0"], "other-1.0.0"),
        (["other-1.0.0", "phoenix-1.7.0"], None),
        ([], None),
    ],
)
def test_where_a_release_has_its_static_files(app, tmp_path, libraries, expected):
    release = "1.0.0-rc.1-aaaaaaaa"
    lib = tmp_path / "releases" / release / "lib"
    for name in libraries:
        (lib / name / "priv/static").mkdir(parents=True)
    found = _app.static_dir(app, release)
    assert found == (f"{lib}/{expected}/priv/static" if expected else None)


def test_which_libraries_a_release_has(app, tmp_path):
    release = "1.0.0-rc.1-aaaaaaaa"
    lib = tmp_path / "releases" / release / "lib"
    for name in ("ecto-3.13.2", "ecto_sqlite3-0.1.0", "my_ecto_sql-1.0.0", "elixir-1.18.0"):
        (lib / name).mkdir(parents=True)
    assert app.has_library(release, "elixir") and not app.has_library(release, "ecto_sql")
    (lib / "ecto_sql-3.13.1").mkdir()
    assert app.has_library(release, "ecto_sql")
    assert not app.has_library(None, "ecto_sql") and not app.has_library("2.0.0-bbbbbbbb", "ecto_sql")


@pytest.mark.parametrize(
    ("text", "commit"), [('{"commit": "abc1234"}', "abc1234"), ("{}", ""), ("[]", ""), ("damaged", ""), (None, "")]
)
def test_what_was_written_down_of_a_release(app, tmp_path, text, commit):
    release = "1.0.0-aaaaaaaa"
    (tmp_path / "releases" / release).mkdir(parents=True)
    if text:
        (tmp_path / "releases" / release / ".bluegreen.json").write_text(text)
    assert app.commit(release) == commit and app.commit(None) == ""
