# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.beamops.bluegreen.plugins.module_utils import _info


def test_which_run_decided_what_is_live():
    a, b = {"color": "blue", "release": "a"}, {"color": "green", "release": "b"}
    died = {"operation": "rollback", "result": "died", "from": b, "to": a}
    nothing = [
        {"operation": "rollback", "result": "failed", "from": a, "to": a},
        {"operation": "rollback", "result": "died", "from": a, "to": a},
        {"operation": "maintenance", "result": "ok", "from": a, "to": a},
    ]
    assert _info.last_run([died, *nothing]) == died
    ended = {"operation": "rollback", "result": "ok", "from": b, "to": a}
    assert _info.last_run([died, ended, *nothing]) == ended
    assert _info.last_run([]) is None and _info.last_run(nothing) is None
