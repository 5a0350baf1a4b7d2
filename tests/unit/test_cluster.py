# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import socket
import time

import pytest
from ansible_collections.beamops.bluegreen.plugins.module_utils import _cluster, _envfile, _proc, _validate
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Refused
from ansible_collections.beamops.bluegreen.plugins.plugin_utils import (
    _messages,
    _plans,
    _status_page,
    _status_report,
    _variables,
)
from infos import info

ONE = _cluster.Cluster("10.0.0.1", "together", (9100, 9200))
TWO = _cluster.Cluster("10.0.0.2", "together", (9100, 9200))
APART = {"a": ONE._replace(generations="apart"), "b": TWO._replace(generations="apart")}


def env_of(cluster, color="blue", release="0.1.0-aaaaaaaa", nodes=(), **user):
    return _envfile.slot_env(
        user, color, 4000, "app", f"/opt/app/state/{color}", "c" * 48, "a.test", cluster, nodes, release
    )


def test_a_node_listens_where_the_others_reach_it_and_what_visits_it_does_not():
    env = env_of(ONE, nodes=["app_blue@10.0.0.2"])
    assert env["RELEASE_NODE"] == "app_blue@10.0.0.1" and env["BLUEGREEN_NODES"] == "app_blue@10.0.0.2"
    assert env["ERL_EPMD_ADDRESS"] == "10.0.0.1" and env["ERL_AFLAGS"] == "-kernel inet_dist_use_interface {127,0,0,1}"
    assert env["BLUEGREEN_VM_FLAGS"] == (
        "-kernel inet_dist_use_interface {10,0,0,1} -kernel inet_dist_listen_min 9100 -kernel inet_dist_listen_max 9104 "
        "-run file eval /opt/app/bin/meet.erl"
    )
    assert "inet_dist_listen_min 9200" in env_of(ONE, "green")["BLUEGREEN_VM_FLAGS"]
    assert env_of(None)["BLUEGREEN_VM_FLAGS"] == "" and "BLUEGREEN_CLUSTER" not in env_of(None)


def test_an_environment_that_moves_stays_in_the_cluster_that_it_was_made_for():
    moved = _envfile.for_slot(env_of(ONE), "green", 5000, "app", "/opt/app/state/green", ["app_blue@10.0.0.1"])
    assert moved["RELEASE_NODE"] == "app_green@10.0.0.1" and moved["BLUEGREEN_NODES"] == "app_blue@10.0.0.1"
    assert (
        _envfile.for_slot(env_of(None), "green", 5000, "app", "/s/state/green")["RELEASE_NODE"] == "app_green@127.0.0.1"
    )


def test_the_id_of_an_environment_knows_its_cluster_and_not_which_nodes_are_in_it():
    assert _envfile.env_id(env_of(ONE)) != _envfile.env_id(env_of(None))
    assert _envfile.env_id(env_of(ONE, nodes=["x@10.0.0.2"])) == _envfile.env_id(env_of(ONE, "green"))
    assert _envfile.changes(env_of(None), env_of(ONE))["added"] == ["BLUEGREEN_CLUSTER"]
    texts = [_envfile.render(env_of(ONE, nodes=nodes)) for nodes in ([], ["x@10.0.0.2"])]
    assert texts[0] != texts[1] and _envfile.same_but_nodes(*texts)
    assert not _envfile.same_but_nodes(texts[0], _envfile.render(env_of(ONE, A="1")))


def test_generations_apart_have_cookies_of_their_own_and_an_environment_one_id():
    apart = APART["a"]
    first, second = (env_of(apart, release=release) for release in ("0.1.0-aaaaaaaa", "0.1.1-bbbbbbbb"))
    assert (first["RELEASE_COOKIE"], second["RELEASE_COOKIE"]) == ("c" * 48 + "-aaaaaaaa", "c" * 48 + "-bbbbbbbb")
    assert _envfile.env_id(first) == _envfile.env_id(second) and not any(_envfile.changes(first, second).values())
    # A cookie of the user's own may have a dash in it.
    assert _cluster.cookie_of(env_of(apart, RELEASE_COOKIE="my-own")) == "my-own"
    assert _cluster.cookie_of(env_of(ONE, RELEASE_COOKIE="my-own")) == "my-own"
    assert env_of(ONE, RELEASE_COOKIE="my-own")["RELEASE_COOKIE"] == "my-own"


def test_what_an_environment_says_of_its_cluster_is_read_back():
    assert _cluster.from_env(env_of(APART["a"])) == APART["a"]
    assert _cluster.from_env({}) is None


def test_which_nodes_a_new_one_is_told_of():
    told = _cluster.nodes_to_meet("app", {"a": "blue", "b": "green"}, {"a": ONE, "b": TWO})
    assert told["a"] == ["app_green@10.0.0.1", "app_blue@10.0.0.2", "app_green@10.0.0.2"]
    assert told["b"] == ["app_blue@10.0.0.1", "app_green@10.0.0.1", "app_blue@10.0.0.2"]
    assert _cluster.nodes_to_meet("app", {"a": "blue", "b": "green"}, APART) == {
        "a": ["app_green@10.0.0.2"],
        "b": ["app_blue@10.0.0.1"],
    }
    # A host that is not deployed to this time is of the cluster all the same, and nobody knows on which color its release is.
    assert _cluster.nodes_to_meet("app", {"a": "blue", "x": "blue"}, APART) == {
        "a": ["app_blue@10.0.0.2", "app_green@10.0.0.2"]
    }
    assert "app_blue@10.0.0.2" in _cluster.nodes_to_meet("app", {"a": "blue"}, {"a": ONE, "b": TWO})["a"]


def node(name, told=(), key="k", sees=()):
    return {"name": name, "told": list(told), "key": key, "sees": None if sees is None else list(sees)}


def test_nodes_belong_together_if_one_of_them_was_told_and_both_have_the_cookie():
    a, b, c = node("a@1", ["b@1"]), node("b@1"), node("c@1", ["a@1"], key="other")
    assert _cluster.peers(a, [a, b, c]) == ["b@1"] and _cluster.peers(b, [a, b, c]) == ["a@1"]
    assert _cluster.peers(c, [a, b, c]) == []


def clustered(blue=None, green=None, live="blue", cookie="1"):
    found = info(live=live, cookie=cookie)
    for color, one in (("blue", blue), ("green", green)):
        found["slots"][color].update(node=one, node_listens=["10.0.0.1:9100"] if one else [])
    return found


def test_what_was_just_deployed_must_meet_the_new_ones_and_the_old_ones_that_run():
    everyone = ["a_b@1", "a_g@1", "b_b@1", "b_g@1"]
    infos = {
        "a": clustered(blue=node("a_b@1", everyone), green=node("a_g@1", everyone)),
        "b": clustered(blue=node("b_b@1", everyone)),
    }
    new = {"a": node("a_g@1", everyone), "b": node("b_g@1", everyone)}
    deployed = {host: {"color": "green", "node": new[host]} for host in new}
    assert _plans.meetings(infos, deployed) == {"a": ["a_b@1", "b_b@1", "b_g@1"], "b": ["a_b@1", "a_g@1", "b_b@1"]}
    # Nor what is sick, nor what a host has that held the release live already.
    infos["a"]["slots"]["blue"]["healthy"] = False
    assert "a_b@1" not in _plans.meetings(infos, deployed)["b"]
    infos["a"]["slots"]["blue"]["healthy"] = True
    there = {**deployed, "a": {"color": "blue", "node": infos["a"]["slots"]["blue"]["node"], "already_live": True}}
    assert _plans.meetings(infos, there)["b"] == ["a_b@1", "b_b@1"]
    # What is gone from the slot is not waited for, and without a cluster there is nobody to meet.
    assert _plans.meetings({"a": infos["a"]}, {"a": deployed["a"]}) == {"a": ["a_b@1"]}
    assert _plans.meetings(infos, {"a": {"color": "green", "node": None}}) == {}


def test_whose_cookie_it_is():
    assert _plans.cookie_plan({"a": info(cookie="1"), "b": info(cookie="2")}) == {"source": "a", "targets": ["b"]}
    # A new first host does not cut off those that are connected already.
    there = clustered(blue=node("b@1"), cookie="2")
    assert _plans.cookie_plan({"a": info(cookie="1"), "b": there}) == {"source": "b", "targets": ["a"]}
    # Nor one that was deployed to by itself, and thinks it is a cluster.
    group = {host: clustered(blue=node(host), cookie=cookie) for host, cookie in (("a", "1"), ("b", "2"), ("c", "2"))}
    assert _plans.cookie_plan(group) == {"source": "b", "targets": ["a"]} and _plans.strangers(group) == ["a"]
    assert "a: its cookie is not the one of the group" in _messages.cluster_remarks(group)[0] and _messages.in_doubt(
        group
    )
    assert _plans.cookie_plan({"a": info(cookie="1"), "b": info(cookie="1")})["targets"] == []
    assert _plans.cookie_plan({"a": info(cookie="")}) == {"source": None, "targets": []}


def test_a_plan_says_whom_to_meet():
    plan = {"ok": True, "failures": [], "lost": [], "hosts": {"a": {"color": "blue"}, "b": {"refused": "no"}}}
    hosts = _plans.with_nodes(plan, "app", {"a": ONE, "b": TWO})["hosts"]
    assert "app_green@10.0.0.2" in hosts["a"]["nodes"] and "nodes" not in hosts["b"]


def test_a_host_that_has_the_release_live_already_is_met_there():
    fresh, done = info(green=None), info(live="green", green="r")
    done["wanted"] = fresh["wanted"] = {"env": done["slots"]["green"]["env"], "env_changes": None}
    live = _plans.live_already({"a": fresh, "b": done}, {"a": "r", "b": "r"})
    assert live == {"b": "green"}
    plan = {"ok": True, "failures": [], "lost": [], "hosts": {"a": {"color": "green"}, "b": {"color": "blue"}}}
    hosts = _plans.with_nodes(plan, "app", APART, live)["hosts"]
    assert hosts["a"]["nodes"] == ["app_green@10.0.0.2"] and hosts["b"]["nodes"] == ["app_green@10.0.0.1"]


def test_the_status_has_the_cluster_and_names_who_is_missing():
    whole = {"a": clustered(blue=node("a@1", ["b@1"], sees=["b@1"])), "b": clustered(blue=node("b@1", sees=["a@1"]))}
    lines = _messages.status_lines(whole)
    assert "CLUSTER" in lines[0] and "sees 1 of 1, 10.0.0.1:9100" in lines[1] and not _messages.in_doubt(whole)
    torn = {
        "a": clustered(blue=node("a@1", ["b@1"])),
        "b": clustered(blue=node("b@1", sees=None)),
        "c": {"unreachable": True},
    }
    assert _messages.in_doubt(torn) and _plans.unseen(torn) == {"a": {"blue": ["b@1"]}, "b": {"blue": ["a@1"]}, "c": {}}
    text = "\n".join(_messages.status_lines(torn))
    assert "a: blue is not connected with b@1\n" in text and "sees 0 of 1" in text
    assert "b: blue does not say which nodes it is connected with" in text
    assert "CLUSTER" not in _messages.status_lines({"a": info()})[0]
    found = _status_report.report(torn, "app", "now")
    told = found["hosts"]["a"]["slots"]["blue"]["node"]
    assert told == {"name": "a@1", "sees": [], "missing": ["b@1"], "listens": ["10.0.0.1:9100"]}
    assert found["hosts"]["a"]["slots"]["green"]["node"] is None
    assert any("not connected with b@1" in line for line in found["remarks"])
    assert "not connected with b@1" in _status_page.as_html(found)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([], "must be a mapping"),
        ({"adress": "10.0.0.5"}, "must be a mapping of address"),
        ({"address": "10.0.0.5 "}, "must be the IPv4 address"),
        ({"address": 10}, "must be the IPv4 address"),
        ({"address": "127.0.0.1"}, "not 127.0.0.1"),
        ({"address": "224.0.0.1"}, "must be the IPv4 address"),
        ({"address": "10.0.0.5", "generations": "apartt"}, "must be together or apart"),
        ({"address": "10.0.0.5", "ports": 9100}, "keys blue and green"),
        ({"address": "10.0.0.5", "ports": {"blue": 80, "green": 9200}}, "from 1024 to 65535"),
        ({"address": "10.0.0.5", "ports": {"blue": 9100, "green": 9104}}, "must be 5 apart"),
        ({"address": "10.0.0.5", "ports": {"blue": 4365, "green": 9200}}, "4369 belongs to the port mapper"),
        ({"address": "10.0.0.5", "ports": {"blue": 9100, "green": 4996}}, "5000 belongs to bluegreen_ports.green"),
        ({"address": "10.0.0.5", "ports": {"blue": 8080, "green": 9200}}, "8080 belongs to nginx"),
        ({"address": "10.0.0.5", "ports": {"blue": 9100, "green": 65533}}, "room for 5 ports"),
    ],
)
def test_clusters_that_cannot_be(value, says):
    with pytest.raises(Refused, match=says):
        _validate.check_cluster(value, {"blue": 4000, "green": 5000}, ["8080", "10.0.0.5:443"])


def test_clusters_that_can_be():
    assert _validate.check_cluster({}) == {} and _cluster.from_option({}) is None
    assert _cluster.from_option({"address": "10.0.0.1"}) == ONE
    ports = {"blue": 9300, "green": 9305}
    found = _cluster.from_option({"address": "10.0.0.1", "generations": "apart", "ports": ports})
    assert found == _cluster.Cluster("10.0.0.1", "apart", (9300, 9305)) and found.range_of("green") == range(9305, 9310)


def test_clusters_of_a_group_that_do_not_go_together():
    good = {"a": {"address": "10.0.0.1"}, "b": {"address": "10.0.0.2"}}
    assert (
        _variables.check_group_of_clusters(good) == [] and _variables.check_group_of_clusters({"a": {}, "b": {}}) == []
    )
    assert "missing on b." in _variables.check_group_of_clusters({**good, "b": {}})[0]
    assert "got 10.0.0.1 on a and b" in _variables.check_group_of_clusters({**good, "b": good["a"]})[0]
    mixed = {**good, "b": {"address": "10.0.0.2", "generations": "apart"}}
    assert "generations must be the same" in _variables.check_group_of_clusters(mixed)[0]


def write(path, text, age=0):
    path.write_text(text)
    os.utime(path, (time.time() - age,) * 2)


def test_what_a_node_has_written_of_itself_is_not_trusted(tmp_path):
    file = tmp_path / "nodes"
    assert _cluster.seen_by(str(tmp_path), 7) is None
    write(file, "7\napp_blue@10.0.0.2\n../../etc/passwd\n\x1b[31mred@10.0.0.3\n")
    assert _cluster.seen_by(str(tmp_path), 7) == ["app_blue@10.0.0.2"]
    # Of the process before, too old, a link, a pipe that nobody writes to, a directory.
    assert _cluster.seen_by(str(tmp_path), 8) is None
    write(file, "7\n", age=60)
    assert _cluster.seen_by(str(tmp_path), 7) is None
    file.unlink()
    file.symlink_to("/etc/passwd")
    assert _cluster.seen_by(str(tmp_path), 7) is None
    file.unlink()
    os.mkfifo(file)
    assert _cluster.seen_by(str(tmp_path), 7) is None
    file.unlink()
    file.mkdir()
    assert _cluster.seen_by(str(tmp_path), 7) is None


def test_the_node_of_a_slot(tmp_path):
    env = env_of(ONE, nodes=["app_green@10.0.0.1"])
    assert _cluster.read_node(env, "salt", str(tmp_path), None) is None
    assert _cluster.read_node(env_of(None), "salt", str(tmp_path), 7) is None
    found = _cluster.read_node(env, "salt", str(tmp_path), 7)
    assert (found["name"], found["told"], found["sees"]) == ("app_blue@10.0.0.1", ["app_green@10.0.0.1"], None)
    assert "c" * 48 not in str(found) and found["key"] != _cluster.read_node(env, "pepper", str(tmp_path), 7)["key"]


def test_addresses_and_ports_on_a_host():
    assert (
        "must be an address of this host (got 192.0.2.9)"
        in _cluster.address_conflicts(ONE._replace(address="192.0.2.9"))[0]
    )
    assert _cluster.address_conflicts(ONE._replace(address="127.0.0.1")) == []
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        cluster = ONE._replace(ports=(port - 4, 1024))
        sockets = _proc.tcp_sockets()
        assert _cluster.places(cluster, "blue", os.getpid(), sockets)[-1] == f"127.0.0.1:{port}"
        assert _cluster.places(cluster, "blue", None, sockets) == [] and _cluster.places(None, "blue", 1, sockets) == []
        # One of five does no harm.
        assert not [line for line in _cluster.port_conflicts("app", cluster, [], sockets) if "ports.blue" in line]


def test_ports_of_nodes_that_somebody_else_has(monkeypatch):
    def conflicts(*taken, unit=None, address="10.0.0.1", pids=()):
        places = {port: [f"{address}:{port}"] for port in taken}
        monkeypatch.setattr(_proc, "listening_places", lambda port, _sockets: places.get(port, []))
        monkeypatch.setattr(_proc, "listening_process", lambda _port: (7, "beam.smp"))
        monkeypatch.setattr(_proc, "unit_of", lambda _pid: unit)
        return _cluster.port_conflicts("app", ONE, pids, {})

    assert "port 9100 is taken by process 7 (beam.smp)" in conflicts(9100, 9101, 9102, 9103)[0]
    assert conflicts(9100, 9101, 9102) == [] and conflicts(*range(9100, 9105), address="127.0.0.1") == []
    assert len(conflicts(*range(9100, 9105), address="0.0.0.0")) == 1
    # Ours, also one that systemd has brought back since, and another app's, which would share the range.
    assert conflicts(*range(9100, 9105), pids=[7]) == [] and conflicts(*range(9100, 9105), unit="app@blue") == []
    assert "other@green" in conflicts(9204, unit="other@green")[0]


def test_where_the_port_mapper_listens_for_all_apps(tmp_path):
    (tmp_path / "a-epmd.service").write_text("[Service]\nEnvironment=ERL_EPMD_ADDRESS=10.0.0.1\n")
    (tmp_path / "b-epmd.service").write_text("[Service]\nExecStart=epmd\n")
    assert _cluster.mapper_addresses(str(tmp_path)) == ["127.0.0.1", "10.0.0.1"]
