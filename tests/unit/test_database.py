# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import sqlite3
import subprocess

import pytest
from ansible_collections.beamops.bluegreen.plugins.module_utils import _database
from ansible_collections.beamops.bluegreen.plugins.module_utils._errors import Failure


@pytest.mark.parametrize(
    ("url", "name", "env", "copy"),
    [
        (
            "ecto://shop:p%40ss@db.example.com:5433/shop?pool_size=5",
            "shop",
            {"PGHOST": "db.example.com", "PGPORT": "5433", "PGUSER": "shop", "PGPASSWORD": "p@ss"},
            "ecto://shop:p%40ss@db.example.com:5433/shop_shop_rehearsal?pool_size=5",
        ),
        (
            "postgres://db/shop?ssl=true",
            "shop",
            {"PGHOST": "db", "PGSSLMODE": "require"},
            "postgres://db/shop_shop_rehearsal?ssl=true",
        ),
        (
            "postgresql://me@localhost/my%20shop?socket_dir=/run/postgresql",
            "my shop",
            {"PGHOST": "/run/postgresql", "PGUSER": "me"},
            "postgresql://me@localhost/my%20shop_shop_rehearsal?socket_dir=/run/postgresql",
        ),
    ],
)
def test_which_database_it_is(url, name, env, copy):
    found = _database.postgres(url, "shop")
    assert (found.name, found.env, found.copy_url()) == (name, env, copy)


def test_a_name_that_is_too_long_for_more():
    found = _database.postgres("ecto://db/" + "x" * 63, "shop")
    assert found.copy_name == "x" * 48 + "_shop_rehearsal" and len(found.copy_name) == 63
    assert _database.quoted_name('a"b') == '"a""b"'


@pytest.mark.parametrize(
    "url", ["mysql://u:secret@h/d", "ecto://u:secret@h", "ecto://u:secret@h:port/d", "secret", "ecto://[secret/d"]
)
def test_what_is_no_postgresql_is_refused_without_its_password(url):
    with pytest.raises(Failure, match="DATABASE_URL") as error:
        _database.postgres(url, "shop")
    assert "secret" not in str(error.value)


class Fake:
    """Notes what is run, and answers."""

    def __init__(self, *answers):
        self.ran, self.answers = [], list(answers)

    def __call__(self, words, env):
        self.ran.append((words, dict(env)))
        return self.answers.pop(0) if self.answers else (0, "")


URL = "ecto://shop:secret@db/shop"


def copy_of(env, command, run, folder="/none"):
    return _database.Copy("shop", env, command, folder, folder, run, lambda text: text.replace("secret", "<x>"))


def test_postgresql_is_copied_and_dropped_without_a_password_in_sight():
    run = Fake()
    copy = copy_of({"DATABASE_URL": URL}, "auto", run)
    assert copy.make() == {"DATABASE_URL": "ecto://shop:secret@db/shop_shop_rehearsal"}
    copy.drop()
    look, create, mark, dump, end, drop = [words for words, _env in run.ran]
    assert "shobj_description" in look[-1] and create[-1] == 'CREATE DATABASE "shop_shop_rehearsal" TEMPLATE template0'
    assert mark[-1].endswith("IS 'beamops.bluegreen: rehearsal of shop'") and dump[-2:] == [
        "shop",
        "shop_shop_rehearsal",
    ]
    assert end[-1].endswith("datname = 'shop_shop_rehearsal' AND usename = current_user")
    assert drop[-1] == 'DROP DATABASE IF EXISTS "shop_shop_rehearsal"'
    assert all(env["PGPASSWORD"] == "secret" and "secret" not in str(words) for words, env in run.ran)


def test_what_is_there_already():
    """One that is left over goes; one of somebody else stays."""
    run = Fake((0, "beamops.bluegreen: rehearsal of shop\n"))
    copy_of({"DATABASE_URL": URL}, "auto", run).make()
    assert [words[-1].split()[0] for words, _env in run.ran[:4]] == ["SELECT", "SELECT", "DROP", "CREATE"]
    for theirs in ("\n", "beamops.bluegreen: rehearsal of other\n"):
        run = Fake((0, theirs))
        copy = copy_of({"DATABASE_URL": URL}, "auto", run)
        with pytest.raises(Failure, match="there is a database shop_shop_rehearsal that no rehearsal has made"):
            copy.make()
        copy.drop()
        assert len(run.ran) == 1


@pytest.mark.parametrize(
    ("env", "said"),
    [
        (
            {"DATABASE_URL": URL, "ANALYTICS_URL": "postgres://a/b"},
            "ANALYTICS_URL is a database, too, beside DATABASE_URL",
        ),
        ({"DATABASE_URL": URL, "DATABASE_PATH": "/a.db"}, "DATABASE_PATH is a database, too, beside DATABASE_URL"),
        ({"DATABASE_PATH": "/a.db", "OTHER": "ecto://a/b"}, "OTHER is a database, too, beside DATABASE_PATH"),
    ],
)
def test_a_second_database_would_be_the_real_one(env, said):
    run = Fake()
    with pytest.raises(Failure, match=said):
        copy_of(env, "auto", run).make()
    assert run.ran == []


@pytest.mark.parametrize(
    ("failing", "said"),
    [
        (0, "looking for a copy of the database failed. The rehearsal needs psql and pg_dump"),
        (
            1,
            "creating the copy of the database failed. The rehearsal needs a role that may create one: ALTER ROLE shop CREATEDB:",
        ),
        (3, "copying the database with pg_dump failed"),
    ],
)
def test_what_fails_is_said(failing, said):
    run = Fake(*([(0, "")] * failing), (1, "no secret\n\nway\n"))
    with pytest.raises(Failure) as error:
        copy_of({"DATABASE_URL": URL}, "auto", run).make()
    assert str(error.value).startswith(said) and str(error.value).endswith(":\n    no <x>\n    way")


def test_what_is_not_installed_is_said():
    def nothing(words, _env):
        raise FileNotFoundError(words[0])

    with pytest.raises(Failure, match="there is no psql on this host. The rehearsal needs psql and pg_dump"):
        copy_of({"DATABASE_URL": URL}, "auto", nothing).make()


def test_a_dump_that_fails_fails():
    """The pipe has the status of its end, so the end has to fail, too."""
    script = Fake()
    copy_of({"DATABASE_URL": URL}, "auto", script).make()
    words = script.ran[3][0]
    for dump, status in (("true", 0), ("false", 3)):
        text = (
            words[2].replace("pg_dump --no-owner --no-acl", dump).replace("psql -Xq -v ON_ERROR_STOP=1 -d", "stand_in")
        )
        stand_in = "stand_in() { read -r line && return 3 || return 0; }\n"
        assert subprocess.run(["/bin/sh", "-c", stand_in + text, "sh", "a", "b"], check=False).returncode == status


def test_sqlite_is_copied_with_what_is_not_in_its_file_yet(tmp_path):
    path = tmp_path / "shop.db"
    live = sqlite3.connect(path)
    live.execute("pragma journal_mode=wal")
    live.execute("create table items (name text)")
    live.execute("insert into items values ('tea')")
    live.commit()

    def run(words, _env):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    copy = copy_of({"DATABASE_PATH": "shop.db"}, "auto", run, str(tmp_path))
    found = copy.make()["DATABASE_PATH"]
    assert found == f"{tmp_path}/copy.db" and sqlite3.connect(found).execute("select name from items").fetchall() == [
        ("tea",)
    ]
    sqlite3.connect(found).execute("drop table items")
    assert live.execute("select count(*) from items").fetchone() == (1,)
    copy.drop()
    with pytest.raises(Failure, match="copying the database failed"):
        copy_of({"DATABASE_PATH": "none.db"}, "auto", run, str(tmp_path)).make()
    assert not (tmp_path / "none.db").exists()


def test_a_command_of_ones_own():
    env = {"DATABASE_URL": URL, "OTHER": "x"}
    run = Fake((0, "cloning\nDATABASE_URL=mysql://copy?a=b\nPATH=/bin\n"))
    copy = copy_of(env, "clone --fast\n", run)
    assert copy.make() == {"DATABASE_URL": "mysql://copy?a=b"}
    copy.drop()
    assert [words for words, _env in run.ran] == [
        ["/bin/sh", "-c", 'clone --fast "$@"', "sh", what] for what in ("copy", "drop")
    ]
    with pytest.raises(Failure, match="printed no NAME=VALUE"):
        copy_of(env, "clone", Fake((0, f"PATH=/bin\nDATABASE_URL={URL}"))).make()
    with pytest.raises(Failure, match="neither DATABASE_URL nor DATABASE_PATH"):
        copy_of({}, "auto", Fake()).make()
