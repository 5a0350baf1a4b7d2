# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the collection agree with each other, and the site is what it should be."""

from __future__ import annotations

import pathlib
import re

import crossplane
import jinja2
import pytest
import yaml

TOP = pathlib.Path(__file__).parents[2]


def load(path):
    return yaml.safe_load((TOP / path).read_text())


def test_every_variable_has_a_default_a_specification_and_a_check():
    defaults = load("roles/preflight/defaults/main.yml")
    spec = load("roles/preflight/meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    required = {name for name, option in spec.items() if option.get("required")}
    assert set(spec) - required == set(defaults)
    assert {name: option["default"] for name, option in spec.items() if name not in required} == defaults
    settings = load("roles/preflight/tasks/main.yml")[1]["beamops.bluegreen.preflight"]["settings"]
    assert {f"bluegreen_{name}" for name in settings} == set(spec)


def test_every_variable_is_in_the_readme():
    text = (TOP / "README.md").read_text()
    spec = load("roles/preflight/meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert [name for name in spec if f"`{name}`" not in text] == []


def test_every_module_that_takes_the_options_of_an_app_is_in_the_action_group():
    group = set(load("meta/runtime.yml")["action_groups"]["app"])
    takes = {
        path.stem for path in (TOP / "plugins/modules").glob("*.py") if "- beamops.bluegreen.app" in path.read_text()
    }
    assert group == takes


def test_every_filter_is_documented():
    listed = set(
        re.findall(r'^            "(\w+)": \w+,$', (TOP / "plugins/filter/bluegreen.py").read_text(), re.MULTILINE)
    )
    assert listed == {path.stem for path in (TOP / "plugins/filter").glob("*.yml")}


def test_every_playbook_is_in_the_readme():
    text = (TOP / "README.md").read_text()
    names = [path.name for path in (TOP / "playbooks").glob("*.yml") if not path.name.startswith("_")]
    assert [name for name in names if f"`{name}" not in text] == []


def site(listen, tmp_path):
    env = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    env.filters["comment"] = lambda text: f"# {text}"
    text = env.from_string((TOP / "roles/nginx/templates/site.conf.j2").read_text()).render(
        ansible_managed="Ansible managed",
        bluegreen_app="my_app",
        bluegreen_root="/opt/my_app",
        bluegreen_listen=listen,
        bluegreen_ports={"blue": 4000, "green": 5000},
        bluegreen_domain="example.com",
    )
    path = tmp_path / "site.conf"
    path.write_text(text)
    parsed = crossplane.parse(str(path), check_ctx=False)
    assert parsed["status"] == "ok", parsed["errors"]
    return parsed["config"][0]["parsed"]


def find(block, name):
    return [one for one in block if one["directive"] == name]


@pytest.mark.parametrize(
    ("listen", "expected"), [("80", [["80"], ["[::]:80"]]), ("127.0.0.1:8080", [["127.0.0.1:8080"]])]
)
def test_the_site(tmp_path, listen, expected):
    parsed = site(listen, tmp_path)
    upstreams = {one["args"][0]: one["block"] for one in find(parsed, "upstream")}
    assert find(upstreams["my_app-blue"], "server")[0]["args"] == ["127.0.0.1:4000"]
    assert find(upstreams["my_app-green"], "server")[0]["args"] == ["127.0.0.1:5000"]
    assert all(find(block, "keepalive") for block in upstreams.values())
    (server,) = find(parsed, "server")
    assert [one["args"] for one in find(server["block"], "listen")] == expected
    assert find(server["block"], "server_name")[0]["args"] == ["example.com"]
    assert find(server["block"], "open_file_cache")[0]["args"] == ["off"]
    # Traffic and /deployment_id read the same variable, so they cannot disagree.
    assert find(server["block"], "set")[0]["args"] == ["$my_app_slot", "blue"]
    (test,) = find(server["block"], "if")
    assert test["args"] == ["-f", "/opt/my_app/live/is-green"]
    assert test["block"][0]["args"] == ["$my_app_slot", "green"]
    places = {tuple(one["args"]): one["block"] for one in find(server["block"], "location")}
    assert find(places[("=", "/deployment_id")], "return")[0]["args"] == ["200", "$my_app_slot"]
    assert find(places[("/",)], "proxy_pass")[0]["args"] == ["http://my_app-$my_app_slot"]
    headers = {one["args"][0]: one["args"][1] for one in find(places[("/",)], "proxy_set_header")}
    assert headers["Upgrade"] == "$http_upgrade" and headers["Connection"] == "$my_app_connection"
    assert headers["X-Forwarded-Proto"] == "$scheme" and headers["Host"] == "$http_host"
