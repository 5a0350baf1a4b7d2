# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controllers as people have them: a Mac, a read-only home, a name with a domain in it, a sudo that asks for a password."""

from __future__ import annotations

import contextlib
import json
import shlex
import socket
import threading

import pytest
from support.bluegreen import artifact, broken, connection, variant
from support.one_host import INVENTORY
from support.webhook import webhook

# Loaded by every Python of the controller, before anything else. A Mac has no /proc; fork is there, and not safe in our hands,
# and a forked process that asks the system for its proxies crashes (https://bugs.python.org/issue30385).
MAC = """
import builtins, os, sys, types

def without_proc(function):
    def refuse(path, *args, **kwargs):
        if isinstance(path, (str, bytes)) and os.fsdecode(path).startswith("/proc"):
            raise FileNotFoundError(2, "No such file or directory", path)
        return function(path, *args, **kwargs)
    return refuse

for place, name in ((builtins, "open"), (os, "open"), (os, "listdir"), (os, "readlink"), (os, "stat"), (os, "lstat")):
    setattr(place, name, without_proc(getattr(place, name)))

fork = os.fork

def fork_for_ansible_alone():
    if "ansible_collections" in sys._getframe(1).f_code.co_filename:
        raise RuntimeError("fork is not safe here")
    return fork()

os.fork = fork_for_ansible_alone
sys.platform = "darwin"

def end(*_args):
    os._exit(139)

sys.modules["_scproxy"] = types.SimpleNamespace(_get_proxies=end, _get_proxy_settings=end)
"""


def cycle(play, other_app, tmp_path, **kwargs):
    first = artifact("other_app-0.1.0")
    play("deploy", other_app, {"bluegreen_artifact": first}, **kwargs)
    second = {"bluegreen_artifact": variant(first, str(tmp_path / "second.tar.gz"), extra=1 << 20)}
    play("deploy", other_app, second, **kwargs)
    play("promote", other_app, **kwargs)
    play("rollback", other_app, **kwargs)
    return play("status", other_app, "strict=true", "history=1", **kwargs)


def test_a_mac(play, site, other_app, tmp_path):
    (tmp_path / "mac").mkdir()
    (tmp_path / "mac/sitecustomize.py").write_text(MAC)
    env = {"PYTHONPATH": str(tmp_path / "mac"), "COPYFILE_DISABLE": "0"}
    with webhook(200) as (url, told):
        cycle(play, {**other_app, "bluegreen_notify": [{"url": url}]}, tmp_path, env=env)
    assert [one["event"] for one in told] == ["deployed", "deployed", "promoted", "rolled_back"]
    assert site.color() == "blue"


@pytest.mark.long
def test_a_name_with_a_domain_in_it_and_a_home_that_nobody_can_write_to(host, play, other_app, tmp_path):
    # Ansible itself wants a directory for its temporary files, and one for the sockets of ssh.
    own = {"ANSIBLE_LOCAL_TEMP": str(tmp_path / "temp"), "ANSIBLE_SSH_CONTROL_PATH_DIR": str(tmp_path / "cp")}
    env = {"LOGNAME": "CORP\\ann@corp.example", "HOME": "/proc/none", **own}
    assert "CORP\\ann@corp.example@" in cycle(play, other_app, tmp_path, env=env).text
    history = host.check_output("sudo tail -n 1 /opt/other_app/history.jsonl")
    assert json.loads(history)["who"].startswith("CORP\\ann@corp.example@")


@pytest.mark.parametrize("method", ["sudo", pytest.param("su", marks=pytest.mark.long)])
def test_becoming_root_with_a_password(host, play, site, other_app, tmp_path, method):
    made = (
        "useradd --create-home asks && cp -r /home/deploy/.ssh /home/asks/ && chown -R asks: /home/asks && "
        "echo 'asks ALL=(ALL) ALL' >/etc/sudoers.d/asks && printf 'asks:s3 cret\\nroot:s3 cret\\n' | chpasswd"
    )
    gone = "rm /etc/sudoers.d/asks; usermod --lock root; pkill -u asks; userdel -r asks; true"
    with broken(host, f"sudo sh -c {shlex.quote(made)}", f"sudo sh -c {shlex.quote(gone)} 2>&1"):
        goal = {"ansible_user": "asks", "ansible_become_method": method, "ansible_become_password": "s3 cret"}
        cycle(play, {**other_app, **goal}, tmp_path)
    assert site.color() == "blue"


@pytest.mark.long
def test_doas(host, play, site, other_app, tmp_path):
    with broken(host, "echo permit nopass deploy | sudo tee /etc/doas.conf", "sudo rm /etc/doas.conf"):
        goal = {"ansible_become_method": "community.general.doas", "ansible_become_flags": ""}
        cycle(play, {**other_app, **goal}, tmp_path)
    assert site.color() == "blue"


def test_a_bastion(play, site, other_app, tmp_path):
    """The host is reached through another one, here through itself, and what a console needs is printed with it."""
    known = connection(INVENTORY, "bluegreen-world1")
    key, port = known["ansible_ssh_private_key_file"], known["ansible_port"]
    common = known["ansible_ssh_common_args"]
    jump = f'-o ProxyCommand="ssh {common} -i {key} -p {port} -W %h:%p deploy@127.0.0.1"'
    behind = {"ansible_port": 22, "ansible_ssh_common_args": f"{common} {jump}"}
    cycle(play, {**other_app, **behind}, tmp_path)
    assert site.color() == "blue"
    assert "ProxyCommand" in play("console", {**other_app, **behind}).text


@contextlib.contextmanager
def on_ipv6(port):
    """While the block runs, a port of 127.0.0.1 answers on ::1 too. Yields the port there."""

    def pump(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def serve():
        with contextlib.suppress(OSError):
            while True:
                near, _address = listener.accept()
                far = socket.create_connection(("127.0.0.1", port))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.long
@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_an_ipv6_address_in_the_inventory(play, site, other_app, tmp_path):
    with on_ipv6(connection(INVENTORY, "bluegreen-world1")["ansible_port"]) as port:
        cycle(play, {**other_app, "ansible_host": "::1", "ansible_port": port}, tmp_path)
    assert site.color() == "blue"
