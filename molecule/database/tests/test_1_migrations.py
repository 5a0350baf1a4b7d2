# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An app with the habits of a generated Phoenix app goes through its versions, with a real PostgreSQL and migrations."""

from __future__ import annotations

import json
import re
import threading

import pytest
from support.bluegreen import Client, Site, artifact

ROOT = "/opt/shop"
FIRST, SECOND = "20260101000000", "20260201000000"
PASSWORD = "pa55word-of-the-shop"
DATABASE = f"ecto://shop:{PASSWORD}@127.0.0.1:5432/shop"
SHOP = {
    "bluegreen_app": "shop",
    "bluegreen_domain": "shop.test",
    "bluegreen_health_path": "/health",
    "bluegreen_ports": {"blue": 6300, "green": 7300},
    "bluegreen_env": {"SECRET_KEY_BASE": "secret-key-base-of-the-shop", "DATABASE_URL": DATABASE},
}
MIGRATE = {"bluegreen_migrate": True}


def shop(version, **env):
    """Variables of a deploy of this version, with more in its environment."""
    return {
        **SHOP,
        "bluegreen_artifact": artifact(f"shop-{version}"),
        "bluegreen_env": {**SHOP["bluegreen_env"], **env},
    }


def sql(host, statement):
    return host.check_output(f"sudo -u postgres psql -qAt -d shop -c '{statement}'")


def schema(host):
    """Everything that a migration changes."""
    return host.check_output("sudo -u postgres pg_dump shop | grep -v '^.restrict\\|^.unrestrict'")


@pytest.fixture(scope="module", autouse=True)
def database(host):
    """PostgreSQL on the host, with an empty database of the shop; nothing of the shop itself, whatever ran before."""
    host.check_output(
        "sudo sh -c 'systemctl disable --now shop@blue shop@green; rm -rf /opt/shop /etc/ansible/facts.d/shop.fact "
        "/etc/nginx/conf.d/shop.conf; systemctl reload nginx; true' 2>&1"
    )
    host.check_output(
        'sudo sh -c \'echo "password_encryption = md5" >/etc/postgresql/15/main/conf.d/md5.conf; '
        "sed -i s/scram-sha-256/md5/ /etc/postgresql/15/main/pg_hba.conf; systemctl restart postgresql'"
    )
    host.check_output(
        "cd / && sudo -u postgres psql -q -c 'drop database if exists shop' -c 'drop role if exists shop' "
        f"-c \"create role shop login password '{PASSWORD}'\" -c 'create database shop owner shop'"
    )


@pytest.fixture
def site():
    return Site(18480, "shop.test")


@pytest.fixture
def two_versions(host, play):
    """0.1.0 is live and 0.1.1 beside it, with their migrations, also where a test runs without those before it."""
    if not host.file(f"{ROOT}/slots/green/release").exists:
        for version in ("0.1.0", "0.1.1"):
            play("deploy", shop(version), MIGRATE)


def test_a_release_that_misses_what_runtime_exs_wants(host, play):
    """It is the message of the app that a person needs, not a stack of ours."""
    run = play("deploy", {**SHOP, "bluegreen_artifact": artifact("shop-0.1.0"), "bluegreen_env": {}}, rc=2)
    assert "environment variable DATABASE_URL is missing" in run.text
    assert host.check_output(f"ls {ROOT}/slots/blue") == "is-blue"


def test_the_first_deploy_migrates(host, play, site):
    run = play("deploy", shop("0.1.0"), MIGRATE)
    assert f"bluegreen-database1: 1 migration ran: {FIRST}" in run.says() and f"1 migration ran: {FIRST}" in run.lines()
    assert sql(host, "select version from schema_migrations") == FIRST
    assert site.get("/items").text == "1 tea\n" and site.color() == "blue"


def test_nothing_pending_is_said_and_changes_nothing(play):
    run = play("deploy", shop("0.1.0"), MIGRATE)
    assert "no migration was pending" in run.says() and run.changed() == 0


def test_check_mode_says_that_it_would_migrate(host, play):
    before = schema(host)
    run = play("deploy", shop("0.1.1"), MIGRATE, "--check")
    assert "would migrate with 0.1.1-" in run.says() and "Shop.Release.migrate()" in run.says()
    assert schema(host) == before


def test_without_migrations_the_health_is_green_and_the_pages_are_not(host, play, site, tmp_path):
    """Why the database is looked at by itself: the health of the new release knows nothing of its schema."""
    hook = tmp_path / "hook.yml"
    hook.write_text("- name: A hook where a deploy would migrate\n  ansible.builtin.meta: noop\n")
    run = play("deploy", {**shop("0.1.1"), "bluegreen_hooks": {"before_start": [str(hook)]}})
    assert f"bluegreen-database1: 1 migration pending: {SECOND}_add_price" in run.says()
    assert host.check_output("curl -s -o /dev/null -w '%{http_code}' localhost:7300/health") == "200"
    assert host.check_output("curl -s localhost:7300/items") == 'PostgreSQL says: column "price" does not exist'
    assert site.get("/items").text == "1 tea\n"


PENDING = (
    f"has migrations that have not run: {SECOND}_add_price. Run them: migrate.yml -e color=green. "
    "If it works without them: -e bluegreen_force=true"
)


def test_no_visitor_gets_a_release_whose_migrations_are_pending(play, site, tmp_path):
    """Neither by a promote nor by a canary, unless somebody says that it works without them."""
    before = site.pid()
    for name, goal in (("promote", SHOP), ("canary", {**SHOP, "percent": 10}), ("deploy", shop("0.1.1"))):
        more = {"bluegreen_promote": True} if name == "deploy" else {}
        run = play(name, {**goal, **more}, rc=2)
        assert PENDING in run.says(), run.text[-2000:]
        assert site.color() == "blue" and site.pid() == before
    out = tmp_path / "status.json"
    status = play("status", {**SHOP, "format": "json", "out": str(out)})
    assert "idle 1 pending healthy" in status.says()
    assert f"to run what is pending ({SECOND}_add_price): migrate.yml -e color=green" in status.says()
    slots = json.loads(out.read_text())["hosts"]["bluegreen-database1"]["slots"]
    assert slots["green"]["pending_migrations"] == [f"{SECOND}_add_price"] and not slots["blue"]["pending_migrations"]
    force = {**SHOP, "bluegreen_force": True}
    play("canary", {**force, "percent": 10})
    play("canary", {**SHOP, "percent": 0})
    play("promote", force)
    assert site.color() == "green"
    play("rollback", SHOP)
    # Rolled back from, so it needs to be named; and what was pending is so still.
    assert PENDING in play("promote", {**SHOP, "color": "green"}, rc=2).says()


def test_what_somebody_else_has_migrated_is_not_pending(host, play, site):
    """The answer from the deploy is old: a promote asks again."""
    column = "alter table items add column price integer not null default 3"
    sql(host, f"{column}; insert into schema_migrations values ({SECOND}, now())")
    play("promote", {**SHOP, "color": "green"})
    assert site.get("/items").text == "1 tea 3\n"
    assert " pending " not in play("status", SHOP).says()
    play("rollback", {**SHOP, "bluegreen_force": True})
    sql(host, f"alter table items drop column price; delete from schema_migrations where version = {SECOND}")
    play("deploy", {**shop("0.1.1"), "bluegreen_force": True})


BACKUP = 'pg_dump -d "postgresql${DATABASE_URL#ecto}" -f "$HOME/before.sql" && echo saved && echo "$HOME/before.sql"'


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("echo no room is left for the backup; exit 3", ("exited with status 3, so nothing was migrated", "no room")),
        ("echo dumping; sleep 300", ("did not finish within 4 s and was killed", "dumping")),
        pytest.param("nowhere-to-be-found", ("exited with status 127", "not found"), marks=pytest.mark.long),
        ('echo "$DATABASE_URL"; exit 1', ("<DATABASE_URL>",)),
    ],
)
def test_without_a_backup_nothing_migrates(host, play, site, command, words):
    goal = {"bluegreen_backup_command": command, "bluegreen_migrate_timeout": 4}
    run = fails(host, play, site, {}, *words, **goal)
    assert PASSWORD not in run.text and "migration ran" not in run.text


def test_a_database_that_is_behind_is_migrated_though_the_slot_holds_the_release_already(host, play):
    run = play("deploy", {**shop("0.1.1"), "bluegreen_backup_command": BACKUP, "bluegreen_force": True}, MIGRATE)
    # The migration, and the note of it that a rollback asks.
    assert f"1 migration ran: {SECOND}" in run.says() and run.changed() == 2
    backup = f"{ROOT}/state/green/before.sql"
    assert f"the backup from before it: {backup}" in run.says() and " 1 pending " not in run.says()
    # Run once, from before the migration, as the app.
    assert (
        "price" not in host.check_output(f"sudo cat {backup}")
        and host.check_output(f"sudo stat -c %U {backup}") == "shop"
    )
    history = json.loads(host.check_output(f"tail -n1 {ROOT}/history.jsonl"))
    assert history["backup"] == backup
    assert sql(host, "select max(version) from schema_migrations") == SECOND
    assert host.check_output("curl -s localhost:7300/items") == "1 tea 3"


def test_promote_and_rollback_of_the_two_versions(host, play, site):
    with Client(site) as client:
        play("promote", SHOP)
        assert site.get("/items").text == "1 tea 3\n" and site.color() == "green"
        run = play("rollback", SHOP, rc=2)
        assert "migrations have run since" in run.says() and f"was live: {SECOND}_add_price." in run.says()
        assert f"The backup from before them: {ROOT}/state/green/before.sql" in run.says()
        assert site.color() == "green"
        play("rollback", {**SHOP, "bluegreen_force": True})
    assert client.failed == [] and site.color() == "blue"
    assert site.get("/items").text == "1 tea\n"


def test_a_backup_is_made_only_for_a_migration(host, play):
    host.check_output(f"sudo rm {ROOT}/state/green/before.sql")
    goal = {**shop("0.1.1"), "bluegreen_backup_command": BACKUP, "bluegreen_force": True}
    assert "no migration was pending" in play("deploy", goal, MIGRATE).says()
    assert host.run(f"sudo test -e {ROOT}/state/green/before.sql").rc == 1


@pytest.mark.long
def test_a_release_that_cannot_be_asked_is_deployed_all_the_same(play):
    """It is our question, and not one that the user has asked for."""
    run = play("deploy", {**shop("0.1.1", SAMPLE_NO_REPO="1"), "bluegreen_force": True})
    assert (
        "nobody knows which migrations are pending: migrations in" in run.says()
        and "told to have no repo" in run.says()
    )
    play("deploy", {**shop("0.1.1"), "bluegreen_force": True})


@pytest.mark.long
def test_an_app_that_is_not_to_be_asked(play):
    goal = {**shop("0.1.1", SAMPLE_NO_REPO="1"), "bluegreen_migrations_command": "", "bluegreen_force": True}
    assert "migrations" not in play("deploy", goal).says()
    play("deploy", {**shop("0.1.1"), "bluegreen_force": True})


def fails(host, play, site, env, *words, **variables):
    """A deploy whose migration fails: the slots, the site and the database are as they were."""
    before, slots = schema(host), host.check_output(f"readlink {ROOT}/slots/*/release; cat {ROOT}/slots/*/is-*")
    pid = site.pid()
    with Client(site) as client:
        goal = {**shop("0.1.1", **env), "bluegreen_force": True, **variables}
        run = play("deploy", goal, MIGRATE, rc=2, verbose="-vv")
    for word in words:
        assert word in run.says(), run.text[-3000:]
    assert client.failed == [] and site.pid() == pid
    assert host.check_output(f"readlink {ROOT}/slots/*/release; cat {ROOT}/slots/*/is-*") == slots
    assert schema(host) == before and not host.file(f"{ROOT}/lock").exists
    return run


def test_a_migration_that_raises_shows_what_the_database_says(host, play, site):
    fails(
        host,
        play,
        site,
        {"SAMPLE_MIGRATION": "alter table nowhere add column x int"},
        "migrating: migrate in green",
        'PostgreSQL says: relation "nowhere" does not exist',
    )


def test_a_migration_that_hangs_is_ended_and_tells_what_it_said_so_far(host, play, site):
    fails(
        host,
        play,
        site,
        {"SAMPLE_MIGRATION": "select pg_sleep(300)"},
        "did not finish within 4 s and was killed",
        "== Running 20260301000000",
        bluegreen_migrate_timeout=4,
    )
    # Nothing of it is left that could still hold a lock in the database once it notices.
    assert host.run("pgrep -u shop -f 'Shop.Release.migrate'").stdout == ""


def test_a_migration_that_waits_for_a_lock_of_the_live_slot(host, play, site):
    host.check_output(
        "sudo systemd-run --unit=holds-lock --quiet --uid=postgres psql -d shop -c 'begin; lock table items; select pg_sleep(60)'"
        "; sleep 1"
    )
    try:
        pending = {"SAMPLE_MIGRATION": "alter table items add column x int"}
        # Its health asks no table; only whoever wants the table waits.
        goal = {**shop("0.1.1", **pending), "bluegreen_force": True, "bluegreen_migrate_timeout": 4}
        run = play("deploy", goal, MIGRATE, rc=2)
        assert "did not finish within 4 s" in run.says() and "== Running 20260301000000" in run.says()
    finally:
        host.check_output("sudo systemctl stop holds-lock; sleep 1")
    assert sql(host, "select max(version) from schema_migrations") == SECOND


@pytest.mark.long
@pytest.mark.parametrize(
    ("url", "word"),
    [
        (DATABASE.replace(PASSWORD, "wr0ng-pa55word"), "password authentication failed for user"),
        (DATABASE.replace("5432", "5499"), "econnrefused"),
    ],
)
def test_a_database_that_does_not_let_us_in(host, play, site, url, word):
    run = fails(host, play, site, {"DATABASE_URL": url}, word)
    # The app is careless, and tells the password.
    assert "wr0ng-pa55word" not in run.text.replace(json.dumps(url)[1:-1], "") and PASSWORD not in run.text.replace(
        url, ""
    )


def test_what_a_health_check_says_in_its_body_is_shown_without_secrets(host, play, site):
    url = DATABASE.replace(PASSWORD, "wr0ng-pa55word")
    pid = site.pid()
    goal = {**shop("0.1.1", DATABASE_URL=url), "bluegreen_force": True, "bluegreen_health_timeout": 6}
    run = play("deploy", goal, rc=2)
    assert "was not healthy within 6 s: GET /health on port 7300: 503" in run.says()
    assert "no connection to the database for shop:<DATABASE_URL>: password authentication failed" in run.says()
    assert "wr0ng-pa55word" not in run.text and site.pid() == pid


def test_two_that_want_to_migrate(host, play):
    """The second meets the lock of the first; and migrating twice would be harmless."""
    runs = []
    goal = {**shop("0.1.1", SAMPLE_MIGRATION="select pg_sleep(5)"), "bluegreen_force": True}
    both = [threading.Thread(target=lambda: runs.append(play("deploy", goal, MIGRATE, rc=any))) for _number in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert sorted(run.rc for run in runs) == [0, 2]
    assert "the lock is held by" in "".join(run.text for run in runs if run.rc == 2)
    assert sql(host, "select count(*) from schema_migrations") == "3"
    sql(host, "delete from schema_migrations where version > 20260300000000")


def test_migrate_by_itself_says_what_ran(host, play, two_versions):
    sql(host, "delete from schema_migrations where version > 20260200000000; alter table items drop column price")
    play("deploy", {**shop("0.1.1"), "bluegreen_force": True})
    assert " 1 pending" in play("status", SHOP).text
    assert f"1 migration ran: {SECOND}" in play("migrate", {**SHOP, "color": "green"}).says()
    assert " pending" not in play("status", SHOP).text
    run = play("migrate", {**SHOP, "color": "green"})
    assert "no migration was pending" in run.says() and run.changed() == 0


def test_a_command_that_does_not_tell(play):
    other = {"bluegreen_migrate_command": 'IO.puts("by another command")', "bluegreen_force": True}
    run = play("deploy", {**shop("0.1.1"), **other}, MIGRATE)
    assert "by another command" in run.says() and "does not tell which migrations did" in run.says()


def test_what_comes_along_with_a_generated_release(host, play):
    """env.sh, overlays, and an Origin that has to match."""
    assert host.file(f"{ROOT}/slots/green/release/bin/migrate").mode == 0o555
    tell = {"expr": 'IO.puts(System.get_env("SHOP_ENV_SH"))', "color": "green"}
    assert "read for start" in play("rpc", {**SHOP, **tell}).text
    ask = "curl -s -o /dev/null -w '%{http_code}' -m 2 localhost:7300/ws -H 'Sec-WebSocket-Key: x' -H 'Upgrade: websocket' -H 'Origin: %s'"
    assert host.run(ask.replace("%s", "https://evil.test")).stdout == "403"
    assert host.run(ask.replace("%s", "https://shop.test")).stdout == "101"


def test_a_slot_of_a_shop_that_is_taken_off_leaves_its_database(host, play):
    play("stop", {**SHOP, "color": "green"})
    assert "consistent:" in play("status", {**SHOP, "strict": True}).text


@pytest.mark.long
def test_an_expression_of_ones_own_that_tells_what_has_run(host, play, site):
    """It says what has run and not what is pending, so only a rollback is refused."""
    own = {"bluegreen_migrations_command": "Shop.Release.migrations()", "bluegreen_force": True}
    sql(host, f"alter table items drop column price; delete from schema_migrations where version = {SECOND}")
    play("deploy", {**shop("0.1.0", POOL_SIZE="2"), **own, "bluegreen_promote": True})
    assert " 1 pending " not in play("deploy", {**shop("0.1.1"), **own}).says()
    play("migrate", {**SHOP, **own, "color": "green" if site.color() == "blue" else "blue"})
    play("promote", SHOP)
    assert f"was live: {SECOND}." in play("rollback", SHOP, rc=2).says()
    play("rollback", {**SHOP, "bluegreen_force": True})


# --- rehearsals ------------------------------------------------------------------------------------------------------------

REHEARSE = {**MIGRATE, "bluegreen_rehearse": True, "bluegreen_smoke": [{"path": "/items"}], "bluegreen_force": True}
RENAME = "alter table items rename column name to title"


def databases(host):
    return host.check_output("sudo -u postgres psql -qAt -c 'select datname from pg_database order by 1'").split()


@pytest.fixture
def may_create(host, two_versions):
    host.check_output("cd / && sudo -u postgres psql -q -c 'alter role shop createdb'")
    yield
    host.check_output("cd / && sudo -u postgres psql -q -c 'alter role shop nocreatedb'")


def nothing_is_left(host):
    assert [name for name in databases(host) if "rehearsal" in name] == []
    assert host.run(f"ls {ROOT}/rehearsal").rc != 0
    assert host.run("pgrep -f /opt/shop/rehearsal").rc != 0


def test_a_rehearsal_that_goes_well_leaves_nothing(host, play, site, may_create):
    live = site.pid()
    harmless = "create table extras (id integer)"
    with Client(site) as client:
        run = play("deploy", shop("0.1.1", SAMPLE_MIGRATION=harmless), REHEARSE)
    said = run.says()
    assert re.search(
        r"bluegreen-database1: rehearsed in [0-9.]+ s: 0\.1\.\S+ and 0\.1\.1-\S+ work with a migrated copy", said
    ), said[-3000:]
    assert "1 migration ran: 20260301000000" in said and client.failed == [] and site.pid() == live
    nothing_is_left(host)
    sql(host, "drop table extras; delete from schema_migrations where version = 20260301000000")


def test_a_migration_that_what_is_live_does_not_survive(host, play, site, may_create):
    before, live = schema(host), site.get("/items").text
    with Client(site) as client:
        run = play("deploy", shop("0.1.1", SAMPLE_MIGRATION=RENAME), REHEARSE, rc=2)
    said = run.says()
    assert "rehearsing the migration: 0.1." in said
    assert "which is live, does not work with a migrated copy of the database: GET /items: 500" in said
    assert 'column "name" does not exist' in said and PASSWORD not in run.text
    # The real one has not changed, and nobody has noticed.
    assert schema(host) == before and site.get("/items").text == live and client.failed == []
    nothing_is_left(host)
    assert play("status", SHOP).rc == 0


@pytest.mark.long
def test_a_rehearsal_that_cannot_be(host, play, may_create):
    before = schema(host)
    goal = shop("0.1.1", SAMPLE_MIGRATION="select pg_sleep(300)")
    run = play("deploy", goal, {**REHEARSE, "bluegreen_migrate_timeout": 15}, rc=2)
    assert "rehearsing the migration:" in run.says() and "did not finish within 15 s" in run.says()
    nothing_is_left(host)
    broken = shop("0.1.1", SAMPLE_MIGRATION="select 1", SAMPLE_UNHEALTHY="1")
    run = play("deploy", broken, {**REHEARSE, "bluegreen_health_timeout": 5}, rc=2)
    assert (
        "which is new, does not work with a migrated copy of the database: it was not healthy within 5 s" in run.says()
    )
    nothing_is_left(host)
    host.check_output("cd / && sudo -u postgres psql -q -c 'alter role shop nocreatedb'")
    run = play("deploy", goal, REHEARSE, rc=2)
    assert (
        "creating the copy of the database failed. The rehearsal needs a role that may create one: ALTER ROLE shop CREATEDB"
        in run.says()
    )
    assert "permission denied to create database" in run.says()
    assert schema(host) == before
    nothing_is_left(host)
    play("deploy", shop("0.1.1"), {"bluegreen_rehearse": True}, rc=2).says("bluegreen_rehearse needs bluegreen_migrate")


@pytest.mark.long
def test_a_copy_of_ones_own(host, play):
    """Another database, which somebody else makes; here one that is there already."""
    host.check_output("cd / && sudo -u postgres psql -q -c 'create database other owner shop'")
    try:
        copy = f"ecto://shop:{PASSWORD}@127.0.0.1:5432/other"
        script = f'echo "$1" >>"$HOME/called"; [ "$1" = drop ] || echo DATABASE_URL={copy}; #'
        goal = {**REHEARSE, "bluegreen_rehearsal_command": script}
        run = play("deploy", shop("0.1.1", SAMPLE_MIGRATION="select 1"), goal)
        assert "work with a migrated copy of the database" in run.says() and PASSWORD not in run.text
        ran = host.check_output("sudo -u postgres psql -qAt -d other -c 'select version from schema_migrations'")
        assert ran.split() == [FIRST, SECOND, "20260301000000"]
        assert host.check_output(f"sudo sh -c 'cat {ROOT}/state/*/called'").split() == ["copy", "drop"]
    finally:
        host.check_output("cd / && sudo -u postgres psql -q -c 'drop database other'")
    run = play(
        "deploy", shop("0.1.1", SAMPLE_MIGRATION="select 1"), {**goal, "bluegreen_rehearsal_command": "true"}, rc=2
    )
    assert "printed no NAME=VALUE that changes a variable of the app" in run.says()
