# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.beamops.bluegreen.plugins.module_utils import _cluster, _envfile
from ansible_collections.beamops.bluegreen.plugins.modules import slot_join


def cluster(address, generations="together"):
    return _cluster.from_option({"address": address, "generations": generations})


@pytest.mark.parametrize("generations", ["together", "apart"])
def test_an_environment_of_another_host_gets_the_address_of_this_one(app, generations):
    """How nodes meet is of the environment that is taken over, where they listen of the host."""
    there = _envfile.slot_env(
        {"A": "1"}, "blue", 4000, "my_app", "/opt/my_app/state/blue", "c", "a.test", cluster("10.0.0.1", generations)
    )
    app.cluster = cluster("10.0.0.2")
    env = slot_join.own_env(app, _envfile.render(there))
    assert _cluster.from_env(env) == cluster("10.0.0.2", generations) and env["A"] == "1"
    assert _envfile.env_id(env) != _envfile.env_id(there)


def test_without_a_cluster_it_stays_as_it_is(app):
    there = _envfile.slot_env({"A": "1"}, "blue", 4000, "my_app", "/opt/my_app/state/blue", "c", "a.test")
    assert slot_join.own_env(app, _envfile.render(there)) == there
