# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One app on the host this runs on: its paths, and what its symlinks and files say. Private to this collection."""

from __future__ import annotations

import glob
import os
import pwd
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ansible_collections.beamops.bluegreen.plugins.module_utils import (
    _cluster,
    _envfile,
    _files,
    _migrations,
    _slots,
    _validate,
)
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure, Refused
from ansible_collections.beamops.bluegreen.plugins.module_utils._validate import COLORS, other

if TYPE_CHECKING:
    from ansible_collections.beamops.bluegreen.plugins.plugin_utils._types import Content, Facts, Migrations, Node

# The options that every module takes: which app, and where it lives. Documented in the fragment of the same name.
APP_OPTIONS = dict(
    app=dict(type="str", required=True),
    root=dict(type="path", required=True),
    domain=dict(type="str", required=True),
    web=dict(type="bool", default=True),
    user=dict(type="str", default=""),
    ports=dict(type="dict", required=True),
    listen=dict(type="str", required=True),
    tls_listen=dict(type="str", default=""),
    service_manager=dict(type="str", required=True, choices=["systemd", "daemon"]),
    nginx_conf_dir=dict(type="path", default="/etc/nginx"),
    facts_dir=dict(type="path", default="/etc/ansible/facts.d"),
    cluster=dict(type="dict", default={}),
)


# What of a slot counts as healthy. Documented in the fragment app.health.
HEALTH_OPTIONS = dict(
    health_path=dict(type="str", default="/"),
    health_status=dict(type="int", default=200),
    health_expr=dict(type="str", default=""),
)


# In every file that set-up writes outside of the app's directory: what has it not is somebody else's.
MARK = "beamops.bluegreen"
# Where the site has a server for our own proof: an address of the loopback network that nobody else uses, so that no visitor of another
# site comes there.
PROOF_ADDRESS = "127.0.0.77"


class App:
    """Paths of one app, and what its symlinks and files say."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        """Check the options that came in. Raises: Refused."""
        self.name = _validate.check_app(params["app"])
        self.root = _validate.check_path(params["root"], "bluegreen_root")
        # A worker serves nobody: it has no site, and need not have a name.
        self.web = params.get("web", True)
        self.domain = _validate.check_domain(params["domain"]) if self.web or params["domain"] else ""
        # An account that exists already, or one of the app's own.
        self.named_user = _validate.check_user(params["user"]) if params.get("user") else ""
        self.user = self.named_user or self.name
        self.ports = _validate.check_ports(params["ports"])
        self.listen = _validate.check_listen(params["listen"])
        self.tls_listen = _validate.check_listen(params["tls_listen"]) if params["tls_listen"] else ""
        self.cluster = _cluster.from_option(params.get("cluster") or {})
        self.service_manager = params["service_manager"]
        self.nginx_conf_dir = _validate.check_path(params["nginx_conf_dir"], "bluegreen_nginx_conf_dir")
        facts_dir = _validate.check_path(params["facts_dir"], "bluegreen_facts_dir")
        self.releases = f"{self.root}/releases"
        self.live = f"{self.root}/live"
        self.lock = f"{self.root}/lock"
        self.history = f"{self.root}/history.jsonl"
        self.figures = f"{self.root}/figures.log"
        self.cookie = f"{self.root}/cookie"
        self.switch_journal = f"{self.root}/switch.json"
        self.preview = f"{self.root}/preview"
        self.maintenance = f"{self.root}/maintenance/on"
        self.maintenance_page = f"{self.root}/maintenance/page.html"
        # bluegreen_quorum: most of the group serve another release.
        self.alone = f"{self.root}/alone"
        self.former_static = f"{self.root}/former-static"
        self.facts_file = f"{facts_dir}/{self.name}.fact"
        self.site_file = f"{self.nginx_conf_dir}/conf.d/{self.name}.conf"
        # The hash of the site that nginx was last proven to have loaded, and the site as set-up wrote it last.
        self.site_stamp = f"{self.root}/site.sha256"
        self.site_written = f"{self.root}/site.conf"

    def slot(self, color: str) -> str:
        return f"{self.root}/slots/{color}"

    def env_file(self, color: str) -> str:
        return f"{self.slot(color)}/env"

    def env_former(self, color: str) -> str:
        """The env that a slot had before the deploy that is under way; gone once the deploy is confirmed."""
        return f"{self.slot(color)}/env.former"

    def journal(self, color: str) -> str:
        """Says what a slot held before the deploy that is under way; gone once the deploy is confirmed."""
        return f"{self.slot(color)}/deploy.json"

    def state_dir(self, color: str) -> str:
        """The one place that a slot's process may write to."""
        return f"{self.root}/state/{color}"

    def canary(self, color: str) -> str:
        """A file for each percent of the visitors that gets this slot while it is idle."""
        return f"{self.root}/canary/{color}"

    def canary_percent(self, color: str) -> int:
        try:
            return len(os.listdir(self.canary(color)))
        except FileNotFoundError:
            return 0

    def former_env(self, release: str, env: str) -> str:
        """The env file of what was live and has lost its slot to a later deploy.

        :param env: its id; V('') for the one file of a release that an older version of this collection kept.
        """
        return f"{self.root}/former/{release}.{env}.env" if env else f"{self.root}/former/{release}.env"

    def former_envs(self) -> list[dict[str, str]]:
        """What was live, has lost its slot, and could be put into one again: {"release", "env"} for each file of V(former_env)."""
        try:
            names = os.listdir(f"{self.root}/former")
        except (FileNotFoundError, PermissionError):
            return []
        found: list[dict[str, str]] = []
        for name in sorted(name[: -len(".env")] for name in names if name.endswith(".env")):
            try:
                release, _dot, env = name.rpartition(".")
                found.append({"release": _validate.check_release(release), "env": _validate.check_env_id(env)})
            except Refused:
                # An older version of this collection kept one for each release.
                found.append({"release": name, "env": ""})
        return found

    def migrations_file(self, release: str) -> str:
        return f"{self.root}/former/{release}.migrations"

    def proven(self, color: str) -> str:
        """There once something in a slot was proven healthy, until the slot is empty again: without it nginx sends nobody there."""
        return f"{self.slot(color)}/proven"

    def shortcut(self, color: str) -> str:
        """There while all visitors get this slot if it is live, so that nginx need not look for what would give them something else."""
        return f"{self.slot(color)}/all-{color}-none"

    def wanted_site(self) -> dict[str, str]:
        """How the site is to be reached: {"listen", "tls_listen", "domain", "proxied", "proof"}."""
        return {"listen": self.listen, "tls_listen": self.tls_listen, "domain": self.domain, "proxied": "", "proof": ""}

    def has_site(self) -> bool:
        return os.path.exists(self.site_file)

    def site(self) -> dict[str, str]:
        """How the site is reached now, as V(wanted_site): what is wanted may not be installed yet."""
        text = _files.read_text(self.site_file) or ""
        proof = re.search(rf"^\s*listen ({re.escape(PROOF_ADDRESS)}:[0-9]+);", text, re.MULTILINE)
        text = text.replace(proof.group(0), "") if proof else text
        listens = re.findall(r"^\s*listen ([0-9.:]+)( ssl)?\b", text, re.MULTILINE)
        domain = re.search(r"^\s*server_name ([^\s;]+)", text, re.MULTILINE)
        plain, encrypted = [one for one, ssl_ in listens if not ssl_], [one for one, ssl_ in listens if ssl_]
        if not listens or not domain:
            return self.wanted_site()
        return {
            "listen": (plain or [self.listen])[0],
            "tls_listen": encrypted[0] if encrypted else "",
            "domain": domain.group(1),
            # A load balancer in front ends TLS.
            "proxied": "yes" if f"${self.name}_proxied {{" in text else "",
            # Where an older version of this collection wrote the site, there is none.
            "proof": proof.group(1) if proof else "",
        }

    def release_dir(self, release: str) -> str:
        return f"{self.releases}/{release}"

    def live_color(self) -> str | None:
        """The color that C(live) points to, or V(None) where the host is not set up. Raises: Failure."""
        try:
            target = os.readlink(self.live)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Failure(f"{self.live} is not a symlink to a slot ({error.strerror})") from None
        color = os.path.basename(target)
        if color not in COLORS or os.path.join(self.root, target).rstrip("/") != self.slot(color):
            raise Failure(
                f"{self.live} points to {target}, which is neither slots/blue nor slots/green. "
                f"Find out which slot serves, and set it: ln -sfn slots/blue {self.live}"
            )
        if not os.path.isfile(f"{self.slot(color)}/is-{color}"):
            raise Failure(f"{self.slot(color)}/is-{color} is missing, so nginx cannot tell the slot. Run setup.yml.")
        return color

    def slot_content(self, color: str) -> Content | None:
        """What a slot holds: {"release", "env", "sha256"}, or V(None)."""
        try:
            target = os.readlink(f"{self.slot(color)}/release")
        except FileNotFoundError:
            return None
        release = os.path.basename(target)
        _validate.check_release(release)
        sha256 = self.about(release).get("sha256", "")
        return {"release": release, "env": _envfile.env_id(self.env(color)), "sha256": sha256}

    def slot_release(self, color: str | None) -> str | None:
        """The release that a slot holds, or V(None)."""
        content = self.slot_content(color) if color else None
        return content["release"] if content else None

    def installed_releases(self) -> list[str]:
        """Ids of the releases on this host, newest first by the time they were unpacked."""
        try:
            names = os.listdir(self.releases)
        except FileNotFoundError:
            return []
        found = []
        for name in names:
            try:
                _validate.check_release(name)
            except Refused:
                continue
            about = self.about(name)
            if about:
                found.append((about.get("installed_at", ""), name))
        return [name for _at, name in sorted(found, reverse=True)]

    def release_files(self, release: str) -> dict[str, str]:
        """Name to SHA-256 of the files of a release; empty where that was not written down."""
        found = _files.read_json(f"{self.release_dir(release)}/.files.json")
        return found if isinstance(found, dict) else {}

    def about(self, release: str) -> dict[str, Any]:
        """What was written down when a release was installed: version, sha256, installed_at and, if it was said, commit. Empty if it is not ours."""
        found = _files.read_json(f"{self.release_dir(release)}/.bluegreen.json")
        return found if isinstance(found, dict) else {}

    def commit(self, release: str | None) -> str:
        """What a release was built from; empty if nobody said."""
        return str(self.about(release).get("commit") or "") if release else ""

    def has_library(self, release: str | None, library: str) -> bool:
        """Whether a release has an application such as C(ecto_sql) in its C(lib)."""
        return bool(release) and bool(glob.glob(f"{self.release_dir(release or '')}/lib/{library}-[0-9]*"))

    def migrations(self) -> dict[str, Migrations]:
        """Release to what it told of the migrations of its database when it was deployed, or when somebody asked it again."""
        found = {}
        for release in self.installed_releases():
            told = _migrations.as_kept(_files.read_json(self.migrations_file(release)))
            if told:
                found[release] = told
        return found

    def facts_as_written(self) -> tuple[Facts, str | None]:
        return _slots.parse_facts(_files.read_text(self.facts_file))

    def facts(self) -> Facts:
        """The facts as they ought to be now."""
        return _slots.reconcile(
            self.facts_as_written()[0],
            self.live_color(),
            {color: self.slot_content(color) for color in COLORS},
            _files.read_json(self.switch_journal),
            _files.now(),
        )

    def write_facts(self, facts: Facts) -> bool:
        """Returns whether that changed the file."""
        if self.facts_as_written()[0] == facts and os.path.exists(self.facts_file):
            return False
        os.makedirs(os.path.dirname(self.facts_file), mode=0o755, exist_ok=True)
        _files.write_json(self.facts_file, facts)
        return True

    def env(self, color: str) -> dict[str, str]:
        """The env a slot's file holds, as a mapping; empty where there is none."""
        return _envfile.parse(_files.read_text(self.env_file(color)) or "")

    def own_cookie(self) -> str:
        """The cookie of the app on this host; empty where it is not set up."""
        return (_files.read_text(self.cookie) or "").strip()

    def wanted_env(self, color: str, packed: str, nodes: Iterable[str] = (), release: str = "") -> dict[str, str]:
        """The env that a slot would get with the user's variables, packed by the filter C(slot_env), as a mapping."""
        return _envfile.slot_env(
            _envfile.unpack(packed),
            color,
            self.ports[color],
            self.name,
            self.state_dir(color),
            self.own_cookie(),
            self.domain,
            self.cluster,
            nodes,
            release,
            self.web,
        )

    def node(self, color: str, pid: int | None) -> Node | None:
        """What there is to know of the node of a slot, or V(None) if it is not in a cluster or does not run."""
        return _cluster.read_node(self.env(color), self.own_cookie(), self.state_dir(color), pid)


def claimed_ports(app: App) -> list[str]:
    """Sentences if another app of this collection has a port that is wanted: its site sends its visitors there."""
    found, folder = [], f"{app.nginx_conf_dir}/conf.d"
    names = os.listdir(folder) if os.path.isdir(folder) else []
    for name in sorted(names):
        text = _files.read_text(f"{folder}/{name}") if name.endswith(".conf") and name != f"{app.name}.conf" else None
        if not text or MARK not in text:
            continue
        for owner, theirs, port in re.findall(
            r"^upstream (\w+)-(blue|green) \{\s*server 127\.0\.0\.1:(\d+);", text, re.MULTILINE
        ):
            for color in COLORS:
                if int(port) == app.ports[color]:
                    found.append(
                        f"port {port} belongs to {owner} on this host, for its {theirs}. Choose another "
                        f"bluegreen_ports.{color} for {app.name}."
                    )
    return found


def port_conflicts(app: App, live: str | None) -> list[str]:
    """Sentences if the ports that are wanted would leave nginx and the live slot on two different ones.

    The site names the ports of both slots, and the live process keeps the one it was started with.
    """
    port = app.env(live).get("PORT") if live else None
    if not live or not port or port == str(app.ports[live]):
        return []
    return [
        f"{live} is live on port {port}, and bluegreen_ports.{live} says {app.ports[live]}, so nginx would lose it. "
        f"Change the port of the idle slot, deploy and promote, then change the other."
    ]


def drop_journal(app: App, color: str) -> None:
    """Let go of what a slot held before its last deploy."""
    _files.remove(app.journal(color))
    _files.remove(app.env_former(color))


def has_token(app: App, token: str) -> bool:
    """Whether just this preview token is set; an empty one stands for none."""
    try:
        names = os.listdir(app.preview)
    except (FileNotFoundError, PermissionError):
        names = []
    return [name for name in names if not name.startswith("smoke-")] == ([token] if token else [])


def end_canary(app: App, color: str) -> None:
    """Nobody gets a share of a slot that is about to be live, or to stop."""
    folder = app.canary(color)
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        _files.remove(f"{folder}/{name}")


def close_shortcuts(app: App) -> None:
    """Before there is something that would give a visitor something else than the live slot."""
    for color in COLORS:
        _files.remove(app.shortcut(color))


def write_ids(app: App) -> None:
    """What a host tells the others of its group (bluegreen_quorum): in each slot a hash of its release."""
    for color in COLORS if app.web else ():
        release = app.slot_release(color)
        path, text = f"{app.slot(color)}/id", _files.sha256_hex(release)[:16] if release else None
        if text is None:
            _files.remove(path)
        elif _files.read_text(path) != text:
            _files.write_file(path, text, 0o644)


def set_shortcuts(app: App) -> None:
    """Whoever is cut short before this leaves none, and nginx looks for everything."""
    for color in COLORS if app.web else ():
        is_open = os.path.exists(app.proven(color)) and not os.path.exists(app.maintenance)
        is_open = is_open and not app.canary_percent(other(color)) and not os.path.exists(app.alone)
        if not is_open:
            _files.remove(app.shortcut(color))
        elif not os.path.exists(app.shortcut(color)):
            _files.write_file(app.shortcut(color), "", 0o644)


def static_dir(app: App, release: str) -> str | None:
    """Where a release has its static files, priv/static of the app, or of the one app in it that has any; V(None) if none."""
    lib = f"{app.release_dir(release)}/lib"
    try:
        found = [name for name in sorted(os.listdir(lib)) if os.path.isdir(f"{lib}/{name}/priv/static")]
    except FileNotFoundError:
        return None
    for wanted in (app.name, f"{app.name}_web"):
        for name in found:
            # The name of an application has no dash; its version may have several.
            if name.partition("-")[0] == wanted:
                return f"{lib}/{name}/priv/static"
    return f"{lib}/{found[0]}/priv/static" if len(found) == 1 else None


def account(app: App) -> tuple[int, int] | None:
    """User and group that the app runs as, by number; V(None) where this host has no such account."""
    try:
        entry = pwd.getpwnam(app.user)
    except KeyError:
        return None
    return entry.pw_uid, entry.pw_gid


def account_to_give(app: App) -> tuple[int, int] | None:
    """As V(account), where we may run or give things as it: V(None) also where we are not root (the embedded default)."""
    return account(app) if os.geteuid() == 0 else None


def group_of(app: App) -> int | None:
    """The numeric group of the app's user, or V(None) where there is no such user (the embedded default)."""
    found = account_to_give(app)
    return found[1] if found else None
