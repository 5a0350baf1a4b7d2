# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One cluster over three hosts: its nodes meet, also after a reboot and a cut, and hear each other through every switch."""

from __future__ import annotations

import contextlib
import json
import os
import time

import pytest
import requests
import yaml
from support import fleet
from support.bluegreen import Listener, artifact, wait_until
from support.fleet import HOSTS, SITES, asking, broken, inside, make_one
from support.machines import reboot

# `make test-faults` makes it twenty.
SWITCHES = int(os.environ.get("BLUEGREEN_CLUSTER_SWITCHES", "2"))
# That a peer is gone is noticed in seconds and not in a minute.
TICK = {"bluegreen_env": {"SECRET_KEY_BASE": "molecule-secret-key-base", "ERL_FLAGS": "-kernel net_ticktime 4"}}


def address(host):
    return inside(host, "hostname -I").split()[0]


def inventory(path, clusters):
    hosts = {host: {"bluegreen_cluster": cluster} for host, cluster in clusters.items()}
    path.write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    return str(path)


@pytest.fixture(scope="module")
def clustered(tmp_path_factory):
    """An inventory beside the one of the scenario, in which the hosts are one cluster."""
    folder = tmp_path_factory.mktemp("inventory")
    return inventory(folder / "cluster.yml", {host: {"address": address(host)} for host in HOSTS})


def other(color):
    return {"blue": "green", "green": "blue"}[color]


@contextlib.contextmanager
def cut_off(host):
    """While the block runs, the other hosts do not reach a host. Nobody needs that network to get in and repair it."""
    route, others = f"blackhole {address(host)}/32", [one for one in HOSTS if one != host]
    with contextlib.ExitStack() as stack:
        for one in others:
            stack.enter_context(broken(one, f"ip route add {route}", f"ip route del {route}"))
        yield


@pytest.fixture(scope="module")
def play(clustered):
    def run(name, *args, **kwargs):
        return fleet.play(name, "-i", clustered, TICK, *args, **kwargs)

    return run


def deploy(play, version, *args, **kwargs):
    return play(
        "deploy", {"bluegreen_artifact": artifact(f"sample_app-{version}"), "bluegreen_force": True}, *args, **kwargs
    )


def seen(host, color="live", app="sample_app"):
    """The nodes that a node is connected with, as it says itself."""
    return set(inside(host, f"/opt/{app}/bin/{app} {color} rpc 'Node.list() |> Enum.each(&IO.puts/1)'").split())


def nodes(color, but=None):
    return {f"sample_app_{color}@{address(host)}" for host in HOSTS if host != but}


def both(but):
    """What a node sees where both slots of all hosts are one cluster; V(but) is its own name."""
    return (nodes("blue") | nodes("green")) - {but}


@pytest.fixture
def connected(play):
    """What is live on the hosts is one cluster, whatever a test before has left."""
    if any(
        f"@{address(host)}" not in inside(host, "/opt/sample_app/bin/sample_app live rpc 'IO.puts(node())'")
        for host in HOSTS
    ):
        deploy(play, "0.1.1", "bluegreen_promote=true")
    wait_for_cluster()


def wait_for_cluster(*hosts):
    live = {host: f"sample_app_{SITES[host].color()}@{address(host)}" for host in HOSTS}
    for host in hosts or HOSTS:
        wait_until(lambda host=host: seen(host) >= set(live.values()) - {live[host]}, 30)


def pids(*but):
    return {host: SITES[host].pid() for host in HOSTS if host not in but}


def reachable(host):
    """Ports that somebody outside of a host could connect to, and on which address of it."""
    places = {line.split()[3] for line in inside(host, "ss -ltnH").splitlines()}
    return {place for place in places if not place.startswith(("127.", "[::1]"))}


def say(host, text):
    """Say something to all websockets from the live slot of a host. Returns how many it knows of."""
    answer = requests.post(SITES[host].base + "/broadcast", text, headers=SITES[host].headers, timeout=10)
    assert answer.status_code == 200
    return int(answer.text)


def all_hear(listeners):
    """Every listener hears once what somebody says on each of the hosts. Fails if one does not, or twice."""
    # A newcomer is known everywhere a moment later.
    wait_until(lambda: all(say(host, "") == len(listeners) for host in HOSTS), 10)
    for host in HOSTS:
        said = f"from {host} at {time.time_ns()}"
        say(host, said)
        wait_until(lambda said=said: all(said in listener.heard for listener in listeners), 10)
        assert {listener.heard.count(said) for listener in listeners} == {1}


# --- meeting ---------------------------------------------------------------------------------------------------------


def test_a_group_becomes_a_cluster_with_its_next_deploy_and_goes_back(play):
    live, idle = make_one()
    with asking():
        run = deploy(play, "0.1.1", "bluegreen_promote=true")
        cookies = {inside(host, "cat /opt/sample_app/cookie") for host in HOSTS}
        assert len(cookies) == 1 and cookies.pop() not in run.text
        for host in HOSTS:
            assert seen(host) == nodes(idle, host)
            first = {"blue": 9100, "green": 9200}[idle]
            assert reachable(host) <= {
                *("0.0.0.0:22", "[::]:22", "0.0.0.0:80", "[::]:80"),
                *(f"{address(host)}:{port}" for port in (4369, first)),
            }
        # What is live again was never told of a cluster, and is as it was.
        fleet.play("rollback")
        assert {site.color() for site in SITES.values()} == {live}
        assert "127.0.0.1" in fleet.play("rpc", {"expr": "Node.self()"}).text
    run = play("status", "strict=true")
    assert "CLUSTER" in run.text and SITES[HOSTS[0]].version() == "0.1.0"


@pytest.mark.faults
def test_every_broadcast_is_heard_once_through_every_switch(play, tmp_path):
    deploy(play, "0.1.1", "bluegreen_promote=true")
    deploy(play, "0.1.0")
    run = play("status", "strict=true", "format=json", f"out={tmp_path}/status.json")
    run.says("sees 5 of 5")
    told = json.loads((tmp_path / "status.json").read_text())["hosts"]
    for host in HOSTS:
        live = SITES[host].color()
        assert set(told[host]["slots"][live]["node"]["sees"]) == both(f"sample_app_{live}@{address(host)}")
    listeners = [Listener(SITES[host]) for host in HOSTS]
    try:
        for number in range(SWITCHES):
            to = other(SITES[HOSTS[0]].color())
            with asking():
                play("promote", f"color={to}")
            # Who came before stays on its slot, and hears what the other one says, on every host.
            listeners.append(Listener(SITES[HOSTS[number % 3]]))
            assert listeners[-1].color == to
            all_hear(listeners)
        assert {listener.color for listener in listeners} == {"blue", "green"}
    finally:
        for listener in listeners:
            listener.close()


@pytest.mark.usefixtures("connected")
def test_after_a_reboot_and_a_cut_the_cluster_is_whole_again(play):
    others = pids(HOSTS[1])
    reboot(HOSTS[1], "systemctl is-active ssh && curl -fsS -H 'Host: sample.test' localhost/deployment_id")
    wait_for_cluster()
    assert pids(HOSTS[1]) == others

    lost = f"sample_app_{SITES[HOSTS[2]].color()}@{address(HOSTS[2])}"
    with cut_off(HOSTS[2]):
        wait_until(lambda: lost not in seen(HOSTS[0]) | seen(HOSTS[1]), 60)
        play("status", "strict=true", rc=2).says("is not connected with", lost)
    wait_for_cluster()
    assert pids(HOSTS[1]) == others
    wait_until(lambda: "consistent:" in play("status").text, 30)


@pytest.mark.long
@pytest.mark.usefixtures("connected")
def test_a_host_that_is_replaced_gets_the_cookie_of_the_group_and_not_the_group_its_own(play):
    before = inside(HOSTS[1], "sha256sum < /opt/sample_app/cookie")
    others = pids(HOSTS[0])
    inside(
        HOSTS[0],
        "systemctl disable --now sample_app@blue sample_app@green; "
        "rm -rf /opt/sample_app /etc/systemd/system/sample_app@.service /etc/nginx/conf.d/sample_app.conf "
        "/etc/ansible/facts.d/sample_app.fact; systemctl daemon-reload; systemctl reload nginx",
    )
    version = SITES[HOSTS[1]].version()
    deploy(play, version)
    assert {inside(host, "sha256sum < /opt/sample_app/cookie") for host in HOSTS} == {before}
    assert pids(HOSTS[0]) == others and SITES[HOSTS[0]].version() == version
    wait_for_cluster()


@pytest.mark.usefixtures("connected")
def test_a_node_that_does_not_meet_the_others_is_a_failed_deploy(play):
    held, color = fleet.held(), SITES[HOSTS[0]].color()
    with cut_off(HOSTS[2]):
        run = deploy(play, "0.1.1-rebuilt", "bluegreen_health_timeout=8", rc=2)
        run.says("meeting the other nodes", "has not met", f"sample_app_{other(color)}@{address(HOSTS[2])}")
    assert fleet.held() == held
    wait_for_cluster()


@pytest.mark.usefixtures("connected")
def test_a_host_that_is_lost_is_not_waited_for(play):
    color, gone = SITES[HOSTS[0]].color(), HOSTS[2]
    with fleet.cut_off(gone):
        deploy(play, "0.1.1-rebuilt", "bluegreen_lost_hosts=proceed").says(f"unreachable and unchanged: {gone}")
    # Its old nodes are of the cluster all the same.
    assert seen(HOSTS[0], "idle") >= nodes(other(color), HOSTS[0]) - {f"sample_app_{other(color)}@{address(gone)}"}
    assert f"sample_app_{color}@{address(gone)}" in seen(HOSTS[0], "idle")


# --- who must not meet -----------------------------------------------------------------------------------------------


@pytest.mark.long
def test_generations_apart_do_not_meet_and_rpc_works_on_both(play, tmp_path):
    make_one()
    apart = inventory(
        tmp_path / "apart.yml", {host: {"address": address(host), "generations": "apart"} for host in HOSTS}
    )
    for version in ("0.1.0", "0.1.1"):
        deploy(play, version, "-i", apart, "bluegreen_promote=true")
    live = SITES[HOSTS[0]].color()
    for host in HOSTS:
        assert seen(host) == nodes(live, host) and seen(host, "idle") == nodes(other(live), host)
    # Not by hand either.
    for name in nodes(other(live)):
        run = play("rpc", "-i", apart, {"expr": f'Node.connect(:"{name}")'})
        assert "true" not in run.text and run.text.count("false") == len(HOSTS)
    play("status", "-i", apart, "strict=true").says("sees 2 of 2")
    # The same again changes nothing, though the nodes that it would meet are those of the other slot.
    again = ("-i", apart, {"bluegreen_artifact": artifact("sample_app-0.1.1")})
    assert play("deploy", *again).changed() == 0


@pytest.mark.long
def test_two_apps_on_the_same_hosts_are_two_clusters(play, tmp_path):
    ports = {"blue": 9300, "green": 9400}
    theirs = inventory(tmp_path / "theirs.yml", {host: {"address": address(host), "ports": ports} for host in HOSTS})
    app = {
        "bluegreen_app": "other_app",
        "bluegreen_domain": "other.test",
        "bluegreen_ports": {"blue": 6100, "green": 7100},
        "bluegreen_artifact": artifact("other_app-0.1.0"),
    }
    # The first of the five has the node of the other app.
    play("deploy", app, rc=2).says("is taken by process", "sample_app@", "Choose another bluegreen_cluster.ports.")
    play("deploy", app, "-i", theirs)
    for host in HOSTS:
        assert seen(host, app="other_app") == {f"other_app_blue@{address(one)}" for one in HOSTS if one != host}
        assert not [name for name in seen(host) if name.startswith("other_app")]


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cluster", "says"),
    [
        ({"address": "0.0.0.0"}, "must be the IPv4 address at which the other hosts reach this one"),
        ({"address": "web1.internal"}, "not a name"),
        ({"address": "fd00::5"}, "not IPv6"),
        ({"generations": "apart"}, "bluegreen_cluster.address must be"),
        ({"address": "10.0.0.5", "generations": "together "}, "must be together or apart"),
        ({"address": "10.0.0.5", "ports": {"blue": 3997, "green": 9200}}, "and 4000 belongs to bluegreen_ports.blue"),
        ({"address": "10.0.0.5"}, "bluegreen_cluster.address must differ on every host (got 10.0.0.5 on"),
        ({}, "bluegreen_cluster is missing on bluegreen-fleet1"),
    ],
)
def test_a_cluster_that_cannot_be_is_refused_before_a_host_is_touched(play, tmp_path, cluster, says):
    wrong = inventory(tmp_path / "wrong.yml", {HOSTS[0]: cluster, HOSTS[1]: cluster} if cluster else {HOSTS[0]: {}})
    play("promote", "-i", wrong, rc=2).says(says)


def test_an_address_that_is_not_of_the_host_is_refused(play, tmp_path):
    held = fleet.held()
    wrong = inventory(tmp_path / "wrong.yml", {HOSTS[0]: {"address": "10.9.9.9"}})
    run = deploy(play, "0.1.0", "-i", wrong, rc=2)
    run.says(f"{HOSTS[0]}: locking: bluegreen_cluster.address must be an address of this host (got 10.9.9.9)")
    assert fleet.held() == held
