# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server in the layout of the blog post is taken over, and given back."""

from __future__ import annotations

import os
import subprocess

import pytest
from support.bluegreen import Client, Site, artifact

SITES = "/etc/nginx/sites-enabled"
ADOPT = {
    "bluegreen_app": "other_app",
    "bluegreen_domain": "other.test",
    "bluegreen_artifact": artifact("other_app-0.1.0"),
    "bluegreen_ports": {"blue": 4700, "green": 5700},
    "bluegreen_env": {"SECRET_KEY_BASE": "adopted-secret-key-base"},
}
# What the post has in sites-available for its blue, with another port, as 4000 is taken here.
POST = """upstream phoenix-blue {
  server 127.0.0.1:4600 max_fails=5 fail_timeout=60s;
}
server {
  server_name other.test;
  listen 80;
  location /deployment_id {
    return 200 "blue";
  }
  location / {
    proxy_http_version 1.1;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header Host $http_host;
    proxy_pass http://phoenix-blue;
  }
}
"""


@pytest.fixture(scope="module")
def post(host):
    """The server as the post leaves it: an unpacked release, its daemon, a site and a symlink to it."""
    # What the tests before deployed under that name.
    host.check_output(
        "sudo sh -c 'systemctl disable --now other_app@blue other_app@green; rm -rf /opt/other_app /etc/ansible/facts.d/other_app.fact "
        "/etc/nginx/conf.d/other_app.conf; rm -f /etc/nginx/sites-enabled/default; systemctl reload nginx; true' 2>&1"
    )
    user = ["-P", "18122", "-i", os.environ["BLUEGREEN_TEST_KEY"], "-o", "StrictHostKeyChecking=no"]
    user += ["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    subprocess.run(["scp", *user, artifact("other_app-0.1.0"), "deploy@127.0.0.1:/tmp/post.tar.gz"], check=True)
    host.check_output(
        "mkdir -p ~/other_app/0.1.0 && tar -xzf /tmp/post.tar.gz -C ~/other_app/0.1.0 && rm /tmp/post.tar.gz"
    )
    env = "PORT=4600 PHX_SERVER=true SECRET_KEY_BASE=of-the-post RELEASE_NODE=post_blue"
    host.check_output(f"cd ~/other_app && {env} 0.1.0/bin/other_app daemon")
    host.check_output(f"printf '%s' '{POST}' | sudo tee /etc/nginx/sites-available/blue >/dev/null")
    host.check_output(f"sudo ln -sf /etc/nginx/sites-available/blue {SITES}/other.test && sudo nginx -t 2>&1")
    host.check_output(
        "sudo systemctl reload nginx && until curl -fsS -H 'Host: other.test' localhost/health; do sleep 0.1; done"
    )
    yield Site(18180, "other.test")
    host.check_output(
        f"cd ~/other_app && RELEASE_NODE=post_blue 0.1.0/bin/other_app stop; sudo rm -f {SITES}/other.test"
    )


def test_without_the_site_nothing_is_adopted(play, post):
    said = play("adopt", {**ADOPT, "site": f"{SITES}/none"}, rc=2).text
    assert f"There is no site {SITES}/none to adopt" in " ".join(said.split())


def test_the_ports_of_what_runs_there_are_not_taken(play, post):
    ports = {"blue": 4600, "green": 5700}
    said = play("adopt", {**ADOPT, "bluegreen_ports": ports}, rc=2).text
    assert "port 4600" in said and post.get("/").json()["node"].startswith("post_blue@")


def reloads(host):
    """How often our module had a site to install: whoever else reloads nginx here is a test."""
    count = "sudo journalctl --no-pager -q -o cat -t ansible-beamops.bluegreen.nginx_site | grep -c 'Invoked with app=other_app'"
    return int(host.run(count).stdout or 0)


def test_a_server_of_the_post_is_adopted_in_one_reload(host, play, post):
    before = reloads(host)
    # A kept connection is closed by the reload, and a request that is on it just then is cut: those on new ones are not.
    with Client(post, kept=False) as client, Client(post) as both:
        said = " ".join(play("adopt", ADOPT).text.split())
    assert client.failed == [] and client.asked > 100
    assert len(both.failed) <= 1 and reloads(host) == before + 1
    assert post.color() == "blue" and post.get("/").json()["node"].startswith("other_app_blue@")
    assert f"sudo mv {SITES}/.other.test.before-bluegreen {SITES}/other.test" in said
    # Nothing of the way there is left: it listens where the post's did, and nowhere else.
    assert "8079" not in host.check_output("sudo cat /etc/nginx/conf.d/other_app.conf")
    assert "consistent:" in play("status", {**ADOPT, "strict": True}).text
    # What was adopted is not adopted again, which would take it off the net.
    assert "run deploy.yml" in play("adopt", ADOPT, rc=2).text
    assert post.get("/").json()["node"].startswith("other_app_blue@")
    # From now on as ever.
    play("deploy", {**ADOPT, "bluegreen_env": {"TWO": "2"}})
    with Client(post) as client:
        play("promote", {**ADOPT, "color": "green"})
    assert client.failed == [] and post.color() == "green"


def test_the_way_back_is_what_it_says(host, post):
    host.check_output(f"sudo mv {SITES}/.other.test.before-bluegreen {SITES}/other.test")
    host.check_output("sudo rm /etc/nginx/conf.d/other_app.conf && sudo systemctl reload nginx && sleep 1")
    assert post.get("/").json()["node"].startswith("post_blue@")
