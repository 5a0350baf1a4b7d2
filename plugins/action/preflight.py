# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check all input of a run on the controller, before a host is touched. Documented with the module of the same name."""

from __future__ import annotations

import contextlib
import difflib
import getpass
import ipaddress
import os
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import yaml
from ansible import constants as C
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.release import __version__ as ansible_core
from ansible.utils.vars import load_extra_vars
from ansible_collections.beamops.bluegreen.plugins.module_utils import _envfile, _validate
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Refused
from ansible_collections.beamops.bluegreen.plugins.plugin_utils import _controller, _prebuild, _transfer, _variables

_SPECIFICATION = os.path.join(os.path.dirname(__file__), "..", "..", "roles", "preflight", "meta", "argument_specs.yml")
# As in meta/runtime.yml, which is only a warning.
_OLDEST = (2, 17)
# Options of the playbooks, and variables that are easily typed without their prefix.
_PLAYBOOK_VARS = ("color", "expr", "format", "grep", "history", "out", "since", "steps", "strict", "watch")
_PREFIXED = ("bluegreen_artifact", "bluegreen_promote", "bluegreen_force", "bluegreen_partial")

# What needs no lock.
_QUERIES = ("status", "env", "logs", "rpc", "console", "unlock", "build", "adopt")
# What stands for a color. Reading a log changes nothing, and a live slot is restarted only by that word.
_COLOR_WORDS = {"logs": ("live", "idle"), "restart": ("live",)}
# The option that an operation cannot do without, and what to say where it is missing.
_NEEDED = {"stop": "color", "restart": "color", "canary": "percent", "maintenance": "state", "rpc": "expr"}
_MISSING = {
    "stop": "Name the slot to stop, one that is not live: -e color=blue or -e color=green",
    "restart": (
        "Name the slot to restart: -e color=blue or -e color=green for one that is not live; -e color=live for the live ones, one host "
        "after the other"
    ),
    "canary": "Name the share of the visitors: -e percent=10. To end the canary: -e percent=0",
    "maintenance": "Name the state: -e state=on closes the site, -e state=off opens it",
    "rpc": (
        "Name the expression, as JSON because Ansible cuts key=value pairs at spaces: "
        '-e \'{"expr": "Node.self()"}\'. For a slot that is not live: -e color=blue'
    ),
}


def needs_timer(settings: Mapping[str, Any], wrong: list[str], attempt: Callable[..., Any]) -> None:
    """What systemd has to look after between two runs."""
    attempt(_variables.check_watch, settings["watch"])
    attempt(_variables.check_quorum, settings["quorum"])
    if settings["watch"] and settings["service_manager"] != "systemd":
        wrong.append("bluegreen_watch needs bluegreen_service_manager: systemd, whose timer keeps the figures small")
    if settings["quorum"] and settings["service_manager"] != "systemd":
        wrong.append("bluegreen_quorum needs bluegreen_service_manager: systemd, whose timer asks the other hosts")
    if settings["quorum"] and str(settings["health_path"]).partition("?")[0] == "/":
        wrong.append(
            "bluegreen_quorum needs a bluegreen_health_path of its own, because visitors would get the 503 at / that is meant for a balancer"
        )


def check(settings: Mapping[str, Any]) -> list[str]:
    """All that is wrong with the settings of one host, as sentences."""
    wrong = []

    def attempt(function, *args):
        try:
            return function(*args)
        except Refused as error:
            wrong.append(str(error))
            return None

    attempt(_validate.check_app, settings["app"])
    if settings["web"] or settings.get("domain"):
        attempt(_validate.check_domain, settings["domain"])
    ports = attempt(_validate.check_ports, settings["ports"])
    listen = attempt(_validate.check_listen, settings["listen"])
    if settings["user"]:
        attempt(_validate.check_user, settings["user"])
    attempt(_validate.check_shared, settings["shared"])
    attempt(_variables.check_writable, settings["writable"])
    attempt(_variables.check_memory, settings["memory"])
    attempt(_validate.check_choice, settings["service_manager"], "bluegreen_service_manager", ("systemd", "daemon"))
    for name in ("root", "nginx_conf_dir", "facts_dir"):
        attempt(_validate.check_path, settings[name], f"bluegreen_{name}")
    attempt(_validate.check_url_path, settings["health_path"])
    attempt(_validate.check_whole, settings["health_status"], "bluegreen_health_status", 100, 599)
    attempt(_validate.check_whole, settings["health_timeout"], "bluegreen_health_timeout", 1, 3600)
    attempt(_validate.check_whole, settings["stop_timeout"], "bluegreen_stop_timeout", 1, 3600)
    attempt(_validate.check_whole, settings["migrate_timeout"], "bluegreen_migrate_timeout", 1, 86400)
    attempt(_validate.check_whole, settings["lock_wait"], "bluegreen_lock_wait", 0, 86400)
    attempt(_validate.check_choice, settings["lost_hosts"], "bluegreen_lost_hosts", ("fail", "proceed"))
    attempt(_validate.check_whole, settings["keep_releases"], "bluegreen_keep_releases", 0, 1000)
    if settings.get("version"):
        attempt(_validate.check_version, settings["version"])
    if settings["commit"]:
        attempt(_validate.check_commit, settings["commit"])
    attempt(_variables.check_aliases, settings["aliases"], settings["domain"])
    attempt(_variables.check_trusted_proxies, settings["trusted_proxies"])
    tls = attempt(
        _variables.check_tls, settings["tls"], settings["listen"], [settings.get("domain"), *settings["aliases"]]
    )
    if (tls or {}).get("acme_email") and settings["service_manager"] != "systemd":
        wrong.append(
            "bluegreen_tls.acme_email needs bluegreen_service_manager: systemd, whose timer renews the certificate"
        )
    # What is wrong by itself is said already.
    listens = [one for one in (listen, str((tls or {}).get("listen", "443"))) if one]
    attempt(_validate.check_cluster, settings["cluster"], ports, listens)
    if settings.get("acme_webroot"):
        attempt(_validate.check_path, settings["acme_webroot"], "bluegreen_acme_webroot")
    attempt(_variables.check_body_size, settings["body_size"])
    attempt(_variables.check_assets, settings["assets"])
    for name in ("nginx_server", "nginx_location"):
        attempt(_variables.check_snippet, settings[name], f"bluegreen_{name}")
    if settings.get("preview_token"):
        attempt(_validate.check_token, settings["preview_token"])
    attempt(_validate.check_smoke, settings["smoke"])
    attempt(_variables.check_notify, settings["notify"])
    needs_timer(settings, wrong, attempt)
    attempt(_validate.check_whole, settings["move_sockets"], "bluegreen_move_sockets", 0, 3600)
    attempt(_validate.check_whole, settings["drain_timeout"], "bluegreen_drain_timeout", 0, 86400)
    page = settings.get("maintenance_page")
    if page and not os.path.isfile(local_path(page)):
        wrong.append(f"bluegreen_maintenance_page: there is no file {local_path(page)} on this machine")
    for name, files in (attempt(_variables.check_hooks, settings["hooks"]) or {}).items():
        for path in files:
            if not os.path.isfile(local_path(path)):
                wrong.append(f"bluegreen_hooks.{name}: there is no file {local_path(path)} on this machine")
    for name in ("env", "env_blue", "env_green"):
        attempt(_envfile.from_mapping, settings[name], f"bluegreen_{name}")
    if settings.get("env_file"):
        attempt(_envfile.read_dotenv, settings["env_file"])
    return wrong


def check_options(args: Mapping[str, Any]) -> list[str]:
    """All that is wrong with the options of the playbook itself, which have no prefix."""
    wrong: list[str] = []
    operation, given = (
        args.get("operation") or "",
        {
            name: "" if args.get(name) is None else str(args[name])
            for name in (*_NEEDED.values(), "since", "watch", "steps")
        },
    )
    needed = _NEEDED.get(operation)
    if needed and not given[needed]:
        wrong.append(_MISSING[operation])
    checks: dict[str, Callable[[Any], Any]] = {"percent": _validate.check_percent, "since": _validate.check_since}
    if operation == "canary":
        checks["watch"] = lambda value: _validate.check_whole(value, "watch", 1, 3600)
    if operation == "promote":
        checks["steps"] = _variables.check_steps
    if operation in ("deploy", "rollback", "canary") and given["steps"]:
        wrong.append("steps is for promote.yml. Deploy without bluegreen_promote, then promote by steps")
    if operation in ("promote", "deploy", "rollback") and given["watch"]:
        wrong.append(
            "watch is for canary.yml. What goes live is watched as bluegreen_watch says, such as {seconds: 60}"
        )
    if given["color"] not in _COLOR_WORDS.get(operation, ()):
        checks["color"] = _validate.check_color
    for name, function in checks.items():
        try:
            if given[name]:
                function(args[name])
        except Refused as error:
            wrong.append(str(error))
    if operation == "maintenance" and given["state"] and given["state"].lower() not in ("on", "off", "true", "false"):
        wrong.append(f"state must be on or off (got {given['state']!r})")
    return wrong


# RFC 5737: what examples have, and no server does.
_DOCUMENTATION = tuple(ipaddress.ip_network(one) for one in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"))


def placeholders(host: str, address: Any, settings: Mapping[str, Any]) -> list[str]:
    """Sentences for what nobody has replaced in the files that init.yml wrote: it would cost a time-out, or an error of the app."""
    wrong = []
    with contextlib.suppress(ValueError):
        if any(ipaddress.ip_address(str(address)) in network for network in _DOCUMENTATION):
            wrong.append(
                f"{host} still has the address of the example, {address}. Put the address of your server into the inventory."
            )
    names = [name for name, value in settings["env"].items() if "USER:PASS@HOST" in str(value)]
    if names:
        wrong.append(
            f"{' and '.join(names)} of bluegreen_env still has the value of the example. Put yours into group_vars/bluegreen/vault.yml."
        )
    return wrong


def too_old(version: str) -> bool:
    """Whether this collection has never run with an ansible-core."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2]) < _OLDEST


def local_path(path: str) -> str:
    """A file on the controller, relative to the working directory and not to a playbook that may be installed anywhere."""
    return os.path.abspath(os.path.expanduser(path))


def peer_address(host: str, variables: Mapping[str, Any]) -> str:
    """Where a host answers the others of its group over http: address:port. Raises: AnsibleActionFail.

    nginx would not start without an answer of the DNS, so a name becomes an address here.
    """
    cluster, tls = variables.get("bluegreen_cluster") or {}, variables.get("bluegreen_tls") or {}
    quorum = variables.get("bluegreen_quorum") or {}
    name = str(
        quorum.get("address") or tls.get("address") or cluster.get("address") or variables.get("ansible_host") or host
    )
    try:
        found = {family: place[0] for family, _type, _proto, _name, place in socket.getaddrinfo(name, None)}
    except OSError:
        raise AnsibleActionFail(
            f"{host} has no address that the other hosts of its group could ask: {name} cannot be resolved. "
            "Name it: bluegreen_tls.address, or bluegreen_quorum.address"
        ) from None
    address = found.get(socket.AF_INET) or f"[{found[socket.AF_INET6]}]"
    return f"{address}:{str(variables.get('bluegreen_listen', '80')).rpartition(':')[2]}"


def built_from(artifact: str, sha256: str) -> str:
    """The commit that build.yml wrote down beside an artifact; empty if the artifact is another one by now."""
    try:
        with open(f"{artifact}.commit", encoding="utf-8") as stream:
            of, commit = stream.read().split()
        return _validate.check_commit(commit) if of == sha256 else ""
    except (OSError, ValueError, Refused):
        return ""


def task_keywords(tasks: object) -> set[str]:
    """All keywords in a list of tasks, blocks included."""
    found = set()
    for task in tasks if isinstance(tasks, list) else []:
        if isinstance(task, dict):
            found |= set(task)
            for part in ("block", "rescue", "always"):
                found |= task_keywords(task.get(part))
    return found


def unknown_variables(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Sentences for variables that look like ours and are not."""
    wrong = []
    for name in sorted(names):
        if not name.startswith("bluegreen_") or name in set(known):
            continue
        near = difflib.get_close_matches(name, sorted(known), 1)
        wrong.append(f"Unknown variable {name}." + (f" Did you mean {near[0]}?" if near else ""))
    return wrong


def unknown_extra_vars(extra: Iterable[str]) -> list[str]:
    """Sentences for options on the command line that are nearly those of a playbook: Ansible would ignore -e colour=…"""
    wrong = []
    for name in sorted(extra):
        near = difflib.get_close_matches(name, _PLAYBOOK_VARS, 1, 0.75)
        if name not in _PLAYBOOK_VARS and near:
            wrong.append(f"Unknown option {name}. Did you mean {near[0]}?")
        elif f"bluegreen_{name}" in _PREFIXED:
            wrong.append(f"Unknown option {name}. Did you mean bluegreen_{name}?")
    return wrong


def variables() -> dict[str, dict]:
    """Name to specification of all variables, as they are documented."""
    with open(_SPECIFICATION, encoding="utf-8") as stream:
        # An order of magnitude quicker than in Python, and every host pays for it.
        found = yaml.load(stream, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return found["argument_specs"]["variables"]["options"]


def check_types(given: Mapping[str, Any], specification: Mapping[str, dict]) -> tuple[list[str], dict]:
    """Sentences for values that are missing or of another type, and the values as what they should be."""
    # A default may be a template, and the role has them all.
    plain = {name: {**option, "default": None} for name, option in specification.items()}
    judged = ArgumentSpecValidator(plain).validate(given)
    values = {name: value for name, value in judged.validated_parameters.items() if name in given}
    return [_shorten(text) for text in judged.error_messages], values


def _shorten(text: str) -> str:
    """Ansible's words on a wrong type, without what only its authors understand."""
    found = re.match(r"argument '(\w+)' is of type .* and we were unable to convert to (\w+): (.*)", text, re.DOTALL)
    if not found:
        return text
    name, kind, why = found.groups()
    return f"{name} must be of type {kind}" + ("" if "<class" in why else f" ({why})")


def _modules(operation: str, promote: bool) -> list[str]:
    """Names of the modules that this run is about to need."""
    switches = operation in ("promote", "rollback") or operation == "deploy" and promote
    # What needs no lock reads the slots first.
    names = ["slot_info"] if operation in ("", *_QUERIES) else ["deploy_lock"]
    names += ["slot_setup", "nginx_site"] * (operation == "setup")
    return names + ["release_install", "slot_service"] * (operation == "deploy") + ["slot_switch"] * switches


class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        args = dict(self._task.args)
        first = task_vars["inventory_hostname"] == task_vars["ansible_play_hosts_all"][0]
        names = _modules(args.get("operation") or "", self._is(task_vars, "bluegreen_promote", False))
        with _prebuild.prebuild_modules(self, names, task_vars) if first else contextlib.nullcontext():
            return self._preflight(args, result, task_vars)

    def _preflight(self, args, result, task_vars):
        if too_old(ansible_core):
            oldest = ".".join(map(str, _OLDEST))
            raise AnsibleActionFail(
                f"ansible-core must be {oldest} or newer (got {ansible_core}): pip install --upgrade ansible-core"
            )
        # A role that somebody applies by itself may be on hosts of any group.
        if args.get("operation") and not task_vars["groups"].get(args.get("group")):
            raise AnsibleActionFail(
                f"The inventory has no hosts in the group {args.get('group')}. Add some, or name another group: "
                f"-e bluegreen_hosts=GROUP. Groups in this inventory: {_others(task_vars['groups'])}"
            )
        if args.get("left_out"):
            raise AnsibleActionFail(
                f"--limit leaves out {', '.join(args['left_out'])} of the group {args.get('group')}, and a group that is only "
                "partly switched serves two versions. To do it anyway: -e bluegreen_partial=true"
            )
        specification = variables()
        wrong = unknown_variables(task_vars, set(specification)) + unknown_extra_vars(load_extra_vars(self._loader))
        # A worker needs no domain.
        if not self._is(task_vars, "bluegreen_web", True):
            task_vars = {"bluegreen_domain": "", **task_vars}
        missing = [name for name, option in specification.items() if option.get("required") and name not in task_vars]
        # Others are made of these.
        wrong += [f"{name} is required" for name in missing]
        settings = self._settings(task_vars, specification, wrong) if not missing else {}
        if missing or len(settings) < len(specification):
            self._refuse(wrong)
        name = task_vars["inventory_hostname"]
        if settings["cluster"]:
            wrong += self._check_clusters(task_vars)
        self._check(settings, args, wrong, result, (name, task_vars.get("ansible_host", name)))
        asks_others = settings["tls"].get("acme_email") or settings["quorum"] or not settings["web"]
        result["peers"] = self._peers(task_vars) if asks_others else {}
        hooks, page = settings["hooks"], settings.get("maintenance_page")
        result["hooks"] = {name: [local_path(path) for path in files] for name, files in hooks.items()}
        result["maintenance_page"] = local_path(page) if page else ""
        result["run"] = {
            "id": f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{uuid.uuid4().hex[:8]}",
            "holder": f"{_user()}@{socket.gethostname()}",
            "controller": _controller.this_run(),
        }
        return result

    def _is(self, task_vars, name, default):
        """What a variable says that is true or false, before all of them are looked at, where what is wrong with it is said."""
        try:
            return boolean(self._templar.template(task_vars.get(name, default)))
        except (AnsibleError, TypeError):
            return default

    def _check(self, settings, args, wrong, result, host):
        wrong += check(settings)
        wrong += check_options(args)
        # In an inventory it stands for all playbooks.
        if args.get("operation") == "deploy" and settings["rehearse"] and not settings["migrate"]:
            wrong.append("bluegreen_rehearse needs bluegreen_migrate, because it rehearses the migration of a deploy")
        wrong += self._check_watch(settings, args, result)
        wrong += self._read_snippets(settings, result)
        wrong += placeholders(*host, settings)
        if args.get("artifact_needed"):
            wrong += self._check_artifact(settings, result)
        self._refuse(wrong)
        # Ansible would let the other hosts fall out of the step that such a task fails in, with the slot taken.
        for path in [local_path(path) for files in settings["hooks"].values() for path in files]:
            for word in task_keywords(self._loader.load_from_file(path)) & {"run_once", "any_errors_fatal"}:
                raise AnsibleActionFail(
                    f"{path}: {word} is not supported in hooks because it drops the other hosts. To run on one host use: "
                    "when: inventory_hostname == ansible_play_hosts_all[0]"
                )

    def _check_watch(self, settings, args, result):
        """What is watched, and when: of what goes live C(watch), of a canary C(looks), of a promote by steps both."""
        operation, steps, seconds = args.get("operation"), args.get("steps"), args.get("watch")
        asked = "steps" if operation == "promote" and steps else "watch" if operation == "canary" and seconds else ""
        if asked and not settings["watch"]:
            return [
                f"{asked} needs bluegreen_watch, such as {{seconds: 60}}, with which the site writes down how it answers. Set it and run setup.yml."
            ]
        # What is wrong with them is said already.
        with contextlib.suppress(Refused):
            result["watch"] = _variables.check_watch(settings["watch"])
            result["steps"] = _variables.check_steps(steps) if asked == "steps" else []
            each = result["watch"]["seconds"] or 60
            if asked == "watch":
                each = _validate.check_whole(seconds, "watch", 1, 3600)
            result["looks"] = _variables.looks(each) if asked else []
        return []

    def _read_snippets(self, settings, result):
        """What the site has to know of the snippets of the user."""
        result["own_logs"], result["rewrites"] = [], _variables.rewrites(settings["nginx_server"])
        for name in ("nginx_server", "nginx_location"):
            log = _variables.access_log(settings[name]) if settings["watch"] else ""
            if log == "off":
                return [
                    f"bluegreen_{name} turns the access log off, so bluegreen_watch would see nothing. Take out access_log off, or bluegreen_watch"
                ]
            if log:
                result["own_logs"].append(name)
        return []

    def _refuse(self, wrong):
        if wrong:
            raise AnsibleActionFail(
                "\n".join(wrong) if len(wrong) == 1 else "\n- ".join(["Invalid configuration:", *wrong])
            )

    def _settings(self, task_vars, specification, wrong):
        """The variables of this host, without their prefix; those that cannot be had are among what is wrong."""
        given = {}
        for name in specification:
            try:
                given[name] = self._templar.template(task_vars[name])
            except (AnsibleError, KeyError) as error:
                wrong.append(f"{name}: {error}")
        words, values = check_types(given, specification)
        wrong += words
        return {} if words else {name[len("bluegreen_") :]: value for name, value in values.items()}

    def _check_clusters(self, task_vars):
        """What does not go together in the clusters of the hosts of this run. Each host checks its own.

        Once for the group, because the variables of another host are slow to get: on the first host, or where that has no cluster.
        """
        hosts, hostvars = task_vars["ansible_play_hosts_all"], task_vars["hostvars"]
        try:
            if task_vars["inventory_hostname"] != hosts[0] and hostvars[hosts[0]].get("bluegreen_cluster"):
                return []
            return _variables.check_group_of_clusters({host: hostvars[host].get("bluegreen_cluster") for host in hosts})
        except AnsibleError as error:
            return [f"bluegreen_cluster of another host: {error}"]

    def _peers(self, task_vars):
        """Web host of the group to the address:port where it answers the others, in the order of the inventory; once for the group."""
        hosts, hostvars = task_vars["ansible_play_hosts_all"], task_vars["hostvars"]
        if task_vars["inventory_hostname"] != hosts[0]:
            return {}
        group = task_vars["groups"].get(self._templar.template(task_vars["bluegreen_hosts"])) or hosts
        web = [
            host
            for host in group
            if boolean(hostvars[host].get("bluegreen_web", True))
            and ("acme_email" in (hostvars[host].get("bluegreen_tls") or {}) or hostvars[host].get("bluegreen_quorum"))
        ]
        # A host by itself asks nobody, and its address may be a name that only ssh knows.
        return {host: peer_address(host, hostvars[host]) for host in web} if len(web) > 1 else {}

    def _check_artifact(self, settings, result):
        artifact, checksum = settings.get("artifact"), settings.get("artifact_checksum")
        try:
            _validate.check_artifact(artifact, checksum)
            if _validate.is_url(artifact):
                return []
            path = local_path(artifact)
            if not os.path.isfile(path):
                raise Refused(f"bluegreen_artifact: there is no file {path} on this machine. build.yml makes one.")
            found = _transfer.inspect(path, settings["app"], C.DEFAULT_LOCAL_TMP)
            if checksum and _validate.check_checksum(checksum) != found["sha256"]:
                raise Refused(
                    f"bluegreen_artifact must match bluegreen_artifact_checksum (got SHA-256 {found['sha256']})"
                )
            if settings.get("version") and settings["version"] != found["version"]:
                raise Refused(
                    f"bluegreen_version must be the version of the artifact, {found['version']} (got {settings['version']})"
                )
            result["artifact_info"] = found
            result["commit"] = settings["commit"] or built_from(path, found["sha256"])
            return []
        except Refused as error:
            return [str(error)]


def _others(groups):
    return ", ".join(name for name in groups if name not in ("all", "ungrouped")) or "none"


def _user():
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
