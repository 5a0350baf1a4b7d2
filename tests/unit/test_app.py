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
