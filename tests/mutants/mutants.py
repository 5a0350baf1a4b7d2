# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes the collection apart one piece at a time, and looks whether a test notices: `make mutants`.

Of each file of tasks: every task taken out, or its C(when) made false, which is the same; every C(when) made true; every C(changed_when),
C(failed_when), C(ignore_errors) and C(run_once) taken out. What acts while the gate of the group is shut, or is not judged, is noticed without a
host, by tests/unit/test_tasks.py; against the rest the tests that tests/promises.yml names for the file run, on real hosts. A test that
notices when a task of a file is missing counts for the include of the file too, if nothing else includes it. Of the pure Python: what mutmut makes
of it, against the unit tests. What is noticed is killed; what survives is printed, unless accepted.yml says why it is not worth a test. What was
tried on hosts stays in tried.jsonl, so that an interrupted run goes on where it was.

MUTANTS=roles/slot,plugins/module_utils/_slots.py tries a part; SEED=1 in another order; HOURS=2 for so long; PLACE=fleet only
on the hosts of that scenario.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import time

import yaml
from ansible.plugins.loader import init_plugin_loader
from ansible.utils.vars import merge_hash

TOP = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(TOP / "tests/unit"))
init_plugin_loader()

import test_tasks

OUT = TOP / "build/mutants"
TRIED = TOP / "tests/mutants/tried.jsonl"
COLLECTIONS = OUT / "collections"
COPY = COLLECTIONS / "ansible_collections/beamops/bluegreen"
LEDGER = yaml.safe_load((TOP / "tests/promises.yml").read_text())
ACCEPTED = yaml.safe_load((TOP / "tests/mutants/accepted.yml").read_text())
PYTHON = {
    "plugins/module_utils/_slots.py": ["test_slots", "test_plans", "test_messages"],
    "plugins/module_utils/_validate.py": ["test_validate", "test_slots"],
    "plugins/module_utils/_envfile.py": ["test_envfile", "test_cluster"],
    "plugins/module_utils/_cluster.py": ["test_cluster"],
    "plugins/module_utils/_figures.py": ["test_watch"],
    "plugins/plugin_utils/_variables.py": ["test_validate", "test_cluster", "test_watch"],
    "plugins/plugin_utils/_watch.py": ["test_watch"],
    "plugins/plugin_utils/_gate.py": ["test_gate"],
    "plugins/plugin_utils/_plans.py": ["test_plans", "test_cluster"],
    "plugins/plugin_utils/_messages.py": ["test_messages", "test_status_report"],
}
PLACES = sorted(path.parent.name for path in TOP.glob("molecule/*/tests"))
INCLUDES = {f"ansible.builtin.{how}_{what}" for how in ("include", "import") for what in ("tasks", "role")}
WITHOUT = ("taken out", "when false")
TAKEN_OUT = ("changed_when", "failed_when", "ignore_errors", "run_once")
# Longer than any of the tests that the ledger names takes.
TEST_SECONDS = 400


# --- mutants of tasks ----------------------------------------------------------------------------------------------------


def tasks_in(node):
    """The mappings that are tasks, in a composed file of tasks or plays, with those in blocks."""
    for item in node.value:
        keys = {key.value: (key, value) for key, value in item.value}
        if "hosts" in keys:
            for part in ("pre_tasks", "tasks", "post_tasks"):
                if part in keys:
                    yield from tasks_in(keys[part][1])
            continue
        if "ansible.builtin.import_playbook" not in keys:
            yield item, keys
        for part in ("block", "rescue", "always"):
            if part in keys:
                yield from tasks_in(keys[part][1])


def mutants_of(path):
    """(what is done, text of the file then) for each mutant of a file."""
    text = (TOP / path).read_text()
    lines = text.splitlines(keepends=True)

    def replaced(start, end, new):
        return "".join([*lines[:start], *new, *lines[end:]])

    def end_of(node):
        # A block, and text of several lines, ends where the next token begins; anything else on the line that it is on.
        in_block = node.flow_style is False if isinstance(node, yaml.CollectionNode) else node.style in ("|", ">")
        line = node.end_mark.line + (not in_block and node.end_mark.column > 0)
        # A mapping ends where the next thing begins, which may be behind a comment.
        while line and (not lines[line - 1].strip() or lines[line - 1].lstrip().startswith("#")):
            line -= 1
        return line

    for item, keys in tasks_in(yaml.compose(text)):
        name = keys["name"][1].value if "name" in keys else f"line {item.start_mark.line + 1}"
        first, indent = item.start_mark.line, " " * (item.start_mark.column - 2)
        nothing = [f"{indent}- name: Nothing\n", f"{indent}  ansible.builtin.meta: noop\n"]
        if "when" not in keys:
            yield f"{name}: taken out", replaced(first, end_of(item), nothing)
        for word, (key, value) in keys.items():
            start, end = key.start_mark.line, end_of(value)
            gap = " " * key.start_mark.column
            if word == "when":
                for choice in ("true", "false"):
                    yield f"{name}: when {choice}", replaced(start, end, [f"{gap}when: {choice}\n"])
            elif word in TAKEN_OUT and not (word == "run_once" and "beamops.bluegreen.group" in keys):
                # That the group decides once, a unit test sees: test_collection.py.
                yield f"{name}: without {word}", replaced(start, end, [])


@functools.cache
def included():
    """{(file, name of a task): the file of tasks that it includes}, of all tasks whose include has no expression in it."""
    found = {}
    for path in files(["roles", "playbooks"]):
        for _item, keys in tasks_in(yaml.compose((TOP / path).read_text())):
            for word in INCLUDES & set(keys):
                words = yaml.safe_load(yaml.serialize(keys[word][1]))
                if word.endswith("_tasks"):
                    place = pathlib.Path(path).parent / words
                else:
                    role = words["name"].rpartition(".")[2]
                    place = pathlib.Path("roles", role, "tasks", f"{words.get('tasks_from', 'main')}.yml")
                if (TOP / place).exists():
                    found[path, keys["name"][1].value] = str(place)
    return found


def only_way_to(path, name):
    """The file of tasks in which nothing is done with this mutant, because no other task includes it. Otherwise V(None)."""
    task, _colon, what = name.removeprefix(f"{path}: ").rpartition(": ")
    place = included().get((path, task)) if what in WITHOUT else None
    return place if list(included().values()).count(place) == 1 else None


# --- hosts, as the scenarios of molecule have them ---------------------------------------------------------------------------


def run(*words, **kwargs):
    return subprocess.run(words, capture_output=True, text=True, check=False, **kwargs)


class Scenario:
    """The hosts of a scenario, made of its molecule.yml, that can be put back to how they were after the first deploy."""

    def __init__(self, name):
        self.name, self.folder = name, OUT / name
        self.folder.mkdir(parents=True, exist_ok=True)
        common, own = (
            yaml.safe_load(os.path.expandvars((TOP / "molecule" / path).read_text()))
            for path in ("common.yml", f"{name}/molecule.yml")
        )
        found = merge_hash(common, own)
        self.platforms = found["platforms"]
        inventory = found["provisioner"]["inventory"]
        hosts = {one["name"]: inventory["host_vars"][one["name"]] for one in self.platforms}
        groups = {"bluegreen": {"hosts": hosts, "vars": inventory["group_vars"]["bluegreen"]}}
        self.inventory = self.folder / "inventory.yml"
        self.inventory.write_text(yaml.safe_dump({"all": {"children": groups}}))
        options = found["provisioner"]["config_options"]
        text = "".join(
            f"[{part}]\n" + "".join(f"{name} = {value}\n" for name, value in values.items())
            for part, values in options.items()
        )
        (self.folder / "ansible.cfg").write_text(text + "host_key_checking = false\n")
        self.env = {
            **os.environ,
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "BLUEGREEN_TEST_COLLECTIONS": str(COLLECTIONS),
            "MOLECULE_INVENTORY_FILE": str(self.inventory),
            "MOLECULE_PROJECT_DIRECTORY": str(TOP),
            "MOLECULE_SCENARIO_NAME": name,
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def create(self, saved):
        for platform in self.platforms:
            name = platform["name"]
            run("docker", "rm", "--force", "--volumes", name)
            words = ["docker", "run", "--detach", "--name", name, "--hostname", name]
            words += [f"--cap-add={one}" for one in platform["capabilities"]]
            words += [f"--security-opt={one}" for one in platform["security_opts"]]
            words += [f"--cgroupns={platform['cgroupns_mode']}"]
            words += [f"--tmpfs={one}" for one in platform["tmpfs"]]
            words += [f"--publish={one}" for one in platform["published_ports"]]
            for network in platform.get("docker_networks", []):
                subnet = network["ipam_config"][0]["subnet"]
                run("docker", "network", "create", f"--subnet={subnet}", network["name"])
            for network in platform.get("networks", []):
                words += [f"--network={network['name']}", f"--ip={network['ipv4_address']}"]
            done = run(
                *words,
                f"bluegreen-mutants:{name}" if saved else platform["image"],
                platform["command"] if "command" in platform else "/lib/systemd/systemd",
            )
            assert done.returncode == 0, done.stderr
        for platform in self.platforms:
            ready = "systemctl is-system-running | grep -Eq 'running|degraded'"
            if saved:
                ready += " && curl -fsS localhost:4000/health"
            wait = f"for i in $(seq 300); do {ready} && exit 0; sleep 0.2; done; exit 1"
            assert run("docker", "exec", platform["name"], "sh", "-c", wait).returncode == 0, (
                f"{platform['name']} does not boot"
            )

    def prepare(self):
        """0.1.0 on all hosts, as converge leaves it, kept as images."""
        self.create(saved=False)
        artifact = f"bluegreen_artifact={os.environ['BLUEGREEN_TEST_ARTIFACTS']}/sample_app-0.1.0.tar.gz"
        words = ["ansible-playbook", "beamops.bluegreen.deploy", "-i", str(self.inventory), "-e", artifact]
        done = run(*words, env=self.env)
        assert done.returncode == 0, done.stdout[-4000:]
        for platform in self.platforms:
            assert run("docker", "commit", platform["name"], f"bluegreen-mutants:{platform['name']}").returncode == 0

    def remove(self):
        for platform in self.platforms:
            run("docker", "rm", "--force", "--volumes", platform["name"])
            run("docker", "image", "rm", f"bluegreen-mutants:{platform['name']}")
            for network in platform.get("docker_networks", []):
                run("docker", "network", "rm", network["name"])

    def test(self, tests):
        """Run tests until the first that fails: (passed or not, the end of what was printed)."""
        words = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", ""]
        words += [test.partition("/")[2] for test in tests]
        with open(self.folder / "test.log", "w+", encoding="utf-8") as log:
            process = subprocess.Popen(
                words,
                cwd=TOP / f"molecule/{self.name}/tests",
                env=self.env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = process.wait(timeout=TEST_SECONDS * len(tests))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()
                code = None
            log.seek(0)
            return code == 0, log.read()[-3000:]


# --- what was tried ------------------------------------------------------------------------------------------------------


class Results:
    """Of each mutant what became of it, in a file that outlives an interrupted run."""

    def __init__(self):
        self.known = {}
        for path in (TRIED, OUT / "results.jsonl"):
            for line in path.read_text().splitlines() if path.exists() else []:
                entry = json.loads(line)
                self.known[entry["id"], entry["of"]] = entry

    def add(self, name, of, result, **more):
        entry = {"id": name, "of": of, "result": result, **more}
        self.known[name, of] = entry
        # What takes hours is kept with the sources; mutmut needs minutes.
        with open(OUT / "results.jsonl" if name.startswith(tuple(PYTHON)) else TRIED, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")


def accepted(name):
    """Why a mutant is not worth a test, or V(None)."""
    for entry in ACCEPTED:
        if re.search(entry["mutant"], name):
            return entry["because"]
    return None


def digest(*texts):
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def files(parts):
    found = []
    for folder in ("roles", "playbooks"):
        found += [str(path.relative_to(TOP)) for path in sorted((TOP / folder).rglob("*.yml")) if is_tasks(path)]
    found += list(PYTHON)
    return [path for path in found if not parts or path.startswith(tuple(parts))]


def is_tasks(path):
    return path.parent.name == "tasks" or (path.parent.name == "playbooks" and "  tasks:" in path.read_text())


def tests_of(path, place):
    return [test for test in LEDGER["tasks"].get(path) or [] if test.startswith(f"{place}/")]


def state_of(path, tests):
    """What a result is of: when the file or its tests are others, it is not known any more."""
    return digest((TOP / path).read_text(), *tests)


def try_tasks(paths, results, deadline, seed):
    """Each place has hosts of its own; what survives in one is tried in the next."""
    for place in os.environ.get("PLACE", "").split() or PLACES:
        work = []
        for path in paths:
            tests = tests_of(path, place)
            of = state_of(path, tests)
            for what, text in mutants_of(path):
                name = f"{path}: {what}"
                if (
                    tests
                    and not accepted(name)
                    and (name, of) not in results.known
                    and not is_killed(path, name, text, results)
                ):
                    work.append((name, of, path, text, tests))
        random.Random(seed).shuffle(work)
        # What an include does is tried first: it may tell of the include.
        work.sort(key=lambda one: only_way_to(one[2], one[0]) is not None)
        print(f"{place}: {len(work)} mutants of tasks to try", flush=True)
        if work:
            try_on_hosts(place, work, results, deadline)


def is_killed(path, name, text, results):
    return is_killed_on_hosts(path, name, results) or bool(test_tasks.found({path: text}))


def is_killed_on_hosts(path, name, results):
    places = [state_of(path, tests_of(path, place)) for place in PLACES]
    if any(results.known.get((name, of), {}).get("result") == "killed" for of in places):
        return True
    # A test that misses one task of a file misses all of them; but a gate is missed only where there is something to judge.
    inner = only_way_to(path, name)
    return inner is not None and any(
        what.endswith(WITHOUT)
        and not included().get((inner, what.rpartition(": ")[0]), "").endswith("/gate.yml")
        and is_killed_on_hosts(inner, f"{inner}: {what}", results)
        for what, _text in mutants_of(inner)
    )


def try_on_hosts(place, work, results, deadline):
    copy_collection()
    scenario, clean, proven, broken = Scenario(place), True, set(), set()
    scenario.prepare()
    try:
        for number, (name, of, path, text, tests) in enumerate(work, 1):
            if time.monotonic() > deadline:
                print(f"the time is over; {len(work) - number + 1} are left", flush=True)
                return
            if broken & set(tests) or is_killed(path, name, text, results):
                continue
            if not clean:
                scenario.create(saved=True)
            began = time.monotonic()
            (COPY / path).write_text(text)
            passed, said = scenario.test(tests)
            (COPY / path).write_text((TOP / path).read_text())
            # What a mutant has left on the hosts must not be held against the next.
            clean = passed
            result = "survived" if passed else "killed"
            took = time.monotonic() - began
            good = len(tests) if passed else position(last_failed(said), tests)
            failed = set(tests[good : good + 1])
            proven |= set(tests[:good])
            if not passed and not failed & proven:
                # A test that fails by itself would kill everything: once it must have passed, behind those before it.
                scenario.create(saved=True)
                clean, without = scenario.test(tests[: good + 1])
                if not clean:
                    broken |= failed
                    print(f"{path}: {last_failed(without)} fails without a mutant\n{without[-1500:]}", flush=True)
                    continue
                proven |= failed
            results.add(name, of, result, seconds=round(took), by=last_failed(said))
            print(
                f"{number}/{len(work)} {took:5.0f} s  {result}  {name}  {last_failed(said)}",
                flush=True,
            )
    finally:
        scenario.remove()


def position(failed, tests):
    """Which of the tests has failed, by what pytest calls it; behind the last where it names none of them, as after a timeout."""
    for number, test in enumerate(tests):
        name = test.partition("/")[2]
        if failed == name or failed.startswith(f"{name}["):
            return number
    return len(tests)


def last_failed(said):
    found = re.findall(r"^(?:FAILED|ERROR) (\S+)", said, re.MULTILINE)
    return found[-1] if found else ""


def copy_collection():
    shutil.rmtree(COLLECTIONS, ignore_errors=True)
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=TOP).stdout.split("\0")
    for name in filter(None, listed):
        if (TOP / name).is_file() and name.split("/")[0] in ("galaxy.yml", "meta", "playbooks", "plugins", "roles"):
            (COPY / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(TOP / name, COPY / name)
    # What galaxy.yml says is in a file of its own in an installed collection.
    (COPY / "MANIFEST.json").write_text(
        json.dumps({"collection_info": {"namespace": "beamops", "name": "bluegreen", "version": "0.0.0"}, "format": 1})
    )


# --- mutants of Python ---------------------------------------------------------------------------------------------------

CONFTEST = """import os
os.environ["ANSIBLE_COLLECTIONS_PATH"] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
import hypothesis
from ansible.plugins.loader import init_plugin_loader
init_plugin_loader()
# The same examples for all mutants.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
hypothesis.settings.load_profile("same")
"""


def python_state(path):
    return digest((TOP / path).read_text(), *((TOP / f"tests/unit/{name}.py").read_text() for name in PYTHON[path]))


def try_python(path, results, deadline):
    """Let mutmut have its way with one file. It keeps what it has tried by itself."""
    if time.monotonic() > deadline:
        return
    of = python_state(path)
    if (path, of) in results.known:
        return
    place = OUT / f"python-{pathlib.Path(path).stem.strip('_')}-{of}"
    if not place.exists():
        copy_collection()
        shutil.copytree(COLLECTIONS / "ansible_collections", place / "ansible_collections")
        (place / "tests").mkdir()
        (place / "tests/conftest.py").write_text(CONFTEST)
        for name in PYTHON[path]:
            shutil.copy(TOP / f"tests/unit/{name}.py", place / "tests")
        shutil.copy(TOP / "tests/unit/infos.py", place / "tests")
        (place / "ansible.cfg").touch()
        (place / "setup.cfg").write_text(
            "[mutmut]\nsource_paths=ansible_collections\ntests_dir=tests\n"
            f"only_mutate=ansible_collections/beamops/bluegreen/{path}\n"
        )
    print(f"mutmut, {path}", flush=True)
    mutmut = shutil.which("mutmut")
    with open(place / "mutmut.log", "w", encoding="utf-8") as log:
        subprocess.run(
            [mutmut, "run"],
            cwd=place,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
            env={**os.environ, "ANSIBLE_CONFIG": str(place / "ansible.cfg")},
        )
    log = (place / "mutmut.log").read_text()
    if "mutations/second" not in log:
        raise SystemExit(f"mutmut did not come to its end: {log[-2000:]}")
    listed = run(mutmut, "results", "--all", "true", cwd=place).stdout
    for name, result in re.findall(r"^\s*(\S+): (.+)$", listed, re.MULTILINE):
        if result in ("killed", "timeout", "segfault"):
            results.add(f"{path}: {name.rpartition('.')[2]}", of, "killed")
            continue
        # Survived, or reached by no test at all.
        shown = run(mutmut, "show", name, cwd=place).stdout
        change = " => ".join(line[1:].strip() for line in shown.splitlines() if re.match(r"[-+] ", line))
        results.add(f"{path}: {name.rpartition('.')[2]}: {change}", of, "survived")
    results.add(path, of, "done")


# --- the whole -----------------------------------------------------------------------------------------------------------


def outcomes(path, results):
    """(mutant, what became of it) for all mutants of a file as it is now."""
    if path in PYTHON:
        of = python_state(path)
        for name, which in list(results.known):
            if which == of and name != path:
                yield name, results.known[name, which]["result"]
        return
    for what, text in mutants_of(path):
        name, named = f"{path}: {what}", [tests for place in PLACES if (tests := tests_of(path, place))]
        if is_killed(path, name, text, results):
            yield name, "killed"
        else:
            tried = [(name, state_of(path, tests)) in results.known for tests in named]
            yield name, "survived" if tried and all(tried) else "not tried"


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    parts = [part for part in os.environ.get("MUTANTS", "").split(",") if part]
    deadline = time.monotonic() + float(os.environ.get("HOURS") or 24) * 3600
    paths, results = files(parts), Results()
    try:
        for path in paths:
            if path in PYTHON:
                try_python(path, results, deadline)
        try_tasks([path for path in paths if path not in PYTHON], results, deadline, int(os.environ.get("SEED") or 0))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here")
    total = {}
    for path in paths:
        count = {}
        for name, found in outcomes(path, results):
            found = "not worth it" if found != "killed" and accepted(name) else found
            count[found] = count.get(found, 0) + 1
            total[found] = total.get(found, 0) + 1
            if found == "survived":
                print(f"    survived: {name}")
        print(
            f"{path}: " + (", ".join(f"{number} {what}" for what, number in sorted(count.items())) or "nothing tried")
        )
    print(", ".join(f"{number} {what}" for what, number in sorted(total.items())))


if __name__ == "__main__":
    main()
