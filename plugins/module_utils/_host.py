# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One app on the host this runs on: its paths, and the effects that all modules share. Private to this collection."""

from __future__ import annotations

import contextlib
import fcntl
import grp
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import stat
import time

from ansible_collections.beamops.bluegreen.plugins.module_utils import _envfile, _rules, _slots
from ansible_collections.beamops.bluegreen.plugins.module_utils._rules import COLORS, Refused

# The options that every module takes: which app, and where it lives. Documented in the fragment of the same name.
APP_OPTIONS = dict(
    app=dict(type="str", required=True),
    root=dict(type="path", required=True),
    domain=dict(type="str", required=True),
    ports=dict(type="dict", required=True),
    listen=dict(type="str", required=True),
    tls_listen=dict(type="str", default=""),
    service_manager=dict(type="str", required=True, choices=["systemd", "daemon"]),
    nginx_conf_dir=dict(type="path", default="/etc/nginx"),
    facts_dir=dict(type="path", default="/etc/ansible/facts.d"),
)

# What of a slot counts as healthy. Documented in the fragment app.health.
HEALTH_OPTIONS = dict(health_path=dict(type="str", default="/"), health_status=dict(type="int", default=200))

_LOADED = time.monotonic()


class Failure(Exception):
    """What could not be done. The text is for the person at the terminal; V(extra) goes into the module's result."""

    def __init__(self, text, **extra):
        super().__init__(text)
        self.extra = extra


# In every file that set-up writes outside of the app's directory: what has it not is somebody else's.
MARK = "beamops.bluegreen"


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


# --- files ---------------------------------------------------------------------------------------------------------


def read_text(path):
    """The text of a file, or V(None) where there is none."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as handle:
            return handle.read()
    except FileNotFoundError:
        return None


def read_json(path):
    text = read_text(path)
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None


def sync_dir(path):
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_file(path, text, mode, group=None):
    """Put a file in place whole or not at all: temporary file beside it, fsync, rename(2), fsync of the directory.

    The temporary name starts with a dot, so that no C(include *) of nginx and no fact reader ever loads it.
    """
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.new")
    remove(temporary)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(text)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            if group is not None:
                os.fchown(stream.fileno(), -1, group)
            os.fsync(stream.fileno())
        os.rename(temporary, path)
    except OSError:
        remove(temporary)
        raise
    sync_dir(folder)


def write_json(path, value, mode=0o644):
    write_file(path, json.dumps(value, indent=2, sort_keys=True) + "\n", mode)


def write_link(path, target):
    """Point a symlink elsewhere in one step; there is no moment without it."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.new")
    remove(temporary)
    os.symlink(target, temporary)
    os.rename(temporary, path)
    sync_dir(folder)


def write_hard_link(source, path):
    """Give a file a second name, replacing what had it."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.new")
    remove(temporary)
    os.link(source, temporary)
    os.rename(temporary, path)
    # rename(2) does nothing at all when both names are the same file already.
    remove(temporary)
    sync_dir(folder)


def remove(path):
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    sync_dir(os.path.dirname(path))


def remove_tree(path):
    """Remove a directory tree of ours; releases are unpacked without write permission."""
    for folder, _folders, _files in os.walk(path):
        os.chmod(folder, 0o700)
    shutil.rmtree(path)


# --- the app's place on the host -------------------------------------------------------------------------------------


class App:
    """Paths of one app, and what its symlinks and files say."""

    def __init__(self, params):
        """Check the options that came in. Raises: Refused."""
        self.name = _rules.check_app(params["app"])
        self.root = _rules.check_path(params["root"], "bluegreen_root")
        self.domain = _rules.check_domain(params["domain"])
        self.ports = _rules.check_ports(params["ports"])
        self.listen = _rules.check_listen(params["listen"])
        self.tls_listen = _rules.check_listen(params["tls_listen"]) if params["tls_listen"] else ""
        self.service_manager = params["service_manager"]
        self.nginx_conf_dir = _rules.check_path(params["nginx_conf_dir"], "bluegreen_nginx_conf_dir")
        facts_dir = _rules.check_path(params["facts_dir"], "bluegreen_facts_dir")
        self.releases = f"{self.root}/releases"
        self.live = f"{self.root}/live"
        self.lock = f"{self.root}/lock"
        self.history = f"{self.root}/history.jsonl"
        self.cookie = f"{self.root}/cookie"
        self.switch_journal = f"{self.root}/switch.json"
        self.preview = f"{self.root}/preview"
        self.maintenance = f"{self.root}/maintenance/on"
        self.maintenance_page = f"{self.root}/maintenance/page.html"
        self.former_static = f"{self.root}/former-static"
        self.facts_file = f"{facts_dir}/{self.name}.fact"

    def slot(self, color):
        return f"{self.root}/slots/{color}"

    def env_file(self, color):
        return f"{self.slot(color)}/env"

    def env_former(self, color):
        """The env that a slot had before the deploy that is under way; gone once the deploy is confirmed."""
        return f"{self.slot(color)}/env.former"

    def journal(self, color):
        """Says what a slot held before the deploy that is under way; gone once the deploy is confirmed."""
        return f"{self.slot(color)}/deploy.json"

    def state_dir(self, color):
        """The one place that a slot's process may write to."""
        return f"{self.root}/state/{color}"

    def canary(self, color):
        """A file for each percent of the visitors that gets this slot while it is idle."""
        return f"{self.root}/canary/{color}"

    def canary_percent(self, color):
        try:
            return len(os.listdir(self.canary(color)))
        except FileNotFoundError:
            return 0

    def former_env(self, release, env):
        """The env file of what was live and has lost its slot to a later deploy.

        :param env: its id; V('') for the one file of a release that an older version of this collection kept.
        """
        return f"{self.root}/former/{release}.{env}.env" if env else f"{self.root}/former/{release}.env"

    def former_envs(self):
        """What was live, has lost its slot, and could be put into one again: {"release", "env"} for each file of V(former_env)."""
        try:
            names = os.listdir(f"{self.root}/former")
        except (FileNotFoundError, PermissionError):
            return []
        found = []
        for name in sorted(name[: -len(".env")] for name in names if name.endswith(".env")):
            try:
                release, _dot, env = name.rpartition(".")
                found.append({"release": _rules.check_release(release), "env": _rules.check_env_id(env)})
            except Refused:
                # An older version of this collection kept one for each release.
                found.append({"release": name, "env": ""})
        return found

    def migrations_file(self, release):
        return f"{self.root}/former/{release}.migrations"

    def proven(self, color):
        """There once something in a slot was proven healthy, until the slot is empty again: without it nginx sends nobody there."""
        return f"{self.slot(color)}/proven"

    def wanted_site(self):
        """How the site is to be reached: {"listen", "tls_listen", "domain"}."""
        return {"listen": self.listen, "tls_listen": self.tls_listen, "domain": self.domain}

    def has_site(self):
        return os.path.exists(f"{self.nginx_conf_dir}/conf.d/{self.name}.conf")

    def site(self):
        """How the site is reached now, as V(wanted_site): what is wanted may not be installed yet."""
        text = read_text(f"{self.nginx_conf_dir}/conf.d/{self.name}.conf") or ""
        listens = re.findall(r"^\s*listen ([0-9.:]+)( ssl)?\b", text, re.MULTILINE)
        domain = re.search(r"^\s*server_name ([^\s;]+)", text, re.MULTILINE)
        plain, encrypted = [one for one, ssl_ in listens if not ssl_], [one for one, ssl_ in listens if ssl_]
        if not listens or not domain:
            return self.wanted_site()
        tls = encrypted[0] if encrypted else ""
        return {"listen": (plain or [self.listen])[0], "tls_listen": tls, "domain": domain.group(1)}

    def release_dir(self, release):
        return f"{self.releases}/{release}"

    def link(self):
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
                f"{self.live} points to {target}, which is neither slots/blue nor slots/green; "
                f"find out which slot serves and set it: ln -sfn slots/blue {self.live}"
            )
        if not os.path.isfile(f"{self.slot(color)}/is-{color}"):
            raise Failure(f"{self.slot(color)}/is-{color} is missing, so nginx cannot tell the slot; run setup.yml")
        return color

    def held(self, color):
        """What a slot holds: {"release", "env", "sha256"}, or V(None)."""
        try:
            target = os.readlink(f"{self.slot(color)}/release")
        except FileNotFoundError:
            return None
        release = os.path.basename(target)
        _rules.check_release(release)
        about = read_json(f"{self.release_dir(release)}/.bluegreen.json") or {}
        return {"release": release, "env": _envfile.env_id(self.env(color)), "sha256": about.get("sha256", "")}

    def kept(self):
        """Ids of the releases on this host, newest first by the time they were unpacked."""
        try:
            names = os.listdir(self.releases)
        except FileNotFoundError:
            return []
        found = []
        for name in names:
            try:
                _rules.check_release(name)
            except Refused:
                continue
            about = read_json(f"{self.release_dir(name)}/.bluegreen.json")
            if about:
                found.append((about.get("installed_at", ""), name))
        return [name for _at, name in sorted(found, reverse=True)]

    def files(self, release):
        """Name to SHA-256 of the files of a release; empty where that was not written down."""
        found = read_json(f"{self.release_dir(release)}/.files.json")
        return found if isinstance(found, dict) else {}

    def migrations(self):
        """Release to the versions of the migrations that had run when it was deployed, where that was written down."""
        found = {}
        for release in self.kept():
            versions = read_json(self.migrations_file(release))
            if isinstance(versions, list):
                found[release] = versions
        return found

    def facts_as_written(self):
        return _slots.parse_facts(read_text(self.facts_file))

    def facts(self):
        """The facts as they ought to be now."""
        return _slots.reconcile(
            self.facts_as_written()[0],
            self.link(),
            {color: self.held(color) for color in COLORS},
            read_json(self.switch_journal),
            now(),
        )

    def write_facts(self, facts):
        """Returns whether that changed the file."""
        if self.facts_as_written()[0] == facts and os.path.exists(self.facts_file):
            return False
        os.makedirs(os.path.dirname(self.facts_file), mode=0o755, exist_ok=True)
        write_json(self.facts_file, facts)
        return True

    def env(self, color):
        """The env a slot's file holds, as a mapping; empty where there is none."""
        return _envfile.parse(read_text(self.env_file(color)) or "")

    def wanted_env(self, color, packed):
        """The env that a slot would get with the user's variables, packed by the filter C(slot_env), as a mapping."""
        cookie = (read_text(self.cookie) or "").strip()
        user = _envfile.unpack(packed)
        return _envfile.slot_env(user, color, self.ports[color], self.name, self.state_dir(color), cookie, self.domain)


def claimed_ports(app):
    """Sentences if another app of this collection has a port that is wanted: its site sends its visitors there."""
    found, folder = [], f"{app.nginx_conf_dir}/conf.d"
    names = os.listdir(folder) if os.path.isdir(folder) else []
    for name in sorted(names):
        text = read_text(f"{folder}/{name}") if name.endswith(".conf") and name != f"{app.name}.conf" else None
        if not text or MARK not in text:
            continue
        for owner, theirs, port in re.findall(
            r"^upstream (\w+)-(blue|green) \{\s*server 127\.0\.0\.1:(\d+);", text, re.MULTILINE
        ):
            for color in COLORS:
                if int(port) == app.ports[color]:
                    found.append(
                        f"port {port} is of {owner} on this host, for its {theirs}; give {app.name} another "
                        f"bluegreen_ports.{color}"
                    )
    return found


def port_conflicts(app, live):
    """Sentences if the ports that are wanted would leave nginx and the live slot on two different ones.

    The site names the ports of both slots, and the live process keeps the one it was started with.
    """
    port = app.env(live).get("PORT") if live else None
    if not port or port == str(app.ports[live]):
        return []
    return [
        f"{live} is live on port {port}, and bluegreen_ports.{live} says {app.ports[live]}: nginx would lose it. "
        f"Change the port of the idle slot, deploy and promote; then change the other"
    ]


# --- one at a time -----------------------------------------------------------------------------------------------------

# Longer than a slot may take to stop, start and be given back with the default timeouts.
ALONE_SECONDS = 180


def _at_work(inode):
    """Process ids that hold a lock of flock(2) on an inode."""
    lines = (read_text("/proc/locks") or "").splitlines()
    return [line.split()[4] for line in lines if " FLOCK " in line and line.split()[5].endswith(f":{inode}")]


@contextlib.contextmanager
def alone(app):
    """Be the only module at work on an app on this host; the kernel ends that when the process ends, however it does.

    The deploy lock is between runs. This is between processes: a module goes on when its controller is killed, and whoever
    takes the deploy lock over from the dead run waits here until that module has ended. What killed ones left half done is
    removed. Raises: Failure.
    """
    try:
        handle = os.open(app.root, os.O_RDONLY)
    except FileNotFoundError:
        yield
        return
    try:
        deadline = time.monotonic() + ALONE_SECONDS
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    who = ", ".join(_at_work(os.fstat(handle).st_ino)) or "unknown"
                    raise Failure(
                        f"a module of an earlier run is still at work on {app.name} on this host (process {who}); "
                        "run this again when it has ended"
                    ) from None
                time.sleep(0.1)
        sweep(app)
        yield
    finally:
        os.close(handle)


def sweep(app):
    """Remove what killed modules left behind. Only for whoever is alone: of nobody else's is anything half done then."""
    doomed = []
    for folder, beginnings, end in (
        (app.root, (".",), (".new", ".broken")),
        (app.slot("blue"), (".",), ".new"),
        (app.slot("green"), (".",), ".new"),
        (f"{app.root}/former", (".",), ".new"),
        (app.releases, (".unpacking.", ".fetching.", ".removing."), ""),
        (app.preview, ("smoke-",), ""),
        (f"{app.root}/maintenance", (".",), ".new"),
        (os.path.dirname(app.facts_file), (f".{app.name}.fact",), ".new"),
        (f"{app.nginx_conf_dir}/conf.d", (f".{app.name}.conf",), ".new"),
    ):
        names = os.listdir(folder) if os.path.isdir(folder) else []
        doomed += [f"{folder}/{name}" for name in names if name.startswith(beginnings) and name.endswith(end)]
    for color in COLORS:
        if not os.path.exists(app.journal(color)):
            # A deploy was confirmed, and killed before it could let go of the former environment.
            doomed.append(app.env_former(color))
    for path in doomed:
        if not os.path.isdir(path) or is_link(path):
            remove(path)
        elif path.startswith(f"{app.releases}/"):
            remove_tree(path)


def forget_former(app, color):
    """Let go of what a slot held before its last deploy."""
    remove(app.journal(color))
    remove(app.env_former(color))


def must_hold_lock(app, run):
    """Refuse to act for a run that has lost the lock meanwhile: it was dead, or was taken for dead. Raises: Failure.

    Without the name of a run (a module that somebody uses by itself) there is nothing to compare.
    """
    held = read_json(app.lock) or {}
    if run and held.get("run") != run:
        raise Failure(
            f"this run does not hold the lock of {app.name} any more"
            + (f"; {held.get('holder')} does, for {held.get('operation')}" if held else "")
        )


# --- who gets the idle slot ------------------------------------------------------------------------------------------


def has_token(app, token):
    """Whether just this preview token is set; an empty one stands for none."""
    try:
        names = os.listdir(app.preview)
    except (FileNotFoundError, PermissionError):
        names = []
    return [name for name in names if not name.startswith("smoke-")] == ([token] if token else [])


def end_canary(app, color):
    """Nobody gets a share of a slot that is about to be live, or to stop."""
    folder = app.canary(color)
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        remove(f"{folder}/{name}")


def static_dir(app, release):
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


# --- asking over HTTP --------------------------------------------------------------------------------------------------


def http_get(address, port, path, host, timeout=5.0, tls=False, headers=None, size=512):
    """One GET on a connection of its own: {"status", "location", "body"} or {"error"}.

    Not urllib: that follows redirects and proxies, and the answer of *this* port is wanted. With V(tls) the certificate is not
    judged here: that is done before a site is installed, and a browser's opinion does not tell which slot answers.
    """
    connection = http.client.HTTPConnection(address, port, timeout=timeout)
    try:
        if tls:
            connection.connect()
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection.sock = context.wrap_socket(connection.sock, server_hostname=host)
        sent = {"Host": host, "Connection": "close", "User-Agent": "bluegreen", **(headers or {})}
        connection.request("GET", path, headers=sent)
        answer = connection.getresponse()
        body = answer.read(size).decode("utf-8", "replace")
        return {"status": answer.status, "location": answer.getheader("Location"), "body": body}
    except socket.timeout:
        return {"error": f"no answer in {timeout:g} s"}
    except (OSError, http.client.HTTPException) as error:
        return {"error": (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()}
    finally:
        connection.close()


def through_nginx(app, path, **kwargs):
    """What a visitor of the site gets: an answer of V(http_get)."""
    site = app.site()
    address, port = _rules.listen_address(site["tls_listen"] or site["listen"])
    return http_get(address, port, path, _rules.request_host(site["domain"]), tls=bool(site["tls_listen"]), **kwargs)


def describe(answer):
    """An answer of V(http_get) in a few words."""
    if "error" in answer:
        return answer["error"]
    if answer["location"]:
        return f"{answer['status']} to {answer['location']}"
    return str(answer["status"])


# Of an answer that a person is shown.
_SHOWN_LINES, _SHOWN_WIDTH = 5, 200


def first_lines(answer):
    """The first lines of the body of an answer, indented below what V(describe) says of it; empty where there is none.

    A health path often says in its body what is wrong. Whoever shows this takes the secrets out first.
    """
    lines = [line.strip() for line in answer.get("body", "").splitlines() if line.strip()][:_SHOWN_LINES]
    return "".join(f"\n    {line[:_SHOWN_WIDTH]}" for line in lines)


def deployment_id(app):
    """Ask nginx for the live color: (color, None) or (None, why not)."""
    answer = through_nginx(app, "/deployment_id")
    body = answer.get("body", "").strip()
    if answer.get("status") == 200 and body in COLORS:
        return body, None
    site = app.site()
    address, port = _rules.listen_address(site["tls_listen"] or site["listen"])
    return None, f"{describe(answer)} at {address}:{port} for {site['domain']}"


# --- processes, by /proc -------------------------------------------------------------------------------------------------


def _as_owner(pid, question):
    """Read something of a process that only its owner may read.

    Root can do it directly where it has CAP_SYS_PTRACE, which many containers lack; the process's own user always may.
    """
    try:
        return question(pid)
    except PermissionError:
        if os.geteuid() != 0:
            raise
    owner = os.stat(f"/proc/{pid}")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            os.setgroups([])
            os.setgid(owner.st_gid)
            os.setuid(owner.st_uid)
            with os.fdopen(writer, "w") as stream:
                json.dump(question(pid), stream)
        except BaseException:  # pylint: disable=broad-exception-caught
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    if os.waitpid(child, 0)[1] != 0 or not text:
        raise PermissionError(f"/proc/{pid} cannot be read")
    return json.loads(text)


def _environ(pid):
    with open(f"/proc/{pid}/environ", "rb") as stream:
        pairs = stream.read().decode("utf-8", "surrogateescape").split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def _sockets(pid):
    inodes = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            inodes.append(target[8:-1])
    return inodes


def environ_of(pid):
    """A process's environment, empty where it is gone or not ours to read."""
    try:
        return _as_owner(pid, _environ)
    except (OSError, ValueError):
        return {}


def sockets_of(pid):
    try:
        return _as_owner(pid, _sockets)
    except (OSError, ValueError):
        return []


def all_pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def stat_of(pid):
    """{"parent", "command", "state"} of a process, or V(None) when it is gone."""
    text = None
    try:
        text = read_text(f"/proc/{pid}/stat")
    except OSError:
        pass
    if not text:
        return None
    # The command may hold spaces and parentheses; it ends at the last one.
    command, rest = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
    return {"parent": int(rest[1]), "command": command, "state": rest[0]}


def seconds_since_start():
    """How long this module is at work, also while it stood still: from when its code was loaded, before it waited for anything."""
    return time.monotonic() - _LOADED


def uptime():
    """Seconds since this host booted, to a hundredth: no matter of its wall clock, which may be wrong, and may be set."""
    return float((read_text("/proc/uptime") or "0").split()[0])


def is_running(pid):
    found = stat_of(pid)
    return bool(found) and found["state"] not in "ZX"


def family(pid):
    """A process and all that descend from it."""
    children = {}
    for one in all_pids():
        found = stat_of(one)
        if found:
            children.setdefault(found["parent"], []).append(one)
    result, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        result.append(one)
        waiting.extend(children.get(one, []))
    return result


def tcp_sockets():
    """The TCP sockets of this host, by /proc (ss may be missing): inodes by (local port, state of the kernel's).

    Read once for several questions: the kernel goes through its whole table for it, 5 ms for each of the two.
    """
    found = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in (read_text(table) or "").splitlines()[1:]:
            fields = line.split()
            found.setdefault((int(fields[1].rsplit(":", 1)[1], 16), fields[3]), []).append(fields[9])
    return found


def listening(port, sockets=None):
    """Inodes of the sockets that listen on a TCP port. V(sockets) are those of V(tcp_sockets), if they were read already."""
    return (tcp_sockets() if sockets is None else sockets).get((port, "0A"), [])


def connections(port, sockets=None):
    """How many established TCP connections somebody has to a port of this host."""
    return len((tcp_sockets() if sockets is None else sockets).get((port, "01"), []))


def holder_of(port):
    """Who listens on a port: (pid, command), (None, None) if somebody does that we cannot see, or V(None) if it is free.

    V(who_listens) has it in words.
    """
    inodes = set(listening(port))
    if not inodes:
        return None
    for pid in all_pids():
        if inodes & set(sockets_of(pid)):
            return pid, (stat_of(pid) or {}).get("command", "?")
    return None, None


def who_listens(holder):
    """What V(holder_of) found, in words, with the unit that a process belongs to."""
    pid, command = holder
    if not pid:
        return "a process that cannot be seen from here"
    try:
        unit = re.search(r"/([^/\n]+)\.(?:service|scope)$", read_text(f"/proc/{pid}/cgroup") or "", re.MULTILINE)
    except OSError:
        unit = None
    return f"process {pid} ({command}{f' of {unit.group(1)}' if unit else ''})"


def group_of(app_name):
    """The numeric group of the app's user, or V(None) where there is no such user (the embedded default)."""
    if os.geteuid() != 0:
        return None
    try:
        return grp.getgrnam(app_name).gr_gid
    except KeyError:
        return None


def free_bytes(path):
    """Bytes that this process could still write below the nearest directory of a path that exists."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    found = os.statvfs(path)
    return (found.f_bfree if os.geteuid() == 0 else found.f_bavail) * found.f_frsize


def is_link(path):
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False
