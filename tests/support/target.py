# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a test host, as root: one module under strace, and a picture of all that the app has there.

Needs nothing but Python and strace. Beside it lie C(ansible/module_utils) and C(ansible_collections), as the modules want them.
One JSON value comes in on stdin, one goes out on stdout.
"""

from __future__ import annotations

import grp
import hashlib
import http.client
import json
import os
import pwd
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))

# Every system call that changes something, starts something, or waits for what was started. Reading cannot do harm.
MUTATING = (
    "rename,renameat,renameat2,symlink,symlinkat,link,linkat,unlink,unlinkat,rmdir,mkdir,mkdirat,chmod,fchmod,fchmodat,"
    "chown,fchown,lchown,fchownat,utimensat,truncate,ftruncate,write,fsync,sync,vfork,fork,clone,clone3,wait4,kill"
)

FRAME = """
import importlib, json, sys
from ansible.module_utils import basic
basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": json.loads(sys.argv[2])}).encode()
basic._ANSIBLE_PROFILE = "legacy"
importlib.import_module("ansible_collections.beamops.bluegreen.plugins.modules." + sys.argv[1]).main()
"""


def run_module(job):
    """Run a module. C(inject) is what strace does to it, such as C(rename:signal=SIGKILL:when=2); C(list) lists its calls."""
    words = [sys.executable, "-B", "-c", FRAME, job["module"], json.dumps(job["args"])]
    calls = f"/run/calls.{os.getpid()}"
    if job.get("list"):
        words = ["strace", "-qq", "-o", calls, "-e", f"trace={MUTATING}", *words]
    elif job.get("inject"):
        name = job["inject"].split(":")[0]
        words = ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={name}", "-e", f"inject={job['inject']}", *words]
    done = subprocess.run(
        words,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": HERE, "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    try:
        result = json.loads(done.stdout)
    except ValueError:
        result = None
    answer = {"rc": done.returncode, "result": result, "stderr": done.stderr[-2000:]}
    if job.get("list"):
        with open(calls, encoding="utf-8", errors="replace") as stream:
            answer["calls"] = re.findall(r"^(\w+)\(", stream.read(), re.MULTILINE)
        os.unlink(calls)
    return answer


def same_for_all_runs(text):
    """Without what differs between two runs that did the same: times, names of runs, process ids."""
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME", text)
    text = re.sub(r'"(seconds|pid|started)": "?[\d.]+"?', r'"\1": 0', text)
    return re.sub(r'"run": "[^"]*"', '"run": "RUN"', text)


def describe(path):
    found = os.lstat(path)
    owner = f"{pwd.getpwuid(found.st_uid).pw_name}:{grp.getgrgid(found.st_gid).gr_name}"
    if os.path.islink(path):
        return f"-> {os.readlink(path)}"
    about = f"{oct(found.st_mode)} {owner}"
    if os.path.isdir(path):
        return about
    with open(path, encoding="utf-8", errors="surrogateescape") as stream:
        text = same_for_all_runs(stream.read())
    return f"{about} {text}" if len(text) < 2000 else f"{about} {hashlib.sha256(text.encode()).hexdigest()}"


def files_of(app, root):
    """Every file of the app but what its own processes write, and what it was told in history and locks."""
    found = {}
    for top in (root, "/etc/ansible/facts.d", "/etc/nginx/conf.d", "/etc/systemd/system"):
        for folder, folders, names in os.walk(top):
            if folder == f"{root}/releases":
                for name in list(folders):
                    if not name.startswith("."):
                        # A release is whole or not there; its thousand files need not be compared one by one.
                        count = sum(len(files) for _folder, _folders, files in os.walk(f"{folder}/{name}"))
                        found[f"{folder}/{name}"] = f"{count} files"
                        folders.remove(name)
            if folder == root and "state" in folders:
                folders.remove("state")
            for name in folders + names:
                path = os.path.join(folder, name)
                if top == root or app in path:
                    found[path] = describe(path)
    found.pop(f"{root}/history.jsonl", None)
    return found


def ask(path, domain):
    connection = http.client.HTTPConnection("127.0.0.1", 80, timeout=10)
    try:
        connection.request("GET", path, headers={"Host": domain})
        answer = connection.getresponse()
        return answer.read().decode() if answer.status == 200 else f"status {answer.status}"
    except OSError as error:
        return str(error)
    finally:
        connection.close()


def picture(job):
    """All that can be seen of the app: files, units, what the site answers."""
    app, root, domain = job["app"], job["root"], job["domain"]
    units = {}
    for color in ("blue", "green"):
        shown = subprocess.run(
            ["systemctl", "show", f"{app}@{color}", "--property", "ActiveState,UnitFileState,MainPID"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        units[color] = dict(line.split("=", 1) for line in shown.splitlines())
    color, answer = ask("/deployment_id", domain), ask("/", domain)
    live = os.path.basename(os.readlink(f"{root}/live"))
    release = os.path.basename(os.readlink(f"{root}/slots/{live}/release"))
    try:
        serving = json.loads(answer)
        wrong = (
            None
            if (color, serving["color"]) == (live, live) and release.startswith(serving["version"] + "-")
            else "differ"
        )
    except ValueError:
        serving, wrong = {}, "no answer"
    return {
        "files": files_of(app, root),
        "units": {color: [units[color]["ActiveState"], units[color]["UnitFileState"]] for color in units},
        "pids": {color: units[color]["MainPID"] for color in units},
        "site": {
            "live": live,
            "release": release,
            "deployment_id": color,
            "color": serving.get("color"),
            "version": serving.get("version"),
            "build": serving.get("build"),
        },
        "wrong": wrong,
    }


if __name__ == "__main__":
    work = json.load(sys.stdin)
    json.dump(run_module(work) if "module" in work else picture(work), sys.stdout)
