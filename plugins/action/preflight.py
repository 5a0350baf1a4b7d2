# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check all input of a run on the controller, before a host is touched. Documented with the module of the same name."""

from __future__ import annotations

import contextlib
import difflib
import getpass
import os
import re
import socket
import time
import uuid

import yaml
from ansible import constants as C
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible.release import __version__ as ansible_core
from ansible.utils.vars import load_extra_vars
from ansible_collections.beamops.bluegreen.plugins.module_utils import _envfile, _rules
from ansible_collections.beamops.bluegreen.plugins.plugin_utils import _ahead, _controller, _transfer

_SPECIFICATION = os.path.join(os.path.dirname(__file__), "..", "..", "roles", "preflight", "meta", "argument_specs.yml")
# As in meta/runtime.yml, which is only a warning.
_OLDEST = (2, 17)
# What playbooks take with -e beside the variables, and variables that are easily typed without their prefix.
_WORDS = ("color", "expr", "format", "history", "out", "strict")
_SHORT = ("bluegreen_artifact", "bluegreen_promote", "bluegreen_force", "bluegreen_partial")


def check(settings):
    """All that is wrong with the settings of one host, as sentences."""
    wrong = []

    def attempt(function, *args):
        try:
            return function(*args)
        except _rules.Refused as error:
            wrong.append(str(error))
            return None

    attempt(_rules.check_app, settings["app"])
    attempt(_rules.check_domain, settings["domain"])
    attempt(_rules.check_ports, settings["ports"])
    attempt(_rules.check_listen, settings["listen"])
    attempt(_rules.check_choice, settings["service_manager"], "bluegreen_service_manager", ("systemd", "daemon"))
    for name in ("root", "nginx_conf_dir", "facts_dir"):
        attempt(_rules.check_path, settings[name], f"bluegreen_{name}")
    attempt(_rules.check_url_path, settings["health_path"])
    attempt(_rules.check_whole, settings["health_status"], "bluegreen_health_status", 100, 599)
    attempt(_rules.check_whole, settings["health_timeout"], "bluegreen_health_timeout", 1, 3600)
    attempt(_rules.check_whole, settings["stop_timeout"], "bluegreen_stop_timeout", 1, 3600)
    attempt(_rules.check_whole, settings["migrate_timeout"], "bluegreen_migrate_timeout", 1, 86400)
    attempt(_rules.check_whole, settings["lock_wait"], "bluegreen_lock_wait", 0, 86400)
    attempt(_rules.check_choice, settings["lost_hosts"], "bluegreen_lost_hosts", ("fail", "proceed"))
    attempt(_rules.check_whole, settings["keep_releases"], "bluegreen_keep_releases", 0, 1000)
    if settings.get("version"):
        attempt(_rules.check_version, settings["version"])
    attempt(_rules.check_aliases, settings["aliases"], settings["domain"])
    attempt(_rules.check_trusted_proxies, settings["trusted_proxies"])
    attempt(_rules.check_tls, settings["tls"], settings["listen"])
    if settings.get("acme_webroot"):
        attempt(_rules.check_path, settings["acme_webroot"], "bluegreen_acme_webroot")
    attempt(_rules.check_body_size, settings["body_size"])
    attempt(_rules.check_assets, settings["assets"])
    for name in ("nginx_server", "nginx_location"):
        attempt(_rules.check_snippet, settings[name], f"bluegreen_{name}")
    if settings.get("preview_token"):
        attempt(_rules.check_token, settings["preview_token"])
    attempt(_rules.check_smoke, settings["smoke"])
    attempt(_rules.check_whole, settings["drain_timeout"], "bluegreen_drain_timeout", 0, 86400)
    page = settings.get("maintenance_page")
    if page and not os.path.isfile(local_path(page)):
        wrong.append(f"bluegreen_maintenance_page: there is no file {local_path(page)} on this machine")
    for name, files in (attempt(_rules.check_hooks, settings["hooks"]) or {}).items():
        for path in files:
            if not os.path.isfile(local_path(path)):
                wrong.append(f"bluegreen_hooks.{name}: there is no file {local_path(path)} on this machine")
    attempt(_envfile.from_mapping, settings["env"])
    if settings.get("env_file"):
        attempt(_envfile.read_dotenv, settings["env_file"])
    return wrong


def too_old(version):
    """Whether this collection has never run with an ansible-core."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2]) < _OLDEST


def local_path(path):
    """A file on the controller: beside the person who typed it, not beside a playbook that may be installed anywhere."""
    return os.path.abspath(os.path.expanduser(path))


def words_of(tasks):
    """All keywords in a list of tasks, blocks included."""
    found = set()
    for task in tasks if isinstance(tasks, list) else []:
        if isinstance(task, dict):
            found |= set(task)
            for part in ("block", "rescue", "always"):
                found |= words_of(task.get(part))
    return found


def misspelt(names, known):
    """Sentences for variables that look like ours and are not."""
    wrong = []
    for name in sorted(names):
        if not name.startswith("bluegreen_") or name in known:
            continue
        near = difflib.get_close_matches(name, sorted(known), 1)
        wrong.append(f"{name} is not a variable of this collection" + (f"; is {near[0]} meant?" if near else ""))
    return wrong


def near_misses(extra):
    """Sentences for words on the command line that are nearly those of a playbook: -e colour=… would be ignored."""
    wrong = []
    for name in sorted(extra):
        near = difflib.get_close_matches(name, _WORDS, 1, 0.75)
        if name not in _WORDS and near:
            wrong.append(f"{name} means nothing here; is {near[0]} meant?")
        elif f"bluegreen_{name}" in _SHORT:
            wrong.append(f"{name} means nothing here; is bluegreen_{name} meant?")
    return wrong


def variables():
    """Name to specification of all variables, as they are documented."""
    with open(_SPECIFICATION, encoding="utf-8") as stream:
        # An order of magnitude quicker than in Python, and every host pays for it.
        found = yaml.load(stream, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return found["argument_specs"]["variables"]["options"]


def check_types(given, specification):
    """Sentences for values that are missing or of another type, and the values as what they should be."""
    # A default may be a template, and the role has them all.
    plain = {name: {**option, "default": None} for name, option in specification.items()}
    judged = ArgumentSpecValidator(plain).validate(given)
    values = {name: value for name, value in judged.validated_parameters.items() if name in given}
    return [_in_short(text) for text in judged.error_messages], values


def _in_short(text):
    """Ansible's words on a wrong type, without what only its authors understand."""
    found = re.match(r"argument '(\w+)' is of type .* and we were unable to convert to (\w+): (.*)", text, re.DOTALL)
    if not found:
        return text
    name, kind, why = found.groups()
    return f"{name} has to be of type {kind}" + ("" if "<class" in why else f": {why}")


def _modules(task_vars, settings):
    """Names of the modules that this run is about to need."""
    operation = task_vars.get("__bluegreen_operation")
    switches = operation in ("promote", "rollback") or operation == "deploy" and settings["promote"]
    # Whatever takes no lock begins with a look.
    names = ["deploy_lock"] if operation else ["slot_info"]
    return names + ["release_install", "slot_service"] * (operation == "deploy") + ["slot_switch"] * switches


class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        args = dict(self._task.args)
        if too_old(ansible_core):
            oldest = ".".join(map(str, _OLDEST))
            raise AnsibleActionFail(
                f"this is ansible-core {ansible_core}, and {oldest} or newer is needed: pip install --upgrade ansible-core"
            )
        if args.get("left_out"):
            raise AnsibleActionFail(
                f"--limit leaves out {', '.join(args['left_out'])} of the group {args.get('group')}, and a group that is "
                "only partly switched serves two versions. To do it all the same: -e bluegreen_partial=true"
            )
        specification = variables()
        wrong = misspelt(task_vars, set(specification)) + near_misses(load_extra_vars(self._loader))
        missing = [name for name, option in specification.items() if option.get("required") and name not in task_vars]
        # Others are made of these.
        wrong += [f"{name} is not set; it has to be" for name in missing]
        settings = self._settings(task_vars, specification, wrong) if not missing else {}
        if missing or len(settings) < len(specification):
            self._refuse(wrong)
        first = task_vars["inventory_hostname"] == task_vars["ansible_play_hosts_all"][0]
        with _ahead.put_together(self, _modules(task_vars, settings), task_vars) if first else contextlib.nullcontext():
            self._check(settings, args, wrong, result)
        hooks, page = settings["hooks"], settings.get("maintenance_page")
        result["hooks"] = {name: [local_path(path) for path in files] for name, files in hooks.items()}
        result["maintenance_page"] = local_path(page) if page else ""
        result["run"] = {
            "id": f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{uuid.uuid4().hex[:8]}",
            "holder": f"{_user()}@{socket.gethostname()}",
            "controller": _controller.this_run(),
        }
        return result

    def _check(self, settings, args, wrong, result):
        wrong += check(settings)
        if args.get("color"):
            try:
                _rules.check_color(args["color"])
            except _rules.Refused as error:
                wrong.append(str(error))
        try:
            _rules.check_percent(args.get("percent") or 0)
        except _rules.Refused as error:
            wrong.append(str(error))
        if args.get("artifact_needed"):
            wrong += self._check_artifact(settings, result)
        self._refuse(wrong)
        # Ansible would let the other hosts fall out of the step that such a task fails in, with the slot taken.
        for path in [local_path(path) for files in settings["hooks"].values() for path in files]:
            for word in words_of(self._loader.load_from_file(path)) & {"run_once", "any_errors_fatal"}:
                raise AnsibleActionFail(
                    f"{path}: {word} has no place in a hook, for it ends the other hosts; for one host alone: "
                    "when: inventory_hostname == ansible_play_hosts_all[0]"
                )

    def _refuse(self, wrong):
        if wrong:
            raise AnsibleActionFail("\n".join(wrong) if len(wrong) == 1 else "\n- ".join(["this is wrong:", *wrong]))

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

    def _check_artifact(self, settings, result):
        artifact, checksum = settings.get("artifact"), settings.get("artifact_checksum")
        try:
            _rules.check_artifact(artifact, checksum)
            if _rules.is_url(artifact):
                return []
            path = local_path(artifact)
            if not os.path.isfile(path):
                raise _rules.Refused(
                    f"bluegreen_artifact: there is no file {path} on this machine; build.yml makes one"
                )
            found = _transfer.inspect(path, settings["app"], C.DEFAULT_LOCAL_TMP)
            if checksum and _rules.check_checksum(checksum) != found["sha256"]:
                raise _rules.Refused(f"bluegreen_artifact has SHA-256 {found['sha256']}, which is not its checksum")
            if settings.get("version") and settings["version"] != found["version"]:
                raise _rules.Refused(
                    f"bluegreen_version is {settings['version']}, but the artifact holds {found['version']}"
                )
            result["inspected"] = found
            return []
        except _rules.Refused as error:
            return [str(error)]


def _user():
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
