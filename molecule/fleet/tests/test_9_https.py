# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""https by itself for a group behind one name: one certificate, whichever host the authority asks, and no controller for the renewal."""

from __future__ import annotations

import os
import sys
import time

import pytest
import yaml

sys.path.insert(0, os.path.join(os.environ["MOLECULE_PROJECT_DIRECTORY"], "tests"))

from support.authority import CA, Authority
from support.bluegreen import artifact
from support.fleet import HOSTS, ROOT, SITES, inside, make_one, one_more, play

NEW = "bluegreen-fleet4"
ADDRESSES = {host: f"172.30.231.1{number}" for number, host in enumerate([*HOSTS, NEW], 1)}
SECOND = HOSTS[1]


@pytest.fixture(scope="module")
def authority():
    """On the first host; the others know where its certificate comes from."""
    make_one()
    authority = Authority(lambda command: inside(HOSTS[0], command), ADDRESSES[HOSTS[0]])
    authority.start(leads_to=ADDRESSES[SECOND])
    yield authority
    authority.stop()
    play("setup")
    for host in HOSTS:
        inside(
            host, f"systemctl disable --now sample_app-certificate.timer sample_app-certificate.path; rm -rf {ROOT}/tls"
        )


@pytest.fixture(scope="module")
def tls(authority):
    trust(*HOSTS)
    return {
        "bluegreen_tls": {
            **{"acme_email": "ops@sample.test", "acme_directory": authority.directory, "acme_ca": CA},
            "address": "{{ " + str(ADDRESSES) + "[inventory_hostname] }}",
        }
    }


def trust(*hosts):
    certificate = inside(HOSTS[0], f"cat {CA}")
    for host in hosts:
        inside(host, f"mkdir -p {os.path.dirname(CA)} && echo '{certificate}' >{CA}")


def served(*hosts):
    """Fingerprints of the certificates that visitors get."""
    ask = "openssl s_client -connect 127.0.0.1:443 -servername sample.test </dev/null 2>/dev/null | openssl x509 -noout -fingerprint"
    return {inside(host, ask, check=False) for host in hosts}


def orders(authority):
    return authority.asked().count("POST /order-plz")


@pytest.mark.parametrize("host", [HOSTS[0], pytest.param(HOSTS[1], marks=pytest.mark.long), HOSTS[2]])
def test_one_certificate_wherever_the_authority_asks(authority, tls, host):
    """The name leads to one of the hosts; the first gets the certificate, and all have it, with one key that is not shown."""
    authority.leads_to(ADDRESSES[host])
    for one in HOSTS:
        inside(one, f"rm -rf {ROOT}/tls")
    before = orders(authority)
    said = play("setup", tls, verbose="-vvv")
    assert orders(authority) == before + 1
    (fingerprint,) = served(*HOSTS)
    assert "Fingerprint" in fingerprint
    (key,) = {inside(one, f"grep -v PRIVATE {ROOT}/tls/key.pem") for one in HOSTS}
    assert key.split()[0] not in said.text
    assert {SITES[one].get("/x").headers["Location"] for one in HOSTS} == {"https://sample.test/x"}
    assert play("setup", tls).changed() == 0


@pytest.mark.long
def test_a_host_that_joins_gets_it(authority, tls, tmp_path):
    with one_more(NEW, ADDRESSES[NEW], 18224, 18234) as variables:
        trust(NEW)
        path = tmp_path / "extended.yml"
        path.write_text(yaml.safe_dump({"bluegreen": {"hosts": {NEW: variables}}}))
        before = orders(authority)
        play("join", tls, "-i", str(path), "-l", NEW)
        assert len(served(*HOSTS, NEW)) == 1 and orders(authority) == before
        assert play("join", tls, "-i", str(path), "-l", NEW).changed() == 0


@pytest.mark.long
def test_the_hosts_renew_it_by_themselves(authority, tls):
    """One of them asks the authority, the others take over what it got; the name leads to yet another one."""
    authority.start(leads_to=ADDRESSES[HOSTS[2]], seconds=40)
    for one in HOSTS:
        inside(one, f"rm -rf {ROOT}/tls")
    play("setup", tls)
    before, at = served(*HOSTS), orders(authority)
    inside(SECOND, "systemctl start sample_app-certificate")
    assert served(SECOND) == before
    # Nobody asks before two thirds are over, and the later hosts wait a little longer than the first.
    time.sleep(36)
    for host in HOSTS:
        inside(host, "systemctl start sample_app-certificate")
    assert len(served(*HOSTS)) == 1 and served(SECOND) != before and orders(authority) == at + 1


@pytest.mark.long
def test_a_host_whose_key_is_another_gets_the_one_of_the_group(authority, tls):
    """Such as one that was deployed to by itself."""
    authority.start(leads_to=ADDRESSES[HOSTS[0]])
    inside(SECOND, f"rm -rf {ROOT}/tls")
    play("setup", tls, "bluegreen_partial=true", "-l", SECOND)
    assert len(served(*HOSTS)) == 2
    play("deploy", tls, {"bluegreen_aliases": ["www.sample.test"], "bluegreen_artifact": artifact("sample_app-0.1.1")})
    assert len(served(*HOSTS)) == 1
