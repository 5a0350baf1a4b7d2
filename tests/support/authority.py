# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An authority that issues certificates: pebble, the test server of Let's Encrypt, with its own DNS, on one of the test hosts."""

from __future__ import annotations

import json

FOLDER = "/opt/pebble"
CA = f"{FOLDER}/ca.pem"
_CERTIFICATES = f"""
mkdir -p {FOLDER} && cd {FOLDER} && [ -e ca.pem ] || {{
  openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=pebble-ca -keyout ca.key -out ca.pem &&
  openssl req -new -newkey rsa:2048 -nodes -subj /CN=pebble -keyout key.pem -out request.pem &&
  printf 'subjectAltName=DNS:localhost,DNS:authority.test,IP:127.0.0.1,IP:%s' "$ADDRESS" >names &&
  openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile names -out cert.pem
}} 2>&1"""

# What certbot --nginx does to the site of other_app, with a certificate for it.
CERTBOT = r"""
set -e
site=/etc/nginx/conf.d/other_app.conf
lines='    listen 443 ssl; # managed by Certbot\n    ssl_certificate /etc/ssl/other.pem; # managed by Certbot\n'
lines="$lines    ssl_certificate_key /etc/ssl/other.key; # managed by Certbot\n"
openssl req -x509 -newkey rsa:2048 -nodes -keyout /etc/ssl/other.key -out /etc/ssl/other.pem -subj /CN=other.test -days 9 \
  -addext subjectAltName=DNS:other.test 2>/dev/null
# As certbot --nginx: https into the server that has the name, its plain port into a server of its own.
sed -i -e "0,\|^  listen 80;|s||$lines|" -e '0,/^  listen \[::\]:80;/s///' $site
printf '%s\n' 'server {' '    if ($host = other.test) { return 301 https://$host$request_uri; } # managed by Certbot' \
  '    listen 80;' '    server_name other.test;' '    return 404; # managed by Certbot' '}' >>$site
nginx -t && nginx -s reload && sleep 1
"""


class Authority:
    """Runs until V(stop); names lead to wherever V(leads_to) said last."""

    def __init__(self, run, address="127.0.0.1"):
        """:param run: runs a shell command as root on the host of the authority, and returns its output.
        :param address: of that host, for the others.
        """
        self._run, self.address = run, address
        self.directory = f"https://{address}:14000/dir"

    def start(self, leads_to="127.0.0.1", seconds=90 * 86400, port=80, **settings):
        """:param seconds: how long a certificate lasts.
        :param port: where it asks for the challenge.
        :param settings: of pebble's environment, such as PEBBLE_WFE_NONCEREJECT.
        """
        self.stop()
        self._run(f"ADDRESS={self.address}; {_CERTIFICATES}")
        config = {
            **{
                "listenAddress": "0.0.0.0:14000",
                "managementListenAddress": "127.0.0.1:15000",
                "httpPort": port,
                "tlsPort": 443,
            },
            **{
                "certificate": f"{FOLDER}/cert.pem",
                "privateKey": f"{FOLDER}/key.pem",
                "certificateValidityPeriod": seconds,
            },
        }
        self._run(f"echo '{json.dumps({'pebble': config})}' >{FOLDER}/config.json")
        self._run(
            "systemd-run --quiet --unit=pebble-dns pebble-challtestsrv -dns01 127.0.0.1:8053 -http01 '' -https01 '' -tlsalpn01 '' "
            f"-management 127.0.0.1:8055 -defaultIPv6 '' -defaultIPv4 {leads_to}"
        )
        settings = {"PEBBLE_VA_NOSLEEP": 1, "PEBBLE_WFE_NONCEREJECT": 0, **settings}
        given = " ".join(f"--setenv={name}={value}" for name, value in settings.items())
        self._run(
            f"systemd-run --quiet --unit=pebble {given} pebble -config {FOLDER}/config.json -dnsserver 127.0.0.1:8053"
        )
        self._run(
            f"for i in $(seq 50); do curl -sf --cacert {CA} https://127.0.0.1:14000/dir >{FOLDER}/dir && exit; sleep 0.2; done; exit 1"
        )

    def stop(self):
        self._run(
            "systemctl stop pebble pebble-dns 2>/dev/null; systemctl reset-failed pebble pebble-dns 2>/dev/null; true"
        )

    def leads_to(self, *addresses):
        """Where every name leads to from now on."""
        self._run(f"curl -sf -d '{json.dumps({'ip': addresses[0]})}' http://127.0.0.1:8055/set-default-ipv4")

    def root(self):
        """The certificate that everything it issues goes back to."""
        return self._run("curl -skf https://127.0.0.1:15000/roots/0")

    def asked(self):
        """What it says of whom it has asked."""
        return self._run("journalctl -u pebble --no-pager -o cat")
