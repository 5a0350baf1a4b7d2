# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pathlib

import pytest
import yaml
from ansible_collections.beamops.bluegreen.plugins.action import preflight


def test_the_words_of_a_hook():
    tasks = [{"name": "x", "block": [{"debug": None, "run_once": True}], "rescue": [{"any_errors_fatal": True}]}]
    assert {"run_once", "any_errors_fatal"} <= preflight.task_keywords(tasks)
    assert preflight.task_keywords(None) == set() and preflight.task_keywords(["x"]) == set()


def test_a_wrong_type_is_said_in_short_and_names_the_variable():
    given = {
        "bluegreen_app": "my_app",
        "bluegreen_domain": "example.com",
        "bluegreen_ports": [1],
        "bluegreen_health_timeout": "soon",
        "bluegreen_service_manager": "runit",
        "bluegreen_promote": "yes",
        "bluegreen_keep_releases": "7",
    }
    wrong, values = preflight.check_types(given, preflight.variables())
    assert sorted(wrong) == [
        "bluegreen_health_timeout must be of type int (\"'soon'\" cannot be converted to an int)",
        "bluegreen_ports must be of type dict",
        "value of bluegreen_service_manager must be one of: systemd, daemon, got: runit",
    ]
    assert values["bluegreen_promote"] is True and values["bluegreen_keep_releases"] == 7
    # What was not given is left to the defaults of the role.
    assert set(values) == set(given)


def test_the_value_of_a_secret_is_not_in_what_is_said_of_its_type():
    given = {"bluegreen_app": "a", "bluegreen_domain": "b.c", "bluegreen_env": "s3cret"}
    wrong, _values = preflight.check_types(given, preflight.variables())
    assert len(wrong) == 1 and "bluegreen_env" in wrong[0] and "s3cret" not in wrong[0]


def test_an_ansible_core_that_is_too_old_is_known_by_its_number():
    assert [preflight.too_old(one) for one in ("2.16.19", "2.17.0rc1", "2.19.14", "3.0.0", "1.9")] == [
        True,
        False,
        False,
        False,
        True,
    ]
    oldest = yaml.safe_load((pathlib.Path(__file__).parents[2] / "meta/runtime.yml").read_text())["requires_ansible"]
    assert oldest == ">=" + ".".join(map(str, preflight._OLDEST)) + ".0"


@pytest.mark.parametrize(
    ("operation", "given", "fine"),
    [
        ("canary", {"percent": 0}, True),
        ("canary", {"percent": "10"}, True),
        ("canary", {"percent": ""}, False),
        ("canary", {}, False),
        ("canary", {"percent": 101}, False),
        ("maintenance", {"state": False}, True),
        ("maintenance", {"state": "on"}, True),
        ("maintenance", {"state": "closed"}, False),
        ("maintenance", {}, False),
        ("stop", {"color": "blue"}, True),
        ("stop", {}, False),
        ("promote", {"color": "purple"}, False),
        ("promote", {}, True),
        ("rpc", {"expr": "1"}, True),
        ("rpc", {}, False),
    ],
)
def test_what_an_operation_cannot_do_without(operation, given, fine):
    """Whatever Ansible makes of it: a number, a boolean or text."""
    assert (preflight.check_options({"operation": operation, **given}) == []) == fine


@pytest.mark.parametrize(
    ("address", "env", "says"),
    [
        ("203.0.113.10", {}, "web1 still has the address of the example, 203.0.113.10"),
        (
            "10.0.0.1",
            {"DATABASE_URL": "ecto://USER:PASS@HOST/DATABASE"},
            "DATABASE_URL of bluegreen_env still has the value",
        ),
        ("10.0.0.1", {"DATABASE_URL": "ecto://me:secret@db/app"}, None),
        ("example.com", {}, None),
        (None, {}, None),
    ],
)
def test_what_nobody_has_replaced_in_the_example(address, env, says):
    found = preflight.placeholders("web1", address, {"env": env})
    assert (found == []) if says is None else (len(found) == 1 and found[0].startswith(says))


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({"ansible_host": "10.0.0.2"}, "10.0.0.2:80"),
        ({"ansible_host": "10.0.0.2", "bluegreen_listen": "10.0.0.3:8080"}, "10.0.0.2:8080"),
        ({"ansible_host": "10.0.0.2", "bluegreen_cluster": {"address": "10.0.0.4"}}, "10.0.0.4:80"),
        ({"bluegreen_cluster": {"address": "10.0.0.4"}, "bluegreen_tls": {"address": "10.0.0.5"}}, "10.0.0.5:80"),
        ({"ansible_host": "::1"}, "[::1]:80"),
        ({"ansible_host": "localhost"}, "127.0.0.1:80"),
    ],
)
def test_where_a_host_answers_the_others_of_its_group(variables, address):
    """As an address: nginx would not start without an answer of the DNS."""
    assert preflight.peer_address("web1", variables) == address


def test_a_host_without_an_address_for_the_others():
    with pytest.raises(preflight.AnsibleActionFail, match="Name it: bluegreen_tls.address"):
        preflight.peer_address("web1", {"ansible_host": "web1.invalid"})
