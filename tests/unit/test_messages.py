# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.beamops.bluegreen.plugins.module_utils import _slots
from ansible_collections.beamops.bluegreen.plugins.plugin_utils import _messages, _plans
from infos import E1, E2, A, B, C, bad, info, was_live, without


def test_a_promote_that_is_run_again_does_not_move_the_traffic_back():
    after = was_live(info(live="green"), "blue")
    plan = _plans.switch_plan({"a": after})
    assert plan["ok"] and plan["hosts"]["a"] == {"color": "green", "release": B, "env": E1, "already": True}
    assert f"blue {A} env 1111 was live before, and rollback.yml" in _messages.switch_lines({"a": after}, plan)[0]
    # A controller that died between two hosts: the one that has switched stays, the other follows.
    plan = _plans.switch_plan({"a": after, "b": info()})
    assert plan["ok"] and plan["hosts"]["a"]["already"] and plan["hosts"]["b"]["color"] == "green"
    assert _plans.switch_plan({"a": after}, "blue")["hosts"]["a"]["already"] is False


def test_the_table_tells_what_does_not_agree():
    odd = info(deployment_id="green")
    odd["disagreements"] = _slots.disagreements(odd)
    lines = _messages.status_lines({"web1": info(), "web2": odd, "web3": {"unreachable": True, "msg": "timed out"}})
    assert lines[1].split()[:4] == ["web1", "blue", "blue", "blue"]
    assert "web2: /deployment_id says green, the live symlink says blue" in lines
    assert "web3: unreachable: timed out" in lines
    assert _messages.status_lines({"web1": info()})[-1] == "consistent: facts, symlink, nginx and processes agree"
    assert _messages.in_doubt({"web1": odd}) and not _messages.in_doubt({"web1": info()})


def test_the_next_commands_are_said():
    assert _messages.next_lines({"a": info()}) == [f"to make {B} env 1111 live: promote.yml -e color=green"]
    back = info(live="green", rollback={"release": A, "env": E2, "color": "blue", "take": False})
    back["slots"]["blue"]["promoted_at"] = "t"
    assert _messages.next_lines({"a": back}) == [f"to go back to {A} env 2222: rollback.yml"]
    # The cookies of two hosts differ, and with them the ids of one environment.
    there = info(live="green", rollback={"release": A, "env": E1, "color": "blue", "take": False})
    assert _messages.next_lines({"a": back, "b": there})[-1] == f"to go back to {A}: rollback.yml"
    assert _messages.next_lines({"a": info(green=None)}) == []


def test_what_differs_between_two_environments_is_said_by_name():
    assert _messages.env_words(None) == _messages.env_words({"added": [], "removed": [], "changed": []}) == ""
    changes = {"added": ["POOL_SIZE"], "removed": ["OLD"], "changed": ["DATABASE_URL"]}
    assert _messages.env_words(changes) == "+POOL_SIZE, -OLD, ~DATABASE_URL"
    many = {**changes, "added": [f"A{number}" for number in range(10)]}
    assert _messages.env_words(many) == "+A0, +A1, +A2, +A3, +A4, +A5 and 6 more"
    found = info(green=A)
    found["slots"]["green"].update(env=E2, env_changes=changes)
    plan = _plans.switch_plan({"web1": found}, "green")
    words = "(+POOL_SIZE, -OLD, ~DATABASE_URL)"
    assert _messages.switch_lines({"web1": found}, plan) == [
        f"web1: live blue {A} env 1111 -> green {A} env 2222 {words}"
    ]
    table = _messages.status_lines({"web1": found})
    assert f"{A} env 1111 live healthy" in table[1] and f"{A} env 2222 idle healthy" in table[1]
    assert table[2] == "web1: the environment of green differs from the live one: +POOL_SIZE, -OLD, ~DATABASE_URL"
    assert table[3] == "consistent: facts, symlink, nginx and processes agree"


def test_before_a_deploy_it_is_said_what_will_be_there():
    coming = info(wanted={"env": E2, "env_changes": {"added": ["NEW"], "removed": [], "changed": []}})
    line = f"web1: live blue {A} env 1111 -> deploying {C} env 2222 to green (+NEW) (holds {B} env 1111)"
    assert _messages.deploy_lines({"web1": coming}, {"web1": C}) == [line]
    there = info(wanted={"env": E1, "env_changes": {"added": [], "removed": [], "changed": []}})
    assert _messages.deploy_lines({"web1": there}, {"web1": A}) == [f"web1: live blue {A} env 1111: already live"]


def test_the_history_tells_environments_apart():
    entry = {"at": "t", "operation": "promote", "result": "ok", "seconds": 2, "who": "ann"}
    entry.update({"from": {"color": "blue", **bad(A, E1)}, "to": {"color": "green", **bad(A, E2)}})
    line = _messages.history_lines({"a": info(history=[entry])})[0]
    assert line.endswith(f"live blue {A} env 1111 -> green {A} env 2222")
    # What it was built from, and what was saved before it migrated.
    entry["to"]["commit"], entry["backup"] = "abc1234", "/backups/1.dump"
    line = _messages.history_lines({"a": info(history=[entry])})[0]
    assert line.endswith(f"-> green {A} env 2222 commit abc1234  backup /backups/1.dump")


def test_a_canary_and_maintenance_are_in_the_table():
    text = "\n".join(_messages.status_lines({"web1": info(canary=10, maintenance=True)}))
    assert "web1: canary: 10 % of the visitors get green" in text
    assert (
        "web1: closed for maintenance" in text and "consistent: facts, symlink, nginx and processes agree" not in text
    )


def test_what_a_person_reads_when_a_run_failed():
    for step, word in (("lock", "locking"), ("setup_error", "setting up"), ("listed", "listing its migrations")):
        failed = [{"host": "a", "step": step, "why": "no\nmore"}]
        assert _messages.failure_lines("deploy", failed, "Repair.") == [
            "deploy failed on 1 host:",
            f"a: {word}: no",
            "  more",
            "Repair.",
        ]
    plan = [{"host": host, "step": "plan", "why": "no"} for host in "ab"]
    assert _messages.failure_lines("promote", plan, "One\ntwo") == [
        "promote failed on 2 hosts:",
        "a: no",
        "b: no",
        "One",
        "  two",
    ]
    assert _messages.failure_lines("promote", [], "") == ["promote failed on 0 hosts:", ""]


FINE = {"ok": True, "failures": [], "lost": []}


def ending(gate=None, after_switch=None, finished=None, status=(), **more):
    gates = ({**FINE, **(gate or {})}, after_switch or FINE, finished or FINE)
    return _messages.ending("deploy", gates, "Repair it.", status, **more)


def test_the_last_words_of_a_run():
    failures = [{"host": "a", "step": "lock", "why": "no"}]
    bad_ = {"ok": False, "failures": failures, "lost": []}
    assert ending(status=["table"]) == {"lines": ["table"], "failed": ""}
    lines = ending({"lost": ["b", "c"]}, status=["table"], apart=(0.0123, 0.005), migrated=["1", "2"])["lines"]
    assert lines == [
        "table",
        "2 migrations ran: 1, 2",
        "all hosts switched within 12 ms (+-5 ms)",
        "unreachable and unchanged: b, c. Once reachable again, rerun the deploy with -e bluegreen_promote=true",
    ]
    # A host that failed in the switch is not reported again because its finish failed too.
    ended = ending(bad_, bad_, bad_, ["table"], apart=(0.01, 0.001))
    assert ended["lines"] == ["table", "deploy failed on 1 host:", "a: locking: no", "Repair it."]
    assert ended["failed"] == "deploy failed on a. See the reasons above."
    after = ending(after_switch=bad_)
    assert after["lines"][-1].startswith("Traffic is on the new slot and was not rolled back.")
    not_finished = ending(finished=bad_)
    assert not_finished["lines"][-1].startswith("The operation itself succeeded on every host.")
    afterwards = "the deploy itself succeeded, but a step after it failed on a. See the reasons above."
    assert not_finished["failed"] == after["failed"] == afterwards
    # A run whose gate is shut without a reason did not go well.
    assert ending({"ok": False}) == {"lines": [], "failed": "deploy failed. See the reasons above."}
    other = [{"host": "b", "step": "on_live_sent", "why": "no"}]
    both = ending(after_switch={**bad_, "failures": other}, finished=bad_)
    assert both["failed"] == afterwards.replace("on a", "on b, a")


def test_the_reason_that_goes_into_the_history():
    failures = [{"host": "a", "step": "lock", "why": "no"}]
    bad_ = {"ok": False, "failures": failures, "lost": []}
    assert _messages.reason("deploy", FINE, FINE) == ""
    assert _messages.reason("deploy", bad_, FINE) == "deploy failed on 1 host: a: locking: no"
    assert _messages.reason("deploy", FINE, bad_) == "deploy failed on 1 host: a: locking: no"
    # What comes after a switch was not reached.
    assert _messages.reason("deploy", {**bad_, "failures": []}, bad_) == ""
    assert _messages.reason("deploy", {**FINE, "lost": ["b", "c"]}, FINE) == "went on without b c"


def test_what_is_about_to_be_deployed():
    empty = info(blue=None, green=None, target="blue")
    assert _messages.deploy_lines({"a": empty}, {}) == ["a: live blue nothing -> deploying the artifact to blue"]
    assert _messages.deploy_lines({"a": info()}, {"a": B}) == [f"a: live blue {A} env 1111 -> deploying {B} to green"]
    again = info(wanted={"env": E1, "env_changes": None}, target="blue")
    assert _messages.deploy_lines({"a": again}, {"a": A}) == [
        f"a: live blue {A} env 1111 -> deploying {A} env 1111 to blue"
    ]


def test_what_is_about_to_be_switched():
    plan = _plans.switch_plan({"a": info(blue=None)}, "green")
    assert _messages.switch_lines({"a": info(blue=None)}, plan) == [f"a: live blue nothing -> green {B} env 1111"]
    plan = _plans.switch_plan({"a": info()}, "blue")
    assert _messages.switch_lines({"a": info()}, plan) == [f"a: blue {A} env 1111 is already live"]
    # Another environment goes into the slot only now: what is there says nothing of it.
    there = without({}, green={"env_changes": {"added": ["X"], "removed": [], "changed": []}})
    plan = _plans.switch_plan({"a": there}, None, {"a": {"color": "green", "release": B, "env": E2}})
    assert _messages.switch_lines({"a": there}, plan) == [f"a: live blue {A} env 1111 -> green {B} env 2222"]


def test_what_a_migration_is_said_to_have_done():
    def says(**result):
        return _messages.migration_lines(
            {"a": {"output": [], "migrated": None, "changed": True, **result}}, "M.migrate()"
        )

    assert says(release=A) == [f"a: would migrate with {A}: M.migrate()"]
    assert says(output=["x"], release=A) == ["  x", "a: M.migrate() has run, and does not tell which migrations did"]
    assert says(changed=False) == ["a: M.migrate() has run, and does not tell which migrations did"]
    assert says(migrated=[]) == ["a: no migration was pending"]
    assert says(migrated=["1"], output=["x"]) == ["  x", "a: 1 migration ran: 1"]
    assert says(migrated=["1", "2"]) == ["a: 2 migrations ran: 1, 2"]


def test_the_table_to_the_letter():
    down = {"running": False, "healthy": False}
    sick = without({}, blue={"healthy": False, "health": "503", "process_release": None}, green=down)
    sick["disagreements"] = _slots.disagreements(sick)
    fresh = info(blue=None, green=None, link=None, deployment_id=None)
    fresh["facts"]["live"] = None
    lines = _messages.status_lines({"web1": sick, "b": {"skipped": True}, "c": fresh})
    assert lines == [
        "HOST  FACTS  LINK  /deployment_id  PROCESS          BLUE                                    GREEN",
        f"web1  blue   blue  blue            unknown release  {A} env 1111 live unhealthy  {B} env 1111 idle stopped",
        "b     ?      ?     ?               ?                ?                                       ?",
        "c     -      -     -               -                empty                                   empty",
        "web1: blue: running but not healthy (503)",
        "b: was not asked",
        "c: is not set up. Run deploy.yml.",
    ]
    back = without({"live": "green", "idle": "blue"}, green={"rolled_back": True}, blue={"rolled_back": True})
    cells = _messages.status_lines({"a": back})[1]
    assert f"{A} env 1111 idle rolled-back healthy" in cells and f"{B} env 1111 live healthy" in cells
    # The process is that of the live slot.
    assert _messages.status_lines({"a": info()})[1].split()[4] == A


def test_what_there_is_to_say_of_a_host():
    assert _messages.remarks({"msg": "no\nmore"}) == ["no"] and _messages.remarks({"skipped": True}) == [
        "was not asked"
    ]
    assert _messages.remarks(info()) == []
    locked = {"holder": "ann@laptop", "operation": "deploy", "since": "t1"}
    found = info(canary=10, maintenance=True, lock=locked, notes=["not there yet"])
    assert _messages.remarks(found) == [
        "canary: 10 % of the visitors get green",
        "closed for maintenance. To open it: maintenance.yml -e state=off",
        "locked by ann@laptop for deploy since t1",
    ]


def test_what_is_worth_knowing_is_no_doubt():
    lines = _messages.status_lines({"web1": info(notes=["port 4000 is open"])})
    assert lines[-2:] == ["web1: port 4000 is open", "consistent: facts, symlink, nginx and processes agree"]
    assert not _messages.in_doubt({"web1": info(notes=["port 4000 is open"])})


def test_a_group_of_more_than_one_release():
    assert (
        _messages.drift({"a": info(), "b": info()}) == [] and _messages.drift({"a": info(), "b": {"msg": "no"}}) == []
    )
    assert _messages.drift({"a": info(), "b": info(blue=None)}) == []
    several = {"a": info(), "b": info(blue=C), "c": info()}
    assert _messages.drift(several) == [
        f"the group serves 2 releases ({A}: a, c; {C}: b). To make it one: deploy.yml -e bluegreen_promote=true, "
        "or, for a host that is behind, join.yml -l HOST"
    ]
    assert (
        _messages.in_doubt(several)
        and _messages.in_doubt({"a": info(link=None)})
        and _messages.in_doubt({"a": {"msg": "no"}})
    )
    assert _messages.status_lines(several)[-1] == _messages.drift(several)[0]


def test_which_commands_can_follow():
    assert _messages.next_lines({}) == [] and _messages.next_lines({"a": {"msg": "no"}}) == []
    both = {"a": info(), "b": info("green", blue=B, green=A)}
    both["b"]["slots"]["blue"]["promoted_at"] = None
    assert _messages.next_lines(both) == [f"to make {B} env 1111 live: promote.yml"]
    others = {"a": info(), "b": info(green=C)}
    assert _messages.next_lines(others) == [f"to make {B} and {C} live: promote.yml -e color=green"]
    # Not while one of them has nothing that waits, or is not ready.
    assert _messages.next_lines({"a": info(), "b": info(green=None)}) == []
    assert _messages.next_lines({"a": without({}, green={"healthy": False})}) == []
    assert _messages.next_lines({"a": info(rolled_back=[bad(B)])}) == []


def test_the_history_to_the_letter():
    first = {"at": "t1", "operation": "deploy", "result": "failed", "seconds": 3, "who": "ann", "why": "no room"}
    first.update({"from": None, "to": {"color": "blue", "release": None}})
    second = {"at": "t2", "operation": "promote", "result": "ok", "seconds": None, "who": "bob"}
    second["from"] = second["to"] = {"color": "blue", "release": A, "env": E1}
    infos = {"b": info(history=[second]), "a": info(history=[first]), "c": info()}
    assert _messages.history_lines(infos) == [
        "t1  a  deploy  failed  3 s  ann  live - nothing -> blue nothing  (no room)",
        f"t2  b  promote  ok  None s  bob  live blue {A} env 1111",
    ]


def test_every_host_has_its_say():
    """One that cannot, or need not, does not end what is to be said of the others."""
    again = info(wanted={"env": E1, "env_changes": None})
    assert len(_messages.deploy_lines({"a": again, "b": info()}, {"a": A, "b": A})) == 2
    # Two entries of one second on one host stay in their order.
    entry = {"at": "t", "operation": "stop", "result": "ok", "seconds": 1, "who": "ann", "from": None, "to": None}
    both = _messages.history_lines({"a": info(history=[entry, {**entry, "operation": "deploy"}])})
    assert [line.split()[2] for line in both] == ["stop", "deploy"]
    ran = {"output": ["x"], "migrated": ["1"], "changed": True}
    assert _messages.migration_lines({"a": ran, "b": ran}, "m") == [
        "  x",
        "a: 1 migration ran: 1",
        "  x",
        "b: 1 migration ran: 1",
    ]


def test_a_reason_in_the_history_is_a_line_that_one_can_read():
    assert _messages.shortened("short") == "short"
    long = _messages.shortened("deploy failed on 1 host: " + "x" * 1000)
    assert len(long) == 160 and long.endswith("x…")


def test_logs_of_a_group_are_one_log():
    def entry(at, color, text):
        return {"at": at, "color": color, "text": text}

    good = {"ok": True, "left_out": 0, "entries": [entry(1.5, "blue", "b"), entry(3.25, "green", "d")]}
    more = {"ok": True, "left_out": 7, "entries": [entry(0, "blue", "a"), entry(2, "blue", "c")]}
    lines = _messages.log_lines({"web1": good, "web2": more, "web3": {"unreachable": True, "msg": "no route\nto host"}})
    assert lines[:4] == [
        "1970-01-01T00:00:00.000Z  web2  blue  a",
        "1970-01-01T00:00:01.500Z  web1  blue  b",
        "1970-01-01T00:00:02.000Z  web2  blue  c",
        "1970-01-01T00:00:03.250Z  web1  green  d",
    ]
    assert lines[4].startswith("web2: 7 older lines are left out.") and lines[5] == "web3: unreachable: no route"
    assert _messages.log_lines({"web1": {**good, "entries": []}})[0].startswith("nothing was logged")


def test_environments_side_by_side():
    names = {"blue": {"A": "1", "B": "2", "OLD": "3"}, "green": {"A": "1", "B": "9", "NEWER": "4"}}
    table = ["  A      same", "  B      differs", "  NEWER  only in green", "  OLD    only in blue"]
    infos = {"a": info(env_names=names), "b": info(env_names=names), "c": {"unreachable": True, "msg": "gone"}}
    assert _messages.env_lines(infos) == ["a, b: blue live and green idle", *table, "c: unreachable: gone"]
    alone = info(green=None, env_names={"blue": {"A": "1"}, "green": {}})
    assert _messages.env_lines({"a": alone}) == ["a: blue live", "  A"]
    empty = info(blue=None, green=None, env_names={"blue": {}, "green": {}})
    assert _messages.env_lines({"a": empty}) == ["a: no slot holds anything"]


def test_workers_in_the_table():
    worker = info(web=False, deployment_id=None)
    lines = _messages.status_lines({"a": info(), "b": worker})
    assert lines[2].split()[:4] == ["b", "blue", "blue", "worker"] and lines[-1].startswith("consistent")
    said = "every host is a worker (bluegreen_web: false), so nobody serves visitors"
    assert said not in lines and said in _messages.status_lines({"b": worker})
    assert said not in _messages.status_lines({"b": {"unreachable": True, "msg": "gone"}})


def test_what_is_pending_comes_before_a_promote():
    behind = info()
    behind["slots"]["green"]["pending_migrations"] = ["2_add_price"]
    lines = _messages.next_lines({"a": behind, "b": info()})
    assert lines == ["to run what is pending (2_add_price): migrate.yml -e color=green"]
    assert "1 pending" in _messages.status_lines({"a": behind})[1]
    told = {"pending": ["1", "2"]}
    assert _messages.pending_lines({"a": {"migrations": told}, "b": {"skipped": True}}) == [
        "a: 2 migrations pending: 1, 2"
    ]
    unknown = _messages.pending_lines({"a": {"unknown": "it raised:\nno repo"}})
    assert unknown == ["a: nobody knows which migrations are pending: it raised:", "  no repo"]
    assert _messages.pending_lines({"a": {"unknown": ""}}) == []
