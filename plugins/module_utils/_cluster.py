# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Erlang nodes of an app: their names, where they listen, which of them belong together. Private to this collection.

One way for an app with and without C(bluegreen_cluster): a long name that ends in an address, so that nobody asks what the host is
called. Without a cluster the address is the loopback's, and nothing is reachable from elsewhere.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import re
import socket
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ansible_collections.beamops.bluegreen.plugins.module_utils import _files, _proc, _validate
from ansible_collections.beamops.bluegreen.plugins.module_utils._validate import COLORS

if TYPE_CHECKING:
    from ansible_collections.beamops.bluegreen.plugins.plugin_utils._types import Node, Sockets

LOOPBACK = "127.0.0.1"
EPMD, PORTS = _validate.EPMD, _validate.NODE_PORTS
# What an environment says of the cluster it was made for; part of its id. Not for the user to set.
VARIABLE = "BLUEGREEN_CLUSTER"
# How old, in seconds, what a node has written of itself may be. C(meet.erl) writes every 10 s.
_FRESH = 30
_NODE = re.compile(r"\A[a-z0-9_]{1,64}@[0-9.]{7,15}\Z")


class Cluster(NamedTuple):
    """What C(bluegreen_cluster) says of one host."""

    address: str
    generations: str
    # Of blue and green, the first of V(PORTS) each.
    ports: tuple[int, int]

    def text(self) -> str:
        return " ".join(map(str, (self.address, self.generations, *self.ports)))

    def range_of(self, color: str) -> range:
        first = self.ports[COLORS.index(color)]
        return range(first, first + PORTS)


def from_option(value: Mapping[str, Any]) -> Cluster | None:
    """The cluster of a host by its option, or V(None) for none. Raises: Refused."""
    checked = _validate.check_cluster(value)
    if not checked:
        return None
    return Cluster(checked["address"], checked["generations"], (checked["ports"]["blue"], checked["ports"]["green"]))


def from_env(env: Mapping[str, str]) -> Cluster | None:
    """The cluster that an environment was made for, or V(None)."""
    words = env.get(VARIABLE, "").split(" ")
    if len(words) != 4:
        return None
    return Cluster(words[0], words[1], (int(words[2]), int(words[3])))


def node_name(app: str, color: str, address: str) -> str:
    return f"{app}_{color}@{address}"


def _interface(address: str) -> str:
    # kernel(6): a tuple of four numbers. The first of several counts, so this one stands before whatever a release has in its vm.args.
    return f"-kernel inet_dist_use_interface {{{address.replace('.', ',')}}}"


def variables(app: str, color: str, root: str, cluster: Cluster | None, nodes: Iterable[str] = ()) -> dict[str, str]:
    """What makes the VM of a slot a node.

    C(BLUEGREEN_VM_FLAGS) is for the slot's own process. What visits it (C(rpc), C(remote)) is a node too, which would take a port of
    the range, and needs nobody to reach it.
    """
    address = cluster.address if cluster else LOOPBACK
    flags = ""
    if cluster:
        ports = cluster.range_of(color)
        flags = (
            f"{_interface(address)} -kernel inet_dist_listen_min {ports[0]} -kernel inet_dist_listen_max {ports[-1]} "
            f"-run file eval {root}/bin/meet.erl"
        )
    return {
        # A node that is reached from nowhere else has nobody to meet.
        "BLUEGREEN_NODES": ",".join(nodes) if cluster else "",
        "BLUEGREEN_VM_FLAGS": flags,
        "ERL_AFLAGS": _interface(LOOPBACK),
        "ERL_EPMD_ADDRESS": address,
        "RELEASE_DISTRIBUTION": "name",
        "RELEASE_NODE": node_name(app, color, address),
    }


def cookie_for(cookie: str, cluster: Cluster | None, release: str) -> str:
    """The cookie of a release: with generations apart, nodes of different releases refuse each other."""
    return f"{cookie}-{release[-8:]}" if cluster and cluster.generations == "apart" else cookie


def cookie_of(env: Mapping[str, str]) -> str:
    """The cookie that V(cookie_for) was given."""
    cluster, cookie = from_env(env), env.get("RELEASE_COOKIE", "")
    return cookie.rpartition("-")[0] if cluster and cluster.generations == "apart" else cookie


# --- which nodes belong together ---------------------------------------------------------------------------------------


def nodes_to_meet(app: str, colors: Mapping[str, str], clusters: Mapping[str, Cluster]) -> dict[str, list[str]]:
    """Host to the nodes that its new node keeps a connection with.

    With generations together those are all of the group. Apart, those of the same deploy: to try others would fill their logs.

    :param colors: host to the color of the node that has, or is about to have, what is deployed.
    :param clusters: host to its cluster, of all hosts of the group. Of those that are not deployed to nobody knows the color.
    """
    found = {}
    for host, color in colors.items():
        if host not in clusters:
            continue
        own = node_name(app, color, clusters[host].address)
        names = [
            node_name(app, one, cluster.address)
            for other, cluster in clusters.items()
            for one in (COLORS if cluster.generations == "together" or other not in colors else (colors[other],))
        ]
        found[host] = [name for name in names if name != own]
    return found


def peers(node: Node, others: Iterable[Node]) -> list[str]:
    """Names of the nodes, of those that run, that a node ought to be connected with: the same key, and one of the two has been told."""
    return sorted(
        other["name"]
        for other in others
        if other["name"] != node["name"]
        and other["key"] == node["key"]
        and (other["name"] in node["told"] or node["name"] in other["told"])
    )


# --- on the host -------------------------------------------------------------------------------------------------------


def read_node(env: Mapping[str, str], salt: str, state_dir: str, pid: int | None) -> Node | None:
    """What there is to know of the node of a slot, or V(None) if it is not in a cluster or does not run.

    :param env: the environment of the slot.
    :param salt: the cookie file of the host: a cookie that somebody chose may be a word that could be guessed from its hash.
    """
    if not pid or not from_env(env):
        return None
    return {
        "name": env["RELEASE_NODE"],
        "told": [name for name in env.get("BLUEGREEN_NODES", "").split(",") if name],
        "key": hashlib.sha256(f"{salt} {env.get('RELEASE_COOKIE')}".encode()).hexdigest()[:12],
        "sees": seen_by(state_dir, pid),
    }


def seen_by(state_dir: str, pid: int) -> list[str] | None:
    """Names of the nodes that the node of a slot says it is connected with; V(None) if it has not said so lately.

    C(meet.erl) writes them: asking by rpc would boot a VM each time.
    """
    lines = _files.lines_of_the_app(f"{state_dir}/nodes", _FRESH)
    if not lines or lines[0] != str(pid):
        return None
    return [line for line in lines[1:] if _NODE.match(line)]


def address_conflicts(cluster: Cluster) -> list[str]:
    """A sentence if the address of the cluster is not one of this host."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as one:
        try:
            one.bind((cluster.address, 0))
        except OSError:
            return [
                f"bluegreen_cluster.address must be an address of this host (got {cluster.address}). `ip -brief address` on the host lists "
                "its addresses."
            ]
    return []


# A node that starts and one that is about to end.
_NEEDED = 2


def port_conflicts(app: str, cluster: Cluster, pids: Iterable[int], sockets: Sockets) -> list[str]:
    """Sentences if the nodes have no room where they are to listen, or would share it with the nodes of another app.

    :param pids: the slots that run. One that systemd has brought back since is known by its unit.
    """
    own, found = set(pids), []
    for color in COLORS:
        taken = []
        for port in cluster.range_of(color):
            holder = _proc.listening_process(port) if _collides(cluster.address, port, sockets) else None
            unit = _proc.unit_of(holder[0]) if holder and holder[0] else None
            owner = re.match(r"([a-z0-9_]+)@(?:blue|green)\Z", unit or "")
            if holder and holder[0] not in own and not (owner and owner.group(1) == app):
                taken.append((port, holder, bool(owner)))
        theirs = [entry for entry in taken if entry[2]]
        if theirs or PORTS - len(taken) < _NEEDED:
            port, holder, _theirs = (theirs or taken)[0]
            found.append(
                f"port {port} is taken by {_proc.who_listens(holder)}. Choose another bluegreen_cluster.ports.{color}: each slot of each "
                f"app has {PORTS} ports in a row."
            )
    return found


def _collides(address: str, port: int, sockets: Sockets) -> bool:
    places = _proc.listening_places(port, sockets)
    return any(place in (f"{address}:{port}", f"0.0.0.0:{port}", f"[::]:{port}") for place in places)


def mapper_addresses(folder: str = "/etc/systemd/system") -> list[str]:
    """Where the port mapper of this host listens for the apps on it, by their units."""
    found = [LOOPBACK]
    for path in sorted(glob.glob(f"{folder}/*-epmd.service")):
        found += re.findall(r"^Environment=ERL_EPMD_ADDRESS=([0-9.]+)$", _files.read_text(path) or "", re.MULTILINE)
    return found


def places(cluster: Cluster | None, color: str, pid: int | None, sockets: Sockets) -> list[str]:
    """Where the node of a slot listens: C(10.0.0.5:9100). Empty for one that is not in a cluster."""
    ports = cluster.range_of(color) if cluster and pid else []
    return [place for port in ports for place in _proc.listening_places(port, sockets)]
