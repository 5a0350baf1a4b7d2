# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the playbooks; each is documented in a file of its own name beside this one."""

from __future__ import annotations

import time

from ansible.errors import AnsibleFilterError
from ansible_collections.beamops.bluegreen.plugins.module_utils import _envfile
from ansible_collections.beamops.bluegreen.plugins.module_utils._rules import Refused, module_name
from ansible_collections.beamops.bluegreen.plugins.plugin_utils import _clock, _controller, _group, _report


def _registered(hostvars, hosts, name):
    """host to what it registered under a name; only for hosts that did."""
    found = {}
    for host in hosts:
        result = hostvars[host].get(name) if host in hostvars else None
        if result:
            found[host] = result
    return found


def _infos(hostvars, hosts):
    """host to what it told when it was locked, or when it was only looked at; only for hosts that did."""
    found = _registered(hostvars, hosts, "__bluegreen_info")
    locked = _registered(hostvars, hosts, "__bluegreen_lock")
    found.update({host: result["info"] for host, result in locked.items() if result.get("info")})
    # Where something was set up since.
    later = _registered(hostvars, hosts, "__bluegreen_setup")
    found.update({host: result for host, result in later.items() if result.get("ok")})
    return found


def slot_env(env, env_file=None):
    try:
        user = _envfile.read_dotenv(env_file) if env_file else {}
        user.update(_envfile.from_mapping(env or {}))
        return _envfile.pack(user)
    except Refused as error:
        raise AnsibleFilterError(str(error)) from None


def outlive_reader(hosts):
    _controller.outlive_reader()
    return hosts


def verdict(hostvars, hosts, steps, without_lost=False):
    names = [step.rstrip("?") for step in steps]
    results = {
        host: {name: (hostvars[host] if host in hostvars else {}).get(f"__bluegreen_{name}") for name in names}
        for host in hosts
    }
    return _group.verdict(results, hosts, steps, without_lost)


def deploy_plan(hostvars, hosts, force=False):
    infos = _infos(hostvars, hosts)
    installed = _registered(hostvars, hosts, "__bluegreen_release")
    return _group.deploy_plan(infos, {host: result.get("release") for host, result in installed.items()}, force)


def switch_plan(hostvars, hosts, color=None, deployed=False):
    results = _registered(hostvars, hosts, "__bluegreen_deployed") if deployed else None
    return _group.switch_plan(_infos(hostvars, hosts), color or None, results)


def canary_plan(hostvars, hosts, percent):
    return _group.canary_plan(_infos(hostvars, hosts), percent)


def rollback_plan(hostvars, hosts, force=False):
    return _group.rollback_plan(_infos(hostvars, hosts), force)


def history_lines(hostvars, hosts):
    return _group.history_lines(_infos(hostvars, hosts))


def failure_lines(judged, operation, after=""):
    return _group.failure_lines(operation, judged["failed"], after)


def deploy_lines(hostvars, hosts):
    installed = _registered(hostvars, hosts, "__bluegreen_release")
    releases = {host: result.get("release") for host, result in installed.items()}
    return _group.deploy_lines(_infos(hostvars, hosts), releases)


def migrate_lines(hostvars, hosts, command):
    found = _registered(hostvars, hosts, "__bluegreen_migrated")
    return _group.migrate_lines({host: result for host, result in found.items() if result.get("ok")}, command)


def switch_lines(hostvars, hosts, plan):
    return _group.switch_lines(_infos(hostvars, hosts), plan)


def instant(hostvars, hosts):
    return _clock.instant(_registered(hostvars, hosts, "__bluegreen_lock"), time.monotonic())


def ending(hostvars, hosts, story):
    results = {host: {"ended": (hostvars[host] if host in hostvars else {}).get("__bluegreen_ended")} for host in hosts}
    end = _group.verdict(results, hosts, ["ended?"])
    switched = _registered(hostvars, hosts, "__bluegreen_switched")
    moments = {host: result["moment"] for host, result in switched.items() if result.get("moment")}
    apart = _clock.skew(moments, _registered(hostvars, hosts, "__bluegreen_lock"))
    migrated = _registered(hostvars, hosts, "__bluegreen_migrated").values()
    versions = next((result["migrated"] for result in migrated if result.get("migrated")), [])
    return _group.ending(story, end, status_lines(hostvars, hosts), apart, versions)


def status_lines(hostvars, hosts):
    infos = _last(hostvars, hosts)
    return _group.status_lines(infos) + _group.next_lines(infos)


def status_report(hostvars, hosts, app, kind):
    writers = {"json": _report.as_json, "html": _report.as_html}
    if kind not in writers:
        raise AnsibleFilterError(f"format={kind}: has to be one of {', '.join(writers)}")
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return writers[kind](_report.report(_last(hostvars, hosts), app, at))


def in_doubt(hostvars, hosts):
    return _group.in_doubt(_last(hostvars, hosts))


def _last(hostvars, hosts):
    """host to what it told in the end, or to the result that says why it did not."""
    found = {}
    for host in hosts:
        known = hostvars[host] if host in hostvars else {}
        result = known.get("__bluegreen_ended") or known.get("__bluegreen_info") or {}
        found[host] = {"ok": True, **result["info"]} if result.get("info") else result
    return found


class FilterModule:
    def filters(self):
        return {
            "slot_env": slot_env,
            "module_name": module_name,
            "outlive_reader": outlive_reader,
            "verdict": verdict,
            "deploy_plan": deploy_plan,
            "switch_plan": switch_plan,
            "canary_plan": canary_plan,
            "rollback_plan": rollback_plan,
            "failure_lines": failure_lines,
            "deploy_lines": deploy_lines,
            "migrate_lines": migrate_lines,
            "switch_lines": switch_lines,
            "instant": instant,
            "ending": ending,
            "status_lines": status_lines,
            "status_report": status_report,
            "history_lines": history_lines,
            "in_doubt": in_doubt,
        }
