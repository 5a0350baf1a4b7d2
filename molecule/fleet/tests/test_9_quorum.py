# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that comes back with an old release leaves itself out of the balancer (bluegreen_quorum); a cut network changes nothing."""

from __future__ import annotations

import contextlib
import os
import sys
import time

import pytest

sys.path.insert(0, os.path.join(os.environ["MOLECULE_PROJECT_DIRECTORY"], "tests"))

from support.fleet import HOSTS, SITES, asking, broken, inside, make_one, play
from support.fleet import cut_off as cut_off_from_us

# Their inventory reaches them through ports of this machine; each other, by addresses of their own.
ADDRESS = "172.30.231.1{{ groups.bluegreen.index(inventory_hostname) + 1 }}"
QUORUM = {"bluegreen_quorum": {"address": ADDRESS}}
BACK = HOSTS[2]


@pytest.fixture(scope="module", autouse=True)
def group():
    make_one()
    play("setup", QUORUM)
    assert play("setup", QUORUM).changed() == 0
    for host in HOSTS:
        assert inside(
            host, "systemctl is-active sample_app-quorum.timer; systemctl is-enabled sample_app-quorum.timer"
        ).split() == [
            "active",
            "enabled",
        ]
        # Each minute; here the test says when.
        inside(host, "systemctl stop sample_app-quorum.timer")
    yield
    play("setup")


def look(host):
    """What the timer does each minute. Returns what it said."""
    inside(host, "systemctl start sample_app-quorum")
    return inside(host, "journalctl -u sample_app-quorum -o cat -n 3 | grep '^out\\|^in ' || true")


def health(host):
    return SITES[host].get("/health").status_code


@contextlib.contextmanager
def cut_off(host):
    """While the block runs, the others do not reach a host, nor it them."""
    others = [inside(one, "hostname -I").split()[0] for one in HOSTS if one != host]
    with contextlib.ExitStack() as stack:
        for address in others:
            stack.enter_context(broken(host, f"ip route add blackhole {address}", f"ip route del blackhole {address}"))
        yield


def test_a_host_that_comes_back_alone_is_left_out():
    live = SITES[BACK].color()
    idle = {"blue": "green", "green": "blue"}[live]
    with asking():
        with cut_off_from_us(BACK):
            play("promote", {"color": idle, "bluegreen_lost_hosts": "proceed", **QUORUM})
        assert (SITES[BACK].color(), SITES[HOSTS[0]].color()) == (live, idle)
        # A run at work is none of its business.
        with broken(BACK, "echo '{}' >/opt/sample_app/lock", "rm /opt/sample_app/lock"):
            look(BACK)
            assert health(BACK) == 200
        assert look(BACK).endswith("out: 2 of 3 hosts serve another release")
        assert look(HOSTS[0]) == ""
        # A balancer is told, and who comes all the same is served.
        assert [health(host) for host in HOSTS] == [200, 200, 503]
        assert SITES[BACK].get().status_code == 200 and SITES[BACK].color() == live
        look(BACK)
        assert health(BACK) == 503
    said = play("status", QUORUM).says()
    assert f"{BACK}: 2 of 3 hosts serve another release, so its health path answers 503 (bluegreen_quorum)" in said
    # The next run makes the group one, and the host answers at once.
    play("promote", {"color": idle, **QUORUM})
    assert [health(host) for host in HOSTS] == [200, 200, 200] and SITES[BACK].color() == idle


@pytest.mark.long
def test_it_comes_back_by_itself_when_the_others_come_to_it():
    idle = SITES[BACK].color()
    live = {"blue": "green", "green": "blue"}[idle]
    with cut_off_from_us(BACK):
        play("promote", {"color": live, "bluegreen_lost_hosts": "proceed", **QUORUM})
    look(BACK)
    assert health(BACK) == 503
    with cut_off_from_us(BACK):
        play("promote", {"color": idle, "bluegreen_lost_hosts": "proceed", **QUORUM})
    assert "in again" in look(BACK) and health(BACK) == 200


@pytest.mark.long
def test_two_halves_stay_as_they_are():
    """A host that sees nobody knows nothing, and neither do those that see no majority of the whole group serve something else."""
    with cut_off(BACK):
        began = time.monotonic()
        assert look(BACK) == "" and time.monotonic() - began < 20
        assert look(HOSTS[0]) == "" and [health(host) for host in HOSTS] == [200, 200, 200]
