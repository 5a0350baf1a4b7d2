# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shapes that the parts of the collection hand to each other. For type checkers and readers; private to this collection.

Times are strings such as V(2026-11-27T10:00:00Z), in UTC. A release is named by its version and the beginning of its content's SHA-256
(V(0.1.0-1a2b3c4d)), an environment by the first 12 hexadecimal digits of a hash.
"""

from __future__ import annotations

# Not in module_utils, where Ansible would find it, and send it to the hosts with every module.
from typing import Any, Optional, TypedDict

# What a module returned for one host, as Ansible registers it: C(ok) is true only if the module came to its good end.
Result = dict[str, Any]


# An answer of HTTP: C(status), C(location) and C(body), or C(error).
Answer = dict[str, Any]
# The TCP sockets of a host: (inode, local address) by (local port, state of the kernel's), in the digits of /proc/net/tcp.
Sockets = dict[tuple[int, str], list[tuple[str, str]]]


class Held(TypedDict, total=False):
    """What a slot holds, was live, or was rolled back from: the two together are one thing."""

    release: str | None
    env: str
    sha256: str


class Content(TypedDict):
    """What a slot holds."""

    release: str
    env: str
    sha256: str


class FormerlyLive(TypedDict):
    """What was live, and where."""

    color: str
    release: str
    env: str


class SlotFacts(TypedDict, total=False):
    """What the facts say of one slot."""

    version: str
    release: str
    env: str
    sha256: str
    deployed_at: str
    promoted_at: str


class Facts(TypedDict):
    """The facts file, C(<facts_dir>/<app>.fact): what the symlink alone cannot tell."""

    live: str | None
    previous: FormerlyLive | None
    slots: dict[str, SlotFacts | None]
    was_live: list[FormerlyLive]
    rolled_back: list[Held]


class DeployJournal(TypedDict):
    """C(slots/<color>/deploy.json): a deploy that is not confirmed, and what the slot held before it."""

    release: str
    at: str
    run: str
    former: dict[str, Any]


# C(switch.json): the switch that this host made last, and the facts from before it. Written before the symlink moves. C(from) is a
# keyword of Python, so it cannot be written as a class.
SwitchJournal = TypedDict(
    "SwitchJournal", {"run": str, "from": Optional[str], "to": str, "kind": str, "at": str, "facts": Facts}, total=False
)


class Lock(TypedDict, total=False):
    """C(<root>/lock): who works on this app on this host."""

    run: str
    holder: str
    operation: str
    host: str
    since: str
    controller: dict[str, Any] | None


class _Migrations(TypedDict):
    # Those that had run.
    ran: list[str]
    # Those that are in the release: version to the name of the file without it; null if nothing tells.
    files: dict[str, str] | None


class Migrations(_Migrations, total=False):
    """C(former/<release>.migrations): what a release has told of the migrations of its database."""

    # When it was asked.
    at: str
    # What bluegreen_backup_command has printed last, before these migrations.
    backup: str


class EnvChanges(TypedDict):
    """Names of variables, never their values."""

    added: list[str]
    removed: list[str]
    changed: list[str]


class Node(TypedDict):
    """The node of a slot that runs in a cluster."""

    name: str
    # Names of the nodes that it keeps a connection with.
    told: list[str]
    # The same for nodes that can connect; tells nothing of the cookie.
    key: str
    # Names of the nodes that it is connected with; null if it does not say.
    sees: list[str] | None


class Slot(TypedDict):
    """One slot of one host, as seen just now."""

    color: str
    # Null for a worker.
    port: int | None
    connections: int
    release: str | None
    env: str
    env_changes: EnvChanges | None
    rolled_back: bool
    version: str | None
    sha256: str | None
    # What the release was built from; empty if nobody said.
    commit: str
    deployed_at: str | None
    promoted_at: str | None
    running: bool
    pid: int | None
    healthy: bool
    health: str
    process_release: str | None
    pending: dict[str, Any] | None
    # Within the last hour, by itself.
    restarts: int
    # Whether it starts with the host.
    enabled: bool
    # Names of migrations that the release has and the database has not, as far as that is known.
    pending_migrations: list[str]
    # Null outside of a cluster, and for a slot that does not run.
    node: Node | None
    # Where the node listens for others: 10.0.0.5:9100.
    node_listens: list[str]


class Step(TypedDict, total=False):
    """One step of a host that joins its group: C(do) is V(deploy) or V(switch)."""

    do: str
    color: str
    release: str
    env: str


class Goal(TypedDict, total=False):
    """Where one host of a group goes."""

    color: str | None
    release: str | None
    env: str
    # It is live there already.
    already: bool
    # The release and its environment have to be put into the slot again before it can be live.
    take: bool
    # It runs in the slot and is healthy, so that nothing has to be started for a rollback.
    runs: bool
    # Names of the nodes that the new one keeps a connection with.
    nodes: list[str]
    # Why there is nowhere to go; then nothing else is in it.
    refused: str
    # Of a host that joins: the host that it gets everything from, and what is done with it, in order.
    source: str
    steps: list[Step]
    # Of a host that is the whole group: how it ends the run by itself, as options of deploy_lock.
    finish: dict[str, Any]


class Info(TypedDict, total=False):
    """What C(slot_info) returns of one host; C(deploy_lock) returns the same when a run begins and when it ends."""

    # Only where the host told of itself at the end of a run, or for the status.
    ok: bool
    # Whether it serves visitors; a worker does not.
    web: bool
    live: str
    idle: str
    target: str
    link: str | None
    deployment_id: str | None
    deployment_id_error: str | None
    previous: FormerlyLive | None
    slots: dict[str, Slot]
    releases: list[str]
    host_content: dict[str, Any] | None
    facts: Facts
    problems: list[str]
    live_unknown: bool
    conflicts: list[str]
    notes: list[str]
    no_site: bool
    rolled_back: list[Held]
    history: list[dict[str, Any]]
    last_run: dict[str, Any] | None
    # The last day by the half hour, if somebody asked: {"at", "color", "requests", "errors", "p95"}.
    figures: list[dict[str, Any]]
    # Release to what it has told.
    migrations: dict[str, Migrations]
    migrate_color: str
    canary: int
    maintenance: bool
    # Of the installed site, if it has one.
    certificate: dict[str, Any] | None
    setup_needed: list[str]
    lock: Lock | None
    nginx_version: str | None
    is_root: bool
    has_user: bool
    # Color to name to a hash of the value, which is the same for the same value and tells nothing of it.
    env_names: dict[str, dict[str, str]]
    # Color to a hash of its environment, the same on all hosts of a group for the same values.
    env_digests: dict[str, str]
    # A hash of the cookie, which tells nothing of it; empty where there is none yet.
    cookie: str
    wanted: dict[str, Any] | None
    disagreements: list[str]
    rollback: Goal


class FailedStep(TypedDict):
    """Why one host is not good."""

    host: str
    step: str
    why: str


class Gate(TypedDict, total=False):
    """How a run on a group stands: made anew by every check, and handed on by it."""

    run: str
    # Whether the run may go on.
    ok: bool
    failures: list[FailedStep]
    # Hosts that the run went on without, with the user's consent.
    lost: list[str]
    # Steps that the run has come to.
    begun: list[str]
    # What has to be undone, of slots, switch and traffic; empty while all is well.
    undo: list[str]
    # Where each host goes, once that is planned.
    hosts: dict[str, Goal]
    # What went live, or a canary, was judged worse than the other slot.
    worse: bool
    # The shares that a promote goes up by before it switches, in percent.
    steps: list[int]
    # The slots keep what the deploy put into them, however the promote after it ends.
    kept: bool


Infos = dict[str, Info]
